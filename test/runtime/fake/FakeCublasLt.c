/*===- FakeCublasLt.c - a libcublasLt for the runtime's tests -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * Does what the library's documentation says, by columns, in the plainest way: f32 alone, batches,
 * and the epilogues that the tests use (bias; relu with its mask and back; gradients of the bias).
 */
#include "FakeCuda.h"

#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

enum { SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };

typedef struct layout {
  int32_t type, batch;
  uint64_t rows, columns;
  int64_t ld, stride;
} layout;

typedef struct desc {
  int32_t compute, pointers, ta, tb;
  uint32_t epilogue;
  uint64_t bias, aux;
  int64_t aux_ld;
} desc;

EXPORT int cublasLtCreate(void **handle) {
  *handle = malloc(1);
  ++fake_cuda_get()->live;
  return SUCCESS;
}
static int destroy(void *thing) {
  free(thing);
  --fake_cuda_get()->live;
  return SUCCESS;
}
EXPORT int cublasLtDestroy(void *handle) { return destroy(handle); }

EXPORT int cublasLtMatmulDescCreate(void **out, int compute, int scale) {
  desc *d = calloc(1, sizeof *d);
  d->compute = compute;
  d->epilogue = 1;
  *out = d;
  ++fake_cuda_get()->live;
  return scale == 0 ? SUCCESS : NOT_SUPPORTED;
}
EXPORT int cublasLtMatmulDescDestroy(void *d) { return destroy(d); }
EXPORT int cublasLtMatmulDescSetAttribute(desc *d, int attribute, const void *value, size_t bytes) {
  struct {
    int attribute;
    void *to;
    size_t bytes;
  } known[] = {{2, &d->pointers, 4}, {3, &d->ta, 4},   {4, &d->tb, 4},     {7, &d->epilogue, 4},
               {8, &d->bias, 8},     {11, &d->aux, 8}, {12, &d->aux_ld, 8}};
  for (size_t i = 0; i < sizeof known / sizeof *known; ++i)
    if (known[i].attribute == attribute && known[i].bytes == bytes) {
      memcpy(known[i].to, value, bytes);
      return SUCCESS;
    }
  return INVALID_VALUE;
}

EXPORT int cublasLtMatrixLayoutCreate(void **out, int type, uint64_t rows, uint64_t columns,
                                      int64_t ld) {
  layout *l = calloc(1, sizeof *l);
  *l = (layout){type, 1, rows, columns, ld, 0};
  *out = l;
  ++fake_cuda_get()->live;
  return SUCCESS;
}
EXPORT int cublasLtMatrixLayoutDestroy(void *l) { return destroy(l); }
EXPORT int cublasLtMatrixLayoutSetAttribute(layout *l, int attribute, const void *value,
                                            size_t bytes) {
  if (attribute == 5 && bytes == 4)
    memcpy(&l->batch, value, 4);
  else if (attribute == 6 && bytes == 8)
    memcpy(&l->stride, value, 8);
  else
    return INVALID_VALUE;
  return SUCCESS;
}

EXPORT int cublasLtMatmulPreferenceCreate(void **out) {
  *out = calloc(1, 1);
  ++fake_cuda_get()->live;
  return SUCCESS;
}
EXPORT int cublasLtMatmulPreferenceDestroy(void *p) { return destroy(p); }
EXPORT int cublasLtMatmulPreferenceSetAttribute(void *p, int attribute, const void *value,
                                                size_t bytes) {
  (void)p, (void)value;
  return (attribute == 1 && bytes == 8) || (attribute >= 5 && attribute <= 8 && bytes == 4)
             ? SUCCESS
             : INVALID_VALUE;
}

typedef struct heuristic {
  uint64_t algorithm[8];
  size_t workspace;
  int state;
  float waves;
  int reserved[4];
} heuristic;

EXPORT int cublasLtMatmulAlgoGetHeuristic(void *handle, const desc *d, const layout *a,
                                          const layout *b, const layout *c, const layout *out,
                                          void *preference, int asked, heuristic *results,
                                          int *found) {
  (void)handle, (void)preference, (void)c;
  ++fake_cuda_get()->heuristics;
  *found = 0;
  uint64_t m = d->ta ? a->columns : a->rows, k = d->ta ? a->rows : a->columns;
  uint64_t n = d->tb ? b->rows : b->columns;
  if (m != out->rows || n != out->columns || k != (d->tb ? b->columns : b->rows))
    return INVALID_VALUE;
  /* A mask's rows are whole groups of 128 bits. */
  if (fake_cuda_get()->blas_has_no_algorithm || asked < 1 || d->compute != 68 || out->type != 0 ||
      (d->epilogue & 128 && d->aux_ld % 128 != 0))
    return NOT_SUPPORTED;
  memset(results, 0, sizeof *results);
  results->algorithm[0] = 42;
  results->workspace = 1000;
  *found = 1;
  return SUCCESS;
}

typedef struct product {
  desc d;
  layout la, lb, lc, ld;
  const float *alpha, *beta, *a, *b, *c;
  float host_alpha, host_beta;
  float *out;
  unsigned char *workspace;
} product;
_Static_assert(sizeof(product) <= 2 * FAKE_WORK_BYTES, "fits with its layouts on the heap");

static void multiply(const void *state) {
  product p;
  const product *from;
  memcpy(&from, state, sizeof from);
  p = *from;
  if (p.d.pointers == 1)
    p.host_alpha = *p.alpha, p.host_beta = *p.beta;
  uint64_t m = p.ld.rows, n = p.ld.columns, k = p.d.ta ? p.la.rows : p.la.columns;
  float *bias = (float *)(uintptr_t)p.d.bias;
  unsigned char *mask = (unsigned char *)(uintptr_t)p.d.aux;
  memset(p.workspace, 0x77, 1000);
  if (p.d.epilogue & (16 | 256))
    memset(bias, 0, m * sizeof *bias);
  if (p.d.epilogue & 512)
    memset(bias, 0, n * sizeof *bias);
  for (int64_t batch = 0; batch < p.ld.batch; ++batch) {
    const float *a = p.a + batch * p.la.stride, *b = p.b + batch * p.lb.stride,
                *c = p.c + batch * p.lc.stride;
    float *out = p.out + batch * p.ld.stride;
    for (uint64_t j = 0; j < n; ++j)
      for (uint64_t i = 0; i < m; ++i) {
        float sum = 0;
        for (uint64_t l = 0; l < k; ++l)
          sum += a[p.d.ta ? i * (uint64_t)p.la.ld + l : l * (uint64_t)p.la.ld + i] *
                 b[p.d.tb ? l * (uint64_t)p.lb.ld + j : j * (uint64_t)p.lb.ld + l];
        sum *= p.host_alpha;
        if (p.host_beta != 0)
          sum += p.host_beta * c[j * (uint64_t)p.lc.ld + i];
        uint64_t bit = j * (uint64_t)p.d.aux_ld + i;
        if (p.d.epilogue & 4)
          sum += bias[i];
        if (p.d.epilogue & 2) {
          if (p.d.epilogue & 128)
            mask[bit / 8] = (unsigned char)((mask[bit / 8] & ~(1u << bit % 8)) | (unsigned)(sum > 0)
                                                                                     << bit % 8);
          sum = sum > 0 ? sum : 0;
        }
        if (p.d.epilogue & 8)
          sum = mask[bit / 8] >> bit % 8 & 1 ? sum : 0;
        if (p.d.epilogue & 16)
          bias[i] += sum;
        out[j * (uint64_t)p.ld.ld + i] = sum;
      }
    for (uint64_t i = 0; p.d.epilogue & 256 && i < m; ++i)
      for (uint64_t l = 0; l < k; ++l)
        bias[i] += a[p.d.ta ? i * (uint64_t)p.la.ld + l : l * (uint64_t)p.la.ld + i];
    for (uint64_t j = 0; p.d.epilogue & 512 && j < n; ++j)
      for (uint64_t l = 0; l < k; ++l)
        bias[j] += b[p.d.tb ? l * (uint64_t)p.lb.ld + j : j * (uint64_t)p.lb.ld + l];
  }
}

/* Products stay until the process ends: graphs run them again and again. */
enum { PRODUCTS = 4096 };
static product products[PRODUCTS];
static unsigned product_count;

EXPORT int cublasLtMatmul(void *handle, const desc *d, const void *alpha, const void *a,
                          const layout *la, const void *b, const layout *lb, const void *beta,
                          const void *c, const layout *lc, void *out, const layout *ld,
                          const uint64_t *algorithm, void *workspace, size_t workspace_bytes,
                          void *stream) {
  (void)handle;
  if (algorithm[0] != 42 || workspace_bytes != 1000 || (uintptr_t)workspace % 256 != 0)
    return INVALID_VALUE;
  if (product_count == PRODUCTS)
    abort();
  product *p = &products[product_count++];
  *p = (product){*d, *la, *lb, *lc, *ld, alpha, beta, a, b, c, 0, 0, out, workspace};
  if (d->pointers == 0) {
    memcpy(&p->host_alpha, alpha, sizeof(float));
    memcpy(&p->host_beta, beta, sizeof(float));
  }
  return fake_cuda_get()->enqueue(stream, multiply, &p, sizeof p);
}
