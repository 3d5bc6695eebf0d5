//===- Dataset.cpp - data files as batches of a function's arguments -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Dataset.h"

#include "Idx.h"
#include "Npy.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

namespace dlc::run {

//===----------------------------------------------------------------------===//
// Files
//===----------------------------------------------------------------------===//

Expected<Array> readArray(ByteReader &reader, uint64_t limit) {
  Expected<std::string_view> start = reader.peek(npyMagic.size());
  if (!start)
    return start.error();
  if (start->empty())
    return makeError("the file is empty");
  if (*start == npyMagic)
    return readNpy(reader, limit);
  if (looksLikeIdx(*start))
    return readIdx(reader, limit);
  return makeError("neither a .npy nor an IDX file");
}

Expected<Array> readArray(const std::string &path) {
  Expected<std::unique_ptr<FileReader>> reader = FileReader::open(path);
  Expected<Array> array = reader ? readArray(**reader, physicalMemory()) : reader.error();
  if (!array)
    return makeError(quote(path), ": ", array.error().message);
  return array;
}

//===----------------------------------------------------------------------===//
// Scale
//===----------------------------------------------------------------------===//

Expected<Scale> Scale::parse(std::string_view text) {
  size_t slash = text.find('/');
  std::optional<double> numerator = parseNumber(text.substr(0, slash));
  std::optional<double> denominator =
      slash == std::string_view::npos ? 1.0 : parseNumber(text.substr(slash + 1));
  if (!numerator || !denominator || !std::isfinite(*numerator) || !std::isfinite(*denominator) ||
      *denominator == 0)
    return makeUsageError("a scale is a number or a fraction such as 1/255, got ", quote(text));
  return Scale{*numerator, *denominator, std::string(text)};
}

//===----------------------------------------------------------------------===//
// Column
//===----------------------------------------------------------------------===//

/// Whether a whole number has a counterpart of type To with the same value.
template <typename To> static bool fits(int64_t value) {
  if constexpr (std::is_integral_v<To>)
    return value >= static_cast<int64_t>(std::numeric_limits<To>::min()) &&
           value <= static_cast<int64_t>(std::numeric_limits<To>::max());
  else {
    // Beyond 2^24 (2^53) not every whole number is a float (double).
    constexpr int64_t limit = INT64_C(1) << std::numeric_limits<To>::digits;
    return value >= -limit && value <= limit;
  }
}

/// Calls `look` with all elements of a file, a block of rows at a time: with their number in the
/// file and how many they are.
template <typename Look> static Status inBlocks(Rows &source, Look look) {
  const std::vector<int64_t> &dims = source.dims();
  uint64_t count = elementCount(dims).value_or(0);
  if (source.elements()) {
    look(source.elements(), 0, static_cast<size_t>(count));
    return {};
  }
  if (count == 0)
    return {};
  constexpr uint64_t blockBytes = UINT64_C(8) << 20;
  uint64_t rowElements = count / static_cast<uint64_t>(dims[0]);
  uint64_t rowBytes = rowElements * bytesOf(source.dtype());
  int64_t blockRows =
      std::min(dims[0], static_cast<int64_t>(std::max<uint64_t>(1, blockBytes / rowBytes)));
  Buffer block(static_cast<size_t>(rowBytes) * static_cast<size_t>(blockRows));
  std::vector<int64_t> rows(static_cast<size_t>(blockRows));
  for (int64_t first = 0; first < dims[0]; first += blockRows) {
    rows.resize(static_cast<size_t>(std::min(blockRows, dims[0] - first)));
    std::iota(rows.begin(), rows.end(), first);
    if (Status status = source.read(rows, block.data()); !status)
      return status;
    look(block.data(), static_cast<uint64_t>(first) * rowElements,
         rows.size() * static_cast<size_t>(rowElements));
  }
  return {};
}

/// Why elements of `source` cannot become `type.dtype` without loss; empty: they can.
static Expected<std::string> conversionProblem(Rows &source, const ColumnType &type, bool scaled) {
  dlrt_dtype from = source.dtype(), to = type.dtype;
  auto refuse = [&] {
    return concat("no conversion from ", nameOf(from), " to ", nameOf(to), " keeps every value");
  };
  if (scaled) {
    if (to != DLRT_F32 && to != DLRT_F64)
      return concat("only f32 and f64 arguments can be scaled, it is ", nameOf(to));
    if (from == DLRT_F16 || from == DLRT_BF16)
      return concat("elements of type ", nameOf(from), " cannot be scaled");
    return std::string();
  }
  if (from == to)
    return std::string();
  if (to == DLRT_BOOL || to == DLRT_F16 || to == DLRT_BF16 || from == DLRT_F16 || from == DLRT_BF16)
    return refuse();
  if (isFloat(from))
    return from == DLRT_F32 && to == DLRT_F64 ? std::string() : refuse();

  auto withTypes = [&](auto body) {
    withType(from, [&](auto fromZero) {
      if constexpr (std::is_integral_v<decltype(fromZero)>)
        withType(to, [&](auto toZero) { body(fromZero, toZero); });
    });
  };
  // Whole numbers: look at each, unless all of the type fit; then the file is not read.
  bool allFit = false;
  withTypes([&](auto fromZero, auto toZero) {
    using Limits = std::numeric_limits<decltype(fromZero)>;
    using To = decltype(toZero);
    allFit = fits<To>(static_cast<int64_t>(Limits::min())) &&
             fits<To>(static_cast<int64_t>(Limits::max()));
  });
  if (allFit)
    return std::string();
  std::string problem;
  auto look = [&](const std::byte *elements, uint64_t first, size_t count) {
    withTypes([&](auto fromZero, auto toZero) {
      const auto *values = reinterpret_cast<const decltype(fromZero) *>(elements);
      for (size_t i = 0; i < count && problem.empty(); ++i)
        if (!fits<decltype(toZero)>(static_cast<int64_t>(values[i])))
          problem = concat("element ", first + i, " is ", static_cast<int64_t>(values[i]),
                           ", which ", nameOf(to), " does not hold");
    });
  };
  if (Status status = inBlocks(source, look); !status)
    return status.error();
  return problem;
}

Expected<Column> Column::create(std::unique_ptr<Rows> source, std::string file,
                                const ColumnType &type, const Scale &scale) {
  std::string both = concat(quote(file), " holds ", source->typeText(), ", argument ",
                            quote(type.argument), " of ", quote(type.function), " is ", type.type);
  const std::vector<int64_t> &dims = source->dims();
  if (type.dims.empty())
    return makeError(both, ": a scalar takes no data file; give it as --input ", type.argument,
                     "=NUMBER");
  if (dims.empty())
    return makeError(both, ": a data file needs rows");
  Expected<std::string> problem = conversionProblem(*source, type, !scale.isOne());
  if (!problem)
    return makeError(quote(file), ": ", problem.error().message);
  if (!problem->empty())
    return makeError(both, ": ", *problem);

  Column column;
  std::vector<int64_t> fileRow(dims.begin() + 1, dims.end());
  std::vector<int64_t> wantedRow(type.dims.begin() + 1, type.dims.end());
  bool isStatic =
      std::all_of(wantedRow.begin(), wantedRow.end(), [](int64_t dim) { return dim >= 0; });
  std::optional<uint64_t> fileElements = elementCount(fileRow);
  if (!fileElements)
    return makeError(both, ": its rows are too large");
  if (isStatic) {
    std::optional<uint64_t> wantedElements = elementCount(wantedRow);
    if (wantedElements != fileElements)
      return makeError(both, ": a row of the file has ", *fileElements,
                       " elements, one of the argument ", wantedElements.value_or(0));
    column.rowDims = wantedRow;
  } else {
    // The file decides the dynamic sizes, so its rows must have the argument's form.
    if (fileRow.size() != wantedRow.size())
      return makeError(both, ": ", dims.size(), " dimensions for ", type.dims.size());
    for (size_t i = 0; i < wantedRow.size(); ++i)
      if (wantedRow[i] >= 0 && wantedRow[i] != fileRow[i])
        return makeError(both, ": dimension ", i + 1, " is ", fileRow[i], ", expected ",
                         wantedRow[i]);
    column.rowDims = fileRow;
  }
  column.argument = type.argument;
  column.target = type.dtype;
  column.factor = scale;
  column.rowElements = static_cast<size_t>(*fileElements);
  column.source = std::move(source);
  column.file = std::move(file);
  return column;
}

std::vector<int64_t> Column::batchDims(int64_t batchRows) const {
  std::vector<int64_t> dims = {batchRows};
  dims.insert(dims.end(), rowDims.begin(), rowDims.end());
  return dims;
}

template <typename From, typename To>
void Column::convertRows(const std::byte *elements, std::span<const int64_t> rowNumbers,
                         std::byte *to) const {
  const From *source = reinterpret_cast<const From *>(elements);
  To *target = reinterpret_cast<To *>(to);
  bool scaled = !factor.isOne();
  auto convert = [&](From value) {
    if (!scaled)
      return static_cast<To>(value);
    // In f64 and rounded once. For a fraction 1/n this is the value divided by n.
    return static_cast<To>(static_cast<double>(value) * factor.numerator / factor.denominator);
  };
  if constexpr (sizeof(From) == 1) {
    // A byte has 256 values: pictures cost a table look-up per pixel instead of a division.
    To table[256];
    for (int i = 0; i < 256; ++i)
      table[i] = convert(static_cast<From>(i));
    for (size_t k = 0; k < rowNumbers.size(); ++k) {
      // Shuffled rows are new to every cache: fetch the next while this one is converted.
      if (k + 1 < rowNumbers.size()) {
        const From *next = source + static_cast<size_t>(rowNumbers[k + 1]) * rowElements;
        for (size_t i = 0; i < std::min<size_t>(rowElements, 8192); i += 64)
          __builtin_prefetch(next + i);
      }
      const From *from = source + static_cast<size_t>(rowNumbers[k]) * rowElements;
      for (size_t i = 0; i < rowElements; ++i)
        target[i] = table[static_cast<uint8_t>(from[i])];
      target += rowElements;
    }
  } else {
    for (int64_t row : rowNumbers) {
      const From *from = source + static_cast<size_t>(row) * rowElements;
      for (size_t i = 0; i < rowElements; ++i)
        target[i] = convert(from[i]);
      target += rowElements;
    }
  }
}

template <typename From>
void Column::gatherFrom(const std::byte *elements, std::span<const int64_t> rowNumbers,
                        std::byte *to) const {
  withType(target, [&](auto zero) { convertRows<From, decltype(zero)>(elements, rowNumbers, to); });
}

Status Column::gather(std::span<const int64_t> rowNumbers, std::byte *to) const {
  bool asTheyAre = source->dtype() == target && factor.isOne();
  const std::byte *elements = source->elements();
  std::vector<int64_t> stagedRows;
  if (asTheyAre || !elements) {
    size_t bytes = rowElements * bytesOf(source->dtype()) * rowNumbers.size();
    if (!asTheyAre && staged.size() < bytes)
      staged = Buffer(bytes);
    if (Status status = source->read(rowNumbers, asTheyAre ? to : staged.data()); !status)
      return makeError(quote(file), ": ", status.error().message);
    if (asTheyAre)
      return {};
    elements = staged.data();
    stagedRows.resize(rowNumbers.size());
    std::iota(stagedRows.begin(), stagedRows.end(), 0);
    rowNumbers = stagedRows;
  }
  withType(source->dtype(),
           [&](auto zero) { gatherFrom<decltype(zero)>(elements, rowNumbers, to); });
  return {};
}

//===----------------------------------------------------------------------===//
// Dataset
//===----------------------------------------------------------------------===//

Expected<Dataset> Dataset::create(std::vector<Column> columns, std::string_view origin) {
  Dataset dataset;
  for (const Column &column : columns)
    if (column.rows() != columns.front().rows())
      return makeError(origin, ": ", quote(columns.front().name()), " has ", columns.front().rows(),
                       " rows (", columns.front().fileType(), "), ", quote(column.name()), " has ",
                       column.rows(), " (", column.fileType(), ")");
  if (!columns.empty())
    dataset.rowCount = columns.front().rows();
  if (dataset.rowCount == 0)
    return makeError(origin, ": the data have no rows");
  dataset.columnList = std::move(columns);
  return dataset;
}

//===----------------------------------------------------------------------===//
// Shuffling
//===----------------------------------------------------------------------===//

namespace {
/// Steele, Lea, Flood: Fast splittable pseudorandom number generators (OOPSLA 2014).
class SplitMix64 {
public:
  explicit SplitMix64(uint64_t state) : state(state) {}

  uint64_t next() {
    uint64_t z = state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
  }

  /// Uniform in [0, bound): Lemire's multiplication, without its bias.
  uint64_t below(uint64_t bound) {
    for (;;) {
      unsigned __int128 product = static_cast<unsigned __int128>(next()) * bound;
      if (static_cast<uint64_t>(product) >= -bound % bound)
        return static_cast<uint64_t>(product >> 64);
    }
  }

private:
  uint64_t state;
};
} // namespace

std::vector<int64_t> epochOrder(uint64_t seed, uint64_t epoch, int64_t rows) {
  std::vector<int64_t> order(static_cast<size_t>(rows));
  std::iota(order.begin(), order.end(), 0);
  // One stream of numbers per seed and epoch: mixing keeps (0, 1) and (1, 0) apart.
  SplitMix64 random(SplitMix64(SplitMix64(seed).next() + epoch).next());
  for (size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[random.below(i)]);
  return order;
}

} // namespace dlc::run
