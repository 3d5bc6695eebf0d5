//===- Lexer.cpp - text to tokens, with the rule of line ends -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Lexer.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringSwitch.h"
#include "llvm/Support/ConvertUTF.h"

using namespace dlc;
using namespace dlc::language;
using llvm::SMLoc;
using llvm::StringRef;

StringRef language::describe(Tok kind) {
  switch (kind) {
    // clang-format off
  case Tok::End: return "the end of the file";
  case Tok::Newline: return "the end of the line";
  case Tok::Error: return "an unknown character";
  case Tok::Name: return "a name";
  case Tok::Int: return "a whole number";
  case Tok::Float: return "a number";
  case Tok::String: return "a string";
  case Tok::If: return "'if'";
  case Tok::Else: return "'else'";
  case Tok::For: return "'for'";
  case Tok::While: return "'while'";
  case Tok::Break: return "'break'";
  case Tok::In: return "'in'";
  case Tok::Return: return "'return'";
  case Tok::And: return "'and'";
  case Tok::Or: return "'or'";
  case Tok::Not: return "'not'";
  case Tok::True: return "'true'";
  case Tok::False: return "'false'";
  case Tok::None: return "'none'";
  case Tok::Fn: return "'fn'";
  case Tok::Layer: return "'layer'";
  case Tok::Model: return "'model'";
  case Tok::Optimizer: return "'optimizer'";
  case Tok::Import: return "'import'";
  case Tok::Extern: return "'extern'";
  case Tok::Train: return "'train'";
  case Tok::Var: return "'var'";
  case Tok::Assert: return "'assert'";
  case Tok::With: return "'with'";
  case Tok::LParen: return "'('";
  case Tok::RParen: return "')'";
  case Tok::LBracket: return "'['";
  case Tok::RBracket: return "']'";
  case Tok::LBrace: return "'{'";
  case Tok::RBrace: return "'}'";
  case Tok::Comma: return "','";
  case Tok::Colon: return "':'";
  case Tok::Dot: return "'.'";
  case Tok::Question: return "'?'";
  case Tok::DotDot: return "'..'";
  case Tok::DotDotDot: return "'...'";
  case Tok::Arrow: return "'->'";
  case Tok::Assign: return "'='";
  case Tok::PlusAssign: return "'+='";
  case Tok::MinusAssign: return "'-='";
  case Tok::TimesAssign: return "'*='";
  case Tok::OverAssign: return "'/='";
  case Tok::Equal: return "'=='";
  case Tok::NotEqual: return "'!='";
  case Tok::Less: return "'<'";
  case Tok::LessEqual: return "'<='";
  case Tok::Greater: return "'>'";
  case Tok::GreaterEqual: return "'>='";
  case Tok::Plus: return "'+'";
  case Tok::Minus: return "'-'";
  case Tok::Star: return "'*'";
  case Tok::Slash: return "'/'";
  case Tok::Percent: return "'%'";
  case Tok::At: return "'@'";
  case Tok::StarStar: return "'**'";
    // clang-format on
  }
  llvm_unreachable("every kind is described");
}

std::string language::docText(StringRef lines) {
  llvm::SmallVector<StringRef> parts;
  lines.split(parts, '\n');
  std::string text;
  for (StringRef part : parts) {
    part = part.trim();
    if (!part.consume_front("///"))
      continue; // a blank line between two lines of documentation
    part.consume_front(" ");
    if (!text.empty())
      text += '\n';
    text += part;
  }
  return text;
}

static Tok keyword(StringRef text) {
  return llvm::StringSwitch<Tok>(text)
      .Case("if", Tok::If)
      .Case("else", Tok::Else)
      .Case("for", Tok::For)
      .Case("while", Tok::While)
      .Case("break", Tok::Break)
      .Case("in", Tok::In)
      .Case("return", Tok::Return)
      .Case("and", Tok::And)
      .Case("or", Tok::Or)
      .Case("not", Tok::Not)
      .Case("true", Tok::True)
      .Case("false", Tok::False)
      .Case("none", Tok::None)
      .Case("fn", Tok::Fn)
      .Case("layer", Tok::Layer)
      .Case("model", Tok::Model)
      .Case("optimizer", Tok::Optimizer)
      .Case("import", Tok::Import)
      .Case("extern", Tok::Extern)
      .Case("train", Tok::Train)
      .Case("var", Tok::Var)
      .Case("assert", Tok::Assert)
      .Case("with", Tok::With)
      .Default(Tok::Name);
}

/// A line that ends in one of these goes on in the next.
static bool continuesAfter(Tok kind) {
  switch (kind) {
  case Tok::LParen:
  case Tok::LBracket:
  case Tok::Comma:
  case Tok::Colon:
  case Tok::Dot:
  case Tok::DotDot:
  case Tok::Arrow:
  case Tok::In:
  case Tok::And:
  case Tok::Or:
  case Tok::Not:
    return true;
  default:
    return kind >= Tok::Assign;
  }
}

/// A line that begins with one of these belongs to the one before. Not `-`: it also begins an
/// expression.
static bool continuesBefore(Tok kind) {
  switch (kind) {
  case Tok::Else:
  case Tok::With:
  case Tok::Arrow:
  case Tok::DotDot:
  case Tok::Assign:
  case Tok::And:
  case Tok::Or:
    return true;
  case Tok::Minus:
    return false;
  default:
    return kind >= Tok::Equal;
  }
}

/// Reserved words that no expression holds: one at a line's beginning inside `(` or `[` means that
/// a bracket was never closed. The parser reports it; counting it as closed here keeps the rest of
/// the file readable.
static bool beginsStatement(Tok kind) {
  switch (kind) {
  case Tok::Fn:
  case Tok::Layer:
  case Tok::Model:
  case Tok::Optimizer:
  case Tok::Import:
  case Tok::Extern:
  case Tok::Train:
  case Tok::Var:
  case Tok::Assert:
  case Tok::Return:
  case Tok::While:
  case Tok::Break:
    return true;
  default:
    return false;
  }
}

namespace {

class Lexer {
public:
  Lexer(llvm::MemoryBufferRef buffer, Diagnostics &diagnostics)
      : diagnostics(diagnostics), at(buffer.getBufferStart()), end(buffer.getBufferEnd()),
        file(buffer.getBuffer()), name(buffer.getBufferIdentifier()) {}

  std::vector<Token> run();

private:
  bool checkText();
  void next();
  void number();
  void punctuation();
  void unknown();
  void push(Tok kind, size_t length);
  void error(const char *from, size_t length, const llvm::Twine &message) {
    diagnostics.error(
        llvm::SMRange(SMLoc::getFromPointer(from), SMLoc::getFromPointer(from + length)), message);
  }

  Diagnostics &diagnostics;
  const char *at, *end;
  StringRef file, name;
  std::vector<Token> tokens;
  std::vector<Token> brackets;   // the open ones
  const char *newline = nullptr; // the first line end since the last token
  const char *docBegin = nullptr, *docEnd = nullptr;
};

} // namespace

/// A file that is no text is refused as a whole: its bytes would give nothing but noise.
bool Lexer::checkText() {
  size_t nul = file.find('\0');
  auto *bytes = reinterpret_cast<const llvm::UTF8 *>(file.begin());
  auto *last = reinterpret_cast<const llvm::UTF8 *>(file.end());
  bool legal = llvm::isLegalUTF8String(&bytes, last);
  size_t bad = legal ? StringRef::npos : reinterpret_cast<const char *>(bytes) - file.begin();
  size_t where = std::min(nul, bad);
  if (where == StringRef::npos)
    return true;
  if (where == nul)
    diagnostics.error(SMLoc::getFromPointer(file.data() + where),
                      "'" + name + "' is not a text file: it holds a zero byte");
  else
    diagnostics.error(SMLoc::getFromPointer(file.data() + where),
                      "'" + name + "' is not UTF-8 text: byte 0x" +
                          llvm::utohexstr(static_cast<uint8_t>(file[where])) + " at offset " +
                          llvm::Twine(where));
  return false;
}

void Lexer::push(Tok kind, size_t length) {
  Token token{kind, StringRef(at, length), {}};
  if (newline) {
    if (!brackets.empty() && brackets.back().kind != Tok::LBrace && beginsStatement(kind)) {
      while (!brackets.empty() && brackets.back().kind != Tok::LBrace)
        brackets.pop_back();
    }
    bool open = !brackets.empty() && brackets.back().kind != Tok::LBrace;
    Tok last = tokens.empty() ? Tok::LBrace : tokens.back().kind;
    if (!open && last != Tok::LBrace && !continuesAfter(last) && !continuesBefore(kind))
      tokens.push_back({Tok::Newline, StringRef(newline, 0), {}});
    newline = nullptr;
  }
  if (docBegin) {
    token.doc = StringRef(docBegin, docEnd - docBegin);
    docBegin = nullptr;
  }
  switch (kind) {
  case Tok::LParen:
  case Tok::LBracket:
  case Tok::LBrace:
    brackets.push_back(token);
    break;
  case Tok::RParen:
  case Tok::RBracket:
  case Tok::RBrace: {
    Tok opening = kind == Tok::RParen     ? Tok::LParen
                  : kind == Tok::RBracket ? Tok::LBracket
                                          : Tok::LBrace;
    // A `}` closes what was left open inside its block; the parser reports the bracket that is
    // missing.
    if (kind == Tok::RBrace)
      while (!brackets.empty() && brackets.back().kind != Tok::LBrace)
        brackets.pop_back();
    if (!brackets.empty() && brackets.back().kind == opening)
      brackets.pop_back();
    break;
  }
  default:
    break;
  }
  tokens.push_back(token);
  at += length;
}

void Lexer::number() {
  const char *from = at, *to = at;
  auto digits = [&](const char *p) {
    while (p != end && llvm::isDigit(*p))
      ++p;
    return p;
  };
  Tok kind = Tok::Int;
  to = digits(from);
  if (end - to > 1 && *to == '.' && llvm::isDigit(to[1]))
    to = digits(to + 1), kind = Tok::Float;
  if (to != end && (*to == 'e' || *to == 'E')) {
    const char *exponent = to + 1;
    if (exponent != end && (*exponent == '+' || *exponent == '-'))
      ++exponent;
    if (exponent != end && llvm::isDigit(*exponent))
      to = digits(exponent), kind = Tok::Float;
  }
  const char *tail = to;
  while (tail != end && (llvm::isAlnum(*tail) || *tail == '_'))
    ++tail;
  if (tail != to) {
    error(from, tail - from,
          "'" + StringRef(from, tail - from) + "' is neither a number nor a name");
    push(Tok::Error, tail - from);
    return;
  }
  push(kind, to - from);
}

void Lexer::unknown() {
  unsigned length =
      std::min<size_t>(llvm::getNumBytesForUTF8(static_cast<llvm::UTF8>(*at)), end - at);
  StringRef text(at, length), rest(at, end - at);
  llvm::StringRef hint = rest.starts_with("&&")   ? ": write 'and'"
                         : rest.starts_with("||") ? ": write 'or'"
                         : *at == '!'             ? ": write 'not'"
                         : *at == ';'             ? ": a statement ends with its line"
                         : *at == '#'             ? ": a comment begins with '//'"
                         : *at == '\''            ? ": a string stands in double quotes"
                         : *at == '^'             ? ": a power is written '**'"
                                                  : "";
  if (rest.starts_with("&&") || rest.starts_with("||"))
    text = rest.take_front(length = 2);
  if (static_cast<uint8_t>(*at) < 0x20 || *at == 0x7f)
    error(at, 1, "unexpected control character 0x" + llvm::utohexstr(static_cast<uint8_t>(*at)));
  else
    error(at, length, "unexpected character '" + text + "'" + hint);
  push(Tok::Error, length);
}

void Lexer::punctuation() {
  static constexpr std::pair<StringRef, Tok> table[] = {
      // the longest first
      {"...", Tok::DotDotDot}, {"..", Tok::DotDot},       {"->", Tok::Arrow},
      {"+=", Tok::PlusAssign}, {"-=", Tok::MinusAssign},  {"*=", Tok::TimesAssign},
      {"/=", Tok::OverAssign}, {"==", Tok::Equal},        {"!=", Tok::NotEqual},
      {"<=", Tok::LessEqual},  {">=", Tok::GreaterEqual}, {"**", Tok::StarStar},
      {"(", Tok::LParen},      {")", Tok::RParen},        {"[", Tok::LBracket},
      {"]", Tok::RBracket},    {"{", Tok::LBrace},        {"}", Tok::RBrace},
      {",", Tok::Comma},       {":", Tok::Colon},         {".", Tok::Dot},
      {"?", Tok::Question},    {"=", Tok::Assign},        {"<", Tok::Less},
      {">", Tok::Greater},     {"+", Tok::Plus},          {"-", Tok::Minus},
      {"*", Tok::Star},        {"/", Tok::Slash},         {"%", Tok::Percent},
      {"@", Tok::At},
  };
  StringRef rest(at, end - at);
  for (auto &[text, kind] : table)
    if (rest.starts_with(text))
      return push(kind, text.size());
  unknown();
}

void Lexer::next() {
  StringRef rest(at, end - at);
  if (*at == '\n') {
    if (!newline)
      newline = at;
    ++at;
  } else if (*at == ' ' || *at == '\t' || *at == '\r') {
    ++at;
  } else if (rest.starts_with("//")) {
    size_t length = std::min(rest.find('\n'), rest.size());
    // Four slashes draw a line; three document what follows. Documentation stands on lines of its
    // own.
    bool first = newline || tokens.empty();
    if (rest.starts_with("///") && !rest.starts_with("////") && first) {
      if (!docBegin)
        docBegin = at;
      docEnd = at + length;
    }
    at += length;
  } else if (*at == '"') {
    size_t close = rest.find_first_of("\"\n", 1);
    if (close == StringRef::npos || rest[close] == '\n') {
      size_t length = std::min(close, rest.size());
      error(at, length, "this string is not closed on its line");
      push(Tok::Error, length);
    } else {
      push(Tok::String, close + 1);
    }
  } else if (llvm::isDigit(*at)) {
    number();
  } else if (llvm::isAlpha(*at) || *at == '_') {
    StringRef text = rest.take_while([](char c) { return llvm::isAlnum(c) || c == '_'; });
    push(keyword(text), text.size());
  } else {
    punctuation();
  }
}

std::vector<Token> Lexer::run() {
  if (checkText()) {
    StringRef(at, end - at).starts_with("\xef\xbb\xbf") ? at += 3 : at; // a byte order mark
    while (at != end)
      next();
    // The last line may lack its end; the end of the file stands for it.
    if (!newline)
      newline = end;
    brackets.clear();
  }
  at = end;
  push(Tok::End, 0);
  return std::move(tokens);
}

std::vector<Token> language::lex(llvm::MemoryBufferRef buffer, Diagnostics &diagnostics) {
  return Lexer(buffer, diagnostics).run();
}
