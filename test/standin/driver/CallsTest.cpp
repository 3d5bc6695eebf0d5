//===- CallsTest.cpp - devices, contexts, modules, launches and memory of the stand-in -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "TestDriver.h"
#include <cstring>
#include <fstream>
#include <sstream>

using namespace standin::test;

//===--- Without a context ------------------------------------------------------===//

class Bare : public ::testing::Test {
protected:
  Driver &cu = driver();
  void begin(std::initializer_list<std::pair<const char *, const char *>> variables) {
    setStandinEnvironment(variables);
    cu.reset();
  }
  void TearDown() override {
    setStandinEnvironment({});
    cu.reset();
  }
};

TEST_F(Bare, NothingWorksBeforeInit) {
  begin({});
  int count = 0, version = 0;
  CUdeviceptr address;
  EXPECT_EQ(cu.cuDeviceGetCount(&count), CUDA_ERROR_NOT_INITIALIZED);
  EXPECT_EQ(cu.cuMemAlloc(&address, 4), CUDA_ERROR_NOT_INITIALIZED);
  EXPECT_CU(cu.cuDriverGetVersion(&version)); // this one may be asked before
  EXPECT_EQ(version, 13000);
  EXPECT_EQ(cu.cuInit(1), CUDA_ERROR_INVALID_VALUE);
  EXPECT_CU(cu.cuInit(0));
  EXPECT_EQ(cu.cuMemAlloc(&address, 4), CUDA_ERROR_INVALID_CONTEXT);
}

TEST_F(Bare, EnvironmentChoosesTheMachine) {
  begin({{"DEVICES", "0"}});
  EXPECT_EQ(cu.cuInit(0), CUDA_ERROR_NO_DEVICE);

  begin({{"DEVICES", "2"},
         {"DRIVER_VERSION", "12020"},
         {"CAPABILITY", "8.6"},
         {"MEMORY", "3M"},
         {"MULTIPROCESSORS", "7"}});
  ASSERT_CU(cu.cuInit(0));
  int count = 0, version = 0, major = 0, minor = 0, value = 0;
  EXPECT_CU(cu.cuDeviceGetCount(&count));
  EXPECT_EQ(count, 2);
  EXPECT_CU(cu.cuDriverGetVersion(&version));
  EXPECT_EQ(version, 12020);
  CUdevice device = -1;
  EXPECT_CU(cu.cuDeviceGet(&device, 1));
  EXPECT_EQ(cu.cuDeviceGet(&device, 2), CUDA_ERROR_INVALID_DEVICE);
  EXPECT_CU(cu.cuDeviceComputeCapability(&major, &minor, 1));
  EXPECT_EQ(major * 10 + minor, 86);
  EXPECT_CU(cu.cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 1));
  EXPECT_EQ(value, 6);
  EXPECT_CU(cu.cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 1));
  EXPECT_EQ(value, 7);
  EXPECT_CU(cu.cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 0));
  EXPECT_EQ(value, 99 << 10);
  EXPECT_EQ(cu.cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_MAX, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cu.cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_WARP_SIZE, 2), CUDA_ERROR_INVALID_DEVICE);
  size_t bytes = 0;
  EXPECT_CU(cu.cuDeviceTotalMem(&bytes, 0));
  EXPECT_EQ(bytes, size_t(3) << 20);
  char name[8];
  EXPECT_CU(cu.cuDeviceGetName(name, sizeof name, 0));
  EXPECT_STREQ(name, "Stand-i");
}

TEST_F(Bare, PrimaryContextIsCounted) {
  begin({{"DEVICES", "2"}});
  ASSERT_CU(cu.cuInit(0));
  CUcontext one = nullptr, two = nullptr, other = nullptr, current = nullptr;
  ASSERT_CU(cu.cuDevicePrimaryCtxRetain(&one, 0));
  ASSERT_CU(cu.cuDevicePrimaryCtxRetain(&two, 0));
  ASSERT_CU(cu.cuDevicePrimaryCtxRetain(&other, 1));
  EXPECT_EQ(one, two);
  EXPECT_NE(one, other);
  EXPECT_CU(cu.cuCtxPushCurrent(one));
  EXPECT_CU(cu.cuCtxPushCurrent(other));
  CUdevice device = -1;
  EXPECT_CU(cu.cuCtxGetDevice(&device));
  EXPECT_EQ(device, 1);
  EXPECT_CU(cu.cuCtxPopCurrent(&current));
  EXPECT_EQ(current, other);
  EXPECT_CU(cu.cuCtxGetDevice(&device));
  EXPECT_EQ(device, 0);
  EXPECT_CU(cu.cuDevicePrimaryCtxRelease(0));
  unsigned flags = 1;
  int active = 0;
  EXPECT_CU(cu.cuDevicePrimaryCtxGetState(0, &flags, &active));
  EXPECT_EQ(active, 1);
  EXPECT_CU(cu.cuDevicePrimaryCtxRelease(0));
  EXPECT_CU(cu.cuDevicePrimaryCtxGetState(0, &flags, &active));
  EXPECT_EQ(active, 0);
  EXPECT_EQ(cu.cuDevicePrimaryCtxRelease(0), CUDA_ERROR_INVALID_CONTEXT);
  // It is still on this thread's stack, and gone.
  CUdeviceptr address;
  EXPECT_EQ(cu.cuMemAlloc(&address, 4), CUDA_ERROR_CONTEXT_IS_DESTROYED);
  EXPECT_EQ(cu.cuCtxSetCurrent(one), CUDA_ERROR_INVALID_CONTEXT);
  ASSERT_EQ(cu.reportCount(), 1u);
  EXPECT_NE(strstr(cu.report(0), "use-after-destroy"), nullptr);
  EXPECT_CU(cu.cuCtxPopCurrent(nullptr));
  EXPECT_EQ(cu.cuCtxPopCurrent(nullptr), CUDA_ERROR_INVALID_CONTEXT);
  EXPECT_CU(cu.cuDevicePrimaryCtxRelease(1));
}

TEST_F(Bare, LeaksAreReported) {
  begin({});
  ASSERT_CU(cu.cuInit(0));
  CUcontext context;
  ASSERT_CU(cu.cuDevicePrimaryCtxRetain(&context, 0));
  ASSERT_CU(cu.cuCtxSetCurrent(context));
  CUdeviceptr address;
  void *host;
  CUstream stream;
  CUevent events[2];
  CUmodule module;
  CUgraph graph;
  CUgraphExec executable;
  char own[64];
  ASSERT_CU(cu.cuMemAlloc(&address, 100));
  ASSERT_CU(cu.cuMemHostAlloc(&host, 200, 0));
  ASSERT_CU(cu.cuMemHostRegister(own, sizeof own, 0));
  ASSERT_CU(cu.cuStreamCreate(&stream, 0));
  ASSERT_CU(cu.cuEventCreate(&events[0], 0));
  ASSERT_CU(cu.cuEventCreate(&events[1], 0));
  ASSERT_CU(cu.cuModuleLoadData(&module, testPtx()));
  ASSERT_CU(cu.cuGraphCreate(&graph, 0));
  ASSERT_CU(cu.cuGraphInstantiate(&executable, graph, 0));
  std::string file = ::testing::TempDir() + "/standin-leaks.jsonl";
  remove(file.c_str());
  EXPECT_CU(cu.cuDevicePrimaryCtxRelease(0));
  std::string all;
  for (size_t i = 0; i < cu.reportCount(); ++i)
    all += cu.report(i) + std::string("\n");
  for (const char *text :
       {"device memory of 100 bytes", "allocation 1", "pinned memory of 200 bytes", "was not unregistered",
        "1 stream was not destroyed", "2 events were not destroyed", "1 module was", "1 executable graph was"})
    EXPECT_NE(all.find(text), std::string::npos) << text << "\n" << all;
  EXPECT_EQ(cu.reportCount(), 7u) << all;
  EXPECT_CU(cu.cuCtxSetCurrent(nullptr));

  // And what is left when the process ends: another context, and the graph, which belongs to none.
  ASSERT_CU(cu.cuDevicePrimaryCtxRetain(&context, 0));
  setenv("DLC_STANDIN_REPORT", file.c_str(), 1);
  EXPECT_EQ(cu.reset(), 2u);
  EXPECT_EQ(cu.reportCount(), 0u);
}

TEST_F(Bare, ProcAddress) {
  begin({});
  void *found = nullptr;
  CUdriverProcAddressQueryResult status;
  EXPECT_CU(cu.cuGetProcAddress("cuMemAlloc", &found, 13000, 0, &status));
  EXPECT_EQ(status, CU_GET_PROC_ADDRESS_SUCCESS);
  EXPECT_EQ(found, reinterpret_cast<void *>(cu.cuMemAlloc));
  EXPECT_CU(cu.cuGetProcAddress("cuNoSuchThing", &found, 13000, 0, &status));
  EXPECT_EQ(status, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
  EXPECT_EQ(found, nullptr);
  EXPECT_EQ(cu.cuGetProcAddress("cuNoSuchThing", &found, 13000, 0, nullptr), CUDA_ERROR_NOT_FOUND);
  EXPECT_CU(cu.cuGetProcAddress("cuMemAlloc", &found, 13010, 0, &status));
  EXPECT_EQ(status, CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT);
}

TEST_F(Bare, ErrorsHaveNames) {
  const char *text = nullptr;
  EXPECT_CU(cu.cuGetErrorName(CUDA_ERROR_OUT_OF_MEMORY, &text));
  EXPECT_STREQ(text, "CUDA_ERROR_OUT_OF_MEMORY");
  EXPECT_CU(cu.cuGetErrorString(CUDA_ERROR_OUT_OF_MEMORY, &text));
  EXPECT_STREQ(text, "out of memory");
  EXPECT_EQ(cu.cuGetErrorString(CUresult(12345), &text), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(text, nullptr);
}

//===--- Modules ------------------------------------------------------------------===//

class Modules : public DriverTest {};

TEST_F(Modules, CubinsAreRefused) {
  CUmodule other;
  EXPECT_EQ(cu.cuModuleLoadData(&other, "\x7f"
                                        "ELF\2\1\1"),
            CUDA_ERROR_NO_BINARY_FOR_GPU);
  EXPECT_EQ(cu.cuModuleLoadData(&other, "\x50\xed\x55\xba\1\0\x10"), CUDA_ERROR_NO_BINARY_FOR_GPU);
  EXPECT_EQ(cu.cuModuleLoadData(&other, "nothing of the kind"), CUDA_ERROR_INVALID_IMAGE);
  EXPECT_EQ(cu.cuModuleLoadData(&other, nullptr), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(Modules, BadPtxIsExplainedInTheLog) {
  char log[256] = "x", small[8];
  CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void *values[] = {log, reinterpret_cast<void *>(sizeof log)};
  CUmodule other = nullptr;
  const char *bad = ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry k()\n{\n  frobnicate.u32 %r1;\n}\n";
  EXPECT_EQ(cu.cuModuleLoadDataEx(&other, bad, 2, options, values), CUDA_ERROR_INVALID_PTX);
  EXPECT_NE(strstr(log, "frobnicate"), nullptr) << log;
  EXPECT_EQ(reinterpret_cast<size_t>(values[1]), strlen(log));
  values[0] = small;
  values[1] = reinterpret_cast<void *>(sizeof small);
  EXPECT_EQ(cu.cuModuleLoadDataEx(&other, bad, 2, options, values), CUDA_ERROR_INVALID_PTX);
  EXPECT_EQ(strlen(small), 7u);
  options[0] = CUjit_option(99);
  EXPECT_EQ(cu.cuModuleLoadDataEx(&other, testPtx(), 2, options, values), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(Modules, PtxMustFitDeviceAndDriver) {
  CUmodule other = nullptr;
  const char *body = "\n.address_size 64\n.visible .entry k()\n{\n  ret;\n}\n";
  auto load = [&](const char *version, const char *target) {
    std::string ptx = std::string(".version ") + version + "\n.target " + target + body;
    CUresult result = cu.cuModuleLoadData(&other, ptx.c_str());
    if (result == CUDA_SUCCESS)
      EXPECT_CU(cu.cuModuleUnload(other));
    return result;
  };
  EXPECT_CU(load("7.8", "sm_90"));
  EXPECT_CU(load("8.0", "sm_90a"));
  EXPECT_EQ(load("8.6", "sm_100"), CUDA_ERROR_INVALID_PTX);
  EXPECT_EQ(load("8.0", "sm_80a"), CUDA_ERROR_NO_BINARY_FOR_GPU);
  EXPECT_EQ(load("9.1", "sm_90"), CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
  restart({{"DRIVER_VERSION", "12020"}});
  EXPECT_CU(load("8.2", "sm_90"));
  EXPECT_EQ(load("8.3", "sm_90"), CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
}

TEST_F(Modules, FunctionsAndGlobals) {
  CUfunction found = nullptr;
  EXPECT_EQ(cu.cuModuleGetFunction(&found, module, "none"), CUDA_ERROR_NOT_FOUND);
  CUfunction add = function("add");
  EXPECT_EQ(function("add"), add);
  const char *name;
  EXPECT_CU(cu.cuFuncGetName(&name, add));
  EXPECT_STREQ(name, "add");
  size_t offset = 0, bytes = 0;
  EXPECT_CU(cu.cuFuncGetParamInfo(add, 3, &offset, &bytes));
  EXPECT_EQ(offset, 24u);
  EXPECT_EQ(bytes, 4u);
  EXPECT_EQ(cu.cuFuncGetParamInfo(add, 4, &offset, &bytes), CUDA_ERROR_INVALID_VALUE);
  CUmodule owner = nullptr;
  EXPECT_CU(cu.cuFuncGetModule(&owner, add));
  EXPECT_EQ(owner, module);

  auto attribute = [&](CUfunction f, CUfunction_attribute which) {
    int value = -1;
    EXPECT_CU(cu.cuFuncGetAttribute(&value, which, f));
    return value;
  };
  EXPECT_EQ(attribute(add, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK), 256);
  EXPECT_EQ(attribute(add, CU_FUNC_ATTRIBUTE_PTX_VERSION), 70);
  EXPECT_EQ(attribute(add, CU_FUNC_ATTRIBUTE_BINARY_VERSION), 90);
  EXPECT_EQ(attribute(add, CU_FUNC_ATTRIBUTE_NUM_REGS), 32); // 6 + 4 + 2 * 10 words, eights
  EXPECT_EQ(attribute(function("share"), CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES), 256);
  EXPECT_EQ(attribute(function("share"), CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES), (48 << 10) - 256);

  CUdeviceptr address = 0;
  EXPECT_CU(cu.cuModuleGetGlobal(&address, &bytes, module, "counter"));
  EXPECT_EQ(bytes, 4u);
  unsigned value = 0;
  EXPECT_CU(cu.cuMemcpyDtoH(&value, address, 4));
  EXPECT_EQ(value, 41u);
  EXPECT_EQ(cu.cuMemFree(address), CUDA_ERROR_INVALID_VALUE); // it is the module's
  expectReport("bad-free", "");
  EXPECT_CU(cu.cuModuleGetGlobal(&address, nullptr, module, "table"));
  value = 0;
  EXPECT_CU(cu.cuMemcpyDtoH(&value, address + 4, 4));
  EXPECT_EQ(value, 0x40000000u);
  EXPECT_EQ(cu.cuModuleGetGlobal(&address, &bytes, module, "none"), CUDA_ERROR_NOT_FOUND);
}

TEST_F(Modules, UnloadedModulesAreGone) {
  CUmodule other = nullptr;
  ASSERT_CU(cu.cuModuleLoadData(&other, testPtx()));
  CUfunction stop = nullptr;
  ASSERT_CU(cu.cuModuleGetFunction(&stop, other, "stop"));
  ASSERT_CU(cu.cuModuleUnload(other));
  EXPECT_EQ(cu.cuLaunchKernel(stop, 1, 1, 1, 1, 1, 1, 0, stream, nullptr, nullptr), CUDA_ERROR_INVALID_HANDLE);
  expectReport("use-after-destroy", "function");
  EXPECT_EQ(cu.cuModuleUnload(other), CUDA_ERROR_INVALID_HANDLE);
  expectReport("use-after-destroy", "module");
}

TEST_F(Modules, UnloadingUnderQueuedWorkIsReported) {
  CUdeviceptr x = upload({1, 2});
  CUmodule other = nullptr;
  ASSERT_CU(cu.cuModuleLoadData(&other, testPtx()));
  CUfunction affine = nullptr;
  ASSERT_CU(cu.cuModuleGetFunction(&affine, other, "affine"));
  float factor = 3, shift = 1;
  unsigned count = 2;
  void *parameters[] = {&x, &factor, &shift, &count};
  ASSERT_CU(cu.cuLaunchKernel(affine, 1, 1, 1, 32, 1, 1, 0, stream, parameters, nullptr));
  EXPECT_CU(cu.cuModuleUnload(other));
  expectReport("module-in-use", "still queued");
  EXPECT_CU(cu.cuStreamSynchronize(stream));
  EXPECT_EQ(download(x, 2), (std::vector<float>{4, 7}));
  EXPECT_CU(cu.cuMemFree(x));
}

TEST_F(Modules, Libraries) {
  CUlibrary library = nullptr;
  ASSERT_CU(cu.cuLibraryLoadData(&library, testPtx(), nullptr, nullptr, 0, nullptr, nullptr, 0));
  CUkernel kernel = nullptr;
  ASSERT_CU(cu.cuLibraryGetKernel(&kernel, library, "affine"));
  CUfunction affine = nullptr;
  ASSERT_CU(cu.cuKernelGetFunction(&affine, kernel));
  CUdeviceptr x = upload({5}), global = 0;
  EXPECT_CU(cu.cuLibraryGetGlobal(&global, nullptr, library, "counter"));
  float factor = 2, shift = 0;
  unsigned count = 1;
  void *parameters[] = {&x, &factor, &shift, &count};
  EXPECT_CU(cu.cuLaunchKernel(affine, 1, 1, 1, 1, 1, 1, 0, nullptr, parameters, nullptr));
  EXPECT_EQ(download(x, 1), std::vector<float>{10});
  EXPECT_CU(cu.cuMemFree(x));
  EXPECT_CU(cu.cuLibraryUnload(library));
}

//===--- Launches ------------------------------------------------------------------===//

class Launches : public DriverTest {};

TEST_F(Launches, RunAndCount) {
  std::vector<float> a(1000), b(1000), sum(1000);
  for (size_t i = 0; i < a.size(); ++i) {
    a[i] = float(i);
    b[i] = float(3 * i + 1);
    sum[i] = a[i] + b[i];
  }
  CUdeviceptr da = upload(a), db = upload(b), out = allocate(4000);
  cu.resetCounters();
  unsigned count = 1000;
  void *parameters[] = {&out, &da, &db, &count};
  ASSERT_CU(cu.cuLaunchKernel(function("add"), 4, 1, 1, 256, 1, 1, 0, stream, parameters, nullptr));
  ASSERT_CU(cu.cuStreamSynchronize(stream));
  EXPECT_EQ(download(out, 1000), sum);
  standin_counts now = counts();
  EXPECT_EQ(now.kernel_launches, 1u);
  EXPECT_EQ(now.graph_kernel_launches, 0u);
  EXPECT_EQ(now.kernel_bytes_read, 8000u);
  EXPECT_EQ(now.kernel_bytes_written, 4000u);
  EXPECT_EQ(now.device_to_host_copies, 1u);
  EXPECT_EQ(now.device_to_host_bytes, 4000u);
  EXPECT_EQ(now.host_to_device_copies, 0u);
  EXPECT_EQ(now.device_allocations, 0u);
  EXPECT_EQ(now.synchronisations, 2u); // the stream, and the copy out
  standin_kernel_counts kernel;
  ASSERT_TRUE(cu.kernel(0, &kernel));
  EXPECT_STREQ(kernel.name, "add");
  EXPECT_EQ(kernel.launches, 1u);
  EXPECT_EQ(kernel.threads, 1024u);
  EXPECT_FALSE(cu.kernel(1, &kernel));
  standin_allocation_counts allocation;
  for (size_t i = 0; cu.allocation(i, &allocation); ++i) {
    EXPECT_EQ(allocation.bytes, 4000u);
    EXPECT_EQ(allocation.bytes_written, allocation.address == out ? 4000u : 0u);
    EXPECT_EQ(allocation.bytes_read, allocation.address == out ? 0u : 4000u);
  }
  for (CUdeviceptr each : {da, db, out})
    EXPECT_CU(cu.cuMemFree(each));
}

TEST_F(Launches, ParametersInOneBuffer) {
  CUdeviceptr x = upload({1, 2, 3});
  struct {
    CUdeviceptr x;
    float factor, shift;
    unsigned count;
  } packed = {x, 10, 1, 3};
  size_t bytes = 20; // up to the end of the last parameter
  void *extra[] = {reinterpret_cast<void *>(1), &packed, reinterpret_cast<void *>(2), &bytes, nullptr};
  EXPECT_CU(cu.cuLaunchKernel(function("affine"), 1, 1, 1, 3, 1, 1, 0, nullptr, nullptr, extra));
  EXPECT_EQ(download(x, 3), (std::vector<float>{11, 21, 31}));
  bytes = 16;
  EXPECT_EQ(cu.cuLaunchKernel(function("affine"), 1, 1, 1, 3, 1, 1, 0, nullptr, nullptr, extra),
            CUDA_ERROR_INVALID_VALUE);
  void *parameters[] = {&packed.x, &packed.factor, &packed.shift, &packed.count};
  EXPECT_EQ(cu.cuLaunchKernel(function("affine"), 1, 1, 1, 3, 1, 1, 0, nullptr, parameters, extra),
            CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cu.cuLaunchKernel(function("affine"), 1, 1, 1, 3, 1, 1, 0, nullptr, nullptr, nullptr),
            CUDA_ERROR_INVALID_VALUE);
  EXPECT_CU(cu.cuMemFree(x));
}

TEST_F(Launches, ConfigurationsAreChecked) {
  CUdeviceptr x = upload({1});
  unsigned count = 1;
  void *parameters[] = {&x, &x, &x, &count};
  auto launch = [&](unsigned gx, unsigned gy, unsigned bx, unsigned bz, unsigned shared, const char *name = "add") {
    return cu.cuLaunchKernel(function(name), gx, gy, 1, bx, 1, bz, shared, stream, parameters, nullptr);
  };
  EXPECT_EQ(launch(0, 1, 1, 1, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(launch(1, 65536, 1, 1, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(launch(1, 1, 0, 1, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(launch(1, 1, 1, 65, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(launch(1, 1, 257, 1, 0), CUDA_ERROR_INVALID_VALUE);           // .maxntid
  EXPECT_EQ(launch(1, 1, 32, 1, 256, "share"), CUDA_ERROR_INVALID_VALUE); // .reqntid
  EXPECT_EQ(launch(1, 1, 64, 1, 48 << 10, "share"), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cu.cuFuncSetAttribute(function("share"), CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 227 << 10),
            CUDA_ERROR_INVALID_VALUE); // the static 256 bytes count too
  EXPECT_CU(cu.cuFuncSetAttribute(function("share"), CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 48 << 10));
  EXPECT_CU(launch(1, 1, 64, 1, 48 << 10, "share"));
  EXPECT_CU(cu.cuStreamSynchronize(stream));
  unsigned last = 0;
  EXPECT_CU(cu.cuMemcpyDtoH(&last, x, 4));
  EXPECT_EQ(last, 63u);

  CUlaunchAttribute attributes[2] = {};
  attributes[0].id = CU_LAUNCH_ATTRIBUTE_PRIORITY;
  attributes[1].id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
  CUlaunchConfig config = {1, 1, 1, 64, 1, 1, 256, stream, attributes, 1};
  EXPECT_CU(cu.cuLaunchKernelEx(&config, function("share"), parameters, nullptr));
  config.numAttrs = 2;
  EXPECT_CU(cu.cuLaunchKernelEx(&config, function("share"), parameters, nullptr));
  attributes[1].value.cooperative = 1;
  EXPECT_EQ(cu.cuLaunchKernelEx(&config, function("share"), parameters, nullptr), CUDA_ERROR_NOT_SUPPORTED);
  expectReport("not-supported", "launch attribute 2");
  EXPECT_CU(cu.cuStreamSynchronize(stream));
  EXPECT_CU(cu.cuMemFree(x));
}

TEST_F(Launches, FaultsMakeTheContextUnusable) {
  CUdeviceptr x = upload({1, 2, 3, 4});
  CUfunction kernel = function("stop");
  EXPECT_CU(affine(x, 2, 0, 5, stream)); // one past the end
  EXPECT_EQ(cu.cuStreamSynchronize(stream), CUDA_ERROR_ILLEGAL_ADDRESS);
  expectReport("out-of-bounds", "\"kernel\":\"affine\"");
  // From here on everything fails the same way, except to leave.
  float value;
  EXPECT_EQ(cu.cuMemcpyDtoH(&value, x, 4), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(cu.cuMemsetD8Async(x, 0, 4, stream), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(cu.cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, stream, nullptr, nullptr), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(cu.cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(cu.cuMemFree(x), CUDA_ERROR_ILLEGAL_ADDRESS);
  int count = 0;
  EXPECT_CU(cu.cuDeviceGetCount(&count));
  contextIsLost = true;
  TearDown();
  contextIsLost = false;
  SetUp(); // a new primary context works
  x = upload({1});
  EXPECT_CU(affine(x, 2, 1, 1, stream));
  EXPECT_CU(cu.cuStreamSynchronize(stream));
  EXPECT_EQ(download(x, 1), std::vector<float>{3});
  EXPECT_CU(cu.cuMemFree(x));
}

TEST_F(Launches, TrapsAreLaunchFailures) {
  EXPECT_CU(cu.cuLaunchKernel(function("stop"), 1, 1, 1, 1, 1, 1, 0, stream, nullptr, nullptr));
  EXPECT_EQ(cu.cuCtxSynchronize(), CUDA_ERROR_LAUNCH_FAILED);
  expectReport("trap", "\"kernel\":\"stop\"");
  contextIsLost = true;
}

TEST_F(Launches, FreedMemoryIsSeenByQueuedKernels) {
  CUdeviceptr x = upload({1});
  EXPECT_CU(affine(x, 2, 0, 1, stream));
  EXPECT_CU(cu.cuMemFree(x)); // without waiting
  EXPECT_EQ(cu.cuStreamSynchronize(stream), CUDA_ERROR_ILLEGAL_ADDRESS);
  expectReport("use-after-free", "\"kernel\":\"affine\"");
  contextIsLost = true;
}

TEST_F(Launches, Occupancy) {
  int blocks = 0, grid = 0, threads = 0;
  CUfunction share = function("share");
  EXPECT_CU(cu.cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, share, 64, 0));
  EXPECT_EQ(blocks, 32); // as many as a multiprocessor holds
  EXPECT_CU(cu.cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, share, 64, 47 << 10));
  EXPECT_EQ(blocks, 4); // 228 KiB hold four of 47 KiB + 256 bytes + 1 KiB
  EXPECT_CU(cu.cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, share, 65, 0));
  EXPECT_EQ(blocks, 0);
  EXPECT_EQ(cu.cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, share, 0, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_CU(cu.cuOccupancyMaxPotentialBlockSize(&grid, &threads, function("add"), nullptr, 0, 0));
  EXPECT_EQ(threads, 256);
  EXPECT_EQ(grid, 8 * 4); // 2048 threads of each of four multiprocessors
  size_t bytes = 0;
  EXPECT_CU(cu.cuOccupancyAvailableDynamicSMemPerBlock(&bytes, share, 2, 64));
  EXPECT_EQ(bytes, (114u << 10) - 1024 - 256);
}

//===--- Memory ----------------------------------------------------------------------===//

class MemoryCalls : public DriverTest {};

TEST_F(MemoryCalls, RunsOut) {
  restart({{"MEMORY", "64K"}, {"MEMORY_USED", "16K"}});
  size_t available = 0, total = 0;
  CUdeviceptr a = 0, b = 0;
  EXPECT_CU(cu.cuMemGetInfo(&available, &total));
  EXPECT_EQ(total, 64u << 10);
  EXPECT_EQ(available, 48u << 10);
  EXPECT_EQ(cu.cuMemAlloc(&a, (48 << 10) + 1), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(cu.cuMemAlloc(&a, SIZE_MAX), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_CU(cu.cuMemAlloc(&a, 32 << 10));
  EXPECT_EQ(cu.cuMemAlloc(&b, (16 << 10) + 1), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_CU(cu.cuMemAlloc(&b, 16 << 10));
  EXPECT_CU(cu.cuMemGetInfo(&available, &total));
  EXPECT_EQ(available, 0u);
  EXPECT_CU(cu.cuMemFree(a));
  EXPECT_CU(cu.cuMemGetInfo(&available, &total));
  EXPECT_EQ(available, 32u << 10);
  EXPECT_CU(cu.cuMemFree(b));
  EXPECT_EQ(cu.cuMemAlloc(&a, 0), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(MemoryCalls, FreesAreChecked) {
  CUdeviceptr a = allocate(64);
  EXPECT_EQ(cu.cuMemFree(a + 4), CUDA_ERROR_INVALID_VALUE);
  expectReport("bad-free", "");
  EXPECT_CU(cu.cuMemFree(a));
  EXPECT_EQ(cu.cuMemFree(a), CUDA_ERROR_INVALID_VALUE);
  expectReport("double-free", "");
  EXPECT_CU(cu.cuMemFree(0));
  CUdeviceptr b = 0;
  EXPECT_CU(cu.cuMemAllocAsync(&b, 64, stream));
  EXPECT_CU(cu.cuMemsetD8Async(b, 1, 64, stream));
  EXPECT_CU(cu.cuMemFreeAsync(b, stream));
  EXPECT_EQ(cu.cuMemFreeAsync(b, stream), CUDA_ERROR_INVALID_VALUE);
  expectReport("double-free", "queued already");
  EXPECT_CU(cu.cuStreamSynchronize(stream));
  standin_counts now = counts();
  EXPECT_EQ(now.device_allocations, 2u);
  EXPECT_EQ(now.device_frees, 2u);
  EXPECT_EQ(now.memset_bytes, 64u);
}

TEST_F(MemoryCalls, CopiesAreChecked) {
  CUdeviceptr a = allocate(64), b = allocate(64);
  char host[128] = {};
  EXPECT_EQ(cu.cuMemcpyHtoD(a, host, 65), CUDA_ERROR_INVALID_VALUE);
  expectReport("out-of-bounds", "cuMemcpyHtoD");
  EXPECT_EQ(cu.cuMemcpyDtoH(host, a + 60, 5), CUDA_ERROR_INVALID_VALUE);
  expectReport("out-of-bounds", "cuMemcpyDtoH");
  EXPECT_EQ(cu.cuMemcpyHtoD(reinterpret_cast<CUdeviceptr>(host), host, 4), CUDA_ERROR_INVALID_VALUE);
  expectReport("host-pointer", "cuMemcpyHtoD");
  EXPECT_EQ(cu.cuMemcpyHtoD(a, nullptr, 4), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cu.cuMemsetD32(a + 2, 7, 1), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cu.cuMemsetD32(a, 7, 17), CUDA_ERROR_INVALID_VALUE);
  expectReport("out-of-bounds", "cuMemsetD32");
  EXPECT_CU(cu.cuMemcpyHtoD(a, nullptr, 0));

  // Bytes that nothing has written: the copy is done, and told of; and so is one of a copy of them.
  EXPECT_CU(cu.cuMemsetD32(a, 0x01020304, 8));
  EXPECT_CU(cu.cuMemcpyDtoD(b, a, 64));
  EXPECT_CU(cu.cuMemcpyDtoH(host, b, 32));
  EXPECT_EQ(host[0], 4);
  EXPECT_EQ(host[31], 1);
  EXPECT_CU(cu.cuMemcpyDtoH(host, b, 33));
  expectReport("unwritten-global", "copy from device to host");
  EXPECT_CU(cu.cuMemsetD16(b + 32, 9, 16));
  EXPECT_CU(cu.cuMemcpyDtoH(host, b, 64));
  EXPECT_EQ(host[62], 9);
  EXPECT_EQ(host[63], 0);
  EXPECT_CU(cu.cuMemFree(a));
  EXPECT_EQ(cu.cuMemcpyDtoD(b, a, 4), CUDA_ERROR_INVALID_VALUE);
  expectReport("use-after-free", "cuMemcpyDtoD");
  EXPECT_CU(cu.cuMemFree(b));
}

TEST_F(MemoryCalls, Pointers) {
  CUdeviceptr a = allocate(300), base = 0;
  size_t bytes = 0;
  EXPECT_CU(cu.cuMemGetAddressRange(&base, &bytes, a + 299));
  EXPECT_EQ(base, a);
  EXPECT_EQ(bytes, 300u);
  EXPECT_EQ(cu.cuMemGetAddressRange(&base, &bytes, a + 300), CUDA_ERROR_NOT_FOUND);
  unsigned type = 0;
  int ordinal = -1;
  EXPECT_CU(cu.cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, a + 8));
  EXPECT_EQ(type, unsigned(CU_MEMORYTYPE_DEVICE));
  EXPECT_CU(cu.cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, a));
  EXPECT_EQ(ordinal, 0);
  float *host = pinned(4, 0);
  EXPECT_CU(cu.cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, reinterpret_cast<CUdeviceptr>(host + 1)));
  EXPECT_EQ(type, unsigned(CU_MEMORYTYPE_HOST));
  float own = 0;
  EXPECT_EQ(cu.cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, reinterpret_cast<CUdeviceptr>(&own)),
            CUDA_ERROR_INVALID_VALUE);
  CUpointer_attribute attributes[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_RANGE_SIZE};
  void *data[] = {&type, &bytes};
  EXPECT_CU(cu.cuPointerGetAttributes(2, attributes, data, reinterpret_cast<CUdeviceptr>(&own)));
  EXPECT_EQ(type, 0u);
  EXPECT_EQ(bytes, 0u);
  EXPECT_CU(cu.cuMemFree(a));
  EXPECT_EQ(cu.cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, a), CUDA_ERROR_INVALID_VALUE);
  EXPECT_CU(cu.cuMemFreeHost(host));
  EXPECT_EQ(cu.cuMemFreeHost(host), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(MemoryCalls, RegisteredMemory) {
  std::vector<float> own(16, 1);
  EXPECT_EQ(cu.cuMemHostUnregister(own.data()), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
  EXPECT_CU(cu.cuMemHostRegister(own.data(), 64, 0));
  EXPECT_EQ(cu.cuMemHostRegister(own.data() + 8, 8, 0), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
  EXPECT_EQ(cu.cuMemFreeHost(own.data()), CUDA_ERROR_INVALID_VALUE);
  EXPECT_CU(cu.cuMemHostUnregister(own.data()));
}

TEST_F(MemoryCalls, TwoDevicesHaveTwoMemories) {
  cu.cuStreamDestroy(stream);
  cu.cuModuleUnload(module);
  EXPECT_CU(cu.cuDevicePrimaryCtxRelease(0));
  context = nullptr;
  setStandinEnvironment({{"DEVICES", "2"}, {"MEMORY", "4K"}});
  expectNoReports();
  cu.reset();
  seen = 0;
  ASSERT_CU(cu.cuInit(0));
  CUcontext first, second;
  ASSERT_CU(cu.cuDevicePrimaryCtxRetain(&first, 0));
  ASSERT_CU(cu.cuDevicePrimaryCtxRetain(&second, 1));
  ASSERT_CU(cu.cuCtxSetCurrent(first));
  CUdeviceptr a = allocate(4096);
  ASSERT_CU(cu.cuCtxSetCurrent(second));
  CUdeviceptr b = allocate(4096);
  int ordinal = -1;
  EXPECT_CU(cu.cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, a));
  EXPECT_EQ(ordinal, 0);
  EXPECT_CU(cu.cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, b));
  EXPECT_EQ(ordinal, 1);
  // A kernel of the second device does not see the first one's memory.
  CUmodule there;
  ASSERT_CU(cu.cuModuleLoadData(&there, testPtx()));
  CUfunction kernel;
  ASSERT_CU(cu.cuModuleGetFunction(&kernel, there, "affine"));
  float factor = 1, shift = 0;
  unsigned count = 1;
  void *parameters[] = {&a, &factor, &shift, &count};
  EXPECT_CU(cu.cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, nullptr, parameters, nullptr));
  EXPECT_EQ(cu.cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
  expectReport("host-pointer", "affine");
  EXPECT_EQ(cu.cuMemFree(b), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(cu.cuModuleUnload(there), CUDA_ERROR_ILLEGAL_ADDRESS);
  // The first device is as well as before.
  ASSERT_CU(cu.cuCtxSetCurrent(first));
  EXPECT_CU(cu.cuMemsetD8(a, 1, 4096));
  EXPECT_CU(cu.cuCtxSynchronize());
  EXPECT_CU(cu.cuMemFree(a));
  EXPECT_CU(cu.cuDevicePrimaryCtxRelease(0));
  EXPECT_CU(cu.cuDevicePrimaryCtxRelease(1));
  EXPECT_CU(cu.cuCtxSetCurrent(nullptr));
}

//===--- Failures that a test asks for ---------------------------------------------------===//

class Failures : public DriverTest {};

TEST_F(Failures, Allocations) {
  restart({{"FAIL", "alloc:2,hostalloc:1"}});
  CUdeviceptr a = 0, b = 0;
  void *host = nullptr;
  EXPECT_CU(cu.cuMemAlloc(&a, 4));
  EXPECT_EQ(cu.cuMemAlloc(&b, 4), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_CU(cu.cuMemAlloc(&b, 4)); // no more than that
  EXPECT_EQ(cu.cuMemHostAlloc(&host, 4, 0), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_CU(cu.cuMemFree(a));
  EXPECT_CU(cu.cuMemFree(b));
}

TEST_F(Failures, Launches) {
  restart({{"FAIL", "launch:2"}});
  CUdeviceptr x = upload({1});
  EXPECT_CU(affine(x, 2, 0, 1, stream));
  EXPECT_CU(affine(x, 2, 0, 1, stream)); // is only seen later
  EXPECT_EQ(cu.cuStreamSynchronize(stream), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_EQ(cu.cuMemFree(x), CUDA_ERROR_LAUNCH_FAILED);
  contextIsLost = true;
}

TEST_F(Failures, DeviceLost) {
  restart({{"FAIL", "lost:2=46"}});
  EXPECT_CU(cu.cuStreamSynchronize(stream));
  EXPECT_EQ(cu.cuCtxSynchronize(), CUDA_ERROR_DEVICE_UNAVAILABLE);
  EXPECT_EQ(cu.cuStreamQuery(stream), CUDA_ERROR_DEVICE_UNAVAILABLE);
  contextIsLost = true;
}

TEST_F(Failures, AnyCallByName) {
  restart({{"FAIL", "cuEventCreate:1=2,cuMemcpyDtoH:2,module:2"}});
  CUevent event = nullptr;
  EXPECT_EQ(cu.cuEventCreate(&event, 0), CUDA_ERROR_OUT_OF_MEMORY);
  CUdeviceptr x = upload({7});
  float value = 0;
  EXPECT_CU(cu.cuMemcpyDtoH(&value, x, 4));
  EXPECT_EQ(cu.cuMemcpyDtoH(&value, x, 4), CUDA_ERROR_UNKNOWN);
  EXPECT_CU(cu.cuMemcpyDtoH(&value, x, 4));
  CUmodule other;
  EXPECT_EQ(cu.cuModuleLoadData(&other, testPtx()), CUDA_ERROR_INVALID_PTX);
  EXPECT_CU(cu.cuMemFree(x));
}

//===--- A program of its own ---------------------------------------------------------------===//

static std::string contentOf(const std::string &file) {
  std::ifstream in(file);
  std::stringstream all;
  all << in.rdbuf();
  return all.str();
}

static int runProgram(const std::string &arguments, const std::string &environment) {
  std::string command = environment + " " STANDIN_PROGRAM " " STANDIN_LIBRARY " " + arguments + " >/dev/null 2>&1";
  int status = system(command.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Program, OpensTheLibraryAndWritesFiles) {
  std::string report = ::testing::TempDir() + "/standin-program.jsonl",
              counters = ::testing::TempDir() + "/standin-program.json";
  std::string environment = "DLC_STANDIN_REPORT=" + report + " DLC_STANDIN_COUNTERS=" + counters;
  remove(report.c_str());
  EXPECT_EQ(runProgram("", environment), 0);
  EXPECT_EQ(contentOf(report), "");
  std::string written = contentOf(counters);
  for (const char *text : {"\"graph_launches\": 3,", "\"graph_kernel_launches\": 3,", "\"kernel_launches\": 0,",
                           "\"graph_instantiations\": 1,", "\"host_to_device_bytes\": 768,",
                           "\"device_to_host_bytes\": 256,", "\"reports\": 0,",
                           "\"name\": \"twice\", \"launches\": 0, \"graph_launches\": 3, "
                           "\"bytes_read\": 768, \"bytes_written\": 768, \"threads\": 192",
                           "\"bytes\": 256, \"freed\": true, \"bytes_read\": 768, \"bytes_written\": 768"})
    EXPECT_NE(written.find(text), std::string::npos) << text << "\n" << written;

  EXPECT_EQ(runProgram("leak", environment), 0);
  std::string leaks = contentOf(report);
  EXPECT_NE(leaks.find("device memory of 256 bytes"), std::string::npos) << leaks;
  EXPECT_NE(leaks.find("the primary context of device 0 was not released (retained 1 times)"), std::string::npos)
      << leaks;
}

TEST(Program, SettingsThatAreNoneEndIt) {
  EXPECT_EQ(runProgram("", "DLC_STANDIN_FAIL=alloc"), 2);
  EXPECT_EQ(runProgram("", "DLC_STANDIN_MEMORY=many"), 2);
  EXPECT_EQ(runProgram("", "DLC_STANDIN_CAPABILITY=9.x"), 2);
  EXPECT_EQ(runProgram("", "DLC_STANDIN_DEVICES=0"), 3); // its own exit code for "no device"
}
