//===- DlShapes.h - sizes, shapes and the types of results -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A size is an affine expression (products of symbols allowed) over the model's dynamic dimensions: symbol k is dimension k. Every size is kept in one normal form, so
// equal polynomials are equal expressions and equal shapes are equal types.

#ifndef DIALECTS_DL_DLSHAPES_H
#define DIALECTS_DL_DLSHAPES_H

#include "mlir/IR/AffineExpr.h"
#include "mlir/IR/AffineMap.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/Value.h"
#include <optional>

namespace dlc::dl {

/// The normal form: a sum of products with sorted symbols; an exact division by a constant is carried out.
mlir::AffineExpr normalizeSize(mlir::AffineExpr size);

/// The product of sizes, normalized; 1 for none.
mlir::AffineExpr productOf(llvm::ArrayRef<mlir::AffineExpr> sizes, mlir::MLIRContext *context);

/// A tensor type of these sizes; the encoding is there only if a size is not constant.
mlir::RankedTensorType tensorType(llvm::ArrayRef<mlir::AffineExpr> sizes, mlir::Type elementType);

/// The sizes of a tensor type. A `?` without an encoding has no known size and yields null.
llvm::SmallVector<mlir::AffineExpr> sizesOf(mlir::RankedTensorType type);
inline llvm::SmallVector<mlir::AffineExpr> sizesOf(mlir::Value value) { return sizesOf(llvm::cast<mlir::RankedTensorType>(value.getType())); }

/// The number of elements.
mlir::AffineExpr elementCount(mlir::RankedTensorType type);

/// The same shape with another element type.
mlir::RankedTensorType withElementType(mlir::RankedTensorType type, mlir::Type elementType);

/// A map of one or more results over the symbols that they use, normalized: how sizes are kept in attributes.
mlir::AffineMap sizeMap(llvm::ArrayRef<mlir::AffineExpr> sizes, mlir::MLIRContext *context);

/// As people read it, with the model's names for the symbols: "[2*N, 784]".
std::string shapeToString(llvm::ArrayRef<mlir::AffineExpr> sizes, llvm::ArrayRef<llvm::StringRef> dims);
std::string sizeToString(mlir::AffineExpr size, llvm::ArrayRef<llvm::StringRef> dims);

/// What is known of whole numbers without running: all lie in [low, end). `isTight`: low and end - 1 are among them, if there are any.
struct WholeRange {
  int64_t low;
  mlir::AffineExpr end;
  bool isTight;
};
std::optional<WholeRange> rangeOf(mlir::Value numbers);
/// Whether a size is at least another, where algebra says so.
bool isKnownAtLeast(mlir::AffineExpr size, mlir::AffineExpr other);

//--- shape rules: used by builders, verifiers and front ends alike; report to `location` if one is given ---

/// The operand's shape without `axes` (increasing, in range).
mlir::FailureOr<mlir::RankedTensorType> reducedType(std::optional<mlir::Location> location, mlir::RankedTensorType type, llvm::ArrayRef<int64_t> axes);
mlir::FailureOr<mlir::RankedTensorType> matmulType(std::optional<mlir::Location> location, mlir::RankedTensorType lhs, mlir::RankedTensorType rhs, bool lhsTransposed,
                                                   bool rhsTransposed);
mlir::FailureOr<mlir::RankedTensorType> transposedType(std::optional<mlir::Location> location, mlir::RankedTensorType type, llvm::ArrayRef<int64_t> permutation);
/// Whether the three tensors of a convolution fit: input [N, C, …], weight [O, C / groups, …], output [N, O, …], with as many spatial axes as there are strides. Of a spatial axis any sizes fit.
mlir::LogicalResult checkConvolution(std::optional<mlir::Location> location, mlir::RankedTensorType output, mlir::RankedTensorType input, mlir::RankedTensorType weight,
                                     llvm::ArrayRef<int64_t> strides, llvm::ArrayRef<int64_t> paddings, llvm::ArrayRef<int64_t> dilations, int64_t groups);
/// How many windows of `kernel` elements, `dilation` apart, fit into `size` elements with padding on both sides, if each begins `stride` after the one before; may be 0 or negative.
mlir::AffineExpr windowCount(mlir::AffineExpr size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation);
mlir::FailureOr<mlir::RankedTensorType> concatType(std::optional<mlir::Location> location, mlir::TypeRange inputs, int64_t axis);
/// The axes of a tensor of rank `rank` that are not among `axes`.
llvm::SmallVector<int64_t> otherAxes(int64_t rank, llvm::ArrayRef<int64_t> axes);
/// What a gather yields: x's axes that are not indexed, with those of the indices from `position` on.
mlir::FailureOr<mlir::RankedTensorType> gatherType(std::optional<mlir::Location> location, mlir::RankedTensorType x, mlir::TypeRange indices, llvm::ArrayRef<int64_t> axes,
                                                   int64_t position);
/// What attention yields of q [N, T, heads, d], k [N, S, heads, d], v [N, S, heads, e] and a mask (or null) of [N, heads, T, S], where each size may be 1: [N, T, heads, e] and [N, T, heads].
mlir::FailureOr<std::pair<mlir::RankedTensorType, mlir::RankedTensorType>> attentionTypes(std::optional<mlir::Location> location, mlir::RankedTensorType q, mlir::RankedTensorType k,
                                                                                          mlir::RankedTensorType v, mlir::RankedTensorType mask, bool isCausal);

} // namespace dlc::dl

#endif
