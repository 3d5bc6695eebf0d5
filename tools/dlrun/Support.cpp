//===- Support.cpp - errors as values, text, numbers -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Support.h"

#include <algorithm>
#include <cstdio>
#include <set>

namespace dlc::run {

void append(std::string &to, double number) {
  char text[32];
  auto [end, code] = std::to_chars(text, text + sizeof(text), number);
  to.append(text, end);
}

/// Length of the well-formed UTF-8 sequence at the start of `text`; 0: there is none.
static size_t sequenceLength(std::string_view text) {
  auto byte = [&](size_t at) { return static_cast<unsigned char>(text[at]); };
  unsigned char first = byte(0);
  if (first < 0x80)
    return 1;
  size_t length = first >= 0xC2 && first <= 0xDF   ? 2
                  : first >= 0xE0 && first <= 0xEF ? 3
                  : first >= 0xF0 && first <= 0xF4 ? 4
                                                   : 0;
  if (length == 0 || text.size() < length)
    return 0;
  for (size_t at = 1; at < length; ++at)
    if ((byte(at) & 0xC0) != 0x80)
      return 0;
  unsigned char second = byte(1);
  // Overlong forms, surrogates, beyond U+10FFFF; and the C1 control characters U+0080 to U+009F.
  if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) ||
      (first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F) ||
      (first == 0xC2 && second < 0xA0))
    return 0;
  return length;
}

std::string printable(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    size_t length = sequenceLength(text);
    unsigned char first = static_cast<unsigned char>(text[0]);
    if (length == 0 || first < 0x20 || first == 0x7F) {
      result += '?';
      text.remove_prefix(length == 0 ? 1 : length);
      continue;
    }
    result.append(text.substr(0, length));
    text.remove_prefix(length);
  }
  return result;
}

std::string quote(std::string_view text) { return concat('\'', printable(text), '\''); }

std::string counted(int64_t count, std::string_view noun) {
  return concat(count, ' ', noun, count == 1 ? "" : "s");
}

/// How many letters are to be changed, put in, left out or exchanged with their neighbours.
static size_t editDistance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> cost(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        cost[i][j] = i + j;
        continue;
      }
      cost[i][j] = std::min(
          {cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
    }
  }
  return cost[a.size()][b.size()];
}

std::string didYouMean(std::string_view word, const std::vector<std::string> &candidates) {
  const std::string *best = nullptr;
  size_t distance = word.size() < 5 ? 1 : word.size() < 9 ? 2 : 3;
  if (word.size() > 100)
    return "";
  for (const std::string &candidate : candidates) {
    size_t here = editDistance(word, candidate);
    if (here < distance || (here == distance && !best)) {
      best = &candidate;
      distance = here;
    }
  }
  return best ? concat("; did you mean ", quote(*best), '?') : std::string();
}

std::string joinWords(const std::vector<std::string> &words) {
  std::string text;
  for (size_t i = 0; i < words.size(); ++i) {
    if (i > 0)
      text += i + 1 == words.size() ? " and " : ", ";
    text += words[i];
  }
  return text;
}

std::string quotedList(const std::vector<std::string> &words) {
  constexpr size_t most = 20;
  std::vector<std::string> quoted;
  for (size_t i = 0; i < std::min(most, words.size()); ++i)
    quoted.push_back(quote(words[i]));
  if (words.size() > most)
    quoted.push_back(concat(words.size() - most, " more"));
  return quoted.empty() ? "none" : joinWords(quoted);
}

Error noSuchPart(std::string_view kind, std::string_view part,
                 const std::vector<std::string> &parts) {
  return makeError("no ", kind, ' ', quote(part), "; it has ", quotedList(parts),
                   didYouMean(part, parts));
}

std::string formatBytes(uint64_t bytes) {
  if (bytes < 1000)
    return concat(bytes, " bytes");
  static const char *const units[] = {"kB", "MB", "GB", "TB", "PB", "EB"};
  double value = static_cast<double>(bytes) / 1000;
  size_t unit = 0;
  while (value >= 999.95 && unit + 1 < std::size(units)) {
    value /= 1000;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f %s", value, units[unit]);
  return text;
}

std::string shellQuote(std::string_view word) {
  bool plain = !word.empty();
  for (char c : word)
    plain = plain && ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      std::string_view("_-./=:,+@%").find(c) != std::string_view::npos);
  if (plain)
    return std::string(word);
  std::string text = "'";
  for (char c : word) {
    if (c == '\'')
      text += "'\\''";
    else
      text += c;
  }
  return text + "'";
}

std::optional<double> parseNumber(std::string_view text) {
  double value = 0;
  auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size())
    return std::nullopt;
  return value;
}

Expected<Assignment> parseAssignment(std::string_view text, std::string_view option) {
  size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0 || equals + 1 == text.size())
    return makeUsageError(option, " takes NAME=VALUE, got ", quote(text));
  return Assignment{std::string(text.substr(0, equals)), std::string(text.substr(equals + 1))};
}

Expected<std::vector<Assignment>> parseAssignments(const std::vector<std::string> &texts,
                                                   std::string_view option) {
  std::vector<Assignment> assignments;
  std::set<std::string> names;
  for (const std::string &text : texts) {
    Expected<Assignment> assignment = parseAssignment(text, option);
    if (!assignment)
      return assignment.error();
    if (!names.insert(assignment->name).second)
      return makeUsageError(option, " names ", quote(assignment->name), " twice");
    assignments.push_back(std::move(*assignment));
  }
  return assignments;
}

} // namespace dlc::run
