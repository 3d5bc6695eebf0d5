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
#include "mlir/Transforms/RegionUtils.h"
#include "llvm/ADT/SetVector.h"
#include "llvm/ADT/SmallSet.h"

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

/// How many leading axes of a reshape's result are one axis of its operand, where the others are the same; none where that is not what it does.
static std::optional<int64_t> splitAxes(ReshapeOp op) {
  SmallVector<AffineExpr> from = sizesOf(op.getX()), to = sizesOf(op.getResult());
  int64_t count = static_cast<int64_t>(to.size()) - static_cast<int64_t>(from.size()) + 1;
  if (from.empty() || count < 2 || ArrayRef(to).drop_front(count) != ArrayRef(from).drop_front() || productOf(ArrayRef(to).take_front(count), op.getContext()) != from.front())
    return std::nullopt;
  return count;
}

/// A value with its first `count` axes as one: what is there already, or the value reshaped.
static Value withOneAxis(PatternRewriter &rewriter, Location loc, Value value, int64_t count) {
  auto type = cast<RankedTensorType>(value.getType());
  SmallVector<AffineExpr> sizes = sizesOf(type), merged{productOf(ArrayRef(sizes).take_front(count), type.getContext())};
  merged.append(sizes.begin() + count, sizes.end());
  RankedTensorType small = tensorType(merged, type.getElementType());
  if (auto reshape = value.getDefiningOp<ReshapeOp>(); reshape && reshape.getX().getType() == small)
    return reshape.getX();
  if (auto fill = value.getDefiningOp<FillOp>())
    return FillOp::create(rewriter, loc, small, fill.getValue());
  if (auto iota = value.getDefiningOp<IotaOp>(); iota && static_cast<int64_t>(iota.getAxis()) >= count)
    return IotaOp::create(rewriter, loc, small, iota.getAxis() - (count - 1));
  if (auto broadcast = value.getDefiningOp<BroadcastOp>()) {
    // Of what does not have these axes, or has all of them.
    ArrayRef<int64_t> axes = broadcast.getAxes();
    int64_t own = llvm::count_if(axes, [&](int64_t axis) { return axis < count; });
    SmallVector<AffineExpr> from = sizesOf(broadcast.getX());
    if (own == 0 || (own == count && ArrayRef(from).take_front(count) == ArrayRef(sizes).take_front(count))) {
      Value x = own ? withOneAxis(rewriter, loc, broadcast.getX(), count) : broadcast.getX();
      SmallVector<int64_t> moved;
      if (own)
        moved.push_back(0);
      for (int64_t axis : axes.drop_front(own))
        moved.push_back(axis - (count - 1));
      return BroadcastOp::create(rewriter, loc, small, x, moved);
    }
  }
  return ReshapeOp::create(rewriter, loc, small, value);
}

/// Is the reshape's operand computed in a kernel that what follows could be part of, but for the reshape?
static bool isComputedWithOneAxis(ReshapeOp op) { return op && isa_and_nonnull<ContractionOpInterface, ElementwiseOpInterface, ReductionOpInterface>(op.getX().getDefiningOp()) && splitAxes(op); }

/// What is computed of a product's rows has the product's shape, whatever shape the rows are seen under: so it is part of the product's kernel.
struct ElementwiseOfRows : OpInterfaceRewritePattern<ElementwiseOpInterface> {
  using OpInterfaceRewritePattern::OpInterfaceRewritePattern;
  LogicalResult matchAndRewrite(ElementwiseOpInterface op, PatternRewriter &rewriter) const override {
    auto rows = llvm::find_if(op->getOperands(), [](Value operand) { return isComputedWithOneAxis(operand.getDefiningOp<ReshapeOp>()); });
    if (rows == op->getOperands().end())
      return failure();
    auto reshape = (*rows).getDefiningOp<ReshapeOp>();
    SmallVector<Value> operands;
    for (Value operand : op->getOperands())
      operands.push_back(withOneAxis(rewriter, op.getLoc(), operand, *splitAxes(reshape)));
    auto type = withElementType(cast<RankedTensorType>(reshape.getX().getType()), getElementTypeOrSelf(op->getResult(0).getType()));
    Operation *small = rewriter.create(op.getLoc(), op->getName().getIdentifier(), operands, type, op->getAttrs());
    rewriter.replaceOpWithNewOp<ReshapeOp>(op, op->getResult(0).getType(), small->getResult(0));
    return success();
  }
};
/// The same of reductions over none or all of the axes that are one there.
struct ReductionOfRows : OpInterfaceRewritePattern<ReductionOpInterface> {
  using OpInterfaceRewritePattern::OpInterfaceRewritePattern;
  LogicalResult matchAndRewrite(ReductionOpInterface op, PatternRewriter &rewriter) const override {
    auto reshape = op->getOperand(0).getDefiningOp<ReshapeOp>();
    if (!isComputedWithOneAxis(reshape))
      return failure();
    int64_t count = *splitAxes(reshape), own = llvm::count_if(op.getReducedAxes(), [&](int64_t axis) { return axis < count; });
    if (own != 0 && own != count)
      return failure();
    SmallVector<int64_t> axes;
    if (own)
      axes.push_back(0);
    for (int64_t axis : op.getReducedAxes().drop_front(own))
      axes.push_back(axis - (count - 1));
    Value small = op.buildOver(rewriter, reshape.getX(), axes);
    rewriter.replaceOpWithNewOp<ReshapeOp>(op, op->getResult(0).getType(), small);
    return success();
  }
};

/// Rows that are taken from a smaller table are multiplied there: gather(table) @ W is gather(table @ W), of the same bits. An embedding's rows are many more than its table's in a network over characters,
/// and with the product its gradients become ones of the table too.
struct ProductOfTable : OpRewritePattern<MatmulOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(MatmulOp op, PatternRewriter &rewriter) const override {
    auto type = cast<RankedTensorType>(op.getType());
    if (op.getLhsTransposed() || type.getRank() != 2)
      return failure();
    Value rows = op.getLhs();
    if (auto reshape = rows.getDefiningOp<ReshapeOp>(); reshape && sizesOf(reshape.getX()).back() == sizesOf(rows).back())
      rows = reshape.getX();
    auto gather = rows.getDefiningOp<GatherOp>();
    if (!gather || gather.getAxes() != ArrayRef<int64_t>{0} || gather.getPosition() != 0 || sizesOf(gather.getX()).size() != 2)
      return failure();
    // Whatever the sizes that are known only at run time: at most half of the products. (The result is written once more.)
    auto tableRows = dyn_cast<AffineConstantExpr>(sizesOf(gather.getX()).front());
    if (!tableRows || sizesOf(op.getLhs()).front().getLargestKnownDivisor() < 2 * tableRows.getValue())
      return failure();
    Value table = MatmulOp::create(rewriter, op.getLoc(), gather.getX(), op.getRhs(), false, op.getRhsTransposed());
    Value taken = GatherOp::create(rewriter, op.getLoc(), table, gather.getIndices(), gather.getAxes(), gather.getPosition());
    if (taken.getType() == type)
      rewriter.replaceOp(op, taken);
    else
      rewriter.replaceOpWithNewOp<ReshapeOp>(op, type, taken);
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

/// A window over what a broadcast repeats, as one over what is repeated. Axes that only the broadcast has are not looked at: whoever asks knows that they are not left, or does not mind.
WindowOp windowOfRepeated(OpBuilder &b, WindowOp op, BroadcastOp broadcast, APFloat outside) {
  SmallVector<AffineExpr> map;
  SmallVector<int64_t> divisors;
  for (int64_t axis : broadcast.getAxes()) {
    map.push_back(op.getMap().getResult(axis));
    divisors.push_back(op.getDivisors()[axis]);
  }
  auto type = withElementType(cast<RankedTensorType>(op.getType()), getElementTypeOrSelf(broadcast.getX().getType()));
  return WindowOp::create(b, op.getLoc(), type, broadcast.getX(), AffineMap::get(op.getMap().getNumDims(), 0, map, b.getContext()), divisors, outside);
}
/// The broadcast that a value is, if it repeats whole axes of floats.
BroadcastOp wholeBroadcast(Value value) {
  auto broadcast = value.getDefiningOp<BroadcastOp>();
  if (!broadcast || !isa<FloatType>(getElementTypeOrSelf(value.getType())))
    return {};
  SmallVector<AffineExpr> from = sizesOf(broadcast.getX()), to = sizesOf(value);
  for (auto [size, axis] : llvm::zip(from, broadcast.getAxes()))
    if (size != to[axis])
      return {};
  return broadcast;
}

/// A window that stays inside of a broadcast is one over the broadcast's operand.
struct WindowOfBroadcast : OpRewritePattern<WindowOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(WindowOp op, PatternRewriter &rewriter) const override {
    BroadcastOp broadcast = wholeBroadcast(op.getX());
    if (!broadcast || broadcast.getAxes().empty() || op.getElementOutside())
      return failure();
    rewriter.replaceOp(op, windowOfRepeated(rewriter, op, broadcast, op.getOutside()));
    return success();
  }
};

/// A window over a number where two repeated values are equal, and elsewhere what is outside of the window too: it looks at what is repeated, and nobody has to keep the choice. The gradient of a
/// maximum over windows is one.
struct WindowOfChoice : OpRewritePattern<WindowOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(WindowOp op, PatternRewriter &rewriter) const override {
    auto choice = op.getX().getDefiningOp<SelectOp>();
    auto condition = choice ? choice.getCondition().getDefiningOp<CompareOp>() : CompareOp();
    auto otherwise = choice ? choice.getWhenFalse().getDefiningOp<FillOp>() : FillOp();
    auto number = otherwise ? dyn_cast<FloatAttr>(otherwise.getValue()) : FloatAttr();
    if (!condition || condition.getPredicate() != ComparePredicate::eq || !number || number.getValueAsDouble() != op.getOutside().convertToDouble())
      return failure();
    BroadcastOp lhs = wholeBroadcast(condition.getLhs()), rhs = wholeBroadcast(condition.getRhs()), value = wholeBroadcast(choice.getWhenTrue());
    if (!lhs || !rhs || !value)
      return failure();
    // Outside of an axis of the sides they are not equal, outside of the value's it is the number.
    llvm::SmallSet<int64_t, 8> covered;
    for (BroadcastOp each : {lhs, rhs, value})
      covered.insert(each.getAxes().begin(), each.getAxes().end());
    if (static_cast<int64_t>(covered.size()) != op.getMap().getNumResults())
      return failure();
    APFloat nan = APFloat::getNaN(APFloat::IEEEdouble());
    Value a = windowOfRepeated(rewriter, op, lhs, nan), c = windowOfRepeated(rewriter, op, rhs, nan), x = windowOfRepeated(rewriter, op, value, op.getOutside());
    Value equal = CompareOp::create(rewriter, op.getLoc(), a, c, ComparePredicate::eq);
    Value fill = FillOp::create(rewriter, op.getLoc(), cast<RankedTensorType>(op.getType()), op.getOutside().convertToDouble());
    rewriter.replaceOpWithNewOp<SelectOp>(op, op.getType(), equal, x, fill);
    return success();
  }
};

/// A sum of parts that lie side by side, each padded with zeros, is these parts joined: what the gradient of a value makes that was taken apart.
struct JoinParts : OpRewritePattern<AddOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(AddOp op, PatternRewriter &rewriter) const override {
    SmallVector<PadOp> pads;
    std::function<bool(Value)> collect = [&](Value value) {
      if (auto pad = value.getDefiningOp<PadOp>()) {
        pads.push_back(pad);
        return llvm::all_of(pad.getStrides(), [](int64_t stride) { return stride == 1; });
      }
      auto sum = value.getDefiningOp<AddOp>();
      return sum && (sum == op || sum->hasOneUse()) && collect(sum.getLhs()) && collect(sum.getRhs());
    };
    if (!collect(op.getResult()))
      return failure();
    SmallVector<AffineExpr> whole = sizesOf(op.getResult()), first = sizesOf(pads.front().getX());
    int64_t axis = 0, rank = whole.size();
    while (axis < rank && first[axis] == whole[axis])
      ++axis;
    if (axis == rank)
      return failure();
    SmallVector<Value> parts;
    AffineExpr end = rewriter.getAffineConstantExpr(0);
    while (parts.size() < pads.size()) {
      auto next = llvm::find_if(pads, [&](PadOp pad) {
        SmallVector<AffineExpr> sizes = sizesOf(pad.getX());
        for (int64_t other = 0; other < rank; ++other)
          if (other != axis && sizes[other] != whole[other])
            return false;
        return normalizeSize(pad.getStarts().getResult(axis)) == end && sizes[axis] != rewriter.getAffineConstantExpr(0);
      });
      if (next == pads.end())
        return failure();
      parts.push_back(next->getX());
      end = normalizeSize(end + sizesOf(next->getX())[axis]);
    }
    if (end != whole[axis])
      return failure();
    rewriter.replaceOpWithNewOp<ConcatOp>(op, parts, axis);
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

/// What a loop carries for nobody, and what it carries unchanged, is not carried.
struct CarryLess : OpRewritePattern<ForOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(ForOp loop, PatternRewriter &rewriter) const override {
    Block &body = loop.getBody().front();
    unsigned count = loop.getInits().size();
    // From the results that are read, and from what has effects, back through the turns.
    SmallVector<bool> isNeeded(count);
    DenseSet<Value> seen;
    SmallVector<Value> work;
    auto need = [&](Value value) {
      if (seen.insert(value).second)
        work.push_back(value);
    };
    auto needCarried = [&](unsigned number) {
      if (!isNeeded[number]) {
        isNeeded[number] = true;
        need(loop.getNext()[number]);
      }
    };
    auto needOperands = [&](Operation *op) {
      for (Value operand : op->getOperands())
        need(operand);
      llvm::SetVector<Value> captured;
      getUsedValuesDefinedAbove(op->getRegions(), captured);
      for (Value value : captured)
        need(value);
    };
    for (unsigned number = 0; number < count; ++number)
      if (!loop.getResult(number).use_empty() || (number == 0 && loop.getConditional()))
        needCarried(number);
    for (Operation &op : body.without_terminator())
      if (!isMemoryEffectFree(&op))
        needOperands(&op);
    while (!work.empty()) {
      Value value = work.pop_back_val();
      if (auto argument = dyn_cast<BlockArgument>(value)) {
        if (argument.getOwner() == &body && argument.getArgNumber() > 0)
          needCarried(argument.getArgNumber() - 1);
      } else if (value.getParentBlock() == &body) {
        needOperands(value.getDefiningOp());
      }
    }
    SmallVector<unsigned> kept;
    for (unsigned number = 0; number < count; ++number) {
      bool isFlag = number == 0 && loop.getConditional();
      bool isUnchanged = loop.getNext()[number] == loop.getCarried()[number];
      if (isFlag || (isNeeded[number] && !isUnchanged))
        kept.push_back(number);
    }
    if (kept.size() == count)
      return failure();
    SmallVector<Value> inits, next;
    for (unsigned number : kept) {
      inits.push_back(loop.getInits()[number]);
      next.push_back(loop.getNext()[number]);
    }
    auto last = loop.getLast() ? loop.getLast()->getResult(0) : AffineExpr();
    auto smaller = ForOp::create(rewriter, loop.getLoc(), loop.getFirst().getResult(0), last, loop.getLimit(), loop.getConditional(), inits);
    // What nobody needs may read anything; what is unchanged is as it was.
    SmallVector<Value> arguments;
    Block *to = rewriter.createBlock(&smaller.getBody());
    arguments.push_back(to->addArgument(loop.getIndex().getType(), loop.getLoc()));
    for (unsigned number = 0; number < count; ++number)
      arguments.push_back(llvm::is_contained(kept, number) ? Value(to->addArgument(loop.getInits()[number].getType(), loop.getLoc())) : Value(loop.getInits()[number]));
    rewriter.modifyOpInPlace(body.getTerminator(), [&] { cast<YieldOp>(body.getTerminator()).getOperandsMutable().assign(next); });
    rewriter.mergeBlocks(&body, to, arguments);
    SmallVector<Value> results;
    unsigned place = 0;
    for (unsigned number = 0; number < count; ++number)
      results.push_back(place < kept.size() && kept[place] == number ? Value(smaller.getResult(place++)) : Value(loop.getInits()[number]));
    rewriter.replaceOp(loop, results);
    return success();
  }
};

/// A loop without a turn gives what it began with.
struct LoopWithoutTurns : OpRewritePattern<ForOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(ForOp loop, PatternRewriter &rewriter) const override {
    auto turns = dyn_cast_or_null<AffineConstantExpr>(loop.getTurns());
    if (!turns || turns.getValue() > 0)
      return failure();
    rewriter.replaceOp(loop, loop.getInits());
    return success();
  }
};

/// Results of a branch that nobody reads, or that are the same value from around it on both sides, are none.
struct YieldLess : OpRewritePattern<IfOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(IfOp branch, PatternRewriter &rewriter) const override {
    auto yielded = [&](Region &region, unsigned number) { return region.front().getTerminator()->getOperand(number); };
    SmallVector<unsigned> kept;
    SmallVector<Value> results;
    for (unsigned number = 0; number < branch.getNumResults(); ++number) {
      Value a = yielded(branch.getWhenTrue(), number), c = yielded(branch.getWhenFalse(), number);
      bool isOutside = a == c;
      if (isOutside || branch.getResult(number).use_empty())
        results.push_back(isOutside ? a : Value());
      else {
        kept.push_back(number);
        results.push_back({});
      }
    }
    bool isEmpty = branch.getNumResults() == 0 && llvm::all_of(branch->getRegions(), [](Region &region) { return llvm::hasSingleElement(region.front()); });
    if (kept.size() == branch.getNumResults() && !isEmpty)
      return failure();
    if (isEmpty) {
      rewriter.eraseOp(branch);
      return success();
    }
    SmallVector<Type> types;
    for (unsigned number : kept)
      types.push_back(branch.getResult(number).getType());
    auto smaller = IfOp::create(rewriter, branch.getLoc(), types, branch.getCondition());
    for (auto [from, to] : llvm::zip(branch->getRegions(), smaller->getRegions())) {
      SmallVector<Value> next;
      for (unsigned number : kept)
        next.push_back(yielded(from, number));
      Operation *end = from.front().getTerminator();
      rewriter.modifyOpInPlace(end, [&] { cast<YieldOp>(end).getOperandsMutable().assign(next); });
      rewriter.inlineRegionBefore(from, to, to.end());
    }
    for (auto [place, number] : llvm::enumerate(kept))
      results[number] = smaller.getResult(place);
    for (auto [old, now] : llvm::zip(branch.getResults(), results))
      if (now)
        rewriter.replaceAllUsesWith(old, now);
    rewriter.eraseOp(branch);
    return success();
  }
};

/// A branch that is known is taken.
struct TakeKnownBranch : OpRewritePattern<IfOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(IfOp branch, PatternRewriter &rewriter) const override {
    auto fill = branch.getCondition().getDefiningOp<FillOp>();
    if (!fill)
      return failure();
    bool isTrue = cast<IntegerAttr>(fill.getValue()).getInt() & 1;
    Block &block = (isTrue ? branch.getWhenTrue() : branch.getWhenFalse()).front();
    SmallVector<Value> values = llvm::to_vector(block.getTerminator()->getOperands());
    rewriter.eraseOp(block.getTerminator());
    rewriter.inlineBlockBefore(&block, branch);
    rewriter.replaceOp(branch, values);
    return success();
  }
};

/// What does not change from turn to turn is computed before the loop; constants belong to the function.
void hoistInvariants(FuncOp function) {
  function.walk([&](ForOp loop) { // inner loops first
    for (Operation &op : llvm::make_early_inc_range(loop.getBody().front().without_terminator())) {
      if (!isMemoryEffectFree(&op) || op.getNumRegions())
        continue;
      if (llvm::all_of(op.getOperands(), [&](Value operand) { return !loop->isAncestor(operand.getParentRegion()->getParentOp()); }))
        op.moveBefore(loop);
    }
  });
  function.walk([&](ConstantOp constant) { constant->moveBefore(&function.getBody().front(), function.getBody().front().begin()); });
}

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
    patterns.add<MoveOfFill, ElementwiseOfFills, ElementwiseWithoutUnits, ElementwiseOfRows, ReductionOfRows, ProductOfTable, ComposeBroadcast, JoinParts, WindowOfBroadcast, WindowOfChoice, ReductionOverUnits, CarryLess,
                 LoopWithoutTurns, YieldLess, TakeKnownBranch>(context);
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
      hoistInvariants(function);
      // Common subexpressions first and last: patterns see through them, and make some.
      eliminateCommonSubExpressions(rewriter, dominance, function);
      if (failed(applyPatternsGreedily(function, frozen, config))) {
        function.emitError() << "simplification of @" << function.getSymName() << " does not come to an end";
        return signalPassFailure();
      }
      hoistInvariants(function);
      eliminateCommonSubExpressions(rewriter, dominance, function);
    }
    if (int64_t after = count(); after < before)
      removed += before - after;
  }
};
} // namespace
} // namespace dlc
