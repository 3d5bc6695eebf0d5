/*===- description.c - checks a model's description -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * A description may come from a damaged or hostile file. Nothing in it is believed: one walk
 * follows every reference with its bounds and checks every number that later code uses as an index,
 * a size or a count. What has passed is read without checks everywhere else.
 */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The walk. `path` says where it is, for messages. */
typedef struct reader {
  const uint8_t *base;
  const dl_blob *blob;
  uint32_t bytes;
  uint64_t listed; /* bytes of the functions' tables so far: more than the blob has would be tables
                      laid over each other */
  char path[256];
  dlrt_status status; /* the first failure */
} reader;

static bool damaged(reader *r, const char *what) {
  if (!r->status)
    r->status = dlrt_fail(DLRT_CORRUPT, "damaged description: %s%s%s", r->path,
                          r->path[0] ? ": " : "", what);
  return false;
}

static void enter(reader *r, const char *kind, uint32_t number) {
  size_t used = strlen(r->path);
  snprintf(r->path + used, sizeof r->path - used, "%s%s %u", used ? ", " : "", kind, number);
}
static void leave(reader *r) {
  char *comma = strrchr(r->path, ',');
  *(comma ? comma : r->path) = 0;
}

/* `count` structures of `size` bytes at a reference; NULL (and a failure) where they do not all lie
 * in the blob. A count of 0 needs no reference. */
static const void *array(reader *r, dl_ref ref, uint64_t count, uint64_t size, uint32_t alignment,
                         const char *what) {
  if (count == 0)
    return r->base;
  if (ref < sizeof(dl_blob) || ref % alignment != 0 || ref > r->bytes ||
      count > (r->bytes - ref) / size) {
    char words[64];
    snprintf(words, sizeof words, "%s out of bounds", what);
    damaged(r, words);
    return NULL;
  }
  return r->base + ref;
}

/* A table of a function. Tables do not overlap, so that what is made of them is no larger than a
 * multiple of the blob. */
static const void *table(reader *r, dl_ref ref, uint32_t count, uint64_t size, uint32_t alignment,
                         const char *what) {
  const void *first = array(r, ref, count, size, alignment, what);
  r->listed += count * size;
  if (first && r->listed > r->bytes) {
    damaged(r, "tables overlap");
    return NULL;
  }
  return first;
}

/* Length of the valid UTF-8 character at a NUL-terminated text, or 0. */
static int utf8_length(const uint8_t *s) {
  static const struct {
    uint8_t mask, lead;
    uint32_t least;
  } forms[] = {{0x80, 0, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
  for (int n = 0; n < 4; ++n) {
    if ((s[0] & forms[n].mask) != forms[n].lead)
      continue;
    uint32_t code = s[0] & (uint8_t)~forms[n].mask;
    for (int i = 1; i <= n; ++i) {
      if ((s[i] & 0xc0) != 0x80)
        return 0;
      code = code << 6 | (s[i] & 0x3f);
    }
    return code < forms[n].least || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? 0
                                                                                         : n + 1;
  }
  return 0;
}

/* A text that ends inside the blob; 0 stands for none where that is allowed. */
static bool text(reader *r, dl_ref ref, uint32_t most, bool required, const char *what) {
  char words[64];
  if (ref == 0 && !required)
    return true;
  snprintf(words, sizeof words, "%s is no text", what);
  if (ref < sizeof(dl_blob) || ref >= r->bytes)
    return damaged(r, words);
  uint32_t room = r->bytes - ref;
  const uint8_t *s = r->base + ref, *end = memchr(s, 0, room < most + 1 ? room : most + 1);
  if (!end || (required && end == s))
    return damaged(r, words);
  return true;
}

/* A text that stands in messages, lists and files: valid UTF-8 without control characters. */
static bool name(reader *r, dl_ref ref, bool required, const char *what) {
  if (!text(r, ref, DLRT_MAX_NAME_BYTES, required, what))
    return false;
  if (ref == 0)
    return true;
  for (const uint8_t *s = r->base + ref; *s;) {
    int length = *s < 0x20 || *s == 0x7f ? 0 : utf8_length(s);
    if (!length) {
      char words[64];
      snprintf(words, sizeof words, "%s is no printable text", what);
      return damaged(r, words);
    }
    s += length;
  }
  return true;
}

static bool size_program(reader *r, dl_ref ref, const char *what) {
  const dl_size *size = array(r, ref, 1, offsetof(dl_size, code), _Alignof(dl_size), what);
  if (!size)
    return false;
  if (size->count > DLRT_MAX_SIZE_WORDS)
    return damaged(r, "a size is too long");
  if (!array(r, ref, 1, offsetof(dl_size, code) + 8ull * size->count, _Alignof(dl_size), what))
    return false;
  uint32_t depth = 0;
  for (uint32_t i = 0; i < size->count; ++i) {
    int64_t op = size->code[i];
    if (op == DL_SIZE_CONST || op == DL_SIZE_DIM) {
      if (++i == size->count || depth == DLRT_MAX_SIZE_DEPTH)
        return damaged(r, "a size is cut off or too deep");
      if (op == DL_SIZE_DIM && (size->code[i] < 0 || size->code[i] >= (int64_t)r->blob->dim_count))
        return damaged(r, "a size names a dimension that does not exist");
      ++depth;
    } else if (op == DL_SIZE_NOT) {
      if (depth < 1)
        return damaged(r, "a size lacks an operand");
    } else if (op >= DL_SIZE_ADD && op <= DL_SIZE_OR) {
      if (depth < 2)
        return damaged(r, "a size lacks an operand");
      --depth;
    } else
      return damaged(r, "a size has an unknown operation");
  }
  return depth == 1 || damaged(r, "a size leaves other than one value");
}

static bool variable(reader *r, const dl_variable_desc *variable) {
  if (!name(r, variable->name, true, "name") ||
      !text(r, variable->doc, DLRT_MAX_TEXT_BYTES, false, "doc"))
    return false;
  if (variable->dtype >= DL_DTYPE_COUNT || variable->rank > DL_MAX_RANK ||
      variable->kind > DL_VARIABLE_RANDOM)
    return damaged(r, "unknown element type, rank or kind");
  const int64_t *dims =
      array(r, variable->dims, variable->rank, sizeof *dims, _Alignof(int64_t), "shape");
  uint64_t bytes;
  if (!dims)
    return false;
  if (!dlrt_tensor_bytes(variable->dtype, variable->rank, dims, &bytes) || bytes != variable->bytes)
    return damaged(r, "bytes do not follow from the shape");
  return true;
}

/* Whether a default value is an element of its type. */
static bool representable(uint8_t dtype, double value) {
  static const struct {
    double least, beyond;
  } ranges[] = {[DL_BOOL] = {0, 2},           [DL_U8] = {0, 0x1p8},
                [DL_I8] = {-0x1p7, 0x1p7},    [DL_I16] = {-0x1p15, 0x1p15},
                [DL_I32] = {-0x1p31, 0x1p31}, [DL_I64] = {-0x1p63, 0x1p63}};
  if (dtype > DL_I64)
    return true;
  return value >= ranges[dtype].least && value < ranges[dtype].beyond &&
         value == (double)(int64_t)value;
}

static bool value(reader *r, const dl_value_desc *value, bool is_argument) {
  if (!name(r, value->name, is_argument, "name"))
    return false;
  if (value->dtype >= DL_DTYPE_COUNT || value->rank > DL_MAX_RANK || value->has_default > 1)
    return damaged(r, "unknown element type or rank");
  if (value->dim && (!is_argument || value->dim > r->blob->dim_count || value->dtype != DL_I64 ||
                     value->rank != 0))
    return damaged(r, "impossible dimension argument");
  if (value->has_default &&
      (!is_argument || value->rank != 0 || !representable(value->dtype, value->default_value)))
    return damaged(r, "impossible default value");
  const dl_ref *dims = array(r, value->dims, value->rank, sizeof *dims, _Alignof(dl_ref), "shape");
  if (!dims)
    return false;
  for (uint32_t d = 0; d < value->rank; ++d)
    if (!size_program(r, dims[d], "size"))
      return false;
  return true;
}

/* Whether a size is the same for every call. */
static bool is_constant(const dl_size *size) {
  for (uint32_t i = 0; i < size->count; ++i)
    if (size->code[i] == DL_SIZE_DIM)
      return false;
    else if (size->code[i] == DL_SIZE_CONST)
      ++i;
  return true;
}

/* The same, and which one it is: not negative. */
static bool is_fixed(const dl_size *size, int64_t *out_value) {
  const dlrt_binding none = {.bound = 0};
  return is_constant(size) && dlrt_size_evaluate(size, &none, out_value) == DLRT_SIZE_OK &&
         *out_value >= 0;
}

static bool buffer(reader *r, const dl_function_desc *function, const dl_buffer_desc *buffer) {
  bool placed = buffer->kind == DL_BUFFER_RESULT || buffer->kind == DL_BUFFER_ARENA, exists = true;
  switch (buffer->kind) {
  case DL_BUFFER_ARGUMENT:
    exists = buffer->index < function->argument_count;
    break;
  case DL_BUFFER_RESULT:
    exists = buffer->index < function->result_count;
    break;
  case DL_BUFFER_VARIABLE:
    exists = buffer->index < r->blob->variable_count;
    break;
  case DL_BUFFER_ARENA:
    break;
  case DL_BUFFER_CONSTANT:
    exists = buffer->index >= sizeof(dl_blob) && buffer->index <= r->bytes &&
             buffer->index % DL_BUFFER_ALIGNMENT == 0;
    break;
  case DL_BUFFER_PREPARED:
    if (!(function->flags & DL_FUNCTION_CONST))
      return damaged(r, "prepared for a function that changes variables");
    break;
  default:
    return damaged(r, "unknown kind");
  }
  if (!exists)
    return damaged(r, "refers to what does not exist");
  /* A function without launches still has lifetimes; all are 0 to 0. */
  uint32_t launches = function->launch_count ? function->launch_count : 1;
  if (placed && (buffer->first > buffer->last || buffer->last >= launches))
    return damaged(r, "impossible lifetime");
  if (!size_program(r, buffer->bytes, "size"))
    return false;
  int64_t bytes;
  return buffer->kind != DL_BUFFER_PREPARED ||
         is_fixed((const dl_size *)(r->base + buffer->bytes), &bytes) ||
         damaged(r, "the size of what is prepared is not constant");
}

/* ---- the program for a GPU ---- */

/* Limits of the hardware and of the driver's launches. */
enum { MAX_THREADS_PER_BLOCK = 1024, MAX_SHARED_BYTES = 1 << 20, MAX_PARAMETERS = 4095 };
/* Loops and branches in each other, which the runtime follows by recursion. */
enum { MAX_NESTING = 512 };

static uint64_t read_u64(const uint8_t *data) {
  uint64_t value;
  memcpy(&value, data, sizeof value);
  return value;
}
static uint16_t read_u16(const uint8_t *data) {
  uint16_t value;
  memcpy(&value, data, sizeof value);
  return value;
}

/* Whether machine code for a GPU is a whole ELF file: the driver takes its length from its headers.
 */
static bool whole_cubin(const uint8_t *data, uint64_t bytes) {
  enum { HEADER = 64, SECTION = 64, SEGMENT = 56, MACHINE_CUDA = 190, NOBITS = 8 };
  if (bytes < HEADER || memcmp(data, "\x7f\x45LF\2\1", 6) != 0 ||
      read_u16(data + 18) != MACHINE_CUDA)
    return false;
  uint64_t sections = read_u64(data + 40), segments = read_u64(data + 32);
  uint16_t section_count = read_u16(data + 60), segment_count = read_u16(data + 56);
  if ((section_count && read_u16(data + 58) != SECTION) ||
      (segment_count && read_u16(data + 54) != SEGMENT) || sections > bytes ||
      section_count > (bytes - sections) / SECTION || segments > bytes ||
      segment_count > (bytes - segments) / SEGMENT ||
      (section_count && read_u16(data + 62) >= section_count))
    return false;
  for (uint16_t i = 0; i < section_count; ++i) {
    const uint8_t *section = data + sections + (uint64_t)i * SECTION;
    uint64_t offset = read_u64(section + 24), size = read_u64(section + 32);
    uint32_t type;
    memcpy(&type, section + 4, sizeof type);
    if (type != 0 && type != NOBITS && (offset > bytes || size > bytes - offset))
      return false;
  }
  for (uint16_t i = 0; i < segment_count; ++i) {
    const uint8_t *segment = data + segments + (uint64_t)i * SEGMENT;
    uint64_t offset = read_u64(segment + 8), size = read_u64(segment + 32);
    if (offset > bytes || size > bytes - offset)
      return false;
  }
  return true;
}

static bool cuda_image(reader *r, const dl_cuda_image *image) {
  if (image->kind > DL_CUDA_CUBIN || image->arch < 10 || image->arch >= 10000)
    return damaged(r, "unknown kind or architecture");
  if (!image->bytes)
    return damaged(r, "data out of bounds");
  const uint8_t *data = array(r, image->data, image->bytes, 1, 1, "data");
  if (!data)
    return false;
  if (image->kind == DL_CUDA_PTX && memchr(data, 0, image->bytes) != data + image->bytes - 1)
    return damaged(r, "PTX does not end with the only NUL in it");
  return image->kind != DL_CUDA_CUBIN || whole_cubin(data, image->bytes) ||
         damaged(r, "machine code is no whole ELF file for a GPU");
}

static bool cuda_kernel(reader *r, const dl_cuda_kernel_desc *kernel) {
  if (!name(r, kernel->symbol, true, "symbol"))
    return false;
  if (kernel->threads < 1 || kernel->threads > MAX_THREADS_PER_BLOCK ||
      kernel->shared_bytes > MAX_SHARED_BYTES)
    return damaged(r, "impossible block");
  return table(r, kernel->resources, kernel->resource_count, sizeof(dl_cuda_resources),
               _Alignof(dl_cuda_resources), "resources");
}

static bool cuda_program(reader *r) {
  const dl_blob *blob = r->blob;
  uint32_t i;
  if (!blob->cuda)
    return !(blob->flags & DL_BLOB_WITHOUT_CPU) ||
           damaged(r, "neither CPU code nor a program for a GPU");
  const dl_cuda_desc *cuda =
      array(r, blob->cuda, 1, sizeof *cuda, _Alignof(dl_cuda_desc), "the program for a GPU");
  if (!cuda)
    return false;
  const dl_cuda_image *images =
      table(r, cuda->images, cuda->image_count, sizeof *images, _Alignof(dl_cuda_image), "images");
  const dl_cuda_kernel_desc *kernels = table(r, cuda->kernels, cuda->kernel_count, sizeof *kernels,
                                             _Alignof(dl_cuda_kernel_desc), "GPU kernels");
  if (!images || !kernels)
    return false;
  if (cuda->kernel_count && !cuda->image_count)
    return damaged(r, "GPU kernels without an image");
  for (i = 0; i < cuda->image_count; ++i, leave(r)) {
    enter(r, "image", i);
    if (!cuda_image(r, &images[i]))
      return false;
  }
  for (i = 0; i < cuda->kernel_count; ++i, leave(r)) {
    enter(r, "GPU kernel", i);
    if (!cuda_kernel(r, &kernels[i]))
      return false;
  }
  return true;
}

static bool work(reader *r, dl_ref ref) {
  if (!ref)
    return true;
  const dl_work_desc *work =
      array(r, ref, 1, sizeof *work, _Alignof(dl_work_desc), "work of a kernel");
  if (!work)
    return false;
  if (work->dtype != DL_F32 && work->dtype != DL_F64)
    return damaged(r, "work of an unknown element type");
  return size_program(r, work->operations, "operations") &&
         size_program(r, work->read_bytes, "size") && size_program(r, work->written_bytes, "size");
}

static bool cuda_parameters(reader *r, const dl_cuda_function_desc *cuda,
                            const dl_cuda_launch_desc *launch) {
  const dl_cuda_parameter *parameters =
      table(r, launch->parameters, launch->parameter_count, sizeof *parameters,
            _Alignof(dl_cuda_parameter), "parameters");
  if (!parameters)
    return false;
  if (launch->parameter_count > MAX_PARAMETERS)
    return damaged(r, "too many parameters");
  for (uint32_t i = 0; i < launch->parameter_count; ++i)
    switch (parameters[i].kind) {
    case DL_CUDA_BUFFER:
      if (parameters[i].value >= cuda->buffer_count)
        return damaged(r, "a parameter refers to a buffer that does not exist");
      break;
    case DL_CUDA_SIZE:
      if (!size_program(r, parameters[i].value, "size"))
        return false;
      break;
    case DL_CUDA_FAULT:
      break;
    default:
      return damaged(r, "a parameter of unknown kind");
    }
  return true;
}

/* A loop or branch. That what it has inside ends with it is for cuda_nesting. */
static bool cuda_control(reader *r, const dl_cuda_function_desc *cuda,
                         const dl_cuda_launch_desc *launch) {
  bool is_loop = launch->kind == DL_CUDA_LAUNCH_FOR;
  const dl_buffer_desc *buffers = (const dl_buffer_desc *)(r->base + cuda->buffers);
  const dl_cuda_parameter *parameters =
      table(r, launch->parameters, launch->parameter_count, sizeof *parameters,
            _Alignof(dl_cuda_parameter), "parameters");
  if (!parameters)
    return false;
  if (launch->when != DL_CUDA_ALWAYS)
    return damaged(r, "unknown kind or condition");
  if (is_loop ? launch->parameter_count < 2 || launch->parameter_count % 2 || launch->other
              : launch->parameter_count != 1)
    return damaged(r, "a loop or branch with other parameters than it has");
  for (uint32_t i = 0; i < launch->parameter_count; ++i) {
    bool may_be_none = is_loop && i < 2;
    if (parameters[i].kind != DL_CUDA_BUFFER)
      return damaged(r, "a parameter of unknown kind");
    if (parameters[i].value == DL_CUDA_NO_BUFFER ? !may_be_none
                                                 : parameters[i].value >= cuda->buffer_count)
      return damaged(r, "a parameter refers to a buffer that does not exist");
    if (is_loop && i >= 2 && buffers[parameters[i].value].kind != DL_BUFFER_ARENA)
      return damaged(r, "a loop exchanges places outside of the arena");
  }
  if (!is_loop)
    return true;
  return size_program(r, launch->grid[0], "first turn") &&
         (!launch->grid[1] || size_program(r, launch->grid[1], "last turn"));
}

/* Loops and branches lie in each other. */
static bool cuda_nesting(reader *r, const dl_cuda_launch_desc *launches, uint32_t first,
                         uint32_t count, uint32_t depth) {
  if (depth > MAX_NESTING)
    return damaged(r, "loops and branches are nested too deeply");
  for (uint32_t l = first, end = first + count; l < end; ++l) {
    const dl_cuda_launch_desc *launch = &launches[l];
    if (launch->kind < DL_CUDA_LAUNCH_FOR)
      continue;
    uint32_t rest = end - l - 1;
    if (launch->index > rest || launch->other > rest - launch->index)
      return damaged(r, "a loop or branch reaches beyond what it is in");
    if (!cuda_nesting(r, launches, l + 1, launch->index, depth + 1) ||
        !cuda_nesting(r, launches, l + 1 + launch->index, launch->other, depth + 1))
      return false;
    l += launch->index + launch->other;
  }
  return true;
}

static bool cuda_launch(reader *r, const dl_cuda_function_desc *cuda,
                        const dl_cuda_launch_desc *launch) {
  const dl_cuda_desc *program = (const dl_cuda_desc *)(r->base + r->blob->cuda);
  if (!name(r, launch->name, true, "name") || !name(r, launch->location, false, "location") ||
      !work(r, launch->work))
    return false;
  if (launch->kind > DL_CUDA_LAUNCH_IF || launch->when > DL_CUDA_WITHOUT_CUBLASLT)
    return damaged(r, "unknown kind or condition");
  if (launch->kind >= DL_CUDA_LAUNCH_FOR)
    return cuda_control(r, cuda, launch);
  if (launch->kind == DL_CUDA_LAUNCH_GEMM) {
    if (launch->when == DL_CUDA_WITHOUT_CUBLASLT)
      return damaged(r, "a product of cuBLASLt for where cuBLASLt is not used");
    return (launch->index < cuda->gemm_count && launch->parameter_count == 0) ||
           damaged(r, "refers to what does not exist");
  }
  if (launch->index >= program->kernel_count)
    return damaged(r, "refers to what does not exist");
  for (int d = 0; d < 3; ++d)
    if (!size_program(r, launch->grid[d], "grid"))
      return false;
  return cuda_parameters(r, cuda, launch);
}

static bool gemm_buffer(reader *r, const dl_cuda_function_desc *cuda, uint32_t buffer,
                        bool required, bool written) {
  if (buffer == DL_CUDA_NO_BUFFER)
    return !required || damaged(r, "a product lacks a buffer");
  if (!required || buffer >= cuda->buffer_count)
    return damaged(r, "a product names a buffer that does not exist");
  const dl_buffer_desc *buffers = (const dl_buffer_desc *)(r->base + cuda->buffers);
  if (written &&
      (buffers[buffer].kind == DL_BUFFER_ARGUMENT || buffers[buffer].kind == DL_BUFFER_CONSTANT))
    return damaged(r, "a product writes to what is read only");
  return true;
}

static bool cuda_gemm(reader *r, const dl_cuda_function_desc *cuda, const dl_cuda_gemm_desc *gemm) {
  if ((gemm->dtype != DL_F32 && gemm->dtype != DL_F64) || gemm->tf32 > (gemm->dtype == DL_F32) ||
      gemm->transpose_a > 1 || gemm->transpose_b > 1 || gemm->epilogue >= DL_CUDA_EPILOGUE_COUNT)
    return damaged(r, "unknown element type, flag or epilogue");
  bool bias, aux, writes_bias, writes_aux;
  dlrt_epilogue_buffers(gemm->epilogue, &bias, &writes_bias, &aux, &writes_aux);
  bool has_c = gemm->c != DL_CUDA_NO_BUFFER;
  if (has_c != (gemm->beta != DL_CUDA_NO_BUFFER))
    return damaged(r, "a product has one of c and beta");
  if (!gemm_buffer(r, cuda, gemm->a, true, false) || !gemm_buffer(r, cuda, gemm->b, true, false) ||
      !gemm_buffer(r, cuda, gemm->c, has_c, false) || !gemm_buffer(r, cuda, gemm->d, true, true) ||
      !gemm_buffer(r, cuda, gemm->alpha, gemm->alpha != DL_CUDA_NO_BUFFER, false) ||
      !gemm_buffer(r, cuda, gemm->beta, has_c, false) ||
      !gemm_buffer(r, cuda, gemm->bias, bias, writes_bias) ||
      !gemm_buffer(r, cuda, gemm->aux, aux, writes_aux))
    return false;
  if (!size_program(r, gemm->m, "size") || !size_program(r, gemm->n, "size") ||
      !size_program(r, gemm->k, "size") || !size_program(r, gemm->batch, "size") ||
      !size_program(r, gemm->stride_a, "size") || !size_program(r, gemm->stride_b, "size") ||
      !size_program(r, gemm->stride_d, "size"))
    return false;
  return (!has_c || size_program(r, gemm->stride_c, "size")) &&
         (!aux || size_program(r, gemm->aux_ld, "size"));
}

static bool cuda_function(reader *r, const dl_function_desc *function) {
  if (!function->cuda)
    return !(r->blob->flags & DL_BLOB_WITHOUT_CPU) || (function->flags & DL_FUNCTION_INIT) ||
           damaged(r, "neither CPU code nor a program for a GPU");
  if (!r->blob->cuda)
    return damaged(r, "a program for a GPU in a model without one");
  const dl_cuda_function_desc *cuda = table(r, function->cuda, 1, sizeof *cuda,
                                            _Alignof(dl_cuda_function_desc), "program for a GPU");
  if (!cuda)
    return false;
  const dl_buffer_desc *buffers = table(r, cuda->buffers, cuda->buffer_count, sizeof *buffers,
                                        _Alignof(dl_buffer_desc), "GPU buffers");
  const dl_cuda_launch_desc *launches =
      table(r, cuda->launches, cuda->launch_count, sizeof *launches, _Alignof(dl_cuda_launch_desc),
            "launches");
  const dl_cuda_gemm_desc *gemms = table(r, cuda->gemms, cuda->gemm_count, sizeof *gemms,
                                         _Alignof(dl_cuda_gemm_desc), "products");
  if (!buffers || !launches || !gemms)
    return false;
  uint32_t i;
  for (i = 0; i < cuda->buffer_count; ++i, leave(r)) {
    enter(r, "GPU buffer", i);
    if (!buffer(r, function, &buffers[i]))
      return false;
    /* Constants are copied to the device once. */
    int64_t bytes;
    if (buffers[i].kind == DL_BUFFER_CONSTANT &&
        (!is_fixed((const dl_size *)(r->base + buffers[i].bytes), &bytes) ||
         bytes > (int64_t)(r->bytes - buffers[i].index)))
      return damaged(r, "a constant's size is not constant or beyond the end");
    if (buffers[i].kind == DL_BUFFER_PREPARED)
      return damaged(r, "prepared for a program that has no preparation");
  }
  for (i = 0; i < cuda->gemm_count; ++i, leave(r)) {
    enter(r, "product", i);
    if (!cuda_gemm(r, cuda, &gemms[i]))
      return false;
  }
  for (i = 0; i < cuda->launch_count; ++i, leave(r)) {
    enter(r, "launch", i);
    if (!cuda_launch(r, cuda, &launches[i]))
      return false;
  }
  return cuda_nesting(r, launches, 0, cuda->launch_count, 0);
}

void dlrt_epilogue_buffers(uint32_t epilogue, bool *out_bias, bool *out_writes_bias, bool *out_aux,
                           bool *out_writes_aux) {
  enum { BIAS = 1, BIAS_OUT = 2, AUX = 4, AUX_OUT = 8 };
  static const uint8_t uses[DL_CUDA_EPILOGUE_COUNT] = {
      [DL_CUDA_EPILOGUE_BIAS] = BIAS,
      [DL_CUDA_EPILOGUE_RELU_BIAS] = BIAS,
      [DL_CUDA_EPILOGUE_RELU_AUX] = AUX | AUX_OUT,
      [DL_CUDA_EPILOGUE_RELU_AUX_BIAS] = AUX | AUX_OUT | BIAS,
      [DL_CUDA_EPILOGUE_GELU_BIAS] = BIAS,
      [DL_CUDA_EPILOGUE_GELU_AUX] = AUX | AUX_OUT,
      [DL_CUDA_EPILOGUE_GELU_AUX_BIAS] = AUX | AUX_OUT | BIAS,
      [DL_CUDA_EPILOGUE_DRELU] = AUX,
      [DL_CUDA_EPILOGUE_DRELU_BGRAD] = AUX | BIAS | BIAS_OUT,
      [DL_CUDA_EPILOGUE_DGELU] = AUX,
      [DL_CUDA_EPILOGUE_DGELU_BGRAD] = AUX | BIAS | BIAS_OUT,
      [DL_CUDA_EPILOGUE_BGRADA] = BIAS | BIAS_OUT,
      [DL_CUDA_EPILOGUE_BGRADB] = BIAS | BIAS_OUT};
  uint8_t use = uses[epilogue];
  *out_bias = use & BIAS;
  *out_writes_bias = use & BIAS_OUT;
  *out_aux = use & AUX;
  *out_writes_aux = use & AUX_OUT;
}

/* ---- functions ---- */

static bool init_function(reader *r, const dl_function_desc *function) {
  if (function->argument_count > 1 || function->result_count != 0)
    return damaged(r, "an init function takes a seed at most and returns nothing");
  if (function->argument_count == 1) {
    const dl_value_desc *seed = (const dl_value_desc *)(r->base + function->arguments);
    if (seed->dtype != DL_I64 || seed->rank != 0)
      return damaged(r, "an init function's seed is an i64 scalar");
  }
  return true;
}

/* Whether a value has such a type, with an axis of this size first. */
static bool is_kept(reader *r, const dl_value_desc *desc, uint8_t dtype, uint32_t rank,
                    uint32_t first) {
  int64_t size = first;
  return desc->dtype == dtype && desc->rank == rank &&
         (!rank || is_fixed(dlrt_value_dim(r->blob, desc, 0), &size)) && size == first;
}

/* The results of a message of which some are kept: their count, their numbers, their values. */
static bool kept_messages(reader *r, const dl_log_line *line, const dl_value_desc *results) {
  const dl_value_desc *types = table(r, line->types, line->value_count, sizeof *types,
                                     _Alignof(dl_value_desc), "types");
  if (!types)
    return false;
  bool fits = is_kept(r, &results[0], DL_I64, 0, line->kept) &&
              is_kept(r, &results[1], DL_I64, 1, line->kept);
  for (uint32_t v = 0; fits && v < line->value_count; ++v) {
    if (!value(r, &types[v], false))
      return false;
    fits = is_kept(r, &results[2 + v], types[v].dtype, 2, line->kept);
  }
  return fits || damaged(r, "messages are kept in other values than theirs");
}

static bool log_table(reader *r, const dl_function_desc *function) {
  const dl_log_table *logs =
      table(r, function->logs, 1, sizeof *logs, _Alignof(dl_log_table), "messages");
  if (!logs)
    return false;
  const dl_log_line *lines =
      table(r, logs->lines, logs->line_count, sizeof *lines, _Alignof(dl_log_line), "messages");
  if (!lines)
    return false;
  const dl_value_desc *results = (const dl_value_desc *)(r->base + function->results);
  if (logs->value_count > function->result_count)
    return damaged(r, "messages have other values than there are");
  const uint32_t shown = function->result_count - logs->value_count;
  uint64_t values = 0;
  for (uint32_t i = 0; i < logs->line_count; ++i, leave(r)) {
    enter(r, "message", i);
    if (lines[i].value_count == UINT32_MAX)
      return damaged(r, "too many values");
    const dl_ref *words = table(r, lines[i].words, lines[i].value_count + 1, sizeof *words,
                                _Alignof(dl_ref), "words");
    if (!words)
      return false;
    for (uint32_t w = 0; w <= lines[i].value_count; ++w)
      if (!text(r, words[w], DLRT_MAX_TEXT_BYTES, false, "words"))
        return false;
    const uint64_t first = values;
    values += lines[i].value_count + (lines[i].kept ? 2ull : 0);
    if (values > logs->value_count)
      return damaged(r, "messages have other values than there are");
    if (lines[i].kept && !kept_messages(r, &lines[i], results + shown + first))
      return false;
  }
  return values == logs->value_count ||
         damaged(r, "messages have other values than there are");
}

static bool function(reader *r, const dl_function_desc *function) {
  if (!name(r, function->name, true, "name") ||
      !text(r, function->doc, DLRT_MAX_TEXT_BYTES, false, "doc"))
    return false;
  const dl_value_desc *arguments = table(r, function->arguments, function->argument_count,
                                         sizeof *arguments, _Alignof(dl_value_desc), "arguments");
  const dl_value_desc *results = table(r, function->results, function->result_count,
                                       sizeof *results, _Alignof(dl_value_desc), "results");
  const dl_buffer_desc *buffers = table(r, function->buffers, function->buffer_count,
                                        sizeof *buffers, _Alignof(dl_buffer_desc), "buffers");
  const dl_check_desc *checks = table(r, function->checks, function->check_count, sizeof *checks,
                                      _Alignof(dl_check_desc), "checks");
  const dl_kernel_desc *kernels = table(r, function->kernels, function->kernel_count,
                                        sizeof *kernels, _Alignof(dl_kernel_desc), "kernels");
  if (!arguments || !results || !buffers || !checks || !kernels)
    return false;
  uint32_t i;
  for (i = 0; i < function->argument_count; ++i, leave(r)) {
    enter(r, "argument", i);
    if (!value(r, &arguments[i], true))
      return false;
  }
  for (i = 0; i < function->result_count; ++i, leave(r)) {
    enter(r, "result", i);
    if (!value(r, &results[i], false))
      return false;
  }
  for (i = 0; i < function->buffer_count; ++i, leave(r)) {
    enter(r, "buffer", i);
    if (!buffer(r, function, &buffers[i]))
      return false;
  }
  for (i = 0; i < function->check_count; ++i, leave(r)) {
    enter(r, "check", i);
    if (!size_program(r, checks[i].condition, "size") ||
        !text(r, checks[i].message, DLRT_MAX_TEXT_BYTES, true, "message"))
      return false;
  }
  for (i = 0; i < function->kernel_count; ++i, leave(r)) {
    enter(r, "kernel", i);
    if (!name(r, kernels[i].name, true, "name") ||
        !name(r, kernels[i].location, false, "location") || !work(r, kernels[i].work))
      return false;
  }
  if (function->scratch_bytes > PTRDIFF_MAX)
    return damaged(r, "impossible scratch memory");
  if (function->logs && !log_table(r, function))
    return false;
  if (!cuda_function(r, function))
    return false;
  return !(function->flags & DL_FUNCTION_INIT) || init_function(r, function);
}

static bool description(reader *r) {
  const dl_blob *blob = r->blob;
  if (!name(r, blob->name, true, "name") ||
      !text(r, blob->doc, DLRT_MAX_TEXT_BYTES, false, "doc") ||
      !name(r, blob->compiler, false, "compiler") || !name(r, blob->triple, false, "triple") ||
      !name(r, blob->cpu, false, "cpu") ||
      !text(r, blob->features, DLRT_MAX_TEXT_BYTES, false, "features") ||
      !name(r, blob->query, true, "query symbol"))
    return false;
  if (blob->dim_count > DL_MAX_DIMS)
    return damaged(r, "too many dynamic dimensions");
  const dl_ref *dims =
      array(r, blob->dims, blob->dim_count, sizeof *dims, _Alignof(dl_ref), "dimensions");
  const dl_variable_desc *variables =
      array(r, blob->variables, blob->variable_count, sizeof *variables, _Alignof(dl_variable_desc),
            "variables");
  const dl_function_desc *functions =
      array(r, blob->functions, blob->function_count, sizeof *functions, _Alignof(dl_function_desc),
            "functions");
  const dl_fault_desc *faults =
      array(r, blob->faults, blob->fault_count, sizeof *faults, _Alignof(dl_fault_desc), "faults");
  if (!dims || !variables || !functions || !faults)
    return false;
  if (blob->flags & ~(uint32_t)DL_BLOB_WITHOUT_CPU)
    return damaged(r, "unknown flags");
  if (!cuda_program(r))
    return false;
  uint32_t i, inits = 0;
  uint64_t total = 0;
  for (i = 0; i < blob->dim_count; ++i)
    if (!name(r, dims[i], true, "a dimension's name"))
      return false;
  for (i = 0; i < blob->variable_count; ++i, leave(r)) {
    enter(r, "variable", i);
    if (!variable(r, &variables[i]))
      return false;
    if (__builtin_add_overflow(total, variables[i].bytes + DL_BUFFER_ALIGNMENT, &total) ||
        total > PTRDIFF_MAX)
      return damaged(r, "variables are too large");
  }
  for (i = 0; i < blob->function_count; ++i, leave(r)) {
    enter(r, "function", i);
    if (!function(r, &functions[i]))
      return false;
    inits += (functions[i].flags & DL_FUNCTION_INIT) != 0;
  }
  if (inits > 1)
    return damaged(r, "more than one init function");
  for (i = 0; i < blob->fault_count; ++i, leave(r)) {
    enter(r, "fault", i);
    if (!text(r, faults[i].message, DLRT_MAX_TEXT_BYTES, true, "message") ||
        !name(r, faults[i].location, false, "location"))
      return false;
  }
  return true;
}

dlrt_status dlrt_description_check(const void *data, size_t bytes) {
  const dl_blob *blob = data;
  if (bytes < sizeof *blob)
    return dlrt_fail(DLRT_CORRUPT, "damaged description: %zu bytes, but its head alone has %zu",
                     bytes, sizeof *blob);
  if (memcmp(blob->magic, DL_BLOB_MAGIC, sizeof blob->magic) != 0)
    return dlrt_fail(DLRT_INCOMPATIBLE,
                     "not a model's description: it does not begin with " DL_BLOB_MAGIC);
  if (blob->abi_version != DL_ABI_VERSION)
    return dlrt_fail(DLRT_INCOMPATIBLE, "has ABI version %u, this runtime speaks version %u",
                     blob->abi_version, DL_ABI_VERSION);
  if ((uintptr_t)data % _Alignof(dl_function_desc) != 0)
    return dlrt_fail(DLRT_INCOMPATIBLE, "description is not aligned to %zu bytes",
                     _Alignof(dl_function_desc));
  if (blob->blob_bytes < sizeof *blob || blob->blob_bytes > bytes)
    return dlrt_fail(DLRT_CORRUPT,
                     "damaged description: it says that it has %u bytes, there are %zu",
                     blob->blob_bytes, bytes);
  reader r = {.base = data, .blob = blob, .bytes = blob->blob_bytes};
  description(&r);
  return r.status;
}
