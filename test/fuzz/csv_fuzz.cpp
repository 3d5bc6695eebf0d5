//===- csv_fuzz.cpp - no file may crash the reader of CSV files -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// A libFuzzer target: any bytes are an array or an error, and an array has the bytes that its type
// says. The first byte chooses the type and whether columns are named, by the line behind it.
//
//===----------------------------------------------------------------------===//

#include "Csv.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0)
    return 0;
  static constexpr dlrt_dtype types[] = {DLRT_BOOL, DLRT_U8,  DLRT_I8,  DLRT_I16,
                                         DLRT_I32,  DLRT_I64, DLRT_F32, DLRT_F64};
  std::string_view text(reinterpret_cast<const char *>(data + 1), size - 1);
  std::optional<std::string> columns;
  if (data[0] & 8) {
    size_t end = std::min(text.find('\n'), text.size());
    columns = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  dlc::run::MemoryReader reader(text);
  dlc::run::Expected<dlc::run::Array> array =
      dlc::run::readCsv(reader, columns, types[data[0] & 7], /*limit=*/1 << 20);
  // An error has words.
  if (!array && array.error().message.empty())
    __builtin_trap();
  if (array && dlc::run::byteCount(array->dtype, array->dims) != array->data.size())
    __builtin_trap();
  return 0;
}
