//===- ElementCost.h - what computing an element takes -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Found by building the element (ElementwiseOpInterface::buildElement and its like) and looking at what it is made of, so that no list of ops says it a second time.

#ifndef DLC_COMPILER_TRANSFORMS_ELEMENTCOST_H
#define DLC_COMPILER_TRANSFORMS_ELEMENTCOST_H

#include "dialects/dl/Dl.h"

namespace dlc {

/// Sums up `count` over what `build` makes of elements of these types.
int64_t countMade(mlir::Operation *op, llvm::ArrayRef<mlir::Type> types, llvm::function_ref<void(mlir::OpBuilder &, mlir::ValueRange)> build, llvm::function_ref<int64_t(mlir::Operation &)> count);
/// Over what an element of the op's result is made of.
int64_t countMade(dl::ElementwiseOpInterface op, llvm::function_ref<int64_t(mlir::Operation &)> count);

/// Operations on floating-point numbers that an instruction stands for: a multiply-add is two, comparing and choosing none.
int64_t floatOperations(mlir::Operation &made);
/// Elementary functions (an exponential, a tanh, …), no instructions of a processor, that an element of the op's result takes.
int64_t elementaryFunctions(dl::ElementwiseOpInterface op);

} // namespace dlc

#endif
