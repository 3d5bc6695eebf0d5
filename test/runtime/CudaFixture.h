//===- CudaFixture.h - a model with a GPU program, by hand -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// The fixture again, with launch lists for some of its functions and one function more, `count`,
// which changes a variable unless it meets a fault.
//
//===----------------------------------------------------------------------===//
#ifndef DLC_TEST_RUNTIME_CUDAFIXTURE_H
#define DLC_TEST_RUNTIME_CUDAFIXTURE_H

#include "Fixture.h"

namespace dlc::test {

/// Number of an exported function, as in Fixture.h.
constexpr uint32_t Count = Prepared + 1;
/// Numbers of functions in the description are larger by this: the init function comes first.
constexpr uint32_t InBlob = 1;

inline std::string ptxImage(int arch) {
  return "// arch " + std::to_string(arch) + "\n.version 7.0\n.address_size 64\n" +
         std::string(1, '\0');
}

/// An ELF header for a GPU without sections, and a word for the fake driver.
inline std::string cubinImage(int arch) {
  std::string bytes(64, '\0');
  bytes.replace(0, 6, "\x7f\x45LF\2\1");
  bytes[18] = static_cast<char>(190);
  return bytes + "arch " + std::to_string(arch) + std::string(1, '\0');
}

inline dl_cuda_parameter bufferParameter(uint32_t number) { return {DL_CUDA_BUFFER, number}; }
inline dl_cuda_parameter sizeParameter(uint32_t place) { return {DL_CUDA_SIZE, place}; }
inline dl_cuda_parameter faultParameter() { return {DL_CUDA_FAULT, 0}; }

inline Launch kernelLaunch(std::string name, uint32_t kernel, Size blocks,
                           const std::vector<uint32_t> &buffers, std::vector<Size> sizes,
                           bool fault = false) {
  Launch launch{.name = name, .location = "fixture.dl:" + std::to_string(kernel + 1)};
  launch.index = kernel;
  launch.grid = {blocks, 1, 1};
  for (uint32_t buffer : buffers)
    launch.parameters.push_back(bufferParameter(buffer));
  for (uint32_t i = 0; i < sizes.size(); ++i)
    launch.parameters.push_back(sizeParameter(i));
  if (fault)
    launch.parameters.push_back(faultParameter());
  launch.sizes = std::move(sizes);
  return launch;
}

/// A loop over the next `inner` launches, from 0 to before dimension 0.
inline Launch loopLaunch(uint32_t inner, const std::vector<uint32_t> &buffers) {
  Launch launch{.name = "for", .location = "fixture.dl:9", .kind = DL_CUDA_LAUNCH_FOR};
  launch.index = inner;
  launch.grid = {0, Size::dim(0)};
  for (uint32_t buffer : buffers)
    launch.parameters.push_back(bufferParameter(buffer));
  return launch;
}
/// The next `inner` launches, or the `other` ones after them.
inline Launch branchLaunch(uint32_t inner, uint32_t other, const std::vector<uint32_t> &buffers) {
  Launch launch = loopLaunch(inner, buffers);
  launch.name = "if";
  launch.kind = DL_CUDA_LAUNCH_IF;
  launch.other = other;
  return launch;
}

inline Model cudaFixtureModel() {
  const Size n = Size::dim(0);
  Model m = fixtureModel();
  m.hasCuda = true;
  m.images = {{DL_CUDA_CUBIN, 80, cubinImage(80)},
              {DL_CUDA_CUBIN, 90, cubinImage(90)},
              {DL_CUDA_PTX, 80, ptxImage(80)},
              {DL_CUDA_PTX, 90, ptxImage(90)}};
  for (const char *symbol : {"predict_matmul", "predict_add", "step_forward", "step_gradient",
                             "step_update", "pick", "stats", "count"})
    m.cudaKernels.push_back({symbol, 128, 0, {{80, 20, 0, 0}, {90, 24, 1024, 8}}});
  m.cudaKernels[3].sharedBytes = 64 << 10;

  Function &predict = m.functions[Predict + InBlob];
  predict.cuda = {{predict.buffers,
                   {kernelLaunch("matmul", 0, n, {0, 2, 5}, {n}),
                    kernelLaunch("add", 1, n.apply(DL_SIZE_CEILDIV, 4), {5, 3, 4, 1}, {n * 3})},
                   {}}};

  // The gradient by cuBLASLt: x' error, or by a kernel.
  Function &step = m.functions[Step + InBlob];
  Gemm gemm{.transposeA = 1, .m = 4, .n = 3, .k = n, .a = 0, .b = 8, .d = 10};
  Launch product{.name = "gradient",
                 .location = "fixture.dl:8:3",
                 .kind = DL_CUDA_LAUNCH_GEMM,
                 .when = DL_CUDA_WITH_CUBLASLT};
  Launch kernel = kernelLaunch("gradient", 3, 1, {0, 8, 10}, {n});
  kernel.when = DL_CUDA_WITHOUT_CUBLASLT;
  step.cuda = {{step.buffers,
                {kernelLaunch("forward", 2, n, {0, 1, 4, 5, 8, 9}, {n}), product, kernel,
                 kernelLaunch("update", 4, 1, {10, 2, 4, 9, 3, 6, 7}, {n}, true)},
                {gemm}}};

  Function &pick = m.functions[Pick + InBlob];
  pick.cuda = {{pick.buffers, {kernelLaunch("pick", 5, 1, {0, 1}, {n}, true)}, {}}};
  Function &stats = m.functions[Stats + InBlob];
  stats.cuda = {{stats.buffers,
                 {
                     kernelLaunch("stats", 6, 1, {0, 1, 2, 3, 4}, {n}),
                 },
                 {}}};

  Function count;
  count.name = "count";
  count.arguments = {{"label", DL_I64, {n}}};
  count.buffers = {{DL_BUFFER_ARGUMENT, 0, n * 8}, {DL_BUFFER_VARIABLE, StepT, 8}};
  count.kernels = {{"count", ""}};
  count.launches = 1;
  count.cuda = {{count.buffers, {kernelLaunch("count", 7, 1, {0, 1}, {n}, true)}, {}}};
  count.cuda[0].launches[0].work = {{n * 2, n * 8, 8, DL_F64}};
  m.functions.push_back(count);
  return m;
}

} // namespace dlc::test
#endif
