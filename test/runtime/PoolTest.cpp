//===- PoolTest.cpp - threads, forks, signals -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
#include "Common.h"

#include <chrono>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

using namespace dlc::test;

namespace {

/// Threads of this process. One that has been joined may be listed for a moment longer.
size_t threadCount() {
  size_t count = 0;
  for ([[maybe_unused]] const auto &entry : std::filesystem::directory_iterator("/proc/self/task"))
    ++count;
  return count;
}
void expectThreads(size_t expected) {
  for (int i = 0; i < 200 && threadCount() != expected; ++i)
    usleep(5000);
  EXPECT_EQ(threadCount(), expected);
}

/// Runs `launches` launches of n tasks; each task counts.
bool countTasks(dlrt_instance *instance, int64_t n, int64_t launches) {
  std::vector<int64_t> in(n), out(n, -1);
  dlrt_tensor arguments[] = {tensor(in, {n}), {&launches, 8, {}, 0, DLRT_I64, {}}},
              result = room(out);
  Status status(dlrt_call(instance, Pairs, arguments, 2, &result, 1));
  bool right = status.code() == DLRT_OK;
  for (int64_t i = 0; i < n; ++i)
    right = right && out[i] == launches * (i + 1);
  return right;
}

TEST(Pool, EachTaskRunsOnce) {
  ModelPtr model = attachFixture();
  for (uint32_t threads : {1, 2, 3, 5, 16}) {
    InstancePtr instance = makeInstance(model.get(), threads);
    for (int64_t n : {0, 1, 2, 3, 4, 7, 64, 1000})
      EXPECT_TRUE(countTasks(instance.get(), n, 20)) << threads << " threads, " << n << " tasks";
  }
}

/// A share is divided into calls of no fewer tasks than the kernel wishes for, however small it is, and into ever shorter ones.
TEST(Pool, TasksStayTogether) {
  ModelPtr model = attachFixture();
  for (int64_t threads : {1, 2, 3, 5}) {
    InstancePtr instance = makeInstance(model.get(), threads);
    for (int64_t n : {1, 7, 16, 17, 25, 40, 200}) {
      std::vector<int64_t> in(n), out(n, -1);
      dlrt_tensor argument = tensor(in, {n}), result = room(out);
      ASSERT_OK(dlrt_call(instance.get(), Shares, &argument, 1, &result, 1));
      const int64_t share = n / threads;
      for (int64_t length : out) {
        EXPECT_GE(length, share < 8 ? share : 6) << threads << " threads, " << n << " tasks";
        EXPECT_LE(length, threads == 1 ? n : std::max<int64_t>(15, share / 4 + 2)) << threads << " threads, " << n << " tasks";
      }
    }
  }
}

TEST(Pool, ManyLaunches) {
  ModelPtr model = attachFixture();
  InstancePtr instance = makeInstance(model.get(), 4);
  EXPECT_TRUE(countTasks(instance.get(), 50, 20000));
}

TEST(Pool, SleepingThreadsWakeUp) {
  ModelPtr model = attachFixture();
  InstancePtr instance = makeInstance(model.get(), 3);
  for (int i = 0; i < 30; ++i) {
    EXPECT_TRUE(countTasks(instance.get(), 9, 3));
    usleep(i * 20); // around the time after which they sleep
  }
}

TEST(Pool, ThreadsStartLateAndAreJoined) {
  ModelPtr model = attachFixture();
  const size_t before = threadCount(); // the thread sanitizer has one of its own
  {
    // The fixture's init function launches; a model without one shows that creating alone starts
    // nothing.
    Model plain;
    std::vector<uint8_t> bytes = plain.build();
    std::vector<uint64_t> aligned((bytes.size() + 7) / 8);
    memcpy(aligned.data(), bytes.data(), bytes.size());
    dl_entry_fn none[] = {nullptr};
    dl_model linked = {DL_ABI_VERSION, sizeof linked,
                       reinterpret_cast<const dl_blob *>(aligned.data()), none, nullptr};
    dlrt_model *empty = nullptr;
    ASSERT_OK(dlrt_model_attach(&linked, &empty));
    InstancePtr idle = makeInstance(empty, 4);
    expectThreads(before);
    idle.reset();
    dlrt_model_release(empty);
    InstancePtr instance = makeInstance(model.get(), 4);
    EXPECT_TRUE(countTasks(instance.get(), 100, 1));
    expectThreads(before + 3);
  }
  expectThreads(before);
}

TEST(Pool, IdleThreadsUseNoProcessor) {
  ModelPtr model = attachFixture();
  InstancePtr instance = makeInstance(model.get(), 4);
  EXPECT_TRUE(countTasks(instance.get(), 100, 10));
  usleep(20000);
  timespec before, after;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
  usleep(200000);
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
  double used = (after.tv_sec - before.tv_sec) + (after.tv_nsec - before.tv_nsec) * 1e-9;
  EXPECT_LT(used, 0.05);
}

TEST(Pool, WorkersBlockSignals) {
  ModelPtr model = attachFixture();
  InstancePtr instance = makeInstance(model.get(), 3);
  EXPECT_TRUE(countTasks(instance.get(), 100, 10));
  size_t workers = 0;
  for (const auto &entry : std::filesystem::directory_iterator("/proc/self/task")) {
    if (entry.path().filename() == std::to_string(getpid()))
      continue;
    std::ifstream status(entry.path() / "status");
    for (std::string line; std::getline(status, line);)
      if (line.rfind("SigBlk:", 0) == 0) {
        ++workers;
        // All but SIGKILL and SIGSTOP, and the two that libc keeps for itself.
        uint64_t blocked = std::stoull(line.substr(7), nullptr, 16);
        for (int number : {SIGINT, SIGTERM, SIGHUP, SIGCHLD, SIGUSR1, SIGALRM, SIGPROF, SIGPIPE})
          EXPECT_TRUE(blocked >> (number - 1) & 1) << number;
      }
  }
  EXPECT_EQ(workers, threadCount() - 1);
  EXPECT_GE(workers, 2u);
  sigset_t mask;
  pthread_sigmask(SIG_BLOCK, nullptr, &mask);
  EXPECT_FALSE(sigismember(&mask, SIGTERM)); // the caller's mask is as before
}

#if !defined(DLC_THREAD_SANITIZED)
TEST(Pool, ChildOfAForkHasItsOwnThreads) {
  ModelPtr model = attachFixture();
  InstancePtr instance = makeInstance(model.get(), 3);
  EXPECT_TRUE(countTasks(instance.get(), 100, 10));
  pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(60);
    bool right = countTasks(instance.get(), 100, 10) && threadCount() == 3;
    trainStep(instance.get(), 10);
    instance.reset(); // joins the child's threads and nobody else
    _exit(right && threadCount() <= 3 ? 0 : 1);
  }
  int status;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(countTasks(instance.get(), 100, 10)); // the parent goes on
}

// A child that never calls again only gives the instance back.
TEST(Pool, ChildOfAForkReleases) {
  ModelPtr model = attachFixture();
  InstancePtr instance = makeInstance(model.get(), 3);
  EXPECT_TRUE(countTasks(instance.get(), 100, 10));
  pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(60);
    instance.reset();
    model.reset();
    _exit(0);
  }
  int status;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}
#endif

#if !defined(DLC_SANITIZED)
// Runs in a process of its own, which has no stacks of earlier threads to use again.
TEST(Pool, DISABLED_WithoutRoomForThreads) {
  ModelPtr model = attachFixture();
  InstancePtr expected = makeInstance(model.get(), 1, 4);
  trainStep(expected.get(), 20);
  size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  rlimit limit = {pages * 4096 + (1 << 20), RLIM_INFINITY}; // less than one stack
  ASSERT_EQ(setrlimit(RLIMIT_AS, &limit), 0);
  InstancePtr instance = makeInstance(model.get(), 8, 4);
  trainStep(instance.get(), 20);
  EXPECT_EQ(threadCount(), 1u);
  EXPECT_EQ(variablesOf(model.get(), instance.get()), variablesOf(model.get(), expected.get()));
}

TEST(Pool, DoesWithoutThreadsWhereTheSystemRefuses) {
  pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(60);
    execl("/proc/self/exe", "tests", "--gtest_filter=Pool.DISABLED_WithoutRoomForThreads",
          "--gtest_also_run_disabled_tests", "--gtest_brief=1", static_cast<char *>(nullptr));
    _exit(2);
  }
  int status;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}
#endif

TEST(Pool, OverlappingConstCallsShareIt) {
  ModelPtr model = attachFixture();
  InstancePtr instance = makeInstance(model.get(), 3);
  std::vector<std::thread> threads;
  std::vector<int> right(4);
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] { right[t] = countTasks(instance.get(), 40 + t, 500); });
  for (std::thread &thread : threads)
    thread.join();
  EXPECT_EQ(right, std::vector<int>(4, 1));
}

} // namespace
