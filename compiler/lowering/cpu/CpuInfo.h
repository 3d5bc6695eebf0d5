//===- CpuInfo.h - what the CPU target needs to know of a processor -*- C++
//-*-===//
//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_LOWERING_CPU_CPUINFO_H
#define DLC_COMPILER_LOWERING_CPU_CPUINFO_H

#include "mlir/IR/Types.h"
#include "llvm/ADT/StringRef.h"

#include <optional>
#include <string>

namespace dlc::cpu {

/// Vector unit and caches of the processor that code is generated for. Schedules depend on these
/// figures; the bits of a result never do.
struct CpuInfo {
  /// Width of one vector register.
  unsigned vectorBits = 128;
  /// Vector registers there are.
  unsigned vectorRegisters = 16;
  /// Whether a fused multiply-add is one instruction. Without it `math.fma` would become a call
  /// into libm, so the driver refuses such a processor.
  bool hasFma = false;
  /// Data caches of one core, as schedules assume them; typical of processors with such vectors.
  unsigned l1Bytes = 32 * 1024, l1Sets = 64;
  unsigned l2Bytes = 256 * 1024;
  unsigned l2Sets = 1024, l2Ways = 8;

  /// Elements of `type` (an integer, index or floating-point type) in one vector register.
  unsigned lanes(mlir::Type type) const;

  /// The processor `cpu` (an LLVM name: "x86-64-v3", "sapphirerapids") of `triple`, with LLVM's
  /// feature string ("+avx2,-avx512f"; may be empty) on top. "native" is for the caller to resolve,
  /// since only it knows whether the host's features or the name count. The target has to be
  /// registered (LLVMInitialize*TargetInfo and *TargetMC). Gives nothing and fills `error` where
  /// the triple or the processor is unknown.
  static std::optional<CpuInfo> forFeatures(llvm::StringRef triple, llvm::StringRef cpu,
                                            llvm::StringRef features, std::string &error);
};

} // namespace dlc::cpu

#endif // DLC_COMPILER_LOWERING_CPU_CPUINFO_H
