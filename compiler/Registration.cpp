//===- Registration.cpp - what there is: dialects and passes -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/Registration.h"
#include "compiler/lowering/cpu/CpuTarget.h"
#include "compiler/lowering/cuda/CudaTarget.h"
#include "compiler/transforms/Passes.h"
#include "dialects/dl/Dl.h"
#include "mlir/Conversion/ArithToLLVM/ArithToLLVM.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/ControlFlow/IR/ControlFlow.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/Pass/PassRegistry.h"
#include "llvm/Support/TargetSelect.h"

using namespace mlir;

namespace dlc {

void registerDialects(DialectRegistry &registry) {
  registry.insert<dl::DlDialect, arith::ArithDialect, cf::ControlFlowDialect, func::FuncDialect, LLVM::LLVMDialect, math::MathDialect, memref::MemRefDialect, NVVM::NVVMDialect,
                  scf::SCFDialect, vector::VectorDialect>();
}

void registerDlPasses() {
  // For passes that are told a processor by its name.
  LLVMInitializeX86TargetInfo();
  LLVMInitializeX86TargetMC();
  registerDlTransformsPasses();
  cpu::registerDlCpuPasses();
  cuda::registerDlCudaPasses();
  PassPipelineRegistration<>("cpu-to-llvm", "Kernels of the CPU target to the LLVM dialect", cpu::buildLlvmPipeline);
  PassPipelineRegistration<>("cuda-to-llvm", "Kernels of the CUDA target to the LLVM dialect", cuda::buildLlvmPipeline);
}

} // namespace dlc
