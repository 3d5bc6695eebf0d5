//===- ModelBuilder.h - writes descriptions of models for tests -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// What the compiler's emitter does, in a form that tests can bend: a description is put together
// from plain structures.
//
//===----------------------------------------------------------------------===//
#ifndef DLC_TEST_RUNTIME_MODELBUILDER_H
#define DLC_TEST_RUNTIME_MODELBUILDER_H

#include "dlrt/model_abi.h"

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace dlc::test {

/// A size program.
struct Size {
  std::vector<int64_t> code;
  Size(int64_t constant) : code{DL_SIZE_CONST, constant} {}
  Size(std::vector<int64_t> code) : code(std::move(code)) {}
  static Size dim(int64_t number) { return Size(std::vector<int64_t>{DL_SIZE_DIM, number}); }
  Size apply(dl_size_op op, const Size &other) const {
    std::vector<int64_t> joined = code;
    joined.insert(joined.end(), other.code.begin(), other.code.end());
    joined.push_back(op);
    return joined;
  }
};
inline Size operator+(const Size &a, const Size &b) { return a.apply(DL_SIZE_ADD, b); }
inline Size operator*(const Size &a, const Size &b) { return a.apply(DL_SIZE_MUL, b); }

struct Variable {
  std::string name;
  uint8_t dtype;
  std::vector<int64_t> dims;
  uint8_t kind = DL_VARIABLE_TRAINED;
  std::string doc = {};
};

struct Value {
  std::string name;
  uint8_t dtype;
  std::vector<Size> dims;
  bool hasDefault = false;
  double defaultValue = 0;
};

struct Buffer {
  uint8_t kind;
  uint32_t index;
  Size bytes;
  uint32_t first = 0, last = 0;
};

struct Check {
  Size condition;
  std::string message;
};

/// What a launch of a kernel asks for.
struct Work {
  Size operations, read, written;
  uint8_t dtype = DL_F32;
};

struct Kernel {
  std::string name, location;
  std::vector<Work> work = {}; // one or none
  uint32_t together = 0;
};

/// A launch of a GPU program.
struct Launch {
  std::string name, location;
  uint8_t kind = DL_CUDA_LAUNCH_KERNEL, when = DL_CUDA_ALWAYS;
  uint32_t index = 0;
  std::vector<Size> grid = {1, 1, 1};
  /// A size parameter is the number of its place in `sizes`.
  std::vector<dl_cuda_parameter> parameters = {};
  std::vector<Size> sizes = {};
  uint32_t other = 0;
  std::vector<Work> work = {}; // one or none
};

struct Gemm {
  uint8_t dtype = DL_F32, tf32 = 0, transposeA = 0, transposeB = 0;
  uint32_t epilogue = DL_CUDA_EPILOGUE_NONE;
  Size m, n, k, batch = 1;
  uint32_t a, b, c = DL_CUDA_NO_BUFFER, d;
  Size strideA = 0, strideB = 0, strideC = 0, strideD = 0;
  uint32_t alpha = DL_CUDA_NO_BUFFER, beta = DL_CUDA_NO_BUFFER, bias = DL_CUDA_NO_BUFFER,
           aux = DL_CUDA_NO_BUFFER;
  Size auxLd = 0;
};

struct CudaFunction {
  std::vector<Buffer> buffers;
  std::vector<Launch> launches;
  std::vector<Gemm> gemms;
};

struct CudaImage {
  uint32_t kind, arch;
  std::string data;
};

struct CudaKernel {
  std::string symbol;
  uint32_t threads = 32, sharedBytes = 0;
  std::vector<dl_cuda_resources> resources = {};
};

/// A message that is printed several times, of which some are kept.
struct Kept {
  uint32_t count;
  std::vector<Value> types;
};

struct Function {
  std::string name;
  uint32_t flags = 0;
  std::vector<Value> arguments, results;
  std::vector<Buffer> buffers;
  std::vector<Check> checks;
  std::vector<Kernel> kernels;
  uint32_t launches = 0;
  uint64_t scratchBytes = 0;
  std::string doc = {};
  std::vector<CudaFunction> cuda = {}; // one or none
  /// The words of each message; its values, one fewer, are the last results.
  std::vector<std::vector<std::string>> logs = {};
  /// Of some of them, by number: that it comes several times, as dl_log_line says.
  std::map<size_t, Kept> kept = {};
};

struct Fault {
  std::string message, location;
};

struct Model {
  std::string name = "Model", query = "model_query", features = "sse2", compiler = "test",
              triple = "x86_64-linux-gnu", cpu = "x86-64", doc = "A model for tests.";
  uint32_t abiVersion = DL_ABI_VERSION;
  std::vector<std::string> dims;
  std::vector<Variable> variables;
  std::vector<Function> functions;
  std::vector<Fault> faults;
  /// A constant's bytes lie at its first place; Buffer::index of a constant is its number here, and
  /// becomes its offset.
  std::vector<std::vector<uint8_t>> constants;
  uint32_t flags = 0;
  bool hasCuda = false;
  std::vector<CudaImage> images;
  std::vector<CudaKernel> cudaKernels;

  std::vector<uint8_t> build() const;
};

namespace detail {
class Writer {
public:
  std::vector<uint8_t> bytes = std::vector<uint8_t>(sizeof(dl_blob));

  void align(size_t alignment) {
    bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
  }
  dl_ref text(const std::string &s) {
    if (s.empty())
      return 0;
    dl_ref ref = bytes.size();
    bytes.insert(bytes.end(), s.begin(), s.end());
    bytes.push_back(0);
    return ref;
  }
  template <typename T> dl_ref array(const std::vector<T> &items) {
    if (items.empty())
      return 0;
    align(8);
    dl_ref ref = bytes.size();
    bytes.resize(ref + items.size() * sizeof(T));
    std::memcpy(bytes.data() + ref, items.data(), items.size() * sizeof(T));
    return ref;
  }
  dl_ref size(const Size &s) {
    std::vector<int64_t> words = {static_cast<int64_t>(s.code.size())};
    words.insert(words.end(), s.code.begin(), s.code.end());
    return array(words);
  }
  dl_ref work(const std::vector<Work> &list) {
    if (list.empty())
      return 0;
    const Work &it = list[0];
    return array(std::vector<dl_work_desc>{
        {size(it.operations), size(it.read), size(it.written), it.dtype, {}}});
  }
  dl_ref sizes(const std::vector<Size> &list) {
    std::vector<dl_ref> refs;
    for (const Size &s : list)
      refs.push_back(size(s));
    return array(refs);
  }
  dl_ref values(const std::vector<Value> &list) {
    std::vector<dl_value_desc> descs;
    for (const Value &v : list)
      descs.push_back({text(v.name), v.dtype, static_cast<uint8_t>(v.dims.size()), v.hasDefault, 0,
                       sizes(v.dims), 0, v.defaultValue});
    return array(descs);
  }
};
} // namespace detail

inline std::vector<uint8_t> Model::build() const {
  detail::Writer w;
  std::vector<dl_ref> offsets;
  auto writeBuffers = [&](const std::vector<Buffer> &list) {
    std::vector<dl_buffer_desc> descs;
    for (const Buffer &b : list)
      descs.push_back({b.kind,
                       {},
                       b.kind == DL_BUFFER_CONSTANT ? offsets.at(b.index) : b.index,
                       w.size(b.bytes),
                       b.first,
                       b.last,
                       0});
    return w.array(descs);
  };
  auto writeCuda = [&](const CudaFunction &cuda) {
    dl_cuda_function_desc desc = {};
    desc.buffer_count = cuda.buffers.size();
    desc.buffers = writeBuffers(cuda.buffers);
    std::vector<dl_cuda_gemm_desc> gemms;
    for (const Gemm &g : cuda.gemms)
      gemms.push_back({g.dtype,
                       g.tf32,
                       g.transposeA,
                       g.transposeB,
                       g.epilogue,
                       w.size(g.m),
                       w.size(g.n),
                       w.size(g.k),
                       w.size(g.batch),
                       g.a,
                       g.b,
                       g.c,
                       g.d,
                       w.size(g.strideA),
                       w.size(g.strideB),
                       w.size(g.strideC),
                       w.size(g.strideD),
                       g.alpha,
                       g.beta,
                       g.bias,
                       g.aux,
                       g.aux == DL_CUDA_NO_BUFFER ? 0 : w.size(g.auxLd),
                       0});
    desc.gemm_count = gemms.size();
    desc.gemms = w.array(gemms);
    std::vector<dl_cuda_launch_desc> launches;
    for (const Launch &l : cuda.launches) {
      std::vector<dl_cuda_parameter> parameters = l.parameters;
      for (dl_cuda_parameter &parameter : parameters)
        if (parameter.kind == DL_CUDA_SIZE)
          parameter.value = w.size(l.sizes.at(parameter.value));
      dl_cuda_launch_desc launch = {};
      launch.kind = l.kind;
      launch.when = l.when;
      launch.index = l.index;
      launch.name = w.text(l.name);
      launch.location = w.text(l.location);
      launch.other = l.other;
      bool hasGrid = l.kind == DL_CUDA_LAUNCH_KERNEL || l.kind == DL_CUDA_LAUNCH_FOR;
      for (size_t d = 0; hasGrid && d < l.grid.size(); ++d)
        launch.grid[d] = w.size(l.grid[d]);
      launch.parameter_count = parameters.size();
      launch.parameters = w.array(parameters);
      launch.work = w.work(l.work);
      launches.push_back(launch);
    }
    desc.launch_count = launches.size();
    desc.launches = w.array(launches);
    return w.array(std::vector<dl_cuda_function_desc>{desc});
  };
  dl_blob blob = {};
  std::memcpy(blob.magic, DL_BLOB_MAGIC, sizeof blob.magic);
  blob.abi_version = abiVersion;
  blob.name = w.text(name);
  blob.doc = w.text(doc);
  blob.compiler = w.text(compiler);
  blob.triple = w.text(triple);
  blob.cpu = w.text(cpu);
  blob.features = w.text(features);
  blob.query = w.text(query);
  for (const std::vector<uint8_t> &constant : constants) {
    w.align(DL_BUFFER_ALIGNMENT);
    offsets.push_back(w.bytes.size());
    w.bytes.insert(w.bytes.end(), constant.begin(), constant.end());
  }
  std::vector<dl_ref> names;
  for (const std::string &dim : dims)
    names.push_back(w.text(dim));
  blob.dim_count = names.size();
  blob.dims = w.array(names);
  static const uint8_t sizes[] = {1, 1, 1, 2, 4, 8, 2, 2, 4, 8};
  std::vector<dl_variable_desc> variableDescs;
  for (const Variable &v : variables) {
    uint64_t bytes = sizes[v.dtype];
    for (int64_t dim : v.dims)
      bytes *= dim;
    variableDescs.push_back({w.text(v.name), w.text(v.doc), v.dtype,
                             static_cast<uint8_t>(v.dims.size()), v.kind, 0, w.array(v.dims),
                             bytes});
  }
  blob.variable_count = variableDescs.size();
  blob.variables = w.array(variableDescs);
  std::vector<dl_function_desc> functionDescs;
  for (const Function &f : functions) {
    dl_function_desc desc = {};
    desc.name = w.text(f.name);
    desc.doc = w.text(f.doc);
    desc.flags = f.flags;
    desc.argument_count = f.arguments.size();
    desc.arguments = w.values(f.arguments);
    desc.result_count = f.results.size();
    desc.results = w.values(f.results);
    desc.buffer_count = f.buffers.size();
    desc.buffers = writeBuffers(f.buffers);
    std::vector<dl_check_desc> checks;
    for (const Check &c : f.checks)
      checks.push_back({w.size(c.condition), w.text(c.message)});
    desc.check_count = checks.size();
    desc.checks = w.array(checks);
    std::vector<dl_kernel_desc> kernels;
    for (const Kernel &k : f.kernels)
      kernels.push_back({w.text(k.name), w.text(k.location), w.work(k.work), k.together});
    desc.kernel_count = kernels.size();
    desc.kernels = w.array(kernels);
    desc.launch_count = f.launches;
    desc.scratch_bytes = f.scratchBytes;
    if (!f.cuda.empty())
      desc.cuda = writeCuda(f.cuda[0]);
    if (!f.logs.empty()) {
      dl_log_table table = {};
      std::vector<dl_log_line> lines;
      for (const std::vector<std::string> &words : f.logs) {
        std::vector<dl_ref> refs;
        for (const std::string &word : words)
          refs.push_back(w.text(word));
        dl_log_line line = {static_cast<uint32_t>(words.size() - 1), w.array(refs), 0, 0};
        table.value_count += words.size() - 1;
        if (auto kept = f.kept.find(lines.size()); kept != f.kept.end()) {
          line.kept = kept->second.count;
          line.types = w.values(kept->second.types);
          table.value_count += 2;
        }
        lines.push_back(line);
      }
      table.line_count = lines.size();
      table.lines = w.array(lines);
      desc.logs = w.array(std::vector<dl_log_table>{table});
    }
    functionDescs.push_back(desc);
  }
  blob.function_count = functionDescs.size();
  blob.functions = w.array(functionDescs);
  std::vector<dl_fault_desc> faultDescs;
  for (const Fault &f : faults)
    faultDescs.push_back({w.text(f.message), w.text(f.location)});
  blob.fault_count = faultDescs.size();
  blob.faults = w.array(faultDescs);
  blob.flags = flags;
  if (hasCuda) {
    std::vector<dl_cuda_image> imageDescs;
    for (const CudaImage &image : images) {
      w.align(8);
      dl_ref data = w.bytes.size();
      w.bytes.insert(w.bytes.end(), image.data.begin(), image.data.end());
      imageDescs.push_back(
          {image.kind, image.arch, data, static_cast<uint32_t>(image.data.size())});
    }
    std::vector<dl_cuda_kernel_desc> kernelDescs;
    for (const CudaKernel &kernel : cudaKernels)
      kernelDescs.push_back({w.text(kernel.symbol), kernel.threads, kernel.sharedBytes,
                             static_cast<uint32_t>(kernel.resources.size()),
                             w.array(kernel.resources), 0});
    dl_cuda_desc cuda = {static_cast<uint32_t>(imageDescs.size()), w.array(imageDescs),
                         static_cast<uint32_t>(kernelDescs.size()), w.array(kernelDescs)};
    blob.cuda = w.array(std::vector<dl_cuda_desc>{cuda});
  }
  w.align(8);
  blob.blob_bytes = w.bytes.size();
  std::memcpy(w.bytes.data(), &blob, sizeof blob);
  return w.bytes;
}

} // namespace dlc::test
#endif
