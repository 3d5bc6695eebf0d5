//===- Convolution.h - convolutions as products through windows -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A convolution is a product of which one factor lies nowhere: its element is an element of a tensor that a window reaches, or 0 beyond the tensor's ends. The engine of
// products (Gemm.h) asks for panels of that factor when it wants them, and they are read through the windows then; the other factor is read where it lies. Which tensor is what, for each of n
// images and g groups, with o and c the channels of a group, p, i and k the elements of an output's, input's or kernel's image:
//
//   computed   rows   columns   steps   added up over   through windows   where it lies
//   output     o      p         c, k    -               input             weight
//   input      c      i         o       k               output            weight
//   weight     o      c, k      p       n               input             output
//
// Columns that are positions are counted with rows of the image filled up to whole vectors, so that a vector never goes from one row to the next.

#ifndef DLC_COMPILER_LOWERING_CPU_CONVOLUTION_H
#define DLC_COMPILER_LOWERING_CPU_CONVOLUTION_H

#include "compiler/lowering/ElementEmitter.h"
#include "compiler/lowering/cpu/CpuInfo.h"
#include "compiler/lowering/cpu/Gemm.h"

namespace dlc::cpu {

class Convolution {
public:
  /// All sizes but the number of images must be static.
  Convolution(dl::ConvolutionOp op, const CpuInfo &cpu);

  GemmShape shape() const;
  /// What the product reads: `lhs` and `rhs` are the op's operands as memref<?xT>, `images` how many images there are (an index).
  GemmOperands operands(mlir::OpBuilder &b, mlir::Location loc, mlir::Value lhs, mlir::Value rhs, mlir::Value images) const;
  /// Are the engine's vectors neighbours in memory only, which may lie in several rows of the result?
  bool crossesRows() const { return kind == dl::ConvolutionResult::weight; }
  /// Where in the result a vector of the engine's lies; by its row-major number alone where it may cross rows. `mask` is narrowed to the lanes that exist there.
  ElementIndex resultIndex(mlir::OpBuilder &b, mlir::Location loc, mlir::ValueRange batchRowCol, mlir::Value &mask) const;
  /// The indices of one element of a vector that may cross rows.
  ElementIndex resultIndexOfLane(mlir::OpBuilder &b, mlir::Location loc, mlir::ValueRange batchRowCol, mlir::Value lane) const;

private:
  using Sizes = llvm::SmallVector<int64_t>;
  struct Emitter;
  bool isWeight() const { return kind == dl::ConvolutionResult::weight; }
  /// The sizes of an image of the tensor that is read through windows, and of the one of the columns.
  const Sizes &source() const { return kind == dl::ConvolutionResult::input ? p : i; }
  const Sizes &positions() const { return kind == dl::ConvolutionResult::input ? i : p; }
  int64_t paddedRow() const;

  dl::ConvolutionResult kind;
  mlir::FloatType element;
  int64_t lanes;
  int64_t images; // ShapedType::kDynamic if it is left to the call
  int64_t groups, o, c;
  Sizes p, i, k, strides, paddings, dilations;
};

} // namespace dlc::cpu

#endif
