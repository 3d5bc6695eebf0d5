//===- CompilerMessages.cpp - what other compilers say -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "CompilerMessages.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringExtras.h"

using namespace llvm;

namespace dlc {

/// Takes a number off the end of \p text, with the \p mark in front of it.
static bool consumeNumberBack(StringRef &text, char mark, unsigned &number) {
  StringRef digits = text.take_back(text.size() - text.find_last_not_of("0123456789") - 1);
  if (digits.empty() || digits.size() == text.size() ||
      text.drop_back(digits.size()).back() != mark || digits.getAsInteger(10, number))
    return false;
  text = text.drop_back(digits.size() + 1);
  return true;
}

std::vector<CompilerMessage> parseCompilerMessages(StringRef log) {
  static constexpr StringLiteral kinds[] = {
      ": error: ", ": fatal error: ", ": catastrophic error: ", ": error #"};
  std::vector<CompilerMessage> messages;
  SmallVector<StringRef> lines(split(log, '\n'));
  for (auto [i, line] : enumerate(lines)) {
    size_t at = StringRef::npos;
    StringRef kind;
    for (StringRef candidate : kinds)
      if (size_t found = line.find(candidate); found < at)
        at = found, kind = candidate;
    if (at == StringRef::npos)
      continue;
    StringRef place = line.take_front(at);
    CompilerMessage message;
    message.text = line.drop_front(at + kind.size()).rtrim().str();
    unsigned number = 0;
    if (place.consume_back(")")) {
      if (!consumeNumberBack(place, '(', message.line))
        continue;
      // The line as it stands in the text, indented by two, and a caret below.
      for (size_t below = i + 2; below < std::min(lines.size(), i + 4); ++below)
        if (size_t caret = lines[below].find('^');
            lines[below].trim() == "^" && caret != StringRef::npos && caret >= 2)
          message.column = caret - 2 + 1;
    } else if (consumeNumberBack(place, ':', number)) {
      message.line = number;
      if (consumeNumberBack(place, ':', number)) {
        message.column = message.line;
        message.line = number;
      }
    } else {
      continue;
    }
    message.file = place.str();
    messages.push_back(std::move(message));
  }
  return messages;
}

} // namespace dlc
