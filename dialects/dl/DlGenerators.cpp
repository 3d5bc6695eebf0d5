//===- DlGenerators.cpp - elements that come from where they lie -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// buildElements of constants, index ramps and random draws.

#include "dialects/dl/DlExpr.h"
#include "mlir/Dialect/Affine/Utils.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

using namespace mlir;

namespace dlc::dl {

using SizeBuilder = llvm::function_ref<Value(AffineExpr)>;

static Type signless(Type type) { return type.isUnsignedInteger() ? Type(IntegerType::get(type.getContext(), type.getIntOrFloatBitWidth())) : type; }

/// `lanes` copies of a scalar.
static Value spread(OpBuilder &b, Location loc, Value scalar, int64_t lanes) {
  if (lanes == 1)
    return scalar;
  return vector::BroadcastOp::create(b, loc, VectorType::get(lanes, scalar.getType()), scalar);
}

/// base, base + 1, … in an integer type.
static Value ramp(OpBuilder &b, Location loc, Value base, int64_t lanes) {
  if (lanes == 1)
    return base;
  auto type = VectorType::get(lanes, base.getType());
  SmallVector<Attribute> steps;
  for (int64_t i = 0; i < lanes; ++i)
    steps.push_back(b.getIntegerAttr(base.getType(), i));
  Value offsets = arith::ConstantOp::create(b, loc, DenseElementsAttr::get(type, steps));
  return arith::AddIOp::create(b, loc, spread(b, loc, base, lanes), offsets);
}

Value FillOp::buildElements(OpBuilder &b, Location loc, ValueRange, Value, ValueRange, int64_t lanes, SizeBuilder) {
  Type element = signless(getElementTypeOrSelf(getType()));
  Type type = lanes == 1 ? element : Type(VectorType::get(lanes, element));
  if (auto number = dyn_cast<FloatAttr>(getValue()))
    return buildNumber(b, loc, type, number.getValueAsDouble());
  int64_t number = cast<IntegerAttr>(getValue()).getValue().getSExtValue();
  if (isa<FloatType>(element))
    return buildNumber(b, loc, type, static_cast<double>(number));
  return buildNumber(b, loc, type, TypedAttr(b.getIntegerAttr(element, element.isInteger(1) ? number & 1 : number)));
}

Value SizeOp::buildElements(OpBuilder &b, Location loc, ValueRange, Value linear, ValueRange scalars, int64_t lanes, SizeBuilder size) {
  Type element = getElementTypeOrSelf(getType());
  Value number = arith::IndexCastOp::create(b, loc, b.getI64Type(), size(getMap().getResult(0)));
  return spread(b, loc, convert(ScalarExpr(b, loc, number), b.getI64Type(), element).value, lanes);
}

bool IotaOp::usesLinearOnly() { return false; }
Value IotaOp::buildElements(OpBuilder &b, Location loc, ValueRange indices, Value, ValueRange, int64_t lanes, SizeBuilder) {
  Type element = getElementTypeOrSelf(getType());
  int64_t axis = getAxis();
  // 32-bit lanes hold every index of an i32 ramp; others take 64.
  Type whole = isa<FloatType>(element) || element.getIntOrFloatBitWidth() > 32 ? b.getI64Type() : b.getI32Type();
  Value index = arith::IndexCastOp::create(b, loc, whole, indices[axis]);
  bool isInnermost = axis == cast<RankedTensorType>(getType()).getRank() - 1;
  Value elements = isInnermost ? ramp(b, loc, index, lanes) : spread(b, loc, index, lanes);
  return convert(ScalarExpr(b, loc, elements), whole, element).value;
}

//===--- Philox4x32-10 ---===//

namespace {
/// 32-bit words, scalar or vectors alike.
struct Philox {
  OpBuilder &b;
  Location loc;
  Type type; // i32 or vector<lanes x i32>

  Value constant(uint32_t n) { return buildNumber(b, loc, type, TypedAttr(b.getIntegerAttr(b.getI32Type(), APInt(32, n)))); }
  Value bitXor(Value a, Value c) { return arith::XOrIOp::create(b, loc, a, c); }

  /// One block: the four words for a counter and a key.
  std::array<Value, 4> block(std::array<Value, 4> counter, std::array<Value, 2> key) {
    Value m0 = constant(0xD2511F53u), m1 = constant(0xCD9E8D57u), w0 = constant(0x9E3779B9u), w1 = constant(0xBB67AE85u);
    for (int round = 0; round < 10; ++round) {
      auto product0 = arith::MulUIExtendedOp::create(b, loc, m0, counter[0]);
      auto product1 = arith::MulUIExtendedOp::create(b, loc, m1, counter[2]);
      counter = {bitXor(bitXor(product1.getHigh(), counter[1]), key[0]), product1.getLow(), bitXor(bitXor(product0.getHigh(), counter[3]), key[1]), product0.getLow()};
      if (round < 9) {
        key[0] = arith::AddIOp::create(b, loc, key[0], w0);
        key[1] = arith::AddIOp::create(b, loc, key[1], w1);
      }
    }
    return counter;
  }
};
} // namespace

static Value lowWord(OpBuilder &b, Location loc, Value wide) { return arith::TruncIOp::create(b, loc, b.getI32Type(), wide); }
static Value highWord(OpBuilder &b, Location loc, Value wide) {
  Value shift = arith::ConstantOp::create(b, loc, b.getI64IntegerAttr(32));
  return lowWord(b, loc, arith::ShRUIOp::create(b, loc, wide, shift));
}

/// Blocks of `type` (i32 or a vector of it) for block numbers of that type.
static std::array<Value, 4> drawBlocks(OpBuilder &b, Location loc, Value blockNumber, ValueRange scalars) {
  Type type = blockNumber.getType();
  int64_t lanes = isa<VectorType>(type) ? cast<VectorType>(type).getNumElements() : 1;
  Value seed = scalars[0], call = scalars[1], stream = scalars[2];
  auto word = [&](Value w) { return spread(b, loc, w, lanes); };
  return Philox{b, loc, type}.block({blockNumber, word(stream), word(lowWord(b, loc, call)), word(highWord(b, loc, call))},
                                    {word(lowWord(b, loc, seed)), word(highWord(b, loc, seed))});
}

/// For each of `lanes` consecutive elements words of the block that it lies in: wordOfPlace says, for each result,
/// which word the element at place 0, 1, 2, 3 of its block takes. Where the first element begins a block, every block is computed once and its words interleaved.
static SmallVector<Value> drawWords(OpBuilder &b, Location loc, Value linear, ValueRange scalars, int64_t lanes, ArrayRef<std::array<int, 4>> wordOfPlace) {
  Type word = b.getI32Type();
  Type type = lanes == 1 ? word : Type(VectorType::get(lanes, word));
  auto oneByOne = [&](OpBuilder &o) {
    Value element = ramp(o, loc, linear, lanes); // i64
    Value blockNumber = arith::TruncIOp::create(o, loc, type, arith::ShRUIOp::create(o, loc, element, buildNumber(o, loc, element.getType(), TypedAttr(o.getI64IntegerAttr(2)))));
    Value place = arith::AndIOp::create(o, loc, arith::TruncIOp::create(o, loc, type, element), Philox{o, loc, type}.constant(3));
    std::array<Value, 4> words = drawBlocks(o, loc, blockNumber, scalars);
    SmallVector<Value> results;
    ScalarExpr p(o, loc, place);
    for (const std::array<int, 4> &map : wordOfPlace) {
      auto at = [&](int i) { return ScalarExpr(o, loc, words[map[i]]); };
      results.push_back(select(lt(p, 2), select(eq(p, 0), at(0), at(1)), select(eq(p, 2), at(2), at(3))).value);
    }
    return results;
  };
  if (lanes % 4 != 0)
    return oneByOne(b);
  Value place = arith::AndIOp::create(b, loc, linear, arith::ConstantOp::create(b, loc, b.getI64IntegerAttr(3)));
  Value beginsBlock = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, place, arith::ConstantOp::create(b, loc, b.getI64IntegerAttr(0)));
  SmallVector<Type> types(wordOfPlace.size(), type);
  auto branch = scf::IfOp::create(b, loc, types, beginsBlock, /*withElseRegion=*/true);
  OpBuilder fast = branch.getThenBodyBuilder();
  Value first = arith::TruncIOp::create(fast, loc, word, arith::ShRUIOp::create(fast, loc, linear, arith::ConstantOp::create(fast, loc, fast.getI64IntegerAttr(2))));
  std::array<Value, 4> words = drawBlocks(fast, loc, ramp(fast, loc, first, lanes / 4), scalars);
  OpBuilder slow = branch.getElseBodyBuilder();
  scf::YieldOp::create(slow, loc, oneByOne(slow));
  if (lanes == 4) { // one block
    SmallVector<Value> ordered;
    for (const std::array<int, 4> &map : wordOfPlace)
      ordered.push_back(vector::FromElementsOp::create(fast, loc, type, ValueRange{words[map[0]], words[map[1]], words[map[2]], words[map[3]]}));
    scf::YieldOp::create(fast, loc, ordered);
    return llvm::to_vector(ValueRange(branch.getResults()));
  }
  // Side by side: word w of block j is at w * lanes / 4 + j.
  Value low = vector::ShuffleOp::create(fast, loc, words[0], words[1], llvm::to_vector(llvm::seq<int64_t>(0, lanes / 2)));
  Value high = vector::ShuffleOp::create(fast, loc, words[2], words[3], llvm::to_vector(llvm::seq<int64_t>(0, lanes / 2)));
  SmallVector<Value> interleaved;
  for (const std::array<int, 4> &map : wordOfPlace) {
    SmallVector<int64_t> order;
    for (int64_t lane = 0; lane < lanes; ++lane)
      order.push_back(map[lane % 4] * (lanes / 4) + lane / 4);
    interleaved.push_back(vector::ShuffleOp::create(fast, loc, low, high, order));
  }
  scf::YieldOp::create(fast, loc, interleaved);
  return llvm::to_vector(ValueRange(branch.getResults()));
}

/// The element's own word.
static Value drawWord(OpBuilder &b, Location loc, Value linear, ValueRange scalars, int64_t lanes) {
  return drawWords(b, loc, linear, scalars, lanes, {{0, 1, 2, 3}})[0];
}

static Value toFloat(OpBuilder &b, Location loc, Value word, Type element) {
  Type type = isa<VectorType>(word.getType()) ? Type(cast<VectorType>(word.getType()).clone(element)) : element;
  return arith::SIToFPOp::create(b, loc, type, word); // at most 24 bits: the sign is clear
}

/// The word's top 24 bits times 2^-24, exactly.
static Value uniformOf(OpBuilder &b, Location loc, Value word, Type element) {
  Value top = arith::ShRUIOp::create(b, loc, word, Philox{b, loc, word.getType()}.constant(8));
  Type compute = element.getIntOrFloatBitWidth() < 32 ? Type(b.getF32Type()) : element;
  ScalarExpr u = ScalarExpr(b, loc, toFloat(b, loc, top, compute)) * 0x1p-24;
  return convert(u, compute, element).value;
}

Value UniformOp::buildElements(OpBuilder &b, Location loc, ValueRange, Value linear, ValueRange scalars, int64_t lanes, SizeBuilder) {
  return uniformOf(b, loc, drawWord(b, loc, linear, scalars, lanes), getElementTypeOrSelf(getType()));
}

Value NormalOp::buildElements(OpBuilder &b, Location loc, ValueRange, Value linear, ValueRange scalars, int64_t lanes, SizeBuilder) {
  Type element = getElementTypeOrSelf(getType());
  Type compute = element.getIntOrFloatBitWidth() < 32 ? Type(b.getF32Type()) : element;
  SmallVector<Value> words = drawWords(b, loc, linear, scalars, lanes, {{0, 0, 2, 2}, {1, 1, 3, 3}});
  // 1 - u lies in (0, 1], so the logarithm is finite.
  ScalarExpr u(b, loc, uniformOf(b, loc, words[0], compute)), angle(b, loc, uniformOf(b, loc, words[1], compute));
  ScalarExpr radius = sqrt(log(u.number(1.0) - u) * -2.0);
  ScalarExpr turn = angle * 6.283185307179586;
  Value parity = arith::TruncIOp::create(b, loc, words[0].getType(), ramp(b, loc, linear, lanes));
  ScalarExpr isOdd = eq(ScalarExpr(b, loc, parity) & ScalarExpr(b, loc, Philox{b, loc, parity.getType()}.constant(1)), 1);
  return convert(radius * select(isOdd, sin(turn), cos(turn)), compute, element).value;
}

Value RandintOp::buildElements(OpBuilder &b, Location loc, ValueRange, Value linear, ValueRange scalars, int64_t lanes, SizeBuilder) {
  Value word = drawWord(b, loc, linear, scalars, lanes);
  Philox philox{b, loc, word.getType()};
  Value range = philox.constant(static_cast<uint32_t>(getHigh() - getLow()));
  Value high = arith::MulUIExtendedOp::create(b, loc, word, range).getHigh();
  Type element = getElementTypeOrSelf(getType());
  ScalarExpr draw = convert(ScalarExpr(b, loc, high), IntegerType::get(b.getContext(), 32, IntegerType::Unsigned), element);
  return (draw + draw.number(static_cast<double>(static_cast<int64_t>(getLow())))).value;
}

SmallVector<IntegerAttr> UniformOp::getScalarAttributes() { return {getStreamAttr()}; }
SmallVector<IntegerAttr> NormalOp::getScalarAttributes() { return {getStreamAttr()}; }
SmallVector<IntegerAttr> RandintOp::getScalarAttributes() { return {getStreamAttr()}; }
bool UniformOp::isLarge() { return true; }
bool NormalOp::isLarge() { return true; }
bool RandintOp::isLarge() { return true; }

} // namespace dlc::dl
