//===- npy_fuzz.cpp - no file may crash the reader of .npy files -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// A libFuzzer target: any bytes are an array or an error, and an array has the bytes that its type
// says.
//
//===----------------------------------------------------------------------===//

#include "Npy.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  dlc::run::MemoryReader reader(std::string_view(reinterpret_cast<const char *>(data), size));
  dlc::run::Expected<dlc::run::Array> array = dlc::run::readNpy(reader, /*limit=*/1 << 20);
  // An error has words.
  if (!array && array.error().message.empty())
    __builtin_trap();
  if (array && dlc::run::byteCount(array->dtype, array->dims) != array->data.size())
    __builtin_trap();
  return 0;
}
