//===- Convolution.cpp - convolutions as products through shifted images -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/lowering/cpu/Convolution.h"
#include "compiler/lowering/cpu/ProductEmitter.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/MathExtras.h"
#include <cmath>
#include <numeric>

using namespace mlir;
using namespace dlc::dl;

namespace dlc::cpu {

using R = ConvolutionResult;

/// Positions that a tile has at most where they are columns, and where they are rows.
static constexpr int64_t widestTile = 512, highestTile = 128;
/// Rows of a tile of channels, or of a weight; columns of one of channels.
static constexpr int64_t channelRows = 64, weightRows = 96, channelColumns = 256;
/// Elements that a task of the copy works on.
static constexpr int64_t elementsPerCopy = 16384;
/// Cycles for each vector that is gathered with a stride.
static constexpr double gatherCycles = 30;

Convolution::Convolution(ConvolutionOp op, const CpuInfo &cpu)
    : kind(op.getKind()), element(cast<FloatType>(op.getTypeOf(R::weight).getElementType())), cpu(cpu), lanes(cpu.lanes(element)), imageCount(op.getTypeOf(R::input).getDimSize(0)),
      groups(op.getGroups()), o(op.getTypeOf(R::weight).getDimSize(0) / groups), c(op.getTypeOf(R::weight).getDimSize(1)), p(op.getImageOf(R::output)), i(op.getImageOf(R::input)),
      k(op.getImageOf(R::weight)), strides(op.getStrides()), paddings(op.getPaddings()), dilations(op.getDilations()) {
  plan = choosePlan();
  images = layout(plan.schedule);
  tableSteps = stepsOf(plan);
}

//===--- sizes ---===//

int64_t Convolution::parts() const {
  int64_t all = 1;
  for (int64_t axis = 0; axis < axes(); ++axis)
    all *= remainders(axis);
  return all;
}

int64_t Convolution::firstPosition(int64_t axis, int64_t remainder) const { return isInput() ? llvm::divideCeilSigned(paddings[axis] - remainder, strides[axis]) : 0; }

int64_t Convolution::positionCount(int64_t axis, int64_t remainder) const {
  if (isWeight() || !isInput())
    return p[axis];
  int64_t last = llvm::divideFloorSigned(i[axis] - 1 + paddings[axis] - remainder, strides[axis]);
  return std::max<int64_t>(last - firstPosition(axis, remainder) + 1, 0);
}

int64_t Convolution::mostPositions(int64_t axis) const {
  int64_t most = 0;
  for (int64_t remainder = 0; remainder < remainders(axis); ++remainder)
    most = std::max(most, positionCount(axis, remainder));
  return most;
}

int64_t Convolution::placeStep(int64_t axis) const { return isInput() ? strides[axis] / std::gcd(strides[axis], dilations[axis]) : 1; }

std::pair<int64_t, int64_t> Convolution::placesOf(int64_t axis, int64_t remainder) const {
  if (!isInput())
    return {0, k[axis]};
  for (int64_t place = 0; place < std::min(k[axis], placeStep(axis)); ++place)
    if (place * dilations[axis] % strides[axis] == remainder)
      return {place, llvm::divideCeil(k[axis] - place, placeStep(axis))};
  return {0, 0};
}

Convolution::Images Convolution::layout(Schedule schedule) const {
  Images images;
  images.phased = kind == R::output && schedule == Schedule::Wide && llvm::any_of(strides, [](int64_t stride) { return stride != 1; });
  bool staysInside = schedule != Schedule::Wide;
  for (int64_t axis = 0; axis < axes(); ++axis) {
    int64_t extent, front = paddings[axis], reach = (k[axis] - 1) * dilations[axis];
    if (isInput()) {
      // A part's position j reads the elements j - place * dilation / stride.
      int64_t last = 0;
      front = std::numeric_limits<int64_t>::min();
      for (int64_t remainder = 0; remainder < strides[axis]; ++remainder) {
        auto [first, count] = placesOf(axis, remainder);
        int64_t position = firstPosition(axis, remainder), positions = positionCount(axis, remainder);
        if (count == 0 || positions == 0)
          continue;
        front = std::max(front, (first + (count - 1) * placeStep(axis)) * dilations[axis] / strides[axis] - position);
      }
      if (front == std::numeric_limits<int64_t>::min())
        front = 0;
      for (int64_t remainder = 0; remainder < strides[axis]; ++remainder) {
        auto [first, count] = placesOf(axis, remainder);
        int64_t positions = positionCount(axis, remainder);
        if (count && positions)
          last = std::max(last, firstPosition(axis, remainder) + positions - 1 - first * dilations[axis] / strides[axis] + front);
      }
      extent = last + 1;
    } else if (images.phased) {
      extent = p[axis] + reach / strides[axis];
    } else {
      extent = (p[axis] - 1) * strides[axis] + reach + 1;
    }
    images.extent.push_back(extent);
    images.front.push_back(front);
    staysInside &= front == 0 && extent <= source()[axis];
  }
  images.inPlace = staysInside;
  if (images.inPlace) {
    images.dims = source();
    images.part = images.plane = ShapedType::getNumElements(source());
    images.image = groups * sourceChannels() * images.plane;
    return images;
  }
  // Zeros at both ends of a row.
  const int64_t last = axes() - 1, extent = images.extent[last], size = source()[last];
  int64_t leading = extent, trailing = extent;
  for (int64_t remainder = 0; remainder < (images.phased ? strides[last] : 1); ++remainder) {
    auto isZero = [&](int64_t at) {
      int64_t from = (images.phased ? at * strides[last] + remainder : at) - images.front[last];
      return from < 0 || from >= size;
    };
    int64_t before = 0, behind = 0;
    while (before < extent && isZero(before))
      ++before;
    while (behind < extent && isZero(extent - 1 - behind))
      ++behind;
    leading = std::min(leading, before);
    trailing = std::min(trailing, behind);
  }
  const int64_t shared = std::min({leading, trailing, extent - 1});
  images.dims = images.extent;
  images.dims.back() -= shared;
  images.part = ShapedType::getNumElements(images.dims);
  // Whole vectors are written. Planes an odd number of lines apart do not crowd into the same part of the cache.
  const int64_t line = lineBytes * 8 / element.getIntOrFloatBitWidth(), parts = images.phased ? ShapedType::getNumElements(strides) : 1;
  images.plane = llvm::alignTo(parts * images.part + shared + lanes, line);
  if (images.plane / line % 2 == 0)
    images.plane += line;
  images.image = groups * sourceChannels() * images.plane;
  return images;
}

int64_t Convolution::linesOfImage(Schedule schedule) const {
  if (axes() == 1)
    return 1;
  int64_t lines = mostPositions(0);
  SmallVector<int64_t> between = schedule == Schedule::Wide ? layout(schedule).dims : Sizes();
  for (int64_t axis = 1; axis + 1 < axes(); ++axis)
    lines *= schedule == Schedule::Wide ? between[axis] : mostPositions(axis);
  return lines;
}

int64_t Convolution::lineParts() const { return plan.part ? llvm::divideCeil(mostPositions(axes() - 1), plan.part) : 1; }

int64_t Convolution::stepsOf(const Plan &plan) const {
  if (plan.schedule == Schedule::Weight)
    return plan.blockImages * plan.blockSlices * ShapedType::getNumElements(ArrayRef(p).drop_front());
  int64_t most = sourceChannels();
  for (int64_t axis = 0; axis < axes(); ++axis) {
    int64_t count = 0;
    for (int64_t remainder = 0; remainder < remainders(axis); ++remainder)
      count = std::max(count, placesOf(axis, remainder).second);
    most *= count;
  }
  return most;
}

int64_t Convolution::rowTableElements() const { return llvm::alignTo(plan.rows, plan.mr); }
int64_t Convolution::panels() const { return llvm::divideCeil(channels(), nr()); }

int64_t Convolution::panelElements() const {
  switch (kind) {
  case R::output:
    return llvm::alignTo(c * ShapedType::getNumElements(k), lanes) * nr();
  case R::input: // a place of the kernel after the other, of which each writes whole vectors
    return (o * ShapedType::getNumElements(k) + lanes) * nr();
  case R::weight:
    return llvm::alignTo(ShapedType::getNumElements(p), lanes) * nr();
  }
  llvm_unreachable("no such tensor");
}

int64_t Convolution::matrixElements() const { return plan.schedule == Schedule::Wide ? 0 : groups * panels() * panelElements(); }

//===--- the schedule ---===//

Convolution::Plan Convolution::planOf(Schedule schedule, int64_t mr, int64_t nv) const {
  const int64_t nr = nv * lanes, bytes = element.getIntOrFloatBitWidth() / 8, kernel = ShapedType::getNumElements(k), last = axes() - 1;
  const int64_t batch = orAssumed(imageCount), row = std::max<int64_t>(mostPositions(last), 1);
  const Images images = layout(schedule);
  Plan plan;
  plan.schedule = schedule;
  plan.mr = mr;
  plan.nv = nv;
  // Vectors of images cross lines of the cache; a step reads the table.
  const double loads = (mr + nv * (schedule == Schedule::Wide ? 1.5 : 1) + 2) / 2.0;
  const double step = std::max(cyclesPerStep(mr, nv), loads), call = callCycles + accumulatorCycles * mr * nv;
  // Steps whose panel of vectors stays in L1, beside what passes by.
  const int64_t wantedSteps = std::max<int64_t>(128, cpu.l1Bytes * 3 / 4 / (nr * bytes));
  const double copy = images.inPlace ? 0 : (images.phased ? gatherCycles : copyCycles) * batch * images.image / lanes;

  if (schedule == Schedule::Weight) {
    const int64_t positions = std::max<int64_t>(ShapedType::getNumElements(p), 1), slice = std::max<int64_t>(positions / std::max<int64_t>(p[0], 1), 1);
    plan.blockSlices = p[0];
    if (positions <= wantedSteps)
      plan.blockImages = std::min(std::max<int64_t>(wantedSteps / positions, 1), ShapedType::isDynamic(imageCount) ? wantedSteps : std::max<int64_t>(imageCount, 1));
    else
      plan.blockSlices = balancedPart(p[0], std::max<int64_t>(wantedSteps / slice, 1), 1);
    const int64_t rows = c * kernel, panels = llvm::divideCeil(o, nr);
    plan.rows = balancedPart(rows, weightRows, mr);
    plan.columns = balancedPart(panels, std::max<int64_t>(channelColumns / nr, 1), 1) * nr;
    auto tiles = [&] { return groups * llvm::divideCeil(rows, plan.rows) * llvm::divideCeil(panels * nr, plan.columns); };
    while (tiles() < wantedTiles && plan.rows > std::max<int64_t>(2 * mr, 16))
      plan.rows = llvm::alignTo(plan.rows / 2, mr);
    while (tiles() < wantedTiles && plan.columns > nr)
      plan.columns = llvm::alignTo(plan.columns / 2, nr);
    const double steps = static_cast<double>(batch) * positions, blocks = std::ceil(steps / std::max<int64_t>(stepsOf(plan), 1));
    const double groupsOfRows = static_cast<double>(rows / plan.rows) * llvm::divideCeil(plan.rows, mr) + llvm::divideCeil(rows % plan.rows, mr);
    plan.cycles = groups * groupsOfRows * panels * (steps * step + blocks * call) + transposeCycles * (groups * panels * nv * steps + double(groups) * rows * panels * nv) + copy;
    return plan;
  }

  const int64_t lines = std::max<int64_t>(linesOfImage(schedule), 1), reducedSteps = stepsOf(plan);
  plan.kBlock = balancedPart(std::max<int64_t>(reducedSteps, 1), wantedSteps, 8);
  const double blocks = llvm::divideCeil(std::max<int64_t>(reducedSteps, 1), plan.kBlock);
  // The parts of a result have as many steps as there are places of the kernel in all.
  const double steps = static_cast<double>(sourceChannels()) * kernel / parts();
  if (schedule == Schedule::Wide) {
    const int64_t rowLength = images.dims[last];
    double panels;
    if (row > widestTile) {
      plan.part = balancedPart(row, widestTile, nr);
      panels = static_cast<double>(lines) * llvm::divideCeil(row, plan.part) * (plan.part / nr);
      plan.columns = plan.part;
    } else {
      auto panelsWith = [&](int64_t count) { return lines / count * llvm::divideCeil(count * rowLength, nr) + llvm::divideCeil(lines % count * rowLength, nr); };
      for (int64_t count = 1; count <= std::min(lines, std::max<int64_t>(widestTile / rowLength, 1)); ++count)
        if (panelsWith(count) <= panelsWith(plan.lines))
          plan.lines = count;
      panels = panelsWith(plan.lines);
      plan.columns = llvm::alignTo(plan.lines * rowLength, nr);
    }
    plan.rows = balancedPart(channels(), channelRows, mr);
    auto tiles = [&] { return batch * groups * parts() * llvm::divideCeil(channels(), plan.rows) * (plan.part ? lines * llvm::divideCeil(row, plan.part) : llvm::divideCeil(lines, plan.lines)); };
    while (tiles() < wantedTiles && plan.rows > 2 * mr)
      plan.rows = llvm::alignTo(plan.rows / 2, mr);
    plan.cycles = static_cast<double>(batch) * groups * parts() * panels * llvm::divideCeil(channels(), mr) * (steps * step + blocks * call) + copy;
    return plan;
  }
  const int64_t panels = llvm::divideCeil(channels(), nr);
  const double allLines = static_cast<double>(lines) * batch;
  double groupsOfRows;
  if (row > highestTile) {
    plan.part = balancedPart(row, highestTile, mr);
    plan.rows = plan.part;
    groupsOfRows = allLines * llvm::divideCeil(row, plan.part) * (plan.part / mr);
  } else {
    auto waste = [&](int64_t count) { return static_cast<double>(llvm::divideCeil(count * row, mr)) / (count * row); };
    for (int64_t count = 1; count <= std::min<double>(allLines, highestTile / row); ++count)
      if (waste(count) <= waste(plan.lines))
        plan.lines = count;
    auto tiles = [&] { return allLines * groups * parts() / plan.lines * llvm::divideCeil(panels * nr, channelColumns); };
    while (tiles() < wantedTiles && plan.lines * row > 2 * mr && plan.lines > 1)
      plan.lines = llvm::divideCeil(plan.lines, 2);
    plan.rows = plan.lines * row;
    groupsOfRows = allLines / plan.lines * llvm::divideCeil(plan.rows, mr);
  }
  plan.columns = balancedPart(panels, std::max<int64_t>(channelColumns / nr, 1), 1) * nr;
  const double rows = static_cast<double>(batch) * ShapedType::getNumElements(target());
  plan.cycles = groups * parts() * groupsOfRows * panels * (steps * step + blocks * call) + copy +
                transposeCycles * (static_cast<double>(groups) * panels * nv * sourceChannels() * kernel + groups * rows * panels * nv);
  return plan;
}

Convolution::Plan Convolution::choosePlan() const {
  // The best of all, and the best with the usual micro-tile, which is taken if it is about as good: a model then has one micro-kernel for nearly everything.
  const int64_t usualRows = cpu.vectorRegisters >= 32 ? 4 : 6, usualVectors = cpu.vectorRegisters >= 32 ? 4 : 2;
  Plan best, usual;
  for (Schedule schedule : isWeight() ? SmallVector<Schedule>{Schedule::Weight} : SmallVector<Schedule>{Schedule::Wide, Schedule::Tall})
    for (int64_t nv = 1; nv <= 8; ++nv)
      for (int64_t mr = 1; mr <= maxRows; ++mr) {
        // Accumulators, a step's vectors, and the number that is spread.
        if (mr * nv + nv + 1 > cpu.vectorRegisters)
          continue;
        Plan plan = planOf(schedule, mr, nv);
        if (best.mr == 0 || plan.cycles < best.cycles)
          best = plan;
        if (mr == usualRows && nv == usualVectors && (usual.mr == 0 || plan.cycles < usual.cycles))
          usual = plan;
      }
  return usual.cycles <= 1.06 * best.cycles + sharedCycles ? usual : best;
}

std::string Convolution::describe() const {
  const char *names[] = {"wide", "tall", "weight"};
  std::string text = llvm::formatv("{0} {1}x{2} tile {3}x{4}", names[static_cast<int>(plan.schedule)], plan.mr, nr(), plan.rows, plan.columns);
  text += isWeight() ? llvm::formatv(" steps {0}", stepsOf(plan)).str() : llvm::formatv(" k {0}", plan.kBlock).str();
  if (parts() > 1)
    text += llvm::formatv(" parts {0}", parts()).str();
  return text + (images.inPlace ? " in place" : images.phased ? " divided" : "");
}

//===--- emission ---===//

struct Convolution::Emitter : ProductEmitter {
  const Convolution &cv;
  const Plan &plan;
  const Images &images;
  Value count; // of images
  const ConvolutionOperands *operands;
  const int64_t last;
  Value imagesMemory, imagesBase, matrixBase; // where images lie, and from where on; where panels of the other factor begin in the workspace

  Emitter(const Convolution &cv, OpBuilder &b, Location loc, Value count, const ConvolutionOperands *operands)
      : ProductEmitter(cv.cpu, cv.element, b, loc), cv(cv), plan(cv.plan), images(cv.images), count(count), operands(operands), last(cv.axes() - 1) {
    if (!operands)
      return;
    imagesMemory = images.inPlace ? operands->lhs : operands->workspace;
    imagesBase = index(images.inPlace ? 0 : plan.schedule == Schedule::Tall ? cv.matrixElements() : 0);
    matrixBase = plan.schedule == Schedule::Weight && !images.inPlace ? mul(count, images.image) : index(0);
  }

  using ProductEmitter::add;
  using ProductEmitter::div;
  using ProductEmitter::mul;
  using ProductEmitter::rem;
  Value mul(Value x, int64_t y) { return y == 1 ? x : ProductEmitter::mul(x, y); }
  Value div(Value x, int64_t y) { return y == 1 ? x : ProductEmitter::div(x, y); }
  Value rem(Value x, int64_t y) { return y == 1 ? index(0) : ProductEmitter::rem(x, index(y)); }
  Value both(Value x, Value y) { return !x ? y : !y ? x : b.createOrFold<arith::AndIOp>(loc, x, y); }
  void loop(Value from, Value to, llvm::function_ref<void(Value)> body) { ProductEmitter::loop(from, to, index(1), body); }
  void loop(int64_t to, llvm::function_ref<void(Value)> body) { loop(index(0), index(to), body); }

  /// The indices of a row-major number; the first one is not reduced, and takes what is beyond.
  template <typename Size> SmallVector<Value> indicesOf(Value number, ArrayRef<Size> sizes) {
    SmallVector<Value> out(sizes.size());
    for (size_t axis = sizes.size(); axis-- > 0;) {
      out[axis] = axis == 0 ? number : rem(number, sizes[axis]);
      if (axis)
        number = div(number, sizes[axis]);
    }
    return out;
  }
  /// From one place along an axis to the next.
  int64_t distance(int64_t axis) const { return ShapedType::getNumElements(ArrayRef(images.dims).drop_front(axis + 1)); }
  int64_t positionDistance(int64_t axis) const { return distance(axis) * (cv.isInput() || images.phased ? 1 : cv.strides[axis]); }
  Value positionOffset(ArrayRef<Value> at) {
    Value offset = index(0);
    for (auto [axis, index] : llvm::enumerate(at))
      offset = add(offset, mul(index, positionDistance(axis)));
    return offset;
  }

  /// A part of the result, and what is so for its axes.
  struct Part {
    SmallVector<Value> remainder, first, positions, place, places;
    Value steps;
  };
  /// A number that depends on the remainder along an axis.
  Value choose(int64_t axis, Value remainder, llvm::function_ref<int64_t(int64_t)> number) {
    Value chosen = index(number(0));
    bool isOne = true;
    for (int64_t r = 1; r < cv.remainders(axis); ++r)
      isOne &= number(r) == number(0);
    for (int64_t r = 1; !isOne && r < cv.remainders(axis); ++r) {
      Value is = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, remainder, index(r));
      chosen = arith::SelectOp::create(b, loc, is, index(number(r)), chosen);
    }
    return chosen;
  }
  Part partOf(Value number) {
    SmallVector<int64_t> remainders;
    for (int64_t axis = 0; axis <= last; ++axis)
      remainders.push_back(cv.remainders(axis));
    Part part;
    part.remainder = indicesOf(number, ArrayRef(remainders));
    part.steps = index(cv.sourceChannels());
    for (int64_t axis = 0; axis <= last; ++axis) {
      Value r = part.remainder[axis];
      part.first.push_back(choose(axis, r, [&](int64_t r) { return cv.firstPosition(axis, r); }));
      part.positions.push_back(choose(axis, r, [&](int64_t r) { return cv.positionCount(axis, r); }));
      part.place.push_back(choose(axis, r, [&](int64_t r) { return cv.placesOf(axis, r).first; }));
      part.places.push_back(choose(axis, r, [&](int64_t r) { return cv.placesOf(axis, r).second; }));
      part.steps = mul(part.steps, part.places.back());
    }
    return part;
  }
  /// How far a place of the kernel is from a position.
  Value placeOffset(ArrayRef<Value> place, const Part *part) {
    Value offset = index(0), number = index(0);
    for (int64_t axis = 0; axis <= last; ++axis) {
      Value reach = mul(place[axis], cv.dilations[axis]);
      if (cv.isInput()) {
        reach = sub(add(part->first[axis], images.front[axis]), div(reach, cv.strides[axis]));
      } else if (images.phased) {
        number = add(mul(number, cv.strides[axis]), rem(reach, cv.strides[axis]));
        reach = div(reach, cv.strides[axis]);
      }
      offset = add(offset, mul(reach, distance(axis)));
    }
    return images.phased ? add(offset, mul(number, images.part)) : offset;
  }

  //===--- the copy ---===//

  /// Elements of a row of the source at first + lane * stride; 0 where there is none. `exists` (null: yes) is of the row.
  Value elementsOf(Value memory, Value begin, Value exists, Value first, int64_t stride) {
    const int64_t size = cv.source().back();
    if (stride == 1) {
      Value end = sub(index(size), first), start = sub(index(0), first);
      if (exists)
        end = arith::SelectOp::create(b, loc, exists, end, index(0));
      Value ones = arith::ConstantOp::create(b, loc, maskType(), SplatElementsAttr::get(maskType(), b.getBoolAttr(true)));
      Value inside = arith::AndIOp::create(b, loc, mask(end), arith::XOrIOp::create(b, loc, mask(start), ones));
      return maskedLoad(memory, add(begin, first), inside);
    }
    auto numbers = VectorType::get({lanes}, b.getI32Type());
    SmallVector<int32_t> ramp;
    for (int64_t lane = 0; lane < lanes; ++lane)
      ramp.push_back(static_cast<int32_t>(lane * stride));
    Value at = vector::BroadcastOp::create(b, loc, numbers, arith::IndexCastOp::create(b, loc, b.getI32Type(), first));
    at = arith::AddIOp::create(b, loc, at, arith::ConstantOp::create(b, loc, DenseElementsAttr::get(numbers, ArrayRef<int32_t>(ramp))));
    // A negative index is large without a sign.
    Value sizes = arith::ConstantOp::create(b, loc, numbers, DenseElementsAttr::get(numbers, Attribute(b.getI32IntegerAttr(static_cast<int32_t>(size)))));
    Value inside = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ult, at, sizes);
    if (exists)
      inside = arith::AndIOp::create(b, loc, inside, vector::BroadcastOp::create(b, loc, maskType(), exists));
    return vector::GatherOp::create(b, loc, vectorType(), memory, ValueRange{begin}, at, inside, zeroVector());
  }

  /// One channel of one image, with its zeros. Rows follow each other; what a vector writes behind the end of one, the next overwrites.
  void copyPlane(Value number) {
    Value from = mul(number, ShapedType::getNumElements(cv.source())), to = add(imagesBase, mul(number, images.plane));
    SmallVector<int64_t> steps, sizes;
    for (int64_t axis = 0; axis <= last; ++axis)
      steps.push_back(images.phased ? cv.strides[axis] : 1);
    sizes = steps;
    sizes.append(images.extent.begin(), images.extent.end() - 1);
    loop(ShapedType::getNumElements(sizes), [&](Value row) {
      SmallVector<Value> at = indicesOf(row, ArrayRef(sizes));
      ArrayRef<Value> remainder = ArrayRef(at).take_front(last + 1), outer = ArrayRef(at).drop_front(last + 1);
      Value part = index(0), begin = index(0), offset = index(0), exists;
      for (int64_t axis = 0; axis <= last; ++axis) {
        part = add(mul(part, steps[axis]), remainder[axis]);
        if (axis == last)
          break;
        Value source = add(add(mul(outer[axis], steps[axis]), remainder[axis]), -images.front[axis]);
        exists = both(exists, arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ult, source, index(cv.source()[axis])));
        begin = mul(add(begin, source), cv.source()[axis + 1]);
        offset = add(offset, mul(outer[axis], distance(axis)));
      }
      begin = add(from, begin);
      Value rowTo = add(to, add(mul(part, images.part), offset)), start = add(remainder[last], -images.front[last]);
      ProductEmitter::loop(index(images.extent[last]), lanes, [&](Value w) {
        store(elementsOf(operands->lhs, begin, exists, add(mul(w, steps[last]), start), steps[last]), operands->workspace, add(rowTo, w));
      });
    });
  }

  /// A panel of the other factor, transposed.
  void transposePanel(Value number) {
    const int64_t kernel = ShapedType::getNumElements(cv.k);
    Value to = add(matrixBase, mul(number, cv.panelElements())), column = mul(rem(number, cv.panels()), cv.nr()), entry = div(number, cv.panels());
    Value rows = min(sub(index(cv.channels()), column), index(cv.nr()));
    auto transpose = [&](Value from, int64_t row, int64_t columns, Value to) {
      func::CallOp::create(b, loc, transposition(), ValueRange{operands->rhs, from, index(row), rows, index(columns), operands->workspace, to, index(cv.nr())});
    };
    switch (cv.kind) {
    case R::output:
      transpose(mul(add(mul(entry, cv.o), column), cv.c * kernel), cv.c * kernel, cv.c * kernel, to);
      break;
    case R::input:
      loop(cv.o, [&](Value channel) {
        transpose(mul(add(mul(add(mul(entry, cv.o), channel), cv.c), column), kernel), kernel, kernel, add(to, mul(channel, kernel * cv.nr())));
      });
      break;
    case R::weight:
      transpose(mul(add(mul(entry, cv.o), column), ShapedType::getNumElements(cv.p)), ShapedType::getNumElements(cv.p), ShapedType::getNumElements(cv.p), to);
      break;
    }
  }

  Value copyTasks() {
    int64_t each = images.inPlace ? 0 : images.image, once = 0;
    (plan.schedule == Schedule::Weight ? each : once) += cv.matrixElements();
    return ceilDiv(add(mul(count, index(each)), once), elementsPerCopy);
  }
  void copyKernel(Value begin, Value end) {
    Value all = max(copyTasks(), index(1));
    auto share = [&](Value units, llvm::function_ref<void(Value)> body) {
      loop(div(mul(begin, units), all), div(mul(end, units), all), body);
    };
    if (!images.inPlace)
      share(mul(count, index(cv.groups * cv.sourceChannels())), [&](Value plane) { copyPlane(plane); });
    if (plan.schedule != Schedule::Wide) {
      Value panels = index(cv.groups * cv.panels());
      share(plan.schedule == Schedule::Weight ? mul(count, panels) : panels, [&](Value panel) { transposePanel(panel); });
    }
  }

  //===--- the product ---===//

  MemRefType tableType() { return MemRefType::get({ShapedType::kDynamic}, b.getI64Type()); }
  void put(Value number, Value at) {
    memref::StoreOp::create(b, loc, arith::IndexCastOp::create(b, loc, b.getI64Type(), number), operands->tables, ValueRange{at});
  }
  Value take(Value memory, Value at) { return arith::IndexCastOp::create(b, loc, b.getIndexType(), memref::LoadOp::create(b, loc, memory, ValueRange{at})); }
  /// memory from an element on.
  Value from(Value memory, Value begin) {
    auto type = MemRefType::get({ShapedType::kDynamic}, element, StridedLayoutAttr::get(b.getContext(), ShapedType::kDynamic, {1}));
    Value all = index(std::numeric_limits<int64_t>::max());
    return memref::ReinterpretCastOp::create(b, loc, type, memory, OpFoldResult(begin), ArrayRef<OpFoldResult>{all}, ArrayRef<OpFoldResult>{b.getIndexAttr(1)});
  }

  /// c[mr, nr] += the sum over `count` steps of a[row + step] * b[step], or = when `first`: where rows and steps are stands in the tables.
  func::FuncOp microKernel() {
    Type memory = memoryType(), idx = b.getIndexType();
    return outlined(llvm::formatv("dl.shifted_{0}_{1}x{2}", typeName(), plan.mr, cv.nr()).str(), {tableType(), idx, idx, idx, memory, idx, memory, idx, memory, idx, idx, b.getI1Type()},
                    [&](ValueRange arguments) {
                      auto next = arguments.begin();
                      Value tables = *next++, rowAt = *next++, stepAt = *next++, count = *next++, a = *next++, aBase = *next++, bMemory = *next++, bBase = *next++, c = *next++, cAt = *next++,
                            cRow = *next++, first = *next++;
                      SmallVector<Value> rows, places;
                      for (int64_t row = 0; row < plan.mr; ++row) {
                        rows.push_back(from(a, add(aBase, take(tables, add(rowAt, row)))));
                        for (int64_t v = 0; v < plan.nv; ++v)
                          places.push_back(add(add(cAt, mul(cRow, row)), v * lanes));
                      }
                      multiplySteps(
                          plan.mr, plan.nv, from(bMemory, bBase), c, places, count, first, ValueRange{stepAt},
                          [&](ValueRange at, SmallVectorImpl<Value> &next) {
                            next.push_back(add(at[0], 2));
                            return Step{take(tables, at[0]), take(tables, add(at[0], 1))};
                          },
                          [&](int64_t row, Value step) { return memref::LoadOp::create(b, loc, rows[row], ValueRange{step}).getResult(); });
                    });
  }

  /// How a step is told from the others, in elements: through the images, and in the other factor.
  void putStep(Value number, Value shifted, Value other) {
    Value at = add(mul(number, 2), cv.rowTableElements());
    const bool wide = plan.schedule == Schedule::Wide;
    put(wide ? other : shifted, at);
    put(wide ? shifted : other, add(at, 1));
  }
  void fillSteps(const Part &part) {
    if (cv.isWeight()) {
      const int64_t positions = plan.blockSlices * ShapedType::getNumElements(ArrayRef(cv.p).drop_front());
      loop(plan.blockImages, [&](Value image) {
        loop(positions, [&](Value position) {
          Value shifted = add(mul(image, images.image), positionOffset(indicesOf(position, ArrayRef(cv.p))));
          putStep(add(mul(image, positions), position), shifted, add(mul(image, cv.matrixElements()), mul(position, cv.nr())));
        });
      });
      return;
    }
    const int64_t kernel = ShapedType::getNumElements(cv.k);
    Value places = index(1);
    for (Value each : part.places)
      places = mul(places, each);
    loop(cv.sourceChannels(), [&](Value channel) {
      loop(index(0), places, [&](Value number) {
        SmallVector<Value> place = cv.isInput() ? indicesOf(number, ArrayRef(part.places)) : indicesOf(number, ArrayRef(cv.k));
        Value linear = index(0);
        for (int64_t axis = 0; axis <= last; ++axis) {
          if (cv.isInput())
            place[axis] = add(part.place[axis], mul(place[axis], cv.placeStep(axis)));
          linear = add(mul(linear, cv.k[axis]), place[axis]);
        }
        Value shifted = add(mul(channel, images.plane), placeOffset(place, &part)), other;
        if (plan.schedule == Schedule::Tall)
          other = mul(add(mul(channel, kernel), linear), cv.nr());
        else
          other = add(mul(channel, cv.isInput() ? cv.c * kernel : kernel), linear);
        putStep(add(mul(channel, places), number), shifted, other);
      });
    });
  }

  struct Counts {
    Value entries, lineTiles, rest, all; // rest: tiles of rows where lines are columns, and the other way round
  };
  Counts tileCounts() {
    Counts counts;
    const int64_t lines = cv.linesOfImage(plan.schedule);
    auto tilesOf = [&](Value all) { return plan.part ? mul(all, cv.lineParts()) : ceilDiv(all, plan.lines); };
    switch (plan.schedule) {
    case Schedule::Wide:
      counts.entries = mul(count, index(cv.groups * cv.parts()));
      counts.lineTiles = tilesOf(index(lines));
      counts.rest = index(llvm::divideCeil(cv.channels(), plan.rows));
      break;
    case Schedule::Tall:
      counts.entries = index(cv.groups * cv.parts());
      counts.lineTiles = tilesOf(mul(count, index(lines)));
      counts.rest = index(llvm::divideCeil(cv.channels(), plan.columns));
      break;
    case Schedule::Weight:
      counts.entries = index(cv.groups);
      counts.lineTiles = index(llvm::divideCeil(cv.c * ShapedType::getNumElements(cv.k), plan.rows));
      counts.rest = index(llvm::divideCeil(cv.channels(), plan.columns));
      break;
    }
    counts.all = ProductEmitter::mul(ProductEmitter::mul(counts.entries, counts.lineTiles), counts.rest);
    return counts;
  }
  Value productTasks() {
    // As many as there are tiles, unless they are so small that handing them out would cost more than doing them.
    int64_t steps = cv.isWeight() ? orAssumed(cv.imageCount) * ShapedType::getNumElements(cv.p) : cv.stepsOf(plan);
    double cycles = static_cast<double>(llvm::divideCeil(plan.rows, plan.mr)) * (plan.columns / cv.nr()) * steps * cyclesPerStep(plan.mr, plan.nv);
    return ceilDiv(tileCounts().all, std::max<int64_t>(1, static_cast<int64_t>(taskCycles / std::max(cycles, 1.0))));
  }

  /// A tile's accumulators, over a block of steps: which are at `steps` in the table.
  void multiplyTile(Value tileRows, Value tileColumns, Value steps, Value stepCount, Value a, Value aBase, Value bMemory, Value bBase, int64_t bPanel, Value first) {
    func::FuncOp micro = microKernel();
    Value stepAt = add(mul(steps, 2), cv.rowTableElements());
    loop(index(0), ceilDiv(tileColumns, cv.nr()), [&](Value panel) {
      Value bAt = add(bBase, mul(panel, bPanel)), column = mul(panel, cv.nr());
      loop(index(0), ceilDiv(tileRows, plan.mr), [&](Value group) {
        Value row = mul(group, plan.mr);
        func::CallOp::create(b, loc, micro,
                             ValueRange{operands->tables, row, stepAt, stepCount, a, aBase, bMemory, bAt, operands->scratch, add(mul(row, plan.columns), column), index(plan.columns), first});
      });
    });
  }
  Value isZero(Value x) { return b.createOrFold<arith::CmpIOp>(loc, arith::CmpIPredicate::eq, x, index(0)); }
  /// Transposes the tile; gives where that lies in the scratch memory.
  Value transposeTile(Value tileRows, Value tileColumns) {
    Value to = index(llvm::alignTo(plan.rows, plan.mr) * plan.columns);
    func::CallOp::create(b, loc, transposition(),
                         ValueRange{operands->scratch, index(0), index(plan.columns), tileRows, tileColumns, operands->scratch, to, index(cv.rowStride())});
    return to;
  }

  void weightTile(Value entry, Value rowTile, Value columnTile, bool byNumber, ConvolutionEpilogue epilogue) {
    const int64_t rows = cv.c * ShapedType::getNumElements(cv.k), slice = ShapedType::getNumElements(ArrayRef(cv.p).drop_front());
    Value m0 = mul(rowTile, plan.rows), n0 = mul(columnTile, plan.columns);
    Value tileRows = min(sub(index(rows), m0), index(plan.rows)), tileColumns = min(sub(index(cv.o), n0), index(plan.columns));
    loop(index(0), roundUp(tileRows, plan.mr), [&](Value x) {
      Value row = min(add(m0, x), index(rows - 1)), kernel = index(ShapedType::getNumElements(cv.k));
      Value channel = ProductEmitter::div(row, kernel);
      SmallVector<Value> place = indicesOf(ProductEmitter::rem(row, kernel), ArrayRef(cv.k));
      put(add(mul(add(mul(entry, cv.c), channel), images.plane), placeOffset(place, nullptr)), x);
    });
    // Of no images the sum is zero: one round without steps clears the accumulators.
    ProductEmitter::loop(index(0), max(count, index(1)), index(plan.blockImages), [&](Value image) {
      ProductEmitter::loop(index(0), index(std::max<int64_t>(cv.p[0], 1)), index(std::max<int64_t>(plan.blockSlices, 1)), [&](Value at) {
        Value blockImages = max(min(sub(count, image), index(plan.blockImages)), index(0)), blockSlices = min(sub(index(cv.p[0]), at), index(plan.blockSlices));
        Value steps = mul(ProductEmitter::mul(blockImages, blockSlices), slice);
        Value aBase = add(add(imagesBase, mul(image, images.image)), mul(at, positionDistance(0)));
        Value panel = add(mul(add(mul(image, cv.groups), entry), cv.panels()), mul(columnTile, plan.columns / cv.nr()));
        Value bBase = add(add(matrixBase, mul(panel, cv.panelElements())), mul(at, slice * cv.nr()));
        Value first = b.createOrFold<arith::AndIOp>(loc, isZero(image), isZero(at));
        multiplyTile(tileRows, tileColumns, index(0), steps, imagesMemory, aBase, operands->workspace, bBase, cv.panelElements(), first);
      });
    });
    Value at = transposeTile(tileRows, tileColumns);
    loop(index(0), tileColumns, [&](Value column) {
      Value begin = add(at, mul(column, cv.rowStride())), output = add(add(mul(entry, cv.o), n0), column);
      if (!byNumber) {
        loop(index(0), tileRows, [&](Value x) {
          ElementIndex to;
          to.dims.push_back(output);
          SmallVector<int64_t> sizes{cv.c};
          sizes.append(cv.k.begin(), cv.k.end());
          llvm::append_range(to.dims, indicesOf(add(m0, x), ArrayRef(sizes)));
          epilogue(b, loc, to, memref::LoadOp::create(b, loc, operands->scratch, ValueRange{add(begin, x)}), 1, {});
        });
        return;
      }
      Value number = add(mul(output, rows), m0);
      neighbours(index(0), tileRows, rows % lanes == 0 && plan.rows % lanes == 0, false, [&](Value x, Value mask) {
        ElementIndex to;
        to.linear = add(number, x);
        to.isFlat = true;
        epilogue(b, loc, to, load(operands->scratch, add(begin, x)), lanes, mask);
      });
    });
  }

  /// From `begin` to `end` in vectors, the last one masked.
  void neighbours(Value begin, Value end, bool areWhole, bool areShort, llvm::function_ref<void(Value, Value)> body) {
    Value length = sub(end, begin), whole = areWhole ? end : add(begin, mul(div(length, lanes), lanes));
    if (!areShort)
      ProductEmitter::loop(begin, whole, index(lanes), [&](Value at) { body(at, {}); });
    if (!areWhole)
      when(less(whole, end), [&] { body(whole, mask(sub(end, whole))); });
  }

  /// Hands a row of positions, from `from` to `to` of its own, to the epilogue. `at`: where position `from` lies in the scratch memory.
  void finishLine(Value image, Value channel, ArrayRef<Value> outer, const Part &part, Value from, Value to, Value at, ConvolutionEpilogue epilogue) {
    auto target = [&](int64_t axis, Value position) {
      if (!cv.isInput() || cv.strides[axis] == 1)
        return position;
      return add(add(mul(add(part.first[axis], position), cv.strides[axis]), part.remainder[axis]), -cv.paddings[axis]);
    };
    auto indexAt = [&](Value position) {
      ElementIndex index;
      index.dims = {image, channel};
      for (auto [axis, each] : llvm::enumerate(outer))
        index.dims.push_back(target(axis, each));
      index.dims.push_back(target(last, position));
      return index;
    };
    if (cv.isInput() && cv.strides[last] != 1) {
      loop(from, to, [&](Value position) {
        Value acc = memref::LoadOp::create(b, loc, operands->scratch, ValueRange{add(at, sub(position, from))});
        epilogue(b, loc, indexAt(position), acc, 1, {});
      });
      return;
    }
    const int64_t row = cv.mostPositions(last);
    neighbours(from, to, row % lanes == 0 && plan.part % lanes == 0, row < lanes,
               [&](Value position, Value mask) { epilogue(b, loc, indexAt(position), load(operands->scratch, add(at, sub(position, from))), lanes, mask); });
  }

  void positionTile(Value entry, Value lineTile, Value rest, ConvolutionEpilogue epilogue) {
    const bool wide = plan.schedule == Schedule::Wide;
    const int64_t kernel = ShapedType::getNumElements(cv.k), rowLength = wide ? images.dims[last] : 0;
    Value partNumber = index(0), image, group;
    if (cv.parts() > 1) {
      Value each = wide ? mul(count, cv.groups) : index(cv.groups);
      partNumber = ProductEmitter::div(entry, each);
      entry = ProductEmitter::rem(entry, each);
    }
    group = rem(entry, cv.groups);
    if (wide)
      image = div(entry, cv.groups);
    Part part = partOf(partNumber);
    // The steps that this part has, once for a thread.
    Value prepared = take(operands->kept, index(0));
    when(arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ne, prepared, partNumber), [&] {
      fillSteps(part);
      memref::StoreOp::create(b, loc, arith::IndexCastOp::create(b, loc, b.getI64Type(), partNumber), operands->kept, ValueRange{index(0)});
    });

    // Rows of the image: those of one image as they lie, or of all images, only those that have positions.
    SmallVector<Value> lineSizes;
    Value linesOfImage = index(1), row = part.positions[last];
    for (int64_t axis = 0; axis < last; ++axis) {
      lineSizes.push_back(wide && axis ? index(images.dims[axis]) : part.positions[axis]);
      linesOfImage = ProductEmitter::mul(linesOfImage, lineSizes.back());
    }
    Value allLines = wide ? linesOfImage : ProductEmitter::mul(count, linesOfImage);
    Value line0, line1, from = index(0), to = row;
    if (plan.part) {
      line0 = div(lineTile, cv.lineParts());
      line1 = min(add(line0, 1), allLines);
      from = mul(rem(lineTile, cv.lineParts()), plan.part);
      to = min(add(from, plan.part), row);
    } else {
      line0 = mul(lineTile, plan.lines);
      line1 = min(add(line0, plan.lines), allLines);
    }
    Value lines = max(sub(line1, line0), index(0));
    Value positions = plan.part ? ProductEmitter::mul(lines, max(sub(to, from), index(0))) : ProductEmitter::mul(lines, wide ? index(rowLength) : row);
    Value channel0 = mul(rest, wide ? plan.rows : plan.columns), channelCount = min(sub(index(cv.channels()), channel0), index(wide ? plan.rows : plan.columns));
    // The indices of a row's first position: image, and outer axes.
    auto decode = [&](Value line) {
      SmallVector<Value> sizes(lineSizes);
      sizes.insert(sizes.begin(), index(1)); // not reduced: the image
      return indicesOf(line, ArrayRef(sizes));
    };

    Value tileRows = wide ? channelCount : positions, tileColumns = wide ? positions : channelCount;
    loop(index(0), roundUp(tileRows, plan.mr), [&](Value x) {
      Value row0 = min(x, add(tileRows, -1));
      if (wide) {
        Value weight = mul(group, cv.o * cv.c * kernel);
        put(add(weight, mul(add(channel0, row0), cv.isInput() ? kernel : cv.c * kernel)), x);
        return;
      }
      Value line = plan.part ? line0 : add(line0, ProductEmitter::div(row0, row)), position = plan.part ? add(from, row0) : ProductEmitter::rem(row0, row);
      SmallVector<Value> at = decode(line);
      Value n = at.front();
      at.erase(at.begin());
      at.push_back(position);
      put(add(add(mul(n, images.image), mul(group, cv.sourceChannels() * images.plane)), positionOffset(at)), x);
    });

    Value a = wide ? operands->rhs : imagesMemory, aBase = wide ? index(0) : imagesBase;
    Value bMemory = operands->workspace, bBase;
    if (wide)
      bBase = add(add(add(imagesBase, mul(image, images.image)), mul(group, cv.sourceChannels() * images.plane)), add(mul(line0, rowLength), from));
    else
      bBase = add(matrixBase, mul(add(mul(group, cv.panels()), mul(rest, plan.columns / cv.nr())), cv.panelElements()));
    // One block even of no steps: it clears the accumulators.
    ProductEmitter::loop(index(0), max(part.steps, index(1)), index(plan.kBlock), [&](Value k0) {
      multiplyTile(tileRows, tileColumns, k0, min(sub(part.steps, k0), index(plan.kBlock)), a, aBase, bMemory, bBase, wide ? cv.nr() : cv.panelElements(), isZero(k0));
    });

    Value tile = wide ? index(0) : transposeTile(tileRows, tileColumns);
    loop(index(0), channelCount, [&](Value x) {
      Value channel = add(add(mul(group, cv.channels()), channel0), x), begin = add(tile, mul(x, wide ? plan.columns : cv.rowStride()));
      loop(line0, line1, [&](Value line) {
        SmallVector<Value> at = decode(line);
        Value n = wide ? image : at.front();
        ArrayRef<Value> outer = ArrayRef(at).drop_front();
        Value offset = sub(line, line0), exists;
        offset = wide ? mul(offset, rowLength) : ProductEmitter::mul(offset, row);
        // Rows between those that have positions.
        for (int64_t axis = 1; wide && axis < last; ++axis)
          exists = both(exists, less(outer[axis], part.positions[axis]));
        auto finish = [&] { finishLine(n, channel, outer, part, from, to, add(begin, offset), epilogue); };
        if (exists)
          when(exists, finish);
        else
          finish();
      });
    });
  }

  void productKernel(Value begin, Value end, bool byNumber, ConvolutionEpilogue epilogue) {
    Counts counts = tileCounts();
    Value tasks = max(productTasks(), index(1));
    auto share = [&](Value task) { return ProductEmitter::div(ProductEmitter::mul(task, counts.all), tasks); };
    if (cv.isWeight())
      when(arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ne, take(operands->kept, index(0)), index(0)), [&] {
        fillSteps({});
        memref::StoreOp::create(b, loc, arith::ConstantOp::create(b, loc, b.getI64IntegerAttr(0)), operands->kept, ValueRange{index(0)});
      });
    loop(share(begin), share(end), [&](Value tile) {
      Value rest = ProductEmitter::rem(tile, counts.rest), outer = ProductEmitter::div(tile, counts.rest);
      Value lineTile = ProductEmitter::rem(outer, counts.lineTiles), entry = ProductEmitter::div(outer, counts.lineTiles);
      if (cv.isWeight())
        weightTile(entry, lineTile, rest, byNumber, epilogue);
      else
        positionTile(entry, lineTile, rest, epilogue);
    });
  }
};

//===--- the interface ---===//

int64_t Convolution::rowStride() const { return llvm::alignTo(plan.rows, lanes) + lanes; }

int64_t Convolution::scratchElements() const {
  int64_t tile = llvm::alignTo(plan.rows, plan.mr) * plan.columns;
  if (plan.schedule != Schedule::Wide)
    tile += llvm::alignTo(plan.columns, lanes) * rowStride();
  return llvm::alignTo(tile + lanes, lineBytes * 8 / element.getIntOrFloatBitWidth());
}

AffineExpr Convolution::workspaceElements(AffineExpr count) const {
  int64_t each = images.inPlace ? 0 : images.image, once = 0;
  (plan.schedule == Schedule::Weight ? each : once) += matrixElements();
  // Columns beyond a tile's last one are read, and dropped.
  once += nr() + images.extent.back() + images.dims.back();
  return count * each + llvm::alignTo(once, lineBytes * 8 / element.getIntOrFloatBitWidth());
}

Value Convolution::tasks(unsigned launch, OpBuilder &b, Location loc, Value images) const {
  Emitter emitter(*this, b, loc, images, nullptr);
  return launch == 0 ? emitter.copyTasks() : emitter.productTasks();
}

void Convolution::emit(unsigned launch, OpBuilder &b, Location loc, const ConvolutionOperands &operands, Value begin, Value end, bool byNumber, ConvolutionEpilogue epilogue) const {
  Emitter emitter(*this, b, loc, operands.images, &operands);
  if (launch == 0)
    emitter.copyKernel(begin, end);
  else
    emitter.productKernel(begin, end, byNumber, epilogue);
}

} // namespace dlc::cpu
