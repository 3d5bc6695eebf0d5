//===- CompilerMessages.h - what other compilers say -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_EMIT_COMPILERMESSAGES_H
#define DLC_COMPILER_EMIT_COMPILERMESSAGES_H

#include "llvm/ADT/StringRef.h"
#include <string>
#include <vector>

namespace dlc {

/// An error of a compiler of C++. Line and column count from 1; 0: it does not say.
struct CompilerMessage {
  std::string file;
  unsigned line = 0, column = 0;
  std::string text;
};

/// The errors in "file:12:5: error: text" of gcc and clang, and in "file(12): error: text" with the
/// line and a caret below, of NVRTC.
std::vector<CompilerMessage> parseCompilerMessages(llvm::StringRef log);

} // namespace dlc

#endif // DLC_COMPILER_EMIT_COMPILERMESSAGES_H
