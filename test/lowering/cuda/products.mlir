//===- products.mlir - what cuBLASLt and the engine compute of kernels with products -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-fuse,dl-plan-memory),cuda-emit-kernels{print-launches})' -o /dev/null 2>&1 | FileCheck %s --check-prefix=AUTO
// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-fuse,dl-plan-memory),cuda-emit-kernels{print-launches gemm=own})' -o /dev/null 2>&1 | FileCheck %s --check-prefix=OWN
// RUN: dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-fuse,dl-plan-memory),cuda-emit-kernels{print-launches gemm=cublaslt tf32})' -o /dev/null 2>&1 | FileCheck %s --check-prefix=BLAS
// RUN: not dl-opt %s --pass-pipeline='builtin.module(dl.model(dl-fuse,dl-plan-memory),cuda-emit-kernels{gemm=mine})' -o /dev/null 2>&1 | FileCheck %s --check-prefix=MINE
// MINE: error: products are computed by auto, own or cublaslt, not 'mine'

// Both ways stand in the list; with cuBLASLt one call does it all.
// AUTO-LABEL: function layer
// AUTO-NEXT:    gemm matmul_add_relu with cublaslt: relu_bias, a 0, b 1, c none, d 3, alpha none, bias 2, aux none{{$}}
// AUTO-NEXT:    kernel layer_0 {{.*}} without cublaslt:
// OWN-LABEL:  function layer
// OWN-NEXT:     kernel layer_0 matmul_add_relu_chunks: {{[0-9]+}} blocks, 0 1 4{{$}}
// OWN-NEXT:     kernel layer_1 matmul_add_relu: 7 blocks, 0 1 4 2 3{{$}}
// OWN-NOT:      gemm
// BLAS-LABEL: function layer
// BLAS-NEXT:    gemm matmul_add_relu: relu_bias, a 0, b 1, c none, d 3, alpha none, bias 2, aux none, tf32{{$}}

// What has no epilogue is a kernel after the product, which lies in the arena.
// BLAS-LABEL: function other
// BLAS-NEXT:    gemm matmul_tanh: none, {{.*}} d [[D:[0-9]+]],
// BLAS-NEXT:    kernel other_0 matmul_tanh: 4 blocks, [[D]] 2{{$}}

// The gradient of relu takes the mask that the forward product wrote, and brings the sum for the bias's gradient; the updates of w1 and w2 are products in
// place, with factors that they share.
// BLAS-LABEL: function step
// BLAS-NEXT:    gemm matmul_add_relu: relu_aux_bias, {{.*}} d [[H:[0-9]+]], alpha none, bias [[B:[0-9]+]], aux [[MASK:[0-9]+]], tf32
// BLAS-NEXT:    gemm matmul_sub: none,
// BLAS-NEXT:    kernel {{.*}} matmul_sub:
// BLAS-NEXT:    gemm matmul_select: drelu_bgrad, {{.*}}, d [[DH:[0-9]+]], alpha none, bias [[SUM:[0-9]+]], aux [[MASK]], tf32
// BLAS-DAG:     kernel {{.*}} update_factors: 1 blocks, [[LR:[0-9]+]] [[ALPHA:[0-9]+]] {{[0-9]+}}{{$}}
// BLAS-DAG:     gemm matmul_mul_sub: none, a [[H]]^T, b {{[0-9]+}}, c [[W2:[0-9]+]], d [[W2]], alpha [[ALPHA]],
// BLAS-DAG:     gemm matmul_mul_sub: none, a {{[0-9]+}}^T, b [[DH]], c [[W1:[0-9]+]], d [[W1]], alpha [[ALPHA]],
// BLAS-DAG:     kernel {{.*}} sum_mul_sub: 1 blocks, [[B]] [[LR]] [[SUM]]{{$}}

// Without cuBLASLt the bias's gradient is summed where it was.
// AUTO-LABEL: function step
// AUTO:         kernel {{.*}} sum_mul_sub with cublaslt: 1 blocks
// AUTO-NEXT:    kernel {{.*}} sum_mul_sub without cublaslt: 13 blocks

// A sum that the plan puts first waits for the product that brings it.
// BLAS-LABEL: function gradients
// BLAS-NEXT:    gemm matmul: bgradb, a {{[0-9]}}^T, b {{[0-9]}}, {{.*}} bias [[S:[0-9]+]], aux none
// BLAS-NEXT:    kernel {{.*}} sum_exp: 1 blocks, [[S]] {{[0-9]+}}{{$}}

// An update of several tensors is the engine's own, in auto.
// AUTO-LABEL: function adam
// AUTO-NOT:     gemm
// AUTO:         kernel adam_0 {{[a-z_]*}}: {{.*}}

// gelu_tanh is an epilogue too. What its gradient needs is its operand: a result of the kernel, which is written where the plan has it if cuBLASLt takes rows of that length
// (a multiple of 8), and then by DGELU read there.
// BLAS-LABEL: function gelu
// BLAS-NEXT:    gemm matmul_gelu_tanh: gelu, a 0, b 1, c none, d 2, alpha none, bias none, aux none, tf32{{$}}
// BLAS-LABEL: function gelu_bias
// BLAS-NEXT:    gemm matmul_add_gelu_tanh: gelu_bias, a 0, b 1, c none, d 3, alpha none, bias 2, aux none, tf32{{$}}
// BLAS-LABEL: function gelu_step
// BLAS-NEXT:    gemm matmul_add_gelu_tanh: gelu_aux_bias, a 0, b 1, c none, d [[H:[0-9]+]], alpha none, bias 2, aux [[Z:[0-9]+]], tf32{{$}}
// BLAS-NEXT:    gemm matmul_sub: none,
// BLAS-NEXT:    kernel {{.*}} matmul_sub:
// BLAS-NEXT:    gemm matmul_mul_no_nan: dgelu_bgrad, {{.*}}, d [[DZ:[0-9]+]], alpha none, bias [[SUM:[0-9]+]], aux [[Z]], tf32{{$}}
// BLAS-NOT:     gelu_tanh_derivative
// BLAS-DAG:     gemm matmul: none, a 0^T, b [[DZ]],
// BLAS-DAG:     gemm matmul: none, a [[H]]^T,
// BLAS-DAG:     kernel {{.*}} sum{{[a-z_]*}}: {{.*}} [[SUM]] {{.*}}
// AUTO-LABEL: function gelu_step
// AUTO-NEXT:    gemm matmul_add_gelu_tanh with cublaslt: gelu_aux_bias, a 0, b 1, c none, d [[H:[0-9]+]], alpha none, bias 2, aux [[Z:[0-9]+]]{{$}}
// AUTO:         kernel {{.*}} matmul_add_gelu_tanh without cublaslt: {{.*}} [[Z]] [[H]]{{$}}
// AUTO:         gemm matmul_mul_no_nan with cublaslt: dgelu_bgrad, {{.*}} aux [[Z]]{{$}}
// AUTO:         kernel {{.*}} matmul_mul_no_nan without cublaslt: {{.*}} [[Z]] {{.*}}

// Rows of 100 elements are written in 104, beside the plan's buffer, if only products read them; else a kernel computes gelu_tanh.
// BLAS-LABEL: function gelu_padded
// BLAS-NEXT:    gemm matmul_gelu_tanh: gelu_aux, {{.*}}, bias none, aux [[Z:[0-9]+]], tf32{{$}}
// BLAS-NEXT:    gemm matmul_sub: none,
// BLAS-NEXT:    kernel {{.*}} matmul_sub:
// BLAS-NEXT:    gemm matmul_mul_no_nan: dgelu, {{.*}}, aux [[Z]], tf32{{$}}
// BLAS-LABEL: function gelu_read
// BLAS-NEXT:    gemm matmul_gelu_tanh: none, {{.*}} aux none, tf32{{$}}
// BLAS-NEXT:    kernel gelu_read_0 matmul_gelu_tanh: {{.*}}
// BLAS-LABEL: function gelu_read_whole
// BLAS-NEXT:    gemm matmul_gelu_tanh: gelu_aux, {{.*}}, d 3, {{.*}} aux 2, tf32{{$}}
// BLAS-NOT:     {{gemm|kernel}}
// cuBLASLt has no epilogues in f64.
// BLAS-LABEL: function gelu_f64
// BLAS-NEXT:    gemm matmul_gelu_tanh: none,
// BLAS-NEXT:    kernel gelu_f64_0 matmul_gelu_tanh: {{.*}}

dl.model @m dims [] {
  dl.variable trained @w1 : tensor<300x100xf32>
  dl.variable trained @b1 : tensor<100xf32>
  dl.variable trained @w2 : tensor<100x60xf32>
  dl.variable slot @v : tensor<100x60xf32>

  dl.func @layer(%x: tensor<64x300xf32>) -> tensor<64x100xf32> {
    %w = dl.read @w1 : tensor<300x100xf32>
    %b = dl.read @b1 : tensor<100xf32>
    %p = dl.matmul %x, %w : tensor<64x300xf32>, tensor<300x100xf32> -> tensor<64x100xf32>
    %r = dl.broadcast %b [1] : tensor<100xf32> -> tensor<64x100xf32>
    %s = dl.add %p, %r : tensor<64x100xf32>
    %y = dl.relu %s : tensor<64x100xf32>
    dl.return %y : tensor<64x100xf32>
  }

  dl.func @other(%x: tensor<64x100xf32>) -> tensor<64x60xf32> {
    %w = dl.read @w2 : tensor<100x60xf32>
    %p = dl.matmul %x, %w : tensor<64x100xf32>, tensor<100x60xf32> -> tensor<64x60xf32>
    %y = dl.tanh %p : tensor<64x60xf32>
    dl.return %y : tensor<64x60xf32>
  }

  dl.func @step(%x: tensor<64x300xf32>, %y: tensor<64x60xf32>, %lr: tensor<f32>) {
    %w1 = dl.read @w1 : tensor<300x100xf32>
    %b1 = dl.read @b1 : tensor<100xf32>
    %w2 = dl.read @w2 : tensor<100x60xf32>
    %p = dl.matmul %x, %w1 : tensor<64x300xf32>, tensor<300x100xf32> -> tensor<64x100xf32>
    %r = dl.broadcast %b1 [1] : tensor<100xf32> -> tensor<64x100xf32>
    %s = dl.add %p, %r : tensor<64x100xf32>
    %h = dl.relu %s : tensor<64x100xf32>
    %out = dl.matmul %h, %w2 : tensor<64x100xf32>, tensor<100x60xf32> -> tensor<64x60xf32>
    %dy = dl.sub %out, %y : tensor<64x60xf32>
    %q = dl.matmul %dy, transposed %w2 : tensor<64x60xf32>, tensor<100x60xf32> -> tensor<64x100xf32>
    %zero = dl.fill 0.0 : f64 : tensor<64x100xf32>
    %off = dl.compare le %h, %zero : tensor<64x100xf32> -> tensor<64x100xi1>
    %dh = dl.select %off, %zero, %q : tensor<64x100xi1>, tensor<64x100xf32>
    %g2 = dl.matmul transposed %h, %dy : tensor<64x100xf32>, tensor<64x60xf32> -> tensor<100x60xf32>
    %l2 = dl.broadcast %lr [] : tensor<f32> -> tensor<100x60xf32>
    %d2 = dl.mul %l2, %g2 : tensor<100x60xf32>
    %n2 = dl.sub %w2, %d2 : tensor<100x60xf32>
    %g1 = dl.matmul transposed %x, %dh : tensor<64x300xf32>, tensor<64x100xf32> -> tensor<300x100xf32>
    %l1 = dl.broadcast %lr [] : tensor<f32> -> tensor<300x100xf32>
    %d1 = dl.mul %l1, %g1 : tensor<300x100xf32>
    %n1 = dl.sub %w1, %d1 : tensor<300x100xf32>
    %gb = dl.sum %dh [0] : tensor<64x100xf32> -> tensor<100xf32>
    %lb = dl.broadcast %lr [] : tensor<f32> -> tensor<100xf32>
    %db = dl.mul %lb, %gb : tensor<100xf32>
    %nb = dl.sub %b1, %db : tensor<100xf32>
    dl.assign @w1, %n1 : tensor<300x100xf32>
    dl.assign @w2, %n2 : tensor<100x60xf32>
    dl.assign @b1, %nb : tensor<100xf32>
    dl.return
  }

  dl.func @gradients(%x: tensor<64x300xf32>, %dy: tensor<64x100xf32>) -> (tensor<100xf32>, tensor<300x100xf32>) {
    %s = dl.sum %dy [0] : tensor<64x100xf32> -> tensor<100xf32>
    %e = dl.exp %s : tensor<100xf32>
    %g = dl.matmul transposed %x, %dy : tensor<64x300xf32>, tensor<64x100xf32> -> tensor<300x100xf32>
    dl.return %e, %g : tensor<100xf32>, tensor<300x100xf32>
  }

  dl.func @adam(%x: tensor<64x100xf32>, %dy: tensor<64x60xf32>) {
    %w = dl.read @w2 : tensor<100x60xf32>
    %v = dl.read @v : tensor<100x60xf32>
    %g = dl.matmul transposed %x, %dy : tensor<64x100xf32>, tensor<64x60xf32> -> tensor<100x60xf32>
    %g2 = dl.mul %g, %g : tensor<100x60xf32>
    %nv = dl.add %v, %g2 : tensor<100x60xf32>
    %s = dl.sqrt %nv : tensor<100x60xf32>
    %u = dl.div %g, %s : tensor<100x60xf32>
    %nw = dl.sub %w, %u : tensor<100x60xf32>
    dl.assign @w2, %nw : tensor<100x60xf32>
    dl.assign @v, %nv : tensor<100x60xf32>
    dl.return
  }

  dl.func @gelu(%x: tensor<64x32xf32>, %w: tensor<32x100xf32>) -> tensor<64x100xf32> {
    %p = dl.matmul %x, %w : tensor<64x32xf32>, tensor<32x100xf32> -> tensor<64x100xf32>
    %y = dl.gelu_tanh %p : tensor<64x100xf32>
    dl.return %y : tensor<64x100xf32>
  }

  dl.func @gelu_bias(%x: tensor<64x32xf32>, %w: tensor<32x100xf32>, %b: tensor<100xf32>) -> tensor<64x100xf32> {
    %p = dl.matmul %x, %w : tensor<64x32xf32>, tensor<32x100xf32> -> tensor<64x100xf32>
    %r = dl.broadcast %b [1] : tensor<100xf32> -> tensor<64x100xf32>
    %z = dl.add %p, %r : tensor<64x100xf32>
    %y = dl.gelu_tanh %z : tensor<64x100xf32>
    dl.return %y : tensor<64x100xf32>
  }

  dl.func @gelu_step(%x: tensor<64x32xf32>, %w: tensor<32x96xf32>, %b: tensor<96xf32>, %w2: tensor<96x8xf32>, %y: tensor<64x8xf32>)
      -> (tensor<32x96xf32>, tensor<96xf32>, tensor<96x8xf32>) {
    %p = dl.matmul %x, %w : tensor<64x32xf32>, tensor<32x96xf32> -> tensor<64x96xf32>
    %r = dl.broadcast %b [1] : tensor<96xf32> -> tensor<64x96xf32>
    %z = dl.add %p, %r : tensor<64x96xf32>
    %h = dl.gelu_tanh %z : tensor<64x96xf32>
    %out = dl.matmul %h, %w2 : tensor<64x96xf32>, tensor<96x8xf32> -> tensor<64x8xf32>
    %dy = dl.sub %out, %y : tensor<64x8xf32>
    %q = dl.matmul %dy, transposed %w2 : tensor<64x8xf32>, tensor<96x8xf32> -> tensor<64x96xf32>
    %d = dl.gelu_tanh_derivative %z : tensor<64x96xf32>
    %dz = dl.mul_no_nan %d, %q : tensor<64x96xf32>
    %g2 = dl.matmul transposed %h, %dy : tensor<64x96xf32>, tensor<64x8xf32> -> tensor<96x8xf32>
    %g1 = dl.matmul transposed %x, %dz : tensor<64x32xf32>, tensor<64x96xf32> -> tensor<32x96xf32>
    %gb = dl.sum %dz [0] : tensor<64x96xf32> -> tensor<96xf32>
    %eb = dl.exp %gb : tensor<96xf32>
    dl.return %g1, %eb, %g2 : tensor<32x96xf32>, tensor<96xf32>, tensor<96x8xf32>
  }

  dl.func @gelu_padded(%x: tensor<64x32xf32>, %w: tensor<32x100xf32>, %w2: tensor<100x8xf32>, %y: tensor<64x8xf32>) -> (tensor<64x100xf32>, tensor<64x100xf32>) {
    %z = dl.matmul %x, %w : tensor<64x32xf32>, tensor<32x100xf32> -> tensor<64x100xf32>
    %h = dl.gelu_tanh %z : tensor<64x100xf32>
    %out = dl.matmul %h, %w2 : tensor<64x100xf32>, tensor<100x8xf32> -> tensor<64x8xf32>
    %dy = dl.sub %out, %y : tensor<64x8xf32>
    %q = dl.matmul %dy, transposed %w2 : tensor<64x8xf32>, tensor<100x8xf32> -> tensor<64x100xf32>
    %d = dl.gelu_tanh_derivative %z : tensor<64x100xf32>
    %dz = dl.mul_no_nan %d, %q : tensor<64x100xf32>
    dl.return %h, %dz : tensor<64x100xf32>, tensor<64x100xf32>
  }

  dl.func @gelu_read(%x: tensor<64x32xf32>, %w: tensor<32x100xf32>) -> (tensor<64x100xf32>, tensor<64x100xf32>) {
    %z = dl.matmul %x, %w : tensor<64x32xf32>, tensor<32x100xf32> -> tensor<64x100xf32>
    %h = dl.gelu_tanh %z : tensor<64x100xf32>
    dl.return %z, %h : tensor<64x100xf32>, tensor<64x100xf32>
  }

  dl.func @gelu_read_whole(%x: tensor<64x32xf32>, %w: tensor<32x96xf32>) -> (tensor<64x96xf32>, tensor<64x96xf32>) {
    %z = dl.matmul %x, %w : tensor<64x32xf32>, tensor<32x96xf32> -> tensor<64x96xf32>
    %h = dl.gelu_tanh %z : tensor<64x96xf32>
    dl.return %z, %h : tensor<64x96xf32>, tensor<64x96xf32>
  }

  dl.func @gelu_f64(%x: tensor<64x32xf64>, %w: tensor<32x96xf64>) -> tensor<64x96xf64> {
    %z = dl.matmul %x, %w : tensor<64x32xf64>, tensor<32x96xf64> -> tensor<64x96xf64>
    %h = dl.gelu_tanh %z : tensor<64x96xf64>
    dl.return %h : tensor<64x96xf64>
  }
}
