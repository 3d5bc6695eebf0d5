//===- schedules.mlir - how kernels become threads -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-fuse,dl-plan-memory),cuda-emit-kernels)' | FileCheck %s
// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-fuse,dl-plan-memory),cuda-emit-kernels{print-launches})' -o /dev/null 2>&1 | FileCheck %s --check-prefix=LIST
// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-fuse,dl-plan-memory),cuda-emit-kernels,cuda-to-llvm)' | FileCheck %s --check-prefix=LLVM

// A thread computes four neighbours, with one access to each buffer; pointers come first.
// CHECK-LABEL: func.func private @flat_0(%{{.*}}: !llvm.ptr {llvm.noalias}, %{{.*}}: !llvm.ptr {llvm.noalias}) attributes {threads = 256 : i32}
// CHECK:         nvvm.read.ptx.sreg.ctaid.x
// CHECK:         nvvm.read.ptx.sreg.tid.x
// CHECK:         scf.if
// CHECK:           vector.load {{.*}} {alignment = 16 : i64} {{.*}} vector<4xf32>
// CHECK-NEXT:      math.exp {{.*}} : vector<4xf32>
// CHECK-NEXT:      vector.store {{.*}} {alignment = 16 : i64}
// CHECK-NEXT:    }
// CHECK-NEXT:    return

// What is left of a number of elements that 4 does not divide goes one by one. A size comes after the pointers.
// CHECK-LABEL: func.func private @tail_0({{.*}}, %{{.*}}: i64)
// CHECK:         scf.if
// CHECK:           vector.load {{.*}} {alignment = 16 : i64}
// CHECK:         } else {
// CHECK:           scf.for
// CHECK:             memref.load
// CHECK:             math.sqrt {{.*}} : f32

// Rows of 64 are aligned, and so is the bias that goes with each.
// CHECK-LABEL: func.func private @bias_0
// CHECK-COUNT-2: vector.load {{.*}} {alignment = 16 : i64}
// CHECK:         vector.store {{.*}} {alignment = 16 : i64}

// CHECK-LABEL: func.func private @transposed_0
// CHECK-NOT:     vector
// CHECK:         memref.load
// CHECK:         memref.store

// Four that are not neighbours are four reads, whoever does them.
// CHECK-LABEL: func.func private @every_second_0
// CHECK-NOT:     vector
// CHECK:         memref.load
// CHECK:         memref.store

// 16 lanes share a row of 10: it is read once, exp is computed once, and each of the two reductions takes four shuffles.
// CHECK-LABEL: func.func private @softmax_0
// CHECK-NOT:     scf.for
// CHECK:         memref.load
// CHECK-NOT:     memref.load
// CHECK-COUNT-4: nvvm.shfl.sync
// CHECK:         math.exp
// CHECK-COUNT-4: nvvm.shfl.sync
// CHECK-NOT:     nvvm.shfl.sync
// CHECK-NOT:     math.exp
// CHECK-NOT:     nvvm.barrier0
// CHECK:         scf.if
// CHECK:           memref.store

// A row of unknown length belongs to a block: five shuffles, then the warps' sums through shared memory, in order.
// CHECK-LABEL: func.func private @total_0
// CHECK:         scf.for
// CHECK-COUNT-5: nvvm.shfl.sync
// CHECK:         llvm.store {{.*}} !llvm.ptr<3>
// CHECK:         nvvm.barrier0
// CHECK-COUNT-8: llvm.load {{.*}} !llvm.ptr<3> -> f32
// CHECK:         scf.if
// CHECK:           memref.store

// The index goes along.
// CHECK-LABEL: func.func private @best_0
// CHECK:         nvvm.shfl.sync {{.*}} : f32 -> f32
// CHECK:         nvvm.shfl.sync {{.*}} : i32 -> i32

// Eight columns side by side, 32 threads to each: two shuffles between the four in a warp.
// CHECK-LABEL: func.func private @columns_0
// CHECK:         %[[WHOLE:.*]] = arith.cmpi eq, %[[CHUNKS:.*]], %c1{{.*}} : index
// CHECK:         %[[PART:.*]] = arith.cmpi ne, %[[CHUNKS]], %c1{{.*}} : index
// CHECK:         scf.for {{.*}} step %c32
// CHECK:         nvvm.shfl.sync
// CHECK:         nvvm.shfl.sync
// CHECK-NOT:     nvvm.shfl.sync
// CHECK:         nvvm.barrier0

// One chunk is done at once; of several only the sum is kept, for the second kernel to add up.
// CHECK:         %[[STORES:.*]] = arith.andi %{{.*}}, %[[PART]] : i1
// CHECK:         scf.if %[[STORES]] {
// CHECK:           memref.store
// CHECK:         %[[ENDS:.*]] = arith.andi %{{.*}}, %[[WHOLE]] : i1
// CHECK:         scf.if %[[ENDS]] {
// CHECK:           memref.store
// CHECK-LABEL: func.func private @columns_1
// CHECK:         scf.for

// CHECK-LABEL: func.func private @long_0
// CHECK:         scf.for
// CHECK-LABEL: func.func private @long_1

// One block finds the first bad label; updates look at what it found.
// CHECK-LABEL: func.func private @step_0
// CHECK:         arith.cmpi uge
// CHECK:         arith.minsi
// CHECK:         nvvm.barrier0
// CHECK:         scf.if
// CHECK-COUNT-3:   memref.store
// CHECK-LABEL: func.func private @step_1
// CHECK:         %[[SITE:.*]] = memref.load {{.*}} : memref<?xi64>
// CHECK:         %[[FINE:.*]] = arith.cmpi eq, %[[SITE]], %c0_i64
// CHECK:         %[[FIRST:.*]] = arith.andi %{{.*}}, %[[FINE]]
// CHECK:         scf.if %[[FIRST]] {
// CHECK:           arith.addf
// CHECK:         %[[SECOND:.*]] = arith.andi %{{.*}}, %[[FINE]]
// CHECK:         scf.if %[[SECOND]] {
// CHECK:           arith.mulf

// One element of a tensor: there is no axis to count along.
// CHECK-LABEL: func.func private @element_0
// CHECK:         scf.if
// CHECK:           memref.load
// CHECK:           arith.mulf
// CHECK:           memref.store

// A draw of four is one block of Philox; the function becomes part of the kernel.
// CHECK-LABEL: func.func private @noise_0
// CHECK:         call @dl.uniform_f32_4
// CHECK:       func.func private @dl.uniform_f32_4
// CHECK-SAME:    passthrough = ["alwaysinline", "nounwind"]

// LIST-LABEL: function flat
// LIST-NEXT:    kernel flat_0 exp: 1 blocks, 0 1{{$}}
// LIST-LABEL: function columns
// The number of chunks is computed from N, and goes to both kernels; the second one has no blocks where there is one.
// LIST-NEXT:    kernel columns_0 sum_chunks: {{.*}}N / 32768{{.*}} blocks, 0 2 1 N {{.*}}
// LIST-NEXT:    kernel columns_1 sum: {{.*}} / 64 {{.*}} blocks, 2 1 N {{.*}}
// LIST-LABEL: function long
// LIST-NEXT:    kernel long_0 max_chunks: 65 blocks, 0 2{{$}}
// LIST-NEXT:    kernel long_1 max: 1 blocks, 2 1{{$}}
// LIST-LABEL: function step
// LIST-NEXT:    kernel step_0 check_index: 1 blocks, 0 fault N{{$}}
// LIST-NEXT:    kernel step_1 add+mul: 2 blocks, fault 1 2{{$}}

// LIST-LABEL: function element
// LIST-NEXT:    kernel element_0 {{.*}}: 1 blocks, 0 1{{$}}

// LLVM-NOT: {{(func|arith|scf|memref|vector)\.}}
// LLVM:     llvm.mlir.global internal @dl_shared_0() {addr_space = 3 : i32
// LLVM:     llvm.func @flat_0({{.*}}) attributes {nvvm.kernel, nvvm.reqntid = array<i32: 256>

#N = affine_map<()[s0] -> (s0)>
#N64 = affine_map<()[s0] -> (s0, 64)>
#N3 = affine_map<()[s0] -> (s0, 3)>

dl.model @m dims ["N"] {
  dl.variable trained @w : tensor<1000xf32>
  dl.variable trained @b : tensor<64xf32>

  dl.func @flat(%x: tensor<1000xf32>) -> tensor<1000xf32> {
    %y = dl.exp %x : tensor<1000xf32>
    dl.return %y : tensor<1000xf32>
  }

  dl.func @tail(%x: tensor<?x3xf32, #N3>) -> tensor<?x3xf32, #N3> {
    %y = dl.sqrt %x : tensor<?x3xf32, #N3>
    dl.return %y : tensor<?x3xf32, #N3>
  }

  dl.func @bias(%x: tensor<?x64xf32, #N64>) -> tensor<?x64xf32, #N64> {
    %b = dl.read @b : tensor<64xf32>
    %r = dl.broadcast %b [1] : tensor<64xf32> -> tensor<?x64xf32, #N64>
    %y = dl.add %x, %r : tensor<?x64xf32, #N64>
    dl.return %y : tensor<?x64xf32, #N64>
  }

  dl.func @transposed(%x: tensor<?x64xf32, #N64>) -> tensor<64x?xf32, affine_map<()[s0] -> (64, s0)>> {
    %y = dl.transpose %x [1, 0] : tensor<?x64xf32, #N64> -> tensor<64x?xf32, affine_map<()[s0] -> (64, s0)>>
    dl.return %y : tensor<64x?xf32, affine_map<()[s0] -> (64, s0)>>
  }

  dl.func @every_second(%x: tensor<?x64xf32, #N64>) -> tensor<?x32xf32, affine_map<()[s0] -> (s0, 32)>> {
    %y = dl.slice %x affine_map<()[s0] -> (0, 0)> [1, 2] : tensor<?x64xf32, #N64> -> tensor<?x32xf32, affine_map<()[s0] -> (s0, 32)>>
    dl.return %y : tensor<?x32xf32, affine_map<()[s0] -> (s0, 32)>>
  }

  dl.func @softmax(%x: tensor<?x10xf32, affine_map<()[s0] -> (s0, 10)>>) -> tensor<?x10xf32, affine_map<()[s0] -> (s0, 10)>> {
    %m = dl.max %x [1] : tensor<?x10xf32, affine_map<()[s0] -> (s0, 10)>> -> tensor<?xf32, #N>
    %mb = dl.broadcast %m [0] : tensor<?xf32, #N> -> tensor<?x10xf32, affine_map<()[s0] -> (s0, 10)>>
    %d = dl.sub %x, %mb : tensor<?x10xf32, affine_map<()[s0] -> (s0, 10)>>
    %e = dl.exp %d : tensor<?x10xf32, affine_map<()[s0] -> (s0, 10)>>
    %s = dl.sum %e [1] : tensor<?x10xf32, affine_map<()[s0] -> (s0, 10)>> -> tensor<?xf32, #N>
    %sb = dl.broadcast %s [0] : tensor<?xf32, #N> -> tensor<?x10xf32, affine_map<()[s0] -> (s0, 10)>>
    %y = dl.div %e, %sb : tensor<?x10xf32, affine_map<()[s0] -> (s0, 10)>>
    dl.return %y : tensor<?x10xf32, affine_map<()[s0] -> (s0, 10)>>
  }

  dl.func @total(%x: tensor<?xf32, #N>) -> tensor<f32> {
    %s = dl.sum %x [0] : tensor<?xf32, #N> -> tensor<f32>
    dl.return %s : tensor<f32>
  }

  dl.func @best(%x: tensor<?x64xf32, #N64>) -> tensor<?xi32, #N> {
    %i = dl.argmax %x [1] : tensor<?x64xf32, #N64> -> tensor<?xi32, #N>
    dl.return %i : tensor<?xi32, #N>
  }

  dl.func @columns(%x: tensor<?x64xf32, #N64>) -> tensor<64xf32> {
    %s = dl.sum %x [0] : tensor<?x64xf32, #N64> -> tensor<64xf32>
    dl.return %s : tensor<64xf32>
  }

  dl.func @long(%x: tensor<1048576xf32>) -> tensor<f32> {
    %s = dl.max %x [0] : tensor<1048576xf32> -> tensor<f32>
    dl.return %s : tensor<f32>
  }

  // A label outside its classes stops every change of a variable; both updates share a launch.
  dl.func @step(%label: tensor<?xi32, #N>) {
    dl.check_index %label below affine_map<() -> (10)> or -100 "label {value}" : tensor<?xi32, #N>
    %w = dl.read @w : tensor<1000xf32>
    %w2 = dl.add %w, %w : tensor<1000xf32>
    %b = dl.read @b : tensor<64xf32>
    %b2 = dl.mul %b, %b : tensor<64xf32>
    dl.assign @w, %w2 : tensor<1000xf32>
    dl.assign @b, %b2 : tensor<64xf32>
    dl.return
  }

  dl.func @element(%x: tensor<8xf32>) -> tensor<f32> {
    %s = dl.slice %x affine_map<() -> (3)> [1] : tensor<8xf32> -> tensor<1xf32>
    %r = dl.reshape %s : tensor<1xf32> -> tensor<f32>
    %y = dl.mul %r, %r : tensor<f32>
    dl.return %y : tensor<f32>
  }

  dl.func @noise(%seed: tensor<i64>, %call: tensor<i64>) -> tensor<4096xf32> {
    %u = dl.uniform %seed, %call {stream = 7 : ui32} : tensor<4096xf32>
    %y = dl.add %u, %u : tensor<4096xf32>
    dl.return %y : tensor<4096xf32>
  }
}
