//===- Convolution.h - convolutions as products through shifted images -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A convolution is a product of which one factor lies nowhere: its element is an element of an image that a window reaches, or 0 beyond the image's ends. A first launch copies the images with zeros
// around them into the workspace. There a place in the kernel is a distance, the same for all positions, so the factor's element lies at (where a position is) + (how far a step is from it): a
// table of distances, made once by each thread, takes the place of a matrix. Which tensor is what, for each of n images and g groups, with o and c the channels of a group, p, i and k the elements
// of an output's, input's or kernel's image:
//
//   computed   positions   channels   steps   through the images   the other factor
//   output     p           o          c, k    input                weight
//   input      i           c          o, k    output               weight
//   weight     c, k        o          n, p    input                output
//
// The schedule is
//   wide     channels are rows and positions columns: vectors are read from the images. For few channels; where rows of the image are long.
//   tall     positions of all images are rows and channels columns: numbers are read from the images, vectors from the other factor, which the first launch transposes into panels.
//   images   the same with tiles of whole images, the positions in the order of their parts.
//   weight   the same, with the sum over images and positions.
//   places   the same with tiles of whole kernels; the steps of a place are the positions at which it falls onto the image.
//
// A stride of the output is undone by the copy where vectors are read: the images are divided by the remainder of their places, each part an image of its own. A stride of the input divides the
// result in the same way: a part is reached by some places of the kernel only, and only these are its steps.
//
// Where much of what would be read are zeros around small images, the positions are divided further, by the places of the kernel that fall onto the image: these are the steps of a part. Of a 3×3
// kernel on images of 2×2 that leaves 16 of 36, and the zeros need not be copied. So it is with the places of a weight.
//
// As in Gemm.h every element is one chain of fused multiply-adds over the steps in order, from zero, whatever the schedule; a step that multiplies by a zero around the image may be left out. Kernels of
// 3×3 may go another way: Winograd.h.

#ifndef DLC_COMPILER_LOWERING_CPU_CONVOLUTION_H
#define DLC_COMPILER_LOWERING_CPU_CONVOLUTION_H

#include "compiler/lowering/ElementEmitter.h"
#include "compiler/lowering/cpu/CpuInfo.h"

namespace dlc::cpu {

/// What the kernels of a convolution read and use, in the function that code is emitted into.
struct ConvolutionOperands {
  mlir::Value lhs, rhs;  ///< the op's operands, memref<?xT>
  mlir::Value images;    ///< how many there are, an index
  mlir::Value workspace; ///< memref<?xT> of workspaceElements(); null when that is 0
  mlir::Value panels;    ///< memref<?xT> of panelElements(); null when that is 0
  mlir::Value kept;      ///< memref<?xi64>, whose element is -1 when a thread's first call of a launch begins
  mlir::Value tables;    ///< memref<?xi64> of tableElements(), the thread's own, left as they are from call to call
  mlir::Value scratch;   ///< memref<?xT> of scratchElements(), the thread's own
};

/// Receives `lanes` neighbours (along the result's last axis; of a weight in row-major order) of the finished result. `mask` (a prefix; null: all) says which exist.
using ConvolutionEpilogue = llvm::function_ref<void(mlir::OpBuilder &b, mlir::Location loc, const ElementIndex &at, mlir::Value acc, int64_t lanes, mlir::Value mask)>;

class Convolution {
public:
  /// All sizes but the number of images must be static. `isFixed`: the other factor is the same in many calls, a weight that stays.
  Convolution(dl::ConvolutionOp op, const CpuInfo &cpu, bool isFixed);

  /// The panels of the other factor, by themselves if they stay from call to call; the copy of the images, with those panels if they do not stay; the product.
  unsigned launchCount() const { return launchesOnce() + 2; }
  /// So many launches, the first ones, read only the factor that is fixed, and write the panels, which the others only read.
  unsigned launchesOnce() const { return isFixed && matrixElements() > 0; }
  unsigned tasksTogether() const { return 0; }
  mlir::AffineExpr workspaceElements(mlir::AffineExpr images) const;
  /// Elements of the panels.
  mlir::AffineExpr panelElements(mlir::AffineExpr images) const;
  int64_t tableElements() const { return rowTableElements() + 2 * tableSteps; }
  int64_t scratchElements() const;
  /// Number of tasks of a launch, an index value.
  mlir::Value tasks(unsigned launch, mlir::OpBuilder &b, mlir::Location loc, mlir::Value images) const;
  /// Emits tasks begin to end - 1 (index values) of a launch. `acrossRows`: vectors of the epilogue may cross the rows of an image; their index along the last axis then counts on from the row that
  /// is named. Of a weight it gets the row-major number; otherwise one element of it at a time.
  void emit(unsigned launch, mlir::OpBuilder &b, mlir::Location loc, const ConvolutionOperands &operands, mlir::Value begin, mlir::Value end, bool acrossRows, ConvolutionEpilogue epilogue) const;

  /// The schedule in words, for tests: "tall 6x16 tile 64x64 k 288".
  std::string describe() const;

private:
  using Sizes = llvm::SmallVector<int64_t>;
  enum class Schedule { Wide, Tall, Images, Weight, Places };
  /// A part of the positions along an axis, and the places of the kernel that reach it.
  struct AxisPart {
    int64_t remainder = 0, first = 0, positions = 0; ///< positions first + j; of an input at (first + j) * stride + remainder - padding
    int64_t place = 0, places = 0;                   ///< the first place and their number, placeStep() apart
    bool operator==(const AxisPart &) const = default;
  };
  using Parts = llvm::SmallVector<llvm::SmallVector<AxisPart>>; // of each axis
  struct PartSize {
    int64_t positions, places; ///< along all axes together
  };
  struct Plan {
    Schedule schedule = Schedule::Wide;
    /// Whether images have no zeros around them: places that do not fall onto one are left out.
    bool keepsImages() const { return schedule == Schedule::Images || schedule == Schedule::Places; }
    int64_t mr = 0, nv = 0;         ///< micro-tile: rows, vectors
    int64_t lines = 1, part = 0;    ///< of positions in a tile: rows of the image; or a part of one, if a row is long (0: whole ones)
    int64_t rows = 0, columns = 0;  ///< tile
    bool matrixFirst = false;       ///< whether all positions come before the next columns of the other factor
    int64_t kBlock = 0;             ///< steps between two visits of a tile's accumulators
    int64_t blockChannels = 0;      ///< channels of the source: those of a block where tiles are of whole images; those of a tile of whole kernels
    int64_t blockImages = 1, blockSlices = 0; ///< of a weight's steps: images, or slices along the first axis of one; of a tile of whole images: how many
    double cycles = 0;
  };
  /// How images lie in the workspace (or, if `inPlace`, where they are), along each spatial axis.
  struct Images {
    bool inPlace = false, phased = false;
    Sizes extent;            ///< places that are read, of each part
    Sizes front;             ///< zeros before the first element; negative: elements that are left out. Of the whole, if divided into parts
    Sizes dims;              ///< distances: extents, but the last one where the zeros behind a row are those before the next
    int64_t part = 0;        ///< elements of a part
    int64_t plane = 0;       ///< from channel to channel
    int64_t image = 0;       ///< from image to image
  };
  struct Emitter;
  struct Costs;

  bool isWeight() const { return kind == dl::ConvolutionResult::weight; }
  bool isInput() const { return kind == dl::ConvolutionResult::input; }
  int64_t axes() const { return p.size(); }
  /// The image that is read, its channels in a group, and the one of the positions.
  const Sizes &source() const { return isInput() ? p : i; }
  int64_t sourceChannels() const { return isInput() ? o : c; }
  const Sizes &target() const { return isInput() ? i : p; }
  /// Channels of a group of what is computed; of a weight its outputs.
  int64_t channels() const { return isInput() ? c : o; }
  /// Parts of the result along an axis, by the remainder of a stride.
  llvm::SmallVector<AxisPart> partsByRemainder(int64_t axis) const;
  /// The same, divided by the places that fall onto the image.
  llvm::SmallVector<AxisPart> partsOnImage(int64_t axis) const;
  /// Of a weight: for each place of the kernel, the positions at which it falls onto the image.
  llvm::SmallVector<AxisPart> partsByPlace(int64_t axis) const;
  const Parts &partsOf(const Plan &plan) const { return plan.keepsImages() ? imageParts : wholeParts; }
  static llvm::SmallVector<PartSize> sizesOfParts(const Parts &parts);
  /// Parts of the result in all.
  int64_t partCount(const Plan &plan) const;
  int64_t mostPositions(int64_t axis, const Plan &plan) const;
  /// From place to place of those that reach a part.
  int64_t placeStep(int64_t axis) const;
  /// Which element of the source, along an axis, a position (AxisPart: first + j) reads at a place of the kernel; outside of the image there is none.
  int64_t sourceAt(int64_t axis, int64_t position, int64_t place) const;
  /// Rows of the image in a part, as columns (with the rows between) or as rows of the product.
  int64_t linesOfImage(const Plan &plan) const;
  int64_t lineParts() const;
  /// Whether the rows of a channel of an image follow each other in a tile's accumulators without a gap, as they do in memory.
  bool rowsAreJoined() const;

  Images layout(const Plan &plan) const;
  Plan choosePlan() const;
  /// A schedule with a micro-kernel.
  Plan planOf(Schedule schedule, int64_t mr, int64_t nv) const;
  Plan planWide(const Costs &costs) const;
  Plan planTall(const Costs &costs) const;
  Plan planImages(const Costs &costs) const;
  Plan planWeight(const Costs &costs) const;
  Plan planPlaces(const Costs &costs) const;
  /// The most steps, of a weight those of a block; where places are left out, those of a block in all parts.
  int64_t stepsOf(const Plan &plan) const;
  int64_t stepsOf(const Plan &plan, const PartSize &part) const;
  int64_t rowTableElements() const;
  int64_t nr() const { return plan.nv * lanes; }
  int64_t panels() const;
  /// Of the transposed factor: elements of a panel, and of all of an image's or of all.
  int64_t elementsOfPanel() const;
  int64_t matrixElements() const;
  int64_t rowStride() const; ///< of the transposed tile

  dl::ConvolutionResult kind;
  mlir::FloatType element;
  CpuInfo cpu;
  bool isFixed;
  int64_t lanes;
  int64_t imageCount; // ShapedType::kDynamic if it is left to the call
  int64_t groups, o, c;
  Sizes p, i, k, strides, paddings, dilations;
  Parts wholeParts, imageParts;
  llvm::SmallVector<PartSize> imageSizes; // of imageParts, one after the other; none if they are too many
  Plan plan;
  Images images;
  int64_t tableSteps = 0;
};

} // namespace dlc::cpu

#endif
