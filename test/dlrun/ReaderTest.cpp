//===- ReaderTest.cpp - .npy, IDX and gzip files, good and bad -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Dataset.h"
#include "Idx.h"
#include "Npy.h"

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

using namespace dlc::run;

namespace {

constexpr uint64_t limit = 1 << 20;

/// A .npy file of version 1 with this dictionary and these elements.
std::string npy(std::string_view dictionary, std::string_view elements, char version = 1) {
  std::string text(npyMagic);
  text += version;
  text += '\0';
  text += static_cast<char>(dictionary.size() & 0xFF);
  text += static_cast<char>(dictionary.size() >> 8);
  if (version > 1)
    text += std::string(2, '\0');
  return text + std::string(dictionary) + std::string(elements);
}

std::string npyOf(std::string_view descr, std::string_view shape, std::string_view elements,
                  bool fortran = false) {
  return npy(concat("{'descr': '", descr, "', 'fortran_order': ", fortran ? "True" : "False",
                    ", 'shape': ", shape, ", }"),
             elements);
}

template <typename T> std::string bytesOfValues(std::initializer_list<T> values) {
  return std::string(reinterpret_cast<const char *>(values.begin()), values.size() * sizeof(T));
}

template <typename T> std::vector<T> valuesOf(const Array &array) {
  std::vector<T> values(array.data.size() / sizeof(T));
  std::memcpy(values.data(), array.data.data(), values.size() * sizeof(T));
  return values;
}

Expected<Array> read(const std::string &bytes, uint64_t most = limit) {
  MemoryReader reader(bytes);
  return readArray(reader, most);
}

std::string errorOf(const std::string &bytes, uint64_t most = limit) {
  Expected<Array> array = read(bytes, most);
  return array ? "no error" : array.error().message;
}

using Dims = std::vector<int64_t>;

TEST(Npy, ReadsEveryTypeItWrites) {
  for (dlrt_dtype dtype :
       {DLRT_BOOL, DLRT_U8, DLRT_I8, DLRT_I16, DLRT_I32, DLRT_I64, DLRT_F16, DLRT_F32, DLRT_F64})
    for (const Dims &dims : {Dims{}, Dims{3}, Dims{2, 3}, Dims{0, 5}, Dims{1, 2, 1, 2}}) {
      Expected<std::string> header = npyHeader(dtype, dims);
      ASSERT_TRUE(header);
      EXPECT_EQ(header->size() % 64, 0u);
      std::string elements(*byteCount(dtype, dims), '\x01');
      Expected<Array> array = read(*header + elements);
      ASSERT_TRUE(array) << array.error().message;
      EXPECT_EQ(array->dtype, dtype);
      EXPECT_EQ(array->dims, dims);
      EXPECT_EQ(std::memcmp(array->data.data(), elements.data(), elements.size()), 0);
    }
}

TEST(Npy, HeaderIsNumPys) {
  Expected<std::string> header = npyHeader(DLRT_F32, {7});
  ASSERT_TRUE(header);
  EXPECT_EQ(header->substr(0, 10), std::string("\x93NUMPY\x01\x00\x76\x00", 10));
  EXPECT_EQ(header->substr(10, 59), "{'descr': '<f4', 'fortran_order': False, 'shape': (7,), }  ");
  EXPECT_EQ(header->back(), '\n');
}

TEST(Npy, RefusesToWriteBf16) {
  Expected<std::string> header = npyHeader(DLRT_BF16, {7});
  ASSERT_FALSE(header);
  EXPECT_EQ(header.error().message, "a .npy file cannot hold bf16");
}

TEST(Npy, ReadsLaterVersionsAndPython2) {
  std::string dictionary = "{\"shape\": (2L,), 'fortran_order': False, 'descr': '|u1'}";
  for (char version : {1, 2, 3}) {
    Expected<Array> array = read(npy(dictionary, "ab", version));
    ASSERT_TRUE(array) << array.error().message;
    EXPECT_EQ(array->dims, Dims{2});
  }
}

TEST(Npy, PutsByteOrderRight) {
  Expected<Array> array =
      read(npyOf(">i4", "(2,)", std::string("\0\0\x01\x02\xff\xff\xff\xfe", 8)));
  ASSERT_TRUE(array);
  EXPECT_EQ(valuesOf<int32_t>(*array), (std::vector<int32_t>{258, -2}));
}

TEST(Npy, PutsFortranOrderRight) {
  // [[1, 2, 3], [4, 5, 6]] column by column.
  Expected<Array> array =
      read(npyOf("<i2", "(2, 3)", bytesOfValues<int16_t>({1, 4, 2, 5, 3, 6}), /*fortran=*/true));
  ASSERT_TRUE(array);
  EXPECT_EQ(valuesOf<int16_t>(*array), (std::vector<int16_t>{1, 2, 3, 4, 5, 6}));
  // Element (i, j, k) of a [2, 2, 2] array is 100 i + 10 j + k.
  array = read(
      npyOf("<i2", "(2, 2, 2)", bytesOfValues<int16_t>({0, 100, 10, 110, 1, 101, 11, 111}), true));
  ASSERT_TRUE(array);
  EXPECT_EQ(valuesOf<int16_t>(*array), (std::vector<int16_t>{0, 1, 10, 11, 100, 101, 110, 111}));
}

TEST(Npy, NormalizesBools) {
  Expected<Array> array = read(npyOf("|b1", "(3,)", std::string("\x00\x01\x07", 3)));
  ASSERT_TRUE(array);
  EXPECT_EQ(valuesOf<uint8_t>(*array), (std::vector<uint8_t>{0, 1, 1}));
}

TEST(Npy, RefusesInWords) {
  std::string good = npyOf("<f4", "(2,)", std::string(8, '\0'));
  EXPECT_EQ(errorOf(""), "the file is empty");
  EXPECT_EQ(errorOf("hello"), "neither a .npy nor an IDX file");
  EXPECT_EQ(errorOf(good.substr(0, 7)), "truncated in its first 8 bytes");
  EXPECT_EQ(errorOf(good.substr(0, 9)), "truncated in its header");
  EXPECT_EQ(errorOf(good.substr(0, 20)), "truncated in its header");
  EXPECT_EQ(errorOf(good.substr(0, good.size() - 3)),
            "truncated: the header promises 8 bytes of elements, the file has 5");
  EXPECT_EQ(errorOf(good + "x"),
            "more data follow the 8 bytes of elements that the header promises");
  EXPECT_EQ(errorOf(good, 7), "its elements take 8 bytes, more than the limit of 7");
  EXPECT_EQ(errorOf(npy("{}", "", 9)), "version 9.0 of the .npy format; 1 to 3 are read");
  EXPECT_EQ(errorOf(npyOf("<c8", "(1,)", "12345678")),
            "its elements are of NumPy's type '<c8', which no model takes");
  EXPECT_EQ(errorOf(npyOf("<u2", "(1,)", "12")),
            "its elements are of NumPy's type '<u2', which no model takes");
  EXPECT_EQ(errorOf(npyOf("|O", "(1,)", "12345678")),
            "its elements are of NumPy's type '|O', which no model takes");
  EXPECT_EQ(
      errorOf(npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", "1234")),
      "its elements are records or of a type that is not known here");
  EXPECT_EQ(errorOf(npyOf("<f4", "(1, 1, 1, 1, 1, 1, 1, 1, 1)", "1234")),
            "it has more than 8 dimensions");
  EXPECT_EQ(errorOf(npyOf("<f4", "(4611686018427387904, 4611686018427387904)", "")),
            "its shape f32[4611686018427387904, 4611686018427387904] has more bytes than there "
            "are numbers");
  EXPECT_EQ(errorOf(npyOf("<f4", "(99999999999999999999,)", "")),
            "a dimension in its shape is too large");
  EXPECT_EQ(errorOf(npyOf("<f4", "(-1,)", "")), "damaged header: expected a size, got '-'");
  EXPECT_EQ(errorOf(npyOf("<f4", "(1", "")), "damaged header: expected a size, got '}'");
  EXPECT_EQ(errorOf(npyOf("<f4", "(1 2)", "")), "damaged header: expected ',' or ')', got '2'");
  EXPECT_EQ(errorOf(npy("{'descr': '<f4', 'shape': (1,)}", "1234")),
            "damaged header: 'descr', 'fortran_order' or 'shape' is missing");
  EXPECT_EQ(errorOf(npy("{'descr': '<f4', 'descr': '<f4'}", "")),
            "damaged header: unknown or repeated key 'descr'");
  EXPECT_EQ(errorOf(npy("[]", "")), "damaged header: expected '{', got '['");
  EXPECT_EQ(errorOf(npy("{", "")), "damaged header: expected a key in quotes before its end");
}

TEST(Npy, HugePromisesCostNothing) {
  // 2^40 elements in a file of a few bytes: refused before memory is asked for.
  EXPECT_EQ(errorOf(npyOf("<f8", "(1099511627776,)", "1234"), UINT64_MAX),
            "truncated: the header promises 8796093022208 bytes of elements, the file has 4");
}

TEST(Idx, ReadsImagesAndLabels) {
  Expected<Array> images = read(std::string("\0\0\x08\x03\0\0\0\x02\0\0\0\x01\0\0\0\x02"
                                            "abcd",
                                            20));
  ASSERT_TRUE(images) << images.error().message;
  EXPECT_EQ(typeText(*images), "u8[2, 1, 2]");
  EXPECT_EQ(valuesOf<uint8_t>(*images), (std::vector<uint8_t>{'a', 'b', 'c', 'd'}));
  Expected<Array> numbers = read(std::string("\0\0\x0c\x01\0\0\0\x01\0\0\x01\x02", 12));
  ASSERT_TRUE(numbers);
  EXPECT_EQ(valuesOf<int32_t>(*numbers), (std::vector<int32_t>{258}));
  Expected<Array> floats = read(std::string("\0\0\x0d\x01\0\0\0\x01\x3f\x80\0\0", 12));
  ASSERT_TRUE(floats);
  EXPECT_EQ(valuesOf<float>(*floats), (std::vector<float>{1.0f}));
}

TEST(Idx, RefusesInWords) {
  EXPECT_EQ(errorOf(std::string("\0\0\x08\x09\0\0\0\x01", 8)), "it has 9 dimensions, more than 8");
  EXPECT_EQ(errorOf(std::string("\0\0\x08\x02\0\0\0\x01\0\0", 10)), "truncated in its header");
  EXPECT_EQ(errorOf(std::string("\0\0\x08\x01\0\0\0\x05"
                                "abc",
                                11)),
            "truncated: the header promises 5 bytes of elements, the file has 3");
  EXPECT_EQ(errorOf(std::string("\0\0\x07\x01\0\0\0\x01"
                                "a",
                                9)),
            "neither a .npy nor an IDX file");
  std::string huge("\0\0\x0e\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 16);
  EXPECT_EQ(errorOf(huge), "its shape f64[4294967295, 4294967295, 4294967295] has more bytes "
                           "than there are numbers");
}

/// A folder that goes away with the test.
class Files : public testing::Test {
protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "dlrun-test-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder); }

  std::string path(const std::string &name) const { return (folder / name).string(); }
  std::string write(const std::string &name, const std::string &bytes) const {
    std::ofstream(path(name), std::ios::binary) << bytes;
    return path(name);
  }
  std::string compress(const std::string &name, const std::string &bytes) const {
    gzFile file = gzopen(path(name).c_str(), "wb");
    EXPECT_EQ(gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size())),
              static_cast<int>(bytes.size()));
    gzclose(file);
    return path(name);
  }
  static std::string contentOf(const std::string &file) {
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }

  std::filesystem::path folder;
};

TEST_F(Files, GzipIsReadAsItComes) {
  std::string elements(100000, 'x');
  std::string bytes = npyOf("|u1", "(100000,)", elements);
  for (const std::string &file : {write("a.npy", bytes), compress("a.npy.gz", bytes)}) {
    Expected<Array> array = readArray(file);
    ASSERT_TRUE(array) << array.error().message;
    EXPECT_EQ(array->data.size(), elements.size());
    EXPECT_EQ(std::memcmp(array->data.data(), elements.data(), elements.size()), 0);
  }
}

TEST_F(Files, DamagedGzipIsRefused) {
  std::string elements;
  for (int i = 0; i < 5000; ++i)
    elements += static_cast<char>(i * 37 + i / 256 * 11);
  std::string file = compress("a.gz", npyOf("|u1", "(5000,)", elements));
  std::string whole = contentOf(file);

  std::string cut = write("cut.gz", whole.substr(0, whole.size() / 2));
  Expected<Array> array = readArray(cut);
  ASSERT_FALSE(array);
  EXPECT_EQ(array.error().message, quote(cut) + ": the gzip file is truncated");

  std::string flipped = whole;
  flipped[whole.size() - 6] ^= 1; // the sum at the end
  array = readArray(write("sum.gz", flipped));
  ASSERT_FALSE(array);
  EXPECT_NE(array.error().message.find("the gzip file is damaged: "), std::string::npos)
      << array.error().message;
}

TEST_F(Files, FilesThatAreNone) {
  Expected<Array> array = readArray(path("missing.npy"));
  ASSERT_FALSE(array);
  EXPECT_EQ(array.error().message, quote(path("missing.npy")) + ": No such file or directory");
  array = readArray(folder.string());
  ASSERT_FALSE(array);
  EXPECT_EQ(array.error().message, quote(folder.string()) + ": Is a directory");
  array = readArray("/dev/zero");
  ASSERT_FALSE(array);
  EXPECT_EQ(array.error().message, "'/dev/zero': neither a .npy nor an IDX file");
}

TEST_F(Files, WritingReplacesInOneStep) {
  std::string file = path("a.npy");
  float values[] = {1, 2, 3};
  ASSERT_TRUE(writeNpy(file, DLRT_F32, {3}, values, sizeof(values)));
  Expected<Array> array = readArray(file);
  ASSERT_TRUE(array);
  EXPECT_EQ(valuesOf<float>(*array), (std::vector<float>{1, 2, 3}));

  // Nothing is left behind, nor is anything replaced that is no file.
  Status status = writeNpy("/dev/full", DLRT_F32, {3}, values, sizeof(values));
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message, "cannot write '/dev/full': not a regular file");
  std::filesystem::create_directory(path("folder"));
  EXPECT_FALSE(writeNpy(path("folder"), DLRT_F32, {3}, values, sizeof(values)));
  EXPECT_FALSE(writeNpy(path("none/a.npy"), DLRT_F32, {3}, values, sizeof(values)));
  size_t files = 0;
  for ([[maybe_unused]] const auto &entry : std::filesystem::directory_iterator(folder))
    ++files;
  EXPECT_EQ(files, 2u);
}

TEST_F(Files, Fingerprints) {
  Expected<std::optional<Fingerprint>> print = fingerprintOf(path("none"));
  ASSERT_TRUE(print);
  EXPECT_FALSE(*print);
  print = fingerprintOf(write("a", "123456789"));
  ASSERT_TRUE(print && *print);
  EXPECT_EQ((*print)->bytes, 9u);
  EXPECT_EQ((*print)->crc32, 0xCBF43926u); // CRC-32's check value
}

} // namespace
