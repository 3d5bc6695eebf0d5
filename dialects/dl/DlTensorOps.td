//===- DlTensorOps.td - reductions, products, shapes, draws, composites -*- tablegen -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#ifndef DL_TENSOR_OPS
#define DL_TENSOR_OPS

include "dialects/dl/DlBase.td"

// ---- elements that come from no operand ----
def Dl_FillOp : Dl_StructuralOp<"fill", [RepeatedInConsumers, ConstantLike, DeclareOpInterfaceMethods<GeneratorOpInterface>]> {
  let summary = "A tensor of one number, rounded once to the element type; booleans are 0 and 1";
  let arguments = (ins TypedAttrInterface:$value);
  let results = (outs Dl_Tensor:$result);
  let assemblyFormat = "$value attr-dict `:` type($result)";
  let hasVerifier = 1;
  let hasFolder = 1;
  let builders = [
    OpBuilder<(ins "::mlir::RankedTensorType":$type, "double":$value)>,
    OpBuilder<(ins "::mlir::RankedTensorType":$type, "int64_t":$value)>];
}
def Dl_ConstantOp : Dl_StructuralOp<"constant"> {
  let summary = "A tensor of given numbers";
  let arguments = (ins ElementsAttr:$value);
  let results = (outs Dl_Tensor:$result);
  let assemblyFormat = "$value attr-dict `:` type($result)";
  let hasVerifier = 1;
}
def Dl_EmptyOp : Dl_StructuralOp<"empty"> {
  let summary = "A tensor of no particular numbers: each is written before it is read";
  let arguments = (ins);
  let results = (outs Dl_Tensor:$result);
  let assemblyFormat = "attr-dict `:` type($result)";
}
def Dl_SizeOp : Dl_StructuralOp<"size", [RepeatedInConsumers, DeclareOpInterfaceMethods<GeneratorOpInterface>]> {
  let summary = "A size known when the function is called, as a number";
  let arguments = (ins AffineMapAttr:$map);
  let results = (outs Dl_Tensor:$result);
  let assemblyFormat = "$map attr-dict `:` type($result)";
  let hasVerifier = 1;
}
def Dl_IotaOp : Dl_StructuralOp<"iota", [RepeatedInConsumers, DeclareOpInterfaceMethods<GeneratorOpInterface, ["usesLinearOnly"]>]> {
  let summary = "Each element's index along an axis";
  let arguments = (ins I64Attr:$axis);
  let results = (outs Dl_NumberTensor:$result);
  let assemblyFormat = "$axis attr-dict `:` type($result)";
  let hasVerifier = 1;
}
class Dl_RandomOp<string mnemonic, Constraint type> : Dl_StructuralOp<mnemonic, [RepeatedInConsumers, DeclareOpInterfaceMethods<GeneratorOpInterface, ["getScalarAttributes", "isLarge"]>]> {
  let description = [{
    Philox4x32-10 (Salmon et al., SC 2011): key = the seed's low and high word, counter = (element / 4, stream, call's low and high word); word
    element % 4. The element is the row-major number.
  }];
  let results = (outs type:$result);
}
def Dl_UniformOp : Dl_RandomOp<"uniform", Dl_FloatTensor> {
  let summary = "Draws from [0, 1): the word's top 24 bits times 2^-24";
  let arguments = (ins Dl_Scalar64:$seed, Dl_Scalar64:$call, UI32Attr:$stream);
  let assemblyFormat = "$seed `,` $call attr-dict `:` type($result)";
}
def Dl_NormalOp : Dl_RandomOp<"normal", Dl_FloatTensor> {
  let summary = "Draws from the standard normal distribution: Box and Muller's transform of the word pairs (0, 1) and (2, 3)";
  let arguments = (ins Dl_Scalar64:$seed, Dl_Scalar64:$call, UI32Attr:$stream);
  let assemblyFormat = "$seed `,` $call attr-dict `:` type($result)";
}
def Dl_RandintOp : Dl_RandomOp<"randint", Dl_IntTensor> {
  let summary = "Draws whole numbers from [low, high): the high word of draw * (high - low), plus low";
  let arguments = (ins Dl_Scalar64:$seed, Dl_Scalar64:$call, UI32Attr:$stream, I64Attr:$low, I64Attr:$high);
  let assemblyFormat = "$seed `,` $call attr-dict `:` type($result)";
  let hasVerifier = 1;
}

// ---- elements that move ----
class Dl_IndexingOp<string mnemonic, list<Trait> traits = []>
    : Dl_StructuralOp<mnemonic, !listconcat(traits, [RepeatedInConsumers, DeclareOpInterfaceMethods<IndexingOpInterface, ["getInnermostStride", "getAxisMap", "keepsOrder", "hasStrides"]>,
                                                     DeclareOpInterfaceMethods<DifferentiableOpInterface>])> {
  let results = (outs Dl_Tensor:$result);
  let hasVerifier = 1;
}
def Dl_BroadcastOp : Dl_IndexingOp<"broadcast"> {
  let summary = "Repeats along new axes: axis i of the operand is axis axes[i] of the result (increasing)";
  let arguments = (ins Dl_Tensor:$x, DenseI64ArrayAttr:$axes);
  let assemblyFormat = "$x $axes attr-dict `:` type($x) `->` type($result)";
  let hasFolder = 1;
}
def Dl_ReshapeOp : Dl_IndexingOp<"reshape"> {
  let summary = "The same elements in row-major order under another shape";
  let arguments = (ins Dl_Tensor:$x);
  let assemblyFormat = "$x attr-dict `:` type($x) `->` type($result)";
  let hasFolder = 1;
}
def Dl_AssumeShapeOp : Dl_IndexingOp<"assume_shape"> {
  let summary = "The operand as it is, under sizes that nothing proves equal to its own: `dl.check_size` makes them so before the function starts";
  let arguments = (ins Dl_Tensor:$x);
  let assemblyFormat = "$x attr-dict `:` type($x) `->` type($result)";
  let hasFolder = 1;
  let hasCanonicalizer = 1;
}
def Dl_AfterOp : Dl_IndexingOp<"after", [AllTypesMatch<["x", "result"]>]> {
  let summary = "The operand as it is, once another value is there";
  let description = [{ No element of `other` is read: it says that what is computed from the result is computed after it, and is not the same as what was computed before. }];
  let arguments = (ins Dl_Tensor:$x, Dl_Tensor:$other);
  let assemblyFormat = "$x `,` $other attr-dict `:` type($x) `,` type($other)";
  let hasVerifier = 0; // its types say it all
}
def Dl_TransposeOp : Dl_IndexingOp<"transpose", [DeclareOpInterfaceMethods<InferTypeOpInterface>]> {
  let summary = "Axis i of the result is axis permutation[i] of the operand";
  let arguments = (ins Dl_Tensor:$x, DenseI64ArrayAttr:$permutation);
  let assemblyFormat = "$x $permutation attr-dict `:` type($x) `->` type($result)";
  let hasFolder = 1;
}
def Dl_SliceOp : Dl_IndexingOp<"slice"> {
  let summary = "Element i of the result is element starts + i * strides of the operand, axis by axis; a stride may be negative";
  let arguments = (ins Dl_Tensor:$x, AffineMapAttr:$starts, DenseI64ArrayAttr:$strides);
  let assemblyFormat = "$x $starts $strides attr-dict `:` type($x) `->` type($result)";
  let hasFolder = 1;
}
def Dl_WindowOp : Dl_StructuralOp<"window", [RepeatedInConsumers, DeclareOpInterfaceMethods<DifferentiableOpInterface>,
    DeclareOpInterfaceMethods<IndexingOpInterface, ["getInnermostStride", "getAxisMap", "getElementOutside", "buildInside"]>]> {
  let summary = "Windows over the operand: element i of the result is element map(i) / divisors of the operand, and `outside` where that is none";
  let description = [{ An index of the operand is a sum of the result's indices times numbers plus a number, divided by a number: rows of windows are `p * stride + k * dilation - padding`.
    Where the division leaves a remainder, or the index lies outside, the element is `outside`. Windows repeat elements, and the gradient gathers them again: for each element of the operand
    the sum over the windows that it lies in, which is again a window. }];
  let arguments = (ins Dl_FloatTensor:$x, AffineMapAttr:$map, DenseI64ArrayAttr:$divisors, F64Attr:$outside);
  let results = (outs Dl_FloatTensor:$result);
  let assemblyFormat = "$x $map `over` $divisors `else` $outside attr-dict `:` type($x) `->` type($result)";
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    /// For each axis of the operand the axis of the result that alone decides about it once the others are given; none where an axis has none.
    ::std::optional<::llvm::SmallVector<int64_t>> getOwnAxes();
  }];
}
def Dl_PadOp : Dl_StructuralOp<"pad", [DeclareOpInterfaceMethods<DifferentiableOpInterface>]> {
  let summary = "Slice's transpose: zeros, with the operand's elements at starts + i * strides";
  let arguments = (ins Dl_Tensor:$x, AffineMapAttr:$starts, DenseI64ArrayAttr:$strides);
  let results = (outs Dl_Tensor:$result);
  let assemblyFormat = "$x $starts $strides attr-dict `:` type($x) `->` type($result)";
  let hasVerifier = 1;
}
def Dl_ConcatOp : Dl_StructuralOp<"concat", [DeclareOpInterfaceMethods<DifferentiableOpInterface>, DeclareOpInterfaceMethods<InferTypeOpInterface>]> {
  let summary = "The operands one after the other along an axis";
  let arguments = (ins Variadic<Dl_Tensor>:$inputs, I64Attr:$axis);
  let results = (outs Dl_Tensor:$result);
  let assemblyFormat = "$inputs `axis` $axis attr-dict `:` type($inputs) `->` type($result)";
  let hasVerifier = 1;
}

def Dl_SliceAtOp : Dl_StructuralOp<"slice_at", [RepeatedInConsumers, DeclareOpInterfaceMethods<IndexingOpInterface, ["lookUpIndices", "getInnermostStride"]>,
                                                DeclareOpInterfaceMethods<DifferentiableOpInterface, ["addVjp"]>]> {
  let summary = "A slice along one axis whose start is computed: `start` and what follows it, or, with a rank less, element `start` of the axis";
  let description = [{ The slice lies inside: whoever builds the op sees to that. }];
  let arguments = (ins Dl_Tensor:$x, Dl_Scalar64:$start, I64Attr:$axis);
  let results = (outs Dl_Tensor:$result);
  let assemblyFormat = "$x `[` $start `]` `axis` $axis attr-dict `:` type($x) `->` type($result)";
  let hasVerifier = 1;
  let hasFolder = 1;
}
def Dl_SliceUpdateOp : Dl_StructuralOp<"slice_update", [DeclareOpInterfaceMethods<UpdateOpInterface>, DeclareOpInterfaceMethods<DifferentiableOpInterface>, AllTypesMatch<["x", "result"]>]> {
  let summary = "The operand with another slice: what slice_at reads, written";
  let arguments = (ins Dl_Tensor:$x, Dl_Tensor:$part, Dl_Scalar64:$start, I64Attr:$axis);
  let results = (outs Dl_Tensor:$result);
  let assemblyFormat = "$x `[` $start `]` `axis` $axis `,` $part attr-dict `:` type($part) `->` type($result)";
  let hasVerifier = 1;
  let hasFolder = 1;
}

// ---- elements at places that are known when the function runs ----
def Dl_GatherOp : Dl_StructuralOp<"gather", [RepeatedInConsumers, DeclareOpInterfaceMethods<IndexingOpInterface, ["lookUpIndices", "getInnermostStride"]>,
                                             DeclareOpInterfaceMethods<DifferentiableOpInterface>, DeclareOpInterfaceMethods<InferTypeOpInterface>]> {
  let summary = "Elements at the places that tensors of indices name along axes, one for each";
  let description = [{
    All tensors of indices have one shape. The result has the operand's other axes, in their order, with that shape's axes from `position` on. A negative index counts
    from the end; where one is out of range the element is 0 (`dl.check_index` makes that a status of the call).
  }];
  let arguments = (ins Dl_Tensor:$x, Variadic<Dl_IndexTensor>:$indices, DenseI64ArrayAttr:$axes, I64Attr:$position);
  let results = (outs Dl_Tensor:$result);
  let assemblyFormat = "$x $axes `at` $indices `from` $position attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
  let hasCanonicalizer = 1;
}
class Dl_ScatterLikeOp<string mnemonic, Constraint type> : Dl_StructuralOp<mnemonic, [ScatterOpInterface, AllTypesMatch<["into", "result"]>, DeclareOpInterfaceMethods<DifferentiableOpInterface>]> {
  let arguments = (ins type:$into, type:$updates, Variadic<Dl_IndexTensor>:$indices, DenseI64ArrayAttr:$axes, I64Attr:$position);
  let results = (outs type:$result);
  let assemblyFormat = "$into $axes `at` $indices `from` $position `with` $updates attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    ::mlir::Value buildUpdate(::mlir::OpBuilder &b, ::mlir::Location loc, ::mlir::Value old, ::mlir::Value update);
    ::llvm::SmallVector<::mlir::Value> lookUpIndices(::mlir::OpBuilder &b, ::mlir::Location loc, ::mlir::ValueRange indices, ::llvm::function_ref<::mlir::Value(::mlir::AffineExpr)> size,
                                                     ::llvm::function_ref<::mlir::Value(::mlir::Value, ::mlir::ValueRange)> element, ::mlir::Value &exists);
  }];
}
def Dl_ScatterOp : Dl_ScatterLikeOp<"scatter", Dl_Tensor> {
  let summary = "The operand with other elements at places as gather's; of several for one place the last one";
}
def Dl_ScatterAddOp : Dl_ScatterLikeOp<"scatter_add", Dl_NumberTensor> {
  let summary = "Gather's transpose: the operand with updates added at places, in row-major order of the indices";
  let hasCanonicalizer = 1;
}

// ---- many become one ----
class Dl_ReductionOp<string mnemonic, Constraint type, list<Trait> traits = []>
    : Dl_FormulaOp<mnemonic, !listconcat(traits, [DeclareOpInterfaceMethods<ReductionOpInterface>, DeclareOpInterfaceMethods<InferTypeOpInterface>])> {
  let arguments = (ins type:$x, DenseI64ArrayAttr:$axes);
  let assemblyFormat = "$x $axes attr-dict `:` type($x) `->` type($result)";
  let results = (outs type:$result);
  let extraClassDefinition = vjpDef;
}
def Dl_SumOp : Dl_ReductionOp<"sum", Dl_NumberTensor> {
  let summary = "Sum over axes";
  let vjp = ["broadcastBack(dy, x, getAxes())"];
}
def Dl_MaxOp : Dl_ReductionOp<"max", Dl_NumberTensor> {
  let summary = "Largest over axes; NaN if one is. The gradient goes to the first of equal ones";
  let vjp = ["selectFirst(x, y, dy, getAxes())"];
}
def Dl_MinOp : Dl_ReductionOp<"min", Dl_NumberTensor> {
  let summary = "Smallest over axes; NaN if one is. The gradient goes to the first of equal ones";
  let vjp = ["selectFirst(x, y, dy, getAxes())"];
}
def Dl_AnyOp : Dl_ReductionOp<"any", Dl_BoolTensor> { let summary = "Whether one is true"; let vjp = ["none"]; }
def Dl_AllOp : Dl_ReductionOp<"all", Dl_BoolTensor> { let summary = "Whether all are true"; let vjp = ["none"]; }
class Dl_ArgOp<string mnemonic> : Dl_FormulaOp<mnemonic,
    [DeclareOpInterfaceMethods<ReductionOpInterface, ["keepsIndex"]>, DeclareOpInterfaceMethods<InferTypeOpInterface>]> {
  let arguments = (ins Dl_NumberTensor:$x, DenseI64ArrayAttr:$axes);
  let assemblyFormat = "$x $axes attr-dict `:` type($x) `->` type($result)";
  let results = (outs Dl_IntTensor:$result);
  let vjp = ["none"];
  let extraClassDefinition = vjpDef;
}
def Dl_ArgmaxOp : Dl_ArgOp<"argmax"> { let summary = "Index (i32) of the largest along the axes, in row-major order of these; the first of equal ones, the first NaN before all"; }
def Dl_ArgminOp : Dl_ArgOp<"argmin"> { let summary = "Index (i32) of the smallest along the axes, in row-major order of these; the first of equal ones, the first NaN before all"; }

// ---- products ----
def Dl_MatmulOp : Dl_StructuralOp<"matmul", [ContractionOpInterface, DeclareOpInterfaceMethods<DifferentiableOpInterface>,
                                             DeclareOpInterfaceMethods<DecomposableOpInterface>, DeclareOpInterfaceMethods<InferTypeOpInterface>]> {
  let summary = "Matrix product over equal leading axes: result[b…, m, n] = sum over k of lhs[b…, m, k] * rhs[b…, k, n]";
  let description = [{ With lhsTransposed, lhs lies as [b…, k, m]; with rhsTransposed, rhs lies as [b…, n, k]. One chain of fused multiply-adds over increasing k per element. The product of a matrix that lies
    row by row with one vector is a composite: a sum of each row. }];
  let arguments = (ins Dl_FloatTensor:$lhs, Dl_FloatTensor:$rhs, UnitAttr:$lhsTransposed, UnitAttr:$rhsTransposed);
  let results = (outs Dl_FloatTensor:$result);
  let assemblyFormat = "(`transposed` $lhsTransposed^)? $lhs `,` (`transposed` $rhsTransposed^)? $rhs attr-dict `:` type($lhs) `,` type($rhs) `->` type($result)";
  let hasVerifier = 1;
  let hasCanonicalizer = 1;
}

// ---- convolutions ----
def Dl_ConvolutionResult : I32EnumAttr<"ConvolutionResult", "which of a convolution's three tensors an op computes from the others",
    [I32EnumAttrCase<"output", 0>, I32EnumAttrCase<"input", 1>, I32EnumAttrCase<"weight", 2>]> {
  let cppNamespace = "::dlc::dl";
}
def Dl_ConvolutionOp : Dl_StructuralOp<"convolution", [ContractionOpInterface, DeclareOpInterfaceMethods<DifferentiableOpInterface>,
                                                       DeclareOpInterfaceMethods<DecomposableOpInterface, ["isForEngine", "isForGpu"]>]> {
  let summary = "A convolution, or the derivative of one in its input or weight";
  let description = [{
    One form, linear in each of three tensors: the sum over n, o, c, p, k of
    output[n, o, p] * input[n, g * C + c, p * strides + k * dilations - paddings] * weight[o, c, k],
    where g is the group of o, C the channels of a group, p and k have one index for each spatial axis, and the input is 0 outside. The op computes the form's derivative in one of the tensors from the
    two others: `output` of input and weight is the convolution, `input` of output and weight the transposed convolution, `weight` of input and output what is left.
    So each gradient is an op of the same kind, and padding at the end is what the sizes say.
  }];
  let arguments = (ins Dl_ConvolutionResult:$kind, Dl_FloatTensor:$lhs, Dl_FloatTensor:$rhs, DenseI64ArrayAttr:$strides, DenseI64ArrayAttr:$paddings,
                       DenseI64ArrayAttr:$dilations, I64Attr:$groups);
  let results = (outs Dl_FloatTensor:$result);
  let assemblyFormat = [{$kind `of` $lhs `,` $rhs `strides` $strides `paddings` $paddings `dilations` $dilations `groups` $groups attr-dict
                         `:` type($lhs) `,` type($rhs) `->` type($result)}];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    int64_t getSpatialRank() { return getStrides().size(); }
    /// The types of the three tensors, whichever of them is the result.
    ::mlir::RankedTensorType getTypeOf(::dlc::dl::ConvolutionResult tensor);
    /// The sizes of its spatial axes; kDynamic where one is not known.
    ::llvm::ArrayRef<int64_t> getImageOf(::dlc::dl::ConvolutionResult tensor);
    /// Which tensor an operand is. Of an output: input, weight; of an input: output, weight; of a weight: input, output.
    ::dlc::dl::ConvolutionResult getTensorOfOperand(unsigned number);
    /// The value of one of the three tensors, this op's result or an operand.
    ::mlir::Value getTensor(::dlc::dl::ConvolutionResult tensor);
  }];
}

// ---- composites: whole until they are taken apart before fusion ----
class Dl_CompositeOp<string mnemonic, list<Trait> traits = []>
    : Dl_FormulaOp<mnemonic, !listconcat(traits, [DeclareOpInterfaceMethods<DecomposableOpInterface>])> {
  let extraClassDefinition = vjpDef;
}
class Dl_SoftmaxLikeOp<string mnemonic> : Dl_CompositeOp<mnemonic, [SameOperandsAndResultType]> {
  let arguments = (ins Dl_FloatTensor:$x, I64Attr:$axis);
  let results = (outs Dl_FloatTensor:$result);
  let assemblyFormat = "$x `axis` $axis attr-dict `:` type($result)";
  let hasVerifier = 1;
}
def Dl_SoftmaxOp : Dl_SoftmaxLikeOp<"softmax"> {
  let summary = "exp(x - max x), divided by its sum along the axis";
  let vjp = ["y * (dy - sumAlong(mulNoNan(y, dy), getAxis()))"];
}
def Dl_LogSoftmaxOp : Dl_SoftmaxLikeOp<"log_softmax"> {
  let summary = "log(softmax(x))";
  let vjp = ["dy - exp(y) * sumAlong(dy, getAxis())"];
}
def Dl_LogsumexpOp : Dl_CompositeOp<"logsumexp", [DeclareOpInterfaceMethods<InferTypeOpInterface>]> {
  let summary = "log of the sum of exp(x) along an axis, without overflow";
  let arguments = (ins Dl_FloatTensor:$x, I64Attr:$axis);
  let results = (outs Dl_FloatTensor:$result);
  let assemblyFormat = "$x `axis` $axis attr-dict `:` type($x) `->` type($result)";
  let vjp = ["softmax(x, getAxis()) * broadcastBack(dy, x, {static_cast<int64_t>(getAxis())})"];
  let hasVerifier = 1;
}
def Dl_CrossEntropyOp : Dl_CompositeOp<"cross_entropy", [DeclareOpInterfaceMethods<InferTypeOpInterface>]> {
  let summary = "logsumexp(scores) - scores[label] along the last axis, for each label; 0 where the label is -100";
  let arguments = (ins Dl_FloatTensor:$scores, Dl_IntTensor:$label);
  let results = (outs Dl_FloatTensor:$result);
  let assemblyFormat = "$scores `,` $label attr-dict `:` type($scores) `,` type($label) `->` type($result)";
  let vjp = ["crossEntropyGradient(scores, label, dy)", "none"];
  let hasVerifier = 1;
}

// ---- attention: kernels by themselves where a target has one, else composites ----
class Dl_AttentionLikeOp<string mnemonic> : Dl_StructuralOp<mnemonic,
    [DeclareOpInterfaceMethods<KernelOpInterface, ["readsStrides"]>, DeclareOpInterfaceMethods<DifferentiableOpInterface>,
     DeclareOpInterfaceMethods<DecomposableOpInterface, ["buildDecompositions", "isForEngine", "isForGpu", "holdsProducts"]>, DeclareOpInterfaceMethods<InferTypeOpInterface>]> {
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    /// What attention is of, whichever of the two ops this is.
    ::dlc::dl::AttentionOperands getAttention() { return {getQ(), getK(), getV(), getMask(), getScale().convertToDouble(), getCausal()}; }
  }];
}
def Dl_AttentionOp : Dl_AttentionLikeOp<"attention"> {
  let summary = "A mean of the rows of v for each row of q and each head, weighted by the softmax of the scores scale * (q · k)";
  let description = [{
    q is [N, T, heads, d], k is [N, S, heads, d], v is [N, S, heads, e]; the result is [N, T, heads, e], and `logsumexp`, [N, T, heads], is the logarithm of the sum of the exponentials of a row's scores.
    The mask is [N, heads, T, S], where each size may be 1: bools that say which keys a row looks at, or numbers that are added to the scores. With `causal` row t looks at the keys up to t. A row that looks
    at no key is 0, its `logsumexp` -inf, and so are its gradients. Where a target has a kernel for it, no score is ever in memory (Dao, "FlashAttention-2", 2023).
  }];
  let arguments = (ins Dl_FloatTensor:$q, Dl_FloatTensor:$k, Dl_FloatTensor:$v, Optional<Dl_Tensor>:$mask, F64Attr:$scale, UnitAttr:$causal);
  let results = (outs Dl_FloatTensor:$result, Dl_FloatTensor:$logsumexp);
  let assemblyFormat = "(`causal` $causal^)? $q `,` $k `,` $v (`mask` $mask^)? `scale` $scale attr-dict `:` functional-type(operands, results)";
}
def Dl_AttentionGradientOp : Dl_AttentionLikeOp<"attention_gradient"> {
  let summary = "The derivatives of attention in q, k and v";
  let description = [{
    With P = exp(scores - logsumexp) and dP = dy · v, the cotangent of the scores is dS = P * (dP - delta), and the results are scale * dS · k, scale * dSᵀ · q and Pᵀ · dy. `delta`, [N, T, heads], is the sum
    of dy times attention's result along the last axis, less the cotangent of `logsumexp`.
  }];
  let arguments = (ins Dl_FloatTensor:$q, Dl_FloatTensor:$k, Dl_FloatTensor:$v, Dl_FloatTensor:$logsumexp, Dl_FloatTensor:$delta, Dl_FloatTensor:$dy, Optional<Dl_Tensor>:$mask, F64Attr:$scale,
                       UnitAttr:$causal);
  let results = (outs Dl_FloatTensor:$dq, Dl_FloatTensor:$dk, Dl_FloatTensor:$dv);
  let assemblyFormat = [{ (`causal` $causal^)? $q `,` $k `,` $v `at` $logsumexp `,` $delta `,` $dy (`mask` $mask^)? `scale` $scale attr-dict
                          `:` functional-type(operands, results) }];
}

#endif
