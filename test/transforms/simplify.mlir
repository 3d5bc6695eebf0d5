//===- simplify.mlir - algebra, folding, common subexpressions -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-simplify))' | FileCheck %s

dl.model @m dims [] {
  // Small whole powers are products.
  // CHECK-LABEL: dl.func @power(
  // CHECK-SAME:    %[[X:.*]]: tensor<4xf32>
  // CHECK-NEXT:    %[[Y:.*]] = dl.mul %[[X]], %[[X]]
  // CHECK-NEXT:    dl.return %[[Y]]
  dl.func @power(%x: tensor<4xf32>) -> tensor<4xf32> {
    %two = dl.fill 2.0 : f64 : tensor<4xf32>
    %y = dl.pow %x, %two : tensor<4xf32>
    dl.return %y : tensor<4xf32>
  }
  // maximum with 0 has relu's gradient.
  // CHECK-LABEL: dl.func @maximum_of_zero(
  // CHECK-NEXT:    dl.relu
  dl.func @maximum_of_zero(%x: tensor<4xf32>) -> tensor<4xf32> {
    %zero = dl.fill 0.0 : f64 : tensor<4xf32>
    %y = dl.maximum %x, %zero : tensor<4xf32>
    dl.return %y : tensor<4xf32>
  }
  // Numbers fold, also through moves and through functions of the element, in the element's own type.
  // CHECK-LABEL: dl.func @numbers(
  // CHECK-NEXT:    %[[C:.*]] = dl.fill 2.500000e-01 : f64 : tensor<2x4xf32>
  // CHECK-NEXT:    dl.return %[[C]]
  dl.func @numbers() -> tensor<2x4xf32> {
    %one = dl.fill 1.0 : f64 : tensor<4xf32>
    %four = dl.fill 4.0 : f64 : tensor<4xf32>
    %q = dl.div %one, %four : tensor<4xf32>
    %b = dl.broadcast %q [1] : tensor<4xf32> -> tensor<2x4xf32>
    dl.return %b : tensor<2x4xf32>
  }
  // Two fills of one type and other numbers stay two.
  // CHECK-LABEL: dl.func @two_numbers(
  // CHECK-DAG:     dl.fill 1.000000e+00
  // CHECK-DAG:     dl.fill 2.000000e+00
  // CHECK:         dl.return
  dl.func @two_numbers() -> (tensor<4xf32>, tensor<4xf32>) {
    %one = dl.fill 1.0 : f64 : tensor<4xf32>
    %two = dl.fill 2.0 : f64 : tensor<4xf32>
    dl.return %one, %two : tensor<4xf32>, tensor<4xf32>
  }
  // A transposed operand is read as it lies.
  // CHECK-LABEL: dl.func @transposed(
  // CHECK-NEXT:    dl.matmul transposed
  dl.func @transposed(%x: tensor<4x3xf32>, %w: tensor<4x5xf32>) -> tensor<3x5xf32> {
    %t = dl.transpose %x [1, 0] : tensor<4x3xf32> -> tensor<3x4xf32>
    %y = dl.matmul %t, %w : tensor<3x4xf32>, tensor<4x5xf32> -> tensor<3x5xf32>
    dl.return %y : tensor<3x5xf32>
  }
  // keepdims costs nothing: what is computed in [8, 1] is computed in [8].
  // CHECK-LABEL: dl.func @unit_dimensions(
  // CHECK:         dl.rsqrt %{{.*}} : tensor<8xf32>
  // CHECK-NOT:     tensor<8x1xf32>
  // CHECK:         dl.return
  dl.func @unit_dimensions(%x: tensor<8x16xf32>) -> tensor<8x16xf32> {
    %s = dl.sum %x [1] : tensor<8x16xf32> -> tensor<8xf32>
    %k = dl.reshape %s : tensor<8xf32> -> tensor<8x1xf32>
    %r = dl.rsqrt %k : tensor<8x1xf32>
    %b = dl.broadcast %r [0, 1] : tensor<8x1xf32> -> tensor<8x16xf32>
    dl.return %b : tensor<8x16xf32>
  }
  // A reduction over axes of size 1, or over none, is its operand; the index of the only element is 0.
  // CHECK-LABEL: dl.func @unit_reductions(
  // CHECK-SAME:    %[[X:.*]]: tensor<8x1xf32>
  // CHECK-NEXT:    %[[ZERO:.*]] = dl.fill 0 : i64 : tensor<8xi32>
  // CHECK-NEXT:    %[[ROW:.*]] = dl.reshape %[[X]] : tensor<8x1xf32> -> tensor<8xf32>
  // CHECK-NEXT:    dl.return %[[ROW]], %[[ROW]], %[[X]], %[[ZERO]]
  dl.func @unit_reductions(%x: tensor<8x1xf32>) -> (tensor<8xf32>, tensor<8xf32>, tensor<8x1xf32>, tensor<8xi32>) {
    %s = dl.sum %x [1] : tensor<8x1xf32> -> tensor<8xf32>
    %m = dl.max %x [1] : tensor<8x1xf32> -> tensor<8xf32>
    %n = dl.min %x [] : tensor<8x1xf32> -> tensor<8x1xf32>
    %i = dl.argmax %x [1] : tensor<8x1xf32> -> tensor<8xi32>
    dl.return %s, %m, %n, %i : tensor<8xf32>, tensor<8xf32>, tensor<8x1xf32>, tensor<8xi32>
  }
  // Never reassociated.
  // CHECK-LABEL: dl.func @sums(
  // CHECK-NEXT:    dl.add
  // CHECK-NEXT:    dl.sub
  // CHECK-NEXT:    dl.return
  dl.func @sums(%x: tensor<4xf32>, %y: tensor<4xf32>) -> tensor<4xf32> {
    %a = dl.add %x, %y : tensor<4xf32>
    %b = dl.sub %a, %y : tensor<4xf32>
    dl.return %b : tensor<4xf32>
  }
  // While a gradient is to be taken in a value that is computed, nothing leads around it: neither a fold nor a pattern, and it stays apart from an equal one.
  // Only a maximum with 0 is relu, which its gradient needs.
  // CHECK-LABEL: dl.func @derives_in_locals(
  // CHECK-SAME:    %[[X:.*]]: tensor<8xf32>
  // CHECK:         %[[A:.*]] = dl.neg %[[X]]
  // CHECK:         %[[B:.*]] = dl.neg %[[X]]
  // CHECK:         %[[C:.*]] = dl.neg %[[A]]
  // CHECK:         %[[K:.*]] = dl.reshape %[[C]]
  // CHECK:         %[[Q:.*]] = dl.mul %[[K]], %[[K]]
  // CHECK:         dl.relu %[[Q]]
  // CHECK:         dl.gradient %{{.*}} wrt %[[A]], %[[K]]
  dl.func @derives_in_locals(%x: tensor<8xf32>) -> (tensor<8xf32>, tensor<8x1xf32>) {
    %a = dl.neg %x : tensor<8xf32>
    %b = dl.neg %x : tensor<8xf32>
    %c = dl.neg %a : tensor<8xf32>
    %k = dl.reshape %c : tensor<8xf32> -> tensor<8x1xf32>
    %q = dl.mul %k, %k : tensor<8x1xf32>
    %zero = dl.fill 0.0 : f64 : tensor<8x1xf32>
    %r = dl.maximum %q, %zero : tensor<8x1xf32>
    %s = dl.sum %r [0, 1] : tensor<8x1xf32> -> tensor<f32>
    %t = dl.sum %b [0] : tensor<8xf32> -> tensor<f32>
    %loss = dl.add %s, %t : tensor<f32>
    %g:2 = dl.gradient %loss wrt %a, %k : (tensor<f32>, tensor<8xf32>, tensor<8x1xf32>) -> (tensor<8xf32>, tensor<8x1xf32>)
    dl.return %g#0, %g#1 : tensor<8xf32>, tensor<8x1xf32>
  }
  // A window over a choice between repeated values looks at these: the gradient of a maximum over windows keeps none of them.
  // CHECK-LABEL: dl.func @window_of_choice
  // CHECK-SAME:    %[[PLACE:.*]]: tensor<3xf32>, %[[FIRST:.*]]: tensor<4x5xf32>, %[[DY:.*]]: tensor<4x5xf32>)
  // CHECK-DAG:     %[[P:.*]] = dl.window %[[PLACE]] #{{.*}} over [1] else 0x7FF8000000000000 : tensor<3xf32> -> tensor<4x2x2x6xf32>
  // CHECK-DAG:     %[[F:.*]] = dl.window %[[FIRST]] #{{.*}} over [1, 1] else 0x7FF8000000000000 : tensor<4x5xf32> -> tensor<4x2x2x6xf32>
  // CHECK-DAG:     %[[D:.*]] = dl.window %[[DY]] #{{.*}} over [1, 1] else 0.0{{.*}} : tensor<4x5xf32> -> tensor<4x2x2x6xf32>
  // CHECK:         %[[IS:.*]] = dl.compare eq %[[P]], %[[F]]
  // CHECK-NEXT:    dl.select %[[IS]], %[[D]], %{{.*}}
  dl.func @window_of_choice(%place: tensor<3xf32>, %first: tensor<4x5xf32>, %dy: tensor<4x5xf32>) -> tensor<4x2x2x6xf32> {
    %p = dl.broadcast %place [1] : tensor<3xf32> -> tensor<4x3x5xf32>
    %f = dl.broadcast %first [0, 2] : tensor<4x5xf32> -> tensor<4x3x5xf32>
    %d = dl.broadcast %dy [0, 2] : tensor<4x5xf32> -> tensor<4x3x5xf32>
    %zero = dl.fill 0.0 : f64 : tensor<4x3x5xf32>
    %is = dl.compare eq %p, %f : tensor<4x3x5xf32> -> tensor<4x3x5xi1>
    %c = dl.select %is, %d, %zero : tensor<4x3x5xi1>, tensor<4x3x5xf32>
    %y = dl.window %c affine_map<(n, m, r, j) -> (n, m * 2 + r, j - m)> over [1, 1, 1] else 0.0 : tensor<4x3x5xf32> -> tensor<4x2x2x6xf32>
    dl.return %y : tensor<4x2x2x6xf32>
  }
  // Inside of a broadcast a window looks at what is repeated; one that leaves an axis that only the broadcast has does not.
  // CHECK-LABEL: dl.func @window_of_broadcast
  // CHECK-SAME:    %[[DY:.*]]: tensor<4x5xf32>)
  // CHECK:         %[[ALL:.*]] = dl.broadcast %[[DY]] [0, 2]
  // CHECK-DAG:     dl.window %[[DY]] #{{.*}} over [1, 1] else
  // CHECK-DAG:     dl.window %[[ALL]] #{{.*}} over [1, 1, 1] else
  dl.func @window_of_broadcast(%dy: tensor<4x5xf32>) -> (tensor<4x2x3xf32>, tensor<4x2x6xf32>) {
    %d = dl.broadcast %dy [0, 2] : tensor<4x5xf32> -> tensor<4x3x5xf32>
    %y = dl.window %d affine_map<(n, m, j) -> (n, m, j + m)> over [1, 1, 1] else 0.0 : tensor<4x3x5xf32> -> tensor<4x2x3xf32>
    %z = dl.window %d affine_map<(n, m, j) -> (n, m, j + m)> over [1, 1, 1] else 0.0 : tensor<4x3x5xf32> -> tensor<4x2x6xf32>
    dl.return %y, %z : tensor<4x2x3xf32>, tensor<4x2x6xf32>
  }

  // A sum of parts side by side, each in zeros, is the parts joined: the gradient of a value that was taken apart.
  // CHECK-LABEL: dl.func @parts(
  // CHECK-SAME:    %[[X:.*]]: tensor<2x3xf32>, %[[Y:.*]]: tensor<2x4xf32>, %[[Z:.*]]: tensor<2x1xf32>
  // CHECK-NEXT:    %[[J:.*]] = dl.concat %[[X]], %[[Y]], %[[Z]] axis 1
  // CHECK-NEXT:    dl.return %[[J]]
  dl.func @parts(%x: tensor<2x3xf32>, %y: tensor<2x4xf32>, %z: tensor<2x1xf32>) -> tensor<2x8xf32> {
    %a = dl.pad %z affine_map<() -> (0, 7)> [1, 1] : tensor<2x1xf32> -> tensor<2x8xf32>
    %b = dl.pad %x affine_map<() -> (0, 0)> [1, 1] : tensor<2x3xf32> -> tensor<2x8xf32>
    %c = dl.pad %y affine_map<() -> (0, 3)> [1, 1] : tensor<2x4xf32> -> tensor<2x8xf32>
    %s = dl.add %a, %b : tensor<2x8xf32>
    %t = dl.add %s, %c : tensor<2x8xf32>
    dl.return %t : tensor<2x8xf32>
  }
  // Parts that overlap add up, and a gap stays 0.
  // CHECK-LABEL: dl.func @overlapping(
  // CHECK-NOT:     dl.concat
  // CHECK:         dl.return
  dl.func @overlapping(%x: tensor<2x3xf32>, %y: tensor<2x4xf32>) -> (tensor<2x6xf32>, tensor<2x8xf32>) {
    %a = dl.pad %x affine_map<() -> (0, 0)> [1, 1] : tensor<2x3xf32> -> tensor<2x6xf32>
    %b = dl.pad %y affine_map<() -> (0, 2)> [1, 1] : tensor<2x4xf32> -> tensor<2x6xf32>
    %s = dl.add %a, %b : tensor<2x6xf32>
    %c = dl.pad %x affine_map<() -> (0, 0)> [1, 1] : tensor<2x3xf32> -> tensor<2x8xf32>
    %d = dl.pad %y affine_map<() -> (0, 4)> [1, 1] : tensor<2x4xf32> -> tensor<2x8xf32>
    %t = dl.add %c, %d : tensor<2x8xf32>
    dl.return %s, %t : tensor<2x6xf32>, tensor<2x8xf32>
  }

  // Rows of a table that are far more than the table's are multiplied there.
  // CHECK-LABEL: dl.func @product_of_table(
  // CHECK-SAME:    %[[T:.*]]: tensor<5x3xf32>, %[[I:.*]]: tensor<4x6xi32>, %[[W:.*]]: tensor<7x3xf32>
  // CHECK-NEXT:    %[[P:.*]] = dl.matmul %[[T]], transposed %[[W]] : {{.*}} -> tensor<5x7xf32>
  // CHECK-NEXT:    %[[G:.*]] = dl.gather %[[P]] [0] at %[[I]] from 0 : {{.*}} -> tensor<4x6x7xf32>
  // CHECK-NEXT:    %[[Y:.*]] = dl.reshape %[[G]] : tensor<4x6x7xf32> -> tensor<24x7xf32>
  // CHECK-NEXT:    dl.return %[[Y]]
  dl.func @product_of_table(%table: tensor<5x3xf32>, %i: tensor<4x6xi32>, %w: tensor<7x3xf32>) -> tensor<24x7xf32> {
    %x = dl.gather %table [0] at %i from 0 : (tensor<5x3xf32>, tensor<4x6xi32>) -> tensor<4x6x3xf32>
    %rows = dl.reshape %x : tensor<4x6x3xf32> -> tensor<24x3xf32>
    %y = dl.matmul %rows, transposed %w : tensor<24x3xf32>, tensor<7x3xf32> -> tensor<24x7xf32>
    dl.return %y : tensor<24x7xf32>
  }
  // Not those of which there are fewer than twice as many, of columns, or of two axes at once.
  // CHECK-LABEL: dl.func @product_of_rows(
  // CHECK-COUNT-3: dl.gather
  // CHECK:         dl.matmul {{.*}} -> tensor<24x7xf32>
  // CHECK:         dl.matmul {{.*}} -> tensor<24x7xf32>
  // CHECK:         dl.matmul {{.*}} -> tensor<24x7xf32>
  // CHECK-NOT:     dl.gather
  dl.func @product_of_rows(%table: tensor<13x3xf32>, %lines: tensor<3x5xf32>, %cube: tensor<2x2x3xf32>, %i: tensor<24xi32>, %w: tensor<3x7xf32>) -> (tensor<24x7xf32>, tensor<24x7xf32>, tensor<24x7xf32>) {
    %a = dl.gather %table [0] at %i from 0 : (tensor<13x3xf32>, tensor<24xi32>) -> tensor<24x3xf32>
    %b = dl.gather %lines [1] at %i from 0 : (tensor<3x5xf32>, tensor<24xi32>) -> tensor<24x3xf32>
    %c = dl.gather %cube [0, 1] at %i, %i from 0 : (tensor<2x2x3xf32>, tensor<24xi32>, tensor<24xi32>) -> tensor<24x3xf32>
    %x = dl.matmul %a, %w : tensor<24x3xf32>, tensor<3x7xf32> -> tensor<24x7xf32>
    %y = dl.matmul %b, %w : tensor<24x3xf32>, tensor<3x7xf32> -> tensor<24x7xf32>
    %z = dl.matmul %c, %w : tensor<24x3xf32>, tensor<3x7xf32> -> tensor<24x7xf32>
    dl.return %x, %y, %z : tensor<24x7xf32>, tensor<24x7xf32>, tensor<24x7xf32>
  }
}
