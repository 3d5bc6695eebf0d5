//===- Attention.h - attention without scores in memory, on a GPU -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// dl.attention is one launch, dl.attention_gradient two: one for q, one for k and v. A block owns a tile of rows of a head (of q; in the last launch of k and v), which it keeps in shared memory, and goes through the
// tiles of the other side (Dao, "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning", 2023). So what is owned is read once and written once, the other side once for each tile
// of owners, and no score leaves the multiprocessor. Nobody else adds to what a block owns: sums have one order.

#ifndef DLC_COMPILER_LOWERING_CUDA_ATTENTION_H
#define DLC_COMPILER_LOWERING_CUDA_ATTENTION_H

#include "compiler/lowering/cuda/KernelAccess.h"
#include <optional>

namespace dlc::cuda {

class Attention {
public:
  /// The kernel, if it is one of the two.
  static std::optional<Attention> of(dl::FusedOp kernel);

  unsigned launchCount() const { return llvm::isa<dl::AttentionOp>(op) ? 1 : 2; }
  static constexpr int64_t threads = 256;
  mlir::AffineExpr blocks(unsigned launch) const;
  void emit(unsigned launch, mlir::OpBuilder &b, KernelAccess &access) const;

private:
  Attention(dl::FusedOp kernel, mlir::Operation *op, const dl::AttentionOperands &operands);
  struct Emitter;

  mutable dl::FusedOp kernel;
  mlir::Operation *op;
  dl::AttentionOperands operands;
  mlir::FloatType element;
  int64_t width, valueWidth; // of a head: of q and k, of v
  int64_t tile;              // rows or keys
};

} // namespace dlc::cuda

#endif
