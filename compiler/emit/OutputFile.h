//===- OutputFile.h - files appear whole or not at all -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_EMIT_OUTPUTFILE_H
#define DLC_COMPILER_EMIT_OUTPUTFILE_H

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

namespace dlc {

/// Writes \p bytes to a temporary file beside \p path and renames it, so that an older file stays
/// as it was until the new one is whole. A symbolic link is followed; what is no regular file (a
/// pipe, /dev/null) is written as it is; "-" is stdout.
llvm::Error writeOutputFile(llvm::StringRef path, llvm::StringRef bytes, bool executable = false);

} // namespace dlc

#endif // DLC_COMPILER_EMIT_OUTPUTFILE_H
