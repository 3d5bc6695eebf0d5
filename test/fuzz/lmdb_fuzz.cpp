//===- lmdb_fuzz.cpp - no file may crash the reader of data bases -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// A libFuzzer target: any bytes are a data base whose rows are read, or an error.
//
//===----------------------------------------------------------------------===//

#include "Lmdb.h"

#include <sys/mman.h>
#include <unistd.h>

using namespace dlc::run;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  int file = memfd_create("data.mdb", MFD_CLOEXEC);
  if (file < 0 || write(file, data, size) != static_cast<ssize_t>(size))
    __builtin_trap();
  for (const char *part : {"data", "label"}) {
    Expected<std::unique_ptr<Rows>> rows = openLmdb(concat("/proc/self/fd/", file), part);
    if (!rows) {
      if (rows.error().message.empty())
        __builtin_trap();
      continue;
    }
    std::optional<uint64_t> bytes = byteCount((*rows)->dtype(), (*rows)->dims());
    if (!bytes)
      __builtin_trap();
    Expected<Array> array = (*rows)->takeAll(/*limit=*/1 << 20);
    if (array ? array->data.size() != *bytes : array.error().message.empty())
      __builtin_trap();
  }
  close(file);
  return 0;
}
