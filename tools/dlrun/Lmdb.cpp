//===- Lmdb.cpp - Caffe's data bases of images -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Lmdb.h"

#include "Datum.pb.h"
#include "File.h"

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace dlc::run {

static_assert(std::endian::native == std::endian::little, "pages are read as they are");

//===----------------------------------------------------------------------===//
// Pages
//===----------------------------------------------------------------------===//

// The layout of LMDB's data version 1 on machines of 64 bits. A page begins with a header of 16
// bytes: its number (8), unused (2), flags (2), and the ends of the free space in it (2 and 2);
// then come the places of its nodes (2 each). A node has 8 bytes, its key, and a value: in a branch
// the first 6 are the number of a page; in a leaf 4 are the value's size, 2 are flags, of which one
// says that the value lies in pages of its own and their number stands in its place.
static constexpr size_t headerBytes = 16, nodeBytes = 8;
static constexpr uint16_t branchPage = 0x01, leafPage = 0x02, pageKinds = 0x63;
static constexpr uint16_t valueApart = 0x01;
static constexpr uint32_t metaMagic = 0xBEEFC0DE;

template <typename T> static T valueAt(std::string_view bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

namespace {

/// Where a value lies in the file.
struct Place {
  uint64_t offset;
  uint32_t bytes;
};

class DataBase {
public:
  /// Finds the places of all values, in the order of their keys.
  static Expected<DataBase> open(const std::string &path);
  DataBase(DataBase &&other) noexcept
      : descriptor(std::exchange(other.descriptor, -1)), fileBytes(other.fileBytes),
        pageBytes(other.pageBytes), places(std::move(other.places)) {}
  DataBase &operator=(DataBase &&) = delete;
  ~DataBase() {
    if (descriptor >= 0)
      close(descriptor);
  }

  int64_t rows() const { return static_cast<int64_t>(places.size()); }
  Status readValue(int64_t row, std::string &to) const {
    const Place &place = places[static_cast<size_t>(row)];
    to.resize(place.bytes);
    return readBytes(place.offset, to.data(), to.size());
  }

private:
  struct Meta {
    uint64_t pageBytes, entries, root, transaction;
    uint16_t depth;
  };
  DataBase() = default;
  Status readBytes(uint64_t offset, char *to, size_t bytes) const;
  Expected<Meta> readMeta(uint64_t offset) const;
  Status findValues(const Meta &meta);
  Status findInPage(uint64_t number, unsigned depth, uint64_t &pagesLeft);

  int descriptor = -1;
  uint64_t fileBytes = 0, pageBytes = 0;
  std::vector<Place> places;
};

} // namespace

Status DataBase::readBytes(uint64_t offset, char *to, size_t bytes) const {
  while (bytes > 0) {
    ssize_t count = pread(descriptor, to, bytes, static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return makeError(errnoText(errno));
    if (count == 0)
      return makeError("truncated: it ends at byte ", offset);
    to += count;
    offset += static_cast<uint64_t>(count);
    bytes -= static_cast<size_t>(count);
  }
  return {};
}

Expected<DataBase::Meta> DataBase::readMeta(uint64_t offset) const {
  // Behind the header: magic (4), version (4), address (8), size of the map (8), twice 48 bytes of
  // a tree (the first one's begin with the size of pages), the last page (8), the transaction (8).
  std::array<char, headerBytes + 136> page;
  if (Status status = readBytes(offset, page.data(), page.size()); !status)
    return status.error();
  std::string_view meta(page.data() + headerBytes, page.size() - headerBytes);
  if (valueAt<uint32_t>(meta, 0) != metaMagic)
    return makeError("not an LMDB data base");
  if (uint32_t version = valueAt<uint32_t>(meta, 4); version != 1)
    return makeError("version ", version, " of LMDB's format; 1 is read");
  constexpr size_t mainTree = 24 + 48;
  return Meta{valueAt<uint32_t>(meta, 24), valueAt<uint64_t>(meta, mainTree + 32),
              valueAt<uint64_t>(meta, mainTree + 40), valueAt<uint64_t>(meta, 128),
              valueAt<uint16_t>(meta, mainTree + 6)};
}

Expected<DataBase> DataBase::open(const std::string &path) {
  DataBase base;
  struct stat status;
  std::string file = path;
  if (::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode))
    file += "/data.mdb";
  base.descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (base.descriptor < 0 || fstat(base.descriptor, &status) != 0)
    return makeError(errnoText(errno));
  base.fileBytes = static_cast<uint64_t>(status.st_size);

  Expected<Meta> first = base.readMeta(0);
  if (!first)
    return first.error();
  base.pageBytes = first->pageBytes;
  if (base.pageBytes < 256 || base.pageBytes > 65536 || !std::has_single_bit(base.pageBytes))
    return makeError("damaged: pages of ", base.pageBytes, " bytes");
  // Transactions write the two first pages in turn; the newer one counts.
  Expected<Meta> second = base.readMeta(base.pageBytes);
  if (!second)
    return second.error();
  if (Status found = base.findValues(second->transaction > first->transaction ? *second : *first);
      !found)
    return found.error();
  return base;
}

Status DataBase::findValues(const Meta &meta) {
  if (meta.entries == 0)
    return makeError("it has no records");
  // A tree has no page twice, which a damaged one may have.
  uint64_t pagesLeft = fileBytes / pageBytes;
  if (Status status = findInPage(meta.root, 0, pagesLeft); !status)
    return status;
  if (places.size() != meta.entries)
    return makeError("damaged: it has ", places.size(), " records in place of ", meta.entries);
  return {};
}

Status DataBase::findInPage(uint64_t number, unsigned depth, uint64_t &pagesLeft) {
  auto damaged = [&](std::string_view what) {
    return makeError("damaged: page ", number, ' ', what);
  };
  if (number >= fileBytes / pageBytes)
    return makeError("truncated or damaged: page ", number, " is not in the file, which has ",
                     fileBytes / pageBytes);
  if (depth > 32 || pagesLeft-- == 0)
    return damaged("is a part of itself");
  std::string bytes(pageBytes, '\0');
  if (Status status = readBytes(number * pageBytes, bytes.data(), bytes.size()); !status)
    return status;
  std::string_view page = bytes;
  uint16_t kind = valueAt<uint16_t>(page, 10) & pageKinds;
  if (kind != branchPage && kind != leafPage)
    return damaged("is neither a branch nor a leaf");
  size_t lower = valueAt<uint16_t>(page, 12);
  if (lower < headerBytes || lower > pageBytes)
    return damaged("has nodes outside of it");
  for (size_t i = 0; i < (lower - headerBytes) / 2; ++i) {
    size_t node = valueAt<uint16_t>(page, headerBytes + 2 * i);
    if (node < lower || node + nodeBytes > pageBytes)
      return damaged("has nodes outside of it");
    uint64_t low = valueAt<uint32_t>(page, node);
    uint16_t flags = valueAt<uint16_t>(page, node + 4);
    if (kind == branchPage) {
      if (Status status = findInPage(low | uint64_t(flags) << 32, depth + 1, pagesLeft); !status)
        return status;
      continue;
    }
    if (flags & ~valueApart)
      return makeError("it holds named data bases or several values of a key, not records");
    size_t value = node + nodeBytes + valueAt<uint16_t>(page, node + 6);
    if (value + (flags ? 8 : low) > pageBytes)
      return damaged("has values outside of it");
    uint64_t offset = number * pageBytes + value;
    if (flags) {
      uint64_t apart = valueAt<uint64_t>(page, value);
      if (apart >= fileBytes / pageBytes || apart * pageBytes + headerBytes + low > fileBytes)
        return makeError("truncated or damaged: record ", places.size(), " lies at page ", apart,
                         ", the file has ", fileBytes / pageBytes);
      offset = apart * pageBytes + headerBytes;
    }
    places.push_back({offset, static_cast<uint32_t>(low)});
  }
  return {};
}

//===----------------------------------------------------------------------===//
// Records
//===----------------------------------------------------------------------===//

namespace {

class LmdbRows : public Rows {
public:
  LmdbRows(dlrt_dtype dtype, std::vector<int64_t> dims, DataBase base)
      : Rows(dtype, std::move(dims)), base(std::move(base)) {}

  Status read(std::span<const int64_t> rowNumbers, std::byte *to) override;

  /// Replaces `datum` by the record of a row.
  static Status readDatum(const DataBase &base, int64_t row, std::string &bytes,
                          proto::Datum &datum);
  /// [channels, height, width]
  static std::array<int64_t, 3> shapeOf(const proto::Datum &datum) {
    return {datum.channels(), datum.height(), datum.width()};
  }

private:
  DataBase base;
  std::string bytes;
  proto::Datum datum;
};

} // namespace

Status LmdbRows::readDatum(const DataBase &base, int64_t row, std::string &bytes,
                           proto::Datum &datum) {
  if (Status status = base.readValue(row, bytes); !status)
    return makeError("record ", row, ": ", status.error().message);
  if (!datum.ParseFromString(bytes))
    return makeError("record ", row, " is not a Datum of Caffe's");
  return {};
}

Status LmdbRows::read(std::span<const int64_t> rowNumbers, std::byte *to) {
  for (int64_t row : rowNumbers) {
    if (Status status = readDatum(base, row, bytes, datum); !status)
      return status;
    auto bad = [&](const auto &...what) { return makeError("record ", row, ' ', what...); };
    if (dims().size() == 1) {
      if (!datum.has_label())
        return bad("has no label");
      int32_t label = datum.label();
      std::memcpy(to, &label, sizeof(label));
      to += sizeof(label);
      continue;
    }
    if (datum.encoded())
      return bad("is an encoded image (JPEG or PNG), which is not decoded here; make "
                 "the data base without --encoded");
    std::array<int64_t, 3> shape = shapeOf(datum);
    if (!std::equal(shape.begin(), shape.end(), dims().begin() + 1))
      return bad("is ", run::typeText(dtype(), {shape.begin(), shape.end()}), ", record 0 is ",
                 run::typeText(dtype(), {dims().begin() + 1, dims().end()}));
    size_t elements = static_cast<size_t>(dims()[1] * dims()[2] * dims()[3]);
    bool isFloat = dtype() == DLRT_F32;
    size_t here = isFloat ? static_cast<size_t>(datum.float_data_size()) : datum.data().size();
    if (here != elements)
      return bad("has ", here, isFloat ? " floats" : " bytes", ", its shape ", elements);
    size_t size = elements * bytesOf(dtype());
    std::memcpy(to,
                isFloat ? static_cast<const void *>(datum.float_data().data())
                        : static_cast<const void *>(datum.data().data()),
                size);
    to += size;
  }
  return {};
}

bool looksLikeLmdb(std::string_view start) {
  return start.size() >= headerBytes + 4 && valueAt<uint32_t>(start, headerBytes) == metaMagic;
}

std::vector<std::string> lmdbParts() { return {"data", "label"}; }

Expected<std::unique_ptr<Rows>> openLmdb(const std::string &path, const std::string &part) {
  if (part != "data" && part != "label")
    return noSuchPart("part", part, lmdbParts());
  Expected<DataBase> base = DataBase::open(path);
  if (!base)
    return base.error();
  std::string bytes;
  proto::Datum first;
  if (Status status = LmdbRows::readDatum(*base, 0, bytes, first); !status)
    return status.error();
  std::vector<int64_t> dims = {base->rows()};
  dlrt_dtype dtype = DLRT_I32;
  if (part == "data") {
    dtype = first.data().empty() && first.float_data_size() > 0 ? DLRT_F32 : DLRT_U8;
    std::array<int64_t, 3> shape = LmdbRows::shapeOf(first);
    dims.insert(dims.end(), shape.begin(), shape.end());
    if (!byteCount(dtype, dims))
      return makeError("record 0 has the shape ", typeText(dtype, {shape.begin(), shape.end()}),
                       ", which no record has");
  }
  std::unique_ptr<Rows> rows = std::make_unique<LmdbRows>(dtype, std::move(dims), std::move(*base));
  // What is wrong with all records shows before the training.
  if (std::optional<uint64_t> size =
          byteCount(dtype, {rows->dims().begin() + 1, rows->dims().end()});
      *size <= bytes.size() * 2 + 4) {
    Buffer row(static_cast<size_t>(*size));
    int64_t zero = 0;
    if (Status status = rows->read({&zero, 1}, row.data()); !status)
      return status.error();
  }
  return rows;
}

} // namespace dlc::run
