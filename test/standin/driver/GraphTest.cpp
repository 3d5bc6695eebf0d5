//===- GraphTest.cpp - capture and graphs of the stand-in -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "TestDriver.h"
#include <cstring>
#include <functional>
#include <thread>

using namespace standin::test;

class Graphs : public DriverTest {
protected:
  CUgraph endCapture(CUresult expected = CUDA_SUCCESS) {
    CUgraph graph = nullptr;
    EXPECT_EQ(cu.cuStreamEndCapture(stream, &graph), expected);
    EXPECT_EQ(graph != nullptr, expected == CUDA_SUCCESS);
    return graph;
  }
  CUgraphExec instantiate(CUgraph graph) {
    CUgraphExec executable = nullptr;
    EXPECT_CU(cu.cuGraphInstantiate(&executable, graph, 0));
    return executable;
  }
  std::vector<CUgraphNode> nodesOf(CUgraph graph) {
    size_t count = 0;
    EXPECT_CU(cu.cuGraphGetNodes(graph, nullptr, &count));
    std::vector<CUgraphNode> nodes(count);
    EXPECT_CU(cu.cuGraphGetNodes(graph, nodes.data(), &count));
    return nodes;
  }
  CUDA_KERNEL_NODE_PARAMS affineParams(CUdeviceptr *x, float *factor, float *shift, unsigned *count) {
    parameters = {x, factor, shift, count};
    CUDA_KERNEL_NODE_PARAMS params = {};
    params.func = function("affine");
    params.gridDimX = params.gridDimY = params.gridDimZ = params.blockDimY = params.blockDimZ = 1;
    params.blockDimX = 64;
    params.kernelParams = parameters.data();
    return params;
  }
  static CUDA_MEMCPY3D copyParams(CUdeviceptr destination, const void *source, size_t bytes) {
    CUDA_MEMCPY3D params = {};
    params.srcMemoryType = CU_MEMORYTYPE_HOST;
    params.srcHost = source;
    params.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    params.dstDevice = destination;
    params.WidthInBytes = bytes;
    params.Height = params.Depth = 1;
    return params;
  }
  std::vector<void *> parameters;
};

TEST_F(Graphs, CaptureInstantiateLaunchTwice) {
  for (const char *seed : {"0", "3"}) {
    restart({{"SEED", seed}});
    CUdeviceptr x = allocate(8);
    float *in = pinned(2, 3), *out = pinned(2, -1);
    cu.resetCounters();
    ASSERT_CU(cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    EXPECT_CU(cu.cuMemcpyHtoDAsync(x, in, 8, stream));
    EXPECT_CU(affine(x, 2, 1, 2, stream));
    EXPECT_CU(cu.cuMemcpyDtoHAsync(out, x, 8, stream));
    CUgraph graph = endCapture();
    EXPECT_EQ(counts().kernel_launches + counts().graph_kernel_launches, 0u); // nothing has run
    CUgraphExec executable = instantiate(graph);
    EXPECT_CU(cu.cuGraphDestroy(graph));
    EXPECT_CU(cu.cuGraphUpload(executable, stream));
    EXPECT_CU(cu.cuGraphLaunch(executable, stream));
    EXPECT_CU(cu.cuStreamSynchronize(stream));
    EXPECT_EQ(out[0], 7);
    in[0] = 10; // read anew by each launch
    EXPECT_CU(cu.cuGraphLaunch(executable, stream));
    EXPECT_CU(cu.cuStreamSynchronize(stream));
    EXPECT_EQ(out[0], 21);
    EXPECT_EQ(out[1], 7);
    standin_counts now = counts();
    EXPECT_EQ(now.graph_launches, 2u);
    EXPECT_EQ(now.graph_instantiations, 1u);
    EXPECT_EQ(now.graph_kernel_launches, 2u);
    EXPECT_EQ(now.kernel_launches, 0u);
    EXPECT_EQ(now.host_to_device_copies, 2u);
    EXPECT_EQ(now.device_allocations, 0u);
    EXPECT_CU(cu.cuGraphExecDestroy(executable));
    EXPECT_CU(cu.cuMemFreeHost(in));
    EXPECT_CU(cu.cuMemFreeHost(out));
    EXPECT_CU(cu.cuMemFree(x));
  }
}

TEST_F(Graphs, InputsOfAGraphMustStayUntilItHasRun) {
  CUdeviceptr x = allocate(4);
  float *in = pinned(1, 3);
  ASSERT_CU(cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  EXPECT_CU(cu.cuMemcpyHtoDAsync(x, in, 4, stream));
  CUgraph graph = endCapture();
  CUgraphExec executable = instantiate(graph);
  EXPECT_CU(cu.cuGraphLaunch(executable, stream));
  in[0] = 4;
  EXPECT_CU(cu.cuStreamSynchronize(stream));
  expectReport("host-write-in-flight", "");
  EXPECT_CU(cu.cuGraphExecDestroy(executable));
  EXPECT_CU(cu.cuGraphDestroy(graph));
  EXPECT_CU(cu.cuMemFreeHost(in));
  EXPECT_CU(cu.cuMemFree(x));
}

TEST_F(Graphs, ForkAndJoin) {
  for (const char *seed : {"0", "1", "2", "3", "4", "5"}) {
    restart({{"SEED", seed}});
    CUstream side = nullptr;
    CUevent fork = nullptr, join = nullptr;
    ASSERT_CU(cu.cuStreamCreate(&side, CU_STREAM_NON_BLOCKING));
    ASSERT_CU(cu.cuEventCreate(&fork, 0));
    ASSERT_CU(cu.cuEventCreate(&join, 0));
    CUdeviceptr x = upload({1}), y = upload({1}), out = upload({0});
    ASSERT_CU(cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    EXPECT_CU(affine(x, 2, 0, 1, stream));
    EXPECT_CU(cu.cuEventRecord(fork, stream));
    EXPECT_CU(cu.cuStreamWaitEvent(side, fork, 0));
    CUstreamCaptureStatus status;
    EXPECT_CU(cu.cuStreamIsCapturing(side, &status));
    EXPECT_EQ(status, CU_STREAM_CAPTURE_STATUS_ACTIVE);
    EXPECT_CU(affine(x, 1, 3, 1, stream)); // 5
    EXPECT_CU(affine(y, 10, 0, 1, side));
    EXPECT_CU(cu.cuEventRecord(join, side));
    EXPECT_CU(cu.cuStreamWaitEvent(stream, join, 0));
    uint64_t id = 0;
    CUgraph capturing = nullptr;
    const CUgraphNode *before = nullptr;
    size_t count = 0;
    EXPECT_CU(cu.cuStreamGetCaptureInfo(stream, &status, &id, &capturing, &before, nullptr, &count));
    EXPECT_EQ(count, 2u);
    unsigned one = 1;
    void *sum[] = {&out, &x, &y, &one};
    EXPECT_CU(cu.cuLaunchKernel(function("add"), 1, 1, 1, 1, 1, 1, 0, stream, sum, nullptr));
    CUgraph graph = endCapture();
    EXPECT_EQ(graph, capturing);
    EXPECT_CU(cu.cuStreamIsCapturing(side, &status));
    EXPECT_EQ(status, CU_STREAM_CAPTURE_STATUS_NONE);
    size_t nodes = 0, roots = 0, edges = 0;
    EXPECT_CU(cu.cuGraphGetNodes(graph, nullptr, &nodes));
    EXPECT_CU(cu.cuGraphGetRootNodes(graph, nullptr, &roots));
    EXPECT_CU(cu.cuGraphGetEdges(graph, nullptr, nullptr, nullptr, &edges));
    EXPECT_EQ(nodes, 4u);
    EXPECT_EQ(roots, 1u);
    EXPECT_EQ(edges, 4u);
    CUgraphExec executable = instantiate(graph);
    EXPECT_CU(cu.cuGraphLaunch(executable, stream));
    EXPECT_CU(cu.cuGraphLaunch(executable, side)); // not beside the first: a graph waits for itself
    EXPECT_CU(cu.cuCtxSynchronize());
    EXPECT_EQ(download(out, 1), std::vector<float>{13 + 100}) << "seed " << seed;
    // An event of a capture means nothing outside of it.
    EXPECT_EQ(cu.cuEventSynchronize(join), CUDA_ERROR_CAPTURED_EVENT);
    EXPECT_EQ(cu.cuStreamWaitEvent(side, join, 0), CUDA_ERROR_CAPTURED_EVENT);
    EXPECT_CU(cu.cuEventRecord(join, side));
    EXPECT_CU(cu.cuEventSynchronize(join));
    EXPECT_CU(cu.cuGraphExecDestroy(executable));
    EXPECT_CU(cu.cuGraphDestroy(graph));
    EXPECT_CU(cu.cuEventDestroy(fork));
    EXPECT_CU(cu.cuEventDestroy(join));
    EXPECT_CU(cu.cuStreamDestroy(side));
    for (CUdeviceptr each : {x, y, out})
      EXPECT_CU(cu.cuMemFree(each));
  }
}

TEST_F(Graphs, UnjoinedStreams) {
  CUstream side = nullptr;
  CUevent fork = nullptr;
  ASSERT_CU(cu.cuStreamCreate(&side, CU_STREAM_NON_BLOCKING));
  ASSERT_CU(cu.cuEventCreate(&fork, 0));
  CUdeviceptr x = upload({1});
  ASSERT_CU(cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  EXPECT_CU(cu.cuEventRecord(fork, stream));
  EXPECT_CU(cu.cuStreamWaitEvent(side, fork, 0));
  EXPECT_CU(affine(x, 2, 0, 1, side));
  CUgraph graph = nullptr;
  endCapture(CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
  EXPECT_EQ(cu.cuStreamEndCapture(stream, &graph), CUDA_ERROR_ILLEGAL_STATE);
  // Ended where it did not begin.
  ASSERT_CU(cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  EXPECT_CU(cu.cuEventRecord(fork, stream));
  EXPECT_CU(cu.cuStreamWaitEvent(side, fork, 0));
  EXPECT_EQ(cu.cuStreamEndCapture(side, &graph), CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
  endCapture(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  EXPECT_CU(affine(x, 2, 0, 1, stream)); // both streams work as before
  EXPECT_CU(affine(x, 2, 0, 1, side));
  EXPECT_CU(cu.cuCtxSynchronize());
  EXPECT_CU(cu.cuEventDestroy(fork));
  EXPECT_CU(cu.cuStreamDestroy(side));
  EXPECT_CU(cu.cuMemFree(x));
}

TEST_F(Graphs, WhatACaptureForbids) {
  CUdeviceptr x = upload({1}), more = 0;
  CUevent plain = nullptr;
  CUstream blocking = nullptr, side = nullptr;
  ASSERT_CU(cu.cuEventCreate(&plain, 0));
  ASSERT_CU(cu.cuStreamCreate(&blocking, 0));
  ASSERT_CU(cu.cuStreamCreate(&side, CU_STREAM_NON_BLOCKING));
  EXPECT_CU(cu.cuEventRecord(plain, side));
  float own[1] = {1};
  struct Case {
    const char *what;
    CUresult expected;
    std::function<CUresult()> call;
  };
  const Case cases[] = {
      {"synchronise the stream", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, [&] { return cu.cuStreamSynchronize(stream); }},
      {"query the stream", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, [&] { return cu.cuStreamQuery(stream); }},
      {"synchronise all", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, [&] { return cu.cuCtxSynchronize(); }},
      {"allocate", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, [&] { return cu.cuMemAlloc(&more, 4); }},
      {"allocate in the stream", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
       [&] { return cu.cuMemAllocAsync(&more, 4, stream); }},
      {"copy synchronously", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, [&] { return cu.cuMemcpyDtoH(own, x, 4); }},
      {"wait for what is not captured", CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
       [&] { return cu.cuStreamWaitEvent(stream, plain, 0); }},
      {"begin again", CUDA_ERROR_ILLEGAL_STATE,
       [&] { return cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL); }},
  };
  for (const Case &one : cases) {
    ASSERT_CU(cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    EXPECT_EQ(one.call(), one.expected) << one.what;
    if (one.expected == CUDA_ERROR_ILLEGAL_STATE) {
      EXPECT_CU(cu.cuGraphDestroy(endCapture()));
      continue;
    }
    EXPECT_EQ(affine(x, 2, 0, 1, stream), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED) << one.what;
    endCapture(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  }
  // Pageable memory.
  ASSERT_CU(cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  EXPECT_EQ(cu.cuMemcpyHtoDAsync(x, own, 4, stream), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  expectReport("pageable-copy-in-capture", "not pinned");
  endCapture(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  // The legacy stream, if a blocking stream captures.
  CUgraph graph = nullptr;
  ASSERT_CU(cu.cuStreamBeginCapture(blocking, CU_STREAM_CAPTURE_MODE_RELAXED));
  EXPECT_EQ(affine(x, 2, 0, 1, nullptr), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  EXPECT_EQ(cu.cuStreamEndCapture(blocking, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  ASSERT_CU(cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  EXPECT_CU(affine(x, 2, 0, 1, nullptr)); // one that does not block has no part in it
  EXPECT_CU(cu.cuGraphDestroy(endCapture()));
  EXPECT_EQ(cu.cuStreamBeginCapture(nullptr, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  // Two captures do not meet.
  ASSERT_CU(cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  ASSERT_CU(cu.cuStreamBeginCapture(side, CU_STREAM_CAPTURE_MODE_RELAXED));
  EXPECT_CU(cu.cuEventRecord(plain, side));
  EXPECT_EQ(cu.cuStreamWaitEvent(stream, plain, 0), CUDA_ERROR_STREAM_CAPTURE_MERGE);
  EXPECT_EQ(cu.cuStreamEndCapture(side, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  endCapture(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  // Unless the capture, or the thread, is relaxed about it.
  ASSERT_CU(cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  EXPECT_CU(cu.cuMemAlloc(&more, 4));
  EXPECT_CU(cu.cuMemFree(more));
  EXPECT_CU(cu.cuGraphDestroy(endCapture()));
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
  ASSERT_CU(cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  EXPECT_CU(cu.cuThreadExchangeStreamCaptureMode(&mode));
  EXPECT_EQ(mode, CU_STREAM_CAPTURE_MODE_GLOBAL);
  EXPECT_CU(cu.cuMemAlloc(&more, 4));
  EXPECT_CU(cu.cuMemFree(more));
  EXPECT_CU(cu.cuThreadExchangeStreamCaptureMode(&mode));
  EXPECT_CU(cu.cuGraphDestroy(endCapture()));
  // Another thread: forbidden by a global capture, allowed by one of this thread's own; and it may
  // end neither.
  for (CUstreamCaptureMode kind : {CU_STREAM_CAPTURE_MODE_GLOBAL, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL}) {
    ASSERT_CU(cu.cuStreamBeginCapture(stream, kind));
    std::thread([&] {
      EXPECT_CU(cu.cuCtxSetCurrent(context));
      CUgraph none = nullptr;
      EXPECT_EQ(cu.cuStreamEndCapture(stream, &none), CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
      CUdeviceptr there = 0;
      if (kind == CU_STREAM_CAPTURE_MODE_GLOBAL) {
        EXPECT_EQ(cu.cuMemAlloc(&there, 4), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
      } else {
        EXPECT_CU(cu.cuMemAlloc(&there, 4));
        EXPECT_CU(cu.cuMemFree(there));
      }
      EXPECT_CU(cu.cuCtxSetCurrent(nullptr));
    }).join();
    if (CUgraph ended =
            endCapture(kind == CU_STREAM_CAPTURE_MODE_GLOBAL ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS))
      EXPECT_CU(cu.cuGraphDestroy(ended));
  }
  EXPECT_CU(cu.cuCtxSynchronize());
  EXPECT_CU(cu.cuEventDestroy(plain));
  EXPECT_CU(cu.cuStreamDestroy(blocking));
  EXPECT_CU(cu.cuStreamDestroy(side));
  EXPECT_CU(cu.cuMemFree(x));
}

TEST_F(Graphs, ExplicitNodes) {
  CUdeviceptr x = allocate(64 * 4), image = allocate(8 * 16);
  float *host = pinned(64, 2);
  std::vector<char> rows(8 * 12, 'r');
  CUgraph graph = nullptr;
  ASSERT_CU(cu.cuGraphCreate(&graph, 0));
  CUgraphNode copy = nullptr, kernel = nullptr, zero = nullptr, box = nullptr, note = nullptr, join = nullptr;
  CUDA_MEMCPY3D copying = copyParams(x, host, 64 * 4);
  EXPECT_CU(cu.cuGraphAddMemcpyNode(&copy, graph, nullptr, 0, &copying, context));
  float factor = 3, shift = 1;
  unsigned count = 64;
  CUDA_KERNEL_NODE_PARAMS params = affineParams(&x, &factor, &shift, &count);
  EXPECT_CU(cu.cuGraphAddKernelNode(&kernel, graph, &copy, 1, &params));
  CUDA_MEMSET_NODE_PARAMS setting = {image, 16, 0x0a0b, 2, 8, 8};
  EXPECT_CU(cu.cuGraphAddMemsetNode(&zero, graph, nullptr, 0, &setting, context));
  // 8 rows of 12 bytes into the middle of rows of 16.
  CUDA_MEMCPY3D boxing = copyParams(image, rows.data(), 12);
  boxing.Height = 8;
  boxing.srcPitch = 12;
  boxing.dstPitch = 16;
  boxing.dstXInBytes = 2;
  EXPECT_CU(cu.cuGraphAddMemcpyNode(&box, graph, &zero, 1, &boxing, context));
  static int called;
  called = 0;
  CUDA_HOST_NODE_PARAMS noting = {[](void *data) { called += *static_cast<int *>(data); }, nullptr};
  int seven = 7;
  noting.userData = &seven;
  EXPECT_CU(cu.cuGraphAddHostNode(&note, graph, nullptr, 0, &noting));
  EXPECT_CU(cu.cuGraphAddEmptyNode(&join, graph, nullptr, 0));
  CUgraphNode from[] = {kernel, box, note}, to[] = {join, join, join};
  EXPECT_CU(cu.cuGraphAddDependencies(graph, from, to, nullptr, 3));
  EXPECT_EQ(cu.cuGraphAddDependencies(graph, from, to, nullptr, 1), CUDA_ERROR_INVALID_VALUE); // is there
  size_t number = 0;
  EXPECT_CU(cu.cuGraphNodeGetDependencies(join, nullptr, nullptr, &number));
  EXPECT_EQ(number, 3u);
  EXPECT_CU(cu.cuGraphNodeGetDependentNodes(copy, nullptr, nullptr, &number));
  EXPECT_EQ(number, 1u);
  CUgraphNodeType type;
  EXPECT_CU(cu.cuGraphNodeGetType(zero, &type));
  EXPECT_EQ(type, CU_GRAPH_NODE_TYPE_MEMSET);
  CUDA_KERNEL_NODE_PARAMS read = {};
  EXPECT_CU(cu.cuGraphKernelNodeGetParams(kernel, &read));
  EXPECT_EQ(read.func, function("affine"));
  EXPECT_EQ(*static_cast<float *>(read.kernelParams[1]), 3);
  EXPECT_EQ(cu.cuGraphKernelNodeGetParams(copy, &read), CUDA_ERROR_INVALID_HANDLE);
  CUDA_MEMCPY3D readCopy = {};
  EXPECT_CU(cu.cuGraphMemcpyNodeGetParams(box, &readCopy));
  EXPECT_EQ(readCopy.dstPitch, 16u);
  EXPECT_EQ(readCopy.dstDevice, image + 2);

  // A clone is another graph.
  CUgraph clone = nullptr;
  EXPECT_CU(cu.cuGraphClone(&clone, graph));
  EXPECT_EQ(nodesOf(clone).size(), 6u);
  EXPECT_CU(cu.cuGraphDestroyNode(nodesOf(clone)[5]));
  EXPECT_EQ(nodesOf(clone).size(), 5u);
  EXPECT_EQ(nodesOf(graph).size(), 6u);
  EXPECT_CU(cu.cuGraphDestroy(clone));

  CUgraphExec executable = instantiate(graph);
  EXPECT_CU(cu.cuGraphLaunch(executable, stream));
  EXPECT_CU(cu.cuStreamSynchronize(stream));
  EXPECT_EQ(download(x, 64), std::vector<float>(64, 7));
  EXPECT_EQ(called, 7);
  std::vector<char> got(8 * 16);
  EXPECT_CU(cu.cuMemcpyDtoH(got.data(), image, got.size()));
  for (int y = 0; y < 8; ++y)
    EXPECT_EQ(std::string(&got[size_t(y) * 16], 16), "\x0b\x0a"
                                                     "rrrrrrrrrrrr"
                                                     "\x0b\x0a");

  // The executable graph's own parameters; what is queued keeps the old ones.
  EXPECT_CU(cu.cuGraphLaunch(executable, stream));
  factor = 5;
  EXPECT_CU(cu.cuGraphExecKernelNodeSetParams(executable, kernel, &params));
  EXPECT_CU(cu.cuStreamSynchronize(stream));
  EXPECT_EQ(download(x, 1), std::vector<float>{7});
  float *other = pinned(64, 10);
  copying.srcHost = other;
  EXPECT_CU(cu.cuGraphExecMemcpyNodeSetParams(executable, copy, &copying, context));
  EXPECT_CU(cu.cuGraphLaunch(executable, stream));
  EXPECT_CU(cu.cuStreamSynchronize(stream));
  EXPECT_EQ(download(x, 1), std::vector<float>{51});
  EXPECT_EQ(cu.cuGraphExecKernelNodeSetParams(executable, copy, &params), CUDA_ERROR_INVALID_VALUE);
  copying.srcMemoryType = CU_MEMORYTYPE_DEVICE; // not another kind of memory
  copying.srcDevice = x;
  EXPECT_EQ(cu.cuGraphExecMemcpyNodeSetParams(executable, copy, &copying, context), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(counts().graph_updates, 2u);

  EXPECT_CU(cu.cuGraphExecDestroy(executable));
  EXPECT_EQ(cu.cuGraphLaunch(executable, stream), CUDA_ERROR_INVALID_HANDLE);
  expectReport("use-after-destroy", "executable graph");
  EXPECT_CU(cu.cuGraphDestroy(graph));
  EXPECT_CU(cu.cuMemFreeHost(host));
  EXPECT_CU(cu.cuMemFreeHost(other));
  EXPECT_CU(cu.cuMemFree(x));
  EXPECT_CU(cu.cuMemFree(image));
}

TEST_F(Graphs, BadNodesAndCircles) {
  CUdeviceptr x = upload({1});
  float factor = 1, shift = 0;
  unsigned count = 1;
  CUDA_KERNEL_NODE_PARAMS params = affineParams(&x, &factor, &shift, &count);
  CUgraph graph = nullptr, other = nullptr;
  ASSERT_CU(cu.cuGraphCreate(&graph, 0));
  ASSERT_CU(cu.cuGraphCreate(&other, 0));
  CUgraphNode first = nullptr, second = nullptr, none = nullptr;
  EXPECT_CU(cu.cuGraphAddKernelNode(&first, graph, nullptr, 0, &params));
  EXPECT_CU(cu.cuGraphAddKernelNode(&second, graph, &first, 1, &params));
  EXPECT_EQ(cu.cuGraphAddKernelNode(&none, other, &first, 1, &params), CUDA_ERROR_INVALID_VALUE); // of another graph
  params.blockDimX = 2048;
  EXPECT_EQ(cu.cuGraphAddKernelNode(&none, graph, nullptr, 0, &params), CUDA_ERROR_INVALID_VALUE);
  CUDA_MEMSET_NODE_PARAMS setting = {x, 0, 0, 3, 1, 1};
  EXPECT_EQ(cu.cuGraphAddMemsetNode(&none, graph, nullptr, 0, &setting, context), CUDA_ERROR_INVALID_VALUE);
  CUDA_MEMCPY3D copying = copyParams(x, &factor, 8);
  EXPECT_EQ(cu.cuGraphAddMemcpyNode(&none, graph, nullptr, 0, &copying, context), CUDA_ERROR_INVALID_VALUE);
  expectReport("out-of-bounds", "cuGraphAddMemcpyNode");
  EXPECT_CU(cu.cuGraphAddDependencies(graph, &second, &first, nullptr, 1));
  CUgraphExec executable = nullptr;
  EXPECT_EQ(cu.cuGraphInstantiate(&executable, graph, 0), CUDA_ERROR_INVALID_VALUE);
  CUDA_GRAPH_INSTANTIATE_PARAMS instantiation = {};
  EXPECT_EQ(cu.cuGraphInstantiateWithParams(&executable, graph, &instantiation), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(instantiation.result_out, CUDA_GRAPH_INSTANTIATE_INVALID_STRUCTURE);
  EXPECT_EQ(cu.cuGraphInstantiate(&executable, other, CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH),
            CUDA_ERROR_NOT_SUPPORTED);
  EXPECT_CU(cu.cuGraphDestroy(graph));
  EXPECT_CU(cu.cuGraphDestroy(other));
  EXPECT_CU(cu.cuMemFree(x));
}

TEST_F(Graphs, Updates) {
  CUdeviceptr x = upload({1}), y = upload({1});
  auto capture = [&](CUdeviceptr memory, float factor, bool second, bool set) {
    EXPECT_CU(cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    EXPECT_CU(affine(memory, factor, 0, 1, stream));
    if (second)
      EXPECT_CU(set ? cu.cuMemsetD32Async(memory, 0, 1, stream) : affine(memory, 1, 1, 1, stream));
    return endCapture();
  };
  CUgraph first = capture(x, 2, true, false), other = capture(y, 7, true, false), shorter = capture(x, 2, false, false),
          different = capture(x, 2, true, true);
  CUgraphExec executable = instantiate(first);
  CUgraphExecUpdateResultInfo info;
  EXPECT_CU(cu.cuGraphExecUpdate(executable, other, &info));
  EXPECT_EQ(info.result, CU_GRAPH_EXEC_UPDATE_SUCCESS);
  EXPECT_CU(cu.cuGraphLaunch(executable, stream));
  EXPECT_CU(cu.cuStreamSynchronize(stream));
  EXPECT_EQ(download(x, 1), std::vector<float>{1});
  EXPECT_EQ(download(y, 1), std::vector<float>{8});
  EXPECT_EQ(cu.cuGraphExecUpdate(executable, shorter, &info), CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
  EXPECT_EQ(info.result, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED);
  EXPECT_EQ(cu.cuGraphExecUpdate(executable, different, &info), CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
  EXPECT_EQ(info.result, CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED);
  EXPECT_EQ(info.errorNode, nodesOf(different)[1]);
  EXPECT_CU(cu.cuGraphLaunch(executable, stream)); // a refused update changes nothing
  EXPECT_CU(cu.cuStreamSynchronize(stream));
  EXPECT_EQ(download(y, 1), std::vector<float>{57});
  EXPECT_CU(cu.cuGraphExecDestroy(executable));
  for (CUgraph each : {first, other, shorter, different})
    EXPECT_CU(cu.cuGraphDestroy(each));
  EXPECT_CU(cu.cuMemFree(x));
  EXPECT_CU(cu.cuMemFree(y));
}

TEST_F(Graphs, AGraphInAGraph) {
  CUdeviceptr x = upload({1});
  ASSERT_CU(cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  EXPECT_CU(affine(x, 2, 0, 1, stream));
  EXPECT_CU(affine(x, 1, 1, 1, stream));
  CUgraph inner = endCapture();
  CUgraphExec executable = instantiate(inner);
  ASSERT_CU(cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  EXPECT_CU(cu.cuGraphLaunch(executable, stream));
  EXPECT_CU(affine(x, 10, 0, 1, stream));
  CUgraph outer = endCapture();
  CUgraphExec both = instantiate(outer);
  EXPECT_CU(cu.cuGraphLaunch(both, stream));
  EXPECT_CU(cu.cuStreamSynchronize(stream));
  EXPECT_EQ(download(x, 1), std::vector<float>{30});
  EXPECT_CU(cu.cuGraphExecDestroy(executable));
  EXPECT_CU(cu.cuGraphExecDestroy(both));
  EXPECT_CU(cu.cuGraphDestroy(inner));
  EXPECT_CU(cu.cuGraphDestroy(outer));
  EXPECT_CU(cu.cuMemFree(x));
}

TEST_F(Graphs, AFaultInAGraphEndsIt) {
  CUdeviceptr x = upload({1});
  ASSERT_CU(cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  EXPECT_CU(affine(x, 2, 0, 2, stream)); // beyond its end
  EXPECT_CU(affine(x, 2, 0, 1, stream));
  CUgraph graph = endCapture();
  CUgraphExec executable = instantiate(graph);
  EXPECT_CU(cu.cuGraphLaunch(executable, stream));
  EXPECT_EQ(cu.cuStreamSynchronize(stream), CUDA_ERROR_ILLEGAL_ADDRESS);
  expectReport("out-of-bounds", "affine");
  EXPECT_EQ(counts().graph_kernel_launches, 1u); // the second never ran
  EXPECT_EQ(cu.cuGraphLaunch(executable, stream), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(cu.cuGraphExecDestroy(executable), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_CU(cu.cuGraphDestroy(graph));
  EXPECT_EQ(cu.cuMemFree(x), CUDA_ERROR_ILLEGAL_ADDRESS);
  contextIsLost = true;
}
