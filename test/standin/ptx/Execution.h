//===- Execution.h - what translated code and the engine share -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Translated code has one argument, the Context of its thread, and calls the engine's routines by
// name. Fields of Context and BlockState are read by offset: Translate.cpp uses offsetof().
//
//===----------------------------------------------------------------------===//

#ifndef DLC_TEST_STANDIN_PTX_EXECUTION_H
#define DLC_TEST_STANDIN_PTX_EXECUTION_H

#include "Module.h"
#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/StringMap.h"

namespace standin {

/// Who touched a word (or byte) of shared memory since the last barrier of the block. "Stamp" counts
/// the bar.warp.sync of a warp since then.
struct SharedCell {
  uint32_t writeEpoch;
  uint16_t writeThread; ///< or with the bit atomicAccess: only atomics have written
  uint16_t writeStamp;
  uint32_t readEpoch;
  uint16_t readWarp; ///< or manyWarps
  uint16_t readStamp;
  uint32_t readLanes; ///< of readWarp
  uint32_t lastReader;
};
static_assert(sizeof(SharedCell) == 24);
constexpr uint16_t manyWarps = 0xffff, atomicAccess = 0x8000, manyThreads = 0xffff;

/// What the threads of the block that runs share.
struct BlockState {
  uint32_t ctaid[3], ntid[3], nctaid[3];
  uint32_t firstTag, tag; ///< of the launch's first block and of this one
  uint32_t fenced;        ///< some thread has executed a fence or an atomic on global memory
  uint32_t sharedBytes, dynamicSharedBytes;
  int64_t budget;         ///< jumps backwards until someone looks
  const uint32_t *sharedOffsets; ///< of the module's shared variables, for functions
};

/// A thread.
struct Context {
  uint32_t tid[3];
  uint32_t thread, lane, warp; ///< thread: x + ntid.x * (y + ntid.y * z)
  uint32_t epoch;              ///< of the block: counts barriers
  uint32_t laneBit;
  uint64_t readKey, manyKey;   ///< SharedCell's read fields (the 8 bytes at readEpoch) as this thread would write them
  uint64_t writeKey;           ///< the same of the write fields
  uint64_t localBegin, localEnd;
  BlockState *block;
  struct Engine *engine;
};

/// A place in the PTX that can fail.
struct Site {
  unsigned line, file, sourceLine;
  llvm::StringRef function;
};

/// How memory is touched; the argument `access` of routines.
enum Access : uint32_t {
  Read = 1,
  Write = 2,
  Atomic = 3,
  AccessKind = 3,
  InShared = 4,     ///< the instruction names .shared; addresses are already generic
  InLocal = 8,
  InConst = 16,
  Strong = 32,      ///< volatile, relaxed, acquire, release: takes no part in races
  NonCoherent = 64, ///< .nc
};

/// A shared variable's place in a kernel's window.
struct SharedPlace {
  std::string name;
  uint32_t offset, bytes;
};

/// What the engine knows of a kernel beyond Kernel.
struct KernelCode {
  unsigned number = 0;                 ///< in the module
  void (*entry)(void *) = nullptr;     ///< one thread of the grid; null until the first launch
  std::vector<SharedPlace> shared;     ///< static ones, in order
  uint32_t dynamicOffset = 0;          ///< where dynamic shared memory begins
  std::vector<uint32_t> sharedOffsets; ///< by the number of the module's shared variables
};

struct Module::Impl {
  explicit Impl(Memory &memory);
  Memory &memory;
  std::string name;
  unsigned target = 0, version = 0;
  bool byteCells = false; ///< a SharedCell for each byte of shared memory, not for each word
  std::vector<std::unique_ptr<Kernel>> kernels;
  llvm::StringMap<Kernel *> kernelNames;
  llvm::DenseMap<const Kernel *, std::unique_ptr<KernelCode>> code;
  std::vector<std::unique_ptr<Global>> globals;
  llvm::StringMap<Global *> globalNames;
  std::vector<Site> sites;
  llvm::DenseMap<unsigned, std::string> files;
  struct Compiler;
  std::unique_ptr<Compiler> compiler; ///< program and JIT, which live as long as the code
  /// Compiles the kernel unless that is done.
  llvm::Error compile(KernelCode &code);
  ~Impl();
};

/// The cells of the shared window: of its words or, with byteCells, bytes.
SharedCell *sharedCells();

/// Jumps backwards that a launch may make before it counts as endless.
void setEndlessLimit(uint64_t jumps);

/// Name and address of each routine, for the JIT.
std::vector<std::pair<const char *, void *>> engineRoutines();
std::vector<std::pair<const char *, void *>> arithmeticRoutines();

} // namespace standin

#endif // DLC_TEST_STANDIN_PTX_EXECUTION_H
