//===- Idx.h - the IDX files of the MNIST family -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TOOLS_DLRUN_IDX_H
#define DLC_TOOLS_DLRUN_IDX_H

#include "File.h"

namespace dlc::run {

/// Two zero bytes, an element type, a number of dimensions; then the sizes and the elements, all
/// big-endian.
bool looksLikeIdx(std::string_view start);

/// `limit`: elements may take so many bytes.
Expected<Array> readIdx(ByteReader &reader, uint64_t limit);

} // namespace dlc::run

#endif
