//===- PlanMemory.cpp - orders kernels, gives values buffers and assignments places -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/transforms/Passes.h"
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

class Planner {
public:
  Planner(FuncOp function, const WorkspaceSize &workspace) : function(function), block(function.getBody().front()), workspace(workspace), b(function.getContext()) {}
  void run();
  int64_t inPlace = 0, copied = 0, launches = 0;

private:
  static bool isNode(Operation *op) { return isa<FusedOp, CheckIndexOp>(op); }
  void placeAssignments();
  void copyWhatIsNeededTwice();
  void updateInPlace();
  bool readsOnlyWhereItWrites(FusedOp kernel, Value old) const;
  bool reaches(Operation *from, Operation *to) const;
  void order();
  void buffers();
  FusedOp makeCopy(Location loc, Value value);
  AffineExpr bytesOf(RankedTensorType type) const;

  FuncOp function;
  Block &block;
  const WorkspaceSize &workspace;
  OpBuilder b;
  /// Beside data flow: an op that has to run before another, because that one overwrites what it reads.
  DenseMap<Operation *, llvm::SetVector<Operation *>> before;
  DenseMap<Value, StringAttr> place; // a kernel's result that lies in a variable
  DenseMap<Value, Value> successor;  // a value, to the one that is made of it where it lies
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

/// Along data flow and orders set so far.
bool Planner::reaches(Operation *from, Operation *to) const {
  SmallVector<Operation *> work{to};
  DenseSet<Operation *> seen;
  while (!work.empty()) {
    Operation *op = work.pop_back_val();
    if (op == from)
      return true;
    if (!seen.insert(op).second)
      continue;
    for (Value operand : op->getOperands())
      if (Operation *def = operand.getDefiningOp(); def && isNode(def))
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
  return copy;
}

void Planner::placeAssignments() {
  SmallVector<Operation *> checks;
  for (auto check : block.getOps<CheckIndexOp>())
    checks.push_back(check);
  llvm::MapVector<StringAttr, Value> reads;
  for (auto read : block.getOps<ReadOp>())
    reads[read.getVariableAttr().getAttr()] = read.getResult();

  SmallVector<AssignOp> late;
  for (auto assign : block.getOps<AssignOp>()) {
    StringAttr variable = assign.getVariableAttr().getAttr();
    Value old = reads.lookup(variable), value = assign.getValue();
    auto kernel = value.getDefiningOp<FusedOp>();
    bool fits = kernel && !place.count(value) && (!old || readsOnlyWhereItWrites(kernel, old));
    SmallVector<Operation *> readers;
    if (old)
      for (Operation *user : old.getUsers())
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
    for (Operation *reader : readers)
      before[kernel].insert(reader);
    for (Operation *check : checks)
      before[kernel].insert(check);
    ++inPlace;
  }

  // The others are copied when everything else has run.
  for (AssignOp assign : late) {
    SmallVector<Operation *> nodes;
    for (Operation &op : block)
      if (isNode(&op))
        nodes.push_back(&op);
    b.setInsertionPoint(assign);
    FusedOp copy = makeCopy(assign.getLoc(), assign.getValue());
    assign.getValueMutable().assign(copy.getResult(0));
    place[copy.getResult(0)] = assign.getVariableAttr().getAttr();
    for (Operation *node : nodes)
      before[copy].insert(node);
    ++copied;
  }
}

/// A value has one place: where it is a result and a variable, or two results, it is copied for the others.
void Planner::copyWhatIsNeededTwice() {
  Operation *end = block.getTerminator();
  b.setInsertionPoint(end);
  DenseSet<Value> taken;
  for (OpOperand &operand : end->getOpOperands()) {
    Value value = operand.get();
    if (!place.count(value) && taken.insert(value).second)
      continue;
    FusedOp copy = makeCopy(end->getLoc(), value);
    operand.set(copy.getResult(0));
    taken.insert(copy.getResult(0));
  }
}

/// A value that is changed at places and not needed afterwards: the new one takes its place, and nothing is copied.
void Planner::updateInPlace() {
  for (auto kernel : block.getOps<FusedOp>()) {
    Block &body = kernel.getBody().front();
    for (auto scatter : body.getOps<ScatterOpInterface>()) {
      auto argument = dyn_cast<BlockArgument>(scatter.getInto());
      auto yield = cast<YieldOp>(body.getTerminator());
      auto yielded = llvm::find(yield.getOperands(), scatter->getResult(0));
      if (!argument || yielded == yield.operand_end())
        continue;
      Value old = kernel.getInputs()[argument.getArgNumber()], now = kernel.getResult(yielded - yield.operand_begin());
      bool fits = old.getDefiningOp<FusedOp>() && !place.count(old) && !place.count(now) && !successor.count(old) && readsOnlyWhereItWrites(kernel, old);
      for (Operation *user : old.getUsers())
        fits = fits && (user == kernel || (isNode(user) && !reaches(kernel, user)));
      if (!fits)
        continue;
      successor[old] = now;
      for (Operation *user : old.getUsers())
        if (user != kernel)
          before[kernel].insert(user);
    }
  }
}

/// Puts kernels in an order that respects data flow and `before`, and neighbours that do not depend on each other into one launch.
void Planner::order() {
  SmallVector<Operation *> nodes;
  DenseMap<Operation *, unsigned> position;
  for (Operation &op : block)
    if (isNode(&op)) {
      position[&op] = nodes.size();
      nodes.push_back(&op);
    }
  DenseMap<Operation *, SmallVector<Operation *>> needs;
  for (Operation *op : nodes) {
    for (Value operand : op->getOperands())
      if (Operation *def = operand.getDefiningOp(); def && isNode(def))
        needs[op].push_back(def);
    if (auto it = before.find(op); it != before.end())
      llvm::append_range(needs[op], it->second);
  }
  // Products and kernels by themselves have launches of their own; checks come alone, so that the entry can look at what they found.
  auto joins = [](Operation *op) { return isa<FusedOp>(op) && llvm::is_contained({"loop", "rows", "columns", "scatter"}, cast<FusedOp>(op).getSchedule()); };
  DenseMap<Operation *, int64_t> launchOf;
  Operation *anchor = nullptr;
  for (Operation &op : block)
    if (isa<AssignOp, ReturnOp>(op)) {
      anchor = &op;
      break;
    }
  int64_t launch = -1;
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
    else
      ++launch;
    launchOf[next] = launch;
    open = joins(next);
    next->moveBefore(anchor);
    next->setAttr("launch", b.getI64IntegerAttr(launch));
  }
  launches = launch + 1;
  function->setAttr("launches", b.getI64IntegerAttr(launches));
}

void Planner::buffers() {
  std::vector<Buffer> table;
  DenseMap<Value, int64_t> bufferOf;
  llvm::StringMap<int64_t> variableBuffer;
  DenseMap<Attribute, int64_t> variableIndex;
  int64_t count = 0;
  for (auto variable : function->getParentOfType<ModelOp>().getBody().front().getOps<VariableOp>())
    variableIndex[variable.getSymNameAttr()] = count++;
  auto type = [](Value value) { return cast<RankedTensorType>(value.getType()); };
  auto add = [&](Buffer buffer) {
    table.push_back(buffer);
    return static_cast<int64_t>(table.size()) - 1;
  };
  auto ofVariable = [&](StringAttr name, Value value) {
    auto [it, isNew] = variableBuffer.try_emplace(name.getValue(), 0);
    if (isNew)
      it->second = add({"variable", variableIndex.lookup(name), bytesOf(type(value))});
    return it->second;
  };
  DenseMap<Value, int64_t> resultOf;
  for (auto [index, value] : llvm::enumerate(block.getTerminator()->getOperands()))
    resultOf[value] = index;
  int64_t constants = 0;
  auto bufferFor = [&](Value value) {
    while (Value next = successor.lookup(value))
      value = next;
    if (auto it = bufferOf.find(value); it != bufferOf.end())
      return it->second;
    int64_t id;
    if (auto argument = dyn_cast<BlockArgument>(value))
      id = add({"argument", argument.getArgNumber(), bytesOf(type(value))});
    else if (auto read = value.getDefiningOp<ReadOp>())
      id = ofVariable(read.getVariableAttr().getAttr(), value);
    else if (auto constant = value.getDefiningOp<ConstantOp>()) {
      id = add({"constant", constants, bytesOf(type(value))});
      constant->setAttr("number", b.getI64IntegerAttr(constants++));
    } else if (place.count(value))
      id = ofVariable(place[value], value);
    else if (resultOf.count(value))
      id = add({"result", resultOf[value], bytesOf(type(value))});
    else
      id = add({"arena", 0, bytesOf(type(value))});
    bufferOf[value] = id;
    return id;
  };
  auto touch = [&](int64_t id, int64_t launch) {
    table[id].first = std::min(table[id].first, launch);
    table[id].last = std::max(table[id].last, launch);
  };
  for (Operation &op : block) {
    if (!isNode(&op))
      continue;
    int64_t launch = op.getAttrOfType<IntegerAttr>("launch").getInt();
    SmallVector<int64_t> from, to;
    for (Value operand : op.getOperands()) {
      from.push_back(bufferFor(operand));
      touch(from.back(), launch);
    }
    for (Value result : op.getResults()) {
      to.push_back(bufferFor(result));
      touch(to.back(), launch);
    }
    op.setAttr("input_buffers", b.getDenseI64ArrayAttr(from));
    op.setAttr("result_buffers", b.getDenseI64ArrayAttr(to));
    if (auto kernel = dyn_cast<FusedOp>(op); kernel && workspace) {
      Type element;
      AffineExpr size = workspace(kernel, element);
      if (size && size != b.getAffineConstantExpr(0)) {
        int64_t id = add({"arena", 0, normalizeSize(size * static_cast<int64_t>(element.getIntOrFloatBitWidth() / 8))});
        touch(id, launch);
        op.setAttr("workspace_buffer", b.getI64IntegerAttr(id));
      }
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
  copyWhatIsNeededTwice();
  updateInPlace();
  order();
  buffers();
}

struct PlanMemory : impl::PlanMemoryBase<PlanMemory> {
  PlanMemory() = default;
  explicit PlanMemory(WorkspaceSize workspace) : workspace(std::move(workspace)) {}
  void runOnOperation() override {
    for (auto function : getOperation().getBody().front().getOps<FuncOp>()) {
      Planner planner(function, workspace);
      planner.run();
      inPlace += planner.inPlace;
      copied += planner.copied;
      launches += planner.launches;
    }
  }
  WorkspaceSize workspace;
};
} // namespace

std::unique_ptr<Pass> createPlanMemory(WorkspaceSize workspace) { return std::make_unique<PlanMemory>(std::move(workspace)); }
} // namespace dlc
