//===- ExpandRemainder.cpp - the remainder of floats, exactly -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// On the CPU arith.remf is fmod of libm; a GPU has none, and x - trunc(x / y) * y is wrong where the quotient has more bits than a float. Here it is a long division
// of the significands: as many bits of the quotient at once as 64-bit integers have room for, one round for quotients of common size.

#include "compiler/lowering/cuda/CudaTarget.h"
#include "dialects/dl/DlExpr.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"

using namespace mlir;

namespace dlc::cuda {
#define GEN_PASS_DEF_CUDAEXPANDREMAINDER
#include "compiler/lowering/cuda/Passes.h.inc"

namespace {
/// 64-bit integers.
struct Word {
  OpBuilder &b;
  Location loc;
  Value value;
  Word with(Value other) const { return {b, loc, other}; }
  Word number(int64_t n) const { return with(arith::ConstantOp::create(b, loc, b.getI64IntegerAttr(n))); }
  Word operator+(Word other) const { return with(arith::AddIOp::create(b, loc, value, other.value)); }
  Word operator-(Word other) const { return with(arith::SubIOp::create(b, loc, value, other.value)); }
  Word operator%(Word other) const { return with(arith::RemUIOp::create(b, loc, value, other.value)); }
  Word operator&(Word other) const { return with(arith::AndIOp::create(b, loc, value, other.value)); }
  Word operator|(Word other) const { return with(arith::OrIOp::create(b, loc, value, other.value)); }
  Word operator<<(Word other) const { return with(arith::ShLIOp::create(b, loc, value, other.value)); }
  Word operator>>(Word other) const { return with(arith::ShRUIOp::create(b, loc, value, other.value)); }
  Value compare(arith::CmpIPredicate predicate, Word other) const { return arith::CmpIOp::create(b, loc, predicate, value, other.value); }
  Word select(Value condition, Word whenTrue, Word whenFalse) const { return with(arith::SelectOp::create(b, loc, condition, whenTrue.value, whenFalse.value)); }
};

/// fmod(x, y) of numbers.
Value expand(OpBuilder &b, Location loc, Value x, Value y) {
  auto type = cast<FloatType>(x.getType());
  int64_t bits = type.getWidth(), fraction = type.getFPMantissaWidth() - 1, roomBits = 64 - (fraction + 1);
  Type integer = b.getIntegerType(bits);
  auto magnitude = [&](Value v) {
    Value absolute = math::AbsFOp::create(b, loc, v);
    Value word = arith::BitcastOp::create(b, loc, integer, absolute);
    return Word{b, loc, bits == 64 ? word : arith::ExtUIOp::create(b, loc, b.getI64Type(), word).getResult()};
  };
  Word ax = magnitude(x), ay = magnitude(y), zero = ax.number(0), one = ax.number(1), width = ax.number(fraction), hidden = one << width;
  Word infinity = ax.number(((int64_t(1) << (bits - 1 - fraction)) - 1) << fraction);
  using arith::CmpIPredicate;
  // The significand, and the exponent that its last bit has, counted from the smallest number's.
  auto split = [&](Word word) {
    Word exponent = word >> width, significand = word & (hidden - one);
    Value isNormal = exponent.compare(CmpIPredicate::ne, zero);
    return std::pair(significand | word.select(isNormal, hidden, zero), word.select(isNormal, exponent - one, zero));
  };
  auto [mx, ex] = split(ax);
  auto [my, ey] = split(ay);
  Word divisor = my.select(my.compare(CmpIPredicate::eq, zero), one, my); // of 0: not looked at below
  Value isWhole = ax.compare(CmpIPredicate::ult, ay);                     // x itself is the remainder
  Word distance = zero.select(isWhole, zero, ex - ey), rest = mx % divisor, room = zero.number(roomBits);
  auto loop = scf::WhileOp::create(
      b, loc, TypeRange{b.getI64Type(), b.getI64Type()}, ValueRange{rest.value, distance.value},
      [&](OpBuilder &o, Location, ValueRange carried) {
        Word left{o, loc, carried[1]};
        scf::ConditionOp::create(o, loc, left.compare(CmpIPredicate::sgt, left.number(0)), carried);
      },
      [&](OpBuilder &o, Location, ValueRange carried) {
        Word rest{o, loc, carried[0]}, left{o, loc, carried[1]};
        Word step = left.with(arith::MinSIOp::create(o, loc, left.value, room.value));
        Word next = (rest << step) % rest.with(divisor.value);
        scf::YieldOp::create(o, loc, ValueRange{next.value, (left - step).value});
      });
  // rest times the unit of y's last bit, which is a float: both factors and the product are exact.
  Value isSubnormal = ey.compare(CmpIPredicate::slt, width);
  Word unit = zero.select(isSubnormal, one << zero.select(isSubnormal, ey, zero), ((ey - width) + one) << width);
  Value unitBits = bits == 64 ? unit.value : arith::TruncIOp::create(b, loc, integer, unit.value).getResult();
  Value scaled = arith::MulFOp::create(b, loc, arith::UIToFPOp::create(b, loc, type, loop.getResult(0)), arith::BitcastOp::create(b, loc, type, unitBits));
  Value result = arith::SelectOp::create(b, loc, isWhole, x, math::CopySignOp::create(b, loc, scaled, x));
  Value isDefined = arith::AndIOp::create(b, loc, ax.compare(CmpIPredicate::ult, infinity), ay.compare(CmpIPredicate::ule, infinity));
  isDefined = arith::AndIOp::create(b, loc, isDefined, ay.compare(CmpIPredicate::ne, zero));
  return arith::SelectOp::create(b, loc, isDefined, result, dl::buildNumber(b, loc, type, std::numeric_limits<double>::quiet_NaN()));
}

struct ExpandRemainder : impl::CudaExpandRemainderBase<ExpandRemainder> {
  void runOnOperation() override {
    SmallVector<arith::RemFOp> found;
    getOperation().walk([&](arith::RemFOp op) { found.push_back(op); });
    for (arith::RemFOp op : found) {
      OpBuilder b(op);
      Location loc = op.getLoc();
      Value result;
      if (auto vector = dyn_cast<VectorType>(op.getType())) {
        SmallVector<Value> lanes;
        for (int64_t lane = 0; lane < vector.getNumElements(); ++lane)
          lanes.push_back(expand(b, loc, vector::ExtractOp::create(b, loc, op.getLhs(), ArrayRef<int64_t>{lane}), vector::ExtractOp::create(b, loc, op.getRhs(), ArrayRef<int64_t>{lane})));
        result = vector::FromElementsOp::create(b, loc, vector, lanes);
      } else {
        result = expand(b, loc, op.getLhs(), op.getRhs());
      }
      op.replaceAllUsesWith(result);
      op.erase();
    }
  }
};
} // namespace
} // namespace dlc::cuda
