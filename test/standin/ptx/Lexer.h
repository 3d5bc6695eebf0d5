//===- Lexer.h - words of PTX -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TEST_STANDIN_PTX_LEXER_H
#define DLC_TEST_STANDIN_PTX_LEXER_H

#include "llvm/ADT/StringRef.h"
#include <string>

namespace standin::ptx {

struct Token {
  enum Kind {
    End,
    Word,    ///< name, opcode with its dots, or (with a dot in front) directive: "%r1", "ld.global.f32", ".reg"
    Integer, ///< value
    Float,   ///< value: the bits; a single if isSingle. text for "9.0"
    String,  ///< text without the quotes
    Punctuation, ///< one character of text
    Error,   ///< text is the message
  } kind = End;
  llvm::StringRef text;
  unsigned line = 1;
  uint64_t value = 0;
  bool isSingle = false;

  bool is(llvm::StringRef punctuation) const { return kind == Punctuation && text == punctuation; }
};

class Lexer {
public:
  explicit Lexer(llvm::StringRef source) : source(source) {}
  Token next();

private:
  Token number(Token token);
  Token error(Token token, llvm::StringRef message) const;

  llvm::StringRef source;
  size_t at = 0;
  unsigned line = 1;
};

} // namespace standin::ptx

#endif // DLC_TEST_STANDIN_PTX_LEXER_H
