//===- Fiber.cpp - stacks and switches between them -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Fiber.h"
#include "llvm/Support/ErrorHandling.h"
#include <sys/mman.h>

// What the System V ABI lets a callee change is the caller's affair; the rest goes on the stack.
asm(R"(
  .text
  .globl standin_switch
  .hidden standin_switch
  .type standin_switch, @function
standin_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  retq
  .size standin_switch, .-standin_switch
)");

namespace standin {

static constexpr size_t guardBytes = 4096;

Stacks::~Stacks() {
  for (char *stack : stacks)
    munmap(stack, stackBytes);
}

void Stacks::reserve(size_t count) {
  while (stacks.size() < count) {
    void *stack = mmap(nullptr, stackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED || mprotect(stack, guardBytes, PROT_NONE))
      llvm::report_fatal_error("the stand-in has no memory for a thread's stack");
    stacks.push_back(static_cast<char *>(stack));
  }
}

StackPointer Stacks::prepare(size_t index, void (*run)()) {
  // Six registers, the address that retq takes, and a return address for `run` of 0: as after a
  // call, the stack is 8 off a multiple of 16 where `run` begins.
  void **top = reinterpret_cast<void **>(stacks[index] + stackBytes) - 8;
  for (int i = 0; i < 6; ++i)
    top[i] = nullptr;
  top[6] = reinterpret_cast<void *>(run);
  top[7] = nullptr;
  return top;
}

} // namespace standin
