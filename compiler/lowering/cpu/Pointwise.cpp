//===- Pointwise.cpp - convolutions of 1x1 as products of matrices -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/lowering/cpu/Pointwise.h"
#include "compiler/lowering/cpu/ProductEmitter.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc::cpu {

using R = ConvolutionResult;

/// Positions below which the images are multiplied together (Convolution.h): those of one would not fill a vector.
static constexpr int64_t fewestPositions = 16;
/// Elements that a task of the copy works on.
static constexpr int64_t elementsPerCopy = 16384;

std::optional<Pointwise> Pointwise::of(ConvolutionOp op, const CpuInfo &cpu, bool isFixed) {
  auto all = [](ArrayRef<int64_t> values, int64_t value) { return llvm::all_of(values, [&](int64_t each) { return each == value; }); };
  const bool isInput = op.getKind() == R::input;
  const int64_t positions = ShapedType::getNumElements(op.getImageOf(R::output));
  if (op.getKind() == R::weight || op.getGroups() != 1 || !all(op.getImageOf(R::weight), 1) || !all(op.getPaddings(), 0) || positions < fewestPositions)
    return std::nullopt;
  // Without strides an output may still be smaller than its input, of which the end is left out.
  if (!all(op.getStrides(), 1) ? isInput : op.getImageOf(R::output) != op.getImageOf(R::input))
    return std::nullopt;
  auto weight = op.getTypeOf(R::weight);
  GemmShape shape{cast<FloatType>(weight.getElementType()), weight.getDimSize(isInput ? 1 : 0), positions, weight.getDimSize(isInput ? 0 : 1)};
  shape.batch = op.getTypeOf(R::input).getDimSize(0);
  shape.lhsTransposed = isInput;
  shape.lhsShared = true;
  shape.lhsFixed = isFixed;
  return Pointwise(op, cpu, shape);
}

Pointwise::Pointwise(ConvolutionOp op, const CpuInfo &cpu, const GemmShape &shape)
    : cpu(cpu), shape(shape), gemm(cpu, shape), source(op.getImageOf(R::input)), target(op.getImageOf(R::output)), strides(op.getStrides()) {}

bool Pointwise::isStrided() const { return llvm::any_of(strides, [](int64_t stride) { return stride != 1; }); }

GemmOperands Pointwise::matrices(OpBuilder &b, Location loc, Value images) const {
  GemmOperands operands;
  operands.batch = images;
  operands.rhsBatchStride = arith::ConstantIndexOp::create(b, loc, shape.k * shape.n);
  return operands;
}

static AffineExpr constant(const GemmShape &shape, int64_t size) { return getAffineConstantExpr(size, shape.type.getContext()); }

int64_t Pointwise::productElements() const {
  // One factor is packed for all images, the other by tasks: it does not depend on their number.
  AffineExpr elements = gemm.workspaceElements(constant(shape, shape.m), constant(shape, shape.n), constant(shape, shape.k));
  return llvm::alignTo(cast<AffineConstantExpr>(elements).getValue(), lineBytes * 8 / shape.type.getIntOrFloatBitWidth());
}

AffineExpr Pointwise::panelElements(AffineExpr) const { return gemm.panelElements(constant(shape, shape.m), constant(shape, shape.n), constant(shape, shape.k)); }

AffineExpr Pointwise::workspaceElements(AffineExpr images) const {
  const int64_t copied = isStrided() ? shape.k * shape.n : 0;
  return images * copied + productElements();
}

Value Pointwise::tasks(unsigned launch, OpBuilder &b, Location loc, Value images) const {
  if (!isCopy(launch))
    return gemm.tasks(ofProduct(launch), b, loc, matrices(b, loc, images));
  ProductEmitter e(cpu, shape.type, b, loc);
  return e.ceilDiv(e.mul(images, shape.k * shape.n), elementsPerCopy);
}

/// The positions of all channels of all images, one behind the other.
void Pointwise::copy(OpBuilder &b, Location loc, const ConvolutionOperands &operands, Value begin, Value end) const {
  ProductEmitter e(cpu, shape.type, b, loc);
  const int64_t row = target.back(), stride = strides.back(), rows = shape.n / row;
  Value channels = e.mul(operands.images, shape.k), all = e.max(tasks(launchesOnce(), b, loc, operands.images), e.index(1)), apart = e.ramp(stride);
  e.loop(e.share(begin, channels, all), e.share(end, channels, all), [&](Value channel) {
    e.loop(rows, [&](Value number) {
      Value from = e.index(0), rest = number;
      int64_t distance = source.back();
      for (size_t axis = target.size() - 1; axis-- > 0; distance *= source[axis]) {
        from = e.add(from, e.mul(axis ? e.rem(rest, e.index(target[axis])) : rest, strides[axis] * distance));
        rest = e.div(rest, target[axis]);
      }
      from = e.add(e.mul(channel, ShapedType::getNumElements(source)), from);
      Value to = e.add(e.add(e.mul(channel, shape.n), e.mul(number, row)), productElements());
      e.neighbours(e.index(0), e.index(row), row % e.lanes == 0, row < e.lanes, [&](Value at, Value mask) {
        Value exist = mask ? mask : e.mask(e.index(e.lanes));
        Value taken = vector::GatherOp::create(b, loc, e.vectorType(), operands.lhs, ValueRange{e.add(from, e.mul(at, stride))}, apart, exist, e.zeroVector());
        if (mask)
          vector::MaskedStoreOp::create(b, loc, operands.workspace, ValueRange{e.add(to, at)}, mask, taken);
        else
          e.store(taken, operands.workspace, e.add(to, at));
      });
    });
  });
}

void Pointwise::emit(unsigned launch, OpBuilder &b, Location loc, const ConvolutionOperands &operands, Value begin, Value end, bool, ConvolutionEpilogue epilogue) const {
  if (isCopy(launch))
    return copy(b, loc, operands, begin, end);
  GemmOperands matrices = this->matrices(b, loc, operands.images);
  matrices.lhs = operands.rhs;
  matrices.rhs = operands.lhs;
  matrices.workspace = operands.workspace;
  matrices.panels = operands.panels;
  matrices.kept = operands.kept;
  if (isStrided()) {
    matrices.rhs = operands.workspace;
    matrices.rhsOffset = arith::ConstantIndexOp::create(b, loc, productElements());
  }
  Value zero = arith::ConstantIndexOp::create(b, loc, 0);
  gemm.emit(ofProduct(launch), b, loc, matrices, begin, end, operands.scratch, [&](OpBuilder &e, Location loc, ValueRange imageChannelPosition, Value acc, Value mask) {
    ElementIndex at;
    at.dims = {imageChannelPosition[0], imageChannelPosition[1]};
    at.dims.append(target.size() - 1, zero);
    at.dims.push_back(imageChannelPosition[2]);
    epilogue(e, loc, at, acc, gemm.lanes(), mask);
  });
}

} // namespace dlc::cpu
