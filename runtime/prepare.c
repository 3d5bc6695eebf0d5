/*===- prepare.c - what functions make of variables once for many calls -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * A const function reads variables that often stay as they are from call to call. What it makes of
 * them alone lies in memory of the instance, which calls that overlap share, and is made anew in
 * the first call after a variable has changed.
 */
#include "internal.h"

#include <stdlib.h>

bool dlrt_preparations_create(dlrt_instance *instance) {
  instance->prepared =
      calloc(instance->model->blob->function_count + 1ull, sizeof *instance->prepared);
  if (!instance->prepared)
    return false;
  pthread_mutex_init(&instance->preparing, NULL);
  dlrt_variables_changed(instance);
  return true;
}

void dlrt_preparations_release(dlrt_instance *instance) {
  if (!instance->prepared)
    return;
  for (uint32_t f = 0; f < instance->model->blob->function_count; ++f)
    dlrt_block_release(&instance->prepared[f].memory);
  free(instance->prepared);
  pthread_mutex_destroy(&instance->preparing);
}

static dlrt_status allocate(dlrt_instance *instance, uint32_t function, dlrt_block *memory,
                            uint64_t bytes) {
  static const char what[] = "what is prepared of the variables";
  dlrt_status status = dlrt_check_limit(instance, what, function, bytes, 0);
  if (status)
    return status;
  dlrt_block fresh;
  if (!dlrt_block_allocate(&fresh, bytes))
    return dlrt_fail_memory(what, bytes);
  atomic_fetch_add_explicit(&instance->arena_bytes, fresh.bytes, memory_order_relaxed);
  *memory = fresh;
  return NULL;
}

dlrt_status dlrt_prepare(dlrt_instance *instance, uint32_t function, const dlrt_plan *plan,
                         void **buffers, const dl_frame *frame) {
  if (!plan->prepared_bytes)
    return NULL;
  const dl_function_desc *desc = &dlrt_functions(instance->model->blob)[function];
  const dl_buffer_desc *descs = dlrt_at(instance->model->blob, desc->buffers);
  dlrt_prepared *prepared = &instance->prepared[function];
  dlrt_status status = NULL;
  /* Whoever comes while another call prepares needs what that makes. */
  pthread_mutex_lock(&instance->preparing);
  if (!prepared->memory.data)
    status = allocate(instance, function, &prepared->memory, plan->prepared_bytes);
  if (!status) {
    for (uint32_t b = 0; b < desc->buffer_count; ++b)
      if (descs[b].kind == DL_BUFFER_PREPARED)
        buffers[b] = (char *)prepared->memory.data + plan->offsets[b];
    if (prepared->changes != instance->changes) {
      instance->model->preparations[function](frame);
      prepared->changes = instance->changes;
    }
  }
  pthread_mutex_unlock(&instance->preparing);
  return status;
}
