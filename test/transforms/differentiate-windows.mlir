//===- differentiate-windows.mlir - the gradient of windows -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-differentiate))' | FileCheck %s

// Elements of windows that step by 2 are counted by quotient and remainder: nothing is divided, and neighbours stay so.
// CHECK-LABEL: dl.func @windows
// CHECK:         %[[Q:.*]] = dl.window %{{.*}} #{{.*}} over [1, 1, 1] else 0.0{{.*}} : tensor<3x3x4xf32> -> tensor<3x2x2x5xf32>
// CHECK-NEXT:    %[[S:.*]] = dl.sum %[[Q]] [1] : tensor<3x2x2x5xf32> -> tensor<3x2x5xf32>
// CHECK-NEXT:    %[[T:.*]] = dl.transpose %[[S]] [0, 2, 1]
// CHECK-NEXT:    %[[R:.*]] = dl.reshape %[[T]] : tensor<3x5x2xf32> -> tensor<3x10xf32>
// CHECK-NEXT:    dl.slice %[[R]] #{{.*}} [1, 1] : tensor<3x10xf32> -> tensor<3x8xf32>
dl.model @m dims [] {
  dl.func @windows(%x: tensor<3x8xf32>) -> tensor<3x8xf32> {
    %w = dl.window %x affine_map<(n, k, p) -> (n, p * 2 + k - 1)> over [1, 1] else 0.0 : tensor<3x8xf32> -> tensor<3x3x4xf32>
    %s = dl.sum %w [0, 1, 2] : tensor<3x3x4xf32> -> tensor<f32>
    %g = dl.gradient %s wrt %x : (tensor<f32>, tensor<3x8xf32>) -> tensor<3x8xf32>
    dl.return %g : tensor<3x8xf32>
  }
}
