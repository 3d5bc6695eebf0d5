//===- Products.h - what cuBLASLt computes of a kernel with a product -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A planned dl.fused with a product is one kernel where our own engine runs it. cuBLASLt computes the product and what it has an epilogue for; the rest is a kernel
// after it. Here it is found out how far cuBLASLt goes: a bias, relu (whose gradient then takes a mask of bits), the gradient of relu, the sum of a gradient over its
// rows (that of a bias), and the update of stochastic gradient descent as the product that makes the gradient.

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
  dl::FusedOp mask;                   // of a gradient of relu: the kernel that writes the mask
  dl::FusedOp sum;                    // the kernel that wants the sum that comes along
  mlir::Value sumOperand;             // of `sum`: the reduction that it need not do
  bool sumWaits = false;              // `sum` comes before the product in the plan, and may as well come after it
  mlir::Value scale;                  // of an update W - scale * product, made in place: the factor, a value of the body
  unsigned updated = 0;               // of an update: the input that is W
};

using ProductPlans = llvm::MapVector<mlir::Operation *, ProductPlan>;

/// Looks at all kernels of a planned function that have a product.
ProductPlans planProducts(dl::FuncOp function, const CudaOptions &options);

/// The buffer that a factor of a product lies in.
int64_t bufferOfFactor(dl::FusedOp kernel, mlir::Value factor);

} // namespace dlc::cuda

#endif
