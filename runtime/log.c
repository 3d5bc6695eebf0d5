/*===- log.c - what functions print -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * The values of a function's messages are its last results: they lie in the arena, or come from a
 * GPU with the results, and become text here when the call has gone well. Nothing is allocated.
 */
#include "internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A message, and of a tensor so many elements, are shown; what is longer ends in "…". */
enum { MESSAGE_BYTES = 2048, MOST_ELEMENTS = 64 };
static const char ellipsis[] = "…";

typedef struct message {
  char text[MESSAGE_BYTES + sizeof ellipsis];
  size_t used;
  bool full;
} message;

static void append(message *m, const char *text) {
  size_t bytes = strlen(text);
  if (m->full)
    return;
  if (bytes > MESSAGE_BYTES - m->used) {
    /* Not in the middle of a character. */
    bytes = MESSAGE_BYTES - m->used;
    while (bytes && ((unsigned char)text[bytes] & 0xc0) == 0x80)
      --bytes;
    memcpy(m->text + m->used, text, bytes);
    memcpy(m->text + m->used + bytes, ellipsis, sizeof ellipsis);
    m->used += bytes + sizeof ellipsis - 1;
    m->full = true;
    return;
  }
  memcpy(m->text + m->used, text, bytes + 1);
  m->used += bytes;
}

/* A number with a point, whatever the locale's is. */
static void append_real(message *m, double value, int digits) {
  char text[64], clean[64];
  size_t used = 0;
  if (isnan(value)) {
    append(m, "nan");
    return;
  }
  snprintf(text, sizeof text, "%.*g", digits, value);
  for (const char *c = text; *c; ++c) {
    if (strchr("0123456789+-einf", *c))
      clean[used++] = *c;
    else if (used && clean[used - 1] != '.')
      clean[used++] = '.';
  }
  clean[used] = 0;
  append(m, clean);
}

static void append_element(message *m, uint8_t dtype, const char *data) {
  char text[32];
  int64_t whole = 0;
  switch ((dl_dtype)dtype) {
  case DL_BOOL:
    append(m, *data ? "true" : "false");
    return;
  case DL_F32: {
    float value;
    memcpy(&value, data, sizeof value);
    append_real(m, (double)value, 8);
    return;
  }
  case DL_F64: {
    double value;
    memcpy(&value, data, sizeof value);
    append_real(m, value, 15);
    return;
  }
  case DL_U8:
    whole = *(const uint8_t *)data;
    break;
  case DL_I8:
    whole = *(const int8_t *)data;
    break;
  case DL_I16: {
    int16_t value;
    memcpy(&value, data, sizeof value);
    whole = value;
    break;
  }
  case DL_I32: {
    int32_t value;
    memcpy(&value, data, sizeof value);
    whole = value;
    break;
  }
  case DL_I64:
    memcpy(&whole, data, sizeof whole);
    break;
  default:
    append(m, "?"); /* no program computes these yet */
    return;
  }
  snprintf(text, sizeof text, "%lld", (long long)whole);
  append(m, text);
}

/* "0.5", "[[1, 2], [3, 4]]". */
static void append_tensor(message *m, const dlrt_tensor *tensor) {
  uint64_t count = 1, bytes = dlrt_dtype_bytes((dlrt_dtype)tensor->dtype);
  for (uint32_t d = 0; d < tensor->rank; ++d)
    count *= (uint64_t)tensor->dims[d];
  if (!count) {
    append(m, "[]");
    return;
  }
  for (uint64_t i = 0; i < count; ++i) {
    /* As many brackets open before an element as axes begin with it, and as many close. */
    uint64_t row = 1;
    uint32_t begin = 0, end = 0;
    for (uint32_t d = tensor->rank; d-- > 0;) {
      row *= (uint64_t)tensor->dims[d];
      begin += i % row == 0;
      end += (i + 1) % row == 0;
    }
    if (i)
      append(m, ", ");
    if (i == MOST_ELEMENTS) {
      append(m, ellipsis);
      for (uint32_t d = begin; d < tensor->rank; ++d)
        append(m, "]");
      return;
    }
    while (begin--)
      append(m, "[");
    append_element(m, tensor->dtype, (const char *)tensor->data + i * bytes);
    while (end--)
      append(m, "]");
  }
}

void dlrt_log_write(const dlrt_model *model, uint32_t function, const dlrt_binding *binding,
                    dlrt_log_value_fn value, const void *context, const dlrt_log *log,
                    uint32_t exported) {
  const dl_blob *blob = model->blob;
  const dl_function_desc *desc = &dlrt_functions(blob)[function];
  const dl_log_table *table = dlrt_log_table(blob, desc);
  if (!table || !log->write)
    return;
  const dl_log_line *lines = dlrt_at(blob, table->lines);
  const dl_value_desc *results = dlrt_at(blob, desc->results);
  uint32_t result = dlrt_shown_results(blob, desc);
  for (uint32_t l = 0; l < table->line_count; ++l) {
    const dl_ref *words = dlrt_at(blob, lines[l].words);
    message m = {.used = 0, .full = false};
    m.text[0] = 0;
    append(&m, dlrt_string(blob, words[0]));
    for (uint32_t v = 0; v < lines[l].value_count; ++v, ++result) {
      dlrt_tensor tensor = {.rank = results[result].rank, .dtype = results[result].dtype};
      bool known = true;
      for (uint32_t d = 0; d < tensor.rank; ++d)
        known &= dlrt_size_evaluate(dlrt_value_dim(blob, &results[result], d), binding,
                                    &tensor.dims[d]) == DLRT_SIZE_OK &&
                 tensor.dims[d] >= 0;
      tensor.data = (void *)value(context, result);
      if (known && tensor.data)
        append_tensor(&m, &tensor);
      append(&m, dlrt_string(blob, words[v + 1]));
    }
    log->write(log->user, exported, m.text);
  }
}
