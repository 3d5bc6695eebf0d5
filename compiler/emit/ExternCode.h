//===- ExternCode.h - compiles C++ of the user's own -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Each file is compiled with the wrappers of its functions behind its text (ExternWrapper). What
// its compiler says is reported at the file's own line, with a note at the declaration in the
// program; that a file has no such function, at the declaration.
//
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_EMIT_EXTERNCODE_H
#define DLC_COMPILER_EMIT_EXTERNCODE_H

#include "LinkModel.h"
#include "ModelDescription.h"
#include "Target.h"
#include "mlir/IR/MLIRContext.h"
#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/Support/LogicalResult.h"
#include <map>

namespace dlc {

class ExternCode {
public:
  /// \p read: the text of a file, by its path. Errors go to the context's handler.
  ExternCode(const ModelDescription &model, mlir::MLIRContext &context,
             llvm::function_ref<llvm::StringRef(llvm::StringRef path)> read)
      : model(model), context(context), read(read) {}

  /// Objects that define the wrappers for the CPU, one for each file.
  llvm::FailureOr<std::vector<Bytes>> compileForCpu(const Target &target);
  std::vector<llvm::StringRef> cpuSymbols() const;

  bool hasCuda() const;
  /// \p ptx, the kernels of dlc's own, and the wrappers' as one module for an architecture.
  llvm::FailureOr<std::string> joinCuda(llvm::StringRef ptx, uint32_t arch);

private:
  /// The wrappers of one file, and the text to compile.
  struct Unit {
    llvm::StringRef path;
    std::vector<const ExternWrapper *> wrappers;
    std::string text;
  };
  std::vector<Unit> units(bool isCuda) const;
  void report(const Unit &unit, llvm::ArrayRef<struct CompilerMessage> messages) const;
  mlir::Location declarationOf(const ExternWrapper &wrapper) const;

  const ModelDescription &model;
  mlir::MLIRContext &context;
  llvm::function_ref<llvm::StringRef(llvm::StringRef path)> read;
  std::map<uint32_t, std::vector<std::string>> compiled; // PTX, by architecture
};

} // namespace dlc

#endif // DLC_COMPILER_EMIT_EXTERNCODE_H
