//===- share-kernels.mlir - kernels that say the same are one -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-fuse,dl-plan-memory),cpu-emit-kernels{cpu=x86-64-v3})' | FileCheck %s

// Two layers of one shape, on different variables and buffers, and one of another shape.
// CHECK-LABEL: func.func private @f_0_0(
// CHECK-LABEL: func.func private @f_0(
// CHECK:         call @f_0_0(
// CHECK-LABEL: func.func private @f_1(
// CHECK:         call @f_0_0(
// CHECK-LABEL: func.func private @f_2_0(
// CHECK-LABEL: func.func private @f_2(
// CHECK:         call @f_2_0(
// CHECK-LABEL: func.func @m_f(

// Another function has the same layer, on buffers of the same numbers: there is nothing of its own but its entry.
// CHECK-NOT:   func.func private @g_
// CHECK-LABEL: func.func @m_g(
// CHECK:         constant @f_0 :
dl.model @m dims [] {
  dl.variable trained @a : tensor<16x16xf32>
  dl.variable trained @b : tensor<16x16xf32>
  dl.variable trained @c : tensor<16x8xf32>
  dl.func @f(%x: tensor<4x16xf32>) -> tensor<4x8xf32> {
    %a = dl.read @a : tensor<16x16xf32>
    %b = dl.read @b : tensor<16x16xf32>
    %c = dl.read @c : tensor<16x8xf32>
    %0 = dl.matmul %x, %a : tensor<4x16xf32>, tensor<16x16xf32> -> tensor<4x16xf32>
    %1 = dl.matmul %0, %b : tensor<4x16xf32>, tensor<16x16xf32> -> tensor<4x16xf32>
    %2 = dl.matmul %1, %c : tensor<4x16xf32>, tensor<16x8xf32> -> tensor<4x8xf32>
    dl.return %2 : tensor<4x8xf32>
  }
  dl.func @g(%x: tensor<4x16xf32>) -> tensor<4x16xf32> {
    %b = dl.read @b : tensor<16x16xf32>
    %0 = dl.matmul %x, %b : tensor<4x16xf32>, tensor<16x16xf32> -> tensor<4x16xf32>
    dl.return %0 : tensor<4x16xf32>
  }
}
