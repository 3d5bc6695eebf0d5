//===- Fuse.cpp - forms kernels -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/transforms/ElementCost.h"
#include "compiler/transforms/Passes.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/IRMapping.h"
#include "mlir/Transforms/RegionUtils.h"
#include "llvm/ADT/DenseSet.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/SetVector.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc {
#define GEN_PASS_DEF_FUSE
#include "compiler/transforms/Passes.h.inc"

namespace {

/// Cheap ops, numbers of a loop's index among them, are computed again in each kernel that reads them.
bool repeats(Operation *op) {
  if (op->hasTrait<RepeatedInConsumers>())
    return true;
  if (!isa<ElementwiseOpInterface>(op))
    return false;
  auto type = cast<RankedTensorType>(op->getResult(0).getType());
  return type.getRank() == 0 && type.getElementType().isInteger(64);
}

/// Ops that will be one kernel. `full` is the shape that is walked; `reduced` the axes of it that reductions take away; the others are `kept`.
struct Group {
  enum Kind { Loop, Reduce, Gemm, Alone, Control } kind = Loop; // Control: a loop or branch, which has its own kernels inside
  SmallVector<AffineExpr> full;
  SmallVector<int64_t> reduced;
  llvm::SetVector<Operation *> ops;

  SmallVector<int64_t> keptAxes() const {
    SmallVector<int64_t> axes;
    for (int64_t axis = 0; axis < static_cast<int64_t>(full.size()); ++axis)
      if (!llvm::is_contained(reduced, axis))
        axes.push_back(axis);
    return axes;
  }
  SmallVector<AffineExpr> keptShape() const {
    SmallVector<AffineExpr> shape;
    for (int64_t axis : keptAxes())
      shape.push_back(full[axis]);
    return shape;
  }
};

/// How a value reaches an op through ops that are repeated: from which op, and which axis of the reader's shape each of its axes is (none: it does not say).
struct Source {
  Operation *op;
  std::optional<SmallVector<int64_t>> axes;
};

class Fuser {
public:
  Fuser(Block &block) : block(block) {}
  void run();
  int64_t kernels = 0, epilogues = 0, updates = 0;

private:
  bool isRepeated(Operation *op) const { return op->getBlock() == &block && repeats(op) && !kept.contains(op); }
  static bool isControl(Operation *op) { return isa<ForOp, IfOp>(op); }
  /// Reads, constants, what is computed around this block: values that lie in memory already.
  bool isMemory(Operation *op) const { return isa<ReadOp, ConstantOp, EmptyOp>(op) || op->getBlock() != &block; }
  /// Ends of data flow: they want their operand in memory.
  static bool isSink(Operation *op) { return op->hasTrait<OpTrait::IsTerminator>() || isa<AssignOp, CheckIndexOp, CheckSizeOp>(op); }
  bool isCompute(Operation *op) const { return !isMemory(op) && !isSink(op) && !isRepeated(op); }
  /// What an op reads, also inside of its regions.
  static SmallVector<Value> valuesReadBy(Operation *op);
  void sinkRepeated();

  void splitFullReductions();
  void keepWhatMustBeInMemory();
  void formGroups();
  void sourcesOf(Value value, SmallVector<int64_t> axes, bool aligned, SmallVectorImpl<Source> &sources) const;
  SmallVector<Source> sourcesOf(Operation *op) const;
  Group *groupOf(Operation *op) const { return groups.lookup(op); }
  SmallVector<Group *> producersOf(Group *group) const;
  bool reachesThroughOthers(Group *from, Group *to) const;
  bool mergedShape(const Group &producer, const Group &consumer, Group &merged) const;
  bool edgesAreAligned(llvm::function_ref<bool(Operation *)> isProduced, Group *consumer, const Group &merged) const;
  bool tryMerge(Group *producer, Group *consumer);
  bool updatesAreSafe(const Group &group) const;
  void merge();
  /// Ops of a kernel, and the kernels in which each is computed instead.
  using Given = llvm::MapVector<Operation *, llvm::SetVector<Group *>>;
  bool readsInFull(Value value, AffineExpr count, llvm::SetVector<Value> &values) const;
  bool readersOf(Value value, llvm::SetVector<Operation *> &readers) const;
  bool leaves(Value value, const llvm::SetVector<Operation *> &ops) const;
  int64_t traffic(const llvm::SetVector<Operation *> &ops, AffineExpr count, const Given &given) const;
  bool mayGiveToReaders(Group *producer, Operation *op, Given &given) const;
  bool giveToReaders(Group *producer);
  void build();

  Block &block;
  DenseSet<Operation *> kept; // repeatable ops that have to be in memory all the same
  DenseMap<Operation *, Group *> groups;
  std::vector<std::unique_ptr<Group>> storage;
  DenseMap<Operation *, unsigned> position;
};

SmallVector<Value> Fuser::valuesReadBy(Operation *op) {
  SmallVector<Value> values = llvm::to_vector(op->getOperands());
  if (isControl(op)) {
    llvm::SetVector<Value> captured;
    getUsedValuesDefinedAbove(op->getRegions(), captured);
    llvm::append_range(values, captured);
  }
  return values;
}

/// What is repeated in every reader is repeated in the loops and branches that read it; draws are too long for that and are kept.
void Fuser::sinkRepeated() {
  std::function<bool(Operation *)> isCheap = [&](Operation *op) {
    auto generator = dyn_cast<GeneratorOpInterface>(op);
    return repeats(op) && !(generator && generator.isLarge()) && llvm::all_of(op->getOperands(), [&](Value operand) {
      Operation *def = operand.getDefiningOp();
      return !def || !repeats(def) || isCheap(def);
    });
  };
  SmallVector<Operation *> control;
  for (Operation &op : block)
    if (isControl(&op))
      control.push_back(&op);
  for (Operation *op : control)
    for (Region &region : op->getRegions()) {
      DenseMap<Operation *, Operation *> clones;
      OpBuilder b = OpBuilder::atBlockBegin(&region.front());
      std::function<Value(Value)> inside = [&](Value value) -> Value {
        Operation *def = value.getDefiningOp();
        if (!def || op->isAncestor(def) || !isCheap(def))
          return value;
        Operation *&clone = clones[def];
        if (!clone) {
          IRMapping mapping;
          for (Value operand : def->getOperands())
            mapping.map(operand, inside(operand));
          clone = b.clone(*def, mapping);
        }
        return clones[def]->getResult(cast<OpResult>(value).getResultNumber());
      };
      region.walk([&](Operation *user) {
        for (OpOperand &operand : user->getOpOperands()) {
          // A product wants its operands in memory: what does not lie there already is put there once, ahead of the loop.
          Operation *def = operand.get().getDefiningOp();
          while (isa<ContractionOpInterface>(user) && def && repeats(def) && isa<IndexingOpInterface>(def) && cast<IndexingOpInterface>(def).keepsOrder())
            def = def->getOperand(0).getDefiningOp();
          if (!isa<ContractionOpInterface>(user) || !def || !repeats(def))
            operand.set(inside(operand.get()));
        }
      });
    }
}

/// A reduction to one number becomes one along the last axis, whose rows are independent, and one of the rest.
void Fuser::splitFullReductions() {
  for (Operation &op : llvm::make_early_inc_range(block)) {
    auto reduction = dyn_cast<ReductionOpInterface>(op);
    if (!reduction || reduction.keepsIndex())
      continue;
    int64_t rank = cast<RankedTensorType>(op.getOperand(0).getType()).getRank();
    if (rank < 2 || static_cast<int64_t>(reduction.getReducedAxes().size()) != rank)
      continue;
    OpBuilder b(&op);
    Value rows = reduction.buildOver(b, op.getOperand(0), rank - 1);
    Value all = reduction.buildOver(b, rows, llvm::to_vector(llvm::seq<int64_t>(0, rank - 1)));
    // The rest may again be more than one axis.
    op.getResult(0).replaceAllUsesWith(all);
    op.erase();
  }
}

void Fuser::keepWhatMustBeInMemory() {
  OpBuilder b(block.getParentOp()->getContext());
  for (Operation &op : llvm::make_early_inc_range(block)) {
    if (isControl(&op)) {
      for (Value value : valuesReadBy(&op))
        if (Operation *def = value.getDefiningOp(); def && def->getBlock() == &block && isRepeated(def))
          kept.insert(def);
    } else if (auto update = dyn_cast<UpdateOpInterface>(op)) {
      if (Operation *def = update->getOperand(0).getDefiningOp(); def && isRepeated(def))
        kept.insert(def);
    } else if (isSink(&op)) {
      for (OpOperand &operand : op.getOpOperands()) {
        Operation *def = operand.get().getDefiningOp();
        if (def && def->getBlock() == &block && isRepeated(def)) {
          kept.insert(def);
        } else if (!def || isMemory(def)) {
          if (isa<CheckIndexOp, YieldOp>(op))
            continue; // reads its operand where it is; where a loop or branch wants it elsewhere, the plan copies
          // An argument, a variable or a constant as a result: a copy.
          b.setInsertionPoint(&op);
          auto copy = ReshapeOp::create(b, op.getLoc(), operand.get().getType(), operand.get());
          operand.set(copy);
          kept.insert(copy);
        }
      }
    } else if (isa<ContractionOpInterface, KernelOpInterface>(op)) {
      auto kernel = dyn_cast<KernelOpInterface>(op);
      for (Value operand : op.getOperands()) {
        // A product, or a kernel by itself, reads its operands from memory; one that only lies there under another shape, or with strides that the kernel takes, is read as it lies.
        Operation *def = operand.getDefiningOp();
        auto goBack = [&](llvm::function_ref<bool(IndexingOpInterface)> isPassed) {
          while (def && isRepeated(def) && isa<IndexingOpInterface>(def) && isPassed(cast<IndexingOpInterface>(def)))
            def = def->getOperand(0).getDefiningOp();
        };
        if (kernel && kernel.readsStrides())
          goBack([](IndexingOpInterface view) { return view.hasStrides() && view.keepsInnermost(); });
        goBack([](IndexingOpInterface view) { return view.keepsOrder(); });
        if (def && isRepeated(def))
          kept.insert(operand.getDefiningOp());
      }
    }
  }
}

void Fuser::formGroups() {
  unsigned number = 0;
  for (Operation &op : block) {
    position[&op] = number++;
    if (!isCompute(&op))
      continue;
    auto group = std::make_unique<Group>();
    group->ops.insert(&op);
    if (isControl(&op)) {
      group->kind = Group::Control;
    } else if (auto update = dyn_cast<UpdateOpInterface>(op)) {
      group->full = sizesOf(update->getOperand(1));
    } else if (auto reduction = dyn_cast<ReductionOpInterface>(op)) {
      group->kind = Group::Reduce;
      group->full = sizesOf(op.getOperand(0));
      group->reduced = llvm::to_vector(reduction.getReducedAxes());
    } else {
      group->kind = isa<KernelOpInterface, ScatterOpInterface>(op) ? Group::Alone : isa<ContractionOpInterface>(op) ? Group::Gemm : Group::Loop;
      group->full = sizesOf(op.getResult(0));
    }
    groups[&op] = group.get();
    storage.push_back(std::move(group));
  }
}

/// Follows `value`, whose axes are `axes` of the reader's shape, back to ops that compute.
void Fuser::sourcesOf(Value value, SmallVector<int64_t> axes, bool aligned, SmallVectorImpl<Source> &sources) const {
  Operation *def = value.getDefiningOp();
  if (!def || isMemory(def))
    return;
  if (isControl(def)) {
    sources.push_back({def, std::nullopt});
    return;
  }
  if (!isRepeated(def)) {
    sources.push_back({def, aligned ? std::optional(axes) : std::nullopt});
    return;
  }
  auto indexing = dyn_cast<IndexingOpInterface>(def);
  for (Value operand : def->getOperands()) {
    if (!indexing) {
      bool isElementwise = isa<ElementwiseOpInterface>(def);
      sourcesOf(operand, isElementwise ? axes : SmallVector<int64_t>(), aligned, sources);
      continue;
    }
    // The first operand's elements are the op's; what else there is must be there before.
    std::optional<SmallVector<int64_t>> map;
    if (operand == def->getOperand(0))
      map = indexing.getAxisMap();
    SmallVector<int64_t> composed;
    if (map && aligned)
      for (int64_t axis : *map)
        composed.push_back(axes[axis]);
    sourcesOf(operand, composed, aligned && map.has_value(), sources);
  }
}

SmallVector<Source> Fuser::sourcesOf(Operation *op) const {
  SmallVector<Source> sources;
  for (Value operand : valuesReadBy(op)) {
    int64_t rank = cast<RankedTensorType>(operand.getType()).getRank();
    sourcesOf(operand, llvm::to_vector(llvm::seq<int64_t>(0, rank)), true, sources);
  }
  return sources;
}

SmallVector<Group *> Fuser::producersOf(Group *group) const {
  llvm::SetVector<Group *> producers;
  for (Operation *op : group->ops)
    for (const Source &source : sourcesOf(op))
      if (Group *producer = groupOf(source.op); producer && producer != group)
        producers.insert(producer);
  return producers.takeVector();
}

/// Is there a way from `from` to `to` over a third group? Merging the two would then close a cycle.
bool Fuser::reachesThroughOthers(Group *from, Group *to) const {
  SmallVector<Group *> work;
  DenseSet<Group *> seen;
  for (Group *producer : producersOf(to))
    if (producer != from && seen.insert(producer).second)
      work.push_back(producer);
  while (!work.empty()) {
    Group *group = work.pop_back_val();
    for (Group *producer : producersOf(group)) {
      if (producer == from)
        return true;
      if (seen.insert(producer).second)
        work.push_back(producer);
    }
  }
  return false;
}

/// What the two would be together, or false.
bool Fuser::mergedShape(const Group &a, const Group &c, Group &merged) const {
  auto staysAlone = [](Group::Kind kind) { return kind == Group::Alone || kind == Group::Control; };
  if (staysAlone(a.kind) || staysAlone(c.kind))
    return false;
  if (a.kind == Group::Loop && c.kind == Group::Loop) {
    merged = a;
    return a.full == c.full;
  }
  if (a.kind == Group::Gemm || c.kind == Group::Gemm) {
    const Group &gemm = a.kind == Group::Gemm ? a : c, &other = a.kind == Group::Gemm ? c : a;
    merged = gemm;
    return other.kind == Group::Loop && other.full == gemm.full;
  }
  if (a.kind == Group::Reduce && c.kind == Group::Reduce) {
    merged = a;
    return a.full == c.full && a.reduced == c.reduced;
  }
  const Group &reduce = a.kind == Group::Reduce ? a : c, &loop = a.kind == Group::Reduce ? c : a;
  merged = reduce;
  return loop.full == reduce.full || loop.full == reduce.keptShape();
}

/// Within one kernel a value is at hand only at the index that is being computed: every way from producer to consumer must keep it.
bool Fuser::edgesAreAligned(llvm::function_ref<bool(Operation *)> isProduced, Group *consumer, const Group &merged) const {
  SmallVector<int64_t> keptAxes = merged.keptAxes();
  for (Operation *op : consumer->ops) {
    for (const Source &source : sourcesOf(op)) {
      if (!isProduced(source.op))
        continue;
      if (!source.axes || isa<ContractionOpInterface>(op) || isa<UpdateOpInterface>(source.op))
        return false;
      // What an update changes lies in memory.
      auto update = dyn_cast<UpdateOpInterface>(op);
      if (update && update->getOperand(0).getDefiningOp() == source.op)
        return false;
      // Which axes of the full shape are the reader's?
      SmallVector<AffineExpr> readerShape = op->getNumOperands() ? sizesOf(op->getOperand(update ? 1 : 0)) : sizesOf(op->getResult(0));
      bool readerIsFull = readerShape == merged.full;
      SmallVector<int64_t> expected = llvm::to_vector(llvm::seq<int64_t>(0, readerShape.size()));
      SmallVector<AffineExpr> sourceShape = sizesOf(source.op->getResult(0));
      if (readerIsFull && sourceShape != merged.full)
        expected = keptAxes;
      if (*source.axes != expected)
        return false;
    }
  }
  return true;
}

/// An update writes over what it changes: in its kernel, only what it replaces may be read of that.
bool Fuser::updatesAreSafe(const Group &group) const {
  for (Operation *op : group.ops) {
    auto update = dyn_cast<UpdateOpInterface>(op);
    if (!update)
      continue;
    Value x = update->getOperand(0);
    std::function<bool(Value)> reads = [&](Value value) {
      if (value == x)
        return true;
      Operation *def = value.getDefiningOp();
      return def && isRepeated(def) && llvm::any_of(def->getOperands(), reads);
    };
    for (Operation *other : group.ops) {
      if (auto another = dyn_cast<UpdateOpInterface>(other); another && other != op && another->getOperand(0) == x)
        return false;
      for (OpOperand &operand : other->getOpOperands()) {
        if ((isa<UpdateOpInterface>(other) && operand.getOperandNumber() == 0) || !reads(operand.get()))
          continue;
        bool inPlace = isa<ElementwiseOpInterface>(other) && update.isReplaced(operand.get()) && sizesOf(operand.get()) == group.full;
        if (!inPlace)
          return false;
      }
    }
  }
  return true;
}

bool Fuser::tryMerge(Group *producer, Group *consumer) {
  Group merged;
  if (!mergedShape(*producer, *consumer, merged))
    return false;
  // Ops whose element is not a function of the elements at hand stand at the head of a kernel, and in none that is a product's: its epilogue works in vectors.
  auto needsTheHead = [&](Operation *op) {
    if (auto update = dyn_cast<UpdateOpInterface>(op))
      return merged.kind == Group::Gemm && !update.keepsInnermost();
    return !isa<ElementwiseOpInterface, ReductionOpInterface, ContractionOpInterface>(op);
  };
  if (llvm::any_of(consumer->ops, needsTheHead) || (merged.kind == Group::Gemm && llvm::any_of(producer->ops, needsTheHead)))
    return false;
  if (merged.kind == Group::Gemm && consumer->kind == Group::Gemm) {
    // What feeds the epilogue of a product may join it, what feeds the product may not.
    for (Operation *op : consumer->ops)
      if (isa<ContractionOpInterface>(op))
        for (const Source &source : sourcesOf(op))
          if (groupOf(source.op) == producer)
            return false;
  }
  if (!edgesAreAligned([&](Operation *op) { return groupOf(op) == producer; }, consumer, merged) || reachesThroughOthers(producer, consumer))
    return false;
  merged.ops = producer->ops;
  merged.ops.insert(consumer->ops.begin(), consumer->ops.end());
  if (!updatesAreSafe(merged))
    return false;
  *producer = merged;
  for (Operation *op : consumer->ops)
    groups[op] = producer;
  consumer->ops.clear();
  return true;
}

void Fuser::merge() {
  // Products first take their epilogues, then reductions what stands around them, then loops each other.
  for (Group::Kind kind : {Group::Gemm, Group::Reduce, Group::Loop}) {
    for (bool changed = true; changed;) {
      changed = false;
      for (Operation &op : block) {
        Group *consumer = groupOf(&op);
        if (!consumer || consumer->kind == Group::Control)
          continue;
        for (Group *producer : producersOf(consumer)) {
          if (producer->kind != kind && consumer->kind != kind)
            continue;
          if (kind != Group::Gemm && (producer->kind == Group::Gemm || consumer->kind == Group::Gemm))
            continue;
          if (tryMerge(producer, consumer)) {
            changed = true;
            break;
          }
        }
      }
    }
  }
}

/// Adds what computing `value` at one place looks at, through ops that are repeated: values in memory or of other ops, of at least `count` elements. False where one of the repeated ops is long.
bool Fuser::readsInFull(Value value, AffineExpr count, llvm::SetVector<Value> &values) const {
  Operation *def = value.getDefiningOp();
  if (def && isRepeated(def)) {
    auto generator = dyn_cast<GeneratorOpInterface>(def);
    return !(generator && generator.isLarge()) && llvm::all_of(def->getOperands(), [&](Value operand) { return readsInFull(operand, count, values); });
  }
  if (isKnownAtLeast(elementCount(cast<RankedTensorType>(value.getType())), count))
    values.insert(value);
  return true;
}

/// The ops of kernels that read a value, also through ops that are repeated. False where others do: it then has to be in memory.
bool Fuser::readersOf(Value value, llvm::SetVector<Operation *> &readers) const {
  return llvm::all_of(value.getUsers(), [&](Operation *user) {
    if (isRepeated(user))
      return llvm::all_of(user->getResults(), [&](Value result) { return readersOf(result, readers); });
    return groupOf(user) && (readers.insert(user), true);
  });
}

/// Whether a value of these ops, which are a kernel, is read by others, or leaves the block.
bool Fuser::leaves(Value value, const llvm::SetVector<Operation *> &ops) const {
  llvm::SetVector<Operation *> readers;
  return !readersOf(value, readers) || llvm::any_of(readers, [&](Operation *reader) { return !ops.contains(reader); });
}

/// Bytes that a kernel of these ops moves for each of `count` elements: of the large values that it reads, and of those of its own that others read. What is given is in every kernel that needs it.
int64_t Fuser::traffic(const llvm::SetVector<Operation *> &ops, AffineExpr count, const Given &given) const {
  llvm::SetVector<Value> moved;
  for (Operation *op : ops) {
    llvm::SetVector<Value> values;
    for (Value operand : op->getOperands())
      readsInFull(operand, count, values);
    for (Value value : values)
      if (!value.getDefiningOp() || !ops.contains(value.getDefiningOp()))
        moved.insert(value);
    for (Value result : op->getResults())
      if (!given.contains(op) && leaves(result, ops))
        readsInFull(result, count, moved);
  }
  int64_t bytes = 0;
  for (Value value : moved)
    bytes += llvm::divideCeil(getElementTypeOrSelf(value).getIntOrFloatBitWidth(), 8);
  return bytes;
}

/// May this op of a kernel be computed in those that read it, beside others of the kernel that are? Adds to each of these what it needs.
bool Fuser::mayGiveToReaders(Group *producer, Operation *op, Given &given) const {
  auto elementwise = dyn_cast<ElementwiseOpInterface>(op);
  llvm::SetVector<Operation *> readers;
  if (!elementwise || sizesOf(op->getResult(0)) != producer->full || !readersOf(op->getResult(0), readers) || readers.empty())
    return false;
  llvm::SetVector<Value> values;
  const AffineExpr count = elementCount(cast<RankedTensorType>(op->getResult(0).getType()));
  if (elementaryFunctions(elementwise) || !llvm::all_of(op->getOperands(), [&](Value operand) { return readsInFull(operand, count, values); }))
    return false;
  llvm::SetVector<Group *> groups;
  for (Operation *reader : readers) {
    Group *group = groupOf(reader);
    if (group == producer) {
      auto it = given.find(reader);
      if (it == given.end())
        return false;
      groups.insert(it->second.begin(), it->second.end());
      continue;
    }
    // Everything in the kernel works on the elements at hand.
    auto atHand = [](Operation *other) { return isa<ElementwiseOpInterface, ReductionOpInterface>(other); };
    if ((group->kind != Group::Loop && group->kind != Group::Reduce) || group->full != producer->full || !llvm::all_of(group->ops, atHand) ||
        !edgesAreAligned([&](Operation *other) { return other == op; }, group, *group))
      return false;
    groups.insert(group);
  }
  // Where several need it, each gets one of its own.
  if (groups.size() > 1 && !llvm::all_of(op->getUsers(), [&](Operation *user) { return groupOf(user) != nullptr; }))
    return false;
  given[op] = groups;
  return true;
}

/// A kernel may end with ops that stand there because it feeds them. They are computed in the kernels that read them instead where less then goes through memory: they are not written, but what they
/// are made of may have to be, and each of these reads it.
bool Fuser::giveToReaders(Group *producer) {
  const AffineExpr count = productOf(producer->full, block.getParentOp()->getContext());
  SmallVector<Operation *> ops(producer->ops.begin(), producer->ops.end());
  llvm::sort(ops, [&](Operation *a, Operation *c) { return position[a] > position[c]; });
  const int64_t before = traffic(producer->ops, count, {});
  auto savedBy = [&](const Given &given) {
    llvm::SetVector<Operation *> left;
    llvm::MapVector<Group *, llvm::SetVector<Operation *>> larger;
    for (Operation *op : ops) {
      auto it = given.find(op);
      if (it == given.end())
        left.insert(op);
      else
        for (Group *reader : it->second) {
          larger[reader].insert(reader->ops.begin(), reader->ops.end());
          larger[reader].insert(op);
        }
    }
    int64_t saved = before - traffic(left, count, given);
    for (auto &[reader, all] : larger)
      saved += traffic(reader->ops, count, {}) - traffic(all, count, given);
    return saved;
  };
  // From the last one on, as far as it does no harm: an op may pay only with the one before it.
  Given given, best;
  int64_t saved = 0, bestSaved = 0;
  for (Operation *op : ops) {
    Given more = given;
    if (!mayGiveToReaders(producer, op, more))
      continue;
    int64_t now = savedBy(more);
    if (now < saved)
      continue;
    given = std::move(more);
    saved = now;
    if (saved > bestSaved) {
      best = given;
      bestSaved = saved;
    }
  }

  // An op comes after those that it feeds, so their copies exist already.
  for (Operation *op : ops) {
    auto it = best.find(op);
    if (it == best.end())
      continue;
    producer->ops.remove(op);
    for (Group *reader : it->second) {
      Operation *own = op;
      if (reader != it->second.back()) {
        own = OpBuilder(op).clone(*op);
        position[own] = position[op];
        op->replaceUsesWithIf(own, [&](OpOperand &use) { return groupOf(use.getOwner()) == reader; });
      }
      reader->ops.insert(own);
      groups[own] = reader;
    }
  }
  return bestSaved > 0;
}

void Fuser::build() {
  // Groups in an order that respects data flow, the earliest first.
  SmallVector<Group *> order;
  DenseSet<Group *> done;
  std::function<void(Group *)> visit = [&](Group *group) {
    if (!done.insert(group).second)
      return;
    SmallVector<Group *> producers = producersOf(group);
    llvm::sort(producers, [&](Group *a, Group *c) { return position[a->ops.front()] < position[c->ops.front()]; });
    for (Group *producer : producers)
      visit(producer);
    order.push_back(group);
  };
  for (Operation &op : block)
    if (Group *group = groupOf(&op))
      visit(group);

  Operation *firstSink = nullptr;
  for (Operation &op : block)
    if (isSink(&op) && !isa<CheckIndexOp, CheckSizeOp>(op)) {
      firstSink = &op;
      break;
    }
  OpBuilder b(firstSink);
  DenseMap<Value, Value> inMemory; // a group's value, as the result of its kernel
  auto memoryValue = [&](Value value) { return inMemory.lookup(value) ? inMemory.lookup(value) : value; };

  for (Group *group : order) {
    if (group->kind == Group::Control) {
      Operation *control = group->ops.front();
      control->moveBefore(firstSink);
      control->walk([&](Operation *op) {
        for (OpOperand &operand : op->getOpOperands())
          operand.set(memoryValue(operand.get()));
      });
      continue;
    }
    SmallVector<Operation *> ops(group->ops.begin(), group->ops.end());
    llvm::sort(ops, [&](Operation *a, Operation *c) { return position[a] < position[c]; });
    // Everything from outside, in the order of use.
    llvm::SetVector<Value> inputs;
    DenseSet<Operation *> visited;
    std::function<void(Operation *)> collect = [&](Operation *op) {
      for (Value operand : op->getOperands()) {
        Operation *def = operand.getDefiningOp();
        if (def && isRepeated(def)) {
          if (visited.insert(def).second)
            collect(def);
        } else if (!def || groupOf(def) != group) {
          inputs.insert(memoryValue(operand));
        }
      }
    };
    for (Operation *op : ops)
      collect(op);
    SmallVector<Value> outputs;
    SmallVector<Location> locations;
    for (Operation *op : ops)
      for (Value result : op->getResults())
        if (leaves(result, group->ops))
          outputs.push_back(result);
    if (outputs.empty())
      continue; // dead
    auto alone = dyn_cast<KernelOpInterface>(ops.front());
    if (alone) // writes all its results, wanted or not
      outputs.assign(alone->result_begin(), alone->result_end());

    Operation *head = ops.front();
    for (Operation *op : ops)
      if (isa<ContractionOpInterface>(op))
        head = op;
    bool reducesLast = group->kind == Group::Reduce && llvm::is_contained(group->reduced, static_cast<int64_t>(group->full.size()) - 1);
    StringRef schedule = alone                                  ? alone.getSchedule()
                         : isa<ScatterOpInterface>(ops.front()) ? "scatter"
                         : group->kind == Group::Gemm           ? "gemm"
                         : group->kind == Group::Loop           ? "loop"
                         : reducesLast                          ? "rows"
                                                                : "columns";
    auto fused = FusedOp::create(b, head->getLoc(), ValueRange(outputs).getTypes(), schedule, inputs.getArrayRef());
    Block *body = b.createBlock(&fused.getBody());
    IRMapping mapping;
    for (Value input : inputs)
      mapping.map(input, body->addArgument(input.getType(), input.getLoc()));
    OpBuilder inner = OpBuilder::atBlockEnd(body);
    std::function<Value(Value)> inside = [&](Value value) -> Value {
      if (Value known = mapping.lookupOrNull(value))
        return known;
      Value lying = memoryValue(value);
      if (Value known = mapping.lookupOrNull(lying))
        return known;
      Operation *def = value.getDefiningOp();
      for (Value operand : def->getOperands())
        mapping.map(operand, inside(operand));
      inner.clone(*def, mapping);
      return mapping.lookup(value);
    };
    std::string name;
    unsigned named = 0;
    for (Operation *op : ops) {
      for (Value operand : op->getOperands())
        mapping.map(operand, inside(operand));
      inner.clone(*op, mapping);
      if (named++ < 6)
        name += (name.empty() ? "" : "_") + (alone ? alone.getKernelName() : op->getName().stripDialect().str());
    }
    SmallVector<Value> yielded;
    for (Value output : outputs)
      yielded.push_back(mapping.lookup(output));
    YieldOp::create(inner, head->getLoc(), yielded);
    fused->setAttr("name", b.getStringAttr(name));
    b.setInsertionPoint(firstSink);
    for (auto [output, result] : llvm::zip(outputs, fused.getResults()))
      inMemory[output] = result;
    ++kernels;
    if (group->kind == Group::Gemm) {
      epilogues += ops.size() - 1;
      for (Value output : outputs)
        updates += llvm::any_of(output.getUsers(), [](Operation *user) { return isa<AssignOp>(user); });
    }
  }

  // Sinks read what kernels leave in memory; all else goes.
  for (Operation &op : block)
    if (isSink(&op))
      for (OpOperand &operand : op.getOpOperands())
        operand.set(memoryValue(operand.get()));
  // Labels that are computed are checked once they are there, in the order of the text.
  Operation *last = nullptr;
  for (auto check : llvm::to_vector(block.getOps<CheckIndexOp>())) {
    Operation *place = check.getX().getDefiningOp();
    if (!place || place->getBlock() != &block)
      place = last;
    else if (last && place->isBeforeInBlock(last))
      place = last;
    if (place && check->isBeforeInBlock(place))
      check->moveAfter(place);
    last = check;
  }
  for (Operation &op : llvm::make_early_inc_range(llvm::reverse(block)))
    if (!isSink(&op) && !isa<FusedOp, ForOp, IfOp>(op) && op.use_empty())
      op.erase();
}

void Fuser::run() {
  sinkRepeated();
  for (Operation &op : block)
    if (isControl(&op))
      for (Region &region : op.getRegions()) {
        Fuser inner(region.front());
        inner.run();
        kernels += inner.kernels;
        epilogues += inner.epilogues;
        updates += inner.updates;
      }
  splitFullReductions();
  keepWhatMustBeInMemory();
  formGroups();
  merge();
  for (bool changed = true; changed;) {
    changed = false;
    for (auto &group : storage)
      if (!group->ops.empty() && group->kind != Group::Alone && group->kind != Group::Control)
        changed |= giveToReaders(group.get());
  }
  build();
}

struct Fuse : impl::FuseBase<Fuse> {
  void runOnOperation() override {
    for (auto function : getOperation().getBody().front().getOps<FuncOp>()) {
      Fuser fuser(function.getBody().front());
      fuser.run();
      kernels += fuser.kernels;
      epilogues += fuser.epilogues;
      updates += fuser.updates;
    }
  }
};
} // namespace
} // namespace dlc
