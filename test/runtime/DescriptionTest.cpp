//===- DescriptionTest.cpp - descriptions, sizes, plans -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
#include "description.h"
#include "Common.h"
#include "CudaFixture.h"

#include <cmath>
#include <functional>
#include <random>

using namespace dlc::test;

namespace {

dlrt_status check(const std::vector<uint8_t> &blob) {
  return dlrt_description_check(blob.data(), blob.size());
}

/// Reads everything that a model says about itself.
void walk(const dlrt_model *model) {
  dlrt_model_info info;
  dlrt_model_get_info(model, &info);
  size_t bytes = strlen(info.name) + strlen(info.doc) + strlen(info.features);
  for (uint32_t i = 0; i < info.variable_count; ++i) {
    dlrt_variable_info variable;
    EXPECT_OK(dlrt_model_get_variable(model, i, &variable));
    bytes += strlen(variable.name) + strlen(variable.doc);
  }
  for (uint32_t f = 0; f < info.function_count; ++f) {
    dlrt_function_info function;
    EXPECT_OK(dlrt_model_get_function(model, f, &function));
    for (uint32_t a = 0; a < function.argument_count; ++a) {
      dlrt_value_info value;
      EXPECT_OK(dlrt_function_get_argument(model, f, a, &value));
      bytes += strlen(value.name) + strlen(value.shape);
    }
    for (uint32_t k = 0; k < function.kernel_count; ++k)
      bytes += strlen(dlrt_function_kernel_name(model, f, k));
    for (uint32_t l = 0; l < function.launch_count; ++l) {
      dlrt_launch_info launch;
      EXPECT_OK(dlrt_function_get_launch(model, f, l, &launch));
      bytes += strlen(launch.name) + strlen(launch.location);
    }
  }
  for (uint32_t i = 0; i < info.image_count; ++i) {
    dlrt_image_info image;
    EXPECT_OK(dlrt_model_get_image(model, i, &image));
    bytes += image.bytes;
  }
  for (uint32_t k = 0; k < info.gpu_kernel_count; ++k) {
    dlrt_gpu_kernel_info kernel;
    EXPECT_OK(dlrt_model_get_gpu_kernel(model, k, &kernel));
    bytes += strlen(kernel.symbol);
    for (uint32_t i = 0; i < kernel.resource_count; ++i)
      bytes += kernel.resources[i].registers;
  }
  EXPECT_GT(bytes, 0u);
}

TEST(Description, FixtureIsValid) { EXPECT_OK(check(fixtureModel().build())); }

TEST(Description, HeadIsChecked) {
  std::vector<uint8_t> blob = fixtureModel().build();
  EXPECT_FAILS(dlrt_description_check(blob.data(), 80), DLRT_CORRUPT,
               "damaged description: 80 bytes, but its head alone has 88");
  std::vector<uint8_t> foreign = blob;
  foreign[0] = 'X';
  EXPECT_FAILS(check(foreign), DLRT_INCOMPATIBLE,
               "not a model's description: it does not begin with DLMODEL");
  Model newer = fixtureModel();
  newer.abiVersion = DL_ABI_VERSION + 1;
  EXPECT_FAILS(check(newer.build()), DLRT_INCOMPATIBLE,
               "has ABI version " + std::to_string(DL_ABI_VERSION + 1) + ", this runtime speaks version " + std::to_string(DL_ABI_VERSION));
  EXPECT_FAILS(dlrt_description_check(blob.data(), blob.size() - 1), DLRT_CORRUPT,
               "damaged description: it says that it has " + std::to_string(blob.size()) +
                   " bytes, there are " + std::to_string(blob.size() - 1));
}

struct Damage {
  const char *words;
  std::function<void(Model &)> apply;
};

TEST(Description, EachRuleIsChecked) {
  const std::string longText(DLRT_MAX_NAME_BYTES + 1, 'n');
  const Damage cases[] = {
      {"name is no text", [](Model &m) { m.name = ""; }},
      {"name is no text", [&](Model &m) { m.name = longText; }},
      {"name is no printable text", [](Model &m) { m.name = "a\nb"; }},
      {"name is no printable text", [](Model &m) { m.name = "\xC0\x80"; }},
      {"name is no printable text", [](Model &m) { m.name = "\xED\xA0\x80"; }},
      {"name is no printable text", [](Model &m) { m.name = "\xF4\x90\x80\x80"; }},
      {"query symbol is no text", [](Model &m) { m.query = ""; }},
      {"too many dynamic dimensions", [](Model &m) { m.dims.resize(17, "D"); }},
      {"variable 1: unknown element type", [](Model &m) { m.variables[1].kind = 9; }},
      {"variable 0: bytes do not follow",
       [](Model &m) { m.variables[0].dims = {1ll << 40, 1ll << 40}; }},
      {"variable 0: bytes do not follow", [](Model &m) { m.variables[0].dims = {-4, -3}; }},
      {"variables are too large",
       [](Model &m) { m.variables[0].dims = m.variables[1].dims = {(1ll << 60) - 1}; }},
      {"variable 'w' is there twice", [](Model &m) { m.variables[1].name = "w"; }},
      {"function 'step' is there twice", [](Model &m) { m.functions[1].name = "step"; }},
      {"variable 'random.seed' is not an i64 scalar",
       [](Model &m) { m.variables[Seed].dims = {1}; }},
      {"messages have other values than there are",
       [](Model &m) { m.functions[1].logs = {{"a", "b", "c"}}; }},
      {"function 9, message 1: messages are kept in other values than theirs",
       [](Model &m) { m.functions[9].kept.erase(3); }}, // they begin elsewhere then
      {"messages have other values than there are",
       [](Model &m) { m.functions[9].kept[4] = {1, {{"", DL_I64, {}}}}; }},
      {"function 9, message 1: messages are kept in other values than theirs",
       [](Model &m) { m.functions[9].kept[1].count = 4; }},
      {"function 9, message 1: messages are kept in other values than theirs",
       [](Model &m) { m.functions[9].results[0].dtype = DL_I32; }},
      {"function 9, message 1: messages are kept in other values than theirs",
       [](Model &m) { m.functions[9].results[1].dims[0] = Size::dim(0); }},
      {"function 9, message 1: messages are kept in other values than theirs",
       [](Model &m) { m.functions[9].results[3].dims = {3}; }},
      {"function 9, message 1: messages are kept in other values than theirs",
       [](Model &m) { m.functions[9].kept[1].types[1].dtype = DL_F64; }},
      {"function 9, message 1: unknown element type",
       [](Model &m) { m.functions[9].kept[1].types[1].dtype = 10; }},
      {"function 8, message 0: words is no text",
       [](Model &m) { m.functions[8].logs[0][0] = std::string(DLRT_MAX_TEXT_BYTES + 1, 'w'); }},
      {"function 1, argument 0: name is no text",
       [](Model &m) { m.functions[1].arguments[0].name = ""; }},
      {"function 1, argument 0: unknown element type",
       [](Model &m) { m.functions[1].arguments[0].dtype = 10; }},
      {"function 1, argument 0: unknown element type",
       [](Model &m) { m.functions[1].arguments[0].dims.resize(9, 1); }},
      {"a size names a dimension",
       [](Model &m) { m.functions[1].arguments[0].dims[0] = Size::dim(1); }},
      {"a size names a dimension",
       [](Model &m) { m.functions[1].arguments[0].dims[0] = Size::dim(-1); }},
      {"a size lacks an operand",
       [](Model &m) {
         m.functions[1].arguments[0].dims[0] = Size({DL_SIZE_CONST, 1, DL_SIZE_ADD});
       }},
      {"a size lacks an operand",
       [](Model &m) {
         m.functions[1].arguments[0].dims[0] = Size(std::vector<int64_t>{DL_SIZE_NOT});
       }},
      {"a size leaves other than one",
       [](Model &m) {
         m.functions[1].arguments[0].dims[0] = Size({DL_SIZE_CONST, 1, DL_SIZE_CONST, 1});
       }},
      {"a size leaves other than one",
       [](Model &m) { m.functions[1].arguments[0].dims[0] = Size(std::vector<int64_t>()); }},
      {"a size is cut off",
       [](Model &m) {
         m.functions[1].arguments[0].dims[0] = Size(std::vector<int64_t>{DL_SIZE_CONST});
       }},
      {"a size has an unknown operation",
       [](Model &m) { m.functions[1].arguments[0].dims[0] = Size({14, 1}); }},
      {"a size is too long",
       [](Model &m) { m.functions[1].arguments[0].dims[0] = Size(std::vector<int64_t>(1025)); }},
      {"a size is cut off or too deep",
       [](Model &m) {
         Size deep = 1;
         for (int i = 0; i < 33; ++i)
           deep = Size(1).apply(DL_SIZE_ADD, deep);
         m.functions[1].arguments[0].dims[0] = deep;
       }},
      {"impossible default", [](Model &m) { m.functions[1].arguments[0].hasDefault = true; }},
      {"impossible default",
       [](Model &m) { m.functions[7].arguments[1] = {"launches", DL_I64, {}, true, 1.5}; }},
      {"impossible default",
       [](Model &m) { m.functions[7].arguments[1] = {"launches", DL_U8, {}, true, 256}; }},
      {"impossible default",
       [](Model &m) { m.functions[7].arguments[1] = {"launches", DL_I64, {}, true, 0x1p63}; }},
      {"impossible default",
       [](Model &m) { m.functions[7].arguments[1] = {"launches", DL_I64, {}, true, NAN}; }},
      {"function 1, buffer 0: refers to what does not exist",
       [](Model &m) { m.functions[1].buffers[0].index = 1; }},
      {"function 1, buffer 1: refers to what does not exist",
       [](Model &m) { m.functions[1].buffers[1].index = 1; }},
      {"function 1, buffer 2: refers to what does not exist",
       [](Model &m) { m.functions[1].buffers[2].index = 8; }},
      {"function 1, buffer 5: impossible lifetime",
       [](Model &m) { m.functions[1].buffers[5].last = 2; }},
      {"function 1, buffer 5: impossible lifetime",
       [](Model &m) { m.functions[1].buffers[5].first = 3; }},
      {"function 1, buffer 0: unknown kind", [](Model &m) { m.functions[1].buffers[0].kind = 6; }},
      {"function 2, buffer 10: prepared for a function that changes variables",
       [](Model &m) { m.functions[2].buffers[10].kind = DL_BUFFER_PREPARED; }},
      {"function 11, buffer 4: the size of what is prepared is not constant",
       [](Model &m) { m.functions[11].buffers[4].bytes = Size::dim(0); }},
      {"function 11, buffer 4: the size of what is prepared is not constant",
       [](Model &m) { m.functions[11].buffers[4].bytes = -1; }},
      {"function 1, check 0: message is no text",
       [](Model &m) { m.functions[1].checks[0].message = ""; }},
      {"function 1, kernel 0: name is no text",
       [](Model &m) { m.functions[1].kernels[0].name = ""; }},
      {"function 2, kernel 1: work of an unknown element type",
       [](Model &m) { m.functions[2].kernels[1].work[0].dtype = DL_I32; }},
      {"function 0: an init function's seed",
       [](Model &m) { m.functions[0].arguments[0].dtype = DL_I32; }},
      {"function 0: an init function takes",
       [](Model &m) { m.functions[0].results = {{"", DL_F32, {}}}; }},
      {"more than one init function",
       [](Model &m) {
         m.functions[3].flags |= DL_FUNCTION_INIT, m.functions[3].arguments = {},
                                                   m.functions[3].results = {},
                                                   m.functions[3].buffers = {};
       }},
      {"function 1: impossible scratch",
       [](Model &m) { m.functions[1].scratchBytes = UINT64_MAX; }},
      {"fault 0: message is no text", [](Model &m) { m.faults[0].message = ""; }},
  };
  for (const Damage &damage : cases) {
    Model m = fixtureModel();
    damage.apply(m);
    std::vector<uint8_t> blob = m.build();
    dlrt_model *model = nullptr;
    EXPECT_FAILS_WITH(dlrt_description_model(blob.data(), blob.size(), &model), DLRT_CORRUPT,
                      damage.words);
    EXPECT_EQ(model, nullptr);
  }
}

TEST(Description, CudaFixtureIsValid) { EXPECT_OK(check(cudaFixtureModel().build())); }

TEST(Description, EachRuleOfAGpuProgramIsChecked) {
  auto step = [](Model &m) -> CudaFunction & { return m.functions[Step + InBlob].cuda[0]; };
  auto predict = [](Model &m) -> CudaFunction & { return m.functions[Predict + InBlob].cuda[0]; };
  auto code = [](Model &m) -> std::string & { return m.images[0].data; };
  const std::vector<int64_t> unknown = {99};
  const uint32_t none = DL_CUDA_NO_BUFFER;
  const Damage cases[] = {
      {"damaged description: unknown flags", [](Model &m) { m.flags = 2; }},
      {"neither CPU code nor a program for a GPU", [](Model &m) { m.flags = 1; }},
      {"function 3: a program for a GPU in a model without one",
       [](Model &m) {
         m.hasCuda = false;
         m.functions[Predict + InBlob].cuda.clear();
         m.functions[Step + InBlob].cuda.clear();
       }},
      {"GPU kernels without an image", [](Model &m) { m.images.clear(); }},
      {"image 2: unknown kind", [](Model &m) { m.images[2].kind = 2; }},
      {"image 2: unknown kind or architecture", [](Model &m) { m.images[2].arch = 9; }},
      {"image 2: unknown kind or architecture", [](Model &m) { m.images[2].arch = 10000; }},
      {"image 2: data out of bounds", [](Model &m) { m.images[2].data = ""; }},
      {"image 2: PTX does not end", [](Model &m) { m.images[2].data.pop_back(); }},
      {"image 2: PTX does not end", [](Model &m) { m.images[2].data[3] = 0; }},
      {"image 0: machine code is no whole", [&](Model &m) { code(m).resize(63); }},
      {"image 0: machine code is no whole", [&](Model &m) { code(m)[4] = 1; }},
      {"image 0: machine code is no whole", [&](Model &m) { code(m)[18] = 62; }},
      {"image 0: machine code is no whole", [&](Model &m) { code(m)[60] = 1, code(m)[58] = 63; }},
      {"image 0: machine code is no whole", [&](Model &m) { code(m)[56] = 1, code(m)[54] = 55; }},
      {"image 0: machine code is no whole", [&](Model &m) { code(m)[47] = 1; }},
      {"image 0: machine code is no whole",
       [&](Model &m) { // a section beyond the end
         std::string &data = code(m);
         data.resize(128);
         data[40] = 64, data[60] = 1, data[58] = 64;
         data[64 + 4] = 1, data[64 + 24] = 100, data[64 + 32] = 29;
       }},
      {"image 0: machine code is no whole",
       [&](Model &m) { // a segment beyond the end
         std::string &data = code(m);
         data.resize(120);
         data[32] = 64, data[56] = 1, data[54] = 56;
         data[64 + 8] = 100, data[64 + 32] = 21;
       }},
      {"GPU kernel 1: symbol is no text", [](Model &m) { m.cudaKernels[1].symbol = ""; }},
      {"GPU kernel 1: impossible block", [](Model &m) { m.cudaKernels[1].threads = 0; }},
      {"GPU kernel 1: impossible block", [](Model &m) { m.cudaKernels[1].threads = 1025; }},
      {"GPU kernel 1: impossible block", [](Model &m) { m.cudaKernels[1].sharedBytes = 1 << 21; }},
      {"function 2, GPU buffer 0: refers to what does not exist",
       [&](Model &m) { step(m).buffers[0].index = 3; }},
      {"function 2, GPU buffer 4: refers to what does not exist",
       [&](Model &m) { step(m).buffers[4].index = 8; }},
      {"function 2, GPU buffer 8: impossible lifetime",
       [&](Model &m) { step(m).buffers[8].last = 3; }},
      {"function 2, GPU buffer 8: a size has an unknown operation",
       [&](Model &m) { step(m).buffers[8].bytes = unknown; }},
      {"function 1, GPU buffer 4: a constant's size is not constant",
       [&](Model &m) { predict(m).buffers[4].bytes = Size::dim(0); }},
      {"function 1, GPU buffer 4: a constant's size is not constant or beyond the end",
       [&](Model &m) { predict(m).buffers[4].bytes = 1 << 20; }},
      {"function 1, GPU buffer 4: a constant's size is not constant",
       [&](Model &m) { predict(m).buffers[4].bytes = -1; }},
      {"function 1, GPU buffer 5: prepared for a program that has no preparation",
       [&](Model &m) { predict(m).buffers[5] = {DL_BUFFER_PREPARED, 0, 48}; }},
      {"function 2, launch 0: name is no text", [&](Model &m) { step(m).launches[0].name = ""; }},
      {"function 2, launch 0: location is no printable text",
       [&](Model &m) { step(m).launches[0].location = "\n"; }},
      {"function 2, launch 0: unknown kind", [&](Model &m) { step(m).launches[0].kind = 4; }},
      {"function 2, launch 0: unknown kind or condition",
       [&](Model &m) { step(m).launches[0].when = 3; }},
      {"function 2, launch 0: refers to what does not exist",
       [&](Model &m) { step(m).launches[0].index = 8; }},
      {"function 2, launch 0: a size has an unknown operation",
       [&](Model &m) { step(m).launches[0].grid[2] = unknown; }},
      {"function 2, launch 0: a size names a dimension",
       [&](Model &m) { step(m).launches[0].sizes[0] = Size::dim(1); }},
      {"function 2, launch 0: a parameter refers to a buffer",
       [&](Model &m) { step(m).launches[0].parameters[2].value = 12; }},
      {"function 2, launch 0: a parameter of unknown kind",
       [&](Model &m) { step(m).launches[0].parameters[2].kind = 3; }},
      {"function 2, launch 0: too many parameters",
       [&](Model &m) { step(m).launches[0].parameters.resize(4096, faultParameter()); }},
      {"function 2, launch 1: refers to what does not exist",
       [&](Model &m) { step(m).launches[1].index = 1; }},
      {"function 2, launch 1: refers to what does not exist",
       [&](Model &m) { step(m).launches[1].parameters = {faultParameter()}; }},
      {"function 2, launch 1: a product of cuBLASLt for where",
       [&](Model &m) { step(m).launches[1].when = DL_CUDA_WITHOUT_CUBLASLT; }},
      {"function 2, launch 0: a loop or branch with other parameters",
       [&](Model &m) { step(m).launches[0] = loopLaunch(1, {none}); }},
      {"function 2, launch 0: a loop or branch with other parameters",
       [&](Model &m) { step(m).launches[0] = loopLaunch(1, {none, none, 8}); }},
      {"function 2, launch 0: a loop or branch with other parameters",
       [&](Model &m) { step(m).launches[0] = branchLaunch(1, 1, {}); }},
      {"function 2, launch 0: a parameter refers to a buffer",
       [&](Model &m) { step(m).launches[0] = loopLaunch(1, {none, none, 8, none}); }},
      {"function 2, launch 0: a parameter refers to a buffer",
       [&](Model &m) { step(m).launches[0] = branchLaunch(1, 1, {12}); }},
      {"function 2, launch 0: a loop exchanges places outside of the arena",
       [&](Model &m) { step(m).launches[0] = loopLaunch(1, {none, none, 8, 0}); }},
      {"function 2, launch 0: unknown kind or condition",
       [&](Model &m) {
         step(m).launches[0] = loopLaunch(1, {none, none});
         step(m).launches[0].when = DL_CUDA_WITH_CUBLASLT;
       }},
      {"function 2, launch 0: a size has an unknown operation",
       [&](Model &m) {
         step(m).launches[0] = loopLaunch(1, {none, none});
         step(m).launches[0].grid[1] = unknown;
       }},
      {"function 2: a loop or branch reaches beyond what it is in",
       [&](Model &m) { step(m).launches[0] = loopLaunch(4, {none, none}); }},
      {"function 2: a loop or branch reaches beyond what it is in",
       [&](Model &m) { step(m).launches[0] = branchLaunch(2, 2, {8}); }},
      {"function 2: a loop or branch reaches beyond what it is in", // of one in another
       [&](Model &m) {
         step(m).launches[0] = loopLaunch(2, {none, none});
         step(m).launches[1] = loopLaunch(2, {none, none});
       }},
      {"function 2: loops and branches are nested too deeply",
       [&](Model &m) {
         std::vector<Launch> deep;
         for (uint32_t rest = 600; rest-- > 0;)
           deep.push_back(loopLaunch(rest, {none, none}));
         step(m).launches = deep;
       }},
      {"function 2, product 0: unknown element type",
       [&](Model &m) { step(m).gemms[0].dtype = DL_F16; }},
      {"function 2, product 0: unknown element type, flag",
       [&](Model &m) { step(m).gemms[0].tf32 = 2; }},
      {"function 2, product 0: unknown element type, flag",
       [&](Model &m) { step(m).gemms[0].transposeB = 2; }},
      {"function 2, product 0: unknown element type, flag or epilogue",
       [&](Model &m) { step(m).gemms[0].epilogue = DL_CUDA_EPILOGUE_COUNT; }},
      {"function 2, product 0: a product names a buffer",
       [&](Model &m) { step(m).gemms[0].a = 12; }},
      {"function 2, product 0: a product lacks a buffer",
       [&](Model &m) { step(m).gemms[0].b = none; }},
      {"function 2, product 0: a product writes to what is read only",
       [&](Model &m) { step(m).gemms[0].d = 0; }},
      {"function 2, product 0: a product has one of c and beta",
       [&](Model &m) { step(m).gemms[0].c = 10; }},
      {"function 2, product 0: a product names a buffer",
       [&](Model &m) { step(m).gemms[0].alpha = 12; }},
      {"function 2, product 0: a product names a buffer", // that it has no use for
       [&](Model &m) { step(m).gemms[0].bias = 8; }},
      {"function 2, product 0: a product lacks a buffer",
       [&](Model &m) { step(m).gemms[0].epilogue = DL_CUDA_EPILOGUE_BIAS; }},
      {"function 2, product 0: a product lacks a buffer",
       [&](Model &m) { step(m).gemms[0].epilogue = DL_CUDA_EPILOGUE_DRELU; }},
      {"function 2, product 0: a product writes to what is read only",
       [&](Model &m) {
         step(m).gemms[0].epilogue = DL_CUDA_EPILOGUE_BGRADA;
         step(m).gemms[0].bias = 1;
       }},
      {"function 2, product 0: a product writes to what is read only",
       [&](Model &m) {
         step(m).gemms[0].epilogue = DL_CUDA_EPILOGUE_RELU_AUX;
         step(m).gemms[0].aux = 1;
       }},
      {"function 2, product 0: a size has an unknown operation",
       [&](Model &m) {
         step(m).gemms[0].epilogue = DL_CUDA_EPILOGUE_RELU_AUX;
         step(m).gemms[0].aux = 8;
         step(m).gemms[0].auxLd = unknown;
       }},
      {"function 2, product 0: a size has an unknown operation",
       [&](Model &m) { step(m).gemms[0].k = unknown; }},
      {"function 2, product 0: a size has an unknown operation",
       [&](Model &m) { step(m).gemms[0].strideD = unknown; }},
  };
  for (const Damage &damage : cases) {
    Model m = cudaFixtureModel();
    damage.apply(m);
    std::vector<uint8_t> blob = m.build();
    EXPECT_FAILS_WITH(check(blob), DLRT_CORRUPT, damage.words);
  }
}

// References of the tables themselves, which the builder always gets right.
TEST(Description, TablesOfAGpuProgramLieWithinBounds) {
  const std::vector<uint8_t> blob = cudaFixtureModel().build();
  auto expectDamage = [&](uint32_t offset, uint32_t value, const char *words) {
    std::vector<uint8_t> damaged = blob;
    memcpy(damaged.data() + offset, &value, sizeof value);
    EXPECT_FAILS_WITH(check(damaged), DLRT_CORRUPT, words);
  };
  dl_blob head;
  memcpy(&head, blob.data(), sizeof head);
  dl_function_desc function;
  const uint32_t at = head.functions + (Step + InBlob) * sizeof function;
  memcpy(&function, blob.data() + at, sizeof function);
  dl_cuda_function_desc program;
  memcpy(&program, blob.data() + function.cuda, sizeof program);
  const uint32_t end = blob.size(), large = 1 << 30;
  expectDamage(offsetof(dl_blob, cuda), end, "the program for a GPU out of bounds");
  expectDamage(offsetof(dl_blob, cuda), head.cuda + 1, "the program for a GPU out of bounds");
  expectDamage(head.cuda + offsetof(dl_cuda_desc, images), end, "images out of bounds");
  expectDamage(head.cuda + offsetof(dl_cuda_desc, image_count), large, "images out of bounds");
  expectDamage(head.cuda + offsetof(dl_cuda_desc, kernel_count), large,
               "GPU kernels out of bounds");
  expectDamage(at + offsetof(dl_function_desc, cuda), end, "program for a GPU out of bounds");
  expectDamage(function.cuda + offsetof(dl_cuda_function_desc, buffer_count), large,
               "GPU buffers out of bounds");
  expectDamage(function.cuda + offsetof(dl_cuda_function_desc, launches), 8,
               "launches out of bounds");
  expectDamage(function.cuda + offsetof(dl_cuda_function_desc, gemm_count), large,
               "products out of bounds");
  dl_cuda_desc cuda;
  memcpy(&cuda, blob.data() + head.cuda, sizeof cuda);
  expectDamage(cuda.images + offsetof(dl_cuda_image, data), end, "image 0: data out of bounds");
  expectDamage(cuda.images + offsetof(dl_cuda_image, bytes), large, "image 0: data out of bounds");
  expectDamage(cuda.kernels + offsetof(dl_cuda_kernel_desc, resource_count), large,
               "GPU kernel 0: resources out of bounds");
  expectDamage(program.launches + offsetof(dl_cuda_launch_desc, parameter_count), large,
               "launch 0: parameters out of bounds");
  expectDamage(program.launches + offsetof(dl_cuda_launch_desc, work), end,
               "launch 0: work of a kernel out of bounds");
  dl_kernel_desc kernels[2];
  memcpy(kernels, blob.data() + function.kernels, sizeof kernels);
  expectDamage(kernels[1].work + offsetof(dl_work_desc, read_bytes), end,
               "kernel 1: size out of bounds");
}

TEST(Description, TablesMayNotOverlap) {
  // Many functions that share one large table would make a small file into a large model.
  Model m = fixtureModel();
  m.functions.resize(2);
  m.functions[1].arguments.resize(40, m.functions[1].arguments[0]);
  for (int i = 0; i < 100; ++i) {
    Function f;
    f.name = "f" + std::to_string(i);
    m.functions.push_back(f);
  }
  std::vector<uint8_t> blob = m.build();
  dl_blob head;
  memcpy(&head, blob.data(), sizeof head);
  dl_function_desc large, f;
  memcpy(&large, blob.data() + head.functions + sizeof large, sizeof large);
  for (int i = 2; i < 102; ++i) {
    memcpy(&f, blob.data() + head.functions + i * sizeof f, sizeof f);
    f.arguments = large.arguments;
    f.argument_count = large.argument_count;
    memcpy(blob.data() + head.functions + i * sizeof f, &f, sizeof f);
  }
  EXPECT_FAILS_WITH(check(blob), DLRT_CORRUPT, "tables overlap");
}

// A damaged byte is found, or what comes out can be read: nothing crashes (under the address
// sanitizer this is the real question).
TEST(Description, EachByteMayBeDamaged) {
  const std::vector<uint8_t> blob = cudaFixtureModel().build();
  size_t refused = 0;
  for (size_t i = 8; i < blob.size(); ++i)
    for (uint8_t flip : {0x01, 0x80, 0xff}) {
      std::vector<uint8_t> damaged = blob;
      damaged[i] ^= flip;
      dlrt_model *model = nullptr;
      Status status(dlrt_description_model(damaged.data(), damaged.size(), &model));
      refused += status.code() != DLRT_OK;
      if (status.code() != DLRT_OK)
        continue;
      walk(model);
      dlrt_model_release(model);
    }
  EXPECT_GT(refused, blob.size() / 2);
}

TEST(Description, EachLengthMayBeCut) {
  const std::vector<uint8_t> blob = fixtureModel().build();
  for (size_t length = 0; length < blob.size(); ++length) {
    std::vector<uint8_t> cut(blob.begin(), blob.begin() + length);
    EXPECT_EQ(Status(dlrt_description_check(cut.data(), cut.size())).code(), DLRT_CORRUPT)
        << length;
    if (length < sizeof(dl_blob))
      continue;
    uint32_t shorter = length; // a head that does not know of more
    memcpy(cut.data() + offsetof(dl_blob, blob_bytes), &shorter, 4);
    Status status(dlrt_description_check(cut.data(), cut.size()));
    // Only the padding at the end may be missing.
    if (length + 8 <= blob.size())
      EXPECT_EQ(status.code(), DLRT_CORRUPT) << length;
  }
}

// ---- sizes ----

struct Program {
  std::vector<int64_t> words;
  Program(const Size &size) : words{static_cast<int64_t>(size.code.size())} {
    words.insert(words.end(), size.code.begin(), size.code.end());
  }
  dlrt_size_result run(int64_t *value, std::vector<int64_t> dims = {}) const {
    dlrt_binding binding = {};
    for (size_t i = 0; i < dims.size(); ++i)
      binding.dims[i] = dims[i], binding.bound |= 1u << i;
    return dlrt_size_evaluate(reinterpret_cast<const dl_size *>(words.data()), &binding, value);
  }
};

int64_t valueOf(const Size &size, std::vector<int64_t> dims = {}) {
  int64_t value = -99;
  EXPECT_EQ(Program(size).run(&value, dims), DLRT_SIZE_OK);
  return value;
}

TEST(Sizes, EachOperation) {
  const Size n = Size::dim(0), m = Size::dim(1);
  EXPECT_EQ(valueOf(n + m * 3, {5, 7}), 26);
  for (int64_t a : {-7, -6, -1, 0, 1, 6, 7})
    for (int64_t b : {-3, -2, -1, 1, 2, 3}) {
      int64_t quotient = static_cast<int64_t>(std::floor(static_cast<double>(a) / b));
      EXPECT_EQ(valueOf(n.apply(DL_SIZE_FLOORDIV, m), {a, b}), quotient) << a << " " << b;
      EXPECT_EQ(valueOf(n.apply(DL_SIZE_MOD, m), {a, b}), a - b * quotient) << a << " " << b;
      EXPECT_EQ(valueOf(n.apply(DL_SIZE_CEILDIV, m), {a, b}),
                static_cast<int64_t>(std::ceil(static_cast<double>(a) / b)))
          << a << " " << b;
    }
  EXPECT_EQ(valueOf(n.apply(DL_SIZE_EQ, 3), {3}), 1);
  EXPECT_EQ(valueOf(n.apply(DL_SIZE_NE, 3), {3}), 0);
  EXPECT_EQ(valueOf(n.apply(DL_SIZE_LT, 3), {3}), 0);
  EXPECT_EQ(valueOf(n.apply(DL_SIZE_LE, 3), {3}), 1);
  EXPECT_EQ(valueOf(n.apply(DL_SIZE_AND, m), {2, 4}), 1);
  EXPECT_EQ(valueOf(n.apply(DL_SIZE_AND, m), {2, 0}), 0);
  EXPECT_EQ(valueOf(n.apply(DL_SIZE_OR, m), {0, 0}), 0);
  EXPECT_EQ(valueOf(n.apply(DL_SIZE_OR, m), {0, 8}), 1);
  EXPECT_EQ(valueOf(Size({DL_SIZE_DIM, 0, DL_SIZE_NOT}), {0}), 1);
}

TEST(Sizes, OverflowIsNoticed) {
  const Size n = Size::dim(0), m = Size::dim(1);
  int64_t value;
  EXPECT_EQ(Program(n + m).run(&value, {INT64_MAX, 1}), DLRT_SIZE_OVERFLOW);
  EXPECT_EQ(Program(n * m).run(&value, {1ll << 32, 1ll << 31}), DLRT_SIZE_OVERFLOW);
  EXPECT_EQ(Program(n.apply(DL_SIZE_FLOORDIV, m)).run(&value, {INT64_MIN, -1}), DLRT_SIZE_OVERFLOW);
  EXPECT_EQ(Program(n.apply(DL_SIZE_CEILDIV, m)).run(&value, {INT64_MIN, -1}), DLRT_SIZE_OVERFLOW);
  EXPECT_EQ(valueOf(n.apply(DL_SIZE_MOD, m), {INT64_MIN, -1}), 0);
  EXPECT_EQ(Program(n.apply(DL_SIZE_MOD, m)).run(&value, {1, 0}), DLRT_SIZE_DIVISION_BY_ZERO);
  EXPECT_EQ(Program(m).run(&value, {1}), DLRT_SIZE_UNBOUND);
}

std::string shapeOf(const Size &size) {
  Model m;
  m.dims = {"N", "rows"};
  Function f;
  f.name = "f";
  f.arguments = {{"x", DL_F32, {size}}};
  m.functions = {f};
  std::vector<uint8_t> blob = m.build();
  dlrt_model *model = nullptr;
  EXPECT_OK(dlrt_description_model(blob.data(), blob.size(), &model));
  dlrt_value_info info = {};
  EXPECT_OK(dlrt_function_get_argument(model, 0, 0, &info));
  std::string shape = info.shape;
  dlrt_model_release(model);
  return shape;
}

TEST(Sizes, AsText) {
  const Size n = Size::dim(0), m = Size::dim(1);
  EXPECT_EQ(shapeOf(784), "[784]");
  EXPECT_EQ(shapeOf(n), "[N]");
  EXPECT_EQ(shapeOf(n * 2 + m), "[N * 2 + rows]");
  EXPECT_EQ(shapeOf((n + 2) * m), "[(N + 2) * rows]");
  EXPECT_EQ(shapeOf(n * (m + 1)), "[N * (rows + 1)]");
  EXPECT_EQ(shapeOf(n + Size(-1)), "[N - 1]");
  EXPECT_EQ(shapeOf((n + Size(-1)).apply(DL_SIZE_FLOORDIV, 2) + 1), "[(N - 1) // 2 + 1]");
  EXPECT_EQ(shapeOf(n.apply(DL_SIZE_FLOORDIV, m * 2)), "[N // (rows * 2)]");
  EXPECT_EQ(shapeOf(n.apply(DL_SIZE_CEILDIV, m + 1) * 3), "[ceildiv(N, rows + 1) * 3]");
  EXPECT_EQ(shapeOf(n.apply(DL_SIZE_MOD, 4)), "[N % 4]");
  EXPECT_EQ(shapeOf(n.apply(DL_SIZE_LT, m).apply(DL_SIZE_AND, n.apply(DL_SIZE_NE, 3))),
            "[N < rows && N != 3]");
  EXPECT_EQ(shapeOf(Size({DL_SIZE_DIM, 0, DL_SIZE_CONST, 1, DL_SIZE_ADD, DL_SIZE_NOT})),
            "[!(N + 1)]");
  Size wide = n;
  for (int i = 0; i < 100; ++i)
    wide = wide + m;
  EXPECT_EQ(shapeOf(wide), "[?]");
}

// ---- plans ----

TEST(Plan, BuffersThatLiveTogetherDoNotOverlap) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    uint32_t count = 1 + random() % 40;
    std::vector<uint64_t> bytes(count), offsets(count);
    std::vector<uint32_t> first(count), last(count), order(count);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < count; ++i) {
      bytes[i] = random() % 8 ? random() % 1000 : 0;
      first[i] = random() % 10;
      last[i] = first[i] + random() % 5;
      sum += (bytes[i] + 63) / 64 * 64;
    }
    uint64_t total = dlrt_plan_offsets(count, bytes.data(), first.data(), last.data(), order.data(),
                                       offsets.data());
    EXPECT_LE(total, sum);
    uint64_t live = 0; // what is needed at one time at least
    for (uint32_t t = 0; t < 16; ++t) {
      uint64_t now = 0;
      for (uint32_t i = 0; i < count; ++i)
        if (first[i] <= t && t <= last[i])
          now += (bytes[i] + 63) / 64 * 64;
      live = std::max(live, now);
    }
    EXPECT_GE(total, live);
    EXPECT_LE(total, 2 * live) << "wasteful";
    for (uint32_t i = 0; i < count; ++i) {
      EXPECT_EQ(offsets[i] % 64, 0u);
      EXPECT_LE(offsets[i] + bytes[i], total);
      for (uint32_t j = 0; j < i; ++j)
        if (bytes[i] && bytes[j] && first[i] <= last[j] && first[j] <= last[i])
          EXPECT_TRUE(offsets[i] + bytes[i] <= offsets[j] || offsets[j] + bytes[j] <= offsets[i]);
    }
  }
}

TEST(Plan, ReusesMemory) {
  // A chain: each lives with its neighbours only.
  std::vector<uint64_t> bytes(10, 1000), offsets(10);
  std::vector<uint32_t> first(10), last(10), order(10);
  for (uint32_t i = 0; i < 10; ++i)
    first[i] = i, last[i] = i + 1;
  EXPECT_EQ(
      dlrt_plan_offsets(10, bytes.data(), first.data(), last.data(), order.data(), offsets.data()),
      2048u);
}

TEST(Plan, OverflowIsNoticed) {
  uint64_t bytes[] = {1ull << 62, 1ull << 62, UINT64_MAX}, offsets[3];
  uint32_t first[] = {0, 0, 0}, last[] = {0, 0, 0}, order[3];
  EXPECT_EQ(dlrt_plan_offsets(2, bytes, first, last, order, offsets), UINT64_MAX);
  EXPECT_EQ(dlrt_plan_offsets(1, bytes + 2, first, last, order, offsets), UINT64_MAX);
}

// ---- processor ----

TEST(Processor, FeaturesAreChecked) {
  EXPECT_OK(dlrt_cpu_check(""));
  EXPECT_OK(dlrt_cpu_check("x87,cx8,cmov,mmx,fxsr,sse,sse2,64bit"));
  EXPECT_FAILS(dlrt_cpu_check("sse2,warp9,flux"), DLRT_INCOMPATIBLE,
               "needs warp9, flux, which this runtime does not know");
  EXPECT_FAILS(dlrt_cpu_check("a-name-that-is-longer-than-any-feature"), DLRT_INCOMPATIBLE,
               "needs a-name-that-is-longer-than-any-feature, which this runtime does not know");
  // No processor has both of these: one was Intel's, one AMD's.
  EXPECT_FAILS_WITH(dlrt_cpu_check("sse2,sgx,lwp,tbm"), DLRT_INCOMPATIBLE,
                    "which this processor or its operating system does not have");
}

// What the compiler's own built-in says on this machine.
TEST(Processor, AgreesWithTheCompilersBuiltin) {
#define EXPECT_FEATURE(name)                                                                       \
  EXPECT_EQ(Status(dlrt_cpu_check(name)).code() == DLRT_OK, __builtin_cpu_supports(name) != 0)     \
      << name
  EXPECT_FEATURE("sse3");
  EXPECT_FEATURE("ssse3");
  EXPECT_FEATURE("sse4.1");
  EXPECT_FEATURE("sse4.2");
  EXPECT_FEATURE("sse4a");
  EXPECT_FEATURE("popcnt");
  EXPECT_FEATURE("avx");
  EXPECT_FEATURE("avx2");
  EXPECT_FEATURE("fma");
  EXPECT_FEATURE("fma4");
  EXPECT_FEATURE("xop");
  EXPECT_FEATURE("bmi");
  EXPECT_FEATURE("bmi2");
  EXPECT_FEATURE("avx512f");
  EXPECT_FEATURE("avx512bw");
  EXPECT_FEATURE("avx512cd");
  EXPECT_FEATURE("avx512dq");
  EXPECT_FEATURE("avx512vl");
  EXPECT_FEATURE("avx512vnni");
  EXPECT_FEATURE("avx512vbmi2");
  EXPECT_FEATURE("avx512bf16");
  EXPECT_FEATURE("gfni");
  EXPECT_FEATURE("vpclmulqdq");
#undef EXPECT_FEATURE
}

} // namespace
