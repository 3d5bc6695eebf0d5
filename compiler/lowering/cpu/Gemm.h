//===- Gemm.h - matrix products inside kernels -*- C++ -*-===//
//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Emits C[b,m,n] = sum over k of A[b,m,k] * B[b,k,n] as scf, vector, arith and memref operations,
// to be lowered by the stock conversions. Whoever asks for a product gives an epilogue, which
// receives the finished C vector by vector and decides what becomes of it: C itself is never stored
// by the engine.
//
// Every element of C is one chain of fused multiply-adds over k = 0, 1, ..., starting at zero. So
// its bits depend neither on the schedule, nor on threads, nor on the vector width.
//
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_LOWERING_CPU_GEMM_H
#define DLC_COMPILER_LOWERING_CPU_GEMM_H

#include "compiler/lowering/cpu/CpuInfo.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/AffineExpr.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinTypes.h"
#include "llvm/ADT/STLFunctionalExtras.h"

#include <string>

namespace dlc::cpu {

/// A product's type, sizes and storage. A is stored row-major as [m, k], or as [k, m] when
/// lhsTransposed; B as [k, n], or as [n, k] when rhsTransposed. A size that is known only at run
/// time is ShapedType::kDynamic.
struct GemmShape {
  mlir::FloatType type; ///< f32 or f64
  int64_t m, n, k;
  int64_t batch = 1;
  bool lhsTransposed = false, rhsTransposed = false;
  /// Whether an operand is the same in many calls, as in the turns of a loop: then it may be packed
  /// once for all of them (Gemm::launchesOnce).
  bool lhsFixed = false, rhsFixed = false;
  /// Whether every entry of the batch has the same A: then it is packed once for all of them, if at all,
  /// and the columns of B of all entries may be multiplied together.
  bool lhsShared = false;
};

/// The operands of a product, in the function that code is emitted into.
struct GemmOperands {
  mlir::Value lhs, rhs; ///< memref<?xT>, flat
  mlir::Value rhsOffset; ///< index, where B begins in its memory; null: with its first element
  mlir::Value m, n, k, batch; ///< index; may be null for sizes that are static
  /// index, in elements; 0 gives every batch entry the same matrix. Null when batch is statically 1;
  /// lhsBatchStride also when A is shared.
  mlir::Value lhsBatchStride, rhsBatchStride;
  mlir::Value workspace; ///< memref<?xT> of workspaceElements(); null when that is 0
  mlir::Value panels;    ///< memref<?xT> of panelElements(); null when that is 0
  /// memref<?xi64> whose element is -1 when a thread's first call of a launch begins and stays until
  /// its next one: then operands that one call has packed into the scratch serve the next. May be
  /// null.
  mlir::Value kept;
  /// Dense memrefs of C's shape and type T that the epilogue reads and writes in place. While a tile
  /// is multiplied its part of them is on its way.
  llvm::SmallVector<mlir::Value> updated;
};

/// Receives one vector of Gemm::lanes() consecutive columns of the finished C, and the (batch, row,
/// column) of its first element as index values. `mask` (vector<lanes x i1>, a prefix) says which
/// lanes exist; null: all. What the builder emits runs once for every such vector; it must not
/// touch the operands of the product or the scratch.
using GemmEpilogue =
    llvm::function_ref<void(mlir::OpBuilder &b, mlir::Location loc, mlir::ValueRange batchRowCol,
                            mlir::Value acc, mlir::Value mask)>;

/// One product with its schedule. It consists of launchCount() kernels that run one after the
/// other, each over tasks(launch) independent tasks; only the last one calls the epilogue.
/// Consecutive tasks share packed operands, so give each thread one contiguous range.
class Gemm {
public:
  Gemm(const CpuInfo &cpu, const GemmShape &shape);

  /// Columns in one vector of the epilogue.
  unsigned lanes() const { return vectorLanes; }

  /// Elements of T that all kernels of the product share (operands packed once for all threads),
  /// for sizes given as expressions; constant 0 when none. The memory should be aligned to 64
  /// bytes.
  mlir::AffineExpr workspaceElements(mlir::AffineExpr m, mlir::AffineExpr n, mlir::AffineExpr k) const;
  /// The same of the columns that a launch packs into panels, which it alone writes.
  mlir::AffineExpr panelElements(mlir::AffineExpr m, mlir::AffineExpr n, mlir::AffineExpr k) const;

  /// Bytes of scratch that each thread needs of its own; aligned to 64 bytes.
  int64_t scratchBytes() const;

  unsigned launchCount() const;
  /// So many launches, the first ones, read only an operand that shape calls fixed, and write the panels,
  /// which the others only read: they need not run again while it stays the same.
  unsigned launchesOnce() const;

  /// Number of tasks of a kernel, an index value that may be 0 when a size is 0. Emitted where the
  /// kernel is launched.
  mlir::Value tasks(unsigned launch, mlir::OpBuilder &b, mlir::Location loc,
                    const GemmOperands &operands) const;

  /// So many tasks of the last launch, next to each other, had better be run by one call; 0: any number.
  unsigned tasksTogether() const { return plan.streams ? streamedBytes / streamedTaskBytes : 0; }

  /// Emits the body of a kernel: its tasks begin, begin + 1, ..., end - 1 (index values). `scratch`
  /// is a memref<?xT> of scratchBytes(). The micro-kernels are outlined as functions of the
  /// surrounding module, shared by all products.
  void emit(unsigned launch, mlir::OpBuilder &b, mlir::Location loc, const GemmOperands &operands,
            mlir::Value begin, mlir::Value end, mlir::Value scratch, GemmEpilogue epilogue) const;

  /// The schedule in words, for dumps and tests: "8x48 tile 64x48 k 784 rhs direct".
  std::string describe() const;

  /// Up to how many rows of A a B that L2 does not hold is read as it lies in memory: wide, in few steps
  /// at a time. With more rows, going through the accumulators in every few steps costs more than that
  /// saves.
  static constexpr int64_t rowsForStreaming = 16;

  //===--- Its inner loop, for who packs operands into scratch memory of its own ---===//

  /// An engine of no product: the usual micro-kernel, no wider than `columns` need.
  Gemm(const CpuInfo &cpu, mlir::FloatType type, int64_t columns);
  /// The micro-kernel's part of C.
  int64_t rows() const { return plan.mr; }
  int64_t columns() const { return plan.nv * vectorLanes; }
  /// C[rows(), columns()] += A[rows(), count] * B[count, columns()], or = where `first` says so. Of A
  /// there are `rows` rows, at least one; those beyond repeat the last one. Arguments: a, its first
  /// element, strides of a row and of a step, rows; b, its first element, the stride of a step; c,
  /// its first element, the stride of a row; count; first (i1). Places and strides in elements.
  mlir::func::FuncOp microKernel(mlir::OpBuilder &b, mlir::Location loc) const;

private:
  /// Where an operand is packed: not at all; by each task into its scratch; by a launch of its own
  /// into the workspace (B: if it is fixed, or the A that a batch shares); or as a size that is known only at run time decides (B:
  /// by task, A: by launch).
  enum class Packing { None, Task, Launch, RunTime };

  /// How the product is computed. All sizes are in elements and refer to the product as it is
  /// computed, that is with the operands exchanged when `swapped` (C^T = B^T A^T): then columns of
  /// C are the rows of a tile.
  struct Plan {
    bool swapped = false;
    bool joined = false; ///< columns are those of all entries of the batch, one entry behind the other
    int64_t mr = 0, nv = 0;       ///< micro-tile: rows, vectors
    int64_t mTile = 0, nTile = 0; ///< tile: multiples of the micro-tile
    int64_t kBlock = 0;           ///< k steps between two visits of a tile's accumulators
    int64_t directBlock = 0;      ///< the same where RunTime decides not to pack B
    bool streams = false; ///< few rows go through B in wide tiles, as it lies in memory
    int64_t streamElements = 0;   ///< accumulators of such a tile
    int64_t packedRows = 0;       ///< rows from which on it decides to
    Packing lhs = Packing::None, rhs = Packing::None;
    double cycles = 0; ///< estimate that chose this plan
  };

  /// What a launch does.
  enum class Part { PackRhs, PackLhs, Multiply };
  Part partOf(unsigned launch) const;

  /// Steps of K that are packed, or multiplied where B comes from memory, side by side: so many rows of
  /// memory are read from left to right at once as the processor fetches ahead of.
  static constexpr int64_t stepsTogether = 8;
  /// Bytes of a row of such a B in a task, so that many threads find work; and those that are best read at
  /// once, from which on memory gives all that it can.
  static constexpr int64_t streamedTaskBytes = 512, streamedBytes = 8192;
  /// Pages that a transposed A may touch on the way down a group of rows; beyond, it is packed. Each
  /// of its steps is in another place, and the processor's table of pages is small.
  static constexpr int64_t pagesInReach = 128, pageBytes = 4096;

  struct View;
  struct Emitter;

  /// Columns of a product as it is computed, in all panels, or ShapedType::kDynamic.
  static int64_t columnsOf(const GemmShape &shape, bool swapped, bool joined);
  /// Whether of panels of nv vectors, of so many columns in all, the last one needs half its vectors at most.
  static bool endsInHalfPanel(int64_t columns, int64_t nv, int64_t lanes) {
    const int64_t left = mlir::ShapedType::isDynamic(columns) ? 0 : columns % (nv * lanes);
    return nv % 2 == 0 && left > 0 && left <= nv / 2 * lanes;
  }

  CpuInfo cpu;
  GemmShape shape;
  unsigned vectorLanes;
  Plan plan;

  static Plan choosePlan(const CpuInfo &cpu, const GemmShape &shape);
};

} // namespace dlc::cpu

#endif // DLC_COMPILER_LOWERING_CPU_GEMM_H
