//===- Simplify.cpp - algebra, folding, common subexpressions, dead code -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/transforms/Passes.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/Dominance.h"
#include "mlir/IR/PatternMatch.h"
#include "mlir/Transforms/CSE.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc {
#define GEN_PASS_DEF_SIMPLIFY
#include "compiler/transforms/Passes.h.inc"

namespace {

/// A moved fill is a fill.
struct MoveOfFill : OpInterfaceRewritePattern<IndexingOpInterface> {
  using OpInterfaceRewritePattern::OpInterfaceRewritePattern;
  LogicalResult matchAndRewrite(IndexingOpInterface op, PatternRewriter &rewriter) const override {
    auto fill = op->getOperand(0).getDefiningOp<FillOp>();
    if (!fill || op.getElementOutside())
      return failure();
    rewriter.replaceOpWithNewOp<FillOp>(op, op->getResult(0).getType(), fill.getValue());
    return success();
  }
};

/// An elementwise op of fills is a fill: the element is built from constants and folded.
struct ElementwiseOfFills : OpInterfaceRewritePattern<ElementwiseOpInterface> {
  using OpInterfaceRewritePattern::OpInterfaceRewritePattern;
  LogicalResult matchAndRewrite(ElementwiseOpInterface op, PatternRewriter &rewriter) const override {
    if (op->getNumOperands() == 0 || !llvm::all_of(op->getOperands(), [](Value v) { return v.getDefiningOp<FillOp>() != nullptr; }))
      return failure();
    Block scratch;
    OpBuilder b(op.getContext());
    b.setInsertionPointToEnd(&scratch);
    SmallVector<Value> elements;
    for (Value operand : op->getOperands()) {
      if (getElementTypeOrSelf(operand.getType()).isUnsignedInteger())
        return failure();
      elements.push_back(cast<GeneratorOpInterface>(operand.getDefiningOp()).buildElements(b, op.getLoc(), {}, {}, {}, 1, nullptr));
    }
    Value element = op.buildElement(b, op.getLoc(), elements);
    DenseMap<Value, Attribute> known;
    for (Operation &inner : scratch) {
      SmallVector<Attribute> operands;
      for (Value operand : inner.getOperands())
        operands.push_back(known.lookup(operand));
      SmallVector<OpFoldResult> folded;
      if (failed(inner.fold(operands, folded)) || folded.size() != inner.getNumResults())
        return failure();
      for (auto [result, value] : llvm::zip(inner.getResults(), folded)) {
        Attribute attr = llvm::dyn_cast_if_present<Attribute>(value);
        if (!attr)
          attr = known.lookup(cast<Value>(value));
        if (!attr)
          return failure();
        known[result] = attr;
      }
    }
    Attribute result = known.lookup(element);
    auto type = cast<RankedTensorType>(op->getResult(0).getType());
    if (auto number = dyn_cast_or_null<FloatAttr>(result))
      rewriter.replaceOpWithNewOp<FillOp>(op, type, number.getValueAsDouble());
    else if (auto number = dyn_cast_or_null<IntegerAttr>(result))
      rewriter.replaceOpWithNewOp<FillOp>(op, type, number.getType().isInteger(1) ? int64_t(number.getValue().getBoolValue()) : number.getValue().getSExtValue());
    else
      return failure();
    return success();
  }
};

/// Elementwise ops do not care for dimensions of size 1: where all operands are reshaped from one smaller shape (or are fills), compute in that shape.
struct ElementwiseWithoutUnits : OpInterfaceRewritePattern<ElementwiseOpInterface> {
  using OpInterfaceRewritePattern::OpInterfaceRewritePattern;
  LogicalResult matchAndRewrite(ElementwiseOpInterface op, PatternRewriter &rewriter) const override {
    RankedTensorType shape;
    for (Value operand : op->getOperands()) {
      if (operand.getDefiningOp<FillOp>())
        continue;
      auto reshape = operand.getDefiningOp<ReshapeOp>();
      if (!reshape)
        return failure();
      auto from = cast<RankedTensorType>(reshape.getX().getType());
      if (from.getRank() >= cast<RankedTensorType>(reshape.getType()).getRank() || (shape && sizesOf(shape) != sizesOf(from)))
        return failure();
      shape = from;
    }
    if (!shape)
      return failure();
    SmallVector<Value> operands;
    for (Value operand : op->getOperands()) {
      if (auto fill = operand.getDefiningOp<FillOp>())
        operands.push_back(FillOp::create(rewriter, op.getLoc(), withElementType(shape, getElementTypeOrSelf(fill.getType())), fill.getValue()));
      else
        operands.push_back(operand.getDefiningOp<ReshapeOp>().getX());
    }
    Operation *small = rewriter.create(op.getLoc(), op->getName().getIdentifier(), operands, withElementType(shape, getElementTypeOrSelf(op->getResult(0).getType())), op->getAttrs());
    rewriter.replaceOpWithNewOp<ReshapeOp>(op, op->getResult(0).getType(), small->getResult(0));
    return success();
  }
};

/// Broadcasts compose; one of a reshape that only adds or drops dimensions of size 1 takes the reshape's operand.
struct ComposeBroadcast : OpRewritePattern<BroadcastOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(BroadcastOp op, PatternRewriter &rewriter) const override {
    if (auto inner = op.getX().getDefiningOp<BroadcastOp>()) {
      SmallVector<int64_t> axes;
      for (int64_t axis : inner.getAxes())
        axes.push_back(op.getAxes()[axis]);
      rewriter.replaceOpWithNewOp<BroadcastOp>(op, op.getType(), inner.getX(), axes);
      return success();
    }
    auto reshape = op.getX().getDefiningOp<ReshapeOp>();
    if (!reshape)
      return failure();
    AffineExpr one = rewriter.getAffineConstantExpr(1);
    SmallVector<AffineExpr> from = sizesOf(reshape.getX()), to = sizesOf(reshape.getResult());
    SmallVector<int64_t> axes;
    size_t i = 0;
    for (auto [j, size] : llvm::enumerate(to)) {
      if (size == one)
        continue;
      if (i >= from.size() || from[i] != size)
        return failure();
      ++i;
      axes.push_back(op.getAxes()[j]);
    }
    if (i != from.size())
      return failure();
    rewriter.replaceOpWithNewOp<BroadcastOp>(op, op.getType(), reshape.getX(), axes);
    return success();
  }
};

/// A reduction over axes of size 1, or over none, brings nothing together.
struct ReductionOverUnits : OpInterfaceRewritePattern<ReductionOpInterface> {
  using OpInterfaceRewritePattern::OpInterfaceRewritePattern;
  LogicalResult matchAndRewrite(ReductionOpInterface op, PatternRewriter &rewriter) const override {
    Value x = op->getOperand(0);
    SmallVector<AffineExpr> sizes = sizesOf(x);
    AffineExpr one = rewriter.getAffineConstantExpr(1);
    if (!llvm::all_of(op.getReducedAxes(), [&](int64_t axis) { return sizes[axis] == one; }))
      return failure();
    auto type = cast<RankedTensorType>(op->getResult(0).getType());
    if (op.keepsIndex()) // of the only element
      rewriter.replaceOpWithNewOp<FillOp>(op, type, int64_t(0));
    else
      rewriter.replaceOpWithNewOp<ReshapeOp>(op, type, x);
    return success();
  }
};

/// What takes the place of an op of a checkpoint belongs to it too.
struct KeepCheckpoint : RewriterBase::Listener {
  void notifyPatternBegin(const Pattern &, Operation *op) override { checkpoint = op->getAttr(checkpointAttrName); }
  void notifyPatternEnd(const Pattern &, LogicalResult) override { checkpoint = {}; }
  void notifyOperationInserted(Operation *op, OpBuilder::InsertPoint) override {
    if (checkpoint)
      op->setAttr(checkpointAttrName, checkpoint);
  }
  Attribute checkpoint;
};

/// Is a gradient still to be taken in a value that is computed here? Algebra could lead the dependence around such a value, and two equal values would become one.
bool derivesInLocals(FuncOp function) {
  bool found = false;
  function.walk([&](GradientOp gradient) {
    for (Value wrt : gradient.getWrt())
      found |= !isa<BlockArgument>(wrt) && !wrt.getDefiningOp<ReadOp>();
  });
  return found;
}

struct Simplify : impl::SimplifyBase<Simplify> {
  void runOnOperation() override {
    MLIRContext *context = &getContext();
    auto count = [&] {
      int64_t n = 0;
      getOperation().walk([&](Operation *) { ++n; });
      return n;
    };
    int64_t before = count();
    RewritePatternSet patterns(context);
    for (RegisteredOperationName op : context->getRegisteredOperationsByDialect(DlDialect::getDialectNamespace()))
      op.getCanonicalizationPatterns(patterns, context);
    patterns.add<MoveOfFill, ElementwiseOfFills, ElementwiseWithoutUnits, ComposeBroadcast, ReductionOverUnits>(context);
    FrozenRewritePatternSet frozen(std::move(patterns));
    KeepCheckpoint keepCheckpoint;
    GreedyRewriteConfig config;
    config.setUseTopDownTraversal(true).setListener(&keepCheckpoint);
    // What a derivative needs, and no more: maximum(x, 0) is relu.
    RewritePatternSet fewPatterns(context);
    MaximumOp::getCanonicalizationPatterns(fewPatterns, context);
    FrozenRewritePatternSet few(std::move(fewPatterns));
    GreedyRewriteConfig plain = config;
    plain.enableFolding(false).enableConstantCSE(false).setRegionSimplificationLevel(GreedySimplifyRegionLevel::Disabled);
    DominanceInfo dominance(getOperation());
    IRRewriter rewriter(context);
    for (auto function : getOperation().getBody().front().getOps<FuncOp>()) {
      if (derivesInLocals(function)) {
        (void)applyPatternsGreedily(function, few, plain);
        continue;
      }
      // Common subexpressions first and last: patterns see through them, and make some.
      eliminateCommonSubExpressions(rewriter, dominance, function);
      if (failed(applyPatternsGreedily(function, frozen, config))) {
        function.emitError() << "simplification of @" << function.getSymName() << " does not come to an end";
        return signalPassFailure();
      }
      eliminateCommonSubExpressions(rewriter, dominance, function);
    }
    if (int64_t after = count(); after < before)
      removed += before - after;
  }
};
} // namespace
} // namespace dlc
