//===- EmitHeader.h - a C header typed for one model -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_EMIT_EMITHEADER_H
#define DLC_COMPILER_EMIT_EMITHEADER_H

#include "ModelDescription.h"

namespace dlc {

/// Text of a header for C11 and C++17 that stands alone: the runtime's declarations and, over them,
/// one function with typed arguments for each function of the model.
std::string emitHeader(const ModelDescription &model);

} // namespace dlc

#endif // DLC_COMPILER_EMIT_EMITHEADER_H
