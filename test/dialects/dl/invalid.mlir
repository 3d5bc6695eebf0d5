//===- invalid.mlir - what the verifiers refuse -===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// RUN: dl-opt %s -split-input-file -verify-diagnostics

dl.model @m dims ["N"] {
  dl.variable state @v : tensor<2xf32>
  dl.func @fill_type(%x: tensor<3x4xf32>, %y: tensor<4xf32>, %z: tensor<3x5xf32>) {
    // expected-error@+1 {{fills 'tensor<4xf32>' with a number of type 'i64'; expected f64}}
    %0 = dl.fill 1 : i64 : tensor<4xf32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.variable state @v : tensor<2xf32>
  dl.func @constant_type(%x: tensor<3x4xf32>, %y: tensor<4xf32>, %z: tensor<3x5xf32>) {
    // expected-error@+1 {{has numbers of type 'tensor<2xf32>' for a result of type 'tensor<3xf32>'}}
    %0 = dl.constant dense<1.0> : tensor<2xf32> : tensor<3xf32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.variable state @v : tensor<2xf32>
  dl.func @size_rank(%x: tensor<3x4xf32>, %y: tensor<4xf32>, %z: tensor<3x5xf32>) {
    // expected-error@+1 {{needs one size and a scalar result}}
    %0 = dl.size affine_map<()[s0] -> (s0)> : tensor<2xf64>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.variable state @v : tensor<2xf32>
  dl.func @iota_axis(%x: tensor<3x4xf32>, %y: tensor<4xf32>, %z: tensor<3x5xf32>) {
    // expected-error@+1 {{counts along axis 2 of a tensor of rank 2}}
    %0 = dl.iota 2 : tensor<2x3xi32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.variable state @v : tensor<2xf32>
  dl.func @randint_range(%x: tensor<3x4xf32>, %y: tensor<4xf32>, %z: tensor<3x5xf32>) {
    %s = dl.fill 0 : i64 : tensor<i64>
    // expected-error@+1 {{draws from [5, 5), which must hold between 1 and 2^32 - 1 numbers}}
    %0 = dl.randint %s, %s {high = 5 : i64, low = 5 : i64, stream = 3 : ui32} : tensor<8xi32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.variable state @v : tensor<2xf32>
  dl.func @broadcast_size(%x: tensor<3x4xf32>, %y: tensor<4xf32>, %z: tensor<3x5xf32>) {
    // expected-error@+1 {{operand dimension 0 of size 4 does not fit result dimension 0 of size 3}}
    %0 = dl.broadcast %y [0] : tensor<4xf32> -> tensor<3x4xf32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.variable state @v : tensor<2xf32>
  dl.func @broadcast_order(%x: tensor<3x4xf32>, %y: tensor<4xf32>, %z: tensor<3x5xf32>) {
    // expected-error@+1 {{axis 0 is out of order or beyond rank 2}}
    %0 = dl.broadcast %x [1, 0] : tensor<3x4xf32> -> tensor<4x3xf32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.variable state @v : tensor<2xf32>
  dl.func @assume_shape(%x: tensor<3x4xf32>, %y: tensor<4xf32>, %z: tensor<3x5xf32>) {
    // expected-error@+1 {{takes 'tensor<3x4xf32>' for 'tensor<3x5xf32>', which it can never be}}
    %0 = dl.assume_shape %x : tensor<3x4xf32> -> tensor<3x5xf32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.variable state @v : tensor<2xf32>
  dl.func @reshape_count(%x: tensor<3x4xf32>, %y: tensor<4xf32>, %z: tensor<3x5xf32>) {
    // expected-error@+1 {{reshapes 12 elements of 'tensor<3x4xf32>' to 10 of 'tensor<10xf32>'}}
    %0 = dl.reshape %x : tensor<3x4xf32> -> tensor<10xf32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.variable state @v : tensor<2xf32>
  dl.func @transpose_axis(%x: tensor<3x4xf32>, %y: tensor<4xf32>, %z: tensor<3x5xf32>) {
    // expected-error@+2 {{axis 1 is out of range or named twice in a permutation}}
    // expected-error@+1 {{failed to infer returned types}}
    %0 = dl.transpose %x [1, 1] : tensor<3x4xf32> -> tensor<4x4xf32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.variable state @v : tensor<2xf32>
  dl.func @slice_beyond(%x: tensor<3x4xf32>, %y: tensor<4xf32>, %z: tensor<3x5xf32>) {
    // expected-error@+1 {{reads elements 2 to 4 of dimension 0 of size 4}}
    %0 = dl.slice %y affine_map<() -> (2)> [1] : tensor<4xf32> -> tensor<3xf32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.variable state @v : tensor<2xf32>
  dl.func @slice_stride(%x: tensor<3x4xf32>, %y: tensor<4xf32>, %z: tensor<3x5xf32>) {
    // expected-error@+1 {{has stride 0 in dimension 0}}
    %0 = dl.slice %y affine_map<() -> (0)> [0] : tensor<4xf32> -> tensor<3xf32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.func @gather_count(%x: tensor<3x4xf32>, %i: tensor<2xi32>, %j: tensor<2xi64>) {
    // expected-error@+2 {{indexes 2 axes by 1 tensors; expected one for each of one or more axes}}
    // expected-error@+1 {{failed to infer returned types}}
    %0 = dl.gather %x [0, 1] at %i from 0 : (tensor<3x4xf32>, tensor<2xi32>) -> tensor<2xf32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.func @gather_types(%x: tensor<3x4xf32>, %i: tensor<2xi32>, %j: tensor<2xi64>) {
    // expected-error@+2 {{has indices of type 'tensor<2xi32>' and 'tensor<2xi64>'}}
    // expected-error@+1 {{failed to infer returned types}}
    %0 = dl.gather %x [0, 1] at %i, %j from 0 : (tensor<3x4xf32>, tensor<2xi32>, tensor<2xi64>) -> tensor<2xf32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.func @gather_axis(%x: tensor<3x4xf32>, %i: tensor<2xi32>, %j: tensor<2xi64>) {
    // expected-error@+2 {{indexes axis 2 of a tensor of rank 2 after axis -1}}
    // expected-error@+1 {{failed to infer returned types}}
    %0 = dl.gather %x [2] at %i from 0 : (tensor<3x4xf32>, tensor<2xi32>) -> tensor<2x4xf32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.func @gather_position(%x: tensor<3x4xf32>, %i: tensor<2xi32>, %j: tensor<2xi64>) {
    // expected-error@+2 {{has the axes of the indices from position 2 on, among 1 others}}
    // expected-error@+1 {{failed to infer returned types}}
    %0 = dl.gather %x [0] at %i from 2 : (tensor<3x4xf32>, tensor<2xi32>) -> tensor<2x4xf32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.func @scatter_updates(%x: tensor<3x4xf32>, %i: tensor<2xi32>, %j: tensor<2xi64>) {
    // expected-error@+1 {{changes 'tensor<3x4xf32>' by updates of type 'tensor<3x4xf32>'; expected 'tensor<2x4xf32>'}}
    %0 = dl.scatter_add %x [0] at %i from 0 with %x : (tensor<3x4xf32>, tensor<3x4xf32>, tensor<2xi32>) -> tensor<3x4xf32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.variable state @v : tensor<2xf32>
  dl.func @concat_sizes(%x: tensor<3x4xf32>, %y: tensor<4xf32>, %z: tensor<3x5xf32>) {
    // expected-error@+2 {{concatenates sizes 4 and 5 in dimension 1}}
    // expected-error@+1 {{failed to infer returned types}}
    %0 = dl.concat %x, %z axis 0 : tensor<3x4xf32>, tensor<3x5xf32> -> tensor<6x4xf32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.variable state @v : tensor<2xf32>
  dl.func @sum_axis(%x: tensor<3x4xf32>, %y: tensor<4xf32>, %z: tensor<3x5xf32>) {
    // expected-error@+2 {{reduces axis 2 of a tensor of rank 2; axes must be increasing and in range}}
    // expected-error@+1 {{failed to infer returned types}}
    %0 = dl.sum %x [2] : tensor<3x4xf32> -> tensor<3xf32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.variable state @v : tensor<2xf32>
  dl.func @matmul_contraction(%x: tensor<3x4xf32>, %y: tensor<4xf32>, %z: tensor<3x5xf32>) {
    // expected-error@+2 {{contracts lhs dimension of size 4 with rhs dimension of size 3}}
    // expected-error@+1 {{failed to infer returned types}}
    %0 = dl.matmul %x, %z : tensor<3x4xf32>, tensor<3x5xf32> -> tensor<3x5xf32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.variable state @v : tensor<2xf32>
  dl.func @softmax_axis(%x: tensor<3x4xf32>, %y: tensor<4xf32>, %z: tensor<3x5xf32>) {
    // expected-error@+1 {{works along axis 2 of a tensor of rank 2}}
    %0 = dl.softmax %x axis 2 : tensor<3x4xf32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.variable state @v : tensor<2xf32>
  dl.func @cross_entropy_labels(%x: tensor<3x4xf32>, %y: tensor<4xf32>, %z: tensor<3x5xf32>) {
    %l = dl.fill 0 : i64 : tensor<4xi32>
    // expected-error@+1 {{has labels of type 'tensor<4xi32>' for scores of type 'tensor<3x4xf32>'}}
    %0 = dl.cross_entropy %x, %l : tensor<3x4xf32>, tensor<4xi32> -> tensor<3xf32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.variable state @v : tensor<2xf32>
  dl.func @read_unknown(%x: tensor<3x4xf32>, %y: tensor<4xf32>, %z: tensor<3x5xf32>) {
    // expected-error@+1 {{names @nobody, which is no variable of the model}}
    %0 = dl.read @nobody : tensor<4xf32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  // expected-note@+1 {{the variable is declared here}}
  dl.variable state @v : tensor<2xf32>
  dl.func @assign_type(%x: tensor<3x4xf32>, %y: tensor<4xf32>, %z: tensor<3x5xf32>) {
    // expected-error@+1 {{has type 'tensor<4xf32>' for the variable @v of type 'tensor<2xf32>'}}
    dl.assign @v, %y : tensor<4xf32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.variable state @v : tensor<2xf32>
  dl.func @gradient_of_many(%x: tensor<3x4xf32>, %y: tensor<4xf32>, %z: tensor<3x5xf32>) {
    // expected-error@+1 {{differentiates a value of type 'tensor<4xf32>'; expected one number}}
    %0 = dl.gradient %y wrt %x : (tensor<4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  dl.variable state @v : tensor<2xf32>
  dl.func @check_size_predicate(%x: tensor<3x4xf32>, %y: tensor<4xf32>, %z: tensor<3x5xf32>) {
    // expected-error@+1 {{has the unknown predicate 'near'}}
    dl.check_size affine_map<() -> (1)> "near" affine_map<() -> (1)> "words"
    dl.return
  }
}

// -----

dl.model @m dims ["N"] {
  // expected-error@+1 {{@h has type 'tensor<?xf32, affine_map<()[s0] -> (s0)>>'; a variable's shape must be known at compile time}}
  dl.variable state @h : tensor<?xf32, affine_map<()[s0] -> (s0)>>
}

// -----

dl.model @m dims [] {
  dl.func @returns(%x: tensor<4xf32>) -> tensor<3xf32> {
    // expected-error@+1 {{from a function that declares}}
    dl.return %x : tensor<4xf32>
  }
}

// -----

dl.model @m dims [] {
  dl.func @yields(%x: tensor<4xf32>) -> tensor<4xf32> {
    // expected-error@+1 {{has inputs}}
    %y = dl.fused "loop"(%x) {
    ^bb0(%a: tensor<3xf32>):
      dl.yield %a : tensor<3xf32>
    } : (tensor<4xf32>) -> tensor<4xf32>
    dl.return %y : tensor<4xf32>
  }
}

// -----

dl.model @m dims [] {
  // expected-error@+1 {{@f has no file}}
  dl.extern_function @f "f"
}

// -----

dl.model @m dims [] {
  dl.func @unknown(%x: tensor<4xf32>) -> tensor<4xf32> {
    // expected-error@+1 {{names @f, which is no extern function of the model}}
    %y = dl.extern @f(%x) threads 256 blocks affine_map<() -> (1)> : (tensor<4xf32>) -> tensor<4xf32>
    dl.return %y : tensor<4xf32>
  }
}

// -----

dl.model @m dims [] {
  dl.extern_function @f "f" cpp "f.cpp"
  dl.func @grid(%x: tensor<4xf32>) -> tensor<4xf32> {
    // expected-error@+1 {{runs on one number of blocks and one range}}
    %y = dl.extern @f(%x) threads 256 blocks affine_map<() -> (1, 2)> : (tensor<4xf32>) -> tensor<4xf32>
    dl.return %y : tensor<4xf32>
  }
}

// -----

dl.model @m dims [] {
  dl.extern_function @f "f" cpp "f.cpp"
  dl.func @nothing(%x: tensor<4xf32>) {
    // expected-error@+1 {{needs a result}}
    dl.extern @f(%x) threads 256 blocks affine_map<() -> (1)> : (tensor<4xf32>) -> ()
    dl.return
  }
}

// -----

dl.model @m dims [] {
  dl.func @cotangents(%x: tensor<4xf32>) -> tensor<4xf32> {
    // expected-error@+1 {{has a region for cotangents}}
    %y = dl.custom_gradient %x wrt %x {
    ^bb0(%dy: tensor<3xf32>):
      dl.yield %x : tensor<4xf32>
    } : tensor<4xf32> wrt tensor<4xf32>
    dl.return %y : tensor<4xf32>
  }
}

// -----

dl.model @m dims [] {
  dl.func @derivatives(%x: tensor<4xf32>, %z: tensor<3xf32>) -> tensor<4xf32> {
    // expected-error@+1 {{yields derivatives}}
    %y = dl.custom_gradient %x wrt %x {
    ^bb0(%dy: tensor<4xf32>):
      dl.yield %z : tensor<3xf32>
    } : tensor<4xf32> wrt tensor<4xf32>
    dl.return %y : tensor<4xf32>
  }
}

// -----

dl.model @m dims [] {
  dl.func @endless(%x: tensor<4xf32>) -> tensor<4xf32> {
    // expected-error@+1 {{needs a region that ends in dl.yield}}
    %y = dl.custom_gradient %x wrt %x {
    ^bb0(%dy: tensor<4xf32>):
      %z = dl.exp %x : tensor<4xf32>
    } : tensor<4xf32> wrt tensor<4xf32>
    dl.return %y : tensor<4xf32>
  }
}

// -----

dl.model @m dims [] {
  dl.func @window_rank(%x: tensor<2x9xf32>) {
    // expected-error@+1 {{by a map of 2 to 2 indices and 1 divisors}}
    %0 = dl.window %x affine_map<(n, p) -> (n, p)> over [1] else 0.0 : tensor<2x9xf32> -> tensor<2x9xf32>
    dl.return
  }
}

// -----

dl.model @m dims [] {
  dl.func @axis(%x: tensor<4x3xf32>, %i: tensor<i64>) -> tensor<3xf32> {
    // expected-error@+1 {{slices axis 2 of a tensor of rank 2}}
    %y = dl.slice_at %x[%i] axis 2 : tensor<4x3xf32> -> tensor<3xf32>
    dl.return %y : tensor<3xf32>
  }
}

// -----

dl.model @m dims [] {
  dl.func @window_divisor(%x: tensor<2x9xf32>) {
    // expected-error@+1 {{divides the index of axis 1 by 0}}
    %0 = dl.window %x affine_map<(n, p) -> (n, p)> over [1, 0] else 0.0 : tensor<2x9xf32> -> tensor<2x9xf32>
    dl.return
  }
}

// -----

dl.model @m dims [] {
  dl.func @shape(%x: tensor<4x3xf32>, %i: tensor<i64>) -> tensor<2xf32> {
    // expected-error@+1 {{takes 'tensor<2xf32>' out of 'tensor<4x3xf32>' along axis 0}}
    %y = dl.slice_at %x[%i] axis 0 : tensor<4x3xf32> -> tensor<2xf32>
    dl.return %y : tensor<2xf32>
  }
}

// -----

dl.model @m dims [] {
  dl.func @window_nonlinear(%x: tensor<2x9xf32>) {
    // expected-error@+1 {{which is more than sums of indices times numbers}}
    %0 = dl.window %x affine_map<(n, p) -> (n, p mod 2)> over [1, 1] else 0.0 : tensor<2x9xf32> -> tensor<2x9xf32>
    dl.return
  }
}

// -----

dl.model @m dims [] {
  dl.func @length(%x: tensor<4x3xf32>, %p: tensor<5x3xf32>, %i: tensor<i64>) -> tensor<4x3xf32> {
    // expected-error@+1 {{takes 5 elements along axis 0 of size 4}}
    %y = dl.slice_update %x[%i] axis 0, %p : tensor<5x3xf32> -> tensor<4x3xf32>
    dl.return %y : tensor<4x3xf32>
  }
}

// -----

dl.model @m dims [] {
  dl.func @window_own(%x: tensor<2x9xf32>) {
    // expected-error@+1 {{in which an axis of the operand has no index of its own}}
    %0 = dl.window %x affine_map<(n, p) -> (p, p)> over [1, 1] else 0.0 : tensor<2x9xf32> -> tensor<2x9xf32>
    dl.return
  }
}

// -----

dl.model @m dims [] {
  dl.func @ends(%x: tensor<4xf32>) -> tensor<4xf32> {
    // expected-error@+1 {{counts from one size to one size}}
    %y = dl.for from affine_map<() -> (0, 1)> to affine_map<() -> (3)> (%x) {
    ^bb0(%t: tensor<i64>, %a: tensor<4xf32>):
      dl.yield %a : tensor<4xf32>
    } : (tensor<4xf32>) -> tensor<4xf32>
    dl.return %y : tensor<4xf32>
  }
}

// -----

dl.model @m dims [] {
  dl.func @convolution_rank(%x: tensor<2x4x9xf32>, %w: tensor<6x2x3xf32>) {
    // expected-error@+1 {{with 2 strides, 1 paddings and 1 dilations}}
    %0 = dl.convolution output of %x, %w strides [1, 1] paddings [0] dilations [1] groups 2 : tensor<2x4x9xf32>, tensor<6x2x3xf32> -> tensor<2x6x7xf32>
    dl.return
  }
}

// -----

dl.model @m dims [] {
  dl.func @arguments(%x: tensor<4xf32>) -> tensor<4xf32> {
    // expected-error@+1 {{carries 'tensor<4xf32>' through a body for 'tensor<4xf32>'}}
    %y = dl.for from affine_map<() -> (0)> to affine_map<() -> (3)> (%x) {
    ^bb0(%a: tensor<4xf32>):
      dl.yield %a : tensor<4xf32>
    } : (tensor<4xf32>) -> tensor<4xf32>
    dl.return %y : tensor<4xf32>
  }
}

// -----

dl.model @m dims [] {
  dl.func @convolution_type(%x: tensor<2x4x9xf32>, %w: tensor<6x2x3xf64>) {
    // expected-error@+1 {{convolves 'f32' by 'f64' to 'f32'}}
    %0 = dl.convolution output of %x, %w strides [1] paddings [0] dilations [1] groups 2 : tensor<2x4x9xf32>, tensor<6x2x3xf64> -> tensor<2x6x7xf32>
    dl.return
  }
}

// -----

dl.model @m dims [] {
  dl.func @next(%x: tensor<4xf32>) -> tensor<4xf32> {
    // expected-error@+1 {{needs a body that yields 'tensor<4xf32>'}}
    %y = dl.for from affine_map<() -> (0)> to affine_map<() -> (3)> (%x) {
    ^bb0(%t: tensor<i64>, %a: tensor<4xf32>):
      dl.yield %t : tensor<i64>
    } : (tensor<4xf32>) -> tensor<4xf32>
    dl.return %y : tensor<4xf32>
  }
}

// -----

dl.model @m dims [] {
  dl.func @convolution_stride(%x: tensor<2x4x9xf32>, %w: tensor<6x2x3xf32>) {
    // expected-error@+1 {{has stride 0 and dilation 1 in spatial axis 0}}
    %0 = dl.convolution output of %x, %w strides [0] paddings [0] dilations [1] groups 2 : tensor<2x4x9xf32>, tensor<6x2x3xf32> -> tensor<2x6x7xf32>
    dl.return
  }
}

// -----

dl.model @m dims [] {
  dl.func @flag(%x: tensor<4xf32>) -> tensor<4xf32> {
    // expected-error@+1 {{goes on while the first value that it carries is true}}
    %y = dl.for from affine_map<() -> (0)> to affine_map<() -> (3)> while (%x) {
    ^bb0(%t: tensor<i64>, %a: tensor<4xf32>):
      dl.yield %a : tensor<4xf32>
    } : (tensor<4xf32>) -> tensor<4xf32>
    dl.return %y : tensor<4xf32>
  }
}

// -----

dl.model @m dims [] {
  dl.func @convolution_images(%x: tensor<2x4x9xf32>, %w: tensor<6x2x3xf32>) {
    // expected-error@+1 {{has 2 inputs and 3 outputs}}
    %0 = dl.convolution output of %x, %w strides [1] paddings [0] dilations [1] groups 2 : tensor<2x4x9xf32>, tensor<6x2x3xf32> -> tensor<3x6x7xf32>
    dl.return
  }
}

// -----

dl.model @m dims [] {
  dl.func @endless(%x: tensor<4xf32>) -> tensor<4xf32> {
    // expected-error@+1 {{has no end}}
    %y = dl.for from affine_map<() -> (0)> (%x) {
    ^bb0(%t: tensor<i64>, %a: tensor<4xf32>):
      dl.yield %a : tensor<4xf32>
    } : (tensor<4xf32>) -> tensor<4xf32>
    dl.return %y : tensor<4xf32>
  }
}

// -----

dl.model @m dims [] {
  dl.func @convolution_groups(%x: tensor<2x4x9xf32>, %w: tensor<6x2x3xf32>) {
    // expected-error@+1 {{divides 6 channels of the output into 4 groups}}
    %0 = dl.convolution output of %x, %w strides [1] paddings [0] dilations [1] groups 4 : tensor<2x4x9xf32>, tensor<6x2x3xf32> -> tensor<2x6x7xf32>
    dl.return
  }
}

// -----

dl.model @m dims [] {
  dl.func @convolution_channels(%x: tensor<2x4x9xf32>, %w: tensor<6x2x3xf32>) {
    // expected-error@+1 {{convolves 4 channels to 6 by a weight from 3 times 2 channels to 6}}
    %0 = dl.convolution output of %x, %w strides [1] paddings [0] dilations [1] groups 3 : tensor<2x4x9xf32>, tensor<6x2x3xf32> -> tensor<2x6x7xf32>
    dl.return
  }
}

// -----

dl.model @m dims [] {
  dl.func @branches(%x: tensor<4xf32>, %c: tensor<i1>) -> tensor<4xf32> {
    // expected-error@+1 {{needs branches that yield 'tensor<4xf32>'}}
    %y = dl.if %c {
      dl.yield %x : tensor<4xf32>
    } else {
      dl.yield
    } : tensor<4xf32>
    dl.return %y : tensor<4xf32>
  }
}

// -----

dl.model @m dims [] {
  dl.func @attention_rank(%q: tensor<5x3x4xf32>, %k: tensor<2x5x3x4xf32>) {
    // expected-error@+2 {{attends by 'tensor<5x3x4xf32>', 'tensor<2x5x3x4xf32>' and 'tensor<2x5x3x4xf32>'}}
    // expected-error@+1 {{failed to infer returned types}}
    %0, %1 = dl.attention %q, %k, %k scale 0.5 : (tensor<5x3x4xf32>, tensor<2x5x3x4xf32>, tensor<2x5x3x4xf32>) -> (tensor<5x3x4xf32>, tensor<5x3xf32>)
    dl.return
  }
}

// -----

dl.model @m dims [] {
  dl.func @attention_keys(%q: tensor<2x5x3x4xf32>, %k: tensor<2x7x3x6xf32>) {
    // expected-error@+2 {{looks for queries of size 4 among keys of size 6 in dimension 3}}
    // expected-error@+1 {{failed to infer returned types}}
    %0, %1 = dl.attention %q, %k, %k scale 0.5 : (tensor<2x5x3x4xf32>, tensor<2x7x3x6xf32>, tensor<2x7x3x6xf32>) -> (tensor<2x5x3x6xf32>, tensor<2x5x3xf32>)
    dl.return
  }
}

// -----

dl.model @m dims [] {
  dl.func @attention_values(%q: tensor<2x5x3x4xf32>, %v: tensor<2x7x3x4xf32>) {
    // expected-error@+2 {{has keys of size 5 for values of size 7 in dimension 1}}
    // expected-error@+1 {{failed to infer returned types}}
    %0, %1 = dl.attention %q, %q, %v scale 0.5 : (tensor<2x5x3x4xf32>, tensor<2x5x3x4xf32>, tensor<2x7x3x4xf32>) -> (tensor<2x5x3x4xf32>, tensor<2x5x3xf32>)
    dl.return
  }
}

// -----

dl.model @m dims [] {
  dl.func @attention_causal(%q: tensor<2x5x3x4xf32>, %k: tensor<2x7x3x4xf32>) {
    // expected-error@+2 {{is causal with 5 queries and 7 keys}}
    // expected-error@+1 {{failed to infer returned types}}
    %0, %1 = dl.attention causal %q, %k, %k scale 0.5 : (tensor<2x5x3x4xf32>, tensor<2x7x3x4xf32>, tensor<2x7x3x4xf32>) -> (tensor<2x5x3x4xf32>, tensor<2x5x3xf32>)
    dl.return
  }
}

// -----

dl.model @m dims [] {
  dl.func @attention_mask(%q: tensor<2x5x3x4xf32>, %m: tensor<2x3x5x4xi1>) {
    // expected-error@+2 {{has a mask of type 'tensor<2x3x5x4xi1>' for scores [2, 3, 5, 5] of 'f32'}}
    // expected-error@+1 {{failed to infer returned types}}
    %0, %1 = dl.attention %q, %q, %q mask %m scale 0.5 : (tensor<2x5x3x4xf32>, tensor<2x5x3x4xf32>, tensor<2x5x3x4xf32>, tensor<2x3x5x4xi1>) -> (tensor<2x5x3x4xf32>, tensor<2x5x3xf32>)
    dl.return
  }
}

// -----

dl.model @m dims [] {
  dl.func @attention_cotangent(%q: tensor<2x5x3x4xf32>, %r: tensor<2x3x5xf32>) {
    // expected-error@+1 {{has a cotangent 'tensor<2x5x3x4xf32>' with rows 'tensor<2x3x5xf32>' and 'tensor<2x3x5xf32>'; attention has 'tensor<2x5x3x4xf32>' with rows 'tensor<2x5x3xf32>'}}
    %0, %1, %2 = dl.attention_gradient %q, %q, %q at %r, %r, %q scale 0.5 : (tensor<2x5x3x4xf32>, tensor<2x5x3x4xf32>, tensor<2x5x3x4xf32>, tensor<2x3x5xf32>, tensor<2x3x5xf32>, tensor<2x5x3x4xf32>) -> (tensor<2x5x3x4xf32>, tensor<2x5x3x4xf32>, tensor<2x5x3x4xf32>)
    dl.return
  }
}

// -----

dl.model @m dims [] {
  dl.func @round_to_type(%x: tensor<4xf32>) {
    // expected-error@+1 {{rounds to 'f32'; expected bf16 or f16}}
    %0 = dl.round_to f32 %x : tensor<4xf32>
    dl.return
  }
}

// -----

// expected-error@+1 {{multiplies numbers of type 'f64'; expected bf16 or f16}}
dl.model @m dims [] precision f64 {
}
