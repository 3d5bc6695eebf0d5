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
}
