/*===- status.c - results in words -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===*/
#include "internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct dlrt_status_object {
  dlrt_code code;
  const char *message;
};

/* For when there is no memory even for the words. Never freed. */
static struct dlrt_status_object out_of_memory = {DLRT_OUT_OF_MEMORY, "out of memory"};

enum { MESSAGE_BYTES = 2048 };

dlrt_status dlrt_fail(dlrt_code code, const char *format, ...) {
  char text[MESSAGE_BYTES];
  va_list list;
  va_start(list, format);
  int written = vsnprintf(text, sizeof text, format, list);
  va_end(list);
  size_t length = written < 0 ? 0 : (size_t)written;
  if (length >= sizeof text) { /* shorten at a character's start */
    length = sizeof text - 4;
    while (length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80)
      --length;
    memcpy(text + length, "...", 4);
    length += 3;
  }
  struct dlrt_status_object *status = malloc(sizeof *status + length + 1);
  if (!status)
    return &out_of_memory;
  char *message = (char *)(status + 1);
  memcpy(message, text, length);
  message[length] = 0;
  status->code = code;
  status->message = message;
  return status;
}

dlrt_status dlrt_fail_errno(int error, const char *action, const char *path) {
  /* strerror's words would follow the host's locale. */
  const char *words = strerrordesc_np(error);
  dlrt_code code = error == ENOENT || error == ENOTDIR ? DLRT_NOT_FOUND
                   : error == ENOMEM                   ? DLRT_OUT_OF_MEMORY
                                                       : DLRT_IO;
  return dlrt_fail(code, "'%s': cannot %s: %s", path, action, words ? words : "unknown error");
}

dlrt_status dlrt_fail_memory(const char *what, uint64_t asked) {
  long pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  if (pages < 0 || page < 0)
    return dlrt_fail(DLRT_OUT_OF_MEMORY, "out of memory: %s asked for %llu bytes", what,
                     (unsigned long long)asked);
  return dlrt_fail(DLRT_OUT_OF_MEMORY, "out of memory: %s asked for %llu bytes, %llu are available",
                   what, (unsigned long long)asked,
                   (unsigned long long)pages * (unsigned long long)page);
}

dlrt_code dlrt_status_code(dlrt_status status) { return status ? status->code : DLRT_OK; }
const char *dlrt_status_message(dlrt_status status) { return status ? status->message : ""; }
void dlrt_status_release(dlrt_status status) {
  if (status != &out_of_memory)
    free(status);
}

static const struct {
  char name[6];
  uint8_t bytes;
} dtypes[DL_DTYPE_COUNT] = {{"bool", 1}, {"u8", 1},  {"i8", 1},   {"i16", 2}, {"i32", 4},
                            {"i64", 8},  {"f16", 2}, {"bf16", 2}, {"f32", 4}, {"f64", 8}};

size_t dlrt_dtype_bytes(dlrt_dtype dtype) {
  return (unsigned)dtype < DL_DTYPE_COUNT ? dtypes[dtype].bytes : 0;
}
const char *dlrt_dtype_name(dlrt_dtype dtype) {
  return (unsigned)dtype < DL_DTYPE_COUNT ? dtypes[dtype].name : NULL;
}

const char *dlrt_type_text(char buffer[DLRT_TYPE_TEXT], uint8_t dtype, uint32_t rank,
                           const int64_t *dims) {
  const char *name = dlrt_dtype_name((dlrt_dtype)dtype);
  size_t used = name ? (size_t)snprintf(buffer, DLRT_TYPE_TEXT, "%s", name)
                     : (size_t)snprintf(buffer, DLRT_TYPE_TEXT, "element type %u ", dtype);
  if (rank > DL_MAX_RANK) {
    snprintf(buffer + used, DLRT_TYPE_TEXT - used, " of rank %u", rank);
    return buffer;
  }
  for (uint32_t d = 0; d < rank; ++d)
    used += (size_t)snprintf(buffer + used, DLRT_TYPE_TEXT - used, "%s%lld", d ? ", " : "[",
                             (long long)dims[d]);
  if (rank)
    snprintf(buffer + used, DLRT_TYPE_TEXT - used, "]");
  return buffer;
}
