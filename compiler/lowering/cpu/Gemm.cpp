//===- Gemm.cpp - matrix products inside kernels -*- C++ -*-===//
//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The product is cut into tiles of C. A block of scratch memory holds the accumulators of one tile;
// an outlined micro-kernel adds k steps to one register-sized part of it after the other, and when
// all of K has been added, a loop hands the tile to the epilogue. From the outside in:
//
//   for each tile                        consecutive tiles go down the rows, so they share columns of B
//     tile kernel, outlined:
//       for each block of K              one block if B is packed, unless K is huge
//         pack the columns               only where the plan says so, and only if the previous tile did not
//         for each panel of columns      NR = nv vectors
//           for each group of MR rows
//             micro-kernel, outlined:    accumulators += A[MR rows, block] * B[block, NR columns]
//     transpose the tile                 only when the product is computed as C^T = B^T A^T
//     for each row, for each vector      epilogue
//
// A is read where it lies, one element at a time: the micro-kernel takes a stride for rows and one
// for k, so a transposed A is no different, until its columns lie on so many pages that packing it
// into groups of rows pays: a launch of its own, whose tasks read rows of memory from end to end.
// Vectors of B must be contiguous along n: either B is row-major and read where it lies, in blocks of
// K that fit L1, or it is packed into panels [k][NR] that stay in L2. Edges cost no second
// micro-kernel: rows beyond the last one repeat it, columns beyond the last one compute with whatever
// follows in memory (lanes do not mix) and are dropped. Only where such a read would leave the matrix,
// in its last row or rows, a padded copy of these rows is read. But where half the vectors of the last
// panel are known to be enough, a narrower micro-kernel multiplies it.
//
// Two cases are planned differently. Where few rows of A meet a B that no cache holds, memory decides:
// it gives most to who reads few rows of B at once and these far along. So the tiles of a thread's
// range of tasks are one wide tile, of so many as the runtime is asked to leave together, and a block of K
// is a few steps. And a B that stays the same in the turns of a loop is packed by a launch that runs once
// before it. Of a batch whose entries have one A the columns of all may be numbered through, so that small
// entries fill the registers together.
//
// Where A comes from memory, each step of the micro-kernel also asks for a part of the rows that the next tile reads,
// so that memory delivers all the time and not only when a tile begins.
//
//===----------------------------------------------------------------------===//

#include "compiler/lowering/cpu/Gemm.h"
#include "compiler/lowering/cpu/ProductEmitter.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/MathExtras.h"

#include <array>
#include <cmath>

using namespace mlir;
using namespace dlc::cpu;

//===----------------------------------------------------------------------===//
// Emission
//===----------------------------------------------------------------------===//

/// What one emission knows: the builder, the sizes as values, and the product as it is computed,
/// i.e. exchanged if the plan says so.
struct Gemm::Emitter : ProductEmitter {
  const Gemm &gemm;
  const Plan &plan;
  int64_t nr;

  // The product as it is computed.
  int64_t staticRows, staticColumns, staticK;
  bool lhsTransposed, rhsTransposed;
  Value rows, columns, k, batch;
  Value entryColumns; // of one entry of the batch, where columns are those of all
  Value lhs, rhs, lhsOffset, rhsOffset, lhsBatchStride, rhsBatchStride, workspace, panels, kept;
  SmallVector<Value> updated;

  // Places in the scratch memory, in elements. The accumulators of the tile come first. Packed
  // panels of B share their place with the last rows of a panel that is read where it lies: never
  // both at once.
  int64_t transposedOffset = 0, packedOffset = 0, scratchElements = 0;

  Emitter(const Gemm &gemm, OpBuilder &b, Location loc, const GemmOperands *operands);

  func::FuncOp microKernel(int64_t nv, bool fetches);
  func::FuncOp tileKernel();
  func::FuncOp packing(int64_t width);
  func::FuncOp joining();

  //===--- Kernels ---===//

  /// Tiles down the rows, across the columns, in all.
  std::array<Value, 3> tileCounts();
  Value tasks(unsigned launch);
  void packLhs(Value begin, Value end);
  void packRhs(Value begin, Value end);
  void productKernel(Value begin, Value end, Value scratch, GemmEpilogue epilogue);

  /// Whether columns of B that one tile has packed may serve the next one.
  bool keepsPanels() const {
    return (plan.rhs == Packing::Task || plan.rhs == Packing::RunTime) && (ShapedType::isDynamic(staticK) || staticK <= plan.kBlock);
  }
  /// Whether panels of columns may stick out.
  bool ragged() const { return ShapedType::isDynamic(staticColumns) || staticColumns % nr != 0; }
  /// Whether the rows of a tile follow in memory on those of the one before, and L2 holds the two, but not all rows: then
  /// they are on their way while the one before is multiplied.
  bool fetches() const {
    return plan.lhs == Packing::None && !lhsTransposed && !ShapedType::isDynamic(staticRows) && !ShapedType::isDynamic(staticK) &&
           staticK <= plan.kBlock && staticRows * staticK * elementBytes() > gemm.cpu.l2Bytes / 4 &&
           plan.mTile * staticK * elementBytes() <= gemm.cpu.l2Bytes / 2;
  }
  /// Whether the last panel has a micro-kernel of its own, of half the vectors.
  bool endsInHalfPanel() const { return !plan.streams && Gemm::endsInHalfPanel(staticColumns, plan.nv, lanes); }
  /// Rows of K that a panel which sticks out may not read where they lie.
  int64_t maxTailRows() const {
    if (plan.rhs == Packing::Task || plan.rhs == Packing::Launch || !ragged())
      return 0;
    if (ShapedType::isDynamic(staticColumns))
      return nr;
    return llvm::divideCeil(llvm::alignTo(staticColumns, nr), std::max<int64_t>(staticColumns, 1)) -
           1;
  }

  /// Elements of a group of rows in the workspace: a line more, so that groups do not begin a power of
  /// two apart.
  Value lhsGroupElements() { return add(roundUp(mul(k, plan.mr), lineElements()), lineElements()); }
  /// Elements of a panel of columns that a launch packs: whole blocks of a transposition.
  Value rhsPanelElements() { return mul(roundUp(k, lanes), nr); }
  int64_t elementBytes() const { return element.getIntOrFloatBitWidth() / 8; }
  int64_t lineElements() const { return lineBytes / elementBytes(); }
  /// Whether tiles are as wide as the accumulators that L2 holds, and go through B as it lies in memory.
  Value streams() {
    if (!plan.streams || !ShapedType::isDynamic(staticRows))
      return boolean(plan.streams);
    const int64_t few = std::min(rowsForStreaming, plan.mTile);
    return b.createOrFold<arith::AndIOp>(loc, less(rows, index(few + 1)),
                                         less(index(gemm.cpu.l2Bytes / elementBytes()), mul(k, columns)));
  }
  /// Whether A is packed, where that is known at run time.
  Value packsLhs() {
    Value stepBytes = min(mul(rows, elementBytes()), index(pageBytes));
    return less(index(pagesInReach * pageBytes), mul(k, stepBytes));
  }
};

Gemm::Emitter::Emitter(const Gemm &gemm, OpBuilder &b, Location loc, const GemmOperands *operands)
    : ProductEmitter(gemm.cpu, gemm.shape.type, b, loc), gemm(gemm), plan(gemm.plan),
      nr(gemm.plan.nv * gemm.vectorLanes) {
  const GemmShape &shape = gemm.shape;
  const bool swapped = plan.swapped;
  staticRows = swapped ? shape.n : shape.m;
  staticColumns = columnsOf(shape, swapped, plan.joined);
  staticK = shape.k;
  lhsTransposed = swapped ? !shape.rhsTransposed : shape.lhsTransposed;
  rhsTransposed = swapped ? !shape.lhsTransposed : shape.rhsTransposed;

  auto place = [&](int64_t elements) {
    int64_t at = scratchElements;
    scratchElements += llvm::alignTo(elements, 64);
    return at;
  };
  const int64_t tileRows = swapped ? llvm::alignTo(plan.mTile, lanes) : plan.mTile;
  place(std::max(tileRows * plan.nTile, plan.streamElements));
  if (swapped)
    transposedOffset = place(tileRows * plan.nTile);
  const bool packsByTask = plan.rhs == Packing::Task || plan.rhs == Packing::RunTime;
  const int64_t packed = packsByTask ? plan.nTile * llvm::alignTo(plan.kBlock, lanes) : 0;
  packedOffset = place(std::max(packed, maxTailRows() * nr));

  if (!operands)
    return;
  auto size = [&](Value value, int64_t fixed) {
    return ShapedType::isDynamic(fixed) ? value : index(fixed);
  };
  Value m = size(operands->m, shape.m), n = size(operands->n, shape.n);
  k = size(operands->k, shape.k);
  batch = size(operands->batch, shape.batch);
  rows = swapped ? n : m;
  columns = swapped ? m : n;
  if (plan.joined) {
    entryColumns = columns;
    columns = mul(columns, batch);
    batch = index(1);
  }
  lhs = operands->lhs;
  rhs = operands->rhs;
  lhsOffset = index(0);
  rhsOffset = operands->rhsOffset ? operands->rhsOffset : index(0);
  lhsBatchStride = operands->lhsBatchStride;
  rhsBatchStride = operands->rhsBatchStride;
  if (swapped) {
    std::swap(lhs, rhs);
    std::swap(lhsOffset, rhsOffset);
    std::swap(lhsBatchStride, rhsBatchStride);
  }
  workspace = operands->workspace;
  panels = operands->panels;
  kept = operands->kept;
  // Rows of an exchanged tile lie across the lines of memory.
  if (!swapped)
    updated = operands->updated;
}

/// C[mr, nv vectors] += A[mr, count] * B[count, nv vectors], or = when `first`. Rows beyond `rows` repeat
/// the last one. Where it `fetches`, each step also asks for an element of A that is needed later.
func::FuncOp Gemm::Emitter::microKernel(int64_t nv, bool fetches) {
  const int64_t mr = plan.mr;
  Type memory = memoryType(), idx = b.getIndexType();
  SmallVector<Type> types{memory, idx, idx, idx, idx, memory, idx, idx, memory, idx, idx, idx, b.getI1Type()};
  if (fetches)
    types.append(2, idx);
  return outlined(
      llvm::formatv("dl.gemm_{0}_{1}x{2}{3}", typeName(), mr, nv * lanes, fetches ? "_f" : "").str(), types,
      [&](ValueRange arguments) {
        Value a = arguments[0], aAt = arguments[1], aRow = arguments[2], aStep = arguments[3],
              rows = arguments[4];
        Value bMemory = arguments[5], bAt = arguments[6], bStep = arguments[7];
        Value c = arguments[8], cAt = arguments[9], cRow = arguments[10], count = arguments[11],
              first = arguments[12];
        // Where the element lies that the first step asks for, and how far on that of the next one.
        Value ahead = fetches ? arguments[13] : Value(), aheadStep = fetches ? arguments[14] : Value();

        SmallVector<Value> aRows, places, carried{index(0), bAt};
        if (fetches) {
          carried.push_back(addressOf(a, ahead));
          aheadStep = mul(aheadStep, elementBytes());
        }
        Value last = add(rows, -1);
        for (int64_t i = 0; i < mr; ++i) {
          aRows.push_back(i == 0 ? aAt : add(aAt, mul(min(index(i), last), aRow)));
          Value row = i == 0 ? cAt : add(cAt, mul(cRow, i));
          for (int64_t v = 0; v < nv; ++v)
            places.push_back(add(row, v * lanes));
        }
        multiplySteps(
            mr, nv, bMemory, c, places, count, first, carried,
            [&](ValueRange at, SmallVectorImpl<Value> &next) {
              next.push_back(add(at[0], aStep));
              next.push_back(add(at[1], bStep));
              if (fetches) {
                fetch(at[2]);
                next.push_back(add(at[2], aheadStep));
              }
              return Step{at[0], at[1]};
            },
            [&](int64_t row, Value step) {
              return memref::LoadOp::create(b, loc, a, ValueRange{add(aRows[row], step)}).getResult();
            });
      });
}

/// Multiplies one tile: accumulators = A[rows of the tile, K] * B[K, columns of the tile].
/// Everything about it is an argument, so that all products of a type and micro-tile share one
/// copy.
func::FuncOp Gemm::Emitter::tileKernel() {
  func::FuncOp micro = microKernel(plan.nv, fetches()), half = endsInHalfPanel() ? microKernel(plan.nv / 2, fetches()) : func::FuncOp();
  const bool transposes = rhsTransposed && plan.rhs != Packing::Launch;
  func::FuncOp pack = transposes ? transposition() : plan.joined ? joining() : packing(nr);
  Type memory = memoryType(), idx = b.getIndexType(), i1 = b.getI1Type();
  std::string name =
      llvm::formatv("dl.tile_{0}_{1}x{2}{3}", typeName(), plan.mr, nr, transposes ? "_t" : plan.joined ? "_j" : "")
          .str();
  if (!updated.empty())
    name += "_u" + std::to_string(updated.size());
  if (half)
    name += "_h";
  SmallVector<Type> types{memory, idx,    idx, idx, idx, idx,    memory, idx, idx, idx, idx, idx,
                          memory, idx,    idx, idx, memory, idx, idx,    idx, idx, i1,  i1};
  if (fetches()) {
    name += "_f";
    types.append(2, idx);
  }
  if (plan.joined)
    types.append(2, idx);
  if (!updated.empty())
    types.push_back(idx);
  types.append(updated.size(), memory);
  return outlined(name, types, [&](ValueRange arguments) {
    auto next = arguments.begin();
    // A: where the tile begins, strides of a row, of a step, of a group of rows; rows of the tile.
    Value a = *next++, aBase = *next++, aRow = *next++, aStep = *next++, aGroup = *next++,
          tileRows = *next++;
    // B: where it begins; the tile's first column and columns; all columns, all steps.
    Value bMemory = *next++, bBase = *next++, n0 = *next++, tileColumns = *next++,
          columns = *next++, k = *next++;
    // Packed panels: where they are, elements of one; whether later blocks of K follow in it (1) or
    // take the place of the first (0).
    Value panelMemory = *next++, panelsAt = *next++, panelElements = *next++, panelGoesOn = *next++;
    // Scratch: where steps go that cannot be read where they lie; accumulators, from row to row and
    // from panel to panel; steps of a block.
    Value scratch = *next++, tailAt = *next++, cRow = *next++, cPanel = *next++, kBlock = *next++;
    // Whether B is read from packed panels, and whether these are still to be packed.
    Value packs = *next++, fresh = *next++;
    // A again: where the next tile begins; how many elements of it each step asks for.
    Value ahead = fetches() ? *next++ : Value(), aheadStep = fetches() ? *next++ : Value();
    // Columns of an entry, and elements from entry to entry, of which tiles go through several.
    Value entryColumns = plan.joined ? *next++ : Value(), entryStride = plan.joined ? *next++ : Value();
    // What the epilogue will read: where the tile begins in it, and the memory.
    Value updateAt = updated.empty() ? Value() : *next++;
    SmallVector<Value> updates(next, arguments.end());
    Value panels = ceilDiv(tileColumns, nr);
    // One block even if K is 0: it clears the accumulators.
    loop(index(0), max(k, index(1)), kBlock, [&](Value k0) {
      Value count = min(sub(k, k0), kBlock);
      Value isFirst = b.createOrFold<arith::CmpIOp>(loc, arith::CmpIPredicate::eq, k0, index(0));
      Value isLast = less(sub(k, k0), add(kBlock, 1));
      Value panelFrom = add(panelsAt, mul(mul(k0, panelGoesOn), nr));
      if (plan.joined)
        when(fresh, [&] {
          func::CallOp::create(b, loc, pack,
                               ValueRange{bMemory, add(bBase, mul(k0, entryColumns)), entryColumns, entryStride, n0, columns, panels,
                                          count, panelMemory, panelFrom, panelElements});
        });
      else if (!transposes)
        when(fresh, [&] {
          func::CallOp::create(b, loc, pack,
                               ValueRange{bMemory, add(add(bBase, n0), mul(k0, columns)), columns,
                                          sub(columns, n0), panels, count, panelMemory, panelFrom,
                                          panelElements});
        });
      loop(panels, 1, [&](Value p) {
        Value column = mul(p, nr);
        Value n = add(n0, column);
        Value packedPanel = add(mul(p, panelElements), panelFrom);
        Value bAt = packedPanel, bStep = index(nr), bFrom = panelMemory, direct = count, tail;
        if (transposes) {
          when(fresh, [&] {
            func::CallOp::create(b, loc, pack,
                                 ValueRange{bMemory, add(add(bBase, k0), mul(n, k)), k,
                                            min(sub(columns, n), index(nr)), count, panelMemory,
                                            packedPanel, index(nr)});
          });
        } else if (!plan.joined) {
          // Steps of K in which the panel would read beyond the end of B, if it reads B where it
          // lies: as many rows as begin less than the panel's last column before the end. They are
          // copied.
          Value unsafe = add(ceilDivByValue(add(n, nr), columns), -1);
          Value safe = min(max(sub(sub(k, unsafe), k0), index(0)), count);
          auto either = [&](Value packed, Value unpacked) -> Value {
            return arith::SelectOp::create(b, loc, packs, packed, unpacked);
          };
          direct = either(count, safe);
          tail = sub(count, direct);
          Value from = add(add(bBase, n), mul(k0, columns));
          when(less(index(0), tail), [&] {
            func::CallOp::create(b, loc, pack,
                                 ValueRange{bMemory, add(from, mul(safe, columns)), columns,
                                            sub(columns, n), index(1), tail, scratch, tailAt,
                                            index(0)});
          });
          bAt = either(packedPanel, from);
          bStep = either(index(nr), columns);
          bFrom = either(panelMemory, bMemory);
        }
        Value groups = ceilDiv(tileRows, plan.mr), needed = half ? sub(tileColumns, column) : index(nr);
        auto multiply = [&](ValueRange arguments) {
          when(less(index(nr / 2), needed), [&] { func::CallOp::create(b, loc, micro, arguments); });
          if (half)
            when(less(needed, index(nr / 2 + 1)), [&] { func::CallOp::create(b, loc, half, arguments); });
        };
        loop(groups, 1, [&](Value group) {
          Value i = mul(group, plan.mr);
          Value aAt = add(add(aBase, mul(group, aGroup)), mul(k0, aStep));
          Value rowsLeft = sub(tileRows, i), cAt = add(mul(i, cRow), mul(p, cPanel));
          // Few lines at a time, so that none waits for the others.
          if (!updates.empty())
            when(isLast, [&] {
              for (Value memory : updates)
                for (int64_t row = 0; row < plan.mr; ++row)
                  for (int64_t line = 0; line < nr; line += lineElements())
                    own(memory, add(add(updateAt, mul(add(i, row), columns)), add(column, line)));
            });
          SmallVector<Value> arguments{a, aAt, aRow, aStep, rowsLeft, bFrom, bAt, bStep, scratch,
                                       cAt, cRow, direct, isFirst};
          if (fetches())
            arguments.append({add(ahead, mul(mul(add(mul(p, groups), group), aheadStep), k)), aheadStep});
          multiply(arguments);
          if (tail)
            when(less(index(0), tail), [&] {
              SmallVector<Value> arguments{a, add(aAt, mul(direct, aStep)), aRow, aStep,
                                           rowsLeft, scratch, tailAt, index(nr), scratch,
                                           cAt, cRow, tail, boolean(false)};
              if (fetches())
                arguments.append({ahead, index(0)});
              multiply(arguments);
            });
        });
      });
    });
  });
}

std::array<Value, 3> Gemm::Emitter::tileCounts() {
  Value down = ceilDiv(rows, plan.mTile), across = ceilDiv(columns, plan.nTile);
  return {down, across, mul(mul(down, across), batch)};
}

Value Gemm::Emitter::tasks(unsigned launch) {
  const Value runs = ceilDiv(k, stepsTogether);
  switch (gemm.partOf(launch)) {
  case Part::PackRhs:
    return rhsTransposed ? ceilDiv(columns, nr) : runs;
  case Part::PackLhs:
    return plan.lhs == Packing::RunTime
               ? b.createOrFold<arith::SelectOp>(loc, packsLhs(), runs, index(0))
               : runs;
  case Part::Multiply:
    break;
  }
  // As many as there are tiles, unless they are so small that handing them out would cost more than
  // doing them.
  Value tiles = tileCounts()[2];
  const double stepsPerTask = taskCycles / cyclesPerStep(plan.mr, plan.nv);
  const int64_t microTiles = (plan.mTile / plan.mr) * (plan.nTile / nr);
  const int64_t unit = std::max<int64_t>(1, std::llround(stepsPerTask / microTiles));
  Value worth = max(ceilDiv(mul(tiles, k), unit), index(1));
  if (plan.streams)
    tiles = b.createOrFold<arith::SelectOp>(
        loc, streams(), min(tiles, max(div(mul(columns, elementBytes()), streamedTaskBytes), index(1))), tiles);
  return min(tiles, worth);
}

/// destination[group][step][width] = source[step][group * width ...] for `steps` steps: rows of a
/// transposed A in groups, or columns of B in panels. Columns of the source that do not exist become
/// zero. Nothing is written beyond the last step.
func::FuncOp Gemm::Emitter::packing(int64_t width) {
  Type memory = memoryType(), idx = b.getIndexType();
  std::string name = llvm::formatv("dl.pack_{0}_{1}", typeName(), width).str();
  return outlined(name, {memory, idx, idx, idx, idx, idx, memory, idx, idx}, [&](ValueRange arguments) {
    // The source: its first element, elements from step to step, columns that exist; groups, steps.
    Value source = arguments[0], sourceAt = arguments[1], sourceStep = arguments[2],
          existing = arguments[3], groups = arguments[4], steps = arguments[5];
    // The destination: its first element, elements from group to group.
    Value destination = arguments[6], at = arguments[7], groupElements = arguments[8];
    const int64_t vectors = llvm::divideCeil(width, lanes);
    // What a vector leaves behind its step, the next steps overwrite.
    const int64_t lastSteps = llvm::divideCeil(vectors * lanes - width, width);
    loop(steps, stepsTogether, [&](Value first) {
      Value end = min(add(first, stepsTogether), steps);
      Value whole = max(min(end, add(steps, -lastSteps)), first);
      loop(groups, 1, [&](Value group) {
        Value column = mul(group, width), left = sub(existing, column);
        Value from = add(sourceAt, column), to = add(at, mul(group, groupElements));
        SmallVector<Value> masks;
        for (int64_t v = 0; v < vectors; ++v)
          masks.push_back(mask(min(add(left, -v * lanes), index(width - v * lanes))));
        auto copy = [&](Value begin, Value end, bool isLast) {
          loop(begin, end, index(1), [&](Value step) {
            Value row = add(from, mul(step, sourceStep)), place = add(to, mul(step, width));
            for (int64_t v = 0; v < vectors; ++v) {
              Value vector = maskedLoad(source, add(row, v * lanes), masks[v]);
              if (isLast && (v + 1) * lanes > width)
                vector::MaskedStoreOp::create(b, loc, destination, ValueRange{add(place, v * lanes)},
                                              masks[v], vector);
              else
                store(vector, destination, add(place, v * lanes));
            }
          });
        };
        copy(first, whole, /*isLast=*/false);
        if (lastSteps)
          copy(whole, end, /*isLast=*/true);
      });
    });
  });
}

/// destination[panel][step][nr] = source[step, first + panel * nr ...], of columns that go through the entries of a
/// batch: `existing` in all. Those beyond become zero.
func::FuncOp Gemm::Emitter::joining() {
  Type memory = memoryType(), idx = b.getIndexType();
  std::string name = llvm::formatv("dl.join_{0}_{1}", typeName(), nr).str();
  return outlined(name, {memory, idx, idx, idx, idx, idx, idx, idx, memory, idx, idx}, [&](ValueRange arguments) {
    // The source: its first element, columns of an entry, elements from entry to entry; the first column, columns that
    // exist in all; panels, steps.
    Value source = arguments[0], sourceAt = arguments[1], entryColumns = arguments[2], entryStride = arguments[3],
          firstColumn = arguments[4], existing = arguments[5], panels = arguments[6], steps = arguments[7];
    // The destination: its first element, elements from panel to panel.
    Value destination = arguments[8], at = arguments[9], panelElements = arguments[10];
    loop(panels, 1, [&](Value panel) {
      Value to = add(at, mul(panel, panelElements));
      for (int64_t v = 0; v < plan.nv; ++v) {
        // A vector lies in an entry, and perhaps the next one.
        Value column = add(add(firstColumn, mul(panel, nr)), v * lanes), exist = sub(existing, column);
        Value entry = div(column, entryColumns), inEntry = rem(column, entryColumns), left = sub(entryColumns, inEntry);
        Value from = add(add(sourceAt, mul(entry, entryStride)), inEntry);
        Value next = sub(add(from, entryStride), entryColumns);
        Value here = mask(min(left, exist)), there = arith::AndIOp::create(b, loc, mask(exist), maskFrom(left));
        loop(steps, 1, [&](Value step) {
          Value row = mul(step, entryColumns), part = maskedLoad(source, add(from, row), here);
          Value both = vector::MaskedLoadOp::create(b, loc, vectorType(), source, ValueRange{add(next, row)}, there, part);
          store(both, destination, add(add(to, mul(step, nr)), v * lanes));
        });
      }
    });
  });
}

/// Tasks are runs of steps: each reads rows of memory from end to end.
void Gemm::Emitter::packLhs(Value begin, Value end) {
  Value first = mul(begin, stepsTogether), last = min(mul(end, stepsTogether), k);
  func::CallOp::create(b, loc, packing(plan.mr),
                       ValueRange{lhs, add(lhsOffset, mul(first, rows)), rows, rows, ceilDiv(rows, plan.mr),
                                  sub(last, first), workspace, mul(first, plan.mr),
                                  lhsGroupElements()});
}

/// Of a B that lies row by row, tasks are runs of steps; of a transposed one, panels.
void Gemm::Emitter::packRhs(Value begin, Value end) {
  Value panelElements = rhsPanelElements();
  if (rhsTransposed) {
    loop(begin, end, index(1), [&](Value panel) {
      Value n = mul(panel, nr);
      func::CallOp::create(b, loc, transposition(),
                           ValueRange{rhs, add(rhsOffset, mul(n, k)), k, min(sub(columns, n), index(nr)), k,
                                      panels, mul(panel, panelElements), index(nr)});
    });
    return;
  }
  Value first = mul(begin, stepsTogether), last = min(mul(end, stepsTogether), k);
  func::CallOp::create(b, loc, packing(nr),
                       ValueRange{rhs, add(rhsOffset, mul(first, columns)), columns, columns, ceilDiv(columns, nr),
                                  sub(last, first), panels, mul(first, nr), panelElements});
}

void Gemm::Emitter::productKernel(Value begin, Value end, Value scratch, GemmEpilogue epilogue) {
  func::FuncOp multiply = tileKernel();
  auto [down, across, tiles] = tileCounts();
  // Each task takes an equal share of the tiles.
  Value taskCount = max(tasks(gemm.launchCount() - 1), index(1));
  Value firstTile = share(begin, tiles, taskCount), lastTile = share(end, tiles, taskCount);

  // Whether B is packed, and so how many steps of K one block has.
  Value packs = plan.rhs == Packing::RunTime ? less(index(plan.packedRows - 1), rows)
                                             : boolean(plan.rhs != Packing::None);
  Value kBlock = b.createOrFold<arith::SelectOp>(
      loc, packs, index(plan.kBlock),
      index(plan.rhs == Packing::RunTime ? plan.directBlock : plan.kBlock));
  // Where B comes from memory, tiles next to each other are one.
  Value cRow = index(plan.nTile), cPanel = index(nr), tilesTogether = index(1);
  if (plan.streams) {
    Value isWide = streams();
    auto choose = [&](Value yes, Value no) {
      return b.createOrFold<arith::SelectOp>(loc, isWide, yes, no);
    };
    kBlock = choose(index(stepsTogether), kBlock);
    Value rowsHeld = roundUp(max(rows, index(1)), plan.mr);
    Value held = div(index(plan.streamElements), mul(rowsHeld, plan.nTile));
    tilesTogether = choose(max(held, index(1)), index(1));
    // Every few steps all accumulators pass by, so they lie in that order: panel by panel.
    cRow = choose(index(nr), cRow);
    cPanel = choose(mul(rowsHeld, nr), cPanel);
  }
  // Where packed panels are.
  Value panelMemory = scratch, panelsAt = index(packedOffset),
        panelElements = mul(roundUp(kBlock, lanes), nr);
  if (plan.rhs == Packing::Launch) {
    panelMemory = panels;
    panelElements = rhsPanelElements();
  }
  // How A is read.
  Value a = lhs, aBegin = lhsOffset, aRow = lhsTransposed ? index(1) : k, aStep = lhsTransposed ? rows : index(1);
  Value aGroup = mul(aRow, plan.mr);
  if (plan.lhs != Packing::None) {
    Value packed = plan.lhs == Packing::RunTime ? packsLhs() : boolean(true);
    auto choose = [&](Value yes, Value no) {
      return b.createOrFold<arith::SelectOp>(loc, packed, yes, no);
    };
    a = choose(workspace, a);
    aBegin = choose(index(0), aBegin);
    aStep = choose(index(plan.mr), aStep);
    aGroup = choose(lhsGroupElements(), aGroup);
  }

  // The columns of B that lie packed in the scratch memory are kept from one tile to the next.
  SmallVector<Value> carried;
  if (keepsPanels())
    carried.push_back(kept ? arith::IndexCastOp::create(b, loc, b.getIndexType(), memref::LoadOp::create(b, loc, kept, ValueRange{index(0)})).getResult() : index(-1));
  auto tileLoop = scf::ForOp::create(b, loc, firstTile, lastTile, tilesTogether, carried);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(tileLoop.getBody());
  Value tile = tileLoop.getInductionVar();
  const bool single = gemm.shape.batch == 1 || plan.joined;
  Value columnTile = div(tile, down), rowTile = rem(tile, down);
  Value m0 = mul(rowTile, plan.mTile);
  Value n0 = mul(single ? columnTile : rem(columnTile, across), plan.nTile);
  Value entry = single ? index(0) : div(columnTile, across);
  Value lhsBase = single || !lhsBatchStride ? aBegin : add(aBegin, mul(entry, lhsBatchStride));
  Value rhsBase = single || !rhsBatchStride ? rhsOffset : add(rhsOffset, mul(entry, rhsBatchStride));
  Value tileRows = min(sub(rows, m0), index(plan.mTile)),
        tileColumns = min(sub(columns, n0),
                          mul(min(sub(lastTile, tile), tilesTogether), plan.nTile));
  if (plan.rhs == Packing::Launch)
    panelsAt = mul(div(n0, nr), panelElements);

  Value fresh = plan.rhs == Packing::Launch ? boolean(false) : packs;
  if (keepsPanels()) {
    fresh = b.createOrFold<arith::CmpIOp>(loc, arith::CmpIPredicate::ne,
                                          tileLoop.getRegionIterArg(0), columnTile);
    // Of several blocks only the last one is still there.
    if (ShapedType::isDynamic(staticK))
      fresh = b.createOrFold<arith::OrIOp>(loc, fresh, less(kBlock, k));
    fresh = b.createOrFold<arith::AndIOp>(loc, packs, fresh);
  }
  Value aBase = add(lhsBase, mul(rowTile, mul(aGroup, plan.mTile / plan.mr)));
  SmallVector<Value> arguments{a,           aBase,    aRow,    aStep,
                               aGroup,      tileRows, rhs,     rhsBase,
                               n0,          tileColumns, columns, k,
                               panelMemory, panelsAt, panelElements,
                               index(plan.rhs == Packing::Launch),
                               scratch,     index(packedOffset), cRow, cPanel, kBlock,
                               packs,       fresh};
  // Its panels together ask for all rows of the next tile.
  if (fetches())
    arguments.append({add(aBase, mul(tileRows, k)), index(llvm::divideCeil(plan.mr, plan.nTile / nr))});
  if (plan.joined)
    arguments.append({entryColumns, rhsBatchStride});
  if (!updated.empty())
    arguments.push_back(add(mul(add(mul(entry, rows), m0), columns), n0));
  llvm::append_range(arguments, updated);
  func::CallOp::create(b, loc, multiply, arguments);

  // Back in terms of C: which rows and columns the tile has, and where.
  Value cRows = tileRows, cColumns = tileColumns, row0 = m0, column0 = n0;
  int64_t cOffset = 0, staticCColumns = staticColumns;
  Value cStride = cRow;
  if (plan.swapped) {
    std::swap(cRows, cColumns);
    std::swap(row0, column0);
    cOffset = transposedOffset;
    cStride = index(llvm::alignTo(plan.mTile, lanes));
    staticCColumns = staticRows;
    func::CallOp::create(b, loc, transposition(),
                         ValueRange{scratch, index(0), index(plan.nTile), tileRows, tileColumns,
                                    scratch, index(transposedOffset), cStride});
  }

  // Tiles begin at multiples of cStep columns, so whether all their vectors are whole follows from
  // these two.
  const int64_t cStep = plan.swapped ? plan.mTile : plan.nTile;
  const bool wholeVectors = !ShapedType::isDynamic(staticCColumns) && staticCColumns % lanes == 0 &&
                            (cStep % lanes == 0 || staticCColumns <= cStep);
  const bool neverWhole = !ShapedType::isDynamic(staticCColumns) && staticCColumns < lanes;
  auto finishRow = [&](Value i) {
    Value row = add(row0, i), from = add(mul(i, cStride), cOffset);
    auto finish = [&](Value j, Value mask) {
      Value at = plan.streams ? add(mul(div(j, nr), cPanel), rem(j, index(nr))) : j;
      epilogue(b, loc, ValueRange{entry, row, add(column0, j)}, load(scratch, add(from, at)), mask);
    };
    Value whole = wholeVectors ? cColumns : mul(div(cColumns, lanes), lanes);
    if (!neverWhole)
      loop(whole, lanes, [&](Value j) { finish(j, Value()); });
    if (wholeVectors)
      return;
    if (neverWhole)
      finish(index(0), mask(cColumns));
    else
      when(less(whole, cColumns), [&] { finish(whole, mask(sub(cColumns, whole))); });
  };
  // Columns that are joined go back to their entries.
  auto finishEntry = [&](Value entry) {
    Value begin = mul(entry, entryColumns), first = max(n0, begin), end = min(add(n0, tileColumns), add(begin, entryColumns));
    loop(cRows, 1, [&](Value i) {
      neighbours(first, end, /*areWhole=*/false, /*areShort=*/false, [&](Value column, Value mask) {
        Value at = add(mul(i, cStride), sub(column, n0));
        epilogue(b, loc, ValueRange{entry, add(row0, i), sub(column, begin)}, load(scratch, at), mask);
      });
    });
  };
  if (plan.joined)
    loop(div(n0, entryColumns), ceilDivByValue(add(n0, tileColumns), entryColumns), finishEntry);
  else
    loop(cRows, 1, finishRow);

  if (!keepsPanels())
    return;
  scf::YieldOp::create(b, loc, ValueRange{columnTile});
  if (kept) {
    b.setInsertionPointAfter(tileLoop);
    Value last = arith::IndexCastOp::create(b, loc, b.getI64Type(), tileLoop.getResult(0));
    memref::StoreOp::create(b, loc, last, kept, ValueRange{index(0)});
  }
}

//===----------------------------------------------------------------------===//
// The interface
//===----------------------------------------------------------------------===//

func::FuncOp Gemm::microKernel(OpBuilder &b, Location loc) const {
  return Emitter(*this, b, loc, nullptr).microKernel(plan.nv, /*fetches=*/false);
}

unsigned Gemm::launchCount() const { return 1 + (plan.rhs == Packing::Launch) + (plan.lhs != Packing::None); }

unsigned Gemm::launchesOnce() const { return plan.rhs == Packing::Launch && (plan.swapped ? shape.lhsFixed : shape.rhsFixed); }

Gemm::Part Gemm::partOf(unsigned launch) const {
  return launch == 0 && plan.rhs == Packing::Launch ? Part::PackRhs
         : launch + 1 < launchCount() ? Part::PackLhs
                                      : Part::Multiply;
}

int64_t Gemm::scratchBytes() const {
  // Only sizes are asked for, so nothing is built.
  OpBuilder b(shape.type.getContext());
  Emitter emitter(*this, b, b.getUnknownLoc(), nullptr);
  return emitter.scratchElements * (shape.type.getIntOrFloatBitWidth() / 8);
}

AffineExpr Gemm::workspaceElements(AffineExpr m, AffineExpr n, AffineExpr k) const {
  if (plan.lhs == Packing::None)
    return getAffineConstantExpr(0, shape.type.getContext());
  // The same layout as Emitter::lhsGroupElements.
  const int64_t line = lineBytes * 8 / shape.type.getIntOrFloatBitWidth();
  AffineExpr rows = plan.swapped ? n : m;
  return rows.ceilDiv(plan.mr) * ((k * plan.mr).ceilDiv(line) * line + line);
}

AffineExpr Gemm::panelElements(AffineExpr m, AffineExpr n, AffineExpr k) const {
  if (plan.rhs != Packing::Launch)
    return getAffineConstantExpr(0, shape.type.getContext());
  // The same layout as Emitter::rhsPanelElements.
  const int64_t lanes = vectorLanes;
  AffineExpr columns = plan.swapped ? m : n;
  return columns.ceilDiv(plan.nv * lanes) * (k.ceilDiv(lanes) * lanes * plan.nv * lanes);
}

Value Gemm::tasks(unsigned launch, OpBuilder &b, Location loc, const GemmOperands &operands) const {
  return Emitter(*this, b, loc, &operands).tasks(launch);
}

void Gemm::emit(unsigned launch, OpBuilder &b, Location loc, const GemmOperands &operands,
                Value begin, Value end, Value scratch, GemmEpilogue epilogue) const {
  Emitter emitter(*this, b, loc, &operands);
  switch (partOf(launch)) {
  case Part::PackRhs:
    return emitter.packRhs(begin, end);
  case Part::PackLhs:
    return emitter.packLhs(begin, end);
  case Part::Multiply:
    return emitter.productKernel(begin, end, scratch, epilogue);
  }
}
