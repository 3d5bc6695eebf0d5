//===- Passes.td - passes of the CPU target -*- tablegen -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#ifndef DLC_LOWERING_CPU_PASSES
#define DLC_LOWERING_CPU_PASSES

include "mlir/Pass/PassBase.td"

def CpuEmitKernels : Pass<"cpu-emit-kernels", "::mlir::ModuleOp"> {
  let summary = "Planned dl to loops, vectors and products: one function for each kernel and each entry";
  let description = [{
    Replaces the model by functions in the scf, vector, arith and memref dialects: an entry for each function of the model, a kernel for each launch. Elements of fused
    bodies come from the ops' interfaces (ElementEmitter.h), loops from the kernel's schedule (KernelEmitter.h), products from the engine (Gemm.h).
    Example: test/lowering/cpu/emit-kernels.mlir.
  }];
  let options = [Option<"cpu", "cpu", "std::string", "\"x86-64-v3\"", "the processor, by LLVM's name; the driver passes its own choice">];
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::cf::ControlFlowDialect", "::mlir::func::FuncDialect", "::mlir::LLVM::LLVMDialect",
                           "::mlir::math::MathDialect", "::mlir::memref::MemRefDialect", "::mlir::scf::SCFDialect", "::mlir::vector::VectorDialect"];
}

def CpuExpandMath : Pass<"cpu-expand-math", "::mlir::ModuleOp"> {
  let summary = "Functions of the math dialect as polynomials";
  let description = [{
    Whatever VectorMath.h has a function for (exp, log, tanh, erf, …) is replaced, on numbers and vectors alike; the rest (fma, sqrt, abs, floor, roundeven) is an instruction.
    Nothing calls libm in a loop. Example: test/lowering/cpu/expand-math.mlir.
  }];
  let statistics = [Statistic<"expanded", "expanded", "functions expanded">];
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::vector::VectorDialect"];
}

#endif
