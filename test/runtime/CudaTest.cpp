//===- CudaTest.cpp - the runtime's half for GPUs, on a driver of the tests' own -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
#include "Common.h"
#include "CudaFixture.h"
#include "fake/FakeCuda.h"

#include <cmath>
#include <cstdlib>
#include <dlfcn.h>
#include <thread>
#include <unistd.h>

using namespace dlc::test;

extern "C" {
void allocation_counter_start(void);
long allocation_counter_stop(void);
}

namespace {

template <typename T> T *at(uint64_t address) {
  return reinterpret_cast<T *>(static_cast<uintptr_t>(address));
}

// ---- the kernels ----

void predictMatmul(const uint64_t *p, const unsigned *grid) {
  const float *x = at<float>(p[0]), *w = at<float>(p[1]);
  float *tmp = at<float>(p[2]);
  if (grid[0] != p[3])
    std::abort();
  for (uint64_t n = 0; n < p[3]; ++n)
    for (int j = 0; j < 3; ++j) {
      float sum = 0;
      for (int k = 0; k < 4; ++k)
        sum += x[n * 4 + k] * w[k * 3 + j];
      tmp[n * 3 + j] = sum;
    }
}
void predictAdd(const uint64_t *p, const unsigned *) {
  for (uint64_t i = 0; i < p[4]; ++i)
    at<float>(p[3])[i] = at<float>(p[0])[i] + at<float>(p[1])[i % 3] + at<float>(p[2])[i % 3];
}
void stepForward(const uint64_t *p, const unsigned *) {
  const float *x = at<float>(p[0]), *y = at<float>(p[1]), *w = at<float>(p[2]),
              *b = at<float>(p[3]);
  float *error = at<float>(p[4]), *rows = at<float>(p[5]);
  for (uint64_t n = 0; n < p[6]; ++n) {
    rows[n] = 0;
    for (int j = 0; j < 3; ++j) {
      float sum = b[j] - y[n * 3 + j];
      for (int k = 0; k < 4; ++k)
        sum += x[n * 4 + k] * w[k * 3 + j];
      error[n * 3 + j] = sum;
      rows[n] += sum * sum;
    }
  }
}
void stepGradient(const uint64_t *p, const unsigned *) {
  for (int k = 0; k < 4; ++k)
    for (int j = 0; j < 3; ++j) {
      float sum = 0;
      for (uint64_t n = 0; n < p[3]; ++n)
        sum += at<float>(p[0])[n * 4 + k] * at<float>(p[1])[n * 3 + j];
      at<float>(p[2])[k * 3 + j] = sum;
    }
}
void stepUpdate(const uint64_t *p, const unsigned *) {
  float loss = 0;
  for (uint64_t n = 0; n < p[7]; ++n)
    loss += at<float>(p[3])[n];
  *at<float>(p[4]) = loss;
  if (at<dl_fault>(p[8])->site)
    return;
  for (int i = 0; i < 12; ++i)
    at<float>(p[2])[i] -=
        *at<float>(p[1]) * at<float>(p[0])[i] / static_cast<float>(p[7] ? p[7] : 1);
  ++*at<int64_t>(p[5]);
  ++*at<int64_t>(p[6]);
}
/// Sets the fault for the first label that is no class; false where there is one, or was before.
bool checkLabels(const int64_t *label, uint64_t n, dl_fault *fault) {
  for (uint64_t i = 0; i < n && !fault->site; ++i)
    if (label[i] < 0 || label[i] > 9)
      *fault = {1, static_cast<int64_t>(i), label[i]};
  return !fault->site;
}
void pick(const uint64_t *p, const unsigned *) {
  checkLabels(at<int64_t>(p[0]), p[2], at<dl_fault>(p[3]));
  for (uint64_t i = 0; i < p[2]; ++i)
    at<int64_t>(p[1])[i] = at<int64_t>(p[0])[i] * 10;
}
void stats(const uint64_t *p, const unsigned *) {
  double sum = 0;
  for (uint64_t i = 0; i < p[5] * (2 * p[5] + 1); ++i)
    sum += at<float>(p[0])[i];
  for (uint64_t i = 0; i < p[5] / 2; ++i)
    at<float>(p[3])[i] = at<float>(p[0])[i];
  *at<double>(p[4]) = *at<uint8_t>(p[2]) ? sum * *at<double>(p[1]) : -1;
}
void count(const uint64_t *p, const unsigned *) {
  if (checkLabels(at<int64_t>(p[0]), p[2], at<dl_fault>(p[3])))
    for (uint64_t i = 0; i < p[2]; ++i)
      *at<int64_t>(p[1]) += at<int64_t>(p[0])[i];
}
void countEntry(const dl_frame *f) {
  if (checkLabels(static_cast<const int64_t *>(f->buffers[0]), f->dims[0], f->fault))
    for (int64_t i = 0; i < f->dims[0]; ++i)
      *static_cast<int64_t *>(f->buffers[1]) += static_cast<const int64_t *>(f->buffers[0])[i];
}

fake_cuda *fake() {
  static fake_cuda *found = [] {
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    void *symbol = library ? dlsym(library, "fake_cuda_get") : nullptr;
    if (!symbol) {
      fprintf(stderr, "libcuda.so.1 is not the tests' own\n");
      std::abort();
    }
    return reinterpret_cast<fake_cuda *(*)()>(symbol)();
  }();
  return found;
}

/// A description with code, for the time of a test.
class Linked {
public:
  explicit Linked(const Model &m, const std::vector<dl_entry_fn> &functions) : entries(functions) {
    std::vector<uint8_t> bytes = m.build();
    memory = aligned_alloc(64, (bytes.size() + 63) / 64 * 64);
    memcpy(memory, bytes.data(), bytes.size());
    linked = {DL_ABI_VERSION, sizeof linked, static_cast<const dl_blob *>(memory),
              entries.data(), nullptr,       &dlrt_cuda_half, fixture_preparations};
  }
  ~Linked() { free(memory); }
  Linked(const Linked &) = delete;

  ModelPtr attach() const {
    dlrt_model *model = nullptr;
    EXPECT_OK(dlrt_model_attach(&linked, &model));
    return ModelPtr(model, dlrt_model_release);
  }
  dl_model linked;

private:
  std::vector<dl_entry_fn> entries;
  void *memory;
};

std::vector<dl_entry_fn> fixtureEntries() {
  std::vector<dl_entry_fn> entries(fixture_entries, fixture_entries + InBlob + Count);
  entries.push_back(countEntry);
  return entries;
}

dlrt_status create(dlrt_model *model, uint32_t device, InstancePtr &out, uint64_t seed = 0,
                   size_t limit = 0, uint32_t ordinal = 0) {
  dlrt_options options = {sizeof options, 1, seed, limit, device, ordinal};
  dlrt_instance *instance = nullptr;
  dlrt_status status = dlrt_instance_create(model, &options, &instance);
  out = InstancePtr(instance, dlrt_instance_release);
  return status;
}

InstancePtr make(const ModelPtr &model, uint32_t device, uint64_t seed = 0) {
  InstancePtr instance(nullptr, dlrt_instance_release);
  EXPECT_OK(create(model.get(), device, instance, seed));
  return instance;
}

class Cuda : public testing::Test {
protected:
  void SetUp() override {
    fake()->reset();
    fake()->add_kernel("predict_matmul", 4, predictMatmul);
    fake()->add_kernel("predict_add", 5, predictAdd);
    fake()->add_kernel("step_forward", 7, stepForward);
    fake()->add_kernel("step_gradient", 4, stepGradient);
    fake()->add_kernel("step_update", 9, stepUpdate);
    fake()->add_kernel("pick", 4, pick);
    fake()->add_kernel("stats", 6, stats);
    fake()->add_kernel("count", 4, count);
    live = fake()->live;
  }
  void TearDown() override {
    EXPECT_EQ(fake()->context_depth, 0);
    EXPECT_EQ(fake()->live, live) << "something was not given back";
  }
  int64_t live = 0;
  Linked fixture{cudaFixtureModel(), fixtureEntries()};
};

std::vector<float> predictOn(dlrt_instance *instance, int64_t n) {
  std::vector<float> x = numbers(n * 4), out(n * 3);
  dlrt_tensor argument = tensor(x, {n, 4}), result = room(out);
  EXPECT_OK(dlrt_call(instance, Predict, &argument, 1, &result, 1));
  return out;
}
dlrt_status countOn(dlrt_instance *instance, std::vector<int64_t> labels) {
  dlrt_tensor argument = tensor(labels, {static_cast<int64_t>(labels.size())});
  return dlrt_call(instance, Count, &argument, 1, nullptr, 0);
}
int64_t counted(dlrt_instance *instance) {
  int64_t t = -1;
  EXPECT_OK(dlrt_variable_read(instance, StepT, &t, sizeof t));
  return t;
}

// ---- results ----

TEST_F(Cuda, SaysWhatItRunsOn) {
  ModelPtr model = fixture.attach();
  EXPECT_STREQ(dlrt_instance_device(make(model, DLRT_DEVICE_AUTO).get()), "cuda:0 (Fake GPU)");
  EXPECT_STREQ(dlrt_instance_device(make(model, DLRT_DEVICE_CUDA).get()), "cuda:0 (Fake GPU)");
  EXPECT_STREQ(dlrt_instance_device(make(model, DLRT_DEVICE_CPU).get()), "cpu: asked for");
  EXPECT_EQ(fake()->last_image_arch, 90u);
  fake()->device_count = 3;
  InstancePtr last(nullptr, dlrt_instance_release);
  EXPECT_OK(create(model.get(), DLRT_DEVICE_CUDA, last, 0, 0, 2));
  EXPECT_STREQ(dlrt_instance_device(last.get()), "cuda:2 (Fake GPU)");
}

TEST_F(Cuda, TrainsAsTheProcessorDoes) {
  ModelPtr model = fixture.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA, 5), cpu = make(model, DLRT_DEVICE_CPU, 5);
  EXPECT_EQ(variablesOf(model.get(), gpu.get()), variablesOf(model.get(), cpu.get()));
  for (int i = 0; i < 20; ++i) {
    int64_t n = i % 3 ? 16 : 7;
    EXPECT_EQ(trainStep(gpu.get(), n, i), trainStep(cpu.get(), n, i)) << i;
  }
  EXPECT_EQ(variablesOf(model.get(), gpu.get()), variablesOf(model.get(), cpu.get()));
  EXPECT_EQ(predictOn(gpu.get(), 9), predictOn(cpu.get(), 9));
  EXPECT_OK(dlrt_instance_initialize(gpu.get(), 6));
  EXPECT_OK(dlrt_instance_initialize(cpu.get(), 6));
  EXPECT_EQ(variablesOf(model.get(), gpu.get()), variablesOf(model.get(), cpu.get()));
  EXPECT_EQ(dlrt_instance_variable_bytes(gpu.get()), dlrt_instance_variable_bytes(cpu.get()));
  EXPECT_GT(dlrt_instance_arena_bytes(gpu.get()), 1000u); // cuBLASLt's workspace
}

TEST_F(Cuda, DefaultsAndResultsLeftOut) {
  ModelPtr model = fixture.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA), cpu = make(model, DLRT_DEVICE_CPU);
  std::vector<float> x = numbers(5 * 11), half(2);
  std::vector<double> sums[2] = {{0}, {0}};
  for (int i = 0; i < 2; ++i) {
    dlrt_instance *instance = i ? cpu.get() : gpu.get();
    dlrt_tensor argument = tensor(x, {5, 11}), results[] = {{}, room(sums[i])};
    EXPECT_OK(dlrt_call(instance, Stats, &argument, 1, results, 2));
    EXPECT_EQ(results[0].dims[0], 2);
  }
  EXPECT_EQ(sums[0], sums[1]);
  dlrt_tensor argument = tensor(x, {5, 11}), result = room(half);
  EXPECT_OK(dlrt_call(gpu.get(), Stats, &argument, 1, &result, 1));
  EXPECT_EQ(half, (std::vector<float>{x[0], x[1]}));
  // Nothing in a batch.
  EXPECT_EQ(predictOn(gpu.get(), 0).size(), 0u);
  EXPECT_EQ(trainStep(gpu.get(), 0), trainStep(cpu.get(), 0));
}

TEST_F(Cuda, CheckpointsAreTheSame) {
  Folder folder;
  ModelPtr model = fixture.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA, 3), cpu = make(model, DLRT_DEVICE_CPU, 3);
  trainStep(gpu.get(), 8);
  trainStep(cpu.get(), 8);
  EXPECT_OK(dlrt_instance_save(gpu.get(), folder.file("gpu").c_str()));
  EXPECT_OK(dlrt_instance_save(cpu.get(), folder.file("cpu").c_str()));
  EXPECT_EQ(readFile(folder.file("gpu")), readFile(folder.file("cpu")));
  InstancePtr other = make(model, DLRT_DEVICE_CUDA, 4);
  EXPECT_NE(variablesOf(model.get(), other.get()), variablesOf(model.get(), gpu.get()));
  EXPECT_OK(dlrt_instance_load(other.get(), folder.file("cpu").c_str()));
  EXPECT_EQ(variablesOf(model.get(), other.get()), variablesOf(model.get(), gpu.get()));
  float w[12] = {1, 2, 3};
  EXPECT_OK(dlrt_variable_write(other.get(), W, w, sizeof w));
  float back[12];
  EXPECT_OK(dlrt_variable_read(other.get(), W, back, sizeof back));
  EXPECT_EQ(memcmp(w, back, sizeof w), 0);
}

// ---- how ----

TEST_F(Cuda, AStepIsOneGraphAndCopiesWhatItMust) {
  ModelPtr model = fixture.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA);
  trainStep(gpu.get(), 16);
  fake_cuda before = *fake();
  for (int i = 0; i < 10; ++i)
    trainStep(gpu.get(), 16, i);
  const fake_cuda &after = *fake();
  EXPECT_EQ(after.graph_launches - before.graph_launches, 10u);
  EXPECT_EQ(after.launches, before.launches);
  EXPECT_EQ(after.heuristics, before.heuristics);
  EXPECT_EQ(after.allocations, before.allocations);
  EXPECT_EQ(after.graph_instantiations, before.graph_instantiations);
  EXPECT_EQ(after.copies_in - before.copies_in, 10u);
  EXPECT_EQ(after.copies_out - before.copies_out, 10u);
  // x, y and lr, each at a multiple of 256; the fault and the loss.
  EXPECT_EQ(after.bytes_in - before.bytes_in, 10u * (256 + 256 + 4));
  EXPECT_LE(after.bytes_out - before.bytes_out, 10u * (256 + 4));
  EXPECT_EQ(before.heuristics, 1u);
  EXPECT_EQ(before.graph_instantiations, 2u); // one for each of the arguments' places
}

#ifndef DLC_SANITIZED
TEST_F(Cuda, NothingIsAllocatedAfterTheFirstCall) {
  ModelPtr model = fixture.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA);
  std::vector<float> x = numbers(400), y = numbers(300), loss(1);
  bool right = true;
  auto step = [&](int64_t n) {
    dlrt_tensor arguments[] = {tensor(x, {n, 4}), tensor(y, {n, 3})}, result = room(loss);
    right &= dlrt_call(gpu.get(), Step, arguments, 2, &result, 1) == nullptr;
  };
  // The second is larger: the graphs of the first are made anew in its first call, not later.
  step(10);
  step(100);
  uint64_t instantiations = fake()->graph_instantiations, allocations = fake()->allocations;
  allocation_counter_start();
  for (int i = 0; i < 20; ++i) {
    step(10);
    step(100);
  }
  EXPECT_EQ(allocation_counter_stop(), 0);
  EXPECT_TRUE(right);
  EXPECT_EQ(fake()->graph_instantiations, instantiations);
  EXPECT_EQ(fake()->allocations, allocations);
}
#endif

TEST_F(Cuda, PlansComeAndGo) {
  ModelPtr model = fixture.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA), cpu = make(model, DLRT_DEVICE_CPU);
  for (int round = 0; round < 2; ++round)
    for (int64_t n = 1; n <= 12; ++n)
      EXPECT_EQ(trainStep(gpu.get(), n), trainStep(cpu.get(), n));
  EXPECT_EQ(variablesOf(model.get(), gpu.get()), variablesOf(model.get(), cpu.get()));
}

TEST_F(Cuda, CallsWithoutResultsDoNotWait) {
  ModelPtr model = fixture.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA), cpu = make(model, DLRT_DEVICE_CPU);
  fake()->lazy = 1;
  std::vector<float> x(64), y(48);
  uint64_t waited = 0;
  for (int i = 0; i < 8; ++i) {
    // The caller's memory is free again when the call returns.
    x = numbers(64, i), y = numbers(48, i + 1);
    dlrt_tensor arguments[] = {tensor(x, {16, 4}), tensor(y, {16, 3})};
    uint64_t copied = fake()->copies_in;
    EXPECT_OK(dlrt_call(gpu.get(), Step, arguments, 2, nullptr, 0));
    waited += fake()->copies_in - copied;
    x.assign(64, NAN), y.assign(48, NAN);
    trainStep(cpu.get(), 16, i);
  }
  EXPECT_LE(waited, 6u) << "two calls are on their way at a time";
  EXPECT_OK(dlrt_instance_synchronize(gpu.get()));
  EXPECT_OK(dlrt_instance_synchronize(cpu.get()));
  EXPECT_EQ(variablesOf(model.get(), gpu.get()), variablesOf(model.get(), cpu.get()));
}

// ---- submitted calls ----

uint64_t submitCount(dlrt_instance *instance, std::vector<int64_t> labels) {
  dlrt_tensor argument = tensor(labels, {static_cast<int64_t>(labels.size())});
  uint64_t ticket = 0;
  EXPECT_OK(dlrt_submit(instance, Count, &argument, 1, 0, &ticket));
  return ticket;
}
dlrt_status collectCount(dlrt_instance *instance, uint64_t ticket) {
  return dlrt_collect(instance, ticket, nullptr, 0);
}

TEST_F(Cuda, SubmittedCallsOverlap) {
  ModelPtr model = fixture.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA), cpu = make(model, DLRT_DEVICE_CPU);
  collectStep(gpu.get(), submitStep(gpu.get(), 16));
  trainStep(cpu.get(), 16);
  fake()->lazy = 1;
  uint64_t copies = fake()->copies_in;
  memset(fake()->trace, 0, sizeof fake()->trace);
  uint64_t ticket = submitStep(gpu.get(), 16, 1);
  EXPECT_STREQ(fake()->trace, "ig");
  for (int i = 2; i < 10; ++i) {
    memset(fake()->trace, 0, sizeof fake()->trace);
    uint64_t next = submitStep(gpu.get(), 16, i);
    // The copy of the next step's arguments is on its way before anybody has waited for this step.
    EXPECT_STREQ(fake()->trace, "ig") << i;
    EXPECT_EQ(collectStep(gpu.get(), ticket), trainStep(cpu.get(), 16, i - 1)) << i;
    EXPECT_STREQ(fake()->trace, "igw") << i;
    // Whoever waits for a step waits for no more: the next one has not run.
    EXPECT_EQ(fake()->copies_in - copies, static_cast<uint64_t>(i - 1));
    ticket = next;
  }
  EXPECT_EQ(collectStep(gpu.get(), ticket), trainStep(cpu.get(), 16, 9));
  EXPECT_EQ(variablesOf(model.get(), gpu.get()), variablesOf(model.get(), cpu.get()));
}

#ifndef DLC_SANITIZED
TEST_F(Cuda, SubmittingAllocatesNothingAfterTheFirstCall) {
  ModelPtr model = fixture.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA);
  std::vector<float> x = numbers(400), y = numbers(300), loss(1), out(300);
  bool right = true;
  auto submit = [&](uint32_t function, int64_t n) {
    dlrt_tensor arguments[] = {tensor(x, {n, 4}), tensor(y, {n, 3})};
    uint64_t ticket = 0;
    right &= !dlrt_submit(gpu.get(), function, arguments, function == Step ? 2 : 1, 1, &ticket);
    return ticket;
  };
  auto collect = [&](uint64_t ticket, std::vector<float> &to) {
    dlrt_tensor result = room(to);
    right &= !dlrt_collect(gpu.get(), ticket, &result, 1);
  };
  collect(submit(Step, 10), loss);
  collect(submit(Predict, 100), out);
  uint64_t instantiations = fake()->graph_instantiations, allocations = fake()->allocations;
  allocation_counter_start();
  for (int i = 0; i < 20; ++i) {
    // Results that others' calls drive out of the pinned memory too.
    uint64_t first = submit(Predict, 100), second = submit(Step, 10);
    for (int k = 0; k < 3; ++k) {
      dlrt_tensor argument = tensor(x, {100, 4}), result = room(out);
      right &= !dlrt_call(gpu.get(), Predict, &argument, 1, &result, 1);
    }
    collect(second, loss);
    collect(first, out);
  }
  EXPECT_EQ(allocation_counter_stop(), 0);
  EXPECT_TRUE(right);
  EXPECT_EQ(fake()->graph_instantiations, instantiations);
  EXPECT_EQ(fake()->allocations, allocations);
}
#endif

// Results wait for whoever collects them, whatever is called, grows or is planned anew meanwhile.
TEST_F(Cuda, ResultsWaitForTheirCollector) {
  ModelPtr model = fixture.attach();
  for (int variant : {0, 1, 2, 3}) {
    fake()->lazy = variant % 2;
    InstancePtr gpu = make(model, DLRT_DEVICE_CUDA), cpu = make(model, DLRT_DEVICE_CPU);
    uint64_t first = submitStep(gpu.get(), 4, 1), second = submitStep(gpu.get(), 5, 2);
    float expected[] = {trainStep(cpu.get(), 4, 1), trainStep(cpu.get(), 5, 2)};
    if (variant / 2) // pinned memory grows
      EXPECT_EQ(predictOn(gpu.get(), 5000), predictOn(cpu.get(), 5000));
    EXPECT_EQ(predictOn(gpu.get(), 3), predictOn(cpu.get(), 3));
    for (int64_t n = 6; n < 17; ++n) // more shapes than a function's plans
      EXPECT_EQ(trainStep(gpu.get(), n), trainStep(cpu.get(), n));
    EXPECT_EQ(variablesOf(model.get(), gpu.get()), variablesOf(model.get(), cpu.get()));
    EXPECT_EQ(collectStep(gpu.get(), second), expected[1]);
    // A larger result's ticket, while the first one's result is kept.
    std::vector<float> x = numbers(40000), out(30000), alone = predictOn(cpu.get(), 10000);
    dlrt_tensor argument = tensor(x, {10000, 4}), result = room(out);
    EXPECT_OK(dlrt_submit(gpu.get(), Predict, &argument, 1, 1, &second));
    EXPECT_EQ(collectStep(gpu.get(), first), expected[0]);
    EXPECT_OK(dlrt_collect(gpu.get(), second, &result, 1));
    EXPECT_EQ(out, alone);
  }
}

TEST_F(Cuda, ASubmittedCallsFaultIsItsCollectors) {
  ModelPtr model = fixture.attach();
  const char *fault = "fixture.dl:12:7: in 'count': label 11 of element 1 is not one of 10 classes";
  const std::string behind =
      std::string("'count' was not run, as a call before it failed: ") + fault;
  for (int lazy : {0, 1}) {
    fake()->lazy = lazy;
    InstancePtr gpu = make(model, DLRT_DEVICE_CUDA);
    uint64_t good = submitCount(gpu.get(), {1, 2}), bad = submitCount(gpu.get(), {1, 11});
    EXPECT_OK(collectCount(gpu.get(), good));
    uint64_t after = submitCount(gpu.get(), {5});
    // Nobody else is told, and nothing else runs.
    EXPECT_EQ(counted(gpu.get()), 3);
    EXPECT_OK(dlrt_instance_synchronize(gpu.get()));
    EXPECT_FAILS(countOn(gpu.get(), {5}), DLRT_FAULT, behind);
    EXPECT_FAILS(countOn(gpu.get(), {5}), DLRT_FAULT, behind);
    EXPECT_FAILS(collectCount(gpu.get(), after), DLRT_FAULT, behind);
    after = submitCount(gpu.get(), {5});
    EXPECT_FAILS(collectCount(gpu.get(), bad), DLRT_FAULT, fault);
    // Not before the last that stands behind it has been collected too.
    EXPECT_FAILS(countOn(gpu.get(), {5}), DLRT_FAULT, behind);
    EXPECT_FAILS(collectCount(gpu.get(), after), DLRT_FAULT, behind);
    EXPECT_OK(countOn(gpu.get(), {5}));
    EXPECT_EQ(counted(gpu.get()), 8);
    // A call without a result was sent off behind the failed one, then one that waits.
    bad = submitCount(gpu.get(), {1, 11});
    if (lazy)
      EXPECT_OK(countOn(gpu.get(), {5}));
    std::vector<float> x = numbers(16), y = numbers(12), loss(1);
    dlrt_tensor arguments[] = {tensor(x, {4, 4}), tensor(y, {4, 3})}, result = room(loss);
    EXPECT_FAILS(dlrt_call(gpu.get(), Step, arguments, 2, &result, 1), DLRT_FAULT,
                 std::string("'step' was not run, as a call before it failed: ") + fault);
    EXPECT_FAILS(collectCount(gpu.get(), bad), DLRT_FAULT, fault);
    EXPECT_EQ(counted(gpu.get()), 8);
    // The failure of a call without a ticket: a submitted one behind it says so too.
    EXPECT_OK(countOn(gpu.get(), {1, 11}));
    after = submitCount(gpu.get(), {5});
    EXPECT_FAILS(collectCount(gpu.get(), after), DLRT_FAULT, behind);
    EXPECT_OK(dlrt_instance_synchronize(gpu.get()));
    EXPECT_EQ(counted(gpu.get()), 8);
    // Found by another than its collector; then its place is another call's.
    InstancePtr cpu = make(model, DLRT_DEVICE_CPU), fresh = make(model, DLRT_DEVICE_CUDA);
    EXPECT_EQ(trainStep(fresh.get(), 4), trainStep(cpu.get(), 4));
    bad = submitCount(fresh.get(), {1, 11});
    EXPECT_OK(dlrt_instance_synchronize(fresh.get()));
    EXPECT_FAILS(collectCount(fresh.get(), bad), DLRT_FAULT, fault);
    good = submitStep(fresh.get(), 4);
    float expected = trainStep(cpu.get(), 4);
    EXPECT_EQ(trainStep(fresh.get(), 4), trainStep(cpu.get(), 4));
    EXPECT_EQ(collectStep(fresh.get(), good), expected);
    // Released with a failure that nobody has collected.
    submitCount(gpu.get(), {1, 11});
    submitCount(gpu.get(), {5});
  }
}

TEST_F(Cuda, SubmittedCallsAreProfiled) {
  ModelPtr model = fixture.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA), cpu = make(model, DLRT_DEVICE_CPU);
  int launches = 0;
  dlrt_instance_set_profile(
      gpu.get(),
      [](void *user, uint32_t, uint32_t, int64_t, int64_t ns) {
        *static_cast<int *>(user) += ns >= 0;
      },
      &launches);
  uint64_t ticket = submitStep(gpu.get(), 6);
  EXPECT_EQ(launches, 3);
  EXPECT_EQ(collectStep(gpu.get(), ticket), trainStep(cpu.get(), 6));
  uint64_t bad = submitCount(gpu.get(), {1, 11});
  EXPECT_FAILS_WITH(collectCount(gpu.get(), bad), DLRT_FAULT, "label 11");
  EXPECT_OK(countOn(gpu.get(), {1}));
}

TEST_F(Cuda, EveryStepOfASubmittedCallMayFail) {
  ModelPtr model = fixture.attach();
  for (const char *function :
       {"cuLaunchKernel", "cuStreamBeginCapture_v2", "cuGraphInstantiateWithFlags", "cuGraphLaunch",
        "cuMemcpyHtoDAsync_v2", "cuMemAlloc_v2", "cuMemHostAlloc"}) {
    InstancePtr gpu = make(model, DLRT_DEVICE_CUDA), cpu = make(model, DLRT_DEVICE_CPU);
    std::vector<float> x = numbers(16), y = numbers(12);
    dlrt_tensor arguments[] = {tensor(x, {4, 4}), tensor(y, {4, 3})};
    uint64_t ticket = 5;
    fake()->fail_function = function;
    fake()->fail_after = 0;
    fake()->fail_result = 701;
    EXPECT_FAILS_WITH(dlrt_submit(gpu.get(), Step, arguments, 2, 1, &ticket), DLRT_DEVICE,
                      "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, 701)");
    EXPECT_EQ(fake()->fail_function, nullptr) << function;
    EXPECT_EQ(ticket, 0u);
    // Nothing has happened, both tickets are there, and all goes on.
    uint64_t first = submitStep(gpu.get(), 4, 1), second = submitStep(gpu.get(), 4, 2);
    EXPECT_EQ(collectStep(gpu.get(), first), trainStep(cpu.get(), 4, 1)) << function;
    EXPECT_EQ(collectStep(gpu.get(), second), trainStep(cpu.get(), 4, 2)) << function;
    EXPECT_EQ(variablesOf(model.get(), gpu.get()), variablesOf(model.get(), cpu.get()));
  }
}

TEST_F(Cuda, ADeviceMayBeLostUnderSubmittedCalls) {
  ModelPtr model = fixture.attach();
  const char *raw = "cuda:0: cannot run 'step': unspecified launch failure "
                    "(CUDA_ERROR_LAUNCH_FAILED, 719)";
  const std::string lost = std::string("the instance and its variables were lost with the device, "
                                       "make a new one: ") +
                           raw;
  for (const char *function : {"cuEventSynchronize", "cuEventQuery"}) {
    fake()->lazy = 1;
    InstancePtr gpu = make(model, DLRT_DEVICE_CUDA);
    uint64_t first = submitStep(gpu.get(), 4), second = submitStep(gpu.get(), 4);
    uint64_t third = 0;
    std::vector<float> x = numbers(16), y = numbers(12), loss(1);
    dlrt_tensor arguments[] = {tensor(x, {4, 4}), tensor(y, {4, 3})}, result = room(loss);
    bool byQuery = strcmp(function, "cuEventQuery") == 0;
    if (byQuery) // the next call finds the one before it lost, and says so to its ticket
      collectStep(gpu.get(), first);
    fake()->fail_function = function;
    fake()->fail_result = 719;
    fake()->fail_lasting = 1;
    if (byQuery) {
      EXPECT_FAILS(dlrt_submit(gpu.get(), Step, arguments, 2, 1, &third), DLRT_DEVICE, lost);
      EXPECT_EQ(third, 0u);
      EXPECT_FAILS(dlrt_collect(gpu.get(), second, &result, 1), DLRT_DEVICE, raw);
    } else {
      EXPECT_FAILS(dlrt_collect(gpu.get(), first, &result, 1), DLRT_DEVICE, raw);
      EXPECT_FAILS(dlrt_collect(gpu.get(), second, &result, 1), DLRT_DEVICE, lost);
    }
    EXPECT_FAILS(dlrt_submit(gpu.get(), Step, arguments, 2, 1, &third), DLRT_DEVICE, lost);
    EXPECT_FAILS(dlrt_collect(gpu.get(), second, &result, 1), DLRT_NOT_FOUND,
                 "no ticket 2: it has been collected");
  }
}

// By chance: what is submitted, called and collected, in which order and of which size.
TEST_F(Cuda, AnyOrderGivesTheSameResults) {
  ModelPtr model = fixture.attach();
  for (unsigned seed = 1; seed <= 50; ++seed) {
    std::srand(seed);
    fake()->lazy = seed % 2;
    InstancePtr gpu = make(model, DLRT_DEVICE_CUDA), cpu = make(model, DLRT_DEVICE_CPU);
    std::vector<std::pair<uint64_t, float>> tickets;
    for (int i = 0; i < 60; ++i) {
      int64_t n = 1 + std::rand() % 12;
      switch (std::rand() % 5) {
      case 0:
      case 1:
        if (tickets.size() < 2)
          tickets.emplace_back(submitStep(gpu.get(), n, i), trainStep(cpu.get(), n, i));
        break;
      case 2:
        if (!tickets.empty()) {
          size_t which = std::rand() % tickets.size();
          ASSERT_EQ(collectStep(gpu.get(), tickets[which].first), tickets[which].second)
              << seed << ", " << i;
          tickets.erase(tickets.begin() + which);
        }
        break;
      case 3:
        ASSERT_EQ(trainStep(gpu.get(), n, i), trainStep(cpu.get(), n, i)) << seed << ", " << i;
        break;
      case 4:
        EXPECT_OK(countOn(gpu.get(), {n % 10}));
        EXPECT_OK(countOn(cpu.get(), {n % 10}));
        break;
      }
    }
    for (auto &[ticket, loss] : tickets)
      ASSERT_EQ(collectStep(gpu.get(), ticket), loss) << seed;
    ASSERT_EQ(variablesOf(model.get(), gpu.get()), variablesOf(model.get(), cpu.get())) << seed;
  }
}

// Other threads' const calls run while a submitted call is on its way, and may drive its result
// out.
TEST_F(Cuda, ConstCallsMayOverlapSubmittedOnes) {
  ModelPtr model = fixture.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA), cpu = make(model, DLRT_DEVICE_CPU);
  uint64_t first = submitStep(gpu.get(), 4, 1), second = submitStep(gpu.get(), 4, 2);
  float expected[] = {trainStep(cpu.get(), 4, 1), trainStep(cpu.get(), 4, 2)};
  std::vector<float> predicted = predictOn(cpu.get(), 3);
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i)
        wrong += predictOn(gpu.get(), 3) != predicted;
    });
  for (std::thread &thread : threads)
    thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(collectStep(gpu.get(), first), expected[0]);
  EXPECT_EQ(collectStep(gpu.get(), second), expected[1]);
}

TEST_F(Cuda, ConstCallsMayComeFromManyThreads) {
  ModelPtr model = fixture.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA), cpu = make(model, DLRT_DEVICE_CPU);
  std::vector<float> expected[3];
  for (int64_t n = 0; n < 3; ++n)
    expected[n] = predictOn(cpu.get(), n + 1);
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i)
        wrong += predictOn(gpu.get(), t + 1) != expected[t];
    });
  for (std::thread &thread : threads)
    thread.join();
  EXPECT_EQ(wrong, 0);
}

struct Profiled {
  std::vector<std::string> lines;
  dlrt_instance *instance;
  static void record(void *user, uint32_t function, uint32_t kernel, int64_t tasks, int64_t ns) {
    Profiled *self = static_cast<Profiled *>(user);
    const char *name = dlrt_instance_kernel_name(self->instance, function, kernel);
    if (ns >= 0)
      self->lines.push_back(std::string(name ? name : "?") + " " + std::to_string(tasks) + " " +
                            std::to_string(ns));
  }
};

TEST_F(Cuda, ProfileTimesEachLaunch) {
  ModelPtr model = fixture.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA), cpu = make(model, DLRT_DEVICE_CPU);
  Profiled profiled{{}, gpu.get()};
  dlrt_instance_set_profile(gpu.get(), Profiled::record, &profiled);
  EXPECT_EQ(trainStep(gpu.get(), 6), trainStep(cpu.get(), 6));
  EXPECT_EQ(profiled.lines, (std::vector<std::string>{"forward (fixture.dl:3) 6 1000000",
                                                      "gradient (fixture.dl:8:3) 1 10000000",
                                                      "update (fixture.dl:5) 1 1000000"}));
  EXPECT_EQ(fake()->graph_launches, 0u);
  dlrt_instance_set_profile(gpu.get(), nullptr, nullptr);
  EXPECT_EQ(trainStep(gpu.get(), 6), trainStep(cpu.get(), 6));
  EXPECT_EQ(fake()->graph_launches, 1u);
  EXPECT_STREQ(dlrt_instance_kernel_name(cpu.get(), Step, 1), "gradient (fixture.dl:8:3)");
  EXPECT_EQ(dlrt_instance_kernel_name(gpu.get(), Step, 4), nullptr);
  EXPECT_EQ(dlrt_instance_kernel_name(gpu.get(), 100, 0), nullptr);

  // Of a launch of the GPU program, where the instance runs that.
  dlrt_tensor label = {nullptr, 0, {6}, 1, DLRT_I64, {}};
  dlrt_kernel_work work;
  ASSERT_OK(dlrt_instance_kernel_work(gpu.get(), Count, 0, &label, 1, &work));
  EXPECT_EQ(work.is_known, 1);
  EXPECT_EQ(work.operations, 12);
  EXPECT_EQ(work.read_bytes, 48);
  EXPECT_EQ(work.written_bytes, 8);
  EXPECT_EQ(work.dtype, DLRT_F64);
  ASSERT_OK(dlrt_instance_kernel_work(cpu.get(), Count, 0, &label, 1, &work));
  EXPECT_EQ(work.is_known, 0);
}

// ---- faults ----

TEST_F(Cuda, AFaultIsReportedAndChangesNothing) {
  ModelPtr model = fixture.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA);
  std::vector<int64_t> labels = {1, 2, 77, 4}, out(4);
  dlrt_tensor argument = tensor(labels, {4}), result = room(out);
  EXPECT_FAILS(dlrt_call(gpu.get(), Pick, &argument, 1, &result, 1), DLRT_FAULT,
               "fixture.dl:12:7: in 'pick': label 77 of element 2 is not one of 10 classes");
  labels[2] = 3;
  result = room(out);
  EXPECT_OK(dlrt_call(gpu.get(), Pick, &argument, 1, &result, 1));
  EXPECT_EQ(out, (std::vector<int64_t>{10, 20, 30, 40}));
}

TEST_F(Cuda, AFaultOfACallThatDidNotWaitComesLater) {
  ModelPtr model = fixture.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA);
  const char *words = "in 'count': label 11 of element 1 is not one of 10 classes";
  for (int lazy : {0, 1}) {
    fake()->lazy = lazy;
    EXPECT_OK(countOn(gpu.get(), {1, 2, 3}));
    EXPECT_OK(countOn(gpu.get(), {1, 11}));
    EXPECT_FAILS_WITH(dlrt_instance_synchronize(gpu.get()), DLRT_FAULT, words);
    EXPECT_OK(dlrt_instance_synchronize(gpu.get()));
    EXPECT_EQ(counted(gpu.get()), 6 + 6 * lazy);
  }
  // What was sent off behind it has changed nothing either, and whoever looks first is told.
  fake()->lazy = 1;
  EXPECT_OK(countOn(gpu.get(), {1, 11}));
  EXPECT_OK(countOn(gpu.get(), {5}));
  int64_t t;
  EXPECT_FAILS_WITH(dlrt_variable_read(gpu.get(), StepT, &t, sizeof t), DLRT_FAULT, words);
  EXPECT_EQ(counted(gpu.get()), 12);
  // The call after next needs the place of its arguments.
  EXPECT_OK(countOn(gpu.get(), {1, 11}));
  EXPECT_OK(countOn(gpu.get(), {5}));
  EXPECT_FAILS_WITH(countOn(gpu.get(), {5}), DLRT_FAULT, words);
  EXPECT_OK(countOn(gpu.get(), {5}));
  EXPECT_EQ(counted(gpu.get()), 17);
  // A call that waits is told, and has done nothing.
  EXPECT_OK(countOn(gpu.get(), {1, 11}));
  std::vector<float> x = numbers(16), y = numbers(12), loss(1);
  dlrt_tensor arguments[] = {tensor(x, {4, 4}), tensor(y, {4, 3})}, result = room(loss);
  EXPECT_FAILS_WITH(dlrt_call(gpu.get(), Step, arguments, 2, &result, 1), DLRT_FAULT, words);
  EXPECT_EQ(counted(gpu.get()), 17);
  // A call that finds it done reports it at once.
  fake()->lazy = 0;
  EXPECT_OK(countOn(gpu.get(), {1, 11}));
  EXPECT_FAILS_WITH(countOn(gpu.get(), {5}), DLRT_FAULT, words);
  EXPECT_EQ(counted(gpu.get()), 17);
}

// ---- refusals ----

/// Asked for outright, a GPU that is not to be had is an error; left to the runtime, it is a
/// reason.
void expectNone(const ModelPtr &model, dlrt_code code, const std::string &words,
                uint32_t ordinal = 0) {
  InstancePtr instance(nullptr, dlrt_instance_release);
  EXPECT_FAILS_WITH(create(model.get(), DLRT_DEVICE_CUDA, instance, 0, 0, ordinal), code, words);
  EXPECT_EQ(instance, nullptr);
  ASSERT_OK(create(model.get(), DLRT_DEVICE_AUTO, instance, 0, 0, ordinal));
  EXPECT_NE(std::string(dlrt_instance_device(instance.get())).find("cpu: "), std::string::npos);
  EXPECT_NE(std::string(dlrt_instance_device(instance.get())).find(words.substr(0, 200)),
            std::string::npos)
      << dlrt_instance_device(instance.get());
  EXPECT_TRUE(std::isfinite(trainStep(instance.get(), 4)));
}

// The driver is opened once, so these look in processes of their own.
TEST_F(Cuda, DriversThatDoNotServe) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  auto refusal = [&] {
    InstancePtr instance(nullptr, dlrt_instance_release);
    Status status(create(fixture.attach().get(), DLRT_DEVICE_CUDA, instance));
    fprintf(stderr, "%s\n", status.message().c_str());
    _exit(status.code());
  };
  EXPECT_EXIT((fake()->version = 11040, refusal()), testing::ExitedWithCode(DLRT_DEVICE),
              "^the driver is too old: it is for CUDA 11.4, needed is one for 12.0 or later\n$");
  EXPECT_EXIT((fake()->device_count = 0, refusal()), testing::ExitedWithCode(DLRT_DEVICE),
              "^no device: the driver sees no GPU\n$");
  EXPECT_EXIT((fake()->fail_function = "cuInit", fake()->fail_result = 719, refusal()),
              testing::ExitedWithCode(DLRT_DEVICE),
              "^the driver does not start: unspecified launch failure "
              "\\(CUDA_ERROR_LAUNCH_FAILED, 719\\)\n$");
}

TEST_F(Cuda, OrdinalsThatAreNotThere) {
  ModelPtr model = fixture.attach();
  expectNone(model, DLRT_DEVICE, "no device cuda:1: there is 1, from cuda:0", 1);
  fake()->device_count = 2;
  expectNone(model, DLRT_DEVICE, "no device cuda:7: there are 2, from cuda:0", 7);
}

TEST_F(Cuda, ImagesForOtherDevices) {
  ModelPtr model = fixture.attach();
  auto loaded = [&](int arch) {
    fake()->arch = arch;
    make(model, DLRT_DEVICE_CUDA);
    return fake()->last_image_arch;
  };
  EXPECT_EQ(loaded(80), 80u);
  EXPECT_EQ(loaded(89), 80u);
  EXPECT_EQ(loaded(90), 90u);
  EXPECT_EQ(loaded(120), 90u); // PTX
  fake()->arch = 75;
  expectNone(model, DLRT_DEVICE,
             "model 'Fixture' has no kernels for cuda:0, which is sm_75: it has sm_80, sm_90, PTX "
             "for sm_80, PTX for sm_90");
  // Machine code that the driver does not take: PTX serves.
  fake()->arch = 90;
  fake()->refuse_cubin = 1;
  make(model, DLRT_DEVICE_CUDA);
  EXPECT_EQ(fake()->images_loaded, 5u);
}

TEST_F(Cuda, PtxThatDoesNotCompile) {
  ModelPtr model = fixture.attach();
  fake()->arch = 100;
  fake()->jit_log = "ptxas fatal: Unresolved\nsymbol";
  expectNone(model, DLRT_DEVICE,
             "cuda:0: cannot compile the model's PTX for sm_90 (ptxas fatal: Unresolved symbol): a "
             "PTX JIT compilation failed (CUDA_ERROR_INVALID_PTX, 218)");
}

TEST_F(Cuda, KernelsThatAreMissing) {
  Model m = cudaFixtureModel();
  m.cudaKernels[2].symbol = "nowhere";
  Linked other(m, fixtureEntries());
  expectNone(other.attach(), DLRT_DEVICE,
             "cuda:0: cannot find kernel 'nowhere' in the model's code");
  m = cudaFixtureModel();
  m.cudaKernels[2].sharedBytes = 1 << 19;
  Linked greedy(m, fixtureEntries());
  expectNone(greedy.attach(), DLRT_DEVICE,
             "cuda:0: cannot give kernel 'step_forward' 524288 bytes of shared memory");
}

TEST_F(Cuda, TooLittleMemory) {
  ModelPtr model = fixture.attach();
  fake()->memory = fake()->live_bytes + 100;
  expectNone(model, DLRT_OUT_OF_MEMORY,
             "out of memory: the variables asked for 448 bytes of cuda:0, ");
  fake()->memory = fake()->live_bytes + 20000;
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA), cpu = make(model, DLRT_DEVICE_CPU);
  EXPECT_EQ(trainStep(gpu.get(), 8), trainStep(cpu.get(), 8));
  std::vector<float> x = numbers(40000), y = numbers(30000), loss(1);
  dlrt_tensor arguments[] = {tensor(x, {10000, 4}), tensor(y, {10000, 3})}, result = room(loss);
  EXPECT_FAILS_WITH(dlrt_call(gpu.get(), Step, arguments, 2, &result, 1), DLRT_OUT_OF_MEMORY,
                    "out of memory: the arena of 'step' asked for ");
  // What went before goes on.
  EXPECT_EQ(trainStep(gpu.get(), 8), trainStep(cpu.get(), 8));
  EXPECT_EQ(predictOn(gpu.get(), 8), predictOn(cpu.get(), 8));
  InstancePtr limited(nullptr, dlrt_instance_release);
  fake()->memory = 1 << 30;
  EXPECT_OK(create(model.get(), DLRT_DEVICE_CUDA, limited, 0, 3000));
  result = room(loss);
  EXPECT_FAILS_WITH(dlrt_call(limited.get(), Step, arguments, 2, &result, 1), DLRT_OUT_OF_MEMORY,
                    "of the limit of 3000 are available");
}

TEST_F(Cuda, EveryStepOfOpeningMayFail) {
  ModelPtr model = fixture.attach();
  for (const char *function :
       {"cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute",
        "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent_v2", "cuStreamCreate", "cuEventCreate",
        "cuModuleGetFunction", "cuMemsetD8Async", "cuMemcpyHtoDAsync_v2", "cuStreamSynchronize"})
    for (int after : {0, 1}) {
      InstancePtr instance(nullptr, dlrt_instance_release);
      fake()->fail_function = function;
      fake()->fail_after = after;
      fake()->fail_result = 701;
      Status status(create(model.get(), DLRT_DEVICE_CUDA, instance));
      // Some are called only once.
      bool once = fake()->fail_function != nullptr;
      fake()->fail_function = nullptr;
      EXPECT_EQ(status.code(), once ? DLRT_OK : DLRT_DEVICE) << function << status.message();
      if (!once)
        EXPECT_NE(status.message().find("(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, 701)"),
                  std::string::npos)
            << status.message();
    }
}

TEST_F(Cuda, EveryStepOfACallMayFail) {
  ModelPtr model = fixture.attach();
  for (const char *function :
       {"cuLaunchKernel", "cuStreamBeginCapture_v2", "cuGraphInstantiateWithFlags", "cuGraphLaunch",
        "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuMemAlloc_v2", "cuMemHostAlloc"}) {
    InstancePtr gpu = make(model, DLRT_DEVICE_CUDA), cpu = make(model, DLRT_DEVICE_CPU);
    std::vector<float> x = numbers(16), y = numbers(12), loss(1);
    dlrt_tensor arguments[] = {tensor(x, {4, 4}), tensor(y, {4, 3})}, result = room(loss);
    fake()->fail_function = function;
    fake()->fail_after = 0;
    fake()->fail_result = 701;
    EXPECT_FAILS_WITH(dlrt_call(gpu.get(), Step, arguments, 2, &result, 1), DLRT_DEVICE,
                      "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, 701)");
    EXPECT_EQ(fake()->fail_function, nullptr) << function;
    // Nothing has happened, and all goes on.
    EXPECT_EQ(variablesOf(model.get(), gpu.get()), variablesOf(model.get(), cpu.get()));
    EXPECT_EQ(trainStep(gpu.get(), 4), trainStep(cpu.get(), 4)) << function;
    EXPECT_EQ(variablesOf(model.get(), gpu.get()), variablesOf(model.get(), cpu.get()));
  }
}

TEST_F(Cuda, ADeviceMayBeLost) {
  ModelPtr model = fixture.attach();
  for (const char *function : {"cuEventSynchronize", "cuGraphLaunch"}) {
    InstancePtr gpu = make(model, DLRT_DEVICE_CUDA), cpu = make(model, DLRT_DEVICE_CPU);
    trainStep(gpu.get(), 4);
    std::vector<float> x = numbers(16), y = numbers(12), loss(1);
    dlrt_tensor arguments[] = {tensor(x, {4, 4}), tensor(y, {4, 3})}, result = room(loss);
    fake()->fail_function = function;
    fake()->fail_result = 719;
    fake()->fail_lasting = 1;
    EXPECT_FAILS_WITH(dlrt_call(gpu.get(), Step, arguments, 2, &result, 1), DLRT_DEVICE,
                      "'step': unspecified launch failure (CUDA_ERROR_LAUNCH_FAILED, 719)");
    const char *words = "the instance and its variables were lost with the device, make a new one: "
                        "cuda:0: cannot ";
    float w[12];
    Folder folder;
    result = room(loss);
    EXPECT_FAILS_WITH(dlrt_call(gpu.get(), Step, arguments, 2, &result, 1), DLRT_DEVICE, words);
    EXPECT_FAILS_WITH(dlrt_variable_read(gpu.get(), W, w, sizeof w), DLRT_DEVICE, words);
    EXPECT_FAILS_WITH(dlrt_variable_write(gpu.get(), W, w, sizeof w), DLRT_DEVICE, words);
    EXPECT_FAILS_WITH(dlrt_instance_synchronize(gpu.get()), DLRT_DEVICE, words);
    EXPECT_FAILS_WITH(dlrt_instance_initialize(gpu.get(), 1), DLRT_DEVICE, words);
    EXPECT_FAILS_WITH(dlrt_instance_save(gpu.get(), folder.file("x").c_str()), DLRT_DEVICE, words);
    EXPECT_TRUE(folder.names().empty());
    EXPECT_TRUE(std::isfinite(trainStep(cpu.get(), 4)));
    gpu.reset();
    EXPECT_TRUE(std::isfinite(trainStep(make(model, DLRT_DEVICE_CUDA).get(), 4)));
  }
}

TEST_F(Cuda, FunctionsWithoutAProgram) {
  ModelPtr model = fixture.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA);
  std::vector<int64_t> ms = {1}, out(1);
  dlrt_tensor argument = tensor(ms, {}), result = room(out);
  EXPECT_FAILS(dlrt_call(gpu.get(), Slow, &argument, 1, &result, 1), DLRT_DEVICE,
               "'slow' has no program for a GPU, and the instance runs on cuda:0 (Fake GPU)");
}

TEST_F(Cuda, ModelsWithoutAProgram) {
  Linked plain(fixtureModel(), fixtureEntries());
  expectNone(plain.attach(), DLRT_DEVICE, "model 'Fixture' has no program for a GPU");
  // A runtime without that half.
  Linked half(cudaFixtureModel(), fixtureEntries());
  half.linked.cuda = nullptr;
  expectNone(half.attach(), DLRT_DEVICE, "this program has no part of the runtime for GPUs");
  InstancePtr instance(nullptr, dlrt_instance_release);
  EXPECT_FAILS(create(fixture.attach().get(), 3, instance), DLRT_INVALID_ARGUMENT,
               "options.device is 3, expected at most 2");
}

/// Every function on the GPU alone.
Model gpuAlone() {
  Model m = cudaFixtureModel();
  m.flags = DL_BLOB_WITHOUT_CPU;
  std::vector<Function> kept;
  for (const Function &f : m.functions)
    if (!f.cuda.empty() || (f.flags & DL_FUNCTION_INIT))
      kept.push_back(f);
  m.functions = kept;
  return m;
}

TEST_F(Cuda, ModelsForGpusAlone) {
  std::vector<dl_entry_fn> entries(6, nullptr);
  entries[0] = fixture_entries[0];
  Linked alone(gpuAlone(), entries);
  ModelPtr model = alone.attach();
  dlrt_model_info info;
  dlrt_model_get_info(model.get(), &info);
  EXPECT_STREQ(info.targets, "cuda");
  EXPECT_EQ(predictOn(make(model, DLRT_DEVICE_AUTO, 5).get(), 3),
            predictOn(make(fixture.attach(), DLRT_DEVICE_CPU, 5).get(), 3));
  InstancePtr instance(nullptr, dlrt_instance_release);
  EXPECT_FAILS(create(model.get(), DLRT_DEVICE_CPU, instance), DLRT_DEVICE,
               "model 'Fixture' was compiled for GPUs alone: it cannot run on the processor");
  fake()->device_count = 0;
  EXPECT_FAILS_WITH(create(model.get(), DLRT_DEVICE_AUTO, instance), DLRT_DEVICE, "no device");
}

TEST_F(Cuda, GridsThatNoDeviceHas) {
  Model m = cudaFixtureModel();
  m.functions[Predict + InBlob].cuda[0].launches[0].grid = {Size::dim(0), 1 << 20, 1};
  Linked wide(m, fixtureEntries());
  ModelPtr model = wide.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA);
  std::vector<float> x = numbers(4), out(3);
  dlrt_tensor argument = tensor(x, {1, 4}), result = room(out);
  EXPECT_FAILS(dlrt_call(gpu.get(), Predict, &argument, 1, &result, 1), DLRT_INVALID_ARGUMENT,
               "'predict' cannot run on a GPU for these arguments: launch 'matmul (fixture.dl:1)' "
               "would have 1048576 blocks, expected 0 to 65535");
}

// ---- loops and branches ----

void put(const uint64_t *p, const unsigned *) { *at<int64_t>(p[0]) = static_cast<int64_t>(p[1]); }
void addOne(const uint64_t *p, const unsigned *) { *at<int64_t>(p[1]) = *at<int64_t>(p[0]) + 1; }
void isBelow(const uint64_t *p, const unsigned *) {
  *at<uint8_t>(p[1]) = *at<int64_t>(p[0]) < static_cast<int64_t>(p[2]);
}
void keep(const uint64_t *p, const unsigned *) {
  if (!at<dl_fault>(p[2])->site)
    *at<int64_t>(p[1]) = *at<int64_t>(p[0]);
}

class CudaControl : public Cuda {
protected:
  void SetUp() override {
    Cuda::SetUp();
    fake()->add_kernel("put", 2, put);
    fake()->add_kernel("add_one", 2, addOne);
    fake()->add_kernel("is_below", 3, isBelow);
    fake()->add_kernel("keep", 3, keep);
  }
  // Buffers of `count`: an i64 in two places, a bool, a limit.
  enum : uint32_t { Labels, Variable, Here, There, Flag, Limit };
  enum : uint32_t { PutKernel = 8, AddOneKernel, IsBelowKernel, KeepKernel };
  static Launch putInto(uint32_t buffer, Size value) {
    return kernelLaunch("put", PutKernel, 1, {buffer}, {value});
  }
  static Launch addOneTo(uint32_t from, uint32_t to) {
    return kernelLaunch("add_one", AddOneKernel, 1, {from, to}, {});
  }
  static Launch isBelowSize(uint32_t buffer, Size size) {
    return kernelLaunch("is_below", IsBelowKernel, 1, {buffer, Flag}, {size});
  }
  /// `count` with these launches; then the variable gets what lies in a buffer.
  static Model countWith(std::vector<Launch> launches, uint32_t result) {
    Model m = cudaFixtureModel();
    for (const char *symbol : {"put", "add_one", "is_below", "keep"})
      m.cudaKernels.push_back({symbol, 32, 0, {{80, 8, 0, 0}, {90, 8, 0, 0}}});
    Function &count = m.functions[Count + InBlob];
    count.launches = 1;
    CudaFunction &cuda = count.cuda[0];
    for (uint64_t bytes : {8, 8, 1, 8})
      cuda.buffers.push_back({DL_BUFFER_ARENA, 0, static_cast<int64_t>(bytes), 0, 0});
    launches.push_back(kernelLaunch("keep", KeepKernel, 1, {result, Variable}, {}, true));
    cuda.launches = launches;
    return m;
  }
  static std::vector<int64_t> labels(size_t n) { return std::vector<int64_t>(n, 1); }
};

TEST_F(CudaControl, LoopsAreUnrolled) {
  Linked linked(countWith({putInto(Here, 10),
                           loopLaunch(1, {DL_CUDA_NO_BUFFER, DL_CUDA_NO_BUFFER, Here, There}),
                           addOneTo(Here, There)},
                          Here),
                fixtureEntries());
  ModelPtr model = linked.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA);
  // Odd numbers of turns leave what is carried in the other place, and the next call begins anew.
  for (size_t n : {3, 0, 4, 3, 1, 3}) {
    fake_cuda before = *fake();
    EXPECT_OK(countOn(gpu.get(), labels(n)));
    EXPECT_EQ(counted(gpu.get()), static_cast<int64_t>(10 + n));
    EXPECT_EQ(fake()->graph_launches - before.graph_launches, 1u);
  }
  // More launches than a graph takes.
  uint64_t graphs = fake()->graph_launches;
  for (int i = 0; i < 2; ++i) {
    EXPECT_OK(countOn(gpu.get(), labels(20001)));
    EXPECT_EQ(counted(gpu.get()), 20011);
  }
  EXPECT_EQ(fake()->graph_launches, graphs);
}

TEST_F(CudaControl, LoopsLieInLoops) {
  Linked linked(countWith({putInto(Here, 0), loopLaunch(4, {DL_CUDA_NO_BUFFER, DL_CUDA_NO_BUFFER}),
                           addOneTo(Here, Here),
                           loopLaunch(2, {DL_CUDA_NO_BUFFER, DL_CUDA_NO_BUFFER}),
                           addOneTo(Here, Here), addOneTo(Here, Here)},
                          Here),
                fixtureEntries());
  ModelPtr model = linked.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA);
  for (int64_t n : {5, 1, 0}) {
    EXPECT_OK(countOn(gpu.get(), labels(n)));
    EXPECT_EQ(counted(gpu.get()), n * (1 + 2 * n));
  }
}

TEST_F(CudaControl, WhatIsComputedDecides) {
  // while here < n + 2 { here += 1 }
  Launch loop = loopLaunch(2, {DL_CUDA_NO_BUFFER, Flag});
  loop.grid = {0};
  Linked endless(countWith({putInto(Here, 0), isBelowSize(Here, Size::dim(0) + 2), loop,
                            addOneTo(Here, Here), isBelowSize(Here, Size::dim(0) + 2)},
                           Here),
                 fixtureEntries());
  ModelPtr model = endless.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA);
  uint64_t graphs = fake()->graph_launches;
  for (int64_t n : {5, 0, 7}) {
    EXPECT_OK(countOn(gpu.get(), labels(n)));
    EXPECT_EQ(counted(gpu.get()), n + 2);
  }
  EXPECT_EQ(fake()->graph_launches, graphs);
}

TEST_F(CudaControl, WhatIsComputedIsTheLimit) {
  // At most 3 turns.
  Linked limited(countWith({putInto(Here, 0), putInto(Limit, 3),
                            loopLaunch(1, {Limit, DL_CUDA_NO_BUFFER}), addOneTo(Here, Here)},
                           Here),
                 fixtureEntries());
  ModelPtr model = limited.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA);
  for (int64_t n : {2, 3, 9}) {
    EXPECT_OK(countOn(gpu.get(), labels(n)));
    EXPECT_EQ(counted(gpu.get()), std::min<int64_t>(n, 3));
  }
}

TEST_F(CudaControl, WhatIsComputedChooses) {
  // if n < 4 { 7 } else { 8, 9 }
  Linked chosen(countWith({putInto(Here, Size::dim(0)), isBelowSize(Here, 4),
                           branchLaunch(1, 2, {Flag}), putInto(There, 7), putInto(There, 8),
                           putInto(There, 9)},
                          There),
                fixtureEntries());
  ModelPtr model = chosen.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA);
  for (int64_t n : {3, 4}) {
    EXPECT_OK(countOn(gpu.get(), labels(n)));
    EXPECT_EQ(counted(gpu.get()), n < 4 ? 7 : 9);
  }
}

TEST_F(CudaControl, AFaultEndsALoopWithoutEnd) {
  // The labels are checked in each turn; the flag stays true.
  Launch loop = loopLaunch(2, {DL_CUDA_NO_BUFFER, Flag});
  loop.grid = {0};
  Launch check = kernelLaunch("count", 7, 1, {Labels, Variable}, {Size::dim(0)}, true);
  Linked linked(countWith({putInto(Here, 0), isBelowSize(Here, 1 << 20), loop, check,
                           addOneTo(Here, Here)},
                          Here),
                fixtureEntries());
  ModelPtr model = linked.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA);
  EXPECT_OK(countOn(gpu.get(), {1, 99})); // does not wait for its end
  EXPECT_FAILS_WITH(dlrt_instance_synchronize(gpu.get()), DLRT_FAULT, "99");
  EXPECT_EQ(counted(gpu.get()), 0);
}

TEST_F(CudaControl, ProfileTimesEachTurn) {
  Linked linked(countWith({putInto(Here, 10),
                           loopLaunch(1, {DL_CUDA_NO_BUFFER, DL_CUDA_NO_BUFFER, Here, There}),
                           addOneTo(Here, There)},
                          Here),
                fixtureEntries());
  ModelPtr model = linked.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA);
  std::vector<uint32_t> seen;
  dlrt_instance_set_profile(
      gpu.get(),
      [](void *user, uint32_t, uint32_t launch, int64_t, int64_t ns) {
        if (ns >= 0)
          static_cast<std::vector<uint32_t> *>(user)->push_back(launch);
      },
      &seen);
  EXPECT_OK(countOn(gpu.get(), labels(3)));
  EXPECT_EQ(seen, (std::vector<uint32_t>{0, 2, 2, 2, 3}));
  EXPECT_EQ(counted(gpu.get()), 13);
}

// ---- information ----

TEST_F(Cuda, ModelsSayWhatTheyHold) {
  ModelPtr model = fixture.attach();
  dlrt_model_info info;
  dlrt_model_get_info(model.get(), &info);
  EXPECT_STREQ(info.targets, "cpu,cuda");
  EXPECT_EQ(info.image_count, 4u);
  EXPECT_EQ(info.gpu_kernel_count, 8u);
  dlrt_image_info image;
  ASSERT_OK(dlrt_model_get_image(model.get(), 1, &image));
  EXPECT_EQ(image.arch, 90u);
  EXPECT_EQ(image.is_ptx, 0);
  EXPECT_EQ(image.bytes, cubinImage(90).size());
  EXPECT_FAILS(dlrt_model_get_image(model.get(), 4, &image), DLRT_NOT_FOUND,
               "no image 4: model 'Fixture' has 4");
  dlrt_gpu_kernel_info kernel;
  ASSERT_OK(dlrt_model_get_gpu_kernel(model.get(), 3, &kernel));
  EXPECT_STREQ(kernel.symbol, "step_gradient");
  EXPECT_EQ(kernel.threads, 128u);
  EXPECT_EQ(kernel.shared_bytes, 64u << 10);
  ASSERT_EQ(kernel.resource_count, 2u);
  EXPECT_EQ(kernel.resources[1].registers, 24u);
  EXPECT_FAILS(dlrt_model_get_gpu_kernel(model.get(), 8, &kernel), DLRT_NOT_FOUND,
               "no GPU kernel 8: model 'Fixture' has 8");
  dlrt_function_info function;
  ASSERT_OK(dlrt_model_get_function(model.get(), Step, &function));
  EXPECT_EQ(function.launch_count, 4u);
  dlrt_launch_info launch;
  ASSERT_OK(dlrt_function_get_launch(model.get(), Step, 1, &launch));
  EXPECT_STREQ(launch.name, "gradient");
  EXPECT_STREQ(launch.location, "fixture.dl:8:3");
  EXPECT_EQ(launch.kernel, UINT32_MAX);
  EXPECT_EQ(launch.when, 1u);
  EXPECT_FAILS(dlrt_function_get_launch(model.get(), Slow, 0, &launch), DLRT_NOT_FOUND,
               "no launch 0: function 'slow' has 0");
}

// ---- products ----

#ifndef CUDA_TESTS_WITHOUT_BLAS

/// d = op(a) op(b), by rows.
std::vector<float> multiply(const std::vector<float> &a, const std::vector<float> &b, int64_t m,
                            int64_t n, int64_t k, bool ta, bool tb) {
  std::vector<float> d(m * n);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j)
      for (int64_t l = 0; l < k; ++l)
        d[i * n + j] += a[ta ? l * m + i : i * k + l] * b[tb ? j * k + l : l * n + j];
  return d;
}

struct ProductModel {
  Model m;
  Function f;
  Gemm gemm;
  /// f(a, b) = the product; buffers 0 and 1 are the arguments, 2 is the result. More may be added.
  ProductModel(int64_t rows, int64_t columns, int64_t terms, bool ta, bool tb, int64_t batch = 1)
      : gemm{.transposeA = ta,
             .transposeB = tb,
             .m = rows,
             .n = columns,
             .k = terms,
             .batch = batch,
             .a = 0,
             .b = 1,
             .d = 2,
             .strideA = rows * terms,
             .strideB = terms * columns,
             .strideD = rows * columns} {
    m.hasCuda = true;
    f.name = "f";
    f.flags = DL_FUNCTION_CONST;
    f.arguments = {{"a", DL_F32, {batch, rows * terms}}, {"b", DL_F32, {batch, terms * columns}}};
    f.results = {{"d", DL_F32, {batch, rows * columns}}};
    f.buffers = {{DL_BUFFER_ARGUMENT, 0, batch * rows * terms * 4},
                 {DL_BUFFER_ARGUMENT, 1, batch * terms * columns * 4},
                 {DL_BUFFER_RESULT, 0, batch * rows * columns * 4}};
    f.launches = 1;
    f.cuda = {{}};
    f.cuda[0].launches = {{.name = "product", .location = "p.dl:1", .kind = DL_CUDA_LAUNCH_GEMM}};
  }
  Model finish() {
    f.cuda[0].buffers = f.buffers;
    f.cuda[0].gemms = {gemm};
    m.functions = {f};
    return m;
  }
};

void nothing(const dl_frame *) {}

TEST_F(Cuda, ProductsByRows) {
  for (int64_t batch : {1, 3})
    for (bool ta : {false, true})
      for (bool tb : {false, true}) {
        const int64_t m = 5, n = 3, k = 4;
        Linked linked(ProductModel(m, n, k, ta, tb, batch).finish(), {nothing});
        ModelPtr model = linked.attach();
        InstancePtr gpu = make(model, DLRT_DEVICE_CUDA);
        std::vector<float> a = numbers(batch * m * k), b = numbers(batch * k * n, 1),
                           d(batch * m * n), expected;
        for (int64_t i = 0; i < batch; ++i) {
          std::vector<float> one =
              multiply({a.begin() + i * m * k, a.begin() + (i + 1) * m * k},
                       {b.begin() + i * k * n, b.begin() + (i + 1) * k * n}, m, n, k, ta, tb);
          expected.insert(expected.end(), one.begin(), one.end());
        }
        dlrt_tensor arguments[] = {tensor(a, {batch, m * k}), tensor(b, {batch, k * n})},
                    result = room(d);
        EXPECT_OK(dlrt_call(gpu.get(), 0, arguments, 2, &result, 1));
        EXPECT_EQ(d, expected) << ta << tb;
      }
}

/// Runs a product whose bias is a variable.
std::vector<float> runProduct(ProductModel p, const std::vector<float> &a,
                              const std::vector<float> &b, std::vector<float> &bias) {
  p.m.variables = {{"bias", DL_F32, {static_cast<int64_t>(bias.size())}}};
  p.f.flags = 0;
  p.f.buffers.push_back({DL_BUFFER_VARIABLE, 0, static_cast<int64_t>(bias.size() * 4)});
  p.gemm.bias = p.f.buffers.size() - 1;
  Linked linked(p.finish(), {nothing});
  ModelPtr model = linked.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA);
  EXPECT_OK(dlrt_variable_write(gpu.get(), 0, bias.data(), bias.size() * 4));
  std::vector<float> x = a, y = b, d(5 * 3);
  dlrt_tensor arguments[] = {tensor(x, {1, 20}), tensor(y, {1, 12})}, result = room(d);
  EXPECT_OK(dlrt_call(gpu.get(), 0, arguments, 2, &result, 1));
  EXPECT_OK(dlrt_variable_read(gpu.get(), 0, bias.data(), bias.size() * 4));
  return d;
}

TEST_F(Cuda, EpiloguesByRows) {
  const std::vector<float> a = numbers(20), b = numbers(12, 3),
                           product = multiply(a, b, 5, 3, 4, false, false);
  std::vector<float> bias = {0.5, -1, 0.25}, expected = product;
  ProductModel p(5, 3, 4, false, false);
  p.gemm.epilogue = DL_CUDA_EPILOGUE_BIAS;
  for (int i = 0; i < 15; ++i)
    expected[i] += bias[i % 3];
  EXPECT_EQ(runProduct(p, a, b, bias), expected);

  // Relu, and a mask that lies in the arena.
  p.gemm.epilogue = DL_CUDA_EPILOGUE_RELU_AUX_BIAS;
  p.f.buffers.push_back({DL_BUFFER_ARENA, 0, 5 * 128 / 8});
  p.gemm.aux = 3;
  p.gemm.auxLd = 128;
  for (float &x : expected)
    x = x > 0 ? x : 0;
  EXPECT_EQ(runProduct(p, a, b, bias), expected);

  // The gradients of a bias: sums over rows of what goes in.
  ProductModel g(5, 3, 4, false, false);
  g.gemm.epilogue = DL_CUDA_EPILOGUE_BGRADB;
  std::vector<float> sums(3), of_b(3);
  for (int l = 0; l < 4; ++l)
    for (int j = 0; j < 3; ++j)
      of_b[j] += b[l * 3 + j];
  EXPECT_EQ(runProduct(g, a, b, sums), product);
  EXPECT_EQ(sums, of_b);
  g.gemm.epilogue = DL_CUDA_EPILOGUE_BGRADA;
  std::vector<float> rows(5), of_a(5);
  for (int i = 0; i < 5; ++i)
    for (int l = 0; l < 4; ++l)
      of_a[i] += a[i * 4 + l];
  EXPECT_EQ(runProduct(g, a, b, rows), product);
  EXPECT_EQ(rows, of_a);
}

// A forward product leaves relu's mask, a backward one uses it and sums over rows.
TEST_F(Cuda, MasksGoFromProductToProduct) {
  ProductModel p(5, 3, 4, false, false);
  p.gemm.epilogue = DL_CUDA_EPILOGUE_RELU_AUX;
  p.gemm.aux = 3;
  p.gemm.auxLd = 128;
  p.m.variables = {{"bias", DL_F32, {3}}};
  p.f.flags = 0;
  p.f.launches = 2;
  p.f.results.push_back({"e", DL_F32, {1, 15}});
  p.f.buffers.push_back({DL_BUFFER_ARENA, 0, 5 * 128 / 8, 0, 1});
  p.f.buffers.push_back({DL_BUFFER_RESULT, 1, 60, 1, 1});
  p.f.buffers.push_back({DL_BUFFER_VARIABLE, 0, 12});
  Model m = p.finish();
  Gemm back = p.gemm;
  back.epilogue = DL_CUDA_EPILOGUE_DRELU_BGRAD;
  back.d = 4;
  back.bias = 5;
  m.functions[0].cuda[0].gemms.push_back(back);
  m.functions[0].cuda[0].launches.push_back(
      {.name = "back", .location = "", .kind = DL_CUDA_LAUNCH_GEMM, .index = 1});
  Linked linked(m, {nothing});
  ModelPtr model = linked.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA);
  std::vector<float> a = numbers(20), b = numbers(12, 3), d(15), e(15), sums(3), expected(3);
  dlrt_tensor arguments[] = {tensor(a, {1, 20}), tensor(b, {1, 12})},
              results[] = {room(d), room(e)};
  EXPECT_OK(dlrt_call(gpu.get(), 0, arguments, 2, results, 2));
  EXPECT_EQ(d, e); // the same product under the same mask
  EXPECT_NE(d, multiply(a, b, 5, 3, 4, false, false));
  for (int i = 0; i < 15; ++i)
    expected[i % 3] += e[i];
  EXPECT_OK(dlrt_variable_read(gpu.get(), 0, sums.data(), 12));
  EXPECT_EQ(sums, expected);
}

// An update as the product itself: w = beta w + alpha x' e, in place, scalars on the device.
TEST_F(Cuda, ProductsUpdateInPlace) {
  ProductModel p(5, 3, 4, true, false);
  p.m.variables = {{"w", DL_F32, {5, 3}}, {"alpha", DL_F32, {}}, {"beta", DL_F32, {}}};
  p.f.flags = 0;
  p.f.results = {};
  p.f.buffers[2] = {DL_BUFFER_VARIABLE, 0, 60};
  p.f.buffers.push_back({DL_BUFFER_VARIABLE, 1, 4});
  p.f.buffers.push_back({DL_BUFFER_VARIABLE, 2, 4});
  p.gemm.c = 2;
  p.gemm.strideC = 15;
  p.gemm.alpha = 3;
  p.gemm.beta = 4;
  Linked linked(p.finish(), {nothing});
  ModelPtr model = linked.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA);
  std::vector<float> x = numbers(20), e = numbers(12, 2), w = numbers(15, 4), expected = w, got(15);
  float alpha = -0.5f, beta = 1;
  EXPECT_OK(dlrt_variable_write(gpu.get(), 0, w.data(), 60));
  EXPECT_OK(dlrt_variable_write(gpu.get(), 1, &alpha, 4));
  EXPECT_OK(dlrt_variable_write(gpu.get(), 2, &beta, 4));
  dlrt_tensor arguments[] = {tensor(x, {1, 20}), tensor(e, {1, 12})};
  std::vector<float> product = multiply(x, e, 5, 3, 4, true, false);
  for (int step = 0; step < 2; ++step) {
    EXPECT_OK(dlrt_call(gpu.get(), 0, arguments, 2, nullptr, 0));
    for (int i = 0; i < 15; ++i)
      expected[i] = product[i] * alpha + expected[i];
    // A new learning rate needs no new graph.
    EXPECT_OK(dlrt_variable_read(gpu.get(), 0, got.data(), 60));
    EXPECT_EQ(got, expected);
    alpha = 0.25f;
    EXPECT_OK(dlrt_variable_write(gpu.get(), 1, &alpha, 4));
  }
  EXPECT_EQ(fake()->graph_instantiations, 2u);
}

TEST_F(Cuda, ProductsWithoutAnAlgorithm) {
  // Kernels take over where there are some …
  ModelPtr model = fixture.attach();
  fake()->blas_has_no_algorithm = 1;
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA), cpu = make(model, DLRT_DEVICE_CPU);
  EXPECT_EQ(trainStep(gpu.get(), 4), trainStep(cpu.get(), 4));
  EXPECT_EQ(fake()->products, 0u);
  // … else it is an error.
  Linked linked(ProductModel(5, 3, 4, false, false).finish(), {nothing});
  ModelPtr other = linked.attach();
  InstancePtr alone = make(other, DLRT_DEVICE_CUDA);
  std::vector<float> a = numbers(20), b = numbers(12), d(15);
  dlrt_tensor arguments[] = {tensor(a, {1, 20}), tensor(b, {1, 12})}, result = room(d);
  EXPECT_FAILS(dlrt_call(alone.get(), 0, arguments, 2, &result, 1), DLRT_DEVICE,
               "cuBLASLt has no algorithm for product 'product (p.dl:1)' of 'f' on cuda:0 for "
               "these arguments");
}

TEST_F(Cuda, ProductsLargerThanTheirBuffers) {
  for (int wrong = 0; wrong < 4; ++wrong) {
    ProductModel p(5, 3, 4, false, false);
    if (wrong == 0)
      p.gemm.m = 6;
    else if (wrong == 1)
      p.gemm.batch = 2;
    else if (wrong == 2)
      p.gemm.k = 5;
    else
      p.gemm.k = Size(int64_t(1) << 62);
    Linked linked(p.finish(), {nothing});
    ModelPtr model = linked.attach();
    InstancePtr gpu = make(model, DLRT_DEVICE_CUDA);
    std::vector<float> a = numbers(20), b = numbers(12), d(15);
    dlrt_tensor arguments[] = {tensor(a, {1, 20}), tensor(b, {1, 12})}, result = room(d);
    EXPECT_FAILS(dlrt_call(gpu.get(), 0, arguments, 2, &result, 1), DLRT_CORRUPT,
                 "damaged description: product 'product (p.dl:1)' is larger than its buffers");
  }
}

#else

// Without the library the model's own kernels serve, and the device's name says so.
TEST_F(Cuda, WithoutCublasLt) {
  ModelPtr model = fixture.attach();
  InstancePtr gpu = make(model, DLRT_DEVICE_CUDA), cpu = make(model, DLRT_DEVICE_CPU);
  EXPECT_NE(std::string(dlrt_instance_device(gpu.get()))
                .find("cuda:0 (Fake GPU), own products: no cuBLASLt: "),
            std::string::npos)
      << dlrt_instance_device(gpu.get());
  for (int i = 0; i < 3; ++i)
    EXPECT_EQ(trainStep(gpu.get(), 4, i), trainStep(cpu.get(), 4, i));
  Model m = cudaFixtureModel();
  m.functions[Step + InBlob].cuda[0].launches[1].when = DL_CUDA_ALWAYS;
  Linked needy(m, fixtureEntries());
  InstancePtr instance(nullptr, dlrt_instance_release);
  EXPECT_FAILS_WITH(create(needy.attach().get(), DLRT_DEVICE_CUDA, instance), DLRT_DEVICE,
                    ", and 'step' needs it");
}

#endif

} // namespace
