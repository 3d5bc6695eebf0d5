/*===- cuda_device.c - opens a GPU for an instance -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * The primary context, the model's kernels, and memory that lives as long as the instance:
 * variables and constants. The context is made current for each call and put back, so that other
 * users of the GPU in this process see nothing of it.
 */
#include "cuda_gpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- errors ---- */

/* Errors after which a context cannot be used any more. */
static bool ends_context(cu_result result) {
  switch (result) {
  case CU_ERROR_NOT_INITIALIZED: /* the child of a fork */
  case CU_ERROR_DEINITIALIZED:
  case CU_ERROR_DEVICE_UNAVAILABLE:
  case CU_ERROR_ECC_UNCORRECTABLE:
  case CU_ERROR_NVLINK_UNCORRECTABLE:
  case CU_ERROR_ILLEGAL_ADDRESS:
  case CU_ERROR_LAUNCH_TIMEOUT:
  case CU_ERROR_CONTEXT_IS_DESTROYED:
  case CU_ERROR_ASSERT:
  case CU_ERROR_HARDWARE_STACK_ERROR:
  case CU_ERROR_ILLEGAL_INSTRUCTION:
  case CU_ERROR_MISALIGNED_ADDRESS:
  case CU_ERROR_INVALID_ADDRESS_SPACE:
  case CU_ERROR_INVALID_PC:
  case CU_ERROR_LAUNCH_FAILED:
  case CU_ERROR_UNKNOWN:
    return true;
  }
  return false;
}

dlrt_status dlrt_cuda_failed(dlrt_gpu *gpu, cu_result result, const char *action, bool at_work) {
  dlrt_status status = dlrt_driver_failed(gpu->cu, gpu->ordinal, result, action);
  if ((at_work || ends_context(result)) && !gpu->lost[0])
    snprintf(gpu->lost, sizeof gpu->lost, "%s", dlrt_status_message(status));
  return status;
}

dlrt_status dlrt_cuda_lost(const dlrt_gpu *gpu) {
  return dlrt_fail(DLRT_DEVICE,
                   "the instance and its variables were lost with the device, make a new one: %s",
                   gpu->lost);
}

/* ---- entering ---- */

/* Takes the GPU for this thread. */
static dlrt_status enter(dlrt_gpu *gpu) {
  pthread_mutex_lock(&gpu->mutex);
  dlrt_status status = NULL;
  cu_result result;
  if (gpu->lost[0])
    status = dlrt_cuda_lost(gpu);
  else if ((result = gpu->cu->context_push(gpu->context)) != CU_SUCCESS)
    status = dlrt_cuda_failed(gpu, result, "enter the context", false);
  if (status)
    pthread_mutex_unlock(&gpu->mutex);
  return status;
}

static void leave(dlrt_gpu *gpu) {
  cu_context popped;
  (void)gpu->cu->context_pop(&popped);
  pthread_mutex_unlock(&gpu->mutex);
}

/* ---- memory ---- */

dlrt_status dlrt_cuda_allocate(dlrt_gpu *gpu, const char *what, uint64_t bytes,
                               cu_address *out_address) {
  *out_address = 0;
  uint64_t left = gpu->memory_limit > gpu->memory_used ? gpu->memory_limit - gpu->memory_used : 0;
  if (bytes > left)
    return dlrt_fail(DLRT_OUT_OF_MEMORY,
                     "out of memory: %s asked for %llu bytes of cuda:%u, %llu of the limit of %llu "
                     "are available",
                     what, (unsigned long long)bytes, gpu->ordinal, (unsigned long long)left,
                     (unsigned long long)gpu->memory_limit);
  cu_result result = gpu->cu->allocate(out_address, bytes);
  if (result == CU_SUCCESS) {
    gpu->memory_used += bytes;
    return NULL;
  }
  *out_address = 0;
  size_t free_bytes = 0, total_bytes = 0;
  if (result != CU_ERROR_OUT_OF_MEMORY ||
      gpu->cu->memory_info(&free_bytes, &total_bytes) != CU_SUCCESS)
    return dlrt_cuda_failed(gpu, result, "allocate memory", false);
  return dlrt_fail(DLRT_OUT_OF_MEMORY,
                   "out of memory: %s asked for %llu bytes of cuda:%u, %zu of its %zu are free",
                   what, (unsigned long long)bytes, gpu->ordinal, free_bytes, total_bytes);
}

void dlrt_cuda_free(dlrt_gpu *gpu, cu_address *address, uint64_t bytes) {
  if (!*address)
    return;
  (void)gpu->cu->free(*address);
  *address = 0;
  gpu->memory_used -= bytes;
}

/* ---- the model's kernels ---- */

/* Of the images of a kind that the device takes, the one for the newest architecture; NULL: none.
 */
static const dl_cuda_image *best_image(const dlrt_gpu *gpu, uint32_t kind) {
  const dl_blob *blob = gpu->model->blob;
  const dl_cuda_desc *cuda = dlrt_at(blob, blob->cuda);
  const dl_cuda_image *images = dlrt_at(blob, cuda->images), *best = NULL;
  for (uint32_t i = 0; i < cuda->image_count; ++i) {
    bool fits = images[i].kind == kind && images[i].arch <= gpu->arch &&
                (kind == DL_CUDA_PTX || images[i].arch / 10 == gpu->arch / 10);
    if (fits && (!best || images[i].arch > best->arch))
      best = &images[i];
  }
  return best;
}

static dlrt_status no_image(const dlrt_gpu *gpu) {
  const dl_blob *blob = gpu->model->blob;
  const dl_cuda_desc *cuda = dlrt_at(blob, blob->cuda);
  const dl_cuda_image *images = dlrt_at(blob, cuda->images);
  char list[512] = "nothing";
  size_t used = 0;
  for (uint32_t i = 0; i < cuda->image_count && used + 32 < sizeof list; ++i)
    used += (size_t)snprintf(list + used, sizeof list - used, "%s%ssm_%u", used ? ", " : "",
                             images[i].kind == DL_CUDA_PTX ? "PTX for " : "", images[i].arch);
  return dlrt_fail(DLRT_DEVICE,
                   "model '%s' has no kernels for cuda:%u, which is sm_%u: it has %s (machine code "
                   "serves later ones of its generation, PTX all later ones)",
                   dlrt_string(blob, blob->name), gpu->ordinal, gpu->arch, list);
}

static dlrt_status load_image(dlrt_gpu *gpu, const dl_cuda_image *image) {
  char log[1024] = "";
  int options[] = {CU_JIT_LOG, CU_JIT_LOG_BYTES};
  void *values[] = {log, (void *)(uintptr_t)sizeof log};
  bool is_ptx = image->kind == DL_CUDA_PTX;
  cu_result result = gpu->cu->module_load(&gpu->module, dlrt_at(gpu->model->blob, image->data),
                                          is_ptx ? 2 : 0, options, values);
  if (result == CU_SUCCESS)
    return NULL;
  gpu->module = NULL;
  log[sizeof log - 1] = 0;
  for (char *c = log; *c; ++c)
    if ((unsigned char)*c < 0x20)
      *c = ' ';
  char action[64 + sizeof log];
  snprintf(action, sizeof action, "%s for sm_%u%s%s%s",
           is_ptx ? "compile the model's PTX" : "load the model's machine code", image->arch,
           log[0] ? " (" : "", log, log[0] ? ")" : "");
  return dlrt_cuda_failed(gpu, result, action, false);
}

static dlrt_status load_kernels(dlrt_gpu *gpu) {
  const dl_blob *blob = gpu->model->blob;
  const dl_cuda_desc *cuda = dlrt_at(blob, blob->cuda);
  const dl_cuda_kernel_desc *kernels = dlrt_at(blob, cuda->kernels);
  if (!cuda->kernel_count)
    return NULL;
  const dl_cuda_image *code = best_image(gpu, DL_CUDA_CUBIN), *ptx = best_image(gpu, DL_CUDA_PTX);
  if (!code && !ptx)
    return no_image(gpu);
  dlrt_status status = code ? load_image(gpu, code) : NULL;
  /* An older driver may refuse a newer assembler's output. */
  if (!gpu->module && ptx && !gpu->lost[0]) {
    dlrt_status_release(status);
    status = load_image(gpu, ptx);
  }
  if (status)
    return status;
  gpu->functions = calloc(cuda->kernel_count, sizeof *gpu->functions);
  if (!gpu->functions)
    return dlrt_fail_memory("the GPU's kernels", cuda->kernel_count * sizeof *gpu->functions);
  for (uint32_t i = 0; i < cuda->kernel_count; ++i) {
    char action[DLRT_MAX_NAME_BYTES + 64];
    snprintf(action, sizeof action, "find kernel '%s' in the model's code",
             dlrt_string(blob, kernels[i].symbol));
    cu_result result = gpu->cu->module_function(&gpu->functions[i], gpu->module,
                                                dlrt_string(blob, kernels[i].symbol));
    if (result == CU_SUCCESS && kernels[i].shared_bytes > 48 << 10) {
      snprintf(action, sizeof action, "give kernel '%s' %u bytes of shared memory",
               dlrt_string(blob, kernels[i].symbol), kernels[i].shared_bytes);
      result = gpu->cu->function_set(gpu->functions[i], CU_FUNCTION_MAX_DYNAMIC_SHARED_BYTES,
                                     (int)kernels[i].shared_bytes);
    }
    if (result != CU_SUCCESS)
      return dlrt_cuda_failed(gpu, result, action, false);
  }
  return NULL;
}

/* Opens cuBLASLt where the model can use it. */
static dlrt_status open_blas(dlrt_gpu *gpu) {
  const dl_blob *blob = gpu->model->blob;
  const char *first = NULL; /* a function that cannot do without it */
  bool wanted = false;
  for (uint32_t f = 0; f < blob->function_count; ++f) {
    const dl_cuda_function_desc *cuda = dlrt_cuda_function(blob, f);
    for (uint32_t l = 0; cuda && l < cuda->launch_count; ++l) {
      const dl_cuda_launch_desc *launch = &dlrt_launches(blob, f)[l];
      if (launch->kind != DL_CUDA_LAUNCH_GEMM)
        continue;
      wanted = true;
      if (launch->when == DL_CUDA_ALWAYS && !first)
        first = dlrt_string(blob, dlrt_functions(blob)[f].name);
    }
  }
  if (!wanted)
    return NULL;
  const dlrt_blas *blas;
  dlrt_status status = dlrt_blas_open(&blas);
  if (!status) {
    blas_result result = blas->create(&gpu->blas_handle);
    if (result == BLAS_SUCCESS) {
      gpu->blas = blas;
      return NULL;
    }
    status = dlrt_fail(DLRT_DEVICE, "no cuBLASLt: it does not start (cublasStatus_t %d)", result);
  }
  if (first) {
    dlrt_status refused =
        dlrt_fail(DLRT_DEVICE, "%s, and '%s' needs it", dlrt_status_message(status), first);
    dlrt_status_release(status);
    return refused;
  }
  size_t used = strlen(gpu->name);
  snprintf(gpu->name + used, sizeof gpu->name - used, ", own products: %s",
           dlrt_status_message(status));
  dlrt_status_release(status);
  return NULL;
}

/* ---- constants ---- */

static int compare_constants(const void *a, const void *b) {
  const dlrt_constant *x = a, *y = b;
  if (x->offset != y->offset)
    return x->offset < y->offset ? -1 : 1;
  return x->bytes > y->bytes ? -1 : x->bytes < y->bytes; /* the longest first */
}

/* Lists each constant once. */
static dlrt_status list_constants(dlrt_gpu *gpu) {
  const dl_blob *blob = gpu->model->blob;
  const dlrt_binding none = {.bound = 0};
  uint64_t count = 0;
  for (int pass = 0; pass < 2; ++pass) {
    uint64_t seen = 0;
    for (uint32_t f = 0; f < blob->function_count; ++f) {
      const dl_cuda_function_desc *cuda = dlrt_cuda_function(blob, f);
      const dl_buffer_desc *buffers = cuda ? dlrt_at(blob, cuda->buffers) : NULL;
      for (uint32_t b = 0; cuda && b < cuda->buffer_count; ++b) {
        if (buffers[b].kind != DL_BUFFER_CONSTANT)
          continue;
        int64_t bytes = 0; /* the description's check has seen to it that this has a value */
        (void)dlrt_size_evaluate(dlrt_at(blob, buffers[b].bytes), &none, &bytes);
        if (pass)
          gpu->constant[seen] = (dlrt_constant){buffers[b].index, (uint64_t)bytes, 0};
        ++seen;
      }
    }
    count = seen;
    if (!pass && !(gpu->constant = calloc(count + 1, sizeof *gpu->constant)))
      return dlrt_fail_memory("the GPU's constants", count * sizeof *gpu->constant);
  }
  qsort(gpu->constant, count, sizeof *gpu->constant, compare_constants);
  gpu->constant_bytes = DLRT_CUDA_ALIGNMENT; /* for the scalars */
  for (uint64_t i = 0; i < count; ++i) {
    dlrt_constant *constant = &gpu->constant[i];
    if (gpu->constant_count && gpu->constant[gpu->constant_count - 1].offset == constant->offset)
      continue;
    constant->place = gpu->constant_bytes;
    gpu->constant_bytes +=
        (constant->bytes + DLRT_CUDA_ALIGNMENT - 1) & ~(uint64_t)(DLRT_CUDA_ALIGNMENT - 1);
    gpu->constant[gpu->constant_count++] = *constant;
  }
  return NULL;
}

/* Variables, all zero, and constants. */
static dlrt_status fill_memory(dlrt_gpu *gpu) {
  const float one = 1, zero = 0;
  const double wide_one = 1, wide_zero = 0;
  char scalars[24];
  uint64_t variable_bytes = gpu->model->variable_bytes ? gpu->model->variable_bytes : 1;
  dlrt_status status = list_constants(gpu);
  if (status ||
      (status = dlrt_cuda_allocate(gpu, "the variables", variable_bytes, &gpu->variables)) ||
      (status = dlrt_cuda_allocate(gpu, "the constants", gpu->constant_bytes, &gpu->constants)))
    return status;
  memcpy(scalars + SCALAR_ONE_F32, &one, sizeof one);
  memcpy(scalars + SCALAR_ZERO_F32, &zero, sizeof zero);
  memcpy(scalars + SCALAR_ONE_F64, &wide_one, sizeof wide_one);
  memcpy(scalars + SCALAR_ZERO_F64, &wide_zero, sizeof wide_zero);
  cu_result result = gpu->cu->fill(gpu->variables, 0, variable_bytes, gpu->compute);
  if (result == CU_SUCCESS)
    result = gpu->cu->copy_in(gpu->constants, scalars, sizeof scalars, gpu->compute);
  for (uint32_t i = 0; i < gpu->constant_count && result == CU_SUCCESS; ++i)
    if (gpu->constant[i].bytes)
      result = gpu->cu->copy_in(gpu->constants + gpu->constant[i].place,
                                dlrt_at(gpu->model->blob, gpu->constant[i].offset),
                                gpu->constant[i].bytes, gpu->compute);
  if (result == CU_SUCCESS)
    result = gpu->cu->stream_synchronize(gpu->compute);
  return result == CU_SUCCESS ? NULL : dlrt_cuda_failed(gpu, result, "copy the constants", false);
}

/* ---- opening ---- */

static dlrt_status find_device(dlrt_gpu *gpu, uint32_t ordinal) {
  const dlrt_driver *cu = gpu->cu;
  int count = 0, major = 0, minor = 0;
  char name[128] = "";
  cu_result result = cu->device_count(&count);
  if (result != CU_SUCCESS)
    return dlrt_driver_failed(cu, ordinal, result, "count devices");
  if (count < 1)
    return dlrt_fail(DLRT_DEVICE, "no device: the driver sees no GPU");
  if (ordinal >= (uint32_t)count)
    return dlrt_fail(DLRT_DEVICE, "no device cuda:%u: there %s %d, from cuda:0", ordinal,
                     count == 1 ? "is" : "are", count);
  if ((result = cu->device_get(&gpu->device, (int)ordinal)) != CU_SUCCESS ||
      (result = cu->device_name(name, sizeof name, gpu->device)) != CU_SUCCESS ||
      (result = cu->device_attribute(&major, CU_DEVICE_COMPUTE_MAJOR, gpu->device)) != CU_SUCCESS ||
      (result = cu->device_attribute(&minor, CU_DEVICE_COMPUTE_MINOR, gpu->device)) != CU_SUCCESS)
    return dlrt_driver_failed(cu, ordinal, result, "ask the device what it is");
  name[sizeof name - 1] = 0;
  gpu->arch = (uint32_t)(major * 10 + minor);
  snprintf(gpu->name, sizeof gpu->name, "cuda:%u (%s)", ordinal, name);
  return NULL;
}

static dlrt_status fill_gpu(dlrt_gpu *gpu) {
  const dlrt_driver *cu = gpu->cu;
  cu_result result;
  dlrt_status status;
  gpu->plans = calloc((size_t)gpu->model->blob->function_count * DLRT_PLANS_PER_FUNCTION + 1,
                      sizeof *gpu->plans);
  gpu->values = calloc(DLRT_CUDA_PARAMETERS, sizeof *gpu->values);
  gpu->parameters = calloc(DLRT_CUDA_PARAMETERS, sizeof *gpu->parameters);
  if (!gpu->plans || !gpu->values || !gpu->parameters)
    return dlrt_fail_memory("a GPU's plans", DLRT_CUDA_PARAMETERS * 16);
  for (uint32_t i = 0; i < DLRT_CUDA_PARAMETERS; ++i)
    gpu->parameters[i] = &gpu->values[i];
  if ((result = cu->stream_create(&gpu->compute, CU_OWN_STREAM)) != CU_SUCCESS ||
      (result = cu->stream_create(&gpu->copy, CU_OWN_STREAM)) != CU_SUCCESS ||
      (result = cu->stream_create(&gpu->capture, CU_OWN_STREAM)) != CU_SUCCESS)
    return dlrt_cuda_failed(gpu, result, "make a stream", false);
  for (uint32_t i = 0; i < 2; ++i)
    if ((result = cu->event_create(&gpu->slots[i].copied, CU_UNTIMED_EVENT)) != CU_SUCCESS ||
        (result = cu->event_create(&gpu->slots[i].done, CU_UNTIMED_EVENT)) != CU_SUCCESS)
      return dlrt_cuda_failed(gpu, result, "make an event", false);
  if ((status = load_kernels(gpu)) || (status = open_blas(gpu)))
    return status;
  return fill_memory(gpu);
}

static void cuda_release(dlrt_gpu *gpu);

static dlrt_status cuda_open(const dlrt_model *model, uint32_t ordinal, uint64_t memory_limit,
                             dlrt_gpu **out_gpu) {
  const dlrt_driver *cu;
  dlrt_status status = dlrt_driver_open(&cu);
  if (status)
    return status;
  dlrt_gpu *gpu = calloc(1, sizeof *gpu);
  if (!gpu)
    return dlrt_fail_memory("an instance on a GPU", sizeof *gpu);
  *gpu = (dlrt_gpu){.model = model, .cu = cu, .ordinal = ordinal, .memory_limit = memory_limit};
  pthread_mutex_init(&gpu->mutex, NULL);
  cu_result result;
  if (!(status = find_device(gpu, ordinal)) &&
      (result = cu->context_retain(&gpu->context, gpu->device)) != CU_SUCCESS) {
    gpu->context = NULL;
    status = dlrt_cuda_failed(gpu, result, "make a context", false);
  }
  if (!status && !(status = enter(gpu))) {
    status = fill_gpu(gpu);
    leave(gpu);
  }
  if (status)
    cuda_release(gpu);
  else
    *out_gpu = gpu;
  return status;
}

static void cuda_release(dlrt_gpu *gpu) {
  const dlrt_driver *cu = gpu->cu;
  cu_context popped;
  /* On a lost device all of this fails, which changes nothing. */
  bool entered = gpu->context && cu->context_push(gpu->context) == CU_SUCCESS;
  if (gpu->copy)
    (void)cu->stream_synchronize(gpu->copy);
  if (gpu->compute)
    (void)cu->stream_synchronize(gpu->compute);
  uint64_t plans = (uint64_t)gpu->model->blob->function_count * DLRT_PLANS_PER_FUNCTION;
  for (uint64_t i = 0; gpu->plans && i < plans; ++i)
    dlrt_cuda_free_plan(gpu, gpu->plans[i]);
  for (uint32_t i = 0; i < gpu->profile_event_count; ++i)
    (void)cu->event_destroy(gpu->profile_events[i]);
  for (uint32_t i = 0; i < 2; ++i) {
    if (gpu->slots[i].copied)
      (void)cu->event_destroy(gpu->slots[i].copied);
    if (gpu->slots[i].done)
      (void)cu->event_destroy(gpu->slots[i].done);
  }
  if (gpu->pinned)
    (void)cu->free_host(gpu->pinned);
  dlrt_cuda_free(gpu, &gpu->io, gpu->io_bytes);
  dlrt_cuda_free(gpu, &gpu->arena, gpu->arena_bytes);
  dlrt_cuda_free(gpu, &gpu->constants, gpu->constant_bytes);
  dlrt_cuda_free(gpu, &gpu->variables, gpu->model->variable_bytes);
  if (gpu->blas)
    (void)gpu->blas->destroy(gpu->blas_handle);
  if (gpu->module)
    (void)cu->module_unload(gpu->module);
  cu_stream streams[] = {gpu->compute, gpu->copy, gpu->capture};
  for (uint32_t i = 0; i < 3; ++i)
    if (streams[i])
      (void)cu->stream_destroy(streams[i]);
  if (entered)
    (void)cu->context_pop(&popped);
  if (gpu->context)
    (void)cu->context_release(gpu->device);
  pthread_mutex_destroy(&gpu->mutex);
  free(gpu->profile_events);
  free(gpu->profile_launches);
  free(gpu->functions);
  free(gpu->constant);
  free(gpu->plans);
  free(gpu->values);
  free(gpu->parameters);
  free(gpu);
}

/* ---- what instances ask for ---- */

static const char *cuda_name(const dlrt_gpu *gpu) { return gpu->name; }

static dlrt_status cuda_read(dlrt_gpu *gpu, uint64_t offset, void *data, uint64_t bytes) {
  dlrt_status status = enter(gpu);
  if (status)
    return status;
  if (!(status = dlrt_cuda_settle(gpu)) && bytes) {
    cu_result result = gpu->cu->copy_out(data, gpu->variables + offset, bytes, gpu->compute);
    if (result == CU_SUCCESS)
      result = gpu->cu->stream_synchronize(gpu->compute);
    if (result != CU_SUCCESS)
      status = dlrt_cuda_failed(gpu, result, "copy variables from the device", false);
  }
  leave(gpu);
  return status;
}

static dlrt_status cuda_write(dlrt_gpu *gpu, uint64_t offset, const void *data, uint64_t bytes) {
  dlrt_status status = enter(gpu);
  if (status)
    return status;
  if (!(status = dlrt_cuda_settle(gpu)) && bytes) {
    cu_result result = gpu->cu->copy_in(gpu->variables + offset, data, bytes, gpu->compute);
    if (result == CU_SUCCESS)
      result = gpu->cu->stream_synchronize(gpu->compute);
    /* Some of them may have arrived. */
    if (result != CU_SUCCESS)
      status = dlrt_cuda_failed(gpu, result, "copy variables to the device", true);
  }
  leave(gpu);
  return status;
}

static dlrt_status cuda_call(dlrt_gpu *gpu, const dlrt_gpu_call *call) {
  dlrt_status status = enter(gpu);
  if (status)
    return status;
  status = dlrt_cuda_call(gpu, call);
  leave(gpu);
  return status;
}

static dlrt_status cuda_collect(dlrt_gpu *gpu, dlrt_ticket *ticket) {
  dlrt_status status = enter(gpu);
  if (status)
    return status;
  status = dlrt_cuda_collect(gpu, ticket);
  leave(gpu);
  return status;
}

static dlrt_status cuda_synchronize(dlrt_gpu *gpu) {
  dlrt_status status = enter(gpu);
  if (status)
    return status;
  status = dlrt_cuda_settle(gpu);
  leave(gpu);
  return status;
}

static uint64_t cuda_arena_bytes(dlrt_gpu *gpu) {
  pthread_mutex_lock(&gpu->mutex);
  uint64_t bytes = gpu->arena_bytes;
  pthread_mutex_unlock(&gpu->mutex);
  return bytes;
}

const dlrt_gpu_half dlrt_cuda_half = {.abi_version = DL_ABI_VERSION,
                                      .size = sizeof dlrt_cuda_half,
                                      .open = cuda_open,
                                      .release = cuda_release,
                                      .name = cuda_name,
                                      .read = cuda_read,
                                      .write = cuda_write,
                                      .call = cuda_call,
                                      .collect = cuda_collect,
                                      .synchronize = cuda_synchronize,
                                      .arena_bytes = cuda_arena_bytes};
