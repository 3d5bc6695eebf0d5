//===- VectorMath.cpp - elementary functions as branch-free vector code -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Polynomials are minimax fits (Remez with 60 digits; coefficients rounded to the type, the rest
// fitted again); the error beside each is that of the rounded polynomial relative to the function.
// The reductions are the classical ones: exp and log after Tang and fdlibm, tanh from exp, erf as
// 1 - exp(p(|x|)), sine by Cody and Waite (f64) and by Payne and Hanek's observation that only a
// window of the bits of 1/pi matters (f32), pow by a logarithm in double-double.
//
//===----------------------------------------------------------------------===//

#include "compiler/lowering/cpu/VectorMath.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/TypeUtilities.h"
#include <cassert>
#include <cmath>
#include <limits>

using namespace mlir;

namespace dlc::vecmath {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

//===----------------------------------------------------------------------===//
// Constants of the two types
//===----------------------------------------------------------------------===//

/// (exp(r) - 1 - r) / r^2 for |r| <= log(2) / 2; 2^-26.0 and 2^-61.2 of exp(r) - 1.
constexpr double kExpTail32[] = {0x1.fffffep-2, 0x1.5554aap-3, 0x1.5556dap-5, 0x1.122c3cp-7,
                                 0x1.6beafp-10};
constexpr double kExpTail64[] = {
    0x1.0000000000000p-1,  0x1.5555555555559p-3,  0x1.5555555555558p-5,  0x1.111111110f719p-7,
    0x1.6c16c16c174c5p-10, 0x1.a01a01af98513p-13, 0x1.a01a019f93ef3p-16, 0x1.71ddf92512614p-19,
    0x1.27e4e4f242990p-22, 0x1.af5d768fb6a93p-26, 0x1.1f748875e179dp-29};

/// (log(1 + f) - f + f^2 / 2) / f^3 for sqrt(1/2) <= 1 + f < sqrt(2); 2^-27.3.
constexpr double kLogTail32[] = {0x1.555554p-2, -0x1.00022ap-2, 0x1.99a024p-3, -0x1.54729ap-3,
                                 0x1.22d8dep-3, -0x1.0d7c66p-3, 0x1.055b18p-3, -0x1.38e868p-4};
/// (2 atanh(s) - 2 s) / s^3 in s^2 for |s| <= 3 - sqrt(8); 2^-59.3.
constexpr double kLogTail64[] = {0x1.555555555557cp-1, 0x1.9999999985756p-2, 0x1.2492493ddf6f1p-2,
                                 0x1.c71c54e25b660p-3, 0x1.7465ba32ecb01p-3, 0x1.39add78e34661p-3,
                                 0x1.2e953d167831ep-3};

/// (tanh(x) / x - 1) / x^2 in x^2 for |x| < 0.8 (2^-27.8) and |x| < 0.63 (2^-56.0).
constexpr double kTanhSmall32[] = {-0x1.555544p-2, 0x1.110c26p-3,  -0x1.b93eaep-5,
                                   0x1.5d81f2p-6,  -0x1.e8126cp-8, 0x1.a44afp-10};
constexpr double kTanhSmall64[] = {
    -0x1.5555555555525p-2,  0x1.111111110c2aep-3,  -0x1.ba1ba1b5958aep-5,  0x1.664f47884dbcbp-6,
    -0x1.226e16b6b7551p-7,  0x1.d6cf267160f7cp-9,  -0x1.7d6801568f4d5p-10, 0x1.335f161491b74p-11,
    -0x1.df0ad8560319bp-13, 0x1.42c63d493198dp-14, -0x1.0be512332a669p-16};

/// erf(x) / x - 1 in x^2 for |x| < 0.86 (2^-26.9) and |x| < 1 (2^-56.3).
constexpr double kErfSmall32[] = {0x1.06eba8p-3,  -0x1.812722p-2, 0x1.ce2478p-4,
                                  -0x1.b72462p-6, 0x1.4af788p-8,  -0x1.4a6788p-11};
constexpr double kErfSmall64[] = {
    0x1.06eba8214db69p-3,  -0x1.812746b0379e6p-2,  0x1.ce2f21a042b20p-4,  -0x1.b82ce3128499cp-6,
    0x1.565bcd0db02e5p-8,  -0x1.c02db3d8ed256p-11, 0x1.f9a321a11dc85p-14, -0x1.f4d1df3947ec5p-17,
    0x1.b9def19da952dp-20, -0x1.5f1d36bf02473p-23, 0x1.f7a412043db07p-27, -0x1.386ac0322f1bap-30,
    0x1.0579a90695522p-34};
/// log(1 - erf(x)) from there to where erf(x) rounds to 1; 2^-28.9 and 2^-62.2 of erf(x).
constexpr double kErfLarge32[] = {-0x1.e2e8a8p-14, -0x1.20c59ap+0, -0x1.45f05cp-1, -0x1.abd66ap-4,
                                  0x1.705a16p-6,   -0x1.976bacp-9, 0x1.a90ef2p-13};
constexpr double kErfLarge64[] = {
    -0x1.b2e897bc70738p-26, -0x1.20dd71390577fp+0,  -0x1.45f3231b99ab0p-1,  -0x1.a4f361eb56410p-4,
    0x1.3967e49ce744ap-6,   0x1.a5ef54647fcdbp-13,  -0x1.b6bde5c42f4ecp-10, 0x1.20f8979c6d2f3p-11,
    0x1.7fe06f42b4974p-16,  -0x1.d2d08fe57c993p-14, 0x1.10a6984bd624bp-14,  -0x1.98ec23d357d7cp-16,
    0x1.c9349e4eb6198p-18,  -0x1.8c696fff1b848p-20, 0x1.0be44433a2d86p-22,  -0x1.1644388dc2007p-25,
    0x1.ae2e157767d2bp-29,  -0x1.d297769a2338fp-33, 0x1.3ce6d271059a0p-37,  -0x1.95919e63f8c3bp-43};

/// What the algorithms below need to know of a type.
struct Format {
  unsigned width;
  unsigned mantissa; // bits stored
  unsigned bias;     // of the exponent
  double minNormal;  // below are the subnormal numbers
  uint64_t sqrtHalf; // the bits of sqrt(1/2)
  double log2e, ln2Hi, ln2Lo;
  double expMin, expMax;     // exp is 0 below, infinite above
  double expm1Min;           // expm1 is -1 below
  double tanhSplit, tanhMax; // between polynomial and exponential; tanh is 1 above
  double tiny;               // expm1(x) and log1p(x) are x below
  double erfSplit, erfMax;   // between the two polynomials; erf is 1 above
  ArrayRef<double> expTail, logTail, tanhSmall, erfSmall, erfLarge;
};

constexpr Format kF32 = {
    // clang-format off
    .width = 32, .mantissa = 23, .bias = 127,
    .minNormal = 0x1p-126, .sqrtHalf = 0x3f3504f3,
    .log2e = 0x1.715476p+0, .ln2Hi = 0x1.62e43p-1, .ln2Lo = -0x1.05c61p-29,
    .expMin = -104.0, .expMax = 89.0, .expm1Min = -18.0,
    .tanhSplit = 0x1.99999ap-1, .tanhMax = 10.0, .tiny = 0x1p-26,
    .erfSplit = 0x1.b851ecp-1, .erfMax = 4.0,
    .expTail = kExpTail32, .logTail = kLogTail32,
    .tanhSmall = kTanhSmall32, .erfSmall = kErfSmall32, .erfLarge = kErfLarge32,
    // clang-format on
};
constexpr Format kF64 = {
    // clang-format off
    .width = 64, .mantissa = 52, .bias = 1023,
    .minNormal = 0x1p-1022, .sqrtHalf = 0x3fe6a09e667f3bcd,
    .log2e = 0x1.71547652b82fep+0, .ln2Hi = 0x1.62e42fefa39efp-1, .ln2Lo = 0x1.abc9e3b39803fp-56,
    .expMin = -746.0, .expMax = 710.0, .expm1Min = -38.0,
    .tanhSplit = 0x1.428f5c28f5c29p-1, .tanhMax = 20.0, .tiny = 0x1p-55,
    .erfSplit = 1.0, .erfMax = 5.95,
    .expTail = kExpTail64, .logTail = kLogTail64,
    .tanhSmall = kTanhSmall64, .erfSmall = kErfSmall64, .erfLarge = kErfLarge64,
    // clang-format on
};

//===----------------------------------------------------------------------===//
// Emitter: arithmetic on one type
//===----------------------------------------------------------------------===//

using Cmp = arith::CmpFPredicate;

class Emitter {
public:
  Emitter(OpBuilder &b, Location loc, Type type)
      : b(b), loc(loc), type(type), format(getElementTypeOrSelf(type).isF32() ? kF32 : kF64) {
    assert((getElementTypeOrSelf(type).isF32() || getElementTypeOrSelf(type).isF64()) &&
           "the functions are for f32 and f64");
    intType = withElement(b.getIntegerType(format.width));
  }

  const Format &getFormat() const { return format; }
  bool isF32() const { return format.width == 32; }

  /// The emitter for vectors of the same shape with f64 elements.
  Emitter wide() const { return Emitter(b, loc, withElement(b.getF64Type())); }
  Value extend(Value x) const {
    return arith::ExtFOp::create(b, loc, withElement(b.getF64Type()), x);
  }
  Value truncate(Value wideValue) const { return arith::TruncFOp::create(b, loc, type, wideValue); }

  // Constants.
  Value number(double value) const {
    auto element = cast<FloatType>(getElementTypeOrSelf(type));
    return splat(type, b.getFloatAttr(element, value));
  }
  Value integer(uint64_t value) const {
    auto element = cast<IntegerType>(getElementTypeOrSelf(intType));
    return splat(intType, b.getIntegerAttr(element, APInt(format.width, value)));
  }

  // Floating point.
  Value add(Value x, Value y) const { return arith::AddFOp::create(b, loc, x, y); }
  Value sub(Value x, Value y) const { return arith::SubFOp::create(b, loc, x, y); }
  Value mul(Value x, Value y) const { return arith::MulFOp::create(b, loc, x, y); }
  Value div(Value x, Value y) const { return arith::DivFOp::create(b, loc, x, y); }
  Value add(Value x, double y) const { return add(x, number(y)); }
  Value sub(Value x, double y) const { return sub(x, number(y)); }
  Value mul(Value x, double y) const { return mul(x, number(y)); }
  Value neg(Value x) const { return arith::NegFOp::create(b, loc, x); }
  Value abs(Value x) const { return math::AbsFOp::create(b, loc, x); }
  Value sqrt(Value x) const { return math::SqrtOp::create(b, loc, x); }
  Value copySign(Value x, Value sign) const { return math::CopySignOp::create(b, loc, x, sign); }

  /// x * y + z, rounded once.
  Value fma(Value x, Value y, Value z) const { return math::FmaOp::create(b, loc, x, y, z); }
  Value fma(Value x, double y, Value z) const { return fma(x, number(y), z); }
  Value fma(Value x, double y, double z) const { return fma(x, number(y), number(z)); }

  /// c[0] + c[1] x + c[2] x^2 + ... by Horner's rule.
  Value polynomial(Value x, ArrayRef<double> c) const {
    Value sum = number(c.back());
    for (double next : llvm::reverse(c.drop_back()))
      sum = fma(sum, x, number(next));
    return sum;
  }

  // Comparison. NaN passes through atMost and atLeast; x86 has exactly this as one instruction.
  Value compare(Cmp predicate, Value x, Value y) const {
    return arith::CmpFOp::create(b, loc, predicate, x, y);
  }
  Value compare(Cmp predicate, Value x, double y) const { return compare(predicate, x, number(y)); }
  Value select(Value condition, Value x, Value y) const {
    return arith::SelectOp::create(b, loc, condition, x, y);
  }
  Value both(Value x, Value y) const { return arith::AndIOp::create(b, loc, x, y); }
  Value either(Value x, Value y) const { return arith::OrIOp::create(b, loc, x, y); }
  Value atMost(Value x, double limit) const {
    Value c = number(limit);
    return select(compare(Cmp::OLT, c, x), c, x);
  }
  Value atLeast(Value x, double limit) const {
    Value c = number(limit);
    return select(compare(Cmp::OGT, c, x), c, x);
  }

  // Bits.
  Value toBits(Value x) const { return arith::BitcastOp::create(b, loc, intType, x); }
  Value fromBits(Value x) const { return arith::BitcastOp::create(b, loc, type, x); }
  Value addBits(Value x, Value y) const { return arith::AddIOp::create(b, loc, x, y); }
  Value subBits(Value x, Value y) const { return arith::SubIOp::create(b, loc, x, y); }
  Value andBits(Value x, uint64_t y) const { return arith::AndIOp::create(b, loc, x, integer(y)); }
  Value orBits(Value x, uint64_t y) const { return arith::OrIOp::create(b, loc, x, integer(y)); }
  Value xorBits(Value x, Value y) const { return arith::XOrIOp::create(b, loc, x, y); }
  Value isZeroBits(Value x) const {
    return arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, x, integer(0));
  }
  Value shiftLeft(Value x, unsigned n) const {
    return arith::ShLIOp::create(b, loc, x, integer(n));
  }
  Value shiftRight(Value x, unsigned n) const {
    return arith::ShRUIOp::create(b, loc, x, integer(n));
  }

  /// 2^(k - bias), where the low bits of `x` are k.
  Value powerOfTwo(Value x) const { return fromBits(shiftLeft(x, format.mantissa)); }

  /// A number so large that the sum with a number of moderate size has no bits below 1: the sum is
  /// rounded to an integer and its low bits are that integer.
  double getRounder() const { return std::ldexp(1.5, format.mantissa); }

private:
  Type withElement(Type element) const {
    if (auto vector = dyn_cast<VectorType>(type))
      return vector.clone(element);
    return element;
  }
  Value splat(Type t, TypedAttr value) const {
    if (auto vector = dyn_cast<VectorType>(t))
      value = DenseElementsAttr::get(vector, Attribute(value));
    return arith::ConstantOp::create(b, loc, value);
  }

  OpBuilder &b;
  Location loc;
  Type type;
  Type intType;
  const Format &format;
};

//===----------------------------------------------------------------------===//
// Parts that several functions share
//===----------------------------------------------------------------------===//

/// x = n log(2) + r with |r| <= log(2) / 2; the low bits of `n` are n plus what the caller asked.
struct ExpReduction {
  Value n;
  Value r;
};

ExpReduction reduceExp(const Emitter &e, Value x, unsigned offset) {
  const Format &f = e.getFormat();
  double rounder = e.getRounder() + offset;
  Value shifted = e.fma(x, f.log2e, rounder);
  Value n = e.sub(shifted, rounder);
  // x - n ln2Hi has no rounding error: it is small and both terms are multiples of the same 2^-k.
  Value r = e.fma(n, -f.ln2Lo, e.fma(n, -f.ln2Hi, x));
  return {e.toBits(shifted), r};
}

/// exp(r) of the reduced argument.
Value expOfReduced(const Emitter &e, Value r) {
  Value tail = e.polynomial(r, e.getFormat().expTail);
  return e.fma(e.fma(tail, r, e.number(1.0)), r, e.number(1.0));
}

/// exp(r) - 1 of the reduced argument.
Value expm1OfReduced(const Emitter &e, Value r) {
  return e.fma(e.mul(r, r), e.polynomial(r, e.getFormat().expTail), r);
}

/// exp(x) for x <= expMax.
Value expBounded(const Emitter &e, Value x) {
  const Format &f = e.getFormat();
  auto [n, r] = reduceExp(e, e.atLeast(x, f.expMin), 2 * f.bias);
  // 2^n in two factors: each is a normal number and only the last product is rounded, to a
  // subnormal number if it must be.
  Value half = e.shiftRight(n, 1);
  Value scaled = e.mul(expOfReduced(e, r), e.powerOfTwo(half));
  return e.mul(scaled, e.powerOfTwo(e.subBits(n, half)));
}

/// A positive number u as 2^k m with m between sqrt(1/2) and sqrt(2).
struct LogReduction {
  Value biased; // k + bias, an integer
  Value m;
};

LogReduction reduceLog(const Emitter &e, Value u) {
  const Format &f = e.getFormat();
  uint64_t one = uint64_t(f.bias) << f.mantissa;
  Value bits = e.addBits(e.toBits(u), e.integer(one - f.sqrtHalf));
  Value m = e.andBits(bits, (uint64_t(1) << f.mantissa) - 1);
  return {e.shiftRight(bits, f.mantissa), e.fromBits(e.addBits(m, e.integer(f.sqrtHalf)))};
}

/// The integer `biased` minus `offset` as a number; no conversion instruction is needed (nor there
/// for 64 bits before AVX-512).
Value exponentToNumber(const Emitter &e, Value biased, Value offset) {
  const Format &f = e.getFormat();
  uint64_t twoToMantissa = uint64_t(f.bias + f.mantissa) << f.mantissa;
  return e.sub(e.fromBits(e.orBits(biased, twoToMantissa)), offset);
}
double exponentOffset(const Emitter &e, int scaling) {
  const Format &f = e.getFormat();
  return std::ldexp(1.0, f.mantissa) + f.bias + scaling;
}

/// A number u > 0, subnormal ones included, as 2^k m; k is a number.
struct LogSplit {
  Value k;
  Value m;
};

LogSplit splitLog(const Emitter &e, Value u) {
  const Format &f = e.getFormat();
  Value subnormal = e.compare(Cmp::OLT, u, f.minNormal);
  Value normal = e.select(subnormal, e.mul(u, std::ldexp(1.0, f.mantissa)), u);
  Value offset =
      e.select(subnormal, e.number(exponentOffset(e, f.mantissa)), e.number(exponentOffset(e, 0)));
  auto [biased, m] = reduceLog(e, normal);
  return {exponentToNumber(e, biased, offset), m};
}

/// k log(2) + log(1 + f).
Value logOfReduced(const Emitter &e, Value k, Value f) {
  const Format &format = e.getFormat();
  Value low = e.mul(k, format.ln2Lo);
  if (e.isF32()) {
    Value square = e.mul(f, f);
    Value cubed = e.mul(square, f);
    Value sum = e.fma(cubed, e.polynomial(f, format.logTail), low);
    return e.fma(k, format.ln2Hi, e.add(f, e.fma(square, -0.5, sum)));
  }
  // fdlibm's arrangement: log(1 + f) = f - (f^2 / 2 - s (f^2 / 2 + R)) with s = f / (2 + f).
  Value s = e.div(f, e.add(f, 2.0));
  Value z = e.mul(s, s);
  Value r = e.mul(z, e.polynomial(z, format.logTail));
  Value halfSquare = e.mul(e.mul(f, f), 0.5);
  Value rest = e.sub(halfSquare, e.fma(s, e.add(halfSquare, r), low));
  return e.fma(k, format.ln2Hi, e.sub(f, rest));
}

/// What a logarithm of u is: `finite` if u is positive and finite, else -inf, inf or NaN.
Value logCorners(const Emitter &e, Value u, Value finite) {
  Value corner = e.select(e.compare(Cmp::OEQ, u, 0.0), e.number(-kInf), e.number(kNaN));
  Value positive = e.select(e.compare(Cmp::OLT, u, kInf), finite, u);
  return e.select(e.compare(Cmp::OGT, u, 0.0), positive, corner);
}

/// log(1 + x) where u = 1 + x, rounded, is positive and finite.
Value log1pFinite(const Emitter &e, Value x, Value u) {
  const Format &f = e.getFormat();
  auto [biased, m] = reduceLog(e, u);
  Value k = exponentToNumber(e, biased, e.number(exponentOffset(e, 0)));
  // The rounding of u only served to find k: (1 + x) 2^-k - 1 comes from x itself. In quarters,
  // because 2^-k alone is subnormal for the largest x.
  Value scale = e.powerOfTwo(e.subBits(e.integer(2 * f.bias + 2), biased));
  Value reduced = e.fma(e.mul(x, 0.25), scale, e.fma(scale, 0.25, -1.0));
  Value result = logOfReduced(e, k, reduced);
  return e.select(e.compare(Cmp::OLT, e.abs(x), f.tiny), x, result);
}

//===----------------------------------------------------------------------===//
// Sine and cosine
//===----------------------------------------------------------------------===//

/// sin(pi x), or cos(pi x), of x / pi without its whole turns. Everything is f64.
Value sinCos32(const Emitter &narrow, Value x, bool cosine) {
  Emitter e = narrow.wide();
  Value wide = narrow.extend(x);

  // 1 / pi in pieces of 28 bits (the last one has 53): the product of a piece with the 24 bits of x
  // is exact, and so is its rest modulo 2, even where the product is 2^127. Together the pieces
  // reach 2^-195, i.e. 2^-67 for the largest x, while no f32 but 0 is closer than 2^-31 to a
  // multiple of pi / 2.
  constexpr double kPieces[] = {0x1.45f306cp-2, 0x1.c9c882ap-30, 0x1.4fe13a8p-60, 0x1.f47d4dp-87,
                                0x1.bb81b6cp-114};
  constexpr double kLastPiece = 0x1.4acc9e21c8210p-144;
  const double evenRounder = 2 * e.getRounder(); // to a multiple of 2
  SmallVector<Value, 5> rests;
  for (double piece : kPieces) {
    Value whole = e.sub(e.fma(wide, piece, evenRounder), evenRounder);
    rests.push_back(e.fma(wide, piece, e.neg(whole)));
  }

  // n is the integer next to the sum (for the cosine: n - 1/2). Subtracting it first keeps the sum
  // exact where it matters, near a zero.
  Value sum = rests[0];
  for (Value rest : ArrayRef(rests).drop_front())
    sum = e.add(sum, rest);
  if (cosine)
    sum = e.add(sum, 0.5);
  Value shifted = e.add(sum, e.getRounder());
  Value n = e.sub(shifted, e.getRounder());
  if (cosine)
    n = e.sub(n, 0.5);
  Value r = e.sub(rests[0], n);
  for (Value rest : ArrayRef(rests).drop_front())
    r = e.add(r, rest);
  r = e.fma(wide, kLastPiece, r);

  // sin(pi r) / r in r^2 for |r| <= 1/2; 2^-35.5.
  constexpr double kSinPi[] = {0x1.921fb5441e332p+1,  -0x1.4abbce4f102c1p+2, 0x1.466bbfbf87727p+1,
                               -0x1.32d1117861cbcp-1, 0x1.500fe27595cc0p-4,  -0x1.cc32035640e33p-8};
  Value result = e.mul(r, e.polynomial(e.mul(r, r), kSinPi));
  // An odd n turns the sign.
  Value sign = e.shiftLeft(e.toBits(shifted), 63);
  return narrow.truncate(e.fromBits(e.xorBits(e.toBits(result), sign)));
}

/// fdlibm's kernels on x - n pi / 2, which is kept in two parts.
Value sinCos64(const Emitter &e, Value x, bool cosine) {
  // pi / 2 in three parts, 161 bits. Nothing is lost with the first product (as in reduceExp); what
  // is lost with the second goes to `low`.
  constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
  constexpr double kHalfPi[] = {0x1.921fb54442d18p+0, 0x1.1a62633145c07p-54,
                                -0x1.f1976b7ed8fbcp-110};
  constexpr double kLimit = 0x1p45; // far beyond, n would not be exact

  Value shifted = e.fma(x, kTwoOverPi, e.getRounder());
  Value n = e.sub(shifted, e.getRounder());
  Value first = e.fma(n, -kHalfPi[0], x);
  Value second = e.mul(n, kHalfPi[1]);
  Value secondLow = e.fma(n, kHalfPi[1], e.neg(second));
  Value r = e.sub(first, second);
  Value low = e.sub(e.sub(e.sub(first, r), second), secondLow);
  low = e.fma(n, -kHalfPi[2], low);

  // (sin(r) / r - 1) / r^2 and (cos(r) - 1 + r^2 / 2) / r^4 for |r| <= pi / 4; 2^-58.0 and 2^-64.2.
  constexpr double kSin[] = {-0x1.5555555555549p-3, 0x1.111111110f89cp-7,   -0x1.a01a019c141cdp-13,
                             0x1.71de3578efc43p-19, -0x1.ae5e66a66e989p-26, 0x1.5d9301d1327f8p-33};
  constexpr double kCos[] = {0x1.555555555554cp-5,  -0x1.6c16c16c15217p-10,
                             0x1.a01a019cbe0a3p-16, -0x1.27e4f8116c626p-22,
                             0x1.1ee9f044f8d31p-29, -0x1.8fb0917d01994p-37};
  Value z = e.mul(r, r);
  // sin(r + low) = r + (low (1 - z / 2) + r^3 S(z))
  Value lowCos = e.fma(e.mul(z, low), -0.5, low);
  Value sine = e.add(r, e.fma(e.mul(z, r), e.polynomial(z, kSin), lowCos));
  // cos(r + low) = 1 - z / 2 + (z^2 C(z) - r low); what 1 - z / 2 loses is added again.
  Value halfSquare = e.mul(z, 0.5);
  Value one = e.number(1.0);
  Value main = e.sub(one, halfSquare);
  Value lost = e.sub(e.sub(one, main), halfSquare);
  Value tail = e.fma(e.mul(z, z), e.polynomial(z, kCos), e.fma(e.neg(r), low, lost));
  Value cosineOfR = e.add(main, tail);

  // sin x = sin r, cos r, -sin r, -cos r for n = 0, 1, 2, 3 modulo 4; cos x is one ahead.
  Value quadrant = e.toBits(shifted);
  if (cosine)
    quadrant = e.addBits(quadrant, e.integer(1));
  Value result = e.select(e.isZeroBits(e.andBits(quadrant, 1)), sine, cosineOfR);
  Value sign = e.shiftLeft(e.andBits(quadrant, 2), 62);
  result = e.fromBits(e.xorBits(e.toBits(result), sign));
  Value magnitude = e.abs(x);
  if (!cosine) // -0 stays -0
    result = e.select(e.compare(Cmp::OLT, magnitude, 0x1p-27), x, result);
  return e.select(e.compare(Cmp::OLT, magnitude, kLimit), result, e.number(kNaN));
}

//===----------------------------------------------------------------------===//
// Power
//===----------------------------------------------------------------------===//

/// |x|^y in f64 for f32 operands: exact enough that one rounding to f32 remains.
Value powMagnitude32(const Emitter &narrow, Value x, Value y) {
  Emitter e = narrow.wide();
  Value base = narrow.extend(narrow.abs(x));
  auto [biased, m] = reduceLog(e, base); // no f32 but 0 is subnormal as an f64
  Value k = exponentToNumber(e, biased, e.number(exponentOffset(e, 0)));
  // log2(m) / s in s^2 with s = (m - 1) / (m + 1); 2^-45.1.
  constexpr double kLog2[] = {0x1.71547652b8251p+1, 0x1.ec709dc53ce3fp-1, 0x1.2776c2921c2c3p-1,
                              0x1.a61a30041195bp-2, 0x1.47951af272017p-2, 0x1.21b48d1d3e799p-2};
  Value s = e.div(e.sub(m, 1.0), e.add(m, 1.0));
  Value log2 = e.fma(s, e.polynomial(e.mul(s, s), kLog2), k);
  log2 = e.select(e.compare(Cmp::OLT, base, kInf), log2, base);
  log2 = e.select(e.compare(Cmp::OEQ, base, 0.0), e.number(-kInf), log2);

  // The result is 0 or inf as an f32 long before these bounds; the first two keep inf from log2(1).
  y = narrow.atLeast(narrow.atMost(y, 0x1p60), -0x1p60);
  Value t = e.atLeast(e.atMost(e.mul(narrow.extend(y), log2), 200.0), -200.0);
  double rounder = e.getRounder() + e.getFormat().bias;
  Value shifted = e.add(t, rounder);
  Value f = e.sub(t, e.sub(shifted, rounder));
  // (2^f - 1) / f for |f| <= 1/2; 2^-34.3.
  constexpr double kExp2[] = {0x1.62e42ff0e293fp-1, 0x1.ebfbe077d441ep-3,  0x1.c6b08abecd147p-5,
                              0x1.3b29f34e29f1bp-7, 0x1.5d8a86ff47848p-10, 0x1.445cc8f8027f5p-13,
                              0x1.fde5a4be3d565p-17};
  Value p = e.fma(f, e.polynomial(f, kExp2), e.number(1.0));
  return narrow.truncate(e.mul(p, e.powerOfTwo(e.toBits(shifted))));
}

/// |x|^y: the logarithm as a sum of two numbers with together about 64 bits.
Value powMagnitude64(const Emitter &e, Value x, Value y) {
  const Format &format = e.getFormat();
  Value base = e.abs(x);
  auto [k, m] = splitLog(e, base);

  // s = (m - 1) / (m + 1) = sHi + sLo.
  Value f = e.sub(m, 1.0);
  Value d = e.add(f, 2.0);
  Value dLo = e.sub(f, e.sub(d, 2.0));
  Value inverse = e.div(e.number(1.0), d);
  Value sHi = e.mul(f, inverse);
  Value remainder = e.fma(e.neg(sHi), d, f);
  Value sLo = e.mul(e.fma(e.neg(sHi), dLo, remainder), inverse);

  // log(m) = 2 s (1 + z / 3 + z^2 R(z)) with z = s^2; (atanh(s) / s - 1 - z / 3) / z^2, 2^-66.
  constexpr double kAtanh[] = {0x1.9999999999996p-3, 0x1.2492492492f53p-3, 0x1.c71c71c5962b0p-4,
                               0x1.745d18299411bp-4, 0x1.3b1364b643365p-4, 0x1.112072573eff5p-4,
                               0x1.de3ce68ed6ed6p-5, 0x1.eaca7d4a6ebf2p-5};
  constexpr double kThird = 0x1.5555555555555p-2, kThirdLo = 0x1.5555555555555p-56;
  Value s2 = e.add(sHi, sHi), s2Lo = e.add(sLo, sLo);
  Value z = e.mul(sHi, sHi);
  Value zLo = e.fma(s2, sLo, e.fma(sHi, sHi, e.neg(z)));
  Value third = e.mul(z, kThird);
  Value thirdLo = e.fma(zLo, kThird, e.fma(z, kThirdLo, e.fma(z, kThird, e.neg(third))));
  Value rest = e.mul(e.mul(z, z), e.polynomial(z, kAtanh));
  Value w = e.add(third, rest);
  Value wLo = e.add(e.add(e.sub(third, w), rest), thirdLo);
  Value p = e.mul(s2, w);
  Value pLo = e.fma(s2, wLo, e.fma(s2Lo, w, e.fma(s2, w, e.neg(p))));

  // log(x) = k log(2) + 2 s + p. 42 bits of log(2), so that k times it is exact.
  constexpr double kLn2 = 0x1.62e42fefa3800p-1, kLn2Lo = 0x1.ef35793c76730p-45;
  Value kLog = e.mul(k, kLn2);
  Value sum1 = e.add(kLog, s2);
  Value lost1 = e.add(e.sub(kLog, sum1), s2);
  Value sum2 = e.add(sum1, p);
  Value lost2 = e.add(e.sub(sum1, sum2), p);
  Value small = e.fma(k, kLn2Lo, e.add(e.add(s2Lo, pLo), e.add(lost1, lost2)));
  Value log = e.add(sum2, small);
  Value logLo = e.add(e.sub(sum2, log), small);
  log = e.select(e.compare(Cmp::OLT, base, kInf), log, base);
  log = e.select(e.compare(Cmp::OEQ, base, 0.0), e.number(-kInf), log);

  // t = y log(x). With |y| <= 2^64 nothing overflows, and no larger y gives another result.
  y = e.atLeast(e.atMost(y, 0x1p64), -0x1p64);
  Value product = e.mul(y, log);
  Value productLo = e.fma(y, logLo, e.fma(y, log, e.neg(product)));
  Value t = e.atLeast(e.atMost(product, format.expMax), format.expMin);
  productLo = e.select(e.compare(Cmp::OEQ, t, product), productLo, e.number(0.0));
  auto [n, r] = reduceExp(e, t, 2 * format.bias);
  Value exp = expOfReduced(e, e.add(r, productLo));
  Value half = e.shiftRight(n, 1);
  return e.mul(e.mul(exp, e.powerOfTwo(half)), e.powerOfTwo(e.subBits(n, half)));
}

} // namespace

//===----------------------------------------------------------------------===//
// The functions
//===----------------------------------------------------------------------===//

Value emitExp(OpBuilder &b, Location loc, Value x) {
  Emitter e(b, loc, x.getType());
  return expBounded(e, e.atMost(x, e.getFormat().expMax));
}

Value emitExpm1(OpBuilder &b, Location loc, Value x) {
  Emitter e(b, loc, x.getType());
  const Format &f = e.getFormat();
  Value bounded = e.atLeast(e.atMost(x, f.expMax), f.expm1Min);
  // Half of the result, because 2^n may be 2^128 (2^1024) where the result is still finite.
  auto [n, r] = reduceExp(e, bounded, f.bias - 1);
  Value scale = e.powerOfTwo(n);
  Value half = e.fma(expm1OfReduced(e, r), scale, e.sub(scale, 0.5));
  // Half a subnormal number is not one; -0 stays -0.
  return e.select(e.compare(Cmp::OLT, e.abs(x), f.tiny), x, e.add(half, half));
}

Value emitLog(OpBuilder &b, Location loc, Value x) {
  Emitter e(b, loc, x.getType());
  auto [k, m] = splitLog(e, x);
  return logCorners(e, x, logOfReduced(e, k, e.sub(m, 1.0)));
}

Value emitLog1p(OpBuilder &b, Location loc, Value x) {
  Emitter e(b, loc, x.getType());
  Value u = e.add(x, 1.0);
  return logCorners(e, u, log1pFinite(e, x, u));
}

Value emitTanh(OpBuilder &b, Location loc, Value x) {
  Emitter e(b, loc, x.getType());
  const Format &f = e.getFormat();
  Value magnitude = e.abs(x);
  Value square = e.mul(magnitude, magnitude);
  Value small = e.fma(e.mul(square, magnitude), e.polynomial(square, f.tanhSmall), magnitude);
  // 1 - 2 / (exp(2 |x|) + 1): the quotient is below 1/2 here, and so are its errors.
  Value bounded = e.atMost(magnitude, f.tanhMax);
  auto [n, r] = reduceExp(e, e.add(bounded, bounded), f.bias);
  Value denominator = e.fma(expOfReduced(e, r), e.powerOfTwo(n), e.number(1.0));
  Value large = e.sub(e.number(1.0), e.div(e.number(2.0), denominator));
  Value result = e.select(e.compare(Cmp::OLT, magnitude, f.tanhSplit), small, large);
  return e.copySign(result, x);
}

Value emitErf(OpBuilder &b, Location loc, Value x) {
  Emitter e(b, loc, x.getType());
  const Format &f = e.getFormat();
  Value small = e.fma(x, e.polynomial(e.mul(x, x), f.erfSmall), x);
  // 1 - exp(p(|x|)): exp is below 0.2 here, so its own error counts little.
  Value magnitude = e.abs(x);
  Value bounded = e.atMost(magnitude, f.erfMax);
  auto [n, r] = reduceExp(e, e.polynomial(bounded, f.erfLarge), f.bias);
  Value large = e.fma(e.neg(expOfReduced(e, r)), e.powerOfTwo(n), e.number(1.0));
  return e.select(e.compare(Cmp::OLT, magnitude, f.erfSplit), small, e.copySign(large, x));
}

Value emitSin(OpBuilder &b, Location loc, Value x) {
  Emitter e(b, loc, x.getType());
  return e.isF32() ? sinCos32(e, x, /*cosine=*/false) : sinCos64(e, x, /*cosine=*/false);
}

Value emitCos(OpBuilder &b, Location loc, Value x) {
  Emitter e(b, loc, x.getType());
  return e.isF32() ? sinCos32(e, x, /*cosine=*/true) : sinCos64(e, x, /*cosine=*/true);
}

Value emitSigmoid(OpBuilder &b, Location loc, Value x) {
  Emitter e(b, loc, x.getType());
  Value one = e.number(1.0);
  Value exp = expBounded(e, e.neg(e.abs(x)));
  Value numerator = e.select(e.compare(Cmp::OGE, x, 0.0), one, exp);
  Value denominator = e.add(exp, one);
  Value quotient = e.div(numerator, denominator);
  // The denominator lost a little of exp; its share of the quotient is taken off again (to first
  // order, with 1 / denominator as 2 - denominator).
  Value kept = e.sub(denominator, one);
  Value lost = e.sub(exp, kept);
  return e.fma(e.neg(quotient), e.fma(e.neg(lost), kept, lost), quotient);
}

Value emitSoftplus(OpBuilder &b, Location loc, Value x) {
  Emitter e(b, loc, x.getType());
  Value exp = expBounded(e, e.neg(e.abs(x)));
  return e.add(e.atLeast(x, 0.0), log1pFinite(e, exp, e.add(exp, 1.0)));
}

Value emitSqrt(OpBuilder &b, Location loc, Value x) { return Emitter(b, loc, x.getType()).sqrt(x); }

Value emitRsqrt(OpBuilder &b, Location loc, Value x) {
  Emitter e(b, loc, x.getType());
  return e.div(e.number(1.0), e.sqrt(x));
}

Value emitPow(OpBuilder &b, Location loc, Value x, Value y) {
  Emitter e(b, loc, x.getType());
  const Format &f = e.getFormat();
  Value magnitude = e.isF32() ? powMagnitude32(e, x, y) : powMagnitude64(e, x, y);

  // |y| minus the even integer next to it: 0 if y is even (as all large y are), 1 or -1 if it is
  // odd.
  Value bounded = e.atMost(e.abs(y), std::ldexp(1.0, f.mantissa + 1));
  double rounder = std::ldexp(1.0, f.mantissa + 1);
  Value even = e.sub(e.add(bounded, rounder), rounder);
  Value distance = e.abs(e.sub(bounded, even));

  // A negative base: the sign of an odd power, NaN unless y is an integer or the base is -inf.
  Value odd = e.compare(Cmp::OEQ, distance, 1.0);
  Value sign = e.select(odd, e.andBits(e.toBits(x), uint64_t(1) << (f.width - 1)), e.integer(0));
  Value result = e.fromBits(e.xorBits(e.toBits(magnitude), sign));
  Value fractional = e.compare(Cmp::UNE, e.mul(distance, distance), distance);
  Value negative = e.both(e.compare(Cmp::OLT, x, 0.0), e.compare(Cmp::OGT, x, -kInf));
  result = e.select(e.both(negative, fractional), e.number(kNaN), result);

  // 1^y and x^0 are 1, NaN or not.
  Value isOne = e.either(e.compare(Cmp::OEQ, x, 1.0), e.compare(Cmp::OEQ, y, 0.0));
  return e.select(isOne, e.number(1.0), result);
}

//===----------------------------------------------------------------------===//
// The table of names
//===----------------------------------------------------------------------===//

template <Value (*emit)(OpBuilder &, Location, Value)>
static Value emitUnary(OpBuilder &b, Location loc, ValueRange operands) {
  return emit(b, loc, operands[0]);
}

static Value emitBinaryPow(OpBuilder &b, Location loc, ValueRange operands) {
  return emitPow(b, loc, operands[0], operands[1]);
}

ArrayRef<MathOp> getMathOps() {
  static constexpr MathOp kOps[] = {
      {"exp", 1, emitUnary<emitExp>},
      {"expm1", 1, emitUnary<emitExpm1>},
      {"log", 1, emitUnary<emitLog>},
      {"log1p", 1, emitUnary<emitLog1p>},
      {"tanh", 1, emitUnary<emitTanh>},
      {"erf", 1, emitUnary<emitErf>},
      {"sin", 1, emitUnary<emitSin>},
      {"cos", 1, emitUnary<emitCos>},
      {"sigmoid", 1, emitUnary<emitSigmoid>},
      {"softplus", 1, emitUnary<emitSoftplus>},
      {"sqrt", 1, emitUnary<emitSqrt>},
      {"rsqrt", 1, emitUnary<emitRsqrt>},
      {"pow", 2, emitBinaryPow},
  };
  return kOps;
}

std::optional<Value> emitMathOp(OpBuilder &b, Location loc, StringRef name, ValueRange operands) {
  for (const MathOp &op : getMathOps()) {
    if (op.name != name || op.numOperands != operands.size())
      continue;
    for (Type type : operands.getTypes())
      if (type != operands[0].getType() ||
          !(getElementTypeOrSelf(type).isF32() || getElementTypeOrSelf(type).isF64()) ||
          !(isa<VectorType>(type) || isa<FloatType>(type)))
        return std::nullopt;
    return op.emit(b, loc, operands);
  }
  return std::nullopt;
}

} // namespace dlc::vecmath
