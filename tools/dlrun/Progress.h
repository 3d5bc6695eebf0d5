//===- Progress.h - the line that shows how a training goes -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TOOLS_DLRUN_PROGRESS_H
#define DLC_TOOLS_DLRUN_PROGRESS_H

#include <chrono>
#include <cstdint>
#include <string>

namespace dlc::run {

/// One line on the terminal, rewritten in place ten times a second; nothing where stderr is no
/// terminal.
class Progress {
public:
  using Clock = std::chrono::steady_clock;
  struct Report {
    uint64_t epoch, epochs; // from 1
    int64_t step, steps;    // in this epoch
    double loss;            // mean of this epoch so far; NaN: unknown
    uint64_t stepsLeft;     // in all
  };

  Progress();
  /// One more step is done.
  void step(const Report &report);
  /// Takes the line away, so that something else can be printed.
  void clear();

private:
  bool onTerminal, shown = false;
  Clock::time_point start, lastShown;
  uint64_t stepsDone = 0;
};

/// 75 -> "1:15", 3675 -> "1:01:15"
std::string formatDuration(double seconds);
/// "372 steps/s"
std::string formatRate(double stepsPerSecond);

} // namespace dlc::run

#endif
