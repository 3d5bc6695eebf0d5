//===- Common.h - what the runtime's tests share -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
#ifndef DLC_TEST_RUNTIME_COMMON_H
#define DLC_TEST_RUNTIME_COMMON_H

#include "Fixture.h"
#include "dlrt/dlrt.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdlib.h>
#include <string>
#include <vector>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define DLC_SANITIZED 1
#endif
#if __has_feature(thread_sanitizer)
#define DLC_THREAD_SANITIZED 1
#endif
#endif

namespace dlc::test {

/// A status that goes back by itself; compares with a code and shows its words.
struct Status {
  std::unique_ptr<dlrt_status_object, void (*)(dlrt_status)> status;
  Status(dlrt_status s) : status(s, dlrt_status_release) {}
  dlrt_code code() const { return dlrt_status_code(status.get()); }
  std::string message() const { return dlrt_status_message(status.get()); }
};

#define EXPECT_OK(call)                                                                            \
  do {                                                                                             \
    dlc::test::Status status_(call);                                                               \
    EXPECT_EQ(status_.code(), DLRT_OK) << status_.message();                                       \
  } while (0)
#define ASSERT_OK(call)                                                                            \
  do {                                                                                             \
    dlc::test::Status status_(call);                                                               \
    ASSERT_EQ(status_.code(), DLRT_OK) << status_.message();                                       \
  } while (0)
/// The whole message.
#define EXPECT_FAILS(call, expected_code, words)                                                   \
  do {                                                                                             \
    dlc::test::Status status_(call);                                                               \
    EXPECT_EQ(status_.code(), expected_code);                                                      \
    EXPECT_EQ(status_.message(), words);                                                           \
  } while (0)
/// A part of the message.
#define EXPECT_FAILS_WITH(call, expected_code, words)                                              \
  do {                                                                                             \
    dlc::test::Status status_(call);                                                               \
    EXPECT_EQ(status_.code(), expected_code) << status_.message();                                 \
    EXPECT_NE(status_.message().find(words), std::string::npos) << status_.message();              \
  } while (0)

using ModelPtr = std::unique_ptr<dlrt_model, void (*)(dlrt_model *)>;
using InstancePtr = std::unique_ptr<dlrt_instance, void (*)(dlrt_instance *)>;

inline ModelPtr attachFixture() {
  dlrt_model *model = nullptr;
  EXPECT_OK(dlrt_model_attach(fixture_query(DL_ABI_VERSION), &model));
  return ModelPtr(model, dlrt_model_release);
}

inline InstancePtr makeInstance(dlrt_model *model, uint32_t threads = 1, uint64_t seed = 0,
                                size_t limit = 0) {
  dlrt_options options = {sizeof options, threads, seed, limit, DLRT_DEVICE_AUTO, 0};
  dlrt_instance *instance = nullptr;
  EXPECT_OK(dlrt_instance_create(model, &options, &instance));
  return InstancePtr(instance, dlrt_instance_release);
}

template <typename T> struct DtypeOf;
template <> struct DtypeOf<float> {
  static constexpr uint8_t value = DLRT_F32;
};
template <> struct DtypeOf<double> {
  static constexpr uint8_t value = DLRT_F64;
};
template <> struct DtypeOf<int64_t> {
  static constexpr uint8_t value = DLRT_I64;
};
template <> struct DtypeOf<int32_t> {
  static constexpr uint8_t value = DLRT_I32;
};

template <typename T>
dlrt_tensor tensor(std::vector<T> &data, std::initializer_list<int64_t> dims) {
  dlrt_tensor t = {};
  t.data = data.data();
  t.bytes = data.size() * sizeof(T);
  t.dtype = DtypeOf<T>::value;
  for (int64_t dim : dims)
    t.dims[t.rank++] = dim;
  return t;
}
/// Room for a result.
template <typename T> dlrt_tensor room(std::vector<T> &data) {
  dlrt_tensor t = {};
  t.data = data.data();
  t.bytes = data.size() * sizeof(T);
  return t;
}

/// All bytes of all variables.
inline std::vector<uint8_t> variablesOf(dlrt_model *model, const dlrt_instance *instance) {
  dlrt_model_info info;
  dlrt_model_get_info(model, &info);
  std::vector<uint8_t> all;
  for (uint32_t i = 0; i < info.variable_count; ++i) {
    dlrt_variable_info variable;
    EXPECT_OK(dlrt_model_get_variable(model, i, &variable));
    std::vector<uint8_t> bytes(variable.bytes);
    EXPECT_OK(dlrt_variable_read(instance, i, bytes.data(), bytes.size()));
    all.insert(all.end(), bytes.begin(), bytes.end());
  }
  return all;
}

inline std::vector<uint8_t> readFile(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
inline void writeFile(const std::string &path, const std::vector<uint8_t> &bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char *>(bytes.data()), bytes.size());
  ASSERT_TRUE(out.flush());
}

/// A folder that goes away.
struct Folder {
  std::filesystem::path path;
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "dlrt-test-XXXXXX").string();
    path = mkdtemp(name.data());
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::permissions(path, std::filesystem::perms::owner_all, ignored);
    std::filesystem::remove_all(path, ignored);
  }
  std::string file(const std::string &name) const { return (path / name).string(); }
  std::vector<std::string> names() const {
    std::vector<std::string> list;
    for (const auto &entry : std::filesystem::directory_iterator(path))
      list.push_back(entry.path().filename().string());
    std::sort(list.begin(), list.end());
    return list;
  }
};

/// x[i] for tests: small, signed, exact.
inline std::vector<float> numbers(size_t count, int salt = 0) {
  std::vector<float> x(count);
  for (size_t i = 0; i < count; ++i)
    x[i] = static_cast<float>(static_cast<int>((i * 37 + salt * 11) % 17) - 8) / 8;
  return x;
}

/// One training step on made-up data; returns the loss.
inline float trainStep(dlrt_instance *instance, int64_t n, int salt = 0) {
  std::vector<float> x = numbers(n * 4, salt), y = numbers(n * 3, salt + 1), loss(1);
  dlrt_tensor arguments[] = {tensor(x, {n, 4}), tensor(y, {n, 3})};
  dlrt_tensor results[] = {room(loss)};
  EXPECT_OK(dlrt_call(instance, Step, arguments, 2, results, 1));
  return loss[0];
}

/// The same in two halves; what is kept in between is no memory of the caller's.
inline uint64_t submitStep(dlrt_instance *instance, int64_t n, int salt = 0) {
  std::vector<float> x = numbers(n * 4, salt), y = numbers(n * 3, salt + 1);
  dlrt_tensor arguments[] = {tensor(x, {n, 4}), tensor(y, {n, 3})};
  uint64_t ticket = 0;
  EXPECT_OK(dlrt_submit(instance, Step, arguments, 2, 1, &ticket));
  EXPECT_NE(ticket, 0u);
  x.assign(x.size(), 1e9f), y.assign(y.size(), 1e9f);
  return ticket;
}
inline float collectStep(dlrt_instance *instance, uint64_t ticket) {
  std::vector<float> loss = {-1};
  dlrt_tensor result = room(loss);
  EXPECT_OK(dlrt_collect(instance, ticket, &result, 1));
  return loss[0];
}

} // namespace dlc::test
#endif
