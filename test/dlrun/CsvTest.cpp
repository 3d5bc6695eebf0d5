//===- CsvTest.cpp - tables as text, good and bad -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Csv.h"

#include <cstring>
#include <gtest/gtest.h>

using namespace dlc::run;

namespace {

using Dims = std::vector<int64_t>;

Expected<Array> read(std::string_view text, std::optional<std::string> columns,
                     dlrt_dtype dtype = DLRT_F32, uint64_t limit = 1 << 20) {
  MemoryReader reader(text);
  return readCsv(reader, columns, dtype, limit);
}

std::string errorOf(std::string_view text, std::optional<std::string> columns = std::nullopt,
                    dlrt_dtype dtype = DLRT_F32, uint64_t limit = 1 << 20) {
  Expected<Array> array = read(text, std::move(columns), dtype, limit);
  return array ? "no error" : array.error().message;
}

template <typename T>
void expectValues(Expected<Array> array, const Dims &dims, const std::vector<T> &values) {
  ASSERT_TRUE(array) << array.error().message;
  EXPECT_EQ(array->dims, dims);
  ASSERT_EQ(array->data.size(), values.size() * sizeof(T));
  std::vector<T> there(values.size());
  std::memcpy(there.data(), array->data.data(), array->data.size());
  EXPECT_EQ(there, values);
}

constexpr std::string_view flowers = "length,width,species\n5.1,3.5,0\n4.9,-3e0,2\n";

TEST(Csv, ColumnsByNameNumberAndRange) {
  expectValues<float>(read(flowers, "length"), {2}, {5.1f, 4.9f});
  expectValues<float>(read(flowers, "1"), {2}, {3.5f, -3});
  expectValues<float>(read(flowers, "0-1"), {2, 2}, {5.1f, 3.5f, 4.9f, -3});
  expectValues<float>(read(flowers, "1-1"), {2, 1}, {3.5f, -3});
  expectValues<double>(read(flowers, "species,0", DLRT_F64), {2, 2}, {0, 5.1, 2, 4.9});
  expectValues<float>(read(flowers, std::nullopt), {2, 3}, {5.1f, 3.5f, 0, 4.9f, -3, 2});
  expectValues<int32_t>(read(flowers, "species", DLRT_I32), {2}, {0, 2});
  // A name comes before what it looks like.
  expectValues<float>(read("a,0-1,b\n1,2,3\n", "0-1"), {1}, {2});
  expectValues<float>(read("a,0,b\n1,2,3\n", "b,0"), {1, 2}, {3, 2});
}

TEST(Csv, HeaderOrNone) {
  expectValues<float>(read("1,2\n3,4\n", std::nullopt), {2, 2}, {1, 2, 3, 4});
  expectValues<float>(read("1,2", std::nullopt), {1, 2}, {1, 2});
  // Text in a column that has text all the way makes no header.
  expectValues<float>(read("1,2,a\n3,4,b\n", "0-1"), {2, 2}, {1, 2, 3, 4});
  expectValues<float>(read("x,1,2\ny,3,4\n", "1"), {2}, {1, 3});
  // A name that is asked for does.
  expectValues<float>(read("0,1,label\n3,4,5\n", "label"), {1}, {5});
  expectValues<float>(read("a,b\n", "b"), {0}, {});
  // Else it could be either, and a row is not lost in silence.
  EXPECT_EQ(errorOf("150,4,setosa\n5.1,3.5,0\n", "0-1"),
            "line 1: column 2 is 'setosa' and goes on with a number, but other fields of the line "
            "are numbers: it is neither a header nor a row; take the line away or put numbers in");
  EXPECT_EQ(errorOf("1,NA\n3,4\n", "0").substr(0, 25), "line 1: column 1 is 'NA' ");
}

TEST(Csv, QuotesAndEndsOfLines) {
  std::string text =
      "\xEF\xBB\xBF\"a,b\" ,\"say \"\"x\"\"\",\"two\nlines\"\r\n\"1\", 2 ,+3\r\n4,5,6\r\n\r\n\n";
  text.erase(text.find(' '), 1);
  expectValues<float>(read(text, std::nullopt), {2, 3}, {1, 2, 3, 4, 5, 6});
  expectValues<float>(read(text, "say \"x\""), {2}, {2, 5});
  expectValues<float>(read(text, "two\nlines"), {2}, {3, 6});
  MemoryReader reader(text);
  Expected<std::vector<std::string>> names = readCsvHeader(reader);
  ASSERT_TRUE(names);
  EXPECT_EQ(*names, (std::vector<std::string>{"a,b", "say \"x\"", "two\nlines"}));
}

TEST(Csv, NumbersAreExact) {
  // Half way between two floats and a little more: by way of a double it would be rounded twice.
  expectValues<float>(read("1.00000005960464477539062500000000000000001\n1e-50\n.5\n5.\n-0\n", "0"),
                      {5}, {1.00000011920928955078125f, 0, 0.5f, 5, -0.0f});
  expectValues<double>(read("0.1\n1e-400\n1.7976931348623157e308\n", "0", DLRT_F64), {3},
                       {0.1, 0, 1.7976931348623157e308});
  expectValues<int64_t>(read("9223372036854775807\n-9223372036854775808\n", "0", DLRT_I64), {2},
                        {INT64_MAX, INT64_MIN});
  expectValues<uint8_t>(read("0\n255\n", "0", DLRT_U8), {2}, {0, 255});
  expectValues<uint8_t>(read("0\n1\n", "0", DLRT_BOOL), {2}, {0, 1});
}

TEST(Csv, LargerThanABlock) {
  std::string text;
  std::vector<int32_t> values;
  for (int32_t i = 0; i < 100000; ++i) {
    text += concat(i % 7, ",\"", i, "\"\n");
    values.push_back(i);
  }
  expectValues<int32_t>(read(text, "1", DLRT_I32), {100000}, values);
}

TEST(Csv, RefusesInWords) {
  EXPECT_EQ(errorOf(""), "the file is empty");
  EXPECT_EQ(errorOf("\n\n"), "the file is empty");
  EXPECT_EQ(errorOf(flowers, "specis"),
            "no column 'specis'; it has 'length', 'width' and 'species'; did you mean 'species'?");
  EXPECT_EQ(errorOf(flowers, "3"), "no column 3; it has 3, 0 to 2");
  EXPECT_EQ(errorOf(flowers, "0-3"), "no column 3; it has 3, 0 to 2");
  EXPECT_EQ(errorOf(flowers, "2-1"), "columns '2-1': a range begins with its smaller number");
  EXPECT_EQ(errorOf("1,2\n", "a"),
            "no column 'a': it has no header, so columns have numbers, 0 to 1");
  EXPECT_EQ(errorOf("a,a\n1,2\n", "a"),
            "several columns have the name 'a'; choose one by its number");
  EXPECT_EQ(errorOf("a,b\n1,2\n3\n4,5\n"), "line 3 has 1 field, line 1 has 2");
  EXPECT_EQ(errorOf("1,2\n3,4,5\n"), "line 2 has 3 fields, line 1 has 2");
  EXPECT_EQ(errorOf("1,2\n\n3,4\n"), "line 2: it is empty");
  EXPECT_EQ(errorOf("a,b\n1,2\n3,\n"), "line 3, column 1 ('b'): it is empty; a missing value must "
                                       "be filled in or its row left out");
  EXPECT_EQ(errorOf("a,b\n1,2\n3,Iris-setosa\n", "b", DLRT_I32),
            "line 3, column 1 ('b'): 'Iris-setosa' is not a number; text is not converted: a class "
            "must be the number of its class");
  for (std::string_view word :
       {"nan", "inf", "-inf", "NaN", "0x10", "1e", "1 2", "--1", "+-1", "1,5"})
    EXPECT_NE(errorOf(concat("1\n\"", word, "\"\n"), "0").find("is not a number"),
              std::string::npos)
        << word;
  EXPECT_EQ(errorOf("1\n3.0\n", "0", DLRT_I32),
            "line 2, column 0: '3.0' is not a whole number, which i32 asks for");
  EXPECT_EQ(errorOf("1\n256\n", "0", DLRT_U8), "line 2, column 0: '256' does not fit u8");
  EXPECT_EQ(errorOf("1\n-1\n", "0", DLRT_U8), "line 2, column 0: '-1' does not fit u8");
  EXPECT_EQ(errorOf("1\n2\n", "0", DLRT_BOOL), "line 2, column 0: '2' is no bool, which is 0 or 1");
  EXPECT_EQ(errorOf("1\n-1e39\n", "0"), "line 2, column 0: '-1e39' is beyond what f32 holds");
  EXPECT_EQ(errorOf("1\n\"2\n3\n", "0"), "line 2: a quoted field does not end before the file");
  EXPECT_EQ(errorOf("1\n\"2\"3\n", "0"), "line 2: text follows a field in quotes");
  EXPECT_EQ(errorOf("1\n2\"3\n", "0"),
            "line 2: a quote inside of a field that does not begin with one");
  EXPECT_EQ(errorOf("\"a\nb\"\n1\nx\n", "0"),
            "line 4, column 0 ('a?b'): 'x' is not a number; text is not converted: a class must be "
            "the number of its class");
  EXPECT_EQ(errorOf("1\n2\n3\n", "0", DLRT_F32, 8),
            "its elements take more than the limit of 8 bytes");
  for (std::string_view other : {"1;2\n3;4\n", "a\tb\n1\t2\n"})
    EXPECT_EQ(errorOf(other, "0"),
              "line 1 has no comma, but ';' or tabs; fields are separated by commas");
  EXPECT_EQ(errorOf("1\n", "0", DLRT_F16), "a CSV file is not read as f16");
}

} // namespace
