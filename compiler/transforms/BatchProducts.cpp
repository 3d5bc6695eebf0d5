//===- BatchProducts.cpp - products of a loop's turns become one -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/transforms/Passes.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc {
#define GEN_PASS_DEF_BATCHPRODUCTS
#include "compiler/transforms/Passes.h.inc"

namespace {

bool isOutside(ForOp loop, Value value) { return !loop->isAncestor(value.getParentRegion()->getParentOp()); }

/// A value that is element `start` along an axis of a tensor from outside of the loop, one for each turn.
SliceAtOp turnOf(ForOp loop, Value value) {
  auto slice = value.getDefiningOp<SliceAtOp>();
  if (!slice || !loop.getTurns() || !isOutside(loop, slice.getX()))
    return {};
  auto whole = cast<RankedTensorType>(slice.getX().getType()), part = cast<RankedTensorType>(slice.getType());
  bool fits = whole.getRank() == 3 && part.getRank() == 2 && slice.getAxis() < 2 && sizesOf(whole)[slice.getAxis()] == loop.getTurns();
  return fits ? slice : SliceAtOp();
}

/// Does a place run over all turns, forwards or backwards, from 0?
bool runsOverTurns(ForOp loop, Value place) {
  if (loop.getFirst().getResult(0) != getAffineConstantExpr(0, loop.getContext()))
    return false;
  if (place == loop.getIndex())
    return true;
  auto from = place.getDefiningOp<SubOp>();
  if (!from || from.getRhs() != loop.getIndex())
    return false;
  auto isNumber = [](Value value, AffineExpr number) {
    if (auto fill = value.getDefiningOp<FillOp>()) {
      auto whole = dyn_cast<IntegerAttr>(fill.getValue());
      auto constant = dyn_cast<AffineConstantExpr>(number);
      return whole && constant && whole.getInt() == constant.getValue();
    }
    auto size = value.getDefiningOp<SizeOp>();
    return size && size.getMap().getResult(0) == number;
  };
  AffineExpr turns = loop.getTurns();
  if (isNumber(from.getLhs(), normalizeSize(turns - 1)))
    return true;
  auto last = from.getLhs().getDefiningOp<SubOp>();
  return last && isNumber(last.getLhs(), turns) && isNumber(last.getRhs(), getAffineConstantExpr(1, loop.getContext()));
}

struct BatchProducts : impl::BatchProductsBase<BatchProducts> {
  void runOnOperation() override {
    getOperation().walk([&](ForOp loop) {
      // Where values of the function are still to be derived by, they stay as they are.
      if (loop->getParentOfType<FuncOp>().walk([](GradientOp gradient) {
            bool isLocal = llvm::any_of(gradient.getWrt(), [](Value wrt) { return !isa<BlockArgument>(wrt) && !wrt.getDefiningOp<ReadOp>(); });
            return isLocal ? WalkResult::interrupt() : WalkResult::advance();
          }).wasInterrupted())
        return;
      splitConcatenations(loop);
      multiplyBefore(loop);
      multiplyAfter(loop);
      writeOnce(loop);
    });
  }
  void splitConcatenations(ForOp loop);
  void multiplyBefore(ForOp loop);
  void multiplyAfter(ForOp &loop);
  void writeOnce(ForOp loop);
};

/// concat([x_t, h]) @ W is x_t @ W1 + h @ W2 where the first can then be computed for all turns at once.
void BatchProducts::splitConcatenations(ForOp loop) {
  for (auto product : llvm::make_early_inc_range(loop.getBody().front().getOps<MatmulOp>())) {
    auto concat = product.getLhs().getDefiningOp<ConcatOp>();
    auto type = cast<RankedTensorType>(product.getType());
    if (!concat || type.getRank() != 2 || product.getLhsTransposed() || concat.getAxis() != 1 || !isOutside(loop, product.getRhs()) ||
        llvm::none_of(concat.getInputs(), [&](Value input) { return static_cast<bool>(turnOf(loop, input)); }))
      continue;
    OpBuilder before(loop), b(product);
    Location loc = product.getLoc();
    int64_t axis = product.getRhsTransposed() ? 1 : 0;
    SmallVector<AffineExpr> starts(2, b.getAffineConstantExpr(0));
    Value sum;
    for (Value input : concat.getInputs()) {
      SmallVector<AffineExpr> sizes = sizesOf(product.getRhs());
      sizes[axis] = sizesOf(input)[1];
      Value rows = SliceOp::create(before, loc, tensorType(sizes, type.getElementType()), product.getRhs(), sizeMap(starts, b.getContext()), SmallVector<int64_t>{1, 1});
      starts[axis] = starts[axis] + sizes[axis];
      Value part = MatmulOp::create(b, loc, input, rows, false, product.getRhsTransposed());
      sum = sum ? AddOp::create(b, loc, sum, part).getResult() : part;
    }
    product.replaceAllUsesWith(sum);
    product.erase();
  }
}

/// x[:, t] @ W for all t is one product before the loop.
void BatchProducts::multiplyBefore(ForOp loop) {
  if (loop.getConditional() || loop.getLimit())
    return; // of turns that may never come
  for (auto product : llvm::make_early_inc_range(loop.getBody().front().getOps<MatmulOp>())) {
    SliceAtOp slice = product.getLhsTransposed() ? SliceAtOp() : turnOf(loop, product.getLhs());
    if (!slice || !isOutside(loop, product.getRhs()))
      continue;
    OpBuilder before(loop), b(product);
    Location loc = product.getLoc();
    Type element = getElementTypeOrSelf(product.getType());
    SmallVector<AffineExpr> sizes = sizesOf(slice.getX());
    Value rows = ReshapeOp::create(before, loc, tensorType({normalizeSize(sizes[0] * sizes[1]), sizes[2]}, element), slice.getX());
    Value all = MatmulOp::create(before, loc, rows, product.getRhs(), false, product.getRhsTransposed());
    sizes[2] = sizesOf(product.getResult())[1];
    Value turns = ReshapeOp::create(before, loc, tensorType(sizes, element), all);
    Value own = SliceAtOp::create(b, loc, product.getType(), turns, slice.getStart(), slice.getAxis());
    product.replaceAllUsesWith(own);
    product.erase();
    ++batched;
  }
}

/// A sum over all turns of A_t' @ B_t is one product after the loop, of the turns' A and B one below the other.
void BatchProducts::multiplyAfter(ForOp &loop) {
  if (loop.getConditional() || loop.getLimit() || !loop.getTurns())
    return;
  Block &body = loop.getBody().front();
  struct Sum {
    unsigned number;
    MatmulOp product;
    Value place;
    Value factors[2]; // tensors with an axis of turns, where they are there already
  };
  SmallVector<Sum> sums;
  for (auto [number, argument] : llvm::enumerate(loop.getCarried())) {
    auto add = loop.getNext()[number].getDefiningOp<AddOp>();
    if (!add || add->getBlock() != &body || !argument.hasOneUse() || !add->hasOneUse())
      continue;
    Value other = add.getLhs() == argument ? add.getRhs() : add.getRhs() == argument ? add.getLhs() : Value();
    auto product = other ? other.getDefiningOp<MatmulOp>() : MatmulOp();
    if (!product || product->getBlock() != &body || !product->hasOneUse() || !product.getLhsTransposed() || product.getRhsTransposed() ||
        cast<RankedTensorType>(product.getType()).getRank() != 2)
      continue;
    Sum sum{static_cast<unsigned>(number), product, {}, {}};
    for (auto [operand, factor] : llvm::zip(product->getOperands(), sum.factors))
      if (SliceAtOp slice = turnOf(loop, operand); slice && slice.getAxis() == 0 && runsOverTurns(loop, slice.getStart()) && (!sum.place || sum.place == slice.getStart())) {
        factor = slice.getX();
        sum.place = slice.getStart();
      }
    if (!sum.place) {
      if (!runsOverTurns(loop, loop.getIndex()))
        continue;
      sum.place = loop.getIndex();
    }
    sums.push_back(sum);
  }
  if (sums.empty())
    return;

  OpBuilder b(loop);
  Location loc = loop.getLoc();
  SmallVector<Value> inits = llvm::to_vector(loop.getInits()), next = llvm::to_vector(loop.getNext());
  auto stackType = [&](Value factor) {
    auto type = cast<RankedTensorType>(factor.getType());
    SmallVector<AffineExpr> sizes = sizesOf(type);
    sizes.insert(sizes.begin(), loop.getTurns());
    return tensorType(sizes, type.getElementType());
  };
  DenseMap<std::pair<Value, Value>, unsigned> stacks; // of a factor at a place: number of what is carried
  OpBuilder inner(body.getTerminator());
  for (Sum &sum : sums) {
    next[sum.number] = loop.getCarried()[sum.number]; // unchanged: gone with the next simplification
    for (auto [operand, factor] : llvm::zip(sum.product->getOperands(), sum.factors)) {
      if (factor || stacks.count({operand, sum.place}))
        continue;
      stacks[{operand, sum.place}] = inits.size();
      inits.push_back(EmptyOp::create(b, loc, stackType(operand)));
      Value argument = body.addArgument(inits.back().getType(), loc);
      next.push_back(SliceUpdateOp::create(inner, loc, argument.getType(), argument, operand, sum.place, 0));
    }
  }
  auto extended = ForOp::create(b, loc, loop.getFirst().getResult(0), loop.getLast()->getResult(0), Value(), false, inits);
  extended.getBody().takeBody(loop.getBody());
  cast<YieldOp>(extended.getBody().front().getTerminator()).getOperandsMutable().assign(next);
  SmallVector<Value> results = llvm::to_vector_of<Value>(extended.getResults().take_front(loop.getNumResults()));
  b.setInsertionPointAfter(extended);
  for (Sum &sum : sums) {
    Value rows[2];
    for (auto [operand, factor, row] : llvm::zip(sum.product->getOperands(), sum.factors, rows)) {
      Value turns = factor ? factor : Value(extended.getResult(stacks.lookup({operand, sum.place})));
      SmallVector<AffineExpr> sizes = sizesOf(turns);
      row = ReshapeOp::create(b, loc, tensorType({normalizeSize(sizes[0] * sizes[1]), sizes[2]}, getElementTypeOrSelf(turns.getType())), turns);
    }
    Value all = MatmulOp::create(b, sum.product.getLoc(), rows[0], rows[1], true, false);
    results[sum.number] = AddOp::create(b, loc, extended.getInits()[sum.number], all);
    ++batched;
  }
  loop.replaceAllUsesWith(results);
  loop.erase();
  loop = extended;
}

/// Where each turn reads and writes its own part of a tensor, and nothing else of it: a part of zeros is 0 when it is read, and need not be there before all turns have written
/// theirs; and what nobody reads afterwards need not be written.
void BatchProducts::writeOnce(ForOp loop) {
  if (loop.getConditional() || loop.getLimit() || !loop.getTurns())
    return;
  OpBuilder b(loop);
  for (auto [number, argument] : llvm::enumerate(loop.getCarried())) {
    auto update = loop.getNext()[number].getDefiningOp<SliceUpdateOp>();
    if (!update || update.getX() != argument || !update->hasOneUse() || !runsOverTurns(loop, update.getStart()))
      continue;
    auto part = cast<RankedTensorType>(update.getPart().getType());
    int64_t axis = update.getAxis();
    SmallVector<SliceAtOp> reads;
    bool isOwnPart = part.getRank() + 1 == cast<RankedTensorType>(argument.getType()).getRank() && sizesOf(argument)[axis] == loop.getTurns();
    for (OpOperand &use : argument.getUses()) {
      if (use.getOwner() == update && use.getOperandNumber() == 0)
        continue;
      auto read = dyn_cast<SliceAtOp>(use.getOwner());
      isOwnPart &= read && read.getStart() == update.getStart() && static_cast<int64_t>(read.getAxis()) == axis && read.getType() == part;
      reads.push_back(read);
    }
    if (!isOwnPart)
      continue;
    if (loop.getResult(number).use_empty()) {
      loop.getNextMutable()[number].set(argument); // unchanged: gone with the next simplification
      continue;
    }
    auto zeros = loop.getInits()[number].getDefiningOp<FillOp>();
    auto value = zeros ? dyn_cast<FloatAttr>(zeros.getValue()) : FloatAttr();
    if (!value || !value.getValue().isPosZero())
      continue;
    for (SliceAtOp read : reads) {
      read.replaceAllUsesWith(FillOp::create(b, read.getLoc(), part, 0.0).getResult());
      read.erase();
    }
    loop.getInitsMutable()[number].set(EmptyOp::create(b, loop.getLoc(), cast<RankedTensorType>(argument.getType())));
  }
}
} // namespace
} // namespace dlc
