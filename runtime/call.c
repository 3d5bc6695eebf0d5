/*===- call.c - calling a function -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * A call binds the dynamic dimensions from its arguments' shapes, checks everything that the
 * description says about arguments and results, finds the plan for these shapes, and runs the code.
 * Only the first call of a shape allocates.
 */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- binding and checking ---- */

/* What messages about a function need. */
typedef struct signature {
  const dlrt_model *model;
  const dl_blob *blob;
  uint32_t number; /* in the blob */
  const dl_function_desc *desc;
  const char *name;
  const dl_value_desc *arguments, *results;
} signature;

static signature signature_of(const dlrt_model *model, uint32_t function) {
  signature s = {.model = model, .blob = model->blob, .number = function};
  s.desc = &dlrt_functions(s.blob)[function];
  s.name = dlrt_string(s.blob, s.desc->name);
  s.arguments = dlrt_at(s.blob, s.desc->arguments);
  s.results = dlrt_at(s.blob, s.desc->results);
  return s;
}

/* "argument 'x' of 'step'". An unnamed result has its number. */
typedef struct label {
  char text[160];
} label;

static label label_of(const signature *s, uint32_t value) {
  label l;
  bool is_argument = value < s->desc->argument_count;
  uint32_t number = is_argument ? value : value - s->desc->argument_count;
  const char *name =
      dlrt_string(s->blob, is_argument ? s->arguments[number].name : s->results[number].name);
  if (*name)
    snprintf(l.text, sizeof l.text, "%s '%.60s' of '%.60s'", is_argument ? "argument" : "result",
             name, s->name);
  else
    snprintf(l.text, sizeof l.text, "%s %u of '%.60s'", is_argument ? "argument" : "result", number,
             s->name);
  return l;
}

/* The type as declared: "f32[N, 784]". */
static const char *expected_shape(const signature *s, uint32_t value) {
  return s->model->shapes[s->model->first_value[s->number] + value];
}

static const char *dtype_name(uint8_t dtype) {
  const char *name = dlrt_dtype_name((dlrt_dtype)dtype);
  return name ? name : "unknown";
}

static dlrt_status mismatch(const signature *s, uint32_t argument, const dlrt_tensor *given,
                            const char *reason) {
  char type[DLRT_TYPE_TEXT];
  return dlrt_fail(DLRT_INVALID_ARGUMENT, "%s: expected %s%s, got %s: %s",
                   label_of(s, argument).text, dtype_name(s->arguments[argument].dtype),
                   expected_shape(s, argument),
                   dlrt_type_text(type, given->dtype, given->rank, given->dims), reason);
}

static dlrt_status size_failure(const signature *s, const char *whose, dlrt_size_result result) {
  return dlrt_fail(DLRT_INVALID_ARGUMENT, "%s of '%s' has no value for these arguments: %s", whose,
                   s->name,
                   result == DLRT_SIZE_OVERFLOW           ? "it overflows 64 bits"
                   : result == DLRT_SIZE_DIVISION_BY_ZERO ? "division by zero"
                                                          : "no argument binds a dimension of it");
}

/* Whether a size is just a dimension; tells which. */
static bool is_bare_dim(const dl_size *size, uint32_t *out_dim) {
  if (size->count != 2 || size->code[0] != DL_SIZE_DIM)
    return false;
  *out_dim = (uint32_t)size->code[1];
  return true;
}

/* The values of the dimensions in a size, each once: " (N = 5, M = 4)"; as many as there is room
 * for, nothing where there are none. */
static const char *dims_text(char *buffer, size_t bytes, const dl_blob *blob, const dl_size *size,
                             const dlrt_binding *binding) {
  const dl_ref *names = dlrt_at(blob, blob->dims);
  uint64_t seen = 0;
  size_t used = 0;
  for (uint32_t i = 0; i < size->count; ++i) {
    int64_t op = size->code[i];
    if (op != DL_SIZE_CONST && op != DL_SIZE_DIM)
      continue;
    int64_t dim = size->code[++i];
    if (op == DL_SIZE_CONST || seen >> dim & 1)
      continue;
    int length = snprintf(buffer + used, bytes - used, "%s%s = %lld", seen ? ", " : " (",
                          dlrt_string(blob, names[dim]), (long long)binding->dims[dim]);
    if (length < 0 || used + (size_t)length + 2 > bytes)
      break;
    seen |= 1ull << dim;
    used += (size_t)length;
  }
  if (used)
    buffer[used++] = ')';
  buffer[used] = 0;
  return buffer;
}

/* Binds the dimensions and checks types, shapes and the function's conditions. With `with_data`, an
 * argument with NULL data takes its default; without, data is not looked at. */
static dlrt_status bind(const signature *s, const dlrt_tensor *arguments, uint32_t count,
                        bool with_data, dlrt_binding *binding) {
  memset(binding, 0, sizeof *binding);
  if (count > s->desc->argument_count)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "'%s' takes %u argument%s, got %u", s->name,
                     s->desc->argument_count, s->desc->argument_count == 1 ? "" : "s", count);
  if (count && !arguments)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "arguments of '%s' is NULL, but %u are given", s->name,
                     count);
  /* Types, and dimensions from where a shape names one alone. */
  for (uint32_t i = 0; i < s->desc->argument_count; ++i) {
    const dl_value_desc *desc = &s->arguments[i];
    if (dlrt_takes_default(desc, arguments, count, i, with_data))
      continue;
    if (i >= count)
      return dlrt_fail(DLRT_INVALID_ARGUMENT, "%s is missing: expected %s%s", label_of(s, i).text,
                       dtype_name(desc->dtype), expected_shape(s, i));
    const dlrt_tensor *given = &arguments[i];
    char reason[128];
    if (given->dtype != desc->dtype) {
      snprintf(reason, sizeof reason, "element type is %s, not %s", dtype_name(given->dtype),
               dtype_name(desc->dtype));
      return mismatch(s, i, given, reason);
    }
    if (given->rank != desc->rank) {
      snprintf(reason, sizeof reason, "rank is %u, not %u", given->rank, desc->rank);
      return mismatch(s, i, given, reason);
    }
    if (desc->dim && given->data) {
      /* A size that no shape carries: the number itself. */
      uint32_t dim = desc->dim - 1u;
      int64_t number;
      memcpy(&number, given->data, sizeof number);
      if (number < 0) {
        snprintf(reason, sizeof reason, "a size is %lld", (long long)number);
        return mismatch(s, i, given, reason);
      }
      binding->dims[dim] = number;
      binding->bound |= 1u << dim;
    }
    for (uint32_t d = 0; d < desc->rank; ++d) {
      uint32_t dim;
      if (given->dims[d] < 0) {
        snprintf(reason, sizeof reason, "dimension %u is %lld", d, (long long)given->dims[d]);
        return mismatch(s, i, given, reason);
      }
      if (is_bare_dim(dlrt_value_dim(s->blob, desc, d), &dim) && !(binding->bound >> dim & 1)) {
        binding->dims[dim] = given->dims[d];
        binding->bound |= 1u << dim;
      }
    }
  }
  /* Shapes. */
  for (uint32_t i = 0; i < count; ++i) {
    const dl_value_desc *desc = &s->arguments[i];
    if (dlrt_takes_default(desc, arguments, count, i, with_data))
      continue;
    uint64_t bytes;
    for (uint32_t d = 0; d < desc->rank; ++d) {
      const dl_size *size = dlrt_value_dim(s->blob, desc, d);
      int64_t expected;
      dlrt_size_result result = dlrt_size_evaluate(size, binding, &expected);
      if (result != DLRT_SIZE_OK)
        return size_failure(s, "an argument's shape", result);
      if (arguments[i].dims[d] == expected)
        continue;
      char reason[DLRT_SIZE_TEXT + 96], words[DLRT_SIZE_TEXT];
      /* Says what the number follows from, except where the shape shows the number itself. */
      int length = snprintf(reason, sizeof reason, "dimension %u is %lld, not ", d,
                            (long long)arguments[i].dims[d]);
      if (size->count == 2 && size->code[0] == DL_SIZE_CONST)
        snprintf(reason + length, sizeof reason - (size_t)length, "%lld", (long long)expected);
      else
        snprintf(reason + length, sizeof reason - (size_t)length, "%s = %lld",
                 dlrt_size_text(words, s->blob, size), (long long)expected);
      return mismatch(s, i, &arguments[i], reason);
    }
    if (!dlrt_tensor_bytes(desc->dtype, desc->rank, arguments[i].dims, &bytes))
      return mismatch(s, i, &arguments[i], "its bytes overflow 64 bits");
  }
  /* Conditions. */
  const dl_check_desc *checks = dlrt_at(s->blob, s->desc->checks);
  for (uint32_t c = 0; c < s->desc->check_count; ++c) {
    const dl_size *condition = dlrt_at(s->blob, checks[c].condition);
    int64_t holds;
    dlrt_size_result result = dlrt_size_evaluate(condition, binding, &holds);
    if (result != DLRT_SIZE_OK)
      return size_failure(s, "a condition", result);
    if (!holds) {
      char values[256];
      return dlrt_fail(DLRT_INVALID_ARGUMENT, "arguments of '%s': %s%s", s->name,
                       dlrt_string(s->blob, checks[c].message),
                       dims_text(values, sizeof values, s->blob, condition, binding));
    }
  }
  return NULL;
}

/* Writes type and shape of each result asked for. */
static dlrt_status shape_results(const signature *s, const dlrt_binding *binding,
                                 dlrt_tensor *results, uint32_t count) {
  uint32_t shown = dlrt_shown_results(s->blob, s->desc);
  if (count > shown)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "'%s' has %u result%s, got room for %u", s->name, shown,
                     shown == 1 ? "" : "s", count);
  if (count && !results)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "results of '%s' is NULL, but %u are asked for",
                     s->name, count);
  for (uint32_t i = 0; i < count; ++i) {
    const dl_value_desc *desc = &s->results[i];
    uint64_t bytes;
    for (uint32_t d = 0; d < desc->rank; ++d) {
      dlrt_size_result result =
          dlrt_size_evaluate(dlrt_value_dim(s->blob, desc, d), binding, &results[i].dims[d]);
      if (result != DLRT_SIZE_OK)
        return size_failure(s, "a result's shape", result);
    }
    results[i].rank = desc->rank;
    results[i].dtype = desc->dtype;
    if (!dlrt_tensor_bytes(desc->dtype, desc->rank, results[i].dims, &bytes)) {
      char type[DLRT_TYPE_TEXT];
      return dlrt_fail(DLRT_OUT_OF_MEMORY, "%s: %s has no size in bytes",
                       label_of(s, s->desc->argument_count + i).text,
                       dlrt_type_text(type, desc->dtype, desc->rank, results[i].dims));
    }
  }
  return NULL;
}

/* Bytes of a tensor whose shape has been checked. */
static uint64_t bytes_of(const dlrt_tensor *tensor) {
  uint64_t bytes = 0;
  (void)dlrt_tensor_bytes(tensor->dtype, tensor->rank, tensor->dims, &bytes);
  return bytes;
}

static dlrt_status check_room(const signature *s, uint32_t value, const dlrt_tensor *tensor,
                              bool bytes_may_be_unknown) {
  uint64_t needed = bytes_of(tensor);
  char type[DLRT_TYPE_TEXT];
  if (needed > tensor->bytes && !(bytes_may_be_unknown && tensor->bytes == 0))
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "%s: %s has %llu bytes, but its data has room for %zu",
                     label_of(s, value).text,
                     dlrt_type_text(type, tensor->dtype, tensor->rank, tensor->dims),
                     (unsigned long long)needed, tensor->bytes);
  size_t alignment = dlrt_dtype_bytes((dlrt_dtype)tensor->dtype);
  if ((uintptr_t)tensor->data % alignment != 0)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "%s: data is not aligned to the %zu bytes of a %s",
                     label_of(s, value).text, alignment, dtype_name(tensor->dtype));
  return NULL;
}

static bool overlap(const dlrt_tensor *a, const dlrt_tensor *b) {
  uintptr_t a_start = (uintptr_t)a->data, b_start = (uintptr_t)b->data;
  uint64_t a_bytes = bytes_of(a), b_bytes = bytes_of(b);
  return a_bytes && b_bytes && a_start < b_start + b_bytes && b_start < a_start + a_bytes;
}

/* The caller's memory: present, large enough, aligned, and apart. */
static dlrt_status check_data(const signature *s, const dlrt_tensor *arguments,
                              uint32_t argument_count, const dlrt_tensor *results,
                              uint32_t result_count) {
  dlrt_status status;
  uint32_t first_result = s->desc->argument_count;
  for (uint32_t i = 0; i < argument_count; ++i) {
    if (dlrt_takes_default(&s->arguments[i], arguments, argument_count, i, true))
      continue;
    if (!arguments[i].data && bytes_of(&arguments[i]))
      return dlrt_fail(DLRT_INVALID_ARGUMENT, "%s: expected %s%s, got NULL data",
                       label_of(s, i).text, dtype_name(s->arguments[i].dtype),
                       expected_shape(s, i));
    if ((status = check_room(s, i, &arguments[i], true)))
      return status;
  }
  for (uint32_t i = 0; i < result_count; ++i) {
    if (!results[i].data)
      continue;
    if ((status = check_room(s, first_result + i, &results[i], false)))
      return status;
    for (uint32_t j = 0; j < argument_count; ++j)
      if (!dlrt_takes_default(&s->arguments[j], arguments, argument_count, j, true) &&
          overlap(&results[i], &arguments[j]))
        return dlrt_fail(DLRT_INVALID_ARGUMENT, "%s overlaps %s in memory",
                         label_of(s, first_result + i).text, label_of(s, j).text);
    for (uint32_t j = 0; j < i; ++j)
      if (results[j].data && overlap(&results[i], &results[j]))
        return dlrt_fail(DLRT_INVALID_ARGUMENT, "%s overlaps %s in memory",
                         label_of(s, first_result + i).text, label_of(s, first_result + j).text);
  }
  return NULL;
}

/* ---- running ---- */

/* The frame as generated code sees it, and what the runtime finds behind it. */
typedef struct call {
  dl_frame frame;
  dlrt_instance *instance;
  dlrt_context *context;
  uint32_t function; /* as users count them, UINT32_MAX for the init function */
  uint32_t kernel_count;
  const dl_kernel_desc *kernels;
} call;

static int64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void parallel(const dl_frame *frame, dl_kernel_fn function, int64_t tasks, uint32_t kernel) {
  const call *c = (const call *)frame;
  if (tasks <= 0)
    return;
  dlrt_pool *pool = c->instance->pool;
  dlrt_profile_fn profile = c->function == UINT32_MAX ? NULL : c->instance->profile;
  int64_t start = 0;
  if (profile) {
    profile(c->instance->profile_user, c->function, kernel, tasks, -1);
    start = now_ns();
  }
  if (tasks == 1 || !pool ||
      !dlrt_pool_run(pool, frame, function, tasks,
                     kernel < c->kernel_count ? c->kernels[kernel].together : 0,
                     c->context->scratch.data)) {
    dlrt_scratch_enter(c->context->scratch.data);
    function(frame, 0, tasks, c->context->scratch.data);
  }
  if (profile)
    profile(c->instance->profile_user, c->function, kernel, tasks, now_ns() - start);
}

static const dl_host host = {
    .abi_version = DL_ABI_VERSION, .size = sizeof host, .parallel = parallel};

static dlrt_status fault_status(const signature *s, const dl_fault *fault) {
  if (fault->site < 1 || fault->site > s->blob->fault_count)
    return dlrt_fail(DLRT_FAULT, "'%s': unknown fault %lld of element %lld, value %lld", s->name,
                     (long long)fault->site, (long long)fault->index, (long long)fault->value);
  const dl_fault_desc *desc =
      (const dl_fault_desc *)dlrt_at(s->blob, s->blob->faults) + (fault->site - 1);
  const char *template = dlrt_string(s->blob, desc->message),
             *location = dlrt_string(s->blob, desc->location);
  char words[1024];
  size_t used = 0;
  while (*template && used + 24 < sizeof words) {
    if (strncmp(template, "{index}", 7) == 0 || strncmp(template, "{value}", 7) == 0) {
      int64_t number = template[1] == 'i' ? fault->index : fault->value;
      used += (size_t)snprintf(words + used, sizeof words - used, "%lld", (long long)number);
      template += 7;
    } else
      words[used++] = *template++;
  }
  words[used] = 0;
  return *location ? dlrt_fail(DLRT_FAULT, "%s: in '%s': %s", location, s->name, words)
                   : dlrt_fail(DLRT_FAULT, "in '%s': %s", s->name, words);
}

dlrt_status dlrt_fault_status(const dlrt_model *model, uint32_t function, const dl_fault *fault) {
  const signature s = signature_of(model, function);
  return fault_status(&s, fault);
}

/* The number of the blob's function among those that users see. */
static uint32_t exported_number(const dlrt_model *model, uint32_t function) {
  for (uint32_t i = 0; i < model->exported_count; ++i)
    if (model->exported[i] == function)
      return i;
  return UINT32_MAX;
}

static dlrt_status run_on_gpu(const signature *s, dlrt_instance *instance,
                              const dlrt_binding *binding, const dlrt_tensor *arguments,
                              uint32_t argument_count, const dlrt_tensor *results,
                              uint32_t result_count, dlrt_ticket *ticket) {
  if (!s->desc->cuda)
    return dlrt_fail(DLRT_DEVICE, "'%s' has no program for a GPU, and the instance runs on %s",
                     s->name, instance->device);
  const dlrt_gpu_call call = {.function = s->number,
                              .exported = exported_number(instance->model, s->number),
                              .binding = binding,
                              .arguments = arguments,
                              .argument_count = argument_count,
                              .results = results,
                              .result_count = result_count,
                              .ticket = ticket,
                              .tickets = instance->tickets,
                              .profile = instance->profile,
                              .profile_user = instance->profile_user,
                              .log = &instance->log};
  return instance->model->gpu_half->call(instance->gpu, &call);
}

/* Fills in the buffers' addresses: one for each buffer of the description. */
static void place_buffers(const signature *s, const dlrt_instance *instance, dlrt_context *context,
                          const dlrt_plan *plan, const dlrt_tensor *arguments,
                          uint32_t argument_count, const dlrt_tensor *results,
                          uint32_t result_count) {
  const dl_buffer_desc *buffers = dlrt_at(s->blob, s->desc->buffers);
  for (uint32_t b = 0; b < s->desc->buffer_count; ++b) {
    uint32_t index = buffers[b].index;
    void *data = NULL;
    switch (buffers[b].kind) {
    case DL_BUFFER_ARGUMENT:
      if (dlrt_takes_default(&s->arguments[index], arguments, argument_count, index, true)) {
        data = &context->defaults[index];
        dlrt_store_scalar(s->arguments[index].dtype, s->arguments[index].default_value, data);
      } else
        data = arguments[index].data;
      break;
    case DL_BUFFER_VARIABLE:
      data = dlrt_variable_data(instance, index);
      break;
    case DL_BUFFER_CONSTANT:
      data = (void *)dlrt_at(s->blob, index);
      break;
    case DL_BUFFER_RESULT:
      if (index < result_count && results[index].data) {
        data = results[index].data;
        break;
      }
      /* fallthrough */
    case DL_BUFFER_ARENA:
      /* There is no arena where nothing in it has any bytes; an address of its own is due all the
       * same. */
      data = plan->arena_bytes ? (char *)context->arena.data + plan->offsets[b]
                               : context->scratch.data;
      break;
    }
    context->buffers[b] = data;
  }
}

/* The address of a result, among the buffers of a call. */
typedef struct placed_results {
  const signature *s;
  void *const *buffers;
} placed_results;

static const void *placed_result(const void *context, uint32_t result) {
  const placed_results *placed = context;
  const dl_buffer_desc *buffers = dlrt_at(placed->s->blob, placed->s->desc->buffers);
  for (uint32_t b = 0; b < placed->s->desc->buffer_count; ++b)
    if (buffers[b].kind == DL_BUFFER_RESULT && buffers[b].index == result)
      return placed->buffers[b];
  return NULL;
}

/* Runs a function whose dimensions are bound and whose results have shapes. What goes wrong while
 * it runs is the ticket's failure, where there is one. */
static dlrt_status execute(const signature *s, dlrt_instance *instance, const dlrt_binding *binding,
                           const dlrt_tensor *arguments, uint32_t argument_count,
                           const dlrt_tensor *results, uint32_t result_count, dlrt_ticket *ticket) {
  dlrt_status status, failure;
  if ((status = check_data(s, arguments, argument_count, results, result_count)))
    return status;
  /* Initial values are made on the processor, wherever they go, and whatever failed before. */
  bool is_init = s->desc->flags & DL_FUNCTION_INIT;
  if (instance->gpu && !is_init)
    return run_on_gpu(s, instance, binding, arguments, argument_count, results, result_count,
                      ticket);
  if (!is_init && (failure = dlrt_failure_ahead(instance->tickets)))
    return dlrt_hold_back(instance->model, s->number, ticket, failure);
  uint64_t arena_results =
      s->desc->result_count >= 64 ? UINT64_MAX : (1ull << s->desc->result_count) - 1;
  for (uint32_t i = 0; i < result_count && i < 64; ++i)
    if (results[i].data)
      arena_results &= ~(1ull << i);
  dlrt_context *context;
  const dlrt_plan *plan;
  if ((status = dlrt_context_acquire(instance, &context)))
    return status;
  if (!(status = dlrt_plan_find(instance, context, s->number, binding, arena_results, &plan))) {
    dl_fault fault = {0, 0, 0};
    call c = {.frame = {&host, context->buffers, binding->dims, &fault},
              .instance = instance,
              .context = context,
              .function = UINT32_MAX,
              .kernel_count = s->desc->kernel_count,
              .kernels = dlrt_at(s->blob, s->desc->kernels)};
    if (instance->profile)
      c.function = exported_number(instance->model, s->number);
    place_buffers(s, instance, context, plan, arguments, argument_count, results, result_count);
    if (!(s->desc->flags & DL_FUNCTION_CONST))
      dlrt_variables_changed(instance);
    uint32_t saved = dlrt_float_environment_enter();
    if (!(status = dlrt_prepare(instance, s->number, plan, context->buffers, &c.frame)))
      instance->model->entries[s->number](&c.frame);
    dlrt_float_environment_leave(saved);
    dlrt_status failed = fault.site ? fault_status(s, &fault) : NULL;
    if (!status && !fault.site && instance->log.write && s->desc->logs) {
      const placed_results placed = {s, context->buffers};
      dlrt_log_write(instance->model, s->number, binding, placed_result, &placed, &instance->log,
                     exported_number(instance->model, s->number));
    }
    if (ticket)
      ticket->failure = failed;
    else if (failed)
      status = failed;
  }
  dlrt_context_release(context);
  return status;
}

dlrt_status dlrt_run(dlrt_instance *instance, uint32_t function, const dlrt_tensor *arguments,
                     uint32_t argument_count, dlrt_tensor *results, uint32_t result_count) {
  const signature s = signature_of(instance->model, function);
  dlrt_binding binding;
  dlrt_status status;
  if ((status = bind(&s, arguments, argument_count, true, &binding)) ||
      (status = shape_results(&s, &binding, results, result_count)))
    return status;
  return execute(&s, instance, &binding, arguments, argument_count, results, result_count, NULL);
}

static dlrt_status check_function(const dlrt_model *model, uint32_t function) {
  if (function >= model->exported_count)
    return dlrt_fail(DLRT_NOT_FOUND, "no function %u: model '%s' has %u", function,
                     dlrt_string(model->blob, model->blob->name), model->exported_count);
  return NULL;
}

dlrt_status dlrt_call(dlrt_instance *instance, uint32_t function, const dlrt_tensor *arguments,
                      uint32_t argument_count, dlrt_tensor *results, uint32_t result_count) {
  if (!instance)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "instance is NULL");
  const dlrt_model *model = instance->model;
  dlrt_status status = check_function(model, function);
  if (status)
    return status;
  uint32_t number = model->exported[function];
  bool exclusive = !(dlrt_functions(model->blob)[number].flags & DL_FUNCTION_CONST);
  if ((status = dlrt_instance_enter(instance, exclusive)))
    return status;
  status = dlrt_run(instance, number, arguments, argument_count, results, result_count);
  dlrt_instance_leave(instance, exclusive);
  return status;
}

/* ---- submitted calls ---- */

dlrt_status dlrt_failure_ahead(const dlrt_ticket tickets[DLRT_TICKETS]) {
  const dlrt_ticket *first = NULL;
  for (uint32_t i = 0; i < DLRT_TICKETS; ++i)
    if (tickets[i].number && tickets[i].failure && (!first || tickets[i].number < first->number))
      first = &tickets[i];
  return first ? first->failure : NULL;
}

static dlrt_status not_run(const dlrt_model *model, uint32_t function, dlrt_status failure) {
  return dlrt_fail(dlrt_status_code(failure), "'%s' was not run, as a call before it failed: %s",
                   dlrt_string(model->blob, dlrt_functions(model->blob)[function].name),
                   dlrt_status_message(failure));
}

void dlrt_ticket_hold_back(dlrt_ticket *ticket, dlrt_status failure) {
  ticket->failure = dlrt_fail(dlrt_status_code(failure), "%s", dlrt_status_message(failure));
  ticket->held_back = true;
}

dlrt_status dlrt_hold_back(const dlrt_model *model, uint32_t function, dlrt_ticket *ticket,
                           dlrt_status failure) {
  if (!ticket)
    return not_run(model, function, failure);
  dlrt_ticket_hold_back(ticket, failure);
  return NULL;
}

void dlrt_ticket_keep(dlrt_ticket *ticket) {
  char *place = ticket->memory.data;
  for (uint32_t i = 0; i < ticket->result_count; ++i) {
    dlrt_tensor *result = &ticket->results[i];
    if (result->data && result->bytes)
      memcpy(place, result->data, result->bytes);
    result->data = place;
    place += (result->bytes + DL_BUFFER_ALIGNMENT - 1) & ~(size_t)(DL_BUFFER_ALIGNMENT - 1);
  }
  ticket->in_memory = true;
}

/* Gives each ticket room for so many bytes of results, those too that are on their way: so that
 * calls of a shape that was there before allocate nothing. */
static dlrt_status make_room(dlrt_instance *instance, uint32_t function, uint64_t bytes) {
  uint64_t missing = 0, held = 0;
  for (uint32_t i = 0; i < DLRT_TICKETS; ++i)
    if (bytes > instance->tickets[i].memory.bytes) {
      missing += bytes;
      held += instance->tickets[i].memory.bytes;
    }
  /* On a GPU the limit is on its memory. */
  dlrt_status status =
      instance->gpu ? NULL : dlrt_check_limit(instance, "the results", function, missing, held);
  if (status)
    return status;
  for (uint32_t i = 0; i < DLRT_TICKETS; ++i) {
    dlrt_ticket *ticket = &instance->tickets[i];
    dlrt_block old = ticket->memory, larger;
    if (old.data && bytes <= old.bytes)
      continue;
    if (!dlrt_block_allocate(&larger, bytes))
      return dlrt_fail_memory("the results of a submitted call", bytes);
    ticket->memory = larger;
    if (ticket->number && ticket->in_memory)
      dlrt_ticket_keep(ticket);
    atomic_fetch_add_explicit(&instance->arena_bytes, larger.bytes - old.bytes,
                              memory_order_relaxed);
    dlrt_block_release(&old);
  }
  return NULL;
}

/* Places a ticket's results, whose shapes are known, in its memory. */
static dlrt_status place_results(dlrt_instance *instance, dlrt_ticket *ticket) {
  uint64_t bytes = 0, end;
  for (uint32_t i = 0; i < ticket->result_count; ++i) {
    ticket->results[i].data = NULL; /* nothing is there to be kept */
    ticket->results[i].bytes = bytes_of(&ticket->results[i]);
    if (!dlrt_align_up(ticket->results[i].bytes, DL_BUFFER_ALIGNMENT, &end) ||
        __builtin_add_overflow(bytes, end, &bytes))
      return dlrt_fail_memory("the results of a submitted call", UINT64_MAX);
  }
  dlrt_status status = make_room(instance, ticket->function, bytes);
  if (!status)
    dlrt_ticket_keep(ticket);
  return status;
}

static dlrt_status submit(const signature *s, dlrt_instance *instance, const dlrt_tensor *arguments,
                          uint32_t argument_count, uint32_t result_count, uint64_t *out_ticket) {
  dlrt_ticket *ticket = NULL;
  for (uint32_t i = 0; i < DLRT_TICKETS; ++i) {
    dlrt_ticket *t = &instance->tickets[i];
    if (!t->results &&
        !(t->results = calloc(instance->model->max_results + 1ull, sizeof *t->results)))
      return dlrt_fail_memory("tickets", instance->model->max_results * sizeof *t->results);
    if (!t->number)
      ticket = t;
  }
  if (!ticket)
    return dlrt_fail(DLRT_INVALID_ARGUMENT,
                     "'%s' is submitted while %d calls have not been collected: collect one first",
                     s->name, DLRT_TICKETS);
  ticket->function = s->number;
  ticket->result_count = result_count;
  ticket->held_back = false;
  dlrt_binding binding;
  dlrt_status status;
  if ((status = bind(s, arguments, argument_count, true, &binding)) ||
      (status = shape_results(s, &binding, ticket->results, result_count)) ||
      (status = place_results(instance, ticket)) ||
      (status = execute(s, instance, &binding, arguments, argument_count, ticket->results,
                        result_count, ticket)))
    return status;
  *out_ticket = ticket->number = ++instance->last_ticket;
  return NULL;
}

dlrt_status dlrt_submit(dlrt_instance *instance, uint32_t function, const dlrt_tensor *arguments,
                        uint32_t argument_count, uint32_t result_count, uint64_t *out_ticket) {
  if (!out_ticket)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "out_ticket is NULL");
  *out_ticket = 0;
  if (!instance)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "instance is NULL");
  dlrt_status status = check_function(instance->model, function);
  if (status || (status = dlrt_instance_enter(instance, true)))
    return status;
  const signature s = signature_of(instance->model, instance->model->exported[function]);
  status = submit(&s, instance, arguments, argument_count, result_count, out_ticket);
  dlrt_instance_leave(instance, true);
  return status;
}

static dlrt_status collect(dlrt_instance *instance, uint64_t number, dlrt_tensor *results,
                           uint32_t result_count) {
  dlrt_ticket *ticket = NULL;
  for (uint32_t i = 0; i < DLRT_TICKETS; ++i)
    if (number && instance->tickets[i].number == number)
      ticket = &instance->tickets[i];
  if (!ticket)
    return dlrt_fail(DLRT_NOT_FOUND, "no ticket %llu: %s", (unsigned long long)number,
                     number && number <= instance->last_ticket ? "it has been collected"
                                                               : "no call was given it");
  const signature s = signature_of(instance->model, ticket->function);
  dlrt_status status;
  if (result_count > ticket->result_count)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "'%s' was submitted for %u result%s, got room for %u",
                     s.name, ticket->result_count, ticket->result_count == 1 ? "" : "s",
                     result_count);
  if (result_count && !results)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "results of '%s' is NULL, but %u are asked for", s.name,
                     result_count);
  for (uint32_t i = 0; i < result_count; ++i) {
    results[i].rank = ticket->results[i].rank;
    results[i].dtype = ticket->results[i].dtype;
    memcpy(results[i].dims, ticket->results[i].dims, results[i].rank * sizeof results[i].dims[0]);
  }
  if ((status = check_data(&s, NULL, 0, results, result_count)))
    return status; /* the ticket stays good */
  if (instance->gpu)
    status = instance->model->gpu_half->collect(instance->gpu, ticket);
  if (ticket->failure) {
    dlrt_status_release(status);
    status = ticket->failure;
    if (ticket->held_back) {
      status = not_run(instance->model, ticket->function, ticket->failure);
      dlrt_status_release(ticket->failure);
    }
    ticket->failure = NULL;
  }
  for (uint32_t i = 0; !status && i < result_count; ++i)
    if (results[i].data && ticket->results[i].bytes)
      memcpy(results[i].data, ticket->results[i].data, ticket->results[i].bytes);
  ticket->number = 0;
  return status;
}

dlrt_status dlrt_collect(dlrt_instance *instance, uint64_t ticket, dlrt_tensor *results,
                         uint32_t result_count) {
  if (!instance)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "instance is NULL");
  dlrt_status status = dlrt_instance_enter(instance, true);
  if (status)
    return status;
  status = collect(instance, ticket, results, result_count);
  dlrt_instance_leave(instance, true);
  return status;
}

/* ---- shapes ---- */

dlrt_status dlrt_result_shapes(const dlrt_model *model, uint32_t function,
                               const dlrt_tensor *arguments, uint32_t argument_count,
                               dlrt_tensor *results, uint32_t result_count) {
  if (!model)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "model is NULL");
  dlrt_status status = check_function(model, function);
  if (status)
    return status;
  const signature s = signature_of(model, model->exported[function]);
  dlrt_binding binding;
  if ((status = bind(&s, arguments, argument_count, false, &binding)))
    return status;
  return shape_results(&s, &binding, results, result_count);
}

dlrt_status dlrt_instance_kernel_work(const dlrt_instance *instance, uint32_t function,
                                      uint32_t kernel, const dlrt_tensor *arguments,
                                      uint32_t argument_count, dlrt_kernel_work *out_work) {
  if (!instance || !out_work)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "%s is NULL", instance ? "out_work" : "instance");
  const dlrt_model *model = instance->model;
  dlrt_status status = check_function(model, function);
  if (status)
    return status;
  const dl_blob *blob = model->blob;
  const uint32_t f = model->exported[function];
  const dl_function_desc *desc = &dlrt_functions(blob)[f];
  const dl_cuda_function_desc *cuda = instance->gpu ? dlrt_cuda_function(blob, f) : NULL;
  uint32_t count = cuda ? cuda->launch_count : desc->kernel_count;
  if (kernel >= count)
    return dlrt_fail(DLRT_NOT_FOUND, "no kernel %u: function '%s' has %u", kernel,
                     dlrt_string(blob, desc->name), count);
  const signature s = signature_of(model, f);
  dlrt_binding binding;
  if ((status = bind(&s, arguments, argument_count, false, &binding)))
    return status;
  dl_ref ref = cuda ? ((const dl_cuda_launch_desc *)dlrt_at(blob, cuda->launches))[kernel].work
                    : ((const dl_kernel_desc *)dlrt_at(blob, desc->kernels))[kernel].work;
  memset(out_work, 0, sizeof *out_work);
  if (!ref)
    return NULL;
  const dl_work_desc *work = dlrt_at(blob, ref);
  const dl_ref sizes[] = {work->operations, work->read_bytes, work->written_bytes};
  int64_t values[3];
  for (int i = 0; i < 3; ++i)
    if (dlrt_size_evaluate(dlrt_at(blob, sizes[i]), &binding, &values[i]) != DLRT_SIZE_OK)
      return NULL; /* more than there are numbers for */
  *out_work = (dlrt_kernel_work){1, values[0], values[1], values[2], (dlrt_dtype)work->dtype};
  return NULL;
}
