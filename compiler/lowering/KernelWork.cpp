//===- KernelWork.cpp - how much a kernel computes and moves -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/lowering/KernelWork.h"
#include "compiler/lowering/ElementEmitter.h"
#include "compiler/transforms/ElementCost.h"
#include "llvm/ADT/MapVector.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc {

static RankedTensorType typeOf(Value value) { return cast<RankedTensorType>(value.getType()); }
static AffineExpr elements(Value value) { return elementCount(typeOf(value)); }
static int64_t bytesOfElement(Value value) { return memoryType(typeOf(value).getElementType()).getIntOrFloatBitWidth() / 8; }

/// How many of `all` elements are looked at in so many places: no more than there are, as far as algebra says so.
static AffineExpr lookedAt(AffineExpr all, AffineExpr places) { return isKnownAtLeast(places, all) ? all : places; }

int64_t elementaryFunctions(FusedOp kernel) {
  int64_t sum = 0;
  for (auto op : kernel.getBody().front().getOps<ElementwiseOpInterface>())
    sum += elementaryFunctions(op);
  return sum;
}

/// Multiply-adds of a product.
static AffineExpr multiplyAdds(ContractionOpInterface op) {
  MLIRContext *context = op->getContext();
  if (auto convolution = dyn_cast<ConvolutionOp>(op.getOperation())) {
    SmallVector<AffineExpr> weight = sizesOf(convolution.getTypeOf(ConvolutionResult::weight));
    return elementCount(convolution.getTypeOf(ConvolutionResult::output)) * productOf(ArrayRef(weight).drop_front(), context);
  }
  auto product = cast<MatmulOp>(op.getOperation());
  SmallVector<AffineExpr> lhs = sizesOf(product.getLhs());
  return elementCount(typeOf(product.getResult())) * lhs[lhs.size() - (product.getLhsTransposed() ? 2 : 1)];
}

/// Of attention, and of its gradient, which computes the scores again: the multiply-adds of each score's products with rows of q, k, v and their cotangents, and what becomes of the score between them.
static AffineExpr attentionOperations(const AttentionOperands &of, bool isGradient) {
  SmallVector<AffineExpr> q = sizesOf(of.q), k = sizesOf(of.k), v = sizesOf(of.v); // [batch, rows, heads, width]
  AffineExpr rows = q[1], keys = k[1], scores = of.isCausal && rows == keys ? (rows * (rows + 1)).floorDiv(2) : rows * keys;
  AffineExpr products = isGradient ? (q[3] * 3 + v[3] * 2) * 2 : (q[3] + v[3]) * 2;
  constexpr int64_t between = 4; // scaled, less the largest or the logsumexp, its exponential; added up, or made the score's cotangent
  return q[0] * q[2] * scores * (products + between);
}

static AffineExpr operationsOf(Operation *op) {
  if (auto attention = dyn_cast<AttentionOp>(op))
    return attentionOperations(attention.getAttention(), /*isGradient=*/false);
  if (auto gradient = dyn_cast<AttentionGradientOp>(op))
    return attentionOperations(gradient.getAttention(), /*isGradient=*/true);
  if (auto product = dyn_cast<ContractionOpInterface>(op))
    return multiplyAdds(product) * 2;
  if (auto elementwise = dyn_cast<ElementwiseOpInterface>(op))
    return elements(op->getResult(0)) * countMade(elementwise, floatOperations);
  if (auto reduction = dyn_cast<ReductionOpInterface>(op)) {
    Type type = op->getOperand(0).getType();
    return elements(op->getOperand(0)) * countMade(op, {type, type}, [&](OpBuilder &b, ValueRange values) { reduction.buildCombine(b, op->getLoc(), values[0], values[1]); }, floatOperations);
  }
  if (auto scatter = dyn_cast<ScatterOpInterface>(op)) {
    Type type = scatter.getUpdates().getType();
    return elements(scatter.getUpdates()) * countMade(op, {type, type}, [&](OpBuilder &b, ValueRange values) { scatter.buildUpdate(b, op->getLoc(), values[0], values[1]); }, floatOperations);
  }
  return getAffineConstantExpr(0, op->getContext()); // it moves elements, or makes them of nothing
}

static AffineExpr elementsRead(Value value);

/// How many elements of a value one use of it reads.
static AffineExpr elementsRead(OpOperand &use) {
  AffineExpr all = elements(use.get()), none = getAffineConstantExpr(0, all.getContext());
  Operation *user = use.getOwner();
  if (isa<AfterOp>(user) && use.getOperandNumber() != 0)
    return none;
  if (isa<IndexingOpInterface>(user) && use.getOperandNumber() == 0)
    return lookedAt(all, elementsRead(user->getResult(0))); // of what is moved on, perhaps only a part
  if (isa<UpdateOpInterface>(user) && use.getOperandNumber() == 0)
    return none;
  if (auto scatter = dyn_cast<ScatterOpInterface>(user))
    if (use.get() == scatter.getInto())
      return lookedAt(all, elements(scatter.getUpdates()));
  return all;
}

/// How many all uses of it read together.
static AffineExpr elementsRead(Value value) {
  AffineExpr all = elements(value), read;
  for (OpOperand &use : value.getUses())
    read = read ? read + elementsRead(use) : elementsRead(use);
  return read ? lookedAt(all, normalizeSize(read)) : getAffineConstantExpr(0, all.getContext());
}

static AffineExpr elementsWritten(Value yielded) {
  if (auto scatter = yielded.getDefiningOp<ScatterOpInterface>())
    return lookedAt(elements(yielded), elements(scatter.getUpdates()));
  return elements(computedValue(yielded));
}

namespace {
struct Work {
  explicit Work(MLIRContext *context) : operations(getAffineConstantExpr(0, context)), read(operations), written(operations) {}
  /// False where the kernel is code of the user's own.
  bool add(FusedOp kernel);
  AffineExpr operations, read, written; // the latter in bytes
  dl_dtype dtype = DL_F32;
};
} // namespace

bool Work::add(FusedOp kernel) {
  Block &body = kernel.getBody().front();
  for (Operation &op : body.without_terminator()) {
    if (isa<ExternOp>(op))
      return false;
    operations = operations + operationsOf(&op);
    for (Value value : op.getOperands())
      if (typeOf(value).getRank() && typeOf(value).getElementType().isF64())
        dtype = DL_F64; // a scalar, such as a rate, does not decide
  }
  llvm::MapVector<Value, AffineExpr> places; // a value may be several operands
  for (auto [argument, value] : llvm::zip(body.getArguments(), kernel.getInputs()))
    for (OpOperand &use : argument.getUses()) {
      AffineExpr &sum = places[value];
      AffineExpr all = elements(value);
      sum = lookedAt(all, normalizeSize(sum ? sum + elementsRead(use) : elementsRead(use)));
    }
  for (auto &[value, count] : places)
    read = read + count * bytesOfElement(value);
  for (Value yielded : cast<YieldOp>(body.getTerminator()).getOperands())
    written = written + elementsWritten(yielded) * bytesOfElement(yielded);
  return true;
}

std::optional<WorkDescription> workOf(ArrayRef<Operation *> nodes) {
  Work work(nodes.front()->getContext());
  for (Operation *node : nodes) {
    auto kernel = dyn_cast<FusedOp>(node);
    if (!kernel) {
      Value looked = cast<CheckIndexOp>(node).getX();
      work.read = work.read + elements(looked) * bytesOfElement(looked);
    } else if (!work.add(kernel)) {
      return std::nullopt;
    }
  }
  return WorkDescription{Size(normalizeSize(work.operations)), Size(normalizeSize(work.read)), Size(normalizeSize(work.written)), work.dtype};
}

} // namespace dlc
