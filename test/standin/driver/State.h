//===- State.h - the objects of the stand-in driver -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Handles are numbers that are never given out twice, so a destroyed object is always recognised.
// One lock guards everything; it is held while kernels run and released only for host functions.
//
// Work is not done when it is asked for. Each piece knows the pieces that it depends on and runs
// when a call waits for it, or earlier if DLC_STANDIN_SEED says so: see Queue.cpp.
//
//===----------------------------------------------------------------------===//

#ifndef DLC_TEST_STANDIN_DRIVER_STATE_H
#define DLC_TEST_STANDIN_DRIVER_STATE_H

#include "Cuda.h"
#include "test/standin/Memory.h"
#include "test/standin/StandIn.h"
#include "test/standin/ptx/Module.h"
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <thread>
#include <unordered_map>
#include <variant>

namespace standin::driver {

using namespace abi;

struct Context;
struct Stream;
struct Work;
struct Capture;

//===--- Settings from the environment -----------------------------------===//

/// DLC_STANDIN_FAIL: the `at`th occurrence of `kind` ends in `code`.
struct Injection {
  std::string kind;
  uint64_t at = 0;
  CUresult code = CUDA_SUCCESS;
  uint64_t seen = 0;
};

struct Config {
  int devices = 1;
  int driverVersion = 13000;
  int capability = 90;
  int multiprocessors = 4; ///< few, so that grids sized by them stay small
  uint64_t memory = uint64_t(2) << 30, memoryUsed = 0;
  uint64_t seed = 0;
  std::string reportFile, countersFile;
  std::vector<Injection> injections;

  static Config fromEnvironment();
};

//===--- Handles -----------------------------------------------------------===//

/// Objects of one kind by handle.
template <typename T, typename Handle> class Table {
public:
  explicit Table(uint64_t kind, const char *name) : kind(kind), name(name) {}

  Handle add(std::shared_ptr<T> object) {
    uint64_t number = (uint64_t(0x5d) << 48) | kind << 40 | next++ << 4;
    live[number] = std::move(object);
    return reinterpret_cast<Handle>(number);
  }
  std::shared_ptr<T> find(Handle handle) const {
    auto found = live.find(reinterpret_cast<uint64_t>(handle));
    return found == live.end() ? nullptr : found->second;
  }
  /// Whether the handle was valid once.
  bool wasDestroyed(Handle handle) const {
    uint64_t number = reinterpret_cast<uint64_t>(handle);
    uint64_t first = (uint64_t(0x5d) << 48) | kind << 40;
    return number >= first + 16 && number < first + (next << 4) && !live.count(number);
  }
  bool erase(Handle handle) { return live.erase(reinterpret_cast<uint64_t>(handle)) != 0; }

  const uint64_t kind;
  const char *const name;
  std::map<uint64_t, std::shared_ptr<T>> live;

private:
  uint64_t next = 1;
};

//===--- Operations: what a stream does or a graph's node is ------------------===//

struct ModuleObject {
  CUmodule handle = nullptr;
  Context *context = nullptr;
  bool isLibrary = false;
  std::unique_ptr<Module> module; ///< null once the context is gone
  std::map<std::string, CUfunction> functions;
  std::map<std::string, unsigned> registers; ///< of a thread, an upper bound
};

struct FunctionObject {
  CUfunction handle = nullptr;
  std::shared_ptr<ModuleObject> module;
  const Kernel *kernel = nullptr;
  uint32_t maxDynamicShared = 0; ///< 0: what is left of 48 KiB
  int carveout = -1;
};

struct KernelOperation {
  std::shared_ptr<FunctionObject> function;
  LaunchConfig config;
  std::vector<uint8_t> parameters;
};
/// A box of bytes, rows `pitch` apart.
struct CopySide {
  bool isDevice = false;
  uint64_t address = 0, pitch = 0, height = 0;
};
struct CopyOperation {
  CopySide destination, source;
  uint64_t width = 0, height = 1, depth = 1;
  std::vector<uint8_t> staged; ///< the source's bytes, taken when the copy was asked for: pageable memory
  uint64_t bytes() const { return width * height * depth; }
};
struct SetOperation {
  uint64_t address = 0, pitch = 0, width = 0, height = 1; ///< width in elements
  uint32_t value = 0, elementBytes = 1;
};
struct HostOperation {
  CUhostFn function = nullptr;
  void *data = nullptr;
};
struct FreeOperation {
  uint64_t address = 0;
};
/// A product of cublasLt.
struct CustomOperation {
  std::string name;
  int (*run)(void *, standin_run *) = nullptr;
  std::shared_ptr<void> state;
};
struct EmptyOperation {};
using Operation = std::variant<EmptyOperation, KernelOperation, CopyOperation, SetOperation, HostOperation,
                               FreeOperation, CustomOperation>;
using OperationRef = std::shared_ptr<const Operation>;

CUgraphNodeType typeOf(const Operation &operation);

/// One piece of work in the queues.
struct Work {
  uint64_t serial = 0; ///< dependences have smaller ones
  std::shared_ptr<Context> context;
  std::vector<std::shared_ptr<Work>> dependences; ///< emptied when done
  OperationRef operation;
  bool ofGraph = false, done = false;
  std::chrono::steady_clock::time_point time; ///< when it was done
  /// Pinned bytes as they were when a copy was queued: nobody may write them until it has run.
  std::vector<uint8_t> hostBytes;
};
using WorkRef = std::shared_ptr<Work>;

//===--- Objects -----------------------------------------------------------------===//

struct AllocationEntry {
  uint64_t address = 0, bytes = 0;
  bool freed = false, freeQueued = false;
  uint64_t read = 0, written = 0;
};

struct Context {
  CUcontext handle = nullptr;
  int device = 0;
  CUresult error = CUDA_SUCCESS; ///< sticky
  std::unique_ptr<Memory> memory;
  uint64_t used = 0;                               ///< bytes allocated, rounded as a device does
  std::map<uint64_t, AllocationEntry> allocations; ///< by address; freed ones too
  std::shared_ptr<Stream> legacy;
};

struct Stream {
  CUstream handle = nullptr;
  std::shared_ptr<Context> context;
  unsigned flags = 0;
  int priority = 0;
  uint64_t id = 0;
  WorkRef tail;
  std::shared_ptr<Capture> capture;
  std::vector<CUgraphNode> captureTail;
  bool isBlocking() const { return !(flags & CU_STREAM_NON_BLOCKING); }
};

struct Event {
  CUevent handle = nullptr;
  std::shared_ptr<Context> context;
  unsigned flags = 0;
  WorkRef recorded;
  bool inCapture = false; ///< last recorded in a capturing stream
  std::weak_ptr<Capture> capture;
  std::vector<CUgraphNode> captured;
};

struct Node {
  CUgraphNode handle = nullptr;
  CUgraph graph = nullptr;
  OperationRef operation;
  std::vector<CUgraphNode> dependences;
  std::vector<void *> parameters; ///< what cuGraphKernelNodeGetParams() returned points here
};

struct Graph {
  CUgraph handle = nullptr;
  std::vector<CUgraphNode> nodes; ///< in order of creation
  bool capturing = false;
};

struct Executable {
  struct Step {
    CUgraphNode source = nullptr;
    OperationRef operation;
    std::vector<size_t> dependences;
  };
  CUgraphExec handle = nullptr;
  std::shared_ptr<Context> context;
  std::vector<Step> steps;   ///< as created
  std::vector<size_t> order; ///< topological
  WorkRef last;              ///< a graph does not run beside itself
};

struct Capture {
  uint64_t id = 0;
  CUgraph graph = nullptr;
  Stream *origin = nullptr;
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  std::thread::id thread;
  bool invalid = false;
};

/// Page-locked memory: allocated here, or the program's own, registered.
struct Pinned {
  uint64_t address = 0, bytes = 0;
  bool registered = false;
  unsigned flags = 0;
  CUcontext context = nullptr;
};

//===--- The whole ----------------------------------------------------------------===//

struct KernelEntry {
  std::string name;
  uint64_t launches = 0, graphLaunches = 0, read = 0, written = 0, threads = 0;
};

struct State {
  std::mutex lock;
  Config config;
  bool initialised = false, exited = false;

  Table<Context, CUcontext> contexts{1, "context"};
  Table<Stream, CUstream> streams{2, "stream"};
  Table<Event, CUevent> events{3, "event"};
  Table<ModuleObject, CUmodule> modules{4, "module"};
  Table<FunctionObject, CUfunction> functions{5, "function"};
  Table<Graph, CUgraph> graphs{6, "graph"};
  Table<Node, CUgraphNode> nodes{7, "graph node"};
  Table<Executable, CUgraphExec> executables{8, "executable graph"};

  /// Primary contexts, by device.
  struct Primary {
    std::shared_ptr<Context> context;
    unsigned retained = 0, flags = 0;
  };
  std::map<int, Primary> primaries;
  std::map<uint64_t, Pinned> pinned;

  std::map<uint64_t, WorkRef> pending; ///< by serial
  uint64_t nextSerial = 1, nextId = 1;
  bool executing = false; ///< somebody runs work, perhaps in a host function without the lock
  std::condition_variable idle;
  std::mt19937_64 random;

  standin_counts counts = {};
  std::map<std::string, KernelEntry> kernels;
  std::vector<AllocationEntry> gone; ///< allocations of contexts that are destroyed
  std::vector<std::string> reports;
};

State &state();
using Lock = std::unique_lock<std::mutex>;

//===--- State.cpp ----------------------------------------------------------------===//

/// What a call needs.
enum class Need { Nothing, Initialised, AnyContext, Context };

/// The beginning of every entry point: takes the lock, checks what the call needs, injects failures.
struct Call {
  Call(const char *name, Need need = Need::Context);
  Lock lock;
  const char *name;
  std::shared_ptr<driver::Context> context; ///< the current one
  CUresult result = CUDA_SUCCESS;
};

/// CUDA_SUCCESS, or what DLC_STANDIN_FAIL has for this occurrence.
CUresult inject(llvm::StringRef kind, CUresult usual);

void report(const Report &fault, llvm::StringRef call = "");
void report(llvm::StringRef kind, const std::string &message);
std::string hex(uint64_t value);
CUresult resultOf(Fault fault);

/// The object, or null and a report if it was destroyed.
template <typename T, typename Handle>
std::shared_ptr<T> lookUp(const Table<T, Handle> &table, Handle handle, const char *call) {
  std::shared_ptr<T> found = table.find(handle);
  if (!found && table.wasDestroyed(handle))
    report("use-after-destroy", std::string(call) + ": the " + table.name + " has been destroyed");
  return found;
}

/// The stream of a handle, the two special ones included. `result` is set where there is none.
std::shared_ptr<Stream> findStream(CUstream handle, const Call &call, CUresult &result);
/// The context that has the address, live or freed; null for a host address.
std::shared_ptr<Context> contextOf(uint64_t address);

/// The pinned range that holds all these bytes; null if there is none.
const Pinned *findPinned(uint64_t address, uint64_t bytes);

std::shared_ptr<Context> currentContext();
/// This thread's contexts; the last is current.
std::vector<CUcontext> &stackOfThread();

/// What the device has, by its compute capability: bytes of shared memory, threads, blocks.
struct Limits {
  int shared, sharedOptIn, sharedOfMultiprocessor, sharedReserved, threadsOfMultiprocessor, blocksOfMultiprocessor;
};
Limits limits();

/// Destroys the context and all that is in it; reports what is left. Returns how many leaks.
size_t destroyContext(std::shared_ptr<Context> context, const char *why);
size_t reportProcessLeaks();
void writeCounters();

//===--- Queue.cpp ------------------------------------------------------------------===//

/// Queues an operation behind all that the stream has; the legacy stream's rules included.
/// In a capturing stream it becomes a node. Synchronous calls pass `out` and wait for it.
CUresult submit(Stream &stream, Operation operation, Lock &lock, WorkRef *out = nullptr);
WorkRef queue(Stream &stream, OperationRef operation, std::vector<WorkRef> also, bool ofGraph);
WorkRef makeWork(std::shared_ptr<Context> context, OperationRef operation, std::vector<WorkRef> dependences,
                 bool ofGraph);
/// What a new piece of work in this stream waits for.
std::vector<WorkRef> tailsBefore(Stream &stream);
/// Runs what this work depends on, and it.
void complete(const std::vector<WorkRef> &targets, Lock &lock);
/// After work was queued: some of what is ready may run, by the seed; a full queue is shortened.
void progress(Lock &lock);
/// One piece of what this work waits for, or the work itself.
void runSome(const WorkRef &towards, Lock &lock);
std::vector<WorkRef> pendingOf(const Context *context);
/// A queued copy that uses some of these bytes of the host; null if there is none.
WorkRef pendingOnHostRange(uint64_t address, uint64_t bytes);
bool inHostFunction();

/// The side of a copy that lies in the program's memory, and how many bytes from its first to its last; null if
/// there is none.
const CopySide *hostSide(const CopyOperation &copy, uint64_t &bytes);
/// Refuses ranges that no allocation holds, and reports them.
CUresult checkCopy(const CopyOperation &copy, const char *call);
CUresult checkSet(const SetOperation &set, const char *call);

//===--- Graph.cpp and Stream.cpp --------------------------------------------------------===//

/// Adds a node for what a capturing stream was asked to do.
CUresult captureOperation(Stream &stream, Operation operation);
/// A call that waits, or may, while something captures: an error, and the capture is void.
CUresult unsafeInCapture();
CUresult legacyInCapture(const Stream &stream);
void invalidate(Capture &capture);
bool isCapturing(const Stream &stream);
std::shared_ptr<Node> addNode(Graph &graph, OperationRef operation, std::vector<CUgraphNode> dependences);
CUresult kernelOperation(CUfunction function, Dim3 grid, Dim3 block, unsigned shared, void **parameters, void **extra,
                         const Context &context, const char *call, KernelOperation &operation);

} // namespace standin::driver

/// What the library exports beside the API, and an entry point of the API.
#define STANDIN_API extern "C" __attribute__((visibility("default")))
#define CU_API STANDIN_API CUresult

#define CU_ENTER(name, need)                                                                                           \
  Call call(#name, need);                                                                                              \
  if (call.result != CUDA_SUCCESS)                                                                                     \
  return call.result

#endif // DLC_TEST_STANDIN_DRIVER_STATE_H
