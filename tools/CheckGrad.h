//===- CheckGrad.h - derivatives against central differences -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TOOLS_CHECKGRAD_H
#define DLC_TOOLS_CHECKGRAD_H

#include "compiler/Compile.h"
#include <cstdint>

namespace dlc {

struct CheckGradOptions {
  CompileOptions compile;
  std::vector<std::string> functions; // none: all that can be checked
  double tolerance = 1e-5;
  uint64_t seed = 0;
  unsigned samples = 200; // elements of each variable; 0: all
  std::vector<std::pair<std::string, int64_t>> dims, ranges;
};

/// Prints the worst element of every variable to stdout; false where one is beyond the tolerance or
/// nothing could be checked.
bool checkGrad(const CheckGradOptions &options);

} // namespace dlc

#endif // DLC_TOOLS_CHECKGRAD_H
