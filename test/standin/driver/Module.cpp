//===- Module.cpp - modules, kernels and launches of the stand-in driver -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "State.h"
#include "llvm/ADT/StringExtras.h"
#include <algorithm>
#include <cstring>

namespace standin::driver {

//===--- Images -----------------------------------------------------------------===//

/// The newest PTX that a driver of this version compiles: 13.0 → 9.0.
static int newestPtx(int driverVersion) {
  int major = driverVersion / 1000, minor = driverVersion % 1000 / 10;
  if (major < 11)
    return 60 + minor; // too old for anything that is made today
  if (major == 11)
    return 70 + minor;
  if (major == 12)
    return minor <= 5 ? 80 + minor : 79 + minor; // 12.6 came without a new version of PTX
  return 90 + minor + 10 * (major - 13);
}

/// The number after a directive at the beginning of PTX: ".version 8.0" → 80, ".target sm_90" → 90.
static int directive(llvm::StringRef text, llvm::StringRef name, llvm::StringRef prefix, char &suffix) {
  size_t at = text.find(name);
  suffix = 0;
  if (at == llvm::StringRef::npos)
    return 0;
  llvm::StringRef rest = text.drop_front(at + name.size()).ltrim();
  if (!rest.consume_front(prefix))
    return 0;
  int value = 0;
  while (!rest.empty() && (llvm::isDigit(rest[0]) || rest[0] == '.')) {
    if (rest[0] != '.')
      value = 10 * value + rest[0] - '0';
    rest = rest.drop_front();
  }
  if (!rest.empty())
    suffix = rest[0];
  return value;
}

/// An upper bound of the registers that a thread of each kernel takes: those that its PTX declares,
/// no more than there are, and no more than leaves room for a block of the largest size it names.
static std::map<std::string, unsigned> countRegisters(llvm::StringRef ptx, const Module &module) {
  std::map<std::string, unsigned> result;
  for (const Kernel *kernel : module.kernels()) {
    unsigned words = 0;
    size_t at = 0;
    for (;;) {
      at = ptx.find(kernel->name, at);
      if (at == llvm::StringRef::npos)
        break;
      size_t end = at + kernel->name.size();
      bool isEntry = ptx.take_front(at).rtrim().ends_with(".entry") && (end == ptx.size() || !llvm::isAlnum(ptx[end]));
      at = end;
      if (!isEntry)
        continue;
      llvm::StringRef body = ptx.drop_front(end);
      body = body.take_front(std::min(body.find(".entry"), body.find(".func")));
      for (size_t reg = body.find(".reg"); reg != llvm::StringRef::npos; reg = body.find(".reg", reg + 4)) {
        llvm::StringRef line = body.drop_front(reg).take_until([](char c) { return c == ';'; });
        unsigned count = 1;
        auto [before, angle] = line.split('<');
        if (!angle.empty())
          angle.take_until([](char c) { return c == '>'; }).getAsInteger(10, count);
        words += line.contains("pred") ? 0 : line.contains("128") ? 4 * count : line.contains("64") ? 2 * count : count;
      }
      break;
    }
    unsigned threads = kernel->reqThreads   ? unsigned(kernel->reqThreads->count())
                       : kernel->maxThreads ? unsigned(kernel->maxThreads->count())
                                            : 1024;
    unsigned room = 65536 / std::max(threads, 1u) / 8 * 8;
    result[kernel->name] = std::max(16u, std::min({(words + 7) / 8 * 8, 255u, room}));
  }
  return result;
}

/// cuModuleLoadDataEx's options: where to write what the compiler says.
struct LogBuffers {
  char *error = nullptr, *info = nullptr;
  size_t errorBytes = 0, infoBytes = 0;
  void **errorBytesOut = nullptr, **infoBytesOut = nullptr;

  static void write(char *buffer, size_t bytes, void **out, const std::string &text) {
    size_t count = buffer && bytes ? std::min(text.size(), bytes - 1) : 0;
    if (buffer && bytes) {
      memcpy(buffer, text.data(), count);
      buffer[count] = 0;
    }
    if (out)
      *out = reinterpret_cast<void *>(count);
  }
  void writeError(const std::string &text) const { write(error, errorBytes, errorBytesOut, text); }
};

static CUresult readOptions(unsigned count, const CUjit_option *options, void **values, LogBuffers &log) {
  if (count && (!options || !values))
    return CUDA_ERROR_INVALID_VALUE;
  for (unsigned i = 0; i < count; ++i) {
    size_t value = reinterpret_cast<size_t>(values[i]);
    switch (options[i]) {
    case CU_JIT_ERROR_LOG_BUFFER:
      log.error = static_cast<char *>(values[i]);
      break;
    case CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES:
      log.errorBytes = unsigned(value);
      log.errorBytesOut = &values[i];
      break;
    case CU_JIT_INFO_LOG_BUFFER:
      log.info = static_cast<char *>(values[i]);
      break;
    case CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES:
      log.infoBytes = unsigned(value);
      log.infoBytesOut = &values[i];
      break;
    default:
      if (options[i] < 0 || options[i] >= CU_JIT_NUM_OPTIONS)
        return CUDA_ERROR_INVALID_VALUE;
    }
  }
  return CUDA_SUCCESS;
}

static CUresult loadModule(const void *image, const LogBuffers &log, Call &call, bool isLibrary, CUmodule *out) {
  State &s = state();
  if (!image || !out)
    return CUDA_ERROR_INVALID_VALUE;
  if (CUresult result = unsafeInCapture())
    return result;
  LogBuffers::write(log.info, log.infoBytes, log.infoBytesOut, "");
  log.writeError("");
  const auto *bytes = static_cast<const unsigned char *>(image);
  if (memcmp(bytes,
             "\x7f"
             "ELF",
             4) == 0 ||
      memcmp(bytes, "\x50\xed\x55\xba", 4) == 0)
    return CUDA_ERROR_NO_BINARY_FOR_GPU; // a cubin or a fat binary: only PTX runs here
  llvm::StringRef text(static_cast<const char *>(image));
  char suffix;
  int version = directive(text, ".version", "", suffix);
  if (version == 0)
    return CUDA_ERROR_INVALID_IMAGE;
  if (int newest = newestPtx(s.config.driverVersion); version > newest) {
    log.writeError("ptxas application ptx input, line 1; fatal   : Unsupported .version " +
                   std::to_string(version / 10) + "." + std::to_string(version % 10) + "; current version is '" +
                   std::to_string(newest / 10) + "." + std::to_string(newest % 10) + "'");
    return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
  }
  int target = directive(text, ".target", "sm_", suffix);
  bool specific = suffix == 'a', family = suffix == 'f';
  if (target > s.config.capability || (specific && target != s.config.capability) ||
      (family && target / 10 != s.config.capability / 10)) {
    log.writeError("ptxas fatal   : SM version specified by .target, sm_" + std::to_string(target) +
                   (suffix && suffix > ' ' ? std::string(1, suffix) : "") + ", does not run on sm_" +
                   std::to_string(s.config.capability));
    return specific || family ? CUDA_ERROR_NO_BINARY_FOR_GPU : CUDA_ERROR_INVALID_PTX;
  }
  std::string name = "module " + std::to_string(s.counts.modules + 1);
  llvm::Expected<std::unique_ptr<Module>> module = Module::load(*call.context->memory, text, name);
  if (!module) {
    log.writeError("ptxas fatal   : " + llvm::toString(module.takeError()));
    return CUDA_ERROR_INVALID_PTX;
  }
  auto object = std::make_shared<ModuleObject>();
  object->context = call.context.get();
  object->isLibrary = isLibrary;
  object->module = std::move(*module);
  object->registers = countRegisters(text, *object->module);
  object->handle = s.modules.add(object);
  s.counts.modules += 1;
  *out = object->handle;
  return CUDA_SUCCESS;
}

static CUresult unload(CUmodule handle, bool isLibrary, Call &call) {
  State &s = state();
  std::shared_ptr<ModuleObject> module = lookUp(s.modules, handle, call.name);
  if (!module || module->isLibrary != isLibrary)
    return CUDA_ERROR_INVALID_HANDLE;
  if (CUresult result = unsafeInCapture())
    return result;
  bool used = false;
  for (auto &[serial, work] : s.pending)
    if (const auto *kernel = work->operation ? std::get_if<KernelOperation>(&*work->operation) : nullptr)
      used |= kernel->function->module == module;
  if (used)
    report("module-in-use",
           std::string(call.name) + ": kernels of '" + module->module->name().str() + "' are still queued");
  for (auto &[name, function] : module->functions)
    s.functions.erase(function);
  s.modules.erase(handle);
  return call.context->error;
}

static CUresult functionOf(CUfunction *out, CUmodule handle, const char *name, const Call &call) {
  State &s = state();
  if (!out || !name)
    return CUDA_ERROR_INVALID_VALUE;
  std::shared_ptr<ModuleObject> module = lookUp(s.modules, handle, call.name);
  if (!module)
    return CUDA_ERROR_INVALID_HANDLE;
  if (auto found = module->functions.find(name); found != module->functions.end()) {
    *out = found->second;
    return CUDA_SUCCESS;
  }
  const Kernel *kernel = module->module->kernel(name);
  if (!kernel)
    return CUDA_ERROR_NOT_FOUND;
  auto function = std::make_shared<FunctionObject>();
  function->module = module;
  function->kernel = kernel;
  *out = function->handle = s.functions.add(function);
  module->functions[name] = function->handle;
  return CUDA_SUCCESS;
}

static CUresult globalOf(CUdeviceptr *address, size_t *bytes, CUmodule handle, const char *name, const Call &call) {
  if (!name || (!address && !bytes))
    return CUDA_ERROR_INVALID_VALUE;
  std::shared_ptr<ModuleObject> module = lookUp(state().modules, handle, call.name);
  if (!module)
    return CUDA_ERROR_INVALID_HANDLE;
  const Global *global = module->module->global(name);
  if (!global)
    return CUDA_ERROR_NOT_FOUND;
  if (address)
    *address = global->address;
  if (bytes)
    *bytes = global->bytes;
  return CUDA_SUCCESS;
}

CU_API cuModuleLoadData(CUmodule *module, const void *image) {
  CU_ENTER(cuModuleLoadData, Need::Context);
  return loadModule(image, {}, call, false, module);
}

CU_API cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned count, CUjit_option *options, void **values) {
  CU_ENTER(cuModuleLoadDataEx, Need::Context);
  LogBuffers log;
  if (CUresult result = readOptions(count, options, values, log))
    return result;
  return loadModule(image, log, call, false, module);
}

CU_API cuModuleUnload(CUmodule module) {
  CU_ENTER(cuModuleUnload, Need::AnyContext);
  return unload(module, false, call);
}

CU_API cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  CU_ENTER(cuModuleGetFunction, Need::Context);
  return functionOf(function, module, name, call);
}

CU_API cuModuleGetGlobal_v2(CUdeviceptr *address, size_t *bytes, CUmodule module, const char *name) {
  CU_ENTER(cuModuleGetGlobal_v2, Need::Context);
  return globalOf(address, bytes, module, name, call);
}

CU_API cuModuleGetLoadingMode(CUmoduleLoadingMode *mode) {
  CU_ENTER(cuModuleGetLoadingMode, Need::Initialised);
  if (!mode)
    return CUDA_ERROR_INVALID_VALUE;
  *mode = CU_MODULE_EAGER_LOADING;
  return CUDA_SUCCESS;
}

// A library here belongs to the context that was current when it was loaded, and a kernel's handle
// is also that of its function.
static CUmodule moduleOf(CUlibrary library) { return reinterpret_cast<CUmodule>(library); }

CU_API cuLibraryLoadData(CUlibrary *library, const void *code, CUjit_option *options, void **values, unsigned count,
                         CUlibraryOption *libraryOptions, void **libraryValues, unsigned libraryCount) {
  CU_ENTER(cuLibraryLoadData, Need::Context);
  LogBuffers log;
  if (CUresult result = readOptions(count, options, values, log))
    return result;
  if (libraryCount && (!libraryOptions || !libraryValues))
    return CUDA_ERROR_INVALID_VALUE;
  return loadModule(code, log, call, true, reinterpret_cast<CUmodule *>(library));
}

CU_API cuLibraryUnload(CUlibrary library) {
  CU_ENTER(cuLibraryUnload, Need::AnyContext);
  return unload(moduleOf(library), true, call);
}

CU_API cuLibraryGetKernel(CUkernel *kernel, CUlibrary library, const char *name) {
  CU_ENTER(cuLibraryGetKernel, Need::Context);
  return functionOf(reinterpret_cast<CUfunction *>(kernel), moduleOf(library), name, call);
}

CU_API cuLibraryGetModule(CUmodule *module, CUlibrary library) {
  CU_ENTER(cuLibraryGetModule, Need::Context);
  if (!module)
    return CUDA_ERROR_INVALID_VALUE;
  if (!lookUp(state().modules, moduleOf(library), call.name))
    return CUDA_ERROR_INVALID_HANDLE;
  *module = moduleOf(library);
  return CUDA_SUCCESS;
}

CU_API cuLibraryGetGlobal(CUdeviceptr *address, size_t *bytes, CUlibrary library, const char *name) {
  CU_ENTER(cuLibraryGetGlobal, Need::Context);
  return globalOf(address, bytes, moduleOf(library), name, call);
}

CU_API cuKernelGetFunction(CUfunction *function, CUkernel kernel) {
  CU_ENTER(cuKernelGetFunction, Need::Context);
  if (!function)
    return CUDA_ERROR_INVALID_VALUE;
  *function = reinterpret_cast<CUfunction>(kernel);
  return lookUp(state().functions, *function, call.name) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

//===--- Functions -------------------------------------------------------------------===//

static unsigned threadLimit(const Kernel &kernel) {
  return kernel.reqThreads   ? unsigned(kernel.reqThreads->count())
         : kernel.maxThreads ? unsigned(kernel.maxThreads->count())
                             : 1024;
}

static uint32_t dynamicSharedLimit(const FunctionObject &function) {
  return function.maxDynamicShared ? function.maxDynamicShared
                                   : std::max(0, (48 << 10) - int(function.kernel->staticSharedBytes));
}

CU_API cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction handle) {
  CU_ENTER(cuFuncGetAttribute, Need::Context);
  if (!value)
    return CUDA_ERROR_INVALID_VALUE;
  std::shared_ptr<FunctionObject> function = lookUp(state().functions, handle, call.name);
  if (!function)
    return CUDA_ERROR_INVALID_HANDLE;
  const Kernel &kernel = *function->kernel;
  switch (attribute) {
  case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
    *value = int(threadLimit(kernel));
    return CUDA_SUCCESS;
  case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
    *value = int(kernel.staticSharedBytes);
    return CUDA_SUCCESS;
  case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES:
  case CU_FUNC_ATTRIBUTE_CACHE_MODE_CA:
    *value = 0;
    return CUDA_SUCCESS;
  case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
    *value = int(kernel.localBytes);
    return CUDA_SUCCESS;
  case CU_FUNC_ATTRIBUTE_NUM_REGS:
    *value = int(function->module->registers[kernel.name]);
    return CUDA_SUCCESS;
  case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    *value = int(function->module->module->target());
    return CUDA_SUCCESS;
  case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
    *value = state().config.capability;
    return CUDA_SUCCESS;
  case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
    *value = int(dynamicSharedLimit(*function));
    return CUDA_SUCCESS;
  case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
    *value = function->carveout;
    return CUDA_SUCCESS;
  default:
    return CUDA_ERROR_INVALID_VALUE;
  }
}

CU_API cuFuncSetAttribute(CUfunction handle, CUfunction_attribute attribute, int value) {
  CU_ENTER(cuFuncSetAttribute, Need::Context);
  std::shared_ptr<FunctionObject> function = lookUp(state().functions, handle, call.name);
  if (!function)
    return CUDA_ERROR_INVALID_HANDLE;
  if (attribute == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT && value >= -1 && value <= 100) {
    function->carveout = value;
    return CUDA_SUCCESS;
  }
  if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES || value < 0 ||
      value + int(function->kernel->staticSharedBytes) > limits().sharedOptIn)
    return CUDA_ERROR_INVALID_VALUE;
  function->maxDynamicShared = uint32_t(value);
  return CUDA_SUCCESS;
}

CU_API cuFuncSetCacheConfig(CUfunction handle, CUfunc_cache config) {
  CU_ENTER(cuFuncSetCacheConfig, Need::Context);
  if (config < CU_FUNC_CACHE_PREFER_NONE || config > CU_FUNC_CACHE_PREFER_EQUAL)
    return CUDA_ERROR_INVALID_VALUE;
  return lookUp(state().functions, handle, call.name) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CU_API cuFuncGetName(const char **name, CUfunction handle) {
  CU_ENTER(cuFuncGetName, Need::Context);
  if (!name)
    return CUDA_ERROR_INVALID_VALUE;
  std::shared_ptr<FunctionObject> function = lookUp(state().functions, handle, call.name);
  if (!function)
    return CUDA_ERROR_INVALID_HANDLE;
  *name = function->kernel->name.c_str();
  return CUDA_SUCCESS;
}

CU_API cuFuncGetParamInfo(CUfunction handle, size_t index, size_t *offset, size_t *bytes) {
  CU_ENTER(cuFuncGetParamInfo, Need::Context);
  std::shared_ptr<FunctionObject> function = lookUp(state().functions, handle, call.name);
  if (!function)
    return CUDA_ERROR_INVALID_HANDLE;
  if (!offset || index >= function->kernel->parameters.size())
    return CUDA_ERROR_INVALID_VALUE;
  const KernelParameter &parameter = function->kernel->parameters[index];
  *offset = parameter.offset;
  if (bytes)
    *bytes = parameter.bytes;
  return CUDA_SUCCESS;
}

CU_API cuFuncGetModule(CUmodule *module, CUfunction handle) {
  CU_ENTER(cuFuncGetModule, Need::Context);
  if (!module)
    return CUDA_ERROR_INVALID_VALUE;
  std::shared_ptr<FunctionObject> function = lookUp(state().functions, handle, call.name);
  if (!function)
    return CUDA_ERROR_INVALID_HANDLE;
  *module = function->module->handle;
  return CUDA_SUCCESS;
}

CU_API cuFuncLoad(CUfunction handle) {
  CU_ENTER(cuFuncLoad, Need::Context);
  return lookUp(state().functions, handle, call.name) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

//===--- Launches -----------------------------------------------------------------------===//

/// The buffer that `extra` names.
static CUresult packedParameters(void **extra, const Kernel &kernel, std::vector<uint8_t> &out) {
  const uint8_t *buffer = nullptr;
  const size_t *bytes = nullptr;
  for (size_t i = 0; extra[i] != nullptr; i += 2) {
    uintptr_t key = reinterpret_cast<uintptr_t>(extra[i]);
    if (key == CU_LAUNCH_PARAM_BUFFER_POINTER_AS_INT)
      buffer = static_cast<const uint8_t *>(extra[i + 1]);
    else if (key == CU_LAUNCH_PARAM_BUFFER_SIZE_AS_INT)
      bytes = static_cast<const size_t *>(extra[i + 1]);
    else
      return CUDA_ERROR_INVALID_VALUE;
  }
  if (!buffer || !bytes || *bytes < kernel.parameterBytes)
    return CUDA_ERROR_INVALID_VALUE;
  out.assign(buffer, buffer + kernel.parameterBytes);
  return CUDA_SUCCESS;
}

CUresult kernelOperation(CUfunction handle, Dim3 grid, Dim3 block, unsigned shared, void **parameters, void **extra,
                         const Context &context, const char *call, KernelOperation &operation) {
  std::shared_ptr<FunctionObject> function = lookUp(state().functions, handle, call);
  if (!function || !function->module->module || function->module->context != &context)
    return CUDA_ERROR_INVALID_HANDLE;
  const Kernel &kernel = *function->kernel;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || block.x == 0 || block.y == 0 || block.z == 0)
    return CUDA_ERROR_INVALID_VALUE;
  if (grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535 || block.x > 1024 || block.y > 1024 || block.z > 64 ||
      block.count() > 1024)
    return CUDA_ERROR_INVALID_VALUE;
  if (block.count() > threadLimit(kernel) || (kernel.reqThreads && !(*kernel.reqThreads == block)))
    return CUDA_ERROR_INVALID_VALUE;
  if (shared > dynamicSharedLimit(*function))
    return CUDA_ERROR_INVALID_VALUE;
  if ((parameters && extra) || (!parameters && !extra && !kernel.parameters.empty()))
    return CUDA_ERROR_INVALID_VALUE;
  if (extra) {
    if (CUresult result = packedParameters(extra, kernel, operation.parameters))
      return result;
  } else if (!kernel.parameters.empty()) {
    for (size_t i = 0; i < kernel.parameters.size(); ++i)
      if (!parameters[i])
        return CUDA_ERROR_INVALID_VALUE;
    llvm::SmallVector<uint8_t, 64> packed = kernel.pack(parameters);
    operation.parameters.assign(packed.begin(), packed.end());
  }
  operation.function = std::move(function);
  operation.config = {grid, block, shared};
  return CUDA_SUCCESS;
}

static CUresult launchOn(CUfunction function, Dim3 grid, Dim3 block, unsigned shared, CUstream handle,
                         void **parameters, void **extra, Call &call) {
  CUresult result = CUDA_SUCCESS;
  std::shared_ptr<Stream> stream = findStream(handle, call, result);
  if (!stream)
    return result;
  KernelOperation operation;
  if (CUresult wrong =
          kernelOperation(function, grid, block, shared, parameters, extra, *stream->context, call.name, operation))
    return wrong;
  return submit(*stream, std::move(operation), call.lock);
}

CU_API cuLaunchKernel(CUfunction function, unsigned gridX, unsigned gridY, unsigned gridZ, unsigned blockX,
                      unsigned blockY, unsigned blockZ, unsigned shared, CUstream stream, void **parameters,
                      void **extra) {
  CU_ENTER(cuLaunchKernel, Need::Context);
  return launchOn(function, {gridX, gridY, gridZ}, {blockX, blockY, blockZ}, shared, stream, parameters, extra, call);
}

CU_API cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **parameters, void **extra) {
  CU_ENTER(cuLaunchKernelEx, Need::Context);
  if (!config || (config->numAttrs && !config->attrs))
    return CUDA_ERROR_INVALID_VALUE;
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    const CUlaunchAttribute &attribute = config->attrs[i];
    switch (attribute.id) {
    case CU_LAUNCH_ATTRIBUTE_IGNORE:
    case CU_LAUNCH_ATTRIBUTE_PRIORITY:
      continue;
    case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
      if (attribute.value.cooperative == 0)
        continue;
      break;
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
      if (attribute.value.clusterDim.x * attribute.value.clusterDim.y * attribute.value.clusterDim.z <= 1)
        continue;
      break;
    case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION:
      continue; // allows an overlap, does not promise one
    default:
      break;
    }
    report("not-supported", "cuLaunchKernelEx: the stand-in has no launch attribute " + std::to_string(attribute.id));
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  return launchOn(function, {config->gridDimX, config->gridDimY, config->gridDimZ},
                  {config->blockDimX, config->blockDimY, config->blockDimZ}, config->sharedMemBytes, config->hStream,
                  parameters, extra, call);
}

//===--- Occupancy ------------------------------------------------------------------------===//

/// Blocks of a kernel that a multiprocessor holds at once.
static int blocksThatFit(const FunctionObject &function, int threads, size_t dynamicShared) {
  const Kernel &kernel = *function.kernel;
  Limits most = limits();
  int warps = (threads + 31) / 32;
  size_t shared = kernel.staticSharedBytes + dynamicShared;
  if (threads > int(threadLimit(kernel)) || shared > size_t(most.sharedOptIn))
    return 0;
  int byThreads = most.threadsOfMultiprocessor / (32 * warps);
  int byRegisters = 65536 / (int(function.module->registers.at(kernel.name)) * 32 * warps);
  size_t taken = (shared + size_t(most.sharedReserved) + 127) / 128 * 128;
  int byShared = taken ? int(size_t(most.sharedOfMultiprocessor) / taken) : most.blocksOfMultiprocessor;
  return std::min({byThreads, byRegisters, byShared, most.blocksOfMultiprocessor});
}

static CUresult activeBlocks(int *blocks, CUfunction handle, int threads, size_t shared, const Call &call) {
  if (!blocks || threads <= 0)
    return CUDA_ERROR_INVALID_VALUE;
  std::shared_ptr<FunctionObject> function = lookUp(state().functions, handle, call.name);
  if (!function)
    return CUDA_ERROR_INVALID_HANDLE;
  *blocks = blocksThatFit(*function, threads, shared);
  return CUDA_SUCCESS;
}

CU_API cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction function, int threads, size_t shared) {
  CU_ENTER(cuOccupancyMaxActiveBlocksPerMultiprocessor, Need::Context);
  return activeBlocks(blocks, function, threads, shared, call);
}

CU_API cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, CUfunction function, int threads,
                                                            size_t shared, unsigned flags) {
  CU_ENTER(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags, Need::Context);
  return flags > 1 ? CUDA_ERROR_INVALID_VALUE : activeBlocks(blocks, function, threads, shared, call);
}

static CUresult bestBlock(int *minGrid, int *block, CUfunction handle, CUoccupancyB2DSize sharedOf, size_t shared,
                          int limit, const Call &call) {
  if (!minGrid || !block)
    return CUDA_ERROR_INVALID_VALUE;
  std::shared_ptr<FunctionObject> function = lookUp(state().functions, handle, call.name);
  if (!function)
    return CUDA_ERROR_INVALID_HANDLE;
  int most = int(threadLimit(*function->kernel));
  if (limit > 0)
    most = std::min(most, limit);
  int best = 0, bestThreads = 0, bestBlocks = 0;
  for (int threads = (most + 31) / 32 * 32; threads > 0; threads -= 32) {
    int real = std::min(threads, most);
    int blocks = blocksThatFit(*function, real, sharedOf ? sharedOf(real) : shared);
    if (blocks * real > best) {
      best = blocks * real;
      bestThreads = real;
      bestBlocks = blocks;
    }
  }
  *block = bestThreads;
  *minGrid = bestBlocks * state().config.multiprocessors;
  return CUDA_SUCCESS;
}

CU_API cuOccupancyMaxPotentialBlockSize(int *minGrid, int *block, CUfunction function, CUoccupancyB2DSize sharedOf,
                                        size_t shared, int limit) {
  CU_ENTER(cuOccupancyMaxPotentialBlockSize, Need::Context);
  return bestBlock(minGrid, block, function, sharedOf, shared, limit, call);
}

CU_API cuOccupancyMaxPotentialBlockSizeWithFlags(int *minGrid, int *block, CUfunction function,
                                                 CUoccupancyB2DSize sharedOf, size_t shared, int limit,
                                                 unsigned flags) {
  CU_ENTER(cuOccupancyMaxPotentialBlockSizeWithFlags, Need::Context);
  return flags > 1 ? CUDA_ERROR_INVALID_VALUE : bestBlock(minGrid, block, function, sharedOf, shared, limit, call);
}

CU_API cuOccupancyAvailableDynamicSMemPerBlock(size_t *bytes, CUfunction handle, int blocks, int threads) {
  CU_ENTER(cuOccupancyAvailableDynamicSMemPerBlock, Need::Context);
  if (!bytes || blocks <= 0 || threads <= 0)
    return CUDA_ERROR_INVALID_VALUE;
  std::shared_ptr<FunctionObject> function = lookUp(state().functions, handle, call.name);
  if (!function)
    return CUDA_ERROR_INVALID_HANDLE;
  Limits most = limits();
  int each = std::min(most.sharedOfMultiprocessor / blocks / 128 * 128 - most.sharedReserved, most.sharedOptIn);
  *bytes = size_t(std::max(0, each - int(function->kernel->staticSharedBytes)));
  return CUDA_SUCCESS;
}

} // namespace standin::driver
