//===- LoadArray.h - arrays in files as constants -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_FRONTENDS_LANGUAGE_LOADARRAY_H
#define DLC_COMPILER_FRONTENDS_LANGUAGE_LOADARRAY_H

#include "Value.h"
#include "llvm/Support/Error.h"

namespace dlc::language {

/// Reads a file as dlrun reads data: .npy or IDX, compressed or not. An error says in words what is
/// wrong, and names the file.
llvm::Expected<ArrayValue> loadArray(const std::string &path);

} // namespace dlc::language

#endif // DLC_COMPILER_FRONTENDS_LANGUAGE_LOADARRAY_H
