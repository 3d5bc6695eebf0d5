//===- Embedded.cpp - files that dlc carries inside -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Embedded.h"

// The build says where each file lies while dlc is built; afterwards its bytes are here.
#define EMBED(SYMBOL, FILE)                                                                        \
  asm(".pushsection .rodata." #SYMBOL ", \"a\", @progbits\n"                                       \
      ".balign 16\n"                                                                               \
      ".local " #SYMBOL ", " #SYMBOL "_end\n"                                                      \
      "" #SYMBOL ":\n"                                                                             \
      ".incbin \"" FILE "\"\n"                                                                     \
      "" #SYMBOL "_end:\n"                                                                         \
      ".popsection\n");                                                                            \
  extern "C" __attribute__((visibility("hidden"))) const char SYMBOL[], SYMBOL##_end[];

EMBED(dlc_embedded_runtime_archive, DLC_RUNTIME_ARCHIVE)
EMBED(dlc_embedded_runtime_header, DLC_RUNTIME_HEADER)
EMBED(dlc_embedded_abi_header, DLC_ABI_HEADER)

namespace dlc {

llvm::StringRef embeddedRuntimeArchive() {
  return llvm::StringRef(dlc_embedded_runtime_archive,
                         dlc_embedded_runtime_archive_end - dlc_embedded_runtime_archive);
}

llvm::StringRef embeddedRuntimeHeader() {
  return llvm::StringRef(dlc_embedded_runtime_header,
                         dlc_embedded_runtime_header_end - dlc_embedded_runtime_header);
}

llvm::StringRef embeddedAbiHeader() {
  return llvm::StringRef(dlc_embedded_abi_header,
                         dlc_embedded_abi_header_end - dlc_embedded_abi_header);
}

} // namespace dlc
