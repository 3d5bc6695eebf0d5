//===- Peaks.h - what the processor can do at most -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TOOLS_DLRUN_PEAKS_H
#define DLC_TOOLS_DLRUN_PEAKS_H

#include <cstdint>

namespace dlc::run {

/// In units of 1e9 a second.
struct Peaks {
  double f32 = 0, f64 = 0; // operations, a multiply-add being two
  double bytes = 0;        // read and written
};

/// Measures them on `threads` threads, each the best of some tries, in a quarter of a second or so:
/// multiply-adds on registers alone, as wide as the processor has them, and reading and writing
/// `bytes` bytes of memory over and over, which tells the speed of the caches where these hold
/// them.
Peaks measurePeaks(uint32_t threads, uint64_t bytes);

} // namespace dlc::run

#endif
