//===- Model.cpp - the runtime's API with owners and Expecteds -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <unistd.h>

namespace dlc::run {

static std::string textOf(const char *text) { return text ? text : ""; }

Status toStatus(dlrt_status status) {
  if (!status)
    return {};
  // The words may quote names from a file.
  Error error{printable(dlrt_status_message(status)), ExitError};
  dlrt_status_release(status);
  return error;
}

bool Value::isStatic() const {
  return std::all_of(dims.begin(), dims.end(), [](int64_t dim) { return dim >= 0; });
}

const Value *Function::findArgument(std::string_view argumentName) const {
  for (const Value &argument : arguments)
    if (argument.name == argumentName)
      return &argument;
  return nullptr;
}

std::string Function::argumentNames() const {
  std::vector<std::string> names;
  for (const Value &argument : arguments)
    names.push_back(quote(argument.name));
  return names.empty() ? "none" : joinWords(names);
}

std::string Function::signature() const {
  std::string text = concat(name, '(');
  for (size_t i = 0; i < arguments.size(); ++i) {
    const Value &argument = arguments[i];
    if (i > 0)
      text += ", ";
    text += concat(argument.name, ": ", argument.type());
    if (argument.defaultValue)
      text += concat(" = ", *argument.defaultValue);
  }
  text += ')';
  if (results.empty())
    return text;
  text += " -> ";
  bool plain = results.size() == 1 && results[0].name == "out";
  if (plain)
    return text + results[0].type();
  text += '(';
  for (size_t i = 0; i < results.size(); ++i) {
    if (i > 0)
      text += ", ";
    text += concat(results[i].name, ": ", results[i].type());
  }
  return text + ')';
}

//===----------------------------------------------------------------------===//
// Model
//===----------------------------------------------------------------------===//

Model::Model(Model &&other) noexcept
    : handle(std::exchange(other.handle, nullptr)), about(other.about),
      dimNames(std::move(other.dimNames)), functionList(std::move(other.functionList)),
      variableList(std::move(other.variableList)), imageList(std::move(other.imageList)),
      gpuKernelList(std::move(other.gpuKernelList)) {}

static Value toValue(const dlrt_value_info &info) {
  Value value;
  value.name = textOf(info.name);
  value.dtype = info.dtype;
  value.dims.assign(info.dims, info.dims + std::min<uint32_t>(info.rank, DLRT_MAX_RANK));
  value.shape = textOf(info.shape);
  value.hasDefault = info.has_default != 0;
  if (value.hasDefault && value.dims.empty())
    value.defaultValue = info.default_value;
  return value;
}

Expected<Model> Model::open(const std::string &path, Access access) {
  Model model;
  dlrt_status status = access == Access::Run ? dlrt_model_open(path.c_str(), &model.handle)
                                             : dlrt_model_inspect(path.c_str(), &model.handle);
  if (Status opened = toStatus(status); !opened)
    return opened.error();
  if (Status read = model.readDescription(); !read)
    return read.error();
  return model;
}

Status Model::readDescription() {
  dlrt_model_get_info(handle, &about);
  for (uint32_t i = 0; i < about.dim_count; ++i)
    dimNames.push_back(textOf(dlrt_model_dim_name(handle, i)));

  for (uint32_t i = 0; i < about.variable_count; ++i) {
    dlrt_variable_info info;
    if (Status status = toStatus(dlrt_model_get_variable(handle, i, &info)); !status)
      return status;
    Variable variable;
    variable.name = textOf(info.name);
    variable.doc = textOf(info.doc);
    variable.dtype = info.dtype;
    variable.kind = info.kind;
    variable.dims.assign(info.dims, info.dims + std::min<uint32_t>(info.rank, DLRT_MAX_RANK));
    variable.bytes = info.bytes;
    variableList.push_back(std::move(variable));
  }

  for (uint32_t i = 0; i < about.function_count; ++i) {
    dlrt_function_info info;
    if (Status status = toStatus(dlrt_model_get_function(handle, i, &info)); !status)
      return status;
    Function function;
    function.index = i;
    function.name = textOf(info.name);
    function.doc = textOf(info.doc);
    function.isConst = info.is_const != 0;
    function.isTrain = info.is_train != 0;
    for (uint32_t k = 0; k < info.argument_count; ++k) {
      dlrt_value_info value;
      if (Status status = toStatus(dlrt_function_get_argument(handle, i, k, &value)); !status)
        return status;
      function.arguments.push_back(toValue(value));
    }
    for (uint32_t k = 0; k < info.result_count; ++k) {
      dlrt_value_info value;
      if (Status status = toStatus(dlrt_function_get_result(handle, i, k, &value)); !status)
        return status;
      function.results.push_back(toValue(value));
      // The language calls results without a name so.
      if (std::string &name = function.results.back().name; name.empty())
        name = info.result_count == 1 ? "out" : concat("out", k);
    }
    for (uint32_t k = 0; k < info.kernel_count; ++k)
      function.kernels.push_back(textOf(dlrt_function_kernel_name(handle, i, k)));
    for (uint32_t k = 0; k < info.launch_count; ++k) {
      dlrt_launch_info launch;
      if (Status status = toStatus(dlrt_function_get_launch(handle, i, k, &launch)); !status)
        return status;
      function.launches.push_back(
          {textOf(launch.name), textOf(launch.location),
           launch.kernel == UINT32_MAX ? std::nullopt : std::optional<uint32_t>(launch.kernel),
           launch.when, launch.inner});
    }
    functionList.push_back(std::move(function));
  }
  return readGpuProgram();
}

Status Model::readGpuProgram() {
  for (uint32_t i = 0; i < about.image_count; ++i) {
    dlrt_image_info image;
    if (Status status = toStatus(dlrt_model_get_image(handle, i, &image)); !status)
      return status;
    imageList.push_back(image);
  }
  for (uint32_t i = 0; i < about.gpu_kernel_count; ++i) {
    dlrt_gpu_kernel_info info;
    if (Status status = toStatus(dlrt_model_get_gpu_kernel(handle, i, &info)); !status)
      return status;
    gpuKernelList.push_back({textOf(info.symbol),
                             info.threads,
                             info.shared_bytes,
                             {info.resources, info.resources + info.resource_count}});
  }
  return {};
}

Expected<const Function *> Model::function(const std::string &name) const {
  std::vector<std::string> names;
  for (const Function &function : functionList) {
    if (function.name == name)
      return &function;
    names.push_back(quote(function.name));
  }
  return makeError("model ", quote(textOf(about.name)), " has no function ", quote(name),
                   names.empty() ? "; it exports none" : "; it has ", joinWords(names));
}

//===----------------------------------------------------------------------===//
// Instance and calls
//===----------------------------------------------------------------------===//

/// What --device says.
static Status parseDevice(const std::string &text, dlrt_options &options) {
  options.device = DLRT_DEVICE_AUTO;
  if (text.empty() || text == "auto")
    return {};
  options.device = text == "cpu" ? DLRT_DEVICE_CPU : DLRT_DEVICE_CUDA;
  if (text == "cpu" || text == "cuda")
    return {};
  std::string_view number = text;
  if (number.starts_with("cuda:")) {
    number.remove_prefix(5);
    if (std::optional<uint32_t> ordinal = parseInteger<uint32_t>(number)) {
      options.ordinal = *ordinal;
      return {};
    }
  }
  return makeUsageError("--device takes cpu, cuda, cuda:K or auto, got ", quote(text));
}

Expected<Instance> Instance::create(const Model &model, uint64_t seed, uint32_t threads,
                                    const std::string &device) {
  dlrt_options options{};
  options.size = sizeof(options);
  if (Status parsed = parseDevice(device, options); !parsed)
    return parsed.error();
  options.threads = threads;
  options.seed = seed;
  dlrt_instance *handle = nullptr;
  if (Status status = toStatus(dlrt_instance_create(model.get(), &options, &handle)); !status)
    return status.error();
  // What the program prints; the line of a training's progress is on stderr as well.
  dlrt_instance_set_log(
      handle,
      [](void *, uint32_t, const char *message) {
        std::fprintf(stderr, "%s%s\n", isatty(STDERR_FILENO) ? "\r\x1b[K" : "", message);
      },
      nullptr);
  return Instance(handle);
}

void CallFrame::setArgument(size_t index, const void *data, dlrt_dtype dtype,
                            const std::vector<int64_t> &dims) {
  dlrt_tensor &tensor = arguments[index];
  tensor = dlrt_tensor{};
  // An argument is only read: the API has one structure for both directions.
  tensor.data = const_cast<void *>(data);
  tensor.dtype = static_cast<uint8_t>(dtype);
  tensor.rank = static_cast<uint8_t>(dims.size());
  std::copy(dims.begin(), dims.end(), tensor.dims);
  tensor.bytes = static_cast<size_t>(byteCount(dtype, dims).value_or(0));
}

Status CallFrame::prepareResults() {
  std::vector<dlrt_tensor> shapes(results.size(), dlrt_tensor{});
  if (Status status = toStatus(dlrt_result_shapes(
          model->get(), function->index, arguments.data(), static_cast<uint32_t>(arguments.size()),
          shapes.data(), static_cast<uint32_t>(shapes.size())));
      !status)
    return status;
  for (size_t i = 0; i < results.size(); ++i) {
    std::vector<int64_t> dims(shapes[i].dims, shapes[i].dims + shapes[i].rank);
    dlrt_dtype dtype = static_cast<dlrt_dtype>(shapes[i].dtype);
    std::optional<uint64_t> bytes = byteCount(dtype, dims);
    if (!bytes || *bytes > SIZE_MAX)
      return makeError("result ", quote(function->results[i].name), " of ", quote(function->name),
                       " would be ", typeText(dtype, dims), ", which no memory holds");
    // Shapes repeat from call to call; memory that is large enough stays.
    if (!resultData[i].data() || resultData[i].size() < *bytes)
      if (!resultData[i].allocate(static_cast<size_t>(*bytes)))
        return makeError("result ", quote(function->results[i].name), " of ", quote(function->name),
                         " would be ", typeText(dtype, dims), ": there is no memory for its ",
                         *bytes, " bytes");
    results[i] = shapes[i];
    results[i].data = resultData[i].data();
    results[i].bytes = resultData[i].size();
  }
  return {};
}

Status CallFrame::call(Instance &instance) {
  for (size_t i = 0; i < results.size(); ++i) {
    results[i].data = resultData[i].data();
    results[i].bytes = resultData[i].size();
  }
  return toStatus(dlrt_call(instance.get(), function->index, arguments.data(),
                            static_cast<uint32_t>(arguments.size()), results.data(),
                            static_cast<uint32_t>(results.size())));
}

Expected<dlrt_kernel_work> CallFrame::kernelWork(const Instance &instance, uint32_t kernel) const {
  dlrt_kernel_work work = {};
  if (Status status = toStatus(
          dlrt_instance_kernel_work(instance.get(), function->index, kernel, arguments.data(),
                                    static_cast<uint32_t>(arguments.size()), &work));
      !status)
    return status.error();
  return work;
}

Expected<uint64_t> CallFrame::submit(Instance &instance) {
  uint64_t ticket = 0;
  if (Status status = toStatus(dlrt_submit(instance.get(), function->index, arguments.data(),
                                           static_cast<uint32_t>(arguments.size()),
                                           answersNumber() ? 1 : 0, &ticket));
      !status)
    return status.error();
  return ticket;
}

Expected<double> CallFrame::collect(Instance &instance, uint64_t ticket) {
  alignas(8) std::byte element[8] = {};
  dlrt_tensor result{};
  result.data = element;
  result.bytes = sizeof(element);
  if (Status status =
          toStatus(dlrt_collect(instance.get(), ticket, &result, answersNumber() ? 1 : 0));
      !status)
    return status.error();
  return answersNumber() ? firstElement(element, static_cast<dlrt_dtype>(result.dtype)) : NAN;
}

double CallFrame::scalarResult(size_t index) const {
  return firstElement(results[index].data, static_cast<dlrt_dtype>(results[index].dtype));
}

template <typename T> static double load(const void *data) {
  T value;
  std::memcpy(&value, data, sizeof(value));
  return static_cast<double>(value);
}

static double halfToDouble(uint16_t bits) {
  int exponent = (bits >> 10) & 31;
  double fraction = bits & 1023;
  double magnitude = exponent == 0    ? std::ldexp(fraction, -24)
                     : exponent == 31 ? (fraction == 0 ? INFINITY : NAN)
                                      : std::ldexp(fraction + 1024, exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

double firstElement(const void *data, dlrt_dtype dtype) {
  uint16_t half;
  switch (dtype) {
  case DLRT_BOOL:
  case DLRT_U8:
    return load<uint8_t>(data);
  case DLRT_I8:
    return load<int8_t>(data);
  case DLRT_I16:
    return load<int16_t>(data);
  case DLRT_I32:
    return load<int32_t>(data);
  case DLRT_I64:
    return load<int64_t>(data);
  case DLRT_F16:
    std::memcpy(&half, data, sizeof(half));
    return halfToDouble(half);
  case DLRT_BF16:
    std::memcpy(&half, data, sizeof(half));
    return std::bit_cast<float>(uint32_t(half) << 16);
  case DLRT_F32:
    return load<float>(data);
  case DLRT_F64:
    return load<double>(data);
  }
  return NAN;
}

} // namespace dlc::run
