//===- dl-math-sweep.cpp - measures the elementary functions on all inputs -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Prints, as rows of the table in docs/math.md, the largest error of each function and where it is.
// f32 functions of one number see all 2^32 inputs (minutes each); f64 functions and pow see random
// ones. Ends with status 1 if an error is above 2 units in the last place.
//
//===----------------------------------------------------------------------===//

#include "VectorMathJit.h"
#include "compiler/lowering/cpu/VectorMath.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/Format.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/InitLLVM.h"
#include "llvm/Support/raw_ostream.h"
#include <bit>
#include <random>
#include <thread>

using namespace dlc::vecmath;
namespace cl = llvm::cl;

static cl::list<std::string> functions("function", cl::CommaSeparated,
                                       cl::desc("Functions to measure (default: all)"));
static cl::opt<std::string> typeName("type", cl::desc("f32 or f64"), cl::init("f32"));
static cl::opt<std::string> cpu("cpu", cl::desc("CPU to generate code for"), cl::init("x86-64-v3"));
static cl::opt<unsigned> lanes("lanes", cl::desc("Elements per vector; 0: scalars"), cl::init(8));
static cl::opt<std::string> objectFile("object", cl::desc("Also write the machine code here"));
static cl::opt<uint64_t> stride("stride", cl::desc("Take every n-th f32 only"), cl::init(1));
static cl::opt<uint64_t> samples("samples", cl::desc("Random inputs for f64 and pow"),
                                 cl::init(100'000'000));
static cl::opt<unsigned> threads("jobs", cl::desc("Threads"), cl::init(1));

namespace {

constexpr uint64_t kChunk = 1 << 14;

struct Worst {
  double error = 0;
  double x = 0, y = 0;
  uint64_t rounded = 0; // results that are the nearest number
  uint64_t count = 0;
};

/// The f32 with these bits; every 2^32 once.
struct AllInputs {
  void fill(uint64_t begin, float *x, float *y, uint64_t n) const {
    for (uint64_t i = 0; i < n; ++i)
      x[i] = std::bit_cast<float>(uint32_t((begin + i) * stride));
  }
};

/// Numbers of all magnitudes, and as many from where the functions bend.
template <typename T> struct RandomInputs {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  bool isPow;

  static T near(std::mt19937_64 &random, T limit) {
    return std::uniform_real_distribution<T>(-limit, limit)(random);
  }
  void fill(uint64_t begin, T *x, T *y, uint64_t n) const {
    std::mt19937_64 random(begin);
    for (uint64_t i = 0; i < n; ++i) {
      switch (i % 4) {
      case 0:
        x[i] = std::bit_cast<T>(Bits(random()));
        y[i] = isPow ? near(random, 20) : 0;
        break;
      case 1:
        x[i] = near(random, isPow ? 1000 : 2);
        y[i] = i % 8 == 1 ? std::round(near(random, 100)) : near(random, 100);
        break;
      case 2:
        x[i] = isPow ? 1 + near(random, T(1) / 16) : near(random, 40);
        if (!isPow && i % 8 == 2) // next to the zeros of sine and cosine
          x[i] = T(1.5707963267948966192L * (random() >> (random() % 50 + 14)));
        y[i] = near(random, 10000);
        break;
      case 3:
        x[i] = std::ldexp(1 + near(random, T(0.5)), int(random() % 64) - 32);
        // The power uses the whole range of exponents.
        y[i] = near(random, std::numeric_limits<T>::max_exponent) / std::log2(x[i]);
        if (!isPow && i % 8 == 3)
          x[i] = near(random, sizeof(T) == 4 ? 110 : 760);
        break;
      }
    }
  }
};

template <typename T, typename Inputs>
Worst measureRange(const Jit &jit, llvm::StringRef function, const Inputs &inputs, uint64_t begin,
                   uint64_t end) {
  using Reference = std::conditional_t<sizeof(T) == 4, double, long double>;
  std::vector<T> x(kChunk), y(kChunk), out(kChunk);
  Worst worst;
  for (; begin < end; begin += kChunk) {
    uint64_t n = std::min(kChunk, end - begin);
    inputs.fill(begin, x.data(), y.data(), kChunk);
    jit.run(function, x.data(), y.data(), out.data(), kChunk);
    for (uint64_t i = 0; i < n; ++i) {
      // The one documented gap.
      if (sizeof(T) == 8 && (function == "sin" || function == "cos") && std::fabs(x[i]) >= 0x1p45)
        continue;
      Reference want = referenceOf<Reference>(function, x[i], y[i]);
      ++worst.count;
      if (T(want) == out[i] && want != 0) {
        ++worst.rounded;
        continue;
      }
      double error = ulpError(out[i], want);
      worst.rounded += error <= 0.5;
      if (error > worst.error)
        worst.error = error, worst.x = x[i], worst.y = y[i];
    }
  }
  return worst;
}

template <typename T, typename Inputs>
Worst measure(const Jit &jit, llvm::StringRef function, const Inputs &inputs, uint64_t total) {
  std::vector<Worst> parts(threads);
  std::vector<std::thread> pool;
  uint64_t part = (total / threads + kChunk - 1) / kChunk * kChunk;
  for (unsigned t = 0; t < threads; ++t)
    pool.emplace_back([&, t] {
      parts[t] = measureRange<T>(jit, function, inputs, std::min(total, t * part),
                                 std::min(total, (t + 1) * part));
    });
  Worst worst;
  for (unsigned t = 0; t < threads; ++t) {
    pool[t].join();
    uint64_t rounded = worst.rounded + parts[t].rounded, count = worst.count + parts[t].count;
    if (parts[t].error > worst.error)
      worst = parts[t];
    worst.rounded = rounded;
    worst.count = count;
  }
  return worst;
}

} // namespace

int main(int argc, char **argv) {
  llvm::InitLLVM init(argc, argv);
  cl::ParseCommandLineOptions(argc, argv, "largest errors of the elementary functions\n");
  bool isF64 = typeName == "f64";
  if (!isF64 && typeName != "f32") {
    llvm::errs() << "dl-math-sweep: error: unknown type '" << typeName
                 << "', expected f32 or f64\n";
    return 2;
  }
  if (!hostRuns(cpu)) {
    llvm::errs() << "dl-math-sweep: error: this machine does not run code for " << cpu << "\n";
    return 2;
  }
  if (!stride || !threads || lanes > 64 || (lanes & (lanes - 1))) {
    llvm::errs() << "dl-math-sweep: error: stride and jobs must be positive, lanes a power of "
                    "two up to 64 or 0\n";
    return 2;
  }
  for (llvm::StringRef function : functions)
    if (llvm::none_of(getMathOps(), [&](const MathOp &op) { return op.name == function; })) {
      llvm::errs() << "dl-math-sweep: error: unknown function '" << function << "'\n";
      return 2;
    }
  JitOptions options;
  options.isF64 = isF64;
  options.lanes = lanes;
  options.cpu = cpu;
  options.objectFile = objectFile;
  llvm::ExitOnError exitOnError("dl-math-sweep: error: ");
  Jit jit = exitOnError(Jit::compile(options));

  bool good = true;
  llvm::outs()
      << "| function | type | largest error (ulp) | at | nearest (%) | inputs | code (bytes) |\n"
      << "|---|---|---|---|---|---|---|\n";
  for (const MathOp &op : getMathOps()) {
    if (!functions.empty() && !llvm::is_contained(functions, op.name))
      continue;
    bool isPow = op.numOperands == 2;
    Worst worst;
    if (isF64)
      worst = measure<double>(jit, op.name, RandomInputs<double>{isPow}, samples);
    else if (isPow)
      worst = measure<float>(jit, op.name, RandomInputs<float>{isPow}, samples);
    else
      worst =
          measure<float>(jit, op.name, AllInputs(), ((uint64_t(1) << 32) + stride - 1) / stride);
    std::string place;
    llvm::raw_string_ostream text(place);
    text << llvm::format("%a", worst.x);
    if (isPow)
      text << llvm::format(", %a", worst.y);
    llvm::outs() << "| " << op.name << " | " << typeName << " | "
                 << (worst.error ? llvm::formatv("{0:F3}", worst.error).str() : "at most 0.5")
                 << " | " << (worst.error ? place : "") << " | "
                 << llvm::formatv("{0:F2}", 100.0 * worst.rounded / worst.count) << " | "
                 << worst.count << " | " << jit.getCodeSize(op.name) << " |\n";
    llvm::outs().flush();
    good &= worst.error <= 2;
  }
  return good ? 0 : 1;
}
