//===- State.cpp - settings, reports, leaks and counters of the stand-in driver -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "State.h"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

namespace standin::driver {

//===--- Settings --------------------------------------------------------------===//

/// A number of the environment. A value that is none ends the process: a test that believes to have
/// set something would otherwise pass for the wrong reason.
static uint64_t number(const char *variable, const char *text, char **end) {
  uint64_t value = strtoull(text, end, 10);
  if (*end == text) {
    fprintf(stderr, "standin: %s: '%s' is no number\n", variable, text);
    _exit(2);
  }
  return value;
}

[[noreturn]] static void refuse(const char *variable, const char *text, const char *expected) {
  fprintf(stderr, "standin: %s: '%s' is not %s\n", variable, text, expected);
  _exit(2);
}

static uint64_t integerOf(const char *variable, uint64_t otherwise) {
  const char *text = getenv(variable);
  if (!text || !*text)
    return otherwise;
  char *end;
  uint64_t value = number(variable, text, &end);
  if (*end)
    refuse(variable, text, "a number");
  return value;
}

static uint64_t bytesOf(const char *variable, uint64_t otherwise) {
  const char *text = getenv(variable);
  if (!text || !*text)
    return otherwise;
  char *end;
  uint64_t value = number(variable, text, &end);
  int shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
  if (end[shift != 0])
    refuse(variable, text, "a number of bytes, or of K, M or G");
  return value << shift;
}

static CUresult usualCode(const std::string &kind) {
  if (kind == "alloc" || kind == "hostalloc" || kind == "graph")
    return CUDA_ERROR_OUT_OF_MEMORY;
  if (kind == "launch" || kind == "copy")
    return CUDA_ERROR_LAUNCH_FAILED;
  if (kind == "module")
    return CUDA_ERROR_INVALID_PTX;
  return CUDA_ERROR_UNKNOWN;
}

Config Config::fromEnvironment() {
  Config config;
  config.devices = int(integerOf("DLC_STANDIN_DEVICES", 1));
  config.driverVersion = int(integerOf("DLC_STANDIN_DRIVER_VERSION", 13000));
  config.multiprocessors = int(integerOf("DLC_STANDIN_MULTIPROCESSORS", 4));
  config.memory = bytesOf("DLC_STANDIN_MEMORY", config.memory);
  config.memoryUsed = bytesOf("DLC_STANDIN_MEMORY_USED", 0);
  config.seed = integerOf("DLC_STANDIN_SEED", 0);
  if (const char *text = getenv("DLC_STANDIN_CAPABILITY"); text && *text) {
    char *end;
    uint64_t major = number("DLC_STANDIN_CAPABILITY", text, &end), minor = 0;
    if (*end == '.')
      minor = number("DLC_STANDIN_CAPABILITY", end + 1, &end);
    if (*end || minor > 9)
      refuse("DLC_STANDIN_CAPABILITY", text, "a compute capability such as 9.0");
    config.capability = int(10 * major + minor);
  }
  if (const char *text = getenv("DLC_STANDIN_REPORT"))
    config.reportFile = text;
  if (const char *text = getenv("DLC_STANDIN_COUNTERS"))
    config.countersFile = text;
  const char *failures = getenv("DLC_STANDIN_FAIL");
  for (llvm::StringRef rest = failures ? failures : ""; !rest.empty();) {
    auto [one, others] = rest.split(',');
    rest = others;
    auto [kind, numbers] = one.split(':');
    auto [at, code] = numbers.split('=');
    Injection injection;
    injection.kind = kind.str();
    int value = usualCode(injection.kind);
    if (kind.empty() || at.getAsInteger(10, injection.at) || injection.at == 0 ||
        (!code.empty() && code.getAsInteger(10, value)))
      refuse("DLC_STANDIN_FAIL", one.str().c_str(), "KIND:NUMBER or KIND:NUMBER=CODE");
    injection.code = CUresult(value);
    config.injections.push_back(injection);
  }
  return config;
}

State &state() {
  // Never destroyed: reports are written when the process ends, after other destructors.
  static State *one = [] {
    auto *fresh = new State;
    fresh->config = Config::fromEnvironment();
    fresh->random.seed(fresh->config.seed);
    return fresh;
  }();
  return *one;
}

//===--- Reports --------------------------------------------------------------------===//

std::string hex(uint64_t value) {
  char text[24];
  snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

static std::string quoted(llvm::StringRef text) {
  std::string result = "\"";
  for (unsigned char c : text) {
    if (c == '"' || c == '\\') {
      result += '\\';
      result += char(c);
    } else if (c < 32) {
      char escape[8];
      snprintf(escape, sizeof escape, "\\u%04x", c);
      result += escape;
    } else {
      result += char(c);
    }
  }
  return result + '"';
}

static void emit(const std::string &line, const std::string &text) {
  State &s = state();
  s.reports.push_back(line);
  fprintf(stderr, "standin: %s\n", text.c_str());
  if (s.config.reportFile.empty())
    return;
  if (FILE *file = fopen(s.config.reportFile.c_str(), "a")) {
    fprintf(file, "%s\n", line.c_str());
    fclose(file);
  } else {
    fprintf(stderr, "standin: cannot write '%s'\n", s.config.reportFile.c_str());
  }
}

void report(llvm::StringRef kind, const std::string &message) {
  emit("{\"kind\":" + quoted(kind) + ",\"message\":" + quoted(message) + "}", kind.str() + ": " + message);
}

static std::string coordinates(const Dim3 &at) {
  return "[" + std::to_string(at.x) + "," + std::to_string(at.y) + "," + std::to_string(at.z) + "]";
}

void report(const Report &fault, llvm::StringRef call) {
  std::string line = "{\"kind\":" + quoted(nameOf(fault.fault)) + ",\"message\":" + quoted(fault.message);
  if (!call.empty())
    line += ",\"call\":" + quoted(call);
  if (!fault.module.empty())
    line += ",\"module\":" + quoted(fault.module);
  if (!fault.kernel.empty())
    line += ",\"kernel\":" + quoted(fault.kernel);
  if (fault.block)
    line += ",\"block\":" + coordinates(*fault.block);
  if (fault.thread)
    line += ",\"thread\":" + coordinates(*fault.thread);
  if (fault.ptxLine)
    line += ",\"ptxLine\":" + std::to_string(fault.ptxLine);
  if (!fault.sourceFile.empty())
    line += ",\"file\":" + quoted(fault.sourceFile) + ",\"line\":" + std::to_string(fault.sourceLine);
  if (fault.address)
    line += ",\"address\":" + quoted(hex(fault.address)) + ",\"bytes\":" + std::to_string(fault.bytes);
  emit(line + "}", fault.str());
}

CUresult resultOf(Fault fault) {
  switch (fault) {
  case Fault::OutOfBounds:
  case Fault::UseAfterFree:
  case Fault::HostPointer:
  case Fault::ReadOnly:
    return CUDA_ERROR_ILLEGAL_ADDRESS;
  case Fault::Misaligned:
    return CUDA_ERROR_MISALIGNED_ADDRESS;
  case Fault::Assert:
    return CUDA_ERROR_ASSERT;
  case Fault::Endless:
    return CUDA_ERROR_LAUNCH_TIMEOUT;
  default:
    return CUDA_ERROR_LAUNCH_FAILED;
  }
}

//===--- Calls ------------------------------------------------------------------------===//

static bool isCallOfKind(llvm::StringRef kind, llvm::StringRef call) {
  if (kind == "alloc")
    return call == "cuMemAlloc" || call == "cuMemAllocAsync";
  if (kind == "hostalloc")
    return call == "cuMemAllocHost" || call == "cuMemHostAlloc" || call == "cuMemHostRegister";
  if (kind == "module")
    return call.starts_with("cuModuleLoad") || call == "cuLibraryLoadData";
  if (kind == "graph")
    return call.starts_with("cuGraphInstantiate");
  if (kind == "lost")
    return call.ends_with("Synchronize");
  return kind == call;
}

CUresult inject(llvm::StringRef kind, CUresult usual) {
  for (Injection &injection : state().config.injections)
    if (injection.kind == kind && ++injection.seen == injection.at)
      return injection.code;
  return usual;
}

static thread_local std::vector<CUcontext> contextStack;

std::shared_ptr<Context> currentContext() {
  return contextStack.empty() ? nullptr : state().contexts.find(contextStack.back());
}

std::vector<CUcontext> &stackOfThread() { return contextStack; }

Call::Call(const char *name, Need need) : lock(state().lock), name(name) {
  State &s = state();
  if (s.exited) {
    result = CUDA_ERROR_DEINITIALIZED;
    return;
  }
  if (inHostFunction()) {
    report("call-in-host-function", std::string(name) + " was called by a host function of a stream");
    result = CUDA_ERROR_NOT_PERMITTED;
    return;
  }
  if (need != Need::Nothing && !s.initialised) {
    result = CUDA_ERROR_NOT_INITIALIZED;
    return;
  }
  context = currentContext();
  if (need >= Need::AnyContext && !context) {
    result =
        contextStack.empty() || !contextStack.back() ? CUDA_ERROR_INVALID_CONTEXT : CUDA_ERROR_CONTEXT_IS_DESTROYED;
    return;
  }
  if (need == Need::Context && context->error != CUDA_SUCCESS) {
    result = context->error;
    return;
  }
  if (!s.config.injections.empty()) {
    llvm::StringRef plain = name;
    if (size_t at = plain.rfind("_v"); at != llvm::StringRef::npos)
      plain = plain.take_front(at);
    for (Injection &injection : s.config.injections)
      if (isCallOfKind(injection.kind, plain) && ++injection.seen == injection.at) {
        result = injection.code;
        if (injection.kind == "lost" && context)
          context->error = result;
      }
  }
}

std::shared_ptr<Stream> findStream(CUstream handle, const Call &call, CUresult &result) {
  if (handle == perThreadStream()) {
    report("not-supported", std::string(call.name) + ": the stand-in has no stream per thread");
    result = CUDA_ERROR_NOT_SUPPORTED;
    return nullptr;
  }
  if (!handle || handle == legacyStream())
    return call.context->legacy;
  std::shared_ptr<Stream> found = lookUp(state().streams, handle, call.name);
  if (!found)
    result = CUDA_ERROR_INVALID_HANDLE;
  else if (found->context->error != CUDA_SUCCESS)
    result = found->context->error;
  return result == CUDA_SUCCESS ? found : nullptr;
}

std::shared_ptr<Context> contextOf(uint64_t address) {
  for (auto &[number, context] : state().contexts.live)
    if (context->memory->isDeviceAddress(address))
      return context;
  return nullptr;
}

const Pinned *findPinned(uint64_t address, uint64_t bytes) {
  auto &pinned = state().pinned;
  auto after = pinned.upper_bound(address);
  if (after == pinned.begin())
    return nullptr;
  const Pinned &candidate = std::prev(after)->second;
  return address + bytes <= candidate.address + candidate.bytes ? &candidate : nullptr;
}

//===--- Leaks -----------------------------------------------------------------------------===//

template <typename T, typename Handle>
static size_t dropAll(Table<T, Handle> &table, const Context *context, const std::string &when) {
  size_t leaks = 0;
  for (auto entry = table.live.begin(); entry != table.live.end();) {
    if (context) {
      if constexpr (requires(T object) { object.context; })
        if (&*entry->second->context != context) {
          ++entry;
          continue;
        }
    }
    ++leaks;
    entry = table.live.erase(entry);
  }
  if (leaks)
    report("leak",
           std::to_string(leaks) + " " + table.name + (leaks == 1 ? " was" : "s were") + " not destroyed " + when);
  return leaks;
}

size_t destroyContext(std::shared_ptr<Context> context, const char *why) {
  State &s = state();
  for (const WorkRef &work : pendingOf(context.get())) {
    work->dependences.clear();
    work->operation = nullptr;
    work->done = true;
    s.pending.erase(work->serial);
  }
  std::string when = std::string("before ") + why;
  size_t leaks = 0;
  for (const Allocation *allocation : context->memory->live()) {
    ++leaks;
    report("leak", "device memory of " + std::to_string(allocation->bytes) + " bytes at " + hex(allocation->address) +
                       ", " + allocation->what + ", was not freed " + when);
  }
  leaks += dropAll(s.executables, context.get(), when);
  leaks += dropAll(s.events, context.get(), when);
  context->legacy = nullptr;
  leaks += dropAll(s.streams, context.get(), when);
  for (auto &[number, module] : s.modules.live)
    if (module->context == context.get())
      module->module = nullptr;
  leaks += dropAll(s.modules, context.get(), when);
  for (auto entry = s.functions.live.begin(); entry != s.functions.live.end();)
    entry = entry->second->module->context == context.get() ? s.functions.live.erase(entry) : std::next(entry);
  for (auto entry = s.pinned.begin(); entry != s.pinned.end();) {
    if (entry->second.context != context->handle) {
      ++entry;
      continue;
    }
    ++leaks;
    report("leak", "pinned memory of " + std::to_string(entry->second.bytes) + " bytes at " + hex(entry->first) +
                       (entry->second.registered ? " was not unregistered " : " was not freed ") + when);
    if (!entry->second.registered)
      free(reinterpret_cast<void *>(entry->first));
    entry = s.pinned.erase(entry);
  }
  for (auto &[address, entry] : context->allocations)
    s.gone.push_back(entry);
  s.contexts.erase(context->handle);
  return leaks;
}

size_t reportProcessLeaks() {
  State &s = state();
  size_t leaks = 0;
  for (auto &[device, primary] : s.primaries)
    if (primary.retained) {
      leaks += 1 + destroyContext(primary.context, "the end of the process");
      report("leak", "the primary context of device " + std::to_string(device) + " was not released (retained " +
                         std::to_string(primary.retained) + " times)");
    }
  s.primaries.clear();
  leaks += dropAll(s.graphs, nullptr, "before the end of the process");
  s.nodes.live.clear();
  return leaks;
}

//===--- Counters -----------------------------------------------------------------------------===//

/// In order of allocation, context by context.
static std::vector<AllocationEntry> allAllocations() {
  State &s = state();
  std::vector<AllocationEntry> all = s.gone;
  for (auto &[number, context] : s.contexts.live)
    for (auto &[address, entry] : context->allocations)
      all.push_back(entry);
  return all;
}

void writeCounters() {
  State &s = state();
  if (s.config.countersFile.empty())
    return;
  FILE *file = fopen(s.config.countersFile.c_str(), "w");
  if (!file) {
    fprintf(stderr, "standin: cannot write '%s'\n", s.config.countersFile.c_str());
    return;
  }
  const standin_counts &c = s.counts;
  const std::pair<const char *, uint64_t> fields[] = {
      {"kernel_launches", c.kernel_launches},
      {"graph_kernel_launches", c.graph_kernel_launches},
      {"matmuls", c.matmuls},
      {"graph_matmuls", c.graph_matmuls},
      {"graph_launches", c.graph_launches},
      {"graph_instantiations", c.graph_instantiations},
      {"graph_updates", c.graph_updates},
      {"host_to_device_copies", c.host_to_device_copies},
      {"host_to_device_bytes", c.host_to_device_bytes},
      {"device_to_host_copies", c.device_to_host_copies},
      {"device_to_host_bytes", c.device_to_host_bytes},
      {"device_to_device_copies", c.device_to_device_copies},
      {"device_to_device_bytes", c.device_to_device_bytes},
      {"memsets", c.memsets},
      {"memset_bytes", c.memset_bytes},
      {"host_functions", c.host_functions},
      {"device_allocations", c.device_allocations},
      {"device_allocated_bytes", c.device_allocated_bytes},
      {"device_frees", c.device_frees},
      {"pinned_allocations", c.pinned_allocations},
      {"pinned_allocated_bytes", c.pinned_allocated_bytes},
      {"modules", c.modules},
      {"synchronisations", c.synchronisations},
      {"kernel_bytes_read", c.kernel_bytes_read},
      {"kernel_bytes_written", c.kernel_bytes_written},
      {"matmul_bytes_read", c.matmul_bytes_read},
      {"matmul_bytes_written", c.matmul_bytes_written},
  };
  static_assert(sizeof fields / sizeof *fields * sizeof(uint64_t) == sizeof(standin_counts));
  fprintf(file, "{\n");
  for (auto &[name, value] : fields)
    fprintf(file, "  \"%s\": %llu,\n", name, static_cast<unsigned long long>(value));
  fprintf(file, "  \"reports\": %zu,\n  \"kernels\": [", s.reports.size());
  const char *separator = "\n";
  for (auto &[name, entry] : s.kernels) {
    fprintf(file,
            "%s    {\"name\": %s, \"launches\": %llu, \"graph_launches\": %llu, \"bytes_read\": %llu, "
            "\"bytes_written\": %llu, \"threads\": %llu}",
            separator, quoted(name).c_str(), static_cast<unsigned long long>(entry.launches),
            static_cast<unsigned long long>(entry.graphLaunches), static_cast<unsigned long long>(entry.read),
            static_cast<unsigned long long>(entry.written), static_cast<unsigned long long>(entry.threads));
    separator = ",\n";
  }
  fprintf(file, "\n  ],\n  \"allocations\": [");
  separator = "\n";
  for (const AllocationEntry &entry : allAllocations()) {
    fprintf(
        file,
        "%s    {\"address\": \"%s\", \"bytes\": %llu, \"freed\": %s, \"bytes_read\": %llu, \"bytes_written\": %llu}",
        separator, hex(entry.address).c_str(), static_cast<unsigned long long>(entry.bytes),
        entry.freed ? "true" : "false", static_cast<unsigned long long>(entry.read),
        static_cast<unsigned long long>(entry.written));
    separator = ",\n";
  }
  fprintf(file, "\n  ]\n}\n");
  fclose(file);
}

/// The end of the process. A destructor of the library runs after the program's own atexit functions.
__attribute__((destructor)) static void atEnd() {
  State &s = state();
  Lock lock(s.lock);
  if (s.initialised)
    reportProcessLeaks();
  writeCounters();
  s.exited = true;
}

} // namespace standin::driver

//===--- What StandIn.h declares ----------------------------------------------------===//

using namespace standin::driver;

STANDIN_API void standin_counters(standin_counts *counts) {
  Lock lock(state().lock);
  *counts = state().counts;
}

STANDIN_API void standin_reset_counters(void) {
  State &s = state();
  Lock lock(s.lock);
  s.counts = {};
  s.kernels.clear();
  for (auto &[number, context] : s.contexts.live)
    for (auto &[address, entry] : context->allocations)
      entry.read = entry.written = 0;
  s.gone.clear();
}

STANDIN_API int standin_kernel(size_t index, standin_kernel_counts *counts) {
  State &s = state();
  Lock lock(s.lock);
  if (index >= s.kernels.size())
    return 0;
  const KernelEntry &entry = std::next(s.kernels.begin(), ptrdiff_t(index))->second;
  *counts = {entry.name.c_str(), entry.launches, entry.graphLaunches, entry.read, entry.written, entry.threads};
  return 1;
}

STANDIN_API int standin_allocation(size_t index, standin_allocation_counts *counts) {
  Lock lock(state().lock);
  std::vector<AllocationEntry> all = allAllocations();
  if (index >= all.size())
    return 0;
  *counts = {all[index].address, all[index].bytes, all[index].freed, all[index].read, all[index].written};
  return 1;
}

STANDIN_API size_t standin_report_count(void) {
  Lock lock(state().lock);
  return state().reports.size();
}

STANDIN_API const char *standin_report(size_t index) {
  Lock lock(state().lock);
  return index < state().reports.size() ? state().reports[index].c_str() : nullptr;
}

STANDIN_API size_t standin_reset(void) {
  State &s = state();
  Lock lock(s.lock);
  size_t leaks = s.initialised ? reportProcessLeaks() : 0;
  writeCounters();
  s.initialised = false;
  s.config = Config::fromEnvironment();
  s.random.seed(s.config.seed);
  s.counts = {};
  s.kernels.clear();
  s.gone.clear();
  s.reports.clear();
  return leaks;
}

STANDIN_API void standin_misuse(const char *kind, const char *message) {
  Lock lock(state().lock);
  report(kind, message);
}

STANDIN_API int standin_capability(void) {
  Lock lock(state().lock);
  return currentContext() ? state().config.capability : 0;
}

STANDIN_API int standin_is_device_address(uint64_t address) {
  Lock lock(state().lock);
  return contextOf(address) != nullptr;
}
