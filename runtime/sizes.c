/*===- sizes.c - sizes that depend on dynamic dimensions -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * A size is a short postfix program (model_abi.h). The programs met here have been checked:
 * operands are there, dimensions exist, the stack neither underflows nor grows beyond
 * DLRT_MAX_SIZE_DEPTH.
 */
#include "internal.h"

#include <stdio.h>
#include <string.h>

/* Quotient towards minus infinity; the caller has excluded b == 0 and the one overflow. */
static int64_t floor_div(int64_t a, int64_t b) {
  return a / b - (a % b != 0 && (a % b < 0) != (b < 0));
}

dlrt_size_result dlrt_size_evaluate(const dl_size *size, const dlrt_binding *binding,
                                    int64_t *out_value) {
  int64_t stack[DLRT_MAX_SIZE_DEPTH];
  uint32_t depth = 0;
  const int64_t *code = size->code, *end = code + size->count;
  while (code < end) {
    int64_t op = *code++;
    if (op == DL_SIZE_CONST) {
      stack[depth++] = *code++;
      continue;
    }
    if (op == DL_SIZE_DIM) {
      if (!(binding->bound >> *code & 1))
        return DLRT_SIZE_UNBOUND;
      stack[depth++] = binding->dims[*code++];
      continue;
    }
    if (op == DL_SIZE_NOT) {
      stack[depth - 1] = !stack[depth - 1];
      continue;
    }
    int64_t b = stack[--depth], a = stack[--depth], value = 0;
    switch (op) {
    case DL_SIZE_ADD:
      if (__builtin_add_overflow(a, b, &value))
        return DLRT_SIZE_OVERFLOW;
      break;
    case DL_SIZE_MUL:
      if (__builtin_mul_overflow(a, b, &value))
        return DLRT_SIZE_OVERFLOW;
      break;
    case DL_SIZE_FLOORDIV:
    case DL_SIZE_CEILDIV:
    case DL_SIZE_MOD:
      if (b == 0)
        return DLRT_SIZE_DIVISION_BY_ZERO;
      if (b == -1 && a == INT64_MIN) {
        if (op != DL_SIZE_MOD)
          return DLRT_SIZE_OVERFLOW;
        break; /* the remainder is 0 */
      }
      value = floor_div(a, b);
      if (op == DL_SIZE_CEILDIV)
        value += a % b != 0;
      else if (op == DL_SIZE_MOD)
        value = a % b != 0 && (a % b < 0) != (b < 0) ? a % b + b : a % b;
      break;
    case DL_SIZE_EQ:
      value = a == b;
      break;
    case DL_SIZE_NE:
      value = a != b;
      break;
    case DL_SIZE_LT:
      value = a < b;
      break;
    case DL_SIZE_LE:
      value = a <= b;
      break;
    case DL_SIZE_AND:
      value = a && b;
      break;
    case DL_SIZE_OR:
      value = a || b;
      break;
    }
    stack[depth++] = value;
  }
  *out_value = stack[0];
  return DLRT_SIZE_OK;
}

bool dlrt_tensor_bytes(uint8_t dtype, uint32_t rank, const int64_t *dims, uint64_t *out_bytes) {
  /* Not cut short at a zero: [0, 2^62, 2^62] is refused as [1, 2^62, 2^62] is. */
  uint64_t bytes = dlrt_dtype_bytes((dlrt_dtype)dtype), product = bytes;
  for (uint32_t d = 0; d < rank; ++d) {
    if (dims[d] < 0 ||
        (dims[d] > 0 && __builtin_mul_overflow(product, (uint64_t)dims[d], &product)))
      return false;
    bytes *= (uint64_t)dims[d];
  }
  *out_bytes = bytes;
  return product <= INT64_MAX;
}

/* An operand on the way to text: where it begins, and how tightly its outermost operator binds. */
typedef struct operand {
  uint16_t start;
  uint8_t binds;
} operand;

static const struct {
  char text[5];
  uint8_t binds;
} operators[] = {
    [DL_SIZE_ADD] = {" + ", 4},    [DL_SIZE_MUL] = {" * ", 5}, [DL_SIZE_FLOORDIV] = {" // ", 5},
    [DL_SIZE_CEILDIV] = {", ", 0}, [DL_SIZE_MOD] = {" % ", 5}, [DL_SIZE_EQ] = {" == ", 3},
    [DL_SIZE_NE] = {" != ", 3},    [DL_SIZE_LT] = {" < ", 3},  [DL_SIZE_LE] = {" <= ", 3},
    [DL_SIZE_AND] = {" && ", 2},   [DL_SIZE_OR] = {" || ", 1},
};
enum { BINDS_ATOM = 6 };

/* Opens a gap of `bytes` bytes at `at` and copies a text into it. False where the buffer is full.
 */
static bool insert(char *buffer, size_t *used, size_t at, const char *text) {
  size_t bytes = strlen(text);
  if (*used + bytes >= DLRT_SIZE_TEXT)
    return false;
  memmove(buffer + at + bytes, buffer + at, *used - at);
  memcpy(buffer + at, text, bytes);
  *used += bytes;
  return true;
}

const char *dlrt_size_text(char buffer[DLRT_SIZE_TEXT], const dl_blob *blob, const dl_size *size) {
  operand stack[DLRT_MAX_SIZE_DEPTH];
  uint32_t depth = 0;
  size_t used = 0;
  bool fits = true;
  const int64_t *code = size->code, *end = code + size->count;
  while (fits && code < end) {
    int64_t op = *code++;
    if (op == DL_SIZE_CONST || op == DL_SIZE_DIM) {
      char number[24];
      const char *text = number;
      if (op == DL_SIZE_CONST)
        snprintf(number, sizeof number, "%lld", (long long)*code);
      else
        text = dlrt_string(blob, ((const dl_ref *)dlrt_at(blob, blob->dims))[*code]);
      ++code;
      stack[depth++] = (operand){(uint16_t)used, BINDS_ATOM};
      fits = insert(buffer, &used, used, text);
      continue;
    }
    if (op == DL_SIZE_NOT) {
      operand *a = &stack[depth - 1];
      if (a->binds < BINDS_ATOM)
        fits = insert(buffer, &used, a->start, "(") && insert(buffer, &used, used, ")");
      fits = fits && insert(buffer, &used, a->start, "!");
      a->binds = BINDS_ATOM;
      continue;
    }
    operand b = stack[--depth], *a = &stack[depth - 1];
    uint8_t binds = operators[op].binds;
    /* Parentheses on the right also at equal strength: a - (b + c), a // (b * c). */
    if (b.binds <= binds)
      fits = insert(buffer, &used, b.start, "(") && insert(buffer, &used, used, ")");
    fits = fits && insert(buffer, &used, b.start, operators[op].text);
    if (fits && op == DL_SIZE_ADD && buffer[b.start + 3] == '-') /* a + -1 is a - 1 */
      memmove(buffer + b.start + 3, buffer + b.start + 4, used - b.start - 4), --used,
          buffer[b.start + 1] = '-';
    if (a->binds < binds)
      fits = fits && insert(buffer, &used, b.start, ")") && insert(buffer, &used, a->start, "(");
    if (op == DL_SIZE_CEILDIV) {
      fits =
          fits && insert(buffer, &used, a->start, "ceildiv(") && insert(buffer, &used, used, ")");
      binds = BINDS_ATOM;
    }
    a->binds = binds;
  }
  if (!fits)
    return "?";
  buffer[used] = 0;
  return buffer;
}

/* Rounds to a binary format narrower than f64 with `exponent` and `mantissa` bits, to nearest even.
 * In integers, because the conversion instructions follow the caller's rounding mode. */
static uint32_t narrow(double value, unsigned exponent, unsigned mantissa) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  uint32_t sign = (uint32_t)(bits >> 63) << (exponent + mantissa);
  uint32_t infinity = ((1u << exponent) - 1) << mantissa;
  int wide = (int)(bits >> 52 & 0x7ff);
  uint64_t fraction = bits & ((1ull << 52) - 1);
  if (wide == 0x7ff)
    return sign | infinity | (fraction ? 1u << (mantissa - 1) : 0);
  if (wide == 0)
    return sign; /* f64's subnormals are below half of every narrower format's smallest value */
  int bias = (1 << (exponent - 1)) - 1, e = wide - 1023 + bias;
  uint64_t significand = fraction | 1ull << 52;
  unsigned shift = 52 - mantissa;
  if (e <= 0) { /* becomes subnormal */
    if (1 - e + (int)shift > 54)
      return sign;
    shift += (unsigned)(1 - e);
    e = 0;
  }
  uint64_t kept = significand >> shift, rest = significand & ((1ull << shift) - 1),
           half = 1ull << (shift - 1);
  kept += rest > half || (rest == half && (kept & 1));
  /* The leading bit of a normal number adds one to the exponent, as does a carry out of rounding.
   */
  uint64_t result = ((uint64_t)(e ? e - 1 : 0) << mantissa) + kept;
  return sign | (result >= infinity ? infinity : (uint32_t)result);
}

void dlrt_store_scalar(uint8_t dtype, double value, void *out_element) {
  switch (dtype) {
  case DL_BOOL: {
    uint8_t element = value != 0;
    memcpy(out_element, &element, sizeof element);
    break;
  }
  case DL_F64:
    memcpy(out_element, &value, sizeof value);
    break;
  case DL_F32: {
    uint32_t element = narrow(value, 8, 23);
    memcpy(out_element, &element, sizeof element);
    break;
  }
  case DL_F16:
  case DL_BF16: {
    uint16_t element = (uint16_t)(dtype == DL_F16 ? narrow(value, 5, 10) : narrow(value, 8, 7));
    memcpy(out_element, &element, sizeof element);
    break;
  }
  default: { /* an integer: the description's check has made sure that it is one and fits; little
                endian takes its low bytes */
    int64_t element = (int64_t)value;
    memcpy(out_element, &element, dlrt_dtype_bytes((dlrt_dtype)dtype));
  }
  }
}
