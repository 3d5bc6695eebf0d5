//===- Rows.h - the rows of an array -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TOOLS_DLRUN_ROWS_H
#define DLC_TOOLS_DLRUN_ROWS_H

#include "Array.h"

#include <span>

namespace dlc::run {

/// An array whose rows, its entries along the first dimension, are read when they are asked for:
/// what every format of data files is to a training. Errors do not name the file: the caller does.
class Rows {
public:
  virtual ~Rows() = default;

  dlrt_dtype dtype() const { return type; }
  /// The first counts the rows; none: a scalar, which has no rows.
  const std::vector<int64_t> &dims() const { return sizes; }
  std::string typeText() const { return run::typeText(type, sizes); }

  /// The elements of all rows where they are in memory, else NULL. They stay where they are.
  virtual const std::byte *elements() const { return nullptr; }
  /// Writes the elements of these rows one after another. Row numbers are in range, in any order.
  virtual Status read(std::span<const int64_t> rowNumbers, std::byte *to) = 0;
  /// The whole array, which may take so many bytes; nothing is read afterwards.
  virtual Expected<Array> takeAll(uint64_t limit);

protected:
  Rows(dlrt_dtype type, std::vector<int64_t> sizes) : type(type), sizes(std::move(sizes)) {}

private:
  dlrt_dtype type;
  std::vector<int64_t> sizes;
};

/// The rows of an array in memory.
std::unique_ptr<Rows> rowsOf(Array array);

} // namespace dlc::run

#endif
