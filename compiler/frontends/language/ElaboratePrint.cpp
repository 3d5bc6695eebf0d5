//===- ElaboratePrint.cpp - what a program prints -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// A message is words and values, which are further results of the function. One that is printed in
// a branch or loop of run time comes as often as it comes to that: its values are written into
// tensors that the branches and loops hand on as they do the variables that a program assigns.
// These hold the last messages, in a ring; with each goes its number among all messages of the
// call that come so, by which the runtime puts them in order.
//
//===----------------------------------------------------------------------===//

#include "Elaborator.h"

#include "include/dlrt/model_abi.h"

using namespace dlc;
using namespace dlc::language;
using llvm::ArrayRef;
using llvm::dyn_cast;
using llvm::SMRange;
using llvm::StringRef;
using llvm::Twine;
using mlir::AffineExpr;
using std::optional;

/// So many messages of one `print` in loops are kept.
static constexpr int64_t mostKept = 1000;

Value Elaborator::callPrint(StringRef name, CallArguments &arguments) {
  SMRange where = arguments.range;
  if (declaring || function->isConstant || function->isInit) {
    error(where, "'print' belongs in a function");
    return {};
  }
  auto *format = arguments.positional.empty() ? nullptr : arguments.positional[0].as<StringValue>();
  if (!format || !arguments.named.empty()) {
    error(where, "'print' takes words, in which each {} stands for a value, and the values: "
                 "'print(\"loss {}\", x)'");
    return {};
  }
  llvm::SmallVector<StringRef> words;
  format->text.split(words, "{}");
  ArrayRef<Value> given = ArrayRef<Value>(arguments.positional).drop_front();
  if (words.size() != given.size() + 1) {
    error(where, "the words have " + Twine(words.size() - 1) + " {}, and " + Twine(given.size()) +
                     (given.size() == 1 ? " value is" : " values are") + " given");
    return {};
  }
  LogLine line;
  line.words.push_back(words.front().str());
  for (auto [value, after] : llvm::zip_equal(given, ArrayRef<StringRef>(words).drop_front())) {
    // What is known while compiling is part of the words.
    optional<std::string> known;
    if (auto *number = value.number(); number && number->isKnown())
      known = text(*number);
    else if (auto *string = value.as<StringValue>())
      known = string->text.str();
    else if (value.is<BoolValue>() || value.isNone() || value.is<DType>())
      known = value.is<DType>() ? nameOf(*value.as<DType>()).str() : describe(value);
    if (known) {
      line.words.back() += *known + after.str();
      continue;
    }
    mlir::Value tensor = value.number() ? runtimeNumber(*value.number(), where)
                                        : toTensor(value, where, "what 'print' shows");
    if (!tensor)
      return {};
    line.values.push_back(tensor);
    line.words.push_back(after.str());
  }
  if (function->checkBlock != function->block)
    return unsupported(where, "'print' in a gradient of one's own");
  if (builder().getInsertionBlock() != function->block)
    keepMessages(line, where);
  function->logs.push_back(std::move(line));
  return Value::none();
}

/// The variable of this path: a part of what branches and loops hand on of a message.
Variable *Elaborator::printedVariable(const std::string &path, DType dtype,
                                      ArrayRef<int64_t> shape) {
  std::unique_ptr<Variable> &variable = printed[path];
  if (!variable) {
    variable = std::make_unique<Variable>();
    variable->kind = Variable::Kind::Printed;
    variable->path = path;
    variable->dtype = dtype;
    for (int64_t size : shape)
      variable->shape.push_back(constantSize(size));
  }
  return variable.get();
}

/// The first elements of a tensor, row by row: as many as a message shows, or all if these are
/// known to be fewer.
mlir::Value Elaborator::firstElements(mlir::Value tensor, SMRange where) {
  AffineExpr count = dl::elementCount(llvm::cast<mlir::RankedTensorType>(tensor.getType()));
  mlir::Value flat = reshape(tensor, {count}, where);
  auto known = dyn_cast<mlir::AffineConstantExpr>(count);
  if (known && known.getValue() <= DL_LOG_ELEMENTS)
    return flat;
  // Where there are fewer, the last one is repeated.
  auto type = tensorType({constantSize(DL_LOG_ELEMENTS)}, DType::I64);
  mlir::Location location = locationOf(where);
  mlir::Value places = dl::IotaOp::create(builder(), location, type, uint64_t(0));
  mlir::Value last = computeWhole(dl::normalizeSize(count - 1), where);
  places = build("minimum", {places, broadcast(last, dl::sizesOf(type), where)}, where);
  return dl::GatherOp::create(builder(), location, flat, mlir::ValueRange(places),
                              ArrayRef<int64_t>{0}, /*position=*/uint64_t(0));
}

void Elaborator::keepMessages(LogLine &line, SMRange where) {
  int64_t turns = 1; // at most
  for (const FunctionState::Loop &loop : function->loops) {
    auto known = loop.turns ? dyn_cast<mlir::AffineConstantExpr>(loop.turns) : nullptr;
    turns *= known ? std::clamp<int64_t>(known.getValue(), 1, mostKept + 1) : mostKept + 1;
    turns = std::min(turns, mostKept + 1);
  }
  line.kept = std::min(turns, mostKept);

  // Every time that a body is tried out its prints have the same names, unless they show values of
  // other types.
  std::string path;
  llvm::raw_string_ostream os(path);
  os << "print " << static_cast<const void *>(where.Start.getPointer());
  for (mlir::Value value : line.values)
    os << ' ' << value.getType();
  os << " in " << line.kept;
  unsigned number = function->prints[path]++;
  os << " number " << number;

  auto scalar = tensorType({}, DType::I64);
  auto now = [&](Variable *variable) { return readVariable(variable, where).asTensor(); };
  auto add = [&](Variable *variable) {
    mlir::Value one = fill(scalar, Number::whole(1), where);
    setVariable(variable, build("add", {now(variable), one}, where));
  };
  Variable *all = printedVariable("print", DType::I64, {});
  Variable *count = printedVariable(path + " count", DType::I64, {});
  Variable *numbers = printedVariable(path + " numbers", DType::I64, {line.kept});
  mlir::Value place = now(count);
  if (turns > line.kept)
    place = build("rem", {place, fill(scalar, Number::whole(line.kept), where)}, where);
  auto keep = [&](Variable *variable, mlir::Value part) {
    mlir::Value ring = now(variable);
    setVariable(variable, dl::SliceUpdateOp::create(builder(), locationOf(where), ring.getType(),
                                                    ring, part, place, 0));
    line.variables.push_back(variable);
  };
  line.variables.push_back(count);
  keep(numbers, now(all));
  for (auto [i, value] : llvm::enumerate(line.values)) {
    mlir::Value elements = firstElements(value, where);
    int64_t size = llvm::cast<mlir::RankedTensorType>(elements.getType()).getDimSize(0);
    keep(printedVariable(path + " value " + std::to_string(i), dtypeOf(value), {line.kept, size}),
         elements);
  }
  add(count);
  add(all);
}

llvm::SmallVector<mlir::Attribute>
Elaborator::finishMessages(llvm::SmallVectorImpl<mlir::Value> &results, SMRange where) {
  llvm::SmallVector<mlir::Attribute> logs;
  mlir::Builder b(&context);
  for (const LogLine &line : function->logs) {
    llvm::SmallVector<StringRef> words(line.words.begin(), line.words.end());
    mlir::Attribute text = b.getStrArrayAttr(words);
    if (!line.kept) {
      logs.push_back(text);
      llvm::append_range(results, line.values);
      continue;
    }
    auto types = llvm::to_vector(mlir::ValueRange(line.values).getTypes());
    logs.push_back(b.getDictionaryAttr({b.getNamedAttr("words", text),
                                        b.getNamedAttr("kept", b.getI64IntegerAttr(line.kept)),
                                        b.getNamedAttr("types", b.getTypeArrayAttr(types))}));
    for (Variable *variable : line.variables)
      results.push_back(readVariable(variable, where).asTensor());
  }
  return logs;
}
