//===- KernelAccess.h - the parameters of a CUDA kernel -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A kernel's signature is made while its body is emitted: pointers first, then sizes, each as it is asked for. What a launch has to pass, in the same order, is in
// `parameters`.

#ifndef DLC_COMPILER_LOWERING_CUDA_KERNELACCESS_H
#define DLC_COMPILER_LOWERING_CUDA_KERNELACCESS_H

#include "compiler/emit/ModelDescription.h"
#include "compiler/lowering/ElementEmitter.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"

namespace dlc::cuda {

class KernelAccess {
public:
  /// The body of a new private function of the module, `threads` in a block.
  KernelAccess(mlir::ModuleOp module, llvm::StringRef name, mlir::Location loc, int64_t threads);

  /// How many blocks should fit on a multiprocessor at once: what bounds the registers.
  void setResidentBlocks(int64_t count);

  mlir::OpBuilder bodyBuilder() { return mlir::OpBuilder::atBlockEnd(entry); }
  /// A size as an index value; what is not constant is computed by whoever launches.
  mlir::Value size(mlir::AffineExpr expr);
  /// A buffer of the function as memref<?xT>.
  mlir::Value buffer(int64_t number, mlir::Type elementType);
  /// The call's dl_fault as memref<?xi64>.
  mlir::Value fault();
  /// Whether no check has found a fault: an i1.
  mlir::Value hasNoFault();
  /// threadIdx.x and blockIdx.x as index values.
  mlir::Value thread() { return special(threadNumber, false); }
  mlir::Value block() { return special(blockNumber, true); }

  /// The function is complete.
  mlir::func::FuncOp finish();
  std::vector<CudaParameter> parameters() const;

private:
  mlir::OpBuilder atStart();
  mlir::Value special(mlir::Value &known, bool isBlock);
  mlir::Value pointerParameter(CudaParameter parameter);

  mlir::func::FuncOp kernel;
  mlir::Block *entry;
  mlir::Location loc;
  mlir::Operation *last = nullptr; // of what was emitted at the start
  mlir::Value threadNumber, blockNumber, faultMemory, isFine;
  std::vector<CudaParameter> pointers, sizeParameters;
  std::map<int64_t, mlir::Value> bufferPointers;
  std::map<std::pair<int64_t, const void *>, mlir::Value> buffers;
  llvm::DenseMap<mlir::AffineExpr, mlir::Value> sizes;
};

} // namespace dlc::cuda

#endif
