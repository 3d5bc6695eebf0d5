//===- Target.cpp - the processor that an artefact is made for -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Target.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/MC/MCSubtargetInfo.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Target/TargetMachine.h"
#include "llvm/Target/TargetOptions.h"
#include "llvm/TargetParser/Host.h"
#include "llvm/TargetParser/Triple.h"

using namespace llvm;

namespace dlc {

namespace {

constexpr StringLiteral defaultTriple = "x86_64-unknown-linux-gnu";

// Everything that x86-64-v2, v3 and v4 have beyond x86-64. What a processor has beyond these (VNNI,
// AMX, ...) does nothing for our code, and an artefact that demanded it would run on fewer machines
// for no gain.
constexpr StringLiteral knownFeatures[] = {
    "cx16",  "popcnt",   "sahf",     "sse3",     "sse4.1",  "sse4.2",  "ssse3",
    "avx",   "avx2",     "bmi",      "bmi2",     "f16c",    "fma",     "lzcnt",
    "movbe", "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"};

void initializeLlvm() {
  static const bool once = [] {
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    LLVMInitializeX86AsmParser();
    return true;
  }();
  (void)once;
}

Error unknownProcessor(StringRef march, const MCSubtargetInfo &info) {
  SmallVector<std::pair<unsigned, StringRef>> near;
  for (const SubtargetSubTypeKV &entry : info.getAllProcessorDescriptions()) {
    StringRef name = entry.Key;
    unsigned distance = march.edit_distance_insensitive(name);
    if (distance <= std::max<size_t>(2, march.size() / 4))
      near.push_back({distance, name});
  }
  llvm::sort(near); // by distance, then by name
  std::string message = ("unknown processor '" + march + "'").str();
  if (near.empty()) {
    message += "; -march takes native, x86-64-v3, x86-64-v4 or the name of a processor, "
               "e.g. haswell or znver4";
  } else {
    message += "; did you mean ";
    for (size_t i = 0, count = std::min<size_t>(3, near.size()); i < count; ++i)
      message += ((i == 0 ? "'" : i + 1 == count ? " or '" : ", '") + near[i].second + "'").str();
    message += "?";
  }
  return createStringError(message);
}

} // namespace

bool Target::has(StringRef feature) const { return is_contained(features, feature); }

std::string Target::featureString() const {
  std::string text;
  for (const std::string &feature : features)
    text += "+" + feature + ",";
  // Some processors ask for 256-bit vectors in compilers that choose the width themselves. Here the
  // width is explicit.
  return text + "-prefer-256-bit";
}

std::string Target::featureList() const { return join(features, ","); }

Expected<Target> resolveTarget(StringRef march, StringRef triple) {
  initializeLlvm();
  Target target;
  target.triple = triple.empty() ? defaultTriple.str() : Triple::normalize(triple);
  Triple parsed(target.triple);
  if (parsed.getArch() != Triple::x86_64 || !parsed.isOSLinux() || parsed.isX32() ||
      !(parsed.isGNUEnvironment() || parsed.getEnvironment() == Triple::UnknownEnvironment))
    return createStringError("target '" + triple + "' is not supported yet; dlc compiles for " +
                             defaultTriple);

  std::string error;
  const llvm::Target *registered = TargetRegistry::lookupTarget(parsed, error);
  if (!registered)
    return createStringError("this LLVM cannot compile for '" + target.triple + "': " + error);

  target.baseline = "x86-64";
  if (march == "native") {
    // The name alone is not enough: a hypervisor may hide features that a processor of this name
    // has.
    Triple host(sys::getProcessTriple());
    if (host.getArch() != Triple::x86_64)
      return createStringError(
          "-march=native: this machine is no x86-64; name the processor to compile for");
    StringMap<bool> hostFeatures = sys::getHostCPUFeatures();
    for (StringRef feature : knownFeatures) {
      // For LLVM one feature implies others (avx512f: avx2, fma); one whose implications the
      // machine lacks is left out.
      std::unique_ptr<MCSubtargetInfo> implied(
          registered->createMCSubtargetInfo(parsed, target.baseline, ("+" + feature).str()));
      if (all_of(knownFeatures, [&](const StringLiteral &other) {
            return hostFeatures.lookup(other) || !implied->checkFeatures(("+" + other).str());
          }))
        target.features.push_back(feature.str());
    }
    target.cpu = sys::getHostCPUName().str();
  } else {
    std::unique_ptr<MCSubtargetInfo> baseline(
        registered->createMCSubtargetInfo(parsed, target.baseline, ""));
    if (march.empty() || !baseline->isCPUStringValid(march))
      return unknownProcessor(march, *baseline);
    std::unique_ptr<MCSubtargetInfo> info(registered->createMCSubtargetInfo(parsed, march, ""));
    if (!info->checkFeatures("+64bit"))
      return createStringError("processor '" + march + "' is 32-bit; dlc compiles for x86-64");
    for (StringRef feature : knownFeatures)
      if (info->checkFeatures(("+" + feature).str()))
        target.features.push_back(feature.str());
    target.cpu = march.str();
  }
  if (target.has("avx512f") && target.has("avx512dq") && target.has("avx512bw") &&
      target.has("avx512vl"))
    target.vectorBits = 512;
  else if (target.has("avx2"))
    target.vectorBits = 256;
  return target;
}

Expected<std::unique_ptr<TargetMachine>> createTargetMachine(const Target &target,
                                                             unsigned optLevel) {
  initializeLlvm();
  Triple triple(target.triple);
  std::string error;
  const llvm::Target *registered = TargetRegistry::lookupTarget(triple, error);
  if (!registered)
    return createStringError("this LLVM cannot compile for '" + target.triple + "': " + error);
  TargetOptions options;
  // A product and a sum stay two roundings unless the program says fma: else bits would depend on
  // the level of optimization.
  options.AllowFPOpFusion = FPOpFusion::Strict;
  options.FunctionSections = true;
  options.DataSections = true;
  options.EmitAddrsig = false;
  CodeGenOptLevel level = optLevel == 0   ? CodeGenOptLevel::None
                          : optLevel == 1 ? CodeGenOptLevel::Less
                          : optLevel == 2 ? CodeGenOptLevel::Default
                                          : CodeGenOptLevel::Aggressive;
  std::unique_ptr<TargetMachine> machine(
      registered->createTargetMachine(triple, target.baseline, target.featureString(), options,
                                      Reloc::PIC_, CodeModel::Small, level));
  if (!machine)
    return createStringError("this LLVM has no code generator for '" + target.triple + "'");
  return machine;
}

} // namespace dlc
