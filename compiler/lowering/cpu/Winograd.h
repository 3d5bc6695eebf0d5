//===- Winograd.h - convolutions of 3x3 by minimal filtering -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// m outputs of a filter of three weights need m + 2 multiplications, not 3 m: outputs, inputs and weights are values or coefficients of polynomials, whose product is known by its values at
// m + 2 points (Winograd, Arithmetic Complexity of Computations, 1980). Nested for two axes (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016), a tile of m x m outputs is
//
//   A^T [ (G w G^T) * (B^T d B) ] A      with d the (m + 2)^2 inputs it sees, * element by element
//
// and as the sum over channels stands between the transformations, it is (m + 2)^2 products of matrices, of all tiles by all channels of the result. A first launch copies the images channel by
// channel into vectors, with zeros around them, and transforms the weights; the second takes blocks of tiles: transforms their inputs into the thread's scratch memory, multiplies, transforms back.
// Weights that are large beside the images are transformed by the second launch too, a few at a time. Lanes are channels throughout.
//
// For an output, and for the gradient of an input, which is the same of the output's gradient with weights turned around. The points are 0, infinity and, of two outputs, +1 and -1: the
// transformations only add and halve. Of four outputs they are +-5/8 and +-3/2 besides, by which the errors of a dozen pairs were smallest (Barabasz et al., Error Analysis and Improving the
// Accuracy of Winograd Convolution for Deep Neural Networks, 2020, on why points matter), and whose powers are exact: about three times the error of a chain of multiply-adds. f64 takes two.
//
// Here too an element's bits depend on shapes alone: whether and how large tiles are taken (tileFor), the order of every sum.

#ifndef DLC_COMPILER_LOWERING_CPU_WINOGRAD_H
#define DLC_COMPILER_LOWERING_CPU_WINOGRAD_H

#include "compiler/lowering/cpu/Convolution.h"
#include "compiler/lowering/cpu/Gemm.h"
#include <array>
#include <optional>

namespace dlc::cpu {

class Winograd {
public:
  /// The engine for a convolution that it can compute and that it pays for.
  static std::optional<Winograd> of(dl::ConvolutionOp op, const CpuInfo &cpu, bool isFixed);

  /// The weights' transformation, by itself if they stay from call to call; the copy, with that if they do not stay; the rest.
  unsigned launchCount() const { return launchesOnce() + 2; }
  /// So many launches, the first ones, read only weights that are fixed, and write the panels, which the others only read.
  unsigned launchesOnce() const { return isFixed && !weightsByTask; }
  unsigned tasksTogether() const { return 0; }
  mlir::AffineExpr workspaceElements(mlir::AffineExpr images) const;
  mlir::AffineExpr panelElements(mlir::AffineExpr images) const;
  int64_t tableElements() const { return 0; }
  int64_t scratchElements() const;
  /// Number of tasks of a launch, an index value.
  mlir::Value tasks(unsigned launch, mlir::OpBuilder &b, mlir::Location loc, mlir::Value images) const;
  /// Emits tasks begin to end - 1 (index values) of a launch. The epilogue is handed rows of positions.
  void emit(unsigned launch, mlir::OpBuilder &b, mlir::Location loc, const ConvolutionOperands &operands, mlir::Value begin, mlir::Value end, bool byNumber, ConvolutionEpilogue epilogue) const;

  /// The schedule in words, for tests: "winograd 4 6x16 tile 30x64 k 64", "… weights by task".
  std::string describe() const;

private:
  /// Sizes of a convolution as this engine sees it: of each group, channels that are summed over and channels of the result.
  struct Shape {
    int64_t images, groups, reduced, channels; // images: ShapedType::kDynamic if it is left to the call
    std::array<int64_t, 2> source, target, front; ///< images read and computed; zeros before the first element read (negative: elements left out)
    int64_t tiles(int64_t axis, int64_t m) const { return (target[axis] + m - 1) / m; }
  };
  struct Emitter;

  Winograd(dl::ConvolutionOp op, const Shape &shape, int64_t m, const CpuInfo &cpu, bool isFixed);
  /// Outputs of a tile along an axis, 0 where filtering does not pay: of shapes and the type alone, not of the processor.
  static int64_t tileFor(const Shape &shape, mlir::FloatType element);

  int64_t points() const { return (m + 2) * (m + 2); }
  int64_t tilesOfImage() const { return shape.tiles(0, m) * shape.tiles(1, m); }
  int64_t nr() const { return gemm.columns(); }
  int64_t panels() const { return (shape.channels + nr() - 1) / nr(); }
  int64_t parts() const { return (panels() * nr() + columns - 1) / columns; }

  // The images in the workspace: of every `channelBlock` channels a plane of pixels, each its channels.
  int64_t channelBlocks() const;
  int64_t extent(int64_t axis) const { return shape.tiles(axis, m) * m + 2; }
  int64_t planeElements() const;
  // The weights in the panels: of a panel the points, each a matrix of reduced channels x nr. In the scratch memory, if `weightsByTask`: the same of kBlock channels.
  int64_t weightPoint() const;
  int64_t weightPanel() const { return points() * weightPoint(); }
  int64_t weightElements() const { return weightsByTask ? 0 : shape.groups * panels() * weightPanel(); }
  int64_t rawWeightElements() const;
  // In the scratch memory: blocks of reduced channels, in each the points, in each tiles x kBlock; then points, each of tiles x columns; then rows of a run of tiles, and one of them transposed; then
  // transformed weights, if it is here that they are, and those that are being transformed.
  int64_t inputPoint() const;
  int64_t inputElements() const;
  int64_t productPoint() const;
  int64_t runTiles() const;
  int64_t runRow() const { return runTiles() * m * columns; }
  int64_t runStride() const;
  int64_t runElements() const;

  dl::ConvolutionResult kind;
  mlir::FloatType element;
  CpuInfo cpu;
  Shape shape;
  int64_t m; ///< outputs of a tile, along each axis
  bool isFixed; ///< the weights are the same in many calls
  Gemm gemm;
  int64_t lanes;
  int64_t blockTiles = 0; ///< tiles that a task works on
  int64_t columns = 0;    ///< channels of the result that a task works on
  int64_t kBlock = 0;     ///< reduced channels between two visits of accumulators
  bool weightsByTask = false;
};

} // namespace dlc::cpu

#endif
