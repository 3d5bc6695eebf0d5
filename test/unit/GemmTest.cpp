//===- GemmTest.cpp - the GEMM engine against its definition -*- C++ -*-===//
//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The engine promises one chain of fused multiply-adds over k for every element, so all comparisons
// are for equal bits. Operands, scratch and workspace end where an inaccessible page begins: a read
// or write beyond them ends the test.
//
//===----------------------------------------------------------------------===//

#include "KernelJit.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinTypes.h"
#include "llvm/TargetParser/Host.h"
#include "gtest/gtest.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <sys/mman.h>
#include <unistd.h>

using namespace dlc;
using namespace dlc::test;

namespace {

constexpr int64_t dynamic = mlir::ShapedType::kDynamic;

/// Memory between two inaccessible pages, ending exactly at the second one.
class Guarded {
public:
  explicit Guarded(size_t bytes) : page(sysconf(_SC_PAGESIZE)) {
    inner = (bytes + page - 1) / page * page;
    base = static_cast<char *>(mmap(nullptr, inner + 2 * page, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base == MAP_FAILED)
      std::abort();
    mprotect(base, page, PROT_NONE);
    mprotect(base + page + inner, page, PROT_NONE);
    // What is not written shows up as NaN.
    std::memset(base + page, 0xff, inner);
    start = base + page + inner - bytes;
  }
  Guarded(const Guarded &) = delete;
  ~Guarded() { munmap(base, inner + 2 * page); }
  template <typename T> T *as() { return reinterpret_cast<T *>(start); }

private:
  size_t page, inner;
  char *base, *start;
};

struct Sizes {
  int64_t m, n, k, batch = 1;
  bool broadcastLhs = false, broadcastRhs = false;
};

/// How tasks are handed out.
enum class Order { OneThread, TwoThreads, OneByOneBackwards };

template <typename T>
void check(const GemmFunctions &product, const Sizes &s, Order order, Tail tail = Tail::Store) {
  SCOPED_TRACE(testing::Message() << s.m << 'x' << s.n << 'x' << s.k << " batch " << s.batch
                                  << (product.shape.lhsTransposed ? " lhs transposed" : "")
                                  << (product.shape.rhsTransposed ? " rhs transposed" : "") << " | "
                                  << product.description << " | order " << static_cast<int>(order));
  const int64_t lhsEntries = s.broadcastLhs ? 1 : s.batch,
                rhsEntries = s.broadcastRhs ? 1 : s.batch;
  Guarded lhs(lhsEntries * s.m * s.k * sizeof(T)), rhs(rhsEntries * s.k * s.n * sizeof(T));
  Guarded out(s.batch * s.m * s.n * sizeof(T)), bias(s.n * sizeof(T));
  std::mt19937 random(static_cast<unsigned>(s.m * 31 + s.n * 17 + s.k));
  auto fill = [&](Guarded &memory, int64_t count) {
    for (int64_t i = 0; i < count; ++i)
      memory.as<T>()[i] = static_cast<T>(static_cast<int>(random() % 20001) - 10000) / T(7919);
  };
  fill(lhs, lhsEntries * s.m * s.k);
  fill(rhs, rhsEntries * s.k * s.n);
  fill(bias, s.n);

  GemmFrame frame{};
  frame.lhs = lhs.as<T>();
  frame.rhs = rhs.as<T>();
  frame.out = out.as<T>();
  frame.bias = bias.as<T>();
  frame.m = s.m;
  frame.n = s.n;
  frame.k = s.k;
  frame.batch = s.batch;
  frame.lhsBatchStride = s.broadcastLhs ? 0 : s.m * s.k;
  frame.rhsBatchStride = s.broadcastRhs ? 0 : s.k * s.n;
  Guarded workspace(product.workspaceElements(frame) * sizeof(T));
  frame.workspace = workspace.as<T>();
  Guarded panels(product.panelElements(frame) * sizeof(T));
  frame.panels = panels.as<T>();
  Guarded scratch0(product.scratchBytes), scratch1(product.scratchBytes);
  std::vector<void *> scratch{scratch0.as<T>(), scratch1.as<T>()};

  auto run = [&](unsigned first) {
    if (order == Order::OneByOneBackwards) {
      for (size_t launch = first; launch < product.kernels.size(); ++launch)
        for (int64_t t = product.tasks[launch](&frame) - 1; t >= 0; --t)
          product.kernels[launch](&frame, t, t + 1, scratch[t % 2]);
    } else {
      product.run(frame, order == Order::TwoThreads ? 2 : 1, scratch, first);
    }
  };
  run(0);
  if (product.launchesOnce) {
    // The later launches need no more of a fixed operand than the first ones have written.
    Guarded &fixed = product.shape.rhsFixed ? rhs : lhs;
    const size_t bytes = (product.shape.rhsFixed ? s.k * s.n : s.m * s.k) * sizeof(T);
    std::vector<char> saved(fixed.as<char>(), fixed.as<char>() + bytes);
    std::memset(fixed.as<char>(), 0xff, bytes);
    std::memset(out.as<char>(), 0xff, s.batch * s.m * s.n * sizeof(T));
    run(product.launchesOnce);
    std::memcpy(fixed.as<char>(), saved.data(), bytes);
  }

  int64_t wrong = 0;
  for (int64_t b = 0; b < s.batch; ++b) {
    const T *A = lhs.as<T>() + b * frame.lhsBatchStride,
            *B = rhs.as<T>() + b * frame.rhsBatchStride;
    for (int64_t i = 0; i < s.m; ++i) {
      for (int64_t j = 0; j < s.n; ++j) {
        T sum = 0;
        for (int64_t k = 0; k < s.k; ++k)
          sum = std::fma(product.shape.lhsTransposed ? A[k * s.m + i] : A[i * s.k + k],
                         product.shape.rhsTransposed ? B[j * s.k + k] : B[k * s.n + j], sum);
        if (tail == Tail::BiasRelu) {
          sum += bias.as<T>()[j];
          sum = sum > 0 ? sum : 0;
        }
        T got = out.as<T>()[(b * s.m + i) * s.n + j];
        if (std::memcmp(&got, &sum, sizeof(T)) && wrong++ == 0)
          ADD_FAILURE() << "C[" << b << ", " << i << ", " << j << "] is " << got << ", not " << sum;
      }
    }
  }
  EXPECT_EQ(wrong, 0);
}

void checkAny(const GemmFunctions &product, const Sizes &s, Order order, Tail tail = Tail::Store) {
  if (product.shape.type.isF32())
    check<float>(product, s, order, tail);
  else
    check<double>(product, s, order, tail);
}

class GemmTest : public testing::TestWithParam<const char *> {
protected:
  void SetUp() override {
    if (!Machine::runs(GetParam()))
      GTEST_SKIP() << "this machine has not the features of " << GetParam();
    context = makeContext();
    machine = {GetParam(), ""};
    f32 = mlir::Float32Type::get(context.get());
    f64 = mlir::Float64Type::get(context.get());
  }
  std::unique_ptr<mlir::MLIRContext> context;
  Machine machine;
  mlir::FloatType f32, f64;
};

/// One piece of code for every size there is, edges of all kinds.
TEST_P(GemmTest, SizesKnownAtRunTime) {
  GemmBuilder builder(*context, machine);
  for (mlir::FloatType type : {f32, f64})
    for (bool lhsTransposed : {false, true})
      for (bool rhsTransposed : {false, true})
        builder.add({type, dynamic, dynamic, dynamic, dynamic, lhsTransposed, rhsTransposed});
  builder.compile();
  const int64_t sizes[][3] = {{1, 1, 1},    {1, 1, 300},  {1, 100, 33},  {100, 1, 33},
                              {2, 3, 5},    {7, 15, 16},  {8, 16, 17},   {9, 31, 1},
                              {13, 33, 64}, {37, 48, 65}, {64, 100, 70}, {130, 65, 31},
                              {3, 200, 9},  {200, 3, 9},  {5, 5, 700},   {17, 17, 1100}};
  for (unsigned i = 0; i < 8; ++i)
    for (auto [m, n, k] : sizes)
      for (Order order : {Order::TwoThreads, Order::OneByOneBackwards})
        checkAny(builder[i], {m, n, k}, order);
  for (unsigned i = 0; i < 8; ++i) {
    checkAny(builder[i], {7, 19, 23, 3}, Order::OneThread);
    checkAny(builder[i], {7, 19, 23, 3, true, false}, Order::TwoThreads);
    checkAny(builder[i], {65, 40, 9, 5, false, true}, Order::OneByOneBackwards);
  }
}

/// An empty sum is 0, and an empty C is left alone.
TEST_P(GemmTest, EmptySizes) {
  GemmBuilder builder(*context, machine);
  builder.add({f32, dynamic, dynamic, dynamic, dynamic, false, false});
  builder.add({f32, dynamic, 20, 0, 1, false, true}, Tail::BiasRelu);
  builder.add({f64, dynamic, 20, 30, 1, true, false});
  builder.compile();
  checkAny(builder[0], {5, 19, 0}, Order::TwoThreads);
  checkAny(builder[0], {0, 19, 3}, Order::TwoThreads);
  checkAny(builder[0], {5, 0, 3}, Order::TwoThreads);
  checkAny(builder[0], {5, 6, 3, 0}, Order::TwoThreads);
  checkAny(builder[1], {9, 20, 0}, Order::TwoThreads, Tail::BiasRelu);
  checkAny(builder[2], {0, 20, 30}, Order::TwoThreads);
}

/// A batch that is known at run time with the layers of a network, as forward and both gradients
/// see them.
TEST_P(GemmTest, Layers) {
  GemmBuilder builder(*context, machine);
  const int64_t layers[][2] = {{784, 512}, {512, 10}, {100, 1}, {1, 64}, {30, 48}};
  for (auto [in, out] : layers) {
    builder.add({f32, dynamic, out, in}, Tail::BiasRelu);
    builder.add({f32, dynamic, in, out, 1, false, true});
    builder.add({f32, in, out, dynamic, 1, true, false});
  }
  builder.compile();
  unsigned i = 0;
  for (auto [in, out] : layers) {
    for (int64_t batch : {1, 13, 128}) {
      checkAny(builder[i], {batch, out, in}, Order::TwoThreads, Tail::BiasRelu);
      checkAny(builder[i + 1], {batch, in, out}, Order::TwoThreads);
      checkAny(builder[i + 2], {in, out, batch}, Order::TwoThreads);
    }
    i += 3;
  }
}

/// Sizes that are all static, chosen so that every schedule occurs: each part of the plan in words
/// must come up.
TEST_P(GemmTest, StaticSizes) {
  GemmBuilder builder(*context, machine);
  std::vector<Sizes> sizes;
  std::string plans;
  auto add = [&](mlir::FloatType type, Sizes s, bool lhsTransposed, bool rhsTransposed) {
    unsigned i = builder.add({type, s.m, s.n, s.k, s.batch, lhsTransposed, rhsTransposed});
    plans += builder[i].description + "\n";
    sizes.push_back(s);
  };
  for (bool lhsTransposed : {false, true}) {
    for (bool rhsTransposed : {false, true}) {
      add(f32, {64, 100, 1000}, lhsTransposed, rhsTransposed);
      add(f32, {1, 77, 130}, lhsTransposed, rhsTransposed);
      add(f32, {77, 1, 130}, lhsTransposed, rhsTransposed);
      add(f64, {33, 20, 18, 4}, lhsTransposed, rhsTransposed);
      add(f32, {300, 290, 1300}, lhsTransposed, rhsTransposed);
      add(f64, {259, 301, 600}, lhsTransposed, rhsTransposed);
      add(f32, {40, 24, 2500}, lhsTransposed, rhsTransposed);
    }
    // A right operand that no L2 holds, with few rows.
    add(f32, {1, 1001, 600}, lhsTransposed, false);
    add(f32, {16, 10500, 63}, lhsTransposed, false);
    add(f64, {3, 7, 50001}, lhsTransposed, false);
    add(f64, {5, 4100, 81}, lhsTransposed, false);
  }
  add(f32, {6, 3, 5}, false, false);
  add(f32, {512, 10, 128}, true, false);
  add(f32, {12, 5, 3000, 2}, false, false);
  add(f32, {12, 5, 3000, 2}, true, true);
  builder.compile();
  for (const char *part : {"swapped", "lhs direct", "lhs by launch", "rhs direct", "rhs by task", "wide"})
    EXPECT_NE(plans.find(part), std::string::npos) << part << " does not occur in\n" << plans;
  for (unsigned i = 0; i < sizes.size(); ++i)
    for (Order order : {Order::TwoThreads, Order::OneByOneBackwards})
      checkAny(builder[i], sizes[i], order);
}

/// Few rows read a B that L2 does not hold in wide tiles, also where only the call says how few.
TEST_P(GemmTest, FewRowsKnownAtRunTime) {
  GemmBuilder builder(*context, machine);
  builder.add({f32, dynamic, 1500, 401}, Tail::BiasRelu);
  builder.add({f64, dynamic, dynamic, dynamic});
  builder.add({f32, dynamic, 1000, 4100, 1, true, false});
  builder.compile();
  for (unsigned i : {0, 1, 2})
    EXPECT_NE(builder[i].description.find("wide"), std::string::npos) << builder[i].description;
  for (Order order : {Order::TwoThreads, Order::OneByOneBackwards})
    for (int64_t m : {0, 1, 6, 13, 16, 17, 50, 170}) {
      checkAny(builder[0], {m, 1500, 401}, order, Tail::BiasRelu);
      checkAny(builder[1], {m, 3, 9}, order);
    }
  for (Order order : {Order::TwoThreads, Order::OneByOneBackwards})
    for (int64_t m : {1, 7, 18}) {
      checkAny(builder[1], {m, 1515, 230}, order);
      checkAny(builder[2], {m, 1000, 4100}, order);
    }
}

/// One left operand for all entries of a batch, as the weights of a convolution: their columns may be joined, also across more than one entry; or it is packed once, for all of them, and
/// for all calls if it is fixed.
TEST_P(GemmTest, SharedOperand) {
  GemmBuilder builder(*context, machine);
  std::vector<Sizes> sizes;
  std::string plans;
  unsigned kept = 0;
  auto add = [&](cpu::GemmShape shape, Sizes s) {
    shape.lhsShared = true;
    s.broadcastLhs = true;
    for (bool isFixed : {false, true}) {
      shape.lhsFixed = isFixed;
      unsigned i = builder.add(shape);
      plans += builder[i].description + "\n";
      if (isFixed)
        kept += builder[i].launchesOnce;
      else
        EXPECT_EQ(builder[i].launchesOnce, 0u) << builder[i].description;
      sizes.push_back(s);
    }
  };
  for (mlir::FloatType type : {f32, f64})
    for (bool lhsTransposed : {false, true}) {
      add({type, 50, 16, 33, 9, lhsTransposed}, {50, 16, 33, 9});
      add({type, 70, 49, 40, 8, lhsTransposed}, {70, 49, 40, 8});
      add({type, 64, 49, 300, dynamic, lhsTransposed}, {64, 49, 300, 5});
      add({type, 64, 49, 300, dynamic, lhsTransposed}, {64, 49, 300, 0});
      add({type, 301, 196, 520, 3, lhsTransposed}, {301, 196, 520, 3});
      add({type, 24, 3136, 64, 2, lhsTransposed}, {24, 3136, 64, 2});
      add({type, 1000, 17, 1100, 2, lhsTransposed}, {1000, 17, 1100, 2});
      add({type, 90, 18, 40, 1, lhsTransposed}, {90, 18, 40, 1});
      add({type, 960, 54, 200, 1, lhsTransposed}, {960, 54, 200, 1}); // shared with nobody
    }
  EXPECT_GT(kept, 0u) << plans;
  builder.compile();
  for (const char *part : {"joined", "swapped", "lhs by launch", "rhs by launch", "rhs by task"})
    EXPECT_NE(plans.find(part), std::string::npos) << part << " does not occur in\n" << plans;
  for (unsigned i = 0; i < sizes.size(); ++i)
    for (Order order : {Order::TwoThreads, Order::OneByOneBackwards})
      checkAny(builder[i], sizes[i], order);
}

/// What stays the same from call to call is packed by launches of its own.
TEST_P(GemmTest, FixedOperands) {
  GemmBuilder builder(*context, machine);
  std::vector<Sizes> sizes;
  auto add = [&](cpu::GemmShape shape, Sizes s, bool isPacked) {
    unsigned i = builder.add(shape);
    // A transposed left operand may be cheaper to read where it lies, as the right one of C^T.
    if (!shape.lhsTransposed)
      EXPECT_EQ(builder[i].launchesOnce, isPacked) << builder[i].description;
    sizes.push_back(s);
  };
  for (mlir::FloatType type : {f32, f64})
    for (bool lhsTransposed : {false, true})
      for (bool rhsTransposed : {false, true}) {
        add({type, 32, 130, 77, 1, lhsTransposed, rhsTransposed, false, true}, {32, 130, 77}, true);
        add({type, 3, 301, 3000, 1, lhsTransposed, rhsTransposed, false, true}, {3, 301, 3000}, true);
        add({type, 19, dynamic, dynamic, 1, lhsTransposed, rhsTransposed, false, true}, {19, 29, 601}, true);
        add({type, dynamic, 120, 1000, 1, lhsTransposed, rhsTransposed, false, true}, {41, 120, 1000}, true);
        add({type, 32, 10, 7, 1, lhsTransposed, rhsTransposed, false, true}, {32, 10, 7}, false);
      }
  add({f32, 4, 100, 100, 3, false, false, false, true}, {4, 100, 100, 3}, false);
  // Of the left one it depends on which way the product is computed.
  for (bool lhsTransposed : {false, true}) {
    cpu::GemmShape shape{f32, 700, 5, 300, 1, lhsTransposed, false, true, false};
    builder.add(shape);
    sizes.push_back({700, 5, 300});
  }
  builder.compile();
  for (unsigned i = 0; i < sizes.size(); ++i)
    for (Order order : {Order::TwoThreads, Order::OneByOneBackwards})
      checkAny(builder[i], sizes[i], order);
}

/// NaN and infinity in one element of A or B reach what depends on them and nothing else: lanes and
/// rows that edges compute in excess do not leak.
TEST_P(GemmTest, SpecialValuesStayWhereTheyBelong) {
  GemmBuilder builder(*context, machine);
  builder.add({f32, dynamic, 21, 19});
  builder.compile();
  const int64_t m = 11, n = 21, k = 19;
  Guarded lhs(m * k * 4), rhs(k * n * 4), out(m * n * 4), scratch(builder[0].scratchBytes);
  for (int64_t i = 0; i < m * k; ++i)
    lhs.as<float>()[i] = 1;
  for (int64_t i = 0; i < k * n; ++i)
    rhs.as<float>()[i] = 1;
  lhs.as<float>()[(m - 1) * k + 3] = std::numeric_limits<float>::infinity();
  rhs.as<float>()[7 * n + 20] = std::numeric_limits<float>::quiet_NaN();
  GemmFrame frame{};
  frame.lhs = lhs.as<float>();
  frame.rhs = rhs.as<float>();
  frame.out = out.as<float>();
  frame.m = m, frame.n = n, frame.k = k, frame.batch = 1;
  ASSERT_EQ(builder[0].workspaceElements(frame) + builder[0].panelElements(frame), 0);
  std::vector<void *> memory{scratch.as<void>()};
  builder[0].run(frame, 1, memory);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      float got = out.as<float>()[i * n + j];
      if (j == n - 1)
        EXPECT_TRUE(std::isnan(got)) << i << ", " << j;
      else if (i == m - 1)
        EXPECT_TRUE(std::isinf(got)) << i << ", " << j;
      else
        EXPECT_EQ(got, float(k)) << i << ", " << j;
    }
  }
}

/// Small products are one task, large ones serve 16 threads.
TEST_P(GemmTest, TaskCounts) {
  GemmBuilder builder(*context, machine);
  builder.add({f32, dynamic, 10, 20});
  builder.add({f32, dynamic, 512, 784});
  builder.add({f32, 1024, 1024, 1024});
  builder.add({f32, 1, 4096, 9216});
  builder.add({f32, 1, 1000, 4096});
  builder.compile();
  GemmFrame frame{};
  frame.batch = 1;
  frame.m = 4, frame.n = 10, frame.k = 20;
  EXPECT_EQ(builder[0].tasks.back()(&frame), 1);
  frame.m = 128, frame.n = 512, frame.k = 784;
  EXPECT_GE(builder[1].tasks.back()(&frame), 16);
  EXPECT_LE(builder[1].tasks.back()(&frame), 256);
  EXPECT_GE(builder[2].tasks.back()(&frame), 32);
  EXPECT_EQ(builder[2].tasksTogether, 0u);
  // Few rows of memory at once: threads find work, and two or three have long pieces of a row.
  EXPECT_GE(builder[3].tasks.back()(&frame), 16);
  EXPECT_EQ(builder[3].tasksTogether * 4096 * 4, 8192 * builder[3].tasks.back()(&frame));
  EXPECT_GE(builder[4].tasks.back()(&frame), 4);
}

/// Products of one tile size share their micro-kernel, and none needs more code than a kernel may
/// have.
TEST_P(GemmTest, CodeSize) {
  GemmBuilder one(*context, machine), two(*context, machine);
  one.add({f32, dynamic, 512, 784}, Tail::BiasRelu);
  two.add({f32, dynamic, 512, 784}, Tail::BiasRelu);
  two.add({f32, dynamic, 512, 256}, Tail::BiasRelu);
  unsigned functions = 0;
  two.getModule().walk(
      [&](mlir::func::FuncOp f) { functions += f.getName().starts_with("dl.gemm_"); });
  EXPECT_EQ(functions, 1u);
  one.compile();
  two.compile();
  EXPECT_LE(one.code().textBytes, 3u * 1024);
  EXPECT_LE(two.code().textBytes, one.code().textBytes + 2 * 1024);
}

INSTANTIATE_TEST_SUITE_P(Levels, GemmTest, testing::Values("x86-64-v3", "x86-64-v4"),
                         [](const auto &info) {
                           std::string name = info.param;
                           for (char &c : name)
                             c = c == '-' ? '_' : c;
                           return name;
                         });

TEST(CpuInfoTest, Levels) {
  auto context = makeContext();
  mlir::Type f32 = mlir::Float32Type::get(context.get()),
             f64 = mlir::Float64Type::get(context.get());
  cpu::CpuInfo v3 = Machine{"x86-64-v3", ""}.info();
  EXPECT_EQ(v3.vectorBits, 256u);
  EXPECT_EQ(v3.vectorRegisters, 16u);
  EXPECT_TRUE(v3.hasFma);
  EXPECT_EQ(v3.lanes(f32), 8u);
  EXPECT_EQ(v3.lanes(f64), 4u);
  cpu::CpuInfo v4 = Machine{"x86-64-v4", ""}.info();
  EXPECT_EQ(v4.lanes(f32), 16u);
  EXPECT_EQ(v4.vectorRegisters, 32u);
  // A processor whose AVX-512 is switched off, as under some hypervisors.
  EXPECT_EQ((Machine{"x86-64-v4", "-avx512f"}.info().lanes(f32)), 8u);
  EXPECT_FALSE((Machine{"x86-64", ""}.info().hasFma));
  // The same from a list of features on top of the baseline.
  EXPECT_EQ((Machine{"x86-64", "+avx2,+fma"}.info().lanes(f64)), 4u);
  std::string error, triple = llvm::sys::getDefaultTargetTriple();
  EXPECT_FALSE(cpu::CpuInfo::forFeatures(triple, "nonesuch", "", error));
  EXPECT_EQ(error, "unknown processor 'nonesuch' for target '" + triple + "'");
}

} // namespace
