//===- GemmPlan.cpp - how matrix products are divided -*- C++ -*-===//
//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "compiler/lowering/cpu/Gemm.h"
#include "compiler/lowering/cpu/ProductEmitter.h"

#include "llvm/Support/MathExtras.h"

#include <cassert>
#include <numeric>
#include <optional>
#include <tuple>

using namespace mlir;
using namespace dlc::cpu;

namespace {

/// From how many rows on B is packed when a run-time size decides; the second where its panels do not
/// stay in the caches if they are not.
constexpr int64_t rowsForPacking = 160, rowsForPackingMissed = 48;

/// Rows of a tile that finds B packed; of one that packs it anew for each block of K; of others.
constexpr int64_t packedRows = 32, repackedRows = 512, directRows = 128;

/// Bytes of a packed panel that L2 delivers in a cycle.
constexpr double panelBytesPerCycle = 40;

/// For each vector that is packed from the entries of a batch one behind the other.
constexpr double joinCycles = 30;

/// For each line that is read where it lies and has left a cache when it is read again: a panel's by the next
/// group of rows, a transposed A's by the next panel. L1 because there are too many, or because they fall into
/// few of its sets; L2 besides.
constexpr double missedL1Cycles = 1, crowdedL1Cycles = 2, missedL2Cycles = 3;

/// For each row of a tile that the epilogue goes through, beside what it does with its vectors; where the
/// result comes from memory, which is asked for anew with every row.
constexpr double tileRowCycles = 13, farTileRowCycles = 60;

/// Cycles for each of `count` rows of `rowBytes`, `stride` bytes apart, that is read again where it lies.
double missCycles(const CpuInfo &cpu, int64_t count, int64_t stride, int64_t rowBytes) {
  const bool aligned = stride % lineBytes == 0;
  const double lines = llvm::divideCeil(rowBytes, lineBytes) + (aligned ? 0 : 0.5);
  // Those a large power of two apart fall into few sets of a cache.
  auto apart = [&](int64_t sets) { return std::gcd(sets, aligned ? stride / lineBytes : 1); };
  auto held = [&](int64_t sets, int64_t ways) { return sets / std::max<double>(apart(sets), lines) * ways; };
  double cycles = 0;
  if (count > held(cpu.l1Sets, cpu.l1Bytes / cpu.l1Sets / lineBytes))
    cycles += apart(cpu.l1Sets) > lines ? crowdedL1Cycles : missedL1Cycles;
  // Up to twice what L2 holds was measured to be read no slower than what it holds.
  if (count > 2 * held(cpu.l2Sets, cpu.l2Ways))
    cycles += missedL2Cycles;
  return lines * cycles;
}

} // namespace

/// A way to see a product: as C = A B or C^T = B^T A^T, a batch entry by entry or their columns joined.
struct Gemm::View {
  const CpuInfo &cpu;
  const GemmShape &shape;
  bool swapped, joined;
  bool lhsTransposed, rhsTransposed;
  int64_t shapeRows, shapeColumns;         // of one entry, as the shape has them
  int64_t staticColumns;                   // of all panels, where the shape has them
  int64_t entries, rows, columns, k;       // as large as they are, or are assumed to be
  int64_t lanes, bytes;
  bool anyRows, staticK;
  bool packsOnce; // B, by a launch
  bool streams, mayStream; // always, or if the call has few rows

  View(const CpuInfo &cpu, const GemmShape &shape, bool swapped, bool joined)
      : cpu(cpu), shape(shape), swapped(swapped), joined(joined), lhsTransposed(swapped ? !shape.rhsTransposed : shape.lhsTransposed),
        rhsTransposed(swapped ? !shape.lhsTransposed : shape.rhsTransposed), shapeRows(swapped ? shape.n : shape.m), shapeColumns(swapped ? shape.m : shape.n),
        staticColumns(columnsOf(shape, swapped, joined)),
        entries(joined ? 1 : orAssumed(shape.batch)), rows(orAssumed(shapeRows)), columns(orAssumed(shapeColumns) * (joined ? orAssumed(shape.batch) : 1)), k(orAssumed(shape.k)),
        lanes(cpu.lanes(shape.type)), bytes(shape.type.getIntOrFloatBitWidth() / 8), anyRows(ShapedType::isDynamic(shapeRows)), staticK(!ShapedType::isDynamic(shape.k)) {
    // What stays the same from call to call is packed once for all of them, unless it stays in L1; what is
    // the same in all entries of a batch, once for these.
    const bool isFixed = (swapped ? shape.lhsFixed : shape.rhsFixed) && (shape.batch == 1 || (swapped && shape.lhsShared)) && k * columns * bytes > cpu.l1Bytes;
    packsOnce = isFixed || (swapped && shape.lhsShared);
    // Whether few rows of A read B as it comes from memory; rows known only at run time decide then.
    mayStream = !swapped && !shape.rhsTransposed && !shape.rhsFixed && shape.batch == 1 &&
                (k * columns * bytes > cpu.l2Bytes || (anyRows && (!staticK || ShapedType::isDynamic(shape.n))));
    streams = mayStream && !anyRows && shape.m <= rowsForStreaming;
  }
  bool isPossible() const {
    // Where entries are joined, a vector lies in two of them at most.
    return !joined || (shape.lhsShared && shape.batch != 1 && !shape.rhsTransposed && shape.n >= lanes);
  }
  /// Whether a transposed A is packed, by a launch: work for one matrix only, not for one of each entry.
  bool mayPackLhs() const { return lhsTransposed && shapeRows != 1 && (shape.batch == 1 || (shape.lhsShared && !swapped)); }
  bool packsLhs() const { return mayPackLhs() && k * std::min(rows * bytes, pageBytes) > pagesInReach * pageBytes; }

  /// The plan with a micro-kernel and a packing of B, and what it costs; none if that does not go together.
  std::optional<Plan> planOf(int64_t mr, int64_t nv, Packing packing) const;
  /// Then, how large its tiles are.
  void divide(Plan &plan) const;

private:
  int64_t panelsOfTile(const Plan &plan) const;
};

int64_t Gemm::columnsOf(const GemmShape &shape, bool swapped, bool joined) {
  if (!joined)
    return swapped ? shape.m : shape.n;
  return ShapedType::isDynamic(shape.batch) || ShapedType::isDynamic(shape.n) ? ShapedType::kDynamic : shape.n * shape.batch;
}

std::optional<Gemm::Plan> Gemm::View::planOf(int64_t mr, int64_t nv, Packing packing) const {
  if ((packing == Packing::Launch) != packsOnce || (packing == Packing::None && (rhsTransposed || joined)))
    return std::nullopt;
  const int64_t nr = nv * lanes, panelBytes = nr * bytes, panels = llvm::divideCeil(columns, nr);
  // The panels of a wide tile consist of whole lines, if usual ones do.
  const int64_t unit = std::min(lineBytes, usualMicroTile(cpu).second * lanes * bytes);
  if (streams && (packing != Packing::None || panelBytes % unit != 0))
    return std::nullopt;
  // A panel that is read where it lies is read in pieces that stay in L1; with a single group of rows it is
  // not read a second time anyway.
  const int64_t l1Block = llvm::alignTo(std::max<int64_t>(cpu.l1Bytes / panelBytes, 1), 16);
  // A packed panel stays in L2, together with the rows of A that pass by; a quarter of L2 where no size says
  // how much is needed.
  const int64_t l2Block = llvm::alignTo(std::max<int64_t>(cpu.l2Bytes / 2 / panelBytes, 1), lanes);
  const int64_t packedBlock = !staticK       ? l2Block / 2
                              : k <= l2Block ? k
                                             : balancedPart(k, l2Block / 2, lanes);
  // Of rows known only at run time half a group is lost in the mean.
  const double groups = anyRows ? (rows + mr / 2.0) / mr : llvm::divideCeil(rows, mr);
  const double step = cyclesPerStep(mr, nv), call = callCycles + accumulatorCycles * mr * nv;
  // The last panel may be multiplied by half its vectors.
  const bool isHalf = !streams && endsInHalfPanel(staticColumns, nv, lanes);
  const double panelsMultiplied = isHalf ? panels - 1 + cyclesPerStep(mr, nv / 2) / step : panels;
  // Of sizes known only at run time the best is hoped for.
  const double missed = ShapedType::isDynamic(shapeColumns) ? 0 : missCycles(cpu, std::min(k, l1Block), shapeColumns * bytes, panelBytes);

  Plan plan;
  plan.swapped = swapped;
  plan.joined = joined;
  plan.mr = mr;
  plan.nv = nv;
  plan.rhs = packing;
  plan.directBlock = l1Block;
  plan.streams = streams || (mayStream && anyRows);
  if (streams) {
    plan.kBlock = stepsTogether;
    plan.cycles = groups * panels * (k * step + llvm::divideCeil(k, stepsTogether) * call);
  } else if (packing == Packing::None) {
    plan.kBlock = !staticK                 ? l1Block
                  : rows <= mr && !anyRows ? k
                                           : balancedPart(k, l1Block, 8);
    plan.cycles = groups * panelsMultiplied * (k * step + llvm::divideCeil(k, plan.kBlock) * call) +
                  firstReadCycles * panels * nv * k * llvm::divideCeil(rows, directRows) + missed * (groups - 1) * panels * k;
  } else {
    plan.kBlock = packedBlock;
    const bool inL1 = k * panelBytes <= cpu.l1Bytes;
    const double stream = inL1 ? step : std::max(step, panelBytes / panelBytesPerCycle);
    plan.cycles = groups * panelsMultiplied * (k * stream + llvm::divideCeil(k, packedBlock) * call);
    if (packing == Packing::Task)
      plan.cycles += (rhsTransposed ? transposeCycles : joined ? joinCycles : copyCycles) * panels * nv * k * (k <= packedBlock ? 1 : llvm::divideCeil(rows, repackedRows));
  }
  // The narrower the tiles, the more rows the epilogue goes through; an exchanged tile's are its columns.
  if (!streams) {
    const double tileRows = swapped ? columns * llvm::divideCeil(rows, packedRows) : rows * llvm::divideCeil(panels, panelsOfTile(plan));
    plan.cycles += (rows * columns * entries * bytes > cpu.l2Bytes ? farTileRowCycles : tileRowCycles) * tileRows;
  }
  // Beside a transposed A, as many steps of B pass by.
  if (lhsTransposed && !anyRows && !packsLhs())
    plan.cycles += missCycles(cpu, 2 * k, rows * bytes, mr * bytes) * groups * panels * k;
  if (swapped)
    plan.cycles += transposeCycles * llvm::divideCeil(rows, lanes) * columns;
  plan.cycles *= entries;
  if (packsLhs())
    plan.cycles += launchCycles + copyCycles * groups * k;
  if (packing == Packing::Launch && shape.lhsShared && !shape.lhsFixed)
    plan.cycles += launchCycles + transposeCycles * panels * nv * k;
  // Transpositions are code besides.
  if (swapped || rhsTransposed)
    plan.cycles += sharedCycles + 0.02 * plan.cycles;
  // With rows known at run time the same code serves one and many.
  if (anyRows && !rhsTransposed && !packsOnce && !joined) {
    plan.rhs = Packing::RunTime;
    plan.kBlock = packedBlock;
    plan.packedRows = missed > 0 ? rowsForPackingMissed : rowsForPacking;
  }
  return plan;
}

/// Panels side by side in a tile, at most.
int64_t Gemm::View::panelsOfTile(const Plan &plan) const {
  if (plan.rhs == Packing::None)
    return 1;
  const int64_t panelsInL2 = std::max<int64_t>(1, cpu.l2Bytes / 2 / (plan.nv * lanes * bytes * plan.kBlock));
  // The wider, the longer are the pieces of memory that the epilogue goes through.
  return std::max(std::min<int64_t>(2, panelsInL2), panelsInL2 / 2);
}

void Gemm::View::divide(Plan &plan) const {
  const int64_t nr = plan.nv * lanes, panels = llvm::divideCeil(columns, nr);
  if (mayPackLhs())
    plan.lhs = !staticK || anyRows ? Packing::RunTime : packsLhs() ? Packing::Launch : Packing::None;
  // A tile that reads B where it lies brings each panel into L1 once, so it is high. One that finds
  // B packed is low and wide, so that its rows of A serve several panels. Where packed columns are
  // not kept from tile to tile, because K has several blocks, it is high again for packing to pay.
  // Tiles next to each other are one where B comes from memory.
  const bool isPacked = plan.rhs == Packing::Task || plan.rhs == Packing::Launch;
  const bool repacks = plan.rhs == Packing::Task && staticK && k > plan.kBlock;
  int64_t tilePanels = balancedPart(panels, panelsOfTile(plan), 1);
  plan.mTile = balancedPart(rows, repacks ? repackedRows : isPacked ? packedRows : directRows, plan.mr);
  auto tiles = [&] { return entries * llvm::divideCeil(rows, plan.mTile) * llvm::divideCeil(panels, tilePanels); };
  while (!streams && tiles() < wantedTiles) {
    if (tilePanels > 1)
      tilePanels = llvm::divideCeil(tilePanels, 2);
    else if (plan.mTile > std::max<int64_t>(2 * plan.mr, 16))
      plan.mTile = llvm::alignTo(plan.mTile / 2, plan.mr);
    else
      break;
  }
  plan.nTile = tilePanels * nr;
  // L2 holds the accumulators of a wide tile between two visits.
  if (plan.streams) {
    const int64_t held = llvm::alignTo(streams ? rows : rowsForStreaming, plan.mr);
    plan.streamElements = cpu.l2Bytes / 2 / bytes;
    if (!ShapedType::isDynamic(shape.n))
      plan.streamElements = std::min<int64_t>(plan.streamElements, held * llvm::alignTo(columns, plan.nTile));
    plan.streamElements = std::max(plan.streamElements, held * plan.nTile);
  }
}

Gemm::Plan Gemm::choosePlan(const CpuInfo &cpu, const GemmShape &shape) {
  // The best plan of all, and the best with the usual micro-tile, which is taken if it is about as
  // good: a model then has one micro-kernel for nearly everything.
  const auto [usualRows, usualVectors] = usualMicroTile(cpu);
  Plan best, usual;
  for (auto [swapped, joined] : {std::pair(false, false), {false, true}, {true, false}}) {
    const View view(cpu, shape, swapped, joined);
    if (!view.isPossible())
      continue;
    for (int64_t nv = 1; nv <= 8; ++nv)
      for (int64_t mr = 1; mr <= maxRows; ++mr) {
        // Accumulators, a step of B, and the broadcast element of A.
        if (mr * nv + nv + 1 > cpu.vectorRegisters)
          continue;
        for (Packing packing : {Packing::None, Packing::Task, Packing::Launch}) {
          std::optional<Plan> plan = view.planOf(mr, nv, packing);
          if (!plan)
            continue;
          if (best.mr == 0 || plan->cycles < best.cycles)
            best = *plan;
          if (mr == usualRows && nv == usualVectors && (usual.mr == 0 || plan->cycles < usual.cycles))
            usual = *plan;
        }
      }
    // Few rows that read B as it comes have no choice.
    if (view.streams)
      break;
  }
  assert(usual.mr != 0 && "the usual micro-tile needs more registers than there are");
  if (usual.cycles <= 1.06 * best.cycles + sharedCycles)
    best = usual;
  View(cpu, shape, best.swapped, best.joined).divide(best);
  return best;
}

Gemm::Gemm(const CpuInfo &cpu, const GemmShape &shape)
    : cpu(cpu), shape(shape), vectorLanes(cpu.lanes(shape.type)) {
  assert((shape.type.isF32() || shape.type.isF64()) && "products are computed in f32 and f64");
  // A matrix with one row or column is the same in either storage; take the one that needs no
  // transposition.
  if (shape.m == 1 || shape.k == 1)
    this->shape.lhsTransposed = true;
  if (shape.n == 1 || shape.k == 1)
    this->shape.rhsTransposed = false;
  plan = choosePlan(cpu, this->shape);
}

Gemm::Gemm(const CpuInfo &cpu, FloatType type, int64_t columns)
    : cpu(cpu), shape{type, 1, 1, 1}, vectorLanes(cpu.lanes(type)) {
  std::tie(plan.mr, plan.nv) = usualMicroTile(cpu);
  while (plan.nv > 1 && plan.nv / 2 * vectorLanes >= columns)
    plan.nv /= 2;
  plan.mTile = plan.mr;
  plan.nTile = plan.nv * vectorLanes;
  plan.kBlock = plan.directBlock = 1;
}

std::string Gemm::describe() const {
  auto packing = [](Packing kind) {
    switch (kind) {
    case Packing::None:
      return "direct";
    case Packing::Task:
      return "by task";
    case Packing::Launch:
      return "by launch";
    case Packing::RunTime:
      return "by size";
    }
    llvm_unreachable("no such packing");
  };
  return std::to_string(plan.mr) + "x" + std::to_string(plan.nv * vectorLanes) +
         (plan.swapped ? " swapped" : plan.joined ? " joined" : "") + " tile " + std::to_string(plan.mTile) + "x" +
         std::to_string(plan.nTile) + " k " + std::to_string(plan.kBlock) + " lhs " +
         packing(plan.lhs) + " rhs " + packing(plan.rhs) + (plan.streams ? " wide" : "");
}
