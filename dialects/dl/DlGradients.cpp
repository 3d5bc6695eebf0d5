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

} // namespace dlc::dl
