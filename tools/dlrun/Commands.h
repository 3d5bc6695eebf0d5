//===- Commands.h - the commands of dlrun and their options -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TOOLS_DLRUN_COMMANDS_H
#define DLC_TOOLS_DLRUN_COMMANDS_H

#include "Support.h"

namespace dlc::run {

struct InfoOptions {
  std::string model;
  bool json = false;
};

struct CallOptions {
  std::string model, function;
  std::vector<std::string> inputs; // NAME=FILE or NAME=NUMBER
  std::string outputFolder, load, save;
  uint64_t seed = 0, repeat = 1;
  uint32_t threads = 0;
  std::string device;
};

struct TrainOptions {
  std::string model;
  std::vector<std::string> data, validation, scales, inputs; // NAME=VALUE
  std::string step, loss, metric;                            // functions; empty: chosen
  std::string checkpoint, load;
  std::optional<uint64_t> seed;
  std::optional<int64_t> batch;
  std::optional<uint64_t> epochs; // 8, or what a resumed training asked for
  uint64_t saveEvery = 0;
  uint32_t threads = 0;
  std::string device;
  bool resume = false, overwrite = false;
  std::vector<std::string> commandLine; // to tell how to go on
};

struct BenchOptions {
  std::string model, function;
  std::vector<std::string> dims, ranges, inputs; // NAME=VALUE
  std::string load;
  uint64_t seed = 0;
  std::optional<uint64_t> runs;
  uint32_t threads = 0;
  std::string device;
  bool json = false, profile = false;
  std::string trace; // where --profile writes; empty: prints a table
  std::string peak;  // "OPERATIONS,BYTES", 1e9 a second; empty: measured, on the processor
};

// Each prints its results to stdout and returns the exit code.
Expected<int> runInfo(const InfoOptions &options);
Expected<int> runCall(const CallOptions &options);
Expected<int> runTrain(const TrainOptions &options);
Expected<int> runBench(const BenchOptions &options);

} // namespace dlc::run

#endif
