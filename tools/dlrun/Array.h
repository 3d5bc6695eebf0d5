//===- Array.h - a dense array in memory, as files hold it -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TOOLS_DLRUN_ARRAY_H
#define DLC_TOOLS_DLRUN_ARRAY_H

#include "Support.h"

#include "dlrt/dlrt.h"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace dlc::run {

/// Uninitialised bytes at a multiple of 64, which vector loads like best.
class Buffer {
public:
  Buffer() = default;
  /// Throws std::bad_alloc.
  explicit Buffer(size_t bytes) {
    if (!allocate(bytes))
      throw std::bad_alloc();
  }

  /// Replaces the bytes; false, and none are left, where there is no memory for them.
  bool allocate(size_t bytes) {
    // aligned_alloc wants a multiple of the alignment; an empty buffer has an address of its own as
    // well, since NULL means "left out" to the runtime.
    size_t rounded = (bytes + 63) / 64 * 64;
    memory.reset();
    if (rounded >= bytes)
      memory.reset(static_cast<std::byte *>(std::aligned_alloc(64, rounded ? rounded : 64)));
    byteCount = memory ? bytes : 0;
    return memory != nullptr;
  }

  /// Leaves the first bytes; the memory of the others is kept.
  void truncate(size_t bytes) { byteCount = std::min(byteCount, bytes); }

  std::byte *data() { return memory.get(); }
  const std::byte *data() const { return memory.get(); }
  size_t size() const { return byteCount; }

private:
  struct Free {
    void operator()(std::byte *pointer) const { std::free(pointer); }
  };
  std::unique_ptr<std::byte, Free> memory;
  size_t byteCount = 0;
};

/// A row-major array.
struct Array {
  dlrt_dtype dtype = DLRT_F32;
  std::vector<int64_t> dims;
  Buffer data;
};

// The file readers stand alone, so that a fuzzer links nothing else; hence no call of
// dlrt_dtype_bytes and _name.
constexpr size_t bytesOf(dlrt_dtype dtype) {
  switch (dtype) {
  case DLRT_BOOL:
  case DLRT_U8:
  case DLRT_I8:
    return 1;
  case DLRT_I16:
  case DLRT_F16:
  case DLRT_BF16:
    return 2;
  case DLRT_I32:
  case DLRT_F32:
    return 4;
  case DLRT_I64:
  case DLRT_F64:
    return 8;
  }
  return 0;
}

constexpr const char *nameOf(dlrt_dtype dtype) {
  switch (dtype) {
  case DLRT_BOOL:
    return "bool";
  case DLRT_U8:
    return "u8";
  case DLRT_I8:
    return "i8";
  case DLRT_I16:
    return "i16";
  case DLRT_I32:
    return "i32";
  case DLRT_I64:
    return "i64";
  case DLRT_F16:
    return "f16";
  case DLRT_BF16:
    return "bf16";
  case DLRT_F32:
    return "f32";
  case DLRT_F64:
    return "f64";
  }
  return "unknown";
}

constexpr bool isFloat(dlrt_dtype dtype) {
  return dtype == DLRT_F16 || dtype == DLRT_BF16 || dtype == DLRT_F32 || dtype == DLRT_F64;
}

/// Number of elements, or nothing where a dimension is negative or the product does not fit.
inline std::optional<uint64_t> elementCount(const std::vector<int64_t> &dims) {
  uint64_t count = 1;
  bool empty = false;
  for (int64_t dim : dims) {
    if (dim < 0)
      return std::nullopt;
    if (dim == 0) {
      empty = true;
      continue;
    }
    std::optional<uint64_t> product = multiply(count, static_cast<uint64_t>(dim));
    if (!product)
      return std::nullopt;
    count = *product;
  }
  return empty ? 0 : count;
}

/// Bytes of an array, or nothing where they do not fit.
inline std::optional<uint64_t> byteCount(dlrt_dtype dtype, const std::vector<int64_t> &dims) {
  std::optional<uint64_t> count = elementCount(dims);
  if (!count)
    return std::nullopt;
  return multiply(*count, bytesOf(dtype));
}

/// "f32[64, 1000]"; "f32" for a scalar.
inline std::string typeText(dlrt_dtype dtype, const std::vector<int64_t> &dims) {
  std::string text = nameOf(dtype);
  if (dims.empty())
    return text;
  text += '[';
  for (size_t i = 0; i < dims.size(); ++i) {
    if (i > 0)
      text += ", ";
    append(text, dims[i]);
  }
  return text + ']';
}

inline std::string typeText(const Array &array) { return typeText(array.dtype, array.dims); }

/// Calls `body` with a value of the C++ type of a dtype; false for types without arithmetic.
template <typename Body> bool withType(dlrt_dtype dtype, Body body) {
  switch (dtype) {
  case DLRT_BOOL:
  case DLRT_U8:
    body(uint8_t());
    return true;
  case DLRT_I8:
    body(int8_t());
    return true;
  case DLRT_I16:
    body(int16_t());
    return true;
  case DLRT_I32:
    body(int32_t());
    return true;
  case DLRT_I64:
    body(int64_t());
    return true;
  case DLRT_F32:
    body(float());
    return true;
  case DLRT_F64:
    body(double());
    return true;
  case DLRT_F16:
  case DLRT_BF16:
    return false;
  }
  return false;
}

} // namespace dlc::run

#endif
