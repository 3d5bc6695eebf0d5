//===- Npy.h - NumPy's .npy files -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TOOLS_DLRUN_NPY_H
#define DLC_TOOLS_DLRUN_NPY_H

#include "File.h"

namespace dlc::run {

inline constexpr std::string_view npyMagic("\x93NUMPY", 6);

/// Reads a .npy file, versions 1 to 3. Big-endian elements and Fortran order are put right; types
/// without a counterpart in a model (u16, complex, records, …) and more than eight dimensions are
/// refused. `limit`: elements may take so many bytes.
Expected<Array> readNpy(ByteReader &reader, uint64_t limit);

/// The magic and header of a .npy file for an array, version 1.0; its elements follow. bf16 has no
/// name in .npy.
Expected<std::string> npyHeader(dlrt_dtype dtype, const std::vector<int64_t> &dims);

/// Writes an array's first `bytes` bytes; a file under this name is replaced in one step.
Status writeNpy(const std::string &path, dlrt_dtype dtype, const std::vector<int64_t> &dims,
                const void *data, size_t bytes);

} // namespace dlc::run

#endif
