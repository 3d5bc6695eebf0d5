//===- Passes.td - passes of the CUDA target -*- tablegen -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#ifndef DLC_LOWERING_CUDA_PASSES
#define DLC_LOWERING_CUDA_PASSES

include "mlir/Pass/PassBase.td"

def CudaEmitKernels : Pass<"cuda-emit-kernels", "::mlir::ModuleOp"> {
  let summary = "Planned dl to CUDA kernels: one function for each, and a list of launches";
  let description = [{
    Replaces the model by functions with the attribute `threads` (of a block), in the scf, vector, arith, memref and nvvm dialects. Elements of fused bodies come from the ops'
    interfaces (ElementEmitter.h), threads from the kernel's schedule (KernelEmitter.h), products from cuBLASLt (Products.h) or the engine (Gemm.h). Which kernel is
    launched when, over which grid and with which parameters is data: the description. Kernels that say the same are one.
    Examples: test/lowering/cuda.
  }];
  let options = [Option<"gemm", "gemm", "std::string", "\"auto\"", "what computes products: auto, own or cublaslt">,
                 Option<"tf32", "tf32", "bool", "false", "products of f32 may round their factors to TF32">,
                 Option<"launches", "print-launches", "bool", "false", "print the list of launches to stderr">];
  let statistics = [Statistic<"kernels", "kernels", "kernels, each counted once">, Statistic<"products", "products", "products for cuBLASLt">];
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::cf::ControlFlowDialect", "::mlir::func::FuncDialect", "::mlir::LLVM::LLVMDialect", "::mlir::NVVM::NVVMDialect",
                           "::mlir::math::MathDialect", "::mlir::memref::MemRefDialect", "::mlir::scf::SCFDialect", "::mlir::vector::VectorDialect"];
}

def CudaExpandRemainder : Pass<"cuda-expand-remainder", "::mlir::ModuleOp"> {
  let summary = "The remainder of floats as integer arithmetic, exactly";
  let description = [{ What fmod of libm is on the CPU. Example: test/lowering/cuda/remainder.mlir. }];
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::math::MathDialect", "::mlir::scf::SCFDialect", "::mlir::vector::VectorDialect"];
}

def CudaMarkKernels : Pass<"cuda-mark-kernels", "::mlir::ModuleOp"> {
  let summary = "Functions with the attribute `threads` become kernels for LLVM";
  let description = [{ nvvm.kernel and the launch bounds may only stand on functions of the LLVM dialect: they are set when everything else is lowered. Locations become file names without folders. }];
  let dependentDialects = ["::mlir::LLVM::LLVMDialect", "::mlir::NVVM::NVVMDialect"];
}

#endif
