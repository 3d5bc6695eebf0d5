//===- EmitCuda.cpp - a GPU's LLVM IR to PTX and cubins -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "EmitCuda.h"
#include "EmitObject.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/IR/CallingConv.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Module.h"
#include "llvm/IR/Verifier.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FileUtilities.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Process.h"
#include "llvm/Support/Program.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Support/raw_ostream.h"
#include "llvm/Target/TargetMachine.h"
#include "llvm/Target/TargetOptions.h"
#include "llvm/Transforms/Utils/Cloning.h"

using namespace llvm;

namespace dlc {

namespace {

constexpr StringLiteral cudaTriple = "nvptx64-nvidia-cuda";

/// The architectures that LLVM writes PTX for, and the first version of PTX that knows each.
struct KnownArch {
  uint32_t arch, ptxVersion;
};
constexpr KnownArch knownArchs[] = {{75, 63},  {80, 70},  {86, 71},  {87, 74},
                                    {88, 90},  {89, 78},  {90, 78},  {100, 86},
                                    {103, 88}, {110, 90}, {120, 87}, {121, 88}};

const KnownArch *findArch(uint32_t arch) {
  const auto *found =
      find_if(knownArchs, [&](const KnownArch &known) { return known.arch == arch; });
  return found == std::end(knownArchs) ? nullptr : found;
}

std::string nameOf(uint32_t arch) { return "sm_" + std::to_string(arch); }

Error internalError(const Twine &what) {
  return createStringError("internal compiler error: " + what);
}

Expected<std::unique_ptr<TargetMachine>> createMachine(const KnownArch &arch, unsigned optLevel) {
  static const bool once = [] {
    LLVMInitializeNVPTXTargetInfo();
    LLVMInitializeNVPTXTarget();
    LLVMInitializeNVPTXTargetMC();
    LLVMInitializeNVPTXAsmPrinter();
    return true;
  }();
  (void)once;
  Triple triple(cudaTriple);
  std::string error;
  const llvm::Target *registered = TargetRegistry::lookupTarget(triple, error);
  if (!registered)
    return createStringError("this LLVM has no NVPTX target, which --target=cuda needs: " + error);
  TargetOptions options;
  // As on the CPU: a product and a sum are two roundings unless the program says fma.
  options.AllowFPOpFusion = FPOpFusion::Strict;
  CodeGenOptLevel level = optLevel == 0 ? CodeGenOptLevel::None : CodeGenOptLevel::Aggressive;
  std::unique_ptr<TargetMachine> machine(registered->createTargetMachine(
      triple, nameOf(arch.arch), "+ptx" + std::to_string(arch.ptxVersion), options, std::nullopt,
      std::nullopt, level));
  if (!machine)
    return internalError("no code generator for " + nameOf(arch.arch));
  return machine;
}

Expected<std::string> emitPtxFor(Module &module, const KnownArch &arch, unsigned optLevel) {
  Expected<std::unique_ptr<TargetMachine>> machine = createMachine(arch, optLevel);
  if (!machine)
    return machine.takeError();
  optimizeModule(module, **machine, optLevel);
  SmallVector<char, 0> bytes;
  raw_svector_ostream stream(bytes);
  legacy::PassManager passes;
  if ((*machine)->addPassesToEmitFile(passes, stream, nullptr, CodeGenFileType::AssemblyFile))
    return internalError("LLVM writes no PTX");
  passes.run(module);
  return std::string(bytes.begin(), bytes.end());
}

} // namespace

Expected<CudaTargets> resolveCudaTargets(ArrayRef<std::string> names,
                                         function_ref<void(const std::string &)> warn) {
  CudaTargets targets;
  for (StringRef name : names) {
    StringRef number = name;
    uint32_t arch = 0;
    if (!number.consume_front("sm_") || number.getAsInteger(10, arch))
      return createStringError("--gpu-arch takes names like sm_80, not '" + name + "'");
    if (arch < knownArchs[0].arch)
      return createStringError("GPUs of architecture " + name + " are too old; " +
                               nameOf(knownArchs[0].arch) + " is the oldest that is supported");
    targets.cubins.push_back(arch);
  }
  sort(targets.cubins);
  targets.cubins.erase(unique(targets.cubins), targets.cubins.end());
  uint32_t oldest = 0;
  for (uint32_t arch : targets.cubins) {
    uint32_t nearest = 0;
    for (const KnownArch &known : knownArchs)
      if (known.arch <= arch)
        nearest = std::max(nearest, known.arch);
    if (nearest != arch)
      warn("architecture " + nameOf(arch) + " is unknown; it gets the PTX of " + nameOf(nearest));
    if (!oldest || nearest != arch)
      targets.ptx.push_back(nearest);
    if (!oldest)
      oldest = nearest;
  }
  erase_if(targets.cubins, [](uint32_t arch) { return !findArch(arch); });
  sort(targets.ptx);
  targets.ptx.erase(unique(targets.ptx), targets.ptx.end());
  return targets;
}

Error emitPtx(Module &module, const CudaTargets &targets, unsigned optLevel,
              CudaDescription &description) {
  module.setTargetTriple(Triple(cudaTriple));
  for (GlobalValue &value : module.global_values())
    if (!value.isDeclaration()) {
      auto *function = dyn_cast<Function>(&value);
      if (!function || function->getCallingConv() != CallingConv::PTX_Kernel)
        value.setLinkage(GlobalValue::InternalLinkage);
    }
  std::string message;
  raw_string_ostream stream(message);
  if (verifyModule(module, &stream))
    return internalError("broken LLVM IR for the GPU: " + message);
  for (uint32_t arch : targets.ptx) {
    Expected<std::string> ptx = emitPtxFor(*CloneModule(module), *findArch(arch), optLevel);
    if (!ptx)
      return ptx.takeError();
    description.images.push_back({DL_CUDA_PTX, arch, std::move(*ptx)});
  }
  return Error::success();
}

std::string findPtxas() {
  SmallVector<std::string> folders;
  for (const char *variable : {"CUDA_HOME", "CUDA_PATH"})
    if (std::optional<std::string> value = sys::Process::GetEnv(variable); value && !value->empty())
      folders.push_back(*value + "/bin");
  auto in = [](ArrayRef<std::string> places) {
    SmallVector<StringRef> paths(places.begin(), places.end());
    ErrorOr<std::string> found = sys::findProgramByName("ptxas", paths);
    return found ? *found : std::string();
  };
  if (!folders.empty())
    if (std::string found = in(folders); !found.empty())
      return found;
  if (ErrorOr<std::string> found = sys::findProgramByName("ptxas"))
    return *found;
#ifdef DLC_CUDA_BIN
  return in(std::string(DLC_CUDA_BIN));
#else
  return "";
#endif
}

std::vector<std::pair<std::string, dl_cuda_resources>> parsePtxasReport(StringRef report,
                                                                        uint32_t arch) {
  std::vector<std::pair<std::string, dl_cuda_resources>> kernels;
  // The number that stands before a word, or after it.
  auto before = [](StringRef line, StringRef word) {
    uint32_t number = 0;
    size_t at = line.find(word);
    if (at != StringRef::npos)
      line.take_front(at).rtrim().rsplit(' ').second.getAsInteger(10, number);
    return number;
  };
  while (!report.empty()) {
    StringRef line;
    std::tie(line, report) = report.split('\n');
    if (size_t at = line.find("Compiling entry function '"); at != StringRef::npos) {
      StringRef name = line.drop_front(at).split('\'').second.split('\'').first;
      kernels.push_back({name.str(), {arch, 0, 0, 0}});
    } else if (!kernels.empty() && line.contains("bytes stack frame")) {
      kernels.back().second.local_bytes = before(line.trim().str().insert(0, " "), "bytes stack");
    } else if (!kernels.empty() && line.contains(" registers")) {
      kernels.back().second.registers = before(line, "registers");
      kernels.back().second.shared_bytes = before(line, "bytes smem");
    }
  }
  return kernels;
}

/// Without the program's lines: ptxas would put the whole text beside each cubin's code.
static Error writePtx(StringRef path, StringRef ptx) {
  std::error_code error;
  raw_fd_ostream stream(path, error);
  for (StringRef line : split(ptx, '\n'))
    if (StringRef word = line.ltrim(); !word.starts_with(".loc") && !word.starts_with(".file"))
      stream << line << '\n';
  stream.close();
  if (stream.has_error())
    error = stream.error();
  stream.clear_error();
  if (error)
    return createStringError(error, "'" + path + "' cannot be written: " + error.message());
  return Error::success();
}

Error assembleCubins(const CudaTargets &targets, CudaDescription &description,
                     function_ref<void(const std::string &)> warn,
                     function_ref<Expected<std::string>(uint32_t arch)> ptxFor) {
  if (targets.cubins.empty())
    return Error::success();
  std::string ptxas = findPtxas();
  if (ptxas.empty()) {
    warn("no ptxas was found in $CUDA_HOME/bin, $CUDA_PATH/bin and $PATH: the artefact holds PTX "
         "alone, which the driver compiles each time it is loaded");
    return Error::success();
  }
  SmallString<128> ptxPath, cubinPath, reportPath;
  for (auto [path, extension] :
       {std::pair(&ptxPath, "ptx"), std::pair(&cubinPath, "cubin"), std::pair(&reportPath, "txt")})
    if (std::error_code error = sys::fs::createTemporaryFile("dlc", extension, *path))
      return createStringError(error, "a file for ptxas cannot be made: " + error.message());
  FileRemover removers[] = {FileRemover(ptxPath), FileRemover(cubinPath), FileRemover(reportPath)};
  for (uint32_t arch : targets.cubins) {
    // The oldest PTX serves all, unless there is some for each.
    std::string ptx;
    if (ptxFor) {
      Expected<std::string> own = ptxFor(arch);
      if (!own)
        return own.takeError();
      ptx = std::move(*own);
    } else {
      ptx = description.images.front().bytes;
    }
    if (Error error = writePtx(ptxPath, ptx))
      return error;
    std::string option = "-arch=" + nameOf(arch);
    StringRef arguments[] = {ptxas, option, "-v", ptxPath, "-o", cubinPath};
    std::optional<StringRef> redirects[] = {std::nullopt, StringRef(reportPath),
                                            StringRef(reportPath)};
    // Redirection writes over what is there and cuts nothing off: the end of a longer report for
    // another architecture would be read with this one.
    sys::fs::remove(reportPath);
    std::string message;
    int status = sys::ExecuteAndWait(ptxas, arguments, std::nullopt, redirects, 0, 0, &message);
    ErrorOr<std::unique_ptr<MemoryBuffer>> report = MemoryBuffer::getFile(reportPath);
    StringRef text = report ? (*report)->getBuffer() : StringRef();
    if (status != 0) {
      if (text.contains("is not defined for option") || text.contains("Unsupported")) {
        warn("'" + ptxas + "' does not know " + nameOf(arch) +
             ": there is PTX for it, which the driver compiles each time it is loaded");
        continue;
      }
      std::string words = ("ptxas refuses the kernels for " + nameOf(arch) + ": " +
                           (message.empty() ? text.trim() : StringRef(message)))
                              .str();
      // Code of the user's own may ask for more than there is: shared memory, registers.
      return ptxFor ? createStringError(words) : internalError(words);
    }
    ErrorOr<std::unique_ptr<MemoryBuffer>> cubin =
        MemoryBuffer::getFile(cubinPath, /*IsText=*/false, /*RequiresNullTerminator=*/false);
    if (!cubin)
      return createStringError(cubin.getError(), "ptxas wrote nothing that can be read");
    description.images.push_back({DL_CUDA_CUBIN, arch, (*cubin)->getBuffer().str()});
    for (auto &[symbol, resources] : parsePtxasReport(text, arch))
      for (CudaKernelDescription &kernel : description.kernels)
        if (kernel.symbol == symbol)
          kernel.resources.push_back(resources);
  }
  return Error::success();
}

} // namespace dlc
