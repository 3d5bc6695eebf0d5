//===- GpuGemmTest.cpp - the GPU's matrix product against its definition -*- C++ -*-===//
//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The engine promises one chain of fused multiply-adds over k for every element (where K is split:
// one for each chunk, added in order), so all comparisons are for equal bits. In TF32 the stand-in's
// tensor core adds eight products and the sum before in double. The kernels' PTX runs
// on the stand-in's engine, which ends a test at the first access out of bounds, race in shared
// memory, or read of what nobody wrote.
//
//===----------------------------------------------------------------------===//

#include "GpuKernels.h"
#include "test/standin/ptx/Module.h"

#include "gtest/gtest.h"
#include <cmath>
#include <cstring>
#include <map>
#include <random>
#include <set>

using namespace dlc;
using namespace dlc::test;
using namespace mlir;

namespace {

struct Sizes {
  int64_t m, n, k, batch = 1;
  bool broadcastLhs = false, broadcastRhs = false;
};

/// A buffer on the device and its first content.
template <typename T> struct Buffer {
  Buffer(standin::Memory &memory, const char *name, std::vector<T> values) : host(std::move(values)), address(memory.allocate(host.size() * sizeof(T), name)) {
    if (host.empty())
      return;
    std::memcpy(reinterpret_cast<void *>(address), host.data(), host.size() * sizeof(T));
    memory.markWritten(address, host.size() * sizeof(T));
  }
  /// Memory that nothing has written.
  Buffer(standin::Memory &memory, const char *name, int64_t count) : host(count), address(memory.allocate(count * sizeof(T), name)) {}
  std::vector<T> now() const {
    std::vector<T> values(host.size());
    if (!host.empty())
      std::memcpy(values.data(), reinterpret_cast<void *>(address), host.size() * sizeof(T));
    return values;
  }
  std::vector<T> host;
  uint64_t address;
};

/// As cvt.rna.tf32.f32 rounds.
static double roundedToTf32(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  bits = (bits + 0x1000) & 0xffffe000;
  std::memcpy(&value, &bits, 4);
  return value;
}

/// What the engine promises, element by element.
template <typename T> std::vector<T> reference(const GpuProduct &product, const Sizes &s, const std::vector<T> &lhs, const std::vector<T> &rhs) {
  std::vector<T> out;
  for (int64_t b = 0; b < s.batch; ++b) {
    const T *A = lhs.data() + (s.broadcastLhs ? 0 : b * s.m * s.k), *B = rhs.data() + (s.broadcastRhs ? 0 : b * s.k * s.n);
    for (int64_t i = 0; i < s.m; ++i)
      for (int64_t j = 0; j < s.n; ++j) {
        auto chain = [&](int64_t begin, int64_t end) {
          T sum = 0;
          auto left = [&](int64_t k) { return product.shape.lhsTransposed ? A[k * s.m + i] : A[i * s.k + k]; };
          auto right = [&](int64_t k) { return product.shape.rhsTransposed ? B[j * s.k + k] : B[k * s.n + j]; };
          for (int64_t k = begin; k < end && !product.shape.tf32; ++k)
            sum = std::fma(left(k), right(k), sum);
          for (int64_t first = begin; first < end && product.shape.tf32; first += 8) {
            double products = 0;
            for (int64_t k = first; k < std::min(first + 8, end); ++k)
              products += roundedToTf32(static_cast<float>(left(k))) * roundedToTf32(static_cast<float>(right(k)));
            sum = static_cast<T>(static_cast<float>(products + static_cast<double>(sum)));
          }
          return sum;
        };
        T sum = 0;
        if (!product.chunkSteps)
          sum = chain(0, s.k);
        for (int64_t k = 0; product.chunkSteps && k < s.k; k += product.chunkSteps)
          sum += chain(k, std::min(s.k, k + product.chunkSteps));
        out.push_back(sum);
      }
  }
  return out;
}

/// How many elements differ in their bits, and the first that does.
template <typename T> void expectEqual(const std::vector<T> &found, const std::vector<T> &expected, const char *what) {
  ASSERT_EQ(found.size(), expected.size());
  int64_t wrong = 0;
  size_t first = 0;
  for (size_t i = found.size(); i-- > 0;)
    if (std::memcmp(&found[i], &expected[i], sizeof(T)) != 0) {
      ++wrong;
      first = i;
    }
  EXPECT_EQ(wrong, 0) << what << ": of " << found.size() << "; the first is element " << first << ", " << found[first] << " instead of " << expected[first];
}

class Runner {
public:
  Runner(GpuModule &products) {
    auto loaded = standin::Module::load(memory, products.ptx("sm_80"), "products");
    if (!loaded)
      llvm::report_fatal_error(loaded.takeError());
    module = std::move(*loaded);
  }

  /// Runs a product with random operands and compares what it wrote.
  template <typename T> void check(const GpuProduct &product, const Sizes &s, int64_t faultSite = 0) {
    SCOPED_TRACE(testing::Message() << s.m << 'x' << s.n << 'x' << s.k << " batch " << s.batch << (product.shape.lhsTransposed ? " lhs transposed" : "")
                                    << (product.shape.rhsTransposed ? " rhs transposed" : "") << " | " << product.description);
    std::mt19937 random(static_cast<unsigned>(s.m * 31 + s.n * 17 + s.k));
    auto numbers = [&](int64_t count, int64_t from = -10000) {
      std::vector<T> values(count);
      for (T &value : values)
        value = static_cast<T>(static_cast<int>(random() % (10001 - from)) + from) / T(7919);
      return values;
    };
    const int64_t count = s.batch * s.m * s.n;
    Buffer<T> lhs(memory, "lhs", numbers((s.broadcastLhs ? 1 : s.batch) * s.m * s.k)), rhs(memory, "rhs", numbers((s.broadcastRhs ? 1 : s.batch) * s.k * s.n));
    const bool isAdam = product.tail == Tail::Adam;
    Buffer<T> out = isAdam ? Buffer<T>(memory, "out", numbers(count)) : Buffer<T>(memory, "out", count);
    Buffer<T> bias(memory, "bias", numbers(s.n)), first(memory, "first", numbers(count)), second(memory, "second", numbers(count, 0));
    int64_t sizes[] = {s.m, s.n, s.k, s.batch};
    // Sizes are multiples of symbols.
    SmallVector<int64_t> symbols;
    const AffineExpr expressions[] = {product.shape.m, product.shape.n, product.shape.k, product.shape.batch};
    for (auto [size, expr] : llvm::zip(sizes, expressions))
      symbols.push_back(isa<AffineConstantExpr>(expr) ? size : size / static_cast<int64_t>(expr.getLargestKnownDivisor()));
    Buffer<T> workspace(memory, "workspace", evaluate(product.workspaceElements, symbols));
    Buffer<int64_t> fault(memory, "fault", std::vector<int64_t>{faultSite, 0, 0});

    uint64_t pointers[] = {lhs.address, rhs.address, out.address, bias.address, first.address, second.address, workspace.address, fault.address};
    int64_t strides[] = {s.broadcastLhs ? 0 : s.m * s.k, s.broadcastRhs ? 0 : s.k * s.n};
    std::vector<void *> parameters;
    for (uint64_t &pointer : pointers)
      parameters.push_back(&pointer);
    for (int64_t &size : sizes)
      parameters.push_back(&size);
    for (int64_t &stride : strides)
      parameters.push_back(&stride);
    uint64_t readOfWeights = 0;
    for (const GpuProduct::Launch &launch : product.launches) {
      const standin::Kernel *kernel = module->kernel(launch.kernel);
      ASSERT_TRUE(kernel) << launch.kernel;
      EXPECT_EQ(kernel->staticSharedBytes, launch.sharedBytes);
      auto blocks = static_cast<uint32_t>(evaluate(launch.blocks, symbols));
      if (blocks == 0)
        continue;
      standin::LaunchCounters counters;
      auto report = standin::launch(*kernel, {{blocks, 1, 1}, {launch.threads, 1, 1}, 0}, kernel->pack(parameters.data()), counters);
      ASSERT_FALSE(report) << report->str();
      for (const auto &touched : counters.allocations)
        if (touched.address == out.address)
          readOfWeights += touched.bytesRead;
    }

    std::vector<T> sums = reference(product, s, lhs.host, rhs.host), w = out.host, m = first.host, v = second.host;
    for (int64_t i = 0; i < count && faultSite == 0; ++i)
      switch (product.tail) {
      case Tail::Store:
        w[i] = sums[i];
        break;
      case Tail::BiasRelu:
        w[i] = std::max(sums[i] + bias.host[i % s.n], T(0));
        break;
      case Tail::Adam: {
        T g = sums[i];
        m[i] = m[i] * T(0.9) + g * T(0.1);
        v[i] = v[i] * T(0.99) + (g * g) * T(0.01);
        w[i] = w[i] - m[i] * bias.host[0] / (std::sqrt(v[i]) + T(1e-6));
        break;
      }
      }
    expectEqual(out.now(), w, "out");
    expectEqual(first.now(), m, "first moments");
    expectEqual(second.now(), v, "second moments");
    // In the epilogue every weight is read once, and the gradient never goes to memory (but in chunks).
    EXPECT_EQ(readOfWeights, isAdam && faultSite == 0 ? count * sizeof(T) : 0);
    for (uint64_t address : {lhs.address, rhs.address, out.address, bias.address, first.address, second.address, workspace.address, fault.address})
      if (address)
        EXPECT_FALSE(memory.free(address));
  }

private:
  standin::Memory memory;
  std::unique_ptr<standin::Module> module;
};

/// "128x128x8"
std::string tileOf(const std::string &description) { return description.substr(0, description.find(' ')); }

/// All tests need a context, and names for sizes.
class GpuGemm : public testing::Test {
protected:
  std::unique_ptr<MLIRContext> context = makeGpuContext();
  FloatType f32 = Float32Type::get(context.get()), f64 = Float64Type::get(context.get());
  AffineExpr m = getAffineSymbolExpr(0, context.get()), n = getAffineSymbolExpr(1, context.get()), k = getAffineSymbolExpr(2, context.get()),
             batch = getAffineSymbolExpr(3, context.get());
  AffineExpr c(int64_t size) { return getAffineConstantExpr(size, context.get()); }
};

/// With a type and which operands are transposed.
class GpuGemmOf : public GpuGemm, public testing::WithParamInterface<std::tuple<bool, bool, bool>> {
protected:
  bool isDouble = std::get<0>(GetParam()), lhsTransposed = std::get<1>(GetParam()), rhsTransposed = std::get<2>(GetParam());
  cuda::GemmShape shape(AffineExpr m, AffineExpr n, AffineExpr k, AffineExpr batch) {
    cuda::GemmShape result{isDouble ? f64 : f32, m, n, k, batch};
    result.lhsTransposed = lhsTransposed;
    result.rhsTransposed = rhsTransposed;
    return result;
  }
  void check(Runner &runner, const GpuProduct &product, const Sizes &sizes) {
    if (isDouble)
      runner.check<double>(product, sizes);
    else
      runner.check<float>(product, sizes);
  }
};

std::string nameOf(const testing::TestParamInfo<std::tuple<bool, bool, bool>> &info) {
  auto [isDouble, lhs, rhs] = info.param;
  return std::string(isDouble ? "f64" : "f32") + (lhs ? "_t" : "_n") + (rhs ? "t" : "n");
}
INSTANTIATE_TEST_SUITE_P(All, GpuGemmOf, testing::Combine(testing::Bool(), testing::Bool(), testing::Bool()), nameOf);

} // namespace

/// Sizes that are known only at run time: nothing is aligned, every edge is checked.
TEST_P(GpuGemmOf, DynamicSizes) {
  GpuModule module(*context);
  GpuProduct product = module.add("dynamic", shape(m, n, k, batch), Tail::BiasRelu);
  Runner runner(module);
  for (Sizes sizes : {Sizes{1, 1, 1}, Sizes{3, 5, 2}, Sizes{129, 65, 17}, Sizes{127, 64, 9, 2}, Sizes{5, 150, 33, 3, true, false}, Sizes{4, 4, 8, 2, false, true}})
    check(runner, product, sizes);
}

/// Sizes that are known to be multiples of four: whole vectors, of which some are beyond the edge.
TEST_P(GpuGemmOf, DynamicVectors) {
  GpuModule module(*context);
  GpuProduct product = module.add("vectors", shape(m * 4, n * 4, k * 4, batch), Tail::BiasRelu);
  Runner runner(module);
  EXPECT_NE(product.description.find(isDouble ? "lhs 2, rhs 2, out 2" : "lhs 4, rhs 4, out 4"), std::string::npos);
  EXPECT_EQ(tileOf(product.description), isDouble ? "64x64x8" : "128x128x8");
  for (Sizes sizes : {Sizes{4, 4, 4}, Sizes{128, 128, 16}, Sizes{132, 260, 20}, Sizes{60, 12, 36, 2}, Sizes{8, 8, 12, 2, true, true}})
    check(runner, product, sizes);
}

/// Constant sizes choose small tiles, and splits of K.
TEST_P(GpuGemmOf, ConstantSizes) {
  GpuModule module(*context);
  std::vector<std::pair<GpuProduct, Sizes>> products;
  auto add = [&](Sizes s, Tail tail = Tail::Store) {
    std::string name = "p" + std::to_string(products.size());
    products.push_back({module.add(name, shape(c(s.m), c(s.n), c(s.k), c(s.batch)), tail), s});
  };
  add({1, 1, 1});
  add({7, 10, 33}, Tail::BiasRelu);
  add({100, 10, 50}, Tail::BiasRelu);
  add({6, 130, 27}, Tail::Adam);
  add({32, 64, 48, 2});
  add({6, 25, 1500}, Tail::Adam); // a convolution's weights: few elements, many steps
  add({64, 32, 1024, 2}, Tail::BiasRelu);
  // one slice of k
  add({133, 100, 10}, Tail::BiasRelu);
  add({70, 36, 5, 2}, Tail::Adam);
  add({9, 300, 30});
  Runner runner(module);
  for (auto &[product, sizes] : products)
    check(runner, product, sizes);
  EXPECT_EQ(products[5].first.launches.size(), 2u);
}

/// The update of weights whose gradient is the product, with the batch known only at run time.
TEST_P(GpuGemmOf, AdamInPlace) {
  GpuModule module(*context);
  GpuProduct product = module.add("adam", shape(c(100), c(72), k, c(1)), Tail::Adam);
  GpuProduct large = module.add("large", shape(m * 4, n * 4, k, c(1)), Tail::Adam);
  Runner runner(module);
  for (int64_t steps : {1, 8, 61})
    check(runner, product, {100, 72, steps});
  check(runner, large, {136, 132, 19});
}

/// The smallest product of constant sizes that takes a tile of TF32.
static std::optional<Sizes> smallestWithTile(MLIRContext *context, StringRef tile) {
  std::optional<Sizes> best;
  for (int64_t m : {10, 16, 30, 60, 133, 260, 516, 1030, 4100})
    for (int64_t n : {10, 16, 30, 60, 133, 260, 516, 1030, 4100})
      for (int64_t k : {20, 50, 130}) {
        auto size = [&](int64_t n) { return getAffineConstantExpr(n, context); };
        cuda::GemmShape shape{Float32Type::get(context), size(m), size(n), size(k), size(1)};
        shape.tf32 = true;
        if ((!best || m * n * k < best->m * best->n * best->k) && tileOf(cuda::Gemm(shape).describe()) == tile)
          best = Sizes{m, n, k};
      }
  return best;
}

/// By tensor cores: each tile, whole and at edges, one slice and chunks of k.
TEST_F(GpuGemm, Tf32) {
  for (bool lhsTransposed : {false, true})
    for (bool rhsTransposed : {false, true}) {
      GpuModule module(*context);
      std::vector<std::pair<GpuProduct, Sizes>> products;
      auto add = [&](AffineExpr m, AffineExpr n, AffineExpr k, AffineExpr batch, std::vector<Sizes> sizes, Tail tail) {
        cuda::GemmShape shape{f32, m, n, k, batch, lhsTransposed, rhsTransposed};
        shape.tf32 = true;
        GpuProduct product = module.add("p" + std::to_string(products.size()), shape, tail);
        for (const Sizes &each : sizes)
          products.push_back({product, each});
      };
      auto constant = [&](Sizes s, Tail tail = Tail::Store) { add(c(s.m), c(s.n), c(s.k), c(s.batch), {s}, tail); };
      add(m, n, k, batch, {{3, 5, 2}, {129, 65, 17}, {5, 150, 33, 3, true, false}}, Tail::BiasRelu);
      add(m * 4, n * 4, k * 4, batch, {{4, 4, 4}, {132, 260, 20}, {8, 8, 12, 2, true, true}}, Tail::Adam);
      constant({6, 25, 1500}, Tail::Adam);
      constant({64, 32, 1024, 2}, Tail::BiasRelu);
      constant({133, 100, 10}, Tail::BiasRelu);
      for (const char *tile : {"128x64x16", "64x64x32", "32x32x32", "64x16x32", "16x64x32"}) {
        std::optional<Sizes> sizes = smallestWithTile(context.get(), tile);
        ASSERT_TRUE(sizes) << tile;
        constant(*sizes, Tail::BiasRelu);
      }
      Runner runner(module);
      EXPECT_EQ(tileOf(products[3].first.description), "128x128x16");
      for (auto &[product, sizes] : products) {
        EXPECT_NE(product.description.find(", tf32"), std::string::npos);
        runner.check<float>(product, sizes);
      }
    }
}

/// Of no steps of k the product is zero, and the epilogue runs; of no elements nothing runs.
TEST_F(GpuGemm, Empty) {
  GpuModule module(*context);
  GpuProduct dynamic = module.add("dynamic", {f32, m, n, k, batch}, Tail::BiasRelu);
  GpuProduct split = module.add("split", {f32, c(10), c(10), k * 1024, c(1)}, Tail::BiasRelu);
  GpuProduct constant = module.add("constant", {f32, c(10), c(12), c(0), c(1)}, Tail::BiasRelu);
  ASSERT_NE(split.chunkSteps, 0);
  Runner runner(module);
  runner.check<float>(dynamic, {5, 3, 0});
  runner.check<float>(dynamic, {0, 3, 4});
  runner.check<float>(dynamic, {5, 0, 4});
  runner.check<float>(dynamic, {5, 3, 4, 0});
  runner.check<float>(split, {10, 10, 0});
  runner.check<float>(split, {10, 10, 3072});
  runner.check<float>(constant, {10, 12, 0});
}

/// After a fault no variable changes.
TEST_F(GpuGemm, Fault) {
  GpuModule module(*context);
  GpuProduct product = module.add("adam", {f32, c(40), c(24), k, c(1)}, Tail::Adam);
  GpuProduct split = module.add("split", {f32, c(6), c(25), c(1500), c(1)}, Tail::Adam);
  ASSERT_EQ(split.launches.size(), 2u);
  Runner runner(module);
  runner.check<float>(product, {40, 24, 9}, /*faultSite=*/3);
  runner.check<float>(split, {6, 25, 1500}, /*faultSite=*/1);
}

/// Without leave to split there is one launch and no workspace.
TEST_F(GpuGemm, MayNotSplit) {
  cuda::GemmShape shape{f32, c(6), c(25), c(50176), c(1)};
  EXPECT_EQ(cuda::Gemm(shape).launchCount(), 2u);
  shape.maySplit = false;
  cuda::Gemm gemm(shape);
  EXPECT_EQ(gemm.launchCount(), 1u);
  EXPECT_EQ(gemm.workspaceElements(), c(0));
}

/// Large products take large tiles, and the shape of C counts.
TEST_F(GpuGemm, Tiles) {
  auto tile = [&](FloatType type, int64_t m, int64_t n, int64_t k) { return tileOf(cuda::Gemm({type, c(m), c(n), c(k), c(1)}).describe()); };
  EXPECT_EQ(tile(f32, 4096, 4096, 4096), "128x128x8");
  EXPECT_EQ(tile(f32, 1024, 1024, 1024), "128x64x8");
  EXPECT_EQ(tile(f32, 512, 512, 512), "64x64x16");
  EXPECT_EQ(tile(f32, 256, 256, 256), "32x32x32");
  EXPECT_EQ(tile(f32, 4096, 10, 128), "64x16x32");
  EXPECT_EQ(tile(f32, 10, 4096, 128), "16x64x32");
  EXPECT_EQ(tile(f64, 1024, 1024, 1024), "64x64x8");
}

namespace {

/// A kernel's text, from its name to the end of its body.
StringRef kernelText(StringRef ptx, StringRef name) {
  size_t begin = ptx.find((".entry " + name + "(").str());
  return ptx.slice(begin, ptx.find("\n}", begin));
}

/// How many instructions the loop with the most multiply-adds has, by name.
std::map<std::string, int64_t> mainLoop(StringRef text) {
  struct Block {
    std::map<std::string, int64_t> instructions;
    std::vector<std::string> next;
    bool falls = true;
  };
  std::vector<Block> blocks(1);
  std::map<std::string, size_t> labels;
  SmallVector<StringRef> lines;
  text.drop_front(text.find('{') + 1).split(lines, '\n');
  for (StringRef line : lines) {
    line = line.trim();
    if (line.starts_with("$L__BB") && line.contains(':')) {
      blocks.emplace_back();
      labels[line.split(':').first.str()] = blocks.size() - 1;
    } else if (!line.empty() && line[0] != '.' && line[0] != '/' && line[0] != '{' && line[0] != '}' && line[0] != '$') {
      bool isConditional = line.consume_front("@");
      if (isConditional)
        line = line.drop_while([](char c) { return c != ' ' && c != '\t'; }).trim();
      auto [name, rest] = line.split('\t');
      name = name.trim();
      ++blocks.back().instructions[name.str()];
      if (name.starts_with("bra")) {
        blocks.back().next.push_back(rest.trim().rtrim(";").str());
        blocks.back().falls = isConditional;
        blocks.emplace_back();
      } else if (name.starts_with("ret") || name.starts_with("exit") || name.starts_with("brx")) {
        blocks.back().falls = false;
        blocks.emplace_back();
      }
    }
  }
  const size_t count = blocks.size();
  std::vector<std::vector<bool>> reaches(count, std::vector<bool>(count));
  for (size_t i = 0; i < count; ++i) {
    for (const std::string &label : blocks[i].next)
      reaches[i][labels[label]] = true;
    if (blocks[i].falls && i + 1 < count)
      reaches[i][i + 1] = true;
  }
  for (size_t k = 0; k < count; ++k)
    for (size_t i = 0; i < count; ++i)
      for (size_t j = 0; j < count; ++j)
        if (reaches[i][k] && reaches[k][j])
          reaches[i][j] = true;
  std::map<std::string, int64_t> best;
  for (size_t i = 0; i < count; ++i) {
    std::map<std::string, int64_t> loop;
    for (size_t j = 0; j < count; ++j)
      if (reaches[i][j] && reaches[j][i])
        for (auto &[name, number] : blocks[j].instructions) {
          loop[name] += number;
          loop["all"] += number;
          if (StringRef(name).starts_with("fma.rn"))
            loop["fma"] += number;
          if (StringRef(name).starts_with("ld.shared"))
            loop["ld.shared"] += number;
        }
    if (loop["fma"] > best["fma"])
      best = loop;
  }
  return best;
}

} // namespace

/// What kernels are made of: the figures in Gemm.h.
TEST_F(GpuGemm, Figures) {
  struct Case {
    const char *tile;
    FloatType type;
    AffineExpr m, n, k;
    bool lhsTransposed = false;
    Tail tail = Tail::Store;
  };
  const Case cases[] = {
      {"128x128x8", f32, c(4096), c(4096), c(4096)},
      {"128x128x8", f32, c(4096), c(4096), k, true, Tail::Adam},
      {"128x64x8", f32, c(1024), c(1024), c(1024)},
      {"64x64x16", f32, m, n, k},
      {"64x64x16", f32, c(512), c(512), c(512)},
      {"64x64x16", f32, c(784), c(512), k, true, Tail::Adam},
      {"64x64x16", f32, m, c(512), c(784), false, Tail::BiasRelu},
      {"32x32x32", f32, c(256), c(256), c(256)},
      {"64x16x32", f32, c(4096), c(16), c(128)},
      {"16x64x32", f32, c(16), c(4096), c(128)},
      {"64x64x8", f64, c(1024), c(1024), c(1024)},
      {"32x32x16", f64, c(256), c(256), c(256)},
      {"64x16x16", f64, c(4096), c(16), c(128)},
      {"16x64x16", f64, c(16), c(4096), c(128)},
  };
  for (const char *architecture : {"sm_80", "sm_90"}) {
    GpuModule module(*context);
    std::vector<GpuProduct> products;
    for (const Case &one : cases) {
      cuda::GemmShape shape{one.type, one.m, one.n, one.k, c(1), one.lhsTransposed};
      products.push_back(module.add("p" + std::to_string(products.size()), shape, one.tail));
    }
    std::string ptx = module.ptx(architecture);
    std::map<std::string, PtxasInfo> assembled = runPtxas(ptx, architecture);
    std::printf("%s: tile, loop's instructions, loads from shared memory, share of multiply-adds; shared bytes, resident blocks, registers\n", architecture);
    for (auto [product, one] : llvm::zip(products, cases)) {
      SCOPED_TRACE(testing::Message() << architecture << ' ' << product.description);
      EXPECT_EQ(tileOf(product.description), one.tile);
      const GpuProduct::Launch &launch = product.launches[0];
      StringRef text = kernelText(ptx, launch.kernel);
      std::map<std::string, int64_t> loop = mainLoop(text);
      int64_t tm, tn, tk;
      ASSERT_EQ(std::sscanf(one.tile, "%ldx%ldx%ld", &tm, &tn, &tk), 3);
      // A slice's multiply-adds once, fused, and nothing of the loop in local memory.
      EXPECT_EQ(loop["fma"], tm * tn * tk / launch.threads);
      EXPECT_EQ(text.count("fma.rn.f"), static_cast<size_t>(loop["fma"]));
      EXPECT_EQ(text.find(".local"), StringRef::npos);
      EXPECT_EQ(loop["bar.sync"], 1);
      EXPECT_GE(loop["fma"], loop["all"] * 11 / 20);
      EXPECT_NE(text.find(".reqntid " + std::to_string(launch.threads)), StringRef::npos);
      EXPECT_NE(text.find(".minnctapersm " + std::to_string(launch.residentBlocks)), StringRef::npos);
      std::printf("%-10s %s %-22s %5ld %4ld %3.0f %%; %6ld %2u", one.tile, one.type.isF64() ? "f64" : "f32",
                  one.tail == Tail::Adam ? "adam, k dynamic" : isa<AffineConstantExpr>(one.m) ? "" : isa<AffineConstantExpr>(one.n) ? "m dynamic" : "all dynamic",
                  loop["all"], loop["ld.shared"], 100.0 * loop["fma"] / loop["all"], launch.sharedBytes, launch.residentBlocks);
      for (const GpuProduct::Launch &each : product.launches)
        if (auto it = assembled.find(each.kernel); it != assembled.end()) {
          EXPECT_EQ(it->second.spilled, 0) << each.kernel;
          EXPECT_LE(it->second.registers * static_cast<int64_t>(each.threads * each.residentBlocks), 65536) << each.kernel;
          EXPECT_EQ(it->second.sharedBytes, each.sharedBytes) << each.kernel;
          std::printf(" %3ld", it->second.registers);
        }
      std::printf("\n");
    }
  }
}

/// What ptxas makes of the tensor cores' kernels, of each tile: the loop's products once, and no register in local memory.
TEST_F(GpuGemm, Tf32Figures) {
  struct Case {
    AffineExpr m, n, k;
    bool lhsTransposed = false;
    Tail tail = Tail::Store;
  };
  SmallVector<Case> cases = {{c(4096), c(4096), c(4096)}, {m * 4, n * 4, k, true, Tail::Adam}, {m, n, k, false, Tail::BiasRelu}, {c(784), c(512), k, true, Tail::Adam}};
  for (const char *tile : {"128x64x16", "64x64x32", "32x32x32", "64x16x32", "16x64x32"})
    if (std::optional<Sizes> sizes = smallestWithTile(context.get(), tile))
      cases.push_back({c(sizes->m), c(sizes->n), c(sizes->k)});
  for (const char *architecture : {"sm_80", "sm_90"}) {
    GpuModule module(*context);
    std::vector<GpuProduct> products;
    for (const Case &one : cases) {
      cuda::GemmShape shape{f32, one.m, one.n, one.k, c(1), one.lhsTransposed};
      shape.tf32 = true;
      products.push_back(module.add("p" + std::to_string(products.size()), shape, one.tail));
    }
    EXPECT_EQ(tileOf(products[0].description), "128x128x16");
    std::string ptx = module.ptx(architecture);
    std::map<std::string, PtxasInfo> assembled = runPtxas(ptx, architecture);
    std::printf("%s: tile; shared bytes, resident blocks, registers\n", architecture);
    for (const GpuProduct &product : products) {
      SCOPED_TRACE(testing::Message() << architecture << ' ' << product.description);
      const GpuProduct::Launch &launch = product.launches[0];
      StringRef text = kernelText(ptx, launch.kernel);
      int64_t tm, tn, tk;
      ASSERT_EQ(std::sscanf(product.description.c_str(), "%ldx%ldx%ld", &tm, &tn, &tk), 3);
      if (auto all = dyn_cast<AffineConstantExpr>(product.shape.k)) // one slice has no more steps than it needs
        tk = std::min<int64_t>(tk, llvm::alignTo(all.getValue(), 8));
      // A loop of a few turns is unrolled.
      int64_t ofSlice = tm * tn * tk / (16 * 8 * 8) / (launch.threads / 32), count = text.count("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32");
      EXPECT_EQ(count % ofSlice, 0);
      EXPECT_GE(count, ofSlice);
      EXPECT_EQ(text.count("fma.rn.f"), 0u);
      EXPECT_EQ(text.find(".local"), StringRef::npos);
      std::printf("%-10s %6ld %2u", tileOf(product.description).c_str(), launch.sharedBytes, launch.residentBlocks);
      for (const GpuProduct::Launch &each : product.launches)
        if (auto it = assembled.find(each.kernel); it != assembled.end()) {
          EXPECT_EQ(it->second.spilled, 0) << each.kernel;
          EXPECT_LE(it->second.registers * static_cast<int64_t>(each.threads * each.residentBlocks), 65536) << each.kernel;
          EXPECT_EQ(it->second.sharedBytes, each.sharedBytes) << each.kernel;
          std::printf(" %3ld", it->second.registers);
        }
      std::printf("\n");
    }
  }
}

/// Where k is one slice at most there is no loop over slices, nor more steps than k has; and still no register is spilled.
TEST_F(GpuGemm, OneSlice) {
  struct Case {
    FloatType type;
    AffineExpr m, n;
    int64_t k;
    Tail tail;
  };
  const Case cases[] = {
      {f32, c(4096), c(4096), 8, Tail::Store},  {f32, m * 128, c(4096), 5, Tail::Adam},  {f32, m, c(100), 10, Tail::BiasRelu}, {f32, c(512), c(512), 16, Tail::Adam},
      {f32, m, c(512), 3, Tail::Store},         {f32, c(64), c(96), 30, Tail::BiasRelu}, {f32, c(4096), c(10), 32, Tail::Store}, {f32, c(10), c(4096), 17, Tail::Store},
      {f64, c(1024), c(1024), 8, Tail::Adam},   {f64, m, c(100), 7, Tail::BiasRelu},     {f64, c(64), c(96), 16, Tail::Store},
  };
  for (const char *architecture : {"sm_80", "sm_90"}) {
    GpuModule module(*context);
    std::vector<GpuProduct> products;
    for (const Case &one : cases)
      for (bool transposed : {false, true})
        products.push_back(module.add("p" + std::to_string(products.size()), {one.type, one.m, one.n, c(one.k), c(1), transposed, transposed}, one.tail));
    std::string ptx = module.ptx(architecture);
    std::map<std::string, PtxasInfo> assembled = runPtxas(ptx, architecture);
    for (auto [number, product] : llvm::enumerate(products)) {
      const Case &one = cases[number / 2];
      SCOPED_TRACE(testing::Message() << architecture << ' ' << product.description << ", k " << one.k);
      int64_t tm, tn, tk;
      ASSERT_EQ(std::sscanf(product.description.c_str(), "%ldx%ldx%ld", &tm, &tn, &tk), 3);
      ASSERT_LE(one.k, tk);
      const GpuProduct::Launch &launch = product.launches[0];
      StringRef text = kernelText(ptx, launch.kernel);
      EXPECT_EQ(mainLoop(text)["fma"], 0);
      EXPECT_EQ(static_cast<int64_t>(text.count("fma.rn.f")), tm * tn * one.k / launch.threads);
      if (auto it = assembled.find(launch.kernel); it != assembled.end()) {
        EXPECT_EQ(it->second.spilled, 0);
        EXPECT_LE(it->second.registers * static_cast<int64_t>(launch.threads * launch.residentBlocks), 65536);
      }
    }
  }
}

/// Operands whose rows are whole vectors are read in 128 bits, and so is what epilogues touch.
TEST_F(GpuGemm, Vectors) {
  GpuModule module(*context);
  module.add("whole", {f32, m, c(512), c(784), c(1)}, Tail::Adam);
  module.add("odd", {f32, m, c(510), c(785), c(1)}, Tail::Adam);
  module.add("doubles", {f64, m, c(512), c(784), c(1)}, Tail::Adam);
  std::string ptx = module.ptx("sm_80");
  auto count = [&](StringRef kernel, StringRef what) { return kernelText(ptx, kernel).count(what); };
  EXPECT_GT(count("whole_0", "ld.global.v4.b32"), 0u);
  EXPECT_EQ(count("whole_0", "ld.global.b32"), 0u);
  EXPECT_EQ(count("whole_0", "ld.global.b64"), 1u); // the fault
  EXPECT_GT(count("whole_0", "st.global.v4.b32"), 0u);
  EXPECT_EQ(count("odd_0", "ld.global.v4.b32"), 0u);
  EXPECT_GT(count("odd_0", "ld.global.v2.b32"), 0u);
  EXPECT_GT(count("odd_0", "ld.global.b32"), 0u);
  EXPECT_GT(count("doubles_0", "ld.global.v2.b64"), 0u);
  EXPECT_EQ(count("doubles_0", "ld.global.b64"), 1u); // the fault
}
