//===- DlProgramOps.td - models, variables, functions, gradients, fusions -*- tablegen -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#ifndef DL_PROGRAM_OPS
#define DL_PROGRAM_OPS

include "dialects/dl/DlBase.td"
include "mlir/IR/SymbolInterfaces.td"
include "mlir/IR/RegionKindInterface.td"
include "mlir/IR/BuiltinAttributeInterfaces.td"
include "mlir/Interfaces/FunctionInterfaces.td"
include "mlir/Interfaces/ControlFlowInterfaces.td"

def Dl_ModelOp : Dl_Op<"model", [IsolatedFromAbove, SymbolTable, Symbol, NoTerminator, SingleBlock, NoRegionArguments]> {
  let summary = "A program: its dynamic dimensions, variables and functions";
  let description = [{
    Symbol k of every size in it is dimension `dims[k]`. With a `precision`, bf16 or f16, the operands of all products of f32 are rounded to it, those of gradients too (--dl-round-operands).
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, StrArrayAttr:$dims, OptionalAttr<StrAttr>:$doc, OptionalAttr<TypeAttr>:$precision);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "$sym_name `dims` $dims (`precision` $precision^)? attr-dict-with-keyword $body";
  let hasVerifier = 1;
}

def Dl_VariableKind : I32EnumAttr<"VariableKind", "what a variable is for; the numbers are dl_variable_kind's",
    [I32EnumAttrCase<"trained", 0>, I32EnumAttrCase<"state", 1>, I32EnumAttrCase<"slot", 2>, I32EnumAttrCase<"random", 3>]> {
  let cppNamespace = "::dlc::dl";
}
def Dl_VariableOp : Dl_Op<"variable", [Symbol, HasParent<"ModelOp">]> {
  let summary = "A tensor that lives as long as an instance of the model, of a shape known at compile time";
  let arguments = (ins SymbolNameAttr:$sym_name, Dl_VariableKind:$kind, TypeAttrOf<Dl_Tensor>:$type, OptionalAttr<StrAttr>:$doc);
  let assemblyFormat = "$kind $sym_name attr-dict `:` $type";
  let hasVerifier = 1;
}

def Dl_FuncOp : Dl_Op<"func", [IsolatedFromAbove, HasParent<"ModelOp">, FunctionOpInterface, SingleBlock]> {
  let summary = "A function of the model";
  let description = [{
    Code over the variables' values at entry: `dl.read` gives the value that a variable has when the function is entered, and `dl.assign` the one it
    has when the function returns (at most one for each variable). Argument attributes: `dl.name` (string), `dl.default` (f64), `dl.dim` (i64: this i64
    scalar is the value of dynamic dimension k). Result attributes: `dl.name`, `dl.log` (unit: no result for the caller, but a value of `logs`, an array with
    the words of each message that the function prints, between which its values stand). Of a message in a loop or branch they stand in a dictionary, as `words`, with `kept`, how
    many of them are kept, and the `types` of what they show; its values are then those that dl_log_line (model_abi.h) says. Unit attributes `train` and `init`, `doc` (string).
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, TypeAttrOf<FunctionType>:$function_type,
                       OptionalAttr<DictArrayAttr>:$arg_attrs, OptionalAttr<DictArrayAttr>:$res_attrs);
  let regions = (region SizedRegion<1>:$body);
  let hasCustomAssemblyFormat = 1;
  let builders = [OpBuilder<(ins "::llvm::StringRef":$name, "::mlir::FunctionType":$type)>];
  let extraClassDeclaration = [{
    ::llvm::ArrayRef<::mlir::Type> getArgumentTypes() { return getFunctionType().getInputs(); }
    ::llvm::ArrayRef<::mlir::Type> getResultTypes() { return getFunctionType().getResults(); }
    ::mlir::Region *getCallableRegion() { return &getBody(); }
    /// Whether all variables have the same values when it returns: it neither assigns nor draws.
    bool isConst();
  }];
}
def Dl_ReturnOp : Dl_Op<"return", [Pure, Terminator, HasParent<"FuncOp">, ReturnLike]> {
  let summary = "The function's results";
  let arguments = (ins Variadic<Dl_Tensor>:$operands);
  let assemblyFormat = "attr-dict ($operands^ `:` type($operands))?";
  let hasVerifier = 1;
}
def Dl_ReadOp : Dl_Op<"read", [Pure, DeclareOpInterfaceMethods<SymbolUserOpInterface>]> {
  let summary = "The value that a variable has when the function is entered";
  let arguments = (ins FlatSymbolRefAttr:$variable);
  let results = (outs Dl_Tensor:$result);
  let assemblyFormat = "$variable attr-dict `:` type($result)";
}
def Dl_AssignOp : Dl_Op<"assign", [DeclareOpInterfaceMethods<SymbolUserOpInterface>]> {
  let summary = "The value that a variable has when the function returns";
  let arguments = (ins FlatSymbolRefAttr:$variable, Dl_Tensor:$value);
  let assemblyFormat = "$variable `,` $value attr-dict `:` type($value)";
}
def Dl_GradientOp : Dl_Op<"gradient", [Pure]> {
  let summary = "The derivative of a number with respect to values it was computed from";
  let description = [{ `wrt` are any values: reads, arguments, intermediate ones. A result has its value's type. Expanded by --dl-differentiate. }];
  let arguments = (ins Dl_FloatTensor:$value, Variadic<Dl_FloatTensor>:$wrt);
  let results = (outs Variadic<Dl_FloatTensor>:$results);
  let assemblyFormat = "$value `wrt` $wrt attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
  let builders = [OpBuilder<(ins "::mlir::Value":$value, "::mlir::ValueRange":$wrt)>];
}
def Dl_CustomGradientOp : Dl_Op<"custom_gradient", [Pure, SingleBlock, DeclareOpInterfaceMethods<DifferentiableOpInterface, ["flowsTo"]>,
                                                    DeclareOpInterfaceMethods<DecomposableOpInterface, ["buildDecompositions"]>, AttrSizedOperandSegments,
                                                    RangedTypesMatchWith<"a result is a value", "values", "results", "$_self">]> {
  let summary = "Values as they are, with a derivative of their own";
  let description = [{
    The results are `values`. Their derivative flows to `wrt` alone, and is what the region computes: its arguments are the cotangents of those values that are floating point, and it yields one
    derivative for each of `wrt`. It may use what is defined before the op. Where no gradient wants it, it is taken apart into its values.
  }];
  let arguments = (ins Variadic<Dl_Tensor>:$values, Variadic<Dl_FloatTensor>:$wrt);
  let results = (outs Variadic<Dl_Tensor>:$results);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "$values (`wrt` $wrt^)? attr-dict-with-keyword $body `:` type($values) (`wrt` type($wrt)^)?";
  let hasVerifier = 1;
}
def Dl_CheckIndexOp : Dl_Op<"check_index", []> {
  let summary = "A status of the call unless every element lies in [0, size) or is `ignore`; with `fromEnd` in [-size, size)";
  let arguments = (ins Dl_IntTensor:$x, AffineMapAttr:$size, UnitAttr:$fromEnd, OptionalAttr<I64Attr>:$ignore, StrAttr:$message);
  let assemblyFormat = "$x (`either` `side` $fromEnd^)? `below` $size (`or` $ignore^)? $message attr-dict `:` type($x)";
  let hasCanonicalizer = 1;
}
def Dl_CheckSizeOp : Dl_Op<"check_size", []> {
  let summary = "A status of the call, on entry, unless two sizes compare as said";
  let arguments = (ins AffineMapAttr:$lhs, StrAttr:$predicate, AffineMapAttr:$rhs, StrAttr:$message);
  let assemblyFormat = "$lhs $predicate $rhs $message attr-dict";
  let hasVerifier = 1;
}

// ---- control flow: regions see the values around them ----
def Dl_Condition : Type<CPred<"$_self == ::mlir::RankedTensorType::get({}, ::mlir::IntegerType::get($_self.getContext(), 1))">, "one bool, tensor<i1>", "::mlir::RankedTensorType">,
                   BuildableType<"::mlir::RankedTensorType::get({}, $_builder.getI1Type())">;
def Dl_ForOp : Dl_Op<"for", [SingleBlock, RecursiveMemoryEffects, AttrSizedOperandSegments]> {
  let summary = "A loop that carries values: the body's arguments are the index and what is carried, it yields what the next turn gets";
  let description = [{
    The index counts from `first` to before `last`; without `last`, without end. With `limit` there are no more turns than that. With `while`, the first value
    that is carried is one bool, and a turn begins only where it is true: a loop that ends by `break` is a loop up to `last` with `while`, and the language's `while` one without `last`.
    The results are what is carried when the loop ends. A gradient passes through loops that have a `last`.
  }];
  let arguments = (ins AffineMapAttr:$first, OptionalAttr<AffineMapAttr>:$last, Optional<Dl_Scalar64>:$limit, UnitAttr:$conditional, Variadic<Dl_Tensor>:$inits);
  let results = (outs Variadic<Dl_Tensor>:$results);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "`from` $first (`to` $last^)? (`limit` $limit^)? (`while` $conditional^)? `(` $inits `)` attr-dict-with-keyword $body `:` functional-type($inits, $results)";
  let hasVerifier = 1;
  let builders = [OpBuilder<(ins "::mlir::AffineExpr":$first, "::mlir::AffineExpr":$last, "::mlir::Value":$limit, "bool":$conditional, "::mlir::ValueRange":$inits)>];
  let extraClassDeclaration = [{
    ::mlir::BlockArgument getIndex() { return getBody().getArgument(0); }
    ::mlir::Block::BlockArgListType getCarried() { return getBody().getArguments().drop_front(); }
    /// What the next turn gets.
    ::mlir::MutableOperandRange getNextMutable();
    ::mlir::OperandRange getNext();
    /// `last` - `first`; null without end.
    ::mlir::AffineExpr getTurns();
  }];
}
def Dl_IfOp : Dl_Op<"if", [NoRegionArguments, RecursiveMemoryEffects]> {
  let summary = "One of two branches: the results are what it yields";
  let arguments = (ins Dl_Condition:$condition);
  let results = (outs Variadic<Dl_Tensor>:$results);
  let regions = (region SizedRegion<1>:$whenTrue, SizedRegion<1>:$whenFalse);
  let assemblyFormat = "$condition attr-dict-with-keyword $whenTrue `else` $whenFalse (`:` type($results)^)?";
  let hasVerifier = 1;
}

// ---- the user's own ----
def Dl_ExternFunctionOp : Dl_Op<"extern_function", [Symbol, HasParent<"ModelOp">]> {
  let summary = "A function that the program brings along, in CUDA C++ or in C++";
  let description = [{ `function` is its name there; `cuda` and `cpp` are the paths of its files, for those targets that it has one for. Its place is the declaration's. }];
  let arguments = (ins SymbolNameAttr:$sym_name, StrAttr:$function, OptionalAttr<StrAttr>:$cuda, OptionalAttr<StrAttr>:$cpp);
  let assemblyFormat = "$sym_name $function (`cuda` $cuda^)? (`cpp` $cpp^)? attr-dict";
  let hasVerifier = 1;
}
def Dl_ExternOp : Dl_Op<"extern", [Pure, DeclareOpInterfaceMethods<SymbolUserOpInterface>, DeclareOpInterfaceMethods<KernelOpInterface>,
                                   DeclareOpInterfaceMethods<DifferentiableOpInterface>]> {
  let summary = "A call of a function that the program brings along";
  let description = [{
    The function takes pointers to the operands, pointers to the results, and `sizes`. On a GPU it runs on `blocks` blocks of `threads` threads with `shared` bytes of shared memory; on a CPU once, or, where `parallel` is there, for
    ranges that make up [0, parallel). It has no derivative: `dl.custom_gradient` gives one.
  }];
  let arguments = (ins FlatSymbolRefAttr:$function, Variadic<Dl_Tensor>:$inputs, OptionalAttr<AffineMapAttr>:$sizes, I64Attr:$threads, AffineMapAttr:$blocks, DefaultValuedAttr<I64Attr, "0">:$shared,
                       OptionalAttr<AffineMapAttr>:$parallel);
  let results = (outs Variadic<Dl_Tensor>:$results);
  let assemblyFormat = [{ $function `(` $inputs `)` (`sizes` $sizes^)? `threads` $threads `blocks` $blocks (`shared` $shared^)? (`parallel` $parallel^)? attr-dict
                          `:` functional-type($inputs, $results) }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    ExternFunctionOp getDeclaration();
    ::llvm::SmallVector<::mlir::AffineExpr> getSizeExprs();
  }];
}

// ---- fusion ----
def Dl_FusedOp : Dl_Op<"fused", [IsolatedFromAbove, SingleBlock, Pure]> {
  let summary = "Ops that become one kernel";
  let description = [{
    The body is dl ops on tensors; only its results exist in memory. `schedule` says how a target runs it:
    `loop` (elementwise over one shape), `rows` (reductions along the last axes, elementwise before and after, row by row),
    `columns` (reductions along the first axes), `gemm` (one product and its epilogue), `scatter` (updates of one value at places), or the one of a KernelOpInterface, which then
    is alone.
  }];
  let arguments = (ins StrAttr:$schedule, Variadic<Dl_Tensor>:$inputs);
  let results = (outs Variadic<Dl_Tensor>:$results);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "$schedule `(` $inputs `)` attr-dict-with-keyword $body `:` functional-type($inputs, $results)";
  let hasVerifier = 1;
}
def Dl_YieldOp : Dl_Op<"yield", [Pure, Terminator, ReturnLike, ParentOneOf<["FusedOp", "ForOp", "IfOp", "CustomGradientOp"]>]> {
  let summary = "The results of a region; of a loop's body, what the next turn gets";
  let arguments = (ins Variadic<Dl_Tensor>:$operands);
  let assemblyFormat = "attr-dict ($operands^ `:` type($operands))?";
}

#endif
