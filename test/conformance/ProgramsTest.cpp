//===- ProgramsTest.cpp - random programs, compiled and run -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What fusion, planning and the kernels' loops make of ops that meet in one function: each test is one random function (its seed is its name), with elementwise ops,
// broadcasts, reductions over any axes, products, moves of elements, draws, conditions, whole numbers, loops and branches, gradients (of gradients, too) and variables that are
// read and assigned. Its results and what it leaves in its variables are compared with the plain interpreter (Reference.h); to the bit where no operation had to round. Where they differ, the
// program is made shorter as long as it still fails, and printed.

#include "test/conformance/Compiled.h"
#include "gtest/gtest.h"
#include <cmath>
#include <random>

using namespace dlc;
using namespace dlc::test;
using namespace mlir;

namespace {

// DLC_PROGRAMS=N in the environment: so many, from seed 0 on, to look for more than a run of all tests has time for.
constexpr unsigned kPrograms = 120, kProgramsOnGpu = 60;
constexpr unsigned kSteps = 22; // at most, in a program

MLIRContext *context() { return &testContext(); }
AffineExpr c(int64_t n) { return getAffineConstantExpr(n, context()); }
Location loc() { return UnknownLoc::get(context()); }
Type i1() { return IntegerType::get(context(), 1); }
Type i32() { return IntegerType::get(context(), 32); }
using Sizes = SmallVector<AffineExpr>;

class Random {
public:
  explicit Random(uint64_t seed) : engine(seed) {}
  uint64_t below(uint64_t n) { return engine() % n; }
  bool chance(unsigned percent) { return below(100) < percent; }
  double unit() { return static_cast<double>(engine() >> 11) * 0x1p-53; }
  template <typename Range> auto &&pick(Range &&range) { return range[below(range.size())]; }
  template <typename T> T pick(std::initializer_list<T> list) { return list.begin()[below(list.size())]; }

private:
  std::mt19937_64 engine;
};

/// One random function @f, with its model.
class Program {
public:
  Program(uint64_t seed, unsigned steps);

  struct Input {
    RankedTensorType type;
    bool isLabel = false; // of `classes` classes
    int64_t classes = 0;
    std::string variable; // empty: an argument
  };
  std::vector<Input> inputs;
  ModelBuilder model{{"N", "M"}};
  bool hasSpecials;
  unsigned gradientsTaken = 0;
  FloatType type;

private:
  Value addInput(RankedTensorType type, int64_t classes = 0);
  void step();
  void unary();
  void binary();
  void reduce();
  void move();
  void product();
  void composite();
  void decide();
  void numbers();
  void draw();
  void places();
  void loop();
  void choose();
  /// Some steps in a block of their own, and a value of each of the types out of it.
  SmallVector<Value> inside(Block &body, unsigned steps, ArrayRef<Type> types);
  void differentiate();
  void assign();

  //--- values made so far ---
  struct Node {
    Value value;
    int bits; // of an exact number: more than 20 are too many to go on being exact; 100: not exact
  };
  static constexpr int inexact = 100;
  Node *pickFloat(llvm::function_ref<bool(const Node &)> accept = [](const Node &) { return true; });
  Value add(Value value, int bits = inexact) {
    auto tensor = cast<RankedTensorType>(value.getType());
    (tensor.getElementType().isInteger(1) ? bools : tensor.getElementType().isInteger(32) ? wholes : floats).push_back({value, bits > 20 ? inexact : bits});
    return value;
  }
  Value number(Value like, double n) { return dl::FillOp::create(b, loc(), typeOf(like), n); }
  Value shrink(Value x, double by) { return dl::MulOp::create(b, loc(), x, number(x, by)); }
  static RankedTensorType typeOf(Value value) { return cast<RankedTensorType>(value.getType()); }
  static Sizes sizesOf(Value value) { return dl::sizesOf(value); }
  RankedTensorType tensor(ArrayRef<AffineExpr> sizes, Type element = {}) { return dl::tensorType(sizes, element ? element : Type(type)); }
  Sizes pickShape();
  SmallVector<int64_t> pickAxes(int64_t rank);
  /// The value under a larger shape, if it can be broadcast to it.
  Value fit(Value value, ArrayRef<AffineExpr> sizes);
  /// The value with its elements at other places, of the same type.
  Value elsewhere(Value value);
  bool dependsOn(Value value, Value input);

  Random random;
  OpBuilder b;
  Block *block = nullptr;
  SmallVector<AffineExpr> palette;
  std::vector<Node> floats, wholes, bools;
  std::vector<std::pair<Value, Value>> gradients; // input, gradient
  bool smooth, hasVariables;
  unsigned depth = 0; // loops and branches around what is made
  Value seedArgument;
};

Program::Program(uint64_t seed, unsigned steps) : random(seed * 7919 + 17), b(context()) {
  type = random.chance(70) ? FloatType(Float64Type::get(context())) : FloatType(Float32Type::get(context()));
  smooth = random.chance(40);
  hasSpecials = !smooth && random.chance(15);
  hasVariables = random.chance(50);
  // Three sizes, of which all shapes are made: so shapes meet.
  palette.push_back(random.chance(75) ? getAffineSymbolExpr(0, context()) : c(random.pick({4, 7, 16})));
  palette.push_back(random.chance(15) ? getAffineSymbolExpr(1, context()) : c(random.pick({1, 2, 3, 5, 8, 16, 17, 33})));
  palette.push_back(c(random.pick({1, 2, 4, 9, 16, 20, 32, 40})));
  // Sometimes two are the same, so that shapes do not tell axes apart.
  if (random.chance(35))
    palette[random.below(3)] = palette[random.below(3)];

  OpBuilder outer = OpBuilder::atBlockEnd(&model.getModel().getBody().front());
  auto function = dl::FuncOp::create(outer, loc(), "f", outer.getFunctionType({}, {}));
  block = &function.getBody().emplaceBlock();
  b.setInsertionPointToEnd(block);
  addInput(tensor({getAffineSymbolExpr(0, context()), getAffineSymbolExpr(1, context())}, i1())); // gives the sizes their values
  for (unsigned i = 0, count = 2 + random.below(3); i < count; ++i)
    addInput(tensor(pickShape()));
  for (unsigned i = 0; i < steps; ++i)
    step();
  if (random.chance(60))
    differentiate();
  if (hasVariables)
    assign();

  // Results: what nobody reads, and some of the rest.
  SmallVector<Value> results;
  for (auto *list : {&floats, &wholes, &bools})
    for (const Node &node : *list)
      if (results.size() < 6 && (node.value.use_empty() || random.chance(15)) && !llvm::is_contained(results, node.value) && !isa<BlockArgument>(node.value))
        results.push_back(node.value);
  if (random.chance(10)) // an argument or a variable as it is
    results.push_back(random.pick(floats).value);
  if (random.chance(5) && !results.empty()) // one value twice
    results.push_back(results[0]);
  dl::ReturnOp::create(b, loc(), results);
  function.setFunctionType(b.getFunctionType(block->getArgumentTypes(), ValueRange(results).getTypes()));
  for (unsigned i = 0; i < block->getNumArguments(); ++i)
    function.setArgAttr(i, "dl.name", b.getStringAttr("x" + Twine(i)));
  for (unsigned i = 0; i < results.size(); ++i)
    function.setResultAttr(i, "dl.name", b.getStringAttr("y" + Twine(i)));
}

Value Program::addInput(RankedTensorType of, int64_t classes) {
  Input input{of, classes > 0, classes, ""};
  Value value;
  if (hasVariables && of.hasStaticShape() && of.getElementType() == type && random.chance(70)) {
    input.variable = "v" + std::to_string(inputs.size());
    model.addVariable(input.variable, of);
    OpBuilder start = OpBuilder::atBlockBegin(block);
    value = dl::ReadOp::create(start, loc(), of, FlatSymbolRefAttr::get(context(), input.variable));
  } else {
    value = block->addArgument(of, loc());
  }
  inputs.push_back(input);
  if (!classes && of.getElementType() != b.getI64Type())
    add(value, 6);
  return value;
}

Sizes Program::pickShape() {
  Sizes sizes;
  switch (random.below(9)) {
  case 0: sizes = {palette[0]}; break;
  case 1: sizes = {palette[1]}; break;
  case 2: case 3: sizes = {palette[0], palette[1]}; break;
  case 4: sizes = {palette[0], palette[1], palette[2]}; break;
  case 5: sizes = {palette[1], palette[2]}; break;
  case 6: sizes = {palette[2], palette[1]}; break;
  case 7: sizes = {palette[0], c(1)}; break;
  case 8: break;
  }
  return sizes;
}

SmallVector<int64_t> Program::pickAxes(int64_t rank) {
  SmallVector<int64_t> axes;
  while (axes.empty())
    for (int64_t axis = 0; axis < rank; ++axis)
      if (random.chance(45))
        axes.push_back(axis);
  return axes;
}

Program::Node *Program::pickFloat(llvm::function_ref<bool(const Node &)> accept) {
  // Late values more often: chains grow.
  for (unsigned attempt = 0; attempt < 12; ++attempt) {
    size_t index = random.chance(60) && floats.size() > 4 ? floats.size() - 1 - random.below(4) : random.below(floats.size());
    if (accept(floats[index]))
      return &floats[index];
  }
  return nullptr;
}

Value Program::fit(Value value, ArrayRef<AffineExpr> sizes) {
  Sizes have = sizesOf(value);
  if (llvm::equal(have, sizes))
    return value;
  // From the last axis on, or from the first: both readings are broadcasts.
  SmallVector<int64_t> axes(have.size());
  bool fromEnd = random.chance(60);
  int64_t count = have.size(), rank = sizes.size(), place = fromEnd ? rank - 1 : 0;
  for (int64_t k = 0; k < count; ++k) {
    int64_t i = fromEnd ? count - 1 - k : k;
    while (place >= 0 && place < rank && have[i] != sizes[place] && have[i] != c(1))
      place += fromEnd ? -1 : 1;
    if (place < 0 || place >= rank)
      return {};
    axes[i] = place;
    place += fromEnd ? -1 : 1;
  }
  return dl::BroadcastOp::create(b, loc(), dl::tensorType(sizes, typeOf(value).getElementType()), value, axes);
}

Value Program::elsewhere(Value value) {
  Sizes sizes = sizesOf(value);
  int64_t rank = sizes.size();
  if (!rank)
    return value;
  // Two equal axes changed for each other.
  for (int64_t i = 0; i < rank; ++i)
    for (int64_t j = i + 1; j < rank; ++j)
      if (sizes[i] == sizes[j] && random.chance(60)) {
        SmallVector<int64_t> permutation = llvm::to_vector(llvm::seq<int64_t>(0, rank));
        std::swap(permutation[i], permutation[j]);
        return dl::TransposeOp::create(b, loc(), value, permutation);
      }
  Sizes start(rank, c(0));
  SmallVector<int64_t> strides(rank, 1);
  int64_t axis = random.below(rank);
  if (random.chance(50)) { // the other way round
    strides[axis] = -1;
    start[axis] = sizes[axis] - 1;
    return dl::SliceOp::create(b, loc(), typeOf(value), value, dl::sizeMap(start, context()), strides);
  }
  // The first moved to the end.
  Sizes one(sizes), rest(sizes), second(start);
  one[axis] = c(1);
  rest[axis] = dl::normalizeSize(sizes[axis] - 1);
  second[axis] = c(1);
  Type element = typeOf(value).getElementType();
  Value head = dl::SliceOp::create(b, loc(), dl::tensorType(one, element), value, dl::sizeMap(start, context()), strides);
  Value tail = dl::SliceOp::create(b, loc(), dl::tensorType(rest, element), value, dl::sizeMap(second, context()), strides);
  Value rolled = dl::ConcatOp::create(b, loc(), ValueRange{tail, head}, axis);
  return rolled.getType() == value.getType() ? rolled : value;
}

void Program::step() {
  switch (random.below(25)) {
  case 22: case 23: return loop();
  case 24: return choose();
  case 0: case 1: case 2: case 3: return unary();
  case 4: case 5: case 6: case 7: case 8: return binary();
  case 9: case 10: case 11: return reduce();
  case 12: case 13: return move();
  case 14: case 15: return product();
  case 16: return composite();
  case 17: return decide();
  case 18: return numbers();
  case 19: case 20: return places();
  default: return draw();
  }
}

void Program::unary() {
  Node x = *pickFloat();
  auto make = [&](auto op, int bits = inexact) { add(decltype(op)::create(b, loc(), x.value).getResult(), bits); };
  switch (random.below(smooth ? 10 : 16)) {
  case 0: return make(dl::TanhOp());
  case 1: return make(dl::SigmoidOp());
  case 2: return make(dl::GeluOp());
  case 3: return make(dl::SinOp());
  case 4: return make(dl::SoftplusOp());
  case 5: {
    Value square = dl::MulOp::create(b, loc(), x.value, x.value), positive = dl::AddOp::create(b, loc(), square, number(x.value, 0.5));
    add(dl::RsqrtOp::create(b, loc(), positive).getResult());
    return;
  }
  case 6: return (void)add(dl::ExpOp::create(b, loc(), dl::TanhOp::create(b, loc(), x.value).getResult()).getResult());
  case 7: return make(dl::NegOp(), x.bits);
  case 8: return (void)add(shrink(x.value, random.pick({0.5, 2.0, -0.25})), x.bits + 1);
  case 9: return (void)add(dl::AddOp::create(b, loc(), x.value, number(x.value, random.pick({0.5, 1.0, -2.0}))).getResult(), x.bits + 1);
  case 10: case 11: return make(dl::ReluOp(), x.bits);
  case 12: return make(dl::AbsOp(), x.bits);
  case 13: return x.bits < inexact ? make(dl::FloorOp(), x.bits) : make(dl::ErfOp());
  case 14: return x.bits < inexact ? make(dl::SignOp(), 2) : make(dl::SiluOp());
  case 15: return make(dl::StopGradientOp(), x.bits);
  }
}

void Program::binary() {
  Node x = *pickFloat(), other{{}, 3};
  Value y;
  if (random.chance(20)) {
    other = x;
    y = elsewhere(x.value);
  }
  for (unsigned attempt = 0; attempt < 8 && !y; ++attempt) {
    other = *pickFloat();
    y = fit(other.value, sizesOf(x.value));
    if (!y && (y = fit(x.value, sizesOf(other.value))))
      std::swap(x, other);
  }
  if (!y)
    y = number(x.value, 0.75);
  int bits = std::max(x.bits, other.bits) + 1, product = x.bits + other.bits;
  Value a = x.value;
  if (random.chance(30))
    std::swap(a, y);
  auto make = [&](auto op, int bits = inexact) { add(decltype(op)::create(b, loc(), a, y).getResult(), bits); };
  switch (random.below(smooth ? 7 : 11)) {
  case 0: case 1: return make(dl::AddOp(), bits);
  case 2: return make(dl::SubOp(), bits);
  case 3: case 4: case 5: return make(dl::MulOp(), product);
  case 6: {
    Value square = dl::MulOp::create(b, loc(), y, y), positive = dl::AddOp::create(b, loc(), square, number(y, 0.5));
    add(dl::DivOp::create(b, loc(), a, positive).getResult());
    return;
  }
  case 7: return make(dl::MaximumOp(), bits);
  case 8: return make(dl::MinimumOp(), bits);
  default: {
    // A choice, by the two of them or by what is there.
    Value condition;
    for (const Node &node : bools)
      if (sizesOf(node.value) == sizesOf(a) && random.chance(60))
        condition = node.value;
    if (!condition)
      condition = dl::CompareOp::create(b, loc(), a, y, random.pick({dl::ComparePredicate::lt, dl::ComparePredicate::ge, dl::ComparePredicate::eq}));
    add(dl::SelectOp::create(b, loc(), a.getType(), condition, a, y).getResult(), bits);
  }
  }
}

void Program::reduce() {
  Node *found = pickFloat([](const Node &node) { return typeOf(node.value).getRank() > 0; });
  if (!found)
    return;
  Node x = *found;
  Sizes sizes = sizesOf(x.value);
  SmallVector<int64_t> axes = pickAxes(sizes.size());
  Value result;
  int bits = x.bits;
  bool isSum = smooth || random.chance(60);
  if (isSum) {
    result = dl::SumOp::create(b, loc(), x.value, axes);
    bits += 8;
    if (random.chance(50)) {
      // The mean, with a count that may be known only when called.
      AffineExpr count = c(1);
      for (int64_t axis : axes)
        count = count * sizes[axis];
      count = dl::normalizeSize(count);
      RankedTensorType scalar = RankedTensorType::get({}, type);
      Value n = dl::SizeOp::create(b, loc(), scalar, dl::sizeMap(count, context()));
      // an empty one is 0, not 0 / 0
      n = dl::MaximumOp::create(b, loc(), n, dl::FillOp::create(b, loc(), scalar, 1.0));
      result = dl::DivOp::create(b, loc(), result, dl::BroadcastOp::create(b, loc(), typeOf(result), n, ArrayRef<int64_t>{}));
      bits = inexact;
    }
  } else if (random.chance(50)) {
    result = random.chance(50) ? dl::MaxOp::create(b, loc(), x.value, axes).getResult() : dl::MinOp::create(b, loc(), x.value, axes).getResult();
  } else {
    Value place = random.chance(50) ? dl::ArgmaxOp::create(b, loc(), x.value, axes).getResult() : dl::ArgminOp::create(b, loc(), x.value, axes).getResult();
    add(place, 10);
    return;
  }
  // Often with the axes kept as 1, as people write it.
  if (random.chance(40)) {
    for (int64_t axis : axes)
      sizes[axis] = c(1);
    result = dl::ReshapeOp::create(b, loc(), tensor(sizes), result);
  }
  add(result, bits);
  if (random.chance(50))
    if (Value back = fit(result, sizesOf(x.value)))
      add(random.chance(50) ? dl::SubOp::create(b, loc(), x.value, back).getResult() : dl::MulOp::create(b, loc(), x.value, back).getResult(), inexact);
}

void Program::move() {
  // Of any element type.
  auto &list = random.chance(75) || wholes.empty() ? floats : random.chance(50) || bools.empty() ? wholes : bools;
  Node x = random.pick(list);
  Sizes sizes = sizesOf(x.value);
  Type element = typeOf(x.value).getElementType();
  int64_t rank = sizes.size();
  auto put = [&](Value value) { add(value, x.bits); };
  switch (random.below(7)) {
  case 0: {
    SmallVector<int64_t> permutation = llvm::to_vector(llvm::seq<int64_t>(0, rank));
    for (int64_t i = rank - 1; i > 0; --i)
      std::swap(permutation[i], permutation[random.below(i + 1)]);
    return put(dl::TransposeOp::create(b, loc(), x.value, permutation));
  }
  case 1: { // neighbours joined, or a unit axis
    if (rank >= 2 && random.chance(60)) {
      int64_t axis = random.below(rank - 1);
      sizes[axis] = dl::normalizeSize(sizes[axis] * sizes[axis + 1]);
      sizes.erase(sizes.begin() + axis + 1);
    } else if (rank < 4) {
      sizes.insert(sizes.begin() + random.below(rank + 1), c(1));
    }
    return put(dl::ReshapeOp::create(b, loc(), dl::tensorType(sizes, element), x.value));
  }
  case 2: { // an axis taken apart
    for (int64_t axis = 0; axis < rank; ++axis)
      if (auto constant = dyn_cast<AffineConstantExpr>(sizes[axis]); constant && constant.getValue() % 2 == 0 && constant.getValue() > 0) {
        sizes[axis] = c(constant.getValue() / 2);
        sizes.insert(sizes.begin() + axis + random.below(2), c(2));
        return put(dl::ReshapeOp::create(b, loc(), dl::tensorType(sizes, element), x.value));
      }
    return;
  }
  case 3: case 4: { // a part, or the other way round
    if (!rank)
      return;
    Sizes start(rank, c(0)), part = sizes;
    SmallVector<int64_t> strides(rank, 1);
    int64_t axis = random.below(rank);
    auto constant = dyn_cast<AffineConstantExpr>(sizes[axis]);
    if (random.chance(35)) {
      strides[axis] = -1;
      start[axis] = sizes[axis] - 1;
    } else if (constant && constant.getValue() >= 3) {
      int64_t size = constant.getValue(), stride = 1 + random.below(3), first = random.below(size);
      strides[axis] = stride;
      start[axis] = c(first);
      part[axis] = c(1 + random.below((size - first + stride - 1) / stride));
    } else if (!constant) {
      if (random.chance(50)) { // without the first
        start[axis] = c(1);
        part[axis] = sizes[axis] - 1;
      } else { // the last
        start[axis] = sizes[axis] - 1;
        part[axis] = c(1);
      }
    }
    return put(dl::SliceOp::create(b, loc(), dl::tensorType(part, element), x.value, dl::sizeMap(start, context()), strides));
  }
  case 5: { // zeros around, or between
    if (!rank)
      return;
    Sizes start(rank, c(0)), whole = sizes;
    SmallVector<int64_t> strides(rank, 1);
    int64_t axis = random.below(rank), before = random.pick({0, 1, 2, 4, 16}), after = random.pick({0, 1, 2, 4, 16});
    strides[axis] = 1 + random.below(2);
    start[axis] = c(before);
    whole[axis] = dl::normalizeSize(sizes[axis] * strides[axis] + before + after);
    return put(dl::PadOp::create(b, loc(), dl::tensorType(whole, element), x.value, dl::sizeMap(start, context()), strides));
  }
  case 6: {
    if (!rank)
      return;
    int64_t axis = random.below(rank);
    SmallVector<Value> parts{x.value};
    int bits = x.bits;
    for (const Node &node : list) {
      Sizes other = sizesOf(node.value);
      if (parts.size() == 3 || other.size() != sizes.size() || !random.chance(70))
        continue;
      bool matches = true;
      for (int64_t i = 0; i < rank; ++i)
        matches &= i == axis || other[i] == sizes[i];
      if (matches) {
        parts.push_back(node.value);
        bits = std::max(bits, node.bits);
      }
    }
    add(dl::ConcatOp::create(b, loc(), parts, axis).getResult(), bits);
    return;
  }
  }
}

void Program::product() {
  Node *found = pickFloat([](const Node &node) { return typeOf(node.value).getRank() >= 2; });
  if (!found)
    return;
  Node x = *found;
  Sizes sizes = sizesOf(x.value);
  int64_t rank = sizes.size();
  bool lhsTransposed = random.chance(30), rhsTransposed = random.chance(30);
  AffineExpr k = sizes[lhsTransposed ? rank - 2 : rank - 1];
  // With a value that fits, with itself, or with a new input.
  Value y;
  int bits = x.bits;
  for (const Node &node : floats) {
    Sizes other = sizesOf(node.value);
    if (static_cast<int64_t>(other.size()) == rank && llvm::equal(ArrayRef(other).drop_back(2), ArrayRef(sizes).drop_back(2)) && other[rhsTransposed ? rank - 1 : rank - 2] == k && random.chance(50)) {
      y = node.value;
      bits = x.bits + node.bits + 6;
    }
  }
  if (!y && rank == 2) {
    AffineExpr n = random.pick(palette);
    y = addInput(rhsTransposed ? tensor({n, k}) : tensor({k, n}));
    bits = x.bits + 12;
  }
  if (!y) {
    y = x.value;
    rhsTransposed = !lhsTransposed;
    bits = 2 * x.bits + 6;
  }
  Value result = dl::MatmulOp::create(b, loc(), x.value, y, lhsTransposed, rhsTransposed);
  Value scaled = add(shrink(result, 0.125), bits);
  // The usual tail.
  if (random.chance(50)) {
    AffineExpr n = sizesOf(result).back();
    Value bias;
    if (rank == 2 && random.chance(30)) // read across: lane by lane
      bias = dl::TransposeOp::create(b, loc(), addInput(tensor({n, sizesOf(result)[0]})), ArrayRef<int64_t>{1, 0});
    else if (bias = addInput(tensor({n})); random.chance(20))
      bias = elsewhere(bias);
    Value sum = dl::AddOp::create(b, loc(), scaled, fit(bias, sizesOf(result)));
    add(smooth ? dl::TanhOp::create(b, loc(), sum).getResult() : dl::ReluOp::create(b, loc(), sum).getResult(), smooth ? inexact : std::max(bits, 6) + 1);
  }
}

void Program::composite() {
  Node *found = pickFloat([](const Node &node) { return typeOf(node.value).getRank() > 0; });
  if (!found)
    return;
  Value x = found->value;
  Sizes sizes = sizesOf(x);
  int64_t axis = random.chance(60) ? sizes.size() - 1 : random.below(sizes.size());
  switch (random.below(4)) {
  case 0: return (void)add(dl::SoftmaxOp::create(b, loc(), typeOf(x), x, axis).getResult());
  case 1: return (void)add(dl::LogSoftmaxOp::create(b, loc(), typeOf(x), x, axis).getResult());
  case 2: return (void)add(dl::LogsumexpOp::create(b, loc(), x, axis).getResult());
  default: {
    auto classes = dyn_cast<AffineConstantExpr>(sizes.back());
    if (!classes || classes.getValue() < 1)
      return;
    Value label = addInput(tensor(ArrayRef(sizes).drop_back(), i32()), classes.getValue());
    add(dl::CrossEntropyOp::create(b, loc(), x, label).getResult());
  }
  }
}

/// Elements at places that an input names, and a value that is changed there.
void Program::places() {
  auto sizeOf = [](AffineExpr size) {
    auto constant = dyn_cast<AffineConstantExpr>(size);
    return constant ? constant.getValue() : 0;
  };
  Node *found = pickFloat([&](const Node &node) { return llvm::any_of(sizesOf(node.value), [&](AffineExpr size) { return sizeOf(size) > 0; }); });
  if (!found)
    return;
  Node x = *found;
  Sizes sizes = sizesOf(x.value), at;
  SmallVector<int64_t> axes;
  for (int64_t axis = 0; axis < static_cast<int64_t>(sizes.size()); ++axis)
    if (sizeOf(sizes[axis]) > 0)
      axes.push_back(axis);
  int64_t axis = axes[random.below(axes.size())];
  if (random.chance(70))
    at.push_back(palette[random.below(3)]);
  Value index = addInput(tensor(at, i32()), sizeOf(sizes[axis]));
  Value taken = dl::GatherOp::create(b, loc(), x.value, index, axis, axis);
  if (random.chance(40))
    return (void)add(taken, x.bits);
  Value updates = random.chance(50) ? taken : dl::TanhOp::create(b, loc(), taken).getResult();
  Value into = random.chance(30) ? number(x.value, 0) : x.value;
  if (random.chance(60))
    add(dl::ScatterAddOp::create(b, loc(), into, updates, index, axis, axis).getResult());
  else
    add(dl::ScatterOp::create(b, loc(), into, updates, index, axis, axis).getResult(), updates == taken ? x.bits : inexact);
}

void Program::decide() {
  Node *found = pickFloat([](const Node &node) { return node.bits < inexact; });
  if (!found)
    return;
  Node x = *found;
  Node *other = pickFloat([&](const Node &node) { return node.bits < inexact && sizesOf(node.value) == sizesOf(x.value); });
  Value y = other && random.chance(50) ? other->value : number(x.value, random.pick({0.0, 0.5, -0.25}));
  using P = dl::ComparePredicate;
  Value condition = add(dl::CompareOp::create(b, loc(), x.value, y, random.pick({P::lt, P::le, P::gt, P::ge, P::eq, P::ne})).getResult());
  for (const Node &node : bools)
    if (node.value != condition && sizesOf(node.value) == sizesOf(condition) && random.chance(60)) {
      condition = random.chance(50) ? dl::AndOp::create(b, loc(), condition, node.value).getResult() : dl::OrOp::create(b, loc(), condition, node.value).getResult();
      break;
    }
  if (random.chance(30))
    condition = dl::NotOp::create(b, loc(), condition);
  int64_t rank = typeOf(condition).getRank();
  if (rank && random.chance(40)) {
    SmallVector<int64_t> axes = pickAxes(rank);
    condition = random.chance(50) ? dl::AnyOp::create(b, loc(), condition, axes).getResult() : dl::AllOp::create(b, loc(), condition, axes).getResult();
  }
  add(condition);
  if (random.chance(50))
    add(dl::ConvertOp::create(b, loc(), tensor(sizesOf(condition), random.chance(70) ? Type(type) : i32()), condition).getResult(), 1);
}

void Program::numbers() {
  if (wholes.empty() || random.chance(40)) {
    // The place along an axis, as a number or a whole number.
    Node x = *pickFloat();
    Sizes sizes = sizesOf(x.value);
    if (sizes.empty())
      return;
    Value place = dl::IotaOp::create(b, loc(), tensor(sizes, random.chance(50) ? i32() : Type(type)), static_cast<int64_t>(random.below(sizes.size())));
    add(place, 8);
    return;
  }
  Node x = random.pick(wholes), y = random.pick(wholes);
  Value fitted = fit(y.value, sizesOf(x.value));
  if (!fitted)
    fitted = dl::FillOp::create(b, loc(), typeOf(x.value), int64_t(3));
  switch (random.below(6)) {
  case 0: add(dl::AddOp::create(b, loc(), x.value, fitted).getResult(), x.bits + 1); break;
  case 1: add(dl::MaximumOp::create(b, loc(), x.value, fitted).getResult(), x.bits); break;
  case 2: add(dl::RemOp::create(b, loc(), x.value, fitted).getResult(), x.bits); break;
  case 3: add(dl::FloorDivideOp::create(b, loc(), x.value, fitted).getResult(), x.bits); break;
  case 4: add(dl::CompareOp::create(b, loc(), x.value, fitted, dl::ComparePredicate::lt).getResult()); break;
  case 5:
    if (int64_t rank = typeOf(x.value).getRank())
      add(dl::SumOp::create(b, loc(), x.value, pickAxes(rank)).getResult(), x.bits + 8);
    break;
  }
  if (random.chance(60) && x.bits < 16)
    add(dl::ConvertOp::create(b, loc(), tensor(sizesOf(x.value)), x.value).getResult(), x.bits);
}

void Program::draw() {
  Node x = *pickFloat();
  RankedTensorType scalar = RankedTensorType::get({}, b.getI64Type());
  if (!seedArgument)
    seedArgument = addInput(scalar);
  Value call = dl::FillOp::create(b, loc(), scalar, static_cast<int64_t>(random.below(100)));
  uint32_t stream = random.below(1000);
  // Dropout, and noise.
  if (random.chance(60)) {
    Value u = dl::UniformOp::create(b, loc(), typeOf(x.value), seedArgument, call, stream);
    Value keep = dl::CompareOp::create(b, loc(), u, number(u, 0.25), dl::ComparePredicate::ge);
    Value kept = dl::SelectOp::create(b, loc(), x.value.getType(), keep, shrink(x.value, 2), number(x.value, 0));
    add(kept, x.bits + 1);
  } else {
    Value noise = dl::NormalOp::create(b, loc(), typeOf(x.value), seedArgument, call, stream);
    add(dl::AddOp::create(b, loc(), x.value, shrink(noise, 0.125)).getResult());
  }
}

SmallVector<Value> Program::inside(Block &body, unsigned steps, ArrayRef<Type> types) {
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToEnd(&body);
  auto outer = std::make_tuple(floats, wholes, bools);
  for (BlockArgument argument : body.getArguments())
    if (!typeOf(argument).getElementType().isInteger(64)) // a loop's index
      add(argument);
  ++depth;
  for (unsigned i = 0; i < steps; ++i)
    step();
  --depth;
  SmallVector<Value> values;
  for (Type wanted : types) {
    SmallVector<Value> candidates;
    for (const Node &node : llvm::reverse(floats))
      if (node.value.getType() == wanted && candidates.size() < 3)
        candidates.push_back(node.value);
    Value value = random.pick(candidates);
    // What grows from turn to turn grows beyond all numbers.
    values.push_back(random.chance(70) ? dl::TanhOp::create(b, loc(), value).getResult() : shrink(value, 0.5));
  }
  std::tie(floats, wholes, bools) = outer;
  return values;
}

void Program::loop() {
  if (depth >= 2)
    return;
  // As many turns as an axis of something has places, which are read or written turn by turn, or a few.
  Node *whole = random.chance(70) ? pickFloat([](const Node &node) { return typeOf(node.value).getRank() > 0; }) : nullptr;
  int64_t axis = whole ? random.below(typeOf(whole->value).getRank()) : 0;
  // Not as many as there are elements: the interpreter takes its time.
  if (whole) {
    AffineExpr size = sizesOf(whole->value)[axis];
    auto constant = dyn_cast<AffineConstantExpr>(size);
    if (constant ? constant.getValue() < 1 || constant.getValue() > 20 : !isa<AffineSymbolExpr>(size))
      whole = nullptr;
  }
  AffineExpr turns = whole ? sizesOf(whole->value)[axis] : c(1 + random.below(4));
  Value wholeValue = whole ? whole->value : Value();
  SmallVector<Value> inits;
  for (unsigned i = 0, count = 1 + random.below(2); i < count; ++i)
    inits.push_back(pickFloat()->value);
  Value out;
  if (whole && random.chance(50)) {
    // All of it is written.
    bool isNew = random.chance(60);
    out = isNew ? dl::EmptyOp::create(b, loc(), typeOf(wholeValue)).getResult() : wholeValue;
  }
  RankedTensorType index = RankedTensorType::get({}, b.getI64Type()), condition = RankedTensorType::get({}, i1());
  bool breaks = !out && random.chance(15);
  SmallVector<Value> all;
  if (breaks)
    all.push_back(dl::FillOp::create(b, loc(), condition, int64_t(1)));
  all.append(inits);
  if (out)
    all.push_back(out);
  auto body = std::make_unique<Block>();
  Value turn = body->addArgument(index, loc());
  if (breaks)
    body->addArgument(condition, loc());
  OpBuilder first(context());
  first.setInsertionPointToEnd(body.get());
  for (Value init : inits)
    body->addArgument(init.getType(), loc());
  Value slice, place = turn;
  if (whole) {
    if (random.chance(40)) { // backwards
      Value count = dl::SizeOp::create(first, loc(), index, dl::sizeMap(dl::normalizeSize(turns - 1), context()));
      place = dl::SubOp::create(first, loc(), count, turn);
    }
    Sizes part = sizesOf(wholeValue);
    if (random.chance(70))
      part.erase(part.begin() + axis);
    else
      part[axis] = c(1);
    slice = dl::SliceAtOp::create(first, loc(), tensor(part), wholeValue, place, axis);
  }
  auto outer = std::make_pair(floats, bools);
  if (slice)
    add(slice);
  SmallVector<Type> types = llvm::to_vector(ValueRange(inits).getTypes());
  if (out)
    types.push_back(slice.getType());
  SmallVector<Value> next = inside(*body, 1 + random.below(4), types);
  std::tie(floats, bools) = outer;
  OpBuilder end(context());
  end.setInsertionPointToEnd(body.get());
  if (breaks) {
    // Until a certain turn.
    Value last = dl::FillOp::create(end, loc(), index, static_cast<int64_t>(random.below(5)));
    next.insert(next.begin(), dl::CompareOp::create(end, loc(), turn, last, dl::ComparePredicate::lt).getResult());
  }
  if (out) {
    Value argument = body->addArgument(out.getType(), loc());
    next.back() = dl::SliceUpdateOp::create(end, loc(), out.getType(), argument, next.back(), place, axis);
  }
  dl::YieldOp::create(end, loc(), next);
  auto made = dl::ForOp::create(b, loc(), c(0), turns, Value(), breaks, all);
  made.getBody().push_back(body.release());
  for (Value result : made.getResults().drop_front(breaks))
    add(result);
}

void Program::choose() {
  if (depth >= 2 || bools.empty())
    return;
  Value condition = random.pick(bools).value;
  if (int64_t rank = typeOf(condition).getRank()) {
    SmallVector<int64_t> axes = llvm::to_vector(llvm::seq<int64_t>(0, rank));
    condition = random.chance(50) ? dl::AnyOp::create(b, loc(), condition, axes).getResult() : dl::AllOp::create(b, loc(), condition, axes).getResult();
  }
  SmallVector<Type> types;
  for (unsigned i = 0, count = 1 + random.below(2); i < count; ++i)
    types.push_back(pickFloat()->value.getType());
  std::unique_ptr<Block> blocks[2];
  for (auto &block : blocks) {
    block = std::make_unique<Block>();
    SmallVector<Value> values = inside(*block, random.below(4), types);
    OpBuilder end(context());
    end.setInsertionPointToEnd(block.get());
    dl::YieldOp::create(end, loc(), values);
  }
  auto made = dl::IfOp::create(b, loc(), types, condition);
  made.getWhenTrue().push_back(blocks[0].release());
  made.getWhenFalse().push_back(blocks[1].release());
  for (Value result : made.getResults())
    add(result);
}

/// Does a derivative flow from the value back to the input?
bool Program::dependsOn(Value value, Value input) {
  SmallVector<Value> work{value};
  DenseSet<Value> seen;
  while (!work.empty()) {
    Value at = work.pop_back_val();
    if (at == input)
      return true;
    if (!seen.insert(at).second)
      continue;
    Operation *def = at.getDefiningOp();
    // What a loop carries comes from before it and from its turns.
    auto argument = dyn_cast<BlockArgument>(at);
    auto loop = dyn_cast_or_null<dl::ForOp>(argument ? argument.getOwner()->getParentOp() : def);
    if (loop && (!argument || argument.getArgNumber() > 0)) {
      unsigned number = argument ? argument.getArgNumber() - 1 : cast<OpResult>(at).getResultNumber();
      work.push_back(loop.getInits()[number]);
      work.push_back(loop.getNext()[number]);
      continue;
    }
    if (auto branch = dyn_cast_or_null<dl::IfOp>(def)) {
      for (Region &region : branch->getRegions())
        work.push_back(region.front().getTerminator()->getOperand(cast<OpResult>(at).getResultNumber()));
      continue;
    }
    if (!def || isa<dl::FloorOp, dl::SignOp, dl::StopGradientOp, dl::RoundOp>(def))
      continue;
    for (Value operand : def->getOperands())
      if (isa<FloatType>(getElementTypeOrSelf(operand.getType())))
        work.push_back(operand);
  }
  return false;
}

void Program::differentiate() {
  for (unsigned order = 0; order < (smooth && random.chance(30) ? 2 : 1); ++order) {
    Value x = pickFloat()->value;
    if (random.chance(50))
      x = dl::MulOp::create(b, loc(), x, x);
    Value loss = dl::SumOp::create(b, loc(), x, llvm::to_vector(llvm::seq<int64_t>(0, typeOf(x).getRank())));
    SmallVector<Value> wrt;
    // Inputs, and sometimes a value on the way.
    for (const Node &node : floats) {
      bool isInput = isa<BlockArgument>(node.value) || node.value.getDefiningOp<dl::ReadOp>();
      if ((isInput ? random.chance(80) : random.chance(4)) && node.value != x && dependsOn(loss, node.value))
        wrt.push_back(node.value);
    }
    if (wrt.empty())
      return;
    ++gradientsTaken;
    auto gradient = dl::GradientOp::create(b, loc(), loss, wrt);
    add(loss);
    for (auto [input, result] : llvm::zip(wrt, gradient.getResults())) {
      add(result);
      gradients.push_back({input, result});
    }
  }
}

void Program::assign() {
  std::vector<std::pair<std::string, Value>> updates;
  for (const Input &input : inputs) {
    if (input.variable.empty() || random.chance(15))
      continue;
    Value read;
    for (auto op : block->getOps<dl::ReadOp>())
      if (op.getVariable() == input.variable)
        read = op.getResult();
    // The step of a training, another variable as it is (a swap, perhaps), or any value of the type.
    Value value;
    for (auto [of, gradient] : gradients)
      if (of == read && random.chance(75))
        value = dl::SubOp::create(b, loc(), read, shrink(gradient, 0.0625));
    SmallVector<Value> candidates;
    for (const Node &node : floats)
      if (typeOf(node.value) == input.type)
        candidates.push_back(node.value);
    if (!value)
      value = candidates.empty() ? read : random.pick(candidates); // none: one that only a loop reads
    updates.push_back({input.variable, value});
  }
  for (auto &[variable, value] : updates)
    dl::AssignOp::create(b, loc(), FlatSymbolRefAttr::get(context(), variable), value);
}

//===--- running ---===//

Array drawInput(const Program::Input &input, Random &random, ArrayRef<int64_t> dims, bool hasSpecials) {
  Array array;
  array.element = input.type.getElementType();
  array.dims = evaluateShape(input.type, dims);
  array.values.resize(array.count());
  array.exact = true;
  for (double &value : array.values) {
    if (input.isLabel)
      value = random.chance(15) ? -100 : static_cast<int64_t>(random.below(input.classes));
    else if (array.element.isInteger(1))
      value = random.below(2);
    else if (isa<IntegerType>(array.element))
      value = random.below(100000);
    else if (hasSpecials && random.chance(6))
      value = random.pick({std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(), -0.0});
    else // multiples of 1/16: sums and products of some are exact
      value = (static_cast<double>(random.below(65)) - 32) / 16;
  }
  return array;
}

/// Is no size negative, and nothing asked of the largest of none?
bool isPossible(dl::FuncOp function, ArrayRef<int64_t> dims) {
  bool possible = true;
  auto exists = [&](Type type) { return llvm::all_of(evaluateShape(type, dims), [](int64_t size) { return size >= 0; }); };
  possible &= llvm::all_of(function.getArgumentTypes(), exists);
  function.walk([&](Operation *op) {
    possible &= llvm::all_of(op->getResultTypes(), exists);
    if (isa<dl::ArgmaxOp, dl::ArgminOp>(op))
      possible &= Array::countOf(evaluateShape(op->getOperand(0).getType(), dims)) > 0;
    // the last of none
    if (auto slice = dyn_cast<dl::SliceOp>(op)) {
      std::vector<int64_t> from = evaluateShape(slice.getX().getType(), dims), to = evaluateShape(slice.getType(), dims);
      for (size_t axis = 0; axis < to.size(); ++axis) {
        int64_t first = evaluateSize(slice.getStarts().getResult(axis), dims), last = first + (to[axis] - 1) * slice.getStrides()[axis];
        possible &= Array::countOf(to) == 0 || (first >= 0 && first < from[axis] && last >= 0 && last < from[axis]);
      }
    }
  });
  return possible;
}

/// Numbers that the interpreter has to look at.
double costOf(dl::FuncOp function, ArrayRef<int64_t> dims) {
  double cost = 0;
  function.walk([&](Operation *op) {
    double count = 0;
    for (Type type : op->getResultTypes())
      count += Array::countOf(evaluateShape(type, dims));
    if (auto product = dyn_cast<dl::MatmulOp>(op))
      count *= evaluateShape(product.getLhs().getType(), dims).rbegin()[product.getLhsTransposed()];
    for (Value operand : op->getOperands())
      count += Array::countOf(evaluateShape(operand.getType(), dims));
    for (auto loop = op->getParentOfType<dl::ForOp>(); loop; loop = loop->getParentOfType<dl::ForOp>())
      count *= std::max<int64_t>(evaluateSize(loop.getTurns(), dims), 1);
    cost += count;
  });
  return cost;
}

enum class Outcome { Same, Unstable, Different };

/// Runs the program of a seed and compares; says what differs.
Outcome runProgram(uint64_t seed, unsigned steps, const TestTarget &target, std::string &what) {
  Program program(seed, steps);
  ModuleOp module = program.model.getModule();
  OwningOpRef<ModuleOp> plain = program.model.differentiated();
  if (!plain) {
    what = "does not differentiate: " + takeDiagnostics();
    // The gradient of a gradient that is constant: an error, and rightly so.
    bool isConstant = program.gradientsTaken > 1 && StringRef(what).contains("the value does not depend on what it is derived by");
    return isConstant ? Outcome::Unstable : Outcome::Different;
  }
  std::string error;
  // Tasks are split among threads, and their number decides nothing.
  unsigned threads = 1 + seed % 2;
  std::unique_ptr<Compiled> compiled = Compiled::make(module, target, error, threads);
  if (!compiled) {
    what = "does not compile: " + error;
    return Outcome::Different;
  }
  Random random(seed);
  std::vector<std::vector<int64_t>> calls{{4, 3}, {1, 1}, {19, 6}};
  if (seed % 8 == 0)
    for (int64_t n : {1200, 150}) // more than one task
      if (costOf(findFunction(*plain, "f"), {n, 6}) < 4e6) {
        calls.push_back({n, 6});
        break;
      }
  calls.push_back({0, 2});
  std::map<std::string, Array> variables;
  bool isStable = false;
  for (const std::vector<int64_t> &dims : calls) {
    if (!isPossible(findFunction(*plain, "f"), dims))
      continue;
    for (unsigned attempt = 0; attempt < 4; ++attempt) {
      std::vector<Array> arguments;
      for (const Program::Input &input : program.inputs) {
        Array array = drawInput(input, random, dims, program.hasSpecials);
        if (input.variable.empty())
          arguments.push_back(array);
        else
          variables[input.variable] = array;
      }
      for (auto &[name, array] : variables)
        compiled->write(name, array);
      std::map<std::string, Array> expectedVariables = variables;
      Reference reference(findFunction(*plain, "f"), dims);
      std::vector<Array> expected = reference.run(arguments, &expectedVariables), actual = compiled->call("f", arguments, error);
      if (!error.empty()) {
        what = "the call fails: " + error;
        return Outcome::Different;
      }
      if (reference.isUnstable || reference.largest > 1e6)
        continue;
      isStable = true;
      double tolerance = program.type.isF32() ? 4e-5 : 1e-10, scale = std::max(1.0, reference.largest);
      auto compare = [&](const Array &a, const Array &e, const std::string &name) {
        std::string text = difference(a, e, e.exact || !isa<FloatType>(e.element) ? 0 : tolerance, scale);
        if (!text.empty() && what.empty())
          what = name + " with N = " + std::to_string(dims[0]) + ", M = " + std::to_string(dims[1]) + ": " + text;
      };
      for (auto [i, a, e] : llvm::zip_equal(llvm::seq<size_t>(0, expected.size()), actual, expected))
        compare(a, e, "result " + std::to_string(i));
      for (auto &[name, e] : expectedVariables)
        compare(compiled->read(name, e), e, "variable " + name);
      if (!what.empty())
        return Outcome::Different;
      break;
    }
  }
  return isStable ? Outcome::Same : Outcome::Unstable;
}

std::string textOf(uint64_t seed, unsigned steps) {
  Program program(seed, steps);
  std::string text;
  llvm::raw_string_ostream os(text);
  program.model.getModel().print(os);
  return text;
}

/// A program on one of these targets, in turn; OpsTest.cpp runs everything on all.
void testProgram(uint64_t seed, const std::vector<TestTarget> &targets) {
  unsigned steps = 2 + seed % kSteps;
  const TestTarget &target = targets[seed / 2 % targets.size()];
  std::string what;
  if (getenv("DLC_PRINT_PROGRAM")) // one that crashes does not get to print itself
    llvm::errs() << textOf(seed, steps);
  Outcome outcome = runProgram(seed, steps, target, what);
  // Where an op jumps too near to a number that is rounded, another program.
  for (unsigned attempt = 0; attempt < 20 && outcome == Outcome::Unstable; ++attempt)
    what.clear(), outcome = runProgram(seed += 10000, steps, target, what);
  ASSERT_NE(outcome, Outcome::Unstable);
  if (outcome == Outcome::Same)
    return;
  // The shortest program that fails.
  for (unsigned fewer = 0; fewer < steps; ++fewer) {
    std::string other;
    if (runProgram(seed, fewer, target, other) == Outcome::Different) {
      steps = fewer;
      what = other;
      break;
    }
  }
  ADD_FAILURE() << "seed " << seed << ", " << steps << " steps, " << target.name << ": " << what << "\n" << textOf(seed, steps);
}

auto seeds(unsigned count) { return testing::Range(0u, getenv("DLC_PROGRAMS") ? static_cast<unsigned>(atoi(getenv("DLC_PROGRAMS"))) : count); }

class ProgramTest : public testing::TestWithParam<unsigned> {};
TEST_P(ProgramTest, IsWhatTheInterpreterSays) { testProgram(GetParam(), processorsUnderTest()); }
INSTANTIATE_TEST_SUITE_P(Seed, ProgramTest, seeds(kPrograms), testing::PrintToStringParamName());

class ProgramOnGpuTest : public testing::TestWithParam<unsigned> {};
TEST_P(ProgramOnGpuTest, IsWhatTheInterpreterSays) {
  if (gpusUnderTest().empty())
    GTEST_SKIP() << "the stand-in for a GPU is not built for this machine";
  testProgram(GetParam(), gpusUnderTest());
}
INSTANTIATE_TEST_SUITE_P(Seed, ProgramOnGpuTest, seeds(kProgramsOnGpu), testing::PrintToStringParamName());

} // namespace
