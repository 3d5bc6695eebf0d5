//===- ShapeText.cpp - shapes as text, worked out for given sizes -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "ShapeText.h"

namespace dlc::run {

namespace {

/// Recursive descent; `error` holds the first problem, after which results mean nothing.
class Parser {
public:
  Parser(std::string_view text, const std::vector<std::pair<std::string, int64_t>> &sizes)
      : text(text), sizes(sizes) {}

  Expected<std::vector<int64_t>> shape() {
    std::vector<int64_t> dims;
    expect("[");
    while (!error && !take("]")) {
      int64_t size = sum();
      if (!error && size < 0)
        error = makeError("a dimension would be ", size);
      dims.push_back(size);
      if (!take(",")) {
        expect("]");
        break;
      }
    }
    skipSpace();
    if (!error && !text.empty())
      unexpected();
    if (error)
      return *error;
    return dims;
  }

private:
  static constexpr int deepest = 64;

  void skipSpace() {
    while (!text.empty() && text[0] == ' ')
      text.remove_prefix(1);
  }

  bool take(std::string_view token) {
    skipSpace();
    if (!text.starts_with(token))
      return false;
    text.remove_prefix(token.size());
    return true;
  }

  void unexpected() {
    if (!error)
      error = makeError("cannot work out its shape: unexpected ", quote(text));
  }

  void expect(std::string_view token) {
    if (!take(token))
      unexpected();
  }

  int64_t checked(bool overflow, int64_t value) {
    if (overflow && !error)
      error = makeError("a dimension is too large");
    return value;
  }

  int64_t divide(int64_t a, int64_t b, bool up) {
    if (b == 0 || (a == INT64_MIN && b == -1)) {
      if (!error)
        error = makeError("a dimension is divided by ", b);
      return 0;
    }
    int64_t quotient = a / b;
    bool inexact = a % b != 0, negative = (a < 0) != (b < 0);
    if (inexact && up && !negative)
      ++quotient;
    if (inexact && !up && negative)
      --quotient;
    return quotient;
  }

  int64_t sum() {
    int64_t value = product(), result = 0;
    while (!error) {
      if (take("+"))
        value = checked(__builtin_add_overflow(value, product(), &result), result);
      else if (take("-"))
        value = checked(__builtin_sub_overflow(value, product(), &result), result);
      else
        break;
    }
    return value;
  }

  int64_t product() {
    int64_t value = factor(), result = 0;
    while (!error) {
      if (take("*")) {
        value = checked(__builtin_mul_overflow(value, factor(), &result), result);
      } else if (take("//") || take("/") || take("floordiv ")) {
        value = divide(value, factor(), /*up=*/false);
      } else if (take("ceildiv ")) {
        value = divide(value, factor(), /*up=*/true);
      } else if (take("%") || take("mod ")) {
        int64_t divisor = factor();
        value -= divide(value, divisor, /*up=*/false) * divisor;
      } else {
        break;
      }
    }
    return value;
  }

  int64_t factor() {
    if (++depth > deepest && !error)
      error = makeError("its shape is nested too deeply");
    int64_t value = error ? 0 : innerFactor();
    --depth;
    return value;
  }

  int64_t innerFactor() {
    if (take("(")) {
      int64_t value = sum();
      expect(")");
      return value;
    }
    if (take("-")) {
      int64_t result = 0;
      return checked(__builtin_sub_overflow(int64_t(0), factor(), &result), result);
    }
    skipSpace();
    int64_t number = 0;
    auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (code == std::errc()) {
      text.remove_prefix(static_cast<size_t>(end - text.data()));
      return number;
    }
    if (code == std::errc::result_out_of_range)
      return checked(true, 0);
    auto isNamed = [](char c) {
      return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    };
    size_t length = 0;
    while (length < text.size() && isNamed(text[length]))
      ++length;
    std::string_view name = text.substr(0, length);
    if (name.empty()) {
      unexpected();
      return 0;
    }
    text.remove_prefix(length);
    if ((name == "ceildiv" || name == "floordiv") && take("(")) {
      int64_t a = sum();
      expect(",");
      int64_t b = sum();
      expect(")");
      return error ? 0 : divide(a, b, name == "ceildiv");
    }
    for (const auto &[known, size] : sizes)
      if (known == name)
        return size;
    if (!error)
      error = makeError("give its size with --dim ", name, "=SIZE");
    return 0;
  }

  std::string_view text;
  const std::vector<std::pair<std::string, int64_t>> &sizes;
  std::optional<Error> error;
  int depth = 0;
};

} // namespace

Expected<std::vector<int64_t>>
evaluateShape(std::string_view text, const std::vector<std::pair<std::string, int64_t>> &sizes) {
  if (text.empty())
    return std::vector<int64_t>();
  return Parser(text, sizes).shape();
}

} // namespace dlc::run
