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
  // CHECK-DAG:       dl.matmul %{{.*}}, %{{.*}} : tensor<4x6xf32>, tensor<6x6xf32> -> tensor<4x6xf32>
  // CHECK-DAG:       dl.slice_at %[[TURNS]]
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

dl.model @parts dims [] {
  // Each turn writes its own part: what was there before is written over, and reads of it are 0.
  // CHECK-LABEL: dl.func @sum_in_parts(
  // CHECK:         %[[NEW:.*]] = dl.empty : tensor<5x4xf32>
  // CHECK:         dl.for {{.*}}(%[[NEW]])
  // CHECK-NOT:       dl.slice_at
  // CHECK:           dl.slice_update
  dl.func @sum_in_parts(%x: tensor<4xf32>) -> tensor<5x4xf32> {
    %zeros = dl.fill 0.0 : f64 : tensor<5x4xf32>
    %y = dl.for from affine_map<() -> (0)> to affine_map<() -> (5)> (%zeros) {
    ^bb0(%t: tensor<i64>, %a: tensor<5x4xf32>):
      %p = dl.slice_at %a[%t] axis 0 : tensor<5x4xf32> -> tensor<4xf32>
      %f = dl.convert %t : tensor<i64> -> tensor<f32>
      %b = dl.broadcast %f [] : tensor<f32> -> tensor<4xf32>
      %m = dl.mul %x, %b : tensor<4xf32>
      %s = dl.add %p, %m : tensor<4xf32>
      %u = dl.slice_update %a[%t] axis 0, %s : tensor<4xf32> -> tensor<5x4xf32>
      dl.yield %u : tensor<5x4xf32>
    } : (tensor<5x4xf32>) -> tensor<5x4xf32>
    dl.return %y : tensor<5x4xf32>
  }

  // Another turn's part is read: all stays.
  // CHECK-LABEL: dl.func @reads_another(
  // CHECK-NOT:     dl.empty
  // CHECK:         dl.for
  // CHECK:           dl.slice_at
  dl.func @reads_another(%x: tensor<4xf32>) -> tensor<5x4xf32> {
    %zeros = dl.fill 0.0 : f64 : tensor<5x4xf32>
    %y = dl.for from affine_map<() -> (0)> to affine_map<() -> (5)> (%zeros) {
    ^bb0(%t: tensor<i64>, %a: tensor<5x4xf32>):
      %three = dl.fill 3 : i64 : tensor<i64>
      %p = dl.slice_at %a[%three] axis 0 : tensor<5x4xf32> -> tensor<4xf32>
      %s = dl.add %p, %x : tensor<4xf32>
      %u = dl.slice_update %a[%t] axis 0, %s : tensor<4xf32> -> tensor<5x4xf32>
      dl.yield %u : tensor<5x4xf32>
    } : (tensor<5x4xf32>) -> tensor<5x4xf32>
    dl.return %y : tensor<5x4xf32>
  }

  // What nobody reads after the loop is not written.
  // CHECK-LABEL: dl.func @read_only(
  // CHECK:         dl.for
  // CHECK-NOT:       dl.slice_update
  // CHECK:           dl.yield
  dl.func @read_only(%x: tensor<5x4xf32>, %h: tensor<4xf32>) -> tensor<4xf32> {
    %y, %z = dl.for from affine_map<() -> (0)> to affine_map<() -> (5)> (%h, %x) {
    ^bb0(%t: tensor<i64>, %c: tensor<4xf32>, %a: tensor<5x4xf32>):
      %p = dl.slice_at %a[%t] axis 0 : tensor<5x4xf32> -> tensor<4xf32>
      %s = dl.add %p, %c : tensor<4xf32>
      %o = dl.fill 0.0 : f64 : tensor<4xf32>
      %u = dl.slice_update %a[%t] axis 0, %o : tensor<4xf32> -> tensor<5x4xf32>
      dl.yield %s, %u : tensor<4xf32>, tensor<5x4xf32>
    } : (tensor<4xf32>, tensor<5x4xf32>) -> (tensor<4xf32>, tensor<5x4xf32>)
    dl.return %y : tensor<4xf32>
  }
}
