//===- EmitObject.h - LLVM IR to object code -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Three steps, in this order: the model's data joins its code (addModelData), the module is
// optimized (optimizeModule), and becomes object bytes or text. Vectors are explicit in the IR, so
// LLVM's vectorizers and unroller stay off.
//
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_EMIT_EMITOBJECT_H
#define DLC_COMPILER_EMIT_EMITOBJECT_H

#include "ModelDescription.h"
#include "Target.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

namespace llvm {
class Module;
class TargetMachine;
} // namespace llvm

namespace dlc {

/// "dlc 0.1.0, LLVM 22.1.8".
std::string compilerVersion();

/// Completes \p model (compiler, target, order of its functions) and adds to \p module: the ELF
/// note with the description, the table of entries and the query symbol. Everything but the query
/// symbol becomes internal. The module must define every function's entrySymbol.
llvm::Error addModelData(llvm::Module &module, ModelDescription &model, const Target &target);

/// Optimizes at a level of 0..3 for \p machine. Values don't depend on the level.
void optimizeModule(llvm::Module &module, llvm::TargetMachine &machine, unsigned optLevel);

/// Bytes of a relocatable object. Fails where it needs a symbol that no artefact may need, and that
/// is not among those that are \p defined elsewhere.
llvm::Expected<llvm::SmallVector<char, 0>> emitObject(llvm::Module &module,
                                                      llvm::TargetMachine &machine,
                                                      llvm::ArrayRef<llvm::StringRef> defined = {});

/// The same as assembly text.
llvm::Expected<llvm::SmallVector<char, 0>> emitAssembly(llvm::Module &module,
                                                        llvm::TargetMachine &machine);

/// Names of the symbols that an object needs and does not have, in its order; they live as long as its
/// bytes.
llvm::Expected<std::vector<llvm::StringRef>> undefinedSymbols(llvm::StringRef object);

/// Generated code may need libm's scalar functions, C's memory functions, the runtime's table and
/// what is \p defined elsewhere, nothing else.
llvm::Error checkUndefinedSymbols(llvm::StringRef object,
                                  llvm::ArrayRef<llvm::StringRef> defined = {});

/// Name of the runtime's table of functions.
inline constexpr llvm::StringLiteral runtimeSymbol = "dlrt_runtime_api";
/// Its half for GPUs, which artefacts with a GPU program link as well.
inline constexpr llvm::StringLiteral cudaHalfSymbol = "dlrt_cuda_half";

} // namespace dlc

#endif // DLC_COMPILER_EMIT_EMITOBJECT_H
