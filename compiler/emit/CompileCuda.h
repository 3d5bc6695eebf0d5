//===- CompileCuda.h - CUDA C++ to PTX -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// NVRTC, the CUDA toolkit's compiler as a library, is opened when it is first needed: dlc is built
// and runs without it. PTX of several texts becomes one module.
//
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_EMIT_COMPILECUDA_H
#define DLC_COMPILER_EMIT_COMPILECUDA_H

#include "CompilerMessages.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

namespace dlc {

/// Compiles a text for compute capability \p arch / 10, or for the nearest one before it that NVRTC
/// knows. \p name: of the text, in messages, with the folder that it includes from. A product and a
/// sum are two roundings unless the text says fma; divisions and square roots are rounded correctly.
/// NVRTC is the library that $DLC_NVRTC names, else one of $CUDA_HOME, of $CUDA_PATH, the one that
/// the build found, or one along the loader's path. Fails where there is none; what is wrong with the
/// text is said in \p messages.
llvm::Expected<std::string> compileCuda(llvm::StringRef text, llvm::StringRef name,
                                        llvm::ArrayRef<std::string> includeFolders, uint32_t arch,
                                        std::vector<CompilerMessage> &messages);

/// One module of a text of PTX and others that join it: for \p arch, at the version of the newest.
/// Names that are internal to one of the others get its number.
std::string joinPtx(llvm::StringRef ptx, llvm::ArrayRef<std::string> others, uint32_t arch);

} // namespace dlc

#endif // DLC_COMPILER_EMIT_COMPILECUDA_H
