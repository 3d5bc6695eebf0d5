//===- OutputFile.cpp - files appear whole or not at all -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "OutputFile.h"
#include "llvm/ADT/SmallString.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Signals.h"
#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace llvm;

namespace dlc {

static Error failed(StringRef path, std::error_code code) {
  return createStringError(code, "cannot write '" + path + "': " + code.message());
}

static std::error_code lastError() { return std::error_code(errno, std::generic_category()); }

static std::error_code writeAll(int file, StringRef bytes) {
  while (!bytes.empty()) {
    ssize_t written = ::write(file, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR)
        continue;
      return lastError();
    }
    bytes = bytes.drop_front(written);
  }
  return {};
}

Error writeOutputFile(StringRef path, StringRef bytes, bool executable) {
  if (path == "-") {
    if (std::fflush(stdout) != 0)
      return failed("standard output", lastError());
    if (std::error_code code = writeAll(STDOUT_FILENO, bytes))
      return failed("standard output", code);
    return Error::success();
  }

  // A link stays a link: what it points to is replaced.
  SmallString<256> target(path);
  if (sys::fs::is_symlink_file(path))
    if (sys::fs::real_path(path, target))
      target = path; // points to nothing yet, or in a circle: opening it says so

  sys::fs::file_status status;
  bool exists = !sys::fs::status(target, status) && sys::fs::exists(status);
  if (exists && sys::fs::is_directory(status))
    return failed(path, std::make_error_code(std::errc::is_a_directory));
  if ((exists && !sys::fs::is_regular_file(status)) || sys::fs::is_symlink_file(target)) {
    int file = ::open(target.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file < 0)
      return failed(path, lastError());
    std::error_code code = writeAll(file, bytes);
    if (::close(file) != 0 && !code)
      code = lastError();
    return code ? failed(path, code) : Error::success();
  }
  // Renaming would replace a file that its owner protected.
  if (exists && ::access(target.c_str(), W_OK) != 0)
    return failed(path, lastError());

  SmallString<256> temporary;
  int file = -1;
  if (std::error_code code = sys::fs::createUniqueFile(target + ".%%%%%%%%.tmp", file, temporary,
                                                       sys::fs::OF_None, 0600))
    return failed(path, code);
  sys::RemoveFileOnSignal(temporary);
  std::error_code code = writeAll(file, bytes);
  if (!code) {
    unsigned permissions =
        exists ? status.permissions() & 0777 : (executable ? 0777 : 0666) & ~sys::fs::getUmask();
    if (exists && executable)
      permissions |= (permissions & 0444) >> 2;
    if (::fchmod(file, permissions) != 0)
      code = lastError();
  }
  if (::close(file) != 0 && !code)
    code = lastError();
  if (!code && ::rename(temporary.c_str(), target.c_str()) != 0)
    code = lastError();
  if (code)
    sys::fs::remove(temporary);
  sys::DontRemoveFileOnSignal(temporary);
  return code ? failed(path, code) : Error::success();
}

} // namespace dlc
