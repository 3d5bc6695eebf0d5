/*===- cuda_gemm.c - matrix products by cuBLASLt -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * The library stores matrices by columns, we by rows. A matrix by rows is its transpose by columns,
 * so the library is asked for the transpose of the product: its A is our B, its B our A, its rows
 * are our columns. What its epilogues do to a column (a bias that is added, a gradient that is
 * summed) they then do to a row of ours, which is what is meant.
 */
#include "cuda_gpu.h"

#include <string.h>

/* The most memory that an algorithm may ask for. */
static const uint64_t most_workspace = 32u << 20;
/* What every matrix begins at a multiple of. */
static const uint32_t alignment = DL_BUFFER_ALIGNMENT;

static const uint32_t epilogues[DL_CUDA_EPILOGUE_COUNT] = {
    [DL_CUDA_EPILOGUE_NONE] = DLRT_BLAS_EPILOGUE_NONE,
    [DL_CUDA_EPILOGUE_BIAS] = DLRT_BLAS_EPILOGUE_BIAS,
    [DL_CUDA_EPILOGUE_RELU] = DLRT_BLAS_EPILOGUE_RELU,
    [DL_CUDA_EPILOGUE_RELU_BIAS] = DLRT_BLAS_EPILOGUE_RELU_BIAS,
    [DL_CUDA_EPILOGUE_RELU_AUX] = DLRT_BLAS_EPILOGUE_RELU_AUX,
    [DL_CUDA_EPILOGUE_RELU_AUX_BIAS] = DLRT_BLAS_EPILOGUE_RELU_AUX_BIAS,
    [DL_CUDA_EPILOGUE_GELU] = DLRT_BLAS_EPILOGUE_GELU,
    [DL_CUDA_EPILOGUE_GELU_BIAS] = DLRT_BLAS_EPILOGUE_GELU_BIAS,
    [DL_CUDA_EPILOGUE_GELU_AUX] = DLRT_BLAS_EPILOGUE_GELU_AUX,
    [DL_CUDA_EPILOGUE_GELU_AUX_BIAS] = DLRT_BLAS_EPILOGUE_GELU_AUX_BIAS,
    [DL_CUDA_EPILOGUE_DRELU] = DLRT_BLAS_EPILOGUE_DRELU,
    [DL_CUDA_EPILOGUE_DRELU_BGRAD] = DLRT_BLAS_EPILOGUE_DRELU_BGRAD,
    [DL_CUDA_EPILOGUE_DGELU] = DLRT_BLAS_EPILOGUE_DGELU,
    [DL_CUDA_EPILOGUE_DGELU_BGRAD] = DLRT_BLAS_EPILOGUE_DGELU_BGRAD,
    [DL_CUDA_EPILOGUE_BGRADA] = DLRT_BLAS_EPILOGUE_BGRADA,
    [DL_CUDA_EPILOGUE_BGRADB] = DLRT_BLAS_EPILOGUE_BGRADB};

static const dl_cuda_gemm_desc *gemm_of(const dlrt_gpu *gpu, const dlrt_cuda_plan *plan,
                                        uint32_t launch) {
  const dl_blob *blob = gpu->model->blob;
  const dl_cuda_function_desc *cuda = dlrt_cuda_function(blob, plan->function);
  return (const dl_cuda_gemm_desc *)dlrt_at(blob, cuda->gemms) +
         dlrt_launches(blob, plan->function)[launch].index;
}

static const char *product_name(const dlrt_gpu *gpu, const dlrt_cuda_plan *plan, uint32_t launch) {
  return gpu->model->launch_names[gpu->model->first_launch[plan->function] + launch];
}

/* ---- sizes ---- */

typedef struct extents {
  int64_t m, n, k, batch, stride_a, stride_b, stride_c, stride_d, aux_ld;
} extents;

static bool evaluate(const dlrt_gpu *gpu, const dlrt_cuda_plan *plan, dl_ref size,
                     int64_t *out_value) {
  return dlrt_size_evaluate(dlrt_at(gpu->model->blob, size), &plan->plan->binding, out_value) ==
             DLRT_SIZE_OK &&
         *out_value >= 0;
}

/* Whether `batch` matrices of `elements` elements of `bits` bits, `stride` elements apart, lie
 * within a buffer. */
static bool fits(const dlrt_gpu *gpu, const dlrt_cuda_plan *plan, uint32_t buffer, int64_t batch,
                 int64_t stride, int64_t rows, int64_t columns, int64_t bits) {
  const dl_cuda_function_desc *cuda = dlrt_cuda_function(gpu->model->blob, plan->function);
  const dl_buffer_desc *buffers = dlrt_at(gpu->model->blob, cuda->buffers);
  int64_t bytes, reach, last;
  if (!evaluate(gpu, plan, buffers[buffer].bytes, &bytes) ||
      __builtin_mul_overflow(rows, columns, &reach) ||
      __builtin_mul_overflow(batch - 1, stride, &last) ||
      __builtin_add_overflow(reach, last, &reach) || __builtin_mul_overflow(reach, bits, &reach))
    return false;
  return reach / 8 + (reach % 8 != 0) <= bytes;
}

static dlrt_status measure(const dlrt_gpu *gpu, const dlrt_cuda_plan *plan, uint32_t launch,
                           const dl_cuda_gemm_desc *gemm, extents *e) {
  bool bias, aux, ignored,
      is_relu = gemm->epilogue == DL_CUDA_EPILOGUE_RELU_AUX ||
                gemm->epilogue == DL_CUDA_EPILOGUE_RELU_AUX_BIAS ||
                gemm->epilogue == DL_CUDA_EPILOGUE_DRELU ||
                gemm->epilogue == DL_CUDA_EPILOGUE_DRELU_BGRAD;
  dlrt_epilogue_buffers(gemm->epilogue, &bias, &ignored, &aux, &ignored);
  bool has_c = gemm->c != DL_CUDA_NO_BUFFER;
  *e = (extents){0};
  if (!evaluate(gpu, plan, gemm->m, &e->m) || !evaluate(gpu, plan, gemm->n, &e->n) ||
      !evaluate(gpu, plan, gemm->k, &e->k) || !evaluate(gpu, plan, gemm->batch, &e->batch) ||
      e->batch > INT32_MAX || !evaluate(gpu, plan, gemm->stride_a, &e->stride_a) ||
      !evaluate(gpu, plan, gemm->stride_b, &e->stride_b) ||
      !evaluate(gpu, plan, gemm->stride_d, &e->stride_d) ||
      (has_c && !evaluate(gpu, plan, gemm->stride_c, &e->stride_c)) ||
      (aux && !evaluate(gpu, plan, gemm->aux_ld, &e->aux_ld)))
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "product '%s' has no size for these arguments",
                     product_name(gpu, plan, launch));
  if (!e->m || !e->n || !e->batch)
    return NULL;
  int64_t bits = (int64_t)dlrt_dtype_bytes((dlrt_dtype)gemm->dtype) * 8;
  bool inside =
      fits(gpu, plan, gemm->a, e->batch, e->stride_a, e->m, e->k, bits) &&
      fits(gpu, plan, gemm->b, e->batch, e->stride_b, e->k, e->n, bits) &&
      fits(gpu, plan, gemm->d, e->batch, e->stride_d, e->m, e->n, bits) &&
      (!has_c || fits(gpu, plan, gemm->c, e->batch, e->stride_c, e->m, e->n, bits)) &&
      (!bias || fits(gpu, plan, gemm->bias, 1, 0, 1,
                     gemm->epilogue == DL_CUDA_EPILOGUE_BGRADA ? e->m : e->n, bits)) &&
      (!aux || (e->aux_ld >= e->n && fits(gpu, plan, gemm->aux, 1, 0, e->batch * e->m, e->aux_ld,
                                          is_relu ? 1 : bits))) &&
      (gemm->alpha == DL_CUDA_NO_BUFFER || fits(gpu, plan, gemm->alpha, 1, 0, 1, 1, bits)) &&
      (gemm->beta == DL_CUDA_NO_BUFFER || fits(gpu, plan, gemm->beta, 1, 0, 1, 1, bits));
  if (!inside)
    return dlrt_fail(DLRT_CORRUPT, "damaged description: product '%s' is larger than its buffers",
                     product_name(gpu, plan, launch));
  return NULL;
}

/* ---- preparing ---- */

static bool make_layout(const dlrt_gpu *gpu, const dl_cuda_gemm_desc *gemm, const extents *e,
                        int64_t rows, int64_t columns, int64_t stride, blas_layout *out_layout) {
  const dlrt_blas *blas = gpu->blas;
  int32_t batch = (int32_t)e->batch;
  if (blas->layout_create(out_layout, gemm->dtype == DL_F64 ? BLAS_R_64F : BLAS_R_32F,
                          (uint64_t)rows, (uint64_t)columns, rows) != BLAS_SUCCESS) {
    *out_layout = NULL;
    return false;
  }
  return batch == 1 || (blas->layout_set(*out_layout, BLAS_LAYOUT_BATCH_COUNT, &batch,
                                         sizeof batch) == BLAS_SUCCESS &&
                        blas->layout_set(*out_layout, BLAS_LAYOUT_BATCH_STRIDE, &stride,
                                         sizeof stride) == BLAS_SUCCESS);
}

static bool set_desc(const dlrt_gpu *gpu, const dlrt_product *product, int attribute,
                     const void *value, size_t bytes) {
  return gpu->blas->desc_set(product->desc, attribute, value, bytes) == BLAS_SUCCESS;
}

static bool has_device_scalars(const dl_cuda_gemm_desc *gemm) {
  return gemm->alpha != DL_CUDA_NO_BUFFER || gemm->beta != DL_CUDA_NO_BUFFER;
}

/* The addresses of bias and aux are a part of the operation. */
static bool point(const dlrt_gpu *gpu, const dlrt_product *product, const dl_cuda_gemm_desc *gemm,
                  cu_address bias, cu_address aux) {
  return (gemm->bias == DL_CUDA_NO_BUFFER ||
          set_desc(gpu, product, BLAS_DESC_BIAS, &bias, sizeof bias)) &&
         (gemm->aux == DL_CUDA_NO_BUFFER ||
          set_desc(gpu, product, BLAS_DESC_AUX, &aux, sizeof aux));
}

static bool describe(const dlrt_gpu *gpu, const dl_cuda_gemm_desc *gemm, const extents *e,
                     dlrt_product *product) {
  int compute = gemm->dtype == DL_F64 ? BLAS_COMPUTE_64F
                : gemm->tf32          ? BLAS_COMPUTE_32F_FAST_TF32
                                      : BLAS_COMPUTE_32F;
  int scale = gemm->dtype == DL_F64 ? BLAS_R_64F : BLAS_R_32F;
  int32_t a = gemm->transpose_b ? BLAS_OP_T : BLAS_OP_N;
  int32_t b = gemm->transpose_a ? BLAS_OP_T : BLAS_OP_N;
  uint32_t epilogue = epilogues[gemm->epilogue];
  int32_t pointers = has_device_scalars(gemm) ? BLAS_POINTERS_DEVICE : BLAS_POINTERS_HOST;
  if (gpu->blas->desc_create(&product->desc, compute, scale) != BLAS_SUCCESS) {
    product->desc = NULL;
    return false;
  }
  if (!set_desc(gpu, product, BLAS_DESC_TRANSPOSE_A, &a, sizeof a) ||
      !set_desc(gpu, product, BLAS_DESC_TRANSPOSE_B, &b, sizeof b) ||
      !set_desc(gpu, product, BLAS_DESC_POINTER_MODE, &pointers, sizeof pointers) ||
      !set_desc(gpu, product, BLAS_DESC_EPILOGUE, &epilogue, sizeof epilogue))
    return false;
  int64_t stride = e->aux_ld * e->m;
  if (gemm->aux != DL_CUDA_NO_BUFFER &&
      (!set_desc(gpu, product, BLAS_DESC_AUX_LD, &e->aux_ld, sizeof e->aux_ld) ||
       (e->batch > 1 &&
        !set_desc(gpu, product, BLAS_DESC_AUX_BATCH_STRIDE, &stride, sizeof stride))))
    return false;
  /* Heuristics may look at how these are aligned; the places themselves are known later. */
  if (!point(gpu, product, gemm, gpu->constants, gpu->constants))
    return false;
  bool ta = gemm->transpose_a, tb = gemm->transpose_b, has_c = gemm->c != DL_CUDA_NO_BUFFER;
  return make_layout(gpu, gemm, e, tb ? e->k : e->n, tb ? e->n : e->k, e->stride_b, &product->a) &&
         make_layout(gpu, gemm, e, ta ? e->m : e->k, ta ? e->k : e->m, e->stride_a, &product->b) &&
         make_layout(gpu, gemm, e, e->n, e->m, has_c ? e->stride_c : e->stride_d, &product->c) &&
         make_layout(gpu, gemm, e, e->n, e->m, e->stride_d, &product->d);
}

static bool ask(const dlrt_gpu *gpu, dlrt_product *product) {
  const dlrt_blas *blas = gpu->blas;
  blas_preference preference;
  blas_heuristic answer;
  int found = 0;
  if (blas->preference_create(&preference) != BLAS_SUCCESS)
    return false;
  bool usable = blas->preference_set(preference, BLAS_PREFERENCE_WORKSPACE, &most_workspace,
                                     sizeof most_workspace) == BLAS_SUCCESS;
  for (int i = 0; usable && i < 4; ++i)
    usable = blas->preference_set(preference, BLAS_PREFERENCE_ALIGNMENT_A + i, &alignment,
                                  sizeof alignment) == BLAS_SUCCESS;
  memset(&answer, 0, sizeof answer);
  usable = usable &&
           blas->heuristic(gpu->blas_handle, product->desc, product->a, product->b, product->c,
                           product->d, preference, 1, &answer, &found) == BLAS_SUCCESS &&
           found > 0 && answer.state == BLAS_SUCCESS && answer.workspace_bytes <= most_workspace;
  (void)blas->preference_destroy(preference);
  product->algorithm = answer.algorithm;
  product->workspace_bytes = usable ? answer.workspace_bytes : 0;
  return usable;
}

dlrt_status dlrt_product_prepare(dlrt_gpu *gpu, const dlrt_cuda_plan *plan, uint32_t launch,
                                 dlrt_product *product, bool *out_found) {
  const dl_cuda_gemm_desc *gemm = gemm_of(gpu, plan, launch);
  extents e;
  *out_found = true;
  dlrt_status status = measure(gpu, plan, launch, gemm, &e);
  if (status)
    return status;
  product->is_empty = !e.m || !e.n || !e.batch;
  if (product->is_empty)
    return NULL;
  /* A sum of nothing is no product that the library knows. */
  *out_found = e.k > 0 && describe(gpu, gemm, &e, product) && ask(gpu, product);
  return NULL;
}

dlrt_status dlrt_product_issue(dlrt_gpu *gpu, const dlrt_cuda_plan *plan, uint32_t launch,
                               cu_stream stream) {
  const dl_cuda_gemm_desc *gemm = gemm_of(gpu, plan, launch);
  const dlrt_product *product = &plan->products[launch];
  const cu_address *at = plan->current;
  static const float one_f32 = 1, zero_f32 = 0;
  static const double one_f64 = 1, zero_f64 = 0;
  bool wide = gemm->dtype == DL_F64, has_c = gemm->c != DL_CUDA_NO_BUFFER;
  if (product->is_empty)
    return NULL;
  const void *alpha = wide ? (const void *)&one_f64 : &one_f32,
             *beta = wide ? (const void *)&zero_f64 : &zero_f32;
  if (has_device_scalars(gemm)) {
    cu_address one = gpu->constants + (wide ? SCALAR_ONE_F64 : SCALAR_ONE_F32),
               zero = gpu->constants + (wide ? SCALAR_ZERO_F64 : SCALAR_ZERO_F32);
    alpha = (const void *)(uintptr_t)(gemm->alpha == DL_CUDA_NO_BUFFER ? one : at[gemm->alpha]);
    beta = (const void *)(uintptr_t)(gemm->beta == DL_CUDA_NO_BUFFER ? zero : at[gemm->beta]);
  }
  if (!point(gpu, product, gemm, gemm->bias == DL_CUDA_NO_BUFFER ? 0 : at[gemm->bias],
             gemm->aux == DL_CUDA_NO_BUFFER ? 0 : at[gemm->aux]))
    return dlrt_fail(DLRT_DEVICE, "cuda:%u: cuBLASLt refuses the operands of product '%s'",
                     gpu->ordinal, product_name(gpu, plan, launch));
  blas_result result = gpu->blas->multiply(
      gpu->blas_handle, product->desc, alpha, at[gemm->b], product->a, at[gemm->a], product->b,
      beta, at[has_c ? gemm->c : gemm->d], product->c, at[gemm->d], product->d, &product->algorithm,
      gpu->arena + plan->workspace, product->workspace_bytes, stream);
  if (result != BLAS_SUCCESS)
    return dlrt_fail(DLRT_DEVICE,
                     "cuda:%u: cannot launch product '%s': cuBLASLt refuses (cublasStatus_t %d)",
                     gpu->ordinal, product_name(gpu, plan, launch), result);
  return NULL;
}

void dlrt_product_release(dlrt_gpu *gpu, dlrt_product *product) {
  blas_layout layouts[] = {product->a, product->b, product->c, product->d};
  for (uint32_t i = 0; i < 4; ++i)
    if (layouts[i])
      (void)gpu->blas->layout_destroy(layouts[i]);
  if (product->desc)
    (void)gpu->blas->desc_destroy(product->desc);
  memset(product, 0, sizeof *product);
}
