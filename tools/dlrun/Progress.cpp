//===- Progress.cpp - the line that shows how a training goes -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Progress.h"

#include "Support.h"

#include <cmath>
#include <cstdio>
#include <unistd.h>

namespace dlc::run {

std::string formatDuration(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9)
    return "?";
  uint64_t whole = static_cast<uint64_t>(seconds + 0.5);
  char text[48];
  if (whole >= 3600)
    std::snprintf(text, sizeof(text), "%llu:%02u:%02u",
                  static_cast<unsigned long long>(whole / 3600),
                  static_cast<unsigned>(whole / 60 % 60), static_cast<unsigned>(whole % 60));
  else
    std::snprintf(text, sizeof(text), "%u:%02u", static_cast<unsigned>(whole / 60),
                  static_cast<unsigned>(whole % 60));
  return text;
}

std::string formatRate(double stepsPerSecond) {
  char text[48];
  std::snprintf(text, sizeof(text), "%.0f", stepsPerSecond);
  return concat(text, std::string_view(text) == "1" ? " step/s" : " steps/s");
}

Progress::Progress() : onTerminal(isatty(STDERR_FILENO) == 1) {}

void Progress::step(const Report &report) {
  if (!onTerminal)
    return;
  Clock::time_point now = Clock::now();
  if (stepsDone++ == 0) {
    // The first step plans memory and wakes threads: time is counted from its end.
    start = now;
  }
  if (shown && now - lastShown < std::chrono::milliseconds(100))
    return;
  shown = true;
  lastShown = now;

  double seconds = std::chrono::duration<double>(now - start).count();
  double rate = seconds > 0 ? static_cast<double>(stepsDone - 1) / seconds : 0;
  char loss[32] = "", speed[64] = "";
  if (!std::isnan(report.loss))
    std::snprintf(loss, sizeof(loss), "  loss %.4f", report.loss);
  if (rate > 0)
    std::snprintf(speed, sizeof(speed), "  %s  %s left", formatRate(rate).c_str(),
                  formatDuration(static_cast<double>(report.stepsLeft) / rate).c_str());
  constexpr int width = 16;
  int filled = static_cast<int>(report.step * width / (report.steps > 0 ? report.steps : 1));
  std::string bar = std::string(static_cast<size_t>(filled), '#') +
                    std::string(static_cast<size_t>(width - filled), '.');
  std::fprintf(stderr, "\repoch %llu/%llu [%s] %lld/%lld%s%s\x1b[K",
               static_cast<unsigned long long>(report.epoch),
               static_cast<unsigned long long>(report.epochs), bar.c_str(),
               static_cast<long long>(report.step), static_cast<long long>(report.steps), loss,
               speed);
  std::fflush(stderr);
}

void Progress::clear() {
  if (!shown)
    return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
  shown = false;
}

} // namespace dlc::run
