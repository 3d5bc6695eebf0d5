//===- CublasLt.cpp - the stand-in's cuBLASLt -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Products as operations of the stand-in's streams, computed on the CPU with every access checked.
// What the descriptors' functions answer was compared with cuBLASLt 13.1; what a product refuses
// follows its documentation, and where that is silent the stand-in is the stricter of the two.
//
//===----------------------------------------------------------------------===//

#include "CublasLt.h"
#include "test/standin/StandIn.h"
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <type_traits>
#include <unistd.h>
#include <vector>

#define LT_API extern "C" __attribute__((visibility("default")))

namespace standin::blas {

//===--- Descriptors -------------------------------------------------------------===//

struct Layout {
  int32_t type, order;
  uint64_t rows, cols;
  int64_t ld;
  int32_t batch, reserved;
  int64_t stride;
};
static_assert(sizeof(Layout) <= sizeof(cublasLtMatrixLayoutOpaque_t));

struct Desc {
  int32_t compute, scale, pointerMode, transA, transB, transC, fill;
  uint32_t epilogue;
  uint64_t bias;
  int64_t biasStride;
  uint64_t aux;
  int64_t auxLd, auxStride;
  int32_t auxType, biasType, multiprocessors;
};
static_assert(sizeof(Desc) <= sizeof(cublasLtMatmulDescOpaque_t));

struct Preference {
  uint64_t workspace, implementations;
  uint32_t searchMode, reductions, alignment[4];
  float waves;
};
static_assert(sizeof(Preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t));

/// Where an attribute lies in a descriptor.
struct Field {
  int attribute;
  size_t offset, bytes;
};

static const Field descFields[] = {
    {CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, offsetof(Desc, compute), 4},
    {CUBLASLT_MATMUL_DESC_SCALE_TYPE, offsetof(Desc, scale), 4},
    {CUBLASLT_MATMUL_DESC_POINTER_MODE, offsetof(Desc, pointerMode), 4},
    {CUBLASLT_MATMUL_DESC_TRANSA, offsetof(Desc, transA), 4},
    {CUBLASLT_MATMUL_DESC_TRANSB, offsetof(Desc, transB), 4},
    {CUBLASLT_MATMUL_DESC_TRANSC, offsetof(Desc, transC), 4},
    {CUBLASLT_MATMUL_DESC_FILL_MODE, offsetof(Desc, fill), 4},
    {CUBLASLT_MATMUL_DESC_EPILOGUE, offsetof(Desc, epilogue), 4},
    {CUBLASLT_MATMUL_DESC_BIAS_POINTER, offsetof(Desc, bias), 8},
    {CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, offsetof(Desc, biasStride), 8},
    {CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, offsetof(Desc, aux), 8},
    {CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, offsetof(Desc, auxLd), 8},
    {CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, offsetof(Desc, auxStride), 8},
    {CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, offsetof(Desc, multiprocessors), 4},
    {CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE, offsetof(Desc, auxType), 4},
    {CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, offsetof(Desc, biasType), 4},
};
static const Field layoutFields[] = {
    {CUBLASLT_MATRIX_LAYOUT_TYPE, offsetof(Layout, type), 4},
    {CUBLASLT_MATRIX_LAYOUT_ORDER, offsetof(Layout, order), 4},
    {CUBLASLT_MATRIX_LAYOUT_ROWS, offsetof(Layout, rows), 8},
    {CUBLASLT_MATRIX_LAYOUT_COLS, offsetof(Layout, cols), 8},
    {CUBLASLT_MATRIX_LAYOUT_LD, offsetof(Layout, ld), 8},
    {CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, offsetof(Layout, batch), 4},
    {CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, offsetof(Layout, stride), 8},
};
static const Field preferenceFields[] = {
    {CUBLASLT_MATMUL_PREF_SEARCH_MODE, offsetof(Preference, searchMode), 4},
    {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, offsetof(Preference, workspace), 8},
    {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, offsetof(Preference, reductions), 4},
    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, offsetof(Preference, alignment), 4},
    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, offsetof(Preference, alignment) + 4, 4},
    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, offsetof(Preference, alignment) + 8, 4},
    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, offsetof(Preference, alignment) + 12, 4},
    {CUBLASLT_MATMUL_PREF_MAX_WAVES_COUNT, offsetof(Preference, waves), 4},
    {CUBLASLT_MATMUL_PREF_IMPL_MASK, offsetof(Preference, implementations), 8},
};

template <size_t N> static const Field *fieldOf(const Field (&fields)[N], int attribute) {
  auto *found =
      std::find_if(std::begin(fields), std::end(fields), [&](const Field &f) { return f.attribute == attribute; });
  return found == std::end(fields) ? nullptr : found;
}

/// Values are not looked at here; a product refuses them.
template <size_t N>
static cublasStatus_t setField(const Field (&fields)[N], void *object, int attribute, const void *value, size_t size) {
  const Field *field = fieldOf(fields, attribute);
  if (!object || !value || !field || size != field->bytes)
    return CUBLAS_STATUS_INVALID_VALUE;
  memcpy(static_cast<char *>(object) + field->offset, value, size);
  return CUBLAS_STATUS_SUCCESS;
}

template <size_t N>
static cublasStatus_t getField(const Field (&fields)[N], const void *object, int attribute, void *value, size_t size,
                               size_t *written) {
  const Field *field = fieldOf(fields, attribute);
  if (!object || !field || (size == 0 && !written))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (written)
    *written = field->bytes;
  if (size == 0)
    return CUBLAS_STATUS_SUCCESS;
  if (!value || size != field->bytes)
    return CUBLAS_STATUS_INVALID_VALUE;
  memcpy(value, static_cast<const char *>(object) + field->offset, size);
  return CUBLAS_STATUS_SUCCESS;
}

template <typename T, typename Opaque> static T &as(Opaque *opaque) { return *reinterpret_cast<T *>(opaque); }

LT_API cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t desc, size_t size,
                                                      cublasComputeType_t compute, cudaDataType scale) {
  if (!desc)
    return CUBLAS_STATUS_INVALID_VALUE;
  if (size < sizeof *desc)
    return CUBLAS_STATUS_ALLOC_FAILED;
  memset(desc, 0, sizeof *desc);
  Desc &fresh = as<Desc>(desc);
  fresh.compute = compute;
  fresh.scale = scale;
  fresh.fill = CUBLAS_FILL_MODE_FULL;
  fresh.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  fresh.auxType = fresh.biasType = -1;
  return CUBLAS_STATUS_SUCCESS;
}

LT_API cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                               cudaDataType scale) {
  if (!desc)
    return CUBLAS_STATUS_INVALID_VALUE;
  *desc = new cublasLtMatmulDescOpaque_t;
  return cublasLtMatmulDescInit_internal(*desc, sizeof **desc, compute, scale);
}

LT_API cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
  delete desc;
  return CUBLAS_STATUS_SUCCESS;
}

LT_API cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                                     cublasLtMatmulDescAttributes_t attribute, const void *value,
                                                     size_t size) {
  return setField(descFields, desc, attribute, value, size);
}

LT_API cublasStatus_t cublasLtMatmulDescGetAttribute(cublasLtMatmulDesc_t desc,
                                                     cublasLtMatmulDescAttributes_t attribute, void *value, size_t size,
                                                     size_t *written) {
  return getField(descFields, desc, attribute, value, size, written);
}

LT_API cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t layout, size_t size, cudaDataType type,
                                                        uint64_t rows, uint64_t cols, int64_t ld) {
  if (!layout)
    return CUBLAS_STATUS_INVALID_VALUE;
  if (size < sizeof *layout)
    return CUBLAS_STATUS_ALLOC_FAILED;
  memset(layout, 0, sizeof *layout);
  as<Layout>(layout) = {type, CUBLASLT_ORDER_COL, rows, cols, ld, 1, 0, 0};
  return CUBLAS_STATUS_SUCCESS;
}

LT_API cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type, uint64_t rows,
                                                 uint64_t cols, int64_t ld) {
  if (!layout)
    return CUBLAS_STATUS_INVALID_VALUE;
  *layout = new cublasLtMatrixLayoutOpaque_t;
  return cublasLtMatrixLayoutInit_internal(*layout, sizeof **layout, type, rows, cols, ld);
}

LT_API cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}

LT_API cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                       cublasLtMatrixLayoutAttribute_t attribute, const void *value,
                                                       size_t size) {
  return setField(layoutFields, layout, attribute, value, size);
}

LT_API cublasStatus_t cublasLtMatrixLayoutGetAttribute(cublasLtMatrixLayout_t layout,
                                                       cublasLtMatrixLayoutAttribute_t attribute, void *value,
                                                       size_t size, size_t *written) {
  return getField(layoutFields, layout, attribute, value, size, written);
}

LT_API cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t preference, size_t size) {
  if (!preference)
    return CUBLAS_STATUS_INVALID_VALUE;
  if (size < sizeof *preference)
    return CUBLAS_STATUS_ALLOC_FAILED;
  memset(preference, 0, sizeof *preference);
  Preference &fresh = as<Preference>(preference);
  fresh.implementations = ~uint64_t(0);
  fresh.reductions = 7;
  std::fill(std::begin(fresh.alignment), std::end(fresh.alignment), 256);
  return CUBLAS_STATUS_SUCCESS;
}

LT_API cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference) {
  if (!preference)
    return CUBLAS_STATUS_INVALID_VALUE;
  *preference = new cublasLtMatmulPreferenceOpaque_t;
  return cublasLtMatmulPreferenceInit_internal(*preference, sizeof **preference);
}

LT_API cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}

LT_API cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                           cublasLtMatmulPreferenceAttributes_t attribute,
                                                           const void *value, size_t size) {
  return setField(preferenceFields, preference, attribute, value, size);
}

LT_API cublasStatus_t cublasLtMatmulPreferenceGetAttribute(cublasLtMatmulPreference_t preference,
                                                           cublasLtMatmulPreferenceAttributes_t attribute, void *value,
                                                           size_t size, size_t *written) {
  return getField(preferenceFields, preference, attribute, value, size, written);
}

//===--- Handles -------------------------------------------------------------------------===//

struct Handles {
  std::mutex lock;
  std::set<cublasLtHandle_t> live;
  uint64_t next = 1;
};
static Handles &handles() {
  static auto *one = new Handles;
  return *one;
}

static bool isLive(cublasLtHandle_t handle) {
  std::lock_guard guard(handles().lock);
  return handles().live.count(handle) != 0;
}

LT_API cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
  if (!handle)
    return CUBLAS_STATUS_INVALID_VALUE;
  *handle = nullptr;
  // The real one makes the primary context of device 0 current where none is; a program that relies
  // on it works on the wrong device.
  if (standin_capability() == 0)
    return CUBLAS_STATUS_NOT_INITIALIZED;
  std::lock_guard guard(handles().lock);
  *handle = reinterpret_cast<cublasLtHandle_t>((uint64_t(0x5d) << 48) | uint64_t(15) << 40 | handles().next++ << 4);
  handles().live.insert(*handle);
  return CUBLAS_STATUS_SUCCESS;
}

LT_API cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  if (!handle)
    return CUBLAS_STATUS_INVALID_VALUE;
  bool was;
  {
    std::lock_guard guard(handles().lock);
    was = handles().live.erase(handle) != 0;
  }
  if (!was)
    standin_misuse("use-after-destroy", "cublasLtDestroy: the handle is none, or has been destroyed");
  return was ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}

__attribute__((destructor)) static void atEnd() {
  if (size_t count = handles().live.size())
    standin_misuse("leak", (std::to_string(count) + " cublasLt handle" + (count == 1 ? " was" : "s were") +
                            " not destroyed before the end of the process")
                               .c_str());
}

LT_API size_t cublasLtGetVersion() { return 130100; }
LT_API size_t cublasLtGetCudartVersion() { return 13000; }

LT_API cublasStatus_t cublasLtGetProperty(libraryPropertyType type, int *value) {
  if (!value || type < MAJOR_VERSION || type > PATCH_LEVEL)
    return CUBLAS_STATUS_INVALID_VALUE;
  *value = type == MAJOR_VERSION ? 13 : type == MINOR_VERSION ? 1 : 0;
  return CUBLAS_STATUS_SUCCESS;
}

struct StatusText {
  cublasStatus_t status;
  const char *name, *text;
};
static const StatusText *textOf(cublasStatus_t status) {
  static const StatusText texts[] = {
      {CUBLAS_STATUS_SUCCESS, "CUBLAS_STATUS_SUCCESS", "success"},
      {CUBLAS_STATUS_NOT_INITIALIZED, "CUBLAS_STATUS_NOT_INITIALIZED", "the library was not initialized"},
      {CUBLAS_STATUS_ALLOC_FAILED, "CUBLAS_STATUS_ALLOC_FAILED", "the resource allocation failed"},
      {CUBLAS_STATUS_INVALID_VALUE, "CUBLAS_STATUS_INVALID_VALUE",
       "an unsupported value or parameter was passed to the function"},
      {CUBLAS_STATUS_ARCH_MISMATCH, "CUBLAS_STATUS_ARCH_MISMATCH",
       "the function requires an architectural feature absent from the device"},
      {CUBLAS_STATUS_MAPPING_ERROR, "CUBLAS_STATUS_MAPPING_ERROR", "an access to GPU memory space failed"},
      {CUBLAS_STATUS_EXECUTION_FAILED, "CUBLAS_STATUS_EXECUTION_FAILED", "the function failed to launch on the GPU"},
      {CUBLAS_STATUS_INTERNAL_ERROR, "CUBLAS_STATUS_INTERNAL_ERROR", "an internal operation failed"},
      {CUBLAS_STATUS_NOT_SUPPORTED, "CUBLAS_STATUS_NOT_SUPPORTED", "the requested functionality is not supported"},
      {CUBLAS_STATUS_LICENSE_ERROR, "CUBLAS_STATUS_LICENSE_ERROR", "the license check failed"},
  };
  for (const StatusText &text : texts)
    if (text.status == status)
      return &text;
  return nullptr;
}
LT_API const char *cublasLtGetStatusName(cublasStatus_t status) {
  return textOf(status) ? textOf(status)->name : "unrecognized status";
}
LT_API const char *cublasLtGetStatusString(cublasStatus_t status) {
  return textOf(status) ? textOf(status)->text : "unrecognized status";
}

//===--- What a product is ---------------------------------------------------------------------===//

/// A descriptor and four layouts, looked through.
struct Problem {
  Desc desc;
  Layout a, b, c, d;
  uint64_t m, n, k;
  int32_t batch;
  size_t element; ///< bytes
};

static bool hasBit(const Problem &p, uint32_t bit) { return (p.desc.epilogue & bit) != 0; }
static bool isRelu(const Problem &p) { return hasBit(p, 2) || hasBit(p, 8); }
static bool isGradient(const Problem &p) { return hasBit(p, 8) || hasBit(p, 64); }
/// The bias pointer is read, or written.
static bool readsBias(const Problem &p) { return hasBit(p, 4); }
static bool writesBias(const Problem &p) { return hasBit(p, 16) || hasBit(p, 256) || hasBit(p, 512); }

static const char *epilogueName(uint32_t epilogue) {
  switch (epilogue) {
  case CUBLASLT_EPILOGUE_DEFAULT:
    return "";
  case CUBLASLT_EPILOGUE_RELU:
    return " RELU";
  case CUBLASLT_EPILOGUE_RELU_AUX:
    return " RELU_AUX";
  case CUBLASLT_EPILOGUE_BIAS:
    return " BIAS";
  case CUBLASLT_EPILOGUE_RELU_BIAS:
    return " RELU_BIAS";
  case CUBLASLT_EPILOGUE_RELU_AUX_BIAS:
    return " RELU_AUX_BIAS";
  case CUBLASLT_EPILOGUE_DRELU:
    return " DRELU";
  case CUBLASLT_EPILOGUE_DRELU_BGRAD:
    return " DRELU_BGRAD";
  case CUBLASLT_EPILOGUE_GELU:
    return " GELU";
  case CUBLASLT_EPILOGUE_GELU_AUX:
    return " GELU_AUX";
  case CUBLASLT_EPILOGUE_GELU_BIAS:
    return " GELU_BIAS";
  case CUBLASLT_EPILOGUE_GELU_AUX_BIAS:
    return " GELU_AUX_BIAS";
  case CUBLASLT_EPILOGUE_DGELU:
    return " DGELU";
  case CUBLASLT_EPILOGUE_DGELU_BGRAD:
    return " DGELU_BGRAD";
  case CUBLASLT_EPILOGUE_BGRADA:
    return " BGRADA";
  case CUBLASLT_EPILOGUE_BGRADB:
    return " BGRADB";
  default:
    return nullptr;
  }
}

static cublasStatus_t checkLayout(const Layout &layout, int32_t type, int32_t batch, bool mayRepeat) {
  if (layout.rows == 0 || layout.cols == 0 || layout.batch < 1 || layout.batch != batch)
    return CUBLAS_STATUS_INVALID_VALUE;
  if (layout.rows > INT32_MAX || layout.cols > INT32_MAX || layout.ld > INT32_MAX)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (layout.order != CUBLASLT_ORDER_COL && layout.order != CUBLASLT_ORDER_ROW)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  bool isCol = layout.order == CUBLASLT_ORDER_COL;
  int64_t inner = int64_t(isCol ? layout.rows : layout.cols), outer = int64_t(isCol ? layout.cols : layout.rows);
  if (layout.ld < inner || layout.stride < 0)
    return CUBLAS_STATUS_INVALID_VALUE;
  // Matrices of a batch must not share what is written.
  if (batch > 1 && !mayRepeat && layout.stride < (outer - 1) * layout.ld + inner)
    return CUBLAS_STATUS_INVALID_VALUE;
  return layout.type == type ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

static bool isTransposition(int32_t operation) {
  return operation == CUBLAS_OP_N || operation == CUBLAS_OP_T || operation == CUBLAS_OP_C;
}

static cublasStatus_t readProblem(cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                  cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, Problem &p) {
  if (!desc || !a || !b || !c || !d)
    return CUBLAS_STATUS_INVALID_VALUE;
  p.desc = as<Desc>(desc);
  p.a = as<Layout>(a);
  p.b = as<Layout>(b);
  p.c = as<Layout>(c);
  p.d = as<Layout>(d);
  const Desc &e = p.desc;
  if (!isTransposition(e.transA) || !isTransposition(e.transB) || e.transC != CUBLAS_OP_N ||
      e.fill != CUBLAS_FILL_MODE_FULL)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  bool is64 = e.compute == CUBLAS_COMPUTE_64F || e.compute == CUBLAS_COMPUTE_64F_PEDANTIC;
  bool is32 = e.compute == CUBLAS_COMPUTE_32F || e.compute == CUBLAS_COMPUTE_32F_PEDANTIC ||
              e.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  int32_t type = is64 ? CUDA_R_64F : CUDA_R_32F;
  if ((!is32 && !is64) || e.scale != type)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (e.pointerMode != CUBLASLT_POINTER_MODE_HOST && e.pointerMode != CUBLASLT_POINTER_MODE_DEVICE)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  p.batch = p.d.batch;
  for (auto [layout, mayRepeat] : {std::pair{&p.a, true}, {&p.b, true}, {&p.c, true}, {&p.d, false}})
    if (cublasStatus_t status = checkLayout(*layout, type, p.batch, mayRepeat))
      return status;
  p.m = p.d.rows;
  p.n = p.d.cols;
  bool ta = e.transA != CUBLAS_OP_N, tb = e.transB != CUBLAS_OP_N;
  p.k = ta ? p.a.rows : p.a.cols;
  if ((ta ? p.a.cols : p.a.rows) != p.m || (tb ? p.b.rows : p.b.cols) != p.n || (tb ? p.b.cols : p.b.rows) != p.k ||
      p.c.rows != p.m || p.c.cols != p.n)
    return CUBLAS_STATUS_INVALID_VALUE;
  p.element = is64 ? 8 : 4;

  if (!epilogueName(e.epilogue))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (e.epilogue == CUBLASLT_EPILOGUE_DEFAULT)
    return CUBLAS_STATUS_SUCCESS;
  if (is64) // no epilogues in f64
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (p.d.order != CUBLASLT_ORDER_COL || p.c.order != CUBLASLT_ORDER_COL)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (e.biasType != -1 && e.biasType != type)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (hasBit(p, 128)) {
    int64_t unit = isRelu(p) ? 128 : 8;
    if (!isRelu(p) && e.auxType != -1 && e.auxType != type)
      return CUBLAS_STATUS_NOT_SUPPORTED;
    if (e.auxLd < int64_t(p.m) || e.auxLd % unit)
      return CUBLAS_STATUS_INVALID_VALUE;
    if (p.batch > 1 && (e.auxStride % unit || e.auxStride < e.auxLd * int64_t(p.n)))
      return CUBLAS_STATUS_INVALID_VALUE;
  }
  return CUBLAS_STATUS_SUCCESS;
}

//===--- Algorithms --------------------------------------------------------------------------------===//

/// What an algorithm's bytes say.
struct Algorithm {
  uint64_t magic;
  uint32_t number;    ///< 0: sums k in one go. 1: in two halves through a workspace; wants aligned matrices
  uint32_t alignment; ///< of all matrices, in bytes
  uint64_t workspace;
  uint32_t epilogue;
  int32_t compute, transA, transB;
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));
static constexpr uint64_t algorithmMagic = 0x5d616c676f726974;

static uint64_t splitWorkspace(const Problem &p) { return (p.m * p.n * p.element + 255) / 256 * 256; }

static Algorithm algorithm(uint32_t number, const Problem &p) {
  return {algorithmMagic,
          number,
          uint32_t(number == 1 ? 16 : p.element),
          number == 1 ? splitWorkspace(p) : 0,
          p.desc.epilogue,
          p.desc.compute,
          p.desc.transA,
          p.desc.transB};
}

static bool leadingDimensionsAligned(const Problem &p, uint32_t alignment) {
  for (const Layout *layout : {&p.a, &p.b, &p.c, &p.d})
    if (uint64_t(layout->ld) * p.element % alignment ||
        (p.batch > 1 && uint64_t(layout->stride) * p.element % alignment))
      return false;
  return true;
}

static cublasLtMatmulHeuristicResult_t resultFor(const Algorithm &algorithm) {
  cublasLtMatmulHeuristicResult_t result = {};
  memcpy(&result.algo, &algorithm, sizeof algorithm);
  result.workspaceSize = algorithm.workspace;
  result.state = CUBLAS_STATUS_SUCCESS;
  result.wavesCount = 1;
  return result;
}

/// How many of the two algorithms the heuristics know.
static uint32_t algorithmsKnown() {
  const char *text = getenv("DLC_STANDIN_ALGORITHMS");
  if (!text || !*text)
    return 2;
  if (text[1] || *text < '0' || *text > '2') {
    fprintf(stderr, "standin: DLC_STANDIN_ALGORITHMS: '%s' is not 0, 1 or 2\n", text);
    _exit(2);
  }
  return uint32_t(*text - '0');
}

LT_API cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                                     cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                                     cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                                     cublasLtMatmulPreference_t preference, int requested,
                                                     cublasLtMatmulHeuristicResult_t *results, int *returned) {
  if (!isLive(handle))
    return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!preference || requested <= 0 || !results || !returned)
    return CUBLAS_STATUS_INVALID_VALUE;
  *returned = 0;
  Problem p;
  if (cublasStatus_t status = readProblem(desc, a, b, c, d, p))
    return status;
  const Preference &wish = as<Preference>(preference);
  uint32_t smallest = *std::min_element(std::begin(wish.alignment), std::end(wish.alignment));
  // The one that needs more comes first, as the faster one does.
  for (uint32_t number : {1u, 0u}) {
    if (number >= algorithmsKnown())
      continue;
    Algorithm one = algorithm(number, p);
    if (*returned < requested && one.workspace <= wish.workspace && smallest % one.alignment == 0 && smallest != 0 &&
        (number == 0 || leadingDimensionsAligned(p, one.alignment)))
      results[(*returned)++] = resultFor(one);
  }
  return *returned ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

/// Whether an algorithm that a program hands over is one for this product.
static cublasStatus_t checkAlgorithm(const Algorithm &given, const Problem &p) {
  if (given.magic != algorithmMagic || given.number > 1)
    return CUBLAS_STATUS_INVALID_VALUE;
  Algorithm own = algorithm(given.number, p);
  if (given.epilogue != own.epilogue || given.compute != own.compute || given.transA != own.transA ||
      given.transB != own.transB)
    return CUBLAS_STATUS_NOT_SUPPORTED; // configured for another kind of product
  return own.number == 0 || leadingDimensionsAligned(p, own.alignment) ? CUBLAS_STATUS_SUCCESS
                                                                       : CUBLAS_STATUS_NOT_SUPPORTED;
}

LT_API cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              const cublasLtMatmulAlgo_t *algo,
                                              cublasLtMatmulHeuristicResult_t *result) {
  if (!isLive(handle))
    return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!algo || !result)
    return CUBLAS_STATUS_INVALID_VALUE;
  Problem p;
  if (cublasStatus_t status = readProblem(desc, a, b, c, d, p))
    return status;
  const Algorithm &given = as<const Algorithm>(algo);
  if (cublasStatus_t status = checkAlgorithm(given, p))
    return status;
  *result = resultFor(algorithm(given.number, p));
  return CUBLAS_STATUS_SUCCESS;
}

//===--- The product itself ----------------------------------------------------------------------------===//

/// Everything of one call of cublasLtMatmul().
struct Product {
  Problem p;
  Algorithm algorithm;
  uint64_t a, b, c, d, workspace;
  double alpha, beta;                 ///< POINTER_MODE_HOST
  uint64_t alphaAddress, betaAddress; ///< POINTER_MODE_DEVICE
  std::string name;
};

/// What one execution is about to touch.
struct Access {
  standin_run *run;
  const Product &product;

  /// Each line of a matrix: a column, or a row where rows are contiguous.
  template <typename F> int lines(const Layout &layout, uint64_t base, F visit) const {
    bool isCol = layout.order == CUBLASLT_ORDER_COL;
    uint64_t inner = isCol ? layout.rows : layout.cols, outer = isCol ? layout.cols : layout.rows;
    for (uint64_t i = 0; i < outer; ++i)
      if (int result = visit(base + i * uint64_t(layout.ld) * product.p.element, inner * product.p.element))
        return result;
    return 0;
  }
  int check(const Layout &layout, uint64_t base, bool write, const char *what) const {
    return lines(layout, base, [&](uint64_t at, uint64_t bytes) {
      return standin_check(run, at, bytes, write, (product.name + ": " + what).c_str());
    });
  }
  int check(uint64_t at, uint64_t bytes, bool write, const char *what) const {
    return standin_check(run, at, bytes, write, (product.name + ": " + what).c_str());
  }
};

template <typename T> static T toTf32(T value) {
  if constexpr (std::is_same_v<T, float>) {
    if (!std::isfinite(value))
      return value;
    uint32_t bits;
    memcpy(&bits, &value, 4);
    bits = (bits + 0xfff + (bits >> 13 & 1)) & ~uint32_t(0x1fff); // to nearest, ties to even
    memcpy(&value, &bits, 4);
  }
  return value;
}

/// The factor as a dense column-major matrix of `rows` × `cols`.
template <typename T>
static std::vector<T> pack(const Layout &layout, bool transposed, const T *data, uint64_t rows, uint64_t cols,
                           bool tf32) {
  std::vector<T> packed(rows * cols);
  bool isCol = layout.order == CUBLASLT_ORDER_COL;
  uint64_t rowStep = isCol != transposed ? 1 : uint64_t(layout.ld),
           colStep = isCol != transposed ? uint64_t(layout.ld) : 1;
  for (uint64_t j = 0; j < cols; ++j)
    for (uint64_t i = 0; i < rows; ++i)
      packed[i + j * rows] = tf32 ? toTf32(data[i * rowStep + j * colStep]) : data[i * rowStep + j * colStep];
  return packed;
}

/// sums[m × n] += a[:, from:to] · b[from:to, :].
template <typename T>
static void accumulate(std::vector<T> &sums, const std::vector<T> &a, const std::vector<T> &b, uint64_t m, uint64_t n,
                       uint64_t k, uint64_t from, uint64_t to) {
  for (uint64_t j = 0; j < n; ++j) {
    T *out = sums.data() + j * m;
    for (uint64_t l = from; l < to; ++l) {
      const T *column = a.data() + l * m;
      T factor = b[l + j * k];
      for (uint64_t i = 0; i < m; ++i)
        out[i] += column[i] * factor;
    }
  }
}

template <typename T> static T gelu(T x) {
  T inner = T(0.7978845608028654) * (x + T(0.044715) * x * x * x);
  return T(0.5) * x * (1 + std::tanh(inner));
}
template <typename T> static T geluGradient(T x) {
  T inner = T(0.7978845608028654) * (x + T(0.044715) * x * x * x), t = std::tanh(inner);
  return T(0.5) * (1 + t) + T(0.5) * x * (1 - t * t) * T(0.7978845608028654) * (1 + 3 * T(0.044715) * x * x);
}

template <typename T> static T *at(uint64_t address) { return reinterpret_cast<T *>(address); }

template <typename T> static int compute(const Product &product, standin_run *run) {
  const Problem &p = product.p;
  const Desc &e = p.desc;
  Access access{run, product};
  T alpha = T(product.alpha), beta = T(product.beta);
  if (e.pointerMode == CUBLASLT_POINTER_MODE_DEVICE) {
    for (auto [address, what, value] :
         {std::tuple{product.alphaAddress, "alpha", &alpha}, {product.betaAddress, "beta", &beta}}) {
      if (int result = access.check(address, sizeof(T), false, what))
        return result;
      *value = *at<T>(address);
    }
  }
  bool tf32 = e.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  bool split = product.algorithm.number == 1;
  if (split)
    if (int result = access.check(product.workspace, product.algorithm.workspace, true, "workspace"))
      return result;
  for (int32_t batch = 0; batch < p.batch; ++batch) {
    auto address = [&](const Layout &layout, uint64_t base) {
      return base + uint64_t(batch) * uint64_t(layout.stride) * sizeof(T);
    };
    uint64_t a = address(p.a, product.a), b = address(p.b, product.b), c = address(p.c, product.c),
             d = address(p.d, product.d);
    uint64_t bias = e.bias + uint64_t(batch) * uint64_t(e.biasStride) * sizeof(T);
    uint64_t auxUnits = uint64_t(batch) * uint64_t(e.auxStride), auxLd = uint64_t(e.auxLd);
    uint64_t aux = e.aux + (isRelu(p) ? auxUnits / 8 : auxUnits * sizeof(T));
    uint64_t auxLine = isRelu(p) ? auxLd / 8 : auxLd * sizeof(T), auxBytes = isRelu(p) ? auxLine : p.m * sizeof(T);

    if (int result = access.check(p.a, a, false, "A"))
      return result;
    if (int result = access.check(p.b, b, false, "B"))
      return result;
    if (beta != 0)
      if (int result = access.check(p.c, c, false, "C"))
        return result;
    if (int result = access.check(p.d, d, true, "D"))
      return result;
    if (hasBit(p, 128))
      for (uint64_t j = 0; j < p.n; ++j)
        if (int result = access.check(aux + j * auxLine, auxBytes, !isGradient(p), "auxiliary buffer"))
          return result;
    uint64_t biasLength = hasBit(p, 512) ? p.n : p.m;
    if (readsBias(p) || writesBias(p))
      if (int result = access.check(bias, biasLength * sizeof(T), writesBias(p), "bias"))
        return result;

    std::vector<T> left = pack(p.a, e.transA != CUBLAS_OP_N, at<const T>(a), p.m, p.k, tf32);
    std::vector<T> right = pack(p.b, e.transB != CUBLAS_OP_N, at<const T>(b), p.k, p.n, tf32);
    std::vector<T> sums(p.m * p.n);
    if (split) {
      std::vector<T> half(p.m * p.n);
      accumulate(half, left, right, p.m, p.n, p.k, 0, p.k / 2);
      accumulate(sums, left, right, p.m, p.n, p.k, p.k / 2, p.k);
      memcpy(at<char>(product.workspace), half.data(), half.size() * sizeof(T));
      standin_mark_written(run, product.workspace, half.size() * sizeof(T));
      for (size_t i = 0; i < sums.size(); ++i)
        sums[i] += half[i];
    } else {
      accumulate(sums, left, right, p.m, p.n, p.k, 0, p.k);
    }

    if (hasBit(p, 256) || hasBit(p, 512)) { // sums of the factors over k, as they lie in memory
      if (tf32) {
        left = pack(p.a, e.transA != CUBLAS_OP_N, at<const T>(a), p.m, p.k, false);
        right = pack(p.b, e.transB != CUBLAS_OP_N, at<const T>(b), p.k, p.n, false);
      }
      std::vector<T> gradient(biasLength);
      for (uint64_t l = 0; l < p.k; ++l)
        for (uint64_t i = 0; i < biasLength; ++i)
          gradient[i] += hasBit(p, 256) ? left[i + l * p.m] : right[l + i * p.k];
      memcpy(at<char>(bias), gradient.data(), biasLength * sizeof(T));
    }
    std::vector<T> biasGradient(hasBit(p, 16) ? p.m : 0);
    auto element = [](const Layout &layout, uint64_t i, uint64_t j) {
      return layout.order == CUBLASLT_ORDER_COL ? i + j * uint64_t(layout.ld) : i * uint64_t(layout.ld) + j;
    };
    for (uint64_t j = 0; j < p.n; ++j) {
      if (hasBit(p, 128) && !isGradient(p) && isRelu(p))
        memset(at<char>(aux + j * auxLine), 0, auxBytes);
      for (uint64_t i = 0; i < p.m; ++i) {
        T value = alpha * sums[i + j * p.m];
        if (beta != 0)
          value += beta * at<const T>(c)[element(p.c, i, j)];
        if (readsBias(p))
          value += at<const T>(bias)[i];
        if (isGradient(p) && isRelu(p)) {
          value = at<const uint8_t>(aux + j * auxLine)[i / 8] >> i % 8 & 1 ? value : T(0);
        } else if (isGradient(p)) {
          value *= geluGradient(at<const T>(aux + j * auxLine)[i]);
        } else if (isRelu(p)) {
          if (hasBit(p, 128) && value > 0)
            at<uint8_t>(aux + j * auxLine)[i / 8] |= uint8_t(1u << i % 8);
          value = value > 0 ? value : T(0); // NaN becomes 0, as on a device
        } else if (hasBit(p, 32)) {
          if (hasBit(p, 128))
            at<T>(aux + j * auxLine)[i] = value;
          value = gelu(value);
        }
        if (hasBit(p, 16))
          biasGradient[i] += value;
        at<T>(d)[element(p.d, i, j)] = value;
      }
      if (hasBit(p, 128) && !isGradient(p))
        standin_mark_written(run, aux + j * auxLine, auxBytes);
    }
    if (hasBit(p, 16))
      memcpy(at<char>(bias), biasGradient.data(), p.m * sizeof(T));
    if (writesBias(p))
      standin_mark_written(run, bias, biasLength * sizeof(T));
    access.lines(p.d, d, [&](uint64_t line, uint64_t bytes) {
      standin_mark_written(run, line, bytes);
      return 0;
    });
  }
  return 0;
}

static int runProduct(void *state, standin_run *run) {
  const auto &product = *static_cast<const Product *>(state);
  return product.p.element == 8 ? compute<double>(product, run) : compute<float>(product, run);
}

static void destroyProduct(void *state) { delete static_cast<Product *>(state); }

/// First and last byte of all matrices of a batch.
static std::pair<uint64_t, uint64_t> extent(const Layout &layout, uint64_t base, size_t element) {
  bool isCol = layout.order == CUBLASLT_ORDER_COL;
  uint64_t inner = isCol ? layout.rows : layout.cols, outer = isCol ? layout.cols : layout.rows;
  uint64_t count = uint64_t(layout.batch - 1) * uint64_t(layout.stride) + (outer - 1) * uint64_t(layout.ld) + inner;
  return {base, base + count * element};
}

static bool overlap(std::pair<uint64_t, uint64_t> a, std::pair<uint64_t, uint64_t> b) {
  return a.first < b.second && b.first < a.second;
}

static cublasStatus_t misaligned(const std::string &name, const char *what, uint64_t address, uint64_t alignment) {
  char text[160];
  snprintf(text, sizeof text, "%s: %s at 0x%llx is not aligned to the %llu bytes that the algorithm was asked for",
           name.c_str(), what, static_cast<unsigned long long>(address), static_cast<unsigned long long>(alignment));
  standin_misuse("misaligned", text);
  return CUBLAS_STATUS_INVALID_VALUE;
}

LT_API cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                                     const void *a, cublasLtMatrixLayout_t aLayout, const void *b,
                                     cublasLtMatrixLayout_t bLayout, const void *beta, const void *c,
                                     cublasLtMatrixLayout_t cLayout, void *d, cublasLtMatrixLayout_t dLayout,
                                     const cublasLtMatmulAlgo_t *algo, void *workspace, size_t workspaceBytes,
                                     cudaStream_t stream) {
  if (!isLive(handle))
    return CUBLAS_STATUS_NOT_INITIALIZED;
  auto product = std::make_unique<Product>();
  Problem &p = product->p;
  if (cublasStatus_t status = readProblem(desc, aLayout, bLayout, cLayout, dLayout, p))
    return status;
  if (!alpha || !beta || !a || !b || !d)
    return CUBLAS_STATUS_INVALID_VALUE;
  product->name = "cublasLt " + std::to_string(p.m) + "x" + std::to_string(p.n) + "x" + std::to_string(p.k) +
                  epilogueName(p.desc.epilogue);
  const std::string &name = product->name;
  product->a = reinterpret_cast<uint64_t>(a);
  product->b = reinterpret_cast<uint64_t>(b);
  product->c = reinterpret_cast<uint64_t>(c);
  product->d = reinterpret_cast<uint64_t>(d);
  product->workspace = reinterpret_cast<uint64_t>(workspace);
  bool onDevice = p.desc.pointerMode == CUBLASLT_POINTER_MODE_DEVICE;
  if (onDevice) {
    product->alphaAddress = reinterpret_cast<uint64_t>(alpha);
    product->betaAddress = reinterpret_cast<uint64_t>(beta);
  } else if (standin_is_device_address(reinterpret_cast<uint64_t>(alpha)) ||
             standin_is_device_address(reinterpret_cast<uint64_t>(beta))) {
    standin_misuse("host-pointer",
                   (name + ": alpha or beta lies in device memory, but the pointer mode says host").c_str());
    return CUBLAS_STATUS_INVALID_VALUE;
  } else {
    product->alpha = p.element == 8 ? *static_cast<const double *>(alpha) : *static_cast<const float *>(alpha);
    product->beta = p.element == 8 ? *static_cast<const double *>(beta) : *static_cast<const float *>(beta);
  }
  bool usesC = onDevice || product->beta != 0;
  if (usesC && !c)
    return CUBLAS_STATUS_INVALID_VALUE;
  if ((readsBias(p) || writesBias(p)) && !p.desc.bias)
    return CUBLAS_STATUS_INVALID_VALUE;
  if (hasBit(p, 128) && !p.desc.aux)
    return CUBLAS_STATUS_INVALID_VALUE;

  if (algo) {
    product->algorithm = as<const Algorithm>(algo);
    if (cublasStatus_t status = checkAlgorithm(product->algorithm, p))
      return status;
    product->algorithm = algorithm(product->algorithm.number, p);
  } else {
    product->algorithm = algorithm(0, p);
  }
  if (product->algorithm.workspace &&
      (workspaceBytes < product->algorithm.workspace || !workspace || product->workspace % 16))
    return CUBLAS_STATUS_INVALID_VALUE;
  uint32_t alignment = product->algorithm.alignment;
  for (auto [what, address] :
       {std::pair{"A", product->a}, {"B", product->b}, {"C", usesC ? product->c : 0}, {"D", product->d}})
    if (address % alignment)
      return misaligned(name, what, address, alignment);
  if ((readsBias(p) || writesBias(p)) && p.desc.bias % p.element)
    return misaligned(name, "the bias", p.desc.bias, p.element);
  if (hasBit(p, 128) && p.desc.aux % 16)
    return misaligned(name, "the auxiliary buffer", p.desc.aux, 16);

  // D may lie on C if it lies there exactly; on a factor never.
  auto written = extent(p.d, product->d, p.element);
  bool sameAsC = product->c == product->d && p.c.ld == p.d.ld && p.c.order == p.d.order && p.c.stride == p.d.stride;
  if (usesC && !sameAsC && overlap(written, extent(p.c, product->c, p.element)))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (overlap(written, extent(p.a, product->a, p.element)) || overlap(written, extent(p.b, product->b, p.element)))
    standin_misuse("overlap", (name + ": D lies on a factor").c_str());

  standin_operation operation = {name.c_str(), runProduct, destroyProduct, product.get()};
  product.release(); // the stand-in's driver owns it from here
  return standin_enqueue(reinterpret_cast<::CUstream_st *>(stream), &operation) == 0 ? CUBLAS_STATUS_SUCCESS
                                                                                     : CUBLAS_STATUS_EXECUTION_FAILED;
}

} // namespace standin::blas
