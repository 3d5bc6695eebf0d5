//===- QueueTest.cpp - streams, events and asynchronous copies of the stand-in -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "TestDriver.h"
#include <atomic>
#include <thread>

using namespace standin::test;

class Queues : public DriverTest {
protected:
  CUevent event(unsigned flags = 0) {
    CUevent created = nullptr;
    EXPECT_CU(cu.cuEventCreate(&created, flags));
    return created;
  }
  CUstream another(unsigned flags = CU_STREAM_NON_BLOCKING) {
    CUstream created = nullptr;
    EXPECT_CU(cu.cuStreamCreate(&created, flags));
    return created;
  }
};

TEST_F(Queues, CopiesOutComeWhenWaitedFor) {
  CUdeviceptr x = upload({5, 6});
  float *host = pinned(2, -1);
  EXPECT_CU(cu.cuMemcpyDtoHAsync(host, x, 8, stream));
  EXPECT_EQ(host[0], -1); // nobody has waited
  EXPECT_CU(cu.cuStreamSynchronize(stream));
  EXPECT_EQ(host[0], 5);
  EXPECT_EQ(host[1], 6);
  EXPECT_CU(cu.cuMemFreeHost(host));
  EXPECT_CU(cu.cuMemFree(x));
}

TEST_F(Queues, PageableMemoryIsTakenAtOnce) {
  CUdeviceptr x = allocate(8);
  float own[2] = {1, 2};
  EXPECT_CU(cu.cuMemcpyHtoDAsync(x, own, 8, stream));
  own[0] = own[1] = 99; // allowed: a driver has its own copy by now
  EXPECT_CU(affine(x, 10, 0, 2, stream));
  float out[2] = {};
  EXPECT_CU(cu.cuMemcpyDtoHAsync(out, x, 8, stream)); // and back it returns when it is done
  EXPECT_EQ(out[0], 10);
  EXPECT_EQ(out[1], 20);
  EXPECT_CU(cu.cuMemFree(x));
}

TEST_F(Queues, PinnedMemoryWrittenTooEarlyIsReported) {
  CUdeviceptr x = allocate(8);
  float *host = pinned(2, 1);
  EXPECT_CU(cu.cuMemcpyHtoDAsync(x, host, 8, stream));
  host[1] = 2;
  EXPECT_CU(cu.cuStreamSynchronize(stream));
  expectReport("host-write-in-flight", "copy from it");
  EXPECT_EQ(download(x, 2), (std::vector<float>{1, 2})); // what a device would have seen late
  EXPECT_CU(cu.cuMemcpyDtoHAsync(host, x, 8, stream));
  host[0] = 7;
  EXPECT_CU(cu.cuStreamSynchronize(stream));
  expectReport("host-write-in-flight", "copy to it");
  // Written after the wait it is fine; and by a copy that comes first.
  host[0] = 8;
  EXPECT_CU(cu.cuMemcpyDtoHAsync(host, x, 8, stream));
  EXPECT_CU(cu.cuMemcpyHtoDAsync(x, host, 8, stream));
  EXPECT_CU(cu.cuStreamSynchronize(stream));
  EXPECT_EQ(download(x, 2), (std::vector<float>{1, 2}));
  EXPECT_CU(cu.cuMemFreeHost(host));
  EXPECT_CU(cu.cuMemFree(x));
}

TEST_F(Queues, PinnedMemoryFreedTooEarlyIsReported) {
  CUdeviceptr x = allocate(8);
  float *host = pinned(2, 4);
  EXPECT_CU(cu.cuMemcpyHtoDAsync(x, host, 8, stream));
  EXPECT_CU(cu.cuMemFreeHost(host));
  expectReport("pinned-in-use", "8 bytes");
  EXPECT_EQ(download(x, 2), (std::vector<float>{4, 4}));
  EXPECT_CU(cu.cuMemFree(x));
}

TEST_F(Queues, EventsOrderStreams) {
  for (const char *seed : {"0", "1", "2", "3", "4", "5", "6", "7"}) {
    restart({{"SEED", seed}});
    CUstream other = another();
    CUdeviceptr x = upload({1, 1, 1});
    CUevent done = event(CU_EVENT_DISABLE_TIMING);
    EXPECT_CU(affine(x, 2, 1, 3, stream)); // 3
    EXPECT_CU(cu.cuEventRecord(done, stream));
    EXPECT_CU(cu.cuStreamWaitEvent(other, done, 0));
    EXPECT_CU(affine(x, 5, 0, 3, other));     // 15
    EXPECT_CU(cu.cuEventRecord(done, other)); // what has been waited for stays what it was
    EXPECT_CU(cu.cuStreamWaitEvent(stream, done, 0));
    EXPECT_CU(affine(x, 1, 4, 3, stream)); // 19
    EXPECT_CU(cu.cuStreamSynchronize(stream));
    EXPECT_EQ(download(x, 3), (std::vector<float>{19, 19, 19})) << "seed " << seed;
    EXPECT_CU(cu.cuEventDestroy(done));
    EXPECT_CU(cu.cuStreamDestroy(other));
    EXPECT_CU(cu.cuMemFree(x));
  }
}

TEST_F(Queues, AForgottenEventIsSeenWithSomeSeed) {
  unsigned wrong = 0;
  for (const char *seed : {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}) {
    restart({{"SEED", seed}});
    CUstream other = another();
    CUdeviceptr x = upload({1});
    EXPECT_CU(affine(x, 2, 0, 1, stream));
    EXPECT_CU(affine(x, 1, 1, 1, other)); // after the first, believes the program
    EXPECT_CU(cu.cuCtxSynchronize());
    wrong += download(x, 1)[0] != 3;
    EXPECT_CU(cu.cuStreamDestroy(other));
    EXPECT_CU(cu.cuMemFree(x));
  }
  EXPECT_GT(wrong, 0u);
  EXPECT_LT(wrong, 10u);
}

TEST_F(Queues, TheLegacyStreamWaitsForBlockingOnes) {
  for (const char *seed : {"0", "1", "2", "3"}) {
    restart({{"SEED", seed}});
    CUstream blocking = another(CU_STREAM_DEFAULT);
    CUdeviceptr x = upload({1});
    EXPECT_CU(affine(x, 2, 0, 1, blocking));
    EXPECT_CU(affine(x, 1, 1, 1, nullptr));  // after it
    EXPECT_CU(affine(x, 3, 0, 1, blocking)); // and this after that
    EXPECT_CU(cu.cuStreamSynchronize(blocking));
    EXPECT_EQ(download(x, 1), std::vector<float>{9});
    EXPECT_CU(cu.cuStreamDestroy(blocking));
    EXPECT_CU(cu.cuMemFree(x));
  }
  // A stream that does not block is on its own: what it does is not done when the legacy stream's work is.
  restart({});
  CUdeviceptr x = upload({1}), y = upload({1});
  EXPECT_CU(affine(x, 2, 0, 1, stream));
  EXPECT_CU(affine(y, 2, 0, 1, nullptr));
  EXPECT_CU(cu.cuStreamSynchronize(nullptr));
  EXPECT_EQ(counts().kernel_launches, 1u);
  EXPECT_CU(cu.cuCtxSynchronize());
  EXPECT_EQ(counts().kernel_launches, 2u);
  EXPECT_CU(cu.cuMemFree(x));
  EXPECT_CU(cu.cuMemFree(y));
}

TEST_F(Queues, QueriesComeToAnEnd) {
  CUdeviceptr x = upload({1});
  CUevent done = event();
  EXPECT_CU(cu.cuEventQuery(done)); // never recorded: nothing to wait for
  EXPECT_CU(affine(x, 2, 0, 1, stream));
  EXPECT_CU(affine(x, 2, 0, 1, stream));
  EXPECT_CU(cu.cuEventRecord(done, stream));
  EXPECT_EQ(cu.cuEventQuery(done), CUDA_ERROR_NOT_READY);
  EXPECT_EQ(cu.cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
  int asked = 0;
  while (cu.cuEventQuery(done) == CUDA_ERROR_NOT_READY)
    ASSERT_LT(++asked, 10);
  EXPECT_CU(cu.cuStreamQuery(stream));
  EXPECT_EQ(counts().kernel_launches, 2u);
  EXPECT_CU(cu.cuEventDestroy(done));
  EXPECT_CU(cu.cuMemFree(x));
}

TEST_F(Queues, ElapsedTime) {
  CUevent start = event(), end = event(), untimed = event(CU_EVENT_DISABLE_TIMING);
  float ms = -1;
  EXPECT_EQ(cu.cuEventElapsedTime(&ms, start, end), CUDA_ERROR_INVALID_HANDLE); // not recorded
  CUdeviceptr x = upload({1});
  EXPECT_CU(cu.cuEventRecord(start, stream));
  EXPECT_CU(affine(x, 2, 0, 1, stream));
  EXPECT_CU(cu.cuEventRecord(end, stream));
  EXPECT_CU(cu.cuEventRecord(untimed, stream));
  EXPECT_EQ(cu.cuEventElapsedTime(&ms, start, end), CUDA_ERROR_NOT_READY);
  EXPECT_CU(cu.cuEventSynchronize(end));
  EXPECT_CU(cu.cuEventElapsedTime(&ms, start, end));
  EXPECT_GT(ms, 0);
  EXPECT_CU(cu.cuEventSynchronize(untimed));
  EXPECT_EQ(cu.cuEventElapsedTime(&ms, start, untimed), CUDA_ERROR_INVALID_HANDLE);
  for (CUevent each : {start, end, untimed})
    EXPECT_CU(cu.cuEventDestroy(each));
  EXPECT_CU(cu.cuMemFree(x));
}

TEST_F(Queues, DestroyedHandlesAreRefused) {
  CUstream gone = another();
  CUevent past = event();
  CUdeviceptr x = upload({1});
  EXPECT_CU(affine(x, 2, 0, 1, gone));
  EXPECT_CU(cu.cuStreamDestroy(gone)); // what it has still runs
  EXPECT_CU(cu.cuEventDestroy(past));
  EXPECT_EQ(cu.cuStreamSynchronize(gone), CUDA_ERROR_INVALID_HANDLE);
  expectReport("use-after-destroy", "cuStreamSynchronize: the stream has been destroyed");
  EXPECT_EQ(cu.cuEventRecord(past, stream), CUDA_ERROR_INVALID_HANDLE);
  expectReport("use-after-destroy", "cuEventRecord: the event has been destroyed");
  EXPECT_EQ(cu.cuStreamDestroy(gone), CUDA_ERROR_INVALID_HANDLE);
  expectReport("use-after-destroy", "");
  EXPECT_EQ(cu.cuStreamSynchronize(reinterpret_cast<CUstream>(&x)), CUDA_ERROR_INVALID_HANDLE); // never was one
  EXPECT_EQ(cu.cuStreamCreate(&gone, 2), CUDA_ERROR_INVALID_VALUE);
  EXPECT_CU(cu.cuCtxSynchronize());
  EXPECT_EQ(download(x, 1), std::vector<float>{2});
  EXPECT_CU(cu.cuMemFree(x));
}

static Driver *driverOfHostFunction;
static CUresult resultInHostFunction;

TEST_F(Queues, HostFunctionsRunInOrder) {
  CUdeviceptr x = upload({1});
  float *host = pinned(1, 0);
  EXPECT_CU(cu.cuMemcpyDtoHAsync(host, x, 4, stream));
  EXPECT_CU(cu.cuLaunchHostFunc(stream, [](void *data) { *static_cast<float *>(data) += 41; }, host));
  EXPECT_CU(cu.cuMemcpyHtoDAsync(x, host, 4, stream));
  EXPECT_EQ(host[0], 0);
  EXPECT_CU(cu.cuStreamSynchronize(stream));
  EXPECT_EQ(host[0], 42);
  EXPECT_EQ(download(x, 1), std::vector<float>{42});
  driverOfHostFunction = &cu;
  EXPECT_CU(cu.cuLaunchHostFunc(
      stream, [](void *) { resultInHostFunction = driverOfHostFunction->cuCtxSynchronize(); }, nullptr));
  EXPECT_CU(cu.cuStreamSynchronize(stream));
  EXPECT_EQ(resultInHostFunction, CUDA_ERROR_NOT_PERMITTED);
  expectReport("call-in-host-function", "cuCtxSynchronize");
  EXPECT_EQ(counts().host_functions, 2u);
  EXPECT_EQ(cu.cuLaunchHostFunc(stream, nullptr, nullptr), CUDA_ERROR_INVALID_VALUE);
  EXPECT_CU(cu.cuMemFreeHost(host));
  EXPECT_CU(cu.cuMemFree(x));
}

TEST_F(Queues, AHostFunctionMayWaitForAnotherThread) {
  static std::atomic<int> stage;
  stage = 0;
  EXPECT_CU(cu.cuLaunchHostFunc(
      stream,
      [](void *) {
        stage = 1;
        while (stage != 2)
          std::this_thread::yield();
      },
      nullptr));
  CUdeviceptr x = upload({1});
  std::thread helper([&] {
    while (stage != 1)
      std::this_thread::yield();
    EXPECT_CU(cu.cuCtxSetCurrent(context));
    EXPECT_CU(affine(x, 2, 0, 1, nullptr)); // the driver is not locked meanwhile
    stage = 2;
  });
  EXPECT_CU(cu.cuStreamSynchronize(stream));
  helper.join();
  EXPECT_EQ(download(x, 1), std::vector<float>{2});
  EXPECT_CU(cu.cuMemFree(x));
}

TEST_F(Queues, ManyThreads) {
  restart({{"SEED", "5"}});
  std::vector<std::thread> threads;
  std::vector<CUdeviceptr> memory;
  for (int i = 0; i < 4; ++i)
    memory.push_back(upload(std::vector<float>(64, 1)));
  CUfunction kernel = function("affine");
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&, i] {
      EXPECT_CU(cu.cuCtxSetCurrent(context));
      CUstream own;
      EXPECT_CU(cu.cuStreamCreate(&own, CU_STREAM_NON_BLOCKING));
      float factor = 1, shift = 1;
      unsigned count = 64;
      void *parameters[] = {&memory[size_t(i)], &factor, &shift, &count};
      for (int k = 0; k < 50; ++k)
        EXPECT_CU(cu.cuLaunchKernel(kernel, 1, 1, 1, 64, 1, 1, 0, own, parameters, nullptr));
      EXPECT_CU(cu.cuStreamSynchronize(own));
      EXPECT_CU(cu.cuStreamDestroy(own));
      EXPECT_CU(cu.cuCtxSetCurrent(nullptr));
    });
  for (std::thread &thread : threads)
    thread.join();
  for (CUdeviceptr each : memory) {
    EXPECT_EQ(download(each, 64), std::vector<float>(64, 51));
    EXPECT_CU(cu.cuMemFree(each));
  }
}

TEST_F(Queues, TheQueueIsNotEndless) {
  CUdeviceptr x = upload({0});
  for (int i = 0; i < 1500; ++i)
    ASSERT_CU(affine(x, 1, 1, 1, stream));
  EXPECT_GE(counts().kernel_launches, 400u); // the call that finds it full does some of it
  EXPECT_LT(counts().kernel_launches, 1500u);
  EXPECT_CU(cu.cuStreamSynchronize(stream));
  EXPECT_EQ(download(x, 1), std::vector<float>{1500});
  EXPECT_CU(cu.cuMemFree(x));
}
