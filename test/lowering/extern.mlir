//===- extern.mlir - functions of the user's own, called -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-fuse,dl-plan-memory),cpu-emit-kernels{cpu=x86-64-v3})' | FileCheck %s --check-prefix=CPU
// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-fuse,dl-plan-memory),cpu-emit-kernels{cpu=x86-64-v3},cpu-to-llvm)' | FileCheck %s --check-prefix=LLVM
// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-fuse,dl-plan-memory),cuda-emit-kernels{print-launches})' -o /dev/null 2>&1 | FileCheck %s --check-prefix=CUDA

// Pointers to operands and results, then the sizes that are not constant, then the range. A wrapper for each set of constants.
// CPU:       func.func private @__dlc_f(!llvm.ptr, !llvm.ptr, i64, i64, i64)
// CPU:       func.func private @open_0_0(
// CPU:         call @__dlc_f(%{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}) : (!llvm.ptr, !llvm.ptr, i64, i64, i64) -> ()
// CPU:       func.func private @__dlc_f_1(!llvm.ptr, !llvm.ptr, i64, i64)
// CPU:       func.func private @closed_0_0(
// CPU:         call @__dlc_f_1(
// Without a range there is one task.
// CPU:       func.func private @alone_0_0(
// CPU:         call @__dlc_g(%{{.*}}, %{{.*}}) : (!llvm.ptr, !llvm.ptr) -> ()

// LLVM: llvm.func @__dlc_f(!llvm.ptr, !llvm.ptr, i64, i64, i64)

// The launch that the pragma asked for: its blocks; buffers of operands and results, then the sizes.
// CUDA:      function open
// CUDA-NEXT:   kernel __dlc_f f: {{.*}}N{{.*}} blocks, 0 1 N
// CUDA:      function closed
// CUDA-NEXT:   kernel __dlc_f_1 f: 1 blocks, 0 1
// CUDA:      function alone
// CUDA-NEXT:   kernel __dlc_g g: 3 blocks, 0 1
// Where a check may have found a fault, a function that writes a variable looks at it.
// CUDA:      function guarded
// CUDA:        kernel __dlc_g_1 g: 3 blocks, {{[0-9]+}} {{[0-9]+}} fault
#n = affine_map<()[s0] -> (s0)>
dl.model @m dims ["N"] {
  dl.variable state @v : tensor<8xf32>
  dl.extern_function @extern.f "f" cuda "f.cu" cpp "f.cpp"
  dl.extern_function @extern.g "g" cuda "f.cu" cpp "f.cpp"
  dl.func @open(%x: tensor<?xf32, #n>) -> tensor<?xf32, #n> {
    %y = dl.extern @extern.f(%x) sizes affine_map<()[s0] -> (s0, 3)> threads 128 blocks affine_map<()[s0] -> (s0 ceildiv 128)> parallel #n : (tensor<?xf32, #n>) -> tensor<?xf32, #n>
    dl.return %y : tensor<?xf32, #n>
  }
  dl.func @closed(%x: tensor<8xf32>) -> tensor<8xf32> {
    %y = dl.extern @extern.f(%x) sizes affine_map<() -> (8, 3)> threads 128 blocks affine_map<() -> (1)> parallel affine_map<() -> (8)> : (tensor<8xf32>) -> tensor<8xf32>
    dl.return %y : tensor<8xf32>
  }
  dl.func @alone(%x: tensor<8xf32>) -> tensor<8xf32> {
    %y = dl.extern @extern.g(%x) sizes affine_map<() -> (8)> threads 64 blocks affine_map<() -> (3)> : (tensor<8xf32>) -> tensor<8xf32>
    dl.return %y : tensor<8xf32>
  }
  dl.func @guarded(%x: tensor<8xf32>, %label: tensor<8xi32>) {
    dl.check_index %label below affine_map<() -> (4)> "label {value}" : tensor<8xi32>
    %y = dl.extern @extern.g(%x) sizes affine_map<() -> (8)> threads 64 blocks affine_map<() -> (3)> : (tensor<8xf32>) -> tensor<8xf32>
    dl.assign @v, %y : tensor<8xf32>
    dl.return
  }
}
