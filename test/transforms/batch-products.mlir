//===- batch-products.mlir - products of a loop's turns become one -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-batch-products,dl-simplify))' | FileCheck %s

dl.model @m dims ["N"] {
  // x[:, t] @ w for all t before the loop, also where it stands in a product of a concatenation.
  // CHECK-LABEL: dl.func @before(
  // CHECK:         %[[ALL:.*]] = dl.matmul %{{.*}}, %{{.*}} : tensor<20x3xf32>, tensor<3x6xf32> -> tensor<20x6xf32>
  // CHECK:         %[[TURNS:.*]] = dl.reshape %[[ALL]]
  // CHECK:         dl.for
  // CHECK:           dl.matmul %{{.*}}, %{{.*}} : tensor<4x6xf32>, tensor<6x6xf32> -> tensor<4x6xf32>
  // CHECK:           dl.slice_at %[[TURNS]]
  // CHECK-NOT:       dl.concat
  // CHECK:           dl.yield
  dl.func @before(%x: tensor<4x5x3xf32>, %h: tensor<4x6xf32>, %w: tensor<9x6xf32>) -> tensor<4x6xf32> {
    %y = dl.for from affine_map<() -> (0)> to affine_map<() -> (5)> (%h) {
    ^bb0(%t: tensor<i64>, %a: tensor<4x6xf32>):
      %s = dl.slice_at %x[%t] axis 1 : tensor<4x5x3xf32> -> tensor<4x3xf32>
      %c = dl.concat %s, %a axis 1 : tensor<4x3xf32>, tensor<4x6xf32> -> tensor<4x9xf32>
      %p = dl.matmul %c, %w : tensor<4x9xf32>, tensor<9x6xf32> -> tensor<4x6xf32>
      %q = dl.tanh %p : tensor<4x6xf32>
      dl.yield %q : tensor<4x6xf32>
    } : (tensor<4x6xf32>) -> tensor<4x6xf32>
    dl.return %y : tensor<4x6xf32>
  }

  // The sum of the turns' products is one product of what the turns leave.
  // CHECK-LABEL: dl.func @after(
  // CHECK:         %[[LOOP:.*]]:2 = dl.for
  // CHECK-NOT:       dl.matmul
  // CHECK:           dl.slice_update
  // CHECK-NOT:       dl.matmul
  // CHECK:           dl.yield
  // CHECK:         dl.matmul transposed %{{.*}}, %{{.*}} : tensor<20x3xf32>, tensor<20x3xf32> -> tensor<3x3xf32>
  dl.func @after(%x: tensor<5x4x3xf32>, %h: tensor<4x3xf32>) -> (tensor<3x3xf32>, tensor<4x3xf32>) {
    %z = dl.fill 0.0 : f64 : tensor<3x3xf32>
    %y:2 = dl.for from affine_map<() -> (0)> to affine_map<() -> (5)> (%z, %h) {
    ^bb0(%t: tensor<i64>, %sum: tensor<3x3xf32>, %a: tensor<4x3xf32>):
      %s = dl.slice_at %x[%t] axis 0 : tensor<5x4x3xf32> -> tensor<4x3xf32>
      %g = dl.tanh %a : tensor<4x3xf32>
      %p = dl.matmul transposed %s, %g : tensor<4x3xf32>, tensor<4x3xf32> -> tensor<3x3xf32>
      %next = dl.add %sum, %p : tensor<3x3xf32>
      dl.yield %next, %g : tensor<3x3xf32>, tensor<4x3xf32>
    } : (tensor<3x3xf32>, tensor<4x3xf32>) -> (tensor<3x3xf32>, tensor<4x3xf32>)
    dl.return %y#0, %y#1 : tensor<3x3xf32>, tensor<4x3xf32>
  }
}
