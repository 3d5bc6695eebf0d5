//===- loops.mlir - loops and branches in the list of launches -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-fuse,dl-plan-memory),cuda-emit-kernels{print-launches gemm=own})' -o /dev/null 2>&1 | FileCheck %s

dl.model @m dims ["N"] {
  // The list has an entry before what is inside. A kernel counts the turns; the places of what is carried are exchanged after each.
  // CHECK-LABEL: function product
  // CHECK:         copy: {{.*}} blocks, {{[0-9]+}} [[A:[0-9]+]]
  // CHECK-NEXT:    first_turn: 1 blocks, [[I:[0-9]+]]
  // CHECK-NEXT:    for: from 0 to {{.*}}N{{.*}}, limit none, while none, exchanged [[A]] [[B:[0-9]+]], 2 launches
  // CHECK-NEXT:    next_turn: 1 blocks, [[I]]
  // CHECK-NEXT:    matmul: {{.*}} [[A]] {{[0-9]+}} [[B]]
  dl.func @product(%x: tensor<4x4xf32>, %w: tensor<4x4xf32>, %n: tensor<?xf32, affine_map<()[s0] -> (s0)>>) -> tensor<4x4xf32> {
    %y = dl.for from affine_map<() -> (0)> to affine_map<()[s0] -> (s0)> (%x) {
    ^bb0(%t: tensor<i64>, %a: tensor<4x4xf32>):
      %p = dl.matmul %a, %w : tensor<4x4xf32>, tensor<4x4xf32> -> tensor<4x4xf32>
      dl.yield %p : tensor<4x4xf32>
    } : (tensor<4x4xf32>) -> tensor<4x4xf32>
    dl.return %y : tensor<4x4xf32>
  }

  // What is computed decides: of a loop without end after each turn, of a branch once.
  // CHECK-LABEL: function searched
  // CHECK:         while: from 0, limit none, while [[C:[0-9]+]], exchanged{{.*}}, {{[0-9]+}} launches
  // CHECK-NEXT:    next_turn
  // CHECK:         {{.*}} [[C]]
  // CHECK:         if [[D:[0-9]+]]: 1 launches, else 1
  // CHECK-NEXT:    exp
  // CHECK-NEXT:    neg
  dl.func @searched(%x: tensor<4xf32>, %on: tensor<i1>, %limit: tensor<f32>) -> tensor<4xf32> {
    %last, %y = dl.for from affine_map<() -> (0)> while (%on, %x) {
    ^bb0(%t: tensor<i64>, %c: tensor<i1>, %a: tensor<4xf32>):
      %d = dl.add %a, %a : tensor<4xf32>
      %s = dl.sum %d [0] : tensor<4xf32> -> tensor<f32>
      %n = dl.compare le %s, %limit : tensor<f32> -> tensor<i1>
      dl.yield %n, %d : tensor<i1>, tensor<4xf32>
    } : (tensor<i1>, tensor<4xf32>) -> (tensor<i1>, tensor<4xf32>)
    %z = dl.if %on {
      %e = dl.exp %y : tensor<4xf32>
      dl.yield %e : tensor<4xf32>
    } else {
      %e = dl.neg %y : tensor<4xf32>
      dl.yield %e : tensor<4xf32>
    } : tensor<4xf32>
    dl.return %z : tensor<4xf32>
  }
}
