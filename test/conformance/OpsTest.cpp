//===- OpsTest.cpp - every op of the dl dialect, compiled and run -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The tests walk the registered ops. For each one, its values are compared with the plain interpreter (Reference.h), its gradient in f64 with central differences of the
// interpreter's values, and everything in f32 with f64, for static and dynamic sizes, on every processor level that this machine runs and on the stand-in for a GPU. All
// levels give the same bits; so does a GPU where nothing is added up. Elementwise ops are found by their interface; the others have cases in the table below. An op in
// neither, and not excluded with a reason, fails `EveryOpIsCovered`.

#include "mlir/IR/Verifier.h"
#include "mlir/Parser/Parser.h"
#include "test/conformance/Compiled.h"
#include "gtest/gtest.h"
#include <cmath>
#include <random>
#include <set>

using namespace dlc;
using namespace dlc::test;
using namespace mlir;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

//===--- cases ---===//

/// A number for an operand; the same sequence on every machine.
using Random = std::mt19937_64;
using Domain = std::function<double(Random &)>;

double unit(Random &random) { return static_cast<double>(random() >> 11) * 0x1p-53; }
Domain between(double low, double high) {
  return [=](Random &random) { return low + (high - low) * unit(random); };
}
/// Of either sign.
Domain awayFromZero(double low, double high) {
  return [=](Random &random) {
    double magnitude = low + (high - low) * unit(random);
    return random() % 2 ? magnitude : -magnitude;
  };
}
Domain whole(int64_t low, int64_t high) {
  return [=](Random &random) { return static_cast<double>(low + static_cast<int64_t>(random() % static_cast<uint64_t>(high - low + 1))); };
}
/// Never the same twice, and never near: 630 of them keep 0.004 apart.
Domain apart() {
  return [n = std::make_shared<uint64_t>(0)](Random &) {
    double place = static_cast<double>(++*n % 630) * 0.6180339887498949;
    return 6 * (place - std::floor(place)) - 3;
  };
}
/// One of these.
Domain oneOf(std::vector<double> numbers) {
  return [=](Random &random) { return numbers[random() % numbers.size()]; };
}

struct Argument {
  RankedTensorType type;
  Domain domain = between(-2, 2);
};

/// One use of an op.
struct Case {
  std::string name;
  std::vector<Argument> arguments;
  BuildFunction build;
  /// Arguments that a gradient is taken in; all floating-point ones where not said.
  std::optional<std::vector<unsigned>> wrt = std::nullopt;
  /// Values of the dynamic dimensions to call it with.
  std::vector<std::vector<int64_t>> dims = {{1, 1}, {3, 2}, {17, 5}};
  double tolerance32 = 4e-6;
  /// Is there a floating-point type although no argument has one?
  bool isFloat = false;
  /// Draws a whole set of operands at one element again where it says false.
  std::function<bool(ArrayRef<double>)> accept = nullptr;
  /// An argument of static shape that is a variable in a function of its own, whose results have the same bits: targets may keep what they make of it from call to call.
  std::optional<unsigned> variable = std::nullopt;
};
/// A case for a floating-point type.
using MakeCase = std::function<Case(FloatType)>;

MLIRContext *context() { return &testContext(); }
AffineExpr c(int64_t n) { return getAffineConstantExpr(n, context()); }
AffineExpr N() { return getAffineSymbolExpr(0, context()); }
AffineExpr M() { return getAffineSymbolExpr(1, context()); }
using Sizes = std::vector<AffineExpr>;
std::string nameOf(const Sizes &sizes) { return dl::shapeToString(sizes, {"N", "M"}); }
Location loc() { return UnknownLoc::get(context()); }
Type i1() { return IntegerType::get(context(), 1); }
Type i32() { return IntegerType::get(context(), 32); }
Type i64() { return IntegerType::get(context(), 64); }
AffineMap starts(const Sizes &sizes) { return dl::sizeMap(sizes, context()); }

/// One op that has operands x… and one result.
Case one(std::string name, std::vector<Argument> arguments, std::function<Value(OpBuilder &, ValueRange)> build) {
  return {std::move(name), std::move(arguments), [build](OpBuilder &b, ValueRange x) { return SmallVector<Value>{build(b, x)}; }};
}

/// Ops that move elements: floating point with a gradient.
MakeCase moving(Sizes from, Sizes to, std::function<Value(OpBuilder &, Value, RankedTensorType)> build) {
  return [=](FloatType type) {
    return one(nameOf(from) + "->" + nameOf(to), {{dl::tensorType(from, type)}},
               [=](OpBuilder &b, ValueRange x) { return build(b, x[0], dl::tensorType(to, getElementTypeOrSelf(x[0]))); });
  };
}
MakeCase broadcast(Sizes from, Sizes to, std::vector<int64_t> axes) {
  return moving(from, to, [=](OpBuilder &b, Value x, RankedTensorType type) { return dl::BroadcastOp::create(b, loc(), type, x, axes); });
}
MakeCase reshape(Sizes from, Sizes to) {
  return moving(from, to, [=](OpBuilder &b, Value x, RankedTensorType type) { return dl::ReshapeOp::create(b, loc(), type, x); });
}
MakeCase assumeShape(Sizes from, Sizes to) {
  return moving(from, to, [=](OpBuilder &b, Value x, RankedTensorType type) { return dl::AssumeShapeOp::create(b, loc(), type, x); });
}
MakeCase transpose(Sizes from, std::vector<int64_t> permutation) {
  Sizes to;
  for (int64_t axis : permutation)
    to.push_back(from[axis]);
  return moving(from, to, [=](OpBuilder &b, Value x, RankedTensorType) { return dl::TransposeOp::create(b, loc(), x, permutation); });
}
MakeCase slice(Sizes from, Sizes to, Sizes start, std::vector<int64_t> strides) {
  return moving(from, to, [=](OpBuilder &b, Value x, RankedTensorType type) { return dl::SliceOp::create(b, loc(), type, x, starts(start), strides); });
}
MakeCase pad(Sizes from, Sizes to, Sizes start, std::vector<int64_t> strides) {
  return moving(from, to, [=](OpBuilder &b, Value x, RankedTensorType type) { return dl::PadOp::create(b, loc(), type, x, starts(start), strides); });
}
/// Indices of size n: from the end too, and some that are out of range.
Domain indexOf(int64_t n) { return whole(-n - 1, n); }
std::vector<Argument> indexArguments(const Sizes &from, const Sizes &places, const std::vector<int64_t> &axes, Type index) {
  std::vector<Argument> arguments;
  for (int64_t axis : axes) {
    auto size = dyn_cast<AffineConstantExpr>(from[axis]);
    arguments.push_back({dl::tensorType(places, index), indexOf(size ? size.getValue() : 3)});
  }
  return arguments;
}
MakeCase gather(Sizes from, Sizes places, std::vector<int64_t> axes, int64_t position, Type index) {
  return [=](FloatType type) {
    std::vector<Argument> arguments = indexArguments(from, places, axes, index);
    arguments.insert(arguments.begin(), {dl::tensorType(from, type)});
    return one(nameOf(from) + " at " + nameOf(places), arguments, [=](OpBuilder &b, ValueRange x) { return dl::GatherOp::create(b, loc(), x[0], x.drop_front(), axes, position); });
  };
}
template <typename OpTy> MakeCase scatter(Sizes into, Sizes places, std::vector<int64_t> axes, int64_t position, Type index, bool intoZeros = false) {
  return [=](FloatType type) {
    std::vector<Argument> arguments = indexArguments(into, places, axes, index);
    SmallVector<Type> types;
    for (const Argument &argument : arguments)
      types.push_back(argument.type);
    RankedTensorType whole = dl::tensorType(into, type), updates = *dl::gatherType(loc(), whole, types, axes, position);
    arguments.insert(arguments.begin(), {Argument{whole}, Argument{updates}});
    return one(nameOf(into) + " at " + nameOf(places), arguments, [=](OpBuilder &b, ValueRange x) -> Value {
      // The operand itself keeps its place; a product of it may give up its own.
      Value from = intoZeros ? dl::FillOp::create(b, loc(), cast<RankedTensorType>(x[0].getType()), 0.0).getResult() : x[0];
      Value result = OpTy::create(b, loc(), from, x[1], x.drop_front(2), axes, position);
      if (!intoZeros)
        return result;
      return dl::AddOp::create(b, loc(), result, x[0]);
    });
  };
}
/// The same on another element type, without a gradient.
MakeCase of(Type element, Domain domain, MakeCase make) {
  return [=](FloatType type) {
    Case made = make(type);
    for (Argument &argument : made.arguments) {
      if (!isa<FloatType>(argument.type.getElementType()))
        continue;
      argument.type = dl::withElementType(argument.type, element);
      argument.domain = domain;
    }
    made.name += " of whole numbers";
    made.wrt = std::vector<unsigned>();
    return made;
  };
}
template <typename OpTy> MakeCase reduction(Sizes from, std::vector<int64_t> axes, Type element = {}, Domain domain = nullptr) {
  return [=](FloatType type) {
    std::string name = nameOf(from) + " over";
    for (int64_t axis : axes)
      name += " " + std::to_string(axis);
    bool hasGradient = !element && !isa<FloatType>(Type(i32())) && !std::is_same_v<OpTy, dl::ArgmaxOp> && !std::is_same_v<OpTy, dl::ArgminOp>;
    Case made = one(name, {{dl::tensorType(from, element ? element : Type(type)), domain ? domain : between(-2, 2)}}, [=](OpBuilder &b, ValueRange x) {
      return OpTy::create(b, loc(), x[0], axes);
    });
    if (!hasGradient)
      made.wrt = std::vector<unsigned>();
    return made;
  };
}
/// All that reductions have in common.
template <typename OpTy> std::vector<MakeCase> reductions(Type element = {}, Domain domain = nullptr) {
  std::vector<MakeCase> cases;
  auto add = [&](Sizes from, std::vector<int64_t> axes) { cases.push_back(reduction<OpTy>(from, axes, element, domain)); };
  add({N()}, {0});
  add({N(), c(17)}, {1});
  add({N(), c(17)}, {0});
  add({N(), c(17)}, {0, 1});
  add({N(), M()}, {1});
  add({N(), M()}, {0});
  add({c(1)}, {0});
  add({c(65)}, {0});
  add({c(130), c(3)}, {0});
  add({c(3), c(130)}, {1});
  add({c(4), c(33), c(1)}, {1});
  add({N(), c(1)}, {1});
  add({c(2), c(40)}, {});
  for (std::vector<int64_t> axes : {std::vector<int64_t>{0}, {1}, {2}, {0, 1}, {0, 2}, {1, 2}, {0, 1, 2}})
    add({c(5), c(7), c(18)}, axes);
  add({c(2), N(), c(3), M()}, {1, 3});
  add({c(2), N(), c(3), M()}, {0, 2});
  return cases;
}
template <typename OpTy> void append(std::vector<MakeCase> &cases, Type element, Domain domain) {
  for (Sizes from : {Sizes{N(), c(17)}, Sizes{c(3), c(65)}})
    for (std::vector<int64_t> axes : {std::vector<int64_t>{0}, {1}, {0, 1}})
      cases.push_back(reduction<OpTy>(from, axes, element, domain));
}

MakeCase product(Sizes batch, AffineExpr m, AffineExpr n, AffineExpr k, bool lhsTransposed, bool rhsTransposed) {
  return [=](FloatType type) {
    Sizes lhs(batch), rhs(batch);
    lhs.insert(lhs.end(), {lhsTransposed ? k : m, lhsTransposed ? m : k});
    rhs.insert(rhs.end(), {rhsTransposed ? n : k, rhsTransposed ? k : n});
    Case made = one(nameOf(lhs) + (lhsTransposed ? "'" : "") + " by " + nameOf(rhs) + (rhsTransposed ? "'" : ""), std::vector<Argument>{Argument{dl::tensorType(lhs, type)}, Argument{dl::tensorType(rhs, type)}},
                    [=](OpBuilder &b, ValueRange x) { return dl::MatmulOp::create(b, loc(), x[0], x[1], lhsTransposed, rhsTransposed); });
    for (unsigned operand : {0, 1})
      if (made.arguments[operand].type.hasStaticShape())
        made.variable = operand;
    return made;
  };
}
/// A window of a map over the result's indices, written as dims.
MakeCase window(Sizes from, Sizes to, std::function<Sizes(ArrayRef<AffineExpr>)> map, std::vector<int64_t> divisors, double outside) {
  return moving(from, to, [=](OpBuilder &b, Value x, RankedTensorType type) {
    SmallVector<AffineExpr> dims;
    for (size_t i = 0; i < to.size(); ++i)
      dims.push_back(getAffineDimExpr(i, context()));
    return dl::WindowOp::create(b, loc(), type, x, AffineMap::get(to.size(), 0, map(dims), context()), divisors, APFloat(outside));
  });
}
/// The largest of each window: over the axes that neither the operand nor the result of pooling has.
MakeCase pooled(Sizes from, Sizes to, std::function<Sizes(ArrayRef<AffineExpr>)> map, std::vector<int64_t> axes) {
  return [=](FloatType type) {
    Case made = window(from, to, map, std::vector<int64_t>(from.size(), 1), -kInf)(type);
    made.arguments[0].domain = apart();
    made.build = [windows = made.build, axes](OpBuilder &b, ValueRange x) { return SmallVector<Value>{dl::MaxOp::create(b, loc(), windows(b, x)[0], axes)}; };
    return made;
  };
}
/// One tensor of a convolution from the two others; the sizes of all three.
struct Convolution {
  Sizes input, weight, output;
  std::vector<int64_t> strides, paddings, dilations;
  int64_t groups = 1;
  std::vector<std::vector<int64_t>> dims = Case().dims; // fewer images where each has many products
};
MakeCase convolution(dl::ConvolutionResult kind, Convolution c) {
  return [=](FloatType type) {
    using R = dl::ConvolutionResult;
    auto sizes = [&](R tensor) { return tensor == R::input ? c.input : tensor == R::weight ? c.weight : c.output; };
    R lhs = kind == R::input ? R::output : R::input, rhs = kind == R::weight ? R::output : R::weight;
    std::string name = (dl::stringifyConvolutionResult(kind) + " of " + nameOf(sizes(lhs)) + " and " + nameOf(sizes(rhs)) + " in " + std::to_string(c.groups) + " groups").str();
    Case made = one(name, std::vector<Argument>{Argument{dl::tensorType(sizes(lhs), type)}, Argument{dl::tensorType(sizes(rhs), type)}}, [=](OpBuilder &b, ValueRange x) {
      return dl::ConvolutionOp::create(b, loc(), dl::tensorType(sizes(kind), getElementTypeOrSelf(x[0])), kind, x[0], x[1], c.strides, c.paddings, c.dilations, c.groups);
    });
    made.dims = c.dims;
    if (kind != R::weight)
      made.variable = 1;
    return made;
  };
}
template <typename OpTy> std::vector<MakeCase> softmaxLike() {
  std::vector<MakeCase> cases;
  auto add = [&](Sizes from, int64_t axis, Domain domain = between(-3, 3)) {
    cases.push_back([=](FloatType type) {
      RankedTensorType tensor = dl::tensorType(from, type);
      Case made = one(nameOf(from) + " along " + std::to_string(axis), {{tensor, domain}}, [=](OpBuilder &b, ValueRange x) -> Value {
        if constexpr (std::is_same_v<OpTy, dl::LogsumexpOp>)
          return OpTy::create(b, loc(), x[0], axis);
        else
          return OpTy::create(b, loc(), tensor, x[0], axis);
      });
      made.tolerance32 = 2e-5;
      return made;
    });
  };
  add({N(), c(10)}, 1);
  add({N(), c(10)}, 0);
  add({c(3), c(65)}, 1);
  add({c(17)}, 0);
  add({N(), M()}, 1);
  add({c(2), c(5), c(3)}, 1);
  add({N(), c(1)}, 1);
  add({N(), c(33)}, 1, between(-800, 800)); // exp overflows
  return cases;
}
MakeCase crossEntropy(Sizes scores, Type labelType, std::vector<double> labels) {
  return [=](FloatType type) {
    Sizes rows(scores.begin(), scores.end() - 1);
    Case made = one(nameOf(scores), {{dl::tensorType(scores, type), between(-3, 3)}, {dl::tensorType(rows, labelType), oneOf(labels)}},
                    [=](OpBuilder &b, ValueRange x) { return dl::CrossEntropyOp::create(b, loc(), x[0], x[1]); });
    made.tolerance32 = 2e-5;
    return made;
  };
}
/// What attention is of.
struct Attention {
  AffineExpr n, t, s, heads, d, e;
  bool isCausal = false;
  /// Sizes of the mask, which may be 1; none: there is no mask.
  Sizes mask = {};
  bool isMaskOfBools = false;
  double scale = 0.4;
};
std::string nameOf(const Attention &a) {
  return nameOf(Sizes{a.n, a.t, a.heads, a.d}) + " over " + nameOf(Sizes{a.n, a.s, a.heads, a.e}) + (a.isCausal ? " causal" : "") +
         (a.mask.empty() ? "" : (a.isMaskOfBools ? " masked by bools " : " masked by ") + nameOf(a.mask));
}
/// Scores of a size at which no weight is nearly everything.
std::vector<Argument> operandsOf(const Attention &a, FloatType type) {
  return {{dl::tensorType({a.n, a.t, a.heads, a.d}, type), between(-1, 1)}, {dl::tensorType({a.n, a.s, a.heads, a.d}, type), between(-1, 1)}, {dl::tensorType({a.n, a.s, a.heads, a.e}, type)}};
}
void addMask(std::vector<Argument> &arguments, const Attention &a, FloatType type) {
  if (!a.mask.empty())
    arguments.push_back({dl::tensorType(a.mask, a.isMaskOfBools ? i1() : Type(type)), a.isMaskOfBools ? oneOf({0, 1, 1}) : between(-2, 2)});
}
MakeCase attention(Attention a) {
  return [=](FloatType type) {
    std::vector<Argument> arguments = operandsOf(a, type);
    addMask(arguments, a, type);
    // Of rows that look at nothing the logarithm is -inf, which has no differences.
    bool isBlank = a.isMaskOfBools && a.mask.back() == c(1);
    Case made{nameOf(a), arguments, [=](OpBuilder &b, ValueRange x) {
                auto op = dl::AttentionOp::create(b, loc(), x[0], x[1], x[2], a.mask.empty() ? Value() : x[3], APFloat(a.scale), a.isCausal);
                return isBlank ? SmallVector<Value>{op.getResult()} : SmallVector<Value>{op.getResult(), op.getLogsumexp()};
              }};
    made.tolerance32 = 2e-5;
    return made;
  };
}
MakeCase attentionGradient(Attention a) {
  return [=](FloatType type) {
    RankedTensorType rows = dl::tensorType({a.n, a.t, a.heads}, type);
    // logsumexp is of the size that it has with such operands.
    std::vector<Argument> arguments = operandsOf(a, type);
    arguments.insert(arguments.end(), {Argument{rows, between(3, 5)}, Argument{rows}, Argument{dl::tensorType({a.n, a.t, a.heads, a.e}, type)}});
    addMask(arguments, a, type);
    Case made{nameOf(a), arguments, [=](OpBuilder &b, ValueRange x) {
                auto op = dl::AttentionGradientOp::create(b, loc(), x[0], x[1], x[2], x[3], x[4], x[5], a.mask.empty() ? Value() : x[6], APFloat(a.scale), a.isCausal);
                return SmallVector<Value>(op->getResults());
              }};
    made.tolerance32 = 2e-5;
    return made;
  };
}
/// All that the two ops have in common.
std::vector<MakeCase> attentions(MakeCase (*make)(Attention)) {
  std::vector<MakeCase> cases;
  AffineExpr n = N(), m = M();
  for (const Attention &a : std::vector<Attention>{
           {c(2), c(5), c(7), c(3), c(4), c(6)},
           {n, m, m, c(2), c(8), c(8), true},
           {n, c(7), m, c(2), c(5), c(3)},
           {c(1), c(29), c(29), c(2), c(16), c(16), true},
           {c(1), c(3), c(150), c(1), c(17), c(9)},   // more keys than a block has
           {c(1), c(140), c(140), c(1), c(8), c(8), true},
           {n, m, m, c(2), m, c(3)},                  // heads of a size of the call
           {c(2), c(6), c(5), c(2), c(4), c(4), false, {c(2), c(2), c(6), c(5)}},
           {c(2), c(6), c(6), c(2), c(4), c(4), true, {c(1), c(2), c(1), c(6)}},
           {n, m, c(9), c(2), c(4), c(4), false, {n, c(1), c(1), c(9)}, true},
           {c(2), c(13), c(9), c(2), c(4), c(4), false, {c(1), c(1), c(13), c(1)}, true}, // rows that look at nothing
       })
    cases.push_back(make(a));
  return cases;
}
/// Draws.
template <typename Make> MakeCase draw(Sizes to, Type element, Make make) {
  return [=](FloatType type) {
    RankedTensorType result = dl::tensorType(to, element ? element : Type(type)), scalar = RankedTensorType::get({}, i64());
    Case made = one(nameOf(to), {{scalar, whole(-1000000, 1000000)}, {scalar, whole(0, 1000)}}, [=](OpBuilder &b, ValueRange x) -> Value { return make(b, result, x[0], x[1]); });
    made.isFloat = !element;
    made.wrt = std::vector<unsigned>();
    made.tolerance32 = 2e-5; // normal: near a zero of the sine the angle's rounding counts
    return made;
  };
}
/// No operand but sizes.
template <typename Make> MakeCase generated(Sizes to, Type element, Make make) {
  return [=](FloatType type) {
    RankedTensorType result = dl::tensorType(to, element ? element : Type(type));
    Case made = one(nameOf(to), {}, [=](OpBuilder &b, ValueRange) -> Value { return make(b, result); });
    made.isFloat = !element;
    made.wrt = std::vector<unsigned>();
    return made;
  };
}
MakeCase comparison(Sizes sizes, Type element, Domain domain, dl::ComparePredicate predicate) {
  return [=](FloatType type) {
    RankedTensorType tensor = dl::tensorType(sizes, element ? element : Type(type));
    Case made = one(nameOf(sizes), {{tensor, domain}, {tensor, domain}}, [=](OpBuilder &b, ValueRange x) { return dl::CompareOp::create(b, loc(), x[0], x[1], predicate); });
    made.wrt = std::vector<unsigned>();
    return made;
  };
}

/// Cases of ops that the interface of elementwise ops does not say enough about.
const std::map<std::string, std::vector<MakeCase>> &casesOfOps() {
  static const auto *table = [] {
    auto *cases = new std::map<std::string, std::vector<MakeCase>>();
    AffineExpr n = N(), m = M();
    Type f64 = Float64Type::get(context()), f32 = Float32Type::get(context()), u8 = IntegerType::get(context(), 8, IntegerType::Unsigned), i8 = IntegerType::get(context(), 8),
         i16 = IntegerType::get(context(), 16);
    Type same; // the floating-point type under test

    auto &select = (*cases)["dl.select"];
    for (Type element : {same, i1(), u8, i8, i32(), i64()})
      for (Sizes sizes : {Sizes{n}, Sizes{n, c(17)}, Sizes{c(2), c(65)}, Sizes{}})
        select.push_back([=](FloatType type) {
          RankedTensorType tensor = dl::tensorType(sizes, element ? element : Type(type));
          Domain domain = element ? whole(0, 1) : between(-2, 2);
          Case made = one(nameOf(sizes), {{dl::withElementType(tensor, i1()), whole(0, 1)}, {tensor, domain}, {tensor, domain}},
                          [=](OpBuilder &b, ValueRange x) { return dl::SelectOp::create(b, loc(), tensor, x[0], x[1], x[2]); });
          if (element)
            made.wrt = std::vector<unsigned>();
          return made;
        });
    auto &compare = (*cases)["dl.compare"];
    using P = dl::ComparePredicate;
    for (P predicate : {P::eq, P::ne, P::lt, P::le, P::gt, P::ge}) {
      compare.push_back(comparison({n, c(17)}, same, oneOf({-1, -0.0, 0, 0.5, 1, kInf, -kInf, kNaN}), predicate));
      compare.push_back(comparison({c(2), c(65)}, same, oneOf({-1, 0, 0.5, 1}), predicate));
      for (Type element : {i8, i16, i32(), i64()})
        compare.push_back(comparison({n, c(9)}, element, whole(-3, 3), predicate));
      compare.push_back(comparison({n, c(9)}, i1(), whole(0, 1), predicate));
      compare.push_back(comparison({n, c(9)}, u8, oneOf({0, 1, 127, 128, 255}), predicate));
    }
    auto &roundTo = (*cases)["dl.round_to"];
    for (Type format : {Type(BFloat16Type::get(context())), Type(Float16Type::get(context()))})
      for (const Domain &domain : {between(-2, 2), between(-7e4, 7e4), between(-1e-4, 1e-4), between(-1e-7, 1e-7), between(-1e-38, 1e-38), between(-3.4e38, 3.4e38),
                                   // halves, of odd and even numbers
                                   oneOf({1 + 0x1p-8, 1 + 0x1.8p-7, -1 - 0x1p-8, 1 + 0x1p-11, 1 + 0x1.8p-10, 1 + 0x1.002p-11, 2 - 0x1p-23, 0x1.ffp-15, 0x1.ffdp-15, 0x1.ffffp-15}),
                                   // around the largest and the smallest numbers of both
                                   oneOf({65504, 65519, 65520, -65520, 65535, 65536, 0x1.fep127, 0x1.fefffep127, 0x1.ffp127, -0x1.ffp127, 0x1.fffffep127}),
                                   oneOf({0x1p-14, 0x1p-24, 0x1p-25, 0x1.000002p-25, 0x1.8p-24, -0x1p-25, 0x1p-126, 0x1p-133, 0x1p-134, 0x1.8p-134, 0x1p-149, -0x1p-149, 0, -0.0, kInf, -kInf, kNaN})})
        roundTo.push_back([=](FloatType) {
          Case made = one(format.isF16() ? "f16" : "bf16", {{dl::tensorType({n, c(67)}, f32), domain}},
                          [=](OpBuilder &b, ValueRange x) { return dl::RoundToOp::create(b, loc(), x[0].getType(), format, x[0]); });
          made.wrt = std::vector<unsigned>(); // a cast's, which is no derivative of a staircase
          return made;
        });
    auto &convert = (*cases)["dl.convert"];
    for (Type from : {f32, f64, i1(), u8, i8, i16, i32(), i64()})
      for (Type to : {f32, f64, i1(), u8, i8, i16, i32(), i64()})
        for (Sizes sizes : {Sizes{n, c(17)}, Sizes{c(2), c(65)}})
          convert.push_back([=](FloatType) {
            Domain domain = isa<FloatType>(from) ? (to == u8 ? between(0, 255.9) : between(-127.9, 127.9)) : from == i1() ? whole(0, 1) : from == u8 ? whole(0, 255) : whole(-128, 127);
            Case made = one("from", {{dl::tensorType(sizes, from), domain}},
                            [=](OpBuilder &b, ValueRange x) { return dl::ConvertOp::create(b, loc(), dl::tensorType(sizes, to), x[0]); });
            // In f32 a central difference has too few digits: the gradient of conversions is looked at in f64 and by Corners.
            made.wrt = std::vector<unsigned>();
            if (from == f64 && to == f64)
              made.wrt = std::nullopt;
            return made;
          });

    (*cases)["dl.fill"] = {generated({n, c(17)}, same, [](OpBuilder &b, RankedTensorType t) { return dl::FillOp::create(b, loc(), t, 0.1); }),
                           generated({c(65)}, same, [](OpBuilder &b, RankedTensorType t) { return dl::FillOp::create(b, loc(), t, -kInf); }),
                           generated({n}, i1(), [](OpBuilder &b, RankedTensorType t) { return dl::FillOp::create(b, loc(), t, int64_t(1)); }),
                           generated({c(3)}, i8, [](OpBuilder &b, RankedTensorType t) { return dl::FillOp::create(b, loc(), t, int64_t(-7)); }),
                           generated({n}, u8, [](OpBuilder &b, RankedTensorType t) { return dl::FillOp::create(b, loc(), t, int64_t(200)); }),
                           generated({n}, i64(), [](OpBuilder &b, RankedTensorType t) { return dl::FillOp::create(b, loc(), t, int64_t(1) << 40); }),
                           generated({}, same, [](OpBuilder &b, RankedTensorType t) { return dl::FillOp::create(b, loc(), t, 3.0); })};
    (*cases)["dl.constant"] = {
        generated({c(2), c(3)}, same,
                  [](OpBuilder &b, RankedTensorType t) {
                    SmallVector<Attribute> numbers;
                    for (double v : {0.5, -1.0, 2.25, 1e6, -0.0, 3.0})
                      numbers.push_back(b.getFloatAttr(t.getElementType(), v));
                    return dl::ConstantOp::create(b, loc(), t, DenseElementsAttr::get(t, numbers));
                  }),
        generated({c(5)}, same, [](OpBuilder &b, RankedTensorType t) { return dl::ConstantOp::create(b, loc(), t, DenseElementsAttr::get(t, Attribute(b.getFloatAttr(t.getElementType(), 0.25)))); }),
        generated({c(9)}, i1(), [](OpBuilder &b, RankedTensorType t) { return dl::ConstantOp::create(b, loc(), t, DenseElementsAttr::get(t, ArrayRef<bool>{1, 0, 0, 1, 1, 1, 0, 1, 1})); }),
        generated({c(3)}, i32(), [](OpBuilder &b, RankedTensorType t) { return dl::ConstantOp::create(b, loc(), t, DenseElementsAttr::get(t, ArrayRef<int32_t>{7, -1, 1 << 30})); }),
        generated({c(2)}, i64(), [](OpBuilder &b, RankedTensorType t) { return dl::ConstantOp::create(b, loc(), t, DenseElementsAttr::get(t, ArrayRef<int64_t>{-3, int64_t(1) << 40})); })};
    auto &size = (*cases)["dl.size"];
    for (Type element : {same, i32(), i64()})
      for (AffineExpr expr : {n, n * 3 + 1, n * m, (n + 1).floorDiv(2), n.ceilDiv(4), (n * 5) % 3, c(7)})
        size.push_back(generated({}, element, [=](OpBuilder &b, RankedTensorType t) { return dl::SizeOp::create(b, loc(), t, starts({expr})); }));
    auto &iota = (*cases)["dl.iota"];
    for (Type element : {same, i8, i32(), i64()})
      for (int64_t axis : {0, 1, 2})
        for (Sizes sizes : {Sizes{n, c(3), c(17)}, Sizes{c(3), c(2), c(65)}, Sizes{c(2), n, c(1)}, Sizes{c(3), c(2), m}})
          iota.push_back(generated(sizes, element, [=](OpBuilder &b, RankedTensorType t) { return dl::IotaOp::create(b, loc(), t, axis); }));
    for (Sizes sizes : {Sizes{n, c(17)}, Sizes{c(130)}, Sizes{}}) {
      (*cases)["dl.uniform"].push_back(draw(sizes, same, [](OpBuilder &b, Type t, Value seed, Value call) { return dl::UniformOp::create(b, loc(), t, seed, call, 0x9E3779B9u); }));
      (*cases)["dl.normal"].push_back(draw(sizes, same, [](OpBuilder &b, Type t, Value seed, Value call) { return dl::NormalOp::create(b, loc(), t, seed, call, 7u); }));
      for (Type element : {i8, i32(), i64()})
        (*cases)["dl.randint"].push_back(draw(sizes, element, [](OpBuilder &b, Type t, Value seed, Value call) { return dl::RandintOp::create(b, loc(), t, seed, call, 1u, -5, 9); }));
      (*cases)["dl.randint"].push_back(
          draw(sizes, i64(), [](OpBuilder &b, Type t, Value seed, Value call) { return dl::RandintOp::create(b, loc(), t, seed, call, 1u, -3, (int64_t(1) << 32) - 4); }));
    }

    (*cases)["dl.broadcast"] = {broadcast({}, {n, c(3)}, {}),
                                broadcast({c(17)}, {n, c(17)}, {1}),
                                broadcast({n}, {n, c(17)}, {0}),
                                broadcast({c(1), c(5)}, {n, c(5)}, {0, 1}),
                                broadcast({n, c(1)}, {n, c(40)}, {0, 1}),
                                broadcast({c(3)}, {c(2), c(3), c(65)}, {1}),
                                broadcast({c(2), c(1), c(4)}, {c(2), c(3), c(4)}, {0, 1, 2}),
                                broadcast({n}, {n, c(1)}, {0}),
                                broadcast({n, c(1), c(3)}, {n, c(5), c(3)}, {0, 1, 2}),
                                broadcast({n, m}, {n, c(4), m}, {0, 2}),
                                broadcast({m}, {n, m}, {1}),
                                broadcast({c(1), c(1)}, {n, c(19)}, {0, 1}),
                                of(i32(), whole(-9, 9), broadcast({n}, {n, c(33)}, {0})),
                                of(i1(), whole(0, 1), broadcast({c(33)}, {n, c(33)}, {1}))};
    (*cases)["dl.reshape"] = {reshape({n, c(6)}, {n, c(2), c(3)}), reshape({c(2), c(3), c(34)}, {c(6), c(34)}), reshape({n, c(17)}, {n * 17}), reshape({c(6)}, {c(3), c(2)}),
                              reshape({c(1)}, {}),                 reshape({}, {c(1), c(1)}),                   reshape({n, c(4)}, {n * 2, c(2)}), reshape({c(4), n}, {c(2), n * 2}),
                              reshape({n, m}, {n * m}),            reshape({n * m}, {m, n}),                    reshape({n}, {c(1), n, c(1)}),     reshape({c(12), c(5)}, {c(4), c(15)}),
                              of(i8, whole(-9, 9), reshape({n, c(6)}, {n * 6}))};
    // n * (n + 1) is even, which no algebra of polynomials says.
    AffineExpr even = n * n + n, twice = even.floorDiv(2) * 2;
    (*cases)["dl.assume_shape"] = {assumeShape({even}, {twice}), assumeShape({even, c(17)}, {twice, c(17)}), assumeShape({c(3), twice}, {c(3), even}), assumeShape({}, {}),
                                   assumeShape({m, even, c(4)}, {m, twice, c(4)}), of(i1(), whole(0, 1), assumeShape({even}, {twice}))};
    {
      // The other value may have any type; it has no derivative.
      auto after = [&](Sizes sizes, Sizes other, Type element) -> MakeCase {
        return [=](FloatType type) {
          Case made = one(nameOf(sizes) + " after " + nameOf(other), {{dl::tensorType(sizes, type)}, {dl::tensorType(other, element ? element : Type(type)), whole(0, 1)}},
                          [](OpBuilder &b, ValueRange x) { return dl::AfterOp::create(b, loc(), x[0], x[1]); });
          made.wrt = std::vector<unsigned>{0};
          return made;
        };
      };
      (*cases)["dl.after"] = {after({n, c(17)}, {n, c(17)}, nullptr), after({n, m}, {}, nullptr), after({}, {n}, i32()), after({c(5)}, {m, n}, i1())};
    }
    (*cases)["dl.transpose"] = {transpose({n, c(33)}, {1, 0}), transpose({n, c(2), c(17)}, {0, 2, 1}), transpose({n, c(2), c(17)}, {1, 0, 2}), transpose({n, m}, {1, 0}), transpose({c(5)}, {0}),
                                of(i1(), whole(0, 1), transpose({n, c(33)}, {1, 0}))};
    for (std::vector<int64_t> permutation : {std::vector<int64_t>{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}})
      (*cases)["dl.transpose"].push_back(transpose({c(3), c(4), c(18)}, permutation));
    (*cases)["dl.slice"] = {slice({n, c(10)}, {n, c(3)}, {c(0), c(2)}, {1, 3}),
                            slice({n, c(40)}, {n, c(37)}, {c(0), c(2)}, {1, 1}),
                            slice({n, c(4)}, {n, c(4)}, {n - 1, c(0)}, {-1, 1}),
                            slice({c(65)}, {c(65)}, {c(64)}, {-1}),
                            slice({c(65)}, {c(13)}, {c(64)}, {-5}),
                            slice({n}, {c(1)}, {n - 1}, {1}),
                            slice({n * 2, c(5)}, {n, c(5)}, {n, c(0)}, {1, 1}),
                            slice({n * 2, c(5)}, {n, c(5)}, {c(1), c(0)}, {2, 1}),
                            slice({c(5), c(6), c(20)}, {c(2), c(1), c(17)}, {c(3), c(4), c(1)}, {-2, 1, 1}),
                            slice({n, c(5)}, {n, c(0)}, {c(0), c(0)}, {1, 1}),
                            of(i64(), whole(-9, 9), slice({n, c(10)}, {n, c(3)}, {c(0), c(2)}, {1, 3}))};
    // Vectors taken out of several, from the operand's first element to its last: shorter than a vector, some whole ones and a rest, and longer than any.
    for (int64_t stride : {2, 3, 4, 5, -1, -2, -3, -4})
      for (int64_t count : {3, 21, 70, 130}) {
        int64_t size = std::abs(stride) * (count - 1) + 1;
        MakeCase each = slice({n, c(size)}, {n, c(count)}, {c(0), c(stride < 0 ? size - 1 : 0)}, {1, stride});
        (*cases)["dl.slice"].push_back(each);
        if (count == 70)
          for (auto [element, domain] : {std::pair<Type, Domain>{i1(), whole(0, 1)}, {i8, whole(-100, 100)}, {i64(), whole(-9, 9)}})
            (*cases)["dl.slice"].push_back(of(element, domain, each));
      }
    auto sliceAt = [](Sizes from, Sizes to, int64_t axis, int64_t start, Type element = {}) -> MakeCase {
      return [=](FloatType type) {
        auto i64 = RankedTensorType::get({}, IntegerType::get(context(), 64));
        Case made = one("along " + std::to_string(axis), {{dl::tensorType(from, element ? element : Type(type)), element ? whole(-9, 9) : between(-2, 2)}, {i64, whole(start, start)}},
                        [=](OpBuilder &b, ValueRange x) { return dl::SliceAtOp::create(b, loc(), dl::tensorType(to, getElementTypeOrSelf(x[0].getType())), x[0], x[1], axis); });
        made.wrt = element ? std::vector<unsigned>() : std::vector<unsigned>{0};
        return made;
      };
    };
    auto sliceUpdate = [](Sizes whole_, Sizes part, int64_t axis, int64_t start, Type element = {}) -> MakeCase {
      return [=](FloatType type) {
        auto i64 = RankedTensorType::get({}, IntegerType::get(context(), 64));
        Type of = element ? element : Type(type);
        Domain domain = element ? whole(-9, 9) : between(-2, 2);
        Case made = one("along " + std::to_string(axis), {{dl::tensorType(whole_, of), domain}, {dl::tensorType(part, of), domain}, {i64, whole(start, start)}},
                        [=](OpBuilder &b, ValueRange x) { return dl::SliceUpdateOp::create(b, loc(), x[0].getType(), x[0], x[1], x[2], axis); });
        made.wrt = element ? std::vector<unsigned>() : std::vector<unsigned>{0, 1};
        return made;
      };
    };
    (*cases)["dl.slice_at"] = {sliceAt({n, c(10), c(17)}, {n, c(17)}, 1, 3),  sliceAt({n, c(10)}, {n, c(3)}, 1, 2),     sliceAt({n, c(10)}, {n}, 1, 9),
                               sliceAt({c(7), n}, {n}, 0, 6),                 sliceAt({c(7), n}, {c(2), n}, 0, 5),      sliceAt({c(9)}, {}, 0, 4),
                               sliceAt({c(5), n, c(4)}, {c(5), n, c(4)}, 2, 0), sliceAt({n, c(10)}, {n, c(3)}, 1, 7, i64())};
    (*cases)["dl.slice_update"] = {sliceUpdate({n, c(10), c(17)}, {n, c(17)}, 1, 3), sliceUpdate({n, c(10)}, {n, c(3)}, 1, 2), sliceUpdate({n, c(10)}, {n}, 1, 9),
                                   sliceUpdate({c(7), n}, {n}, 0, 6),                sliceUpdate({c(7), n}, {c(2), n}, 0, 5),  sliceUpdate({c(9)}, {}, 0, 4),
                                   sliceUpdate({c(5), n, c(4)}, {c(5), n, c(4)}, 2, 0), sliceUpdate({n, c(10)}, {n, c(3)}, 1, 7, i64())};
    (*cases)["dl.pad"] = {pad({n, c(3)}, {n, c(10)}, {c(0), c(2)}, {1, 3}),
                          pad({n, c(37)}, {n, c(40)}, {c(0), c(2)}, {1, 1}),
                          pad({n, c(4)}, {n, c(4)}, {n - 1, c(0)}, {-1, 1}),
                          pad({c(13)}, {c(65)}, {c(64)}, {-5}),
                          pad({n, c(5)}, {n * 2, c(5)}, {n, c(0)}, {1, 1}),
                          pad({n, c(5)}, {n * 2, c(5)}, {c(1), c(0)}, {2, 1}),
                          pad({c(2), c(1), c(17)}, {c(5), c(6), c(20)}, {c(3), c(4), c(1)}, {-2, 1, 1}),
                          of(i32(), whole(-9, 9), pad({n, c(3)}, {n, c(10)}, {c(0), c(2)}, {1, 3})),
                          of(i1(), whole(0, 1), pad({n, c(3)}, {n, c(10)}, {c(0), c(2)}, {1, 3}))};
    // From, to and around what is as long as vectors of some length, and shorter than those of another.
    for (int64_t width : {2, 4, 8, 16, 32, 64})
      for (MakeCase each : {pad({n, c(width)}, {n, c(2 * width)}, {c(0), c(width)}, {1, 1}), pad({n, c(2 * width)}, {n, c(8 * width)}, {c(0), c(width)}, {1, 1}),
                            of(i1(), whole(0, 1), pad({n, c(width)}, {n, c(2 * width)}, {c(0), c(width)}, {1, 1}))})
        (*cases)["dl.pad"].push_back(each);
    using Dims = ArrayRef<AffineExpr>;
    std::vector<MakeCase> pools;
    (*cases)["dl.window"] = {
        // windows of 3, 2 apart, padded by 1; over two axes, kernel first; spread; the gather of such windows, which divides
        window({n, c(9)}, {n, c(3), c(5)}, [](Dims d) { return Sizes{d[0], d[2] * 2 + d[1] - 1}; }, {1, 1}, -3),
        window({n, c(40)}, {n, c(5), c(40)}, [](Dims d) { return Sizes{d[0], d[2] + d[1] - 2}; }, {1, 1}, 0),
        window({n, c(2), c(7), c(20)}, {n, c(2), c(3), c(2), c(5), c(19)}, [](Dims d) { return Sizes{d[0], d[1], d[4] + d[2], d[5] + d[3]}; }, {1, 1, 1, 1}, 0),
        window({c(2), c(6), c(35)}, {c(2), c(3), c(3), c(6), c(33)}, [](Dims d) { return Sizes{d[0], d[3] + d[1] * 2 - 2, d[4] + d[2] * 2 - 1}; }, {1, 1, 1}, 0),
        window({n, c(3), c(5)}, {n, c(3), c(9)}, [](Dims d) { return Sizes{d[0], d[1], d[2] - d[1] + 1}; }, {1, 1, 2}, 0),
        window({n, c(3), c(5)}, {c(2), n, c(3), c(21)}, [](Dims d) { return Sizes{d[1], d[2], d[3] - d[2] * 4 + 3}; }, {1, 1, 3}, 7),
        window({m, n}, {n, m, c(2)}, [](Dims d) { return Sizes{d[1] + d[2] - 1, d[0]}; }, {1, 1}, 0.5),
        window({c(6), c(4)}, {c(3), c(2), c(4)}, [](Dims d) { return Sizes{d[0] * 2 + d[1], d[2]}; }, {1, 1}, 1),
        window({c(17)}, {c(5)}, [](Dims d) { return Sizes{d[0] * -4 + 18}; }, {1}, 2),
        window({c(3)}, {c(2), c(130)}, [](Dims d) { return Sizes{d[1] - 70 + d[0]}; }, {1}, 0),
        // a size of the call
        window({n, m}, {n, c(3), m}, [](Dims d) { return Sizes{d[0], d[2] * 2 + d[1] - 1}; }, {1, 1}, 4)};
    // Vectors taken out of several: shorter than a vector, and some whole ones and a rest; windows beyond both ends, beyond the first and up to the last element, and all inside.
    for (int64_t stride : {1, 2, 3, 4, 5, -1, -2, -3})
      for (int64_t count : {4, 37})
        for (int64_t spread : {1, 2})
          for (auto [before, after] : {std::pair<int64_t, int64_t>{3, 5}, {2, 0}, {0, 0}}) {
            int64_t reach = std::abs(stride) * (count - 1), size = reach + 2 * spread + 1 - before - after, start = (stride < 0 ? reach : 0) - before;
            if (size > 0)
              (*cases)["dl.window"].push_back(window({n, c(size)}, {n, c(3), c(count)}, [=](Dims d) { return Sizes{d[0], d[2] * stride + d[1] * spread + start}; }, {1, 1}, 1.5));
          }
    // Rows outside, columns outside, and both.
    for (auto [stride, padding, last] : {std::tuple<int64_t, int64_t, int64_t>{2, 1, 19}, {2, 0, 18}, {3, 1, 33}, {2, 1, 70}, {1, 1, 7}}) {
      int64_t size = stride * (last - 1) + 3 - 2 * padding;
      auto places = [=](Dims d) { return Sizes{d[0], d[3] * 2 + d[1] - 1, d[4] * stride + d[2] - padding}; };
      (*cases)["dl.window"].push_back(window({n, c(5), c(size)}, {n, c(3), c(3), c(3), c(last)}, places, {1, 1, 1}, 0));
      pools.push_back(pooled({c(1), c(5), c(size)}, {c(1), c(3), c(3), c(3), c(last)}, places, {1, 2}));
    }
    auto &convolutions = (*cases)["dl.convolution"];
    for (dl::ConvolutionResult kind : {dl::ConvolutionResult::output, dl::ConvolutionResult::input, dl::ConvolutionResult::weight})
      for (const Convolution &each : std::vector<Convolution>{
               {{n, c(2), c(7), c(6)}, {c(3), c(2), c(3), c(2)}, {n, c(3), c(5), c(5)}, {1, 1}, {0, 0}, {1, 1}},
               {{n, c(1), c(9), c(20)}, {c(6), c(1), c(5), c(5)}, {n, c(6), c(9), c(20)}, {1, 1}, {2, 2}, {1, 1}}, // LeNet's first
               {{c(2), c(3), c(8), c(9)}, {c(4), c(3), c(3), c(3)}, {c(2), c(4), c(4), c(5)}, {2, 2}, {1, 1}, {1, 1}},
               {{c(1), c(2), c(7), c(9)}, {c(4), c(2), c(3), c(2)}, {c(1), c(4), c(3), c(7)}, {1, 1}, {0, 0}, {2, 2}},
               {{n, c(4), c(5), c(5)}, {c(6), c(2), c(3), c(3)}, {n, c(6), c(5), c(5)}, {1, 1}, {1, 1}, {1, 1}, 2},
               {{n, c(3), c(6), c(5)}, {c(3), c(1), c(3), c(3)}, {n, c(3), c(3), c(3)}, {2, 2}, {1, 1}, {1, 1}, 3}, // each channel for itself
               {{n, c(5), c(4), c(18)}, {c(7), c(5), c(1), c(1)}, {n, c(7), c(4), c(18)}, {1, 1}, {0, 0}, {1, 1}},
               {{n, c(5), c(5), c(6)}, {c(2), c(5), c(1), c(1)}, {n, c(2), c(3), c(3)}, {2, 2}, {0, 0}, {1, 1}},
               {{n, c(2), c(4), c(3)}, {c(3), c(2), c(4), c(3)}, {n, c(3), c(1), c(1)}, {1, 1}, {0, 0}, {1, 1}}, // as large as the input
               {{n, c(2), c(3), c(4)}, {c(2), c(2), c(2), c(3)}, {n, c(2), c(8), c(6)}, {1, 1}, {3, 2}, {1, 1}}, // more padding than half
               {{c(2), c(2), c(7), c(5)}, {c(3), c(2), c(2), c(4)}, {c(2), c(3), c(2), c(5)}, {3, 1}, {0, 2}, {2, 1}},
               {{n, c(3), c(17)}, {c(4), c(3), c(5)}, {n, c(4), c(17)}, {1}, {2}, {1}},
               {{n, c(2), c(3), c(4), c(5)}, {c(2), c(2), c(2), c(2), c(2)}, {n, c(2), c(2), c(3), c(3)}, {1, 1, 2}, {0, 0, 1}, {1, 1, 1}},
               {{n, c(2), m + 3, c(4)}, {c(2), c(2), c(3), c(3)}, {n, c(2), m + 1, c(4)}, {1, 1}, {0, 1}, {1, 1}},
               {{n, c(20), c(9), c(9)}, {c(33), c(20), c(3), c(3)}, {n, c(33), c(7), c(7)}, {1, 1}, {0, 0}, {1, 1}},
               {{n, c(5), c(2), c(2)}, {c(40), c(5), c(3), c(3)}, {n, c(40), c(2), c(2)}, {1, 1}, {1, 1}, {1, 1}},   // rows shorter than a vector
               {{n, c(9), c(6), c(6)}, {c(19), c(9), c(3), c(3)}, {n, c(19), c(3), c(3)}, {2, 2}, {1, 1}, {1, 1}},   // a network's step down
               {{n, c(17), c(4), c(5)}, {c(18), c(17), c(1), c(1)}, {n, c(18), c(2), c(3)}, {2, 2}, {0, 0}, {1, 1}}, // and its projection
               {{c(2), c(2), c(11), c(12)}, {c(3), c(2), c(3), c(2)}, {c(2), c(3), c(3), c(5)}, {3, 2}, {1, 0}, {2, 3}}, // places that some remainders reach
               {{c(1), c(2), c(5), c(4)}, {c(4), c(2), c(2), c(2)}, {c(1), c(4), c(2), c(1)}, {3, 3}, {0, 0}, {1, 1}}, // and elements that none does
               {{c(2), c(6), c(7)}, {c(12), c(3), c(3)}, {c(2), c(12), c(4)}, {2}, {1}, {1}, 2},
               {{c(1), c(1), c(1100)}, {c(2), c(1), c(3)}, {c(1), c(2), c(1100)}, {1}, {1}, {1}},  // rows longer than a tile
               {{c(1), c(1), c(270)}, {c(40), c(1), c(3)}, {c(1), c(40), c(270)}, {1}, {1}, {1}},
               {{n, c(1), c(24), c(23)}, {c(5), c(1), c(2), c(2)}, {n, c(5), c(23), c(22)}, {1, 1}, {0, 0}, {1, 1}}, // more positions than a block has
               // Products of matrices: columns of several images, with strides, along one and three axes.
               {{n, c(20), c(3), c(7)}, {c(18), c(20), c(1), c(1)}, {n, c(18), c(3), c(7)}, {1, 1}, {0, 0}, {1, 1}},
               {{n, c(3), c(9), c(21)}, {c(7), c(3), c(1), c(1)}, {n, c(7), c(3), c(11)}, {3, 2}, {0, 0}, {1, 1}},
               {{n, c(4), c(40)}, {c(5), c(4), c(1)}, {n, c(5), c(20)}, {2}, {0}, {1}},
               {{c(2), c(120), c(7), c(7)}, {c(110), c(120), c(1), c(1)}, {c(2), c(110), c(7), c(7)}, {1, 1}, {0, 0}, {1, 1}},
               {{n, c(2), c(4), c(5), c(6)}, {c(3), c(2), c(1), c(1), c(1)}, {n, c(3), c(2), c(3), c(3)}, {2, 2, 2}, {0, 0, 0}, {1, 1, 1}},
               // Filtered in tiles: of two; of four in f32, in ragged ones and groups; with more padding than the kernel has room for.
               {{n, c(56), c(2), c(2)}, {c(56), c(56), c(3), c(3)}, {n, c(56), c(2), c(2)}, {1, 1}, {1, 1}, {1, 1}, 1, {{1, 1}, {2, 1}}},
               {{n, c(40), c(4), c(7)}, {c(36), c(20), c(3), c(3)}, {n, c(36), c(4), c(7)}, {1, 1}, {1, 1}, {1, 1}, 2, {{1, 1}, {2, 1}}},
               {{n, c(16), c(4), c(4)}, {c(16), c(16), c(3), c(3)}, {n, c(16), c(8), c(8)}, {1, 1}, {3, 3}, {1, 1}, 1, {{1, 1}, {2, 1}}}})
        convolutions.push_back(convolution(kind, each));
    auto concat = [](std::vector<Sizes> inputs, int64_t axis, Type element) -> MakeCase {
      return [=](FloatType type) {
        std::vector<Argument> arguments;
        for (const Sizes &sizes : inputs)
          arguments.push_back({dl::tensorType(sizes, element ? element : Type(type)), element ? whole(0, 1) : between(-2, 2)});
        Case made = one("along " + std::to_string(axis), arguments, [=](OpBuilder &b, ValueRange x) { return dl::ConcatOp::create(b, loc(), x, axis); });
        if (element)
          made.wrt = std::vector<unsigned>();
        return made;
      };
    };
    (*cases)["dl.concat"] = {concat({{n, c(3)}, {n, c(20)}, {n, c(1)}}, 1, same),
                             concat({{n, c(3)}, {c(2), c(3)}, {n * 2, c(3)}}, 0, same),
                             concat({{c(17)}}, 0, same),
                             concat({{c(2), n, c(3)}, {c(2), m, c(3)}}, 1, same),
                             concat({{n}, {n}}, 0, i32()),
                             concat({{n, c(1)}, {n, c(2)}}, 1, i1())};
    // Parts as long as vectors of some length, and shorter than those of another.
    for (int64_t width : {2, 4, 8, 16, 32, 64})
      for (MakeCase each : {concat({{n, c(width)}, {n, c(width)}}, 1, same), concat({{n, c(width)}, {n, c(3 * width)}, {n, c(2 * width)}}, 1, same), concat({{n, c(width)}, {n, c(width)}}, 1, i1()),
                            concat({{n, c(width)}, {n, c(width)}}, 1, i32())})
        (*cases)["dl.concat"].push_back(each);

    auto &gathers = (*cases)["dl.gather"];
    auto &scatters = (*cases)["dl.scatter"], &sums = (*cases)["dl.scatter_add"];
    auto places = [&](Sizes from, Sizes at, std::vector<int64_t> axes, int64_t position, Type index) {
      gathers.push_back(gather(from, at, axes, position, index));
      scatters.push_back(scatter<dl::ScatterOp>(from, at, axes, position, index));
      for (bool intoZeros : {false, true})
        sums.push_back(scatter<dl::ScatterAddOp>(from, at, axes, position, index, intoZeros));
    };
    places({c(7), c(33)}, {n}, {0}, 0, i32());            // rows
    places({c(5), c(130)}, {n, m}, {0}, 0, i64());        // rows, at a matrix of indices
    places({c(9)}, {n}, {0}, 0, i32());                   // numbers
    places({c(300)}, {c(40)}, {0}, 0, i64());
    places({n, c(6)}, {m}, {1}, 1, i32());                // columns
    places({n, c(6)}, {}, {1}, 1, i32());                 // one column
    places({n, c(6), c(17)}, {}, {1}, 1, i64());          // one slice
    places({c(6), c(40)}, {}, {0}, 0, i32());             // one row
    places({c(4), c(5), c(19)}, {n}, {0, 1}, 0, i32());   // two that stand together
    places({c(4), c(5), c(19)}, {n}, {0, 2}, 0, i32());   // two that don't
    places({c(3), c(4), c(5), c(6)}, {n}, {1, 2}, 1, i64());
    places({c(3), c(4), c(18)}, {n}, {1}, 2, i32());      // the indices' axes last, which no program of the language asks for
    places({n, c(5)}, {m}, {0}, 0, i32());                // a size of the call is indexed
    places({c(2), c(3)}, {c(2), c(2)}, {0, 1}, 0, i32()); // nothing is left
    for (auto [element, domain] : {std::pair<Type, Domain>{i1(), whole(0, 1)}, {i8, whole(-100, 100)}, {u8, whole(0, 255)}, {i32(), whole(-9, 9)}, {i64(), whole(-9, 9)}}) {
      gathers.push_back(of(element, domain, gather({c(7), c(33)}, {n}, {0}, 0, i32())));
      scatters.push_back(of(element, domain, scatter<dl::ScatterOp>({c(7), c(33)}, {n}, {0}, 0, i32())));
      if (element != i1() && element != u8)
        sums.push_back(of(element, domain, scatter<dl::ScatterAddOp>({c(7), c(33)}, {n}, {0}, 0, i32())));
    }

    (*cases)["dl.sum"] = reductions<dl::SumOp>();
    append<dl::SumOp>((*cases)["dl.sum"], i32(), whole(-100, 100));
    append<dl::SumOp>((*cases)["dl.sum"], i64(), whole(-100, 100));
    append<dl::SumOp>((*cases)["dl.sum"], i8, whole(-100, 100)); // wraps
    Domain ties = oneOf({-1, 0, 0.5, 0.5, 1, 1});
    for (auto [name, make, reduceTies, reduceInts, reduceSpecials] :
         {std::tuple("dl.max", &reductions<dl::MaxOp>, &append<dl::MaxOp>, &append<dl::MaxOp>, &append<dl::MaxOp>),
          std::tuple("dl.min", &reductions<dl::MinOp>, &append<dl::MinOp>, &append<dl::MinOp>, &append<dl::MinOp>),
          std::tuple("dl.argmax", &reductions<dl::ArgmaxOp>, &append<dl::ArgmaxOp>, &append<dl::ArgmaxOp>, &append<dl::ArgmaxOp>),
          std::tuple("dl.argmin", &reductions<dl::ArgminOp>, &append<dl::ArgminOp>, &append<dl::ArgminOp>, &append<dl::ArgminOp>)}) {
      auto &list = (*cases)[name];
      list = make({}, apart());
      for (Type element : {f32, f64})
        reduceTies(list, element, ties);
      for (Type element : {i8, i32(), i64()})
        reduceInts(list, element, whole(-4, 4));
      for (Type element : {f32, f64}) {
        reduceSpecials(list, element, oneOf({-kInf, kInf, 1, 2, -1, -0.0, 0}));
        reduceSpecials(list, element, oneOf({-kInf, -kInf, -1, -2, -1, kNaN}));
        reduceSpecials(list, element, oneOf({-kInf}));
        reduceSpecials(list, element, oneOf({kInf}));
      }
    }
    llvm::append_range((*cases)["dl.max"], pools);
    (*cases)["dl.any"] = reductions<dl::AnyOp>(i1(), oneOf({0, 0, 0, 0, 0, 0, 0, 1}));
    (*cases)["dl.all"] = reductions<dl::AllOp>(i1(), oneOf({1, 1, 1, 1, 1, 1, 1, 0}));

    auto &matmul = (*cases)["dl.matmul"];
    for (bool l : {false, true})
      for (bool r : {false, true}) {
        matmul.push_back(product({}, c(1), c(1), c(1), l, r));
        matmul.push_back(product({}, c(3), c(5), c(17), l, r));
        matmul.push_back(product({}, c(17), c(130), c(33), l, r));
        matmul.push_back(product({}, c(20), c(131), c(99), l, r));
        matmul.push_back(product({}, n, c(19), c(7), l, r));
        matmul.push_back(product({}, c(6), n, c(7), l, r));
        matmul.push_back(product({}, c(6), c(19), n, l, r));
        matmul.push_back(product({}, n, m, n * 2, l, r));
        matmul.push_back(product({c(3)}, c(5), c(18), c(4), l, r));
        matmul.push_back(product({n, c(2)}, c(5), m, c(4), l, r));
      }
    (*cases)["dl.attention"] = attentions(attention);
    (*cases)["dl.attention_gradient"] = attentions(attentionGradient);
    (*cases)["dl.softmax"] = softmaxLike<dl::SoftmaxOp>();
    (*cases)["dl.log_softmax"] = softmaxLike<dl::LogSoftmaxOp>();
    (*cases)["dl.logsumexp"] = softmaxLike<dl::LogsumexpOp>();
    (*cases)["dl.cross_entropy"] = {crossEntropy({n, c(10)}, i32(), {0, 1, 5, 9, -100}), crossEntropy({c(3), c(65)}, i64(), {0, 31, 64}), crossEntropy({c(7)}, i32(), {3}),
                                    crossEntropy({n, c(3), c(17)}, i64(), {0, 16, -100}), crossEntropy({n, c(5)}, u8, {0, 4})};
    return cases;
  }();
  return *table;
}

/// Ops without a number of their own.
const std::map<std::string, std::string> &excludedOps() {
  static const std::map<std::string, std::string> table = {
      {"dl.model", "holds a program; every test here is one"},
      {"dl.func", "holds a function; every test here has some"},
      {"dl.return", "ends every function here"},
      {"dl.variable", "memory of a program: ProgramsTest.cpp reads and assigns some"},
      {"dl.read", "ProgramsTest.cpp, against the interpreter"},
      {"dl.assign", "ProgramsTest.cpp, against the interpreter"},
      {"dl.gradient", "every gradient here is taken by it"},
      {"dl.custom_gradient", "has a value that another op computed; its gradient: test/driver/with-gradient.test"},
      {"dl.extern", "what it computes is the program's own: test/driver/extern.test, and dlrun-cuda on the stand-in for a GPU"},
      {"dl.extern_function", "names a file of the program"},
      {"dl.check_index", "has no value: ChecksTest below"},
      {"dl.check_size", "has no value: ChecksTest below"},
      {"dl.fused", "made by --dl-fuse, out of every op here"},
      {"dl.yield", "ends dl.fused, and bodies of loops and branches"},
      {"dl.for", "holds ops: ControlTest below, and ProgramsTest.cpp"},
      {"dl.if", "holds ops: ControlTest below, and ProgramsTest.cpp"},
      {"dl.empty", "has no particular numbers: loops write them, in ControlTest below"},
  };
  return table;
}

//===--- elementwise ops ---===//

/// What an elementwise op of numbers is tried on, where not all of [-2, 2] is in its domain or its derivative jumps in it.
struct ElementDomain {
  std::vector<Domain> domains;
  std::function<bool(ArrayRef<double>)> accept;
  /// Special operands that the function is not said to be right for.
  std::function<bool(ArrayRef<double>)> excluded;
};
const std::map<std::string, ElementDomain> &elementDomains() {
  auto apart = [](ArrayRef<double> x) { return std::fabs(x[0] - x[1]) > 0.05; };
  auto notWhole = [](double x) { return std::fabs(2 * x - std::nearbyint(2 * x)) > 0.05; };
  auto quotientNotWhole = [=](ArrayRef<double> x) { return notWhole(x[0] / x[1]); };
  // docs/math.md: the reduction of sin's and cos's argument in f64 goes to 2^45
  auto huge = [](ArrayRef<double> x) { return std::fabs(x[0]) > 0x1p45; };
  static const std::map<std::string, ElementDomain> table = {
      {"dl.log", {{between(0.1, 3)}, nullptr, nullptr}},
      {"dl.sqrt", {{between(0.1, 3)}, nullptr, nullptr}},
      {"dl.rsqrt", {{between(0.1, 3)}, nullptr, nullptr}},
      {"dl.pow", {{between(0.2, 2), between(-2, 2)}, nullptr, nullptr}},
      {"dl.div", {{between(-2, 2), awayFromZero(0.5, 2)}, nullptr, nullptr}},
      {"dl.div_no_nan", {{awayFromZero(0.1, 2), awayFromZero(0.5, 2)}, nullptr, nullptr}},
      {"dl.mul_no_nan", {{between(-2, 2), awayFromZero(0.1, 2)}, nullptr, nullptr}},
      {"dl.rem", {{between(-4, 4), awayFromZero(0.5, 2)}, quotientNotWhole, nullptr}},
      // the floor of a quotient that is rounded to 0
      {"dl.floor_divide", {{between(-4, 4), awayFromZero(0.5, 2)}, quotientNotWhole, [](ArrayRef<double> x) { return x[0] != 0 && std::fabs(x[0] / x[1]) < 0x1p-126; }}},
      {"dl.maximum", {{between(-2, 2), between(-2, 2)}, apart, nullptr}},
      {"dl.minimum", {{between(-2, 2), between(-2, 2)}, apart, nullptr}},
      {"dl.abs", {{awayFromZero(0.05, 2)}, nullptr, nullptr}},
      {"dl.sign", {{awayFromZero(0.05, 2)}, nullptr, nullptr}},
      {"dl.relu", {{awayFromZero(0.05, 2)}, nullptr, nullptr}},
      {"dl.round", {{between(-3, 3)}, [=](ArrayRef<double> x) { return notWhole(x[0]); }, nullptr}},
      {"dl.floor", {{between(-3, 3)}, [=](ArrayRef<double> x) { return notWhole(x[0]); }, nullptr}},
      {"dl.sin", {{between(-2, 2)}, nullptr, huge}},
      {"dl.cos", {{between(-2, 2)}, nullptr, huge}},
  };
  return table;
}

bool isElementwise(StringRef name) { return OperationName(name, context()).hasInterface<dl::ElementwiseOpInterface>(); }

/// The op on operands of one type, with a result of that type. Its attributes are none: ops with some have cases of their own.
Value createElementwise(OpBuilder &b, StringRef name, ValueRange operands) {
  OperationState state(loc(), name, operands, operands[0].getType());
  return b.create(state)->getResult(0);
}

/// Takes `body` a scratch op on tensors of `element`; false where the op does not verify.
bool withScratchOp(StringRef name, unsigned arity, Type element, llvm::function_ref<void(OpBuilder &, Operation *)> body) {
  Block block;
  for (unsigned i = 0; i < arity; ++i)
    block.addArgument(RankedTensorType::get(4, element), loc());
  OpBuilder b(context());
  b.setInsertionPointToEnd(&block);
  Operation *op = createElementwise(b, name, block.getArguments()).getDefiningOp();
  bool verifies = succeeded(verify(op));
  takeDiagnostics();
  if (verifies)
    body(b, op);
  while (!block.empty())
    block.back().erase();
  return verifies;
}

//===--- running cases ---===//

/// The bits of an array, but one NaN for all: targets need not agree on which.
std::vector<char> bitsOf(Array array) {
  for (double &value : array.values)
    if (std::isnan(value))
      value = kNaN;
  return toBytes(array);
}

/// Runs a program on some targets.
void forEachTarget(ArrayRef<TestTarget> targets, ModuleOp module, llvm::function_ref<void(Compiled &, const TestTarget &)> run) {
  for (const TestTarget &target : targets) {
    SCOPED_TRACE(target.name);
    std::string error;
    std::unique_ptr<Compiled> compiled = Compiled::make(module, target, error);
    ASSERT_TRUE(compiled) << error;
    run(*compiled, target);
  }
}
/// The processors and one GPU: programs without products are the same on the other.
std::vector<TestTarget> differentTargets() {
  std::vector<TestTarget> targets = processorsUnderTest();
  llvm::append_range(targets, ArrayRef(gpusUnderTest()).take_front());
  return targets;
}

/// A case for one floating-point type, in a model.
struct Entry {
  Case what;
  std::string value, gradient, ofVariable; // functions; empty where there is none
  std::vector<unsigned> wrt, weighted;
  bool isDynamic = false; // some size depends on the dynamic dimensions
};

class Suite {
public:
  Suite() : builder({"N", "M"}) {}
  /// In f64 and f32; cases without a floating-point type are the same in both and are added once.
  void add(const MakeCase &make) {
    Entry wide = addEntry(make(Float64Type::get(context())));
    bool hasFloat = wide.what.isFloat;
    for (auto [a, b] : llvm::zip(wide.what.arguments, make(Float32Type::get(context())).arguments))
      hasFloat |= a.type != b.type;
    pairs.push_back({wide, hasFloat ? std::optional(addEntry(make(Float32Type::get(context())))) : std::nullopt});
    cases.push_back(make);
  }
  /// Compiles for every target, runs the cases, and then `more`.
  void run(llvm::function_ref<void(Compiled &)> more = [](Compiled &) {});
  ModelBuilder builder;

private:
  /// A case in both types.
  struct Pair {
    Entry wide;
    std::optional<Entry> narrow;
  };
  /// What a central difference says of one element of one gradient.
  struct Derivative {
    unsigned gradient;
    size_t at;
    double value;
  };
  /// A pair called with some sizes; the same on every target.
  struct Call {
    const Pair *pair;
    std::string where;
    std::vector<Array> arguments, expected, weights;
    std::vector<Derivative> derivatives;
    /// What the first target made of it, for each result of a function.
    std::vector<std::pair<std::string, std::vector<char>>> bits;
    std::string bitsOf;
  };

  Entry addEntry(Case what);
  Call makeCall(const Pair &pair, ArrayRef<int64_t> dims);
  std::vector<Derivative> centralDifferences(const Entry &entry, ArrayRef<int64_t> dims, std::vector<Array> arguments, ArrayRef<Array> weights);
  void runCall(Compiled &compiled, Call &call, const TestTarget &target);
  void runOn(ArrayRef<TestTarget> targets, llvm::function_ref<void(Compiled &)> more);

  std::vector<MakeCase> cases;
  bool hasProducts = false; // for a GPU's library, seen when the cases were compiled
  std::vector<Pair> pairs;
  unsigned count = 0;
  Random random{20240607};
  OwningOpRef<ModuleOp> differentiated;
};

/// Does an argument have a dimension that is just symbol k?
bool binds(ArrayRef<Argument> arguments, unsigned k) {
  return llvm::any_of(arguments, [&](const Argument &argument) { return llvm::is_contained(dl::sizesOf(argument.type), getAffineSymbolExpr(k, context())); });
}

Entry Suite::addEntry(Case what) {
  Entry entry;
  std::string number = std::to_string(count++);
  size_t declared = what.arguments.size();
  // A dynamic dimension gets its value from an argument: one that nobody reads, if need be.
  if (!binds(what.arguments, 0) || !binds(what.arguments, 1)) {
    what.arguments.push_back({dl::tensorType({N(), M()}, i1()), whole(0, 1)});
    what.build = [build = what.build](OpBuilder &b, ValueRange x) { return build(b, x.drop_back()); };
  }
  SmallVector<Type> types;
  for (const Argument &argument : what.arguments)
    types.push_back(argument.type);
  dl::FuncOp value = builder.addFunction("value_" + number, types, what.build);
  entry.value = value.getSymName().str();
  value.walk([&](Operation *op) {
    for (Type type : op->getResultTypes())
      entry.isDynamic |= !cast<RankedTensorType>(type).hasStaticShape() || isa<dl::SizeOp>(op);
  });
  for (const Argument &argument : ArrayRef(what.arguments).drop_back(types.size() - declared))
    entry.isDynamic |= !argument.type.hasStaticShape();
  if (what.variable) {
    const std::string variable = "variable_" + number;
    builder.addVariable(variable, types[*what.variable]);
    entry.ofVariable = builder.addFunction("of_" + variable, types, [&](OpBuilder &b, ValueRange x) {
      SmallVector<Value> operands(x);
      operands[*what.variable] = dl::ReadOp::create(b, loc(), types[*what.variable], FlatSymbolRefAttr::get(context(), variable));
      return what.build(b, operands);
    }).getSymName().str();
  }
  if (what.wrt)
    entry.wrt = *what.wrt;
  else
    for (unsigned i = 0; i < types.size(); ++i)
      if (isa<FloatType>(getElementTypeOrSelf(types[i])))
        entry.wrt.push_back(i);
  for (auto [i, type] : llvm::enumerate(value.getResultTypes()))
    if (isa<FloatType>(getElementTypeOrSelf(type)))
      entry.weighted.push_back(i);
  if (!entry.wrt.empty() && !entry.weighted.empty()) {
    unsigned operands = types.size();
    for (unsigned i : entry.weighted)
      types.push_back(value.getResultTypes()[i]);
    dl::FuncOp gradient = builder.addFunction("gradient_" + number, types, [&](OpBuilder &b, ValueRange x) {
      SmallVector<Value> results = what.build(b, x.take_front(operands));
      Value total;
      for (auto [k, i] : llvm::enumerate(entry.weighted)) {
        Value product = dl::MulOp::create(b, loc(), results[i], x[operands + k]);
        int64_t rank = cast<RankedTensorType>(product.getType()).getRank();
        Value sum = dl::SumOp::create(b, loc(), product, llvm::to_vector(llvm::seq<int64_t>(0, rank)));
        total = total ? dl::AddOp::create(b, loc(), total, sum).getResult() : sum;
      }
      SmallVector<Value> wrt;
      for (unsigned i : entry.wrt)
        wrt.push_back(x[i]);
      auto taken = dl::GradientOp::create(b, loc(), total, wrt);
      return SmallVector<Value>(taken.getResults());
    });
    entry.gradient = gradient.getSymName().str();
  }
  entry.what = std::move(what);
  return entry;
}

/// Operands that f32 can hold, so that both types compute with the same numbers.
std::vector<Array> drawArguments(const Case &what, ArrayRef<int64_t> dims, Random &random) {
  std::vector<Array> arguments;
  for (const Argument &argument : what.arguments) {
    Array array;
    array.element = argument.type.getElementType();
    array.dims = evaluateShape(argument.type, dims);
    array.values.resize(array.count());
    arguments.push_back(std::move(array));
  }
  Type f32 = Float32Type::get(context());
  auto drawOne = [&](unsigned i) {
    double value = what.arguments[i].domain(random);
    return isa<FloatType>(arguments[i].element) ? roundTo(value, f32) : value;
  };
  if (what.accept) {
    for (size_t at = 0; at < arguments[0].values.size(); ++at)
      for (bool accepted = false; !accepted;) {
        std::vector<double> x;
        for (unsigned i = 0; i < arguments.size() && arguments[i].element == arguments[0].element; ++i)
          x.push_back(arguments[i].values[at] = drawOne(i));
        accepted = what.accept(x);
      }
    return arguments;
  }
  for (unsigned i = 0; i < arguments.size(); ++i)
    for (double &value : arguments[i].values)
      value = drawOne(i);
  return arguments;
}

std::vector<Array> withElement(std::vector<Array> arrays, const Entry &entry) {
  for (auto [array, argument] : llvm::zip(arrays, entry.what.arguments))
    array.element = argument.type.getElementType();
  return arrays;
}

std::vector<Suite::Derivative> Suite::centralDifferences(const Entry &entry, ArrayRef<int64_t> dims, std::vector<Array> arguments, ArrayRef<Array> weights) {
  Reference reference(builder.getFunction(entry.value), dims.vec());
  auto loss = [&] {
    std::vector<Array> results = reference.run(arguments);
    double sum = 0;
    for (auto [k, i] : llvm::enumerate(entry.weighted))
      for (size_t at = 0; at < results[i].values.size(); ++at)
        sum += results[i].values[at] * weights[k].values[at];
    return sum;
  };
  std::vector<Derivative> derivatives;
  for (auto [k, i] : llvm::enumerate(entry.wrt)) {
    size_t count = arguments[i].values.size();
    // A few elements of large operands, and always the first and the last.
    size_t asked = std::min<size_t>(count, count > 400 ? 6 : 12);
    for (size_t n = 0; n < asked; ++n) {
      size_t at = n == 0 ? 0 : n == 1 ? count - 1 : asked == count ? n - 1 : random() % count;
      double &x = arguments[i].values[at], kept = x, h = 1e-3;
      auto lossAt = [&](double offset) {
        x = kept + offset;
        return loss();
      };
      double derivative = (8 * (lossAt(h) - lossAt(-h)) - (lossAt(2 * h) - lossAt(-2 * h))) / (12 * h);
      x = kept;
      derivatives.push_back({static_cast<unsigned>(k), at, derivative});
    }
  }
  return derivatives;
}

/// Is every number that a function returns computed from the same ones by the same operations, whatever the order of elements? Then every target makes the same bits of it. Processors
/// besides sum up products in one order.
bool isElementByElement(dl::FuncOp function, bool isOnProcessor) {
  SmallVector<Value> work(function.getBody().front().getTerminator()->getOperands());
  DenseSet<Operation *> seen;
  while (!work.empty()) {
    Operation *op = work.pop_back_val().getDefiningOp();
    if (!op || !seen.insert(op).second)
      continue;
    // The sums of a small weight's gradient, and of a product with a vector, are those of any other sum.
    auto convolution = dyn_cast<dl::ConvolutionOp>(op);
    auto matmul = dyn_cast<dl::MatmulOp>(op);
    const bool isChain = convolution ? convolution.getKind() != dl::ConvolutionResult::weight : matmul && llvm::none_of(matmul.getType().getShape().take_back(2), [](int64_t n) { return n == 1 || ShapedType::isDynamic(n); });
    if (!isa<dl::ElementwiseOpInterface, dl::IndexingOpInterface, dl::GeneratorOpInterface>(op) && !(isOnProcessor && isChain))
      return false;
    llvm::append_range(work, op->getOperands());
  }
  return true;
}

Suite::Call Suite::makeCall(const Pair &pair, ArrayRef<int64_t> dims) {
  const Entry &wide = pair.wide;
  Call call{};
  call.pair = &pair;
  call.where = wide.what.name + " with N = " + std::to_string(dims[0]) + ", M = " + std::to_string(dims[1]);
  call.arguments = drawArguments(wide.what, dims, random);
  call.expected = Reference(builder.getFunction(wide.value), dims.vec()).run(call.arguments);
  if (!wide.gradient.empty()) {
    for (unsigned i : wide.weighted) {
      call.weights.push_back(call.expected[i]);
      for (double &value : call.weights.back().values)
        value = roundTo(between(-1, 1)(random), Float32Type::get(context()));
    }
    call.derivatives = centralDifferences(wide, dims, call.arguments, call.weights);
  }
  return call;
}

void Suite::runCall(Compiled &compiled, Call &call, const TestTarget &target) {
  const Entry &wide = call.pair->wide;
  const std::string &where = call.where;
  std::string error;
  std::vector<std::pair<std::string, std::vector<char>>> bits;
  auto run = [&](StringRef function, ArrayRef<Array> arguments) {
    std::vector<Array> results = compiled.call(function, arguments, error);
    for (const Array &result : results)
      bits.emplace_back(function, bitsOf(result));
    return results;
  };
  // With an argument in a variable, which had other values in the call before.
  auto runOfVariable = [&](const Entry &entry, const std::vector<Array> &arguments, ArrayRef<Array> expected) {
    if (entry.ofVariable.empty())
      return;
    const std::string variable = entry.ofVariable.substr(3);
    Array value = arguments[*entry.what.variable], other = value;
    for (double &each : other.values)
      each = 1;
    compiled.write(variable, other);
    compiled.call(entry.ofVariable, arguments, error);
    ASSERT_EQ(error, "") << where;
    compiled.write(variable, value);
    for (int repeated = 0; repeated < 2; ++repeated) {
      std::vector<Array> results = compiled.call(entry.ofVariable, arguments, error);
      ASSERT_EQ(error, "") << where;
      for (auto [i, a, e] : llvm::zip(llvm::seq<unsigned>(expected.size()), results, expected))
        EXPECT_TRUE(bitsOf(a) == bitsOf(e)) << where << ", " << entry.ofVariable << ", result " << i;
    }
  };
  std::vector<Array> actual = run(wide.value, call.arguments);
  ASSERT_EQ(error, "") << where;
  runOfVariable(wide, call.arguments, actual);
  double scale = 1;
  for (const Array &array : call.expected)
    for (double value : array.values)
      if (std::isfinite(value))
        scale = std::max(scale, std::fabs(value));
  for (auto [i, a, e] : llvm::zip(llvm::seq<unsigned>(call.expected.size()), actual, call.expected))
    EXPECT_EQ(difference(a, e, wide.what.arguments.empty() || !e.element.isF32() ? 1e-12 : wide.what.tolerance32, scale), "") << where << ", " << wide.value << ", result " << i;

  std::vector<Array> gradients;
  if (!wide.gradient.empty()) {
    std::vector<Array> all = call.arguments;
    llvm::append_range(all, call.weights);
    gradients = run(wide.gradient, all);
    ASSERT_EQ(error, "") << where << ", gradient";
    for (const Derivative &derivative : call.derivatives) {
      double value = gradients[derivative.gradient].values[derivative.at];
      if (std::fabs(value - derivative.value) <= 2e-7 * std::max(1.0, std::fabs(derivative.value)))
        continue;
      ADD_FAILURE() << where << " (" << wide.gradient << ", f64): the gradient in operand " << wide.wrt[derivative.gradient] << " at element " << derivative.at << " of "
                    << gradients[derivative.gradient].values.size() << " is " << value << ", a central difference gives " << derivative.value;
      break;
    }
  }

  // f32 against f64.
  if (const std::optional<Entry> &narrow = call.pair->narrow) {
    actual = run(narrow->value, withElement(call.arguments, *narrow));
    ASSERT_EQ(error, "") << where << " in f32";
    runOfVariable(*narrow, withElement(call.arguments, *narrow), actual);
    auto compareNarrow = [&](std::vector<Array> &actual, std::vector<Array> expected, double tolerance, StringRef what) {
      double scale = 1;
      for (Array &array : expected)
        for (double &value : array.values)
          if (std::isfinite(value))
            scale = std::max(scale, std::fabs(value));
      for (auto [i, a, e] : llvm::zip(llvm::seq<unsigned>(expected.size()), actual, expected)) {
        e.element = a.element;
        if (a.element.isF32())
          for (double &value : e.values)
            value = roundTo(value, a.element);
        EXPECT_EQ(difference(a, e, tolerance, scale), "") << where << ", " << what.str() << " " << i << " in f32 against f64";
      }
    };
    compareNarrow(actual, call.expected, narrow->what.tolerance32, narrow->value + ", result");
    if (!narrow->gradient.empty()) {
      std::vector<Array> all = withElement(call.arguments, *narrow);
      for (Array weight : call.weights) {
        weight.element = Float32Type::get(context());
        all.push_back(std::move(weight));
      }
      std::vector<Array> narrowGradients = run(narrow->gradient, all);
      ASSERT_EQ(error, "") << where << ", gradient in f32";
      compareNarrow(narrowGradients, gradients, 10 * narrow->what.tolerance32, narrow->gradient + ", gradient");
    }
  }

  if (call.bitsOf.empty()) {
    call.bits = bits;
    call.bitsOf = target.name;
    return;
  }
  ASSERT_EQ(bits.size(), call.bits.size()) << where;
  for (auto [own, first] : llvm::zip(bits, call.bits))
    if (isElementByElement(findFunction(*differentiated, own.first), !target.cuda))
      EXPECT_TRUE(own == first) << where << ": not the bits of " << call.bitsOf << " in " << own.first;
}

void Suite::runOn(ArrayRef<TestTarget> targets, llvm::function_ref<void(Compiled &)> more) {
  differentiated = builder.differentiated();
  ASSERT_TRUE(differentiated) << takeDiagnostics();
  std::vector<Call> calls;
  for (const Pair &pair : pairs)
    for (const std::vector<int64_t> &dims : pair.wide.what.dims) {
      calls.push_back(makeCall(pair, dims));
      if (!pair.wide.isDynamic)
        break;
    }
  forEachTarget(targets, builder.getModule(), [&](Compiled &compiled, const TestTarget &target) {
    hasProducts |= compiled.hasProducts();
    for (Call &call : calls)
      runCall(compiled, call, target);
    more(compiled);
  });
}

void Suite::run(llvm::function_ref<void(Compiled &)> more) {
  runOn(differentTargets(), more);
  if (!hasProducts || gpusUnderTest().empty())
    return;
  // Our own products. Each constant size makes another kernel, and the stand-in compiles one for a second: those are in test/unit/GpuGemmTest.cpp.
  auto isConstant = [](AffineExpr size) { return isa<AffineConstantExpr>(size); };
  Suite dynamic;
  for (auto [make, pair] : llvm::zip_equal(cases, pairs))
    if (llvm::none_of(pair.wide.what.arguments, [&](const Argument &argument) { return llvm::any_of(dl::sizesOf(argument.type), isConstant); }))
      dynamic.add(make);
  if (!dynamic.pairs.empty())
    dynamic.runOn(ArrayRef(gpusUnderTest()).drop_front(), [](Compiled &) {});
}

//===--- the tests ---===//

std::vector<std::string> namesOfOps() {
  std::vector<std::string> names;
  for (RegisteredOperationName op : context()->getRegisteredOperationsByDialect(dl::DlDialect::getDialectNamespace()))
    names.push_back(op.getStringRef().str());
  return names;
}
std::vector<std::string> namesOfTestedOps() {
  std::vector<std::string> names;
  for (const std::string &name : namesOfOps())
    if (!excludedOps().count(name))
      names.push_back(name);
  return names;
}

TEST(Ops, EveryOpIsCovered) {
  std::set<std::string> registered;
  for (const std::string &name : namesOfOps()) {
    registered.insert(name);
    if (excludedOps().count(name)) {
      EXPECT_FALSE(casesOfOps().count(name)) << name << " is excluded and has cases";
      continue;
    }
    EXPECT_TRUE(hasFormula(name)) << name << " needs a formula in test/conformance/Reference.cpp";
    EXPECT_TRUE(casesOfOps().count(name) || isElementwise(name)) << name << " needs cases in test/conformance/OpsTest.cpp";
  }
  for (const auto &[name, reason] : excludedOps())
    EXPECT_TRUE(registered.count(name)) << name << " is excluded (" << reason << ") and does not exist";
  for (const auto &[name, cases] : casesOfOps())
    EXPECT_TRUE(registered.count(name)) << name << " has cases and does not exist";
  for (const auto &[name, domain] : elementDomains())
    EXPECT_TRUE(registered.count(name)) << name << " has a domain and does not exist";
}

class OpTest : public testing::TestWithParam<std::string> {};

TEST_P(OpTest, ValueAndGradient) {
  std::string name = GetParam();
  Suite suite;
  if (auto found = casesOfOps().find(name); found != casesOfOps().end()) {
    for (const MakeCase &make : found->second)
      suite.add(make);
    suite.run();
    return;
  }
  ASSERT_TRUE(isElementwise(name)) << name << " has no cases";
  ElementDomain domain;
  if (auto known = elementDomains().find(name); known != elementDomains().end())
    domain = known->second;
  Builder b(context());
  unsigned arity = 0, types = 0;
  for (unsigned operands : {1, 2, 3})
    if (!arity && OperationName(name, context()).isRegistered()) {
      for (Type element : {Type(b.getF64Type()), Type(b.getI1Type())})
        if (withScratchOp(name, operands, element, [](OpBuilder &, Operation *) {}))
          arity = operands;
    }
  ASSERT_TRUE(arity) << name << " takes neither f64 nor bool";

  auto addShapes = [&](Type element, bool isFloat, std::vector<unsigned> wrt) {
    std::vector<Sizes> shapes{{N()}, {c(2), c(65)}};
    if (isFloat)
      shapes.insert(shapes.end(), {{N(), c(17)}, {c(3)}, {}});
    for (const Sizes &sizes : shapes)
      suite.add([=](FloatType type) {
        RankedTensorType tensor = dl::tensorType(sizes, isFloat ? Type(type) : element);
        std::vector<Argument> arguments;
        for (unsigned i = 0; i < arity; ++i) {
          Domain numbers = element.isInteger(1) ? whole(0, 1) : isFloat ? between(-2, 2) : element.isUnsignedInteger() ? whole(0, 255) : whole(-128, 127);
          arguments.push_back({tensor, isFloat && !domain.domains.empty() ? domain.domains[i] : numbers});
        }
        Case made = one(nameOf(sizes), arguments, [=](OpBuilder &b, ValueRange x) { return createElementwise(b, name, x); });
        made.wrt = wrt;
        if (isFloat)
          made.accept = domain.accept;
        made.dims = {{1, 1}, {3, 1}, {17, 1}, {130, 1}, {0, 1}};
        return made;
      });
    ++types;
  };
  for (Type element : {Type(b.getI1Type()), Type(b.getIntegerType(8, false)), Type(b.getI8Type()), Type(b.getI16Type()), Type(b.getI32Type()), Type(b.getI64Type()), Type(b.getF64Type())}) {
    std::vector<unsigned> wrt;
    bool isFloat = isa<FloatType>(element);
    // In which operands does the op say it has a gradient?
    bool verifies = withScratchOp(name, arity, element, [&](OpBuilder &b, Operation *op) {
      SmallVector<Value> gradients;
      if (isFloat && succeeded(cast<dl::DifferentiableOpInterface>(op).buildVjp(b, op->getResults(), gradients)))
        for (auto [i, gradient] : llvm::enumerate(gradients))
          if (gradient)
            wrt.push_back(i);
    });
    if (verifies)
      addShapes(element, isFloat, wrt);
  }
  EXPECT_GT(types, 0u);

  // Special operands, each with each.
  struct Special {
    std::string function;
    Type element;
  };
  std::vector<Special> specials;
  for (Type element : {Type(b.getF32Type()), Type(b.getF64Type())})
    if (withScratchOp(name, arity, element, [](OpBuilder &, Operation *) {})) {
      std::string function = element.isF32() ? "special_f32" : "special_f64";
      suite.builder.addFunction(function, SmallVector<Type>(arity, dl::tensorType({N()}, element)),
                                [&](OpBuilder &b, ValueRange x) { return SmallVector<Value>{createElementwise(b, name, x)}; });
      specials.push_back({function, element});
    }
  suite.run([&](Compiled &compiled) {
    std::string error;
    for (const Special &special : specials) {
      bool isF32 = special.element.isF32();
      std::vector<double> numbers{0.0, -0.0, 1, -1, 0.5, -0.5, 2.5, -2.5, 3, kInf, -kInf, kNaN, isF32 ? 0x1p-149 : 0x1p-1074, isF32 ? 0x1p-126 : 0x1p-1022, 1e-30, 100, -100, 700, -1e30, isF32 ? 0x1.fffffep127 : 0x1.fffffffffffffp1023};
      for (double &value : numbers)
        value = roundTo(value, special.element);
      std::vector<Array> arguments(arity);
      size_t total = 1;
      for (unsigned i = 0; i < arity; ++i)
        total *= numbers.size();
      for (size_t n = 0; n < total; ++n) {
        std::vector<double> x;
        for (size_t i = 0, rest = n; i < arity; ++i, rest /= numbers.size())
          x.push_back(numbers[rest % numbers.size()]);
        if (!domain.excluded || !domain.excluded(x))
          for (unsigned i = 0; i < arity; ++i)
            arguments[i].values.push_back(x[i]);
      }
      for (Array &argument : arguments) {
        argument.element = special.element;
        argument.dims = {static_cast<int64_t>(argument.values.size())};
      }
      std::vector<Array> expected = Reference(suite.builder.getFunction(special.function), {arguments[0].dims[0], 1}).run(arguments);
      std::vector<Array> actual = compiled.call(special.function, arguments, error);
      ASSERT_EQ(error, "");
      double tolerance = isF32 ? 1e-6 : 1e-14, smallest = isF32 ? 0x1p-126 : 0x1p-1022;
      unsigned shown = 0;
      for (size_t i = 0; i < expected[0].values.size(); ++i) {
        double a = actual[0].values[i], e = expected[0].values[i];
        bool same = a == e || (std::isnan(a) && std::isnan(e)) || std::fabs(a - e) <= tolerance * (std::fabs(e) + smallest) ||
                    // sums of a large and a small part lose the small one: gelu and its like near their zeros
                    (std::fabs(a - e) <= tolerance && std::fabs(arguments[0].values[i]) >= 0.5 && arity == 1);
        std::string operands;
        for (const Array &argument : arguments)
          operands += " " + std::to_string(argument.values[i]);
        if (!same && shown++ < 5)
          ADD_FAILURE() << name << " of" << operands << " in " << (isF32 ? "f32" : "f64") << " is " << a << ", expected " << e;
      }
    }
  });
}

std::string testName(const testing::TestParamInfo<std::string> &info) { return StringRef(info.param).drop_front(3).str(); }
INSTANTIATE_TEST_SUITE_P(All, OpTest, testing::ValuesIn(namesOfTestedOps()), testName);

//===--- corners that the language promises ---===//

/// A model of one function @f, given as text.
class Text {
public:
  explicit Text(StringRef body) {
    std::string text = ("dl.model @tested dims [\"N\"] {\n" + body + "\n}").str();
    module = parseSourceString<ModuleOp>(text, context());
    if (!module)
      llvm::report_fatal_error(llvm::StringRef("the test's program is wrong:\n" + takeDiagnostics()));
    dl::FuncOp function = findFunction(*module, "f");
    Builder b(context());
    for (unsigned i = 0; i < function.getNumArguments(); ++i)
      function.setArgAttr(i, "dl.name", b.getStringAttr("x" + Twine(i)));
    for (unsigned i = 0; i < function.getNumResults(); ++i)
      function.setResultAttr(i, "dl.name", b.getStringAttr("y" + Twine(i)));
  }
  /// Results for arguments of the types that @f has, on every target; they must be the same bits.
  std::vector<Array> call(std::vector<std::vector<double>> arguments, std::string *expectedError = nullptr) {
    dl::FuncOp function = findFunction(*module, "f");
    std::vector<Array> arrays, results;
    for (auto [values, type] : llvm::zip_equal(arguments, function.getArgumentTypes())) {
      Array array;
      auto tensor = cast<RankedTensorType>(type);
      array.element = tensor.getElementType();
      array.values = values;
      if (tensor.getRank() == 1)
        array.dims = {static_cast<int64_t>(values.size())};
      else
        array.dims = evaluateShape(type, {});
      arrays.push_back(array);
    }
    bool isFirst = true;
    std::vector<TestTarget> targets = differentTargets();
    // Loops and branches run on processors alone so far: for a GPU they are refused (test/driver/control-cuda.test).
    bool hasControl = module->walk([](Operation *op) { return isa<dl::ForOp, dl::IfOp>(op) ? WalkResult::interrupt() : WalkResult::advance(); }).wasInterrupted();
    if (hasControl)
      llvm::erase_if(targets, [](const TestTarget &target) { return target.cuda.has_value(); });
    forEachTarget(targets, *module, [&](Compiled &compiled, const TestTarget &) {
      std::string error;
      std::vector<Array> got = compiled.call("f", arrays, error);
      if (expectedError && !isFirst)
        EXPECT_EQ(error, *expectedError);
      else if (expectedError)
        *expectedError = error;
      else
        EXPECT_EQ(error, "");
      if (!isFirst)
        for (auto [a, e] : llvm::zip_equal(got, results))
          EXPECT_EQ(bitsOf(a), bitsOf(e));
      results = got;
      isFirst = false;
    });
    if (isFirst)
      std::exit(1); // no numbers to look at
    return results;
  }

private:
  OwningOpRef<ModuleOp> module;
};

/// @f: the gradient of the sum of an expression of %x : tensor<?xf64>.
Text gradientOf(StringRef expression) {
  return Text("dl.func @f(%x: tensor<?xf64, affine_map<()[s0] -> (s0)>>) -> (tensor<?xf64, affine_map<()[s0] -> (s0)>>) {\n" + expression.str() +
              "\n%s = dl.sum %y [0] : tensor<?xf64, affine_map<()[s0] -> (s0)>> -> tensor<f64>\n"
              "%g = dl.gradient %s wrt %x : (tensor<f64>, tensor<?xf64, affine_map<()[s0] -> (s0)>>) -> tensor<?xf64, affine_map<()[s0] -> (s0)>>\n"
              "dl.return %g : tensor<?xf64, affine_map<()[s0] -> (s0)>>\n}");
}
#define T "tensor<?xf64, affine_map<()[s0] -> (s0)>>"
#define B "tensor<?xi1, affine_map<()[s0] -> (s0)>>"

TEST(Corners, ReluHasGradientZeroAtZero) {
  EXPECT_EQ(gradientOf("%y = dl.relu %x : " T).call({{-1, -0.0, 0, 1, kInf, -kInf}})[0].values, (std::vector<double>{0, 0, 0, 1, 1, 0}));
}
TEST(Corners, MaximumWithZeroIsRelu) {
  EXPECT_EQ(gradientOf("%z = dl.fill 0.0 : f64 : " T "\n%y = dl.maximum %x, %z : " T).call({{-1, -0.0, 0, 1}})[0].values, (std::vector<double>{0, 0, 0, 1}));
  EXPECT_EQ(gradientOf("%z = dl.fill 0.0 : f64 : " T "\n%y = dl.maximum %z, %x : " T).call({{-1, -0.0, 0, 1}})[0].values, (std::vector<double>{0, 0, 0, 1}));
}
TEST(Corners, AbsHasGradientZeroAtZero) { EXPECT_EQ(gradientOf("%y = dl.abs %x : " T).call({{-2, -0.0, 0, 3}})[0].values, (std::vector<double>{-1, 0, 0, 1})); }
TEST(Corners, MaximumOfEqualsGoesToTheFirst) {
  // d/dx of maximum(x, 2x): the first where equal
  const char *text = "%t = dl.add %x, %x : " T "\n%y = dl.maximum %x, %t : " T;
  EXPECT_EQ(gradientOf(text).call({{0, 1, -1}})[0].values, (std::vector<double>{1, 2, 1}));
  const char *other = "%t = dl.add %x, %x : " T "\n%y = dl.minimum %t, %x : " T;
  EXPECT_EQ(gradientOf(other).call({{0, 1, -1}})[0].values, (std::vector<double>{2, 1, 2}));
}
TEST(Corners, BranchNotTakenGivesNoNaN) {
  const char *root = "%z = dl.fill 0.0 : f64 : " T "\n%p = dl.compare gt %x, %z : " T " -> " B "\n%r = dl.sqrt %x : " T "\n%y = dl.select %p, %r, %z : " B ", " T;
  EXPECT_EQ(gradientOf(root).call({{-1, 0, 4, 0.25, -0.0}})[0].values, (std::vector<double>{0, 0, 0.25, 1, 0}));
  const char *log = "%z = dl.fill 0.0 : f64 : " T "\n%p = dl.compare gt %x, %z : " T " -> " B "\n%l = dl.log %x : " T "\n%y = dl.select %p, %l, %x : " B ", " T;
  EXPECT_EQ(gradientOf(log).call({{-1, 0, 4, 0.25}})[0].values, (std::vector<double>{1, 1, 0.25, 4}));
  // 1 / x where x is not 0, and x / |x|
  const char *quotient = "%z = dl.fill 0.0 : f64 : " T "\n%one = dl.fill 1.0 : f64 : " T "\n%p = dl.compare ne %x, %z : " T " -> " B "\n%q = dl.div %one, %x : " T
                         "\n%y = dl.select %p, %q, %z : " B ", " T;
  EXPECT_EQ(gradientOf(quotient).call({{0, 2, -0.0}})[0].values, (std::vector<double>{0, -0.25, 0}));
  const char *power = "%z = dl.fill 0.0 : f64 : " T "\n%e = dl.fill 0.5 : f64 : " T "\n%p = dl.compare gt %x, %z : " T " -> " B "\n%q = dl.pow %x, %e : " T "\n%y = dl.select %p, %q, %z : " B ", " T;
  EXPECT_EQ(gradientOf(power).call({{0, 4, -1}})[0].values, (std::vector<double>{0, 0.25, 0}));
  const char *reciprocalRoot = "%z = dl.fill 0.0 : f64 : " T "\n%p = dl.compare gt %x, %z : " T " -> " B "\n%q = dl.rsqrt %x : " T "\n%y = dl.select %p, %q, %z : " B ", " T;
  EXPECT_EQ(gradientOf(reciprocalRoot).call({{0, 0.25, -1}})[0].values, (std::vector<double>{0, -4, 0}));
  const char *exponential = "%z = dl.fill 0.0 : f64 : " T "\n%p = dl.compare lt %x, %z : " T " -> " B "\n%q = dl.exp %x : " T "\n%y = dl.select %p, %q, %z : " B ", " T;
  EXPECT_EQ(gradientOf(exponential).call({{0, 1000, kInf}})[0].values, (std::vector<double>{0, 0, 0}));
}
/// Every op with a gradient: where the branch is not taken, none gives NaN, whatever the operands are.
TEST(Corners, NoOpMakesNaNOfAZeroCotangent) {
  Builder b(context());
  ModelBuilder model({"N"});
  std::vector<std::string> functions;
  RankedTensorType type = dl::tensorType({N()}, b.getF64Type());
  for (const std::string &name : namesOfTestedOps()) {
    if (!isElementwise(name) || casesOfOps().count(name))
      continue;
    for (unsigned arity : {1, 2}) {
      std::vector<unsigned> wrt;
      bool verifies = withScratchOp(name, arity, b.getF64Type(), [&](OpBuilder &ob, Operation *op) {
        SmallVector<Value> gradients;
        (void)cast<dl::DifferentiableOpInterface>(op).buildVjp(ob, op->getResults(), gradients);
        for (auto [i, gradient] : llvm::enumerate(gradients))
          if (gradient)
            wrt.push_back(i);
      });
      if (!verifies || wrt.empty())
        continue;
      functions.push_back(StringRef(name).drop_front(3).str());
      model.addFunction(functions.back(), SmallVector<Type>(2, type), [&](OpBuilder &ob, ValueRange x) {
        Value y = createElementwise(ob, name, x.take_front(arity));
        // never taken, as the compiler cannot know
        Value zero = dl::FillOp::create(ob, loc(), type, 0.0), never = dl::CompareOp::create(ob, loc(), x[0], x[0], dl::ComparePredicate::lt);
        Value taken = dl::SelectOp::create(ob, loc(), type, never, y, zero);
        Value sum = dl::SumOp::create(ob, loc(), taken, ArrayRef<int64_t>{0});
        SmallVector<Value> values;
        for (unsigned i : wrt)
          values.push_back(x[i]);
        return SmallVector<Value>(dl::GradientOp::create(ob, loc(), sum, values).getResults());
      });
    }
  }
  ASSERT_GT(functions.size(), 20u);
  std::vector<double> numbers{0, -0.0, 1, -1, kInf, -kInf, kNaN, 1e300, -1e300, 5e-324, 1000, -1000};
  std::vector<Array> arguments(2);
  for (double x : numbers)
    for (double y : numbers) {
      arguments[0].values.push_back(x);
      arguments[1].values.push_back(y);
    }
  for (Array &argument : arguments) {
    argument.element = b.getF64Type();
    argument.dims = {static_cast<int64_t>(argument.values.size())};
  }
  forEachTarget(differentTargets(), model.getModule(), [&](Compiled &compiled, const TestTarget &) {
    std::string error;
    for (const std::string &function : functions) {
      std::vector<Array> gradients = compiled.call(function, arguments, error);
      ASSERT_EQ(error, "");
      for (auto [k, gradient] : llvm::enumerate(gradients))
        for (size_t i = 0; i < gradient.values.size(); ++i)
          if (gradient.values[i] != 0) {
            ADD_FAILURE() << function << " at " << arguments[0].values[i] << ", " << arguments[1].values[i] << ": the gradient in operand " << k
                          << " of a value that is not taken is " << gradient.values[i];
            break;
          }
    }
  });
}
TEST(Corners, NaNGoesThroughReluAndMaximum) {
  Text text("dl.func @f(%x: " T ") -> (" T ", " T ", " T ", tensor<f64>, tensor<i32>) {\n%r = dl.relu %x : " T "\n%o = dl.fill 1.0 : f64 : " T "\n%m = dl.maximum %x, %o : " T
            "\n%n = dl.maximum %o, %x : " T "\n%a = dl.max %x [0] : " T " -> tensor<f64>\n%i = dl.argmax %x [0] : " T " -> tensor<i32>\ndl.return %r, %m, %n, %a, %i : " T ", " T ", " T
            ", tensor<f64>, tensor<i32>\n}");
  std::vector<Array> results = text.call({{1, 5, kNaN, 7, kNaN, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}});
  for (int i : {0, 1, 2})
    EXPECT_TRUE(std::isnan(results[i].values[2]) && results[i].values[3] == 7) << i;
  EXPECT_TRUE(std::isnan(results[3].values[0]));
  EXPECT_EQ(results[4].values[0], 2);
}
TEST(Corners, GradientOfMaxGoesToTheFirstOfEquals) {
  const char *text = "%m = dl.max %x [0] : " T " -> tensor<f64>\n%y = dl.broadcast %m [] : tensor<f64> -> " T;
  EXPECT_EQ(gradientOf(text).call({{1, 3, 3, 2, 3}})[0].values, (std::vector<double>{0, 5, 0, 0, 0}));
  const char *least = "%m = dl.min %x [0] : " T " -> tensor<f64>\n%y = dl.broadcast %m [] : tensor<f64> -> " T;
  EXPECT_EQ(gradientOf(least).call({{4, 3, 3, 7, 3}})[0].values, (std::vector<double>{0, 5, 0, 0, 0}));
}
TEST(Corners, ZeroTimesInfinityIsZeroInAGradient) {
  // y = x * inf, of which only a zero is asked: 0, not NaN
  const char *text = "%i = dl.fill 0x7FF0000000000000 : f64 : " T "\n%p = dl.mul %x, %i : " T "\n%z = dl.fill 0.0 : f64 : " T "\n%y = dl.mul %p, %z : " T;
  EXPECT_EQ(gradientOf(text).call({{1, 2}})[0].values, (std::vector<double>{0, 0}));
}
TEST(Corners, StopGradientStops) {
  const char *text = "%t = dl.stop_gradient %x : " T "\n%y = dl.mul %x, %t : " T;
  EXPECT_EQ(gradientOf(text).call({{3, -4}})[0].values, (std::vector<double>{3, -4}));
}
TEST(Corners, GradientGoesThroughConversions) {
  const char *text = "%c = dl.convert %x : " T " -> tensor<?xf32, affine_map<()[s0] -> (s0)>>\n%t = dl.mul %c, %c : tensor<?xf32, affine_map<()[s0] -> (s0)>>\n"
                     "%y = dl.convert %t : tensor<?xf32, affine_map<()[s0] -> (s0)>> -> " T;
  EXPECT_EQ(gradientOf(text).call({{3, -4, 0.5}})[0].values, (std::vector<double>{6, -8, 1}));
}
#define S "tensor<f64>"
#define I "tensor<i64>"
#define C "tensor<i1>"
#define FROM0 "dl.for from affine_map<() -> (0)> "

//===--- loops and branches ---===//

TEST(ControlTest, LoopCarriesAndHasAGradient) {
  // y = x, times x three times over: x^4
  const char *text = "%y = " FROM0 "to affine_map<() -> (3)> (%x) {\n^bb0(%t: " I ", %p: " T "):\n%q = dl.mul %p, %x : " T "\ndl.yield %q : " T "\n} : (" T ") -> (" T ")";
  EXPECT_EQ(gradientOf(text).call({{2, 3, -1, 0}})[0].values, (std::vector<double>{32, 108, -4, 0}));
}
TEST(ControlTest, LoopReadsWhatItBeginsWith) {
  // y = h^3 of h = 2 x, which is both what the loop begins with and what its turns read.
  const char *text = "%h = dl.add %x, %x : " T "\n%y = " FROM0 "to affine_map<() -> (2)> (%h) {\n^bb0(%t: " I ", %p: " T "):\n%q = dl.mul %p, %h : " T "\ndl.yield %q : " T "\n} : (" T ") -> (" T ")";
  EXPECT_EQ(gradientOf(text).call({{2, 0.5, -1}})[0].values, (std::vector<double>{96, 6, 24}));
}
TEST(ControlTest, LoopOverASizeKeepsWhatItsGradientNeeds) {
  // N turns of p = sin(p) * x: what a turn multiplies by is kept. Against the interpreter's own loop, written out.
  const char *text = "%y = " FROM0 "to affine_map<()[s0] -> (s0)> (%x) {\n^bb0(%t: " I ", %p: " T "):\n%e = dl.sin %p : " T "\n%q = dl.mul %e, %x : " T "\ndl.yield %q : " T "\n} : (" T ") -> (" T ")";
  for (std::vector<double> x : {std::vector<double>{0.5}, {0.5, -1.5}, {0.25, 1, -2, 3, 0.75}}) {
    std::vector<double> wanted;
    for (double v : x) {
      double p = v, d = 1;
      for (size_t t = 0; t < x.size(); ++t) {
        d = std::cos(p) * d * v + std::sin(p);
        p = std::sin(p) * v;
      }
      wanted.push_back(d);
    }
    std::vector<double> got = gradientOf(text).call({x})[0].values;
    for (size_t i = 0; i < x.size(); ++i)
      EXPECT_NEAR(got[i], wanted[i], 1e-12 * std::max(1.0, std::fabs(wanted[i]))) << i << " of " << x.size();
  }
}
TEST(ControlTest, LoopEndsWhereItsConditionDoes) {
  // Doubles until the sum is above 100; the gradient is of the turns that ran.
  const char *text = "%on = dl.fill 1 : i64 : " C "\n%limit = dl.fill 100.0 : f64 : " S "\n%o, %y = " FROM0 "to affine_map<() -> (20)> while (%on, %x) {\n^bb0(%t: " I ", %c: " C ", %p: " T
                     "):\n%q = dl.add %p, %p : " T "\n%s = dl.sum %q [0] : " T " -> " S "\n%n = dl.compare le %s, %limit : " S " -> " C "\ndl.yield %n, %q : " C ", " T "\n} : (" C ", " T
                     ") -> (" C ", " T ")";
  EXPECT_EQ(gradientOf(text).call({{1, 2}})[0].values, (std::vector<double>{64, 64}));
  EXPECT_EQ(gradientOf(text).call({{60, 41}})[0].values, (std::vector<double>{2, 2}));
  EXPECT_EQ(gradientOf(text).call({{-1}})[0].values, (std::vector<double>{1048576}));
}
TEST(ControlTest, BranchHasTheGradientOfTheOneTaken) {
  const char *text = "%s0 = dl.sum %x [0] : " T " -> " S "\n%z = dl.fill 0.0 : f64 : " S "\n%c = dl.compare gt %s0, %z : " S " -> " C "\n%y = dl.if %c {\n%q = dl.mul %x, %x : " T "\ndl.yield %q : " T
                     "\n} else {\n%n = dl.neg %x : " T "\ndl.yield %n : " T "\n} : " T;
  EXPECT_EQ(gradientOf(text).call({{3, -1}})[0].values, (std::vector<double>{6, -2}));
  EXPECT_EQ(gradientOf(text).call({{3, -4}})[0].values, (std::vector<double>{-1, -1}));
}
TEST(ControlTest, CarriedValuesChangePlaces) {
  Text text("dl.func @f(%x: " T ", %z: " T ") -> (" T ", " T ") {\n%a, %c = " FROM0 "to affine_map<() -> (5)> (%x, %z) {\n^bb0(%t: " I ", %p: " T ", %q: " T "):\n%s = dl.add %p, %q : " T
            "\ndl.yield %q, %s : " T ", " T "\n} : (" T ", " T ") -> (" T ", " T ")\ndl.return %a, %c : " T ", " T "\n}");
  std::vector<Array> results = text.call({{1, 10}, {1, 1}});
  EXPECT_EQ(results[0].values, (std::vector<double>{8, 5 + 30}));
  EXPECT_EQ(results[1].values, (std::vector<double>{13, 8 + 50}));
}
TEST(ControlTest, OneValueIsWhatTwoResultsGet) {
  Text loop("dl.func @f(%x: " T ", %z: " T ") -> (" T ", " T ") {\n%a, %c = " FROM0 "to affine_map<() -> (3)> (%x, %z) {\n^bb0(%t: " I ", %p: " T ", %q: " T "):\n%s = dl.add %p, %q : " T
            "\ndl.yield %s, %s : " T ", " T "\n} : (" T ", " T ") -> (" T ", " T ")\ndl.return %a, %c : " T ", " T "\n}");
  for (const Array &result : loop.call({{1, 10}, {2, 3}}))
    EXPECT_EQ(result.values, (std::vector<double>{12, 52}));
  Text branch("dl.func @f(%x: " T ") -> (" T ", " T ") {\n%s0 = dl.sum %x [0] : " T " -> " S "\n%z = dl.fill 0.0 : f64 : " S "\n%c = dl.compare gt %s0, %z : " S " -> " C "\n%a, %b = dl.if %c {\n%q = dl.mul %x, %x : " T
              "\ndl.yield %q, %q : " T ", " T "\n} else {\n%q = dl.mul %x, %x : " T "\n%n = dl.neg %x : " T "\ndl.yield %q, %n : " T ", " T "\n} : " T ", " T "\ndl.return %a, %b : " T ", " T "\n}");
  EXPECT_EQ(branch.call({{3, -1}})[1].values, (std::vector<double>{9, 1}));
  EXPECT_EQ(branch.call({{-3, 1}})[0].values, (std::vector<double>{9, 1}));
  EXPECT_EQ(branch.call({{-3, 1}})[1].values, (std::vector<double>{3, -1}));
}
TEST(ControlTest, UpdatesDoNotReachTheOperand) {
  // Writes element t of a copy of x in each turn; x stays, and so does what an update was made of.
  Text text("dl.func @f(%x: tensor<4xf64>) -> (tensor<4xf64>, tensor<4xf64>, tensor<4xf64>) {\n%two = dl.fill 2 : i64 : " I "\n%n = dl.fill 9.0 : f64 : " S
            "\n%e = dl.exp %x : tensor<4xf64>\n%u = dl.slice_update %e[%two] axis 0, %n : " S " -> tensor<4xf64>\n%y = " FROM0
            "to affine_map<() -> (4)> (%x) {\n^bb0(%t: " I ", %p: tensor<4xf64>):\n%v = dl.slice_at %p[%t] axis 0 : tensor<4xf64> -> " S "\n%w = dl.add %v, %v : " S
            "\n%q = dl.slice_update %p[%t] axis 0, %w : " S " -> tensor<4xf64>\ndl.yield %q : tensor<4xf64>\n} : (tensor<4xf64>) -> tensor<4xf64>\n"
            "%same = dl.add %e, %x : tensor<4xf64>\ndl.return %y, %u, %same : tensor<4xf64>, tensor<4xf64>, tensor<4xf64>\n}");
  std::vector<Array> results = text.call({{0, 0, 0, 0}});
  EXPECT_EQ(results[0].values, (std::vector<double>{0, 0, 0, 0}));
  EXPECT_EQ(results[1].values, (std::vector<double>{1, 1, 9, 1}));
  EXPECT_EQ(results[2].values, (std::vector<double>{1, 1, 1, 1}));
  EXPECT_EQ(text.call({{1, 2, 3, 4}})[0].values, (std::vector<double>{2, 4, 6, 8}));
}
TEST(ControlTest, CheckInALoopIsAStatus) {
  Text text("dl.func @f(%x: tensor<?xi64, affine_map<()[s0] -> (s0)>>) -> " I " {\n%z = dl.fill 0 : i64 : " I "\n%y = " FROM0 "to affine_map<()[s0] -> (s0)> (%z) {\n^bb0(%t: " I ", %s: " I
            "):\n%v = dl.slice_at %x[%t] axis 0 : tensor<?xi64, affine_map<()[s0] -> (s0)>> -> " I "\ndl.check_index %v below affine_map<() -> (10)> \"number {value}\" : " I
            "\n%n = dl.add %s, %v : " I "\ndl.yield %n : " I "\n} : (" I ") -> " I "\ndl.return %y : " I "\n}");
  EXPECT_EQ(text.call({{1, 2, 3}})[0].values, (std::vector<double>{6}));
  std::string error;
  text.call({{1, 12, 3}}, &error);
  EXPECT_NE(error.find("number 12"), std::string::npos) << error;
}
#undef S
#undef I
#undef C
#undef FROM0
#undef T
#undef B

//===--- checks ---===//

TEST(ChecksTest, IndexOutsideIsAStatus) {
  Text text(R"(dl.func @f(%x: tensor<?xi32, affine_map<()[s0] -> (s0)>>) -> tensor<?xi32, affine_map<()[s0] -> (s0)>> {
    dl.check_index %x below affine_map<() -> (10)> or -100 "label {value} at index {index} is outside" : tensor<?xi32, affine_map<()[s0] -> (s0)>>
    %y = dl.add %x, %x : tensor<?xi32, affine_map<()[s0] -> (s0)>>
    dl.return %y : tensor<?xi32, affine_map<()[s0] -> (s0)>>
  })");
  EXPECT_EQ(text.call({{0, 9, -100, 5}})[0].values, (std::vector<double>{0, 18, -200, 10}));
  std::string error;
  text.call({{1, 2, 10, 3, -1}}, &error);
  EXPECT_NE(error.find("label 10 at index 2 is outside"), std::string::npos) << error;
  text.call({{1, -1}}, &error);
  EXPECT_NE(error.find("label -1 at index 1 is outside"), std::string::npos) << error;
  text.call({{1, -100, -99}}, &error);
  EXPECT_NE(error.find("label -99 at index 2 is outside"), std::string::npos) << error;
}
TEST(ChecksTest, IndexCountsFromTheEnd) {
  Text text(R"(dl.func @f(%x: tensor<?xi64, affine_map<()[s0] -> (s0)>>) -> tensor<?xi64, affine_map<()[s0] -> (s0)>> {
    dl.check_index %x either side below affine_map<() -> (10)> "index {value} at element {index}" : tensor<?xi64, affine_map<()[s0] -> (s0)>>
    %y = dl.add %x, %x : tensor<?xi64, affine_map<()[s0] -> (s0)>>
    dl.return %y : tensor<?xi64, affine_map<()[s0] -> (s0)>>
  })");
  EXPECT_EQ(text.call({{0, 9, -10, -1}})[0].values, (std::vector<double>{0, 18, -20, -2}));
  std::string error;
  text.call({{1, -11, 10}}, &error);
  EXPECT_NE(error.find("index -11 at element 1"), std::string::npos) << error;
  text.call({{1, 0x1p62, 10}}, &error);
  EXPECT_NE(error.find("index 4611686018427387904 at element 1"), std::string::npos) << error;
}
TEST(ChecksTest, BytesAreUnsigned) {
  Text text(R"(dl.func @f(%x: tensor<?xui8, affine_map<()[s0] -> (s0)>>) -> tensor<?xi32, affine_map<()[s0] -> (s0)>> {
    dl.check_index %x below affine_map<() -> (200)> "byte {value} at {index}" : tensor<?xui8, affine_map<()[s0] -> (s0)>>
    %y = dl.convert %x : tensor<?xui8, affine_map<()[s0] -> (s0)>> -> tensor<?xi32, affine_map<()[s0] -> (s0)>>
    dl.return %y : tensor<?xi32, affine_map<()[s0] -> (s0)>>
  })");
  EXPECT_EQ(text.call({{0, 199, 128}})[0].values, (std::vector<double>{0, 199, 128}));
  std::string error;
  text.call({{1, 255}}, &error);
  EXPECT_NE(error.find("byte 255 at 1"), std::string::npos) << error;
}
TEST(ChecksTest, SizesAreCheckedOnEntry) {
  struct {
    const char *predicate;
    std::vector<int64_t> good, bad;
  } table[] = {{"eq", {6}, {5, 7}}, {"ne", {5, 7}, {6}}, {"lt", {0, 5}, {6, 7}}, {"le", {5, 6}, {7}}, {"gt", {7}, {5, 6}}, {"ge", {6, 7}, {5}}};
  for (auto &[predicate, good, bad] : table) {
    Text text(std::string(R"(dl.func @f(%x: tensor<?xi32, affine_map<()[s0] -> (s0)>>) -> tensor<?xi32, affine_map<()[s0] -> (s0)>> {
      dl.check_size affine_map<()[s0] -> (s0 * 2)> ")") + predicate + R"(" affine_map<() -> (12)> "N does not do"
      %y = dl.add %x, %x : tensor<?xi32, affine_map<()[s0] -> (s0)>>
      dl.return %y : tensor<?xi32, affine_map<()[s0] -> (s0)>>
    })");
    for (int64_t n : good)
      EXPECT_EQ(text.call({std::vector<double>(n, 1)}).size(), 1u) << predicate << " " << n;
    for (int64_t n : bad) {
      std::string error;
      text.call({std::vector<double>(n, 1)}, &error);
      EXPECT_NE(error.find("N does not do"), std::string::npos) << predicate << " " << n << ": " << error;
    }
  }
}

} // namespace
