//===- File.h - bytes in and out of files -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TOOLS_DLRUN_FILE_H
#define DLC_TOOLS_DLRUN_FILE_H

#include "Array.h"

#include <span>

namespace dlc::run {

/// A stream of bytes of which a few can be looked at in advance.
class ByteReader {
public:
  virtual ~ByteReader() = default;

  /// Reads `bytes` bytes, or fewer where the data end. Errors do not name the source: the caller
  /// does.
  Expected<size_t> read(void *to, size_t bytes);
  /// The next bytes, which stay to be read: fewer than asked for where the data end.
  Expected<std::string_view> peek(size_t bytes);
  /// At most so many bytes are still to come, as far as that can be known.
  std::optional<uint64_t> remainingAtMost() const;

protected:
  virtual Expected<size_t> readMore(void *to, size_t bytes) = 0;
  virtual std::optional<uint64_t> moreAtMost() const = 0;

private:
  std::string ahead;
};

class MemoryReader : public ByteReader {
public:
  explicit MemoryReader(std::string_view bytes) : bytes(bytes) {}

protected:
  Expected<size_t> readMore(void *to, size_t count) override;
  std::optional<uint64_t> moreAtMost() const override { return bytes.size(); }

private:
  std::string_view bytes;
};

/// A file, decompressed on the way where it is a gzip file.
class FileReader : public ByteReader {
public:
  static Expected<std::unique_ptr<FileReader>> open(const std::string &path);
  ~FileReader() override;

protected:
  Expected<size_t> readMore(void *to, size_t bytes) override;
  std::optional<uint64_t> moreAtMost() const override;

private:
  FileReader() = default;
  void *gz = nullptr;
  std::optional<uint64_t> fileBytes; // of a regular file
  uint64_t produced = 0;
};

/// Reads exactly `bytes` bytes of elements and checks that nothing follows. Memory grows with what
/// is really there, so a header that promises too much costs nothing. `limit`: more is refused.
Expected<Buffer> readElements(ByteReader &reader, uint64_t bytes, uint64_t limit);

/// The whole of a file, plain; more than `limit` bytes are an error.
Expected<std::string> readWholeFile(const std::string &path, uint64_t limit);

/// Durable: survives a power failure, which takes the disk some milliseconds.
enum class Durability { Fast, Durable };
/// Writes a temporary file beside `path` and renames it: whoever looks at `path` sees the old file
/// or the new one, whole.
Status writeFileAtomically(const std::string &path, std::span<const std::string_view> parts,
                           Durability durability);
/// Renames and syncs the folder, so that the new name survives a power failure.
Status renameDurably(const std::string &from, const std::string &to);
Status createFolders(const std::string &path);

/// Size and CRC-32 of a file's content.
struct Fingerprint {
  uint64_t bytes = 0;
  uint32_t crc32 = 0;
  bool operator==(const Fingerprint &) const = default;
};
/// Nothing where there is no such file.
Expected<std::optional<Fingerprint>> fingerprintOf(const std::string &path);

/// "No such file or directory" and its kind.
std::string errnoText(int number);

/// The machine's memory: what a data file may take at most.
uint64_t physicalMemory();

} // namespace dlc::run

#endif
