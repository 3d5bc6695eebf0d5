//===- Differentiate.cpp - expands dl.gradient by reverse mode -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/transforms/Passes.h"
#include "mlir/IR/IRMapping.h"
#include "mlir/Transforms/RegionUtils.h"
#include "llvm/ADT/DenseSet.h"
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
  LogicalResult passBackIf(IfOp branch, IRMapping *again, ArrayRef<Value> dys, Cotangents &cotangents);
  void replace(Operation *op, Operation *extended, IRMapping *again, Operation *first, Cotangents &cotangents);
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
  DenseMap<std::pair<Block *, Attribute>, std::unique_ptr<IRMapping>> checkpoints; // computed again so far
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
      if (failed(passBackIf(branch, again, dys, cotangents)))
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
      wanted.insert(use->get());
    for (OpOperand *use : uses)
      use->set(get(b, use->get()));
  }

private:
  /// An elementwise value is kept in the place of one that is dear, as large, and for nothing else.
  bool standsForDear(Value value) {
    Operation *def = value.getDefiningOp();
    if (!keep || !isa_and_nonnull<ElementwiseOpInterface>(def))
      return false;
    return llvm::any_of(def->getOperands(), [&](Value operand) {
      Operation *from = operand.getDefiningOp();
      bool isOwn = from && operand.getParentBlock() == &forward && operand.getType() == value.getType() && operand.hasOneUse() && !wanted.contains(operand) && !known.count(operand);
      return isOwn && (!isComputedAgain(from) || standsForDear(operand));
    });
  }
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
    if (!again || standsForDear(value))
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
  DenseSet<Value> wanted;
};
} // namespace

/// The ops of a checkpoint in the block of `op`, one of them, once more, where we are. Their inputs are taken after `when`, the cotangent that asks for them: so they run no
/// earlier, and are no common subexpressions of the first ones. What is computed from variables alone lives through the call anyway, and stays.
IRMapping &Reverse::recompute(Operation *op, Value when) {
  auto checkpoint = op->getAttr(checkpointAttrName);
  std::unique_ptr<IRMapping> &entry = checkpoints[{op->getBlock(), checkpoint}];
  if (entry)
    return *entry;
  entry = std::make_unique<IRMapping>();
  IRMapping &again = *entry;
  for (Operation &part : *op->getBlock()) {
    if (part.isAncestor(gradient))
      break;
    bool isComputed = isMemoryEffectFree(&part) || isa<ForOp, IfOp>(part);
    if (part.getAttr(checkpointAttrName) != checkpoint || part.getNumResults() == 0 || !isComputed)
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
    // What the first run has checked holds.
    b.clone(part, again)->walk([](Operation *clone) {
      clone->removeAttr(checkpointAttrName);
      if (isa<CheckIndexOp>(clone))
        clone->erase();
    });
    ++recomputed;
  }
  for (auto [value, copy] : again.getValueMap())
    if (isActive(value))
      active.insert(copy);
  return again;
}

//===--- back through loops and branches ---===//

/// Is a size 0 or more, whatever the sizes of the call are?
static bool isNeverNegative(AffineExpr size) {
  if (auto constant = dyn_cast<AffineConstantExpr>(size))
    return constant.getValue() >= 0;
  auto parts = dyn_cast<AffineBinaryOpExpr>(size);
  return !parts || size.getKind() == AffineExprKind::Mod || (isNeverNegative(parts.getLHS()) && isNeverNegative(parts.getRHS()));
}

/// `extended` takes the place of `op`: its first results are those, and it gives more. Of a checkpoint, `op` is the copy of `first`.
void Reverse::replace(Operation *op, Operation *extended, IRMapping *again, Operation *first, Cotangents &cotangents) {
  for (auto [old, now] : llvm::zip(op->getResults(), extended->getResults())) {
    if (active.erase(old))
      active.insert(now);
    if (Value cotangent = cotangents.lookup(old)) {
      cotangents.erase(old);
      cotangents[now] = cotangent;
    }
    old.replaceAllUsesWith(now);
  }
  if (again)
    for (auto [value, now] : llvm::zip(first->getResults(), extended->getResults()))
      again->map(value, now);
  op->erase();
}

/// The loop runs backwards: what it carries is the cotangent of what the forward one carries, and sums for the values from around it. A turn computes again what is
/// cheap to compute; the rest is kept by the forward loop, turn by turn, in tensors with one more axis. Of a checkpoint that is the copy that runs again, not the first one.
LogicalResult Reverse::passBackFor(ForOp loop, IRMapping *again, ArrayRef<Value> dys, Cotangents &cotangents) {
  if (!loop.getLast())
    return refuse(loop, "a gradient does not pass through a loop whose number of turns is not a size, as that of 'while'");
  // Of a checkpoint: the values that its copy reads, whose cotangents are those of the first ones.
  ForOp first = loop;
  SmallVector<Value> above = activeFromAbove(first), aboveHere = above;
  if (again) {
    loop = cast<ForOp>(again->lookup(first.getOperation()));
    for (Value &value : aboveHere)
      value = again->lookupOrDefault(value);
  }
  Block &forward = loop.getBody().front();
  AffineExpr turns = loop.getTurns();
  // What is kept turn by turn has a size.
  if (!isNeverNegative(turns)) {
    OpBuilder entry = OpBuilder::atBlockBegin(&gradient->getParentOfType<FuncOp>().getBody().front());
    CheckSizeOp::create(entry, loop.getLoc(), loop.getFirst(), "le", *loop.getLast(), "a loop that a gradient passes through ends before it begins");
  }
  auto index = RankedTensorType::get({}, b.getI64Type());

  // What it begins with.
  SmallVector<unsigned> carried;
  SmallVector<Value> inits;
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
    for (auto [value, argument] : llvm::zip(aboveHere, arguments.drop_front(carried.size())))
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
    for (Value value : aboveHere)
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
  SmallVector<Value> firstInits = llvm::to_vector(first.getInits());
  ForOp extended = loop;
  bool counts = loop.getConditional();
  if (!keptValues.empty() || counts) {
    OpBuilder f(loop);
    SmallVector<Value> begins = llvm::to_vector(loop.getInits());
    unsigned firstStack = begins.size();
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
    replace(loop, extended, again, first, cotangents);
    for (auto [number, stack] : llvm::enumerate(stacks)) {
      stack.replaceAllUsesWith(extended.getResult(firstStack + number));
      stack.getDefiningOp()->erase();
    }
    if (counts) {
      Value placeholder = count;
      count = extended.getResults().back();
      placeholder.replaceAllUsesWith(count);
      placeholder.getDefiningOp()->erase();
    }
  }

  auto reversed = ForOp::create(b, extended.getLoc(), b.getAffineConstantExpr(0), turns, isCut ? count : Value(), /*conditional=*/false, inits);
  reversed.getBody().push_back(body.release());
  for (auto [value, result] : llvm::zip(above, reversed.getResults().drop_front(carried.size())))
    cotangents[value] = result;
  // A turn may read what the loop begins with, too.
  for (auto [number, result] : llvm::zip(carried, reversed.getResults()))
    if (Value init = firstInits[number]; isActive(init))
      add(cotangents, init, result);
  return success();
}

/// The same branch is taken back that was taken. It computes again what is cheap to compute; the rest the forward one gives as further results, which are 0 where it was the
/// other branch's.
LogicalResult Reverse::passBackIf(IfOp branch, IRMapping *again, ArrayRef<Value> dys, Cotangents &cotangents) {
  IfOp first = branch;
  SmallVector<Value> above = activeFromAbove(first), aboveHere = above;
  if (again) {
    branch = cast<IfOp>(again->lookup(first.getOperation()));
    for (Value &value : aboveHere)
      value = again->lookupOrDefault(value);
  }
  struct Kept {
    Region *region;
    Value value, stand; // stand: what stands for it until the forward branch gives it
  };
  SmallVector<Kept> keptValues;
  std::unique_ptr<Block> blocks[2];
  for (auto [region, block] : llvm::zip(branch->getRegions(), blocks)) {
    block = std::make_unique<Block>();
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToEnd(block.get());
    Cotangents inner;
    for (auto [value, here] : llvm::zip(above, aboveHere))
      if (Value before = cotangents.lookup(value))
        inner[here] = before;
    for (auto [value, dy] : llvm::zip(region.front().getTerminator()->getOperands(), dys))
      if (dy && isActive(value))
        add(inner, value, dy);
    if (failed(passBack(region.front(), inner)))
      return failure();
    SmallVector<Value> sums;
    for (Value value : aboveHere) {
      Value total = inner.lookup(value);
      sums.push_back(total ? total : zeros(value));
    }
    YieldOp::create(b, loc, sums);
    eraseUnused(*block);
    Recall(region.front(), [&, region = &region](OpBuilder &r, Value value) -> Value {
      // Perhaps it is a result as it is.
      auto results = region->front().getTerminator()->getOperands();
      if (auto result = llvm::find(results, value); result != results.end())
        return branch->getResult(result.getIndex());
      keptValues.push_back({region, value, EmptyOp::create(r, loc, value.getType())});
      ++kept;
      return keptValues.back().stand;
    }).run(&block->front());
  }

  Value condition = branch.getCondition();
  if (!keptValues.empty()) {
    OpBuilder f(branch);
    SmallVector<Type> types = llvm::to_vector(branch->getResultTypes());
    unsigned firstKept = types.size();
    for (const Kept &keep : keptValues)
      types.push_back(keep.value.getType());
    auto extended = IfOp::create(f, branch.getLoc(), types, condition);
    for (auto [from, to] : llvm::zip(branch->getRegions(), extended->getRegions())) {
      Operation *end = from.front().getTerminator();
      f.setInsertionPoint(end);
      SmallVector<Value> next = llvm::to_vector(end->getOperands());
      for (const Kept &keep : keptValues) {
        auto type = cast<RankedTensorType>(keep.value.getType());
        if (keep.region == &from)
          next.push_back(keep.value);
        else if (isFloat(keep.value))
          next.push_back(FillOp::create(f, loc, type, 0.0));
        else
          next.push_back(FillOp::create(f, loc, type, int64_t(0)));
      }
      YieldOp::create(f, end->getLoc(), next);
      end->erase();
    }
    for (auto [from, to] : llvm::zip(branch->getRegions(), extended->getRegions()))
      to.takeBody(from);
    for (auto [number, keep] : llvm::enumerate(keptValues)) {
      keep.stand.replaceAllUsesWith(extended.getResult(firstKept + number));
      keep.stand.getDefiningOp()->erase();
    }
    replace(branch, extended, again, first, cotangents);
    branch = extended;
  }
  auto reversed = IfOp::create(b, branch.getLoc(), ValueRange(above).getTypes(), condition);
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
