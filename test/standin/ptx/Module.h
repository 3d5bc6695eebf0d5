//===- Module.h - PTX that runs on the CPU -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// load() parses PTX and translates every kernel and function to LLVM IR with checks in it: what is
// not understood is an error there. A kernel is compiled for the CPU when it is launched for the
// first time. launch() runs a grid: blocks one after the other, the threads of a block as fibers of
// the calling thread.
//
//   Memory memory;
//   auto module = Module::load(memory, ptx, "mlp");          // or an error with the line
//   const Kernel *kernel = (*module)->kernel("add");
//   LaunchCounters counters;
//   if (std::optional<Report> fault = launch(*kernel, {grid, block, 0}, kernel->pack(kernelParams), counters))
//     errs() << fault->str();
//
//===----------------------------------------------------------------------===//

#ifndef DLC_TEST_STANDIN_PTX_MODULE_H
#define DLC_TEST_STANDIN_PTX_MODULE_H

#include "test/standin/Memory.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/Support/Error.h"

namespace standin {

class Module;

/// A parameter of a kernel, as cuLaunchKernel's kernelParams and cuFuncGetParamInfo see it.
struct KernelParameter {
  std::string name;
  uint32_t bytes = 0, alignment = 1, offset = 0;
};

/// Lives as long as its module.
struct Kernel {
  std::string name;
  const Module *module = nullptr;
  std::vector<KernelParameter> parameters;
  uint32_t parameterBytes = 0;     ///< of the packed parameters
  uint32_t staticSharedBytes = 0;
  bool usesDynamicShared = false;  ///< refers to an .extern .shared array
  uint32_t localBytes = 0;         ///< per thread
  std::optional<Dim3> maxThreads;  ///< .maxntid
  std::optional<Dim3> reqThreads;  ///< .reqntid: the block must be just this
  uint32_t minBlocksPerSm = 0;     ///< .minnctapersm, 0 if there is none
  bool usesRendezvous = false;     ///< has barriers or warp operations: threads run as fibers

  /// Copies the parameters that cuLaunchKernel's `kernelParams` points to into one buffer.
  llvm::SmallVector<uint8_t, 64> pack(void *const *kernelParams) const;
};

/// A module-level variable, `.global` or `.const`.
struct Global {
  std::string name;
  uint64_t address = 0, bytes = 0;
};

class Module {
public:
  /// An error names the module and the line: "mlp:27: unknown instruction 'foo.b32'". The module's
  /// variables are allocated in `memory`, which must outlive it, and freed with it.
  /// A trailing NUL, which cuModuleLoadData's images have, is not part of `ptx`.
  static llvm::Expected<std::unique_ptr<Module>> load(Memory &memory, llvm::StringRef ptx, llvm::StringRef name);
  ~Module();

  llvm::StringRef name() const;
  Memory &memory() const;
  /// null if there is none.
  const Kernel *kernel(llvm::StringRef name) const;
  std::vector<const Kernel *> kernels() const;
  const Global *global(llvm::StringRef name) const;
  /// sm_80 → 80, and the version of the language: 9.0 → 90. For refusals as a driver makes them.
  unsigned target() const;
  unsigned version() const;

  struct Impl;
  Impl &impl() const { return *self; }

private:
  explicit Module(std::unique_ptr<Impl> self);
  std::unique_ptr<Impl> self;
};

struct LaunchConfig {
  Dim3 grid, block;
  uint32_t dynamicSharedBytes = 0;
};

/// What one launch did. Bytes are those that instructions asked for: a byte that two threads read
/// counts twice; atomics count as read and written; cp.async reads; module variables are included.
struct LaunchCounters {
  uint64_t bytesRead = 0, bytesWritten = 0; ///< global memory
  uint64_t threads = 0, blocks = 0;
  struct PerAllocation {
    uint64_t address = 0;
    std::string what;
    uint64_t bytesRead = 0, bytesWritten = 0;
  };
  std::vector<PerAllocation> allocations; ///< those touched, by address
};

/// Runs the grid to its end or to the first fault. After a fault the memory is as the threads left
/// it; the module can be launched again. `parameters` are packed (Kernel::pack); their size must be
/// parameterBytes. Blocks run in the order of their index, x fastest. Printed text goes to stdout.
/// Configurations that no device takes (a block of more than 1024 threads, more than 227 KiB of
/// shared memory, a block that .reqntid or .maxntid excludes) give Fault::BadLaunch.
std::optional<Report> launch(const Kernel &kernel, const LaunchConfig &config, llvm::ArrayRef<uint8_t> parameters,
                             LaunchCounters &counters);

} // namespace standin

#endif // DLC_TEST_STANDIN_PTX_MODULE_H
