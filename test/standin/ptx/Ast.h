//===- Ast.h - PTX as parsed -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Names are resolved: an operand points to its register, variable, function or label. What
// instructions mean is Translate.cpp's affair; here they are words and operands.
//
//===----------------------------------------------------------------------===//

#ifndef DLC_TEST_STANDIN_PTX_AST_H
#define DLC_TEST_STANDIN_PTX_AST_H

#include "test/standin/Report.h"
#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/StringRef.h"
#include <deque>
#include <memory>
#include <vector>

namespace standin::ptx {

/// The fundamental types.
enum class Type : uint8_t {
  Pred, B8, B16, B32, B64, B128, U8, U16, U32, U64, S8, S16, S32, S64,
  F16, F16x2, BF16, BF16x2, F32, F64,
};

unsigned bitsOf(Type type);
bool isFloat(Type type);  ///< F16 to F64, packed ones too
bool isSigned(Type type); ///< S8 to S64
std::optional<Type> typeNamed(llvm::StringRef word); ///< "f32", without the dot

enum class Space : uint8_t { Generic, Global, Shared, Local, Const, Param };

/// Where a statement stands in the PTX and in the source.
struct Place {
  unsigned line = 0;
  unsigned file = 0, sourceLine = 0; ///< of the last .loc
};

/// A variable of any space but .reg. Kernel and function parameters are variables too.
struct Variable {
  std::string name;
  Space space = Space::Global;
  Type type = Type::B8;
  unsigned alignment = 1;
  uint64_t bytes = 0;
  bool isExtern = false;    ///< .extern: the dynamic shared memory
  bool isParameter = false; ///< of the function itself, not of a call that it makes
  bool isReturn = false;
  unsigned index = 0;       ///< parameter: its number; local .param: its number in the function
  uint32_t offset = 0;      ///< kernel parameter: its place; .local: its place in the thread's memory
  int reg = -1;             ///< a function's parameter that is declared as .reg
  std::vector<uint8_t> data;
  struct Pointer {          ///< an address in the initial value
    uint64_t at;
    std::string symbol;
    int64_t addend;
    bool generic;           ///< generic(symbol)
    unsigned line;
  };
  std::vector<Pointer> pointers;
  unsigned line = 0;
};

struct Function;

struct Operand {
  enum Kind : uint8_t {
    Register,  ///< index
    Integer,   ///< value
    Float,     ///< value is the double's bits, unless isSingle: the float's
    Special,   ///< text: "%tid.x"
    VariableAddress, ///< variable + value
    FunctionName,
    Label,     ///< index in the function's labels, resolved at the end of the function
    Address,   ///< [ elements[0] + value ]; a variable or a register or an integer
    Vector,    ///< { elements }
    List,      ///< ( elements ), of a call
    Sink,      ///< _
  } kind = Sink;
  bool negated = false;  ///< !p
  bool isSingle = false;
  unsigned index = 0;
  uint64_t value = 0;
  Variable *variable = nullptr;
  Function *function = nullptr;
  std::string text;
  std::vector<Operand> elements;
  std::unique_ptr<Operand> second; ///< p|q
};

struct Instruction {
  Place place;
  std::string name;                      ///< "ld"
  std::vector<std::string> words;        ///< "global", "nc", "v4", "f32"
  std::vector<Operand> operands;
  int predicate = -1;                    ///< register
  bool predicateNegated = false;
};

struct Register {
  Type type;
};

/// A point in the function's instructions that branches go to.
struct Label {
  std::string name;
  size_t at = 0; ///< index of the instruction that follows
  bool isTable = false;
  std::vector<unsigned> targets; ///< .branchtargets
};

struct Function {
  std::string name;
  bool isKernel = false, isDefined = false, noReturn = false;
  unsigned line = 0;
  std::vector<Variable *> parameters, returns;
  std::vector<Register> registers;
  std::vector<Instruction> body;
  std::vector<Label> labels;
  std::vector<Variable *> variables; ///< .local, .shared and .param of the body
  std::optional<Dim3> maxThreads, reqThreads;
  uint32_t minBlocksPerSm = 0;
};

struct Program {
  unsigned version = 0, target = 0;
  llvm::DenseMap<unsigned, std::string> files;
  std::deque<Variable> storage; ///< owns all variables; addresses stay
  std::deque<Function> functions;
  std::vector<Variable *> globals; ///< module level: .global, .const, .shared
  llvm::StringMap<Variable *> globalNames;
  llvm::StringMap<Function *> functionNames;
};

} // namespace standin::ptx

#endif // DLC_TEST_STANDIN_PTX_AST_H
