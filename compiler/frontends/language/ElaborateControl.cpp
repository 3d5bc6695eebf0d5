//===- ElaborateControl.cpp - branches and loops of run time -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// A branch on a bool of run time becomes dl.if, a loop over a range or `while` dl.for. Names and
// variables that a branch assigns are its results; those that a loop's body assigns are carried.
// Which these are, and of which types, is found out by running the body for nothing until nothing
// changes any more: a number may become a number of run time, or take the type of a tensor.
//
// A whole number that the function computes (an index, a count) stays a number: it is a dimension
// of an affine expression, as the sizes are its symbols, so that `t + 1 - t` is 1 and a slice from
// t to t + 3 has 3 elements.
//
//===----------------------------------------------------------------------===//

#include "Elaborator.h"

#include "llvm/Support/SaveAndRestore.h"

using namespace dlc;
using namespace dlc::language;
using llvm::ArrayRef;
using llvm::dyn_cast;
using llvm::SaveAndRestore;
using llvm::SMRange;
using llvm::StringRef;
using llvm::Twine;
using mlir::AffineExpr;
using std::nullopt;
using std::optional;

//===----------------------------------------------------------------------===//
// Whole numbers that the function computes
//===----------------------------------------------------------------------===//

mlir::OpBuilder FunctionState::builderIn(mlir::Block *block) const {
  mlir::OpBuilder entry = builder;
  if (builder.getInsertionBlock() != block)
    entry.setInsertionPointToEnd(block);
  return entry;
}

Number Elaborator::numberOfWhole(mlir::Value value, AffineExpr low, AffineExpr high) {
  function->wholes.push_back({value, low, high});
  return Number::ofSize(mlir::getAffineDimExpr(function->wholes.size() - 1, &context));
}

mlir::Value Elaborator::computeWhole(AffineExpr size, SMRange where) {
  auto scalar = tensorType({}, DType::I64);
  if (auto constant = dyn_cast<mlir::AffineConstantExpr>(size))
    return fill(scalar, Number::whole(constant.getValue()), where);
  if (auto dim = dyn_cast<mlir::AffineDimExpr>(size))
    return function->wholes[dim.getPosition()].value;
  if (!isComputed(size))
    return dl::SizeOp::create(builder(), locationOf(where), scalar,
                              dl::sizeMap({size}, &context));
  auto parts = llvm::cast<mlir::AffineBinaryOpExpr>(size);
  mlir::Value a = computeWhole(parts.getLHS(), where), b = computeWhole(parts.getRHS(), where);
  switch (size.getKind()) {
  case mlir::AffineExprKind::Add:
    return build("add", {a, b}, where);
  case mlir::AffineExprKind::Mul:
    return build("mul", {a, b}, where);
  case mlir::AffineExprKind::Mod:
    return build("rem", {a, b}, where);
  case mlir::AffineExprKind::FloorDiv:
    return build("floor_divide", {a, b}, where);
  default: // the ceiling of a / b is -floor(-a / b)
    return build("neg", build("floor_divide", {build("neg", a, where), b}, where), where);
  }
}

optional<AffineExpr> Elaborator::boundOf(AffineExpr size, bool upper) {
  if (!isComputed(size))
    return size;
  if (auto dim = dyn_cast<mlir::AffineDimExpr>(size)) {
    const FunctionState::Whole &whole = function->wholes[dim.getPosition()];
    AffineExpr bound = upper ? whole.high : whole.low;
    return bound ? optional(bound) : nullopt;
  }
  auto parts = llvm::cast<mlir::AffineBinaryOpExpr>(size);
  AffineExpr lhs = parts.getLHS(), rhs = parts.getRHS();
  auto combine = [&](optional<AffineExpr> a, optional<AffineExpr> b) -> optional<AffineExpr> {
    if (!a || !b)
      return nullopt;
    return dl::normalizeSize(mlir::getAffineBinaryOpExpr(size.getKind(), *a, *b));
  };
  switch (size.getKind()) {
  case mlir::AffineExprKind::Add:
    return combine(boundOf(lhs, upper), boundOf(rhs, upper));
  case mlir::AffineExprKind::Mul: {
    if (isComputed(rhs))
      std::swap(lhs, rhs);
    if (isComputed(rhs))
      return nullopt;
    Number zero = Number::whole(0), factor = Number::ofSize(rhs);
    if (foldCompare(Tok::GreaterEqual, factor, zero).value_or(false))
      return combine(boundOf(lhs, upper), rhs);
    if (foldCompare(Tok::LessEqual, factor, zero).value_or(false))
      return combine(boundOf(lhs, !upper), rhs);
    return nullopt;
  }
  case mlir::AffineExprKind::FloorDiv:
  case mlir::AffineExprKind::CeilDiv: {
    auto divisor = dyn_cast<mlir::AffineConstantExpr>(rhs);
    return divisor && divisor.getValue() > 0 ? combine(boundOf(lhs, upper), rhs) : nullopt;
  }
  default: {
    auto divisor = dyn_cast<mlir::AffineConstantExpr>(rhs);
    if (!divisor || divisor.getValue() <= 0)
      return nullopt;
    return constantSize(upper ? divisor.getValue() - 1 : 0);
  }
  }
}

mlir::Value Elaborator::turnNumber(SMRange where) {
  // As the digits of a number: the turn of the inner loop counts from the outer one's times its
  // turns. A loop whose number of turns is not known counts as 2^20.
  mlir::Value number;
  auto scalar = tensorType({}, DType::I64);
  for (const FunctionState::Loop &loop : function->loops) {
    mlir::Value index = loop.index;
    if (loop.first != constantSize(0))
      index = build("sub", {index, computeWhole(loop.first, where)}, where);
    if (number) {
      mlir::Value turns = loop.turns ? computeWhole(loop.turns, where)
                                     : fill(scalar, Number::whole(1 << 20), where);
      index = build("add", {build("mul", {number, turns}, where), index}, where);
    }
    number = index;
  }
  return number;
}

//===----------------------------------------------------------------------===//
// Values that differ from branch to branch, or turn to turn
//===----------------------------------------------------------------------===//

static bool isWholeNumber(const Number &number) {
  return number.isSize() ? number.denominator == 1
                         : number.kind == Number::Kind::Fraction && number.denominator == 1;
}

/// Whether two values are the same one.
static bool isSame(const Value &a, const Value &b) {
  if (mlir::Value x = a.asTensor())
    return x == b.asTensor();
  if (auto *x = a.number()) {
    auto *y = b.number();
    if (!y || x->kind != y->kind)
      return false;
    if (x->isRuntime())
      return x->value == y->value;
    return foldCompare(Tok::Equal, *x, *y).value_or(false);
  }
  if (auto *x = a.as<BoolValue>())
    return b.is<BoolValue>() && x->value == b.as<BoolValue>()->value;
  if (auto *x = a.elements()) {
    auto *y = b.elements();
    return y && llvm::equal(*x, *y, isSame);
  }
  if (auto *x = a.as<StringValue>())
    return b.is<StringValue>() && x->text == b.as<StringValue>()->text;
  if (auto *x = a.as<DType>())
    return b.is<DType>() && *x == *b.as<DType>();
  if (auto *x = a.as<FunctionValue>())
    return b.is<FunctionValue>() && x->decl == b.as<FunctionValue>()->decl &&
           x->owner == b.as<FunctionValue>()->owner;
  if (auto *x = a.as<BuiltinValue>())
    return b.is<BuiltinValue>() && x->name == b.as<BuiltinValue>()->name;
  if (auto *x = a.as<LayerMaker>())
    return b.is<LayerMaker>() && x->decl == b.as<LayerMaker>()->decl;
  if (auto *x = a.as<ModuleValue>())
    return b.is<ModuleValue>() && x->file == b.as<ModuleValue>()->file;
  if (auto *x = a.as<std::shared_ptr<ArrayValue>>())
    return b.is<std::shared_ptr<ArrayValue>>() && *x == *b.as<std::shared_ptr<ArrayValue>>();
  if (auto *x = a.as<std::shared_ptr<LayerForm>>()) {
    auto *y = b.as<std::shared_ptr<LayerForm>>();
    return y && isSame((*x)->form, (*y)->form) &&
           llvm::all_of(*(*x)->values, [&](auto &entry) {
             return (*y)->values->lookup(entry.first) == entry.second;
           });
  }
  if (auto *x = a.as<RangeValue>())
    return b.is<RangeValue>() && isSame(x->first, b.as<RangeValue>()->first) &&
           isSame(x->last, b.as<RangeValue>()->last);
  if (a.layer())
    return a.layer() == b.layer();
  return a.isNone() && b.isNone();
}

optional<Elaborator::Form> Elaborator::join(const Value &a, const Value &b) {
  Form form;
  if (a.isPoison() || b.isPoison() || isSame(a, b)) {
    form.same = a.isPoison() ? a : b;
    return form;
  }
  auto *x = a.number(), *y = b.number();
  if (x && y) {
    form.kind = isWholeNumber(*x) && isWholeNumber(*y) ? Form::Kind::Whole : Form::Kind::Real;
    return form;
  }
  auto isArray = [](const Value &value) {
    return value.asTensor() || value.is<std::shared_ptr<ArrayValue>>();
  };
  auto typeOf = [&](const Value &value) {
    if (mlir::Value tensor = value.asTensor())
      return llvm::cast<mlir::RankedTensorType>(tensor.getType());
    auto &array = **value.as<std::shared_ptr<ArrayValue>>();
    return mlir::RankedTensorType::get(array.shape, this->typeOf(array.dtype));
  };
  bool isBool = a.is<BoolValue>() || b.is<BoolValue>();
  if (isBool) {
    auto oneBool = mlir::RankedTensorType::get({}, mlir::IntegerType::get(&context, 1));
    for (const Value *value : {&a, &b})
      if (!value->is<BoolValue>() && !(isArray(*value) && typeOf(*value) == oneBool))
        return nullopt;
    form.kind = Form::Kind::Bool;
    return form;
  }
  if ((isArray(a) || x) && (isArray(b) || y)) {
    form.kind = Form::Kind::Tensor;
    form.type = typeOf(isArray(a) ? a : b);
    if (isArray(a) && isArray(b)) {
      mlir::RankedTensorType other = typeOf(b);
      if (form.type.getElementType() != other.getElementType() ||
          form.type.getRank() != other.getRank())
        return nullopt;
      for (auto [size, wanted] : llvm::zip_equal(dl::sizesOf(form.type), dl::sizesOf(other)))
        if (size != wanted && (foldCompare(Tok::NotEqual, Number::ofSize(size),
                                           Number::ofSize(wanted))
                                   .value_or(false) ||
                               differUnlessEmpty(size, wanted)))
          return nullopt;
    } else if (form.type.getElementType().isInteger(1)) {
      return nullopt;
    }
    return form;
  }
  if (auto *list = a.elements()) {
    auto *other = b.elements();
    if (!other || list->size() != other->size())
      return nullopt;
    form.kind = Form::Kind::List;
    form.same = a;
    for (auto [first, second] : llvm::zip_equal(*list, *other)) {
      optional<Form> part = join(first, second);
      if (!part)
        return nullopt;
      form.parts.push_back(*part);
    }
    return form;
  }
  auto *layer = a.as<std::shared_ptr<LayerForm>>(), *other = b.as<std::shared_ptr<LayerForm>>();
  if (layer && other && isSame((*layer)->form, (*other)->form)) {
    form.kind = Form::Kind::Layer;
    auto was = std::make_shared<LayerForm>(**layer);
    if (was->copied != (*other)->copied)
      was->copied = nullptr; // another one has got the name
    form.same = was;
    llvm::SetVector<Variable *> all;
    variablesOf((*layer)->form, all);
    for (Variable *variable : all) {
      mlir::Value first = (*layer)->values->lookup(variable),
                  second = (*other)->values->lookup(variable);
      if (!first != !second)
        return nullopt;
      if (!first)
        continue;
      optional<Form> part = join(Value::tensor(first), Value::tensor(second));
      if (!part)
        return nullopt;
      form.parts.push_back(*part);
    }
    return form;
  }
  return nullopt;
}

void Elaborator::typesOf(const Form &form, llvm::SmallVectorImpl<mlir::Type> &into) {
  switch (form.kind) {
  case Form::Kind::Same:
    return;
  case Form::Kind::Tensor:
    into.push_back(form.type);
    return;
  case Form::Kind::Whole:
    into.push_back(tensorType({}, DType::I64));
    return;
  case Form::Kind::Real:
    into.push_back(tensorType({}, DType::F64));
    return;
  case Form::Kind::Bool:
    into.push_back(tensorType({}, DType::Bool));
    return;
  case Form::Kind::List:
  case Form::Kind::Layer:
    for (const Form &part : form.parts)
      typesOf(part, into);
    return;
  }
}

/// The tensors in the form of a layer, in the order of its variables.
static std::vector<Value> partsOf(const LayerForm &form, ArrayRef<Variable *> variables) {
  std::vector<Value> parts;
  for (Variable *variable : variables)
    if (mlir::Value value = form.values->lookup(variable))
      parts.push_back(Value::tensor(value));
  return parts;
}

bool Elaborator::lower(const Form &form, const Value &value, StringRef what, SMRange where,
                       llvm::function_ref<void(const Value &)> refuse,
                       llvm::SmallVectorImpl<mlir::Value> &into) {
  if (form.kind == Form::Kind::Same)
    return true;
  if (value.isPoison())
    return false;
  auto *number = value.number();
  switch (form.kind) {
  case Form::Kind::Same:
    return true;
  case Form::Kind::Whole:
    if (!number || !isWholeNumber(*number))
      break;
    into.push_back(computeWhole(
        number->isSize() ? number->size : constantSize(number->asWhole().value_or(0)), where));
    return true;
  case Form::Kind::Real:
    if (!number)
      break;
    into.push_back(runtimeNumber(*number, where));
    return true;
  case Form::Kind::Bool:
    if (!value.is<BoolValue>() && !value.asTensor())
      break;
    into.push_back(toTensor(value, where));
    return true;
  case Form::Kind::Tensor: {
    auto sizes = dl::sizesOf(form.type);
    mlir::Value tensor;
    if (number) {
      mlir::Type element = form.type.getElementType();
      DType dtype = DType::F32;
      for (unsigned i = 0; i <= static_cast<unsigned>(DType::F64); ++i)
        if (typeOf(static_cast<DType>(i)) == element)
          dtype = static_cast<DType>(i);
      tensor = materialize(*number, dtype, sizes, where);
      if (!tensor)
        return false;
      into.push_back(tensor);
      return true;
    }
    if (!value.asTensor() && !value.is<std::shared_ptr<ArrayValue>>())
      break;
    tensor = toTensor(value, where);
    if (mlir::getElementTypeOrSelf(tensor.getType()) != form.type.getElementType())
      break;
    tensor = conform(tensor, sizes, what, where);
    if (!tensor)
      break;
    into.push_back(tensor);
    return true;
  }
  case Form::Kind::List: {
    auto *list = value.elements();
    if (!list || list->size() != form.parts.size())
      break;
    for (auto [part, element] : llvm::zip_equal(form.parts, *list))
      if (!lower(part, element, what, where, refuse, into))
        return false;
    return true;
  }
  case Form::Kind::Layer: {
    auto *layer = value.as<std::shared_ptr<LayerForm>>();
    if (!layer)
      break;
    llvm::SetVector<Variable *> all;
    variablesOf((*layer)->form, all);
    std::vector<Value> parts = partsOf(**layer, all.getArrayRef());
    if (parts.size() != form.parts.size())
      break;
    for (auto [part, element] : llvm::zip_equal(form.parts, parts))
      if (!lower(part, element, what, where, refuse, into))
        return false;
    return true;
  }
  }
  refuse(value);
  return false;
}

/// The value as it is now: a local layer may be changed, under all of its names. With `remembers`,
/// asItWas makes it that again.
static Value asItIs(const Value &value, bool remembers = true) {
  if (LayerForm *form = value.form()) {
    auto now = std::make_shared<LayerForm>(*form);
    now->values = std::make_shared<LayerForm::Values>(*form->values);
    now->copied = remembers ? form->values : nullptr;
    return now;
  }
  auto *list = value.elements();
  if (!list)
    return value;
  std::vector<Value> elements;
  for (const Value &element : *list)
    elements.push_back(asItIs(element, remembers));
  return Value::list(std::move(elements));
}

static Value asItWas(const Value &value) {
  if (LayerForm *form = value.form(); form && form->copied) {
    *form->copied = *form->values;
    return std::make_shared<LayerForm>(LayerForm{form->form, form->copied, form->isDerivative, {}});
  }
  auto *list = value.elements();
  if (!list)
    return value;
  std::vector<Value> elements;
  for (const Value &element : *list)
    elements.push_back(asItWas(element));
  return Value::list(std::move(elements));
}

Value Elaborator::lift(const Form &form, mlir::ValueRange &tensors) {
  auto next = [&] {
    mlir::Value value = tensors.front();
    tensors = tensors.drop_front();
    return value;
  };
  switch (form.kind) {
  case Form::Kind::Same:
    return asItWas(form.same);
  case Form::Kind::Tensor:
  case Form::Kind::Bool:
    return Value::tensor(next());
  case Form::Kind::Whole:
    return numberOfWhole(next());
  case Form::Kind::Real:
    return Number::ofValue(next());
  case Form::Kind::List: {
    std::vector<Value> elements;
    for (const Form &part : form.parts)
      elements.push_back(lift(part, tensors));
    return Value::list(std::move(elements));
  }
  case Form::Kind::Layer: {
    Value now = asItIs(form.same, /*remembers=*/false);
    LayerForm &layer = *now.form();
    layer.copied = form.same.form()->copied;
    llvm::SetVector<Variable *> all;
    variablesOf(layer.form, all);
    const Form *part = form.parts.data();
    for (Variable *variable : all)
      if (auto entry = layer.values->find(variable); entry != layer.values->end() && entry->second)
        entry->second = lift(*part++, tensors).asTensor();
    // Of a part, the rest of the map stays as it is.
    if (layer.copied)
      for (auto &[variable, value] : *layer.copied)
        if (!all.contains(variable))
          (*layer.values)[variable] = value;
    return asItWas(now);
  }
  }
  llvm_unreachable("every form has a value");
}

Elaborator::Names Elaborator::namesNow() const {
  Names names;
  for (auto &entry : frame->locals)
    names.locals[entry.getKey().str()] = asItIs(entry.second);
  for (Variable *variable : function->assigned)
    names.variables[variable] = function->current.lookup(variable);
  return names;
}

void Elaborator::setNames(const Names &names) {
  frame->locals.clear();
  for (auto &[name, value] : names.locals)
    frame->locals[name] = asItWas(value);
  function->current.clear();
  function->assigned.clear();
  for (auto &[variable, value] : names.variables) {
    function->current[variable] = value;
    function->assigned.insert(variable);
  }
}

//===----------------------------------------------------------------------===//
// Branches
//===----------------------------------------------------------------------===//

Value Elaborator::branch(mlir::Value condition, SMRange where,
                         llvm::function_ref<Value()> whenTrue,
                         llvm::function_ref<Value()> whenFalse) {
  struct Side {
    std::unique_ptr<mlir::Block> block = std::make_unique<mlir::Block>();
    Names names;
    Value value;
    bool returned, broken;
    mlir::Value brokenWhen;
    std::vector<Value> results;
    llvm::SmallVector<mlir::Value> yielded;
  };
  mlir::OpBuilder outer = builder();
  Names before = namesNow();
  Side sides[2];
  for (auto [side, run] : {std::pair(&sides[0], whenTrue), std::pair(&sides[1], whenFalse)}) {
    setNames(before);
    frame->broken = false;
    frame->brokenWhen = {};
    builder().setInsertionPointToEnd(side->block.get());
    ++function->conditions;
    side->value = asItIs(run(), /*remembers=*/false);
    --function->conditions;
    side->names = namesNow();
    side->returned = std::exchange(frame->returned, false);
    for (const Value &result : std::exchange(frame->results, {}))
      side->results.push_back(asItIs(result, /*remembers=*/false));
    side->broken = std::exchange(frame->broken, false);
    side->brokenWhen = std::exchange(frame->brokenWhen, {});
  }
  setNames(before);

  // What differs becomes a result.
  struct Merged {
    std::string name;
    Form form;
  };
  llvm::SmallVector<mlir::Type> types;
  bool failed = false;
  auto refuse = [&](const Twine &what, const Value &a, const Value &b) {
    if (a.isPoison() || b.isPoison())
      return;
    failed = true;
    error(where, what + " is " + describe(a) + " in one branch of this 'if' and " + describe(b) +
                     " in the other");
  };
  auto merge = [&](const std::string &what, const Value &a, const Value &b) -> Form {
    optional<Form> form = join(a, b);
    if (!form) {
      refuse(what, a, b);
      return Form{Form::Kind::Same, Value(), {}, {}};
    }
    for (auto [side, value] : {std::pair(&sides[0], &a), std::pair(&sides[1], &b)}) {
      builder().setInsertionPointToEnd(side->block.get());
      if (!lower(*form, *value, what, where, [&](const Value &) { refuse(what, a, b); },
                 side->yielded))
        return Form{Form::Kind::Same, Value(), {}, {}};
    }
    if (sides[0].yielded.size() != sides[1].yielded.size()) {
      size_t size = std::min(sides[0].yielded.size(), sides[1].yielded.size());
      for (Side &side : sides)
        side.yielded.resize(size);
      return Form{Form::Kind::Same, Value(), {}, {}};
    }
    return *form;
  };

  std::vector<Merged> merged;
  std::map<std::string, Value> names = sides[0].names.locals;
  names.insert(sides[1].names.locals.begin(), sides[1].names.locals.end());
  for (auto &[name, unused] : names) {
    auto a = sides[0].names.locals.find(name), b = sides[1].names.locals.find(name);
    // A side that ends the function or the loop hands on nothing.
    if (a == sides[0].names.locals.end() || b == sides[1].names.locals.end()) {
      frame->halves[name] = where;
      continue;
    }
    merged.push_back({name, merge("'" + name + "'", a->second, b->second)});
  }
  llvm::SetVector<Variable *> assigned;
  for (Side &side : sides)
    for (auto &entry : side.names.variables)
      assigned.insert(entry.first);
  std::vector<std::pair<Variable *, Form>> mergedVariables;
  for (Variable *variable : assigned) {
    Value values[2];
    for (auto [side, value] : llvm::zip(sides, values)) {
      auto *entry = side.names.variables.find(variable);
      value = entry != side.names.variables.end() ? Value::tensor(entry->second)
                                                  : readVariable(variable, where);
    }
    mergedVariables.emplace_back(variable, merge("'" + variable->path + "'", values[0], values[1]));
  }
  Form valueForm{Form::Kind::Same, Value::none(), {}, {}};
  bool hasValue = !sides[0].value.isNone() && !sides[1].value.isNone();
  if (hasValue)
    valueForm = merge("the value", sides[0].value, sides[1].value);
  std::vector<Form> resultForms;
  bool returned = sides[0].returned && sides[1].returned;
  if (sides[0].returned != sides[1].returned) {
    error(where, "'return' comes last, or in every branch of a last 'if'");
    failed = true;
  } else if (returned) {
    if (sides[0].results.size() != sides[1].results.size()) {
      error(where, "one branch of this 'if' returns " + Twine(sides[0].results.size()) +
                       (sides[0].results.size() == 1 ? " value" : " values") + ", the other " +
                       Twine(sides[1].results.size()));
      failed = true;
    } else {
      for (auto [i, a, b] : llvm::enumerate(sides[0].results, sides[1].results))
        resultForms.push_back(merge("result " + std::to_string(i), a, b));
    }
  }
  // Where a `break` was met.
  enum class Broken : uint8_t { Never, Always, When } broken[2];
  for (auto [side, how] : llvm::zip(sides, broken))
    how = side.broken       ? Broken::Always
          : side.brokenWhen ? Broken::When
                            : Broken::Never;
  bool needsFlag = broken[0] == Broken::When || broken[1] == Broken::When;
  if (needsFlag)
    for (auto [side, how] : llvm::zip(sides, broken)) {
      builder().setInsertionPointToEnd(side.block.get());
      side.yielded.push_back(how == Broken::When ? side.brokenWhen
                                                 : fill(tensorType({}, DType::Bool),
                                                        Number::whole(how == Broken::Always),
                                                        where));
    }

  auto restore = [&] { builder().restoreInsertionPoint(outer.saveInsertionPoint()); };
  restore();
  if (failed) {
    for (auto &entry : merged)
      frame->locals[entry.name] = entry.form.kind == Form::Kind::Same ? entry.form.same : Value();
    frame->returned = returned;
    frame->results.assign(returned ? 1 : 0, Value());
    return {};
  }
  for (Side &side : sides) {
    builder().setInsertionPointToEnd(side.block.get());
    dl::YieldOp::create(builder(), locationOf(where), side.yielded);
  }
  restore();
  auto op = dl::IfOp::create(builder(), locationOf(where),
                             mlir::TypeRange(mlir::ValueRange(sides[0].yielded)), condition);
  op.getWhenTrue().push_back(sides[0].block.release());
  op.getWhenFalse().push_back(sides[1].block.release());

  mlir::ValueRange tensors = op.getResults();
  for (auto &entry : merged)
    frame->locals[entry.name] = lift(entry.form, tensors);
  for (auto &[variable, form] : mergedVariables)
    if (mlir::Value value = lift(form, tensors).asTensor())
      setVariable(variable, value);
  Value value = hasValue ? lift(valueForm, tensors) : Value::none();
  for (const Form &form : resultForms)
    frame->results.push_back(lift(form, tensors));
  frame->returned = returned;
  if (needsFlag)
    frame->brokenWhen = tensors.front();
  else if (broken[0] == Broken::Always && broken[1] == Broken::Always)
    frame->broken = true;
  else if (broken[0] == Broken::Always)
    frame->brokenWhen = condition;
  else if (broken[1] == Broken::Always)
    frame->brokenWhen = build("not", condition, where);
  return value;
}

//===----------------------------------------------------------------------===//
// Loops
//===----------------------------------------------------------------------===//

void Elaborator::tryOut(llvm::function_ref<void(mlir::Block *)> run) {
  mlir::Block entry, body;
  FunctionState trial = *function;
  trial.block = trial.checkBlock = &entry;
  trial.builder.setInsertionPointToEnd(&body);
  trial.isScratch = true;
  Names names = namesNow();
  llvm::StringMap<SMRange> halves = frame->halves;
  {
    SaveAndRestore inTrial(function, &trial);
    Diagnostics::Silence silence(diagnostics);
    run(&body);
  }
  frame->returned = frame->broken = false;
  frame->brokenWhen = {};
  frame->results.clear();
  frame->halves = std::move(halves);
  setNames(names);
  body.clear();
}

/// A loop as the text has it.
struct Elaborator::LoopPlan {
  SMRange where; // for errors about what it carries
  AffineExpr first, last; // last: null where the end is not a size
  StringRef variable;     // the name of the index, if it has one
  std::function<Number(const Number &index)> value; // of that name
  /// Whether there is a turn of this index, where that is more than being below `last`.
  std::function<Value(const Number &index)> condition;
  const ast::Block *body;
};

/// What a loop carries.
struct Elaborator::LoopShape {
  bool conditional = false;
  std::map<std::string, Form> names;
  llvm::MapVector<Variable *, mlir::Type> variables;
  bool operator==(const LoopShape &other) const {
    return conditional == other.conditional && names == other.names &&
           llvm::equal(variables, other.variables);
  }
};

/// What was found to be made of tensors stays so.
void Elaborator::widen(Form &form, const Form &before) {
  if (form.kind == Form::Kind::Same && before.kind != Form::Kind::Same)
    form = before;
  else if (form.parts.size() == before.parts.size())
    for (auto [part, old] : llvm::zip(form.parts, before.parts))
      widen(part, old);
}

/// One turn, in `block`. Without `next`, what it changes is added to the shape; with it, what the
/// next turn gets is appended there.
void Elaborator::runTurn(const LoopPlan &plan, const Names &before, LoopShape &shape,
                         mlir::Block *block, llvm::SmallVectorImpl<mlir::Value> *next) {
  mlir::Location location = locationOf(plan.where);
  mlir::Value index = block->addArgument(tensorType({}, DType::I64), location);
  if (shape.conditional)
    block->addArgument(tensorType({}, DType::Bool), location);
  llvm::SmallVector<mlir::Type> types;
  for (auto &[name, form] : shape.names)
    typesOf(form, types);
  for (auto &[variable, type] : shape.variables)
    types.push_back(type);
  for (mlir::Type type : types)
    block->addArgument(type, location);
  mlir::ValueRange carried = block->getArguments().drop_front(1 + shape.conditional);
  for (auto &[name, form] : shape.names)
    frame->locals[name] = lift(form, carried);
  for (auto &[variable, type] : shape.variables) {
    setVariable(variable, carried.front());
    carried = carried.drop_front();
  }
  Names start = namesNow();

  AffineExpr high = plan.last ? dl::normalizeSize(plan.last - 1) : AffineExpr();
  Number number = numberOfWhole(index, plan.first, high);
  AffineExpr turns = plan.last ? dl::normalizeSize(plan.last - plan.first) : AffineExpr();
  function->loops.push_back({index, plan.first, turns});
  bool isUncertain = shape.conditional || !plan.last;
  function->conditions += isUncertain;
  llvm::StringMap<unsigned> draws = function->draws;
  if (!plan.variable.empty())
    frame->locals[plan.variable] = plan.value(number);
  runStatements(plan.body->statements);
  bool broken = std::exchange(frame->broken, false);
  mlir::Value brokenWhen = std::exchange(frame->brokenWhen, {});

  // Whether there is a next turn.
  Value goesOn = Value::boolean(!broken);
  if (!broken && plan.condition) {
    // With the draws that the condition had before the first turn.
    std::swap(draws, function->draws);
    Number following = *fold(Tok::Plus, number, Number::whole(1));
    auto ask = [&] { return plan.condition(following); };
    if (brokenWhen)
      goesOn = branch(brokenWhen, plan.where, [] { return Value::boolean(false); }, ask);
    else
      goesOn = ask();
    frame->broken = false;
    for (auto &entry : draws)
      function->draws[entry.getKey()] = std::max(function->draws[entry.getKey()], entry.second);
  } else if (!broken && brokenWhen) {
    goesOn = Value::tensor(build("not", brokenWhen, plan.where));
  }
  function->conditions -= isUncertain;

  Names after = namesNow();
  if (!next) {
    shape.conditional |= broken || brokenWhen || plan.condition;
    for (auto &[name, was] : start.locals) {
      if (name == plan.variable)
        continue;
      auto now = after.locals.find(name);
      if (now == after.locals.end() || isSame(was, now->second) || now->second.isPoison())
        continue;
      if (optional<Form> form = join(was, now->second)) {
        if (auto known = shape.names.find(name); known != shape.names.end())
          widen(*form, known->second);
        shape.names[name] = *form;
      }
    }
    for (auto &[variable, value] : after.variables) {
      auto *was = start.variables.find(variable);
      if (was == start.variables.end() || was->second != value)
        shape.variables.insert({variable, value.getType()});
    }
    function->loops.pop_back();
    return;
  }

  bool failed = false;
  if (shape.conditional) {
    mlir::Value flag = goesOn.isPoison() ? mlir::Value() : toTensor(goesOn, plan.where);
    failed |= !flag;
    next->push_back(flag);
  }
  for (auto &[name, form] : shape.names) {
    auto now = after.locals.find(name);
    Value value = now != after.locals.end() ? now->second : Value();
    const Value &was = before.locals.find(name)->second;
    auto refuse = [&, name = name](const Value &found) {
      error(plan.where, "'" + name + "' changes from " + describe(was) + " to " + describe(found) +
                            " in the loop; what a loop carries keeps its type and shape");
    };
    failed |= !lower(form, value, "'" + name + "' in the loop", plan.where, refuse, *next);
  }
  for (auto &[variable, type] : shape.variables)
    next->push_back(after.variables.find(variable)->second);
  // What could be carried in no form at all.
  for (auto &[name, was] : start.locals) {
    auto now = after.locals.find(name);
    if (shape.names.count(name) || name == plan.variable || now == after.locals.end() ||
        was.isPoison() || now->second.isPoison() || isSame(was, now->second))
      continue;
    failed = true;
    error(plan.where, "'" + name + "' changes from " + describe(was) + " to " +
                          describe(now->second) +
                          " in the loop; what a loop carries keeps its type and shape");
  }
  if (failed)
    next->clear();
  function->loops.pop_back();
}

void Elaborator::runLoop(const LoopPlan &plan) {
  Names before = namesNow();
  // Which names are carried, and as what? A number may meet a tensor in the second turn only.
  LoopShape shape;
  for (unsigned trials = 0; trials < 8; ++trials) {
    LoopShape found = shape;
    tryOut([&](mlir::Block *block) { runTurn(plan, before, found, block, nullptr); });
    if (found == shape)
      break;
    shape = std::move(found);
  }

  // What it begins with.
  llvm::SmallVector<mlir::Value> inits;
  bool failed = false;
  if (shape.conditional) {
    Value goesOn = Value::boolean(true);
    if (plan.condition) {
      llvm::StringMap<unsigned> draws = function->draws;
      goesOn = plan.condition(Number::ofSize(plan.first));
      function->draws = std::move(draws);
    }
    mlir::Value flag = goesOn.isPoison() ? mlir::Value() : toTensor(goesOn, plan.where);
    failed |= !flag;
    inits.push_back(flag);
  }
  for (auto &[name, form] : shape.names) {
    const Value &value = before.locals.find(name)->second;
    failed |= !lower(form, value, "'" + name + "' in the loop", plan.where, [&](const Value &) {},
                     inits);
  }
  for (auto &[variable, type] : shape.variables)
    inits.push_back(readVariable(variable, plan.where).asTensor());

  mlir::OpBuilder outer = builder();
  auto block = std::make_unique<mlir::Block>();
  builder().setInsertionPointToEnd(block.get());
  llvm::SmallVector<mlir::Value> next;
  unsigned errors = diagnostics.errorCount();
  runTurn(plan, before, shape, block.get(), &next);
  failed |= diagnostics.errorCount() != errors || next.size() != inits.size();
  if (!failed)
    dl::YieldOp::create(builder(), locationOf(plan.where), next);
  builder().restoreInsertionPoint(outer.saveInsertionPoint());
  llvm::SmallVector<Variable *> assigned = llvm::to_vector(function->assigned);
  frame->broken = false;
  frame->brokenWhen = {};
  setNames(before);
  if (failed) {
    for (auto &[name, form] : shape.names)
      frame->locals[name] = Value();
    return;
  }
  auto loop = dl::ForOp::create(builder(), locationOf(plan.where), plan.first, plan.last,
                                mlir::Value(), shape.conditional, inits);
  loop.getBody().push_back(block.release());
  mlir::ValueRange results = loop.getResults().drop_front(shape.conditional);
  for (auto &[name, form] : shape.names)
    frame->locals[name] = lift(form, results);
  for (auto &[variable, type] : shape.variables) {
    setVariable(variable, results.front());
    results = results.drop_front();
  }
}

void Elaborator::runRange(const ast::ForStmt *loop, const RangeValue &range) {
  LoopPlan plan;
  plan.where = loop->variable.range();
  plan.variable = loop->variable.text;
  plan.body = loop->body;
  bool isComputed = false;
  for (const Number *end : {&range.first, &range.last}) {
    if (end->isRuntime() || (end->isSize() && end->denominator != 1 && end->isComputed())) {
      error(loop->sequence, "a range needs whole numbers, found " + text(*end));
      return;
    }
    isComputed |= end->isComputed();
  }
  auto sizeOfEnd = [&](const Number &end) {
    return end.isSize() ? wholeSize(end, loop->sequence->range)
                        : constantSize(end.asWhole().value_or(0));
  };
  if (isComputed) {
    // Counted from 0, as long as the number lies below the end.
    plan.first = constantSize(0);
    plan.value = [&](const Number &index) { return *fold(Tok::Plus, range.first, index); };
    plan.condition = [&](const Number &index) {
      return compare(Tok::Less, *fold(Tok::Plus, range.first, index), range.last,
                     loop->sequence->range);
    };
  } else {
    plan.first = sizeOfEnd(range.first);
    plan.last = sizeOfEnd(range.last);
    plan.value = [](const Number &index) { return index; };
  }
  runLoop(plan);
}

void Elaborator::runWhile(const ast::WhileStmt *loop) {
  LoopPlan plan;
  plan.where = loop->condition->range;
  plan.first = constantSize(0);
  plan.body = loop->body;
  plan.condition = [&](const Number &) { return conditionOf(loop->condition); };
  runLoop(plan);
}
