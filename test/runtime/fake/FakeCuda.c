/*===- FakeCuda.c - a libcuda for the runtime's tests -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===*/
#include "FakeCuda.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

enum { SUCCESS, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_IMAGE = 200, NOT_FOUND = 500 };
enum { NOT_READY = 600, INVALID_VALUE = 1, INVALID_CONTEXT = 201 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static fake_cuda fake;
static int lasting_error;

/* ---- work ---- */

typedef enum kind { KERNEL, COPY_IN, COPY_OUT, FILL, EVENT, WORK, GRAPH } kind;

typedef struct event {
  uint64_t recorded, done; /* how often */
  double ms;               /* the fake's clock when it was done */
} event;

typedef struct node {
  kind what;
  fake_kernel kernel;
  fake_work work;
  union {
    uint64_t parameters[FAKE_WORK_BYTES / 8];
    unsigned char state[FAKE_WORK_BYTES];
  } data;
  unsigned grid[3];
  void *to;
  const void *from;
  size_t bytes;
  unsigned char value;
  event *event;
  struct graph *graph;
} node;

typedef struct graph {
  node *nodes;
  size_t count, capacity;
} graph;

typedef struct stream {
  graph *capturing;
} stream;

static struct {
  const char *name;
  unsigned parameter_count;
  fake_kernel kernel;
} kernels[64];
static unsigned kernel_count;

enum { QUEUE = 4096 };
static node queue[QUEUE];
static size_t queue_first, queue_count;
static double clock_ms;

static void run(const node *n) {
  switch (n->what) {
  case KERNEL:
    n->kernel(n->data.parameters, n->grid);
    clock_ms += 1;
    break;
  case COPY_IN:
    memcpy(n->to, n->from, n->bytes);
    ++fake.copies_in;
    fake.bytes_in += n->bytes;
    break;
  case COPY_OUT:
    memcpy(n->to, n->from, n->bytes);
    ++fake.copies_out;
    fake.bytes_out += n->bytes;
    break;
  case FILL:
    memset(n->to, n->value, n->bytes);
    break;
  case EVENT:
    ++n->event->done;
    n->event->ms = clock_ms;
    break;
  case WORK:
    n->work(n->data.state);
    clock_ms += 10;
    break;
  case GRAPH:
    for (size_t i = 0; i < n->graph->count; ++i)
      run(&n->graph->nodes[i]);
    break;
  }
}

static void run_one(void) {
  const node *n = &queue[queue_first];
  queue_first = (queue_first + 1) % QUEUE;
  --queue_count;
  run(n);
}
static void drain(void) {
  while (queue_count)
    run_one();
}

static void put(stream *s, const node *n) {
  if (s && s->capturing) {
    graph *g = s->capturing;
    if (g->count == g->capacity) {
      g->capacity = g->capacity ? 2 * g->capacity : 16;
      g->nodes = realloc(g->nodes, g->capacity * sizeof *g->nodes);
    }
    g->nodes[g->count++] = *n;
    return;
  }
  if (queue_count == QUEUE)
    drain();
  queue[(queue_first + queue_count++) % QUEUE] = *n;
  if (!fake.lazy)
    drain();
}

static void trace(char what) {
  size_t length = strlen(fake.trace);
  if (length + 1 < sizeof fake.trace)
    fake.trace[length] = what;
}

/* ---- failing ---- */

static int fails(const char *function) {
  if (lasting_error)
    return lasting_error;
  if (!fake.fail_function || strcmp(fake.fail_function, function) != 0 || fake.fail_after-- > 0)
    return SUCCESS;
  fake.fail_function = NULL;
  if (fake.fail_lasting)
    lasting_error = fake.fail_result;
  return fake.fail_result;
}

/* A call of the API: locks, and returns early where it is to fail. */
#define BEGIN                                                                                      \
  pthread_mutex_lock(&mutex);                                                                      \
  int result = fails(__func__);                                                                    \
  if (result == SUCCESS) {
#define END                                                                                        \
  }                                                                                                \
  pthread_mutex_unlock(&mutex);                                                                    \
  return result;
#define IN_CONTEXT                                                                                 \
  BEGIN if (depth < 1) result = INVALID_CONTEXT;                                                   \
  else {
#define END_IN_CONTEXT                                                                             \
  }                                                                                                \
  END

static __thread int depth; /* of this thread's stack of contexts */
static int context;

/* ---- settings ---- */

static int enqueue(void *s, fake_work work, const void *state, size_t bytes) {
  node n = {.what = WORK, .work = work};
  if (bytes > sizeof n.data)
    abort();
  memcpy(n.data.state, state, bytes);
  pthread_mutex_lock(&mutex);
  put(s, &n);
  ++fake.products;
  pthread_mutex_unlock(&mutex);
  return 0;
}

static void add_kernel(const char *name, unsigned parameter_count, fake_kernel kernel) {
  for (unsigned i = 0; i < kernel_count; ++i)
    if (strcmp(kernels[i].name, name) == 0) {
      kernels[i].kernel = kernel;
      return;
    }
  if (kernel_count == sizeof kernels / sizeof *kernels || parameter_count > FAKE_WORK_BYTES / 8)
    abort();
  kernels[kernel_count].name = name;
  kernels[kernel_count].parameter_count = parameter_count;
  kernels[kernel_count++].kernel = kernel;
}

static void reset(void) {
  pthread_mutex_lock(&mutex);
  drain();
  lasting_error = 0;
  int64_t live = fake.live, live_bytes = fake.live_bytes;
  fake = (fake_cuda){.version = 13000,
                     .device_count = 1,
                     .arch = 90,
                     .device_name = "Fake GPU",
                     .memory = 1u << 30,
                     .enqueue = enqueue,
                     .add_kernel = add_kernel,
                     .reset = reset,
                     .live = live,
                     .live_bytes = live_bytes};
  pthread_mutex_unlock(&mutex);
}

EXPORT fake_cuda *fake_cuda_get(void) {
  if (!fake.reset)
    reset();
  return &fake;
}

/* ---- the driver's API ---- */

EXPORT int cuDriverGetVersion(int *version) {
  *version = fake_cuda_get()->version;
  return SUCCESS;
}
EXPORT int cuInit(unsigned flags) {
  (void)flags;
  BEGIN if (fake.device_count == 0) result = NO_DEVICE;
  END
}
EXPORT int cuGetErrorName(int error, const char **name) {
  *name = error == 719               ? "CUDA_ERROR_LAUNCH_FAILED"
          : error == OUT_OF_MEMORY   ? "CUDA_ERROR_OUT_OF_MEMORY"
          : error == 700             ? "CUDA_ERROR_ILLEGAL_ADDRESS"
          : error == 218             ? "CUDA_ERROR_INVALID_PTX"
          : error == INVALID_IMAGE   ? "CUDA_ERROR_INVALID_IMAGE"
          : error == 701             ? "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"
          : error == NOT_FOUND       ? "CUDA_ERROR_NOT_FOUND"
          : error == INVALID_CONTEXT ? "CUDA_ERROR_INVALID_CONTEXT"
                                     : NULL;
  return *name ? SUCCESS : INVALID_VALUE;
}
EXPORT int cuGetErrorString(int error, const char **text) {
  *text = error == 719             ? "unspecified launch failure"
          : error == OUT_OF_MEMORY ? "out of memory"
          : error == 218           ? "a PTX JIT compilation failed"
                                   : NULL;
  return *text ? SUCCESS : INVALID_VALUE;
}
EXPORT int cuDeviceGetCount(int *count) {
  BEGIN *count = fake.device_count;
  END
}
EXPORT int cuDeviceGet(int *device, int ordinal) {
  BEGIN *device = ordinal;
  END
}
EXPORT int cuDeviceGetName(char *name, int bytes, int device) {
  (void)device;
  BEGIN snprintf(name, (size_t)bytes, "%s", fake.device_name);
  END
}
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  BEGIN *value = attribute == 75 ? fake.arch / 10 : attribute == 76 ? fake.arch % 10 : -1;
  END
}
EXPORT int cuDevicePrimaryCtxRetain(void **out, int device) {
  (void)device;
  BEGIN *out = &context;
  ++fake.live;
  END
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int device) {
  (void)device;
  pthread_mutex_lock(&mutex);
  --fake.live;
  lasting_error = 0; /* the last one to leave makes a new start possible */
  pthread_mutex_unlock(&mutex);
  return SUCCESS;
}
EXPORT int cuCtxPushCurrent_v2(void *c) {
  BEGIN if (c != &context) result = INVALID_CONTEXT;
  else ++depth, ++fake.context_depth;
  END
}
EXPORT int cuCtxPopCurrent_v2(void **c) {
  pthread_mutex_lock(&mutex);
  *c = &context;
  int result = depth > 0 ? SUCCESS : INVALID_CONTEXT;
  if (depth > 0)
    --depth, --fake.context_depth;
  pthread_mutex_unlock(&mutex);
  return result;
}

/* A block remembers its size in front of it. */
enum { FRONT = 256 };
static void *allocate(size_t bytes) {
  char *memory = aligned_alloc(FRONT, (bytes + 2 * FRONT - 1) / FRONT * FRONT);
  memcpy(memory, &bytes, sizeof bytes);
  memset(memory + FRONT, 0xa5, bytes);
  ++fake.allocations;
  ++fake.live;
  fake.live_bytes += (int64_t)bytes;
  return memory + FRONT;
}
static void release(void *memory) {
  size_t bytes;
  memcpy(&bytes, (char *)memory - FRONT, sizeof bytes);
  ++fake.frees;
  --fake.live;
  fake.live_bytes -= (int64_t)bytes;
  memset(memory, 0xdd, bytes); /* who reads on sees it */
  free((char *)memory - FRONT);
}

EXPORT int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
  IN_CONTEXT *total = fake.memory;
  *free_bytes = fake.memory - (uint64_t)fake.live_bytes;
  END_IN_CONTEXT
}
EXPORT int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
  IN_CONTEXT if (bytes == 0) result = INVALID_VALUE;
  else if (bytes > fake.memory - (uint64_t)fake.live_bytes) result = OUT_OF_MEMORY;
  else *address = (uint64_t)(uintptr_t)allocate(bytes);
  END_IN_CONTEXT
}
EXPORT int cuMemFree_v2(uint64_t address) {
  pthread_mutex_lock(&mutex);
  drain();
  release((void *)(uintptr_t)address);
  pthread_mutex_unlock(&mutex);
  return lasting_error;
}
EXPORT int cuMemHostAlloc(void **memory, size_t bytes, unsigned flags) {
  (void)flags;
  IN_CONTEXT *memory = allocate(bytes);
  END_IN_CONTEXT
}
EXPORT int cuMemFreeHost(void *memory) {
  pthread_mutex_lock(&mutex);
  drain();
  release(memory);
  pthread_mutex_unlock(&mutex);
  return lasting_error;
}
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *s) {
  IN_CONTEXT node n = {.what = COPY_IN, .to = (void *)(uintptr_t)to, .from = from, .bytes = bytes};
  put(s, &n);
  trace('i');
  END_IN_CONTEXT
}
EXPORT int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *s) {
  IN_CONTEXT node n = {
      .what = COPY_OUT, .to = to, .from = (const void *)(uintptr_t)from, .bytes = bytes};
  put(s, &n);
  END_IN_CONTEXT
}
EXPORT int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void *s) {
  IN_CONTEXT node n = {.what = FILL, .to = (void *)(uintptr_t)to, .value = value, .bytes = bytes};
  put(s, &n);
  END_IN_CONTEXT
}

EXPORT int cuModuleLoadDataEx(void **module, const void *image, unsigned count, int *options,
                              void **values) {
  IN_CONTEXT const char *text = image;
  int is_cubin = memcmp(text, "\x7f\x45LF", 4) == 0;
  const char *arch = is_cubin ? text + 64 : strstr(text, "arch ");
  fake.last_image_arch = arch ? (uint32_t)atoi(arch + 5) : 0;
  if (fake.jit_log || (is_cubin && fake.refuse_cubin)) {
    result = is_cubin ? INVALID_IMAGE : 218;
    for (unsigned i = 0; i + 1 < count && fake.jit_log; ++i)
      if (options[i] == 5 && options[i + 1] == 6)
        snprintf(values[i], (size_t)(uintptr_t)values[i + 1], "%s", fake.jit_log);
  } else {
    *module = malloc(1);
    ++fake.live;
    ++fake.images_loaded;
  }
  END_IN_CONTEXT
}
EXPORT int cuModuleUnload(void *module) {
  pthread_mutex_lock(&mutex);
  free(module);
  --fake.live;
  pthread_mutex_unlock(&mutex);
  return lasting_error;
}
EXPORT int cuModuleGetFunction(void **function, void *module, const char *name) {
  (void)module;
  IN_CONTEXT result = NOT_FOUND;
  for (unsigned i = 0; i < kernel_count; ++i)
    if (strcmp(kernels[i].name, name) == 0) {
      *function = &kernels[i];
      result = SUCCESS;
    }
  END_IN_CONTEXT
}
EXPORT int cuFuncSetAttribute(void *function, int attribute, int value) {
  (void)function;
  BEGIN result = attribute == 8 && value <= 232448 ? SUCCESS : INVALID_VALUE;
  END
}
EXPORT int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                          unsigned by, unsigned bz, unsigned shared, void *s, void **parameters,
                          void **extra) {
  (void)by, (void)bz, (void)shared, (void)extra;
  IN_CONTEXT unsigned index = (unsigned)(((char *)function - (char *)kernels) / sizeof *kernels);
  node n = {.what = KERNEL, .kernel = kernels[index].kernel, .grid = {gx, gy, gz}};
  for (unsigned i = 0; i < kernels[index].parameter_count; ++i)
    memcpy(&n.data.parameters[i], parameters[i], 8);
  if (!gx || !gy || !gz || !bx || bx > 1024)
    result = INVALID_VALUE;
  else {
    put(s, &n);
    ++fake.launches;
  }
  END_IN_CONTEXT
}

EXPORT int cuStreamCreate(void **s, unsigned flags) {
  (void)flags;
  IN_CONTEXT *s = calloc(1, sizeof(stream));
  ++fake.live;
  END_IN_CONTEXT
}
EXPORT int cuStreamDestroy_v2(void *s) {
  pthread_mutex_lock(&mutex);
  drain();
  free(s);
  --fake.live;
  pthread_mutex_unlock(&mutex);
  return lasting_error;
}
EXPORT int cuStreamSynchronize(void *s) {
  (void)s;
  IN_CONTEXT trace('w');
  drain();
  END_IN_CONTEXT
}
EXPORT int cuStreamWaitEvent(void *s, void *e, unsigned flags) {
  (void)s, (void)e, (void)flags; /* one queue keeps every order */
  BEGIN END
}
EXPORT int cuStreamBeginCapture_v2(void *s, int mode) {
  (void)mode;
  IN_CONTEXT((stream *)s)->capturing = calloc(1, sizeof(graph));
  ++fake.live;
  END_IN_CONTEXT
}
EXPORT int cuStreamEndCapture(void *s, void **g) {
  pthread_mutex_lock(&mutex);
  *g = ((stream *)s)->capturing;
  ((stream *)s)->capturing = NULL;
  pthread_mutex_unlock(&mutex);
  return *g ? SUCCESS : INVALID_VALUE;
}
EXPORT int cuGraphInstantiateWithFlags(void **exec, void *g, unsigned long long flags) {
  (void)flags;
  IN_CONTEXT graph *copy = malloc(sizeof *copy);
  *copy = *(graph *)g;
  copy->nodes = malloc(copy->count * sizeof *copy->nodes + 1);
  memcpy(copy->nodes, ((graph *)g)->nodes, copy->count * sizeof *copy->nodes);
  *exec = copy;
  ++fake.live;
  ++fake.graph_instantiations;
  END_IN_CONTEXT
}
EXPORT int cuGraphDestroy(void *g) {
  pthread_mutex_lock(&mutex);
  drain();
  free(((graph *)g)->nodes);
  free(g);
  --fake.live;
  pthread_mutex_unlock(&mutex);
  return lasting_error;
}
EXPORT int cuGraphExecDestroy(void *g) { return cuGraphDestroy(g); }
EXPORT int cuGraphLaunch(void *g, void *s) {
  IN_CONTEXT node n = {.what = GRAPH, .graph = g};
  put(s, &n);
  trace('g');
  ++fake.graph_launches;
  END_IN_CONTEXT
}

EXPORT int cuEventCreate(void **e, unsigned flags) {
  (void)flags;
  IN_CONTEXT *e = calloc(1, sizeof(event));
  ++fake.live;
  END_IN_CONTEXT
}
EXPORT int cuEventDestroy_v2(void *e) {
  pthread_mutex_lock(&mutex);
  drain();
  free(e);
  --fake.live;
  pthread_mutex_unlock(&mutex);
  return lasting_error;
}
EXPORT int cuEventRecord(void *e, void *s) {
  IN_CONTEXT node n = {.what = EVENT, .event = e};
  ++((event *)e)->recorded;
  put(s, &n);
  END_IN_CONTEXT
}
EXPORT int cuEventQuery(void *e) {
  IN_CONTEXT result = ((event *)e)->done == ((event *)e)->recorded ? SUCCESS : NOT_READY;
  END_IN_CONTEXT
}
EXPORT int cuEventSynchronize(void *e) {
  IN_CONTEXT trace('w');
  while (((event *)e)->done != ((event *)e)->recorded)
    run_one();
  END_IN_CONTEXT
}
EXPORT int cuEventElapsedTime_v2(float *ms, void *start, void *end) {
  IN_CONTEXT *ms = (float)(((event *)end)->ms - ((event *)start)->ms);
  END_IN_CONTEXT
}
