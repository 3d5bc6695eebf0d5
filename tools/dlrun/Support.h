//===- Support.h - errors as values, text, numbers -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Nothing in dlrun throws on purpose: what can fail returns a Status or an Expected. The one
// exception that passes through is std::bad_alloc, which main() turns into words.
//
//===----------------------------------------------------------------------===//

#ifndef DLC_TOOLS_DLRUN_SUPPORT_H
#define DLC_TOOLS_DLRUN_SUPPORT_H

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace dlc::run {

/// Exit codes of every command; docs/dlrun.md lists them.
enum ExitCode : int { ExitSuccess = 0, ExitError = 1, ExitUsage = 2, ExitInterrupted = 130 };

struct Error {
  std::string message;
  int exitCode = ExitError;
};

template <typename T> class [[nodiscard]] Expected {
public:
  Expected(T value) : content(std::in_place_index<0>, std::move(value)) {}
  Expected(Error error) : content(std::in_place_index<1>, std::move(error)) {}

  explicit operator bool() const { return content.index() == 0; }
  T &operator*() { return std::get<0>(content); }
  const T &operator*() const { return std::get<0>(content); }
  T *operator->() { return &std::get<0>(content); }
  const T *operator->() const { return &std::get<0>(content); }
  Error &error() { return std::get<1>(content); }

private:
  std::variant<T, Error> content;
};

class [[nodiscard]] Status {
public:
  Status() = default;
  Status(Error error) : content(std::move(error)) {}

  explicit operator bool() const { return !content; }
  Error &error() { return *content; }

private:
  std::optional<Error> content;
};

inline void append(std::string &to, std::string_view text) { to += text; }
inline void append(std::string &to, const char *text) { to += text; }
inline void append(std::string &to, char character) { to += character; }
template <typename T>
  requires std::is_integral_v<T>
void append(std::string &to, T number) {
  to += std::to_string(number);
}
/// The shortest text that reads back as the same number.
void append(std::string &to, double number);

template <typename... Parts> std::string concat(const Parts &...parts) {
  std::string text;
  (append(text, parts), ...);
  return text;
}

template <typename... Parts> Error makeError(const Parts &...parts) {
  return Error{concat(parts...), ExitError};
}

template <typename... Parts> Error makeUsageError(const Parts &...parts) {
  return Error{concat(parts...), ExitUsage};
}

/// Text from a file, fit for a terminal: control characters and bytes that are not UTF-8 become
/// '?'.
std::string printable(std::string_view text);
/// 'text', made printable.
std::string quote(std::string_view text);
/// "1 step", "2 steps"
std::string counted(int64_t count, std::string_view noun);
/// The word nearest to a misspelt one as "; did you mean 'word'?", or nothing where none is near.
std::string didYouMean(std::string_view word, const std::vector<std::string> &candidates);
/// "a, b and c"
std::string joinWords(const std::vector<std::string> &words);
/// "'a', 'b' and 'c'", made printable; "none"; of many not all are listed.
std::string quotedList(const std::vector<std::string> &words);
/// What is asked for is not among the parts of a file: "no member 'x'; it has 'a' and 'b'".
Error noSuchPart(std::string_view kind, std::string_view part,
                 const std::vector<std::string> &parts);
/// 1234567 -> "1.2 MB"
std::string formatBytes(uint64_t bytes);
/// A word as a POSIX shell reads it back.
std::string shellQuote(std::string_view word);

/// The whole text as one number, or nothing. Independent of the locale.
std::optional<double> parseNumber(std::string_view text);

template <typename T> std::optional<T> parseInteger(std::string_view text) {
  T value{};
  auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size())
    return std::nullopt;
  return value;
}

struct Assignment {
  std::string name, value;
};

/// "NAME=VALUE" -> both halves; `option` is what the error names.
Expected<Assignment> parseAssignment(std::string_view text, std::string_view option);
/// All of them; a name given twice is an error.
Expected<std::vector<Assignment>> parseAssignments(const std::vector<std::string> &texts,
                                                   std::string_view option);

/// a * b, or nothing where it does not fit.
inline std::optional<uint64_t> multiply(uint64_t a, uint64_t b) {
  uint64_t product;
  if (__builtin_mul_overflow(a, b, &product))
    return std::nullopt;
  return product;
}

} // namespace dlc::run

#endif
