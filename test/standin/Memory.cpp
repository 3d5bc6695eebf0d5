//===- Memory.cpp - the stand-in's device memory -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Memory.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/ErrorHandling.h"
#include "llvm/Support/MathExtras.h"
#include <cstring>
#include <sys/mman.h>

using namespace llvm;

namespace standin {

static uint64_t reserve(uint64_t bytes, int protection) {
  void *at = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED)
    report_fatal_error("the stand-in cannot reserve " + Twine(bytes) + " bytes of addresses");
  return reinterpret_cast<uint64_t>(at);
}

Memory::Memory() {
  rangeBytes = uint64_t(1) << 40;
  // A page of slack: checks read the shadow of a whole vector at once.
  base = reserve(rangeBytes + pageBytes, PROT_NONE);
  shadow = reserve(rangeBytes + pageBytes, PROT_READ | PROT_WRITE);
  tags = reserve(2 * (rangeBytes + pageBytes), PROT_READ | PROT_WRITE);
  pages = reinterpret_cast<PageCounter *>(reserve(rangeBytes / pageBytes * sizeof(PageCounter), PROT_READ | PROT_WRITE));
  // The windows are used without allocations.
  if (mprotect(reinterpret_cast<void *>(base), allocationsBegin() - base, PROT_READ | PROT_WRITE))
    report_fatal_error("the stand-in cannot open its windows");
  next = allocationsBegin();
}

Memory::~Memory() {
  munmap(reinterpret_cast<void *>(base), rangeBytes + pageBytes);
  munmap(reinterpret_cast<void *>(shadow), rangeBytes + pageBytes);
  munmap(reinterpret_cast<void *>(tags), 2 * (rangeBytes + pageBytes));
  munmap(pages, rangeBytes / pageBytes * sizeof(PageCounter));
}

/// Pages of its own for each allocation, so that the page counters are its own too, and a page
/// before and behind it that is nobody's. Not at the beginning of its first page: nothing may rely
/// on more than 256.
uint64_t Memory::place(uint64_t bytes, StringRef what) {
  uint64_t end = base + rangeBytes - pageBytes;
  if (!bytes || bytes > end - next || alignTo(bytes + 256, pageBytes) + 2 * pageBytes > end - next)
    return 0;
  uint64_t address = next + pageBytes + 256;
  uint64_t pagesBegin = next + pageBytes, pagesEnd = alignTo(address + bytes, pageBytes);
  if (mprotect(reinterpret_cast<void *>(pagesBegin), pagesEnd - pagesBegin, PROT_READ | PROT_WRITE))
    return 0;
  next = pagesEnd;
  std::memset(shadowOf(address), Addressable, bytes);
  Allocation &allocation = byAddress[address];
  allocation.address = address;
  allocation.bytes = bytes;
  allocation.what = what.str();
  allocation.serial = ++serial;
  inUse += bytes;
  peak = std::max(peak, inUse);
  return address;
}

uint64_t Memory::allocate(uint64_t bytes, StringRef what) { return place(bytes, what); }

uint64_t Memory::allocateGlobal(uint64_t bytes, StringRef what, const void *data, uint64_t dataBytes, bool readOnly) {
  uint64_t address = place(bytes, what);
  if (!address)
    return 0;
  Allocation &allocation = byAddress[address];
  allocation.ofModule = true;
  allocation.readOnly = readOnly;
  if (dataBytes)
    std::memcpy(reinterpret_cast<void *>(address), data, std::min(bytes, dataBytes));
  std::memset(shadowOf(address), Addressable | Written | (readOnly ? NotWritable : 0), bytes);
  return address;
}

void Memory::release(Allocation &allocation) {
  uint64_t begin = alignDown(allocation.address, pageBytes), end = alignTo(allocation.end(), pageBytes);
  void *pagesAt = reinterpret_cast<void *>(begin);
  // Back to the system: data, shadow (which reads as 0 then: not addressable) and tags.
  madvise(pagesAt, end - begin, MADV_DONTNEED);
  mprotect(pagesAt, end - begin, PROT_NONE);
  madvise(shadowOf(begin), end - begin, MADV_DONTNEED);
  madvise(reinterpret_cast<void *>(tags + 2 * (begin - base)), 2 * (end - begin), MADV_DONTNEED);
  inUse -= allocation.bytes;
  allocation.freed = true;
}

static Report reportAt(Fault fault, uint64_t address, uint64_t bytes, const Twine &message) {
  Report report;
  report.fault = fault;
  report.message = message.str();
  report.address = address;
  report.bytes = uint32_t(bytes);
  return report;
}

static std::string hex(uint64_t address) { return "0x" + utohexstr(address, /*LowerCase=*/true); }
static std::string describe(const Allocation &allocation) {
  return "'" + allocation.what + "' (" + std::to_string(allocation.bytes) + " bytes)";
}

std::optional<Report> Memory::free(uint64_t address) {
  auto found = byAddress.find(address);
  if (found != byAddress.end() && !found->second.ofModule) {
    if (found->second.freed)
      return reportAt(Fault::DoubleFree, address, 0, "free of " + hex(address) + ", which is freed already: " + describe(found->second));
    release(found->second);
    return std::nullopt;
  }
  const Allocation *inside = find(address);
  return reportAt(Fault::BadFree, address, 0,
                  "free of " + hex(address) + ", which no allocation returned" + (inside ? ": it lies in " + describe(*inside) : ""));
}

void Memory::freeGlobal(uint64_t address) {
  auto found = byAddress.find(address);
  if (found != byAddress.end() && !found->second.freed)
    release(found->second);
}

const Allocation *Memory::find(uint64_t address) const {
  auto after = byAddress.upper_bound(address);
  if (after == byAddress.begin())
    return nullptr;
  const Allocation &allocation = std::prev(after)->second;
  return address - allocation.address < allocation.bytes ? &allocation : nullptr;
}

const Allocation *Memory::nearest(uint64_t address) const {
  auto after = byAddress.upper_bound(address);
  const Allocation *behind = after == byAddress.end() ? nullptr : &after->second;
  if (after == byAddress.begin())
    return behind;
  const Allocation *before = &std::prev(after)->second;
  if (!behind || address < before->end() || address - before->end() <= behind->address - address)
    return before;
  return behind;
}

std::vector<const Allocation *> Memory::live() const {
  std::vector<const Allocation *> result;
  forEachLive([&](const Allocation &allocation) {
    if (!allocation.ofModule)
      result.push_back(&allocation);
  });
  return result; // addresses ascend in the order of allocation
}

void Memory::forEachLive(function_ref<void(const Allocation &)> visit) const {
  for (const auto &[address, allocation] : byAddress)
    if (!allocation.freed)
      visit(allocation);
}

std::optional<Report> Memory::check(uint64_t address, uint64_t bytes, StringRef who, bool isRead) const {
  if (!bytes)
    return std::nullopt;
  std::string access = (who + ": " + (isRead ? "read of " : "write of ") + Twine(bytes) + " bytes at " + hex(address)).str();
  if (!isDeviceAddress(address))
    return reportAt(Fault::HostPointer, address, bytes, access + ", which is no device memory");
  const Allocation *allocation = find(address);
  if (!allocation) {
    allocation = nearest(address);
    if (!allocation)
      return reportAt(Fault::OutOfBounds, address, bytes, access + ", where nothing was allocated");
    if (address >= allocation->end())
      return reportAt(Fault::OutOfBounds, address, bytes,
                      access + " begins " + Twine(address - allocation->end()) + " bytes past the end of " + describe(*allocation));
    return reportAt(Fault::OutOfBounds, address, bytes,
                    access + " begins " + Twine(allocation->address - address) + " bytes before " + describe(*allocation));
  }
  if (allocation->freed)
    return reportAt(Fault::UseAfterFree, address, bytes, access + ", in memory that was freed: " + describe(*allocation));
  if (bytes > allocation->end() - address)
    return reportAt(Fault::OutOfBounds, address, bytes,
                    access + " ends " + Twine(bytes - (allocation->end() - address)) + " bytes past the end of " + describe(*allocation));
  // A host may write a .const variable (cuModuleGetGlobal): it is read-only for kernels.
  if (isRead)
    if (std::optional<uint64_t> first = firstUnwritten(address, bytes))
      return reportAt(Fault::UnwrittenGlobal, address, bytes,
                      access + ": byte " + Twine(*first - allocation->address) + " of " + describe(*allocation) + " has never been written");
  return std::nullopt;
}

std::optional<Report> Memory::checkRead(uint64_t address, uint64_t bytes, StringRef who) const { return check(address, bytes, who, true); }
std::optional<Report> Memory::checkWrite(uint64_t address, uint64_t bytes, StringRef who) const { return check(address, bytes, who, false); }

void Memory::markWritten(uint64_t address, uint64_t bytes) {
  const Allocation *allocation = find(address);
  bool readOnly = allocation && allocation->readOnly;
  std::memset(shadowOf(address), Addressable | Written | (readOnly ? NotWritable : 0), bytes);
}

void Memory::markUnwritten(uint64_t address, uint64_t bytes) { std::memset(shadowOf(address), Addressable, bytes); }

std::optional<uint64_t> Memory::firstUnwritten(uint64_t address, uint64_t bytes) const {
  const uint8_t *at = shadowOf(address);
  for (uint64_t i = 0; i < bytes; ++i)
    if (!(at[i] & Written))
      return address + i;
  return std::nullopt;
}

void Memory::clearTags() {
  madvise(reinterpret_cast<void *>(tags), 2 * (rangeBytes + pageBytes), MADV_DONTNEED);
  nextTag = 1;
}

Report Memory::explain(uint64_t address, uint64_t bytes, StringRef what, bool isRead) const {
  std::string access = (what + " of " + Twine(bytes) + (bytes == 1 ? " byte" : " bytes") + " at " + hex(address)).str();
  if (!address || address < pageBytes)
    return reportAt(Fault::HostPointer, address, bytes, access + ": a null pointer");
  if (!isDeviceAddress(address))
    return reportAt(Fault::HostPointer, address, bytes, access + ", which is no device memory: a pointer of the host");
  const Allocation *allocation = find(address);
  if (!allocation) {
    allocation = nearest(address);
    if (!allocation)
      return reportAt(Fault::OutOfBounds, address, bytes, access + ", where nothing was allocated");
    Fault fault = allocation->freed ? Fault::UseAfterFree : Fault::OutOfBounds;
    std::string freed = allocation->freed ? ", which is freed besides" : "";
    if (address >= allocation->end())
      return reportAt(fault, address, bytes,
                      access + " is " + Twine(address - allocation->end()) + " bytes past the end of " + describe(*allocation) + freed);
    return reportAt(fault, address, bytes,
                    access + " is " + Twine(allocation->address - address) + " bytes before " + describe(*allocation) + freed);
  }
  std::string where = ("byte " + Twine(address - allocation->address) + " of " + describe(*allocation)).str();
  if (allocation->freed)
    return reportAt(Fault::UseAfterFree, address, bytes, access + ": " + where + " was freed");
  if (bytes && address % bytes)
    return reportAt(Fault::Misaligned, address, bytes, access + " is not aligned to " + Twine(bytes) + ": " + where);
  if (bytes > allocation->end() - address)
    return reportAt(Fault::OutOfBounds, address, bytes,
                    access + " ends " + Twine(bytes - (allocation->end() - address)) + " bytes past the end of " + describe(*allocation));
  if (!isRead || !firstUnwritten(address, bytes))
    return reportAt(Fault::ReadOnly, address, bytes, access + ": " + where + " is read-only");
  return reportAt(Fault::UnwrittenGlobal, address, bytes,
                  access + ": byte " + Twine(*firstUnwritten(address, bytes) - allocation->address) + " of " + describe(*allocation) +
                      " has never been written");
}

} // namespace standin
