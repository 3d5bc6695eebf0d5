//===- CpuInfo.cpp - what the CPU target needs to know of a processor -*- C++
//-*-===//
//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "compiler/lowering/cpu/CpuInfo.h"

#include "mlir/IR/BuiltinTypes.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/MC/MCSubtargetInfo.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/TargetParser/Triple.h"

#include <algorithm>
#include <memory>

using namespace dlc::cpu;

unsigned CpuInfo::lanes(mlir::Type type) const {
  unsigned bits = type.isIndex() ? 64 : type.getIntOrFloatBitWidth();
  // Truth values are kept as bytes in memory and are never wider than that in a register.
  return std::max(1u, vectorBits / std::max(8u, bits));
}

std::optional<CpuInfo> CpuInfo::forFeatures(llvm::StringRef triple, llvm::StringRef cpu,
                                            llvm::StringRef features, std::string &error) {
  llvm::Triple parsed{triple};
  const llvm::Target *target = llvm::TargetRegistry::lookupTarget(parsed, error);
  if (!target)
    return std::nullopt;
  std::unique_ptr<llvm::MCSubtargetInfo> subtarget(
      target->createMCSubtargetInfo(parsed, /*CPU=*/"", /*Features=*/""));
  if (!subtarget->isCPUStringValid(cpu)) {
    error = ("unknown processor '" + cpu + "' for target '" + triple + "'").str();
    return std::nullopt;
  }
  subtarget.reset(target->createMCSubtargetInfo(parsed, cpu, features));
  auto has = [&](llvm::StringRef feature) {
    return subtarget->checkFeatures(("+" + feature).str());
  };

  CpuInfo info;
  if (parsed.isAArch64()) {
    info.vectorBits = 128;
    info.vectorRegisters = 32;
    info.hasFma = has("neon");
    info.l2Bytes = 512 * 1024;
    return info;
  }
  if (!parsed.isX86()) {
    error = ("no vector unit is described for target '" + triple + "'").str();
    return std::nullopt;
  }
  // Masks of bytes and of 256-bit vectors are needed besides the 512-bit vectors, or some of what
  // we emit would be split: only processors with all of x86-64-v4 count.
  bool v4 = has("avx512f") && has("avx512vl") && has("avx512dq") && has("avx512bw");
  // LLVM's tuning of processors and levels prefers 256 bits nearly everywhere, for code in which
  // few vectors lie between scalars. Kernels are dense, so that counts only where somebody asks for
  // it.
  bool narrow = llvm::is_contained(llvm::split(features, ','), "+prefer-256-bit");
  info.vectorBits = v4 && !narrow ? 512 : has("avx") ? 256 : 128;
  info.vectorRegisters = v4 ? 32 : 16;
  info.hasFma = has("fma") || v4;
  // Servers and desktops of the last ten years: Zen 512 KiB, with 512-bit vectors at least 1 MiB
  // (Skylake-X, Zen 4).
  info.l2Bytes = v4 ? 1024 * 1024 : 512 * 1024;
  return info;
}
