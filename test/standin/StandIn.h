/*===- StandIn.h - what the stand-in driver offers to tests -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * Functions that the stand-in's libcuda.so.1 exports beside the driver API: what it counted, what it reported, and what
 * its libcublasLt.so.13 needs of it. Find them with dlsym(): a library without them is NVIDIA's.
 */
#ifndef DLC_TEST_STANDIN_STANDIN_H
#define DLC_TEST_STANDIN_STANDIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Since the process began, or since standin_reset_counters(). Work counts when it has run, not when it was asked for;
 * allocations, modules and synchronisations count when they were called. */
struct standin_counts {
  uint64_t kernel_launches;       /* kernels that a call of its own launched */
  uint64_t graph_kernel_launches; /* kernels that ran as nodes of a graph */
  uint64_t matmuls;               /* products of cublasLt, likewise */
  uint64_t graph_matmuls;
  uint64_t graph_launches;
  uint64_t graph_instantiations;
  uint64_t graph_updates; /* cuGraphExecUpdate and cuGraphExec…SetParams */
  uint64_t host_to_device_copies, host_to_device_bytes;
  uint64_t device_to_host_copies, device_to_host_bytes;
  uint64_t device_to_device_copies, device_to_device_bytes;
  uint64_t memsets, memset_bytes;
  uint64_t host_functions;
  uint64_t device_allocations, device_allocated_bytes, device_frees;
  uint64_t pinned_allocations, pinned_allocated_bytes; /* registered memory included */
  uint64_t modules;
  uint64_t synchronisations;                          /* calls that wait: stream, event, context, synchronous copies */
  uint64_t kernel_bytes_read, kernel_bytes_written;   /* device memory, by kernels */
  uint64_t matmul_bytes_read, matmul_bytes_written;   /* device memory, by products of cublasLt: each element once */
};

struct standin_kernel_counts {
  const char *name; /* good until the next standin_reset() */
  uint64_t launches, graph_launches;
  uint64_t bytes_read, bytes_written;
  uint64_t threads;
};

struct standin_allocation_counts {
  uint64_t address, bytes;
  int freed;
  uint64_t bytes_read, bytes_written; /* by kernels and products */
};

void standin_counters(struct standin_counts *counts);
void standin_reset_counters(void);
/* Entry `index` of a table; 0 where there is none. */
int standin_kernel(size_t index, struct standin_kernel_counts *counts);
int standin_allocation(size_t index, struct standin_allocation_counts *counts);

/* Faults and misuse that were reported so far, each as a line of JSON. */
size_t standin_report_count(void);
const char *standin_report(size_t index);

/* Forgets everything as if the process had ended and begun anew: leaks are reported first, handles become invalid, the
 * environment is read again. Returns how many leaks there were. Other threads must not be in a call. */
size_t standin_reset(void);

/* ---- for libcublasLt ---- */

struct CUstream_st;
struct standin_run; /* one execution of an operation */

struct standin_operation {
  const char *name;
  /* Called each time the operation runs: returns a CUresult, and not CUDA_SUCCESS makes the context unusable. */
  int (*run)(void *state, struct standin_run *run);
  void (*destroy)(void *state);
  void *state;
};

/* Puts an operation on a stream, or into the graph that the stream captures. Takes `state` over in every case. */
int standin_enqueue(struct CUstream_st *stream, const struct standin_operation *operation);
/* While an operation runs: whether a range of device memory may be read or written. What is wrong is reported; the
 * result is a CUresult. A range that was written is to be marked. Counts the bytes. */
int standin_check(struct standin_run *run, uint64_t address, uint64_t bytes, int write, const char *who);
void standin_mark_written(struct standin_run *run, uint64_t address, uint64_t bytes);
/* Reports a misuse that is not an access. */
void standin_misuse(const char *kind, const char *message);
/* Ten times the compute capability of the current context's device; 0: no context. */
int standin_capability(void);
/* Whether an address is one of device memory. */
int standin_is_device_address(uint64_t address);

#ifdef __cplusplus
}
#endif
#endif
