//===- Lexer.h - text to tokens, with the rule of line ends -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_FRONTENDS_LANGUAGE_LEXER_H
#define DLC_COMPILER_FRONTENDS_LANGUAGE_LEXER_H

#include "Diagnostics.h"
#include <vector>

namespace dlc::language {

enum class Tok : uint8_t {
  // clang-format off
  End, Newline, Error, Name, Int, Float, String,
  // reserved words
  If, Else, For, While, Break, In, Return, And, Or, Not, True, False, None, Fn, Layer, Model, Optimizer, Import, Extern,
  Train, Var, Assert, With,
  // punctuation
  LParen, RParen, LBracket, RBracket, LBrace, RBrace, Comma, Colon, Dot, Question,
  DotDot, DotDotDot, Arrow, Assign, PlusAssign, MinusAssign, TimesAssign, OverAssign,
  Equal, NotEqual, Less, LessEqual, Greater, GreaterEqual, Plus, Minus, Star, Slash, Percent, At, StarStar,
  // clang-format on
};

/// How a token of this kind reads in a message: `'('`, `a name`, `the end of the line`.
llvm::StringRef describe(Tok kind);

struct Token {
  Tok kind = Tok::End;
  llvm::StringRef text; // points into the buffer
  llvm::StringRef
      doc; // the `///` lines above, as they stand in the buffer; empty when there are none

  llvm::SMLoc begin() const { return llvm::SMLoc::getFromPointer(text.data()); }
  llvm::SMLoc end() const { return llvm::SMLoc::getFromPointer(text.data() + text.size()); }
  llvm::SMRange range() const { return {begin(), end()}; }
};

/// The text of `///` lines without the slashes, joined by newlines.
std::string docText(llvm::StringRef lines);

/// All tokens of a buffer, or of a piece of one; the last one is Tok::End. A Newline token stands where a line's end ends
/// a statement: nowhere inside `(` or `[`, not after an operator, comma or `=`, not before a line
/// that begins with `else`, `with`,
/// `->`, `=` or a binary operator other than `-`, and never where it would end nothing.
/// Errors are reported; a file that is no text gives only Tok::End.
std::vector<Token> lex(llvm::MemoryBufferRef buffer, Diagnostics &diagnostics);

} // namespace dlc::language

#endif // DLC_COMPILER_FRONTENDS_LANGUAGE_LEXER_H
