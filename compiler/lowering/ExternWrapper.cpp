//===- ExternWrapper.cpp - how generated code reaches C++ of the user's own -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/lowering/ExternWrapper.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc {

ExternOp externOf(FusedOp kernel) {
  auto calls = kernel.getBody().front().getOps<ExternOp>();
  return calls.empty() ? ExternOp() : *calls.begin();
}

unsigned inputOfOperand(Value operand) {
  while (Operation *def = operand.getDefiningOp())
    operand = def->getOperand(0);
  return cast<BlockArgument>(operand).getArgNumber();
}

SmallVector<AffineExpr> passedSizes(ExternOp op) {
  SmallVector<AffineExpr> sizes;
  for (AffineExpr size : op.getSizeExprs())
    if (!isa<AffineConstantExpr>(size))
      sizes.push_back(size);
  return sizes;
}

static StringRef typeInCpp(Type type) {
  if (type.isF32())
    return "float";
  if (type.isF64())
    return "double";
  if (type.isInteger(1))
    return "bool";
  if (type.isUnsignedInteger(8))
    return "unsigned char";
  if (type.isInteger(8))
    return "signed char";
  if (type.isInteger(16))
    return "short";
  return type.isInteger(32) ? "int" : "long long";
}

namespace {
/// The texts that a wrapper consists of.
struct Pieces {
  std::string parameters, arguments, signature;
  void add(const Twine &parameter, const Twine &argument, StringRef type) {
    auto append = [](std::string &list, const Twine &text) { list += (list.empty() ? "" : ", ") + text.str(); };
    if (!parameter.isTriviallyEmpty())
      append(parameters, parameter);
    if (!argument.isTriviallyEmpty()) {
      append(arguments, argument);
      append(signature, type);
    }
  }
};
} // namespace

/// Pointers, then sizes. \p fault: a parameter between them that is not handed on.
static Pieces describeCall(ExternOp op, StringRef fault) {
  Pieces pieces;
  auto pointers = [&](TypeRange types, StringRef qualifier, StringRef prefix) {
    for (auto [i, type] : llvm::enumerate(types)) {
      std::string text = (qualifier + typeInCpp(getElementTypeOrSelf(type)) + " *").str(), name = (prefix + Twine(i)).str();
      pieces.add(text + "__restrict__ " + name, name, text);
    }
  };
  pointers(op.getInputs().getTypes(), "const ", "a");
  pointers(op.getResultTypes(), "", "r");
  if (!fault.empty())
    pieces.add(fault, "", "");
  for (auto [i, size] : llvm::enumerate(op.getSizeExprs())) {
    if (auto constant = dyn_cast<AffineConstantExpr>(size))
      pieces.add("", Twine(constant.getValue()) + "LL", "long long");
    else
      pieces.add("long long s" + Twine(i), "s" + Twine(i), "long long");
  }
  return pieces;
}

/// \p code holds the symbol's place as `@`.
static std::string addWrapper(ExternOp op, bool isCuda, StringRef file, const std::string &code, const Pieces &pieces, ModelDescription &description) {
  int64_t shared = isCuda ? op.getShared() : 0;
  std::string function = op.getKernelName();
  auto known = [&](const ExternWrapper &wrapper) { return wrapper.isCuda == isCuda && wrapper.file == file && wrapper.code == code && wrapper.sharedBytes == shared; };
  auto found = llvm::find_if(description.externs, known);
  if (found != description.externs.end())
    return found->symbol;
  ExternWrapper wrapper;
  wrapper.isCuda = isCuda;
  wrapper.file = file.str();
  wrapper.function = function;
  // No name of the program begins so: what it exports has no leading underscore.
  wrapper.symbol = "__dlc_" + function;
  for (unsigned n = 1; llvm::any_of(description.externs, [&](const ExternWrapper &other) { return other.isCuda == isCuda && other.symbol == wrapper.symbol; }); ++n)
    wrapper.symbol = "__dlc_" + function + "_" + std::to_string(n);
  wrapper.code = code;
  wrapper.signature = "(" + pieces.signature + ")";
  wrapper.sharedBytes = shared;
  if (auto place = op.getDeclaration().getLoc()->findInstanceOf<FileLineColLoc>()) {
    wrapper.declaredIn = place.getFilename().getValue().str();
    wrapper.line = place.getLine();
    wrapper.column = place.getColumn();
  }
  description.externs.push_back(std::move(wrapper));
  return description.externs.back().symbol;
}

static LogicalResult missingFile(ExternOp op, StringRef what) {
  InFlightDiagnostic error = op.emitError() << "'" << op.getKernelName() << "' has no file for " << what;
  error.attachNote(op.getDeclaration().getLoc()) << "declared here";
  return error;
}

FailureOr<std::string> wrapForCpu(ExternOp op, ModelDescription &description) {
  std::optional<StringRef> file = op.getDeclaration().getCpp();
  if (!file) {
    (void)missingFile(op, "the CPU (.cpp), which this call is compiled for");
    return failure();
  }
  Pieces pieces = describeCall(op, "");
  if (op.getParallel())
    for (StringRef name : {"begin", "end"})
      pieces.add("long long " + name, name, "long long");
  std::string code = "extern \"C\" __attribute__((visibility(\"default\"))) void @(" + pieces.parameters + ") { " + op.getKernelName() + "(" + pieces.arguments + "); }";
  return addWrapper(op, /*isCuda=*/false, *file, code, pieces, description);
}

FailureOr<std::string> wrapForCuda(ExternOp op, bool guarded, ModelDescription &description) {
  std::optional<StringRef> file = op.getDeclaration().getCuda();
  if (!file) {
    (void)missingFile(op, "the GPU (.cu), which this call is compiled for");
    return failure();
  }
  Pieces pieces = describeCall(op, guarded ? "const long long *fault" : "");
  std::string code = "extern \"C\" __global__ void __launch_bounds__(" + std::to_string(op.getThreads()) + ") @(" + pieces.parameters + ") { " + (guarded ? "if (*fault) return; " : "") +
                     op.getKernelName() + "(" + pieces.arguments + "); }";
  return addWrapper(op, /*isCuda=*/true, *file, code, pieces, description);
}

} // namespace dlc
