//===- Dl.h - the one header a user of the dl dialect includes -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#ifndef DIALECTS_DL_DL_H
#define DIALECTS_DL_DL_H

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/IR/RegionKindInterface.h"
#include "mlir/IR/SymbolTable.h"
#include "mlir/Interfaces/ControlFlowInterfaces.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include "mlir/Interfaces/InferTypeOpInterface.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include "dialects/dl/DlShapes.h"

namespace dlc::dl {
/// See DlBase.td.
template <typename ConcreteOp> struct RepeatedInConsumers : mlir::OpTrait::TraitBase<ConcreteOp, RepeatedInConsumers> {};

/// An i64 of ops that belong together: gradients compute them again where they need their values (--dl-differentiate), and then it goes.
inline constexpr llvm::StringLiteral checkpointAttrName = "dl.checkpoint";
/// Unit attribute of a function's results that are values of its messages (DlProgramOps.td).
inline constexpr llvm::StringLiteral logAttrName = "dl.log";

/// q, k, v and the mask (or null) of attention, and its settings.
struct AttentionOperands {
  mlir::Value q, k, v, mask;
  double scale;
  bool isCausal;
};
} // namespace dlc::dl

#include "dialects/dl/DlDialect.h.inc"
#include "dialects/dl/DlEnums.h.inc"
#include "dialects/dl/DlInterfaces.h.inc"
#define GET_OP_CLASSES
#include "dialects/dl/DlOps.h.inc"

#endif
