//===- tensor.mlir - generators, moves, reductions, products and composites, parsed and printed -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s --verify-roundtrip | FileCheck %s

#n4 = affine_map<()[s0] -> (s0, 4)>
dl.model @m dims ["N"] {
  // CHECK-LABEL: dl.func @generators
  dl.func @generators(%seed: tensor<i64>, %call: tensor<i64>) {
    // CHECK-NEXT: dl.fill 1.500000e+00 : f64 : tensor<2x3xf32>
    %0 = dl.fill 1.5 : f64 : tensor<2x3xf32>
    // CHECK-NEXT: dl.fill 7 : i64 : tensor<3xi32>
    %1 = dl.fill 7 : i64 : tensor<3xi32>
    // CHECK-NEXT: dl.constant dense<[1.000000e+00, 2.000000e+00]> : tensor<2xf32> : tensor<2xf32>
    %2 = dl.constant dense<[1.0, 2.0]> : tensor<2xf32> : tensor<2xf32>
    // CHECK-NEXT: dl.size #{{.*}} : tensor<f64>
    %3 = dl.size affine_map<()[s0] -> (s0)> : tensor<f64>
    // CHECK-NEXT: dl.iota 1 : tensor<2x3xi32>
    %4 = dl.iota 1 : tensor<2x3xi32>
    // CHECK-NEXT: dl.uniform %{{.*}}, %{{.*}} {stream = 1 : ui32} : tensor<8xf32>
    %5 = dl.uniform %seed, %call {stream = 1 : ui32} : tensor<8xf32>
    // CHECK-NEXT: dl.normal %{{.*}}, %{{.*}} {stream = 2 : ui32} : tensor<8xf64>
    %6 = dl.normal %seed, %call {stream = 2 : ui32} : tensor<8xf64>
    // CHECK-NEXT: dl.randint %{{.*}}, %{{.*}} {high = 6 : i64, low = -6 : i64, stream = 3 : ui32} : tensor<8xi32>
    %7 = dl.randint %seed, %call {high = 6 : i64, low = -6 : i64, stream = 3 : ui32} : tensor<8xi32>
    dl.return
  }
  // CHECK-LABEL: dl.func @moves
  dl.func @moves(%x: tensor<?x4xf32, #n4>, %y: tensor<4xf32>) {
    // CHECK-NEXT: dl.broadcast %{{.*}} [1] : tensor<4xf32> -> tensor<?x4xf32, #{{.*}}>
    %0 = dl.broadcast %y [1] : tensor<4xf32> -> tensor<?x4xf32, #n4>
    // CHECK-NEXT: dl.reshape %{{.*}} : tensor<?x4xf32, #{{.*}}> -> tensor<?x2x2xf32, #{{.*}}>
    %1 = dl.reshape %x : tensor<?x4xf32, #n4> -> tensor<?x2x2xf32, affine_map<()[s0] -> (s0, 2, 2)>>
    // CHECK-NEXT: dl.assume_shape %{{.*}} : tensor<?x4xf32, #{{.*}}> -> tensor<7x4xf32>
    %6 = dl.assume_shape %x : tensor<?x4xf32, #n4> -> tensor<7x4xf32>
    // CHECK-NEXT: dl.after %{{.*}}, %{{.*}} : tensor<?x4xf32, #{{.*}}>, tensor<4xf32>
    %again = dl.after %x, %y : tensor<?x4xf32, #n4>, tensor<4xf32>
    // CHECK-NEXT: dl.transpose %{{.*}} [1, 0] : tensor<?x4xf32, #{{.*}}> -> tensor<4x?xf32, #{{.*}}>
    %2 = dl.transpose %x [1, 0] : tensor<?x4xf32, #n4> -> tensor<4x?xf32, affine_map<()[s0] -> (4, s0)>>
    // CHECK-NEXT: dl.slice %{{.*}} #{{.*}} [-1] : tensor<4xf32> -> tensor<3xf32>
    %3 = dl.slice %y affine_map<() -> (2)> [-1] : tensor<4xf32> -> tensor<3xf32>
    // CHECK-NEXT: dl.pad %{{.*}} #{{.*}} [2] : tensor<4xf32> -> tensor<9xf32>
    %4 = dl.pad %y affine_map<() -> (1)> [2] : tensor<4xf32> -> tensor<9xf32>
    // CHECK-NEXT: dl.concat %{{.*}}, %{{.*}} axis 0 : tensor<?x4xf32, #{{.*}}>, tensor<?x4xf32, #{{.*}}> -> tensor<?x4xf32, #{{.*}}>
    %5 = dl.concat %x, %x axis 0 : tensor<?x4xf32, #n4>, tensor<?x4xf32, #n4> -> tensor<?x4xf32, affine_map<()[s0] -> (s0 * 2, 4)>>
    // CHECK-NEXT: dl.window %{{.*}} #{{.*}} over [1, 1] else 0xFFF0000000000000 : tensor<?x4xf32, #{{.*}}> -> tensor<?x3x2xf32, #{{.*}}>
    %8 = dl.window %x affine_map<(n, k, p) -> (n, p * 2 + k - 1)> over [1, 1] else 0xFFF0000000000000 : tensor<?x4xf32, #n4> -> tensor<?x3x2xf32, affine_map<()[s0] -> (s0, 3, 2)>>
    dl.return
  }
  // CHECK-LABEL: dl.func @places
  dl.func @places(%x: tensor<?x4x5xf32, affine_map<()[s0] -> (s0, 4, 5)>>, %i: tensor<2x3xi32>, %t: tensor<i64>, %u: tensor<?x2x3x5xf32, affine_map<()[s0] -> (s0, 2, 3, 5)>>) {
    // CHECK-NEXT: %[[Y:.*]] = dl.gather %{{.*}} [1] at %{{.*}} from 1 : (tensor<?x4x5xf32, #{{.*}}>, tensor<2x3xi32>) -> tensor<?x2x3x5xf32, #{{.*}}>
    %0 = dl.gather %x [1] at %i from 1 : (tensor<?x4x5xf32, affine_map<()[s0] -> (s0, 4, 5)>>, tensor<2x3xi32>) -> tensor<?x2x3x5xf32, affine_map<()[s0] -> (s0, 2, 3, 5)>>
    // CHECK-NEXT: dl.gather %{{.*}} [0, 2] at %{{.*}}, %{{.*}} from 0 : (tensor<?x4x5xf32, #{{.*}}>, tensor<2x3xi32>, tensor<2x3xi32>) -> tensor<2x3x4xf32>
    %1 = dl.gather %x [0, 2] at %i, %i from 0 : (tensor<?x4x5xf32, affine_map<()[s0] -> (s0, 4, 5)>>, tensor<2x3xi32>, tensor<2x3xi32>) -> tensor<2x3x4xf32>
    // CHECK-NEXT: dl.gather %{{.*}} [1] at %{{.*}} from 1 : (tensor<?x4x5xf32, #{{.*}}>, tensor<i64>) -> tensor<?x5xf32, #{{.*}}>
    %2 = dl.gather %x [1] at %t from 1 : (tensor<?x4x5xf32, affine_map<()[s0] -> (s0, 4, 5)>>, tensor<i64>) -> tensor<?x5xf32, affine_map<()[s0] -> (s0, 5)>>
    // CHECK-NEXT: dl.scatter %{{.*}} [1] at %{{.*}} from 1 with %[[Y]] : (tensor<?x4x5xf32, #{{.*}}>, tensor<?x2x3x5xf32, #{{.*}}>, tensor<2x3xi32>) -> tensor<?x4x5xf32, #{{.*}}>
    %3 = dl.scatter %x [1] at %i from 1 with %0 : (tensor<?x4x5xf32, affine_map<()[s0] -> (s0, 4, 5)>>, tensor<?x2x3x5xf32, affine_map<()[s0] -> (s0, 2, 3, 5)>>, tensor<2x3xi32>) -> tensor<?x4x5xf32, affine_map<()[s0] -> (s0, 4, 5)>>
    // CHECK-NEXT: dl.scatter_add %{{.*}} [1] at %{{.*}} from 1 with %{{.*}} :
    %4 = dl.scatter_add %x [1] at %i from 1 with %u : (tensor<?x4x5xf32, affine_map<()[s0] -> (s0, 4, 5)>>, tensor<?x2x3x5xf32, affine_map<()[s0] -> (s0, 2, 3, 5)>>, tensor<2x3xi32>) -> tensor<?x4x5xf32, affine_map<()[s0] -> (s0, 4, 5)>>
    dl.return
  }
  // CHECK-LABEL: dl.func @reductions
  dl.func @reductions(%x: tensor<3x4x5xf32>, %b: tensor<4xi1>) {
    // CHECK-NEXT: dl.sum %{{.*}} [0, 2] : tensor<3x4x5xf32> -> tensor<4xf32>
    %sum = dl.sum %x [0, 2] : tensor<3x4x5xf32> -> tensor<4xf32>
    // CHECK-NEXT: dl.max %{{.*}} [0, 2] : tensor<3x4x5xf32> -> tensor<4xf32>
    %max = dl.max %x [0, 2] : tensor<3x4x5xf32> -> tensor<4xf32>
    // CHECK-NEXT: dl.min %{{.*}} [0, 2] : tensor<3x4x5xf32> -> tensor<4xf32>
    %min = dl.min %x [0, 2] : tensor<3x4x5xf32> -> tensor<4xf32>
    // CHECK-NEXT: dl.any %{{.*}} [0] : tensor<4xi1> -> tensor<i1>
    %any = dl.any %b [0] : tensor<4xi1> -> tensor<i1>
    // CHECK-NEXT: dl.all %{{.*}} [0] : tensor<4xi1> -> tensor<i1>
    %all = dl.all %b [0] : tensor<4xi1> -> tensor<i1>
    // CHECK-NEXT: dl.argmax %{{.*}} [2] : tensor<3x4x5xf32> -> tensor<3x4xi32>
    %argmax = dl.argmax %x [2] : tensor<3x4x5xf32> -> tensor<3x4xi32>
    // CHECK-NEXT: dl.argmin %{{.*}} [2] : tensor<3x4x5xf32> -> tensor<3x4xi32>
    %argmin = dl.argmin %x [2] : tensor<3x4x5xf32> -> tensor<3x4xi32>
    dl.return
  }
  // CHECK-LABEL: dl.func @products
  dl.func @products(%a: tensor<?x4xf32, #n4>, %b: tensor<4x5xf32>, %t: tensor<5x4xf32>, %x: tensor<2x3x4xf64>, %y: tensor<2x4x6xf64>) {
    // CHECK-NEXT: dl.matmul %{{.*}}, %{{.*}} : tensor<?x4xf32, #{{.*}}>, tensor<4x5xf32> -> tensor<?x5xf32, #{{.*}}>
    %0 = dl.matmul %a, %b : tensor<?x4xf32, #n4>, tensor<4x5xf32> -> tensor<?x5xf32, affine_map<()[s0] -> (s0, 5)>>
    // CHECK-NEXT: dl.matmul transposed %{{.*}}, transposed %{{.*}} : tensor<4x5xf32>, tensor<5x4xf32> -> tensor<5x5xf32>
    %1 = dl.matmul transposed %b, transposed %t : tensor<4x5xf32>, tensor<5x4xf32> -> tensor<5x5xf32>
    // CHECK-NEXT: dl.matmul %{{.*}}, %{{.*}} : tensor<2x3x4xf64>, tensor<2x4x6xf64> -> tensor<2x3x6xf64>
    %2 = dl.matmul %x, %y : tensor<2x3x4xf64>, tensor<2x4x6xf64> -> tensor<2x3x6xf64>
    dl.return
  }
  // CHECK-LABEL: dl.func @convolutions
  dl.func @convolutions(%x: tensor<2x4x9x7xf32>, %w: tensor<6x2x3x3xf32>) {
    // CHECK-NEXT: dl.convolution output of %{{.*}}, %{{.*}} strides [2, 1] paddings [1, 1] dilations [1, 1] groups 2 : tensor<2x4x9x7xf32>, tensor<6x2x3x3xf32> -> tensor<2x6x5x7xf32>
    %0 = dl.convolution output of %x, %w strides [2, 1] paddings [1, 1] dilations [1, 1] groups 2 : tensor<2x4x9x7xf32>, tensor<6x2x3x3xf32> -> tensor<2x6x5x7xf32>
    // CHECK-NEXT: dl.convolution input of %{{.*}}, %{{.*}} strides [2, 1] paddings [1, 1] dilations [1, 1] groups 2 : tensor<2x6x5x7xf32>, tensor<6x2x3x3xf32> -> tensor<2x4x9x7xf32>
    %1 = dl.convolution input of %0, %w strides [2, 1] paddings [1, 1] dilations [1, 1] groups 2 : tensor<2x6x5x7xf32>, tensor<6x2x3x3xf32> -> tensor<2x4x9x7xf32>
    // CHECK-NEXT: dl.convolution weight of %{{.*}}, %{{.*}} strides [2, 1] paddings [1, 1] dilations [1, 1] groups 2 : tensor<2x4x9x7xf32>, tensor<2x6x5x7xf32> -> tensor<6x2x3x3xf32>
    %2 = dl.convolution weight of %x, %0 strides [2, 1] paddings [1, 1] dilations [1, 1] groups 2 : tensor<2x4x9x7xf32>, tensor<2x6x5x7xf32> -> tensor<6x2x3x3xf32>
    dl.return
  }
  // CHECK-LABEL: dl.func @composites
  dl.func @composites(%x: tensor<8x10xf32>, %label: tensor<8xi32>) {
    // CHECK-NEXT: dl.softmax %{{.*}} axis 1 : tensor<8x10xf32>
    %0 = dl.softmax %x axis 1 : tensor<8x10xf32>
    // CHECK-NEXT: dl.log_softmax %{{.*}} axis 0 : tensor<8x10xf32>
    %1 = dl.log_softmax %x axis 0 : tensor<8x10xf32>
    // CHECK-NEXT: dl.logsumexp %{{.*}} axis 1 : tensor<8x10xf32> -> tensor<8xf32>
    %2 = dl.logsumexp %x axis 1 : tensor<8x10xf32> -> tensor<8xf32>
    // CHECK-NEXT: dl.cross_entropy %{{.*}}, %{{.*}} : tensor<8x10xf32>, tensor<8xi32> -> tensor<8xf32>
    %3 = dl.cross_entropy %x, %label : tensor<8x10xf32>, tensor<8xi32> -> tensor<8xf32>
    dl.return
  }
  // CHECK-LABEL: dl.func @attention
  dl.func @attention(%q: tensor<2x5x3x4xf32>, %v: tensor<2x5x3x6xf32>, %m: tensor<1x1x5x5xi1>, %r: tensor<2x5x3xf32>) {
    // CHECK-NEXT: dl.attention causal %{{.*}}, %{{.*}}, %{{.*}} scale 5.000000e-01 : (tensor<2x5x3x4xf32>, tensor<2x5x3x4xf32>, tensor<2x5x3x6xf32>) -> (tensor<2x5x3x6xf32>, tensor<2x5x3xf32>)
    %0, %1 = dl.attention causal %q, %q, %v scale 0.5 : (tensor<2x5x3x4xf32>, tensor<2x5x3x4xf32>, tensor<2x5x3x6xf32>) -> (tensor<2x5x3x6xf32>, tensor<2x5x3xf32>)
    // CHECK-NEXT: dl.attention %{{.*}}, %{{.*}}, %{{.*}} mask %{{.*}} scale 1.000000e+00 :
    %2, %3 = dl.attention %q, %q, %v mask %m scale 1.0 : (tensor<2x5x3x4xf32>, tensor<2x5x3x4xf32>, tensor<2x5x3x6xf32>, tensor<1x1x5x5xi1>) -> (tensor<2x5x3x6xf32>, tensor<2x5x3xf32>)
    // CHECK-NEXT: dl.attention_gradient %{{.*}}, %{{.*}}, %{{.*}} at %{{.*}}, %{{.*}}, %{{.*}} mask %{{.*}} scale 1.000000e+00 :
    %4, %5, %6 = dl.attention_gradient %q, %q, %v at %r, %r, %v mask %m scale 1.0 : (tensor<2x5x3x4xf32>, tensor<2x5x3x4xf32>, tensor<2x5x3x6xf32>, tensor<2x5x3xf32>, tensor<2x5x3xf32>, tensor<2x5x3x6xf32>, tensor<1x1x5x5xi1>) -> (tensor<2x5x3x4xf32>, tensor<2x5x3x4xf32>, tensor<2x5x3x6xf32>)
    dl.return
  }
  // CHECK-LABEL: dl.func @computed_slices
  dl.func @computed_slices(%x: tensor<4x3xf32>, %i: tensor<i64>) -> tensor<4x3xf32> {
    // CHECK-NEXT: dl.slice_at %{{.*}}[%{{.*}}] axis 0 : tensor<4x3xf32> -> tensor<3xf32>
    %0 = dl.slice_at %x[%i] axis 0 : tensor<4x3xf32> -> tensor<3xf32>
    // CHECK-NEXT: dl.empty : tensor<4x3xf32>
    %1 = dl.empty : tensor<4x3xf32>
    // CHECK-NEXT: dl.slice_update %{{.*}}[%{{.*}}] axis 0, %{{.*}} : tensor<3xf32> -> tensor<4x3xf32>
    %2 = dl.slice_update %1[%i] axis 0, %0 : tensor<3xf32> -> tensor<4x3xf32>
    dl.return %2 : tensor<4x3xf32>
  }
}
