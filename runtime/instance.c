/*===- instance.c - a model's variables and what calls need -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===*/
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_THREADS = 1024 };

/* ---- who is inside ---- */

dlrt_status dlrt_instance_enter(const dlrt_instance *instance, bool exclusive) {
  /* Counting callers does not change what an instance says, hence the cast. */
  _Atomic int32_t *users = &((dlrt_instance *)instance)->users;
  int32_t seen = atomic_load_explicit(users, memory_order_relaxed);
  do
    if (exclusive ? seen != 0 : seen < 0)
      return dlrt_fail(DLRT_INVALID_ARGUMENT, "the instance is in use by another call: only const "
                                              "functions and reading variables may overlap");
  while (!atomic_compare_exchange_weak_explicit(users, &seen, exclusive ? -1 : seen + 1,
                                                memory_order_acquire, memory_order_relaxed));
  return NULL;
}

void dlrt_instance_leave(const dlrt_instance *instance, bool exclusive) {
  _Atomic int32_t *users = &((dlrt_instance *)instance)->users;
  if (exclusive)
    atomic_store_explicit(users, 0, memory_order_release);
  else
    atomic_fetch_sub_explicit(users, 1, memory_order_release);
}

/* ---- contexts ---- */

static void free_context(dlrt_context *context, const dlrt_model *model) {
  if (!context)
    return;
  if (context->plans)
    for (uint64_t i = 0; i < (uint64_t)model->blob->function_count * DLRT_PLANS_PER_FUNCTION; ++i)
      free(context->plans[i]);
  free(context->plans);
  free(context->buffers);
  free(context->defaults);
  dlrt_block_release(&context->arena);
  dlrt_block_release(&context->scratch);
  free(context);
}

static dlrt_context *create_context(const dlrt_model *model) {
  dlrt_context *context = calloc(1, sizeof *context);
  if (!context)
    return NULL;
  context->buffers = calloc(model->max_buffers + 1ull, sizeof *context->buffers);
  context->defaults = calloc(model->max_arguments + 1ull, sizeof *context->defaults);
  context->plans = calloc((size_t)model->blob->function_count * DLRT_PLANS_PER_FUNCTION + 1,
                          sizeof *context->plans);
  if (!context->buffers || !context->defaults || !context->plans ||
      !dlrt_block_allocate(&context->scratch, model->scratch_bytes)) {
    free_context(context, model);
    return NULL;
  }
  return context;
}

dlrt_status dlrt_context_acquire(dlrt_instance *instance, dlrt_context **out_context) {
  dlrt_context *first = atomic_load_explicit(&instance->contexts, memory_order_acquire);
  for (dlrt_context *context = first; context; context = context->next) {
    uint32_t idle = 0;
    if (atomic_compare_exchange_strong_explicit(&context->busy, &idle, 1, memory_order_acquire,
                                                memory_order_relaxed)) {
      *out_context = context;
      return NULL;
    }
  }
  /* Const calls overlap for the first time at this width. */
  dlrt_context *context = create_context(instance->model);
  if (!context)
    return dlrt_fail_memory("a further context for overlapping calls",
                            instance->model->scratch_bytes);
  atomic_store_explicit(&context->busy, 1, memory_order_relaxed);
  do
    context->next = first;
  while (!atomic_compare_exchange_weak_explicit(&instance->contexts, &first, context,
                                                memory_order_release, memory_order_acquire));
  *out_context = context;
  return NULL;
}

void dlrt_context_release(dlrt_context *context) {
  atomic_store_explicit(&context->busy, 0, memory_order_release);
}

/* ---- instances ---- */

static dlrt_status initialize(dlrt_instance *instance, uint64_t seed) {
  const dlrt_model *model = instance->model;
  int64_t *random_seed =
      model->random_seed == UINT32_MAX ? NULL : dlrt_variable_data(instance, model->random_seed);
  int64_t *random_calls =
      model->random_calls == UINT32_MAX ? NULL : dlrt_variable_data(instance, model->random_calls);
  int64_t old_seed = random_seed ? *random_seed : 0, old_calls = random_calls ? *random_calls : 0;
  if (random_seed)
    memcpy(random_seed, &seed, sizeof seed);
  if (random_calls)
    *random_calls = 0;
  if (model->init == UINT32_MAX)
    return NULL;
  dlrt_tensor argument = {.data = &seed, .bytes = sizeof seed, .dtype = DLRT_I64};
  dlrt_status status = dlrt_run(instance, model->init, &argument,
                                dlrt_functions(model->blob)[model->init].argument_count, NULL, 0);
  if (status) { /* it returned before it changed anything */
    if (random_seed)
      *random_seed = old_seed;
    if (random_calls)
      *random_calls = old_calls;
  }
  return status;
}

/* On a GPU: makes the initial values on the host and copies them over. */
static dlrt_status initialize_gpu(dlrt_instance *instance, uint64_t seed) {
  const dlrt_model *model = instance->model;
  if (!dlrt_block_allocate(&instance->variables, model->variable_bytes))
    return dlrt_fail_memory("the variables' initial values", model->variable_bytes);
  /* An init function assigns them all; without one they keep their values. */
  dlrt_status status = NULL;
  if (model->init == UINT32_MAX)
    status =
        model->gpu_half->read(instance->gpu, 0, instance->variables.data, model->variable_bytes);
  if (!status && !(status = initialize(instance, seed)))
    status =
        model->gpu_half->write(instance->gpu, 0, instance->variables.data, model->variable_bytes);
  dlrt_block_release(&instance->variables);
  return status;
}

/* Decides what the instance runs on, and says why. */
static dlrt_status choose_device(dlrt_instance *instance, const dlrt_options *wanted) {
  const dlrt_model *model = instance->model;
  const char *name = dlrt_string(model->blob, model->blob->name);
  if (wanted->device == DLRT_DEVICE_CPU) {
    if (!dlrt_has_cpu_code(model->blob))
      return dlrt_fail(DLRT_DEVICE,
                       "model '%s' was compiled for GPUs alone: it cannot run on the processor",
                       name);
    snprintf(instance->device, sizeof instance->device, "cpu: asked for");
    return NULL;
  }
  dlrt_status status;
  if (!model->blob->cuda)
    status = dlrt_fail(DLRT_DEVICE, "model '%s' has no program for a GPU", name);
  else if (!model->gpu_half)
    status = dlrt_fail(DLRT_DEVICE, "this program has no part of the runtime for GPUs");
  else
    status = model->gpu_half->open(model, wanted->ordinal, instance->memory_limit, &instance->gpu);
  if (!status) {
    snprintf(instance->device, sizeof instance->device, "%s", model->gpu_half->name(instance->gpu));
    return NULL;
  }
  if (wanted->device == DLRT_DEVICE_CUDA || !dlrt_has_cpu_code(model->blob))
    return status;
  snprintf(instance->device, sizeof instance->device, "cpu: %s", dlrt_status_message(status));
  dlrt_status_release(status);
  return NULL;
}

dlrt_status dlrt_instance_create(dlrt_model *model, const dlrt_options *options,
                                 dlrt_instance **out_instance) {
  if (!out_instance)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "out_instance is NULL");
  *out_instance = NULL;
  if (!model)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "model is NULL");
  const char *name = dlrt_string(model->blob, model->blob->name);
  if (!model->entries)
    return dlrt_fail(DLRT_INVALID_ARGUMENT,
                     "model '%s' was opened to inspect it only: it has no code", name);
  dlrt_options wanted = {.size = sizeof wanted};
  if (options) {
    if (options->size < sizeof options->size)
      return dlrt_fail(DLRT_INVALID_ARGUMENT, "options.size is %u, expected %zu", options->size,
                       sizeof wanted);
    /* An older caller's options are shorter: what is not there keeps its default. */
    memcpy(&wanted, options, options->size < sizeof wanted ? options->size : sizeof wanted);
  }
  if (wanted.threads > MAX_THREADS)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "options.threads is %u, expected at most %d",
                     wanted.threads, MAX_THREADS);
  if (wanted.device > DLRT_DEVICE_CUDA)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "options.device is %u, expected at most %d",
                     wanted.device, DLRT_DEVICE_CUDA);
  if (wanted.memory_limit && model->variable_bytes > wanted.memory_limit)
    return dlrt_fail(DLRT_OUT_OF_MEMORY,
                     "out of memory: the variables of '%s' asked for %llu bytes, the limit is %zu",
                     name, (unsigned long long)model->variable_bytes, wanted.memory_limit);

  dlrt_instance *instance = calloc(1, sizeof *instance);
  if (!instance)
    return dlrt_fail_memory("an instance", sizeof *instance);
  instance->model = model;
  dlrt_model_retain(model);
  instance->threads = wanted.threads ? wanted.threads : dlrt_available_threads();
  if (instance->threads > MAX_THREADS)
    instance->threads = MAX_THREADS;
  instance->memory_limit = wanted.memory_limit ? wanted.memory_limit : UINT64_MAX;
  dlrt_status status = NULL;
  dlrt_context *context;
  if ((status = choose_device(instance, &wanted)))
    ;
  else if (!instance->gpu && !dlrt_block_allocate(&instance->variables, model->variable_bytes))
    status = dlrt_fail_memory("the variables", model->variable_bytes);
  else if (!dlrt_preparations_create(instance) || !(context = create_context(model)))
    status = dlrt_fail_memory("an instance", model->scratch_bytes);
  else {
    atomic_init(&instance->contexts, context);
    if (instance->threads > 1 &&
        !(instance->pool = dlrt_pool_create(instance->threads, model->scratch_bytes)))
      status =
          dlrt_fail_memory("the threads' scratch memory", model->scratch_bytes * instance->threads);
    else
      status = dlrt_instance_initialize(instance, wanted.seed);
  }
  if (status) {
    dlrt_instance_release(instance);
    return status;
  }
  *out_instance = instance;
  return NULL;
}

void dlrt_instance_release(dlrt_instance *instance) {
  if (!instance)
    return;
  if (instance->gpu)
    instance->model->gpu_half->release(instance->gpu);
  dlrt_pool_release(instance->pool);
  for (uint32_t i = 0; i < DLRT_TICKETS; ++i) {
    dlrt_status_release(instance->tickets[i].failure);
    free(instance->tickets[i].results);
    dlrt_block_release(&instance->tickets[i].memory);
  }
  for (dlrt_context *context = atomic_load_explicit(&instance->contexts, memory_order_acquire);
       context;) {
    dlrt_context *next = context->next;
    free_context(context, instance->model);
    context = next;
  }
  dlrt_preparations_release(instance);
  dlrt_block_release(&instance->variables);
  dlrt_model_release(instance->model);
  free(instance);
}

dlrt_status dlrt_instance_initialize(dlrt_instance *instance, uint64_t seed) {
  if (!instance)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "instance is NULL");
  dlrt_status status = dlrt_instance_enter(instance, true);
  if (status)
    return status;
  status = instance->gpu ? initialize_gpu(instance, seed) : initialize(instance, seed);
  dlrt_instance_leave(instance, true);
  return status;
}

size_t dlrt_instance_variable_bytes(const dlrt_instance *instance) {
  size_t bytes = 0;
  if (instance)
    for (uint32_t i = 0; i < instance->model->blob->variable_count; ++i)
      bytes += dlrt_variables(instance->model->blob)[i].bytes;
  return bytes;
}
size_t dlrt_instance_arena_bytes(const dlrt_instance *instance) {
  if (instance && instance->gpu)
    return instance->model->gpu_half->arena_bytes(instance->gpu);
  return instance
             ? atomic_load_explicit(&((dlrt_instance *)instance)->arena_bytes, memory_order_relaxed)
             : 0;
}
uint32_t dlrt_instance_threads(const dlrt_instance *instance) {
  return instance ? instance->threads : 0;
}

const char *dlrt_instance_device(const dlrt_instance *instance) {
  return instance ? instance->device : "";
}

dlrt_status dlrt_instance_synchronize(dlrt_instance *instance) {
  if (!instance)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "instance is NULL");
  return instance->gpu ? instance->model->gpu_half->synchronize(instance->gpu) : NULL;
}

void dlrt_instance_set_profile(dlrt_instance *instance, dlrt_profile_fn profile, void *user) {
  if (!instance)
    return;
  instance->profile = profile;
  instance->profile_user = user;
}

void dlrt_instance_set_log(dlrt_instance *instance, dlrt_log_fn log, void *user) {
  if (!instance)
    return;
  instance->log.write = log;
  instance->log.user = user;
}

/* What reading and writing a variable have in common. */
static dlrt_status check_variable(const dlrt_instance *instance, uint32_t variable,
                                  const void *data, size_t bytes) {
  if (!instance)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "instance is NULL");
  const dl_blob *blob = instance->model->blob;
  if (variable >= blob->variable_count)
    return dlrt_fail(DLRT_NOT_FOUND, "no variable %u: model '%s' has %u", variable,
                     dlrt_string(blob, blob->name), blob->variable_count);
  const dl_variable_desc *desc = &dlrt_variables(blob)[variable];
  if (bytes != desc->bytes)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "variable '%s': expected %llu bytes, got %zu",
                     dlrt_string(blob, desc->name), (unsigned long long)desc->bytes, bytes);
  if (!data && bytes)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "variable '%s': data is NULL",
                     dlrt_string(blob, desc->name));
  return NULL;
}

dlrt_status dlrt_variable_read(const dlrt_instance *instance, uint32_t variable, void *data,
                               size_t bytes) {
  dlrt_status status = check_variable(instance, variable, data, bytes);
  if (status || (status = dlrt_instance_enter(instance, false)))
    return status;
  if (instance->gpu)
    status = instance->model->gpu_half->read(
        instance->gpu, instance->model->variable_offsets[variable], data, bytes);
  else if (bytes)
    memcpy(data, dlrt_variable_data(instance, variable), bytes);
  dlrt_instance_leave(instance, false);
  return status;
}

dlrt_status dlrt_variable_write(dlrt_instance *instance, uint32_t variable, const void *data,
                                size_t bytes) {
  dlrt_status status = check_variable(instance, variable, data, bytes);
  if (status || (status = dlrt_instance_enter(instance, true)))
    return status;
  if (instance->gpu)
    status = instance->model->gpu_half->write(
        instance->gpu, instance->model->variable_offsets[variable], data, bytes);
  else if (bytes)
    memcpy(dlrt_variable_data(instance, variable), data, bytes);
  dlrt_variables_changed(instance);
  dlrt_instance_leave(instance, true);
  return status;
}
