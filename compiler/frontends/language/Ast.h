//===- Ast.h - the program as it was written -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Nodes live in an arena and hold nothing that needs a destructor: names are pieces of the source
// buffer, lists are pieces of the arena. So a tree of any depth goes away without recursion.
// Operator chains (`a + b + c …`) are one node with many operands for the same reason; every other
// nesting is limited by the parser.
//
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_FRONTENDS_LANGUAGE_AST_H
#define DLC_COMPILER_FRONTENDS_LANGUAGE_AST_H

#include "Lexer.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/Support/Allocator.h"
#include "llvm/Support/Casting.h"

namespace dlc::language::ast {

/// A name with its place.
struct Name {
  llvm::StringRef text;
  explicit operator bool() const { return text.data() != nullptr; }
  llvm::SMRange range() const {
    return {llvm::SMLoc::getFromPointer(text.data()),
            llvm::SMLoc::getFromPointer(text.data() + text.size())};
  }
};

struct Block;

//===----------------------------------------------------------------------===//
// Expressions
//===----------------------------------------------------------------------===//

struct Expr {
  enum class Kind : uint8_t {
    Error, // a syntax error was reported here
    Name,
    Int,
    Float,
    String,
    True,
    False,
    None,
    List,
    Comprehension,
    Chain,
    Compare,
    Range,
    Negate,
    Not,
    Power,
    Call,
    Index,
    Field,
    If
  };
  Kind kind;
  llvm::SMRange range; // the whole expression
  llvm::SMLoc
      place; // where a caret points: an operator, the opening bracket of a call, else the beginning

  Expr(Kind kind, llvm::SMRange range) : kind(kind), range(range), place(range.Start) {}
};

template <Expr::Kind K> struct ExprOf : Expr {
  explicit ExprOf(llvm::SMRange range) : Expr(K, range) {}
  static bool classof(const Expr *e) { return e->kind == K; }
};

struct ErrorExpr : ExprOf<Expr::Kind::Error> {
  using ExprOf::ExprOf;
};
/// A name or a literal: the text says it all (a string's without its quotes).
struct NameExpr : ExprOf<Expr::Kind::Name> {
  using ExprOf::ExprOf;
  llvm::StringRef name;
};
struct IntExpr : ExprOf<Expr::Kind::Int> {
  using ExprOf::ExprOf;
  llvm::StringRef text;
};
struct FloatExpr : ExprOf<Expr::Kind::Float> {
  using ExprOf::ExprOf;
  llvm::StringRef text;
};
struct StringExpr : ExprOf<Expr::Kind::String> {
  using ExprOf::ExprOf;
  llvm::StringRef text;
};
struct TrueExpr : ExprOf<Expr::Kind::True> {
  using ExprOf::ExprOf;
};
struct FalseExpr : ExprOf<Expr::Kind::False> {
  using ExprOf::ExprOf;
};
struct NoneExpr : ExprOf<Expr::Kind::None> {
  using ExprOf::ExprOf;
};
struct ListExpr : ExprOf<Expr::Kind::List> {
  using ExprOf::ExprOf;
  llvm::ArrayRef<Expr *> elements;
};
/// `[element for variable in sequence]`
struct ComprehensionExpr : ExprOf<Expr::Kind::Comprehension> {
  using ExprOf::ExprOf;
  Expr *element, *sequence;
  Name variable;
};
/// `a op b op c …` of operators of one rank, from left to right: + -, * / % @, and, or.
struct ChainExpr : ExprOf<Expr::Kind::Chain> {
  using ExprOf::ExprOf;
  llvm::ArrayRef<Expr *> operands;
  llvm::ArrayRef<Token> operators; // one less than operands
};
struct CompareExpr : ExprOf<Expr::Kind::Compare> {
  using ExprOf::ExprOf;
  Expr *lhs, *rhs;
  Tok op;
};
struct RangeExpr : ExprOf<Expr::Kind::Range> {
  using ExprOf::ExprOf;
  Expr *first, *last;
};
struct NegateExpr : ExprOf<Expr::Kind::Negate> {
  using ExprOf::ExprOf;
  Expr *operand;
};
struct NotExpr : ExprOf<Expr::Kind::Not> {
  using ExprOf::ExprOf;
  Expr *operand;
};
struct PowerExpr : ExprOf<Expr::Kind::Power> {
  using ExprOf::ExprOf;
  Expr *base, *exponent;
};
struct Argument {
  Name name; // null when positional
  Expr *value;
};
struct CallExpr : ExprOf<Expr::Kind::Call> {
  using ExprOf::ExprOf;
  Expr *callee;
  llvm::ArrayRef<Argument> arguments;
};
struct Subscript {
  enum class Kind : uint8_t { Element, Ellipsis, Slice };
  Kind kind;
  llvm::SMRange range;
  Expr *element = nullptr;                                 // of an Element
  Expr *start = nullptr, *stop = nullptr, *step = nullptr; // of a Slice; null where left out
};
struct IndexExpr : ExprOf<Expr::Kind::Index> {
  using ExprOf::ExprOf;
  Expr *base;
  llvm::ArrayRef<Subscript> subscripts;
};
struct FieldExpr : ExprOf<Expr::Kind::Field> {
  using ExprOf::ExprOf;
  Expr *base;
  Name name;
};
struct IfExpr : ExprOf<Expr::Kind::If> {
  using ExprOf::ExprOf;
  Expr *condition;
  Block *thenBlock;
  Block *elseBlock = nullptr; // `else { … }`
  Expr *elseExpr = nullptr;   // `else if …`, `else value`
};

//===----------------------------------------------------------------------===//
// Types and statements
//===----------------------------------------------------------------------===//

struct Dim {
  llvm::SMRange range;
  Expr *size; // null for `...`
};
struct Type {
  llvm::SMRange range;
  Name dtype;
  llvm::ArrayRef<Dim> dims;
  bool scalar; // written without brackets
};

struct Stmt {
  enum class Kind : uint8_t {
    Assign,
    Augment,
    Local,
    For,
    While,
    Break,
    Return,
    Assert,
    Expressions
  };
  Kind kind;
  llvm::SMRange range;
  Stmt(Kind kind, llvm::SMRange range) : kind(kind), range(range) {}
};

template <Stmt::Kind K> struct StmtOf : Stmt {
  explicit StmtOf(llvm::SMRange range) : Stmt(K, range) {}
  static bool classof(const Stmt *s) { return s->kind == K; }
};

struct Block {
  llvm::SMRange range;
  llvm::ArrayRef<Stmt *> statements;
};
/// `a, b = value`
struct AssignStmt : StmtOf<Stmt::Kind::Assign> {
  using StmtOf::StmtOf;
  llvm::ArrayRef<Expr *> targets, values;
};
/// `a += value`; op is Plus, Minus, Star or Slash.
struct AugmentStmt : StmtOf<Stmt::Kind::Augment> {
  using StmtOf::StmtOf;
  Expr *target, *value;
  Token op;
};
/// `name: type = value`
struct LocalStmt : StmtOf<Stmt::Kind::Local> {
  using StmtOf::StmtOf;
  Name name;
  Type *type;
  Expr *value;
};
struct ForStmt : StmtOf<Stmt::Kind::For> {
  using StmtOf::StmtOf;
  Name variable;
  Expr *sequence;
  Block *body;
};
struct WhileStmt : StmtOf<Stmt::Kind::While> {
  using StmtOf::StmtOf;
  Expr *condition;
  Block *body;
};
struct BreakStmt : StmtOf<Stmt::Kind::Break> {
  using StmtOf::StmtOf;
};
struct ReturnStmt : StmtOf<Stmt::Kind::Return> {
  using StmtOf::StmtOf;
  llvm::ArrayRef<Expr *> values;
};
struct Assertion {
  llvm::SMRange range;
  Expr *condition;
  llvm::StringRef words;
};
struct AssertStmt : StmtOf<Stmt::Kind::Assert> {
  using StmtOf::StmtOf;
  Assertion assertion;
};
struct ExpressionsStmt : StmtOf<Stmt::Kind::Expressions> {
  using StmtOf::StmtOf;
  llvm::ArrayRef<Expr *> values;
};

//===----------------------------------------------------------------------===//
// Declarations
//===----------------------------------------------------------------------===//

struct Arg {
  Name name;
  Type *type = nullptr;    // null: generic
  Expr *initial = nullptr; // null: must be given
};
/// `name: type`, `type`, or `name`; a lone word is a type when it names a dtype.
struct Result {
  Name name;
  Type *type = nullptr;
};
/// `= value` or `{ … }`.
struct Body {
  Expr *value = nullptr;
  Block *block = nullptr;
};

struct Decl {
  enum class Kind : uint8_t {
    Import,
    ImportGraph,
    Const,
    Fn,
    Extern,
    Layer,
    Optimizer,
    Variable, // `var`, `state` or `each` with a type or, for `each`, a value
    Frozen,   // `state name = layer`
    Train,
    Precision,
    Assert,
    If,
    Prepare,
    Update
  };
  Kind kind;
  llvm::SMRange range; // from the first word to the name
  Name name;           // null where there is none
  llvm::StringRef doc; // the `///` lines above, raw
  Decl(Kind kind, llvm::SMRange range) : kind(kind), range(range) {}
};

template <Decl::Kind K> struct DeclOf : Decl {
  explicit DeclOf(llvm::SMRange range) : Decl(K, range) {}
  static bool classof(const Decl *d) { return d->kind == K; }
};

/// One module of `import a, b` or `import a from "file"`.
struct ImportDecl : DeclOf<Decl::Kind::Import> {
  using DeclOf::DeclOf;
  bool named = false; // with `from`
  llvm::StringRef file;
  llvm::SMRange fileRange;
};
struct ImportGraphDecl : DeclOf<Decl::Kind::ImportGraph> {
  using DeclOf::DeclOf;
  llvm::StringRef file;
};
struct ConstDecl : DeclOf<Decl::Kind::Const> {
  using DeclOf::DeclOf;
  Expr *value;
};
struct FnDecl : DeclOf<Decl::Kind::Fn> {
  using DeclOf::DeclOf;
  bool train = false;
  llvm::ArrayRef<Arg> args;
  bool hasResults = false;
  llvm::ArrayRef<Result> results;
  Body body;
  Name gradient;
};
struct ExternDecl : DeclOf<Decl::Kind::Extern> {
  using DeclOf::DeclOf;
  llvm::ArrayRef<Arg> args;
  llvm::ArrayRef<Result> results;
  llvm::ArrayRef<llvm::StringRef> files;
  Name gradient;
};
struct Param {
  Name name;
  Expr *initial = nullptr;
  bool unknown = false; // `= ?`
};
struct LayerDecl : DeclOf<Decl::Kind::Layer> {
  using DeclOf::DeclOf;
  bool model = false;
  llvm::ArrayRef<Param> params;
  llvm::ArrayRef<Decl *> members;
};
struct OptimizerDecl : DeclOf<Decl::Kind::Optimizer> {
  using DeclOf::DeclOf;
  llvm::ArrayRef<Param> params;
  llvm::ArrayRef<Decl *> parts;
};
enum class Keep : uint8_t { Var, State, Each };
struct VariableDecl : DeclOf<Decl::Kind::Variable> {
  using DeclOf::DeclOf;
  Keep keep;
  Type *type = nullptr;    // null only for `each`
  Expr *initial = nullptr; // null: zero
};
struct FrozenDecl : DeclOf<Decl::Kind::Frozen> {
  using DeclOf::DeclOf;
  Expr *value;
};
struct TrainDecl : DeclOf<Decl::Kind::Train> {
  using DeclOf::DeclOf;
  Expr *value;
};
struct PrecisionDecl : DeclOf<Decl::Kind::Precision> {
  using DeclOf::DeclOf;
};
struct AssertDecl : DeclOf<Decl::Kind::Assert> {
  using DeclOf::DeclOf;
  Assertion assertion;
};
struct IfDecl : DeclOf<Decl::Kind::If> {
  using DeclOf::DeclOf;
  Expr *condition;
  llvm::ArrayRef<Decl *> thenMembers, elseMembers;
};
struct PrepareDecl : DeclOf<Decl::Kind::Prepare> {
  using DeclOf::DeclOf;
  Block *block;
};
struct UpdateDecl : DeclOf<Decl::Kind::Update> {
  using DeclOf::DeclOf;
  Name value, gradient;
  Body body;
};

/// One source file.
struct File {
  unsigned buffer = 0;
  llvm::StringRef path;
  llvm::ArrayRef<Decl *> items;
};

/// Owns the nodes of all files.
class Arena {
public:
  template <typename T, typename... Args> T *make(Args &&...args) {
    return new (allocator.Allocate<T>()) T(std::forward<Args>(args)...);
  }
  template <typename T> llvm::ArrayRef<T> copy(llvm::ArrayRef<T> list) {
    T *data = allocator.Allocate<T>(list.size());
    std::uninitialized_copy(list.begin(), list.end(), data);
    return {data, list.size()};
  }
  template <typename T, unsigned N> llvm::ArrayRef<T> copy(const llvm::SmallVector<T, N> &list) {
    return copy(llvm::ArrayRef<T>(list));
  }

private:
  llvm::BumpPtrAllocator allocator;
};

} // namespace dlc::language::ast

#endif // DLC_COMPILER_FRONTENDS_LANGUAGE_AST_H
