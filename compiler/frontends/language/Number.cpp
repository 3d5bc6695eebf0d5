//===- Number.cpp - numbers of compile time: exact, real, sizes -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Number.h"

#include "dialects/dl/DlShapes.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringSwitch.h"
#include "llvm/Support/MathExtras.h"
#include <charconv>
#include <cmath>
#include <numeric>

using namespace dlc;
using namespace dlc::language;
using mlir::AffineBinaryOpExpr;
using mlir::AffineConstantExpr;
using mlir::AffineExpr;
using mlir::AffineExprKind;
using std::nullopt;
using std::optional;

//===----------------------------------------------------------------------===//
// Making
//===----------------------------------------------------------------------===//

Number Number::fraction(int64_t numerator, int64_t denominator) {
  Number n;
  if (denominator < 0)
    numerator = -numerator, denominator = -denominator;
  int64_t divisor = std::gcd(numerator, denominator);
  n.numerator = divisor ? numerator / divisor : numerator;
  n.denominator = divisor ? denominator / divisor : denominator;
  return n;
}

Number Number::ofReal(double real) {
  Number n;
  n.kind = Kind::Real;
  n.real = real;
  return n;
}

/// The terms of a normalized size: a coefficient and factors each.
static llvm::SmallVector<std::pair<int64_t, llvm::SmallVector<AffineExpr, 4>>>
termsOf(AffineExpr size) {
  llvm::SmallVector<std::pair<int64_t, llvm::SmallVector<AffineExpr, 4>>> terms;
  llvm::SmallVector<AffineExpr> sums{size};
  while (!sums.empty()) {
    AffineExpr sum = sums.pop_back_val();
    if (sum.getKind() == AffineExprKind::Add) {
      sums.push_back(llvm::cast<AffineBinaryOpExpr>(sum).getRHS());
      sums.push_back(llvm::cast<AffineBinaryOpExpr>(sum).getLHS());
      continue;
    }
    auto &[coefficient, factors] = terms.emplace_back(1, llvm::SmallVector<AffineExpr, 4>());
    llvm::SmallVector<AffineExpr> products{sum};
    while (!products.empty()) {
      AffineExpr product = products.pop_back_val();
      if (product.getKind() == AffineExprKind::Mul) {
        products.push_back(llvm::cast<AffineBinaryOpExpr>(product).getRHS());
        products.push_back(llvm::cast<AffineBinaryOpExpr>(product).getLHS());
      } else if (auto constant = llvm::dyn_cast<AffineConstantExpr>(product)) {
        coefficient *= constant.getValue();
      } else {
        factors.push_back(product);
      }
    }
  }
  return terms;
}

Number Number::ofSize(AffineExpr size, int64_t denominator) {
  size = dl::normalizeSize(size);
  if (auto constant = llvm::dyn_cast<AffineConstantExpr>(size))
    return fraction(constant.getValue(), denominator);
  int64_t divisor = denominator;
  for (auto &[coefficient, factors] : termsOf(size))
    divisor = std::gcd(divisor, coefficient);
  Number n;
  n.kind = Kind::Size;
  n.size = divisor == 1 ? size : dl::normalizeSize(size.floorDiv(divisor));
  n.denominator = denominator / divisor;
  return n;
}

Number Number::ofValue(mlir::Value value) {
  Number n;
  n.kind = Kind::Runtime;
  n.value = value;
  return n;
}

optional<int64_t> Number::asWhole() const {
  if (kind == Kind::Fraction && denominator == 1)
    return numerator;
  if (kind == Kind::Real && std::trunc(real) == real && std::fabs(real) <= 0x1p53)
    return static_cast<int64_t>(real);
  return nullopt;
}

double Number::asDouble() const {
  return kind == Kind::Real ? real
                            : static_cast<double>(numerator) / static_cast<double>(denominator);
}

//===----------------------------------------------------------------------===//
// Arithmetic
//===----------------------------------------------------------------------===//

/// INT64_MIN counts as too large: its negation is.
static bool overflows(__int128 n) { return n > INT64_MAX || n < -INT64_MAX; }

/// A fraction of wide numbers, reduced; a real number where it does not fit.
static Number narrow(__int128 numerator, __int128 denominator) {
  if (denominator < 0)
    numerator = -numerator, denominator = -denominator;
  __int128 a = numerator < 0 ? -numerator : numerator, b = denominator;
  while (b)
    a = std::exchange(b, a % b);
  if (a)
    numerator /= a, denominator /= a;
  if (overflows(numerator) || overflows(denominator))
    return Number::ofReal(static_cast<double>(numerator) / static_cast<double>(denominator));
  return Number::fraction(static_cast<int64_t>(numerator), static_cast<int64_t>(denominator));
}

/// The sum of the absolute values of the coefficients, and the number of terms, at most.
static std::pair<double, double> weightOf(AffineExpr size) {
  if (auto constant = llvm::dyn_cast<AffineConstantExpr>(size))
    return {std::fabs(static_cast<double>(constant.getValue())), 1};
  auto binary = llvm::dyn_cast<AffineBinaryOpExpr>(size);
  if (!binary)
    return {1, 1};
  auto [a, m] = weightOf(binary.getLHS());
  auto [b, n] = weightOf(binary.getRHS());
  if (size.getKind() == AffineExprKind::Add)
    return {a + b, m + n};
  if (size.getKind() == AffineExprKind::Mul)
    return {a * b, m * n};
  return {a, 1};
}

/// Sizes beyond this are numbers of run time: no program needs them as sizes, and coefficients must
/// not overflow.
static bool fits(AffineExpr a, AffineExpr b, double scale = 1) {
  auto [weight, terms] = weightOf(a);
  auto [weight2, terms2] = weightOf(b);
  return std::max(weight, 1.0) * std::max(weight2, 1.0) * scale < 0x1p62 && terms * terms2 < 1000;
}

/// A number as numerator and denominator of sizes, if it is exact.
static optional<std::pair<AffineExpr, int64_t>> asSize(const Number &n,
                                                       mlir::MLIRContext *context) {
  if (n.isSize())
    return std::make_pair(n.size, n.denominator);
  if (n.kind == Number::Kind::Fraction)
    return std::make_pair(mlir::getAffineConstantExpr(n.numerator, context), n.denominator);
  // A decimal like 0.5 is a fraction, 0.1 is not.
  if (n.kind == Number::Kind::Real && std::fabs(n.real) < 0x1p30)
    for (int64_t denominator = 1; denominator <= 1 << 20; denominator *= 2)
      if (double scaled = n.real * static_cast<double>(denominator); std::trunc(scaled) == scaled)
        return std::make_pair(mlir::getAffineConstantExpr(static_cast<int64_t>(scaled), context),
                              denominator);
  return nullopt;
}

/// a / b where b is one product that divides every term of a, or where both are equal.
static optional<Number> divideSizes(AffineExpr a, int64_t denominatorA, AffineExpr b,
                                    int64_t denominatorB) {
  if (!fits(a, mlir::getAffineConstantExpr(1, a.getContext()), static_cast<double>(denominatorB)))
    return nullopt;
  if (a == b)
    return Number::fraction(denominatorB, denominatorA);
  auto divisors = termsOf(b);
  if (divisors.size() != 1 || divisors[0].first == 0)
    return nullopt;
  AffineExpr quotient = mlir::getAffineConstantExpr(0, a.getContext());
  for (auto &[coefficient, factors] : termsOf(a)) {
    llvm::SmallVector<AffineExpr, 4> left(factors);
    for (AffineExpr divisor : divisors[0].second) {
      auto *found = llvm::find(left, divisor);
      if (found == left.end())
        return nullopt;
      left.erase(found);
    }
    AffineExpr term = mlir::getAffineConstantExpr(coefficient, a.getContext());
    for (AffineExpr factor : left)
      term = term * factor;
    quotient = quotient + term;
  }
  __int128 denominator = static_cast<__int128>(denominatorA) * divisors[0].first;
  if (overflows(denominator))
    return nullopt;
  int64_t sign = denominator < 0 ? -1 : 1;
  return Number::ofSize(quotient * (denominatorB * sign), static_cast<int64_t>(denominator) * sign);
}

static optional<Number> foldSizes(Tok op, const Number &a, const Number &b) {
  mlir::MLIRContext *context = (a.isSize() ? a.size : b.size).getContext();
  auto x = asSize(a, context), y = asSize(b, context);
  if (!x || !y)
    return nullopt;
  auto [n, p] = *x;
  auto [m, q] = *y;
  __int128 common = static_cast<__int128>(p) * q;
  if (overflows(common) || !fits(n, m, static_cast<double>(p) + static_cast<double>(q)))
    return nullopt;
  switch (op) {
  case Tok::Plus:
    return Number::ofSize(n * q + m * p, static_cast<int64_t>(common));
  case Tok::Minus:
    return Number::ofSize(n * q - m * p, static_cast<int64_t>(common));
  case Tok::Star:
    return Number::ofSize(n * m, static_cast<int64_t>(common));
  case Tok::Slash:
    return divideSizes(n, p, m, q);
  case Tok::Percent: {
    auto divisor = b.asWhole();
    if (!divisor || *divisor <= 0 || a.denominator != 1)
      return nullopt;
    return Number::ofSize(n % *divisor);
  }
  default:
    return nullopt;
  }
}

static optional<Number> power(const Number &a, const Number &b) {
  optional<int64_t> exponent = b.asWhole();
  if (a.isSize()) {
    if (!exponent || *exponent < 0 || *exponent > 16)
      return nullopt;
    Number result = Number::whole(1);
    for (int64_t i = 0; i < *exponent; ++i) {
      optional<Number> next = fold(Tok::Star, result, a);
      if (!next)
        return nullopt;
      result = *next;
    }
    return result;
  }
  if (!b.isKnown())
    return nullopt;
  if (a.kind == Number::Kind::Fraction && b.kind == Number::Kind::Fraction && exponent &&
      std::abs(*exponent) <= 64 && !(a.numerator == 0 && *exponent < 0)) {
    Number result = Number::whole(1),
           base = *exponent < 0 ? Number::fraction(a.denominator, a.numerator) : a;
    for (int64_t i = 0; i < std::abs(*exponent); ++i)
      result = *fold(Tok::Star, result, base);
    return result;
  }
  return Number::ofReal(std::pow(a.asDouble(), b.asDouble()));
}

static optional<Number> foldValues(Tok op, const Number &a, const Number &b) {
  if (a.isRuntime() || b.isRuntime())
    return nullopt;
  if (op == Tok::StarStar)
    return power(a, b);
  if (a.isSize() || b.isSize())
    return foldSizes(op, a, b);
  if (a.kind == Number::Kind::Fraction && b.kind == Number::Kind::Fraction) {
    __int128 n = a.numerator, p = a.denominator, m = b.numerator, q = b.denominator;
    switch (op) {
    case Tok::Plus:
      return narrow(n * q + m * p, p * q);
    case Tok::Minus:
      return narrow(n * q - m * p, p * q);
    case Tok::Star:
      return narrow(n * m, p * q);
    case Tok::Slash:
      if (m == 0)
        return nullopt;
      return narrow(n * q, p * m);
    case Tok::Percent: {
      // The remainder has the divisor's sign: a - b * floor(a / b).
      if (m == 0)
        return nullopt;
      __int128 over = n * q, under = p * m;
      if (under < 0)
        over = -over, under = -under;
      __int128 quotient = over / under - (over % under < 0);
      return narrow(n * q - m * quotient * p, p * q);
    }
    default:
      return nullopt;
    }
  }
  double x = a.asDouble(), y = b.asDouble();
  switch (op) {
  case Tok::Plus:
    return Number::ofReal(x + y);
  case Tok::Minus:
    return Number::ofReal(x - y);
  case Tok::Star:
    return Number::ofReal(x * y);
  case Tok::Slash:
    return Number::ofReal(x / y);
  case Tok::Percent: {
    double r = std::fmod(x, y);
    return Number::ofReal(r != 0 && (r < 0) != (y < 0) ? r + y : r);
  }
  default:
    return nullopt;
  }
}

optional<Number> language::fold(Tok op, const Number &a, const Number &b) {
  optional<Number> result = foldValues(op, a, b);
  if (result)
    result->settings = a.settings | b.settings;
  return result;
}

bool language::isComputed(AffineExpr size) {
  bool found = false;
  size.walk([&](AffineExpr part) { found |= llvm::isa<mlir::AffineDimExpr>(part); });
  return found;
}
bool Number::isComputed() const { return isSize() && language::isComputed(size); }

optional<Number> language::foldNegate(const Number &a) {
  return fold(Tok::Minus, Number::whole(0), a);
}

/// Whether a size is surely not negative: dynamic dimensions are not, nor is what is added,
/// multiplied or divided from such.
static bool isNonNegative(AffineExpr size) {
  if (auto constant = llvm::dyn_cast<AffineConstantExpr>(size))
    return constant.getValue() >= 0;
  auto binary = llvm::dyn_cast<AffineBinaryOpExpr>(size);
  if (!binary)
    return !llvm::isa<mlir::AffineDimExpr>(size);
  if (size.getKind() == AffineExprKind::Mod)
    return isNonNegative(binary.getRHS());
  return isNonNegative(binary.getLHS()) && isNonNegative(binary.getRHS());
}

/// `difference op 0` where the signs of its terms decide it: a dynamic dimension is never negative.
static optional<bool> compareBySign(Tok op, AffineExpr difference) {
  int64_t constant = 0;
  bool positive = false, negative = false;
  for (auto &[coefficient, factors] : termsOf(difference)) {
    if (factors.empty()) {
      constant = coefficient;
      continue;
    }
    // A quotient in a size may be of either sign.
    if (!llvm::all_of(factors, isNonNegative))
      positive = negative = true;
    (coefficient > 0 ? positive : negative) = true;
  }
  bool atLeast = !negative, atMost = !positive; // the constant
  bool above = (atLeast && constant > 0), below = (atMost && constant < 0);
  switch (op) {
  case Tok::Equal:
    return above || below ? optional<bool>(false) : nullopt;
  case Tok::NotEqual:
    return above || below ? optional<bool>(true) : nullopt;
  case Tok::Less:
    return below                      ? optional<bool>(true)
           : atLeast && constant >= 0 ? optional<bool>(false)
                                      : nullopt;
  case Tok::GreaterEqual:
    return below                      ? optional<bool>(false)
           : atLeast && constant >= 0 ? optional<bool>(true)
                                      : nullopt;
  case Tok::Greater:
    return above ? optional<bool>(true) : atMost && constant <= 0 ? optional<bool>(false) : nullopt;
  case Tok::LessEqual:
    return above ? optional<bool>(false) : atMost && constant <= 0 ? optional<bool>(true) : nullopt;
  default:
    return nullopt;
  }
}

bool language::differUnlessEmpty(AffineExpr a, AffineExpr b) {
  optional<Number> difference = fold(Tok::Minus, Number::ofSize(a), Number::ofSize(b));
  if (llvm::isa<AffineConstantExpr>(a) || llvm::isa<AffineConstantExpr>(b) || !difference ||
      !difference->isSize())
    return false;
  auto terms = termsOf(difference->size);
  return terms.size() == 1 && llvm::all_of(terms[0].second, [](AffineExpr factor) {
           return llvm::isa<mlir::AffineSymbolExpr>(factor);
         });
}

optional<bool> language::foldCompare(Tok op, const Number &a, const Number &b) {
  if (a.isRuntime() || b.isRuntime())
    return nullopt;
  int order; // of a - b
  if (a.isKnown() && b.isKnown() &&
      (a.kind == Number::Kind::Real || b.kind == Number::Kind::Real)) {
    double x = a.asDouble(), y = b.asDouble();
    if (std::isnan(x) || std::isnan(y))
      return op == Tok::NotEqual;
    order = x < y ? -1 : x > y ? 1 : 0;
  } else {
    optional<Number> difference = fold(Tok::Minus, a, b);
    if (difference && difference->isSize())
      return compareBySign(op, difference->size);
    if (!difference || !difference->isKnown())
      return nullopt;
    double d = difference->asDouble();
    order = d < 0 ? -1 : d > 0 ? 1 : 0;
  }
  switch (op) {
  case Tok::Equal:
    return order == 0;
  case Tok::NotEqual:
    return order != 0;
  case Tok::Less:
    return order < 0;
  case Tok::LessEqual:
    return order <= 0;
  case Tok::Greater:
    return order > 0;
  case Tok::GreaterEqual:
    return order >= 0;
  default:
    return nullopt;
  }
}

optional<Number> language::foldFunction(llvm::StringRef name, const Number &a) {
  if (!a.isKnown())
    return nullopt;
  double x = a.asDouble();
  auto exact = [&](int64_t n) {
    Number result = Number::whole(n);
    result.settings = a.settings;
    return result;
  };
  if (a.kind == Number::Kind::Fraction) {
    if (name == "abs")
      return a.numerator < 0 ? foldNegate(a) : a;
    if (name == "sign")
      return exact(a.numerator < 0 ? -1 : a.numerator > 0);
    if (name == "floor")
      return exact(llvm::divideFloorSigned(a.numerator, a.denominator));
    if (name == "round" && a.denominator == 1)
      return a;
  }
  using F = double (*)(double);
  F f = llvm::StringSwitch<F>(name)
            .Case("abs", [](double x) { return std::fabs(x); })
            .Case("sign", [](double x) { return std::isnan(x) ? x : double((x > 0) - (x < 0)); })
            .Case("floor", [](double x) { return std::floor(x); })
            .Case("round", [](double x) { return std::nearbyint(x); })
            .Case("exp", [](double x) { return std::exp(x); })
            .Case("log", [](double x) { return std::log(x); })
            .Case("sqrt", [](double x) { return std::sqrt(x); })
            .Case("rsqrt", [](double x) { return 1 / std::sqrt(x); })
            .Case("sin", [](double x) { return std::sin(x); })
            .Case("cos", [](double x) { return std::cos(x); })
            .Case("tanh", [](double x) { return std::tanh(x); })
            .Case("erf", [](double x) { return std::erf(x); })
            .Case("relu", [](double x) { return x <= 0 ? 0 : x; })
            .Case("sigmoid", [](double x) { return 1 / (1 + std::exp(-x)); })
            .Case("silu", [](double x) { return x / (1 + std::exp(-x)); })
            .Case("gelu", [](double x) { return x * 0.5 * (1 + std::erf(x * M_SQRT1_2)); })
            .Case("gelu_tanh",
                  [](double x) {
                    return x / (1 + std::exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)));
                  })
            .Case("softplus",
                  [](double x) { return std::fmax(x, 0) + std::log1p(std::exp(-std::fabs(x))); })
            .Default(nullptr);
  if (!f)
    return nullopt;
  // A whole result of a whole argument (round, sqrt(16)) may be a size again: Real numbers may be
  // that.
  Number result = Number::ofReal(f(x));
  result.settings = a.settings;
  return result;
}

std::string language::toString(const Number &number, llvm::ArrayRef<llvm::StringRef> dims) {
  switch (number.kind) {
  case Number::Kind::Fraction:
    return std::to_string(number.numerator) +
           (number.denominator == 1 ? "" : "/" + std::to_string(number.denominator));
  case Number::Kind::Real: {
    char text[32];
    auto end = std::to_chars(text, text + sizeof text, number.real).ptr;
    return std::string(text, end);
  }
  case Number::Kind::Size: {
    if (number.isComputed())
      return "a number known at run time";
    std::string text = dl::sizeToString(number.size, dims);
    if (number.denominator == 1)
      return text;
    bool sum = number.size.getKind() == AffineExprKind::Add;
    return (sum ? "(" + text + ")" : text) + "/" + std::to_string(number.denominator);
  }
  case Number::Kind::Runtime:
    return "a number known at run time";
  }
  llvm_unreachable("every kind is printed");
}
