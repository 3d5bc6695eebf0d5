/*===- cuda_call.c - calls on a GPU -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * A function's launches for one shape are captured once as a graph, loops unrolled, whose last node copies the
 * fault and the results asked for to the host. A call copies its arguments to the device on a
 * stream of their own and launches the graph: one copy in, one graph, one copy out. Arguments have
 * two places, used in turns, and a graph is made for each, so that a call's arguments travel while
 * the call before still runs.
 *
 * All calls of an instance run one after the other on one stream; so there is one arena, one place
 * for results, and one fault. The fault stays set until somebody has looked at it: calls that were
 * sent off behind the one that failed change no variable either.
 *
 * Where a loop or branch goes by what is computed, or where a loop has too many turns for a graph,
 * launches are sent one by one, and the host waits for each number that decides.
 *
 * Results of a submitted call wait in its slot's pinned memory until it is collected; a further
 * call that needs the slot moves them to the ticket's own memory.
 */
#include "cuda_gpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The fault comes first in the block of results; it has a line of its own. */
enum { FAULT_BYTES = 64 };
/* Launches that are captured as one graph, at most. */
enum { MOST_CAPTURED = 16384 };

static uint64_t align_up(uint64_t value) {
  return (value + DLRT_CUDA_ALIGNMENT - 1) & ~(uint64_t)(DLRT_CUDA_ALIGNMENT - 1);
}

static const char *function_name(const dlrt_gpu *gpu, uint32_t function) {
  const dl_blob *blob = gpu->model->blob;
  return dlrt_string(blob, dlrt_functions(blob)[function].name);
}

/* Results beyond the 63rd are always copied: a plan's key has no bit for them. */
static bool is_asked_for(const dlrt_plan *plan, uint32_t result) {
  return result > 63 || !(plan->arena_results >> result & 1);
}

/* ---- the end of calls ---- */

/* Takes the fault of the oldest call that has one, if any, and makes the device ready for the next.
 * Everything sent off must be done. The failure goes to the call's ticket, without one it is the
 * status; tickets behind it are told. */
static dlrt_status take_fault(dlrt_gpu *gpu) {
  dlrt_status failure = NULL, status = NULL;
  for (uint32_t i = 0; i < 2; ++i) { /* the next slot is the older one */
    dlrt_cuda_slot *slot = &gpu->slots[(gpu->next_slot + i) % 2];
    dl_fault fault;
    if (!slot->pending)
      continue;
    slot->pending = false;
    memcpy(&fault, slot->host_out, sizeof fault);
    if (!fault.site)
      continue;
    if (failure) { /* the call did nothing; without a ticket nobody asks */
      if (slot->ticket)
        dlrt_ticket_hold_back(slot->ticket, failure);
      continue;
    }
    failure = dlrt_fault_status(gpu->model, slot->function, &fault);
    if (slot->ticket)
      slot->ticket->failure = failure;
    else
      status = failure;
  }
  if (failure) {
    cu_result result = gpu->cu->fill(gpu->out, 0, sizeof(dl_fault), gpu->compute);
    if (result != CU_SUCCESS) {
      dlrt_status_release(status);
      status = dlrt_cuda_failed(gpu, result, "clear a fault", true);
    }
  }
  return status;
}

dlrt_status dlrt_cuda_settle(dlrt_gpu *gpu) {
  cu_result result = gpu->cu->stream_synchronize(gpu->copy);
  if (result == CU_SUCCESS)
    result = gpu->cu->stream_synchronize(gpu->compute);
  if (result != CU_SUCCESS)
    return dlrt_cuda_failed(gpu, result, "run what was called", true);
  return take_fault(gpu);
}

/* Looks at a slot's last call: at once, or after waiting for it. */
static dlrt_status look_at(dlrt_gpu *gpu, dlrt_cuda_slot *slot, bool wait) {
  if (!slot->pending)
    return NULL;
  cu_result result =
      wait ? gpu->cu->event_synchronize(slot->done) : gpu->cu->event_query(slot->done);
  if (result == CU_ERROR_NOT_READY)
    return NULL;
  if (result != CU_SUCCESS) {
    char action[DLRT_MAX_NAME_BYTES + 16];
    snprintf(action, sizeof action, "run '%s'", function_name(gpu, slot->function));
    dlrt_status status = dlrt_cuda_failed(gpu, result, action, true);
    if (!slot->ticket)
      return status;
    slot->ticket->failure = status;
    return dlrt_cuda_lost(gpu);
  }
  int64_t site;
  memcpy(&site, slot->host_out + offsetof(dl_fault, site), sizeof site);
  if (site) /* others may be on their way behind it */
    return dlrt_cuda_settle(gpu);
  slot->pending = false;
  return NULL;
}

/* ---- plans ---- */

void dlrt_cuda_free_plan(dlrt_gpu *gpu, dlrt_cuda_plan *plan) {
  if (!plan)
    return;
  for (uint32_t i = 0; i < 2; ++i)
    if (plan->graphs[i])
      (void)gpu->cu->graph_exec_destroy(plan->graphs[i]);
  const dl_cuda_function_desc *cuda = dlrt_cuda_function(gpu->model->blob, plan->function);
  for (uint32_t l = 0; plan->products && l < cuda->launch_count; ++l)
    dlrt_product_release(gpu, &plan->products[l]);
  free(plan->plan);
  free(plan->argument_places);
  free(plan->result_places);
  free(plan->addresses[0]);
  free(plan->addresses[1]);
  free(plan->current);
  free(plan->grids);
  free(plan->first_size);
  free(plan->sizes);
  free(plan->products);
  free(plan);
}

static void *allocate(uint64_t count, size_t size, bool *failed) {
  void *memory = calloc(count ? count : 1, size);
  if (!memory)
    *failed = true;
  return memory;
}

static dlrt_status allocate_plan(dlrt_gpu *gpu, uint32_t function, dlrt_cuda_plan **out_plan) {
  const dl_blob *blob = gpu->model->blob;
  const dl_function_desc *desc = &dlrt_functions(blob)[function];
  const dl_cuda_function_desc *cuda = dlrt_cuda_function(blob, function);
  const dl_cuda_launch_desc *launches = dlrt_launches(blob, function);
  uint64_t sizes = 0;
  bool failed = false;
  dlrt_cuda_plan *plan = calloc(1, sizeof *plan);
  if (!plan)
    return dlrt_fail_memory("a plan", sizeof *plan);
  for (uint32_t l = 0; l < cuda->launch_count; ++l)
    sizes += launches[l].parameter_count;
  plan->function = function;
  plan->argument_places = allocate(desc->argument_count, sizeof *plan->argument_places, &failed);
  plan->result_places = allocate(desc->result_count, sizeof *plan->result_places, &failed);
  plan->addresses[0] = allocate(cuda->buffer_count, sizeof(cu_address), &failed);
  plan->addresses[1] = allocate(cuda->buffer_count, sizeof(cu_address), &failed);
  plan->current = allocate(cuda->buffer_count, sizeof(cu_address), &failed);
  plan->grids = allocate(cuda->launch_count, sizeof *plan->grids, &failed);
  plan->first_size = allocate(cuda->launch_count, sizeof *plan->first_size, &failed);
  plan->sizes = allocate(sizes, sizeof *plan->sizes, &failed);
  plan->products = allocate(cuda->launch_count, sizeof *plan->products, &failed);
  plan->plan = dlrt_plan_allocate(cuda->buffer_count);
  if (!plan->plan || failed) {
    dlrt_cuda_free_plan(gpu, plan);
    return dlrt_fail_memory("a plan", sizes * sizeof *plan->sizes);
  }
  *out_plan = plan;
  return NULL;
}

/* Places values one behind the other. */
static dlrt_status place_values(dlrt_gpu *gpu, const dlrt_cuda_plan *plan,
                                const dl_value_desc *values, uint32_t count, bool of_results,
                                uint64_t *places, uint64_t *bytes) {
  const dl_blob *blob = gpu->model->blob;
  for (uint32_t i = 0; i < count; ++i) {
    int64_t dims[DL_MAX_RANK];
    uint64_t size;
    bool known = true;
    if (of_results && !is_asked_for(plan->plan, i))
      continue;
    for (uint32_t d = 0; d < values[i].rank; ++d)
      known &= dlrt_size_evaluate(dlrt_value_dim(blob, &values[i], d), &plan->plan->binding,
                                  &dims[d]) == DLRT_SIZE_OK;
    if (!known || !dlrt_tensor_bytes(values[i].dtype, values[i].rank, dims, &size) ||
        size > PTRDIFF_MAX - *bytes - 2 * DLRT_CUDA_ALIGNMENT)
      return dlrt_fail(DLRT_OUT_OF_MEMORY, "%ss of '%s' have no size for these arguments",
                       of_results ? "result" : "argument", function_name(gpu, plan->function));
    places[i] = align_up(*bytes);
    *bytes = places[i] + size;
  }
  return NULL;
}

/* A size of a launch, between 0 and `most`. */
static dlrt_status launch_size(const dlrt_gpu *gpu, const dlrt_cuda_plan *plan, uint32_t launch,
                               dl_ref size, int64_t least, int64_t most, int64_t *out_value) {
  const dlrt_model *model = gpu->model;
  dlrt_size_result result =
      dlrt_size_evaluate(dlrt_at(model->blob, size), &plan->plan->binding, out_value);
  if (result == DLRT_SIZE_OK && *out_value >= least && *out_value <= most)
    return NULL;
  const char *name = model->launch_names[model->first_launch[plan->function] + launch];
  if (result == DLRT_SIZE_OK)
    return dlrt_fail(DLRT_INVALID_ARGUMENT,
                     "'%s' cannot run on a GPU for these arguments: launch '%s' would have %lld "
                     "blocks, expected %lld to %lld",
                     function_name(gpu, plan->function), name, (long long)*out_value,
                     (long long)least, (long long)most);
  return dlrt_fail(DLRT_INVALID_ARGUMENT,
                   "a size of launch '%s' of '%s' has no value for these arguments", name,
                   function_name(gpu, plan->function));
}

static bool takes_part(const dlrt_cuda_plan *plan, const dl_cuda_launch_desc *launch) {
  return launch->when == DL_CUDA_ALWAYS ||
         (launch->when == DL_CUDA_WITH_CUBLASLT) == plan->uses_blas;
}

static dlrt_status size_launches(dlrt_gpu *gpu, dlrt_cuda_plan *plan) {
  /* Of a grid in x, y, z. */
  static const int64_t most[3] = {INT32_MAX, 65535, 65535};
  const dl_blob *blob = gpu->model->blob;
  const dl_cuda_function_desc *cuda = dlrt_cuda_function(blob, plan->function);
  uint32_t used = 0;
  for (uint32_t l = 0; l < cuda->launch_count; ++l) {
    const dl_cuda_launch_desc *launch = &dlrt_launches(blob, plan->function)[l];
    const dl_cuda_parameter *parameters = dlrt_at(blob, launch->parameters);
    dlrt_status status;
    int64_t value;
    plan->first_size[l] = used;
    if (launch->kind == DL_CUDA_LAUNCH_FOR) { /* its turns, in the place of its first parameters */
      int64_t *turns = &plan->sizes[used];
      turns[1] = INT64_MAX;
      for (int d = 0; d < 2; ++d)
        if (launch->grid[d] &&
            (status = launch_size(gpu, plan, l, launch->grid[d], INT64_MIN, INT64_MAX, &turns[d])))
          return status;
    }
    if (launch->kind != DL_CUDA_LAUNCH_KERNEL) {
      used += launch->parameter_count;
      continue;
    }
    for (int d = 0; d < 3; ++d) {
      if ((status = launch_size(gpu, plan, l, launch->grid[d], 0, most[d], &value)))
        return status;
      plan->grids[l][d] = (uint32_t)value;
    }
    for (uint32_t p = 0; p < launch->parameter_count; ++p, ++used)
      if (parameters[p].kind == DL_CUDA_SIZE &&
          (status = launch_size(gpu, plan, l, parameters[p].value, INT64_MIN, INT64_MAX,
                                &plan->sizes[used])))
        return status;
  }
  return NULL;
}

/* How many launches a part of the list comes to, at most `most`; more where that is not known. */
static uint64_t count_launches(const dlrt_gpu *gpu, const dlrt_cuda_plan *plan, uint32_t first,
                               uint32_t count, uint64_t most) {
  const dl_blob *blob = gpu->model->blob;
  const dl_cuda_launch_desc *launches = dlrt_launches(blob, plan->function);
  uint64_t sum = 0;
  for (uint32_t l = first; l < first + count && sum <= most; ++l) {
    const dl_cuda_launch_desc *launch = &launches[l];
    if (launch->kind == DL_CUDA_LAUNCH_IF)
      return most + 1;
    if (launch->kind != DL_CUDA_LAUNCH_FOR) {
      ++sum;
      continue;
    }
    const dl_cuda_parameter *parameters = dlrt_at(blob, launch->parameters);
    const int64_t *turns = &plan->sizes[plan->first_size[l]];
    uint64_t body = count_launches(gpu, plan, l + 1, launch->index, most);
    if (!launch->grid[1] || parameters[0].value != DL_CUDA_NO_BUFFER ||
        parameters[1].value != DL_CUDA_NO_BUFFER || body > most)
      return most + 1;
    l += launch->index;
    if (turns[0] >= turns[1] || !body)
      continue;
    uint64_t number = (uint64_t)turns[1] - (uint64_t)turns[0];
    if (number > most / body)
      return most + 1;
    sum += number * body;
  }
  return sum;
}

/* Asks for an algorithm for each product. Where one has none, the model's own kernels do them all,
 * if it has any. */
static dlrt_status prepare_products(dlrt_gpu *gpu, dlrt_cuda_plan *plan) {
  const dl_blob *blob = gpu->model->blob;
  const dl_cuda_function_desc *cuda = dlrt_cuda_function(blob, plan->function);
  const dl_cuda_launch_desc *launches = dlrt_launches(blob, plan->function);
  bool replaceable = true;
  for (uint32_t l = 0; l < cuda->launch_count; ++l)
    replaceable &= launches[l].kind != DL_CUDA_LAUNCH_GEMM || launches[l].when != DL_CUDA_ALWAYS;
  plan->uses_blas = gpu->blas != NULL;
  plan->workspace_bytes = 0;
  for (uint32_t l = 0; plan->uses_blas && l < cuda->launch_count; ++l) {
    bool found;
    if (launches[l].kind != DL_CUDA_LAUNCH_GEMM)
      continue;
    dlrt_status status = dlrt_product_prepare(gpu, plan, l, &plan->products[l], &found);
    if (status)
      return status;
    if (plan->products[l].workspace_bytes > plan->workspace_bytes)
      plan->workspace_bytes = plan->products[l].workspace_bytes;
    if (found)
      continue;
    if (!replaceable)
      return dlrt_fail(
          DLRT_DEVICE,
          "cuBLASLt has no algorithm for product '%s' of '%s' on cuda:%u for these arguments",
          gpu->model->launch_names[gpu->model->first_launch[plan->function] + l],
          function_name(gpu, plan->function), gpu->ordinal);
    plan->uses_blas = false;
    plan->workspace_bytes = 0;
  }
  return NULL;
}

static dlrt_status make_plan(dlrt_gpu *gpu, uint32_t function, const dlrt_binding *binding,
                             uint64_t arena_results, dlrt_cuda_plan **out_plan) {
  const dl_blob *blob = gpu->model->blob;
  const dl_function_desc *desc = &dlrt_functions(blob)[function];
  const dl_cuda_function_desc *cuda = dlrt_cuda_function(blob, function);
  dlrt_cuda_plan *plan;
  dlrt_status status = allocate_plan(gpu, function, &plan);
  if (status)
    return status;
  plan->plan->binding = *binding;
  plan->plan->arena_results = arena_results;
  plan->out_bytes = FAULT_BYTES;
  if (!(status = dlrt_plan_make(gpu->model, function, dlrt_at(blob, cuda->buffers),
                                cuda->buffer_count, plan->plan)) &&
      !(status = place_values(gpu, plan, dlrt_at(blob, desc->arguments), desc->argument_count,
                              false, plan->argument_places, &plan->in_bytes)) &&
      !(status = place_values(gpu, plan, dlrt_at(blob, desc->results), desc->result_count, true,
                              plan->result_places, &plan->out_bytes)) &&
      !(status = size_launches(gpu, plan)) && !(status = prepare_products(gpu, plan))) {
    plan->workspace = align_up(plan->plan->arena_bytes);
    plan->arena_bytes = plan->workspace + plan->workspace_bytes;
    plan->is_captured = count_launches(gpu, plan, 0, cuda->launch_count, MOST_CAPTURED) <=
                        MOST_CAPTURED;
  }
  if (status)
    dlrt_cuda_free_plan(gpu, plan);
  else
    *out_plan = plan;
  return status;
}

/* ---- launching ---- */

static uint64_t constant_place(const dlrt_gpu *gpu, uint32_t offset) {
  uint32_t low = 0, high = gpu->constant_count;
  while (low < high) {
    uint32_t middle = low + (high - low) / 2;
    if (gpu->constant[middle].offset < offset)
      low = middle + 1;
    else
      high = middle;
  }
  return gpu->constant[low].place; /* all are listed */
}

/* Where a plan's buffers lie, for each slot. */
static void find_addresses(const dlrt_gpu *gpu, dlrt_cuda_plan *plan) {
  const dl_blob *blob = gpu->model->blob;
  const dl_cuda_function_desc *cuda = dlrt_cuda_function(blob, plan->function);
  const dl_buffer_desc *buffers = dlrt_at(blob, cuda->buffers);
  for (uint32_t s = 0; s < 2; ++s)
    for (uint32_t b = 0; b < cuda->buffer_count; ++b) {
      uint32_t index = buffers[b].index;
      cu_address address = 0;
      switch (buffers[b].kind) {
      case DL_BUFFER_ARGUMENT:
        address = gpu->slots[s].in + plan->argument_places[index];
        break;
      case DL_BUFFER_VARIABLE:
        address = gpu->variables + gpu->model->variable_offsets[index];
        break;
      case DL_BUFFER_CONSTANT:
        address = gpu->constants + constant_place(gpu, index);
        break;
      case DL_BUFFER_RESULT:
        if (is_asked_for(plan->plan, index)) {
          address = gpu->out + plan->result_places[index];
          break;
        }
        /* fallthrough */
      case DL_BUFFER_ARENA:
        /* There is no arena where nothing in it has any bytes; an address is due all the same. */
        address = gpu->arena ? gpu->arena + plan->plan->offsets[b] : gpu->out;
        break;
      }
      plan->addresses[s][b] = address;
    }
}

/* Room for the times of `count` launches. */
static dlrt_status make_events(dlrt_gpu *gpu, uint32_t count) {
  uint32_t wanted = count + 1;
  if (wanted <= gpu->profile_event_count)
    return NULL;
  if (wanted < 2 * gpu->profile_event_count)
    wanted = 2 * gpu->profile_event_count;
  cu_event *events = realloc(gpu->profile_events, wanted * sizeof *events);
  if (events)
    gpu->profile_events = events;
  uint32_t *launches = realloc(gpu->profile_launches, wanted * sizeof *launches);
  if (launches)
    gpu->profile_launches = launches;
  if (!events || !launches)
    return dlrt_fail_memory("a profile's events", wanted * sizeof *events);
  for (; gpu->profile_event_count < wanted; ++gpu->profile_event_count) {
    cu_result result = gpu->cu->event_create(&events[gpu->profile_event_count], CU_TIMED_EVENT);
    if (result != CU_SUCCESS)
      return dlrt_cuda_failed(gpu, result, "make an event", false);
  }
  return NULL;
}

/* Launches of a plan on their way to a stream. */
typedef struct issuing {
  dlrt_gpu *gpu;
  dlrt_cuda_plan *plan;
  uint32_t slot;
  cu_stream stream;
  bool profile;
  uint32_t count; /* sent so far */
  bool stopped;   /* a check has found a fault, and what was to follow does not matter */
} issuing;

static const char *launch_name(const issuing *to, uint32_t launch) {
  const dlrt_model *model = to->gpu->model;
  return model->launch_names[model->first_launch[to->plan->function] + launch];
}

/* Counts a launch; for a profile, the time runs. */
static dlrt_status count_one(issuing *to, uint32_t launch) {
  dlrt_gpu *gpu = to->gpu;
  uint32_t number = to->count++;
  if (!to->profile)
    return NULL;
  dlrt_status status = make_events(gpu, to->count);
  if (status)
    return status;
  gpu->profile_launches[number] = launch;
  cu_result result = gpu->cu->event_record(gpu->profile_events[number], to->stream);
  return result == CU_SUCCESS ? NULL : dlrt_cuda_failed(gpu, result, "follow a launch", false);
}

/* Waits for what a launch has left in a buffer, up to 8 bytes of it, and looks for a fault. The
 * place for results is free until all is done. */
static dlrt_status read_back(issuing *to, uint32_t launch, uint32_t buffer, size_t bytes,
                             void *out) {
  const dlrt_driver *cu = to->gpu->cu;
  char *place = to->gpu->slots[to->slot].host_out, *value = place + FAULT_BYTES - 8;
  int64_t site;
  cu_result result = cu->copy_out(place, to->gpu->out, sizeof(dl_fault), to->stream);
  if (result == CU_SUCCESS)
    result = cu->copy_out(value, to->plan->current[buffer], bytes, to->stream);
  if (result == CU_SUCCESS)
    result = cu->stream_synchronize(to->stream);
  if (result != CU_SUCCESS) {
    char action[2 * DLRT_MAX_NAME_BYTES + 32];
    snprintf(action, sizeof action, "decide '%s'", launch_name(to, launch));
    return dlrt_cuda_failed(to->gpu, result, action, true);
  }
  memcpy(&site, place + offsetof(dl_fault, site), sizeof site);
  to->stopped = site != 0;
  memcpy(out, value, bytes);
  return NULL;
}

static dlrt_status issue_part(issuing *to, uint32_t first, uint32_t count);

static dlrt_status issue_for(issuing *to, uint32_t l) {
  const dl_blob *blob = to->gpu->model->blob;
  const dl_cuda_launch_desc *launch = &dlrt_launches(blob, to->plan->function)[l];
  const dl_cuda_parameter *parameters = dlrt_at(blob, launch->parameters);
  const int64_t *turns = &to->plan->sizes[to->plan->first_size[l]];
  int64_t turn = turns[0], last = turns[1], limit;
  dlrt_status status;
  if (parameters[0].value != DL_CUDA_NO_BUFFER) {
    if ((status = read_back(to, l, parameters[0].value, sizeof limit, &limit)))
      return status;
    if (last > turn && limit < last - turn)
      last = turn + limit;
  }
  for (; !to->stopped && turn < last; ++turn) {
    uint8_t goes_on = 1;
    if (parameters[1].value != DL_CUDA_NO_BUFFER &&
        (status = read_back(to, l, parameters[1].value, sizeof goes_on, &goes_on)))
      return status;
    if (to->stopped || !goes_on)
      break;
    if ((status = issue_part(to, l + 1, launch->index)))
      return status;
    for (uint32_t p = 2; p < launch->parameter_count; p += 2) {
      cu_address *a = &to->plan->current[parameters[p].value],
                 *b = &to->plan->current[parameters[p + 1].value], read = *a;
      *a = *b;
      *b = read;
    }
  }
  return NULL;
}

static dlrt_status issue_if(issuing *to, uint32_t l) {
  const dl_blob *blob = to->gpu->model->blob;
  const dl_cuda_launch_desc *launch = &dlrt_launches(blob, to->plan->function)[l];
  const dl_cuda_parameter *parameters = dlrt_at(blob, launch->parameters);
  uint8_t holds;
  dlrt_status status = read_back(to, l, parameters[0].value, sizeof holds, &holds);
  if (status || to->stopped)
    return status;
  return holds ? issue_part(to, l + 1, launch->index)
               : issue_part(to, l + 1 + launch->index, launch->other);
}

static dlrt_status issue_kernel(issuing *to, uint32_t l) {
  dlrt_gpu *gpu = to->gpu;
  const dlrt_cuda_plan *plan = to->plan;
  const dl_blob *blob = gpu->model->blob;
  const dl_cuda_desc *program = dlrt_at(blob, blob->cuda);
  const dl_cuda_kernel_desc *kernels = dlrt_at(blob, program->kernels);
  const dl_cuda_launch_desc *launch = &dlrt_launches(blob, plan->function)[l];
  const dl_cuda_parameter *parameters = dlrt_at(blob, launch->parameters);
  const uint32_t *grid = plan->grids[l];
  if (!grid[0] || !grid[1] || !grid[2])
    return NULL;
  dlrt_status status = count_one(to, l);
  if (status)
    return status;
  for (uint32_t p = 0; p < launch->parameter_count; ++p)
    gpu->values[p] =
        parameters[p].kind == DL_CUDA_BUFFER ? plan->current[parameters[p].value]
        : parameters[p].kind == DL_CUDA_SIZE ? (uint64_t)plan->sizes[plan->first_size[l] + p]
                                             : gpu->out;
  cu_result result = gpu->cu->launch(gpu->functions[launch->index], grid[0], grid[1], grid[2],
                                     kernels[launch->index].threads, 1, 1,
                                     kernels[launch->index].shared_bytes, to->stream,
                                     gpu->parameters, NULL);
  if (result == CU_SUCCESS)
    return NULL;
  char action[2 * DLRT_MAX_NAME_BYTES + 32];
  snprintf(action, sizeof action, "launch '%s'", launch_name(to, l));
  return dlrt_cuda_failed(gpu, result, action, false);
}

static dlrt_status issue_part(issuing *to, uint32_t first, uint32_t count) {
  const dl_cuda_launch_desc *launches = dlrt_launches(to->gpu->model->blob, to->plan->function);
  for (uint32_t l = first; !to->stopped && l < first + count; ++l) {
    dlrt_status status = NULL;
    if (!takes_part(to->plan, &launches[l]))
      continue;
    switch (launches[l].kind) {
    case DL_CUDA_LAUNCH_KERNEL:
      status = issue_kernel(to, l);
      break;
    case DL_CUDA_LAUNCH_GEMM:
      if (!(status = count_one(to, l)))
        status = dlrt_product_issue(to->gpu, to->plan, l, to->stream);
      break;
    case DL_CUDA_LAUNCH_FOR:
      status = issue_for(to, l);
      l += launches[l].index;
      break;
    case DL_CUDA_LAUNCH_IF:
      status = issue_if(to, l);
      l += launches[l].index + launches[l].other;
      break;
    }
    if (status)
      return status;
  }
  return NULL;
}

/* Sends a plan's launches to a stream, and what copies the results. */
static dlrt_status issue(issuing *to) {
  dlrt_gpu *gpu = to->gpu;
  dlrt_cuda_plan *plan = to->plan;
  const dl_cuda_function_desc *cuda = dlrt_cuda_function(gpu->model->blob, plan->function);
  memcpy(plan->current, plan->addresses[to->slot], cuda->buffer_count * sizeof *plan->current);
  dlrt_status status = to->profile ? make_events(gpu, 0) : NULL;
  if (status || (status = issue_part(to, 0, cuda->launch_count)))
    return status;
  cu_result result = CU_SUCCESS;
  if (to->profile)
    result = gpu->cu->event_record(gpu->profile_events[to->count], to->stream);
  if (result == CU_SUCCESS)
    result = gpu->cu->copy_out(gpu->slots[to->slot].host_out, gpu->out, plan->out_bytes,
                               to->stream);
  return result == CU_SUCCESS ? NULL : dlrt_cuda_failed(gpu, result, "copy results", false);
}

static void drop_graphs(dlrt_gpu *gpu, dlrt_cuda_plan *plan) {
  plan->is_ready = false;
  for (uint32_t i = 0; i < 2; ++i)
    if (plan->graphs[i]) {
      (void)gpu->cu->graph_exec_destroy(plan->graphs[i]);
      plan->graphs[i] = NULL;
    }
}

/* Makes a plan's graphs, if it has any. */
static dlrt_status capture(dlrt_gpu *gpu, dlrt_cuda_plan *plan) {
  const dlrt_driver *cu = gpu->cu;
  find_addresses(gpu, plan);
  for (uint32_t i = 0; i < 2 && plan->is_captured; ++i) {
    issuing to = {.gpu = gpu, .plan = plan, .slot = i, .stream = gpu->capture};
    cu_graph graph = NULL;
    /* Libraries may do what a capture forbids otherwise: load their kernels, for one. */
    cu_result result = cu->capture_begin(gpu->capture, CU_CAPTURE_RELAXED);
    dlrt_status status = NULL;
    if (result == CU_SUCCESS) {
      status = issue(&to);
      result = cu->capture_end(gpu->capture, &graph);
    }
    if (!status && result == CU_SUCCESS)
      result = cu->graph_instantiate(&plan->graphs[i], graph, 0);
    if (graph)
      (void)cu->graph_destroy(graph);
    if (!status && result != CU_SUCCESS) {
      char action[DLRT_MAX_NAME_BYTES + 32];
      plan->graphs[i] = NULL;
      snprintf(action, sizeof action, "make a graph of '%s'", function_name(gpu, plan->function));
      status = dlrt_cuda_failed(gpu, result, action, false);
    }
    if (status) {
      drop_graphs(gpu, plan);
      return status;
    }
  }
  plan->is_ready = true;
  return NULL;
}

/* ---- memory of calls ---- */

/* Arguments of both slots, and fault and results: on the device and pinned. */
static dlrt_status allocate_io(dlrt_gpu *gpu, uint64_t in, uint64_t out) {
  uint64_t io_bytes = 2 * in + out, pinned_bytes = 2 * (in + out);
  dlrt_status status =
      dlrt_cuda_allocate(gpu, "the place for arguments and results", io_bytes, &gpu->io);
  if (status)
    return status;
  gpu->io_bytes = io_bytes;
  void *pinned = NULL;
  cu_result result = gpu->cu->allocate_host(&pinned, pinned_bytes, 0);
  if (result == CU_SUCCESS) {
    gpu->pinned = pinned;
    gpu->out = gpu->io + 2 * in;
    /* No fault; and the gaps between results, which are copied with them, have a value. */
    result = gpu->cu->fill(gpu->out, 0, out, gpu->compute);
  }
  if (result != CU_SUCCESS)
    return result == CU_ERROR_OUT_OF_MEMORY
               ? dlrt_fail_memory("pinned memory for arguments and results", pinned_bytes)
               : dlrt_cuda_failed(gpu, result, "allocate pinned memory", false);
  for (uint32_t i = 0; i < 2; ++i) {
    gpu->slots[i].in = gpu->io + i * in;
    gpu->slots[i].host_in = gpu->pinned + i * (in + out);
    gpu->slots[i].host_out = gpu->slots[i].host_in + in;
    memset(gpu->slots[i].host_out, 0, sizeof(dl_fault));
  }
  gpu->in_capacity = in;
  gpu->out_capacity = out;
  return NULL;
}

/* Frees a slot's pinned memory of results that have not been collected; they must be there. */
static void clear_slot(dlrt_cuda_slot *slot) {
  if (slot->ticket)
    dlrt_ticket_keep(slot->ticket);
  slot->ticket = NULL;
}

/* Makes the arena and the places for arguments and results as large as a plan needs. They only
 * grow. Graphs hold addresses, so growing makes all of them anew: at once, so that calls of shapes
 * that were there before allocate nothing. */
static dlrt_status grow(dlrt_gpu *gpu, const dlrt_cuda_plan *plan) {
  bool more_arena = plan->arena_bytes > gpu->arena_bytes,
       more_io =
           !gpu->pinned || plan->in_bytes > gpu->in_capacity || plan->out_bytes > gpu->out_capacity;
  if (!more_arena && !more_io)
    return NULL;
  dlrt_status status = dlrt_cuda_settle(gpu);
  if (status)
    return status;
  uint64_t plans = (uint64_t)gpu->model->blob->function_count * DLRT_PLANS_PER_FUNCTION;
  for (uint64_t i = 0; i < plans; ++i)
    if (gpu->plans[i])
      drop_graphs(gpu, gpu->plans[i]);
  if (more_arena) {
    char what[DLRT_MAX_NAME_BYTES + 32];
    snprintf(what, sizeof what, "the arena of '%s'", function_name(gpu, plan->function));
    dlrt_cuda_free(gpu, &gpu->arena, gpu->arena_bytes);
    gpu->arena_bytes = 0;
    if ((status = dlrt_cuda_allocate(gpu, what, plan->arena_bytes, &gpu->arena)))
      return status;
    gpu->arena_bytes = plan->arena_bytes;
  }
  if (more_io) {
    uint64_t in = align_up(plan->in_bytes), out = align_up(plan->out_bytes);
    in = in > gpu->in_capacity ? in : gpu->in_capacity;
    out = out > gpu->out_capacity ? out : gpu->out_capacity;
    for (uint32_t i = 0; i < 2; ++i)
      clear_slot(&gpu->slots[i]);
    if (gpu->pinned)
      (void)gpu->cu->free_host(gpu->pinned);
    gpu->pinned = NULL;
    dlrt_cuda_free(gpu, &gpu->io, gpu->io_bytes);
    if ((status = allocate_io(gpu, in, out))) {
      if (gpu->pinned)
        (void)gpu->cu->free_host(gpu->pinned);
      gpu->pinned = NULL;
      dlrt_cuda_free(gpu, &gpu->io, gpu->io_bytes);
      return status;
    }
  }
  for (uint64_t i = 0; i < plans; ++i)
    if (gpu->plans[i] && gpu->plans[i] != plan && gpu->plans[i]->arena_bytes <= gpu->arena_bytes)
      dlrt_status_release(capture(gpu, gpu->plans[i])); /* who needs it will try again */
  return NULL;
}

/* The plan for a call, ready to be launched. */
static dlrt_status find_plan(dlrt_gpu *gpu, const dlrt_gpu_call *call, uint64_t arena_results,
                             dlrt_cuda_plan **out_plan) {
  const dl_blob *blob = gpu->model->blob;
  dlrt_cuda_plan **slots = gpu->plans + (size_t)call->function * DLRT_PLANS_PER_FUNCTION;
  dlrt_cuda_plan **oldest = slots, *plan = NULL;
  dlrt_status status;
  for (uint32_t i = 0; i < DLRT_PLANS_PER_FUNCTION; ++i) {
    if (!slots[i]) {
      oldest = &slots[i];
      break;
    }
    const dlrt_plan *key = slots[i]->plan;
    if (key->arena_results == arena_results && key->binding.bound == call->binding->bound &&
        memcmp(key->binding.dims, call->binding->dims, blob->dim_count * sizeof(int64_t)) == 0) {
      plan = slots[i];
      break;
    }
    if (key->used < (*oldest)->plan->used)
      oldest = &slots[i];
  }
  if (!plan) {
    if ((status = make_plan(gpu, call->function, call->binding, arena_results, &plan)))
      return status;
    /* The graphs of the one that goes may be running. */
    if (*oldest && (status = dlrt_cuda_settle(gpu))) {
      dlrt_cuda_free_plan(gpu, plan);
      return status;
    }
    dlrt_cuda_free_plan(gpu, *oldest);
    *oldest = plan;
  }
  if ((status = grow(gpu, plan)) || (!plan->is_ready && (status = capture(gpu, plan))))
    return status;
  plan->plan->used = ++gpu->clock;
  *out_plan = plan;
  return NULL;
}

/* ---- calls ---- */

/* Writes the arguments to a slot's pinned memory. */
static void stage(const dlrt_gpu *gpu, const dlrt_cuda_plan *plan, const dlrt_gpu_call *call,
                  dlrt_cuda_slot *slot) {
  const dl_blob *blob = gpu->model->blob;
  const dl_function_desc *desc = &dlrt_functions(blob)[call->function];
  const dl_value_desc *arguments = dlrt_at(blob, desc->arguments);
  uint64_t end = 0; /* gaps between them are copied too, and are zero */
  for (uint32_t i = 0; i < desc->argument_count; ++i) {
    char *place = slot->host_in + plan->argument_places[i];
    memset(slot->host_in + end, 0, plan->argument_places[i] - end);
    uint64_t bytes = dlrt_dtype_bytes((dlrt_dtype)arguments[i].dtype);
    if (dlrt_takes_default(&arguments[i], call->arguments, call->argument_count, i, true))
      dlrt_store_scalar(arguments[i].dtype, arguments[i].default_value, place);
    else {
      (void)dlrt_tensor_bytes(call->arguments[i].dtype, call->arguments[i].rank,
                              call->arguments[i].dims, &bytes);
      if (bytes)
        memcpy(place, call->arguments[i].data, bytes);
    }
    end = plan->argument_places[i] + bytes;
  }
}

/* Tells the profile what the launches of a call took. */
static dlrt_status report_times(dlrt_gpu *gpu, const dlrt_cuda_plan *plan,
                                const dlrt_gpu_call *call, uint32_t count) {
  const dl_blob *blob = gpu->model->blob;
  for (uint32_t i = 0; i < count; ++i) {
    uint32_t l = gpu->profile_launches[i];
    const dl_cuda_launch_desc *launch = &dlrt_launches(blob, plan->function)[l];
    int64_t blocks = launch->kind == DL_CUDA_LAUNCH_GEMM
                         ? 1
                         : (int64_t)plan->grids[l][0] * plan->grids[l][1] * plan->grids[l][2];
    float ms = 0;
    cu_result result =
        gpu->cu->event_elapsed(&ms, gpu->profile_events[i], gpu->profile_events[i + 1]);
    if (result != CU_SUCCESS)
      return dlrt_cuda_failed(gpu, result, "read the time of a launch", false);
    call->profile(call->profile_user, call->exported, l, blocks, -1);
    call->profile(call->profile_user, call->exported, l, blocks, (int64_t)((double)ms * 1e6));
  }
  return NULL;
}

/* Sends a call off: its arguments on the stream for copies, and behind them its launches, which are
 * counted where they go one by one. The slot's last call must be done. */
static dlrt_status send(dlrt_gpu *gpu, dlrt_cuda_plan *plan, const dlrt_gpu_call *call,
                        uint32_t number, uint32_t *out_launches) {
  const dlrt_driver *cu = gpu->cu;
  dlrt_cuda_slot *slot = &gpu->slots[number];
  cu_result result = CU_SUCCESS;
  clear_slot(slot);
  stage(gpu, plan, call, slot);
  if (plan->in_bytes)
    result = cu->copy_in(slot->in, slot->host_in, plan->in_bytes, gpu->copy);
  if (result == CU_SUCCESS)
    result = cu->event_record(slot->copied, gpu->copy);
  if (result == CU_SUCCESS)
    result = cu->stream_wait(gpu->compute, slot->copied, 0);
  if (result != CU_SUCCESS)
    return dlrt_cuda_failed(gpu, result, "copy arguments to the device", false);
  if (call->profile || !plan->is_captured) {
    issuing to = {.gpu = gpu,
                  .plan = plan,
                  .slot = number,
                  .stream = gpu->compute,
                  .profile = call->profile != NULL};
    dlrt_status status = issue(&to);
    *out_launches = to.count;
    if (status) {
      /* Launches before the one that failed have run, and may have changed variables. */
      if (!gpu->lost[0])
        snprintf(gpu->lost, sizeof gpu->lost, "%s", dlrt_status_message(status));
      return status;
    }
  } else if ((result = cu->graph_launch(plan->graphs[number], gpu->compute)) != CU_SUCCESS) {
    char action[DLRT_MAX_NAME_BYTES + 16];
    snprintf(action, sizeof action, "launch '%s'", function_name(gpu, plan->function));
    return dlrt_cuda_failed(gpu, result, action, false);
  }
  slot->pending = true;
  slot->function = plan->function;
  gpu->next_slot = 1 - number;
  if ((result = cu->event_record(slot->done, gpu->compute)) != CU_SUCCESS)
    return dlrt_cuda_failed(gpu, result, "follow a call", true);
  if (call->ticket) {
    slot->ticket = call->ticket;
    slot->ticket->in_memory = false;
    for (uint32_t i = 0; i < slot->ticket->result_count; ++i)
      slot->ticket->results[i].data = slot->host_out + plan->result_places[i];
  }
  return NULL;
}

/* What was copied from the device behind the fault. */
typedef struct copied_results {
  const char *out;
  const uint64_t *places;
} copied_results;

static const void *copied_result(const void *context, uint32_t result) {
  const copied_results *copied = context;
  return copied->out + copied->places[result];
}

dlrt_status dlrt_cuda_call(dlrt_gpu *gpu, const dlrt_gpu_call *call) {
  const dl_function_desc *desc = &dlrt_functions(gpu->model->blob)[call->function];
  uint64_t arena_results = desc->result_count >= 64 ? UINT64_MAX : (1ull << desc->result_count) - 1;
  const dl_log_table *logs = call->log->write ? dlrt_log_table(gpu->model->blob, desc) : NULL;
  bool waits = call->profile || logs;
  for (uint32_t i = logs ? desc->result_count - logs->value_count : desc->result_count;
       i < desc->result_count && i < 64; ++i)
    arena_results &= ~(1ull << i);
  for (uint32_t i = 0; i < call->result_count; ++i) {
    if (!call->results[i].data)
      continue;
    waits |= !call->ticket;
    if (i < 64)
      arena_results &= ~(1ull << i);
  }
  /* Failures of calls before this one. The slot that comes next holds the call before the last: its
   * memory is needed now. */
  dlrt_cuda_plan *plan;
  uint32_t number = gpu->next_slot, launches = 0;
  dlrt_status failure, status = look_at(gpu, &gpu->slots[number], true);
  if (!status && !(status = look_at(gpu, &gpu->slots[1 - number], false)))
    status = find_plan(gpu, call, arena_results, &plan);
  if (status && call->ticket && dlrt_status_code(status) == DLRT_FAULT) {
    dlrt_ticket_hold_back(call->ticket, status);
    dlrt_status_release(status);
    return NULL;
  }
  if (status)
    return status;
  if ((failure = dlrt_failure_ahead(call->tickets)))
    return dlrt_hold_back(gpu->model, call->function, call->ticket, failure);
  if ((status = send(gpu, plan, call, number, &launches)) || !waits)
    return status;
  /* The call before is done when this one is: its fault comes first. */
  if (!(status = look_at(gpu, &gpu->slots[number], true)))
    status = look_at(gpu, &gpu->slots[1 - number], true);
  if (call->ticket && call->ticket->failure) {
    dlrt_status_release(status);
    return NULL;
  }
  if (status)
    return status;
  if ((failure = dlrt_failure_ahead(call->tickets)))
    return dlrt_hold_back(gpu->model, call->function, NULL, failure);
  const char *out = gpu->slots[number].host_out;
  for (uint32_t i = 0; !call->ticket && i < call->result_count; ++i) {
    uint64_t bytes = 0;
    (void)dlrt_tensor_bytes(call->results[i].dtype, call->results[i].rank, call->results[i].dims,
                            &bytes);
    if (call->results[i].data && bytes)
      memcpy(call->results[i].data, out + plan->result_places[i], bytes);
  }
  if (logs) {
    const copied_results copied = {out, plan->result_places};
    dlrt_log_write(gpu->model, call->function, call->binding, copied_result, &copied, call->log,
                   call->exported);
  }
  return call->profile ? report_times(gpu, plan, call, launches) : NULL;
}

dlrt_status dlrt_cuda_collect(dlrt_gpu *gpu, dlrt_ticket *ticket) {
  dlrt_status status = NULL;
  for (uint32_t i = 0; i < 2; ++i)
    if (gpu->slots[i].ticket == ticket) {
      status = look_at(gpu, &gpu->slots[i], true);
      gpu->slots[i].ticket = NULL;
    }
  return status;
}
