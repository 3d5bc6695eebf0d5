/*===- FixtureKernels.c - code of the tests' model -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * Written as the compiler's code is: kernels that run ranges of independent tasks, entries that
 * launch them in order, nothing called but dl_host. Reductions go in fixed chunks, so that threads
 * do not decide bits.
 */
#include "dlrt/model_abi.h"

#include <stdbool.h>
#include <string.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))

static void init_w(const dl_frame *f, int64_t begin, int64_t end, void *scratch) {
  float *w = f->buffers[1];
  (void)scratch;
  for (int64_t i = begin; i < end; ++i)
    w[i] = (float)(*(const int64_t *)f->buffers[0] % 1000) * 0.5f + (float)i * 0.25f;
}
static void init_entry(const dl_frame *f) {
  static const unsigned char mask[5] = {1, 0, 1, 1, 0};
  f->host->parallel(f, init_w, 12, 0);
  memset(f->buffers[2], 0, 12);
  memcpy(f->buffers[3], mask, sizeof mask);
  *(int64_t *)f->buffers[4] = 0;
  memcpy(f->buffers[5], "abc", 3);
}

static void predict_matmul(const dl_frame *f, int64_t begin, int64_t end, void *scratch) {
  const float *x = f->buffers[0], *w = f->buffers[2];
  float *tmp = f->buffers[5], *row = scratch;
  for (int64_t n = begin; n < end; ++n) {
    for (int j = 0; j < 3; ++j) {
      row[j] = 0;
      for (int k = 0; k < 4; ++k)
        row[j] += x[n * 4 + k] * w[k * 3 + j];
    }
    memcpy(tmp + n * 3, row, 12);
  }
}
static void predict_add(const dl_frame *f, int64_t begin, int64_t end, void *scratch) {
  const float *tmp = f->buffers[5], *b = f->buffers[3], *constant = f->buffers[4];
  float *out = f->buffers[1];
  (void)scratch;
  for (int64_t i = begin; i < end; ++i)
    out[i] = tmp[i] + b[i % 3] + constant[i % 3];
}
static void predict_entry(const dl_frame *f) {
  f->host->parallel(f, predict_matmul, f->dims[0], 0);
  f->host->parallel(f, predict_add, f->dims[0] * 3, 1);
}

/* error = x w + b - y, and its squares' sum for each row */
static void step_forward(const dl_frame *f, int64_t begin, int64_t end, void *scratch) {
  const float *x = f->buffers[0], *y = f->buffers[1], *w = f->buffers[4], *b = f->buffers[5];
  float *error = f->buffers[8], *rows = f->buffers[9], *row = scratch;
  for (int64_t n = begin; n < end; ++n) {
    rows[n] = 0;
    for (int j = 0; j < 3; ++j) {
      row[j] = b[j] - y[n * 3 + j];
      for (int k = 0; k < 4; ++k)
        row[j] += x[n * 4 + k] * w[k * 3 + j];
      error[n * 3 + j] = row[j];
      rows[n] += row[j] * row[j];
    }
  }
}
/* One task for each row of w. */
static void step_gradient(const dl_frame *f, int64_t begin, int64_t end, void *scratch) {
  const float *x = f->buffers[0], *error = f->buffers[8];
  float *gradient = f->buffers[10];
  (void)scratch;
  for (int64_t k = begin; k < end; ++k)
    for (int j = 0; j < 3; ++j) {
      float sum = 0;
      for (int64_t n = 0; n < f->dims[0]; ++n)
        sum += x[n * 4 + k] * error[n * 3 + j];
      gradient[k * 3 + j] = sum;
    }
}
static void step_update(const dl_frame *f, int64_t begin, int64_t end, void *scratch) {
  const float *gradient = f->buffers[10], *lr = f->buffers[2];
  float *w = f->buffers[4];
  (void)scratch;
  for (int64_t i = begin; i < end; ++i)
    w[i] -= *lr * gradient[i] / (float)(f->dims[0] ? f->dims[0] : 1);
}
static void step_entry(const dl_frame *f) {
  float loss = 0;
  f->host->parallel(f, step_forward, f->dims[0], 0);
  for (int64_t n = 0; n < f->dims[0]; ++n)
    loss += ((const float *)f->buffers[9])[n];
  f->host->parallel(f, step_gradient, 4, 1);
  f->host->parallel(f, step_update, 12, 2);
  *(float *)f->buffers[3] = loss;
  ++*(int64_t *)f->buffers[6];
  ++*(int64_t *)f->buffers[7];
}

static void pick_entry(const dl_frame *f) {
  const int64_t *label = f->buffers[0];
  for (int64_t i = 0; i < f->dims[0]; ++i) {
    if (label[i] < 0 || label[i] > 9) {
      f->fault->site = 1;
      f->fault->index = i;
      f->fault->value = label[i];
      return;
    }
    ((int64_t *)f->buffers[1])[i] = label[i] * 10;
  }
}

static void stats_entry(const dl_frame *f) {
  const float *x = f->buffers[0];
  int64_t n = f->dims[0];
  double sum = 0;
  for (int64_t i = 0; i < n * (2 * n + 1); ++i)
    sum += x[i];
  for (int64_t i = 0; i < n / 2; ++i)
    ((float *)f->buffers[3])[i] = x[i];
  *(double *)f->buffers[4] =
      *(const unsigned char *)f->buffers[2] ? sum * *(const double *)f->buffers[1] : -1;
}

static void mxcsr_kernel(const dl_frame *f, int64_t begin, int64_t end, void *scratch) {
  const struct timespec moment = {0, 100000};
  (void)scratch;
  nanosleep(&moment, NULL); /* so that every thread gets some */
  for (int64_t i = begin; i < end; ++i)
    __asm__ volatile("stmxcsr %0" : "=m"(((int32_t *)f->buffers[0])[i]));
}
static void mxcsr_entry(const dl_frame *f) { f->host->parallel(f, mxcsr_kernel, 64, 0); }

static void slow_kernel(const dl_frame *f, int64_t begin, int64_t end, void *scratch) {
  int64_t ms = *(const int64_t *)f->buffers[0];
  const struct timespec time = {ms / 1000, ms % 1000 * 1000000};
  (void)begin, (void)end, (void)scratch;
  *(int64_t *)f->buffers[2] = ms;
  nanosleep(&time, NULL);
  *(int64_t *)f->buffers[1] = *(int64_t *)f->buffers[2]; /* another call's arena would show */
}
static void slow_entry(const dl_frame *f) { f->host->parallel(f, slow_kernel, 1, 0); }

static void pairs_kernel(const dl_frame *f, int64_t begin, int64_t end, void *scratch) {
  const int64_t *in = f->buffers[0];
  int64_t *out = f->buffers[2], *kept = scratch;
  memset(kept + 1, 0x55, 56);
  /* What this worker's last call left there is of this launch, or it finds -1. */
  int64_t mark = 1000 + (out[begin] - in[begin]) / (begin + 1);
  bool is_right = *kept == -1 || *kept == mark;
  *kept = mark;
  for (int64_t i = begin; i < end; ++i)
    out[i] = is_right ? out[i] + i + 1 : INT64_MIN;
}
static void pairs_entry(const dl_frame *f) {
  if (f->dims[0])
    memcpy(f->buffers[2], f->buffers[0], (size_t)f->dims[0] * 8);
  for (int64_t launch = 0; launch < *(const int64_t *)f->buffers[1]; ++launch)
    f->host->parallel(f, pairs_kernel, f->dims[0], 0);
}

static void shares_kernel(const dl_frame *f, int64_t begin, int64_t end, void *scratch) {
  int64_t *out = f->buffers[1];
  (void)scratch;
  for (int64_t i = begin; i < end; ++i)
    out[i] = end - begin;
}
static void shares_entry(const dl_frame *f) { f->host->parallel(f, shares_kernel, f->dims[0], 0); }

static void double_kernel(const dl_frame *f, int64_t begin, int64_t end, void *scratch) {
  const float *w = f->buffers[3];
  float *twice = f->buffers[4];
  (void)scratch;
  for (int64_t i = begin; i < end; ++i)
    twice[i] = 2 * w[i];
}
static void prepared_preparation(const dl_frame *f) {
  f->host->parallel(f, double_kernel, 12, 0);
  ++*(int64_t *)f->buffers[5];
}
static void prepared_kernel(const dl_frame *f, int64_t begin, int64_t end, void *scratch) {
  const float *twice = f->buffers[4];
  float *out = f->buffers[1];
  (void)scratch;
  for (int64_t i = begin; i < end; ++i)
    out[i] = twice[i];
}
static void prepared_entry(const dl_frame *f) {
  f->host->parallel(f, prepared_kernel, 12, 1);
  *(int64_t *)f->buffers[2] = *(const int64_t *)f->buffers[5];
}

static void tell_entry(const dl_frame *f) {
  const float *x = f->buffers[0];
  for (int64_t i = 0; i < f->dims[0] * 2; ++i)
    if (x[i] < 0) {
      *f->fault = (dl_fault){1, i, (int64_t)x[i]};
      return;
    }
  *(int64_t *)f->buffers[3] = f->dims[0];
  memcpy(f->buffers[4], x, (size_t)f->dims[0] * 8);
  *(int64_t *)f->buffers[5] = *(const int64_t *)f->buffers[1];
  *(unsigned char *)f->buffers[6] = *(const unsigned char *)f->buffers[2];
  *(double *)f->buffers[7] = 1 / 3.0;
}

static void retell_entry(const dl_frame *f) {
  const float *x = f->buffers[0];
  int64_t turns = *(const int64_t *)f->buffers[1], number = 0, even = 0;
  int64_t *numbers = f->buffers[3], *even_numbers = f->buffers[7];
  int32_t *shown = f->buffers[4];
  float *values = f->buffers[5];
  for (int64_t turn = 0; turn < turns; ++turn) {
    numbers[turn % 3] = number++;
    shown[turn % 3] = (int32_t)turn;
    for (int64_t i = 0; i < 64; ++i)
      values[turn % 3 * 64 + i] = i < f->dims[0] * 2 ? x[i] + (float)turn : -1;
    if (turn % 2 == 0)
      even_numbers[even++ % 2] = number++;
  }
  *(int64_t *)f->buffers[2] = turns;
  *(int64_t *)f->buffers[6] = even;
  *(int64_t *)f->buffers[8] = 0;
  *(int64_t *)f->buffers[10] = turns;
}

EXPORT const dl_entry_fn fixture_entries[] = {init_entry,  predict_entry, step_entry,
                                              pick_entry,  stats_entry,   mxcsr_entry,
                                              slow_entry,  pairs_entry,   tell_entry,
                                              retell_entry, shares_entry, prepared_entry};
EXPORT const dl_entry_fn fixture_preparations[] = {NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                                                   NULL, NULL, NULL, NULL, prepared_preparation};
extern const dl_blob fixture_blob __attribute__((visibility("hidden")));

EXPORT const dl_model *fixture_query(uint32_t abi_version) {
  static dl_model model = {DL_ABI_VERSION,  sizeof model, &fixture_blob,
                           fixture_entries, NULL,         NULL,
                           fixture_preparations};
  return abi_version == DL_ABI_VERSION ? &model : NULL;
}
