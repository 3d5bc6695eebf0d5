//===- DlGenerators.cpp - elements that come from where they lie -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// buildElements of constants, index ramps and random draws.

#include "dialects/dl/DlExpr.h"
#include "mlir/Dialect/Affine/Utils.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
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

/// The four words of the block that each of `lanes` consecutive elements lies in, and the element's place (0 to 3) in it. Where the first element's number
/// is a multiple of 4 and lanes too, blocks are computed once and their words interleaved.
static void drawWords(OpBuilder &b, Location loc, Value linear, ValueRange scalars, uint32_t stream, int64_t lanes, std::array<Value, 4> &words, Value &place) {
  Type word = b.getI32Type();
  Type type = lanes == 1 ? word : Type(VectorType::get(lanes, word));
  Value element = ramp(b, loc, linear, lanes); // i64
  Type wide = element.getType();
  auto wideNumber = [&](int64_t n) { return buildNumber(b, loc, wide, TypedAttr(b.getI64IntegerAttr(n))); };
  Value blockNumber = arith::TruncIOp::create(b, loc, type, arith::ShRUIOp::create(b, loc, element, wideNumber(2)));
  place = arith::AndIOp::create(b, loc, arith::TruncIOp::create(b, loc, type, element), Philox{b, loc, type}.constant(3));
  Value seed = scalars[0], call = scalars[1];
  Philox philox{b, loc, type};
  words = philox.block({blockNumber, philox.constant(stream), spread(b, loc, lowWord(b, loc, call), lanes), spread(b, loc, highWord(b, loc, call), lanes)},
                       {spread(b, loc, lowWord(b, loc, seed), lanes), spread(b, loc, highWord(b, loc, seed), lanes)});
}

/// The element's own word.
static Value drawWord(OpBuilder &b, Location loc, Value linear, ValueRange scalars, uint32_t stream, int64_t lanes) {
  std::array<Value, 4> words;
  Value place;
  drawWords(b, loc, linear, scalars, stream, lanes, words, place);
  ScalarExpr p(b, loc, place);
  auto word = [&](int i) { return ScalarExpr(b, loc, words[i]); };
  return select(lt(p, 2), select(eq(p, 0), word(0), word(1)), select(eq(p, 2), word(2), word(3))).value;
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
  return uniformOf(b, loc, drawWord(b, loc, linear, scalars, getStream(), lanes), getElementTypeOrSelf(getType()));
}

Value NormalOp::buildElements(OpBuilder &b, Location loc, ValueRange, Value linear, ValueRange scalars, int64_t lanes, SizeBuilder) {
  std::array<Value, 4> words;
  Value place;
  drawWords(b, loc, linear, scalars, getStream(), lanes, words, place);
  Type element = getElementTypeOrSelf(getType());
  Type compute = element.getIntOrFloatBitWidth() < 32 ? Type(b.getF32Type()) : element;
  ScalarExpr p(b, loc, place);
  auto word = [&](int i) { return ScalarExpr(b, loc, words[i]); };
  ScalarExpr upper = lt(p, 2);
  Value first = select(upper, word(0), word(2)).value, second = select(upper, word(1), word(3)).value;
  // 1 - u lies in (0, 1], so the logarithm is finite.
  ScalarExpr u(b, loc, uniformOf(b, loc, first, compute)), angle(b, loc, uniformOf(b, loc, second, compute));
  ScalarExpr radius = sqrt(log(u.number(1.0) - u) * -2.0);
  ScalarExpr turn = angle * 6.283185307179586;
  ScalarExpr isOdd = eq(p & ScalarExpr(b, loc, Philox{b, loc, place.getType()}.constant(1)), 1);
  return convert(radius * select(isOdd, sin(turn), cos(turn)), compute, element).value;
}

Value RandintOp::buildElements(OpBuilder &b, Location loc, ValueRange, Value linear, ValueRange scalars, int64_t lanes, SizeBuilder) {
  Value word = drawWord(b, loc, linear, scalars, getStream(), lanes);
  Philox philox{b, loc, word.getType()};
  Value range = philox.constant(static_cast<uint32_t>(getHigh() - getLow()));
  Value high = arith::MulUIExtendedOp::create(b, loc, word, range).getHigh();
  Type element = getElementTypeOrSelf(getType());
  ScalarExpr draw = convert(ScalarExpr(b, loc, high), IntegerType::get(b.getContext(), 32, IntegerType::Unsigned), element);
  return (draw + draw.number(static_cast<double>(getLow()))).value;
}

} // namespace dlc::dl
