//===- emit-kernels.mlir - entries and kernels of a planned model -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-fuse,dl-plan-memory),cpu-emit-kernels{cpu=x86-64-v3})' | FileCheck %s --check-prefixes=CHECK,V3
// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-fuse,dl-plan-memory),cpu-emit-kernels{cpu=x86-64-v4})' | FileCheck %s --check-prefixes=CHECK,V4
// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-fuse,dl-plan-memory),cpu-emit-kernels{cpu=x86-64-v4},cpu-to-llvm)' | FileCheck %s --check-prefix=LLVM

// An elementwise kernel walks its share in vectors of the processor; the last, shorter one is masked.
// CHECK-LABEL: func.func private @scale_0_0(%{{.*}}: !llvm.ptr, %{{.*}}: i64, %{{.*}}: i64, %{{.*}}: !llvm.ptr, %{{.*}}: !llvm.ptr, %{{.*}}: !llvm.ptr)
// CHECK:         scf.for
// V3:              vector.load {{.*}} vector<32xf32>
// V4:              vector.load {{.*}} vector<64xf32>
// CHECK:         scf.if
// CHECK:           vector.create_mask
// CHECK:           vector.maskedload
// CHECK:           vector.maskedstore

// The launch names the buffers.
// CHECK-LABEL: func.func private @scale_0(%{{.*}}: !llvm.ptr, %{{.*}}: i64, %{{.*}}: i64, %{{.*}}: !llvm.ptr)
// CHECK:         call @scale_0_0(

// The entry launches through the host's table alone.
// CHECK-LABEL: func.func @m_scale(%{{.*}}: !llvm.ptr)
// CHECK:         %[[KERNEL:.*]] = {{.*}}constant @scale_0
// CHECK:         llvm.call %{{.*}} : !llvm.ptr, (!llvm.ptr, !llvm.ptr, i64, i32) -> ()
// CHECK-NOT:     llvm.call
// CHECK:         return

// A row's maximum: lanes first, then a fixed tree of halves.
// CHECK-LABEL: func.func private @row_max_0_0
// CHECK:         scf.for
// CHECK:           scf.for {{.*}} iter_args
// CHECK:           vector.extract_strided_slice
// CHECK:           vector.extract

// A draw is a call of a function that all draws of its kind share, in a scalar's stream.
// CHECK-LABEL: func.func private @draw_0_0
// CHECK:         call @dl.uniform_f32_{{[0-9]+}}
// A reshaped operand is read by row-major numbers, in vectors; a transposed one lane by lane, and the rest is in vectors.
// CHECK-LABEL: func.func private @moved_0_0
// V4:            vector.load {{.*}} vector<16xf32>
// V4-COUNT-16:   memref.load
// V4:            vector.from_elements
// V4:            arith.addf {{.*}} : vector<16xf32>

// Every second element is taken out of two vectors, of which the second ends with the last one. Nothing is masked but the rest.
// CHECK-LABEL: func.func private @every_second_0_0
// V4-COUNT-2:    vector.load {{.*}} vector<64xf32>
// V4-NEXT:       vector.shuffle {{.*}} [0, 2, 4, {{.*}}, 60, 62, 65, 67, {{.*}}, 127]
// V4-COUNT-2:    vector.maskedload
// V4-NEXT:       vector.shuffle

// Windows that step by two: whether a vector is inside is asked once, and masks are for those that are not.
// CHECK-LABEL: func.func private @pool_0_0
// V4:            scf.if
// V4:              scf.if
// V4-COUNT-2:        vector.load {{.*}} vector<16xf32>
// V4:                vector.shuffle
// V4:              } else {
// V4-COUNT-2:        vector.maskedload
// V4:                vector.shuffle

// CHECK:       func.func private @dl.uniform_f32_

// While a tile of a variable's gradient is computed, its part of the variable is brought into this core's cache, to be written: another core may have read it.
// CHECK-LABEL: func.func private @dl.tile_f32_
// CHECK:         memref.extract_aligned_pointer_as_index
// CHECK:         llvm.inline_asm has_side_effects "prefetchw ($0)"

// LLVM-NOT: dl.
// LLVM:     llvm.func @m_scale
dl.model @m dims ["N"] {
  dl.func @scale(%x: tensor<?xf32, affine_map<()[s0] -> (s0)>>) -> tensor<?xf32, affine_map<()[s0] -> (s0)>> {
    %two = dl.fill 2.0 : f64 : tensor<?xf32, affine_map<()[s0] -> (s0)>>
    %y = dl.mul %x, %two : tensor<?xf32, affine_map<()[s0] -> (s0)>>
    dl.return %y : tensor<?xf32, affine_map<()[s0] -> (s0)>>
  }
  dl.func @row_max(%x: tensor<?x100xf32, affine_map<()[s0] -> (s0, 100)>>) -> tensor<?xf32, affine_map<()[s0] -> (s0)>> {
    %y = dl.max %x [1] : tensor<?x100xf32, affine_map<()[s0] -> (s0, 100)>> -> tensor<?xf32, affine_map<()[s0] -> (s0)>>
    dl.return %y : tensor<?xf32, affine_map<()[s0] -> (s0)>>
  }
  dl.func @draw(%seed: tensor<i64>, %call: tensor<i64>, %x: tensor<256xf32>) -> tensor<256xf32> {
    %u = dl.uniform %seed, %call {stream = 7 : ui32} : tensor<256xf32>
    %y = dl.add %x, %u : tensor<256xf32>
    dl.return %y : tensor<256xf32>
  }
  dl.func @moved(%x: tensor<64x32xf32>, %y: tensor<2048xf32>) -> tensor<32x64xf32> {
    %across = dl.transpose %x [1, 0] : tensor<64x32xf32> -> tensor<32x64xf32>
    %other = dl.reshape %y : tensor<2048xf32> -> tensor<32x64xf32>
    %sum = dl.add %other, %across : tensor<32x64xf32>
    dl.return %sum : tensor<32x64xf32>
  }
  dl.func @every_second(%x: tensor<3x399xf32>) -> tensor<3x200xf32> {
    %y = dl.slice %x affine_map<() -> (0, 0)> [1, 2] : tensor<3x399xf32> -> tensor<3x200xf32>
    dl.return %y : tensor<3x200xf32>
  }
  dl.func @pool(%x: tensor<2x16x33xf32>) -> tensor<2x8x16xf32> {
    %w = dl.window %x affine_map<(n, k, l, p, q) -> (n, p * 2 + k - 1, q * 2 + l - 1)> over [1, 1, 1] else 0xFFF0000000000000 : tensor<2x16x33xf32> -> tensor<2x3x3x8x16xf32>
    %y = dl.max %w [1, 2] : tensor<2x3x3x8x16xf32> -> tensor<2x8x16xf32>
    dl.return %y : tensor<2x8x16xf32>
  }
  dl.variable trained @w : tensor<256x512xf32>
  dl.func @step(%x: tensor<64x256xf32>, %dy: tensor<64x512xf32>) -> tensor<64x512xf32> {
    %w = dl.read @w : tensor<256x512xf32>
    %y = dl.matmul %x, %w : tensor<64x256xf32>, tensor<256x512xf32> -> tensor<64x512xf32>
    %g = dl.matmul transposed %x, %dy : tensor<64x256xf32>, tensor<64x512xf32> -> tensor<256x512xf32>
    %next = dl.sub %w, %g : tensor<256x512xf32>
    dl.assign @w, %next : tensor<256x512xf32>
    dl.return %y : tensor<64x512xf32>
  }
}
