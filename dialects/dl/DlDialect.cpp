//===- DlDialect.cpp - registration -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "dialects/dl/Dl.h"

#include "dialects/dl/DlDialect.cpp.inc"
#include "dialects/dl/DlEnums.cpp.inc"
#include "dialects/dl/DlInterfaces.cpp.inc"

void dlc::dl::DlDialect::initialize() {
  addOperations<
#define GET_OP_LIST
#include "dialects/dl/DlOps.cpp.inc"
      >();
}

mlir::Operation *dlc::dl::DlDialect::materializeConstant(mlir::OpBuilder &b, mlir::Attribute value, mlir::Type type, mlir::Location loc) {
  auto number = llvm::dyn_cast<mlir::TypedAttr>(value);
  return number ? FillOp::create(b, loc, type, number).getOperation() : nullptr;
}
