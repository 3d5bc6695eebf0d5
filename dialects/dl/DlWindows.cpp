//===- DlWindows.cpp - windows over tensors, and convolutions made of them -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "dialects/dl/DlExpr.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace dlc::dl;

//===--- window ---===//

namespace {
/// An index of a window's operand: (sum of factors[i] * index i, plus offset) / divisor.
struct Place {
  SmallVector<int64_t> factors;
  int64_t offset = 0, divisor = 1;

  /// The one index that it is, if it is just one.
  std::optional<int64_t> justIndex() const {
    std::optional<int64_t> index;
    for (auto [i, factor] : llvm::enumerate(factors)) {
      if (factor == 0)
        continue;
      if (factor != 1 || index)
        return std::nullopt;
      index = i;
    }
    return offset == 0 && divisor == 1 ? index : std::nullopt;
  }
};
} // namespace

/// Nothing where an expression is more than a sum of indices times numbers.
static std::optional<SmallVector<Place>> placesOf(AffineMap map, ArrayRef<int64_t> divisors) {
  SmallVector<Place> places;
  for (auto [expr, divisor] : llvm::zip(map.getResults(), divisors)) {
    Place place;
    place.factors.assign(map.getNumDims(), 0);
    place.divisor = divisor;
    std::function<bool(AffineExpr, int64_t)> add = [&](AffineExpr e, int64_t factor) {
      if (auto constant = dyn_cast<AffineConstantExpr>(e)) {
        place.offset += factor * constant.getValue();
        return true;
      }
      if (auto dim = dyn_cast<AffineDimExpr>(e)) {
        place.factors[dim.getPosition()] += factor;
        return true;
      }
      auto binary = dyn_cast<AffineBinaryOpExpr>(e);
      if (!binary)
        return false;
      if (e.getKind() == AffineExprKind::Add)
        return add(binary.getLHS(), factor) && add(binary.getRHS(), factor);
      auto number = dyn_cast<AffineConstantExpr>(binary.getRHS());
      return e.getKind() == AffineExprKind::Mul && number && add(binary.getLHS(), factor * number.getValue());
    };
    if (!add(expr, 1))
      return std::nullopt;
    places.push_back(std::move(place));
  }
  return places;
}
static SmallVector<Place> placesOf(WindowOp op) { return *placesOf(op.getMap(), op.getDivisors()); }

static AffineExpr exprOf(const Place &place, MLIRContext *context) {
  AffineExpr sum = getAffineConstantExpr(place.offset, context);
  for (auto [i, factor] : llvm::enumerate(place.factors))
    if (factor)
      sum = sum + getAffineDimExpr(i, context) * factor;
  return sum;
}

/// Whether an index can leave its axis.
static bool staysInside(const Place &place, AffineExpr size, ArrayRef<AffineExpr> sizes) {
  if (std::optional<int64_t> index = place.justIndex(); index && sizes[*index] == size)
    return true;
  int64_t low = place.offset, high = place.offset;
  auto limit = dyn_cast<AffineConstantExpr>(size);
  if (!limit || place.divisor != 1)
    return false;
  for (auto [factor, extent] : llvm::zip(place.factors, sizes)) {
    if (factor == 0)
      continue;
    auto constant = dyn_cast<AffineConstantExpr>(extent);
    if (!constant)
      return false;
    (factor < 0 ? low : high) += factor * std::max<int64_t>(constant.getValue() - 1, 0);
  }
  return low >= 0 && high < limit.getValue();
}

LogicalResult WindowOp::verify() {
  auto from = cast<RankedTensorType>(getX().getType()), to = cast<RankedTensorType>(getType());
  AffineMap map = getMap();
  if (from.getElementType() != to.getElementType() || map.getNumDims() != to.getRank() || map.getNumSymbols() != 0 || map.getNumResults() != from.getRank() ||
      static_cast<int64_t>(getDivisors().size()) != from.getRank())
    return emitOpError() << "takes windows " << to << " of " << from << " by a map of " << map.getNumDims() << " to " << map.getNumResults() << " indices and " << getDivisors().size()
                         << " divisors";
  for (auto [axis, divisor] : llvm::enumerate(getDivisors()))
    if (divisor < 1)
      return emitOpError() << "divides the index of axis " << axis << " by " << divisor;
  if (!placesOf(map, getDivisors()))
    return emitOpError() << "has the map " << getMapAttr() << ", which is more than sums of indices times numbers";
  if (!getOwnAxes())
    return emitOpError() << "has the map " << getMapAttr() << ", in which an axis of the operand has no index of its own";
  return success();
}

std::optional<SmallVector<int64_t>> WindowOp::getOwnAxes() {
  SmallVector<Place> places = placesOf(*this);
  SmallVector<int64_t> own(places.size(), -1);
  // An axis whose index is just one of the result's has that one; of the others each has the last index that nobody else has.
  for (auto [axis, place] : llvm::enumerate(places))
    if (std::optional<int64_t> index = place.justIndex()) {
      if (llvm::is_contained(own, *index))
        return std::nullopt;
      own[axis] = *index;
    }
  for (auto [axis, place] : llvm::enumerate(places))
    for (int64_t i = place.factors.size(); i-- > 0 && own[axis] < 0;)
      if (place.factors[i] && !llvm::is_contained(own, i))
        own[axis] = i;
  // Given all others, it alone decides: it stands nowhere else, unless it is just the index.
  for (auto [axis, index] : llvm::enumerate(own)) {
    if (index < 0)
      return std::nullopt;
    for (auto [other, place] : llvm::enumerate(places))
      if (other != axis && place.factors[index] && !places[axis].justIndex())
        return std::nullopt;
  }
  return own;
}

SmallVector<Value> WindowOp::mapIndices(OpBuilder &b, Location loc, ValueRange indices, llvm::function_ref<Value(AffineExpr)>) {
  SmallVector<Value> out;
  for (const Place &place : placesOf(*this)) {
    Value sum;
    auto add = [&](Value term) { sum = sum ? arith::AddIOp::create(b, loc, sum, term).getResult() : term; };
    for (auto [i, factor] : llvm::enumerate(place.factors))
      if (factor)
        add(factor == 1 ? indices[i] : arith::MulIOp::create(b, loc, indices[i], arith::ConstantIndexOp::create(b, loc, factor)).getResult());
    if (place.offset || !sum)
      add(arith::ConstantIndexOp::create(b, loc, place.offset));
    out.push_back(place.divisor == 1 ? sum : arith::DivSIOp::create(b, loc, sum, arith::ConstantIndexOp::create(b, loc, place.divisor)).getResult());
  }
  return out;
}

SmallVector<Value> WindowOp::buildInside(OpBuilder &b, Location loc, ValueRange indices, llvm::function_ref<Value(AffineExpr)> size) {
  SmallVector<Value> at = mapIndices(b, loc, indices, size), inside;
  SmallVector<AffineExpr> from = sizesOf(getX()), to = sizesOf(getResult());
  for (auto [axis, place] : llvm::enumerate(placesOf(*this))) {
    if (staysInside(place, from[axis], to)) {
      inside.push_back({});
      continue;
    }
    // A negative index is large without a sign.
    Value condition = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ult, at[axis], size(from[axis]));
    if (auto quotient = at[axis].getDefiningOp<arith::DivSIOp>(); quotient && place.divisor != 1) {
      Value whole = arith::MulIOp::create(b, loc, quotient, quotient.getRhs());
      Value isExact = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, whole, quotient.getLhs());
      condition = arith::AndIOp::create(b, loc, condition, isExact);
    }
    inside.push_back(condition);
  }
  return inside;
}

TypedAttr WindowOp::getElementOutside() {
  SmallVector<AffineExpr> from = sizesOf(getX()), to = sizesOf(getResult());
  for (auto [place, size] : llvm::zip(placesOf(*this), from))
    if (!staysInside(place, size, to))
      return Builder(getContext()).getFloatAttr(getElementTypeOrSelf(getType()), getOutside().convertToDouble());
  return {};
}
std::optional<int64_t> WindowOp::getInnermostStride() {
  int64_t last = cast<RankedTensorType>(getType()).getRank() - 1;
  SmallVector<Place> places = placesOf(*this);
  auto depends = [&](const Place &place) { return place.factors[last] != 0; };
  if (last < 0 || llvm::none_of(places, depends))
    return 0;
  // A quotient steps now and then.
  if (llvm::any_of(ArrayRef(places).drop_back(), depends) || places.back().divisor != 1)
    return std::nullopt;
  return places.back().factors[last];
}
std::optional<SmallVector<int64_t>> WindowOp::getAxisMap() {
  SmallVector<AffineExpr> from = sizesOf(getX()), to = sizesOf(getResult());
  SmallVector<int64_t> map;
  for (auto [place, size] : llvm::zip(placesOf(*this), from)) {
    std::optional<int64_t> index = place.justIndex();
    if (!index || to[*index] != size)
      return std::nullopt;
    map.push_back(*index);
  }
  return map;
}

LogicalResult WindowOp::buildVjp(OpBuilder &b, ValueRange cotangents, SmallVectorImpl<Value> &grads) {
  // An element of the operand lies in those windows at whose other indices its own axes can be solved for: own = (divisor * index - offset - others) / factor. The cotangents there, 0 where
  // there is no such window, are a window over the cotangents; they are added up.
  //
  // Where windows step by a stride, that quotient is whole for a few of the places in a window only. Along such an axis, index = stride * p + k + offset, the operand's elements are counted by
  // their quotient j and remainder r instead: index - offset = stride * j + r, so the places are k = stride * m + r and the windows p = j - m.
  auto from = cast<RankedTensorType>(getX().getType()), to = cast<RankedTensorType>(getType());
  const int64_t rank = to.getRank();
  SmallVector<Place> places = placesOf(*this);
  SmallVector<int64_t> own = *getOwnAxes();
  SmallVector<AffineExpr> sizes = sizesOf(to), operandSizes = sizesOf(from);

  // Of an operand's axis: the index of the place in the window, if it is counted by quotient and remainder.
  auto placeIndex = [&](int64_t axis) -> std::optional<int64_t> {
    const Place &place = places[axis];
    std::optional<int64_t> found;
    for (auto [i, factor] : llvm::enumerate(place.factors)) {
      if (factor == 0 || static_cast<int64_t>(i) == own[axis])
        continue;
      bool isElsewhere = false;
      for (auto [other, otherPlace] : llvm::enumerate(places))
        isElsewhere |= static_cast<int64_t>(other) != axis && otherPlace.factors[i] != 0;
      if (factor != 1 || found || isElsewhere || llvm::is_contained(own, i) || !isa<AffineConstantExpr>(sizes[i]))
        return std::nullopt;
      found = i;
    }
    return place.factors[own[axis]] > 1 && place.divisor == 1 && place.offset <= 0 ? found : std::nullopt;
  };
  // The new window's indices: those of the result, and before an own one its remainder.
  SmallVector<int64_t> index(rank), remainder(rank, -1);
  SmallVector<AffineExpr> newSizes;
  SmallVector<std::optional<int64_t>> counted(rank);
  for (auto [axis, i] : llvm::enumerate(own))
    counted[i] = placeIndex(axis);
  for (int64_t i = 0; i < rank; ++i) {
    if (counted[i]) {
      remainder[i] = newSizes.size();
      newSizes.push_back({});
    }
    index[i] = newSizes.size();
    newSizes.push_back(sizes[i]);
  }
  SmallVector<Place> back(rank);
  SmallVector<int64_t> divisors(rank, 1), summed;
  for (int64_t i = 0; i < rank; ++i) {
    back[i].factors.assign(newSizes.size(), 0);
    back[i].factors[index[i]] = 1;
    if (!llvm::is_contained(own, i))
      summed.push_back(index[i]);
  }
  for (auto [axis, place] : llvm::enumerate(places)) {
    int64_t i = own[axis], factor = place.factors[i], sign = factor < 0 ? -1 : 1;
    if (std::optional<int64_t> k = counted[i]) {
      back[i].factors[index[*k]] = -1;
      back[*k].factors[index[*k]] = factor;
      back[*k].factors[remainder[i]] = 1;
      newSizes[remainder[i]] = b.getAffineConstantExpr(factor);
      newSizes[index[i]] = normalizeSize((operandSizes[axis] + (factor - 1 - place.offset)).floorDiv(factor));
      newSizes[index[*k]] = b.getAffineConstantExpr(llvm::divideCeil(cast<AffineConstantExpr>(sizes[*k]).getValue(), factor));
      continue;
    }
    for (int64_t j = 0; j < rank; ++j)
      back[i].factors[index[j]] = sign * (j == i ? place.divisor : -place.factors[j]);
    back[i].offset = sign * -place.offset;
    divisors[i] = sign * factor;
    newSizes[index[i]] = operandSizes[axis];
  }
  SmallVector<AffineExpr> exprs;
  for (const Place &place : back)
    exprs.push_back(exprOf(place, getContext()));
  Type element = to.getElementType();
  Value dx = WindowOp::create(b, getLoc(), tensorType(newSizes, element), cotangents[0], AffineMap::get(newSizes.size(), 0, exprs, getContext()), divisors, APFloat(0.0));
  if (!summed.empty())
    dx = SumOp::create(b, getLoc(), dx, summed);

  // What is left, in the order of the operand's axes; quotients and remainders as one index, from the first element on.
  SmallVector<int64_t> left, permutation;
  for (int64_t i = 0; i < static_cast<int64_t>(newSizes.size()); ++i)
    if (!llvm::is_contained(summed, i))
      left.push_back(i);
  SmallVector<AffineExpr> joined, starts;
  for (auto [axis, i] : llvm::enumerate(own)) {
    permutation.push_back(llvm::find(left, index[i]) - left.begin());
    joined.push_back(newSizes[index[i]]);
    starts.push_back(b.getAffineConstantExpr(0));
    if (!counted[i])
      continue;
    permutation.push_back(llvm::find(left, remainder[i]) - left.begin());
    joined.back() = normalizeSize(joined.back() * places[axis].factors[i]);
    starts.back() = b.getAffineConstantExpr(-places[axis].offset);
  }
  if (!llvm::is_sorted(permutation))
    dx = TransposeOp::create(b, getLoc(), dx, permutation);
  if (left.size() != own.size())
    dx = ReshapeOp::create(b, getLoc(), tensorType(joined, element), dx);
  if (joined != operandSizes)
    dx = SliceOp::create(b, getLoc(), from, dx, sizeMap(starts, getContext()), SmallVector<int64_t>(own.size(), 1));
  grads.push_back(dx);
  return success();
}

//===--- convolution ---===//

namespace dlc::dl {

AffineExpr windowCount(AffineExpr size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
  return normalizeSize((size + 2 * padding - dilation * (kernel - 1) - 1).floorDiv(stride) + 1);
}

LogicalResult checkConvolution(std::optional<Location> location, RankedTensorType output, RankedTensorType input, RankedTensorType weight, ArrayRef<int64_t> strides,
                               ArrayRef<int64_t> paddings, ArrayRef<int64_t> dilations, int64_t groups) {
  int64_t spatial = strides.size();
  if (output.getRank() != spatial + 2 || input.getRank() != spatial + 2 || weight.getRank() != spatial + 2 || static_cast<int64_t>(paddings.size()) != spatial ||
      static_cast<int64_t>(dilations.size()) != spatial || spatial == 0)
    return emitOptionalError(location, "convolves ", input, " by ", weight, " to ", output, " with ", spatial, " strides, ", paddings.size(), " paddings and ", dilations.size(), " dilations");
  if (output.getElementType() != input.getElementType() || output.getElementType() != weight.getElementType())
    return emitOptionalError(location, "convolves ", input.getElementType(), " by ", weight.getElementType(), " to ", output.getElementType());
  for (auto [axis, stride, dilation] : llvm::enumerate(strides, dilations))
    if (stride < 1 || dilation < 1)
      return emitOptionalError(location, "has stride ", stride, " and dilation ", dilation, " in spatial axis ", axis);
  SmallVector<AffineExpr> out = sizesOf(output), in = sizesOf(input), w = sizesOf(weight);
  if (out[0] != in[0])
    return emitOptionalError(location, "has ", sizeToString(in[0], {}), " inputs and ", sizeToString(out[0], {}), " outputs");
  auto channels = dyn_cast<AffineConstantExpr>(w[0]);
  if (groups < 1 || (groups > 1 && (!channels || channels.getValue() % groups != 0)))
    return emitOptionalError(location, "divides ", sizeToString(w[0], {}), " channels of the output into ", groups, " groups");
  if (normalizeSize(w[1] * groups) != in[1] || w[0] != out[1])
    return emitOptionalError(location, "convolves ", sizeToString(in[1], {}), " channels to ", sizeToString(out[1], {}), " by a weight from ", groups, " times ", sizeToString(w[1], {}),
                             " channels to ", sizeToString(w[0], {}));
  return success();
}

} // namespace dlc::dl

ConvolutionResult ConvolutionOp::getTensorOfOperand(unsigned number) {
  using R = ConvolutionResult;
  if (number == 0)
    return getKind() == R::input ? R::output : R::input;
  return getKind() == R::weight ? R::output : R::weight;
}
Value ConvolutionOp::getTensor(ConvolutionResult tensor) {
  if (tensor == getKind())
    return getResult();
  return getTensorOfOperand(0) == tensor ? getLhs() : getRhs();
}
RankedTensorType ConvolutionOp::getTypeOf(ConvolutionResult tensor) { return cast<RankedTensorType>(getTensor(tensor).getType()); }
ArrayRef<int64_t> ConvolutionOp::getImageOf(ConvolutionResult tensor) { return getTypeOf(tensor).getShape().drop_front(2); }

LogicalResult ConvolutionOp::verify() {
  using R = ConvolutionResult;
  return checkConvolution(getLoc(), getTypeOf(R::output), getTypeOf(R::input), getTypeOf(R::weight), getStrides(), getPaddings(), getDilations(), getGroups());
}

/// Does the op have what every engine wants: elements that it computes with, and all sizes known but the number of images?
static bool suitsEngines(ConvolutionOp op) {
  using R = ConvolutionResult;
  RankedTensorType output = op.getTypeOf(R::output), input = op.getTypeOf(R::input);
  return op.getTypeOf(R::weight).hasStaticShape() && !ShapedType::isDynamicShape(output.getShape().drop_front()) && !ShapedType::isDynamicShape(input.getShape().drop_front()) &&
         isa<Float32Type, Float64Type>(output.getElementType());
}

bool ConvolutionOp::isForEngine() {
  // For a weight the engine has vectors along the output's channels, so where these are few, as where each channel is for itself, a sum over rows of the image is better.
  using R = ConvolutionResult;
  constexpr int64_t fewestChannels = 4;
  return suitsEngines(*this) && (getKind() != R::weight || getTypeOf(R::weight).getDimSize(0) / static_cast<int64_t>(getGroups()) >= fewestChannels);
}

bool ConvolutionOp::isForGpu() {
  // The engine reads through windows once for many rows of its result. A few rows, as of first layers and of channels each for itself, are not worth it.
  using R = ConvolutionResult;
  constexpr int64_t fewestRows = 8, shortestRow = 4;
  if (!suitsEngines(*this))
    return false;
  RankedTensorType weight = getTypeOf(R::weight);
  int64_t rows = getKind() == R::input ? weight.getDimSize(1) : weight.getDimSize(0) / static_cast<int64_t>(getGroups());
  return rows >= fewestRows && getImageOf(getKind() == R::input ? R::input : R::output).back() >= shortestRow;
}

/// Sums of products over windows: for where the time goes into reading, and for targets whose engine has no windows.
Value ConvolutionOp::buildDecomposition(OpBuilder &b) {
  using R = ConvolutionResult;
  Location loc = getLoc();
  MLIRContext *context = b.getContext();
  int64_t spatial = getSpatialRank(), groups = getGroups();
  Type element = getElementTypeOrSelf(getType());
  // The letters of the form with their sizes: n, g, o and c within a group, and for each spatial axis the output's p, the input's i, the weight's k.
  SmallVector<AffineExpr> output = sizesOf(getTypeOf(R::output)), input = sizesOf(getTypeOf(R::input)), weight = sizesOf(getTypeOf(R::weight));
  AffineExpr n = output[0], g = b.getAffineConstantExpr(groups), o = normalizeSize(weight[0].floorDiv(groups)), c = weight[1];
  ArrayRef<AffineExpr> p = ArrayRef(output).drop_front(2), i = ArrayRef(input).drop_front(2), k = ArrayRef(weight).drop_front(2);

  // The axes of the whole computation: what is kept, in the result's order, and around it what is summed: channels and the kernel before the kept positions, so that neighbours of the last axis
  // lie side by side; positions, which are many, last.
  SmallVector<AffineExpr> full;
  SmallVector<int64_t> summed;
  auto place = [&](ArrayRef<AffineExpr> sizes, bool isSummed = false) {
    SmallVector<AffineExpr> dims;
    for (AffineExpr size : sizes) {
      if (isSummed)
        summed.push_back(full.size());
      dims.push_back(getAffineDimExpr(full.size(), context));
      full.push_back(size);
    }
    return dims;
  };
  auto placeGroup = [&] { return groups == 1 ? b.getAffineConstantExpr(0) : place(g).front(); };
  AffineExpr atN, atG, atO, atC;
  SmallVector<AffineExpr> atP, atI, atK;
  switch (getKind()) {
  case R::output:
    atN = place(n).front(), atG = placeGroup(), atO = place(o).front(), atC = place(c, true).front(), atK = place(k, true), atP = place(p);
    break;
  case R::input:
    atN = place(n).front(), atG = placeGroup(), atC = place(c).front(), atO = place(o, true).front(), atK = place(k, true), atI = place(i);
    break;
  case R::weight:
    atG = placeGroup(), atO = place(o).front(), atC = place(c).front(), atK = place(k), atN = place(n, true).front(), atP = place(p, true);
    break;
  }

  // Each operand at its indices, which follow from the letters that are there.
  auto operand = [&](unsigned number) -> TensorExpr {
    R tensor = getTensorOfOperand(number);
    SmallVector<AffineExpr> at;
    SmallVector<int64_t> divisors(spatial + 2, 1);
    AffineExpr channelOut = atG * o + atO, channelIn = atG * c + atC;
    if (tensor == R::weight)
      at = {channelOut, atC};
    else
      at = {atN, tensor == R::output ? channelOut : channelIn};
    for (int64_t axis = 0; axis < spatial; ++axis) {
      int64_t stride = getStrides()[axis], padding = getPaddings()[axis], dilation = getDilations()[axis];
      if (tensor == R::weight) {
        at.push_back(atK[axis]);
      } else if (tensor == R::input) {
        at.push_back(atP[axis] * stride + atK[axis] * dilation - padding);
      } else if (!atP.empty()) {
        at.push_back(atP[axis]);
      } else {
        at.push_back(atI[axis] - atK[axis] * dilation + padding);
        divisors[2 + axis] = stride;
      }
    }
    Value view = WindowOp::create(b, loc, tensorType(full, element), getOperand(number), AffineMap::get(full.size(), 0, at, context), divisors, APFloat(0.0));
    return {b, loc, view};
  };
  TensorExpr total = sum(operand(0) * operand(1), summed);
  return groups == 1 ? total.value : ReshapeOp::create(b, loc, getType(), total.value).getResult();
}
