//===- Gemm.h - matrix products inside GPU kernels -*- C++ -*-===//
//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Emits C[b,m,n] = sum over k of A[b,m,k] * B[b,k,n] as the body of a GPU kernel: nvvm (thread and
// block numbers, barriers), scf, arith, vector, memref and llvm operations, to be lowered by the
// stock conversions. Whoever asks for a product gives an epilogue, which receives the finished C
// piece by piece and decides what becomes of it: C itself is never stored by the engine.
//
// Every element of C is one chain of fused multiply-adds over k = 0, 1, ..., starting at zero, as on
// the CPU. Where K is split, each chunk is such a chain, and the chunks are added in their order. The
// number of chunks depends on the sizes alone. So the bits depend neither on the device, nor on the
// schedule of its blocks.
//
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_LOWERING_CUDA_GEMM_H
#define DLC_COMPILER_LOWERING_CUDA_GEMM_H

#include "mlir/IR/AffineExpr.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinTypes.h"
#include "llvm/ADT/STLFunctionalExtras.h"

#include <string>

namespace dlc::cuda {

/// A product's type, sizes and storage. A is stored row-major as [m, k], or as [k, m] when
/// lhsTransposed; B as [k, n], or as [n, k] when rhsTransposed. A size that is an expression is known
/// only at run time, but for what it is known to be a multiple of: that decides on vectors.
struct GemmShape {
  mlir::FloatType type; ///< f32 or f64
  mlir::AffineExpr m, n, k, batch;
  bool lhsTransposed = false, rhsTransposed = false;
  /// K may be split over blocks, at the price of a workspace and a second launch. The epilogue then
  /// runs in the second one.
  bool maySplit = true;
};

/// The operands of a product, in the kernel that code is emitted into.
struct GemmOperands {
  mlir::Value lhs, rhs; ///< memref<?xT>, flat, aligned to 16 bytes at least
  mlir::Value m, n, k, batch; ///< index; may be null for sizes that are constants
  /// index, in elements: the size of one matrix, or 0 to give every batch entry the same matrix.
  /// Null when batch is the constant 1.
  mlir::Value lhsBatchStride, rhsBatchStride;
  mlir::Value workspace; ///< memref<?xT> of workspaceElements(); null when that is 0
  /// memref<?xi64>, or null: unless its first element is 0, the kernel does nothing.
  mlir::Value fault;
};

/// Receives Gemm::lanes() consecutive columns of one row of the finished C, as a vector<lanes x T>
/// (one lane: a T), and the (batch, row, column) of the first as index values. All lanes exist, the
/// column is a multiple of lanes, and so is n: an access to a buffer of C's shape is aligned to
/// lanes * sizeof(T) bytes. Called once; what the builder emits runs in a loop, once for every piece
/// of C, by one thread; neighbouring threads have neighbouring columns. It must not contain barriers,
/// nor write to the operands of the product.
using GemmEpilogue =
    llvm::function_ref<void(mlir::OpBuilder &b, mlir::Location loc, mlir::ValueRange batchRowCol,
                            mlir::Value acc)>;

/// One product with its schedule. It consists of launchCount() kernels, one after the other on one
/// stream; only the last one calls the epilogue.
class Gemm {
public:
  explicit Gemm(const GemmShape &shape);

  /// Columns in one piece of the epilogue: 1, 2 or 4.
  unsigned lanes() const { return vectorLanes; }

  unsigned launchCount() const { return plan.splits ? 2 : 1; }

  /// The grid of a launch: blocks in x, 1 in y and z. 0 when a size is 0: nothing is to be launched.
  mlir::AffineExpr blocks(unsigned launch) const;
  /// Threads of a block, exactly (nvvm.reqntid).
  unsigned threads(unsigned launch) const;
  /// Blocks that should fit on a multiprocessor at once, what bounds the registers (nvvm.minctasm).
  unsigned residentBlocks(unsigned launch) const;
  /// Static shared memory of a block. emit() defines it: a global of the symbol table around the
  /// function, named after it.
  int64_t sharedBytes(unsigned launch) const;

  /// Elements of T that the launches share, constant 0 when none.
  mlir::AffineExpr workspaceElements() const;

  /// Emits the body of a kernel at the builder, which must be inside the kernel's function, where all
  /// threads of the block pass.
  void emit(unsigned launch, mlir::OpBuilder &b, mlir::Location loc, const GemmOperands &operands,
            GemmEpilogue epilogue) const;

  /// The schedule in words, for dumps and tests: "128x128x8 of 8x8, lhs 4, rhs 4, out 4".
  std::string describe() const;

private:
  /// A block's share of C and how its threads divide it; all powers of two.
  struct Tile {
    int64_t m, n, k;              ///< C's tile, and steps of k between two barriers
    int64_t threadM, threadN;     ///< accumulators of a thread
    int64_t resident;             ///< blocks on a multiprocessor
    int64_t threads() const { return m / threadM * (n / threadN); }
  };

  struct Plan {
    Tile tile;
    bool splits = false;
    int64_t chunk = 0; ///< steps of k in one chunk, a multiple of tile.k, where K is split
    double cycles = 0; ///< estimate that chose this plan
  };

  struct Emitter;

  GemmShape shape;
  unsigned vectorLanes;
  Plan plan;

  static llvm::ArrayRef<Tile> tiles(mlir::FloatType type);
  static Plan choosePlan(const GemmShape &shape);
  mlir::AffineExpr chunks() const;
};

} // namespace dlc::cuda

#endif // DLC_COMPILER_LOWERING_CUDA_GEMM_H
