//===- LoadArray.cpp - arrays in files as constants -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "LoadArray.h"

#include "tools/dlrun/Dataset.h"

using namespace dlc;
using namespace dlc::language;

llvm::Expected<ArrayValue> language::loadArray(const std::string &path) {
  try {
    run::Expected<run::Array> array = run::readArray(path);
    if (!array)
      return llvm::createStringError(array.error().message);
    ArrayValue value;
    static_assert(static_cast<int>(DType::F64) == DLRT_F64, "element types have equal numbers");
    value.dtype = static_cast<DType>(array->dtype);
    value.shape = array->dims;
    auto *bytes = reinterpret_cast<const char *>(array->data.data());
    value.bytes.assign(bytes, bytes + array->data.size());
    return value;
  } catch (const std::bad_alloc &) {
    return llvm::createStringError("there is no memory for '" + path + "'");
  }
}
