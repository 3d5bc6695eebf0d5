//===- HeadersAreCxx.cpp - the public headers compile as C++17 -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
#include "dlrt/model_abi.h"

#include "dlrt/dlrt.h"

int dlcHeadersAreCxx();
int dlcHeadersAreCxx() {
  return dlrt_dtype_bytes(DLRT_F32) == 4 && int(DL_F64) == int(DLRT_F64) ? 0 : 1;
}
