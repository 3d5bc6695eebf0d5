//===- Fixture.h - the model that the runtime's tests run -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Its code is FixtureKernels.c. WriteFixture.cpp writes the description to a file at build time,
// FixtureBlob.c puts that into a note, and both become a library to open and a part of the test
// programs to attach.
//
//===----------------------------------------------------------------------===//
#ifndef DLC_TEST_RUNTIME_FIXTURE_H
#define DLC_TEST_RUNTIME_FIXTURE_H

#include "ModelBuilder.h"

namespace dlc::test {

/// Numbers of the exported functions.
enum : uint32_t { Predict, Step, Pick, Stats, Mxcsr, Slow, Pairs, Tell, Retell, Shares, Prepared };
/// Numbers of the variables.
enum : uint32_t { W, B, Mask, StepT, Odd, Empty, Seed, Calls };

inline Model fixtureModel() {
  const Size n = Size::dim(0);
  Model m;
  m.name = "Fixture";
  m.query = "fixture_query";
  m.features = "cx16,sse2";
  m.dims = {"N"};
  m.variables = {{"w", DL_F32, {4, 3}, DL_VARIABLE_TRAINED, "The weights."},
                 {"b", DL_F32, {3}},
                 {"mask", DL_BOOL, {5}, DL_VARIABLE_STATE},
                 {"step.t", DL_I64, {}, DL_VARIABLE_SLOT},
                 {"odd \"\\ \xC3\xBC", DL_U8, {3}, DL_VARIABLE_STATE},
                 {"empty", DL_F64, {2, 0}, DL_VARIABLE_STATE},
                 {"random.seed", DL_I64, {}, DL_VARIABLE_RANDOM},
                 {"random.calls", DL_I64, {}, DL_VARIABLE_RANDOM}};
  m.constants = {{0, 0, 0, 0, 0, 0, 0x80, 0x3f, 0, 0, 0, 0x40}}; // f32 0, 1, 2
  m.faults = {{"label {value} of element {index} is not one of 10 classes", "fixture.dl:12:7"}};

  Function init;
  init.name = "__init";
  init.flags = DL_FUNCTION_INIT;
  init.arguments = {{"seed", DL_I64, {}}};
  init.buffers = {{DL_BUFFER_ARGUMENT, 0, 8},     {DL_BUFFER_VARIABLE, W, 48},
                  {DL_BUFFER_VARIABLE, B, 12},    {DL_BUFFER_VARIABLE, Mask, 5},
                  {DL_BUFFER_VARIABLE, StepT, 8}, {DL_BUFFER_VARIABLE, Odd, 3}};
  init.kernels = {{"init.w", "fixture.dl:1"}};
  init.launches = 1;

  Function predict;
  predict.name = "predict";
  predict.flags = DL_FUNCTION_CONST;
  predict.doc = "x w + b + (0, 1, 2).";
  predict.arguments = {{"x", DL_F32, {n, 4}}};
  predict.results = {{"", DL_F32, {n, 3}}};
  predict.buffers = {{DL_BUFFER_ARGUMENT, 0, n * 16}, {DL_BUFFER_RESULT, 0, n * 12, 1, 1},
                     {DL_BUFFER_VARIABLE, W, 48},     {DL_BUFFER_VARIABLE, B, 12},
                     {DL_BUFFER_CONSTANT, 0, 12},     {DL_BUFFER_ARENA, 0, n * 12, 0, 1}};
  predict.checks = {{n.apply(DL_SIZE_NE, 13), "a batch of 13 brings bad luck"}};
  predict.kernels = {{"matmul", "fixture.dl:5:10"}, {"add", ""}};
  predict.launches = 2;
  predict.scratchBytes = 100;

  // One arena buffer lives from launch 0 to 0, one from 1 to 1: they share their place.
  Function step;
  step.name = "step";
  step.flags = DL_FUNCTION_TRAIN;
  step.arguments = {{"x", DL_F32, {n, 4}}, {"y", DL_F32, {n, 3}}, {"lr", DL_F32, {}, true, 0.5}};
  step.results = {{"loss", DL_F32, {}}};
  step.buffers = {{DL_BUFFER_ARGUMENT, 0, n * 16},      {DL_BUFFER_ARGUMENT, 1, n * 12},
                  {DL_BUFFER_ARGUMENT, 2, 4},           {DL_BUFFER_RESULT, 0, 4, 2, 2},
                  {DL_BUFFER_VARIABLE, W, 48},          {DL_BUFFER_VARIABLE, B, 12},
                  {DL_BUFFER_VARIABLE, StepT, 8},       {DL_BUFFER_VARIABLE, Calls, 8},
                  {DL_BUFFER_ARENA, 0, n * 12, 0, 1},   {DL_BUFFER_ARENA, 0, n * 4, 0, 0},
                  {DL_BUFFER_ARENA, 0, Size(48), 1, 2}, {DL_BUFFER_ARENA, 0, Size(16 * 4), 1, 2}};
  step.kernels = {{"forward", "fixture.dl:7:3"},
                  {"gradient", "fixture.dl:8:3", {{n * 24, n * 28, 48}}},
                  {"update", "fixture.dl:9:3"}};
  step.launches = 3;
  step.scratchBytes = 256;

  Function pick;
  pick.name = "pick";
  pick.flags = DL_FUNCTION_CONST;
  pick.arguments = {{"label", DL_I64, {n}}};
  pick.results = {{"out", DL_I64, {n}}};
  pick.buffers = {{DL_BUFFER_ARGUMENT, 0, n * 8}, {DL_BUFFER_RESULT, 0, n * 8}};
  pick.kernels = {{"pick", "fixture.dl:12:7"}};
  pick.launches = 1;

  Function stats;
  stats.name = "stats";
  stats.flags = DL_FUNCTION_CONST;
  stats.arguments = {{"x", DL_F32, {n, n * 2 + 1}},
                     {"scale", DL_F64, {}, true, 2.5},
                     {"on", DL_BOOL, {}, true, 1}};
  stats.results = {{"half", DL_F32, {n.apply(DL_SIZE_FLOORDIV, 2)}}, {"sum", DL_F64, {}}};
  stats.buffers = {{DL_BUFFER_ARGUMENT, 0, n * (n * 2 + 1) * 4},
                   {DL_BUFFER_ARGUMENT, 1, 8},
                   {DL_BUFFER_ARGUMENT, 2, 1},
                   {DL_BUFFER_RESULT, 0, n.apply(DL_SIZE_FLOORDIV, 2) * 4},
                   {DL_BUFFER_RESULT, 1, 8}};
  stats.launches = 1;

  Function mxcsr;
  mxcsr.name = "mxcsr";
  mxcsr.flags = DL_FUNCTION_CONST;
  mxcsr.results = {{"", DL_I32, {64}}};
  mxcsr.buffers = {{DL_BUFFER_RESULT, 0, 256}};
  mxcsr.kernels = {{"mxcsr", ""}};
  mxcsr.launches = 1;

  Function slow;
  slow.name = "slow";
  slow.flags = DL_FUNCTION_CONST;
  slow.arguments = {{"ms", DL_I64, {}, true, 20}};
  slow.results = {{"", DL_I64, {}}};
  slow.buffers = {{DL_BUFFER_ARGUMENT, 0, 8}, {DL_BUFFER_RESULT, 0, 8}, {DL_BUFFER_ARENA, 0, 64}};
  slow.kernels = {{"slow", ""}};
  slow.launches = 1;

  // Counts how often each task ran, in many launches.
  Function pairs;
  pairs.name = "pairs";
  pairs.flags = DL_FUNCTION_CONST;
  pairs.arguments = {{"counts", DL_I64, {n}}, {"launches", DL_I64, {}}};
  pairs.results = {{"", DL_I64, {n}}};
  pairs.buffers = {
      {DL_BUFFER_ARGUMENT, 0, n * 8}, {DL_BUFFER_ARGUMENT, 1, 8}, {DL_BUFFER_RESULT, 0, n * 8}};
  pairs.kernels = {{"pairs", ""}};
  pairs.launches = 1;
  pairs.scratchBytes = 64;

  // Prints what it is given; a negative number is a fault.
  Function tell;
  tell.name = "tell";
  tell.flags = DL_FUNCTION_CONST;
  tell.arguments = {{"x", DL_F32, {n, 2}}, {"k", DL_I64, {}, true, 7}, {"on", DL_BOOL, {}, true, 1}};
  tell.results = {{"out", DL_I64, {}}, {"", DL_F32, {n, 2}}, {"", DL_I64, {}}, {"", DL_BOOL, {}}, {"", DL_F64, {}}};
  tell.buffers = {{DL_BUFFER_ARGUMENT, 0, n * 8}, {DL_BUFFER_ARGUMENT, 1, 8}, {DL_BUFFER_ARGUMENT, 2, 1},
                  {DL_BUFFER_RESULT, 0, 8},       {DL_BUFFER_RESULT, 1, n * 8}, {DL_BUFFER_RESULT, 2, 8},
                  {DL_BUFFER_RESULT, 3, 1},       {DL_BUFFER_RESULT, 4, 8}};
  tell.launches = 1;
  tell.logs = {{"x is ", ""}, {"k ", ", on ", " and a third ", "."}, {"no value"}};

  // Prints in turns: one message in each, another one after every second; up to 3 and 2 of them are
  // kept. A third one comes never.
  Function retell;
  retell.name = "retell";
  retell.flags = DL_FUNCTION_CONST;
  retell.arguments = {{"x", DL_F32, {n, 2}}, {"turns", DL_I64, {}}};
  retell.results = {{"", DL_I64, {}}, {"", DL_I64, {3}}, {"", DL_I32, {3, 1}}, {"", DL_F32, {3, 64}},
                    {"", DL_I64, {}}, {"", DL_I64, {2}}, {"", DL_I64, {}},     {"", DL_I64, {1}},
                    {"", DL_I64, {}}};
  retell.buffers = {{DL_BUFFER_ARGUMENT, 0, n * 8}, {DL_BUFFER_ARGUMENT, 1, 8}};
  static const int64_t bytes[] = {8, 24, 12, 768, 8, 16, 8, 8, 8};
  for (uint32_t i = 0; i < std::size(bytes); ++i)
    retell.buffers.push_back({DL_BUFFER_RESULT, i, bytes[i]});
  retell.launches = 1;
  retell.logs = {{"begins"}, {"turn ", ": ", "."}, {"even"}, {"never"}, {"after ", " turns"}};
  retell.kept = {{1, {3, {{"", DL_I32, {}}, {"", DL_F32, {n, 2}}}}}, {2, {2, {}}}, {3, {1, {}}}};

  // For each task, how many its call ran; it wishes for eight.
  Function shares;
  shares.name = "shares";
  shares.flags = DL_FUNCTION_CONST;
  shares.arguments = {{"begins", DL_I64, {n}}};
  shares.results = {{"", DL_I64, {n}}};
  shares.buffers = {{DL_BUFFER_ARGUMENT, 0, n * 8}, {DL_BUFFER_RESULT, 0, n * 8}};
  shares.kernels = {{"shares", "", {}, 8}};
  shares.launches = 1;

  // What it has prepared: w times two, and how often.
  Function prepared;
  prepared.name = "prepared";
  prepared.flags = DL_FUNCTION_CONST;
  prepared.arguments = {{"x", DL_F32, {n}}};
  prepared.results = {{"", DL_F32, {4, 3}}, {"", DL_I64, {}}};
  prepared.buffers = {{DL_BUFFER_ARGUMENT, 0, n * 4}, {DL_BUFFER_RESULT, 0, 48}, {DL_BUFFER_RESULT, 1, 8},
                      {DL_BUFFER_VARIABLE, W, 48},    {DL_BUFFER_PREPARED, 0, 48}, {DL_BUFFER_PREPARED, 0, 8}};
  prepared.kernels = {{"double", ""}, {"prepared", ""}};
  prepared.launches = 1;

  m.functions = {init, predict, step, pick, stats, mxcsr, slow, pairs, tell, retell, shares, prepared};
  return m;
}

} // namespace dlc::test

/// FixtureKernels.c.
extern "C" {
extern const dl_entry_fn fixture_entries[], fixture_preparations[];
const dl_model *fixture_query(uint32_t abi_version);
}
#endif
