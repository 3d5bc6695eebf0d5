//===- decompose.mlir - composite ops taken apart -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-decompose))' | FileCheck %s --check-prefixes=CHECK,APART
// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-decompose,dl-simplify))' | FileCheck %s --check-prefixes=CHECK,SHARED
// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-decompose{for-engine=true}))' | FileCheck %s --check-prefixes=ENGINE

// CHECK-LABEL: dl.func @softmax
// CHECK-NOT:     dl.softmax
// CHECK:         dl.max %{{.*}} [1]
// CHECK:         dl.exp
// CHECK:         dl.sum %{{.*}} [1]
// CHECK-NOT:     dl.softmax
// CHECK:         dl.return

// The loss and its gradient need one maximum, one row of exponentials and one sum between them.
// CHECK-LABEL: dl.func @cross_entropy
// APART:         dl.exp
// APART:         dl.exp
// SHARED:        dl.exp
// SHARED-NOT:    dl.exp
// CHECK:         dl.return
// A matrix times one vector, on either side, is a sum of each row; one that lies the other way, or times several vectors, is a product.
// CHECK-LABEL: dl.func @vector
// CHECK-SAME:    %[[A:.*]]: tensor<5x8x16xf32>, %[[V:.*]]: tensor<5x16x1xf32>
// CHECK-DAG:     %[[FLAT:.*]] = dl.reshape %[[V]] : tensor<5x16x1xf32> -> tensor<5x16xf32>
// CHECK-DAG:     %[[SPREAD:.*]] = dl.broadcast %[[FLAT]] [0, 2] : tensor<5x16xf32> -> tensor<5x8x16xf32>
// CHECK:         %[[TERMS:.*]] = dl.mul %[[A]], %[[SPREAD]]
// CHECK-NEXT:    %[[SUM:.*]] = dl.sum %[[TERMS]] [2]
// CHECK-NEXT:    dl.reshape %[[SUM]] : tensor<5x8xf32> -> tensor<5x8x1xf32>
// CHECK:         dl.sum %{{.*}} [2] : tensor<5x8x16xf32> -> tensor<5x8xf32>
// CHECK-NEXT:    dl.reshape %{{.*}} : tensor<5x8xf32> -> tensor<5x1x8xf32>
// CHECK:         dl.matmul transposed
// CHECK:         dl.return
// A gradient of one's own that nobody takes leaves nothing.
// CHECK-LABEL: dl.func @own
// CHECK-SAME:    %[[X:.*]]: tensor<4xf32>, %[[N:.*]]: tensor<i32>
// CHECK-NEXT:    dl.return %[[X]], %[[N]]
// A convolution is a sum of products of windows. It stays whole for a GPU's engine if that has enough rows, here not those of the gradient in the input; for the CPU's unless it is of a weight with few channels in a group.
// CHECK-LABEL: dl.func @convolution
// CHECK-SAME:    %[[X:.*]]: tensor<5x4x9x9xf32>, %[[W:.*]]: tensor<8x4x3x3xf32>
// CHECK:         %[[Y:.*]] = dl.convolution output of %[[X]], %[[W]]
// CHECK-DAG:     %[[WINDOWS:.*]] = dl.window %[[Y]] #{{.*}} over [1, 1, 2, 2] else 0.0{{.*}} : tensor<5x8x5x5xf32> -> tensor<5x4x8x3x3x9x9xf32>
// CHECK-DAG:     %[[WEIGHTS:.*]] = dl.window %[[W]] #{{.*}} over [1, 1, 1, 1] else 0.0{{.*}} : tensor<8x4x3x3xf32> -> tensor<5x4x8x3x3x9x9xf32>
// CHECK:         %[[TERMS:.*]] = dl.mul %[[WINDOWS]], %[[WEIGHTS]]
// CHECK-NEXT:    dl.sum %[[TERMS]] [2, 3, 4] : tensor<5x4x8x3x3x9x9xf32> -> tensor<5x4x9x9xf32>
// CHECK:         dl.convolution weight
// CHECK:         dl.return
// ENGINE-LABEL: dl.func @convolution
// ENGINE:        dl.convolution output
// ENGINE:        dl.convolution input
// ENGINE:        dl.convolution weight
// ENGINE-LABEL: dl.func @grouped
// ENGINE:        dl.convolution output
// ENGINE-NOT:    dl.convolution
// CHECK-LABEL: dl.func @grouped
// CHECK:         dl.sum %{{.*}} [3, 4] : tensor<2x2x3x2x5x3xf32> -> tensor<2x2x3x3xf32>
// CHECK-NEXT:    dl.reshape %{{.*}} : tensor<2x2x3x3xf32> -> tensor<2x6x3xf32>
// CHECK:         dl.sum %{{.*}} [4, 5] : tensor<2x3x2x5x2x3xf32> -> tensor<2x3x2x5xf32>
// CHECK-NEXT:    dl.reshape %{{.*}} : tensor<2x3x2x5xf32> -> tensor<6x2x5xf32>
// Attention and its gradient are whole where targets have kernels for heads of that size. Else they are products and a softmax, in which a row without keys is 0. A GPU's shared memory has room for narrower heads.
// CHECK-LABEL: dl.func @attention
// CHECK:         dl.attention causal %{{.*}} : (tensor<2x5x3x4xf32>
// CHECK:         dl.attention_gradient causal
// CHECK-NOT:     dl.attention
// CHECK:         dl.return
// CHECK-LABEL: dl.func @wide_attention
// CHECK-NOT:     dl.attention
// CHECK:         dl.matmul %{{.*}}, transposed %{{.*}} : tensor<2x3x5x200xf32>, tensor<2x3x5x200xf32> -> tensor<2x3x5x5xf32>
// CHECK:         dl.max %{{.*}} [3] : tensor<2x3x5x5xf32> -> tensor<2x3x5xf32>
// CHECK:         dl.matmul
// CHECK-NOT:     dl.attention
// CHECK:         dl.return
// ENGINE-LABEL: dl.func @attention
// ENGINE:        dl.attention causal %{{.*}} : (tensor<2x5x3x4xf32>
// ENGINE:        dl.attention_gradient causal
// ENGINE-NOT:    dl.attention
// ENGINE-LABEL: dl.func @wide_attention
// ENGINE:        dl.attention
dl.model @m dims [] {
  dl.func @softmax(%x: tensor<8x10xf32>) -> tensor<8x10xf32> {
    %y = dl.softmax %x axis 1 : tensor<8x10xf32>
    dl.return %y : tensor<8x10xf32>
  }
  dl.func @cross_entropy(%x: tensor<8x10xf32>, %label: tensor<8xi32>) -> (tensor<8xf32>, tensor<8x10xf32>) {
    %l = dl.cross_entropy %x, %label : tensor<8x10xf32>, tensor<8xi32> -> tensor<8xf32>
    %p = dl.softmax %x axis 1 : tensor<8x10xf32>
    dl.return %l, %p : tensor<8xf32>, tensor<8x10xf32>
  }
  dl.func @vector(%a: tensor<5x8x16xf32>, %v: tensor<5x16x1xf32>, %u: tensor<5x8x1xf32>, %row: tensor<5x1x16xf32>) -> (tensor<5x8x1xf32>, tensor<5x1x8xf32>, tensor<5x16x1xf32>) {
    %right = dl.matmul %a, %v : tensor<5x8x16xf32>, tensor<5x16x1xf32> -> tensor<5x8x1xf32>
    %left = dl.matmul %row, transposed %a : tensor<5x1x16xf32>, tensor<5x8x16xf32> -> tensor<5x1x8xf32>
    %across = dl.matmul transposed %a, %u : tensor<5x8x16xf32>, tensor<5x8x1xf32> -> tensor<5x16x1xf32>
    dl.return %right, %left, %across : tensor<5x8x1xf32>, tensor<5x1x8xf32>, tensor<5x16x1xf32>
  }
  dl.func @own(%x: tensor<4xf32>, %n: tensor<i32>) -> (tensor<4xf32>, tensor<i32>) {
    %z:2 = dl.custom_gradient %x, %n wrt %x {
    ^bb0(%dx: tensor<4xf32>):
      dl.yield %dx : tensor<4xf32>
    } : tensor<4xf32>, tensor<i32> wrt tensor<4xf32>
    dl.return %z#0, %z#1 : tensor<4xf32>, tensor<i32>
  }
  dl.func @convolution(%x: tensor<5x4x9x9xf32>, %w: tensor<8x4x3x3xf32>) -> (tensor<5x8x5x5xf32>, tensor<5x4x9x9xf32>, tensor<8x4x3x3xf32>) {
    %y = dl.convolution output of %x, %w strides [2, 2] paddings [1, 1] dilations [1, 1] groups 1 : tensor<5x4x9x9xf32>, tensor<8x4x3x3xf32> -> tensor<5x8x5x5xf32>
    %dx = dl.convolution input of %y, %w strides [2, 2] paddings [1, 1] dilations [1, 1] groups 1 : tensor<5x8x5x5xf32>, tensor<8x4x3x3xf32> -> tensor<5x4x9x9xf32>
    %dw = dl.convolution weight of %x, %y strides [2, 2] paddings [1, 1] dilations [1, 1] groups 1 : tensor<5x4x9x9xf32>, tensor<5x8x5x5xf32> -> tensor<8x4x3x3xf32>
    dl.return %y, %dx, %dw : tensor<5x8x5x5xf32>, tensor<5x4x9x9xf32>, tensor<8x4x3x3xf32>
  }
  dl.func @grouped(%x: tensor<2x4x7xf32>, %w: tensor<6x2x5xf32>) -> (tensor<2x6x3xf32>, tensor<6x2x5xf32>) {
    %y = dl.convolution output of %x, %w strides [1] paddings [0] dilations [1] groups 2 : tensor<2x4x7xf32>, tensor<6x2x5xf32> -> tensor<2x6x3xf32>
    %dw = dl.convolution weight of %x, %y strides [1] paddings [0] dilations [1] groups 2 : tensor<2x4x7xf32>, tensor<2x6x3xf32> -> tensor<6x2x5xf32>
    dl.return %y, %dw : tensor<2x6x3xf32>, tensor<6x2x5xf32>
  }
  dl.func @attention(%q: tensor<2x5x3x4xf32>, %w: tensor<2x5x1x512xf32>) -> (tensor<2x5x3x4xf32>, tensor<2x5x3x4xf32>, tensor<2x5x1x512xf32>) {
    %y, %l = dl.attention causal %q, %q, %q scale 0.5 : (tensor<2x5x3x4xf32>, tensor<2x5x3x4xf32>, tensor<2x5x3x4xf32>) -> (tensor<2x5x3x4xf32>, tensor<2x5x3xf32>)
    %dq, %dk, %dv = dl.attention_gradient causal %q, %q, %q at %l, %l, %y scale 0.5 : (tensor<2x5x3x4xf32>, tensor<2x5x3x4xf32>, tensor<2x5x3x4xf32>, tensor<2x5x3xf32>, tensor<2x5x3xf32>, tensor<2x5x3x4xf32>) -> (tensor<2x5x3x4xf32>, tensor<2x5x3x4xf32>, tensor<2x5x3x4xf32>)
    %z, %m = dl.attention %w, %w, %w scale 1.0 : (tensor<2x5x1x512xf32>, tensor<2x5x1x512xf32>, tensor<2x5x1x512xf32>) -> (tensor<2x5x1x512xf32>, tensor<2x5x1xf32>)
    dl.return %y, %dq, %z : tensor<2x5x3x4xf32>, tensor<2x5x3x4xf32>, tensor<2x5x1x512xf32>
  }
  dl.func @wide_attention(%q: tensor<2x5x3x200xf32>) -> tensor<2x5x3x200xf32> {
    %y, %l = dl.attention causal %q, %q, %q scale 0.5 : (tensor<2x5x3x200xf32>, tensor<2x5x3x200xf32>, tensor<2x5x3x200xf32>) -> (tensor<2x5x3x200xf32>, tensor<2x5x3xf32>)
    dl.return %y : tensor<2x5x3x200xf32>
  }
}
