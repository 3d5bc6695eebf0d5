//===- Embedded.h - files that dlc carries inside -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_EMIT_EMBEDDED_H
#define DLC_COMPILER_EMIT_EMBEDDED_H

#include "llvm/ADT/StringRef.h"

namespace dlc {

/// libdlrt.a, which is linked into every artefact.
llvm::StringRef embeddedRuntimeArchive();
/// The text of dlrt/dlrt.h and dlrt/model_abi.h, which model headers begin with.
llvm::StringRef embeddedRuntimeHeader();
llvm::StringRef embeddedAbiHeader();

} // namespace dlc

#endif // DLC_COMPILER_EMIT_EMBEDDED_H
