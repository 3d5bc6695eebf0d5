//===- Reference.h - dl programs, read by a plain interpreter -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What every dl op means, written a second time: loops over doubles and the functions of <cmath>, one formula for each op by its name, and nothing taken from the
// dialect's own formulas. An op that is not in the table here is not known, and the tests that walk the dialect fail for it.

#ifndef DLC_TEST_CONFORMANCE_REFERENCE_H
#define DLC_TEST_CONFORMANCE_REFERENCE_H

#include "dialects/dl/Dl.h"
#include <map>
#include <string>
#include <vector>

namespace dlc::test {

/// A tensor of numbers. Integers up to 2^53 and f32 are exact in a double.
struct Array {
  mlir::Type element;
  std::vector<int64_t> dims;
  std::vector<double> values;
  /// No operation that led here had to round: another order of the same sums gives the same numbers.
  bool exact = false;

  static int64_t countOf(llvm::ArrayRef<int64_t> dims);
  int64_t count() const { return countOf(dims); }
};

/// The nearest number that an element type can hold; integers wrap.
double roundTo(double value, mlir::Type element);

/// The value of a size where the model's dynamic dimensions are `dims`.
int64_t evaluateSize(mlir::AffineExpr size, llvm::ArrayRef<int64_t> dims);
std::vector<int64_t> evaluateShape(mlir::Type type, llvm::ArrayRef<int64_t> dims);

/// True where the table has a formula for an op of this name ("dl.add").
bool hasFormula(llvm::StringRef name);

/// One call of a function of dl.
class Reference {
public:
  Reference(dl::FuncOp function, std::vector<int64_t> dims) : function(function), dims(std::move(dims)) {}

  /// Results for arguments. `variables` are read, and hold the assigned values afterwards.
  std::vector<Array> run(llvm::ArrayRef<Array> arguments, std::map<std::string, Array> *variables = nullptr);

  /// An inexact number came so near to where an op jumps that another rounding may jump the other way: the results say nothing about the compiler.
  bool isUnstable = false;
  /// The largest finite magnitude among all values computed.
  double largest = 0;

private:
  /// What the block's terminator hands on.
  std::vector<Array> runBlock(mlir::Block &block, llvm::DenseMap<mlir::Value, Array> &values, std::map<std::string, Array> *variables, std::map<std::string, Array> &assigned);
  std::vector<Array> evaluate(mlir::Operation *op, llvm::ArrayRef<Array> operands);
  void jumps(const Array &a, const Array &b);

  dl::FuncOp function;
  std::vector<int64_t> dims;
};

} // namespace dlc::test

#endif
