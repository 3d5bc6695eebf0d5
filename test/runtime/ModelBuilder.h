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

struct Kernel {
  std::string name, location;
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
  std::vector<dl_ref> offsets;
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
    std::vector<dl_buffer_desc> buffers;
    for (const Buffer &b : f.buffers)
      buffers.push_back({b.kind,
                         {},
                         b.kind == DL_BUFFER_CONSTANT ? offsets.at(b.index) : b.index,
                         w.size(b.bytes),
                         b.first,
                         b.last,
                         0});
    desc.buffer_count = buffers.size();
    desc.buffers = w.array(buffers);
    std::vector<dl_check_desc> checks;
    for (const Check &c : f.checks)
      checks.push_back({w.size(c.condition), w.text(c.message)});
    desc.check_count = checks.size();
    desc.checks = w.array(checks);
    std::vector<dl_kernel_desc> kernels;
    for (const Kernel &k : f.kernels)
      kernels.push_back({w.text(k.name), w.text(k.location)});
    desc.kernel_count = kernels.size();
    desc.kernels = w.array(kernels);
    desc.launch_count = f.launches;
    desc.scratch_bytes = f.scratchBytes;
    functionDescs.push_back(desc);
  }
  blob.function_count = functionDescs.size();
  blob.functions = w.array(functionDescs);
  std::vector<dl_fault_desc> faultDescs;
  for (const Fault &f : faults)
    faultDescs.push_back({w.text(f.message), w.text(f.location)});
  blob.fault_count = faultDescs.size();
  blob.faults = w.array(faultDescs);
  w.align(8);
  blob.blob_bytes = w.bytes.size();
  std::memcpy(w.bytes.data(), &blob, sizeof blob);
  return w.bytes;
}

} // namespace dlc::test
#endif
