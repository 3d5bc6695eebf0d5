//===- Memory.h - the stand-in's device memory -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// The memory of one device. A device address is the host address of the bytes, so a checked copy
// is a memcpy. Everything lies in one large reserved range of addresses; for each byte of it there
// is a byte of shadow at a fixed distance, which says whether the byte may be touched and whether
// something has been written to it. Addresses are never given out twice, so a use after free is
// always seen; the memory itself goes back to the system when it is freed.
//
// Not synchronised: whoever calls from several threads holds a lock, also around launch().
//
//===----------------------------------------------------------------------===//

#ifndef DLC_TEST_STANDIN_MEMORY_H
#define DLC_TEST_STANDIN_MEMORY_H

#include "Report.h"
#include "llvm/ADT/STLFunctionalExtras.h"
#include <map>
#include <memory>
#include <vector>

namespace standin {

struct Allocation {
  uint64_t address = 0;
  uint64_t bytes = 0;
  std::string what;      ///< as given to allocate(): appears in reports
  uint64_t serial = 0;   ///< the order of allocation, from 1
  bool freed = false;
  bool ofModule = false; ///< a global variable of a module: not a leak, not freed by free()
  bool readOnly = false; ///< .const
  uint64_t end() const { return address + bytes; }
};

class Memory {
public:
  /// Reserves addresses (not memory). Fails only if the system gives none: a fatal error.
  Memory();
  ~Memory();
  Memory(const Memory &) = delete;
  Memory &operator=(const Memory &) = delete;

  /// `bytes` of memory that count as never written, aligned to 256 and to no more, with guard
  /// zones before and behind. 0 if bytes is 0 or the range of addresses is used up (a limit such as
  /// the device's memory is the caller's affair; see bytesInUse()).
  uint64_t allocate(uint64_t bytes, llvm::StringRef what);

  /// DoubleFree, BadFree, or nothing. The allocation stays known as a freed one.
  std::optional<Report> free(uint64_t address);

  /// The allocation, freed or not, that holds the address (for `bytes` == 0 allocations: none); null
  /// if there is none. The pointer is good until the next allocate().
  const Allocation *find(uint64_t address) const;
  /// The allocation whose end or beginning is closest; for messages.
  const Allocation *nearest(uint64_t address) const;
  /// Whether the address lies in the reserved range at all: how cuPointerGetAttribute and copies
  /// of unknown direction tell device from host.
  bool isDeviceAddress(uint64_t address) const { return address - base < rangeBytes; }

  /// Live allocations that are not a module's: at exit, the leaks. In order of allocation.
  std::vector<const Allocation *> live() const;
  uint64_t bytesInUse() const { return inUse; }
  uint64_t peakBytes() const { return peak; }

  /// Checks for the host's copies and memsets and for calls such as a cuBLASLt product: the whole
  /// range lies in one live allocation, and for reads has been written. `who` begins the message:
  /// "cuMemcpyDtoH". A write check does not mark: call markWritten() once the bytes are there.
  std::optional<Report> checkRead(uint64_t address, uint64_t bytes, llvm::StringRef who) const;
  std::optional<Report> checkWrite(uint64_t address, uint64_t bytes, llvm::StringRef who) const;

  /// Declares bytes of live allocations as written, or as never written again. (A copy from device
  /// to device of memory that is partly unwritten: checkRead() refuses.)
  void markWritten(uint64_t address, uint64_t bytes);
  void markUnwritten(uint64_t address, uint64_t bytes);
  /// The first byte of the range that nothing has written.
  std::optional<uint64_t> firstUnwritten(uint64_t address, uint64_t bytes) const;

  //===--- For the engine ---------------------------------------------------===//

  /// Bits of a byte of shadow.
  enum : uint8_t { Addressable = 1, Written = 2, Pending = 4, NotWritable = 8 };
  /// Bytes of a page of the counters.
  static constexpr uint64_t pageBytes = 4096;
  struct PageCounter {
    uint64_t read, written;
  };

  /// Allocates and marks as written: a global of a module. `data` may be shorter; the rest is 0.
  uint64_t allocateGlobal(uint64_t bytes, llvm::StringRef what, const void *data, uint64_t dataBytes, bool readOnly);
  /// Frees what allocateGlobal() gave.
  void freeGlobal(uint64_t address);

  uint64_t rangeBegin() const { return base; }
  uint64_t rangeSize() const { return rangeBytes; }
  /// shadow of address = address + shadowDistance()
  int64_t shadowDistance() const { return int64_t(shadow - base); }
  uint8_t *shadowOf(uint64_t address) const { return reinterpret_cast<uint8_t *>(address + shadowDistance()); }
  /// Bytes read and written by kernels, for each page of the range; the engine adds and clears.
  PageCounter *counters() const { return pages; }
  /// Of the next block that runs; the engine counts.
  uint32_t nextTag = 1;
  void clearTags();
  /// Two words for each word of the range: the tag of the block that wrote it last, and of the one
  /// that read it first. Those of an address a: tagBase() + 2 * (a - rangeBegin()).
  uint64_t tagBase() const { return tags; }

  /// The windows of parameters, shared and local memory at the beginning of the range. Their shadow
  /// is the engine's; nothing is allocated in them.
  static constexpr uint64_t parameterWindowBytes = 1 << 16;
  static constexpr uint64_t sharedWindowBytes = 1 << 20;
  static constexpr uint64_t localWindowBytes = uint64_t(1) << 31;
  uint64_t parameterWindow() const { return base + (1 << 20); }
  uint64_t sharedWindow() const { return base + (2 << 20); }
  uint64_t localWindow() const { return base + (4 << 20); }
  uint64_t allocationsBegin() const { return localWindow() + localWindowBytes + (1 << 20); }

  /// Why an access of running code to an address outside of the windows failed: alignment, registry,
  /// shadow. `what` is "read" or "write".
  Report explain(uint64_t address, uint64_t bytes, llvm::StringRef what, bool isRead) const;
  void forEachLive(llvm::function_ref<void(const Allocation &)> visit) const;

private:
  uint64_t place(uint64_t bytes, llvm::StringRef what);
  void release(Allocation &allocation);
  std::optional<Report> check(uint64_t address, uint64_t bytes, llvm::StringRef who, bool isRead) const;

  uint64_t base = 0, rangeBytes = 0, shadow = 0, tags = 0;
  PageCounter *pages = nullptr;
  uint64_t next = 0; ///< where the next allocation goes
  uint64_t serial = 0, inUse = 0, peak = 0;
  std::map<uint64_t, Allocation> byAddress; ///< freed ones too
};

} // namespace standin

#endif // DLC_TEST_STANDIN_MEMORY_H
