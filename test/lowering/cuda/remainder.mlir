//===- remainder.mlir - the remainder of floats without fmod -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s --cuda-expand-remainder | FileCheck %s

// As many bits of the quotient in a round as 64-bit integers have room for: 40 beside f32's 24.
// CHECK-LABEL: func.func @single
// CHECK-NOT:     arith.remf
// CHECK:         %[[ROOM:.*]] = arith.constant 40 : i64
// CHECK:         scf.while
// CHECK:         } do {
// CHECK:           arith.minsi %{{.*}}, %[[ROOM]]
// CHECK:           arith.shli
// CHECK:           arith.remui
// CHECK:         math.copysign
func.func @single(%x: f32, %y: f32) -> f32 {
  %r = arith.remf %x, %y : f32
  return %r : f32
}

// CHECK-LABEL: func.func @lanes
// CHECK-COUNT-2: scf.while
// CHECK:         vector.from_elements {{.*}} : vector<2xf64>
func.func @lanes(%x: vector<2xf64>, %y: vector<2xf64>) -> vector<2xf64> {
  %r = arith.remf %x, %y : vector<2xf64>
  return %r : vector<2xf64>
}
