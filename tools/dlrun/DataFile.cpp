//===- DataFile.cpp - the formats of data files -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "DataFile.h"

#include "Csv.h"
#include "Dataset.h"
#include "Hdf5.h"
#include "Idx.h"
#include "Lmdb.h"
#include "Npy.h"
#include "Npz.h"

#include <cerrno>
#include <fstream>
#include <sys/stat.h>
#include <unistd.h>

namespace dlc::run {

namespace {
enum class Format { Single, Npz, Csv, Hdf5, Lmdb }; // Single: .npy or IDX, one array
} // namespace

/// The first bytes decide; a name only where they say nothing, so that a damaged file is refused by
/// its own reader.
static Expected<Format> formatOf(const std::string &file) {
  struct stat status;
  if (::stat(file.c_str(), &status) != 0)
    return makeError(errnoText(errno));
  if (S_ISDIR(status.st_mode)) {
    if (access((file + "/data.mdb").c_str(), F_OK) != 0)
      return makeError("a folder without data.mdb is no LMDB data base");
    return Format::Lmdb;
  }
  // A pipe can be read once.
  if (!S_ISREG(status.st_mode))
    return Format::Single;
  std::string start(64, '\0');
  std::ifstream stream(file, std::ios::binary);
  stream.read(start.data(), static_cast<std::streamsize>(start.size()));
  start.resize(static_cast<size_t>(stream.gcount()));

  std::string_view name = file;
  if (start.starts_with(npyMagic) || looksLikeIdx(start))
    return Format::Single;
  if (looksLikeZip(start) || name.ends_with(".npz"))
    return Format::Npz;
  if (looksLikeHdf5(start) || name.ends_with(".h5") || name.ends_with(".hdf5"))
    return Format::Hdf5;
  if (looksLikeLmdb(start) || name.ends_with(".mdb"))
    return Format::Lmdb;
  if (name.ends_with(".csv") || name.ends_with(".csv.gz"))
    return Format::Csv;
  if (start.empty() || start.starts_with("\x1F\x8B") || name.ends_with(".npy"))
    return Format::Single;
  return makeError("not a data file: neither .npy, .npz, IDX, HDF5 or LMDB by its content "
                   "nor .csv by its name");
}

Expected<DataPlace> DataPlace::parse(const std::string &text) {
  auto exists = [](const std::string &file) { return access(file.c_str(), F_OK) == 0; };
  if (exists(text))
    return DataPlace{text, std::nullopt};
  int number = errno;
  for (size_t colon = text.rfind(':'); colon != std::string::npos && colon > 0;
       colon = text.rfind(':', colon - 1)) {
    std::string file = text.substr(0, colon);
    if (!exists(file))
      continue;
    if (colon + 1 == text.size())
      return makeError(quote(file), ": the name of a part is missing after ':'");
    return DataPlace{file, text.substr(colon + 1)};
  }
  size_t colon = text.rfind(':');
  return makeError(quote(text), ": ", errnoText(number),
                   colon == std::string::npos || colon == 0
                       ? std::string()
                       : concat(", nor is there ", quote(text.substr(0, colon))));
}

Expected<std::unique_ptr<Rows>> openData(const std::string &text, const std::string &argument,
                                         dlrt_dtype dtype) {
  Expected<DataPlace> place = DataPlace::parse(text);
  if (!place)
    return place.error();
  uint64_t limit = physicalMemory();
  auto inMemory = [](Expected<Array> array) -> Expected<std::unique_ptr<Rows>> {
    if (!array)
      return array.error();
    return rowsOf(std::move(*array));
  };
  auto open = [&]() -> Expected<std::unique_ptr<Rows>> {
    Expected<Format> format = formatOf(place->file);
    if (!format)
      return format.error();
    std::string part = place->part.value_or(argument);
    switch (*format) {
    case Format::Npz:
      return inMemory(readNpz(place->file, part, limit));
    case Format::Hdf5:
      return openHdf5(place->file, part);
    case Format::Lmdb:
      return openLmdb(place->file, part);
    case Format::Single:
    case Format::Csv:
      break;
    }
    if (*format == Format::Single && place->part)
      return makeError("it holds one array, which has no parts such as ", quote(*place->part));
    Expected<std::unique_ptr<FileReader>> reader = FileReader::open(place->file);
    if (!reader)
      return reader.error();
    if (*format == Format::Csv)
      return inMemory(readCsv(**reader, place->part, dtype, limit));
    return inMemory(readArray(**reader, limit));
  };
  Expected<std::unique_ptr<Rows>> rows = open();
  if (!rows)
    return makeError(quote(place->file), ": ", rows.error().message);
  return rows;
}

Expected<std::vector<std::string>> partsOf(const std::string &file) {
  auto read = [&]() -> Expected<std::vector<std::string>> {
    Expected<Format> format = formatOf(file);
    if (!format)
      return format.error();
    switch (*format) {
    case Format::Npz:
      return npzMembers(file);
    case Format::Hdf5:
      return hdf5Datasets(file);
    case Format::Lmdb:
      return lmdbParts();
    case Format::Csv: {
      Expected<std::unique_ptr<FileReader>> reader = FileReader::open(file);
      if (!reader)
        return reader.error();
      return readCsvHeader(**reader);
    }
    case Format::Single:
      break;
    }
    return makeError("it holds one array; say for which argument, as NAME=", printable(file));
  };
  Expected<std::vector<std::string>> parts = read();
  if (!parts)
    return makeError(quote(file), ": ", parts.error().message);
  return parts;
}

} // namespace dlc::run
