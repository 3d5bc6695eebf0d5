//===- Report.h - what the stand-in found wrong -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TEST_STANDIN_REPORT_H
#define DLC_TEST_STANDIN_REPORT_H

#include "llvm/ADT/StringRef.h"
#include <array>
#include <cstdint>
#include <optional>
#include <string>

namespace standin {

struct Dim3 {
  uint32_t x = 1, y = 1, z = 1;
  uint64_t count() const { return uint64_t(x) * y * z; }
  bool operator==(const Dim3 &) const = default;
};

/// What a fault is. The names that nameOf() gives are part of the interface: tests compare them.
enum class Fault {
  OutOfBounds,       ///< an access that leaves an allocation, a shared or local variable's space
  Misaligned,        ///< an address that is no multiple of the access's size
  UseAfterFree,      ///< an address in memory that was freed
  HostPointer,       ///< an address that was never device memory, null included
  UnwrittenGlobal,   ///< a read of device memory that nothing has written
  UnwrittenShared,   ///< a read of shared memory that no thread of this block has written
  ReadOnly,          ///< a write to .const memory or to parameters
  SharedRace,        ///< two threads of a block, one word, one writes, no barrier between
  GlobalRace,        ///< two blocks, one word, one writes, neither fence nor atomic between
  AsyncPending,      ///< an access to the destination of a cp.async before the wait for it
  BarrierDivergence, ///< a barrier that not all threads reach
  WarpDivergence,    ///< a warp operation whose mask names a lane that does not take part
  Trap,              ///< trap, or a function that returns although it is declared not to
  Assert,            ///< assert() in CUDA C++
  Endless,           ///< no end in sight: a wait for a block that has not run, or an endless loop
  BadLaunch,         ///< grid, block, shared memory or parameters that the kernel does not take
  DoubleFree,        ///< free of what is free already
  BadFree,           ///< free of an address that allocate() has not given
};

/// "out-of-bounds", "use-after-free", …
llvm::StringRef nameOf(Fault fault);

/// One fault: everything that is known about it. Found by a launch, or by a check of a host copy
/// (then without kernel).
struct Report {
  Fault fault = Fault::Trap;
  /// One sentence without kernel, thread and lines: "write of 4 bytes at 0x… is 12 bytes past the
  /// end of 'arena' (400 bytes)".
  std::string message;

  std::string module, kernel; ///< empty for host copies
  std::optional<Dim3> block;  ///< blockIdx; x, y, z count from 0
  std::optional<Dim3> thread; ///< threadIdx
  unsigned ptxLine = 0;       ///< from 1; 0 is unknown
  std::string sourceFile;     ///< from .file and .loc, if the PTX has them
  unsigned sourceLine = 0;
  uint64_t address = 0;       ///< of the access, 0 if there is none
  uint32_t bytes = 0;

  /// All of it on one line:
  /// `out-of-bounds: <message>; kernel 'k' of 'm', block (1,0,0), thread (3,0,0), line 27 of the PTX, mlp.dl:12`.
  std::string str() const;
};

} // namespace standin

#endif // DLC_TEST_STANDIN_REPORT_H
