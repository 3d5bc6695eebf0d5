/*===- HeadersAreC.c - the public headers compile as C11 -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===*/
#include "dlrt/dlrt.h"

#include "dlrt/model_abi.h"

#include "dlrt/dlrt.h" /* twice is fine */

int dlc_headers_are_c(void);
int dlc_headers_are_c(void) {
  return dlrt_dtype_bytes(DLRT_F32) == 4 && (int)DL_F64 == (int)DLRT_F64 ? 0 : 1;
}
