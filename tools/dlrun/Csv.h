//===- Csv.h - tables of numbers as text -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TOOLS_DLRUN_CSV_H
#define DLC_TOOLS_DLRUN_CSV_H

#include "File.h"

namespace dlc::run {

// A CSV file as RFC 4180 has it: fields between commas, in quotes where they hold commas, quotes
// (twice) or ends of lines; lines end with LF or CR LF, and all have the same number of fields. Its
// first line is a header if it has text alone and a column goes on with a number in the next line,
// or if a column is asked for by a name that it has. Columns count from 0.

/// Reads columns as an array of `dtype`: [rows] for one column, [rows, columns] for a range, a list
/// or all of them. `columns`: names of the header, numbers and ranges of numbers, as in "species",
/// "0-3" or "a,b,7"; nothing: all. Numbers become the nearest float; a whole number must fit its
/// type, a bool is 0 or 1. Everything else in a chosen column is an error that says line and
/// column. `limit`: elements may take so many bytes.
Expected<Array> readCsv(ByteReader &reader, const std::optional<std::string> &columns,
                        dlrt_dtype dtype, uint64_t limit);

/// The names in the first line.
Expected<std::vector<std::string>> readCsvHeader(ByteReader &reader);

} // namespace dlc::run

#endif
