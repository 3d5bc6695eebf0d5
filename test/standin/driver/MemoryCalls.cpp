//===- MemoryCalls.cpp - memory of the stand-in driver: allocations, copies, memsets -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "State.h"
#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace standin::driver {

//===--- Device memory -----------------------------------------------------------===//

static uint64_t rounded(uint64_t bytes) { return (bytes + 511) / 512 * 512; }

static CUresult allocate(CUdeviceptr *out, size_t bytes, Context &context) {
  State &s = state();
  if (!out || bytes == 0)
    return CUDA_ERROR_INVALID_VALUE;
  uint64_t available = s.config.memory - std::min(s.config.memory, s.config.memoryUsed);
  if (bytes > available || rounded(bytes) > available - std::min(available, context.used))
    return CUDA_ERROR_OUT_OF_MEMORY;
  uint64_t address = context.memory->allocate(bytes, "allocation " + std::to_string(s.counts.device_allocations + 1));
  if (!address)
    return CUDA_ERROR_OUT_OF_MEMORY;
  context.used += rounded(bytes);
  context.allocations[address] = {address, bytes};
  s.counts.device_allocations += 1;
  s.counts.device_allocated_bytes += bytes;
  *out = address;
  return CUDA_SUCCESS;
}

/// The allocation that begins at an address and is not freed; a misuse is reported.
static AllocationEntry *freeable(uint64_t address, Context &context, const char *call) {
  auto found = context.allocations.find(address);
  if (found != context.allocations.end() && !found->second.freed && !found->second.freeQueued)
    return &found->second;
  if (found != context.allocations.end() && !found->second.freed)
    report("double-free", std::string(call) + ": the free of " + hex(address) + " is queued already");
  else if (std::optional<Report> fault = context.memory->free(address))
    report(*fault, call);
  return nullptr;
}

CU_API cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) {
  CU_ENTER(cuMemAlloc_v2, Need::Context);
  if (CUresult result = unsafeInCapture())
    return result;
  return allocate(address, bytes, *call.context);
}

/// Does not wait for queued work: that a driver does is no promise, and a kernel that runs later
/// is then caught using freed memory.
CU_API cuMemFree_v2(CUdeviceptr address) {
  CU_ENTER(cuMemFree_v2, Need::AnyContext);
  if (!address)
    return call.context->error;
  if (CUresult result = unsafeInCapture())
    return result;
  std::shared_ptr<Context> owner = contextOf(address);
  if (!owner)
    owner = call.context;
  AllocationEntry *entry = freeable(address, *owner, call.name);
  if (!entry)
    return CUDA_ERROR_INVALID_VALUE;
  if (std::optional<Report> fault = owner->memory->free(address)) {
    report(*fault, call.name);
    return CUDA_ERROR_INVALID_VALUE;
  }
  entry->freed = true;
  owner->used -= rounded(entry->bytes);
  state().counts.device_frees += 1;
  return owner->error;
}

CU_API cuMemAllocAsync(CUdeviceptr *address, size_t bytes, CUstream handle) {
  CU_ENTER(cuMemAllocAsync, Need::Context);
  CUresult result = CUDA_SUCCESS;
  std::shared_ptr<Stream> stream = findStream(handle, call, result);
  if (!stream)
    return result;
  if (isCapturing(*stream)) { // a node that allocates: the stand-in has none
    invalidate(*stream->capture);
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  return allocate(address, bytes, *stream->context);
}

CU_API cuMemFreeAsync(CUdeviceptr address, CUstream handle) {
  CU_ENTER(cuMemFreeAsync, Need::Context);
  CUresult result = CUDA_SUCCESS;
  std::shared_ptr<Stream> stream = findStream(handle, call, result);
  if (!stream)
    return result;
  if (isCapturing(*stream)) {
    invalidate(*stream->capture);
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  AllocationEntry *entry = freeable(address, *stream->context, call.name);
  if (!entry)
    return CUDA_ERROR_INVALID_VALUE;
  entry->freeQueued = true;
  state().counts.device_frees += 1;
  return submit(*stream, FreeOperation{address}, call.lock);
}

CU_API cuMemGetInfo_v2(size_t *available, size_t *total) {
  CU_ENTER(cuMemGetInfo_v2, Need::Context);
  if (!available || !total)
    return CUDA_ERROR_INVALID_VALUE;
  const Config &config = state().config;
  *total = config.memory;
  *available = config.memory - std::min(config.memory, config.memoryUsed + call.context->used);
  return CUDA_SUCCESS;
}

CU_API cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr address) {
  CU_ENTER(cuMemGetAddressRange_v2, Need::Context);
  std::shared_ptr<Context> owner = contextOf(address);
  const Allocation *allocation = owner ? owner->memory->find(address) : nullptr;
  if (!allocation || allocation->freed)
    return CUDA_ERROR_NOT_FOUND;
  if (base)
    *base = allocation->address;
  if (bytes)
    *bytes = allocation->bytes;
  return CUDA_SUCCESS;
}

//===--- Pinned memory --------------------------------------------------------------===//

static CUresult allocateHost(void **out, size_t bytes, unsigned flags, Call &call) {
  State &s = state();
  if (!out || bytes == 0 ||
      flags & ~unsigned(CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED))
    return CUDA_ERROR_INVALID_VALUE;
  if (CUresult result = unsafeInCapture())
    return result;
  void *memory = nullptr;
  if (bytes > SIZE_MAX / 2 || posix_memalign(&memory, 4096, bytes) != 0)
    return CUDA_ERROR_OUT_OF_MEMORY;
  memset(memory, 0xa5, bytes); // its first contents are no promise
  uint64_t address = reinterpret_cast<uint64_t>(memory);
  s.pinned[address] = {address, bytes, false, flags, call.context->handle};
  s.counts.pinned_allocations += 1;
  s.counts.pinned_allocated_bytes += bytes;
  *out = memory;
  return CUDA_SUCCESS;
}

CU_API cuMemAllocHost_v2(void **memory, size_t bytes) {
  CU_ENTER(cuMemAllocHost_v2, Need::Context);
  return allocateHost(memory, bytes, 0, call);
}

CU_API cuMemHostAlloc(void **memory, size_t bytes, unsigned flags) {
  CU_ENTER(cuMemHostAlloc, Need::Context);
  return allocateHost(memory, bytes, flags, call);
}

/// Takes a range out of the table. Copies that still use it are reported, and done first.
static CUresult unpin(void *memory, bool registered, CUresult otherwise, Call &call) {
  State &s = state();
  if (!memory)
    return CUDA_ERROR_INVALID_VALUE;
  auto found = s.pinned.find(reinterpret_cast<uint64_t>(memory));
  if (found == s.pinned.end() || found->second.registered != registered)
    return otherwise;
  if (CUresult result = unsafeInCapture())
    return result;
  Pinned pinned = found->second;
  while (WorkRef work = pendingOnHostRange(pinned.address, pinned.bytes)) {
    report("pinned-in-use", std::string(call.name) + ": a queued copy still uses the " + std::to_string(pinned.bytes) +
                                " bytes at " + hex(pinned.address));
    complete({work}, call.lock);
  }
  s.pinned.erase(pinned.address);
  if (!registered)
    free(memory);
  return call.context->error;
}

CU_API cuMemFreeHost(void *memory) {
  CU_ENTER(cuMemFreeHost, Need::AnyContext);
  return unpin(memory, false, CUDA_ERROR_INVALID_VALUE, call);
}

CU_API cuMemHostRegister_v2(void *memory, size_t bytes, unsigned flags) {
  CU_ENTER(cuMemHostRegister_v2, Need::Context);
  State &s = state();
  if (!memory || bytes == 0 ||
      flags & ~unsigned(CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTREGISTER_READ_ONLY))
    return CUDA_ERROR_INVALID_VALUE;
  if (CUresult result = unsafeInCapture())
    return result;
  uint64_t address = reinterpret_cast<uint64_t>(memory);
  for (auto &[begin, pinned] : s.pinned)
    if (begin < address + bytes && address < begin + pinned.bytes)
      return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
  s.pinned[address] = {address, bytes, true, flags, call.context->handle};
  s.counts.pinned_allocations += 1;
  s.counts.pinned_allocated_bytes += bytes;
  return CUDA_SUCCESS;
}

CU_API cuMemHostUnregister(void *memory) {
  CU_ENTER(cuMemHostUnregister, Need::AnyContext);
  return unpin(memory, true, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, call);
}

CU_API cuMemHostGetDevicePointer_v2(CUdeviceptr *, void *, unsigned) {
  CU_ENTER(cuMemHostGetDevicePointer_v2, Need::Context);
  report("not-supported", "cuMemHostGetDevicePointer: the stand-in's kernels do not see host memory");
  return CUDA_ERROR_NOT_SUPPORTED;
}

CU_API cuMemHostGetFlags(unsigned *flags, void *memory) {
  CU_ENTER(cuMemHostGetFlags, Need::Context);
  const Pinned *pinned = findPinned(reinterpret_cast<uint64_t>(memory), 1);
  if (!flags || !pinned || pinned->registered)
    return CUDA_ERROR_INVALID_VALUE;
  *flags = pinned->flags;
  return CUDA_SUCCESS;
}

//===--- What a pointer is ---------------------------------------------------------------===//

static CUresult attributeOf(void *data, CUpointer_attribute attribute, CUdeviceptr address) {
  State &s = state();
  std::shared_ptr<Context> owner = contextOf(address);
  const Allocation *allocation = owner ? owner->memory->find(address) : nullptr;
  if (allocation && allocation->freed)
    allocation = nullptr;
  const Pinned *pinned = owner ? nullptr : findPinned(address, 1);
  if (!data || (!allocation && !pinned))
    return CUDA_ERROR_INVALID_VALUE;
  switch (attribute) {
  case CU_POINTER_ATTRIBUTE_CONTEXT:
    *static_cast<CUcontext *>(data) = allocation ? owner->handle : pinned->context;
    return CUDA_SUCCESS;
  case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
    *static_cast<unsigned *>(data) = allocation ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
    return CUDA_SUCCESS;
  case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
    if (!allocation) // not mapped
      return CUDA_ERROR_INVALID_VALUE;
    *static_cast<CUdeviceptr *>(data) = address;
    return CUDA_SUCCESS;
  case CU_POINTER_ATTRIBUTE_HOST_POINTER:
    if (allocation)
      return CUDA_ERROR_INVALID_VALUE;
    *static_cast<CUdeviceptr *>(data) = address;
    return CUDA_SUCCESS;
  case CU_POINTER_ATTRIBUTE_BUFFER_ID:
    *static_cast<uint64_t *>(data) = allocation ? allocation->serial : pinned->address;
    return CUDA_SUCCESS;
  case CU_POINTER_ATTRIBUTE_IS_MANAGED:
    *static_cast<bool *>(data) = false;
    return CUDA_SUCCESS;
  case CU_POINTER_ATTRIBUTE_MAPPED:
    *static_cast<bool *>(data) = allocation != nullptr;
    return CUDA_SUCCESS;
  case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: {
    std::shared_ptr<Context> context = allocation ? owner : s.contexts.find(pinned->context);
    *static_cast<int *>(data) = context ? context->device : 0;
    return CUDA_SUCCESS;
  }
  case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
    *static_cast<CUdeviceptr *>(data) = allocation ? allocation->address : pinned->address;
    return CUDA_SUCCESS;
  case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
    *static_cast<size_t *>(data) = allocation ? allocation->bytes : pinned->bytes;
    return CUDA_SUCCESS;
  default:
    return CUDA_ERROR_NOT_SUPPORTED;
  }
}

CU_API cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr address) {
  CU_ENTER(cuPointerGetAttribute, Need::Context);
  return attributeOf(data, attribute, address);
}

/// Does not fail for memory that it does not know: the answers are 0.
CU_API cuPointerGetAttributes(unsigned count, CUpointer_attribute *attributes, void **data, CUdeviceptr address) {
  CU_ENTER(cuPointerGetAttributes, Need::Context);
  if (!count || !attributes || !data)
    return CUDA_ERROR_INVALID_VALUE;
  for (unsigned i = 0; i < count; ++i) {
    CUresult result = attributeOf(data[i], attributes[i], address);
    if (result == CUDA_ERROR_NOT_SUPPORTED || !data[i])
      return result;
    if (result == CUDA_SUCCESS)
      continue;
    bool isByte = attributes[i] == CU_POINTER_ATTRIBUTE_IS_MANAGED || attributes[i] == CU_POINTER_ATTRIBUTE_MAPPED;
    bool isInt =
        attributes[i] == CU_POINTER_ATTRIBUTE_MEMORY_TYPE || attributes[i] == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL;
    memset(data[i], 0, isByte ? 1 : isInt ? 4 : 8);
  }
  return CUDA_SUCCESS;
}

//===--- Copies -------------------------------------------------------------------------------===//

static CopyOperation flat(uint64_t destination, bool toDevice, uint64_t source, bool fromDevice, size_t bytes) {
  CopyOperation copy;
  copy.destination = {toDevice, destination, bytes, 1};
  copy.source = {fromDevice, source, bytes, 1};
  copy.width = bytes;
  return copy;
}

static bool isPageable(const CopySide &side, uint64_t bytes) {
  return !side.isDevice && !findPinned(side.address, bytes);
}

/// A copy whose call returns when the bytes have been copied, or at least taken.
static CUresult copyNow(CopyOperation copy, Call &call) {
  if (CUresult result = checkCopy(copy, call.name))
    return result;
  if (CUresult result = unsafeInCapture())
    return result;
  if (copy.bytes() == 0)
    return CUDA_SUCCESS;
  Stream &stream = *call.context->legacy;
  bool waits = !copy.destination.isDevice || !copy.source.isDevice;
  WorkRef work;
  if (CUresult result = submit(stream, std::move(copy), call.lock, &work))
    return result;
  if (waits) { // from device to device it is as asynchronous as a kernel
    state().counts.synchronisations += 1;
    complete({work}, call.lock);
  }
  return call.context->error;
}

static CUresult copyLater(CopyOperation copy, CUstream handle, Call &call) {
  CUresult result = CUDA_SUCCESS;
  std::shared_ptr<Stream> stream = findStream(handle, call, result);
  if (!stream)
    return result;
  if (CUresult wrong = checkCopy(copy, call.name))
    return wrong;
  if (copy.bytes() == 0)
    return CUDA_SUCCESS;
  bool fromPageable = isPageable(copy.source, copy.bytes()), toPageable = isPageable(copy.destination, copy.bytes());
  if (isCapturing(*stream) && (fromPageable || toPageable)) {
    report("pageable-copy-in-capture",
           std::string(call.name) + ": the host memory of " + std::to_string(copy.bytes()) + " bytes at " +
               hex(fromPageable ? copy.source.address : copy.destination.address) + " is not pinned");
    invalidate(*stream->capture);
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  if (fromPageable) {
    // A driver takes pageable bytes at once into memory of its own.
    auto *begin = reinterpret_cast<const uint8_t *>(copy.source.address);
    copy.staged.assign(begin, begin + copy.bytes());
  }
  WorkRef work;
  if (CUresult wrong = submit(*stream, std::move(copy), call.lock, &work))
    return wrong;
  if (toPageable && work) { // returns only when they are there
    complete({work}, call.lock);
    return stream->context->error;
  }
  return CUDA_SUCCESS;
}

static bool isDevicePointer(uint64_t address) { return contextOf(address) != nullptr; }

CU_API cuMemcpy(CUdeviceptr destination, CUdeviceptr source, size_t bytes) {
  CU_ENTER(cuMemcpy, Need::Context);
  return copyNow(flat(destination, isDevicePointer(destination), source, isDevicePointer(source), bytes), call);
}

CU_API cuMemcpyAsync(CUdeviceptr destination, CUdeviceptr source, size_t bytes, CUstream stream) {
  CU_ENTER(cuMemcpyAsync, Need::Context);
  return copyLater(flat(destination, isDevicePointer(destination), source, isDevicePointer(source), bytes), stream,
                   call);
}

CU_API cuMemcpyHtoD_v2(CUdeviceptr destination, const void *source, size_t bytes) {
  CU_ENTER(cuMemcpyHtoD_v2, Need::Context);
  return copyNow(flat(destination, true, reinterpret_cast<uint64_t>(source), false, bytes), call);
}

CU_API cuMemcpyDtoH_v2(void *destination, CUdeviceptr source, size_t bytes) {
  CU_ENTER(cuMemcpyDtoH_v2, Need::Context);
  return copyNow(flat(reinterpret_cast<uint64_t>(destination), false, source, true, bytes), call);
}

CU_API cuMemcpyDtoD_v2(CUdeviceptr destination, CUdeviceptr source, size_t bytes) {
  CU_ENTER(cuMemcpyDtoD_v2, Need::Context);
  return copyNow(flat(destination, true, source, true, bytes), call);
}

CU_API cuMemcpyHtoDAsync_v2(CUdeviceptr destination, const void *source, size_t bytes, CUstream stream) {
  CU_ENTER(cuMemcpyHtoDAsync_v2, Need::Context);
  return copyLater(flat(destination, true, reinterpret_cast<uint64_t>(source), false, bytes), stream, call);
}

CU_API cuMemcpyDtoHAsync_v2(void *destination, CUdeviceptr source, size_t bytes, CUstream stream) {
  CU_ENTER(cuMemcpyDtoHAsync_v2, Need::Context);
  return copyLater(flat(reinterpret_cast<uint64_t>(destination), false, source, true, bytes), stream, call);
}

CU_API cuMemcpyDtoDAsync_v2(CUdeviceptr destination, CUdeviceptr source, size_t bytes, CUstream stream) {
  CU_ENTER(cuMemcpyDtoDAsync_v2, Need::Context);
  return copyLater(flat(destination, true, source, true, bytes), stream, call);
}

//===--- Memsets ---------------------------------------------------------------------------------===//

static CUresult set(CUdeviceptr address, uint32_t value, uint32_t elementBytes, size_t count, CUstream handle,
                    bool isAsync, Call &call) {
  CUresult result = CUDA_SUCCESS;
  std::shared_ptr<Stream> stream = findStream(handle, call, result);
  if (!stream)
    return result;
  SetOperation operation{address, 0, count, 1, value, elementBytes};
  if (CUresult wrong = checkSet(operation, call.name))
    return wrong;
  if (!isAsync)
    if (CUresult wrong = unsafeInCapture())
      return wrong;
  return count ? submit(*stream, operation, call.lock) : CUDA_SUCCESS;
}

CU_API cuMemsetD8_v2(CUdeviceptr address, unsigned char value, size_t count) {
  CU_ENTER(cuMemsetD8_v2, Need::Context);
  return set(address, value, 1, count, nullptr, false, call);
}

CU_API cuMemsetD16_v2(CUdeviceptr address, unsigned short value, size_t count) {
  CU_ENTER(cuMemsetD16_v2, Need::Context);
  return set(address, value, 2, count, nullptr, false, call);
}

CU_API cuMemsetD32_v2(CUdeviceptr address, unsigned value, size_t count) {
  CU_ENTER(cuMemsetD32_v2, Need::Context);
  return set(address, value, 4, count, nullptr, false, call);
}

CU_API cuMemsetD8Async(CUdeviceptr address, unsigned char value, size_t count, CUstream stream) {
  CU_ENTER(cuMemsetD8Async, Need::Context);
  return set(address, value, 1, count, stream, true, call);
}

CU_API cuMemsetD16Async(CUdeviceptr address, unsigned short value, size_t count, CUstream stream) {
  CU_ENTER(cuMemsetD16Async, Need::Context);
  return set(address, value, 2, count, stream, true, call);
}

CU_API cuMemsetD32Async(CUdeviceptr address, unsigned value, size_t count, CUstream stream) {
  CU_ENTER(cuMemsetD32Async, Need::Context);
  return set(address, value, 4, count, stream, true, call);
}

} // namespace standin::driver
