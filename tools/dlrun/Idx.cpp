//===- Idx.cpp - the IDX files of the MNIST family -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Idx.h"

namespace dlc::run {

static std::optional<dlrt_dtype> elementType(unsigned char code) {
  switch (code) {
  case 0x08:
    return DLRT_U8;
  case 0x09:
    return DLRT_I8;
  case 0x0B:
    return DLRT_I16;
  case 0x0C:
    return DLRT_I32;
  case 0x0D:
    return DLRT_F32;
  case 0x0E:
    return DLRT_F64;
  default:
    return std::nullopt;
  }
}

bool looksLikeIdx(std::string_view start) {
  return start.size() >= 4 && start[0] == 0 && start[1] == 0 &&
         elementType(static_cast<unsigned char>(start[2])) && start[3] != 0;
}

Expected<Array> readIdx(ByteReader &reader, uint64_t limit) {
  unsigned char start[4];
  Expected<size_t> count = reader.read(start, sizeof(start));
  if (!count)
    return count.error();
  if (*count < sizeof(start) ||
      !looksLikeIdx(std::string_view(reinterpret_cast<const char *>(start), sizeof(start))))
    return makeError("not an IDX file");
  size_t rank = start[3];
  if (rank > DLRT_MAX_RANK)
    return makeError("it has ", rank, " dimensions, more than ", DLRT_MAX_RANK);

  Array array;
  array.dtype = *elementType(start[2]);
  for (size_t i = 0; i < rank; ++i) {
    unsigned char size[4];
    count = reader.read(size, sizeof(size));
    if (!count)
      return count.error();
    if (*count < sizeof(size))
      return makeError("truncated in its header");
    array.dims.push_back(int64_t(size[0]) << 24 | int64_t(size[1]) << 16 | int64_t(size[2]) << 8 |
                         int64_t(size[3]));
  }
  std::optional<uint64_t> bytes = byteCount(array.dtype, array.dims);
  if (!bytes)
    return makeError("its shape ", typeText(array), " has more bytes than there are numbers");
  Expected<Buffer> data = readElements(reader, *bytes, limit);
  if (!data)
    return data.error();
  array.data = std::move(*data);

  size_t width = bytesOf(array.dtype);
  if (width > 1)
    for (size_t at = 0; at < array.data.size(); at += width)
      for (size_t low = 0, high = width - 1; low < high; ++low, --high)
        std::swap(array.data.data()[at + low], array.data.data()[at + high]);
  return array;
}

} // namespace dlc::run
