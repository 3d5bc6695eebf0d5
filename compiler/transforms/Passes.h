//===- Passes.h - passes from dl to dl -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#ifndef DLC_COMPILER_TRANSFORMS_PASSES_H
#define DLC_COMPILER_TRANSFORMS_PASSES_H

#include "dialects/dl/Dl.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Pass/Pass.h"

namespace dlc {

/// Memory that a target wants for a kernel beside its results.
struct Workspace {
  mlir::Type elementType;
  mlir::AffineExpr elements; ///< a size; null or 0 for none
  /// A second one, for panels: what the kernel packs of an operand that may stay.
  mlir::AffineExpr panelElements;
  /// For what that is written once: a loop around the kernel, then before its first turn; or the function, then when a variable has changed since a call. Null: in each run of the kernel.
  mlir::Operation *keeper = nullptr;
};
using WorkspaceOf = std::function<Workspace(dl::FusedOp)>;

#define GEN_PASS_DECL
#include "compiler/transforms/Passes.h.inc"

std::unique_ptr<mlir::Pass> createPlanMemory(WorkspaceOf workspace);

#define GEN_PASS_REGISTRATION
#include "compiler/transforms/Passes.h.inc"

} // namespace dlc

#endif
