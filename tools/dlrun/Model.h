//===- Model.h - the runtime's API with owners and Expecteds -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TOOLS_DLRUN_MODEL_H
#define DLC_TOOLS_DLRUN_MODEL_H

#include "Array.h"

#include <span>

namespace dlc::run {

/// An argument or a result of a function.
struct Value {
  std::string name;
  dlrt_dtype dtype;
  std::vector<int64_t> dims; // -1: depends on dynamic dimensions
  std::string shape;         // as text: "[N, 784]", "" for a scalar
  std::optional<double> defaultValue;
  bool hasDefault = false;

  bool isStatic() const;
  /// "f32[N, 784]"
  std::string type() const { return concat(nameOf(dtype), shape); }
};

/// A launch of the program for a GPU.
struct Launch {
  std::string name, location;
  std::optional<uint32_t> kernel; // number of the GPU kernel; none: a product of cuBLASLt
  uint32_t when = 0;              // 0 always, 1 where cuBLASLt is used, 2 where it is not
  uint32_t inner = 0;             // of a loop or branch: launches that are inside, and follow
};

struct GpuKernel {
  std::string symbol;
  uint32_t threads = 0, sharedBytes = 0;
  std::vector<dlrt_kernel_resources> resources;
};

struct Function {
  uint32_t index = 0;
  std::string name, doc;
  bool isConst = false, isTrain = false;
  std::vector<Value> arguments, results;
  std::vector<std::string> kernels; // of the CPU code: "name (file:line)"
  std::vector<Launch> launches;

  const Value *findArgument(std::string_view argumentName) const;
  /// "x, label and lr"
  std::string argumentNames() const;
  /// "step(x: f32[N, 784], label: i32[N]) -> f32"
  std::string signature() const;
};

struct Variable {
  std::string name, doc;
  dlrt_dtype dtype;
  uint32_t kind = 0;
  std::vector<int64_t> dims;
  uint64_t bytes = 0;
};

/// Success, or the runtime's words.
Status toStatus(dlrt_status status);

class Model {
public:
  enum class Access { Run, Inspect };
  static Expected<Model> open(const std::string &path, Access access);
  Model(Model &&other) noexcept;
  Model(const Model &) = delete;
  Model &operator=(const Model &) = delete;
  ~Model() { dlrt_model_release(handle); }

  dlrt_model *get() const { return handle; }
  const dlrt_model_info &info() const { return about; }
  const std::vector<std::string> &dims() const { return dimNames; }
  const std::vector<Function> &functions() const { return functionList; }
  const std::vector<Variable> &variables() const { return variableList; }
  const std::vector<dlrt_image_info> &images() const { return imageList; }
  const std::vector<GpuKernel> &gpuKernels() const { return gpuKernelList; }
  bool hasGpuProgram() const { return !imageList.empty() || !gpuKernelList.empty(); }
  /// The function of this name; the error lists those that there are.
  Expected<const Function *> function(const std::string &name) const;

private:
  Model() = default;
  Status readDescription();
  Status readGpuProgram();

  dlrt_model *handle = nullptr;
  dlrt_model_info about{};
  std::vector<std::string> dimNames;
  std::vector<Function> functionList;
  std::vector<Variable> variableList;
  std::vector<dlrt_image_info> imageList;
  std::vector<GpuKernel> gpuKernelList;
};

class Instance {
public:
  /// `device` is "cpu", "cuda", "cuda:K", "auto" or empty, which is auto.
  static Expected<Instance> create(const Model &model, uint64_t seed, uint32_t threads,
                                   const std::string &device);
  Instance(Instance &&other) noexcept : handle(std::exchange(other.handle, nullptr)) {}
  Instance(const Instance &) = delete;
  Instance &operator=(const Instance &) = delete;
  ~Instance() { dlrt_instance_release(handle); }

  dlrt_instance *get() const { return handle; }
  /// What it runs on, and why.
  std::string device() const { return dlrt_instance_device(handle); }
  /// Whether a call that was submitted runs while its caller does something else. On the processor
  /// submitting runs it.
  bool runsApart() const { return device().starts_with("cuda"); }
  /// Waits for calls that returned before they were done.
  Status synchronize() { return toStatus(dlrt_instance_synchronize(handle)); }
  Status load(const std::string &path) {
    return toStatus(dlrt_instance_load(handle, path.c_str()));
  }
  Status save(const std::string &path) const {
    return toStatus(dlrt_instance_save(handle, path.c_str()));
  }

private:
  explicit Instance(dlrt_instance *handle) : handle(handle) {}
  dlrt_instance *handle;
};

/// The arguments of one call of a function and memory for its results, made once and used many
/// times.
class CallFrame {
public:
  CallFrame(const Model &model, const Function &function)
      : model(&model), function(&function), arguments(function.arguments.size(), dlrt_tensor{}),
        results(function.results.size(), dlrt_tensor{}), resultData(function.results.size()) {}

  /// Points an argument at an array that outlives the calls. Arguments that are not set take their
  /// defaults.
  void setArgument(size_t index, const void *data, dlrt_dtype dtype,
                   const std::vector<int64_t> &dims);
  /// Asks for the shapes of the results, which checks the arguments as well, and makes room for
  /// them.
  Status prepareResults();
  Status call(Instance &instance);

  /// A call in two halves. The arguments are taken over: their arrays may change as soon as there
  /// is a ticket. Of the results only the first is asked for, and only if it is a number.
  Expected<uint64_t> submit(Instance &instance);
  /// Waits for the call; the number, NaN where the function answers with none.
  Expected<double> collect(Instance &instance, uint64_t ticket);
  /// Whether the first result is a number.
  bool answersNumber() const {
    return !function->results.empty() && function->results[0].dims.empty();
  }

  const dlrt_tensor &result(size_t index) const { return results[index]; }
  /// What one launch of a kernel asks for with these arguments.
  Expected<dlrt_kernel_work> kernelWork(const Instance &instance, uint32_t kernel) const;
  /// A result of rank 0 as a number.
  double scalarResult(size_t index) const;

private:
  const Model *model;
  const Function *function;
  std::vector<dlrt_tensor> arguments, results;
  std::vector<Buffer> resultData;
};

/// The first element of an array of any type, f16 and bf16 included.
double firstElement(const void *data, dlrt_dtype dtype);

} // namespace dlc::run

#endif
