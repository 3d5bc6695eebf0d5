//===- Arithmetic.cpp - what LLVM IR has no instruction for -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Rounding modes other than to nearest, small floats, approximations, bit fields. The processor's
// rounding mode is never changed: f32 is computed exactly in two doubles and then rounded, f64 by
// APFloat.
//
//===----------------------------------------------------------------------===//

#include "Execution.h"
#include "Modes.h"
#include "llvm/ADT/APFloat.h"
#include "llvm/ADT/bit.h"
#include <cmath>

using namespace llvm;

namespace standin {
namespace {

APFloat::roundingMode modeOf(uint32_t mode) {
  switch (mode) {
  case RoundZero: return APFloat::rmTowardZero;
  case RoundDown: return APFloat::rmTowardNegative;
  case RoundUp: return APFloat::rmTowardPositive;
  case RoundAway: return APFloat::rmNearestTiesToAway;
  default: return APFloat::rmNearestTiesToEven;
  }
}

/// The float nearest in the mode to sum + error, where sum is that rounded to a double and only the
/// sign of error counts (with |error| at most half an ulp of sum).
float roundPair(double sum, double error, uint32_t mode) {
  float nearest = float(sum);
  if (std::isnan(sum) || std::isinf(sum))
    return nearest;
  // Where the exact value lies from `nearest`; the difference of nearest and sum is exact.
  double off = double(nearest) - sum;
  if (off == 0)
    off = -error;
  switch (mode) {
  case RoundZero:
    if (sum > 0 ? off > 0 : off < 0)
      return std::nextafter(nearest, 0.0f);
    return nearest;
  case RoundDown: return off > 0 ? std::nextafter(nearest, -INFINITY) : nearest;
  case RoundUp: return off < 0 ? std::nextafter(nearest, INFINITY) : nearest;
  default: { // to nearest: a tie of sum is none of the exact value
    if (error == 0 || std::isinf(nearest))
      return nearest;
    float other = std::nextafter(nearest, double(nearest) < sum ? INFINITY : -INFINITY);
    double middle = (double(nearest) + double(other)) / 2;
    if (sum == middle && (error > 0) == (other > nearest))
      return other;
    return nearest;
  }
  }
}

struct Pair {
  double sum, error;
};
Pair twoSum(double a, double b) {
  double sum = a + b, part = sum - a;
  return {sum, (a - (sum - part)) + (b - part)};
}
/// Knuth's error is NaN where the sum overflows or is no number; it is 0 then.
Pair exactSum(double a, double b) {
  Pair pair = twoSum(a, b);
  if (std::isnan(pair.error))
    pair.error = 0;
  return pair;
}
/// A sum that is exactly 0 is -0 when rounding down, unless both parts are +0.
float signedZero(float value, double a, double b, uint32_t mode) {
  if (value == 0 && a == -b && mode == RoundDown && !(a == 0 && b == 0 && !std::signbit(a) && !std::signbit(b)))
    return -0.0f;
  return value;
}

float add_f32(float a, float b, uint32_t mode) {
  Pair pair = exactSum(a, b);
  return signedZero(roundPair(pair.sum, pair.error, mode), a, b, mode);
}
float mul_f32(float a, float b, uint32_t mode) { return roundPair(double(a) * double(b), 0, mode); }
float fma_f32(float a, float b, float c, uint32_t mode) {
  double product = double(a) * double(b);
  Pair pair = exactSum(product, c);
  return signedZero(roundPair(pair.sum, pair.error, mode), product, c, mode);
}
float div_f32(float a, float b, uint32_t mode) {
  double quotient = double(a) / double(b);
  if (std::isinf(quotient) || std::isnan(quotient) || quotient == 0 || b == 0 || std::isinf(b))
    return float(quotient);
  double rest = std::fma(-quotient, double(b), double(a)); // its sign with b's is the error's
  return roundPair(quotient, b < 0 ? -rest : rest, mode);
}
float sqrt_f32(float a, uint32_t mode) {
  double root = std::sqrt(double(a));
  return roundPair(root, root > 0 && !std::isinf(root) ? std::fma(-root, root, double(a)) : 0, mode);
}

double add_f64(double a, double b, uint32_t mode) {
  APFloat x(a);
  x.add(APFloat(b), modeOf(mode));
  return x.convertToDouble();
}
double mul_f64(double a, double b, uint32_t mode) {
  APFloat x(a);
  x.multiply(APFloat(b), modeOf(mode));
  return x.convertToDouble();
}
double fma_f64(double a, double b, double c, uint32_t mode) {
  APFloat x(a);
  x.fusedMultiplyAdd(APFloat(b), APFloat(c), modeOf(mode));
  return x.convertToDouble();
}
double div_f64(double a, double b, uint32_t mode) {
  APFloat x(a);
  x.divide(APFloat(b), modeOf(mode));
  return x.convertToDouble();
}
double sqrt_f64(double a, uint32_t mode) {
  double root = std::sqrt(a);
  if (!(root > 0) || std::isinf(root))
    return root;
  // fma's exact residue a - root² fails only where root² underflows: scale by an even power.
  int scale = 0;
  if (a < 0x1p-900) {
    scale = 300;
    a *= 0x1p600;
    root = std::sqrt(a);
  }
  double rest = std::fma(-root, root, a);
  if (rest < 0 && (mode == RoundZero || mode == RoundDown))
    root = std::nextafter(root, 0.0);
  else if (rest > 0 && mode == RoundUp)
    root = std::nextafter(root, INFINITY);
  return std::ldexp(root, -scale); // exact: roots of doubles are normal
}

//===--- Conversions ------------------------------------------------------===//

const fltSemantics &semantics(uint32_t format) {
  switch (format) {
  case FormatF16: return APFloat::IEEEhalf();
  case FormatBF16: return APFloat::BFloat();
  case FormatF32: return APFloat::IEEEsingle();
  default: return APFloat::IEEEdouble();
  }
}
unsigned formatBits(uint32_t format) { return format == FormatF64 ? 64 : format == FormatF32 ? 32 : 16; }
APFloat fromBits(uint64_t bits, uint32_t format) { return APFloat(semantics(format), APInt(formatBits(format), bits, false, true)); }

uint64_t cvt_float(uint64_t bits, uint32_t from, uint32_t to, uint32_t mode) {
  APFloat value = fromBits(bits, from);
  bool loses;
  value.convert(semantics(to), modeOf(mode), &loses);
  return value.bitcastToAPInt().getZExtValue();
}
uint64_t cvt_int(uint64_t value, uint32_t isSigned, uint32_t to, uint32_t mode) {
  APFloat result(semantics(to));
  result.convertFromAPInt(APInt(64, value), isSigned, modeOf(mode));
  return result.bitcastToAPInt().getZExtValue();
}

float widen16(uint32_t bits, uint32_t format) {
  if (format == FormatBF16)
    return bit_cast<float>(uint32_t(bits) << 16);
  uint32_t sign = (bits & 0x8000) << 16, exponent = bits >> 10 & 31, mantissa = bits & 0x3ff;
  if (exponent == 31)
    return bit_cast<float>(sign | 0x7f800000 | mantissa << 13);
  if (exponent)
    return bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  float small = float(mantissa) * 0x1p-24f;
  return sign ? -small : small;
}
/// To nearest even. `value` may be a double that was rounded to odd, which 53 bits allow.
uint16_t narrow16(double value, uint32_t format) {
  if (std::isnan(value))
    return 0x7fff;
  unsigned mantissaBits = format == FormatBF16 ? 7 : 10;
  int lowest = format == FormatBF16 ? -126 : -14, highest = format == FormatBF16 ? 127 : 15;
  uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  double size = std::fabs(value);
  uint16_t infinity = uint16_t((highest - lowest + 2) << mantissaBits);
  if (std::isinf(size))
    return sign | infinity;
  if (size == 0)
    return sign;
  int exponent = std::max(std::ilogb(size), lowest);
  // In units of the last place; nearbyint rounds to even, as the process does by default.
  double units = std::nearbyint(std::ldexp(size, int(mantissaBits) - exponent));
  uint32_t encoded = uint32_t(units) + (uint32_t(exponent - lowest) << mantissaBits);
  return encoded >= infinity ? sign | infinity : uint16_t(sign | encoded);
}
double toOdd(Pair pair) {
  uint64_t bits = bit_cast<uint64_t>(pair.sum);
  if (pair.error == 0 || (bits & 1) || std::isinf(pair.sum))
    return pair.sum;
  if (pair.sum == 0)
    return pair.error;
  return bit_cast<double>((pair.error > 0) == (pair.sum > 0) ? bits + 1 : bits - 1);
}

uint32_t add_16(uint32_t a, uint32_t b, uint32_t format) { return narrow16(toOdd(exactSum(widen16(a, format), widen16(b, format))), format); }
uint32_t mul_16(uint32_t a, uint32_t b, uint32_t format) { return narrow16(double(widen16(a, format)) * widen16(b, format), format); }
uint32_t fma_16(uint32_t a, uint32_t b, uint32_t c, uint32_t format) {
  return narrow16(toOdd(exactSum(double(widen16(a, format)) * widen16(b, format), widen16(c, format))), format);
}
uint32_t narrow_16(double value, uint32_t format) { return narrow16(value, format); }

//===--- Approximations: computed in double, rounded once -----------------===//

float ex2_f32(float x) { return float(std::exp2(double(x))); }
float lg2_f32(float x) { return float(std::log2(double(x))); }
float rcp_f32(float x) { return float(1.0 / double(x)); }
float rsqrt_f32(float x) { return std::signbit(x) && x == 0 ? -INFINITY : float(1.0 / std::sqrt(double(x))); }
double rsqrt_f64(double x) { return std::signbit(x) && x == 0 ? -double(INFINITY) : 1.0 / std::sqrt(x); }
float sin_f32(float x) { return float(std::sin(double(x))); }
float cos_f32(float x) { return float(std::cos(double(x))); }
float tanh_f32(float x) { return float(std::tanh(double(x))); }

//===--- Bits -------------------------------------------------------------===//

uint64_t bfe(uint64_t a, uint32_t b, uint32_t c, uint32_t width, uint32_t isSigned) {
  uint32_t at = b & 0xff, count = c & 0xff;
  if (width == 32)
    a = isSigned ? uint64_t(int64_t(int32_t(a))) : a & 0xffffffff;
  if (!count)
    return 0;
  if (!isSigned) {
    uint64_t shifted = at >= width ? 0 : a >> at;
    return count >= 64 ? shifted : shifted & ((uint64_t(1) << count) - 1);
  }
  uint32_t last = std::min(at + count - 1, width - 1);
  bool sign = a >> last & 1;
  if (at >= width)
    return sign ? ~uint64_t(0) : 0;
  uint32_t taken = last - at + 1;
  uint64_t mask = taken >= 64 ? ~uint64_t(0) : (uint64_t(1) << taken) - 1;
  uint64_t field = a >> at & mask;
  return sign ? field | ~mask : field;
}
uint64_t bfi(uint64_t a, uint64_t b, uint32_t c, uint32_t d, uint32_t width) {
  uint32_t at = c & 0xff, count = d & 0xff;
  if (at >= width || !count)
    return b;
  uint64_t mask = count >= 64 ? ~uint64_t(0) : (uint64_t(1) << count) - 1;
  return (b & ~(mask << at)) | (a & mask) << at;
}
uint32_t bmsk(uint32_t a, uint32_t b, uint32_t clamps) {
  if (!clamps) {
    a &= 31;
    b &= 31;
  }
  if (a >= 32 || !b)
    return 0;
  return uint32_t((b >= 32 ? 0xffffffffull : (uint64_t(1) << b) - 1) << a);
}
uint32_t prmt(uint32_t a, uint32_t b, uint32_t c, uint32_t mode) {
  uint64_t bytes = uint64_t(b) << 32 | a;
  auto byte = [&](uint32_t i) { return uint32_t(bytes >> (i & 7) * 8) & 0xff; };
  uint32_t result = 0, s = c & 3;
  for (uint32_t i = 0; i < 4; ++i) {
    uint32_t value;
    switch (mode) {
    case 1: value = byte(s + i); break;                     // f4e
    case 2: value = byte(s - i); break;                     // b4e
    case 3: value = byte(s); break;                         // rc8
    case 4: value = byte(std::max(i, s)); break;            // ecl
    case 5: value = byte(std::min(i, s)); break;            // ecr
    case 6: value = byte((c & 1) * 2 + (i & 1)); break;     // rc16
    default: {
      uint32_t select = c >> 4 * i;
      value = byte(select);
      if (select & 8)
        value = value & 0x80 ? 0xff : 0;
    }
    }
    result |= value << 8 * i;
  }
  return result;
}
uint32_t dp4a(uint32_t a, uint32_t b, uint32_t c, uint32_t signs) {
  for (int i = 0; i < 32; i += 8) {
    int32_t x = signs & 1 ? int32_t(int8_t(a >> i)) : int32_t(uint8_t(a >> i));
    int32_t y = signs & 2 ? int32_t(int8_t(b >> i)) : int32_t(uint8_t(b >> i));
    c += uint32_t(x * y);
  }
  return c;
}
uint32_t dp2a(uint32_t a, uint32_t b, uint32_t c, uint32_t signs, uint32_t high) {
  for (int i = 0; i < 2; ++i) {
    uint32_t half = a >> 16 * i & 0xffff, byte = b >> (8 * i + (high ? 16 : 0)) & 0xff;
    int32_t x = signs & 1 ? int32_t(int16_t(half)) : int32_t(half);
    int32_t y = signs & 2 ? int32_t(int8_t(byte)) : int32_t(byte);
    c += uint32_t(x) * uint32_t(y);
  }
  return c;
}

} // namespace

std::vector<std::pair<const char *, void *>> arithmeticRoutines() {
#define ROUTINE(name) {"standin_" #name, reinterpret_cast<void *>(&name)}
  return {ROUTINE(add_f32), ROUTINE(mul_f32), ROUTINE(fma_f32), ROUTINE(div_f32), ROUTINE(sqrt_f32), ROUTINE(add_f64), ROUTINE(mul_f64),
          ROUTINE(fma_f64), ROUTINE(div_f64), ROUTINE(sqrt_f64), ROUTINE(cvt_float), ROUTINE(cvt_int), ROUTINE(widen16), ROUTINE(narrow_16),
          ROUTINE(add_16), ROUTINE(mul_16), ROUTINE(fma_16), ROUTINE(ex2_f32), ROUTINE(lg2_f32), ROUTINE(rcp_f32), ROUTINE(rsqrt_f32),
          ROUTINE(rsqrt_f64), ROUTINE(sin_f32), ROUTINE(cos_f32), ROUTINE(tanh_f32), ROUTINE(bfe), ROUTINE(bfi), ROUTINE(bmsk), ROUTINE(prmt),
          ROUTINE(dp4a), ROUTINE(dp2a)};
#undef ROUTINE
}

} // namespace standin
