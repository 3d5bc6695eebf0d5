//===- CublasLtTest.cpp - the stand-in's cuBLASLt -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "CublasLt.h"
#include "test/standin/driver/TestDriver.h"
#include <cmath>
#include <cstring>
#include <functional>

using namespace standin::test;
using namespace standin::blas;

struct Lt {
#define LT_FUNCTION(result, name, parameters) result(*name) parameters = nullptr;
#include "Functions.def"

  explicit Lt(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      fprintf(stderr, "%s\n", dlerror());
      abort();
    }
#define LT_FUNCTION(result, name, parameters) name = reinterpret_cast<decltype(name)>(dlsym(library, #name));
#include "Functions.def"
  }
};

static Lt &standinLt() {
  static Lt one(STANDIN_CUBLASLT);
  return one;
}

//===--- Descriptors ------------------------------------------------------------===//

/// What the functions of the descriptors answer, good calls and bad.
static std::vector<int> answersOfDescriptors(Lt &lt) {
  std::vector<int> answers;
  auto note = [&](auto answer) { answers.push_back(int(answer)); };
  cublasLtMatmulDesc_t desc;
  note(lt.cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  int32_t value = 1;
  size_t written = 0;
  note(lt.cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &value, 2));
  note(lt.cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &value, 8));
  note(lt.cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &value, 4));
  note(lt.cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, nullptr, 4));
  note(lt.cublasLtMatmulDescSetAttribute(desc, cublasLtMatmulDescAttributes_t(99), &value, 4));
  note(lt.cublasLtMatmulDescGetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &value, 0, &written));
  note(written);
  note(lt.cublasLtMatmulDescGetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &value, 0, nullptr));
  note(lt.cublasLtMatmulDescGetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &value, 2, &written));
  value = 0;
  note(lt.cublasLtMatmulDescGetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &value, 4, &written));
  note(value);
  for (auto [attribute, size] : {std::pair{CUBLASLT_MATMUL_DESC_EPILOGUE, 4},
                                 {CUBLASLT_MATMUL_DESC_BIAS_POINTER, 8},
                                 {CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, 8},
                                 {CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, 8},
                                 {CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, 8},
                                 {CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, 4},
                                 {CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, 8},
                                 {CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE, 4},
                                 {CUBLASLT_MATMUL_DESC_FILL_MODE, 4},
                                 {CUBLASLT_MATMUL_DESC_POINTER_MODE, 4},
                                 {CUBLASLT_MATMUL_DESC_SCALE_TYPE, 4}}) {
    int64_t held = 0;
    note(lt.cublasLtMatmulDescGetAttribute(desc, attribute, &held, size_t(size), &written));
    note(written);
    note(held); // its default
  }
  note(lt.cublasLtMatmulDescDestroy(desc));
  note(lt.cublasLtMatmulDescDestroy(nullptr));
  note(lt.cublasLtMatmulDescCreate(nullptr, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  cublasLtMatmulDescOpaque_t opaqueDesc;
  note(lt.cublasLtMatmulDescInit_internal(&opaqueDesc, 16, CUBLAS_COMPUTE_32F, CUDA_R_32F));

  cublasLtMatrixLayout_t layout;
  note(lt.cublasLtMatrixLayoutCreate(&layout, CUDA_R_32F, 8, 4, 2)); // looked at when it is used
  for (auto [attribute, size] : {std::pair{CUBLASLT_MATRIX_LAYOUT_TYPE, 4},
                                 {CUBLASLT_MATRIX_LAYOUT_ORDER, 4},
                                 {CUBLASLT_MATRIX_LAYOUT_ROWS, 8},
                                 {CUBLASLT_MATRIX_LAYOUT_COLS, 8},
                                 {CUBLASLT_MATRIX_LAYOUT_LD, 8},
                                 {CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, 4},
                                 {CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, 8}}) {
    int64_t held = 0;
    note(lt.cublasLtMatrixLayoutGetAttribute(layout, attribute, &held, size_t(size), &written));
    note(written);
    note(held);
    held = -1;
    note(lt.cublasLtMatrixLayoutSetAttribute(layout, attribute, &held, size_t(size)));
    note(lt.cublasLtMatrixLayoutSetAttribute(layout, attribute, &held, 12 - size_t(size)));
  }
  note(lt.cublasLtMatrixLayoutDestroy(layout));
  cublasLtMatrixLayoutOpaque_t opaqueLayout;
  note(lt.cublasLtMatrixLayoutInit_internal(&opaqueLayout, 8, CUDA_R_32F, 8, 8, 8));
  note(lt.cublasLtMatrixLayoutInit_internal(&opaqueLayout, sizeof opaqueLayout, CUDA_R_32F, 8, 8, 8));

  cublasLtMatmulPreference_t preference;
  note(lt.cublasLtMatmulPreferenceCreate(&preference));
  for (auto [attribute, size] : {std::pair{CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, 8},
                                 {CUBLASLT_MATMUL_PREF_IMPL_MASK, 8},
                                 {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, 4},
                                 {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, 4},
                                 {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, 4},
                                 {CUBLASLT_MATMUL_PREF_SEARCH_MODE, 4}}) {
    int64_t held = 0;
    note(lt.cublasLtMatmulPreferenceGetAttribute(preference, attribute, &held, size_t(size), &written));
    note(written);
    note(held);
    note(lt.cublasLtMatmulPreferenceSetAttribute(preference, attribute, &held, 12 - size_t(size)));
  }
  note(lt.cublasLtMatmulPreferenceDestroy(preference));

  note(lt.cublasLtDestroy(nullptr));
  for (int status = 0; status < 18; ++status)
    for (const char *text :
         {lt.cublasLtGetStatusName(cublasStatus_t(status)), lt.cublasLtGetStatusString(cublasStatus_t(status))})
      for (; *text; ++text)
        note(*text);
  note(lt.cublasLtGetVersion() / 10000);
  return answers;
}

TEST(Descriptors, AnswerAsRecorded) {
  std::vector<int> answers = answersOfDescriptors(standinLt());
  // Create, wrong size twice, right size, no value, no attribute, size asked for, no answer wanted, wrong size, value.
  std::vector<int> begin = {0, 7, 7, 0, 7, 7, 0, 4, 7, 7, 0, 1};
  ASSERT_GT(answers.size(), begin.size());
  EXPECT_EQ(std::vector<int>(answers.begin(), answers.begin() + ptrdiff_t(begin.size())), begin);
}

#ifdef REAL_CUBLASLT
TEST(Descriptors, AnswerAsTheRealOnes) {
  Lt real(REAL_CUBLASLT);
  EXPECT_EQ(answersOfDescriptors(standinLt()), answersOfDescriptors(real));
}
#endif

//===--- Products ------------------------------------------------------------------===//

struct Problem {
  int m = 5, n = 4, k = 7, batch = 1;
  bool transA = false, transB = false, tf32 = false, f64 = false, onDevice = false, inPlace = false, rowMajor = false;
  uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  double alpha = 1.5, beta = 0;
  int pad = 0;               ///< leading dimensions beyond what they must be
  size_t workspaceLimit = 0; ///< for the heuristics
  int auxLd = 0;             ///< 0: as it must be
};

class Products : public DriverTest {
protected:
  Lt &lt = standinLt();
  cublasLtHandle_t handle = nullptr;

  void SetUp() override {
    DriverTest::SetUp();
    ASSERT_EQ(lt.cublasLtCreate(&handle), CUBLAS_STATUS_SUCCESS);
  }
  void TearDown() override {
    EXPECT_EQ(lt.cublasLtDestroy(handle), CUBLAS_STATUS_SUCCESS);
    DriverTest::TearDown();
  }

  /// A matrix in device memory, and the values that it holds, as doubles.
  struct Matrix {
    int rows, cols, ld, batch;
    bool rowMajor, f64;
    std::vector<double> values; ///< all that lies there
    CUdeviceptr address = 0;
    cublasLtMatrixLayout_t layout = nullptr;
    size_t stride() const { return size_t(ld) * size_t(rowMajor ? rows : cols); }
    size_t at(int b, int i, int j) const {
      return size_t(b) * stride() +
             (rowMajor ? size_t(i) * size_t(ld) + size_t(j) : size_t(i) + size_t(j) * size_t(ld));
    }
    double operator()(int b, int i, int j) const { return values[at(b, i, j)]; }
  };

  static double random(uint64_t &seed) { // small, of both signs, exact in f32
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return double(int(seed >> 40 & 0x3ff) - 512) / 256;
  }
  void put(CUdeviceptr address, const std::vector<double> &values, bool f64) {
    std::vector<float> narrow(values.begin(), values.end());
    EXPECT_CU(cu.cuMemcpyHtoD(address, f64 ? static_cast<const void *>(values.data()) : narrow.data(),
                              values.size() * (f64 ? 8 : 4)));
  }
  std::vector<double> get(CUdeviceptr address, size_t count, bool f64) {
    std::vector<double> wide(count);
    if (f64) {
      EXPECT_CU(cu.cuMemcpyDtoH(wide.data(), address, count * 8));
      return wide;
    }
    std::vector<float> narrow = download(address, count);
    return std::vector<double>(narrow.begin(), narrow.end());
  }
  Matrix makeMatrix(int rows, int cols, const Problem &p, uint64_t seed) {
    Matrix matrix{rows, cols, (p.rowMajor ? cols : rows) + p.pad, p.batch, p.rowMajor, p.f64, {}};
    matrix.values.resize(matrix.stride() * size_t(p.batch));
    for (double &value : matrix.values)
      value = random(seed);
    matrix.address = allocate(matrix.values.size() * (p.f64 ? 8 : 4));
    put(matrix.address, matrix.values, p.f64);
    EXPECT_EQ(lt.cublasLtMatrixLayoutCreate(&matrix.layout, p.f64 ? CUDA_R_64F : CUDA_R_32F, uint64_t(rows),
                                            uint64_t(cols), matrix.ld),
              CUBLAS_STATUS_SUCCESS);
    int32_t order = p.rowMajor ? CUBLASLT_ORDER_ROW : CUBLASLT_ORDER_COL, batch = p.batch;
    int64_t stride = int64_t(matrix.stride());
    lt.cublasLtMatrixLayoutSetAttribute(matrix.layout, CUBLASLT_MATRIX_LAYOUT_ORDER, &order, 4);
    lt.cublasLtMatrixLayoutSetAttribute(matrix.layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, 4);
    lt.cublasLtMatrixLayoutSetAttribute(matrix.layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, 8);
    return matrix;
  }
  template <typename T> void set(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, T value) {
    EXPECT_EQ(lt.cublasLtMatmulDescSetAttribute(desc, attribute, &value, sizeof value), CUBLAS_STATUS_SUCCESS);
  }
  cublasLtMatmulPreference_t makePreference(uint64_t workspace, uint32_t alignment) {
    cublasLtMatmulPreference_t preference = nullptr;
    lt.cublasLtMatmulPreferenceCreate(&preference);
    lt.cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, 8);
    for (int attribute = CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES;
         attribute <= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES; ++attribute)
      lt.cublasLtMatmulPreferenceSetAttribute(preference, cublasLtMatmulPreferenceAttributes_t(attribute), &alignment,
                                              4);
    return preference;
  }

  /// Everything of a product, made and destroyed with it.
  struct Setting {
    Products &test;
    Problem p;
    Matrix a, b, c, d;
    cublasLtMatmulDesc_t desc = nullptr;
    CUdeviceptr bias = 0, aux = 0, workspace = 0, scalars = 0;
    std::vector<double> biasValues, auxValues;
    std::vector<uint8_t> mask;
    int auxLd = 0;
    double alpha = 0, beta = 0; ///< for the host; or as floats
    float alpha32 = 0, beta32 = 0;

    bool isRelu() const { return p.epilogue & (2 | 8); }
    bool isGradient() const { return p.epilogue & (8 | 64); }
    bool hasAux() const { return p.epilogue & 128; }
    bool hasBias() const { return p.epilogue & (4 | 16 | 256 | 512); }
    int biasLength() const { return p.epilogue & 512 ? p.n : p.m; }

    Setting(Products &test, const Problem &p)
        : test(test), p(p), a(test.makeMatrix(p.transA ? p.k : p.m, p.transA ? p.m : p.k, p, 1)),
          b(test.makeMatrix(p.transB ? p.n : p.k, p.transB ? p.k : p.n, p, 2)), c(test.makeMatrix(p.m, p.n, p, 3)),
          d(test.makeMatrix(p.m, p.n, p, 4)) {
      Lt &lt = test.lt;
      int element = p.f64 ? 8 : 4;
      lt.cublasLtMatmulDescCreate(&desc,
                                  p.f64    ? CUBLAS_COMPUTE_64F
                                  : p.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32
                                           : CUBLAS_COMPUTE_32F,
                                  p.f64 ? CUDA_R_64F : CUDA_R_32F);
      test.set(desc, CUBLASLT_MATMUL_DESC_TRANSA, int32_t(p.transA ? CUBLAS_OP_T : CUBLAS_OP_N));
      test.set(desc, CUBLASLT_MATMUL_DESC_TRANSB, int32_t(p.transB ? CUBLAS_OP_T : CUBLAS_OP_N));
      test.set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, p.epilogue);
      test.set(desc, CUBLASLT_MATMUL_DESC_POINTER_MODE,
               int32_t(p.onDevice ? CUBLASLT_POINTER_MODE_DEVICE : CUBLASLT_POINTER_MODE_HOST));
      uint64_t seed = 5;
      if (hasBias()) {
        for (int i = 0; i < biasLength() * p.batch; ++i)
          biasValues.push_back(random(seed));
        bias = test.allocate(biasValues.size() * size_t(element));
        if (p.epilogue & 4)
          test.put(bias, biasValues, p.f64);
        test.set(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
        test.set(desc, CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, int64_t(biasLength()));
      }
      if (hasAux()) {
        int unit = isRelu() ? 128 : 8;
        auxLd = p.auxLd ? p.auxLd : (p.m + unit - 1) / unit * unit;
        size_t count = size_t(auxLd) * size_t(p.n) * size_t(p.batch);
        aux = test.allocate(isRelu() ? std::max<size_t>(count / 8, 1) : count * size_t(element));
        if (isGradient() && isRelu()) {
          mask.resize(count / 8);
          for (uint8_t &byte : mask)
            byte = uint8_t(int(random(seed) * 256)); // all patterns
          EXPECT_CU(test.cu.cuMemcpyHtoD(aux, mask.data(), mask.size()));
        } else if (isGradient()) {
          for (size_t i = 0; i < count; ++i)
            auxValues.push_back(random(seed));
          test.put(aux, auxValues, p.f64);
        }
        test.set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, aux);
        test.set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, int64_t(auxLd));
        test.set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, int64_t(auxLd) * p.n);
      }
      alpha = p.alpha;
      beta = p.beta;
      alpha32 = float(alpha);
      beta32 = float(beta);
      scalars = test.allocate(16);
      test.put(scalars, {p.alpha, p.beta}, p.f64);
    }
    ~Setting() {
      for (Matrix *matrix : {&a, &b, &c, &d}) {
        test.lt.cublasLtMatrixLayoutDestroy(matrix->layout);
        EXPECT_EQ(test.cu.cuMemFree(matrix->address), test.contextIsLost ? test.cu.cuCtxSynchronize() : CUDA_SUCCESS);
      }
      for (CUdeviceptr address : {bias, aux, workspace, scalars})
        test.cu.cuMemFree(address);
      test.lt.cublasLtMatmulDescDestroy(desc);
    }
    cublasStatus_t heuristic(cublasLtMatmulHeuristicResult_t *results, int count, int *found,
                             uint32_t alignment = 256) {
      cublasLtMatmulPreference_t preference = test.makePreference(p.workspaceLimit, alignment);
      cublasStatus_t status = test.lt.cublasLtMatmulAlgoGetHeuristic(test.handle, desc, a.layout, b.layout, c.layout,
                                                                     d.layout, preference, count, results, found);
      test.lt.cublasLtMatmulPreferenceDestroy(preference);
      return status;
    }
    cublasStatus_t multiply(const cublasLtMatmulAlgo_t *algo, size_t workspaceBytes = 0, CUstream stream = nullptr) {
      const void *alphaPointer = p.f64 ? static_cast<const void *>(&alpha) : &alpha32;
      const void *betaPointer = p.f64 ? static_cast<const void *>(&beta) : &beta32;
      if (p.onDevice) {
        alphaPointer = reinterpret_cast<const void *>(scalars);
        betaPointer = reinterpret_cast<const void *>(scalars + (p.f64 ? 8 : 4));
      }
      auto pointer = [](CUdeviceptr address) { return reinterpret_cast<void *>(address); };
      return test.lt.cublasLtMatmul(test.handle, desc, alphaPointer, pointer(a.address), a.layout, pointer(b.address),
                                    b.layout, betaPointer, pointer(p.inPlace ? d.address : c.address), c.layout,
                                    pointer(d.address), d.layout, algo, pointer(workspace), workspaceBytes,
                                    reinterpret_cast<cudaStream_t>(stream));
    }
  };

  static double tf32(double value) {
    float narrow = float(value);
    uint32_t bits;
    memcpy(&bits, &narrow, 4);
    uint32_t rest = bits & 0x1fff;
    bits &= ~0x1fffu;
    if (rest > 0x1000 || (rest == 0x1000 && bits & 0x2000))
      bits += 0x2000;
    memcpy(&narrow, &bits, 4);
    return narrow;
  }
  static double gelu(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }

  /// Does the product and compares everything that it writes with plain loops.
  void expectProduct(const Problem &p) {
    SCOPED_TRACE("epilogue " + std::to_string(p.epilogue) + ", " + std::to_string(p.m) + "x" + std::to_string(p.n) +
                 "x" + std::to_string(p.k) + (p.transA ? " T" : " N") + (p.transB ? "T" : "N"));
    Setting s(*this, p);
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;
    ASSERT_EQ(s.heuristic(&result, 1, &found), CUBLAS_STATUS_SUCCESS);
    ASSERT_EQ(found, 1);
    EXPECT_LE(result.workspaceSize, p.workspaceLimit);
    if (result.workspaceSize)
      s.workspace = allocate(result.workspaceSize);
    ASSERT_EQ(s.multiply(&result.algo, result.workspaceSize, stream), CUBLAS_STATUS_SUCCESS);
    ASSERT_CU(cu.cuStreamSynchronize(stream));

    std::vector<double> d = get(s.d.address, s.d.values.size(), p.f64), expected = s.d.values;
    std::vector<double> bias(s.biasValues.size());
    std::vector<double> aux;
    std::vector<uint8_t> mask;
    for (int batch = 0; batch < p.batch; ++batch)
      for (int j = 0; j < p.n; ++j)
        for (int i = 0; i < p.m; ++i) {
          double sum = 0;
          for (int l = 0; l < p.k; ++l) {
            double left = p.transA ? s.a(batch, l, i) : s.a(batch, i, l),
                   right = p.transB ? s.b(batch, j, l) : s.b(batch, l, j);
            sum += p.tf32 ? tf32(left) * tf32(right) : left * right;
            if (p.epilogue == CUBLASLT_EPILOGUE_BGRADA && j == 0)
              bias[size_t(batch * p.m + i)] += left;
            if (p.epilogue == CUBLASLT_EPILOGUE_BGRADB && i == 0)
              bias[size_t(batch * p.n + j)] += right;
          }
          double value = p.alpha * sum;
          if (p.beta != 0)
            value += p.beta * (p.inPlace ? s.d(batch, i, j) : s.c(batch, i, j));
          if (p.epilogue & 4)
            value += s.biasValues[size_t(batch * p.m + i)];
          size_t place = (size_t(batch) * size_t(p.n) + size_t(j)) * size_t(s.auxLd) + size_t(i);
          if (s.hasAux() && !s.isGradient() && s.isRelu()) {
            mask.resize(size_t(s.auxLd) * size_t(p.n) * size_t(p.batch) / 8);
            mask[place / 8] |= uint8_t((value > 0) << place % 8);
          } else if (s.hasAux() && !s.isGradient()) {
            aux.resize(size_t(s.auxLd) * size_t(p.n) * size_t(p.batch));
            aux[place] = value;
          }
          if (s.isGradient() && s.isRelu()) {
            value *= s.mask[place / 8] >> place % 8 & 1;
          } else if (s.isGradient()) {
            double x = s.auxValues[place], step = 1e-5;
            value *= (gelu(x + step) - gelu(x - step)) / (2 * step);
          } else if (s.isRelu()) {
            value = std::max(value, 0.0);
          } else if (p.epilogue & 32) {
            value = gelu(value);
          }
          if (p.epilogue & 16)
            bias[size_t(batch * p.m + i)] += value;
          expected[s.d.at(batch, i, j)] = value;
        }
    double tolerance = p.f64 ? 1e-13 : 1e-5;
    ASSERT_EQ(d.size(), expected.size());
    for (size_t i = 0; i < d.size(); ++i) // the padding stays as it was, too
      ASSERT_NEAR(d[i], expected[i], tolerance * (8 + std::fabs(expected[i]))) << "element " << i;
    if (p.epilogue & (16 | 256 | 512)) {
      std::vector<double> got = get(s.bias, bias.size(), p.f64);
      for (size_t i = 0; i < bias.size(); ++i)
        ASSERT_NEAR(got[i], bias[i], tolerance * (8 + std::fabs(bias[i]))) << "bias gradient " << i;
    }
    if (!mask.empty()) {
      std::vector<uint8_t> got(mask.size());
      ASSERT_CU(cu.cuMemcpyDtoH(got.data(), s.aux, got.size()));
      ASSERT_EQ(got, mask);
    }
    for (int batch = 0; batch < p.batch && !aux.empty(); ++batch)
      for (int j = 0; j < p.n; ++j) {
        size_t line = (size_t(batch) * size_t(p.n) + size_t(j)) * size_t(s.auxLd);
        std::vector<double> got = get(s.aux + line * (p.f64 ? 8 : 4), size_t(p.m), p.f64);
        for (int i = 0; i < p.m; ++i)
          ASSERT_NEAR(got[size_t(i)], aux[line + size_t(i)], tolerance * 16);
      }
    expectNoReports();
  }
};

static const uint32_t allEpilogues[] = {
    CUBLASLT_EPILOGUE_DEFAULT,  CUBLASLT_EPILOGUE_RELU,        CUBLASLT_EPILOGUE_RELU_AUX,
    CUBLASLT_EPILOGUE_BIAS,     CUBLASLT_EPILOGUE_RELU_BIAS,   CUBLASLT_EPILOGUE_RELU_AUX_BIAS,
    CUBLASLT_EPILOGUE_DRELU,    CUBLASLT_EPILOGUE_DRELU_BGRAD, CUBLASLT_EPILOGUE_GELU,
    CUBLASLT_EPILOGUE_GELU_AUX, CUBLASLT_EPILOGUE_GELU_BIAS,   CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
    CUBLASLT_EPILOGUE_DGELU,    CUBLASLT_EPILOGUE_DGELU_BGRAD, CUBLASLT_EPILOGUE_BGRADA,
    CUBLASLT_EPILOGUE_BGRADB};

TEST_F(Products, EveryEpilogue) {
  for (uint32_t epilogue : allEpilogues)
    for (int variant = 0; variant < 4; ++variant) {
      Problem p;
      p.epilogue = epilogue;
      p.transA = variant & 1;
      p.transB = variant & 2;
      p.beta = variant == 3 ? 0.5 : 0;
      p.pad = variant;
      expectProduct(p);
    }
}

TEST_F(Products, EveryEpilogueInBatches) {
  for (uint32_t epilogue : allEpilogues) {
    Problem p;
    p.m = 130; // more than one unit of the mask
    p.n = 3;
    p.k = 4;
    p.batch = 2;
    p.epilogue = epilogue;
    expectProduct(p);
  }
}

TEST_F(Products, Types) {
  for (bool f64 : {false, true})
    for (int variant = 0; variant < 8; ++variant) {
      Problem p;
      p.m = 9;
      p.n = 6;
      p.k = 33;
      p.f64 = f64;
      p.tf32 = !f64 && variant % 2;
      p.transA = variant & 1;
      p.transB = variant & 2;
      p.rowMajor = variant & 4;
      p.beta = -0.25;
      p.pad = 3;
      expectProduct(p);
    }
}

TEST_F(Products, ScalarsOnTheDeviceAndInPlace) {
  for (bool onDevice : {false, true})
    for (double beta : {0.0, 1.0, 2.0}) {
      Problem p;
      p.onDevice = onDevice;
      p.inPlace = true; // as an update of weights is
      p.alpha = -0.125;
      p.beta = beta;
      expectProduct(p);
    }
  // What lies there counts when the product runs, not when it is asked for.
  Problem p;
  p.onDevice = true;
  Setting s(*this, p);
  put(s.scalars, {0, 0}, false);
  ASSERT_EQ(s.multiply(nullptr, 0, stream), CUBLAS_STATUS_SUCCESS);
  put(s.scalars, {1, 0}, false);
  ASSERT_CU(cu.cuStreamSynchronize(stream));
  double sum = 0;
  for (int l = 0; l < p.k; ++l)
    sum += s.a(0, 0, l) * s.b(0, l, 0);
  EXPECT_NEAR(get(s.d.address, 1, false)[0], sum, 1e-5);
}

TEST_F(Products, TwoAlgorithms) {
  Problem p;
  p.m = p.n = p.k = 8; // every leading dimension a multiple of 16 bytes
  p.workspaceLimit = 1 << 20;
  expectProduct(p);
  Setting s(*this, p);
  cublasLtMatmulHeuristicResult_t results[4];
  int found = 0;
  ASSERT_EQ(s.heuristic(results, 4, &found), CUBLAS_STATUS_SUCCESS);
  ASSERT_EQ(found, 2);
  EXPECT_EQ(results[0].workspaceSize, 256u);
  EXPECT_EQ(results[1].workspaceSize, 0u);
  EXPECT_EQ(results[1].state, CUBLAS_STATUS_SUCCESS);
  // A test may ask for a library that knows fewer.
  setStandinEnvironment({{"ALGORITHMS", "1"}});
  ASSERT_EQ(s.heuristic(results, 4, &found), CUBLAS_STATUS_SUCCESS);
  ASSERT_EQ(found, 1);
  EXPECT_EQ(results[0].workspaceSize, 0u);
  setStandinEnvironment({{"ALGORITHMS", "0"}});
  EXPECT_EQ(s.heuristic(results, 4, &found), CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(found, 0);
  setStandinEnvironment({});
  ASSERT_EQ(s.heuristic(results, 4, &found), CUBLAS_STATUS_SUCCESS);
  // Memory that may not be as well aligned excludes the first, as too little workspace does.
  ASSERT_EQ(s.heuristic(results, 4, &found, 8), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(found, 1);
  EXPECT_EQ(s.heuristic(results, 4, &found, 2), CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(found, 0);
  EXPECT_EQ(s.heuristic(results, 0, &found), CUBLAS_STATUS_INVALID_VALUE);
  ASSERT_EQ(s.heuristic(results, 1, &found), CUBLAS_STATUS_SUCCESS);
  cublasLtMatmulHeuristicResult_t checked;
  EXPECT_EQ(lt.cublasLtMatmulAlgoCheck(handle, s.desc, s.a.layout, s.b.layout, s.c.layout, s.d.layout, &results[0].algo,
                                       &checked),
            CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(checked.workspaceSize, 256u);
  // The workspace must be there.
  EXPECT_EQ(s.multiply(&results[0].algo, 256, stream), CUBLAS_STATUS_INVALID_VALUE);
  s.workspace = allocate(256);
  EXPECT_EQ(s.multiply(&results[0].algo, 255, stream), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(s.multiply(&results[0].algo, 256, stream), CUBLAS_STATUS_SUCCESS);
  // An algorithm is for its own kind of product.
  set(s.desc, CUBLASLT_MATMUL_DESC_TRANSA, int32_t(CUBLAS_OP_T));
  EXPECT_EQ(s.multiply(&results[0].algo, 256, stream), CUBLAS_STATUS_NOT_SUPPORTED);
  cublasLtMatmulAlgo_t none = {};
  EXPECT_EQ(s.multiply(&none, 256, stream), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_CU(cu.cuStreamSynchronize(stream));
}

TEST_F(Products, WhatIsRefused) {
  struct Case {
    const char *what;
    cublasStatus_t expected;
    std::function<void(Setting &)> change;
    uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    bool f64 = false;
  };
  auto layoutInt = [&](cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute, int32_t value) {
    lt.cublasLtMatrixLayoutSetAttribute(layout, attribute, &value, 4);
  };
  auto layoutLong = [&](cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute, int64_t value) {
    lt.cublasLtMatrixLayoutSetAttribute(layout, attribute, &value, 8);
  };
  const Case cases[] = {
      {"a leading dimension below the rows", CUBLAS_STATUS_INVALID_VALUE,
       [&](Setting &s) { layoutLong(s.a.layout, CUBLASLT_MATRIX_LAYOUT_LD, 4); }},
      {"k that differ", CUBLAS_STATUS_INVALID_VALUE,
       [&](Setting &s) { layoutLong(s.b.layout, CUBLASLT_MATRIX_LAYOUT_ROWS, 6); }},
      {"m that differ", CUBLAS_STATUS_INVALID_VALUE,
       [&](Setting &s) { layoutLong(s.c.layout, CUBLASLT_MATRIX_LAYOUT_ROWS, 4); }},
      {"no rows", CUBLAS_STATUS_INVALID_VALUE,
       [&](Setting &s) { layoutLong(s.d.layout, CUBLASLT_MATRIX_LAYOUT_ROWS, 0); }},
      {"batches that differ", CUBLAS_STATUS_INVALID_VALUE,
       [&](Setting &s) { layoutInt(s.a.layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, 2); }},
      {"a batch that overlaps itself", CUBLAS_STATUS_INVALID_VALUE,
       [&](Setting &s) {
         for (Matrix *matrix : {&s.a, &s.b, &s.c, &s.d})
           layoutInt(matrix->layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, 2);
         layoutLong(s.d.layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, 19);
       }},
      {"mixed types", CUBLAS_STATUS_NOT_SUPPORTED,
       [&](Setting &s) { layoutInt(s.b.layout, CUBLASLT_MATRIX_LAYOUT_TYPE, CUDA_R_64F); }},
      {"a scale of another type", CUBLAS_STATUS_NOT_SUPPORTED,
       [&](Setting &s) { set(s.desc, CUBLASLT_MATMUL_DESC_SCALE_TYPE, int32_t(CUDA_R_64F)); }},
      {"C transposed", CUBLAS_STATUS_NOT_SUPPORTED,
       [&](Setting &s) { set(s.desc, CUBLASLT_MATMUL_DESC_TRANSC, int32_t(CUBLAS_OP_T)); }},
      {"an order of tiles", CUBLAS_STATUS_NOT_SUPPORTED,
       [&](Setting &s) { layoutInt(s.a.layout, CUBLASLT_MATRIX_LAYOUT_ORDER, 2); }},
      {"vectors of scalars", CUBLAS_STATUS_NOT_SUPPORTED,
       [&](Setting &s) { set(s.desc, CUBLASLT_MATMUL_DESC_POINTER_MODE, int32_t(2)); }},
      {"an epilogue that there is not", CUBLAS_STATUS_INVALID_VALUE,
       [&](Setting &s) { set(s.desc, CUBLASLT_MATMUL_DESC_EPILOGUE, 3u); }},
      {"an epilogue in f64", CUBLAS_STATUS_NOT_SUPPORTED, [](Setting &) {}, CUBLASLT_EPILOGUE_BIAS, true},
      {"a mask whose leading dimension is no multiple of 128", CUBLAS_STATUS_INVALID_VALUE,
       [&](Setting &s) { set(s.desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, int64_t(64)); }, CUBLASLT_EPILOGUE_RELU_AUX},
      {"a mask without one", CUBLAS_STATUS_INVALID_VALUE,
       [&](Setting &s) { set(s.desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, int64_t(0)); }, CUBLASLT_EPILOGUE_DRELU},
      {"gelu's input whose leading dimension is no multiple of 8", CUBLAS_STATUS_INVALID_VALUE,
       [&](Setting &s) { set(s.desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, int64_t(12)); }, CUBLASLT_EPILOGUE_DGELU},
  };
  for (const Case &one : cases) {
    SCOPED_TRACE(one.what);
    Problem p;
    p.epilogue = one.epilogue;
    p.f64 = one.f64;
    Setting s(*this, p);
    one.change(s);
    cublasLtMatmulHeuristicResult_t result;
    int found = 7;
    EXPECT_EQ(s.heuristic(&result, 1, &found), one.expected);
    EXPECT_EQ(found, 0);
    EXPECT_EQ(s.multiply(nullptr, 0, stream), one.expected);
  }
  EXPECT_CU(cu.cuStreamSynchronize(stream));
  EXPECT_EQ(counts().matmuls, 0u);

  // Pointers are only a product's affair.
  Problem p;
  p.epilogue = CUBLASLT_EPILOGUE_RELU_AUX_BIAS;
  Setting s(*this, p);
  cublasLtMatmulHeuristicResult_t result;
  int found = 0;
  set(s.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, CUdeviceptr(0));
  EXPECT_EQ(s.heuristic(&result, 1, &found), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(s.multiply(&result.algo, 0, stream), CUBLAS_STATUS_INVALID_VALUE);
  set(s.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, s.bias);
  set(s.desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, CUdeviceptr(0));
  EXPECT_EQ(s.multiply(&result.algo, 0, stream), CUBLAS_STATUS_INVALID_VALUE);
  set(s.desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, s.aux + 4);
  EXPECT_EQ(s.multiply(&result.algo, 0, stream), CUBLAS_STATUS_INVALID_VALUE);
  expectReport("misaligned", "auxiliary buffer");
  EXPECT_EQ(lt.cublasLtMatmulAlgoGetHeuristic(nullptr, s.desc, s.a.layout, s.b.layout, s.c.layout, s.d.layout, nullptr,
                                              1, &result, &found),
            CUBLAS_STATUS_NOT_INITIALIZED);
  s.p.onDevice = true; // but the descriptor says host
  EXPECT_EQ(s.multiply(&result.algo, 0, stream), CUBLAS_STATUS_INVALID_VALUE);
  expectReport("host-pointer", "alpha or beta lies in device memory");
}

TEST_F(Products, AccessesAreChecked) {
  struct Case {
    const char *what, *kind;
    std::function<void(Setting &)> change;
  };
  CUdeviceptr fresh = 0, freed = 0;
  const Case cases[] = {
      {"A", "out-of-bounds", [&](Setting &s) { s.a.address += 4; }},
      {"B", "unwritten-global", [&](Setting &s) { s.b.address = fresh; }},
      {"D", "use-after-free", [&](Setting &s) { s.d.address = freed; }},
      {"bias", "out-of-bounds", [&](Setting &s) { set(s.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, s.bias + 4); }},
      {"auxiliary buffer", "host-pointer",
       [&](Setting &s) { set(s.desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, CUdeviceptr(4096)); }},
  };
  for (const Case &one : cases) {
    SCOPED_TRACE(one.what);
    fresh = allocate(400);
    freed = allocate(400);
    EXPECT_CU(cu.cuMemFree(freed));
    {
      Problem p;
      p.epilogue = CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
      Setting s(*this, p);
      CUdeviceptr a = s.a.address, b = s.b.address, d = s.d.address;
      one.change(s);
      EXPECT_EQ(s.multiply(nullptr, 0, stream), CUBLAS_STATUS_SUCCESS); // it is asynchronous
      EXPECT_NE(cu.cuStreamSynchronize(stream), CUDA_SUCCESS);
      expectReport(one.kind, std::string("cublasLt 5x4x7 GELU_AUX_BIAS: ") + one.what);
      contextIsLost = true;
      s.a.address = a;
      s.b.address = b;
      s.d.address = d;
    }
    cu.cuMemFree(fresh);
    TearDown();
    contextIsLost = false;
    SetUp();
  }
  Problem p;
  p.m = p.n = p.k = 4;
  Setting s(*this, p);
  CUdeviceptr d = s.d.address;
  s.d.address = s.a.address;
  EXPECT_EQ(s.multiply(nullptr, 0, stream), CUBLAS_STATUS_SUCCESS);
  expectReport("overlap", "D lies on a factor");
  s.d.address = d;
  EXPECT_CU(cu.cuStreamSynchronize(stream));
}

TEST_F(Products, InAGraph) {
  Problem p;
  p.epilogue = CUBLASLT_EPILOGUE_DRELU_BGRAD;
  Setting s(*this, p);
  cu.resetCounters();
  ASSERT_CU(cu.cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  EXPECT_EQ(s.multiply(nullptr, 0, stream), CUBLAS_STATUS_SUCCESS);
  CUgraph graph = nullptr;
  ASSERT_CU(cu.cuStreamEndCapture(stream, &graph));
  CUgraphNode node = nullptr;
  size_t count = 1;
  CUgraphNodeType type;
  EXPECT_CU(cu.cuGraphGetNodes(graph, &node, &count));
  EXPECT_CU(cu.cuGraphNodeGetType(node, &type));
  EXPECT_EQ(type, CU_GRAPH_NODE_TYPE_KERNEL);
  CUgraphExec executable = nullptr;
  ASSERT_CU(cu.cuGraphInstantiate(&executable, graph, 0));
  for (int i = 0; i < 2; ++i)
    EXPECT_CU(cu.cuGraphLaunch(executable, stream));
  EXPECT_CU(cu.cuStreamSynchronize(stream));
  standin_counts now = counts();
  EXPECT_EQ(now.matmuls, 0u);
  EXPECT_EQ(now.graph_matmuls, 2u);
  EXPECT_EQ(now.graph_kernel_launches, 0u);
  // A, B and the mask of 128 bits a column are read; D and the bias gradient are written.
  EXPECT_EQ(now.matmul_bytes_read, 2u * (35 * 4 + 28 * 4 + 4 * 16));
  EXPECT_EQ(now.matmul_bytes_written, 2u * (20 * 4 + 5 * 4));
  standin_kernel_counts kernel;
  ASSERT_TRUE(cu.kernel(0, &kernel));
  EXPECT_STREQ(kernel.name, "cublasLt 5x4x7 DRELU_BGRAD");
  EXPECT_EQ(kernel.graph_launches, 2u);
  EXPECT_CU(cu.cuGraphExecDestroy(executable));
  EXPECT_CU(cu.cuGraphDestroy(graph));
}

TEST_F(Products, HandlesAndFailures) {
  cublasLtHandle_t other = nullptr;
  EXPECT_CU(cu.cuCtxSetCurrent(nullptr));
  EXPECT_EQ(lt.cublasLtCreate(&other), CUBLAS_STATUS_NOT_INITIALIZED);
  EXPECT_CU(cu.cuCtxSetCurrent(context));
  ASSERT_EQ(lt.cublasLtCreate(&other), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(lt.cublasLtDestroy(other), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(lt.cublasLtDestroy(other), CUBLAS_STATUS_NOT_INITIALIZED);
  expectReport("use-after-destroy", "cublasLtDestroy");
  restart({{"FAIL", "cublasLtMatmul:1=2,launch:1"}});
  Problem p;
  Setting s(*this, p);
  EXPECT_EQ(s.multiply(nullptr, 0, stream), CUBLAS_STATUS_EXECUTION_FAILED);
  EXPECT_EQ(s.multiply(nullptr, 0, stream), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(cu.cuStreamSynchronize(stream), CUDA_ERROR_LAUNCH_FAILED);
  contextIsLost = true;
}
