//===- StridedView.h - tensors that lie with strides in memory -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#ifndef DLC_COMPILER_LOWERING_STRIDEDVIEW_H
#define DLC_COMPILER_LOWERING_STRIDEDVIEW_H

#include "dialects/dl/Dl.h"

namespace dlc {

/// Elements that lie in `memory` from `begin` on, with a stride for each axis: index values, in elements.
struct StridedView {
  mlir::Value memory, begin;
  llvm::SmallVector<mlir::Value> strides;

  /// Where an element lies; axes for which no index is given have 0.
  mlir::Value at(mlir::OpBuilder &b, mlir::Location loc, llvm::ArrayRef<mlir::Value> indices) const;
};

using SizeOf = llvm::function_ref<mlir::Value(mlir::AffineExpr)>;
using BufferOf = llvm::function_ref<mlir::Value(int64_t number, mlir::Type element)>;
/// An operand of a planned kernel by itself that reads strides (KernelOpInterface::readsStrides): an argument of the kernel's body, seen through the ops that move it.
StridedView viewOfOperand(mlir::OpBuilder &b, mlir::Location loc, dl::FusedOp kernel, mlir::Value operand, BufferOf buffer, SizeOf size);
/// A result of a planned kernel, which lies row by row.
StridedView viewOfResult(mlir::OpBuilder &b, mlir::Location loc, dl::FusedOp kernel, unsigned number, BufferOf buffer, SizeOf size);

} // namespace dlc

#endif
