//===- ShapeText.h - shapes as text, worked out for given sizes -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TOOLS_DLRUN_SHAPETEXT_H
#define DLC_TOOLS_DLRUN_SHAPETEXT_H

#include "Support.h"

namespace dlc::run {

/// "[N, 2 * N + 1, 784]" with N = 4 -> {4, 9, 784}. Understands + - * / // % and parentheses; / and
/// // round down, ceildiv(a, b) and floordiv(a, b) are functions. A name without a size is an error
/// that says how to give it.
Expected<std::vector<int64_t>>
evaluateShape(std::string_view text, const std::vector<std::pair<std::string, int64_t>> &sizes);

} // namespace dlc::run

#endif
