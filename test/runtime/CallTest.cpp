//===- CallTest.cpp - calling functions -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
#include "Common.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <sched.h>
#include <thread>
#include <xmmintrin.h>

using namespace dlc::test;

namespace {

class Call : public ::testing::Test {
protected:
  ModelPtr model = attachFixture();
  InstancePtr instance = makeInstance(model.get());
  std::vector<float> x = numbers(20), y = numbers(15), out = std::vector<float>(15),
                     loss = std::vector<float>(1);

  dlrt_status call(uint32_t function, std::vector<dlrt_tensor> arguments,
                   std::vector<dlrt_tensor> results = {}) {
    return dlrt_call(instance.get(), function, arguments.data(), arguments.size(), results.data(),
                     results.size());
  }
};

TEST_F(Call, Computes) {
  std::vector<float> w(12);
  ASSERT_OK(dlrt_variable_read(instance.get(), W, w.data(), 48));
  dlrt_tensor argument = tensor(x, {5, 4}), result = room(out);
  ASSERT_OK(dlrt_call(instance.get(), Predict, &argument, 1, &result, 1));
  EXPECT_EQ(result.dtype, DLRT_F32);
  EXPECT_EQ(result.rank, 2);
  EXPECT_EQ(result.dims[0], 5);
  EXPECT_EQ(result.dims[1], 3);
  for (int n = 0; n < 5; ++n)
    for (int j = 0; j < 3; ++j) {
      float expected = j;
      for (int k = 0; k < 4; ++k)
        expected += x[n * 4 + k] * w[k * 3 + j]; // exact in these numbers
      EXPECT_EQ(out[n * 3 + j], expected);
    }
}

TEST_F(Call, EmptyBatch) {
  dlrt_tensor empty = {nullptr, 0, {0, 4}, 2, DLRT_F32, {}};
  dlrt_tensor result = {};
  ASSERT_OK(dlrt_call(instance.get(), Predict, &empty, 1, &result, 1));
  EXPECT_EQ(result.dims[0], 0);
}

TEST_F(Call, WrongArgumentsAreNamed) {
  const dlrt_tensor goodX = tensor(x, {5, 4}), goodY = tensor(y, {5, 3});
  std::vector<uint8_t> before = variablesOf(model.get(), instance.get());
  auto changed = [](dlrt_tensor t, auto change) {
    change(t);
    return t;
  };
  EXPECT_FAILS(
      call(Step, {goodX, changed(goodY, [](auto &t) { t.dims[1] = 2; })}), DLRT_INVALID_ARGUMENT,
      "argument 'y' of 'step': expected f32[N, 3], got f32[5, 2]: dimension 1 is 2, not 3");
  EXPECT_FAILS(
      call(Step, {goodX, changed(goodY, [](auto &t) { t.dims[0] = 4; })}), DLRT_INVALID_ARGUMENT,
      "argument 'y' of 'step': expected f32[N, 3], got f32[4, 3]: dimension 0 is 4, not N = 5");
  EXPECT_FAILS(call(Step, {goodX, changed(goodY, [](auto &t) { t.dims[0] = -5; })}),
               DLRT_INVALID_ARGUMENT,
               "argument 'y' of 'step': expected f32[N, 3], got f32[-5, 3]: dimension 0 is -5");
  EXPECT_FAILS(call(Step, {goodX, changed(goodY, [](auto &t) { t.rank = 1; })}),
               DLRT_INVALID_ARGUMENT,
               "argument 'y' of 'step': expected f32[N, 3], got f32[5]: rank is 1, not 2");
  EXPECT_FAILS(
      call(Step, {goodX, changed(goodY, [](auto &t) { t.rank = 200; })}), DLRT_INVALID_ARGUMENT,
      "argument 'y' of 'step': expected f32[N, 3], got f32 of rank 200: rank is 200, not 2");
  EXPECT_FAILS(
      call(Step, {goodX, changed(goodY, [](auto &t) { t.dtype = DLRT_F64; })}),
      DLRT_INVALID_ARGUMENT,
      "argument 'y' of 'step': expected f32[N, 3], got f64[5, 3]: element type is f64, not f32");
  EXPECT_FAILS(call(Step, {goodX, changed(goodY, [](auto &t) { t.dtype = 77; })}),
               DLRT_INVALID_ARGUMENT,
               "argument 'y' of 'step': expected f32[N, 3], got element type 77 [5, 3]: element "
               "type is unknown, not f32");
  EXPECT_FAILS(call(Step, {goodX, changed(goodY, [](auto &t) { t.data = nullptr; })}),
               DLRT_INVALID_ARGUMENT, "argument 'y' of 'step': expected f32[N, 3], got NULL data");
  EXPECT_FAILS(call(Step, {goodX, changed(goodY, [](auto &t) { t.bytes = 59; })}),
               DLRT_INVALID_ARGUMENT,
               "argument 'y' of 'step': f32[5, 3] has 60 bytes, but its data has room for 59");
  EXPECT_FAILS(
      call(Step,
           {goodX, changed(goodY, [](auto &t) { t.data = static_cast<char *>(t.data) + 2; })}),
      DLRT_INVALID_ARGUMENT, "argument 'y' of 'step': data is not aligned to the 4 bytes of a f32");
  EXPECT_FAILS(call(Step, {goodX}), DLRT_INVALID_ARGUMENT,
               "argument 'y' of 'step' is missing: expected f32[N, 3]");
  EXPECT_FAILS(call(Step, {goodX, goodY, goodY, goodY}), DLRT_INVALID_ARGUMENT,
               "'step' takes 3 arguments, got 4");
  EXPECT_FAILS(call(Step, {goodX, goodY, goodY}), DLRT_INVALID_ARGUMENT,
               "argument 'lr' of 'step': expected f32, got f32[5, 3]: rank is 2, not 0");
  EXPECT_FAILS(dlrt_call(instance.get(), Step, nullptr, 2, nullptr, 0), DLRT_INVALID_ARGUMENT,
               "arguments of 'step' is NULL, but 2 are given");
  EXPECT_FAILS(call(99, {}), DLRT_NOT_FOUND, "no function 99: model 'Fixture' has 11");
  EXPECT_FAILS(dlrt_call(nullptr, Step, nullptr, 0, nullptr, 0), DLRT_INVALID_ARGUMENT,
               "instance is NULL");
  dlrt_tensor stats = tensor(x, {2, 6});
  EXPECT_FAILS(call(Stats, {stats}), DLRT_INVALID_ARGUMENT,
               "argument 'x' of 'stats': expected f32[N, N * 2 + 1], got f32[2, 6]: dimension 1 is "
               "6, not N * 2 + 1 = 5");
  dlrt_tensor huge = tensor(x, {INT64_MAX, 4});
  EXPECT_FAILS(call(Predict, {huge}), DLRT_INVALID_ARGUMENT,
               "argument 'x' of 'predict': expected f32[N, 4], got f32[9223372036854775807, 4]: "
               "its bytes overflow 64 bits");
  EXPECT_FAILS(
      call(Stats, {huge}), DLRT_INVALID_ARGUMENT,
      "an argument's shape of 'stats' has no value for these arguments: it overflows 64 bits");
  std::vector<float> thirteen(52);
  EXPECT_FAILS(call(Predict, {tensor(thirteen, {13, 4})}), DLRT_INVALID_ARGUMENT,
               "arguments of 'predict': a batch of 13 brings bad luck (N = 13)");
  EXPECT_EQ(variablesOf(model.get(), instance.get()), before);
}

TEST_F(Call, ResultsAreChecked) {
  const dlrt_tensor goodX = tensor(x, {5, 4});
  dlrt_tensor small = room(out);
  small.bytes = 56;
  EXPECT_FAILS(dlrt_call(instance.get(), Predict, &goodX, 1, &small, 1), DLRT_INVALID_ARGUMENT,
               "result 0 of 'predict': f32[5, 3] has 60 bytes, but its data has room for 56");
  EXPECT_EQ(small.dims[0], 5); // so that a caller can make room
  EXPECT_FAILS(dlrt_call(instance.get(), Predict, &goodX, 1, nullptr, 1), DLRT_INVALID_ARGUMENT,
               "results of 'predict' is NULL, but 1 are asked for");
  std::vector<dlrt_tensor> two(2, room(out));
  EXPECT_FAILS(dlrt_call(instance.get(), Predict, &goodX, 1, two.data(), 2), DLRT_INVALID_ARGUMENT,
               "'predict' has 1 result, got room for 2");
  // Overlap with an argument, exact and by a byte's width, and with another result.
  dlrt_tensor over = room(x);
  EXPECT_FAILS(dlrt_call(instance.get(), Predict, &goodX, 1, &over, 1), DLRT_INVALID_ARGUMENT,
               "result 0 of 'predict' overlaps argument 'x' of 'predict' in memory");
  std::vector<float> both(19 + 15);
  dlrt_tensor first = {both.data(), 80, {5, 4}, 2, DLRT_F32, {}},
              second = {both.data() + 19, 60, {}, 0, 0, {}};
  EXPECT_FAILS(dlrt_call(instance.get(), Predict, &first, 1, &second, 1), DLRT_INVALID_ARGUMENT,
               "result 0 of 'predict' overlaps argument 'x' of 'predict' in memory");
  std::vector<double> sum(2);
  dlrt_tensor stats = tensor(x, {2, 5}), results[] = {room(sum), room(sum)};
  EXPECT_FAILS(dlrt_call(instance.get(), Stats, &stats, 1, results, 2), DLRT_INVALID_ARGUMENT,
               "result 'sum' of 'stats' overlaps result 'half' of 'stats' in memory");
  second.data = both.data() + 20; // side by side is fine
  both.resize(20 + 15);
  first.data = both.data();
  second.data = both.data() + 20;
  EXPECT_OK(dlrt_call(instance.get(), Predict, &first, 1, &second, 1));
}

TEST_F(Call, ResultsMayBeLeftOut) {
  dlrt_tensor stats = tensor(x, {4, 9});
  x.resize(36);
  stats.data = x.data();
  stats.bytes = 144;
  std::vector<double> sum(1);
  dlrt_tensor results[] = {dlrt_tensor{}, room(sum)};
  ASSERT_OK(dlrt_call(instance.get(), Stats, &stats, 1, results, 2));
  EXPECT_EQ(results[0].dims[0], 2);
  double expected = 0;
  for (float v : x)
    expected += v;
  EXPECT_EQ(sum[0], expected * 2.5);
  std::vector<float> half(2);
  dlrt_tensor one = room(half);
  ASSERT_OK(
      dlrt_call(instance.get(), Stats, &stats, 1, &one, 1)); // the second is not even mentioned
  EXPECT_EQ(half[1], x[1]);
  ASSERT_OK(dlrt_call(instance.get(), Stats, &stats, 1, nullptr, 0));
}

TEST_F(Call, DefaultsApply) {
  dlrt_tensor argument = tensor(x, {1, 3});
  double scale = 10, sum;
  uint8_t on = 0;
  dlrt_tensor scaleT = {&scale, 8, {}, 0, DLRT_F64, {}}, onT = {&on, 1, {}, 0, DLRT_BOOL, {}},
              none = {};
  dlrt_tensor results[] = {dlrt_tensor{}, {&sum, 8, {}, 0, 0, {}}};
  double plain = x[0] + x[1] + x[2];
  auto run = [&](std::vector<dlrt_tensor> arguments) {
    EXPECT_OK(dlrt_call(instance.get(), Stats, arguments.data(), arguments.size(), results, 2));
    return sum;
  };
  EXPECT_EQ(run({argument}), plain * 2.5);
  EXPECT_EQ(run({argument, scaleT}), plain * 10);
  EXPECT_EQ(run({argument, none, onT}), -1);
  EXPECT_EQ(run({argument, none, none}), plain * 2.5);
  none.data = &scale; // not NULL any more: it is checked
  EXPECT_FAILS(
      call(Stats, {argument, none}), DLRT_INVALID_ARGUMENT,
      "argument 'scale' of 'stats': expected f64, got bool: element type is bool, not f64");
}

TEST_F(Call, ResultShapesWithoutACall) {
  dlrt_tensor argument = {nullptr, 0, {7, 15}, 2, DLRT_F32, {}}, results[2] = {};
  ASSERT_OK(dlrt_result_shapes(model.get(), Stats, &argument, 1, results, 2));
  EXPECT_EQ(results[0].rank, 1);
  EXPECT_EQ(results[0].dims[0], 3);
  EXPECT_EQ(results[1].rank, 0);
  EXPECT_EQ(results[1].dtype, DLRT_F64);
  argument.dims[1] = 14;
  EXPECT_FAILS_WITH(dlrt_result_shapes(model.get(), Stats, &argument, 1, results, 2),
                    DLRT_INVALID_ARGUMENT, "dimension 1 is 14, not N * 2 + 1 = 15");
  EXPECT_EQ(dlrt_instance_arena_bytes(instance.get()), 0u);
}

TEST_F(Call, WorkOfAKernel) {
  dlrt_tensor arguments[2] = {{nullptr, 0, {7, 4}, 2, DLRT_F32, {}},
                              {nullptr, 0, {7, 3}, 2, DLRT_F32, {}}};
  dlrt_kernel_work work;
  ASSERT_OK(dlrt_instance_kernel_work(instance.get(), Step, 1, arguments, 2, &work));
  EXPECT_EQ(work.is_known, 1);
  EXPECT_EQ(work.operations, 7 * 24);
  EXPECT_EQ(work.read_bytes, 7 * 28);
  EXPECT_EQ(work.written_bytes, 48);
  EXPECT_EQ(work.dtype, DLRT_F32);
  ASSERT_OK(dlrt_instance_kernel_work(instance.get(), Step, 0, arguments, 2, &work));
  EXPECT_EQ(work.is_known, 0);
  EXPECT_EQ(work.operations, 0);
  EXPECT_FAILS(dlrt_instance_kernel_work(instance.get(), Step, 3, arguments, 2, &work),
               DLRT_NOT_FOUND, "no kernel 3: function 'step' has 3");
  EXPECT_FAILS(dlrt_instance_kernel_work(instance.get(), Step, 1, arguments, 2, nullptr),
               DLRT_INVALID_ARGUMENT, "out_work is NULL");
  EXPECT_FAILS(dlrt_instance_kernel_work(nullptr, Step, 1, arguments, 2, &work),
               DLRT_INVALID_ARGUMENT, "instance is NULL");
  arguments[1].dims[0] = 6;
  EXPECT_FAILS_WITH(dlrt_instance_kernel_work(instance.get(), Step, 1, arguments, 2, &work),
                    DLRT_INVALID_ARGUMENT, "dimension 0 is 6, not N = 7");
  EXPECT_EQ(dlrt_instance_arena_bytes(instance.get()), 0u);
}

TEST_F(Call, FaultsTellWhatAndWhere) {
  std::vector<int64_t> labels = {1, 9, 12, 0}, picked(4);
  std::vector<uint8_t> before = variablesOf(model.get(), instance.get());
  dlrt_tensor argument = tensor(labels, {4}), result = room(picked);
  EXPECT_FAILS(dlrt_call(instance.get(), Pick, &argument, 1, &result, 1), DLRT_FAULT,
               "fixture.dl:12:7: in 'pick': label 12 of element 2 is not one of 10 classes");
  labels[2] = -1;
  EXPECT_FAILS(dlrt_call(instance.get(), Pick, &argument, 1, &result, 1), DLRT_FAULT,
               "fixture.dl:12:7: in 'pick': label -1 of element 2 is not one of 10 classes");
  labels[2] = 5;
  EXPECT_OK(dlrt_call(instance.get(), Pick, &argument, 1, &result, 1));
  EXPECT_EQ(picked[2], 50);
  EXPECT_EQ(variablesOf(model.get(), instance.get()), before);
}

TEST_F(Call, VariablesAreReadAndWritten) {
  std::vector<float> w(12, 7.5f), read(12);
  ASSERT_OK(dlrt_variable_write(instance.get(), W, w.data(), 48));
  ASSERT_OK(dlrt_variable_read(instance.get(), W, read.data(), 48));
  EXPECT_EQ(read, w);
  EXPECT_OK(dlrt_variable_read(instance.get(), Empty, nullptr, 0));
  EXPECT_FAILS(dlrt_variable_write(instance.get(), W, w.data(), 44), DLRT_INVALID_ARGUMENT,
               "variable 'w': expected 48 bytes, got 44");
  EXPECT_FAILS(dlrt_variable_read(instance.get(), W, nullptr, 48), DLRT_INVALID_ARGUMENT,
               "variable 'w': data is NULL");
  EXPECT_FAILS(dlrt_variable_read(instance.get(), 8, w.data(), 48), DLRT_NOT_FOUND,
               "no variable 8: model 'Fixture' has 8");
  EXPECT_EQ(dlrt_instance_variable_bytes(instance.get()), 48u + 12 + 5 + 8 + 3 + 16);
}

TEST_F(Call, SeedsInitialise) {
  InstancePtr other = makeInstance(model.get(), 1, 5);
  int64_t seed, calls;
  float w0;
  std::vector<float> w(12);
  trainStep(other.get(), 3);
  ASSERT_OK(dlrt_variable_read(other.get(), Seed, &seed, 8));
  ASSERT_OK(dlrt_variable_read(other.get(), Calls, &calls, 8));
  EXPECT_EQ(seed, 5);
  EXPECT_EQ(calls, 1);
  ASSERT_OK(dlrt_instance_initialize(other.get(), 8));
  ASSERT_OK(dlrt_variable_read(other.get(), Seed, &seed, 8));
  ASSERT_OK(dlrt_variable_read(other.get(), Calls, &calls, 8));
  ASSERT_OK(dlrt_variable_read(other.get(), W, w.data(), 48));
  w0 = w[0];
  EXPECT_EQ(seed, 8);
  EXPECT_EQ(calls, 0);
  EXPECT_EQ(w0, 4.0f);
  EXPECT_EQ(variablesOf(model.get(), other.get()),
            variablesOf(model.get(), makeInstance(model.get(), 2, 8).get()));
}

TEST_F(Call, OptionsAreChecked) {
  dlrt_instance *made = nullptr;
  dlrt_options options = {0, 1, 0, 0, DLRT_DEVICE_AUTO, 0};
  EXPECT_FAILS(dlrt_instance_create(model.get(), &options, &made), DLRT_INVALID_ARGUMENT,
               "options.size is 0, expected " + std::to_string(sizeof options));
  options = {sizeof options, 1025, 0, 0};
  EXPECT_FAILS(dlrt_instance_create(model.get(), &options, &made), DLRT_INVALID_ARGUMENT,
               "options.threads is 1025, expected at most 1024");
  EXPECT_FAILS(dlrt_instance_create(nullptr, nullptr, &made), DLRT_INVALID_ARGUMENT,
               "model is NULL");
  EXPECT_FAILS(dlrt_instance_create(model.get(), nullptr, nullptr), DLRT_INVALID_ARGUMENT,
               "out_instance is NULL");
  options = {8, 3, 1234, 1}; // a caller that knows of two fields
  ASSERT_OK(dlrt_instance_create(model.get(), &options, &made));
  EXPECT_EQ(dlrt_instance_threads(made), 3u);
  int64_t seed;
  ASSERT_OK(dlrt_variable_read(made, Seed, &seed, 8));
  EXPECT_EQ(seed, 0);
  dlrt_instance_release(made);
  ASSERT_OK(dlrt_instance_create(model.get(), nullptr, &made));
  cpu_set_t set;
  ASSERT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  EXPECT_EQ(dlrt_instance_threads(made), static_cast<uint32_t>(CPU_COUNT(&set)));
  dlrt_instance_release(made);
  dlrt_instance_release(nullptr);
}

TEST_F(Call, MemoryLimit) {
  dlrt_options options = {sizeof options, 1, 0, 100, DLRT_DEVICE_AUTO, 0};
  dlrt_instance *made = nullptr;
  EXPECT_FAILS(dlrt_instance_create(model.get(), &options, &made), DLRT_OUT_OF_MEMORY,
               "out of memory: the variables of 'Fixture' asked for 448 bytes, the limit is 100");
  InstancePtr limited = makeInstance(model.get(), 1, 0, 448 + 128);
  std::vector<float> big(40 * 4), bigOut(40 * 3);
  dlrt_tensor argument = tensor(big, {40, 4}), result = room(bigOut);
  EXPECT_FAILS(dlrt_call(limited.get(), Predict, &argument, 1, &result, 1), DLRT_OUT_OF_MEMORY,
               "out of memory: the arena of 'predict' asked for 512 bytes, 128 of the limit of 576 "
               "are available");
  argument.dims[0] = 10;
  EXPECT_OK(dlrt_call(limited.get(), Predict, &argument, 1, &result, 1));
  EXPECT_EQ(dlrt_instance_arena_bytes(limited.get()), 128u);
}

TEST_F(Call, HugeShapesAreRefused) {
  dlrt_tensor argument = {x.data(), 0, {1ll << 58, 4}, 2, DLRT_F32, {}};
  EXPECT_FAILS_WITH(dlrt_call(instance.get(), Predict, &argument, 1, nullptr, 0),
                    DLRT_OUT_OF_MEMORY, "out of memory: the arena asked for ");
  EXPECT_GE(trainStep(instance.get(), 5), 0); // and it goes on
}

TEST_F(Call, ArenaGrowsOnly) {
  trainStep(instance.get(), 5);
  size_t small = dlrt_instance_arena_bytes(instance.get());
  trainStep(instance.get(), 500);
  size_t large = dlrt_instance_arena_bytes(instance.get());
  EXPECT_GT(large, small);
  // 500 rows of error and of sums, or error, gradient and a spare: not all at once
  EXPECT_EQ(large, (500 * 12 + 63) / 64 * 64 + (500 * 4 + 63) / 64 * 64);
  trainStep(instance.get(), 5);
  EXPECT_EQ(dlrt_instance_arena_bytes(instance.get()), large);
}

// The eight plans of a function are not enough: results stay right.
TEST_F(Call, ManyShapes) {
  InstancePtr fresh = makeInstance(model.get());
  for (int round = 0; round < 3; ++round)
    for (int64_t n = 1; n <= 12; ++n) {
      std::vector<float> in = numbers(n * 4, n), got(n * 3), again(n * 3);
      dlrt_tensor argument = tensor(in, {n, 4}), result = room(got), second = room(again);
      ASSERT_OK(dlrt_call(instance.get(), Predict, &argument, 1, &result, 1));
      InstancePtr other = makeInstance(model.get());
      ASSERT_OK(dlrt_call(other.get(), Predict, &argument, 1, &second, 1));
      EXPECT_EQ(got, again);
    }
}

TEST_F(Call, FloatEnvironmentIsSetAndRestored) {
  InstancePtr threads = makeInstance(model.get(), 3);
  unsigned saved = _mm_getcsr();
  _mm_setcsr(
      0xffc0 &
      ~0x1000); // flush to zero, denormals are zero, round towards zero, most exceptions masked
  unsigned odd = _mm_getcsr();
  std::vector<int32_t> seen(64);
  dlrt_tensor result = room(seen);
  Status status(dlrt_call(threads.get(), Mxcsr, nullptr, 0, &result, 1));
  unsigned after = _mm_getcsr();
  _mm_setcsr(saved);
  ASSERT_OK(status.status.release());
  EXPECT_EQ(after, odd);
  for (int32_t value : seen)
    EXPECT_EQ(value & 0xffc0, 0x1f80);
}

TEST_F(Call, ProfileSeesEveryLaunch) {
  struct Event {
    uint32_t function, kernel;
    int64_t tasks, ns;
  };
  std::vector<Event> events;
  dlrt_instance_set_profile(
      instance.get(),
      [](void *user, uint32_t function, uint32_t kernel, int64_t tasks, int64_t ns) {
        static_cast<std::vector<Event> *>(user)->push_back({function, kernel, tasks, ns});
      },
      &events);
  trainStep(instance.get(), 6);
  ASSERT_EQ(events.size(), 6u);
  int64_t tasks[] = {6, 4, 12};
  for (uint32_t i = 0; i < 6; ++i) {
    EXPECT_EQ(events[i].function, Step);
    EXPECT_EQ(events[i].kernel, i / 2);
    EXPECT_EQ(events[i].tasks, tasks[i / 2]);
    EXPECT_EQ(events[i].ns == -1, i % 2 == 0);
  }
  dlrt_instance_set_profile(instance.get(), nullptr, nullptr);
  trainStep(instance.get(), 6);
  EXPECT_EQ(events.size(), 6u);
}

TEST_F(Call, MessagesReachTheLog) {
  std::vector<std::string> heard;
  auto listen = [](void *user, uint32_t function, const char *message) {
    static_cast<std::vector<std::string> *>(user)->push_back(std::to_string(function) + " " +
                                                             message);
  };
  dlrt_function_info info;
  ASSERT_OK(dlrt_model_get_function(model.get(), Tell, &info));
  EXPECT_EQ(info.result_count, 1u);
  dlrt_value_info hidden;
  EXPECT_FAILS(dlrt_function_get_result(model.get(), Tell, 1, &hidden), DLRT_NOT_FOUND,
               "no result 1: function 'tell' has 1");

  std::vector<float> x = {0.1f, 2, 1e10f, INFINITY};
  std::vector<int64_t> out(1), k = {-9000000000000000001};
  dlrt_tensor arguments[] = {tensor(x, {2, 2}), tensor(k, {})}, results[] = {room(out), {}};
  auto tell = [&](uint32_t count) {
    return dlrt_call(instance.get(), Tell, arguments, count, results, 1);
  };
  EXPECT_OK(tell(2)); // nobody listens
  dlrt_instance_set_log(instance.get(), listen, &heard);
  EXPECT_OK(tell(2));
  EXPECT_EQ(out[0], 2);
  std::string first = std::to_string(Tell);
  EXPECT_EQ(heard, (std::vector<std::string>{
                       first + " x is [[0.1, 2], [1e+10, inf]]",
                       first + " k -9000000000000000001, on true and a third 0.333333333333333.",
                       first + " no value"}));

  // A result that is left out, a default, another shape; nothing at all, and more than is shown.
  heard.clear();
  arguments[0] = tensor(x, {1, 2});
  ASSERT_OK(dlrt_call(instance.get(), Tell, arguments, 1, nullptr, 0));
  EXPECT_EQ(heard[0], first + " x is [[0.1, 2]]");
  EXPECT_EQ(heard[1], first + " k 7, on true and a third 0.333333333333333.");
  arguments[0] = tensor(x, {0, 2});
  ASSERT_OK(tell(1));
  EXPECT_EQ(heard[3], first + " x is []");
  std::vector<float> many(200, 1);
  arguments[0] = tensor(many, {100, 2});
  ASSERT_OK(tell(1));
  EXPECT_TRUE(heard[6].starts_with(first + " x is [[1, 1], [1, 1], "));
  EXPECT_TRUE(heard[6].ends_with("[1, 1], …]")) << heard[6];
  EXPECT_EQ(std::count(heard[6].begin(), heard[6].end(), '1'), 64);

  // A call that fails prints nothing; more room than results that are seen is refused.
  heard.clear();
  x[1] = -1;
  arguments[0] = tensor(x, {2, 2});
  EXPECT_FAILS_WITH(tell(1), DLRT_FAULT, "label -1 of element 1");
  EXPECT_FAILS(dlrt_call(instance.get(), Tell, arguments, 1, results, 2), DLRT_INVALID_ARGUMENT,
               "'tell' has 1 result, got room for 2");
  EXPECT_TRUE(heard.empty());
  x[1] = NAN;
  ASSERT_OK(tell(1));
  EXPECT_EQ(heard[0], first + " x is [[0.1, nan], [1e+10, inf]]");
  heard.clear();
  dlrt_instance_set_log(instance.get(), nullptr, nullptr);
  dlrt_instance_set_log(nullptr, listen, &heard);
  ASSERT_OK(tell(1));
  EXPECT_TRUE(heard.empty());
}

TEST_F(Call, MessagesOfTurnsComeInOrder) {
  std::vector<std::string> heard;
  auto listen = [](void *user, uint32_t, const char *message) {
    static_cast<std::vector<std::string> *>(user)->emplace_back(message);
  };
  dlrt_instance_set_log(instance.get(), listen, &heard);
  std::vector<float> x = {0.5f, 2};
  std::vector<int64_t> turns(1);
  dlrt_tensor arguments[] = {tensor(x, {1, 2}), tensor(turns, {})};
  auto retell = [&](int64_t count) {
    heard.clear();
    turns[0] = count;
    return dlrt_call(instance.get(), Retell, arguments, 2, nullptr, 0);
  };
  ASSERT_OK(retell(0));
  EXPECT_EQ(heard, (std::vector<std::string>{"begins", "after 0 turns"}));
  ASSERT_OK(retell(3));
  EXPECT_EQ(heard, (std::vector<std::string>{"begins", "turn 0: [[0.5, 2]].", "even",
                                             "turn 1: [[1.5, 3]].", "turn 2: [[2.5, 4]].", "even",
                                             "after 3 turns"}));
  // The last ones, and how many there were.
  ASSERT_OK(retell(8));
  EXPECT_EQ(heard, (std::vector<std::string>{
                       "begins", "of 8 messages the last 3 are kept: turn {}: {}.",
                       "of 4 messages the last 2 are kept: even", "even", "turn 5: [[5.5, 7]].",
                       "turn 6: [[6.5, 8]].", "even", "turn 7: [[7.5, 9]].", "after 8 turns"}));
  // More elements than are kept, and none.
  std::vector<float> many(200, 1);
  arguments[0] = tensor(many, {100, 2});
  ASSERT_OK(retell(1));
  EXPECT_TRUE(heard[1].starts_with("turn 0: [[1, 1], [1, 1], ")) << heard[1];
  EXPECT_TRUE(heard[1].ends_with("[1, 1], …].")) << heard[1];
  EXPECT_EQ(std::count(heard[1].begin(), heard[1].end(), '1'), 64);
  arguments[0] = tensor(many, {0, 2});
  ASSERT_OK(retell(1));
  EXPECT_EQ(heard[1], "turn 0: [].");
}

TEST_F(Call, BitsDoNotDependOnThreads) {
  std::vector<uint8_t> expected;
  for (uint32_t threads : {1, 2, 3, 8}) {
    InstancePtr one = makeInstance(model.get(), threads, 3);
    float last = 0;
    for (int i = 0; i < 20; ++i)
      last = trainStep(one.get(), 33, i);
    std::vector<uint8_t> got = variablesOf(model.get(), one.get());
    got.insert(got.end(), reinterpret_cast<uint8_t *>(&last),
               reinterpret_cast<uint8_t *>(&last + 1));
    if (expected.empty())
      expected = got;
    EXPECT_EQ(got, expected) << threads;
  }
}

TEST_F(Call, TwoInstancesOnTwoThreads) {
  InstancePtr alone = makeInstance(model.get(), 2, 1);
  for (int i = 0; i < 50; ++i)
    trainStep(alone.get(), 16, i);
  std::vector<uint8_t> expected = variablesOf(model.get(), alone.get());
  InstancePtr pair[] = {makeInstance(model.get(), 2, 1), makeInstance(model.get(), 2, 1)};
  std::vector<std::thread> threads;
  for (InstancePtr &one : pair)
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i)
        trainStep(one.get(), 16, i);
    });
  for (std::thread &thread : threads)
    thread.join();
  for (InstancePtr &one : pair)
    EXPECT_EQ(variablesOf(model.get(), one.get()), expected);
}

TEST_F(Call, ConstCallsMayOverlap) {
  InstancePtr shared = makeInstance(model.get(), 2);
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 30; ++i) {
        int64_t n = 1 + (i + t) % 5;
        std::vector<float> in = numbers(n * 4, i), got(n * 3);
        dlrt_tensor argument = tensor(in, {n, 4}), result = room(got);
        Status status(dlrt_call(shared.get(), Predict, &argument, 1, &result, 1));
        float expected = 0; // w[k][0] = 0.75 k
        for (int k = 0; k < 4; ++k)
          expected += in[k] * 0.75f * k;
        wrong += status.code() != DLRT_OK || got[0] != expected;
        int64_t ms = i % 3, back = -1;
        dlrt_tensor time = {&ms, 8, {}, 0, DLRT_I64, {}}, answer = {&back, 8, {}, 0, 0, {}};
        Status slow(dlrt_call(shared.get(), Slow, &time, 1, &answer, 1));
        wrong += slow.code() != DLRT_OK || back != ms;
      }
    });
  for (std::thread &thread : threads)
    thread.join();
  EXPECT_EQ(wrong, 0);
}

/// What `prepared` answers: w times two as it was when that was prepared, and how often that was.
struct PreparedAnswer {
  std::vector<float> twice = std::vector<float>(12);
  int64_t times = -1;
  Status status = nullptr;
  explicit PreparedAnswer(dlrt_instance *instance, int64_t n = 1) {
    std::vector<float> x(n);
    dlrt_tensor argument = tensor(x, {n}), results[] = {room(twice), {&times, 8, {}, 0, 0, {}}};
    status = dlrt_call(instance, Prepared, &argument, 1, results, 2);
  }
  bool isOf(dlrt_instance *instance) const {
    std::vector<float> w(12);
    EXPECT_OK(dlrt_variable_read(instance, W, w.data(), 48));
    for (float &each : w)
      each *= 2;
    return status.code() == DLRT_OK && twice == w;
  }
};

TEST_F(Call, PreparesWhenVariablesChange) {
  int64_t times = 0;
  auto expectPreparedAgain = [&] {
    ++times;
    for (int64_t n : {1, 7, 1}) { // also for other shapes
      PreparedAnswer answer(instance.get(), n);
      EXPECT_TRUE(answer.isOf(instance.get()));
      EXPECT_EQ(answer.times, times);
    }
  };
  expectPreparedAgain();
  // Other const functions and reading leave it.
  dlrt_tensor argument = tensor(x, {5, 4}), result = room(out);
  ASSERT_OK(dlrt_call(instance.get(), Predict, &argument, 1, &result, 1));
  EXPECT_EQ(PreparedAnswer(instance.get()).times, times);
  trainStep(instance.get(), 5);
  expectPreparedAgain();
  std::vector<float> w = numbers(12);
  ASSERT_OK(dlrt_variable_write(instance.get(), W, w.data(), 48));
  expectPreparedAgain();
  ASSERT_OK(dlrt_instance_initialize(instance.get(), 3));
  expectPreparedAgain();
  Folder folder;
  const std::string path = folder.file("c.safetensors");
  ASSERT_OK(dlrt_variable_write(instance.get(), W, w.data(), 48));
  ASSERT_OK(dlrt_instance_save(instance.get(), path.c_str()));
  ASSERT_OK(dlrt_instance_initialize(instance.get(), 3));
  expectPreparedAgain();
  ASSERT_OK(dlrt_instance_load(instance.get(), path.c_str()));
  expectPreparedAgain();
  // A step that was submitted counts when it has been.
  std::vector<float> loss(1);
  dlrt_tensor arguments[] = {tensor(x, {5, 4}), tensor(y, {5, 3})};
  uint64_t ticket;
  ASSERT_OK(dlrt_submit(instance.get(), Step, arguments, 2, 1, &ticket));
  expectPreparedAgain();
  dlrt_tensor one = room(loss);
  ASSERT_OK(dlrt_collect(instance.get(), ticket, &one, 1));
  EXPECT_EQ(PreparedAnswer(instance.get()).times, times);
}

TEST_F(Call, OverlappingCallsPrepareOnce) {
  InstancePtr shared = makeInstance(model.get(), 2);
  for (int64_t round = 1; round <= 20; ++round) {
    std::atomic<int> wrong = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&, t] {
        PreparedAnswer answer(shared.get(), 1 + t % 2);
        wrong += !answer.isOf(shared.get()) || answer.times != round;
      });
    for (std::thread &thread : threads)
      thread.join();
    EXPECT_EQ(wrong, 0) << round;
    trainStep(shared.get(), 4, round);
  }
}

TEST_F(Call, WhatIsPreparedCountsForTheLimit) {
  const size_t before = dlrt_instance_arena_bytes(instance.get());
  EXPECT_EQ(PreparedAnswer(instance.get()).times, 1);
  EXPECT_EQ(dlrt_instance_arena_bytes(instance.get()), before + 128);
  InstancePtr limited = makeInstance(model.get(), 1, 0, 448 + 64);
  PreparedAnswer answer(limited.get());
  EXPECT_EQ(answer.status.code(), DLRT_OUT_OF_MEMORY);
  EXPECT_EQ(answer.status.message(), "out of memory: what is prepared of the variables of 'prepared' asked for 128 bytes, 64 of the limit of 512 are available");
}

TEST_F(Call, OtherOverlapIsRefused) {

  // The profile hook runs in the middle of a launch: a clean place to look from.
  struct State {
    dlrt_instance *instance;
    std::vector<dlrt_code> codes;
  } state = {instance.get(), {}};
  dlrt_instance_set_profile(
      instance.get(),
      [](void *user, uint32_t, uint32_t, int64_t, int64_t) {
        State *s = static_cast<State *>(user);
        std::vector<int64_t> label = {1};
        dlrt_tensor argument = tensor(label, {1});
        float w[12];
        dlrt_instance *instance = s->instance;
        if (!s->codes.empty())
          return;
        s->codes.push_back(DLRT_OK); // the calls below come back here
        s->codes.push_back(Status(dlrt_call(instance, Pick, &argument, 1, nullptr, 0)).code());
        s->codes.push_back(Status(dlrt_variable_write(instance, W, w, 48)).code());
        s->codes.push_back(Status(dlrt_variable_read(instance, W, w, 48)).code());
        s->codes.push_back(Status(dlrt_instance_initialize(instance, 1)).code());
        s->codes.push_back(Status(dlrt_instance_load(instance, "/nonexistent")).code());
        uint64_t ticket;
        s->codes.push_back(Status(dlrt_submit(instance, Pick, &argument, 1, 0, &ticket)).code());
        s->codes.push_back(Status(dlrt_collect(instance, 1, nullptr, 0)).code());
      },
      &state);
  trainStep(instance.get(), 4); // not const: it is alone
  const dlrt_code no = DLRT_INVALID_ARGUMENT;
  EXPECT_EQ(state.codes, (std::vector<dlrt_code>{DLRT_OK, no, no, no, no, no, no, no}));
  state.codes.clear();
  dlrt_tensor argument = tensor(x, {5, 4}), result = room(out);
  ASSERT_OK(dlrt_call(instance.get(), Predict, &argument, 1, &result, 1)); // const: others may read
  EXPECT_EQ(state.codes, (std::vector<dlrt_code>{DLRT_OK, DLRT_OK, no, DLRT_OK, no, no, no, no}));
}

class Submit : public Call {
protected:
  uint64_t submitPick(std::vector<int64_t> labels) {
    dlrt_tensor argument = tensor(labels, {static_cast<int64_t>(labels.size())});
    uint64_t ticket = 0;
    EXPECT_OK(dlrt_submit(instance.get(), Pick, &argument, 1, 1, &ticket));
    return ticket;
  }
  InstancePtr other = makeInstance(model.get()); // that is called only
};

TEST_F(Submit, IsACallInTwoHalves) {
  for (int i = 0; i < 10; ++i)
    EXPECT_EQ(collectStep(instance.get(), submitStep(instance.get(), 5 + i, i)),
              trainStep(other.get(), 5 + i, i));
  // Two at a time, collected in any order, with other calls between.
  for (int i = 0; i < 10; ++i) {
    uint64_t first = submitStep(instance.get(), 5 + i, i),
             second = submitStep(instance.get(), 4, i);
    float expected[] = {trainStep(other.get(), 5 + i, i), trainStep(other.get(), 4, i)};
    EXPECT_EQ(trainStep(instance.get(), 30 + i), trainStep(other.get(), 30 + i));
    bool swapped = i % 2;
    EXPECT_EQ(collectStep(instance.get(), swapped ? second : first), expected[swapped]);
    EXPECT_EQ(collectStep(instance.get(), swapped ? first : second), expected[!swapped]);
  }
  EXPECT_EQ(variablesOf(model.get(), instance.get()), variablesOf(model.get(), other.get()));
}

TEST_F(Submit, KeepsTheResultsThatAreAskedFor) {
  std::vector<float> square = numbers(5 * 11), half(2);
  std::vector<double> sum(1);
  const dlrt_tensor argument = tensor(square, {5, 11});
  uint64_t ticket;
  ASSERT_OK(dlrt_submit(instance.get(), Stats, &argument, 1, 2, &ticket));
  dlrt_tensor results[] = {room(half), room(sum)};
  results[0].bytes = 4;
  // Too little room: the shape is told, and the ticket stays good.
  EXPECT_FAILS(dlrt_collect(instance.get(), ticket, results, 2), DLRT_INVALID_ARGUMENT,
               "result 'half' of 'stats': f32[2] has 8 bytes, but its data has room for 4");
  EXPECT_EQ(results[0].dims[0], 2);
  EXPECT_FAILS(dlrt_collect(instance.get(), ticket, nullptr, 1), DLRT_INVALID_ARGUMENT,
               "results of 'stats' is NULL, but 1 are asked for");
  EXPECT_FAILS(dlrt_collect(instance.get(), ticket, results, 3), DLRT_INVALID_ARGUMENT,
               "'stats' was submitted for 2 results, got room for 3");
  results[0].bytes = 8;
  results[1].data = results[0].data;
  EXPECT_FAILS(dlrt_collect(instance.get(), ticket, results, 2), DLRT_INVALID_ARGUMENT,
               "result 'sum' of 'stats' overlaps result 'half' of 'stats' in memory");
  results[1].data = sum.data();
  ASSERT_OK(dlrt_collect(instance.get(), ticket, results, 2));
  EXPECT_EQ(half, (std::vector<float>{square[0], square[1]}));
  EXPECT_NE(sum[0], 0);
  EXPECT_FAILS(dlrt_collect(instance.get(), ticket, results, 2), DLRT_NOT_FOUND,
               "no ticket 1: it has been collected");
  // Only the first one, or none; one whose data is left out.
  half.assign(2, 0);
  ASSERT_OK(dlrt_submit(instance.get(), Stats, &argument, 1, 1, &ticket));
  EXPECT_FAILS(dlrt_collect(instance.get(), ticket, results, 2), DLRT_INVALID_ARGUMENT,
               "'stats' was submitted for 1 result, got room for 2");
  ASSERT_OK(dlrt_collect(instance.get(), ticket, results, 1));
  EXPECT_EQ(half[0], square[0]);
  ASSERT_OK(dlrt_submit(instance.get(), Stats, &argument, 1, 2, &ticket));
  ASSERT_OK(dlrt_collect(instance.get(), ticket, nullptr, 0));
  ASSERT_OK(dlrt_submit(instance.get(), Stats, &argument, 1, 2, &ticket));
  half.assign(2, 0);
  results[0].data = nullptr;
  sum[0] = 0;
  ASSERT_OK(dlrt_collect(instance.get(), ticket, results, 2));
  EXPECT_EQ(half[0], 0);
  EXPECT_NE(sum[0], 0);
  // Nothing in a batch.
  dlrt_tensor empty = {nullptr, 0, {0, 4}, 2, DLRT_F32, {}}, result = {};
  ASSERT_OK(dlrt_submit(instance.get(), Predict, &empty, 1, 1, &ticket));
  ASSERT_OK(dlrt_collect(instance.get(), ticket, &result, 1));
  EXPECT_EQ(result.dims[0], 0);
  EXPECT_EQ(result.dims[1], 3);
}

TEST_F(Submit, RefusesWhatACallRefuses) {
  const dlrt_tensor goodX = tensor(x, {5, 4}), shortX = tensor(x, {5, 3});
  uint64_t ticket = 7;
  EXPECT_FAILS(dlrt_submit(instance.get(), Predict, &shortX, 1, 1, &ticket), DLRT_INVALID_ARGUMENT,
               "argument 'x' of 'predict': expected f32[N, 4], got f32[5, 3]: dimension 1 is 3, "
               "not 4");
  EXPECT_EQ(ticket, 0u);
  EXPECT_FAILS(dlrt_submit(instance.get(), Predict, &goodX, 1, 2, &ticket), DLRT_INVALID_ARGUMENT,
               "'predict' has 1 result, got room for 2");
  EXPECT_FAILS(dlrt_submit(instance.get(), 99, nullptr, 0, 0, &ticket), DLRT_NOT_FOUND,
               "no function 99: model 'Fixture' has 11");
  EXPECT_FAILS(dlrt_submit(nullptr, Predict, &goodX, 1, 1, &ticket), DLRT_INVALID_ARGUMENT,
               "instance is NULL");
  EXPECT_FAILS(dlrt_submit(instance.get(), Predict, &goodX, 1, 1, nullptr), DLRT_INVALID_ARGUMENT,
               "out_ticket is NULL");
  EXPECT_FAILS(dlrt_collect(nullptr, 1, nullptr, 0), DLRT_INVALID_ARGUMENT, "instance is NULL");
  for (uint64_t unknown : {0, 1, 1000})
    EXPECT_FAILS(dlrt_collect(instance.get(), unknown, nullptr, 0), DLRT_NOT_FOUND,
                 "no ticket " + std::to_string(unknown) + ": no call was given it");
  // A third.
  uint64_t first = submitStep(instance.get(), 4), second = submitStep(instance.get(), 4);
  EXPECT_FAILS(dlrt_submit(instance.get(), Predict, &goodX, 1, 1, &ticket), DLRT_INVALID_ARGUMENT,
               "'predict' is submitted while 2 calls have not been collected: collect one first");
  collectStep(instance.get(), second);
  ASSERT_OK(dlrt_submit(instance.get(), Predict, &goodX, 1, 1, &ticket));
  EXPECT_EQ(ticket, second + 1);
  collectStep(instance.get(), first);
}

TEST_F(Submit, AFaultIsItsCollectors) {
  const char *fault = "fixture.dl:12:7: in 'pick': label 77 of element 1 is not one of 10 classes";
  uint64_t bad = submitPick({1, 77});
  // Nothing else runs until it has been collected …
  uint64_t behind = submitStep(instance.get(), 4);
  std::vector<int64_t> labels = {3, 4}, picked(2);
  const dlrt_tensor argument = tensor(labels, {2});
  dlrt_tensor result = room(picked);
  EXPECT_FAILS(dlrt_call(instance.get(), Pick, &argument, 1, &result, 1), DLRT_FAULT,
               std::string("'pick' was not run, as a call before it failed: ") + fault);
  EXPECT_EQ(picked[0], 0);
  // … but variables are there, as the failed call found them, and may be set.
  EXPECT_EQ(variablesOf(model.get(), instance.get()), variablesOf(model.get(), other.get()));
  EXPECT_OK(dlrt_instance_synchronize(instance.get()));
  EXPECT_OK(dlrt_instance_initialize(instance.get(), 3));
  EXPECT_OK(dlrt_instance_initialize(other.get(), 3));
  EXPECT_FAILS(dlrt_collect(instance.get(), bad, &result, 1), DLRT_FAULT, fault);
  EXPECT_FAILS(dlrt_collect(instance.get(), bad, &result, 1), DLRT_NOT_FOUND,
               "no ticket 1: it has been collected");
  // What stands behind it says so too; then all goes on.
  EXPECT_FAILS_WITH(dlrt_call(instance.get(), Pick, &argument, 1, &result, 1), DLRT_FAULT,
                    "'pick' was not run, as a call before it failed: ");
  EXPECT_FAILS(dlrt_collect(instance.get(), behind, nullptr, 0), DLRT_FAULT,
               std::string("'step' was not run, as a call before it failed: ") + fault);
  EXPECT_EQ(variablesOf(model.get(), instance.get()), variablesOf(model.get(), other.get()));
  EXPECT_OK(dlrt_call(instance.get(), Pick, &argument, 1, &result, 1));
  EXPECT_EQ(picked[0], 30);
  EXPECT_EQ(collectStep(instance.get(), submitStep(instance.get(), 4)), trainStep(other.get(), 4));
  // Released with failures that nobody has collected.
  submitPick({-1});
  submitPick({1});
}

TEST_F(Submit, MemoryLimitCountsWhatIsKept) {
  InstancePtr limited = makeInstance(model.get(), 1, 0, 4000);
  std::vector<float> many = numbers(400), wide(300);
  const dlrt_tensor argument = tensor(many, {100, 4});
  dlrt_tensor result = room(wide);
  uint64_t ticket;
  ASSERT_OK(dlrt_call(limited.get(), Predict, &argument, 1, &result, 1)); // with its arena
  size_t arena = dlrt_instance_arena_bytes(limited.get());
  EXPECT_FAILS_WITH(dlrt_submit(limited.get(), Predict, &argument, 1, 1, &ticket),
                    DLRT_OUT_OF_MEMORY, "out of memory: the results of 'predict' asked for 2432 ");
  EXPECT_EQ(dlrt_instance_arena_bytes(limited.get()), arena);
  ASSERT_OK(dlrt_submit(limited.get(), Predict, &argument, 1, 0, &ticket));
  ASSERT_OK(dlrt_collect(limited.get(), ticket, nullptr, 0));
  InstancePtr wider = makeInstance(model.get(), 1, 0, 8000);
  ASSERT_OK(dlrt_submit(wider.get(), Predict, &argument, 1, 1, &ticket));
  EXPECT_EQ(dlrt_instance_arena_bytes(wider.get()), arena + 2 * 1216);
}

TEST_F(Submit, ResultsAreKeptWhenOthersGrow) {
  std::vector<float> many = numbers(40000), wide(30000), expected(30000);
  const dlrt_tensor argument = tensor(many, {10000, 4});
  dlrt_tensor result = room(wide), called = room(expected);
  ASSERT_OK(dlrt_call(other.get(), Predict, &argument, 1, &called, 1));
  uint64_t large, small = submitPick({1, 2, 3});
  ASSERT_OK(dlrt_submit(instance.get(), Predict, &argument, 1, 1, &large));
  std::vector<int64_t> picked(3);
  dlrt_tensor few = room(picked);
  ASSERT_OK(dlrt_collect(instance.get(), small, &few, 1));
  EXPECT_EQ(picked, (std::vector<int64_t>{10, 20, 30}));
  ASSERT_OK(dlrt_collect(instance.get(), large, &result, 1));
  EXPECT_EQ(wide, expected);
}

TEST_F(Submit, ConstCallsMayOverlapBetweenTheHalves) {
  uint64_t ticket = submitStep(instance.get(), 4);
  trainStep(other.get(), 4);
  std::vector<float> expected(15);
  const dlrt_tensor argument = tensor(x, {5, 4});
  dlrt_tensor result = room(expected);
  ASSERT_OK(dlrt_call(other.get(), Predict, &argument, 1, &result, 1));
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        std::vector<float> found(15);
        dlrt_tensor to = room(found);
        Status status(dlrt_call(instance.get(), Predict, &argument, 1, &to, 1));
        wrong += status.code() != DLRT_OK || found != expected;
      }
    });
  for (std::thread &thread : threads)
    thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_OK(dlrt_collect(instance.get(), ticket, nullptr, 0));
}

TEST(Status, Basics) {
  EXPECT_EQ(dlrt_status_code(nullptr), DLRT_OK);
  EXPECT_STREQ(dlrt_status_message(nullptr), "");
  dlrt_status_release(nullptr);
  EXPECT_EQ(dlrt_dtype_bytes(DLRT_BF16), 2u);
  EXPECT_EQ(dlrt_dtype_bytes(static_cast<dlrt_dtype>(10)), 0u);
  EXPECT_STREQ(dlrt_dtype_name(DLRT_BOOL), "bool");
  EXPECT_EQ(dlrt_dtype_name(static_cast<dlrt_dtype>(-1)), nullptr);
}

TEST(Status, LongMessagesAreShortened) {
  std::string path = "/" + std::string(3000, 'p') + "\xC3\xBC";
  dlrt_model *model = nullptr;
  Status status(dlrt_model_open(path.c_str(), &model));
  EXPECT_LT(status.message().size(), 2049u);
  EXPECT_EQ(status.message().substr(status.message().size() - 3), "...");
}

// ---- defaults of every element type ----

std::vector<uint8_t> stored[DL_DTYPE_COUNT];

void storeEntry(const dl_frame *frame) {
  static const size_t sizes[] = {1, 1, 1, 2, 4, 8, 2, 2, 4, 8};
  for (int d = 0; d < DL_DTYPE_COUNT; ++d) {
    const uint8_t *bytes = static_cast<const uint8_t *>(frame->buffers[d]);
    stored[d].assign(bytes, bytes + sizes[d]);
  }
}

void storeDefaults(const std::vector<double> &values) {
  static const int sizes[] = {1, 1, 1, 2, 4, 8, 2, 2, 4, 8};
  Model m;
  Function f;
  f.name = "f";
  for (uint32_t d = 0; d < DL_DTYPE_COUNT; ++d) {
    f.arguments.push_back({"a" + std::to_string(d), static_cast<uint8_t>(d), {}, true, values[d]});
    f.buffers.push_back({DL_BUFFER_ARGUMENT, d, sizes[d]});
  }
  m.functions = {f};
  std::vector<uint8_t> bytes = m.build();
  std::vector<uint64_t> aligned((bytes.size() + 7) / 8);
  memcpy(aligned.data(), bytes.data(), bytes.size());
  dl_entry_fn entries[] = {storeEntry};
  dl_model linked = {DL_ABI_VERSION, sizeof linked,
                     reinterpret_cast<const dl_blob *>(aligned.data()), entries, nullptr};
  dlrt_model *model = nullptr;
  ASSERT_OK(dlrt_model_attach(&linked, &model));
  {
    InstancePtr instance = makeInstance(model);
    unsigned saved = _mm_getcsr();
    _mm_setcsr(saved | 0x6000); // the caller rounds towards zero: no matter
    Status status(dlrt_call(instance.get(), 0, nullptr, 0, nullptr, 0));
    _mm_setcsr(saved);
    ASSERT_OK(status.status.release());
  }
  dlrt_model_release(model);
}

template <typename T> T storedAs(int dtype) {
  T value;
  EXPECT_EQ(stored[dtype].size(), sizeof value);
  memcpy(&value, stored[dtype].data(), sizeof value);
  return value;
}

TEST(Defaults, EachElementType) {
  storeDefaults({1, 255, -128, -32768, 2147483647, -0x1p62, 65504, 1.5, 0.1, 0.1});
  EXPECT_EQ(storedAs<uint8_t>(DL_BOOL), 1);
  EXPECT_EQ(storedAs<uint8_t>(DL_U8), 255);
  EXPECT_EQ(storedAs<int8_t>(DL_I8), -128);
  EXPECT_EQ(storedAs<int16_t>(DL_I16), -32768);
  EXPECT_EQ(storedAs<int32_t>(DL_I32), 2147483647);
  EXPECT_EQ(storedAs<int64_t>(DL_I64), -(1ll << 62));
  EXPECT_EQ(storedAs<uint16_t>(DL_F16), 0x7bff);
  EXPECT_EQ(storedAs<uint16_t>(DL_BF16), 0x3fc0);
  EXPECT_EQ(storedAs<float>(DL_F32), 0.1f);
  EXPECT_EQ(storedAs<double>(DL_F64), 0.1);
}

TEST(Defaults, RoundToNearestEven) {
  struct Case {
    double value;
    uint16_t f16, bf16;
  };
  const Case cases[] = {
      {65519.99, 0x7bff, 0x4780},  {65520, 0x7c00, 0x4780}, // halfway to 65536: even is infinity
      {-1e300, 0xfc00, 0xff80},    {0x1p-24, 0x0001, 0x3380},
      {0x1p-25, 0x0000, 0x3300}, // halfway to the smallest: even is 0
      {0x1.8p-24, 0x0002, 0x33c0}, {0x1.002p0, 0x3c00, 0x3f80}, // halfway: to even
      {0x1.006p0, 0x3c02, 0x3f80}, {-0.0, 0x8000, 0x8000},
      {0x1p-149, 0x0000, 0x0000},  {1e-320, 0x0000, 0x0000}};
  for (const Case &c : cases) {
    storeDefaults({0, 0, 0, 0, 0, 0, c.value, c.value, c.value, c.value});
    EXPECT_EQ(storedAs<uint16_t>(DL_F16), c.f16) << c.value;
    EXPECT_EQ(storedAs<uint16_t>(DL_BF16), c.bf16) << c.value;
    float expected = static_cast<float>(c.value);
    EXPECT_EQ(memcmp(stored[DL_F32].data(), &expected, 4), 0) << c.value;
  }
  for (int i = 0; i < 400; ++i) { // f32 against the processor
    double value = (i % 2 ? -1 : 1) * (1 + i / 401.0) * std::ldexp(1.0, i - 200);
    storeDefaults({0, 0, 0, 0, 0, 0, 0, 0, value, value});
    EXPECT_EQ(storedAs<float>(DL_F32), static_cast<float>(value)) << value;
  }
}

} // namespace
