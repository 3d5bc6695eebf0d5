//===- Queue.cpp - when queued work runs, and what it does -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// A device may do work at any time after it was asked for and in any order that streams and events
// allow. With seed 0 the stand-in does it as late as can be: a call that waits runs just what it
// waits for. Another seed draws: after each call some pieces that are ready may run, of any stream,
// and a call that waits may run more than it must, in an order by chance. A program that has
// forgotten to wait sees old bytes with one seed or another.
//
//===----------------------------------------------------------------------===//

#include "State.h"
#include <algorithm>
#include <cstring>

struct standin_run {
  standin::driver::Context *context;
  std::string name;
  uint64_t read = 0, written = 0;
};

namespace standin::driver {

/// A device takes about this much before the call that queues more has to wait.
static constexpr size_t queueLimit = 1024;

static thread_local bool runsHostFunction = false;
bool inHostFunction() { return runsHostFunction; }

CUgraphNodeType typeOf(const Operation &operation) {
  if (std::holds_alternative<KernelOperation>(operation) || std::holds_alternative<CustomOperation>(operation))
    return CU_GRAPH_NODE_TYPE_KERNEL;
  if (std::holds_alternative<CopyOperation>(operation))
    return CU_GRAPH_NODE_TYPE_MEMCPY;
  if (std::holds_alternative<SetOperation>(operation))
    return CU_GRAPH_NODE_TYPE_MEMSET;
  if (std::holds_alternative<HostOperation>(operation))
    return CU_GRAPH_NODE_TYPE_HOST;
  return CU_GRAPH_NODE_TYPE_EMPTY;
}

//===--- Checks of what is asked for ---------------------------------------------===//

static uint64_t extentOf(const CopySide &side, const CopyOperation &copy) {
  return copy.bytes() ? ((copy.depth - 1) * side.height + copy.height - 1) * side.pitch + copy.width : 0;
}

const CopySide *hostSide(const CopyOperation &copy, uint64_t &bytes) {
  const CopySide *side = !copy.source.isDevice && copy.staged.empty() ? &copy.source
                         : !copy.destination.isDevice                 ? &copy.destination
                                                                      : nullptr;
  if (side)
    bytes = extentOf(*side, copy);
  return side;
}

/// A range that no allocation holds is refused at once, as a driver does that knows its memory.
static CUresult checkRange(uint64_t address, uint64_t bytes, const char *call) {
  std::shared_ptr<Context> context = contextOf(address);
  if (!context)
    context = currentContext();
  if (!context)
    return CUDA_ERROR_INVALID_CONTEXT;
  const Allocation *allocation = context->memory->find(address);
  if (allocation && !allocation->freed && address + bytes <= allocation->end())
    return CUDA_SUCCESS;
  if (std::optional<Report> fault = context->memory->checkRead(address, std::max<uint64_t>(bytes, 1), call))
    report(*fault, call);
  return CUDA_ERROR_INVALID_VALUE;
}

CUresult checkCopy(const CopyOperation &copy, const char *call) {
  if (copy.bytes() == 0)
    return CUDA_SUCCESS;
  for (const CopySide *side : {&copy.destination, &copy.source}) {
    if (!side->address || (copy.height * copy.depth > 1 && side->pitch < copy.width) ||
        (copy.depth > 1 && side->height < copy.height))
      return CUDA_ERROR_INVALID_VALUE;
    if (side->isDevice)
      if (CUresult result = checkRange(side->address, extentOf(*side, copy), call))
        return result;
  }
  return CUDA_SUCCESS;
}

CUresult checkSet(const SetOperation &set, const char *call) {
  uint64_t row = set.width * set.elementBytes;
  if (row == 0 || set.height == 0)
    return CUDA_SUCCESS;
  if (set.address % set.elementBytes || (set.height > 1 && set.pitch < row))
    return CUDA_ERROR_INVALID_VALUE;
  return checkRange(set.address, (set.height - 1) * set.pitch + row, call);
}

//===--- Execution ---------------------------------------------------------------------===//

static void fail(Context &context, const Report &fault, const char *call = "") {
  report(fault, call);
  context.error = resultOf(fault.fault);
}

static KernelEntry &entryOf(const std::string &name) {
  KernelEntry &entry = state().kernels[name];
  entry.name = name;
  return entry;
}

static void run(const KernelOperation &kernel, Work &work) {
  State &s = state();
  Context &context = *work.context;
  if (CUresult injected = inject("launch", CUDA_SUCCESS)) {
    context.error = injected;
    return;
  }
  LaunchCounters counters;
  const Kernel &code = *kernel.function->kernel;
  std::optional<Report> fault = launch(code, kernel.config, kernel.parameters, counters);
  KernelEntry &entry = entryOf(code.name);
  (work.ofGraph ? entry.graphLaunches : entry.launches) += 1;
  (work.ofGraph ? s.counts.graph_kernel_launches : s.counts.kernel_launches) += 1;
  entry.read += counters.bytesRead;
  entry.written += counters.bytesWritten;
  entry.threads += counters.threads;
  s.counts.kernel_bytes_read += counters.bytesRead;
  s.counts.kernel_bytes_written += counters.bytesWritten;
  for (const LaunchCounters::PerAllocation &touched : counters.allocations)
    if (auto found = context.allocations.find(touched.address); found != context.allocations.end()) {
      found->second.read += touched.bytesRead;
      found->second.written += touched.bytesWritten;
    }
  if (fault)
    fail(context, *fault);
}

/// Says which bytes of the destination have been written: those that have in the source.
static void copyWritten(Memory &memory, uint64_t destination, uint64_t source, uint64_t bytes) {
  memory.markWritten(destination, bytes);
  std::optional<uint64_t> first = memory.firstUnwritten(source, bytes);
  for (uint64_t at = first ? *first - source : bytes; at < bytes;) {
    uint64_t end = at;
    while (end < bytes && !(*memory.shadowOf(source + end) & Memory::Written))
      ++end;
    memory.markUnwritten(destination + at, end - at);
    while (end < bytes && (*memory.shadowOf(source + end) & Memory::Written))
      ++end;
    at = end;
  }
}

static bool copyRow(Context &context, uint64_t destination, bool toDevice, uint64_t source, bool fromDevice,
                    uint64_t bytes, const char *name) {
  std::shared_ptr<Context> sourceOwner = fromDevice ? contextOf(source) : nullptr;
  std::shared_ptr<Context> owner = toDevice ? contextOf(destination) : nullptr;
  Memory &from = sourceOwner ? *sourceOwner->memory : *context.memory;
  Memory &to = owner ? *owner->memory : *context.memory;
  if (fromDevice)
    if (std::optional<Report> fault = from.checkRead(source, bytes, name)) {
      if (fault->fault != Fault::UnwrittenGlobal) {
        fail(context, *fault, name);
        return false;
      }
      // No device fails for it, but what the program now reads is chance. Between two places of the
      // device it is copied as what it is.
      if (!toDevice)
        report(*fault, name);
    }
  if (toDevice)
    if (std::optional<Report> fault = to.checkWrite(destination, bytes, name)) {
      fail(context, *fault, name);
      return false;
    }
  memmove(reinterpret_cast<void *>(destination), reinterpret_cast<const void *>(source), bytes);
  if (toDevice && fromDevice && &from == &to)
    copyWritten(to, destination, source, bytes);
  else if (toDevice)
    to.markWritten(destination, bytes);
  return true;
}

static void run(const CopyOperation &copy, Work &work) {
  State &s = state();
  Context &context = *work.context;
  if (CUresult injected = inject("copy", CUDA_SUCCESS)) {
    context.error = injected;
    return;
  }
  uint64_t hostBytes = 0;
  if (const CopySide *side = hostSide(copy, hostBytes); side && !work.hostBytes.empty())
    if (memcmp(work.hostBytes.data(), reinterpret_cast<const void *>(side->address), work.hostBytes.size()) != 0)
      report("host-write-in-flight", "pinned memory at " + hex(side->address) +
                                         " was written between the call of a copy " +
                                         (side == &copy.source ? "from" : "to") + " it and the copy itself");
  bool toDevice = copy.destination.isDevice, fromDevice = copy.source.isDevice;
  const char *name = toDevice     ? fromDevice ? "copy from device to device" : "copy from host to device"
                     : fromDevice ? "copy from device to host"
                                  : "copy from host to host";
  uint64_t source = copy.staged.empty() ? copy.source.address : reinterpret_cast<uint64_t>(copy.staged.data());
  bool dense = copy.height * copy.depth == 1 ||
               (copy.source.pitch == copy.width && copy.destination.pitch == copy.width &&
                (copy.depth == 1 || (copy.source.height == copy.height && copy.destination.height == copy.height)));
  bool good = true;
  if (dense) {
    good = copyRow(context, copy.destination.address, toDevice, source, fromDevice, copy.bytes(), name);
  } else {
    for (uint64_t z = 0; z < copy.depth && good; ++z)
      for (uint64_t y = 0; y < copy.height && good; ++y)
        good =
            copyRow(context, copy.destination.address + (z * copy.destination.height + y) * copy.destination.pitch,
                    toDevice, source + (z * copy.source.height + y) * copy.source.pitch, fromDevice, copy.width, name);
  }
  if (!good)
    return;
  if (toDevice && fromDevice) {
    s.counts.device_to_device_copies += 1;
    s.counts.device_to_device_bytes += copy.bytes();
  } else if (toDevice) {
    s.counts.host_to_device_copies += 1;
    s.counts.host_to_device_bytes += copy.bytes();
  } else if (fromDevice) {
    s.counts.device_to_host_copies += 1;
    s.counts.device_to_host_bytes += copy.bytes();
  }
}

static void run(const SetOperation &set, Work &work) {
  State &s = state();
  uint64_t row = set.width * set.elementBytes;
  std::shared_ptr<Context> owner = contextOf(set.address);
  Memory &memory = owner ? *owner->memory : *work.context->memory;
  for (uint64_t y = 0; y < set.height; ++y) {
    uint64_t address = set.address + y * set.pitch;
    if (std::optional<Report> fault = memory.checkWrite(address, row, "memset"))
      return fail(*work.context, *fault, "memset");
    for (uint64_t x = 0; x < set.width; ++x)
      memcpy(reinterpret_cast<char *>(address) + x * set.elementBytes, &set.value, set.elementBytes); // little endian
    memory.markWritten(address, row);
  }
  s.counts.memsets += 1;
  s.counts.memset_bytes += row * set.height;
}

static void run(const FreeOperation &free, Work &work) {
  Context &context = *work.context;
  AllocationEntry &entry = context.allocations[free.address];
  if (std::optional<Report> fault = context.memory->free(free.address))
    return fail(context, *fault, "cuMemFreeAsync");
  entry.freed = true;
  context.used -= (entry.bytes + 511) / 512 * 512;
}

static void run(const CustomOperation &custom, Work &work) {
  State &s = state();
  Context &context = *work.context;
  if (CUresult injected = inject("launch", CUDA_SUCCESS)) {
    context.error = injected;
    return;
  }
  standin_run execution{&context, custom.name};
  CUresult result = CUresult(custom.run(custom.state.get(), &execution));
  KernelEntry &entry = entryOf(custom.name);
  (work.ofGraph ? entry.graphLaunches : entry.launches) += 1;
  (work.ofGraph ? s.counts.graph_matmuls : s.counts.matmuls) += 1;
  entry.read += execution.read;
  entry.written += execution.written;
  s.counts.matmul_bytes_read += execution.read;
  s.counts.matmul_bytes_written += execution.written;
  if (result != CUDA_SUCCESS)
    context.error = result;
}

static void execute(const WorkRef &work, Lock &lock) {
  if (work->context->error == CUDA_SUCCESS && work->operation) {
    OperationRef operation = work->operation;
    if (auto *kernel = std::get_if<KernelOperation>(&*operation)) {
      run(*kernel, *work);
    } else if (auto *copy = std::get_if<CopyOperation>(&*operation)) {
      run(*copy, *work);
    } else if (auto *set = std::get_if<SetOperation>(&*operation)) {
      run(*set, *work);
    } else if (auto *free = std::get_if<FreeOperation>(&*operation)) {
      run(*free, *work);
    } else if (auto *custom = std::get_if<CustomOperation>(&*operation)) {
      run(*custom, *work);
    } else if (auto *host = std::get_if<HostOperation>(&*operation)) {
      state().counts.host_functions += 1;
      lock.unlock();
      runsHostFunction = true;
      host->function(host->data);
      runsHostFunction = false;
      lock.lock();
    }
  }
  work->done = true;
  work->time = std::chrono::steady_clock::now();
  work->operation = nullptr;
  work->hostBytes.clear();
  work->dependences.clear();
  state().pending.erase(work->serial);
}

//===--- Order ------------------------------------------------------------------------------===//

/// Runs a set of work that holds all its dependences.
static void runAll(std::map<uint64_t, WorkRef> todo, Lock &lock) {
  State &s = state();
  s.idle.wait(lock, [&] { return !s.executing; });
  s.executing = true;
  if (s.config.seed == 0) {
    for (auto &[serial, work] : todo)
      if (!work->done)
        execute(work, lock);
  } else {
    std::map<uint64_t, unsigned> waiting;
    std::unordered_map<const Work *, std::vector<WorkRef>> successors;
    std::vector<WorkRef> ready;
    for (auto &[serial, work] : todo) {
      unsigned count = 0;
      for (const WorkRef &before : work->dependences)
        if (!before->done) {
          successors[before.get()].push_back(work);
          ++count;
        }
      waiting[serial] = count;
      if (count == 0)
        ready.push_back(work);
    }
    while (!ready.empty()) {
      std::swap(ready[s.random() % ready.size()], ready.back());
      WorkRef work = std::move(ready.back());
      ready.pop_back();
      if (!work->done)
        execute(work, lock);
      for (const WorkRef &next : successors[work.get()])
        if (--waiting[next->serial] == 0)
          ready.push_back(next);
    }
  }
  s.executing = false;
  s.idle.notify_all();
}

void complete(const std::vector<WorkRef> &targets, Lock &lock) {
  State &s = state();
  std::map<uint64_t, WorkRef> todo;
  std::vector<WorkRef> stack = targets;
  if (s.config.seed != 0 && s.random() % 2)
    for (auto &[serial, work] : s.pending)
      stack.push_back(work);
  while (!stack.empty()) {
    WorkRef work = std::move(stack.back());
    stack.pop_back();
    if (!work || work->done || !todo.emplace(work->serial, work).second)
      continue;
    stack.insert(stack.end(), work->dependences.begin(), work->dependences.end());
  }
  runAll(std::move(todo), lock);
}

void runSome(const WorkRef &towards, Lock &lock) {
  WorkRef work = towards;
  for (;;) {
    auto earlier = std::find_if(work->dependences.begin(), work->dependences.end(),
                                [](const WorkRef &before) { return !before->done; });
    if (earlier == work->dependences.end())
      break;
    work = WorkRef(*earlier);
  }
  if (!work->done)
    runAll({{work->serial, work}}, lock);
}

void progress(Lock &lock) {
  State &s = state();
  if (s.executing)
    return;
  if (s.pending.size() > queueLimit)
    complete({s.pending.begin()->second}, lock);
  if (s.config.seed == 0)
    return;
  while (!s.pending.empty() && s.random() % 2) {
    auto any = std::next(s.pending.begin(), ptrdiff_t(s.random() % s.pending.size()));
    runSome(any->second, lock);
  }
}

//===--- Queuing -----------------------------------------------------------------------------===//

std::vector<WorkRef> tailsBefore(Stream &stream) {
  std::vector<WorkRef> tails;
  auto add = [&](const WorkRef &tail) {
    if (tail && !tail->done)
      tails.push_back(tail);
  };
  add(stream.tail);
  Context &context = *stream.context;
  if (&stream == context.legacy.get()) {
    for (auto &[number, other] : state().streams.live)
      if (other->context.get() == &context && other->isBlocking())
        add(other->tail);
  } else if (stream.isBlocking()) {
    add(context.legacy->tail);
  }
  return tails;
}

WorkRef pendingOnHostRange(uint64_t address, uint64_t bytes) {
  for (auto &[serial, work] : state().pending)
    if (const auto *copy = work->operation ? std::get_if<CopyOperation>(&*work->operation) : nullptr) {
      uint64_t length = 0;
      const CopySide *side = hostSide(*copy, length);
      if (side && side->address < address + bytes && address < side->address + length)
        return work;
    }
  return nullptr;
}

static bool hostFunctionIsPending() {
  for (auto &[serial, work] : state().pending)
    if (work->operation && std::holds_alternative<HostOperation>(*work->operation))
      return true;
  return state().executing;
}

WorkRef makeWork(std::shared_ptr<Context> context, OperationRef operation, std::vector<WorkRef> dependences,
                 bool ofGraph) {
  State &s = state();
  auto work = std::make_shared<Work>();
  work->serial = s.nextSerial++;
  work->context = std::move(context);
  std::erase_if(dependences, [](const WorkRef &before) { return !before || before->done; });
  work->dependences = std::move(dependences);
  work->ofGraph = ofGraph;
  if (const auto *copy = operation ? std::get_if<CopyOperation>(&*operation) : nullptr) {
    uint64_t bytes = 0;
    const CopySide *side = hostSide(*copy, bytes);
    // Where other queued work may rightly write these bytes first, nothing can be said about them.
    if (side && bytes && findPinned(side->address, bytes) && !pendingOnHostRange(side->address, bytes) &&
        !hostFunctionIsPending()) {
      auto *begin = reinterpret_cast<const uint8_t *>(side->address);
      work->hostBytes.assign(begin, begin + bytes);
    }
  }
  work->operation = std::move(operation);
  s.pending[work->serial] = work;
  return work;
}

WorkRef queue(Stream &stream, OperationRef operation, std::vector<WorkRef> also, bool ofGraph) {
  std::vector<WorkRef> before = tailsBefore(stream);
  before.insert(before.end(), also.begin(), also.end());
  stream.tail = makeWork(stream.context, std::move(operation), std::move(before), ofGraph);
  return stream.tail;
}

CUresult submit(Stream &stream, Operation operation, Lock &lock, WorkRef *out) {
  if (isCapturing(stream))
    return captureOperation(stream, std::move(operation));
  if (CUresult result = legacyInCapture(stream))
    return result;
  WorkRef work = queue(stream, std::make_shared<const Operation>(std::move(operation)), {}, false);
  if (out)
    *out = work;
  progress(lock);
  return CUDA_SUCCESS;
}

std::vector<WorkRef> pendingOf(const Context *context) {
  std::vector<WorkRef> found;
  for (auto &[serial, work] : state().pending)
    if (work->context.get() == context)
      found.push_back(work);
  return found;
}

} // namespace standin::driver

//===--- For libcublasLt ------------------------------------------------------------===//

using namespace standin::driver;

STANDIN_API int standin_check(standin_run *run, uint64_t address, uint64_t bytes, int write, const char *who) {
  if (bytes == 0)
    return CUDA_SUCCESS;
  standin::Memory &memory = *run->context->memory;
  std::optional<standin::Report> fault =
      write ? memory.checkWrite(address, bytes, who) : memory.checkRead(address, bytes, who);
  if (fault) {
    fault->kernel = run->name;
    report(*fault);
    return resultOf(fault->fault);
  }
  (write ? run->written : run->read) += bytes;
  if (const standin::Allocation *allocation = memory.find(address))
    if (auto found = run->context->allocations.find(allocation->address); found != run->context->allocations.end())
      (write ? found->second.written : found->second.read) += bytes;
  return CUDA_SUCCESS;
}

STANDIN_API void standin_mark_written(standin_run *run, uint64_t address, uint64_t bytes) {
  run->context->memory->markWritten(address, bytes);
}

STANDIN_API int standin_enqueue(::CUstream_st *stream, const standin_operation *operation) {
  CustomOperation custom{operation->name, operation->run, std::shared_ptr<void>(operation->state, operation->destroy)};
  Call call("cublasLtMatmul");
  if (call.result != CUDA_SUCCESS)
    return call.result;
  CUresult result = CUDA_SUCCESS;
  std::shared_ptr<Stream> target = findStream(reinterpret_cast<CUstream>(stream), call, result);
  return target ? submit(*target, std::move(custom), call.lock) : result;
}
