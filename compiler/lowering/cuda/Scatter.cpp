//===- Scatter.cpp - updates of a value at places that tensors of indices name -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Who computes an element owns it, so no two threads meet at one and an element sees its updates in the order of the indices: sums have the same bits as on the CPU. A warp
// has 32 neighbouring elements of an update, one for each lane, and a range of places. It reads all indices, 32 at a time, and a ballot says which of them are its
// own. With E elements in an update and U indices that costs O(U / 32) steps in each of E / 32 * slotRanges warps, and one step more for each update that is applied.
// Where one range is all there is to deal out, every index is a warp's own and nothing is asked.

#include "compiler/lowering/cuda/KernelEmitter.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc::cuda {

static constexpr int64_t warpThreads = 32, warps = blockThreads / warpThreads;
/// Warps that keep a device busy, and ranges beyond which reading the indices takes longer than applying updates.
static constexpr int64_t enoughWarps = 2048, mostRanges = 128;

static Value constantIndex(OpBuilder &b, Location loc, int64_t n) { return arith::ConstantIndexOp::create(b, loc, n); }
static std::optional<int64_t> constantOf(AffineExpr size) {
  auto constant = dyn_cast<AffineConstantExpr>(normalizeSize(size));
  return constant ? std::optional(constant.getValue()) : std::nullopt;
}

static AffineExpr sizeOf(ArrayRef<AffineExpr> full, ArrayRef<int64_t> axes, MLIRContext *context) {
  return productOf(llvm::map_to_vector(axes, [&](int64_t axis) { return full[axis]; }), context);
}

void KernelEmitter::planScatter() {
  MLIRContext *context = kernel.getContext();
  full = sizesOf(scatter->getResult(0));
  kept = otherAxes(full.size(), scatter.getAxes());
  auto argument = dyn_cast<BlockArgument>(scatter.getInto());
  auto inputs = kernel->getAttrOfType<DenseI64ArrayAttr>("input_buffers"), outputs = kernel->getAttrOfType<DenseI64ArrayAttr>("result_buffers");
  copiesFirst = !argument || inputs[argument.getArgNumber()] != outputs[0];
  // The copy is a loop over what is changed.
  SmallVector<Operation *> copied;
  std::function<void(Value)> visit = [&](Value value) {
    Operation *def = value.getDefiningOp();
    if (!def || llvm::is_contained(copied, def))
      return;
    for (Value operand : def->getOperands())
      visit(operand);
    copied.push_back(def);
  };
  visit(scatter.getInto());
  planLoop(copied);

  std::optional<int64_t> elements = constantOf(keptPoints()), places = constantOf(sizeOf(full, scatter.getAxes(), context));
  bool isOne = cast<RankedTensorType>(scatter.getIndices().front().getType()).getRank() == 0;
  if (!isOne && elements)
    slotRanges = std::clamp<int64_t>(std::min(enoughWarps / std::max<int64_t>(1, (*elements + warpThreads - 1) / warpThreads), places.value_or(mostRanges)), 1, mostRanges);
}

void KernelEmitter::emitScatter(OpBuilder &b, KernelAccess &access, ElementEmitter &elements, Value block) const {
  Location loc = kernel.getLoc();
  MLIRContext *context = b.getContext();
  auto type = cast<RankedTensorType>(scatter->getResult(0).getType());
  Value memory = access.buffer(kernel->getAttrOfType<DenseI64ArrayAttr>("result_buffers")[0], type.getElementType());
  ArrayRef<int64_t> axes = scatter.getAxes();
  int64_t position = scatter.getPosition();
  SmallVector<AffineExpr> shape = sizesOf(scatter.getIndices().front()), keptShape;
  for (int64_t axis : kept)
    keptShape.push_back(full[axis]);
  auto size = [&](AffineExpr expr) { return access.size(normalizeSize(expr)); };
  auto number = [&](OpBuilder &o, int64_t n) { return constantIndex(o, loc, n); };
  auto add = [&](OpBuilder &o, Value x, Value y) -> Value { return arith::AddIOp::create(o, loc, x, y); };
  auto sub = [&](OpBuilder &o, Value x, Value y) -> Value { return arith::SubIOp::create(o, loc, x, y); };
  auto mul = [&](OpBuilder &o, Value x, Value y) -> Value { return arith::MulIOp::create(o, loc, x, y); };
  auto least = [&](OpBuilder &o, Value x, Value y) -> Value { return arith::MinUIOp::create(o, loc, x, y); };
  auto isLess = [&](OpBuilder &o, Value x, Value y) -> Value { return arith::CmpIOp::create(o, loc, arith::CmpIPredicate::ult, x, y); };
  auto both = [&](OpBuilder &o, Value x, Value y) -> Value { return arith::AndIOp::create(o, loc, x, y); };

  Value thread = access.thread(), lane = arith::RemUIOp::create(b, loc, thread, number(b, warpThreads));
  Value warp = add(b, mul(b, block, number(b, warps)), arith::DivUIOp::create(b, loc, thread, number(b, warpThreads)));
  Value groups = size(keptPoints().ceilDiv(warpThreads));
  Value group = slotRanges == 1 ? warp : arith::DivUIOp::create(b, loc, warp, number(b, slotRanges)).getResult();
  // All lanes of a warp come along: they vote.
  OpBuilder w = scf::IfOp::create(b, loc, isLess(b, group, groups), /*withElseRegion=*/false).getThenBodyBuilder();
  elements.pushScope();
  AffineExpr places = sizeOf(full, axes, context), inRange = normalizeSize(places.ceilDiv(slotRanges));
  Value firstPlace, countPlaces;
  if (slotRanges > 1) {
    firstPlace = mul(w, sub(w, warp, mul(w, group, number(w, slotRanges))), size(inRange));
    countPlaces = size(inRange);
  }
  Value element = add(w, mul(w, group, number(w, warpThreads)), lane);
  Value isElement = isLess(w, element, size(keptPoints()));
  element = least(w, element, sub(w, size(keptPoints()), number(w, 1)));
  SmallVector<Value> fixed = indicesOf(w, loc, access, keptShape, element);
  Value count = size(productOf(shape, context));

  // Where update number `update` goes, and whether it is the warp's own.
  auto lookUp = [&](OpBuilder &o, Value update, SmallVector<Value> &from, Value &isOwn) {
    from = fixed;
    SmallVector<Value> indices = indicesOf(o, loc, access, shape, update);
    from.insert(from.begin() + position, indices.begin(), indices.end());
    SmallVector<Value> place = scatter.lookUpIndices(o, loc, from, size, [&](Value tensor, ValueRange at) { return elements.indexElement(o, tensor, at); }, isOwn);
    if (slotRanges > 1) {
      Value number;
      for (int64_t axis : axes)
        number = number ? add(o, mul(o, number, size(full[axis])), place[axis]) : place[axis];
      Value isInRange = isLess(o, sub(o, number, firstPlace), countPlaces);
      isOwn = isOwn ? both(o, isOwn, isInRange) : isInRange;
    }
    return place;
  };
  auto apply = [&](OpBuilder &o, Value update) {
    elements.pushScope();
    SmallVector<Value> from;
    Value isOwn;
    ElementIndex to, at;
    to.dims = lookUp(o, update, from, isOwn);
    at.dims.assign(from.begin(), from.end());
    OpBuilder yes = scf::IfOp::create(o, loc, both(o, isOwn, isElement), /*withElseRegion=*/false).getThenBodyBuilder();
    elements.pushScope();
    Value changed = elements.element(yes, scatter.getUpdates(), at, 1, {});
    changed = scatter.buildUpdate(yes, loc, elements.read(yes, memory, type, to, 1, {}), changed);
    elements.store(yes, memory, type, to, changed, {});
    elements.popScope();
    elements.popScope();
  };

  if (slotRanges == 1) {
    auto loop = scf::ForOp::create(w, loc, number(w, 0), count, number(w, 1));
    OpBuilder o = OpBuilder::atBlockBegin(loop.getBody());
    apply(o, loop.getInductionVar());
    elements.popScope();
    return;
  }
  auto loop = scf::ForOp::create(w, loc, number(w, 0), count, number(w, warpThreads));
  OpBuilder o = OpBuilder::atBlockBegin(loop.getBody());
  elements.pushScope();
  Value first = loop.getInductionVar(), own = add(o, first, lane), isOwn;
  Value isUpdate = isLess(o, own, count);
  SmallVector<Value> ignored;
  lookUp(o, least(o, own, sub(o, count, number(o, 1))), ignored, isOwn);
  auto word = [&](OpBuilder &o, int32_t n) -> Value { return arith::ConstantOp::create(o, loc, o.getI32IntegerAttr(n)); };
  Value votes = NVVM::VoteSyncOp::create(o, loc, o.getI32Type(), word(o, -1), both(o, isUpdate, isOwn), NVVM::VoteSyncKind::ballot);
  // The lowest bit first: the order of the indices.
  auto next = scf::WhileOp::create(o, loc, TypeRange{o.getI32Type()}, ValueRange{votes});
  {
    Block *before = o.createBlock(&next.getBefore(), {}, {o.getI32Type()}, {loc});
    OpBuilder c = OpBuilder::atBlockEnd(before);
    Value left = before->getArgument(0);
    scf::ConditionOp::create(c, loc, arith::CmpIOp::create(c, loc, arith::CmpIPredicate::ne, left, word(c, 0)), ValueRange{left});
    Block *after = o.createBlock(&next.getAfter(), {}, {o.getI32Type()}, {loc});
    OpBuilder a = OpBuilder::atBlockEnd(after);
    Value rest = after->getArgument(0);
    Value bit = math::CountTrailingZerosOp::create(a, loc, rest);
    apply(a, add(a, first, arith::IndexCastOp::create(a, loc, a.getIndexType(), bit)));
    scf::YieldOp::create(a, loc, ValueRange{arith::AndIOp::create(a, loc, rest, arith::SubIOp::create(a, loc, rest, word(a, 1)))});
  }
  elements.popScope();
  elements.popScope();
}

} // namespace dlc::cuda
