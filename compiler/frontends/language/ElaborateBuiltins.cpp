//===- ElaborateBuiltins.cpp - the functions that need no declaration -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// An elementwise op or a reduction of the dialect is a builtin under its own name without a line
// here. What is listed has arguments of its own kind (shapes, axes, lists), or is made of several
// ops.
//
//===----------------------------------------------------------------------===//

#include "Elaborator.h"
#include "LoadArray.h"

#include "llvm/ADT/APFloat.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/SaveAndRestore.h"

using namespace dlc;
using namespace dlc::language;
using llvm::ArrayRef;
using llvm::cast;
using llvm::dyn_cast;
using llvm::isa;
using llvm::SMRange;
using llvm::StringRef;
using llvm::Twine;
using mlir::AffineConstantExpr;
using mlir::AffineExpr;
using std::nullopt;
using std::optional;

using Values = llvm::SmallVector<Value *>;

const llvm::StringMap<Elaborator::Builtin> &Elaborator::builtins() {
  using E = Elaborator;
  static const llvm::StringMap<Builtin> table = {
      {"mean", &E::callReduction},
      {"variance", &E::callVariance},
      {"norm", &E::callNorm},
      {"argmax", &E::callArgReduction},
      {"argmin", &E::callArgReduction},
      {"softmax", &E::callSoftmax},
      {"log_softmax", &E::callSoftmax},
      {"logsumexp", &E::callLogsumexp},
      {"clip", &E::callClip},
      {"where", &E::callWhere},
      {"reshape", &E::callReshape},
      {"transpose", &E::callTranspose},
      {"concat", &E::callConcat},
      {"stack", &E::callStack},
      {"split", &E::callSplit},
      {"zeros", &E::callFilled},
      {"ones", &E::callFilled},
      {"zeros_like", &E::callFilledLike},
      {"ones_like", &E::callFilledLike},
      {"normal", &E::callDraw},
      {"uniform", &E::callDraw},
      {"randint", &E::callDraw},
      {"normal_like", &E::callDrawLike},
      {"uniform_like", &E::callDrawLike},
      {"array", &E::callArray},
      {"arange", &E::callArange},
      {"shape", &E::callShape},
      {"size", &E::callSize},
      {"rank", &E::callRank},
      {"one_hot", &E::callOneHot},
      {"cross_entropy", &E::callCrossEntropy},
      {"binary_cross_entropy_with_logits", &E::callBinaryCrossEntropy},
      {"huber", &E::callHuber},
      {"conv1d", &E::callConvolution},
      {"conv2d", &E::callConvolution},
      {"conv_transpose1d", &E::callConvolution},
      {"conv_transpose2d", &E::callConvolution},
      {"max_pool1d", &E::callPooling},
      {"max_pool2d", &E::callPooling},
      {"avg_pool1d", &E::callPooling},
      {"avg_pool2d", &E::callPooling},
      {"stop_gradient", &E::callStopGradient},
      {"grad", &E::callGrad},
      {"checkpoint", &E::callCheckpoint},
      {"copy", &E::callCopy},
      {"print", &E::callPrint},
      {"load", &E::callLoad},
      {"scaled_dot_product_attention", &E::callAttention},
  };
  return table;
}

/// Whether an op is a builtin under its own name: all it takes is tensors (and axes, of a
/// reduction).
static bool isBuiltinOp(mlir::RegisteredOperationName op) {
  if (op.hasInterface<dl::ReductionOpInterface>())
    return true;
  StringRef name = op.getStringRef().split('.').second;
  // The language writes these with words and operators of its own.
  return op.hasInterface<dl::ElementwiseOpInterface>() && op.getAttributeNames().empty() &&
         name != "select" && name != "convert" && name != "and" && name != "or" && name != "not";
}

void Elaborator::collectBuiltins() {
  for (auto &entry : builtins())
    builtinNames.push_back(entry.getKey());
  for (mlir::RegisteredOperationName op : context.getRegisteredOperationsByDialect("dl"))
    if (isBuiltinOp(op))
      builtinNames.push_back(op.getStringRef().split('.').second);
  llvm::sort(builtinNames);
  builtinNames.erase(llvm::unique(builtinNames), builtinNames.end());
}

bool Elaborator::isBuiltin(StringRef name) { return llvm::binary_search(builtinNames, name); }

Value Elaborator::callBuiltin(StringRef name, CallArguments &arguments) {
  if (auto found = builtins().find(name); found != builtins().end())
    return (this->*found->second)(name, arguments);
  auto op = *mlir::RegisteredOperationName::lookup(("dl." + name).str(), &context);
  if (op.hasInterface<dl::ReductionOpInterface>())
    return callReduction(name, arguments);
  return callElementwise(name, arguments);
}

Value Elaborator::callElementwise(StringRef name, CallArguments &arguments) {
  auto op = *mlir::RegisteredOperationName::lookup(("dl." + name).str(), &context);
  llvm::SmallVector<StringRef> names{"x"};
  if (op.hasTrait<mlir::OpTrait::NOperands<2>::Impl>())
    names = {"a", "b"};
  else if (op.hasTrait<mlir::OpTrait::NOperands<3>::Impl>())
    names = {"a", "b", "c"};
  Values values;
  if (!bindNames(arguments, "'" + name + "'", names, names.size(), values))
    return {};
  llvm::SmallVector<Value> operands;
  for (Value *value : values)
    operands.push_back(*value);
  return elementwise(name, operands, arguments.range);
}

//===----------------------------------------------------------------------===//
// Reductions
//===----------------------------------------------------------------------===//

optional<llvm::SmallVector<int64_t>> Elaborator::axesOf(const Value *axis, mlir::Value of,
                                                        SMRange where) {
  int64_t rank = rankOf(of);
  llvm::SmallVector<int64_t> axes;
  if (!axis || axis->isNone()) {
    for (int64_t i = 0; i < rank; ++i)
      axes.push_back(i);
    return axes;
  }
  std::vector<Value> list{*axis};
  if (auto *elements = axis->elements())
    list = *elements;
  for (const Value &element : list) {
    optional<int64_t> n = wholeOf(element, "an axis", where);
    if (!n)
      return nullopt;
    int64_t at = *n < 0 ? *n + rank : *n;
    if (at < 0 || at >= rank) {
      error(where, "axis " + Twine(*n) + " is out of range for " + describeType(of));
      return nullopt;
    }
    if (llvm::is_contained(axes, at)) {
      error(where, "axis " + Twine(*n) + " is named twice");
      return nullopt;
    }
    axes.push_back(at);
  }
  llvm::sort(axes);
  return axes;
}

Value Elaborator::callReduction(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'" + name + "'", {"x", "axis", "keepdims"}, 1, values))
    return {};
  SMRange where = arguments.range;
  if (values[0]->number() || values[0]->is<BoolValue>()) {
    error(where, "'" + name + "' reduces a tensor, found " + describe(*values[0]) +
                     (name == "max"   ? "; the larger of two is 'maximum'"
                      : name == "min" ? "; the smaller of two is 'minimum'"
                                      : ""));
    return {};
  }
  mlir::Value x = toTensor(*values[0], where, ("the argument of '" + name + "'").str());
  if (!x)
    return {};
  DType dtype = dtypeOf(x);
  bool ofBools = name == "any" || name == "all";
  if (ofBools != (dtype == DType::Bool) || dtype == DType::U8) {
    error(where, "'" + name + "' of " + describeType(x) +
                     (ofBools ? ": it needs bools" : ": write a conversion, for example f32(…)"));
    return {};
  }
  if (name == "mean" && !isFloat(dtype)) {
    error(where,
          "'mean' of " + describeType(x) + ": integers have no mean of their type; write f32(…)");
    return {};
  }
  auto axes = axesOf(values[1], x, where);
  optional<bool> keep = values[2] ? boolOf(*values[2], "'keepdims'", where) : false;
  if (!axes || !keep)
    return {};
  mlir::Value result =
      name == "mean" ? meanOver(x, *axes, *keep, where) : reduce(name, x, *axes, *keep, where);
  return result ? Value::tensor(result) : Value();
}

Value Elaborator::callArgReduction(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'" + name + "'", {"x", "axis"}, 1, values))
    return {};
  SMRange where = arguments.range;
  mlir::Value x = toTensor(*values[0], where, ("the argument of '" + name + "'").str());
  if (!x)
    return {};
  if (DType dtype = dtypeOf(x); dtype == DType::Bool || dtype == DType::U8) {
    error(where,
          "'" + name + "' of " + describeType(x) + ": write a conversion, for example f32(…)");
    return {};
  }
  auto axes = axesOf(values[1], x, where);
  return axes ? Value::tensor(reduce(name, x, *axes, false, where)) : Value();
}

Value Elaborator::callVariance(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'variance'", {"x", "axis", "keepdims"}, 1, values))
    return {};
  SMRange where = arguments.range;
  mlir::Value x = toTensor(*values[0], where, "the argument of 'variance'");
  if (!x)
    return {};
  if (!isFloat(dtypeOf(x))) {
    error(where, "'variance' of " + describeType(x) + ": write f32(…)");
    return {};
  }
  auto axes = axesOf(values[1], x, where);
  optional<bool> keep = values[2] ? boolOf(*values[2], "'keepdims'", where) : false;
  if (!axes || !keep)
    return {};
  mlir::Value mean = broadcast(meanOver(x, *axes, /*keep=*/true, where), shapeOf(x), where);
  mlir::Value centered = build("sub", {x, mean}, where);
  return Value::tensor(meanOver(build("mul", {centered, centered}, where), *axes, *keep, where));
}

Value Elaborator::callNorm(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'norm'", {"x"}, 1, values))
    return {};
  SMRange where = arguments.range;
  llvm::SmallVector<mlir::Value> parts;
  Value of = *values[0];
  if (isWholeLayer(of)) {
    std::shared_ptr<LayerForm> form = formOf(of, where);
    if (!form)
      return {};
    of = form;
  }
  if (!flattenGradients(of, parts))
    if (mlir::Value x = toTensor(*values[0], where, "the argument of 'norm'"))
      parts.assign(1, x);
  mlir::Value total;
  for (mlir::Value part : parts) {
    if (!isFloat(dtypeOf(part))) {
      error(where, "'norm' of " + describeType(part) + ": write f32(…)");
      return {};
    }
    auto axes = axesOf(nullptr, part, where);
    mlir::Value square = reduce("sum", build("mul", {part, part}, where), *axes, false, where);
    total = total ? build("add", {total, square}, where) : square;
  }
  if (total)
    return Value::tensor(build("sqrt", total, where));
  if (parts.empty() && !diagnostics.hasErrors())
    error(where, "'norm' of " + describe(*values[0]) + ": nothing in it is trained");
  return {};
}

Value Elaborator::callSoftmax(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'" + name + "'", {"x", "axis"}, 1, values))
    return {};
  SMRange where = arguments.range;
  mlir::Value x = toTensor(*values[0], where, ("the argument of '" + name + "'").str());
  if (!x)
    return {};
  if (!isFloat(dtypeOf(x)) || rankOf(x) == 0) {
    error(where,
          "'" + name + "' needs a floating-point tensor with an axis, found " + describeType(x));
    return {};
  }
  Value last = Number::whole(-1);
  auto axes = axesOf(values[1] ? values[1] : &last, x, where);
  if (!axes)
    return {};
  if (axes->size() != 1) {
    error(where, "'" + name + "' works along one axis");
    return {};
  }
  return Value::tensor(build(
      name, x, where, builder().getNamedAttr("axis", builder().getI64IntegerAttr(axes->front()))));
}

Value Elaborator::callLogsumexp(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'logsumexp'", {"x", "axis", "keepdims"}, 1, values))
    return {};
  optional<bool> keep = values[2] ? boolOf(*values[2], "'keepdims'", arguments.range) : false;
  if (!keep)
    return {};
  Value x = *values[0];
  CallArguments inner;
  inner.range = arguments.range;
  inner.positional.push_back(x);
  if (values[1])
    inner.positional.push_back(*values[1]);
  Value result = callSoftmax(name, inner);
  if (!*keep || result.isPoison())
    return result;
  mlir::Value of = toTensor(x, arguments.range);
  Value last = Number::whole(-1);
  auto axes = axesOf(values[1] ? values[1] : &last, of, arguments.range);
  Shape shape = shapeOf(of);
  shape[axes->front()] = constantSize(1);
  return Value::tensor(reshape(result.asTensor(), shape, arguments.range));
}

//===----------------------------------------------------------------------===//
// Elements
//===----------------------------------------------------------------------===//

Value Elaborator::callClip(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'clip'", {"x", "low", "high"}, 3, values))
    return {};
  Value lower[] = {*values[0], *values[1]};
  Value upper[] = {elementwise("maximum", lower, arguments.range), *values[2]};
  return elementwise("minimum", upper, arguments.range);
}

Value Elaborator::callWhere(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'where'", {"condition", "a", "b"}, 3, values))
    return {};
  SMRange where = arguments.range;
  if (auto *truth = values[0]->as<BoolValue>()) {
    decide(truth->settings);
    return truth->value ? *values[1] : *values[2];
  }
  mlir::Value condition = values[0]->asTensor();
  if (!condition || dtypeOf(condition) != DType::Bool) {
    error(where, "the condition of 'where' must be bools, found " + describe(*values[0]));
    return {};
  }
  // Rank-0 conditions of numbers choose a number.
  if (values[1]->number() && values[2]->number() && rankOf(condition) == 0 &&
      (values[1]->number()->isRuntime() || values[2]->number()->isRuntime())) {
    mlir::Value a = runtimeNumber(*values[1]->number(), where),
                b = runtimeNumber(*values[2]->number(), where);
    return Number::ofValue(build("select", {condition, a, b}, where, {}, a.getType()));
  }
  Value operands[] = {*values[1], *values[2]};
  llvm::SmallVector<mlir::Value> unified;
  if (!unify(operands, unified, "'where'", where))
    return {};
  optional<Shape> shape = broadcastShapes({condition, unified[0], unified[1]}, "'where'", where);
  if (!shape)
    return {};
  // Numbers again at the full shape, so that they are one fill each.
  DType dtype = dtypeOf(unified[0]);
  llvm::SmallVector<mlir::Value> branches;
  for (auto [value, tensor] : llvm::zip_equal(operands, unified)) {
    mlir::Value branch =
        value.number() ? materialize(*value.number(), dtype, *shape, where) : tensor;
    branches.push_back(broadcast(branch, *shape, where));
  }
  return Value::tensor(build("select",
                             {broadcast(condition, *shape, where), branches[0], branches[1]}, where,
                             {}, branches[0].getType()));
}

Value Elaborator::callStopGradient(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'stop_gradient'", {"x"}, 1, values))
    return {};
  if (values[0]->number())
    return *values[0];
  mlir::Value x = toTensor(*values[0], arguments.range, "the argument of 'stop_gradient'");
  return x ? Value::tensor(build("stop_gradient", x, arguments.range)) : Value();
}

Value Elaborator::callCheckpoint(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'checkpoint'", {"f"}, 1, values))
    return {};
  const Value &f = *values[0];
  if (!isWholeLayer(f) && !f.form() && !f.is<FunctionValue>() && !f.is<ExternValue>() &&
      !f.is<BuiltinValue>()) {
    error(arguments.range, "'checkpoint' takes a function or a layer, which it calls: "
                           "'checkpoint(f)(x)'; found " +
                               describe(f));
    return {};
  }
  return std::make_shared<Checkpointed>(Checkpointed{f});
}

//===----------------------------------------------------------------------===//
// Shapes
//===----------------------------------------------------------------------===//

Value Elaborator::callReshape(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'reshape'", {"x", "shape"}, 2, values))
    return {};
  SMRange where = arguments.range;
  mlir::Value x = toTensor(*values[0], where, "the argument of 'reshape'");
  auto *list = values[1]->elements();
  if (!list)
    error(where, "a shape is a list of sizes, found " + describe(*values[1]));
  if (!x || !list)
    return {};
  Shape shape;
  optional<size_t> open; // the size that is written -1
  for (const Value &element : *list) {
    if (auto *number = element.number(); number && number->asWhole() == -1) {
      if (open) {
        error(where, "a shape has one size of -1");
        return {};
      }
      open = shape.size();
      shape.push_back(constantSize(1));
      continue;
    }
    AffineExpr size = sizeOf(element, where);
    if (!size)
      return {};
    shape.push_back(size);
  }
  auto refuse = [&](const Twine &why) {
    Shape shown = shape;
    error(where, "cannot reshape " + describeType(x) + " to " + describeShape(shown) + why);
    return Value();
  };
  AffineExpr count = dl::elementCount(cast<mlir::RankedTensorType>(x.getType()));
  AffineExpr given = dl::productOf(shape, &context);
  if (open) {
    Number divisor = Number::ofSize(given);
    optional<Number> rest;
    if (!divisor.isZero())
      rest = fold(Tok::Slash, Number::ofSize(count), divisor);
    if (!rest || (rest->isKnown() && !rest->asWhole()))
      return refuse(": " + Twine(dl::sizeToString(count, dimNames)) +
                    " elements are not divided by " + dl::sizeToString(given, dimNames));
    shape[*open] = sizeOf(*rest, where); // that it comes out whole is what is to be checked
    given = dl::productOf(shape, &context);
  } else if (!equalSizes(count, given,
                         "'reshape' of " + describeType(x) + " to " + describeShape(shape),
                         where)) {
    return refuse(": " + Twine(dl::sizeToString(count, dimNames)) + " elements and " +
                  dl::sizeToString(given, dimNames));
  }
  if (!checkElements(shape, where))
    return {};
  if (count != given)
    x = assumeShape(reshape(x, {count}, where), {given}, where);
  return Value::tensor(reshape(x, shape, where));
}

Value Elaborator::callTranspose(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'transpose'", {"x", "axes"}, 1, values))
    return {};
  SMRange where = arguments.range;
  mlir::Value x = toTensor(*values[0], where, "the argument of 'transpose'");
  if (!x)
    return {};
  int64_t rank = rankOf(x);
  llvm::SmallVector<int64_t> permutation;
  if (!values[1] || values[1]->isNone()) {
    for (int64_t i = rank; i-- > 0;)
      permutation.push_back(i);
  } else {
    auto *list = values[1]->elements();
    if (!list) {
      error(where, "'axes' is a list, found " + describe(*values[1]));
      return {};
    }
    auto axes = axesOf(values[1], x, where); // for the checks
    if (!axes)
      return {};
    if (static_cast<int64_t>(axes->size()) != rank) {
      error(where, "'transpose' of " + describeType(x) + " needs " + Twine(rank) + " axes, found " +
                       Twine(axes->size()));
      return {};
    }
    for (const Value &element : *list) {
      int64_t n = *element.number()->asWhole();
      permutation.push_back(n < 0 ? n + rank : n);
    }
  }
  return Value::tensor(transpose(x, permutation, where));
}

Value Elaborator::callConcat(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'concat'", {"values", "axis"}, 1, values))
    return {};
  SMRange where = arguments.range;
  auto *list = values[0]->elements();
  if (!list || list->empty()) {
    error(where, "'concat' takes a list of tensors, found " + describe(*values[0]));
    return {};
  }
  std::vector<Value> operands = *list;
  llvm::SmallVector<mlir::Value> tensors;
  if (!unify(operands, tensors, "'concat'", where))
    return {};
  Value zero = Number::whole(0);
  auto axes = axesOf(values[1] ? values[1] : &zero, tensors[0], where);
  if (!axes || axes->size() != 1)
    return {};
  // Everything but the axis must agree.
  for (mlir::Value &tensor : llvm::drop_begin(tensors)) {
    std::string types = "'concat' of " + describeType(tensors[0]) + " and " + describeType(tensor) +
                        " along axis " + std::to_string(axes->front());
    Shape shape = shapeOf(tensors[0]);
    if (rankOf(tensor) == rankOf(tensors[0]))
      shape[axes->front()] = shapeOf(tensor)[axes->front()];
    mlir::Value same = conform(tensor, shape, types, where);
    if (!same) {
      error(where, types);
      return {};
    }
    tensor = same;
  }
  if (tensors.size() == 1)
    return Value::tensor(tensors[0]);
  return Value::tensor(
      build("concat", tensors, where,
            builder().getNamedAttr("axis", builder().getI64IntegerAttr(axes->front()))));
}

Value Elaborator::callStack(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'stack'", {"values", "axis"}, 1, values))
    return {};
  SMRange where = arguments.range;
  auto *list = values[0]->elements();
  if (!list || list->empty()) {
    error(where, "'stack' takes a list of tensors, found " + describe(*values[0]));
    return {};
  }
  std::vector<Value> operands = *list;
  llvm::SmallVector<mlir::Value> tensors;
  if (!unify(operands, tensors, "'stack'", where))
    return {};
  int64_t rank = rankOf(tensors[0]) + 1;
  optional<int64_t> axis = values[1] ? wholeOf(*values[1], "an axis", where) : 0;
  if (!axis)
    return {};
  int64_t at = *axis < 0 ? *axis + rank : *axis;
  if (at < 0 || at >= rank) {
    error(where, "axis " + Twine(*axis) + " is out of range for tensors " +
                     describeType(tensors[0]) + " stacked");
    return {};
  }
  Shape shape = shapeOf(tensors[0]), thin = shape;
  thin.insert(thin.begin() + at, constantSize(1));
  std::string first = describeType(tensors[0]);
  for (mlir::Value &tensor : tensors) {
    std::string types = "'stack' of " + first + " and " + describeType(tensor);
    mlir::Value same = conform(tensor, shape, types, where);
    if (!same) {
      error(where, types);
      return {};
    }
    tensor = reshape(same, thin, where);
  }
  if (tensors.size() == 1)
    return Value::tensor(tensors[0]);
  return Value::tensor(build("concat", tensors, where,
                             builder().getNamedAttr("axis", builder().getI64IntegerAttr(at))));
}

Value Elaborator::callSplit(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'split'", {"x", "parts", "axis"}, 2, values))
    return {};
  SMRange where = arguments.range;
  mlir::Value x = toTensor(*values[0], where, "the argument of 'split'");
  if (!x)
    return {};
  optional<int64_t> parts = wholeOf(*values[1], "the number of parts", where);
  Value zero = Number::whole(0);
  auto axes = axesOf(values[2] ? values[2] : &zero, x, where);
  if (!parts || !axes || axes->size() != 1)
    return {};
  if (*parts < 1 || *parts > 100000) {
    error(where, "'split' into " + Twine(*parts) + " parts");
    return {};
  }
  Shape shape = shapeOf(x);
  int64_t axis = axes->front();
  optional<Number> each = fold(Tok::Slash, Number::ofSize(shape[axis]), Number::whole(*parts));
  if (each->isKnown() && !each->asWhole()) {
    error(where, "size " + Twine(dl::sizeToString(shape[axis], dimNames)) + " of axis " +
                     Twine(axis) + " does not split into " + Twine(*parts) + " equal parts");
    return {};
  }
  AffineExpr size = sizeOf(*each, where); // checks on entry where it is dynamic
  Shape part = shape, starts(shape.size(), constantSize(0));
  part[axis] = size;
  llvm::SmallVector<int64_t> strides(shape.size(), 1);
  std::vector<Value> results;
  for (int64_t i = 0; i < *parts; ++i) {
    starts[axis] = dl::normalizeSize(size * i);
    mlir::Value slice =
        dl::SliceOp::create(builder(), locationOf(where), tensorType(part, dtypeOf(x)), x,
                            dl::sizeMap(starts, &context), strides);
    results.push_back(Value::tensor(slice));
  }
  return Value::list(std::move(results));
}

Value Elaborator::callShape(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'shape'", {"x"}, 1, values))
    return {};
  mlir::Value x = toTensor(*values[0], arguments.range, "the argument of 'shape'");
  if (!x)
    return {};
  std::vector<Value> sizes;
  for (AffineExpr size : shapeOf(x))
    sizes.push_back(Number::ofSize(size));
  return Value::list(std::move(sizes));
}

Value Elaborator::callSize(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'size'", {"x"}, 1, values))
    return {};
  if (optional<std::vector<Value>> list = elementsOf(*values[0]))
    return Number::whole(list->size());
  mlir::Value x = toTensor(*values[0], arguments.range, "the argument of 'size'");
  return x ? Value(Number::ofSize(dl::elementCount(cast<mlir::RankedTensorType>(x.getType()))))
           : Value();
}

Value Elaborator::callRank(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'rank'", {"x"}, 1, values))
    return {};
  if (values[0]->number() || values[0]->is<BoolValue>())
    return Number::whole(0);
  mlir::Value x = toTensor(*values[0], arguments.range, "the argument of 'rank'");
  return x ? Value(Number::whole(rankOf(x))) : Value();
}

//===----------------------------------------------------------------------===//
// Making tensors
//===----------------------------------------------------------------------===//

static optional<DType> dtypeGiven(const Value *value, DType otherwise) {
  if (!value)
    return otherwise;
  if (auto *dtype = value->as<DType>())
    return *dtype;
  return nullopt;
}

Value Elaborator::callFilled(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'" + name + "'", {"shape", "dtype"}, 1, values))
    return {};
  SMRange where = arguments.range;
  optional<Shape> shape = shapeListOf(*values[0], where);
  optional<DType> dtype = dtypeGiven(values[1], options.f64 ? DType::F64 : DType::F32);
  if (!dtype)
    error(where, "'dtype' must be a type, found " + describe(*values[1]));
  if (!shape || !dtype)
    return {};
  return Value::tensor(fill(tensorType(*shape, *dtype), Number::whole(name == "ones"), where));
}

Value Elaborator::callFilledLike(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'" + name + "'", {"x"}, 1, values))
    return {};
  SMRange where = arguments.range;
  mlir::Value x = toTensor(*values[0], where, ("the argument of '" + name + "'").str());
  if (!x)
    return {};
  return Value::tensor(
      fill(cast<mlir::RankedTensorType>(x.getType()), Number::whole(name == "ones_like"), where));
}

/// Appends a number as an element lies in memory.
static void appendElement(std::vector<char> &bytes, DType dtype, double n) {
  auto append = [&](auto element) {
    auto *raw = reinterpret_cast<const char *>(&element);
    bytes.insert(bytes.end(), raw, raw + sizeof(element));
  };
  auto half = [&](const llvm::fltSemantics &semantics) {
    llvm::APFloat value(n);
    bool inexact;
    value.convert(semantics, llvm::APFloat::rmNearestTiesToEven, &inexact);
    append(static_cast<uint16_t>(value.bitcastToAPInt().getZExtValue()));
  };
  switch (dtype) {
  case DType::Bool:
  case DType::U8:
    return append(static_cast<uint8_t>(n));
  case DType::I8:
    return append(static_cast<int8_t>(n));
  case DType::I16:
    return append(static_cast<int16_t>(n));
  case DType::I32:
    return append(static_cast<int32_t>(n));
  case DType::I64:
    return append(static_cast<int64_t>(n));
  case DType::F16:
    return half(llvm::APFloat::IEEEhalf());
  case DType::BF16:
    return half(llvm::APFloat::BFloat());
  case DType::F32:
    return append(static_cast<float>(n));
  case DType::F64:
    return append(n);
  }
}

Value Elaborator::callLoad(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'load'", {"path"}, 1, values))
    return {};
  SMRange where = arguments.range;
  auto *path = values[0]->as<StringValue>();
  if (!path) {
    error(where, "'load' takes the path of a .npy file, found " + describe(*values[0]));
    return {};
  }
  // Beside the file that names it.
  llvm::SmallString<256> whole;
  if (!llvm::sys::path::is_absolute(path->text))
    whole = frame->file ? frame->file->folder : "";
  llvm::sys::path::append(whole, path->text);
  auto [entry, isNew] = arraysByPath.try_emplace(whole);
  if (isNew) {
    llvm::Expected<ArrayValue> loaded = loadArray(whole.str().str());
    if (!loaded) {
      error(where, llvm::toString(loaded.takeError()));
      return {};
    }
    if (options.dependencies)
      options.dependencies->push_back(whole.str().str());
    entry->second = std::make_shared<ArrayValue>(std::move(*loaded));
    if (options.f64 && entry->second->dtype == DType::F32) {
      // The model's float is f64.
      ArrayValue &array = *entry->second;
      std::vector<char> narrow = std::move(array.bytes);
      array.dtype = DType::F64;
      array.bytes.clear();
      for (size_t at = 0; at < narrow.size(); at += sizeof(float)) {
        float n;
        std::memcpy(&n, narrow.data() + at, sizeof(float));
        appendElement(array.bytes, DType::F64, n);
      }
    }
  }
  if (!entry->second)
    return {}; // reported
  return entry->second;
}

Value Elaborator::callArray(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'array'", {"numbers", "dtype"}, 1, values))
    return {};
  SMRange where = arguments.range;
  optional<DType> dtype = dtypeGiven(values[1], options.f64 ? DType::F64 : DType::F32);
  if (!dtype) {
    error(where, "'dtype' must be a type, found " + describe(*values[1]));
    return {};
  }
  auto array = std::make_shared<ArrayValue>();
  array->dtype = *dtype;
  // Row by row; every list at one depth has one length.
  llvm::SmallVector<std::pair<const Value *, size_t>> stack{{values[0], 0}};
  while (!stack.empty()) {
    auto [value, depth] = stack.pop_back_val();
    if (auto *list = value->elements()) {
      if (depth == array->shape.size() && array->bytes.empty())
        array->shape.push_back(list->size());
      if (depth >= array->shape.size() ||
          array->shape[depth] != static_cast<int64_t>(list->size())) {
        error(where, "the rows of an array have one length");
        return {};
      }
      for (const Value &element : llvm::reverse(*list))
        stack.emplace_back(&element, depth + 1);
      continue;
    }
    if (depth != array->shape.size()) {
      error(where, "the rows of an array have one length");
      return {};
    }
    double n;
    if (auto *truth = value->as<BoolValue>(); truth && *dtype == DType::Bool) {
      n = truth->value;
    } else if (auto *number = value->number();
               number && number->isKnown() && *dtype != DType::Bool) {
      decide(number->settings);
      n = number->asDouble();
      if (!isFloat(*dtype) && !number->asWhole()) {
        error(where, text(*number) + " is not a whole number, and the array is " + nameOf(*dtype));
        return {};
      }
    } else {
      error(where, "an array of " + nameOf(*dtype) + " cannot hold " + describe(*value));
      return {};
    }
    appendElement(array->bytes, *dtype, n);
  }
  if (array->bytes.empty() || array->shape.size() > 8) {
    error(where, "an array needs numbers");
    return {};
  }
  return array;
}

Value Elaborator::callArange(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'arange'", {"n"}, 1, values))
    return {};
  AffineExpr size = sizeOf(*values[0], arguments.range);
  if (!size || !checkElements({size}, arguments.range))
    return {};
  mlir::Value result = dl::IotaOp::create(builder(), locationOf(arguments.range),
                                          tensorType({size}, DType::I32), int64_t(0));
  return Value::tensor(result);
}

Value Elaborator::callOneHot(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'one_hot'", {"x", "classes"}, 2, values))
    return {};
  SMRange where = arguments.range;
  mlir::Value x = toTensor(*values[0], where, "the argument of 'one_hot'");
  AffineExpr classes = sizeOf(*values[1], where);
  if (!x || !classes)
    return {};
  if (!isInteger(dtypeOf(x))) {
    error(where, "'one_hot' of " + describeType(x) + ": it needs integers");
    return {};
  }
  x = convert(x, DType::I32, where);
  Shape shape = shapeOf(x), column = shape;
  shape.push_back(classes);
  column.push_back(constantSize(1));
  if (!checkElements(shape, where))
    return {};
  mlir::Value numbers = dl::IotaOp::create(
      builder(), locationOf(where), tensorType(shape, DType::I32), int64_t(shape.size() - 1));
  mlir::Value hit = dl::CompareOp::create(builder(), locationOf(where), numbers,
                                          broadcast(reshape(x, column, where), shape, where),
                                          dl::ComparePredicate::eq);
  return Value::tensor(convert(hit, options.f64 ? DType::F64 : DType::F32, where));
}

//===----------------------------------------------------------------------===//
// Draws
//===----------------------------------------------------------------------===//

/// The stream of a draw is the hash of a path. Of a variable: the variable's. In a function: the
/// function's name, the path of the layer that draws, and the number of the draw in that layer.
/// In a loop the number of the turn takes part in the call's number, so that each turn draws anew.
mlir::Value Elaborator::draw(StringRef op, mlir::RankedTensorType type, SMRange where, int64_t low,
                             int64_t high) {
  mlir::Location location = locationOf(where);
  if (!isa<mlir::FloatType>(type.getElementType()) && op != "randint") {
    error(where, "'" + op + "' draws floating point, not " +
                     nameOf(dtypeOf(fill(type, Number::whole(0), where))));
    return {};
  }
  std::string path;
  if (function->isInit) {
    path = function->initOf->path;
  } else {
    path = function->name;
    if (frame->owner && !frame->owner->path.empty())
      path += "." + frame->owner->path;
  }
  unsigned number = function->draws[path]++;
  if (number || !function->isInit)
    path += "." + std::to_string(number);
  auto scalar = tensorType({}, DType::I64);
  if (!function->seed) {
    for (auto [variable, name] :
         {std::pair(&seedVariable, "random.seed"), std::pair(&callsVariable, "random.calls")}) {
      if (*variable)
        continue;
      auto &own = variables.emplace_back(std::make_unique<Variable>());
      own->kind = Variable::Kind::Random;
      own->path = name;
      own->placed = true;
      own->dtype = DType::I64;
      *variable = own.get();
    }
    mlir::OpBuilder entry = function->atEntry();
    function->seed = dl::ReadOp::create(entry, location, scalar, seedVariable->path);
    function->calls = dl::ReadOp::create(entry, location, scalar, callsVariable->path);
  }
  mlir::Value call = function->isInit ? fill(scalar, Number::whole(0), where) : function->calls;
  if (mlir::Value turn = turnNumber(where)) {
    // The counter's high word: turn n of the loops around draws as call + (n + 1) * 2^32.
    mlir::Value shift = fill(scalar, Number::whole(int64_t(1) << 32), where);
    mlir::Value next = build("add", {turn, fill(scalar, Number::whole(1), where)}, where);
    call = build("add", {call, build("mul", {next, shift}, where)}, where);
  }
  uint32_t stream = streamOf(path);
  if (op == "uniform")
    return dl::UniformOp::create(builder(), location, type, function->seed, call, stream);
  if (op == "normal")
    return dl::NormalOp::create(builder(), location, type, function->seed, call, stream);
  return dl::RandintOp::create(builder(), location, type, function->seed, call, stream, low, high);
}

Value Elaborator::scaledDraw(StringRef name, const Value *a, const Value *b, DType dtype,
                             ArrayRef<AffineExpr> shape, SMRange where) {
  if (function->isConstant) {
    error(where, "a constant cannot be drawn: '" + name +
                     "' belongs in an initial value or in a function");
    return {};
  }
  if (name == "randint") {
    optional<int64_t> low = a ? wholeOf(*a, "the lower end of 'randint'", where) : 0;
    optional<int64_t> high = b ? wholeOf(*b, "the upper end of 'randint'", where) : nullopt;
    if (!b)
      error(where, "'randint' needs both ends, from the first number to before the last");
    if (!low || !high)
      return {};
    if (*low >= *high || static_cast<uint64_t>(*high) - static_cast<uint64_t>(*low) > UINT32_MAX) {
      error(where, "'randint' from " + Twine(*low) + " to before " + Twine(*high) +
                       ": there must be between 1 and 2^32 - 1 numbers");
      return {};
    }
    mlir::Value result = draw(name, tensorType(shape, dtype), where, *low, *high);
    return result ? Value::tensor(result) : Value();
  }
  mlir::Value unit = draw(name, tensorType(shape, dtype), where);
  if (!unit)
    return {};
  // uniform: a + (b - a) * u; normal: mean + std * n.
  Value first = a ? *a : Value(Number::whole(0)), second = b ? *b : Value(Number::whole(1));
  Value scale = name == "uniform" ? binary(Tok::Minus, second, first, where) : second;
  auto is = [](const Value &value, int64_t n) {
    return value.number() && value.number()->asWhole() == n;
  };
  Value result = Value::tensor(unit);
  if (!is(scale, 1))
    result = binary(Tok::Star, result, scale, where);
  if (!is(first, 0))
    result = binary(Tok::Plus, result, first, where);
  return result;
}

Value Elaborator::callDraw(StringRef name, CallArguments &arguments) {
  bool whole = name == "randint";
  StringRef first = name == "normal" ? "mean" : "low", second = name == "normal" ? "std" : "high";
  Values values;
  if (!bindNames(arguments, "'" + name + "'", {first, second, "shape", "dtype"}, 0, values))
    return {};
  SMRange where = arguments.range;
  optional<Shape> shape;
  if (values[2])
    shape = shapeListOf(*values[2], where);
  else if (frame->drawType)
    shape = frame->drawShape;
  else
    error(where,
          "'" + name + "' needs a shape here: the name that it goes to has no declared type");
  DType otherwise = whole ? DType::I32 : options.f64 ? DType::F64 : DType::F32;
  if (frame->drawType && isFloat(*frame->drawType) != whole)
    otherwise = *frame->drawType;
  optional<DType> dtype = dtypeGiven(values[3], otherwise);
  if (!dtype)
    error(where, "'dtype' must be a type, found " + describe(*values[3]));
  if (!shape || !dtype)
    return {};
  if (isFloat(*dtype) == whole || *dtype == DType::Bool) {
    error(where, "'" + name + "' does not draw " + nameOf(*dtype));
    return {};
  }
  return scaledDraw(name, values[0], values[1], *dtype, *shape, where);
}

Value Elaborator::callDrawLike(StringRef name, CallArguments &arguments) {
  bool isNormal = name == "normal_like";
  Values values;
  if (!bindNames(arguments, "'" + name + "'",
                 {"x", isNormal ? "mean" : "low", isNormal ? "std" : "high"}, 1, values))
    return {};
  SMRange where = arguments.range;
  mlir::Value x = toTensor(*values[0], where, ("the argument of '" + name + "'").str());
  if (!x)
    return {};
  if (!isFloat(dtypeOf(x))) {
    error(where, "'" + name + "' of " + describeType(x) + ": it needs floating point");
    return {};
  }
  return scaledDraw(isNormal ? "normal" : "uniform", values[1], values[2], dtypeOf(x), shapeOf(x),
                    where);
}

//===----------------------------------------------------------------------===//
// Losses
//===----------------------------------------------------------------------===//

/// `reduction`: "mean" (the default), "sum" or "none"; nothing after an error.
static optional<StringRef> reductionOf(const Value *value) {
  if (!value)
    return StringRef("mean");
  if (value->isNone())
    return StringRef("none");
  auto *string = value->as<StringValue>();
  if (string && (string->text == "mean" || string->text == "sum" || string->text == "none"))
    return string->text;
  return nullopt;
}

Value Elaborator::reduceLoss(mlir::Value loss, const Value *value, StringRef name, SMRange where) {
  optional<StringRef> reduction = reductionOf(value);
  if (!reduction) {
    error(where, "the reduction of '" + name + "' is \"mean\", \"sum\" or \"none\", not " +
                     describe(*value));
    return {};
  }
  if (!loss)
    return {};
  auto axes = axesOf(nullptr, loss, where);
  if (*reduction == "mean")
    return Value::tensor(meanOver(loss, *axes, false, where));
  if (*reduction == "sum")
    return Value::tensor(reduce("sum", loss, *axes, false, where));
  return Value::tensor(loss);
}

Value Elaborator::callCrossEntropy(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'cross_entropy'", {"scores", "label", "axis", "reduction"}, 2, values))
    return {};
  SMRange where = arguments.range;
  mlir::Value scores = toTensor(*values[0], where, "the scores of 'cross_entropy'");
  mlir::Value label = toTensor(*values[1], where, "the label of 'cross_entropy'");
  if (!scores || !label)
    return {};
  if (!isFloat(dtypeOf(scores)) || rankOf(scores) == 0) {
    error(where,
          "the scores of 'cross_entropy' are floating point with an axis of classes, found " +
              describeType(scores));
    return {};
  }
  if (!isInteger(dtypeOf(label))) {
    error(where, "the label of 'cross_entropy' is an integer, found " + describeType(label));
    return {};
  }
  Value last = Number::whole(-1);
  auto axes = axesOf(values[2] ? values[2] : &last, scores, where);
  optional<StringRef> reduction = reductionOf(values[3]);
  if (!reduction)
    error(where, "the reduction of 'cross_entropy' is \"mean\", \"sum\" or \"none\", not " +
                     describe(*values[3]));
  if (!axes || !reduction)
    return {};
  if (axes->size() != 1) {
    error(where, "'cross_entropy' has one axis of classes");
    return {};
  }
  std::string scoresType = describeType(scores);
  llvm::SmallVector<int64_t> permutation;
  for (int64_t i = 0; i < rankOf(scores); ++i)
    if (i != axes->front())
      permutation.push_back(i);
  permutation.push_back(axes->front());
  scores = transpose(scores, permutation, where);
  Shape rest = shapeOf(scores);
  AffineExpr classes = rest.pop_back_val();
  mlir::Value labels = conform(
      label, rest, "'cross_entropy' of scores " + scoresType + " and labels " + describeType(label),
      where);
  if (!labels) {
    error(where, "'cross_entropy' of scores " + scoresType + " needs labels " +
                     describeShape(rest) + ", found " + describeType(label));
    return {};
  }
  std::string highest = dl::sizeToString(dl::normalizeSize(classes - 1), dimNames);
  dl::CheckIndexOp::create(
      builder(), locationOf(where), label, dl::sizeMap({classes}, &context), /*fromEnd=*/false,
      builder().getI64IntegerAttr(-100),
      builder().getStringAttr("label {value} at index {index} is outside the classes 0 to " +
                              highest + " of cross_entropy"));
  label = labels;
  mlir::Value loss = build("cross_entropy", {scores, label}, where);
  if (*reduction == "none" || !loss)
    return loss ? Value::tensor(loss) : Value();
  auto all = axesOf(nullptr, loss, where);
  mlir::Value total = reduce("sum", loss, *all, false, where);
  if (*reduction == "sum")
    return Value::tensor(total);
  // The mean is over the labels that count.
  mlir::Value count;
  if (dtypeOf(label) == DType::U8) {
    return Value::tensor(meanOver(loss, *all, false, where)); // none of its values is -100
  }
  mlir::Value ignored =
      fill(cast<mlir::RankedTensorType>(label.getType()), Number::whole(-100), where);
  mlir::Value counts =
      dl::CompareOp::create(builder(), locationOf(where), label, ignored, dl::ComparePredicate::ne);
  count = reduce("sum", convert(counts, dtypeOf(loss), where), *all, false, where);
  return Value::tensor(build("div", {total, count}, where));
}

Value Elaborator::callBinaryCrossEntropy(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'" + name + "'", {"scores", "target", "reduction"}, 2, values))
    return {};
  SMRange where = arguments.range;
  Value operands[] = {*values[0], *values[1]};
  llvm::SmallVector<mlir::Value> unified;
  if (!unifyShapes(operands, unified, ("'" + name + "'").str(), where))
    return {};
  // -(y log s(x) + (1 - y) log(1 - s(x))) = softplus(x) - x y, which no x overflows.
  Value x[] = {Value::tensor(unified[0])};
  Value soft = elementwise("softplus", x, where);
  Value loss =
      binary(Tok::Minus, soft, binary(Tok::Star, x[0], Value::tensor(unified[1]), where), where);
  return reduceLoss(loss.asTensor(), values[2], name, where);
}

Value Elaborator::callHuber(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'huber'", {"x", "target", "delta", "reduction"}, 2, values))
    return {};
  SMRange where = arguments.range;
  Value delta = values[2] ? *values[2] : Value(Number::whole(1));
  if (!delta.number()) {
    error(where, "'delta' of 'huber' is a number, found " + describe(delta));
    return {};
  }
  // Quadratic up to delta, linear beyond, with one slope where they meet.
  Value difference = binary(Tok::Minus, *values[0], *values[1], where);
  Value size[] = {difference};
  Value distance = elementwise("abs", size, where);
  Value half = Number::fraction(1, 2);
  Value quadratic =
      binary(Tok::Star, binary(Tok::Star, difference, difference, where), half, where);
  Value linear =
      binary(Tok::Star, binary(Tok::Minus, distance, binary(Tok::Star, delta, half, where), where),
             delta, where);
  CallArguments choice;
  choice.range = where;
  choice.positional = {compare(Tok::LessEqual, distance, delta, where), quadratic, linear};
  if (choice.poisoned())
    return {};
  return reduceLoss(callWhere("where", choice).asTensor(), values[3], name, where);
}

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

Value Elaborator::callAttention(StringRef name, CallArguments &arguments) {
  Values values;
  if (!bindNames(arguments, "'" + name + "'", {"q", "k", "v", "mask", "causal", "scale"}, 3,
                 values))
    return {};
  SMRange where = arguments.range;
  llvm::SmallVector<mlir::Value> tensors;
  const StringRef names[] = {"q", "k", "v"};
  for (auto [i, of] : llvm::enumerate(names)) {
    mlir::Value tensor = toTensor(*values[i], where, ("'" + of + "' of '" + name + "'").str());
    if (!tensor)
      return {};
    if (!isFloat(dtypeOf(tensor)) || rankOf(tensor) != 4) {
      error(where, "'" + name + "' needs a floating-point '" + of + "' [N, T, heads, d], found " +
                       describeType(tensor));
      return {};
    }
    tensors.push_back(tensor);
  }
  mlir::Value q = tensors[0], k = tensors[1], v = tensors[2];
  std::string types = "'" + name.str() + "' of " + describeType(q) + ", " + describeType(k) +
                      " and " + describeType(v);
  for (auto [tensor, of] : {std::pair(k, "k"), std::pair(v, "v")})
    if (dtypeOf(tensor) != dtypeOf(q)) {
      error(where, types + ": q is " + nameOf(dtypeOf(q)) + ", " + of + " " +
                       nameOf(dtypeOf(tensor)));
      return {};
    }
  optional<bool> causal = false;
  if (values[4])
    causal = boolOf(*values[4], ("'causal' of '" + name + "'").str(), where);
  if (!causal)
    return {};

  // As many batches, heads and, of q and k, elements of a head; as many values as keys.
  Shape queries = shapeOf(q), keys = shapeOf(k), rows = shapeOf(v);
  auto agree = [&](AffineExpr size, AffineExpr other, StringRef what, StringRef of, StringRef ofOther) {
    if (equalSizes(size, other, types, where))
      return true;
    error(where, types + ": " + of + " has " + dl::sizeToString(size, dimNames) + " " + what + ", " +
                     ofOther + " " + dl::sizeToString(other, dimNames));
    return false;
  };
  if (!agree(queries[0], keys[0], "batches", "q", "k") ||
      !agree(queries[2], keys[2], "heads", "q", "k") ||
      !agree(queries[3], keys[3], "elements in a head", "q", "k") ||
      !agree(queries[0], rows[0], "batches", "q", "v") ||
      !agree(keys[1], rows[1], "rows", "k", "v") || !agree(queries[2], rows[2], "heads", "q", "v"))
    return {};
  if (*causal && !agree(queries[1], keys[1], "rows, causally", "q", "k"))
    return {};
  AffineExpr keyRows = *causal ? queries[1] : keys[1];
  k = assumeShape(k, {queries[0], keyRows, queries[2], queries[3]}, where);
  v = assumeShape(v, {queries[0], keyRows, queries[2], rows[3]}, where);

  mlir::Value mask;
  if (values[3] && !values[3]->isNone()) {
    mask = toTensor(*values[3], where, ("the mask of '" + name + "'").str());
    if (!mask)
      return {};
    Shape scores{queries[0], queries[2], queries[1], keyRows}, sizes = shapeOf(mask);
    std::string masked = "the mask of '" + name.str() + "' is " + describeType(mask);
    if (dtypeOf(mask) != DType::Bool && dtypeOf(mask) != dtypeOf(q)) {
      error(where, masked + ", q " + describeType(q) + ": a mask is bools, or numbers of q's type");
      return {};
    }
    bool fits = sizes.size() <= scores.size();
    while (fits && sizes.size() < scores.size())
      sizes.insert(sizes.begin(), constantSize(1));
    if (fits)
      mask = reshape(mask, sizes, where);
    for (auto [size, wanted] : llvm::zip(sizes, scores)) {
      fits = fits && (size == constantSize(1) || equalSizes(size, wanted, masked, where));
      if (size != constantSize(1))
        size = wanted;
    }
    if (!fits) {
      error(where, masked + ", which is not repeated to the scores [N, heads, T, S], " +
                       describeShape(scores));
      return {};
    }
    mask = assumeShape(mask, sizes, where);
  }

  // What is known while compiling belongs to the op; any other factor is q's.
  double factor = 1;
  auto width = dyn_cast<AffineConstantExpr>(queries[3]);
  Value scale = Value::none();
  if (values[5] && !values[5]->isNone()) {
    scale = *values[5];
  } else if (width) {
    factor = 1 / std::sqrt(static_cast<double>(width.getValue()));
  } else {
    mlir::Value size = runtimeNumber(Number::ofSize(queries[3]), where);
    scale = Number::ofValue(build("rsqrt", size, where));
  }
  if (auto *number = scale.number(); number && number->isKnown()) {
    decide(number->settings);
    factor = number->asDouble();
  } else if (!scale.isNone()) {
    if (!scale.number() && (!scale.asTensor() || rankOf(scale.asTensor()) != 0)) {
      error(where, "'scale' of '" + name + "' is one number, found " + describe(scale));
      return {};
    }
    q = binary(Tok::Star, Value::tensor(q), scale, where).asTensor();
    if (!q)
      return {};
  }
  auto attention =
      dl::AttentionOp::create(builder(), locationOf(where), q, k, v, mask, llvm::APFloat(factor), *causal);
  return Value::tensor(attention.getResult());
}
