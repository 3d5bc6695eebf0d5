//===- convolutions.mlir - convolutions are products of the engine -*- mlir -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-decompose,dl-fuse,dl-plan-memory),cuda-emit-kernels{print-launches gemm=cublaslt})' -o %t.mlir 2>&1 | FileCheck %s
// RUN: FileCheck %s --check-prefix=CODE < %t.mlir
// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-decompose,dl-fuse,dl-plan-memory),cuda-emit-kernels{tf32})' | FileCheck %s --check-prefix=TF32

// Whatever computes products, a convolution is the engine's; what is fused into it is in its one launch. Columns go across images.
// CHECK-LABEL: function forward
// CHECK-NEXT:    kernel forward_0 convolution_relu: ((N * 99) / {{[0-9]+}} + {{.*}} blocks, 0 1 2 (N * 99){{$}}
// CODE-LABEL:  func.func private @forward_0(
// CODE:          memref.load
// CODE:          llvm.intr.fma
// CODE:          return
// TF32-LABEL:  func.func private @forward_0(
// TF32:          nvvm.convert.float.to.tf32 {{.*}}rna
// TF32:          nvvm.mma.sync {{.*}} shape = #nvvm.shape<m = 16, n = 8, k = 8>
// TF32-NOT:      llvm.intr.fma
// TF32:          return

// An index of the output is a quotient, where that is whole.
// CHECK-NEXT:  function of_input
// CHECK-NEXT:    kernel of_input_0 convolution: 784 blocks, 0 1 2{{$}}
// CODE-LABEL:  func.func private @of_input_0(
// CODE:          arith.divsi

// Few elements and many steps: chunks of them, and a launch that adds these.
// CHECK-NEXT:  function of_weight
// CHECK-NEXT:    kernel of_weight_0 convolution_chunks: {{[0-9]+}} blocks, 0 1 3{{$}}
// CHECK-NEXT:    kernel of_weight_1 convolution: 5 blocks, 0 1 3 2{{$}}

// Where windows are points of dense images, they are read in vectors, and nothing is outside.
// CHECK-NEXT:  function points
// CHECK-NEXT:    kernel points_0 convolution: 4 blocks, 0 1 2{{$}}
// CODE-LABEL:  func.func private @points_0(
// CODE-COUNT-2:  vector.load {{.*}} vector<4xf32>
// CODE-NOT:      memref.load
// CODE:          return

// Four rows of results: a direct sum.
// CHECK-NEXT:  function few_rows
// CHECK-NEXT:    kernel few_rows_0 mul_sum: 72 blocks, 0 1 2{{$}}
dl.model @m dims ["N"] {
  dl.func @forward(%x: tensor<?x8x9x11xf32, affine_map<()[s0] -> (s0, 8, 9, 11)>>, %w: tensor<16x8x3x3xf32>) -> tensor<?x16x9x11xf32, affine_map<()[s0] -> (s0, 16, 9, 11)>> {
    %y = dl.convolution output of %x, %w strides [1, 1] paddings [1, 1] dilations [1, 1] groups 1 : tensor<?x8x9x11xf32, affine_map<()[s0] -> (s0, 8, 9, 11)>>, tensor<16x8x3x3xf32> -> tensor<?x16x9x11xf32, affine_map<()[s0] -> (s0, 16, 9, 11)>>
    %z = dl.relu %y : tensor<?x16x9x11xf32, affine_map<()[s0] -> (s0, 16, 9, 11)>>
    dl.return %z : tensor<?x16x9x11xf32, affine_map<()[s0] -> (s0, 16, 9, 11)>>
  }
  dl.func @of_input(%dy: tensor<32x64x14x14xf32>, %w: tensor<64x32x3x3xf32>) -> tensor<32x32x28x28xf32> {
    %dx = dl.convolution input of %dy, %w strides [2, 2] paddings [1, 1] dilations [1, 1] groups 1 : tensor<32x64x14x14xf32>, tensor<64x32x3x3xf32> -> tensor<32x32x28x28xf32>
    dl.return %dx : tensor<32x32x28x28xf32>
  }
  dl.func @of_weight(%x: tensor<64x16x14x14xf32>, %dy: tensor<64x32x14x14xf32>) -> tensor<32x16x3x3xf32> {
    %dw = dl.convolution weight of %x, %dy strides [1, 1] paddings [1, 1] dilations [1, 1] groups 1 : tensor<64x16x14x14xf32>, tensor<64x32x14x14xf32> -> tensor<32x16x3x3xf32>
    dl.return %dw : tensor<32x16x3x3xf32>
  }
  dl.func @points(%x: tensor<4x16x8x8xf32>, %w: tensor<32x16x1x1xf32>) -> tensor<4x32x8x8xf32> {
    %y = dl.convolution output of %x, %w strides [1, 1] paddings [0, 0] dilations [1, 1] groups 1 : tensor<4x16x8x8xf32>, tensor<32x16x1x1xf32> -> tensor<4x32x8x8xf32>
    dl.return %y : tensor<4x32x8x8xf32>
  }
  dl.func @few_rows(%x: tensor<4x16x8x8xf32>, %w: tensor<4x16x3x3xf32>) -> tensor<4x4x6x6xf32> {
    %y = dl.convolution output of %x, %w strides [1, 1] paddings [0, 0] dilations [1, 1] groups 1 : tensor<4x16x8x8xf32>, tensor<4x16x3x3xf32> -> tensor<4x4x6x6xf32>
    dl.return %y : tensor<4x4x6x6xf32>
  }
}
