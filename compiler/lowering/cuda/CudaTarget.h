//===- CudaTarget.h - planned dl to kernels and a list of launches, for an NVIDIA GPU -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#ifndef DLC_COMPILER_LOWERING_CUDA_CUDATARGET_H
#define DLC_COMPILER_LOWERING_CUDA_CUDATARGET_H

#include "compiler/emit/ModelDescription.h"
#include "compiler/transforms/Passes.h"
#include "mlir/Dialect/ControlFlow/IR/ControlFlow.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

namespace dlc::cuda {

/// What computes products.
enum class GemmChoice {
  Auto,    // cuBLASLt where it is there and has the epilogue, our own engine otherwise
  Own,     // our own engine
  Cublaslt // cuBLASLt alone
};

struct CudaOptions {
  GemmChoice gemm = GemmChoice::Auto;
  bool tf32 = false; // products of f32 may round their factors to TF32; for sm_80 and later
};

/// The pass cuda-emit-kernels; fills in `description` (which must outlive it) for the runtime.
std::unique_ptr<mlir::Pass> createCudaEmitKernels(const CudaOptions &options, ModelDescription &description);

#define GEN_PASS_DECL
#include "compiler/lowering/cuda/Passes.h.inc"
#define GEN_PASS_REGISTRATION
#include "compiler/lowering/cuda/Passes.h.inc"

/// Kernels to the LLVM dialect, by MLIR's own conversions.
void buildLlvmPipeline(mlir::OpPassManager &passes);

} // namespace dlc::cuda

#endif
