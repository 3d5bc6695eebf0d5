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
  mlir::AffineExpr elements; ///< a size; null or 0 for none
  mlir::Type elementType;
  dl::ForOp writtenBefore; ///< a loop around the kernel before which a part of it is written, for all turns; null: nothing stays from turn to turn
};
using WorkspaceOf = std::function<Workspace(dl::FusedOp)>;

#define GEN_PASS_DECL
#include "compiler/transforms/Passes.h.inc"

std::unique_ptr<mlir::Pass> createPlanMemory(WorkspaceOf workspace);

#define GEN_PASS_REGISTRATION
#include "compiler/transforms/Passes.h.inc"

} // namespace dlc

#endif
