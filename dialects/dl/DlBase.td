//===- DlBase.td - the dl dialect and what its op records share -*- tablegen -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// An op's record is the whole truth about the op: its types, its words, what one element of its result is (`scalar`) and what its
// gradient is (`vjp`). The classes here turn those formulas into interface methods, so no pass ever lists ops.

#ifndef DL_BASE
#define DL_BASE

include "mlir/IR/OpBase.td"
include "mlir/IR/EnumAttr.td"
include "mlir/IR/BuiltinAttributeInterfaces.td"
include "mlir/Interfaces/SideEffectInterfaces.td"
include "mlir/Interfaces/InferTypeOpInterface.td"
include "dialects/dl/DlInterfaces.td"

def Dl_Dialect : Dialect {
  let name = "dl";
  let cppNamespace = "::dlc::dl";
  let summary = "Tensor programs with variables, gradients and training steps";
  let description = [{
    Values are ranked tensors; an unknown size is a polynomial in the model's dynamic dimensions and part of the type, as an affine map in the
    encoding: `tensor<?x784xf32, affine_map<()[s0] -> (s0, 784)>>`. Nothing is broadcast or promoted implicitly.
  }];
  let hasConstantMaterializer = 1;
}

def Dl_Tensor : RankedTensorOf<[I1, UI8, I8, I16, I32, I64, F16, BF16, F32, F64]>;
def Dl_FloatTensor : RankedTensorOf<[F16, BF16, F32, F64]>;
def Dl_F32Tensor : RankedTensorOf<[F32]>;
def Dl_IntTensor : RankedTensorOf<[UI8, I8, I16, I32, I64]>;
def Dl_IndexTensor : RankedTensorOf<[I32, I64]>;
// bytes without a sign are for moving and converting
def Dl_NumberTensor : RankedTensorOf<[I8, I16, I32, I64, F16, BF16, F32, F64]>;
def Dl_BoolTensor : RankedTensorOf<[I1]>;
def Dl_Scalar64 : Type<CPred<"$_self == ::mlir::RankedTensorType::get({}, ::mlir::IntegerType::get($_self.getContext(), 64))">, "a 64-bit integer, tensor<i64>",
                       "::mlir::RankedTensorType">,
                  BuildableType<"::mlir::RankedTensorType::get({}, $_builder.getI64Type())">;

/// The op is cheap: it is repeated in every kernel that reads it rather than kept in memory.
def RepeatedInConsumers : NativeOpTrait<"RepeatedInConsumers"> { let cppNamespace = "::dlc::dl"; }

/// ODS's accessor of an argument.
class Dl_Getter<string n> { string call = "get" # !toupper(!substr(n, 0, 1)) # !substr(n, 1) # "()"; }

class Dl_Op<string mnemonic, list<Trait> traits = []> : Op<Dl_Dialect, mnemonic, traits>;

/// Ops with a gradient written as formulas. In scope: every operand by its name, `y` (the first result), `dy` (its cotangent), all TensorExpr
/// (DlExpr.h), and the op's attributes through their accessors. One formula for each operand; "none" where no derivative flows.
class Dl_FormulaOp<string mnemonic, list<Trait> traits = []>
    : Dl_Op<mnemonic, !listconcat(traits, [Pure, DeclareOpInterfaceMethods<DifferentiableOpInterface>])> {
  list<string> vjp = [];
  code bindTensors = !interleave(!foreach(i, !range(!size(arguments)),
      !if(!isa<TypeConstraint>(!getdagarg<Constraint>(arguments, i)),
          "[[maybe_unused]] TensorExpr " # !getdagname(arguments, i) # "(b, getLoc(), " # Dl_Getter<!getdagname(arguments, i)>.call # ");", "")), "\n  ");
  code vjpDef = !if(!empty(vjp), "", [{
::llvm::LogicalResult $cppClass::buildVjp(::mlir::OpBuilder &b, ::mlir::ValueRange cotangents, ::llvm::SmallVectorImpl<::mlir::Value> &grads) {
  using namespace ::dlc::dl;
  [[maybe_unused]] const ::dlc::dl::NoGradient none;
  }] # bindTensors # [{
  [[maybe_unused]] TensorExpr y(b, getLoc(), getOperation()->getResult(0)), dy(b, getLoc(), cotangents[0]);
}] # !interleave(!foreach(e, vjp, "  grads.push_back(::dlc::dl::gradient(" # e # "));"), "\n") # [{
  return ::mlir::success();
}
}]);
}

/// Ops whose result element depends on the operands' elements at the same index alone. `scalar` says how, over ScalarExpr (DlExpr.h), which stands
/// for one number or a vector of them.
class Dl_ElementwiseOp<string mnemonic, list<Trait> traits = []>
    : Dl_FormulaOp<mnemonic, !listconcat(traits, [SameOperandsAndResultShape, DeclareOpInterfaceMethods<ElementwiseOpInterface>])> {
  string scalar = "";
  code scalarDef = [{
::mlir::Value $cppClass::buildElement(::mlir::OpBuilder &b, ::mlir::Location loc, ::mlir::ValueRange elements) {
  using namespace ::dlc::dl;
  }] # !interleave(!foreach(i, !range(!size(arguments)),
      !if(!isa<TypeConstraint>(!getdagarg<Constraint>(arguments, i)),
          // its number among the operands
          "[[maybe_unused]] ScalarExpr " # !getdagname(arguments, i) # "(b, loc, elements["
              # !size(!filter(k, !range(i), !isa<TypeConstraint>(!getdagarg<Constraint>(arguments, k)))) # "]);", "")), "\n  ") # [{
  return (}] # scalar # [{).value;
}
}];
  let extraClassDefinition = scalarDef # vjpDef;
}

class Dl_StructuralOp<string mnemonic, list<Trait> traits = []> : Dl_Op<mnemonic, !listconcat(traits, [Pure])>;

#endif
