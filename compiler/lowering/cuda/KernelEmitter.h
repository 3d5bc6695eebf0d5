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
//   scatter  a warp has neighbouring elements of an update and a range of places; the indices that are its own it finds 32 at a time, by a ballot
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
  /// Launches, one after the other: two where a long reduction is cut into chunks, or where what updates change is copied first. Where the shape decides at run time, the
  /// first one of a reduction does it all if there is one chunk.
  unsigned launchCount() const { return chunks || copiesFirst ? 2 : 1; }
  /// What the first of two launches does.
  llvm::StringRef firstName() const { return copiesFirst ? "_copy" : "_chunks"; }
  /// Elements of f32 (or of what `elementType` is set to) that lie between the two launches; null for none.
  mlir::AffineExpr partialElements(mlir::Type &elementType) const;
  mlir::AffineExpr blocks(unsigned launch) const;
  /// What thread `access.thread()` of the kernel's block number `block` (an index value) does. `partials` is the buffer between the launches.
  void emit(unsigned launch, mlir::OpBuilder &b, KernelAccess &access, mlir::Value block, std::optional<int64_t> partials) const;

private:
  struct Walk;
  mlir::AffineExpr keptPoints() const;
  mlir::AffineExpr rowCount() const;
  mlir::AffineExpr unitsInRow() const;
  void emitLoop(mlir::OpBuilder &b, KernelAccess &access, ElementEmitter &elements, mlir::Value block, bool copies = false) const;
  void planLoop(llvm::ArrayRef<mlir::Operation *> ops);
  void planScatter();
  void emitScatter(mlir::OpBuilder &b, KernelAccess &access, ElementEmitter &elements, mlir::Value block) const;
  /// What is stored as a result: in the first of two launches of updates what they change.
  mlir::Value stored(unsigned result, bool copies) const;
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
  // Updates: in how many ranges the places are dealt out to warps, and whether what is changed lies elsewhere.
  mutable dl::ScatterOpInterface scatter;
  int64_t slotRanges = 1;
  bool copiesFirst = false;
};

/// The value that the lane of the warp whose number differs in `mask` has.
mlir::Value shuffle(mlir::OpBuilder &b, mlir::Location loc, mlir::Value value, int64_t mask);

/// The indices of row-major element number `number` of a shape.
llvm::SmallVector<mlir::Value> indicesOf(mlir::OpBuilder &b, mlir::Location loc, KernelAccess &access, llvm::ArrayRef<mlir::AffineExpr> shape, mlir::Value number);

/// A check of indices: one block, which reports the first bad element. `fault` is the fault's number, from 1.
void emitIndexCheck(dl::CheckIndexOp check, int64_t fault, mlir::OpBuilder &b, KernelAccess &access);

} // namespace dlc::cuda

#endif
