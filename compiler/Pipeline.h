//===- Pipeline.h - the compiler on one page -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#ifndef DLC_COMPILER_PIPELINE_H
#define DLC_COMPILER_PIPELINE_H

#include "compiler/Compile.h"
#include "compiler/emit/ModelDescription.h"
#include "compiler/emit/Target.h"
#include "compiler/lowering/cuda/CudaTarget.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OwningOpRef.h"
#include "mlir/Support/Timing.h"

namespace dlc {

struct PipelineOptions {
  Target target;
  unsigned optLevel = 2;
  /// Whether functions get code for the CPU. The one that draws initial values always does.
  bool cpu = true;
  /// How functions are compiled for a GPU, if they are.
  std::optional<cuda::CudaOptions> cuda;
  /// Passes after which to print to stderr, by their names; "all" for each.
  std::vector<std::string> printIrAfter;
  mlir::TimingScope *timing = nullptr;
  /// Called at each stage with the program as it is then, once for each target from the plan on; returns whether to go on.
  std::function<bool(Stage, mlir::ModuleOp)> atStage;
};

/// From dl as a front end makes it to the LLVM dialect; fills in the description, all but what emission knows. The GPU's kernels, if there are any, become a module of their own, `kernels`.
/// Errors go to the context's handler. Stops early, and succeeds, where atStage says so.
mlir::LogicalResult lowerToLlvm(mlir::ModuleOp module, const PipelineOptions &options, ModelDescription &description, mlir::OwningOpRef<mlir::ModuleOp> *kernels = nullptr);

} // namespace dlc

#endif
