//===- ExternWrapper.h - how generated code reaches C++ of the user's own -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A wrapper has a name and a signature that generated code knows; what it calls is found by C++ itself, which chooses among overloads and templates. It takes pointers to the operands, pointers to
// the results, and those sizes that are not constant; the constant ones are literals in it, so that they specialise what it calls.

#ifndef DLC_COMPILER_LOWERING_EXTERNWRAPPER_H
#define DLC_COMPILER_LOWERING_EXTERNWRAPPER_H

#include "compiler/emit/ModelDescription.h"
#include "dialects/dl/Dl.h"

namespace dlc {

/// The extern function that a kernel consists of, or null.
dl::ExternOp externOf(dl::FusedOp kernel);

/// The kernel's input that an operand of its extern function is, under whatever shape.
unsigned inputOfOperand(mlir::Value operand);

/// The sizes that are handed over, in order.
llvm::SmallVector<mlir::AffineExpr> passedSizes(dl::ExternOp op);

/// The wrapper of a call on the CPU, added to the description where there is none like it; its symbol. Fails where the function has no file for the CPU.
mlir::FailureOr<std::string> wrapForCpu(dl::ExternOp op, ModelDescription &description);

/// The same on a GPU. A `guarded` one takes the call's fault after the results, and does nothing where one was found.
mlir::FailureOr<std::string> wrapForCuda(dl::ExternOp op, bool guarded, ModelDescription &description);

} // namespace dlc

#endif
