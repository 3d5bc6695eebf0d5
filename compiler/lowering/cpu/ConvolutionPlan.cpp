//===- ConvolutionPlan.cpp - how convolutions are divided, and how their images lie -*- C++ -*-===//
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
static constexpr int64_t channelRows = 64, weightRows = 96, placesRows = 432, channelColumns = 256, imageColumns = 64;
/// Positions of a tile of whole images at most, and parts that they are divided into: each is a line in lists that every tile looks through.
static constexpr int64_t imageRows = 128;
static constexpr size_t mostParts = 64;
/// Cycles for each vector that is gathered with a stride; for each of a matrix that is transposed beyond L2.
static constexpr double gatherCycles = 30, farTransposeCycles = 22;

Convolution::Convolution(ConvolutionOp op, const CpuInfo &cpu, bool isFixed)
    : kind(op.getKind()), element(cast<FloatType>(op.getTypeOf(R::weight).getElementType())), cpu(cpu), isFixed(isFixed), lanes(cpu.lanes(element)), imageCount(op.getTypeOf(R::input).getDimSize(0)),
      groups(op.getGroups()), o(op.getTypeOf(R::weight).getDimSize(0) / groups), c(op.getTypeOf(R::weight).getDimSize(1)), p(op.getImageOf(R::output)), i(op.getImageOf(R::input)),
      k(op.getImageOf(R::weight)), strides(op.getStrides()), paddings(op.getPaddings()), dilations(op.getDilations()) {
  for (int64_t axis = 0; axis < axes(); ++axis) {
    wholeParts.push_back(partsByRemainder(axis));
    imageParts.push_back(isWeight() ? partsByPlace(axis) : partsOnImage(axis));
  }
  imageSizes = sizesOfParts(imageParts);
  plan = choosePlan();
  images = layout(plan);
  tableSteps = stepsOf(plan);
}

//===--- sizes ---===//

SmallVector<Convolution::AxisPart> Convolution::partsByRemainder(int64_t axis) const {
  if (!isInput())
    return {{0, 0, p[axis], 0, k[axis]}};
  SmallVector<AxisPart> parts;
  for (int64_t remainder = 0; remainder < strides[axis]; ++remainder) {
    AxisPart part;
    part.remainder = remainder;
    part.first = llvm::divideCeilSigned(paddings[axis] - remainder, strides[axis]);
    int64_t last = llvm::divideFloorSigned(i[axis] - 1 + paddings[axis] - remainder, strides[axis]);
    part.positions = std::max<int64_t>(last - part.first + 1, 0);
    for (int64_t place = 0; place < std::min(k[axis], placeStep(axis)) && part.places == 0; ++place)
      if (place * dilations[axis] % strides[axis] == remainder) {
        part.place = place;
        part.places = llvm::divideCeil(k[axis] - place, placeStep(axis));
      }
    parts.push_back(part);
  }
  return parts;
}

SmallVector<Convolution::AxisPart> Convolution::partsOnImage(int64_t axis) const {
  SmallVector<AxisPart> parts;
  for (const AxisPart &whole : wholeParts[axis])
    for (int64_t j = 0; j < whole.positions; ++j) {
      AxisPart one{whole.remainder, whole.first + j, 1, whole.place, 0};
      for (int64_t number = 0; number < whole.places; ++number) {
        int64_t place = whole.place + number * placeStep(axis), at = sourceAt(axis, one.first, place);
        if (at < 0 || at >= source()[axis])
          continue;
        if (one.places++ == 0)
          one.place = place;
      }
      if (!parts.empty() && std::tie(parts.back().remainder, parts.back().place, parts.back().places) == std::tie(one.remainder, one.place, one.places))
        ++parts.back().positions;
      else
        parts.push_back(one);
    }
  // Of no positions there is a part as well.
  return parts.empty() ? wholeParts[axis] : parts;
}

SmallVector<Convolution::AxisPart> Convolution::partsByPlace(int64_t axis) const {
  SmallVector<AxisPart> parts;
  for (int64_t place = 0; place < k[axis]; ++place) {
    AxisPart part{0, 0, 0, place, 1};
    for (int64_t position = 0; position < p[axis]; ++position) {
      int64_t at = sourceAt(axis, position, place);
      if (at >= 0 && at < source()[axis] && part.positions++ == 0)
        part.first = position;
    }
    parts.push_back(part);
  }
  return parts;
}

SmallVector<Convolution::PartSize> Convolution::sizesOfParts(const Parts &parts) {
  SmallVector<PartSize> sizes{{1, 1}};
  for (const auto &axis : parts) {
    if (sizes.size() * axis.size() > mostParts)
      return {};
    SmallVector<PartSize> all;
    for (const PartSize &outer : sizes)
      for (const AxisPart &part : axis)
        all.push_back({outer.positions * part.positions, outer.places * part.places});
    sizes = all;
  }
  return sizes;
}

int64_t Convolution::partCount(const Plan &plan) const {
  int64_t all = 1;
  for (const auto &parts : partsOf(plan))
    all *= parts.size();
  return all;
}

int64_t Convolution::mostPositions(int64_t axis, const Plan &plan) const {
  int64_t most = 0;
  for (const AxisPart &part : partsOf(plan)[axis])
    most = std::max(most, part.positions);
  return most;
}

int64_t Convolution::placeStep(int64_t axis) const { return isInput() ? strides[axis] / std::gcd(strides[axis], dilations[axis]) : 1; }

int64_t Convolution::sourceAt(int64_t axis, int64_t position, int64_t place) const {
  return isInput() ? position - place * dilations[axis] / strides[axis] : position * strides[axis] + place * dilations[axis] - paddings[axis];
}

Convolution::Images Convolution::layout(const Plan &plan) const {
  const Schedule schedule = plan.schedule;
  Images images;
  images.phased = kind == R::output && schedule == Schedule::Wide && llvm::any_of(strides, [](int64_t stride) { return stride != 1; });
  bool staysInside = schedule != Schedule::Wide;
  for (int64_t axis = 0; axis < axes(); ++axis) {
    int64_t extent, front = paddings[axis], reach = (k[axis] - 1) * dilations[axis];
    if (plan.keepsImages()) {
      front = 0;
      extent = source()[axis];
    } else if (isInput()) {
      // What the parts read, from the first to the last element.
      int64_t from = std::numeric_limits<int64_t>::max(), to = -1;
      for (const AxisPart &part : wholeParts[axis])
        if (part.places && part.positions) {
          from = std::min(from, sourceAt(axis, part.first, part.place + (part.places - 1) * placeStep(axis)));
          to = std::max(to, sourceAt(axis, part.first + part.positions - 1, part.place));
        }
      front = from <= to ? -from : 0;
      extent = from <= to ? to - from + 1 : 1;
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
  const int64_t line = lineBytes * 8 / element.getIntOrFloatBitWidth();
  if (images.inPlace) {
    images.dims = source();
    images.part = images.plane = ShapedType::getNumElements(source());
    images.image = groups * sourceChannels() * images.plane;
    // Rows of several images are read at once, which do not crowd into the same part of the cache if the images are an odd number of lines apart.
    if (plan.keepsImages() && images.image % (2 * line) == 0) {
      images.inPlace = false;
      images.image += line;
    }
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
  const int64_t parts = images.phased ? ShapedType::getNumElements(strides) : 1;
  images.plane = llvm::alignTo(parts * images.part + shared + lanes, line);
  if (images.plane / line % 2 == 0)
    images.plane += line;
  images.image = groups * sourceChannels() * images.plane;
  return images;
}

int64_t Convolution::linesOfImage(const Plan &plan) const {
  if (axes() == 1)
    return 1;
  const bool wide = plan.schedule == Schedule::Wide;
  int64_t lines = mostPositions(0, plan);
  SmallVector<int64_t> between = wide ? layout(plan).dims : Sizes();
  for (int64_t axis = 1; axis + 1 < axes(); ++axis)
    lines *= wide ? between[axis] : mostPositions(axis, plan);
  return lines;
}

int64_t Convolution::lineParts() const { return plan.part ? llvm::divideCeil(mostPositions(axes() - 1, plan), plan.part) : 1; }

bool Convolution::rowsAreJoined() const {
  return (plan.schedule == Schedule::Wide || plan.schedule == Schedule::Tall) && axes() == 2 && !plan.part && partCount(plan) == 1 && (plan.schedule == Schedule::Tall || images.dims.back() == target().back());
}

int64_t Convolution::stepsOf(const Plan &plan, const PartSize &part) const {
  return isWeight() ? plan.blockImages * part.positions : plan.blockChannels * part.places;
}

int64_t Convolution::stepsOf(const Plan &plan) const {
  if (plan.schedule == Schedule::Weight)
    return plan.blockImages * plan.blockSlices * ShapedType::getNumElements(ArrayRef(p).drop_front());
  if (plan.keepsImages()) {
    int64_t all = 0;
    for (const PartSize &part : imageSizes)
      all += stepsOf(plan, part);
    return all;
  }
  int64_t most = sourceChannels();
  for (int64_t axis = 0; axis < axes(); ++axis) {
    int64_t count = 0;
    for (const AxisPart &part : partsOf(plan)[axis])
      count = std::max(count, part.places);
    most *= count;
  }
  return most;
}

int64_t Convolution::rowTableElements() const { return llvm::alignTo(plan.schedule == Schedule::Places ? plan.blockChannels : plan.rows, plan.mr); }
int64_t Convolution::panels() const { return llvm::divideCeil(channels(), nr()); }

int64_t Convolution::elementsOfPanel() const {
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

int64_t Convolution::matrixElements() const { return plan.schedule == Schedule::Wide ? 0 : groups * panels() * elementsOfPanel(); }

//===--- the schedule ---===//

/// What all schedules reckon with.
struct Convolution::Costs {
  Costs(const Convolution &cv, Schedule schedule, int64_t mr, int64_t nv) {
    plan.schedule = schedule;
    plan.mr = mr;
    plan.nv = nv;
    nr = nv * cv.lanes;
    kernel = ShapedType::getNumElements(cv.k);
    batch = orAssumed(cv.imageCount);
    row = std::max<int64_t>(cv.mostPositions(cv.axes() - 1, plan), 1);
    parts = cv.partCount(plan);
    images = cv.layout(plan);
    // Vectors of images cross lines of the cache; a step reads the table.
    const double loads = (mr + nv * (schedule == Schedule::Wide ? 1.5 : 1) + 2) / 2.0;
    step = std::max(cyclesPerStep(mr, nv), loads);
    call = callCycles + accumulatorCycles * mr * nv;
    wantedSteps = std::max<int64_t>(128, cv.cpu.l1Bytes * 3 / 4 / (nr * cv.element.getIntOrFloatBitWidth() / 8));
    copy = images.inPlace ? 0 : (images.phased ? gatherCycles : copyCycles) * batch * images.image / cv.lanes;
    matrixPanels = llvm::divideCeil(cv.channels(), nr);
    const double matrixRows = cv.isWeight() ? static_cast<double>(batch) * ShapedType::getNumElements(cv.p) : static_cast<double>(cv.sourceChannels()) * kernel;
    const double resultRows = cv.isWeight() ? static_cast<double>(cv.c) * kernel : static_cast<double>(batch) * ShapedType::getNumElements(cv.target());
    const bool isFar = matrixPanels * nr * matrixRows * cv.element.getIntOrFloatBitWidth() / 8 > cv.cpu.l2Bytes;
    transposed = cv.groups * matrixPanels * nv * (cv.isFixed ? 0 : matrixRows * (isFar ? farTransposeCycles : transposeCycles));
    transposed += cv.groups * matrixPanels * nv * resultRows * transposeCycles;
    // The larger of the two factors is read once: a large matrix is divided into narrow tiles, each of which serves all positions before the next one.
    plan.matrixFirst = (schedule == Schedule::Tall || schedule == Schedule::Images) && matrixPanels * nr * matrixRows > static_cast<double>(batch) * images.image;
  }

  Plan plan;              // what all schedules have
  int64_t nr;             // columns of a panel
  int64_t kernel;         // places of the kernel
  int64_t batch;          // images, or as many as are assumed
  int64_t row, parts;     // positions in a row of a part, at most; parts
  Images images;
  double step, call;      // cycles of a step of the micro-kernel, and of a call of it
  int64_t wantedSteps;    // steps whose panel stays in L1, beside what passes by
  double copy;            // cycles of copying the images
  int64_t matrixPanels;   // of the other factor, or of the result of a weight
  double transposed;      // cycles of transposing it and the result
};

Convolution::Plan Convolution::planWide(const Costs &costs) const {
  Plan plan = costs.plan;
  const int64_t lines = std::max<int64_t>(linesOfImage(plan), 1), reducedSteps = std::max<int64_t>(stepsOf(plan), 1);
  plan.kBlock = balancedPart(reducedSteps, costs.wantedSteps, 8);
  const double blocks = llvm::divideCeil(reducedSteps, plan.kBlock);
  const int64_t rowLength = costs.images.dims.back();
  double panels;
  if (costs.row > widestTile) {
    plan.part = balancedPart(costs.row, widestTile, costs.nr);
    panels = static_cast<double>(lines) * llvm::divideCeil(costs.row, plan.part) * (plan.part / costs.nr);
    plan.columns = plan.part;
  } else {
    auto panelsWith = [&](int64_t count) { return lines / count * llvm::divideCeil(count * rowLength, costs.nr) + llvm::divideCeil(lines % count * rowLength, costs.nr); };
    for (int64_t count = 1; count <= std::min(lines, std::max<int64_t>(widestTile / rowLength, 1)); ++count)
      if (panelsWith(count) <= panelsWith(plan.lines))
        plan.lines = count;
    panels = panelsWith(plan.lines);
    plan.columns = llvm::alignTo(plan.lines * rowLength, costs.nr);
  }
  plan.rows = balancedPart(channels(), channelRows, plan.mr);
  // The parts of a result have as many steps as there are places of the kernel in all.
  const double steps = static_cast<double>(sourceChannels()) * costs.kernel / costs.parts;
  auto tiles = [&] { return costs.batch * groups * costs.parts * llvm::divideCeil(channels(), plan.rows) * (plan.part ? lines * llvm::divideCeil(costs.row, plan.part) : llvm::divideCeil(lines, plan.lines)); };
  while (tiles() < wantedTiles && plan.rows > 2 * plan.mr)
    plan.rows = llvm::alignTo(plan.rows / 2, plan.mr);
  plan.cycles = static_cast<double>(costs.batch) * groups * costs.parts * panels * llvm::divideCeil(channels(), plan.mr) * (steps * costs.step + blocks * costs.call) + costs.copy;
  return plan;
}

Convolution::Plan Convolution::planTall(const Costs &costs) const {
  Plan plan = costs.plan;
  const int64_t lines = std::max<int64_t>(linesOfImage(plan), 1), reducedSteps = std::max<int64_t>(stepsOf(plan), 1);
  plan.kBlock = balancedPart(reducedSteps, costs.wantedSteps, 8);
  const double blocks = llvm::divideCeil(reducedSteps, plan.kBlock);
  const double allLines = static_cast<double>(lines) * costs.batch;
  double groupsOfRows;
  if (costs.row > highestTile) {
    plan.part = balancedPart(costs.row, highestTile, plan.mr);
    groupsOfRows = allLines * llvm::divideCeil(costs.row, plan.part) * (plan.part / plan.mr);
  } else {
    auto waste = [&](int64_t count) { return static_cast<double>(llvm::divideCeil(count * costs.row, plan.mr)) / (count * costs.row); };
    for (int64_t count = 1; count <= std::min<double>(allLines, highestTile / costs.row); ++count)
      if (waste(count) <= waste(plan.lines))
        plan.lines = count;
  }
  plan.columns = balancedPart(costs.matrixPanels, std::max<int64_t>(channelColumns / costs.nr, 1), 1) * costs.nr;
  auto tiles = [&] { return allLines * groups * costs.parts / plan.lines * llvm::divideCeil(costs.matrixPanels * costs.nr, plan.columns); };
  while (tiles() < wantedTiles) {
    const bool canNarrow = plan.columns > costs.nr, canLower = plan.lines > 1 && plan.lines * costs.row > 2 * plan.mr;
    if (canNarrow && (plan.matrixFirst || !canLower))
      plan.columns = llvm::alignTo(plan.columns / 2, costs.nr);
    else if (canLower)
      plan.lines = llvm::divideCeil(plan.lines, 2);
    else
      break;
  }
  plan.rows = plan.part ? plan.part : plan.lines * costs.row;
  if (!plan.part)
    groupsOfRows = allLines / plan.lines * llvm::divideCeil(plan.rows, plan.mr);
  // The parts of a result have as many steps as there are places of the kernel in all.
  const double steps = static_cast<double>(sourceChannels()) * costs.kernel / costs.parts;
  plan.cycles = groups * costs.parts * groupsOfRows * costs.matrixPanels * (steps * costs.step + blocks * costs.call) + costs.copy + costs.transposed;
  return plan;
}

Convolution::Plan Convolution::planImages(const Costs &costs) const {
  Plan plan = costs.plan;
  const int64_t positions = std::max<int64_t>(ShapedType::getNumElements(target()), 1);
  // What all rows of a tile read of these channels stays in L1, too.
  plan.blockChannels = balancedPart(std::max<int64_t>(sourceChannels(), 1), std::max<int64_t>(costs.wantedSteps / 2 / costs.kernel, 1), 1);
  plan.kBlock = plan.blockChannels * costs.kernel;
  plan.columns = balancedPart(costs.matrixPanels, std::max<int64_t>(imageColumns / costs.nr, 1), 1) * costs.nr;
  auto cyclesWith = [&](int64_t count) {
    double cycles = 0;
    for (const PartSize &part : imageSizes) {
      double steps = static_cast<double>(sourceChannels()) * part.places;
      auto of = [&](int64_t images) { return llvm::divideCeil(images * part.positions, plan.mr); };
      double groupsOfRows = static_cast<double>(costs.batch / count) * of(count) + of(costs.batch % count);
      cycles += groups * costs.matrixPanels * groupsOfRows * (steps * costs.step + llvm::divideCeil(sourceChannels(), plan.blockChannels) * costs.call);
    }
    return cycles;
  };
  plan.cycles = cyclesWith(1);
  for (int64_t count = 2; count <= std::min(costs.batch, imageRows / positions); ++count)
    if (double cycles = cyclesWith(count); cycles <= plan.cycles) {
      plan.blockImages = count;
      plan.cycles = cycles;
    }
  auto tiles = [&] { return static_cast<double>(llvm::divideCeil(costs.batch, plan.blockImages)) * groups * llvm::divideCeil(costs.matrixPanels * costs.nr, plan.columns); };
  while (tiles() < wantedTiles && plan.columns > costs.nr)
    plan.columns = llvm::alignTo(plan.columns / 2, costs.nr);
  while (tiles() < wantedTiles && plan.blockImages > 1)
    plan.blockImages = llvm::divideCeil(plan.blockImages, 2);
  plan.rows = 0;
  for (const PartSize &part : imageSizes)
    plan.rows += llvm::alignTo(plan.blockImages * part.positions, plan.mr);
  plan.cycles = cyclesWith(plan.blockImages) + costs.copy + costs.transposed;
  return plan;
}

Convolution::Plan Convolution::planWeight(const Costs &costs) const {
  Plan plan = costs.plan;
  const int64_t positions = std::max<int64_t>(ShapedType::getNumElements(p), 1), slice = std::max<int64_t>(positions / std::max<int64_t>(p[0], 1), 1);
  plan.blockSlices = p[0];
  if (positions <= costs.wantedSteps)
    plan.blockImages = std::min(std::max<int64_t>(costs.wantedSteps / positions, 1), ShapedType::isDynamic(imageCount) ? costs.wantedSteps : std::max<int64_t>(imageCount, 1));
  else
    plan.blockSlices = balancedPart(p[0], std::max<int64_t>(costs.wantedSteps / slice, 1), 1);
  const int64_t rows = c * costs.kernel, panels = costs.matrixPanels;
  plan.rows = balancedPart(rows, weightRows, plan.mr);
  plan.columns = balancedPart(panels, std::max<int64_t>(channelColumns / costs.nr, 1), 1) * costs.nr;
  auto tiles = [&] { return groups * llvm::divideCeil(rows, plan.rows) * llvm::divideCeil(panels * costs.nr, plan.columns); };
  while (tiles() < wantedTiles && plan.rows > std::max<int64_t>(2 * plan.mr, 16))
    plan.rows = llvm::alignTo(plan.rows / 2, plan.mr);
  while (tiles() < wantedTiles && plan.columns > costs.nr)
    plan.columns = llvm::alignTo(plan.columns / 2, costs.nr);
  const double steps = static_cast<double>(costs.batch) * positions, blocks = std::ceil(steps / std::max<int64_t>(stepsOf(plan), 1));
  const double groupsOfRows = static_cast<double>(rows / plan.rows) * llvm::divideCeil(plan.rows, plan.mr) + llvm::divideCeil(rows % plan.rows, plan.mr);
  plan.cycles = groups * groupsOfRows * panels * (steps * costs.step + blocks * costs.call) + costs.transposed + costs.copy;
  return plan;
}

Convolution::Plan Convolution::planPlaces(const Costs &costs) const {
  Plan plan = costs.plan;
  const int64_t positions = std::max<int64_t>(ShapedType::getNumElements(p), 1), panels = costs.matrixPanels;
  plan.blockImages = balancedPart(costs.batch, std::max<int64_t>(costs.wantedSteps / positions, 1), 1);
  // The weight is written, and often read, in pieces of a tile's rows.
  plan.blockChannels = balancedPart(std::max<int64_t>(c, 1), std::max(placesRows / costs.kernel, plan.mr), plan.mr);
  plan.columns = balancedPart(panels, std::max<int64_t>(imageColumns / costs.nr, 1), 1) * costs.nr;
  auto tiles = [&] { return groups * llvm::divideCeil(c, plan.blockChannels) * llvm::divideCeil(panels * costs.nr, plan.columns); };
  while (tiles() < wantedTiles && plan.blockChannels > plan.mr)
    plan.blockChannels = llvm::alignTo(plan.blockChannels / 2, plan.mr);
  while (tiles() < wantedTiles && plan.columns > costs.nr)
    plan.columns = llvm::alignTo(plan.columns / 2, costs.nr);
  plan.rows = plan.blockChannels * costs.kernel;
  const double blocks = llvm::divideCeil(costs.batch, plan.blockImages);
  for (const PartSize &part : imageSizes)
    plan.cycles += groups * llvm::divideCeil(c, plan.mr) * panels * (static_cast<double>(costs.batch) * part.positions * costs.step + blocks * costs.call);
  plan.cycles += costs.transposed + costs.copy;
  return plan;
}

Convolution::Plan Convolution::planOf(Schedule schedule, int64_t mr, int64_t nv) const {
  const Costs costs(*this, schedule, mr, nv);
  switch (schedule) {
  case Schedule::Wide:
    return planWide(costs);
  case Schedule::Tall:
    return planTall(costs);
  case Schedule::Images:
    return planImages(costs);
  case Schedule::Weight:
    return planWeight(costs);
  case Schedule::Places:
    return planPlaces(costs);
  }
  llvm_unreachable("no such schedule");
}

Convolution::Plan Convolution::choosePlan() const {
  // The best of all, and the best with the usual micro-tile, which is taken if it is about as good: a model then has one micro-kernel for nearly everything.
  const auto [usualRows, usualVectors] = usualMicroTile(cpu);
  SmallVector<Schedule> choices{Schedule::Wide, Schedule::Tall};
  if (isWeight())
    choices = {Schedule::Weight};
  const int64_t positions = ShapedType::getNumElements(isWeight() ? p : target());
  const bool hasZeros = !isWeight() ? wholeParts != imageParts : llvm::any_of(llvm::zip(imageParts, p), [](auto each) {
    return llvm::any_of(std::get<0>(each), [&](const AxisPart &part) { return part.positions != std::get<1>(each); });
  });
  if (hasZeros && positions > 0 && positions <= imageRows && !imageSizes.empty())
    choices.push_back(isWeight() ? Schedule::Places : Schedule::Images);
  Plan best, usual;
  for (Schedule schedule : choices)
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
  const char *names[] = {"wide", "tall", "images", "weight", "places"};
  std::string text = llvm::formatv("{0} {1}x{2} tile {3}x{4}", names[static_cast<int>(plan.schedule)], plan.mr, nr(), plan.rows, plan.columns);
  text += isWeight() ? llvm::formatv(" steps {0}", stepsOf(plan)).str() : llvm::formatv(" k {0}", plan.kBlock).str();
  if (!isWeight() && partCount(plan) > 1)
    text += llvm::formatv(" parts {0}", partCount(plan)).str();
  return text + (images.inPlace ? " in place" : images.phased ? " divided" : "");
}

//===--- memory ---===//

int64_t Convolution::rowStride() const { return llvm::alignTo(plan.rows, lanes) + lanes; }

int64_t Convolution::scratchElements() const {
  int64_t tile = llvm::alignTo(plan.rows, plan.mr) * plan.columns;
  if (plan.schedule != Schedule::Wide)
    tile += llvm::alignTo(plan.columns, lanes) * rowStride();
  return llvm::alignTo(tile + lanes, lineBytes * 8 / element.getIntOrFloatBitWidth());
}

AffineExpr Convolution::workspaceElements(AffineExpr count) const {
  if (images.inPlace)
    return getAffineConstantExpr(0, element.getContext());
  // Columns beyond a tile's last one are read, and dropped.
  const int64_t beyond = nr() + images.extent.back() + images.dims.back();
  return count * images.image + llvm::alignTo(beyond, lineBytes * 8 / element.getIntOrFloatBitWidth());
}

AffineExpr Convolution::panelElements(AffineExpr count) const {
  AffineExpr each = getAffineConstantExpr(matrixElements(), element.getContext());
  return isWeight() ? count * each : each;
}

} // namespace dlc::cpu
