//===- Language.h - the language front end -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Text to the dl dialect. Everything that is known while compiling is computed here: layers, lists,
// branches, sizes, training mode; calls are inlined. What comes out is one dl.model with its
// variables, one dl.func for each exported function and train step, and the function `__init` that
// gives every variable its initial value.
//
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_FRONTENDS_LANGUAGE_LANGUAGE_H
#define DLC_COMPILER_FRONTENDS_LANGUAGE_LANGUAGE_H

#include "Diagnostics.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OwningOpRef.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/Support/MemoryBuffer.h"

namespace dlc {

struct LanguageOptions {
  /// Where `import` looks after the importing file's folder and before the library.
  std::vector<std::string> includePaths;
  /// -D NAME=VALUE: parameters of the model; a value is the text of an expression.
  llvm::StringMap<std::string> defines;
  /// --float=f64: `f32` in the program means f64.
  bool f64 = false;
  /// Which model, when the file has several.
  std::string model;
  /// Name of a function whose derivatives are exported beside it: `__grad_<name>` has its
  /// arguments; its results are the function's first and the derivative of that with respect to
  /// every trained variable that it depends on.
  std::string checkGradOf;
  /// Receives the files that were read, the main file first (for -MD). The embedded library is not
  /// among them.
  std::vector<std::string> *dependencies = nullptr;
};

/// Reads, checks and elaborates a program; returns null after reporting errors to \p diagnostics.
mlir::OwningOpRef<mlir::ModuleOp> compileLanguage(mlir::MLIRContext &context,
                                                  llvm::SourceMgr &sources, const std::string &file,
                                                  const LanguageOptions &options,
                                                  Diagnostics &diagnostics);

/// The same of a text in memory, which is named as its buffer and imports from the current folder.
mlir::OwningOpRef<mlir::ModuleOp> compileLanguage(mlir::MLIRContext &context,
                                                  llvm::SourceMgr &sources,
                                                  std::unique_ptr<llvm::MemoryBuffer> text,
                                                  const LanguageOptions &options,
                                                  Diagnostics &diagnostics);

} // namespace dlc

#endif // DLC_COMPILER_FRONTENDS_LANGUAGE_LANGUAGE_H
