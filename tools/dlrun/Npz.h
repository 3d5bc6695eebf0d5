//===- Npz.h - NumPy's .npz files -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TOOLS_DLRUN_NPZ_H
#define DLC_TOOLS_DLRUN_NPZ_H

#include "File.h"

namespace dlc::run {

// A .npz file is a zip of .npy files, stored or deflated; a member's name goes without ".npy".
// Errors do not name the file: the caller does.

bool looksLikeZip(std::string_view start);

Expected<std::vector<std::string>> npzMembers(const std::string &path);

/// Reads a member whole. `limit`: its elements may take so many bytes.
Expected<Array> readNpz(const std::string &path, const std::string &member, uint64_t limit);

} // namespace dlc::run

#endif
