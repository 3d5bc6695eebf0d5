//===- model_fuzz.cpp - descriptions and ELF files of any bytes -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// An input that begins as an ELF file is inspected as one, any other is taken as a description.
// What is accepted is then read in every way that needs no code: all information, all shapes for
// some dimensions, and calls whose code does nothing.
//
//===----------------------------------------------------------------------===//
#include "description.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

namespace {

size_t read; // what was read, so that reading is not left out

void take(const char *text) { read += std::strlen(text); }
void drop(dlrt_status status) {
  if (status)
    take(dlrt_status_message(status));
  dlrt_status_release(status);
}

/// Tensors for a function's arguments, dynamic dimensions taken as `n`.
std::vector<dlrt_tensor> argumentsOf(const dlrt_model *model, uint32_t function, uint32_t count,
                                     int64_t n, double *scalar) {
  std::vector<dlrt_tensor> tensors(count);
  for (uint32_t a = 0; a < count; ++a) {
    dlrt_value_info info = {};
    drop(dlrt_function_get_argument(model, function, a, &info));
    tensors[a].dtype = info.dtype;
    tensors[a].rank = info.rank;
    bool isEmpty = false;
    for (uint32_t d = 0; d < info.rank; ++d) {
      tensors[a].dims[d] = info.dims[d] < 0 ? n : info.dims[d];
      isEmpty |= tensors[a].dims[d] == 0;
    }
    tensors[a].data = isEmpty ? nullptr : scalar;
  }
  return tensors;
}

void walk(dlrt_model *model) {
  dlrt_model_info info;
  dlrt_model_get_info(model, &info);
  for (const char *text :
       {info.name, info.doc, info.compiler, info.triple, info.cpu, info.features})
    take(text);
  for (uint32_t d = 0; d < info.dim_count; ++d)
    take(dlrt_model_dim_name(model, d));
  for (uint32_t v = 0; v < info.variable_count; ++v) {
    dlrt_variable_info variable = {};
    uint32_t found = 0;
    drop(dlrt_model_get_variable(model, v, &variable));
    take(variable.name);
    take(variable.doc);
    if (dlrt_model_find_variable(model, variable.name, &found) || found != v)
      std::abort();
  }
  take(info.targets);
  for (uint32_t i = 0; i < info.image_count; ++i) {
    dlrt_image_info image = {};
    drop(dlrt_model_get_image(model, i, &image));
    read += image.bytes;
  }
  for (uint32_t k = 0; k < info.gpu_kernel_count; ++k) {
    dlrt_gpu_kernel_info kernel = {};
    drop(dlrt_model_get_gpu_kernel(model, k, &kernel));
    take(kernel.symbol);
    for (uint32_t i = 0; i < kernel.resource_count; ++i)
      read += kernel.resources[i].registers;
  }
  for (uint32_t f = 0; f < info.function_count; ++f) {
    dlrt_function_info function = {};
    drop(dlrt_model_get_function(model, f, &function));
    take(function.name);
    take(function.doc);
    for (uint32_t k = 0; k < function.kernel_count; ++k)
      take(dlrt_function_kernel_name(model, f, k));
    for (uint32_t l = 0; l < function.launch_count; ++l) {
      dlrt_launch_info launch = {};
      drop(dlrt_function_get_launch(model, f, l, &launch));
      take(launch.name);
      take(launch.location);
    }
    for (uint32_t r = 0; r < function.result_count; ++r) {
      dlrt_value_info value = {};
      drop(dlrt_function_get_result(model, f, r, &value));
      take(value.name);
      take(value.shape);
    }
    double scalar = 0;
    for (int64_t n : {int64_t(0), int64_t(5), INT64_MAX}) {
      std::vector<dlrt_tensor> arguments =
          argumentsOf(model, f, function.argument_count, n, &scalar);
      std::vector<dlrt_tensor> results(function.result_count);
      drop(dlrt_result_shapes(model, f, arguments.data(), arguments.size(), results.data(),
                              results.size()));
    }
  }
}

void nothing(const dl_frame *frame) { read += frame->dims[0] != 0; }

/// A checked description with code that does nothing: instances and calls.
void call(const std::vector<uint64_t> &blob, uint32_t functions) {
  std::vector<dl_entry_fn> entries(functions + 1, nothing);
  dl_model linked = {DL_ABI_VERSION, sizeof linked, reinterpret_cast<const dl_blob *>(blob.data()),
                     entries.data(), nullptr, nullptr};
  dlrt_model *model = nullptr;
  drop(dlrt_model_attach(&linked, &model));
  if (!model)
    return;
  dlrt_options options = {sizeof options, 1, 0, 1 << 20, DLRT_DEVICE_AUTO, 0};
  dlrt_instance *instance = nullptr;
  // Scratch memory has no limit of its own; a description that asks for much would only try the
  // machine.
  bool modest = true;
  const dl_blob *head = linked.blob;
  for (uint32_t f = 0; f < functions; ++f)
    modest &= reinterpret_cast<const dl_function_desc *>(reinterpret_cast<const char *>(head) +
                                                         head->functions)[f]
                  .scratch_bytes < (1 << 20);
  if (modest)
    drop(dlrt_instance_create(model, &options, &instance));
  dlrt_model_info info;
  dlrt_model_get_info(model, &info);
  for (uint32_t f = 0; instance && f < info.function_count; ++f) {
    dlrt_function_info function = {};
    drop(dlrt_model_get_function(model, f, &function));
    double scalar = 0;
    for (int64_t n : {int64_t(0), int64_t(5)}) {
      std::vector<dlrt_tensor> arguments =
          argumentsOf(model, f, function.argument_count, n, &scalar);
      drop(dlrt_call(instance, f, arguments.data(), arguments.size(), nullptr, 0));
    }
  }
  dlrt_instance_release(instance);
  dlrt_model_release(model);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  dlrt_model *model = nullptr;
  if (size >= 4 && std::memcmp(data,
                               "\x7f"
                               "ELF",
                               4) == 0) {
    static int file = memfd_create("model", 0);
    static std::string path = "/proc/self/fd/" + std::to_string(file);
    if (ftruncate(file, 0) != 0 || pwrite(file, data, size, 0) != static_cast<ssize_t>(size))
      std::abort();
    drop(dlrt_model_inspect(path.c_str(), &model));
    if (model)
      walk(model);
    dlrt_model_release(model);
    return 0;
  }
  std::vector<uint64_t> blob((size + sizeof(dl_blob) + 7) / 8);
  if (size)
    std::memcpy(blob.data(), data, size);
  // The first bytes are always the same: nothing is learnt from getting them wrong again and again.
  dl_blob *head = reinterpret_cast<dl_blob *>(blob.data());
  if (size > 16) {
    std::memcpy(head->magic, DL_BLOB_MAGIC, sizeof head->magic);
    head->abi_version = DL_ABI_VERSION;
    head->blob_bytes = size;
  }
  drop(dlrt_description_model(blob.data(), size, &model));
  if (model) {
    walk(model);
    call(blob, head->function_count);
  }
  dlrt_model_release(model);
  return 0;
}
