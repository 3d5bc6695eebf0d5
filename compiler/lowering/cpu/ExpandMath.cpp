//===- ExpandMath.cpp - functions of the math dialect as polynomials -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Whatever VectorMath has a function for is replaced; the rest (fma, sqrt, abs, floor, roundeven) is an instruction.

#include "compiler/lowering/cpu/CpuTarget.h"
#include "compiler/lowering/cpu/VectorMath.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

using namespace mlir;

namespace dlc::cpu {
#define GEN_PASS_DEF_CPUEXPANDMATH
#include "compiler/lowering/cpu/Passes.h.inc"

namespace {
struct ExpandMath : impl::CpuExpandMathBase<ExpandMath> {
  void runOnOperation() override {
    getOperation().walk([&](Operation *op) {
      if (!isa_and_nonnull<math::MathDialect>(op->getDialect()))
        return;
      StringRef name = op->getName().stripDialect();
      if (name == "sqrt")
        return; // one instruction, rounded correctly
      OpBuilder b(op);
      if (std::optional<Value> value = vecmath::emitMathOp(b, op->getLoc(), name == "powf" ? "pow" : name, op->getOperands())) {
        op->getResult(0).replaceAllUsesWith(*value);
        op->erase();
        ++expanded;
      }
    });
  }
};
} // namespace
} // namespace dlc::cpu
