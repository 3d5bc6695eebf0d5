//===- DlExpr.h - operators that let a formula in a record read like maths -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// ScalarExpr builds arith and math ops on one element (or a vector of them); TensorExpr builds dl ops on tensors.

#ifndef DIALECTS_DL_DLEXPR_H
#define DIALECTS_DL_DLEXPR_H

#include "dialects/dl/Dl.h"

namespace dlc::dl {

//===--- one element ---===//

struct ScalarExpr {
  mlir::OpBuilder *b;
  mlir::Location loc;
  mlir::Value value;
  ScalarExpr(mlir::OpBuilder &b, mlir::Location loc, mlir::Value value) : b(&b), loc(loc), value(value) {}
  /// A number of the same type.
  ScalarExpr number(double n) const;
  bool isFloat() const;
};

/// A number of `type` (a scalar's or a vector's), rounded once.
mlir::Value buildNumber(mlir::OpBuilder &b, mlir::Location loc, mlir::Type type, double n);
mlir::Value buildNumber(mlir::OpBuilder &b, mlir::Location loc, mlir::Type type, mlir::TypedAttr n);

ScalarExpr operator+(ScalarExpr a, ScalarExpr c);
ScalarExpr operator-(ScalarExpr a, ScalarExpr c);
ScalarExpr operator*(ScalarExpr a, ScalarExpr c);
ScalarExpr operator/(ScalarExpr a, ScalarExpr c);
ScalarExpr operator-(ScalarExpr a);
ScalarExpr operator&(ScalarExpr a, ScalarExpr c);
ScalarExpr operator|(ScalarExpr a, ScalarExpr c);
ScalarExpr operator!(ScalarExpr a);
inline ScalarExpr operator+(ScalarExpr a, double n) { return a + a.number(n); }
inline ScalarExpr operator*(ScalarExpr a, double n) { return a * a.number(n); }
/// Are the tensor's elements without a sign (bytes, and booleans: false < true)?
bool isUnsigned(mlir::Type tensor);
ScalarExpr compare(ComparePredicate predicate, ScalarExpr a, ScalarExpr c, bool isUnsigned = false);
inline ScalarExpr eq(ScalarExpr a, double n) { return compare(ComparePredicate::eq, a, a.number(n)); }
inline ScalarExpr lt(ScalarExpr a, double n) { return compare(ComparePredicate::lt, a, a.number(n)); }
inline ScalarExpr le(ScalarExpr a, double n) { return compare(ComparePredicate::le, a, a.number(n)); }
inline ScalarExpr gt(ScalarExpr a, double n) { return compare(ComparePredicate::gt, a, a.number(n)); }
ScalarExpr select(ScalarExpr condition, ScalarExpr whenTrue, ScalarExpr whenFalse);
ScalarExpr maximum(ScalarExpr a, ScalarExpr c);
ScalarExpr minimum(ScalarExpr a, ScalarExpr c);
ScalarExpr remainder(ScalarExpr a, ScalarExpr c);
ScalarExpr floorDivide(ScalarExpr a, ScalarExpr c);
ScalarExpr pow(ScalarExpr a, ScalarExpr c);
ScalarExpr abs(ScalarExpr x);
ScalarExpr exp(ScalarExpr x);
ScalarExpr log(ScalarExpr x);
ScalarExpr log1p(ScalarExpr x);
ScalarExpr sqrt(ScalarExpr x);
ScalarExpr tanh(ScalarExpr x);
ScalarExpr erf(ScalarExpr x);
ScalarExpr sin(ScalarExpr x);
ScalarExpr cos(ScalarExpr x);
ScalarExpr roundEven(ScalarExpr x);
ScalarExpr floor(ScalarExpr x);
/// The derivative of x * sigmoid(v) where v = 2 sqrt(2 / pi) (x + 0.044715 x^3); 0 and 1 at the infinities.
ScalarExpr geluTanhDerivative(ScalarExpr x);
/// A number of f32 rounded to the nearest of `format`, bf16 or f16: halves to even, infinite beyond the largest, denormals kept; NaN stays.
ScalarExpr roundTo(ScalarExpr x, mlir::Type format);
/// To element type `to`; `from` says whether the bits are unsigned.
ScalarExpr convert(ScalarExpr x, mlir::Type from, mlir::Type to);

//===--- whole tensors ---===//

struct TensorExpr {
  mlir::OpBuilder *b;
  mlir::Location loc;
  mlir::Value value;
  TensorExpr(mlir::OpBuilder &b, mlir::Location loc, mlir::Value value) : b(&b), loc(loc), value(value) {}
  mlir::RankedTensorType type() const { return llvm::cast<mlir::RankedTensorType>(value.getType()); }
  /// A tensor of this one's type, full of n.
  TensorExpr number(double n) const;
};

/// In a vjp: no derivative flows to this operand.
struct NoGradient {};
inline mlir::Value gradient(TensorExpr e) { return e.value; }
inline mlir::Value gradient(NoGradient) { return {}; }

TensorExpr operator+(TensorExpr a, TensorExpr c);
TensorExpr operator-(TensorExpr a, TensorExpr c);
TensorExpr operator*(TensorExpr a, TensorExpr c);
TensorExpr operator/(TensorExpr a, TensorExpr c);
TensorExpr operator-(TensorExpr a);
inline TensorExpr operator+(TensorExpr a, double n) { return a + a.number(n); }
inline TensorExpr operator-(TensorExpr a, double n) { return a - a.number(n); }
inline TensorExpr operator*(TensorExpr a, double n) { return a * a.number(n); }
inline TensorExpr operator+(double n, TensorExpr a) { return a.number(n) + a; }
inline TensorExpr operator-(double n, TensorExpr a) { return a.number(n) - a; }
inline TensorExpr operator*(double n, TensorExpr a) { return a.number(n) * a; }
TensorExpr mulNoNan(TensorExpr a, TensorExpr c);
TensorExpr divNoNan(TensorExpr a, TensorExpr c);
TensorExpr compare(ComparePredicate predicate, TensorExpr a, TensorExpr c);
inline TensorExpr eq(TensorExpr a, TensorExpr c) { return compare(ComparePredicate::eq, a, c); }
inline TensorExpr lt(TensorExpr a, TensorExpr c) { return compare(ComparePredicate::lt, a, c); }
inline TensorExpr gt(TensorExpr a, TensorExpr c) { return compare(ComparePredicate::gt, a, c); }
inline TensorExpr eq(TensorExpr a, double n) { return eq(a, a.number(n)); }
inline TensorExpr le(TensorExpr a, double n) { return compare(ComparePredicate::le, a, a.number(n)); }
TensorExpr select(TensorExpr condition, TensorExpr whenTrue, TensorExpr whenFalse);
TensorExpr exp(TensorExpr x);
TensorExpr log(TensorExpr x);
TensorExpr sqrt(TensorExpr x);
TensorExpr erf(TensorExpr x);
TensorExpr sin(TensorExpr x);
TensorExpr cos(TensorExpr x);
TensorExpr sign(TensorExpr x);
TensorExpr floor(TensorExpr x);
TensorExpr sigmoid(TensorExpr x);
TensorExpr geluTanhDerivative(TensorExpr x);
TensorExpr geluTanhSecondDerivative(TensorExpr x);
TensorExpr pow(TensorExpr a, TensorExpr c);
TensorExpr convert(TensorExpr x, mlir::Type elementType);
/// The cotangent of a conversion: converted back, or nothing where x is not floating point.
mlir::Value gradient(std::optional<TensorExpr> e);
std::optional<TensorExpr> convertGradient(TensorExpr dy, TensorExpr x);
TensorExpr sum(TensorExpr x, llvm::ArrayRef<int64_t> axes);
TensorExpr max(TensorExpr x, llvm::ArrayRef<int64_t> axes);
TensorExpr softmax(TensorExpr x, int64_t axis);
TensorExpr iota(mlir::RankedTensorType shape, int64_t axis, TensorExpr like);
/// `small`, whose shape is x's without `axes`, repeated to x's shape.
TensorExpr broadcastBack(TensorExpr small, TensorExpr x, llvm::ArrayRef<int64_t> axes);
inline TensorExpr broadcastBack(TensorExpr small, TensorExpr x, std::initializer_list<int64_t> axes) {
  return broadcastBack(small, x, llvm::ArrayRef<int64_t>(axes.begin(), axes.end()));
}
/// The sum along one axis, repeated to x's shape.
TensorExpr sumAlong(TensorExpr x, int64_t axis);
/// dy where x's element is the first along `axes` that equals y, else 0.
TensorExpr selectFirst(TensorExpr x, TensorExpr y, TensorExpr dy, llvm::ArrayRef<int64_t> axes);
/// Labels in a type that holds the index of any class.
TensorExpr wideLabel(TensorExpr label);
TensorExpr crossEntropyGradient(TensorExpr scores, TensorExpr label, TensorExpr dy);

} // namespace dlc::dl

#endif
