//===- DatasetTest.cpp - conversion, batches, shuffling, shapes, ELF -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Dataset.h"
#include "ElfNeeds.h"
#include "ShapeText.h"

#include <algorithm>
#include <cstring>
#include <gtest/gtest.h>
#include <numeric>

using namespace dlc::run;

namespace {

using Dims = std::vector<int64_t>;

template <typename T>
Array arrayOf(dlrt_dtype dtype, const Dims &dims, const std::vector<T> &values) {
  Array array{dtype, dims, Buffer(values.size() * sizeof(T))};
  std::memcpy(array.data.data(), values.data(), array.data.size());
  return array;
}

ColumnType typeOf(dlrt_dtype dtype, const Dims &dims) {
  return {"x", "step", typeText(dtype, dims), dtype, dims};
}

template <typename T> std::vector<T> gather(const Column &column, const Dims &rows) {
  std::vector<T> values(column.rowBytes() * rows.size() / sizeof(T));
  EXPECT_TRUE(column.gather(rows, reinterpret_cast<std::byte *>(values.data())));
  return values;
}

std::string problem(Array array, const ColumnType &type, const Scale &scale = {}) {
  Expected<Column> column = Column::create(std::move(array), "f", type, scale);
  return column ? "none" : column.error().message;
}

TEST(Column, ImagesBecomeRowsOfFloats) {
  std::vector<uint8_t> pixels = {0, 1, 2, 3, 4, 255, 51, 102};
  Expected<Scale> scale = Scale::parse("1/255");
  ASSERT_TRUE(scale);
  Expected<Column> column =
      Column::create(arrayOf(DLRT_U8, {2, 2, 2}, pixels), "f", typeOf(DLRT_F32, {-1, 4}), *scale);
  ASSERT_TRUE(column) << column.error().message;
  EXPECT_EQ(column->rows(), 2);
  EXPECT_EQ(column->batchDims(5), (Dims{5, 4}));
  // The quotient rounded once, as NumPy's x.astype(float32) / 255.
  EXPECT_EQ(gather<float>(*column, {1, 0}),
            (std::vector<float>{4.0f / 255, 1, 51.0f / 255, 102.0f / 255, 0, 1.0f / 255, 2.0f / 255,
                                3.0f / 255}));
}

TEST(Column, LabelsBecomeI32) {
  Expected<Column> column =
      Column::create(arrayOf<uint8_t>(DLRT_U8, {3}, {7, 0, 255}), "f", typeOf(DLRT_I32, {-1}), {});
  ASSERT_TRUE(column);
  EXPECT_EQ(gather<int32_t>(*column, {2, 1, 0, 2}), (std::vector<int32_t>{255, 0, 7, 255}));
  column =
      Column::create(arrayOf<int64_t>(DLRT_I64, {2, 1}, {-3, 4}), "f", typeOf(DLRT_I32, {-1}), {});
  ASSERT_TRUE(column);
  EXPECT_EQ(gather<int32_t>(*column, {0, 1}), (std::vector<int32_t>{-3, 4}));
}

TEST(Column, SignedBytesKeepTheirSign) {
  Expected<Column> column = Column::create(arrayOf<int8_t>(DLRT_I8, {3}, {-128, -1, 127}), "f",
                                           typeOf(DLRT_F64, {-1}), {});
  ASSERT_TRUE(column);
  EXPECT_EQ(gather<double>(*column, {0, 1, 2}), (std::vector<double>{-128, -1, 127}));
}

TEST(Column, ExactTypesAreCopied) {
  std::vector<float> values = {1.5f, -2, 3, 4, 5, 6};
  Expected<Column> column =
      Column::create(arrayOf(DLRT_F32, {3, 2}, values), "f", typeOf(DLRT_F32, {-1, -1}), {});
  ASSERT_TRUE(column);
  EXPECT_EQ(column->batchDims(1), (Dims{1, 2}));
  EXPECT_EQ(gather<float>(*column, {2, 0}), (std::vector<float>{5, 6, 1.5f, -2}));
}

TEST(Column, RefusesWhatLosesDigits) {
  EXPECT_EQ(
      problem(arrayOf<double>(DLRT_F64, {2}, {1, 2}), typeOf(DLRT_F32, {-1})),
      "'f' holds f64[2], argument 'x' of 'step' is f32[-1]: no conversion from f64 to f32 keeps "
      "every value");
  EXPECT_EQ(
      problem(arrayOf<int64_t>(DLRT_I64, {2}, {1, int64_t(1) << 31}), typeOf(DLRT_I32, {-1})),
      "'f' holds i64[2], argument 'x' of 'step' is i32[-1]: element 1 is 2147483648, which i32 "
      "does not hold");
  EXPECT_EQ(problem(arrayOf<int32_t>(DLRT_I32, {1}, {(1 << 24) + 1}), typeOf(DLRT_F32, {-1})),
            "'f' holds i32[1], argument 'x' of 'step' is f32[-1]: element 0 is 16777217, which f32 "
            "does not hold");
  EXPECT_EQ(
      problem(arrayOf<float>(DLRT_F32, {1}, {1}), typeOf(DLRT_I32, {-1})),
      "'f' holds f32[1], argument 'x' of 'step' is i32[-1]: no conversion from f32 to i32 keeps "
      "every value");
  EXPECT_EQ(
      problem(arrayOf<uint8_t>(DLRT_U8, {1}, {1}), typeOf(DLRT_BOOL, {-1})),
      "'f' holds u8[1], argument 'x' of 'step' is bool[-1]: no conversion from u8 to bool keeps "
      "every value");
}

TEST(Column, RefusesShapesThatDoNotFit) {
  EXPECT_EQ(problem(arrayOf<float>(DLRT_F32, {1, 3}, {1, 2, 3}), typeOf(DLRT_F32, {-1, 4})),
            "'f' holds f32[1, 3], argument 'x' of 'step' is f32[-1, 4]: a row of the file has 3 "
            "elements, one of the argument 4");
  EXPECT_EQ(problem(arrayOf<float>(DLRT_F32, {}, {1}), typeOf(DLRT_F32, {-1, 4})),
            "'f' holds f32, argument 'x' of 'step' is f32[-1, 4]: a data file needs rows");
  EXPECT_EQ(
      problem(arrayOf<float>(DLRT_F32, {1}, {1}), typeOf(DLRT_F32, {})),
      "'f' holds f32[1], argument 'x' of 'step' is f32: a scalar takes no data file; give it as "
      "--input x=NUMBER");
  EXPECT_EQ(problem(arrayOf<float>(DLRT_F32, {1, 2, 1}, {1, 2}), typeOf(DLRT_F32, {-1, -1})),
            "'f' holds f32[1, 2, 1], argument 'x' of 'step' is f32[-1, -1]: 3 dimensions for 2");
  EXPECT_EQ(problem(arrayOf<float>(DLRT_F32, {1, 2, 1}, {1, 2}), typeOf(DLRT_F32, {-1, -1, 3})),
            "'f' holds f32[1, 2, 1], argument 'x' of 'step' is f32[-1, -1, 3]: dimension 2 is 1, "
            "expected 3");
}

TEST(Column, ScalesFloatsOnly) {
  Expected<Scale> half = Scale::parse("0.5");
  ASSERT_TRUE(half);
  EXPECT_EQ(problem(arrayOf<uint8_t>(DLRT_U8, {1}, {1}), typeOf(DLRT_I32, {-1}), *half),
            "'f' holds u8[1], argument 'x' of 'step' is i32[-1]: only f32 and f64 arguments can be "
            "scaled, it is i32");
  Expected<Column> column =
      Column::create(arrayOf<double>(DLRT_F64, {2}, {3, -1}), "f", typeOf(DLRT_F32, {-1}), *half);
  ASSERT_TRUE(column);
  EXPECT_EQ(gather<float>(*column, {0, 1}), (std::vector<float>{1.5f, -0.5f}));
}

TEST(Scale, NumbersAndFractions) {
  for (std::string_view bad : {"", "x", "1/", "/2", "1/0", "inf", "nan", "1/2/3", "1 / 2"})
    EXPECT_FALSE(Scale::parse(bad)) << bad;
  Expected<Scale> scale = Scale::parse("-2.5e-1");
  ASSERT_TRUE(scale);
  EXPECT_EQ(scale->numerator, -0.25);
  EXPECT_EQ(scale->denominator, 1);
}

TEST(Dataset, ColumnsHaveTheSameRows) {
  std::vector<Column> columns;
  for (int64_t rows : {2, 3}) {
    ColumnType type = typeOf(DLRT_F32, {-1});
    type.argument = rows == 2 ? "x" : "y";
    Expected<Column> column = Column::create(
        arrayOf(DLRT_F32, {rows}, std::vector<float>(static_cast<size_t>(rows))), "f", type, {});
    ASSERT_TRUE(column);
    columns.push_back(std::move(*column));
  }
  Expected<Dataset> data = Dataset::create(std::move(columns), "--data");
  ASSERT_FALSE(data);
  EXPECT_EQ(data.error().message, "--data: 'x' has 2 rows (f32[2]), 'y' has 3 (f32[3])");
}

TEST(Shuffle, IsAPermutationOfSeedAndEpoch) {
  std::vector<int64_t> sorted(1000);
  std::iota(sorted.begin(), sorted.end(), 0);
  std::vector<std::vector<int64_t>> orders;
  for (auto [seed, epoch] : {std::pair{0, 0}, {0, 1}, {1, 0}, {1, 1}}) {
    std::vector<int64_t> order =
        epochOrder(static_cast<uint64_t>(seed), static_cast<uint64_t>(epoch), 1000);
    EXPECT_EQ(order, epochOrder(static_cast<uint64_t>(seed), static_cast<uint64_t>(epoch), 1000));
    for (const std::vector<int64_t> &other : orders)
      EXPECT_NE(order, other);
    orders.push_back(order);
    std::sort(order.begin(), order.end());
    EXPECT_EQ(order, sorted);
  }
}

TEST(Shuffle, IsTheSameOnEveryMachine) {
  // Written down once: a checkpoint resumed by a later version must find the same order.
  EXPECT_EQ(epochOrder(0, 0, 8), (std::vector<int64_t>{3, 5, 0, 2, 4, 7, 6, 1}));
  EXPECT_EQ(epochOrder(7, 3, 8), (std::vector<int64_t>{1, 4, 2, 3, 5, 7, 0, 6}));
}

TEST(Shuffle, EveryPlaceIsEquallyLikely) {
  // Where row 0 of 5 lands in 20000 epochs: 4000 times in each place, give or take five standard
  // deviations.
  std::vector<int> counts(5);
  for (uint64_t epoch = 0; epoch < 20000; ++epoch) {
    std::vector<int64_t> order = epochOrder(3, epoch, 5);
    ++counts[static_cast<size_t>(std::find(order.begin(), order.end(), 0) - order.begin())];
  }
  for (int count : counts)
    EXPECT_NEAR(count, 4000, 285);
}

TEST(ShapeText, WorksOutSizes) {
  std::vector<std::pair<std::string, int64_t>> sizes = {{"N", 7}, {"T", 3}};
  auto shape = [&](std::string_view text) {
    Expected<Dims> dims = evaluateShape(text, sizes);
    EXPECT_TRUE(dims) << dims.error().message;
    return dims ? *dims : Dims();
  };
  EXPECT_EQ(shape(""), Dims{});
  EXPECT_EQ(shape("[N]"), Dims{7});
  EXPECT_EQ(shape("[N, 784]"), (Dims{7, 784}));
  EXPECT_EQ(shape("[2 * N + 1, (N - 1) // 2 * T, N % T, -(2 - N)]"), (Dims{15, 9, 1, 5}));
  EXPECT_EQ(shape("[ceildiv(N, 2), floordiv(N, 2), N ceildiv T, N floordiv T, N mod 4]"),
            (Dims{4, 3, 3, 2, 3}));
}

TEST(ShapeText, RefusesInWords) {
  std::vector<std::pair<std::string, int64_t>> sizes = {{"N", INT64_MAX}};
  auto error = [&](std::string_view text) {
    Expected<Dims> dims = evaluateShape(text, sizes);
    return dims ? "no error" : dims.error().message;
  };
  EXPECT_EQ(error("[T]"), "give its size with --dim T=SIZE");
  EXPECT_EQ(error("[N + 1]"), "a dimension is too large");
  EXPECT_EQ(error("[N // 0]"), "a dimension is divided by 0");
  EXPECT_EQ(error("[1 - 2]"), "a dimension would be -1");
  EXPECT_EQ(error("[?]"), "cannot work out its shape: unexpected '?]'");
  EXPECT_EQ(error("[1"), "cannot work out its shape: unexpected ''");
  EXPECT_EQ(error("[1] x"), "cannot work out its shape: unexpected 'x'");
  EXPECT_EQ(error("[" + std::string(10000, '(')), "its shape is nested too deeply");
}

TEST(ElfNeeds, ReadsThisProgram) {
  Expected<std::string> file = readWholeFile("/proc/self/exe", UINT64_C(1) << 30);
  ASSERT_TRUE(file);
  Expected<ElfNeeds> needs = readElfNeeds(*file);
  ASSERT_TRUE(needs) << needs.error().message;
  EXPECT_NE(std::find(needs->libraries.begin(), needs->libraries.end(), "libc.so.6"),
            needs->libraries.end());
  EXPECT_EQ(needs->newestGlibc.substr(0, 2), "2.");
}

TEST(ElfNeeds, SurvivesDamage) {
  Expected<std::string> file = readWholeFile("/proc/self/exe", UINT64_C(1) << 30);
  ASSERT_TRUE(file);
  EXPECT_FALSE(readElfNeeds(""));
  EXPECT_FALSE(readElfNeeds("\x7f"
                            "ELF"));
  EXPECT_FALSE(readElfNeeds(std::string_view(*file).substr(0, 100)));
  // Every byte of the headers turned over, one after another: an answer or a refusal, no more.
  std::string damaged = file->substr(0, 8192);
  for (size_t at = 0; at < damaged.size(); ++at) {
    damaged[at] ^= 0xFF;
    (void)bool(readElfNeeds(damaged));
    damaged[at] ^= 0xFF;
  }
}

TEST(Support, PrintableKeepsTextAndNothingElse) {
  EXPECT_EQ(printable("a é 漢 😀"), "a é 漢 😀");
  EXPECT_EQ(printable("a\x1b[2J\n\x7f\xff\xc2\x80"), "a?[2J?????");
  EXPECT_EQ(printable("\xe2\x82"), "??");
  EXPECT_EQ(printable("\xc0\xaf"), "??");
}

TEST(Support, Words) {
  EXPECT_EQ(joinWords({"a"}), "a");
  EXPECT_EQ(joinWords({"a", "b", "c"}), "a, b and c");
  EXPECT_EQ(formatBytes(999), "999 bytes");
  EXPECT_EQ(formatBytes(1000), "1.0 kB");
  EXPECT_EQ(formatBytes(999'949), "999.9 kB");
  EXPECT_EQ(formatBytes(999'950), "1.0 MB");
  EXPECT_EQ(shellQuote("a-b=c/d.npy"), "a-b=c/d.npy");
  EXPECT_EQ(shellQuote("it's"), "'it'\\''s'");
  EXPECT_EQ(shellQuote(""), "''");
}

TEST(Support, Assignments) {
  EXPECT_FALSE(parseAssignment("x", "--data"));
  EXPECT_FALSE(parseAssignment("=x", "--data"));
  EXPECT_FALSE(parseAssignment("x=", "--data"));
  Expected<Assignment> assignment = parseAssignment("x=a=b", "--data");
  ASSERT_TRUE(assignment);
  EXPECT_EQ(assignment->name, "x");
  EXPECT_EQ(assignment->value, "a=b");
  Expected<std::vector<Assignment>> twice = parseAssignments({"x=1", "x=2"}, "--data");
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().message, "--data names 'x' twice");
  EXPECT_EQ(twice.error().exitCode, ExitUsage);
}

} // namespace
