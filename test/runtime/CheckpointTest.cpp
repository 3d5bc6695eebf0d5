//===- CheckpointTest.cpp - saving and loading -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
#include "Common.h"

#include <fcntl.h>
#include <functional>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

using namespace dlc::test;

namespace {

const std::string header = R"({"__metadata__":{"format":"dlc","model":"Fixture"},)"
                           R"("w":{"dtype":"F32","shape":[4,3],"data_offsets":[0,48]},)"
                           R"("b":{"dtype":"F32","shape":[3],"data_offsets":[48,60]},)"
                           R"("mask":{"dtype":"BOOL","shape":[5],"data_offsets":[60,65]},)"
                           R"("step.t":{"dtype":"I64","shape":[],"data_offsets":[65,73]},)"
                           "\"odd \\\"\\\\ \xC3\xBC\":"
                           R"({"dtype":"U8","shape":[3],"data_offsets":[73,76]},)"
                           R"("empty":{"dtype":"F64","shape":[2,0],"data_offsets":[76,76]},)"
                           R"("random.seed":{"dtype":"I64","shape":[],"data_offsets":[76,84]},)"
                           R"("random.calls":{"dtype":"I64","shape":[],"data_offsets":[84,92]}})";

std::vector<uint8_t> fileOf(const std::string &json, const std::vector<uint8_t> &data) {
  std::vector<uint8_t> bytes(8);
  uint64_t length = json.size();
  memcpy(bytes.data(), &length, 8);
  bytes.insert(bytes.end(), json.begin(), json.end());
  bytes.insert(bytes.end(), data.begin(), data.end());
  return bytes;
}

std::string replaced(std::string text, const std::string &what, const std::string &with) {
  size_t at = text.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  return text.replace(at, what.size(), with);
}

class Checkpoint : public ::testing::Test {
protected:
  Folder folder;
  ModelPtr model = attachFixture();
  InstancePtr instance = makeInstance(model.get(), 1, 7);
  std::string path = folder.file("c.safetensors");
  std::vector<uint8_t> data = std::vector<uint8_t>(92, 0);

  std::vector<uint8_t> variables() { return variablesOf(model.get(), instance.get()); }
  Status save(const std::string &to) { return dlrt_instance_save(instance.get(), to.c_str()); }
  Status load(const std::string &from) { return dlrt_instance_load(instance.get(), from.c_str()); }
  /// Loading these bytes fails so, and changes nothing.
  void expectRefused(const std::vector<uint8_t> &bytes, dlrt_code code, const std::string &words) {
    std::vector<uint8_t> before = variables();
    writeFile(path, bytes);
    Status status = load(path);
    EXPECT_EQ(status.code(), code) << status.message();
    EXPECT_EQ(status.message(), words);
    EXPECT_EQ(variables(), before);
  }
};

TEST_F(Checkpoint, HasTheExpectedBytes) {
  trainStep(instance.get(), 4);
  ASSERT_EQ(save(path).message(), "");
  std::string padded = header;
  while (padded.size() % 8)
    padded += ' ';
  EXPECT_EQ(readFile(path), fileOf(padded, variables()));
  EXPECT_EQ(folder.names(), std::vector<std::string>{"c.safetensors"});
}

TEST_F(Checkpoint, RoundTrip) {
  trainStep(instance.get(), 4);
  std::vector<uint8_t> saved = variables();
  ASSERT_EQ(save(path).message(), "");
  for (int i = 0; i < 5; ++i)
    trainStep(instance.get(), 4, i);
  EXPECT_NE(variables(), saved);
  ASSERT_EQ(load(path).message(), "");
  EXPECT_EQ(variables(), saved);
  std::vector<uint8_t> bytes = readFile(path);
  ASSERT_EQ(save(path).message(), "");
  EXPECT_EQ(readFile(path), bytes);
}

TEST_F(Checkpoint, ResumedTrainingGoesOnBitForBit) {
  for (int i = 0; i < 20; ++i) {
    trainStep(instance.get(), 8, i);
    if (i == 9)
      ASSERT_EQ(save(path).message(), "");
  }
  std::vector<uint8_t> expected = variables();
  InstancePtr resumed = makeInstance(model.get(), 2, 99);
  ASSERT_OK(dlrt_instance_load(resumed.get(), path.c_str()));
  for (int i = 10; i < 20; ++i)
    trainStep(resumed.get(), 8, i);
  EXPECT_EQ(variablesOf(model.get(), resumed.get()), expected);
}

TEST_F(Checkpoint, LoadsFilesOfOthers) {
  for (size_t i = 0; i < 92; ++i)
    data[i] = i < 60 || i >= 65 ? i : i % 2;
  // No metadata, spaces, tabs and escapes, another order of keys, tensors in another order in the
  // file.
  std::string json =
      replaced(header, R"("__metadata__":{"format":"dlc","model":"Fixture"},)", "  ");
  json = replaced(json, "odd \\\"\\\\ \xC3\xBC", R"(odd\u0020\u0022\\ \u00fC)");
  json = replaced(json, R"({"dtype":"F32","shape":[3],"data_offsets":[48,60]})",
                  "{ \"shape\" :\n[ 3 ],\"data_offsets\":[ 0 , 12 ],\t\"dtype\":\"F32\"} ");
  json = replaced(json, "[0,48]", "[12,60]");
  writeFile(path, fileOf(json + "   \n", data));
  ASSERT_EQ(load(path).message(), "");
  std::vector<uint8_t> b(12);
  ASSERT_OK(dlrt_variable_read(instance.get(), B, b.data(), 12));
  EXPECT_EQ(b, std::vector<uint8_t>(data.begin(), data.begin() + 12));
  std::vector<uint8_t> w(48);
  ASSERT_OK(dlrt_variable_read(instance.get(), W, w.data(), 48));
  EXPECT_EQ(w, std::vector<uint8_t>(data.begin() + 12, data.begin() + 60));
  // An escape beyond the first plane.
  writeFile(path, fileOf(replaced(header, "\"Fixture\"", R"("\ud83d\ude00\b\f\n\r\t\/")"), data));
  EXPECT_EQ(load(path).message(), "");
  writeFile(path, fileOf(replaced(header, R"({"format":"dlc","model":"Fixture"})", "{}"), data));
  EXPECT_EQ(load(path).message(), "");
}

TEST_F(Checkpoint, MismatchesAreNamed) {
  const std::string start = "'" + path + "'";
  expectRefused(fileOf(replaced(header, "[4,3]", "[4,4]"), data), DLRT_INCOMPATIBLE,
                start + ": variable 'w': expected f32[4, 3], found f32[4, 4]");
  expectRefused(fileOf(replaced(header, "[4,3]", "[12]"), data), DLRT_INCOMPATIBLE,
                start + ": variable 'w': expected f32[4, 3], found f32[12]");
  expectRefused(fileOf(replaced(header, "[4,3]", "[]"), data), DLRT_INCOMPATIBLE,
                start + ": variable 'w': expected f32[4, 3], found f32");
  expectRefused(fileOf(replaced(header, "F32", "F64"), data), DLRT_INCOMPATIBLE,
                start + ": variable 'w': expected f32[4, 3], found f64[4, 3]");
  expectRefused(fileOf(replaced(header, "F32", "F8_E4M3"), data), DLRT_INCOMPATIBLE,
                start + ": variable 'w': expected f32[4, 3], found element type 'F8_E4M3'");
  expectRefused(fileOf(replaced(header, "\"b\"", "\"bias\""), data), DLRT_INCOMPATIBLE,
                start +
                    " is a checkpoint of another model: model 'Fixture' has no variable 'bias'");
  expectRefused(fileOf(R"({"__metadata__":{"model":"Other"}})", {}), DLRT_INCOMPATIBLE,
                start +
                    " is a checkpoint of model 'Other', not of 'Fixture': it lacks variable 'w'");
  expectRefused(fileOf("{}", {}), DLRT_INCOMPATIBLE,
                start + " is a checkpoint of another model: it lacks variable 'w' of 'Fixture'");
}

TEST_F(Checkpoint, DamagedFilesAreRefused) {
  const std::string start = "'" + path + "'";
  expectRefused({}, DLRT_CORRUPT, start + " is no valid checkpoint: it has 0 bytes");
  expectRefused(std::vector<uint8_t>(100, 'x'), DLRT_CORRUPT,
                start + " is truncated or no checkpoint: its header would have 8680820740569200760 "
                        "bytes, the file has 100");
  expectRefused(fileOf("[]", {}), DLRT_CORRUPT,
                start + " is no valid checkpoint: no JSON object at byte 0 of its header");
  expectRefused(fileOf("", {}), DLRT_CORRUPT,
                start + " is no valid checkpoint: no JSON object at byte 0 of its header");
  std::vector<uint8_t> shorter(data.begin(), data.end() - 1), longer = data;
  longer.push_back(0);
  expectRefused(fileOf(header, shorter), DLRT_CORRUPT,
                start + " is truncated: its header describes 92 bytes of data, there are 91");
  expectRefused(fileOf(header, longer), DLRT_CORRUPT,
                start +
                    " is no valid checkpoint: its header describes 92 bytes of data, there are 93");
  expectRefused(
      fileOf(replaced(header, "[48,60]", "[44,56]"), data), DLRT_CORRUPT,
      start + " is no valid checkpoint: variable 'b' begins at byte 44 of the data, not at 48");
  expectRefused(
      fileOf(replaced(header, "[48,60]", "[48,59]"), data), DLRT_CORRUPT,
      start + " is no valid checkpoint: variable 'b' has 12 bytes, but its place is [48, 59]");
  expectRefused(
      fileOf(replaced(header, "[48,60]", "[60,48]"), data), DLRT_CORRUPT,
      start + " is no valid checkpoint: variable 'b' has 12 bytes, but its place is [60, 48]");
  expectRefused(
      fileOf(replaced(header, "[48,60]", "[52,64]"), data), DLRT_CORRUPT,
      start + " is no valid checkpoint: variable 'b' begins at byte 52 of the data, not at 48");
  std::vector<uint8_t> notBool = data;
  notBool[62] = 2;
  expectRefused(fileOf(header, notBool), DLRT_CORRUPT,
                start + " is no valid checkpoint: element 2 of bool variable 'mask' is 2");
  const std::string entry = R"("w":{"dtype":"F32","shape":[4,3],"data_offsets":[0,48]},)";
  struct {
    const char *what;
    std::string json;
  } cases[] = {
      {"a second entry for the same variable", replaced(header, entry, entry + entry)},
      {"damaged metadata", replaced(header, R"("w":)", R"("__metadata__":{"a":"b"},"w":)")},
      {"damaged metadata", replaced(header, R"("dlc")", "3")},
      {"damaged metadata", replaced(header, R"({"format":"dlc","model":"Fixture"})", "[[[[[[[[")},
      {"damaged entry", replaced(header, R"("shape":[4,3],)", "")},
      {"damaged entry", replaced(header, R"("shape":[4,3])", R"("shape":[4,3],"shape":[4,3])")},
      {"damaged entry", replaced(header, R"("shape":[4,3])", R"("shape":[4,3],"more":1)")},
      {"damaged entry", replaced(header, "[4,3]", "[4,-3]")},
      {"damaged entry", replaced(header, "[4,3]", "[4,3.0]")},
      {"damaged entry", replaced(header, "[4,3]", "[4,3e0]")},
      {"damaged entry", replaced(header, "[4,3]", "[4,03]")},
      {"damaged entry", replaced(header, "[4,3]", "[4,3,]")},
      {"damaged entry", replaced(header, "[4,3]", "[4,9223372036854775808]")},
      {"damaged entry", replaced(header, "[4,3]", "[4,99999999999999999999999]")},
      {"damaged entry", replaced(header, "[4,3]", "[1,1,1,1,1,1,1,1,1]")},
      {"damaged entry", replaced(header, "[0,48]", "[0,48,48]")},
      {"damaged entry", replaced(header, "[0,48]", "[0]")},
      {"damaged entry", replaced(header, "\"F32\"", "32")},
      {"damaged entry", replaced(header, "{\"dtype\"", "[\"dtype\"")},
      {"no key", replaced(header, "\"w\"", "w")},
      {"no key", replaced(header, "\"w\"", "\"w")},
      {"no key", replaced(header, "\"w\"", "\"\\x\"")},
      {"no key", replaced(header, "\"w\"", "\"\\u00\"")},
      {"no key", replaced(header, "\"w\"", "\"\\u0000\"")},
      {"no key", replaced(header, "\"w\"", "\"\\ud800\"")},
      {"no key", replaced(header, "\"w\"", "\"\\ud800\\u0041\"")},
      {"no key", replaced(header, "\"w\"", "\"\\udc00\"")},
      {"no key", replaced(header, "\"w\"", "\"\x01\"")},
      {"no key", replaced(header, "\"w\":", "\"w\"")},
      {"no end of the JSON object", replaced(header, "[84,92]}}", "[84,92]}")},
      {"no end of the JSON object", replaced(header, "[84,92]}}", "[84,92]}]")},
      {"something after the JSON object", header + "x"},
      {"no key", replaced(header, "[84,92]}}", "[84,92]},}")},
  };
  for (const auto &c : cases) {
    std::vector<uint8_t> before = variables();
    writeFile(path, fileOf(c.json, data));
    Status status = load(path);
    EXPECT_EQ(status.code(), DLRT_CORRUPT) << status.message();
    EXPECT_EQ(status.message().rfind(start + " is no valid checkpoint: " + c.what + " at byte ", 0),
              0u)
        << status.message();
    EXPECT_EQ(variables(), before);
  }
}

TEST_F(Checkpoint, EachTruncationIsRefused) {
  ASSERT_EQ(save(path).message(), "");
  const std::vector<uint8_t> whole = readFile(path), before = variables();
  for (size_t length = 0; length < whole.size(); length += 7) {
    writeFile(path, {whole.begin(), whole.begin() + length});
    EXPECT_EQ(load(path).code(), DLRT_CORRUPT) << length;
  }
  EXPECT_EQ(variables(), before);
}

TEST_F(Checkpoint, EachDamagedByteLeavesAllOrNothing) {
  ASSERT_EQ(save(path).message(), "");
  const std::vector<uint8_t> whole = readFile(path), before = variables();
  trainStep(instance.get(), 4);
  for (size_t i = 0; i < whole.size(); ++i) {
    std::vector<uint8_t> damaged = whole;
    damaged[i] ^= 0x15;
    writeFile(path, damaged);
    std::vector<uint8_t> now = variables();
    if (load(path).code() != DLRT_OK)
      EXPECT_EQ(variables(), now) << i;
  }
}

TEST_F(Checkpoint, LoadingWhatIsNoFile) {
  EXPECT_EQ(load(folder.file("none")).message(),
            "'" + folder.file("none") + "': cannot open: No such file or directory");
  EXPECT_EQ(load(folder.file("none")).code(), DLRT_NOT_FOUND);
  EXPECT_EQ(load("/tmp").message(), "'/tmp': cannot read: Is a directory");
  EXPECT_EQ(load("/dev/zero").message(), "'/dev/zero': cannot read: not a regular file");
  std::string pipe = folder.file("pipe");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(load(pipe).code(), DLRT_IO); // and does not hang
  EXPECT_FAILS(dlrt_instance_load(instance.get(), nullptr), DLRT_INVALID_ARGUMENT, "path is NULL");
  EXPECT_FAILS(dlrt_instance_load(nullptr, "x"), DLRT_INVALID_ARGUMENT, "instance is NULL");
  EXPECT_FAILS(dlrt_instance_save(instance.get(), nullptr), DLRT_INVALID_ARGUMENT, "path is NULL");
}

// ---- where saving fails ----

TEST_F(Checkpoint, FullDevice) {
  Status status = save("/dev/full");
  EXPECT_EQ(status.code(), DLRT_IO);
  EXPECT_EQ(status.message(), "'/dev/full': cannot write: No space left on device");
  struct stat info;
  ASSERT_EQ(stat("/dev/full", &info), 0);
  EXPECT_TRUE(S_ISCHR(info.st_mode)); // it is still what it was
}

TEST_F(Checkpoint, OtherSpecialTargets) {
  EXPECT_EQ(save("/dev/null").message(), "");
  EXPECT_EQ(save(folder.path).message(),
            "'" + folder.path.string() + "': cannot write: Is a directory");
  EXPECT_EQ(save(folder.file("none/c")).code(), DLRT_NOT_FOUND);
  EXPECT_EQ(save(path + "/c").code(), DLRT_NOT_FOUND);
  EXPECT_EQ(save("/proc/c").code(), DLRT_NOT_FOUND);
  EXPECT_NE(save("").code(), DLRT_OK);
  EXPECT_EQ(save(folder.file(std::string(300, 'n'))).code(), DLRT_IO);
  EXPECT_EQ(folder.names(), std::vector<std::string>{});
  // A pipe with a reader gets the bytes.
  std::string pipe = folder.file("pipe");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  std::vector<uint8_t> got;
  std::thread reader([&] { got = readFile(pipe); });
  EXPECT_EQ(save(pipe).message(), "");
  reader.join();
  ASSERT_EQ(save(path).message(), "");
  EXPECT_EQ(got, readFile(path));
}

TEST_F(Checkpoint, ReaderThatGoesAway) {
  // 8 MB into a pipe that nobody reads any more: EPIPE as a status, no signal.
  Model big;
  big.variables = {{"w", DL_F32, {2 << 20}}};
  std::vector<uint8_t> bytes = big.build();
  std::vector<uint64_t> aligned((bytes.size() + 7) / 8);
  memcpy(aligned.data(), bytes.data(), bytes.size());
  dl_entry_fn none[] = {nullptr};
  dl_model linked = {DL_ABI_VERSION, sizeof linked,
                     reinterpret_cast<const dl_blob *>(aligned.data()), none, nullptr};
  dlrt_model *bigModel = nullptr;
  ASSERT_OK(dlrt_model_attach(&linked, &bigModel));
  InstancePtr bigInstance = makeInstance(bigModel);
  std::string pipe = folder.file("pipe");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  std::thread reader([&] {
    int file = ::open(pipe.c_str(), O_RDONLY);
    char some[100];
    EXPECT_EQ(read(file, some, sizeof some), 100);
    close(file);
  });
  Status status(dlrt_instance_save(bigInstance.get(), pipe.c_str()));
  reader.join();
  EXPECT_EQ(status.message(), "'" + pipe + "': cannot write: Broken pipe");
  sigset_t pending;
  sigpending(&pending);
  EXPECT_FALSE(sigismember(&pending, SIGPIPE));
  bigInstance.reset();
  dlrt_model_release(bigModel);
}

TEST_F(Checkpoint, SizeLimitWhileSaving) {
  ASSERT_EQ(save(path).message(), "");
  const std::vector<uint8_t> old = readFile(path);
  trainStep(instance.get(), 4);
  std::vector<uint8_t> before = variables();
  rlimit unlimited, limit;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &unlimited), 0);
  // Within the length, within the header, within the data, a byte too little; then enough.
  for (rlim_t bytes :
       {rlim_t(0), rlim_t(3), rlim_t(100), rlim_t(old.size() - 40), rlim_t(old.size() - 1)}) {
    limit = unlimited;
    limit.rlim_cur = bytes;
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    Status status = save(path);
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
    EXPECT_EQ(status.code(), DLRT_IO);
    EXPECT_EQ(status.message(), "'" + path + "': cannot write: File too large") << bytes;
    EXPECT_EQ(readFile(path), old);
    EXPECT_EQ(folder.names(), std::vector<std::string>{"c.safetensors"});
  }
  EXPECT_EQ(variables(), before);
  sigset_t pending;
  sigpending(&pending);
  EXPECT_FALSE(sigismember(&pending, SIGXFSZ));
  limit.rlim_cur = old.size();
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  Status status = save(path);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
  EXPECT_EQ(status.message(), "");
}

/// Runs something as a user whom permissions bind: in a child, without root's privileges.
int asUser(const std::function<bool()> &body) {
  pid_t child = fork();
  if (child == 0) {
    if (geteuid() == 0 && seteuid(65534) != 0)
      _exit(2);
    _exit(body() ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  return status;
}

#if !defined(DLC_THREAD_SANITIZED)
TEST_F(Checkpoint, ReadOnlyFolderAndFile) {
  ASSERT_EQ(save(path).message(), "");
  const std::vector<uint8_t> old = readFile(path);
  trainStep(instance.get(), 4);
  ASSERT_EQ(chmod(folder.path.c_str(), 0555), 0);
  EXPECT_EQ(asUser([&] {
              Status fresh = save(folder.file("new"));
              return fresh.code() == DLRT_IO &&
                     fresh.message().find("Permission denied") != std::string::npos;
            }),
            0);
  EXPECT_EQ(folder.names(), std::vector<std::string>{"c.safetensors"});
  // A folder that may be written with a file in it that may not: renaming over it would be
  // possible, and wrong.
  ASSERT_EQ(chmod(folder.path.c_str(), 0777), 0);
  ASSERT_EQ(chmod(path.c_str(), 0444), 0);
  if (geteuid() == 0)
    ASSERT_EQ(chown(folder.path.c_str(), 65534, 65534), 0);
  // access() asks for the real user, who is root where the tests run as root: only others are
  // refused.
  if (getuid() != 0)
    EXPECT_EQ(asUser([&] {
                return save(path).message() == "'" + path + "': cannot write: Permission denied";
              }),
              0);
  EXPECT_EQ(readFile(path), old);
}
#endif

TEST_F(Checkpoint, KeepsLinksAndModes) {
  ASSERT_EQ(save(path).message(), "");
  ASSERT_EQ(chmod(path.c_str(), 0640), 0);
  std::string link = folder.file("latest");
  std::filesystem::create_symlink("c.safetensors", link);
  trainStep(instance.get(), 4);
  ASSERT_EQ(save(link).message(), "");
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  struct stat info;
  ASSERT_EQ(lstat(path.c_str(), &info), 0);
  EXPECT_TRUE(S_ISREG(info.st_mode));
  EXPECT_EQ(info.st_mode & 07777, 0640u);
  std::vector<uint8_t> saved = variables();
  trainStep(instance.get(), 4);
  ASSERT_EQ(load(path).message(), "");
  EXPECT_EQ(variables(), saved);
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"c.safetensors", "latest"}));
}

TEST_F(Checkpoint, RelativePath) {
  std::filesystem::path old = std::filesystem::current_path();
  std::filesystem::current_path(folder.path);
  EXPECT_EQ(save("here.st").message(), "");
  EXPECT_EQ(load("here.st").message(), "");
  std::filesystem::current_path(old);
  EXPECT_EQ(folder.names(), std::vector<std::string>{"here.st"});
}

// At whatever moment a process is killed, the file is one that was saved whole.
#if !defined(DLC_THREAD_SANITIZED)
TEST_F(Checkpoint, KilledWhileSaving) {
  Model big;
  big.variables = {{"w", DL_I64, {1 << 17}}};
  std::vector<uint8_t> bytes = big.build();
  std::vector<uint64_t> aligned((bytes.size() + 7) / 8);
  memcpy(aligned.data(), bytes.data(), bytes.size());
  dl_entry_fn none[] = {nullptr};
  dl_model linked = {DL_ABI_VERSION, sizeof linked,
                     reinterpret_cast<const dl_blob *>(aligned.data()), none, nullptr};
  dlrt_model *bigModel = nullptr;
  ASSERT_OK(dlrt_model_attach(&linked, &bigModel));
  {
    InstancePtr bigInstance = makeInstance(bigModel);
    std::vector<int64_t> w(1 << 17, 0);
    ASSERT_OK(dlrt_instance_save(bigInstance.get(), path.c_str()));
    int64_t largest = 0;
    for (int round = 0; round < 25; ++round) {
      pid_t child = fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        for (int64_t i = 1;; ++i) {
          std::fill(w.begin(), w.end(), i);
          if (Status(dlrt_variable_write(bigInstance.get(), 0, w.data(), w.size() * 8)).code() !=
                  DLRT_OK ||
              Status(dlrt_instance_save(bigInstance.get(), path.c_str())).code() != DLRT_OK)
            _exit(1);
        }
      }
      usleep(1000 + round * 1700);
      kill(child, SIGKILL);
      int status;
      ASSERT_EQ(waitpid(child, &status, 0), child);
      EXPECT_TRUE(WIFSIGNALED(status));
      ASSERT_OK(dlrt_instance_load(bigInstance.get(), path.c_str()));
      ASSERT_OK(dlrt_variable_read(bigInstance.get(), 0, w.data(), w.size() * 8));
      EXPECT_EQ(std::count(w.begin(), w.end(), w[0]), 1 << 17);
      largest = std::max(largest, w[0]);
    }
    EXPECT_GT(largest, 0); // some had time to save
  }
  dlrt_model_release(bigModel);
}
#endif

} // namespace
