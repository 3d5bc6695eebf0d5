//===- ElementCost.cpp - what computing an element takes -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/transforms/ElementCost.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc {

int64_t countMade(Operation *op, ArrayRef<Type> types, function_ref<void(OpBuilder &, ValueRange)> build, function_ref<int64_t(Operation &)> count) {
  Block block;
  for (Type type : types) {
    // Elements have no sign, as when kernels are emitted.
    Type element = getElementTypeOrSelf(type);
    auto integer = dyn_cast<IntegerType>(element);
    block.addArgument(integer ? IntegerType::get(op->getContext(), integer.getWidth()) : element, op->getLoc());
  }
  OpBuilder b(op->getContext()); // the block belongs to nothing that could be asked for it
  b.setInsertionPointToStart(&block);
  build(b, block.getArguments());
  int64_t sum = 0;
  for (Operation &made : block)
    sum += count(made);
  return sum;
}

int64_t countMade(ElementwiseOpInterface op, function_ref<int64_t(Operation &)> count) {
  SmallVector<Type> types(op->getOperandTypes());
  return countMade(op, types, [&](OpBuilder &b, ValueRange values) { op.buildElement(b, op->getLoc(), values); }, count);
}

int64_t floatOperations(Operation &made) {
  bool isNumber = made.getNumResults() == 1 && isa<FloatType>(made.getResult(0).getType());
  bool moves = isa<arith::ConstantOp, arith::SelectOp, CastOpInterface>(made);
  if (!isNumber || moves || !isa<arith::ArithDialect, math::MathDialect>(made.getDialect()))
    return 0;
  return isa<math::FmaOp>(made) ? 2 : 1;
}

int64_t elementaryFunctions(ElementwiseOpInterface op) {
  return countMade(op, [](Operation &made) -> int64_t {
    bool isInstruction = isa<math::FmaOp, math::AbsFOp, math::SqrtOp, math::FloorOp, math::CeilOp, math::RoundEvenOp, math::CopySignOp>(made);
    return isa<math::MathDialect>(made.getDialect()) && !isInstruction;
  });
}

} // namespace dlc
