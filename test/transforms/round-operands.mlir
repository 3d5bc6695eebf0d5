//===- round-operands.mlir - products under a precision -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-differentiate,dl-simplify,dl-round-operands,dl-simplify))' | FileCheck %s

// CHECK: dl.model @m dims ["N"] precision bf16
dl.model @m dims ["N"] precision bf16 {
  // What several products read is rounded once, ahead of what only moves it; the cotangent is rounded, the gradient and the sum of squares are not.
  // CHECK-LABEL: dl.func @step
  // CHECK-SAME:    %[[X:.*]]: tensor<8x4xf32>, %[[W:.*]]: tensor<4x2xf32>
  // CHECK-DAG:     %[[RX:.*]] = dl.round_to bf16 %[[X]]
  // CHECK-DAG:     %[[RW:.*]] = dl.round_to bf16 %[[W]]
  // CHECK:         %[[Y:.*]] = dl.matmul %[[RX]], %[[RW]]
  // CHECK:         dl.mul %[[Y]], %[[Y]]
  // CHECK:         %[[DY:.*]] = dl.add
  // CHECK-NEXT:    %[[RDY:.*]] = dl.round_to bf16 %[[DY]]
  // CHECK-DAG:     %[[DX:.*]] = dl.matmul %[[RDY]], transposed %[[RW]]
  // CHECK-DAG:     %[[DW:.*]] = dl.matmul transposed %[[RX]], %[[RDY]]
  // CHECK-NOT:     dl.round_to
  // CHECK:         dl.return %{{.*}}, %[[DX]], %[[DW]]
  dl.func @step(%x: tensor<8x4xf32>, %w: tensor<4x2xf32>) -> (tensor<f32>, tensor<8x4xf32>, tensor<4x2xf32>) {
    %y = dl.matmul %x, %w : tensor<8x4xf32>, tensor<4x2xf32> -> tensor<8x2xf32>
    %s = dl.mul %y, %y : tensor<8x2xf32>
    %l = dl.sum %s [0, 1] : tensor<8x2xf32> -> tensor<f32>
    %g:2 = dl.gradient %l wrt %x, %w : (tensor<f32>, tensor<8x4xf32>, tensor<4x2xf32>) -> (tensor<8x4xf32>, tensor<4x2xf32>)
    dl.return %l, %g#0, %g#1 : tensor<f32>, tensor<8x4xf32>, tensor<4x2xf32>
  }

  // Before it is repeated or seen in another shape, but after a part is taken of it.
  // CHECK-LABEL: dl.func @moved
  // CHECK-SAME:    %[[X:.*]]: tensor<3x8x4xf32>, %[[W:.*]]: tensor<4x2xf32>, %[[V:.*]]: tensor<9x4xf32>
  // CHECK-DAG:     %[[RX:.*]] = dl.round_to bf16 %[[X]] : tensor<3x8x4xf32>
  // CHECK-DAG:     %[[RW:.*]] = dl.round_to bf16 %[[W]] : tensor<4x2xf32>
  // CHECK-DAG:     %[[SLICE:.*]] = dl.slice %[[V]]
  // CHECK-DAG:     %[[RV:.*]] = dl.round_to bf16 %[[SLICE]] : tensor<2x4xf32>
  // CHECK-NOT:     dl.round_to
  // CHECK:         dl.return
  dl.func @moved(%x: tensor<3x8x4xf32>, %w: tensor<4x2xf32>, %v: tensor<9x4xf32>) -> (tensor<3x8x2xf32>, tensor<24x2xf32>, tensor<24x2xf32>) {
    %w3 = dl.broadcast %w [1, 2] : tensor<4x2xf32> -> tensor<3x4x2xf32>
    %a = dl.matmul %x, %w3 : tensor<3x8x4xf32>, tensor<3x4x2xf32> -> tensor<3x8x2xf32>
    %flat = dl.reshape %x : tensor<3x8x4xf32> -> tensor<24x4xf32>
    %b = dl.matmul %flat, %w : tensor<24x4xf32>, tensor<4x2xf32> -> tensor<24x2xf32>
    %part = dl.slice %v affine_map<() -> (1, 0)> [2, 1] : tensor<9x4xf32> -> tensor<2x4xf32>
    %c = dl.matmul %flat, transposed %part : tensor<24x4xf32>, tensor<2x4xf32> -> tensor<24x2xf32>
    dl.return %a, %b, %c : tensor<3x8x2xf32>, tensor<24x2xf32>, tensor<24x2xf32>
  }

  // Attention is taken apart, so that its weights are rounded, too.
  // CHECK-LABEL: dl.func @attention
  // CHECK-NOT:     dl.attention
  // CHECK-COUNT-3: dl.round_to bf16 %{{.*}} : tensor<2x8x1x4xf32>
  // CHECK:         dl.matmul
  // CHECK:         dl.exp
  // CHECK:         %[[P:.*]] = dl.mul {{.*}} : tensor<2x1x8x8xf32>
  // CHECK-NEXT:    %[[RP:.*]] = dl.round_to bf16 %[[P]] : tensor<2x1x8x8xf32>
  // CHECK:         dl.matmul %[[RP]]
  // CHECK:         dl.return
  dl.func @attention(%q: tensor<2x8x1x4xf32>, %k: tensor<2x8x1x4xf32>, %v: tensor<2x8x1x4xf32>) -> tensor<2x8x1x4xf32> {
    %a:2 = dl.attention %q, %k, %v scale 0.5 : (tensor<2x8x1x4xf32>, tensor<2x8x1x4xf32>, tensor<2x8x1x4xf32>) -> (tensor<2x8x1x4xf32>, tensor<2x8x1xf32>)
    dl.return %a#0 : tensor<2x8x1x4xf32>
  }

  // Both gradients of a convolution read the same rounded ones; products of f64 stay as they are.
  // CHECK-LABEL: dl.func @others
  // CHECK-COUNT-2: dl.round_to bf16
  // CHECK:         dl.convolution output
  // CHECK-NOT:     dl.round_to
  // CHECK:         dl.matmul {{.*}} : tensor<2x2xf64>
  dl.func @others(%x: tensor<1x2x5xf32>, %w: tensor<3x2x3xf32>, %m: tensor<2x2xf64>) -> (tensor<1x3x3xf32>, tensor<2x2xf64>) {
    %0 = dl.convolution output of %x, %w strides [1] paddings [0] dilations [1] groups 1 : tensor<1x2x5xf32>, tensor<3x2x3xf32> -> tensor<1x3x3xf32>
    %1 = dl.matmul %m, %m : tensor<2x2xf64>, tensor<2x2xf64> -> tensor<2x2xf64>
    dl.return %0, %1 : tensor<1x3x3xf32>, tensor<2x2xf64>
  }

  // Rounded once is rounded; another precision is another number. The derivative goes through.
  // CHECK-LABEL: dl.func @twice
  // CHECK-SAME:    %[[X:.*]]: tensor<4xf32>
  // CHECK:         %[[ONE:.*]] = dl.fill 1.0
  // CHECK-NEXT:    %[[A:.*]] = dl.round_to bf16 %[[X]]
  // CHECK-NEXT:    %[[B:.*]] = dl.round_to f16 %[[A]]
  // CHECK-NEXT:    dl.return %[[B]], %[[ONE]]
  dl.func @twice(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
    %0 = dl.round_to bf16 %x : tensor<4xf32>
    %1 = dl.round_to bf16 %0 : tensor<4xf32>
    %2 = dl.round_to f16 %1 : tensor<4xf32>
    %l = dl.sum %2 [0] : tensor<4xf32> -> tensor<f32>
    %g = dl.gradient %l wrt %x : (tensor<f32>, tensor<4xf32>) -> tensor<4xf32>
    dl.return %2, %g : tensor<4xf32>, tensor<4xf32>
  }
}
