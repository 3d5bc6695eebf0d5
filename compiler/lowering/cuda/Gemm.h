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
// A factor need not lie in memory as a matrix: whoever asks for the product says where an element
// of it is, or that it is 0. So a convolution is a product (Convolution.h) without a copy of its
// windows.
//
// Every element of C is one chain of fused multiply-adds over k = 0, 1, ..., starting at zero, as
// on the CPU. Where K is split, each chunk is such a chain, and the chunks are added in their
// order. The number of chunks depends on the sizes alone. So the bits depend neither on the device,
// nor on the schedule of its blocks. In TF32 a link of the chain is eight steps, which a tensor
// core adds up as it does.
//
// A block computes a tile of C in slices of k. While it works on one slice in shared memory, its
// threads hold the next one in registers, which then goes to the other half of shared memory: one
// barrier a slice. Registers instead of cp.async, because slices change on their way: an operand
// whose rows run along k is transposed, and steps beyond k become zeros. A slice is 8 to 32 steps
// long, so that the arithmetic of the resident blocks takes about as long as global memory's
// latency or longer. A product that is known to be one slice has no loop, and as many steps as k.
// What the tiles ask of the machine, for operands read in vectors:
//
//         tile       sums of   FMA for each    loop: PTX instructions,  shared  registers  blocks
//                    a thread  byte | element  loads, share of FMA      bytes              resident
//    f32  128x128x8  8x8       16     4        583  32  88 %            16896   125-128    2
//         128x64x8   8x8       10.7   4        593  32  86 %            12800   130-143    3
//         64x64x16   8x4        8     2.7      615  48  83 %            17408   105-113    4
//         32x32x32   4x2        4     1.3      376  64  68 %            18432   71         7
//         64x16x32   4x2        3.2   1.3      386  64  66 %            22528   79         6
//         16x64x32   2x4        3.2   1.3      380  64  67 %            22528   79-80      6
//    f64  64x64x8    8x4        4     2.7      348  48  74 %            17408   156-162    3
//         32x32x16   4x2        2     1.3      220  48  58 %            18432   94-96      5
//         64x16x16   4x2        1.6   1.3      224  48  57 %            22528   94-96      5
//         16x64x16   2x4        1.6   1.3      224  48  57 %            22528   96         5
//
// Bytes are those of global memory, elements those that threads load from shared memory; registers
// are what ptxas 13.0 says for sm_80 and sm_90, none spilled. `gpu_gemm_tests
// --gtest_filter=*Figures` prints all from the loop on.
//
// A multiprocessor issues instructions of four warps in a cycle, and shared memory hands it 128
// bytes. A step of 8x8 keeps the first busy for 16 cycles a warp (64 multiply-adds) and the second,
// by the elements that 32 threads receive, for 16 as well; one of 8x4 for 8 and 12, of 4x2 for 2
// and 6. So the tiles of 8x8 can keep the arithmetic busy; the others, bound by shared memory, are
// for products that would not fill the machine otherwise, where latency decides. Accesses to shared
// memory meet no bank twice, but for the staging of C in the 32x32 tile of f32 and the stores of an
// operand of f32 that is 16 wide and not transposed on its way, which take two turns. All this is
// counted, not measured: no figure here is a time.
//
// In TF32, factors are rounded on their way to shared memory (cvt.rna), and a warp computes with
// mma.m16n8k8. Rows and columns of its fragments are dealt out among the block's warps as those of
// threads are above, so all but the innermost loop is the same. A fragment's elements are loaded
// one by one: rows of shared memory, 8 elements longer than the tile, put the four steps of k that
// a warp's lanes read at once 8 banks apart, so that no two meet. ldmatrix would want k contiguous
// and moves the same bytes.
//
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_LOWERING_CUDA_GEMM_H
#define DLC_COMPILER_LOWERING_CUDA_GEMM_H

#include "mlir/IR/AffineExpr.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinTypes.h"
#include "llvm/ADT/STLFunctionalExtras.h"

#include <functional>
#include <string>

namespace dlc::cuda {

/// A product's type, sizes and storage. A is stored row-major as [m, k], or as [k, m] when
/// lhsTransposed; B as [k, n], or as [n, k] when rhsTransposed. A size that is an expression is
/// known only at run time, but for what it is known to be a multiple of: that decides on vectors.
struct GemmShape {
  mlir::FloatType type; ///< f32 or f64
  mlir::AffineExpr m, n, k, batch;
  bool lhsTransposed = false, rhsTransposed = false;
  /// K may be split over blocks, at the price of a workspace and a second launch. The epilogue then
  /// runs in the second one.
  bool maySplit = true;
  /// Where not 0, A (B) is no matrix: GemmOperands::lhsElements (rhsElements) say where its
  /// elements lie. Along the dimension that would be contiguous, those with numbers from a multiple
  /// of the run on are side by side in memory, aligned, and exist or not together.
  int64_t lhsRun = 0, rhsRun = 0;
  /// Where not 0, the epilogue's pieces do not go beyond multiples of it in a row of C.
  int64_t outRun = 0;
  /// Of f32: factors may be rounded to TF32, so that tensor cores multiply them (sm_80 and later).
  bool tf32 = false;
};

/// Where the elements of a factor lie that is no matrix. Columns stand for rows where the factor is
/// A.
struct GemmElements {
  /// What a column contributes, computed once for each that a thread reads.
  using Column = llvm::SmallVector<mlir::Value, 4>;
  std::function<Column(mlir::OpBuilder &b, mlir::Location loc, mlir::Value entry,
                       mlir::Value column)>
      column;
  /// The place in memory of a step of k in a column, an index, and whether there is one, an i1
  /// (null: always). Steps may be beyond k: their place is not looked at, but must be a number.
  struct Place {
    mlir::Value at, exists;
  };
  std::function<Place(mlir::OpBuilder &b, mlir::Location loc, llvm::ArrayRef<mlir::Value> column,
                      mlir::Value step)>
      place;
};

/// The operands of a product, in the kernel that code is emitted into.
struct GemmOperands {
  mlir::Value lhs, rhs;       ///< memref<?xT>, flat, aligned to 16 bytes at least
  mlir::Value m, n, k, batch; ///< index; may be null for sizes that are constants
  /// index, in elements: the size of one matrix, or 0 to give every batch entry the same matrix.
  /// Null when batch is the constant 1.
  mlir::Value lhsBatchStride, rhsBatchStride;
  /// For a factor with a run.
  GemmElements lhsElements, rhsElements;
  mlir::Value workspace; ///< memref<?xT> of workspaceElements(); null when that is 0
  /// memref<?xi64>, or null: unless its first element is 0, the kernel does nothing.
  mlir::Value fault;
};

/// Receives Gemm::lanes() consecutive columns of one row of the finished C, as a vector<lanes x T>
/// (one lane: a T), and the (batch, row, column) of the first as index values. All lanes exist, the
/// column is a multiple of lanes, and so is n: an access to a buffer of C's shape is aligned to
/// lanes * sizeof(T) bytes. Called once; what the builder emits runs in a loop, once for every
/// piece of C, by one thread; neighbouring threads have neighbouring columns. It must not contain
/// barriers, nor write to the operands of the product.
using GemmEpilogue = llvm::function_ref<void(mlir::OpBuilder &b, mlir::Location loc,
                                             mlir::ValueRange batchRowCol, mlir::Value acc)>;

/// Emits what the epilogue needs once for each thread, before its pieces of C and after the sums
/// are done: scalars that it computes with.
using GemmPrologue = llvm::function_ref<void(mlir::OpBuilder &b, mlir::Location loc)>;

/// One product with its schedule. It consists of launchCount() kernels, one after the other on one
/// stream; only the last one calls the epilogue.
class Gemm {
public:
  explicit Gemm(const GemmShape &shape);

  /// Columns in one piece of the epilogue: 1, 2 or 4.
  unsigned lanes() const { return vectorLanes; }

  unsigned launchCount() const { return plan.splits ? 2 : 1; }

  /// The grid of a launch: blocks in x, 1 in y and z. 0 when a size is 0: nothing is to be
  /// launched.
  mlir::AffineExpr blocks(unsigned launch) const;
  /// Threads of a block, exactly (nvvm.reqntid).
  unsigned threads(unsigned launch) const;
  /// Blocks that should fit on a multiprocessor at once, what bounds the registers (nvvm.minctasm).
  unsigned residentBlocks(unsigned launch) const;
  /// Static shared memory of a block. emit() defines it: a global of the symbol table around the
  /// function, named after it.
  int64_t sharedBytes(unsigned launch) const;

  /// Steps of k in one chunk, 0 where K is not split.
  int64_t chunkSteps() const { return plan.splits ? plan.chunk : 0; }

  /// Elements of T that the launches share, constant 0 when none.
  mlir::AffineExpr workspaceElements() const;

  /// Emits the body of a kernel at the builder, which must be inside the kernel's function, where
  /// all threads of the block pass.
  void emit(unsigned launch, mlir::OpBuilder &b, mlir::Location loc, const GemmOperands &operands,
            GemmEpilogue epilogue, GemmPrologue beforeEpilogue = nullptr) const;

  /// The schedule in words, for dumps and tests: "128x128x8 of 8x8, lhs 4, rhs 4, out 4".
  std::string describe() const;

private:
  /// A block's share of C and how its threads divide it; all powers of two.
  struct Tile {
    int64_t m, n, k;          ///< C's tile, and steps of k between two barriers
    int64_t threadM, threadN; ///< accumulators of a thread
    int64_t threads() const { return m / threadM * (n / threadN); }
  };

  struct Plan {
    Tile tile;
    int64_t resident = 0; ///< blocks on a multiprocessor
    bool splits = false;
    int64_t chunk = 0; ///< steps of k in one chunk, a multiple of tile.k, where K is split
    double cost = 0;   ///< estimate that chose this plan
  };

  struct Emitter;

  GemmShape shape;
  unsigned vectorLanes;
  Plan plan;

  static llvm::ArrayRef<Tile> tiles(const GemmShape &shape);
  static int64_t registers(const Tile &tile, const GemmShape &shape);
  static Plan choosePlan(const GemmShape &shape);
  mlir::AffineExpr chunks() const;
};

} // namespace dlc::cuda

#endif // DLC_COMPILER_LOWERING_CUDA_GEMM_H
