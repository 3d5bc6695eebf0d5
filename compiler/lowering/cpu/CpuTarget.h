//===- CpuTarget.h - planned dl to LLVM, for a CPU -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#ifndef DLC_COMPILER_LOWERING_CPU_CPUTARGET_H
#define DLC_COMPILER_LOWERING_CPU_CPUTARGET_H

#include "compiler/emit/ModelDescription.h"
#include "compiler/lowering/cpu/CpuInfo.h"
#include "compiler/transforms/Passes.h"
#include "mlir/Dialect/ControlFlow/IR/ControlFlow.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

namespace dlc::cpu {

/// What plan-memory asks: the workspace of a product.
WorkspaceOf workspaceOf(const CpuInfo &cpu);

/// The pass cpu-emit-kernels for a known processor; fills in `description` (which must outlive it) for the runtime.
std::unique_ptr<mlir::Pass> createCpuEmitKernels(const CpuInfo &cpu, ModelDescription &description);

#define GEN_PASS_DECL
#include "compiler/lowering/cpu/Passes.h.inc"
#define GEN_PASS_REGISTRATION
#include "compiler/lowering/cpu/Passes.h.inc"

/// Kernels to the LLVM dialect, by MLIR's own conversions.
void buildLlvmPipeline(mlir::OpPassManager &passes);

} // namespace dlc::cpu

#endif
