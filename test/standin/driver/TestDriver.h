//===- TestDriver.h - the stand-in's libraries opened by a test -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TEST_STANDIN_DRIVER_TESTDRIVER_H
#define DLC_TEST_STANDIN_DRIVER_TESTDRIVER_H

#include "test/standin/StandIn.h"
#include "test/standin/driver/Cuda.h"
#include <cstdlib>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

namespace standin::test {

using namespace abi;

/// The library's functions, found by their exported names as a program does.
struct Driver {
#define CU_FUNCTION(name, exported, parameters) CUresult(*name) parameters = nullptr;
#include "Functions.def"
  decltype(&standin_counters) counters = nullptr;
  decltype(&standin_reset_counters) resetCounters = nullptr;
  decltype(&standin_kernel) kernel = nullptr;
  decltype(&standin_allocation) allocation = nullptr;
  decltype(&standin_report_count) reportCount = nullptr;
  decltype(&standin_report) report = nullptr;
  decltype(&standin_reset) reset = nullptr;

  Driver() {
    void *library = dlopen(STANDIN_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      fprintf(stderr, "%s\n", dlerror());
      abort();
    }
    auto find = [&](auto &function, const char *name) {
      void *symbol = dlsym(library, name);
      if (!symbol) {
        fprintf(stderr, "no symbol %s\n", name);
        abort();
      }
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(symbol);
    };
#define CU_FUNCTION(name, exported, parameters) find(name, #exported);
#include "Functions.def"
    find(counters, "standin_counters");
    find(resetCounters, "standin_reset_counters");
    find(kernel, "standin_kernel");
    find(allocation, "standin_allocation");
    find(reportCount, "standin_report_count");
    find(report, "standin_report");
    find(reset, "standin_reset");
  }
};

inline Driver &driver() {
  static Driver one;
  return one;
}

#define EXPECT_CU(call) EXPECT_EQ(call, CUDA_SUCCESS)
#define ASSERT_CU(call) ASSERT_EQ(call, CUDA_SUCCESS)

/// What a program could have set for the stand-in.
inline void setStandinEnvironment(std::initializer_list<std::pair<const char *, const char *>> variables) {
  for (const char *name : {"DEVICES", "DRIVER_VERSION", "MULTIPROCESSORS", "MEMORY", "MEMORY_USED", "SEED",
                           "CAPABILITY", "FAIL", "REPORT", "COUNTERS", "ALGORITHMS"})
    unsetenv((std::string("DLC_STANDIN_") + name).c_str());
  for (auto &[name, value] : variables)
    setenv((std::string("DLC_STANDIN_") + name).c_str(), value, 1);
}

/// Kernels for the tests.
inline const char *testPtx() {
  return R"(
.version 7.0
.target sm_70
.address_size 64

.global .align 4 .u32 counter = 41;
.const .align 4 .f32 table[2] = {0f3F800000, 0f40000000};

// out[i] = a[i] + b[i] for i below n
.visible .entry add(.param .u64 p_out, .param .u64 p_a, .param .u64 p_b, .param .u32 p_n)
.maxntid 256, 1, 1
{
  .reg .pred %p<2>;
  .reg .b32 %r<6>;
  .reg .f32 %f<4>;
  .reg .b64 %rd<10>;
  ld.param.u64 %rd1, [p_out];
  ld.param.u64 %rd2, [p_a];
  ld.param.u64 %rd3, [p_b];
  ld.param.u32 %r1, [p_n];
  mov.u32 %r2, %ctaid.x;
  mov.u32 %r3, %ntid.x;
  mov.u32 %r4, %tid.x;
  mad.lo.s32 %r5, %r2, %r3, %r4;
  setp.ge.u32 %p1, %r5, %r1;
  @%p1 bra DONE;
  cvta.to.global.u64 %rd4, %rd1;
  cvta.to.global.u64 %rd5, %rd2;
  cvta.to.global.u64 %rd6, %rd3;
  mul.wide.u32 %rd7, %r5, 4;
  add.s64 %rd8, %rd5, %rd7;
  ld.global.f32 %f1, [%rd8];
  add.s64 %rd8, %rd6, %rd7;
  ld.global.f32 %f2, [%rd8];
  add.f32 %f3, %f1, %f2;
  add.s64 %rd8, %rd4, %rd7;
  st.global.f32 [%rd8], %f3;
DONE:
  ret;
}

// x[i] = x[i] * factor + shift for i below n
.visible .entry affine(.param .u64 p_x, .param .f32 p_factor, .param .f32 p_shift, .param .u32 p_n)
{
  .reg .pred %p<2>;
  .reg .b32 %r<6>;
  .reg .f32 %f<5>;
  .reg .b64 %rd<5>;
  ld.param.u64 %rd1, [p_x];
  ld.param.f32 %f1, [p_factor];
  ld.param.f32 %f2, [p_shift];
  ld.param.u32 %r1, [p_n];
  mov.u32 %r2, %ctaid.x;
  mov.u32 %r3, %ntid.x;
  mov.u32 %r4, %tid.x;
  mad.lo.s32 %r5, %r2, %r3, %r4;
  setp.ge.u32 %p1, %r5, %r1;
  @%p1 bra DONE;
  cvta.to.global.u64 %rd2, %rd1;
  mul.wide.u32 %rd3, %r5, 4;
  add.s64 %rd4, %rd2, %rd3;
  ld.global.f32 %f3, [%rd4];
  fma.rn.f32 %f4, %f3, %f1, %f2;
  st.global.f32 [%rd4], %f4;
DONE:
  ret;
}

.visible .entry stop()
{
  trap;
}

.extern .shared .align 4 .b8 dynamic[];

// Each thread writes its number to shared memory, and the block's first one writes the last to out.
.visible .entry share(.param .u64 p_out)
.reqntid 64, 1, 1
{
  .shared .align 4 .b8 fixed[256];
  .reg .pred %p<2>;
  .reg .b32 %r<6>;
  .reg .b64 %rd<6>;
  ld.param.u64 %rd1, [p_out];
  cvta.to.global.u64 %rd2, %rd1;
  mov.u32 %r1, %tid.x;
  mov.u64 %rd3, dynamic;
  mul.wide.u32 %rd4, %r1, 4;
  add.s64 %rd5, %rd3, %rd4;
  st.shared.u32 [%rd5], %r1;
  mov.u64 %rd3, fixed;
  add.s64 %rd5, %rd3, %rd4;
  st.shared.u32 [%rd5], %r1;
  bar.sync 0;
  setp.ne.u32 %p1, %r1, 0;
  @%p1 bra DONE;
  ld.shared.u32 %r2, [dynamic+252];
  st.global.u32 [%rd2], %r2;
DONE:
  ret;
}
)";
}

/// A current context and the module of testPtx(); at the end everything is given back, and the test
/// has had no report that it did not expect.
class DriverTest : public ::testing::Test {
protected:
  Driver &cu = driver();
  CUcontext context = nullptr;
  CUmodule module = nullptr;
  CUstream stream = nullptr;
  size_t seen = 0;            ///< reports that were expected
  bool contextIsLost = false; ///< a sticky error is expected at the end

  void begin(std::initializer_list<std::pair<const char *, const char *>> variables) {
    setStandinEnvironment(variables);
    cu.reset();
    seen = 0;
    ASSERT_CU(cu.cuInit(0));
    ASSERT_CU(cu.cuDevicePrimaryCtxRetain(&context, 0));
    ASSERT_CU(cu.cuCtxSetCurrent(context));
    ASSERT_CU(cu.cuModuleLoadData(&module, testPtx()));
    ASSERT_CU(cu.cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  }
  void SetUp() override { begin({}); }
  /// Once more with other settings.
  void restart(std::initializer_list<std::pair<const char *, const char *>> variables) {
    cu.cuStreamDestroy(stream);
    cu.cuModuleUnload(module);
    cu.cuDevicePrimaryCtxRelease(0);
    cu.cuCtxSetCurrent(nullptr);
    expectNoReports();
    begin(variables);
  }
  void TearDown() override {
    if (context) {
      CUresult usual = contextIsLost ? cu.cuCtxSynchronize() : CUDA_SUCCESS;
      EXPECT_EQ(cu.cuStreamDestroy(stream), usual);
      EXPECT_EQ(cu.cuModuleUnload(module), usual);
      EXPECT_CU(cu.cuDevicePrimaryCtxRelease(0));
      EXPECT_CU(cu.cuCtxSetCurrent(nullptr));
    }
    expectNoReports();
    setStandinEnvironment({});
    EXPECT_EQ(cu.reset(), 0u);
  }
  void expectNoReports() {
    for (size_t i = seen; i < cu.reportCount(); ++i)
      ADD_FAILURE() << "not expected: " << cu.report(i);
    seen = cu.reportCount();
  }
  /// The next report is of this kind, and its line holds the text.
  void expectReport(const std::string &kind, const std::string &text) {
    ASSERT_GT(cu.reportCount(), seen) << "expected a report of " << kind;
    std::string line = cu.report(seen++);
    EXPECT_NE(line.find("\"kind\":\"" + kind + "\""), std::string::npos) << line;
    EXPECT_NE(line.find(text), std::string::npos) << line;
  }
  CUfunction function(const char *name) {
    CUfunction found = nullptr;
    EXPECT_CU(cu.cuModuleGetFunction(&found, module, name));
    return found;
  }
  CUdeviceptr allocate(size_t bytes) {
    CUdeviceptr address = 0;
    EXPECT_CU(cu.cuMemAlloc(&address, bytes));
    return address;
  }
  /// Device memory with these values.
  CUdeviceptr upload(const std::vector<float> &values) {
    CUdeviceptr address = allocate(values.size() * 4);
    EXPECT_CU(cu.cuMemcpyHtoD(address, values.data(), values.size() * 4));
    return address;
  }
  std::vector<float> download(CUdeviceptr address, size_t count) {
    std::vector<float> values(count);
    EXPECT_CU(cu.cuMemcpyDtoH(values.data(), address, count * 4));
    return values;
  }
  float *pinned(size_t count, float value) {
    void *memory = nullptr;
    EXPECT_CU(cu.cuMemHostAlloc(&memory, count * 4, 0));
    std::fill_n(static_cast<float *>(memory), count, value);
    return static_cast<float *>(memory);
  }
  CUresult affine(CUdeviceptr x, float factor, float shift, unsigned count, CUstream on) {
    void *parameters[] = {&x, &factor, &shift, &count};
    return cu.cuLaunchKernel(function("affine"), (count + 63) / 64, 1, 1, 64, 1, 1, 0, on, parameters, nullptr);
  }
  standin_counts counts() {
    standin_counts now;
    cu.counters(&now);
    return now;
  }
};

} // namespace standin::test

#endif // DLC_TEST_STANDIN_DRIVER_TESTDRIVER_H
