//===- Names.cpp - every name is declared, used or not -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Elaboration sees only what a model uses. This walk sees the whole text: names that nothing
// declares, arguments and locals that take a declared name, `return` in the wrong place.
//
//===----------------------------------------------------------------------===//

#include "Elaborator.h"

using namespace dlc;
using namespace dlc::language;
using namespace dlc::language::ast;
using llvm::ArrayRef;
using llvm::cast;
using llvm::dyn_cast;
using llvm::isa;
using llvm::SMRange;
using llvm::StringRef;
using llvm::Twine;

namespace {

class NameChecker {
public:
  NameChecker(const FileScope &file, ArrayRef<StringRef> builtins, Diagnostics &diagnostics)
      : file(file), builtins(builtins), diagnostics(diagnostics) {}
  void run();

private:
  using Scope = llvm::StringMap<SMRange>;

  void checkMembers(ArrayRef<Decl *> members);
  void collectMembers(ArrayRef<Decl *> members, Scope &into);
  void checkFn(const FnDecl *fn, bool isExported);
  void checkExtern(const ExternDecl *fn);
  void checkArgs(ArrayRef<Arg> args, bool isExported);
  void checkType(const Type *type, bool binds, bool isExported);
  void checkBlock(const Block *block);
  void checkStmt(const Stmt *stmt);
  void checkExpr(const Expr *expr);
  void checkName(StringRef name, SMRange where);
  void checkReturns(const Block *block);
  void findReturns(const Expr *expr, SMRange &found);
  bool hasReturn(const Block *block, SMRange &where);
  void collectLocals(const Block *block);
  void collectLocals(const Expr *expr);
  void declareLocal(ast::Name name, StringRef what);
  bool isDeclared(StringRef name) const {
    return members.contains(name) || params.contains(name) || file.decls.contains(name);
  }

  const FileScope &file;
  ArrayRef<StringRef> builtins;
  Diagnostics &diagnostics;
  Scope members, params, locals;
  llvm::StringMap<SMRange> ended; // names of loop bodies that have ended
  bool inModel = false;
};

} // namespace

void language::checkNames(const FileScope &file, ArrayRef<StringRef> builtins,
                          Diagnostics &diagnostics) {
  NameChecker(file, builtins, diagnostics).run();
}

void NameChecker::run() {
  for (const Decl *item : file.ast->items) {
    members.clear();
    params.clear();
    locals.clear();
    ended.clear();
    inModel = false;
    if (auto *constant = dyn_cast<ConstDecl>(item)) {
      checkExpr(constant->value);
    } else if (auto *fn = dyn_cast<FnDecl>(item)) {
      checkFn(fn, /*isExported=*/false);
    } else if (auto *fn = dyn_cast<ExternDecl>(item)) {
      checkExtern(fn);
    } else if (auto *layer = dyn_cast<LayerDecl>(item)) {
      inModel = layer->model;
      for (const Param &param : layer->params) {
        if (param.initial)
          checkExpr(param.initial);
        params[param.name.text] = param.name.range();
        if (param.unknown && !layer->model)
          diagnostics.error(param.name.range(), "'?' leaves a size to the call of a model; '" +
                                                    layer->name.text + "' is a layer");
      }
      collectMembers(layer->members, members);
      checkMembers(layer->members);
    } else if (auto *optimizer = dyn_cast<OptimizerDecl>(item)) {
      for (const Param &param : optimizer->params) {
        if (param.initial)
          checkExpr(param.initial);
        params[param.name.text] = param.name.range();
      }
      collectMembers(optimizer->parts, members);
      checkMembers(optimizer->parts);
    }
  }
}

void NameChecker::collectMembers(ArrayRef<Decl *> list, Scope &into) {
  for (const Decl *member : list) {
    if (auto *branch = dyn_cast<IfDecl>(member)) {
      collectMembers(branch->thenMembers, into);
      collectMembers(branch->elseMembers, into);
    } else if (member->name && !isa<PrecisionDecl>(member)) {
      into.try_emplace(member->name.text, member->name.range());
    }
  }
}

void NameChecker::checkMembers(ArrayRef<Decl *> list) {
  for (const Decl *member : list) {
    locals.clear();
    ended.clear();
    switch (member->kind) {
    case Decl::Kind::Variable: {
      auto *variable = cast<VariableDecl>(member);
      if (variable->type)
        checkType(variable->type, false, false);
      if (variable->initial)
        checkExpr(variable->initial);
      break;
    }
    case Decl::Kind::Frozen:
      checkExpr(cast<FrozenDecl>(member)->value);
      break;
    case Decl::Kind::Const:
      checkExpr(cast<ConstDecl>(member)->value);
      break;
    case Decl::Kind::Fn: {
      auto *fn = cast<FnDecl>(member);
      checkFn(fn, inModel && fn->name && !fn->name.text.starts_with("_"));
      break;
    }
    case Decl::Kind::Train: {
      auto *train = cast<TrainDecl>(member);
      checkExpr(train->value);
      break;
    }
    case Decl::Kind::Assert:
      checkExpr(cast<AssertDecl>(member)->assertion.condition);
      break;
    case Decl::Kind::If: {
      auto *branch = cast<IfDecl>(member);
      checkExpr(branch->condition);
      checkMembers(branch->thenMembers);
      checkMembers(branch->elseMembers);
      break;
    }
    case Decl::Kind::Prepare: {
      auto *prepare = cast<PrepareDecl>(member);
      collectLocals(prepare->block);
      checkBlock(prepare->block);
      break;
    }
    case Decl::Kind::Update: {
      auto *update = cast<UpdateDecl>(member);
      locals[update->value.text] = update->value.range();
      locals[update->gradient.text] = update->gradient.range();
      if (update->body.block) {
        collectLocals(update->body.block);
        checkBlock(update->body.block);
        checkReturns(update->body.block);
      } else {
        collectLocals(update->body.value);
        checkExpr(update->body.value);
      }
      break;
    }
    default:
      break;
    }
  }
}

/// Rule 16: a name that the layer or model declares is not a local one.
void NameChecker::declareLocal(ast::Name name, StringRef what) {
  auto member = members.find(name.text);
  auto param = params.find(name.text);
  if (member != members.end())
    diagnostics.error(name.range(), what + " '" + name.text + "' has the name of a member")
        .note(member->second, "declared here");
  else if (param != params.end())
    diagnostics.error(name.range(), what + " '" + name.text + "' has the name of a parameter")
        .note(param->second, "declared here");
  locals[name.text] = name.range();
}

void NameChecker::checkArgs(ArrayRef<Arg> args, bool isExported) {
  locals.clear();
  ended.clear();
  for (const Arg &arg : args) {
    if (locals.contains(arg.name.text))
      diagnostics.error(arg.name.range(), "the argument '" + arg.name.text + "' is declared twice")
          .note(locals[arg.name.text], "first here");
    declareLocal(arg.name, "the argument");
    if (arg.type)
      checkType(arg.type, /*binds=*/true, isExported);
    if (arg.initial)
      checkExpr(arg.initial);
  }
}

void NameChecker::checkExtern(const ExternDecl *fn) {
  checkArgs(fn->args, /*isExported=*/false);
  for (const Result &result : fn->results) {
    if (!result.name && result.type->scalar)
      continue; // elaboration tells a type from a name
    for (const Dim &dim : result.type->dims)
      if (auto *name = dim.size ? dyn_cast<NameExpr>(dim.size) : nullptr;
          name && !isDeclared(name->name) && !locals.contains(name->name)) {
        diagnostics.error(name->range, "no argument of the extern function '" + fn->name.text +
                                           "' has the size '" + name->name + "'");
        locals.try_emplace(name->name, name->range);
      }
    checkType(result.type, /*binds=*/false, /*isExported=*/false);
  }
  if (fn->gradient)
    checkName(fn->gradient.text, fn->gradient.range());
}

void NameChecker::checkFn(const FnDecl *fn, bool isExported) {
  checkArgs(fn->args, isExported);
  llvm::StringMap<SMRange> names;
  for (const Result &result : fn->results) {
    if (result.name && !names.try_emplace(result.name.text, result.name.range()).second)
      diagnostics.error(result.name.range(),
                        "the result '" + result.name.text + "' is declared twice");
    if (!result.name && result.type->scalar) {
      // A name or a type: elaboration tells.
      StringRef word = result.type->dtype.text;
      if (!dtypeNamed(word) && !params.contains(word) &&
          !names.try_emplace(word, result.type->range).second)
        diagnostics.error(result.type->range, "the result '" + word + "' is declared twice");
      continue;
    }
    checkType(result.type, /*binds=*/true, isExported);
  }
  if (fn->gradient)
    checkName(fn->gradient.text, fn->gradient.range());
  if (fn->body.block) {
    collectLocals(fn->body.block);
    checkBlock(fn->body.block);
    checkReturns(fn->body.block);
  } else {
    collectLocals(fn->body.value);
    checkExpr(fn->body.value);
  }
}

void NameChecker::checkType(const Type *type, bool binds, bool isExported) {
  if (!dtypeNamed(type->dtype.text))
    checkName(type->dtype.text, type->dtype.range());
  for (const Dim &dim : type->dims) {
    if (!dim.size)
      continue;
    auto *name = dyn_cast<NameExpr>(dim.size);
    if (!name || !binds) {
      checkExpr(dim.size);
    } else if (!isDeclared(name->name) && !isExported) {
      locals.try_emplace(name->name, name->range); // bound by each call
    } else if (!isDeclared(name->name) && !locals.contains(name->name)) {
      std::vector<StringRef> candidates;
      for (auto &entry : params)
        candidates.push_back(entry.getKey());
      diagnostics
          .error(name->range, "the size '" + name->name + "' is not declared in the model" +
                                  didYouMean(name->name, candidates))
          .note(name->range, "a size that is left to the call is a parameter of the model: '" +
                                 name->name + " = ?'");
      locals.try_emplace(name->name, name->range);
    }
  }
}

//===----------------------------------------------------------------------===//
// Statements
//===----------------------------------------------------------------------===//

/// Names that a body assigns are its locals, wherever in it they are used; names of loop bodies
/// belong to the loop.
void NameChecker::collectLocals(const Block *block) {
  auto target = [&](const Expr *expr) {
    if (auto *name = dyn_cast<NameExpr>(expr))
      if (!members.contains(name->name) && !params.contains(name->name))
        locals.try_emplace(name->name, name->range);
  };
  for (const Stmt *stmt : block->statements) {
    if (auto *assign = dyn_cast<AssignStmt>(stmt)) {
      llvm::for_each(assign->targets, target);
      for (const Expr *value : assign->values)
        collectLocals(value);
    } else if (auto *local = dyn_cast<LocalStmt>(stmt)) {
      declareLocal(local->name, "the local");
    } else if (auto *expressions = dyn_cast<ExpressionsStmt>(stmt)) {
      for (const Expr *value : expressions->values)
        collectLocals(value);
    } else if (auto *ret = dyn_cast<ReturnStmt>(stmt)) {
      for (const Expr *value : ret->values)
        collectLocals(value);
    }
  }
}

/// An `if` chooses code of the function: what its blocks assign are the function's names.
void NameChecker::collectLocals(const Expr *expr) {
  while (auto *branch = dyn_cast<IfExpr>(expr)) {
    collectLocals(branch->thenBlock);
    if (branch->elseBlock)
      collectLocals(branch->elseBlock);
    if (!branch->elseExpr)
      return;
    expr = branch->elseExpr;
  }
}

void NameChecker::checkBlock(const Block *block) {
  for (const Stmt *stmt : block->statements)
    checkStmt(stmt);
}

void NameChecker::checkStmt(const Stmt *stmt) {
  switch (stmt->kind) {
  case Stmt::Kind::Assign: {
    auto *assign = cast<AssignStmt>(stmt);
    for (const Expr *value : assign->values)
      checkExpr(value);
    for (const Expr *target : assign->targets)
      checkExpr(target);
    break;
  }
  case Stmt::Kind::Augment:
    checkExpr(cast<AugmentStmt>(stmt)->target);
    checkExpr(cast<AugmentStmt>(stmt)->value);
    break;
  case Stmt::Kind::Local:
    checkType(cast<LocalStmt>(stmt)->type, false, false);
    checkExpr(cast<LocalStmt>(stmt)->value);
    break;
  case Stmt::Kind::For:
  case Stmt::Kind::While: {
    Scope before = locals;
    const Block *body;
    if (auto *loop = dyn_cast<ForStmt>(stmt)) {
      checkExpr(loop->sequence);
      declareLocal(loop->variable, "the loop name");
      body = loop->body;
    } else {
      checkExpr(cast<WhileStmt>(stmt)->condition);
      body = cast<WhileStmt>(stmt)->body;
    }
    collectLocals(body);
    checkBlock(body);
    for (auto &entry : locals)
      if (!before.contains(entry.getKey()))
        ended[entry.getKey()] = entry.second;
    locals = std::move(before);
    break;
  }
  case Stmt::Kind::Break:
    break;
  case Stmt::Kind::Return:
    for (const Expr *value : cast<ReturnStmt>(stmt)->values)
      checkExpr(value);
    break;
  case Stmt::Kind::Assert:
    checkExpr(cast<AssertStmt>(stmt)->assertion.condition);
    break;
  case Stmt::Kind::Expressions:
    for (const Expr *value : cast<ExpressionsStmt>(stmt)->values)
      checkExpr(value);
    break;
  }
}

bool NameChecker::hasReturn(const Block *block, SMRange &where) {
  for (const Stmt *stmt : block->statements) {
    if (isa<ReturnStmt>(stmt)) {
      where = stmt->range;
      return true;
    }
    if (auto *loop = dyn_cast<ForStmt>(stmt); loop && hasReturn(loop->body, where))
      return true;
    if (auto *loop = dyn_cast<WhileStmt>(stmt); loop && hasReturn(loop->body, where))
      return true;
    if (auto *expressions = dyn_cast<ExpressionsStmt>(stmt))
      for (const Expr *value : expressions->values) {
        findReturns(value, where);
        if (where.isValid())
          return true;
      }
  }
  return false;
}

void NameChecker::findReturns(const Expr *expr, SMRange &found) {
  while (auto *branch = dyn_cast<IfExpr>(expr)) {
    if (hasReturn(branch->thenBlock, found) ||
        (branch->elseBlock && hasReturn(branch->elseBlock, found)) || !branch->elseExpr)
      return;
    expr = branch->elseExpr;
  }
}

/// Rule 20: `return` comes last, or in every branch of a last `if`.
void NameChecker::checkReturns(const Block *block) {
  for (auto [i, stmt] : llvm::enumerate(block->statements)) {
    bool isLast = i + 1 == block->statements.size();
    SMRange where;
    if (isa<ReturnStmt>(stmt)) {
      where = stmt->range;
    } else if (auto *loop = dyn_cast<ForStmt>(stmt)) {
      if (hasReturn(loop->body, where))
        isLast = false;
    } else if (auto *loop = dyn_cast<WhileStmt>(stmt)) {
      if (hasReturn(loop->body, where))
        isLast = false;
    } else if (auto *expressions = dyn_cast<ExpressionsStmt>(stmt)) {
      for (const Expr *value : expressions->values)
        findReturns(value, where);
      const IfExpr *branch =
          expressions->values.size() == 1 ? dyn_cast<IfExpr>(expressions->values[0]) : nullptr;
      if (where.isValid() && branch && isLast) {
        for (const Expr *next = branch; branch; branch = next ? dyn_cast<IfExpr>(next) : nullptr) {
          SMRange inner;
          bool complete = hasReturn(branch->thenBlock, inner);
          if (branch->elseBlock)
            complete &= hasReturn(branch->elseBlock, inner);
          else
            complete &= branch->elseExpr && isa<IfExpr>(branch->elseExpr);
          if (!complete) {
            diagnostics.error(where, "'return' comes last, or in every branch of a last 'if'");
            return;
          }
          checkReturns(branch->thenBlock);
          if (branch->elseBlock)
            checkReturns(branch->elseBlock);
          next = branch->elseExpr;
        }
        continue;
      }
    }
    if (where.isValid() && !isLast)
      diagnostics.error(where, "'return' comes last, or in every branch of a last 'if'");
  }
}

//===----------------------------------------------------------------------===//
// Expressions
//===----------------------------------------------------------------------===//

void NameChecker::checkName(StringRef name, SMRange where) {
  static constexpr StringRef known[] = {"training", "pi", "inf", "dl"};
  if (locals.contains(name) || isDeclared(name) || dtypeNamed(name) ||
      llvm::is_contained(known, name) || llvm::binary_search(builtins, name))
    return;
  if (auto loop = ended.find(name); loop != ended.end()) {
    diagnostics
        .error(where,
               "'" + name + "' has no value here: a name of a loop's body ends with each turn")
        .note(loop->second, "assigned here; give it a value before the loop");
    return;
  }
  std::vector<StringRef> candidates, farther(builtins.begin(), builtins.end());
  for (auto *scope : {&locals, &members, &params})
    for (auto &entry : *scope)
      candidates.push_back(entry.getKey());
  for (auto &entry : file.decls)
    candidates.push_back(entry.getKey());
  farther.insert(farther.end(), std::begin(known), std::end(known));
  for (unsigned i = 0; i <= static_cast<unsigned>(DType::F64); ++i)
    farther.push_back(nameOf(static_cast<DType>(i)));
  diagnostics.error(where, "unknown name '" + name + "'" + didYouMean(name, candidates, farther));
}

void NameChecker::checkExpr(const Expr *expr) {
  switch (expr->kind) {
  case Expr::Kind::Name:
    return checkName(cast<NameExpr>(expr)->name, expr->range);
  case Expr::Kind::List:
    for (const Expr *element : cast<ListExpr>(expr)->elements)
      checkExpr(element);
    return;
  case Expr::Kind::Comprehension: {
    auto *each = cast<ComprehensionExpr>(expr);
    checkExpr(each->sequence);
    StringRef name = each->variable.text;
    bool isNew = locals.try_emplace(name, each->variable.range()).second;
    checkExpr(each->element);
    if (isNew)
      locals.erase(name);
    return;
  }
  case Expr::Kind::Chain:
    for (const Expr *operand : cast<ChainExpr>(expr)->operands)
      checkExpr(operand);
    return;
  case Expr::Kind::Compare:
    checkExpr(cast<CompareExpr>(expr)->lhs);
    return checkExpr(cast<CompareExpr>(expr)->rhs);
  case Expr::Kind::Range:
    checkExpr(cast<RangeExpr>(expr)->first);
    return checkExpr(cast<RangeExpr>(expr)->last);
  case Expr::Kind::Negate:
    return checkExpr(cast<NegateExpr>(expr)->operand);
  case Expr::Kind::Not:
    return checkExpr(cast<NotExpr>(expr)->operand);
  case Expr::Kind::Power:
    checkExpr(cast<PowerExpr>(expr)->base);
    return checkExpr(cast<PowerExpr>(expr)->exponent);
  case Expr::Kind::Call: {
    auto *call = cast<CallExpr>(expr);
    checkExpr(call->callee);
    for (const Argument &argument : call->arguments)
      checkExpr(argument.value);
    return;
  }
  case Expr::Kind::Index: {
    auto *index = cast<IndexExpr>(expr);
    checkExpr(index->base);
    for (const Subscript &subscript : index->subscripts)
      for (const Expr *part : {subscript.element, subscript.start, subscript.stop, subscript.step})
        if (part)
          checkExpr(part);
    return;
  }
  case Expr::Kind::Field: {
    auto *field = cast<FieldExpr>(expr);
    checkExpr(field->base);
    // A name of a module is known without elaboration.
    auto *base = dyn_cast<NameExpr>(field->base);
    if (!base || locals.contains(base->name) || members.contains(base->name) ||
        params.contains(base->name))
      return;
    StringRef name = field->name.text;
    if (base->name == "dl" && !file.decls.contains("dl")) {
      if (!llvm::binary_search(builtins, name))
        diagnostics.error(field->name.range(),
                          "no builtin is called '" + name + "'" + didYouMean(name, builtins));
      return;
    }
    auto module = file.modules.find(base->name);
    if (module == file.modules.end() || module->second->decls.contains(name))
      return;
    std::vector<StringRef> candidates;
    for (auto &entry : module->second->decls)
      candidates.push_back(entry.getKey());
    diagnostics.error(field->name.range(), "'" + module->second->ast->path +
                                               "' declares no name '" + name + "'" +
                                               didYouMean(name, candidates));
    return;
  }
  case Expr::Kind::If: {
    auto *branch = cast<IfExpr>(expr);
    checkExpr(branch->condition);
    checkBlock(branch->thenBlock);
    if (branch->elseBlock)
      checkBlock(branch->elseBlock);
    if (branch->elseExpr)
      checkExpr(branch->elseExpr);
    return;
  }
  default:
    return;
  }
}
