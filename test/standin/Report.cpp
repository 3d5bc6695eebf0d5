//===- Report.cpp - what the stand-in found wrong -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Report.h"
#include "llvm/Support/ErrorHandling.h"
#include "llvm/Support/raw_ostream.h"

using namespace llvm;

namespace standin {

StringRef nameOf(Fault fault) {
  switch (fault) {
  case Fault::OutOfBounds: return "out-of-bounds";
  case Fault::Misaligned: return "misaligned";
  case Fault::UseAfterFree: return "use-after-free";
  case Fault::HostPointer: return "host-pointer";
  case Fault::UnwrittenGlobal: return "unwritten-global";
  case Fault::UnwrittenShared: return "unwritten-shared";
  case Fault::ReadOnly: return "read-only";
  case Fault::SharedRace: return "shared-race";
  case Fault::GlobalRace: return "global-race";
  case Fault::AsyncPending: return "async-pending";
  case Fault::BarrierDivergence: return "barrier-divergence";
  case Fault::WarpDivergence: return "warp-divergence";
  case Fault::Trap: return "trap";
  case Fault::Assert: return "assert";
  case Fault::Endless: return "endless";
  case Fault::BadLaunch: return "bad-launch";
  case Fault::DoubleFree: return "double-free";
  case Fault::BadFree: return "bad-free";
  }
  llvm_unreachable("fault");
}

std::string Report::str() const {
  std::string text;
  raw_string_ostream out(text);
  out << nameOf(fault) << ": " << message;
  if (!kernel.empty())
    out << "; kernel '" << kernel << "' of '" << module << "'";
  if (block)
    out << ", block (" << block->x << "," << block->y << "," << block->z << ")";
  if (thread)
    out << ", thread (" << thread->x << "," << thread->y << "," << thread->z << ")";
  if (ptxLine)
    out << ", line " << ptxLine << " of the PTX";
  if (sourceLine)
    out << ", " << sourceFile << ":" << sourceLine;
  return text;
}

} // namespace standin
