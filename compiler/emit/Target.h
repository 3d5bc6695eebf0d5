//===- Target.h - the processor that an artefact is made for -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// A target is a name to show, the features that code may use, and whom to schedule for. The
// features are an explicit list, the same that the artefact demands when it is opened: what is not
// in the list is switched off for LLVM, so code never contains an instruction that the check at
// opening does not know about.
//
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_EMIT_TARGET_H
#define DLC_COMPILER_EMIT_TARGET_H

#include "llvm/Support/Error.h"
#include <memory>
#include <string>
#include <vector>

namespace llvm {
class TargetMachine;
} // namespace llvm

namespace dlc {

struct Target {
  /// Of LLVM, e.g. "x86_64-unknown-linux-gnu".
  std::string triple;
  /// What -march named: a level ("x86-64-v3"), a processor, or for "native" the host's name. Shown,
  /// and who code is scheduled for.
  std::string cpu;
  /// What LLVM takes as the processor: the baseline, to which `features` are added.
  std::string baseline;
  /// LLVM's names of what the processor must have beyond the baseline, in a fixed order: "sse3",
  /// ..., "avx2", "fma".
  std::vector<std::string> features;
  /// Of the widest vectors that code should use.
  unsigned vectorBits = 128;

  bool has(llvm::StringRef feature) const;
  /// For LLVM: "+sse3,+avx2,...,-prefer-256-bit".
  std::string featureString() const;
  /// For the artefact: "sse3,avx2,...".
  std::string featureList() const;
};

/// \p march: "native", "x86-64", "x86-64-v2", "-v3", "-v4", or the name of an x86-64 processor as
/// LLVM knows it.
/// \p triple: empty for the machine that dlc was built for.
llvm::Expected<Target> resolveTarget(llvm::StringRef march, llvm::StringRef triple = "");

/// LLVM's code generator for a target. \p optLevel: 0..3.
llvm::Expected<std::unique_ptr<llvm::TargetMachine>> createTargetMachine(const Target &target,
                                                                         unsigned optLevel);

} // namespace dlc

#endif // DLC_COMPILER_EMIT_TARGET_H
