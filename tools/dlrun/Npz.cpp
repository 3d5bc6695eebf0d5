//===- Npz.cpp - NumPy's .npz files -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Npz.h"

#include "Npy.h"

#include <algorithm>
#include <zip.h>

namespace dlc::run {

namespace {

/// An open zip and its members' names.
class Zip {
public:
  static Expected<Zip> open(const std::string &path) {
    int code = 0;
    Zip zip;
    zip.archive.reset(zip_open(path.c_str(), ZIP_RDONLY, &code));
    if (!zip.archive) {
      zip_error_t error;
      zip_error_init_with_code(&error, code);
      Error problem = makeError("not a readable zip file: ", printable(zip_error_strerror(&error)));
      zip_error_fini(&error);
      return problem;
    }
    zip_int64_t count = zip_get_num_entries(zip.archive.get(), 0);
    for (zip_int64_t i = 0; i < count; ++i) {
      const char *name = zip_get_name(zip.archive.get(), static_cast<zip_uint64_t>(i), 0);
      std::string_view text = name ? name : "";
      if (text.ends_with(".npy"))
        text.remove_suffix(4);
      zip.names.emplace_back(text);
    }
    return zip;
  }

  struct Discard {
    void operator()(zip_t *archive) const { zip_discard(archive); }
  };
  std::unique_ptr<zip_t, Discard> archive;
  std::vector<std::string> names;
};

/// A member as a stream, decompressed on the way; libzip checks its CRC-32 at the end.
class MemberReader : public ByteReader {
public:
  static Expected<std::unique_ptr<MemberReader>> open(zip_t *archive, zip_uint64_t index) {
    std::unique_ptr<MemberReader> reader(new MemberReader());
    zip_stat_t status;
    if (zip_stat_index(archive, index, 0, &status) == 0 && (status.valid & ZIP_STAT_SIZE))
      reader->left = status.size;
    reader->file.reset(zip_fopen_index(archive, index, 0));
    if (!reader->file)
      return makeError("cannot be read: ", printable(zip_strerror(archive)));
    return reader;
  }

protected:
  Expected<size_t> readMore(void *to, size_t bytes) override {
    size_t done = 0;
    while (done < bytes) {
      zip_int64_t count = zip_fread(file.get(), static_cast<char *>(to) + done, bytes - done);
      if (count < 0)
        return makeError("the zip file is damaged: ", printable(zip_file_strerror(file.get())));
      if (count == 0)
        break;
      done += static_cast<size_t>(count);
    }
    if (left)
      *left -= std::min<uint64_t>(*left, done);
    return done;
  }
  std::optional<uint64_t> moreAtMost() const override { return left; }

private:
  MemberReader() = default;
  struct Close {
    void operator()(zip_file_t *file) const { zip_fclose(file); }
  };
  std::unique_ptr<zip_file_t, Close> file;
  std::optional<uint64_t> left;
};

} // namespace

bool looksLikeZip(std::string_view start) {
  // The second begins a zip without members.
  return start.starts_with("PK\x03\x04") || start.starts_with("PK\x05\x06");
}

Expected<std::vector<std::string>> npzMembers(const std::string &path) {
  Expected<Zip> zip = Zip::open(path);
  if (!zip)
    return zip.error();
  return std::move(zip->names);
}

Expected<Array> readNpz(const std::string &path, const std::string &member, uint64_t limit) {
  Expected<Zip> zip = Zip::open(path);
  if (!zip)
    return zip.error();
  auto found = std::find(zip->names.begin(), zip->names.end(), member);
  if (found == zip->names.end())
    return noSuchPart("member", member, zip->names);
  Expected<std::unique_ptr<MemberReader>> reader =
      MemberReader::open(zip->archive.get(), static_cast<zip_uint64_t>(found - zip->names.begin()));
  Expected<Array> array = reader ? readNpy(**reader, limit) : reader.error();
  if (!array)
    return makeError("member ", quote(member), ": ", array.error().message);
  return array;
}

} // namespace dlc::run
