//===- VectorMath.h - elementary functions as branch-free vector code -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// The elementary functions of the dl dialect, built from arith, math.fma, math.absf, math.copysign
// and math.sqrt only: no branch, no table, no call to libm, no fast-math flag. Operands are f32 or
// f64, scalars or vectors of them; the result has the operand's type. Every operation works lane by
// lane and rounds to nearest, so the bits do not depend on the vector's length, the CPU or the
// level of optimisation.
//
// Accuracy: docs/math.md has the measured bound of every function (f32: of all 2^32 inputs). All
// are right at +-0, +-inf, NaN and for subnormal operands and results. One limit: the f64 sin and
// cos give NaN for |x| >= 2^45; the f32 ones are right everywhere. Subnormal numbers need MXCSR.DAZ
// and FTZ off, which the runtime takes care of.
//
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_LOWERING_CPU_VECTORMATH_H
#define DLC_COMPILER_LOWERING_CPU_VECTORMATH_H

#include "mlir/IR/Builders.h"
#include "mlir/IR/Value.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"
#include <optional>

namespace dlc::vecmath {

mlir::Value emitExp(mlir::OpBuilder &b, mlir::Location loc, mlir::Value x);
mlir::Value emitExpm1(mlir::OpBuilder &b, mlir::Location loc, mlir::Value x);
mlir::Value emitLog(mlir::OpBuilder &b, mlir::Location loc, mlir::Value x);
mlir::Value emitLog1p(mlir::OpBuilder &b, mlir::Location loc, mlir::Value x);
mlir::Value emitTanh(mlir::OpBuilder &b, mlir::Location loc, mlir::Value x);
mlir::Value emitErf(mlir::OpBuilder &b, mlir::Location loc, mlir::Value x);
mlir::Value emitSin(mlir::OpBuilder &b, mlir::Location loc, mlir::Value x);
mlir::Value emitCos(mlir::OpBuilder &b, mlir::Location loc, mlir::Value x);

/// 1 / (1 + exp(-x)) without overflow; the result goes down to the subnormal numbers.
mlir::Value emitSigmoid(mlir::OpBuilder &b, mlir::Location loc, mlir::Value x);

/// log(1 + exp(x)) without overflow.
mlir::Value emitSoftplus(mlir::OpBuilder &b, mlir::Location loc, mlir::Value x);

/// The square root, rounded correctly.
mlir::Value emitSqrt(mlir::OpBuilder &b, mlir::Location loc, mlir::Value x);

/// 1 / sqrt(x) by a division: two roundings, never the approximate instruction.
mlir::Value emitRsqrt(mlir::OpBuilder &b, mlir::Location loc, mlir::Value x);

/// x to the power y; the corners are those of C99 (pow(x, 0) = 1 and pow(1, y) = 1 even for NaN).
mlir::Value emitPow(mlir::OpBuilder &b, mlir::Location loc, mlir::Value x, mlir::Value y);

/// A function by its name in the dl dialect.
struct MathOp {
  llvm::StringLiteral name;
  unsigned numOperands;
  mlir::Value (*emit)(mlir::OpBuilder &b, mlir::Location loc, mlir::ValueRange operands);
};

/// All functions above, one row each.
llvm::ArrayRef<MathOp> getMathOps();

/// Emits the function called `name` (exp, expm1, log, log1p, tanh, erf, sin, cos, sigmoid,
/// softplus, sqrt, rsqrt, pow). Nothing is emitted if there is no such function, or none with so
/// many operands of this type.
std::optional<mlir::Value> emitMathOp(mlir::OpBuilder &b, mlir::Location loc, llvm::StringRef name,
                                      mlir::ValueRange operands);

} // namespace dlc::vecmath

#endif // DLC_COMPILER_LOWERING_CPU_VECTORMATH_H
