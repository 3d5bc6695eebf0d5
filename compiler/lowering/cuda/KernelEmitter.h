//===- KernelEmitter.h - a fused kernel as threads -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// One dl.fused (or check) on a GPU, without its product if it has one: how many blocks of `blockThreads` it takes and what a thread does.
//
//   flat     a thread computes 4 neighbours, where a row-major number says all
//   loop     the same along the last axis, with the indices of the others
//   rows     a group of lanes, a warp or a block shares a row: partial results go by shuffles, then through shared memory
//   columns  8 (or 32) neighbouring columns in x, rows dealt out in y
//
// Which order partial results are combined in is a function of the shape alone: bits depend neither on the device nor on what else runs on it.

#ifndef DLC_COMPILER_LOWERING_CUDA_KERNELEMITTER_H
#define DLC_COMPILER_LOWERING_CUDA_KERNELEMITTER_H

#include "compiler/lowering/cuda/KernelAccess.h"

namespace dlc::cuda {

/// Threads in a block of every kernel but a product's.
inline constexpr int64_t blockThreads = 256;

/// A value of the body that is in memory when the kernel runs: a product, a sum that came with one.
struct Given {
  mlir::Value value;
  int64_t buffer;
  bool isStored = false; // it already lies where the kernel's result belongs, if it is one
};

class KernelEmitter {
public:
  /// Computes all results but those that are `given`.
  explicit KernelEmitter(dl::FusedOp kernel, llvm::ArrayRef<Given> given = {});

  /// Whether there is anything to compute.
  bool isEmpty() const { return results.empty(); }
  /// Launches, one after the other: two where a long reduction is cut into chunks. Where the shape decides at run time, the first one does it all if there is one chunk.
  unsigned launchCount() const { return chunks ? 2 : 1; }
  /// Elements of f32 (or of what `elementType` is set to) that lie between the two launches; null for none.
  mlir::AffineExpr partialElements(mlir::Type &elementType) const;
  mlir::AffineExpr blocks(unsigned launch) const;
  /// What thread `access.thread()` of the kernel's block number `block` (an index value) does. `partials` is the buffer between the launches.
  void emit(unsigned launch, mlir::OpBuilder &b, KernelAccess &access, mlir::Value block, std::optional<int64_t> partials) const;

private:
  struct Walk;
  mlir::AffineExpr keptPoints() const;
  /// What a kernel without reductions gives to threads: the shape, its last axis in pieces of `lanes` elements. Empty for one of rank 0, which has one piece.
  llvm::SmallVector<mlir::AffineExpr> pieces() const;
  void emitLoop(mlir::OpBuilder &b, KernelAccess &access, ElementEmitter &elements, mlir::Value block) const;
  void emitReduction(unsigned launch, mlir::OpBuilder &b, KernelAccess &access, ElementEmitter &elements, mlir::Value block, std::optional<int64_t> partials) const;

  mutable dl::FusedOp kernel; // ops are handles
  llvm::SmallVector<Given> given;
  llvm::SmallVector<mlir::Operation *> needed; // ops that are computed, in order
  llvm::SmallVector<unsigned> results;         // numbers of the results that are stored
  llvm::SmallVector<mlir::AffineExpr> full;
  llvm::SmallVector<int64_t> reduced, kept;
  bool flat = false;
  int64_t lanes = 1;
  // Reductions: how many threads share a kept index, how many neighbours of these a warp walks side by side, and in how many chunks.
  int64_t members = 1, width = 1;
  bool inRegisters = false;
  mlir::AffineExpr chunks, chunkLength; // null where nothing is cut
  int64_t mostChunks = 1;               // whatever the shape
};

/// A check of indices: one block, which reports the first bad element. `fault` is the fault's number, from 1.
void emitIndexCheck(dl::CheckIndexOp check, int64_t fault, mlir::OpBuilder &b, KernelAccess &access);

} // namespace dlc::cuda

#endif
