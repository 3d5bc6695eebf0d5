//===- Decompose.cpp - takes composite ops apart -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/transforms/Passes.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc {
#define GEN_PASS_DEF_DECOMPOSE
#include "compiler/transforms/Passes.h.inc"

namespace {
struct Decompose : impl::DecomposeBase<Decompose> {
  using DecomposeBase::DecomposeBase;
  void runOnOperation() override {
    // A part may be composite itself: go on until none is left.
    for (bool again = true; again;) {
      SmallVector<DecomposableOpInterface> found;
      getOperation().walk([&](DecomposableOpInterface op) { found.push_back(op); });
      again = false;
      for (DecomposableOpInterface op : found) {
        // Kernels are formed once for all targets: what a GPU's engine computes, every engine does.
        if (forEngine ? op.isForEngine() : op.isForGpu())
          continue;
        OpBuilder b(op);
        SmallVector<Value> parts = op.buildDecompositions(b);
        if (parts.empty())
          continue;
        op->replaceAllUsesWith(parts);
        op->erase();
        ++composites;
        again = true;
      }
    }
  }
};
} // namespace
} // namespace dlc
