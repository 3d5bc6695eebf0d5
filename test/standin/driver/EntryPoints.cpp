//===- EntryPoints.cpp - names of errors and of entry points -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "State.h"
#include <cstring>

namespace standin::driver {

extern "C" {
#define CU_FUNCTION(name, exported, parameters) CUresult exported parameters;
#include "Functions.def"
}

CU_API cuGetErrorName(CUresult error, const char **name) {
  switch (error) {
#define CU_ERROR(code, value, text)                                                                                    \
  case code:                                                                                                           \
    *name = #code;                                                                                                     \
    return CUDA_SUCCESS;
#include "Errors.def"
  }
  *name = nullptr;
  return CUDA_ERROR_INVALID_VALUE;
}

CU_API cuGetErrorString(CUresult error, const char **string) {
  switch (error) {
#define CU_ERROR(code, value, text)                                                                                    \
  case code:                                                                                                           \
    *string = text;                                                                                                    \
    return CUDA_SUCCESS;
#include "Errors.def"
  }
  *string = nullptr;
  return CUDA_ERROR_INVALID_VALUE;
}

CU_API cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t,
                           CUdriverProcAddressQueryResult *status) {
  CU_ENTER(cuGetProcAddress_v2, Need::Nothing);
  if (!symbol || !function)
    return CUDA_ERROR_INVALID_VALUE;
  struct Entry {
    const char *name;
    void *function;
  };
  static const Entry entries[] = {
#define CU_FUNCTION(name, exported, parameters) {#name, reinterpret_cast<void *>(&exported)},
#include "Functions.def"
  };
  CUdriverProcAddressQueryResult found = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  *function = nullptr;
  for (const Entry &entry : entries)
    if (strcmp(entry.name, symbol) == 0) {
      // The table has the newest ABI of each; a caller of another age would get the wrong one.
      found = version >= 13000 && version <= state().config.driverVersion ? CU_GET_PROC_ADDRESS_SUCCESS
                                                                          : CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT;
      if (found == CU_GET_PROC_ADDRESS_SUCCESS)
        *function = entry.function;
    }
  if (status)
    *status = found;
  return found == CU_GET_PROC_ADDRESS_SUCCESS || status ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

} // namespace standin::driver
