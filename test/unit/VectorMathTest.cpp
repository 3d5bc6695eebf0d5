//===- VectorMathTest.cpp - the elementary functions, run -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Compiles the functions for scalars and vectors and for two CPUs, and compares them with libm in a
// higher precision on inputs spread over all magnitudes and on the corners. dl-math-sweep is the
// exhaustive version; docs/math.md has what it found.
//
//===----------------------------------------------------------------------===//

#include "compiler/lowering/cpu/VectorMath.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/Verifier.h"
#include "test/sweep/VectorMathJit.h"
#include "gtest/gtest.h"
#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <random>
#include <tuple>

using namespace dlc::vecmath;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// The largest error that docs/math.md promises, in units in the last place: f32, f64.
struct Bound {
  double f32, f64;
};
const std::map<std::string, Bound> kBounds = {
    {"exp", {0.95, 0.9}},      {"expm1", {1.55, 1.9}}, {"log", {0.9, 0.9}},
    {"log1p", {1.45, 1.4}},    {"tanh", {1.05, 1.4}},  {"erf", {1.15, 1.1}},
    {"sin", {0.501, 0.8}},     {"cos", {0.501, 0.8}},  {"sigmoid", {2.0, 2.0}},
    {"softplus", {1.85, 1.8}}, {"sqrt", {0.5, 0.501}}, {"rsqrt", {1.5, 1.5}},
    {"pow", {0.51, 1.4}},
};

template <typename T> using BitsOf = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
template <typename T> using ReferenceOf = std::conditional_t<sizeof(T) == 4, double, long double>;

/// Compiled once for the whole run.
const Jit &getJit(bool isF64, unsigned lanes, const std::string &cpu, unsigned optLevel = 2) {
  static std::map<std::tuple<bool, unsigned, std::string, unsigned>, Jit> cache;
  auto key = std::make_tuple(isF64, lanes, cpu, optLevel);
  auto found = cache.find(key);
  if (found == cache.end()) {
    if (!hostRuns(cpu))
      llvm::report_fatal_error(llvm::Twine("this machine does not run code for ") + cpu);
    JitOptions options;
    options.isF64 = isF64;
    options.lanes = lanes;
    options.cpu = cpu;
    options.optLevel = optLevel;
    llvm::Expected<Jit> jit = Jit::compile(options);
    if (!jit) // nothing here can be tested without it
      llvm::report_fatal_error(jit.takeError());
    found = cache.emplace(key, std::move(*jit)).first;
  }
  return found->second;
}

/// Numbers at which the functions or the formats have an edge, with both signs.
template <typename T> std::vector<T> getCorners() {
  using Limits = std::numeric_limits<T>;
  std::vector<T> corners = {T(0),
                            Limits::denorm_min(),
                            Limits::denorm_min() * 3,
                            Limits::min(),
                            Limits::max(),
                            Limits::infinity(),
                            Limits::quiet_NaN(),
                            Limits::epsilon(),
                            T(0.5),
                            T(1),
                            T(2),
                            T(3),
                            T(1) / 3,
                            T(M_PI_4),
                            T(M_PI_2),
                            T(M_PI),
                            T(M_LN2),
                            T(M_LN2) / 2,
                            T(M_SQRT2),
                            T(M_SQRT1_2),
                            T(0.63),
                            T(0.8),
                            T(0.86),
                            T(4),
                            T(5.95),
                            T(9.01),
                            T(10),
                            T(17.33),
                            T(20),
                            T(87.33655),
                            T(88.72283),
                            T(89),
                            T(103.97208),
                            T(104),
                            T(708.3964185322641),
                            T(709.782712893384),
                            T(745.13),
                            T(746),
                            T(16777216),
                            T(0x1p24 + 2),
                            T(0x1p44),
                            T(0x1p45) - 1,
                            T(1e10),
                            T(1e30)};
  size_t n = corners.size();
  for (size_t i = 0; i < n; ++i) {
    corners.push_back(std::nextafter(corners[i], Limits::infinity()));
    corners.push_back(std::nextafter(corners[i], -Limits::infinity()));
  }
  n = corners.size();
  for (size_t i = 0; i < n; ++i)
    corners.push_back(-corners[i]);
  return corners;
}

template <typename T> struct Inputs {
  std::vector<T> x, y;
};

/// `n` inputs: the corners (all pairs of them for pow), then numbers spread over all bit patterns.
template <typename T> Inputs<T> makeInputs(bool isPow, size_t n) {
  std::vector<T> corners = getCorners<T>();
  Inputs<T> in;
  for (T y : corners)
    for (T x : corners) {
      if (!isPow && y != corners[0])
        continue;
      in.x.push_back(x);
      in.y.push_back(y);
    }
  std::mt19937_64 random(20240229);
  auto uniform = [&](T limit) { return std::uniform_real_distribution<T>(-limit, limit)(random); };
  // One in four from the interval where nothing is 0, 1 or infinite.
  BitsOf<T> bits = 0, step = ~BitsOf<T>(0) / (n - in.x.size()) | 1;
  while (in.x.size() < n) {
    bits += step;
    bool isNear = in.x.size() % 4 == 0;
    in.x.push_back(isNear ? uniform(sizeof(T) == 4 ? 100 : 700) : std::bit_cast<T>(bits));
    in.y.push_back(isNear ? std::round(uniform(20)) : uniform(10));
  }
  // Whole vectors only.
  in.x.resize(n / 64 * 64);
  in.y.resize(n / 64 * 64);
  return in;
}

template <typename T>
std::vector<T> evaluate(const Jit &jit, const MathOp &op, const Inputs<T> &in) {
  std::vector<T> out(in.x.size());
  jit.run(op.name, in.x.data(), in.y.data(), out.data(), out.size());
  return out;
}

template <typename T> void checkAccuracy(const MathOp &op, size_t n) {
  SCOPED_TRACE(op.name.str() + (sizeof(T) == 4 ? " f32" : " f64"));
  Inputs<T> in = makeInputs<T>(op.numOperands == 2, n);
  std::vector<T> out = evaluate(getJit(sizeof(T) == 8, 8, "x86-64-v3"), op, in);
  auto entry = kBounds.find(op.name.str());
  ASSERT_NE(entry, kBounds.end()) << "no promise in the table";
  double bound = sizeof(T) == 4 ? entry->second.f32 : entry->second.f64;
  double worst = 0;
  size_t at = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    if (sizeof(T) == 8 && (op.name == "sin" || op.name == "cos") && std::fabs(in.x[i]) >= 0x1p45) {
      ASSERT_TRUE(std::isnan(out[i])) << "beyond the documented range, at " << in.x[i];
      continue;
    }
    double error = ulpError(out[i], referenceOf<ReferenceOf<T>>(op.name, in.x[i], in.y[i]));
    if (error > worst)
      worst = error, at = i;
  }
  EXPECT_LE(worst, bound) << "at " << std::hexfloat << in.x[at] << ", " << in.y[at] << ": "
                          << out[at];
  // A bound that is far from the truth tests nothing.
  EXPECT_GE(worst, bound * 0.5 - 0.25);
}

TEST(VectorMath, AccuracyF32) {
  for (const MathOp &op : getMathOps())
    checkAccuracy<float>(op, 1'000'000);
}

TEST(VectorMath, AccuracyF64) {
  for (const MathOp &op : getMathOps())
    checkAccuracy<double>(op, 120'000);
}

template <typename T> void checkSameBits() {
  const bool isF64 = sizeof(T) == 8;
  const std::string base = "x86-64-v3";
  struct Variant {
    unsigned lanes;
    std::string cpu;
    unsigned optLevel;
  };
  const Variant variants[] = {{0, base, 2},        {8, base, 0},        {16, base, 2},
                              {0, "x86-64-v4", 2}, {8, "x86-64-v4", 2}, {16, "x86-64-v4", 2}};
  for (const MathOp &op : getMathOps()) {
    Inputs<T> in = makeInputs<T>(op.numOperands == 2, 60'000);
    std::vector<T> want = evaluate(getJit(isF64, 8, base), op, in);
    for (const Variant &v : variants) {
      if (!hostRuns(v.cpu))
        continue;
      std::vector<T> got = evaluate(getJit(isF64, v.lanes, v.cpu, v.optLevel), op, in);
      for (size_t i = 0; i < want.size(); ++i) {
        // Which of two NaNs comes out of a sum is the instruction's choice.
        if (std::isnan(want[i]) && std::isnan(got[i]))
          continue;
        ASSERT_EQ(std::bit_cast<BitsOf<T>>(want[i]), std::bit_cast<BitsOf<T>>(got[i]))
            << op.name.str() << " of " << in.x[i] << ", " << in.y[i] << " with " << v.lanes
            << " lanes on " << v.cpu << " at -O" << v.optLevel;
      }
    }
  }
}

TEST(VectorMath, SameBitsForAllLanesAndCpusF32) { checkSameBits<float>(); }
TEST(VectorMath, SameBitsForAllLanesAndCpusF64) { checkSameBits<double>(); }

TEST(VectorMath, CallsNothing) {
  for (const char *cpu : {"x86-64-v3", "x86-64-v4"}) {
    if (!hostRuns(cpu))
      continue;
    for (bool isF64 : {false, true})
      for (unsigned lanes : {0u, 8u, 16u}) {
        const std::vector<std::string> &symbols = getJit(isF64, lanes, cpu).getUndefinedSymbols();
        EXPECT_TRUE(symbols.empty()) << cpu << ", " << lanes << " lanes: " << symbols.front();
      }
  }
}

struct Case {
  const char *function;
  double x, y, want;
};
const Case kCases[] = {
    {"exp", 0, 0, 1},
    {"exp", -0.0, 0, 1},
    {"exp", kInf, 0, kInf},
    {"exp", -kInf, 0, 0},
    {"exp", kNaN, 0, kNaN},
    {"exp", 1000, 0, kInf},
    {"exp", -1000, 0, 0},
    {"expm1", -0.0, 0, -0.0},
    {"expm1", -kInf, 0, -1},
    {"expm1", kInf, 0, kInf},
    {"expm1", kNaN, 0, kNaN},
    {"log", 1, 0, 0},
    {"log", 0, 0, -kInf},
    {"log", -0.0, 0, -kInf},
    {"log", -1, 0, kNaN},
    {"log", -kInf, 0, kNaN},
    {"log", kInf, 0, kInf},
    {"log", kNaN, 0, kNaN},
    {"log1p", -0.0, 0, -0.0},
    {"log1p", -1, 0, -kInf},
    {"log1p", -2, 0, kNaN},
    {"log1p", kInf, 0, kInf},
    {"log1p", kNaN, 0, kNaN},
    {"tanh", 0, 0, 0},
    {"tanh", -0.0, 0, -0.0},
    {"tanh", kInf, 0, 1},
    {"tanh", -kInf, 0, -1},
    {"tanh", 100, 0, 1},
    {"tanh", kNaN, 0, kNaN},
    {"erf", -0.0, 0, -0.0},
    {"erf", kInf, 0, 1},
    {"erf", -kInf, 0, -1},
    {"erf", kNaN, 0, kNaN},
    {"sin", -0.0, 0, -0.0},
    {"sin", kInf, 0, kNaN},
    {"sin", -kInf, 0, kNaN},
    {"sin", kNaN, 0, kNaN},
    {"cos", -0.0, 0, 1},
    {"cos", kInf, 0, kNaN},
    {"cos", kNaN, 0, kNaN},
    {"sigmoid", 0, 0, 0.5},
    {"sigmoid", kInf, 0, 1},
    {"sigmoid", -kInf, 0, 0},
    {"sigmoid", kNaN, 0, kNaN},
    {"softplus", kInf, 0, kInf},
    {"softplus", -kInf, 0, 0},
    {"softplus", kNaN, 0, kNaN},
    {"sqrt", -0.0, 0, -0.0},
    {"sqrt", -1, 0, kNaN},
    {"sqrt", kInf, 0, kInf},
    {"rsqrt", 0, 0, kInf},
    {"rsqrt", -0.0, 0, -kInf},
    {"rsqrt", kInf, 0, 0},
    {"rsqrt", -1, 0, kNaN},
    {"rsqrt", 4, 0, 0.5},
    // C99, F.9.4.4.
    {"pow", 0, -3, kInf},
    {"pow", -0.0, -3, -kInf},
    {"pow", 0, -2, kInf},
    {"pow", -0.0, -2, kInf},
    {"pow", -0.0, -0.5, kInf},
    {"pow", 0, -kInf, kInf},
    {"pow", -0.0, 3, -0.0},
    {"pow", 0, 3, 0},
    {"pow", -0.0, 2, 0},
    {"pow", -0.0, 0.5, 0},
    {"pow", -1, kInf, 1},
    {"pow", -1, -kInf, 1},
    {"pow", 1, kNaN, 1},
    {"pow", 1, kInf, 1},
    {"pow", kNaN, 0, 1},
    {"pow", kInf, -0.0, 1},
    {"pow", kNaN, 1, kNaN},
    {"pow", 2, kNaN, kNaN},
    {"pow", -1, kNaN, kNaN},
    {"pow", -2, 0.5, kNaN},
    {"pow", 0.5, -kInf, kInf},
    {"pow", 2, -kInf, 0},
    {"pow", 0.5, kInf, 0},
    {"pow", -2, kInf, kInf},
    {"pow", -kInf, -3, -0.0},
    {"pow", -kInf, -2, 0},
    {"pow", -kInf, -0.5, 0},
    {"pow", -kInf, 3, -kInf},
    {"pow", -kInf, 2, kInf},
    {"pow", -kInf, 0.5, kInf},
    {"pow", kInf, -1, 0},
    {"pow", kInf, 0.5, kInf},
    // Exact, and odd and even exponents where the format has no fractions left.
    {"pow", -2, 3, -8},
    {"pow", 3, 4, 81},
    {"pow", 10, -0.0, 1},
    {"pow", -1, 0x1p23 + 1, -1},
    {"pow", -1, 0x1p24, 1},
    {"pow", -1, 0x1p60, 1},
};

template <typename T> void checkCorners() {
  const Jit &jit = getJit(sizeof(T) == 8, 0, "x86-64-v3");
  for (const Case &c : kCases) {
    T x = T(c.x), y = T(c.y), got = 17;
    jit.run(c.function, &x, &y, &got, 1);
    SCOPED_TRACE(std::string(c.function) + "(" + std::to_string(c.x) + ", " + std::to_string(c.y) +
                 ")");
    if (std::isnan(c.want)) {
      EXPECT_TRUE(std::isnan(got)) << got;
      continue;
    }
    EXPECT_EQ(got, T(c.want));
    EXPECT_EQ(std::signbit(got), std::signbit(c.want));
  }
}

TEST(VectorMath, CornersF32) { checkCorners<float>(); }
TEST(VectorMath, CornersF64) { checkCorners<double>(); }

TEST(VectorMath, SubnormalNumbers) {
  const Jit &jit = getJit(false, 0, "x86-64-v3");
  auto call = [&](const char *function, float x) {
    float result = 17;
    jit.run(function, &x, &x, &result, 1);
    return result;
  };
  const float smallest = std::numeric_limits<float>::denorm_min();
  for (const char *function : {"tanh", "sin", "expm1", "log1p"})
    for (float x : {smallest, -smallest, 3 * smallest, 0x1.8p-130f})
      EXPECT_EQ(call(function, x), x) << function;
  EXPECT_EQ(call("exp", -103.5f), smallest);
  EXPECT_EQ(call("exp", -100.0f), float(std::exp(-100.0)));
  EXPECT_EQ(call("sigmoid", -100.0f), float(std::exp(-100.0)));
  EXPECT_EQ(call("softplus", -100.0f), float(std::exp(-100.0)));
  EXPECT_EQ(call("log", smallest), float(std::log(double(smallest))));
}

/// The smallest difference that a wrong result can have is one that ulpError sees.
TEST(VectorMath, UlpErrorSeesWhatIsWrong) {
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(ulpError(1.0f, 1.0), 0);
  EXPECT_EQ(ulpError(std::nextafter(1.0f, 2.0f), 1.0), 1);
  EXPECT_EQ(ulpError(std::nextafter(1.0f, 0.0f), 1.0), 0.5);
  EXPECT_EQ(ulpError(0x1p-149f, 0x1p-148), 1);
  EXPECT_EQ(ulpError(0.0f, 0x1p-148), 2);
  EXPECT_EQ(ulpError(0.0f, -0.0), kInf);
  EXPECT_EQ(ulpError(1.0f, kNaN), kInf);
  EXPECT_EQ(ulpError(float(kNaN), 1.0), kInf);
  EXPECT_EQ(ulpError(inf, 1e300), 0);
  EXPECT_EQ(ulpError(inf, double(std::numeric_limits<float>::max())), 1);
  EXPECT_EQ(ulpError(std::numeric_limits<float>::max(), kInf), kInf);
}

class EmitMathOp : public ::testing::Test {
protected:
  EmitMathOp() : b(&context), module(mlir::ModuleOp::create(b, b.getUnknownLoc())) {
    context.loadDialect<mlir::arith::ArithDialect, mlir::math::MathDialect>();
    b.setInsertionPointToEnd(module->getBody());
  }
  mlir::Value argument(mlir::Type type) {
    return mlir::arith::ConstantOp::create(b, b.getUnknownLoc(), b.getZeroAttr(type));
  }
  std::optional<mlir::Value> emit(llvm::StringRef name, mlir::ValueRange operands) {
    return emitMathOp(b, b.getUnknownLoc(), name, operands);
  }
  mlir::MLIRContext context;
  mlir::OpBuilder b;
  mlir::OwningOpRef<mlir::ModuleOp> module;
};

TEST_F(EmitMathOp, KeepsTheType) {
  for (mlir::Type element : {mlir::Type(b.getF32Type()), mlir::Type(b.getF64Type())})
    for (mlir::Type type : {element, mlir::Type(mlir::VectorType::get({16}, element)),
                            mlir::Type(mlir::VectorType::get({4, 8}, element))})
      for (const MathOp &op : getMathOps()) {
        llvm::SmallVector<mlir::Value> operands(op.numOperands, argument(type));
        std::optional<mlir::Value> result = emit(op.name, operands);
        ASSERT_TRUE(result.has_value()) << op.name.str();
        EXPECT_EQ(result->getType(), type) << op.name.str();
      }
  EXPECT_TRUE(mlir::succeeded(mlir::verify(*module)));
}

TEST_F(EmitMathOp, RefusesWhatItDoesNotKnow) {
  mlir::Value f32 = argument(b.getF32Type()), f64 = argument(b.getF64Type());
  mlir::Value half = argument(b.getBF16Type()), i32 = argument(b.getI32Type());
  size_t before = module->getBody()->getOperations().size();
  EXPECT_FALSE(emit("gamma", f32));
  EXPECT_FALSE(emit("pow", f32));
  EXPECT_FALSE(emit("exp", {f32, f32}));
  EXPECT_FALSE(emit("pow", {f32, f64}));
  EXPECT_FALSE(emit("exp", half));
  EXPECT_FALSE(emit("exp", i32));
  EXPECT_EQ(module->getBody()->getOperations().size(), before) << "something was left behind";
}

TEST_F(EmitMathOp, UsesNoFastMathAndNoOtherMathOps) {
  for (const MathOp &op : getMathOps()) {
    llvm::SmallVector<mlir::Value> operands(op.numOperands, argument(b.getF32Type()));
    ASSERT_TRUE(emit(op.name, operands));
  }
  for (mlir::Operation &op : *module->getBody()) {
    if (auto fast = llvm::dyn_cast<mlir::arith::ArithFastMathInterface>(op))
      if (mlir::arith::FastMathFlagsAttr flags = fast.getFastMathFlagsAttr())
        EXPECT_EQ(flags.getValue(), mlir::arith::FastMathFlags::none);
    if (op.getName().getDialectNamespace() == "math")
      EXPECT_TRUE((llvm::isa<mlir::math::FmaOp, mlir::math::AbsFOp, mlir::math::SqrtOp,
                             mlir::math::CopySignOp>(op)))
          << op.getName().getStringRef().str();
  }
}

} // namespace
