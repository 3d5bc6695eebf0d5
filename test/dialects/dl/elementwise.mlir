//===- elementwise.mlir - every elementwise op, parsed and printed -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s --verify-roundtrip | FileCheck %s

// CHECK-LABEL: dl.func @elementwise
dl.model @m dims [] {
  dl.func @elementwise(%x: tensor<4xf32>, %i: tensor<4xi32>, %b: tensor<4xi1>) {
    // CHECK-NEXT: dl.neg %{{.*}} : tensor<4xf32>
    %0 = dl.neg %x : tensor<4xf32>
    // CHECK-NEXT: dl.abs %{{.*}} : tensor<4xf32>
    %1 = dl.abs %x : tensor<4xf32>
    // CHECK-NEXT: dl.sign %{{.*}} : tensor<4xf32>
    %2 = dl.sign %x : tensor<4xf32>
    // CHECK-NEXT: dl.exp %{{.*}} : tensor<4xf32>
    %3 = dl.exp %x : tensor<4xf32>
    // CHECK-NEXT: dl.log %{{.*}} : tensor<4xf32>
    %4 = dl.log %x : tensor<4xf32>
    // CHECK-NEXT: dl.sqrt %{{.*}} : tensor<4xf32>
    %5 = dl.sqrt %x : tensor<4xf32>
    // CHECK-NEXT: dl.rsqrt %{{.*}} : tensor<4xf32>
    %6 = dl.rsqrt %x : tensor<4xf32>
    // CHECK-NEXT: dl.tanh %{{.*}} : tensor<4xf32>
    %7 = dl.tanh %x : tensor<4xf32>
    // CHECK-NEXT: dl.erf %{{.*}} : tensor<4xf32>
    %8 = dl.erf %x : tensor<4xf32>
    // CHECK-NEXT: dl.sin %{{.*}} : tensor<4xf32>
    %9 = dl.sin %x : tensor<4xf32>
    // CHECK-NEXT: dl.cos %{{.*}} : tensor<4xf32>
    %10 = dl.cos %x : tensor<4xf32>
    // CHECK-NEXT: dl.sigmoid %{{.*}} : tensor<4xf32>
    %11 = dl.sigmoid %x : tensor<4xf32>
    // CHECK-NEXT: dl.relu %{{.*}} : tensor<4xf32>
    %12 = dl.relu %x : tensor<4xf32>
    // CHECK-NEXT: dl.gelu %{{.*}} : tensor<4xf32>
    %13 = dl.gelu %x : tensor<4xf32>
    // CHECK-NEXT: dl.gelu_tanh %{{.*}} : tensor<4xf32>
    %gelu_tanh = dl.gelu_tanh %x : tensor<4xf32>
    // CHECK-NEXT: dl.gelu_tanh_derivative %{{.*}} : tensor<4xf32>
    %gelu_tanh_derivative = dl.gelu_tanh_derivative %x : tensor<4xf32>
    // CHECK-NEXT: dl.silu %{{.*}} : tensor<4xf32>
    %14 = dl.silu %x : tensor<4xf32>
    // CHECK-NEXT: dl.softplus %{{.*}} : tensor<4xf32>
    %15 = dl.softplus %x : tensor<4xf32>
    // CHECK-NEXT: dl.round %{{.*}} : tensor<4xf32>
    %16 = dl.round %x : tensor<4xf32>
    // CHECK-NEXT: dl.floor %{{.*}} : tensor<4xf32>
    %17 = dl.floor %x : tensor<4xf32>
    // CHECK-NEXT: dl.not %{{.*}} : tensor<4xi1>
    %18 = dl.not %b : tensor<4xi1>
    // CHECK-NEXT: dl.stop_gradient %{{.*}} : tensor<4xf32>
    %19 = dl.stop_gradient %x : tensor<4xf32>
    // CHECK-NEXT: dl.add %{{.*}}, %{{.*}} : tensor<4xf32>
    %20 = dl.add %x, %x : tensor<4xf32>
    // CHECK-NEXT: dl.sub %{{.*}}, %{{.*}} : tensor<4xf32>
    %21 = dl.sub %x, %x : tensor<4xf32>
    // CHECK-NEXT: dl.mul %{{.*}}, %{{.*}} : tensor<4xf32>
    %22 = dl.mul %x, %x : tensor<4xf32>
    // CHECK-NEXT: dl.mul_no_nan %{{.*}}, %{{.*}} : tensor<4xf32>
    %23 = dl.mul_no_nan %x, %x : tensor<4xf32>
    // CHECK-NEXT: dl.div %{{.*}}, %{{.*}} : tensor<4xf32>
    %24 = dl.div %x, %x : tensor<4xf32>
    // CHECK-NEXT: dl.div_no_nan %{{.*}}, %{{.*}} : tensor<4xf32>
    %25 = dl.div_no_nan %x, %x : tensor<4xf32>
    // CHECK-NEXT: dl.rem %{{.*}}, %{{.*}} : tensor<4xf32>
    %26 = dl.rem %x, %x : tensor<4xf32>
    // CHECK-NEXT: dl.floor_divide %{{.*}}, %{{.*}} : tensor<4xf32>
    %27 = dl.floor_divide %x, %x : tensor<4xf32>
    // CHECK-NEXT: dl.pow %{{.*}}, %{{.*}} : tensor<4xf32>
    %28 = dl.pow %x, %x : tensor<4xf32>
    // CHECK-NEXT: dl.maximum %{{.*}}, %{{.*}} : tensor<4xf32>
    %29 = dl.maximum %x, %x : tensor<4xf32>
    // CHECK-NEXT: dl.minimum %{{.*}}, %{{.*}} : tensor<4xf32>
    %30 = dl.minimum %x, %x : tensor<4xf32>
    // CHECK-NEXT: dl.and %{{.*}}, %{{.*}} : tensor<4xi1>
    %31 = dl.and %b, %b : tensor<4xi1>
    // CHECK-NEXT: dl.or %{{.*}}, %{{.*}} : tensor<4xi1>
    %32 = dl.or %b, %b : tensor<4xi1>
    // CHECK-NEXT: dl.add %{{.*}}, %{{.*}} : tensor<4xi32>
    %33 = dl.add %i, %i : tensor<4xi32>
    // CHECK-NEXT: dl.sub %{{.*}}, %{{.*}} : tensor<4xi32>
    %34 = dl.sub %i, %i : tensor<4xi32>
    // CHECK-NEXT: dl.mul %{{.*}}, %{{.*}} : tensor<4xi32>
    %35 = dl.mul %i, %i : tensor<4xi32>
    // CHECK-NEXT: dl.rem %{{.*}}, %{{.*}} : tensor<4xi32>
    %36 = dl.rem %i, %i : tensor<4xi32>
    // CHECK-NEXT: dl.floor_divide %{{.*}}, %{{.*}} : tensor<4xi32>
    %37 = dl.floor_divide %i, %i : tensor<4xi32>
    // CHECK-NEXT: dl.maximum %{{.*}}, %{{.*}} : tensor<4xi32>
    %38 = dl.maximum %i, %i : tensor<4xi32>
    // CHECK-NEXT: dl.minimum %{{.*}}, %{{.*}} : tensor<4xi32>
    %39 = dl.minimum %i, %i : tensor<4xi32>
    // CHECK-NEXT: dl.compare eq %{{.*}}, %{{.*}} : tensor<4xf32> -> tensor<4xi1>
    %40 = dl.compare eq %x, %x : tensor<4xf32> -> tensor<4xi1>
    // CHECK-NEXT: dl.compare ne %{{.*}}, %{{.*}} : tensor<4xf32> -> tensor<4xi1>
    %41 = dl.compare ne %x, %x : tensor<4xf32> -> tensor<4xi1>
    // CHECK-NEXT: dl.compare lt %{{.*}}, %{{.*}} : tensor<4xf32> -> tensor<4xi1>
    %42 = dl.compare lt %x, %x : tensor<4xf32> -> tensor<4xi1>
    // CHECK-NEXT: dl.compare le %{{.*}}, %{{.*}} : tensor<4xf32> -> tensor<4xi1>
    %43 = dl.compare le %x, %x : tensor<4xf32> -> tensor<4xi1>
    // CHECK-NEXT: dl.compare gt %{{.*}}, %{{.*}} : tensor<4xf32> -> tensor<4xi1>
    %44 = dl.compare gt %x, %x : tensor<4xf32> -> tensor<4xi1>
    // CHECK-NEXT: dl.compare ge %{{.*}}, %{{.*}} : tensor<4xf32> -> tensor<4xi1>
    %45 = dl.compare ge %x, %x : tensor<4xf32> -> tensor<4xi1>
    // CHECK-NEXT: dl.select %{{.*}}, %{{.*}}, %{{.*}} : tensor<4xi1>, tensor<4xf32>
    %46 = dl.select %b, %x, %x : tensor<4xi1>, tensor<4xf32>
    // CHECK-NEXT: dl.convert %{{.*}} : tensor<4xf32> -> tensor<4xf64>
    %47 = dl.convert %x : tensor<4xf32> -> tensor<4xf64>
    // CHECK-NEXT: dl.round_to bf16 %{{.*}} : tensor<4xf32>
    %48 = dl.round_to bf16 %x : tensor<4xf32>
    // CHECK-NEXT: dl.round_to f16 %{{.*}} : tensor<4xf32>
    %49 = dl.round_to f16 %x : tensor<4xf32>
    dl.return
  }
}
