//===- ElaborateTrain.cpp - gradients, optimizers, train steps -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Nothing here knows an optimizer by name: its code is run, once for each variable, on values of
// the IR.
//
// A setting is a variable of the artefact (`step.lr`) unless it decides an `if`, a rank or a size.
// Which those are is found out by running the code once for nothing, with settings as numbers that
// remember where they come from.
//
//===----------------------------------------------------------------------===//

#include "Elaborator.h"

#include "llvm/Support/GlobPattern.h"
#include "llvm/Support/SaveAndRestore.h"

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

//===----------------------------------------------------------------------===//
// Gradients
//===----------------------------------------------------------------------===//

llvm::DenseSet<mlir::Value> Elaborator::dependencesOf(mlir::Value value) {
  llvm::DenseSet<mlir::Value> reached, derived;
  // Each with whether it was reached through a derivative.
  llvm::SmallVector<std::pair<mlir::Value, bool>> work{{value, false}};
  while (!work.empty()) {
    auto [next, isDerived] = work.pop_back_val();
    if (!isFloat(dtypeOf(next)) || !(isDerived ? derived : reached).insert(next).second)
      continue;
    mlir::Operation *op = next.getDefiningOp();
    if (!op || isa<dl::StopGradientOp>(op))
      continue;
    if (isa<dl::ForOp, dl::IfOp>(op)) {
      // What it reads from around it, too. (The function's block is no region's yet.)
      op->walk([&](mlir::Operation *inner) {
        for (mlir::Value operand : inner->getOperands()) {
          mlir::Operation *home = operand.getParentBlock()->getParentOp();
          if (!home || !op->isAncestor(home))
            work.emplace_back(operand, isDerived);
        }
      });
      continue;
    }
    // A derivative depends on what the value that was differentiated is computed from,
    auto differentiable = dyn_cast<dl::DifferentiableOpInterface>(op);
    bool isGradient = isa<dl::GradientOp>(op);
    if (differentiable || isGradient)
      for (auto [number, operand] : llvm::enumerate(op->getOperands()))
        if (!differentiable || differentiable.flowsTo(number))
          work.emplace_back(operand, isDerived || isGradient);
    // and on what a gradient of one's own reads.
    if (auto own = dyn_cast<dl::CustomGradientOp>(op); own && isDerived)
      own.getBody().walk([&](mlir::Operation *inner) {
        // The function under construction has no region yet.
        for (mlir::Value operand : inner->getOperands())
          if (mlir::Region *region = operand.getParentRegion();
              !region || !own.getBody().isAncestor(region))
            work.emplace_back(operand, true);
      });
  }
  reached.insert(derived.begin(), derived.end());
  return reached;
}

llvm::SmallVector<mlir::Value> Elaborator::gradient(mlir::Value value, ArrayRef<mlir::Value> wanted,
                                                    SMRange where) {
  auto op = dl::GradientOp::create(builder(), locationOf(where), value, mlir::ValueRange(wanted));
  return llvm::SmallVector<mlir::Value>(op.getResults());
}

mlir::Value Elaborator::currentValue(Variable *variable) {
  if (auto now = function->current.find(variable); now != function->current.end())
    return now->second;
  auto *read = function->entry.find(variable);
  return read == function->entry.end() ? mlir::Value() : read->second;
}

bool Elaborator::collectWanted(const Value &wanted, const llvm::DenseSet<mlir::Value> &reached,
                               llvm::SetVector<mlir::Value> &into, StringRef what, SMRange where) {
  if (wanted.isPoison())
    return false;
  if (mlir::Value tensor = wanted.asTensor()) {
    if (!isFloat(dtypeOf(tensor))) {
      error(where, "there is no derivative with respect to " + describeType(tensor));
      return false;
    }
    if (!reached.contains(tensor)) {
      error(where, "the value does not depend on " + what);
      return false;
    }
    into.insert(tensor);
    return true;
  }
  if (auto *list = wanted.elements()) {
    for (const Value &element : *list) {
      bool isFunction =
          element.is<FunctionValue>() || element.is<ExternValue>() ||
          element.is<BuiltinValue>(); // of a list of layers
      if (!isFunction && !collectWanted(element, reached, into, what, where))
        return false;
    }
    return true;
  }
  LayerForm *form = wanted.form();
  if (wanted.layer() || form) {
    const Value &of = form ? form->form : wanted;
    llvm::SetVector<Variable *> all;
    variablesOf(of, all);
    bool any = all.empty(); // a layer without variables has an empty derivative
    for (Variable *variable : all)
      if (mlir::Value value = form ? form->values->lookup(variable) : currentValue(variable);
          value && reached.contains(value)) {
        into.insert(value);
        any = true;
      }
    if (!any)
      error(where, "the value does not depend on " +
                       (form ? what.str() : ("the layer '" + wanted.layer()->name() + "'").str()));
    return any;
  }
  error(where, "there is no derivative with respect to " + describe(wanted));
  return false;
}

Value Elaborator::gradientForm(const Value &wanted,
                               const llvm::DenseMap<mlir::Value, mlir::Value> &gradients,
                               SMRange where) {
  if (mlir::Value tensor = wanted.asTensor())
    return Value::tensor(gradients.lookup(tensor));
  LayerForm *local = wanted.form();
  if (local || isWholeLayer(wanted)) {
    auto form = std::make_shared<LayerForm>();
    form->form = local ? local->form : wanted;
    form->values = std::make_shared<LayerForm::Values>();
    form->isDerivative = true;
    llvm::SetVector<Variable *> all;
    variablesOf(form->form, all);
    for (Variable *variable : all) {
      mlir::Value value = local ? local->values->lookup(variable) : currentValue(variable);
      if (mlir::Value gradient = value ? gradients.lookup(value) : mlir::Value())
        (*form->values)[variable] = gradient;
      else if (variable->kind == Variable::Kind::Trained)
        (*form->values)[variable] =
            fill(tensorType(variable->shape, variable->dtype), Number::whole(0), where);
    }
    return form;
  }
  if (auto *list = wanted.elements()) {
    std::vector<Value> forms;
    for (const Value &element : *list)
      forms.push_back(gradientForm(element, gradients, where));
    return Value::list(std::move(forms));
  }
  return Value::none(); // a function in a list of layers
}

Value Elaborator::callGrad(StringRef name, CallArguments &arguments) {
  llvm::SmallVector<Value *> values;
  if (!bindNames(arguments, "'grad'", {"value", "wanted"}, 2, values))
    return {};
  SMRange where = arguments.range;
  mlir::Value value = values[0]->asTensor();
  if (!value || rankOf(value) != 0 || !isFloat(dtypeOf(value))) {
    error(where,
          "'grad' needs one floating-point number that was computed, found " +
              describe(*values[0]) +
              (value && rankOf(value) != 0 ? "; reduce it first, for example by 'mean'" : ""));
    return {};
  }
  llvm::SetVector<mlir::Value> wanted;
  std::string what = "what its derivative is wanted of";
  SMRange place = where;
  if (arguments.positional.size() == 2 && arguments.places.size() == 2) {
    place = arguments.places[1];
    StringRef source(place.Start.getPointer(), place.End.getPointer() - place.Start.getPointer());
    if (source.size() <= 40 && !source.contains('\n') && !source.contains('['))
      what = ("'" + source + "'").str();
  }
  if (!collectWanted(*values[1], dependencesOf(value), wanted, what, place))
    return {};
  llvm::DenseMap<mlir::Value, mlir::Value> gradients;
  if (!wanted.empty())
    for (auto [of, result] : llvm::zip_equal(wanted, gradient(value, wanted.getArrayRef(), where)))
      gradients[of] = result;
  return gradientForm(*values[1], gradients, where);
}

bool Elaborator::flattenGradients(const Value &value, llvm::SmallVectorImpl<mlir::Value> &into) {
  if (mlir::Value tensor = value.asTensor()) {
    into.push_back(tensor);
    return true;
  }
  if (LayerForm *form = value.form()) {
    llvm::SetVector<Variable *> all;
    variablesOf(form->form, all);
    for (Variable *variable : all)
      if (mlir::Value found = form->values->lookup(variable);
          found && variable->kind == Variable::Kind::Trained)
        into.push_back(found);
    return true;
  }
  if (auto *list = value.elements())
    return llvm::all_of(*list, [&](const Value &element) {
      return element.isNone() || flattenGradients(element, into);
    });
  return false;
}

//===----------------------------------------------------------------------===//
// Optimizers
//===----------------------------------------------------------------------===//

/// Settings that every optimizer takes.
static constexpr StringRef commonSettings[] = {"clip_norm", "clip_value", "accumulate"};

Value Elaborator::evaluateSetting(const ast::Expr *expr, FileScope *file, Layer *owner) {
  mlir::Block block;
  FunctionState scratch(&context, &block);
  scratch.isScratch = true; // reads variables: an expression of state is evaluated in each step
  SaveAndRestore inFunction(function, &scratch);
  SaveAndRestore inDeclaration(declaring, true);
  Frame own;
  own.file = file;
  own.owner = owner;
  own.caller = frame;
  FrameScope scope(*this, own);
  Value value = evaluate(expr);
  bool perStep = value.asTensor() || (value.number() && value.number()->isRuntime());
  return perStep ? Value(DeferredValue{expr, file, owner}) : value;
}

Value Elaborator::makeOptimizer(const OptimizerMaker &maker, const ast::CallExpr *call,
                                bool isStep) {
  const ast::OptimizerDecl *decl = maker.decl;
  std::string name = ("the optimizer '" + decl->name.text + "'").str();
  if (!declaring) {
    error(call->range,
          "an optimizer is made in a declaration, not in a function: it has state of its own")
        .note(decl->name.range(), "declared here");
    return {};
  }
  auto owned = std::make_unique<Optimizer>();
  owned->decl = decl;
  owned->file = maker.file;
  owned->madeAt = call->range;
  llvm::SmallVector<StringRef> names;
  for (const ast::Param &param : decl->params)
    names.push_back(param.name.text);
  llvm::SmallVector<const ast::Argument *> given(names.size());
  llvm::SmallVector<const ast::Argument *> common;
  bool failed = false;
  auto arguments = call->arguments.drop_front(isStep ? 1 : 0);
  for (auto [i, argument] : llvm::enumerate(arguments)) {
    if (!argument.name) {
      if (isStep || i >= names.size()) {
        error(argument.value, "settings of an optimizer are written 'name = value'");
        failed = true;
      } else {
        given[i] = &argument;
      }
      continue;
    }
    StringRef word = argument.name.text;
    auto *found = llvm::find(names, word);
    if (found != names.end()) {
      if (given[found - names.begin()]) {
        error(argument.name.range(), "the setting '" + word + "' is given twice");
        failed = true;
      }
      given[found - names.begin()] = &argument;
    } else if (llvm::is_contained(commonSettings, word)) {
      common.push_back(&argument);
    } else if (word == "only" && isStep) {
      owned->only = argument.value;
    } else {
      llvm::SmallVector<StringRef> all(names);
      all.append(std::begin(commonSettings), std::end(commonSettings));
      all.push_back("only");
      error(argument.name.range(), name + " has no setting '" + word + "'" + didYouMean(word, all))
          .note(decl->name.range(), "declared here");
      failed = true;
    }
  }
  for (auto [param, argument] : llvm::zip_equal(decl->params, given)) {
    Setting setting{param.name.text, {}, param.name.range()};
    if (argument) {
      setting.where = argument->value->range;
      setting.value = evaluateSetting(argument->value, frame->file, frame->owner);
    } else if (param.initial) {
      setting.value = evaluateSetting(param.initial, maker.file, nullptr);
    } else {
      error(call->range, name + ": the setting '" + param.name.text + "' is missing")
          .note(param.name.range(), "declared here");
      failed = true;
    }
    failed |= setting.value.isPoison();
    owned->settings.push_back(setting);
  }
  for (const ast::Argument *argument : common) {
    Setting setting{argument->name.text,
                    evaluateSetting(argument->value, frame->file, frame->owner),
                    argument->value->range};
    failed |= setting.value.isPoison();
    owned->settings.push_back(setting);
  }
  if (failed)
    return {};
  optimizers.push_back(std::move(owned));
  return optimizers.back().get();
}

void Elaborator::declareTrain(Layer *layer, const ast::TrainDecl *decl) {
  auto poison = [&] {
    declareMember(layer, decl->name, {Member::Kind::Value, {}, nullptr, Value()});
  };
  if (layer != model) {
    error(decl->range, "a train step is declared in a model");
    return poison();
  }
  auto *call = dyn_cast<ast::CallExpr>(decl->value);
  Value maker = call ? evaluateConstant(call->callee, layer->file, layer) : Value::none();
  if (maker.isPoison())
    return poison();
  bool hasFunction = call && !call->arguments.empty() && !call->arguments[0].name;
  if (!maker.is<OptimizerMaker>() || !hasFunction) {
    error(decl->value, "a train step is written 'train " + decl->name.text +
                           " = OPTIMIZER(FUNCTION, settings)'");
    return poison();
  }
  const ast::Expr *trained = call->arguments[0].value;
  Value function = evaluateConstant(trained, layer->file, layer);
  auto *value = function.as<FunctionValue>();
  if (!value || value->owner != layer) {
    if (!function.isPoison())
      error(trained, "a train step trains a function of its model, found " + describe(function));
    return poison();
  }
  SaveAndRestore inDeclaration(declaring, true);
  Value optimizer = makeOptimizer(*maker.as<OptimizerMaker>(), call, /*isStep=*/true);
  if (optimizer.isPoison())
    return poison();
  auto owned = std::make_unique<TrainStep>();
  owned->decl = decl;
  owned->owner = layer;
  owned->function = function;
  owned->functionRange = trained->range;
  owned->optimizer = *optimizer.as<Optimizer *>();
  owned->optimizer->path = decl->name.text.str();
  trainSteps.push_back(std::move(owned));
  declareMember(layer, decl->name, {Member::Kind::Train, {}, nullptr, trainSteps.back().get()});
}

optional<unsigned> Elaborator::findSetting(Optimizer *optimizer, StringRef name) {
  for (auto [i, setting] : llvm::enumerate(optimizer->settings))
    if (setting.name == name)
      return i;
  return nullopt;
}

Variable *Elaborator::slot(Optimizer *optimizer, const std::string &path, DType dtype,
                           ArrayRef<mlir::AffineExpr> shape, const Value &initial, ast::Name name) {
  Variable *&entry = optimizer->slots[path];
  if (entry)
    return entry;
  auto &variable = variables.emplace_back(std::make_unique<Variable>());
  variable->kind = Variable::Kind::Slot;
  variable->path = optimizer->path + "." + path;
  variable->placed = true;
  variable->dtype = dtype;
  variable->shape = Shape(shape.begin(), shape.end());
  variable->initialValue = initial;
  variable->name = name;
  variable->optimizer = optimizer;
  slots.push_back(variable.get());
  return entry = variable.get();
}

Value Elaborator::settingValue(Optimizer *optimizer, unsigned number, SMRange where) {
  const Setting &setting = optimizer->settings[number];
  uint64_t bit = number < 64 ? uint64_t(1) << number : 0;
  auto perStep = [&](const Value &value) -> Value {
    if (value.isPoison())
      return {};
    if (value.number())
      return value;
    mlir::Value tensor = value.asTensor();
    if (tensor && rankOf(tensor) == 0 && dtypeOf(tensor) != DType::Bool)
      return Number::ofValue(convert(tensor, DType::F64, where));
    error(setting.where,
          "the setting '" + setting.name + "' must be one number, found " + describe(value));
    return {};
  };
  if (const Number *known = setting.value.number(); known && known->isKnown()) {
    if (tracksSettings) {
      Number tracked = *known;
      tracked.settings = bit;
      return tracked;
    }
    if (!bit || (optimizer->decided & bit) || function->isInit)
      return *known;
    Variable *variable = slot(optimizer, setting.name.str(), DType::F64, {}, setting.value);
    mlir::Value value = readVariable(variable, where).asTensor();
    return Number::ofValue(value);
  }
  if (setting.value.is<DeferredValue>())
    return perStep(undefer(setting.value, setting.where));
  if (setting.value.layer() || setting.value.is<FunctionValue>() ||
      setting.value.is<BuiltinValue>()) {
    // A schedule: a function of the number of updates so far.
    CallArguments arguments;
    arguments.range = setting.where;
    Number updates = Number::whole(0);
    if (!function->isInit) {
      Variable *count = slot(optimizer, "count", DType::I64, {}, updates);
      mlir::Value now = readVariable(count, where).asTensor();
      updates = Number::ofValue(convert(now, DType::F64, where));
    }
    arguments.positional.push_back(updates);
    return perStep(call(setting.value, arguments));
  }
  return setting.value;
}

struct Elaborator::OptimizerParts {
  llvm::SmallVector<const ast::VariableDecl *> each;
  const ast::PrepareDecl *prepare = nullptr;
  const ast::UpdateDecl *update = nullptr;
};

void Elaborator::collectParts(OptimizerScope &scope, ArrayRef<ast::Decl *> parts,
                              OptimizerParts &into) {
  for (const ast::Decl *part : parts) {
    switch (part->kind) {
    case ast::Decl::Kind::Variable: {
      auto *decl = cast<ast::VariableDecl>(part);
      if (decl->keep == ast::Keep::Each) {
        into.each.push_back(decl);
        break;
      }
      DType dtype;
      Shape shape;
      if (!evaluateVariableType(decl->type, dtype, shape, /*isVar=*/false, decl->range))
        break;
      Value initial = Number::whole(0);
      if (dtype == DType::Bool)
        initial = Value::boolean(false);
      if (decl->initial)
        initial = DeferredValue{decl->initial, scope.optimizer->file, nullptr};
      scope.state[decl->name.text] =
          slot(scope.optimizer, decl->name.text.str(), dtype, shape, initial, decl->name);
      break;
    }
    case ast::Decl::Kind::Const:
      scope.values[part->name.text] = evaluate(cast<ast::ConstDecl>(part)->value);
      break;
    case ast::Decl::Kind::Assert:
      if (!function->isInit)
        checkStatementAssertion(cast<ast::AssertDecl>(part)->assertion);
      break;
    case ast::Decl::Kind::Prepare:
      into.prepare = cast<ast::PrepareDecl>(part);
      break;
    case ast::Decl::Kind::Update:
      into.update = cast<ast::UpdateDecl>(part);
      break;
    case ast::Decl::Kind::If: {
      auto *branch = cast<ast::IfDecl>(part);
      if (optional<bool> condition = evaluateCondition(branch->condition, "if"))
        collectParts(scope, *condition ? branch->thenMembers : branch->elseMembers, into);
      break;
    }
    default:
      error(part->range, "this does not belong in an optimizer");
    }
  }
}

Value Elaborator::initialStateOf(Variable *slot, const ast::Expr *initial) {
  Optimizer *optimizer = slot->optimizer;
  OptimizerScope scope{optimizer, {}, {}, {}};
  Frame own;
  own.file = optimizer->file;
  own.optimizer = &scope;
  own.caller = frame;
  own.call = optimizer->madeAt;
  FrameScope inside(*this, own);
  for (auto [i, setting] : llvm::enumerate(optimizer->settings))
    if (i < optimizer->decl->params.size())
      scope.values[setting.name] = settingValue(optimizer, i, setting.where);
  OptimizerParts parts;
  collectParts(scope, optimizer->decl->parts, parts);
  if (Variable *of = slot->each)
    for (const ast::VariableDecl *decl : parts.each)
      if (Variable *other = optimizer->slots.lookup((decl->name.text + "." + of->path).str()))
        scope.each[decl->name.text] = other;
  own.drawType = slot->dtype;
  own.drawShape = slot->shape;
  return evaluate(initial);
}

bool Elaborator::clipGradients(Optimizer *optimizer, llvm::MutableArrayRef<mlir::Value> gradients,
                               SMRange where) {
  if (optional<unsigned> setting = findSetting(optimizer, "clip_value")) {
    Value limit = settingValue(optimizer, *setting, where);
    if (limit.isPoison())
      return false;
    for (mlir::Value &gradient : gradients) {
      Value upper[] = {Value::tensor(gradient), limit};
      Value lower[] = {elementwise("minimum", upper, where), negate(limit, where)};
      Value clipped = elementwise("maximum", lower, where);
      if (!clipped.asTensor())
        return false;
      gradient = clipped.asTensor();
    }
  }
  if (optional<unsigned> setting = findSetting(optimizer, "clip_norm")) {
    Value limit = settingValue(optimizer, *setting, where);
    if (limit.isPoison())
      return false;
    // The norm of all gradients together, in the model's float.
    DType real = options.f64 ? DType::F64 : DType::F32;
    Value total = Number::whole(0);
    for (mlir::Value gradient : gradients) {
      mlir::Value g = convert(gradient, real, where);
      auto axes = axesOf(nullptr, g, where);
      total = binary(Tok::Plus,
                     Value::tensor(reduce("sum", build("mul", {g, g}, where), *axes, false, where)),
                     total, where);
    }
    Value root[] = {total};
    Value norm = binary(Tok::Plus, elementwise("sqrt", root, where), Number::ofReal(1e-6), where);
    Value factors[] = {binary(Tok::Slash, limit, norm, where), Number::whole(1)};
    mlir::Value factor = elementwise("minimum", factors, where).asTensor();
    if (!factor)
      return false;
    for (mlir::Value &gradient : gradients) {
      mlir::Value scale =
          broadcast(convert(factor, dtypeOf(gradient), where), shapeOf(gradient), where);
      gradient = build("mul", {gradient, scale}, where);
    }
  }
  return true;
}

/// The optimizer's own code: its state, `prepare`, and `update` for each variable. The new values
/// are set at the end.
bool Elaborator::runOptimizer(Optimizer *optimizer, ArrayRef<Variable *> variables,
                              llvm::SmallVector<mlir::Value> gradients, SMRange where) {
  unsigned errors = diagnostics.errorCount();
  if (!clipGradients(optimizer, gradients, where))
    return false;
  OptimizerScope scope{optimizer, {}, {}, {}};
  Frame own;
  own.file = optimizer->file;
  own.optimizer = &scope;
  own.caller = frame;
  own.call = where;
  {
    FrameScope inside(*this, own);
    for (auto [i, setting] : llvm::enumerate(optimizer->settings))
      if (i < optimizer->decl->params.size())
        scope.values[setting.name] = settingValue(optimizer, i, setting.where);
  }
  FrameScope inside(*this, own);
  OptimizerParts parts;
  collectParts(scope, optimizer->decl->parts, parts);
  if (!parts.update) {
    error(optimizer->decl->name.range(),
          "the optimizer '" + optimizer->decl->name.text + "' has no 'update'");
    return false;
  }
  if (parts.prepare)
    runBlock(parts.prepare->block);
  if (diagnostics.errorCount() != errors)
    return false;

  llvm::SmallVector<mlir::Value> updated;
  for (auto [variable, gradient] : llvm::zip_equal(variables, gradients)) {
    Frame update = {};
    update.file = optimizer->file;
    update.optimizer = &scope;
    update.caller = own.caller;
    update.call = where;
    FrameScope updating(*this, update);
    scope.each.clear();
    for (const ast::VariableDecl *decl : parts.each) {
      Variable *kept =
          slot(optimizer, decl->name.text.str() + "." + variable->path, variable->dtype,
               variable->shape, DeferredValue{decl->initial, optimizer->file, nullptr}, decl->name);
      kept->each = variable;
      scope.each[decl->name.text] = kept;
    }
    mlir::Value value = readVariable(variable, where).asTensor();
    update.locals[parts.update->value.text] = Value::tensor(value);
    update.locals[parts.update->gradient.text] = Value::tensor(gradient);
    Value result;
    if (parts.update->body.value) {
      result = evaluate(parts.update->body.value);
    } else {
      runBlock(parts.update->body.block);
      result = update.results.size() == 1 ? update.results[0] : Value::none();
    }
    if (result.isPoison())
      return false;
    mlir::Value next = result.asTensor();
    if (next && dtypeOf(next) == dtypeOf(value))
      next = conform(next, shapeOf(value), "the update of '" + variable->path + "'",
                     parts.update->range);
    if (!next || dtypeOf(next) != dtypeOf(value)) {
      error(parts.update->range, "'update' returns the new value, " + describeType(value) +
                                     " for '" + variable->path + "', found " + describe(result));
      return false;
    }
    updated.push_back(next);
  }
  if (diagnostics.errorCount() != errors)
    return false;
  for (auto [variable, value] : llvm::zip_equal(variables, updated))
    setVariable(variable, value);
  if (Variable *count = optimizer->slots.lookup("count")) {
    mlir::Value one = fill(tensorType({}, DType::I64), Number::whole(1), where);
    setVariable(count, build("add", {readVariable(count, where).asTensor(), one}, where));
  }
  return true;
}

void Elaborator::applyOptimizer(Optimizer *optimizer, ArrayRef<Variable *> variables,
                                llvm::SmallVector<mlir::Value> gradients, SMRange where) {
  if (optimizer->path.empty()) {
    error(optimizer->madeAt,
          "an optimizer that is applied needs a name in the model: its state is called after it");
    return;
  }
  int64_t period = 1;
  if (optional<unsigned> setting = findSetting(optimizer, "accumulate")) {
    const Setting &accumulate = optimizer->settings[*setting];
    optional<int64_t> n = wholeOf(accumulate.value, "'accumulate'", accumulate.where);
    if (!n)
      return;
    if (*n < 1) {
      error(accumulate.where, "'accumulate' must be at least 1, found " + Twine(*n));
      return;
    }
    period = *n;
  }
  // Once for nothing: which settings decide what code there is?
  {
    mlir::Block block;
    FunctionState trial = *function;
    trial.block = trial.checkBlock = &block;
    trial.builder.setInsertionPointToEnd(&block);
    trial.isScratch = true;
    SaveAndRestore inTrial(function, &trial);
    SaveAndRestore tracking(tracksSettings, true);
    SaveAndRestore collected(decidedSettings, uint64_t(0));
    bool succeeded = runOptimizer(optimizer, variables, gradients, where);
    optimizer->decided |= decidedSettings;
    if (!succeeded)
      return;
  }
  if (period == 1) {
    runOptimizer(optimizer, variables, gradients, where);
    return;
  }

  // Gradients add up; at every period-th step their mean updates, else everything keeps its value.
  auto scalar = tensorType({}, DType::I64);
  Variable *turn = slot(optimizer, "turn", DType::I64, {}, Number::whole(0));
  mlir::Value one = fill(scalar, Number::whole(1), where),
              last = fill(scalar, Number::whole(period), where);
  mlir::Value next = build("add", {readVariable(turn, where).asTensor(), one}, where);
  next = build("rem", {next, last}, where);
  mlir::Value zero = fill(scalar, Number::whole(0), where);
  mlir::Value isLast =
      dl::CompareOp::create(builder(), locationOf(where), next, zero, dl::ComparePredicate::eq);
  setVariable(turn, next);
  llvm::SmallVector<mlir::Value> sums;
  llvm::SmallVector<Variable *> sumSlots;
  for (auto [variable, gradient] : llvm::zip_equal(variables, gradients)) {
    sumSlots.push_back(slot(optimizer, "sum." + variable->path, variable->dtype, variable->shape,
                            Number::whole(0)));
    mlir::Value sum =
        build("add", {readVariable(sumSlots.back(), where).asTensor(), gradient}, where);
    sums.push_back(sum);
    mlir::Value count =
        fill(cast<mlir::RankedTensorType>(sum.getType()), Number::whole(period), where);
    gradient = build("div", {sum, count}, where);
  }
  llvm::DenseMap<Variable *, mlir::Value> before = function->current;
  if (!runOptimizer(optimizer, variables, gradients, where))
    return;
  llvm::SmallVector<Variable *> kept(sumSlots);
  kept.push_back(turn);
  changeWhere(isLast, optimizer, variables, before, kept, where);
  for (auto [slot, sum] : llvm::zip_equal(sumSlots, sums)) {
    mlir::Value none = fill(cast<mlir::RankedTensorType>(sum.getType()), Number::whole(0), where);
    setVariable(slot, choose(isLast, none, sum, where));
  }
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

bool Elaborator::placesOf(const ast::Expr *expr, llvm::SetVector<Variable *> &into) {
  auto one = [&](Variable *variable) {
    if (variable->kind != Variable::Kind::Trained) {
      error(expr, "'" + variable->path + "' is not trained: it is declared with 'state'")
          .note(variable->name.range(), "declared here");
      return false;
    }
    into.insert(variable);
    return true;
  };
  if (auto *list = dyn_cast<ast::ListExpr>(expr)) {
    for (const ast::Expr *element : list->elements)
      if (!placesOf(element, into))
        return false;
    return true;
  }
  if (auto *name = dyn_cast<ast::NameExpr>(expr);
      name && frame->owner && !frame->locals.contains(name->name))
    if (auto *member = frame->owner->members.find(name->name);
        member != frame->owner->members.end() && member->second.variable)
      return one(member->second.variable);
  if (auto *field = dyn_cast<ast::FieldExpr>(expr)) {
    Value base = evaluate(field->base);
    if (Layer *layer = base.layer())
      if (auto *member = layer->members.find(field->name.text);
          member != layer->members.end() && member->second.variable)
        return one(member->second.variable);
  }
  if (auto *index = dyn_cast<ast::IndexExpr>(expr);
      index && index->subscripts.size() == 1 && index->subscripts[0].element) {
    Value base = evaluate(index->base);
    if (Layer *layer = base.layer()) {
      Value key = evaluate(index->subscripts[0].element);
      llvm::SetVector<Variable *> all;
      variablesOf(layer, all);
      if (auto *path = key.as<StringValue>())
        for (Variable *variable : all)
          if (variable->path ==
              (layer->path.empty() ? path->text.str() : layer->path + "." + path->text.str()))
            return one(variable);
    }
  }
  if (auto *string = dyn_cast<ast::StringExpr>(expr)) {
    auto pattern = llvm::GlobPattern::create(string->text);
    if (!pattern) {
      error(expr, "the pattern cannot be read: " + llvm::toString(pattern.takeError()));
      return false;
    }
    llvm::SetVector<Variable *> all;
    variablesOf(model, all);
    bool any = false;
    for (Variable *variable : all)
      if (variable->kind == Variable::Kind::Trained && pattern->match(variable->path))
        any = into.insert(variable) || true;
    if (!any)
      error(expr, "no trained variable is called '" + string->text + "'");
    return any;
  }
  Value value = evaluate(expr);
  if (value.isPoison())
    return false;
  if (value.form()) {
    error(expr, "'" + sourceOf(expr->range) +
                    "' is no variable of the model: an optimizer keeps its state beside variables");
    return false;
  }
  if (!isLayerLike(value)) {
    error(expr,
          "expected a variable, a layer, a list of these or a pattern, found " + describe(value));
    return false;
  }
  llvm::SetVector<Variable *> all;
  variablesOf(value, all);
  bool any = false;
  for (Variable *variable : all)
    if (variable->kind == Variable::Kind::Trained)
      any = into.insert(variable) || true;
  if (!any)
    error(expr, "nothing is trained in " + describe(value) +
                    (all.empty() ? ": it has no variables" : ": it is declared with 'state'"));
  return any;
}

Value Elaborator::callTrain(TrainStep *step, CallArguments &arguments) {
  SaveAndRestore mode(modes, modes);
  modes.push_back({/*training=*/true, /*chosen=*/true, /*forced=*/false});
  llvm::DenseMap<Variable *, mlir::Value> before = function->current;
  const FunctionValue &trained = *step->function.as<FunctionValue>();
  Value result = callFunction(trained, arguments);
  if (result.isPoison())
    return {};
  SMRange where = arguments.range.isValid() ? arguments.range : step->decl->value->range;
  auto *list = result.elements();
  Value first = list && !list->empty() ? list->front() : result;
  mlir::Value loss = first.asTensor();
  if (!loss || rankOf(loss) != 0 || !isFloat(dtypeOf(loss))) {
    error(step->functionRange,
          "the first result of a trained function must be one floating-point number, found " +
              describe(first))
        .note(trained.decl->range, "declared here");
    return {};
  }

  // A variable that the function changes was read before: the gradient is of that value.
  auto valueRead = [&](Variable *variable) -> mlir::Value {
    if (auto found = before.find(variable); found != before.end())
      return found->second;
    auto *read = function->entry.find(variable);
    return read == function->entry.end() ? mlir::Value() : read->second;
  };
  llvm::DenseSet<mlir::Value> reached = dependencesOf(loss);
  llvm::SetVector<Variable *> candidates;
  const ast::Expr *only = step->optimizer->only;
  if (only) {
    Frame own;
    own.file = step->owner->file;
    own.owner = step->owner;
    FrameScope scope(*this, own);
    if (!placesOf(only, candidates))
      return {};
  } else {
    variablesOf(step->owner, candidates);
  }
  llvm::SmallVector<Variable *> chosen;
  llvm::SmallVector<mlir::Value> values;
  bool failed = false;
  for (Variable *variable : candidates) {
    if (variable->kind != Variable::Kind::Trained)
      continue;
    mlir::Value value = valueRead(variable);
    if (value && reached.contains(value)) {
      chosen.push_back(variable);
      values.push_back(value);
    } else if (only) {
      error(only, "'" + trained.decl->name.text + "' does not depend on '" + variable->path + "'")
          .note(variable->name.range(), "declared here");
      failed = true;
    }
  }
  if (failed)
    return {};
  if (chosen.empty()) {
    error(step->functionRange, "'" + trained.decl->name.text + "' depends on no trained variable");
    return {};
  }
  if (productType() == DType::F16)
    applyScaled(step->optimizer, loss, chosen, values, where);
  else
    applyOptimizer(step->optimizer, chosen, gradient(loss, values, where), where);
  return result;
}

Value Elaborator::callOptimizer(Optimizer *optimizer, const ast::CallExpr *call) {
  if (declaring || function->isConstant) {
    error(call->range, "an optimizer is applied in a function");
    return {};
  }
  if (call->arguments.size() != 2 || call->arguments[0].name || call->arguments[1].name) {
    error(call->range,
          "an optimizer is applied to what it changes and the gradient of it: 'name(net, g)'");
    return {};
  }
  llvm::SetVector<Variable *> places;
  if (!placesOf(call->arguments[0].value, places))
    return {};
  Value value = evaluate(call->arguments[1].value);
  if (value.isPoison())
    return {};
  llvm::SmallVector<mlir::Value> gradients;
  if (!flattenGradients(value, gradients)) {
    error(call->arguments[1].value, "expected a gradient, found " + describe(value));
    return {};
  }
  auto counted = [](size_t n, StringRef noun) {
    return std::to_string(n) + " " + noun.str() + (n == 1 ? "" : "s");
  };
  if (gradients.size() != places.size()) {
    error(call->range,
          counted(places.size(), "variable") + ", " + counted(gradients.size(), "gradient"));
    return {};
  }
  for (auto [variable, gradient] : llvm::zip_equal(places, gradients)) {
    mlir::Value same;
    if (dtypeOf(gradient) == variable->dtype)
      same = conform(gradient, variable->shape, "the gradient of '" + variable->path + "'",
                     call->range);
    if (!same) {
      error(call->range, "the gradient of '" + variable->path + "' is " +
                             describeType(variable->dtype, variable->shape) + ", found " +
                             describeType(gradient));
      return {};
    }
    gradient = same;
  }
  if (!function->varAssigned)
    function->varAssigned = call->range;
  applyOptimizer(optimizer, llvm::SmallVector<Variable *>(places.begin(), places.end()), gradients,
                 call->range);
  return Value::none();
}
