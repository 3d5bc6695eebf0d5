//===- language_fuzz.cpp - no text may crash the lexer or the parser -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// A libFuzzer target: any bytes are read as a program, and what is reported is printed. The seeds are the examples, the
// library and the programs of test/frontends/language.
//
//===----------------------------------------------------------------------===//

#include "Parser.h"

#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/raw_ostream.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  llvm::SourceMgr sources;
  dlc::Diagnostics diagnostics(sources);
  dlc::language::ast::Arena arena;
  llvm::StringRef text(reinterpret_cast<const char *>(data), size);
  unsigned buffer =
      sources.AddNewSourceBuffer(llvm::MemoryBuffer::getMemBufferCopy(text, "fuzz.dl"), llvm::SMLoc());
  dlc::language::parse(arena, sources, buffer, diagnostics);
  diagnostics.print(llvm::nulls());
  return 0;
}
