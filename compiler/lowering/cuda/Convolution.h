//===- Convolution.h - convolutions as products of the GPU's engine -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A convolution as a product (Gemm.h) whose factors are read through windows on their way to shared memory: "implicit GEMM". Nothing is copied before, and a block's tile goes across images, so
// small ones fill it too. For each of the groups, with o and c the channels of a group, n the images, p, i and k the elements of an output's, input's or kernel's image:
//
//   computed   rows   columns   steps   A        B
//   output     o      n, p      c, k    weight   input, through windows
//   input      c      n, i      o, k    weight   output, through windows
//   weight     o      c, k      n, p    output   input, through windows
//
// An index of the image that windows move over is p * stride + k * dilation - padding, or, of the output's, (i + padding - k * dilation) / stride where that is whole.

#ifndef DLC_COMPILER_LOWERING_CUDA_CONVOLUTION_H
#define DLC_COMPILER_LOWERING_CUDA_CONVOLUTION_H

#include "compiler/lowering/ElementEmitter.h"
#include "compiler/lowering/cuda/Gemm.h"

namespace dlc::cuda {

class Convolution {
public:
  /// All sizes but the number of images must be static. `isFlat`: the epilogue needs to know of an element only its row-major number.
  Convolution(dl::ConvolutionOp op, bool isFlat);

  GemmShape shape() const;
  /// What the product reads; `lhs` and `rhs` are the op's operands as memref<?xT>.
  void setFactors(mlir::OpBuilder &b, mlir::Location loc, GemmOperands &operands, mlir::Value lhs, mlir::Value rhs) const;
  /// Where in the result a piece of the epilogue begins.
  ElementIndex resultIndex(mlir::OpBuilder &b, mlir::Location loc, mlir::ValueRange batchRowCol) const;

private:
  using Sizes = llvm::SmallVector<int64_t>;
  struct Emitter;
  bool isWeight() const { return kind == dl::ConvolutionResult::weight; }
  /// The sizes of an image of the tensor that is read through windows, and of the one of the columns (of a weight: of the steps).
  const Sizes &source() const { return kind == dl::ConvolutionResult::input ? p : i; }
  const Sizes &positions() const { return kind == dl::ConvolutionResult::input ? i : p; }
  /// Is an element of the columns' image always the same element of the source's?
  bool isPointwise() const;
  GemmElements windowsOfPositions() const, windowsOfKernels() const, weightOfInput() const, outputOfWeight() const;

  dl::ConvolutionResult kind;
  bool isFlat;
  mlir::FloatType element;
  mlir::AffineExpr images;
  int64_t groups, o, c;
  Sizes p, i, k, strides, paddings, dilations;
};

} // namespace dlc::cuda

#endif
