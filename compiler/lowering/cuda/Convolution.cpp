//===- Convolution.cpp - convolutions as products of the GPU's engine -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/lowering/cuda/Convolution.h"
#include "mlir/Dialect/Arith/IR/Arith.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc::cuda {

using R = ConvolutionResult;

Convolution::Convolution(ConvolutionOp op, bool isFlat)
    : kind(op.getKind()), isFlat(isFlat), element(cast<FloatType>(op.getTypeOf(R::weight).getElementType())), images(sizesOf(op.getTypeOf(R::input)).front()), groups(op.getGroups()),
      o(op.getTypeOf(R::weight).getDimSize(0) / groups), c(op.getTypeOf(R::weight).getDimSize(1)), p(op.getImageOf(R::output)), i(op.getImageOf(R::input)), k(op.getImageOf(R::weight)),
      strides(op.getStrides()), paddings(op.getPaddings()), dilations(op.getDilations()) {}

bool Convolution::isPointwise() const {
  return ShapedType::getNumElements(k) == 1 && p == i && llvm::all_of(strides, [](int64_t stride) { return stride == 1; }) && llvm::all_of(paddings, [](int64_t padding) { return padding == 0; });
}

GemmShape Convolution::shape() const {
  MLIRContext *context = element.getContext();
  auto constant = [&](int64_t n) { return getAffineConstantExpr(n, context); };
  GemmShape shape;
  shape.type = element;
  shape.batch = constant(groups);
  const int64_t image = ShapedType::getNumElements(positions());
  shape.rhsRun = isPointwise() ? image : 1;
  shape.outRun = isFlat ? image : positions().back();
  switch (kind) {
  case R::output:
    shape.m = constant(o), shape.n = normalizeSize(images * image), shape.k = constant(c * ShapedType::getNumElements(k));
    break;
  case R::input:
    shape.m = constant(c), shape.n = normalizeSize(images * image), shape.k = constant(o * ShapedType::getNumElements(k));
    shape.lhsTransposed = ShapedType::getNumElements(k) == 1; // where it is a matrix
    shape.lhsRun = ShapedType::getNumElements(k) == 1 ? 0 : 1;
    break;
  case R::weight:
    shape.m = constant(o), shape.n = constant(c * ShapedType::getNumElements(k)), shape.k = normalizeSize(images * image);
    shape.lhsRun = image;
    shape.rhsTransposed = true;
    shape.outRun = isFlat ? 0 : k.back();
    break;
  }
  return shape;
}

/// Builds places and indices. Numbers within one image of all channels are small where 32 bits hold them; those that count images are index values.
struct Convolution::Emitter {
  const Convolution &convolution;
  OpBuilder &b;
  Location loc;

  Type small() const {
    // A slice's steps beyond the last one, and positions beyond an image's edge, stay well below the other half.
    constexpr int64_t limit = int64_t(1) << 30;
    const Convolution &c = convolution;
    int64_t input = c.c * ShapedType::getNumElements(c.i), output = c.o * ShapedType::getNumElements(c.p), weight = c.o * c.c * ShapedType::getNumElements(c.k), reach = 0;
    for (auto [axis, size] : llvm::enumerate(c.p))
      reach = std::max(reach, size * c.strides[axis] + c.k[axis] * c.dilations[axis] + c.paddings[axis] + c.i[axis]);
    bool fits = std::max({input, output, weight}) < limit && reach < limit / std::max(c.c * ShapedType::getNumElements(c.i) / c.i.front(), c.o * ShapedType::getNumElements(c.p) / c.p.front());
    return fits ? Type(b.getI32Type()) : Type(b.getIndexType());
  }

  Value constant(Type type, int64_t n) { return arith::ConstantOp::create(b, loc, b.getIntegerAttr(type, n)); }
  Value like(Value x, int64_t n) { return constant(x.getType(), n); }
  Value add(Value x, Value y) { return b.createOrFold<arith::AddIOp>(loc, x, y); }
  Value add(Value x, int64_t y) { return y == 0 ? x : add(x, like(x, y)); }
  Value mul(Value x, int64_t y) { return y == 1 ? x : b.createOrFold<arith::MulIOp>(loc, x, like(x, y)); }
  Value div(Value x, int64_t y) { return y == 1 ? x : b.createOrFold<arith::DivUIOp>(loc, x, like(x, y)); }
  Value rem(Value x, int64_t y) { return y == 1 ? like(x, 0) : b.createOrFold<arith::RemUIOp>(loc, x, like(x, y)); }
  Value both(Value x, Value y) { return !x ? y : !y ? x : b.createOrFold<arith::AndIOp>(loc, x, y); }
  Value toIndex(Value x) { return x.getType().isIndex() ? x : b.createOrFold<arith::IndexCastOp>(loc, b.getIndexType(), x); }
  Value toSmall(Value x) { return x.getType() == small() ? x : b.createOrFold<arith::IndexCastOp>(loc, small(), x); }
  /// The number of a position among those of all images, small if it is known to be.
  Value positionNumber(Value step) {
    auto images = dyn_cast<AffineConstantExpr>(convolution.images);
    return images && images.getValue() * ShapedType::getNumElements(convolution.positions()) < (int64_t(1) << 30) ? toSmall(step) : step;
  }
  /// The indices of a row-major number; the first one takes what is beyond.
  SmallVector<Value> indicesOf(Value number, ArrayRef<int64_t> sizes) {
    SmallVector<Value> out(sizes.size());
    for (size_t axis = sizes.size(); axis-- > 0;) {
      out[axis] = axis == 0 ? number : rem(number, sizes[axis]);
      if (axis)
        number = div(number, sizes[axis]);
    }
    return out;
  }

  /// The element of the source's image that the window's indices make, and whether there is one. `fromPosition` and `fromKernel` have what each adds to the sums.
  std::pair<Value, Value> elementAt(ArrayRef<Value> fromPosition, ArrayRef<Value> fromKernel) {
    const Convolution &c = convolution;
    const Sizes &sizes = c.source();
    Value number, exists;
    for (auto [axis, size] : llvm::enumerate(sizes)) {
      Value at = add(fromPosition[axis], fromKernel[axis]);
      int64_t stride = c.kind == R::input ? c.strides[axis] : 1;
      if (stride != 1) {
        Value dividend = at;
        at = arith::DivSIOp::create(b, loc, dividend, like(dividend, stride));
        exists = both(exists, arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, mul(at, stride), dividend));
      }
      // A negative index is large without a sign.
      if (!staysInside(axis))
        exists = both(exists, arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ult, at, like(at, size)));
      number = number ? add(mul(number, size), at) : at;
    }
    return {number, exists};
  }
  bool staysInside(size_t axis) {
    const Convolution &c = convolution;
    int64_t reach = c.dilations[axis] * (c.k[axis] - 1);
    if (c.kind == R::input) // (i + padding - k * dilation) / stride
      return c.paddings[axis] - reach >= 0 && (c.i[axis] - 1 + c.paddings[axis]) / c.strides[axis] < c.p[axis];
    return c.paddings[axis] == 0 && (c.p[axis] - 1) * c.strides[axis] + reach < c.i[axis];
  }
  /// What a position adds to the indices of the source (of the output's: to their dividends), and what a place in the kernel does.
  SmallVector<Value> ofPosition(Value number) {
    const Convolution &c = convolution;
    SmallVector<Value> at = indicesOf(number, c.positions());
    for (size_t axis = 0; axis < at.size(); ++axis)
      at[axis] = c.kind == R::input ? add(at[axis], c.paddings[axis]) : add(mul(at[axis], c.strides[axis]), -c.paddings[axis]);
    return at;
  }
  SmallVector<Value> ofKernel(Value number) {
    const Convolution &c = convolution;
    SmallVector<Value> at = indicesOf(number, c.k);
    for (size_t axis = 0; axis < at.size(); ++axis)
      at[axis] = mul(at[axis], c.kind == R::input ? -c.dilations[axis] : c.dilations[axis]);
    return at;
  }
};

/// Columns are positions of all images, steps channels with a place in the kernel.
GemmElements Convolution::windowsOfPositions() const {
  GemmElements elements;
  const int64_t channels = kind == R::input ? o : c;
  elements.column = [this, channels](OpBuilder &b, Location loc, Value entry, Value column) {
    Emitter e{*this, b, loc};
    const int64_t image = ShapedType::getNumElements(positions());
    Value number = e.add(e.mul(e.div(column, image), groups), entry);
    GemmElements::Column parts{e.mul(number, channels * ShapedType::getNumElements(source()))};
    llvm::append_range(parts, e.ofPosition(e.toSmall(e.rem(column, image))));
    return parts;
  };
  elements.place = [this](OpBuilder &b, Location loc, ArrayRef<Value> column, Value step) {
    Emitter e{*this, b, loc};
    const int64_t kernel = ShapedType::getNumElements(k);
    Value number = e.toSmall(step);
    auto [at, exists] = e.elementAt(column.drop_front(), e.ofKernel(e.rem(number, kernel)));
    Value inChannels = e.add(e.mul(e.div(number, kernel), ShapedType::getNumElements(source())), at);
    return GemmElements::Place{e.add(column.front(), e.toIndex(inChannels)), exists};
  };
  return elements;
}

/// Columns are channels with a place in the kernel, steps positions of all images.
GemmElements Convolution::windowsOfKernels() const {
  GemmElements elements;
  elements.column = [this](OpBuilder &b, Location loc, Value entry, Value column) {
    Emitter e{*this, b, loc};
    const int64_t kernel = ShapedType::getNumElements(k);
    Value channel = e.add(e.mul(entry, c), e.div(column, kernel));
    GemmElements::Column parts{e.mul(channel, ShapedType::getNumElements(i))};
    llvm::append_range(parts, e.ofKernel(e.toSmall(e.rem(column, kernel))));
    return parts;
  };
  elements.place = [this](OpBuilder &b, Location loc, ArrayRef<Value> column, Value step) {
    Emitter e{*this, b, loc};
    const int64_t image = ShapedType::getNumElements(p);
    Value number = e.positionNumber(step);
    auto [at, exists] = e.elementAt(e.ofPosition(e.toSmall(e.rem(number, image))), column.drop_front());
    Value before = e.mul(e.toIndex(e.div(number, image)), groups * c * ShapedType::getNumElements(i));
    return GemmElements::Place{e.add(e.add(column.front(), before), e.toIndex(at)), exists};
  };
  return elements;
}

/// Rows are channels of the input, steps channels of the output with a place in the kernel.
GemmElements Convolution::weightOfInput() const {
  GemmElements elements;
  elements.column = [this](OpBuilder &b, Location loc, Value entry, Value row) {
    Emitter e{*this, b, loc};
    const int64_t kernel = ShapedType::getNumElements(k);
    return GemmElements::Column{e.add(e.mul(entry, o * c * kernel), e.mul(row, kernel))};
  };
  elements.place = [this](OpBuilder &b, Location loc, ArrayRef<Value> row, Value step) {
    Emitter e{*this, b, loc};
    const int64_t kernel = ShapedType::getNumElements(k);
    // Between the kernels of two steps lie those of the other channels.
    Value number = e.toSmall(step);
    return GemmElements::Place{e.add(row.front(), e.toIndex(e.add(number, e.mul(e.div(number, kernel), (c - 1) * kernel)))), {}};
  };
  return elements;
}

/// Rows are channels of the output, steps positions of all images.
GemmElements Convolution::outputOfWeight() const {
  GemmElements elements;
  elements.column = [this](OpBuilder &b, Location loc, Value entry, Value row) {
    Emitter e{*this, b, loc};
    return GemmElements::Column{e.mul(e.add(e.mul(entry, o), row), ShapedType::getNumElements(p))};
  };
  elements.place = [this](OpBuilder &b, Location loc, ArrayRef<Value> row, Value step) {
    Emitter e{*this, b, loc};
    const int64_t image = ShapedType::getNumElements(p);
    // Between the positions of two images lie those of the other channels.
    Value others = e.mul(e.toIndex(e.div(e.positionNumber(step), image)), (groups * o - 1) * image);
    return GemmElements::Place{e.add(e.add(row.front(), step), others), {}};
  };
  return elements;
}

void Convolution::setFactors(OpBuilder &b, Location loc, GemmOperands &operands, Value lhs, Value rhs) const {
  // The op's first operand is the one that windows move over.
  operands.rhs = lhs;
  operands.lhs = rhs;
  operands.rhsElements = isWeight() ? windowsOfKernels() : windowsOfPositions();
  switch (kind) {
  case R::output:
    break;
  case R::input:
    operands.lhsElements = weightOfInput();
    break;
  case R::weight:
    operands.lhsElements = outputOfWeight();
    break;
  }
  operands.lhsBatchStride = arith::ConstantIndexOp::create(b, loc, o * c * ShapedType::getNumElements(k));
}

ElementIndex Convolution::resultIndex(OpBuilder &b, Location loc, ValueRange batchRowCol) const {
  Emitter e{*this, b, loc};
  Value entry = batchRowCol[0], column = batchRowCol[2];
  const int64_t rows = kind == R::input ? c : o, inRow = isWeight() ? c * ShapedType::getNumElements(k) : ShapedType::getNumElements(positions());
  Value channel = e.add(e.mul(entry, rows), batchRowCol[1]);
  Value image = isWeight() ? Value() : e.div(column, inRow), inImage = isWeight() ? column : e.rem(column, inRow);
  ElementIndex at;
  if (isFlat) {
    Value row = image ? e.add(e.mul(image, groups * rows), channel) : channel;
    at.linear = e.add(e.mul(row, inRow), inImage);
    at.isFlat = true;
    return at;
  }
  if (image)
    at.dims.push_back(image);
  at.dims.push_back(channel);
  Sizes sizes;
  if (isWeight())
    sizes.push_back(c);
  llvm::append_range(sizes, isWeight() ? k : positions());
  llvm::append_range(at.dims, e.indicesOf(inImage, sizes));
  return at;
}

} // namespace dlc::cuda
