//===- TranslateMemory.cpp - PTX to LLVM IR: loads, stores, atomics, addresses -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Every access to memory is preceded by its check: range and alignment, then a comparison of its
// bytes of shadow with what they must be. What follows is bookkeeping: shadow of writes, counters,
// who touched it. Slow cases are calls of routines in Execution.cpp.
//
//===----------------------------------------------------------------------===//

#include "FunctionTranslator.h"
#include "llvm/ADT/StringSwitch.h"
#include "llvm/IR/Intrinsics.h"
#include "llvm/Support/MathExtras.h"
#include <cstddef>

using namespace llvm;

namespace standin::ptx {

static const char *nameOf(Space space) {
  switch (space) {
  case Space::Generic: return "generic memory";
  case Space::Global: return ".global";
  case Space::Shared: return ".shared";
  case Space::Local: return ".local";
  case Space::Const: return ".const";
  case Space::Param: return ".param";
  }
  llvm_unreachable("space");
}

bool FunctionTranslator::space(Space &result) {
  result = Space::Generic;
  struct {
    const char *word;
    Space space;
  } static constexpr words[] = {
      {"global", Space::Global}, {"shared", Space::Shared}, {"shared::cta", Space::Shared}, {"local", Space::Local},
      {"const", Space::Const},   {"param", Space::Param},   {"param::entry", Space::Param}, {"param::func", Space::Param},
  };
  for (const auto &[word, space] : words)
    if (has(word)) {
      if (result != Space::Generic)
        return fail("'" + opcode() + "' names two spaces");
      result = space;
    }
  return false;
}

bool FunctionTranslator::target(const Operand &operand, Space space, uint64_t bytes, Target &result) {
  if (operand.kind != Operand::Address)
    return fail("'" + opcode() + "' needs an address in brackets");
  const Operand &base = operand.elements[0];
  result.space = space;
  result.offset = operand.value;
  if (base.kind == Operand::VariableAddress) {
    Variable *variable = base.variable;
    if (space != Space::Generic && space != variable->space)
      return fail("'" + opcode() + "' of '" + variable->name + "', which is in " + nameOf(variable->space));
    if (variable->space == Space::Param) {
      if (operand.value > variable->bytes || bytes > variable->bytes - operand.value)
        return fail("'" + opcode() + "' of bytes " + Twine(int64_t(operand.value)) + " to " + Twine(int64_t(operand.value + bytes) - 1) + " of parameter '" +
                    variable->name + "', which has " + Twine(variable->bytes));
      if (variable->reg >= 0)
        return fail("'" + variable->name + "' is a register");
      result.space = Space::Param;
      result.parameter = variable;
      return false;
    }
    std::optional<Space> own;
    if (addressOf(base, result.address, own))
      return true;
    result.space = variable->space;
  } else if (base.kind == Operand::Integer) {
    result.address = i64(base.value);
  } else {
    Type declared = function.registers[base.index].type;
    if (declared == Type::Pred || bitsOf(declared) < 32 || bitsOf(declared) > 64)
      return fail("an address is in a register of 32 or 64 bits");
    result.address = builder.CreateLoad(intType(bitsOf(declared)), registers[base.index]);
    result.address = builder.CreateZExt(result.address, builder.getInt64Ty());
  }
  // A 32-bit address of shared memory wraps there, as the hardware's does.
  result.address = builder.CreateAdd(result.address, i64(operand.value));
  if (result.space == Space::Shared) {
    if (base.kind == Operand::Register && bitsOf(function.registers[base.index].type) == 32)
      result.address = builder.CreateAnd(result.address, i64(0xffffffff));
    result.address = builder.CreateAdd(result.address, i64(shared.result.memory.sharedWindow()));
  }
  return false;
}

/// A pointer to the bytes of a parameter that an instruction names.
Value *FunctionTranslator::parameterAddress(const Target &target) {
  if (Value *place = places.lookup(target.parameter))
    return builder.CreateConstInBoundsGEP1_64(builder.getInt8Ty(), place, target.offset);
  return pointer(i64(shared.result.memory.parameterWindow() + target.parameter->offset + target.offset));
}

static APInt splat(unsigned bytes, uint8_t value) { return APInt::getSplat(bytes * 8, APInt(8, value)); }

void FunctionTranslator::check(const Target &target, unsigned bytes, uint32_t access) {
  if (target.parameter)
    return; // checked while translating
  const Memory &memory = shared.result.memory;
  Value *address = target.address;
  BasicBlock *fault = newBlock("fault"), *inside = newBlock(""), *fine = newBlock("");
  uint64_t begin = memory.rangeBegin(), size = memory.rangeSize();
  switch (target.space) {
  case Space::Global:
  case Space::Const:
    size -= memory.allocationsBegin() - begin;
    begin = memory.allocationsBegin();
    break;
  case Space::Shared:
    begin = memory.sharedWindow();
    size = Memory::sharedWindowBytes;
    access |= InShared;
    break;
  case Space::Param:
    begin = memory.parameterWindow();
    size = Memory::parameterWindowBytes;
    break;
  case Space::Local:
    access |= InLocal;
    break;
  case Space::Generic:
    break;
  }
  if (target.space == Space::Const)
    access |= InConst;
  Value *bad = builder.CreateICmpNE(builder.CreateAnd(address, i64(bytes - 1)), i64(0));
  if (target.space == Space::Local) {
    Value *from = contextField(offsetof(Context, localBegin), 64);
    Value *room = builder.CreateSub(contextField(offsetof(Context, localEnd), 64), from);
    Value *offset = builder.CreateSub(address, from);
    // room is at least 0 and at most 1 MiB, so the sum cannot wrap where it matters
    bad = builder.CreateOr(bad, builder.CreateICmpUGE(offset, room));
    bad = builder.CreateOr(bad, builder.CreateICmpUGT(builder.CreateAdd(offset, i64(bytes)), room));
  } else {
    bad = builder.CreateOr(bad, builder.CreateICmpUGE(builder.CreateSub(address, i64(begin)), i64(size)));
  }
  branchUnlikely(bad, fault, target.space == Space::Local ? fine : inside);

  builder.SetInsertPoint(inside);
  if (target.space == Space::Local) {
    builder.CreateUnreachable();
  } else {
    Value *shadowAt = builder.CreateAdd(address, i64(uint64_t(memory.shadowDistance())));
    llvm::Type *all = intType(bytes * 8);
    uint8_t mask = 0, wanted = 0;
    switch (access & AccessKind) {
    case Read:
      mask = Memory::Addressable | Memory::Written | Memory::Pending;
      wanted = Memory::Addressable | Memory::Written;
      break;
    case Write:
      mask = Memory::Addressable | Memory::Pending | Memory::NotWritable;
      wanted = Memory::Addressable;
      break;
    default:
      mask = Memory::Addressable | Memory::Written | Memory::Pending | Memory::NotWritable;
      wanted = Memory::Addressable | Memory::Written;
    }
    Value *state = load(all, shadowAt, bytes, shadowScope);
    Value *wrong = builder.CreateICmpNE(builder.CreateAnd(state, ConstantInt::get(all, splat(bytes, mask))), ConstantInt::get(all, splat(bytes, wanted)));
    branchUnlikely(wrong, fault, fine);
  }

  builder.SetInsertPoint(fault);
  call("fault_access", builder.getVoidTy(), {code.getArg(0), address, i32(bytes), i32(access), siteValue()}, /*pure=*/false);
  builder.CreateUnreachable();

  builder.SetInsertPoint(fine);
  if ((access & AccessKind) == Write && target.space != Space::Local)
    store(ConstantInt::get(intType(bytes * 8), splat(bytes, Memory::Addressable | Memory::Written)),
          builder.CreateAdd(address, i64(uint64_t(memory.shadowDistance()))), bytes, shadowScope);
  switch (target.space) {
  case Space::Global:
  case Space::Const:
    bookkeep(address, bytes, access);
    break;
  case Space::Shared:
    checkShared(address, bytes, access);
    break;
  case Space::Generic: {
    BasicBlock *window = newBlock("window"), *global = newBlock("global"), *after = newBlock("");
    branchUnlikely(builder.CreateICmpULT(address, i64(memory.allocationsBegin())), window, global);
    builder.SetInsertPoint(window);
    call("window", builder.getVoidTy(), {code.getArg(0), address, i32(bytes), i32(access), siteValue()}, /*pure=*/false);
    builder.CreateBr(after);
    builder.SetInsertPoint(global);
    bookkeep(address, bytes, access);
    builder.CreateBr(after);
    builder.SetInsertPoint(after);
    break;
  }
  default:
    break;
  }
}

/// Counters and tags of global memory.
void FunctionTranslator::bookkeep(Value *address, unsigned bytes, uint32_t access) {
  const Memory &memory = shared.result.memory;
  Value *offset = builder.CreateSub(address, i64(memory.rangeBegin()));
  Value *page = builder.CreateShl(builder.CreateLShr(offset, Log2_64(Memory::pageBytes)), Log2_64(sizeof(Memory::PageCounter)));
  Value *counter = builder.CreateAdd(page, i64(reinterpret_cast<uint64_t>(memory.counters())));
  auto count = [&](size_t field) {
    Value *at = builder.CreateAdd(counter, i64(field));
    store(builder.CreateAdd(load(builder.getInt64Ty(), at, 8, counterScope), i64(bytes)), at, 8, counterScope);
  };
  if (access & Read)
    count(offsetof(Memory::PageCounter, read));
  if (access & Write)
    count(offsetof(Memory::PageCounter, written));
  if ((access & AccessKind) == Atomic) {
    Value *fenced = builder.CreateAdd(contextField(offsetof(Context, block), 64), i64(offsetof(BlockState, fenced)));
    store(i32(1), fenced, 4, stateScope);
    return;
  }
  if (access & (Strong | InConst))
    return;

  // Words of two tags, who wrote last and who read first, beside one another.
  unsigned words = std::max(1u, bytes / 4);
  if (bytes < 4)
    offset = builder.CreateAnd(offset, i64(~uint64_t(3)));
  Value *at = builder.CreateAdd(builder.CreateShl(offset, 1), i64(memory.tagBase()));
  auto *type = FixedVectorType::get(builder.getInt32Ty(), 2 * words);
  SmallVector<Constant *, 16> writers, readers;
  for (unsigned i = 0; i < 2 * words; ++i) {
    writers.push_back(builder.getInt1(i % 2 == 0));
    readers.push_back(builder.getInt1(i % 2 == 1));
  }
  bool isRead = (access & AccessKind) == Read;
  Value *first = builder.CreateVectorSplat(2 * words, blockField(offsetof(BlockState, firstTag), 32));
  Value *mine = builder.CreateVectorSplat(2 * words, blockField(offsetof(BlockState, tag), 32));
  Value *tags = load(type, at, 8, tagScope);
  Value *ofLaunch = builder.CreateICmpUGE(tags, first);
  Value *foreign = access & NonCoherent ? ofLaunch : builder.CreateAnd(ofLaunch, builder.CreateICmpNE(tags, mine));
  if (isRead)
    foreign = builder.CreateAnd(foreign, ConstantVector::get(writers));
  BasicBlock *race = newBlock("race"), *after = newBlock("");
  branchUnlikely(builder.CreateOrReduce(foreign), race, after);
  builder.SetInsertPoint(race);
  call("global_race", builder.getVoidTy(), {code.getArg(0), address, i32(bytes), i32(access), siteValue()}, /*pure=*/false);
  builder.CreateBr(after);
  builder.SetInsertPoint(after);
  if (bytes < 4)
    return; // a neighbour's byte may be in the word
  Value *updated = isRead ? builder.CreateSelect(builder.CreateAnd(builder.CreateNot(ofLaunch), ConstantVector::get(readers)), mine, tags)
                          : builder.CreateSelect(ConstantVector::get(writers), mine, tags);
  store(updated, at, 8, tagScope);
}

/// Races of the block's threads. Inline: a word that nobody has written since the barrier and that
/// this warp reads already, or several do; a word that nobody has touched since is written.
void FunctionTranslator::checkShared(Value *address, unsigned bytes, uint32_t access) {
  BasicBlock *slow = newBlock("cells"), *after = newBlock("");
  if (shared.result.byteCells || bytes < 4 || bytes > 16 || (access & AccessKind) == Atomic || (access & Strong)) {
    builder.CreateBr(slow);
  } else {
    Value *index = builder.CreateLShr(builder.CreateSub(address, i64(shared.result.memory.sharedWindow())), 2);
    Value *cell = builder.CreateAdd(builder.CreateMul(index, i64(sizeof(SharedCell))), i64(reinterpret_cast<uint64_t>(sharedCells())));
    Value *epoch = contextField(offsetof(Context, epoch), 32, /*constant=*/false);
    Value *fine = builder.getTrue();
    unsigned words = bytes / 4;
    auto place = [&](unsigned word, size_t field) { return builder.CreateAdd(cell, i64(word * sizeof(SharedCell) + field)); };
    bool isRead = (access & AccessKind) == Read;
    Value *mine = contextField(isRead ? offsetof(Context, readKey) : offsetof(Context, writeKey), 64, /*constant=*/false);
    Value *many = isRead ? contextField(offsetof(Context, manyKey), 64, /*constant=*/false) : nullptr;
    for (unsigned word = 0; word < words; ++word) {
      if (isRead) {
        Value *readers = load(builder.getInt64Ty(), place(word, offsetof(SharedCell, readEpoch)), 8, cellScope);
        Value *known = builder.CreateOr(builder.CreateICmpEQ(readers, mine), builder.CreateICmpEQ(readers, many));
        Value *writer = load(builder.getInt32Ty(), place(word, offsetof(SharedCell, writeEpoch)), 8, cellScope);
        fine = builder.CreateAnd(fine, builder.CreateAnd(known, builder.CreateICmpNE(writer, epoch)));
      } else {
        Value *writer = load(builder.getInt64Ty(), place(word, offsetof(SharedCell, writeEpoch)), 8, cellScope);
        Value *reader = load(builder.getInt32Ty(), place(word, offsetof(SharedCell, readEpoch)), 8, cellScope);
        Value *known = builder.CreateOr(builder.CreateICmpEQ(writer, mine),
                                        builder.CreateICmpNE(builder.CreateTrunc(writer, builder.getInt32Ty()), epoch));
        fine = builder.CreateAnd(fine, builder.CreateAnd(known, builder.CreateICmpNE(reader, epoch)));
      }
    }
    BasicBlock *quick = newBlock("");
    builder.CreateCondBr(fine, quick, slow);
    builder.SetInsertPoint(quick);
    for (unsigned word = 0; word < words; ++word) {
      if (isRead) {
        Value *lanes = place(word, offsetof(SharedCell, readLanes));
        store(builder.CreateOr(load(builder.getInt32Ty(), lanes, 8, cellScope), contextField(offsetof(Context, laneBit), 32)), lanes, 8, cellScope);
      } else {
        store(mine, place(word, offsetof(SharedCell, writeEpoch)), 8, cellScope);
      }
    }
    builder.CreateBr(after);
  }
  builder.SetInsertPoint(slow);
  call("cells", builder.getVoidTy(), {code.getArg(0), address, i32(bytes), i32(access), siteValue()}, /*pure=*/false);
  builder.CreateBr(after);
  builder.SetInsertPoint(after);
}

//===----------------------------------------------------------------------===//
// Loads and stores
//===----------------------------------------------------------------------===//

/// .weak .volatile .relaxed.gpu …
bool FunctionTranslator::orderWords(bool &strong) {
  strong = false;
  has("weak");
  for (StringRef word : {"volatile", "relaxed", "acquire", "release", "acq_rel", "mmio"})
    strong |= has(word);
  for (StringRef word : {"cta", "cluster", "gpu", "sys"})
    has(word);
  return strong;
}

/// Hints for caches, which there are none of.
bool FunctionTranslator::cacheWords() {
  for (StringRef word : {"ca", "cg", "cs", "lu", "cv", "wb", "wt", "L1::evict_normal", "L1::evict_unchanged", "L1::evict_first", "L1::evict_last",
                         "L1::no_allocate", "L2::64B", "L2::128B", "L2::256B", "L2::evict_normal", "L2::evict_first", "L2::evict_last"})
    has(word);
  return false;
}

static unsigned lanesOf(function_ref<bool(StringRef)> has) { return has("v2") ? 2 : has("v4") ? 4 : has("v8") ? 8 : 1; }

bool FunctionTranslator::ld() {
  bool strong;
  orderWords(strong);
  Space space;
  if (this->space(space))
    return true;
  if (in->name == "ldu" || has("nc")) {
    if (space != Space::Global && space != Space::Generic)
      return fail("'" + opcode() + "' is for global memory");
    strong = false;
  }
  uint32_t access = Read | (strong ? uint32_t(Strong) : 0) | (in->name == "ldu" || is_contained(in->words, "nc") ? uint32_t(NonCoherent) : 0);
  cacheWords();
  unsigned lanes = lanesOf([&](StringRef word) { return has(word); });
  Type type;
  if (this->type(type) || operands(2))
    return true;
  if (type == Type::Pred)
    return fail("a predicate cannot be loaded");
  if (lanes > 1 && (op(0).kind != Operand::Vector || op(0).elements.size() != lanes))
    return fail("'" + opcode() + "' needs " + Twine(lanes) + " registers in braces");
  unsigned bytes = bitsOf(type) / 8 * lanes;
  if (bytes > 32)
    return fail("'" + opcode() + "' of more than 32 bytes");
  Target from;
  if (target(op(1), space, bytes, from))
    return true;
  if (from.parameter && function.isKernel && from.parameter->isParameter && (from.offset + from.parameter->offset) % bytes)
    return fail("'" + opcode() + "' is not aligned");
  check(from, bytes, access);
  llvm::Type *element = intType(bitsOf(type));
  llvm::Type *whole = lanes == 1 ? element : FixedVectorType::get(element, lanes);
  Value *at = from.parameter ? parameterAddress(from) : pointer(from.address);
  LoadInst *value = builder.CreateAlignedLoad(whole, at, Align(from.parameter ? 1 : bytes));
  if (!from.parameter)
    mark(value, dataScope);
  if (strong)
    value->setVolatile(true);
  if (lanes == 1)
    return write(op(0), type, value);
  for (unsigned i = 0; i < lanes; ++i)
    if (write(op(0).elements[i], type, builder.CreateExtractElement(value, i)))
      return true;
  return false;
}

bool FunctionTranslator::st() {
  bool strong;
  orderWords(strong);
  Space space;
  if (this->space(space))
    return true;
  cacheWords();
  unsigned lanes = lanesOf([&](StringRef word) { return has(word); });
  Type type;
  if (this->type(type) || operands(2))
    return true;
  if (type == Type::Pred)
    return fail("a predicate cannot be stored");
  if (space == Space::Const)
    return fail("'" + opcode() + "' writes to .const");
  if (lanes > 1 && (op(1).kind != Operand::Vector || op(1).elements.size() != lanes))
    return fail("'" + opcode() + "' needs " + Twine(lanes) + " values in braces");
  unsigned bytes = bitsOf(type) / 8 * lanes;
  if (bytes > 32)
    return fail("'" + opcode() + "' of more than 32 bytes");
  Target to;
  if (target(op(0), space, bytes, to))
    return true;
  if (to.parameter && to.parameter->isParameter && (function.isKernel || !to.parameter->isReturn))
    return fail("'" + opcode() + "' writes to parameter '" + to.parameter->name + "'");
  llvm::Type *element = intType(bitsOf(type));
  auto readBits = [&](const Operand &operand, Value *&value) {
    if (read(operand, type, value))
      return true;
    value = builder.CreateBitCast(value, element);
    return false;
  };
  Value *value;
  if (lanes == 1) {
    if (readBits(op(1), value))
      return true;
  } else {
    value = PoisonValue::get(FixedVectorType::get(element, lanes));
    for (unsigned i = 0; i < lanes; ++i) {
      Value *each;
      if (readBits(op(1).elements[i], each))
        return true;
      value = builder.CreateInsertElement(value, each, i);
    }
  }
  check(to, bytes, Write | (strong ? uint32_t(Strong) : 0));
  Value *at = to.parameter ? parameterAddress(to) : pointer(to.address);
  StoreInst *stored = builder.CreateAlignedStore(value, at, Align(to.parameter ? 1 : bytes));
  if (!to.parameter)
    mark(stored, dataScope);
  if (strong)
    stored->setVolatile(true);
  return false;
}

/// atom…op.type d, [a], b{, c}; red…op.type [a], b. Threads run one at a time, so the plain sequence
/// of load, operation and store is atomic.
bool FunctionTranslator::atom() {
  bool isReduction = in->name == "red", strong;
  orderWords(strong);
  Space space;
  if (this->space(space))
    return true;
  if (space != Space::Generic && space != Space::Global && space != Space::Shared)
    return fail("'" + opcode() + "' is for global and shared memory");
  cacheWords();
  has("noftz");
  StringRef operation;
  for (StringRef each : {"and", "or", "xor", "cas", "exch", "add", "inc", "dec", "min", "max"})
    if (has(each))
      operation = each;
  if (operation.empty() || (isReduction && (operation == "cas" || operation == "exch")))
    return fail("unknown operation in '" + opcode() + "'");
  Type type;
  if (this->type(type))
    return true;
  unsigned bits = bitsOf(type);
  if (type == Type::Pred || bits < 16 || bits > 64)
    return fail("'" + opcode() + "' is not known for this type");
  size_t first = isReduction ? 0 : 1;
  if (operands(first + (operation == "cas" ? 3 : 2)))
    return true;
  Target at;
  Value *operand, *other = nullptr;
  if (target(op(first), space, bits / 8, at) || read(op(first + 1), type, operand))
    return true;
  if (at.parameter)
    return fail("'" + opcode() + "' of a parameter");
  if (operation == "cas" && read(op(first + 2), type, other))
    return true;
  check(at, bits / 8, Atomic);
  Value *place = pointer(at.address);
  LoadInst *old = builder.CreateAlignedLoad(intType(bits), place, Align(bits / 8), /*isVolatile=*/true);
  mark(old, dataScope);
  Value *value = builder.CreateBitCast(old, llvmType(type)), *updated = nullptr;
  bool isFp = isFloat(type);
  if (operation == "exch") {
    updated = operand;
  } else if (operation == "cas") {
    Value *bitsOfOperand = builder.CreateBitCast(operand, intType(bits)), *bitsOfOther = builder.CreateBitCast(other, intType(bits));
    updated = builder.CreateSelect(builder.CreateICmpEQ(old, bitsOfOperand), bitsOfOther, old);
  } else if (isFp && operation == "add") {
    updated = floatBinary("add", value, operand, type, std::nullopt);
  } else if (isFp && (operation == "min" || operation == "max")) {
    updated = floatMinMax(value, operand, type, operation == "max", false);
  } else if (isFp) {
    return fail("'" + opcode() + "' is not known for this type");
  } else if (operation == "min" || operation == "max") {
    Intrinsic::ID id = operation == "min" ? (isSigned(type) ? Intrinsic::smin : Intrinsic::umin) : (isSigned(type) ? Intrinsic::smax : Intrinsic::umax);
    updated = builder.CreateBinaryIntrinsic(id, value, operand);
  } else if (operation == "inc") {
    updated = builder.CreateSelect(builder.CreateICmpUGE(value, operand), ConstantInt::get(intType(bits), 0),
                                   builder.CreateAdd(value, ConstantInt::get(intType(bits), 1)));
  } else if (operation == "dec") {
    Value *wraps = builder.CreateOr(builder.CreateICmpEQ(value, ConstantInt::get(intType(bits), 0)), builder.CreateICmpUGT(value, operand));
    updated = builder.CreateSelect(wraps, operand, builder.CreateSub(value, ConstantInt::get(intType(bits), 1)));
  } else {
    updated = operation == "add"   ? builder.CreateAdd(value, operand)
              : operation == "and" ? builder.CreateAnd(value, operand)
              : operation == "or"  ? builder.CreateOr(value, operand)
                                   : builder.CreateXor(value, operand);
  }
  StoreInst *stored = builder.CreateAlignedStore(builder.CreateBitCast(updated, intType(bits)), place, Align(bits / 8), /*isVolatile=*/true);
  mark(stored, dataScope);
  return isReduction ? false : write(op(0), type, value);
}

/// cp.async.{ca,cg}.shared.global [d], [s], bytes{, bytes of s}; cp.async.commit_group;
/// cp.async.wait_group n; cp.async.wait_all
bool FunctionTranslator::cp() {
  if (!has("async"))
    return fail("'" + opcode() + "' is not supported by the stand-in");
  if (has("commit_group") || has("wait_all")) {
    bool waits = in->words.back() == "wait_all";
    if (operands(0))
      return true;
    if (waits)
      call("cp_wait", builder.getVoidTy(), {code.getArg(0), i32(0), i32(1)}, /*pure=*/false);
    else
      call("cp_commit", builder.getVoidTy(), {code.getArg(0)}, /*pure=*/false);
    return false;
  }
  if (has("wait_group")) {
    if (operands(1) || op(0).kind != Operand::Integer)
      return fail("'" + opcode() + "' needs a number");
    call("cp_wait", builder.getVoidTy(), {code.getArg(0), i32(op(0).value), i32(0)}, /*pure=*/false);
    return false;
  }
  bool isCg = has("cg");
  if (!isCg && !has("ca"))
    return fail("'" + opcode() + "' is not supported by the stand-in");
  if (!(has("shared") || has("shared::cta")) || !has("global"))
    return fail("'" + opcode() + "' copies from .global to .shared");
  cacheWords();
  if (operands(3, 4))
    return true;
  if (op(2).kind != Operand::Integer || !(op(2).value == 16 || (!isCg && (op(2).value == 4 || op(2).value == 8))))
    return fail("'" + opcode() + "' copies " + (isCg ? "16" : "4, 8 or 16") + " bytes");
  Target to, from;
  if (target(op(0), Space::Shared, op(2).value, to) || target(op(1), Space::Global, op(2).value, from))
    return true;
  Value *sourceBytes = i32(op(2).value);
  if (in->operands.size() == 4) {
    if (op(3).kind == Operand::Register && function.registers[op(3).index].type == Type::Pred) { // ignore-src
      Value *ignores;
      if (readPredicate(op(3), ignores))
        return true;
      sourceBytes = builder.CreateSelect(ignores, i32(0), sourceBytes);
    } else if (read(op(3), Type::U32, sourceBytes)) {
      return true;
    }
  }
  call("cp_async", builder.getVoidTy(), {code.getArg(0), to.address, from.address, i32(op(2).value), sourceBytes, siteValue()}, /*pure=*/false);
  return false;
}

//===----------------------------------------------------------------------===//
// Addresses and moves
//===----------------------------------------------------------------------===//

bool FunctionTranslator::cvta() {
  bool to = has("to");
  Space space;
  Type type;
  if (this->space(space) || this->type(type, {Type::U64, Type::U32}) || operands(2))
    return true;
  if (space == Space::Generic)
    return fail("'" + opcode() + "' needs a space");
  if (type == Type::U32)
    return fail("'" + opcode() + "': only addresses of 64 bits are supported");
  if (op(1).kind == Operand::VariableAddress && op(1).variable->space != space)
    return fail("'" + opcode() + "' of '" + op(1).variable->name + "', which is in " + nameOf(op(1).variable->space));
  Value *address;
  if (read(op(1), Type::U64, address))
    return true;
  if (space == Space::Shared) {
    Value *window = i64(shared.result.memory.sharedWindow());
    address = to ? builder.CreateSub(address, window) : builder.CreateAdd(address, window);
  }
  return write(op(0), Type::U64, address);
}

bool FunctionTranslator::isspacep() {
  Space space;
  Value *address;
  if (this->space(space) || operands(2) || read(op(1), Type::U64, address))
    return true;
  const Memory &memory = shared.result.memory;
  auto within = [&](uint64_t begin, uint64_t size) { return builder.CreateICmpULT(builder.CreateSub(address, i64(begin)), i64(size)); };
  Value *result;
  switch (space) {
  case Space::Shared: result = within(memory.sharedWindow(), Memory::sharedWindowBytes); break;
  case Space::Local: result = within(memory.localWindow(), Memory::localWindowBytes); break;
  case Space::Param: result = within(memory.parameterWindow(), Memory::parameterWindowBytes); break;
  case Space::Global: result = within(memory.allocationsBegin(), memory.rangeBegin() + memory.rangeSize() - memory.allocationsBegin()); break;
  default: return fail("'" + opcode() + "' is not supported by the stand-in");
  }
  return writePredicate(op(0), result);
}

bool FunctionTranslator::fence() {
  bool isBlock = has("cta");
  for (StringRef word : {"sc", "acq_rel", "acquire", "release", "cluster", "gpu", "sys", "gl"})
    has(word);
  if (operands(0))
    return true;
  if (!isBlock) {
    Value *fenced = builder.CreateAdd(contextField(offsetof(Context, block), 64), i64(offsetof(BlockState, fenced)));
    store(i32(1), fenced, 4, stateScope);
  }
  return false;
}

/// Changes nothing that a program could see.
bool FunctionTranslator::prefetch() {
  Space space;
  if (this->space(space))
    return true;
  for (StringRef word : {"L1", "L2", "L2::evict_last", "L2::evict_normal"})
    has(word);
  return operands(1);
}

/// mov.type d, a; mov.b64 d, {a, b}; mov.b64 {a, b}, d
bool FunctionTranslator::mov() {
  Type type;
  if (this->type(type) || operands(2))
    return true;
  unsigned bits = bitsOf(type);
  auto part = [&](const Operand &vector, Type &each) {
    size_t count = vector.elements.size();
    each = bits / std::max<size_t>(1, count) == 8    ? Type::B8
           : bits / std::max<size_t>(1, count) == 16 ? Type::B16
           : bits / std::max<size_t>(1, count) == 32 ? Type::B32
                                                     : Type::B64;
    return (count != 2 && count != 4) || bitsOf(each) * count != bits ? fail("'" + opcode() + "' cannot be split so") : false;
  };
  Type each;
  if (op(1).kind == Operand::Vector) {
    if (part(op(1), each))
      return true;
    Value *whole = ConstantInt::get(intType(bits), 0);
    for (size_t i = 0; i < op(1).elements.size(); ++i) {
      Value *value;
      if (read(op(1).elements[i], each, value))
        return true;
      whole = builder.CreateOr(whole, builder.CreateShl(builder.CreateZExt(value, intType(bits)), i * bitsOf(each)));
    }
    return write(op(0), type == Type::F64 || type == Type::F32 ? (bits == 64 ? Type::B64 : Type::B32) : type, whole);
  }
  Value *value;
  if (op(1).kind == Operand::FunctionName)
    return fail("the address of a function is not supported");
  if (read(op(1), type, value))
    return true;
  if (op(0).kind == Operand::Vector) {
    if (part(op(0), each))
      return true;
    value = builder.CreateBitCast(value, intType(bits));
    for (size_t i = 0; i < op(0).elements.size(); ++i)
      if (write(op(0).elements[i], each, builder.CreateTrunc(builder.CreateLShr(value, i * bitsOf(each)), intType(bitsOf(each)))))
        return true;
    return false;
  }
  return write(op(0), type, value);
}

} // namespace standin::ptx
