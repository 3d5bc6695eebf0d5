//===- Library.cpp - the standard library, inside the compiler -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Elaborator.h"

// LibraryFiles.inc is written by CMake: one line for each file of compiler/library. The zero byte
// is what a memory buffer ends in.
#define EMBED(SYMBOL, FILE)                                                                        \
  asm(".pushsection .rodata." #SYMBOL ", \"a\", @progbits\n"                                       \
      ".local " #SYMBOL ", " #SYMBOL "_end\n"                                                      \
      "" #SYMBOL ":\n"                                                                             \
      ".incbin \"" FILE "\"\n"                                                                     \
      "" #SYMBOL "_end:\n"                                                                         \
      ".byte 0\n"                                                                                  \
      ".popsection\n");                                                                            \
  extern "C" __attribute__((visibility("hidden"))) const char SYMBOL[], SYMBOL##_end[];
#include "LibraryFiles.inc"
#undef EMBED

std::optional<llvm::StringRef> dlc::language::libraryFile(llvm::StringRef name) {
#define LIBRARY_FILE(NAME, SYMBOL)                                                                 \
  if (name == NAME)                                                                                \
    return llvm::StringRef(SYMBOL, SYMBOL##_end - SYMBOL);
#include "LibraryFiles.inc"
#undef LIBRARY_FILE
  return std::nullopt;
}
