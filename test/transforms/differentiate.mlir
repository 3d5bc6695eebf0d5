//===- differentiate.mlir - dl.gradient by reverse mode -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s -split-input-file -verify-diagnostics --pass-pipeline='builtin.module(dl.model(dl-differentiate,dl-simplify))' | FileCheck %s

// The gradient of sum(tanh(x) * w): w times tanh's derivative, written so that it keeps digits near 1.
// CHECK-LABEL: dl.func @first
// CHECK-SAME:    %[[X:.*]]: tensor<4xf64>, %[[W:.*]]: tensor<4xf64>
// CHECK-DAG:     %[[ONE:.*]] = dl.fill 1.000000e+00 : f64 : tensor<4xf64>
// CHECK:         %[[Y:.*]] = dl.tanh %[[X]]
// CHECK-DAG:     %[[A:.*]] = dl.sub %[[ONE]], %[[Y]]
// CHECK-DAG:     %[[B:.*]] = dl.add %[[ONE]], %[[Y]]
// CHECK:         %[[D:.*]] = dl.mul %[[A]], %[[B]]
// CHECK:         %[[G:.*]] = dl.mul_no_nan %[[D]], %[[W]]
// CHECK:         dl.return %[[G]]
dl.model @m dims [] {
  dl.func @first(%x: tensor<4xf64>, %w: tensor<4xf64>) -> tensor<4xf64> {
    %y = dl.tanh %x : tensor<4xf64>
    %p = dl.mul %y, %w : tensor<4xf64>
    %s = dl.sum %p [0] : tensor<4xf64> -> tensor<f64>
    %g = dl.gradient %s wrt %x : (tensor<f64>, tensor<4xf64>) -> tensor<4xf64>
    dl.return %g : tensor<4xf64>
  }
}

// -----

// A checkpoint: tanh is computed again for its product, after the cotangent that asks for it, and only the input is kept until then.
// CHECK-LABEL: dl.func @again
// CHECK-SAME:    %[[X:.*]]: tensor<4xf64>, %[[W:.*]]: tensor<4xf64>
// CHECK:         %[[Y:.*]] = dl.tanh %[[X]]
// CHECK-NOT:     dl.checkpoint
// CHECK:         dl.mul %[[Y]], %[[Y]]
// CHECK:         %[[DY:.*]] = dl.add
// CHECK:         %[[IN:.*]] = dl.after %[[X]], %[[DY]] : tensor<4xf64>, tensor<4xf64>
// CHECK:         %[[AGAIN:.*]] = dl.tanh %[[IN]]
// CHECK:         dl.sub %{{.*}}, %[[AGAIN]]
// CHECK-NOT:     %[[Y]]{{[^0-9]}}
// CHECK:         dl.return
dl.model @m dims [] {
  dl.func @again(%x: tensor<4xf64>, %w: tensor<4xf64>) -> (tensor<f64>, tensor<4xf64>) {
    %y = dl.tanh %x {dl.checkpoint = 1 : i64} : tensor<4xf64>
    %p = dl.mul %y, %y : tensor<4xf64>
    %q = dl.mul %p, %w : tensor<4xf64>
    %s = dl.sum %q [0] : tensor<4xf64> -> tensor<f64>
    %g = dl.gradient %s wrt %x : (tensor<f64>, tensor<4xf64>) -> tensor<4xf64>
    dl.return %s, %g : tensor<f64>, tensor<4xf64>
  }
}

// -----

// A gradient of a gradient: d²/dx² sum(x³) = 6 x, here as sums and products of x.
// CHECK-LABEL: dl.func @second
// CHECK-NOT:     dl.gradient
// CHECK:         dl.return
dl.model @m dims [] {
  dl.func @second(%x: tensor<4xf64>) -> tensor<4xf64> {
    %q = dl.mul %x, %x : tensor<4xf64>
    %c = dl.mul %q, %x : tensor<4xf64>
    %s = dl.sum %c [0] : tensor<4xf64> -> tensor<f64>
    %g = dl.gradient %s wrt %x : (tensor<f64>, tensor<4xf64>) -> tensor<4xf64>
    %t = dl.sum %g [0] : tensor<4xf64> -> tensor<f64>
    %h = dl.gradient %t wrt %x : (tensor<f64>, tensor<4xf64>) -> tensor<4xf64>
    dl.return %h : tensor<4xf64>
  }
}

// -----

// By a value on the way, and by what it was computed from: both get their share.
// CHECK-LABEL: dl.func @intermediate
// CHECK-SAME:    %[[X:.*]]: tensor<4xf64>
// CHECK:         %[[H:.*]] = dl.exp %[[X]]
// CHECK:         %[[DH:.*]] = dl.add %[[H]], %[[H]]
// CHECK:         %[[DX:.*]] = dl.mul_no_nan %[[H]], %[[DH]]
// CHECK:         dl.return %[[DX]], %[[DH]]
dl.model @m dims [] {
  dl.func @intermediate(%x: tensor<4xf64>) -> (tensor<4xf64>, tensor<4xf64>) {
    %h = dl.exp %x : tensor<4xf64>
    %q = dl.mul %h, %h : tensor<4xf64>
    %s = dl.sum %q [0] : tensor<4xf64> -> tensor<f64>
    %g:2 = dl.gradient %s wrt %x, %h : (tensor<f64>, tensor<4xf64>, tensor<4xf64>) -> (tensor<4xf64>, tensor<4xf64>)
    dl.return %g#0, %g#1 : tensor<4xf64>, tensor<4xf64>
  }
}

// -----

// A product's operands get products of the cotangent with the other one, nothing transposed in memory; sizes of a call stay open.
// CHECK-LABEL: dl.func @products
// CHECK-SAME:    %[[X:.*]]: tensor<?x3xf64, #{{.*}}>, %[[W:.*]]: tensor<3x5xf64>, %[[D:.*]]: tensor<?x5xf64, #{{.*}}>
// CHECK-DAG:     %[[GX:.*]] = dl.matmul %[[D]], transposed %[[W]]
// CHECK-DAG:     %[[GW:.*]] = dl.matmul transposed %[[X]], %[[D]]
// CHECK:         dl.return %[[GX]], %[[GW]]
#nx3 = affine_map<()[s0] -> (s0, 3)>
#nx5 = affine_map<()[s0] -> (s0, 5)>
dl.model @m dims ["N"] {
  dl.func @products(%x: tensor<?x3xf64, #nx3>, %w: tensor<3x5xf64>, %d: tensor<?x5xf64, #nx5>) -> (tensor<?x3xf64, #nx3>, tensor<3x5xf64>) {
    %y = dl.matmul %x, %w : tensor<?x3xf64, #nx3>, tensor<3x5xf64> -> tensor<?x5xf64, #nx5>
    %p = dl.mul %y, %d : tensor<?x5xf64, #nx5>
    %s = dl.sum %p [0, 1] : tensor<?x5xf64, #nx5> -> tensor<f64>
    %g:2 = dl.gradient %s wrt %x, %w : (tensor<f64>, tensor<?x3xf64, #nx3>, tensor<3x5xf64>) -> (tensor<?x3xf64, #nx3>, tensor<3x5xf64>)
    dl.return %g#0, %g#1 : tensor<?x3xf64, #nx3>, tensor<3x5xf64>
  }
}

// -----

// No way from the value to what it is derived by: an error at both.
dl.model @m dims [] {
  // expected-note@+1 {{this value}}
  dl.func @independent(%x: tensor<4xf64>, %y: tensor<4xf64>) -> tensor<4xf64> {
    %s = dl.sum %x [0] : tensor<4xf64> -> tensor<f64>
    // expected-error@+1 {{the value does not depend on what it is derived by (number 1 of the list)}}
    %g = dl.gradient %s wrt %y : (tensor<f64>, tensor<4xf64>) -> tensor<4xf64>
    dl.return %g : tensor<4xf64>
  }
}

// -----

// stop_gradient ends every way.
dl.model @m dims [] {
  // expected-note@+1 {{this value}}
  dl.func @stopped(%x: tensor<4xf64>) -> tensor<4xf64> {
    %k = dl.stop_gradient %x : tensor<4xf64>
    %s = dl.sum %k [0] : tensor<4xf64> -> tensor<f64>
    // expected-error@+1 {{the value does not depend on what it is derived by}}
    %g = dl.gradient %s wrt %x : (tensor<f64>, tensor<4xf64>) -> tensor<4xf64>
    dl.return %g : tensor<4xf64>
  }
}

// -----

// A gradient of one's own: the region's code, with the cotangent in its place; nothing flows into what computed the value.
// CHECK-LABEL: dl.func @own
// CHECK-SAME:    %[[X:.*]]: tensor<4xf64>
// CHECK-NEXT:    %[[DX:.*]] = dl.sin %[[X]]
// CHECK-NEXT:    dl.return %[[DX]]
dl.model @m dims [] {
  dl.func @own(%x: tensor<4xf64>) -> tensor<4xf64> {
    %y = dl.exp %x : tensor<4xf64>
    %z = dl.custom_gradient %y wrt %x {
    ^bb0(%dy: tensor<4xf64>):
      %slope = dl.sin %x : tensor<4xf64>
      %dx = dl.mul %dy, %slope : tensor<4xf64>
      dl.yield %dx : tensor<4xf64>
    } : tensor<4xf64> wrt tensor<4xf64>
    %s = dl.sum %z [0] : tensor<4xf64> -> tensor<f64>
    %g = dl.gradient %s wrt %x : (tensor<f64>, tensor<4xf64>) -> tensor<4xf64>
    dl.return %g : tensor<4xf64>
  }
}

// -----

// Of several results one may have no cotangent: it is zero; an integer one never has.
// CHECK-LABEL: dl.func @several
// CHECK-SAME:    %[[X:.*]]: tensor<4xf64>, %{{.*}}: tensor<i32>
// CHECK-DAG:     %[[ZERO:.*]] = dl.fill 0.000000e+00
// CHECK-DAG:     %[[SLOPE:.*]] = dl.sin %[[X]]
// CHECK-DAG:     %[[NONE:.*]] = dl.mul %[[ZERO]], %[[X]]
// CHECK:         %[[DX:.*]] = dl.add %[[SLOPE]], %[[NONE]]
// CHECK-NEXT:    dl.return %[[DX]]
dl.model @m dims [] {
  dl.func @several(%x: tensor<4xf64>, %i: tensor<i32>) -> tensor<4xf64> {
    %z:3 = dl.custom_gradient %x, %i, %x wrt %x {
    ^bb0(%da: tensor<4xf64>, %db: tensor<4xf64>):
      %slope = dl.sin %x : tensor<4xf64>
      %first = dl.mul %da, %slope : tensor<4xf64>
      %second = dl.mul %db, %x : tensor<4xf64>
      %dx = dl.add %first, %second : tensor<4xf64>
      dl.yield %dx : tensor<4xf64>
    } : tensor<4xf64>, tensor<i32>, tensor<4xf64> wrt tensor<4xf64>
    %s = dl.sum %z#0 [0] : tensor<4xf64> -> tensor<f64>
    %g = dl.gradient %s wrt %x : (tensor<f64>, tensor<4xf64>) -> tensor<4xf64>
    dl.return %g : tensor<4xf64>
  }
}

// -----

// A function of the user's own without a gradient, where one is needed.
dl.model @m dims [] {
  // expected-note@+1 {{declared here}}
  dl.extern_function @extern.f "f" cpp "f.cpp"
  dl.func @extern(%x: tensor<4xf64>) -> tensor<4xf64> {
    // expected-error@+1 {{'f' has no gradient}}
    %y = dl.extern @extern.f(%x) threads 256 blocks affine_map<() -> (1)> : (tensor<4xf64>) -> tensor<4xf64>
    %s = dl.sum %y [0] : tensor<4xf64> -> tensor<f64>
    // expected-note@+1 {{needed for the gradient taken here}}
    %g = dl.gradient %s wrt %x : (tensor<f64>, tensor<4xf64>) -> tensor<4xf64>
    dl.return %g : tensor<4xf64>
  }
}

// -----

// What a branch computes dearly it gives to the one that runs backwards; what is cheap that one computes again.
// CHECK-LABEL: dl.func @branch
// CHECK:         %[[R:.*]]:2 = dl.if
// CHECK:           %[[P:.*]] = dl.matmul
// CHECK:           %[[S:.*]] = dl.sin %[[P]]
// CHECK:           %[[Y:.*]] = dl.mul %[[P]], %[[S]]
// CHECK:           dl.yield %[[Y]], %[[P]]
// CHECK:         } else {
// CHECK:           dl.yield %{{.*}}, %{{.*}} : tensor<4x3xf64>, tensor<4x3xf64>
// CHECK:         dl.if
// CHECK:           dl.sin %[[R]]#1
// CHECK:         } else {
// What it gives as it is need not be given twice, and stands for the product that it is made of.
// CHECK-LABEL: dl.func @result
// CHECK:         %[[R:.*]] = dl.if
// CHECK:         dl.if
// CHECK:           dl.sub %{{.*}}, %[[R]]
dl.model @m dims [] {
  dl.func @branch(%c: tensor<i1>, %x: tensor<4x2xf64>, %w: tensor<2x3xf64>, %z: tensor<4x3xf64>) -> (tensor<f64>, tensor<2x3xf64>) {
    %y = dl.if %c {
      %p = dl.matmul %x, %w : tensor<4x2xf64>, tensor<2x3xf64> -> tensor<4x3xf64>
      %t = dl.sin %p : tensor<4x3xf64>
      %q = dl.mul %p, %t : tensor<4x3xf64>
      dl.yield %q : tensor<4x3xf64>
    } else {
      dl.yield %z : tensor<4x3xf64>
    } : tensor<4x3xf64>
    %s = dl.sum %y [0, 1] : tensor<4x3xf64> -> tensor<f64>
    %g = dl.gradient %s wrt %w : (tensor<f64>, tensor<2x3xf64>) -> tensor<2x3xf64>
    dl.return %s, %g : tensor<f64>, tensor<2x3xf64>
  }
  dl.func @result(%c: tensor<i1>, %x: tensor<4x2xf64>, %w: tensor<2x3xf64>, %z: tensor<4x3xf64>) -> (tensor<f64>, tensor<2x3xf64>) {
    %y = dl.if %c {
      %p = dl.matmul %x, %w : tensor<4x2xf64>, tensor<2x3xf64> -> tensor<4x3xf64>
      %t = dl.tanh %p : tensor<4x3xf64>
      dl.yield %t : tensor<4x3xf64>
    } else {
      dl.yield %z : tensor<4x3xf64>
    } : tensor<4x3xf64>
    %s = dl.sum %y [0, 1] : tensor<4x3xf64> -> tensor<f64>
    %g = dl.gradient %s wrt %w : (tensor<f64>, tensor<2x3xf64>) -> tensor<2x3xf64>
    dl.return %s, %g : tensor<f64>, tensor<2x3xf64>
  }
}

// -----

// A loop that is kept turn by turn has a number of turns: a size of the call is never negative, a difference may be.
// CHECK-LABEL: dl.func @difference
// CHECK:         dl.check_size {{.*}} "le" {{.*}} "a loop that a gradient passes through ends before it begins"
// CHECK-LABEL: dl.func @size
// CHECK-NOT:     dl.check_size
dl.model @m dims ["N"] {
  dl.func @difference(%x: tensor<4xf64>, %n: tensor<?xf64, affine_map<()[s0] -> (s0)>>) -> tensor<4xf64> {
    %y = dl.for from affine_map<() -> (3)> to affine_map<()[s0] -> (s0)> (%x) {
    ^bb0(%t: tensor<i64>, %a: tensor<4xf64>):
      %q = dl.mul %a, %x : tensor<4xf64>
      dl.yield %q : tensor<4xf64>
    } : (tensor<4xf64>) -> (tensor<4xf64>)
    %s = dl.sum %y [0] : tensor<4xf64> -> tensor<f64>
    %g = dl.gradient %s wrt %x : (tensor<f64>, tensor<4xf64>) -> tensor<4xf64>
    dl.return %g : tensor<4xf64>
  }
  dl.func @size(%x: tensor<4xf64>, %n: tensor<?xf64, affine_map<()[s0] -> (s0)>>) -> tensor<4xf64> {
    %y = dl.for from affine_map<() -> (0)> to affine_map<()[s0] -> (2 * s0)> (%x) {
    ^bb0(%t: tensor<i64>, %a: tensor<4xf64>):
      %q = dl.mul %a, %x : tensor<4xf64>
      dl.yield %q : tensor<4xf64>
    } : (tensor<4xf64>) -> (tensor<4xf64>)
    %s = dl.sum %y [0] : tensor<4xf64> -> tensor<f64>
    %g = dl.gradient %s wrt %x : (tensor<f64>, tensor<4xf64>) -> tensor<4xf64>
    dl.return %g : tensor<4xf64>
  }
}
