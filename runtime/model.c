/*===- model.c - compiled models: opening them and what they say about themselves -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===*/
#include "internal.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- tables that are made once ---- */

static uint32_t value_count(const dl_function_desc *function) {
  return function->argument_count + function->result_count;
}

static const dl_value_desc *value_at(const dl_blob *blob, const dl_function_desc *function,
                                     uint32_t i) {
  return i < function->argument_count
             ? (const dl_value_desc *)dlrt_at(blob, function->arguments) + i
             : (const dl_value_desc *)dlrt_at(blob, function->results) +
                   (i - function->argument_count);
}

/* Appends to a text, or only counts where there is no memory yet. */
static void append(char *memory, size_t *used, const char *text) {
  size_t bytes = strlen(text);
  if (memory)
    memcpy(memory + *used, text, bytes + 1);
  *used += bytes;
}

/* "name (file:line)" and its NUL. */
static void append_name(char *memory, size_t *used, const dl_blob *blob, dl_ref name,
                        dl_ref location) {
  append(memory, used, dlrt_string(blob, name));
  if (location) {
    append(memory, used, " (");
    append(memory, used, dlrt_string(blob, location));
    append(memory, used, ")");
  }
  ++*used;
}

/* The shapes and kernels' names as text, one after another. The first pass (memory NULL) counts the
 * bytes. */
static size_t write_texts(dlrt_model *model, char *memory) {
  const dl_blob *blob = model->blob;
  size_t used = 0;
  uint32_t value = 0, kernel = 0, launch = 0;
  for (uint32_t f = 0; f < blob->function_count; ++f) {
    const dl_function_desc *function = &dlrt_functions(blob)[f];
    if (memory) {
      model->first_value[f] = value;
      model->first_kernel[f] = kernel;
    }
    for (uint32_t i = 0; i < value_count(function); ++i, ++value) {
      const dl_value_desc *desc = value_at(blob, function, i);
      if (memory)
        model->shapes[value] = memory + used;
      for (uint32_t d = 0; d < desc->rank; ++d) {
        char size[DLRT_SIZE_TEXT];
        append(memory, &used, d ? ", " : "[");
        append(memory, &used, dlrt_size_text(size, blob, dlrt_value_dim(blob, desc, d)));
      }
      append(memory, &used, desc->rank ? "]" : "");
      ++used;
    }
    const dl_kernel_desc *kernels = dlrt_at(blob, function->kernels);
    for (uint32_t k = 0; k < function->kernel_count; ++k, ++kernel) {
      if (memory)
        model->kernel_names[kernel] = memory + used;
      append_name(memory, &used, blob, kernels[k].name, kernels[k].location);
    }
    const dl_cuda_function_desc *cuda = dlrt_cuda_function(blob, f);
    const dl_cuda_launch_desc *launches = cuda ? dlrt_at(blob, cuda->launches) : NULL;
    if (memory)
      model->first_launch[f] = launch;
    for (uint32_t l = 0; cuda && l < cuda->launch_count; ++l, ++launch) {
      if (memory)
        model->launch_names[launch] = memory + used;
      append_name(memory, &used, blob, launches[l].name, launches[l].location);
    }
  }
  return used;
}

/* What qsort compares: no other way to hand it a context that every libc has. */
typedef struct named {
  const char *name;
  uint32_t number;
} named;

static int compare_names(const void *a, const void *b) {
  return strcmp(((const named *)a)->name, ((const named *)b)->name);
}

/* Sorts the names of variables (into the model's table) or functions, and refuses one that is there
 * twice. */
static dlrt_status sort_names(dlrt_model *model, bool of_variables) {
  const dl_blob *blob = model->blob;
  uint32_t count = of_variables ? blob->variable_count : blob->function_count;
  dlrt_status status = NULL;
  named *names = malloc((count + (size_t)1) * sizeof *names);
  if (!names)
    return dlrt_fail_memory("a model", count * sizeof *names);
  for (uint32_t i = 0; i < count; ++i)
    names[i] = (named){dlrt_string(blob, of_variables ? dlrt_variables(blob)[i].name
                                                      : dlrt_functions(blob)[i].name),
                       i};
  qsort(names, count, sizeof *names, compare_names);
  for (uint32_t i = 0; i < count && !status; ++i) {
    if (i && strcmp(names[i - 1].name, names[i].name) == 0)
      status = dlrt_fail(DLRT_CORRUPT, "damaged description: %s '%s' is there twice",
                         of_variables ? "variable" : "function", names[i].name);
    if (of_variables)
      model->variables_by_name[i] = names[i].number;
  }
  free(names);
  return status;
}

static void *allocate(uint64_t count, size_t size, bool *failed) {
  void *memory = calloc(count ? count : 1, size);
  if (!memory)
    *failed = true;
  return memory;
}

/* A random variable of the runtime's protocol, or UINT32_MAX. */
static dlrt_status find_random(const dlrt_model *model, const char *name, uint32_t *out_variable) {
  *out_variable = dlrt_variable_number(model, name);
  if (*out_variable == UINT32_MAX)
    return NULL;
  const dl_variable_desc *variable = &dlrt_variables(model->blob)[*out_variable];
  if (variable->kind != DL_VARIABLE_RANDOM)
    *out_variable = UINT32_MAX; /* somebody else's variable that has this name */
  else if (variable->dtype != DL_I64 || variable->rank != 0)
    return dlrt_fail(DLRT_CORRUPT, "damaged description: variable '%s' is not an i64 scalar", name);
  return NULL;
}

dlrt_status dlrt_model_create(const dl_blob *blob, size_t bytes, dlrt_model **out_model) {
  dlrt_status status = dlrt_description_check(blob, bytes);
  if (status)
    return status;
  bool failed = false;
  dlrt_model *model = allocate(1, sizeof *model, &failed);
  if (failed)
    return dlrt_fail_memory("a model", sizeof *model);
  const dl_function_desc *functions = dlrt_functions(blob);
  uint64_t values = 0, kernels = 0, launches = 0;
  atomic_init(&model->references, 1);
  model->blob = blob;
  model->file = -1;
  model->init = UINT32_MAX;
  model->exported = allocate(blob->function_count, sizeof *model->exported, &failed);
  model->variables_by_name =
      allocate(blob->variable_count, sizeof *model->variables_by_name, &failed);
  model->variable_offsets =
      allocate(blob->variable_count, sizeof *model->variable_offsets, &failed);
  model->scratch_bytes = DL_BUFFER_ALIGNMENT; /* room for the word that every launch finds there */
  for (uint32_t f = 0; f < blob->function_count; ++f) {
    const dl_function_desc *function = &functions[f];
    if (function->flags & DL_FUNCTION_INIT)
      model->init = f;
    else if (model->exported)
      model->exported[model->exported_count++] = f;
    if (function->argument_count > model->max_arguments)
      model->max_arguments = function->argument_count;
    if (function->result_count > model->max_results)
      model->max_results = function->result_count;
    if (function->buffer_count > model->max_buffers)
      model->max_buffers = function->buffer_count;
    if (function->scratch_bytes > model->scratch_bytes)
      model->scratch_bytes = function->scratch_bytes;
    values += value_count(function);
    kernels += function->kernel_count;
    if (function->cuda)
      launches += dlrt_cuda_function(blob, f)->launch_count;
  }
  model->first_value = allocate(blob->function_count, sizeof *model->first_value, &failed);
  model->first_kernel = allocate(blob->function_count, sizeof *model->first_kernel, &failed);
  model->shapes = allocate(values, sizeof *model->shapes, &failed);
  model->kernel_names = allocate(kernels, sizeof *model->kernel_names, &failed);
  model->first_launch = allocate(blob->function_count, sizeof *model->first_launch, &failed);
  model->launch_names = allocate(launches, sizeof *model->launch_names, &failed);
  model->texts = allocate(write_texts(model, NULL), 1, &failed);
  if (failed) {
    dlrt_model_release(model);
    return dlrt_fail_memory("a model", values * sizeof *model->shapes);
  }
  for (uint32_t i = 0; i < blob->variable_count; ++i) {
    model->variable_offsets[i] = model->variable_bytes;
    uint64_t padded = (dlrt_variables(blob)[i].bytes + DL_BUFFER_ALIGNMENT - 1) &
                      ~(uint64_t)(DL_BUFFER_ALIGNMENT - 1);
    model->variable_bytes += padded; /* the check has excluded an overflow */
  }
  write_texts(model, model->texts);
  if ((status = sort_names(model, true)) || (status = sort_names(model, false)) ||
      (status = find_random(model, "random.seed", &model->random_seed)) ||
      (status = find_random(model, "random.calls", &model->random_calls))) {
    dlrt_model_release(model);
    return status;
  }
  *out_model = model;
  return NULL;
}

void dlrt_model_retain(dlrt_model *model) {
  atomic_fetch_add_explicit(&model->references, 1, memory_order_relaxed);
}

void dlrt_model_release(dlrt_model *model) {
  if (!model || atomic_fetch_sub_explicit(&model->references, 1, memory_order_acq_rel) != 1)
    return;
  free(model->exported);
  free(model->variables_by_name);
  free(model->variable_offsets);
  free(model->first_value);
  free(model->first_kernel);
  free(model->shapes);
  free(model->kernel_names);
  free(model->first_launch);
  free(model->launch_names);
  free(model->texts);
  free(model->owned_blob);
  if (model->library)
    dlclose(model->library);
  if (model->file >= 0)
    close(model->file);
  free(model);
}

/* ---- attaching ---- */

dlrt_status dlrt_model_check_answer(const dl_model *answer) {
  if (!answer)
    return dlrt_fail(DLRT_INCOMPATIBLE, "does not speak ABI version %u of this runtime",
                     DL_ABI_VERSION);
  if (answer->abi_version != DL_ABI_VERSION)
    return dlrt_fail(DLRT_INCOMPATIBLE, "has ABI version %u, this runtime speaks version %u",
                     answer->abi_version, DL_ABI_VERSION);
  if (answer->size < sizeof *answer || !answer->blob || !answer->entries)
    return dlrt_fail(DLRT_CORRUPT, "has an incomplete table of functions");
  return NULL;
}

dlrt_status dlrt_model_check_code(const dl_model *answer) {
  const dl_blob *blob = answer->blob;
  for (uint32_t f = 0; f < blob->function_count; ++f) {
    const dl_function_desc *function = &dlrt_functions(blob)[f];
    bool may_lack = !dlrt_has_cpu_code(blob) && !(function->flags & DL_FUNCTION_INIT);
    if (!answer->entries[f] && !may_lack)
      return dlrt_fail(DLRT_CORRUPT, "has no code for function '%s'",
                       dlrt_string(blob, function->name));
    const dl_buffer_desc *buffers = dlrt_at(blob, function->buffers);
    for (uint32_t b = 0; b < function->buffer_count; ++b) {
      if (buffers[b].kind == DL_BUFFER_CONSTANT && (uintptr_t)blob % DL_BUFFER_ALIGNMENT != 0)
        return dlrt_fail(DLRT_CORRUPT,
                         "has constants, but its description is not aligned to %d bytes in memory",
                         DL_BUFFER_ALIGNMENT);
      if (buffers[b].kind == DL_BUFFER_PREPARED &&
          !(answer->preparations && answer->preparations[f]))
        return dlrt_fail(DLRT_CORRUPT, "has no code that prepares function '%s'",
                         dlrt_string(blob, function->name));
    }
  }
  return NULL;
}

void dlrt_model_take_code(dlrt_model *model, const dl_model *answer) {
  model->entries = answer->entries;
  model->preparations = answer->preparations;
}

dlrt_status dlrt_with_path(const char *path, dlrt_status status) {
  if (!status)
    return NULL;
  dlrt_status named =
      dlrt_fail(dlrt_status_code(status), "'%s': %s", path, dlrt_status_message(status));
  dlrt_status_release(status);
  return named;
}

dlrt_status dlrt_model_attach(const dl_model *linked, dlrt_model **out_model) {
  if (!out_model)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "out_model is NULL");
  *out_model = NULL;
  dlrt_model *model = NULL;
  dlrt_status status = dlrt_model_check_answer(linked);
  if (status)
    return dlrt_with_path("linked model", status);
  if ((status = dlrt_model_create(linked->blob, linked->blob->blob_bytes, &model)))
    return dlrt_with_path("linked model", status);
  if ((status = dlrt_cpu_check(dlrt_string(model->blob, model->blob->features))) ||
      (status = dlrt_model_check_code(linked))) {
    status = dlrt_with_path(dlrt_string(model->blob, model->blob->name), status);
    dlrt_model_release(model);
    return status;
  }
  dlrt_model_take_code(model, linked);
  /* Another copy of the runtime, in a library say, goes with its own half for GPUs. */
  if (!linked->runtime || linked->runtime == &dlrt_runtime_api)
    model->gpu_half = linked->cuda;
  *out_model = model;
  return NULL;
}

dlrt_status dlrt_description_model(const void *data, size_t bytes, dlrt_model **out_model) {
  void *copy = malloc(bytes ? bytes : 1);
  if (!copy)
    return dlrt_fail_memory("the model's description", bytes);
  memcpy(copy, data, bytes);
  dlrt_status status = dlrt_model_create(copy, bytes, out_model);
  if (status)
    free(copy);
  else
    (*out_model)->owned_blob = copy;
  return status;
}

/* ---- information ---- */

void dlrt_model_get_info(const dlrt_model *model, dlrt_model_info *out_info) {
  memset(out_info, 0, sizeof *out_info);
  if (!model)
    return;
  const dl_blob *blob = model->blob;
  out_info->name = dlrt_string(blob, blob->name);
  out_info->doc = dlrt_string(blob, blob->doc);
  out_info->compiler = dlrt_string(blob, blob->compiler);
  out_info->triple = dlrt_string(blob, blob->triple);
  out_info->cpu = dlrt_string(blob, blob->cpu);
  out_info->features = dlrt_string(blob, blob->features);
  out_info->abi_version = blob->abi_version;
  out_info->dim_count = blob->dim_count;
  out_info->variable_count = blob->variable_count;
  out_info->function_count = model->exported_count;
  out_info->targets = !blob->cuda ? "cpu" : dlrt_has_cpu_code(blob) ? "cpu,cuda" : "cuda";
  if (blob->cuda) {
    const dl_cuda_desc *cuda = dlrt_at(blob, blob->cuda);
    out_info->image_count = cuda->image_count;
    out_info->gpu_kernel_count = cuda->kernel_count;
  }
}

dlrt_status dlrt_model_get_image(const dlrt_model *model, uint32_t image,
                                 dlrt_image_info *out_info) {
  if (!model || !out_info)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "%s is NULL", model ? "out_info" : "model");
  const dl_blob *blob = model->blob;
  const dl_cuda_desc *cuda = blob->cuda ? dlrt_at(blob, blob->cuda) : NULL;
  uint32_t count = cuda ? cuda->image_count : 0;
  if (image >= count)
    return dlrt_fail(DLRT_NOT_FOUND, "no image %u: model '%s' has %u", image,
                     dlrt_string(blob, blob->name), count);
  const dl_cuda_image *desc = (const dl_cuda_image *)dlrt_at(blob, cuda->images) + image;
  *out_info = (dlrt_image_info){desc->kind == DL_CUDA_PTX, desc->arch, desc->bytes};
  return NULL;
}

dlrt_status dlrt_model_get_gpu_kernel(const dlrt_model *model, uint32_t kernel,
                                      dlrt_gpu_kernel_info *out_info) {
  _Static_assert(sizeof(dlrt_kernel_resources) == sizeof(dl_cuda_resources),
                 "the API shows the description's own");
  if (!model || !out_info)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "%s is NULL", model ? "out_info" : "model");
  const dl_blob *blob = model->blob;
  const dl_cuda_desc *cuda = blob->cuda ? dlrt_at(blob, blob->cuda) : NULL;
  uint32_t count = cuda ? cuda->kernel_count : 0;
  if (kernel >= count)
    return dlrt_fail(DLRT_NOT_FOUND, "no GPU kernel %u: model '%s' has %u", kernel,
                     dlrt_string(blob, blob->name), count);
  const dl_cuda_kernel_desc *desc =
      (const dl_cuda_kernel_desc *)dlrt_at(blob, cuda->kernels) + kernel;
  *out_info = (dlrt_gpu_kernel_info){dlrt_string(blob, desc->symbol), desc->threads,
                                     desc->shared_bytes, desc->resource_count,
                                     desc->resource_count ? dlrt_at(blob, desc->resources) : NULL};
  return NULL;
}

const char *dlrt_model_dim_name(const dlrt_model *model, uint32_t dim) {
  if (!model || dim >= model->blob->dim_count)
    return NULL;
  return dlrt_string(model->blob, ((const dl_ref *)dlrt_at(model->blob, model->blob->dims))[dim]);
}

dlrt_status dlrt_model_get_variable(const dlrt_model *model, uint32_t variable,
                                    dlrt_variable_info *out_info) {
  if (!model || !out_info)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "%s is NULL", model ? "out_info" : "model");
  const dl_blob *blob = model->blob;
  if (variable >= blob->variable_count)
    return dlrt_fail(DLRT_NOT_FOUND, "no variable %u: model '%s' has %u", variable,
                     dlrt_string(blob, blob->name), blob->variable_count);
  const dl_variable_desc *desc = &dlrt_variables(blob)[variable];
  memset(out_info, 0, sizeof *out_info);
  out_info->name = dlrt_string(blob, desc->name);
  out_info->doc = dlrt_string(blob, desc->doc);
  out_info->dtype = (dlrt_dtype)desc->dtype;
  out_info->kind = desc->kind;
  out_info->rank = desc->rank;
  if (desc->rank)
    memcpy(out_info->dims, dlrt_at(blob, desc->dims), desc->rank * sizeof(int64_t));
  out_info->bytes = desc->bytes;
  return NULL;
}

uint32_t dlrt_variable_number(const dlrt_model *model, const char *name) {
  const dl_variable_desc *variables = dlrt_variables(model->blob);
  uint32_t low = 0, high = model->blob->variable_count;
  while (low < high) {
    uint32_t middle = low + (high - low) / 2;
    int order =
        strcmp(name, dlrt_string(model->blob, variables[model->variables_by_name[middle]].name));
    if (order == 0)
      return model->variables_by_name[middle];
    if (order < 0)
      high = middle;
    else
      low = middle + 1;
  }
  return UINT32_MAX;
}

dlrt_status dlrt_model_find_variable(const dlrt_model *model, const char *name,
                                     uint32_t *out_variable) {
  if (!model || !name || !out_variable)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "%s is NULL",
                     !model  ? "model"
                     : !name ? "name"
                             : "out_variable");
  uint32_t variable = dlrt_variable_number(model, name);
  if (variable == UINT32_MAX)
    return dlrt_fail(DLRT_NOT_FOUND, "model '%s' has no variable '%s'",
                     dlrt_string(model->blob, model->blob->name), name);
  *out_variable = variable;
  return NULL;
}

/* The blob's function behind a user's number, or a refusal. */
static dlrt_status exported(const dlrt_model *model, uint32_t function,
                            const dl_function_desc **out_function) {
  if (!model)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "model is NULL");
  if (function >= model->exported_count)
    return dlrt_fail(DLRT_NOT_FOUND, "no function %u: model '%s' has %u", function,
                     dlrt_string(model->blob, model->blob->name), model->exported_count);
  *out_function = &dlrt_functions(model->blob)[model->exported[function]];
  return NULL;
}

dlrt_status dlrt_model_get_function(const dlrt_model *model, uint32_t function,
                                    dlrt_function_info *out_info) {
  const dl_function_desc *desc = NULL;
  dlrt_status status = exported(model, function, &desc);
  if (status)
    return status;
  if (!out_info)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "out_info is NULL");
  memset(out_info, 0, sizeof *out_info);
  out_info->name = dlrt_string(model->blob, desc->name);
  out_info->doc = dlrt_string(model->blob, desc->doc);
  out_info->argument_count = desc->argument_count;
  out_info->result_count = dlrt_shown_results(model->blob, desc);
  out_info->kernel_count = desc->kernel_count;
  out_info->is_const = (desc->flags & DL_FUNCTION_CONST) != 0;
  out_info->is_train = (desc->flags & DL_FUNCTION_TRAIN) != 0;
  const dl_cuda_function_desc *cuda = dlrt_cuda_function(model->blob, model->exported[function]);
  out_info->launch_count = cuda ? cuda->launch_count : 0;
  return NULL;
}

dlrt_status dlrt_function_get_launch(const dlrt_model *model, uint32_t function, uint32_t launch,
                                     dlrt_launch_info *out_info) {
  const dl_function_desc *desc = NULL;
  dlrt_status status = exported(model, function, &desc);
  if (status)
    return status;
  if (!out_info)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "out_info is NULL");
  const dl_cuda_function_desc *cuda = dlrt_cuda_function(model->blob, model->exported[function]);
  uint32_t count = cuda ? cuda->launch_count : 0;
  if (launch >= count)
    return dlrt_fail(DLRT_NOT_FOUND, "no launch %u: function '%s' has %u", launch,
                     dlrt_string(model->blob, desc->name), count);
  const dl_cuda_launch_desc *l =
      (const dl_cuda_launch_desc *)dlrt_at(model->blob, cuda->launches) + launch;
  *out_info =
      (dlrt_launch_info){dlrt_string(model->blob, l->name), dlrt_string(model->blob, l->location),
                         l->kind == DL_CUDA_LAUNCH_KERNEL ? l->index : UINT32_MAX, l->when,
                         l->kind >= DL_CUDA_LAUNCH_FOR ? l->index + l->other : 0};
  return NULL;
}

dlrt_status dlrt_model_find_function(const dlrt_model *model, const char *name,
                                     uint32_t *out_function) {
  if (!model || !name || !out_function)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "%s is NULL",
                     !model  ? "model"
                     : !name ? "name"
                             : "out_function");
  const dl_blob *blob = model->blob;
  char list[512] = "none";
  size_t used = 0;
  for (uint32_t i = 0; i < model->exported_count; ++i) {
    const char *candidate = dlrt_string(blob, dlrt_functions(blob)[model->exported[i]].name);
    if (strcmp(candidate, name) == 0) {
      *out_function = i;
      return NULL;
    }
    if (used + strlen(candidate) + 5 < sizeof list)
      used +=
          (size_t)snprintf(list + used, sizeof list - used, "%s'%s'", used ? ", " : "", candidate);
  }
  return dlrt_fail(DLRT_NOT_FOUND, "model '%s' has no function '%s'; it has %s",
                   dlrt_string(blob, blob->name), name, list);
}

static void value_info(const dlrt_model *model, uint32_t function, uint32_t value,
                       dlrt_value_info *out_info) {
  const dl_blob *blob = model->blob;
  const dl_function_desc *desc = &dlrt_functions(blob)[function];
  const dl_value_desc *v = value_at(blob, desc, value);
  const dlrt_binding none = {.bound = 0};
  memset(out_info, 0, sizeof *out_info);
  out_info->name = dlrt_string(blob, v->name);
  out_info->dtype = (dlrt_dtype)v->dtype;
  out_info->rank = v->rank;
  for (uint32_t d = 0; d < v->rank; ++d)
    if (dlrt_size_evaluate(dlrt_value_dim(blob, v, d), &none, &out_info->dims[d]) != DLRT_SIZE_OK)
      out_info->dims[d] = -1;
  out_info->shape = model->shapes[model->first_value[function] + value];
  out_info->has_default = v->has_default;
  out_info->default_value = v->default_value;
}

static dlrt_status get_value(const dlrt_model *model, uint32_t function, uint32_t number,
                             bool is_argument, dlrt_value_info *out_info) {
  const dl_function_desc *desc = NULL;
  dlrt_status status = exported(model, function, &desc);
  if (status)
    return status;
  if (!out_info)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "out_info is NULL");
  uint32_t count =
      is_argument ? desc->argument_count : dlrt_shown_results(model->blob, desc);
  if (number >= count)
    return dlrt_fail(DLRT_NOT_FOUND, "no %s %u: function '%s' has %u",
                     is_argument ? "argument" : "result", number,
                     dlrt_string(model->blob, desc->name), count);
  value_info(model, model->exported[function], is_argument ? number : desc->argument_count + number,
             out_info);
  return NULL;
}

dlrt_status dlrt_function_get_argument(const dlrt_model *model, uint32_t function,
                                       uint32_t argument, dlrt_value_info *out_info) {
  return get_value(model, function, argument, true, out_info);
}
dlrt_status dlrt_function_get_result(const dlrt_model *model, uint32_t function, uint32_t result,
                                     dlrt_value_info *out_info) {
  return get_value(model, function, result, false, out_info);
}

const char *dlrt_function_kernel_name(const dlrt_model *model, uint32_t function, uint32_t kernel) {
  if (!model || function >= model->exported_count)
    return NULL;
  uint32_t f = model->exported[function];
  return kernel < dlrt_functions(model->blob)[f].kernel_count
             ? model->kernel_names[model->first_kernel[f] + kernel]
             : NULL;
}

const char *dlrt_instance_kernel_name(const dlrt_instance *instance, uint32_t function,
                                      uint32_t kernel) {
  if (!instance || !instance->gpu)
    return dlrt_function_kernel_name(instance ? instance->model : NULL, function, kernel);
  const dlrt_model *model = instance->model;
  if (function >= model->exported_count)
    return NULL;
  uint32_t f = model->exported[function];
  const dl_cuda_function_desc *cuda = dlrt_cuda_function(model->blob, f);
  return cuda && kernel < cuda->launch_count ? model->launch_names[model->first_launch[f] + kernel]
                                             : NULL;
}
