//===- DescribeModel.cpp - what the runtime is told about a planned model -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/lowering/DescribeModel.h"
#include "dialects/dl/Dl.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc {

static FailureOr<dl_dtype> dtypeOf(Type type, Location loc) {
  if (type.isInteger(1))
    return DL_BOOL;
  if (type.isUnsignedInteger(8))
    return DL_U8;
  if (type.isInteger(8))
    return DL_I8;
  if (type.isInteger(16))
    return DL_I16;
  if (type.isInteger(32))
    return DL_I32;
  if (type.isInteger(64))
    return DL_I64;
  if (type.isF32())
    return DL_F32;
  if (type.isF64())
    return DL_F64;
  emitError(loc) << "the element type " << type << " is not supported yet";
  return failure();
}

std::string locationText(Location loc) {
  if (auto file = loc->findInstanceOf<FileLineColLoc>())
    return (file.getFilename().getValue() + ":" + Twine(file.getLine())).str();
  return "";
}

LogicalResult describeVariables(ModelOp model, ModelDescription &description) {
  if (!description.name.empty())
    return success(); // another target has said it
  description.name = model.getSymName().str();
  description.doc = model.getDoc().value_or("").str();
  for (Attribute dim : model.getDims())
    description.dims.push_back(cast<StringAttr>(dim).getValue().str());
  for (auto variable : model.getBody().front().getOps<VariableOp>()) {
    auto type = cast<RankedTensorType>(variable.getType());
    FailureOr<dl_dtype> dtype = dtypeOf(type.getElementType(), variable.getLoc());
    if (failed(dtype))
      return failure();
    VariableDescription to;
    to.name = variable.getSymName().str();
    to.doc = variable.getDoc().value_or("").str();
    to.dtype = *dtype;
    to.kind = static_cast<dl_variable_kind>(variable.getKind());
    to.dims.assign(type.getShape().begin(), type.getShape().end());
    description.variables.push_back(std::move(to));
  }
  return success();
}

static LogicalResult describeValue(Type type, DictionaryAttr attributes, Location loc, ValueDescription &to) {
  auto tensor = cast<RankedTensorType>(type);
  FailureOr<dl_dtype> dtype = dtypeOf(tensor.getElementType(), loc);
  if (failed(dtype))
    return failure();
  to.dtype = *dtype;
  for (AffineExpr size : sizesOf(tensor))
    to.dims.push_back(Size(size));
  if (attributes) {
    if (auto name = attributes.getAs<StringAttr>("dl.name"))
      to.name = name.getValue().str();
    if (auto number = attributes.getAs<IntegerAttr>("dl.dim"))
      to.dim = number.getInt();
    if (auto number = attributes.getAs<FloatAttr>("dl.default")) {
      to.hasDefault = true;
      to.defaultValue = number.getValueAsDouble();
    }
  }
  return success();
}

LogicalResult describeFunction(FuncOp function, FunctionDescription &to) {
  if (!to.name.empty())
    return success(); // another target has said it
  to.name = function.getSymName().str();
  if (auto doc = function->getAttrOfType<StringAttr>("doc"))
    to.doc = doc.getValue().str();
  Block &block = function.getBody().front();
  if (function.isConst())
    to.flags |= DL_FUNCTION_CONST;
  if (function->hasAttr("init"))
    to.flags |= DL_FUNCTION_INIT;
  if (function->hasAttr("train"))
    to.flags |= DL_FUNCTION_TRAIN;
  for (unsigned i = 0; i < function.getNumArguments(); ++i) {
    ValueDescription value;
    if (failed(describeValue(function.getArgumentTypes()[i], function.getArgAttrDict(i), function.getLoc(), value)))
      return failure();
    to.arguments.push_back(std::move(value));
  }
  for (unsigned i = 0; i < function.getNumResults(); ++i) {
    ValueDescription value;
    if (failed(describeValue(function.getResultTypes()[i], function.getResultAttrDict(i), function.getLoc(), value)))
      return failure();
    DictionaryAttr attributes = function.getResultAttrDict(i);
    (attributes && attributes.contains(logAttrName) ? to.logValues : to.results).push_back(std::move(value));
  }
  if (auto logs = function->getAttrOfType<ArrayAttr>("logs"))
    for (Attribute line : logs) {
      LogDescription &log = to.logs.emplace_back();
      auto words = dyn_cast<ArrayAttr>(line);
      if (auto keeps = dyn_cast<DictionaryAttr>(line)) {
        words = keeps.getAs<ArrayAttr>("words");
        log.kept = keeps.getAs<IntegerAttr>("kept").getInt();
        for (auto type : keeps.getAs<ArrayAttr>("types").getAsValueRange<TypeAttr>())
          if (failed(describeValue(type, {}, function.getLoc(), log.types.emplace_back())))
            return failure();
      }
      for (auto text : words.getAsValueRange<StringAttr>())
        log.words.push_back(text.str());
    }
  for (auto check : block.getOps<CheckSizeOp>()) {
    Size lhs(check.getLhs().getResult(0)), rhs(check.getRhs().getResult(0));
    StringRef predicate = check.getPredicate();
    Size condition = predicate == "eq"   ? lhs.equal(rhs)
                     : predicate == "ne" ? lhs.notEqual(rhs)
                     : predicate == "lt" ? lhs.less(rhs)
                     : predicate == "le" ? lhs.lessEqual(rhs)
                     : predicate == "gt" ? rhs.less(lhs)
                                         : rhs.lessEqual(lhs);
    to.checks.push_back({condition, check.getMessage().str()});
  }
  return success();
}

LogicalResult describeBuffers(FuncOp function, ModelDescription &description, std::vector<BufferDescription> &to) {
  Block &block = function.getBody().front();
  // Constants of the function get numbers in the model's table.
  SmallVector<int64_t> constantNumbers;
  for (auto constant : block.getOps<ConstantOp>())
    if (auto number = constant->getAttrOfType<IntegerAttr>("number")) {
      constantNumbers.resize(std::max<size_t>(constantNumbers.size(), number.getInt() + 1));
      auto elements = cast<DenseElementsAttr>(constant.getValue());
      std::vector<char> bytes;
      if (elements.getElementType().isInteger(1)) { // packed as bits there, bytes here
        for (bool value : elements.getValues<bool>())
          bytes.push_back(value);
      } else {
        ArrayRef<char> raw = elements.getRawData();
        int64_t count = elements.isSplat() ? elements.getNumElements() : 1;
        for (int64_t i = 0; i < count; ++i)
          bytes.insert(bytes.end(), raw.begin(), raw.end());
      }
      // Targets share what is equal.
      auto known = llvm::find(description.constants, bytes);
      constantNumbers[number.getInt()] = known - description.constants.begin();
      if (known == description.constants.end())
        description.constants.push_back(std::move(bytes));
    }
  for (auto attribute : function->getAttrOfType<ArrayAttr>("buffers").getAsRange<DictionaryAttr>()) {
    BufferDescription buffer;
    StringRef kind = attribute.getAs<StringAttr>("kind").getValue();
    int64_t index = attribute.getAs<IntegerAttr>("index").getInt();
    buffer.kind = kind == "argument"   ? DL_BUFFER_ARGUMENT
                  : kind == "result"   ? DL_BUFFER_RESULT
                  : kind == "variable" ? DL_BUFFER_VARIABLE
                  : kind == "constant" ? DL_BUFFER_CONSTANT
                  : kind == "prepared" ? DL_BUFFER_PREPARED
                                       : DL_BUFFER_ARENA;
    buffer.index = buffer.kind == DL_BUFFER_CONSTANT ? constantNumbers[index] : index;
    buffer.bytes = Size(attribute.getAs<AffineMapAttr>("bytes").getValue().getResult(0));
    buffer.first = attribute.getAs<IntegerAttr>("first").getInt();
    buffer.last = attribute.getAs<IntegerAttr>("last").getInt();
    to.push_back(buffer);
  }
  return success();
}

int64_t describeFault(CheckIndexOp check, ModelDescription &description) {
  FaultDescription fault = {check.getMessage().str(), locationText(check.getLoc())};
  // A check is the same one on every target.
  for (auto [number, known] : llvm::enumerate(description.faults))
    if (known.message == fault.message && known.location == fault.location)
      return number + 1;
  description.faults.push_back(std::move(fault));
  return description.faults.size();
}

FunctionDescription &findFunction(StringRef name, ModelDescription &description) {
  for (FunctionDescription &function : description.functions)
    if (function.name == name)
      return function;
  description.functions.emplace_back();
  return description.functions.back();
}

} // namespace dlc
