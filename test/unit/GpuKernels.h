//===- GpuKernels.h - products as kernels in PTX -*- C++ -*-===//
//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef DLC_TEST_UNIT_GPUKERNELS_H
#define DLC_TEST_UNIT_GPUKERNELS_H

#include "compiler/lowering/cuda/Gemm.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/IR/OwningOpRef.h"

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace dlc::test {

/// A context with the dialects that GPU kernels are made of and their translation to LLVM IR.
std::unique_ptr<mlir::MLIRContext> makeGpuContext();

/// What a product's epilogue does.
enum class Tail {
  Store,    ///< out = acc
  BiasRelu, ///< out = max(acc + bias[column], 0)
  Adam,     ///< acc is the gradient of out; first and second moments lie in two more buffers, and bias[0] is the rate
};

/// The kernels of one product. Their parameters are lhs, rhs, out, bias, first, second, workspace,
/// fault (pointers), m, n, k, batch, lhsBatchStride, rhsBatchStride (64 bits each).
struct GpuProduct {
  struct Launch {
    std::string kernel;
    mlir::AffineExpr blocks; ///< of the symbols m, n, k, batch
    unsigned threads;
    unsigned residentBlocks;
    int64_t sharedBytes;
  };
  std::vector<Launch> launches;
  mlir::AffineExpr workspaceElements;
  int64_t chunkSteps;
  std::string description;
  cuda::GemmShape shape;
  Tail tail;
};

/// Values of the symbols m, n, k and batch.
int64_t evaluate(mlir::AffineExpr expr, llvm::ArrayRef<int64_t> sizes);

/// What ptxas says of a kernel.
struct PtxasInfo {
  int64_t registers = 0, spilled = 0, sharedBytes = 0;
};

/// Assembles PTX; empty where the build found no ptxas. Ends the process where ptxas refuses.
std::map<std::string, PtxasInfo> runPtxas(const std::string &ptx, const std::string &architecture);

/// Emits products into one module.
class GpuModule {
public:
  explicit GpuModule(mlir::MLIRContext &context);
  ~GpuModule();
  /// The kernels are called NAME_0 and, where K is split, NAME_1.
  GpuProduct add(const std::string &name, const cuda::GemmShape &shape, Tail tail = Tail::Store);
  /// Lowers to PTX; once, with all products added. Ends the process with a message if that fails: a test cannot go on.
  std::string ptx(const std::string &architecture);

private:
  mlir::OwningOpRef<mlir::ModuleOp> module;
};

} // namespace dlc::test

#endif // DLC_TEST_UNIT_GPUKERNELS_H
