//===- Device.cpp - devices and contexts of the stand-in driver -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "State.h"
#include <cstring>

namespace standin::driver {

static bool isDevice(CUdevice device) { return device >= 0 && device < state().config.devices; }

Limits limits() {
  switch (state().config.capability) {
  case 75:
    return {48 << 10, 64 << 10, 64 << 10, 0, 1024, 16};
  case 80:
  case 87:
    return {48 << 10, 163 << 10, 164 << 10, 1024, 2048, 32};
  case 86:
    return {48 << 10, 99 << 10, 100 << 10, 1024, 1536, 16};
  case 89:
    return {48 << 10, 99 << 10, 100 << 10, 1024, 1536, 24};
  case 120:
    return {48 << 10, 99 << 10, 100 << 10, 1024, 1536, 32};
  default:
    if (state().config.capability >= 90)
      return {48 << 10, 227 << 10, 228 << 10, 1024, 2048, 32};
    return {48 << 10, 48 << 10, 64 << 10, 0, 2048, 32};
  }
}

static int attributeOf(CUdevice_attribute attribute, CUdevice device) {
  const Config &config = state().config;
  Limits limits = driver::limits();
  switch (attribute) {
  case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
  case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
  case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y:
    return 1024;
  case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z:
    return 64;
  case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X:
    return 0x7fffffff;
  case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
  case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z:
    return 65535;
  case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK:
    return limits.shared;
  case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
    return limits.sharedOptIn;
  case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR:
    return limits.sharedOfMultiprocessor;
  case CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK:
    return limits.sharedReserved;
  case CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY:
    return 65536;
  case CU_DEVICE_ATTRIBUTE_WARP_SIZE:
    return 32;
  case CU_DEVICE_ATTRIBUTE_MAX_PITCH:
    return 0x7fffffff;
  case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
  case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR:
    return 65536;
  case CU_DEVICE_ATTRIBUTE_CLOCK_RATE:
  case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE:
    return 1000000; // kHz
  case CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT:
    return 512;
  case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
    return config.multiprocessors;
  case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR:
    return limits.threadsOfMultiprocessor;
  case CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR:
    return limits.blocksOfMultiprocessor;
  case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH:
    return 512;
  case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE:
    return 4 << 20;
  case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT:
    return 2;
  case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID:
    return device + 1;
  case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
    return config.capability / 10;
  case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
    return config.capability % 10;
  case CU_DEVICE_ATTRIBUTE_GPU_OVERLAP:
  case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS:
  case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
  case CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED:
  case CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED:
  case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED:
    return 1;
  default: // features that the stand-in has not: mapped host memory, managed memory, clusters, …
    return 0;
  }
}

/// A new primary context of the device.
static std::shared_ptr<Context> makeContext(int device) {
  State &s = state();
  auto context = std::make_shared<Context>();
  context->device = device;
  context->memory = std::make_unique<Memory>();
  context->handle = s.contexts.add(context);
  context->legacy = std::make_shared<Stream>();
  context->legacy->context = context;
  context->legacy->id = s.nextId++;
  return context;
}

CU_API cuInit(unsigned flags) {
  CU_ENTER(cuInit, Need::Nothing);
  if (flags)
    return CUDA_ERROR_INVALID_VALUE;
  if (state().config.devices == 0)
    return CUDA_ERROR_NO_DEVICE;
  state().initialised = true;
  return CUDA_SUCCESS;
}

CU_API cuDriverGetVersion(int *version) {
  CU_ENTER(cuDriverGetVersion, Need::Nothing);
  if (!version)
    return CUDA_ERROR_INVALID_VALUE;
  *version = state().config.driverVersion;
  return CUDA_SUCCESS;
}

CU_API cuDeviceGetCount(int *count) {
  CU_ENTER(cuDeviceGetCount, Need::Initialised);
  if (!count)
    return CUDA_ERROR_INVALID_VALUE;
  *count = state().config.devices;
  return CUDA_SUCCESS;
}

CU_API cuDeviceGet(CUdevice *device, int ordinal) {
  CU_ENTER(cuDeviceGet, Need::Initialised);
  if (!device)
    return CUDA_ERROR_INVALID_VALUE;
  if (!isDevice(ordinal))
    return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}

CU_API cuDeviceGetName(char *name, int length, CUdevice device) {
  CU_ENTER(cuDeviceGetName, Need::Initialised);
  if (!name || length <= 0)
    return CUDA_ERROR_INVALID_VALUE;
  if (!isDevice(device))
    return CUDA_ERROR_INVALID_DEVICE;
  std::string full = "Stand-in GPU " + std::to_string(device);
  size_t count = std::min(full.size(), size_t(length) - 1);
  memcpy(name, full.data(), count);
  name[count] = 0;
  return CUDA_SUCCESS;
}

CU_API cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device) {
  CU_ENTER(cuDeviceGetUuid_v2, Need::Initialised);
  if (!uuid)
    return CUDA_ERROR_INVALID_VALUE;
  if (!isDevice(device))
    return CUDA_ERROR_INVALID_DEVICE;
  memset(uuid->bytes, 0, sizeof uuid->bytes);
  memcpy(uuid->bytes, "stand-in", 8);
  uuid->bytes[15] = char(device);
  return CUDA_SUCCESS;
}

CU_API cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
  CU_ENTER(cuDeviceTotalMem_v2, Need::Initialised);
  if (!bytes)
    return CUDA_ERROR_INVALID_VALUE;
  if (!isDevice(device))
    return CUDA_ERROR_INVALID_DEVICE;
  *bytes = state().config.memory;
  return CUDA_SUCCESS;
}

CU_API cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  CU_ENTER(cuDeviceGetAttribute, Need::Initialised);
  if (!value || attribute <= 0 || attribute >= CU_DEVICE_ATTRIBUTE_MAX)
    return CUDA_ERROR_INVALID_VALUE;
  if (!isDevice(device))
    return CUDA_ERROR_INVALID_DEVICE;
  *value = attributeOf(attribute, device);
  return CUDA_SUCCESS;
}

CU_API cuDeviceComputeCapability(int *major, int *minor, CUdevice device) {
  CU_ENTER(cuDeviceComputeCapability, Need::Initialised);
  if (!major || !minor)
    return CUDA_ERROR_INVALID_VALUE;
  if (!isDevice(device))
    return CUDA_ERROR_INVALID_DEVICE;
  *major = state().config.capability / 10;
  *minor = state().config.capability % 10;
  return CUDA_SUCCESS;
}

CU_API cuDevicePrimaryCtxRetain(CUcontext *handle, CUdevice device) {
  CU_ENTER(cuDevicePrimaryCtxRetain, Need::Initialised);
  if (!handle)
    return CUDA_ERROR_INVALID_VALUE;
  if (!isDevice(device))
    return CUDA_ERROR_INVALID_DEVICE;
  State::Primary &primary = state().primaries[device];
  if (!primary.context)
    primary.context = makeContext(device);
  ++primary.retained;
  *handle = primary.context->handle;
  return CUDA_SUCCESS;
}

static CUresult dropPrimary(CUdevice device, const char *why, Lock &lock) {
  State::Primary &primary = state().primaries[device];
  std::shared_ptr<Context> context = std::move(primary.context);
  primary.context = nullptr;
  complete(pendingOf(context.get()), lock);
  destroyContext(context, why);
  return CUDA_SUCCESS;
}

CU_API cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  CU_ENTER(cuDevicePrimaryCtxRelease_v2, Need::Initialised);
  if (!isDevice(device))
    return CUDA_ERROR_INVALID_DEVICE;
  State::Primary &primary = state().primaries[device];
  if (primary.retained == 0)
    return CUDA_ERROR_INVALID_CONTEXT;
  if (--primary.retained == 0)
    return dropPrimary(device, "the release of the primary context", call.lock);
  return CUDA_SUCCESS;
}

CU_API cuDevicePrimaryCtxReset_v2(CUdevice device) {
  CU_ENTER(cuDevicePrimaryCtxReset_v2, Need::Initialised);
  if (!isDevice(device))
    return CUDA_ERROR_INVALID_DEVICE;
  State::Primary &primary = state().primaries[device];
  primary.retained = 0;
  return primary.context ? dropPrimary(device, "the reset of the primary context", call.lock) : CUDA_SUCCESS;
}

CU_API cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned flags) {
  CU_ENTER(cuDevicePrimaryCtxSetFlags_v2, Need::Initialised);
  if (!isDevice(device))
    return CUDA_ERROR_INVALID_DEVICE;
  if (flags & ~unsigned(CU_CTX_FLAGS_MASK))
    return CUDA_ERROR_INVALID_VALUE;
  state().primaries[device].flags = flags;
  return CUDA_SUCCESS;
}

CU_API cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) {
  CU_ENTER(cuDevicePrimaryCtxGetState, Need::Initialised);
  if (!isDevice(device))
    return CUDA_ERROR_INVALID_DEVICE;
  if (!flags || !active)
    return CUDA_ERROR_INVALID_VALUE;
  *flags = state().primaries[device].flags;
  *active = state().primaries[device].retained != 0;
  return CUDA_SUCCESS;
}

static bool isContext(CUcontext context, const Call &call) {
  return !context || lookUp(state().contexts, context, call.name);
}

CU_API cuCtxSetCurrent(CUcontext context) {
  CU_ENTER(cuCtxSetCurrent, Need::Initialised);
  if (!isContext(context, call))
    return CUDA_ERROR_INVALID_CONTEXT;
  std::vector<CUcontext> &stack = stackOfThread();
  if (!stack.empty())
    stack.pop_back();
  if (context)
    stack.push_back(context);
  return CUDA_SUCCESS;
}

CU_API cuCtxGetCurrent(CUcontext *context) {
  CU_ENTER(cuCtxGetCurrent, Need::Initialised);
  if (!context)
    return CUDA_ERROR_INVALID_VALUE;
  *context = stackOfThread().empty() ? nullptr : stackOfThread().back();
  return CUDA_SUCCESS;
}

CU_API cuCtxPushCurrent_v2(CUcontext context) {
  CU_ENTER(cuCtxPushCurrent_v2, Need::Initialised);
  if (!context || !isContext(context, call))
    return CUDA_ERROR_INVALID_CONTEXT;
  stackOfThread().push_back(context);
  return CUDA_SUCCESS;
}

CU_API cuCtxPopCurrent_v2(CUcontext *context) {
  CU_ENTER(cuCtxPopCurrent_v2, Need::Initialised);
  if (stackOfThread().empty())
    return CUDA_ERROR_INVALID_CONTEXT;
  if (context)
    *context = stackOfThread().back();
  stackOfThread().pop_back();
  return CUDA_SUCCESS;
}

CU_API cuCtxGetDevice(CUdevice *device) {
  CU_ENTER(cuCtxGetDevice, Need::AnyContext);
  if (!device)
    return CUDA_ERROR_INVALID_VALUE;
  *device = call.context->device;
  return CUDA_SUCCESS;
}

CU_API cuCtxGetFlags(unsigned *flags) {
  CU_ENTER(cuCtxGetFlags, Need::AnyContext);
  if (!flags)
    return CUDA_ERROR_INVALID_VALUE;
  *flags = state().primaries[call.context->device].flags;
  return CUDA_SUCCESS;
}

CU_API cuCtxGetApiVersion(CUcontext context, unsigned *version) {
  CU_ENTER(cuCtxGetApiVersion, Need::Initialised);
  if (!version)
    return CUDA_ERROR_INVALID_VALUE;
  if (context ? !isContext(context, call) : !call.context)
    return CUDA_ERROR_INVALID_CONTEXT;
  *version = unsigned(state().config.driverVersion);
  return CUDA_SUCCESS;
}

CU_API cuCtxGetStreamPriorityRange(int *least, int *greatest) {
  CU_ENTER(cuCtxGetStreamPriorityRange, Need::Context);
  if (least)
    *least = 0;
  if (greatest)
    *greatest = -5;
  return CUDA_SUCCESS;
}

CU_API cuCtxSynchronize() {
  CU_ENTER(cuCtxSynchronize, Need::Context);
  if (CUresult result = unsafeInCapture())
    return result;
  state().counts.synchronisations += 1;
  complete(pendingOf(call.context.get()), call.lock);
  return call.context->error;
}

CU_API cuProfilerStart() {
  CU_ENTER(cuProfilerStart, Need::Context);
  return CUDA_SUCCESS;
}

CU_API cuProfilerStop() {
  CU_ENTER(cuProfilerStop, Need::Context);
  return CUDA_SUCCESS;
}

} // namespace standin::driver
