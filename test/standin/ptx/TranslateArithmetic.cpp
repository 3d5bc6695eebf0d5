//===- TranslateArithmetic.cpp - PTX to LLVM IR: arithmetic and conversions -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// To nearest even is LLVM's own arithmetic; other modes, 16-bit floats and approximations are
// routines in Arithmetic.cpp. Nothing is contracted: a mul and an add stay two roundings.
//
//===----------------------------------------------------------------------===//

#include "FunctionTranslator.h"
#include "llvm/ADT/APFloat.h"
#include "llvm/ADT/StringSwitch.h"
#include "llvm/IR/Intrinsics.h"

using namespace llvm;

namespace standin::ptx {

static bool isPacked(Type type) { return type == Type::F16x2 || type == Type::BF16x2; }
static bool is16(Type type) { return type == Type::F16 || type == Type::BF16; }
static Type halfOf(Type type) { return type == Type::F16x2 ? Type::F16 : type == Type::BF16x2 ? Type::BF16 : type; }
static uint32_t formatOf(Type type) {
  switch (type) {
  case Type::F16: return FormatF16;
  case Type::BF16: return FormatBF16;
  case Type::F32: return FormatF32;
  default: return FormatF64;
  }
}

/// f32: a subnormal number becomes zero of its sign.
Value *FunctionTranslator::flush(Value *value) {
  Value *isSmall = builder.CreateFCmpOLT(builder.CreateUnaryIntrinsic(Intrinsic::fabs, value), ConstantFP::get(value->getType(), 0x1p-126));
  Value *zero = builder.CreateBinaryIntrinsic(Intrinsic::copysign, ConstantFP::get(value->getType(), 0), value);
  return builder.CreateSelect(isSmall, zero, value);
}

/// .sat: to [0, 1]; what is no number becomes 0.
Value *FunctionTranslator::clampUnit(Value *value) {
  Value *zero = ConstantFP::get(value->getType(), 0), *one = ConstantFP::get(value->getType(), 1);
  Value *low = builder.CreateSelect(builder.CreateFCmpOGT(value, zero), value, zero);
  return builder.CreateSelect(builder.CreateFCmpOLT(low, one), low, one);
}

/// A 16-bit float, as the bits that registers hold, to f32; and back from f64.
Value *FunctionTranslator::widen(Value *value, Type type) {
  if (!is16(type))
    return value;
  return call("widen16", builder.getFloatTy(), {builder.CreateZExt(value, builder.getInt32Ty()), i32(formatOf(type))});
}
Value *FunctionTranslator::narrow(Value *value, Type type) {
  if (!is16(type))
    return value;
  if (value->getType()->isFloatTy())
    value = builder.CreateFPExt(value, builder.getDoubleTy());
  return builder.CreateTrunc(call("narrow_16", builder.getInt32Ty(), {value, i32(formatOf(type))}), builder.getInt16Ty());
}

/// For f16x2 and bf16x2: both halves.
Value *FunctionTranslator::eachHalf(Type type, ArrayRef<Value *> values, function_ref<Value *(ArrayRef<Value *>)> make) {
  if (!isPacked(type))
    return make(values);
  Value *whole = i32(0);
  for (unsigned shift : {0u, 16u}) {
    SmallVector<Value *, 3> halves;
    for (Value *value : values)
      halves.push_back(builder.CreateTrunc(builder.CreateLShr(value, shift), builder.getInt16Ty()));
    whole = builder.CreateOr(whole, builder.CreateShl(builder.CreateZExt(make(halves), builder.getInt32Ty()), shift));
  }
  return whole;
}

/// add, sub, mul or div of one value.
Value *FunctionTranslator::floatBinary(StringRef name, Value *a, Value *b, Type type, std::optional<uint32_t> mode) {
  bool isSub = name == "sub";
  if (isPacked(type))
    return eachHalf(type, {a, b}, [&](ArrayRef<Value *> halves) { return floatBinary(name, halves[0], halves[1], halfOf(type), mode); });
  if (is16(type)) {
    if (isSub)
      b = builder.CreateXor(b, ConstantInt::get(b->getType(), 0x8000));
    Value *wideA = builder.CreateZExt(a, builder.getInt32Ty()), *wideB = builder.CreateZExt(b, builder.getInt32Ty());
    Value *result = call(name == "mul" ? "mul_16" : "add_16", builder.getInt32Ty(), {wideA, wideB, i32(formatOf(type))});
    return builder.CreateTrunc(result, builder.getInt16Ty());
  }
  if (mode.value_or(RoundNearest) != RoundNearest) {
    if (isSub)
      b = builder.CreateFNeg(b);
    return call((Twine(isSub ? "add" : name) + (type == Type::F32 ? "_f32" : "_f64")).str(), a->getType(), {a, b, i32(*mode)});
  }
  if (name == "add")
    return builder.CreateFAdd(a, b);
  if (isSub)
    return builder.CreateFSub(a, b);
  return name == "mul" ? builder.CreateFMul(a, b) : builder.CreateFDiv(a, b);
}

Value *FunctionTranslator::floatMinMax(Value *a, Value *b, Type type, bool isMax, bool keepsNan) {
  return eachHalf(type, {a, b}, [&](ArrayRef<Value *> each) {
    Type half = halfOf(type);
    Intrinsic::ID id = keepsNan ? (isMax ? Intrinsic::maximum : Intrinsic::minimum) : (isMax ? Intrinsic::maximumnum : Intrinsic::minimumnum);
    return narrow(builder.CreateBinaryIntrinsic(id, widen(each[0], half), widen(each[1], half)), half);
  });
}

//===----------------------------------------------------------------------===//
// Integers and floats
//===----------------------------------------------------------------------===//

/// add{.cc}{.sat}.type; add{.rn…}{.ftz}{.sat}.f32
bool FunctionTranslator::addOrSub() {
  bool isSub = in->name == "sub", setsCarry = has("cc"), sat = has("sat"), ftz = has("ftz");
  std::optional<uint32_t> mode = rounding();
  Type type;
  Value *a, *b;
  if (this->type(type) || operands(3) || read(op(1), type, a) || read(op(2), type, b))
    return true;
  if (type == Type::Pred || bitsOf(type) < 16 || bitsOf(type) > 64)
    return fail("'" + opcode() + "' is not known for this type");
  if (isFloat(type)) {
    if (setsCarry || (ftz && type == Type::F64) || (sat && type != Type::F32 && type != Type::F16))
      return fail("malformed '" + opcode() + "'");
    if (mode.value_or(RoundNearest) != RoundNearest && type != Type::F32 && type != Type::F64)
      return fail("'" + opcode() + "' rounds to nearest only");
    bool flushes = ftz && type == Type::F32;
    Value *result = floatBinary(in->name, flushes ? flush(a) : a, flushes ? flush(b) : b, type, mode);
    if (flushes)
      result = flush(result);
    if (sat)
      result = narrow(clampUnit(widen(result, type)), type);
    return write(op(0), type, result);
  }
  if (mode || ftz)
    return fail("malformed '" + opcode() + "'");
  if (sat && type != Type::S32)
    return fail("'" + opcode() + "' is not known for this type");
  if (setsCarry) {
    Value *pair = builder.CreateBinaryIntrinsic(isSub ? Intrinsic::usub_with_overflow : Intrinsic::uadd_with_overflow, a, b);
    builder.CreateStore(builder.CreateExtractValue(pair, 1), carryFlag);
  }
  if (sat)
    return write(op(0), type, builder.CreateBinaryIntrinsic(isSub ? Intrinsic::ssub_sat : Intrinsic::sadd_sat, a, b));
  return write(op(0), type, isSub ? builder.CreateSub(a, b) : builder.CreateAdd(a, b));
}

/// addc{.cc}, subc{.cc}, madc{.hi,.lo}{.cc}, in twice the width; the carry is its upper half.
bool FunctionTranslator::carry() {
  bool sets = has("cc"), hi = has("hi"), lo = has("lo"), isMad = in->name == "madc";
  Type type;
  if (this->type(type, {Type::U32, Type::S32, Type::B32, Type::U64, Type::S64, Type::B64}) || operands(isMad ? 4 : 3))
    return true;
  if ((hi || lo) != isMad)
    return fail("malformed '" + opcode() + "'");
  unsigned bits = bitsOf(type);
  llvm::Type *wide = intType(2 * bits);
  auto widened = [&](const Operand &operand, bool isSigned, Value *&value) {
    if (read(operand, type, value))
      return true;
    value = isSigned ? builder.CreateSExt(value, wide) : builder.CreateZExt(value, wide);
    return false;
  };
  Value *a, *b, *c = nullptr;
  if (widened(op(1), isMad && isSigned(type), a) || widened(op(2), isMad && isSigned(type), b) || (isMad && widened(op(3), false, c)))
    return true;
  Value *flag = builder.CreateZExt(builder.CreateLoad(builder.getInt1Ty(), carryFlag), wide);
  Value *low = ConstantInt::get(wide, APInt::getLowBitsSet(2 * bits, bits));
  Value *result;
  if (isMad) {
    Value *product = builder.CreateMul(a, b);
    if (hi)
      product = builder.CreateLShr(product, bits);
    result = builder.CreateAdd(builder.CreateAdd(builder.CreateAnd(product, low), c), flag);
  } else if (in->name == "addc") {
    result = builder.CreateAdd(builder.CreateAdd(a, b), flag);
  } else {
    result = builder.CreateSub(a, builder.CreateAdd(b, flag));
  }
  if (sets)
    builder.CreateStore(builder.CreateICmpUGT(result, low), carryFlag);
  return write(op(0), type, builder.CreateTrunc(result, intType(bits)));
}

static Type twice(Type type) {
  switch (type) {
  case Type::U16: return Type::U32;
  case Type::S16: return Type::S32;
  case Type::U32: return Type::U64;
  default: return Type::S64;
  }
}

bool FunctionTranslator::mul() {
  bool hi = has("hi"), lo = has("lo"), wide = has("wide"), ftz = has("ftz"), sat = has("sat");
  std::optional<uint32_t> mode = rounding();
  Type type;
  Value *a, *b;
  if (this->type(type) || operands(3) || read(op(1), type, a) || read(op(2), type, b))
    return true;
  if (isFloat(type)) {
    if (hi || lo || wide || (ftz && type == Type::F64) || (sat && type != Type::F32 && type != Type::F16))
      return fail("malformed '" + opcode() + "'");
    if (mode.value_or(RoundNearest) != RoundNearest && type != Type::F32 && type != Type::F64)
      return fail("'" + opcode() + "' rounds to nearest only");
    bool flushes = ftz && type == Type::F32;
    Value *result = floatBinary("mul", flushes ? flush(a) : a, flushes ? flush(b) : b, type, mode);
    if (flushes)
      result = flush(result);
    if (sat)
      result = narrow(clampUnit(widen(result, type)), type);
    return write(op(0), type, result);
  }
  unsigned bits = bitsOf(type);
  if (mode || ftz || sat || hi + lo + wide != 1 || bits < 16 || bits > 64 || (wide && bits == 64))
    return fail("malformed '" + opcode() + "'");
  if (lo)
    return write(op(0), type, builder.CreateMul(a, b));
  llvm::Type *whole = intType(2 * bits);
  Value *product = isSigned(type) ? builder.CreateMul(builder.CreateSExt(a, whole), builder.CreateSExt(b, whole))
                                  : builder.CreateMul(builder.CreateZExt(a, whole), builder.CreateZExt(b, whole));
  if (wide)
    return write(op(0), twice(type), product);
  return write(op(0), type, builder.CreateTrunc(builder.CreateLShr(product, bits), intType(bits)));
}

bool FunctionTranslator::mad() {
  if (std::any_of(in->words.begin(), in->words.end(), [](StringRef word) { return word == "f32" || word == "f64"; }))
    return fma();
  bool hi = has("hi"), lo = has("lo"), wide = has("wide"), sets = has("cc"), sat = has("sat");
  Type type;
  Value *a, *b, *c;
  if (this->type(type) || operands(4) || read(op(1), type, a) || read(op(2), type, b))
    return true;
  unsigned bits = bitsOf(type);
  if (isFloat(type) || type == Type::Pred || hi + lo + wide != 1 || bits < 16 || bits > 64 || (wide && bits == 64) || (sets && wide) ||
      (sat && (!hi || type != Type::S32)))
    return fail("malformed '" + opcode() + "'");
  Type target = wide ? twice(type) : type;
  if (read(op(3), target, c))
    return true;
  Value *product;
  if (lo) {
    product = builder.CreateMul(a, b);
  } else {
    llvm::Type *whole = intType(2 * bits);
    product = isSigned(type) ? builder.CreateMul(builder.CreateSExt(a, whole), builder.CreateSExt(b, whole))
                             : builder.CreateMul(builder.CreateZExt(a, whole), builder.CreateZExt(b, whole));
    if (hi)
      product = builder.CreateTrunc(builder.CreateLShr(product, bits), intType(bits));
  }
  if (sets)
    builder.CreateStore(builder.CreateExtractValue(builder.CreateBinaryIntrinsic(Intrinsic::uadd_with_overflow, product, c), 1), carryFlag);
  if (sat)
    return write(op(0), target, builder.CreateBinaryIntrinsic(Intrinsic::sadd_sat, product, c));
  return write(op(0), target, builder.CreateAdd(product, c));
}

bool FunctionTranslator::fma() {
  bool ftz = has("ftz"), sat = has("sat"), relu = has("relu");
  uint32_t mode = rounding().value_or(RoundNearest);
  Type type;
  Value *v[3];
  if (this->type(type) || operands(4))
    return true;
  if (!isFloat(type) || (relu && (type == Type::F32 || type == Type::F64)) || (ftz && type == Type::F64) || (sat && type != Type::F32 && type != Type::F16))
    return fail("malformed '" + opcode() + "'");
  for (size_t i = 0; i < 3; ++i)
    if (read(op(i + 1), type, v[i]))
      return true;
  if (type == Type::F32 || type == Type::F64) {
    bool flushes = ftz && type == Type::F32;
    if (flushes)
      for (Value *&value : v)
        value = flush(value);
    Value *result = mode == RoundNearest ? builder.CreateIntrinsic(Intrinsic::fma, {v[0]->getType()}, {v[0], v[1], v[2]})
                                         : call(type == Type::F32 ? "fma_f32" : "fma_f64", v[0]->getType(), {v[0], v[1], v[2], i32(mode)});
    if (flushes)
      result = flush(result);
    return write(op(0), type, sat ? clampUnit(result) : result);
  }
  if (mode != RoundNearest)
    return fail("'" + opcode() + "' rounds to nearest only");
  return write(op(0), type, eachHalf(type, {v[0], v[1], v[2]}, [&](ArrayRef<Value *> halves) -> Value * {
                 SmallVector<Value *, 4> arguments;
                 for (Value *half : halves)
                   arguments.push_back(builder.CreateZExt(half, builder.getInt32Ty()));
                 arguments.push_back(i32(formatOf(halfOf(type))));
                 Value *result = builder.CreateTrunc(call("fma_16", builder.getInt32Ty(), arguments), builder.getInt16Ty());
                 if (relu) { // below zero to zero; what is no number stays
                   Value *isNegative = builder.CreateFCmpOLT(widen(result, halfOf(type)), ConstantFP::get(builder.getFloatTy(), 0));
                   result = builder.CreateSelect(isNegative, ConstantInt::get(builder.getInt16Ty(), 0), result);
                 }
                 return sat ? narrow(clampUnit(widen(result, halfOf(type))), halfOf(type)) : result;
               }));
}

bool FunctionTranslator::mul24() {
  bool isMad = in->name == "mad24", hi = has("hi"), lo = has("lo");
  Type type;
  Value *a, *b, *c = i32(0);
  if (this->type(type, {Type::U32, Type::S32}) || operands(isMad ? 4 : 3) || read(op(1), type, a) || read(op(2), type, b) ||
      (isMad && read(op(3), type, c)))
    return true;
  if (hi == lo)
    return fail("malformed '" + opcode() + "'");
  auto low24 = [&](Value *value) {
    value = builder.CreateTrunc(value, intType(24));
    return isSigned(type) ? builder.CreateSExt(value, builder.getInt64Ty()) : builder.CreateZExt(value, builder.getInt64Ty());
  };
  Value *product = builder.CreateMul(low24(a), low24(b));
  product = builder.CreateTrunc(hi ? builder.CreateLShr(product, 16) : product, builder.getInt32Ty());
  return write(op(0), type, builder.CreateAdd(product, c));
}

/// div.type; div.{approx,full,rn,rz,rm,rp}{.ftz}.f32. Approximations are the exact quotient rounded.
bool FunctionTranslator::div() {
  bool approx = has("approx"), full = has("full"), ftz = has("ftz");
  std::optional<uint32_t> mode = rounding();
  Type type;
  Value *a, *b;
  if (this->type(type) || operands(3) || read(op(1), type, a) || read(op(2), type, b))
    return true;
  if (isFloat(type)) {
    if ((type != Type::F32 && type != Type::F64) || approx + full + mode.has_value() != 1 || (type == Type::F64 && (approx || full || ftz)))
      return fail("malformed '" + opcode() + "'");
    if (ftz) {
      a = flush(a);
      b = flush(b);
    }
    Value *result = floatBinary("div", a, b, type, mode);
    return write(op(0), type, ftz ? flush(result) : result);
  }
  if (approx || full || ftz || mode || type == Type::Pred || bitsOf(type) < 16 || bitsOf(type) > 64)
    return fail("malformed '" + opcode() + "'");
  // A GPU does not stop here: by zero gives all ones.
  Value *zero = ConstantInt::get(a->getType(), 0), *ones = ConstantInt::getAllOnesValue(a->getType());
  Value *byZero = builder.CreateICmpEQ(b, zero);
  Value *safe = builder.CreateSelect(byZero, ConstantInt::get(a->getType(), 1), b);
  if (!isSigned(type))
    return write(op(0), type, builder.CreateSelect(byZero, ones, builder.CreateUDiv(a, safe)));
  Value *byMinusOne = builder.CreateICmpEQ(safe, ones);
  safe = builder.CreateSelect(byMinusOne, ConstantInt::get(a->getType(), 1), safe);
  Value *quotient = builder.CreateSelect(byMinusOne, builder.CreateNeg(a), builder.CreateSDiv(a, safe));
  return write(op(0), type, builder.CreateSelect(byZero, ones, quotient));
}

bool FunctionTranslator::rem() {
  Type type;
  Value *a, *b;
  if (this->type(type) || operands(3) || read(op(1), type, a) || read(op(2), type, b))
    return true;
  if (isFloat(type) || type == Type::Pred || bitsOf(type) < 16 || bitsOf(type) > 64)
    return fail("malformed '" + opcode() + "'");
  Value *zero = ConstantInt::get(a->getType(), 0), *one = ConstantInt::get(a->getType(), 1);
  Value *byZero = builder.CreateICmpEQ(b, zero);
  Value *safe = builder.CreateSelect(byZero, one, b);
  Value *rest;
  if (isSigned(type)) {
    safe = builder.CreateSelect(builder.CreateICmpEQ(safe, ConstantInt::getAllOnesValue(a->getType())), one, safe);
    rest = builder.CreateSRem(a, safe);
  } else {
    rest = builder.CreateURem(a, safe);
  }
  return write(op(0), type, builder.CreateSelect(byZero, a, rest));
}

bool FunctionTranslator::absOrNeg() {
  bool isAbs = in->name == "abs", ftz = has("ftz");
  Type type;
  Value *a;
  if (this->type(type) || operands(2) || read(op(1), type, a))
    return true;
  if (type == Type::F32 || type == Type::F64) {
    if (ftz && type == Type::F32)
      a = flush(a);
    return write(op(0), type, isAbs ? builder.CreateUnaryIntrinsic(Intrinsic::fabs, a) : builder.CreateFNeg(a));
  }
  if (isFloat(type)) {
    uint64_t sign = isPacked(type) ? 0x80008000 : 0x8000;
    return write(op(0), type,
                 isAbs ? builder.CreateAnd(a, ConstantInt::get(a->getType(), sign ^ (isPacked(type) ? 0xffffffff : 0xffff)))
                       : builder.CreateXor(a, ConstantInt::get(a->getType(), sign)));
  }
  if (!isSigned(type) || bitsOf(type) < 16 || ftz)
    return fail("malformed '" + opcode() + "'");
  return write(op(0), type, isAbs ? builder.CreateBinaryIntrinsic(Intrinsic::abs, a, builder.getFalse()) : builder.CreateNeg(a));
}

bool FunctionTranslator::minOrMax() {
  bool isMax = in->name == "max", ftz = has("ftz"), nan = has("NaN");
  Type type;
  Value *a, *b;
  if (this->type(type) || operands(3) || read(op(1), type, a) || read(op(2), type, b))
    return true;
  if (isFloat(type)) {
    if (ftz && type == Type::F32) {
      a = flush(a);
      b = flush(b);
    }
    return write(op(0), type, floatMinMax(a, b, type, isMax, nan));
  }
  if (ftz || nan || type == Type::Pred || bitsOf(type) < 16 || bitsOf(type) > 64)
    return fail("malformed '" + opcode() + "'");
  Intrinsic::ID id = isMax ? (isSigned(type) ? Intrinsic::smax : Intrinsic::umax) : (isSigned(type) ? Intrinsic::smin : Intrinsic::umin);
  return write(op(0), type, builder.CreateBinaryIntrinsic(id, a, b));
}

/// c + |a - b|
bool FunctionTranslator::sad() {
  Type type;
  Value *a, *b, *c;
  if (this->type(type, {Type::U16, Type::U32, Type::U64, Type::S16, Type::S32, Type::S64}) || operands(4) || read(op(1), type, a) ||
      read(op(2), type, b) || read(op(3), type, c))
    return true;
  Value *less = isSigned(type) ? builder.CreateICmpSLT(a, b) : builder.CreateICmpULT(a, b);
  Value *distance = builder.CreateSelect(less, builder.CreateSub(b, a), builder.CreateSub(a, b));
  return write(op(0), type, builder.CreateAdd(c, distance));
}

//===----------------------------------------------------------------------===//
// Bits
//===----------------------------------------------------------------------===//

bool FunctionTranslator::unaryBits() {
  Type type;
  Value *a;
  if (this->type(type, {Type::B32, Type::B64}) || operands(2) || read(op(1), type, a))
    return true;
  if (in->name == "brev")
    return write(op(0), type, builder.CreateUnaryIntrinsic(Intrinsic::bitreverse, a));
  Value *result = in->name == "popc" ? builder.CreateUnaryIntrinsic(Intrinsic::ctpop, a)
                                     : builder.CreateBinaryIntrinsic(Intrinsic::ctlz, a, builder.getFalse());
  return write(op(0), Type::U32, builder.CreateZExtOrTrunc(result, builder.getInt32Ty()));
}

/// The highest bit that differs from the sign; all ones if there is none.
bool FunctionTranslator::bfind() {
  bool shiftAmount = has("shiftamt");
  Type type;
  Value *a;
  if (this->type(type, {Type::U32, Type::U64, Type::S32, Type::S64}) || operands(2) || read(op(1), type, a))
    return true;
  unsigned bits = bitsOf(type);
  if (isSigned(type))
    a = builder.CreateXor(a, builder.CreateAShr(a, bits - 1));
  Value *zeros = builder.CreateZExtOrTrunc(builder.CreateBinaryIntrinsic(Intrinsic::ctlz, a, builder.getFalse()), builder.getInt32Ty());
  Value *result = shiftAmount ? zeros : builder.CreateSub(i32(bits - 1), zeros);
  return write(op(0), Type::U32, builder.CreateSelect(builder.CreateICmpEQ(a, ConstantInt::get(a->getType(), 0)), i32(0xffffffff), result));
}

bool FunctionTranslator::bfe() {
  Type type;
  Value *a, *b, *c;
  if (this->type(type, {Type::U32, Type::U64, Type::S32, Type::S64}) || operands(4) || read(op(1), type, a) || read(op(2), Type::U32, b) ||
      read(op(3), Type::U32, c))
    return true;
  Value *result = call("bfe", builder.getInt64Ty(), {builder.CreateZExt(a, builder.getInt64Ty()), b, c, i32(bitsOf(type)), i32(isSigned(type))});
  return write(op(0), type, builder.CreateTrunc(result, intType(bitsOf(type))));
}

bool FunctionTranslator::bfi() {
  Type type;
  Value *a, *b, *c, *d;
  if (this->type(type, {Type::B32, Type::B64}) || operands(5) || read(op(1), type, a) || read(op(2), type, b) || read(op(3), Type::U32, c) ||
      read(op(4), Type::U32, d))
    return true;
  Value *result = call("bfi", builder.getInt64Ty(),
                       {builder.CreateZExt(a, builder.getInt64Ty()), builder.CreateZExt(b, builder.getInt64Ty()), c, d, i32(bitsOf(type))});
  return write(op(0), type, builder.CreateTrunc(result, intType(bitsOf(type))));
}

bool FunctionTranslator::bmsk() {
  bool clamps = has("clamp");
  if (!clamps && !has("wrap"))
    return fail("malformed '" + opcode() + "'");
  Type type;
  Value *a, *b;
  if (this->type(type, {Type::B32}) || operands(3) || read(op(1), type, a) || read(op(2), type, b))
    return true;
  return write(op(0), type, call("bmsk", builder.getInt32Ty(), {a, b, i32(clamps)}));
}

/// Sign or zero extension from a width given by a register.
bool FunctionTranslator::szext() {
  bool clamps = has("clamp");
  if (!clamps && !has("wrap"))
    return fail("malformed '" + opcode() + "'");
  Type type;
  Value *a, *b;
  if (this->type(type, {Type::U32, Type::S32}) || operands(3) || read(op(1), type, a) || read(op(2), Type::U32, b))
    return true;
  Value *count = clamps ? builder.CreateBinaryIntrinsic(Intrinsic::umin, b, i32(32)) : builder.CreateAnd(b, i32(31));
  Value *wide = call("bfe", builder.getInt64Ty(), {builder.CreateZExt(a, builder.getInt64Ty()), i32(0), count, i32(32), i32(isSigned(type))});
  return write(op(0), type, builder.CreateTrunc(wide, builder.getInt32Ty()));
}

/// dp4a.atype.btype d, a, b, c; dp2a.{lo,hi}.atype.btype
bool FunctionTranslator::dot() {
  bool isDp2a = in->name == "dp2a", hi = has("hi"), lo = has("lo");
  Type first, second;
  Value *a, *b, *c;
  if (this->type(first, {Type::U32, Type::S32}) || this->type(second, {Type::U32, Type::S32}) || operands(4) || read(op(1), Type::B32, a) ||
      read(op(2), Type::B32, b) || read(op(3), Type::B32, c))
    return true;
  if (isDp2a != (hi || lo))
    return fail("malformed '" + opcode() + "'");
  Value *signs = i32((isSigned(first) ? 1 : 0) | (isSigned(second) ? 2 : 0));
  return write(op(0), Type::B32, isDp2a ? call("dp2a", builder.getInt32Ty(), {a, b, c, signs, i32(hi)}) : call("dp4a", builder.getInt32Ty(), {a, b, c, signs}));
}

bool FunctionTranslator::logic() {
  Type type;
  Value *a, *b;
  if (this->type(type, {Type::Pred, Type::B16, Type::B32, Type::B64}) || operands(3) || read(op(1), type, a) || read(op(2), type, b))
    return true;
  return write(op(0), type, in->name == "and" ? builder.CreateAnd(a, b) : in->name == "or" ? builder.CreateOr(a, b) : builder.CreateXor(a, b));
}

bool FunctionTranslator::notOrCnot() {
  Type type;
  Value *a;
  if (this->type(type, {Type::Pred, Type::B16, Type::B32, Type::B64}) || operands(2) || read(op(1), type, a))
    return true;
  if (in->name == "not")
    return write(op(0), type, builder.CreateNot(a));
  return write(op(0), type, builder.CreateZExt(builder.CreateICmpEQ(a, ConstantInt::get(a->getType(), 0)), a->getType()));
}

bool FunctionTranslator::lop3() {
  Type type;
  Value *a, *b, *c;
  if (this->type(type, {Type::B32}) || operands(5) || read(op(1), type, a) || read(op(2), type, b) || read(op(3), type, c))
    return true;
  if (op(4).kind != Operand::Integer || op(4).value > 255)
    return fail("'" + opcode() + "' needs a table from 0 to 255");
  Value *result = i32(0);
  for (unsigned i = 0; i < 8; ++i)
    if (op(4).value >> i & 1) {
      Value *term = builder.CreateAnd(i & 4 ? a : builder.CreateNot(a), i & 2 ? b : builder.CreateNot(b));
      result = builder.CreateOr(result, builder.CreateAnd(term, i & 1 ? c : builder.CreateNot(c)));
    }
  return write(op(0), type, result);
}

/// Amounts above the width act as the width.
bool FunctionTranslator::shift() {
  bool isLeft = in->name == "shl";
  Type type;
  Value *a, *b;
  if (this->type(type) || operands(3) || read(op(1), type, a) || read(op(2), Type::U32, b))
    return true;
  unsigned bits = bitsOf(type);
  if (isFloat(type) || bits < 16 || bits > 64)
    return fail("malformed '" + opcode() + "'");
  Value *amount = builder.CreateZExtOrTrunc(builder.CreateBinaryIntrinsic(Intrinsic::umin, b, i32(bits - 1)), a->getType());
  if (!isLeft && isSigned(type))
    return write(op(0), type, builder.CreateAShr(a, amount));
  Value *shifted = isLeft ? builder.CreateShl(a, amount) : builder.CreateLShr(a, amount);
  return write(op(0), type, builder.CreateSelect(builder.CreateICmpUGE(b, i32(bits)), ConstantInt::get(a->getType(), 0), shifted));
}

/// shf.{l,r}.{wrap,clamp}.b32 d, a, b, c: of the 64 bits b:a
bool FunctionTranslator::funnel() {
  bool isLeft = has("l"), isRight = has("r"), wraps = has("wrap"), clamps = has("clamp");
  Type type;
  Value *a, *b, *c;
  if (isLeft == isRight || wraps == clamps)
    return fail("malformed '" + opcode() + "'");
  if (this->type(type, {Type::B32}) || operands(4) || read(op(1), type, a) || read(op(2), type, b) || read(op(3), Type::U32, c))
    return true;
  Value *amount = wraps ? builder.CreateAnd(c, i32(31)) : builder.CreateBinaryIntrinsic(Intrinsic::umin, c, i32(32));
  amount = builder.CreateZExt(amount, builder.getInt64Ty());
  Value *whole = builder.CreateOr(builder.CreateShl(builder.CreateZExt(b, builder.getInt64Ty()), 32), builder.CreateZExt(a, builder.getInt64Ty()));
  Value *result = isLeft ? builder.CreateLShr(builder.CreateShl(whole, amount), 32) : builder.CreateLShr(whole, amount);
  return write(op(0), type, builder.CreateTrunc(result, builder.getInt32Ty()));
}

bool FunctionTranslator::prmt() {
  uint32_t mode = 0, number = 1;
  for (StringRef word : {"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"}) {
    if (has(word))
      mode = number;
    ++number;
  }
  Type type;
  Value *a, *b, *c;
  if (this->type(type, {Type::B32}) || operands(4) || read(op(1), type, a) || read(op(2), type, b) || read(op(3), type, c))
    return true;
  return write(op(0), type, call("prmt", builder.getInt32Ty(), {a, b, c, i32(mode)}));
}

//===----------------------------------------------------------------------===//
// Floats
//===----------------------------------------------------------------------===//

bool FunctionTranslator::testp() {
  StringRef test;
  for (StringRef each : {"finite", "infinite", "number", "notanumber", "normal", "subnormal"})
    if (has(each))
      test = each;
  Type type;
  Value *a;
  if (test.empty() || this->type(type, {Type::F32, Type::F64}) || operands(2) || read(op(1), type, a))
    return fail("malformed '" + opcode() + "'");
  FPClassTest mask = StringSwitch<FPClassTest>(test)
                         .Case("finite", fcFinite)
                         .Case("infinite", fcInf)
                         .Case("number", ~fcNan & fcAllFlags)
                         .Case("notanumber", fcNan)
                         .Case("normal", fcNormal | fcZero)
                         .Default(fcSubnormal);
  return writePredicate(op(0), builder.createIsFPClass(a, mask));
}

/// The sign of a on b.
bool FunctionTranslator::copysign() {
  Type type;
  Value *a, *b;
  if (this->type(type, {Type::F32, Type::F64}) || operands(3) || read(op(1), type, a) || read(op(2), type, b))
    return true;
  return write(op(0), type, builder.CreateBinaryIntrinsic(Intrinsic::copysign, b, a));
}

bool FunctionTranslator::rootOrReciprocal() {
  bool approx = has("approx"), ftz = has("ftz");
  std::optional<uint32_t> mode = rounding();
  Type type;
  Value *a;
  if (this->type(type, {Type::F32, Type::F64}) || operands(2) || read(op(1), type, a))
    return true;
  bool isRsqrt = in->name == "rsqrt", isSingle = type == Type::F32;
  // The only approximations in f64 are rcp and rsqrt with .approx.
  if (approx == mode.has_value() || (isRsqrt && !approx) || (!isSingle && approx && in->name == "sqrt"))
    return fail("malformed '" + opcode() + "'");
  bool flushes = ftz && isSingle;
  if (flushes)
    a = flush(a);
  Value *result;
  if (isRsqrt)
    result = call(isSingle ? "rsqrt_f32" : "rsqrt_f64", a->getType(), {a});
  else if (in->name == "rcp")
    result = floatBinary("div", ConstantFP::get(a->getType(), 1), a, type, mode);
  else if (mode.value_or(RoundNearest) == RoundNearest)
    result = builder.CreateUnaryIntrinsic(Intrinsic::sqrt, a);
  else
    result = call(isSingle ? "sqrt_f32" : "sqrt_f64", a->getType(), {a, i32(*mode)});
  return write(op(0), type, flushes ? flush(result) : result);
}

bool FunctionTranslator::approximate() {
  bool approx = has("approx"), ftz = has("ftz");
  Type type;
  Value *a;
  if (this->type(type) || operands(2) || read(op(1), type, a))
    return true;
  bool takesHalf = in->name == "ex2" || in->name == "tanh";
  if (!approx || type == Type::F64 || !isFloat(type) || (type != Type::F32 && !takesHalf))
    return fail("malformed '" + opcode() + "'");
  bool flushes = ftz && type == Type::F32;
  if (flushes)
    a = flush(a);
  Value *result = eachHalf(type, {a}, [&](ArrayRef<Value *> each) {
    return narrow(call(in->name + "_f32", builder.getFloatTy(), {widen(each[0], halfOf(type))}), halfOf(type));
  });
  return write(op(0), type, flushes ? flush(result) : result);
}

//===----------------------------------------------------------------------===//
// Comparisons
//===----------------------------------------------------------------------===//

bool FunctionTranslator::compare(StringRef operation, Type type, Value *a, Value *b, Value *&result) {
  using P = CmpInst::Predicate;
  P predicate = CmpInst::BAD_ICMP_PREDICATE;
  if (isFloat(type)) {
    predicate = StringSwitch<P>(operation)
                    .Case("eq", CmpInst::FCMP_OEQ).Case("ne", CmpInst::FCMP_ONE).Case("lt", CmpInst::FCMP_OLT).Case("le", CmpInst::FCMP_OLE)
                    .Case("gt", CmpInst::FCMP_OGT).Case("ge", CmpInst::FCMP_OGE).Case("equ", CmpInst::FCMP_UEQ).Case("neu", CmpInst::FCMP_UNE)
                    .Case("ltu", CmpInst::FCMP_ULT).Case("leu", CmpInst::FCMP_ULE).Case("gtu", CmpInst::FCMP_UGT).Case("geu", CmpInst::FCMP_UGE)
                    .Case("num", CmpInst::FCMP_ORD).Case("nan", CmpInst::FCMP_UNO).Default(CmpInst::BAD_ICMP_PREDICATE);
    a = widen(a, type);
    b = widen(b, type);
  } else if (isSigned(type)) {
    predicate = StringSwitch<P>(operation)
                    .Case("eq", CmpInst::ICMP_EQ).Case("ne", CmpInst::ICMP_NE).Case("lt", CmpInst::ICMP_SLT).Case("le", CmpInst::ICMP_SLE)
                    .Case("gt", CmpInst::ICMP_SGT).Case("ge", CmpInst::ICMP_SGE).Default(CmpInst::BAD_ICMP_PREDICATE);
  } else {
    predicate = StringSwitch<P>(operation)
                    .Case("eq", CmpInst::ICMP_EQ).Case("ne", CmpInst::ICMP_NE).Cases({"lt", "lo"}, CmpInst::ICMP_ULT)
                    .Cases({"le", "ls"}, CmpInst::ICMP_ULE).Cases({"gt", "hi"}, CmpInst::ICMP_UGT).Cases({"ge", "hs"}, CmpInst::ICMP_UGE)
                    .Default(CmpInst::BAD_ICMP_PREDICATE);
  }
  if (predicate == CmpInst::BAD_ICMP_PREDICATE || type == Type::Pred || bitsOf(type) < 16 || bitsOf(type) > 64)
    return fail("'" + opcode() + "' is not known for this type");
  result = builder.CreateCmp(predicate, a, b);
  return false;
}

/// setp.op{.and,.or,.xor}{.ftz}.type p{|q}, a, b{, {!}c}
bool FunctionTranslator::setp() {
  if (in->words.empty())
    return fail("malformed '" + opcode() + "'");
  std::string operation = in->words[0];
  taken[0] = true;
  StringRef joined;
  for (StringRef each : {"and", "or", "xor"})
    if (has(each))
      joined = each;
  bool ftz = has("ftz");
  Type type;
  Value *a, *b, *result;
  if (this->type(type) || operands(joined.empty() ? 3 : 4) || read(op(1), type, a) || read(op(2), type, b))
    return true;
  if (ftz && type == Type::F32) {
    a = flush(a);
    b = flush(b);
  }
  // Packed: the two halves go to p and q.
  if (isPacked(type)) {
    if (!op(0).second || !joined.empty())
      return fail("'" + opcode() + "' needs p|q");
    for (unsigned shift : {0u, 16u}) {
      auto half = [&](Value *value) { return builder.CreateTrunc(builder.CreateLShr(value, shift), builder.getInt16Ty()); };
      if (compare(operation, halfOf(type), half(a), half(b), result))
        return true;
      if (shift ? writePredicate(*op(0).second, result) : (op(0).kind == Operand::Register ? (builder.CreateStore(result, registers[op(0).index]), false) : false))
        return true;
    }
    return false;
  }
  if (compare(operation, type, a, b, result))
    return true;
  Value *opposite = builder.CreateNot(result);
  if (!joined.empty()) {
    Value *c;
    if (readPredicate(op(3), c))
      return true;
    auto join = [&](Value *value) {
      return joined == "and" ? builder.CreateAnd(value, c) : joined == "or" ? builder.CreateOr(value, c) : builder.CreateXor(value, c);
    };
    result = join(result);
    opposite = join(opposite);
  }
  Operand plain;
  plain.kind = op(0).kind;
  plain.index = op(0).index;
  if (writePredicate(plain, result))
    return true;
  return op(0).second ? writePredicate(*op(0).second, opposite) : false;
}

/// set.op{.and…}{.ftz}.dtype.stype d, a, b{, {!}c}: all ones, or 1.0, where it holds
bool FunctionTranslator::set() {
  if (in->words.empty())
    return fail("malformed '" + opcode() + "'");
  std::string operation = in->words[0];
  taken[0] = true;
  StringRef joined;
  for (StringRef each : {"and", "or", "xor"})
    if (has(each))
      joined = each;
  bool ftz = has("ftz");
  Type to, type;
  Value *a, *b, *c = nullptr, *result;
  if (this->type(to, {Type::U16, Type::S16, Type::U32, Type::S32, Type::F16, Type::BF16, Type::F32, Type::F16x2, Type::BF16x2}) ||
      this->type(type) || operands(joined.empty() ? 3 : 4) || read(op(1), type, a) || read(op(2), type, b))
    return true;
  if (!joined.empty() && readPredicate(op(3), c))
    return true;
  if (isPacked(type) ? bitsOf(to) != 32 || to == Type::F32 : isPacked(to))
    return fail("malformed '" + opcode() + "'");
  if (ftz && type == Type::F32) {
    a = flush(a);
    b = flush(b);
  }
  auto one = [&](Type of, Value *x, Value *y, Value *&holds) {
    if (compare(operation, of, x, y, holds))
      return true;
    if (c)
      holds = joined == "and" ? builder.CreateAnd(holds, c) : joined == "or" ? builder.CreateOr(holds, c) : builder.CreateXor(holds, c);
    return false;
  };
  auto asNumber = [&](Value *holds, Type as) -> Value * {
    if (as == Type::F32)
      return builder.CreateUIToFP(holds, builder.getFloatTy());
    if (is16(as))
      return builder.CreateSelect(holds, ConstantInt::get(intType(16), as == Type::F16 ? 0x3c00 : 0x3f80), ConstantInt::get(intType(16), 0));
    return builder.CreateSExt(holds, intType(bitsOf(as)));
  };
  if (!isPacked(type)) {
    if (one(type, a, b, result))
      return true;
    return write(op(0), to, asNumber(result, to));
  }
  bool failed = false;
  Value *whole = eachHalf(type, {a, b}, [&](ArrayRef<Value *> halves) -> Value * {
    failed |= one(halfOf(type), halves[0], halves[1], result);
    return failed ? halves[0] : asNumber(result, isPacked(to) ? halfOf(to) : Type::U16);
  });
  return failed || write(op(0), to, whole);
}

bool FunctionTranslator::selp() {
  Type type;
  Value *a, *b, *c;
  if (this->type(type) || operands(4) || read(op(1), type, a) || read(op(2), type, b) || readPredicate(op(3), c))
    return true;
  return write(op(0), type, builder.CreateSelect(c, a, b));
}

/// a where c >= 0, else b
bool FunctionTranslator::slct() {
  bool ftz = has("ftz");
  Type type, control;
  Value *a, *b, *c;
  if (this->type(type) || this->type(control, {Type::S32, Type::F32}) || operands(4) || read(op(1), type, a) || read(op(2), type, b) ||
      read(op(3), control, c))
    return true;
  if (ftz && control == Type::F32)
    c = flush(c);
  Value *holds = control == Type::F32 ? builder.CreateFCmpOGE(c, ConstantFP::get(c->getType(), 0)) : builder.CreateICmpSGE(c, i32(0));
  return write(op(0), type, builder.CreateSelect(holds, a, b));
}

//===----------------------------------------------------------------------===//
// Conversions
//===----------------------------------------------------------------------===//

/// cvt{.rni…|.rn…}{.ftz}{.sat}{.relu}.dtype.atype d, a; cvt.rn.{f16x2,bf16x2}.f32 d, a, b: a above b;
/// cvt.rna.tf32.f32 d, a
bool FunctionTranslator::cvt() {
  if (has("tf32")) { // the one way that there is on all of sm_80 and later
    Value *a;
    Type from;
    if (!has("rna"))
      return fail("'" + opcode() + "' is not supported by the stand-in");
    if (this->type(from, {Type::F32}) || operands(2) || read(op(1), Type::B32, a))
      return true;
    // Half of the last bit that stays, added to the magnitude; what is no number stays.
    Value *rounded = builder.CreateAnd(builder.CreateAdd(a, i32(0x1000)), i32(0xffffe000));
    Value *magnitude = builder.CreateAnd(a, i32(0x7fffffff));
    Value *isNan = builder.CreateICmpUGT(magnitude, i32(0x7f800000)), *isInfinite = builder.CreateICmpEQ(magnitude, i32(0x7f800000));
    return write(op(0), Type::B32, builder.CreateSelect(isNan, i32(0x7fffffff), builder.CreateSelect(isInfinite, a, rounded)));
  }
  std::optional<uint32_t> mode = rounding(), integral;
  if (has("rni"))
    integral = RoundNearest;
  else if (has("rzi"))
    integral = RoundZero;
  else if (has("rmi"))
    integral = RoundDown;
  else if (has("rpi"))
    integral = RoundUp;
  bool ftz = has("ftz"), sat = has("sat"), relu = has("relu");
  Type to, from;
  if (this->type(to) || this->type(from))
    return true;
  auto plain = [](Type type) { return !isPacked(type) && type != Type::Pred && bitsOf(type) <= 64; };
  if (isPacked(to) && from == Type::F32) {
    Value *a, *b, *high, *low;
    if (operands(3) || read(op(1), from, a) || read(op(2), from, b) || convert(halfOf(to), from, a, high, mode, integral, ftz, sat, relu) ||
        convert(halfOf(to), from, b, low, mode, integral, ftz, sat, relu))
      return true;
    Value *whole = builder.CreateOr(builder.CreateShl(builder.CreateZExt(high, builder.getInt32Ty()), 16), builder.CreateZExt(low, builder.getInt32Ty()));
    return write(op(0), to, whole);
  }
  if (!plain(to) || !plain(from))
    return fail("'" + opcode() + "' is not supported by the stand-in");
  Value *a, *result;
  if (operands(2) || read(op(1), from, a) || convert(to, from, a, result, mode, integral, ftz, sat, relu))
    return true;
  return write(op(0), to, result);
}

bool FunctionTranslator::convert(Type to, Type from, Value *value, Value *&result, std::optional<uint32_t> mode, std::optional<uint32_t> integral,
                                 bool ftz, bool sat, bool relu) {
  auto toIntegral = [&](Value *number) {
    static constexpr Intrinsic::ID ids[] = {Intrinsic::roundeven, Intrinsic::trunc, Intrinsic::floor, Intrinsic::ceil};
    return builder.CreateUnaryIntrinsic(ids[*integral], number);
  };
  if (relu && !is16(to))
    return fail("malformed '" + opcode() + "'");

  if (!isFloat(from) && !isFloat(to)) {
    if (mode || integral || ftz)
      return fail("malformed '" + opcode() + "'");
    unsigned width = bitsOf(to);
    // In 65 bits every value of every type has its place.
    llvm::Type *wide = intType(65);
    Value *exact = isSigned(from) ? builder.CreateSExt(value, wide) : builder.CreateZExt(value, wide);
    if (sat) {
      APInt low = isSigned(to) ? APInt::getSignedMinValue(width).sext(65) : APInt(65, 0);
      APInt high = isSigned(to) ? APInt::getSignedMaxValue(width).sext(65) : APInt::getMaxValue(width).zext(65);
      exact = builder.CreateBinaryIntrinsic(Intrinsic::smax, exact, ConstantInt::get(wide, low));
      exact = builder.CreateBinaryIntrinsic(Intrinsic::smin, exact, ConstantInt::get(wide, high));
    }
    result = builder.CreateTrunc(exact, intType(width));
    return false;
  }

  if (!isFloat(from)) { // integer to float
    if (integral || !mode)
      return fail("'" + opcode() + "' needs a rounding: .rn, .rz, .rm or .rp");
    if (*mode == RoundNearest && !is16(to)) {
      result = isSigned(from) ? builder.CreateSIToFP(value, llvmType(to)) : builder.CreateUIToFP(value, llvmType(to));
    } else {
      Value *wide = isSigned(from) ? builder.CreateSExt(value, builder.getInt64Ty()) : builder.CreateZExt(value, builder.getInt64Ty());
      result = call("cvt_int", builder.getInt64Ty(), {wide, i32(isSigned(from)), i32(formatOf(to)), i32(*mode)});
      result = builder.CreateBitCast(builder.CreateTrunc(result, intType(bitsOf(to))), llvmType(to));
    }
    if (sat)
      result = narrow(clampUnit(widen(result, to)), to);
    return false;
  }

  if (ftz && from == Type::F32)
    value = flush(value);
  if (!isFloat(to)) { // float to integer: out of range clamps, what is no number becomes 0
    if (!integral || mode)
      return fail("'" + opcode() + "' needs a rounding: .rni, .rzi, .rmi or .rpi");
    Value *number = toIntegral(widen(value, from));
    // 8 and 16 bits clamp only with .sat; else the low bits of the 32-bit result are taken.
    unsigned width = sat ? bitsOf(to) : std::max(32u, bitsOf(to));
    result = builder.CreateIntrinsic(isSigned(to) ? Intrinsic::fptosi_sat : Intrinsic::fptoui_sat, {intType(width), number->getType()}, {number});
    result = builder.CreateTrunc(result, intType(bitsOf(to)));
    return false;
  }

  // float to float
  if (integral && mode)
    return fail("malformed '" + opcode() + "'");
  if (from == to) {
    if (mode)
      return fail("malformed '" + opcode() + "'");
    result = integral ? narrow(toIntegral(widen(value, from)), from) : value;
  } else if (bitsOf(from) < bitsOf(to)) {
    if (mode && !is16(from))
      return fail("'" + opcode() + "' rounds nothing");
    result = widen(value, from);
    if (to == Type::F64)
      result = builder.CreateFPExt(result, builder.getDoubleTy());
    if (integral)
      result = toIntegral(result);
  } else {
    if (integral || !mode)
      return fail("'" + opcode() + "' needs a rounding: .rn, .rz, .rm or .rp");
    if (*mode == RoundNearest && is16(to) && !is16(from)) {
      result = narrow(value, to);
    } else if (*mode == RoundNearest && !is16(to)) {
      result = builder.CreateFPTrunc(value, llvmType(to));
    } else {
      Value *bits = builder.CreateZExt(builder.CreateBitCast(value, intType(bitsOf(from))), builder.getInt64Ty());
      result = call("cvt_float", builder.getInt64Ty(), {bits, i32(formatOf(from)), i32(formatOf(to)), i32(*mode)});
      result = builder.CreateBitCast(builder.CreateTrunc(result, intType(bitsOf(to))), llvmType(to));
    }
  }
  if (ftz && to == Type::F32)
    result = flush(result);
  if (relu) {
    Value *isNegative = builder.CreateFCmpOLT(widen(result, to), ConstantFP::get(builder.getFloatTy(), 0));
    result = builder.CreateSelect(isNegative, ConstantInt::get(intType(16), 0), result);
  }
  if (sat)
    result = narrow(clampUnit(widen(result, to)), to);
  return false;
}

} // namespace standin::ptx
