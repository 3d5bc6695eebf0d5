/*===- FakeCuda.h - what the runtime's tests tell a libcuda of their own -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * The fake knows nothing of PTX: kernels are functions of the test. It keeps one queue for all
 * streams, runs what is in it at once or only when somebody waits, fails when told to, and counts.
 */
#ifndef DLC_TEST_RUNTIME_FAKECUDA_H
#define DLC_TEST_RUNTIME_FAKECUDA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef void (*fake_kernel)(const uint64_t *parameters, const unsigned grid[3]);
/* Does a product; what it is handed is libcublasLt's business. */
typedef void (*fake_work)(const void *state);
enum { FAKE_WORK_BYTES = 256 };

typedef struct fake_cuda {
  /* What the driver says it is. */
  int version, device_count, arch;
  const char *device_name;
  uint64_t memory;     /* of each device */
  const char *jit_log; /* what it writes when an image is refused */
  int refuse_cubin;
  /* Work waits in the queue until somebody waits for it. */
  int lazy;
  /* The call of this function after `fail_after` others returns this error; a lasting one is what
   * all later calls return too. */
  const char *fail_function;
  int fail_result, fail_after, fail_lasting;
  int blas_has_no_algorithm;
  /* Counts. */
  uint64_t allocations, frees, launches, graph_launches, graph_instantiations, copies_in,
      copies_out, bytes_in, bytes_out, products, heuristics, images_loaded;
  int64_t live; /* objects and memory that have not gone back */
  int64_t live_bytes;
  uint32_t last_image_arch; /* from the image's text: "arch N" */
  int context_depth;
  /* The first calls since it was emptied: i copies in, g launches a graph, w waits. */
  char trace[64];
  /* For libcublasLt: puts work on a stream. */
  int (*enqueue)(void *stream, fake_work work, const void *state, size_t bytes);
  void (*add_kernel)(const char *name, unsigned parameter_count, fake_kernel kernel);
  void (*reset)(void); /* settings and counts; not what is alive */
} fake_cuda;

/* The one there is. */
fake_cuda *fake_cuda_get(void);

#ifdef __cplusplus
}
#endif
#endif
