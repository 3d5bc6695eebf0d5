//===- Lexer.cpp - words of PTX -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Lexer.h"
#include "llvm/ADT/APFloat.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/Error.h"

using namespace llvm;

namespace standin::ptx {

static bool startsWord(char c) { return isAlpha(c) || c == '_' || c == '$' || c == '%'; }
static bool inWord(char c) { return isAlnum(c) || c == '_' || c == '$' || c == '%'; }

Token Lexer::error(Token token, StringRef message) const {
  token.kind = Token::Error;
  token.text = message;
  return token;
}

Token Lexer::next() {
  auto peek = [&](size_t ahead) { return at + ahead < source.size() ? source[at + ahead] : '\0'; };

  // spaces and comments
  while (at < source.size()) {
    char c = source[at];
    if (c == '\n') {
      ++line;
      ++at;
    } else if (isSpace(c)) {
      ++at;
    } else if (c == '/' && peek(1) == '/') {
      while (at < source.size() && source[at] != '\n')
        ++at;
    } else if (c == '/' && peek(1) == '*') {
      Token open;
      open.line = line;
      size_t end = source.find("*/", at + 2);
      if (end == StringRef::npos) {
        at = source.size();
        return error(open, "comment is not closed");
      }
      line += source.slice(at, end).count('\n');
      at = end + 2;
    } else {
      break;
    }
  }

  Token token;
  token.line = line;
  if (at >= source.size())
    return token;
  size_t begin = at;
  char c = source[at];
  if (startsWord(c) || (c == '.' && startsWord(peek(1)))) {
    ++at;
    // Dots belong to the word, and so does "::" between letters: "shared::cta". But ".reg.b32" is two.
    while (at < source.size()) {
      if (inWord(source[at]))
        ++at;
      else if (c != '.' && source[at] == '.' && inWord(peek(1)))
        at += 2;
      else if (source[at] == ':' && peek(1) == ':' && inWord(peek(2)))
        at += 3;
      else
        break;
    }
    token.kind = Token::Word;
    token.text = source.slice(begin, at);
    return token;
  }
  if (isDigit(c))
    return number(token);
  if (c == '"') {
    for (++at; at < source.size() && source[at] != '"' && source[at] != '\n'; ++at)
      if (source[at] == '\\' && at + 1 < source.size() && source[at + 1] != '\n')
        ++at;
    if (at >= source.size() || source[at] != '"') {
      at = std::min(at, source.size());
      return error(token, "string is not closed");
    }
    token.kind = Token::String;
    token.text = source.slice(begin + 1, at++);
    return token;
  }
  if (StringRef("[]{}()<>,;:=+-!|@~*/").contains(c)) {
    ++at;
    token.kind = Token::Punctuation;
    token.text = source.slice(begin, at);
    return token;
  }
  ++at;
  return error(token, "unexpected character");
}

/// 12, 0x1f, 0b101, 017, each perhaps with U; 0f3F800000, 0d3FF0000000000000; 1.5, 1e3.
Token Lexer::number(Token token) {
  size_t begin = at;
  while (at < source.size() && (inWord(source[at]) || (source[at] == '.' && at + 1 < source.size() && isDigit(source[at + 1])) ||
                                ((source[at] == '+' || source[at] == '-') && (source[at - 1] == 'e' || source[at - 1] == 'E') &&
                                 !source.slice(begin, at).starts_with_insensitive("0x") && !source.slice(begin, at).starts_with_insensitive("0f") &&
                                 !source.slice(begin, at).starts_with_insensitive("0d"))))
    ++at;
  StringRef text = source.slice(begin, at);
  token.text = text;
  auto hexFloat = [&](unsigned digits, bool single) {
    if (text.size() != digits + 2 || text.drop_front(2).getAsInteger(16, token.value))
      return error(token, single ? "a float in hexadecimal has eight digits" : "a double in hexadecimal has sixteen digits");
    token.kind = Token::Float;
    token.isSingle = single;
    return token;
  };
  if (text.starts_with_insensitive("0f"))
    return hexFloat(8, true);
  if (text.starts_with_insensitive("0d"))
    return hexFloat(16, false);
  if (!text.starts_with_insensitive("0x") && (text.contains('.') || text.contains_insensitive('e'))) {
    APFloat value(APFloat::IEEEdouble());
    Expected<APFloat::opStatus> status = value.convertFromString(text, APFloat::rmNearestTiesToEven);
    if (!status) {
      consumeError(status.takeError());
      return error(token, "malformed number");
    }
    token.kind = Token::Float;
    token.value = value.bitcastToAPInt().getZExtValue();
    return token;
  }
  StringRef digits = text;
  if (digits.size() > 1 && (digits.ends_with("U") || digits.ends_with("u")))
    digits = digits.drop_back();
  if (digits.getAsInteger(0, token.value))
    return error(token, "malformed number");
  token.kind = Token::Integer;
  return token;
}

} // namespace standin::ptx
