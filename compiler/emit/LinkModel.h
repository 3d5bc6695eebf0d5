//===- LinkModel.h - object code to an artefact -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// lld and LLVM's object copier run inside dlc; no tool and no development package is needed. Every
// form of an artefact holds the runtime and shows one symbol, the model's query function: two
// models live side by side in one program.
//
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_EMIT_LINKMODEL_H
#define DLC_COMPILER_EMIT_LINKMODEL_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

namespace dlc {

using Bytes = llvm::SmallVector<char, 0>;

struct LinkInput {
  llvm::StringRef object;          ///< what emitObject made
  llvm::StringRef querySymbol;     ///< the one symbol that stays visible
  llvm::StringRef runtimeArchive;  ///< libdlrt.a; empty: the one inside dlc
  llvm::ArrayRef<Bytes> more = {}; ///< objects that define what the first one needs
};

/// A shared library that needs the system's libc and libm.
llvm::Expected<Bytes> linkSharedLibrary(const LinkInput &input);

/// One relocatable object in which every symbol but the query symbol is local.
llvm::Expected<Bytes> linkObject(const LinkInput &input);

/// That object in an archive. \p memberName: e.g. "two_layer.o".
llvm::Expected<Bytes> linkArchive(const LinkInput &input, llvm::StringRef memberName);

/// An object of which others see the symbols of \p visible alone.
llvm::Expected<Bytes> isolateObject(llvm::StringRef object,
                                    llvm::ArrayRef<llvm::StringRef> visible);

/// Path of a library of the system, as the loader finds it, e.g. for "libm.so.6".
llvm::Expected<std::string> findSystemLibrary(llvm::StringRef soname);

} // namespace dlc

#endif // DLC_COMPILER_EMIT_LINKMODEL_H
