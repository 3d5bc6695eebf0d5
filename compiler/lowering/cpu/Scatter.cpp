//===- Scatter.cpp - updates of a value at places that tensors of indices name -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Who computes an element owns it: a unit of work has a range of places, a segment of the last axis (where that is not indexed) and one index along each of the
// other axes. It reads all indices in their order and applies the updates that are its own, so an element sees them in that order whatever the number of tasks.
// Reading the indices again in every unit costs O(indices * units); there are few units where an update has few elements (planScatter). Where `into` does not lie where the
// result does, a unit first copies what it owns.

#include "compiler/lowering/cpu/KernelEmitter.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/SCF/IR/SCF.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc::cpu {

/// Elements of an update that a unit has at least: below that, reading the indices would take longer than the updates.
static constexpr int64_t leastSegment = 64;
/// Units that make enough tasks for any number of threads.
static constexpr int64_t enoughUnits = 16;

static Value constantIndex(OpBuilder &b, Location loc, int64_t n) { return arith::ConstantIndexOp::create(b, loc, n); }

static AffineExpr sizeOf(ArrayRef<AffineExpr> full, ArrayRef<int64_t> axes, MLIRContext *context) {
  return productOf(llvm::map_to_vector(axes, [&](int64_t axis) { return full[axis]; }), context);
}

void KernelEmitter::planScatter() {
  MLIRContext *context = kernel.getContext();
  kept = otherAxes(full.size(), scatter.getAxes());
  bool isLastKept = !kept.empty() && kept.back() == static_cast<int64_t>(full.size()) - 1;
  AffineExpr places = sizeOf(full, scatter.getAxes(), context), updates = elementCount(cast<RankedTensorType>(scatter.getIndices().front().getType()));
  int64_t length = isLastKept ? likelySize(full.back()) : 1;
  int64_t others = std::max<int64_t>(1, likelySize(sizeOf(full, isLastKept ? ArrayRef(kept).drop_back() : ArrayRef(kept), context)));
  auto ceilDiv = [](int64_t n, int64_t by) { return (n + by - 1) / by; };
  if (isLastKept) {
    Type element = memoryType(getElementTypeOrSelf(scatter->getResult(0).getType()));
    int64_t native = cpu.lanes(element);
    // Neighbours in the result are neighbours among the updates, unless the indices' axes come behind.
    bool isLastOfUpdates = scatter.getPosition() < kept.size() || cast<RankedTensorType>(scatter.getIndices().front().getType()).getRank() == 0;
    ElementEmitter::Vectors vectors = ElementEmitter::vectors(kernel);
    lanes = length < 4 || !isLastOfUpdates ? 1 : std::min(native, vectors.longest);
    if (lanes == native && vectors.longest >= 2 * native && length % (2 * native) == 0 && !vectors.areLaneByLane)
      lanes = 2 * native;
    // In multiples of what leastSegment is one of, so that segments begin where vectors do.
    segment = length;
    if (others < enoughUnits)
      segment = std::max(leastSegment, ceilDiv(length * others, enoughUnits * leastSegment) * leastSegment);
    segment = std::max(segment, lanes);
  }
  // Long updates in few segments: the places in ranges too.
  int64_t units = others * (isLastKept ? std::max<int64_t>(1, ceilDiv(length, segment)) : 1);
  bool isOne = updates == getAffineConstantExpr(1, context);
  if (!isOne && units < enoughUnits / 2)
    slotRanges = std::clamp<int64_t>(std::min({enoughUnits / 2 / units, length * others / 8, likelySize(places)}), 1, enoughUnits / 2);
}

/// Does the result lie where what is changed did?
static bool isInPlace(FusedOp kernel, ScatterOpInterface scatter) {
  auto argument = dyn_cast<BlockArgument>(scatter.getInto());
  auto inputs = kernel->getAttrOfType<DenseI64ArrayAttr>("input_buffers"), results = kernel->getAttrOfType<DenseI64ArrayAttr>("result_buffers");
  return argument && inputs[argument.getArgNumber()] == results[0];
}

/// Elements along the indexed axes that a unit of one range writes and updates, for each element of its segment.
int64_t KernelEmitter::scatterLength() const {
  AffineExpr updates = elementCount(cast<RankedTensorType>(scatter.getIndices().front().getType()));
  int64_t copied = isInPlace(kernel, scatter) ? 0 : likelySize(sizeOf(full, scatter.getAxes(), kernel.getContext()));
  return std::max<int64_t>(1, copied + likelySize(updates));
}

void KernelEmitter::emitScatter(OpBuilder &b, FrameAccess &frame, ElementEmitter &elements, Value from, Value to) const {
  Location loc = kernel.getLoc();
  MLIRContext *context = b.getContext();
  auto type = cast<RankedTensorType>(scatter->getResult(0).getType());
  ArrayRef<int64_t> axes = scatter.getAxes();
  int64_t rank = full.size(), position = scatter.getPosition();
  bool isLastKept = segment != 0;
  Value memory = frame.buffer(kernel->getAttrOfType<DenseI64ArrayAttr>("result_buffers")[0], type.getElementType());
  auto size = [&](AffineExpr expr) { return frame.size(expr); };
  auto mul = [&](OpBuilder &o, Value x, Value y) -> Value { return arith::MulIOp::create(o, loc, x, y); };
  auto add = [&](OpBuilder &o, Value x, Value y) -> Value { return arith::AddIOp::create(o, loc, x, y); };
  auto sub = [&](OpBuilder &o, Value x, Value y) -> Value { return arith::SubIOp::create(o, loc, x, y); };
  auto divide = [&](OpBuilder &o, Value x, Value y) -> Value { return arith::DivUIOp::create(o, loc, x, y); };
  auto less = [&](OpBuilder &o, Value x, Value y) -> Value { return arith::MinUIOp::create(o, loc, x, y); };
  /// Takes the quotient of `number`, which keeps the remainder.
  auto split = [&](OpBuilder &o, Value &number, AffineExpr inner) {
    Value quotient = divide(o, number, size(inner));
    number = sub(o, number, mul(o, quotient, size(inner)));
    return quotient;
  };

  auto units = scf::ForOp::create(b, loc, from, to, constantIndex(b, loc, 1));
  OpBuilder u = OpBuilder::atBlockBegin(units.getBody());
  elements.pushScope();
  Value unit = units.getInductionVar();

  // The unit's indices along the other axes, its segment, its places.
  SmallVector<int64_t> outer(kept);
  AffineExpr segments = getAffineConstantExpr(1, context), ranges = getAffineConstantExpr(slotRanges, context);
  if (isLastKept) {
    outer.pop_back();
    segments = full[rank - 1].ceilDiv(segment);
  }
  SmallVector<Value> fixed(rank);
  for (size_t i = 0; i < outer.size(); ++i)
    fixed[outer[i]] = split(u, unit, normalizeSize(sizeOf(full, ArrayRef(outer).drop_front(i + 1), context) * segments * ranges));
  Value first, end;
  if (isLastKept) {
    Value number = split(u, unit, ranges);
    first = mul(u, number, constantIndex(u, loc, segment));
    end = less(u, add(u, first, constantIndex(u, loc, segment)), size(full[rank - 1]));
    // Stands for the last index where only the others are asked for.
    fixed[rank - 1] = first;
  }
  AffineExpr places = sizeOf(full, axes, context), inRange = normalizeSize(places.ceilDiv(slotRanges));
  Value firstPlace = less(u, mul(u, unit, size(inRange)), size(places)), endPlace = less(u, add(u, firstPlace, size(inRange)), size(places));
  auto constant = isLastKept ? dyn_cast<AffineConstantExpr>(full[rank - 1]) : AffineConstantExpr();
  bool divides = constant && constant.getValue() % lanes == 0 && segment % lanes == 0;

  /// Calls `body` for the unit's elements at `dims`: its segment in vectors, or the one.
  auto along = [&](OpBuilder &o, ArrayRef<Value> dims, llvm::function_ref<void(OpBuilder &, const ElementIndex &, Value, int64_t, Value)> body) {
    ElementIndex at;
    at.dims.assign(dims.begin(), dims.end());
    if (!isLastKept) {
      elements.pushScope();
      body(o, at, {}, 1, {});
      elements.popScope();
      return;
    }
    vectorLoop(o, loc, elements, first, end, lanes, divides, {}, [&](OpBuilder &v, Value column, Value mask, ValueRange) {
      ElementIndex here = at;
      here.dims[rank - 1] = column;
      body(v, here, column, lanes, mask);
      return Carried();
    });
  };

  if (!isInPlace(kernel, scatter)) {
    auto loop = scf::ForOp::create(u, loc, firstPlace, endPlace, constantIndex(u, loc, 1));
    OpBuilder o = OpBuilder::atBlockBegin(loop.getBody());
    elements.pushScope();
    SmallVector<Value> dims = fixed;
    Value place = loop.getInductionVar();
    for (size_t i = 0; i < axes.size(); ++i)
      dims[axes[i]] = i + 1 == axes.size() ? place : split(o, place, sizeOf(full, axes.drop_front(i + 1), context));
    along(o, dims, [&](OpBuilder &e, const ElementIndex &at, Value, int64_t count, Value mask) {
      Value old = elements.element(e, scatter.getInto(), at, count, mask);
      elements.store(e, memory, type, at, old, mask);
    });
    elements.popScope();
  }

  // The updates, in the order of the indices.
  SmallVector<AffineExpr> shape = sizesOf(scatter.getIndices().front());
  std::function<void(OpBuilder &, SmallVector<Value>)> nest = [&](OpBuilder &o, SmallVector<Value> indices) {
    if (indices.size() < shape.size()) {
      auto loop = scf::ForOp::create(o, loc, constantIndex(o, loc, 0), size(shape[indices.size()]), constantIndex(o, loc, 1));
      OpBuilder inner = OpBuilder::atBlockBegin(loop.getBody());
      elements.pushScope();
      indices.push_back(loop.getInductionVar());
      nest(inner, indices);
      elements.popScope();
      return;
    }
    // The update's indices: the other axes', with these among them.
    SmallVector<Value> update;
    for (int64_t axis : kept)
      update.push_back(fixed[axis]);
    update.insert(update.begin() + position, indices.begin(), indices.end());
    Value exists;
    SmallVector<Value> place = scatter.lookUpIndices(o, loc, update, size, [&](Value tensor, ValueRange at) { return elements.indexElement(o, tensor, at); }, exists);
    if (slotRanges > 1) {
      Value number;
      for (int64_t axis : axes)
        number = number ? add(o, mul(o, number, size(full[axis])), place[axis]) : place[axis];
      Value isOwn = arith::CmpIOp::create(o, loc, arith::CmpIPredicate::ult, sub(o, number, firstPlace), sub(o, endPlace, firstPlace));
      exists = exists ? arith::AndIOp::create(o, loc, exists, isOwn).getResult() : isOwn;
    }
    OpBuilder yes = scf::IfOp::create(o, loc, exists, /*withElseRegion=*/false).getThenBodyBuilder();
    elements.pushScope();
    along(yes, place, [&](OpBuilder &e, const ElementIndex &at, Value column, int64_t count, Value mask) {
      ElementIndex from;
      for (int64_t axis : kept)
        from.dims.push_back(axis == rank - 1 ? column : fixed[axis]);
      from.dims.insert(from.dims.begin() + position, indices.begin(), indices.end());
      Value changed = elements.element(e, scatter.getUpdates(), from, count, mask);
      changed = scatter.buildUpdate(e, loc, elements.read(e, memory, type, at, count, mask), changed);
      elements.store(e, memory, type, at, changed, mask);
    });
    elements.popScope();
  };
  nest(u, {});
  elements.popScope();
}

} // namespace dlc::cpu
