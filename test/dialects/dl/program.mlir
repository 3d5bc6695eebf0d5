//===- program.mlir - models, variables, functions, gradients, checks, fusions, parsed and printed -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s --verify-roundtrip | FileCheck %s

// CHECK: dl.model @m dims ["N"] attributes {doc = "a model"}
dl.model @m dims ["N"] attributes {doc = "a model"} {
  // CHECK-NEXT: dl.variable trained @net.0.weight : tensor<4x5xf32>
  dl.variable trained @net.0.weight : tensor<4x5xf32>
  // CHECK-NEXT: dl.variable state @best : tensor<f32>
  dl.variable state @best : tensor<f32>
  // CHECK-NEXT: dl.variable slot @step.lr : tensor<f64>
  dl.variable slot @step.lr : tensor<f64>
  // CHECK-NEXT: dl.variable random @random.seed : tensor<i64>
  dl.variable random @random.seed : tensor<i64>
  // CHECK-NEXT: dl.func @f(%{{.*}}: tensor<f32> {dl.default = 5.000000e-01 : f64, dl.name = "x"}) -> (tensor<f32> {dl.name = "loss"}) attributes {train}
  dl.func @f(%x: tensor<f32> {dl.name = "x", dl.default = 0.5}) -> (tensor<f32> {dl.name = "loss"}) attributes {train} {
    // CHECK-NEXT: dl.read @best : tensor<f32>
    %b = dl.read @best : tensor<f32>
    // CHECK-NEXT: dl.mul
    %y = dl.mul %x, %b : tensor<f32>
    // CHECK-NEXT: dl.gradient %{{.*}} wrt %{{.*}}, %{{.*}} : (tensor<f32>, tensor<f32>, tensor<f32>) -> (tensor<f32>, tensor<f32>)
    %g:2 = dl.gradient %y wrt %x, %b : (tensor<f32>, tensor<f32>, tensor<f32>) -> (tensor<f32>, tensor<f32>)
    // CHECK-NEXT: dl.assign @best, %{{.*}} : tensor<f32>
    dl.assign @best, %g#1 : tensor<f32>
    // CHECK-NEXT: dl.return %{{.*}} : tensor<f32>
    dl.return %y : tensor<f32>
  }
  // CHECK-LABEL: dl.func @checks
  dl.func @checks(%label: tensor<?xi32, affine_map<()[s0] -> (s0)>>) {
    // CHECK-NEXT: dl.check_size #{{.*}} "gt" #{{.*}} "more than one"
    dl.check_size affine_map<()[s0] -> (s0)> "gt" affine_map<() -> (1)> "more than one"
    // CHECK-NEXT: dl.check_index %{{.*}} below #{{.*}} or -100 "label {value}" : tensor<?xi32, #{{.*}}>
    dl.check_index %label below affine_map<() -> (10)> or -100 "label {value}" : tensor<?xi32, affine_map<()[s0] -> (s0)>>
    // CHECK-NEXT: dl.check_index %{{.*}} either side below #{{.*}} "index {value}" : tensor<?xi32, #{{.*}}>
    dl.check_index %label either side below affine_map<() -> (10)> "index {value}" : tensor<?xi32, affine_map<()[s0] -> (s0)>>
    dl.return
  }
  // CHECK: dl.extern_function @extern.swish "swish" cuda "swish.cu" cpp "swish.cpp"
  dl.extern_function @extern.swish "swish" cuda "swish.cu" cpp "swish.cpp"
  // CHECK-NEXT: dl.extern_function @extern.top "top" cpp "top.cpp"
  dl.extern_function @extern.top "top" cpp "top.cpp"
  // CHECK-LABEL: dl.func @own
  dl.func @own(%x: tensor<?xf32, affine_map<()[s0] -> (s0)>>) -> (tensor<?xf32, affine_map<()[s0] -> (s0)>>, tensor<i32>) {
    // CHECK-NEXT: dl.extern @extern.swish(%{{.*}}) sizes #{{.*}} threads 128 blocks #{{.*}} shared 64 parallel #{{.*}} : (tensor<?xf32, #{{.*}}>) -> tensor<?xf32, #{{.*}}>
    %y = dl.extern @extern.swish(%x) sizes affine_map<()[s0] -> (s0)> threads 128 blocks affine_map<()[s0] -> (s0 ceildiv 128)> shared 64 parallel affine_map<()[s0] -> (s0)>
      : (tensor<?xf32, affine_map<()[s0] -> (s0)>>) -> tensor<?xf32, affine_map<()[s0] -> (s0)>>
    // CHECK-NEXT: dl.extern @extern.top(%{{.*}}) threads 256 blocks #{{.*}} : (tensor<?xf32, #{{.*}}>) -> (tensor<f32>, tensor<i32>)
    %t:2 = dl.extern @extern.top(%y) threads 256 blocks affine_map<() -> (1)> : (tensor<?xf32, affine_map<()[s0] -> (s0)>>) -> (tensor<f32>, tensor<i32>)
    // CHECK-NEXT: dl.custom_gradient %{{.*}}, %{{.*}} wrt %{{.*}} {
    %z:2 = dl.custom_gradient %y, %t#1 wrt %x {
    // CHECK-NEXT: ^bb0(%[[DY:.*]]: tensor<?xf32, #{{.*}}>):
    ^bb0(%dy: tensor<?xf32, affine_map<()[s0] -> (s0)>>):
      // CHECK-NEXT: dl.yield %[[DY]]
      dl.yield %dy : tensor<?xf32, affine_map<()[s0] -> (s0)>>
    // CHECK-NEXT: } : tensor<?xf32, #{{.*}}>, tensor<i32> wrt tensor<?xf32, #{{.*}}>
    } : tensor<?xf32, affine_map<()[s0] -> (s0)>>, tensor<i32> wrt tensor<?xf32, affine_map<()[s0] -> (s0)>>
    dl.return %z#0, %z#1 : tensor<?xf32, affine_map<()[s0] -> (s0)>>, tensor<i32>
  }
  // CHECK-LABEL: dl.func @fusion
  dl.func @fusion(%x: tensor<8xf32>) -> tensor<8xf32> {
    // CHECK-NEXT: dl.fused "loop"(%{{.*}})
    %y = dl.fused "loop"(%x) {
    ^bb0(%a: tensor<8xf32>):
      // CHECK: dl.yield %{{.*}} : tensor<8xf32>
      %e = dl.exp %a : tensor<8xf32>
      dl.yield %e : tensor<8xf32>
    } : (tensor<8xf32>) -> tensor<8xf32>
    dl.return %y : tensor<8xf32>
  }
  // CHECK-LABEL: dl.func @control
  dl.func @control(%x: tensor<8xf32>, %c: tensor<i1>, %n: tensor<i64>) -> tensor<8xf32> {
    // CHECK-NEXT: dl.for from #{{.*}} to #{{.*}} limit %{{.*}}(%{{.*}}) {
    %y = dl.for from affine_map<() -> (0)> to affine_map<()[s0] -> (s0)> limit %n (%x) {
    // CHECK-NEXT: ^bb0(%{{.*}}: tensor<i64>, %{{.*}}: tensor<8xf32>):
    ^bb0(%t: tensor<i64>, %a: tensor<8xf32>):
      // CHECK-NEXT: dl.if %{{.*}} {
      %q = dl.if %c {
        // CHECK-NEXT: dl.exp
        %e = dl.exp %a : tensor<8xf32>
        // CHECK-NEXT: dl.yield %{{.*}} : tensor<8xf32>
        dl.yield %e : tensor<8xf32>
      // CHECK-NEXT: } else {
      } else {
        // CHECK-NEXT: dl.yield %{{.*}} : tensor<8xf32>
        dl.yield %a : tensor<8xf32>
      // CHECK-NEXT: } : tensor<8xf32>
      } : tensor<8xf32>
      // CHECK-NEXT: dl.yield %{{.*}} : tensor<8xf32>
      dl.yield %q : tensor<8xf32>
    // CHECK-NEXT: } : (tensor<8xf32>) -> tensor<8xf32>
    } : (tensor<8xf32>) -> tensor<8xf32>
    // CHECK-NEXT: dl.for from #{{.*}} while(%{{.*}}, %{{.*}}) {
    %z:2 = dl.for from affine_map<() -> (0)> while (%c, %y) {
    ^bb0(%t: tensor<i64>, %go: tensor<i1>, %a: tensor<8xf32>):
      dl.yield %go, %a : tensor<i1>, tensor<8xf32>
    } : (tensor<i1>, tensor<8xf32>) -> (tensor<i1>, tensor<8xf32>)
    dl.return %z#1 : tensor<8xf32>
  }
}
