//===- DlInterfaces.td - the questions that passes ask an op -*- tablegen -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#ifndef DL_INTERFACES
#define DL_INTERFACES

include "mlir/IR/OpBase.td"

/// What is one element of the result?
def ElementwiseOpInterface : OpInterface<"ElementwiseOpInterface"> {
  let cppNamespace = "::dlc::dl";
  let description = [{
    The op has one result of its operands' shape, and an element of the result depends on the operands' elements at the same index alone.
  }];
  let methods = [InterfaceMethod<[{
    Builds, out of arith and math ops, the element from the operands' elements. An element is a number or a vector of numbers
    of the tensor's element type; the function must not care which.
  }], "::mlir::Value", "buildElement", (ins "::mlir::OpBuilder &":$b, "::mlir::Location":$loc, "::mlir::ValueRange":$elements)>];
}

/// What is the gradient?
def DifferentiableOpInterface : OpInterface<"DifferentiableOpInterface"> {
  let cppNamespace = "::dlc::dl";
  let description = [{
    Reverse mode. An op that is not differentiable, and is no ElementOf NoGradient trait, is reported by name where a gradient needs it.
  }];
  let methods = [InterfaceMethod<[{
    Appends one value for each operand: the vector-Jacobian product of the cotangents (one for each result; of several results null where no cotangent is) in that
    operand, built out of dl ops, or null where no derivative flows (integer operands, conditions).
  }], "::llvm::LogicalResult", "buildVjp",
      (ins "::mlir::OpBuilder &":$b, "::mlir::ValueRange":$cotangents, "::llvm::SmallVectorImpl<::mlir::Value> &":$grads)>,
  InterfaceMethod<"False where no derivative ever flows to that operand, whatever its type is.", "bool", "flowsTo", (ins "unsigned":$operand), [{}], [{ return true; }]>,
  InterfaceMethod<[{
    Where the product in operand number `operand` touches a part of it alone: `sum`, to which other products have come so far, with this one added to that part.
    Null where the product is as large as the operand.
  }], "::mlir::Value", "addVjp", (ins "::mlir::OpBuilder &":$b, "unsigned":$operand, "::mlir::ValueRange":$cotangents, "::mlir::Value":$sum), [{}], [{ return {}; }]>];
}

/// Which element of an operand is this element of the result?
def IndexingOpInterface : OpInterface<"IndexingOpInterface"> {
  let cppNamespace = "::dlc::dl";
  let description = [{
    The op moves elements without changing them (broadcast, reshape, transpose, slice, …): element `i` of the result is element `f(i)` of its one
    operand, or where `f(i)` lies outside of it a number (window).
  }];
  let methods = [InterfaceMethod<[{
    Builds the operand's indices from the result's (index values). Where the op has a number for what lies outside, they may lie there.
    Sizes are asked from `size`, which turns an affine expression over the model's dynamic dimensions into an index value.
  }], "::llvm::SmallVector<::mlir::Value>", "mapIndices",
      (ins "::mlir::OpBuilder &":$b, "::mlir::Location":$loc, "::mlir::ValueRange":$indices, "::llvm::function_ref<::mlir::Value(::mlir::AffineExpr)>":$size)>,
  InterfaceMethod<[{
    The same for an op whose other operands say where to look: `element` gives an element of one of these as an index value. `exists` is set to an i1 where the
    place may lie outside of the operand; the element is 0 there. Otherwise it stays null.
  }], "::llvm::SmallVector<::mlir::Value>", "lookUpIndices",
      (ins "::mlir::OpBuilder &":$b, "::mlir::Location":$loc, "::mlir::ValueRange":$indices, "::llvm::function_ref<::mlir::Value(::mlir::AffineExpr)>":$size,
           "::llvm::function_ref<::mlir::Value(::mlir::Value, ::mlir::ValueRange)>":$element, "::mlir::Value &":$exists), [{}],
      [{ return $_op.mapIndices(b, loc, indices, size); }]>,
  InterfaceMethod<[{
    The element of the result where the operand has none; null where it always has one.
  }], "::mlir::TypedAttr", "getElementOutside", (ins), [{}], [{ return {}; }]>,
  InterfaceMethod<[{
    For each axis of the operand: whether the index that mapIndices builds for it lies inside (i1), or null where it always does.
  }], "::llvm::SmallVector<::mlir::Value>", "buildInside",
      (ins "::mlir::OpBuilder &":$b, "::mlir::Location":$loc, "::mlir::ValueRange":$indices, "::llvm::function_ref<::mlir::Value(::mlir::AffineExpr)>":$size),
      [{}], [{ return ::llvm::SmallVector<::mlir::Value>(::llvm::cast<::mlir::RankedTensorType>($_op->getOperand(0).getType()).getRank()); }]>,
  InterfaceMethod<[{
    Where every index of the operand is one of the result's: which one, for each of the operand's axes. None if the op does not say.
  }], "::std::optional<::llvm::SmallVector<int64_t>>", "getAxisMap", (ins), [{}], [{ return ::std::nullopt; }]>,
  InterfaceMethod<[{
    True where element number i of the result, in row-major order, is element number i of the operand.
  }], "bool", "keepsOrder", (ins), [{}], [{ return false; }]>,
  InterfaceMethod<[{
    True where the operand's indices are a start and a number times one of the result's each: elements then lie from a place on, with a stride for each of the result's axes.
  }], "bool", "hasStrides", (ins), [{}], [{ return false; }]>,
  InterfaceMethod<[{
    By how much the operand's last index steps when the result's last index steps by one, where it is the same for all elements and no other index changes: neighbours in the result lie so far
    apart in the operand. With 0 its indices do not depend on the result's last one. None where that is not so or not known.
  }], "::std::optional<int64_t>", "getInnermostStride", (ins), [{}], [{ return ::std::nullopt; }]>];
  let extraSharedClassDeclaration = [{
    /// Is a vector of the result a vector of the operand?
    bool keepsInnermost() { return $_op.getInnermostStride() == 1; }
    /// Is a vector of the result one element of the operand?
    bool dropsInnermost() { return $_op.getInnermostStride() == 0; }
  }];
}

/// Does the op write a part of a value and leave the rest?
def UpdateOpInterface : OpInterface<"UpdateOpInterface"> {
  let cppNamespace = "::dlc::dl";
  let description = [{
    The result is the first operand but for some elements, which come from the second, the part. A kernel writes these alone: the plan gives the result the first
    operand's place. Operands after the second are rank-0 integers that say where the part lies.
  }];
  let methods = [InterfaceMethod<[{
    Builds the result's indices of an element of the part (index values). `element` gives an element of an operand after the second as an index value.
  }], "::llvm::SmallVector<::mlir::Value>", "mapPartIndices",
      (ins "::mlir::OpBuilder &":$b, "::mlir::Location":$loc, "::mlir::ValueRange":$indices, "::llvm::function_ref<::mlir::Value(::mlir::Value, ::mlir::ValueRange)>":$element)>,
  InterfaceMethod<"True where neighbours along the part's last axis are neighbours in the result.", "bool", "keepsInnermost", (ins)>,
  InterfaceMethod<"True where `value` is what the part replaces: as large as the part, element for element.", "bool", "isReplaced", (ins "::mlir::Value":$value)>];
}

/// What is an element that comes from no operand's element, but from where it lies?
def GeneratorOpInterface : OpInterface<"GeneratorOpInterface"> {
  let cppNamespace = "::dlc::dl";
  let description = [{ Constants, index ramps and random draws: an element is a function of its indices and of rank-0 operands. }];
  let methods = [InterfaceMethod<[{
    Builds `lanes` consecutive elements along the last dimension (a number where lanes is 1, else a vector), the first at `indices`.
    `linear` is the row-major number of the first element, an i64; `scalars` are the operands and then the scalar attributes; sizes are asked from `size`.
  }], "::mlir::Value", "buildElements",
      (ins "::mlir::OpBuilder &":$b, "::mlir::Location":$loc, "::mlir::ValueRange":$indices, "::mlir::Value":$linear, "::mlir::ValueRange":$scalars, "int64_t":$lanes,
           "::llvm::function_ref<::mlir::Value(::mlir::AffineExpr)>":$size)>,
  InterfaceMethod<"True where the elements are a function of `linear` and scalars alone: `indices` may then be empty.", "bool", "usesLinearOnly", (ins), [{}], [{ return true; }]>,
  InterfaceMethod<"Integer attributes that are handed to buildElements as values, so that ops that differ in them alone can share code.",
      "::llvm::SmallVector<::mlir::IntegerAttr>", "getScalarAttributes", (ins), [{}], [{ return {}; }]>,
  InterfaceMethod<"True where buildElements emits much code: a target that can call makes a function of it. Holds only where usesLinearOnly does.", "bool", "isLarge", (ins), [{}],
      [{ return false; }]>];
}

/// How do many become one?
def ReductionOpInterface : OpInterface<"ReductionOpInterface"> {
  let cppNamespace = "::dlc::dl";
  let description = [{ One operand is reduced along axes; the result's shape is the operand's without them. }];
  let methods = [
    InterfaceMethod<"The reduced axes, increasing.", "::llvm::ArrayRef<int64_t>", "getReducedAxes">,
    InterfaceMethod<"The neutral element, a number of type `type` (the accumulator's).", "::mlir::TypedAttr", "getNeutral", (ins "::mlir::Type":$type)>,
    InterfaceMethod<"Combines two partial results (numbers or vectors alike).", "::mlir::Value", "buildCombine",
      (ins "::mlir::OpBuilder &":$b, "::mlir::Location":$loc, "::mlir::Value":$a, "::mlir::Value":$c)>,
    InterfaceMethod<"The same reduction of `x` over other axes.", "::mlir::Value", "buildOver",
      (ins "::mlir::OpBuilder &":$b, "::mlir::Value":$x, "::llvm::ArrayRef<int64_t>":$axes)>,
    InterfaceMethod<[{ True for argmax and argmin: the result is the index of the first element that buildCombine would keep. }], "bool", "keepsIndex", (ins), [{}], [{ return false; }]>];
}

/// Which elements of a value does this op change, and how?
def ScatterOpInterface : OpInterface<"ScatterOpInterface"> {
  let cppNamespace = "::dlc::dl";
  let description = [{
    The result is `into`, changed at places that tensors of indices name, by one update after the other in row-major order of the indices. The updates have the shape that a
    gather at these places has. An element of `into` is read only where the result's element at the same index is written.
  }];
  let methods = [
    InterfaceMethod<"The value that is changed.", "::mlir::Value", "getInto">,
    InterfaceMethod<"It as an operand.", "::mlir::OpOperand &", "getIntoMutable">,
    InterfaceMethod<"The updates.", "::mlir::Value", "getUpdates">,
    InterfaceMethod<"The tensors of indices, of one type.", "::mlir::OperandRange", "getIndices">,
    InterfaceMethod<"The axes of `into` that they index.", "::llvm::ArrayRef<int64_t>", "getAxes">,
    InterfaceMethod<"The first of the indices' axes among those of the updates.", "uint64_t", "getPosition">,
    InterfaceMethod<[{ The index in the result that an update at `indices` changes, as for IndexingOpInterface; `exists` says whether there is one. }],
      "::llvm::SmallVector<::mlir::Value>", "lookUpIndices",
      (ins "::mlir::OpBuilder &":$b, "::mlir::Location":$loc, "::mlir::ValueRange":$indices, "::llvm::function_ref<::mlir::Value(::mlir::AffineExpr)>":$size,
           "::llvm::function_ref<::mlir::Value(::mlir::Value, ::mlir::ValueRange)>":$element, "::mlir::Value &":$exists)>,
    InterfaceMethod<"The new element (a number or a vector of them) from the one so far and the update.", "::mlir::Value", "buildUpdate",
      (ins "::mlir::OpBuilder &":$b, "::mlir::Location":$loc, "::mlir::Value":$old, "::mlir::Value":$update)>];
}

/// What is it made of?
def DecomposableOpInterface : OpInterface<"DecomposableOpInterface"> {
  let cppNamespace = "::dlc::dl";
  let description = [{ A composite op: whole while gradients and algebra look at it, taken apart before fusion. }];
  let methods = [InterfaceMethod<"Builds the result out of smaller dl ops; null where the op is none of these, or has several results.", "::mlir::Value", "buildDecomposition",
      (ins "::mlir::OpBuilder &":$b)>,
  InterfaceMethod<"True where it is better left whole for a target whose engine knows it.", "bool", "isForEngine", (ins), [{}], [{ return false; }]>,
  InterfaceMethod<"The same of a GPU's.", "bool", "isForGpu", (ins), [{}], [{ return false; }]>,
  InterfaceMethod<"True where it is made of products, among others: where the operands of products are rounded, it is taken apart before.", "bool", "holdsProducts", (ins), [{}],
      [{ return false; }]>,
  InterfaceMethod<"Builds a value for each result; nothing where the op is none of these.", "::llvm::SmallVector<::mlir::Value>", "buildDecompositions", (ins "::mlir::OpBuilder &":$b), [{}], [{
    ::mlir::Value result = $_op.buildDecomposition(b);
    return result ? ::llvm::SmallVector<::mlir::Value>{result} : ::llvm::SmallVector<::mlir::Value>{};
  }]>];
}

/// A kernel by itself.
def KernelOpInterface : OpInterface<"KernelOpInterface"> {
  let cppNamespace = "::dlc::dl";
  let description = [{ Its operands and results lie in memory, in row-major order: nothing fuses with it. A target runs it under the schedule of its own. }];
  let methods = [InterfaceMethod<"`schedule` of the dl.fused that it becomes.", "::llvm::StringRef", "getSchedule">,
                 InterfaceMethod<[{
    True where an operand may lie with strides, its last axis' elements side by side: a slice or a transposition of what lies in memory is then read there, without a copy.
  }], "bool", "readsStrides", (ins), [{}], [{ return false; }]>,
                 InterfaceMethod<"What the kernel is called for people.", "std::string", "getKernelName">];
}

/// A product that a target's engine computes: one kernel of its own, into whose epilogue elementwise ops fuse.
def ContractionOpInterface : OpInterface<"ContractionOpInterface"> {
  let cppNamespace = "::dlc::dl";
  let description = [{ result[b…, m, n] = Σ_k lhs[b…, m, k] · rhs[b…, k, n], the operands as they lie in memory or through windows over them. }];
  let methods = [];
}

#endif
