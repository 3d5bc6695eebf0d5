//===- CompiledTest.cpp - kernels as compilers make them -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// LLVM's NVPTX back end from IR, in process; NVRTC from CUDA C++, where there is one. Answers are
// computed here beside them.
//
//===----------------------------------------------------------------------===//

#include "Common.h"
#include "llvm/AsmParser/Parser.h"
#include "llvm/Bitcode/BitcodeReader.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Module.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Support/SourceMgr.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Target/TargetMachine.h"
#include <cmath>
#include <dlfcn.h>
#include <numeric>

using namespace standin;
using namespace llvm;

namespace {

//===----------------------------------------------------------------------===//
// LLVM
//===----------------------------------------------------------------------===//

std::string emitPtx(llvm::Module &module, StringRef cpu) {
  std::string error;
  Triple triple("nvptx64-nvidia-cuda");
  const llvm::Target *target = TargetRegistry::lookupTarget(triple, error);
  if (!target) {
    ADD_FAILURE() << error;
    return "";
  }
  std::unique_ptr<TargetMachine> machine(target->createTargetMachine(triple, cpu, "+ptx80", TargetOptions(), std::nullopt));
  module.setTargetTriple(triple);
  module.setDataLayout(machine->createDataLayout());
  SmallString<0> text;
  raw_svector_ostream stream(text);
  legacy::PassManager passes;
  if (machine->addPassesToEmitFile(passes, stream, nullptr, CodeGenFileType::AssemblyFile)) {
    ADD_FAILURE() << "no assembly";
    return "";
  }
  passes.run(module);
  return std::string(text);
}

void initialiseTarget() {
  LLVMInitializeNVPTXTargetInfo();
  LLVMInitializeNVPTXTarget();
  LLVMInitializeNVPTXTargetMC();
  LLVMInitializeNVPTXAsmPrinter();
}

std::string ptxFromIr(StringRef ir, StringRef cpu = "sm_80") {
  initialiseTarget();
  LLVMContext context;
  SMDiagnostic diagnostic;
  std::unique_ptr<llvm::Module> module = parseAssemblyString(ir, diagnostic, context);
  if (!module) {
    ADD_FAILURE() << diagnostic.getMessage().str() << " in line " << diagnostic.getLineNo();
    return "";
  }
  return emitPtx(*module, cpu);
}

TEST(FromLlvm, SaxpyWithVectors) {
  std::string ptx = ptxFromIr(R"(
declare i32 @llvm.nvvm.read.ptx.sreg.tid.x()
declare i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
declare <4 x float> @llvm.fma.v4f32(<4 x float>, <4 x float>, <4 x float>)
define ptx_kernel void @saxpy(ptr addrspace(1) align 16 %x, ptr addrspace(1) align 16 %y, float %a, i32 %n) {
  %t = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
  %b = call i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
  %o = shl i32 %b, 5
  %i = add i32 %o, %t
  %in = icmp slt i32 %i, %n
  br i1 %in, label %body, label %done
body:
  %px = getelementptr <4 x float>, ptr addrspace(1) %x, i32 %i
  %py = getelementptr <4 x float>, ptr addrspace(1) %y, i32 %i
  %vx = load <4 x float>, ptr addrspace(1) %px, align 16
  %vy = load <4 x float>, ptr addrspace(1) %py, align 16
  %s = insertelement <4 x float> poison, float %a, i32 0
  %va = shufflevector <4 x float> %s, <4 x float> poison, <4 x i32> zeroinitializer
  %r = call <4 x float> @llvm.fma.v4f32(<4 x float> %va, <4 x float> %vx, <4 x float> %vy)
  store <4 x float> %r, ptr addrspace(1) %py, align 16
  br label %done
done:
  ret void
})");
  EXPECT_NE(ptx.find("ld.global.v4"), std::string::npos);
  Device device;
  ASSERT_NO_FATAL_FAILURE(device.load(ptx));
  std::vector<float> x(4 * 50), y(4 * 50);
  std::iota(x.begin(), x.end(), 1.0f);
  std::iota(y.begin(), y.end(), -7.0f);
  uint64_t dx = device.upload(x, "x"), dy = device.upload(y, "y");
  device.launch("saxpy", {{2}, {32}}, dx, dy, 2.5f, 50);
  std::vector<float> found = device.download<float>(dy, y.size());
  for (size_t i = 0; i < y.size(); ++i)
    EXPECT_EQ(found[i], std::fma(2.5f, x[i], y[i]));
  // each tensor once
  EXPECT_EQ(device.counters.bytesRead, 8 * x.size());
  EXPECT_EQ(device.counters.bytesWritten, 4 * x.size());
  ASSERT_EQ(device.counters.allocations.size(), 2u);
  EXPECT_EQ(device.counters.allocations[0].what, "x");
  EXPECT_EQ(device.counters.allocations[0].bytesRead, 4 * x.size());
  EXPECT_EQ(device.counters.allocations[0].bytesWritten, 0u);
}

TEST(FromLlvm, ReductionThroughSharedMemory) {
  std::string ptx = ptxFromIr(R"(
@partial = internal addrspace(3) global [8 x float] undef, align 4
declare i32 @llvm.nvvm.read.ptx.sreg.tid.x()
declare float @llvm.nvvm.shfl.sync.bfly.f32(i32, float, i32, i32)
declare void @llvm.nvvm.barrier.cta.sync.aligned.all(i32)
define ptx_kernel void @sum(ptr addrspace(1) %x, ptr addrspace(1) %out) {
  %t = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
  %p = getelementptr float, ptr addrspace(1) %x, i32 %t
  %v = load float, ptr addrspace(1) %p
  %s1 = call float @llvm.nvvm.shfl.sync.bfly.f32(i32 -1, float %v, i32 16, i32 31)
  %a1 = fadd float %v, %s1
  %s2 = call float @llvm.nvvm.shfl.sync.bfly.f32(i32 -1, float %a1, i32 8, i32 31)
  %a2 = fadd float %a1, %s2
  %s3 = call float @llvm.nvvm.shfl.sync.bfly.f32(i32 -1, float %a2, i32 4, i32 31)
  %a3 = fadd float %a2, %s3
  %s4 = call float @llvm.nvvm.shfl.sync.bfly.f32(i32 -1, float %a3, i32 2, i32 31)
  %a4 = fadd float %a3, %s4
  %s5 = call float @llvm.nvvm.shfl.sync.bfly.f32(i32 -1, float %a4, i32 1, i32 31)
  %a5 = fadd float %a4, %s5
  %lane = and i32 %t, 31
  %warp = lshr i32 %t, 5
  %first = icmp eq i32 %lane, 0
  br i1 %first, label %put, label %wait
put:
  %ps = getelementptr [8 x float], ptr addrspace(3) @partial, i32 0, i32 %warp
  store float %a5, ptr addrspace(3) %ps
  br label %wait
wait:
  call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)
  %zero = icmp eq i32 %t, 0
  br i1 %zero, label %loop, label %done
loop:
  %i = phi i32 [0, %wait], [%next, %loop]
  %acc = phi float [0.0, %wait], [%more, %loop]
  %pi = getelementptr [8 x float], ptr addrspace(3) @partial, i32 0, i32 %i
  %e = load float, ptr addrspace(3) %pi
  %more = fadd float %acc, %e
  %next = add i32 %i, 1
  %again = icmp slt i32 %next, 8
  br i1 %again, label %loop, label %give
give:
  store float %more, ptr addrspace(1) %out
  br label %done
done:
  ret void
})");
  Device device;
  ASSERT_NO_FATAL_FAILURE(device.load(ptx));
  EXPECT_EQ(device.module->kernel("sum")->staticSharedBytes, 32u);
  std::vector<float> x(256);
  std::iota(x.begin(), x.end(), 1.0f);
  uint64_t dx = device.upload(x, "x"), out = device.memory.allocate(4, "out");
  device.launch("sum", {{1}, {256}}, dx, out);
  EXPECT_EQ(device.download<float>(out, 1)[0], 256.0f * 257 / 2);
}

/// Calls, a switch, a local array, wide integers, conversions, atomics on generic pointers.
TEST(FromLlvm, ControlAndMemory) {
  std::string ptx = ptxFromIr(R"(
declare i32 @llvm.nvvm.read.ptx.sreg.tid.x()
@names = addrspace(4) constant [4 x i16] [i16 5, i16 -6, i16 7, i16 -8], align 2
define internal i64 @pick(i32 %k, {i32, i64} %both) noinline {
  switch i32 %k, label %other [ i32 0, label %zero  i32 1, label %one  i32 2, label %two  i32 3, label %three i32 4, label %four]
zero:
  %a = extractvalue {i32, i64} %both, 0
  %wide = sext i32 %a to i64
  ret i64 %wide
one:
  %b = extractvalue {i32, i64} %both, 1
  ret i64 %b
two:
  %c = extractvalue {i32, i64} %both, 1
  %d = mul i64 %c, %c
  ret i64 %d
three:
  %e = extractvalue {i32, i64} %both, 1
  %f = sdiv i64 %e, 7
  ret i64 %f
four:
  ret i64 4444
other:
  ret i64 -1
}
define ptx_kernel void @k(ptr %out, ptr %count) {
  %array = alloca [8 x i32], align 4
  %t = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
  br label %fill
fill:
  %i = phi i32 [0, %0], [%n, %fill]
  %p = getelementptr [8 x i32], ptr %array, i32 0, i32 %i
  %sq = mul i32 %i, %i
  store i32 %sq, ptr %p
  %n = add i32 %i, 1
  %more = icmp slt i32 %n, 8
  br i1 %more, label %fill, label %go
go:
  %pt = getelementptr [8 x i32], ptr %array, i32 0, i32 %t
  %v = load volatile i32, ptr %pt
  %w = zext i32 %v to i64
  %big = add i64 %w, 10000000000
  %agg0 = insertvalue {i32, i64} poison, i32 -5, 0
  %agg = insertvalue {i32, i64} %agg0, i64 %big, 1
  %r = call i64 @pick(i32 %t, {i32, i64} %agg)
  %j = and i32 %t, 3
  %pc = getelementptr [4 x i16], ptr addrspace(4) @names, i32 0, i32 %j
  %c = load i16, ptr addrspace(4) %pc
  %cw = sext i16 %c to i64
  %sum = add i64 %r, %cw
  %po = getelementptr i64, ptr %out, i32 %t
  store i64 %sum, ptr %po
  %old = atomicrmw add ptr %count, i32 1 seq_cst
  ret void
})");
  Device device;
  ASSERT_NO_FATAL_FAILURE(device.load(ptx));
  uint64_t out = device.memory.allocate(8 * 8, "out"), count = device.upload(std::vector<uint32_t>{100}, "count");
  device.launch("k", {{1}, {8}}, out, count);
  int64_t picked[8] = {-5, 10000000001, int64_t(10000000004ull * 10000000004ull), 10000000009 / 7, 4444, -1, -1, -1};
  const int16_t names[4] = {5, -6, 7, -8};
  std::vector<int64_t> found = device.download<int64_t>(out, 8);
  for (int i = 0; i < 8; ++i)
    EXPECT_EQ(found[size_t(i)], picked[i] + names[i % 4]) << i;
  EXPECT_EQ(device.download<uint32_t>(count, 1)[0], 108u);
}

/// The lines of the model reach the report.
TEST(FromLlvm, LinesOfTheSource) {
  std::string ptx = ptxFromIr(R"(
define ptx_kernel void @k(ptr addrspace(1) %x) !dbg !4 {
  %p = getelementptr float, ptr addrspace(1) %x, i32 100
  store float 0.0, ptr addrspace(1) %p, !dbg !7
  ret void, !dbg !8
}
!llvm.dbg.cu = !{!0}
!llvm.module.flags = !{!2, !3}
!0 = distinct !DICompileUnit(language: DW_LANG_C, file: !1, emissionKind: DebugDirectivesOnly)
!1 = !DIFile(filename: "mlp.dl", directory: "")
!2 = !{i32 2, !"Debug Info Version", i32 3}
!3 = !{i32 2, !"Dwarf Version", i32 2}
!4 = distinct !DISubprogram(name: "k", file: !1, line: 10, type: !5, unit: !0, spFlags: DISPFlagDefinition)
!5 = !DISubroutineType(types: !6)
!6 = !{null}
!7 = !DILocation(line: 23, column: 5, scope: !4)
!8 = !DILocation(line: 24, column: 1, scope: !4)
)");
  Device device;
  ASSERT_NO_FATAL_FAILURE(device.load(ptx));
  uint64_t x = device.memory.allocate(64, "x");
  std::optional<Report> report = device.tryLaunch("k", {}, x);
  ASSERT_TRUE(report);
  EXPECT_EQ(report->fault, Fault::OutOfBounds);
  EXPECT_EQ(report->sourceLine, 23u);
  EXPECT_EQ(report->sourceFile, "mlp.dl");
  EXPECT_EQ(report->address, x + 400);
}

/// Every function of libdevice, as LLVM writes it, is understood.
TEST(FromLlvm, WholeLibdevice) {
  ErrorOr<std::unique_ptr<MemoryBuffer>> file = MemoryBuffer::getFile("/usr/local/cuda/nvvm/libdevice/libdevice.10.bc");
  if (!file)
    GTEST_SKIP() << "no libdevice on this machine";
  initialiseTarget();
  for (StringRef cpu : {"sm_80", "sm_90"}) {
    LLVMContext context;
    Expected<std::unique_ptr<llvm::Module>> module = parseBitcodeFile(**file, context);
    ASSERT_TRUE(bool(module)) << toString(module.takeError());
    Device device;
    device.load(emitPtx(**module, cpu));
  }
}

//===----------------------------------------------------------------------===//
// NVRTC
//===----------------------------------------------------------------------===//

/// CUDA C++ to PTX. Empty, and the test is skipped, where the library is not installed.
class FromCuda : public ::testing::Test {
protected:
  void SetUp() override {
    for (const char *name : {"libnvrtc.so.13", "/usr/local/cuda/lib64/libnvrtc.so.13", "libnvrtc.so.12", "/usr/local/cuda/lib64/libnvrtc.so"})
      if (!library)
        library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library)
      GTEST_SKIP() << "no NVRTC on this machine";
  }
  template <typename F> F *function(const char *name) {
    void *found = dlsym(library, name);
    EXPECT_TRUE(found) << name;
    return reinterpret_cast<F *>(found);
  }
  std::string compile(const char *source, std::vector<const char *> options = {}) {
    auto *create = function<int(void **, const char *, const char *, int, const char *const *, const char *const *)>("nvrtcCreateProgram");
    auto *build = function<int(void *, int, const char *const *)>("nvrtcCompileProgram");
    auto *ptxSize = function<int(void *, size_t *)>("nvrtcGetPTXSize");
    auto *getPtx = function<int(void *, char *)>("nvrtcGetPTX");
    auto *logSize = function<int(void *, size_t *)>("nvrtcGetProgramLogSize");
    auto *getLog = function<int(void *, char *)>("nvrtcGetProgramLog");
    auto *destroy = function<int(void **)>("nvrtcDestroyProgram");
    void *program;
    EXPECT_EQ(create(&program, source, "kernels.cu", 0, nullptr, nullptr), 0);
    options.push_back("--gpu-architecture=compute_80");
    options.push_back("-lineinfo");
    size_t size;
    if (build(program, int(options.size()), options.data())) {
      logSize(program, &size);
      std::string log(size, 0);
      getLog(program, log.data());
      ADD_FAILURE() << log;
      return "";
    }
    ptxSize(program, &size);
    std::string ptx(size, 0);
    getPtx(program, ptx.data());
    destroy(&program);
    return ptx; // with the NUL at its end, as the driver gets it
  }
  void *library = nullptr;
};

/// libdevice's functions, beside those of the C library.
TEST_F(FromCuda, ElementaryFunctions) {
  std::string ptx = compile(R"(
extern "C" __global__ void f32(const float *x, float *y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float v = x[i];
  y[i] = expf(v); y[n + i] = tanhf(v); y[2 * n + i] = logf(fabsf(v) + 0.1f); y[3 * n + i] = sinf(v * 1000.0f);
  y[4 * n + i] = erff(v); y[5 * n + i] = powf(fabsf(v), 1.7f); y[6 * n + i] = sqrtf(fabsf(v)); y[7 * n + i] = 1.0f / v;
  y[8 * n + i] = cosf(v * 1e9f); y[9 * n + i] = log1pf(fabsf(v)); y[10 * n + i] = rsqrtf(fabsf(v)); y[11 * n + i] = fmodf(v, 0.3f);
}
extern "C" __global__ void f64(const double *x, double *y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  double v = x[i];
  y[i] = exp(v); y[n + i] = tanh(v); y[2 * n + i] = log(fabs(v) + 0.1); y[3 * n + i] = sin(v * 1e6);
  y[4 * n + i] = erf(v); y[5 * n + i] = pow(fabs(v), 1.7); y[6 * n + i] = sqrt(fabs(v)); y[7 * n + i] = 1.0 / v;
})");
  Device device;
  ASSERT_NO_FATAL_FAILURE(device.load(ptx));
  const int n = 100;
  std::vector<float> x;
  std::vector<double> xd;
  for (int i = 0; i < n; ++i) {
    x.push_back((float(i) - 49.5f) / 7);
    xd.push_back((double(i) - 49.5) / 7);
  }
  uint64_t dx = device.upload(x), dxd = device.upload(xd), dy = device.memory.allocate(12 * n * 4, "y"), dyd = device.memory.allocate(8 * n * 8, "yd");
  device.launch("f32", {{4}, {32}}, dx, dy, n);
  device.launch("f64", {{4}, {32}}, dxd, dyd, n);
  std::vector<float> y = device.download<float>(dy, 12 * n);
  std::vector<double> yd = device.download<double>(dyd, 8 * n);
  auto near = [](double found, double expected, double ulp, int row, double at) {
    EXPECT_NEAR(found, expected, 4 * ulp * std::max(std::fabs(expected), 1e-6)) << "function " << row << " of " << at;
  };
  for (int i = 0; i < n; ++i) {
    float f = x[size_t(i)];
    double v = f, expected[] = {std::exp(v), std::tanh(v), std::log(double(std::fabs(f) + 0.1f)), std::sin(double(f * 1000.0f)), std::erf(v),
                                std::pow(std::fabs(v), double(1.7f)), std::sqrt(std::fabs(v)), 1 / v, std::cos(double(f * 1e9f)), std::log1p(std::fabs(v)),
                                1 / std::sqrt(std::fabs(v)), double(std::fmod(f, 0.3f))};
    for (int row = 0; row < 12; ++row)
      near(y[size_t(row * n + i)], expected[row], 0x1p-23, row, v);
    double d = xd[size_t(i)], wide[] = {std::exp(d), std::tanh(d), std::log(std::fabs(d) + 0.1), std::sin(d * 1e6), std::erf(d), std::pow(std::fabs(d), 1.7),
                                        std::sqrt(std::fabs(d)), 1 / d};
    for (int row = 0; row < 8; ++row)
      near(yd[size_t(row * n + i)], wide[row], 0x1p-52, row, d);
  }
}

const char *const tiledProduct = R"(
#define TILE 64
#define DEPTH 16
// C = A B, 64x64 a block of 256 threads, 4x4 a thread, two buffers
extern "C" __global__ void __launch_bounds__(256) product(const float *__restrict__ a, const float *__restrict__ b, float *c, int m, int n, int k) {
  __shared__ float as[2][DEPTH][TILE + 4], bs[2][DEPTH][TILE];
  int t = threadIdx.x, row = blockIdx.y * TILE, column = blockIdx.x * TILE, ty = t / 16 * 4, tx = t % 16 * 4;
  float sum[4][4] = {};
  auto fetch = [&](int buffer, int at) {
    for (int i = t; i < TILE * DEPTH; i += 256) {
      int r = i / DEPTH, d = i % DEPTH;
      as[buffer][d][r] = row + r < m && at + d < k ? a[(row + r) * k + at + d] : 0.0f;
      int e = i / TILE, q = i % TILE;
      bs[buffer][e][q] = at + e < k && column + q < n ? b[(at + e) * n + column + q] : 0.0f;
    }
  };
  fetch(0, 0);
  __syncthreads();
  int buffer = 0;
  for (int at = 0; at < k; at += DEPTH, buffer ^= 1) {
    if (at + DEPTH < k) fetch(buffer ^ 1, at + DEPTH);
#pragma unroll
    for (int d = 0; d < DEPTH; ++d) {
      float4 x = *(float4 *)&as[buffer][d][ty], y = *(float4 *)&bs[buffer][d][tx];
      float u[4] = {x.x, x.y, x.z, x.w}, v[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(u[i], v[j], sum[i][j]);
    }
    BARRIER
  }
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j)
      if (row + ty + i < m && column + tx + j < n) c[(row + ty + i) * n + column + tx + j] = sum[i][j];
})";

TEST_F(FromCuda, TiledProduct) {
  Device device;
  ASSERT_NO_FATAL_FAILURE(device.load(compile(tiledProduct, {"-DBARRIER=__syncthreads();"})));
  const int m = 100, n = 130, k = 70;
  std::vector<float> a(m * k), b(k * n);
  for (size_t i = 0; i < a.size(); ++i)
    a[i] = float(int(i * 37 % 101) - 50) / 50;
  for (size_t i = 0; i < b.size(); ++i)
    b[i] = float(int(i * 53 % 97) - 48) / 48;
  uint64_t da = device.upload(a, "a"), db = device.upload(b, "b"), dc = device.memory.allocate(m * n * 4, "c");
  device.launch("product", {{3, 2}, {256}}, da, db, dc, m, n, k);
  std::vector<float> c = device.download<float>(dc, m * n);
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < n; ++j) {
      float sum = 0;
      for (int d = 0; d < k; ++d)
        sum = std::fma(a[size_t(i * k + d)], b[size_t(d * n + j)], sum);
      ASSERT_EQ(c[size_t(i * n + j)], sum) << i << " " << j;
    }
  EXPECT_EQ(device.counters.bytesWritten, uint64_t(m) * n * 4);
  EXPECT_EQ(device.counters.bytesRead, (uint64_t(m) * k * 3 + uint64_t(k) * n * 2) * 4);
}

/// The same with one of its barriers only: two threads meet in shared memory.
TEST_F(FromCuda, TiledProductWithoutBarriers) {
  Device device;
  ASSERT_NO_FATAL_FAILURE(device.load(compile(tiledProduct, {"-DBARRIER=if (at < DEPTH) __syncthreads();"})));
  uint64_t da = device.upload(std::vector<float>(64 * 64, 1.0f), "a"), db = device.upload(std::vector<float>(64 * 64, 1.0f), "b"),
           dc = device.memory.allocate(64 * 64 * 4, "c");
  std::optional<Report> report = device.tryLaunch("product", {{1}, {256}}, da, db, dc, 64, 64, 64);
  ASSERT_TRUE(report);
  EXPECT_EQ(standin::nameOf(report->fault).str(), "shared-race") << report->str();
  EXPECT_EQ(report->sourceFile.substr(report->sourceFile.size() - 10), "kernels.cu");
  EXPECT_GT(report->sourceLine, 0u);
}

/// Warps, atomics, printf, half precision, a struct by value, a function that is not inlined.
TEST_F(FromCuda, TheRest) {
  std::string ptx = compile(R"(
extern "C" int printf(const char *, ...);
struct Pair { float a; int b[3]; };
__device__ __noinline__ float slow(Pair p, int k) { return p.a * p.b[k % 3]; }
__constant__ float table[4] = {1, 10, 100, 1000};
extern "C" __global__ void k(int *out, int *count, Pair p, int n) {
  int i = threadIdx.x;
  int v = i;
  for (int o = 16; o; o /= 2) v += __shfl_down_sync(~0u, v, o);
  v = __shfl_sync(~0u, v, 0);
  unsigned odd = __ballot_sync(~0u, i & 1);
  int same = __popc(__match_any_sync(~0u, i / 5));
  int total = __reduce_add_sync(~0u, same);
  if (i % 3 == 0) atomicAdd(count, 1);
  float f = slow(p, i) + table[i & 3];
  long long wide = (long long)i * 0x123456789ll % (n + 1000);
  out[i] = v + (odd == 0xaaaaaaaau) + total + int(f) + int(wide) + __clz(i) + __ffs(i) + __brev(i) + __byte_perm(i, 7, 0x1040);
  if (i == 31) printf("thread %d of %s: %5.2f %lld%%\n", i, "k", 1.5, wide);
})");
  Device device;
  ASSERT_NO_FATAL_FAILURE(device.load(ptx));
  struct Pair {
    float a;
    int b[3];
  } pair{2.5f, {4, -6, 8}};
  uint64_t out = device.memory.allocate(32 * 4, "out"), count = device.upload(std::vector<int>{0}, "count");
  ::testing::internal::CaptureStdout();
  device.launch("k", {{1}, {32}}, out, count, pair, 77);
  std::string printed = ::testing::internal::GetCapturedStdout();
  EXPECT_EQ(printed, "thread 31 of k:  1.50 " + std::to_string(31 * 0x123456789ll % 1077) + "%\n");
  EXPECT_EQ(device.download<int>(count, 1)[0], 11);
  std::vector<int> found = device.download<int>(out, 32);
  int total = 0;
  for (int i = 0; i < 32; ++i)
    total += i / 5 == 6 ? 2 : 5;
  for (int i = 0; i < 32; ++i) {
    const float table[4] = {1, 10, 100, 1000};
    float f = pair.a * float(pair.b[i % 3]) + table[i & 3];
    long long wide = (long long)i * 0x123456789ll % 1077;
    uint32_t reversed = 0, u = uint32_t(i);
    for (int bit = 0; bit < 32; ++bit)
      reversed |= (u >> bit & 1) << (31 - bit);
    int clz = i ? __builtin_clz(u) : 32, ffs = __builtin_ffs(i);
    uint32_t permuted = (u & 0xff) | 7u << 8 | (u & 0xff) << 16 | (u >> 8 & 0xff) << 24; // bytes 0, 4, 0, 1
    uint32_t expected = 496 + 1 + uint32_t(total) + uint32_t(int(f)) + uint32_t(int(wide)) + uint32_t(clz) + uint32_t(ffs) + reversed + permuted;
    EXPECT_EQ(uint32_t(found[size_t(i)]), expected) << i;
  }
}

TEST_F(FromCuda, AssertInTheSource) {
  Device device;
  // NVRTC has no <assert.h>; this is what its macro calls.
  ASSERT_NO_FATAL_FAILURE(device.load(compile(R"(
extern "C" __device__ void __assertfail(const char *, const char *, unsigned, const char *, size_t);
extern "C" __global__ void k(int n) { if (threadIdx.x >= n) __assertfail("i < n", "model.cu", 41, "k", 1); }
)")));
  std::optional<Report> report = device.tryLaunch("k", {{1}, {8}}, 6);
  ASSERT_TRUE(report);
  EXPECT_EQ(report->fault, Fault::Assert);
  EXPECT_EQ(report->message, "assertion 'i < n' failed at model.cu:41");
  EXPECT_EQ(report->thread, (Dim3{6, 0, 0}));
}

} // namespace
