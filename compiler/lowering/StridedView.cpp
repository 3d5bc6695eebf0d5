//===- StridedView.cpp - tensors that lie with strides in memory -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/lowering/StridedView.h"
#include "mlir/Dialect/Arith/IR/Arith.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc {

static Value add(OpBuilder &b, Location loc, Value x, Value y) { return b.createOrFold<arith::AddIOp>(loc, x, y); }
static Value mul(OpBuilder &b, Location loc, Value x, Value y) { return b.createOrFold<arith::MulIOp>(loc, x, y); }
static Value index(OpBuilder &b, Location loc, int64_t n) { return arith::ConstantIndexOp::create(b, loc, n); }

Value StridedView::at(OpBuilder &b, Location loc, ArrayRef<Value> indices) const {
  Value place = begin;
  for (auto [i, stride] : llvm::zip(indices, strides))
    place = add(b, loc, place, mul(b, loc, i, stride));
  return place;
}

/// A tensor that lies row by row.
static StridedView rowMajorView(OpBuilder &b, Location loc, RankedTensorType type, Value memory, SizeOf size) {
  StridedView view{memory, index(b, loc, 0), {}};
  SmallVector<AffineExpr> sizes = sizesOf(type);
  for (size_t axis = 0; axis < sizes.size(); ++axis)
    view.strides.push_back(size(productOf(ArrayRef(sizes).drop_front(axis + 1), b.getContext())));
  return view;
}

StridedView viewOfOperand(OpBuilder &b, Location loc, FusedOp kernel, Value operand, BufferOf buffer, SizeOf size) {
  auto type = cast<RankedTensorType>(operand.getType());
  SmallVector<IndexingOpInterface> moves;
  while (auto move = operand.getDefiningOp<IndexingOpInterface>()) {
    moves.push_back(move);
    operand = move->getOperand(0);
  }
  unsigned argument = cast<BlockArgument>(operand).getArgNumber();
  Value lies = buffer(kernel->getAttrOfType<DenseI64ArrayAttr>("input_buffers")[argument], getElementTypeOrSelf(operand.getType()));
  // What keeps the order keeps the row-major number.
  while (!moves.empty() && moves.back().keepsOrder())
    moves.pop_back();
  if (moves.empty())
    return rowMajorView(b, loc, type, lies, size);
  StridedView whole = rowMajorView(b, loc, cast<RankedTensorType>(moves.back()->getOperand(0).getType()), lies, size);
  auto placeOf = [&](SmallVector<Value> indices) {
    for (IndexingOpInterface move : moves)
      indices = move.mapIndices(b, loc, indices, size);
    return whole.at(b, loc, indices);
  };
  SmallVector<Value> first(type.getRank(), index(b, loc, 0));
  StridedView view{lies, placeOf(first), {}};
  for (int64_t axis = 0; axis < type.getRank(); ++axis) {
    SmallVector<Value> next(first);
    next[axis] = index(b, loc, 1);
    view.strides.push_back(b.createOrFold<arith::SubIOp>(loc, placeOf(next), view.begin));
  }
  return view;
}

StridedView viewOfResult(OpBuilder &b, Location loc, FusedOp kernel, unsigned number, BufferOf buffer, SizeOf size) {
  auto type = cast<RankedTensorType>(kernel.getResult(number).getType());
  return rowMajorView(b, loc, type, buffer(kernel->getAttrOfType<DenseI64ArrayAttr>("result_buffers")[number], type.getElementType()), size);
}

} // namespace dlc
