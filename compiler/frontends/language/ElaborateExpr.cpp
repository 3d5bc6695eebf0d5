//===- ElaborateExpr.cpp - expressions and statements -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Elaborator.h"

#include "llvm/Support/SaveAndRestore.h"
#include <charconv>

using namespace dlc;
using namespace dlc::language;
using llvm::ArrayRef;
using llvm::cast;
using llvm::dyn_cast;
using llvm::isa;
using llvm::SaveAndRestore;
using llvm::SMRange;
using llvm::StringRef;
using llvm::Twine;
using std::nullopt;
using std::optional;

/// Evaluation recurses with expressions, blocks and calls; this keeps it inside the stack of any
/// thread.
static constexpr unsigned depthLimit = 1000;
/// More than any network needs: a program that grows without end is refused while there is memory.
static constexpr uint64_t stepLimit = 4000000;
/// Lists that a program writes down with `for` are unrolled.
static constexpr int64_t sequenceLimit = 100000;

static SMRange operatorRange(const ast::Expr *expr) {
  // The caret at the operator, tildes to the end of the expression.
  return {expr->place, expr->range.End};
}

//===----------------------------------------------------------------------===//
// Expressions
//===----------------------------------------------------------------------===//

Value Elaborator::evaluate(const ast::Expr *expr) {
  if (depth >= depthLimit) {
    error(expr, "calls and expressions lie too deep in each other");
    return {};
  }
  if (steps >= stepLimit) {
    if (!diagnostics.silent() && steps++ == stepLimit)
      error(expr, "the program is too large: more than " + Twine(stepLimit) +
                      " expressions are evaluated while compiling");
    return {};
  }
  ++steps;
  SaveAndRestore counted(depth, depth + 1);
  return evaluateUnlimited(expr);
}

Value Elaborator::evaluateUnlimited(const ast::Expr *expr) {
  using Kind = ast::Expr::Kind;
  switch (expr->kind) {
  case Kind::Error:
    return {};
  case Kind::Name: {
    auto *name = cast<ast::NameExpr>(expr);
    return lookup(name->name, name->range);
  }
  case Kind::Int: {
    StringRef text = cast<ast::IntExpr>(expr)->text;
    int64_t whole;
    if (!text.getAsInteger(10, whole))
      return Number::whole(whole);
    double real = 0;
    std::from_chars(text.begin(), text.end(), real);
    return Number::ofReal(real);
  }
  case Kind::Float: {
    StringRef text = cast<ast::FloatExpr>(expr)->text;
    double real = 0;
    auto [end, code] = std::from_chars(text.begin(), text.end(), real);
    if (code == std::errc::result_out_of_range && (real != 0 || !text.contains("e-"))) {
      error(expr, "the number " + text + " is too large");
      return {};
    }
    return Number::ofReal(real);
  }
  case Kind::String:
    return StringValue{cast<ast::StringExpr>(expr)->text};
  case Kind::True:
    return Value::boolean(true);
  case Kind::False:
    return Value::boolean(false);
  case Kind::None:
    return Value::none();
  case Kind::List: {
    std::vector<Value> elements;
    for (const ast::Expr *element : cast<ast::ListExpr>(expr)->elements)
      elements.push_back(evaluate(element));
    return Value::list(std::move(elements));
  }
  case Kind::Comprehension:
    return evaluateComprehension(cast<ast::ComprehensionExpr>(expr));
  case Kind::Chain:
    return evaluateChain(cast<ast::ChainExpr>(expr));
  case Kind::Compare: {
    auto *comparison = cast<ast::CompareExpr>(expr);
    Value lhs = evaluate(comparison->lhs), rhs = evaluate(comparison->rhs);
    return compare(comparison->op, lhs, rhs, operatorRange(expr));
  }
  case Kind::Range:
    return evaluateRange(cast<ast::RangeExpr>(expr));
  case Kind::Negate:
    return negate(evaluate(cast<ast::NegateExpr>(expr)->operand), expr->range);
  case Kind::Not: {
    Value value = evaluate(cast<ast::NotExpr>(expr)->operand);
    if (auto *truth = value.as<BoolValue>())
      return Value::boolean(!truth->value, truth->settings);
    if (mlir::Value tensor = value.asTensor(); tensor && dtypeOf(tensor) == DType::Bool)
      return Value::tensor(build("not", tensor, expr->range));
    if (!value.isPoison())
      error(expr, "'not' needs a bool, found " + describe(value));
    return {};
  }
  case Kind::Power: {
    auto *operation = cast<ast::PowerExpr>(expr);
    Value base = evaluate(operation->base), exponent = evaluate(operation->exponent);
    return power(base, exponent, operatorRange(expr));
  }
  case Kind::Call:
    return evaluateCall(cast<ast::CallExpr>(expr));
  case Kind::Index:
    return evaluateIndex(cast<ast::IndexExpr>(expr));
  case Kind::Field:
    return evaluateField(cast<ast::FieldExpr>(expr));
  case Kind::If:
    return evaluateIf(cast<ast::IfExpr>(expr));
  }
  llvm_unreachable("every kind of expression has a value");
}

Value Elaborator::evaluateChain(const ast::ChainExpr *chain) {
  Tok first = chain->operators.front().kind;
  if (first == Tok::And || first == Tok::Or)
    return evaluateLogic(chain);
  Value value = evaluate(chain->operands.front());
  for (auto [op, operand] : llvm::zip_equal(chain->operators, chain->operands.drop_front())) {
    Value rhs = evaluate(operand);
    value = binary(op.kind, value, rhs, {op.begin(), operand->range.End});
  }
  return value;
}

Value Elaborator::evaluateLogic(const ast::ChainExpr *chain) {
  bool isAnd = chain->operators.front().kind == Tok::And;
  Value value = Value::boolean(isAnd);
  uint64_t settings = 0;
  for (const ast::Expr *operand : chain->operands) {
    Value next = evaluate(operand);
    if (next.isPoison())
      return {};
    if (auto *truth = next.as<BoolValue>()) {
      settings |= truth->settings;
      // What decides is not computed further: `momentum != 0 and f(momentum)`.
      if (truth->value != isAnd && value.is<BoolValue>())
        return Value::boolean(!isAnd, settings);
      if (truth->value == isAnd)
        continue;
    }
    mlir::Value tensor = next.asTensor();
    if (!next.is<BoolValue>() && !(tensor && dtypeOf(tensor) == DType::Bool)) {
      error(operand,
            Twine("'") + (isAnd ? "and" : "or") + "' needs bools, found " + describe(next));
      return {};
    }
    if (value.is<BoolValue>()) {
      value = next;
      continue;
    }
    Value operands[] = {value, next};
    llvm::SmallVector<mlir::Value> unified;
    if (!unifyShapes(operands, unified, isAnd ? "'and'" : "'or'", operatorRange(chain)))
      return {};
    value = Value::tensor(build(isAnd ? "and" : "or", unified, operatorRange(chain)));
  }
  if (auto *truth = value.as<BoolValue>())
    return Value::boolean(truth->value, settings);
  return value;
}

Value Elaborator::conditionOf(const ast::Expr *condition) {
  Value value = evaluate(condition);
  if (auto *truth = value.as<BoolValue>()) {
    decide(truth->settings);
    return value;
  }
  if (value.isPoison())
    return {};
  mlir::Value tensor = value.asTensor();
  if (!tensor || dtypeOf(tensor) != DType::Bool || rankOf(tensor) != 0) {
    Report &report = error(condition, "a condition must be one bool, found " + describe(value));
    if (tensor && dtypeOf(tensor) == DType::Bool)
      report.note(
          condition->range,
          "'where(condition, a, b)' chooses element by element; 'all' and 'any' make one of many");
    return {};
  }
  return value;
}

optional<bool> Elaborator::evaluateCondition(const ast::Expr *condition, StringRef what) {
  Value value = conditionOf(condition);
  if (auto *truth = value.as<BoolValue>())
    return truth->value;
  if (!value.isPoison())
    error(condition, "this '" + what +
                         "' decides what is declared: its condition must be known while compiling");
  return nullopt;
}

Value Elaborator::evaluateIf(const ast::IfExpr *branch) {
  Value condition = conditionOf(branch->condition);
  if (condition.isPoison()) {
    poisonAssigned(branch->thenBlock);
    if (branch->elseBlock)
      poisonAssigned(branch->elseBlock);
    return {};
  }
  auto whenTrue = [&] { return runBlock(branch->thenBlock); };
  auto whenFalse = [&] {
    if (branch->elseBlock)
      return runBlock(branch->elseBlock);
    return branch->elseExpr ? evaluate(branch->elseExpr) : Value::none();
  };
  if (auto *truth = condition.as<BoolValue>())
    return truth->value ? whenTrue() : whenFalse();
  return this->branch(condition.asTensor(), branch->condition->range, whenTrue, whenFalse);
}

Value Elaborator::evaluateRange(const ast::RangeExpr *range) {
  optional<Number> first = numberOf(evaluate(range->first), "a range", range->first->range);
  optional<Number> last = numberOf(evaluate(range->last), "a range", range->last->range);
  if (!first || !last)
    return {};
  for (auto [end, expr] : {std::pair(*first, range->first), std::pair(*last, range->last)}) {
    decide(end.settings);
    if (end.isKnown() && !end.asWhole()) {
      error(expr, "a range needs whole numbers, found " + text(end));
      return {};
    }
  }
  return RangeValue{*first, *last};
}

optional<std::vector<Value>> Elaborator::sequenceOf(const Value &value, SMRange where) {
  if (value.isPoison())
    return nullopt;
  if (optional<std::vector<Value>> elements = elementsOf(value))
    return elements;
  auto *range = value.as<RangeValue>();
  if (!range) {
    error(where, "'for' needs a range or a list, found " + describe(value));
    return nullopt;
  }
  optional<int64_t> first = range->first.asWhole(), last = range->last.asWhole();
  if (!first || !last) {
    unsupported(where, "a list of a length that is known at run time only");
    return nullopt;
  }
  if (*last > *first &&
      static_cast<uint64_t>(*last) - static_cast<uint64_t>(*first) > sequenceLimit) {
    error(where, "a list of more than " + Twine(sequenceLimit) + " values");
    return nullopt;
  }
  std::vector<Value> values;
  for (int64_t i = *first; i < *last; ++i)
    values.push_back(Number::whole(i));
  return values;
}

Value Elaborator::evaluateComprehension(const ast::ComprehensionExpr *each) {
  optional<std::vector<Value>> sequence =
      sequenceOf(evaluate(each->sequence), each->sequence->range);
  if (!sequence)
    return {};
  StringRef name = each->variable.text;
  auto before = frame->locals.find(name);
  optional<Value> hidden;
  if (before != frame->locals.end())
    hidden = before->second;
  std::vector<Value> values;
  for (const Value &value : *sequence) {
    frame->locals[name] = value;
    values.push_back(evaluate(each->element));
    if (values.back().isPoison())
      break; // the others would fail alike
  }
  if (hidden)
    frame->locals[name] = *hidden;
  else
    frame->locals.erase(name);
  return values.empty() || !values.back().isPoison() ? Value::list(std::move(values)) : Value();
}

Value Elaborator::evaluateField(const ast::FieldExpr *field) {
  Value base = evaluate(field->base);
  // What has no members does not hide a module of its name: `loss.mse(x, y)` beside `fn loss(…)`.
  if (auto *name = dyn_cast<ast::NameExpr>(field->base);
      name && frame->file && !base.isPoison() && !base.layer() && !base.form())
    if (FileScope *module = frame->file->modules.lookup(name->name))
      base = ModuleValue{module};
  if (base.isPoison())
    return {};
  return fieldOf(base, field->name, field->range);
}

Value Elaborator::fieldOf(const Value &base, ast::Name name, SMRange where) {
  llvm::SmallVector<StringRef> names;
  if (auto *module = base.as<ModuleValue>()) {
    if (!module->file) {
      if (isBuiltin(name.text))
        return BuiltinValue{name.text};
      error(name.range(),
            "no builtin is called '" + name.text + "'" + didYouMean(name.text, builtinNames));
      return {};
    }
    if (optional<Value> value = lookupInFile(module->file, name.text, where))
      return *value;
    for (auto &entry : module->file->decls)
      names.push_back(entry.getKey());
    error(name.range(), "'" + module->file->ast->path + "' declares no name '" + name.text + "'" +
                            didYouMean(name.text, names));
    return {};
  }
  if (Layer *layer = base.layer()) {
    if (auto *member = layer->members.find(name.text);
        member != layer->members.end() && !name.text.empty()) {
      if (member->second.kind == Member::Kind::Variable)
        return readVariable(member->second.variable, where);
      return undefer(member->second.value, where);
    }
    if (auto *param = layer->params.find(name.text); param != layer->params.end())
      return undefer(param->second, where);
    for (auto &[candidate, member] : layer->members)
      names.push_back(candidate);
    error(name.range(), "the layer '" + layer->name() + "' has no member '" + name.text + "'" +
                            didYouMean(name.text, names))
        .note(layer->decl->name.range(), "declared here");
    return {};
  }
  if (LayerForm *form = base.form()) {
    Layer *layer = form->form.layer();
    auto *member = layer ? layer->members.find(name.text) : nullptr;
    if (layer && member != layer->members.end() && !name.text.empty()) {
      if (!member->second.variable)
        return partOf(*form, undefer(member->second.value, where));
      if (mlir::Value value = form->values->lookup(member->second.variable))
        return Value::tensor(value);
    }
    if (auto *param = layer ? layer->params.find(name.text) : nullptr;
        layer && param != layer->params.end())
      return partOf(*form, undefer(param->second, where));
    if (form->isDerivative) {
      error(name.range(), "there is no derivative '" + name.text + "' here");
      return {};
    }
    if (!layer) {
      error(name.range(), "a list of layers has no member '" + name.text + "'");
      return {};
    }
    return fieldOf(layer, name, where); // for the error
  }
  if (mlir::Value tensor = base.asTensor(); tensor && (name.text == "shape" || name.text == "T"))
    error(name.range(), name.text == "T" ? "a tensor is transposed by 'transpose(x)'"
                                         : "a tensor's shape is 'shape(x)'");
  else
    error(name.range(), describe(base) + " has no member '" + name.text + "'");
  return {};
}

Value Elaborator::evaluateIndex(const ast::IndexExpr *index) {
  Value base = evaluate(index->base);
  if (base.isPoison())
    return {};
  auto single = [&]() -> const ast::Expr * {
    if (index->subscripts.size() == 1 && index->subscripts[0].kind == ast::Subscript::Kind::Element)
      return index->subscripts[0].element;
    error(index, describe(base) + " has one index");
    return nullptr;
  };
  auto elementOf = [&](const std::vector<Value> &list) -> optional<size_t> {
    const ast::Expr *expr = single();
    if (!expr)
      return nullopt;
    optional<int64_t> i = wholeOf(evaluate(expr), "an index", expr->range);
    if (!i)
      return nullopt;
    int64_t size = list.size(), at = *i < 0 ? *i + size : *i;
    if (at < 0 || at >= size) {
      error(expr, "index " + Twine(*i) + " is out of range for a list of " + Twine(size));
      return nullopt;
    }
    return at;
  };
  optional<std::vector<Value>> parts; // of a local list of layers
  const std::vector<Value> *list = base.elements();
  if (!list && (parts = elementsOf(base)))
    list = &*parts;
  if (list) {
    optional<size_t> i = elementOf(*list);
    return i ? (*list)[*i] : Value();
  }
  LayerForm *form = base.form();
  if (Layer *layer = form ? form->form.layer() : base.layer()) {
    const ast::Expr *expr = single();
    if (!expr)
      return {};
    Value key = evaluate(expr);
    auto *path = key.as<StringValue>();
    if (!path) {
      if (!key.isPoison())
        error(expr, "a layer's variable is named by a string, found " + describe(key));
      return {};
    }
    Variable *variable = variableNamed(layer, path->text, expr->range);
    if (!variable)
      return {};
    if (!form)
      return readVariable(variable, index->range);
    if (mlir::Value value = form->values->lookup(variable))
      return Value::tensor(value);
    error(expr, "there is no derivative '" + path->text + "' here");
    return {};
  }
  mlir::Value tensor = base.asTensor();
  if (base.is<std::shared_ptr<ArrayValue>>())
    tensor = toTensor(base, index->base->range);
  else if (!tensor)
    error(index, describe(base) + " has no elements");
  return tensor ? indexTensor(tensor, index->subscripts, index->range) : Value();
}

//===----------------------------------------------------------------------===//
// Statements
//===----------------------------------------------------------------------===//

Value Elaborator::runStatements(ArrayRef<const ast::Stmt *> statements) {
  Value last = Value::none();
  for (auto [i, statement] : llvm::enumerate(statements)) {
    last = Value::none();
    auto *expressions = dyn_cast<ast::ExpressionsStmt>(statement);
    if (expressions && expressions->values.size() == 1) {
      last = evaluate(expressions->values[0]);
    } else if (expressions) {
      std::vector<Value> values;
      for (const ast::Expr *value : expressions->values)
        values.push_back(evaluate(value));
      last = Value::list(std::move(values));
    } else {
      runStatement(statement);
    }
    if (frame->returned || frame->broken)
      return Value::none();
    if (mlir::Value stop = frame->brokenWhen; stop && i + 1 < statements.size()) {
      // The rest runs where no `break` was met.
      frame->brokenWhen = {};
      auto leave = [&] {
        frame->broken = true;
        return Value::none();
      };
      branch(stop, statement->range, leave, [&] {
        runStatements(statements.drop_front(i + 1));
        return Value::none();
      });
      return Value::none();
    }
  }
  return last;
}

void Elaborator::runStatement(const ast::Stmt *statement) {
  using Kind = ast::Stmt::Kind;
  switch (statement->kind) {
  case Kind::Assign:
    return runAssign(cast<ast::AssignStmt>(statement));
  case Kind::Augment:
    return runAugment(cast<ast::AugmentStmt>(statement));
  case Kind::Local: {
    auto *local = cast<ast::LocalStmt>(statement);
    optional<std::pair<DType, Shape>> type = evaluateType(local->type);
    if (!type || !checkElements(type->second, local->type->range)) {
      frame->locals[local->name.text] = Value();
      return;
    }
    SaveAndRestore drawType(frame->drawType, optional<DType>(type->first));
    SaveAndRestore drawShape(frame->drawShape, type->second);
    Value value = evaluate(local->value);
    mlir::Value tensor = value.isPoison()
                             ? mlir::Value()
                             : fit(value, type->first, type->second,
                                   ("'" + local->name.text + "'").str(), local->value->range);
    frame->locals[local->name.text] = tensor ? Value::tensor(tensor) : Value();
    return;
  }
  case Kind::For:
    return runFor(cast<ast::ForStmt>(statement));
  case Kind::While:
    return runWhile(cast<ast::WhileStmt>(statement));
  case Kind::Break:
    frame->broken = true;
    return;
  case Kind::Return:
    for (const ast::Expr *value : cast<ast::ReturnStmt>(statement)->values)
      frame->results.push_back(evaluate(value));
    frame->returned = true;
    return;
  case Kind::Assert:
    return checkStatementAssertion(cast<ast::AssertStmt>(statement)->assertion);
  case Kind::Expressions:
    for (const ast::Expr *value : cast<ast::ExpressionsStmt>(statement)->values)
      evaluate(value);
    return;
  }
}

/// What a block assigns has an unknown value after an error in its head.
void Elaborator::poisonAssigned(const ast::Block *block) {
  auto name = [&](const ast::Expr *target) {
    if (auto *plain = dyn_cast<ast::NameExpr>(target)) {
      bool declared = frame->owner && (frame->owner->members.contains(plain->name) ||
                                       frame->owner->params.contains(plain->name));
      if (!declared || frame->locals.contains(plain->name))
        frame->locals[plain->name] = Value();
    }
  };
  for (const ast::Stmt *statement : block->statements) {
    if (auto *assign = dyn_cast<ast::AssignStmt>(statement)) {
      llvm::for_each(assign->targets, name);
    } else if (auto *augment = dyn_cast<ast::AugmentStmt>(statement)) {
      name(augment->target);
    } else if (auto *local = dyn_cast<ast::LocalStmt>(statement)) {
      frame->locals[local->name.text] = Value();
    } else if (isa<ast::ReturnStmt>(statement)) {
      frame->returned = true;
      frame->results.assign(1, Value());
    } else if (auto *loop = dyn_cast<ast::ForStmt>(statement)) {
      poisonAssigned(loop->body);
    } else if (auto *loop = dyn_cast<ast::WhileStmt>(statement)) {
      poisonAssigned(loop->body);
    } else if (auto *expressions = dyn_cast<ast::ExpressionsStmt>(statement)) {
      for (const ast::Expr *value : expressions->values) {
        const ast::Expr *next = value;
        while (auto *branch = next ? dyn_cast<ast::IfExpr>(next) : nullptr) {
          poisonAssigned(branch->thenBlock);
          if (branch->elseBlock)
            poisonAssigned(branch->elseBlock);
          next = branch->elseExpr;
        }
      }
    }
  }
}

void Elaborator::runFor(const ast::ForStmt *loop) {
  Value sequence = evaluate(loop->sequence);
  llvm::StringMap<Value> before = frame->locals;
  auto endNames = [&] { // the body's own names end with it
    llvm::SmallVector<StringRef> own;
    for (auto &entry : frame->locals)
      if (!before.contains(entry.getKey()))
        own.push_back(entry.getKey());
    std::vector<std::string> names(own.begin(), own.end());
    for (const std::string &name : names)
      frame->locals.erase(name);
  };
  if (auto *range = sequence.as<RangeValue>())
    return runRange(loop, *range);
  optional<std::vector<Value>> values = sequenceOf(sequence, loop->sequence->range);
  if (!values) {
    poisonAssigned(loop->body);
    endNames();
    return;
  }
  std::function<void(size_t)> turns = [&](size_t first) {
    for (size_t i = first; i < values->size(); ++i) {
      if (mlir::Value stop = frame->brokenWhen) {
        // The other turns follow where none of these was the last.
        frame->brokenWhen = {};
        auto leave = [&] {
          frame->broken = true;
          return Value::none();
        };
        branch(stop, loop->range, leave, [&] {
          turns(i);
          return Value::none();
        });
        return;
      }
      unsigned errors = diagnostics.errorCount();
      frame->locals[loop->variable.text] = (*values)[i];
      runBlock(loop->body);
      endNames();
      if (frame->returned || frame->broken || diagnostics.errorCount() != errors)
        return;
    }
  };
  turns(0);
  frame->broken = false;
  frame->brokenWhen = {};
}

void Elaborator::runAssign(const ast::AssignStmt *statement) {
  std::vector<Value> values;
  for (const ast::Expr *value : statement->values)
    values.push_back(evaluate(value));
  size_t names = statement->targets.size();
  if (values.size() == 1 && names > 1) {
    if (values[0].isPoison()) {
      values.assign(names, Value());
    } else if (optional<std::vector<Value>> list = elementsOf(values[0])) {
      values = std::move(*list);
    }
  }
  if (values.size() != names) {
    error(statement->range, Twine(names) + (names == 1 ? " name gets " : " names get ") +
                                Twine(values.size()) + (values.size() == 1 ? " value" : " values"));
    values.assign(names, Value());
  }
  for (auto [target, value] : llvm::zip_equal(statement->targets, values))
    assign(target, value, statement->range);
}

void Elaborator::runAugment(const ast::AugmentStmt *statement) {
  SMRange where = {statement->op.begin(), statement->range.End};
  Value value = evaluate(statement->value);
  if (auto *index = dyn_cast<ast::IndexExpr>(statement->target)) {
    Value base = evaluate(index->base);
    if (base.asTensor())
      return assignElement(index, value, statement->op.kind, where);
  }
  Value before = evaluate(statement->target);
  assign(statement->target, binary(statement->op.kind, before, value, where), statement->range);
}

void Elaborator::assign(const ast::Expr *target, Value value, SMRange where) {
  if (auto *name = dyn_cast<ast::NameExpr>(target))
    return assignName(name->name, std::move(value), name->range);
  if (auto *field = dyn_cast<ast::FieldExpr>(target)) {
    Value base = evaluate(field->base);
    if (base.isPoison())
      return;
    LayerForm *form = base.form();
    Layer *layer = form ? form->form.layer() : base.layer();
    auto *member = layer ? layer->members.find(field->name.text) : nullptr;
    if (layer && member != layer->members.end()) {
      if (Variable *variable = member->second.variable)
        return form ? storeInForm(*form, variable, value, target->range)
                    : store(variable, value, target->range);
      if (isWholeLayer(member->second.value))
        return assignLayer(form ? partOf(*form, member->second.value) : member->second.value, value,
                           where);
    }
    error(target, "only variables can be assigned; '" + field->name.text + "' of " +
                      describe(base) + " is none");
    return;
  }
  auto *index = dyn_cast<ast::IndexExpr>(target);
  if (!index)
    return; // reported by the parser
  Value base = evaluate(index->base);
  if (base.isPoison())
    return;
  if (base.asTensor())
    return assignElement(index, std::move(value), nullopt, where);
  LayerForm *form = base.form();
  if (Layer *layer = form ? form->form.layer() : base.layer()) {
    Value key = evaluate(index->subscripts[0].element ? index->subscripts[0].element : index->base);
    if (auto *path = key.as<StringValue>()) {
      Variable *variable = variableNamed(layer, path->text, target->range);
      if (variable && form)
        storeInForm(*form, variable, value, target->range);
      else if (variable)
        store(variable, value, target->range);
      return;
    }
  }
  if (isLayerLike(base) || form) {
    // An element of a list of layers.
    Value element = evaluateIndex(index);
    if (isWholeLayer(element) || element.form())
      return assignLayer(element, value, where);
    if (element.isPoison())
      return;
  }
  error(target, describe(base) + " cannot be changed");
}

void Elaborator::assignName(StringRef name, Value value, SMRange where) {
  if (!frame->locals.contains(name)) {
    if (OptimizerScope *optimizer = frame->optimizer) {
      if (auto *state = optimizer->state.find(name); state != optimizer->state.end())
        return store(state->second, value, where);
      if (auto *each = optimizer->each.find(name); each != optimizer->each.end())
        return store(each->second, value, where);
      if (optimizer->values.contains(name)) {
        error(where, "'" + name + "' is a setting and cannot be assigned");
        return;
      }
    }
    if (Layer *owner = frame->owner) {
      if (auto *found = owner->members.find(name); found != owner->members.end() && !name.empty()) {
        Member &member = found->second;
        if (member.variable)
          return store(member.variable, value, where);
        if (value.isPoison() || member.value.isPoison())
          return;
        bool layers = isLayerLike(member.value);
        if (isWholeLayer(member.value) && (isWholeLayer(value) || value.form()))
          return assignLayer(member.value, value, where);
        error(where, layers
                         ? "'" + name + "' is a layer and cannot become " + describe(value)
                         : "'" + name + "' is declared and is no variable: it cannot be assigned")
            .note(member.where, "declared here");
        return;
      }
      if (owner->params.contains(name)) {
        Report &report = error(where, "'" + name + "' is a parameter and cannot be assigned");
        for (const ast::Param &param : owner->decl->params)
          if (param.name.text == name)
            report.note(param.name.range(), "declared here");
        return;
      }
    }
  }
  frame->locals[name] = localCopy(value, where);
}

void Elaborator::store(Variable *variable, const Value &value, SMRange where) {
  if (value.isPoison())
    return;
  if (isLayerLike(value) || value.form()) {
    error(where, "'" + variable->name.text + "' is a variable and cannot become " + describe(value))
        .note(variable->name.range(), "declared here");
    return;
  }
  mlir::Value tensor =
      fit(value, variable->dtype, variable->shape, ("'" + variable->name.text + "'").str(), where);
  if (!tensor)
    return;
  if (variable->kind == Variable::Kind::Trained && !function->varAssigned)
    function->varAssigned = where;
  function->current[variable] = tensor;
  function->assigned.insert(variable);
}

Value Elaborator::readVariable(Variable *variable, SMRange where) {
  if (function->isConstant) {
    error(where, "'" + variable->name.text +
                     "' is a variable: its value is known at run time only, and this is "
                     "computed while compiling")
        .note(variable->name.range(), "declared here");
    return {};
  }
  if (auto now = function->current.find(variable); now != function->current.end())
    return Value::tensor(now->second);
  if (function->isInit) {
    error(where, "'" + variable->name.text +
                     "' has no value yet: an initial value reads variables above it")
        .note(variable->name.range(), "declared here");
    return {};
  }
  if (auto *read = function->entry.find(variable); read != function->entry.end())
    return Value::tensor(read->second);
  if (variable->owner && !variable->placed && !function->isScratch) {
    error(where, "the layer of '" + variable->name.text +
                     "' is not part of the model: give it a name there")
        .note(variable->owner->madeAt, "made here");
    return {};
  }
  // The value at entry, whatever was computed before: where it is read does not matter.
  mlir::OpBuilder entry = function->atEntry();
  auto type = tensorType(variable->shape, variable->dtype);
  mlir::Value read;
  if (variable->kind != Variable::Kind::Printed)
    read = dl::ReadOp::create(entry, locationOf(where), type, variable->path);
  else if (isFloat(variable->dtype))
    read = dl::FillOp::create(entry, locationOf(where), type, 0.0);
  else
    read = dl::FillOp::create(entry, locationOf(where), type, int64_t(0));
  function->entry[variable] = read;
  return Value::tensor(read);
}

void Elaborator::assignElement(const ast::IndexExpr *target, Value value, optional<Tok> op,
                               SMRange where) {
  mlir::Value base = evaluate(target->base).asTensor();
  if (!base || value.isPoison())
    return;
  optional<Region> region = regionOf(base, target->subscripts, where);
  if (!region)
    return;
  llvm::SmallVector<mlir::Value> wholes, computedStarts;
  if (!takeComputed(base, *region, wholes, computedStarts))
    return;
  base = wholes.back();
  DType dtype = dtypeOf(base);
  auto starts = dl::sizeMap(region->starts, &context);
  auto strides = region->strides;
  auto take = [&] { return reshape(elementsOf(base, *region, where), region->shape, where); };
  auto pad = [&](mlir::Value part) -> mlir::Value {
    part = reshape(part, region->sizes, where);
    auto type = tensorType(shapeOf(base), dtypeOf(part));
    return dl::PadOp::create(builder(), locationOf(where), type, part, starts, strides);
  };
  // Sums go to each element once for each time that it is named; others are elements of their own.
  bool isSum = op && (*op == Tok::Plus || *op == Tok::Minus);
  if (op && (!isSum || dtype == DType::Bool || dtype == DType::U8)) {
    value = binary(*op, Value::tensor(take()), value, where);
    op = nullopt;
    if (value.isPoison())
      return;
  }
  if (value.asTensor() || value.is<std::shared_ptr<ArrayValue>>()) {
    // A smaller value is repeated, as by NumPy.
    mlir::Value tensor = toTensor(value, where);
    Shape from = shapeOf(tensor);
    if (dtypeOf(tensor) == dtype && from.size() <= region->shape.size()) {
      Shape to(region->shape.end() - from.size(), region->shape.end());
      for (auto [size, wanted] : llvm::zip_equal(from, to))
        if (size == constantSize(1))
          wanted = size;
      if (mlir::Value same = conform(tensor, to,
                                     "the elements " + describeType(dtype, region->shape) +
                                         " become " + describeType(tensor),
                                     where))
        value = Value::tensor(broadcast(same, region->shape, where));
    }
  }
  mlir::Value part = fit(value, dtype, region->shape, "the element", where);
  if (!part)
    return;
  mlir::Value result;
  bool isAll = false;
  if (!region->indices.empty()) {
    // Into the slice at these places, and the slice back where it is not all.
    mlir::Location location = locationOf(where);
    mlir::Value slice = sliceOf(base, *region, where);
    auto from = cast<mlir::RankedTensorType>(slice.getType());
    auto taken = dl::gatherType(location, from, mlir::ValueRange(region->indices).getTypes(),
                                region->axes, region->position);
    part = reshape(part, dl::sizesOf(*taken), where);
    if (op && *op == Tok::Minus)
      part = build("neg", part, where);
    if (!op)
      part = dl::ScatterOp::create(builder(), location, slice, part, region->indices, region->axes,
                                   region->position);
    else
      part = dl::ScatterAddOp::create(builder(), location, slice, part, region->indices,
                                      region->axes, region->position);
    op = nullopt;
    isAll = slice == base;
  }
  if (isAll) {
    result = part;
  } else if (region->indices.empty() && isWhole(*region, base)) {
    part = reshape(part, shapeOf(base), where);
    result = op ? build(*op == Tok::Plus ? "add" : "sub", {base, part}, where) : part;
  } else if (op) {
    result = build(*op == Tok::Plus ? "add" : "sub", {base, pad(part)}, where);
  } else {
    mlir::Value ones = fill(tensorType(region->sizes, DType::Bool), Number::whole(1), where);
    result = build("select", {pad(ones), pad(part), base}, where, {}, base.getType());
  }
  // What was taken out goes back.
  for (size_t i = computedStarts.size(); i-- > 0;)
    result = region->computed[i].isBeyond(wholes[i])
                 ? wholes[i]
                 : dl::SliceUpdateOp::create(builder(), locationOf(where), wholes[i].getType(),
                                             wholes[i], result, computedStarts[i],
                                             region->computed[i].axis)
                       .getResult();
  assign(target->base, Value::tensor(result), where);
}

void Elaborator::checkStatementAssertion(const ast::Assertion &assertion) {
  // Of `a and b` each by itself: one may be known while compiling, the other on entry.
  auto *chain = dyn_cast<ast::ChainExpr>(assertion.condition);
  if (chain && chain->operators.front().kind == Tok::And) {
    unsigned errors = diagnostics.errorCount();
    for (ast::Expr *part : chain->operands) {
      checkStatementAssertion({assertion.range, part, assertion.words});
      if (diagnostics.errorCount() != errors)
        return;
    }
    return;
  }
  Value value = evaluate(assertion.condition);
  // In a branch it holds where that is taken.
  bool isConditional = function->conditions > 0;
  if (auto *truth = value.as<BoolValue>()) {
    if (!truth->value && isConditional)
      checkAtRunTime(toTensor(value, assertion.range), assertion.words, assertion.range);
    else if (!truth->value)
      error(assertion.range, "assertion failed: " + assertion.words);
    return;
  }
  if (value.isPoison())
    return;
  mlir::Value tensor = value.asTensor();
  if (!tensor || dtypeOf(tensor) != DType::Bool || rankOf(tensor) != 0) {
    error(assertion.condition, "a condition must be one bool, found " + describe(value));
    return;
  }
  if (isConditional || !checkSizes(assertion.condition, assertion.words))
    checkAtRunTime(tensor, assertion.words, assertion.range);
}

void Elaborator::checkAtRunTime(mlir::Value condition, StringRef words, SMRange where) {
  if (function->isConstant)
    return; // constants are evaluated again in the functions that use them
  // The index of a fault must lie in [0, 1): 1 says that the condition does not hold.
  mlir::Value fails = convert(build("not", condition, where), DType::I32, where);
  dl::CheckIndexOp::create(builder(), locationOf(where), fails,
                           dl::sizeMap({constantSize(1)}, &context), /*fromEnd=*/false,
                           /*ignore=*/mlir::IntegerAttr(),
                           builder().getStringAttr(words));
}
