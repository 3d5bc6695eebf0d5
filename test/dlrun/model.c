/*===- model.c - a small model written by hand, for dlrun's tests -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * What the compiler would write for softmax regression, so that dlrun's own tests do not depend on the compiler:
 *
 *   model softmax(N = ?) {                                  BATCH=8: N = 8
 *     var w: f32[4, 3] = …
 *     fn predict(x: f32[N, 4]) = x @ w
 *     fn loss(x: f32[N, 4], label: i32[N]) = cross_entropy(x @ w, label)
 *     fn accuracy(x: f32[N, 4], label: i32[N]) = mean(f32(argmax(x @ w, axis = 1) == label))
 *     train step(x, label, lr: f32 = 0.5, delay: i32 = 0)   delay: milliseconds that a step takes longer
 *   }
 *
 * step also counts its calls in step.t.
 */
#define _POSIX_C_SOURCE 200809L
#include "dlrt/model_abi.h"

#include <math.h>
#include <stddef.h>
#include <time.h>

enum { FEATURES = 4, CLASSES = 3 };

#ifdef BATCH
#define ROWS(frame) BATCH
#define DIM_COUNT 0
#define ROWS_CODE DL_SIZE_CONST, BATCH
#else
#define ROWS(frame) ((frame)->dims[0])
#define DIM_COUNT 1
#define ROWS_CODE DL_SIZE_DIM, 0
#endif

/* ---- code ---- */

static void logits(const float *x, const float *w, float *out) {
  for (int c = 0; c < CLASSES; ++c) {
    float sum = 0;
    for (int k = 0; k < FEATURES; ++k)
      sum = fmaf(x[k], w[k * CLASSES + c], sum);
    out[c] = sum;
  }
}

/* Fills p with probabilities and returns the cross entropy. */
static float softmax(const float *x, const float *w, int label, float *p) {
  logits(x, w, p);
  float top = fmaxf(p[0], fmaxf(p[1], p[2])), sum = 0, target = p[label] - top;
  for (int c = 0; c < CLASSES; ++c)
    sum += p[c] = expf(p[c] - top);
  for (int c = 0; c < CLASSES; ++c)
    p[c] /= sum;
  return logf(sum) - target;
}

/* Buffers of every function: its arguments, its results, then w (and t). */
static void predict_kernel(const dl_frame *frame, int64_t begin, int64_t end, void *scratch) {
  (void)scratch, (void)begin, (void)end;
  const float *x = frame->buffers[0], *w = frame->buffers[2];
  float *out = frame->buffers[1];
  for (int64_t n = 0; n < ROWS(frame); ++n)
    logits(x + n * FEATURES, w, out + n * CLASSES);
}

static void loss_kernel(const dl_frame *frame, int64_t begin, int64_t end, void *scratch) {
  (void)scratch, (void)begin, (void)end;
  const float *x = frame->buffers[0], *w = frame->buffers[3];
  const int32_t *label = frame->buffers[1];
  float sum = 0, p[CLASSES];
  for (int64_t n = 0; n < ROWS(frame); ++n)
    sum += softmax(x + n * FEATURES, w, label[n], p);
  *(float *)frame->buffers[2] = sum / (float)ROWS(frame);
}

static void accuracy_kernel(const dl_frame *frame, int64_t begin, int64_t end, void *scratch) {
  (void)scratch, (void)begin, (void)end;
  const float *x = frame->buffers[0], *w = frame->buffers[3];
  const int32_t *label = frame->buffers[1];
  float right = 0, z[CLASSES];
  for (int64_t n = 0; n < ROWS(frame); ++n) {
    logits(x + n * FEATURES, w, z);
    int best = z[1] > z[0] ? 1 : 0;
    best = z[2] > z[best] ? 2 : best;
    right += best == label[n];
  }
  *(float *)frame->buffers[2] = right / (float)ROWS(frame);
}

static void step_kernel(const dl_frame *frame, int64_t begin, int64_t end, void *scratch) {
  (void)scratch, (void)begin, (void)end;
  const float *x = frame->buffers[0], *lr = frame->buffers[2];
  const int32_t *label = frame->buffers[1], *delay = frame->buffers[3];
  float *out = frame->buffers[4], *w = frame->buffers[5], g[FEATURES * CLASSES] = {0}, p[CLASSES], sum = 0;
  struct timespec left = {*delay / 1000, *delay % 1000 * 1000000L};
  while (*delay > 0 && nanosleep(&left, &left) != 0) /* signals do not cut it short */
    ;
  for (int64_t n = 0; n < ROWS(frame); ++n) {
    sum += softmax(x + n * FEATURES, w, label[n], p);
    p[label[n]] -= 1;
    for (int k = 0; k < FEATURES; ++k)
      for (int c = 0; c < CLASSES; ++c)
        g[k * CLASSES + c] += x[n * FEATURES + k] * p[c];
  }
  for (int i = 0; i < FEATURES * CLASSES; ++i)
    w[i] -= *lr * g[i] / (float)ROWS(frame);
  *out = sum / (float)ROWS(frame);
  ++*(int64_t *)frame->buffers[6];
}

static void init_kernel(const dl_frame *frame, int64_t begin, int64_t end, void *scratch) {
  (void)scratch, (void)begin, (void)end;
  uint64_t state = (uint64_t) * (const int64_t *)frame->buffers[0];
  float *w = frame->buffers[1];
  for (int i = 0; i < FEATURES * CLASSES; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    w[i] = (float)(state >> 40) * 0x1p-24f - 0.5f;
  }
  *(int64_t *)frame->buffers[2] = 0;
}

/* True where all labels are classes; else notes the fault. */
static int labels_are_right(const dl_frame *frame) {
  const int32_t *label = frame->buffers[1];
  for (int64_t n = 0; n < ROWS(frame); ++n)
    if (label[n] < 0 || label[n] >= CLASSES) {
      if (frame->fault->site == 0)
        *frame->fault = (dl_fault){1, n, label[n]};
      return 0;
    }
  return 1;
}

static void run_init(const dl_frame *frame) { frame->host->parallel(frame, init_kernel, 1, 0); }
static void run_predict(const dl_frame *frame) { frame->host->parallel(frame, predict_kernel, 1, 0); }
static void run_loss(const dl_frame *frame) {
  if (labels_are_right(frame))
    frame->host->parallel(frame, loss_kernel, 1, 0);
}
static void run_accuracy(const dl_frame *frame) { frame->host->parallel(frame, accuracy_kernel, 1, 0); }
static void run_step(const dl_frame *frame) {
  if (labels_are_right(frame))
    frame->host->parallel(frame, step_kernel, 1, 0);
}

/* ---- description ---- */

typedef struct size_program {
  uint32_t count, reserved;
  int64_t code[5];
} size_program;

enum { ARGUMENTS = 10, RESULTS = 4, BUFFERS = 22, FUNCTIONS = 5 };

typedef struct description {
  dl_blob head;
  dl_ref dims[2];
  dl_variable_desc variables[2];
  int64_t w_dims[2];
  dl_function_desc functions[FUNCTIONS];
  dl_value_desc arguments[ARGUMENTS], results[RESULTS];
  dl_buffer_desc buffers[BUFFERS];
  dl_kernel_desc kernels[FUNCTIONS];
  dl_fault_desc faults[2];
  dl_work_desc step_work;
  size_program rows, four, three, w_bytes, eight, x_bytes, label_bytes, predict_bytes, step_operations;
  dl_ref x_shape[2], label_shape[2], predict_shape[2];
  char name[8], doc[40], compiler[16], triple[24], query[16], dim_n[2], w[2], t[8], init[8], predict[8], loss[8],
      accuracy[12], step[8], seed[8], x[2], label[8], lr[4], delay[8], place[12], fault[64], step_doc[64];
} description;

#define AT(member) ((dl_ref)offsetof(description, member))
#define ITEM(member, index) ((dl_ref)(offsetof(description, member) + (index) * sizeof(((description *)0)->member[0])))

#define X_ARGUMENT {.name = AT(x), .dtype = DL_F32, .rank = 2, .dims = AT(x_shape)}
#define LABEL_ARGUMENT {.name = AT(label), .dtype = DL_I32, .rank = 1, .dims = AT(label_shape)}
#define BUFFER(which, at, size) {.kind = which, .index = at, .bytes = AT(size)}

typedef struct note {
  uint32_t name_bytes, description_bytes, type;
  char name[4];
  description description;
} note;

static const note model_note __attribute__((section(".note.dlc"), aligned(8), used)) = {
    sizeof DL_NOTE_NAME,
    sizeof(description),
    DL_NOTE_TYPE,
    DL_NOTE_NAME,
    {
        .head = {.magic = DL_BLOB_MAGIC,
                 .abi_version = DL_ABI_VERSION,
                 .blob_bytes = sizeof(description),
                 .name = AT(name),
                 .doc = AT(doc),
                 .compiler = AT(compiler),
                 .triple = AT(triple),
                 .query = AT(query),
                 .dim_count = DIM_COUNT,
                 .dims = AT(dims),
                 .variable_count = 2,
                 .variables = AT(variables),
                 .function_count = FUNCTIONS,
                 .functions = AT(functions),
                 .fault_count = 1,
                 .faults = AT(faults)},
        .dims = {AT(dim_n)},
        .variables = {{.name = AT(w), .dtype = DL_F32, .rank = 2, .dims = AT(w_dims), .bytes = FEATURES * CLASSES * 4},
                      {.name = AT(t), .dtype = DL_I64, .dims = AT(w_dims), .kind = DL_VARIABLE_SLOT, .bytes = 8}},
        .w_dims = {FEATURES, CLASSES},
        .functions = {{.name = AT(init),
                       .flags = DL_FUNCTION_INIT,
                       .argument_count = 1,
                       .arguments = ITEM(arguments, 0),
                       .buffer_count = 3,
                       .buffers = ITEM(buffers, 0),
                       .kernel_count = 1,
                       .kernels = ITEM(kernels, 0),
                       .launch_count = 1},
                      {.name = AT(predict),
                       .flags = DL_FUNCTION_CONST,
                       .argument_count = 1,
                       .arguments = ITEM(arguments, 1),
                       .result_count = 1,
                       .results = ITEM(results, 0),
                       .buffer_count = 3,
                       .buffers = ITEM(buffers, 3),
                       .kernel_count = 1,
                       .kernels = ITEM(kernels, 1),
                       .launch_count = 1},
                      {.name = AT(loss),
                       .flags = DL_FUNCTION_CONST,
                       .argument_count = 2,
                       .arguments = ITEM(arguments, 2),
                       .result_count = 1,
                       .results = ITEM(results, 1),
                       .buffer_count = 4,
                       .buffers = ITEM(buffers, 6),
                       .kernel_count = 1,
                       .kernels = ITEM(kernels, 2),
                       .launch_count = 1},
                      {.name = AT(accuracy),
                       .flags = DL_FUNCTION_CONST,
                       .argument_count = 2,
                       .arguments = ITEM(arguments, 4),
                       .result_count = 1,
                       .results = ITEM(results, 2),
                       .buffer_count = 4,
                       .buffers = ITEM(buffers, 10),
                       .kernel_count = 1,
                       .kernels = ITEM(kernels, 3),
                       .launch_count = 1},
                      {.name = AT(step),
                       .doc = AT(step_doc),
                       .flags = DL_FUNCTION_TRAIN,
                       .argument_count = 4,
                       .arguments = ITEM(arguments, 6),
                       .result_count = 1,
                       .results = ITEM(results, 3),
                       .buffer_count = 7,
                       .buffers = ITEM(buffers, 14),
                       .kernel_count = 1,
                       .kernels = ITEM(kernels, 4),
                       .launch_count = 1}},
        .arguments = {{.name = AT(seed), .dtype = DL_I64, .dims = AT(w_dims)},
                      X_ARGUMENT,
                      X_ARGUMENT,
                      LABEL_ARGUMENT,
                      X_ARGUMENT,
                      LABEL_ARGUMENT,
                      X_ARGUMENT,
                      LABEL_ARGUMENT,
                      {.name = AT(lr), .dtype = DL_F32, .dims = AT(w_dims), .has_default = 1, .default_value = 0.5},
                      {.name = AT(delay), .dtype = DL_I32, .dims = AT(w_dims), .has_default = 1}},
        .results = {{.dtype = DL_F32, .rank = 2, .dims = AT(predict_shape)},
                    {.dtype = DL_F32, .dims = AT(w_dims)},
                    {.dtype = DL_F32, .dims = AT(w_dims)},
                    {.dtype = DL_F32, .dims = AT(w_dims)}},
        .buffers = {BUFFER(DL_BUFFER_ARGUMENT, 0, eight),
                    BUFFER(DL_BUFFER_VARIABLE, 0, w_bytes),
                    BUFFER(DL_BUFFER_VARIABLE, 1, eight),

                    BUFFER(DL_BUFFER_ARGUMENT, 0, x_bytes),
                    BUFFER(DL_BUFFER_RESULT, 0, predict_bytes),
                    BUFFER(DL_BUFFER_VARIABLE, 0, w_bytes),

                    BUFFER(DL_BUFFER_ARGUMENT, 0, x_bytes),
                    BUFFER(DL_BUFFER_ARGUMENT, 1, label_bytes),
                    BUFFER(DL_BUFFER_RESULT, 0, four),
                    BUFFER(DL_BUFFER_VARIABLE, 0, w_bytes),

                    BUFFER(DL_BUFFER_ARGUMENT, 0, x_bytes),
                    BUFFER(DL_BUFFER_ARGUMENT, 1, label_bytes),
                    BUFFER(DL_BUFFER_RESULT, 0, four),
                    BUFFER(DL_BUFFER_VARIABLE, 0, w_bytes),

                    BUFFER(DL_BUFFER_ARGUMENT, 0, x_bytes),
                    BUFFER(DL_BUFFER_ARGUMENT, 1, label_bytes),
                    BUFFER(DL_BUFFER_ARGUMENT, 2, four),
                    BUFFER(DL_BUFFER_ARGUMENT, 3, four),
                    BUFFER(DL_BUFFER_RESULT, 0, four),
                    BUFFER(DL_BUFFER_VARIABLE, 0, w_bytes),
                    BUFFER(DL_BUFFER_VARIABLE, 1, eight)},
        .kernels = {{AT(init), 0},
                    {AT(predict), AT(place)},
                    {AT(loss), AT(place)},
                    {AT(accuracy), AT(place)},
                    {AT(step), AT(place), AT(step_work)}},
        .faults = {{.message = AT(fault), .location = AT(place)}},
        .step_work = {AT(step_operations), AT(x_bytes), AT(w_bytes), DL_F32},
        .step_operations = {5, 0, {ROWS_CODE, DL_SIZE_CONST, 1000000, DL_SIZE_MUL}},
        .rows = {2, 0, {ROWS_CODE}},
        .four = {2, 0, {DL_SIZE_CONST, 4}},
        .three = {2, 0, {DL_SIZE_CONST, CLASSES}},
        .w_bytes = {2, 0, {DL_SIZE_CONST, FEATURES * CLASSES * 4}},
        .eight = {2, 0, {DL_SIZE_CONST, 8}},
        .x_bytes = {5, 0, {ROWS_CODE, DL_SIZE_CONST, FEATURES * 4, DL_SIZE_MUL}},
        .label_bytes = {5, 0, {ROWS_CODE, DL_SIZE_CONST, 4, DL_SIZE_MUL}},
        .predict_bytes = {5, 0, {ROWS_CODE, DL_SIZE_CONST, CLASSES * 4, DL_SIZE_MUL}},
        .x_shape = {AT(rows), AT(four)},
        .label_shape = {AT(rows)},
        .predict_shape = {AT(rows), AT(three)},
        .name = "softmax",
        .doc = "Softmax regression, written by hand.",
        .compiler = "by hand",
        .triple = "x86_64-linux-gnu",
        .query = "softmax_query",
        .dim_n = "N",
        .w = "w",
        .t = "step.t",
        .init = "__init",
        .predict = "predict",
        .loss = "loss",
        .accuracy = "accuracy",
        .step = "step",
        .seed = "seed",
        .x = "x",
        .label = "label",
        .lr = "lr",
        .delay = "delay",
        .place = "model.dl:3",
        .fault = "label {index} is {value}, which is not in 0 to 2",
        .step_doc = "One step of gradient descent.",
    }};

static const dl_entry_fn entries[FUNCTIONS] = {run_init, run_predict, run_loss, run_accuracy, run_step};
static const dl_model model = {DL_ABI_VERSION, sizeof(dl_model), &model_note.description.head, entries, NULL};

__attribute__((visibility("default"))) const dl_model *softmax_query(uint32_t abi_version);
const dl_model *softmax_query(uint32_t abi_version) { return abi_version == DL_ABI_VERSION ? &model : NULL; }
