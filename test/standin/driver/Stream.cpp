//===- Stream.cpp - streams, events and capture of the stand-in driver -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "State.h"
#include <algorithm>

namespace standin::driver {

static thread_local CUstreamCaptureMode threadMode = CU_STREAM_CAPTURE_MODE_GLOBAL;

//===--- Streams ------------------------------------------------------------------===//

static CUresult createStream(CUstream *out, unsigned flags, int priority, Call &call) {
  State &s = state();
  if (!out || flags & ~unsigned(CU_STREAM_NON_BLOCKING))
    return CUDA_ERROR_INVALID_VALUE;
  auto stream = std::make_shared<Stream>();
  stream->context = call.context;
  stream->flags = flags;
  stream->priority = std::clamp(priority, -5, 0);
  stream->id = s.nextId++;
  *out = stream->handle = s.streams.add(stream);
  return CUDA_SUCCESS;
}

CU_API cuStreamCreate(CUstream *stream, unsigned flags) {
  CU_ENTER(cuStreamCreate, Need::Context);
  return createStream(stream, flags, 0, call);
}

CU_API cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority) {
  CU_ENTER(cuStreamCreateWithPriority, Need::Context);
  return createStream(stream, flags, priority, call);
}

/// What is queued still runs.
CU_API cuStreamDestroy_v2(CUstream handle) {
  CU_ENTER(cuStreamDestroy_v2, Need::AnyContext);
  std::shared_ptr<Stream> stream = lookUp(state().streams, handle, call.name);
  if (!stream)
    return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture) {
    Capture &capture = *stream->capture;
    invalidate(capture);
    if (capture.origin == stream.get()) {
      if (std::shared_ptr<Graph> graph = state().graphs.find(capture.graph))
        for (CUgraphNode node : graph->nodes)
          state().nodes.erase(node);
      state().graphs.erase(capture.graph);
      for (auto &[number, other] : state().streams.live)
        if (other != stream && other->capture == stream->capture)
          other->capture = nullptr;
    }
  }
  state().streams.erase(handle);
  return stream->context->error;
}

CU_API cuStreamQuery(CUstream handle) {
  CU_ENTER(cuStreamQuery, Need::Context);
  CUresult result = CUDA_SUCCESS;
  std::shared_ptr<Stream> stream = findStream(handle, call, result);
  if (!stream)
    return result;
  if (isCapturing(*stream)) {
    invalidate(*stream->capture);
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  if (CUresult wrong = legacyInCapture(*stream))
    return wrong;
  if (!stream->tail || stream->tail->done)
    return stream->context->error;
  runSome(stream->tail, call.lock); // or a program that asks again and again would never see an end
  return stream->context->error ? stream->context->error : CUDA_ERROR_NOT_READY;
}

CU_API cuStreamSynchronize(CUstream handle) {
  CU_ENTER(cuStreamSynchronize, Need::Context);
  CUresult result = CUDA_SUCCESS;
  std::shared_ptr<Stream> stream = findStream(handle, call, result);
  if (!stream)
    return result;
  if (isCapturing(*stream)) {
    invalidate(*stream->capture);
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  if (CUresult wrong = legacyInCapture(*stream))
    return wrong;
  state().counts.synchronisations += 1;
  complete(tailsBefore(*stream), call.lock);
  return stream->context->error;
}

CU_API cuStreamGetPriority(CUstream handle, int *priority) {
  CU_ENTER(cuStreamGetPriority, Need::Context);
  CUresult result = CUDA_SUCCESS;
  std::shared_ptr<Stream> stream = findStream(handle, call, result);
  if (!stream)
    return result;
  if (!priority)
    return CUDA_ERROR_INVALID_VALUE;
  *priority = stream->priority;
  return CUDA_SUCCESS;
}

CU_API cuStreamGetFlags(CUstream handle, unsigned *flags) {
  CU_ENTER(cuStreamGetFlags, Need::Context);
  CUresult result = CUDA_SUCCESS;
  std::shared_ptr<Stream> stream = findStream(handle, call, result);
  if (!stream)
    return result;
  if (!flags)
    return CUDA_ERROR_INVALID_VALUE;
  *flags = stream->flags;
  return CUDA_SUCCESS;
}

CU_API cuStreamGetCtx(CUstream handle, CUcontext *context) {
  CU_ENTER(cuStreamGetCtx, Need::Context);
  CUresult result = CUDA_SUCCESS;
  std::shared_ptr<Stream> stream = findStream(handle, call, result);
  if (!stream)
    return result;
  if (!context)
    return CUDA_ERROR_INVALID_VALUE;
  *context = stream->context->handle;
  return CUDA_SUCCESS;
}

CU_API cuStreamGetId(CUstream handle, uint64_t *id) {
  CU_ENTER(cuStreamGetId, Need::Context);
  CUresult result = CUDA_SUCCESS;
  std::shared_ptr<Stream> stream = findStream(handle, call, result);
  if (!stream)
    return result;
  if (!id)
    return CUDA_ERROR_INVALID_VALUE;
  *id = stream->id;
  return CUDA_SUCCESS;
}

CU_API cuLaunchHostFunc(CUstream handle, CUhostFn function, void *data) {
  CU_ENTER(cuLaunchHostFunc, Need::Context);
  if (!function)
    return CUDA_ERROR_INVALID_VALUE;
  CUresult result = CUDA_SUCCESS;
  std::shared_ptr<Stream> stream = findStream(handle, call, result);
  return stream ? submit(*stream, HostOperation{function, data}, call.lock) : result;
}

//===--- Events ----------------------------------------------------------------------===//

CU_API cuEventCreate(CUevent *out, unsigned flags) {
  CU_ENTER(cuEventCreate, Need::Context);
  if (!out || flags & ~unsigned(CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING))
    return CUDA_ERROR_INVALID_VALUE;
  auto event = std::make_shared<Event>();
  event->context = call.context;
  event->flags = flags;
  *out = event->handle = state().events.add(event);
  return CUDA_SUCCESS;
}

CU_API cuEventDestroy_v2(CUevent handle) {
  CU_ENTER(cuEventDestroy_v2, Need::AnyContext);
  std::shared_ptr<Event> event = lookUp(state().events, handle, call.name);
  if (!event)
    return CUDA_ERROR_INVALID_HANDLE;
  state().events.erase(handle);
  return event->context->error;
}

static CUresult record(CUevent handle, CUstream streamHandle, unsigned flags, Call &call) {
  CUresult result = CUDA_SUCCESS;
  std::shared_ptr<Stream> stream = findStream(streamHandle, call, result);
  if (!stream)
    return result;
  std::shared_ptr<Event> event = lookUp(state().events, handle, call.name);
  if (!event || event->context != stream->context)
    return CUDA_ERROR_INVALID_HANDLE;
  if (flags) { // external events: nodes that the stand-in has not
    report("not-supported", std::string(call.name) + ": the stand-in has no flags " + std::to_string(flags));
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  if (isCapturing(*stream)) {
    if (stream->capture->invalid)
      return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    event->inCapture = true;
    event->capture = stream->capture;
    event->captured = stream->captureTail;
    return CUDA_SUCCESS;
  }
  if (CUresult wrong = legacyInCapture(*stream))
    return wrong;
  event->inCapture = false;
  event->recorded = queue(*stream, std::make_shared<const Operation>(EmptyOperation{}), {}, false);
  progress(call.lock);
  return CUDA_SUCCESS;
}

CU_API cuEventRecord(CUevent event, CUstream stream) {
  CU_ENTER(cuEventRecord, Need::Context);
  return record(event, stream, 0, call);
}

CU_API cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned flags) {
  CU_ENTER(cuEventRecordWithFlags, Need::Context);
  return record(event, stream, flags, call);
}

/// A wait for an event of a capture has no meaning outside of it, and spoils it.
static CUresult checkNotCaptured(const Event &event) {
  if (!event.inCapture)
    return CUDA_SUCCESS;
  if (std::shared_ptr<Capture> capture = event.capture.lock())
    invalidate(*capture);
  return CUDA_ERROR_CAPTURED_EVENT;
}

CU_API cuEventQuery(CUevent handle) {
  CU_ENTER(cuEventQuery, Need::Context);
  std::shared_ptr<Event> event = lookUp(state().events, handle, call.name);
  if (!event)
    return CUDA_ERROR_INVALID_HANDLE;
  if (CUresult result = checkNotCaptured(*event))
    return result;
  if (!event->recorded || event->recorded->done)
    return event->context->error;
  runSome(event->recorded, call.lock);
  return event->context->error ? event->context->error : CUDA_ERROR_NOT_READY;
}

CU_API cuEventSynchronize(CUevent handle) {
  CU_ENTER(cuEventSynchronize, Need::Context);
  std::shared_ptr<Event> event = lookUp(state().events, handle, call.name);
  if (!event)
    return CUDA_ERROR_INVALID_HANDLE;
  if (CUresult result = checkNotCaptured(*event))
    return result;
  state().counts.synchronisations += 1;
  if (event->recorded)
    complete({event->recorded}, call.lock);
  return event->context->error;
}

CU_API cuEventElapsedTime_v2(float *milliseconds, CUevent startHandle, CUevent endHandle) {
  CU_ENTER(cuEventElapsedTime_v2, Need::Context);
  std::shared_ptr<Event> start = lookUp(state().events, startHandle, call.name);
  std::shared_ptr<Event> end = lookUp(state().events, endHandle, call.name);
  if (!start || !end)
    return CUDA_ERROR_INVALID_HANDLE;
  if (!milliseconds)
    return CUDA_ERROR_INVALID_VALUE;
  if ((start->flags | end->flags) & CU_EVENT_DISABLE_TIMING || !start->recorded || !end->recorded || start->inCapture ||
      end->inCapture)
    return CUDA_ERROR_INVALID_HANDLE;
  if (!start->recorded->done || !end->recorded->done)
    return CUDA_ERROR_NOT_READY;
  *milliseconds = std::chrono::duration<float, std::milli>(end->recorded->time - start->recorded->time).count();
  return CUDA_SUCCESS;
}

CU_API cuStreamWaitEvent(CUstream streamHandle, CUevent handle, unsigned flags) {
  CU_ENTER(cuStreamWaitEvent, Need::Context);
  CUresult result = CUDA_SUCCESS;
  std::shared_ptr<Stream> stream = findStream(streamHandle, call, result);
  if (!stream)
    return result;
  std::shared_ptr<Event> event = lookUp(state().events, handle, call.name);
  if (!event)
    return CUDA_ERROR_INVALID_HANDLE;
  if (flags) {
    report("not-supported", "cuStreamWaitEvent: the stand-in has no flags " + std::to_string(flags));
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  std::shared_ptr<Capture> capture = event->capture.lock();
  if (event->inCapture && !capture) { // that capture has ended
    return CUDA_ERROR_CAPTURED_EVENT;
  }
  if (!event->inCapture) {
    if (isCapturing(*stream)) {
      if (!event->recorded)
        return CUDA_SUCCESS;
      invalidate(*stream->capture);
      return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
    }
    if (CUresult wrong = legacyInCapture(*stream))
      return wrong;
    if (event->recorded && !event->recorded->done) {
      queue(*stream, std::make_shared<const Operation>(EmptyOperation{}), {event->recorded}, false);
      progress(call.lock);
    }
    return CUDA_SUCCESS;
  }
  if (capture->invalid)
    return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (stream == stream->context->legacy) {
    invalidate(*capture);
    return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
  }
  if (isCapturing(*stream) && stream->capture != capture) {
    invalidate(*capture);
    invalidate(*stream->capture);
    return CUDA_ERROR_STREAM_CAPTURE_MERGE;
  }
  if (!isCapturing(*stream)) { // the stream joins the capture
    stream->capture = capture;
    stream->captureTail = event->captured;
    return CUDA_SUCCESS;
  }
  for (CUgraphNode node : event->captured)
    if (std::find(stream->captureTail.begin(), stream->captureTail.end(), node) == stream->captureTail.end())
      stream->captureTail.push_back(node);
  return CUDA_SUCCESS;
}

//===--- Capture -------------------------------------------------------------------------===//

bool isCapturing(const Stream &stream) { return stream.capture != nullptr; }

void invalidate(Capture &capture) { capture.invalid = true; }

CUresult captureOperation(Stream &stream, Operation operation) {
  State &s = state();
  Capture &capture = *stream.capture;
  if (capture.invalid)
    return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  std::shared_ptr<Graph> graph = s.graphs.find(capture.graph);
  std::shared_ptr<Node> node =
      addNode(*graph, std::make_shared<const Operation>(std::move(operation)), stream.captureTail);
  stream.captureTail = {node->handle};
  return CUDA_SUCCESS;
}

/// All captures that go on, each once.
static std::vector<std::shared_ptr<Capture>> captures() {
  std::vector<std::shared_ptr<Capture>> found;
  for (auto &[number, stream] : state().streams.live)
    if (stream->capture && std::find(found.begin(), found.end(), stream->capture) == found.end())
      found.push_back(stream->capture);
  return found;
}

CUresult unsafeInCapture() {
  if (threadMode == CU_STREAM_CAPTURE_MODE_RELAXED)
    return CUDA_SUCCESS;
  CUresult result = CUDA_SUCCESS;
  for (const std::shared_ptr<Capture> &capture : captures()) {
    bool own = capture->thread == std::this_thread::get_id();
    bool forbids = own ? capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED
                       : capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL && threadMode == CU_STREAM_CAPTURE_MODE_GLOBAL;
    if (forbids) {
      invalidate(*capture);
      result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
  }
  return result;
}

/// The legacy stream would have to wait for blocking streams that capture.
CUresult legacyInCapture(const Stream &stream) {
  if (&stream != stream.context->legacy.get())
    return CUDA_SUCCESS;
  CUresult result = CUDA_SUCCESS;
  for (auto &[number, other] : state().streams.live)
    if (other->context == stream.context && other->capture && other->isBlocking()) {
      invalidate(*other->capture);
      result = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    }
  return result;
}

CU_API cuStreamBeginCapture_v2(CUstream handle, CUstreamCaptureMode mode) {
  CU_ENTER(cuStreamBeginCapture_v2, Need::Context);
  State &s = state();
  CUresult result = CUDA_SUCCESS;
  std::shared_ptr<Stream> stream = findStream(handle, call, result);
  if (!stream)
    return result;
  if (mode < CU_STREAM_CAPTURE_MODE_GLOBAL || mode > CU_STREAM_CAPTURE_MODE_RELAXED)
    return CUDA_ERROR_INVALID_VALUE;
  if (stream == call.context->legacy)
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (isCapturing(*stream))
    return CUDA_ERROR_ILLEGAL_STATE;
  auto graph = std::make_shared<Graph>();
  graph->handle = s.graphs.add(graph);
  graph->capturing = true;
  auto capture = std::make_shared<Capture>();
  capture->id = s.nextId++;
  capture->graph = graph->handle;
  capture->origin = stream.get();
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  stream->capture = std::move(capture);
  stream->captureTail.clear();
  return CUDA_SUCCESS;
}

CU_API cuStreamEndCapture(CUstream handle, CUgraph *out) {
  CU_ENTER(cuStreamEndCapture, Need::Context);
  State &s = state();
  CUresult result = CUDA_SUCCESS;
  std::shared_ptr<Stream> stream = findStream(handle, call, result);
  if (!stream)
    return result;
  if (!out)
    return CUDA_ERROR_INVALID_VALUE;
  *out = nullptr;
  if (!isCapturing(*stream))
    return CUDA_ERROR_ILLEGAL_STATE;
  std::shared_ptr<Capture> capture = stream->capture;
  if (capture->origin != stream.get()) {
    invalidate(*capture);
    return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
  }
  if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture->thread != std::this_thread::get_id())
    return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
  std::shared_ptr<Graph> graph = s.graphs.find(capture->graph);
  // Everything that other streams did must lie before where this one stands.
  std::vector<CUgraphNode> joined = stream->captureTail;
  for (size_t i = 0; i < joined.size(); ++i)
    for (CUgraphNode before : s.nodes.find(joined[i])->dependences)
      if (std::find(joined.begin(), joined.end(), before) == joined.end())
        joined.push_back(before);
  bool unjoined = false;
  for (auto &[number, other] : s.streams.live) {
    if (other->capture != capture)
      continue;
    for (CUgraphNode node : other->captureTail)
      unjoined |= std::find(joined.begin(), joined.end(), node) == joined.end();
    other->capture = nullptr;
    other->captureTail.clear();
  }
  if (capture->invalid || unjoined) {
    for (CUgraphNode node : graph->nodes)
      s.nodes.erase(node);
    s.graphs.erase(graph->handle);
    return capture->invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
  }
  graph->capturing = false;
  *out = graph->handle;
  return CUDA_SUCCESS;
}

static CUstreamCaptureStatus statusOf(const Stream &stream) {
  return !stream.capture           ? CU_STREAM_CAPTURE_STATUS_NONE
         : stream.capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                   : CU_STREAM_CAPTURE_STATUS_ACTIVE;
}

CU_API cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus *status) {
  CU_ENTER(cuStreamIsCapturing, Need::Context);
  CUresult result = CUDA_SUCCESS;
  std::shared_ptr<Stream> stream = findStream(handle, call, result);
  if (!stream)
    return result;
  if (!status)
    return CUDA_ERROR_INVALID_VALUE;
  if (CUresult wrong = legacyInCapture(*stream))
    return wrong;
  *status = statusOf(*stream);
  return CUDA_SUCCESS;
}

CU_API cuStreamGetCaptureInfo_v3(CUstream handle, CUstreamCaptureStatus *status, uint64_t *id, CUgraph *graph,
                                 const CUgraphNode **dependences, const CUgraphEdgeData **edges, size_t *count) {
  CU_ENTER(cuStreamGetCaptureInfo_v3, Need::Context);
  CUresult result = CUDA_SUCCESS;
  std::shared_ptr<Stream> stream = findStream(handle, call, result);
  if (!stream)
    return result;
  if (!status)
    return CUDA_ERROR_INVALID_VALUE;
  *status = statusOf(*stream);
  if (*status != CU_STREAM_CAPTURE_STATUS_ACTIVE)
    return CUDA_SUCCESS;
  if (id)
    *id = stream->capture->id;
  if (graph)
    *graph = stream->capture->graph;
  if (dependences)
    *dependences = stream->captureTail.data();
  if (edges)
    *edges = nullptr; // all edges are plain ones
  if (count)
    *count = stream->captureTail.size();
  return CUDA_SUCCESS;
}

CU_API cuStreamUpdateCaptureDependencies_v2(CUstream handle, CUgraphNode *dependences, const CUgraphEdgeData *,
                                            size_t count, unsigned flags) {
  CU_ENTER(cuStreamUpdateCaptureDependencies_v2, Need::Context);
  CUresult result = CUDA_SUCCESS;
  std::shared_ptr<Stream> stream = findStream(handle, call, result);
  if (!stream)
    return result;
  if (!isCapturing(*stream) || stream->capture->invalid)
    return CUDA_ERROR_ILLEGAL_STATE;
  if ((count && !dependences) || flags > CU_STREAM_SET_CAPTURE_DEPENDENCIES)
    return CUDA_ERROR_INVALID_VALUE;
  std::vector<CUgraphNode> tail;
  if (flags == CU_STREAM_ADD_CAPTURE_DEPENDENCIES)
    tail = stream->captureTail;
  for (size_t i = 0; i < count; ++i) {
    std::shared_ptr<Node> node = lookUp(state().nodes, dependences[i], call.name);
    if (!node || node->graph != stream->capture->graph)
      return CUDA_ERROR_INVALID_VALUE;
    if (std::find(tail.begin(), tail.end(), dependences[i]) == tail.end())
      tail.push_back(dependences[i]);
  }
  stream->captureTail = std::move(tail);
  return CUDA_SUCCESS;
}

CU_API cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode) {
  CU_ENTER(cuThreadExchangeStreamCaptureMode, Need::Initialised);
  if (!mode || *mode < CU_STREAM_CAPTURE_MODE_GLOBAL || *mode > CU_STREAM_CAPTURE_MODE_RELAXED)
    return CUDA_ERROR_INVALID_VALUE;
  std::swap(*mode, threadMode);
  return CUDA_SUCCESS;
}

} // namespace standin::driver
