//===- gemm_bench.cpp - speed of the GEMM engine by itself -*- C++ -*-===//
//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// gemm-bench [--cpu NAME] [--threads K] [MxNxK[lrdf]...]: l and r transpose the left and the right
// operand, d computes in f64, f has the right operand stay the same (what is packed once for all calls
// is not timed), '?' in front of a size makes it known at run time only.
//
//===----------------------------------------------------------------------===//

#include "KernelJit.h"

#include "llvm/ADT/StringExtras.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <thread>

using namespace dlc;
using namespace dlc::test;

namespace {

struct Case {
  std::string text;
  int64_t sizes[3];
  cpu::GemmShape shape;
};

Case parse(mlir::MLIRContext &context, const std::string &text) {
  Case c{text, {}, {}};
  const char *at = text.c_str();
  int64_t fixed[3];
  for (int i = 0; i < 3; ++i) {
    bool dynamic = *at == '?';
    at += dynamic;
    c.sizes[i] = std::strtoll(at, const_cast<char **>(&at), 10);
    fixed[i] = dynamic ? mlir::ShapedType::kDynamic : c.sizes[i];
    at += *at == 'x';
  }
  bool f64 = std::strchr(at, 'd');
  c.shape = {f64 ? mlir::FloatType(mlir::Float64Type::get(&context))
                 : mlir::FloatType(mlir::Float32Type::get(&context)),
             fixed[0],
             fixed[1],
             fixed[2],
             1,
             std::strchr(at, 'l') != nullptr,
             std::strchr(at, 'r') != nullptr,
             false,
             std::strchr(at, 'f') != nullptr};
  return c;
}

/// With one thread, the time that the thread ran: other processes on the machine do not count.
double seconds(unsigned threads) {
  timespec now;
  clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

void *allocate(size_t bytes) { return std::aligned_alloc(64, (bytes + 4096) / 64 * 64); }

/// Two threads that spin between products, as a pool does: starting threads would cost more than a
/// small product.
class Team {
public:
  Team(unsigned threads, const GemmFunctions &product) : product(product), threads(threads) {
    for (unsigned t = 0; t < threads; ++t)
      scratch.push_back(allocate(product.scratchBytes));
    for (unsigned t = 1; t < threads; ++t)
      workers.emplace_back([this, t] {
        for (unsigned seen = 0;;) {
          unsigned now;
          while ((now = round.load(std::memory_order_acquire)) == seen)
            ;
          seen = now;
          if (stop)
            return;
          share(t);
          done.fetch_add(1, std::memory_order_release);
        }
      });
  }
  ~Team() {
    stop = true;
    round.fetch_add(1);
    for (std::thread &worker : workers)
      worker.join();
    for (void *memory : scratch)
      std::free(memory);
  }
  void run(const GemmFrame &f, unsigned first) {
    for (launch = first; launch < product.kernels.size(); ++launch) {
      frame = &f;
      tasks = product.tasks[launch](&f);
      done.store(0);
      round.fetch_add(1, std::memory_order_release);
      share(0);
      while (done.load(std::memory_order_acquire) + 1 != threads)
        ;
    }
  }

private:
  void share(unsigned t) {
    product.kernels[launch](frame, tasks * t / threads, tasks * (t + 1) / threads, scratch[t]);
  }
  const GemmFunctions &product;
  unsigned threads, launch = 0;
  int64_t tasks = 0;
  const GemmFrame *frame = nullptr;
  std::vector<void *> scratch;
  std::vector<std::thread> workers;
  std::atomic<unsigned> round{0}, done{0};
  bool stop = false;
};

} // namespace

int main(int argc, char **argv) {
  Machine machine = Machine::native();
  unsigned threads = 1;
  auto context = makeContext();
  std::vector<Case> cases;
  for (int i = 1; i < argc; ++i) {
    if (!std::strcmp(argv[i], "--cpu") && i + 1 < argc)
      machine = {argv[++i], ""};
    else if (!std::strcmp(argv[i], "--threads") && i + 1 < argc)
      threads = std::max(1, std::atoi(argv[++i]));
    else
      cases.push_back(parse(*context, argv[i]));
  }
  if (cases.empty())
    for (const char *text :
         {"1024x1024x1024", "2048x2048x2048", "64x100x1000", "128x512x784", "128x784x512r",
          "784x512x128l", "1000x100x64l", "64x1000x100r", "128x10x512", "128x512x10r",
          "512x10x128l", "1x512x784", "128x1x784", "?128x512x784", "1024x1024x1024r",
          "1024x1024x1024l", "1024x1024x1024d"})
      cases.push_back(parse(*context, text));

  for (const Case &c : cases) {
    GemmBuilder builder(*context, machine);
    unsigned number = builder.add(c.shape);
    builder.compile();
    const GemmFunctions &product = builder[number];
    const auto [m, n, k] = c.sizes;
    const size_t bytes = c.shape.type.getIntOrFloatBitWidth() / 8;
    GemmFrame frame{};
    frame.m = m, frame.n = n, frame.k = k, frame.batch = 1;
    void *lhs = allocate(m * k * bytes), *rhs = allocate(k * n * bytes);
    auto fill = [&](void *memory, int64_t count) {
      for (int64_t i = 0; i < count; ++i) {
        double value = (i * 7919 % 1000 - 500) / 500.0;
        bytes == 4 ? void(static_cast<float *>(memory)[i] = value)
                   : void(static_cast<double *>(memory)[i] = value);
      }
    };
    fill(lhs, m * k);
    fill(rhs, k * n);
    frame.lhs = lhs;
    frame.rhs = rhs;
    frame.out = allocate(m * n * bytes);
    frame.workspace = allocate(product.workspaceElements(frame) * bytes);
    frame.panels = allocate(product.panelElements(frame) * bytes);

    double median, best;
    {
      Team team(threads, product);
      const double flops = 2.0 * m * n * k;
      const int runs = std::max(1, static_cast<int>(2e-3 * 100e9 / flops));
      std::vector<double> times;
      team.run(frame, 0);
      for (double start = seconds(threads); times.size() < 5 || seconds(threads) - start < 0.5;) {
        double t = seconds(threads);
        for (int i = 0; i < runs; ++i)
          team.run(frame, product.launchesOnce);
        times.push_back((seconds(threads) - t) / runs);
      }
      std::sort(times.begin(), times.end());
      median = times[times.size() / 2];
      best = times.front();
    }
    const double flops = 2.0 * m * n * k;
    std::printf("%-16s nt=%u median %7.1f best %7.1f GFLOP/s %9.1f us | %2ld "
                "tasks, compile %5.1f ms, text %5zu B, "
                "scratch %ld KB | %s\n",
                c.text.c_str(), threads, flops / median / 1e9, flops / best / 1e9, median * 1e6,
                long(product.tasks.back()(&frame)), builder.code().compileMs,
                builder.code().textBytes, long(product.scratchBytes / 1024),
                product.description.c_str());
    std::fflush(stdout);
    std::free(lhs);
    std::free(rhs);
    std::free(frame.out);
    std::free(frame.workspace);
    std::free(frame.panels);
  }
}
