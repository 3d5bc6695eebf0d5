//===- PlanMemory.cpp - orders kernels, gives values buffers and assignments places -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/transforms/Passes.h"
#include "mlir/Transforms/RegionUtils.h"
#include "llvm/ADT/DenseSet.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/SetVector.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc {
#define GEN_PASS_DEF_PLANMEMORY
#include "compiler/transforms/Passes.h.inc"

namespace {

/// A function's buffers, in the order of the runtime's table.
struct Buffer {
  StringRef kind;
  int64_t index = 0;
  AffineExpr bytes;
  int64_t first = std::numeric_limits<int64_t>::max(), last = -1;
};

/// Values that lie in one place, one after the other: `parent` leads to the value that stands for all of them.
class Places {
public:
  Value find(Value value) {
    while (Value next = parent.lookup(value))
      value = next;
    return value;
  }
  void unite(Value a, Value c) {
    a = find(a);
    c = find(c);
    if (a == c)
      return;
    parent[c] = a;
    if (fixed.erase(c))
      fixed.insert(a);
    if (exchanged.erase(c))
      exchanged.insert(a);
  }
  /// A variable's or a result's place, which no loop may exchange for another.
  void fix(Value value) { fixed.insert(find(value)); }
  bool isFixed(Value value) { return fixed.contains(find(value)); }
  void exchange(Value value) { exchanged.insert(find(value)); }
  bool isExchanged(Value value) { return exchanged.contains(find(value)); }

private:
  DenseMap<Value, Value> parent;
  DenseSet<Value> fixed, exchanged;
};

class Planner {
public:
  Planner(FuncOp function, const WorkspaceOf &workspace) : function(function), top(function.getBody().front()), workspace(workspace), b(function.getContext()) {}
  void run();
  int64_t inPlace = 0, copied = 0, launches = 0, exchanged = 0;

private:
  /// What runs: a kernel, a check, a loop, a branch.
  static bool isNode(Operation *op) { return isa<FusedOp, CheckIndexOp, ForOp, IfOp>(op); }
  static bool holdsCheck(Operation *op) {
    return op->walk([](CheckIndexOp) { return WalkResult::interrupt(); }).wasInterrupted();
  }
  /// A result of `op` that takes the place of an operand, which `op` writes in part or again and again.
  struct Tie {
    OpOperand *operand;
    Value result;
    bool isOptional = false; // where it cannot be, `op` writes all of the result
  };
  static SmallVector<Tie> tiesOf(Operation *op);
  static SmallVector<Value> valuesReadBy(Operation *op);
  static SmallVector<Operation *> usersIn(Block &block, Value value);
  void placeAssignments();
  void placeResults();
  void settle(Block &block);
  void settleLoop(ForOp loop);
  void settleBranch(IfOp branch);
  void chooseGrants(IfOp branch);
  bool mayOverwrite(Operation *op, OpOperand &operand, Value result);
  bool liesInOneOf(ValueRange others, Value value) {
    return llvm::any_of(others, [&](Value other) { return places.find(other) == places.find(value); });
  }
  bool readsOnlyWhereItWrites(FusedOp kernel, Value old) const;
  bool reaches(Operation *from, Operation *to) const;
  void order(Block &block);
  void touchAll(Block &block);
  void buffers();
  FusedOp makeCopy(Location loc, Value value);
  AffineExpr bytesOf(RankedTensorType type) const;
  int64_t bufferFor(Value value);
  void touch(int64_t id, int64_t from, int64_t to);
  void touchRead(Value value, Operation *reader, int64_t launch);

  FuncOp function;
  Block &top;
  const WorkspaceOf &workspace;
  OpBuilder b;
  /// Beside data flow: an op that has to run before another, because that one overwrites what it reads.
  DenseMap<Operation *, llvm::SetVector<Operation *>> before;
  DenseMap<Value, StringAttr> place; // a kernel's result that lies in a variable
  Places places;
  DenseSet<Value> overwritten;                   // values that a later op writes over
  DenseSet<std::pair<Block *, Value>> grants;    // values from outside that a branch may overwrite
  DenseMap<Operation *, SmallVector<std::pair<Value, Value>>> exchanges; // of a loop: the place that is read and the one that is written
  DenseMap<Operation *, std::pair<int64_t, int64_t>> span;              // launches inside of a loop or branch
  int64_t launch = -1;

  // The table that is made at the end.
  std::vector<Buffer> table;
  DenseMap<Value, int64_t> bufferOf;
  llvm::StringMap<int64_t> variableBuffer;
  DenseMap<Attribute, int64_t> variableIndex;
  DenseMap<Value, int64_t> resultOf;
  int64_t constants = 0;
};

AffineExpr Planner::bytesOf(RankedTensorType type) const {
  unsigned bits = type.getElementType().getIntOrFloatBitWidth();
  return normalizeSize(elementCount(type) * static_cast<int64_t>(bits < 8 ? 1 : bits / 8));
}

/// Does the kernel read the old value only at the element that it is about to write?
bool Planner::readsOnlyWhereItWrites(FusedOp kernel, Value old) const {
  for (auto [input, argument] : llvm::zip(kernel.getInputs(), kernel.getBody().getArguments()))
    if (input == old)
      for (OpOperand &use : argument.getUses()) {
        auto scatter = dyn_cast<ScatterOpInterface>(use.getOwner());
        bool isInto = scatter && &use == &scatter.getIntoMutable();
        if (!isInto && !isa<ElementwiseOpInterface, YieldOp>(use.getOwner()))
          return false;
      }
  return true;
}

/// Everything that an op reads, also inside of its regions.
SmallVector<Value> Planner::valuesReadBy(Operation *op) {
  SmallVector<Value> values = llvm::to_vector(op->getOperands());
  if (isa<ForOp, IfOp>(op)) {
    llvm::SetVector<Value> captured;
    getUsedValuesDefinedAbove(op->getRegions(), captured);
    llvm::append_range(values, captured);
  }
  return values;
}

/// The ops of a block that use a value, themselves or inside of their regions.
SmallVector<Operation *> Planner::usersIn(Block &block, Value value) {
  llvm::SetVector<Operation *> users;
  for (Operation *user : value.getUsers())
    if (Operation *op = block.findAncestorOpInBlock(*user))
      users.insert(op);
  return users.takeVector();
}

/// Along data flow and orders set so far, within a block.
bool Planner::reaches(Operation *from, Operation *to) const {
  Block *block = from->getBlock();
  SmallVector<Operation *> work{to};
  DenseSet<Operation *> seen;
  while (!work.empty()) {
    Operation *op = work.pop_back_val();
    if (op == from)
      return true;
    if (!seen.insert(op).second)
      continue;
    for (Value operand : valuesReadBy(op))
      if (Operation *def = operand.getDefiningOp(); def && isNode(def) && def->getBlock() == block)
        work.push_back(def);
    if (auto it = before.find(op); it != before.end())
      llvm::append_range(work, it->second);
  }
  return false;
}

FusedOp Planner::makeCopy(Location loc, Value value) {
  auto copy = FusedOp::create(b, loc, value.getType(), "loop", value);
  OpBuilder inner(b.getContext());
  Block *body = inner.createBlock(&copy.getBody(), {}, value.getType(), loc);
  YieldOp::create(inner, loc, body->getArguments());
  copy->setAttr("name", b.getStringAttr("copy"));
  ++copied;
  return copy;
}

//===--- which values share a place ---===//

SmallVector<Planner::Tie> Planner::tiesOf(Operation *op) {
  SmallVector<Tie> ties;
  if (auto kernel = dyn_cast<FusedOp>(op)) {
    for (auto [number, value] : llvm::enumerate(kernel.getBody().front().getTerminator()->getOperands()))
      if (auto update = value.getDefiningOp<UpdateOpInterface>()) {
        unsigned input = cast<BlockArgument>(update->getOperand(0)).getArgNumber();
        ties.push_back({&kernel->getOpOperand(input), kernel.getResult(number)});
      } else if (auto scatter = value.getDefiningOp<ScatterOpInterface>()) {
        if (auto into = dyn_cast<BlockArgument>(scatter.getInto()))
          ties.push_back({&kernel->getOpOperand(into.getArgNumber()), kernel.getResult(number), /*isOptional=*/true});
      }
  } else if (auto loop = dyn_cast<ForOp>(op)) {
    for (auto [operand, result] : llvm::zip(loop.getInitsMutable(), loop.getResults()))
      ties.push_back({&operand, result});
  }
  return ties;
}

/// May `op` put its result where the operand lies?
bool Planner::mayOverwrite(Operation *op, OpOperand &operand, Value result) {
  Value x = operand.get();
  Block *block = op->getBlock();
  bool owned = grants.contains({block, x});
  if (auto argument = dyn_cast<BlockArgument>(x)) {
    auto loop = dyn_cast_or_null<ForOp>(block->getParentOp());
    if (argument.getOwner() == block && loop && argument.getArgNumber() > 0) {
      // What the last turn left may go where it makes place for what the next one gets.
      Value end = result;
      for (bool found = true; found;) {
        found = false;
        for (Operation *user : usersIn(*block, end))
          for (Tie tie : tiesOf(user))
            if (tie.operand->get() == end) {
              end = tie.result;
              found = true;
            }
      }
      owned = loop.getNext()[argument.getArgNumber() - 1] == end;
    }
  } else if (Operation *def = x.getDefiningOp(); def->getBlock() == block) {
    owned |= isa<FusedOp, ForOp, IfOp>(def) || (isa<EmptyOp>(def) && x.hasOneUse());
  }
  if (!owned || overwritten.contains(x) || place.count(x))
    return false;
  // The op itself reads it in no other way.
  unsigned own = llvm::count(op->getOperands(), x);
  if (own != 1)
    return false;
  if (isa<ForOp>(op)) {
    llvm::SetVector<Value> captured;
    getUsedValuesDefinedAbove(op->getRegions(), captured);
    if (captured.contains(x))
      return false;
  }
  for (Operation *user : usersIn(*block, x))
    if (user != op && (!isNode(user) || reaches(op, user)))
      return false;
  return true;
}

void Planner::placeAssignments() {
  SmallVector<Operation *> checks;
  for (Operation &op : top)
    if (isNode(&op) && holdsCheck(&op))
      checks.push_back(&op);
  llvm::MapVector<StringAttr, Value> reads;
  for (auto read : top.getOps<ReadOp>())
    reads[read.getVariableAttr().getAttr()] = read.getResult();

  SmallVector<AssignOp> late;
  for (auto assign : top.getOps<AssignOp>()) {
    StringAttr variable = assign.getVariableAttr().getAttr();
    Value old = reads.lookup(variable), value = assign.getValue();
    auto kernel = value.getDefiningOp<FusedOp>();
    bool fits = kernel && !place.count(value) && (!old || readsOnlyWhereItWrites(kernel, old)) &&
                llvm::none_of(tiesOf(kernel), [&](const Tie &tie) { return !tie.isOptional && tie.result == value; });
    SmallVector<Operation *> readers;
    if (old)
      for (Operation *user : usersIn(top, old))
        if (user != kernel && isNode(user))
          readers.push_back(user);
    // Every other reader, and every check, has to be able to run first.
    for (Operation *reader : readers)
      fits = fits && !reaches(kernel, reader);
    for (Operation *check : checks)
      fits = fits && !(kernel && reaches(kernel, check));
    if (!fits) {
      late.push_back(assign);
      continue;
    }
    place[value] = variable;
    places.fix(value);
    for (Operation *reader : readers)
      before[kernel].insert(reader);
    for (Operation *check : checks)
      before[kernel].insert(check);
    ++inPlace;
  }

  // The others are copied when everything else has run.
  for (AssignOp assign : late) {
    SmallVector<Operation *> nodes;
    for (Operation &op : top)
      if (isNode(&op))
        nodes.push_back(&op);
    b.setInsertionPoint(assign);
    FusedOp copy = makeCopy(assign.getLoc(), assign.getValue());
    assign.getValueMutable().assign(copy.getResult(0));
    place[copy.getResult(0)] = assign.getVariableAttr().getAttr();
    places.fix(copy.getResult(0));
    for (Operation *node : nodes)
      before[copy].insert(node);
  }
}

/// A value has one place: where it is a result and a variable, or two results, it is copied for the others.
void Planner::placeResults() {
  Operation *end = top.getTerminator();
  b.setInsertionPoint(end);
  DenseSet<Value> taken;
  for (OpOperand &operand : end->getOpOperands()) {
    Value value = operand.get();
    if (!places.isFixed(value) && !places.isExchanged(value) && taken.insert(places.find(value)).second) {
      places.fix(value);
      continue;
    }
    FusedOp copy = makeCopy(end->getLoc(), value);
    operand.set(copy.getResult(0));
    places.fix(copy.getResult(0));
  }
}

void Planner::settle(Block &block) {
  SmallVector<Operation *> nodes;
  for (Operation &op : block)
    if (isNode(&op))
      nodes.push_back(&op);
  for (Operation *op : nodes) {
    for (Tie tie : tiesOf(op)) {
      bool isPossible = mayOverwrite(op, *tie.operand, tie.result);
      if (tie.isOptional && !(isPossible && !place.count(tie.result) && readsOnlyWhereItWrites(cast<FusedOp>(op), tie.operand->get())))
        continue;
      if (!isPossible) {
        Value x = tie.operand->get();
        b.setInsertionPoint(op);
        tie.operand->set(isa_and_nonnull<EmptyOp>(x.getDefiningOp()) ? b.clone(*x.getDefiningOp())->getResult(0) : makeCopy(op->getLoc(), x).getResult(0));
      }
      Value x = tie.operand->get();
      for (Operation *user : usersIn(block, x))
        if (user != op)
          before[op].insert(user);
      overwritten.insert(x);
      places.unite(x, tie.result);
    }
    if (auto loop = dyn_cast<ForOp>(op))
      settleLoop(loop);
    else if (auto branch = dyn_cast<IfOp>(op))
      settleBranch(branch);
  }
}

/// What a loop carries lies in one place where a turn can write over what the last one left, else in two, which are exchanged after each turn.
void Planner::settleLoop(ForOp loop) {
  Block &body = loop.getBody().front();
  for (auto [argument, result] : llvm::zip(loop.getCarried(), loop.getResults()))
    places.unite(result, argument);
  settle(body);
  Operation *end = body.getTerminator();
  DenseSet<Value> second; // places that are exchanged for a carried one's
  for (auto [number, operand] : llvm::enumerate(end->getOpOperands())) {
    Value argument = loop.getCarried()[number], next = operand.get();
    if (places.find(next) == places.find(argument))
      continue;
    Operation *def = next.getDefiningOp();
    bool isOwn = def && def->getBlock() == &body && isa<FusedOp, ForOp, IfOp>(def) && !liesInOneOf(loop.getCarried(), next) && !second.contains(places.find(next));
    if (!isOwn) {
      b.setInsertionPoint(end);
      FusedOp copy = makeCopy(end->getLoc(), next);
      operand.set(copy.getResult(0));
      next = operand.get();
      def = copy;
    }
    // In place, in the kernel that computes it: every other reader of what was there has to be able to run first.
    auto kernel = dyn_cast<FusedOp>(def);
    bool fits = kernel && readsOnlyWhereItWrites(kernel, argument) && !overwritten.contains(argument) &&
                llvm::none_of(tiesOf(kernel), [&](const Tie &tie) { return !tie.isOptional && tie.result == next; });
    SmallVector<Operation *> readers;
    for (Operation *user : usersIn(body, argument))
      if (user != def) {
        fits = fits && isNode(user) && !reaches(def, user);
        readers.push_back(user);
      }
    if (fits) {
      for (Operation *reader : readers)
        before[def].insert(reader);
      places.unite(argument, next);
      continue;
    }
    places.exchange(argument);
    places.exchange(next);
    second.insert(places.find(next));
    exchanges[loop].push_back({argument, next});
    ++exchanged;
  }
}

/// A branch may change a value from outside where that dies with it, and where the other branch leaves it or changes it likewise.
void Planner::chooseGrants(IfOp branch) {
  for (Value result : branch.getResults()) {
    unsigned number = cast<OpResult>(result).getResultNumber();
    Value roots[2];
    for (auto [region, root] : llvm::zip(branch->getRegions(), roots)) {
      root = region.front().getTerminator()->getOperand(number);
      for (bool found = true; found;) {
        found = false;
        Operation *def = root.getDefiningOp();
        if (!def || def->getBlock() != &region.front())
          break;
        if (auto inner = dyn_cast<IfOp>(def)) {
          // As far as both of its branches agree.
          Value first = inner.getWhenTrue().front().getTerminator()->getOperand(cast<OpResult>(root).getResultNumber());
          Value second = inner.getWhenFalse().front().getTerminator()->getOperand(cast<OpResult>(root).getResultNumber());
          auto isOutside = [&](Value value) { return !inner->isAncestor(value.getParentRegion()->getParentOp()); };
          if (isOutside(first) || isOutside(second)) {
            root = isOutside(first) ? first : second;
            found = true;
          }
          continue;
        }
        for (Tie tie : tiesOf(def))
          if (tie.result == root) {
            root = tie.operand->get();
            found = true;
            break;
          }
      }
    }
    Value x = roots[0];
    if (x != roots[1] || branch->isAncestor(x.getParentRegion()->getParentOp()) || overwritten.contains(x) || place.count(x))
      continue;
    Block *block = branch->getBlock();
    bool owned = grants.contains({block, x});
    if (auto argument = dyn_cast<BlockArgument>(x)) {
      auto loop = dyn_cast_or_null<ForOp>(block->getParentOp());
      owned |= argument.getOwner() == block && loop && argument.getArgNumber() > 0 && loop.getNext()[argument.getArgNumber() - 1] == result;
    } else if (Operation *def = x.getDefiningOp(); def->getBlock() == block) {
      owned |= isa<FusedOp, ForOp, IfOp>(def);
    }
    for (Operation *user : usersIn(*block, x))
      owned &= user == branch || (isNode(user) && !reaches(branch, user));
    if (!owned)
      continue;
    for (Operation *user : usersIn(*block, x))
      if (user != branch)
        before[branch].insert(user);
    overwritten.insert(x);
    places.unite(x, result);
    for (Region &region : branch->getRegions())
      grants.insert({&region.front(), x});
  }
}

/// Both branches write a result to its place.
void Planner::settleBranch(IfOp branch) {
  chooseGrants(branch);
  for (Region &region : branch->getRegions()) {
    Block &block = region.front();
    // What another branch has written over is as it was here.
    DenseSet<Value> outside = overwritten;
    for (auto [granted, value] : grants)
      if (granted == &block)
        overwritten.erase(value);
    settle(block);
    overwritten.insert(outside.begin(), outside.end());
    Operation *end = block.getTerminator();
    for (auto [number, operand] : llvm::enumerate(end->getOpOperands())) {
      Value result = branch.getResult(number), value = operand.get();
      if (places.find(value) == places.find(result))
        continue;
      Operation *def = value.getDefiningOp();
      bool isOwn = def && def->getBlock() == &block && isa<FusedOp, ForOp, IfOp>(def) && !places.isFixed(value) && !liesInOneOf(branch.getResults(), value);
      // A result that is written over a value from outside is written when nobody reads that any more.
      SmallVector<Operation *> readers;
      for (auto [granted, x] : grants)
        if (granted == &block && places.find(x) == places.find(result))
          isOwn = false;
      if (!isOwn) {
        for (Operation &op : block)
          if (isNode(&op))
            readers.push_back(&op);
        b.setInsertionPoint(end);
        FusedOp copy = makeCopy(end->getLoc(), value);
        operand.set(copy.getResult(0));
        value = operand.get();
        before[copy].insert(readers.begin(), readers.end());
      }
      places.unite(result, value);
    }
  }
}

//===--- order ---===//

/// Puts kernels in an order that respects data flow and `before`, and neighbours that do not depend on each other into one launch. Loops and branches stand
/// between launches; those inside of them are numbered once, in the order of the text.
void Planner::order(Block &block) {
  SmallVector<Operation *> nodes;
  for (Operation &op : block)
    if (isNode(&op))
      nodes.push_back(&op);
  DenseMap<Operation *, SmallVector<Operation *>> needs;
  // Of several things that are wrong, the first in the text is reported.
  Operation *check = nullptr;
  for (Operation *op : nodes) {
    if (holdsCheck(op) && check && !reaches(op, check))
      before[op].insert(check);
    if (holdsCheck(op))
      check = op;
    for (Value operand : valuesReadBy(op))
      if (Operation *def = operand.getDefiningOp(); def && isNode(def) && def->getBlock() == &block)
        needs[op].push_back(def);
    if (auto it = before.find(op); it != before.end())
      llvm::append_range(needs[op], it->second);
  }
  // Products and kernels by themselves have launches of their own; checks come alone, so that the entry can look at what they found.
  auto joins = [](Operation *op) { return isa<FusedOp>(op) && llvm::is_contained({"loop", "rows", "columns", "scatter"}, cast<FusedOp>(op).getSchedule()); };
  DenseMap<Operation *, int64_t> launchOf;
  Operation *anchor = nullptr;
  for (Operation &op : block)
    if (isa<AssignOp>(op) || op.hasTrait<OpTrait::IsTerminator>()) {
      anchor = &op;
      break;
    }
  bool open = false;
  while (launchOf.size() < nodes.size()) {
    Operation *next = nullptr, *companion = nullptr;
    for (Operation *op : nodes) {
      if (launchOf.count(op) || !llvm::all_of(needs[op], [&](Operation *need) { return launchOf.count(need); }))
        continue;
      if (!next || isa<CheckIndexOp>(op))
        next = next && isa<CheckIndexOp>(next) ? next : op;
      if (!companion && open && joins(op) && llvm::none_of(needs[op], [&](Operation *need) { return launchOf.lookup(need) == launch; }))
        companion = op;
    }
    if (companion)
      next = companion;
    next->moveBefore(anchor);
    if (isa<ForOp, IfOp>(next)) {
      int64_t first = launch + 1;
      for (Region &region : next->getRegions())
        order(region.front());
      span[next] = {first, std::max(first, launch)};
      launchOf[next] = launch;
      open = false;
      continue;
    }
    if (!companion)
      ++launch;
    launchOf[next] = launch;
    open = joins(next);
    next->setAttr("launch", b.getI64IntegerAttr(launch));
  }
}

//===--- buffers ---===//

int64_t Planner::bufferFor(Value value) {
  Value root = places.find(value);
  if (auto it = bufferOf.find(root); it != bufferOf.end())
    return it->second;
  auto bytes = bytesOf(cast<RankedTensorType>(value.getType()));
  auto add = [&](Buffer buffer) {
    table.push_back(buffer);
    return static_cast<int64_t>(table.size()) - 1;
  };
  int64_t id;
  if (auto argument = dyn_cast<BlockArgument>(value); argument && argument.getOwner() == &top) {
    id = add({"argument", argument.getArgNumber(), bytes});
  } else if (auto read = value.getDefiningOp<ReadOp>()) {
    StringAttr name = read.getVariableAttr().getAttr();
    auto [it, isNew] = variableBuffer.try_emplace(name.getValue(), 0);
    if (isNew)
      it->second = add({"variable", variableIndex.lookup(name), bytes});
    id = it->second;
  } else if (auto constant = value.getDefiningOp<ConstantOp>()) {
    id = add({"constant", constants, bytes});
    constant->setAttr("number", b.getI64IntegerAttr(constants++));
  } else if (auto assigned = place.find(root); assigned != place.end()) {
    auto [it, isNew] = variableBuffer.try_emplace(assigned->second.getValue(), 0);
    if (isNew)
      it->second = add({"variable", variableIndex.lookup(assigned->second), bytes});
    id = it->second;
  } else if (auto result = resultOf.find(root); result != resultOf.end()) {
    id = add({"result", result->second, bytes});
  } else {
    id = add({"arena", 0, bytes});
  }
  bufferOf[root] = id;
  return id;
}

void Planner::touch(int64_t id, int64_t from, int64_t to) {
  table[id].first = std::min(table[id].first, from);
  table[id].last = std::max(table[id].last, to);
}

/// A value from outside of a loop is read again in every turn.
void Planner::touchRead(Value value, Operation *reader, int64_t launch) {
  int64_t id = bufferFor(value);
  touch(id, launch, launch);
  Operation *home = value.getParentRegion()->getParentOp();
  for (Operation *op = reader->getParentOp(); !op->isAncestor(home); op = op->getParentOp())
    if (isa<ForOp>(op))
      touch(id, span[op].first, std::min(span[op].second, launches - 1));
}

void Planner::touchAll(Block &block) {
  for (Operation &op : block) {
    if (!isNode(&op))
      continue;
    if (auto branch = dyn_cast<IfOp>(op)) {
      touchRead(branch.getCondition(), branch, std::max<int64_t>(span[branch].first - 1, 0));
      touchRead(branch.getCondition(), branch, std::min(span[branch].first, std::max<int64_t>(launches - 1, 0)));
      branch->setAttr("condition_buffer", b.getI64IntegerAttr(bufferFor(branch.getCondition())));
      for (Region &region : branch->getRegions())
        touchAll(region.front());
      continue;
    }
    if (auto loop = dyn_cast<ForOp>(op)) {
      auto [first, last] = span[loop];
      last = std::min(last, std::max<int64_t>(launches - 1, 0));
      first = std::min(first, last);
      touch(bufferFor(loop.getIndex()), first, last);
      loop->setAttr("index_buffer", b.getI64IntegerAttr(bufferFor(loop.getIndex())));
      if (loop.getLimit()) {
        touchRead(loop.getLimit(), loop, first);
        loop->setAttr("limit_buffer", b.getI64IntegerAttr(bufferFor(loop.getLimit())));
      }
      for (Value argument : loop.getCarried())
        touch(bufferFor(argument), first, last);
      SmallVector<int64_t> pairs;
      for (auto [read, written] : exchanges[loop]) {
        touch(bufferFor(written), first, last);
        pairs.push_back(bufferFor(read));
        pairs.push_back(bufferFor(written));
      }
      if (!pairs.empty())
        loop->setAttr("exchanged_buffers", b.getDenseI64ArrayAttr(pairs));
      if (loop.getConditional())
        loop->setAttr("condition_buffer", b.getI64IntegerAttr(bufferFor(loop.getCarried()[0])));
      touchAll(loop.getBody().front());
      continue;
    }
    int64_t launch = op.getAttrOfType<IntegerAttr>("launch").getInt();
    SmallVector<int64_t> from, to;
    for (Value operand : op.getOperands()) {
      from.push_back(bufferFor(operand));
      touchRead(operand, &op, launch);
    }
    for (Value result : op.getResults()) {
      to.push_back(bufferFor(result));
      touchRead(result, &op, launch);
    }
    op.setAttr("input_buffers", b.getDenseI64ArrayAttr(from));
    op.setAttr("result_buffers", b.getDenseI64ArrayAttr(to));
    if (auto kernel = dyn_cast<FusedOp>(op); kernel && workspace) {
      Workspace wanted = workspace(kernel);
      auto add = [&](StringRef attribute, StringRef kind, AffineExpr elements, ForOp loop) {
        if (!elements || elements == b.getAffineConstantExpr(0))
          return;
        table.push_back({kind, 0, normalizeSize(elements * static_cast<int64_t>(wanted.elementType.getIntOrFloatBitWidth() / 8))});
        int64_t id = static_cast<int64_t>(table.size()) - 1;
        touch(id, launch, launch);
        if (loop)
          touch(id, span[loop].first, std::min(span[loop].second, launches - 1));
        op.setAttr(attribute, b.getI64IntegerAttr(id));
      };
      add("workspace_buffer", "arena", wanted.elements, {});
      add("panels_buffer", isa_and_nonnull<FuncOp>(wanted.keeper) ? "prepared" : "arena", wanted.panelElements, dyn_cast_or_null<ForOp>(wanted.keeper));
    }
  }
}

void Planner::buffers() {
  int64_t count = 0;
  for (auto variable : function->getParentOfType<ModelOp>().getBody().front().getOps<VariableOp>())
    variableIndex[variable.getSymNameAttr()] = count++;
  for (auto [index, value] : llvm::enumerate(top.getTerminator()->getOperands()))
    resultOf[places.find(value)] = index;
  DenseMap<Value, StringAttr> assigned;
  for (auto [value, variable] : place)
    assigned[places.find(value)] = variable;
  place = std::move(assigned);
  touchAll(top);

  // Places that are exchanged live as long as each other: what lies in one may lie in the other.
  for (bool changed = true; changed;) {
    changed = false;
    for (auto &[loop, pairs] : exchanges)
      for (auto [read, written] : pairs) {
        Buffer &a = table[bufferFor(read)], &c = table[bufferFor(written)];
        int64_t first = std::min(a.first, c.first), last = std::max(a.last, c.last);
        changed |= a.first != first || a.last != last || c.first != first || c.last != last;
        a.first = c.first = first;
        a.last = c.last = last;
      }
  }
  // What the caller gets lives to the end.
  SmallVector<Attribute> attributes;
  for (Buffer &buffer : table) {
    if (buffer.kind == "result")
      buffer.last = std::max<int64_t>(launches - 1, 0);
    attributes.push_back(b.getDictionaryAttr({b.getNamedAttr("kind", b.getStringAttr(buffer.kind)), b.getNamedAttr("index", b.getI64IntegerAttr(buffer.index)),
                                              b.getNamedAttr("bytes", AffineMapAttr::get(sizeMap(buffer.bytes, b.getContext()))),
                                              b.getNamedAttr("first", b.getI64IntegerAttr(buffer.first)), b.getNamedAttr("last", b.getI64IntegerAttr(buffer.last))}));
  }
  function->setAttr("buffers", b.getArrayAttr(attributes));
}

void Planner::run() {
  placeAssignments();
  settle(top);
  placeResults();
  order(top);
  launches = launch + 1;
  function->setAttr("launches", b.getI64IntegerAttr(launches));
  buffers();
}

struct PlanMemory : impl::PlanMemoryBase<PlanMemory> {
  PlanMemory() = default;
  explicit PlanMemory(WorkspaceOf workspace) : workspace(std::move(workspace)) {}
  void runOnOperation() override {
    for (auto function : getOperation().getBody().front().getOps<FuncOp>()) {
      Planner planner(function, workspace);
      planner.run();
      inPlace += planner.inPlace;
      copied += planner.copied;
      exchanged += planner.exchanged;
      launches += planner.launches;
    }
  }
  WorkspaceOf workspace;
};
} // namespace

std::unique_ptr<Pass> createPlanMemory(WorkspaceOf workspace) { return std::make_unique<PlanMemory>(std::move(workspace)); }
} // namespace dlc
