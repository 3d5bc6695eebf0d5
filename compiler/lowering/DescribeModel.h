//===- DescribeModel.h - what the runtime is told about a planned model -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What every target tells the runtime alike: variables, signatures, conditions on sizes, buffers of a plan, faults. Kernels and launches are the target's own.

#ifndef DLC_COMPILER_LOWERING_DESCRIBEMODEL_H
#define DLC_COMPILER_LOWERING_DESCRIBEMODEL_H

#include "compiler/emit/ModelDescription.h"
#include "dialects/dl/Dl.h"

namespace dlc {

/// Name, dimensions and variables of the model. Fails where an element type has no place in the ABI.
mlir::LogicalResult describeVariables(dl::ModelOp model, ModelDescription &description);

/// Name, arguments, results and conditions of a function.
mlir::LogicalResult describeFunction(dl::FuncOp function, FunctionDescription &to);

/// The buffers of a planned function. Bytes of its constants are appended to the model's.
mlir::LogicalResult describeBuffers(dl::FuncOp function, ModelDescription &description, std::vector<BufferDescription> &to);

/// The function of that name, or a new one: each target fills in its part of it.
FunctionDescription &findFunction(llvm::StringRef name, ModelDescription &description);

/// What a failed check says, added where it is new; its number, from 1.
int64_t describeFault(dl::CheckIndexOp check, ModelDescription &description);

/// "file:line" of the program's text, or "".
std::string locationText(mlir::Location loc);

} // namespace dlc

#endif
