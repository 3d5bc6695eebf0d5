//===- decompose.mlir - composite ops taken apart -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-decompose))' | FileCheck %s --check-prefixes=CHECK,APART
// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-decompose,dl-simplify))' | FileCheck %s --check-prefixes=CHECK,SHARED

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
}
