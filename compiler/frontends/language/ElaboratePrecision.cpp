//===- ElaboratePrecision.cpp - a model's precision, and losses scaled for it -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// The precision is a property of the model, and a pass rounds by it. What is said of it here is
// where it is declared, and that a train step scales its loss where products are of f16, whose
// smallest numbers many gradients lie below (Micikevicius et al., "Mixed Precision Training", 2018).
//
//===----------------------------------------------------------------------===//

#include "Elaborator.h"

using namespace dlc;
using namespace dlc::language;
using llvm::ArrayRef;
using llvm::SMRange;
using llvm::StringRef;
using std::nullopt;
using std::optional;

void Elaborator::declarePrecision(Layer *layer, const ast::PrecisionDecl *decl) {
  StringRef name = decl->name.text;
  if (layer != model) {
    error(decl->range, "the precision is declared in a model, for all of its products");
  } else if (name != "bf16" && name != "f16" && name != "f32") {
    error(decl->name.range(), "the precision is bf16, f16 or f32, not '" + name + "'");
  } else if (precision) {
    error(decl->range, "the precision is declared twice, as '" + precision->name.text +
                           "' and as '" + name + "'")
        .note(precision->range, "declared here");
  } else {
    precision = decl;
  }
}

optional<DType> Elaborator::productType() const {
  // In f64 products are what the derivatives of a program are checked with.
  if (!precision || options.f64 || precision->name.text == "f32")
    return nullopt;
  return precision->name.text == "f16" ? DType::F16 : DType::BF16;
}

mlir::Value Elaborator::choose(mlir::Value condition, mlir::Value whenTrue, mlir::Value whenFalse,
                               SMRange where) {
  condition = broadcast(condition, shapeOf(whenTrue), where);
  return build("select", {condition, whenTrue, whenFalse}, where, {}, whenTrue.getType());
}

void Elaborator::changeWhere(mlir::Value condition, Optimizer *optimizer,
                             ArrayRef<Variable *> variables,
                             const llvm::DenseMap<Variable *, mlir::Value> &before,
                             ArrayRef<Variable *> others, SMRange where) {
  llvm::SetVector<Variable *> changed(variables.begin(), variables.end());
  for (Variable *variable : function->assigned)
    if (variable->optimizer == optimizer && !llvm::is_contained(others, variable))
      changed.insert(variable);
  for (Variable *variable : changed) {
    mlir::Value old = before.lookup(variable);
    if (!old) {
      auto *read = function->entry.find(variable);
      old = read == function->entry.end() ? readVariable(variable, where).asTensor() : read->second;
    }
    mlir::Value now = function->current[variable];
    if (now != old)
      setVariable(variable, choose(condition, now, old, where));
  }
}

/// The numbers are those of torch.amp.GradScaler.
static constexpr int64_t firstScale = 65536, goodStepsToGrow = 2000;
static constexpr double growth = 2, backoff = 0.5;

void Elaborator::applyScaled(Optimizer *optimizer, mlir::Value loss, ArrayRef<Variable *> variables,
                             ArrayRef<mlir::Value> values, SMRange where) {
  auto infinity = [&](mlir::Value like) {
    return dl::FillOp::create(builder(), locationOf(where),
                              llvm::cast<mlir::RankedTensorType>(like.getType()),
                              std::numeric_limits<double>::infinity());
  };
  auto isLess = [&](mlir::Value a, mlir::Value b) -> mlir::Value {
    return dl::CompareOp::create(builder(), locationOf(where), a, b, dl::ComparePredicate::lt);
  };
  auto number = [&](DType dtype, Number n) { return fill(tensorType({}, dtype), n, where); };
  Variable *scaleVariable =
      slot(optimizer, "loss_scale", DType::F32, {}, Number::whole(firstScale));
  Variable *goodVariable = slot(optimizer, "good_steps", DType::I64, {}, Number::whole(0));
  mlir::Value scale = readVariable(scaleVariable, where).asTensor();
  mlir::Value good = readVariable(goodVariable, where).asTensor();
  mlir::Value scaled = build("mul", {loss, convert(scale, dtypeOf(loss), where)}, where);
  mlir::Value inverse = build("div", {number(DType::F32, Number::whole(1)), scale}, where);

  llvm::SmallVector<mlir::Value> gradients = gradient(scaled, values, where);
  mlir::Value finite; // all elements of all of them
  for (mlir::Value &gradient : gradients) {
    mlir::Value factor =
        broadcast(convert(inverse, dtypeOf(gradient), where), shapeOf(gradient), where);
    gradient = build("mul", {gradient, factor}, where);
    mlir::Value each = isLess(build("abs", gradient, where), infinity(gradient));
    mlir::Value all = reduce("all", each, *axesOf(nullptr, each, where), false, where);
    finite = finite ? build("and", {finite, all}, where) : all;
  }
  llvm::DenseMap<Variable *, mlir::Value> before = function->current;
  applyOptimizer(optimizer, llvm::SmallVector<Variable *>(variables), gradients, where);
  changeWhere(finite, optimizer, variables, before, {scaleVariable, goodVariable}, where);

  // The scale grows after so many good steps, if there is a larger one, and shrinks after a bad one.
  mlir::Value next = build("add", {good, number(DType::I64, Number::whole(1))}, where);
  mlir::Value enough = number(DType::I64, Number::whole(goodStepsToGrow));
  mlir::Value isBelow = isLess(next, enough), none = number(DType::I64, Number::whole(0));
  auto times = [&](double factor) {
    return build("mul", {scale, number(DType::F32, Number::ofReal(factor))}, where);
  };
  mlir::Value larger = times(growth);
  larger = choose(isLess(larger, infinity(larger)), larger, scale, where);
  setVariable(scaleVariable, choose(finite, choose(isBelow, scale, larger, where),
                                    times(backoff), where));
  mlir::Value keeps = build("and", {finite, isBelow}, where);
  setVariable(goodVariable, choose(keeps, next, none, where));
}
