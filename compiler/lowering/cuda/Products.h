//===- Products.h - what cuBLASLt computes of a kernel with a product -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A planned dl.fused with a product is one kernel where our own engine runs it. cuBLASLt computes the product and what it has an epilogue for; the rest is a kernel
// after it. Here it is found out how far cuBLASLt goes: a bias; relu and gelu_tanh, with what their gradients take (a mask of bits, and what gelu_tanh was given); these
// gradients; the sum of a gradient over its rows (that of a bias); and the update of stochastic gradient descent as the product that makes the gradient.

#ifndef DLC_COMPILER_LOWERING_CUDA_PRODUCTS_H
#define DLC_COMPILER_LOWERING_CUDA_PRODUCTS_H

#include "compiler/emit/ModelDescription.h"
#include "compiler/lowering/cuda/CudaTarget.h"
#include "llvm/ADT/MapVector.h"

namespace dlc::cuda {

struct ProductPlan {
  dl::MatmulOp product;
  bool usesCublas = false, usesOwn = false; // both: as cuBLASLt is there or not
  dl_cuda_epilogue epilogue = DL_CUDA_EPILOGUE_NONE;
  mlir::Value prefix;                 // the value of the body that cuBLASLt computes
  std::optional<int64_t> bias;        // its buffer
  mlir::Value saved;                  // of gelu_tanh: the value of the body that is written for its gradient
  std::optional<int64_t> savedIn;     // its buffer, where cuBLASLt writes rows of this length; else it needs one of its own
  dl::FusedOp forward;                // of a gradient of relu or gelu_tanh: the kernel that has written what it takes
  dl::FusedOp sum;                    // the kernel that wants the sum that comes along
  mlir::Value sumOperand;             // of `sum`: the reduction that it need not do
  bool sumWaits = false;              // `sum` comes before the product in the plan, and may as well come after it
  mlir::Value scale;                  // of an update W - scale * product, made in place: the factor, a value of the body
  unsigned updated = 0;               // of an update: the input that is W
};

using ProductPlans = llvm::MapVector<mlir::Operation *, ProductPlan>;

/// Looks at all kernels of a planned function that have a product of matrices.
ProductPlans planProducts(dl::FuncOp function, const CudaOptions &options);

/// Elements that the length of a row must be a multiple of, where gelu_tanh's operand is written.
inline constexpr int64_t savedRowMultiple = 8;

/// The buffer that a factor of a product lies in.
int64_t bufferOfFactor(dl::FusedOp kernel, mlir::Value factor);

} // namespace dlc::cuda

#endif
