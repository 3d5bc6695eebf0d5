//===- FunctionTranslator.h - one function of PTX to LLVM IR -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Registers are integers of their declared width (predicates i1) in allocas, which LLVM turns into
// values; a float is its bits until an instruction takes it. Instructions are in three files:
// Translate.cpp (control, calls), TranslateMemory.cpp, TranslateArithmetic.cpp.
//
// A method that returns bool returns true after an error. An instruction's handler takes the words
// behind the name one by one; a word that is left over is an error, and so is an operand too many.
//
//===----------------------------------------------------------------------===//

#ifndef DLC_TEST_STANDIN_PTX_FUNCTIONTRANSLATOR_H
#define DLC_TEST_STANDIN_PTX_FUNCTIONTRANSLATOR_H

#include "Ast.h"
#include "Execution.h"
#include "Modes.h"
#include "llvm/ADT/Twine.h"
#include "llvm/IR/IRBuilder.h"

namespace standin::ptx {

/// What the functions of a module share while they are translated.
struct ModuleTranslator {
  ModuleTranslator(Program &program, Module::Impl &result) : program(program), result(result) {}
  Program &program;
  Module::Impl &result;
  llvm::Module *module = nullptr; ///< of the kernel whose functions are translated
  llvm::DenseMap<const Variable *, uint64_t> addresses; ///< .global and .const: where they are
  llvm::DenseMap<const Variable *, unsigned> sharedNumbers;
  llvm::DenseMap<const Function *, llvm::Function *> functions;
  llvm::DenseMap<const Function *, const KernelCode *> kernelCode;
  unsigned errorLine = 0;
  std::string error;
};

class FunctionTranslator {
public:
  FunctionTranslator(ModuleTranslator &shared, const Function &function, llvm::Function &code);
  bool run();

private:
  using Value = llvm::Value;

  //===--- Errors and the words of an instruction ---------------------------===//
  bool fail(const llvm::Twine &message);
  std::string opcode() const;
  /// Takes the word if it is among those left.
  bool has(llvm::StringRef word);
  /// The next of the words left that is a type.
  std::optional<Type> nextType();
  bool type(Type &result, llvm::ArrayRef<Type> allowed = {});
  bool operands(size_t least, size_t most);
  bool operands(size_t count) { return operands(count, count); }
  const Operand &op(size_t i) const { return in->operands[i]; }
  /// .rn .rz .rm .rp if it is there
  std::optional<uint32_t> rounding();

  //===--- Values -----------------------------------------------------------===//
  llvm::Type *intType(unsigned bits) { return builder.getIntNTy(bits); }
  llvm::Type *llvmType(Type type);
  llvm::ConstantInt *i32(uint64_t value) { return builder.getInt32(uint32_t(value)); }
  llvm::ConstantInt *i64(uint64_t value) { return builder.getInt64(value); }
  /// f32 and f64 as floating point, all other types as integers of their width.
  bool read(const Operand &operand, Type type, Value *&result);
  bool readPredicate(const Operand &operand, Value *&result);
  bool special(llvm::StringRef name, unsigned bits, Value *&result);
  /// To a register, which may be wider than the type: extended by the type's sign. `_` takes nothing.
  bool write(const Operand &operand, Type type, Value *value);
  bool writePredicate(const Operand &operand, Value *value);
  bool addressOf(const Operand &operand, Value *&result, std::optional<Space> &space);

  Value *call(llvm::StringRef name, llvm::Type *result, llvm::ArrayRef<Value *> arguments, bool pure = true);
  Value *contextField(size_t offset, unsigned bits, bool constant = true);
  Value *blockField(size_t offset, unsigned bits, bool constant = true);
  Value *load(llvm::Type *type, Value *address, unsigned alignment, llvm::MDNode *scope);
  void store(Value *value, Value *address, unsigned alignment, llvm::MDNode *scope);
  void mark(llvm::Instruction *instruction, llvm::MDNode *scope);
  Value *pointer(Value *address) { return builder.CreateIntToPtr(address, builder.getPtrTy()); }
  unsigned site();
  Value *siteValue() { return i32(site()); }
  llvm::BasicBlock *newBlock(const llvm::Twine &name);
  void branchUnlikely(Value *condition, llvm::BasicBlock *then, llvm::BasicBlock *otherwise);

  //===--- Structure and control (Translate.cpp) ----------------------------===//
  bool instruction(size_t index);
  bool dispatch();
  void jump(llvm::BasicBlock *target, size_t at);
  bool bra();
  bool brx();
  bool ret();
  bool exit();
  bool trap();
  bool callFunction();
  bool barrier();
  bool shfl();
  bool vote();
  bool match();
  bool redux();
  bool activemask();
  Value *buffer(unsigned words);
  bool mma();
  bool ldmatrix();
  bool nothing();
  bool unsupported();

  //===--- Memory (TranslateMemory.cpp) -------------------------------------===//
  struct Target { ///< of a load, store or atomic
    Space space = Space::Generic;
    Value *address = nullptr; ///< in the host's addresses
    Variable *parameter = nullptr; ///< or a place in a parameter of a call, of this function or kernel
    uint64_t offset = 0;
  };
  bool space(Space &result);
  bool target(const Operand &operand, Space space, uint64_t bytes, Target &result);
  Value *parameterAddress(const Target &target);
  void check(const Target &target, unsigned bytes, uint32_t access);
  void checkShared(Value *address, unsigned bytes, uint32_t access);
  void bookkeep(Value *address, unsigned bytes, uint32_t access);
  bool orderWords(bool &strong);
  bool cacheWords();
  bool ld();
  bool st();
  bool atom();
  bool cp();
  bool cvta();
  bool isspacep();
  bool fence();
  bool prefetch();
  bool mov();

  //===--- Arithmetic (TranslateArithmetic.cpp) -----------------------------===//
  Value *flush(Value *value);
  Value *clampUnit(Value *value);
  Value *widen(Value *value, Type type);
  Value *narrow(Value *value, Type type);
  Value *eachHalf(Type type, llvm::ArrayRef<Value *> values, llvm::function_ref<Value *(llvm::ArrayRef<Value *>)> make);
  Value *floatBinary(llvm::StringRef name, Value *a, Value *b, Type type, std::optional<uint32_t> mode);
  Value *floatMinMax(Value *a, Value *b, Type type, bool isMax, bool keepsNan);
  bool addOrSub();
  bool carry();
  bool mul();
  bool mad();
  bool fma();
  bool mul24();
  bool div();
  bool rem();
  bool absOrNeg();
  bool minOrMax();
  bool sad();
  bool unaryBits();
  bool bfind();
  bool bfe();
  bool bfi();
  bool bmsk();
  bool szext();
  bool dot();
  bool logic();
  bool notOrCnot();
  bool lop3();
  bool shift();
  bool funnel();
  bool prmt();
  bool testp();
  bool copysign();
  bool rootOrReciprocal();
  bool approximate();
  bool compare(llvm::StringRef operation, Type type, Value *a, Value *b, Value *&result);
  bool setp();
  bool set();
  bool selp();
  bool slct();
  bool cvt();
  bool convert(Type to, Type from, Value *value, Value *&result, std::optional<uint32_t> mode, std::optional<uint32_t> integral, bool ftz, bool sat,
               bool relu);

  ModuleTranslator &shared;
  const Function &function;
  llvm::Function &code;
  llvm::IRBuilder<> builder;
  const Instruction *in = nullptr;
  llvm::SmallVector<bool, 8> taken; ///< of in->words
  size_t index = 0;
  std::optional<unsigned> currentSite;

  std::vector<llvm::AllocaInst *> registers;
  llvm::DenseMap<const Variable *, Value *> places; ///< parameters and .param of the body: pointers
  std::vector<llvm::BasicBlock *> blocks;           ///< by label
  llvm::AllocaInst *carryFlag = nullptr;
  llvm::BasicBlock *entry = nullptr;
  llvm::MDNode *dataScope, *shadowScope, *counterScope, *tagScope, *cellScope, *stateScope;
  llvm::DenseMap<llvm::MDNode *, llvm::MDNode *> noAlias;
};

} // namespace standin::ptx

#endif // DLC_TEST_STANDIN_PTX_FUNCTIONTRANSLATOR_H
