//===- Execution.cpp - blocks, threads and their meetings -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// The scheduler is the set of threads itself: a thread that must wait switches to the next one that
// can run. When none can and some wait, the block will never go on, and that is diagnosed. A fault
// switches back to launch() for good; the stacks of the threads hold nothing that needs an end.
//
//===----------------------------------------------------------------------===//

#include "Execution.h"
#include "Fiber.h"
#include "Modes.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/MathExtras.h"
#include "llvm/Support/raw_ostream.h"
#include <cmath>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <sys/mman.h>
#include <time.h>
#include <xmmintrin.h>

using namespace llvm;

namespace standin {

static uint64_t endlessLimit = uint64_t(1) << 33;
void setEndlessLimit(uint64_t jumps) { endlessLimit = jumps; }

SharedCell *sharedCells() {
  static SharedCell *cells = [] {
    void *at = mmap(nullptr, Memory::sharedWindowBytes * sizeof(SharedCell), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
      report_fatal_error("the stand-in has no memory for its shared cells");
    return static_cast<SharedCell *>(at);
  }();
  return cells;
}

namespace {

constexpr unsigned maxThreads = 1024, maxBarriers = 16, warpSize = 32;
constexpr uint32_t maxSharedBytes = 227 * 1024;
constexpr int64_t budgetSlice = 1 << 16;

enum class Wait : uint8_t { None, Barrier, WarpSync, Shuffle, Vote, Match, Reduce, Mma, LoadMatrix, Ended };

const char *nameOf(Wait wait) {
  switch (wait) {
  case Wait::Barrier: return "a barrier";
  case Wait::WarpSync: return "bar.warp.sync";
  case Wait::Shuffle: return "shfl.sync";
  case Wait::Vote: return "vote.sync";
  case Wait::Match: return "match.sync";
  case Wait::Reduce: return "redux.sync";
  case Wait::Mma: return "mma.sync";
  case Wait::LoadMatrix: return "ldmatrix.sync";
  default: return "nothing";
  }
}

/// Operations of a whole warp, at one instruction: .aligned.
bool isAligned(Wait wait) { return wait == Wait::Mma || wait == Wait::LoadMatrix; }

double fromF16(uint32_t bits) {
  int exponent = int(bits >> 10 & 31);
  double fraction = bits & 0x3ff, magnitude = exponent == 31  ? (fraction != 0 ? NAN : INFINITY)
                                              : exponent == 0 ? std::ldexp(fraction, -24)
                                                              : std::ldexp(fraction + 1024, exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}
double fromF32(uint32_t bits) { return bit_cast<float>(bits); }

struct PendingCopy {
  uint64_t address;
  uint32_t bytes, site;
};

struct Thread {
  StackPointer stack = nullptr;
  Wait wait = Wait::None;
  uint32_t site = 0;
  uint32_t number = 0; ///< of the barrier, or the mode of the warp operation
  uint32_t mask = 0, a = 0, b = 0;
  uint64_t value = 0, result = 0;
  std::vector<PendingCopy> copies; ///< cp.async since the last commit
  std::vector<std::vector<PendingCopy>> groups;
};

struct Barrier {
  uint32_t expected = 0, arrived = 0, count = 0, all = 1, any = 0;
  std::vector<uint32_t> waiting;
};

/// seen[u][l]: the number of the last bar.warp.sync that lane u knows lane l to have passed.
struct Warp {
  uint32_t clock = 0;
  uint32_t seen[warpSize][warpSize];
};

std::string at(const Dim3 &index) {
  return "(" + std::to_string(index.x) + "," + std::to_string(index.y) + "," + std::to_string(index.z) + ")";
}
std::string hex(uint64_t value) { return "0x" + utohexstr(value, /*LowerCase=*/true); }

Dim3 delinearize(uint64_t index, const Dim3 &size) {
  return {uint32_t(index % size.x), uint32_t(index / size.x % size.y), uint32_t(index / size.x / size.y)};
}

} // namespace

struct Engine {
  Engine(const Kernel &kernel, const LaunchConfig &config)
      : kernel(kernel), module(kernel.module->impl()), code(*module.code.find(&kernel)->second), memory(module.memory), config(config) {}

  const Kernel &kernel;
  Module::Impl &module;
  KernelCode &code;
  Memory &memory;
  LaunchConfig config;
  BlockState block = {};
  std::vector<Context> contexts;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Barrier barriers[maxBarriers];
  std::vector<uint32_t> ready; ///< a ring
  size_t readyFirst = 0, readyCount = 0;
  uint32_t current = 0, running = 0; ///< running: threads that have not ended
  uint32_t epoch = 0;
  uint64_t jumps = 0, clock = 0;
  bool fibers = false, stopped = false;
  StackPointer main = nullptr;
  std::optional<Report> report;
  static Stacks stacks;
  static Engine *active;
  static uint32_t lastEpoch;

  uint32_t count() const { return uint32_t(contexts.size()); }
  unsigned lanesOf(unsigned warp) const { return std::min(warpSize, count() - warp * warpSize); }
  uint32_t existing(unsigned warp) const { return lanesOf(warp) == 32 ? ~0u : (1u << lanesOf(warp)) - 1; }

  //===--- Faults -----------------------------------------------------------===//

  [[noreturn]] void stop() {
    stopped = true;
    StackPointer unused;
    standin_switch(&unused, main);
    llvm_unreachable("a stopped thread went on");
  }

  void locate(Report &result, uint32_t thread, uint32_t site) const {
    const Site &where = module.sites[site];
    result.module = module.name;
    result.kernel = kernel.name;
    result.block = Dim3{block.ctaid[0], block.ctaid[1], block.ctaid[2]};
    result.thread = delinearize(thread, config.block);
    result.ptxLine = where.line;
    result.sourceLine = where.sourceLine;
    auto file = module.files.find(where.file);
    if (where.sourceLine)
      result.sourceFile = file == module.files.end() ? "file " + std::to_string(where.file) : file->second;
  }

  [[noreturn]] void fail(Report found, uint32_t thread, uint32_t site) {
    locate(found, thread, site);
    report = std::move(found);
    stop();
  }
  [[noreturn]] void fail(Fault fault, uint32_t thread, uint32_t site, const Twine &message, uint64_t address = 0, uint32_t bytes = 0) {
    Report found;
    found.fault = fault;
    found.message = message.str();
    found.address = address;
    found.bytes = bytes;
    fail(std::move(found), thread, site);
  }

  std::string nameOfThread(uint32_t thread) const { return "thread " + at(delinearize(thread, config.block)); }
  std::string nameOfBlock(uint32_t tag) const { return "block " + at(delinearize(tag - block.firstTag, config.grid)); }
  std::string lineOf(uint32_t site) const { return "line " + std::to_string(module.sites[site].line); }

  //===--- Scheduling -------------------------------------------------------===//

  void makeReady(uint32_t thread) {
    threads[thread].wait = Wait::None;
    ready[(readyFirst + readyCount++) % ready.size()] = thread;
  }

  /// Leaves the current thread for one that can run, or for launch(), for good if it has ended.
  void leave() {
    uint32_t self = current;
    if (!readyCount) {
      if (running)
        diagnoseStandstill();
      standin_switch(&threads[self].stack, main);
      return;
    }
    current = ready[readyFirst];
    readyFirst = (readyFirst + 1) % ready.size();
    --readyCount;
    if (current != self)
      standin_switch(&threads[self].stack, threads[current].stack);
  }

  void end() {
    uint32_t self = current;
    Thread &thread = threads[self];
    complete(thread, 0, true);
    thread.wait = Wait::Ended;
    --running;
    // Others of the warp may wait at a bar.warp.sync, which does without ended lanes.
    Context &context = contexts[self];
    for (uint32_t lane = 0; lane < lanesOf(context.warp); ++lane) {
      uint32_t other = context.warp * warpSize + lane;
      if (threads[other].wait == Wait::WarpSync && (threads[other].mask & context.laneBit) && meetIfAll(other))
        break;
    }
    leave();
  }

  [[noreturn]] void diagnoseStandstill() {
    for (uint32_t i = 0; i < count(); ++i) {
      if (threads[i].wait != Wait::Barrier)
        continue;
      for (uint32_t j = 0; j < count(); ++j) {
        const Thread &other = threads[j];
        if (other.wait == Wait::Barrier && other.number == threads[i].number)
          continue;
        std::string why = other.wait == Wait::Ended ? "has ended" : std::string("waits at ") + nameOf(other.wait) + " in " + lineOf(other.site);
        fail(Fault::BarrierDivergence, i, threads[i].site,
             "barrier " + Twine(threads[i].number) + " is not reached by all threads: " + nameOfThread(j) + " " + why);
      }
      fail(Fault::BarrierDivergence, i, threads[i].site,
           "barrier " + Twine(threads[i].number) + " waits for " + Twine(barriers[threads[i].number].expected) + " threads, " +
               Twine(barriers[threads[i].number].arrived) + " have come and no other is left");
    }
    for (uint32_t i = 0; i < count(); ++i)
      if (threads[i].wait != Wait::Ended && threads[i].wait != Wait::None)
        failWarp(i);
    report_fatal_error("the stand-in lost a thread");
  }

  /// Why the warp operation that the thread waits at cannot happen.
  [[noreturn]] void failWarp(uint32_t self) {
    const Thread &thread = threads[self];
    std::string what = (Twine(nameOf(thread.wait)) + " with mask " + hex(thread.mask)).str();
    unsigned first = contexts[self].warp * warpSize;
    for (uint32_t lane = 0; lane < warpSize; ++lane) {
      if (!(thread.mask & existing(contexts[self].warp) & 1u << lane) || first + lane == self)
        continue;
      const Thread &other = threads[first + lane];
      std::string name = "lane " + std::to_string(lane);
      if (other.wait == Wait::Ended)
        fail(Fault::WarpDivergence, self, thread.site, what + " names " + name + ", which has ended");
      if (other.wait != thread.wait || other.mask != thread.mask || other.number != thread.number) {
        std::string mask = other.wait != Wait::Barrier && other.wait != Wait::None ? " with mask " + hex(other.mask) : "";
        fail(Fault::WarpDivergence, self, thread.site,
             what + " names " + name + ", which waits at " + nameOf(other.wait) + mask + " in " + lineOf(other.site));
      }
    }
    fail(Fault::WarpDivergence, self, thread.site, what + " cannot happen");
  }

  void refresh(uint32_t thread) {
    Context &context = contexts[thread];
    uint64_t stamp = warps[context.warp].clock;
    context.epoch = epoch;
    context.readKey = epoch | uint64_t(context.warp) << 32 | stamp << 48;
    context.manyKey = epoch | uint64_t(manyWarps) << 32;
    context.writeKey = epoch | uint64_t(thread) << 32 | stamp << 48;
  }

  /// What came before a barrier cannot race with what comes behind it.
  void nextEpoch() {
    if (++epoch == 0) {
      std::memset(static_cast<void *>(sharedCells()), 0, Memory::sharedWindowBytes * sizeof(SharedCell));
      epoch = 1;
    }
    for (Warp &warp : warps)
      if (warp.clock) {
        warp.clock = 0;
        std::memset(warp.seen, 0, sizeof(warp.seen));
      }
    for (uint32_t i = 0; i < count(); ++i)
      refresh(i);
  }

  //===--- Meetings ---------------------------------------------------------===//

  uint32_t barrier(uint32_t number, uint32_t wanted, uint32_t mode, bool predicate, uint32_t site) {
    uint32_t self = current;
    Thread &thread = threads[self];
    if (number >= maxBarriers)
      fail(Fault::BarrierDivergence, self, site, "there is no barrier " + Twine(number) + ", only 0 to " + Twine(maxBarriers - 1));
    if (wanted % warpSize)
      fail(Fault::BarrierDivergence, self, site, "barrier " + Twine(number) + " for " + Twine(wanted) + " threads, which is no multiple of " + Twine(warpSize));
    // Counts are of whole warps; the last one may have fewer threads.
    uint32_t expected = !wanted || wanted >= alignTo(count(), warpSize) ? count() : wanted;
    if (wanted > alignTo(count(), warpSize))
      fail(Fault::BarrierDivergence, self, site, "barrier " + Twine(number) + " for " + Twine(wanted) + " threads, but the block has " + Twine(count()));
    Barrier &barrier = barriers[number];
    if (barrier.arrived && barrier.expected != expected)
      fail(Fault::BarrierDivergence, self, site,
           "barrier " + Twine(number) + " for " + Twine(expected) + " threads, while others wait at it for " + Twine(barrier.expected));
    barrier.expected = expected;
    ++barrier.arrived;
    barrier.count += predicate;
    barrier.all &= predicate;
    barrier.any |= predicate;
    uint32_t kind = mode & BarrierKind;
    thread.site = site;
    thread.number = number;
    thread.mask = mode; // for the comparison below
    if (kind != BarrierArrive)
      barrier.waiting.push_back(self);
    if (barrier.arrived == expected) {
      // A warp must come together where the instruction says .aligned.
      uint32_t siteOf[maxThreads / warpSize];
      std::memset(siteOf, 0xff, sizeof(siteOf));
      for (uint32_t each : barrier.waiting) {
        Thread &other = threads[each];
        uint32_t &known = siteOf[contexts[each].warp];
        if (known == ~0u)
          known = other.site;
        else if (known != other.site && (other.mask & BarrierAligned))
          fail(Fault::BarrierDivergence, each, other.site,
               "barrier " + Twine(number) + ": other threads of the warp wait at another instruction, in " + lineOf(known));
      }
      uint32_t result = kind == BarrierPopc ? barrier.count : kind == BarrierAnd ? barrier.all : barrier.any;
      // In the order of arrival, this thread too: what follows is then found by the first of them.
      for (uint32_t each : barrier.waiting) {
        threads[each].result = result;
        makeReady(each);
      }
      barrier = Barrier();
      nextEpoch();
      if (kind != BarrierArrive)
        leave();
      return result;
    }
    if (kind == BarrierArrive)
      return 0;
    thread.wait = Wait::Barrier;
    leave();
    return uint32_t(thread.result);
  }

  /// If all lanes of the mask have come: does it, and makes them ready, in order.
  bool meetIfAll(uint32_t self) {
    Thread &thread = threads[self];
    unsigned warp = contexts[self].warp, first = warp * warpSize;
    uint32_t members = thread.mask & existing(warp);
    if (thread.wait == Wait::WarpSync)
      for (unsigned lane = 0; lane < lanesOf(warp); ++lane)
        if (threads[first + lane].wait == Wait::Ended)
          members &= ~(1u << lane);
    for (uint32_t rest = members; rest; rest &= rest - 1) {
      const Thread &other = threads[first + unsigned(countr_zero(rest))];
      if (other.wait != thread.wait || other.mask != thread.mask || other.number != thread.number)
        return false;
    }
    if (isAligned(thread.wait))
      for (uint32_t rest = members; rest; rest &= rest - 1) {
        unsigned other = first + unsigned(countr_zero(rest));
        if (threads[other].site != thread.site)
          fail(Fault::WarpDivergence, self, thread.site,
               Twine(nameOf(thread.wait)) + ": other threads of the warp wait at another instruction, in " + lineOf(threads[other].site));
      }
    meet(self, members);
    for (uint32_t rest = members; rest; rest &= rest - 1)
      makeReady(first + unsigned(countr_zero(rest)));
    return true;
  }

  void meet(uint32_t self, uint32_t members) {
    unsigned warp = contexts[self].warp, first = warp * warpSize;
    auto each = [&](auto visit) {
      for (uint32_t rest = members; rest; rest &= rest - 1) {
        unsigned lane = unsigned(countr_zero(rest));
        visit(lane, threads[first + lane]);
      }
    };
    uint32_t mode = threads[self].number;
    switch (threads[self].wait) {
    case Wait::WarpSync: {
      Warp &state = warps[warp];
      if (state.clock >= 0xfffe) { // stamps have 16 bits; nobody is accused for this
        nextEpoch();
        break;
      }
      uint32_t joined[warpSize] = {};
      each([&](unsigned lane, Thread &) {
        for (unsigned i = 0; i < warpSize; ++i)
          joined[i] = std::max(joined[i], state.seen[lane][i]);
      });
      ++state.clock;
      each([&](unsigned lane, Thread &) { joined[lane] = state.clock; });
      each([&](unsigned lane, Thread &) { std::memcpy(state.seen[lane], joined, sizeof(joined)); });
      for (unsigned lane = 0; lane < lanesOf(warp); ++lane)
        refresh(first + lane);
      break;
    }
    case Wait::Shuffle:
      each([&](unsigned lane, Thread &thread) {
        uint32_t segment = thread.b >> 8 & 31, clamp = thread.b & 31, by = thread.a & 31;
        uint32_t lowest = lane & segment, highest = lowest | (clamp & ~segment);
        int from;
        bool inside;
        switch (mode) {
        case ShuffleUp: from = int(lane) - int(by); inside = from >= int(highest); break;
        case ShuffleDown: from = int(lane + by); inside = from <= int(highest); break;
        case ShuffleXor: from = int(lane ^ by); inside = from <= int(highest); break;
        default: from = int(lowest | (by & ~segment)); inside = from <= int(highest); break;
        }
        if (!inside)
          from = int(lane);
        if (!(members >> from & 1))
          fail(Fault::WarpDivergence, first + lane, thread.site,
               "shfl.sync with mask " + hex(thread.mask) + " reads from lane " + Twine(from) +
                   (thread.mask >> from & 1 ? ", which the block does not have" : ", which the mask does not name"));
        thread.result = uint64_t(inside) << 32 | uint32_t(threads[first + unsigned(from)].value);
      });
      break;
    case Wait::Vote: {
      uint32_t ballot = 0;
      each([&](unsigned lane, Thread &thread) { ballot |= uint32_t(thread.value) << lane; });
      uint32_t result = mode == VoteAll       ? ballot == members
                        : mode == VoteAny     ? ballot != 0
                        : mode == VoteUniform ? ballot == members || ballot == 0
                                              : ballot;
      each([&](unsigned, Thread &thread) { thread.result = result; });
      break;
    }
    case Wait::Match:
      each([&](unsigned, Thread &thread) {
        uint32_t same = 0;
        each([&](unsigned lane, Thread &other) { same |= uint32_t(other.value == thread.value) << lane; });
        if (mode) // all
          thread.result = same == members ? uint64_t(1) << 32 | members : 0;
        else
          thread.result = same;
      });
      break;
    case Wait::Mma:
      multiply(self, MatrixMode(mode));
      break;
    case Wait::LoadMatrix:
      each([&](unsigned lane, Thread &thread) {
        uint32_t *words = reinterpret_cast<uint32_t *>(thread.result);
        unsigned group = lane / 4, pair = lane % 4;
        for (unsigned matrix = 0; matrix < (mode & LoadMatrixCount); ++matrix) {
          auto element = [&](unsigned row, unsigned column) {
            uint16_t value;
            std::memcpy(&value, reinterpret_cast<const void *>(threads[first + 8 * matrix + row].value + 2 * column), 2);
            return uint32_t(value);
          };
          if (mode & LoadMatrixTransposed)
            words[matrix] = element(2 * pair, group) | element(2 * pair + 1, group) << 16;
          else
            words[matrix] = element(group, 2 * pair) | element(group, 2 * pair + 1) << 16;
        }
      });
      break;
    default: {
      bool begun = false;
      uint32_t total = 0;
      each([&](unsigned, Thread &thread) {
        uint32_t value = uint32_t(thread.value);
        if (!begun)
          total = value;
        else
          switch (mode) {
          case ReduceAdd: total += value; break;
          case ReduceMinSigned: total = uint32_t(std::min(int32_t(total), int32_t(value))); break;
          case ReduceMaxSigned: total = uint32_t(std::max(int32_t(total), int32_t(value))); break;
          case ReduceMinUnsigned: total = std::min(total, value); break;
          case ReduceMaxUnsigned: total = std::max(total, value); break;
          case ReduceAnd: total &= value; break;
          case ReduceOr: total |= value; break;
          default: total ^= value; break;
          }
        begun = true;
      });
      each([&](unsigned, Thread &thread) { thread.result = total; });
    }
    }
  }

  /// d = a b + c, of fragments as the PTX ISA lays them out: each lane has words of a (4), b (2) and c
  /// (4), over which d goes. All is added up in double, in the order of k, and rounded once.
  void multiply(uint32_t self, MatrixMode mode) {
    constexpr unsigned rows = 16, columns = 8, firstB = 4, firstC = 6;
    bool isTf32 = mode == MatrixTf32K4 || mode == MatrixTf32K8, isF16 = mode == MatrixF16K8 || mode == MatrixF16K16;
    unsigned steps = mode == MatrixTf32K4 ? 4 : mode == MatrixF16K16 || mode == MatrixBf16K16 ? 16 : 8, perWord = isTf32 ? 1 : 2;
    double a[rows][16], b[16][columns];
    unsigned first = contexts[self].warp * warpSize;
    auto wordsOf = [&](unsigned lane) { return reinterpret_cast<uint32_t *>(threads[first + lane].value); };
    auto number = [&](uint32_t word, unsigned part) {
      uint32_t half = word >> 16 * part & 0xffff;
      return isTf32 ? fromF32(word & 0xffffe000) : isF16 ? fromF16(half) : fromF32(half << 16);
    };
    for (unsigned lane = 0; lane < warpSize; ++lane) {
      unsigned group = lane / 4, pair = lane % 4;
      for (unsigned step = 0; step < steps; ++step) {
        if (step / perWord % 4 != pair)
          continue;
        unsigned word = step / (4 * perWord), part = step % perWord;
        a[group][step] = number(wordsOf(lane)[2 * word], part);
        a[group + 8][step] = number(wordsOf(lane)[2 * word + 1], part);
        b[step][group] = number(wordsOf(lane)[firstB + word], part);
      }
    }
    for (unsigned lane = 0; lane < warpSize; ++lane)
      for (unsigned each = 0; each < 4; ++each) {
        unsigned row = lane / 4 + each / 2 * 8, column = lane % 4 * 2 + each % 2;
        uint32_t &word = wordsOf(lane)[firstC + each];
        double sum = 0;
        for (unsigned step = 0; step < steps; ++step)
          sum += a[row][step] * b[step][column];
        word = bit_cast<uint32_t>(float(sum + fromF32(word)));
      }
  }

  uint64_t warpOperation(Wait wait, uint32_t mode, uint64_t value, uint32_t a, uint32_t b, uint32_t mask, uint32_t site,
                         uint32_t *to = nullptr) {
    uint32_t self = current;
    Thread &thread = threads[self];
    const Context &context = contexts[self];
    thread.wait = wait;
    thread.number = mode;
    thread.value = value;
    thread.a = a;
    thread.b = b;
    thread.mask = mask;
    thread.site = site;
    if (isAligned(wait)) {
      thread.result = reinterpret_cast<uint64_t>(to);
      if (lanesOf(context.warp) != warpSize)
        fail(Fault::WarpDivergence, self, site, Twine(nameOf(wait)) + " in a warp of " + Twine(lanesOf(context.warp)) + " threads, of which it takes " + Twine(warpSize));
    }
    if (!(mask & context.laneBit))
      fail(Fault::WarpDivergence, self, site, nameOf(wait) + Twine(" with mask ") + hex(mask) + " does not name the thread's own lane " + Twine(context.lane));
    if (wait != Wait::WarpSync)
      for (unsigned lane = 0; lane < lanesOf(context.warp); ++lane)
        if ((mask >> lane & 1) && threads[context.warp * warpSize + lane].wait == Wait::Ended)
          failWarp(self);
    meetIfAll(self);
    leave();
    return thread.result;
  }

  //===--- Shared memory ----------------------------------------------------===//

  /// Whether what `other` did at `stamp` in this epoch came before what `self` does now.
  bool before(uint32_t other, uint32_t stamp, uint32_t self) const {
    if (other == self)
      return true;
    const Context &context = contexts[self];
    return other / warpSize == context.warp && warps[context.warp].seen[context.lane][other % warpSize] > stamp;
  }

  [[noreturn]] void failRace(uint32_t self, uint64_t address, uint32_t bytes, bool isWrite, uint32_t other, bool otherWrote, uint32_t site) {
    std::string who = other == ~0u || other == self ? "another thread" : nameOfThread(other);
    fail(Fault::SharedRace, self, site,
         Twine(isWrite ? "write of " : "read of ") + Twine(bytes) + " bytes at " + describeShared(address) + ", which " + who + " has " +
             (otherWrote ? "written" : "read") + " since the last barrier",
         address, bytes);
  }

  void cells(uint64_t address, uint32_t bytes, uint32_t access, uint32_t site) {
    if (access & Strong)
      return;
    uint32_t self = current;
    const Context &context = contexts[self];
    uint16_t stamp = uint16_t(warps[context.warp].clock);
    unsigned shift = module.byteCells ? 0 : 2;
    uint64_t begin = (address - memory.sharedWindow()) >> shift, end = (address + bytes - 1 - memory.sharedWindow()) >> shift;
    bool isWrite = access & Write, isAtomic = (access & AccessKind) == Atomic;
    for (uint64_t i = begin; i <= end; ++i) {
      SharedCell &cell = sharedCells()[i];
      uint64_t where = memory.sharedWindow() + (i << shift);
      if (cell.writeEpoch == epoch) {
        bool byAtomics = cell.writeThread & atomicAccess;
        uint32_t writer = cell.writeThread == manyThreads ? ~0u : cell.writeThread & ~atomicAccess;
        if (!(isAtomic && byAtomics) && (writer == ~0u || !before(writer, cell.writeStamp, self)))
          failRace(self, where, bytes, isWrite, writer, true, site);
      }
      if (isWrite && cell.readEpoch == epoch) {
        if (cell.readWarp == manyWarps)
          failRace(self, where, bytes, true, cell.lastReader, false, site);
        for (uint32_t rest = cell.readLanes; rest; rest &= rest - 1) {
          uint32_t reader = cell.readWarp * warpSize + unsigned(countr_zero(rest));
          if (!before(reader, cell.readStamp, self))
            failRace(self, where, bytes, true, reader, false, site);
        }
      }
      if (isWrite) {
        bool shares = isAtomic && cell.writeEpoch == epoch && (cell.writeThread & atomicAccess) && cell.writeThread != (atomicAccess | self);
        cell.writeEpoch = epoch;
        cell.writeThread = shares ? manyThreads : uint16_t(self | (isAtomic ? atomicAccess : 0));
        cell.writeStamp = stamp;
        continue;
      }
      if (cell.readEpoch != epoch) {
        cell.readEpoch = epoch;
        cell.readWarp = uint16_t(context.warp);
        cell.readStamp = stamp;
        cell.readLanes = context.laneBit;
      } else if (cell.readWarp == context.warp) {
        // Reads that came before this one are implied by it.
        bool implied = true;
        for (uint32_t rest = cell.readLanes; rest && implied; rest &= rest - 1)
          implied = before(context.warp * warpSize + unsigned(countr_zero(rest)), cell.readStamp, self);
        cell.readLanes = implied ? context.laneBit : cell.readLanes | context.laneBit;
        cell.readStamp = stamp;
      } else if (cell.readWarp != manyWarps) {
        cell.readWarp = manyWarps;
        cell.readStamp = 0;
      }
      cell.lastReader = self;
    }
  }

  std::vector<SharedPlace> sharedPlaces() const {
    std::vector<SharedPlace> places = code.shared;
    if (config.dynamicSharedBytes)
      places.push_back({"dynamic shared memory", code.dynamicOffset, config.dynamicSharedBytes});
    return places;
  }
  std::string describeShared(uint64_t address) const {
    uint64_t offset = address - memory.sharedWindow();
    for (const SharedPlace &each : sharedPlaces())
      if (offset - each.offset < each.bytes)
        return "byte " + std::to_string(offset - each.offset) + " of shared '" + each.name + "'";
    return "shared address " + hex(offset);
  }

  [[noreturn]] void failShared(uint32_t self, uint64_t address, uint32_t bytes, bool isRead, uint32_t site) {
    uint64_t offset = address - memory.sharedWindow();
    std::string access = (isRead ? "read of " : "write of ") + std::to_string(bytes) + " bytes at ";
    const SharedPlace *nearest = nullptr;
    std::vector<SharedPlace> places = sharedPlaces();
    for (const SharedPlace &each : places) {
      if (offset - each.offset < each.bytes && offset < Memory::sharedWindowBytes) {
        std::string where = describeShared(address);
        if (address % bytes)
          fail(Fault::Misaligned, self, site, access + where + " is not aligned to " + Twine(bytes), address, bytes);
        if (bytes > each.bytes - (offset - each.offset))
          fail(Fault::OutOfBounds, self, site,
               access + where + " ends " + Twine(bytes - (each.bytes - (offset - each.offset))) + " bytes past its end (" + Twine(each.bytes) + " bytes)",
               address, bytes);
        for (uint32_t i = 0; i < bytes; ++i)
          if (*memory.shadowOf(address + i) & Memory::Pending)
            fail(Fault::AsyncPending, self, site, access + where + ", whose cp.async has not been waited for", address, bytes);
        fail(Fault::UnwrittenShared, self, site, access + where + ", which no thread of the block has written", address, bytes);
      }
      if (each.offset <= offset)
        nearest = &each;
    }
    if (nearest && offset < Memory::sharedWindowBytes)
      fail(Fault::OutOfBounds, self, site,
           access + "shared address " + hex(offset) + " is " + Twine(offset - nearest->offset - nearest->bytes) + " bytes past the end of '" +
               nearest->name + "' (" + Twine(nearest->bytes) + " bytes)",
           address, bytes);
    fail(Fault::OutOfBounds, self, site, access + "shared address " + hex(offset) + ", where the kernel has no variable", address, bytes);
  }

  [[noreturn]] void failAccess(uint32_t self, uint64_t address, uint32_t bytes, uint32_t access, uint32_t site) {
    bool isRead = (access & AccessKind) == Read;
    const char *what = isRead ? "read" : (access & AccessKind) == Write ? "write" : "atomic access";
    std::string text = (what + Twine(" of ") + Twine(bytes) + " bytes at ").str();
    if ((access & InShared) || address - memory.sharedWindow() < Memory::sharedWindowBytes) {
      failShared(self, address, bytes, isRead || (access & AccessKind) == Atomic, site);
    }
    const Context &context = contexts[self];
    if ((access & InLocal) || address - memory.localWindow() < Memory::localWindowBytes) {
      uint64_t offset = address - context.localBegin;
      if (address % bytes)
        fail(Fault::Misaligned, self, site, text + hex(address) + " in local memory is not aligned to " + Twine(bytes), address, bytes);
      fail(Fault::OutOfBounds, self, site,
           text + "byte " + Twine(int64_t(offset)) + " of the thread's local memory (" + Twine(context.localEnd - context.localBegin) + " bytes)",
           address, bytes);
    }
    if (address - memory.parameterWindow() < Memory::parameterWindowBytes) {
      uint64_t offset = address - memory.parameterWindow();
      if (!isRead && offset < kernel.parameterBytes)
        fail(Fault::ReadOnly, self, site, text + "byte " + Twine(offset) + " of the parameters, which are read-only", address, bytes);
      if (address % bytes)
        fail(Fault::Misaligned, self, site, text + "byte " + Twine(offset) + " of the parameters is not aligned to " + Twine(bytes), address, bytes);
      fail(Fault::OutOfBounds, self, site, text + "byte " + Twine(offset) + " of the parameters (" + Twine(kernel.parameterBytes) + " bytes)", address,
           bytes);
    }
    fail(memory.explain(address, bytes, what, isRead || (access & AccessKind) == Atomic), self, site);
  }

  //===--- Global memory ----------------------------------------------------===//

  /// Two words for each word of memory: who wrote it last and who read it first.
  uint32_t *tagsOf(uint64_t address) const {
    return reinterpret_cast<uint32_t *>(memory.tagBase() + 2 * (alignDown(address, 4) - memory.rangeBegin()));
  }

  /// Fails if another block has touched the words, one of the two wrote, and this block has executed
  /// neither a fence nor an atomic that could have told it that the other was done.
  void checkTags(uint64_t address, uint32_t bytes, uint32_t access, uint32_t site) {
    bool nonCoherent = access & NonCoherent, isRead = (access & AccessKind) == Read;
    if (block.fenced && !nonCoherent)
      return;
    const uint32_t *tags = tagsOf(address);
    for (uint32_t i = 0; i < 2 * std::max(1u, bytes / 4); ++i) {
      bool wrote = i % 2 == 0;
      if (tags[i] < block.firstTag || (isRead && !wrote) || (tags[i] == block.tag && !nonCoherent))
        continue;
      const Allocation *allocation = memory.find(address);
      std::string where = allocation ? "byte " + std::to_string(address - allocation->address) + " of '" + allocation->what + "'" : hex(address);
      std::string text = std::string(isRead ? "read of " : "write of ") + std::to_string(bytes) + " bytes at " + where;
      if (nonCoherent)
        fail(Fault::GlobalRace, current, site, text + " with .nc, which this launch has written (" + nameOfBlock(tags[i]) + ")", address, bytes);
      fail(Fault::GlobalRace, current, site, text + ", which " + nameOfBlock(tags[i]) + " has " + (wrote ? "written" : "read"), address, bytes);
    }
  }

  //===--- cp.async ---------------------------------------------------------===//

  void copy(uint64_t to, uint64_t from, uint32_t bytes, uint32_t sourceBytes, uint32_t site) {
    uint32_t self = current;
    if (sourceBytes > bytes)
      fail(Fault::OutOfBounds, self, site, "cp.async of " + Twine(bytes) + " bytes takes " + Twine(sourceBytes) + " from its source", from, bytes);
    uint8_t *shadow = memory.shadowOf(to);
    bool fine = to - memory.sharedWindow() < Memory::sharedWindowBytes && to % bytes == 0;
    for (uint32_t i = 0; i < bytes && fine; ++i)
      fine = (shadow[i] & (Memory::Addressable | Memory::Pending)) == Memory::Addressable;
    if (!fine)
      failAccess(self, to, bytes, Write | InShared, site);
    if (sourceBytes) {
      uint64_t begin = memory.allocationsBegin();
      bool readable = from >= begin && from - begin < memory.rangeBegin() + memory.rangeSize() - begin && from % bytes == 0;
      const uint8_t *source = readable ? memory.shadowOf(from) : nullptr;
      for (uint32_t i = 0; i < sourceBytes && readable; ++i)
        readable = (source[i] & Memory::Written) != 0;
      if (!readable && from % bytes == 0 && from >= begin)
        failAccess(self, from, sourceBytes, Read, site);
      if (!readable)
        failAccess(self, from, bytes, Read, site);
      memory.counters()[(from - memory.rangeBegin()) / Memory::pageBytes].read += sourceBytes;
      checkTags(from, sourceBytes, Read, site);
      for (uint32_t i = 0; i < sourceBytes / 4; ++i)
        if (uint32_t &reader = tagsOf(from)[2 * i + 1]; reader < block.firstTag)
          reader = block.tag;
      std::memcpy(reinterpret_cast<void *>(to), reinterpret_cast<const void *>(from), sourceBytes);
    }
    std::memset(reinterpret_cast<char *>(to) + sourceBytes, 0, bytes - sourceBytes);
    std::memset(shadow, Memory::Addressable | Memory::Written | Memory::Pending, bytes);
    cells(to, bytes, Write, site);
    threads[self].copies.push_back({to, bytes, site});
  }

  /// All groups of the thread but the last `leaves`; with everything, also what was not committed.
  void complete(Thread &thread, uint32_t leaves, bool everything) {
    auto finish = [&](const std::vector<PendingCopy> &copies) {
      for (const PendingCopy &each : copies) {
        std::memset(memory.shadowOf(each.address), Memory::Addressable | Memory::Written, each.bytes);
        cells(each.address, each.bytes, Write, each.site);
      }
    };
    while (thread.groups.size() > (everything ? 0 : leaves)) {
      finish(thread.groups.front());
      thread.groups.erase(thread.groups.begin());
    }
    if (everything && !thread.copies.empty()) {
      finish(thread.copies);
      thread.copies.clear();
    }
  }

  //===--- Text -------------------------------------------------------------===//

  std::string text(uint64_t address, uint32_t site) {
    std::string result;
    for (;; ++address) {
      const Allocation *allocation = memory.find(address);
      if (!allocation || allocation->freed || !(*memory.shadowOf(address) & Memory::Written))
        failAccess(current, address, 1, Read, site);
      for (; address < allocation->end(); ++address) {
        if (!(*memory.shadowOf(address) & Memory::Written))
          failAccess(current, address, 1, Read, site);
        char c = *reinterpret_cast<const char *>(address);
        if (!c)
          return result;
        result += c;
      }
      failAccess(current, address, 1, Read, site);
    }
  }

  /// Formats like printf; `arguments` lie in the thread's local memory, each at its own alignment.
  int print(uint64_t format, uint64_t arguments, uint32_t site) {
    std::string pattern = text(format, site), output;
    const Context &context = contexts[current];
    uint64_t next = arguments;
    int count = 0;
    auto take = [&](void *into, uint32_t bytes) {
      next = alignTo(next, bytes);
      bool local = next >= context.localBegin && next + bytes <= context.localEnd;
      const Allocation *allocation = local ? nullptr : memory.find(next);
      if (!local && (!allocation || allocation->freed || next + bytes > allocation->end()))
        failAccess(current, next, bytes, Read, site);
      std::memcpy(into, reinterpret_cast<const void *>(next), bytes);
      next += bytes;
      ++count;
    };
    for (size_t i = 0; i < pattern.size(); ++i) {
      if (pattern[i] != '%') {
        output += pattern[i];
        continue;
      }
      size_t begin = i++;
      std::string flags;
      while (i < pattern.size() && StringRef("-+ #0123456789.*").contains(pattern[i])) {
        if (pattern[i] == '*') {
          int32_t width;
          take(&width, 4);
          flags += std::to_string(width);
        } else {
          flags += pattern[i];
        }
        ++i;
      }
      unsigned longs = 0;
      while (i < pattern.size() && StringRef("hljztL").contains(pattern[i])) {
        longs += StringRef("ljzt").contains(pattern[i]);
        ++i;
      }
      char conversion = i < pattern.size() ? pattern[i] : '\0';
      char buffer[512];
      buffer[0] = 0;
      if (conversion == '%') {
        output += '%';
        continue;
      }
      if (StringRef("diouxXc").contains(conversion) && conversion) {
        int64_t value = 0;
        int32_t small;
        bool isSigned = conversion == 'd' || conversion == 'i';
        if (longs) {
          take(&value, 8);
        } else {
          take(&small, 4);
          value = isSigned ? int64_t(small) : int64_t(uint32_t(small));
        }
        if (conversion == 'c')
          std::snprintf(buffer, sizeof(buffer), ("%" + flags + "c").c_str(), int(value));
        else
          std::snprintf(buffer, sizeof(buffer), ("%" + flags + "ll" + conversion).c_str(), static_cast<long long>(value));
      } else if (StringRef("eEfFgGaA").contains(conversion) && conversion) {
        double value;
        take(&value, 8);
        std::snprintf(buffer, sizeof(buffer), ("%" + flags + conversion).c_str(), value);
      } else if (conversion == 's' || conversion == 'p') {
        uint64_t value;
        take(&value, 8);
        if (conversion == 's')
          output += text(value, site);
        else
          output += hex(value);
      } else {
        output += pattern.substr(begin, i - begin + 1);
      }
      output += buffer;
    }
    std::fwrite(output.data(), 1, output.size(), stdout);
    return count;
  }

  //===--- Launch -----------------------------------------------------------===//

  static void runThread() {
    Engine &engine = *active;
    engine.code.entry(&engine.contexts[engine.current]);
    engine.end();
    llvm_unreachable("an ended thread went on");
  }

  /// Without meetings the threads of a block run one behind the other, on one stack.
  static void runAll() {
    Engine &engine = *active;
    for (uint32_t i = 0; i < engine.count(); ++i) {
      engine.current = i;
      engine.code.entry(&engine.contexts[i]);
      engine.complete(engine.threads[i], 0, true);
    }
    engine.running = 0;
    StackPointer unused;
    standin_switch(&unused, engine.main);
    llvm_unreachable("an ended block went on");
  }

  void prepare(ArrayRef<uint8_t> parameters) {
    uint32_t threadCount = uint32_t(config.block.count());
    fibers = kernel.usesRendezvous;
    contexts.resize(threadCount);
    threads.resize(threadCount);
    warps.resize(divideCeil(threadCount, warpSize));
    for (Warp &warp : warps)
      std::memset(warp.seen, 0, sizeof(warp.seen));
    ready.resize(threadCount + 1);
    uint64_t stride = kernel.localBytes ? alignTo(kernel.localBytes + 64, 64) : 0;
    for (uint32_t i = 0; i < threadCount; ++i) {
      Context &context = contexts[i];
      context = {};
      Dim3 index = delinearize(i, config.block);
      context.tid[0] = index.x;
      context.tid[1] = index.y;
      context.tid[2] = index.z;
      context.thread = i;
      context.lane = i % warpSize;
      context.warp = i / warpSize;
      context.laneBit = 1u << context.lane;
      context.localBegin = memory.localWindow() + i * stride;
      context.localEnd = context.localBegin + kernel.localBytes;
      context.block = &block;
      context.engine = this;
      std::memset(memory.shadowOf(context.localBegin), Memory::Addressable | Memory::Written, kernel.localBytes);
    }
    std::copy(parameters.begin(), parameters.end(), reinterpret_cast<uint8_t *>(memory.parameterWindow())); // perhaps none
    std::memset(memory.shadowOf(memory.parameterWindow()), Memory::Addressable | Memory::Written | Memory::NotWritable, parameters.size());
    uint32_t sizes[2][3] = {{config.block.x, config.block.y, config.block.z}, {config.grid.x, config.grid.y, config.grid.z}};
    std::memcpy(block.ntid, sizes[0], sizeof(sizes[0]));
    std::memcpy(block.nctaid, sizes[1], sizeof(sizes[1]));
    block.sharedBytes = kernel.staticSharedBytes + config.dynamicSharedBytes;
    block.dynamicSharedBytes = config.dynamicSharedBytes;
    block.sharedOffsets = code.sharedOffsets.data();
    stacks.reserve(fibers ? threadCount : 1);
  }

  void clean() {
    for (Context &context : contexts)
      std::memset(memory.shadowOf(context.localBegin), 0, kernel.localBytes);
    std::memset(memory.shadowOf(memory.parameterWindow()), 0, kernel.parameterBytes);
    for (const SharedPlace &each : sharedPlaces())
      std::memset(memory.shadowOf(memory.sharedWindow() + each.offset), 0, each.bytes);
  }

  void runBlock(uint64_t index) {
    Dim3 place = delinearize(index, config.grid);
    block.ctaid[0] = place.x;
    block.ctaid[1] = place.y;
    block.ctaid[2] = place.z;
    block.tag = block.firstTag + uint32_t(index);
    block.fenced = 0;
    block.budget = budgetSlice;
    for (const SharedPlace &each : sharedPlaces())
      std::memset(memory.shadowOf(memory.sharedWindow() + each.offset), Memory::Addressable, each.bytes);
    nextEpoch();
    running = count();
    readyFirst = readyCount = 0;
    current = 0;
    if (!fibers) {
      standin_switch(&main, stacks.prepare(0, runAll));
      return;
    }
    for (Barrier &barrier : barriers)
      if (barrier.arrived)
        barrier = Barrier(); // bar.arrive without a bar.sync
    for (uint32_t i = 0; i < count(); ++i) {
      threads[i].stack = stacks.prepare(i, runThread);
      threads[i].wait = Wait::None;
      if (i)
        makeReady(i);
    }
    standin_switch(&main, threads[0].stack);
  }

  void collect(LaunchCounters &counters) {
    memory.forEachLive([&](const Allocation &allocation) {
      uint64_t first = (allocation.address - memory.rangeBegin()) / Memory::pageBytes, last = (allocation.end() - 1 - memory.rangeBegin()) / Memory::pageBytes;
      LaunchCounters::PerAllocation sum{allocation.address, "", 0, 0};
      for (uint64_t page = first; page <= last; ++page) {
        Memory::PageCounter &counter = memory.counters()[page];
        if (!(counter.read | counter.written))
          continue;
        sum.bytesRead += counter.read;
        sum.bytesWritten += counter.written;
        counter = {};
      }
      if (!(sum.bytesRead | sum.bytesWritten))
        return;
      sum.what = allocation.what;
      counters.bytesRead += sum.bytesRead;
      counters.bytesWritten += sum.bytesWritten;
      counters.allocations.push_back(std::move(sum));
    });
  }
};

Stacks Engine::stacks;
Engine *Engine::active = nullptr;
uint32_t Engine::lastEpoch = 0;

//===----------------------------------------------------------------------===//
// What translated code calls
//===----------------------------------------------------------------------===//

namespace {

void fault_access(Context *context, uint64_t address, uint32_t bytes, uint32_t access, uint32_t site) {
  context->engine->failAccess(context->thread, address, bytes, access, site);
}
void fault_trap(Context *context, uint32_t site) { context->engine->fail(Fault::Trap, context->thread, site, "the thread has met a trap"); }
void fault_branch(Context *context, uint32_t index, uint32_t count, uint32_t site) {
  context->engine->fail(Fault::OutOfBounds, context->thread, site, "brx.idx with index " + Twine(index) + " of " + Twine(count) + " targets");
}
void cells(Context *context, uint64_t address, uint32_t bytes, uint32_t access, uint32_t site) { context->engine->cells(address, bytes, access, site); }

/// A generic address in one of the windows.
void window(Context *context, uint64_t address, uint32_t bytes, uint32_t access, uint32_t site) {
  Engine &engine = *context->engine;
  if (address - engine.memory.sharedWindow() < Memory::sharedWindowBytes) {
    engine.cells(address, bytes, access, site);
  } else if (address - engine.memory.localWindow() < Memory::localWindowBytes) {
    if (address < context->localBegin || address + bytes > context->localEnd)
      engine.failAccess(context->thread, address, bytes, access | InLocal, site);
  }
}

void global_race(Context *context, uint64_t address, uint32_t bytes, uint32_t access, uint32_t site) {
  context->engine->checkTags(address, bytes, access, site);
}

void budget(Context *context, uint32_t site) {
  Engine &engine = *context->engine;
  engine.block.budget = budgetSlice;
  engine.jumps += uint64_t(budgetSlice);
  if (engine.jumps > endlessLimit)
    engine.fail(Fault::Endless, context->thread, site, "the launch has jumped backwards " + Twine(engine.jumps) + " times and has not ended");
  if (engine.fibers && engine.readyCount) { // perhaps it waits for another thread of its block
    engine.makeReady(engine.current);
    engine.leave();
  }
}

void exitThread(Context *context) { context->engine->end(); }
uint64_t clockValue(Context *context, bool isTime) {
  if (!isTime)
    return ++context->engine->clock;
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return uint64_t(now.tv_sec) * 1000000000 + uint64_t(now.tv_nsec);
}
uint32_t barrier(Context *context, uint32_t number, uint32_t count, uint32_t mode, uint32_t predicate, uint32_t site) {
  return context->engine->barrier(number, count, mode, predicate, site);
}
void warp_sync(Context *context, uint32_t mask, uint32_t site) { context->engine->warpOperation(Wait::WarpSync, 0, 0, 0, 0, mask, site); }
uint64_t shfl(Context *context, uint32_t mode, uint32_t value, uint32_t lane, uint32_t clamp, uint32_t mask, uint32_t site) {
  return context->engine->warpOperation(Wait::Shuffle, mode, value, lane, clamp, mask, site);
}
uint32_t vote(Context *context, uint32_t mode, uint32_t predicate, uint32_t mask, uint32_t site) {
  return uint32_t(context->engine->warpOperation(Wait::Vote, mode, predicate, 0, 0, mask, site));
}
uint64_t match(Context *context, uint32_t all, uint64_t value, uint32_t mask, uint32_t site) {
  return context->engine->warpOperation(Wait::Match, all, value, 0, 0, mask, site);
}
uint32_t redux(Context *context, uint32_t mode, uint32_t value, uint32_t mask, uint32_t site) {
  return uint32_t(context->engine->warpOperation(Wait::Reduce, mode, value, 0, 0, mask, site));
}
void mma(Context *context, uint32_t mode, uint32_t *words, uint32_t site) {
  context->engine->warpOperation(Wait::Mma, mode, reinterpret_cast<uint64_t>(words), 0, 0, ~0u, site);
}
void ldmatrix(Context *context, uint32_t mode, uint64_t row, uint32_t *words, uint32_t site) {
  context->engine->warpOperation(Wait::LoadMatrix, mode, row, 0, 0, ~0u, site, words);
}
void cp_async(Context *context, uint64_t to, uint64_t from, uint32_t bytes, uint32_t sourceBytes, uint32_t site) {
  context->engine->copy(to, from, bytes, sourceBytes, site);
}
void cp_commit(Context *context) {
  Thread &thread = context->engine->threads[context->thread];
  thread.groups.push_back(std::move(thread.copies));
  thread.copies.clear();
}
void cp_wait(Context *context, uint32_t leaves, uint32_t everything) {
  context->engine->complete(context->engine->threads[context->thread], leaves, everything);
}
void vprintf_(Context *context, int32_t *result, const uint64_t *format, const uint64_t *arguments, uint32_t site) {
  *result = context->engine->print(*format, *arguments, site);
}
void assertfail_(Context *context, const uint64_t *message, const uint64_t *file, const uint32_t *line, const uint64_t *, const uint64_t *, uint32_t site) {
  Engine &engine = *context->engine;
  std::string text = engine.text(*message, site), where = engine.text(*file, site) + ":" + std::to_string(*line);
  engine.fail(Fault::Assert, context->thread, site, "assertion '" + text + "' failed at " + where);
}

} // namespace

std::vector<std::pair<const char *, void *>> engineRoutines() {
#define ROUTINE(name, function) {"standin_" name, reinterpret_cast<void *>(&function)}
  return {ROUTINE("fault_access", fault_access), ROUTINE("fault_trap", fault_trap), ROUTINE("fault_branch", fault_branch), ROUTINE("cells", cells),
          ROUTINE("window", window), ROUTINE("global_race", global_race), ROUTINE("budget", budget), ROUTINE("exit", exitThread),
          ROUTINE("clock", clockValue), ROUTINE("barrier", barrier), ROUTINE("warp_sync", warp_sync), ROUTINE("shfl", shfl), ROUTINE("vote", vote),
          ROUTINE("match", match), ROUTINE("redux", redux), ROUTINE("mma", mma), ROUTINE("ldmatrix", ldmatrix), ROUTINE("cp_async", cp_async), ROUTINE("cp_commit", cp_commit), ROUTINE("cp_wait", cp_wait),
          ROUTINE("vprintf", vprintf_), ROUTINE("__assertfail", assertfail_)};
#undef ROUTINE
}

//===----------------------------------------------------------------------===//
// Launch
//===----------------------------------------------------------------------===//

SmallVector<uint8_t, 64> Kernel::pack(void *const *kernelParams) const {
  SmallVector<uint8_t, 64> packed(parameterBytes, 0);
  for (size_t i = 0; i < parameters.size(); ++i)
    std::memcpy(packed.data() + parameters[i].offset, kernelParams[i], parameters[i].bytes);
  return packed;
}

std::optional<Report> launch(const Kernel &kernel, const LaunchConfig &config, ArrayRef<uint8_t> parameters, LaunchCounters &counters) {
  // Cells and stacks are the process's.
  static std::mutex mutex;
  std::lock_guard lock(mutex);
  auto refuse = [&](const Twine &message) {
    Report report;
    report.fault = Fault::BadLaunch;
    report.message = message.str();
    report.module = kernel.module->name().str();
    report.kernel = kernel.name;
    return report;
  };
  counters = {};
  const Dim3 &grid = config.grid, &block = config.block;
  if (!block.count() || !grid.count())
    return refuse("a grid " + at(grid) + " of blocks " + at(block) + " has no threads");
  if (block.x > maxThreads || block.y > maxThreads || block.z > 64 || block.count() > maxThreads)
    return refuse("a block of " + at(block) + " has more threads than the " + Twine(maxThreads) + " (64 along z) that there may be");
  if (grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535 || grid.count() > 0x7fffffff)
    return refuse("a grid of " + at(grid) + " blocks is too large");
  if (kernel.reqThreads && *kernel.reqThreads != block)
    return refuse("a block of " + at(block) + ", but .reqntid says " + at(*kernel.reqThreads));
  if (kernel.maxThreads && block.count() > kernel.maxThreads->count())
    return refuse("a block of " + Twine(block.count()) + " threads, but .maxntid says " + Twine(kernel.maxThreads->count()));
  if (uint64_t(kernel.staticSharedBytes) + config.dynamicSharedBytes > maxSharedBytes)
    return refuse(Twine(uint64_t(kernel.staticSharedBytes) + config.dynamicSharedBytes) + " bytes of shared memory, of which there are " +
                  Twine(maxSharedBytes));
  if (parameters.size() != kernel.parameterBytes)
    return refuse(Twine(parameters.size()) + " bytes of parameters, the kernel takes " + Twine(kernel.parameterBytes));

  Engine engine(kernel, config);
  if (Error error = engine.module.compile(engine.code))
    return refuse(toString(std::move(error)));
  engine.prepare(parameters);
  uint64_t blocks = grid.count();
  if (blocks > UINT32_MAX - engine.memory.nextTag)
    engine.memory.clearTags();
  engine.block.firstTag = engine.memory.nextTag;
  engine.memory.nextTag += uint32_t(blocks);
  engine.epoch = Engine::lastEpoch;
  Engine::active = &engine;
  // To nearest, with subnormal numbers, whatever the caller has set.
  unsigned control = _mm_getcsr();
  _mm_setcsr(0x1f80);
  for (uint64_t i = 0; i < blocks && !engine.stopped; ++i)
    engine.runBlock(i);
  _mm_setcsr(control);
  Engine::active = nullptr;
  Engine::lastEpoch = engine.epoch;
  engine.clean();
  engine.collect(counters);
  counters.threads = blocks * block.count();
  counters.blocks = blocks;
  return std::move(engine.report);
}

} // namespace standin
