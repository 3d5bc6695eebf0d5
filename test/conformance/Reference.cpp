//===- Reference.cpp - dl programs, read by a plain interpreter -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "test/conformance/Reference.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/Support/ErrorHandling.h"
#include <cmath>
#include <functional>
#include <numeric>

using namespace mlir;

namespace dlc::test {

static constexpr double kInf = std::numeric_limits<double>::infinity();
static constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

int64_t Array::countOf(ArrayRef<int64_t> dims) {
  int64_t count = 1;
  for (int64_t dim : dims)
    count *= dim;
  return count;
}

static bool isFloat(Type element) { return isa<FloatType>(element); }

/// A whole number as an integer type of `bits` keeps it.
static int64_t wrap(int64_t value, unsigned bits, bool isUnsigned) {
  if (bits >= 64)
    return value;
  uint64_t low = static_cast<uint64_t>(value) & ((uint64_t(1) << bits) - 1);
  bool isNegative = !isUnsigned && bits > 1 && (low >> (bits - 1));
  return static_cast<int64_t>(isNegative ? low | ~((uint64_t(1) << bits) - 1) : low);
}

double roundTo(double value, Type element) {
  if (element.isF32())
    return static_cast<float>(value);
  if (isFloat(element))
    return value;
  return static_cast<double>(wrap(static_cast<int64_t>(value), element.getIntOrFloatBitWidth(), element.isUnsignedInteger()));
}

int64_t evaluateSize(AffineExpr size, ArrayRef<int64_t> dims) {
  SmallVector<AffineExpr> constants;
  for (int64_t dim : dims)
    constants.push_back(getAffineConstantExpr(dim, size.getContext()));
  return cast<AffineConstantExpr>(simplifyAffineExpr(size.replaceSymbols(constants), 0, 0)).getValue();
}

std::vector<int64_t> evaluateShape(Type type, ArrayRef<int64_t> dims) {
  std::vector<int64_t> shape;
  for (AffineExpr size : dl::sizesOf(cast<RankedTensorType>(type)))
    shape.push_back(evaluateSize(size, dims));
  return shape;
}

//===--- indices ---===//

using Index = std::vector<int64_t>;

static void forEach(ArrayRef<int64_t> dims, llvm::function_ref<void(const Index &)> body) {
  if (Array::countOf(dims) == 0)
    return;
  Index index(dims.size(), 0);
  for (;;) {
    body(index);
    int64_t axis = static_cast<int64_t>(dims.size()) - 1;
    while (axis >= 0 && ++index[axis] == dims[axis])
      index[axis--] = 0;
    if (axis < 0)
      return;
  }
}
static int64_t numberOf(ArrayRef<int64_t> dims, ArrayRef<int64_t> index) {
  int64_t number = 0;
  for (size_t axis = 0; axis < dims.size(); ++axis)
    number = number * dims[axis] + index[axis];
  return number;
}
static Array makeArray(Type type, ArrayRef<int64_t> sizes) {
  Array array;
  array.element = cast<RankedTensorType>(type).getElementType();
  array.dims = evaluateShape(type, sizes);
  array.values.resize(array.count());
  return array;
}

//===--- exactness ---===//

/// The largest power of two that all numbers are multiples of.
static double granularity(ArrayRef<double> values) {
  double smallest = kInf;
  for (double value : values) {
    if (value == 0 || !std::isfinite(value))
      continue;
    int exponent;
    double mantissa = std::frexp(std::fabs(value), &exponent);
    int64_t bits = static_cast<int64_t>(std::ldexp(mantissa, 53));
    smallest = std::min(smallest, std::ldexp(1.0, exponent - 53 + llvm::countr_zero(static_cast<uint64_t>(bits))));
  }
  return smallest;
}
/// Of the finite ones: infinities and NaN come out the same in any order.
static double sumOfMagnitudes(ArrayRef<double> values) {
  double sum = 0;
  for (double value : values)
    if (std::isfinite(value))
      sum += std::fabs(value);
  return sum;
}
/// Sums of magnitude up to `total` of multiples of `unit` need no rounding.
static bool fits(double total, double unit, Type element) {
  if (!isFloat(element))
    return true;
  return unit == kInf || total == 0 || total / unit < (element.isF32() ? 0x1p24 : 0x1p53);
}

//===--- elementwise ops ---===//

namespace {
enum Traits : unsigned {
  None = 0,
  Rounds = 1, // the result of exact operands is exact unless it had to be rounded, which is looked at
  Jumps = 2,  // the value or the derivative jumps where the operand (or the first minus the second) is 0
  Whole = 4,  // … where the operand (or the quotient) is a whole number, or half of one
};
struct Formula {
  unsigned arity;
  double (*number)(const double *x);
  int64_t (*integer)(const int64_t *x) = nullptr;
  unsigned traits = None;
};
} // namespace

static int64_t unsignedOp(int64_t a, int64_t b, uint64_t (*op)(uint64_t, uint64_t)) {
  return static_cast<int64_t>(op(static_cast<uint64_t>(a), static_cast<uint64_t>(b)));
}
static int64_t floorQuotient(int64_t a, int64_t b) {
  if (b == 0)
    return 0;
  if (b == -1)
    return unsignedOp(0, a, [](uint64_t x, uint64_t y) { return x - y; });
  int64_t q = a / b;
  return q * b != a && (a < 0) != (b < 0) ? q - 1 : q;
}

static double geluTanhInner(double x) { return std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x); }

#define NUMBER [](const double *x) -> double
#define INTEGER [](const int64_t *x) -> int64_t

static const llvm::StringMap<Formula> &formulas() {
  static const llvm::StringMap<Formula> table = {
      {"dl.add", {2, NUMBER { return x[0] + x[1]; }, INTEGER { return unsignedOp(x[0], x[1], [](uint64_t a, uint64_t b) { return a + b; }); }, Rounds}},
      {"dl.sub", {2, NUMBER { return x[0] - x[1]; }, INTEGER { return unsignedOp(x[0], x[1], [](uint64_t a, uint64_t b) { return a - b; }); }, Rounds}},
      {"dl.mul", {2, NUMBER { return x[0] * x[1]; }, INTEGER { return unsignedOp(x[0], x[1], [](uint64_t a, uint64_t b) { return a * b; }); }, Rounds}},
      {"dl.mul_no_nan", {2, NUMBER { return x[1] == 0 ? 0 : x[0] * x[1]; }, nullptr, Rounds}},
      {"dl.div", {2, NUMBER { return x[0] / x[1]; }}},
      {"dl.div_no_nan", {2, NUMBER { return x[0] == 0 ? 0 : x[0] / x[1]; }}},
      // Python's: the remainder has the divisor's sign.
      {"dl.rem",
       {2,
        NUMBER {
          double r = std::fmod(x[0], x[1]);
          return r != 0 && std::signbit(r) != std::signbit(x[1]) ? r + x[1] : r;
        },
        INTEGER { return x[1] == 0 ? x[0] : x[1] == -1 ? 0 : x[0] - floorQuotient(x[0], x[1]) * x[1]; }, Whole}},
      {"dl.floor_divide", {2, NUMBER { return std::floor(x[0] / x[1]); }, INTEGER { return floorQuotient(x[0], x[1]); }, Whole}},
      {"dl.pow", {2, NUMBER { return std::pow(x[0], x[1]); }}},
      {"dl.maximum", {2, NUMBER { return std::isnan(x[0]) || std::isnan(x[1]) ? kNaN : std::fmax(x[0], x[1]); }, INTEGER { return std::max(x[0], x[1]); }, Rounds | Jumps}},
      {"dl.minimum", {2, NUMBER { return std::isnan(x[0]) || std::isnan(x[1]) ? kNaN : std::fmin(x[0], x[1]); }, INTEGER { return std::min(x[0], x[1]); }, Rounds | Jumps}},
      {"dl.neg", {1, NUMBER { return -x[0]; }, INTEGER { return unsignedOp(0, x[0], [](uint64_t a, uint64_t b) { return a - b; }); }, Rounds}},
      {"dl.abs", {1, NUMBER { return std::fabs(x[0]); }, INTEGER { return x[0] < 0 ? unsignedOp(0, x[0], [](uint64_t a, uint64_t b) { return a - b; }) : x[0]; }, Rounds | Jumps}},
      {"dl.sign", {1, NUMBER { return std::isnan(x[0]) ? kNaN : x[0] > 0 ? 1.0 : x[0] < 0 ? -1.0 : 0.0; }, INTEGER { return (x[0] > 0) - (x[0] < 0); }, Rounds | Jumps}},
      {"dl.exp", {1, NUMBER { return std::exp(x[0]); }}},
      {"dl.log", {1, NUMBER { return std::log(x[0]); }}},
      {"dl.sqrt", {1, NUMBER { return std::sqrt(x[0]); }}},
      {"dl.rsqrt", {1, NUMBER { return 1 / std::sqrt(x[0]); }}},
      {"dl.tanh", {1, NUMBER { return std::tanh(x[0]); }}},
      {"dl.erf", {1, NUMBER { return std::erf(x[0]); }}},
      {"dl.sin", {1, NUMBER { return std::sin(x[0]); }}},
      {"dl.cos", {1, NUMBER { return std::cos(x[0]); }}},
      {"dl.sigmoid", {1, NUMBER { return x[0] < 0 ? std::exp(x[0]) / (1 + std::exp(x[0])) : 1 / (1 + std::exp(-x[0])); }}},
      {"dl.relu", {1, NUMBER { return std::isnan(x[0]) ? kNaN : x[0] > 0 ? x[0] : 0.0; }, nullptr, Rounds | Jumps}},
      {"dl.gelu", {1, NUMBER { return 0.5 * x[0] * std::erfc(-x[0] / std::sqrt(2.0)); }}},
      {"dl.gelu_tanh", {1, NUMBER { return x[0] / (1 + std::exp(-2 * geluTanhInner(x[0]))); }}},
      {"dl.gelu_tanh_derivative", {1, NUMBER {
          // as it is differentiated by hand; 1 - tanh^2 is 1 / cosh^2
          double c = std::cosh(geluTanhInner(x[0])), rest = std::sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x[0] * x[0]) / c / c;
          return 1 / (1 + std::exp(-2 * geluTanhInner(x[0]))) + (std::isinf(c) ? 0 : 0.5 * x[0] * rest);
        }}},
      {"dl.silu", {1, NUMBER { return x[0] / (1 + std::exp(-x[0])); }}},
      {"dl.softplus", {1, NUMBER { return x[0] > 0 ? x[0] + std::log1p(std::exp(-x[0])) : std::log1p(std::exp(x[0])); }}},
      {"dl.round", {1, NUMBER { return std::nearbyint(x[0]); }, nullptr, Rounds | Whole}},
      {"dl.floor", {1, NUMBER { return std::floor(x[0]); }, nullptr, Rounds | Whole}},
      {"dl.select", {3, NUMBER { return x[0] != 0 ? x[1] : x[2]; }, INTEGER { return x[0] != 0 ? x[1] : x[2]; }, Rounds}},
      {"dl.and", {2, nullptr, INTEGER { return x[0] && x[1]; }, Rounds}},
      {"dl.or", {2, nullptr, INTEGER { return x[0] || x[1]; }, Rounds}},
      {"dl.not", {1, nullptr, INTEGER { return !x[0]; }, Rounds}},
      {"dl.stop_gradient", {1, NUMBER { return x[0]; }, INTEGER { return x[0]; }, Rounds}},
  };
  return table;
}

/// Did computing `result` need no rounding?
static bool isExactResult(StringRef name, const double *x, double result, Type element) {
  if (!std::isfinite(result))
    return true;
  if (result != roundTo(result, element))
    return false;
  if (name == "dl.add" || name == "dl.sub") {
    double a = x[0], b = name == "dl.add" ? x[1] : -x[1], s = a + b, t = s - a;
    return (a - (s - t)) + (b - t) == 0;
  }
  if (name == "dl.mul" || name == "dl.mul_no_nan")
    return std::fma(x[0], x[1], -result) == 0;
  return true;
}

/// Where the first minus the second (or the first alone) is not 0, but could be by another rounding.
void Reference::jumps(const Array &a, const Array &b) {
  if ((a.exact && b.exact) || !isFloat(a.element))
    return;
  double near = a.element.isF32() ? 1e-3 : 1e-8;
  for (size_t i = 0; i < a.values.size(); ++i)
    if (std::fabs(a.values[i] - b.values[i]) <= near * std::max({1.0, std::fabs(a.values[i]), std::fabs(b.values[i])}))
      isUnstable = true;
}

//===--- Philox4x32-10, from Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011) ---===//

static std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    uint64_t a = uint64_t(0xD2511F53u) * counter[0], b = uint64_t(0xCD9E8D57u) * counter[2];
    counter = {uint32_t(b >> 32) ^ counter[1] ^ key[0], uint32_t(b), uint32_t(a >> 32) ^ counter[3] ^ key[1], uint32_t(a)};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return counter;
}
static std::array<uint32_t, 4> drawBlock(const Array &seed, const Array &call, uint32_t stream, int64_t block) {
  uint64_t s = static_cast<uint64_t>(static_cast<int64_t>(seed.values[0])), c = static_cast<uint64_t>(static_cast<int64_t>(call.values[0]));
  return philox({uint32_t(block), stream, uint32_t(c), uint32_t(c >> 32)}, {uint32_t(s), uint32_t(s >> 32)});
}

//===--- everything ---===//

namespace {
using Evaluate = std::function<void(Operation *, ArrayRef<Array>, ArrayRef<int64_t> sizes, Array &result)>;
}

/// Calls `body` for each element of the result with the operand's elements that belong to it, in row-major order.
static void reduce(Operation *op, const Array &x, Array &result, llvm::function_ref<double(ArrayRef<double>)> body) {
  ArrayRef<int64_t> axes = op->getAttrOfType<DenseI64ArrayAttr>("axes").asArrayRef();
  std::vector<std::vector<double>> groups(result.values.size());
  forEach(x.dims, [&](const Index &index) {
    Index kept;
    for (size_t axis = 0; axis < index.size(); ++axis)
      if (!llvm::is_contained(axes, static_cast<int64_t>(axis)))
        kept.push_back(index[axis]);
    groups[numberOf(result.dims, kept)].push_back(x.values[numberOf(x.dims, index)]);
  });
  for (size_t i = 0; i < groups.size(); ++i)
    result.values[i] = roundTo(body(groups[i]), result.element);
}
/// The place of the largest (`sign` 1) or smallest (-1): the first of equals, the first NaN before all.
static int64_t placeOfExtreme(ArrayRef<double> values, double sign) {
  int64_t best = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isnan(values[i]))
      return i;
    if (sign * values[i] > sign * values[best])
      best = i;
  }
  return best;
}
static double extreme(ArrayRef<double> values, double sign, Type element) {
  if (!values.empty())
    return values[placeOfExtreme(values, sign)];
  if (isFloat(element))
    return -sign * kInf;
  unsigned bits = element.getIntOrFloatBitWidth();
  return sign > 0 ? -std::ldexp(1.0, bits - 1) : std::ldexp(1.0, bits - 1) - 1;
}

/// Calls `body` for each line of x along `axis`, with the numbers of its elements.
/// Where gather's element `index` lies, and scatter's update `index` goes; false where that is out of range.
static bool placeOf(const Index &index, ArrayRef<int64_t> dims, ArrayRef<Array> tensors, ArrayRef<int64_t> axes, size_t position, Index &place) {
  size_t rank = tensors[0].dims.size(), next = 0;
  Index at(index.begin() + position, index.begin() + position + rank);
  place.clear();
  for (size_t axis = 0; axis < dims.size(); ++axis) {
    const int64_t *indexed = llvm::find(axes, static_cast<int64_t>(axis));
    if (indexed == axes.end()) {
      place.push_back(index[next < position ? next : next + rank]);
      ++next;
      continue;
    }
    const Array &tensor = tensors[indexed - axes.begin()];
    int64_t number = static_cast<int64_t>(tensor.values[numberOf(tensor.dims, at)]);
    number += number < 0 ? dims[axis] : 0;
    if (number < 0 || number >= dims[axis])
      return false;
    place.push_back(number);
  }
  return true;
}

static void forEachLine(const Array &x, int64_t axis, llvm::function_ref<void(ArrayRef<int64_t>)> body) {
  std::vector<int64_t> outer = x.dims;
  outer[axis] = 1;
  if (x.dims[axis] == 0)
    return;
  forEach(outer, [&](const Index &first) {
    std::vector<int64_t> line;
    Index index = first;
    for (index[axis] = 0; index[axis] < x.dims[axis]; ++index[axis])
      line.push_back(numberOf(x.dims, index));
    body(line);
  });
}
/// The logarithm of the sum of exponentials; where the largest is infinite, that or NaN.
static double logSumExp(const Array &x, ArrayRef<int64_t> line, bool keepsInfinity = false) {
  double largest = -kInf, sum = 0;
  for (int64_t i : line) {
    if (std::isnan(x.values[i]))
      return kNaN;
    largest = std::max(largest, x.values[i]);
  }
  if (std::isinf(largest))
    return keepsInfinity ? largest : kNaN;
  for (int64_t i : line)
    sum += std::exp(x.values[i] - largest);
  return largest + std::log(sum);
}
static int64_t axisOf(Operation *op) { return op->getAttrOfType<IntegerAttr>("axis").getInt(); }

/// Where an element of a slice that starts at `start` lies.
static Index placeInWhole(const Index &index, int64_t axis, int64_t start, size_t rank) {
  Index place = index;
  if (place.size() < rank)
    place.insert(place.begin() + axis, start);
  else
    place[axis] += start;
  return place;
}

static const llvm::StringMap<Evaluate> &evaluators() {
  using Ops = ArrayRef<Array>;
  using Sizes = ArrayRef<int64_t>;
  static const llvm::StringMap<Evaluate> table = {
      {"dl.compare",
       [](Operation *op, Ops x, Sizes, Array &result) {
         for (size_t i = 0; i < result.values.size(); ++i) {
           double a = x[0].values[i], b = x[1].values[i];
           switch (cast<dl::CompareOp>(op).getPredicate()) {
           case dl::ComparePredicate::eq: result.values[i] = a == b; break;
           case dl::ComparePredicate::ne: result.values[i] = a != b; break;
           case dl::ComparePredicate::lt: result.values[i] = a < b; break;
           case dl::ComparePredicate::le: result.values[i] = a <= b; break;
           case dl::ComparePredicate::gt: result.values[i] = a > b; break;
           case dl::ComparePredicate::ge: result.values[i] = a >= b; break;
           }
         }
         result.exact = true;
       }},
      {"dl.convert",
       [](Operation *, Ops x, Sizes, Array &result) {
         result.exact = x[0].exact || !isFloat(x[0].element);
         for (size_t i = 0; i < result.values.size(); ++i) {
           double value = x[0].values[i];
           if (result.element.isInteger(1))
             result.values[i] = value != 0;
           else
             result.values[i] = roundTo(isFloat(result.element) ? value : std::trunc(value), result.element);
           if (isFloat(result.element))
             result.exact &= result.values[i] == value;
         }
       }},
      // A multiple of the unit that numbers of its size have, or the smallest ones.
      {"dl.round_to",
       [](Operation *op, Ops x, Sizes, Array &result) {
         bool isF16 = cast<dl::RoundToOp>(op).getFormat().isF16();
         for (auto [from, to] : llvm::zip_equal(x[0].values, result.values)) {
           to = from;
           if (from == 0 || !std::isfinite(from))
             continue;
           double unit = std::ldexp(1.0, std::max(std::ilogb(from) - (isF16 ? 10 : 7), isF16 ? -24 : -133));
           to = std::copysign(std::nearbyint(from / unit) * unit, from);
           if (std::fabs(to) >= (isF16 ? 0x1p16 : 0x1p128))
             to = std::copysign(kInf, from);
         }
         result.exact = x[0].exact;
       }},
      {"dl.fill",
       [](Operation *op, Ops, Sizes, Array &result) {
         Attribute value = op->getAttr("value");
         double number = isa<FloatAttr>(value) ? cast<FloatAttr>(value).getValueAsDouble() : static_cast<double>(cast<IntegerAttr>(value).getInt());
         std::fill(result.values.begin(), result.values.end(), roundTo(number, result.element));
         result.exact = std::isfinite(number);
       }},
      {"dl.constant",
       [](Operation *op, Ops, Sizes, Array &result) {
         auto elements = cast<DenseElementsAttr>(cast<dl::ConstantOp>(op).getValue());
         size_t i = 0;
         if (isFloat(result.element))
           for (const APFloat &value : elements.getValues<APFloat>())
             result.values[i++] = value.convertToDouble();
         else
           for (const APInt &value : elements.getValues<APInt>())
             result.values[i++] = static_cast<double>(result.element.isUnsignedInteger() || result.element.isInteger(1) ? static_cast<int64_t>(value.getZExtValue()) : value.getSExtValue());
         result.exact = true;
       }},
      {"dl.size",
       [](Operation *op, Ops, Sizes sizes, Array &result) {
         result.values[0] = roundTo(evaluateSize(cast<dl::SizeOp>(op).getMap().getResult(0), sizes), result.element);
         result.exact = true;
       }},
      {"dl.iota",
       [](Operation *op, Ops, Sizes, Array &result) {
         forEach(result.dims, [&](const Index &index) { result.values[numberOf(result.dims, index)] = roundTo(index[axisOf(op)], result.element); });
         result.exact = true;
       }},
      {"dl.uniform",
       [](Operation *op, Ops x, Sizes, Array &result) {
         for (size_t i = 0; i < result.values.size(); ++i)
           result.values[i] = (drawBlock(x[0], x[1], cast<dl::UniformOp>(op).getStream(), i / 4)[i % 4] >> 8) * 0x1p-24;
         result.exact = true;
       }},
      {"dl.normal",
       [](Operation *op, Ops x, Sizes, Array &result) {
         for (size_t i = 0; i < result.values.size(); ++i) {
           std::array<uint32_t, 4> words = drawBlock(x[0], x[1], cast<dl::NormalOp>(op).getStream(), i / 4);
           double u = (words[i % 4 / 2 * 2] >> 8) * 0x1p-24, angle = 2 * M_PI * ((words[i % 4 / 2 * 2 + 1] >> 8) * 0x1p-24);
           result.values[i] = roundTo(std::sqrt(-2 * std::log(1 - u)) * (i % 2 ? std::sin(angle) : std::cos(angle)), result.element);
         }
       }},
      {"dl.randint",
       [](Operation *op, Ops x, Sizes, Array &result) {
         auto draw = cast<dl::RandintOp>(op);
         int64_t low = draw.getLow(), range = static_cast<int64_t>(draw.getHigh()) - low;
         for (size_t i = 0; i < result.values.size(); ++i)
           result.values[i] = roundTo(low + static_cast<int64_t>((static_cast<unsigned __int128>(drawBlock(x[0], x[1], draw.getStream(), i / 4)[i % 4]) * range) >> 32), result.element);
         result.exact = true;
       }},
      {"dl.broadcast",
       [](Operation *op, Ops x, Sizes, Array &result) {
         ArrayRef<int64_t> axes = cast<dl::BroadcastOp>(op).getAxes();
         forEach(result.dims, [&](const Index &index) {
           Index from;
           for (size_t i = 0; i < axes.size(); ++i)
             from.push_back(x[0].dims[i] == 1 ? 0 : index[axes[i]]);
           result.values[numberOf(result.dims, index)] = x[0].values[numberOf(x[0].dims, from)];
         });
         result.exact = x[0].exact;
       }},
      {"dl.assume_shape",
       [](Operation *, Ops x, Sizes, Array &result) {
         result.values = x[0].values;
         result.exact = x[0].exact;
       }},
      {"dl.after",
       [](Operation *, Ops x, Sizes, Array &result) {
         result.values = x[0].values;
         result.exact = x[0].exact;
       }},
      {"dl.reshape",
       [](Operation *, Ops x, Sizes, Array &result) {
         result.values = x[0].values;
         result.exact = x[0].exact;
       }},
      {"dl.transpose",
       [](Operation *op, Ops x, Sizes, Array &result) {
         ArrayRef<int64_t> permutation = cast<dl::TransposeOp>(op).getPermutation();
         forEach(result.dims, [&](const Index &index) {
           Index from(index.size());
           for (size_t i = 0; i < index.size(); ++i)
             from[permutation[i]] = index[i];
           result.values[numberOf(result.dims, index)] = x[0].values[numberOf(x[0].dims, from)];
         });
         result.exact = x[0].exact;
       }},
      {"dl.slice",
       [](Operation *op, Ops x, Sizes sizes, Array &result) {
         auto slice = cast<dl::SliceOp>(op);
         forEach(result.dims, [&](const Index &index) {
           Index from;
           for (size_t i = 0; i < index.size(); ++i)
             from.push_back(evaluateSize(slice.getStarts().getResult(i), sizes) + index[i] * slice.getStrides()[i]);
           result.values[numberOf(result.dims, index)] = x[0].values[numberOf(x[0].dims, from)];
         });
         result.exact = x[0].exact;
       }},
      {"dl.slice_at",
       [](Operation *op, Ops x, Sizes, Array &result) {
         auto slice = cast<dl::SliceAtOp>(op);
         int64_t axis = slice.getAxis(), start = static_cast<int64_t>(x[1].values[0]);
         forEach(result.dims, [&](const Index &index) { result.values[numberOf(result.dims, index)] = x[0].values[numberOf(x[0].dims, placeInWhole(index, axis, start, x[0].dims.size()))]; });
         result.exact = x[0].exact;
       }},
      {"dl.slice_update",
       [](Operation *op, Ops x, Sizes, Array &result) {
         auto update = cast<dl::SliceUpdateOp>(op);
         int64_t axis = update.getAxis(), start = static_cast<int64_t>(x[2].values[0]);
         result.values = x[0].values;
         forEach(x[1].dims, [&](const Index &index) { result.values[numberOf(result.dims, placeInWhole(index, axis, start, x[0].dims.size()))] = x[1].values[numberOf(x[1].dims, index)]; });
         result.exact = x[0].exact && x[1].exact;
       }},
      {"dl.empty", [](Operation *, Ops, Sizes, Array &result) { std::fill(result.values.begin(), result.values.end(), isFloat(result.element) ? kNaN : 0); }},
      {"dl.pad",
       [](Operation *op, Ops x, Sizes sizes, Array &result) {
         auto pad = cast<dl::PadOp>(op);
         forEach(x[0].dims, [&](const Index &index) {
           Index to;
           for (size_t i = 0; i < index.size(); ++i)
             to.push_back(evaluateSize(pad.getStarts().getResult(i), sizes) + index[i] * pad.getStrides()[i]);
           result.values[numberOf(result.dims, to)] = x[0].values[numberOf(x[0].dims, index)];
         });
         result.exact = x[0].exact;
       }},
      {"dl.window",
       [](Operation *op, Ops x, Sizes, Array &result) {
         auto window = cast<dl::WindowOp>(op);
         double outside = roundTo(window.getOutside().convertToDouble(), result.element);
         result.exact = x[0].exact;
         forEach(result.dims, [&](const Index &index) {
           Index from;
           bool inside = true;
           SmallVector<AffineExpr> at;
           for (int64_t i : index)
             at.push_back(getAffineConstantExpr(i, op->getContext()));
           for (auto [i, expr, divisor] : llvm::enumerate(window.getMap().getResults(), window.getDivisors())) {
             int64_t place = cast<AffineConstantExpr>(expr.replaceDimsAndSymbols(at, {})).getValue();
             inside &= place % divisor == 0 && place / divisor >= 0 && place / divisor < x[0].dims[i];
             from.push_back(place / divisor);
           }
           result.values[numberOf(result.dims, index)] = inside ? x[0].values[numberOf(x[0].dims, from)] : outside;
         });
       }},
      {"dl.convolution",
       [](Operation *op, Ops x, Sizes, Array &result) {
         // The form as its definition says it: every product of an output, an input and a weight, of which one is wanted.
         auto convolution = cast<dl::ConvolutionOp>(op);
         using R = dl::ConvolutionResult;
         auto arrayOf = [&](R tensor) -> const Array & {
           return tensor == convolution.getKind() ? result : tensor == convolution.getTensorOfOperand(0) ? x[0] : x[1];
         };
         const Array &output = arrayOf(R::output), &input = arrayOf(R::input), &weight = arrayOf(R::weight);
         size_t spatial = convolution.getStrides().size();
         int64_t outputs = weight.dims[0] / convolution.getGroups();
         std::vector<int64_t> all(output.dims);
         all.insert(all.end(), weight.dims.begin() + 1, weight.dims.end());
         std::vector<double> sums(result.values.size(), 0.0);
         std::vector<int64_t> terms(result.values.size(), 0);
         forEach(all, [&](const Index &index) {
           Index o(index.begin(), index.begin() + output.dims.size()), w{index[1]}, i{index[0], 0};
           w.insert(w.end(), index.begin() + output.dims.size(), index.end());
           i[1] = index[1] / outputs * weight.dims[1] + w[1];
           for (size_t axis = 0; axis < spatial; ++axis) {
             i.push_back(o[2 + axis] * convolution.getStrides()[axis] + w[2 + axis] * convolution.getDilations()[axis] - convolution.getPaddings()[axis]);
             if (i.back() < 0 || i.back() >= input.dims[2 + axis])
               return;
           }
           int64_t atO = numberOf(output.dims, o), atI = numberOf(input.dims, i), atW = numberOf(weight.dims, w);
           int64_t at = convolution.getKind() == R::output ? atO : convolution.getKind() == R::input ? atI : atW;
           double a = convolution.getKind() == R::output ? input.values[atI] : output.values[atO];
           double b = convolution.getKind() == R::weight ? input.values[atI] : weight.values[atW];
           sums[at] += a * b;
           ++terms[at];
         });
         for (size_t i = 0; i < sums.size(); ++i)
           result.values[i] = roundTo(sums[i], result.element);
         auto largest = [](const Array &a) { return std::accumulate(a.values.begin(), a.values.end(), 0.0, [](double m, double v) { return std::isfinite(v) ? std::max(m, std::fabs(v)) : m; }); };
         int64_t most = terms.empty() ? 0 : *llvm::max_element(terms);
         result.exact = x[0].exact && x[1].exact && fits(most * largest(x[0]) * largest(x[1]), granularity(x[0].values) * granularity(x[1].values), result.element);
       }},
      {"dl.concat",
       [](Operation *op, Ops x, Sizes, Array &result) {
         int64_t axis = axisOf(op), start = 0;
         result.exact = true;
         for (const Array &input : x) {
           forEach(input.dims, [&](const Index &index) {
             Index to = index;
             to[axis] += start;
             result.values[numberOf(result.dims, to)] = input.values[numberOf(input.dims, index)];
           });
           start += input.dims[axis];
           result.exact &= input.exact;
         }
       }},
      {"dl.gather",
       [](Operation *op, Ops x, Sizes, Array &result) {
         auto gather = cast<dl::GatherOp>(op);
         forEach(result.dims, [&](const Index &index) {
           Index from;
           if (placeOf(index, x[0].dims, x.drop_front(), gather.getAxes(), gather.getPosition(), from))
             result.values[numberOf(result.dims, index)] = x[0].values[numberOf(x[0].dims, from)];
         });
         result.exact = x[0].exact;
       }},
      {"dl.scatter",
       [](Operation *op, Ops x, Sizes, Array &result) {
         auto scatter = cast<dl::ScatterOp>(op);
         result.values = x[0].values;
         forEach(x[1].dims, [&](const Index &index) {
           Index to;
           if (placeOf(index, x[0].dims, x.drop_front(2), scatter.getAxes(), scatter.getPosition(), to))
             result.values[numberOf(result.dims, to)] = x[1].values[numberOf(x[1].dims, index)];
         });
         result.exact = x[0].exact && x[1].exact;
       }},
      {"dl.scatter_add",
       [](Operation *op, Ops x, Sizes, Array &result) {
         auto scatter = cast<dl::ScatterAddOp>(op);
         result.values = x[0].values;
         // Each sum is rounded: the op promises the order.
         forEach(x[1].dims, [&](const Index &index) {
           Index to;
           if (!placeOf(index, x[0].dims, x.drop_front(2), scatter.getAxes(), scatter.getPosition(), to))
             return;
           double &value = result.values[numberOf(result.dims, to)];
           value = roundTo(value + x[1].values[numberOf(x[1].dims, index)], result.element);
         });
         result.exact = !isFloat(result.element) ||
                        (x[0].exact && x[1].exact && fits(sumOfMagnitudes(x[0].values) + sumOfMagnitudes(x[1].values), std::min(granularity(x[0].values), granularity(x[1].values)), result.element));
       }},
      {"dl.sum",
       [](Operation *op, Ops x, Sizes, Array &result) {
         result.exact = x[0].exact || !isFloat(result.element);
         double unit = granularity(x[0].values);
         reduce(op, x[0], result, [&](ArrayRef<double> values) {
           result.exact &= fits(sumOfMagnitudes(values), unit, result.element);
           return std::accumulate(values.begin(), values.end(), 0.0);
         });
       }},
      {"dl.max",
       [](Operation *op, Ops x, Sizes, Array &result) {
         reduce(op, x[0], result, [&](ArrayRef<double> values) { return extreme(values, 1, result.element); });
         result.exact = x[0].exact;
       }},
      {"dl.min",
       [](Operation *op, Ops x, Sizes, Array &result) {
         reduce(op, x[0], result, [&](ArrayRef<double> values) { return extreme(values, -1, result.element); });
         result.exact = x[0].exact;
       }},
      {"dl.any",
       [](Operation *op, Ops x, Sizes, Array &result) {
         reduce(op, x[0], result, [](ArrayRef<double> values) { return llvm::any_of(values, [](double v) { return v != 0; }); });
         result.exact = true;
       }},
      {"dl.all",
       [](Operation *op, Ops x, Sizes, Array &result) {
         reduce(op, x[0], result, [](ArrayRef<double> values) { return llvm::all_of(values, [](double v) { return v != 0; }); });
         result.exact = true;
       }},
      {"dl.argmax",
       [](Operation *op, Ops x, Sizes, Array &result) {
         reduce(op, x[0], result, [](ArrayRef<double> values) { return placeOfExtreme(values, 1); });
         result.exact = true;
       }},
      {"dl.argmin",
       [](Operation *op, Ops x, Sizes, Array &result) {
         reduce(op, x[0], result, [](ArrayRef<double> values) { return placeOfExtreme(values, -1); });
         result.exact = true;
       }},
      {"dl.matmul",
       [](Operation *op, Ops x, Sizes, Array &result) {
         auto product = cast<dl::MatmulOp>(op);
         size_t rank = result.dims.size();
         int64_t steps = x[0].dims[rank - (product.getLhsTransposed() ? 2 : 1)];
         bool isF32 = result.element.isF32();
         forEach(result.dims, [&](const Index &index) {
           Index l(index), r(index);
           double sum = 0;
           float sum32 = 0;
           for (int64_t k = 0; k < steps; ++k) {
             l[rank - 2] = product.getLhsTransposed() ? k : index[rank - 2];
             l[rank - 1] = product.getLhsTransposed() ? index[rank - 2] : k;
             r[rank - 2] = product.getRhsTransposed() ? index[rank - 1] : k;
             r[rank - 1] = product.getRhsTransposed() ? k : index[rank - 1];
             double a = x[0].values[numberOf(x[0].dims, l)], b = x[1].values[numberOf(x[1].dims, r)];
             // One chain of fused multiply-adds over increasing k: the op promises it.
             if (isF32)
               sum32 = std::fma(static_cast<float>(a), static_cast<float>(b), sum32);
             else
               sum = std::fma(a, b, sum);
           }
           result.values[numberOf(result.dims, index)] = isF32 ? sum32 : sum;
         });
         auto largest = [](const Array &a) { return std::accumulate(a.values.begin(), a.values.end(), 0.0, [](double m, double v) { return std::isfinite(v) ? std::max(m, std::fabs(v)) : m; }); };
         result.exact = x[0].exact && x[1].exact &&
                        fits(steps * largest(x[0]) * largest(x[1]), granularity(x[0].values) * granularity(x[1].values), result.element);
       }},
      {"dl.softmax",
       [](Operation *op, Ops x, Sizes, Array &result) {
         forEachLine(x[0], axisOf(op), [&](ArrayRef<int64_t> line) {
           double total = logSumExp(x[0], line);
           for (int64_t i : line)
             result.values[i] = roundTo(std::exp(x[0].values[i] - total), result.element);
         });
       }},
      {"dl.log_softmax",
       [](Operation *op, Ops x, Sizes, Array &result) {
         forEachLine(x[0], axisOf(op), [&](ArrayRef<int64_t> line) {
           double total = logSumExp(x[0], line);
           for (int64_t i : line)
             result.values[i] = roundTo(x[0].values[i] - total, result.element);
         });
       }},
      {"dl.logsumexp",
       [](Operation *op, Ops x, Sizes, Array &result) {
         size_t next = 0;
         std::fill(result.values.begin(), result.values.end(), -kInf); // of nothing
         // Lines come in the order of the result's elements.
         forEachLine(x[0], axisOf(op), [&](ArrayRef<int64_t> line) { result.values[next++] = roundTo(logSumExp(x[0], line, true), result.element); });
       }},
      {"dl.cross_entropy",
       [](Operation *, Ops x, Sizes, Array &result) {
         size_t next = 0;
         forEachLine(x[0], x[0].dims.size() - 1, [&](ArrayRef<int64_t> line) {
           double label = x[1].values[next];
           result.values[next++] = label == -100 ? 0 : roundTo(logSumExp(x[0], line) - x[0].values[line[static_cast<size_t>(label)]], result.element);
         });
       }},
  };
  return table;
}

/// Calls `body` with the weights of the keys of each row of q: what softmax makes of its scores, or where its logsumexp is given, the exponentials of their differences to it. `at` is [n, t, head].
static void forEachAttention(const dl::AttentionOperands &of, ArrayRef<Array> x, const Array *mask, const Array *logsumexp,
                             llvm::function_ref<void(const Index &at, const std::vector<double> &weights, double logsumexp)> body) {
  const Array &q = x[0], &k = x[1];
  int64_t keys = k.dims[1], width = q.dims[3];
  forEach({q.dims[0], q.dims[1], q.dims[2]}, [&](const Index &at) {
    std::vector<double> scores(keys, -kInf);
    double largest = -kInf;
    for (int64_t s = 0; s < keys && (!of.isCausal || s <= at[1]); ++s) {
      double added = 0;
      if (mask) {
        Index place{at[0], at[2], at[1], s};
        for (size_t axis = 0; axis < 4; ++axis)
          place[axis] = mask->dims[axis] == 1 ? 0 : place[axis];
        added = mask->values[numberOf(mask->dims, place)];
        if (mask->element.isInteger(1)) {
          if (added == 0)
            continue;
          added = 0;
        }
      }
      double score = 0;
      for (int64_t i = 0; i < width; ++i)
        score += q.values[numberOf(q.dims, {at[0], at[1], at[2], i})] * k.values[numberOf(k.dims, {at[0], s, at[2], i})];
      scores[s] = score * of.scale + added;
      largest = std::max(largest, scores[s]);
    }
    double total = logsumexp ? logsumexp->values[numberOf(logsumexp->dims, at)] : -kInf;
    if (!logsumexp && largest != -kInf) {
      total = 0;
      for (double score : scores)
        total += std::exp(score - largest);
      total = largest + std::log(total);
    }
    std::vector<double> weights;
    for (double score : scores)
      weights.push_back(score == -kInf ? 0 : std::exp(score - total));
    body(at, weights, total);
  });
}

using EvaluateAll = std::function<void(Operation *op, ArrayRef<Array> operands, std::vector<Array> &results)>;
static const llvm::StringMap<EvaluateAll> &evaluatorsOfSeveral() {
  using Ops = ArrayRef<Array>;
  static const llvm::StringMap<EvaluateAll> table = {
      {"dl.attention",
       [](Operation *op, Ops x, std::vector<Array> &results) {
         Array &y = results[0], &rows = results[1];
         forEachAttention(cast<dl::AttentionOp>(op).getAttention(), x, x.size() > 3 ? &x[3] : nullptr, nullptr, [&](const Index &at, const std::vector<double> &weights, double logsumexp) {
           rows.values[numberOf(rows.dims, at)] = roundTo(logsumexp, rows.element);
           for (int64_t i = 0; i < y.dims[3]; ++i) {
             double sum = 0;
             for (size_t s = 0; s < weights.size(); ++s)
               sum += weights[s] * x[2].values[numberOf(x[2].dims, {at[0], static_cast<int64_t>(s), at[2], i})];
             y.values[numberOf(y.dims, {at[0], at[1], at[2], i})] = roundTo(sum, y.element);
           }
         });
       }},
      {"dl.attention_gradient",
       [](Operation *op, Ops x, std::vector<Array> &results) {
         const Array &q = x[0], &k = x[1], &v = x[2], &delta = x[4], &dy = x[5];
         Array &dq = results[0], &dk = results[1], &dv = results[2];
         dl::AttentionOperands of = cast<dl::AttentionGradientOp>(op).getAttention();
         forEachAttention(of, x, x.size() > 6 ? &x[6] : nullptr, &x[3], [&](const Index &at, const std::vector<double> &weights, double) {
           for (size_t key = 0; key < weights.size(); ++key) {
             if (weights[key] == 0)
               continue;
             int64_t s = static_cast<int64_t>(key);
             double product = 0;
             for (int64_t i = 0; i < v.dims[3]; ++i) {
               double cotangent = dy.values[numberOf(dy.dims, {at[0], at[1], at[2], i})];
               product += cotangent * v.values[numberOf(v.dims, {at[0], s, at[2], i})];
               dv.values[numberOf(dv.dims, {at[0], s, at[2], i})] += weights[key] * cotangent;
             }
             double score = of.scale * weights[key] * (product - delta.values[numberOf(delta.dims, at)]);
             for (int64_t i = 0; i < q.dims[3]; ++i) {
               dq.values[numberOf(dq.dims, {at[0], at[1], at[2], i})] += score * k.values[numberOf(k.dims, {at[0], s, at[2], i})];
               dk.values[numberOf(dk.dims, {at[0], s, at[2], i})] += score * q.values[numberOf(q.dims, {at[0], at[1], at[2], i})];
             }
           }
         });
         for (Array &result : results)
           for (double &value : result.values)
             value = roundTo(value, result.element);
       }},
  };
  return table;
}

bool hasFormula(StringRef name) { return formulas().count(name) || evaluators().count(name) || evaluatorsOfSeveral().count(name); }

std::vector<Array> Reference::evaluate(Operation *op, ArrayRef<Array> operands) {
  StringRef name = op->getName().getStringRef();
  if (auto found = evaluatorsOfSeveral().find(name); found != evaluatorsOfSeveral().end()) {
    std::vector<Array> results;
    for (Type type : op->getResultTypes())
      results.push_back(makeArray(type, dims));
    found->second(op, operands, results);
    return results;
  }
  Array result = makeArray(op->getResult(0).getType(), dims);
  if (auto found = formulas().find(name); found != formulas().end()) {
    const Formula &formula = found->second;
    bool integral = !isFloat(result.element);
    result.exact = formula.traits & Rounds;
    for (const Array &operand : operands)
      result.exact &= operand.exact || !isFloat(operand.element);
    for (size_t i = 0; i < result.values.size(); ++i) {
      double x[3];
      int64_t whole[3];
      for (size_t k = 0; k < operands.size(); ++k) {
        x[k] = operands[k].values[i];
        whole[k] = integral || !isFloat(operands[k].element) ? static_cast<int64_t>(x[k]) : 0;
      }
      double value = integral ? static_cast<double>(wrap(formula.integer(whole), result.element.getIntOrFloatBitWidth(), result.element.isUnsignedInteger())) : formula.number(x);
      if (result.exact && !integral)
        result.exact &= isExactResult(name, x, value, result.element);
      result.values[i] = roundTo(value, result.element);
    }
    if (formula.traits & Jumps) {
      Array zero = operands[0];
      zero.exact = true;
      std::fill(zero.values.begin(), zero.values.end(), 0.0);
      jumps(operands[0], operands.size() > 1 ? operands[1] : zero);
    }
    if ((formula.traits & Whole) && isFloat(operands[0].element) && !llvm::all_of(operands, [](const Array &a) { return a.exact; }))
      for (size_t i = 0; i < result.values.size(); ++i) {
        double halves = 2 * (operands.size() > 1 ? operands[0].values[i] / operands[1].values[i] : operands[0].values[i]);
        isUnstable |= std::fabs(halves - std::nearbyint(halves)) < 1e-3;
      }
    return {result};
  }
  auto found = evaluators().find(name);
  if (found == evaluators().end())
    llvm::report_fatal_error("the reference has no formula for '" + Twine(name) + "'");
  found->second(op, operands, dims, result);
  if (isa<dl::CompareOp>(op))
    jumps(operands[0], operands[1]);
  if (isa<dl::ConvertOp>(op) && !isFloat(result.element) && isFloat(operands[0].element) && !operands[0].exact)
    for (double value : operands[0].values)
      isUnstable |= std::fabs(value - std::nearbyint(value)) < 1e-3;
  // Which of several is the largest: near ones may change places where they are inexact, equal ones that are the same number may not.
  if (isa<dl::ArgmaxOp, dl::ArgminOp, dl::MaxOp, dl::MinOp>(op) && isFloat(operands[0].element) && !operands[0].exact) {
    double near = operands[0].element.isF32() ? 1e-3 : 1e-8;
    double sign = isa<dl::ArgmaxOp, dl::MaxOp>(op) ? 1 : -1;
    Array scratch = result;
    reduce(op, operands[0], scratch, [&](ArrayRef<double> values) {
      if (values.empty())
        return 0.0;
      size_t best = placeOfExtreme(values, sign);
      for (size_t i = 0; i < values.size(); ++i)
        isUnstable |= i != best && std::fabs(values[i] - values[best]) <= near * std::max(1.0, std::fabs(values[best]));
      return 0.0;
    });
  }
  return {result};
}

std::vector<Array> Reference::runBlock(Block &block, DenseMap<Value, Array> &values, std::map<std::string, Array> *variables, std::map<std::string, Array> &assigned) {
  for (Operation &op : block) {
    SmallVector<Array> operands;
    for (Value operand : op.getOperands())
      operands.push_back(values.lookup(operand));
    auto keep = [&](ValueRange results, std::vector<Array> arrays) {
      for (auto [result, array] : llvm::zip_equal(results, arrays)) {
        for (double value : array.values)
          if (std::isfinite(value))
            largest = std::max(largest, std::fabs(value));
        values[result] = std::move(array);
      }
    };
    if (auto read = dyn_cast<dl::ReadOp>(op)) {
      values[read.getResult()] = variables->at(read.getVariable().str());
    } else if (auto assign = dyn_cast<dl::AssignOp>(op)) {
      assigned[assign.getVariable().str()] = operands[0];
    } else if (isa<dl::ReturnOp, dl::YieldOp>(op)) {
      return {operands.begin(), operands.end()};
    } else if (auto branch = dyn_cast<dl::IfOp>(op)) {
      Region &taken = operands[0].values[0] != 0 ? branch.getWhenTrue() : branch.getWhenFalse();
      keep(branch.getResults(), runBlock(taken.front(), values, variables, assigned));
    } else if (auto loop = dyn_cast<dl::ForOp>(op)) {
      std::vector<Array> carried(operands.begin() + (loop.getLimit() ? 1 : 0), operands.end());
      int64_t index = evaluateSize(loop.getFirst().getResult(0), dims), end = std::numeric_limits<int64_t>::max();
      if (loop.getLast())
        end = evaluateSize(loop.getLast()->getResult(0), dims);
      if (loop.getLimit())
        end = std::min(end, index + static_cast<int64_t>(operands[0].values[0]));
      for (; index < end && (!loop.getConditional() || carried[0].values[0] != 0); ++index) {
        Array number = makeArray(loop.getIndex().getType(), dims);
        number.values[0] = static_cast<double>(index);
        number.exact = true;
        values[loop.getIndex()] = number;
        for (auto [argument, array] : llvm::zip_equal(loop.getCarried(), carried))
          values[argument] = array;
        carried = runBlock(loop.getBody().front(), values, variables, assigned);
      }
      keep(loop.getResults(), carried);
    } else if (!isa<dl::CheckIndexOp, dl::CheckSizeOp>(op)) {
      keep(op.getResults(), evaluate(&op, operands));
    }
  }
  return {};
}

std::vector<Array> Reference::run(ArrayRef<Array> arguments, std::map<std::string, Array> *variables) {
  isUnstable = false;
  largest = 0;
  DenseMap<Value, Array> values;
  Block &block = function.getBody().front();
  for (auto [argument, array] : llvm::zip_equal(block.getArguments(), arguments))
    values[argument] = array;
  std::map<std::string, Array> assigned;
  std::vector<Array> results = runBlock(block, values, variables, assigned);
  for (auto &[name, array] : assigned)
    (*variables)[name] = array;
  return results;
}

} // namespace dlc::test
