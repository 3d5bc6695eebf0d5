//===- Winograd.cpp - convolutions of 3x3 by minimal filtering -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/lowering/cpu/Winograd.h"
#include "compiler/lowering/cpu/ProductEmitter.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc::cpu {

using R = ConvolutionResult;
using Vectors = SmallVector<Value>;

/// Weights of a filter, along each axis.
static constexpr int64_t taps = 3;
/// Channels of a pixel that lie together in the workspace: whole vectors of every processor.
static constexpr int64_t channelBlock = 16;
/// Reduced channels whose weights are transformed at once.
static constexpr int64_t weightChunk = 32;
/// Tiles of a block: as many as let the inputs stay in half of L2, but enough to share what is read of the weights.
static constexpr int64_t fewestTiles = 24, mostTiles = 48;
/// Where the weights are transformed by the tasks, which takes longer than to read them from L3 or memory if there are many blocks of tiles.
static constexpr int64_t tilesOfWeights = 64, blocksOfWeights = 3;
/// Columns of a task, and reduced channels between two visits of its accumulators; half of each where the transformed weights lie in the scratch memory too.
static constexpr int64_t taskColumns = 64, mostSteps = 128;
/// Pixels of a row that are transformed back and transposed together.
static constexpr int64_t runPixels = 32;
/// Elements that a task of the first launch works on.
static constexpr int64_t elementsPerCopy = 16384;

/// The points besides 0 and infinity are these and their negatives.
static ArrayRef<double> pointsOf(int64_t m) {
  static constexpr double two[] = {1}, four[] = {0.625, 1.5};
  return m == 2 ? ArrayRef<double>(two) : ArrayRef<double>(four);
}

//===--- the choice ---===//

int64_t Winograd::tileFor(const Shape &shape, FloatType element) {
  // What an element of the transformed inputs, products and weights costs, in multiply-adds: a transformation is bound by loads and stores, and the weights' also by memory.
  constexpr double perInput = 10, perProduct = 14, perWeight = 10, worthIt = 0.7;
  if (shape.reduced < channelBlock || shape.channels < channelBlock)
    return 0;
  const double images = orAssumed(shape.images), reduced = shape.reduced, channels = shape.channels;
  double best = worthIt * taps * taps * images * shape.target[0] * shape.target[1] * reduced * channels;
  int64_t chosen = 0;
  for (int64_t m : element.isF32() ? SmallVector<int64_t>{2, 4} : SmallVector<int64_t>{2}) {
    double tiles = images * shape.tiles(0, m) * shape.tiles(1, m);
    double cost = (m + 2) * (m + 2) * (tiles * reduced * channels + perInput * tiles * reduced + perProduct * tiles * channels + perWeight * reduced * channels);
    if (cost < best) {
      best = cost;
      chosen = m;
    }
  }
  return chosen;
}

std::optional<Winograd> Winograd::of(ConvolutionOp op, const CpuInfo &cpu, bool isFixed) {
  auto weight = op.getTypeOf(R::weight);
  auto all = [](ArrayRef<int64_t> values, int64_t value) { return llvm::all_of(values, [&](int64_t each) { return each == value; }); };
  SmallVector<int64_t> kernel(op.getImageOf(R::weight)), output(op.getImageOf(R::output)), input(op.getImageOf(R::input));
  if (op.getKind() == R::weight || kernel.size() != 2 || !all(kernel, taps) || !all(op.getStrides(), 1) || !all(op.getDilations(), 1))
    return std::nullopt;
  const bool isInput = op.getKind() == R::input;
  Shape shape;
  shape.images = op.getTypeOf(R::input).getDimSize(0);
  shape.groups = op.getGroups();
  shape.reduced = isInput ? weight.getDimSize(0) / shape.groups : weight.getDimSize(1);
  shape.channels = isInput ? weight.getDimSize(1) : weight.getDimSize(0) / shape.groups;
  for (int axis : {0, 1}) {
    shape.source[axis] = (isInput ? output : input)[axis];
    shape.target[axis] = (isInput ? input : output)[axis];
    shape.front[axis] = isInput ? taps - 1 - op.getPaddings()[axis] : op.getPaddings()[axis];
    // Something of the image has to be seen.
    if (shape.target[axis] <= 0 || shape.front[axis] + shape.source[axis] <= 0 || shape.front[axis] >= shape.target[axis] + taps - 1)
      return std::nullopt;
  }
  auto element = cast<FloatType>(weight.getElementType());
  int64_t m = tileFor(shape, element);
  if (m == 0)
    return std::nullopt;
  return Winograd(op, shape, m, cpu, isFixed);
}

//===--- sizes ---===//

Winograd::Winograd(ConvolutionOp op, const Shape &shape, int64_t m, const CpuInfo &cpu, bool isFixed)
    : kind(op.getKind()), element(cast<FloatType>(op.getTypeOf(R::weight).getElementType())), cpu(cpu), shape(shape), m(m), isFixed(isFixed), gemm(cpu, element, shape.channels), lanes(cpu.lanes(element)) {
  const int64_t bytes = element.getIntOrFloatBitWidth() / 8, mr = gemm.rows(), allTiles = orAssumed(shape.images) * tilesOfImage();
  weightsByTask = points() * shape.reduced * shape.channels * bytes > cpu.l2Bytes && allTiles <= tilesOfWeights * blocksOfWeights;
  const int64_t inL2 = cpu.l2Bytes / 2 / (points() * shape.reduced * bytes), part = weightsByTask ? 2 : 1;
  kBlock = balancedPart(shape.reduced, mostSteps / part, channelBlock);
  columns = balancedPart(panels(), std::max<int64_t>(taskColumns / part / nr(), 1), 1) * nr();
  blockTiles = balancedPart(allTiles, weightsByTask ? tilesOfWeights : std::clamp(inL2, fewestTiles, mostTiles), mr);
  auto tasks = [&] { return shape.groups * llvm::divideCeil(allTiles, blockTiles) * parts(); };
  while (tasks() < wantedTiles && columns > nr())
    columns = llvm::alignTo(columns / 2, nr());
  while (tasks() < wantedTiles && blockTiles > 2 * mr && !weightsByTask)
    blockTiles = llvm::alignTo(blockTiles / 2, mr);
}

int64_t Winograd::channelBlocks() const { return llvm::divideCeil(shape.reduced, channelBlock); }

int64_t Winograd::planeElements() const {
  // Whole vectors of pixels are written. Planes an odd number of lines apart do not crowd into the same part of the cache.
  const int64_t line = lineBytes * 8 / element.getIntOrFloatBitWidth();
  int64_t plane = (extent(0) * extent(1) + lanes) * channelBlock;
  return plane / line % 2 ? plane : plane + line;
}

/// Matrices of points follow each other a line further apart than their size, which may be a multiple of a page: their elements are written and read together.
static int64_t apart(int64_t elements, FloatType element) {
  const int64_t line = lineBytes * 8 / element.getIntOrFloatBitWidth();
  return llvm::alignTo(elements, line) + line;
}

int64_t Winograd::weightPoint() const { return apart((weightsByTask ? kBlock : shape.reduced) * nr(), element); }
// A place of a filter after the other, of which each writes whole vectors.
int64_t Winograd::rawWeightElements() const { return (weightChunk * taps * taps + 2 * channelBlock) * nr(); }
int64_t Winograd::inputPoint() const { return apart(blockTiles * kBlock, element); }
int64_t Winograd::inputElements() const { return llvm::divideCeil(shape.reduced, kBlock) * points() * inputPoint(); }
int64_t Winograd::productPoint() const { return apart(llvm::alignTo(blockTiles, gemm.rows()) * columns, element); }
int64_t Winograd::runTiles() const { return std::min(runPixels / m, shape.tiles(1, m)); }
int64_t Winograd::runStride() const { return llvm::alignTo(runTiles() * m, lanes) + lanes; }

int64_t Winograd::runElements() const { return m * runRow() + llvm::alignTo(columns, lanes) * runStride(); }

int64_t Winograd::scratchElements() const {
  int64_t product = inputElements() + points() * productPoint() + runElements();
  if (weightsByTask)
    product += columns / nr() * weightPanel() + rawWeightElements();
  return llvm::alignTo(std::max(rawWeightElements(), product) + lanes, lineBytes * 8 / element.getIntOrFloatBitWidth());
}

AffineExpr Winograd::workspaceElements(AffineExpr images) const { return images * (shape.groups * channelBlocks() * planeElements()); }
AffineExpr Winograd::panelElements(AffineExpr images) const { return getAffineConstantExpr(weightElements(), element.getContext()); }

std::string Winograd::describe() const {
  return llvm::formatv("winograd {0} {1}x{2} tile {3}x{4} k {5}{6}", m, gemm.rows(), nr(), blockTiles, columns, kBlock, weightsByTask ? " weights by task" : "");
}

//===--- emission ---===//

struct Winograd::Emitter : ProductEmitter {
  const Winograd &w;
  Value count; // of images
  const ConvolutionOperands *operands;

  Emitter(const Winograd &w, OpBuilder &b, Location loc, Value count, const ConvolutionOperands *operands)
      : ProductEmitter(w.cpu, w.element, b, loc), w(w), count(count), operands(operands) {}

  Value rem(Value x, int64_t y) { return ProductEmitter::rem(x, index(y)); }
  Value min(Value x, int64_t y) { return ProductEmitter::min(x, index(y)); }

  //===--- the transformations ---===//

  Value splat(double value) { return arith::ConstantOp::create(b, loc, vectorType(), SplatElementsAttr::get(vectorType(), b.getFloatAttr(element, value))); }
  Value plus(Value x, Value y) { return arith::AddFOp::create(b, loc, x, y); }
  Value minus(Value x, Value y) { return arith::SubFOp::create(b, loc, x, y); }
  Value times(double factor, Value x) { return arith::MulFOp::create(b, loc, splat(factor), x); }
  /// factor * x + y.
  Value fma(double factor, Value x, Value y) {
    if (factor == 1)
      return plus(y, x);
    if (factor == -1)
      return minus(y, x);
    return math::FmaOp::create(b, loc, splat(factor), x, y);
  }

  // In each the values at the points come in the order 0, then p and -p of every pair, infinity. Where x of degree m + 1 is written for an input, it is the product of all (t - q) but the point's own.

  /// B^T d: m + 2 inputs.
  Vectors transformInput(ArrayRef<Value> d) {
    ArrayRef<double> pairs = pointsOf(w.m);
    if (w.m == 2)
      return {minus(d[2], d[0]), plus(d[2], d[1]), minus(d[2], d[1]), minus(d[3], d[1])};
    const double a = pairs[0] * pairs[0], c = pairs[1] * pairs[1];
    // t (t^2 - a) (t^2 - c) for infinity, and without its t for 0.
    auto outer = [&](Value x1, Value x3, Value x5) { return fma(a * c, x1, fma(-(a + c), x3, x5)); };
    Vectors out{outer(d[0], d[2], d[4])};
    for (int pair : {0, 1}) {
      // (t^2 +- p t) (t^2 - the other's square)
      double other = pair == 0 ? c : a;
      Value even = fma(-other, d[2], d[4]), odd = fma(-other, d[1], d[3]);
      out.push_back(fma(pairs[pair], odd, even));
      out.push_back(fma(-pairs[pair], odd, even));
    }
    out.push_back(outer(d[1], d[3], d[5]));
    return out;
  }

  /// G w: three weights. The values at the points, each divided by the product of its distances to the other points.
  Vectors transformWeight(ArrayRef<Value> g) {
    ArrayRef<double> pairs = pointsOf(w.m);
    double atZero = 1;
    for (double p : pairs)
      atZero *= -p * p;
    Vectors out{times(1 / atZero, g[0])};
    for (double p : pairs) {
      double distances = 2 * p * p;
      for (double q : pairs)
        if (q != p)
          distances *= p * p - q * q;
      Value even = fma(p * p / distances, g[2], times(1 / distances, g[0])), odd = times(p / distances, g[1]);
      out.push_back(plus(even, odd));
      out.push_back(minus(even, odd));
    }
    out.push_back(g[2]);
    return out;
  }

  /// A^T x: the sums over points of p^i times the value there, i below m; infinity counts for the last one.
  Vectors transformOutput(ArrayRef<Value> x) {
    ArrayRef<double> pairs = pointsOf(w.m);
    Vectors sums, differences, out;
    for (size_t pair = 0; pair < pairs.size(); ++pair) {
      sums.push_back(plus(x[1 + 2 * pair], x[2 + 2 * pair]));
      differences.push_back(minus(x[1 + 2 * pair], x[2 + 2 * pair]));
    }
    for (int64_t i = 0; i < w.m; ++i) {
      Value sum = i == 0 ? x.front() : i + 1 == w.m ? x.back() : Value();
      for (size_t pair = 0; pair < pairs.size(); ++pair) {
        Value each = i % 2 ? differences[pair] : sums[pair];
        double power = 1;
        for (int64_t factor = 0; factor < i; ++factor)
          power *= pairs[pair];
        sum = sum ? fma(power, each, sum) : power == 1 ? each : times(power, each);
      }
      out.push_back(sum);
    }
    return out;
  }

  /// A transformation of a square along both axes: of columns, then of rows.
  void transformSquare(int64_t size, llvm::function_ref<Value(int64_t row, int64_t column)> get, llvm::function_ref<Vectors(ArrayRef<Value>)> transform,
                       llvm::function_ref<void(int64_t row, int64_t column, Value)> put) {
    SmallVector<Vectors> columns;
    for (int64_t column = 0; column < size; ++column) {
      Vectors values;
      for (int64_t row = 0; row < size; ++row)
        values.push_back(get(row, column));
      columns.push_back(transform(values));
    }
    for (size_t row = 0; row < columns.front().size(); ++row) {
      Vectors values;
      for (Vectors &each : columns)
        values.push_back(each[row]);
      for (auto [column, value] : llvm::enumerate(transform(values)))
        put(row, column, value);
    }
  }

  std::string name(StringRef what) { return llvm::formatv("dl.winograd{0}_{1}_{2}_{3}", w.m, what, typeName(), lanes).str(); }

  /// Transforms a tile's inputs in blocks of channels. Arguments: the images, the tile's first pixel, from row to row, from block to block; how many blocks; where the transformed inputs lie, the
  /// first of this tile, from point to point.
  func::FuncOp inputFunction() {
    Type memory = memoryType(), idx = b.getIndexType();
    return outlined(name("input"), {memory, idx, idx, idx, idx, memory, idx, idx}, [&](ValueRange a) {
      Value images = a[0], from = a[1], row = a[2], block = a[3], blocks = a[4], memory = a[5], to = a[6], point = a[7];
      loop(index(0), blocks, [&](Value number) {
        loop(index(0), index(channelBlock), index(lanes), [&](Value lane) {
          Value begin = add(add(from, mul(number, block)), lane), target = add(add(to, mul(number, channelBlock)), lane);
          transformSquare(
              w.m + 2, [&](int64_t i, int64_t j) { return load(images, add(add(begin, mul(row, i)), j * channelBlock)); },
              [&](ArrayRef<Value> values) { return transformInput(values); }, [&](int64_t i, int64_t j, Value value) { store(value, memory, add(target, mul(point, i * (w.m + 2) + j))); });
        });
      });
    });
  }

  /// Transforms the weights of a panel. Arguments: the weights, transposed to nr columns; the first place of a filter, from place to place (negative: turned around); how many reduced channels;
  /// where the transformed weights lie, the first of these, from point to point.
  func::FuncOp weightFunction() {
    Type memory = memoryType(), idx = b.getIndexType();
    return outlined(name("weight") + "x" + std::to_string(w.nr()), {memory, idx, idx, idx, memory, idx, idx}, [&](ValueRange a) {
      Value weights = a[0], from = a[1], place = a[2], channels = a[3], memory = a[4], to = a[5], point = a[6];
      loop(index(0), channels, [&](Value channel) {
        loop(index(0), index(w.nr()), index(lanes), [&](Value lane) {
          Value begin = add(add(from, mul(channel, taps * taps * w.nr())), lane), target = add(add(to, mul(channel, w.nr())), lane);
          transformSquare(
              taps, [&](int64_t i, int64_t j) { return load(weights, add(begin, mul(place, i * taps + j))); }, [&](ArrayRef<Value> values) { return transformWeight(values); },
              [&](int64_t i, int64_t j, Value value) { store(value, memory, add(target, mul(point, i * (w.m + 2) + j))); });
        });
      });
    });
  }

  /// Transforms a tile's products back. Arguments: the scratch memory; the tile's products at the first point, from point to point; how many channels; where the tile's first pixel goes, from row to
  /// row, from pixel to pixel.
  func::FuncOp outputFunction() {
    Type memory = memoryType(), idx = b.getIndexType();
    return outlined(name("output"), {memory, idx, idx, idx, idx, idx, idx}, [&](ValueRange a) {
      Value memory = a[0], from = a[1], point = a[2], channels = a[3], to = a[4], row = a[5], pixel = a[6];
      loop(index(0), channels, index(lanes), [&](Value lane) {
        Value begin = add(from, lane), target = add(to, lane);
        transformSquare(
            w.m + 2, [&](int64_t i, int64_t j) { return load(memory, add(begin, mul(point, i * (w.m + 2) + j))); }, [&](ArrayRef<Value> values) { return transformOutput(values); },
            [&](int64_t i, int64_t j, Value value) { store(value, memory, add(add(target, mul(row, i)), mul(pixel, j))); });
      });
    });
  }

  //===--- the first launch ---===//

  void clear(Value at, Value pixels) {
    loop(at, add(at, mul(pixels, channelBlock)), index(lanes), [&](Value each) { store(zeroVector(), operands->workspace, each); });
  }
  /// A block of channels of one image. Rows follow each other; what whole vectors write behind the end of one, the next overwrites.
  void copyPlane(Value number) {
    const int64_t size = w.shape.source[0] * w.shape.source[1], width = w.extent(1);
    const int64_t lead = std::max<int64_t>(w.shape.front[1], 0), skipped = std::max<int64_t>(-w.shape.front[1], 0), length = std::min(w.shape.source[1] - skipped, width - lead);
    Value channel = mul(rem(number, w.channelBlocks()), channelBlock), image = div(number, w.channelBlocks());
    Value from = mul(add(mul(image, w.shape.reduced), channel), size), to = mul(number, w.planeElements());
    Value channels = min(sub(index(w.shape.reduced), channel), channelBlock);
    loop(w.extent(0), [&](Value row) {
      Value source = add(row, -w.shape.front[0]), begin = add(to, mul(row, width * channelBlock));
      Value exists = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ult, source, index(w.shape.source[0]));
      when(exists, [&] {
        func::CallOp::create(b, loc, transposition(),
                             ValueRange{operands->lhs, add(add(from, mul(source, w.shape.source[1])), skipped), index(size), channels, index(length), operands->workspace,
                                        add(begin, lead * channelBlock), index(channelBlock)});
      });
      clear(begin, arith::SelectOp::create(b, loc, exists, index(lead), index(lead + length)));
      clear(add(begin, (lead + length) * channelBlock), index(width - lead - length));
    });
  }

  /// `channels` reduced channels of a panel of a group, from `chunk` on, at most weightChunk. `raw`: where in the scratch memory they are on their way; `to`: where the first one's first point goes.
  void transformWeights(Value group, Value panel, Value chunk, Value channels, Value raw, Value memory, Value to) {
    const int64_t nr = w.nr(), each = taps * taps;
    Value column = mul(panel, nr), rows = min(sub(index(w.shape.channels), column), nr);
    const bool isInput = w.kind == R::input;
    auto transpose = [&](Value from, int64_t row, Value columns, Value to) {
      func::CallOp::create(b, loc, transposition(), ValueRange{operands->rhs, from, index(row), rows, columns, operands->scratch, to, index(nr)});
    };
    // The weight is [output channels of the convolution, input channels in a group, 3, 3].
    if (isInput)
      loop(index(0), channels, [&](Value channel) {
        Value at = add(mul(add(mul(group, w.shape.reduced), add(chunk, channel)), w.shape.channels), column);
        transpose(mul(at, each), each, index(each), add(raw, mul(channel, each * nr)));
      });
    else
      transpose(mul(add(mul(add(mul(group, w.shape.channels), column), w.shape.reduced), chunk), each), w.shape.reduced * each, mul(channels, each), raw);
    func::CallOp::create(b, loc, weightFunction(),
                         ValueRange{operands->scratch, add(raw, isInput ? (each - 1) * nr : 0), index(isInput ? -nr : nr), channels, memory, to, index(w.weightPoint())});
  }

  int64_t weightChunks() { return llvm::divideCeil(w.shape.reduced, weightChunk); }
  void copyWeights(Value number) {
    Value chunk = mul(rem(number, weightChunks()), weightChunk), panelNumber = div(number, weightChunks());
    transformWeights(div(panelNumber, w.panels()), rem(panelNumber, w.panels()), chunk, min(sub(index(w.shape.reduced), chunk), weightChunk), index(0), operands->panels,
                     add(mul(panelNumber, w.weightPanel()), mul(chunk, w.nr())));
  }

  int64_t weightUnits() { return w.shape.groups * w.panels() * weightChunks(); }
  /// What a launch before the last one writes.
  bool copiesImages(unsigned launch) const { return launch + 2 == w.launchCount(); }
  bool writesWeights(unsigned launch) const { return launch == 0 && !w.weightsByTask; }
  Value copyTasks(unsigned launch) {
    Value images = copiesImages(launch) ? mul(count, w.shape.groups * w.channelBlocks() * w.planeElements()) : index(0);
    return ceilDiv(add(images, writesWeights(launch) ? w.weightElements() : 0), elementsPerCopy);
  }
  void copyKernel(unsigned launch, Value begin, Value end) {
    Value all = max(copyTasks(launch), index(1));
    auto each = [&](Value units, llvm::function_ref<void(Value)> body) { loop(share(begin, units, all), share(end, units, all), body); };
    if (copiesImages(launch))
      each(mul(count, w.shape.groups * w.channelBlocks()), [&](Value plane) { copyPlane(plane); });
    if (writesWeights(launch))
      each(index(weightUnits()), [&](Value unit) { copyWeights(unit); });
  }

  //===--- the second launch ---===//

  Value allTiles() { return mul(count, w.tilesOfImage()); }
  Value blocks() { return ceilDiv(allTiles(), w.blockTiles); }
  Value units() { return mul(blocks(), w.shape.groups * w.parts()); }
  Value productTasks() {
    // As many as there are units, unless they are so small that handing them out would cost more than doing them.
    double cycles = static_cast<double>(w.points()) * (w.blockTiles / w.gemm.rows()) * (w.columns / w.nr()) * w.shape.reduced * cyclesPerStep(w.gemm.rows(), w.nr() / lanes);
    return ceilDiv(units(), std::max<int64_t>(1, static_cast<int64_t>(taskCycles / cycles)));
  }

  Value inputBlock(Value number) { return mul(number, w.points() * w.inputPoint()); }

  void transformInputs(Value group, Value tile0, Value tiles) {
    const int64_t width = w.shape.tiles(1, w.m), blocksOfStep = w.kBlock / channelBlock;
    loop(index(0), tiles, [&](Value each) {
      Value number = add(tile0, each), line = div(number, width), x = rem(number, width), y = rem(line, w.shape.tiles(0, w.m)), image = div(line, w.shape.tiles(0, w.m));
      Value plane = mul(add(mul(image, w.shape.groups), group), w.channelBlocks());
      Value pixel = mul(add(mul(y, w.m * w.extent(1)), mul(x, w.m)), channelBlock);
      loop(llvm::divideCeil(w.shape.reduced, w.kBlock), [&](Value step) {
        Value block = mul(step, blocksOfStep), blocks = min(sub(index(w.channelBlocks()), block), blocksOfStep);
        Value from = add(mul(add(plane, block), w.planeElements()), pixel);
        func::CallOp::create(b, loc, inputFunction(),
                             ValueRange{operands->workspace, from, index(w.extent(1) * channelBlock), index(w.planeElements()), blocks, operands->scratch,
                                        add(inputBlock(step), mul(each, w.kBlock)), index(w.inputPoint())});
      });
    });
  }

  void multiply(Value group, Value panel0, Value panelCount, Value tiles) {
    func::FuncOp micro = w.gemm.microKernel(b, loc);
    const int64_t mr = w.gemm.rows(), nr = w.nr(), weights = w.inputElements() + w.points() * w.productPoint() + w.runElements();
    loop(llvm::divideCeil(w.shape.reduced, w.kBlock), [&](Value step) {
      Value k0 = mul(step, w.kBlock), steps = min(sub(index(w.shape.reduced), k0), w.kBlock);
      Value first = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, step, index(0));
      if (w.weightsByTask)
        loop(index(0), panelCount, [&](Value panel) {
          loop(index(0), steps, index(weightChunk), [&](Value chunk) {
            transformWeights(group, add(panel0, panel), add(k0, chunk), min(sub(steps, chunk), weightChunk), index(weights + w.columns / nr * w.weightPanel()), operands->scratch,
                             add(add(mul(panel, w.weightPanel()), mul(chunk, nr)), weights));
          });
        });
      loop(w.points(), [&](Value point) {
        Value inputs = mul(point, w.inputPoint()), products = add(mul(point, w.productPoint()), w.inputElements());
        Value place = mul(point, w.weightPoint());
        loop(index(0), panelCount, [&](Value panel) {
          Value bAt = w.weightsByTask ? add(add(mul(panel, w.weightPanel()), place), weights)
                                      : add(add(mul(add(mul(group, w.panels()), add(panel0, panel)), w.weightPanel()), place), mul(k0, nr));
          loop(index(0), tiles, index(mr), [&](Value row) {
            func::CallOp::create(b, loc, micro,
                                 ValueRange{operands->scratch, add(add(inputBlock(step), inputs), mul(row, w.kBlock)), index(w.kBlock), index(1), min(sub(tiles, row), mr),
                                            w.weightsByTask ? operands->scratch : operands->panels, bAt, index(nr), operands->scratch,
                                            add(add(products, mul(row, w.columns)), mul(panel, nr)), index(w.columns), steps, first});
          });
        });
      });
    });
  }

  /// Transforms tiles from `tile` on back, which are neighbours in a row of the image, and hands them to the epilogue.
  void finishRun(Value block, Value channel0, Value channels, Value tile, Value tiles, Value image, Value y, Value x, ConvolutionEpilogue epilogue) {
    const int64_t rows = w.inputElements() + w.points() * w.productPoint(), line = rows + w.m * w.runRow(), width = w.shape.target[1];
    loop(index(0), tiles, [&](Value each) {
      Value from = add(mul(add(sub(tile, block), each), w.columns), w.inputElements());
      func::CallOp::create(b, loc, outputFunction(),
                           ValueRange{operands->scratch, from, index(w.productPoint()), channels, add(mul(each, w.m * w.columns), rows), index(w.runRow()), index(w.columns)});
    });
    Value y0 = mul(y, w.m), x0 = mul(x, w.m), x1 = min(mul(add(x, tiles), w.m), width);
    loop(index(0), min(sub(index(w.shape.target[0]), y0), w.m), [&](Value row) {
      func::CallOp::create(b, loc, transposition(),
                           ValueRange{operands->scratch, add(mul(row, w.runRow()), rows), index(w.columns), sub(x1, x0), channels, operands->scratch, index(line), index(w.runStride())});
      loop(index(0), channels, [&](Value channel) {
        Value begin = add(mul(channel, w.runStride()), line);
        const bool areWhole = width % lanes == 0 && w.runTiles() * w.m % lanes == 0;
        neighbours(x0, x1, areWhole, width < lanes, [&](Value at, Value mask) {
          ElementIndex to;
          to.dims = {image, add(channel0, channel), add(y0, row), at};
          epilogue(b, loc, to, load(operands->scratch, add(begin, sub(at, x0))), lanes, mask);
        });
      });
    });
  }

  void productKernel(Value begin, Value end, ConvolutionEpilogue epilogue) {
    Value tasks = max(productTasks(), index(1)), all = units(), blockCount = blocks(), tileCount = allTiles();
    loop(share(begin, all, tasks), share(end, all, tasks), [&](Value unit) {
      Value part = rem(unit, w.parts()), entry = div(unit, w.parts());
      Value block = mul(ProductEmitter::rem(entry, blockCount), w.blockTiles), group = ProductEmitter::div(entry, blockCount);
      Value tiles = min(sub(tileCount, block), w.blockTiles);
      // Parts of the channels follow each other: what they share is transformed once.
      Value kept = memref::LoadOp::create(b, loc, operands->kept, ValueRange{index(0)});
      Value wanted = arith::IndexCastOp::create(b, loc, b.getI64Type(), entry);
      when(arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ne, kept, wanted), [&] {
        transformInputs(group, block, tiles);
        memref::StoreOp::create(b, loc, wanted, operands->kept, ValueRange{index(0)});
      });
      const int64_t panelsOfPart = w.columns / w.nr(), width = w.shape.tiles(1, w.m), height = w.shape.tiles(0, w.m);
      Value panel = mul(part, panelsOfPart), column = mul(part, w.columns), channels = min(sub(index(w.shape.channels), column), w.columns);
      multiply(group, panel, ceilDiv(channels, w.nr()), tiles);
      Value last = add(block, tiles), channel0 = add(mul(group, w.shape.channels), column);
      loop(div(block, width), ceilDiv(last, width), [&](Value line) {
        Value first = mul(line, width), from = max(first, block), to = ProductEmitter::min(add(first, width), last);
        loop(from, to, index(w.runTiles()), [&](Value tile) {
          Value run = min(sub(to, tile), w.runTiles());
          finishRun(block, channel0, channels, tile, run, div(line, height), rem(line, height), sub(tile, first), epilogue);
        });
      });
    });
  }
};

//===--- the interface ---===//

Value Winograd::tasks(unsigned launch, OpBuilder &b, Location loc, Value images) const {
  Emitter emitter(*this, b, loc, images, nullptr);
  return launch + 1 < launchCount() ? emitter.copyTasks(launch) : emitter.productTasks();
}

void Winograd::emit(unsigned launch, OpBuilder &b, Location loc, const ConvolutionOperands &operands, Value begin, Value end, bool, ConvolutionEpilogue epilogue) const {
  Emitter emitter(*this, b, loc, operands.images, &operands);
  if (launch + 1 < launchCount())
    emitter.copyKernel(launch, begin, end);
  else
    emitter.productKernel(begin, end, epilogue);
}

} // namespace dlc::cpu
