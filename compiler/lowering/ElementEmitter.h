//===- ElementEmitter.h - one element of a fused kernel's body -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The body of a dl.fused is ops on whole tensors; a kernel needs, inside its loops, an element (or a vector of neighbours along the last axis) of
// this or that value. ElementEmitter answers that question by asking each op's interface, and remembers what it has emitted.

#ifndef DLC_COMPILER_LOWERING_ELEMENTEMITTER_H
#define DLC_COMPILER_LOWERING_ELEMENTEMITTER_H

#include "dialects/dl/Dl.h"
#include "llvm/ADT/DenseSet.h"
#include "llvm/ADT/MapVector.h"
#include <map>

namespace dlc {

/// Where an element lies: its indices, or only its row-major number (`isFlat`).
struct ElementIndex {
  llvm::SmallVector<mlir::Value> dims; // index values
  mlir::Value linear;                  // index value; may be null unless flat
  bool isFlat = false;
};

/// The type that elements have in memory: booleans are bytes, integers have no sign.
mlir::Type memoryType(mlir::Type elementType);

/// What a kernel computes, element for element, of a value that it yields: the value, or the part of it that an update writes.
mlir::Value computedValue(mlir::Value yielded);

class ElementEmitter {
public:
  using SizeBuilder = std::function<mlir::Value(mlir::AffineExpr)>;

  ElementEmitter(dl::FusedOp kernel, SizeBuilder size) : kernel(kernel), size(std::move(size)) { scopes.emplace_back(); }

  /// Says where a value of the body lies: a flat memref of memoryType.
  void setMemory(mlir::Value value, mlir::Value memref) { memory[value] = memref; }
  /// Says that a value that the body computes is read from its memory all the same.
  void setInMemory(mlir::Value value) { inMemory.insert(value); }
  /// Says what a value is at the index that is being computed (a reduction's result, a product's): a scalar or a vector.
  void setAvailable(mlir::Value value, mlir::Value element) { available[value] = element; }

  /// `lanes` elements of a value along its last axis from `at` on (one: a number, else a vector). `mask` (null: all) says which of them exist.
  mlir::Value element(mlir::OpBuilder &b, mlir::Value value, const ElementIndex &at, int64_t lanes, mlir::Value mask);
  /// An element of a tensor of indices, as an index value.
  mlir::Value indexElement(mlir::OpBuilder &b, mlir::Value indices, mlir::ValueRange at);
  /// Elements that lie in memory now: not remembered, as they may change. Lanes that do not exist are `masked` (null: 0).
  mlir::Value read(mlir::OpBuilder &b, mlir::Value memref, mlir::RankedTensorType type, const ElementIndex &at, int64_t lanes, mlir::Value mask,
                   mlir::TypedAttr masked = {});
  /// Stores elements of a result.
  void store(mlir::OpBuilder &b, mlir::Value memref, mlir::RankedTensorType type, const ElementIndex &at, mlir::Value elements, mlir::Value mask);
  /// Stores elements of what is computed for a value that the kernel yields, at their index among these.
  void storeResult(mlir::OpBuilder &b, mlir::Value yielded, mlir::Value memref, const ElementIndex &at, mlir::Value elements, mlir::Value mask);
  /// Emits the numbers that say where slices lie, once, ahead of all loops.
  void prepareScalars(mlir::OpBuilder &b);

  /// What is emitted between push and pop may only be used between them (the body of a loop).
  void pushScope() { scopes.emplace_back(); }
  void popScope() { scopes.pop_back(); }

  /// Says that an index (or a row-major number) is a multiple of the lanes that are asked for at it: vectors there are aligned, where their tensor's rows are.
  void setVectorStart(mlir::Value index) { vectorStarts.insert(index); }

  /// How elements come when several neighbours are asked for at once, as many as a power of two, from a multiple of it on.
  struct Vectors {
    int64_t longest = int64_t(1) << 30; // that may be asked for
    bool areLaneByLane = false;         // some are then computed one by one
    bool areStrided = false;            // some are taken out of several that lie in memory
  };
  static Vectors vectors(dl::FusedOp kernel);
  static Vectors vectors(llvm::ArrayRef<mlir::Operation *> ops);
  /// Is a row-major number enough to say where every element lies?
  static bool isFlat(dl::FusedOp kernel);
  static bool isFlat(llvm::ArrayRef<mlir::Operation *> ops);
  /// May an index along the last of a value's axes go on beyond its end, into the next row, as long as axis `first` and those behind it are not left? For ops on values of that
  /// type, all of which are computed for each of its elements: what they look up must not depend on these axes.
  static bool crossesRows(llvm::ArrayRef<mlir::Operation *> ops, mlir::RankedTensorType type, int64_t first);

  mlir::Value linearIndex(mlir::OpBuilder &b, mlir::Location loc, mlir::RankedTensorType type, const ElementIndex &at);

private:
  mlir::Value moved(mlir::OpBuilder &b, dl::IndexingOpInterface op, const ElementIndex &at, int64_t lanes, mlir::Value mask);
  mlir::Value strided(mlir::OpBuilder &b, dl::IndexingOpInterface op, const ElementIndex &at, int64_t lanes, mlir::Value mask);
  mlir::Value called(mlir::OpBuilder &b, dl::GeneratorOpInterface op, mlir::Value linear, mlir::ValueRange scalars, int64_t lanes);
  mlir::Value conditional(mlir::OpBuilder &b, mlir::Operation *op, const ElementIndex &at, int64_t lanes, mlir::Value mask);

  llvm::MaybeAlign alignmentOf(mlir::RankedTensorType type, const ElementIndex &at, mlir::Type stored, int64_t lanes) const;

  using Key = std::pair<std::vector<void *>, int64_t>;
  dl::FusedOp kernel;
  SizeBuilder size;
  llvm::DenseMap<mlir::Value, mlir::Value> memory, available;
  llvm::DenseSet<mlir::Value> vectorStarts, inMemory;
  std::vector<std::map<Key, mlir::Value>> scopes;
};

/// True where the second of two partial results of a reduction beats the first, which comes earlier.
mlir::Value buildBeats(mlir::OpBuilder &b, mlir::Location loc, dl::ReductionOpInterface op, mlir::Value first, mlir::Value second);

/// Whether an element of what a check looks at, an i64, is bad; `size` is an i64 too.
mlir::Value buildIsOutside(mlir::OpBuilder &b, mlir::Location loc, dl::CheckIndexOp check, mlir::Value element, mlir::Value size);

} // namespace dlc

#endif
