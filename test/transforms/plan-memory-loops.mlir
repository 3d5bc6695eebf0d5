//===- plan-memory-loops.mlir - places of what loops and branches carry -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-fuse,dl-plan-memory))' | FileCheck %s

dl.model @m dims [] {
  // Written over what the last turn left: one place, from the argument's copy on. The index is a number in the arena.
  // CHECK-LABEL: dl.func @in_place(
  // CHECK:         dl.fused "loop"{{.*}}name = "copy", result_buffers = array<i64: [[A:[0-9]+]]>
  // CHECK:         dl.for {{.*}} attributes {index_buffer = {{[0-9]+}} : i64}
  // CHECK:           dl.fused "loop"{{.*}}input_buffers = array<i64: [[A]]>, {{.*}}result_buffers = array<i64: [[A]]>
  dl.func @in_place(%x: tensor<8xf32>) -> tensor<8xf32> {
    %y = dl.for from affine_map<() -> (0)> to affine_map<() -> (5)> (%x) {
    ^bb0(%t: tensor<i64>, %a: tensor<8xf32>):
      %e = dl.exp %a : tensor<8xf32>
      dl.yield %e : tensor<8xf32>
    } : (tensor<8xf32>) -> tensor<8xf32>
    dl.return %y : tensor<8xf32>
  }

  // A product reads all of what it is about to replace: two places, exchanged after each turn.
  // CHECK-LABEL: dl.func @two_places(
  // CHECK:         dl.for {{.*}} attributes {exchanged_buffers = array<i64: [[A:[0-9]+]], [[B:[0-9]+]]>
  // CHECK:           dl.fused "gemm"{{.*}}input_buffers = array<i64: [[A]], {{[0-9]+}}>, {{.*}}result_buffers = array<i64: [[B]]>
  dl.func @two_places(%x: tensor<4x4xf32>, %w: tensor<4x4xf32>) -> tensor<4x4xf32> {
    %y = dl.for from affine_map<() -> (0)> to affine_map<() -> (5)> (%x) {
    ^bb0(%t: tensor<i64>, %a: tensor<4x4xf32>):
      %p = dl.matmul %a, %w : tensor<4x4xf32>, tensor<4x4xf32> -> tensor<4x4xf32>
      dl.yield %p : tensor<4x4xf32>
    } : (tensor<4x4xf32>) -> tensor<4x4xf32>
    dl.return %y : tensor<4x4xf32>
  }

  // A slice is written where the whole lies; in a branch, too, where the other leaves the whole as it is.
  // CHECK-LABEL: dl.func @slices(
  // CHECK:         dl.fused "loop"{{.*}}name = "copy", result_buffers = array<i64: [[A:[0-9]+]]>
  // CHECK:         dl.for
  // CHECK:           dl.if
  // CHECK-NOT:         name = "copy"
  // CHECK:             dl.fused "loop"{{.*}}name = "{{.*}}slice_update", result_buffers = array<i64: [[A]]>
  // CHECK-NOT:         name = "copy"
  // CHECK:           dl.yield %{{.*}} : tensor<5x8xf32>
  dl.func @slices(%x: tensor<5x8xf32>, %c: tensor<i1>) -> tensor<5x8xf32> {
    %y = dl.for from affine_map<() -> (0)> to affine_map<() -> (5)> (%x) {
    ^bb0(%t: tensor<i64>, %a: tensor<5x8xf32>):
      %q = dl.if %c {
        %s = dl.slice_at %a[%t] axis 0 : tensor<5x8xf32> -> tensor<8xf32>
        %e = dl.exp %s : tensor<8xf32>
        %u = dl.slice_update %a[%t] axis 0, %e : tensor<8xf32> -> tensor<5x8xf32>
        dl.yield %u : tensor<5x8xf32>
      } else {
        dl.yield %a : tensor<5x8xf32>
      } : tensor<5x8xf32>
      dl.yield %q : tensor<5x8xf32>
    } : (tensor<5x8xf32>) -> tensor<5x8xf32>
    dl.return %y : tensor<5x8xf32>
  }

  // One value that two results get lies in two places: the other branch, or another turn, has two values.
  // CHECK-LABEL: dl.func @twice(
  // CHECK:         dl.if
  // CHECK:           name = "exp", result_buffers = array<i64: [[A:[0-9]+]]>
  // CHECK:           input_buffers = array<i64: [[A]]>, {{.*}}name = "copy", result_buffers = array<i64: [[B:[0-9]+]]>
  // CHECK:         } else {
  // CHECK-DAG:       name = "exp", result_buffers = array<i64: [[A]]>
  // CHECK-DAG:       name = "neg", result_buffers = array<i64: [[B]]>
  dl.func @twice(%x: tensor<8xf32>, %c: tensor<i1>) -> (tensor<8xf32>, tensor<8xf32>) {
    %a, %b = dl.if %c {
      %e = dl.exp %x : tensor<8xf32>
      dl.yield %e, %e : tensor<8xf32>, tensor<8xf32>
    } else {
      %e = dl.exp %x : tensor<8xf32>
      %n = dl.neg %x : tensor<8xf32>
      dl.yield %e, %n : tensor<8xf32>, tensor<8xf32>
    } : tensor<8xf32>, tensor<8xf32>
    dl.return %a, %b : tensor<8xf32>, tensor<8xf32>
  }
  // CHECK-LABEL: dl.func @exchanged_twice(
  // CHECK:         dl.for {{.*}} attributes {exchanged_buffers = array<i64: [[A:[0-9]+]], [[B:[0-9]+]]>
  // CHECK:           name = "matmul", result_buffers = array<i64: [[B]]>
  // CHECK-NOT:       result_buffers = array<i64: [[B]]>
  // CHECK:           input_buffers = array<i64: [[B]]>, {{.*}}name = "copy"
  // CHECK:           dl.yield %{{.*}}, %{{.*}} : tensor<4x4xf32>, tensor<4x4xf32>
  dl.func @exchanged_twice(%x: tensor<4x4xf32>, %w: tensor<4x4xf32>) -> (tensor<4x4xf32>, tensor<4x4xf32>) {
    %a, %b = dl.for from affine_map<() -> (0)> to affine_map<() -> (5)> (%x, %x) {
    ^bb0(%t: tensor<i64>, %p: tensor<4x4xf32>, %q: tensor<4x4xf32>):
      %s = dl.matmul %p, %w : tensor<4x4xf32>, tensor<4x4xf32> -> tensor<4x4xf32>
      dl.yield %s, %s : tensor<4x4xf32>, tensor<4x4xf32>
    } : (tensor<4x4xf32>, tensor<4x4xf32>) -> (tensor<4x4xf32>, tensor<4x4xf32>)
    dl.return %a, %b : tensor<4x4xf32>, tensor<4x4xf32>
  }
  // CHECK-LABEL: dl.func @carried_twice(
  // CHECK:         dl.for
  // CHECK:           input_buffers = array<i64: [[A:[0-9]+]], [[B:[0-9]+]]>, {{.*}}name = "add", result_buffers = array<i64: [[A]]>
  // CHECK:           input_buffers = array<i64: [[A]]>, {{.*}}name = "copy", result_buffers = array<i64: [[B]]>
  dl.func @carried_twice(%x: tensor<8xf32>, %y: tensor<8xf32>) -> (tensor<8xf32>, tensor<8xf32>) {
    %a, %b = dl.for from affine_map<() -> (0)> to affine_map<() -> (5)> (%x, %y) {
    ^bb0(%t: tensor<i64>, %p: tensor<8xf32>, %q: tensor<8xf32>):
      %s = dl.add %p, %q : tensor<8xf32>
      dl.yield %s, %s : tensor<8xf32>, tensor<8xf32>
    } : (tensor<8xf32>, tensor<8xf32>) -> (tensor<8xf32>, tensor<8xf32>)
    dl.return %a, %b : tensor<8xf32>, tensor<8xf32>
  }
}
