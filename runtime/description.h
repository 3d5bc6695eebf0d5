/*===- description.h - checking a model's description -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * The runtime's inner functions on descriptions. They are apart from internal.h because tests and
 * fuzzers, which are C++, call them too.
 */
#ifndef DLRT_DESCRIPTION_H
#define DLRT_DESCRIPTION_H

#include "dlrt/dlrt.h"
#include "dlrt/model_abi.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bounds that every description must keep, so that a reader's time and stack are bounded too. */
#define DLRT_MAX_SIZE_WORDS 1024u
#define DLRT_MAX_SIZE_DEPTH 32u
#define DLRT_MAX_NAME_BYTES 1024u
#define DLRT_MAX_TEXT_BYTES (64u << 10)

/* Checks everything in `bytes` bytes at an 8-byte aligned address: afterwards every reference,
 * string, array and size program of the description may be followed without a check. */
DLRT_MUST_USE dlrt_status dlrt_description_check(const void *data, size_t bytes);

/* Makes a model without code of a description (a copy of the bytes is kept); checks it first. */
DLRT_MUST_USE dlrt_status dlrt_description_model(const void *data, size_t bytes,
                                                 dlrt_model **out_model);

/* NULL where this processor and operating system have all features of a comma separated list, else
 * the refusal. */
DLRT_MUST_USE dlrt_status dlrt_cpu_check(const char *features);

typedef enum dlrt_size_result {
  DLRT_SIZE_OK = 0,
  DLRT_SIZE_OVERFLOW = 1,
  DLRT_SIZE_DIVISION_BY_ZERO = 2,
  DLRT_SIZE_UNBOUND = 3 /* names a dimension that no argument binds */
} dlrt_size_result;

/* Values of the dynamic dimensions; bit k of `bound` says that dimension k has one. */
typedef struct dlrt_binding {
  int64_t dims[DL_MAX_DIMS];
  uint32_t bound;
} dlrt_binding;

/* Evaluates a checked size program. */
dlrt_size_result dlrt_size_evaluate(const dl_size *size, const dlrt_binding *binding,
                                    int64_t *out_value);

/* Places `count` buffers of bytes[i] bytes that live in launches [first[i], last[i]] so that no two
 * that live together overlap. order[count] is workspace. Returns the arena's size, or UINT64_MAX on
 * overflow. */
uint64_t dlrt_plan_offsets(uint32_t count, const uint64_t *bytes, const uint32_t *first,
                           const uint32_t *last, uint32_t *order, uint64_t *out_offsets);

#ifdef __cplusplus
}
#endif
#endif
