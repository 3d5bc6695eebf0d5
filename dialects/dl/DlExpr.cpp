//===- DlExpr.cpp - operators that let a formula in a record read like maths -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "dialects/dl/DlExpr.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "llvm/ADT/APFloat.h"

using namespace mlir;

namespace dlc::dl {

//===--- one element ---===//

bool ScalarExpr::isFloat() const { return isa<FloatType>(getElementTypeOrSelf(value)); }
ScalarExpr ScalarExpr::number(double n) const { return {*b, loc, buildNumber(*b, loc, value.getType(), n)}; }

Value buildNumber(OpBuilder &b, Location loc, Type type, double n) {
  Type element = getElementTypeOrSelf(type);
  TypedAttr attr = isa<FloatType>(element) ? TypedAttr(b.getFloatAttr(element, n)) : TypedAttr(b.getIntegerAttr(element, static_cast<int64_t>(n)));
  return buildNumber(b, loc, type, attr);
}

Value buildNumber(OpBuilder &b, Location loc, Type type, TypedAttr n) {
  if (auto vector = dyn_cast<VectorType>(type))
    n = DenseElementsAttr::get(vector, Attribute(n));
  return arith::ConstantOp::create(b, loc, n);
}

template <typename FloatOp, typename IntOp> static ScalarExpr arithmetic(ScalarExpr a, ScalarExpr c) {
  if (a.isFloat())
    return {*a.b, a.loc, FloatOp::create(*a.b, a.loc, a.value, c.value)};
  return {*a.b, a.loc, IntOp::create(*a.b, a.loc, a.value, c.value)};
}
ScalarExpr operator+(ScalarExpr a, ScalarExpr c) { return arithmetic<arith::AddFOp, arith::AddIOp>(a, c); }
ScalarExpr operator-(ScalarExpr a, ScalarExpr c) { return arithmetic<arith::SubFOp, arith::SubIOp>(a, c); }
ScalarExpr operator*(ScalarExpr a, ScalarExpr c) { return arithmetic<arith::MulFOp, arith::MulIOp>(a, c); }
ScalarExpr operator/(ScalarExpr a, ScalarExpr c) { return arithmetic<arith::DivFOp, arith::DivSIOp>(a, c); }
ScalarExpr operator-(ScalarExpr a) {
  if (a.isFloat())
    return {*a.b, a.loc, arith::NegFOp::create(*a.b, a.loc, a.value)};
  return a.number(0) - a;
}
ScalarExpr operator&(ScalarExpr a, ScalarExpr c) { return {*a.b, a.loc, arith::AndIOp::create(*a.b, a.loc, a.value, c.value)}; }
ScalarExpr operator|(ScalarExpr a, ScalarExpr c) { return {*a.b, a.loc, arith::OrIOp::create(*a.b, a.loc, a.value, c.value)}; }
ScalarExpr operator!(ScalarExpr a) { return {*a.b, a.loc, arith::XOrIOp::create(*a.b, a.loc, a.value, a.number(1).value)}; }

bool isUnsigned(Type tensor) {
  Type element = getElementTypeOrSelf(tensor);
  return element.isUnsignedInteger() || element.isInteger(1);
}
ScalarExpr compare(ComparePredicate predicate, ScalarExpr a, ScalarExpr c, bool isUnsigned) {
  if (a.isFloat()) {
    static const arith::CmpFPredicate table[] = {arith::CmpFPredicate::OEQ, arith::CmpFPredicate::UNE, arith::CmpFPredicate::OLT,
                                                 arith::CmpFPredicate::OLE, arith::CmpFPredicate::OGT, arith::CmpFPredicate::OGE};
    return {*a.b, a.loc, arith::CmpFOp::create(*a.b, a.loc, table[static_cast<uint32_t>(predicate)], a.value, c.value)};
  }
  static const arith::CmpIPredicate signedTable[] = {arith::CmpIPredicate::eq,  arith::CmpIPredicate::ne,  arith::CmpIPredicate::slt,
                                                     arith::CmpIPredicate::sle, arith::CmpIPredicate::sgt, arith::CmpIPredicate::sge};
  static const arith::CmpIPredicate unsignedTable[] = {arith::CmpIPredicate::eq,  arith::CmpIPredicate::ne,  arith::CmpIPredicate::ult,
                                                       arith::CmpIPredicate::ule, arith::CmpIPredicate::ugt, arith::CmpIPredicate::uge};
  return {*a.b, a.loc, arith::CmpIOp::create(*a.b, a.loc, (isUnsigned ? unsignedTable : signedTable)[static_cast<uint32_t>(predicate)], a.value, c.value)};
}

ScalarExpr select(ScalarExpr condition, ScalarExpr whenTrue, ScalarExpr whenFalse) {
  return {*whenTrue.b, whenTrue.loc, arith::SelectOp::create(*whenTrue.b, whenTrue.loc, condition.value, whenTrue.value, whenFalse.value)};
}

/// True where x is NaN.
static ScalarExpr isNan(ScalarExpr x) { return {*x.b, x.loc, arith::CmpFOp::create(*x.b, x.loc, arith::CmpFPredicate::UNO, x.value, x.value)}; }

// Two compares and two selects; arith.maximumf would also order the zeros, for five to seven instructions.
ScalarExpr maximum(ScalarExpr a, ScalarExpr c) {
  if (!a.isFloat())
    return {*a.b, a.loc, arith::MaxSIOp::create(*a.b, a.loc, a.value, c.value)};
  return select(isNan(a), a, select(compare(ComparePredicate::gt, a, c), a, select(compare(ComparePredicate::eq, a, c), a, c)));
}
ScalarExpr minimum(ScalarExpr a, ScalarExpr c) {
  if (!a.isFloat())
    return {*a.b, a.loc, arith::MinSIOp::create(*a.b, a.loc, a.value, c.value)};
  return select(isNan(a), a, select(compare(ComparePredicate::le, a, c), a, c));
}

template <typename OpTy> static ScalarExpr unary(ScalarExpr x) { return {*x.b, x.loc, OpTy::create(*x.b, x.loc, x.value)}; }
ScalarExpr abs(ScalarExpr x) {
  if (!x.isFloat())
    return maximum(x, -x);
  return unary<math::AbsFOp>(x);
}
ScalarExpr exp(ScalarExpr x) { return unary<math::ExpOp>(x); }
ScalarExpr log(ScalarExpr x) { return unary<math::LogOp>(x); }
ScalarExpr log1p(ScalarExpr x) { return unary<math::Log1pOp>(x); }
ScalarExpr sqrt(ScalarExpr x) { return unary<math::SqrtOp>(x); }
ScalarExpr tanh(ScalarExpr x) { return unary<math::TanhOp>(x); }
ScalarExpr erf(ScalarExpr x) { return unary<math::ErfOp>(x); }
ScalarExpr sin(ScalarExpr x) { return unary<math::SinOp>(x); }
ScalarExpr cos(ScalarExpr x) { return unary<math::CosOp>(x); }
ScalarExpr roundEven(ScalarExpr x) { return unary<math::RoundEvenOp>(x); }
ScalarExpr floor(ScalarExpr x) { return unary<math::FloorOp>(x); }
ScalarExpr pow(ScalarExpr a, ScalarExpr c) { return {*a.b, a.loc, math::PowFOp::create(*a.b, a.loc, a.value, c.value)}; }

ScalarExpr roundTo(ScalarExpr x, Type format) {
  OpBuilder &b = *x.b;
  Type type = x.value.getType(), bits = IntegerType::get(b.getContext(), 32);
  if (auto vector = dyn_cast<VectorType>(type))
    bits = vector.clone(bits);
  auto toBits = [&](ScalarExpr y) { return ScalarExpr(b, y.loc, arith::BitcastOp::create(b, y.loc, bits, y.value)); };
  auto toFloat = [&](ScalarExpr y) { return ScalarExpr(b, y.loc, arith::BitcastOp::create(b, y.loc, type, y.value)); };
  ScalarExpr all = toBits(x), sign = all & all.number(-0x80000000LL), size = all & all.number(0x7fffffff);
  auto above = [&](ScalarExpr a, int64_t n) { return compare(ComparePredicate::gt, a, a.number(n)); };
  // Half a unit of what is kept is added, less one where that is even; a carry goes on into the exponent, beyond the largest number to infinity.
  const unsigned dropped = format.isBF16() ? 16 : 13;
  ScalarExpr last = ScalarExpr(b, x.loc, arith::ShRUIOp::create(b, x.loc, size.value, size.number(dropped).value)) & size.number(1);
  ScalarExpr rounded = (size + size.number((1LL << (dropped - 1)) - 1) + last) & size.number(0x7fffffffLL >> dropped << dropped);
  if (format.isF16()) {
    ScalarExpr small = toFloat(size); // below 2^-14 numbers are multiples of 2^-24, f32's unit in [1/2, 1)
    rounded = select(compare(ComparePredicate::lt, size, size.number(0x38800000)), toBits((small + 0.5) - small.number(0.5)), rounded);
    rounded = select(above(rounded, 0x477fffff), rounded.number(0x7f800000), rounded);
  }
  return toFloat(select(above(size, 0x7f800000), all, rounded | sign));
}

// Division by zero of integers is defined as 0 (the hardware would trap), the smallest number by -1 as itself.
static ScalarExpr safeDivisor(ScalarExpr a, ScalarExpr c) {
  ScalarExpr bad = eq(c, 0) | (eq(c, -1) & compare(ComparePredicate::eq, a, -a));
  return select(bad, c.number(1), c);
}
ScalarExpr floorDivide(ScalarExpr a, ScalarExpr c) {
  if (a.isFloat())
    return floor(a / c);
  ScalarExpr q{*a.b, a.loc, arith::FloorDivSIOp::create(*a.b, a.loc, a.value, safeDivisor(a, c).value)};
  return select(eq(c, 0), a.number(0), q);
}
ScalarExpr remainder(ScalarExpr a, ScalarExpr c) {
  if (!a.isFloat())
    return a - floorDivide(a, c) * c;
  ScalarExpr r{*a.b, a.loc, arith::RemFOp::create(*a.b, a.loc, a.value, c.value)};
  ScalarExpr otherSign = (lt(r, 0) & gt(c, 0)) | (gt(r, 0) & lt(c, 0)); // r * c could underflow
  return select(otherSign, r + c, r);
}

// v = 2 sqrt(2 / pi) (x + 0.044715 x^3) and its derivatives, as factors of powers of x.
static constexpr double geluLinear = 1.5957691216057308, geluCubic = 0.07135481627260025;

ScalarExpr geluTanhDerivative(ScalarExpr x) {
  // Where x is this large, s and v' s (1 - s) are 0 or 1 in f64 too; beyond, infinity times 0 would come.
  constexpr double large = 30;
  ScalarExpr near = minimum(maximum(x, x.number(-large)), x.number(large)), square = near * near;
  // Of exp(-v) and exp(v) the one that is at most 1: s is accurate on both sides.
  ScalarExpr small = exp(-abs(near * (square * geluCubic + geluLinear))), inverse = x.number(1.0) / (small + 1.0);
  ScalarExpr s = select(lt(near, 0.0), small * inverse, inverse);
  return s + near * (square * (3 * geluCubic) + geluLinear) * (small * inverse * inverse);
}

static Type likeShape(Type shaped, Type element) {
  if (auto vector = dyn_cast<VectorType>(shaped))
    return vector.clone(element);
  return element;
}

ScalarExpr convert(ScalarExpr x, Type from, Type to) {
  OpBuilder &b = *x.b;
  Type have = getElementTypeOrSelf(x.value);
  Type want = to.isUnsignedInteger() ? Type(IntegerType::get(to.getContext(), to.getIntOrFloatBitWidth())) : to;
  bool isUnsigned = from.isUnsignedInteger() || from.isInteger(1);
  Type type = likeShape(x.value.getType(), want);
  if (have == want)
    return x;
  auto made = [&](Value v) { return ScalarExpr(b, x.loc, v); };
  unsigned haveBits = have.getIntOrFloatBitWidth(), wantBits = want.getIntOrFloatBitWidth();
  if (isa<FloatType>(have) && isa<FloatType>(want)) {
    if (haveBits == wantBits) // f16 and bf16
      return convert(convert(x, have, b.getF32Type()), b.getF32Type(), want);
    return haveBits < wantBits ? made(arith::ExtFOp::create(b, x.loc, type, x.value)) : made(arith::TruncFOp::create(b, x.loc, type, x.value));
  }
  if (isa<FloatType>(want))
    return isUnsigned ? made(arith::UIToFPOp::create(b, x.loc, type, x.value)) : made(arith::SIToFPOp::create(b, x.loc, type, x.value));
  if (isa<FloatType>(have)) {
    if (want.isInteger(1))
      return compare(ComparePredicate::ne, x, x.number(0));
    return to.isUnsignedInteger() ? made(arith::FPToUIOp::create(b, x.loc, type, x.value)) : made(arith::FPToSIOp::create(b, x.loc, type, x.value));
  }
  if (want.isInteger(1))
    return compare(ComparePredicate::ne, x, x.number(0));
  if (haveBits > wantBits)
    return made(arith::TruncIOp::create(b, x.loc, type, x.value));
  return isUnsigned ? made(arith::ExtUIOp::create(b, x.loc, type, x.value)) : made(arith::ExtSIOp::create(b, x.loc, type, x.value));
}

//===--- whole tensors ---===//

TensorExpr TensorExpr::number(double n) const { return {*b, loc, FillOp::create(*b, loc, type(), n)}; }

template <typename OpTy> static TensorExpr binary(TensorExpr a, TensorExpr c) { return {*a.b, a.loc, OpTy::create(*a.b, a.loc, a.value, c.value)}; }
template <typename OpTy> static TensorExpr unary(TensorExpr x) { return {*x.b, x.loc, OpTy::create(*x.b, x.loc, x.value)}; }
TensorExpr operator+(TensorExpr a, TensorExpr c) { return binary<AddOp>(a, c); }
TensorExpr operator-(TensorExpr a, TensorExpr c) { return binary<SubOp>(a, c); }
TensorExpr operator*(TensorExpr a, TensorExpr c) { return binary<MulOp>(a, c); }
TensorExpr operator/(TensorExpr a, TensorExpr c) { return binary<DivOp>(a, c); }
TensorExpr operator-(TensorExpr a) { return unary<NegOp>(a); }
TensorExpr mulNoNan(TensorExpr a, TensorExpr c) {
  // A factor that is a finite number cannot make a NaN of a zero cotangent.
  if (auto fill = a.value.getDefiningOp<FillOp>())
    if (auto n = dyn_cast<FloatAttr>(fill.getValue()); n && n.getValue().isFinite())
      return a * c;
  return binary<MulNoNanOp>(a, c);
}
TensorExpr divNoNan(TensorExpr a, TensorExpr c) {
  if (auto fill = c.value.getDefiningOp<FillOp>())
    if (auto n = dyn_cast<FloatAttr>(fill.getValue()); n && n.getValue().isFiniteNonZero())
      return a / c;
  return binary<DivNoNanOp>(a, c);
}
TensorExpr compare(ComparePredicate predicate, TensorExpr a, TensorExpr c) {
  return {*a.b, a.loc, CompareOp::create(*a.b, a.loc, a.value, c.value, predicate)};
}
TensorExpr select(TensorExpr condition, TensorExpr whenTrue, TensorExpr whenFalse) {
  return {*whenTrue.b, whenTrue.loc, SelectOp::create(*whenTrue.b, whenTrue.loc, whenTrue.type(), condition.value, whenTrue.value, whenFalse.value)};
}
TensorExpr exp(TensorExpr x) { return unary<ExpOp>(x); }
TensorExpr log(TensorExpr x) { return unary<LogOp>(x); }
TensorExpr sqrt(TensorExpr x) { return unary<SqrtOp>(x); }
TensorExpr erf(TensorExpr x) { return unary<ErfOp>(x); }
TensorExpr sin(TensorExpr x) { return unary<SinOp>(x); }
TensorExpr cos(TensorExpr x) { return unary<CosOp>(x); }
TensorExpr sign(TensorExpr x) { return unary<SignOp>(x); }
TensorExpr floor(TensorExpr x) { return unary<FloorOp>(x); }
TensorExpr sigmoid(TensorExpr x) { return unary<SigmoidOp>(x); }
TensorExpr geluTanhDerivative(TensorExpr x) { return unary<GeluTanhDerivativeOp>(x); }
TensorExpr geluTanhSecondDerivative(TensorExpr x) {
  // s (1 - s) (2 v' + x ((1 - 2 s) v'^2 + v'')), s = sigmoid(v)
  TensorExpr square = x * x, v = x * (square * geluCubic + geluLinear), dv = square * (3 * geluCubic) + geluLinear;
  TensorExpr s = sigmoid(v), rest = sigmoid(-v);
  return mulNoNan(2.0 * dv + x * ((rest - s) * dv * dv + x * (6 * geluCubic)), s * rest);
}
TensorExpr pow(TensorExpr a, TensorExpr c) { return binary<PowOp>(a, c); }
TensorExpr convert(TensorExpr x, Type elementType) {
  return {*x.b, x.loc, ConvertOp::create(*x.b, x.loc, withElementType(x.type(), elementType), x.value)};
}
Value gradient(std::optional<TensorExpr> e) { return e ? e->value : Value(); }
std::optional<TensorExpr> convertGradient(TensorExpr dy, TensorExpr x) {
  if (!isa<FloatType>(x.type().getElementType()) || !isa<FloatType>(dy.type().getElementType()))
    return std::nullopt;
  return convert(dy, x.type().getElementType());
}
TensorExpr sum(TensorExpr x, ArrayRef<int64_t> axes) { return {*x.b, x.loc, SumOp::create(*x.b, x.loc, x.value, axes)}; }
TensorExpr max(TensorExpr x, ArrayRef<int64_t> axes) { return {*x.b, x.loc, MaxOp::create(*x.b, x.loc, x.value, axes)}; }
TensorExpr softmax(TensorExpr x, int64_t axis) { return {*x.b, x.loc, SoftmaxOp::create(*x.b, x.loc, x.type(), x.value, axis)}; }
TensorExpr iota(RankedTensorType type, int64_t axis, TensorExpr like) { return {*like.b, like.loc, IotaOp::create(*like.b, like.loc, type, axis)}; }

TensorExpr broadcastBack(TensorExpr small, TensorExpr x, ArrayRef<int64_t> axes) {
  SmallVector<int64_t> kept;
  for (int64_t axis = 0; axis < x.type().getRank(); ++axis)
    if (!llvm::is_contained(axes, axis))
      kept.push_back(axis);
  RankedTensorType type = withElementType(x.type(), small.type().getElementType());
  return {*small.b, small.loc, BroadcastOp::create(*small.b, small.loc, type, small.value, kept)};
}

TensorExpr sumAlong(TensorExpr x, int64_t axis) { return broadcastBack(sum(x, axis), x, {axis}); }

TensorExpr selectFirst(TensorExpr x, TensorExpr y, TensorExpr dy, ArrayRef<int64_t> axes) {
  // Among the elements equal to the result, the one with the smallest row-major number along the axes. That number is as exact as an element where there are few: then what is kept for the gradient
  // is two tensors of the result's size, and which element is the first can be said wherever it is asked.
  OpBuilder &b = *x.b;
  if (axes.empty())
    return dy;
  SmallVector<AffineExpr> sizes;
  int64_t count = 1;
  for (int64_t axis : axes) {
    sizes.push_back(sizesOf(x.type())[axis]);
    auto constant = dyn_cast<AffineConstantExpr>(sizes.back());
    count = constant && count <= (1 << 24) ? count * constant.getValue() : (1 << 24) + 1;
  }
  auto element = x.type().getElementType();
  const bool isExact = isa<Float32Type, Float64Type>(element) && count <= (1 << 24);
  RankedTensorType numbers = isExact ? tensorType(sizes, element) : withElementType(x.type(), b.getI32Type());
  std::optional<TensorExpr> place;
  for (auto [i, axis] : llvm::enumerate(axes)) {
    TensorExpr step = iota(numbers, isExact ? i : axis, x);
    if (place) {
      TensorExpr count = step.number(0);
      if (auto constant = dyn_cast<AffineConstantExpr>(sizes[i]))
        count = step.number(static_cast<double>(constant.getValue()));
      else {
        RankedTensorType scalar = RankedTensorType::get({}, b.getI32Type());
        Value value = SizeOp::create(b, x.loc, scalar, sizeMap(sizes[i], b.getContext()));
        count = {b, x.loc, BroadcastOp::create(b, x.loc, numbers, value, ArrayRef<int64_t>{})};
      }
      step = *place * count + step;
    }
    place = step;
  }
  if (isExact)
    place = TensorExpr(b, x.loc, BroadcastOp::create(b, x.loc, x.type(), place->value, axes));
  // No place is that far: of NaN none is the first.
  TensorExpr candidates = select(eq(x, broadcastBack(y, x, axes)), *place, place->number(2147483647.0));
  TensorExpr first = broadcastBack({b, x.loc, MinOp::create(b, x.loc, candidates.value, axes)}, candidates, axes);
  TensorExpr back = broadcastBack(dy, x, axes);
  return select(eq(*place, first), back, back.number(0.0));
}

TensorExpr wideLabel(TensorExpr label) {
  Type element = label.type().getElementType();
  return element.getIntOrFloatBitWidth() < 32 ? convert(label, label.b->getI32Type()) : label;
}

TensorExpr crossEntropyGradient(TensorExpr scores, TensorExpr narrowLabel, TensorExpr dy) {
  TensorExpr label = wideLabel(narrowLabel);
  int64_t last = scores.type().getRank() - 1;
  TensorExpr hit = eq(iota(withElementType(scores.type(), label.type().getElementType()), last, scores), broadcastBack(label, scores, {last}));
  TensorExpr probability = softmax(scores, last);
  TensorExpr ignored = eq(label, -100.0);
  TensorExpr weight = broadcastBack(select(ignored, dy.number(0.0), dy), scores, {last});
  return select(hit, probability - 1.0, probability) * weight;
}

} // namespace dlc::dl
