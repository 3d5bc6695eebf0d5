//===- Dataset.h - data files as batches of a function's arguments -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TOOLS_DLRUN_DATASET_H
#define DLC_TOOLS_DLRUN_DATASET_H

#include "File.h"
#include "Rows.h"

#include <span>

namespace dlc::run {

/// Reads a .npy or an IDX file, gzip-compressed or not; its first bytes say which. Errors name the
/// file.
Expected<Array> readArray(const std::string &path);
/// The same for an open stream; errors do not name it.
Expected<Array> readArray(ByteReader &reader, uint64_t limit);

/// What every element is multiplied by: a number or a fraction. A fraction is kept as one, so that
/// 1/255 divides by 255 and rounds once.
struct Scale {
  double numerator = 1, denominator = 1;
  std::string text = "1";

  static Expected<Scale> parse(std::string_view text);
  bool isOne() const { return numerator == denominator; }
};

/// What an argument wants of a column.
struct ColumnType {
  std::string argument; // its name
  std::string function; // of which function
  std::string type;     // as text, "f32[N, 784]"
  dlrt_dtype dtype;
  std::vector<int64_t> dims; // the first is the batch; -1: dynamic
};

/// One data file, read row by row as an argument wants it: elements converted where nothing is
/// lost, rows reshaped where they have the same number of elements, and scaled.
class Column {
public:
  /// `file` is its name in errors. Where not every number of the file's type is one of the
  /// argument's, each is looked at here, so the whole file is read once.
  static Expected<Column> create(std::unique_ptr<Rows> source, std::string file,
                                 const ColumnType &type, const Scale &scale);
  static Expected<Column> create(Array array, std::string file, const ColumnType &type,
                                 const Scale &scale) {
    return create(rowsOf(std::move(array)), std::move(file), type, scale);
  }

  const std::string &name() const { return argument; }
  int64_t rows() const { return source->dims()[0]; }
  dlrt_dtype dtype() const { return target; }
  size_t rowBytes() const { return rowElements * bytesOf(target); }
  /// The dimensions of a batch of so many rows.
  std::vector<int64_t> batchDims(int64_t batchRows) const;
  /// Writes these rows one after another. Fails where they cannot be read from the file any more.
  Status gather(std::span<const int64_t> rowNumbers, std::byte *to) const;
  /// "u8[60000, 28, 28]": what the file holds.
  std::string fileType() const { return source->typeText(); }
  const Scale &scale() const { return factor; }

private:
  Column() = default;
  template <typename From>
  void gatherFrom(const std::byte *elements, std::span<const int64_t> rowNumbers,
                  std::byte *to) const;
  template <typename From, typename To>
  void convertRows(const std::byte *elements, std::span<const int64_t> rowNumbers,
                   std::byte *to) const;

  std::string argument, file;
  std::unique_ptr<Rows> source;
  mutable Buffer staged; // rows as the file has them, before they are converted
  dlrt_dtype target = DLRT_F32;
  Scale factor;
  std::vector<int64_t> rowDims;
  size_t rowElements = 0;
};

/// Columns of the same number of rows.
class Dataset {
public:
  /// `origin` is the option that named the files, for errors.
  static Expected<Dataset> create(std::vector<Column> columns, std::string_view origin);

  int64_t rows() const { return rowCount; }
  const std::vector<Column> &columns() const { return columnList; }

private:
  std::vector<Column> columnList;
  int64_t rowCount = 0;
};

/// The order of an epoch's rows: a permutation that depends on seed, epoch and number of rows
/// alone, so that a resumed training finds it again, on any machine.
std::vector<int64_t> epochOrder(uint64_t seed, uint64_t epoch, int64_t rows);

} // namespace dlc::run

#endif
