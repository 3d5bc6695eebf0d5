/*===- cuda_driver.h - what the runtime uses of NVIDIA's libraries -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * Own declarations of the driver's API and of cuBLASLt, so that neither headers nor libraries are
 * needed to build. Both libraries are opened when the first instance asks for a GPU, and stay open.
 * Functions go by their versioned names, whose signatures never change.
 */
#ifndef DLRT_CUDA_DRIVER_H
#define DLRT_CUDA_DRIVER_H

#include "internal.h"

/* ---- libcuda ---- */

typedef int cu_result; /* CUresult */
enum {
  CU_SUCCESS = 0,
  CU_ERROR_OUT_OF_MEMORY = 2,
  CU_ERROR_NOT_INITIALIZED = 3,
  CU_ERROR_DEINITIALIZED = 4,
  CU_ERROR_DEVICE_UNAVAILABLE = 46,
  CU_ERROR_NO_DEVICE = 100,
  CU_ERROR_ECC_UNCORRECTABLE = 214,
  CU_ERROR_NVLINK_UNCORRECTABLE = 220,
  CU_ERROR_NOT_READY = 600,
  CU_ERROR_ILLEGAL_ADDRESS = 700,
  CU_ERROR_LAUNCH_TIMEOUT = 702,
  CU_ERROR_CONTEXT_IS_DESTROYED = 709,
  CU_ERROR_ASSERT = 710,
  CU_ERROR_HARDWARE_STACK_ERROR = 714,
  CU_ERROR_ILLEGAL_INSTRUCTION = 715,
  CU_ERROR_MISALIGNED_ADDRESS = 716,
  CU_ERROR_INVALID_ADDRESS_SPACE = 717,
  CU_ERROR_INVALID_PC = 718,
  CU_ERROR_LAUNCH_FAILED = 719,
  CU_ERROR_UNKNOWN = 999
};
enum { CU_DEVICE_COMPUTE_MAJOR = 75, CU_DEVICE_COMPUTE_MINOR = 76 }; /* CUdevice_attribute */
enum { CU_FUNCTION_MAX_DYNAMIC_SHARED_BYTES = 8 };                   /* CUfunction_attribute */
enum { CU_JIT_LOG = 5, CU_JIT_LOG_BYTES = 6 };                       /* CUjit_option */
enum { CU_OWN_STREAM = 1 }; /* CUstream_flags: does not wait for the default stream */
enum { CU_TIMED_EVENT = 0, CU_UNTIMED_EVENT = 2 }; /* CUevent_flags */
enum { CU_CAPTURE_RELAXED = 2 };                   /* CUstreamCaptureMode */

typedef int cu_device;
typedef uint64_t cu_address; /* CUdeviceptr */
typedef struct CUctx_st *cu_context;
typedef struct CUmod_st *cu_module;
typedef struct CUfunc_st *cu_function;
typedef struct CUstream_st *cu_stream;
typedef struct CUevent_st *cu_event;
typedef struct CUgraph_st *cu_graph;
typedef struct CUgraphExec_st *cu_graph_exec;

/* F(field, symbol, parameters). */
#define DLRT_DRIVER_FUNCTIONS(F)                                                                   \
  F(driver_version, "cuDriverGetVersion", (int *version))                                          \
  F(init, "cuInit", (unsigned flags))                                                              \
  F(error_name, "cuGetErrorName", (cu_result error, const char **name))                            \
  F(error_string, "cuGetErrorString", (cu_result error, const char **text))                        \
  F(device_count, "cuDeviceGetCount", (int *count))                                                \
  F(device_get, "cuDeviceGet", (cu_device * device, int ordinal))                                  \
  F(device_name, "cuDeviceGetName", (char *name, int bytes, cu_device device))                     \
  F(device_attribute, "cuDeviceGetAttribute", (int *value, int attribute, cu_device device))       \
  F(context_retain, "cuDevicePrimaryCtxRetain", (cu_context * context, cu_device device))          \
  F(context_release, "cuDevicePrimaryCtxRelease_v2", (cu_device device))                           \
  F(context_push, "cuCtxPushCurrent_v2", (cu_context context))                                     \
  F(context_pop, "cuCtxPopCurrent_v2", (cu_context * context))                                     \
  F(memory_info, "cuMemGetInfo_v2", (size_t *free, size_t *total))                                 \
  F(allocate, "cuMemAlloc_v2", (cu_address * address, size_t bytes))                               \
  F(free, "cuMemFree_v2", (cu_address address))                                                    \
  F(allocate_host, "cuMemHostAlloc", (void **memory, size_t bytes, unsigned flags))                \
  F(free_host, "cuMemFreeHost", (void *memory))                                                    \
  F(copy_in, "cuMemcpyHtoDAsync_v2",                                                               \
    (cu_address to, const void *from, size_t bytes, cu_stream stream))                             \
  F(copy_out, "cuMemcpyDtoHAsync_v2", (void *to, cu_address from, size_t bytes, cu_stream stream)) \
  F(fill, "cuMemsetD8Async", (cu_address to, unsigned char value, size_t bytes, cu_stream stream)) \
  F(module_load, "cuModuleLoadDataEx",                                                             \
    (cu_module * module, const void *image, unsigned count, int *options, void **values))          \
  F(module_unload, "cuModuleUnload", (cu_module module))                                           \
  F(module_function, "cuModuleGetFunction",                                                        \
    (cu_function * function, cu_module module, const char *name))                                  \
  F(function_set, "cuFuncSetAttribute", (cu_function function, int attribute, int value))          \
  F(launch, "cuLaunchKernel",                                                                      \
    (cu_function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,    \
     unsigned block_y, unsigned block_z, unsigned shared_bytes, cu_stream stream,                  \
     void **parameters, void **extra))                                                             \
  F(stream_create, "cuStreamCreate", (cu_stream * stream, unsigned flags))                         \
  F(stream_destroy, "cuStreamDestroy_v2", (cu_stream stream))                                      \
  F(stream_synchronize, "cuStreamSynchronize", (cu_stream stream))                                 \
  F(stream_wait, "cuStreamWaitEvent", (cu_stream stream, cu_event event, unsigned flags))          \
  F(capture_begin, "cuStreamBeginCapture_v2", (cu_stream stream, int mode))                        \
  F(capture_end, "cuStreamEndCapture", (cu_stream stream, cu_graph * graph))                       \
  F(graph_instantiate, "cuGraphInstantiateWithFlags",                                              \
    (cu_graph_exec * exec, cu_graph graph, unsigned long long flags))                              \
  F(graph_destroy, "cuGraphDestroy", (cu_graph graph))                                             \
  F(graph_exec_destroy, "cuGraphExecDestroy", (cu_graph_exec exec))                                \
  F(graph_launch, "cuGraphLaunch", (cu_graph_exec exec, cu_stream stream))                         \
  F(event_create, "cuEventCreate", (cu_event * event, unsigned flags))                             \
  F(event_destroy, "cuEventDestroy_v2", (cu_event event))                                          \
  F(event_record, "cuEventRecord", (cu_event event, cu_stream stream))                             \
  F(event_query, "cuEventQuery", (cu_event event))                                                 \
  F(event_synchronize, "cuEventSynchronize", (cu_event event))                                     \
  F(event_elapsed, "cuEventElapsedTime_v2", (float *ms, cu_event start, cu_event end))

typedef struct dlrt_driver {
#define FIELD(field, symbol, parameters) cu_result(*field) parameters;
  DLRT_DRIVER_FUNCTIONS(FIELD)
#undef FIELD
} dlrt_driver;

/* The driver, initialised. The refusal says what is missing. */
dlrt_status dlrt_driver_open(const dlrt_driver **out_driver);

/* A driver's refusal in words: "cuda:0: cannot ACTION: out of memory (CUDA_ERROR_OUT_OF_MEMORY, 2)".
 */
dlrt_status dlrt_driver_failed(const dlrt_driver *cu, uint32_t ordinal, cu_result result,
                               const char *action);

/* ---- libcublasLt ---- */

typedef int blas_result; /* cublasStatus_t */
enum {
  BLAS_SUCCESS = 0,
  BLAS_COMPUTE_32F = 68,
  BLAS_COMPUTE_64F = 70,
  BLAS_COMPUTE_32F_FAST_TF32 = 77
}; /* cublasComputeType_t */
enum { BLAS_R_32F = 0, BLAS_R_64F = 1 }; /* cudaDataType */
enum { BLAS_OP_N = 0, BLAS_OP_T = 1 };
enum { BLAS_POINTERS_HOST = 0, BLAS_POINTERS_DEVICE = 1 };
enum { /* cublasLtMatmulDescAttributes_t */
       BLAS_DESC_POINTER_MODE = 2,
       BLAS_DESC_TRANSPOSE_A = 3,
       BLAS_DESC_TRANSPOSE_B = 4,
       BLAS_DESC_EPILOGUE = 7,
       BLAS_DESC_BIAS = 8,
       BLAS_DESC_AUX = 11,
       BLAS_DESC_AUX_LD = 12,
       BLAS_DESC_AUX_BATCH_STRIDE = 13
};
enum { BLAS_LAYOUT_BATCH_COUNT = 5, BLAS_LAYOUT_BATCH_STRIDE = 6 };
enum { BLAS_PREFERENCE_WORKSPACE = 1, BLAS_PREFERENCE_ALIGNMENT_A = 5 /* B, C, D follow */ };

/* cublasLtEpilogue_t of each dl_cuda_epilogue. The library sees everything transposed, so A and B
 * change places. */
enum {
  DLRT_BLAS_EPILOGUE_NONE = 1,
  DLRT_BLAS_EPILOGUE_BIAS = 4,
  DLRT_BLAS_EPILOGUE_RELU = 2,
  DLRT_BLAS_EPILOGUE_RELU_BIAS = 2 | 4,
  DLRT_BLAS_EPILOGUE_RELU_AUX = 2 | 128,
  DLRT_BLAS_EPILOGUE_RELU_AUX_BIAS = 2 | 128 | 4,
  DLRT_BLAS_EPILOGUE_GELU = 32,
  DLRT_BLAS_EPILOGUE_GELU_BIAS = 32 | 4,
  DLRT_BLAS_EPILOGUE_GELU_AUX = 32 | 128,
  DLRT_BLAS_EPILOGUE_GELU_AUX_BIAS = 32 | 128 | 4,
  DLRT_BLAS_EPILOGUE_DRELU = 8 | 128,
  DLRT_BLAS_EPILOGUE_DRELU_BGRAD = 8 | 128 | 16,
  DLRT_BLAS_EPILOGUE_DGELU = 64 | 128,
  DLRT_BLAS_EPILOGUE_DGELU_BGRAD = 64 | 128 | 16,
  DLRT_BLAS_EPILOGUE_BGRADA = 512,
  DLRT_BLAS_EPILOGUE_BGRADB = 256
};

typedef struct cublasLtContext *blas_handle;
typedef struct blas_desc *blas_desc; /* pointers to what only the library knows */
typedef struct blas_layout *blas_layout;
typedef struct blas_preference *blas_preference;
typedef struct blas_algorithm {
  uint64_t data[8];
} blas_algorithm;
typedef struct blas_heuristic { /* cublasLtMatmulHeuristicResult_t */
  blas_algorithm algorithm;
  size_t workspace_bytes;
  blas_result state;
  float waves;
  int reserved[4];
} blas_heuristic;

#define DLRT_BLAS_FUNCTIONS(F)                                                                     \
  F(create, "cublasLtCreate", (blas_handle * handle))                                              \
  F(destroy, "cublasLtDestroy", (blas_handle handle))                                              \
  F(desc_create, "cublasLtMatmulDescCreate", (blas_desc * desc, int compute, int scale))           \
  F(desc_destroy, "cublasLtMatmulDescDestroy", (blas_desc desc))                                   \
  F(desc_set, "cublasLtMatmulDescSetAttribute",                                                    \
    (blas_desc desc, int attribute, const void *value, size_t bytes))                              \
  F(layout_create, "cublasLtMatrixLayoutCreate",                                                   \
    (blas_layout * layout, int type, uint64_t rows, uint64_t columns, int64_t ld))                 \
  F(layout_destroy, "cublasLtMatrixLayoutDestroy", (blas_layout layout))                           \
  F(layout_set, "cublasLtMatrixLayoutSetAttribute",                                                \
    (blas_layout layout, int attribute, const void *value, size_t bytes))                          \
  F(preference_create, "cublasLtMatmulPreferenceCreate", (blas_preference * preference))           \
  F(preference_destroy, "cublasLtMatmulPreferenceDestroy", (blas_preference preference))           \
  F(preference_set, "cublasLtMatmulPreferenceSetAttribute",                                        \
    (blas_preference preference, int attribute, const void *value, size_t bytes))                  \
  F(heuristic, "cublasLtMatmulAlgoGetHeuristic",                                                   \
    (blas_handle handle, blas_desc desc, blas_layout a, blas_layout b, blas_layout c,              \
     blas_layout d, blas_preference preference, int asked, blas_heuristic results[], int *found))  \
  F(multiply, "cublasLtMatmul",                                                                    \
    (blas_handle handle, blas_desc desc, const void *alpha, cu_address a, blas_layout a_layout,    \
     cu_address b, blas_layout b_layout, const void *beta, cu_address c, blas_layout c_layout,     \
     cu_address d, blas_layout d_layout, const blas_algorithm *algorithm, cu_address workspace,    \
     size_t workspace_bytes, cu_stream stream))

typedef struct dlrt_blas {
#define FIELD(field, symbol, parameters) blas_result(*field) parameters;
  DLRT_BLAS_FUNCTIONS(FIELD)
#undef FIELD
} dlrt_blas;

/* "no cuBLASLt: …" where it is not there. */
dlrt_status dlrt_blas_open(const dlrt_blas **out_blas);

#endif
