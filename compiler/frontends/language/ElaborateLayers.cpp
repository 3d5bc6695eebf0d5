//===- ElaborateLayers.cpp - layers as values -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// A layer that is declared has variables; one that is a value of a function (a local copy, the
// result of arithmetic, a derivative) has tensors in the form of a declared one: a LayerForm. It is
// called by running the declared layer with its tensors in place of the variables.
//
//===----------------------------------------------------------------------===//

#include "Elaborator.h"

#include "llvm/Support/SaveAndRestore.h"

using namespace dlc;
using namespace dlc::language;
using llvm::ArrayRef;
using llvm::SaveAndRestore;
using llvm::SMRange;
using llvm::StringRef;
using llvm::Twine;
using std::nullopt;
using std::optional;

bool language::isLayerLike(const Value &value) {
  if (value.layer())
    return true;
  auto *list = value.elements();
  return list && llvm::any_of(*list, isLayerLike);
}

/// Whether there is nothing but layers and functions in it.
static bool appliesInOrder(const Value &value) {
  if (auto *list = value.elements())
    return llvm::all_of(*list, appliesInOrder);
  return value.layer() || value.is<FunctionValue>() || value.is<ExternValue>() ||
         value.is<BuiltinValue>();
}

bool language::isWholeLayer(const Value &value) {
  return isLayerLike(value) && appliesInOrder(value);
}

//===----------------------------------------------------------------------===//
// Forms
//===----------------------------------------------------------------------===//

std::shared_ptr<LayerForm> Elaborator::formOf(const Value &value, SMRange where) {
  if (auto *form = value.as<std::shared_ptr<LayerForm>>())
    return *form;
  if (!isWholeLayer(value))
    return nullptr;
  auto form = std::make_shared<LayerForm>();
  form->form = value;
  form->values = std::make_shared<LayerForm::Values>();
  llvm::SetVector<Variable *> all;
  variablesOf(value, all);
  for (Variable *variable : all) {
    mlir::Value now = readVariable(variable, where).asTensor();
    if (!now)
      return nullptr;
    (*form->values)[variable] = now;
  }
  return form;
}

Value Elaborator::localCopy(const Value &value, SMRange where) {
  if (isWholeLayer(value) || value.form()) {
    std::shared_ptr<LayerForm> form = formOf(value, where);
    if (!form)
      return {};
    auto copy = std::make_shared<LayerForm>(*form);
    copy->values = std::make_shared<LayerForm::Values>(*form->values);
    return copy;
  }
  auto *list = value.elements();
  if (!list)
    return value;
  std::vector<Value> copies;
  for (const Value &element : *list)
    copies.push_back(localCopy(element, where));
  return Value::list(std::move(copies));
}

Value Elaborator::partOf(const LayerForm &form, const Value &part) {
  if (!isWholeLayer(part))
    return part;
  return std::make_shared<LayerForm>(LayerForm{part, form.values, form.isDerivative});
}

optional<std::vector<Value>> Elaborator::elementsOf(const Value &value) {
  if (auto *list = value.elements())
    return *list;
  LayerForm *form = value.form();
  auto *parts = form ? form->form.elements() : nullptr;
  if (!parts)
    return nullopt;
  std::vector<Value> elements;
  for (const Value &part : *parts)
    elements.push_back(partOf(*form, part));
  return elements;
}

Variable *Elaborator::variableNamed(Layer *layer, StringRef path, SMRange where) {
  llvm::SetVector<Variable *> all;
  variablesOf(layer, all);
  std::string whole = layer->path.empty() ? path.str() : layer->path + "." + path.str();
  for (Variable *variable : all)
    if (variable->path == whole)
      return variable;
  error(where, "the layer '" + layer->name() + "' has no variable '" + path + "'");
  return nullptr;
}

//===----------------------------------------------------------------------===//
// Layers of one kind
//===----------------------------------------------------------------------===//

namespace {
/// Walks two layers side by side.
struct Pairing {
  llvm::MapVector<Variable *, Variable *> pairs;
  llvm::DenseSet<std::pair<Layer *, Layer *>> seen;
  std::string why;

  bool differ(const Twine &words) {
    why = words.str();
    return false;
  }

  bool variables(Variable *a, Variable *b) {
    if (a->dtype != b->dtype || a->shape != b->shape)
      return differ("their variables '" + a->name.text + "' have different types");
    auto [entry, isNew] = pairs.try_emplace(a, b);
    return isNew || entry->second == b ||
           differ("'" + a->name.text + "' is shared in one of them alone");
  }

  bool layers(Layer *a, Layer *b) {
    if (!seen.insert({a, b}).second)
      return true;
    if (a->decl != b->decl)
      return differ("one is made of '" + a->name() + "', the other of '" + b->name() + "'");
    if (a->members.size() != b->members.size())
      return differ("the settings of '" + a->name() + "' give them different members");
    for (auto &[name, member] : a->members) {
      auto *other = b->members.find(name);
      if (other == b->members.end() || !member.variable != !other->second.variable)
        return differ("the settings of '" + a->name() + "' give them different members");
      if (member.variable ? !variables(member.variable, other->second.variable)
                          : !values(member.value, other->second.value))
        return false;
    }
    for (auto &[name, param] : a->params)
      if (auto *other = b->params.find(name); other != b->params.end())
        if (!values(param, other->second))
          return false;
    return true;
  }

  /// Of everything but layers any two will do: what has no variables is the target's own.
  bool values(const Value &a, const Value &b) {
    if (isLayerLike(a) != isLayerLike(b))
      return differ("one has a layer where the other has none");
    if (!isLayerLike(a))
      return true;
    if (a.layer() && b.layer())
      return layers(a.layer(), b.layer());
    auto *x = a.elements(), *y = b.elements();
    if (!x || !y)
      return differ("one has a layer where the other has a list");
    if (x->size() != y->size())
      return differ("one is a list of " + Twine(x->size()) + ", the other of " + Twine(y->size()));
    for (auto [p, q] : llvm::zip_equal(*x, *y))
      if (!values(p, q))
        return false;
    return true;
  }
};
} // namespace

optional<Elaborator::VariablePairs> Elaborator::pairVariables(const Value &a, const Value &b,
                                                              std::string &why) {
  Pairing pairing;
  if (pairing.values(a, b))
    return std::move(pairing.pairs);
  why = pairing.why;
  return nullopt;
}

//===----------------------------------------------------------------------===//
// Arithmetic and assignment
//===----------------------------------------------------------------------===//

Value Elaborator::mapVariables(ArrayRef<Value> operands, StringRef what, SMRange where,
                               llvm::function_ref<Value(llvm::MutableArrayRef<Value>)> operation) {
  llvm::SmallVector<std::shared_ptr<LayerForm>> forms; // null: a number
  std::shared_ptr<LayerForm> first;
  for (const Value &operand : operands) {
    mlir::Value tensor = operand.asTensor();
    if (operand.number() || (tensor && rankOf(tensor) == 0)) {
      forms.push_back(nullptr);
      continue;
    }
    if (!isWholeLayer(operand) && !operand.form()) {
      error(where, what + " of a layer and " + describe(operand) +
                       ": a layer goes with layers of its kind and with one number");
      return {};
    }
    if (declaring) {
      error(where, what + " of layers belongs in a function: a declaration has no values yet")
          .note(where, "'copy(net)' makes a layer that starts equal");
      return {};
    }
    forms.push_back(formOf(operand, where));
    if (!forms.back())
      return {};
    if (!first)
      first = forms.back();
  }
  llvm::SmallVector<VariablePairs> pairs(forms.size());
  bool isDerivative = true;
  for (auto [form, pair] : llvm::zip_equal(forms, pairs)) {
    if (!form)
      continue;
    isDerivative &= form->isDerivative;
    std::string why;
    optional<VariablePairs> found = pairVariables(first->form, form->form, why);
    if (!found) {
      error(where, what + " of layers of different kinds: " + why);
      return {};
    }
    pair = std::move(*found);
  }

  auto result = std::make_shared<LayerForm>();
  result->form = first->form;
  result->values = std::make_shared<LayerForm::Values>();
  result->isDerivative = isDerivative;
  llvm::SetVector<Variable *> all;
  variablesOf(first->form, all);
  for (Variable *variable : all) {
    llvm::SmallVector<Value> values;
    mlir::Value last; // of the layers
    for (auto [operand, form, pair] : llvm::zip_equal(operands, forms, pairs)) {
      if (!form) {
        values.push_back(operand);
        continue;
      }
      mlir::Value value = form->values->lookup(pair.lookup(variable));
      // A derivative has nothing where nothing depends on a variable: it is 0 there.
      values.push_back(value ? Value::tensor(value) : Value(Number::whole(0)));
      if (value)
        last = value;
    }
    if (!last)
      continue;
    if (!isFloat(variable->dtype)) {
      (*result->values)[variable] = last;
      continue;
    }
    Value value = operation(values);
    if (value.isPoison())
      return {};
    mlir::Value tensor = fit(value, variable->dtype, variable->shape,
                             ("'" + variable->name.text + "'").str(), where);
    if (!tensor)
      return {};
    (*result->values)[variable] = tensor;
  }
  return result;
}

void Elaborator::storeInForm(LayerForm &form, Variable *variable, const Value &value,
                             SMRange where) {
  if (value.isPoison())
    return;
  if (mlir::Value tensor = fit(value, variable->dtype, variable->shape,
                               ("'" + variable->name.text + "'").str(), where))
    (*form.values)[variable] = tensor;
}

void Elaborator::assignLayer(const Value &target, const Value &value, SMRange where) {
  if (target.isPoison() || value.isPoison())
    return;
  LayerForm *local = target.form();
  const Value &form = local ? local->form : target;
  if (!isWholeLayer(value) && !value.form()) {
    error(where, describe(target) + " cannot become " + describe(value));
    return;
  }
  std::shared_ptr<LayerForm> source = formOf(value, where);
  if (!source)
    return;
  std::string why;
  optional<VariablePairs> pairs = pairVariables(form, source->form, why);
  if (!pairs) {
    error(where, describe(target) + " and " + describe(value) + " are of different kinds: " + why);
    return;
  }
  // All values before the first changes: the source may be made of the target.
  llvm::SmallVector<std::pair<Variable *, mlir::Value>> values;
  for (auto &[variable, from] : *pairs)
    if (mlir::Value now = source->values->lookup(from))
      values.emplace_back(variable, now);
  for (auto [variable, now] : values)
    if (local)
      (*local->values)[variable] = now;
    else
      store(variable, Value::tensor(now), where);
}

Value Elaborator::callForm(LayerForm &form, CallArguments &arguments) {
  if (form.isDerivative) {
    error(arguments.range, "the derivatives of a layer cannot be called");
    return {};
  }
  // The declared layer runs on other values; what it changes are these.
  LayerForm::Values before = function->current;
  llvm::SetVector<Variable *> assigned = function->assigned;
  optional<SMRange> varAssigned = function->varAssigned;
  for (auto &[variable, value] : *form.values) {
    function->current[variable] = value;
    function->assigned.insert(variable); // so that branches and loops carry it
  }
  Value result = call(form.form, arguments);
  for (auto &[variable, value] : *form.values) {
    value = function->current.lookup(variable);
    if (auto old = before.find(variable); old != before.end())
      function->current[variable] = old->second;
    else
      function->current.erase(variable);
  }
  for (Variable *variable : function->assigned)
    if (variable->kind == Variable::Kind::Printed)
      assigned.insert(variable);
  function->assigned = std::move(assigned);
  function->varAssigned = varAssigned;
  return result;
}

//===----------------------------------------------------------------------===//
// Copies
//===----------------------------------------------------------------------===//

Value Elaborator::copyLayers(const Value &value, llvm::DenseMap<Layer *, Layer *> &copies,
                             SMRange where) {
  if (auto *list = value.elements()) {
    std::vector<Value> elements;
    for (const Value &element : *list)
      elements.push_back(copyLayers(element, copies, where));
    return Value::list(std::move(elements));
  }
  if (auto *function = value.as<FunctionValue>()) {
    Layer *owner = copies.lookup(function->owner);
    return FunctionValue{function->decl, function->file, owner ? owner : function->owner};
  }
  if (auto *deferred = value.as<DeferredValue>()) {
    Layer *owner = copies.lookup(deferred->owner);
    return DeferredValue{deferred->expr, deferred->file, owner ? owner : deferred->owner};
  }
  Layer *from = value.layer();
  if (!from)
    return value;
  Layer *&known = copies[from];
  if (known)
    return known;
  layers.push_back(std::make_unique<Layer>());
  Layer *to = known = layers.back().get();
  to->decl = from->decl;
  to->file = from->file;
  to->madeAt = where;
  to->frozen = from->frozen;
  for (auto &[name, param] : from->params)
    to->params[name] = copyLayers(param, copies, where);
  for (auto &[name, member] : from->members) {
    Member copy = member;
    if (member.variable) {
      variables.push_back(std::make_unique<Variable>());
      copy.variable = variables.back().get();
      const Variable &original = *member.variable;
      copy.variable->kind = original.kind;
      copy.variable->dtype = original.dtype;
      copy.variable->shape = original.shape;
      copy.variable->name = original.name;
      copy.variable->doc = original.doc;
      copy.variable->owner = to;
      copy.variable->copyOf = member.variable;
    } else {
      copy.value = copyLayers(member.value, copies, where);
    }
    to->members[name] = copy;
  }
  return to;
}

Value Elaborator::callCopy(StringRef name, CallArguments &arguments) {
  llvm::SmallVector<Value *> values;
  if (!bindNames(arguments, "'copy'", {"layer"}, 1, values))
    return {};
  SMRange where = arguments.range;
  if (!isWholeLayer(*values[0]) && !values[0]->form()) {
    error(where, "'copy' makes a layer of a layer, found " + describe(*values[0]));
    return {};
  }
  if (!declaring)
    return localCopy(*values[0], where);
  llvm::DenseMap<Layer *, Layer *> copies;
  return copyLayers(*values[0], copies, where);
}
