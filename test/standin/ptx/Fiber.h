//===- Fiber.h - stacks and switches between them -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TEST_STANDIN_PTX_FIBER_H
#define DLC_TEST_STANDIN_PTX_FIBER_H

#include <cstddef>
#include <vector>

#ifndef __x86_64__
#error "the stand-in's fibers are written for x86-64"
#endif

namespace standin {

/// Where a stack stopped; its registers are on it.
using StackPointer = void *;

/// Stores where this stack stops in `from` and goes on at `to`. Keeps the registers that a call
/// keeps; rounding modes are the same everywhere and stay.
extern "C" void standin_switch(StackPointer *from, StackPointer to);

/// Stacks that are kept for the next launch, each with a guard page at its low end.
class Stacks {
public:
  ~Stacks();
  /// At least `count` stacks.
  void reserve(size_t count);
  /// What standin_switch() enters to call `run`, which must not return.
  StackPointer prepare(size_t index, void (*run)());

private:
  static constexpr size_t stackBytes = 256 << 10;
  std::vector<char *> stacks;
};

} // namespace standin

#endif // DLC_TEST_STANDIN_PTX_FIBER_H
