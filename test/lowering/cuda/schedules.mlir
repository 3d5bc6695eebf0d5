//===- schedules.mlir - how kernels become threads -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-fuse,dl-plan-memory),cuda-emit-kernels)' | FileCheck %s
// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-fuse,dl-plan-memory),cuda-emit-kernels{print-launches})' -o /dev/null 2>&1 | FileCheck %s --check-prefix=LIST
// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-fuse,dl-plan-memory),cuda-emit-kernels,cuda-to-llvm)' | FileCheck %s --check-prefix=LLVM

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

  dl.func @noise(%seed: tensor<i64>, %call: tensor<i64>) -> tensor<4096xf32> {
    %u = dl.uniform %seed, %call {stream = 7 : ui32} : tensor<4096xf32>
    %y = dl.add %u, %u : tensor<4096xf32>
    dl.return %y : tensor<4096xf32>
  }
}
