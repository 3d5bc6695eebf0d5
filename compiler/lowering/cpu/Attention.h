//===- Attention.h - attention without scores in memory -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// dl.attention and dl.attention_gradient on the CPU, block by block of keys (Dao, "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning", 2023). Scores live in the scratch memory
// of a thread, for a few rows and a block of keys at a time; products are the engine's micro-kernel on panels that are packed there.
//
// A task of attention is some rows of a head, one of the gradient a head. What an element's bits are depends on the shape alone: blocks of keys begin at multiples of a number that the type and the heads' width
// decide, and of the rows that a causal head looks at, units of a fixed size are cut off together.

#ifndef DLC_COMPILER_LOWERING_CPU_ATTENTION_H
#define DLC_COMPILER_LOWERING_CPU_ATTENTION_H

#include "compiler/lowering/cpu/CpuInfo.h"
#include "compiler/lowering/cpu/Gemm.h"
#include "dialects/dl/Dl.h"
#include <optional>

namespace dlc::cpu {

class FrameAccess;

class Attention {
public:
  /// The kernel, if it is one of the two.
  static std::optional<Attention> of(dl::FusedOp kernel, const CpuInfo &cpu);

  /// Bytes of scratch that each thread needs of its own.
  int64_t scratchBytes() const;
  mlir::AffineExpr tasks() const;
  /// Tasks begin to end - 1 (index values). `scratch` is a pointer, aligned to 64 bytes.
  void emit(mlir::OpBuilder &b, FrameAccess &frame, mlir::Value begin, mlir::Value end, mlir::Value scratch) const;

private:
  Attention(dl::FusedOp kernel, mlir::Operation *op, const dl::AttentionOperands &operands, const CpuInfo &cpu);
  struct Emitter;

  mutable dl::FusedOp kernel;
  mlir::Operation *op;
  dl::AttentionOperands operands;
  CpuInfo cpu;
  mlir::FloatType element;
  int64_t width, valueWidth; // of a head: of q and k, of v
  Gemm engine;
  int64_t keysPerBlock;
  int64_t rowsPerTask; // of attention
};

} // namespace dlc::cpu

#endif
