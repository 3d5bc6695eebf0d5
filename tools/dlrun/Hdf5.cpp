//===- Hdf5.cpp - datasets in HDF5 files -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Hdf5.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <hdf5.h>
#include <numeric>

namespace dlc::run {

namespace {
/// An object of libhdf5 that is given back.
class Handle {
public:
  Handle() = default;
  Handle(hid_t id, herr_t (*close)(hid_t)) : id(id), close(close) {}
  Handle(Handle &&other) noexcept : id(std::exchange(other.id, -1)), close(other.close) {}
  Handle &operator=(Handle &&other) noexcept {
    std::swap(id, other.id);
    std::swap(close, other.close);
    return *this;
  }
  ~Handle() {
    if (id >= 0)
      close(id);
  }
  explicit operator bool() const { return id >= 0; }
  hid_t get() const { return id; }

private:
  hid_t id = -1;
  herr_t (*close)(hid_t) = nullptr;
};
} // namespace

/// What libhdf5 says about its last failure: the innermost of its messages.
static std::string lastProblem() {
  std::string text;
  auto visit = [](unsigned depth, const H5E_error2_t *error, void *to) -> herr_t {
    if (depth == 0 && error->desc)
      *static_cast<std::string *>(to) = error->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, visit, &text);
  return text.empty() ? "it is damaged" : printable(text);
}

static Expected<Handle> openFile(const std::string &path) {
  // Errors are values here, not text on stderr.
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  if (!file)
    return makeError("not a readable HDF5 file: ", lastProblem());
  return file;
}

static std::vector<std::string> datasetsIn(hid_t file) {
  std::vector<std::string> names;
  auto visit = [](hid_t group, const char *name, const H5L_info_t *info, void *to) -> herr_t {
    // Links to other files are not followed.
    if (info->type != H5L_TYPE_HARD && info->type != H5L_TYPE_SOFT)
      return 0;
    Handle object(H5Oopen(group, name, H5P_DEFAULT), H5Oclose);
    if (object && H5Iget_type(object.get()) == H5I_DATASET)
      static_cast<std::vector<std::string> *>(to)->push_back(name);
    return 0;
  };
  H5Lvisit(file, H5_INDEX_NAME, H5_ITER_INC, visit, &names);
  return names;
}

/// The counterpart of a type whose bits are those of a type of C, but for their order.
static std::optional<dlrt_dtype> elementType(hid_t type) {
  size_t size = H5Tget_size(type);
  H5T_class_t kind = H5Tget_class(type);
  if (kind == H5T_ENUM) {
    // h5py's bool: FALSE = 0 and TRUE = 1 in a byte.
    signed char value = 0;
    if (size == 1 && H5Tget_nmembers(type) == 2 && H5Tenum_valueof(type, "FALSE", &value) >= 0 &&
        value == 0 && H5Tenum_valueof(type, "TRUE", &value) >= 0 && value == 1)
      return DLRT_BOOL;
    return std::nullopt;
  }
  if (kind == H5T_INTEGER) {
    if (H5Tget_precision(type) != 8 * size || H5Tget_offset(type) != 0)
      return std::nullopt;
    if (H5Tget_sign(type) == H5T_SGN_NONE)
      return size == 1 ? std::optional(DLRT_U8) : std::nullopt;
    switch (size) {
    case 1:
      return DLRT_I8;
    case 2:
      return DLRT_I16;
    case 4:
      return DLRT_I32;
    case 8:
      return DLRT_I64;
    }
    return std::nullopt;
  }
  if (kind != H5T_FLOAT)
    return std::nullopt;
  size_t sign = 0, exponent = 0, exponentSize = 0, mantissa = 0, mantissaSize = 0;
  if (H5Tget_fields(type, &sign, &exponent, &exponentSize, &mantissa, &mantissaSize) < 0 ||
      H5Tget_precision(type) != 8 * size || H5Tget_offset(type) != 0 ||
      H5Tget_norm(type) != H5T_NORM_IMPLIED || mantissa != 0 || exponent != mantissaSize ||
      sign != exponent + exponentSize || sign + 1 != 8 * size ||
      H5Tget_ebias(type) != (size_t(1) << (exponentSize - 1)) - 1)
    return std::nullopt;
  if (size == 2 && exponentSize == 5)
    return DLRT_F16;
  if (size == 4 && exponentSize == 8)
    return DLRT_F32;
  if (size == 8 && exponentSize == 11)
    return DLRT_F64;
  return std::nullopt;
}

namespace {
class Hdf5Rows : public Rows {
public:
  Hdf5Rows(dlrt_dtype dtype, std::vector<int64_t> dims, Handle file, Handle dataset, Handle type)
      : Rows(dtype, std::move(dims)), file(std::move(file)), dataset(std::move(dataset)),
        type(std::move(type)) {
    rowBytes = bytesOf(dtype);
    for (size_t i = 1; i < this->dims().size(); ++i)
      rowBytes *= static_cast<size_t>(this->dims()[i]);
  }

  Status read(std::span<const int64_t> rowNumbers, std::byte *to) override;

private:
  Status readRange(int64_t first, int64_t count, std::byte *to);

  Handle file, dataset, type;
  size_t rowBytes;
  Buffer staged;
};
} // namespace

Status Hdf5Rows::read(std::span<const int64_t> rowNumbers, std::byte *to) {
  if (rowBytes == 0)
    return {};
  if (dims().empty())
    return readRange(0, 1, to);
  // In the order of the file, so that no chunk is decompressed twice for one batch; neighbours at
  // once.
  std::vector<size_t> order(rowNumbers.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return rowNumbers[a] < rowNumbers[b]; });
  for (size_t begin = 0; begin < order.size();) {
    int64_t first = rowNumbers[order[begin]], last = first;
    size_t end = begin;
    bool inPlace = true;
    for (; end < order.size() && rowNumbers[order[end]] <= last + 1; ++end) {
      last = rowNumbers[order[end]];
      inPlace = inPlace && order[end] == order[begin] + (end - begin) &&
                last == first + static_cast<int64_t>(end - begin);
    }
    int64_t count = last - first + 1;
    if (inPlace) {
      if (Status status = readRange(first, count, to + order[begin] * rowBytes); !status)
        return status;
    } else {
      size_t bytes = static_cast<size_t>(count) * rowBytes;
      if (staged.size() < bytes)
        staged = Buffer(bytes);
      if (Status status = readRange(first, count, staged.data()); !status)
        return status;
      for (size_t i = begin; i < end; ++i)
        std::memcpy(to + order[i] * rowBytes,
                    staged.data() + static_cast<size_t>(rowNumbers[order[i]] - first) * rowBytes,
                    rowBytes);
    }
    begin = end;
  }
  return {};
}

Status Hdf5Rows::readRange(int64_t first, int64_t count, std::byte *to) {
  std::array<hsize_t, DLRT_MAX_RANK> start{}, sizes{};
  int rank = static_cast<int>(dims().size());
  std::copy(dims().begin(), dims().end(), sizes.begin());
  Handle inFile(H5Dget_space(dataset.get()), H5Sclose), inMemory;
  if (rank > 0) {
    start[0] = static_cast<hsize_t>(first);
    sizes[0] = static_cast<hsize_t>(count);
    inMemory = Handle(H5Screate_simple(rank, sizes.data(), nullptr), H5Sclose);
    if (!inFile || !inMemory ||
        H5Sselect_hyperslab(inFile.get(), H5S_SELECT_SET, start.data(), nullptr, sizes.data(),
                            nullptr) < 0)
      return makeError("rows ", first, " to ", first + count - 1, ": ", lastProblem());
  }
  bool all = rank == 0;
  if (H5Dread(dataset.get(), type.get(), all ? H5S_ALL : inMemory.get(),
              all ? H5S_ALL : inFile.get(), H5P_DEFAULT, to) < 0)
    return makeError("rows ", first, " to ", first + count - 1, ": ", lastProblem());
  if (dtype() == DLRT_BOOL)
    for (size_t i = 0; i < static_cast<size_t>(count) * rowBytes; ++i)
      to[i] = std::byte(to[i] != std::byte(0)); // compiled code relies on 0 and 1
  return {};
}

bool looksLikeHdf5(std::string_view start) {
  return start.starts_with(std::string_view("\x89HDF\r\n\x1a\n", 8));
}

Expected<std::vector<std::string>> hdf5Datasets(const std::string &path) {
  Expected<Handle> file = openFile(path);
  if (!file)
    return file.error();
  return datasetsIn(file->get());
}

/// What is kept of decompressed chunks: all that a row lies in, so that rows next to each other do
/// not decompress them again, and for a small dataset all there are.
static Handle accessWithCache(hid_t file, const char *name) {
  Handle access(H5Pcreate(H5P_DATASET_ACCESS), H5Pclose);
  Handle dataset(H5Dopen2(file, name, H5P_DEFAULT), H5Dclose);
  Handle creation(dataset ? H5Dget_create_plist(dataset.get()) : -1, H5Pclose);
  Handle space(dataset ? H5Dget_space(dataset.get()) : -1, H5Sclose);
  Handle type(dataset ? H5Dget_type(dataset.get()) : -1, H5Tclose);
  std::array<hsize_t, DLRT_MAX_RANK> chunk{}, sizes{};
  int rank = space ? H5Sget_simple_extent_ndims(space.get()) : -1;
  if (!access || !creation || !type || rank < 1 || rank > DLRT_MAX_RANK ||
      H5Pget_layout(creation.get()) != H5D_CHUNKED ||
      H5Pget_chunk(creation.get(), rank, chunk.data()) != rank ||
      H5Sget_simple_extent_dims(space.get(), sizes.data(), nullptr) != rank)
    return access;
  constexpr double least = 64 << 20, most = 1 << 30;
  double bytes = static_cast<double>(H5Tget_size(type.get()));
  for (int i = 0; i < rank; ++i) {
    hsize_t here = std::max<hsize_t>(chunk[static_cast<size_t>(i)], 1);
    hsize_t chunks = i == 0 ? 1 : (sizes[static_cast<size_t>(i)] + here - 1) / here;
    bytes *= static_cast<double>(here) * static_cast<double>(chunks);
  }
  H5Pset_chunk_cache(access.get(), /*slots=*/12421,
                     static_cast<size_t>(std::clamp(bytes, least, most)),
                     H5D_CHUNK_CACHE_W0_DEFAULT);
  return access;
}

Expected<std::unique_ptr<Rows>> openHdf5(const std::string &path, const std::string &name) {
  Expected<Handle> file = openFile(path);
  if (!file)
    return file.error();
  std::vector<std::string> names = datasetsIn(file->get());
  std::string plain = name.substr(std::min(name.find_first_not_of('/'), name.size()));
  if (std::find(names.begin(), names.end(), plain) == names.end())
    return noSuchPart("dataset", name, names);

  Handle access = accessWithCache(file->get(), plain.c_str());
  Handle dataset(H5Dopen2(file->get(), plain.c_str(), access ? access.get() : H5P_DEFAULT),
                 H5Dclose);
  Handle space(dataset ? H5Dget_space(dataset.get()) : -1, H5Sclose);
  Handle type(dataset ? H5Dget_type(dataset.get()) : -1, H5Tclose);
  if (!space || !type)
    return makeError("dataset ", quote(name), ": ", lastProblem());
  std::optional<dlrt_dtype> dtype = elementType(type.get());
  if (!dtype)
    return makeError("dataset ", quote(name),
                     ": its elements are of a type that no model takes; bool, u8, i8 to i64, "
                     "f16, f32 and f64 are read");
  // The same bits in this machine's order.
  Handle native(H5Tcopy(type.get()), H5Tclose);
  if (*dtype != DLRT_BOOL && *dtype != DLRT_U8 && *dtype != DLRT_I8 &&
      H5Tset_order(native.get(), H5T_ORDER_LE) < 0)
    return makeError("dataset ", quote(name), ": ", lastProblem());

  std::vector<int64_t> dims;
  if (H5Sget_simple_extent_type(space.get()) == H5S_NULL)
    return makeError("dataset ", quote(name), ": it is empty");
  int rank = H5Sget_simple_extent_ndims(space.get());
  if (rank < 0 || rank > DLRT_MAX_RANK)
    return makeError("dataset ", quote(name), ": it has ", rank, " dimensions, more than ",
                     DLRT_MAX_RANK);
  std::array<hsize_t, DLRT_MAX_RANK> sizes{};
  H5Sget_simple_extent_dims(space.get(), sizes.data(), nullptr);
  for (int i = 0; i < rank; ++i)
    dims.push_back(static_cast<int64_t>(sizes[static_cast<size_t>(i)]));
  if (!byteCount(*dtype, dims))
    return makeError("dataset ", quote(name), ": its shape ", typeText(*dtype, dims),
                     " has more bytes than there are numbers");
  return std::unique_ptr<Rows>(std::make_unique<Hdf5Rows>(*dtype, std::move(dims), std::move(*file),
                                                          std::move(dataset), std::move(native)));
}

} // namespace dlc::run
