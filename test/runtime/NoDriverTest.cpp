//===- NoDriverTest.cpp - models with a GPU program where there is no GPU -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
#include "Common.h"
#include "CudaFixture.h"

#include <dlfcn.h>

using namespace dlc::test;

namespace {

TEST(NoDriver, TheProcessorServes) {
  if (dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL))
    GTEST_SKIP() << "this machine has a driver";
  Model m = cudaFixtureModel();
  m.functions.pop_back(); // its code is in another test
  std::vector<uint8_t> bytes = m.build();
  void *memory = aligned_alloc(64, (bytes.size() + 63) / 64 * 64);
  memcpy(memory, bytes.data(), bytes.size());
  dl_model linked = {DL_ABI_VERSION,  sizeof linked, static_cast<const dl_blob *>(memory),
                     fixture_entries, nullptr,       &dlrt_cuda_half, fixture_preparations};
  dlrt_model *model = nullptr;
  ASSERT_OK(dlrt_model_attach(&linked, &model));
  const std::string words = "no driver: libcuda.so.1: cannot open shared object file";
  dlrt_options options = {sizeof options, 1, 0, 0, DLRT_DEVICE_CUDA, 0};
  dlrt_instance *instance = nullptr;
  EXPECT_FAILS_WITH(dlrt_instance_create(model, &options, &instance), DLRT_DEVICE, words);
  EXPECT_EQ(instance, nullptr);
  // Callers from before there were devices leave the choice to the runtime.
  options.size = offsetof(dlrt_options, device);
  ASSERT_OK(dlrt_instance_create(model, &options, &instance));
  EXPECT_EQ(std::string(dlrt_instance_device(instance)).find("cpu: " + words), 0u)
      << dlrt_instance_device(instance);
  EXPECT_GT(trainStep(instance, 4), 0);
  EXPECT_OK(dlrt_instance_synchronize(instance));
  dlrt_instance_release(instance);
  dlrt_model_release(model);
  free(memory);
}

TEST(NoDriver, ModelsFromFiles) {
  dlrt_model *model = nullptr;
  ASSERT_OK(dlrt_model_open(FIXTURE_LIBRARY, &model));
  dlrt_options options = {sizeof options, 1, 0, 0, DLRT_DEVICE_CUDA, 0};
  dlrt_instance *instance = nullptr;
  EXPECT_FAILS(dlrt_instance_create(model, &options, &instance), DLRT_DEVICE,
               "model 'Fixture' has no program for a GPU");
  ASSERT_OK(dlrt_instance_create(model, nullptr, &instance));
  EXPECT_STREQ(dlrt_instance_device(instance), "cpu: model 'Fixture' has no program for a GPU");
  dlrt_instance_release(instance);
  dlrt_model_release(model);
}

} // namespace
