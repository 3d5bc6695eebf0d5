//===- ElfNeeds.h - which libraries and versions an ELF file needs -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TOOLS_DLRUN_ELFNEEDS_H
#define DLC_TOOLS_DLRUN_ELFNEEDS_H

#include "Support.h"

namespace dlc::run {

struct ElfNeeds {
  std::vector<std::string> libraries; // DT_NEEDED, in the file's order
  std::string newestGlibc;            // "2.29": the newest GLIBC_ version asked for; "" for none
};

/// Reads the dynamic section of a 64-bit little-endian ELF file as the loader would; every offset
/// is checked, nothing is loaded. `file` is the whole content.
Expected<ElfNeeds> readElfNeeds(std::string_view file);

} // namespace dlc::run

#endif
