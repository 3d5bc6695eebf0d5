//===- Graph.cpp - graphs of the stand-in driver -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "State.h"
#include <algorithm>
#include <cstring>

namespace standin::driver {

//===--- Nodes -----------------------------------------------------------------===//

std::shared_ptr<Node> addNode(Graph &graph, OperationRef operation, std::vector<CUgraphNode> dependences) {
  auto node = std::make_shared<Node>();
  node->graph = graph.handle;
  node->operation = std::move(operation);
  node->dependences = std::move(dependences);
  node->handle = state().nodes.add(node);
  graph.nodes.push_back(node->handle);
  return node;
}

/// The graph that a node is to be added to, and what it depends on.
static CUresult readPlace(CUgraph handle, const CUgraphNode *dependences, size_t count, const Call &call,
                          std::shared_ptr<Graph> &graph, std::vector<CUgraphNode> &before) {
  graph = lookUp(state().graphs, handle, call.name);
  if (!graph)
    return CUDA_ERROR_INVALID_HANDLE;
  if (count && !dependences)
    return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < count; ++i) {
    std::shared_ptr<Node> node = lookUp(state().nodes, dependences[i], call.name);
    if (!node || node->graph != handle || std::find(before.begin(), before.end(), dependences[i]) != before.end())
      return CUDA_ERROR_INVALID_VALUE;
    before.push_back(dependences[i]);
  }
  return CUDA_SUCCESS;
}

static CUresult addTo(CUgraphNode *out, CUgraph handle, const CUgraphNode *dependences, size_t count,
                      Operation operation, const Call &call) {
  std::shared_ptr<Graph> graph;
  std::vector<CUgraphNode> before;
  if (!out)
    return CUDA_ERROR_INVALID_VALUE;
  if (CUresult result = readPlace(handle, dependences, count, call, graph, before))
    return result;
  *out = addNode(*graph, std::make_shared<const Operation>(std::move(operation)), std::move(before))->handle;
  return CUDA_SUCCESS;
}

static CUresult readKernel(const CUDA_KERNEL_NODE_PARAMS *params, const Call &call, Operation &out) {
  if (!params)
    return CUDA_ERROR_INVALID_VALUE;
  std::shared_ptr<Context> context = params->ctx ? lookUp(state().contexts, params->ctx, call.name) : call.context;
  if (!context)
    return CUDA_ERROR_INVALID_CONTEXT;
  CUfunction function = params->func ? params->func : reinterpret_cast<CUfunction>(params->kern);
  KernelOperation kernel;
  CUresult result = kernelOperation(function, {params->gridDimX, params->gridDimY, params->gridDimZ},
                                    {params->blockDimX, params->blockDimY, params->blockDimZ}, params->sharedMemBytes,
                                    params->kernelParams, params->extra, *context, call.name, kernel);
  out = std::move(kernel);
  return result;
}

static CUresult readSide(CUmemorytype type, const void *host, CUdeviceptr device, size_t x, size_t y, size_t z,
                         size_t lod, size_t pitch, size_t height, const CUDA_MEMCPY3D &params, CopySide &side) {
  if (lod)
    return CUDA_ERROR_INVALID_VALUE;
  if (type == CU_MEMORYTYPE_HOST) {
    side.address = reinterpret_cast<uint64_t>(host);
  } else if (type == CU_MEMORYTYPE_DEVICE || type == CU_MEMORYTYPE_UNIFIED) {
    side.address = device;
    side.isDevice = type == CU_MEMORYTYPE_DEVICE || contextOf(device) != nullptr;
  } else {
    return CUDA_ERROR_NOT_SUPPORTED; // arrays
  }
  side.pitch = pitch ? pitch : params.WidthInBytes;
  side.height = height ? height : params.Height;
  side.address += x + (z * side.height + y) * side.pitch;
  return CUDA_SUCCESS;
}

static CUresult readCopy(const CUDA_MEMCPY3D *params, const Call &call, Operation &out) {
  if (!params || !params->WidthInBytes || !params->Height || !params->Depth)
    return CUDA_ERROR_INVALID_VALUE;
  const CUDA_MEMCPY3D &p = *params;
  CopyOperation copy;
  if (CUresult result = readSide(p.srcMemoryType, p.srcHost, p.srcDevice, p.srcXInBytes, p.srcY, p.srcZ, p.srcLOD,
                                 p.srcPitch, p.srcHeight, p, copy.source))
    return result;
  if (CUresult result = readSide(p.dstMemoryType, p.dstHost, p.dstDevice, p.dstXInBytes, p.dstY, p.dstZ, p.dstLOD,
                                 p.dstPitch, p.dstHeight, p, copy.destination))
    return result;
  copy.width = p.WidthInBytes;
  copy.height = p.Height;
  copy.depth = p.Depth;
  CUresult result = checkCopy(copy, call.name);
  out = std::move(copy);
  return result;
}

static CUresult readSet(const CUDA_MEMSET_NODE_PARAMS *params, const Call &call, Operation &out) {
  if (!params || !params->width || !params->height ||
      (params->elementSize != 1 && params->elementSize != 2 && params->elementSize != 4))
    return CUDA_ERROR_INVALID_VALUE;
  SetOperation set{params->dst, params->pitch, params->width, params->height, params->value, params->elementSize};
  out = set;
  return checkSet(set, call.name);
}

static CUresult readHost(const CUDA_HOST_NODE_PARAMS *params, const Call &, Operation &out) {
  if (!params || !params->fn)
    return CUDA_ERROR_INVALID_VALUE;
  out = HostOperation{params->fn, params->userData};
  return CUDA_SUCCESS;
}

/// A node of a kind that a call is for.
template <typename Kind> static std::shared_ptr<Node> nodeOf(CUgraphNode handle, const Call &call) {
  std::shared_ptr<Node> node = lookUp(state().nodes, handle, call.name);
  return node && std::holds_alternative<Kind>(*node->operation) ? node : nullptr;
}

template <typename Kind, typename Params>
static CUresult setNode(CUgraphNode handle, const Params *params, const Call &call,
                        CUresult (*read)(const Params *, const Call &, Operation &)) {
  std::shared_ptr<Node> node = nodeOf<Kind>(handle, call);
  if (!node)
    return CUDA_ERROR_INVALID_HANDLE;
  Operation operation;
  if (CUresult result = read(params, call, operation))
    return result;
  node->operation = std::make_shared<const Operation>(std::move(operation));
  return CUDA_SUCCESS;
}

CU_API cuGraphAddKernelNode_v2(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependences, size_t count,
                               const CUDA_KERNEL_NODE_PARAMS *params) {
  CU_ENTER(cuGraphAddKernelNode_v2, Need::Context);
  Operation operation;
  if (CUresult result = readKernel(params, call, operation))
    return result;
  return addTo(node, graph, dependences, count, std::move(operation), call);
}

CU_API cuGraphAddMemcpyNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependences, size_t count,
                            const CUDA_MEMCPY3D *params, CUcontext context) {
  CU_ENTER(cuGraphAddMemcpyNode, Need::Context);
  if (!lookUp(state().contexts, context, call.name))
    return CUDA_ERROR_INVALID_CONTEXT;
  Operation operation;
  if (CUresult result = readCopy(params, call, operation))
    return result;
  return addTo(node, graph, dependences, count, std::move(operation), call);
}

CU_API cuGraphAddMemsetNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependences, size_t count,
                            const CUDA_MEMSET_NODE_PARAMS *params, CUcontext context) {
  CU_ENTER(cuGraphAddMemsetNode, Need::Context);
  if (!lookUp(state().contexts, context, call.name))
    return CUDA_ERROR_INVALID_CONTEXT;
  Operation operation;
  if (CUresult result = readSet(params, call, operation))
    return result;
  return addTo(node, graph, dependences, count, std::move(operation), call);
}

CU_API cuGraphAddHostNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependences, size_t count,
                          const CUDA_HOST_NODE_PARAMS *params) {
  CU_ENTER(cuGraphAddHostNode, Need::Context);
  Operation operation;
  if (CUresult result = readHost(params, call, operation))
    return result;
  return addTo(node, graph, dependences, count, std::move(operation), call);
}

CU_API cuGraphAddEmptyNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependences, size_t count) {
  CU_ENTER(cuGraphAddEmptyNode, Need::Context);
  return addTo(node, graph, dependences, count, EmptyOperation{}, call);
}

CU_API cuGraphKernelNodeGetParams_v2(CUgraphNode handle, CUDA_KERNEL_NODE_PARAMS *params) {
  CU_ENTER(cuGraphKernelNodeGetParams_v2, Need::Context);
  std::shared_ptr<Node> node = nodeOf<KernelOperation>(handle, call);
  if (!node)
    return CUDA_ERROR_INVALID_HANDLE;
  if (!params)
    return CUDA_ERROR_INVALID_VALUE;
  const auto &kernel = std::get<KernelOperation>(*node->operation);
  node->parameters.clear();
  for (const KernelParameter &parameter : kernel.function->kernel->parameters)
    node->parameters.push_back(const_cast<uint8_t *>(kernel.parameters.data()) + parameter.offset);
  const LaunchConfig &config = kernel.config;
  *params = {kernel.function->handle, config.grid.x,  config.grid.y,  config.grid.z,
             config.block.x,          config.block.y, config.block.z, config.dynamicSharedBytes,
             node->parameters.data(), nullptr,        nullptr,        kernel.function->module->context->handle};
  return CUDA_SUCCESS;
}

CU_API cuGraphKernelNodeSetParams_v2(CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS *params) {
  CU_ENTER(cuGraphKernelNodeSetParams_v2, Need::Context);
  return setNode<KernelOperation>(node, params, call, readKernel);
}

CU_API cuGraphMemcpyNodeGetParams(CUgraphNode handle, CUDA_MEMCPY3D *params) {
  CU_ENTER(cuGraphMemcpyNodeGetParams, Need::Context);
  std::shared_ptr<Node> node = nodeOf<CopyOperation>(handle, call);
  if (!node)
    return CUDA_ERROR_INVALID_HANDLE;
  if (!params)
    return CUDA_ERROR_INVALID_VALUE;
  const auto &copy = std::get<CopyOperation>(*node->operation);
  *params = {};
  params->srcMemoryType = copy.source.isDevice ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
  (copy.source.isDevice ? params->srcDevice : reinterpret_cast<CUdeviceptr &>(params->srcHost)) = copy.source.address;
  params->srcPitch = copy.source.pitch;
  params->srcHeight = copy.source.height;
  params->dstMemoryType = copy.destination.isDevice ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
  (copy.destination.isDevice ? params->dstDevice : reinterpret_cast<CUdeviceptr &>(params->dstHost)) =
      copy.destination.address;
  params->dstPitch = copy.destination.pitch;
  params->dstHeight = copy.destination.height;
  params->WidthInBytes = copy.width;
  params->Height = copy.height;
  params->Depth = copy.depth;
  return CUDA_SUCCESS;
}

CU_API cuGraphMemcpyNodeSetParams(CUgraphNode node, const CUDA_MEMCPY3D *params) {
  CU_ENTER(cuGraphMemcpyNodeSetParams, Need::Context);
  return setNode<CopyOperation>(node, params, call, readCopy);
}

CU_API cuGraphMemsetNodeGetParams(CUgraphNode handle, CUDA_MEMSET_NODE_PARAMS *params) {
  CU_ENTER(cuGraphMemsetNodeGetParams, Need::Context);
  std::shared_ptr<Node> node = nodeOf<SetOperation>(handle, call);
  if (!node)
    return CUDA_ERROR_INVALID_HANDLE;
  if (!params)
    return CUDA_ERROR_INVALID_VALUE;
  const auto &set = std::get<SetOperation>(*node->operation);
  *params = {set.address, set.pitch, set.value, set.elementBytes, set.width, set.height};
  return CUDA_SUCCESS;
}

CU_API cuGraphMemsetNodeSetParams(CUgraphNode node, const CUDA_MEMSET_NODE_PARAMS *params) {
  CU_ENTER(cuGraphMemsetNodeSetParams, Need::Context);
  return setNode<SetOperation>(node, params, call, readSet);
}

CU_API cuGraphHostNodeGetParams(CUgraphNode handle, CUDA_HOST_NODE_PARAMS *params) {
  CU_ENTER(cuGraphHostNodeGetParams, Need::Context);
  std::shared_ptr<Node> node = nodeOf<HostOperation>(handle, call);
  if (!node)
    return CUDA_ERROR_INVALID_HANDLE;
  if (!params)
    return CUDA_ERROR_INVALID_VALUE;
  const auto &host = std::get<HostOperation>(*node->operation);
  *params = {host.function, host.data};
  return CUDA_SUCCESS;
}

CU_API cuGraphHostNodeSetParams(CUgraphNode node, const CUDA_HOST_NODE_PARAMS *params) {
  CU_ENTER(cuGraphHostNodeSetParams, Need::Context);
  return setNode<HostOperation>(node, params, call, readHost);
}

//===--- Graphs ---------------------------------------------------------------------===//

CU_API cuGraphCreate(CUgraph *out, unsigned flags) {
  CU_ENTER(cuGraphCreate, Need::Initialised);
  if (!out || flags)
    return CUDA_ERROR_INVALID_VALUE;
  auto graph = std::make_shared<Graph>();
  *out = graph->handle = state().graphs.add(graph);
  return CUDA_SUCCESS;
}

CU_API cuGraphDestroy(CUgraph handle) {
  CU_ENTER(cuGraphDestroy, Need::Initialised);
  std::shared_ptr<Graph> graph = lookUp(state().graphs, handle, call.name);
  if (!graph)
    return CUDA_ERROR_INVALID_HANDLE;
  if (graph->capturing)
    return CUDA_ERROR_ILLEGAL_STATE;
  for (CUgraphNode node : graph->nodes)
    state().nodes.erase(node);
  state().graphs.erase(handle);
  return CUDA_SUCCESS;
}

CU_API cuGraphClone(CUgraph *out, CUgraph original) {
  CU_ENTER(cuGraphClone, Need::Initialised);
  State &s = state();
  std::shared_ptr<Graph> graph = lookUp(s.graphs, original, call.name);
  if (!graph || graph->capturing)
    return CUDA_ERROR_INVALID_HANDLE;
  if (!out)
    return CUDA_ERROR_INVALID_VALUE;
  auto clone = std::make_shared<Graph>();
  *out = clone->handle = s.graphs.add(clone);
  std::map<CUgraphNode, CUgraphNode> copies;
  for (CUgraphNode node : graph->nodes)
    copies[node] = addNode(*clone, s.nodes.find(node)->operation, {})->handle;
  for (CUgraphNode node : graph->nodes)
    for (CUgraphNode before : s.nodes.find(node)->dependences)
      s.nodes.find(copies[node])->dependences.push_back(copies[before]);
  return CUDA_SUCCESS;
}

CU_API cuGraphAddDependencies_v2(CUgraph handle, const CUgraphNode *from, const CUgraphNode *to,
                                 const CUgraphEdgeData *edges, size_t count) {
  CU_ENTER(cuGraphAddDependencies_v2, Need::Initialised);
  State &s = state();
  if (!lookUp(s.graphs, handle, call.name))
    return CUDA_ERROR_INVALID_HANDLE;
  if (count && (!from || !to))
    return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < count; ++i) {
    std::shared_ptr<Node> before = lookUp(s.nodes, from[i], call.name), after = lookUp(s.nodes, to[i], call.name);
    if (!before || !after || before->graph != handle || after->graph != handle || before == after)
      return CUDA_ERROR_INVALID_VALUE;
    if (edges && (edges[i].from_port || edges[i].to_port || edges[i].type))
      return CUDA_ERROR_NOT_SUPPORTED; // programmatic launches
    if (std::find(after->dependences.begin(), after->dependences.end(), from[i]) != after->dependences.end())
      return CUDA_ERROR_INVALID_VALUE;
    after->dependences.push_back(from[i]);
  }
  return CUDA_SUCCESS;
}

/// Writes a list the way that these calls do: with no array just the count; else as many as there
/// is room for, and nulls behind them.
template <typename T> static void writeList(const std::vector<T> &list, T *out, size_t *count) {
  if (out)
    for (size_t i = 0; i < *count; ++i)
      out[i] = i < list.size() ? list[i] : T{};
  *count = out ? std::min(*count, list.size()) : list.size();
}

CU_API cuGraphGetNodes(CUgraph handle, CUgraphNode *nodes, size_t *count) {
  CU_ENTER(cuGraphGetNodes, Need::Initialised);
  std::shared_ptr<Graph> graph = lookUp(state().graphs, handle, call.name);
  if (!graph)
    return CUDA_ERROR_INVALID_HANDLE;
  if (!count)
    return CUDA_ERROR_INVALID_VALUE;
  writeList(graph->nodes, nodes, count);
  return CUDA_SUCCESS;
}

CU_API cuGraphGetRootNodes(CUgraph handle, CUgraphNode *nodes, size_t *count) {
  CU_ENTER(cuGraphGetRootNodes, Need::Initialised);
  std::shared_ptr<Graph> graph = lookUp(state().graphs, handle, call.name);
  if (!graph)
    return CUDA_ERROR_INVALID_HANDLE;
  if (!count)
    return CUDA_ERROR_INVALID_VALUE;
  std::vector<CUgraphNode> roots;
  for (CUgraphNode node : graph->nodes)
    if (state().nodes.find(node)->dependences.empty())
      roots.push_back(node);
  writeList(roots, nodes, count);
  return CUDA_SUCCESS;
}

CU_API cuGraphGetEdges_v2(CUgraph handle, CUgraphNode *from, CUgraphNode *to, CUgraphEdgeData *edges, size_t *count) {
  CU_ENTER(cuGraphGetEdges_v2, Need::Initialised);
  std::shared_ptr<Graph> graph = lookUp(state().graphs, handle, call.name);
  if (!graph)
    return CUDA_ERROR_INVALID_HANDLE;
  if (!count || !from != !to)
    return CUDA_ERROR_INVALID_VALUE;
  std::vector<CUgraphNode> begins, ends;
  for (CUgraphNode node : graph->nodes)
    for (CUgraphNode before : state().nodes.find(node)->dependences) {
      begins.push_back(before);
      ends.push_back(node);
    }
  size_t room = *count;
  writeList(begins, from, count);
  if (to)
    writeList(ends, to, &room);
  if (edges && from)
    memset(edges, 0, *count * sizeof *edges);
  return CUDA_SUCCESS;
}

CU_API cuGraphNodeGetType(CUgraphNode handle, CUgraphNodeType *type) {
  CU_ENTER(cuGraphNodeGetType, Need::Initialised);
  std::shared_ptr<Node> node = lookUp(state().nodes, handle, call.name);
  if (!node)
    return CUDA_ERROR_INVALID_HANDLE;
  if (!type)
    return CUDA_ERROR_INVALID_VALUE;
  *type = typeOf(*node->operation);
  return CUDA_SUCCESS;
}

CU_API cuGraphNodeGetDependencies_v2(CUgraphNode handle, CUgraphNode *nodes, CUgraphEdgeData *edges, size_t *count) {
  CU_ENTER(cuGraphNodeGetDependencies_v2, Need::Initialised);
  std::shared_ptr<Node> node = lookUp(state().nodes, handle, call.name);
  if (!node)
    return CUDA_ERROR_INVALID_HANDLE;
  if (!count)
    return CUDA_ERROR_INVALID_VALUE;
  writeList(node->dependences, nodes, count);
  if (edges && nodes)
    memset(edges, 0, *count * sizeof *edges);
  return CUDA_SUCCESS;
}

CU_API cuGraphNodeGetDependentNodes_v2(CUgraphNode handle, CUgraphNode *nodes, CUgraphEdgeData *edges, size_t *count) {
  CU_ENTER(cuGraphNodeGetDependentNodes_v2, Need::Initialised);
  std::shared_ptr<Node> node = lookUp(state().nodes, handle, call.name);
  if (!node)
    return CUDA_ERROR_INVALID_HANDLE;
  if (!count)
    return CUDA_ERROR_INVALID_VALUE;
  std::vector<CUgraphNode> after;
  for (CUgraphNode other : state().graphs.find(node->graph)->nodes) {
    const std::vector<CUgraphNode> &before = state().nodes.find(other)->dependences;
    if (std::find(before.begin(), before.end(), handle) != before.end())
      after.push_back(other);
  }
  writeList(after, nodes, count);
  if (edges && nodes)
    memset(edges, 0, *count * sizeof *edges);
  return CUDA_SUCCESS;
}

CU_API cuGraphDestroyNode(CUgraphNode handle) {
  CU_ENTER(cuGraphDestroyNode, Need::Initialised);
  std::shared_ptr<Node> node = lookUp(state().nodes, handle, call.name);
  if (!node)
    return CUDA_ERROR_INVALID_HANDLE;
  std::shared_ptr<Graph> graph = state().graphs.find(node->graph);
  if (graph->capturing)
    return CUDA_ERROR_ILLEGAL_STATE;
  std::erase(graph->nodes, handle);
  for (CUgraphNode other : graph->nodes)
    std::erase(state().nodes.find(other)->dependences, handle);
  state().nodes.erase(handle);
  return CUDA_SUCCESS;
}

//===--- Executable graphs ----------------------------------------------------------------===//

/// A graph's steps; false if it has a circle.
static bool readSteps(const Graph &graph, Executable &executable) {
  std::map<CUgraphNode, size_t> indices;
  for (CUgraphNode node : graph.nodes)
    indices.emplace(node, indices.size());
  std::vector<size_t> waiting(graph.nodes.size());
  std::vector<std::vector<size_t>> successors(graph.nodes.size());
  for (CUgraphNode handle : graph.nodes) {
    std::shared_ptr<Node> node = state().nodes.find(handle);
    Executable::Step step{handle, node->operation, {}};
    size_t index = indices[handle];
    for (CUgraphNode before : node->dependences) {
      step.dependences.push_back(indices[before]);
      successors[indices[before]].push_back(index);
    }
    std::sort(step.dependences.begin(), step.dependences.end());
    waiting[index] = step.dependences.size();
    executable.steps.push_back(std::move(step));
  }
  for (size_t i = 0; i < waiting.size(); ++i)
    if (waiting[i] == 0)
      executable.order.push_back(i);
  for (size_t i = 0; i < executable.order.size(); ++i)
    for (size_t next : successors[executable.order[i]])
      if (--waiting[next] == 0)
        executable.order.push_back(next);
  return executable.order.size() == executable.steps.size();
}

static CUresult instantiate(CUgraphExec *out, CUgraph handle, uint64_t flags, CUgraphInstantiateResult &why,
                            Call &call) {
  State &s = state();
  why = CUDA_GRAPH_INSTANTIATE_ERROR;
  if (!out ||
      flags & ~uint64_t(CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH | CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD |
                        CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH | CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY))
    return CUDA_ERROR_INVALID_VALUE;
  std::shared_ptr<Graph> graph = lookUp(s.graphs, handle, call.name);
  if (!graph)
    return CUDA_ERROR_INVALID_HANDLE;
  if (graph->capturing)
    return CUDA_ERROR_ILLEGAL_STATE;
  if (flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH)
    return CUDA_ERROR_NOT_SUPPORTED;
  auto executable = std::make_shared<Executable>();
  executable->context = call.context;
  if (!readSteps(*graph, *executable)) {
    why = CUDA_GRAPH_INSTANTIATE_INVALID_STRUCTURE;
    return CUDA_ERROR_INVALID_VALUE;
  }
  *out = executable->handle = s.executables.add(executable);
  s.counts.graph_instantiations += 1;
  why = CUDA_GRAPH_INSTANTIATE_SUCCESS;
  return CUDA_SUCCESS;
}

CU_API cuGraphInstantiateWithFlags(CUgraphExec *executable, CUgraph graph, uint64_t flags) {
  CU_ENTER(cuGraphInstantiateWithFlags, Need::Context);
  if (flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD) // needs a stream
    return CUDA_ERROR_INVALID_VALUE;
  CUgraphInstantiateResult why;
  return instantiate(executable, graph, flags, why, call);
}

CU_API cuGraphInstantiateWithParams(CUgraphExec *executable, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *params) {
  CU_ENTER(cuGraphInstantiateWithParams, Need::Context);
  if (!params)
    return CUDA_ERROR_INVALID_VALUE;
  params->hErrNode_out = nullptr;
  CUresult result = CUDA_SUCCESS;
  if (params->flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD && !findStream(params->hUploadStream, call, result))
    return result;
  return instantiate(executable, graph, params->flags, params->result_out, call);
}

CU_API cuGraphUpload(CUgraphExec handle, CUstream streamHandle) {
  CU_ENTER(cuGraphUpload, Need::Context);
  if (!lookUp(state().executables, handle, call.name))
    return CUDA_ERROR_INVALID_HANDLE;
  CUresult result = CUDA_SUCCESS;
  std::shared_ptr<Stream> stream = findStream(streamHandle, call, result);
  if (!stream)
    return result;
  if (isCapturing(*stream)) {
    invalidate(*stream->capture);
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  return submit(*stream, EmptyOperation{}, call.lock);
}

/// In a capturing stream the graph's nodes become nodes of the one captured (a driver makes one
/// node of them, which does the same).
static CUresult captureGraph(const Executable &executable, Stream &stream) {
  State &s = state();
  if (stream.capture->invalid)
    return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  std::shared_ptr<Graph> graph = s.graphs.find(stream.capture->graph);
  std::vector<CUgraphNode> added(executable.steps.size());
  std::vector<bool> isLeaf(executable.steps.size(), true);
  for (size_t index : executable.order) {
    const Executable::Step &step = executable.steps[index];
    std::vector<CUgraphNode> before;
    for (size_t dependence : step.dependences) {
      before.push_back(added[dependence]);
      isLeaf[dependence] = false;
    }
    added[index] = addNode(*graph, step.operation, before.empty() ? stream.captureTail : before)->handle;
  }
  if (added.empty())
    return CUDA_SUCCESS;
  stream.captureTail.clear();
  for (size_t index : executable.order)
    if (isLeaf[index])
      stream.captureTail.push_back(added[index]);
  return CUDA_SUCCESS;
}

CU_API cuGraphLaunch(CUgraphExec handle, CUstream streamHandle) {
  CU_ENTER(cuGraphLaunch, Need::Context);
  State &s = state();
  std::shared_ptr<Executable> executable = lookUp(s.executables, handle, call.name);
  if (!executable)
    return CUDA_ERROR_INVALID_HANDLE;
  CUresult result = CUDA_SUCCESS;
  std::shared_ptr<Stream> stream = findStream(streamHandle, call, result);
  if (!stream)
    return result;
  if (stream->context != executable->context)
    return CUDA_ERROR_INVALID_VALUE;
  if (isCapturing(*stream))
    return captureGraph(*executable, *stream);
  if (CUresult wrong = legacyInCapture(*stream))
    return wrong;
  auto empty = std::make_shared<const Operation>(EmptyOperation{});
  WorkRef begin = queue(*stream, empty, {executable->last}, true);
  std::vector<WorkRef> works(executable->steps.size());
  for (size_t index : executable->order) {
    const Executable::Step &step = executable->steps[index];
    std::vector<WorkRef> before = {begin};
    for (size_t dependence : step.dependences)
      before.push_back(works[dependence]);
    works[index] = makeWork(stream->context, step.operation, std::move(before), true);
  }
  executable->last = queue(*stream, empty, works, true);
  s.counts.graph_launches += 1;
  progress(call.lock);
  return CUDA_SUCCESS;
}

/// Launches that are queued still run.
CU_API cuGraphExecDestroy(CUgraphExec handle) {
  CU_ENTER(cuGraphExecDestroy, Need::Initialised);
  std::shared_ptr<Executable> executable = lookUp(state().executables, handle, call.name);
  if (!executable)
    return CUDA_ERROR_INVALID_HANDLE;
  state().executables.erase(handle);
  return executable->context->error;
}

/// Whether a step may get another operation: what a node is, and which kind of memory it moves,
/// stays as it was.
static CUgraphExecUpdateResult compare(const Operation &before, const Operation &after) {
  if (before.index() != after.index())
    return typeOf(before) == typeOf(after) ? CU_GRAPH_EXEC_UPDATE_ERROR_FUNCTION_CHANGED
                                           : CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED;
  if (const auto *kernel = std::get_if<KernelOperation>(&before)) {
    if (kernel->function->module->context != std::get<KernelOperation>(after).function->module->context)
      return CU_GRAPH_EXEC_UPDATE_ERROR_FUNCTION_CHANGED;
  } else if (const auto *copy = std::get_if<CopyOperation>(&before)) {
    const auto &other = std::get<CopyOperation>(after);
    bool flat = copy->height * copy->depth == 1 && other.height * other.depth == 1;
    if (copy->source.isDevice != other.source.isDevice || copy->destination.isDevice != other.destination.isDevice ||
        (!flat && (copy->height != other.height || copy->depth != other.depth)))
      return CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
  } else if (const auto *set = std::get_if<SetOperation>(&before)) {
    const auto &other = std::get<SetOperation>(after);
    if (set->height != other.height || (set->height > 1 && set->width != other.width))
      return CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
  }
  return CU_GRAPH_EXEC_UPDATE_SUCCESS;
}

CU_API cuGraphExecUpdate_v2(CUgraphExec handle, CUgraph graphHandle, CUgraphExecUpdateResultInfo *info) {
  CU_ENTER(cuGraphExecUpdate_v2, Need::Context);
  State &s = state();
  if (!info)
    return CUDA_ERROR_INVALID_VALUE;
  *info = {CU_GRAPH_EXEC_UPDATE_ERROR, nullptr, nullptr};
  std::shared_ptr<Executable> executable = lookUp(s.executables, handle, call.name);
  std::shared_ptr<Graph> graph = lookUp(s.graphs, graphHandle, call.name);
  if (!executable || !graph || graph->capturing)
    return CUDA_ERROR_INVALID_HANDLE;
  Executable fresh;
  if (!readSteps(*graph, fresh) || fresh.steps.size() != executable->steps.size()) {
    info->result = CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
    return CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
  }
  for (size_t i = 0; i < fresh.steps.size(); ++i) {
    const Executable::Step &before = executable->steps[i], &after = fresh.steps[i];
    info->result = before.dependences != after.dependences ? CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED
                                                           : compare(*before.operation, *after.operation);
    if (info->result != CU_GRAPH_EXEC_UPDATE_SUCCESS) {
      info->errorNode = after.source;
      return CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
    }
  }
  // Launches that are queued keep what they had.
  for (size_t i = 0; i < fresh.steps.size(); ++i)
    executable->steps[i].operation = fresh.steps[i].operation;
  info->result = CU_GRAPH_EXEC_UPDATE_SUCCESS;
  s.counts.graph_updates += 1;
  return CUDA_SUCCESS;
}

template <typename Params>
static CUresult setStep(CUgraphExec handle, CUgraphNode node, const Params *params, const Call &call,
                        CUresult (*read)(const Params *, const Call &, Operation &)) {
  std::shared_ptr<Executable> executable = lookUp(state().executables, handle, call.name);
  if (!executable)
    return CUDA_ERROR_INVALID_HANDLE;
  auto step = std::find_if(executable->steps.begin(), executable->steps.end(),
                           [&](const Executable::Step &one) { return one.source == node; });
  if (step == executable->steps.end())
    return CUDA_ERROR_INVALID_VALUE;
  Operation operation;
  if (CUresult result = read(params, call, operation))
    return result;
  if (compare(*step->operation, operation) != CU_GRAPH_EXEC_UPDATE_SUCCESS)
    return CUDA_ERROR_INVALID_VALUE;
  step->operation = std::make_shared<const Operation>(std::move(operation));
  state().counts.graph_updates += 1;
  return CUDA_SUCCESS;
}

CU_API cuGraphExecKernelNodeSetParams_v2(CUgraphExec executable, CUgraphNode node,
                                         const CUDA_KERNEL_NODE_PARAMS *params) {
  CU_ENTER(cuGraphExecKernelNodeSetParams_v2, Need::Context);
  return setStep(executable, node, params, call, readKernel);
}

CU_API cuGraphExecMemcpyNodeSetParams(CUgraphExec executable, CUgraphNode node, const CUDA_MEMCPY3D *params,
                                      CUcontext context) {
  CU_ENTER(cuGraphExecMemcpyNodeSetParams, Need::Context);
  return lookUp(state().contexts, context, call.name) ? setStep(executable, node, params, call, readCopy)
                                                      : CUDA_ERROR_INVALID_CONTEXT;
}

CU_API cuGraphExecMemsetNodeSetParams(CUgraphExec executable, CUgraphNode node, const CUDA_MEMSET_NODE_PARAMS *params,
                                      CUcontext context) {
  CU_ENTER(cuGraphExecMemsetNodeSetParams, Need::Context);
  return lookUp(state().contexts, context, call.name) ? setStep(executable, node, params, call, readSet)
                                                      : CUDA_ERROR_INVALID_CONTEXT;
}

CU_API cuGraphExecHostNodeSetParams(CUgraphExec executable, CUgraphNode node, const CUDA_HOST_NODE_PARAMS *params) {
  CU_ENTER(cuGraphExecHostNodeSetParams, Need::Context);
  return setStep(executable, node, params, call, readHost);
}

} // namespace standin::driver
