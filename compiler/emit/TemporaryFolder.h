//===- TemporaryFolder.h - a folder that goes with its scope -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_EMIT_TEMPORARYFOLDER_H
#define DLC_COMPILER_EMIT_TEMPORARYFOLDER_H

#include "OutputFile.h"
#include "llvm/ADT/SmallString.h"
#include "llvm/Support/FileSystem.h"
#include <string>
#include <utility>

namespace dlc {

/// For the inputs and outputs of a tool.
class TemporaryFolder {
public:
  static llvm::Expected<TemporaryFolder> create() {
    TemporaryFolder folder;
    if (std::error_code code = llvm::sys::fs::createUniqueDirectory("dlc", folder.path))
      return llvm::createStringError(code, "cannot make a temporary folder: " + code.message());
    return folder;
  }
  TemporaryFolder(TemporaryFolder &&other) : path(std::exchange(other.path, {})) {}
  TemporaryFolder &operator=(TemporaryFolder &&) = delete;
  ~TemporaryFolder() {
    if (!path.empty())
      llvm::sys::fs::remove_directories(path);
  }

  std::string file(llvm::StringRef name) const { return (path + "/" + name).str(); }

  llvm::Expected<std::string> write(llvm::StringRef name, llvm::StringRef bytes) const {
    std::string where = file(name);
    if (llvm::Error error = writeOutputFile(where, bytes))
      return std::move(error);
    return where;
  }

private:
  TemporaryFolder() = default;
  llvm::SmallString<128> path;
};

} // namespace dlc

#endif // DLC_COMPILER_EMIT_TEMPORARYFOLDER_H
