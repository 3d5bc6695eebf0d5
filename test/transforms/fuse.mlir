//===- fuse.mlir - what becomes one kernel -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-fuse))' | FileCheck %s

#nx8 = affine_map<()[s0] -> (s0, 8)>
#n = affine_map<()[s0] -> (s0)>
dl.model @m dims ["N"] {
  dl.variable trained @w : tensor<4x8xf32>

  // A bias and relu run in the product's epilogue, for every batch.
  // CHECK-LABEL: dl.func @epilogue(
  // CHECK:         dl.fused "gemm"
  // CHECK:           dl.matmul
  // CHECK:           dl.broadcast
  // CHECK:           dl.add
  // CHECK:           dl.relu
  // CHECK-NOT:     dl.fused
  // CHECK:         dl.return
  dl.func @epilogue(%x: tensor<?x4xf32, affine_map<()[s0] -> (s0, 4)>>, %w: tensor<4x8xf32>, %bias: tensor<8xf32>) -> tensor<?x8xf32, #nx8> {
    %p = dl.matmul %x, %w : tensor<?x4xf32, affine_map<()[s0] -> (s0, 4)>>, tensor<4x8xf32> -> tensor<?x8xf32, #nx8>
    %b = dl.broadcast %bias [1] : tensor<8xf32> -> tensor<?x8xf32, #nx8>
    %s = dl.add %p, %b : tensor<?x8xf32, #nx8>
    %y = dl.relu %s : tensor<?x8xf32, #nx8>
    dl.return %y : tensor<?x8xf32, #nx8>
  }

  // A convolution is a product too. What its gradient's windows read has to lie in memory; the update runs where the gradient is computed.
  // CHECK-LABEL: dl.func @convolution(
  // CHECK:         %[[Y:.*]] = dl.fused "gemm"
  // CHECK:           dl.convolution output
  // CHECK:           dl.broadcast
  // CHECK:           dl.add
  // CHECK:           dl.relu
  // CHECK:         dl.fused "gemm"(%{{.*}}, %[[Y]], %{{.*}})
  // CHECK:           dl.convolution weight
  // CHECK:           dl.sub
  // CHECK-NOT:     dl.fused
  // CHECK:         dl.return
  dl.func @convolution(%x: tensor<2x3x8x8xf32>, %w: tensor<8x3x3x3xf32>, %bias: tensor<8xf32>) -> tensor<8x3x3x3xf32> {
    %c = dl.convolution output of %x, %w strides [1, 1] paddings [1, 1] dilations [1, 1] groups 1 : tensor<2x3x8x8xf32>, tensor<8x3x3x3xf32> -> tensor<2x8x8x8xf32>
    %b = dl.broadcast %bias [1] : tensor<8xf32> -> tensor<2x8x8x8xf32>
    %s = dl.add %c, %b : tensor<2x8x8x8xf32>
    %y = dl.relu %s : tensor<2x8x8x8xf32>
    %d = dl.convolution weight of %x, %y strides [1, 1] paddings [1, 1] dilations [1, 1] groups 1 : tensor<2x3x8x8xf32>, tensor<2x8x8x8xf32> -> tensor<8x3x3x3xf32>
    %n = dl.sub %w, %d : tensor<8x3x3x3xf32>
    dl.return %n : tensor<8x3x3x3xf32>
  }

  // Softmax is one kernel: the maximum, the sum and what stands around them.
  // CHECK-LABEL: dl.func @softmax(
  // CHECK:         dl.fused "rows"
  // CHECK:           dl.max
  // CHECK:           dl.exp
  // CHECK:           dl.sum
  // CHECK-NOT:     dl.fused
  // CHECK:         dl.return
  dl.func @softmax(%x: tensor<?x8xf32, #nx8>) -> tensor<?x8xf32, #nx8> {
    %m = dl.max %x [1] : tensor<?x8xf32, #nx8> -> tensor<?xf32, #n>
    %mb = dl.broadcast %m [0] : tensor<?xf32, #n> -> tensor<?x8xf32, #nx8>
    %d = dl.sub %x, %mb : tensor<?x8xf32, #nx8>
    %e = dl.exp %d : tensor<?x8xf32, #nx8>
    %s = dl.sum %e [1] : tensor<?x8xf32, #nx8> -> tensor<?xf32, #n>
    %sb = dl.broadcast %s [0] : tensor<?xf32, #n> -> tensor<?x8xf32, #nx8>
    %y = dl.div %e, %sb : tensor<?x8xf32, #nx8>
    dl.return %y : tensor<?x8xf32, #nx8>
  }

  // The update of a variable runs in the product that makes its gradient: the gradient itself is never in memory.
  // CHECK-LABEL: dl.func @update(
  // CHECK:         dl.fused "gemm"
  // CHECK:           %[[G:.*]] = dl.matmul transposed
  // CHECK:           dl.mul
  // CHECK:           %[[NEW:.*]] = dl.sub
  // CHECK:           dl.yield %[[NEW]] :
  // CHECK-NOT:     dl.fused
  // CHECK:         dl.assign @w
  dl.func @update(%x: tensor<16x4xf32>, %d: tensor<16x8xf32>) {
    %w = dl.read @w : tensor<4x8xf32>
    %g = dl.matmul transposed %x, %d : tensor<16x4xf32>, tensor<16x8xf32> -> tensor<4x8xf32>
    %lr = dl.fill 1.0e-2 : f64 : tensor<4x8xf32>
    %u = dl.mul %lr, %g : tensor<4x8xf32>
    %n = dl.sub %w, %u : tensor<4x8xf32>
    dl.assign @w, %n : tensor<4x8xf32>
    dl.return
  }

  // A gradient that something else reads too is written by the same kernel.
  // CHECK-LABEL: dl.func @update_and_norm(
  // CHECK:         %{{.*}}:2 = dl.fused "gemm"
  // CHECK:           dl.matmul transposed
  // CHECK:         dl.fused "rows"
  // CHECK:         dl.assign @w
  dl.func @update_and_norm(%x: tensor<16x4xf32>, %d: tensor<16x8xf32>) -> tensor<4xf32> {
    %w = dl.read @w : tensor<4x8xf32>
    %g = dl.matmul transposed %x, %d : tensor<16x4xf32>, tensor<16x8xf32> -> tensor<4x8xf32>
    %n = dl.sub %w, %g : tensor<4x8xf32>
    %s = dl.sum %g [1] : tensor<4x8xf32> -> tensor<4xf32>
    dl.assign @w, %n : tensor<4x8xf32>
    dl.return %s : tensor<4xf32>
  }

  // A draw is repeated in both kernels that read it rather than kept in memory.
  // CHECK-LABEL: dl.func @repeated(
  // CHECK:         dl.fused
  // CHECK:           dl.uniform
  // CHECK:         dl.fused
  // CHECK:           dl.uniform
  dl.func @repeated(%x: tensor<16x8xf32>, %seed: tensor<i64>, %call: tensor<i64>) -> (tensor<16x8xf32>, tensor<8xf32>) {
    %u = dl.uniform %seed, %call {stream = 1 : ui32} : tensor<16x8xf32>
    %a = dl.mul %x, %u : tensor<16x8xf32>
    %t = dl.transpose %a [1, 0] : tensor<16x8xf32> -> tensor<8x16xf32>
    %tu = dl.transpose %u [1, 0] : tensor<16x8xf32> -> tensor<8x16xf32>
    %p = dl.mul %t, %tu : tensor<8x16xf32>
    %s = dl.sum %p [1] : tensor<8x16xf32> -> tensor<8xf32>
    dl.return %a, %s : tensor<16x8xf32>, tensor<8xf32>
  }

  // Pad and concat stand at the head of a kernel: what follows them joins, they join nothing, and no epilogue of a product, which works in vectors.
  // CHECK-LABEL: dl.func @heads(
  // CHECK:         %[[PAD:.*]] = dl.fused "loop"
  // CHECK-NEXT:    ^bb0
  // CHECK-NEXT:      dl.pad
  // CHECK-NEXT:      dl.yield
  // CHECK:         dl.fused "gemm"({{.*}}%[[PAD]]
  // CHECK-NOT:       dl.pad
  // CHECK:           dl.exp
  // CHECK:           dl.add
  // CHECK:         dl.return
  dl.func @heads(%x: tensor<16x4xf32>, %w: tensor<4x8xf32>, %y: tensor<16x3xf32>) -> tensor<16x8xf32> {
    %p = dl.pad %y affine_map<() -> (0, 2)> [1, 2] : tensor<16x3xf32> -> tensor<16x8xf32>
    %e = dl.exp %p : tensor<16x8xf32>
    %m = dl.matmul %x, %w : tensor<16x4xf32>, tensor<4x8xf32> -> tensor<16x8xf32>
    %s = dl.add %m, %e : tensor<16x8xf32>
    dl.return %s : tensor<16x8xf32>
  }

  // CHECK-LABEL: dl.func @head_of_a_loop(
  // CHECK:         dl.fused "loop"
  // CHECK:           dl.pad
  // CHECK-NEXT:      dl.exp
  // CHECK-NOT:     dl.fused
  // CHECK:         dl.return
  dl.func @head_of_a_loop(%y: tensor<16x3xf32>) -> tensor<16x8xf32> {
    %p = dl.pad %y affine_map<() -> (0, 2)> [1, 2] : tensor<16x3xf32> -> tensor<16x8xf32>
    %e = dl.exp %p : tensor<16x8xf32>
    dl.return %e : tensor<16x8xf32>
  }

  // What normalizes rows is one kernel, what normalizes columns another schedule of the same; a reduction over an axis in the middle keeps the others.
  // CHECK-LABEL: dl.func @columns(
  // CHECK:         dl.fused "columns"
  // CHECK:           dl.sum %{{.*}} [0]
  // CHECK:           dl.sub
  // CHECK-NOT:     dl.fused
  // CHECK:         dl.return
  dl.func @columns(%x: tensor<?x8xf32, #nx8>) -> tensor<?x8xf32, #nx8> {
    %s = dl.sum %x [0] : tensor<?x8xf32, #nx8> -> tensor<8xf32>
    %b = dl.broadcast %s [1] : tensor<8xf32> -> tensor<?x8xf32, #nx8>
    %d = dl.sub %x, %b : tensor<?x8xf32, #nx8>
    dl.return %d : tensor<?x8xf32, #nx8>
  }

  // A value that is read under another place than its own ends a kernel: the transposed one is not at hand where the rows are.
  // CHECK-LABEL: dl.func @misaligned(
  // CHECK:         %[[Y:.*]] = dl.fused
  // CHECK:         dl.fused {{.*}}%[[Y]]
  // CHECK:         dl.return
  dl.func @misaligned(%x: tensor<8x8xf32>) -> tensor<8x8xf32> {
    %y = dl.exp %x : tensor<8x8xf32>
    %t = dl.transpose %y [1, 0] : tensor<8x8xf32> -> tensor<8x8xf32>
    %s = dl.add %y, %t : tensor<8x8xf32>
    dl.return %s : tensor<8x8xf32>
  }

  // Labels that are computed are checked after the kernel that computes them.
  // CHECK-LABEL: dl.func @checked(
  // CHECK:         %[[L:.*]] = dl.fused "loop"
  // CHECK:         dl.check_index %[[L]] below
  // CHECK:         dl.return %[[L]]
  dl.func @checked(%x: tensor<8xi32>) -> tensor<8xi32> {
    %l = dl.add %x, %x : tensor<8xi32>
    dl.check_index %l below affine_map<() -> (4)> "label {value}" : tensor<8xi32>
    dl.return %l : tensor<8xi32>
  }

  // Rows are taken out of a table where they are read; what changes places is a kernel of its own.
  // CHECK-LABEL: dl.func @places(
  // CHECK:         dl.fused "loop"(%{{.*}}, %{{.*}}, %{{.*}}) attributes {name = "add"}
  // CHECK:           dl.gather
  // CHECK:           dl.add
  // CHECK:         dl.fused "loop"
  // CHECK:           dl.exp
  // CHECK:         dl.fused "scatter"({{.*}}) attributes {name = "scatter_add"}
  // CHECK:           dl.fill
  // CHECK:           dl.scatter_add
  // CHECK:         dl.fused "loop"
  // CHECK:           dl.neg
  // CHECK:         dl.return
  dl.func @places(%table: tensor<50x8xf32>, %p: tensor<6x8xf32>, %i: tensor<6xi32>) -> (tensor<6x8xf32>, tensor<50x8xf32>) {
    %rows = dl.gather %table [0] at %i from 0 : (tensor<50x8xf32>, tensor<6xi32>) -> tensor<6x8xf32>
    %sum = dl.add %rows, %p : tensor<6x8xf32>
    %e = dl.exp %p : tensor<6x8xf32>
    %zeros = dl.fill 0.0 : f64 : tensor<50x8xf32>
    %g = dl.scatter_add %zeros [0] at %i from 0 with %e : (tensor<50x8xf32>, tensor<6x8xf32>, tensor<6xi32>) -> tensor<50x8xf32>
    %n = dl.neg %g : tensor<50x8xf32>
    dl.return %sum, %n : tensor<6x8xf32>, tensor<50x8xf32>
  }

  // Sizes that are assumed are read through: one kernel.
  // CHECK-LABEL: dl.func @assumed(
  // CHECK:         dl.fused "loop"
  // CHECK:           dl.assume_shape
  // CHECK:           dl.add
  // CHECK-NOT:     dl.fused
  // CHECK:         dl.return
  dl.func @assumed(%x: tensor<8xf32>, %y: tensor<?xf32, #n>) -> tensor<8xf32> {
    %z = dl.assume_shape %y : tensor<?xf32, #n> -> tensor<8xf32>
    %s = dl.add %x, %z : tensor<8xf32>
    dl.return %s : tensor<8xf32>
  }

  // What only other kernels read goes to these where less is then written and read: the product lies in memory alone, as each kernel reads what it multiplies it by anyway. An exponential is
  // not computed twice, and what would have to be written in another's place stays.
  // CHECK-LABEL: dl.func @readers(
  // CHECK-SAME:    %[[A:.*]]: tensor<64x8xf32>, %[[W:.*]]: tensor<8x16xf32>, %[[X:.*]]: tensor<64x16xf32>, %[[G:.*]]: tensor<16xf32>)
  // CHECK:         %[[P:.*]] = dl.fused "gemm"(%[[A]], %[[W]])
  // CHECK:           dl.matmul
  // CHECK-NEXT:      dl.yield
  // CHECK:         dl.fused "columns"(%[[X]], %[[P]])
  // CHECK:           dl.mul
  // CHECK:           dl.sum
  // CHECK:         dl.fused "rows"(%[[G]], %[[P]], %[[X]])
  // CHECK:           dl.mul
  // CHECK:           dl.mul
  // CHECK:           dl.sum
  // CHECK:         dl.return
  dl.func @readers(%a: tensor<64x8xf32>, %w: tensor<8x16xf32>, %x: tensor<64x16xf32>, %gamma: tensor<16xf32>) -> (tensor<16xf32>, tensor<64x16xf32>) {
    %p = dl.matmul %a, %w : tensor<64x8xf32>, tensor<8x16xf32> -> tensor<64x16xf32>
    %px = dl.mul %x, %p : tensor<64x16xf32>
    %columns = dl.sum %px [0] : tensor<64x16xf32> -> tensor<16xf32>
    %g = dl.broadcast %gamma [1] : tensor<16xf32> -> tensor<64x16xf32>
    %pg = dl.mul %g, %p : tensor<64x16xf32>
    %pgx = dl.mul %pg, %x : tensor<64x16xf32>
    %rows = dl.sum %pgx [1] : tensor<64x16xf32> -> tensor<64xf32>
    %r = dl.broadcast %rows [0] : tensor<64xf32> -> tensor<64x16xf32>
    %rx = dl.mul %x, %r : tensor<64x16xf32>
    %d = dl.sub %pg, %rx : tensor<64x16xf32>
    dl.return %columns, %d : tensor<16xf32>, tensor<64x16xf32>
  }
  // CHECK-LABEL: dl.func @stays(
  // CHECK:         dl.fused "gemm"
  // CHECK:           dl.matmul
  // CHECK:           dl.add
  // CHECK:           dl.exp
  // CHECK-NEXT:      dl.yield
  // CHECK:         dl.fused "columns"
  // CHECK-NOT:       dl.exp
  // CHECK:         dl.return
  dl.func @stays(%a: tensor<64x8xf32>, %w: tensor<8x16xf32>, %x: tensor<64x16xf32>, %gamma: tensor<16xf32>) -> (tensor<16xf32>, tensor<64xf32>) {
    %p = dl.matmul %a, %w : tensor<64x8xf32>, tensor<8x16xf32> -> tensor<64x16xf32>
    %s = dl.add %p, %x : tensor<64x16xf32>
    %e = dl.exp %s : tensor<64x16xf32>
    %columns = dl.sum %e [0] : tensor<64x16xf32> -> tensor<16xf32>
    %rows = dl.sum %e [1] : tensor<64x16xf32> -> tensor<64xf32>
    dl.return %columns, %rows : tensor<16xf32>, tensor<64xf32>
  }

  // No merge closes a cycle: the sum of all stands between the two.
  // CHECK-LABEL: dl.func @cycle(
  // CHECK:         dl.fused "rows"
  // CHECK:         dl.fused "rows"
  // CHECK:         dl.fused "loop"
  // CHECK:         dl.return
  dl.func @cycle(%x: tensor<8x8xf32>) -> tensor<8x8xf32> {
    %y = dl.exp %x : tensor<8x8xf32>
    %s = dl.sum %y [0, 1] : tensor<8x8xf32> -> tensor<f32>
    %b = dl.broadcast %s [] : tensor<f32> -> tensor<8x8xf32>
    %d = dl.div %y, %b : tensor<8x8xf32>
    dl.return %d : tensor<8x8xf32>
  }

  // A function of the user's own is a kernel by itself: what it reads and writes lies in memory, all its results too; an operand that only has another shape is read as it lies.
  // CHECK-LABEL: dl.func @own(
  // CHECK-SAME:    %[[X:.*]]: tensor<2x4xf32>
  // CHECK:         %[[FILLED:.*]] = dl.fused "loop"
  // CHECK:           dl.fill
  // CHECK:         %[[Y:.*]]:2 = dl.fused "extern"(%[[X]], %[[FILLED]]) attributes {name = "f"}
  // CHECK:           %[[FLAT:.*]] = dl.reshape
  // CHECK-NEXT:      %[[R:.*]]:2 = dl.extern @extern.f(%[[FLAT]], %{{.*}})
  // CHECK-NEXT:      dl.yield %[[R]]#0, %[[R]]#1
  // CHECK:         dl.fused "loop"(%[[Y]]#0)
  // CHECK:           dl.exp
  // CHECK:         dl.return
  dl.func @own(%x: tensor<2x4xf32>) -> tensor<8xf32> {
    %flat = dl.reshape %x : tensor<2x4xf32> -> tensor<8xf32>
    %two = dl.fill 2.0 : f64 : tensor<8xf32>
    %y:2 = dl.extern @extern.f(%flat, %two) threads 256 blocks affine_map<() -> (1)> : (tensor<8xf32>, tensor<8xf32>) -> (tensor<8xf32>, tensor<i32>)
    %z = dl.exp %y#0 : tensor<8xf32>
    dl.return %z : tensor<8xf32>
  }
  dl.extern_function @extern.f "f" cpp "f.cpp"

  // Attention is one too, and takes slices and what is repeated where they lie, of a tensor that has another shape there; what is no such view is put in memory first.
  // CHECK-LABEL: dl.func @attention(
  // CHECK-SAME:    %[[X:.*]]: tensor<2x5x36xf32>, %[[V:.*]]: tensor<3x4xf32>
  // CHECK:         %[[REVERSED:.*]] = dl.fused "loop"(%[[X]])
  // CHECK:           dl.slice
  // CHECK:         %[[ROWS:.*]] = dl.fused "loop"(%[[V]])
  // CHECK:           dl.exp
  // CHECK:         %{{.*}}:2 = dl.fused "attention"(%[[X]], %[[REVERSED]], %[[ROWS]]) attributes {name = "attention"}
  // CHECK-DAG:       %[[WHOLE:.*]] = dl.reshape
  // CHECK-DAG:       %[[Q:.*]] = dl.slice %[[WHOLE]]
  // CHECK-DAG:       %[[VALUES:.*]] = dl.broadcast
  // CHECK:           dl.attention causal %[[Q]], %{{.*}}, %[[VALUES]] scale
  // CHECK-NOT:     dl.fused
  // CHECK:         dl.return
  dl.func @attention(%x: tensor<2x5x36xf32>, %v: tensor<3x4xf32>) -> tensor<2x5x3x4xf32> {
    %heads = dl.reshape %x : tensor<2x5x36xf32> -> tensor<2x5x9x4xf32>
    %q = dl.slice %heads affine_map<() -> (0, 0, 0, 0)> [1, 1, 1, 1] : tensor<2x5x9x4xf32> -> tensor<2x5x3x4xf32>
    %k = dl.slice %heads affine_map<() -> (0, 0, 3, 3)> [1, 1, 1, -1] : tensor<2x5x9x4xf32> -> tensor<2x5x3x4xf32>
    %e = dl.exp %v : tensor<3x4xf32>
    %rows = dl.broadcast %e [2, 3] : tensor<3x4xf32> -> tensor<2x5x3x4xf32>
    %y, %l = dl.attention causal %q, %k, %rows scale 0.5 : (tensor<2x5x3x4xf32>, tensor<2x5x3x4xf32>, tensor<2x5x3x4xf32>) -> (tensor<2x5x3x4xf32>, tensor<2x5x3xf32>)
    dl.return %y : tensor<2x5x3x4xf32>
  }
}
