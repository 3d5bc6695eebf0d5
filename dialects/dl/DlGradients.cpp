//===- DlGradients.cpp - gradients that are longer than a line -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "dialects/dl/Dl.h"

using namespace mlir;

namespace dlc::dl {

LogicalResult BroadcastOp::buildVjp(OpBuilder &b, ValueRange cotangents, SmallVectorImpl<Value> &grads) {
  // Sum over the axes that the operand does not have, and over those along which its one element was repeated.
  auto from = cast<RankedTensorType>(getX().getType()), to = cast<RankedTensorType>(getType());
  SmallVector<AffineExpr> sizes = sizesOf(from), wide = sizesOf(to);
  SmallVector<int64_t> axes;
  for (int64_t axis = 0; axis < to.getRank(); ++axis) {
    auto place = llvm::find(getAxes(), axis);
    if (place == getAxes().end() || sizes[place - getAxes().begin()] != wide[axis])
      axes.push_back(axis);
  }
  Value dx = SumOp::create(b, getLoc(), cotangents[0], axes);
  if (dx.getType() != from)
    dx = ReshapeOp::create(b, getLoc(), from, dx);
  grads.push_back(dx);
  return success();
}

LogicalResult ReshapeOp::buildVjp(OpBuilder &b, ValueRange cotangents, SmallVectorImpl<Value> &grads) {
  grads.push_back(ReshapeOp::create(b, getLoc(), getX().getType(), cotangents[0]));
  return success();
}

LogicalResult AssumeShapeOp::buildVjp(OpBuilder &b, ValueRange cotangents, SmallVectorImpl<Value> &grads) {
  grads.push_back(AssumeShapeOp::create(b, getLoc(), getX().getType(), cotangents[0]));
  return success();
}

LogicalResult AfterOp::buildVjp(OpBuilder &, ValueRange cotangents, SmallVectorImpl<Value> &grads) {
  grads.append({cotangents[0], nullptr});
  return success();
}

LogicalResult TransposeOp::buildVjp(OpBuilder &b, ValueRange cotangents, SmallVectorImpl<Value> &grads) {
  SmallVector<int64_t> inverse(getPermutation().size());
  for (auto [i, axis] : llvm::enumerate(getPermutation()))
    inverse[axis] = i;
  grads.push_back(TransposeOp::create(b, getLoc(), cotangents[0], inverse));
  return success();
}

LogicalResult SliceOp::buildVjp(OpBuilder &b, ValueRange cotangents, SmallVectorImpl<Value> &grads) {
  grads.push_back(PadOp::create(b, getLoc(), getX().getType(), cotangents[0], getStarts(), getStrides()));
  return success();
}

LogicalResult PadOp::buildVjp(OpBuilder &b, ValueRange cotangents, SmallVectorImpl<Value> &grads) {
  grads.push_back(SliceOp::create(b, getLoc(), getX().getType(), cotangents[0], getStarts(), getStrides()));
  return success();
}

LogicalResult SliceAtOp::buildVjp(OpBuilder &b, ValueRange cotangents, SmallVectorImpl<Value> &grads) {
  Value zeros = FillOp::create(b, getLoc(), cast<RankedTensorType>(getX().getType()), 0.0);
  grads.push_back(SliceUpdateOp::create(b, getLoc(), getX().getType(), zeros, cotangents[0], getStart(), getAxis()));
  grads.push_back({});
  return success();
}
Value SliceAtOp::addVjp(OpBuilder &b, unsigned operand, ValueRange cotangents, Value sum) {
  if (operand != 0)
    return {};
  Value before = SliceAtOp::create(b, getLoc(), getType(), sum, getStart(), getAxis());
  Value after = AddOp::create(b, getLoc(), before, cotangents[0]);
  return SliceUpdateOp::create(b, getLoc(), getX().getType(), sum, after, getStart(), getAxis());
}

LogicalResult SliceUpdateOp::buildVjp(OpBuilder &b, ValueRange cotangents, SmallVectorImpl<Value> &grads) {
  // Nothing of either operand is kept: what was replaced has no part in the result, what replaces it is there as it was.
  Value zeros = FillOp::create(b, getLoc(), cast<RankedTensorType>(getPart().getType()), 0.0);
  grads.push_back(SliceUpdateOp::create(b, getLoc(), getX().getType(), cotangents[0], zeros, getStart(), getAxis()));
  grads.push_back(SliceAtOp::create(b, getLoc(), getPart().getType(), cotangents[0], getStart(), getAxis()));
  grads.push_back({});
  return success();
}

LogicalResult ConcatOp::buildVjp(OpBuilder &b, ValueRange cotangents, SmallVectorImpl<Value> &grads) {
  auto type = cast<RankedTensorType>(getType());
  SmallVector<AffineExpr> starts(type.getRank(), b.getAffineConstantExpr(0));
  SmallVector<int64_t> strides(type.getRank(), 1);
  for (Value input : getInputs()) {
    grads.push_back(SliceOp::create(b, getLoc(), input.getType(), cotangents[0], sizeMap(starts, b.getContext()), strides));
    starts[getAxis()] = starts[getAxis()] + sizesOf(input)[getAxis()];
  }
  return success();
}

LogicalResult MatmulOp::buildVjp(OpBuilder &b, ValueRange cotangents, SmallVectorImpl<Value> &grads) {
  // With op(A) and op(B) the operands as multiplied: d op(A) = dY op(B)', d op(B) = op(A)' dY; a transposed operand gets the transposed product, which is a product again.
  Value dy = cotangents[0], lhs = getLhs(), rhs = getRhs();
  bool lt = getLhsTransposed(), rt = getRhsTransposed();
  auto product = [&](Value a, bool at, Value c, bool ct) { return MatmulOp::create(b, getLoc(), a, c, at, ct); };
  grads.push_back(lt ? product(rhs, rt, dy, true) : product(dy, false, rhs, !rt));
  grads.push_back(rt ? product(dy, true, lhs, lt) : product(lhs, !lt, dy, false));
  return success();
}

LogicalResult GatherOp::buildVjp(OpBuilder &b, ValueRange cotangents, SmallVectorImpl<Value> &grads) {
  Value zeros = FillOp::create(b, getLoc(), cast<RankedTensorType>(getX().getType()), 0.0);
  grads.push_back(ScatterAddOp::create(b, getLoc(), zeros, cotangents[0], getIndices(), getAxes(), getPosition()));
  grads.append(getIndices().size(), Value());
  return success();
}

LogicalResult ScatterAddOp::buildVjp(OpBuilder &b, ValueRange cotangents, SmallVectorImpl<Value> &grads) {
  grads.push_back(cotangents[0]);
  grads.push_back(GatherOp::create(b, getLoc(), cotangents[0], getIndices(), getAxes(), getPosition()));
  grads.append(getIndices().size(), Value());
  return success();
}

LogicalResult ScatterOp::buildVjp(OpBuilder &b, ValueRange cotangents, SmallVectorImpl<Value> &grads) {
  Value dy = cotangents[0];
  auto zeros = [&](RankedTensorType type) { return FillOp::create(b, getLoc(), type, 0.0); };
  auto updates = cast<RankedTensorType>(getUpdates().getType());
  grads.push_back(ScatterOp::create(b, getLoc(), dy, zeros(updates), getIndices(), getAxes(), getPosition()));
  Value taken = GatherOp::create(b, getLoc(), dy, getIndices(), getAxes(), getPosition());
  auto places = cast<RankedTensorType>(getIndices().front().getType());
  if (places.getRank() != 0) {
    // Of several updates of one place the last one counts: each place is given the number of its last update.
    SmallVector<AffineExpr> sizes = sizesOf(getInto()), indexed;
    for (int64_t axis : getAxes())
      indexed.push_back(sizes[axis]);
    Type i64 = b.getI64Type();
    Value numbers = IotaOp::create(b, getLoc(), tensorType(elementCount(places), i64), 0);
    numbers = ReshapeOp::create(b, getLoc(), withElementType(places, i64), numbers);
    Value none = FillOp::create(b, getLoc(), tensorType(indexed, i64), static_cast<int64_t>(-1));
    SmallVector<int64_t> all = llvm::to_vector(llvm::seq<int64_t>(0, indexed.size()));
    Value last = ScatterOp::create(b, getLoc(), none, numbers, getIndices(), all, 0);
    Value counts = CompareOp::create(b, getLoc(), GatherOp::create(b, getLoc(), last, getIndices(), all, 0), numbers, ComparePredicate::eq);
    SmallVector<int64_t> axes = llvm::to_vector(llvm::seq<int64_t>(getPosition(), getPosition() + places.getRank()));
    counts = BroadcastOp::create(b, getLoc(), withElementType(updates, b.getI1Type()), counts, axes);
    taken = SelectOp::create(b, getLoc(), updates, counts, taken, zeros(updates));
  }
  grads.push_back(taken);
  grads.append(getIndices().size(), Value());
  return success();
}

LogicalResult ConvolutionOp::buildVjp(OpBuilder &b, ValueRange cotangents, SmallVectorImpl<Value> &grads) {
  // The form is linear in each tensor: the derivative in an operand is the form without that operand, with the cotangent in the result's place.
  using R = ConvolutionResult;
  auto tensor = [&](R which) { return which == getKind() ? cotangents[0] : getTensor(which); };
  for (unsigned number : {0, 1}) {
    R wanted = getTensorOfOperand(number);
    Value lhs = tensor(wanted == R::input ? R::output : R::input), rhs = tensor(wanted == R::weight ? R::output : R::weight);
    grads.push_back(ConvolutionOp::create(b, getLoc(), getOperand(number).getType(), wanted, lhs, rhs, getStrides(), getPaddings(), getDilations(), getGroups()));
  }
  return success();
}

} // namespace dlc::dl
