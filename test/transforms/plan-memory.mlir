//===- plan-memory.mlir - orders, buffers, places of assignments -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-fuse,dl-plan-memory))' | FileCheck %s

dl.model @m dims ["N"] {
  dl.variable trained @w : tensor<4x8xf32>
  dl.variable state @a : tensor<8xf32>
  dl.variable state @b : tensor<8xf32>
  dl.variable state @k : tensor<8xi32>

  // The input's gradient reads w before the product of w's own gradient overwrites it, whatever the order in the text.
  // CHECK-LABEL: dl.func @order(
  // CHECK:         dl.fused "gemm"{{.*}}launch = 0
  // CHECK:           dl.matmul %{{.*}}, transposed %{{.*}} : tensor<16x8xf32>, tensor<4x8xf32>
  // CHECK:         dl.fused "gemm"{{.*}}launch = 1
  // CHECK:           dl.matmul transposed
  dl.func @order(%x: tensor<16x4xf32>, %d: tensor<16x8xf32>) -> tensor<16x4xf32> {
    %w = dl.read @w : tensor<4x8xf32>
    %g = dl.matmul transposed %x, %d : tensor<16x4xf32>, tensor<16x8xf32> -> tensor<4x8xf32>
    %n = dl.sub %w, %g : tensor<4x8xf32>
    %dx = dl.matmul %d, transposed %w : tensor<16x8xf32>, tensor<4x8xf32> -> tensor<16x4xf32>
    dl.assign @w, %n : tensor<4x8xf32>
    dl.return %dx : tensor<16x4xf32>
  }

  // The new value lies where the old one did: one buffer, no copy.
  // CHECK-LABEL: dl.func @in_place(
  // CHECK-SAME:    buffers = [{{.*}}kind = "variable"{{[^}]*}}}], launches = 1
  // CHECK:         dl.fused "loop"{{.*}}input_buffers = array<i64: 0>{{.*}}result_buffers = array<i64: 0>
  dl.func @in_place() {
    %a = dl.read @a : tensor<8xf32>
    %n = dl.exp %a : tensor<8xf32>
    dl.assign @a, %n : tensor<8xf32>
    dl.return
  }

  // A variable is changed at places where it lies, after what reads its old value.
  // CHECK-LABEL: dl.func @at_places(
  // CHECK:         dl.fused "loop"{{.*}}input_buffers = array<i64: [[W:.]]>, launch = 0
  // CHECK:         dl.fused "scatter"{{.*}}input_buffers = array<i64: [[W]], {{.*}}launch = 1 : i64, name = "scatter_add", result_buffers = array<i64: [[W]]>
  dl.func @at_places(%u: tensor<3x8xf32>, %i: tensor<3xi32>) -> tensor<4x8xf32> {
    %w = dl.read @w : tensor<4x8xf32>
    %n = dl.scatter_add %w [0] at %i from 0 with %u : (tensor<4x8xf32>, tensor<3x8xf32>, tensor<3xi32>) -> tensor<4x8xf32>
    %e = dl.exp %w : tensor<4x8xf32>
    dl.assign @w, %n : tensor<4x8xf32>
    dl.return %e : tensor<4x8xf32>
  }

  // Updates that are rows of the value itself read it where others are written: a copy.
  // CHECK-LABEL: dl.func @of_itself(
  // CHECK:         dl.fused "scatter"
  // CHECK:         name = "copy"
  dl.func @of_itself(%i: tensor<3xi32>, %j: tensor<3xi32>) {
    %w = dl.read @w : tensor<4x8xf32>
    %rows = dl.gather %w [0] at %i from 0 : (tensor<4x8xf32>, tensor<3xi32>) -> tensor<3x8xf32>
    %n = dl.scatter %w [0] at %j from 0 with %rows : (tensor<4x8xf32>, tensor<3x8xf32>, tensor<3xi32>) -> tensor<4x8xf32>
    dl.assign @w, %n : tensor<4x8xf32>
    dl.return
  }

  // A value that is changed slice by slice and dies each time has one place, the result's, from the first on; where it is read afterwards it has two.
  // CHECK-LABEL: dl.func @slices(
  // CHECK-SAME:    buffers = [{bytes = #{{[^,]*}}, first = 0 : i64, index = 0 : i64, kind = "argument"
  // CHECK-NOT:     kind = "arena"
  // CHECK-SAME:    launches = 3
  // CHECK:         dl.fused "loop"{{.*}}launch = 0 {{.*}}result_buffers = array<i64: [[OUT:.]]>
  // CHECK:         dl.fused "scatter"{{.*}}input_buffers = array<i64: [[OUT]], {{.*}}launch = 1 {{.*}}result_buffers = array<i64: [[OUT]]>
  // CHECK:         dl.fused "scatter"{{.*}}input_buffers = array<i64: [[OUT]], {{.*}}launch = 2 {{.*}}result_buffers = array<i64: [[OUT]]>
  dl.func @slices(%x: tensor<4x8xf32>, %h: tensor<8xf32>, %s: tensor<i32>, %t: tensor<i32>) -> tensor<4x8xf32> {
    %0 = dl.exp %x : tensor<4x8xf32>
    %1 = dl.scatter %0 [0] at %s from 0 with %h : (tensor<4x8xf32>, tensor<8xf32>, tensor<i32>) -> tensor<4x8xf32>
    %2 = dl.scatter %1 [0] at %t from 0 with %h : (tensor<4x8xf32>, tensor<8xf32>, tensor<i32>) -> tensor<4x8xf32>
    dl.return %2 : tensor<4x8xf32>
  }
  // CHECK-LABEL: dl.func @read_afterwards(
  // CHECK:         dl.fused "scatter"{{.*}}input_buffers = array<i64: [[OLD:.]], {{.*}}result_buffers = array<i64: [[NEW:.]]>
  // CHECK:         dl.fused "loop"{{.*}}input_buffers = array<i64: [[OLD]], [[NEW]]>
  dl.func @read_afterwards(%x: tensor<4x8xf32>, %h: tensor<8xf32>, %s: tensor<i32>) -> tensor<4x8xf32> {
    %0 = dl.exp %x : tensor<4x8xf32>
    %1 = dl.scatter %0 [0] at %s from 0 with %h : (tensor<4x8xf32>, tensor<8xf32>, tensor<i32>) -> tensor<4x8xf32>
    %2 = dl.add %0, %1 : tensor<4x8xf32>
    dl.return %2 : tensor<4x8xf32>
  }

  // Two variables that change places: one waits in the arena and is copied when all has run.
  // CHECK-LABEL: dl.func @swap(
  // CHECK-SAME:    kind = "arena"
  // CHECK:         name = "copy"
  // CHECK:         dl.assign @a
  dl.func @swap() {
    %a = dl.read @a : tensor<8xf32>
    %b = dl.read @b : tensor<8xf32>
    dl.assign @a, %b : tensor<8xf32>
    dl.assign @b, %a : tensor<8xf32>
    dl.return
  }

  // Updates that do not depend on each other share a launch.
  // CHECK-LABEL: dl.func @together(
  // CHECK-SAME:    launches = 1
  dl.func @together(%x: tensor<8xf32>) {
    %a = dl.read @a : tensor<8xf32>
    %b = dl.read @b : tensor<8xf32>
    %na = dl.add %a, %x : tensor<8xf32>
    %nb = dl.mul %b, %x : tensor<8xf32>
    dl.assign @a, %na : tensor<8xf32>
    dl.assign @b, %nb : tensor<8xf32>
    dl.return
  }

  // A check of the arguments comes before anything changes.
  // CHECK-LABEL: dl.func @check_first(
  // CHECK:         dl.check_index {{.*}}launch = 0
  // CHECK:         dl.fused {{.*}}launch = 1
  dl.func @check_first(%x: tensor<8xf32>, %label: tensor<8xi32>) {
    %a = dl.read @a : tensor<8xf32>
    %na = dl.add %a, %x : tensor<8xf32>
    dl.check_index %label below affine_map<() -> (10)> or -100 "label {value}" : tensor<8xi32>
    dl.assign @a, %na : tensor<8xf32>
    dl.return
  }

  // What is computed may be checked too: the variable that it goes to changes after that.
  // CHECK-LABEL: dl.func @check_new(
  // CHECK:         %[[NEW:.*]] = dl.fused {{.*}}launch = 0
  // CHECK:         dl.check_index %[[NEW]] {{.*}}launch = 1
  // CHECK:         dl.fused "loop"(%[[NEW]]) {{.*}}launch = 2{{.*}}name = "copy"
  dl.func @check_new(%x: tensor<8xi32>) {
    %k = dl.read @k : tensor<8xi32>
    %new = dl.add %k, %x : tensor<8xi32>
    dl.check_index %new below affine_map<() -> (10)> "label {value}" : tensor<8xi32>
    dl.assign @k, %new : tensor<8xi32>
    dl.return
  }

  // Sizes stay expressions in the call's dimensions.
  // CHECK-LABEL: dl.func @dynamic(
  // CHECK-SAME:    bytes = #[[BYTES:.*]], first = 0 : i64, index = 0 : i64, kind = "argument"
  dl.func @dynamic(%x: tensor<?x8xf32, affine_map<()[s0] -> (s0, 8)>>) -> tensor<?x8xf32, affine_map<()[s0] -> (s0, 8)>> {
    %y = dl.exp %x : tensor<?x8xf32, affine_map<()[s0] -> (s0, 8)>>
    dl.return %y : tensor<?x8xf32, affine_map<()[s0] -> (s0, 8)>>
  }

  // A kernel that reads the old value at other places than it writes does not work in place: the new value is copied at the end.
  // CHECK-LABEL: dl.func @elsewhere(
  // CHECK:         dl.fused "loop"{{.*}}launch = 0
  // CHECK:           dl.slice
  // CHECK:         dl.fused "loop"{{.*}}launch = 1{{.*}}name = "copy"
  // CHECK:         dl.assign @a
  dl.func @elsewhere() {
    %a = dl.read @a : tensor<8xf32>
    %r = dl.slice %a affine_map<() -> (7)> [-1] : tensor<8xf32> -> tensor<8xf32>
    %n = dl.exp %r : tensor<8xf32>
    dl.assign @a, %n : tensor<8xf32>
    dl.return
  }

  // The old value as a result is copied out before it is overwritten.
  // CHECK-LABEL: dl.func @old_value(
  // CHECK:         dl.fused "loop"{{.*}}launch = 0
  // CHECK:           dl.reshape
  // CHECK:         dl.fused "loop"{{.*}}launch = 1
  // CHECK:           dl.exp
  dl.func @old_value() -> tensor<8xf32> {
    %a = dl.read @a : tensor<8xf32>
    %n = dl.exp %a : tensor<8xf32>
    dl.assign @a, %n : tensor<8xf32>
    dl.return %a : tensor<8xf32>
  }

  // A value that is a result and a variable's new value has one place and is copied to the other.
  // CHECK-LABEL: dl.func @twice(
  // CHECK-SAME:    kind = "variable"
  // CHECK:           dl.exp
  // CHECK:         name = "copy"
  // CHECK:         dl.assign @a
  dl.func @twice() -> tensor<8xf32> {
    %a = dl.read @a : tensor<8xf32>
    %n = dl.exp %a : tensor<8xf32>
    dl.assign @a, %n : tensor<8xf32>
    dl.return %n : tensor<8xf32>
  }
}
