//===- Checkpoint.h - a training's folder: variables and state, never apart -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// A training lives in a folder with two files: last.safetensors (the variables) and state.json
// (where the training is). They must belong together whenever the process dies, so one rename
// decides:
//
//   1. the variables are saved as next.safetensors;
//   2. state.json, which holds size and CRC-32 of the variables' file, is replaced: from here on
//   the new pair counts;
//   3. next.safetensors is renamed to last.safetensors.
//
// Killed before 2, the old state names the old last.safetensors; killed between 2 and 3, the new
// state names next.safetensors, and opening the folder makes up for step 3.
//
//===----------------------------------------------------------------------===//

#ifndef DLC_TOOLS_DLRUN_CHECKPOINT_H
#define DLC_TOOLS_DLRUN_CHECKPOINT_H

#include "Json.h"
#include "Model.h"

namespace dlc::run {

/// Where a training is, and what it must find again to go on bit for bit.
struct TrainState {
  std::string model, step;
  uint64_t seed = 0;
  int64_t batch = 0, rows = 0;
  uint64_t epoch = 0;           // counted from 0: the one in progress
  uint64_t epochs = 0;          // asked for
  int64_t stepInEpoch = 0;      // steps done in it
  double lossSum = 0;           // of this epoch so far, each step's loss times its rows
  int64_t lossRows = 0;         // rows behind lossSum
  Json data = Json::object();   // per argument: the file's type and the scale
  Json history = Json::array(); // one object per finished epoch
};

class CheckpointFolder {
public:
  /// Creates the folder if there is none, and locks it: one training at a time.
  static Expected<CheckpointFolder> open(const std::string &path);
  CheckpointFolder(CheckpointFolder &&other) noexcept
      : path(std::move(other.path)), lock(std::exchange(other.lock, -1)) {}
  CheckpointFolder(const CheckpointFolder &) = delete;
  CheckpointFolder &operator=(const CheckpointFolder &) = delete;
  ~CheckpointFolder();

  /// Nothing where no training was saved here.
  Expected<std::optional<TrainState>> readState() const;
  /// Loads the variables that belong to the state in the folder.
  Status loadVariables(Instance &instance) const;
  Status save(const Instance &instance, const TrainState &state) const;

  std::string variablesPath() const { return path + "/last.safetensors"; }

private:
  CheckpointFolder(std::string path, int lock) : path(std::move(path)), lock(lock) {}
  std::string nextPath() const { return path + "/next.safetensors"; }
  std::string statePath() const { return path + "/state.json"; }
  Expected<Json> readStateJson() const;

  std::string path;
  int lock;
};

} // namespace dlc::run

#endif
