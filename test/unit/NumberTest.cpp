//===- NumberTest.cpp - numbers of compile time -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "compiler/frontends/language/Number.h"

#include "mlir/IR/MLIRContext.h"
#include <gtest/gtest.h>

using namespace dlc::language;

namespace {

class NumberTest : public testing::Test {
protected:
  mlir::MLIRContext context;
  Number n = Number::ofSize(mlir::getAffineSymbolExpr(0, &context));
  Number m = Number::ofSize(mlir::getAffineSymbolExpr(1, &context));

  static Number whole(int64_t value) { return Number::whole(value); }
  static Number get(std::optional<Number> number) {
    EXPECT_TRUE(number.has_value());
    return number.value_or(Number());
  }
  static std::string text(std::optional<Number> number) {
    llvm::StringRef names[] = {"N", "M"};
    return number ? toString(*number, names) : "run time";
  }
};

TEST_F(NumberTest, FractionsStayExact) {
  Number third = get(fold(Tok::Slash, whole(1), whole(3)));
  EXPECT_EQ(text(fold(Tok::Plus, third, Number::fraction(2, 3))), "1");
  EXPECT_EQ(text(fold(Tok::Star, third, whole(4))), "4/3");
  EXPECT_EQ(text(fold(Tok::StarStar, Number::fraction(2, 3), whole(-2))), "9/4");
  // The remainder has the divisor's sign.
  EXPECT_EQ(text(fold(Tok::Percent, whole(-7), whole(3))), "2");
  EXPECT_EQ(text(fold(Tok::Percent, whole(7), whole(-3))), "-2");
  EXPECT_EQ(text(fold(Tok::Percent, Number::fraction(7, 2), whole(1))), "1/2");
  EXPECT_EQ(fold(Tok::Slash, whole(1), whole(0)), std::nullopt);
}

TEST_F(NumberTest, WhatDoesNotFitBecomesReal) {
  Number large = whole(INT64_MAX);
  Number sum = get(fold(Tok::Plus, large, large));
  EXPECT_EQ(sum.kind, Number::Kind::Real);
  EXPECT_EQ(sum.asWhole(), std::nullopt);
  EXPECT_DOUBLE_EQ(sum.asDouble(), 0x1p64);
  EXPECT_DOUBLE_EQ(get(fold(Tok::StarStar, whole(10), whole(30))).asDouble(), 1e30);
}

TEST_F(NumberTest, SizesArePolynomials) {
  Number both = get(fold(Tok::Star, n, m));
  EXPECT_EQ(text(fold(Tok::Minus, fold(Tok::Plus, both, n).value(), both)), "N");
  EXPECT_EQ(text(fold(Tok::Minus, n, n)), "0");
  EXPECT_EQ(text(fold(Tok::Slash, get(fold(Tok::Star, both, whole(6))), n)), "6*M");
  EXPECT_EQ(text(fold(Tok::Slash, n, whole(2))), "N/2");
  EXPECT_EQ(text(fold(Tok::Star, get(fold(Tok::Slash, n, whole(2))), whole(2))), "N");
  EXPECT_EQ(text(fold(Tok::Star, n, Number::ofReal(0.5))), "N/2");
  EXPECT_EQ(text(fold(Tok::Star, n, Number::ofReal(0.1))), "run time");
  EXPECT_EQ(text(fold(Tok::Slash, n, m)), "run time");
  EXPECT_EQ(text(fold(Tok::StarStar, n, whole(2))), "N*N");
}

TEST_F(NumberTest, CoefficientsDoNotOverflow) {
  Number large = n;
  for (int i = 0; i < 100; ++i) {
    std::optional<Number> next = fold(Tok::Star, large, whole(int64_t(1) << 40));
    if (!next)
      return; // left to run time
    large = *next;
  }
  FAIL() << "2^4000 * N is no size";
}

TEST_F(NumberTest, AlgebraDecidesComparisons) {
  Number next = get(fold(Tok::Plus, n, whole(1)));
  EXPECT_EQ(foldCompare(Tok::Equal, next, n), false);
  EXPECT_EQ(foldCompare(Tok::Less, n, next), true);
  // A dimension is never negative, and nothing else is known of it.
  EXPECT_EQ(foldCompare(Tok::GreaterEqual, n, whole(0)), true);
  EXPECT_EQ(foldCompare(Tok::Greater, n, whole(0)), std::nullopt);
  EXPECT_EQ(foldCompare(Tok::Equal, n, m), std::nullopt);
  EXPECT_EQ(foldCompare(Tok::Equal, get(fold(Tok::Plus, n, m)), whole(-1)), false);
  EXPECT_EQ(foldCompare(Tok::LessEqual, n, m), std::nullopt);
  EXPECT_EQ(foldCompare(Tok::Less, Number::fraction(1, 3), Number::ofReal(0.4)), true);
}

TEST_F(NumberTest, SettingsAreRemembered) {
  Number a = Number::ofReal(0.5), b = whole(2);
  a.settings = 1, b.settings = 4;
  EXPECT_EQ(get(fold(Tok::Star, a, b)).settings, 5u);
  EXPECT_EQ(get(foldFunction("sqrt", b)).settings, 4u);
}

TEST_F(NumberTest, Functions) {
  EXPECT_EQ(text(foldFunction("abs", Number::fraction(-1, 2))), "1/2");
  EXPECT_EQ(text(foldFunction("floor", Number::fraction(-1, 2))), "-1");
  EXPECT_EQ(get(foldFunction("sqrt", whole(16))).asWhole(), 4);
  EXPECT_EQ(foldFunction("sqrt", n), std::nullopt);
  EXPECT_EQ(foldFunction("no function", whole(1)), std::nullopt);
}

} // namespace
