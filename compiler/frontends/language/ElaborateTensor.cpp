//===- ElaborateTensor.cpp - types, broadcasting, arithmetic, indexing -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// The dialect is strict: equal types, no broadcasting. What the language does kindly is done here:
// numbers take the type of the tensor they meet, shapes are broadcast, a product of any ranks
// becomes one of two matrices.
//
//===----------------------------------------------------------------------===//

#include "Elaborator.h"

#include "mlir/IR/Diagnostics.h"
#include "llvm/ADT/StringSwitch.h"
#include <cmath>

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
using mlir::RankedTensorType;
using std::nullopt;
using std::optional;

//===----------------------------------------------------------------------===//
// Element types
//===----------------------------------------------------------------------===//

static constexpr StringRef dtypeNames[] = {"bool", "u8",  "i8",   "i16", "i32",
                                           "i64",  "f16", "bf16", "f32", "f64"};

StringRef language::nameOf(DType dtype) { return dtypeNames[static_cast<unsigned>(dtype)]; }

optional<DType> language::dtypeNamed(StringRef name) {
  for (auto [i, candidate] : llvm::enumerate(dtypeNames))
    if (candidate == name)
      return static_cast<DType>(i);
  return nullopt;
}

mlir::Type Elaborator::typeOf(DType dtype) {
  switch (dtype) {
  case DType::Bool:
    return mlir::IntegerType::get(&context, 1);
  case DType::U8:
    return mlir::IntegerType::get(&context, 8, mlir::IntegerType::Unsigned);
  case DType::I8:
    return mlir::IntegerType::get(&context, 8);
  case DType::I16:
    return mlir::IntegerType::get(&context, 16);
  case DType::I32:
    return mlir::IntegerType::get(&context, 32);
  case DType::I64:
    return mlir::IntegerType::get(&context, 64);
  case DType::F16:
    return mlir::Float16Type::get(&context);
  case DType::BF16:
    return mlir::BFloat16Type::get(&context);
  case DType::F32:
    return mlir::Float32Type::get(&context);
  case DType::F64:
    return mlir::Float64Type::get(&context);
  }
  llvm_unreachable("every dtype has a type");
}

DType Elaborator::dtypeOf(mlir::Value value) {
  mlir::Type type = mlir::getElementTypeOrSelf(value.getType());
  if (type.isUnsignedInteger(8))
    return DType::U8;
  if (auto integer = dyn_cast<mlir::IntegerType>(type))
    switch (integer.getWidth()) {
    case 1:
      return DType::Bool;
    case 8:
      return DType::I8;
    case 16:
      return DType::I16;
    case 32:
      return DType::I32;
    default:
      return DType::I64;
    }
  return type.isF16()    ? DType::F16
         : type.isBF16() ? DType::BF16
         : type.isF32()  ? DType::F32
                         : DType::F64;
}

/// Whether a whole number is a value of an integer type.
static bool isInRange(DType dtype, int64_t n) {
  switch (dtype) {
  case DType::Bool:
    return n == 0 || n == 1;
  case DType::U8:
    return n >= 0 && n <= UINT8_MAX;
  case DType::I8:
    return n == static_cast<int8_t>(n);
  case DType::I16:
    return n == static_cast<int16_t>(n);
  case DType::I32:
    return n == static_cast<int32_t>(n);
  default:
    return true;
  }
}

//===----------------------------------------------------------------------===//
// Building
//===----------------------------------------------------------------------===//

/// No tensor has more elements than this: their bytes must be far from overflowing.
static constexpr int64_t elementLimit = int64_t(1) << 40;

bool Elaborator::checkElements(ArrayRef<AffineExpr> shape, SMRange where) {
  int64_t count = 1;
  for (AffineExpr size : shape) {
    auto constant = dyn_cast<AffineConstantExpr>(size);
    if (!constant)
      continue;
    int64_t n = constant.getValue();
    if (n < 0) {
      error(where, "a size must not be negative, found " + Twine(n));
      return false;
    }
    if (n && count > elementLimit / n) {
      error(where, "the shape " + describeShape(shape) + " has more than 2^40 elements");
      return false;
    }
    count *= n;
  }
  if (shape.size() > 8) {
    error(where, "a tensor has at most 8 dimensions, not " + Twine(shape.size()));
    return false;
  }
  return true;
}

mlir::Value Elaborator::build(StringRef op, mlir::ValueRange operands, SMRange where,
                              ArrayRef<mlir::NamedAttribute> attributes, mlir::Type result) {
  mlir::OperationName name(("dl." + op).str(), &context);
  mlir::Location location = locationOf(where);
  auto dictionary = mlir::DictionaryAttr::get(&context, attributes);
  mlir::OperationState state(location, name);
  state.addOperands(operands);
  state.addAttributes(attributes);
  if (result) {
    state.addTypes(result);
  } else {
    auto *infer = name.getInterface<mlir::InferTypeOpInterface>();
    assert(infer && "an op that is built by name infers its type");
    // Shape rules ask the properties: make them from the attributes as the op itself will.
    size_t bytes = name.getOpPropertyByteSize();
    std::unique_ptr<std::max_align_t[]> storage(
        new std::max_align_t[bytes / sizeof(std::max_align_t) + 1]());
    mlir::OpaqueProperties properties(bytes ? storage.get() : nullptr);
    if (bytes) {
      name.initOpProperties(properties, nullptr);
      if (mlir::failed(name.setOpPropertiesFromAttribute(
              name, properties, dictionary, [&] { return mlir::emitError(location); })))
        return {};
    }
    llvm::SmallVector<mlir::Type> types;
    bool inferred = mlir::succeeded(
        infer->inferReturnTypes(&context, location, operands, dictionary, properties, {}, types));
    if (bytes)
      name.destroyOpProperties(properties);
    if (!inferred)
      return {};
    state.addTypes(types);
  }
  return builder().create(state)->getResult(0);
}

mlir::Value Elaborator::fill(RankedTensorType type, const Number &number, SMRange where) {
  if (isa<mlir::FloatType>(type.getElementType()))
    return dl::FillOp::create(builder(), locationOf(where), type, number.asDouble());
  return dl::FillOp::create(builder(), locationOf(where), type, *number.asWhole());
}

mlir::Value Elaborator::reshape(mlir::Value value, ArrayRef<AffineExpr> shape, SMRange where) {
  RankedTensorType type = tensorType(shape, dtypeOf(value));
  if (value.getType() == type)
    return value;
  return dl::ReshapeOp::create(builder(), locationOf(where), type, value);
}

mlir::Value Elaborator::convert(mlir::Value value, DType dtype, SMRange where) {
  if (dtypeOf(value) == dtype)
    return value;
  auto type = dl::withElementType(cast<RankedTensorType>(value.getType()), typeOf(dtype));
  return dl::ConvertOp::create(builder(), locationOf(where), type, value);
}

mlir::Value Elaborator::transpose(mlir::Value value, ArrayRef<int64_t> permutation, SMRange where) {
  bool identity = true;
  for (auto [i, axis] : llvm::enumerate(permutation))
    identity &= static_cast<int64_t>(i) == axis;
  if (identity)
    return value;
  return build("transpose", value, where,
               builder().getNamedAttr("permutation", builder().getDenseI64ArrayAttr(permutation)));
}

mlir::Value Elaborator::broadcast(mlir::Value value, ArrayRef<AffineExpr> shape, SMRange where) {
  Shape from = shapeOf(value);
  if (ArrayRef<AffineExpr>(from) == shape)
    return value;
  size_t offset = shape.size() - from.size();
  for (auto [i, size] : llvm::enumerate(from))
    if (size != constantSize(1))
      size = shape[offset + i];
  value = assumeShape(value, from, where);
  llvm::SmallVector<int64_t> axes;
  Shape kept;
  for (auto [i, size] : llvm::enumerate(from)) {
    if (size != shape[offset + i])
      continue; // a size of 1 that is repeated: its axis goes, and comes back as a new one
    axes.push_back(offset + i);
    kept.push_back(size);
  }
  value = reshape(value, kept, where);
  RankedTensorType type = tensorType(shape, dtypeOf(value));
  if (value.getType() == type)
    return value;
  return dl::BroadcastOp::create(builder(), locationOf(where), type, value, axes);
}

optional<Shape> Elaborator::broadcastShapes(ArrayRef<mlir::Value> values, StringRef what,
                                            SMRange where) {
  Shape result;
  AffineExpr one = constantSize(1);
  for (mlir::Value value : values) {
    Shape shape = shapeOf(value);
    if (shape.size() > result.size())
      result.insert(result.begin(), shape.size() - result.size(), one);
    size_t offset = result.size() - shape.size();
    for (auto [i, size] : llvm::enumerate(shape)) {
      AffineExpr &into = result[offset + i];
      if (into == size || size == one)
        continue;
      if (into != one) {
        std::string types;
        llvm::raw_string_ostream os(types);
        llvm::interleave(values, os, [&](mlir::Value v) { os << describeType(v); }, " and ");
        if (!equalSizes(into, size, what + " of " + types, where)) {
          error(where, what + " of " + types + ": sizes " + dl::sizeToString(into, dimNames) +
                           " and " + dl::sizeToString(size, dimNames) + " do not fit");
          return nullopt;
        }
        if (!isa<AffineConstantExpr>(size))
          continue;
      }
      into = size;
    }
  }
  return result;
}

//===----------------------------------------------------------------------===//
// Sizes that must fit
//===----------------------------------------------------------------------===//

std::string Elaborator::conditionKey(AffineExpr lhs, StringRef predicate, AffineExpr rhs) {
  auto textOf = [](const Twine &before, AffineExpr size) {
    std::string text = before.str();
    llvm::raw_string_ostream(text) << size;
    return text;
  };
  optional<Number> difference = fold(Tok::Minus, Number::ofSize(lhs), Number::ofSize(rhs));
  if (!difference || !difference->isSize())
    return textOf(textOf("", lhs) + " " + predicate + " ", rhs);
  std::string key = textOf(predicate + " ", difference->size);
  if (predicate != "eq" && predicate != "ne")
    return key;
  return std::min(key, textOf(predicate + " ", dl::normalizeSize(-difference->size)));
}

void Elaborator::checkOnEntry(AffineExpr lhs, StringRef predicate, AffineExpr rhs,
                              const Twine &words, SMRange where) {
  // Constants are evaluated again in the functions that use them.
  std::string key = conditionKey(lhs, predicate, rhs);
  if (function->isConstant || !function->checks.insert(key).second)
    return;
  std::string message = words.str();
  mlir::OpBuilder entry = function->atCheck();
  dl::CheckSizeOp::create(entry, locationOf(where), dl::sizeMap({lhs}, &context), predicate,
                          dl::sizeMap({rhs}, &context), message);
  if (asserted.contains(key))
    return;
  StringRef sign = llvm::StringSwitch<StringRef>(predicate)
                       .Case("eq", "==")
                       .Case("lt", "<")
                       .Case("le", "<=")
                       .Case("gt", ">")
                       .Default(">=");
  Frame *at;
  diagnostics.remark(userPlace(where, at), "checked on entry: " + dl::sizeToString(lhs, dimNames) +
                                               " " + sign + " " + dl::sizeToString(rhs, dimNames) +
                                               ", else \"" + message + "\"");
}

AffineExpr Elaborator::withMultiples(AffineExpr size) {
  bool isLarge = false; // coefficients must not overflow
  size.walk([&](AffineExpr part) {
    if (auto constant = dyn_cast<AffineConstantExpr>(part))
      isLarge |=
          constant.getValue() > (int64_t(1) << 40) || constant.getValue() < -(int64_t(1) << 40);
  });
  return isLarge ? size : dl::normalizeSize(size.replace(function->multiples));
}

bool Elaborator::equalSizes(AffineExpr a, AffineExpr b, const Twine &what, SMRange where) {
  if (a == b)
    return true;
  AffineExpr x = withMultiples(a), y = withMultiples(b);
  if (x == y)
    return true;
  if (optional<bool> equal = foldCompare(Tok::Equal, Number::ofSize(x), Number::ofSize(y)))
    return *equal;
  if (differUnlessEmpty(x, y))
    return false;
  checkOnEntry(a, "eq", b,
               what + ": sizes " + dl::sizeToString(a, dimNames) + " and " +
                   dl::sizeToString(b, dimNames) + " differ",
               where);
  return true;
}

mlir::Value Elaborator::assumeShape(mlir::Value value, ArrayRef<AffineExpr> shape, SMRange where) {
  RankedTensorType type = tensorType(shape, dtypeOf(value));
  if (value.getType() == type)
    return value;
  return dl::AssumeShapeOp::create(builder(), locationOf(where), type, value);
}

mlir::Value Elaborator::conform(mlir::Value value, ArrayRef<AffineExpr> shape, const Twine &what,
                                SMRange where) {
  Shape found = shapeOf(value);
  if (found.size() != shape.size())
    return {};
  std::string words = what.str();
  for (auto [size, wanted] : llvm::zip_equal(found, shape))
    if (!equalSizes(wanted, size, words, where))
      return {};
  return assumeShape(value, shape, where);
}

AffineExpr Elaborator::wholeSize(const Number &number, SMRange where) {
  if (number.denominator == 1)
    return number.size;
  AffineExpr quotient = dl::normalizeSize(number.size.floorDiv(number.denominator));
  checkOnEntry(dl::normalizeSize(number.size % number.denominator), "eq", constantSize(0),
               "the size " + text(number) + " is not a whole number", where);
  if (isa<mlir::AffineSymbolExpr>(number.size) && number.denominator <= 1 << 20) {
    function->multiples.try_emplace(number.size, dl::normalizeSize(quotient * number.denominator));
    function->multiples.try_emplace(quotient, quotient); // stays, with the N in it
  }
  return quotient;
}

//===----------------------------------------------------------------------===//
// Numbers and tensors
//===----------------------------------------------------------------------===//

mlir::Value Elaborator::runtimeNumber(const Number &number, SMRange where) {
  auto type = tensorType({}, DType::F64);
  if (number.isRuntime())
    return number.value;
  if (number.isKnown())
    return fill(type, Number::ofReal(number.asDouble()), where);
  mlir::Value size =
      number.isComputed()
          ? convert(computeWhole(number.size, where), DType::F64, where)
          : dl::SizeOp::create(builder(), locationOf(where), type,
                               dl::sizeMap({number.size}, &context));
  if (number.denominator == 1)
    return size;
  mlir::Value denominator =
      fill(type, Number::ofReal(static_cast<double>(number.denominator)), where);
  return dl::DivOp::create(builder(), locationOf(where), size, denominator);
}

mlir::Value Elaborator::materialize(const Number &number, DType dtype, ArrayRef<AffineExpr> shape,
                                    SMRange where, bool exact) {
  if (dtype == DType::Bool) {
    error(where, (number.isRuntime() ? "a number" : "the number " + text(number)) + " is no bool");
    return {};
  }
  if (number.isKnown()) {
    if (isFloat(dtype))
      return fill(tensorType(shape, dtype), number, where);
    optional<int64_t> whole = number.asWhole();
    if (!whole) {
      error(where, text(number) + " is not a whole number, and it meets " + nameOf(dtype));
      return {};
    }
    if (!isInRange(dtype, *whole)) {
      error(where, text(number) + " is out of the range of " + nameOf(dtype));
      return {};
    }
    return fill(tensorType(shape, dtype), number, where);
  }
  mlir::Value value;
  if (number.isSize() && !isFloat(dtype)) {
    if (number.denominator != 1) {
      error(where, text(number) + " may not be a whole number, and it meets " + nameOf(dtype));
      return {};
    }
    value = computeWhole(number.size, where);
  } else {
    if (!isFloat(dtype) && exact) {
      error(where, "a number that is known at run time only meets " + nameOf(dtype) +
                       ": write a conversion, for example f32(…)");
      return {};
    }
    value = runtimeNumber(number, where);
  }
  return broadcast(convert(value, dtype, where), shape, where);
}

mlir::Value Elaborator::materializeArray(const ArrayValue &array, SMRange where) {
  auto type = RankedTensorType::get(array.shape, typeOf(array.dtype));
  mlir::DenseElementsAttr elements;
  if (array.dtype == DType::Bool) { // bits there, bytes here
    llvm::SmallVector<bool> bools;
    for (char byte : array.bytes)
      bools.push_back(byte != 0);
    elements = mlir::DenseElementsAttr::get(type, ArrayRef<bool>(bools));
  } else {
    elements = mlir::DenseElementsAttr::getFromRawBuffer(type, array.bytes);
  }
  return dl::ConstantOp::create(builder(), locationOf(where), type,
                                cast<mlir::ElementsAttr>(elements));
}

mlir::Value Elaborator::toTensor(const Value &value, SMRange where, StringRef what) {
  DType real = options.f64 ? DType::F64 : DType::F32;
  if (value.isPoison())
    return {};
  if (mlir::Value tensor = value.asTensor())
    return tensor;
  if (auto *number = value.number()) {
    bool whole =
        (number->kind == Number::Kind::Fraction || number->isSize()) && number->denominator == 1;
    return materialize(*number, whole ? DType::I32 : real, {}, where);
  }
  if (auto *truth = value.as<BoolValue>())
    return fill(tensorType({}, DType::Bool), Number::whole(truth->value), where);
  if (auto *array = value.as<std::shared_ptr<ArrayValue>>())
    return materializeArray(**array, where);
  error(where, (what.empty() ? "expected a tensor, found " : what + " must be a tensor, not ") +
                   describe(value));
  return {};
}

/// The element type that operands agree on; numbers follow the tensors.
static DType commonType(ArrayRef<Value> values, DType real) {
  bool whole = true;
  for (const Value &value : values) {
    if (auto *number = value.number())
      whole &=
          (number->kind == Number::Kind::Fraction || number->isSize()) && number->denominator == 1;
    if (value.is<BoolValue>())
      return DType::Bool;
  }
  return whole ? DType::I32 : real;
}

bool Elaborator::unify(llvm::MutableArrayRef<Value> values,
                       llvm::SmallVectorImpl<mlir::Value> &into, StringRef what, SMRange where) {
  optional<DType> dtype;
  into.clear();
  for (Value &value : values) {
    if (value.isPoison())
      return false;
    if (value.is<std::shared_ptr<ArrayValue>>())
      value = Value::tensor(toTensor(value, where));
    mlir::Value tensor = value.asTensor();
    if (!tensor) {
      if (!value.number() && !value.is<BoolValue>()) {
        error(where, what + " needs tensors or numbers, found " + describe(value));
        return false;
      }
      continue;
    }
    if (dtype && *dtype != dtypeOf(tensor)) {
      std::string first;
      for (const Value &other : values)
        if (other.asTensor() && dtypeOf(other.asTensor()) == *dtype && first.empty())
          first = describe(other);
      error(where, what + " of " + first + " and " + describe(value) +
                       ": nothing converts unasked; write a conversion, for example " +
                       nameOf(*dtype) + "(…)");
      return false;
    }
    dtype = dtypeOf(tensor);
  }
  if (!dtype)
    dtype = commonType(values, options.f64 ? DType::F64 : DType::F32);
  for (const Value &value : values) {
    mlir::Value tensor = value.asTensor();
    if (auto *number = value.number())
      tensor = materialize(*number, *dtype, {}, where);
    else if (auto *truth = value.as<BoolValue>())
      tensor = *dtype == DType::Bool
                   ? fill(tensorType({}, DType::Bool), Number::whole(truth->value), where)
                   : mlir::Value();
    if (!tensor) {
      if (value.is<BoolValue>())
        error(where, what + " of a bool and " + nameOf(*dtype));
      return false;
    }
    into.push_back(tensor);
  }
  return true;
}

bool Elaborator::unifyShapes(llvm::MutableArrayRef<Value> values,
                             llvm::SmallVectorImpl<mlir::Value> &into, StringRef what,
                             SMRange where) {
  // Numbers are filled at the result's shape: find it first, from the tensors.
  llvm::SmallVector<Value> tensors;
  for (Value &value : values) {
    if (value.is<std::shared_ptr<ArrayValue>>())
      value = Value::tensor(toTensor(value, where));
    if (value.asTensor())
      tensors.push_back(value);
  }
  if (tensors.empty())
    return unify(values, into, what, where);
  if (!unify(tensors, into, what, where))
    return false;
  DType dtype = dtypeOf(into.front());
  optional<Shape> shape = broadcastShapes(into, what, where);
  if (!shape)
    return false;
  into.clear();
  for (const Value &value : values) {
    mlir::Value operand;
    if (mlir::Value tensor = value.asTensor()) {
      operand = broadcast(tensor, *shape, where);
    } else if (auto *number = value.number()) {
      operand = materialize(*number, dtype, *shape, where);
    } else if (auto *truth = value.as<BoolValue>(); truth && dtype == DType::Bool) {
      operand = fill(tensorType(*shape, dtype), Number::whole(truth->value), where);
    } else if (!value.isPoison()) {
      error(where, what + " of " + describe(value) + " and " + describe(tensors.front()));
    }
    if (!operand)
      return false;
    into.push_back(operand);
  }
  return true;
}

mlir::Value Elaborator::fit(const Value &value, DType dtype, ArrayRef<AffineExpr> shape,
                            StringRef what, SMRange where) {
  if (value.isPoison())
    return {};
  if (auto *number = value.number()) {
    if (dtype != DType::Bool)
      return materialize(*number, dtype, shape, where, /*exact=*/false);
  } else if (auto *truth = value.as<BoolValue>()) {
    if (dtype == DType::Bool)
      return fill(tensorType(shape, dtype), Number::whole(truth->value), where);
  } else if (value.asTensor() || value.is<std::shared_ptr<ArrayValue>>()) {
    mlir::Value tensor = toTensor(value, where);
    if (dtypeOf(tensor) == dtype && rankOf(tensor) == 0)
      return broadcast(tensor, shape, where);
    if (dtypeOf(tensor) == dtype)
      if (mlir::Value same = conform(tensor, shape,
                                     what + " is " + describeType(dtype, shape) + " and becomes " +
                                         describeType(tensor),
                                     where))
        return same;
    error(where, what + " is " + describeType(dtype, shape) + " and cannot become " +
                     describeType(tensor));
    return {};
  }
  error(where,
        what + " is " + describeType(dtype, shape) + " and cannot become " + describe(value));
  return {};
}

optional<Number> Elaborator::numberOf(const Value &value, StringRef what, SMRange where) {
  if (auto *number = value.number())
    return *number;
  if (!value.isPoison())
    error(where, what + " needs a number, found " + describe(value));
  return nullopt;
}

optional<int64_t> Elaborator::wholeOf(const Value &value, StringRef what, SMRange where) {
  optional<Number> number = numberOf(value, what, where);
  if (!number)
    return nullopt;
  decide(number->settings);
  if (optional<int64_t> whole = number->asWhole())
    return whole;
  error(where, what + " must be a whole number" +
                   (number->isKnown() ? "" : " that is known while compiling") + ", found " +
                   text(*number));
  return nullopt;
}

optional<bool> Elaborator::boolOf(const Value &value, StringRef what, SMRange where) {
  if (auto *truth = value.as<BoolValue>()) {
    decide(truth->settings);
    return truth->value;
  }
  if (!value.isPoison())
    error(where, what + " must be true or false, found " + describe(value));
  return nullopt;
}

AffineExpr Elaborator::sizeOf(const Value &value, SMRange where) {
  optional<Number> number = numberOf(value, "a size", where);
  if (!number)
    return {};
  decide(number->settings);
  if (optional<int64_t> whole = number->asWhole()) {
    if (*whole >= 0)
      return constantSize(*whole);
    error(where, "a size must not be negative, found " + Twine(*whole));
    return {};
  }
  if (number->isKnown()) {
    error(where, "a size must be a whole number, found " + text(*number));
    return {};
  }
  if (number->isRuntime() || number->isComputed()) {
    error(where,
          "a size must be known when the function is entered; this number is computed in it");
    return {};
  }
  return wholeSize(*number, where);
}

optional<Shape> Elaborator::shapeListOf(const Value &value, SMRange where) {
  auto *list = value.elements();
  if (!list) {
    if (!value.isPoison())
      error(where, "a shape is a list of sizes, found " + describe(value));
    return nullopt;
  }
  Shape shape;
  for (const Value &element : *list) {
    shape.push_back(sizeOf(element, where));
    if (!shape.back())
      return nullopt;
  }
  if (!checkElements(shape, where))
    return nullopt;
  return shape;
}

//===----------------------------------------------------------------------===//
// Arithmetic
//===----------------------------------------------------------------------===//

static StringRef spelling(Tok op) { return describe(op); }

static bool isLayerValue(const Value &value) { return value.form() || isWholeLayer(value); }

static bool isArray(const Value &value) {
  return value.asTensor() || value.is<std::shared_ptr<ArrayValue>>();
}

static StringRef opName(Tok op) {
  switch (op) {
  case Tok::Plus:
    return "add";
  case Tok::Minus:
    return "sub";
  case Tok::Star:
    return "mul";
  case Tok::Slash:
    return "div";
  case Tok::Percent:
    return "rem";
  default:
    llvm_unreachable("no op of the dialect");
  }
}

Value Elaborator::binary(Tok op, Value a, Value b, SMRange where) {
  if (a.isPoison() || b.isPoison())
    return {};
  bool joins = op == Tok::Plus && a.elements() && b.elements();
  // Two lists are joined where they are declared; in a function layers add up.
  if (op == Tok::At && (isLayerValue(a) || isLayerValue(b))) {
    error(where, "'@' of " + describe(a) + " and " + describe(b) +
                     ": arithmetic of layers works element by element");
    return {};
  }
  if ((isLayerValue(a) || isLayerValue(b)) && !(joins && declaring))
    return mapVariables({a, b}, spelling(op), where, [&](llvm::MutableArrayRef<Value> values) {
      return binary(op, values[0], values[1], where);
    });
  if (joins) {
    std::vector<Value> both = *a.elements();
    both.insert(both.end(), b.elements()->begin(), b.elements()->end());
    return Value::list(std::move(both));
  }
  const Number *x = a.number(), *y = b.number();
  if (x && y) {
    if ((op == Tok::Slash || op == Tok::Percent) && y->isZero()) {
      error(where, "division by zero");
      return {};
    }
    if (op == Tok::At) {
      error(where, "'@' of numbers");
      return {};
    }
    if (optional<Number> result = fold(op, *x, *y))
      return *result;
    return Number::ofValue(
        build(opName(op), {runtimeNumber(*x, where), runtimeNumber(*y, where)}, where));
  }
  if (!(x || isArray(a)) || !(y || isArray(b))) {
    // A bool of compile time is named as one.
    auto named = [&](const Value &value) {
      return value.is<BoolValue>() ? std::string("bool") : describe(value);
    };
    error(where, spelling(op) + " of " + named(a) + " and " + named(b));
    return {};
  }
  for (const Value *value : {&a, &b}) {
    if (!isArray(*value))
      continue;
    DType dtype = value->asTensor() ? dtypeOf(value->asTensor())
                                    : (*value->as<std::shared_ptr<ArrayValue>>())->dtype;
    if (dtype == DType::Bool || dtype == DType::U8) {
      error(where,
            spelling(op) + " of " + nameOf(dtype) + ": write a conversion, for example f32(…)");
      return {};
    }
    if (op == Tok::Slash && isInteger(dtype)) {
      error(where, "'/' of integers (" + describe(*value) +
                       "): write floor_divide(a, b), or f32(a) / f32(b)");
      return {};
    }
  }
  if (op == Tok::At) {
    Value operands[] = {a, b};
    llvm::SmallVector<mlir::Value> unified;
    if (x || y) {
      error(where, "'@' of " + describe(a) + " and " + describe(b));
      return {};
    }
    if (!unify(operands, unified, "'@'", where))
      return {};
    return matmul(unified[0], unified[1], where);
  }
  Value operands[] = {a, b};
  llvm::SmallVector<mlir::Value> unified;
  if (!unifyShapes(operands, unified, spelling(op), where))
    return {};
  return Value::tensor(build(opName(op), unified, where));
}

static bool equal(const Value &a, const Value &b) {
  if (auto *x = a.as<BoolValue>())
    return b.as<BoolValue>() && x->value == b.as<BoolValue>()->value;
  if (auto *x = a.as<StringValue>())
    return b.as<StringValue>() && x->text == b.as<StringValue>()->text;
  if (auto *x = a.as<DType>())
    return b.as<DType>() && *x == *b.as<DType>();
  if (auto *x = a.number())
    return b.number() && foldCompare(Tok::Equal, *x, *b.number()).value_or(false);
  if (auto *x = a.as<ExternValue>())
    return b.as<ExternValue>() && x->function == b.as<ExternValue>()->function;
  if (auto *x = a.as<FunctionValue>())
    return b.as<FunctionValue>() && x->decl == b.as<FunctionValue>()->decl &&
           x->owner == b.as<FunctionValue>()->owner;
  if (auto *x = a.as<BuiltinValue>())
    return b.as<BuiltinValue>() && x->name == b.as<BuiltinValue>()->name;
  if (auto *x = a.as<LayerMaker>())
    return b.as<LayerMaker>() && x->decl == b.as<LayerMaker>()->decl;
  if (a.layer())
    return a.layer() == b.layer();
  if (auto *x = a.elements()) {
    auto *y = b.elements();
    return y && llvm::equal(*x, *y, equal);
  }
  return a.isNone() && b.isNone();
}

Value Elaborator::compare(Tok op, Value a, Value b, SMRange where) {
  if (a.isPoison() || b.isPoison())
    return {};
  const Number *x = a.number(), *y = b.number();
  if (x && y)
    if (optional<bool> result = foldCompare(op, *x, *y))
      return Value::boolean(*result, x->settings | y->settings);
  bool tensors = (x || isArray(a) || a.is<BoolValue>()) && (y || isArray(b) || b.is<BoolValue>()) &&
                 !(a.is<BoolValue>() && b.is<BoolValue>());
  if (!tensors || (a.is<BoolValue>() && y) || (b.is<BoolValue>() && x)) {
    bool isEquality = op == Tok::Equal || op == Tok::NotEqual;
    if (!isEquality) {
      error(where, spelling(op) + " of " + describe(a) + " and " + describe(b));
      return {};
    }
    auto settings = [](const Value &value) {
      auto *truth = value.as<BoolValue>();
      return truth ? truth->settings : value.number() ? value.number()->settings : 0;
    };
    return Value::boolean(equal(a, b) == (op == Tok::Equal), settings(a) | settings(b));
  }
  static constexpr dl::ComparePredicate predicates[] = {
      dl::ComparePredicate::eq, dl::ComparePredicate::ne, dl::ComparePredicate::lt,
      dl::ComparePredicate::le, dl::ComparePredicate::gt, dl::ComparePredicate::ge};
  auto predicate = predicates[static_cast<int>(op) - static_cast<int>(Tok::Equal)];
  llvm::SmallVector<mlir::Value> unified;
  if (x && y) {
    unified = {runtimeNumber(*x, where), runtimeNumber(*y, where)};
  } else {
    Value operands[] = {a, b};
    if (!unifyShapes(operands, unified, spelling(op), where))
      return {};
    if (dtypeOf(unified[0]) == DType::Bool && op != Tok::Equal && op != Tok::NotEqual) {
      error(where, spelling(op) + " of bool: only '==' and '!=' compare bools");
      return {};
    }
  }
  mlir::Value result =
      dl::CompareOp::create(builder(), locationOf(where), unified[0], unified[1], predicate);
  return Value::tensor(result);
}

Value Elaborator::negate(const Value &value, SMRange where) {
  if (value.isPoison())
    return {};
  if (isLayerValue(value))
    return mapVariables(value, "'-'", where, [&](llvm::MutableArrayRef<Value> values) {
      return negate(values[0], where);
    });
  if (auto *number = value.number()) {
    if (optional<Number> result = foldNegate(*number))
      return *result;
    return Number::ofValue(build("neg", number->value, where));
  }
  if (!isArray(value)) {
    error(where, "'-' of " + (value.is<BoolValue>() ? "bool" : describe(value)));
    return {};
  }
  mlir::Value tensor = toTensor(value, where);
  DType dtype = dtypeOf(tensor);
  if (dtype == DType::Bool || dtype == DType::U8) {
    error(where, "'-' of " + nameOf(dtype) + ": write a conversion, for example f32(…)");
    return {};
  }
  return Value::tensor(build("neg", tensor, where));
}

Value Elaborator::power(Value a, Value b, SMRange where) {
  if (a.isPoison() || b.isPoison())
    return {};
  if (isLayerValue(a) || isLayerValue(b))
    return mapVariables({a, b}, "'**'", where, [&](llvm::MutableArrayRef<Value> values) {
      return power(values[0], values[1], where);
    });
  const Number *x = a.number(), *y = b.number();
  if (x && y) {
    if (x->isZero() && y->isKnown() && y->asDouble() < 0) {
      error(where, "division by zero");
      return {};
    }
    if (optional<Number> result = fold(Tok::StarStar, *x, *y))
      return *result;
    return Number::ofValue(
        build("pow", {runtimeNumber(*x, where), runtimeNumber(*y, where)}, where));
  }
  if (!(x || isArray(a)) || !(y || isArray(b))) {
    error(where, "'**' of " + describe(a) + " and " + describe(b));
    return {};
  }
  if (isArray(a))
    a = Value::tensor(toTensor(a, where));
  if (isArray(b))
    b = Value::tensor(toTensor(b, where));
  for (const Value *value : {&a, &b})
    if (mlir::Value tensor = value->asTensor())
      if (DType dtype = dtypeOf(tensor); dtype == DType::Bool || dtype == DType::U8) {
        error(where, "'**' of " + nameOf(dtype) + ": write a conversion, for example f32(…)");
        return {};
      }
  mlir::Value base = a.asTensor(), exponent = b.asTensor();
  if (base && isInteger(dtypeOf(base))) {
    optional<int64_t> whole = y ? y->asWhole() : nullopt;
    if (!whole || *whole < 0 || *whole > 62) {
      error(where, "integers have whole powers from 0 to 62; write f32(x) ** …");
      return {};
    }
    mlir::Value result = fill(cast<RankedTensorType>(base.getType()), Number::whole(1), where);
    for (int64_t i = 0; i < *whole; ++i)
      result = i == 0 ? base : build("mul", {result, base}, where);
    return Value::tensor(result);
  }
  // The exponent is the one thing that converts unasked (rule 6).
  if (exponent && isInteger(dtypeOf(exponent)))
    b = Value::tensor(convert(exponent,
                              base          ? dtypeOf(base)
                              : options.f64 ? DType::F64
                                            : DType::F32,
                              where));
  Value operands[] = {a, b};
  llvm::SmallVector<mlir::Value> unified;
  if (!unifyShapes(operands, unified, "'**'", where))
    return {};
  return Value::tensor(build("pow", unified, where));
}

Value Elaborator::matmul(mlir::Value a, mlir::Value b, SMRange where) {
  Shape x = shapeOf(a), y = shapeOf(b);
  auto refuse = [&](const Twine &why) {
    error(where, "'@' of " + describeType(a) + " and " + describeType(b) + why);
    return Value();
  };
  if (x.empty() || y.empty())
    return refuse(": a scalar is multiplied by '*'");
  if (!isFloat(dtypeOf(a)))
    return refuse(": products of matrices are of floating point; write f32(…)");
  std::string types = "'@' of " + describeType(a) + " and " + describeType(b);
  AffineExpr &columns = x.back(), &rows = y.size() == 1 ? y[0] : y[y.size() - 2];
  if (!equalSizes(columns, rows, types, where))
    return refuse(": " + Twine(dl::sizeToString(columns, dimNames)) + " columns meet " +
                  dl::sizeToString(rows, dimNames) + " rows");
  AffineExpr inner = isa<AffineConstantExpr>(rows) ? rows : columns;
  columns = rows = inner;
  a = assumeShape(a, x, where);
  b = assumeShape(b, y, where);
  AffineExpr one = constantSize(1);
  // A vector is a matrix of one row or column, which goes again.
  bool dropRow = x.size() == 1, dropColumn = y.size() == 1;
  if (dropRow)
    x.insert(x.begin(), one);
  if (dropColumn)
    y.push_back(one);
  AffineExpr m = x[x.size() - 2], n = y.back();
  Shape batchX(x.begin(), x.end() - 2), batchY(y.begin(), y.end() - 2), batch, result;
  if (batchY.empty()) {
    // One matrix on the right: all rows on the left are one matrix too.
    Shape flat{dl::productOf(ArrayRef<AffineExpr>(x).drop_back(), &context), inner};
    mlir::Value product = build("matmul", {reshape(a, flat, where), reshape(b, y, where)}, where);
    if (!product)
      return {};
    result.append(batchX.begin(), batchX.end());
    if (!dropRow)
      result.push_back(m);
    if (!dropColumn)
      result.push_back(n);
    return Value::tensor(reshape(product, result, where));
  }
  size_t rank = std::max(batchX.size(), batchY.size());
  for (size_t i = 0; i < rank; ++i) {
    AffineExpr p = i + batchX.size() >= rank ? batchX[i + batchX.size() - rank] : one;
    AffineExpr q = i + batchY.size() >= rank ? batchY[i + batchY.size() - rank] : one;
    if (p != one && q != one && !equalSizes(p, q, types, where))
      return refuse(": sizes " + Twine(dl::sizeToString(p, dimNames)) + " and " +
                    dl::sizeToString(q, dimNames) + " do not fit");
    batch.push_back(p == one || (q != one && isa<AffineConstantExpr>(q)) ? q : p);
  }
  Shape left = batch, right = batch;
  left.append({m, inner});
  right.append({inner, n});
  mlir::Value product = build(
      "matmul",
      {broadcast(reshape(a, x, where), left, where), broadcast(reshape(b, y, where), right, where)},
      where);
  if (!product)
    return {};
  result = batch;
  if (!dropRow)
    result.push_back(m);
  if (!dropColumn)
    result.push_back(n);
  return Value::tensor(reshape(product, result, where));
}

Value Elaborator::elementwise(StringRef name, llvm::MutableArrayRef<Value> operands,
                              SMRange where) {
  std::string what = ("'" + name + "'").str();
  bool numbers = true;
  for (const Value &operand : operands) {
    if (operand.isPoison())
      return {};
    if (isLayerValue(operand))
      return mapVariables(operands, what, where, [&](llvm::MutableArrayRef<Value> values) {
        return elementwise(name, values, where);
      });
    numbers &= operand.number() != nullptr;
  }
  if (numbers) {
    const Number &a = *operands[0].number();
    if (operands.size() == 1)
      if (optional<Number> result = foldFunction(name, a))
        return *result;
    if (operands.size() == 2) {
      const Number &b = *operands[1].number();
      if (name == "maximum" || name == "minimum") {
        if (optional<bool> less = foldCompare(Tok::Less, a, b)) {
          Number result = *less == (name == "minimum") ? a : b;
          result.settings = a.settings | b.settings;
          return result;
        }
      }
      if (name == "floor_divide" && b.isZero()) {
        error(where, "division by zero");
        return {};
      }
      if (name == "floor_divide" && a.isSize() && a.denominator == 1 && b.asWhole() &&
          *b.asWhole() > 0)
        return Number::ofSize(a.size.floorDiv(*b.asWhole()));
      if (name == "floor_divide")
        if (optional<Number> quotient = fold(Tok::Slash, a, b))
          if (optional<Number> result = foldFunction("floor", *quotient))
            return *result;
    }
    // A number of the step: computed in f64.
    llvm::SmallVector<mlir::Value> values;
    for (const Value &operand : operands)
      values.push_back(runtimeNumber(*operand.number(), where));
    mlir::Value result = build(name, values, where);
    if (result && dtypeOf(result) == DType::F64)
      return Number::ofValue(result);
    return result ? Value::tensor(result) : Value();
  }
  llvm::SmallVector<mlir::Value> unified;
  if (!unifyShapes(operands, unified, what, where))
    return {};
  // The op itself says which element types it takes.
  mlir::OperationName op(("dl." + name).str(), &context);
  mlir::Value result = build(name, unified, where);
  if (!result)
    return {};
  bool valid;
  {
    mlir::ScopedDiagnosticHandler silent(&context,
                                         [](mlir::Diagnostic &) { return mlir::success(); });
    valid = mlir::succeeded(op.verifyInvariants(result.getDefiningOp()));
  }
  if (valid)
    return Value::tensor(result);
  DType dtype = dtypeOf(unified[0]);
  result.getDefiningOp()->erase();
  error(where, what + " of " + describeType(unified[0]) +
                   (isFloat(dtype) ? ": it needs integers or bools"
                    : dtype == DType::Bool || dtype == DType::U8
                        ? ": write a conversion, for example f32(…)"
                        : ": it needs floating point; write f32(…)"));
  return {};
}

mlir::Value Elaborator::reduce(StringRef name, mlir::Value value, ArrayRef<int64_t> axes, bool keep,
                               SMRange where) {
  mlir::Value result = build(name, value, where,
                             builder().getNamedAttr("axes", builder().getDenseI64ArrayAttr(axes)));
  if (!result || !keep)
    return result;
  Shape shape = shapeOf(value);
  for (int64_t axis : axes)
    shape[axis] = constantSize(1);
  return reshape(result, shape, where);
}

mlir::Value Elaborator::meanOver(mlir::Value value, ArrayRef<int64_t> axes, bool keep,
                                 SMRange where) {
  Shape shape = shapeOf(value), reduced;
  for (int64_t axis : axes)
    reduced.push_back(shape[axis]);
  mlir::Value total = reduce("sum", value, axes, keep, where);
  if (!total)
    return {};
  Number count = Number::ofSize(dl::productOf(reduced, &context));
  if (count.isZero())
    count = Number::ofReal(0); // the mean of nothing is 0 / 0, not an error of compile time
  mlir::Value divisor = materialize(count, dtypeOf(value), shapeOf(total), where);
  return divisor ? build("div", {total, divisor}, where) : mlir::Value();
}

//===----------------------------------------------------------------------===//
// Indexing
//===----------------------------------------------------------------------===//

optional<Elaborator::Region>
Elaborator::regionOf(mlir::Value value, ArrayRef<ast::Subscript> subscripts, SMRange where) {
  Shape shape = shapeOf(value);
  // What each subscript is; a mask is refused by name.
  llvm::SmallVector<Value> elements(subscripts.size());
  size_t consumed = 0, dots = 0;
  bool hasTensors = false;
  for (auto [i, subscript] : llvm::enumerate(subscripts)) {
    if (subscript.kind == ast::Subscript::Kind::Ellipsis) {
      if (++dots > 1) {
        error(subscript.range, "'...' stands twice in one index");
        return nullopt;
      }
      continue;
    }
    if (subscript.kind == ast::Subscript::Kind::Element) {
      elements[i] = evaluate(subscript.element);
      if (elements[i].isPoison())
        return nullopt;
      if (elements[i].isNone())
        continue;
      if (isArray(elements[i])) {
        mlir::Value tensor = toTensor(elements[i], subscript.range);
        DType dtype = dtypeOf(tensor);
        if (dtype == DType::Bool || isFloat(dtype)) {
          error(subscript.range,
                dtype == DType::Bool
                    ? "an index of bools gives a size that depends on data: a mask is for 'where'"
                    : "an index must be a whole number, found " + describe(elements[i]));
          return nullopt;
        }
        elements[i] = Value::tensor(tensor);
        hasTensors = true;
      } else if (elements[i].is<BoolValue>() || !elements[i].number()) {
        error(subscript.range, "an index must be a whole number, found " + describe(elements[i]));
        return nullopt;
      }
    }
    ++consumed;
  }
  if (consumed > shape.size()) {
    error(where, "a tensor " + describeType(value) + " has no " + Twine(consumed) + " indices");
    return nullopt;
  }

  Region region;
  AffineExpr zero = constantSize(0), one = constantSize(1);
  size_t axis = 0;
  auto whole = [&](size_t count) {
    for (; count; --count, ++axis) {
      region.starts.push_back(zero);
      region.strides.push_back(1);
      region.sizes.push_back(shape[axis]);
      region.shape.push_back(shape[axis]);
    }
  };
  // Decided while compiling, or checked on entry.
  auto require = [&](AffineExpr lhs, StringRef predicate, AffineExpr rhs, const Twine &message,
                     SMRange place) {
    Tok op = predicate == "lt" ? Tok::Less : predicate == "le" ? Tok::LessEqual : Tok::GreaterEqual;
    optional<bool> holds =
        foldCompare(op, Number::ofSize(withMultiples(lhs)), Number::ofSize(withMultiples(rhs)));
    if (!holds)
      checkOnEntry(lhs, predicate, rhs, message, place);
    else if (!*holds)
      error(place, message);
    return !holds || *holds;
  };
  // A place counts from the end where it is negative; one like -M is where M is not 0.
  auto place = [&](const Number &n, SMRange range, AffineExpr size) {
    if (optional<int64_t> whole = n.asWhole())
      return *whole < 0 ? dl::normalizeSize(size + *whole) : constantSize(*whole);
    if (!foldCompare(Tok::LessEqual, n, Number::whole(0)).value_or(false))
      return n.size;
    require(n.size, "lt", zero, "the place " + text(n) + " counts from the end, and is 0", range);
    return dl::normalizeSize(size + n.size);
  };
  // The axes of tensors of indices stand where the first of these does, or in front where others
  // come between them. Numbers beside them count as such, as in NumPy.
  auto isPlace = [&](size_t i) {
    return hasTensors && subscripts[i].kind == ast::Subscript::Kind::Element &&
           !elements[i].isNone();
  };
  llvm::SmallVector<Place> places;
  size_t shapePosition = 0;
  auto addPlace = [&](mlir::Value tensor, AffineExpr start, SMRange range) {
    if (places.empty()) {
      size_t first = 0, last = subscripts.size(), count = 0;
      while (!isPlace(first))
        ++first;
      while (!isPlace(last - 1))
        --last;
      for (size_t i = first; i < last; ++i)
        count += isPlace(i);
      bool together = count == last - first;
      shapePosition = together ? region.shape.size() : 0;
      region.position = together ? axis : 0;
    }
    places.push_back({static_cast<int64_t>(axis), tensor, start, range});
    region.starts.push_back(zero);
    region.strides.push_back(1);
    region.sizes.push_back(shape[axis]);
    ++axis;
  };
  for (auto [subscript, element] : llvm::zip(subscripts, elements)) {
    if (subscript.kind == ast::Subscript::Kind::Ellipsis) {
      whole(shape.size() - consumed);
      continue;
    }
    if (subscript.kind == ast::Subscript::Kind::Element && element.asTensor()) {
      addPlace(element.asTensor(), {}, subscript.range);
      continue;
    }
    if (subscript.kind == ast::Subscript::Kind::Element && element.isNone()) {
      region.shape.push_back(one);
      continue;
    }
    AffineExpr size = shape[axis];
    auto constant = dyn_cast<AffineConstantExpr>(size);
    std::string sizeText = dl::sizeToString(size, dimNames);
    // A place that the function computes.
    auto wholePlace = [&](const Number &number, SMRange range) {
      if (number.denominator == 1)
        return true;
      error(range, "an index must be a whole number, found a quotient; write floor_divide(a, b)");
      return false;
    };
    int64_t dropped = llvm::count_if(region.computed, [](auto &slice) { return slice.drops; });
    if (subscript.kind == ast::Subscript::Kind::Element && element.number()->isComputed()) {
      const Number &number = *element.number();
      if (!wholePlace(number, subscript.range))
        return nullopt;
      decide(number.settings);
      if (hasTensors) {
        addPlace(computeWhole(number.size, subscript.range), {}, subscript.range);
        continue;
      }
      region.computed.push_back(
          {static_cast<int64_t>(axis) - dropped, number.size, one, /*drops=*/true, subscript.range});
      ++axis;
      continue;
    }
    if (subscript.kind == ast::Subscript::Kind::Slice) {
      optional<Number> ends[2];
      bool isComputed = false, failed = false;
      for (auto [expr, end] : {std::pair(subscript.start, &ends[0]), std::pair(subscript.stop, &ends[1])}) {
        if (!expr)
          continue;
        *end = numberOf(evaluate(expr), "a slice", expr->range);
        failed |= !*end;
        isComputed |= *end && (*end)->isComputed();
      }
      if (failed)
        return nullopt;
      if (isComputed) {
        Number first = ends[0].value_or(Number::whole(0)), last = ends[1].value_or(Number::ofSize(size));
        optional<Number> length = fold(Tok::Minus, last, first);
        bool isSize = length && !length->isComputed() && !length->isRuntime() && length->denominator == 1;
        if (!isSize || subscript.step) {
          error(subscript.range, subscript.step
                                     ? "a slice with ends that are known at run time only has no step"
                                     : "the length of a slice is a size; that of this one is known at "
                                       "run time only");
          return nullopt;
        }
        AffineExpr count = sizeOf(*length, subscript.range);
        if (!count)
          return nullopt;
        AffineExpr start = first.isSize() ? first.size : constantSize(first.asWhole().value_or(0));
        if ((first.isSize() && !wholePlace(first, subscript.range)))
          return nullopt;
        region.computed.push_back(
            {static_cast<int64_t>(axis) - dropped, start, count, /*drops=*/false, subscript.range});
        region.starts.push_back(zero);
        region.strides.push_back(1);
        region.sizes.push_back(count);
        region.shape.push_back(count);
        ++axis;
        continue;
      }
    }
    if (subscript.kind == ast::Subscript::Kind::Element) {
      const Number &number = *element.number();
      decide(number.settings);
      AffineExpr start;
      if (optional<int64_t> n = number.asWhole()) {
        start = *n < 0 ? dl::normalizeSize(size + *n) : constantSize(*n);
        bool outside = constant && (*n >= constant.getValue() || *n < -constant.getValue());
        if (outside) {
          error(subscript.range, "index " + Twine(*n) + " is out of range for size " + sizeText);
          return nullopt;
        }
        if (!constant)
          checkOnEntry(size, *n < 0 ? "ge" : "gt", constantSize(*n < 0 ? -*n : *n),
                       "index " + Twine(*n) + " is out of range for size " + sizeText,
                       subscript.range);
      } else if (number.isSize()) {
        start = place(Number::ofSize(wholeSize(number, subscript.range)), subscript.range, size);
        std::string message = "index " + text(number) + " is out of range for size " + sizeText;
        if (!require(start, "lt", size, message, subscript.range) ||
            !require(start, "ge", zero, message, subscript.range))
          return nullopt;
      } else {
        error(subscript.range, "an index must be a whole number, found " + text(number));
        return nullopt;
      }
      if (hasTensors) {
        addPlace({}, start, subscript.range);
        continue;
      }
      region.starts.push_back(start);
      region.strides.push_back(1);
      region.sizes.push_back(one);
      ++axis;
      continue;
    }
    // A slice, with Python's meaning.
    int64_t step = 1;
    if (subscript.step) {
      optional<int64_t> n =
          wholeOf(evaluate(subscript.step), "the step of a slice", subscript.step->range);
      if (!n)
        return nullopt;
      if (*n == 0) {
        error(subscript.step, "the step of a slice must not be 0");
        return nullopt;
      }
      step = *n;
    }
    auto bound = [&](const ast::Expr *expr) -> optional<Number> {
      optional<Number> number = numberOf(evaluate(expr), "a slice", expr->range);
      if (!number)
        return nullopt;
      decide(number->settings);
      if (number->asWhole())
        return number;
      if (number->isSize())
        return Number::ofSize(wholeSize(*number, expr->range));
      error(expr, "a slice needs whole numbers, found " + text(*number));
      return nullopt;
    };
    optional<Number> start, stop;
    if (subscript.start && !(start = bound(subscript.start)))
      return nullopt;
    if (subscript.stop && !(stop = bound(subscript.stop)))
      return nullopt;
    bool known = constant && (!start || start->asWhole()) && (!stop || stop->asWhole());
    if (known) {
      int64_t n = constant.getValue(), low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n;
      auto clamp = [&](int64_t at) { return std::clamp(at < 0 ? at + n : at, low, high); };
      int64_t first = start ? clamp(*start->asWhole()) : step < 0 ? high : low;
      int64_t last = stop ? clamp(*stop->asWhole()) : step < 0 ? low : high;
      int64_t count =
          step > 0 ? (last - first + step - 1) / step : (first - last - step - 1) / -step;
      count = std::max<int64_t>(count, 0);
      region.starts.push_back(constantSize(count ? first : 0));
      region.sizes.push_back(constantSize(count));
    } else if (step < 0) {
      if (start || stop) {
        unsupported(
            subscript.range,
            "a slice with a negative step and ends, of a size that is known at run time only");
        return nullopt;
      }
      region.starts.push_back(dl::normalizeSize(size - 1));
      region.sizes.push_back(dl::normalizeSize(size.ceilDiv(-step)));
    } else {
      // Both ends must lie inside: what algebra does not say is checked on entry.
      AffineExpr first = start ? place(*start, subscript.range, size) : zero,
                 last = stop ? place(*stop, subscript.range, size) : size;
      if (foldCompare(Tok::Greater, Number::ofSize(first), Number::ofSize(last)).value_or(false)) {
        // Nothing, however long the axis is.
        first = last = zero;
      }
      std::string message =
          "the slice " +
          StringRef(subscript.range.Start.getPointer(),
                    subscript.range.End.getPointer() - subscript.range.Start.getPointer())
              .str() +
          " reaches beyond size " + sizeText;
      if (!require(first, "ge", zero, message, subscript.range) ||
          !require(first, "le", last, message, subscript.range) ||
          !require(last, "le", size, message, subscript.range))
        return nullopt;
      region.starts.push_back(first);
      region.sizes.push_back(dl::normalizeSize((last - first).ceilDiv(step)));
    }
    region.strides.push_back(step);
    region.shape.push_back(region.sizes.back());
    ++axis;
  }
  whole(shape.size() - axis);
  if (hasTensors) {
    optional<Shape> added = indicesOf(value, places, region, where);
    if (!added)
      return nullopt;
    region.shape.insert(region.shape.begin() + shapePosition, added->begin(), added->end());
  }
  return region;
}

bool Elaborator::takeComputed(mlir::Value value, const Region &region,
                              llvm::SmallVectorImpl<mlir::Value> &values,
                              llvm::SmallVectorImpl<mlir::Value> &starts) {
  values.assign(1, value);
  for (const Region::Computed &slice : region.computed) {
    Shape shape = shapeOf(value);
    AffineExpr size = shape[slice.axis], zero = constantSize(0), start = slice.start;
    AffineExpr most = dl::normalizeSize(size - slice.length); // the last start that lies inside
    std::string source(slice.range.Start.getPointer(), slice.range.End.getPointer());
    std::string message = (slice.drops ? "index " : "the slice ") + source +
                          (slice.drops ? " is out of range for size " : " reaches beyond size ") +
                          dl::sizeToString(size, dimNames);
    // What the bounds of the numbers say is known while compiling or on entry.
    auto holds = [&](AffineExpr lhs, Tok op, AffineExpr rhs) {
      return foldCompare(op, Number::ofSize(withMultiples(lhs)), Number::ofSize(withMultiples(rhs)));
    };
    optional<AffineExpr> low = boundOf(start, /*upper=*/false), high = boundOf(start, /*upper=*/true);
    bool isLow = low && holds(*low, Tok::GreaterEqual, zero).value_or(false);
    bool isHigh = high && holds(*high, Tok::LessEqual, most).value_or(false);
    if (!isHigh && high && isLow && function->conditions == 0) {
      // Every turn runs.
      if (optional<bool> fits = holds(*high, Tok::LessEqual, most); fits && !*fits) {
        error(slice.range, message);
        return false;
      }
      checkOnEntry(*high, "le", most, message, slice.range);
      isHigh = true;
    }
    mlir::Value place = computeWhole(start, slice.range);
    auto whole = [&](AffineExpr n) { return computeWhole(n, slice.range); };
    if (!isLow && slice.drops) {
      // A negative index counts from the end.
      mlir::Value isNegative = dl::CompareOp::create(builder(), locationOf(slice.range), place, whole(zero), dl::ComparePredicate::lt);
      mlir::Value fromEnd = build("add", {place, whole(size)}, slice.range);
      place = build("select", {isNegative, fromEnd, place}, slice.range, {}, place.getType());
    }
    if (!isLow || !isHigh) {
      dl::CheckIndexOp::create(builder(), locationOf(slice.range), place,
                               dl::sizeMap({dl::normalizeSize(most + 1)}, &context),
                               /*fromEnd=*/false, /*ignore=*/mlir::IntegerAttr(),
                               builder().getStringAttr(message));
      // The call has failed; until it ends, nothing outside is touched.
      place = build("minimum", {place, whole(most)}, slice.range);
      place = build("maximum", {place, whole(zero)}, slice.range);
    }
    starts.push_back(place);
    if (slice.drops)
      shape.erase(shape.begin() + slice.axis);
    else
      shape[slice.axis] = slice.length;
    mlir::Location location = locationOf(slice.range);
    auto type = tensorType(shape, dtypeOf(value));
    value = slice.isBeyond(value) ? dl::EmptyOp::create(builder(), location, type).getResult()
                                  : dl::SliceAtOp::create(builder(), location, type, value, place, slice.axis).getResult();
    values.push_back(value);
  }
  return true;
}

bool Elaborator::isWhole(const Region &region, mlir::Value value) const {
  return region.sizes == shapeOf(value) &&
         llvm::all_of(region.strides, [](int64_t s) { return s == 1; });
}

optional<Shape> Elaborator::indicesOf(mlir::Value value, ArrayRef<Place> places, Region &region,
                                      SMRange where) {
  Shape sizes = shapeOf(value);
  llvm::SmallVector<mlir::Value> tensors;
  DType dtype = DType::I32;
  for (const Place &place : places) {
    if (!place.tensor) {
      auto constant = dyn_cast<AffineConstantExpr>(place.start);
      if (!constant || !isInRange(DType::I32, constant.getValue()))
        dtype = DType::I64;
      continue;
    }
    tensors.push_back(place.tensor);
    if (dtypeOf(place.tensor) == DType::I64)
      dtype = DType::I64;
    AffineExpr size = sizes[place.axis];
    std::string text = "is out of range for size " + dl::sizeToString(size, dimNames);
    // Decided while compiling, or checked when it is known.
    if (optional<dl::WholeRange> range = dl::rangeOf(place.tensor)) {
      auto highest = dyn_cast<AffineConstantExpr>(dl::normalizeSize(range->end - 1));
      auto constant = dyn_cast<AffineConstantExpr>(size);
      if (range->isTight && highest && constant && range->low <= highest.getValue()) {
        bool isHigh = highest.getValue() >= constant.getValue();
        if (isHigh || range->low < -constant.getValue()) {
          error(place.range,
                "index " + Twine(isHigh ? highest.getValue() : range->low) + " " + text);
          return nullopt;
        }
      }
      if (dl::isKnownAtLeast(size, range->end) &&
          dl::isKnownAtLeast(size, constantSize(-range->low)))
        continue;
    }
    // Constants are evaluated again in the functions that use them.
    std::string key;
    // One in a branch or loop says nothing about what comes after it.
    llvm::raw_string_ostream(key) << "index " << place.tensor.getAsOpaquePointer() << " " << size
                                  << " " << builder().getInsertionBlock();
    if (function->isConstant || !function->checks.insert(key).second)
      continue;
    Frame *at; // what the call says is the program's own line, not the library's
    dl::CheckIndexOp::create(
        builder(), locationOf(userPlace(place.range, at)), place.tensor, dl::sizeMap({size}, &context),
        /*fromEnd=*/true, /*ignore=*/mlir::IntegerAttr(),
        builder().getStringAttr(
            (rankOf(place.tensor) ? "index {value} at element {index} " : "index {value} ") + text));
  }
  optional<Shape> shape = broadcastShapes(tensors, "the indices", where);
  if (!shape)
    return nullopt;
  for (const Place &place : places) {
    mlir::Value index = place.tensor;
    if (!index)
      index = materialize(Number::ofSize(place.start), dtype, *shape, where);
    else
      index = broadcast(convert(index, dtype, where), *shape, where);
    region.indices.push_back(index);
    region.axes.push_back(place.axis);
  }
  return shape;
}

mlir::Value Elaborator::sliceOf(mlir::Value value, const Region &region, SMRange where) {
  if (isWhole(region, value))
    return value;
  return dl::SliceOp::create(builder(), locationOf(where),
                             tensorType(region.sizes, dtypeOf(value)), value,
                             dl::sizeMap(region.starts, &context), region.strides);
}

mlir::Value Elaborator::elementsOf(mlir::Value value, const Region &region, SMRange where) {
  value = sliceOf(value, region, where);
  if (region.indices.empty())
    return value;
  return dl::GatherOp::create(builder(), locationOf(where), value, region.indices, region.axes,
                              region.position);
}

Value Elaborator::indexTensor(mlir::Value value, ArrayRef<ast::Subscript> subscripts,
                              SMRange where) {
  optional<Region> region = regionOf(value, subscripts, where);
  if (!region || !checkElements(region->shape, where))
    return {};
  llvm::SmallVector<mlir::Value> values, computedStarts;
  if (!takeComputed(value, *region, values, computedStarts))
    return {};
  return Value::tensor(reshape(elementsOf(values.back(), *region, where), region->shape, where));
}
