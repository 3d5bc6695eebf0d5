//===- Csv.cpp - tables of numbers as text -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Csv.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

namespace dlc::run {

//===----------------------------------------------------------------------===//
// Lines and fields
//===----------------------------------------------------------------------===//

namespace {

/// The fields of one line.
struct Record {
  uint64_t line = 0; // where it begins, from 1: a quoted field may hold ends of lines
  std::string text;  // of all fields, without quotes and commas
  std::vector<size_t> ends;

  size_t size() const { return ends.size(); }
  std::string_view operator[](size_t i) const {
    size_t begin = i == 0 ? 0 : ends[i - 1];
    return std::string_view(text).substr(begin, ends[i] - begin);
  }
};

class RecordReader {
public:
  explicit RecordReader(ByteReader &reader) : reader(reader) {}

  /// Replaces `record` by the next line that is not empty; false at the end of the file.
  Expected<bool> next(Record &record);

private:
  static constexpr int endOfFile = -1;
  /// A line may be this long: a quote that is left open must not swallow the memory.
  static constexpr size_t longest = size_t(64) << 20;

  /// The next byte, which stays to be read; endOfFile also after an error.
  int peek() {
    if (at == end && !fill())
      return endOfFile;
    return static_cast<unsigned char>(block[at]);
  }
  bool fill();
  Error errorAt(uint64_t where, std::string_view what) const {
    return problem ? *problem : makeError("line ", where, ": ", what);
  }

  ByteReader &reader;
  std::vector<char> block;
  size_t at = 0, end = 0;
  uint64_t line = 1;
  bool started = false;
  std::optional<Error> problem;
};

} // namespace

bool RecordReader::fill() {
  if (problem)
    return false;
  block.resize(64 * 1024);
  Expected<size_t> count = reader.read(block.data(), block.size());
  if (!count)
    problem = count.error();
  at = 0;
  end = count ? *count : 0;
  if (!started && std::string_view(block.data(), end).starts_with("\xEF\xBB\xBF"))
    at = 3; // a byte order mark, as Excel writes it
  started = true;
  return at < end || (end > 0 && fill());
}

Expected<bool> RecordReader::next(Record &record) {
  // Empty lines end many files; anywhere else they are a row that lacks everything.
  std::optional<uint64_t> empty;
  for (;;) {
    record.line = line;
    record.text.clear();
    record.ends.clear();
    int c = peek();
    if (c == endOfFile) {
      if (problem)
        return *problem;
      return false;
    }
    bool quoted = false;
    for (bool more = true; more;) {
      if (c == '"') {
        quoted = true;
        uint64_t opened = line;
        for (++at;; ++at) {
          c = peek();
          if (c == endOfFile || record.text.size() > longest)
            return errorAt(opened, c == endOfFile ? "a quoted field does not end before the file"
                                                  : "a quoted field is longer than 64 MiB");
          if (c == '"') {
            ++at;
            if (peek() != '"')
              break;
          }
          line += c == '\n';
          record.text += static_cast<char>(c);
        }
        c = peek();
        if (c == '\r') {
          ++at;
          c = peek();
          if (c != '\n')
            return errorAt(line, "text follows a field in quotes");
        }
        if (c != ',' && c != '\n' && c != endOfFile)
          return errorAt(line, "text follows a field in quotes");
      } else {
        while (c != ',' && c != '\n' && c != endOfFile) {
          if (c == '"')
            return errorAt(line, "a quote inside of a field that does not begin with one");
          if (record.text.size() > longest)
            return errorAt(record.line, "longer than 64 MiB");
          record.text += static_cast<char>(c);
          ++at;
          c = peek();
        }
        if (c == '\n' && record.text.ends_with('\r') &&
            (record.ends.empty() || record.ends.back() < record.text.size()))
          record.text.pop_back();
      }
      record.ends.push_back(record.text.size());
      more = c == ',';
      if (more) {
        ++at;
        c = peek();
      }
    }
    if (problem)
      return *problem;
    if (c == '\n') {
      ++at;
      ++line;
    }
    if (record.size() == 1 && record.text.empty() && !quoted) {
      empty = empty.value_or(record.line);
      continue;
    }
    if (empty)
      return errorAt(*empty, "it is empty");
    return true;
  }
}

//===----------------------------------------------------------------------===//
// Numbers
//===----------------------------------------------------------------------===//

/// Without spaces around it and without a plus sign, which from_chars does not take.
static std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t'))
    text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t'))
    text.remove_suffix(1);
  return text;
}

static std::string_view withoutPlus(std::string_view text) {
  if (text.size() > 1 && text[0] == '+' && text[1] != '-')
    text.remove_prefix(1);
  return text;
}

/// The nearest float; nothing where `text` is none, infinite where it is too large. NaN and
/// infinities written as words are no numbers.
template <typename Float> static std::optional<Float> parseFloat(std::string_view text) {
  text = withoutPlus(text);
  std::string_view digits = text.starts_with('-') ? text.substr(1) : text;
  if (digits.empty() || !((digits[0] >= '0' && digits[0] <= '9') || digits[0] == '.'))
    return std::nullopt;
  Float value = 0;
  auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end != text.data() + text.size() || code == std::errc::invalid_argument)
    return std::nullopt;
  if (code == std::errc::result_out_of_range) {
    // Too large or too small, which from_chars does not tell; dlrun stays in the locale "C".
    std::string copy(text);
    if constexpr (sizeof(Float) == sizeof(float))
      value = std::strtof(copy.c_str(), nullptr);
    else
      value = std::strtod(copy.c_str(), nullptr);
  }
  return value;
}

static bool isNumber(std::string_view text) {
  return parseFloat<double>(trimmed(text)).has_value();
}

/// Writes a field as an element; otherwise says what is wrong with it.
template <typename T>
static std::optional<std::string> parseElement(std::string_view field, dlrt_dtype dtype, T &value) {
  std::string_view text = trimmed(field);
  if (text.empty())
    return "it is empty; a missing value must be filled in or its row left out";
  if constexpr (std::is_floating_point_v<T>) {
    std::optional<T> number = parseFloat<T>(text);
    if (number && std::isfinite(*number)) {
      value = *number;
      return std::nullopt;
    }
    if (number)
      return concat(quote(text), " is beyond what ", nameOf(dtype), " holds");
  } else {
    std::string_view digits = withoutPlus(text);
    auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    bool whole = end == digits.data() + digits.size() && code != std::errc::invalid_argument;
    if (whole && code == std::errc() && (dtype != DLRT_BOOL || value == 0 || value == 1))
      return std::nullopt;
    if (whole || (dtype == DLRT_U8 && parseInteger<int64_t>(digits)))
      return dtype == DLRT_BOOL ? concat(quote(text), " is no bool, which is 0 or 1")
                                : concat(quote(text), " does not fit ", nameOf(dtype));
    if (isNumber(text))
      return concat(quote(text), " is not a whole number, which ", nameOf(dtype), " asks for");
  }
  return concat(quote(text), " is not a number; text is not converted: a class must be the number "
                             "of its class");
}

//===----------------------------------------------------------------------===//
// Columns
//===----------------------------------------------------------------------===//

namespace {
struct Selection {
  std::vector<size_t> columns;
  bool isOne = false; // one column by itself, which makes no dimension
};
} // namespace

/// "column 4 ('species')"
static std::string columnText(size_t column, const Record *header) {
  std::string text = concat("column ", column);
  if (header && column < header->size())
    text += concat(" (", quote(trimmed((*header)[column])), ')');
  return text;
}

static std::vector<std::string> namesIn(const Record &record) {
  std::vector<std::string> names;
  for (size_t i = 0; i < record.size(); ++i)
    names.emplace_back(trimmed(record[i]));
  return names;
}

static std::vector<std::string_view> splitAtCommas(std::string_view text) {
  std::vector<std::string_view> items;
  for (;;) {
    size_t comma = text.find(',');
    items.push_back(text.substr(0, comma));
    if (comma == std::string_view::npos)
      return items;
    text.remove_prefix(comma + 1);
  }
}

/// Whether the first line is a header; an error where it could as well be a row, since then a row
/// would be lost or a name read.
static Expected<bool> isHeader(const Record &first, const Record *second,
                               const std::vector<std::string_view> &items) {
  size_t numbers = 0, filled = 0;
  std::optional<size_t> evidence;
  for (size_t i = 0; i < first.size(); ++i) {
    std::string_view field = trimmed(first[i]);
    if (field.empty())
      continue;
    ++filled;
    if (isNumber(field)) {
      ++numbers;
      continue;
    }
    if (std::find(items.begin(), items.end(), field) != items.end())
      return true;
    if (!evidence && second && i < second->size() && isNumber((*second)[i]))
      evidence = i;
  }
  if (numbers == filled)
    return false;
  if (numbers > 0 && evidence)
    return makeError("line ", first.line, ": column ", *evidence, " is ",
                     quote(trimmed(first[*evidence])),
                     " and goes on with a number, but other fields of the line are numbers: "
                     "it is neither a header nor a row; take the line away or put numbers in");
  return numbers == 0 && (evidence || !second);
}

static Expected<Selection> select(const std::vector<std::string_view> &items, const Record &first,
                                  bool header) {
  Selection selection;
  selection.isOne = items.size() == 1;
  std::vector<std::string> names;
  if (header)
    names = namesIn(first);
  auto inRange = [&](size_t column) -> Status {
    if (column < first.size())
      return {};
    return makeError("no column ", column, "; it has ", first.size(), ", 0 to ", first.size() - 1);
  };
  for (std::string_view item : items) {
    auto found = std::find(names.begin(), names.end(), item);
    if (found != names.end()) {
      if (std::find(found + 1, names.end(), item) != names.end())
        return makeError("several columns have the name ", quote(item),
                         "; choose one by its number");
      selection.columns.push_back(static_cast<size_t>(found - names.begin()));
      continue;
    }
    if (std::optional<size_t> column = parseInteger<size_t>(item)) {
      if (Status status = inRange(*column); !status)
        return status.error();
      selection.columns.push_back(*column);
      continue;
    }
    size_t dash = item.find('-');
    std::optional<size_t> from, to;
    if (dash != std::string_view::npos) {
      from = parseInteger<size_t>(item.substr(0, dash));
      to = parseInteger<size_t>(item.substr(dash + 1));
    }
    if (!from || !to) {
      if (header)
        return noSuchPart("column", item, names);
      return makeError("no column ", quote(item),
                       ": it has no header, so columns have numbers, 0 to ", first.size() - 1);
    }
    if (*from > *to)
      return makeError("columns ", quote(item), ": a range begins with its smaller number");
    for (size_t end : {*from, *to})
      if (Status status = inRange(end); !status)
        return status.error();
    for (size_t column = *from; column <= *to; ++column)
      selection.columns.push_back(column);
    selection.isOne = false;
  }
  return selection;
}

//===----------------------------------------------------------------------===//
// Reading
//===----------------------------------------------------------------------===//

namespace {
/// Elements of a number that shows only at the end.
class Elements {
public:
  explicit Elements(uint64_t limit) : limit(limit) {}

  /// Room for `bytes` bytes more.
  Expected<std::byte *> grow(size_t bytes) {
    if (used + bytes > limit)
      return makeError("its elements take more than the limit of ", limit, " bytes");
    if (used + bytes > buffer.size() || !buffer.data()) {
      Buffer larger(std::max<size_t>({used + bytes, buffer.size() * 2, 4096}));
      if (used > 0)
        std::memcpy(larger.data(), buffer.data(), used);
      buffer = std::move(larger);
    }
    std::byte *place = buffer.data() + used;
    used += bytes;
    return place;
  }

  Buffer take() {
    if (!buffer.data())
      buffer = Buffer(0);
    buffer.truncate(used);
    return std::move(buffer);
  }

private:
  Buffer buffer;
  size_t used = 0;
  uint64_t limit;
};
} // namespace

template <typename T>
static Status appendRow(const Record &record, const Selection &selection, const Record *header,
                        dlrt_dtype dtype, Elements &elements) {
  Expected<std::byte *> place = elements.grow(selection.columns.size() * sizeof(T));
  if (!place)
    return place.error();
  std::byte *to = *place;
  for (size_t column : selection.columns) {
    T value{};
    if (std::optional<std::string> problem = parseElement(record[column], dtype, value))
      return makeError("line ", record.line, ", ", columnText(column, header), ": ", *problem);
    std::memcpy(to, &value, sizeof(T));
    to += sizeof(T);
  }
  return {};
}

Expected<Array> readCsv(ByteReader &reader, const std::optional<std::string> &columns,
                        dlrt_dtype dtype, uint64_t limit) {
  decltype(&appendRow<float>) append = nullptr;
  if (!withType(dtype, [&](auto zero) { append = appendRow<decltype(zero)>; }))
    return makeError("a CSV file is not read as ", nameOf(dtype));
  RecordReader records(reader);
  Record first, record;
  Expected<bool> more = records.next(first);
  if (!more)
    return more.error();
  if (!*more)
    return makeError("the file is empty");
  if (first.size() == 1 && first.text.find_first_of(";\t") != std::string::npos)
    return makeError("line ", first.line,
                     " has no comma, but ';' or tabs; fields are separated by commas");
  more = records.next(record);
  if (!more)
    return more.error();

  std::vector<std::string_view> items;
  if (columns)
    items = splitAtCommas(*columns);
  Expected<bool> header = isHeader(first, *more ? &record : nullptr, items);
  if (!header)
    return header.error();
  Selection selection;
  if (columns) {
    Expected<Selection> selected = select(items, first, *header);
    if (!selected)
      return selected.error();
    selection = std::move(*selected);
  } else {
    for (size_t i = 0; i < first.size(); ++i)
      selection.columns.push_back(i);
  }

  const Record *names = *header ? &first : nullptr;
  Elements elements(limit);
  int64_t rows = 0;
  if (!*header) {
    if (Status status = append(first, selection, names, dtype, elements); !status)
      return status.error();
    ++rows;
  }
  while (*more) {
    if (record.size() != first.size())
      return makeError("line ", record.line, " has ",
                       counted(static_cast<int64_t>(record.size()), "field"), ", line ", first.line,
                       " has ", first.size());
    if (Status status = append(record, selection, names, dtype, elements); !status)
      return status.error();
    ++rows;
    more = records.next(record);
    if (!more)
      return more.error();
  }
  Array array{dtype, {rows}, elements.take()};
  if (!selection.isOne)
    array.dims.push_back(static_cast<int64_t>(selection.columns.size()));
  return array;
}

Expected<std::vector<std::string>> readCsvHeader(ByteReader &reader) {
  RecordReader records(reader);
  Record first;
  Expected<bool> more = records.next(first);
  if (!more)
    return more.error();
  if (!*more)
    return makeError("the file is empty");
  return namesIn(first);
}

} // namespace dlc::run
