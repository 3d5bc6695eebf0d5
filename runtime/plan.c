/*===- plan.c - where the buffers of a call lie -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * Lifetimes are known when a model is compiled, sizes only when a call has bound the dynamic
 * dimensions. So the arena is laid out here, once for each shape, and remembered.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

/* Largest first, and of equals the one that comes first, so that the layout does not depend on the
 * sort. Heap sort: no recursion, no memory, and never quadratic. */
static bool before(const uint64_t *bytes, uint32_t a, uint32_t b) {
  return bytes[a] > bytes[b] || (bytes[a] == bytes[b] && a < b);
}

static void sift_down(const uint64_t *bytes, uint32_t *order, uint32_t root, uint32_t count) {
  for (;;) {
    uint64_t child = 2ull * root + 1;
    if (child >= count)
      return;
    if (child + 1 < count && before(bytes, order[child], order[child + 1]))
      ++child;
    if (!before(bytes, order[root], order[child]))
      return;
    uint32_t swapped = order[root];
    order[root] = order[child];
    order[child] = swapped;
    root = (uint32_t)child;
  }
}

static void sort_by_size(const uint64_t *bytes, uint32_t *order, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i)
    order[i] = i;
  for (uint32_t root = count / 2; root-- > 0;)
    sift_down(bytes, order, root, count);
  for (uint32_t last = count; last-- > 1;) {
    uint32_t largest = order[0];
    order[0] = order[last];
    order[last] = largest;
    sift_down(bytes, order, 0, last);
  }
}

uint64_t dlrt_plan_offsets(uint32_t count, const uint64_t *bytes, const uint32_t *first,
                           const uint32_t *last, uint32_t *order, uint64_t *out_offsets) {
  uint64_t total = 0;
  sort_by_size(bytes, order, count);
  /* order[0 .. placed) becomes a list by offset while order[placed ..) still is by size. */
  for (uint32_t placed = 0; placed < count; ++placed) {
    uint32_t buffer = order[placed];
    uint64_t size, best = UINT64_MAX, best_gap = UINT64_MAX, end = 0;
    if (!dlrt_align_up(bytes[buffer], DL_BUFFER_ALIGNMENT, &size))
      return UINT64_MAX;
    /* The tightest gap between neighbours that live at the same time; `end` is how far those seen
     * so far reach. */
    for (uint32_t i = 0; i < placed; ++i) {
      uint32_t other = order[i];
      if (last[other] < first[buffer] || last[buffer] < first[other] || bytes[other] == 0)
        continue;
      uint64_t start = out_offsets[other];
      if (start >= end && start - end >= size && start - end < best_gap) {
        best = end;
        best_gap = start - end;
      }
      uint64_t stop =
          start + ((bytes[other] + DL_BUFFER_ALIGNMENT - 1) & ~(uint64_t)(DL_BUFFER_ALIGNMENT - 1));
      if (stop > end)
        end = stop;
    }
    uint64_t offset = best != UINT64_MAX ? best : end, reach;
    if (__builtin_add_overflow(offset, size, &reach) || reach > PTRDIFF_MAX)
      return UINT64_MAX;
    if (reach > total)
      total = reach;
    out_offsets[buffer] = offset;
    uint32_t at = placed;
    for (; at > 0 && out_offsets[order[at - 1]] > offset; --at)
      order[at] = order[at - 1];
    order[at] = buffer;
  }
  return total;
}

/* ---- the plans of a context ---- */

static const char *function_name(const dlrt_model *model, uint32_t function) {
  return dlrt_string(model->blob, dlrt_functions(model->blob)[function].name);
}

dlrt_status dlrt_plan_make(const dlrt_model *model, uint32_t function,
                           const dl_buffer_desc *buffers, uint32_t buffer_count, dlrt_plan *plan) {
  const dl_blob *blob = model->blob;
  const dl_function_desc *desc = &dlrt_functions(blob)[function];
  uint32_t count = 0;
  for (uint32_t b = 0; b < buffer_count; ++b) {
    const dl_buffer_desc *buffer = &buffers[b];
    int64_t asked = 0;
    uint64_t there = UINT64_MAX;
    dlrt_size_result result =
        dlrt_size_evaluate(dlrt_at(blob, buffer->bytes), &plan->binding, &asked);
    if (result != DLRT_SIZE_OK || asked < 0)
      return dlrt_fail(result == DLRT_SIZE_OVERFLOW ? DLRT_OUT_OF_MEMORY : DLRT_INVALID_ARGUMENT,
                       "buffer %u of '%s' has no size for these arguments: %s", b,
                       function_name(model, function),
                       result == DLRT_SIZE_OVERFLOW           ? "it overflows 64 bits"
                       : result == DLRT_SIZE_DIVISION_BY_ZERO ? "division by zero"
                       : result == DLRT_SIZE_UNBOUND ? "no argument binds a dimension of it"
                                                     : "it is negative");
    if (buffer->kind == DL_BUFFER_ARGUMENT || buffer->kind == DL_BUFFER_RESULT) {
      const dl_value_desc *value =
          (const dl_value_desc *)dlrt_at(blob, buffer->kind == DL_BUFFER_ARGUMENT ? desc->arguments
                                                                                  : desc->results) +
          buffer->index;
      int64_t dims[DL_MAX_RANK];
      for (uint32_t d = 0; d < value->rank; ++d)
        if (dlrt_size_evaluate(dlrt_value_dim(blob, value, d), &plan->binding, &dims[d]) !=
            DLRT_SIZE_OK)
          dims[d] = -1;
      if (!dlrt_tensor_bytes(value->dtype, value->rank, dims, &there))
        there = 0;
    } else if (buffer->kind == DL_BUFFER_VARIABLE)
      there = dlrt_variables(blob)[buffer->index].bytes;
    else if (buffer->kind == DL_BUFFER_CONSTANT)
      there = blob->blob_bytes - buffer->index;
    if ((uint64_t)asked > there)
      return dlrt_fail(
          DLRT_CORRUPT,
          "damaged description: buffer %u of '%s' has %lld bytes, but there are only %llu", b,
          function_name(model, function), (long long)asked, (unsigned long long)there);
    bool placed = buffer->kind == DL_BUFFER_ARENA ||
                  (buffer->kind == DL_BUFFER_RESULT &&
                   (buffer->index > 63 || plan->arena_results >> buffer->index & 1));
    if (!placed)
      continue;
    plan->bytes[count] = (uint64_t)asked;
    plan->first[count] = buffer->first;
    plan->last[count] = buffer->last;
    plan->which[count++] = b;
  }
  /* Offsets come out densely; spreading them from the back does not overwrite one that is still
   * needed, since which[i] >= i. */
  plan->arena_bytes =
      dlrt_plan_offsets(count, plan->bytes, plan->first, plan->last, plan->order, plan->offsets);
  if (plan->arena_bytes == UINT64_MAX)
    return dlrt_fail(DLRT_OUT_OF_MEMORY,
                     "the arena of '%s' has no size for these arguments: it overflows 64 bits",
                     function_name(model, function));
  for (uint32_t i = count; i-- > 0;)
    plan->offsets[plan->which[i]] = plan->offsets[i];
  /* What is prepared lies one behind the other: all of it lives as long. Its sizes are the same in
   * every plan. */
  plan->prepared_bytes = 0;
  for (uint32_t b = 0; b < buffer_count; ++b) {
    int64_t asked;
    uint64_t bytes;
    if (buffers[b].kind != DL_BUFFER_PREPARED)
      continue;
    (void)dlrt_size_evaluate(dlrt_at(blob, buffers[b].bytes), &plan->binding, &asked);
    plan->offsets[b] = plan->prepared_bytes;
    if (!dlrt_align_up(asked ? (uint64_t)asked : 1, DL_BUFFER_ALIGNMENT, &bytes) ||
        __builtin_add_overflow(plan->prepared_bytes, bytes, &plan->prepared_bytes))
      return dlrt_fail(DLRT_OUT_OF_MEMORY, "what '%s' prepares overflows 64 bits",
                       function_name(model, function));
  }
  return NULL;
}

dlrt_plan *dlrt_plan_allocate(uint32_t buffer_count) {
  uint64_t n = buffer_count;
  dlrt_plan *plan = calloc(1, sizeof *plan + n * (2 * sizeof(uint64_t) + 4 * sizeof(uint32_t)));
  if (!plan)
    return NULL;
  plan->offsets = (uint64_t *)(plan + 1);
  plan->bytes = plan->offsets + n;
  plan->first = (uint32_t *)(plan->bytes + n);
  plan->last = plan->first + n;
  plan->order = plan->last + n;
  plan->which = plan->order + n;
  return plan;
}

dlrt_status dlrt_check_limit(const struct dlrt_instance *instance, const char *what,
                             uint32_t function, uint64_t bytes, uint64_t held) {
  uint64_t others = instance->variables.bytes +
                    atomic_load_explicit(&instance->arena_bytes, memory_order_relaxed) - held;
  uint64_t available = instance->memory_limit > others ? instance->memory_limit - others : 0;
  if (bytes <= available)
    return NULL;
  return dlrt_fail(DLRT_OUT_OF_MEMORY,
                   "out of memory: %s of '%s' asked for %llu bytes, %llu of the limit of %llu are "
                   "available",
                   what, function_name(instance->model, function), (unsigned long long)bytes,
                   (unsigned long long)available, (unsigned long long)instance->memory_limit);
}

/* Makes the context's arena as large as a plan needs. It only grows; what it held is not kept, as
 * nothing in it outlives a call. */
static dlrt_status grow_arena(struct dlrt_instance *instance, dlrt_context *context,
                              uint32_t function, uint64_t bytes) {
  if (bytes <= context->arena.bytes)
    return NULL;
  dlrt_status status =
      dlrt_check_limit(instance, "the arena", function, bytes, context->arena.bytes);
  if (status)
    return status;
  atomic_fetch_sub_explicit(&instance->arena_bytes, context->arena.bytes, memory_order_relaxed);
  dlrt_block_release(&context->arena);
  if (!dlrt_block_allocate(&context->arena, bytes)) {
    memset(&context->arena, 0, sizeof context->arena);
    return dlrt_fail_memory("the arena", bytes);
  }
  atomic_fetch_add_explicit(&instance->arena_bytes, context->arena.bytes, memory_order_relaxed);
  return NULL;
}

dlrt_status dlrt_plan_find(struct dlrt_instance *instance, dlrt_context *context, uint32_t function,
                           const dlrt_binding *binding, uint64_t arena_results,
                           const dlrt_plan **out_plan) {
  const dlrt_model *model = instance->model;
  dlrt_plan **slots = context->plans + (size_t)function * DLRT_PLANS_PER_FUNCTION;
  dlrt_plan **oldest = slots;
  dlrt_plan *plan = NULL;
  for (uint32_t i = 0; i < DLRT_PLANS_PER_FUNCTION; ++i) {
    dlrt_plan *candidate = slots[i];
    if (!candidate) {
      oldest = &slots[i];
      break;
    }
    if (candidate->used && candidate->arena_results == arena_results &&
        candidate->binding.bound == binding->bound &&
        memcmp(candidate->binding.dims, binding->dims, model->blob->dim_count * sizeof(int64_t)) ==
            0) {
      plan = candidate;
      break;
    }
    if (candidate->used < (*oldest)->used)
      oldest = &slots[i];
  }
  if (!plan) {
    const dl_function_desc *desc = &dlrt_functions(model->blob)[function];
    if (!*oldest && !(*oldest = dlrt_plan_allocate(desc->buffer_count)))
      return dlrt_fail_memory("a plan", desc->buffer_count * 32ull);
    plan = *oldest;
    plan->used = 0;
    plan->binding = *binding;
    plan->arena_results = arena_results;
    dlrt_status status = dlrt_plan_make(model, function, dlrt_at(model->blob, desc->buffers),
                                        desc->buffer_count, plan);
    if (status)
      return status;
  }
  /* Also for a known plan: an arena that could not grow again after it was given back is missing.
   */
  dlrt_status status = grow_arena(instance, context, function, plan->arena_bytes);
  if (status)
    return status;
  plan->used = ++context->clock;
  *out_plan = plan;
  return NULL;
}
