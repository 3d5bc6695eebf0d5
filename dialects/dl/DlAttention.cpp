//===- DlAttention.cpp - attention, its gradient, and both as products and a softmax -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A target with a kernel for the two ops never has a score in memory. Here is what they are made of where there is none, and of what second derivatives are made: tensors of T x S scores.

#include "dialects/dl/DlExpr.h"

using namespace mlir;
using namespace dlc::dl;

/// Widths of heads that kernels are made for; on a GPU, bytes, as six tiles of rows have to find room in a block's shared memory.
static constexpr int64_t widestHead = 256, widestHeadOnGpu = 512;

//===--- types and verifiers ---===//

static RankedTensorType typeOf(Value value) { return value ? cast<RankedTensorType>(value.getType()) : RankedTensorType(); }

LogicalResult AttentionOp::inferReturnTypes(MLIRContext *, std::optional<Location> location, ValueRange operands, DictionaryAttr, OpaqueProperties properties, RegionRange,
                                            SmallVectorImpl<Type> &results) {
  auto *settings = properties.as<Properties *>();
  auto types = attentionTypes(location, typeOf(operands[0]), typeOf(operands[1]), typeOf(operands[2]), operands.size() > 3 ? typeOf(operands[3]) : RankedTensorType(),
                              settings && settings->causal);
  if (failed(types))
    return failure();
  results.append({types->first, types->second});
  return success();
}
LogicalResult AttentionOp::verify() { return success(); } // the inferred types say it all

LogicalResult AttentionGradientOp::inferReturnTypes(MLIRContext *, std::optional<Location>, ValueRange operands, DictionaryAttr, OpaqueProperties, RegionRange,
                                                    SmallVectorImpl<Type> &results) {
  for (Value operand : operands.take_front(3))
    results.push_back(operand.getType());
  return success();
}
LogicalResult AttentionGradientOp::verify() {
  AttentionOperands of = getAttention();
  auto types = attentionTypes(getLoc(), typeOf(of.q), typeOf(of.k), typeOf(of.v), typeOf(of.mask), of.isCausal);
  if (failed(types))
    return failure();
  if (getDy().getType() != types->first || getLogsumexp().getType() != types->second || getDelta().getType() != types->second)
    return emitOpError() << "has a cotangent " << getDy().getType() << " with rows " << getLogsumexp().getType() << " and " << getDelta().getType() << "; attention has " << types->first
                         << " with rows " << types->second;
  return success();
}

//===--- kernels ---===//

/// Do kernels know attention of these operands?
static bool hasKernel(const AttentionOperands &of, bool isGpu) {
  Type element = getElementTypeOrSelf(of.q);
  return isa<Float32Type, Float64Type>(element) && llvm::all_of(ArrayRef{of.q, of.v}, [&](Value value) {
    int64_t width = typeOf(value).getShape().back();
    return !ShapedType::isDynamic(width) && width >= 1 && width <= widestHead && (!isGpu || width * element.getIntOrFloatBitWidth() / 8 <= widestHeadOnGpu);
  });
}
StringRef AttentionOp::getSchedule() { return "attention"; }
StringRef AttentionGradientOp::getSchedule() { return "attention_gradient"; }
std::string AttentionOp::getKernelName() { return getSchedule().str(); }
std::string AttentionGradientOp::getKernelName() { return getSchedule().str(); }
bool AttentionOp::readsStrides() { return true; }
bool AttentionGradientOp::readsStrides() { return true; }
bool AttentionOp::isForEngine() { return hasKernel(getAttention(), /*isGpu=*/false); }
bool AttentionGradientOp::isForEngine() { return hasKernel(getAttention(), /*isGpu=*/false); }
bool AttentionOp::isForGpu() { return hasKernel(getAttention(), /*isGpu=*/true); }
bool AttentionGradientOp::isForGpu() { return hasKernel(getAttention(), /*isGpu=*/true); }
bool AttentionOp::holdsProducts() { return true; }
bool AttentionGradientOp::holdsProducts() { return true; }

//===--- as products ---===//

namespace {
/// Attention with its heads ahead: [N, heads, rows, width], and scores [N, heads, T, S].
struct Heads {
  OpBuilder &b;
  Location loc;
  AttentionOperands of;

  TensorExpr expr(Value value) { return {b, loc, value}; }
  /// [N, rows, heads, width] with the heads ahead, and back.
  TensorExpr ahead(Value value) { return expr(TransposeOp::create(b, loc, value, ArrayRef<int64_t>{0, 2, 1, 3})); }
  Value back(TensorExpr value) { return TransposeOp::create(b, loc, value.value, ArrayRef<int64_t>{0, 2, 1, 3}); }
  /// Numbers for rows, [N, T, heads], for each score of a row; and a number for each row, [N, heads, T], back among them.
  TensorExpr forScores(Value rows, RankedTensorType scores) {
    return expr(BroadcastOp::create(b, loc, scores, TransposeOp::create(b, loc, rows, ArrayRef<int64_t>{0, 2, 1}), ArrayRef<int64_t>{0, 1, 2}));
  }
  Value rowsBack(TensorExpr rows) { return TransposeOp::create(b, loc, rows.value, ArrayRef<int64_t>{0, 2, 1}); }
  TensorExpr product(TensorExpr a, TensorExpr c, bool aTransposed = false, bool cTransposed = false) {
    return expr(MatmulOp::create(b, loc, a.value, c.value, aTransposed, cTransposed));
  }

  /// Which keys rows look at; null: all.
  Value visible(RankedTensorType scores) {
    Value seen;
    auto bools = withElementType(scores, b.getI1Type());
    if (of.mask && getElementTypeOrSelf(of.mask).isInteger(1))
      seen = BroadcastOp::create(b, loc, bools, of.mask, ArrayRef<int64_t>{0, 1, 2, 3});
    if (of.isCausal) {
      auto numbers = withElementType(scores, b.getI32Type());
      Value causal = CompareOp::create(b, loc, IotaOp::create(b, loc, numbers, 2), IotaOp::create(b, loc, numbers, 3), ComparePredicate::ge);
      seen = seen ? AndOp::create(b, loc, seen, causal).getResult() : causal;
    }
    return seen;
  }
  /// scale * (q · k), with what the mask adds; -inf where a row does not look.
  TensorExpr scores() {
    TensorExpr s = product(ahead(of.q), ahead(of.k), false, true);
    if (of.scale != 1)
      s = s * of.scale;
    if (of.mask && !getElementTypeOrSelf(of.mask).isInteger(1))
      s = s + expr(BroadcastOp::create(b, loc, s.type(), of.mask, ArrayRef<int64_t>{0, 1, 2, 3}));
    if (Value seen = visible(s.type()))
      s = select(expr(seen), s, s.number(-std::numeric_limits<double>::infinity()));
    return s;
  }
  /// exp(scores - logsumexp); a row that looks at nothing, whose logsumexp is -inf, has zeros.
  TensorExpr weights(Value logsumexp) {
    TensorExpr s = scores();
    TensorExpr rows = expr(logsumexp);
    TensorExpr isNone = eq(rows, -std::numeric_limits<double>::infinity());
    return exp(s - forScores(select(isNone, rows.number(0), rows).value, s.type()));
  }
};

/// What the gradient is made of, all with heads ahead: P, dP, and dS, the cotangent of the scores.
struct Parts {
  TensorExpr p, dp, ds;
};
} // namespace

static Parts partsOf(Heads &heads, Value logsumexp, Value delta, Value dy) {
  TensorExpr p = heads.weights(logsumexp);
  TensorExpr dp = heads.product(heads.ahead(dy), heads.ahead(heads.of.v), false, true);
  return {p, dp, mulNoNan(dp - heads.forScores(delta, p.type()), p)};
}

Value AttentionOp::buildDecomposition(OpBuilder &) { return {}; }
SmallVector<Value> AttentionOp::buildDecompositions(OpBuilder &b) {
  Heads heads{b, getLoc(), getAttention()};
  TensorExpr s = heads.scores();
  // As softmax, but that a row without keys is 0: its largest score, -inf, is not subtracted, and its total is not divided by.
  TensorExpr largest = max(s, 3);
  largest = select(eq(largest, -std::numeric_limits<double>::infinity()), largest.number(0), largest);
  TensorExpr e = exp(s - broadcastBack(largest, s, {3})), total = sum(e, 3);
  TensorExpr isNone = eq(total, 0.0);
  TensorExpr p = e * broadcastBack(select(isNone, total.number(0), total.number(1) / total), s, {3});
  return {heads.back(heads.product(p, heads.ahead(getV()))), heads.rowsBack(largest + log(total))};
}

Value AttentionGradientOp::buildDecomposition(OpBuilder &) { return {}; }
SmallVector<Value> AttentionGradientOp::buildDecompositions(OpBuilder &b) {
  Heads heads{b, getLoc(), getAttention()};
  Parts parts = partsOf(heads, getLogsumexp(), getDelta(), getDy());
  TensorExpr ds = parts.ds * getScale().convertToDouble();
  return {heads.back(heads.product(ds, heads.ahead(getK()))), heads.back(heads.product(ds, heads.ahead(getQ()), true)), heads.back(heads.product(parts.p, heads.ahead(getDy()), true))};
}

//===--- gradients ---===//

/// The cotangent of numbers that were added to the scores, from that of the scores.
static Value maskGradient(Heads &heads, TensorExpr ds) {
  RankedTensorType mask = typeOf(heads.of.mask);
  SmallVector<AffineExpr> sizes = sizesOf(mask), full = sizesOf(ds.type());
  SmallVector<int64_t> axes;
  for (int64_t axis = 0; axis < 4; ++axis)
    if (sizes[axis] != full[axis])
      axes.push_back(axis);
  return axes.empty() ? ds.value : ReshapeOp::create(heads.b, heads.loc, mask, sum(ds, axes).value).getResult();
}

LogicalResult AttentionOp::buildVjp(OpBuilder &b, ValueRange cotangents, SmallVectorImpl<Value> &grads) {
  Location loc = getLoc();
  Value dy = cotangents[0];
  if (!dy)
    dy = FillOp::create(b, loc, cast<RankedTensorType>(getResult().getType()), 0.0);
  TensorExpr delta = sum(mulNoNan(TensorExpr(b, loc, getResult()), TensorExpr(b, loc, dy)), 3);
  if (cotangents[1])
    delta = delta - TensorExpr(b, loc, cotangents[1]);
  auto gradient = AttentionGradientOp::create(b, loc, getQ(), getK(), getV(), getLogsumexp(), delta.value, dy, getMask(), getScale(), getCausal());
  llvm::append_range(grads, gradient->getResults());
  if (!getMask())
    return success();
  Value dmask;
  if (!getElementTypeOrSelf(getMask()).isInteger(1)) {
    Heads heads{b, loc, getAttention()};
    dmask = maskGradient(heads, partsOf(heads, getLogsumexp(), delta.value, dy).ds);
  }
  grads.push_back(dmask);
  return success();
}

LogicalResult AttentionGradientOp::buildVjp(OpBuilder &b, ValueRange cotangents, SmallVectorImpl<Value> &grads) {
  // Of dq = scale dS k, dk = scale dSᵀ q, dv = Pᵀ dy with dS = P * (dP - delta), P = exp(scale q kᵀ + mask - logsumexp), dP = dy vᵀ.
  Location loc = getLoc();
  Heads heads{b, loc, getAttention()};
  const double scale = getScale().convertToDouble();
  Parts parts = partsOf(heads, getLogsumexp(), getDelta(), getDy());
  TensorExpr q = heads.ahead(getQ()), k = heads.ahead(getK()), v = heads.ahead(getV()), dy = heads.ahead(getDy());
  std::optional<TensorExpr> ofDs, ofP, gradQ, gradK, gradV, gradDy;
  auto add = [](std::optional<TensorExpr> &sum, TensorExpr term) { sum = sum ? *sum + term : term; };
  TensorExpr ds = parts.ds * scale;
  if (cotangents[0]) {
    TensorExpr a = heads.ahead(cotangents[0]);
    add(ofDs, heads.product(a, k, false, true) * scale);
    add(gradK, heads.product(ds, a, true));
  }
  if (cotangents[1]) {
    TensorExpr a = heads.ahead(cotangents[1]);
    add(ofDs, heads.product(q, a, false, true) * scale);
    add(gradQ, heads.product(ds, a));
  }
  if (cotangents[2]) {
    TensorExpr a = heads.ahead(cotangents[2]);
    add(ofP, heads.product(dy, a, false, true));
    add(gradDy, heads.product(parts.p, a));
  }
  Value gradDelta;
  if (ofDs) {
    TensorExpr ofDp = mulNoNan(*ofDs, parts.p);
    add(gradDy, heads.product(ofDp, v));
    add(gradV, heads.product(ofDp, dy, true));
    gradDelta = heads.rowsBack(-sum(ofDp, 3));
    add(ofP, mulNoNan(parts.dp - heads.forScores(getDelta(), parts.p.type()), *ofDs));
  }
  TensorExpr ofScores = mulNoNan(*ofP, parts.p), scaled = ofScores * scale;
  add(gradQ, heads.product(scaled, k));
  add(gradK, heads.product(scaled, q, true));
  auto back = [&](std::optional<TensorExpr> &grad) { return grad ? heads.back(*grad) : Value(); };
  grads.append({back(gradQ), back(gradK), back(gradV), heads.rowsBack(-sum(ofScores, 3)), gradDelta, back(gradDy)});
  if (getMask())
    grads.push_back(getElementTypeOrSelf(getMask()).isInteger(1) ? Value() : maskGradient(heads, ofScores));
  return success();
}
