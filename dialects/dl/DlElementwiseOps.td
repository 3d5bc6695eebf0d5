//===- DlElementwiseOps.td - one element from one element -*- tablegen -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// To add an op: one record here, one line in test/dialects/dl/elementwise.mlir. Parser, verifier, gradient, fusion, code for every target, the name
// in the language, and its numeric test by enumeration follow from the record.
//
// In gradients, mulNoNan(d, dy) is d * dy, and 0 where dy is 0 even if d is infinite or NaN (rule 13 of the language).

#ifndef DL_ELEMENTWISE_OPS
#define DL_ELEMENTWISE_OPS

include "dialects/dl/DlBase.td"

class Dl_UnaryOp<string mnemonic, Constraint type = Dl_FloatTensor, list<Trait> traits = []>
    : Dl_ElementwiseOp<mnemonic, !listconcat(traits, [SameOperandsAndResultType])> {
  let arguments = (ins type:$x);
  let results = (outs type:$result);
  let assemblyFormat = "$x attr-dict `:` type($result)";
}
class Dl_BinaryOp<string mnemonic, Constraint type = Dl_NumberTensor, list<Trait> traits = []>
    : Dl_ElementwiseOp<mnemonic, !listconcat(traits, [SameOperandsAndResultType])> {
  let arguments = (ins type:$lhs, type:$rhs);
  let results = (outs type:$result);
  let assemblyFormat = "$lhs `,` $rhs attr-dict `:` type($result)";
}

// ---- numbers ----
def Dl_AddOp : Dl_BinaryOp<"add"> {
  let summary = "Sum";
  let scalar = "lhs + rhs";
  let vjp = ["dy", "dy"];
  let hasFolder = 1;
}
def Dl_SubOp : Dl_BinaryOp<"sub"> {
  let summary = "Difference";
  let scalar = "lhs - rhs";
  let vjp = ["dy", "-dy"];
  let hasFolder = 1;
}
def Dl_MulOp : Dl_BinaryOp<"mul"> {
  let summary = "Product";
  let scalar = "lhs * rhs";
  let vjp = ["mulNoNan(rhs, dy)", "mulNoNan(lhs, dy)"];
  let hasFolder = 1;
}
def Dl_MulNoNanOp : Dl_BinaryOp<"mul_no_nan", Dl_FloatTensor> {
  let summary = "Product that is 0 where the second factor is 0, even if the first is infinite or NaN";
  let scalar = "select(eq(rhs, 0.0), lhs.number(0.0), lhs * rhs)";
  let vjp = ["mulNoNan(rhs, dy)", "mulNoNan(lhs, dy)"];
  let hasFolder = 1;
  let hasCanonicalizer = 1;
}
def Dl_DivOp : Dl_BinaryOp<"div", Dl_FloatTensor> {
  let summary = "Quotient";
  let scalar = "lhs / rhs";
  let vjp = ["divNoNan(dy, rhs)", "-mulNoNan(y / rhs, dy)"];
  let hasFolder = 1;
  let hasCanonicalizer = 1;
}
def Dl_DivNoNanOp : Dl_BinaryOp<"div_no_nan", Dl_FloatTensor> {
  let summary = "Quotient that is 0 where the dividend is 0, even if the divisor is 0 or NaN";
  let scalar = "select(eq(lhs, 0.0), lhs.number(0.0), lhs / rhs)";
  let vjp = ["divNoNan(dy, rhs)", "-mulNoNan(divNoNan(y, rhs), dy)"];
}
def Dl_RemOp : Dl_BinaryOp<"rem"> {
  let summary = "Remainder with the sign of the divisor, as in Python";
  let scalar = "remainder(lhs, rhs)";
  let vjp = ["dy", "-mulNoNan(floor(lhs / rhs), dy)"];
}
def Dl_FloorDivideOp : Dl_BinaryOp<"floor_divide"> {
  let summary = "Quotient rounded down";
  let scalar = "floorDivide(lhs, rhs)";
  let vjp = ["none", "none"];
}
def Dl_PowOp : Dl_BinaryOp<"pow", Dl_FloatTensor> {
  let summary = "Power; the corners are those of C99";
  let scalar = "pow(lhs, rhs)";
  let vjp = ["mulNoNan(rhs * pow(lhs, rhs - 1.0), dy)", "mulNoNan(select(eq(lhs, 0.0), lhs.number(0.0), y * log(lhs)), dy)"];
  let hasFolder = 1;
  let hasCanonicalizer = 1;
}
def Dl_MaximumOp : Dl_BinaryOp<"maximum"> {
  let summary = "The larger number; NaN if one is. Where both are equal the gradient goes to the first";
  let scalar = "maximum(lhs, rhs)";
  let vjp = ["select(lt(lhs, rhs), dy.number(0.0), dy)", "select(lt(lhs, rhs), dy, dy.number(0.0))"];
  let hasCanonicalizer = 1;
}
def Dl_MinimumOp : Dl_BinaryOp<"minimum"> {
  let summary = "The smaller number; NaN if one is. Where both are equal the gradient goes to the first";
  let scalar = "minimum(lhs, rhs)";
  let vjp = ["select(gt(lhs, rhs), dy.number(0.0), dy)", "select(gt(lhs, rhs), dy, dy.number(0.0))"];
}
def Dl_NegOp : Dl_UnaryOp<"neg", Dl_NumberTensor> {
  let summary = "Negation";
  let scalar = "-x";
  let vjp = ["-dy"];
  let hasFolder = 1;
}
def Dl_AbsOp : Dl_UnaryOp<"abs", Dl_NumberTensor> {
  let summary = "Absolute value; gradient 0 at 0";
  let scalar = "abs(x)";
  let vjp = ["mulNoNan(sign(x), dy)"];
}
def Dl_SignOp : Dl_UnaryOp<"sign", Dl_NumberTensor> {
  let summary = "-1, 0 or 1; NaN stays NaN";
  let scalar = "select(gt(x, 0.0), x.number(1.0), select(lt(x, 0.0), x.number(-1.0), x))";
  let vjp = ["none"];
}
def Dl_ExpOp : Dl_UnaryOp<"exp"> {
  let summary = "Exponential";
  let scalar = "exp(x)";
  let vjp = ["mulNoNan(y, dy)"];
}
def Dl_LogOp : Dl_UnaryOp<"log"> {
  let summary = "Natural logarithm";
  let scalar = "log(x)";
  let vjp = ["divNoNan(dy, x)"];
}
def Dl_SqrtOp : Dl_UnaryOp<"sqrt"> {
  let summary = "Square root";
  let scalar = "sqrt(x)";
  let vjp = ["divNoNan(dy * 0.5, y)"];
}
def Dl_RsqrtOp : Dl_UnaryOp<"rsqrt"> {
  let summary = "1 / sqrt(x)";
  let scalar = "x.number(1.0) / sqrt(x)";
  let vjp = ["mulNoNan(y / x * -0.5, dy)"];
}
def Dl_TanhOp : Dl_UnaryOp<"tanh"> {
  let summary = "Hyperbolic tangent";
  let scalar = "tanh(x)";
  let vjp = ["mulNoNan((1.0 - y) * (1.0 + y), dy)"]; // keeps digits near |y| = 1
}
def Dl_ErfOp : Dl_UnaryOp<"erf"> {
  let summary = "Error function";
  let scalar = "erf(x)";
  let vjp = ["mulNoNan(exp(-(x * x)) * 1.1283791670955126, dy)"]; // 2 / sqrt(pi)
}
def Dl_SinOp : Dl_UnaryOp<"sin"> {
  let summary = "Sine";
  let scalar = "sin(x)";
  let vjp = ["mulNoNan(cos(x), dy)"];
}
def Dl_CosOp : Dl_UnaryOp<"cos"> {
  let summary = "Cosine";
  let scalar = "cos(x)";
  let vjp = ["-mulNoNan(sin(x), dy)"];
}
def Dl_SigmoidOp : Dl_UnaryOp<"sigmoid"> {
  let summary = "1 / (1 + exp(-x))";
  let scalar = "x.number(1.0) / (exp(-x) + 1.0)";
  let vjp = ["mulNoNan(y * (1.0 - y), dy)"];
}
def Dl_ReluOp : Dl_UnaryOp<"relu"> {
  let summary = "x where x > 0, else 0; NaN stays NaN. Gradient 0 at 0";
  let scalar = "select(le(x, 0.0), x.number(0.0), x)";
  let vjp = ["select(le(y, 0.0), dy.number(0.0), dy)"];
}
def Dl_GeluOp : Dl_UnaryOp<"gelu"> {
  let summary = "x * Phi(x), the erf form (Hendrycks and Gimpel, arXiv:1606.08415)";
  let scalar = "x * 0.5 * (erf(x * 0.7071067811865476) + 1.0)";
  let vjp = ["mulNoNan((erf(x * 0.7071067811865476) + 1.0) * 0.5 + mulNoNan(x, exp(x * x * -0.5)) * 0.3989422804014327, dy)"]; // Phi + x phi
}
// x * sigmoid(v) with v = 2 sqrt(2 / pi) (x + 0.044715 x^3): what 1 + tanh(v / 2) is, without the digits that it loses where tanh is near -1.
def Dl_GeluTanhOp : Dl_UnaryOp<"gelu_tanh"> {
  let summary = "x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2, the approximation of gelu in the same paper";
  let scalar = "x / (exp(x * (x * x * -0.07135481627260025 - x.number(1.5957691216057308))) + 1.0)";
  let vjp = ["mulNoNan(geluTanhDerivative(x), dy)"];
}
// Repeated in its readers, so that x is what lies in memory between a forward pass and its gradient: what cuBLASLt's epilogues write and read there.
def Dl_GeluTanhDerivativeOp : Dl_UnaryOp<"gelu_tanh_derivative", Dl_FloatTensor, [RepeatedInConsumers]> {
  let summary = "The derivative of gelu_tanh: s + x v' s (1 - s), where s = sigmoid(v)";
  let scalar = "geluTanhDerivative(x)";
  let vjp = ["mulNoNan(geluTanhSecondDerivative(x), dy)"];
}
def Dl_SiluOp : Dl_UnaryOp<"silu"> {
  let summary = "x * sigmoid(x)";
  let scalar = "x / (exp(-x) + 1.0)";
  let vjp = ["mulNoNan(mulNoNan(1.0 + mulNoNan(x, 1.0 - sigmoid(x)), sigmoid(x)), dy)"];
}
def Dl_SoftplusOp : Dl_UnaryOp<"softplus"> {
  let summary = "log(1 + exp(x)), without overflow";
  let scalar = "maximum(x, x.number(0.0)) + log1p(exp(-abs(x)))";
  let vjp = ["mulNoNan(sigmoid(x), dy)"];
}
def Dl_RoundOp : Dl_UnaryOp<"round"> {
  let summary = "The nearest whole number, halves to even";
  let scalar = "roundEven(x)";
  let vjp = ["none"];
}
def Dl_FloorOp : Dl_UnaryOp<"floor"> {
  let summary = "The largest whole number not above x";
  let scalar = "floor(x)";
  let vjp = ["none"];
}

// ---- conditions ----
def Dl_ComparePredicate : I32EnumAttr<"ComparePredicate", "order of two numbers",
    [I32EnumAttrCase<"eq", 0>, I32EnumAttrCase<"ne", 1>, I32EnumAttrCase<"lt", 2>, I32EnumAttrCase<"le", 3>, I32EnumAttrCase<"gt", 4>, I32EnumAttrCase<"ge", 5>]> {
  let cppNamespace = "::dlc::dl";
}
def Dl_CompareOp : Dl_ElementwiseOp<"compare", [RepeatedInConsumers, SameTypeOperands, DeclareOpInterfaceMethods<InferTypeOpInterface>]> {
  let summary = "Compares; false where an operand is NaN, except ne";
  let arguments = (ins Dl_Tensor:$lhs, Dl_Tensor:$rhs, Dl_ComparePredicate:$predicate);
  let results = (outs Dl_BoolTensor:$result);
  let assemblyFormat = "$predicate $lhs `,` $rhs attr-dict `:` type($lhs) `->` type($result)";
  let scalar = "compare(getPredicate(), lhs, rhs, isUnsigned(getLhs().getType()))";
  let vjp = ["none", "none"];
}
def Dl_SelectOp : Dl_ElementwiseOp<"select", [AllTypesMatch<["whenTrue", "whenFalse", "result"]>]> {
  let summary = "The second operand's element where the first's is true, else the third's. The language's `where`";
  let arguments = (ins Dl_BoolTensor:$condition, Dl_Tensor:$whenTrue, Dl_Tensor:$whenFalse);
  let results = (outs Dl_Tensor:$result);
  let assemblyFormat = "$condition `,` $whenTrue `,` $whenFalse attr-dict `:` type($condition) `,` type($result)";
  let scalar = "select(condition, whenTrue, whenFalse)";
  let vjp = ["none", "select(condition, dy, dy.number(0.0))", "select(condition, dy.number(0.0), dy)"];
}
def Dl_AndOp : Dl_BinaryOp<"and", Dl_BoolTensor, [RepeatedInConsumers]> { let summary = "Both"; let scalar = "lhs & rhs"; let vjp = ["none", "none"]; }
def Dl_OrOp : Dl_BinaryOp<"or", Dl_BoolTensor, [RepeatedInConsumers]> { let summary = "One or both"; let scalar = "lhs | rhs"; let vjp = ["none", "none"]; }
def Dl_NotOp : Dl_UnaryOp<"not", Dl_BoolTensor, [RepeatedInConsumers]> { let summary = "The other truth value"; let scalar = "!x"; let vjp = ["none"]; }

def Dl_ConvertOp : Dl_ElementwiseOp<"convert", [RepeatedInConsumers]> {
  let summary = "Another element type: rounds to nearest, truncates to integers, false and true are 0 and 1";
  let arguments = (ins Dl_Tensor:$x);
  let results = (outs Dl_Tensor:$result);
  let assemblyFormat = "$x attr-dict `:` type($x) `->` type($result)";
  let scalar = "convert(x, ::mlir::getElementTypeOrSelf(getX()), ::mlir::getElementTypeOrSelf(getResult()))";
  let vjp = ["convertGradient(dy, x)"];
  let hasFolder = 1;
}
// What a product's operands are under a model's precision: the numbers of the smaller type, still in f32, in which they are multiplied and added up.
def Dl_RoundToOp : Dl_ElementwiseOp<"round_to", [SameOperandsAndResultType]> {
  let summary = "The nearest number of a smaller type, bf16 or f16, halves to even: infinite beyond its largest, its denormals kept, NaN stays NaN. Gradient as of a conversion";
  let arguments = (ins TypeAttr:$format, Dl_F32Tensor:$x);
  let results = (outs Dl_F32Tensor:$result);
  let assemblyFormat = "$format $x attr-dict `:` type($result)";
  let scalar = "roundTo(x, getFormat())";
  let vjp = ["dy"];
  let hasVerifier = 1;
  let hasFolder = 1;
}
def Dl_StopGradientOp : Dl_UnaryOp<"stop_gradient", Dl_Tensor, [RepeatedInConsumers]> {
  let summary = "The value, through which no gradient flows";
  let scalar = "x";
  let vjp = ["none"];
}

#endif
