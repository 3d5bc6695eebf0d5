/*===- cuda_driver.c - opens NVIDIA's libraries -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===*/
#include "cuda_driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

/* The first driver that loads kernels for compute capability 9.0 and has every function we use. */
enum { OLDEST_DRIVER = 12000 };

typedef struct symbol {
  const char *name;
  uint32_t offset; /* of the pointer in its table */
} symbol;

#define SYMBOL(table, field, text) {text, offsetof(table, field)},
static const symbol driver_symbols[] = {
#define ENTRY(field, text, parameters) SYMBOL(dlrt_driver, field, text)
    DLRT_DRIVER_FUNCTIONS(ENTRY)
#undef ENTRY
};
static const symbol blas_symbols[] = {
#define ENTRY(field, text, parameters) SYMBOL(dlrt_blas, field, text)
    DLRT_BLAS_FUNCTIONS(ENTRY)
#undef ENTRY
};

/* Fills in a table; the name of the first function that the library lacks, or NULL. */
static const char *find_symbols(void *library, const symbol *symbols, size_t count, void *table) {
  for (size_t i = 0; i < count; ++i) {
    void *address = dlsym(library, symbols[i].name);
    if (!address && strcmp(symbols[i].name, "cuEventElapsedTime_v2") == 0)
      address = dlsym(library, "cuEventElapsedTime"); /* the same, before CUDA 12.8 */
    if (!address)
      return symbols[i].name;
    memcpy((char *)table + symbols[i].offset, &address, sizeof address);
  }
  return NULL;
}

/* What the loader says, which begins with the library's name. */
static const char *loader_words(void) {
  const char *words = dlerror();
  return words ? words : "unknown error";
}

/* Libraries stay open once they are: threads of theirs may run. Opening failed is tried again. */
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;

static dlrt_status open_driver(dlrt_driver *cu, bool *is_open) {
  void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library)
    return dlrt_fail(DLRT_DEVICE, "no driver: %s", loader_words());
  /* The version first: an older driver lacks functions, and says less about it. */
  int version = 0;
  cu_result result;
  const char *missing = find_symbols(library, driver_symbols, 1, cu);
  if (missing || (result = cu->driver_version(&version)) != CU_SUCCESS)
    version = 0;
  dlrt_status status = NULL;
  if (version < OLDEST_DRIVER)
    status = dlrt_fail(
        DLRT_DEVICE,
        "the driver is too old: it is for CUDA %d.%d, needed is one for %d.%d or later",
        version / 1000, version % 1000 / 10, OLDEST_DRIVER / 1000, OLDEST_DRIVER % 1000 / 10);
  else if ((missing = find_symbols(library, driver_symbols,
                                   sizeof driver_symbols / sizeof *driver_symbols, cu)))
    status = dlrt_fail(DLRT_DEVICE, "the driver (for CUDA %d.%d) lacks '%s'", version / 1000,
                       version % 1000 / 10, missing);
  else if ((result = cu->init(0)) == CU_ERROR_NO_DEVICE)
    status = dlrt_fail(DLRT_DEVICE, "no device: the driver sees no GPU");
  else if (result != CU_SUCCESS) {
    const char *name = NULL, *words = NULL;
    (void)cu->error_name(result, &name);
    (void)cu->error_string(result, &words);
    status = dlrt_fail(DLRT_DEVICE, "the driver does not start: %s (%s, %d)",
                       words ? words : "unknown error", name ? name : "?", result);
  }
  if (status)
    dlclose(library);
  else
    *is_open = true;
  return status;
}

dlrt_status dlrt_driver_open(const dlrt_driver **out_driver) {
  static dlrt_driver driver;
  static bool is_open;
  pthread_mutex_lock(&opening);
  dlrt_status status = is_open ? NULL : open_driver(&driver, &is_open);
  pthread_mutex_unlock(&opening);
  *out_driver = &driver;
  return status;
}

dlrt_status dlrt_driver_failed(const dlrt_driver *cu, uint32_t ordinal, cu_result result,
                               const char *action) {
  const char *name = NULL, *words = NULL;
  (void)cu->error_name(result, &name);
  (void)cu->error_string(result, &words);
  return dlrt_fail(result == CU_ERROR_OUT_OF_MEMORY ? DLRT_OUT_OF_MEMORY : DLRT_DEVICE,
                   "cuda:%u: cannot %s: %s (%s, %d)", ordinal, action,
                   words ? words : "unknown error", name ? name : "?", result);
}

static dlrt_status open_blas(dlrt_blas *blas, bool *is_open) {
  /* What is used of it is the same in both. */
  static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12"};
  void *library = NULL;
  dlrt_status status = NULL;
  for (size_t i = 0; i < sizeof names / sizeof *names && !library; ++i) {
    library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!library && !status) /* the words for the newest */
      status = dlrt_fail(DLRT_DEVICE, "no cuBLASLt: %s", loader_words());
  }
  if (!library)
    return status;
  dlrt_status_release(status);
  const char *missing =
      find_symbols(library, blas_symbols, sizeof blas_symbols / sizeof *blas_symbols, blas);
  if (missing) {
    dlclose(library);
    return dlrt_fail(DLRT_DEVICE, "no cuBLASLt: the library lacks '%s'", missing);
  }
  *is_open = true;
  return NULL;
}

dlrt_status dlrt_blas_open(const dlrt_blas **out_blas) {
  static dlrt_blas blas;
  static bool is_open;
  pthread_mutex_lock(&opening);
  dlrt_status status = is_open ? NULL : open_blas(&blas, &is_open);
  pthread_mutex_unlock(&opening);
  *out_blas = &blas;
  return status;
}
