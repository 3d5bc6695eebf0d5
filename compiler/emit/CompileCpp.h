//===- CompileCpp.h - C++ to an object, by the system's compiler -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_EMIT_COMPILECPP_H
#define DLC_COMPILER_EMIT_COMPILECPP_H

#include "CompilerMessages.h"
#include "LinkModel.h"
#include "Target.h"

namespace dlc {

/// A compiler of C++ and the options that come with it: $CXX, else c++, clang++, g++ or clang++-N
/// of $PATH; empty where there is none.
std::vector<std::string> findCppCompiler();

/// Compiles a text as C++17 for \p target, without exceptions and run-time types; a product and a
/// sum are two roundings unless the text says fma. \p folder: of the text, for what it includes.
/// \p compiler: from findCppCompiler. The same text gives the same bytes, wherever it lies. What is
/// wrong with it is said in \p messages.
llvm::Expected<Bytes> compileCpp(llvm::StringRef text, llvm::StringRef folder, const Target &target,
                                 llvm::ArrayRef<std::string> compiler,
                                 std::vector<CompilerMessage> &messages);

/// The first symbol that an object needs and neither it, \p defined, nor the system's libc and libm
/// have; empty where there is none.
llvm::Expected<std::string> findForeignSymbol(llvm::StringRef object,
                                              llvm::ArrayRef<llvm::StringRef> defined);

} // namespace dlc

#endif // DLC_COMPILER_EMIT_COMPILECPP_H
