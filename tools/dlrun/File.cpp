//===- File.cpp - bytes in and out of files -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "File.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

namespace dlc::run {

std::string errnoText(int number) { return std::generic_category().message(number); }

uint64_t physicalMemory() {
  long pages = sysconf(_SC_PHYS_PAGES), pageBytes = sysconf(_SC_PAGESIZE);
  if (pages <= 0 || pageBytes <= 0)
    return UINT64_C(1) << 40;
  return static_cast<uint64_t>(pages) * static_cast<uint64_t>(pageBytes);
}

//===----------------------------------------------------------------------===//
// Reading
//===----------------------------------------------------------------------===//

Expected<size_t> ByteReader::read(void *to, size_t bytes) {
  size_t fromAhead = std::min(bytes, ahead.size());
  std::memcpy(to, ahead.data(), fromAhead);
  ahead.erase(0, fromAhead);
  if (fromAhead == bytes)
    return bytes;
  Expected<size_t> more = readMore(static_cast<char *>(to) + fromAhead, bytes - fromAhead);
  if (!more)
    return more.error();
  return fromAhead + *more;
}

Expected<std::string_view> ByteReader::peek(size_t bytes) {
  if (ahead.size() < bytes) {
    size_t had = ahead.size();
    ahead.resize(bytes);
    Expected<size_t> more = readMore(ahead.data() + had, bytes - had);
    ahead.resize(had + (more ? *more : 0));
    if (!more)
      return more.error();
  }
  return std::string_view(ahead).substr(0, bytes);
}

std::optional<uint64_t> ByteReader::remainingAtMost() const {
  std::optional<uint64_t> more = moreAtMost();
  if (!more)
    return std::nullopt;
  return *more + ahead.size();
}

Expected<size_t> MemoryReader::readMore(void *to, size_t count) {
  count = std::min(count, bytes.size());
  std::memcpy(to, bytes.data(), count);
  bytes.remove_prefix(count);
  return count;
}

Expected<std::unique_ptr<FileReader>> FileReader::open(const std::string &path) {
  int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0)
    return makeError(errnoText(errno));
  struct stat status;
  if (fstat(descriptor, &status) != 0 || S_ISDIR(status.st_mode)) {
    int number = S_ISDIR(status.st_mode) ? EISDIR : errno;
    close(descriptor);
    return makeError(errnoText(number));
  }
  std::unique_ptr<FileReader> reader(new FileReader());
  if (S_ISREG(status.st_mode))
    reader->fileBytes = static_cast<uint64_t>(status.st_size);
  reader->gz = gzdopen(descriptor, "rb");
  if (!reader->gz) {
    close(descriptor);
    throw std::bad_alloc();
  }
  gzbuffer(static_cast<gzFile>(reader->gz), 256 * 1024);
  return reader;
}

FileReader::~FileReader() {
  if (gz)
    gzclose(static_cast<gzFile>(gz));
}

Expected<size_t> FileReader::readMore(void *to, size_t bytes) {
  gzFile file = static_cast<gzFile>(gz);
  size_t done = 0;
  while (done < bytes) {
    unsigned chunk = static_cast<unsigned>(std::min<size_t>(bytes - done, 1u << 30));
    int count = gzread(file, static_cast<char *>(to) + done, chunk);
    if (count > 0) {
      done += static_cast<size_t>(count);
      produced += static_cast<uint64_t>(count);
    }
    if (count == static_cast<int>(chunk))
      continue;
    int code = Z_OK;
    int number = errno;
    const char *text = gzerror(file, &code);
    if (code == Z_ERRNO)
      return makeError(errnoText(number));
    if (code == Z_MEM_ERROR)
      throw std::bad_alloc();
    if (code == Z_BUF_ERROR)
      return makeError("the gzip file is truncated");
    if (code != Z_OK && code != Z_STREAM_END)
      return makeError("the gzip file is damaged: ", printable(text));
    break;
  }
  return done;
}

std::optional<uint64_t> FileReader::moreAtMost() const {
  if (!fileBytes)
    return std::nullopt;
  // Deflate turns one byte into 1032 at most.
  bool plain = gzdirect(static_cast<gzFile>(gz)) != 0;
  uint64_t most = plain ? *fileBytes : *fileBytes * 1032;
  return most > produced ? most - produced : 0;
}

Expected<Buffer> readElements(ByteReader &reader, uint64_t bytes, uint64_t limit) {
  std::optional<uint64_t> available = reader.remainingAtMost();
  if (available && *available < bytes)
    return makeError("truncated: the header promises ", bytes, " bytes of elements, the file has ",
                     *available);
  if (bytes > limit)
    return makeError("its elements take ", bytes, " bytes, more than the limit of ", limit);

  constexpr uint64_t firstStep = UINT64_C(64) << 20;
  Buffer buffer(static_cast<size_t>(std::min(bytes, firstStep)));
  uint64_t done = 0;
  for (;;) {
    Expected<size_t> count = reader.read(buffer.data() + done, buffer.size() - done);
    if (!count)
      return count.error();
    done += *count;
    if (done < buffer.size())
      return makeError("truncated: the header promises ", bytes,
                       " bytes of elements, the file has ", done);
    if (done == bytes)
      break;
    Buffer larger(static_cast<size_t>(std::min(bytes, done * 2)));
    std::memcpy(larger.data(), buffer.data(), done);
    buffer = std::move(larger);
  }

  // Reading on to the end also makes zlib check the sum of a gzip file.
  char extra;
  Expected<size_t> count = reader.read(&extra, 1);
  if (!count)
    return count.error();
  if (*count != 0)
    return makeError("more data follow the ", bytes, " bytes of elements that the header promises");
  return buffer;
}

namespace {
/// An open file that closes itself.
struct Descriptor {
  int number;
  explicit Descriptor(int number) : number(number) {}
  Descriptor(const Descriptor &) = delete;
  Descriptor &operator=(const Descriptor &) = delete;
  ~Descriptor() {
    if (number >= 0)
      close(number);
  }
};
} // namespace

/// read(2) that goes on after a signal and fills the whole buffer if the file lasts.
static ssize_t readFully(int descriptor, void *to, size_t bytes) {
  size_t done = 0;
  while (done < bytes) {
    ssize_t count = ::read(descriptor, static_cast<char *>(to) + done, bytes - done);
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return -1;
    if (count == 0)
      break;
    done += static_cast<size_t>(count);
  }
  return static_cast<ssize_t>(done);
}

Expected<std::string> readWholeFile(const std::string &path, uint64_t limit) {
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.number < 0)
    return makeError(quote(path), ": ", errnoText(errno));
  std::string text;
  for (;;) {
    constexpr size_t step = 1 << 16;
    size_t had = text.size();
    text.resize(had + step);
    ssize_t count = readFully(file.number, text.data() + had, step);
    if (count < 0)
      return makeError(quote(path), ": ", errnoText(errno));
    text.resize(had + static_cast<size_t>(count));
    if (text.size() > limit)
      return makeError(quote(path), ": larger than the limit of ", limit, " bytes");
    if (static_cast<size_t>(count) < step)
      return text;
  }
}

Expected<std::optional<Fingerprint>> fingerprintOf(const std::string &path) {
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.number < 0) {
    if (errno == ENOENT)
      return std::optional<Fingerprint>();
    return makeError(quote(path), ": ", errnoText(errno));
  }
  Fingerprint print;
  Buffer buffer(1 << 20);
  uLong sum = ::crc32(0, nullptr, 0);
  for (;;) {
    ssize_t count = readFully(file.number, buffer.data(), buffer.size());
    if (count < 0)
      return makeError(quote(path), ": ", errnoText(errno));
    sum = ::crc32(sum, reinterpret_cast<const Bytef *>(buffer.data()), static_cast<uInt>(count));
    print.bytes += static_cast<uint64_t>(count);
    if (static_cast<size_t>(count) < buffer.size())
      break;
  }
  print.crc32 = static_cast<uint32_t>(sum);
  return std::optional<Fingerprint>(print);
}

//===----------------------------------------------------------------------===//
// Writing
//===----------------------------------------------------------------------===//

static std::string folderOf(const std::string &path) {
  std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

/// Makes a new name in a folder durable. A file system that can't sync folders is no reason to
/// fail.
static void syncFolder(const std::string &folder) {
  Descriptor descriptor(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (descriptor.number >= 0)
    (void)fsync(descriptor.number);
}

static Status renameFile(const std::string &from, const std::string &to, Durability durability) {
  if (::rename(from.c_str(), to.c_str()) != 0)
    return makeError("cannot rename ", quote(from), " to ", quote(to), ": ", errnoText(errno));
  if (durability == Durability::Durable)
    syncFolder(folderOf(to));
  return {};
}

Status renameDurably(const std::string &from, const std::string &to) {
  return renameFile(from, to, Durability::Durable);
}

static int writeFully(int descriptor, std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t count = ::write(descriptor, bytes.data(), std::min<size_t>(bytes.size(), 1u << 30));
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return errno;
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return 0;
}

Status writeFileAtomically(const std::string &path, std::span<const std::string_view> parts,
                           Durability durability) {
  // A path that names something else than a file, /dev/full say, can't be replaced by renaming.
  struct stat status;
  if (::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode))
    return makeError("cannot write ", quote(path), ": not a regular file");

  std::string temporary = path + ".XXXXXX";
  int number = 0;
  {
    Descriptor file(::mkostemp(temporary.data(), O_CLOEXEC));
    if (file.number < 0)
      return makeError("cannot write ", quote(path), ": ", errnoText(errno));
    // mkostemp makes the file private; a result is as readable as any new file.
    mode_t mask = umask(0);
    umask(mask);
    (void)fchmod(file.number, 0666 & ~mask);
    for (std::string_view part : parts)
      if (number == 0)
        number = writeFully(file.number, part);
    if (number == 0 && durability == Durability::Durable && fsync(file.number) != 0)
      number = errno;
  }
  if (number != 0) {
    ::unlink(temporary.c_str());
    return makeError("cannot write ", quote(path), ": ", errnoText(number));
  }
  if (Status renamed = renameFile(temporary, path, durability); !renamed) {
    ::unlink(temporary.c_str());
    return renamed;
  }
  return {};
}

Status createFolders(const std::string &path) {
  std::error_code code;
  std::filesystem::create_directories(path, code);
  if (!code && !std::filesystem::is_directory(path, code) && !code)
    code = std::make_error_code(std::errc::not_a_directory);
  if (code)
    return makeError("cannot create the folder ", quote(path), ": ", code.message());
  return {};
}

} // namespace dlc::run
