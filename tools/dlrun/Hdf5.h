//===- Hdf5.h - datasets in HDF5 files -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TOOLS_DLRUN_HDF5_H
#define DLC_TOOLS_DLRUN_HDF5_H

#include "Rows.h"

namespace dlc::run {

// Errors do not name the file: the caller does.

bool looksLikeHdf5(std::string_view start);

/// The paths of all datasets, as "train/images".
Expected<std::vector<std::string>> hdf5Datasets(const std::string &path);

/// Opens a dataset, "train/images" or "/train/images", whose rows stay in the file: contiguous or
/// in chunks, with the filters that libhdf5 has (deflate among them). Types as of .npy, in either
/// byte order; h5py's bool is bool.
Expected<std::unique_ptr<Rows>> openHdf5(const std::string &path, const std::string &dataset);

} // namespace dlc::run

#endif
