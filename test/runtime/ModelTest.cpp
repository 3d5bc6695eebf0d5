//===- ModelTest.cpp - opening artefacts -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
#include "Common.h"

#include <elf.h>
#include <sys/stat.h>

using namespace dlc::test;

namespace {

const std::string library = FIXTURE_LIBRARY;

Status open(const std::string &path, dlrt_model **model) {
  return dlrt_model_open(path.c_str(), model);
}
Status inspect(const std::string &path, dlrt_model **model) {
  return dlrt_model_inspect(path.c_str(), model);
}

size_t find(const std::vector<uint8_t> &bytes, const std::string &what) {
  auto it = std::search(bytes.begin(), bytes.end(), what.begin(), what.end());
  EXPECT_NE(it, bytes.end()) << what;
  return it - bytes.begin();
}

float predictOne(dlrt_model *model) {
  InstancePtr instance = makeInstance(model);
  std::vector<float> x = {1, 0, 0, 0}, out(3);
  dlrt_tensor argument = tensor(x, {1, 4}), result = room(out);
  EXPECT_OK(dlrt_call(instance.get(), Predict, &argument, 1, &result, 1));
  return out[2];
}

TEST(Open, RunsALibrary) {
  dlrt_model *model = nullptr;
  ASSERT_OK(dlrt_model_open(library.c_str(), &model));
  EXPECT_EQ(predictOne(model), 0.5f + 2);
  dlrt_model_release(model);
}

TEST(Open, KnowsWhatTheModelSays) {
  for (auto how : {dlrt_model_open, dlrt_model_inspect}) {
    dlrt_model *model = nullptr;
    ASSERT_OK(how(library.c_str(), &model));
    dlrt_model_info info;
    dlrt_model_get_info(model, &info);
    EXPECT_STREQ(info.name, "Fixture");
    EXPECT_STREQ(info.doc, "A model for tests.");
    EXPECT_STREQ(info.features, "cx16,sse2");
    EXPECT_EQ(info.abi_version, DL_ABI_VERSION);
    EXPECT_EQ(info.variable_count, 8u);
    EXPECT_EQ(info.function_count, 11u); // without the init function
    EXPECT_STREQ(dlrt_model_dim_name(model, 0), "N");
    EXPECT_EQ(dlrt_model_dim_name(model, 1), nullptr);

    dlrt_variable_info variable;
    ASSERT_OK(dlrt_model_get_variable(model, W, &variable));
    EXPECT_STREQ(variable.name, "w");
    EXPECT_STREQ(variable.doc, "The weights.");
    EXPECT_EQ(variable.dtype, DLRT_F32);
    EXPECT_EQ(variable.rank, 2u);
    EXPECT_EQ(variable.dims[0], 4);
    EXPECT_EQ(variable.dims[1], 3);
    EXPECT_EQ(variable.bytes, 48u);
    EXPECT_FAILS(dlrt_model_get_variable(model, 8, &variable), DLRT_NOT_FOUND,
                 "no variable 8: model 'Fixture' has 8");

    uint32_t number = 99;
    ASSERT_OK(dlrt_model_find_variable(model, "step.t", &number));
    EXPECT_EQ(number, StepT);
    EXPECT_FAILS(dlrt_model_find_variable(model, "W", &number), DLRT_NOT_FOUND,
                 "model 'Fixture' has no variable 'W'");
    ASSERT_OK(dlrt_model_find_function(model, "step", &number));
    EXPECT_EQ(number, Step);
    EXPECT_FAILS(dlrt_model_find_function(model, "train", &number), DLRT_NOT_FOUND,
                 "model 'Fixture' has no function 'train'; it has 'predict', 'step', 'pick', "
                 "'stats', 'mxcsr', 'slow', "
                 "'pairs', 'tell', 'retell', 'shares', 'prepared'");
    EXPECT_EQ(Status(dlrt_model_find_function(model, "__init", &number)).code(), DLRT_NOT_FOUND);

    dlrt_function_info function;
    ASSERT_OK(dlrt_model_get_function(model, Step, &function));
    EXPECT_STREQ(function.name, "step");
    EXPECT_EQ(function.argument_count, 3u);
    EXPECT_EQ(function.result_count, 1u);
    EXPECT_FALSE(function.is_const);
    EXPECT_TRUE(function.is_train);
    EXPECT_STREQ(dlrt_function_kernel_name(model, Step, 1), "gradient (fixture.dl:8:3)");
    EXPECT_STREQ(dlrt_function_kernel_name(model, Predict, 1), "add");
    EXPECT_EQ(dlrt_function_kernel_name(model, Step, 3), nullptr);
    EXPECT_FAILS(dlrt_model_get_function(model, 11, &function), DLRT_NOT_FOUND,
                 "no function 11: model 'Fixture' has 11");

    dlrt_value_info value;
    ASSERT_OK(dlrt_function_get_argument(model, Stats, 0, &value));
    EXPECT_STREQ(value.shape, "[N, N * 2 + 1]");
    EXPECT_EQ(value.dims[0], -1);
    ASSERT_OK(dlrt_function_get_argument(model, Predict, 0, &value));
    EXPECT_EQ(value.dims[1], 4);
    EXPECT_FALSE(value.has_default);
    ASSERT_OK(dlrt_function_get_argument(model, Step, 2, &value));
    EXPECT_STREQ(value.name, "lr");
    EXPECT_STREQ(value.shape, "");
    EXPECT_TRUE(value.has_default);
    EXPECT_EQ(value.default_value, 0.5);
    ASSERT_OK(dlrt_function_get_result(model, Stats, 0, &value));
    EXPECT_STREQ(value.name, "half");
    EXPECT_STREQ(value.shape, "[N // 2]");
    EXPECT_FAILS(dlrt_function_get_argument(model, Step, 3, &value), DLRT_NOT_FOUND,
                 "no argument 3: function 'step' has 3");
    dlrt_model_release(model);
  }
}

TEST(Open, InspectedModelHasNoCode) {
  dlrt_model *model = nullptr;
  ASSERT_OK(dlrt_model_inspect(library.c_str(), &model));
  dlrt_instance *instance = nullptr;
  EXPECT_FAILS(dlrt_instance_create(model, nullptr, &instance), DLRT_INVALID_ARGUMENT,
               "model 'Fixture' was opened to inspect it only: it has no code");
  EXPECT_EQ(instance, nullptr);
  dlrt_model_release(model);
  dlrt_model_release(nullptr);
}

TEST(Open, ObjectFilesCanBeInspected) {
  dlrt_model *model = nullptr;
  ASSERT_OK(dlrt_model_inspect(FIXTURE_OBJECT, &model));
  dlrt_model_info info;
  dlrt_model_get_info(model, &info);
  EXPECT_STREQ(info.name, "Fixture");
  dlrt_model_release(model);
  EXPECT_FAILS_WITH(dlrt_model_open(FIXTURE_OBJECT, &model), DLRT_INCOMPATIBLE,
                    "cannot be loaded: it is no shared library");
}

TEST(Open, ForeignFilesAreRefused) {
  Folder folder;
  std::string path = folder.file("m.so");
  dlrt_model *model = nullptr;
  for (auto how : {dlrt_model_open, dlrt_model_inspect}) {
    EXPECT_FAILS(how(nullptr, &model), DLRT_INVALID_ARGUMENT, "path is NULL");
    EXPECT_FAILS(how("m.so", nullptr), DLRT_INVALID_ARGUMENT, "out_model is NULL");
    EXPECT_FAILS(how("/nonexistent/m.so", &model), DLRT_NOT_FOUND,
                 "'/nonexistent/m.so': cannot open: No such file or directory");
    EXPECT_FAILS(how("/tmp", &model), DLRT_IO, "'/tmp': cannot read: Is a directory");
    EXPECT_FAILS(how("/dev/null", &model), DLRT_INCOMPATIBLE, "'/dev/null' is not a regular file");
    std::string pipe = folder.file("pipe");
    mkfifo(pipe.c_str(), 0600); // must not hang
    EXPECT_FAILS(how(pipe.c_str(), &model), DLRT_INCOMPATIBLE,
                 "'" + pipe + "' is not a regular file");
    writeFile(path, {});
    EXPECT_FAILS(how(path.c_str(), &model), DLRT_INCOMPATIBLE,
                 "'" + path + "' is not a compiled model: it has 0 bytes");
    writeFile(path, std::vector<uint8_t>(1000, 'x'));
    EXPECT_FAILS(how(path.c_str(), &model), DLRT_INCOMPATIBLE,
                 "'" + path + "' is not a compiled model: it is no ELF file");
  }
  // A library that is no model.

  for (auto how : {dlrt_model_open, dlrt_model_inspect})
    EXPECT_FAILS_WITH(how("/lib/x86_64-linux-gnu/libm.so.6", &model), DLRT_INCOMPATIBLE,
                      "is not a compiled model: it has no note 'dlc'");
  // Another machine, another class of ELF file.
  std::vector<uint8_t> bytes = readFile(library);
  bytes[offsetof(Elf64_Ehdr, e_machine)] = EM_AARCH64;
  writeFile(path, bytes);
  EXPECT_FAILS(open(path, &model).status.release(), DLRT_INCOMPATIBLE,
               "'" + path + "' is not for this machine: it has ELF machine number 183, not 62");
  bytes[EI_CLASS] = ELFCLASS32;
  writeFile(path, bytes);
  EXPECT_FAILS(open(path, &model).status.release(), DLRT_INCOMPATIBLE,
               "'" + path + "' is not for this machine: it is no 64-bit little-endian ELF file");
  EXPECT_EQ(model, nullptr);
}

TEST(Open, EachTruncationIsRefused) {
  Folder folder;
  std::string path = folder.file("m.so");
  const std::vector<uint8_t> bytes = readFile(library);
  ASSERT_GT(bytes.size(), 1000u);
  for (size_t length = 0; length < bytes.size(); length += length < 2000 ? 61 : 509) {
    writeFile(path, {bytes.begin(), bytes.begin() + length});
    dlrt_model *model = nullptr;
    Status status = open(path, &model);
    EXPECT_NE(status.code(), DLRT_OK) << length;
    EXPECT_EQ(status.code(), length < 16 ? DLRT_INCOMPATIBLE : DLRT_CORRUPT) << status.message();
    EXPECT_EQ(model, nullptr);
    EXPECT_NE(inspect(path, &model).code(), DLRT_OK);
  }
}

TEST(Open, DamagedHeadersAreRefused) {
  Folder folder;
  std::string path = folder.file("m.so");
  const std::vector<uint8_t> bytes = readFile(library);
  Elf64_Ehdr head;
  memcpy(&head, bytes.data(), sizeof head);
  writeFile(path, bytes);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  auto put = [&](size_t at, uint8_t byte) { file.seekp(at).put(static_cast<char>(byte)).flush(); };
  // All bytes of the ELF header and of the program headers.
  for (size_t i = 0; i < head.e_phoff + head.e_phnum * sizeof(Elf64_Phdr); ++i)
    for (uint8_t flip : {0x01, 0x80, 0xff}) {
      put(i, bytes[i] ^ flip);
      dlrt_model *model = nullptr;
      Status status = inspect(path, &model);
      EXPECT_EQ(status.code() == DLRT_OK, model != nullptr);
      dlrt_model_release(model);
      put(i, bytes[i]);
    }
  dlrt_model *model = nullptr;
  ASSERT_OK(dlrt_model_open(path.c_str(), &model)); // the file is whole again
  dlrt_model_release(model);
}

TEST(Open, OtherAbiVersionIsRefused) {
  Folder folder;
  std::string path = folder.file("m.so");
  std::vector<uint8_t> bytes = readFile(library);
  bytes[find(bytes, std::string("DLMODEL\0", 8)) + 8] = 7;
  writeFile(path, bytes);
  dlrt_model *model = nullptr;
  for (auto how : {dlrt_model_open, dlrt_model_inspect})
    EXPECT_FAILS(how(path.c_str(), &model), DLRT_INCOMPATIBLE,
                 "'" + path + "': has ABI version 7, this runtime speaks version " + std::to_string(DL_ABI_VERSION));
}

TEST(Open, MissingFeaturesAreRefused) {
  Folder folder;
  std::string path = folder.file("m.so");
  std::vector<uint8_t> bytes = readFile(library);
  size_t at = find(bytes, "cx16,sse2");
  dlrt_model *model = nullptr;
  memcpy(&bytes[at], "hal9,sse2", 9);
  writeFile(path, bytes);
  EXPECT_FAILS(open(path, &model).status.release(), DLRT_INCOMPATIBLE,
               "'" + path + "': needs hal9, which this runtime does not know");
  // Long gone from all processors, or never on those with the other.
  memcpy(&bytes[at], "lwp,sse2\0", 9);
  writeFile(path, bytes);
  if (Status status = open(path, &model); status.code() == DLRT_OK)
    dlrt_model_release(model);
  else
    EXPECT_EQ(status.message(),
              "'" + path +
                  "': needs lwp, which this processor or its operating system does not have");
  model = nullptr;
  EXPECT_OK(
      dlrt_model_inspect(path.c_str(), &model)); // telling what it needs is what inspecting is for
  dlrt_model_release(model);
}

TEST(Open, CodeMustMatchTheNote) {
  // The query symbol is looked up under the name in the note.
  Folder folder;
  std::string path = folder.file("m.so");
  std::vector<uint8_t> bytes = readFile(library);
  size_t blob = find(bytes, std::string("DLMODEL\0", 8));
  dl_blob head;
  memcpy(&head, &bytes[blob], sizeof head);
  bytes[blob + head.query] = 'g';
  writeFile(path, bytes);
  dlrt_model *model = nullptr;
  EXPECT_FAILS(open(path, &model).status.release(), DLRT_CORRUPT,
               "'" + path + "': lacks its query symbol 'gixture_query'");
}

TEST(Open, DescriptionIsCheckedBeforeCodeRuns) {
  Folder folder;
  std::string path = folder.file("m.so");
  std::vector<uint8_t> bytes = readFile(library);
  size_t blob = find(bytes, std::string("DLMODEL\0", 8));
  bytes[blob + offsetof(dl_blob, variables) + 3] ^= 0x7f;
  writeFile(path, bytes);
  dlrt_model *model = nullptr;
  EXPECT_FAILS(open(path, &model).status.release(), DLRT_CORRUPT,
               "'" + path + "': damaged description: variables out of bounds");
}

// A model that was compiled again under its old path is another model, although the loader knows
// the name.
TEST(Open, RecompiledUnderTheSamePath) {
  Folder folder;
  std::string path = folder.file("m.so");
  std::filesystem::copy_file(library, path);
  dlrt_model *first = nullptr, *second = nullptr, *again = nullptr;
  ASSERT_OK(dlrt_model_open(path.c_str(), &first));
  std::vector<uint8_t> bytes = readFile(library);
  memcpy(&bytes[find(bytes, "A model for tests.")], "B model for tests.", 18);
  writeFile(folder.file("new.so"), bytes);
  std::filesystem::rename(folder.file("new.so"), path);
  ASSERT_OK(dlrt_model_open(path.c_str(), &second));
  ASSERT_OK(dlrt_model_open(path.c_str(), &again));
  dlrt_model_info info;
  dlrt_model_get_info(first, &info);
  EXPECT_STREQ(info.doc, "A model for tests.");
  dlrt_model_get_info(second, &info);
  EXPECT_STREQ(info.doc, "B model for tests.");
  EXPECT_EQ(predictOne(first), 2.5f);
  dlrt_model_release(first);
  EXPECT_EQ(predictOne(second), 2.5f);
  dlrt_model_release(second);
  EXPECT_EQ(predictOne(again), 2.5f);
  dlrt_model_release(again);
}

TEST(Open, ModelOutlivesItsReleaseUntilTheLastInstance) {
  dlrt_model *model = nullptr;
  ASSERT_OK(dlrt_model_open(library.c_str(), &model));
  InstancePtr instance = makeInstance(model, 2);
  dlrt_model_release(model);
  EXPECT_GT(trainStep(instance.get(), 5), 0);
}

TEST(Open, LeavesNoFilesOpen) {
  auto openFiles = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                         std::filesystem::directory_iterator());
  };
  auto before = openFiles();
  for (int i = 0; i < 5; ++i) {
    dlrt_model *model = nullptr;
    ASSERT_OK(dlrt_model_open(library.c_str(), &model));
    dlrt_model_release(model);
    ASSERT_OK(dlrt_model_inspect(library.c_str(), &model));
    EXPECT_EQ(openFiles(), before);
    dlrt_model_release(model);
    EXPECT_EQ(open("/lib/x86_64-linux-gnu/libm.so.6", &model).code(), DLRT_INCOMPATIBLE);
  }
  EXPECT_EQ(openFiles(), before);
}

TEST(Attach, TakesALinkedModel) {
  ModelPtr model = attachFixture();
  EXPECT_EQ(predictOne(model.get()), 2.5f);
}

TEST(Attach, RefusesWhatDoesNotFit) {
  dlrt_model *model = nullptr;
  EXPECT_FAILS(dlrt_model_attach(fixture_query(DL_ABI_VERSION + 1), &model), DLRT_INCOMPATIBLE,
               "'linked model': does not speak ABI version " + std::to_string(DL_ABI_VERSION) + " of this runtime");
  dl_model answer = *fixture_query(DL_ABI_VERSION);
  answer.abi_version = DL_ABI_VERSION + 1;
  EXPECT_FAILS(dlrt_model_attach(&answer, &model), DLRT_INCOMPATIBLE,
               "'linked model': has ABI version " + std::to_string(DL_ABI_VERSION + 1) + ", this runtime speaks version " + std::to_string(DL_ABI_VERSION));
  answer = *fixture_query(DL_ABI_VERSION);
  answer.entries = nullptr;
  EXPECT_FAILS(dlrt_model_attach(&answer, &model), DLRT_CORRUPT,
               "'linked model': has an incomplete table of functions");
  std::vector<dl_entry_fn> entries(fixture_entries, fixture_entries + 3);
  entries[2] = nullptr;
  answer.entries = entries.data();
  EXPECT_FAILS(dlrt_model_attach(&answer, &model), DLRT_CORRUPT,
               "'Fixture': has no code for function 'step'");
  answer.entries = fixture_entries;
  std::vector<dl_entry_fn> unprepared(12);
  for (const dl_entry_fn *preparations : {static_cast<const dl_entry_fn *>(nullptr), static_cast<const dl_entry_fn *>(unprepared.data())}) {
    answer.preparations = preparations;
    EXPECT_FAILS(dlrt_model_attach(&answer, &model), DLRT_CORRUPT, "'Fixture': has no code that prepares function 'prepared'");
  }
  // Constants would be misaligned.
  std::vector<uint8_t> blob = fixtureModel().build();
  std::vector<uint8_t> memory(blob.size() + 128);
  uint8_t *at = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) + 8;
  memcpy(at, blob.data(), blob.size());
  answer.blob = reinterpret_cast<const dl_blob *>(at);
  EXPECT_FAILS(
      dlrt_model_attach(&answer, &model), DLRT_CORRUPT,
      "'Fixture': has constants, but its description is not aligned to 64 bytes in memory");
  EXPECT_EQ(model, nullptr);
}

TEST(Table, HasEveryFunction) {
  EXPECT_EQ(dlrt_runtime_api.abi_version, DL_ABI_VERSION);
  EXPECT_EQ(dlrt_runtime_api.size, sizeof(dlrt_api));
  // After the two numbers there are only pointers; none is missing.
  const void *const *pointers =
      reinterpret_cast<const void *const *>(&dlrt_runtime_api.status_code);
  for (size_t i = 0; i < (sizeof(dlrt_api) - offsetof(dlrt_api, status_code)) / sizeof(void *); ++i)
    EXPECT_NE(pointers[i], nullptr) << i;
}

} // namespace
