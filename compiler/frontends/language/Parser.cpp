//===- Parser.cpp - tokens to a tree -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Recursive descent over the grammar of docs/language.md, one function per rule. After a syntax
// error `panic` is set: every rule returns at once, up to the statement, member or item that holds
// the error, which is skipped and left out.
//
//===----------------------------------------------------------------------===//

#include "Parser.h"

#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringSwitch.h"

using namespace dlc;
using namespace dlc::language;
using namespace dlc::language::ast;
using llvm::SmallVector;
using llvm::SMLoc;
using llvm::SMRange;
using llvm::StringRef;

namespace {

class Parser {
public:
  Parser(Arena &arena, llvm::MemoryBufferRef buffer, Diagnostics &diagnostics)
      : arena(arena), diagnostics(diagnostics), tokens(lex(buffer, diagnostics)) {}

  llvm::ArrayRef<Decl *> parseItems();
  Expr *parseOnlyExpr() {
    Expr *expr = parseExpr();
    accept(Tok::Newline);
    if (!panic && !is(Tok::End))
      failHere("the end of the expression");
    return panic ? nullptr : expr;
  }

private:
  // Tokens. The last one is End and is never passed.
  const Token &peek(size_t ahead = 0) const {
    return tokens[std::min(position + ahead, tokens.size() - 1)];
  }
  bool is(Tok kind) const { return peek().kind == kind; }
  bool isWord(StringRef word) const { return is(Tok::Name) && peek().text == word; }
  const Token &take() {
    const Token &token = peek();
    if (position + 1 < tokens.size())
      ++position;
    last = token.end();
    return token;
  }
  bool accept(Tok kind) {
    if (panic || !is(kind))
      return false;
    take();
    return true;
  }
  bool expect(Tok kind, const llvm::Twine &what = "");
  /// Expects the bracket that closes \p open, which a note shows when it is missing.
  void close(Tok kind, const Token &open);
  /// After an error inside the brackets of a head, goes on behind them: the body has errors of its
  /// own to show.
  void leaveBrackets(size_t open);
  Diagnostics::Report *fail(SMRange where, const llvm::Twine &message) {
    if (std::exchange(panic, true))
      return nullptr;
    return &diagnostics.error(where, message);
  }
  std::string found() const;
  Diagnostics::Report *failHere(const llvm::Twine &expected) {
    // A character that the lexer refused was reported there, a missing brace where its block began.
    if (is(Tok::Error) || braceReported == position) {
      panic = true;
      return nullptr;
    }
    return fail(peek().range(), "expected " + expected + ", found " + found());
  }
  void synchronize();
  void endOfLine();
  template <typename T> T *node(SMLoc from) { return arena.make<T>(SMRange(from, last)); }
  Expr *errorAt(SMLoc from) { return arena.make<ErrorExpr>(SMRange(from, from)); }

  /// Counts one level of nesting while it lives.
  struct Level {
    Parser &parser;
    explicit Level(Parser &parser) : parser(parser) {
      if (++parser.depth > nestingLimit)
        parser.fail(parser.peek().range(),
                    "nested more than " + llvm::Twine(nestingLimit) + " levels deep");
    }
    ~Level() { --parser.depth; }
  };

  // Items and members.
  void parseItem(llvm::SmallVectorImpl<Decl *> &into);
  void parseImport(llvm::SmallVectorImpl<Decl *> &into);
  Decl *parseLayer();
  Decl *parseOptimizer();
  Decl *parseExtern();
  llvm::ArrayRef<Param> parseParams();
  llvm::ArrayRef<Decl *> parseMembers(bool optimizer);
  Decl *parseMember(bool optimizer);
  Decl *parseMemberIf(bool optimizer);
  Decl *parseVariable(bool optimizer);
  Decl *parseConst();
  FnDecl *parseFn();
  void parseArgs(llvm::ArrayRef<Arg> &into);
  void parseResults(llvm::ArrayRef<Result> &into);
  Body parseBody();
  ast::Name parseGradient();
  Type *parseType();
  ast::Name parseName(const llvm::Twine &what);
  Assertion parseAssertion();
  StringRef parseString(const llvm::Twine &what);

  // Statements.
  Block *parseBlock();
  Stmt *parseStmt();
  void parseExprs(llvm::SmallVectorImpl<Expr *> &into);
  void checkTarget(Expr *target);
  bool missingBrace(const Token &open, bool statements);

  // Expressions.
  Expr *parseExpr();
  Expr *parseIf();
  using Rule = Expr *(Parser::*)();
  Expr *parseChain(Rule operand, llvm::ArrayRef<Tok> operators);
  Expr *parseOr() { return parseChain(&Parser::parseAnd, {Tok::Or}); }
  Expr *parseAnd() { return parseChain(&Parser::parseNot, {Tok::And}); }
  Expr *parseNot();
  Expr *parseCompare();
  Expr *parseRange();
  Expr *parseSum() { return parseChain(&Parser::parseProduct, {Tok::Plus, Tok::Minus}); }
  Expr *parseProduct() {
    return parseChain(&Parser::parseUnary, {Tok::Star, Tok::Slash, Tok::Percent, Tok::At});
  }
  Expr *parseUnary();
  Expr *parsePower();
  Expr *parsePostfix();
  Expr *parseAtom();
  Expr *parseList();
  Subscript parseSubscript();

  Arena &arena;
  Diagnostics &diagnostics;
  std::vector<Token> tokens;
  size_t position = 0;
  SMLoc last; // the end of the token that was taken last
  unsigned depth = 0;
  bool panic = false;
  size_t braceReported = ~size_t(0); // the token at which a missing `}` was reported
};

} // namespace

//===----------------------------------------------------------------------===//
// Tokens
//===----------------------------------------------------------------------===//

static bool isReserved(Tok kind) { return kind >= Tok::If && kind <= Tok::With; }

std::string Parser::found() const {
  const Token &token = peek();
  switch (token.kind) {
  case Tok::Name:
  case Tok::Int:
  case Tok::Float:
    return ("'" + token.text + "'").str();
  case Tok::String:
    return ("string " + token.text).str();
  default:
    return (isReserved(token.kind) ? "keyword " + describe(token.kind).str()
                                   : describe(token.kind).str());
  }
}

bool Parser::expect(Tok kind, const llvm::Twine &what) {
  if (panic)
    return false;
  if (is(kind)) {
    take();
    return true;
  }
  std::string words = what.str();
  failHere(words.empty() ? describe(kind).str() : words);
  return false;
}

void Parser::close(Tok kind, const Token &open) {
  if (panic || accept(kind))
    return;
  if (Diagnostics::Report *report = failHere("',' or " + describe(kind)))
    report->note(open.range(), describe(open.kind) + " was opened here");
}

void Parser::leaveBrackets(size_t open) {
  if (!panic || tokens[open].kind != Tok::LParen)
    return;
  unsigned depth = 0;
  for (size_t at = open; at < tokens.size(); ++at) {
    Tok kind = tokens[at].kind;
    if (kind == Tok::Newline || kind == Tok::LBrace || kind == Tok::RBrace || kind == Tok::End)
      return; // they are not closed
    if (kind == Tok::LParen)
      ++depth;
    if (kind == Tok::RParen && --depth == 0) {
      if (at < position)
        return;
      position = at;
      take();
      panic = false;
      return;
    }
  }
}

/// Skips what is left of a statement that held an error: up to the line's end outside of any block
/// that it opens.
void Parser::synchronize() {
  if (!panic)
    return;
  panic = false;
  for (unsigned blocks = 0; !is(Tok::End); take()) {
    if (is(Tok::LBrace))
      ++blocks;
    else if (is(Tok::RBrace) && blocks == 0)
      return;
    else if (is(Tok::RBrace))
      --blocks;
    else if (is(Tok::Newline) && blocks == 0)
      return;
  }
}

/// After a statement, member or item: its line must end, or the block that holds it.
void Parser::endOfLine() {
  if (!panic && !is(Tok::Newline) && !is(Tok::RBrace) && !is(Tok::End))
    failHere("the end of the line");
  synchronize();
  if (is(Tok::Newline))
    take();
}

ast::Name Parser::parseName(const llvm::Twine &what) {
  if (panic)
    return {};
  if (isReserved(peek().kind)) {
    fail(peek().range(), describe(peek().kind) + " is a reserved word and cannot be " + what);
    return {};
  }
  if (!is(Tok::Name)) {
    failHere(what);
    return {};
  }
  return {take().text};
}

StringRef Parser::parseString(const llvm::Twine &what) {
  StringRef text = peek().text;
  return expect(Tok::String, what) ? text.drop_front().drop_back() : StringRef();
}

//===----------------------------------------------------------------------===//
// Items
//===----------------------------------------------------------------------===//

llvm::ArrayRef<Decl *> Parser::parseItems() {
  SmallVector<Decl *> items;
  if (isWord("language") && peek(1).kind == Tok::Int) {
    take();
    if (peek().text != "1")
      diagnostics.error(peek().range(),
                        "this compiler knows language 1, the file is written in language " +
                            peek().text);
    take();
    endOfLine();
  }
  while (!is(Tok::End)) {
    if (is(Tok::Newline)) {
      take();
      continue;
    }
    if (is(Tok::RBrace)) {
      if (braceReported == ~size_t(0))
        diagnostics.error(peek().range(), "'}' closes nothing");
      take();
      continue;
    }
    parseItem(items);
    endOfLine();
  }
  return arena.copy(items);
}

void Parser::parseItem(llvm::SmallVectorImpl<Decl *> &into) {
  StringRef doc = peek().doc;
  size_t before = into.size();
  switch (peek().kind) {
  case Tok::Import:
    parseImport(into);
    break;
  case Tok::Layer:
  case Tok::Model:
    into.push_back(parseLayer());
    break;
  case Tok::Optimizer:
    into.push_back(parseOptimizer());
    break;
  case Tok::Extern:
    into.push_back(parseExtern());
    break;
  case Tok::Train:
    if (peek(1).kind != Tok::Fn) {
      fail(peek().range(), "a train step is declared in a model");
      break;
    }
    [[fallthrough]];
  case Tok::Fn: {
    FnDecl *fn = parseFn();
    if (!panic && !fn->name)
      fail(fn->range, "a function outside of a layer needs a name");
    into.push_back(fn);
    break;
  }
  case Tok::Name:
    if (peek(1).kind == Tok::Assign) {
      into.push_back(parseConst());
      break;
    }
    if (peek(1).kind == Tok::Name && peek(2).kind == Tok::Colon && peek().text == "state") {
      fail(peek().range(), "variables are declared in a layer or model");
      break;
    }
    [[fallthrough]];
  default:
    if (is(Tok::Var))
      fail(peek().range(), "variables are declared in a layer or model");
    else if (isReserved(peek().kind) && peek(1).kind == Tok::Assign)
      parseName("a name"); // says that the word is reserved
    else
      failHere("an import, constant, function, layer, optimizer or model");
  }
  for (size_t i = before; i < into.size(); ++i)
    if (into[i])
      into[i]->doc = doc;
  if (panic) // what holds an error is left out
    into.truncate(before);
}

void Parser::parseImport(llvm::SmallVectorImpl<Decl *> &into) {
  SMLoc from = take().begin();
  if (isWord("graph") && peek(1).kind == Tok::Name) {
    take();
    ast::Name name = parseName("the name of the graph");
    if (!isWord("from")) {
      failHere("'from' and the file of the graph");
      return;
    }
    take();
    StringRef file = parseString("the graph's file in quotes");
    auto *graph = node<ImportGraphDecl>(from);
    graph->name = name;
    graph->file = file;
    into.push_back(graph);
    return;
  }
  do {
    ast::Name name = parseName("the name of a module");
    auto *import = node<ImportDecl>(from);
    import->name = name;
    into.push_back(import);
    if (!panic && isWord("from")) {
      take();
      SMLoc quote = peek().begin();
      import->file = parseString("the module's file in quotes");
      import->fileRange = {quote, last};
      import->named = true;
      return;
    }
  } while (accept(Tok::Comma));
}

llvm::ArrayRef<Param> Parser::parseParams() {
  SmallVector<Param> params;
  Token open = peek();
  size_t start = position;
  expect(Tok::LParen);
  while (!panic && !is(Tok::RParen)) {
    Param param;
    param.name = parseName("a parameter's name");
    if (is(Tok::Colon))
      fail(peek().range(), "parameters have no types; a default is written 'name = value'");
    if (accept(Tok::Assign)) {
      if (accept(Tok::Question))
        param.unknown = true;
      else
        param.initial = parseExpr();
    }
    params.push_back(param);
    if (!accept(Tok::Comma))
      break;
  }
  close(Tok::RParen, open);
  leaveBrackets(start);
  return arena.copy(params);
}

Decl *Parser::parseLayer() {
  SMLoc from = peek().begin();
  bool model = take().kind == Tok::Model;
  ast::Name name = parseName(model ? "the model's name" : "the layer's name");
  auto *layer = node<LayerDecl>(from);
  layer->name = name;
  layer->model = model;
  layer->params = parseParams();
  layer->members = parseMembers(/*optimizer=*/false);
  return layer;
}

Decl *Parser::parseOptimizer() {
  SMLoc from = take().begin();
  ast::Name name = parseName("the optimizer's name");
  auto *optimizer = node<OptimizerDecl>(from);
  optimizer->name = name;
  optimizer->params = parseParams();
  optimizer->parts = parseMembers(/*optimizer=*/true);
  return optimizer;
}

Decl *Parser::parseExtern() {
  SMLoc from = take().begin();
  expect(Tok::Fn);
  ast::Name name = parseName("the function's name");
  auto *fn = node<ExternDecl>(from);
  fn->name = name;
  parseArgs(fn->args);
  expect(Tok::Arrow, "'->' and the results");
  parseResults(fn->results);
  if (!panic && !isWord("from"))
    failHere("'from' and the files of the function");
  if (panic)
    return fn;
  take();
  SmallVector<StringRef> files;
  do
    files.push_back(parseString("a file in quotes"));
  while (accept(Tok::Comma));
  fn->files = arena.copy(files);
  fn->gradient = parseGradient();
  return fn;
}

//===----------------------------------------------------------------------===//
// Members
//===----------------------------------------------------------------------===//

/// A block that meets a word which only a declaration further out begins was not closed before it.
bool Parser::missingBrace(const Token &open, bool statements) {
  Tok kind = peek().kind;
  bool outer = kind == Tok::Layer || kind == Tok::Model || kind == Tok::Optimizer ||
               kind == Tok::Import || kind == Tok::Extern;
  if (statements)
    outer |= kind == Tok::Fn || (kind == Tok::Train && peek(2).kind != Tok::Colon);
  if (kind != Tok::End && (!outer || peek(1).kind == Tok::Assign))
    return false;
  if (braceReported != position)
    diagnostics.error(open.range(), "'{' is never closed")
        .note(peek().range(),
              kind == Tok::End ? "the file ends here" : describe(kind) + " cannot stand inside");
  braceReported = position;
  return true;
}

llvm::ArrayRef<Decl *> Parser::parseMembers(bool optimizer) {
  Level level(*this);
  SmallVector<Decl *> members;
  Token open = peek();
  if (panic || !expect(Tok::LBrace))
    return {};
  while (!accept(Tok::RBrace)) {
    if (is(Tok::Newline)) {
      take();
      continue;
    }
    if (missingBrace(open, /*statements=*/false))
      break;
    StringRef doc = peek().doc;
    Decl *member = parseMember(optimizer);
    if (!panic) {
      if (doc.data())
        member->doc = doc;
      members.push_back(member);
    }
    endOfLine();
  }
  return arena.copy(members);
}

/// The words `state`, `each`, … are names unless a declaration follows.
Decl *Parser::parseMember(bool optimizer) {
  SMLoc from = peek().begin();
  switch (peek().kind) {
  case Tok::Var:
    if (peek(1).kind == Tok::Name)
      return parseVariable(optimizer);
    break;
  case Tok::Train:
    if (peek(1).kind == Tok::Fn && !optimizer)
      return parseFn();
    if (peek(1).kind == Tok::Name && !optimizer) {
      take();
      ast::Name name = parseName("the name of the step");
      auto *train = node<TrainDecl>(from);
      train->name = name;
      expect(Tok::Assign);
      train->value = parseExpr();
      return train;
    }
    break;
  case Tok::Fn:
    if (!optimizer)
      return parseFn();
    fail(peek().range(), "an optimizer has 'prepare' and 'update', no functions of its own");
    return nullptr;
  case Tok::Assert: {
    Assertion assertion = parseAssertion();
    auto *member = node<AssertDecl>(from);
    member->assertion = assertion;
    return member;
  }
  case Tok::If:
    return parseMemberIf(optimizer);
  case Tok::Name: {
    StringRef word = peek().text;
    Tok after = peek(1).kind;
    if ((word == "state" || word == "each") && after == Tok::Name)
      return parseVariable(optimizer);
    if (word == "precision" && after == Tok::Name && !optimizer) {
      take();
      auto *precision = arena.make<PrecisionDecl>(SMRange(from, peek().end()));
      precision->name = {take().text};
      return precision;
    }
    if (optimizer && word == "prepare" && after == Tok::LBrace) {
      take();
      auto *prepare = node<PrepareDecl>(from);
      prepare->block = parseBlock();
      return prepare;
    }
    if (optimizer && word == "update" && after == Tok::LParen) {
      take();
      auto *update = node<UpdateDecl>(from);
      expect(Tok::LParen);
      update->value = parseName("a name for the variable's value");
      expect(Tok::Comma, "',' and a name for the gradient");
      update->gradient = parseName("a name for the gradient");
      expect(Tok::RParen);
      update->body = parseBody();
      return update;
    }
    if (after == Tok::Assign)
      return parseConst();
    if (after == Tok::Colon) {
      fail(peek().range(), "a variable is declared with 'var' (trained) or 'state' (kept)");
      return nullptr;
    }
    break;
  }
  default:
    break;
  }
  if (isReserved(peek().kind) && peek(1).kind == Tok::Assign)
    parseName("a name"); // says that the word is reserved
  else
    failHere(optimizer ? "'each', 'state', 'prepare', 'update', a constant or 'if'"
                       : "a variable, part, constant, function or train step");
  return nullptr;
}

Decl *Parser::parseVariable(bool optimizer) {
  Token word = take();
  ast::Name name = parseName("the variable's name");
  Keep keep = word.kind == Tok::Var ? Keep::Var : word.text == "each" ? Keep::Each : Keep::State;
  if (keep == Keep::Var && optimizer)
    fail(word.range(), "an optimizer keeps 'each' (one per variable) and 'state' (one in all)");
  if (keep == Keep::Each && !optimizer)
    fail(word.range(), "'each' is state of an optimizer; a layer keeps 'var' and 'state'");
  if (keep == Keep::Each && is(Tok::Colon))
    fail(peek().range(),
         "'each' has the shape and type of its variable: write 'each " + name.text + " = value'");
  if (keep == Keep::State && is(Tok::Assign) && !optimizer) {
    auto *frozen = node<FrozenDecl>(word.begin());
    frozen->name = name;
    take();
    frozen->value = parseExpr();
    return frozen;
  }
  auto *variable = node<VariableDecl>(word.begin());
  variable->name = name;
  variable->keep = keep;
  if (keep == Keep::Each) {
    expect(Tok::Assign);
    variable->initial = parseExpr();
    return variable;
  }
  expect(Tok::Colon, "':' and the variable's type");
  variable->type = parseType();
  if (accept(Tok::Assign))
    variable->initial = parseExpr();
  return variable;
}

Decl *Parser::parseConst() {
  SMLoc from = peek().begin();
  ast::Name name = parseName("a name");
  auto *constant = node<ConstDecl>(from);
  constant->name = name;
  expect(Tok::Assign);
  constant->value = parseExpr();
  return constant;
}

Decl *Parser::parseMemberIf(bool optimizer) {
  Level level(*this);
  auto *branch = arena.make<IfDecl>(peek().range());
  take();
  branch->condition = parseExpr();
  branch->thenMembers = parseMembers(optimizer);
  if (accept(Tok::Else)) {
    if (is(Tok::LBrace)) {
      branch->elseMembers = parseMembers(optimizer);
    } else if (!panic) {
      if (Decl *member = parseMember(optimizer))
        branch->elseMembers = arena.copy(llvm::ArrayRef<Decl *>(member));
    }
  }
  return branch;
}

//===----------------------------------------------------------------------===//
// Functions
//===----------------------------------------------------------------------===//

FnDecl *Parser::parseFn() {
  SMLoc from = peek().begin();
  bool train = accept(Tok::Train);
  expect(Tok::Fn);
  ast::Name name;
  if (!is(Tok::LParen))
    name = parseName("the function's name");
  auto *fn = node<FnDecl>(from);
  fn->name = name;
  fn->train = train;
  parseArgs(fn->args);
  if (accept(Tok::Arrow)) {
    fn->hasResults = true;
    parseResults(fn->results);
  }
  fn->body = parseBody();
  fn->gradient = parseGradient();
  return fn;
}

void Parser::parseArgs(llvm::ArrayRef<Arg> &into) {
  SmallVector<Arg> args;
  Token open = peek();
  size_t start = position;
  expect(Tok::LParen);
  while (!panic && !is(Tok::RParen)) {
    Arg arg;
    arg.name = parseName("an argument's name");
    if (accept(Tok::Colon))
      arg.type = parseType();
    if (accept(Tok::Assign))
      arg.initial = parseExpr();
    args.push_back(arg);
    if (!accept(Tok::Comma))
      break;
  }
  close(Tok::RParen, open);
  leaveBrackets(start);
  into = arena.copy(args);
}

void Parser::parseResults(llvm::ArrayRef<Result> &into) {
  SmallVector<Result> results;
  auto one = [&] {
    Result result;
    if (is(Tok::Name) && peek(1).kind == Tok::Colon) {
      result.name = parseName("a result's name");
      take();
    }
    result.type = parseType();
    results.push_back(result);
  };
  Token open = peek();
  if (accept(Tok::LParen)) {
    while (!panic && !is(Tok::RParen)) {
      one();
      if (!accept(Tok::Comma))
        break;
    }
    close(Tok::RParen, open);
    if (!panic && results.empty())
      fail(SMRange(last, last), "expected a result between the brackets");
  } else {
    one();
  }
  into = arena.copy(results);
}

Body Parser::parseBody() {
  Body body;
  if (accept(Tok::Assign))
    body.value = parseExpr();
  else if (is(Tok::LBrace))
    body.block = parseBlock();
  else
    failHere("'=' and a value, or '{' and statements");
  return body;
}

ast::Name Parser::parseGradient() {
  if (!accept(Tok::With))
    return {};
  if (!isWord("gradient")) {
    failHere("'gradient'");
    return {};
  }
  take();
  return parseName("the name of the function that gives the gradient");
}

Type *Parser::parseType() {
  SMLoc from = peek().begin();
  ast::Name dtype = parseName("a type");
  SmallVector<Dim> dims;
  bool scalar = true;
  Token open = peek();
  if (accept(Tok::LBracket)) {
    scalar = false;
    if (is(Tok::RBracket))
      fail({from, peek().end()}, "a scalar is written without brackets: '" + dtype.text + "'");
    while (!panic && !is(Tok::RBracket)) {
      if (is(Tok::DotDotDot)) {
        dims.push_back({take().range(), nullptr});
      } else if (is(Tok::Question)) {
        fail(peek().range(),
             "a size that is left to the call is a parameter of the model: 'N = ?'");
      } else {
        Expr *size = parseExpr();
        dims.push_back({size->range, size});
      }
      if (!accept(Tok::Comma))
        break;
    }
    close(Tok::RBracket, open);
  }
  auto *type = arena.make<Type>();
  type->range = {from, last};
  type->dtype = dtype;
  type->dims = arena.copy(dims);
  type->scalar = scalar;
  return type;
}

Assertion Parser::parseAssertion() {
  Assertion assertion;
  SMLoc from = take().begin();
  expect(Tok::LParen);
  assertion.condition = panic ? nullptr : parseExpr();
  expect(Tok::Comma, "',' and the words that say what is wrong");
  assertion.words = parseString("a string");
  accept(Tok::Comma);
  expect(Tok::RParen);
  assertion.range = {from, last};
  return assertion;
}

//===----------------------------------------------------------------------===//
// Statements
//===----------------------------------------------------------------------===//

Block *Parser::parseBlock() {
  Level level(*this);
  SmallVector<Stmt *> statements;
  Token open = peek();
  auto *block = arena.make<Block>();
  if (panic || !expect(Tok::LBrace))
    return block;
  while (!accept(Tok::RBrace)) {
    if (is(Tok::Newline)) {
      take();
      continue;
    }
    if (missingBrace(open, /*statements=*/true))
      break;
    Stmt *statement = parseStmt();
    if (!panic)
      statements.push_back(statement);
    endOfLine();
  }
  block->range = {open.begin(), last};
  block->statements = arena.copy(statements);
  return block;
}

void Parser::checkTarget(Expr *target) {
  if (panic)
    return;
  using Kind = Expr::Kind;
  if (target->kind == Kind::List)
    diagnostics.error(target->range, "several names cannot be assigned at once: give the list a name and take its elements, 'a = r[0]', 'b = r[1]'");
  else if (target->kind != Kind::Name && target->kind != Kind::Index && target->kind != Kind::Field)
    diagnostics.error(target->range, "only a name, an element or a member can be assigned");
}

void Parser::parseExprs(llvm::SmallVectorImpl<Expr *> &into) {
  do
    into.push_back(parseExpr());
  while (accept(Tok::Comma));
}

Stmt *Parser::parseStmt() {
  SMLoc from = peek().begin();
  switch (peek().kind) {
  case Tok::For: {
    take();
    ast::Name variable = parseName("the loop's name");
    expect(Tok::In);
    Expr *sequence = parseExpr();
    Block *body = parseBlock();
    auto *loop = node<ForStmt>(from);
    loop->variable = variable;
    loop->sequence = sequence;
    loop->body = body;
    return loop;
  }
  case Tok::While: {
    take();
    Expr *condition = parseExpr();
    Block *body = parseBlock();
    auto *loop = node<WhileStmt>(from);
    loop->condition = condition;
    loop->body = body;
    return loop;
  }
  case Tok::Break:
    take();
    return node<BreakStmt>(from);
  case Tok::Return: {
    take();
    SmallVector<Expr *> values;
    if (!is(Tok::Newline) && !is(Tok::RBrace) && !is(Tok::End))
      parseExprs(values);
    auto *statement = node<ReturnStmt>(from);
    statement->values = arena.copy(values);
    return statement;
  }
  case Tok::Assert: {
    Assertion assertion = parseAssertion();
    auto *statement = node<AssertStmt>(from);
    statement->assertion = assertion;
    return statement;
  }
  case Tok::Var:
    if (peek(1).kind == Tok::Name) {
      fail(peek().range(), "variables are declared in a layer or model; a local is written "
                           "'name = value' or 'name: type = value'");
      return nullptr;
    }
    break;
  case Tok::Name:
    if (peek(1).kind == Tok::Name && peek().text == "state") {
      fail(peek().range(), "state is declared in a layer or model; a local is written "
                           "'name = value' or 'name: type = value'");
      return nullptr;
    }
    if (peek(1).kind == Tok::Colon) {
      ast::Name name = parseName("a name");
      take();
      Type *type = parseType();
      expect(Tok::Assign, "'=' and a value");
      Expr *value = parseExpr();
      auto *local = node<LocalStmt>(from);
      local->name = name;
      local->type = type;
      local->value = value;
      return local;
    }
    break;
  default:
    break;
  }
  if (isReserved(peek().kind) && peek(1).kind >= Tok::Assign && peek(1).kind <= Tok::OverAssign) {
    parseName("a name");
    return nullptr;
  }

  SmallVector<Expr *> targets;
  parseExprs(targets);
  if (accept(Tok::Assign)) {
    SmallVector<Expr *> values;
    parseExprs(values);
    for (Expr *target : targets)
      checkTarget(target);
    auto *statement = node<AssignStmt>(from);
    statement->targets = arena.copy(targets);
    statement->values = arena.copy(values);
    return statement;
  }
  Tok op = peek().kind;
  if (!panic && op >= Tok::PlusAssign && op <= Tok::OverAssign) {
    Token word = take();
    if (targets.size() != 1)
      fail(word.range(), word.text + " takes one name on its left");
    Expr *value = parseExpr();
    checkTarget(targets[0]);
    auto *statement = node<AugmentStmt>(from);
    statement->target = targets[0];
    statement->value = value;
    word.kind = op == Tok::PlusAssign    ? Tok::Plus
                : op == Tok::MinusAssign ? Tok::Minus
                : op == Tok::TimesAssign ? Tok::Star
                                         : Tok::Slash;
    statement->op = word;
    return statement;
  }
  auto *statement = node<ExpressionsStmt>(from);
  statement->values = arena.copy(targets);
  return statement;
}

//===----------------------------------------------------------------------===//
// Expressions
//===----------------------------------------------------------------------===//

Expr *Parser::parseExpr() {
  Level level(*this);
  if (panic)
    return errorAt(peek().begin());
  return is(Tok::If) ? parseIf() : parseOr();
}

Expr *Parser::parseIf() {
  SMLoc from = take().begin();
  Expr *condition = parseExpr();
  Block *thenBlock = parseBlock(), *elseBlock = nullptr;
  Expr *elseExpr = nullptr;
  if (accept(Tok::Else)) {
    if (is(Tok::LBrace))
      elseBlock = parseBlock();
    else
      elseExpr = parseExpr();
  }
  auto *branch = node<IfExpr>(from);
  branch->condition = condition;
  branch->thenBlock = thenBlock;
  branch->elseBlock = elseBlock;
  branch->elseExpr = elseExpr;
  return branch;
}

Expr *Parser::parseChain(Rule operand, llvm::ArrayRef<Tok> operators) {
  SMLoc from = peek().begin();
  Expr *first = (this->*operand)();
  if (panic || !llvm::is_contained(operators, peek().kind))
    return first;
  SmallVector<Expr *> operands{first};
  SmallVector<Token> words;
  while (!panic && llvm::is_contained(operators, peek().kind)) {
    words.push_back(take());
    operands.push_back((this->*operand)());
  }
  auto *chain = node<ChainExpr>(from);
  chain->place = words.front().begin();
  chain->operands = arena.copy(operands);
  chain->operators = arena.copy(words);
  return chain;
}

Expr *Parser::parseNot() {
  if (!is(Tok::Not))
    return parseCompare();
  Level level(*this);
  SMLoc from = take().begin();
  Expr *operand = panic ? errorAt(from) : parseNot();
  auto *negation = node<NotExpr>(from);
  negation->operand = operand;
  return negation;
}

static bool isComparison(Tok kind) { return kind >= Tok::Equal && kind <= Tok::GreaterEqual; }

Expr *Parser::parseCompare() {
  SMLoc from = peek().begin();
  Expr *lhs = parseRange();
  if (panic || !isComparison(peek().kind))
    return lhs;
  Token op = take();
  Expr *rhs = parseRange();
  if (!panic && isComparison(peek().kind))
    fail(peek().range(), "comparisons do not chain: write 'a < b and b < c'");
  auto *compare = node<CompareExpr>(from);
  compare->place = op.begin();
  compare->lhs = lhs;
  compare->rhs = rhs;
  compare->op = op.kind;
  return compare;
}

Expr *Parser::parseRange() {
  SMLoc from = peek().begin();
  Expr *first = parseSum();
  if (!accept(Tok::DotDot))
    return first;
  Expr *last = parseSum();
  if (!panic && is(Tok::DotDot))
    fail(peek().range(), "a range has two ends");
  auto *range = node<RangeExpr>(from);
  range->first = first;
  range->last = last;
  return range;
}

Expr *Parser::parseUnary() {
  if (!is(Tok::Minus))
    return parsePower();
  Level level(*this);
  SMLoc from = take().begin();
  Expr *operand = panic ? errorAt(from) : parseUnary();
  auto *negation = node<NegateExpr>(from);
  negation->operand = operand;
  return negation;
}

Expr *Parser::parsePower() {
  SMLoc from = peek().begin();
  Expr *base = parsePostfix();
  if (panic || !is(Tok::StarStar))
    return base;
  Level level(*this); // `a ** b ** c` nests to the right
  Token op = take();
  Expr *exponent = panic ? errorAt(from) : parseUnary();
  auto *power = node<PowerExpr>(from);
  power->place = op.begin();
  power->base = base;
  power->exponent = exponent;
  return power;
}

Expr *Parser::parsePostfix() {
  SMLoc from = peek().begin();
  Expr *base = parseAtom();
  for (unsigned count = 0; !panic; ++count) {
    if (count + depth > nestingLimit) {
      fail(peek().range(), "nested more than " + llvm::Twine(nestingLimit) + " levels deep");
      break;
    }
    SMLoc place = peek().begin();
    Token open = peek();
    if (accept(Tok::LParen)) {
      SmallVector<Argument> arguments;
      while (!panic && !is(Tok::RParen)) {
        Argument argument{};
        if (is(Tok::Name) && peek(1).kind == Tok::Assign) {
          argument.name = parseName("an argument's name");
          take();
        } else if (isReserved(peek().kind) && peek(1).kind == Tok::Assign) {
          parseName("an argument's name"); // says that the word is reserved
        }
        argument.value = parseExpr();
        arguments.push_back(argument);
        if (!accept(Tok::Comma))
          break;
      }
      close(Tok::RParen, open);
      auto *call = node<CallExpr>(from);
      call->callee = base;
      call->arguments = arena.copy(arguments);
      base = call;
    } else if (accept(Tok::LBracket)) {
      SmallVector<Subscript> subscripts;
      if (is(Tok::RBracket))
        failHere("an index");
      while (!panic && !is(Tok::RBracket)) {
        subscripts.push_back(parseSubscript());
        if (!accept(Tok::Comma))
          break;
      }
      close(Tok::RBracket, open);
      auto *index = node<IndexExpr>(from);
      index->base = base;
      index->subscripts = arena.copy(subscripts);
      base = index;
    } else if (accept(Tok::Dot)) {
      if (is(Tok::Int))
        fail(peek().range(), "an element of a list is written '[" + peek().text + "]'");
      ast::Name name = parseName("a member's name");
      auto *field = node<FieldExpr>(from);
      field->base = base;
      field->name = name;
      base = field;
      place = panic ? place : name.range().Start;
    } else {
      break;
    }
    if (base->kind != Expr::Kind::Call)
      base->place = place;
  }
  return base;
}

Subscript Parser::parseSubscript() {
  Subscript subscript{};
  SMLoc from = peek().begin();
  auto finish = [&](Subscript::Kind kind) {
    subscript.kind = kind;
    subscript.range = {from, last};
    return subscript;
  };
  if (accept(Tok::DotDotDot))
    return finish(Subscript::Kind::Ellipsis);
  auto part = [&]() -> Expr * {
    return panic || is(Tok::Colon) || is(Tok::Comma) || is(Tok::RBracket) ? nullptr : parseExpr();
  };
  subscript.start = part();
  if (!accept(Tok::Colon)) {
    subscript.element = subscript.start;
    subscript.start = nullptr;
    if (!subscript.element)
      failHere("an index");
    return finish(Subscript::Kind::Element);
  }
  subscript.stop = part();
  if (accept(Tok::Colon))
    subscript.step = part();
  return finish(Subscript::Kind::Slice);
}

Expr *Parser::parseList() {
  Token open = take();
  SMLoc from = open.begin();
  SmallVector<Expr *> elements;
  while (!panic && !is(Tok::RBracket)) {
    elements.push_back(parseExpr());
    if (elements.size() == 1 && accept(Tok::For)) {
      ast::Name variable = parseName("a name for each element");
      expect(Tok::In);
      Expr *sequence = parseExpr();
      close(Tok::RBracket, open);
      auto *each = node<ComprehensionExpr>(from);
      each->element = elements[0];
      each->variable = variable;
      each->sequence = sequence;
      return each;
    }
    if (!accept(Tok::Comma))
      break;
  }
  close(Tok::RBracket, open);
  auto *list = node<ListExpr>(from);
  list->elements = arena.copy(elements);
  return list;
}

Expr *Parser::parseAtom() {
  SMLoc from = peek().begin();
  switch (peek().kind) {
  case Tok::Name: {
    StringRef text = take().text;
    auto *name = node<NameExpr>(from);
    name->name = text;
    return name;
  }
  case Tok::Int: {
    StringRef text = take().text;
    auto *number = node<IntExpr>(from);
    number->text = text;
    return number;
  }
  case Tok::Float: {
    StringRef text = take().text;
    auto *number = node<FloatExpr>(from);
    number->text = text;
    return number;
  }
  case Tok::String: {
    StringRef text = take().text;
    auto *string = node<StringExpr>(from);
    string->text = text.drop_front().drop_back();
    return string;
  }
  case Tok::True:
    take();
    return node<TrueExpr>(from);
  case Tok::False:
    take();
    return node<FalseExpr>(from);
  case Tok::None:
    take();
    return node<NoneExpr>(from);
  case Tok::LBracket:
    return parseList();
  case Tok::LParen: {
    Token open = take();
    Expr *inner = parseExpr();
    if (!panic && is(Tok::Comma))
      fail(peek().range(), "a list of values is written '[a, b]'");
    close(Tok::RParen, open);
    return inner;
  }
  case Tok::If:
    fail(peek().range(),
         "an 'if' that is part of an expression stands in brackets: '(if c { a } else { b })'");
    return errorAt(from);
  case Tok::LBrace:
    fail(peek().range(), "'{' opens a block; it cannot begin an expression");
    return errorAt(from);
  case Tok::Dot:
    if (peek(1).kind == Tok::Int) {
      fail(peek().range(), "a number begins with a digit: '0." + peek(1).text + "'");
      return errorAt(from);
    }
    break;
  default:
    break;
  }
  if (isReserved(peek().kind))
    fail(peek().range(), describe(peek().kind) + " is a reserved word and cannot be a value");
  else
    failHere("an expression");
  return errorAt(from);
}

File *language::parse(Arena &arena, llvm::SourceMgr &sources, unsigned buffer,
                      Diagnostics &diagnostics) {
  auto *file = arena.make<File>();
  file->buffer = buffer;
  file->path = sources.getMemoryBuffer(buffer)->getBufferIdentifier();
  file->items =
      Parser(arena, sources.getMemoryBuffer(buffer)->getMemBufferRef(), diagnostics).parseItems();
  return file;
}

Expr *language::parseExpression(Arena &arena, StringRef text, StringRef file,
                                Diagnostics &diagnostics) {
  unsigned errors = diagnostics.errorCount();
  Expr *expr = Parser(arena, llvm::MemoryBufferRef(text, file), diagnostics).parseOnlyExpr();
  return diagnostics.errorCount() == errors ? expr : nullptr;
}
