//===- Pointwise.h - convolutions of 1x1 as products of matrices -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A convolution whose kernel is one place, without zeros around, multiplies each image, as a matrix of channels by positions, with one matrix of weights: output[n] = W @ input[n]; where it has no
// strides its gradient is input[n] = W' @ output[n]. So it is Gemm.h's, which packs what it reads of an image. What strides leave of the images is copied first. The bits are those of Convolution.h.

#ifndef DLC_COMPILER_LOWERING_CPU_POINTWISE_H
#define DLC_COMPILER_LOWERING_CPU_POINTWISE_H

#include "compiler/lowering/cpu/Convolution.h"
#include "compiler/lowering/cpu/Gemm.h"
#include <optional>

namespace dlc::cpu {

class Pointwise {
public:
  /// The engine for a convolution that it can compute and that it pays for. Vectors of the epilogue must be allowed to cross the rows of an image.
  static std::optional<Pointwise> of(dl::ConvolutionOp op, const CpuInfo &cpu, bool isFixed);

  /// The product's, and the copy, if there are strides, behind those that run once.
  unsigned launchCount() const { return isStrided() + gemm.launchCount(); }
  unsigned launchesOnce() const { return gemm.launchesOnce(); }
  mlir::AffineExpr workspaceElements(mlir::AffineExpr images) const;
  mlir::AffineExpr panelElements(mlir::AffineExpr images) const;
  int64_t tableElements() const { return 0; }
  int64_t scratchElements() const { return gemm.scratchBytes() / (shape.type.getIntOrFloatBitWidth() / 8); }
  /// Number of tasks of a launch, an index value.
  mlir::Value tasks(unsigned launch, mlir::OpBuilder &b, mlir::Location loc, mlir::Value images) const;
  unsigned tasksTogether() const { return gemm.tasksTogether(); }
  /// Emits tasks begin to end - 1 (index values) of a launch. The epilogue is handed positions across the rows of an image.
  void emit(unsigned launch, mlir::OpBuilder &b, mlir::Location loc, const ConvolutionOperands &operands, mlir::Value begin, mlir::Value end, bool acrossRows, ConvolutionEpilogue epilogue) const;

  /// The schedule in words, for tests: "pointwise 6x16 tile 36x128 k 64 lhs direct rhs by task".
  std::string describe() const { return (isStrided() ? "strided pointwise " : "pointwise ") + gemm.describe(); }

private:
  Pointwise(dl::ConvolutionOp op, const CpuInfo &cpu, const GemmShape &shape);
  bool isStrided() const;
  bool isCopy(unsigned launch) const { return isStrided() && launch == launchesOnce(); }
  /// Which of the product's launches another one is.
  unsigned ofProduct(unsigned launch) const { return launch - (isStrided() && launch > launchesOnce()); }
  /// The matrices' sizes and how they follow each other.
  GemmOperands matrices(mlir::OpBuilder &b, mlir::Location loc, mlir::Value images) const;
  /// Elements of the product's own workspace, in whole lines: the images that are copied lie behind it.
  int64_t productElements() const;
  void copy(mlir::OpBuilder &b, mlir::Location loc, const ConvolutionOperands &operands, mlir::Value begin, mlir::Value end) const;

  CpuInfo cpu;
  GemmShape shape;
  Gemm gemm;
  llvm::SmallVector<int64_t> source, target, strides; // of the image that is read: sizes, positions that are, how far apart they are
};

} // namespace dlc::cpu

#endif
