//===- Gemm.cpp - matrix products inside GPU kernels -*- C++ -*-===//
//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A block computes a tile of C. Its threads copy a slice of A and one of B, tile.k steps long, to
// shared memory, where both lie with k as their slow dimension, whatever their storage; while they
// compute with one slice they hold the next one in registers and put it into the other half of
// shared memory afterwards: one barrier a slice. The finished tile goes through shared memory once
// more, so that the epilogue sees rows of C: neighbouring threads work on neighbouring columns, and
// its code exists once.
//
//===----------------------------------------------------------------------===//

#include "compiler/lowering/cuda/Gemm.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/SymbolTable.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/MathExtras.h"
#include "llvm/Support/raw_ostream.h"

#include <cmath>

using namespace mlir;

namespace dlc::cuda {

/// Elements between two steps of k in shared memory, beyond the tile's. With 4, a row of an operand
/// whose contiguous dimension is k, which is written down a column of shared memory, meets 32 banks
/// (see Operand); with 8, the lanes that read a fragment do.
static int64_t paddingOf(const GemmShape &shape) { return shape.tf32 ? 8 : 4; }

/// Of mma.m16n8k8: steps of k, and the lanes of a warp along C's rows and columns, where each has
/// two neighbours.
static constexpr int64_t fragmentSteps = 8, fragmentLanesM = 8, fragmentLanesN = 4,
                         fragmentVectorN = 2;

/// What it takes to compute where elements of a factor lie that is no matrix: registers of a
/// thread, and instructions for each of its loads.
static constexpr int64_t placeRegisters = 16, placeInstructions = 20;

/// Registers that a thread may have, as they are handed out.
static constexpr int64_t mostRegisters = 248;

/// Threads of a block that adds chunks.
static constexpr int64_t combineThreads = 256;

static int64_t bytesOf(FloatType type) { return type.isF64() ? 8 : 4; }
/// Elements in the widest access, 16 bytes.
static int64_t widest(FloatType type) { return 16 / bytesOf(type); }

static bool isMultiple(AffineExpr size, int64_t of) {
  return size.getLargestKnownDivisor() % of == 0;
}

/// Elements of a vector along a dimension of this size: all vectors are whole and aligned, and
/// within a run, if there is one.
static int64_t vectorAlong(AffineExpr contiguous, FloatType type, int64_t run) {
  int64_t width = widest(type);
  while (!isMultiple(contiguous, width) || run % width != 0)
    width /= 2;
  return width;
}
static int64_t lhsVector(const GemmShape &shape) {
  return vectorAlong(shape.lhsTransposed ? shape.m : shape.k, shape.type, shape.lhsRun);
}
static int64_t rhsVector(const GemmShape &shape) {
  return vectorAlong(shape.rhsTransposed ? shape.k : shape.n, shape.type, shape.rhsRun);
}

static bool isConstant(AffineExpr size, int64_t value) {
  auto constant = dyn_cast<AffineConstantExpr>(size);
  return constant && constant.getValue() == value;
}

//===--- schedules ---===//

ArrayRef<Gemm::Tile> Gemm::tiles(const GemmShape &shape) {
  static const Tile ofF32[] = {
      {128, 128, 8, 8, 8}, {128, 64, 8, 8, 8}, {64, 64, 16, 8, 4},
      {32, 32, 32, 4, 2},  {64, 16, 32, 4, 2}, {16, 64, 32, 2, 4},
  };
  static const Tile ofF64[] = {
      {64, 64, 8, 8, 4},
      {32, 32, 16, 4, 2},
      {64, 16, 16, 4, 2},
      {16, 64, 16, 2, 4},
  };
  // Longer slices than of f32: a tensor core is done with them sooner.
  static const Tile ofTf32[] = {
      {128, 128, 16, 8, 8}, {128, 64, 16, 8, 8}, {64, 64, 32, 8, 4},
      {32, 32, 32, 4, 2},   {64, 16, 32, 4, 2},  {16, 64, 32, 2, 4},
  };
  if (shape.tf32)
    return ofTf32;
  if (shape.type.isF32())
    return ofF32;
  return ofF64;
}

/// Loads of a thread for a slice.
static int64_t loadsOf(int64_t elements, int64_t threads, int64_t width) {
  return elements / threads / width;
}

/// Registers of a thread, a little more than ptxas takes: sums, a step's elements, the next slice
/// and its loads' addresses and conditions, what places are computed from, the rest. A multiple of
/// 8, as they are handed out.
int64_t Gemm::registers(const Tile &tile, const GemmShape &shape) {
  const int64_t lhs = tile.m * tile.k / tile.threads(), rhs = tile.n * tile.k / tile.threads();
  const int64_t lhsLoads = lhs / lhsVector(shape), rhsLoads = rhs / rhsVector(shape);
  // Of TF32, ptxas keeps more at hand of each load: found by trial.
  auto perLoad = [&](int64_t run, int64_t width) {
    if (shape.tf32)
      return width == widest(shape.type) ? 4 : run ? 5 : 7;
    return run ? 2 : 3;
  };
  const int64_t loads = perLoad(shape.lhsRun, lhsVector(shape)) * lhsLoads +
                        perLoad(shape.rhsRun, rhsVector(shape)) * rhsLoads;
  // A fragment's elements are loaded as they are multiplied.
  const int64_t ofStep = tile.threadM + tile.threadN / (shape.tf32 ? 2 : 1);
  const int64_t rest = shape.tf32 ? 20 : 28;
  const int64_t elements = tile.threadM * tile.threadN + ofStep + lhs + rhs;
  const int64_t places = (shape.lhsRun ? placeRegisters : 0) + (shape.rhsRun ? placeRegisters : 0);
  return llvm::alignTo(elements * bytesOf(shape.type) / 4 + loads + places + rest, 8);
}

/// A size in an estimate; `sample` stands for what is known only at run time.
static int64_t sampled(AffineExpr size, int64_t sample) {
  if (auto constant = dyn_cast<AffineConstantExpr>(size))
    return constant.getValue();
  return size.getLargestKnownDivisor() * sample;
}

/// Plans are compared by estimated cycles of a GPU with 128 multiprocessors: it need not be the one
/// that runs the code, for the plan may not depend on that. Of sizes that are known only at run
/// time several are tried, and the plan has the least product.
Gemm::Plan Gemm::choosePlan(const GemmShape &shape) {
  constexpr double multiprocessors = 128;
  // What a slice takes at least: the latency of global memory.
  constexpr double sliceLatency = 800, barrierLatency = 100;
  // What comes before the first slice and after the last one; and what a second launch costs.
  constexpr double blockLatency = 1500, launchLatency = 3000, chunkLatency = 100;
  constexpr double bytesPerCycle = 1500;
  SmallVector<int64_t, 3> samples{64, 512, 4096};
  if (llvm::all_of(ArrayRef{shape.m, shape.n, shape.k, shape.batch},
                   [](AffineExpr size) { return isa<AffineConstantExpr>(size); }))
    samples = {1};
  const int64_t bytes = bytesOf(shape.type), lanes = widest(shape.type);
  const bool isOutStatic = isa<AffineConstantExpr>(shape.m * shape.n * shape.batch);

  auto estimate = [&](const Tile &tile, int64_t resident, int64_t chunk, int64_t sample) {
    int64_t m = sampled(shape.m, sample), n = sampled(shape.n, sample),
            k = sampled(shape.k, sample), batch = sampled(shape.batch, sample);
    double chunks = chunk ? llvm::divideCeil(k, chunk) : 1;
    double slices = llvm::divideCeil(chunk ? std::min(chunk, k) : k, tile.k);
    double blocks =
        double(llvm::divideCeil(m, tile.m)) * llvm::divideCeil(n, tile.n) * batch * chunks;
    // One step of k of one block: multiply-adds and loads are issued by four schedulers; shared
    // memory hands 128 bytes a cycle to the registers.
    double warps = tile.threads() / 32.0;
    double issued = warps / 4 *
                    (tile.threadM * tile.threadN * (bytes / 4) +
                     llvm::divideCeil(tile.threadM, lanes) + llvm::divideCeil(tile.threadN, lanes));
    int64_t places =
        (shape.lhsRun ? loadsOf(tile.m * tile.k, tile.threads(), lhsVector(shape)) : 0) +
        (shape.rhsRun ? loadsOf(tile.n * tile.k, tile.threads(), rhsVector(shape)) : 0);
    if (shape.tf32)
      issued = warps / 4 * (tile.threadM * tile.threadN + 2 * tile.threadM + tile.threadN) /
               fragmentSteps;
    issued += warps / 4 * placeInstructions * places / tile.k;
    double shared = warps * (tile.threadM + tile.threadN) * bytes / 4;
    if (shape.tf32)
      shared = warps * (2 * tile.threadM + tile.threadN) / fragmentSteps;
    double step = std::max(issued, shared);
    double waves = std::ceil(blocks / (multiprocessors * resident));
    double together = std::min<double>(resident, std::ceil(blocks / multiprocessors));
    double busy = step * tile.k * together + barrierLatency;
    double cycles = waves * (slices * std::max(busy, sliceLatency) + blockLatency);
    // Work that latency hides still counts a little: of equals the one with less.
    cycles += 0.1 * blocks * slices * step * tile.k / multiprocessors;
    if (chunk)
      cycles += launchLatency + chunkLatency * chunks +
                (2 * chunks + 1) * m * n * batch * bytes / bytesPerCycle;
    // Nor is a workspace for nothing.
    return std::max(chunk ? 1.2 * cycles : cycles, 1.0);
  };

  std::optional<Plan> best;
  auto consider = [&](const Tile &tile, int64_t chunk) {
    if (registers(tile, shape) > mostRegisters)
      return;
    // A multiprocessor has 65536 registers, and more threads than these do not make it faster.
    int64_t resident = std::min<int64_t>(65536 / registers(tile, shape), 1024) / tile.threads();
    double cost = 1;
    for (int64_t sample : samples)
      cost *= estimate(tile, resident, chunk, sample);
    if (!best || cost < best->cost)
      best = Plan{tile, resident, chunk != 0, chunk, cost};
  };
  for (const Tile &tile : tiles(shape)) {
    consider(tile, 0);
    if (!shape.maySplit)
      continue;
    for (int64_t sample : samples) {
      int64_t k = sampled(shape.k, sample);
      // A workspace that grows with the call may be four times as large as C.
      for (int64_t count : {2, 4, 8, 16, 32})
        if (int64_t chunk = llvm::alignTo(llvm::divideCeil(k, count), tile.k);
            chunk >= 64 && chunk < k && (count <= 4 || isOutStatic))
          consider(tile, chunk);
    }
  }
  return *best;
}

Gemm::Gemm(const GemmShape &shape)
    : shape(shape), vectorLanes(vectorAlong(shape.n, shape.type, shape.outRun)),
      plan(choosePlan(shape)) {
  assert((shape.type.isF32() || shape.type.isF64()) && "a product of f32 or f64");
  assert((!shape.tf32 || shape.type.isF32()) && "TF32 is for f32");
}

AffineExpr Gemm::chunks() const {
  return plan.splits ? shape.k.ceilDiv(plan.chunk) : getAffineConstantExpr(1, shape.k.getContext());
}

AffineExpr Gemm::blocks(unsigned launch) const {
  if (launch == 1)
    return (shape.batch * shape.m * shape.n.floorDiv(vectorLanes)).ceilDiv(combineThreads);
  return shape.m.ceilDiv(plan.tile.m) * shape.n.ceilDiv(plan.tile.n) * shape.batch * chunks();
}

unsigned Gemm::threads(unsigned launch) const {
  return launch == 1 ? combineThreads : plan.tile.threads();
}

unsigned Gemm::residentBlocks(unsigned launch) const { return launch == 1 ? 4 : plan.resident; }

/// Both halves of both operands.
int64_t Gemm::sharedBytes(unsigned launch) const {
  if (launch == 1)
    return 0;
  return 2 * plan.tile.k * (plan.tile.m + plan.tile.n + 2 * paddingOf(shape)) * bytesOf(shape.type);
}

AffineExpr Gemm::workspaceElements() const {
  if (!plan.splits)
    return getAffineConstantExpr(0, shape.k.getContext());
  return shape.batch * shape.m * shape.n * chunks();
}

std::string Gemm::describe() const {
  std::string words;
  llvm::raw_string_ostream os(words);
  const Tile &t = plan.tile;
  os << t.m << 'x' << t.n << 'x' << t.k << " of " << t.threadM << 'x' << t.threadN << ", lhs "
     << lhsVector(shape) << (shape.lhsRun ? " by place" : "") << ", rhs " << rhsVector(shape)
     << (shape.rhsRun ? " by place" : "") << ", out " << vectorLanes;
  if (shape.tf32)
    os << ", tf32";
  if (plan.splits)
    os << ", k by " << plan.chunk;
  return words;
}

//===--- code ---===//

namespace {

/// Arithmetic on integers of one type, folded where constants allow.
struct Integers {
  OpBuilder &b;
  Location loc;

  Value constant(Type type, int64_t n) const {
    return arith::ConstantOp::create(b, loc, b.getIntegerAttr(type, n));
  }
  Value i32(int64_t n) const { return constant(b.getI32Type(), n); }
  Value index(int64_t n) const { return constant(b.getIndexType(), n); }
  Value add(Value x, Value y) const { return b.createOrFold<arith::AddIOp>(loc, x, y); }
  Value sub(Value x, Value y) const { return b.createOrFold<arith::SubIOp>(loc, x, y); }
  Value mul(Value x, Value y) const { return b.createOrFold<arith::MulIOp>(loc, x, y); }
  Value div(Value x, Value y) const { return b.createOrFold<arith::DivUIOp>(loc, x, y); }
  Value rem(Value x, Value y) const { return b.createOrFold<arith::RemUIOp>(loc, x, y); }
  Value min(Value x, Value y) const { return b.createOrFold<arith::MinUIOp>(loc, x, y); }
  Value add(Value x, int64_t n) const { return add(x, constant(x.getType(), n)); }
  Value mul(Value x, int64_t n) const { return mul(x, constant(x.getType(), n)); }
  Value div(Value x, int64_t n) const { return div(x, constant(x.getType(), n)); }
  Value rem(Value x, int64_t n) const { return rem(x, constant(x.getType(), n)); }
  Value ceilDiv(Value x, int64_t n) const { return div(add(x, n - 1), n); }
  Value less(Value x, Value y) const {
    return b.createOrFold<arith::CmpIOp>(loc, arith::CmpIPredicate::ult, x, y);
  }
  Value toIndex(Value x) const {
    return b.createOrFold<arith::IndexCastUIOp>(loc, b.getIndexType(), x);
  }
  Value toI32(Value x) const {
    return b.createOrFold<arith::IndexCastUIOp>(loc, b.getI32Type(), x);
  }
};

/// `count` elements as one value.
Type piece(Type element, int64_t count) {
  return count == 1 ? element : Type(VectorType::get(count, element));
}

Value zeroOf(OpBuilder &b, Location loc, Type type) {
  return arith::ConstantOp::create(b, loc, cast<TypedAttr>(b.getZeroAttr(type)));
}

Value loadGlobal(OpBuilder &b, Location loc, Value memory, Value at, int64_t count) {
  Type element = cast<MemRefType>(memory.getType()).getElementType();
  if (count == 1)
    return memref::LoadOp::create(b, loc, memory, at);
  llvm::Align alignment(count * element.getIntOrFloatBitWidth() / 8);
  return vector::LoadOp::create(b, loc, VectorType::get(count, element), memory, ValueRange{at},
                                /*nontemporal=*/false, alignment);
}

void storeGlobal(OpBuilder &b, Location loc, Value value, Value memory, Value at) {
  auto vector = dyn_cast<VectorType>(value.getType());
  if (!vector) {
    memref::StoreOp::create(b, loc, value, memory, at);
    return;
  }
  llvm::Align alignment(vector.getNumElements() * vector.getElementTypeBitWidth() / 8);
  vector::StoreOp::create(b, loc, value, memory, ValueRange{at}, /*nontemporal=*/false, alignment);
}

/// An f32 or a vector of them with the bits that TF32 has not being 0.
Value roundToTf32(OpBuilder &b, Location loc, Value value) {
  auto one = [&](Value x) -> Value {
    Value bits =
        NVVM::ConvertFloatToTF32Op::create(b, loc, b.getI32Type(), x, NVVM::FPRoundingMode::RNA);
    return arith::BitcastOp::create(b, loc, b.getF32Type(), bits);
  };
  auto vector = dyn_cast<VectorType>(value.getType());
  if (!vector)
    return one(value);
  SmallVector<Value> rounded;
  for (int64_t e = 0; e < vector.getNumElements(); ++e)
    rounded.push_back(one(vector::ExtractOp::create(b, loc, value, e)));
  return vector::FromElementsOp::create(b, loc, vector, rounded);
}

/// Shared memory, addressed by elements.
struct Shared {
  Value base; ///< !llvm.ptr<3>
  FloatType element;

  Value at(OpBuilder &b, Location loc, Value offset, int64_t more = 0) const {
    Value p =
        LLVM::GEPOp::create(b, loc, base.getType(), element, base, ArrayRef<LLVM::GEPArg>{offset});
    if (more)
      p = LLVM::GEPOp::create(b, loc, base.getType(), element, p,
                              ArrayRef<LLVM::GEPArg>{static_cast<int32_t>(more)});
    return p;
  }
  unsigned alignment(int64_t count) const { return count * bytesOf(element); }
  Value load(OpBuilder &b, Location loc, Value pointer, int64_t count) const {
    return LLVM::LoadOp::create(b, loc, piece(element, count), pointer, alignment(count));
  }
  void store(OpBuilder &b, Location loc, Value value, Value pointer) const {
    auto vector = dyn_cast<VectorType>(value.getType());
    LLVM::StoreOp::create(b, loc, value, pointer, alignment(vector ? vector.getNumElements() : 1));
  }
};

/// The way of an operand's slices to shared memory. `mn` is its dimension that is not k.
///
/// Along mn: a warp's lanes take neighbours along mn, and put them down as they were. Along k: they
/// take 32 bytes (a sector) of each of several rows, and put each element into its own step of k.
/// The lanes of one store differ in kk = (0 .. 32 bytes) and in the row; elements lie at kk * (tile
/// + padding) + row: with a tile that is a multiple of 16 and a padding of 4 the banks of different
/// kk are 4 rows of f32 (or 2 of f64, where half a warp stores at once) times the width of a vector
/// apart, just as many as there are rows.
struct Operand {
  Value memory;
  Type element;
  int64_t tile, width, padding;
  bool alongK, tf32;

  const GemmElements *elements; ///< null: a matrix
  SmallVector<Value> from;      ///< of a matrix: index of each load but for the slice's first k
  SmallVector<unsigned> column; ///< else: which of the columns each load reads
  SmallVector<GemmElements::Column> columns;
  SmallVector<Value> k;    ///< each load's first k in the slice, an index
  SmallVector<Value> to;   ///< place of each load in a slice of shared memory, in i32
  Value stride;            ///< elements of memory from one k to the next, an index

  int64_t pitch() const { return tile + padding; }

  /// `start` is the first element of the matrix, `first` the tile's first of `size` along mn,
  /// `entry` the number in the batch.
  Operand(OpBuilder &b, Location loc, Value memory, const GemmShape &shape, bool alongK,
          int64_t tile, int64_t tileK, int64_t threads, int64_t width, Value thread, Value start,
          Value first, Value size, bool isWhole, Value sizeK, const GemmElements *elements,
          Value entry)
      : memory(memory), element(shape.type), tile(tile), width(width), padding(paddingOf(shape)),
        alongK(alongK), tf32(shape.tf32), elements(elements) {
    Integers i{b, loc};
    FloatType type = shape.type;
    stride = alongK ? i.index(1) : size;
    const int64_t loads = loadsOf(tile * tileK, threads, width);
    assert(loads * threads * width == tile * tileK && "threads share a slice evenly");
    for (int64_t load = 0; load < loads; ++load) {
      Value row, kk;
      unsigned number = 0; // of what is the same row
      if (!alongK) {
        const int64_t across = tile / width;
        assert(threads % across == 0);
        row = i.mul(i.rem(thread, across), width);
        kk = i.add(i.div(thread, across), load * (threads / across));
      } else {
        const int64_t sector = 32 / bytesOf(type) / width, rows = threads / sector;
        Value unit = i.div(thread, sector), low = i.mul(i.rem(thread, sector), width);
        if (rows >= tile) {
          row = i.rem(unit, tile);
          kk = i.add(i.add(i.mul(i.div(unit, tile), sector * width), low),
                     load * (rows / tile) * sector * width);
        } else {
          const int64_t passes = tile / rows;
          number = load % passes;
          row = i.add(unit, number * rows);
          kk = i.add(low, load / passes * sector * width);
        }
      }
      Value mn = i.add(first, i.toIndex(row));
      // Beyond the edge the last ones are read again: what they give is not looked at.
      if (!isWhole)
        mn = i.min(mn, i.sub(size, i.index(alongK ? 1 : width)));
      Value kIndex = i.toIndex(kk);
      if (!elements) {
        Value at = alongK ? i.add(i.mul(mn, sizeK), kIndex) : i.add(i.mul(kIndex, size), mn);
        from.push_back(i.add(start, at));
      } else {
        assert(number <= columns.size());
        if (number == columns.size())
          columns.push_back(elements->column(b, loc, entry, mn));
        column.push_back(number);
      }
      k.push_back(kIndex);
      to.push_back(i.add(i.mul(kk, pitch()), row));
    }
  }

  /// Loads the slice that begins at step `kStart` into registers; with `kEnd`, steps from there on
  /// are zero.
  void load(OpBuilder &b, Location loc, Value kStart, Value kEnd,
            SmallVectorImpl<Value> &values) const {
    Integers i{b, loc};
    Value offset = i.mul(kStart, stride);
    for (auto [load, kk] : llvm::enumerate(k)) {
      Value place, exists;
      if (elements) {
        GemmElements::Place found =
            elements->place(b, loc, columns[column[load]], i.add(kStart, kk));
        place = found.at;
        exists = found.exists;
      } else {
        place = i.add(from[load], offset);
      }
      // Along k, k is a multiple of the width: vectors are whole.
      if (kEnd) {
        Value isStep = i.less(i.add(kStart, kk), kEnd);
        exists = exists ? arith::AndIOp::create(b, loc, exists, isStep).getResult() : isStep;
      }
      if (!exists) {
        values.push_back(loadGlobal(b, loc, memory, place, width));
        continue;
      }
      place = arith::SelectOp::create(b, loc, exists, place, i.index(0));
      Value loaded = loadGlobal(b, loc, memory, place, width);
      values.push_back(
          arith::SelectOp::create(b, loc, exists, loaded, zeroOf(b, loc, loaded.getType())));
    }
  }

  /// Puts a slice to shared memory, from element `buffer` on.
  void store(OpBuilder &b, Location loc, const Shared &shared, Value buffer,
             ValueRange values) const {
    Integers i{b, loc};
    for (auto [place, given] : llvm::zip(to, values)) {
      Value at = i.add(buffer, place), value = tf32 ? roundToTf32(b, loc, given) : given;
      if (!alongK || width == 1) {
        shared.store(b, loc, value, shared.at(b, loc, at));
        continue;
      }
      for (int64_t e = 0; e < width; ++e)
        shared.store(b, loc, vector::ExtractOp::create(b, loc, value, e),
                     shared.at(b, loc, at, e * pitch()));
    }
  }

  size_t loads() const { return k.size(); }
};

} // namespace

struct Gemm::Emitter {
  const Gemm &gemm;
  OpBuilder &b;
  Location loc;
  const GemmOperands &operands;
  GemmEpilogue epilogue;
  GemmPrologue beforeEpilogue;

  const GemmShape &shape = gemm.shape;
  const Tile &tile = gemm.plan.tile;
  const FloatType type = shape.type;
  Integers i{b, loc};

  Value size(Value given, AffineExpr expr) const {
    if (auto constant = dyn_cast<AffineConstantExpr>(expr))
      return i.index(constant.getValue());
    assert(given && "a size that is known only at run time");
    return given;
  }
  Value m = size(operands.m, shape.m), n = size(operands.n, shape.n), k = size(operands.k, shape.k),
        batch = size(operands.batch, shape.batch);
  Value thread = NVVM::ThreadIdXOp::create(b, loc, b.getI32Type()),
        block = NVVM::BlockIdXOp::create(b, loc, b.getI32Type());

  // How threads share the tile: a warp takes 8 neighbours along n, 4 along m; a thread's rows and
  // columns come in vectors, with those of the other threads between them, so that the lanes of a
  // load from shared memory read neighbours or the same.
  const int64_t threadsM = tile.m / tile.threadM, threadsN = tile.n / tile.threadN;
  // Fragments of mma are 8 threads along m and 4 along n.
  const int64_t lanesM = shape.tf32 ? fragmentLanesM : 4, lanesN = shape.tf32 ? fragmentLanesN : 8;
  const int64_t vectorM = shape.tf32 ? 1 : std::min(tile.threadM, widest(type)),
                vectorN = shape.tf32 ? fragmentVectorN : std::min(tile.threadN, widest(type));
  Value threadRow{}, threadColumn{}, warpColumn{}, lane{};

  void barrier() const { NVVM::BarrierOp::create(b, loc); }

  Shared defineShared();
  void product();
  SmallVector<Value> compute(const Shared &shared, Value buffer, int64_t steps, ValueRange sums);
  SmallVector<Value> computeTf32(const Shared &shared, Value buffer, int64_t steps,
                                 ValueRange sums);
  void finish(const Shared &shared, ArrayRef<Value> sums, ValueRange tileStart, GemmEpilogue use);
  void combine();
};

/// A global of the symbol table around the function.
Shared Gemm::Emitter::defineShared() {
  Operation *function = b.getInsertionBlock()->getParentOp();
  if (!isa<FunctionOpInterface>(function))
    function = function->getParentOfType<FunctionOpInterface>();
  Operation *table = function->getParentWithTrait<OpTrait::SymbolTable>();
  auto array = LLVM::LLVMArrayType::get(type, gemm.sharedBytes(0) / bytesOf(type));
  OpBuilder outer = OpBuilder::atBlockBegin(&table->getRegion(0).front());
  std::string name = (cast<FunctionOpInterface>(function).getName() + "_tile").str();
  auto global =
      LLVM::GlobalOp::create(outer, loc, array, /*isConstant=*/false, LLVM::Linkage::Internal, name,
                             Attribute(), /*alignment=*/16, /*addrSpace=*/3);
  auto pointer = LLVM::LLVMPointerType::get(b.getContext(), 3);
  return {LLVM::AddressOfOp::create(b, loc, pointer, global.getSymName()), type};
}

void Gemm::Emitter::product() {
  Shared shared = defineShared();

  // Which tile: n fastest, then m, batch and chunk of k.
  Value rest = block;
  auto digit = [&](Value size, AffineExpr count) -> Value {
    if (isConstant(count, 1))
      return i.index(0);
    Value d = i.rem(rest, i.toI32(size));
    rest = i.div(rest, i.toI32(size));
    return i.toIndex(d);
  };
  Value column = i.mul(digit(i.ceilDiv(n, tile.n), shape.n.ceilDiv(tile.n)), tile.n);
  Value row = i.mul(digit(i.ceilDiv(m, tile.m), shape.m.ceilDiv(tile.m)), tile.m);
  Value entry = gemm.plan.splits             ? digit(batch, shape.batch)
                : isConstant(shape.batch, 1) ? i.index(0)
                                             : i.toIndex(rest);
  Value chunk = gemm.plan.splits ? i.toIndex(rest) : i.index(0);
  Value kBegin = i.mul(chunk, gemm.plan.chunk);
  Value kEnd = gemm.plan.splits ? i.min(i.add(kBegin, gemm.plan.chunk), k) : k;

  Value warp = i.div(thread, 32);
  lane = i.rem(thread, 32);
  const int64_t warpsN = threadsN / lanesN;
  assert(threadsN % lanesN == 0 && threadsM % lanesM == 0 && "a warp is a rectangle of threads");
  threadRow = i.add(i.mul(i.div(warp, warpsN), lanesM), i.div(lane, lanesN));
  warpColumn = i.rem(warp, warpsN);
  threadColumn = i.add(i.mul(warpColumn, lanesN), i.rem(lane, lanesN));

  auto start = [&](Value stride) { return stride ? i.mul(entry, stride) : i.index(0); };
  Operand lhs(b, loc, operands.lhs, shape, !shape.lhsTransposed, tile.m, tile.k, tile.threads(),
              lhsVector(shape), thread, start(operands.lhsBatchStride), row, m,
              isMultiple(shape.m, tile.m), k, shape.lhsRun ? &operands.lhsElements : nullptr,
              entry);
  Operand rhs(b, loc, operands.rhs, shape, shape.rhsTransposed, tile.n, tile.k, tile.threads(),
              rhsVector(shape), thread, start(operands.rhsBatchStride), column, n,
              isMultiple(shape.n, tile.n), k, shape.rhsRun ? &operands.rhsElements : nullptr,
              entry);

  // Elements of a half of shared memory: a slice of A, then one of B.
  const int64_t rhsAt = tile.k * lhs.pitch(), half = tile.k * (lhs.pitch() + rhs.pitch());
  const bool isWholeK = isMultiple(shape.k, tile.k);
  SmallVector<Type> loadTypes(lhs.loads(), piece(type, lhs.width));
  loadTypes.append(rhs.loads(), piece(type, rhs.width));
  // Reads a slice, if there is one.
  auto loadIf = [&](Value condition, Value kStart) -> SmallVector<Value> {
    auto branch = scf::IfOp::create(b, loc, loadTypes, condition, /*withElseRegion=*/true);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(branch.thenBlock());
    SmallVector<Value> values;
    lhs.load(b, loc, kStart, isWholeK ? Value() : kEnd, values);
    rhs.load(b, loc, kStart, isWholeK ? Value() : kEnd, values);
    scf::YieldOp::create(b, loc, values);
    b.setInsertionPointToStart(branch.elseBlock());
    values.clear();
    for (Type loaded : loadTypes)
      values.push_back(zeroOf(b, loc, loaded));
    scf::YieldOp::create(b, loc, values);
    return SmallVector<Value>(branch.getResults());
  };
  auto store = [&](Value buffer, ArrayRef<Value> values) {
    lhs.store(b, loc, shared, buffer, values.take_front(lhs.loads()));
    rhs.store(b, loc, shared, i.add(buffer, rhsAt), values.drop_front(lhs.loads()));
  };

  // The first slice; none where k is 0.
  store(i.i32(0), loadIf(i.less(kBegin, kEnd), kBegin));
  barrier();

  const SmallVector<Value> zeros(tile.threadM * tile.threadN, zeroOf(b, loc, type));
  if (auto all = dyn_cast<AffineConstantExpr>(shape.k);
      all && all.getValue() <= tile.k && !gemm.plan.splits) {
    // One slice is all there is. A loop of one turn would lose its next slice's branches when LLVM
    // looks at it, and then its order: all elements first, which no thread has registers for.
    // Steps that are beyond the last one and in a fragment are zeros.
    SmallVector<Value> sums = compute(shared, i.i32(0), all.getValue(), zeros);
    barrier();
    if (beforeEpilogue)
      beforeEpilogue(b, loc);
    return finish(shared, sums, {entry, row, column}, epilogue);
  }

  SmallVector<Value> carried{i.i32(0)};
  llvm::append_range(carried, zeros);
  auto loop = scf::ForOp::create(b, loc, kBegin, kEnd, i.index(tile.k), carried);
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(loop.getBody());
    Value next = i.add(loop.getInductionVar(), tile.k);
    Value isMore = i.less(next, kEnd);
    SmallVector<Value> values = loadIf(isMore, next);
    Value buffer = loop.getRegionIterArg(0);
    Value other = i.sub(i.i32(half), buffer);
    SmallVector<Value> sums =
        compute(shared, buffer, tile.k, loop.getRegionIterArgs().drop_front());
    // The other half was last read before the last barrier.
    auto branch = scf::IfOp::create(b, loc, isMore, /*withElseRegion=*/false);
    {
      OpBuilder::InsertionGuard inner(b);
      b.setInsertionPointToStart(branch.thenBlock());
      store(other, values);
    }
    barrier();
    SmallVector<Value> yielded{other};
    llvm::append_range(yielded, sums);
    scf::YieldOp::create(b, loc, yielded);
  }

  SmallVector<Value> sums(loop.getResults().drop_front());
  if (!gemm.plan.splits) {
    if (beforeEpilogue)
      beforeEpilogue(b, loc);
    return finish(shared, sums, {entry, row, column}, epilogue);
  }
  finish(shared, sums, {entry, row, column},
         [&](OpBuilder &b, Location loc, ValueRange at, Value acc) {
           Integers i{b, loc};
           Value place = i.add(i.mul(chunk, batch), at[0]);
           place = i.add(i.mul(i.add(i.mul(place, m), at[1]), n), at[2]);
           storeGlobal(b, loc, acc, operands.workspace, place);
         });
}

/// Adds the products of a slice's first steps to the sums, rows by columns.
SmallVector<Value> Gemm::Emitter::compute(const Shared &shared, Value buffer, int64_t steps,
                                          ValueRange sums) {
  if (shape.tf32)
    return computeTf32(shared, buffer, steps, sums);
  const int64_t lhsPitch = tile.m + paddingOf(shape), rhsPitch = tile.n + paddingOf(shape);
  Value lhsAt = shared.at(b, loc, i.add(buffer, i.mul(threadRow, vectorM)));
  Value rhsAt = shared.at(b, loc, i.add(buffer, i.mul(threadColumn, vectorN)), tile.k * lhsPitch);
  auto fragment = [&](Value at, int64_t step, int64_t count, int64_t vector, int64_t stride) {
    SmallVector<Value> elements;
    for (int64_t first = 0; first < count; first += vector) {
      Value p = LLVM::GEPOp::create(
          b, loc, at.getType(), type, at,
          ArrayRef<LLVM::GEPArg>{static_cast<int32_t>(step + first / vector * stride)});
      Value loaded = shared.load(b, loc, p, vector);
      for (int64_t e = 0; e < vector; ++e)
        elements.push_back(vector == 1 ? loaded
                                       : vector::ExtractOp::create(b, loc, loaded, e).getResult());
    }
    return elements;
  };
  SmallVector<Value> result(sums);
  for (int64_t kk = 0; kk < steps; ++kk) {
    auto rows = fragment(lhsAt, kk * lhsPitch, tile.threadM, vectorM, vectorM * threadsM);
    auto columns = fragment(rhsAt, kk * rhsPitch, tile.threadN, vectorN, vectorN * threadsN);
    for (int64_t r = 0; r < tile.threadM; ++r)
      for (int64_t c = 0; c < tile.threadN; ++c) {
        Value &sum = result[r * tile.threadN + c];
        sum = LLVM::FMAOp::create(b, loc, rows[r], columns[c], sum);
      }
  }
  return result;
}

/// The same by tensor cores, whose fragments the PTX ISA lays out so: with g = lane / 4 and t =
/// lane % 4, a lane has of A rows g and g + 8 in steps t and t + 4, of B column g in these steps,
/// of C rows g and g + 8 in columns 2t and 2t + 1. What is row g + 8 of a fragment is the thread's
/// next row here.
SmallVector<Value> Gemm::Emitter::computeTf32(const Shared &shared, Value buffer, int64_t steps,
                                              ValueRange sums) {
  const int64_t lhsPitch = tile.m + paddingOf(shape), rhsPitch = tile.n + paddingOf(shape);
  Type i32 = b.getI32Type(), f32 = b.getF32Type();
  Value group = i.div(lane, fragmentLanesN), step = i.rem(lane, fragmentLanesN);
  Value lhsAt = shared.at(b, loc, i.add(i.add(buffer, i.mul(step, lhsPitch)), threadRow));
  Value fragmentColumn = i.add(i.mul(warpColumn, fragmentLanesN * fragmentVectorN), group);
  Value rhsAt = shared.at(b, loc, i.add(i.add(buffer, i.mul(step, rhsPitch)), fragmentColumn),
                          tile.k * lhsPitch);
  auto load = [&](Value at, int64_t offset) -> Value {
    Value p = LLVM::GEPOp::create(b, loc, at.getType(), type, at,
                                  ArrayRef<LLVM::GEPArg>{static_cast<int32_t>(offset)});
    return LLVM::LoadOp::create(b, loc, i32, p, shared.alignment(1));
  };
  auto accumulator = LLVM::LLVMStructType::getLiteral(b.getContext(), {f32, f32, f32, f32});
  SmallVector<Value> result(sums);
  const int64_t fragmentsN = tile.threadN / fragmentVectorN, halfSteps = fragmentSteps / 2;
  for (int64_t kk = 0; kk < steps; kk += fragmentSteps) {
    SmallVector<Value> rows[2], columns[2]; // of the first and the second half of the steps
    for (int64_t half = 0; half < 2; ++half) {
      for (int64_t r = 0; r < tile.threadM; ++r)
        rows[half].push_back(load(lhsAt, (kk + half * halfSteps) * lhsPitch + r * threadsM));
      for (int64_t c = 0; c < fragmentsN; ++c)
        columns[half].push_back(
            load(rhsAt, (kk + half * halfSteps) * rhsPitch + c * fragmentVectorN * threadsN));
    }
    for (int64_t r = 0; r < tile.threadM; r += 2)
      for (int64_t c = 0; c < fragmentsN; ++c) {
        Value *upper = &result[r * tile.threadN + c * fragmentVectorN],
              *lower = upper + tile.threadN;
        Value product = NVVM::MmaOp::create(
            b, loc, accumulator, ValueRange{rows[0][r], rows[0][r + 1], rows[1][r], rows[1][r + 1]},
            ValueRange{columns[0][c], columns[1][c]},
            ValueRange{upper[0], upper[1], lower[0], lower[1]}, ArrayRef<int64_t>{16, 8, 8},
            /*b1Op=*/std::nullopt, /*intOverflow=*/std::nullopt,
            std::array<NVVM::MMATypes, 2>{NVVM::MMATypes::tf32, NVVM::MMATypes::tf32},
            std::array<NVVM::MMALayout, 2>{NVVM::MMALayout::row, NVVM::MMALayout::col});
        auto part = [&](int64_t number) -> Value {
          return LLVM::ExtractValueOp::create(b, loc, product, ArrayRef<int64_t>{number});
        };
        upper[0] = part(0), upper[1] = part(1), lower[0] = part(2), lower[1] = part(3);
      }
  }
  return result;
}

/// Hands the tile that begins at (entry, row, column) to `use`, through the shared memory that the
/// operands no longer need: in as many parts as it takes, each with some of every thread's rows.
void Gemm::Emitter::finish(const Shared &shared, ArrayRef<Value> sums, ValueRange tileStart,
                           GemmEpilogue use) {
  const int64_t lanes = gemm.vectorLanes;
  // Rows that the lanes of a fragment write at once lie 8 banks apart.
  const int64_t pitch = tile.n + (shape.tf32 ? 8 : 0);
  int64_t parts = 1;
  while (tile.m * pitch / parts * bytesOf(type) > gemm.sharedBytes(0))
    parts *= 2;
  const int64_t rows = tile.threadM / parts, pieces = tile.n / lanes;
  assert(rows >= 1 && threadsM * rows * pieces % tile.threads() == 0);

  OpBuilder::InsertionGuard guard(b);
  Value part = i.i32(0);
  if (parts > 1) {
    auto loop = scf::ForOp::create(b, loc, part, i.i32(parts), i.i32(1));
    b.setInsertionPointToStart(loop.getBody());
    part = loop.getInductionVar();
  }
  for (int64_t p = 0; p < parts; ++p) {
    OpBuilder::InsertionGuard inner(b);
    if (parts > 1) {
      Value isThis = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, part, i.i32(p));
      auto branch = scf::IfOp::create(b, loc, isThis, /*withElseRegion=*/false);
      b.setInsertionPointToStart(branch.thenBlock());
    }
    Value to = shared.at(b, loc, i.add(i.mul(threadRow, pitch), i.mul(threadColumn, vectorN)));
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < tile.threadN; c += vectorN) {
        Value p0 =
            LLVM::GEPOp::create(b, loc, to.getType(), type, to,
                                ArrayRef<LLVM::GEPArg>{static_cast<int32_t>(
                                    r * threadsM * pitch + c / vectorN * vectorN * threadsN)});
        ArrayRef<Value> some = sums.slice((p * rows + r) * tile.threadN + c, vectorN);
        Value value =
            vectorN == 1
                ? some[0]
                : vector::FromElementsOp::create(b, loc, VectorType::get(vectorN, type), some)
                      .getResult();
        shared.store(b, loc, value, p0);
      }
  }
  barrier();

  auto loop =
      scf::ForOp::create(b, loc, thread, i.i32(threadsM * rows * pieces), i.i32(tile.threads()));
  {
    OpBuilder::InsertionGuard inner(b);
    b.setInsertionPointToStart(loop.getBody());
    // Row r of the part is row `r % threadsM` of threads, and of that one's rows `r / threadsM`.
    Value r = i.div(loop.getInductionVar(), pieces);
    Value c = i.mul(i.rem(loop.getInductionVar(), pieces), lanes);
    Value ofThread = i.add(i.mul(part, rows), i.div(r, threadsM));
    Value rowInTile = i.add(i.add(i.mul(i.div(ofThread, vectorM), vectorM * threadsM),
                                  i.mul(i.rem(r, threadsM), vectorM)),
                            i.rem(ofThread, vectorM));
    Value row = i.add(tileStart[1], i.toIndex(rowInTile));
    Value column = i.add(tileStart[2], i.toIndex(c));
    Value exists;
    if (!isMultiple(shape.m, tile.m))
      exists = i.less(row, m);
    if (!isMultiple(shape.n, tile.n)) {
      Value inRow = i.less(column, n);
      exists = exists ? arith::AndIOp::create(b, loc, exists, inRow).getResult() : inRow;
    }
    if (exists)
      b.setInsertionPointToStart(
          scf::IfOp::create(b, loc, exists, /*withElseRegion=*/false).thenBlock());
    Value acc = shared.load(b, loc, shared.at(b, loc, i.add(i.mul(r, pitch), c)), lanes);
    use(b, loc, ValueRange{tileStart[0], row, column}, acc);
  }
  // The next part overwrites this one.
  if (parts > 1)
    barrier();
}

/// The second launch of a product whose K is split.
void Gemm::Emitter::combine() {
  const int64_t lanes = gemm.vectorLanes;
  Value pieces = i.div(n, lanes);
  Value all = i.mul(i.mul(batch, m), pieces);
  Value number = i.add(i.mul(i.toIndex(block), combineThreads), i.toIndex(thread));
  auto branch = scf::IfOp::create(b, loc, i.less(number, all), /*withElseRegion=*/false);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(branch.thenBlock());
  Value column = i.mul(i.rem(number, pieces), lanes), rest = i.div(number, pieces);
  Value row = i.rem(rest, m), entry = i.div(rest, m);
  Value from = i.mul(number, lanes), step = i.mul(all, lanes);
  auto loop = scf::ForOp::create(b, loc, i.index(0), i.ceilDiv(k, gemm.plan.chunk), i.index(1),
                                 ValueRange{from, zeroOf(b, loc, piece(type, lanes))});
  {
    OpBuilder::InsertionGuard inner(b);
    b.setInsertionPointToStart(loop.getBody());
    Value place = loop.getRegionIterArg(0);
    Value part = loadGlobal(b, loc, operands.workspace, place, lanes);
    Value sum = arith::AddFOp::create(b, loc, loop.getRegionIterArg(1), part);
    scf::YieldOp::create(b, loc, ValueRange{i.add(place, step), sum});
  }
  if (beforeEpilogue)
    beforeEpilogue(b, loc);
  epilogue(b, loc, ValueRange{entry, row, column}, loop.getResult(1));
}

void Gemm::emit(unsigned launch, OpBuilder &b, Location loc, const GemmOperands &operands,
                GemmEpilogue epilogue, GemmPrologue beforeEpilogue) const {
  assert(launch < launchCount());
  OpBuilder::InsertionGuard guard(b);
  if (operands.fault) {
    Value zero = arith::ConstantIndexOp::create(b, loc, 0);
    Value site =
        memref::LoadOp::create(b, loc, operands.fault, zero, /*nontemporal=*/false, llvm::Align(8));
    Value none = arith::ConstantOp::create(b, loc, b.getI64IntegerAttr(0));
    Value isFine = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, site, none);
    b.setInsertionPointToStart(
        scf::IfOp::create(b, loc, isFine, /*withElseRegion=*/false).thenBlock());
  }
  Emitter emitter{*this, b, loc, operands, epilogue, beforeEpilogue};
  if (launch == 0)
    emitter.product();
  else
    emitter.combine();
}

} // namespace dlc::cuda
