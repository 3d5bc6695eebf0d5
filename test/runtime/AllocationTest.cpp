//===- AllocationTest.cpp - after the first call of a shape nothing is allocated -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
#include "Common.h"

using namespace dlc::test;

extern "C" {
void allocation_counter_start(void);
long allocation_counter_stop(void);
}

namespace {

/// Calls of malloc, free, mmap and their kin while something runs.
template <typename Body> long count(Body body) {
  allocation_counter_start();
  body();
  return allocation_counter_stop();
}

struct Steps {
  std::vector<float> x = numbers(4000), y = numbers(3000), out = std::vector<float>(3000),
                     loss = std::vector<float>(1);
  dlrt_instance *instance;

  bool step(int64_t n, bool withLoss = true) {
    dlrt_tensor arguments[] = {tensor(x, {n, 4}), tensor(y, {n, 3})}, result = room(loss);
    return dlrt_call(instance, Step, arguments, 2, withLoss ? &result : nullptr, withLoss) ==
           nullptr;
  }
  bool predict(int64_t n) {
    dlrt_tensor argument = tensor(x, {n, 4}), result = room(out);
    return dlrt_call(instance, Predict, &argument, 1, &result, 1) == nullptr;
  }
};

TEST(Allocation, CounterCounts) {
  EXPECT_EQ(count([] {}), 0);
  EXPECT_EQ(count([] {
              void *volatile memory = malloc(10);
              free(memory);
            }),
            2);
  ModelPtr model = attachFixture();
  EXPECT_GT(count([&] { makeInstance(model.get()); }), 5);
}

TEST(Allocation, NoneAfterTheFirstCall) {
  ModelPtr model = attachFixture();
  for (uint32_t threads : {1, 2, 3}) {
    InstancePtr instance = makeInstance(model.get(), threads);
    Steps s{.instance = instance.get()};
    bool right = true;
    EXPECT_GT(count([&] { right &= s.step(64); }), 0);
    EXPECT_EQ(count([&] {
                for (int i = 0; i < 100; ++i)
                  right &= s.step(64);
              }),
              0);
    EXPECT_TRUE(right);
  }
}

TEST(Allocation, NoneWhenShapesAlternate) {
  ModelPtr model = attachFixture();
  InstancePtr instance = makeInstance(model.get(), 2);
  Steps s{.instance = instance.get()};
  bool right = true;
  auto round = [&] {
    for (int64_t n : {128, 96, 17, 1, 500})
      right &= s.step(n) && s.predict(n);
    right &= s.step(128, false);
  };
  round();
  EXPECT_EQ(count([&] {
              for (int i = 0; i < 100; ++i)
                round();
            }),
            0);
  EXPECT_TRUE(right);
}

// More shapes than a function's plans: planning again takes no memory either, once the arena has
// its size.
TEST(Allocation, NoneWithEverNewShapes) {
  ModelPtr model = attachFixture();
  InstancePtr instance = makeInstance(model.get(), 2);
  Steps s{.instance = instance.get()};
  bool right = s.step(900);
  for (int64_t n = 1; n < 10; ++n)
    right &= s.step(n);
  EXPECT_EQ(count([&] {
              for (int64_t n = 10; n < 200; ++n)
                right &= s.step(n);
            }),
            0);
  EXPECT_TRUE(right);
}

TEST(Allocation, NoneWithProfileAndVariables) {
  ModelPtr model = attachFixture();
  InstancePtr instance = makeInstance(model.get());
  Steps s{.instance = instance.get()};
  bool right = s.step(10);
  static long launches;
  dlrt_instance_set_profile(
      instance.get(), [](void *, uint32_t, uint32_t, int64_t, int64_t) { ++launches; }, nullptr);
  float w[12];
  EXPECT_EQ(count([&] {
              right &= s.step(10) && dlrt_variable_read(instance.get(), W, w, 48) == nullptr &&
                       dlrt_variable_write(instance.get(), W, w, 48) == nullptr;
            }),
            0);
  EXPECT_TRUE(right);
  EXPECT_EQ(launches, 6);
}

// Two at a time, of shapes that alternate: larger results come while smaller ones are kept.
TEST(Allocation, NoneBySubmitting) {
  ModelPtr model = attachFixture();
  InstancePtr instance = makeInstance(model.get(), 2);
  Steps s{.instance = instance.get()};
  bool right = true;
  auto submit = [&](uint32_t function, int64_t n) {
    dlrt_tensor arguments[] = {tensor(s.x, {n, 4}), tensor(s.y, {n, 3})};
    uint64_t ticket = 0;
    right &=
        !dlrt_submit(instance.get(), function, arguments, function == Step ? 2 : 1, 1, &ticket);
    return ticket;
  };
  auto collect = [&](uint64_t ticket, std::vector<float> &to) {
    dlrt_tensor result = room(to);
    right &= !dlrt_collect(instance.get(), ticket, &result, 1);
  };
  uint64_t first = submit(Step, 64), second = submit(Predict, 500);
  collect(first, s.loss);
  collect(second, s.out);
  EXPECT_EQ(count([&] {
              for (int i = 0; i < 100; ++i) {
                first = submit(i % 2 ? Step : Predict, i % 2 ? 64 : 500);
                second = submit(i % 3 ? Step : Predict, i % 3 ? 64 : 500);
                collect(i % 5 ? first : second, s.out);
                collect(i % 5 ? second : first, s.out);
              }
            }),
            0);
  EXPECT_TRUE(right);
}

TEST(Allocation, MessagesTakeNone) {
  ModelPtr model = attachFixture();
  InstancePtr instance = makeInstance(model.get());
  static size_t heard;
  dlrt_instance_set_log(
      instance.get(), [](void *, uint32_t, const char *message) { heard += strlen(message); },
      nullptr);
  float x[200] = {};
  dlrt_tensor argument = {x, sizeof x, {100, 2}, 2, DLRT_F32, {}};
  auto tell = [&] {
    if (dlrt_call(instance.get(), Tell, &argument, 1, nullptr, 0))
      abort();
  };
  tell();
  EXPECT_EQ(count(tell), 0);
  EXPECT_GT(heard, 0u);
}

TEST(Allocation, ResultShapesTakesNone) {
  ModelPtr model = attachFixture();
  dlrt_tensor argument = {nullptr, 0, {7, 15}, 2, DLRT_F32, {}}, results[2] = {};
  EXPECT_EQ(count([&] {
              if (dlrt_result_shapes(model.get(), Stats, &argument, 1, results, 2))
                abort();
            }),
            0);
}

} // namespace
