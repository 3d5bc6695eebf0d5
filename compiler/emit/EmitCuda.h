//===- EmitCuda.h - a GPU's LLVM IR to PTX and cubins -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// LLVM's back end writes PTX for the oldest architecture asked for, at the lowest version that
// knows it, so that old drivers take it. ptxas, where it is found, assembles that for each
// architecture. Neither a GPU nor a driver is needed.
//
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_EMIT_EMITCUDA_H
#define DLC_COMPILER_EMIT_EMITCUDA_H

#include "ModelDescription.h"
#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

namespace llvm {
class Module;
} // namespace llvm

namespace dlc {

/// What to assemble for.
struct CudaTargets {
  /// Compute capability times ten, as asked for, without doubles, increasing.
  std::vector<uint32_t> cubins;
  /// Those whose PTX goes into the artefact, increasing: the oldest, and the nearest to each that
  /// LLVM does not know.
  std::vector<uint32_t> ptx;
};

/// \p names: "sm_80", "sm_90". What is known but not to all tools is said through \p warn.
llvm::Expected<CudaTargets> resolveCudaTargets(llvm::ArrayRef<std::string> names,
                                               llvm::function_ref<void(const std::string &)> warn);

/// Optimizes \p module, whose kernels \p description names, and writes its PTX for the
/// architectures of \p targets into the description.
llvm::Error emitPtx(llvm::Module &module, const CudaTargets &targets, unsigned optLevel,
                    CudaDescription &description);

/// Assembles the PTX for each architecture: cubins, and what each kernel takes of a multiprocessor.
/// Without ptxas there are none, and \p warn says so.
/// \p ptxFor: the PTX to assemble for an architecture, where it is not the oldest's for all.
llvm::Error assembleCubins(
    const CudaTargets &targets, CudaDescription &description,
    llvm::function_ref<void(const std::string &)> warn,
    llvm::function_ref<llvm::Expected<std::string>(uint32_t arch)> ptxFor = nullptr);

/// The assembler: in $CUDA_HOME/bin, $CUDA_PATH/bin, $PATH or where the build found it; empty where
/// there is none.
std::string findPtxas();

/// Reads what ptxas -v says of each kernel.
std::vector<std::pair<std::string, dl_cuda_resources>> parsePtxasReport(llvm::StringRef report,
                                                                        uint32_t arch);

} // namespace dlc

#endif // DLC_COMPILER_EMIT_EMITCUDA_H
