//===- Differentiate.cpp - expands dl.gradient by reverse mode -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/transforms/Passes.h"
#include "mlir/IR/IRMapping.h"
#include "llvm/ADT/DenseSet.h"
#include "llvm/ADT/MapVector.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc {
#define GEN_PASS_DEF_DIFFERENTIATE
#include "compiler/transforms/Passes.h.inc"

namespace {
struct Differentiate : impl::DifferentiateBase<Differentiate> {
  LogicalResult expand(GradientOp gradient);
  void recompute(IntegerAttr checkpoint, GradientOp gradient, Value when, OpBuilder &b, IRMapping &again);
  void runOnOperation() override {
    // In program order: what a later gradient is taken of may hold an earlier one.
    SmallVector<GradientOp> all;
    getOperation().walk([&](GradientOp op) { all.push_back(op); });
    for (GradientOp op : all)
      if (failed(expand(op)))
        return signalPassFailure();
    getOperation().walk([](Operation *op) { op->removeAttr(checkpointAttrName); });
  }
};
} // namespace

/// The ops of a checkpoint once more, before the gradient. Their inputs are taken after `when`, the cotangent that asks for them: so they run no earlier, and are no common
/// subexpressions of the first ones. What is computed from variables alone lives through the call anyway, and stays.
void Differentiate::recompute(IntegerAttr checkpoint, GradientOp gradient, Value when, OpBuilder &b, IRMapping &again) {
  for (Operation &op : *gradient->getBlock()) {
    if (&op == gradient.getOperation())
      break;
    if (op.getAttr(checkpointAttrName) != checkpoint || op.getNumResults() == 0 || !isMemoryEffectFree(&op))
      continue;
    op.walk([&](Operation *inner) {
      for (Value operand : inner->getOperands()) {
        Operation *def = operand.getDefiningOp();
        bool isInside = def ? op.isAncestor(def) : op.isAncestor(cast<BlockArgument>(operand).getOwner()->getParentOp());
        bool isInput = !isInside && !again.contains(operand) && (!def || def->getNumOperands() != 0 || def->getNumRegions() != 0);
        if (isInput)
          again.map(operand, AfterOp::create(b, op.getLoc(), operand, when));
      }
    });
    Operation *clone = b.clone(op, again);
    clone->removeAttr(checkpointAttrName);
    ++recomputed;
  }
}

LogicalResult Differentiate::expand(GradientOp gradient) {
  OpBuilder b(gradient);
  Location loc = gradient.getLoc();
  Operation *last = gradient->getPrevNode();
  llvm::MapVector<Attribute, IRMapping> checkpoints; // computed again so far

  // Forward: which values depend on what we derive by?
  DenseSet<Value> active(gradient.getWrt().begin(), gradient.getWrt().end());
  SmallVector<Operation *> path;
  for (Operation &op : *gradient->getBlock()) {
    if (&op == gradient.getOperation())
      break;
    if (!llvm::any_of(op.getOperands(), [&](Value operand) { return active.contains(operand); }))
      continue;
    // Derivatives flow through floating-point values only.
    bool flows = false;
    for (Value result : op.getResults())
      if (isa<FloatType>(getElementTypeOrSelf(result.getType()))) {
        active.insert(result); // which may be derived by itself
        flows = true;
      }
    if (flows)
      path.push_back(&op);
  }

  DenseMap<Value, Value> cotangents;
  auto add = [&](Value value, Value cotangent) {
    Value &sum = cotangents[value];
    sum = sum ? AddOp::create(b, loc, sum, cotangent).getResult() : cotangent;
  };
  add(gradient.getValue(), FillOp::create(b, loc, cast<RankedTensorType>(gradient.getValue().getType()), 1.0));

  // Backward.
  for (Operation *op : llvm::reverse(path)) {
    SmallVector<Value> dys;
    for (Value result : op->getResults())
      dys.push_back(cotangents.lookup(result));
    if (llvm::none_of(dys, [](Value dy) { return static_cast<bool>(dy); }))
      continue;
    Operation *residual = op; // whose operands and results the products are made of
    if (auto checkpoint = op->getAttrOfType<IntegerAttr>(checkpointAttrName)) {
      auto [entry, isNew] = checkpoints.try_emplace(checkpoint);
      if (isNew)
        recompute(checkpoint, gradient, *llvm::find_if(dys, [](Value dy) { return static_cast<bool>(dy); }), b, entry->second);
      if (Value again = entry->second.lookupOrNull(op->getResult(0)))
        residual = again.getDefiningOp();
    }
    auto differentiable = dyn_cast<DifferentiableOpInterface>(residual);
    if (!differentiable) {
      InFlightDiagnostic error = op->emitError() << "'" << op->getName() << "' has no gradient";
      error.attachNote(loc) << "needed for the gradient taken here";
      return error;
    }
    // Keep the place of the text in what is made for it.
    SmallVector<Value> grads;
    if (failed(differentiable.buildVjp(b, dys, grads)))
      return failure();
    ++products;
    for (auto [operand, grad] : llvm::zip_equal(op->getOperands(), grads))
      if (grad && active.contains(operand))
        add(operand, grad);
  }

  for (auto [index, wrt] : llvm::enumerate(gradient.getWrt())) {
    Value result = cotangents.lookup(wrt);
    if (!result) {
      InFlightDiagnostic error = gradient.emitError() << "the value does not depend on what it is derived by (number " << index + 1 << " of the list)";
      error.attachNote(wrt.getLoc()) << "this value";
      return error;
    }
    gradient.getResult(index).replaceAllUsesWith(result);
  }
  // A derivative that is taken within a checkpoint belongs to it.
  if (Attribute checkpoint = gradient->getAttr(checkpointAttrName))
    for (Operation *op = gradient->getPrevNode(); op != last; op = op->getPrevNode())
      op->setAttr(checkpointAttrName, checkpoint);
  gradient.erase();
  ++gradients;
  return success();
}

} // namespace dlc
