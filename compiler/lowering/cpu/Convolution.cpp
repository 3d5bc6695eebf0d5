//===- Convolution.cpp - convolutions as products through windows -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/lowering/cpu/Convolution.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc::cpu {

using R = ConvolutionResult;

static int64_t product(ArrayRef<int64_t> sizes) {
  int64_t all = 1;
  for (int64_t size : sizes)
    all *= size;
  return all;
}

static SmallVector<int64_t> imageOf(ConvolutionOp op, R tensor) { return SmallVector<int64_t>(op.getTypeOf(tensor).getShape().drop_front(2)); }

Convolution::Convolution(ConvolutionOp op, const CpuInfo &cpu)
    : kind(op.getKind()), element(cast<FloatType>(op.getTypeOf(R::weight).getElementType())), lanes(cpu.lanes(element)), images(op.getTypeOf(R::input).getDimSize(0)),
      groups(op.getGroups()), o(op.getTypeOf(R::weight).getDimSize(0) / groups), c(op.getTypeOf(R::weight).getDimSize(1)), p(imageOf(op, R::output)), i(imageOf(op, R::input)),
      k(imageOf(op, R::weight)), strides(op.getStrides()), paddings(op.getPaddings()), dilations(op.getDilations()) {}

int64_t Convolution::paddedRow() const { return llvm::alignTo(positions().back(), lanes); }

GemmShape Convolution::shape() const {
  GemmShape shape;
  shape.type = element;
  shape.throughWindows = true;
  int64_t columns = product(ArrayRef(positions()).drop_back()) * (isWeight() ? 1 : paddedRow());
  shape.batch = isWeight() ? groups : ShapedType::isDynamic(images) ? images : images * groups;
  switch (kind) {
  case R::output:
    shape.m = o, shape.n = columns, shape.k = c * product(k);
    break;
  case R::input:
    shape.m = c, shape.n = columns, shape.k = o, shape.addends = product(k);
    break;
  case R::weight:
    // Steps that are neighbours lie side by side: panels are transposed. A block of steps is made of whole rows of the image.
    shape.m = o, shape.n = c * product(k), shape.k = product(p), shape.addends = images, shape.rhsTransposed = true, shape.kUnit = p.back();
    break;
  }
  return shape;
}

/// Builds what reads panels.
struct Convolution::Emitter {
  const Convolution &convolution;
  OpBuilder &b;
  Location loc;

  Value index(int64_t n) { return arith::ConstantIndexOp::create(b, loc, n); }
  Value add(Value x, Value y) { return b.createOrFold<arith::AddIOp>(loc, x, y); }
  Value add(Value x, int64_t y) { return y == 0 ? x : add(x, index(y)); }
  Value mul(Value x, int64_t y) { return y == 1 ? x : b.createOrFold<arith::MulIOp>(loc, x, index(y)); }
  Value div(Value x, int64_t y) { return y == 1 ? x : b.createOrFold<arith::DivUIOp>(loc, x, index(y)); }
  Value rem(Value x, int64_t y) { return y == 1 ? index(0) : b.createOrFold<arith::RemUIOp>(loc, x, index(y)); }
  Value both(Value x, Value y) { return !x ? y : !y ? x : b.createOrFold<arith::AndIOp>(loc, x, y); }
  void loop(Value to, int64_t step, llvm::function_ref<void(Value)> body) {
    auto op = scf::ForOp::create(b, loc, index(0), to, index(step));
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(op.getBody());
    body(op.getInductionVar());
  }
  /// The indices of a row-major number; the first one is not reduced, and takes what is beyond.
  SmallVector<Value> indicesOf(Value number, ArrayRef<int64_t> sizes) {
    SmallVector<Value> out(sizes.size());
    for (size_t axis = sizes.size(); axis-- > 0;) {
      out[axis] = axis == 0 ? number : rem(number, sizes[axis]);
      if (axis)
        number = div(number, sizes[axis]);
    }
    return out;
  }

  VectorType vectorType(Type type) { return VectorType::get({convolution.lanes}, type); }
  Value zeros() {
    auto type = vectorType(convolution.element);
    return arith::ConstantOp::create(b, loc, type, SplatElementsAttr::get(type, b.getFloatAttr(convolution.element, 0)));
  }

  /// A row of an image of the source that windows reach: where it begins, and whether it exists (null: always).
  struct Row {
    Value begin, exists;
  };
  /// From indices of the source's outer axes, as dividends of `divisors`.
  Row rowAt(Value imageBegin, ArrayRef<Value> dividends, ArrayRef<int64_t> divisors) {
    const Sizes &sizes = convolution.source();
    Row row{index(0), {}};
    for (auto [axis, dividend] : llvm::enumerate(dividends)) {
      Value at = dividend;
      if (divisors[axis] != 1) {
        at = arith::DivSIOp::create(b, loc, dividend, index(divisors[axis]));
        row.exists = both(row.exists, arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, mul(at, divisors[axis]), dividend));
      }
      // A negative index is large without a sign.
      row.exists = both(row.exists, arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ult, at, index(sizes[axis])));
      row.begin = add(mul(row.begin, sizes[axis]), at);
    }
    row.begin = add(imageBegin, mul(row.begin, sizes.back()));
    return row;
  }
  /// Elements of a row at (first + lane * stride) / divisor, for each lane; 0 where there is none.
  Value elementsOf(Value memory, const Row &row, Value first, int64_t stride, int64_t divisor) {
    const int64_t lanes = convolution.lanes, size = convolution.source().back();
    auto maskType = vectorType(b.getI1Type());
    if (stride == 1 && divisor == 1) {
      Value end = arith::SubIOp::create(b, loc, index(size), first), start = arith::SubIOp::create(b, loc, index(0), first);
      if (row.exists)
        end = arith::SelectOp::create(b, loc, row.exists, end, index(0));
      Value beforeEnd = vector::CreateMaskOp::create(b, loc, maskType, end), beforeStart = vector::CreateMaskOp::create(b, loc, maskType, start);
      Value ones = arith::ConstantOp::create(b, loc, maskType, SplatElementsAttr::get(maskType, b.getBoolAttr(true)));
      Value mask = arith::AndIOp::create(b, loc, beforeEnd, arith::XOrIOp::create(b, loc, beforeStart, ones));
      return vector::MaskedLoadOp::create(b, loc, vectorType(convolution.element), memory, ValueRange{add(row.begin, first)}, mask, zeros());
    }
    auto numbers = vectorType(b.getI32Type());
    SmallVector<int32_t> ramp;
    for (int64_t lane = 0; lane < lanes; ++lane)
      ramp.push_back(static_cast<int32_t>(lane * stride));
    auto splat = [&](int64_t n) -> Value { return arith::ConstantOp::create(b, loc, numbers, DenseElementsAttr::get(numbers, Attribute(b.getI32IntegerAttr(static_cast<int32_t>(n))))); };
    Value start = arith::IndexCastOp::create(b, loc, b.getI32Type(), first);
    Value at = vector::BroadcastOp::create(b, loc, numbers, start);
    at = arith::AddIOp::create(b, loc, at, arith::ConstantOp::create(b, loc, DenseElementsAttr::get(numbers, ArrayRef<int32_t>(ramp))));
    Value mask;
    if (divisor != 1) {
      Value quotient = arith::DivSIOp::create(b, loc, at, splat(divisor));
      mask = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, arith::MulIOp::create(b, loc, quotient, splat(divisor)), at);
      at = quotient;
    }
    mask = both(mask, arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ult, at, splat(size)));
    if (row.exists)
      mask = both(mask, vector::BroadcastOp::create(b, loc, maskType, row.exists));
    return vector::GatherOp::create(b, loc, vectorType(convolution.element), memory, ValueRange{row.begin}, at, mask, zeros());
  }

  void packPositions(Value memory, const GemmPanel &panel);
  void packKernels(Value memory, const GemmPanel &panel);
};

/// Columns are positions: each vector lies in one row, and reads one of the source.
void Convolution::Emitter::packPositions(Value memory, const GemmPanel &panel) {
  const Convolution &c = convolution;
  const int64_t spatial = c.p.size(), kernel = product(c.k), channels = c.kind == R::input ? c.o : c.c;
  const bool divides = c.kind == R::input; // position + padding - k * dilation, over the stride
  Sizes divisors(spatial, 1), counted(c.positions());
  if (divides)
    divisors = c.strides;
  counted.back() = c.paddedRow();
  // What each vector's positions contribute to the source's indices.
  SmallVector<SmallVector<Value>> from;
  for (int64_t column = 0; column < panel.columns; column += c.lanes) {
    SmallVector<Value> at = indicesOf(add(panel.column, column), counted);
    for (int64_t axis = 0; axis < spatial; ++axis)
      at[axis] = divides ? add(at[axis], c.paddings[axis]) : add(mul(at[axis], c.strides[axis]), -c.paddings[axis]);
    from.push_back(at);
  }
  Value first = mul(panel.entry, channels); // images hold the channels of all groups: that many channels lie before this entry's
  loop(panel.count, 1, [&](Value step) {
    Value number = add(panel.k0, step), channel = divides ? number : div(number, kernel);
    SmallVector<Value> tap = indicesOf(divides ? panel.addend : rem(number, kernel), c.k);
    for (int64_t axis = 0; axis < spatial; ++axis)
      tap[axis] = mul(tap[axis], divides ? -c.dilations[axis] : c.dilations[axis]);
    Value image = mul(add(first, channel), product(c.source()));
    Value to = add(panel.at, mul(step, panel.columns));
    for (auto [v, at] : llvm::enumerate(from)) {
      SmallVector<Value> dividends;
      for (int64_t axis = 0; axis < spatial; ++axis)
        dividends.push_back(add(at[axis], tap[axis]));
      Row row = rowAt(image, ArrayRef(dividends).drop_back(), divisors);
      Value elements = elementsOf(memory, row, dividends.back(), divides ? 1 : c.strides.back(), divisors.back());
      vector::StoreOp::create(b, loc, elements, panel.scratch, ValueRange{add(to, v * c.lanes)});
    }
  });
}

/// Columns are channels with a place in the kernel, steps are positions: column by column, each a row of its own in the scratch memory. Rows of the image follow each other there; what a vector writes
/// behind the end of one, the next overwrites.
void Convolution::Emitter::packKernels(Value memory, const GemmPanel &panel) {
  const Convolution &c = convolution;
  const int64_t spatial = c.p.size(), kernel = product(c.k), width = c.p.back();
  Sizes ones(spatial, 1);
  Value rows = div(panel.count, width), firstRow = div(panel.k0, width);
  // Entries are groups, addends are images.
  Value before = mul(add(mul(panel.addend, c.groups), panel.entry), c.c);
  loop(panel.existing, 1, [&](Value column) {
    Value number = add(panel.column, column);
    SmallVector<Value> tap = indicesOf(rem(number, kernel), c.k);
    for (int64_t axis = 0; axis < spatial; ++axis)
      tap[axis] = add(mul(tap[axis], c.dilations[axis]), -c.paddings[axis]);
    Value image = mul(add(before, div(number, kernel)), product(c.i)), to = add(panel.at, mul(column, panel.row));
    loop(rows, 1, [&](Value r) {
      SmallVector<Value> at = indicesOf(add(firstRow, r), ArrayRef(c.p).drop_back());
      for (int64_t axis = 0; axis + 1 < spatial; ++axis)
        at[axis] = add(mul(at[axis], c.strides[axis]), tap[axis]);
      Row row = rowAt(image, at, ones);
      Value rowTo = add(to, mul(r, width));
      loop(index(width), c.lanes, [&](Value w) {
        Value elements = elementsOf(memory, row, add(mul(w, c.strides.back()), tap.back()), c.strides.back(), 1);
        vector::StoreOp::create(b, loc, elements, panel.scratch, ValueRange{add(rowTo, w)});
      });
    });
  });
}

GemmOperands Convolution::operands(OpBuilder &b, Location loc, Value lhs, Value rhs, Value imageCount) const {
  Emitter emitter{*this, b, loc};
  GemmOperands operands;
  Value source = lhs, matrix = rhs; // the op's first operand is the one that windows move over
  operands.lhs = matrix;
  operands.batch = isWeight() ? emitter.index(groups) : emitter.mul(imageCount, groups);
  operands.addends = isWeight() ? imageCount : emitter.index(kind == R::input ? product(k) : 1);
  int64_t kernel = product(k), row = kind == R::weight ? product(p) : kind == R::output ? c * kernel : kernel, step = kind == R::input ? c * kernel : 1;
  operands.lhsRow = emitter.index(row);
  operands.lhsStep = emitter.index(step);
  operands.lhsBegin = [this](OpBuilder &b, Location loc, Value entry, Value addend) {
    Emitter e{*this, b, loc};
    if (isWeight())
      return e.mul(e.add(e.mul(addend, groups), entry), o * product(p));
    Value begin = e.mul(e.rem(entry, groups), o * c * product(k));
    return kind == R::input ? e.add(begin, addend) : begin;
  };
  operands.packPanel = [this, source](OpBuilder &b, Location loc, const GemmPanel &panel) {
    Emitter e{*this, b, loc};
    if (isWeight())
      e.packKernels(source, panel);
    else
      e.packPositions(source, panel);
  };
  return operands;
}

ElementIndex Convolution::resultIndex(OpBuilder &b, Location loc, ValueRange batchRowCol, Value &mask) const {
  Emitter e{*this, b, loc};
  ElementIndex at;
  int64_t rows = kind == R::input ? c : o;
  if (isWeight()) {
    int64_t columns = c * product(k);
    at.linear = e.add(e.mul(e.add(e.mul(batchRowCol[0], rows), batchRowCol[1]), columns), batchRowCol[2]);
    at.isFlat = true;
    return at;
  }
  at.dims = {e.div(batchRowCol[0], groups), e.add(e.mul(e.rem(batchRowCol[0], groups), rows), batchRowCol[1])};
  Sizes counted(positions());
  counted.back() = paddedRow();
  llvm::append_range(at.dims, e.indicesOf(batchRowCol[2], counted));
  if (int64_t width = positions().back(); width % lanes != 0) {
    Value left = arith::SubIOp::create(b, loc, e.index(width), at.dims.back());
    Value exists = vector::CreateMaskOp::create(b, loc, VectorType::get({lanes}, b.getI1Type()), left);
    mask = mask ? arith::AndIOp::create(b, loc, mask, exists).getResult() : exists;
  }
  return at;
}

ElementIndex Convolution::resultIndexOfLane(OpBuilder &b, Location loc, ValueRange batchRowCol, Value lane) const {
  Emitter e{*this, b, loc};
  ElementIndex at;
  at.dims.push_back(e.add(e.mul(batchRowCol[0], o), batchRowCol[1]));
  Sizes sizes{c};
  llvm::append_range(sizes, k);
  llvm::append_range(at.dims, e.indicesOf(e.add(batchRowCol[2], lane), sizes));
  return at;
}

} // namespace dlc::cpu
