//===- expand-math.mlir - functions of the math dialect as polynomials -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s --pass-pipeline='builtin.module(cpu-expand-math)' | FileCheck %s

// CHECK-LABEL: func.func @functions
// CHECK-NOT:     math.exp
// CHECK-NOT:     math.tanh
// CHECK-NOT:     math.powf
// CHECK:         math.fma
// CHECK-NOT:     math.exp
// CHECK-NOT:     math.tanh
// CHECK-NOT:     math.powf
// CHECK:         return
func.func @functions(%x: vector<16xf32>, %y: f64) -> (vector<16xf32>, f64) {
  %e = math.exp %x : vector<16xf32>
  %t = math.tanh %e : vector<16xf32>
  %p = math.powf %y, %y : f64
  return %t, %p : vector<16xf32>, f64
}

// What is an instruction stays.
// CHECK-LABEL: func.func @instructions
// CHECK:         math.sqrt
// CHECK:         math.floor
// CHECK:         math.absf
// CHECK:         math.fma
func.func @instructions(%x: vector<8xf32>) -> vector<8xf32> {
  %s = math.sqrt %x : vector<8xf32>
  %f = math.floor %s : vector<8xf32>
  %a = math.absf %f : vector<8xf32>
  %m = math.fma %a, %a, %x : vector<8xf32>
  return %m : vector<8xf32>
}
