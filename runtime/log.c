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

/* So much of a message is shown; what is longer ends in "…". */
enum { MESSAGE_BYTES = 2048 };
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
    if (i == DL_LOG_ELEMENTS) {
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

/* ---- the messages of a call ---- */

typedef struct reading {
  const dl_blob *blob;
  const dlrt_binding *binding;
  const dl_value_desc *results;
  dlrt_log_value_fn value;
  const void *context;
} reading;

/* A result, or a value of a type; false where its shape is not known. */
static bool shape_of(const reading *r, const dl_value_desc *desc, dlrt_tensor *to) {
  *to = (dlrt_tensor){.rank = desc->rank, .dtype = desc->dtype};
  for (uint32_t d = 0; d < to->rank; ++d)
    if (dlrt_size_evaluate(dlrt_value_dim(r->blob, desc, d), r->binding, &to->dims[d]) !=
            DLRT_SIZE_OK ||
        to->dims[d] < 0)
      return false;
  return true;
}

static void begin_message(const reading *r, const dl_log_line *line, message *m) {
  m->used = 0;
  m->full = false;
  m->text[0] = 0;
  append(m, dlrt_string(r->blob, ((const dl_ref *)dlrt_at(r->blob, line->words))[0]));
}

static void append_value(const reading *r, const dl_log_line *line, uint32_t v,
                         const dlrt_tensor *tensor, message *m) {
  if (tensor && tensor->data)
    append_tensor(m, tensor);
  append(m, dlrt_string(r->blob, ((const dl_ref *)dlrt_at(r->blob, line->words))[v + 1]));
}

static uint32_t result_count(const dl_log_line *line) {
  return line->value_count + (line->kept ? 2 : 0);
}

/* How often a line was printed of which some are kept. */
static uint64_t times_printed(const reading *r, uint32_t result) {
  int64_t count = 0;
  const void *data = r->value(r->context, result);
  if (data)
    memcpy(&count, data, sizeof count);
  return count > 0 ? (uint64_t)count : 0;
}

/* The kept message of a line with the smallest number above `after`; false if there is none. A
 * line's numbers increase. */
static bool next_message(const reading *r, const dl_log_line *line, uint32_t result, int64_t after,
                         int64_t *out_number, uint64_t *out_place) {
  const char *numbers = r->value(r->context, result + 1);
  uint64_t end = times_printed(r, result), last = end;
  uint64_t begin = end > line->kept ? end - line->kept : 0;
  if (!numbers)
    return false;
  while (begin < end) {
    uint64_t middle = begin + (end - begin) / 2;
    int64_t number;
    memcpy(&number, numbers + middle % line->kept * sizeof number, sizeof number);
    if (number > after) {
      *out_number = number;
      *out_place = middle % line->kept;
      end = middle;
    } else {
      begin = middle + 1;
    }
  }
  return end < last;
}

static void write_kept(const reading *r, const dl_log_line *line, uint32_t result, uint64_t place,
                       message *m) {
  const dl_value_desc *types = dlrt_at(r->blob, line->types);
  begin_message(r, line, m);
  for (uint32_t v = 0; v < line->value_count; ++v) {
    dlrt_tensor kept, tensor;
    uint64_t count = 1, bytes = dlrt_dtype_bytes((dlrt_dtype)types[v].dtype);
    bool known = shape_of(r, &r->results[result + 2 + v], &kept) && shape_of(r, &types[v], &tensor);
    const char *data = r->value(r->context, result + 2 + v);
    for (uint32_t d = 0; known && d < tensor.rank; ++d)
      count *= (uint64_t)tensor.dims[d];
    if (count > DL_LOG_ELEMENTS)
      count = DL_LOG_ELEMENTS;
    known = known && data && count <= (uint64_t)kept.dims[1];
    if (known)
      tensor.data = (void *)(data + place * (uint64_t)kept.dims[1] * bytes);
    append_value(r, line, v, known ? &tensor : NULL, m);
  }
}

/* Lines of which some are kept, in the order in which they were printed. */
static void write_group(const reading *r, const dl_log_line *lines, uint32_t count, uint32_t result,
                        const dlrt_log *log, uint32_t exported) {
  message m;
  uint32_t at = result;
  for (uint32_t l = 0; l < count; at += result_count(&lines[l++])) {
    uint64_t times = times_printed(r, at);
    if (times <= lines[l].kept)
      continue;
    char text[96];
    snprintf(text, sizeof text, "of %llu messages the last %u are kept: ",
             (unsigned long long)times, lines[l].kept);
    m.used = 0;
    m.full = false;
    append(&m, text);
    const dl_ref *words = dlrt_at(r->blob, lines[l].words);
    for (uint32_t w = 0; w <= lines[l].value_count; ++w) {
      append(&m, w ? "{}" : "");
      append(&m, dlrt_string(r->blob, words[w]));
    }
    log->write(log->user, exported, m.text);
  }
  for (int64_t after = -1;;) {
    int64_t first = INT64_MAX, number;
    uint64_t place, first_place = 0;
    uint32_t line = count, line_result = 0;
    at = result;
    for (uint32_t l = 0; l < count; at += result_count(&lines[l++]))
      if (next_message(r, &lines[l], at, after, &number, &place) && number < first) {
        first = number;
        first_place = place;
        line = l;
        line_result = at;
      }
    if (line == count)
      return;
    write_kept(r, &lines[line], line_result, first_place, &m);
    log->write(log->user, exported, m.text);
    after = first;
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
  const reading r = {blob, binding, dlrt_at(blob, desc->results), value, context};
  uint32_t result = dlrt_shown_results(blob, desc);
  for (uint32_t l = 0; l < table->line_count;) {
    if (lines[l].kept) {
      uint32_t first = l, at = result;
      for (; l < table->line_count && lines[l].kept; ++l)
        result += result_count(&lines[l]);
      write_group(&r, lines + first, l - first, at, log, exported);
      continue;
    }
    message m;
    begin_message(&r, &lines[l], &m);
    for (uint32_t v = 0; v < lines[l].value_count; ++v, ++result) {
      dlrt_tensor tensor;
      bool known = shape_of(&r, &r.results[result], &tensor);
      tensor.data = (void *)value(context, result);
      append_value(&r, &lines[l], v, known ? &tensor : NULL, &m);
    }
    log->write(log->user, exported, m.text);
    ++l;
  }
}
