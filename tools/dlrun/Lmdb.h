//===- Lmdb.h - Caffe's data bases of images -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TOOLS_DLRUN_LMDB_H
#define DLC_TOOLS_DLRUN_LMDB_H

#include "Rows.h"

namespace dlc::run {

// An LMDB data base, a folder with data.mdb or such a file itself, whose values are Datum messages;
// its rows are in the order of the keys. Errors do not name the file: the caller does.
//
// The pages are read here and not by liblmdb, which follows what they say unchecked: a damaged file
// ends it with SIGBUS or SIGSEGV. Nothing is written, no lock is taken: nobody may write meanwhile.

bool looksLikeLmdb(std::string_view start);

/// "data" and "label", what the records have.
std::vector<std::string> lmdbParts();

/// Opens "data", u8 or f32 [rows, channels, height, width] as the first record has it, or "label",
/// i32 [rows]. Values stay in the file; memory has their places, 16 bytes a row. Records that are
/// encoded or of another shape are errors when they are read.
Expected<std::unique_ptr<Rows>> openLmdb(const std::string &path, const std::string &part);

} // namespace dlc::run

#endif
