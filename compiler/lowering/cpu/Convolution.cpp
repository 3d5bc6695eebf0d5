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

/// Elements that a task of the copy works on; outputs whose channels it transposes before it goes on to the next panel.
static constexpr int64_t elementsPerCopy = 16384, outputsPerCopy = 8;

struct Convolution::Emitter : ProductEmitter {
  const Convolution &cv;
  const Plan &plan;
  const Images &images;
  Value count; // of images
  const ConvolutionOperands *operands;
  const int64_t last;
  Value imagesMemory; // where images lie

  Emitter(const Convolution &cv, OpBuilder &b, Location loc, Value count, const ConvolutionOperands *operands)
      : ProductEmitter(cv.cpu, cv.element, b, loc), cv(cv), plan(cv.plan), images(cv.images), count(count), operands(operands), last(cv.axes() - 1) {
    if (!operands)
      return;
    imagesMemory = images.inPlace ? operands->lhs : operands->workspace;
  }

  using ProductEmitter::add;
  using ProductEmitter::div;
  using ProductEmitter::mul;
  using ProductEmitter::rem;
  Value mul(Value x, int64_t y) { return y == 1 ? x : ProductEmitter::mul(x, y); }
  Value div(Value x, int64_t y) { return y == 1 ? x : ProductEmitter::div(x, y); }
  Value rem(Value x, int64_t y) { return y == 1 ? index(0) : ProductEmitter::rem(x, index(y)); }
  Value both(Value x, Value y) { return !x ? y : !y ? x : b.createOrFold<arith::AndIOp>(loc, x, y); }
  Value productOf(ArrayRef<Value> factors) {
    Value product = index(1);
    for (Value factor : factors)
      product = mul(product, factor);
    return product;
  }

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
  /// What the parts along an axis have there, of the one with a number.
  Value choose(ArrayRef<AxisPart> parts, Value number, int64_t AxisPart::*what) {
    Value chosen = index(parts.front().*what);
    if (llvm::all_of(parts, [&](const auto &part) { return part.*what == parts.front().*what; }))
      return chosen;
    for (int64_t other = 1; other < static_cast<int64_t>(parts.size()); ++other) {
      Value is = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, number, index(other));
      chosen = arith::SelectOp::create(b, loc, is, index(parts[other].*what), chosen);
    }
    return chosen;
  }
  Part partOf(Value number) {
    const Parts &all = cv.partsOf(plan);
    SmallVector<int64_t> sizes;
    for (const auto &parts : all)
      sizes.push_back(parts.size());
    SmallVector<Value> numbers = indicesOf(number, ArrayRef(sizes));
    Part part;
    part.steps = index(cv.sourceChannels());
    for (auto [parts, number] : llvm::zip(all, numbers)) {
      part.remainder.push_back(choose(parts, number, &AxisPart::remainder));
      part.first.push_back(choose(parts, number, &AxisPart::first));
      part.positions.push_back(choose(parts, number, &AxisPart::positions));
      part.place.push_back(choose(parts, number, &AxisPart::place));
      part.places.push_back(choose(parts, number, &AxisPart::places));
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
      } else if (part) {
        reach = add(add(reach, mul(part->first[axis], cv.strides[axis])), images.front[axis] - cv.paddings[axis]);
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
      Value inside = arith::AndIOp::create(b, loc, mask(end), maskFrom(start));
      return maskedLoad(memory, add(begin, first), inside);
    }
    auto numbers = VectorType::get({lanes}, b.getI32Type());
    Value at = vector::BroadcastOp::create(b, loc, numbers, arith::IndexCastOp::create(b, loc, b.getI32Type(), first));
    at = arith::AddIOp::create(b, loc, at, ramp(stride));
    // A negative index is large without a sign.
    Value sizes = arith::ConstantOp::create(b, loc, numbers, DenseElementsAttr::get(numbers, Attribute(b.getI32IntegerAttr(static_cast<int32_t>(size)))));
    Value inside = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ult, at, sizes);
    if (exists)
      inside = arith::AndIOp::create(b, loc, inside, vector::BroadcastOp::create(b, loc, maskType(), exists));
    return vector::GatherOp::create(b, loc, vectorType(), memory, ValueRange{begin}, at, inside, zeroVector());
  }

  /// One channel of one image, with its zeros. Rows follow each other; what a vector writes behind the end of one, the next overwrites.
  void copyPlane(Value number) {
    Value from = mul(number, ShapedType::getNumElements(cv.source())), to = mul(number, images.plane);
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
      loop(index(images.extent[last]), lanes, [&](Value w) {
        store(elementsOf(operands->lhs, begin, exists, add(mul(w, steps[last]), start), steps[last]), operands->workspace, add(rowTo, w));
      });
    });
  }

  /// An image as it is.
  void copyImage(Value number) {
    Value from = mul(number, cv.groups * cv.sourceChannels() * images.plane), to = mul(number, images.image);
    neighbours(index(0), index(cv.groups * cv.sourceChannels() * images.plane), cv.groups * cv.sourceChannels() * images.plane % lanes == 0, false,
               [&](Value at, Value mask) { store(mask ? maskedLoad(operands->lhs, add(from, at), mask) : load(operands->lhs, add(from, at)), operands->workspace, add(to, at)); });
  }

  /// Panels of the other factor, transposed.
  void transposePanels(Value begin, Value end) {
    const int64_t kernel = ShapedType::getNumElements(cv.k), positions = ShapedType::getNumElements(cv.p);
    /// `columns` neighbours of each row, rows `stride` apart, from channel `column` on; a row of the panel is written at `at`.
    auto transpose = [&](Value number, llvm::function_ref<Value(Value entry, Value column)> from, int64_t stride, int64_t columns, Value at) {
      Value column = mul(rem(number, cv.panels()), cv.nr()), rows = min(sub(index(cv.channels()), column), index(cv.nr()));
      Value to = add(mul(number, cv.elementsOfPanel()), mul(at, cv.nr()));
      func::CallOp::create(b, loc, transposition(), ValueRange{operands->rhs, from(div(number, cv.panels()), column), index(stride), rows, index(columns), operands->panels, to, index(cv.nr())});
    };
    if (cv.isInput()) {
      // What is read follows each other; an output after the other, as each leaves something behind its own places.
      loop(index(0), index(cv.o), index(outputsPerCopy), [&](Value block) {
        loop(begin, end, [&](Value number) {
          loop(block, min(add(block, outputsPerCopy), index(cv.o)), [&](Value output) {
            auto from = [&](Value entry, Value column) { return mul(add(mul(add(mul(entry, cv.o), output), cv.c), column), kernel); };
            transpose(number, from, kernel, kernel, mul(output, kernel));
          });
        });
      });
      return;
    }
    const int64_t row = cv.isWeight() ? positions : cv.c * kernel;
    loop(begin, end, [&](Value number) {
      transpose(number, [&](Value entry, Value column) { return mul(add(mul(entry, cv.o), column), row); }, row, row, index(0));
    });
  }

  /// What a launch before the product writes.
  bool copiesImages(unsigned launch) const { return launch + 2 == cv.launchCount() && !images.inPlace; }
  bool writesPanels(unsigned launch) const { return launch == 0 && cv.matrixElements() > 0; }
  Value copyTasks(unsigned launch) {
    int64_t each = copiesImages(launch) ? images.image : 0, once = 0;
    (cv.isWeight() ? each : once) += writesPanels(launch) ? cv.matrixElements() : 0;
    return ceilDiv(add(mul(count, index(each)), once), elementsPerCopy);
  }
  void copyKernel(unsigned launch, Value begin, Value end) {
    Value all = max(copyTasks(launch), index(1));
    if (copiesImages(launch)) {
      Value units = plan.keepsImages() ? count : mul(count, index(cv.groups * cv.sourceChannels()));
      loop(share(begin, units, all), share(end, units, all), [&](Value number) { plan.keepsImages() ? copyImage(number) : copyPlane(number); });
    }
    if (writesPanels(launch)) {
      Value panels = mul(cv.isWeight() ? count : index(1), index(cv.groups * cv.panels()));
      transposePanels(share(begin, panels, all), share(end, panels, all));
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
  /// The positions of a block of images.
  void fillWeightSteps() {
    const int64_t positions = plan.blockSlices * ShapedType::getNumElements(ArrayRef(cv.p).drop_front());
    loop(plan.blockImages, [&](Value image) {
      loop(positions, [&](Value position) {
        Value shifted = add(mul(image, images.image), positionOffset(indicesOf(position, ArrayRef(cv.p))));
        putStep(add(mul(image, positions), position), shifted, add(mul(image, cv.matrixElements()), mul(position, cv.nr())));
      });
    });
  }
  /// The positions of a place, of each image of a block; at `begin` in the list of steps.
  void fillPlaceSteps(const Part &part, Value begin) {
    Value positions = productOf(part.positions);
    loop(plan.blockImages, [&](Value image) {
      loop(index(0), positions, [&](Value number) {
        SmallVector<Value> at = indicesOf(number, ArrayRef(part.positions));
        Value shifted = mul(image, images.image), linear = index(0);
        for (int64_t axis = 0; axis <= last; ++axis) {
          at[axis] = add(at[axis], part.first[axis]);
          linear = add(mul(linear, cv.p[axis]), at[axis]);
          shifted = add(shifted, mul(add(add(mul(at[axis], cv.strides[axis]), mul(part.place[axis], cv.dilations[axis])), -cv.paddings[axis]), distance(axis)));
        }
        putStep(add(add(begin, ProductEmitter::mul(image, positions)), number), shifted, add(mul(image, cv.matrixElements()), mul(linear, cv.nr())));
      });
    });
  }
  /// Of a part, `channels` channels from the first one on; at `begin` in the list of steps.
  void fillSteps(const Part &part, Value channels, Value begin) {
    const int64_t kernel = ShapedType::getNumElements(cv.k);
    Value places = productOf(part.places);
    loop(index(0), channels, [&](Value channel) {
      loop(index(0), places, [&](Value number) {
        SmallVector<Value> place = indicesOf(number, ArrayRef(part.places));
        Value linear = index(0);
        for (int64_t axis = 0; axis <= last; ++axis) {
          place[axis] = add(part.place[axis], mul(place[axis], cv.placeStep(axis)));
          linear = add(mul(linear, cv.k[axis]), place[axis]);
        }
        Value shifted = add(mul(channel, images.plane), placeOffset(place, &part)), other;
        if (plan.schedule == Schedule::Wide)
          other = add(mul(channel, cv.isInput() ? cv.c * kernel : kernel), linear);
        else
          other = mul(add(mul(channel, kernel), linear), cv.nr());
        putStep(add(add(begin, mul(channel, places)), number), shifted, other);
      });
    });
  }

  struct Counts {
    Value entries, lineTiles, rest, all; // rest: tiles of rows where lines are columns, and the other way round
  };
  Counts tileCounts() {
    Counts counts;
    const int64_t lines = cv.linesOfImage(plan);
    auto tilesOf = [&](Value all) { return plan.part ? mul(all, cv.lineParts()) : ceilDiv(all, plan.lines); };
    switch (plan.schedule) {
    case Schedule::Wide:
      counts.entries = mul(count, index(cv.groups * cv.partCount(plan)));
      counts.lineTiles = tilesOf(index(lines));
      counts.rest = index(llvm::divideCeil(cv.channels(), plan.rows));
      break;
    case Schedule::Tall:
      counts.entries = index(cv.groups * cv.partCount(plan));
      counts.lineTiles = tilesOf(mul(count, index(lines)));
      counts.rest = index(llvm::divideCeil(cv.channels(), plan.columns));
      break;
    case Schedule::Images:
      counts.entries = index(cv.groups);
      counts.lineTiles = ceilDiv(count, plan.blockImages);
      counts.rest = index(llvm::divideCeil(cv.channels(), plan.columns));
      break;
    case Schedule::Places:
      counts.entries = index(cv.groups);
      counts.lineTiles = index(llvm::divideCeil(cv.c, plan.blockChannels));
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
    loop(index(0), ceilDiv(tileColumns, cv.nr()), [&](Value panel) {
      multiplyPanel(index(0), tileRows, mul(panel, cv.nr()), index(plan.columns), steps, stepCount, a, aBase, bMemory, add(bBase, mul(panel, bPanel)), first);
    });
  }
  /// Of those `rows` rows, from one in the table on, in the columns of a panel. Accumulators lie at `at` + row * stride.
  void multiplyPanel(Value row0, Value rows, Value at, Value stride, Value steps, Value stepCount, Value a, Value aBase, Value bMemory, Value bAt, Value first) {
    func::FuncOp micro = microKernel();
    Value stepAt = add(mul(steps, 2), cv.rowTableElements());
    loop(index(0), ceilDiv(rows, plan.mr), [&](Value group) {
      Value row = add(row0, mul(group, plan.mr));
      func::CallOp::create(b, loc, micro,
                           ValueRange{operands->tables, row, stepAt, stepCount, a, aBase, bMemory, bAt, operands->scratch, add(ProductEmitter::mul(row, stride), at), stride, first});
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

  /// Accumulators of a tile of whole kernels: `channels` of them from a channel on, and columns.
  void placesTile(Value entry, Value channel0, Value channels, Value columnTile, Value tileColumns) {
    const int64_t kernel = ShapedType::getNumElements(cv.k);
    loop(index(0), roundUp(channels, plan.mr), [&](Value x) { put(mul(min(x, add(channels, -1)), images.plane), x); });
    // Of no images the sum is zero: one round without steps clears the accumulators.
    loop(index(0), max(count, index(1)), index(plan.blockImages), [&](Value image) {
      Value blockImages = max(min(sub(count, image), index(plan.blockImages)), index(0)), first = isZero(image);
      Value aBase = add(mul(image, images.image), mul(add(mul(entry, cv.c), channel0), images.plane));
      Value panel0 = add(mul(add(mul(image, cv.groups), entry), cv.panels()), mul(columnTile, plan.columns / cv.nr()));
      loop(index(0), ceilDiv(tileColumns, cv.nr()), [&](Value panel) {
        Value bAt = mul(add(panel0, panel), cv.elementsOfPanel());
        loop(kernel, [&](Value place) {
          ImagePart part = imagePartOf(place);
          Value steps = mul(blockImages, productOf(part.positions));
          multiplyPanel(index(0), channels, add(mul(place, plan.columns), mul(panel, cv.nr())), index(kernel * plan.columns), part.step, steps, imagesMemory, aBase, operands->panels, bAt, first);
        });
      });
    });
  }

  void weightTile(Value entry, Value rowTile, Value columnTile, bool acrossRows, ConvolutionEpilogue epilogue) {
    const int64_t rows = cv.c * ShapedType::getNumElements(cv.k), slice = ShapedType::getNumElements(ArrayRef(cv.p).drop_front());
    Value m0 = mul(rowTile, plan.rows), n0 = mul(columnTile, plan.columns);
    Value tileRows = min(sub(index(rows), m0), index(plan.rows)), tileColumns = min(sub(index(cv.o), n0), index(plan.columns));
    if (plan.schedule == Schedule::Places) {
      Value channel0 = mul(rowTile, plan.blockChannels);
      placesTile(entry, channel0, min(sub(index(cv.c), channel0), index(plan.blockChannels)), columnTile, tileColumns);
    } else {
      loop(index(0), roundUp(tileRows, plan.mr), [&](Value x) {
        Value row = min(add(m0, x), index(rows - 1)), kernel = index(ShapedType::getNumElements(cv.k));
        Value channel = ProductEmitter::div(row, kernel);
        SmallVector<Value> place = indicesOf(ProductEmitter::rem(row, kernel), ArrayRef(cv.k));
        put(add(mul(add(mul(entry, cv.c), channel), images.plane), placeOffset(place, nullptr)), x);
      });
      // Of no images the sum is zero: one round without steps clears the accumulators.
      loop(index(0), max(count, index(1)), index(plan.blockImages), [&](Value image) {
        loop(index(0), index(std::max<int64_t>(cv.p[0], 1)), index(std::max<int64_t>(plan.blockSlices, 1)), [&](Value at) {
          Value blockImages = max(min(sub(count, image), index(plan.blockImages)), index(0)), blockSlices = min(sub(index(cv.p[0]), at), index(plan.blockSlices));
          Value steps = mul(ProductEmitter::mul(blockImages, blockSlices), slice);
          Value aBase = add(mul(image, images.image), mul(at, positionDistance(0)));
          Value panel = add(mul(add(mul(image, cv.groups), entry), cv.panels()), mul(columnTile, plan.columns / cv.nr()));
          Value bBase = add(mul(panel, cv.elementsOfPanel()), mul(at, slice * cv.nr()));
          Value first = b.createOrFold<arith::AndIOp>(loc, isZero(image), isZero(at));
          multiplyTile(tileRows, tileColumns, index(0), steps, imagesMemory, aBase, operands->panels, bBase, cv.elementsOfPanel(), first);
        });
      });
    }
    Value at = transposeTile(tileRows, tileColumns);
    loop(index(0), tileColumns, [&](Value column) {
      Value begin = add(at, mul(column, cv.rowStride())), output = add(add(mul(entry, cv.o), n0), column);
      if (!acrossRows) {
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

  /// Hands a row of positions, from `from` to `to` of its own, to the epilogue. `at`: where position `from` lies in the scratch memory.
  void finishLine(Value image, Value channel, ArrayRef<Value> outer, const Part &part, Value from, Value to, Value at, ConvolutionEpilogue epilogue) {
    auto target = [&](int64_t axis, Value position) {
      Value at = add(part.first[axis], position);
      return cv.isInput() ? add(add(mul(at, cv.strides[axis]), part.remainder[axis]), -cv.paddings[axis]) : at;
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
    const bool areWhole = plan.part % lanes == 0 && llvm::all_of(cv.partsOf(plan)[last], [&](const AxisPart &part) { return part.positions % lanes == 0; });
    neighbours(from, to, areWhole, cv.mostPositions(last, plan) < lanes,
               [&](Value position, Value mask) { epilogue(b, loc, indexAt(position), load(operands->scratch, add(at, sub(position, from))), lanes, mask); });
  }

  /// Of the parts where places are left out: where their rows begin in a tile of whole images, and their steps in the table.
  struct ImagePart : Part {
    Value row, step;
  };
  ImagePart imagePartOf(Value number) {
    SmallVector<int64_t> rows{0}, steps{0};
    for (const PartSize &part : cv.imageSizes) {
      rows.push_back(rows.back() + llvm::alignTo(plan.blockImages * part.positions, plan.mr));
      steps.push_back(steps.back() + cv.stepsOf(plan, part));
    }
    ImagePart part{partOf(number), index(0), index(0)};
    for (int64_t other = 1; other < cv.partCount(plan); ++other) {
      Value is = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, number, index(other));
      part.row = arith::SelectOp::create(b, loc, is, index(rows[other]), part.row);
      part.step = arith::SelectOp::create(b, loc, is, index(steps[other]), part.step);
    }
    return part;
  }
  void imagesTile(Value group, Value imageTile, Value columnTile, ConvolutionEpilogue epilogue) {
    const int64_t kernel = ShapedType::getNumElements(cv.k);
    auto eachPart = [&](llvm::function_ref<void(const ImagePart &)> body) {
      loop(cv.partCount(plan), [&](Value number) { body(imagePartOf(number)); });
    };
    Value image0 = mul(imageTile, plan.blockImages), tileImages = min(sub(count, image0), index(plan.blockImages));
    Value channel0 = mul(columnTile, plan.columns), channelCount = min(sub(index(cv.channels()), channel0), index(plan.columns));
    // The indices of a position of a part; the first is the image.
    auto decode = [&](Value number, ArrayRef<Value> sizes) {
      SmallVector<Value> all{index(1)};
      llvm::append_range(all, sizes);
      return indicesOf(number, ArrayRef(all));
    };
    eachPart([&](const ImagePart &part) {
      Value rows = ProductEmitter::mul(tileImages, productOf(part.positions));
      loop(index(0), roundUp(rows, plan.mr), [&](Value x) {
        SmallVector<Value> at = decode(min(x, add(rows, -1)), part.positions);
        put(add(mul(at.front(), images.image), positionOffset(ArrayRef(at).drop_front())), add(part.row, x));
      });
    });
    Value aBase = add(mul(image0, images.image), mul(group, cv.sourceChannels() * images.plane));
    Value bBase = mul(add(mul(group, cv.panels()), mul(columnTile, plan.columns / cv.nr())), cv.elementsOfPanel());
    loop(index(0), index(std::max<int64_t>(cv.sourceChannels(), 1)), index(plan.blockChannels), [&](Value channel) {
      Value channels = min(sub(index(cv.sourceChannels()), channel), index(plan.blockChannels)), first = isZero(channel);
      loop(index(0), ceilDiv(channelCount, cv.nr()), [&](Value panel) {
        Value bAt = add(add(bBase, mul(panel, cv.elementsOfPanel())), mul(channel, kernel * cv.nr()));
        eachPart([&](const ImagePart &part) {
          Value steps = mul(channels, productOf(part.places));
          multiplyPanel(part.row, ProductEmitter::mul(tileImages, productOf(part.positions)), mul(panel, cv.nr()), index(plan.columns), part.step, steps, imagesMemory, add(aBase, mul(channel, images.plane)), operands->panels, bAt, first);
        });
      });
    });
    Value tile = transposeTile(index(plan.rows), channelCount);
    loop(index(0), channelCount, [&](Value x) {
      Value channel = add(add(mul(group, cv.channels()), channel0), x);
      eachPart([&](const ImagePart &part) {
        ArrayRef<Value> outer = ArrayRef(part.positions).drop_back();
        Value lines = mul(tileImages, productOf(outer)), row = part.positions[last], begin = add(add(tile, mul(x, cv.rowStride())), part.row);
        loop(index(0), lines, [&](Value line) {
          SmallVector<Value> at = decode(line, outer);
          finishLine(add(image0, at.front()), channel, ArrayRef(at).drop_front(), part, index(0), row, add(begin, ProductEmitter::mul(line, row)), epilogue);
        });
      });
    });
  }

  /// Hands the rows line0 to line1 - 1 of a tile to the epilogue, those of an image at once. The first lies at `begin` in the scratch memory; `ofImage`: of which image they are, if of one.
  void finishRows(Value channel, Value line0, Value line1, Value ofImage, Value begin, ConvolutionEpilogue epilogue) {
    const int64_t lines = cv.target().front(), row = cv.target().back();
    const bool areWhole = row % lanes == 0 || (ofImage && plan.lines * row % lanes == 0 && lines * row % lanes == 0);
    auto finish = [&](Value image, Value from, Value to, Value at) {
      neighbours(index(0), mul(sub(to, from), row), areWhole, false, [&](Value position, Value mask) {
        ElementIndex index;
        index.dims = {image, channel, from, position};
        epilogue(b, loc, index, load(operands->scratch, add(at, position)), lanes, mask);
      });
    };
    if (ofImage)
      return finish(ofImage, line0, line1, begin);
    loop(div(line0, lines), ceilDiv(line1, lines), [&](Value image) {
      Value first = mul(image, lines), from = max(line0, first), to = min(line1, add(first, lines));
      finish(image, sub(from, first), sub(to, first), add(begin, mul(sub(from, line0), row)));
    });
  }

  void positionTile(Value entry, Value lineTile, Value rest, bool acrossRows, ConvolutionEpilogue epilogue) {
    const bool wide = plan.schedule == Schedule::Wide;
    const int64_t kernel = ShapedType::getNumElements(cv.k), rowLength = wide ? images.dims[last] : 0;
    Value partNumber = index(0), image, group;
    if (cv.partCount(plan) > 1) {
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
      fillSteps(part, index(cv.sourceChannels()), index(0));
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
      to = max(min(add(from, plan.part), row), from);
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

    Value a = wide ? operands->rhs : imagesMemory, aBase = index(0);
    Value bMemory = wide ? imagesMemory : operands->panels, bBase;
    if (wide)
      bBase = add(add(mul(image, images.image), mul(group, cv.sourceChannels() * images.plane)), add(mul(line0, rowLength), from));
    else
      bBase = mul(add(mul(group, cv.panels()), mul(rest, plan.columns / cv.nr())), cv.elementsOfPanel());
    // One block even of no steps: it clears the accumulators.
    loop(index(0), max(part.steps, index(1)), index(plan.kBlock), [&](Value k0) {
      multiplyTile(tileRows, tileColumns, k0, min(sub(part.steps, k0), index(plan.kBlock)), a, aBase, bMemory, bBase, wide ? cv.nr() : cv.elementsOfPanel(), isZero(k0));
    });

    Value tile = wide ? index(0) : transposeTile(tileRows, tileColumns);
    loop(index(0), channelCount, [&](Value x) {
      Value channel = add(add(mul(group, cv.channels()), channel0), x), begin = add(tile, mul(x, wide ? plan.columns : cv.rowStride()));
      if (acrossRows && cv.rowsAreJoined())
        return finishRows(channel, line0, line1, wide ? image : Value(), begin, epilogue);
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

  void productKernel(Value begin, Value end, bool acrossRows, ConvolutionEpilogue epilogue) {
    Counts counts = tileCounts();
    Value tasks = max(productTasks(), index(1));
    if (cv.isWeight() || plan.keepsImages())
      when(arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ne, take(operands->kept, index(0)), index(0)), [&] {
        if (plan.schedule == Schedule::Weight)
          fillWeightSteps();
        else
          loop(cv.partCount(plan), [&](Value number) {
            ImagePart part = imagePartOf(number);
            if (cv.isWeight())
              fillPlaceSteps(part, part.step);
            else
              fillSteps(part, index(plan.blockChannels), part.step);
          });
        memref::StoreOp::create(b, loc, arith::ConstantOp::create(b, loc, b.getI64IntegerAttr(0)), operands->kept, ValueRange{index(0)});
      });
    loop(share(begin, counts.all, tasks), share(end, counts.all, tasks), [&](Value tile) {
      Value inner = plan.matrixFirst ? counts.lineTiles : counts.rest, outer = plan.matrixFirst ? counts.rest : counts.lineTiles;
      Value lineTile = ProductEmitter::rem(tile, inner), rest = ProductEmitter::rem(ProductEmitter::div(tile, inner), outer), entry = ProductEmitter::div(tile, ProductEmitter::mul(inner, outer));
      if (!plan.matrixFirst)
        std::swap(lineTile, rest);
      if (cv.isWeight())
        weightTile(entry, lineTile, rest, acrossRows, epilogue);
      else if (plan.schedule == Schedule::Images)
        imagesTile(entry, lineTile, rest, epilogue);
      else
        positionTile(entry, lineTile, rest, acrossRows, epilogue);
    });
  }
};

//===--- the interface ---===//

Value Convolution::tasks(unsigned launch, OpBuilder &b, Location loc, Value images) const {
  Emitter emitter(*this, b, loc, images, nullptr);
  return launch + 1 < launchCount() ? emitter.copyTasks(launch) : emitter.productTasks();
}

void Convolution::emit(unsigned launch, OpBuilder &b, Location loc, const ConvolutionOperands &operands, Value begin, Value end, bool acrossRows, ConvolutionEpilogue epilogue) const {
  Emitter emitter(*this, b, loc, operands.images, &operands);
  if (launch + 1 < launchCount())
    emitter.copyKernel(launch, begin, end);
  else
    emitter.productKernel(begin, end, acrossRows, epilogue);
}

} // namespace dlc::cpu
