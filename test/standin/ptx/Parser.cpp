//===- Parser.cpp - PTX text to Ast.h -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Recursive descent, except where the input decides the depth (scopes, initial values): a stack is
// kept there. A method that returns bool returns true after an error, of which the first is kept.
//
//===----------------------------------------------------------------------===//

#include "Parser.h"
#include "Lexer.h"
#include "llvm/ADT/APFloat.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringSwitch.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/MathExtras.h"

using namespace llvm;

namespace standin::ptx {

unsigned bitsOf(Type type) {
  switch (type) {
  case Type::Pred: return 1;
  case Type::B8: case Type::U8: case Type::S8: return 8;
  case Type::B16: case Type::U16: case Type::S16: case Type::F16: case Type::BF16: return 16;
  case Type::B32: case Type::U32: case Type::S32: case Type::F32: case Type::F16x2: case Type::BF16x2: return 32;
  case Type::B64: case Type::U64: case Type::S64: case Type::F64: return 64;
  case Type::B128: return 128;
  }
  llvm_unreachable("type");
}

bool isFloat(Type type) { return type >= Type::F16; }
bool isSigned(Type type) { return type >= Type::S8 && type <= Type::S64; }

std::optional<Type> typeNamed(StringRef word) {
  return StringSwitch<std::optional<Type>>(word)
      .Case("pred", Type::Pred).Case("b8", Type::B8).Case("b16", Type::B16).Case("b32", Type::B32).Case("b64", Type::B64)
      .Case("b128", Type::B128).Case("u8", Type::U8).Case("u16", Type::U16).Case("u32", Type::U32).Case("u64", Type::U64)
      .Case("s8", Type::S8).Case("s16", Type::S16).Case("s32", Type::S32).Case("s64", Type::S64).Case("f16", Type::F16)
      .Case("f16x2", Type::F16x2).Case("bf16", Type::BF16).Case("bf16x2", Type::BF16x2).Case("f32", Type::F32).Case("f64", Type::F64)
      .Default(std::nullopt);
}

Error errorAt(StringRef name, unsigned line, const Twine &message) {
  return createStringError(inconvertibleErrorCode(), Twine(name) + ":" + Twine(line) + ": " + message);
}

namespace {

constexpr uint64_t maxVariableBytes = uint64_t(1) << 32;
constexpr unsigned maxRegisters = 1 << 20;

/// Names that `{ }` of a body declares.
struct Scope {
  StringMap<unsigned> registers;
  /// %r<5>: by the prefix, first register and count
  StringMap<std::pair<unsigned, unsigned>> families;
  StringMap<Variable *> variables;
  StringMap<unsigned> labels;
  unsigned parent = 0;
};

/// A label that an instruction names, resolved when the function has been read.
struct LabelUse {
  std::string name;
  unsigned scope;
  unsigned line;
  size_t instruction;
  size_t operand;
};
struct TableUse {
  unsigned label; ///< whose targets it is
  std::vector<std::string> names;
  unsigned scope;
  unsigned line;
};

class Parser {
public:
  Parser(StringRef source, StringRef name) : lexer(source), name(name), program(std::make_unique<Program>()) { advance(); }

  Expected<std::unique_ptr<Program>> run() {
    while (token.kind != Token::End)
      if (topLevel())
        return errorAt(name, errorLine, errorText);
    if (!program->version)
      return errorAt(name, token.line, "no .version: this is no PTX");
    return std::move(program);
  }

private:
  //===--- Tokens -----------------------------------------------------------===//

  void advance() {
    if (hasAhead) {
      token = ahead;
      hasAhead = false;
    } else {
      token = lexer.next();
    }
  }
  const Token &peek() {
    if (!hasAhead) {
      ahead = lexer.next();
      hasAhead = true;
    }
    return ahead;
  }
  bool fail(const Twine &message) { return failAt(token.line, message); }
  bool failAt(unsigned line, const Twine &message) {
    if (errorText.empty()) {
      errorLine = line;
      errorText = message.str();
    }
    return true;
  }
  std::string found() const {
    switch (token.kind) {
    case Token::End: return "the end of the text";
    case Token::Error: return token.text.str();
    case Token::String: return "a string";
    default: return ("'" + token.text + "'").str();
    }
  }
  bool unexpected(const Twine &wanted) {
    if (token.kind == Token::Error)
      return fail(token.text);
    return fail("expected " + wanted + ", found " + found());
  }
  bool take(StringRef punctuation) {
    if (!token.is(punctuation))
      return false;
    advance();
    return true;
  }
  bool takeWord(StringRef word) {
    if (token.kind != Token::Word || token.text != word)
      return false;
    advance();
    return true;
  }
  bool expect(StringRef punctuation) { return take(punctuation) ? false : unexpected("'" + punctuation + "'"); }
  bool integer(uint64_t &value) {
    bool minus = take("-");
    if (token.kind != Token::Integer)
      return unexpected("an integer");
    value = minus ? 0 - token.value : token.value;
    advance();
    return false;
  }
  bool word(StringRef &text, StringRef wanted) {
    if (token.kind != Token::Word)
      return unexpected(wanted);
    text = token.text;
    advance();
    return false;
  }

  //===--- Module level -----------------------------------------------------===//

  bool topLevel() {
    if (token.kind != Token::Word)
      return unexpected("a directive");
    StringRef text = token.text;
    if (text == ".version") {
      advance();
      if (token.kind != Token::Float || token.text.starts_with_insensitive("0"))
        return unexpected("a version such as 8.0");
      auto [major, minor] = token.text.split('.');
      unsigned a, b;
      if (major.getAsInteger(10, a) || minor.getAsInteger(10, b) || a > 99 || b > 9)
        return fail("malformed version '" + token.text + "'");
      program->version = a * 10 + b;
      advance();
      return false;
    }
    if (text == ".target") {
      do {
        advance();
        StringRef target;
        unsigned line = token.line;
        if (word(target, "a target such as sm_80"))
          return true;
        if (target.consume_front("sm_")) {
          target = target.take_while(isDigit);
          if (target.getAsInteger(10, program->target))
            return failAt(line, "malformed target");
        } else if (target != "debug" && target != "texmode_independent" && target != "texmode_unified") {
          return failAt(line, "unknown target '" + target + "'");
        }
      } while (token.is(","));
      return false;
    }
    if (text == ".address_size") {
      unsigned line = token.line;
      advance();
      uint64_t bits;
      if (integer(bits))
        return true;
      return bits == 64 ? false : failAt(line, "address size " + Twine(bits) + " is not supported, only 64");
    }
    if (text == ".file")
      return fileDirective();
    if (text == ".section")
      return section();
    if (text == ".pragma")
      return pragma();
    if (text == ".alias" || text == ".tex")
      return fail("'" + text + "' is not supported");

    bool isExtern = false;
    while (token.kind == Token::Word && (token.text == ".extern" || token.text == ".visible" || token.text == ".weak" || token.text == ".common")) {
      isExtern |= token.text == ".extern";
      advance();
    }
    if (token.kind != Token::Word)
      return unexpected("a directive");
    text = token.text;
    if (text == ".entry" || text == ".func") {
      advance();
      return function(text == ".entry");
    }
    if (text == ".global" || text == ".const" || text == ".shared") {
      advance();
      Space space = text == ".global" ? Space::Global : text == ".const" ? Space::Const : Space::Shared;
      return variables(space, isExtern, [&](Variable *variable) {
        program->globals.push_back(variable);
        return !program->globalNames.try_emplace(variable->name, variable).second;
      });
    }
    return fail("unknown directive '" + text + "'");
  }

  /// .file 1 "name" [, time, size]
  bool fileDirective() {
    advance();
    uint64_t number;
    if (integer(number))
      return true;
    if (token.kind != Token::String)
      return unexpected("a file name");
    if (number >= 1u << 20)
      return fail("file number " + Twine(number) + " is too large");
    program->files[unsigned(number)] = token.text.str();
    advance();
    for (int i = 0; i < 2 && take(","); ++i)
      if (integer(number))
        return true;
    return false;
  }

  /// Debug information: bytes that no kernel sees. Lines come from .loc.
  bool section() {
    advance();
    StringRef what;
    if (word(what, "a section's name"))
      return true;
    if (!what.starts_with(".debug_"))
      return fail("unknown section '" + what + "'");
    if (expect("{"))
      return true;
    while (!token.is("}")) {
      if (token.kind == Token::End || token.kind == Token::Error)
        return unexpected("'}'");
      advance();
    }
    advance();
    return false;
  }

  bool pragma() {
    advance();
    do {
      if (token.kind != Token::String)
        return unexpected("a string");
      advance();
    } while (take(","));
    return expect(";");
  }

  //===--- Variables --------------------------------------------------------===//

  bool alignment(Variable &variable) {
    uint64_t value;
    if (integer(value))
      return true;
    if (!isPowerOf2_64(value) || value > 4096)
      return fail("alignment " + Twine(value) + " is no power of two up to 4096");
    variable.alignment = unsigned(value);
    return false;
  }

  bool type(Type &result) {
    if (token.kind == Token::Word && token.text.starts_with("."))
      if (std::optional<Type> known = typeNamed(token.text.drop_front())) {
        result = *known;
        advance();
        return false;
      }
    return unexpected("a type");
  }

  /// [4][5] or [] behind the name.
  bool dimensions(Variable &variable, bool &isOpen) {
    isOpen = false;
    while (take("[")) {
      if (take("]")) {
        if (isOpen)
          return fail("only one dimension may be left open");
        isOpen = true;
        continue;
      }
      uint64_t count;
      if (integer(count) || expect("]"))
        return true;
      if (count && variable.bytes > maxVariableBytes / count)
        return fail("variable '" + variable.name + "' is larger than " + Twine(maxVariableBytes) + " bytes");
      variable.bytes *= count;
    }
    return false;
  }

  /// What stands behind .global, .const, .shared, .local or .param of a body. `add` is told each
  /// variable and answers whether its name is taken.
  template <typename Add> bool variables(Space space, bool isExtern, Add add) {
    Variable pattern;
    pattern.space = space;
    pattern.isExtern = isExtern;
    unsigned lanes = 1;
    bool hasAlignment = false;
    while (token.kind == Token::Word) {
      if (takeWord(".align")) {
        hasAlignment = true;
        if (alignment(pattern))
          return true;
      } else if (takeWord(".v2")) {
        lanes = 2;
      } else if (takeWord(".v4")) {
        lanes = 4;
      } else if (token.text == ".attribute") {
        advance();
        if (expect("("))
          return true;
        StringRef what;
        if (word(what, "an attribute"))
          return true;
        if (what != ".managed")
          return fail("attribute '" + what + "' is not supported");
        if (expect(")"))
          return true;
      } else {
        break;
      }
    }
    if (type(pattern.type))
      return true;
    if (pattern.type == Type::Pred)
      return fail("a variable in memory cannot be a predicate");
    unsigned element = bitsOf(pattern.type) / 8 * lanes;
    if (!hasAlignment)
      pattern.alignment = element;
    do {
      StringRef identifier;
      unsigned line = token.line;
      if (word(identifier, "a variable's name"))
        return true;
      Variable &variable = program->storage.emplace_back(pattern);
      variable.name = identifier.str();
      variable.line = line;
      variable.bytes = element;
      bool isOpen;
      if (dimensions(variable, isOpen))
        return true;
      if (take("=")) {
        if (space != Space::Global && space != Space::Const)
          return fail("only .global and .const variables have initial values");
        if (initialValue(variable, isOpen))
          return true;
      } else if (isOpen) {
        if (!(space == Space::Shared && isExtern))
          return fail("variable '" + identifier + "' needs a size");
        variable.bytes = 0;
      }
      if (isExtern && space != Space::Shared)
        return fail("external variable '" + identifier + "': modules are not linked with one another");
      if (add(&variable))
        return failAt(line, "'" + identifier + "' is declared twice");
    } while (take(","));
    return expect(";");
  }

  /// {1, 2}, {{1, 2}, {3, 4}}, 1.5, generic(name)+4, name
  bool initialValue(Variable &variable, bool isOpen) {
    unsigned element = bitsOf(variable.type) / 8;
    unsigned depth = 0;
    while (true) {
      if (take("{")) {
        ++depth;
        continue;
      }
      if (token.is("}")) {
        if (!depth)
          return unexpected("a value");
        advance();
        --depth;
      } else {
        if (!isOpen && variable.data.size() + element > variable.bytes)
          return fail("more initial values than '" + variable.name + "' has elements");
        if (variable.data.size() > maxVariableBytes)
          return fail("variable '" + variable.name + "' is too large");
        uint8_t bytes[16] = {};
        if (initialElement(variable, bytes))
          return true;
        variable.data.insert(variable.data.end(), bytes, bytes + element);
      }
      while (depth && take("}"))
        --depth;
      if (!depth)
        break;
      if (!take(","))
        return unexpected("',' or '}'");
    }
    if (isOpen)
      variable.bytes = variable.data.size();
    return false;
  }

  bool initialElement(Variable &variable, uint8_t *bytes) {
    bool minus = take("-");
    if (token.kind == Token::Integer && !isFloat(variable.type)) {
      support::endian::write64le(bytes, minus ? 0 - token.value : token.value);
      advance();
      return false;
    }
    if (token.kind == Token::Float || token.kind == Token::Integer) {
      Operand number;
      number.kind = token.kind == Token::Float ? Operand::Float : Operand::Integer;
      number.isSingle = token.isSingle;
      number.value = token.value;
      double value = token.kind == Token::Integer ? double(token.value)
                     : token.isSingle             ? APFloat(APFloat::IEEEsingle(), APInt(32, token.value)).convertToFloat()
                                                  : bit_cast<double>(token.value);
      if (minus)
        value = -value;
      if (variable.type == Type::F32)
        support::endian::write32le(bytes, bit_cast<uint32_t>(float(value)));
      else if (variable.type == Type::F64)
        support::endian::write64le(bytes, bit_cast<uint64_t>(value));
      else
        return fail("a number with a point cannot initialise '" + variable.name + "'");
      advance();
      return false;
    }
    if (minus || token.kind != Token::Word)
      return unexpected("a value");
    if (bitsOf(variable.type) != 64)
      return fail("an address in '" + variable.name + "' needs elements of 64 bits");
    Variable::Pointer pointer{variable.data.size(), "", 0, false, token.line};
    StringRef text;
    if (takeWord("generic")) {
      pointer.generic = true;
      if (expect("(") || word(text, "a variable's name") || expect(")"))
        return true;
    } else if (word(text, "a value")) {
      return true;
    }
    pointer.symbol = text.str();
    if (token.is("+") || token.is("-")) {
      bool negative = token.is("-");
      advance();
      uint64_t value;
      if (integer(value))
        return true;
      pointer.addend = int64_t(negative ? 0 - value : value);
    }
    variable.pointers.push_back(std::move(pointer));
    return false;
  }

  //===--- Functions --------------------------------------------------------===//

  /// (.param .b32 x, .param .u64 .ptr .global .align 16 y, .param .align 4 .b8 z[12], .reg .f32 %w)
  bool parameters(std::vector<Variable *> &list, bool isReturn) {
    if (expect("("))
      return true;
    if (take(")"))
      return false;
    do {
      Variable &variable = program->storage.emplace_back();
      variable.space = Space::Param;
      variable.isParameter = true;
      variable.isReturn = isReturn;
      variable.index = unsigned(list.size());
      variable.line = token.line;
      bool isRegister = takeWord(".reg");
      if (!isRegister && !takeWord(".param"))
        return unexpected("'.param'");
      bool hasAlignment = false;
      if (takeWord(".align")) {
        hasAlignment = true;
        if (alignment(variable))
          return true;
      }
      if (type(variable.type))
        return true;
      if (variable.type == Type::Pred && !isRegister)
        return fail("a parameter cannot be a predicate");
      variable.bytes = std::max(1u, bitsOf(variable.type) / 8);
      if (!hasAlignment)
        variable.alignment = unsigned(variable.bytes);
      if (takeWord(".ptr")) { // about what it points to
        for (StringRef space : {".global", ".shared", ".const", ".local"})
          if (takeWord(space))
            break;
        Variable ignored;
        if (takeWord(".align") && alignment(ignored))
          return true;
      }
      StringRef text;
      if (word(text, "a parameter's name"))
        return true;
      variable.name = text.str();
      bool isOpen;
      if (dimensions(variable, isOpen))
        return true;
      if (isOpen)
        return fail("parameter '" + text + "' needs a size");
      if (isRegister) {
        variable.reg = int(current->registers.size());
        current->registers.push_back({variable.type});
        if (!scopes[0].registers.try_emplace(text, unsigned(variable.reg)).second)
          return fail("'" + text + "' is declared twice");
      } else if (!scopes[0].variables.try_emplace(text, &variable).second) {
        return fail("'" + text + "' is declared twice");
      }
      list.push_back(&variable);
    } while (take(","));
    return expect(")");
  }

  bool dim3(std::optional<Dim3> &result) {
    uint64_t v[3] = {1, 1, 1};
    for (int i = 0; i < 3; ++i) {
      if (integer(v[i]))
        return true;
      if (!v[i] || v[i] > 1 << 20)
        return fail("a block cannot have " + Twine(v[i]) + " threads along an axis");
      if (!take(","))
        break;
    }
    result = Dim3{uint32_t(v[0]), uint32_t(v[1]), uint32_t(v[2])};
    return false;
  }

  bool function(bool isKernel) {
    Function parsed;
    current = &parsed;
    parsed.isKernel = isKernel;
    scopes.clear();
    scopes.emplace_back();
    labelUses.clear();
    tableUses.clear();
    while (takeWord(".noreturn"))
      parsed.noReturn = true;
    if (token.kind == Token::Word && token.text == ".attribute")
      return fail("attributes of functions are not supported");
    if (!isKernel && token.is("(") && parameters(parsed.returns, /*isReturn=*/true))
      return true;
    StringRef text;
    parsed.line = token.line;
    if (word(text, "a function's name"))
      return true;
    parsed.name = text.str();
    if (token.is("(") && parameters(parsed.parameters, /*isReturn=*/false))
      return true;

    while (token.kind == Token::Word) {
      uint64_t ignored;
      if (takeWord(".maxntid")) {
        if (dim3(parsed.maxThreads))
          return true;
      } else if (takeWord(".reqntid")) {
        if (dim3(parsed.reqThreads))
          return true;
      } else if (takeWord(".minnctapersm")) {
        if (integer(ignored))
          return true;
        parsed.minBlocksPerSm = uint32_t(ignored);
      } else if (takeWord(".maxnreg") || takeWord(".maxnctapersm")) {
        if (integer(ignored))
          return true;
      } else if (takeWord(".noreturn")) {
        parsed.noReturn = true;
      } else if (token.text == ".pragma") {
        if (pragma())
          return true;
      } else {
        return fail("'" + token.text + "' is not supported");
      }
    }

    Function *entry = program->functionNames.lookup(parsed.name);
    if (take(";")) { // a declaration
      if (isKernel)
        return fail("a kernel needs a body");
      if (!entry) {
        program->functions.push_back(std::move(parsed));
        program->functionNames[program->functions.back().name] = &program->functions.back();
      }
      return false;
    }
    if (!token.is("{"))
      return unexpected("'{' or ';'");
    if (entry && entry->isDefined)
      return failAt(parsed.line, "function '" + parsed.name + "' is defined twice");
    if (entry && (entry->parameters.size() != parsed.parameters.size() || entry->returns.size() != parsed.returns.size()))
      return failAt(parsed.line, "function '" + parsed.name + "' has other parameters than in its declaration");
    // Known before its body is read: it may name itself, and is then refused as recursive.
    if (!entry) {
      program->functions.emplace_back();
      entry = &program->functions.back();
      entry->name = parsed.name;
      program->functionNames[entry->name] = entry;
    }
    parsed.isDefined = true;
    if (body())
      return true;
    *entry = std::move(parsed);
    return false;
  }

  //===--- Bodies -----------------------------------------------------------===//

  Scope &scope() { return scopes[open.back()]; }

  bool body() {
    open = {0};
    place = {};
    advance(); // {
    while (!open.empty()) {
      if (take("{")) {
        scopes.emplace_back();
        scopes.back().parent = open.back();
        open.push_back(unsigned(scopes.size() - 1));
      } else if (take("}")) {
        open.pop_back();
      } else if (statement()) {
        return true;
      }
    }
    // labels
    for (const LabelUse &use : labelUses) {
      std::optional<unsigned> label = findLabel(use.name, use.scope);
      if (!label)
        return failAt(use.line, "'" + use.name + "' is not declared");
      Operand &operand = current->body[use.instruction].operands[use.operand];
      operand.kind = Operand::Label;
      operand.index = *label;
    }
    for (const TableUse &use : tableUses)
      for (const std::string &target : use.names) {
        std::optional<unsigned> label = findLabel(target, use.scope);
        if (!label || current->labels[*label].isTable)
          return failAt(use.line, "'" + target + "' is no label");
        current->labels[use.label].targets.push_back(*label);
      }
    return false;
  }

  std::optional<unsigned> findLabel(StringRef text, unsigned in) const {
    for (unsigned at = in;; at = scopes[at].parent) {
      auto found = scopes[at].labels.find(text);
      if (found != scopes[at].labels.end())
        return found->second;
      if (!at)
        return std::nullopt;
    }
  }

  bool statement() {
    if (token.is("@"))
      return instruction();
    if (token.kind != Token::Word)
      return unexpected("an instruction");
    StringRef text = token.text;
    if (text == ".reg")
      return registers();
    if (text == ".local" || text == ".shared" || text == ".param") {
      advance();
      Space space = text == ".local" ? Space::Local : text == ".shared" ? Space::Shared : Space::Param;
      return variables(space, false, [&](Variable *variable) {
        current->variables.push_back(variable);
        return !scope().variables.try_emplace(variable->name, variable).second;
      });
    }
    if (text == ".loc")
      return location();
    if (text == ".pragma")
      return pragma();
    if (text == ".file")
      return fileDirective();
    if (text == ".callprototype" || text == ".calltargets" || text == ".branchtargets")
      return fail("'" + text + "' needs a label");
    if (text.starts_with("."))
      return fail("unknown directive '" + text + "'");
    if (peek().is(":"))
      return label();
    return instruction();
  }

  bool label() {
    StringRef text = token.text;
    unsigned line = token.line;
    advance();
    advance();
    unsigned index = unsigned(current->labels.size());
    Label &added = current->labels.emplace_back();
    added.name = text.str();
    added.at = current->body.size();
    if (!scope().labels.try_emplace(text, index).second)
      return failAt(line, "label '" + text + "' stands twice");
    if (takeWord(".branchtargets")) {
      added.isTable = true;
      TableUse use{index, {}, open.back(), line};
      do {
        StringRef target;
        if (word(target, "a label"))
          return true;
        use.names.push_back(target.str());
      } while (take(","));
      tableUses.push_back(std::move(use));
      return expect(";");
    }
    if (token.kind == Token::Word && (token.text == ".callprototype" || token.text == ".calltargets"))
      return fail("calls of functions that are not named ('" + token.text + "') are not supported");
    return false;
  }

  /// .reg .b32 %r<5>, %x;
  bool registers() {
    advance();
    if (token.kind == Token::Word && (token.text == ".v2" || token.text == ".v4"))
      return fail("vector registers are not supported");
    Type kind;
    if (type(kind))
      return true;
    do {
      StringRef text;
      unsigned line = token.line;
      if (word(text, "a register's name"))
        return true;
      unsigned first = unsigned(current->registers.size());
      uint64_t count = 1;
      bool isFamily = take("<");
      if (isFamily && (integer(count) || expect(">")))
        return true;
      if (count > maxRegisters || first + count > maxRegisters)
        return failAt(line, "more than " + Twine(maxRegisters) + " registers");
      current->registers.insert(current->registers.end(), count, Register{kind});
      bool added = isFamily ? scope().families.try_emplace(text, std::make_pair(first, unsigned(count))).second
                            : scope().registers.try_emplace(text, first).second;
      if (!added)
        return failAt(line, "register '" + text + "' is declared twice");
    } while (take(","));
    return expect(";");
  }

  /// .loc 1 5 3 [, function_name $label [+ 4], inlined_at 1 7 2]
  bool location() {
    advance();
    uint64_t v[3];
    for (uint64_t &value : v)
      if (integer(value))
        return true;
    place.file = unsigned(v[0]);
    place.sourceLine = unsigned(v[1]);
    while (take(",")) {
      StringRef text;
      if (takeWord("function_name")) {
        if (word(text, "a label"))
          return true;
        if (take("+") && integer(v[0]))
          return true;
      } else if (takeWord("inlined_at")) {
        for (uint64_t &value : v)
          if (integer(value))
            return true;
      } else {
        return unexpected("'function_name' or 'inlined_at'");
      }
    }
    return false;
  }

  std::optional<unsigned> findRegister(StringRef text) const {
    StringRef prefix = text.rtrim("0123456789");
    for (unsigned i = unsigned(open.size()); i-- > 0;) {
      const Scope &scope = scopes[open[i]];
      auto found = scope.registers.find(text);
      if (found != scope.registers.end())
        return found->second;
      // The prefix may itself end in digits: "%r1<3>" declares %r10 to %r12.
      for (size_t split = prefix.size(); split < text.size(); ++split) {
        auto family = scope.families.find(text.take_front(split));
        unsigned number;
        StringRef rest = text.drop_front(split);
        if (family != scope.families.end() && !rest.getAsInteger(10, number) && (rest.size() == 1 || rest[0] != '0') &&
            number < family->second.second)
          return family->second.first + number;
      }
    }
    return std::nullopt;
  }

  Variable *findVariable(StringRef text) const {
    for (unsigned i = unsigned(open.size()); i-- > 0;)
      if (Variable *found = scopes[open[i]].variables.lookup(text))
        return found;
    return program->globalNames.lookup(text);
  }

  bool instruction() {
    Instruction parsed;
    if (take("@")) {
      parsed.predicateNegated = take("!");
      StringRef text;
      unsigned line = token.line;
      if (word(text, "a predicate"))
        return true;
      std::optional<unsigned> found = findRegister(text);
      if (!found || current->registers[*found].type != Type::Pred)
        return failAt(line, "'" + text + "' is no predicate");
      parsed.predicate = int(*found);
    }
    place.line = token.line;
    parsed.place = place;
    StringRef text;
    if (word(text, "an instruction"))
      return true;
    SmallVector<StringRef, 8> words;
    text.split(words, '.');
    parsed.name = words[0].str();
    for (StringRef each : ArrayRef(words).drop_front())
      parsed.words.push_back(each.str());
    if (!token.is(";"))
      do {
        if (parsed.operands.size() > 64)
          return fail("too many operands");
        if (operand(parsed.operands.emplace_back(), &parsed, 0))
          return true;
        // a call's result list is followed by ','; so are all other operands
      } while (take(","));
    if (expect(";"))
      return true;
    current->body.push_back(std::move(parsed));
    return false;
  }

  bool operand(Operand &result, Instruction *instruction, unsigned depth) {
    if (depth > 3)
      return fail("operands are nested too deeply");
    result.index = 0;
    if (take("[")) {
      result.kind = Operand::Address;
      Operand &address = result.elements.emplace_back();
      if (operand(address, nullptr, depth + 1))
        return true;
      switch (address.kind) {
      case Operand::Register: case Operand::Integer: case Operand::VariableAddress:
        break;
      default:
        return fail("expected an address");
      }
      if (address.kind == Operand::Integer) {
        result.value = 0;
      } else if (token.is("+") || token.is("-")) {
        bool minus = token.is("-");
        advance();
        if (integer(result.value))
          return true;
        if (minus)
          result.value = 0 - result.value;
      }
      if (address.kind == Operand::VariableAddress) {
        result.value += address.value;
        address.value = 0;
      }
      return expect("]");
    }
    if (token.is("{") || token.is("(")) {
      bool isList = token.is("(");
      result.kind = isList ? Operand::List : Operand::Vector;
      StringRef close = isList ? ")" : "}";
      advance();
      if (take(close))
        return false;
      do {
        if (result.elements.size() > 256)
          return fail("too many operands");
        if (operand(result.elements.emplace_back(), nullptr, depth + 1))
          return true;
      } while (take(","));
      return expect(close);
    }
    if (take("!")) {
      if (operand(result, nullptr, depth + 1))
        return true;
      if (result.kind != Operand::Register)
        return fail("'!' stands before a predicate");
      result.negated = !result.negated;
      return false;
    }
    bool minus = take("-");
    if (token.kind == Token::Integer || token.kind == Token::Float) {
      result.kind = token.kind == Token::Integer ? Operand::Integer : Operand::Float;
      result.isSingle = token.isSingle;
      result.value = token.value;
      if (minus)
        result.value = token.kind == Token::Integer ? 0 - token.value : token.value ^ (token.isSingle ? uint64_t(1) << 31 : uint64_t(1) << 63);
      advance();
      return false;
    }
    if (minus || token.kind != Token::Word)
      return unexpected("an operand");
    StringRef text = token.text;
    unsigned line = token.line;
    advance();
    if (text == "_") {
      result.kind = Operand::Sink;
    } else if (text == "WARP_SZ") {
      result.kind = Operand::Integer;
      result.value = 32;
    } else if (std::optional<unsigned> found = findRegister(text)) {
      result.kind = Operand::Register;
      result.index = *found;
    } else if (Variable *variable = findVariable(text)) {
      result.kind = Operand::VariableAddress;
      result.variable = variable;
      if (depth == 0 && (token.is("+") || token.is("-"))) {
        bool negative = token.is("-");
        advance();
        if (integer(result.value))
          return true;
        if (negative)
          result.value = 0 - result.value;
      }
    } else if (text.starts_with("%")) {
      result.kind = Operand::Special;
      result.text = text.str();
    } else if (Function *function = program->functionNames.lookup(text)) {
      result.kind = Operand::FunctionName;
      result.function = function;
    } else if (instruction) {
      labelUses.push_back({text.str(), open.back(), line, current->body.size(), instruction->operands.size() - 1});
      result.kind = Operand::Label;
    } else {
      return failAt(line, "'" + text + "' is not declared");
    }
    if (take("|")) {
      result.second = std::make_unique<Operand>();
      return operand(*result.second, nullptr, depth + 1);
    }
    return false;
  }

  Lexer lexer;
  StringRef name;
  Token token, ahead;
  bool hasAhead = false;
  std::unique_ptr<Program> program;
  std::string errorText;
  unsigned errorLine = 0;

  // of the function that is read
  Function *current = nullptr;
  std::vector<Scope> scopes;
  std::vector<unsigned> open; ///< the scopes around, outermost first
  std::vector<LabelUse> labelUses;
  std::vector<TableUse> tableUses;
  Place place;
};

} // namespace

Expected<std::unique_ptr<Program>> parse(StringRef source, StringRef name) { return Parser(source, name).run(); }

} // namespace standin::ptx
