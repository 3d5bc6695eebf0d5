//===- language_fuzz.cpp - no text may crash the front end -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// A libFuzzer target: any bytes are read as a program, what parses is elaborated, and what is made
// must verify. The seeds are the examples, the library and the programs of test/frontends/language.
// Lexer and parser are instrumented here; the elaborator is the compiler's own.
//
//===----------------------------------------------------------------------===//

#include "compiler/frontends/language/Language.h"

#include "mlir/IR/MLIRContext.h"
#include "mlir/IR/Verifier.h"
#include "llvm/Support/raw_ostream.h"
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static mlir::MLIRContext context(mlir::MLIRContext::Threading::DISABLED);
  llvm::SourceMgr sources;
  dlc::Diagnostics diagnostics(sources);
  llvm::StringRef text(reinterpret_cast<const char *>(data), size);
  auto module =
      dlc::compileLanguage(context, sources, llvm::MemoryBuffer::getMemBufferCopy(text, "fuzz.dl"),
                           dlc::LanguageOptions(), diagnostics);
  if (module && mlir::failed(mlir::verify(*module)))
    abort();
  // Either a program comes out, or something is said about it.
  if (!module && !diagnostics.hasErrors())
    abort();
  diagnostics.print(llvm::nulls());
  return 0;
}
