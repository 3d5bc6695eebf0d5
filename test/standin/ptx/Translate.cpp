//===- Translate.cpp - PTX to LLVM IR: modules, control, threads together -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Translate.h"
#include "FunctionTranslator.h"
#include "Parser.h"
#include "llvm/ADT/SmallPtrSet.h"
#include "llvm/ADT/StringSwitch.h"
#include "llvm/IR/MDBuilder.h"
#include "llvm/IR/Verifier.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/MathExtras.h"
#include <cstddef>

using namespace llvm;

namespace standin::ptx {

//===----------------------------------------------------------------------===//
// Words and errors
//===----------------------------------------------------------------------===//

std::string FunctionTranslator::opcode() const {
  std::string text = in->name;
  for (const std::string &word : in->words)
    text += "." + word;
  return text;
}

bool FunctionTranslator::fail(const Twine &message) {
  if (shared.error.empty()) {
    shared.errorLine = in ? in->place.line : function.line;
    shared.error = message.str();
  }
  return true;
}

bool FunctionTranslator::has(StringRef word) {
  for (size_t i = 0; i < in->words.size(); ++i)
    if (!taken[i] && in->words[i] == word)
      return taken[i] = true;
  return false;
}

std::optional<Type> FunctionTranslator::nextType() {
  for (size_t i = 0; i < in->words.size(); ++i)
    if (!taken[i])
      if (std::optional<Type> type = typeNamed(in->words[i])) {
        taken[i] = true;
        return type;
      }
  return std::nullopt;
}

bool FunctionTranslator::type(Type &result, ArrayRef<Type> allowed) {
  std::optional<Type> found = nextType();
  if (!found)
    return fail("'" + opcode() + "' needs a type");
  result = *found;
  if (!allowed.empty() && !is_contained(allowed, result))
    return fail("'" + opcode() + "' is not known for this type");
  return false;
}

bool FunctionTranslator::operands(size_t least, size_t most) {
  if (in->operands.size() >= least && in->operands.size() <= most)
    return false;
  return fail("'" + opcode() + "' takes " + Twine(least) + (most == least ? Twine() : " to " + Twine(most)) + " operands, found " +
              Twine(in->operands.size()));
}

std::optional<uint32_t> FunctionTranslator::rounding() {
  if (has("rn"))
    return RoundNearest;
  if (has("rz"))
    return RoundZero;
  if (has("rm"))
    return RoundDown;
  if (has("rp"))
    return RoundUp;
  return std::nullopt;
}

//===----------------------------------------------------------------------===//
// Values
//===----------------------------------------------------------------------===//

llvm::Type *FunctionTranslator::llvmType(Type type) {
  if (type == Type::F32)
    return builder.getFloatTy();
  if (type == Type::F64)
    return builder.getDoubleTy();
  return builder.getIntNTy(bitsOf(type));
}

Value *FunctionTranslator::call(StringRef name, llvm::Type *result, ArrayRef<Value *> arguments, bool pure) {
  SmallVector<llvm::Type *, 8> types;
  for (Value *argument : arguments)
    types.push_back(argument->getType());
  FunctionCallee callee = shared.module->getOrInsertFunction(("standin_" + name).str(), FunctionType::get(result, types, false));
  auto *declared = llvm::cast<llvm::Function>(callee.getCallee());
  declared->setDoesNotThrow();
  if (pure) {
    declared->setDoesNotAccessMemory();
    declared->setWillReturn();
  }
  return builder.CreateCall(callee, arguments);
}

void FunctionTranslator::mark(llvm::Instruction *instruction, MDNode *scope) {
  instruction->setMetadata(LLVMContext::MD_alias_scope, MDNode::get(builder.getContext(), scope));
  instruction->setMetadata(LLVMContext::MD_noalias, noAlias[scope]);
}

Value *FunctionTranslator::load(llvm::Type *type, Value *address, unsigned alignment, MDNode *scope) {
  LoadInst *result = builder.CreateAlignedLoad(type, pointer(address), Align(alignment));
  mark(result, scope);
  return result;
}

void FunctionTranslator::store(Value *value, Value *address, unsigned alignment, MDNode *scope) {
  mark(builder.CreateAlignedStore(value, pointer(address), Align(alignment)), scope);
}

Value *FunctionTranslator::contextField(size_t offset, unsigned bits, bool constant) {
  Value *at = builder.CreateConstInBoundsGEP1_64(builder.getInt8Ty(), code.getArg(0), offset);
  LoadInst *field = builder.CreateAlignedLoad(intType(bits), at, Align(bits / 8));
  mark(field, stateScope);
  if (constant)
    field->setMetadata(LLVMContext::MD_invariant_load, MDNode::get(builder.getContext(), {}));
  return field;
}

Value *FunctionTranslator::blockField(size_t offset, unsigned bits, bool constant) {
  Value *at = builder.CreateAdd(contextField(offsetof(Context, block), 64), i64(offset));
  auto *field = llvm::cast<LoadInst>(load(intType(bits), at, bits / 8, stateScope));
  if (constant)
    field->setMetadata(LLVMContext::MD_invariant_load, MDNode::get(builder.getContext(), {}));
  return field;
}

unsigned FunctionTranslator::site() {
  if (!currentSite) {
    currentSite = unsigned(shared.result.sites.size());
    shared.result.sites.push_back({in->place.line, in->place.file, in->place.sourceLine, function.name});
  }
  return *currentSite;
}

BasicBlock *FunctionTranslator::newBlock(const Twine &name) { return BasicBlock::Create(builder.getContext(), name, &code); }

void FunctionTranslator::branchUnlikely(Value *condition, BasicBlock *then, BasicBlock *otherwise) {
  builder.CreateCondBr(condition, then, otherwise, MDBuilder(builder.getContext()).createBranchWeights(1, 1 << 20));
}

bool FunctionTranslator::special(StringRef name, unsigned bits, Value *&result) {
  struct Field {
    const char *name;
    int offset;
    bool ofBlock;
  };
#define AXES(name, field, ofBlock, owner)                                                                                                            \
  {"%" name ".x", offsetof(owner, field), ofBlock}, {"%" name ".y", offsetof(owner, field) + 4, ofBlock},                                             \
      {"%" name ".z", offsetof(owner, field) + 8, ofBlock}
  static constexpr Field fields[] = {
      AXES("tid", tid, false, Context),
      AXES("ntid", ntid, true, BlockState),
      AXES("ctaid", ctaid, true, BlockState),
      AXES("nctaid", nctaid, true, BlockState),
      {"%laneid", offsetof(Context, lane), false},
      {"%warpid", offsetof(Context, warp), false},
      {"%dynamic_smem_size", offsetof(BlockState, dynamicSharedBytes), true},
      {"%total_smem_size", offsetof(BlockState, sharedBytes), true},
  };
#undef AXES
  result = nullptr;
  for (const Field &field : fields)
    if (name == field.name)
      result = field.ofBlock ? blockField(size_t(field.offset), 32) : contextField(size_t(field.offset), 32);
  if (!result && name.starts_with("%lanemask_")) {
    Value *bit = contextField(offsetof(Context, laneBit), 32);
    Value *below = builder.CreateSub(bit, i32(1));
    result = StringSwitch<Value *>(name.drop_front(10))
                 .Case("eq", bit)
                 .Case("lt", below)
                 .Case("le", builder.CreateOr(below, bit))
                 .Case("gt", builder.CreateNot(builder.CreateOr(below, bit)))
                 .Case("ge", builder.CreateNot(below))
                 .Default(nullptr);
  }
  if (!result) {
    if (name == "%nwarpid") {
      result = i32(64);
    } else if (name == "%smid" || name == "%gridid" || name == "%envreg0") {
      result = i32(0);
    } else if (name == "%nsmid") {
      result = i32(1);
    } else if (name == "%clock" || name == "%clock64" || name == "%clock_hi" || name == "%globaltimer" || name == "%globaltimer_lo" ||
               name == "%globaltimer_hi") {
      Value *now = call("clock", builder.getInt64Ty(), {code.getArg(0), builder.getInt1(name.starts_with("%globaltimer"))}, /*pure=*/false);
      result = name.ends_with("_hi") ? builder.CreateLShr(now, 32) : now;
      if (name != "%clock64" && name != "%globaltimer")
        result = builder.CreateTrunc(result, builder.getInt32Ty());
    } else {
      return fail("'" + name + "' is neither declared nor a special register that is known");
    }
  }
  result = builder.CreateZExtOrTrunc(result, intType(bits));
  return false;
}

bool FunctionTranslator::readPredicate(const Operand &operand, Value *&result) {
  // LLVM writes true as -1.
  if (operand.kind == Operand::Integer && (operand.value <= 1 || operand.value == ~uint64_t(0))) {
    result = builder.getInt1(operand.value != 0);
    return false;
  }
  if (operand.kind != Operand::Register || function.registers[operand.index].type != Type::Pred)
    return fail("'" + opcode() + "' needs a predicate");
  result = builder.CreateLoad(builder.getInt1Ty(), registers[operand.index]);
  if (operand.negated)
    result = builder.CreateNot(result);
  return false;
}

bool FunctionTranslator::read(const Operand &operand, Type type, Value *&result) {
  if (type == Type::Pred)
    return readPredicate(operand, result);
  if (operand.negated || operand.second)
    return fail("malformed operand of '" + opcode() + "'");
  unsigned bits = bitsOf(type);
  switch (operand.kind) {
  case Operand::Register: {
    Type declared = function.registers[operand.index].type;
    if (declared == Type::Pred)
      return fail("'" + opcode() + "' does not take a predicate here");
    if (bitsOf(declared) < bits)
      return fail("'" + opcode() + "' reads " + Twine(bits) + " bits from a register of " + Twine(bitsOf(declared)));
    result = builder.CreateLoad(intType(bitsOf(declared)), registers[operand.index]);
    result = builder.CreateTrunc(result, intType(bits));
    break;
  }
  case Operand::Integer:
    if (type == Type::F32 || type == Type::F64)
      return fail("'" + opcode() + "' takes no integer here");
    result = ConstantInt::get(intType(bits), operand.value, false, /*ImplicitTrunc=*/true);
    break;
  case Operand::Float: {
    double value = operand.isSingle ? double(bit_cast<float>(uint32_t(operand.value))) : bit_cast<double>(operand.value);
    if (type == Type::F64)
      result = ConstantInt::get(intType(64), operand.isSingle ? bit_cast<uint64_t>(value) : operand.value);
    else if (type == Type::F32)
      result = ConstantInt::get(intType(32), operand.isSingle ? operand.value : bit_cast<uint32_t>(float(value)));
    else if (bits == (operand.isSingle ? 32u : 64u) && !isFloat(type))
      result = ConstantInt::get(intType(bits), operand.value);
    else
      return fail("'" + opcode() + "' takes no such number here");
    break;
  }
  case Operand::Special:
    if (special(operand.text, bits, result))
      return true;
    break;
  case Operand::VariableAddress: {
    std::optional<Space> space;
    if (addressOf(operand, result, space))
      return true;
    if (bits < 32)
      return fail("an address does not fit in " + Twine(bits) + " bits");
    result = builder.CreateZExtOrTrunc(result, intType(bits));
    break;
  }
  default:
    return fail("malformed operand of '" + opcode() + "'");
  }
  if (type == Type::F32 || type == Type::F64)
    result = builder.CreateBitCast(result, llvmType(type));
  return false;
}

bool FunctionTranslator::write(const Operand &operand, Type type, Value *value) {
  if (operand.kind == Operand::Sink && !operand.second)
    return false;
  if (type == Type::Pred)
    return writePredicate(operand, value);
  if (operand.kind != Operand::Register || operand.negated || operand.second)
    return fail("'" + opcode() + "' writes to a register");
  Type declared = function.registers[operand.index].type;
  unsigned bits = bitsOf(type), width = bitsOf(declared);
  if (declared == Type::Pred || width < bits)
    return fail("'" + opcode() + "' writes " + Twine(bits) + " bits to a register of " + Twine(width));
  value = builder.CreateBitCast(value, intType(bits));
  value = isSigned(type) ? builder.CreateSExt(value, intType(width)) : builder.CreateZExt(value, intType(width));
  builder.CreateStore(value, registers[operand.index]);
  return false;
}

bool FunctionTranslator::writePredicate(const Operand &operand, Value *value) {
  if (operand.kind == Operand::Sink)
    return false;
  if (operand.kind != Operand::Register || operand.negated || function.registers[operand.index].type != Type::Pred)
    return fail("'" + opcode() + "' writes to a predicate");
  builder.CreateStore(value, registers[operand.index]);
  return false;
}

/// The address in the variable's own space, as mov gives it.
bool FunctionTranslator::addressOf(const Operand &operand, Value *&result, std::optional<Space> &space) {
  const Variable &variable = *operand.variable;
  space = variable.space;
  switch (variable.space) {
  case Space::Global:
  case Space::Const:
    result = i64(shared.addresses.lookup(&variable));
    break;
  case Space::Local:
    result = builder.CreateAdd(contextField(offsetof(Context, localBegin), 64), i64(variable.offset));
    break;
  case Space::Shared: {
    unsigned number = shared.sharedNumbers.lookup(&variable);
    if (const KernelCode *code = shared.kernelCode.lookup(&function)) {
      result = i64(code->sharedOffsets[number]);
    } else {
      Value *table = blockField(offsetof(BlockState, sharedOffsets), 64);
      result = builder.CreateZExt(load(builder.getInt32Ty(), builder.CreateAdd(table, i64(4 * number)), 4, stateScope), builder.getInt64Ty());
    }
    break;
  }
  case Space::Param:
    if (!function.isKernel || !variable.isParameter)
      return fail("the address of a parameter of a call ('" + variable.name + "') is not supported");
    result = i64(shared.result.memory.parameterWindow() + variable.offset);
    break;
  case Space::Generic:
    llvm_unreachable("no variable is generic");
  }
  result = builder.CreateAdd(result, i64(operand.value));
  return false;
}

//===----------------------------------------------------------------------===//
// Functions
//===----------------------------------------------------------------------===//

FunctionTranslator::FunctionTranslator(ModuleTranslator &shared, const Function &function, llvm::Function &code)
    : shared(shared), function(function), code(code), builder(code.getContext()) {
  // Data, shadow, counters … never overlap, so that checks do not keep values in memory.
  MDBuilder metadata(code.getContext());
  MDNode *domain = metadata.createAnonymousAliasScopeDomain("standin");
  MDNode **scopes[] = {&dataScope, &shadowScope, &counterScope, &tagScope, &cellScope, &stateScope};
  for (MDNode **scope : scopes)
    *scope = metadata.createAnonymousAliasScope(domain);
  for (MDNode **scope : scopes) {
    SmallVector<Metadata *, 5> others;
    for (MDNode **other : scopes)
      if (other != scope)
        others.push_back(*other);
    noAlias[*scope] = MDNode::get(code.getContext(), others);
  }
}

bool FunctionTranslator::run() {
  entry = newBlock("entry");
  builder.SetInsertPoint(entry);
  for (const Register &each : function.registers)
    registers.push_back(builder.CreateAlloca(intType(bitsOf(each.type))));
  carryFlag = builder.CreateAlloca(builder.getInt1Ty());
  // A register that is read before it is written holds 0, so that a run can be repeated.
  for (AllocaInst *each : registers)
    builder.CreateStore(Constant::getNullValue(each->getAllocatedType()), each);
  builder.CreateStore(builder.getFalse(), carryFlag);

  // Parameters of functions: pointers to the caller's copies.
  if (!function.isKernel) {
    unsigned argument = 1;
    for (const auto *list : {&function.returns, &function.parameters})
      for (const Variable *variable : *list) {
        places[variable] = code.getArg(argument++);
        if (variable->reg >= 0 && !variable->isReturn)
          builder.CreateStore(builder.CreateAlignedLoad(intType(bitsOf(variable->type)), places[variable], Align(1)), registers[unsigned(variable->reg)]);
      }
  }
  for (const Variable *variable : function.variables)
    if (variable->space == Space::Param) {
      AllocaInst *place = builder.CreateAlloca(ArrayType::get(builder.getInt8Ty(), variable->bytes));
      place->setAlignment(Align(std::max(16u, variable->alignment)));
      places[variable] = place;
    }

  blocks.resize(function.labels.size());
  for (size_t i = 0; i < blocks.size(); ++i)
    if (!function.labels[i].isTable)
      blocks[i] = newBlock(function.labels[i].name);

  std::vector<SmallVector<unsigned, 1>> labelsAt(function.body.size() + 1);
  for (size_t i = 0; i < blocks.size(); ++i)
    if (blocks[i])
      labelsAt[function.labels[i].at].push_back(unsigned(i));
  for (size_t i = 0; i <= function.body.size(); ++i) {
    for (unsigned label : labelsAt[i]) {
      builder.CreateBr(blocks[label]);
      builder.SetInsertPoint(blocks[label]);
    }
    if (i < function.body.size() && instruction(i))
      return true;
  }
  in = nullptr;
  // Falling off the end returns.
  for (const Variable *variable : function.returns)
    if (variable->reg >= 0)
      builder.CreateAlignedStore(builder.CreateLoad(intType(bitsOf(variable->type)), registers[unsigned(variable->reg)]), places[variable], Align(1));
  builder.CreateRetVoid();
  return false;
}

bool FunctionTranslator::instruction(size_t at) {
  in = &function.body[at];
  index = at;
  taken.assign(in->words.size(), false);
  currentSite.reset();
  BasicBlock *after = nullptr;
  if (in->predicate >= 0) {
    Value *condition = builder.CreateLoad(builder.getInt1Ty(), registers[unsigned(in->predicate)]);
    if (in->predicateNegated)
      condition = builder.CreateNot(condition);
    BasicBlock *then = newBlock("");
    after = newBlock("");
    builder.CreateCondBr(condition, then, after);
    builder.SetInsertPoint(then);
  }
  if (dispatch())
    return true;
  for (size_t i = 0; i < taken.size(); ++i)
    if (!taken[i])
      return fail("unknown '." + in->words[i] + "' in '" + opcode() + "'");
  if (after) {
    builder.CreateBr(after);
    builder.SetInsertPoint(after);
  }
  return false;
}

bool FunctionTranslator::dispatch() {
  using Handler = bool (FunctionTranslator::*)();
  using Self = FunctionTranslator;
  static const StringMap<Handler> handlers = {
      {"bra", &Self::bra}, {"brx", &Self::brx}, {"ret", &Self::ret}, {"exit", &Self::exit}, {"trap", &Self::trap}, {"brkpt", &Self::trap},
      {"call", &Self::callFunction}, {"bar", &Self::barrier}, {"barrier", &Self::barrier}, {"shfl", &Self::shfl}, {"vote", &Self::vote},
      {"match", &Self::match}, {"redux", &Self::redux}, {"activemask", &Self::activemask}, {"nanosleep", &Self::nothing},
      {"ld", &Self::ld}, {"ldu", &Self::ld}, {"st", &Self::st}, {"atom", &Self::atom}, {"red", &Self::atom}, {"cp", &Self::cp},
      {"cvta", &Self::cvta}, {"isspacep", &Self::isspacep}, {"fence", &Self::fence}, {"membar", &Self::fence}, {"prefetch", &Self::prefetch},
      {"prefetchu", &Self::prefetch}, {"mov", &Self::mov},
      {"add", &Self::addOrSub}, {"sub", &Self::addOrSub}, {"addc", &Self::carry}, {"subc", &Self::carry}, {"madc", &Self::carry},
      {"mul", &Self::mul}, {"mad", &Self::mad}, {"fma", &Self::fma}, {"mul24", &Self::mul24}, {"mad24", &Self::mul24}, {"div", &Self::div},
      {"rem", &Self::rem}, {"abs", &Self::absOrNeg}, {"neg", &Self::absOrNeg}, {"min", &Self::minOrMax}, {"max", &Self::minOrMax},
      {"sad", &Self::sad}, {"popc", &Self::unaryBits}, {"clz", &Self::unaryBits}, {"brev", &Self::unaryBits}, {"bfind", &Self::bfind},
      {"bfe", &Self::bfe}, {"bfi", &Self::bfi}, {"bmsk", &Self::bmsk}, {"szext", &Self::szext}, {"dp4a", &Self::dot}, {"dp2a", &Self::dot},
      {"and", &Self::logic}, {"or", &Self::logic}, {"xor", &Self::logic}, {"not", &Self::notOrCnot}, {"cnot", &Self::notOrCnot},
      {"lop3", &Self::lop3}, {"shl", &Self::shift}, {"shr", &Self::shift}, {"shf", &Self::funnel}, {"prmt", &Self::prmt},
      {"testp", &Self::testp}, {"copysign", &Self::copysign}, {"rcp", &Self::rootOrReciprocal}, {"sqrt", &Self::rootOrReciprocal},
      {"rsqrt", &Self::rootOrReciprocal}, {"sin", &Self::approximate}, {"cos", &Self::approximate}, {"ex2", &Self::approximate},
      {"lg2", &Self::approximate}, {"tanh", &Self::approximate}, {"setp", &Self::setp}, {"set", &Self::set}, {"selp", &Self::selp},
      {"slct", &Self::slct}, {"cvt", &Self::cvt},
      {"mma", &Self::mma}, {"ldmatrix", &Self::ldmatrix}, {"wmma", &Self::unsupported}, {"wgmma", &Self::unsupported},
      {"stmatrix", &Self::unsupported}, {"movmatrix", &Self::unsupported}, {"mbarrier", &Self::unsupported}, {"tex", &Self::unsupported},
      {"tld4", &Self::unsupported}, {"suld", &Self::unsupported}, {"sust", &Self::unsupported}, {"mapa", &Self::unsupported},
      {"griddepcontrol", &Self::unsupported}, {"setmaxnreg", &Self::unsupported}, {"elect", &Self::unsupported},
      {"alloca", &Self::unsupported}, {"stacksave", &Self::unsupported}, {"stackrestore", &Self::unsupported},
  };
  auto found = handlers.find(in->name);
  if (found == handlers.end())
    return fail("unknown instruction '" + opcode() + "'");
  return (this->*found->second)();
}

bool FunctionTranslator::unsupported() { return fail("'" + opcode() + "' is not supported by the stand-in"); }

bool FunctionTranslator::nothing() {
  std::fill(taken.begin(), taken.end(), true);
  return false;
}

//===----------------------------------------------------------------------===//
// Control
//===----------------------------------------------------------------------===//

/// A jump backwards costs one of the block's budget: what ends endless loops, and lets others run.
void FunctionTranslator::jump(BasicBlock *target, size_t at) {
  if (at <= index) {
    Value *place = builder.CreateAdd(contextField(offsetof(Context, block), 64), i64(offsetof(BlockState, budget)));
    Value *left = builder.CreateSub(load(builder.getInt64Ty(), place, 8, stateScope), i64(1));
    store(left, place, 8, stateScope);
    BasicBlock *spent = newBlock("spent");
    branchUnlikely(builder.CreateICmpSLT(left, i64(0)), spent, target);
    builder.SetInsertPoint(spent);
    call("budget", builder.getVoidTy(), {code.getArg(0), siteValue()}, /*pure=*/false);
  }
  builder.CreateBr(target);
}

bool FunctionTranslator::bra() {
  has("uni");
  if (operands(1))
    return true;
  if (op(0).kind != Operand::Label || !blocks[op(0).index])
    return fail("'" + opcode() + "' needs a label");
  jump(blocks[op(0).index], function.labels[op(0).index].at);
  builder.SetInsertPoint(newBlock(""));
  return false;
}

bool FunctionTranslator::brx() {
  has("uni");
  Value *which;
  if (!has("idx") || operands(2) || read(op(0), Type::U32, which))
    return fail("malformed '" + opcode() + "'");
  if (op(1).kind != Operand::Label || !function.labels[op(1).index].isTable)
    return fail("'" + opcode() + "' needs a list of .branchtargets");
  const std::vector<unsigned> &targets = function.labels[op(1).index].targets;
  BasicBlock *outside = newBlock("outside");
  SwitchInst *cases = builder.CreateSwitch(which, outside, unsigned(targets.size()));
  for (size_t i = 0; i < targets.size(); ++i) {
    BasicBlock *edge = newBlock("");
    cases->addCase(i32(i), edge);
    builder.SetInsertPoint(edge);
    jump(blocks[targets[i]], function.labels[targets[i]].at);
  }
  builder.SetInsertPoint(outside);
  call("fault_branch", builder.getVoidTy(), {code.getArg(0), which, i32(targets.size()), siteValue()}, /*pure=*/false);
  builder.CreateUnreachable();
  builder.SetInsertPoint(newBlock(""));
  return false;
}

bool FunctionTranslator::ret() {
  has("uni");
  if (operands(0))
    return true;
  if (function.noReturn) {
    call("fault_trap", builder.getVoidTy(), {code.getArg(0), siteValue()}, /*pure=*/false);
    builder.CreateUnreachable();
  } else {
    for (const Variable *variable : function.returns)
      if (variable->reg >= 0)
        builder.CreateAlignedStore(builder.CreateLoad(intType(bitsOf(variable->type)), registers[unsigned(variable->reg)]), places[variable], Align(1));
    builder.CreateRetVoid();
  }
  builder.SetInsertPoint(newBlock(""));
  return false;
}

bool FunctionTranslator::exit() {
  if (operands(0))
    return true;
  if (function.isKernel) {
    builder.CreateRetVoid();
  } else {
    call("exit", builder.getVoidTy(), {code.getArg(0)}, /*pure=*/false);
    builder.CreateUnreachable();
  }
  builder.SetInsertPoint(newBlock(""));
  return false;
}

bool FunctionTranslator::trap() {
  if (operands(0))
    return true;
  call("fault_trap", builder.getVoidTy(), {code.getArg(0), siteValue()}, /*pure=*/false);
  builder.CreateUnreachable();
  builder.SetInsertPoint(newBlock(""));
  return false;
}

/// call{.uni} [(returns),] name [, (arguments)]: with pointers to the .param variables. A register
/// is copied to memory first, or back afterwards.
bool FunctionTranslator::callFunction() {
  has("uni");
  size_t at = 0;
  const Operand *returns = nullptr, *arguments = nullptr;
  if (at < in->operands.size() && op(at).kind == Operand::List)
    returns = &op(at++);
  if (at >= in->operands.size() || op(at).kind != Operand::FunctionName)
    return fail("'" + opcode() + "' of a function that is not named is not supported");
  const Function *callee = op(at++).function;
  if (at < in->operands.size() && op(at).kind == Operand::List)
    arguments = &op(at++);
  if (at != in->operands.size())
    return fail("malformed '" + opcode() + "'");
  size_t returnCount = returns ? returns->elements.size() : 0, argumentCount = arguments ? arguments->elements.size() : 0;
  if (returnCount != callee->returns.size() || argumentCount != callee->parameters.size())
    return fail("'" + callee->name + "' has " + Twine(callee->returns.size()) + " results and " + Twine(callee->parameters.size()) +
                " parameters, the call " + Twine(returnCount) + " and " + Twine(argumentCount));
  llvm::Function *known = shared.functions.lookup(callee);
  bool ofEngine = !known && (callee->name == "vprintf" || callee->name == "__assertfail");
  if (callee->isKernel)
    return fail("kernel '" + callee->name + "' is called");
  if (!known && !ofEngine)
    return fail("function '" + callee->name + "' is called but not defined");

  SmallVector<Value *, 8> values{code.getArg(0)};
  SmallVector<std::pair<const Operand *, Value *>, 2> copiesBack;
  auto pass = [&](const Operand &operand, const Variable &formal, bool isReturn) {
    if (operand.kind == Operand::VariableAddress && operand.variable->space == Space::Param && !operand.value) {
      if (operand.variable->bytes < formal.bytes)
        return fail("'" + formal.name + "' of '" + callee->name + "' has " + Twine(formal.bytes) + " bytes, what is passed " +
                    Twine(operand.variable->bytes));
      Value *place = places.lookup(operand.variable);
      if (!place)
        return fail("'" + operand.variable->name + "' cannot be passed");
      values.push_back(place);
      return false;
    }
    if (operand.kind == Operand::Sink && isReturn) {
    } else if (formal.bytes * 8 != bitsOf(formal.type) && formal.type != Type::Pred) {
      return fail("'" + formal.name + "' of '" + callee->name + "' does not fit in a register");
    }
    IRBuilder<> atEntry(entry, entry->begin());
    AllocaInst *place = atEntry.CreateAlloca(ArrayType::get(builder.getInt8Ty(), formal.bytes));
    place->setAlignment(Align(16));
    values.push_back(place);
    if (isReturn) {
      copiesBack.push_back({&operand, place});
      return false;
    }
    Value *value;
    if (read(operand, formal.type, value))
      return true;
    builder.CreateStore(value, place);
    return false;
  };
  for (size_t i = 0; i < returnCount; ++i)
    if (pass(returns->elements[i], *callee->returns[i], true))
      return true;
  for (size_t i = 0; i < argumentCount; ++i)
    if (pass(arguments->elements[i], *callee->parameters[i], false))
      return true;
  if (ofEngine) {
    values.push_back(siteValue());
    if (callee->name == "vprintf" ? returnCount != 1 || argumentCount != 2 : returnCount != 0 || argumentCount != 5)
      return fail("'" + callee->name + "' is declared with other parameters than the system's");
    call(callee->name, builder.getVoidTy(), values, /*pure=*/false);
  } else {
    builder.CreateCall(known, values);
  }
  for (auto [operand, place] : copiesBack) {
    const Variable &formal = *callee->returns[size_t(operand - returns->elements.data())];
    if (write(*operand, formal.type, builder.CreateLoad(intType(bitsOf(formal.type)), place)))
      return true;
  }
  if (callee->noReturn && !ofEngine) {
    call("fault_trap", builder.getVoidTy(), {code.getArg(0), siteValue()}, /*pure=*/false);
    builder.CreateUnreachable();
    builder.SetInsertPoint(newBlock(""));
  }
  return false;
}

//===----------------------------------------------------------------------===//
// Threads together
//===----------------------------------------------------------------------===//

/// bar{.cta}.sync a{, b}; barrier{.cta}.sync{.aligned}; .arrive a, b; .red.op.pred p, a{, b}, {!}c;
/// bar.warp.sync mask
bool FunctionTranslator::barrier() {
  has("cta");
  if (has("warp")) {
    Value *mask;
    if (!has("sync") || operands(1) || read(op(0), Type::U32, mask))
      return fail("malformed '" + opcode() + "'");
    call("warp_sync", builder.getVoidTy(), {code.getArg(0), mask, siteValue()}, /*pure=*/false);
    return false;
  }
  if (in->words.empty() || has("cluster"))
    return fail("'" + opcode() + "' is not supported by the stand-in");
  uint32_t mode = in->name == "bar" || has("aligned") ? BarrierAligned : 0;
  Value *number, *count = i32(0), *predicate = builder.getFalse();
  size_t at = 0;
  bool isReduction = has("red");
  if (isReduction) {
    bool isCount = has("popc");
    mode |= isCount ? BarrierPopc : has("and") ? BarrierAnd : has("or") ? BarrierOr : 0;
    if (!(mode & BarrierKind))
      return fail("malformed '" + opcode() + "'");
    Type type;
    if (this->type(type, isCount ? ArrayRef<Type>(Type::U32) : ArrayRef<Type>(Type::Pred)) || operands(3, 4))
      return true;
    if (readPredicate(in->operands.back(), predicate))
      return true;
    at = 1;
  } else if (has("arrive")) {
    mode |= BarrierArrive;
    if (operands(2))
      return true;
  } else if (!has("sync") || operands(1, 2)) {
    return fail("malformed '" + opcode() + "'");
  }
  if (read(op(at), Type::U32, number))
    return true;
  if (in->operands.size() > at + 1 + (isReduction ? 1 : 0) && read(op(at + 1), Type::U32, count))
    return true;
  Value *result = call("barrier", builder.getInt32Ty(),
                       {code.getArg(0), number, count, i32(mode), builder.CreateZExt(predicate, builder.getInt32Ty()), siteValue()}, /*pure=*/false);
  if (!isReduction)
    return false;
  if ((mode & BarrierKind) == BarrierPopc)
    return write(op(0), Type::U32, result);
  return writePredicate(op(0), builder.CreateICmpNE(result, i32(0)));
}

/// shfl.sync.mode.b32 d{|p}, a, b, c, mask
bool FunctionTranslator::shfl() {
  if (!has("sync"))
    return fail("'" + opcode() + "' without .sync is not supported");
  uint32_t mode = has("up") ? ShuffleUp : has("down") ? ShuffleDown : has("bfly") ? ShuffleXor : ShuffleIndex;
  if (mode == ShuffleIndex && !has("idx"))
    return fail("malformed '" + opcode() + "'");
  Type type;
  Value *value, *lane, *clamp, *mask;
  if (this->type(type, {Type::B32}) || operands(5) || read(op(1), Type::B32, value) || read(op(2), Type::U32, lane) || read(op(3), Type::U32, clamp) ||
      read(op(4), Type::U32, mask))
    return true;
  Value *both = call("shfl", builder.getInt64Ty(), {code.getArg(0), i32(mode), value, lane, clamp, mask, siteValue()}, /*pure=*/false);
  Operand plain;
  plain.kind = op(0).kind;
  plain.index = op(0).index;
  if (write(plain, Type::B32, builder.CreateTrunc(both, builder.getInt32Ty())))
    return true;
  return op(0).second ? writePredicate(*op(0).second, builder.CreateTrunc(builder.CreateLShr(both, 32), builder.getInt1Ty())) : false;
}

/// vote.sync.{all,any,uni}.pred p, {!}q, mask; vote.sync.ballot.b32 d, {!}q, mask
bool FunctionTranslator::vote() {
  if (!has("sync"))
    return fail("'" + opcode() + "' without .sync is not supported");
  uint32_t mode = has("all") ? VoteAll : has("any") ? VoteAny : has("uni") ? VoteUniform : VoteBallot;
  if (mode == VoteBallot && !has("ballot"))
    return fail("malformed '" + opcode() + "'");
  Type type;
  Value *predicate, *mask;
  if (this->type(type, mode == VoteBallot ? ArrayRef<Type>(Type::B32) : ArrayRef<Type>(Type::Pred)) || operands(3) || readPredicate(op(1), predicate) ||
      read(op(2), Type::U32, mask))
    return true;
  Value *result = call("vote", builder.getInt32Ty(),
                       {code.getArg(0), i32(mode), builder.CreateZExt(predicate, builder.getInt32Ty()), mask, siteValue()}, /*pure=*/false);
  return mode == VoteBallot ? write(op(0), Type::B32, result) : writePredicate(op(0), builder.CreateICmpNE(result, i32(0)));
}

/// match.any.sync.type d, a, mask; match.all.sync.type d{|p}, a, mask
bool FunctionTranslator::match() {
  bool isAll = has("all");
  if ((!isAll && !has("any")) || !has("sync"))
    return fail("malformed '" + opcode() + "'");
  Type type;
  Value *value, *mask;
  if (this->type(type, {Type::B32, Type::B64}) || operands(3) || read(op(1), type, value) || read(op(2), Type::U32, mask))
    return true;
  Value *both = call("match", builder.getInt64Ty(),
                     {code.getArg(0), i32(isAll), builder.CreateZExt(value, builder.getInt64Ty()), mask, siteValue()}, /*pure=*/false);
  Operand plain;
  plain.kind = op(0).kind;
  plain.index = op(0).index;
  if (write(plain, Type::B32, builder.CreateTrunc(both, builder.getInt32Ty())))
    return true;
  return op(0).second ? writePredicate(*op(0).second, builder.CreateTrunc(builder.CreateLShr(both, 32), builder.getInt1Ty())) : false;
}

bool FunctionTranslator::redux() {
  if (!has("sync"))
    return fail("malformed '" + opcode() + "'");
  StringRef operation;
  for (StringRef each : {"add", "min", "max", "and", "or", "xor"})
    if (has(each))
      operation = each;
  Type type;
  Value *value, *mask;
  if (this->type(type, {Type::S32, Type::U32, Type::B32}) || operands(3) || read(op(1), type, value) || read(op(2), Type::U32, mask))
    return true;
  bool isSigned = type == Type::S32;
  int mode = StringSwitch<int>(operation)
                 .Case("add", ReduceAdd)
                 .Case("min", isSigned ? ReduceMinSigned : ReduceMinUnsigned)
                 .Case("max", isSigned ? ReduceMaxSigned : ReduceMaxUnsigned)
                 .Case("and", ReduceAnd)
                 .Case("or", ReduceOr)
                 .Case("xor", ReduceXor)
                 .Default(-1);
  if (mode < 0)
    return fail("malformed '" + opcode() + "'");
  return write(op(0), type, call("redux", builder.getInt32Ty(), {code.getArg(0), i32(uint32_t(mode)), value, mask, siteValue()}, /*pure=*/false));
}

/// Each thread runs by itself between meetings, so only its own lane is active: one of the answers
/// that the instruction may give.
bool FunctionTranslator::activemask() {
  Type type;
  return this->type(type, {Type::B32}) || operands(1) || write(op(0), Type::B32, contextField(offsetof(Context, laneBit), 32));
}

/// Words of the thread's own, for what an operation of its warp reads and writes.
FunctionTranslator::Value *FunctionTranslator::buffer(unsigned words) {
  IRBuilder<> atEntry(entry, entry->begin());
  AllocaInst *place = atEntry.CreateAlloca(ArrayType::get(builder.getInt32Ty(), words));
  place->setAlignment(Align(16));
  return place;
}

/// mma.sync.aligned.m16n8kK.row.col.f32.type.type.f32 {d}, {a}, {b}, {c}
bool FunctionTranslator::mma() {
  struct Kind {
    const char *shape, *type;
    MatrixMode mode;
    unsigned a, b; ///< registers of a lane
  };
  static constexpr Kind kinds[] = {{"m16n8k4", "tf32", MatrixTf32K4, 2, 1}, {"m16n8k8", "tf32", MatrixTf32K8, 4, 2}, {"m16n8k8", "f16", MatrixF16K8, 2, 1},
                                   {"m16n8k16", "f16", MatrixF16K16, 4, 2}, {"m16n8k8", "bf16", MatrixBf16K8, 2, 1}, {"m16n8k16", "bf16", MatrixBf16K16, 4, 2}};
  const Kind *kind = find_if(kinds, [&](const Kind &each) {
    return in->words == std::vector<std::string>{"sync", "aligned", each.shape, "row", "col", "f32", each.type, each.type, "f32"};
  });
  if (kind == std::end(kinds))
    return unsupported();
  taken.assign(taken.size(), true);
  if (operands(4))
    return true;
  const unsigned counts[] = {4, kind->a, kind->b, 4}, firstWords[] = {6, 0, 4, 6};
  for (unsigned i = 0; i < 4; ++i)
    if (op(i).kind != Operand::Vector || op(i).elements.size() != counts[i])
      return fail("'" + opcode() + "' takes " + Twine(counts[i]) + " registers as operand " + Twine(i + 1));
  Value *words = buffer(10);
  auto word = [&](unsigned number) { return builder.CreateConstInBoundsGEP1_32(builder.getInt32Ty(), words, number); };
  for (unsigned i = 1; i < 4; ++i)
    for (unsigned each = 0; each < counts[i]; ++each) {
      Value *value;
      if (read(op(i).elements[each], Type::B32, value))
        return true;
      builder.CreateStore(value, word(firstWords[i] + each));
    }
  call("mma", builder.getVoidTy(), {code.getArg(0), i32(kind->mode), words, siteValue()}, /*pure=*/false);
  for (unsigned each = 0; each < 4; ++each)
    if (write(op(0).elements[each], Type::B32, builder.CreateLoad(builder.getInt32Ty(), word(firstWords[0] + each))))
      return true;
  return false;
}

/// ldmatrix.sync.aligned.m8n8.{x1,x2,x4}{.trans}.shared.b16 {d}, [row]
bool FunctionTranslator::ldmatrix() {
  bool isWhole = has("sync") && has("aligned") && has("m8n8");
  unsigned count = has("x1") ? 1 : has("x2") ? 2 : has("x4") ? 4 : 0;
  uint32_t mode = count | (has("trans") ? uint32_t(LoadMatrixTransposed) : 0);
  Space space;
  Type type;
  if (this->space(space) || this->type(type))
    return true;
  if (!isWhole || !count || space != Space::Shared || type != Type::B16)
    return unsupported();
  if (operands(2))
    return true;
  if (op(0).kind != Operand::Vector || op(0).elements.size() != count)
    return fail("'" + opcode() + "' needs " + Twine(count) + " registers in braces");
  Target row;
  if (target(op(1), space, 16, row))
    return true;
  // Eight lanes for each matrix say where its rows are; the others' addresses are not looked at.
  if (count < 4) {
    BasicBlock *says = newBlock(""), *after = newBlock("");
    builder.CreateCondBr(builder.CreateICmpULT(contextField(offsetof(Context, lane), 32), i32(8 * count)), says, after);
    builder.SetInsertPoint(says);
    check(row, 16, Read);
    builder.CreateBr(after);
    builder.SetInsertPoint(after);
  } else {
    check(row, 16, Read);
  }
  Value *words = buffer(4);
  call("ldmatrix", builder.getVoidTy(), {code.getArg(0), i32(mode), row.address, words, siteValue()}, /*pure=*/false);
  for (unsigned each = 0; each < count; ++each)
    if (write(op(0).elements[each], Type::B32, builder.CreateLoad(builder.getInt32Ty(), builder.CreateConstInBoundsGEP1_32(builder.getInt32Ty(), words, each))))
      return true;
  return false;
}

//===----------------------------------------------------------------------===//
// Modules
//===----------------------------------------------------------------------===//

namespace {

/// Names that an instruction's operands mention.
void visit(const Operand &operand, function_ref<void(const Operand &)> seen) {
  seen(operand);
  for (const Operand &element : operand.elements)
    visit(element, seen);
  if (operand.second)
    seen(*operand.second);
}

struct Facts {
  SmallVector<const Function *, 4> calls;
  SmallVector<Variable *, 4> shared; ///< in the order of their first use
  bool meets = false;                ///< barriers, warp operations, exit in a function
  bool smallShared = false;
  unsigned line = 0;
};

constexpr uint64_t maxLocalBytes = 512 << 10; // as on a GPU

class Layout {
public:
  Layout(Program &program, Module::Impl &result) : program(program), result(result) {}

  Error run(ModuleTranslator &translator) {
    for (Function &function : program.functions)
      collect(function);
    for (Function &function : program.functions)
      if (Error error = findCycle(function))
        return error;
    if (Error error = globals(translator))
      return error;
    if (Error error = locals())
      return error;
    unsigned number = 0;
    for (Variable &variable : program.storage)
      if (variable.space == Space::Shared)
        translator.sharedNumbers[&variable] = number++;
    for (Function &function : program.functions)
      if (function.isKernel)
        if (Error error = kernel(function, translator, number))
          return error;
    return Error::success();
  }

  /// The function and what it calls.
  SmallPtrSet<const Function *, 8> reachable(const Function &root) {
    SmallPtrSet<const Function *, 8> seen{&root};
    SmallVector<const Function *, 8> work{&root};
    while (!work.empty())
      for (const Function *called : facts[work.pop_back_val()].calls)
        if (seen.insert(called).second)
          work.push_back(called);
    return seen;
  }

private:
  Error fail(unsigned line, const Twine &message) { return errorAt(result.name, line, message); }

  void collect(Function &function) {
    Facts &facts = this->facts[&function];
    for (const Instruction &instruction : function.body) {
      StringRef name = instruction.name;
      facts.meets |= name == "bar" || name == "barrier" || name == "shfl" || name == "vote" || name == "match" || name == "redux" || name == "mma" ||
                     name == "ldmatrix" ||
                     (name == "exit" && !function.isKernel);
      bool mayBeShared = name == "ld" || name == "st" || name == "atom" || name == "red";
      for (StringRef word : instruction.words) {
        std::optional<Type> type = typeNamed(word);
        if (mayBeShared && type && bitsOf(*type) < 32)
          facts.smallShared |= !is_contained(instruction.words, "global") && !is_contained(instruction.words, "param") &&
                               !is_contained(instruction.words, "local") && !is_contained(instruction.words, "const");
      }
      for (const Operand &operand : instruction.operands)
        visit(operand, [&](const Operand &each) {
          if (each.kind == Operand::FunctionName)
            facts.calls.push_back(each.function);
          if (each.kind == Operand::VariableAddress && each.variable->space == Space::Shared && !is_contained(facts.shared, each.variable))
            facts.shared.push_back(each.variable);
        });
    }
  }

  /// Depth first over calls, without recursion of our own.
  Error findCycle(Function &root) {
    std::vector<std::pair<const Function *, size_t>> path{{&root, 0}};
    SmallPtrSet<const Function *, 8> onPath{&root};
    if (finished.contains(&root))
      return Error::success();
    while (!path.empty()) {
      auto &[function, at] = path.back();
      const Facts &known = facts[function];
      if (at == known.calls.size()) {
        onPath.erase(function);
        finished.insert(function);
        path.pop_back();
        continue;
      }
      const Function *next = known.calls[at++];
      if (onPath.contains(next))
        return fail(next->line, "function '" + next->name + "' is recursive, which is not supported");
      if (finished.insert(next).second) {
        finished.erase(next);
        onPath.insert(next);
        path.push_back({next, 0});
      }
    }
    return Error::success();
  }

  Error globals(ModuleTranslator &translator) {
    for (Variable *variable : program.globals) {
      if (variable->space == Space::Shared)
        continue;
      std::vector<uint8_t> &data = variable->data;
      uint64_t bytes = std::max<uint64_t>(1, variable->bytes);
      uint64_t address = result.memory.allocateGlobal(bytes, variable->name, data.data(), data.size(), variable->space == Space::Const);
      if (!address)
        return fail(variable->line, "no memory for variable '" + variable->name + "' (" + Twine(bytes) + " bytes)");
      if (address % variable->alignment)
        return fail(variable->line, "variable '" + variable->name + "' wants an alignment of " + Twine(variable->alignment) +
                                        ", the stand-in gives at most 256");
      translator.addresses[variable] = address;
      auto global = std::make_unique<Global>(Global{variable->name, address, variable->bytes});
      result.globalNames[global->name] = global.get();
      result.globals.push_back(std::move(global));
    }
    for (Variable *variable : program.globals)
      for (const Variable::Pointer &pointer : variable->pointers) {
        Variable *target = program.globalNames.lookup(pointer.symbol);
        if (!target || target->space == Space::Shared)
          return fail(pointer.line, "'" + pointer.symbol + "' is no variable whose address is known");
        uint64_t value = translator.addresses[target] + uint64_t(pointer.addend);
        support::endian::write64le(reinterpret_cast<void *>(translator.addresses[variable] + pointer.at), value);
      }
    return Error::success();
  }

  /// Functions have places of their own in a thread's local memory: nothing is recursive. Behind
  /// them are those of the kernel that runs.
  Error locals() {
    auto place = [&](Function &function, uint64_t end) -> Expected<uint64_t> {
      for (Variable *variable : function.variables) {
        if (variable->space != Space::Local)
          continue;
        uint64_t begin = alignTo(end, std::max(16u, variable->alignment));
        if (variable->bytes > maxLocalBytes || begin + variable->bytes > maxLocalBytes)
          return fail(variable->line, "more than " + Twine(maxLocalBytes) + " bytes of local memory");
        variable->offset = uint32_t(begin);
        end = alignTo(begin + variable->bytes, 16);
      }
      return end;
    };
    uint64_t ofFunctions = 0;
    for (bool kernels : {false, true})
      for (Function &function : program.functions) {
        if (function.isKernel != kernels)
          continue;
        Expected<uint64_t> end = place(function, ofFunctions);
        if (!end)
          return end.takeError();
        if (kernels)
          localBytes[&function] = uint32_t(*end);
        else
          ofFunctions = *end;
      }
    return Error::success();
  }

  Error kernel(Function &function, ModuleTranslator &translator, unsigned sharedCount) {
    auto kernel = std::make_unique<Kernel>();
    kernel->name = function.name;
    uint32_t offset = 0;
    for (Variable *parameter : function.parameters) {
      if (parameter->reg >= 0)
        return fail(parameter->line, "a kernel's parameters are in .param");
      if (parameter->bytes > Memory::parameterWindowBytes)
        return fail(parameter->line, "parameter '" + parameter->name + "' is too large");
      offset = uint32_t(alignTo(offset, parameter->alignment));
      parameter->offset = offset;
      kernel->parameters.push_back({parameter->name, uint32_t(parameter->bytes), parameter->alignment, offset});
      offset += uint32_t(parameter->bytes);
      if (offset > 32764)
        return fail(parameter->line, "the parameters of '" + function.name + "' take more than 32764 bytes");
    }
    kernel->parameterBytes = offset;
    kernel->maxThreads = function.maxThreads;
    kernel->reqThreads = function.reqThreads;
    kernel->minBlocksPerSm = function.minBlocksPerSm;
    kernel->localBytes = localBytes[&function];

    KernelCode code;
    code.sharedOffsets.assign(sharedCount, 0);
    uint64_t bytes = 0, place = 0;
    SmallVector<Variable *, 4> dynamic;
    SmallPtrSet<const Function *, 8> called = reachable(function);
    SmallPtrSet<const Variable *, 8> placed;
    for (Function &each : program.functions) {
      if (!called.contains(&each))
        continue;
      const Facts &known = facts[&each];
      kernel->usesRendezvous |= known.meets;
      result.byteCells |= known.smallShared && !translator.sharedNumbers.empty();
      for (Variable *variable : known.shared) {
        unsigned number = translator.sharedNumbers.lookup(variable);
        if (!placed.insert(variable).second)
          continue;
        if (variable->isExtern) {
          dynamic.push_back(variable);
          continue;
        }
        bytes = alignTo(bytes, variable->alignment) + variable->bytes;
        // With a gap behind each, so that running over its end is seen.
        place = alignTo(place, std::max(16u, variable->alignment));
        code.sharedOffsets[number] = uint32_t(place);
        if (variable->bytes > 227 * 1024)
          return fail(variable->line, "shared variable '" + variable->name + "' has more than 227 KiB");
        code.shared.push_back({variable->name, uint32_t(place), uint32_t(variable->bytes)});
        place += variable->bytes + 64;
        if (place > Memory::sharedWindowBytes / 2)
          return fail(function.line, "kernel '" + function.name + "' uses more shared memory than there is");
      }
    }
    unsigned alignment = 128;
    for (Variable *variable : dynamic)
      alignment = std::max(alignment, variable->alignment);
    code.dynamicOffset = uint32_t(alignTo(place, alignment));
    for (Variable *variable : dynamic)
      code.sharedOffsets[translator.sharedNumbers.lookup(variable)] = code.dynamicOffset;
    kernel->usesDynamicShared = !dynamic.empty();
    kernel->staticSharedBytes = uint32_t(bytes);
    result.kernelNames[kernel->name] = kernel.get();
    code.number = unsigned(result.kernels.size());
    // A pointer, which stays when the map grows.
    translator.kernelCode[&function] = (result.code[kernel.get()] = std::make_unique<KernelCode>(std::move(code))).get();
    result.kernels.push_back(std::move(kernel));
    return Error::success();
  }

  Program &program;
  Module::Impl &result;
  DenseMap<const Function *, Facts> facts;
  SmallPtrSet<const Function *, 8> finished;
  DenseMap<const Function *, uint32_t> localBytes; ///< of kernels
};

} // namespace

Expected<std::vector<std::unique_ptr<llvm::Module>>> translate(Program &program, Module::Impl &result, LLVMContext &context) {
  ModuleTranslator translator(program, result);
  Layout layout(program, result);
  if (Error error = layout.run(translator))
    return std::move(error);
  llvm::Type *pointer = PointerType::get(context, 0), *nothing = llvm::Type::getVoidTy(context);
  SmallPtrSet<const Function *, 16> seen;
  auto one = [&](const Function &root, StringRef name) -> Expected<std::unique_ptr<llvm::Module>> {
    auto module = std::make_unique<llvm::Module>(name, context);
    translator.module = module.get();
    translator.functions.clear();
    SmallPtrSet<const Function *, 8> needed = layout.reachable(root);
    std::vector<Function *> functions; // in the order of the text
    for (Function &function : program.functions)
      if (function.isDefined && needed.contains(&function))
        functions.push_back(&function);
    for (Function *function : functions) {
      seen.insert(function);
      SmallVector<llvm::Type *, 8> types(1 + (function->isKernel ? 0 : function->returns.size() + function->parameters.size()), pointer);
      auto linkage = function == &root ? llvm::Function::ExternalLinkage : llvm::Function::InternalLinkage;
      auto *code = llvm::Function::Create(FunctionType::get(nothing, types, false), linkage, function == &root ? name.str() : function->name, *module);
      code->setDoesNotThrow();
      translator.functions[function] = code;
    }
    for (Function *function : functions)
      if (!function->isKernel || function == &root) // a kernel that is called is refused at the call
        if (FunctionTranslator(translator, *function, *translator.functions[function]).run())
          return errorAt(result.name, translator.errorLine, translator.error);
    std::string problem;
    raw_string_ostream stream(problem);
    if (verifyModule(*module, &stream))
      return errorAt(result.name, root.line, "the stand-in made wrong code of '" + root.name + "': " + problem);
    return module;
  };

  std::vector<std::unique_ptr<llvm::Module>> modules;
  for (Function &function : program.functions)
    if (function.isKernel) {
      Expected<std::unique_ptr<llvm::Module>> module = one(function, "kernel." + std::to_string(modules.size()));
      if (!module)
        return module.takeError();
      modules.push_back(std::move(*module));
    }
  // What no kernel calls is not run, but must be understood.
  for (Function &function : program.functions)
    if (function.isDefined && !seen.contains(&function)) {
      Expected<std::unique_ptr<llvm::Module>> module = one(function, "unused");
      if (!module)
        return module.takeError();
    }
  return modules;
}

} // namespace standin::ptx
