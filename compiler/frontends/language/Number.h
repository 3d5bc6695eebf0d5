//===- Number.h - numbers of compile time: exact, real, sizes -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// A number of a program has no type until it meets a tensor. While compiling it is one of four
// things: a fraction, which
// `+ - * / %` keep exact; a real number (f64), once a decimal or a function like sqrt is involved;
// a size, which is a polynomial in the model's dynamic dimensions over a whole number; or a value
// that is known only when the function runs.
//
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_FRONTENDS_LANGUAGE_NUMBER_H
#define DLC_COMPILER_FRONTENDS_LANGUAGE_NUMBER_H

#include "Lexer.h"
#include "mlir/IR/AffineExpr.h"
#include "mlir/IR/Value.h"
#include <optional>

namespace dlc::language {

struct Number {
  enum class Kind : uint8_t { Fraction, Real, Size, Runtime };
  Kind kind = Kind::Fraction;
  int64_t numerator = 0;
  int64_t denominator = 1; // of a Fraction or Size; positive
  double real = 0;
  mlir::AffineExpr size; // a Size's numerator, normalized, not constant
  mlir::Value value;     // of a Runtime number: tensor<f64>
  uint64_t settings = 0; // the settings of an optimizer that it was computed from, one bit each

  static Number whole(int64_t n) { return fraction(n, 1); }
  static Number fraction(int64_t numerator, int64_t denominator);
  static Number ofReal(double real);
  static Number ofSize(mlir::AffineExpr size, int64_t denominator = 1);
  static Number ofValue(mlir::Value value);

  bool isRuntime() const { return kind == Kind::Runtime; }
  /// A constant: neither dynamic nor of run time.
  bool isKnown() const { return kind == Kind::Fraction || kind == Kind::Real; }
  bool isSize() const { return kind == Kind::Size; }
  /// A size in which a whole number takes part that the function computes (the index of a loop),
  /// dimension d0, d1, … of the expression.
  bool isComputed() const;
  /// The whole number that this is, if it is a known one.
  std::optional<int64_t> asWhole() const;
  /// Of a known number.
  double asDouble() const;
  bool isZero() const { return isKnown() && asDouble() == 0; }
};

/// Whether a whole number of the function takes part in a size.
bool isComputed(mlir::AffineExpr size);

/// `a op b` for + - * / % and ** (Tok::StarStar) where the result is known while compiling; nothing
/// where it needs a computation at run time. Division by a known zero is the caller's to refuse.
std::optional<Number> fold(Tok op, const Number &a, const Number &b);

/// `a op b` of a comparison where algebra decides it.
std::optional<bool> foldCompare(Tok op, const Number &a, const Number &b);

/// Whether two sizes can be equal only where a dynamic dimension is 0, as N and 2*N.
bool differUnlessEmpty(mlir::AffineExpr a, mlir::AffineExpr b);

/// `-a`; nothing for a Runtime number.
std::optional<Number> foldNegate(const Number &a);

/// A function of one number that is known: abs, round, floor, sign exactly, others in f64; nothing
/// for other names.
std::optional<Number> foldFunction(llvm::StringRef name, const Number &a);

/// As it reads in a message.
std::string toString(const Number &number, llvm::ArrayRef<llvm::StringRef> dims);

} // namespace dlc::language

#endif // DLC_COMPILER_FRONTENDS_LANGUAGE_NUMBER_H
