//===- DataFile.h - the formats of data files -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TOOLS_DLRUN_DATAFILE_H
#define DLC_TOOLS_DLRUN_DATAFILE_H

#include "Rows.h"

namespace dlc::run {

/// A file, or a part of one, as the command line names it: "x.npy", "train.npz:images".
struct DataPlace {
  std::string file;
  std::optional<std::string> part;

  /// A text that names a file is that file. Otherwise the part follows a colon behind the longest
  /// name of a file or folder; where there is none, neither is the file.
  static Expected<DataPlace> parse(const std::string &text);
};

/// Opens what `text` names for an argument. A part that is not named is the one called like the
/// argument; of a CSV file it is all columns. `dtype`: what numbers that are text are read as.
/// Errors name the file.
Expected<std::unique_ptr<Rows>> openData(const std::string &text, const std::string &argument,
                                         dlrt_dtype dtype);

/// What the parts of a file are called; a file without parts is an error. Errors name the file.
Expected<std::vector<std::string>> partsOf(const std::string &file);

} // namespace dlc::run

#endif
