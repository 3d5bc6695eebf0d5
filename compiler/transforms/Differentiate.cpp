//===- Differentiate.cpp - expands dl.gradient by reverse mode -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/transforms/Passes.h"
#include "mlir/IR/IRMapping.h"
#include "mlir/Transforms/RegionUtils.h"
#include "llvm/ADT/DenseSet.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/SetVector.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc {
#define GEN_PASS_DEF_DIFFERENTIATE
#include "compiler/transforms/Passes.h.inc"

namespace {

using Cotangents = DenseMap<Value, Value>;

/// One gradient on its way through blocks.
class Reverse {
public:
  explicit Reverse(GradientOp gradient) : gradient(gradient), b(gradient), loc(gradient.getLoc()) {}
  LogicalResult run();
  int64_t products = 0, kept = 0, recomputed = 0;

private:
  bool isActive(Value value) const { return active.contains(value); }
  static bool isFloat(Value value) { return isa<FloatType>(getElementTypeOrSelf(value.getType())); }
  /// Which results of an op depend on what we derive by?
  void mark(Operation *op);
  void markBlock(Block &block) {
    for (Operation &op : block.without_terminator())
      mark(&op);
  }
  LogicalResult markUpTo(Operation *end);
  LogicalResult passBack(ArrayRef<Operation *> path, Cotangents &cotangents);
  LogicalResult passBack(Block &block, Cotangents &cotangents);
  LogicalResult passBackFor(ForOp loop, IRMapping *again, ArrayRef<Value> dys, Cotangents &cotangents);
  LogicalResult passBackIf(IfOp branch, ArrayRef<Value> dys, Cotangents &cotangents);
  void add(Cotangents &cotangents, Value value, Value cotangent) {
    Value &sum = cotangents[value];
    sum = sum ? AddOp::create(b, loc, sum, cotangent).getResult() : cotangent;
  }
  IRMapping &recompute(Operation *op, Value when);
  Value zeros(Value like) { return FillOp::create(b, loc, cast<RankedTensorType>(like.getType()), 0.0); }
  Value number(AffineExpr size);
  SmallVector<Value> activeFromAbove(Operation *op);
  InFlightDiagnostic refuse(Operation *op, const Twine &words) {
    InFlightDiagnostic error = op->emitError() << words;
    error.attachNote(loc) << "needed for the gradient taken here";
    return error;
  }

  GradientOp gradient;
  OpBuilder b;
  Location loc;
  DenseSet<Value> active;
  llvm::MapVector<std::pair<Block *, Attribute>, IRMapping> checkpoints; // computed again so far
};

struct Differentiate : impl::DifferentiateBase<Differentiate> {
  void runOnOperation() override {
    // In program order: what a later gradient is taken of may hold an earlier one.
    SmallVector<GradientOp> all;
    getOperation().walk([&](GradientOp op) { all.push_back(op); });
    for (GradientOp op : all) {
      Reverse reverse(op);
      if (failed(reverse.run()))
        return signalPassFailure();
      products += reverse.products;
      kept += reverse.kept;
      recomputed += reverse.recomputed;
      ++gradients;
    }
    getOperation().walk([](Operation *op) { op->removeAttr(checkpointAttrName); });
  }
};
} // namespace

//===--- what depends on what we derive by ---===//

void Reverse::mark(Operation *op) {
  if (auto loop = dyn_cast<ForOp>(op)) {
    for (auto [init, argument] : llvm::zip(loop.getInits(), loop.getCarried()))
      if (isActive(init) && isFloat(argument))
        active.insert(argument);
    for (bool changed = true; changed;) {
      changed = false;
      markBlock(loop.getBody().front());
      for (auto [next, argument] : llvm::zip(loop.getNext(), loop.getCarried()))
        if (isActive(next) && isFloat(argument))
          changed |= active.insert(argument).second;
    }
    for (auto [argument, result] : llvm::zip(loop.getCarried(), loop.getResults()))
      if (isActive(argument))
        active.insert(result);
    return;
  }
  if (auto branch = dyn_cast<IfOp>(op)) {
    for (Region &region : branch->getRegions()) {
      markBlock(region.front());
      for (auto [value, result] : llvm::zip(region.front().getTerminator()->getOperands(), branch.getResults()))
        if (isActive(value))
          active.insert(result);
    }
    return;
  }
  // Derivatives flow through floating-point values only.
  if (llvm::any_of(op->getOperands(), [&](Value operand) { return isActive(operand); }))
    for (Value result : op->getResults())
      if (isFloat(result))
        active.insert(result); // which may be derived by itself
}

/// Marks what comes before `end` in its block and around it. What a loop around it carries from earlier turns must not depend on what we derive by.
LogicalResult Reverse::markUpTo(Operation *end) {
  Operation *parent = end->getParentOp();
  if (!isa<FuncOp>(parent) && failed(markUpTo(parent)))
    return failure();
  if (auto loop = dyn_cast<ForOp>(parent)) {
    DenseSet<Value> before = active;
    mark(loop); // as if the gradient were taken after it
    SmallVector<Value> carried;
    for (Value argument : loop.getCarried())
      if (isActive(argument) && !before.contains(argument))
        carried.push_back(argument);
    active = before;
    if (!carried.empty()) {
      DenseSet<Value> own = std::exchange(active, DenseSet<Value>(carried.begin(), carried.end()));
      for (Operation &op : *end->getBlock()) {
        if (&op == end)
          break;
        mark(&op);
      }
      bool reaches = llvm::any_of(gradient->getOperands().take_front(), [&](Value value) { return isActive(value); });
      active = own;
      if (reaches) {
        InFlightDiagnostic error = gradient.emitError() << "the value depends on what it is derived by through earlier turns of the loop, too";
        error.attachNote(loop.getLoc()) << "this loop; take the gradient after it, or of what the turn itself computes";
        return error;
      }
    }
  }
  for (Operation &op : *end->getBlock()) {
    if (&op == end)
      break;
    mark(&op);
  }
  return success();
}

SmallVector<Value> Reverse::activeFromAbove(Operation *op) {
  llvm::SetVector<Value> captured;
  getUsedValuesDefinedAbove(op->getRegions(), captured);
  return llvm::filter_to_vector(captured, [&](Value value) { return isActive(value); });
}

//===--- back through ops ---===//

LogicalResult Reverse::passBack(Block &block, Cotangents &cotangents) {
  SmallVector<Operation *> path;
  for (Operation &op : block.without_terminator())
    path.push_back(&op);
  return passBack(path, cotangents);
}

LogicalResult Reverse::passBack(ArrayRef<Operation *> path, Cotangents &cotangents) {
  for (Operation *op : llvm::reverse(path)) {
    SmallVector<Value> dys;
    for (Value result : op->getResults())
      dys.push_back(isActive(result) ? cotangents.lookup(result) : Value());
    if (llvm::none_of(dys, [](Value dy) { return static_cast<bool>(dy); }))
      continue;
    // What we derive by may itself be computed here.
    if (llvm::none_of(op->getOperands(), [&](Value operand) { return isActive(operand); }) && activeFromAbove(op).empty())
      continue;
    // What the products are made of: of a checkpoint, its copy here.
    IRMapping *again = op->hasAttr(checkpointAttrName) ? &recompute(op, *llvm::find_if(dys, [](Value dy) { return static_cast<bool>(dy); })) : nullptr;
    if (auto loop = dyn_cast<ForOp>(op)) {
      if (failed(passBackFor(loop, again, dys, cotangents)))
        return failure();
      continue;
    }
    if (auto branch = dyn_cast<IfOp>(op)) {
      if (failed(passBackIf(branch, dys, cotangents)))
        return failure();
      continue;
    }
    Value copy = again ? again->lookupOrNull(op->getResult(0)) : Value();
    auto differentiable = dyn_cast<DifferentiableOpInterface>(copy ? copy.getDefiningOp() : op);
    if (!differentiable)
      return refuse(op, "'" + op->getName().getStringRef() + "' has no gradient");
    ++products;
    // Where products of a part add up, in that part.
    SmallVector<bool> done;
    for (auto [number, operand] : llvm::enumerate(op->getOperands())) {
      done.push_back(!isActive(operand));
      Value sum = cotangents.lookup(operand);
      if (done.back() || !sum)
        continue;
      if (Value added = differentiable.addVjp(b, number, dys, sum)) {
        cotangents[operand] = added;
        done.back() = true;
      }
    }
    if (llvm::all_of(done, [](bool is) { return is; }))
      continue;
    // Keep the place of the text in what is made for it.
    SmallVector<Value> grads;
    if (failed(differentiable.buildVjp(b, dys, grads)))
      return failure();
    for (auto [operand, grad, isDone] : llvm::zip_equal(op->getOperands(), grads, done))
      if (grad && !isDone)
        add(cotangents, operand, grad);
  }
  return success();
}

/// A size as tensor<i64>.
Value Reverse::number(AffineExpr size) {
  auto type = RankedTensorType::get({}, b.getI64Type());
  if (auto constant = dyn_cast<AffineConstantExpr>(size))
    return FillOp::create(b, loc, type, constant.getValue());
  return SizeOp::create(b, loc, type, sizeMap(size, b.getContext()));
}

/// Ops that nobody needs, of a block that is being made.
static void eraseUnused(Block &block) {
  for (Operation &op : llvm::make_early_inc_range(llvm::reverse(block))) {
    for (Region &region : op.getRegions())
      for (Block &inner : region)
        eraseUnused(inner);
    if (isOpTriviallyDead(&op))
      op.erase();
  }
}

/// Is it cheaper to compute the op's result again than to keep it?
static bool isComputedAgain(Operation *op) { return isa<ElementwiseOpInterface, IndexingOpInterface, GeneratorOpInterface, ConstantOp, EmptyOp>(op); }
/// Does the op take a part out of its operand?
static bool isSlice(Operation *op) {
  auto indexing = dyn_cast<IndexingOpInterface>(op);
  return indexing && !indexing.keepsOrder() && !indexing.getAxisMap();
}

namespace {
/// Values of a forward block for a block that runs backwards: computed again where that is cheap (or always, without `keep`), else kept.
class Recall {
public:
  Recall(Block &forward, std::function<Value(OpBuilder &, Value)> keep) : forward(forward), keep(std::move(keep)) {}
  void know(Value value, Value here) { known[value] = here; }
  /// Computes, ahead of `first`, what it and what follows it in the block needs.
  void run(Operation *first) {
    OpBuilder b(first);
    SmallVector<OpOperand *> uses;
    for (Operation *op = first; op; op = op->getNextNode())
      op->walk([&](Operation *user) {
        for (OpOperand &operand : user->getOpOperands())
          if (operand.get().getParentBlock() == &forward)
            uses.push_back(&operand);
      });
    for (OpOperand *use : uses)
      use->set(get(b, use->get()));
  }

private:
  Value get(OpBuilder &b, Value value) {
    if (value.getParentBlock() != &forward)
      return value;
    if (Value here = known.lookup(value))
      return here;
    Operation *def = value.getDefiningOp();
    bool again = def && (!keep || isComputedAgain(def));
    if (again && keep && isSlice(def)) {
      // A part is kept rather than the whole.
      Operation *whole = def->getOperand(0).getDefiningOp();
      again = def->getOperand(0).getParentBlock() != &forward || (whole && isComputedAgain(whole)) || known.count(def->getOperand(0));
    }
    if (!again)
      return known[value] = keep(b, value);
    IRMapping mapping;
    llvm::SetVector<Value> operands(def->operand_begin(), def->operand_end());
    getUsedValuesDefinedAbove(def->getRegions(), operands);
    for (Value operand : operands)
      mapping.map(operand, get(b, operand));
    Operation *clone = b.clone(*def, mapping);
    for (auto [old, copy] : llvm::zip(def->getResults(), clone->getResults()))
      known[old] = copy;
    return known[value];
  }

  Block &forward;
  std::function<Value(OpBuilder &, Value)> keep;
  DenseMap<Value, Value> known;
};
} // namespace

/// The ops of a checkpoint in the block of `op`, one of them, once more, where we are. Their inputs are taken after `when`, the cotangent that asks for them: so they run no
/// earlier, and are no common subexpressions of the first ones. What is computed from variables alone lives through the call anyway, and stays.
IRMapping &Reverse::recompute(Operation *op, Value when) {
  auto checkpoint = op->getAttr(checkpointAttrName);
  auto [entry, isNew] = checkpoints.try_emplace({op->getBlock(), checkpoint});
  IRMapping &again = entry->second;
  if (!isNew)
    return again;
  for (Operation &part : *op->getBlock()) {
    if (part.isAncestor(gradient))
      break;
    if (part.getAttr(checkpointAttrName) != checkpoint || part.getNumResults() == 0 || !isMemoryEffectFree(&part))
      continue;
    part.walk([&](Operation *inner) {
      for (Value operand : inner->getOperands()) {
        Operation *def = operand.getDefiningOp();
        bool isInside = def ? part.isAncestor(def) : part.isAncestor(cast<BlockArgument>(operand).getOwner()->getParentOp());
        bool isInput = !isInside && !again.contains(operand) && (!def || def->getNumOperands() != 0 || def->getNumRegions() != 0);
        if (isInput)
          again.map(operand, AfterOp::create(b, part.getLoc(), operand, when));
      }
    });
    b.clone(part, again)->walk([](Operation *clone) { clone->removeAttr(checkpointAttrName); });
    ++recomputed;
  }
  return again;
}

//===--- back through loops and branches ---===//

/// The loop runs backwards: what it carries is the cotangent of what the forward one carries, and sums for the values from around it. A turn computes again what is
/// cheap to compute; the rest is kept by the forward loop, turn by turn, in tensors with one more axis. Of a checkpoint that is the copy that runs again, not the first one.
LogicalResult Reverse::passBackFor(ForOp loop, IRMapping *again, ArrayRef<Value> dys, Cotangents &cotangents) {
  if (!loop.getLast())
    return refuse(loop, "a gradient does not pass through a loop whose number of turns is not a size, as that of 'while'");
  Block &forward = loop.getBody().front();
  AffineExpr turns = loop.getTurns();
  auto index = RankedTensorType::get({}, b.getI64Type());

  // What it begins with.
  SmallVector<unsigned> carried;
  SmallVector<Value> inits, above = activeFromAbove(loop);
  for (auto [number, argument] : llvm::enumerate(loop.getCarried()))
    if (isActive(argument)) {
      carried.push_back(number);
      inits.push_back(dys[number] ? dys[number] : zeros(argument));
    }
  for (Value value : above) {
    Value sum = cotangents.lookup(value);
    inits.push_back(sum ? sum : zeros(value));
  }

  auto body = std::make_unique<Block>();
  Value turn = body->addArgument(index, loop.getLoc());
  for (Value init : inits)
    body->addArgument(init.getType(), loop.getLoc());
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToEnd(body.get());
    Cotangents inner;
    auto arguments = body->getArguments().drop_front();
    for (auto [value, argument] : llvm::zip(above, arguments.drop_front(carried.size())))
      inner[value] = argument;
    for (auto [number, argument] : llvm::zip(carried, arguments))
      if (Value next = loop.getNext()[number]; isActive(next))
        add(inner, next, argument);
    if (failed(passBack(forward, inner)))
      return failure();
    SmallVector<Value> next;
    for (unsigned number : carried) {
      Value cotangent = inner.lookup(loop.getCarried()[number]);
      next.push_back(cotangent ? cotangent : zeros(loop.getCarried()[number]));
    }
    for (Value value : above)
      next.push_back(inner.lookup(value));
    YieldOp::create(b, loc, next);
  }
  eraseUnused(*body);

  // How many turns there were, and which of them this one takes back.
  bool isCut = loop.getConditional() || loop.getLimit();
  Value count;
  if (loop.getLimit() && !loop.getConditional())
    count = MinimumOp::create(b, loc, loop.getLimit(), number(turns));
  SmallVector<Value> keptValues, stacks; // stacks: what stands for them until the forward loop has them
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(body.get());
    // A placeholder for the count that the loop will give.
    Value all = !isCut ? number(turns) : count ? count : EmptyOp::create(b, loc, index).getResult();
    Value one = FillOp::create(b, loc, index, int64_t(1));
    Value last = SubOp::create(b, loc, all, one);
    Value place = SubOp::create(b, loc, last, turn);
    Value forwardIndex = place;
    if (AffineExpr first = loop.getFirst().getResult(0); first != b.getAffineConstantExpr(0))
      forwardIndex = AddOp::create(b, loc, place, number(first));
    Recall recall(forward, [&](OpBuilder &r, Value value) -> Value {
      auto type = cast<RankedTensorType>(value.getType());
      SmallVector<AffineExpr> sizes = sizesOf(type);
      sizes.insert(sizes.begin(), turns);
      Value stack = EmptyOp::create(r, loc, tensorType(sizes, type.getElementType()));
      keptValues.push_back(value);
      stacks.push_back(stack);
      ++kept;
      return SliceAtOp::create(r, loc, type, stack, place, 0);
    });
    recall.know(loop.getIndex(), forwardIndex);
    recall.run(forwardIndex.getDefiningOp()->getNextNode());
    if (isCut && !count)
      count = all;
  }

  // The forward loop keeps what was asked for.
  SmallVector<Value> loopInits = llvm::to_vector(loop.getInits());
  if (again) {
    loop = cast<ForOp>(again->lookup(loop.getOperation()));
    for (Value &value : keptValues)
      value = again->lookup(value);
  }
  ForOp extended = loop;
  bool counts = loop.getConditional();
  if (!keptValues.empty() || counts) {
    OpBuilder f(loop);
    SmallVector<Value> begins = llvm::to_vector(loop.getInits());
    unsigned first = begins.size();
    for (Value stack : stacks)
      begins.push_back(EmptyOp::create(f, loc, cast<RankedTensorType>(stack.getType())));
    if (counts)
      begins.push_back(FillOp::create(f, loc, index, int64_t(0)));
    extended = ForOp::create(f, loop.getLoc(), loop.getFirst().getResult(0), loop.getLast()->getResult(0), loop.getLimit(), loop.getConditional(), begins);
    extended.getBody().takeBody(loop.getBody());
    Operation *end = extended.getBody().front().getTerminator();
    f.setInsertionPoint(end);
    SmallVector<Value> next = llvm::to_vector(end->getOperands());
    Value place = extended.getIndex();
    if (AffineExpr start = loop.getFirst().getResult(0); start != f.getAffineConstantExpr(0)) {
      auto saved = b.saveInsertionPoint();
      b.setInsertionPoint(end);
      place = SubOp::create(b, loc, place, number(start));
      b.restoreInsertionPoint(saved);
    }
    for (auto [value, stack] : llvm::zip(keptValues, stacks)) {
      Value argument = extended.getBody().front().addArgument(stack.getType(), loc);
      next.push_back(SliceUpdateOp::create(f, loc, stack.getType(), argument, value, place, 0));
    }
    if (counts) {
      Value argument = extended.getBody().front().addArgument(index, loc);
      next.push_back(AddOp::create(f, loc, argument, FillOp::create(f, loc, index, int64_t(1))));
    }
    YieldOp::create(f, end->getLoc(), next);
    end->erase();
    for (auto [number, pair] : llvm::enumerate(llvm::zip(loop.getResults(), extended.getResults()))) {
      auto [old, now] = pair;
      if (isActive(old))
        active.insert(now);
      if (Value cotangent = cotangents.lookup(old))
        cotangents[now] = cotangent;
      old.replaceAllUsesWith(now);
    }
    for (auto [number, stack] : llvm::enumerate(stacks)) {
      stack.replaceAllUsesWith(extended.getResult(first + number));
      stack.getDefiningOp()->erase();
    }
    if (counts) {
      Value placeholder = count;
      count = extended.getResults().back();
      placeholder.replaceAllUsesWith(count);
      placeholder.getDefiningOp()->erase();
    }
    loop.erase();
  }

  auto reversed = ForOp::create(b, extended.getLoc(), b.getAffineConstantExpr(0), turns, isCut ? count : Value(), /*conditional=*/false, inits);
  reversed.getBody().push_back(body.release());
  for (auto [number, result] : llvm::zip(carried, reversed.getResults()))
    if (Value init = loopInits[number]; isActive(init))
      add(cotangents, init, result);
  for (auto [value, result] : llvm::zip(above, reversed.getResults().drop_front(carried.size())))
    cotangents[value] = result;
  return success();
}

/// The same branch is taken back that was taken. It computes again what it needs of the forward one.
LogicalResult Reverse::passBackIf(IfOp branch, ArrayRef<Value> dys, Cotangents &cotangents) {
  SmallVector<Value> above;
  for (Value value : activeFromAbove(branch))
    above.push_back(value);
  std::unique_ptr<Block> blocks[2];
  SmallVector<Value> sums[2];
  for (auto [region, block, sum] : llvm::zip(branch->getRegions(), blocks, sums)) {
    block = std::make_unique<Block>();
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToEnd(block.get());
    Cotangents inner;
    for (Value value : above)
      if (Value before = cotangents.lookup(value))
        inner[value] = before;
    for (auto [value, dy] : llvm::zip(region.front().getTerminator()->getOperands(), dys))
      if (dy && isActive(value))
        add(inner, value, dy);
    if (failed(passBack(region.front(), inner)))
      return failure();
    for (Value value : above) {
      Value total = inner.lookup(value);
      sum.push_back(total ? total : zeros(value));
    }
    YieldOp::create(b, loc, sum);
    eraseUnused(*block);
    Recall(region.front(), nullptr).run(&block->front());
  }
  auto reversed = IfOp::create(b, branch.getLoc(), ValueRange(above).getTypes(), branch.getCondition());
  reversed.getWhenTrue().push_back(blocks[0].release());
  reversed.getWhenFalse().push_back(blocks[1].release());
  for (auto [value, result] : llvm::zip(above, reversed.getResults()))
    cotangents[value] = result;
  return success();
}

LogicalResult Reverse::run() {
  Operation *last = gradient->getPrevNode();
  active.insert(gradient.getWrt().begin(), gradient.getWrt().end());
  if (failed(markUpTo(gradient)))
    return failure();
  // From the outermost block to the gradient's own.
  SmallVector<Operation *> path;
  std::function<void(Operation *)> collect = [&](Operation *end) {
    if (!isa<FuncOp>(end->getParentOp()))
      collect(end->getParentOp());
    for (Operation &op : *end->getBlock()) {
      if (&op == end)
        break;
      path.push_back(&op);
    }
  };
  collect(gradient);

  Cotangents cotangents;
  cotangents[gradient.getValue()] = FillOp::create(b, loc, cast<RankedTensorType>(gradient.getValue().getType()), 1.0);
  if (failed(passBack(path, cotangents)))
    return failure();
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
  return success();
}

} // namespace dlc
