//===- KernelWork.h - how much a kernel computes and moves -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a roofline is made of. It is what the program asks for, not what a target's schedule does: operands that are packed, partial sums and what is computed twice don't count.

#ifndef DLC_COMPILER_LOWERING_KERNELWORK_H
#define DLC_COMPILER_LOWERING_KERNELWORK_H

#include "compiler/emit/ModelDescription.h"
#include "dialects/dl/Dl.h"

namespace dlc {

/// Of the kernels and checks that share a launch, together. None where one of them is the user's own code.
///
/// Operations are those on floating-point numbers: a multiply-add is two, an elementary function one, comparing and choosing none. Bytes are those of each operand once and each result once; of an operand
/// that is only looked up in places (a slice, a gather), of no more elements than there are places.
std::optional<WorkDescription> workOf(llvm::ArrayRef<mlir::Operation *> nodes);

/// Elementary functions (an exponential, a tanh, …) that a kernel computes for each element. They take most of its time where there are some.
int64_t elementaryFunctions(dl::FusedOp kernel);

} // namespace dlc

#endif
