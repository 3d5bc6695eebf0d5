//===- Registration.h - what there is: dialects and passes -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#ifndef DLC_COMPILER_REGISTRATION_H
#define DLC_COMPILER_REGISTRATION_H

namespace mlir {
class DialectRegistry;
}

namespace dlc {

/// The dialects that a compilation uses, and no others: starting is a matter of milliseconds.
void registerDialects(mlir::DialectRegistry &registry);

/// Passes and pipelines, by name, for dl-opt.
void registerDlPasses();

} // namespace dlc

#endif
