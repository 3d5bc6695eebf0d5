//===- canonicalize.mlir - what ops fold to by themselves -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s -canonicalize | FileCheck %s

#n4 = affine_map<()[s0] -> (s0, 4)>
dl.model @m dims ["N"] {
  // Neutral elements, on either side.
  // CHECK-LABEL: dl.func @neutral(
  // CHECK-SAME:    %[[X:.*]]: tensor<4xf32>
  // CHECK-NEXT:    dl.return %[[X]], %[[X]], %[[X]], %[[X]], %[[X]], %[[X]], %[[X]] :
  dl.func @neutral(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) {
    %zero = dl.fill 0.0 : f64 : tensor<4xf32>
    %one = dl.fill 1.0 : f64 : tensor<4xf32>
    %0 = dl.add %x, %zero : tensor<4xf32>
    %1 = dl.add %zero, %x : tensor<4xf32>
    %2 = dl.sub %x, %zero : tensor<4xf32>
    %3 = dl.mul %one, %x : tensor<4xf32>
    %4 = dl.mul_no_nan %x, %one : tensor<4xf32>
    %5 = dl.div %x, %one : tensor<4xf32>
    %6 = dl.pow %x, %one : tensor<4xf32>
    dl.return %0, %1, %2, %3, %4, %5, %6 : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>
  }
  // Places that follow each other are a slice, places in what is the same along their axis are a broadcast.
  // CHECK-LABEL: dl.func @places(
  // CHECK-SAME:    %[[X:.*]]: tensor<6x4xf32>, %[[V:.*]]: tensor<4xf32>, %[[I:.*]]: tensor<3xi32>
  // CHECK-DAG:     %[[ROWS:.*]] = dl.slice %[[X]] #{{.*}} [1, 1] : tensor<6x4xf32> -> tensor<5x4xf32>
  // CHECK-DAG:     %[[STEPS:.*]] = dl.slice %[[X]] #{{.*}} [-2, 1] : tensor<6x4xf32> -> tensor<3x4xf32>
  // CHECK-DAG:     %[[ONE:.*]] = dl.slice %[[X]] #{{.*}} [1, 1] : tensor<6x4xf32> -> tensor<1x4xf32>
  // CHECK-DAG:     %[[ROW:.*]] = dl.reshape %[[ONE]] : tensor<1x4xf32> -> tensor<4xf32>
  // CHECK-DAG:     %[[SAME:.*]] = dl.broadcast %[[V]] [1] : tensor<4xf32> -> tensor<3x4xf32>
  // CHECK-DAG:     %[[STAYS:.*]] = dl.gather
  // CHECK:         dl.return %[[ROWS]], %[[STEPS]], %[[ROW]], %[[SAME]], %[[STAYS]], %[[X]] :
  dl.func @places(%x: tensor<6x4xf32>, %v: tensor<4xf32>, %i: tensor<3xi32>) -> (tensor<5x4xf32>, tensor<3x4xf32>, tensor<4xf32>, tensor<3x4xf32>, tensor<3x4xf32>, tensor<6x4xf32>) {
    %ramp = dl.iota 0 : tensor<5xi32>
    %0 = dl.gather %x [0] at %ramp from 0 : (tensor<6x4xf32>, tensor<5xi32>) -> tensor<5x4xf32>
    %down = dl.constant dense<[-1, 3, 1]> : tensor<3xi32> : tensor<3xi32>
    %1 = dl.gather %x [0] at %down from 0 : (tensor<6x4xf32>, tensor<3xi32>) -> tensor<3x4xf32>
    %last = dl.fill -1 : i64 : tensor<i32>
    %2 = dl.gather %x [0] at %last from 0 : (tensor<6x4xf32>, tensor<i32>) -> tensor<4xf32>
    %wide = dl.broadcast %v [1] : tensor<4xf32> -> tensor<6x4xf32>
    %3 = dl.gather %wide [0] at %i from 0 : (tensor<6x4xf32>, tensor<3xi32>) -> tensor<3x4xf32>
    %other = dl.constant dense<[0, 3, 1]> : tensor<3xi32> : tensor<3xi32>
    %4 = dl.gather %x [0] at %other from 0 : (tensor<6x4xf32>, tensor<3xi32>) -> tensor<3x4xf32>
    %none = dl.fill 0.0 : f64 : tensor<3x4xf32>
    %5 = dl.scatter_add %x [0] at %i from 0 with %none : (tensor<6x4xf32>, tensor<3x4xf32>, tensor<3xi32>) -> tensor<6x4xf32>
    dl.return %0, %1, %2, %3, %4, %5 : tensor<5x4xf32>, tensor<3x4xf32>, tensor<4xf32>, tensor<3x4xf32>, tensor<3x4xf32>, tensor<6x4xf32>
  }
  // One place gets one addition: into the other term at once. Several places keep the order of additions.
  // CHECK-LABEL: dl.func @sum_of_updates(
  // CHECK-SAME:    %[[X:.*]]: tensor<6x4xf32>, %[[U:.*]]: tensor<4xf32>, %[[T:.*]]: tensor<i32>
  // CHECK:         %[[SUM:.*]] = dl.scatter_add %[[X]] [0] at %[[T]] from 0 with %[[U]]
  // CHECK:         dl.scatter_add
  // CHECK:         dl.add %[[SUM]]
  dl.func @sum_of_updates(%x: tensor<6x4xf32>, %u: tensor<4xf32>, %t: tensor<i32>, %us: tensor<3x4xf32>, %i: tensor<3xi32>) -> tensor<6x4xf32> {
    %zeros = dl.fill 0.0 : f64 : tensor<6x4xf32>
    %0 = dl.scatter_add %zeros [0] at %t from 0 with %u : (tensor<6x4xf32>, tensor<4xf32>, tensor<i32>) -> tensor<6x4xf32>
    %1 = dl.add %0, %x : tensor<6x4xf32>
    %2 = dl.scatter_add %zeros [0] at %i from 0 with %us : (tensor<6x4xf32>, tensor<3x4xf32>, tensor<3xi32>) -> tensor<6x4xf32>
    %3 = dl.add %1, %2 : tensor<6x4xf32>
    dl.return %3 : tensor<6x4xf32>
  }
  // What is known to lie inside is not checked.
  // CHECK-LABEL: dl.func @checks(
  // CHECK-SAME:    %[[I:.*]]: tensor<3xi32>
  // CHECK-NOT:     dl.check_index %{{.*}} "known
  // CHECK:         dl.check_index %[[I]] {{.*}} "unknown"
  // CHECK-NEXT:    %[[FAR:.*]] = dl.constant
  // CHECK-NEXT:    dl.check_index %[[FAR]] below {{.*}} "below 0"
  dl.func @checks(%i: tensor<3xi32>, %x: tensor<3x9xf32>, %n: tensor<?xf32, affine_map<()[s0] -> (s0)>>) {
    %ramp = dl.iota 1 : tensor<5x9xi32>
    dl.check_index %ramp below affine_map<() -> (9)> "known 0" : tensor<5x9xi32>
    %wide = dl.convert %ramp : tensor<5x9xi32> -> tensor<5x9xi64>
    dl.check_index %wide either side below affine_map<() -> (9)> "known 1" : tensor<5x9xi64>
    %best = dl.argmax %x [1] : tensor<3x9xf32> -> tensor<3xi32>
    dl.check_index %best below affine_map<() -> (9)> "known 2" : tensor<3xi32>
    %all = dl.iota 0 : tensor<?xi32, affine_map<()[s0] -> (s0)>>
    dl.check_index %all below affine_map<()[s0] -> (s0 + 1)> "known 3" : tensor<?xi32, affine_map<()[s0] -> (s0)>>
    dl.check_index %i below affine_map<() -> (9)> "unknown" : tensor<3xi32>
    %down = dl.constant dense<[-2, 3]> : tensor<2xi32> : tensor<2xi32>
    dl.check_index %down either side below affine_map<() -> (4)> "known 4" : tensor<2xi32>
    dl.check_index %down below affine_map<() -> (4)> "below 0" : tensor<2xi32>
    dl.return
  }
  // Nothing is known of x: these stay, for infinities, NaN and the order of rounding.
  // CHECK-LABEL: dl.func @not_neutral(
  // CHECK:         dl.mul
  // CHECK:         dl.sub
  // CHECK:         dl.div
  // CHECK:         dl.sub
  // CHECK:         dl.return
  dl.func @not_neutral(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) {
    %zero = dl.fill 0.0 : f64 : tensor<4xf32>
    %0 = dl.mul %x, %zero : tensor<4xf32>
    %1 = dl.sub %zero, %x : tensor<4xf32>
    %2 = dl.div %x, %x : tensor<4xf32>
    %3 = dl.sub %x, %x : tensor<4xf32>
    dl.return %0, %1, %2, %3 : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>
  }
  // By a scalar that a step computed in f64: a product with its inverse. By one that is f32, or f64 as the elements are, it stays.
  // CHECK-LABEL: dl.func @by_scalar(
  // CHECK-SAME:    %[[X:.*]]: tensor<4xf32>, %[[S:.*]]: tensor<f64>, %[[T:.*]]: tensor<f32>, %[[Y:.*]]: tensor<4xf64>
  // CHECK:         %[[INVERSE:.*]] = dl.div %{{.*}}, %[[S]] : tensor<f64>
  // CHECK-NEXT:    %[[NARROW:.*]] = dl.convert %[[INVERSE]] : tensor<f64> -> tensor<f32>
  // CHECK-NEXT:    %[[FACTOR:.*]] = dl.broadcast %[[NARROW]]
  // CHECK-NEXT:    dl.mul %[[X]], %[[FACTOR]]
  // CHECK:         dl.div %[[X]], %{{.*}} : tensor<4xf32>
  // CHECK:         dl.div %[[Y]], %{{.*}} : tensor<4xf64>
  dl.func @by_scalar(%x: tensor<4xf32>, %s: tensor<f64>, %t: tensor<f32>, %y: tensor<4xf64>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf64>) {
    %narrow = dl.convert %s : tensor<f64> -> tensor<f32>
    %s4 = dl.broadcast %narrow [] : tensor<f32> -> tensor<4xf32>
    %0 = dl.div %x, %s4 : tensor<4xf32>
    %t4 = dl.broadcast %t [] : tensor<f32> -> tensor<4xf32>
    %1 = dl.div %x, %t4 : tensor<4xf32>
    %wide4 = dl.broadcast %s [] : tensor<f64> -> tensor<4xf64>
    %2 = dl.div %y, %wide4 : tensor<4xf64>
    dl.return %0, %1, %2 : tensor<4xf32>, tensor<4xf32>, tensor<4xf64>
  }
  // CHECK-LABEL: dl.func @inverse(
  // CHECK-SAME:    %[[X:.*]]: tensor<4xf32>
  // CHECK-NEXT:    dl.return %[[X]], %[[X]] :
  dl.func @inverse(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
    %a = dl.neg %x : tensor<4xf32>
    %0 = dl.neg %a : tensor<4xf32>
    %1 = dl.convert %x : tensor<4xf32> -> tensor<4xf32>
    dl.return %0, %1 : tensor<4xf32>, tensor<4xf32>
  }
  // Powers by multiplication where that is as exact.
  // CHECK-LABEL: dl.func @powers(
  // CHECK-SAME:    %[[X:.*]]: tensor<4xf32>
  // CHECK-NOT:     dl.pow
  // CHECK-DAG:     %[[ONE:.*]] = dl.fill 1.000000e+00
  // CHECK-DAG:     %[[R:.*]] = dl.div %[[ONE]], %[[X]]
  // CHECK:         dl.return %{{.*}}, %{{.*}}, %{{.*}}, %[[R]]
  dl.func @powers(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) {
    %e0 = dl.fill 0.0 : f64 : tensor<4xf32>
    %e3 = dl.fill 3.0 : f64 : tensor<4xf32>
    %e4 = dl.fill 4.0 : f64 : tensor<4xf32>
    %em = dl.fill -1.0 : f64 : tensor<4xf32>
    %0 = dl.pow %x, %e0 : tensor<4xf32>
    %1 = dl.pow %x, %e3 : tensor<4xf32>
    %2 = dl.pow %x, %e4 : tensor<4xf32>
    %3 = dl.pow %x, %em : tensor<4xf32>
    dl.return %0, %1, %2, %3 : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>
  }
  // CHECK-LABEL: dl.func @other_powers(
  // CHECK:         dl.pow
  // CHECK:         dl.pow
  dl.func @other_powers(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
    %half = dl.fill 0.5 : f64 : tensor<4xf32>
    %five = dl.fill 5.0 : f64 : tensor<4xf32>
    %0 = dl.pow %x, %half : tensor<4xf32>
    %1 = dl.pow %x, %five : tensor<4xf32>
    dl.return %0, %1 : tensor<4xf32>, tensor<4xf32>
  }
  // Only a maximum of floating point with 0 on the right is relu: whole numbers have no relu, and the first of equals gets the gradient.
  // CHECK-LABEL: dl.func @relu(
  // CHECK:         dl.relu
  // CHECK:         dl.maximum
  dl.func @relu(%x: tensor<4xf32>, %i: tensor<4xi32>) -> (tensor<4xf32>, tensor<4xi32>) {
    %zero = dl.fill 0.0 : f64 : tensor<4xf32>
    %none = dl.fill 0 : i64 : tensor<4xi32>
    %0 = dl.maximum %x, %zero : tensor<4xf32>
    %1 = dl.maximum %i, %none : tensor<4xi32>
    dl.return %0, %1 : tensor<4xf32>, tensor<4xi32>
  }
  // Moves that move nothing, and reshapes of reshapes.
  // CHECK-LABEL: dl.func @moves(
  // CHECK-SAME:    %[[X:.*]]: tensor<?x4xf32, #[[N4:[a-z0-9]+]]>
  // CHECK-NEXT:    %[[R:.*]] = dl.reshape %[[X]] : tensor<?x4xf32, #[[N4]]> -> tensor<?xf32, #{{.*}}>
  // CHECK-NEXT:    dl.return %[[X]], %[[X]], %[[X]], %[[X]], %[[R]] :
  dl.func @moves(%x: tensor<?x4xf32, #n4>) -> (tensor<?x4xf32, #n4>, tensor<?x4xf32, #n4>, tensor<?x4xf32, #n4>, tensor<?x4xf32, #n4>, tensor<?xf32, affine_map<()[s0] -> (s0 * 4)>>) {
    %0 = dl.broadcast %x [0, 1] : tensor<?x4xf32, #n4> -> tensor<?x4xf32, #n4>
    %1 = dl.transpose %x [0, 1] : tensor<?x4xf32, #n4> -> tensor<?x4xf32, #n4>
    %2 = dl.reshape %x : tensor<?x4xf32, #n4> -> tensor<?x4xf32, #n4>
    %3 = dl.slice %x affine_map<() -> (0, 0)> [1, 1] : tensor<?x4xf32, #n4> -> tensor<?x4xf32, #n4>
    %a = dl.reshape %x : tensor<?x4xf32, #n4> -> tensor<?x2x2xf32, affine_map<()[s0] -> (s0, 2, 2)>>
    %4 = dl.reshape %a : tensor<?x2x2xf32, affine_map<()[s0] -> (s0, 2, 2)>> -> tensor<?xf32, affine_map<()[s0] -> (s0 * 4)>>
    dl.return %0, %1, %2, %3, %4 : tensor<?x4xf32, #n4>, tensor<?x4xf32, #n4>, tensor<?x4xf32, #n4>, tensor<?x4xf32, #n4>, tensor<?xf32, affine_map<()[s0] -> (s0 * 4)>>
  }
  // Assumed sizes move to where the tensor comes from, until what computes has the sizes that are met.
  // CHECK-LABEL: dl.func @assumed(
  // CHECK-SAME:    %[[X:.*]]: tensor<?x4xf32, #{{.*}}>, %[[B:.*]]: tensor<4xf32>
  // CHECK-DAG:     %[[A:.*]] = dl.assume_shape %[[X]] : tensor<?x4xf32, #{{.*}}> -> tensor<7x4xf32>
  // CHECK-DAG:     %[[WIDE:.*]] = dl.broadcast %[[B]] [1] : tensor<4xf32> -> tensor<7x4xf32>
  // CHECK:         %[[SUM:.*]] = dl.add %[[A]], %[[WIDE]] : tensor<7x4xf32>
  // CHECK-NEXT:    %[[EXP:.*]] = dl.exp %[[SUM]] : tensor<7x4xf32>
  // CHECK-NEXT:    dl.return %[[EXP]], %[[X]] :
  dl.func @assumed(%x: tensor<?x4xf32, #n4>, %b: tensor<4xf32>) -> (tensor<7x4xf32>, tensor<?x4xf32, #n4>) {
    %0 = dl.broadcast %b [1] : tensor<4xf32> -> tensor<?x4xf32, #n4>
    %1 = dl.add %x, %0 : tensor<?x4xf32, #n4>
    %2 = dl.exp %1 : tensor<?x4xf32, #n4>
    %3 = dl.assume_shape %2 : tensor<?x4xf32, #n4> -> tensor<7x4xf32>
    %4 = dl.assume_shape %x : tensor<?x4xf32, #n4> -> tensor<7x4xf32>
    %5 = dl.assume_shape %4 : tensor<7x4xf32> -> tensor<?x4xf32, #n4>
    dl.return %3, %5 : tensor<7x4xf32>, tensor<?x4xf32, #n4>
  }
  // A slice of all elements the other way round is no identity, though its type says so.
  // CHECK-LABEL: dl.func @reversed(
  // CHECK-NEXT:    dl.slice
  dl.func @reversed(%x: tensor<4xf32>) -> tensor<4xf32> {
    %0 = dl.slice %x affine_map<() -> (3)> [-1] : tensor<4xf32> -> tensor<4xf32>
    dl.return %0 : tensor<4xf32>
  }
  // Both operands of a product at once, and back again; other transposes stay.
  // CHECK-LABEL: dl.func @products(
  // CHECK-SAME:    %[[A:.*]]: tensor<3x4xf32>, %[[B:.*]]: tensor<5x3xf32>, %[[C:.*]]: tensor<2x3x4xf32>
  // CHECK-DAG:     %[[P:.*]] = dl.matmul transposed %[[A]], transposed %[[B]]
  // CHECK-DAG:     %[[Q:.*]] = dl.matmul %[[B]], %[[A]]
  // CHECK-DAG:     dl.transpose %[[C]] [1, 0, 2]
  // CHECK:         dl.return %[[P]], %[[Q]]
  dl.func @products(%a: tensor<3x4xf32>, %b: tensor<5x3xf32>, %c: tensor<2x3x4xf32>) -> (tensor<4x5xf32>, tensor<5x4xf32>, tensor<3x2x2xf32>) {
    %at = dl.transpose %a [1, 0] : tensor<3x4xf32> -> tensor<4x3xf32>
    %bt = dl.transpose %b [1, 0] : tensor<5x3xf32> -> tensor<3x5xf32>
    %0 = dl.matmul %at, %bt : tensor<4x3xf32>, tensor<3x5xf32> -> tensor<4x5xf32>
    %1 = dl.matmul transposed %bt, transposed %at : tensor<3x5xf32>, tensor<4x3xf32> -> tensor<5x4xf32>
    %ct = dl.transpose %c [1, 0, 2] : tensor<2x3x4xf32> -> tensor<3x2x4xf32>
    %2 = dl.matmul %ct, transposed %ct : tensor<3x2x4xf32>, tensor<3x2x4xf32> -> tensor<3x2x2xf32>
    dl.return %0, %1, %2 : tensor<4x5xf32>, tensor<5x4xf32>, tensor<3x2x2xf32>
  }
}
