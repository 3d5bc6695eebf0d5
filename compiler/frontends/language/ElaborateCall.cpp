//===- ElaborateCall.cpp - calls, their arguments and results -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
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
using std::nullopt;
using std::optional;

static constexpr unsigned callLimit = 200;

bool CallArguments::poisoned() const {
  return llvm::any_of(positional, [](const Value &value) { return value.isPoison(); }) ||
         llvm::any_of(named, [](auto &entry) { return entry.second.isPoison(); });
}

optional<CallArguments> Elaborator::evaluateArguments(const ast::CallExpr *call, bool keepDraw) {
  // What a draw takes from a declared name goes through elementwise functions only.
  SaveAndRestore drawType(frame->drawType, keepDraw ? frame->drawType : nullopt);
  CallArguments arguments;
  arguments.range = call->range;
  for (const ast::Argument &argument : call->arguments) {
    Value value = evaluate(argument.value);
    if (!argument.name) {
      if (!arguments.named.empty())
        error(argument.value, "an argument without a name follows one with a name");
      arguments.positional.push_back(std::move(value));
      arguments.places.push_back(argument.value->range);
    } else {
      arguments.named.emplace_back(argument.name, std::move(value));
    }
  }
  if (arguments.poisoned())
    return nullopt;
  return arguments;
}

Value Elaborator::evaluateCall(const ast::CallExpr *expr) {
  Value callee = evaluate(expr->callee);
  if (callee.isPoison()) {
    for (const ast::Argument &argument : expr->arguments)
      evaluate(argument.value); // for the errors in them
    return {};
  }
  if (auto *optimizer = callee.as<Optimizer *>())
    return callOptimizer(*optimizer, expr);
  if (auto *maker = callee.as<OptimizerMaker>())
    return makeOptimizer(*maker, expr, /*isStep=*/false);
  auto *builtin = callee.as<BuiltinValue>();
  bool keepDraw =
      builtin &&
      (mlir::RegisteredOperationName::lookup(("dl." + builtin->name).str(), &context).has_value() ||
       builtin->name == "where" || builtin->name == "clip");
  optional<CallArguments> arguments = evaluateArguments(expr, keepDraw);
  if (!arguments)
    return {};
  return call(callee, *arguments);
}

Value Elaborator::call(const Value &callee, CallArguments &arguments) {
  if (callee.isPoison())
    return {};
  // `training = …` chooses the mode of one call of a layer, a list of layers or a function.
  bool takesMode =
      callee.layer() || callee.elements() || callee.form() || callee.is<FunctionValue>();
  SaveAndRestore mode(modes, modes);
  if (takesMode) {
    auto *named =
        llvm::find_if(arguments.named, [](auto &entry) { return entry.first.text == "training"; });
    auto *function = callee.as<FunctionValue>();
    bool isArgument = function && llvm::any_of(function->decl->args, [](const ast::Arg &arg) {
                        return arg.name.text == "training";
                      });
    if (named != arguments.named.end() && !isArgument) {
      optional<bool> training = boolOf(named->second, "'training'", arguments.range);
      if (!training)
        return {};
      modes.push_back({*training, /*chosen=*/true, /*forced=*/true});
      arguments.named.erase(named);
    }
  }
  if (auto *dtype = callee.as<DType>())
    return callConversion(*dtype, arguments);
  if (auto *builtin = callee.as<BuiltinValue>())
    return callBuiltin(builtin->name, arguments);
  if (auto *maker = callee.as<LayerMaker>())
    return makeLayer(*maker, arguments);
  if (Layer *layer = callee.layer())
    return callLayer(layer, arguments);
  if (auto *function = callee.as<FunctionValue>())
    return callFunction(*function, arguments);
  if (auto *function = callee.as<ExternValue>())
    return callExtern(*function, arguments);
  if (auto *step = callee.as<TrainStep *>())
    return callTrain(*step, arguments);
  if (LayerForm *form = callee.form())
    return callForm(*form, arguments);
  if (auto *checkpointed = callee.as<std::shared_ptr<Checkpointed>>())
    return callCheckpointed((*checkpointed)->callee, arguments);
  if (auto *list = callee.elements()) {
    // A list of layers and functions is a layer that applies them in order.
    for (const Value &element : *list) {
      Value result = call(element, arguments);
      if (result.isPoison())
        return {};
      arguments.named.clear();
      arguments.positional.assign(1, result);
    }
    if (list->empty() && arguments.positional.size() != 1) {
      error(arguments.range, "an empty list of layers takes one argument");
      return {};
    }
    return arguments.positional[0];
  }
  error(arguments.range, describe(callee) + " cannot be called");
  return {};
}

Value Elaborator::callCheckpointed(const Value &callee, CallArguments &arguments) {
  mlir::Block *block = builder().getInsertionBlock();
  mlir::Operation *before = block->empty() ? nullptr : &block->back();
  Value result = call(callee, arguments);
  // What a variable's value is at entry is nothing that is computed. Of calls in each other the
  // outermost counts.
  auto number = builder().getI64IntegerAttr(++function->checkpoints);
  for (mlir::Operation *op = before ? before->getNextNode() : block->empty() ? nullptr : &block->front();
       op; op = op->getNextNode())
    if (!llvm::isa<dl::ReadOp>(op))
      op->setAttr(dl::checkpointAttrName, number);
  return result;
}

Value Elaborator::callLayer(Layer *layer, CallArguments &arguments) {
  auto *member = layer->members.find("");
  if (member == layer->members.end()) {
    error(arguments.range,
          "the layer '" + layer->name() + "' has no function without a name: it cannot be called")
        .note(layer->decl->name.range(), "declared here");
    return {};
  }
  return callFunction(*member->second.value.as<FunctionValue>(), arguments);
}

bool Elaborator::bindNames(CallArguments &arguments, const Twine &what, ArrayRef<StringRef> names,
                           unsigned required, llvm::SmallVectorImpl<Value *> &into) {
  into.assign(names.size(), nullptr);
  std::string who = what.str();
  if (arguments.positional.size() > names.size()) {
    error(arguments.range, who + " takes " + Twine(names.size()) +
                               (names.size() == 1 ? " argument, " : " arguments, ") +
                               Twine(arguments.positional.size()) + " given");
    return false;
  }
  for (auto [i, value] : llvm::enumerate(arguments.positional))
    into[i] = &value;
  for (auto &[name, value] : arguments.named) {
    auto *found = llvm::find(names, name.text);
    if (found == names.end()) {
      error(name.range(),
            who + " has no argument '" + name.text + "'" + didYouMean(name.text, names));
      return false;
    }
    Value *&slot = into[found - names.begin()];
    if (slot) {
      error(name.range(), who + ": '" + name.text + "' is given twice");
      return false;
    }
    slot = &value;
  }
  for (unsigned i = 0; i < required; ++i)
    if (!into[i]) {
      error(arguments.range, who + ": argument '" + names[i] + "' is missing");
      return false;
    }
  return true;
}

optional<std::vector<Value>> Elaborator::bindArguments(llvm::ArrayRef<ast::Arg> declared,
                                                       CallArguments &arguments, StringRef function,
                                                       Frame &callee) {
  llvm::SmallVector<StringRef> names;
  for (const ast::Arg &arg : declared)
    names.push_back(arg.name.text);
  llvm::SmallVector<Value *> values;
  if (!bindNames(arguments, function, names, 0, values))
    return nullopt;
  for (auto [arg, value] : llvm::zip_equal(declared, values))
    if (!value && !arg.initial) {
      error(arguments.range, function + ": argument '" + arg.name.text + "' is missing")
          .note(arg.name.range(), "declared here");
      return nullopt;
    }
  FrameScope scope(*this, callee);
  std::vector<Value> given;
  for (auto [arg, value] : llvm::zip_equal(declared, values)) {
    Value bound = value ? *value : evaluate(arg.initial);
    if (!bound.isPoison())
      bound = bindArgument(arg, bound, function, arguments.range, callee);
    if (bound.isPoison())
      return nullopt;
    callee.locals[arg.name.text] = bound;
    given.push_back(bound);
  }
  return given;
}

Value Elaborator::callFunction(const FunctionValue &callee, CallArguments &arguments) {
  const ast::FnDecl *fn = callee.decl;
  std::string name =
      fn->name ? ("'" + fn->name.text + "'").str() : ("layer '" + callee.owner->name() + "'").str();
  for (Frame *at = frame; at; at = at->caller)
    if (at->fn == fn && at->owner == callee.owner) {
      error(arguments.range, name + " calls itself; functions are inlined")
          .note(fn->range, "declared here");
      return {};
    }
  if (calls >= callLimit) {
    error(arguments.range, "calls lie more than " + Twine(callLimit) + " deep in each other");
    return {};
  }
  SaveAndRestore counted(calls, calls + 1);
  SaveAndRestore mode(modes, modes);
  if (fn->train)
    modes.push_back({/*training=*/true, /*chosen=*/true, /*forced=*/false});
  else if (callee.owner && callee.owner->frozen && !modes.back().forced)
    modes.push_back({/*training=*/false, /*chosen=*/true, /*forced=*/false});

  Frame own;
  own.file = callee.file;
  own.owner = callee.owner;
  own.fn = fn;
  own.caller = frame;
  own.call = arguments.range;
  Value result;
  optional<std::vector<Value>> given = bindArguments(fn->args, arguments, name, own);
  if (!given)
    return {};
  {
    FrameScope scope(*this, own);
    if (fn->body.value) {
      result = evaluate(fn->body.value);
      if (result.isNone() && own.returned)
        result = {};
    } else {
      runBlock(fn->body.block);
      result = Value::none();
    }
    if (own.returned) {
      if (own.results.size() == 1)
        result = own.results[0];
      else if (own.results.empty())
        result = Value::none();
      else
        result = Value::list(own.results);
    }
    if (result.isPoison() ||
        (result.elements() &&
         llvm::any_of(*result.elements(), [](const Value &element) { return element.isPoison(); })))
      return {};
    result = checkResults(fn, std::move(result), arguments.range);
  }
  if (!fn->gradient || result.isPoison())
    return result;
  return withGradient({fn, callee.owner, name, fn->gradient, callee.file, fn->args},
                      std::move(result), *given, arguments.range);
}

//===----------------------------------------------------------------------===//
// Types of arguments and results
//===----------------------------------------------------------------------===//

optional<DType> Elaborator::evaluateDType(const ast::Type *type) {
  Value value = lookup(type->dtype.text, type->dtype.range());
  if (auto *dtype = value.as<DType>())
    return *dtype;
  if (!value.isPoison())
    error(type->dtype.range(), "'" + type->dtype.text + "' is not a type");
  return nullopt;
}

optional<std::pair<DType, Shape>> Elaborator::evaluateType(const ast::Type *type) {
  optional<DType> dtype = evaluateDType(type);
  Shape shape;
  bool failed = !dtype;
  for (const ast::Dim &dim : type->dims) {
    if (!dim.size) {
      if (!frame->ellipsis) {
        error(dim.range, "'...' stands for no dimensions here");
        failed = true;
        continue;
      }
      shape.append(frame->ellipsis->begin(), frame->ellipsis->end());
      continue;
    }
    mlir::AffineExpr size = sizeOf(evaluate(dim.size), dim.range);
    failed |= !size;
    shape.push_back(size);
  }
  if (failed)
    return nullopt;
  return std::make_pair(*dtype, shape);
}

static bool isBound(StringRef name, const Frame &frame) {
  return frame.locals.contains(name) ||
         (frame.owner &&
          (frame.owner->params.contains(name) || frame.owner->members.contains(name))) ||
         (frame.file && frame.file->decls.contains(name));
}

bool Elaborator::bindShape(const ast::Type *type, Shape &shape, StringRef what, SMRange at,
                           Frame &own) {
  auto refuse = [&, found = shape](const Twine &why) {
    error(at,
          what + " has shape " + describeShape(found) + ", declared " + sourceOf(type->range) + why)
        .note(type->range, "declared here");
    return false;
  };
  std::string words = (what + ", declared " + sourceOf(type->range)).str();
  auto bindOne = [&](const ast::Dim &dim, mlir::AffineExpr &size) {
    auto *name = dyn_cast<ast::NameExpr>(dim.size);
    if (name && !isBound(name->name, own)) {
      own.locals[name->name] = Number::ofSize(size);
      return true;
    }
    Value value = evaluate(dim.size);
    mlir::AffineExpr wanted = sizeOf(value, dim.range);
    if (!wanted)
      return false;
    if (equalSizes(wanted, size, words, at)) {
      size = wanted;
      return true;
    }
    std::string source = sourceOf(dim.range).str(), is = dl::sizeToString(wanted, dimNames),
                found = dl::sizeToString(size, dimNames);
    return refuse(": size " + Twine(source == is ? "" : source + " = ") + is + ", found " + found);
  };

  auto *dots = llvm::find_if(type->dims, [](const ast::Dim &dim) { return !dim.size; });
  bool ellipsis = dots != type->dims.end();
  size_t count = type->dims.size();
  if (ellipsis ? shape.size() + 1 < count : shape.size() != count)
    return refuse("; it has " + Twine(ellipsis ? count - 1 : count) + (ellipsis ? " or more" : "") +
                  (count - ellipsis == 1 ? " dimension" : " dimensions"));
  if (!ellipsis) {
    for (auto [dim, size] : llvm::zip_equal(type->dims, shape))
      if (!bindOne(dim, size))
        return false;
    return true;
  }
  size_t before = dots - type->dims.begin(), after = count - before - 1;
  Shape middle(shape.begin() + before, shape.end() - after);
  if (own.ellipsis) {
    bool fits = own.ellipsis->size() == middle.size();
    for (size_t i = 0; fits && i < middle.size(); ++i)
      fits = equalSizes((*own.ellipsis)[i], middle[i], words, at);
    if (!fits)
      return refuse("; '...' is " + Twine(describeShape(*own.ellipsis)) + " and " +
                    describeShape(middle));
    llvm::copy(*own.ellipsis, shape.begin() + before);
  } else {
    own.ellipsis = middle;
  }
  for (size_t i = 0; i < count; ++i) {
    if (i == before)
      continue;
    if (!bindOne(type->dims[i], i < before ? shape[i] : shape[shape.size() - (count - i)]))
      return false;
  }
  return true;
}

Value Elaborator::bindArgument(const ast::Arg &arg, const Value &value, StringRef name, SMRange at,
                               Frame &own) {
  if (!arg.type)
    return value;
  if (!at.isValid())
    at = arg.name.range();
  std::string what = ("argument '" + arg.name.text + "' of " + name).str();
  optional<DType> dtype = evaluateDType(arg.type);
  if (!dtype)
    return {};
  mlir::Value tensor;
  Shape shape;
  if (auto *number = value.number()) {
    // A number that meets a declared type takes it; it has no dimensions.
    if (!bindShape(arg.type, shape, what, at, own))
      return {};
    tensor = materialize(*number, *dtype, {}, at);
  } else if (auto *truth = value.as<BoolValue>(); truth && *dtype == DType::Bool) {
    if (!bindShape(arg.type, shape, what, at, own))
      return {};
    tensor = fill(tensorType({}, DType::Bool), Number::whole(truth->value), at);
  } else {
    tensor = value.asTensor();
    if (value.is<std::shared_ptr<ArrayValue>>())
      tensor = toTensor(value, at);
    if (!tensor || dtypeOf(tensor) != *dtype) {
      error(at, what + " is " + sourceOf(arg.type->range) + ", found " + describe(value))
          .note(arg.type->range, "declared here");
      return {};
    }
    shape = shapeOf(tensor);
    if (!bindShape(arg.type, shape, what, at, own))
      return {};
    tensor = assumeShape(tensor, shape, at);
  }
  return tensor ? Value::tensor(tensor) : Value();
}

std::vector<Elaborator::ResultDecl> Elaborator::resultsOf(const ast::FnDecl *fn, FileScope *file,
                                                          Layer *owner) {
  std::vector<ResultDecl> results;
  for (const ast::Result &result : fn->results) {
    StringRef word = result.type->dtype.text;
    // A lone word is a type if it names one, else the result's name.
    bool isType = result.name || !result.type->scalar || dtypeNamed(word).has_value();
    if (!isType && owner)
      if (auto *param = owner->params.find(word); param != owner->params.end())
        isType = param->second.is<DType>();
    if (isType)
      results.push_back({result.name.text, result.type, result.type->range});
    else
      results.push_back({word, nullptr, result.type->range});
  }
  return results;
}

Value Elaborator::checkResults(const ast::FnDecl *fn, Value value, SMRange where) {
  if (!fn->hasResults)
    return value;
  std::vector<ResultDecl> declared = resultsOf(fn, frame->file, frame->owner);
  std::vector<Value> values;
  if (declared.size() == 1 && !value.isNone())
    values.push_back(value);
  else if (auto *list = value.elements())
    values = *list;
  else if (!value.isNone())
    values.push_back(value);
  std::string name = fn->name ? ("'" + fn->name.text + "'").str() : "this function";
  auto counted = [](size_t n) { return std::to_string(n) + (n == 1 ? " result" : " results"); };
  if (values.size() != declared.size() ||
      (declared.size() == 1 && values[0].elements() && !isLayerLike(values[0]))) {
    size_t found =
        values.size() == 1 && values[0].elements() ? values[0].elements()->size() : values.size();
    error(SMRange(declared.front().range.Start, declared.back().range.End),
          name + " declares " + counted(declared.size()) + " and returns " + counted(found));
    return {};
  }
  bool failed = false;
  for (auto [result, value] : llvm::zip_equal(declared, values)) {
    if (!result.type)
      continue;
    mlir::Value tensor = value.asTensor();
    // A size that no argument has bound is the result's own.
    bool isOpen = llvm::any_of(result.type->dims, [&](const ast::Dim &dim) {
      auto *size = dim.size ? dyn_cast<ast::NameExpr>(dim.size) : nullptr;
      return dim.size ? size && !isBound(size->name, *frame) : !frame->ellipsis;
    });
    if (isOpen && tensor) {
      Shape shape = shapeOf(tensor);
      if (!bindShape(result.type, shape, "the result of " + name, result.range, *frame)) {
        failed = true;
        continue;
      }
    }
    optional<std::pair<DType, Shape>> type = evaluateType(result.type);
    if (!type) {
      failed = true;
      continue;
    }
    if (tensor) {
      std::string types = name + " declares the result " + describeType(type->first, type->second) +
                          " and returns " + describeType(tensor);
      bool isType = dtypeOf(tensor) == type->first;
      tensor = isType ? conform(tensor, type->second, types, result.range) : mlir::Value();
      if (!tensor)
        error(result.range, types);
    } else {
      tensor = fit(value, type->first, type->second, "the result of " + name, result.range);
    }
    failed |= !tensor;
    if (tensor)
      value = Value::tensor(tensor);
  }
  if (failed)
    return {};
  return declared.size() == 1 ? values[0] : Value::list(std::move(values));
}

Value Elaborator::callConversion(DType dtype, CallArguments &arguments) {
  llvm::SmallVector<Value *> values;
  if (!bindNames(arguments, "'" + nameOf(dtype) + "'", {"x"}, 1, values))
    return {};
  SMRange where = arguments.range;
  Value value = *values[0];
  if (auto *truth = value.as<BoolValue>(); truth && dtype != DType::Bool)
    value = Number::whole(truth->value);
  if (auto *number = value.number(); number && isFloat(dtype)) {
    // Still a number, but no whole one any more: alone it is floating point.
    if (!number->isKnown())
      return Number::ofValue(runtimeNumber(*number, where));
    Number real = Number::ofReal(number->asDouble());
    real.settings = number->settings;
    return real;
  }
  if (auto *number = value.number()) {
    mlir::Value tensor = materialize(*number, dtype, {}, where);
    return tensor ? Value::tensor(tensor) : Value();
  }
  if (auto *array = value.as<std::shared_ptr<ArrayValue>>()) {
    ArrayValue other = **array;
    if (isFloat(dtype) && dtype == other.dtype)
      return value;
    return Value::tensor(convert(materializeArray(other, where), dtype, where));
  }
  mlir::Value tensor = value.is<BoolValue>() ? toTensor(value, where) : value.asTensor();
  if (!tensor) {
    error(where, describe(value) + " cannot be converted to " + nameOf(dtype));
    return {};
  }
  return Value::tensor(convert(tensor, dtype, where));
}
