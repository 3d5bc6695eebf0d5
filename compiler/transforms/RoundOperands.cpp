//===- RoundOperands.cpp - rounds the operands of products -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/transforms/Passes.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc {
#define GEN_PASS_DEF_ROUNDOPERANDS
#include "compiler/transforms/Passes.h.inc"

namespace {
struct RoundOperands : impl::RoundOperandsBase<RoundOperands> {
  void runOnOperation() override {
    std::optional<Type> precision = getOperation().getPrecision();
    if (!precision)
      return;
    // What holds products may hold more of its kind.
    for (bool again = true; again;) {
      again = false;
      SmallVector<DecomposableOpInterface> found;
      getOperation().walk([&](DecomposableOpInterface op) {
        if (op.holdsProducts())
          found.push_back(op);
      });
      for (DecomposableOpInterface op : found) {
        OpBuilder b(op);
        SmallVector<Value> parts = op.buildDecompositions(b);
        assert(!parts.empty() && "what holds products can be taken apart");
        op->replaceAllUsesWith(parts);
        op->erase();
        again = true;
      }
    }
    SmallVector<ContractionOpInterface> products;
    getOperation().walk([&](ContractionOpInterface op) { products.push_back(op); });
    for (ContractionOpInterface product : products)
      for (OpOperand &operand : product->getOpOperands())
        if (getElementTypeOrSelf(operand.get().getType()).isF32()) {
          operand.set(round(operand.get(), *precision));
          ++rounded;
        }
  }

private:
  DenseMap<Value, Value> known; // to what is rounded already

  /// Would rounding what the op moves be no more work than rounding its result? Then the operand is rounded, for all that read it.
  static bool isRoundedBefore(IndexingOpInterface op) {
    return op->getNumOperands() == 1 && !op.getElementOutside() && (op.keepsOrder() || op.getAxisMap());
  }

  Value round(Value value, Type precision) {
    Value &result = known[value];
    if (result)
      return result;
    Operation *def = value.getDefiningOp();
    OpBuilder b(value.getContext());
    b.setInsertionPointAfterValue(value);
    if (auto indexing = dyn_cast_or_null<IndexingOpInterface>(def); indexing && isRoundedBefore(indexing)) {
      Value before = round(def->getOperand(0), precision);
      Operation *moved = b.clone(*def);
      moved->setOperand(0, before);
      return known[value] = moved->getResult(0);
    }
    return result = RoundToOp::create(b, value.getLoc(), value.getType(), precision, value);
  }
};
} // namespace
} // namespace dlc
