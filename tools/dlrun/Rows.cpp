//===- Rows.cpp - the rows of an array -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Rows.h"

#include <cstring>
#include <numeric>

namespace dlc::run {

Expected<Array> Rows::takeAll(uint64_t limit) {
  std::optional<uint64_t> bytes = byteCount(type, sizes);
  if (!bytes || *bytes > limit)
    return makeError("its elements ", typeText(), " take more than the limit of ", limit, " bytes");
  Array array{type, sizes, Buffer(static_cast<size_t>(*bytes))};
  std::vector<int64_t> all(sizes.empty() ? 1 : static_cast<size_t>(sizes[0]));
  std::iota(all.begin(), all.end(), 0);
  if (Status status = read(all, array.data.data()); !status)
    return status.error();
  return array;
}

namespace {
class MemoryRows : public Rows {
public:
  explicit MemoryRows(Array from) : Rows(from.dtype, from.dims), array(std::move(from)) {}

  const std::byte *elements() const override { return array.data.data(); }

  Status read(std::span<const int64_t> rowNumbers, std::byte *to) override {
    size_t rowBytes = dims().empty() || dims()[0] == 0
                          ? array.data.size()
                          : array.data.size() / static_cast<size_t>(dims()[0]);
    for (int64_t row : rowNumbers) {
      std::memcpy(to, array.data.data() + static_cast<size_t>(row) * rowBytes, rowBytes);
      to += rowBytes;
    }
    return {};
  }

  Expected<Array> takeAll(uint64_t limit) override {
    if (array.data.size() > limit)
      return makeError("its elements take ", array.data.size(), " bytes, more than the limit of ",
                       limit);
    return std::move(array);
  }

private:
  Array array;
};
} // namespace

std::unique_ptr<Rows> rowsOf(Array array) { return std::make_unique<MemoryRows>(std::move(array)); }

} // namespace dlc::run
