//===- Call.cpp - dlrun call: arrays in, arrays out -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Commands.h"
#include "Inputs.h"
#include "Npy.h"

#include <cmath>
#include <cstdio>

namespace dlc::run {

/// A result as one line of text: its value where it is one number, else its type.
static void printResult(const Value &value, const dlrt_tensor &tensor, const std::string &path) {
  dlrt_dtype dtype = static_cast<dlrt_dtype>(tensor.dtype);
  std::string text = typeText(dtype, std::vector<int64_t>(tensor.dims, tensor.dims + tensor.rank));
  if (tensor.rank == 0)
    text += concat(" = ", firstElement(tensor.data, dtype));
  if (!path.empty())
    text += concat(" -> ", printable(path));
  std::printf("%s %s\n", printable(value.name).c_str(), text.c_str());
}

/// A result's name comes from the artefact and becomes part of a path.
static bool isFileName(const std::string &name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

Expected<int> runCall(const CallOptions &options) {
  Expected<std::vector<Assignment>> inputs = parseAssignments(options.inputs, "--input");
  if (!inputs)
    return inputs.error();
  Expected<Model> model = Model::open(options.model, Model::Access::Run);
  if (!model)
    return model.error();
  Expected<const Function *> found = model->function(options.function);
  if (!found)
    return found.error();
  const Function &function = **found;

  Expected<std::vector<std::optional<Array>>> arrays = readInputs(function, *inputs);
  if (!arrays)
    return arrays.error();
  CallFrame frame(*model, function);
  for (size_t i = 0; i < arrays->size(); ++i) {
    const Value &argument = function.arguments[i];
    if (const std::optional<Array> &array = (*arrays)[i])
      frame.setArgument(i, array->data.data(), array->dtype, array->dims);
    else if (!argument.hasDefault && options.repeat > 0)
      return makeError("argument ", quote(argument.name), " of ", quote(function.name), " (",
                       argument.type(), ") is missing; give it with --input ", argument.name, '=',
                       argument.dims.empty() ? "NUMBER" : "FILE.npy");
  }
  // Everything that can be refused is refused before variables are made, the model runs or a file
  // is written.
  if (options.repeat > 0) {
    if (Status prepared = frame.prepareResults(); !prepared)
      return prepared.error();
    for (const Value &result : function.results) {
      if (options.outputFolder.empty())
        break;
      if (!isFileName(result.name))
        return makeError("result ", quote(result.name), " cannot be the name of a file");
      if (Expected<std::string> header = npyHeader(result.dtype, {}); !header)
        return makeError("result ", quote(result.name), ": ", header.error().message);
    }
  }

  Expected<Instance> instance =
      Instance::create(*model, options.seed, options.threads, options.device);
  if (!instance)
    return instance.error();
  if (!options.load.empty())
    if (Status loaded = instance->load(options.load); !loaded)
      return loaded.error();
  for (uint64_t i = 0; i < options.repeat; ++i)
    if (Status called = frame.call(*instance); !called)
      return called.error();
  if (Status done = instance->synchronize(); !done)
    return done.error();
  if (model->hasGpuProgram())
    std::printf("device %s\n", printable(instance->device()).c_str());

  if (options.repeat > 0) {
    if (!options.outputFolder.empty())
      if (Status created = createFolders(options.outputFolder); !created)
        return created.error();
    for (size_t i = 0; i < function.results.size(); ++i) {
      const dlrt_tensor &result = frame.result(i);
      std::string path;
      if (!options.outputFolder.empty()) {
        path = concat(options.outputFolder, '/', function.results[i].name, ".npy");
        dlrt_dtype dtype = static_cast<dlrt_dtype>(result.dtype);
        std::vector<int64_t> dims(result.dims, result.dims + result.rank);
        size_t bytes = static_cast<size_t>(byteCount(dtype, dims).value_or(0));
        if (Status written = writeNpy(path, dtype, dims, result.data, bytes); !written)
          return written.error();
      }
      printResult(function.results[i], result, path);
    }
  }
  if (!options.save.empty())
    if (Status saved = instance->save(options.save); !saved)
      return saved.error();
  return ExitSuccess;
}

} // namespace dlc::run
