/*===- cuda_gpu.h - an instance's part on a GPU -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * What the files of the half for GPUs share. Everything here happens under the GPU's mutex and with
 * its context current.
 */
#ifndef DLRT_CUDA_GPU_H
#define DLRT_CUDA_GPU_H

#include "cuda_driver.h"

#include <pthread.h>

/* What blocks of memory on the device begin at multiples of, as the driver's own allocations do. */
#define DLRT_CUDA_ALIGNMENT 256
/* Kernels take less than 32 KiB of parameters, 8 bytes each. */
#define DLRT_CUDA_PARAMETERS 4096

/* A matrix product of cuBLASLt, ready to run. */
typedef struct dlrt_product {
  bool is_empty; /* nothing to do */
  blas_desc desc;
  blas_layout a, b, c, d; /* as the library sees them: in columns, so a is the description's b */
  blas_algorithm algorithm;
  uint64_t workspace_bytes;
} dlrt_product;

/* A function with one binding of the dimensions and one choice of results. */
typedef struct dlrt_cuda_plan {
  dlrt_plan *plan; /* the key, and where buffers lie in the arena */
  uint32_t function;
  uint64_t in_bytes, out_bytes;        /* arguments; fault and results */
  uint64_t arena_bytes;                /* workspace included */
  uint64_t workspace, workspace_bytes; /* place in the arena */
  bool uses_blas;
  uint64_t *argument_places; /* [argument_count] in a slot's block */
  uint64_t *result_places;   /* [result_count] in the block of results; 0: in the arena */
  cu_address *addresses[2];  /* [buffer_count] for each slot */
  cu_address *current;       /* [buffer_count] while launches are sent: loops exchange some */
  uint32_t (*grids)[3];      /* [launch_count] */
  uint32_t *first_size;      /* [launch_count] where a launch's sizes begin in … */
  int64_t *sizes;
  dlrt_product *products; /* [launch_count]; those of kernels are empty */
  bool is_captured; /* as graphs; else launches are sent one by one */
  bool is_ready;    /* addresses are right, and graphs are there */
  cu_graph_exec graphs[2];
} dlrt_cuda_plan;

/* What every second call uses, so that one can be got ready while the call before runs: pinned
 * memory for arguments and results, and a place on the device for the arguments. */
typedef struct dlrt_cuda_slot {
  char *host_in, *host_out; /* host_out: the fault, then results */
  cu_address in;
  cu_event copied, done;
  bool pending; /* a call whose end nobody has looked at */
  uint32_t function;
  dlrt_ticket *ticket; /* whose results are in host_out, or will be; NULL: nobody's */
} dlrt_cuda_slot;

typedef struct dlrt_constant {
  uint32_t offset; /* in the blob */
  uint64_t bytes, place;
} dlrt_constant;

struct dlrt_gpu {
  const dlrt_model *model;
  const dlrt_driver *cu;
  const dlrt_blas *blas; /* NULL: not there, or not needed */
  blas_handle blas_handle;
  pthread_mutex_t mutex;
  uint32_t ordinal, arch;
  cu_device device;
  cu_context context;
  char name[256];
  char lost[512]; /* why the device can no longer be used; empty: it can */
  uint64_t memory_limit, memory_used;

  cu_module module;
  cu_function *functions; /* of the model's kernels */
  cu_stream compute, copy, capture;

  cu_address variables;
  cu_address constants; /* first the scalars one and zero, f32 and f64, then: */
  uint64_t constant_bytes;
  dlrt_constant *constant; /* by offset */
  uint32_t constant_count;

  cu_address arena;
  uint64_t arena_bytes;
  cu_address io; /* both slots' arguments, then fault and results */
  char *pinned;
  uint64_t in_capacity, out_capacity, io_bytes, pinned_bytes;
  cu_address out;
  dlrt_cuda_slot slots[2];
  uint32_t next_slot;

  uint64_t clock;
  dlrt_cuda_plan **plans; /* [function_count][DLRT_PLANS_PER_FUNCTION] */
  uint64_t *values;       /* [DLRT_CUDA_PARAMETERS] of a launch */
  void **parameters;      /* parameters[i] = &values[i], always */
  cu_event *profile_events;
  uint32_t *profile_launches; /* launch i of a call lies between events i and i + 1 */
  uint32_t profile_event_count;
};

enum { SCALAR_ONE_F32 = 0, SCALAR_ZERO_F32 = 4, SCALAR_ONE_F64 = 8, SCALAR_ZERO_F64 = 16 };

/* ---- cuda_device.c ---- */

/* The driver's refusal in words. One after which the device is of no more use (`at_work`: the error
 * comes from work that the device had taken on) is remembered. */
dlrt_status dlrt_cuda_failed(dlrt_gpu *gpu, cu_result result, const char *action, bool at_work);
/* The refusal of everything on a device that was lost. */
dlrt_status dlrt_cuda_lost(const dlrt_gpu *gpu);
/* Memory on the device, counted against the instance's limit. Freeing none does nothing. */
dlrt_status dlrt_cuda_allocate(dlrt_gpu *gpu, const char *what, uint64_t bytes,
                               cu_address *out_address);
void dlrt_cuda_free(dlrt_gpu *gpu, cu_address *address, uint64_t bytes);
/* Waits for everything; reports the fault of a call without a ticket that nobody has looked at. */
dlrt_status dlrt_cuda_settle(dlrt_gpu *gpu);

/* ---- cuda_call.c ---- */

dlrt_status dlrt_cuda_call(dlrt_gpu *gpu, const dlrt_gpu_call *call);
dlrt_status dlrt_cuda_collect(dlrt_gpu *gpu, dlrt_ticket *ticket);
void dlrt_cuda_free_plan(dlrt_gpu *gpu, dlrt_cuda_plan *plan);

/* ---- cuda_gemm.c ---- */

/* Prepares the product of a launch for a plan's sizes. `*out_found` is false where the library has
 * no algorithm for it. */
dlrt_status dlrt_product_prepare(dlrt_gpu *gpu, const dlrt_cuda_plan *plan, uint32_t launch,
                                 dlrt_product *product, bool *out_found);
/* Its operands lie where the plan's `current` says. */
dlrt_status dlrt_product_issue(dlrt_gpu *gpu, const dlrt_cuda_plan *plan, uint32_t launch,
                               cu_stream stream);
void dlrt_product_release(dlrt_gpu *gpu, dlrt_product *product);

static inline const dl_cuda_launch_desc *dlrt_launches(const dl_blob *blob, uint32_t function) {
  const dl_cuda_function_desc *cuda = dlrt_cuda_function(blob, function);
  return (const dl_cuda_launch_desc *)dlrt_at(blob, cuda->launches);
}

#endif
