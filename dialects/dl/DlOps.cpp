//===- DlOps.cpp - verifiers, types, folds that ODS cannot say -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "dialects/dl/DlExpr.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/IR/IRMapping.h"
#include "mlir/IR/Matchers.h"
#include "mlir/IR/PatternMatch.h"
#include "mlir/Interfaces/FunctionImplementation.h"

using namespace mlir;
using namespace dlc::dl;

//===--- what folds share ---===//

/// The number that a value is full of.
static std::optional<double> filledWith(Value value) {
  auto fill = value.getDefiningOp<FillOp>();
  if (!fill)
    return std::nullopt;
  if (auto number = dyn_cast<FloatAttr>(fill.getValue()))
    return number.getValueAsDouble();
  return static_cast<double>(cast<IntegerAttr>(fill.getValue()).getInt());
}
static bool isFilledWith(Value value, double number) { return filledWith(value) == number; }

//===--- elementwise ---===//

LogicalResult CompareOp::inferReturnTypes(MLIRContext *context, std::optional<Location> location, ValueRange operands, DictionaryAttr, OpaqueProperties, RegionRange,
                                          SmallVectorImpl<Type> &results) {
  results.push_back(withElementType(cast<RankedTensorType>(operands[0].getType()), IntegerType::get(context, 1)));
  return success();
}

// x + 0 keeps x but for -0 + 0, which is 0: a sign of zero that no program may rely on in a sum.
OpFoldResult AddOp::fold(FoldAdaptor) {
  if (isFilledWith(getRhs(), 0))
    return getLhs();
  if (isFilledWith(getLhs(), 0))
    return getRhs();
  return {};
}
OpFoldResult SubOp::fold(FoldAdaptor) { return isFilledWith(getRhs(), 0) ? OpFoldResult(getLhs()) : OpFoldResult(); }
OpFoldResult MulOp::fold(FoldAdaptor) {
  if (isFilledWith(getRhs(), 1))
    return getLhs();
  if (isFilledWith(getLhs(), 1))
    return getRhs();
  return {};
}
OpFoldResult MulNoNanOp::fold(FoldAdaptor) {
  if (isFilledWith(getRhs(), 1))
    return getLhs();
  if (isFilledWith(getLhs(), 1))
    return getRhs();
  return {};
}
OpFoldResult DivOp::fold(FoldAdaptor) { return isFilledWith(getRhs(), 1) ? OpFoldResult(getLhs()) : OpFoldResult(); }
OpFoldResult NegOp::fold(FoldAdaptor) {
  if (auto inner = getX().getDefiningOp<NegOp>())
    return inner.getX();
  return {};
}
OpFoldResult PowOp::fold(FoldAdaptor) { return isFilledWith(getRhs(), 1) ? OpFoldResult(getLhs()) : OpFoldResult(); }
static bool isSmallFloat(Type type) { return type.isBF16() || type.isF16(); }
LogicalResult RoundToOp::verify() {
  if (!isSmallFloat(getFormat()))
    return emitOpError() << "rounds to " << getFormat() << "; expected bf16 or f16";
  return success();
}
/// Rounded once is rounded. A number that was rounded to another type may have to be rounded again.
OpFoldResult RoundToOp::fold(FoldAdaptor) {
  auto inner = getX().getDefiningOp<RoundToOp>();
  return inner && inner.getFormat() == getFormat() ? OpFoldResult(getX()) : OpFoldResult();
}
OpFoldResult ConvertOp::fold(FoldAdaptor) { return getX().getType() == getType() ? OpFoldResult(getX()) : OpFoldResult(); }

namespace {
/// Small whole exponents, and halves, as products and roots: exact, and cheap.
struct ExpandPower : OpRewritePattern<PowOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(PowOp op, PatternRewriter &rewriter) const override {
    std::optional<double> exponent = filledWith(op.getRhs());
    if (!exponent)
      return failure();
    TensorExpr x(rewriter, op.getLoc(), op.getLhs());
    if (*exponent == 0)
      rewriter.replaceOp(op, x.number(1.0).value);
    else if (*exponent == 2)
      rewriter.replaceOp(op, (x * x).value);
    else if (*exponent == 3)
      rewriter.replaceOp(op, (x * x * x).value);
    else if (*exponent == 4) {
      TensorExpr square = x * x;
      rewriter.replaceOp(op, (square * square).value);
    } else if (*exponent == -1)
      rewriter.replaceOp(op, (x.number(1.0) / x).value);
    else
      return failure();
    return success();
  }
};
/// maximum(x, 0) is relu: its gradient at 0 is 0 (rule 13 of the language).
struct MaximumIsRelu : OpRewritePattern<MaximumOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(MaximumOp op, PatternRewriter &rewriter) const override {
    if (!isFilledWith(op.getRhs(), 0) || !isa<FloatType>(getElementTypeOrSelf(op.getType())))
      return failure();
    rewriter.replaceOpWithNewOp<ReluOp>(op, op.getLhs());
    return success();
  }
};
/// A product with a transposed operand reads the operand as it lies.
struct FoldTransposeIntoMatmul : OpRewritePattern<MatmulOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(MatmulOp op, PatternRewriter &rewriter) const override {
    auto swapsLastTwo = [](Value value) -> Value {
      auto transpose = value.getDefiningOp<TransposeOp>();
      if (!transpose)
        return {};
      ArrayRef<int64_t> permutation = transpose.getPermutation();
      int64_t rank = permutation.size();
      for (int64_t i = 0; i < rank - 2; ++i)
        if (permutation[i] != i)
          return {};
      return permutation[rank - 2] == rank - 1 ? transpose.getX() : Value();
    };
    Value lhs = swapsLastTwo(op.getLhs()), rhs = swapsLastTwo(op.getRhs());
    if (!lhs && !rhs)
      return failure();
    rewriter.replaceOpWithNewOp<MatmulOp>(op, lhs ? lhs : op.getLhs(), rhs ? rhs : op.getRhs(), op.getLhsTransposed() != static_cast<bool>(lhs),
                                          op.getRhsTransposed() != static_cast<bool>(rhs));
    return success();
  }
};
/// All elements are divided by one number that a step has computed in f64: its inverse in f64, rounded once as the number itself would be, is as accurate a
/// factor, and a product costs a fraction of a quotient.
struct DivideByNarrowedScalar : OpRewritePattern<DivOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(DivOp op, PatternRewriter &rewriter) const override {
    auto broadcast = op.getRhs().getDefiningOp<BroadcastOp>();
    auto narrow = broadcast ? broadcast.getX().getDefiningOp<ConvertOp>() : ConvertOp();
    if (!narrow || cast<RankedTensorType>(narrow.getType()).getRank() != 0 || !getElementTypeOrSelf(narrow.getX().getType()).isF64() ||
        !getElementTypeOrSelf(narrow.getType()).isF32())
      return failure();
    TensorExpr wide(rewriter, op.getLoc(), narrow.getX());
    Value inverse = ConvertOp::create(rewriter, op.getLoc(), narrow.getType(), (wide.number(1.0) / wide).value);
    inverse = BroadcastOp::create(rewriter, op.getLoc(), op.getType(), inverse, broadcast.getAxes());
    rewriter.replaceOpWithNewOp<MulOp>(op, op.getLhs(), inverse);
    return success();
  }
};
/// By a number other than 0 the product is a plain one.
struct MulNoNanByNumber : OpRewritePattern<MulNoNanOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(MulNoNanOp op, PatternRewriter &rewriter) const override {
    std::optional<double> factor = filledWith(op.getRhs());
    if (!factor)
      return failure();
    if (*factor == 0)
      rewriter.replaceOp(op, op.getRhs());
    else
      rewriter.replaceOpWithNewOp<MulOp>(op, op.getLhs(), op.getRhs());
    return success();
  }
};
/// Sizes that are assumed move towards the arguments: what computes in between has one shape, the one of what it meets.
struct AssumeShapeEarlier : OpRewritePattern<AssumeShapeOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(AssumeShapeOp op, PatternRewriter &rewriter) const override {
    auto to = cast<RankedTensorType>(op.getType());
    Operation *def = op.getX().getDefiningOp();
    if (!def)
      return failure();
    auto assume = [&](Value value, RankedTensorType shape) {
      return AssumeShapeOp::create(rewriter, op.getLoc(), withElementType(shape, getElementTypeOrSelf(value.getType())), value).getResult();
    };
    if (auto fill = dyn_cast<FillOp>(def)) {
      rewriter.replaceOpWithNewOp<FillOp>(op, to, fill.getValue());
      return success();
    }
    if (!def->hasOneUse())
      return failure();
    if (auto broadcast = dyn_cast<BroadcastOp>(def)) {
      SmallVector<AffineExpr> sizes = sizesOf(broadcast.getX()), before = sizesOf(broadcast.getResult()), after = sizesOf(to);
      for (auto [size, axis] : llvm::zip_equal(sizes, broadcast.getAxes()))
        if (size == before[axis])
          size = after[axis];
      Value x = assume(broadcast.getX(), tensorType(sizes, to.getElementType()));
      rewriter.replaceOpWithNewOp<BroadcastOp>(op, to, x, broadcast.getAxes());
      return success();
    }
    if (!isa<ElementwiseOpInterface>(def))
      return failure();
    SmallVector<Value> operands;
    for (Value operand : def->getOperands())
      operands.push_back(assume(operand, to));
    Operation *earlier = rewriter.create(def->getLoc(), def->getName().getIdentifier(), operands, to, def->getAttrs());
    rewriter.replaceOp(op, earlier->getResults());
    return success();
  }
};
} // namespace
void AssumeShapeOp::getCanonicalizationPatterns(RewritePatternSet &patterns, MLIRContext *context) { patterns.add<AssumeShapeEarlier>(context); }
void MulNoNanOp::getCanonicalizationPatterns(RewritePatternSet &patterns, MLIRContext *context) { patterns.add<MulNoNanByNumber>(context); }
void DivOp::getCanonicalizationPatterns(RewritePatternSet &patterns, MLIRContext *context) { patterns.add<DivideByNarrowedScalar>(context); }
void PowOp::getCanonicalizationPatterns(RewritePatternSet &patterns, MLIRContext *context) { patterns.add<ExpandPower>(context); }
void MaximumOp::getCanonicalizationPatterns(RewritePatternSet &patterns, MLIRContext *context) { patterns.add<MaximumIsRelu>(context); }
void MatmulOp::getCanonicalizationPatterns(RewritePatternSet &patterns, MLIRContext *context) { patterns.add<FoldTransposeIntoMatmul>(context); }

//===--- generators ---===//

void FillOp::build(OpBuilder &b, OperationState &state, RankedTensorType type, double value) {
  Type element = type.getElementType();
  TypedAttr attr = isa<FloatType>(element) ? TypedAttr(b.getF64FloatAttr(value)) : TypedAttr(b.getI64IntegerAttr(static_cast<int64_t>(value)));
  build(b, state, type, attr);
}
void FillOp::build(OpBuilder &b, OperationState &state, RankedTensorType type, int64_t value) {
  Type element = type.getElementType();
  TypedAttr attr = isa<FloatType>(element) ? TypedAttr(b.getF64FloatAttr(static_cast<double>(value))) : TypedAttr(b.getI64IntegerAttr(value));
  build(b, state, type, attr);
}
// A constant folds to its number: the folder tells fills of one type apart by it.
OpFoldResult FillOp::fold(FoldAdaptor) { return getValue(); }
LogicalResult FillOp::verify() {
  bool isFloat = isa<FloatType>(getElementTypeOrSelf(getType()));
  if (isFloat ? !getValue().getType().isF64() : !getValue().getType().isInteger(64))
    return emitOpError() << "fills " << getType() << " with a number of type " << getValue().getType() << "; expected " << (isFloat ? "f64" : "i64");
  return success();
}
LogicalResult ConstantOp::verify() {
  auto type = cast<RankedTensorType>(getType());
  auto value = getValue().getShapedType();
  if (type.getEncoding() || value.getShape() != type.getShape() || value.getElementType() != type.getElementType())
    return emitOpError() << "has numbers of type " << value << " for a result of type " << type;
  return success();
}
LogicalResult SizeOp::verify() {
  if (getMap().getNumResults() != 1 || getMap().getNumDims() != 0 || cast<RankedTensorType>(getType()).getRank() != 0)
    return emitOpError() << "needs one size and a scalar result";
  return success();
}
LogicalResult IotaOp::verify() {
  int64_t rank = cast<RankedTensorType>(getType()).getRank();
  if (getAxis() >= static_cast<uint64_t>(rank))
    return emitOpError() << "counts along axis " << getAxis() << " of a tensor of rank " << rank;
  return success();
}
LogicalResult RandintOp::verify() {
  int64_t low = getLow(), high = getHigh();
  if (low >= high || high - low > (int64_t(1) << 32) - 1)
    return emitOpError() << "draws from [" << low << ", " << high << "), which must hold between 1 and 2^32 - 1 numbers";
  return success();
}

//===--- elements that move ---===//

OpFoldResult BroadcastOp::fold(FoldAdaptor) { return getX().getType() == getType() ? OpFoldResult(getX()) : OpFoldResult(); }
OpFoldResult TransposeOp::fold(FoldAdaptor) {
  for (auto [i, axis] : llvm::enumerate(getPermutation()))
    if (static_cast<int64_t>(i) != axis)
      return {};
  return getX();
}
OpFoldResult ReshapeOp::fold(FoldAdaptor) {
  if (getX().getType() == getType())
    return getX();
  if (auto inner = getX().getDefiningOp<ReshapeOp>()) {
    getXMutable().assign(inner.getX());
    return getResult();
  }
  return {};
}
OpFoldResult AssumeShapeOp::fold(FoldAdaptor) {
  if (getX().getType() == getType())
    return getX();
  if (auto inner = getX().getDefiningOp<AssumeShapeOp>()) {
    getXMutable().assign(inner.getX());
    return getResult();
  }
  return {};
}
OpFoldResult SliceOp::fold(FoldAdaptor) { return getX().getType() == getType() && llvm::all_of(getStrides(), [](int64_t s) { return s == 1; }) ? OpFoldResult(getX()) : OpFoldResult(); }

LogicalResult BroadcastOp::verify() {
  auto from = cast<RankedTensorType>(getX().getType()), to = cast<RankedTensorType>(getType());
  SmallVector<AffineExpr> a = sizesOf(from), c = sizesOf(to);
  if (from.getElementType() != to.getElementType() || static_cast<int64_t>(getAxes().size()) != from.getRank())
    return emitOpError() << "broadcasts " << from << " to " << to << " along " << getAxes().size() << " axes";
  int64_t before = -1;
  for (auto [i, axis] : llvm::enumerate(getAxes())) {
    if (axis <= before || axis >= to.getRank())
      return emitOpError() << "axis " << axis << " is out of order or beyond rank " << to.getRank();
    before = axis;
    if (a[i] != c[axis] && a[i] != getAffineConstantExpr(1, getContext()))
      return emitOpError() << "operand dimension " << i << " of size " << sizeToString(a[i], {}) << " does not fit result dimension " << axis << " of size " << sizeToString(c[axis], {});
  }
  return success();
}
SmallVector<Value> BroadcastOp::mapIndices(OpBuilder &b, Location loc, ValueRange indices, llvm::function_ref<Value(AffineExpr)>) {
  SmallVector<AffineExpr> a = sizesOf(getX()), c = sizesOf(getResult());
  SmallVector<Value> out;
  for (auto [i, axis] : llvm::enumerate(getAxes()))
    out.push_back(a[i] == c[axis] ? indices[axis] : arith::ConstantIndexOp::create(b, loc, 0).getResult());
  return out;
}
std::optional<int64_t> BroadcastOp::getInnermostStride() {
  int64_t last = cast<RankedTensorType>(getType()).getRank() - 1;
  return !getAxes().empty() && getAxes().back() == last && sizesOf(getX()).back() == sizesOf(getResult()).back() ? 1 : 0;
}
std::optional<SmallVector<int64_t>> BroadcastOp::getAxisMap() {
  SmallVector<AffineExpr> a = sizesOf(getX()), c = sizesOf(getResult());
  for (auto [i, axis] : llvm::enumerate(getAxes()))
    if (a[i] != c[axis])
      return std::nullopt;
  return llvm::to_vector(getAxes());
}
bool BroadcastOp::keepsOrder() { return false; }
bool BroadcastOp::hasStrides() { return true; }

LogicalResult ReshapeOp::verify() {
  auto from = cast<RankedTensorType>(getX().getType()), to = cast<RankedTensorType>(getType());
  if (from.getElementType() != to.getElementType() || elementCount(from) != elementCount(to))
    return emitOpError() << "reshapes " << sizeToString(elementCount(from), {}) << " elements of " << from << " to " << sizeToString(elementCount(to), {}) << " of " << to;
  return success();
}
SmallVector<Value> ReshapeOp::mapIndices(OpBuilder &b, Location loc, ValueRange indices, llvm::function_ref<Value(AffineExpr)> size) {
  // Groups of dimensions with equal products are mapped on their own: a group of one on either side needs no division.
  SmallVector<AffineExpr> from = sizesOf(getX()), to = sizesOf(getResult());
  MLIRContext *context = b.getContext();
  SmallVector<Value> out(from.size());
  AffineExpr one = getAffineConstantExpr(1, context);
  size_t i = 0, j = 0;
  auto mul = [&](Value x, AffineExpr n) { return n == one ? x : arith::MulIOp::create(b, loc, x, size(n)).getResult(); };
  while (i < from.size() || j < to.size()) {
    size_t iEnd = std::min(i + 1, from.size()), jEnd = std::min(j + 1, to.size());
    auto product = [&](ArrayRef<AffineExpr> sizes, size_t begin, size_t end) { return productOf(sizes.slice(begin, end - begin), context); };
    while (product(from, i, iEnd) != product(to, j, jEnd)) {
      // Grow the side that is behind; sizes are unknown, so grow both in turn until the products agree (they do at the end).
      auto f = dyn_cast<AffineConstantExpr>(product(from, i, iEnd)), t = dyn_cast<AffineConstantExpr>(product(to, j, jEnd));
      bool growFrom = f && t ? f.getValue() < t.getValue() : (iEnd - i) <= (jEnd - j);
      if (growFrom ? iEnd < from.size() : jEnd == to.size())
        ++iEnd;
      else
        ++jEnd;
      if (iEnd > from.size() || jEnd > to.size()) {
        iEnd = from.size();
        jEnd = to.size();
        break;
      }
    }
    if (iEnd - i == 1 && jEnd - j == 1)
      out[i] = indices[j];
    else {
      Value linear;
      for (size_t k = j; k < jEnd; ++k) {
        Value step = to[k] == one ? Value() : mul(indices[k], product(to, k + 1, jEnd));
        if (step)
          linear = linear ? arith::AddIOp::create(b, loc, linear, step).getResult() : step;
      }
      if (!linear)
        linear = arith::ConstantIndexOp::create(b, loc, 0);
      // Leading dimensions of size 1 take no part; the first other one takes the quotient without a remainder.
      bool first = true;
      for (size_t k = i; k < iEnd; ++k) {
        if (from[k] == one) {
          out[k] = arith::ConstantIndexOp::create(b, loc, 0);
          continue;
        }
        AffineExpr inner = product(from, k + 1, iEnd);
        Value index = inner == one ? linear : arith::DivUIOp::create(b, loc, linear, size(inner)).getResult();
        out[k] = first ? index : arith::RemUIOp::create(b, loc, index, size(from[k])).getResult();
        first = false;
      }
    }
    i = iEnd;
    j = jEnd;
  }
  return out;
}
std::optional<int64_t> ReshapeOp::getInnermostStride() {
  SmallVector<AffineExpr> from = sizesOf(getX()), to = sizesOf(getResult());
  if (from.empty() || (!to.empty() && to.back() == getAffineConstantExpr(1, getContext())))
    return 0;
  return !to.empty() && from.back() == to.back() ? std::optional<int64_t>(1) : std::nullopt;
}

std::optional<SmallVector<int64_t>> ReshapeOp::getAxisMap() { return std::nullopt; }
bool ReshapeOp::keepsOrder() { return true; }
bool ReshapeOp::hasStrides() { return false; } // where it keeps the order of what lies there row by row, keepsOrder says so

LogicalResult AssumeShapeOp::verify() {
  auto from = cast<RankedTensorType>(getX().getType()), to = cast<RankedTensorType>(getType());
  bool fits = from.getElementType() == to.getElementType() && from.getRank() == to.getRank();
  for (int64_t axis = 0; fits && axis < from.getRank(); ++axis)
    fits = from.isDynamicDim(axis) || to.isDynamicDim(axis) || from.getDimSize(axis) == to.getDimSize(axis);
  if (!fits)
    return emitOpError() << "takes " << from << " for " << to << ", which it can never be";
  return success();
}
SmallVector<Value> AssumeShapeOp::mapIndices(OpBuilder &, Location, ValueRange indices, llvm::function_ref<Value(AffineExpr)>) { return llvm::to_vector(indices); }
std::optional<int64_t> AssumeShapeOp::getInnermostStride() { return cast<RankedTensorType>(getType()).getRank() ? 1 : 0; }
std::optional<SmallVector<int64_t>> AssumeShapeOp::getAxisMap() { return llvm::to_vector(llvm::seq<int64_t>(0, cast<RankedTensorType>(getType()).getRank())); }
bool AssumeShapeOp::keepsOrder() { return true; }
bool AssumeShapeOp::hasStrides() { return true; }

SmallVector<Value> AfterOp::mapIndices(OpBuilder &, Location, ValueRange indices, llvm::function_ref<Value(AffineExpr)>) { return llvm::to_vector(indices); }
std::optional<int64_t> AfterOp::getInnermostStride() { return cast<RankedTensorType>(getType()).getRank() ? 1 : 0; }
std::optional<SmallVector<int64_t>> AfterOp::getAxisMap() { return llvm::to_vector(llvm::seq<int64_t>(0, cast<RankedTensorType>(getType()).getRank())); }
bool AfterOp::keepsOrder() { return true; }
bool AfterOp::hasStrides() { return true; }

LogicalResult TransposeOp::inferReturnTypes(MLIRContext *, std::optional<Location> location, ValueRange operands, DictionaryAttr attributes, OpaqueProperties properties, RegionRange,
                                            SmallVectorImpl<Type> &results) {
  auto type = transposedType(location, cast<RankedTensorType>(operands[0].getType()), properties.as<Properties *>()->permutation.asArrayRef());
  if (failed(type))
    return failure();
  results.push_back(*type);
  return success();
}
LogicalResult TransposeOp::verify() { return success(); } // the inferred type says it all
SmallVector<Value> TransposeOp::mapIndices(OpBuilder &, Location, ValueRange indices, llvm::function_ref<Value(AffineExpr)>) {
  SmallVector<Value> out(indices.size());
  for (auto [i, axis] : llvm::enumerate(getPermutation()))
    out[axis] = indices[i];
  return out;
}
std::optional<int64_t> TransposeOp::getInnermostStride() {
  bool keeps = getPermutation().empty() || getPermutation().back() == static_cast<int64_t>(getPermutation().size()) - 1;
  return keeps ? std::optional<int64_t>(1) : std::nullopt;
}
std::optional<SmallVector<int64_t>> TransposeOp::getAxisMap() {
  SmallVector<int64_t> map(getPermutation().size());
  for (auto [i, axis] : llvm::enumerate(getPermutation()))
    map[axis] = i;
  return map;
}
bool TransposeOp::keepsOrder() { return false; }
bool TransposeOp::hasStrides() { return true; }

static LogicalResult verifySlice(Operation *op, RankedTensorType whole, RankedTensorType part, AffineMap starts, ArrayRef<int64_t> strides) {
  if (whole.getElementType() != part.getElementType() || whole.getRank() != part.getRank() || starts.getNumResults() != strides.size() ||
      static_cast<int64_t>(strides.size()) != whole.getRank())
    return op->emitOpError() << "takes " << part << " out of " << whole << " with " << starts.getNumResults() << " starts and " << strides.size() << " strides";
  for (auto [axis, stride] : llvm::enumerate(strides)) {
    if (stride == 0)
      return op->emitOpError() << "has stride 0 in dimension " << axis;
    // Where all is known, the first and the last element must lie inside.
    auto start = dyn_cast<AffineConstantExpr>(starts.getResult(axis));
    int64_t count = part.getDimSize(axis), size = whole.getDimSize(axis);
    if (!start || ShapedType::isDynamic(count) || ShapedType::isDynamic(size) || count == 0)
      continue;
    int64_t last = start.getValue() + (count - 1) * stride;
    if (start.getValue() < 0 || start.getValue() >= size || last < 0 || last >= size)
      return op->emitOpError() << "reads elements " << start.getValue() << " to " << last << " of dimension " << axis << " of size " << size;
  }
  return success();
}
LogicalResult SliceOp::verify() { return verifySlice(*this, cast<RankedTensorType>(getX().getType()), cast<RankedTensorType>(getType()), getStarts(), getStrides()); }
LogicalResult PadOp::verify() { return verifySlice(*this, cast<RankedTensorType>(getType()), cast<RankedTensorType>(getX().getType()), getStarts(), getStrides()); }
SmallVector<Value> SliceOp::mapIndices(OpBuilder &b, Location loc, ValueRange indices, llvm::function_ref<Value(AffineExpr)> size) {
  SmallVector<Value> out;
  for (auto [index, start, stride] : llvm::zip(indices, getStarts().getResults(), getStrides())) {
    Value at = index;
    if (stride != 1)
      at = arith::MulIOp::create(b, loc, at, arith::ConstantIndexOp::create(b, loc, stride));
    if (start != getAffineConstantExpr(0, getContext()))
      at = arith::AddIOp::create(b, loc, at, size(start));
    out.push_back(at);
  }
  return out;
}
std::optional<int64_t> SliceOp::getInnermostStride() { return getStrides().empty() ? 0 : getStrides().back(); }
std::optional<SmallVector<int64_t>> SliceOp::getAxisMap() { return std::nullopt; }
bool SliceOp::keepsOrder() { return false; }
bool SliceOp::hasStrides() { return true; }

static LogicalResult verifySliceAt(Operation *op, RankedTensorType whole, RankedTensorType part, int64_t axis) {
  if (axis < 0 || axis >= whole.getRank())
    return op->emitOpError() << "slices axis " << axis << " of a tensor of rank " << whole.getRank();
  SmallVector<AffineExpr> sizes = sizesOf(whole), taken = sizesOf(part);
  bool drops = part.getRank() + 1 == whole.getRank();
  bool fits = whole.getElementType() == part.getElementType() && (drops || part.getRank() == whole.getRank());
  for (int64_t i = 0; fits && i < whole.getRank(); ++i)
    fits = i == axis || taken[i - (drops && i > axis)] == sizes[i];
  if (!fits)
    return op->emitOpError() << "takes " << part << " out of " << whole << " along axis " << axis;
  int64_t length = drops ? 1 : part.getDimSize(axis), size = whole.getDimSize(axis);
  if (!ShapedType::isDynamic(length) && !ShapedType::isDynamic(size) && length > size)
    return op->emitOpError() << "takes " << length << " elements along axis " << axis << " of size " << size;
  return success();
}
LogicalResult SliceAtOp::verify() { return verifySliceAt(*this, cast<RankedTensorType>(getX().getType()), cast<RankedTensorType>(getType()), getAxis()); }
LogicalResult SliceUpdateOp::verify() { return verifySliceAt(*this, cast<RankedTensorType>(getX().getType()), cast<RankedTensorType>(getPart().getType()), getAxis()); }
/// The place in the whole of an element of the slice.
static SmallVector<Value> placeInWhole(OpBuilder &b, Location loc, ValueRange indices, Value start, int64_t axis, int64_t rank) {
  SmallVector<Value> out = llvm::to_vector(indices);
  if (static_cast<int64_t>(out.size()) < rank)
    out.insert(out.begin() + axis, start);
  else
    out[axis] = arith::AddIOp::create(b, loc, out[axis], start);
  return out;
}
SmallVector<Value> SliceAtOp::mapIndices(OpBuilder &, Location, ValueRange, llvm::function_ref<Value(AffineExpr)>) { llvm_unreachable("a computed slice's place is looked up"); }
SmallVector<Value> SliceAtOp::lookUpIndices(OpBuilder &b, Location loc, ValueRange indices, llvm::function_ref<Value(AffineExpr)>, llvm::function_ref<Value(Value, ValueRange)> element, Value &) {
  return placeInWhole(b, loc, indices, element(getStart(), {}), getAxis(), cast<RankedTensorType>(getX().getType()).getRank());
}
SmallVector<Value> SliceUpdateOp::mapPartIndices(OpBuilder &b, Location loc, ValueRange indices, llvm::function_ref<Value(Value, ValueRange)> element) {
  return placeInWhole(b, loc, indices, element(getStart(), {}), getAxis(), cast<RankedTensorType>(getX().getType()).getRank());
}
static bool sliceKeepsInnermost(Value part, Value x, int64_t axis) {
  int64_t rank = cast<RankedTensorType>(part.getType()).getRank(), whole = cast<RankedTensorType>(x.getType()).getRank();
  return rank > 0 && (rank == whole || axis + 1 < whole);
}
std::optional<int64_t> SliceAtOp::getInnermostStride() { return sliceKeepsInnermost(getResult(), getX(), getAxis()) ? std::optional<int64_t>(1) : std::nullopt; }
bool SliceUpdateOp::keepsInnermost() { return sliceKeepsInnermost(getPart(), getX(), getAxis()); }
bool SliceUpdateOp::isReplaced(Value value) {
  auto slice = value.getDefiningOp<SliceAtOp>();
  return slice && slice.getX() == getX() && slice.getStart() == getStart() && slice.getAxis() == getAxis() && slice.getType() == getPart().getType();
}
OpFoldResult SliceAtOp::fold(FoldAdaptor) {
  auto update = getX().getDefiningOp<SliceUpdateOp>();
  bool same = update && update.getStart() == getStart() && update.getAxis() == getAxis() && update.getPart().getType() == getType();
  return same ? OpFoldResult(update.getPart()) : OpFoldResult();
}
OpFoldResult SliceUpdateOp::fold(FoldAdaptor) { return isReplaced(getPart()) ? OpFoldResult(getX()) : OpFoldResult(); }

LogicalResult ConcatOp::inferReturnTypes(MLIRContext *, std::optional<Location> location, ValueRange operands, DictionaryAttr, OpaqueProperties properties, RegionRange,
                                         SmallVectorImpl<Type> &results) {
  auto type = concatType(location, operands.getTypes(), properties.as<Properties *>()->axis.getInt());
  if (failed(type))
    return failure();
  results.push_back(*type);
  return success();
}
LogicalResult ConcatOp::verify() { return success(); } // the inferred type says it all

//===--- elements at places that are known when the function runs ---===//

/// Where gather's element `indices` lies, and what scatter's update at `indices` changes: the other axes' indices as they are, those of `axes` from the tensors.
static SmallVector<Value> lookUp(OpBuilder &b, Location loc, RankedTensorType type, OperandRange tensors, ArrayRef<int64_t> axes, int64_t position, ValueRange indices,
                                 llvm::function_ref<Value(AffineExpr)> size, llvm::function_ref<Value(Value, ValueRange)> element, Value &exists) {
  int64_t rank = cast<RankedTensorType>(tensors.front().getType()).getRank(), next = 0;
  SmallVector<AffineExpr> sizes = sizesOf(type);
  SmallVector<Value> place(type.getRank());
  for (int64_t axis : otherAxes(type.getRank(), axes)) {
    place[axis] = indices[next < position ? next : next + rank];
    ++next;
  }
  Value zero = arith::ConstantIndexOp::create(b, loc, 0);
  for (auto [axis, tensor] : llvm::zip_equal(axes, tensors)) {
    Value index = element(tensor, indices.slice(position, rank)), count = size(sizes[axis]);
    Value isNegative = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::slt, index, zero);
    index = arith::SelectOp::create(b, loc, isNegative, arith::AddIOp::create(b, loc, index, count), index);
    // One that is still negative is large without a sign.
    Value isInside = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ult, index, count);
    exists = exists ? arith::AndIOp::create(b, loc, exists, isInside).getResult() : isInside;
    place[axis] = index;
  }
  return place;
}

LogicalResult GatherOp::inferReturnTypes(MLIRContext *, std::optional<Location> location, ValueRange operands, DictionaryAttr, OpaqueProperties properties, RegionRange,
                                         SmallVectorImpl<Type> &results) {
  auto *p = properties.as<Properties *>();
  auto type = gatherType(location, cast<RankedTensorType>(operands[0].getType()), operands.drop_front().getTypes(), p->axes.asArrayRef(), p->position.getInt());
  if (failed(type))
    return failure();
  results.push_back(*type);
  return success();
}
LogicalResult GatherOp::verify() { return success(); } // the inferred type says it all
SmallVector<Value> GatherOp::mapIndices(OpBuilder &, Location, ValueRange, llvm::function_ref<Value(AffineExpr)>) { llvm_unreachable("a gather's places are looked up"); }
SmallVector<Value> GatherOp::lookUpIndices(OpBuilder &b, Location loc, ValueRange indices, llvm::function_ref<Value(AffineExpr)> size, llvm::function_ref<Value(Value, ValueRange)> element,
                                           Value &exists) {
  return lookUp(b, loc, getX().getType(), getIndices(), getAxes(), getPosition(), indices, size, element, exists);
}
std::optional<int64_t> GatherOp::getInnermostStride() {
  // The last axis is the operand's, unless it is indexed or the indices' axes come behind it.
  int64_t rank = getX().getType().getRank(), others = rank - static_cast<int64_t>(getAxes().size());
  bool indicesAreLast = static_cast<int64_t>(getPosition()) == others && cast<RankedTensorType>(getIndices().front().getType()).getRank() != 0;
  return !llvm::is_contained(getAxes(), rank - 1) && !indicesAreLast ? std::optional<int64_t>(1) : std::nullopt;
}

template <typename OpTy> static LogicalResult verifyScatter(OpTy op) {
  auto into = cast<RankedTensorType>(op.getInto().getType());
  auto updates = gatherType(op.getLoc(), into, op.getIndices().getTypes(), op.getAxes(), op.getPosition());
  if (failed(updates))
    return failure();
  if (*updates != op.getUpdates().getType())
    return op.emitOpError() << "changes " << into << " by updates of type " << op.getUpdates().getType() << "; expected " << *updates;
  return success();
}
LogicalResult ScatterOp::verify() { return verifyScatter(*this); }
LogicalResult ScatterAddOp::verify() { return verifyScatter(*this); }
SmallVector<Value> ScatterOp::lookUpIndices(OpBuilder &b, Location loc, ValueRange indices, llvm::function_ref<Value(AffineExpr)> size, llvm::function_ref<Value(Value, ValueRange)> element,
                                            Value &exists) {
  return lookUp(b, loc, getType(), getIndices(), getAxes(), getPosition(), indices, size, element, exists);
}
SmallVector<Value> ScatterAddOp::lookUpIndices(OpBuilder &b, Location loc, ValueRange indices, llvm::function_ref<Value(AffineExpr)> size,
                                               llvm::function_ref<Value(Value, ValueRange)> element, Value &exists) {
  return lookUp(b, loc, getType(), getIndices(), getAxes(), getPosition(), indices, size, element, exists);
}
Value ScatterOp::buildUpdate(OpBuilder &, Location, Value, Value update) { return update; }
Value ScatterAddOp::buildUpdate(OpBuilder &b, Location loc, Value old, Value update) { return (ScalarExpr(b, loc, old) + ScalarExpr(b, loc, update)).value; }

/// The whole numbers of a constant, or of a fill that has one.
static std::optional<SmallVector<int64_t>> wholeNumbers(Value value) {
  if (auto fill = value.getDefiningOp<FillOp>()) {
    auto number = dyn_cast<IntegerAttr>(fill.getValue());
    if (number && cast<RankedTensorType>(fill.getType()).getRank() == 0)
      return SmallVector<int64_t>{number.getInt()};
  }
  auto constant = value.getDefiningOp<ConstantOp>();
  auto elements = constant ? dyn_cast<DenseIntElementsAttr>(constant.getValue()) : DenseIntElementsAttr();
  if (!elements)
    return std::nullopt;
  bool isUnsigned = elements.getElementType().isUnsignedInteger() || elements.getElementType().isInteger(1);
  SmallVector<int64_t> numbers;
  for (const APInt &number : elements.getValues<APInt>())
    numbers.push_back(isUnsigned ? static_cast<int64_t>(number.getZExtValue()) : number.getSExtValue());
  return numbers;
}
/// The numbers before they were converted to a wider type of whole numbers.
static Value beforeWidening(Value value) {
  while (auto conversion = value.getDefiningOp<ConvertOp>()) {
    Type from = getElementTypeOrSelf(conversion.getX().getType()), to = getElementTypeOrSelf(conversion.getType());
    if (!isa<IntegerType>(from) || !isa<IntegerType>(to) || from.getIntOrFloatBitWidth() > to.getIntOrFloatBitWidth() || to.isUnsignedInteger())
      break;
    value = conversion.getX();
  }
  return value;
}

std::optional<WholeRange> dlc::dl::rangeOf(Value numbers) {
  numbers = beforeWidening(numbers);
  Operation *def = numbers.getDefiningOp();
  if (!def || !isa<IntegerType>(getElementTypeOrSelf(numbers.getType())))
    return std::nullopt;
  MLIRContext *context = def->getContext();
  auto end = [&](int64_t n) { return getAffineConstantExpr(n, context); };
  if (auto iota = dyn_cast<IotaOp>(def))
    return WholeRange{0, sizesOf(numbers)[iota.getAxis()], true};
  if (auto fill = dyn_cast<FillOp>(def)) {
    int64_t number = cast<IntegerAttr>(fill.getValue()).getInt();
    return WholeRange{number, end(number + 1), true};
  }
  if (isa<ConstantOp>(def)) {
    std::optional<SmallVector<int64_t>> all = wholeNumbers(numbers);
    if (!all || all->empty())
      return std::nullopt;
    return WholeRange{*llvm::min_element(*all), end(*llvm::max_element(*all) + 1), true};
  }
  if (auto draw = dyn_cast<RandintOp>(def))
    return WholeRange{static_cast<int64_t>(draw.getLow()), end(draw.getHigh()), false};
  if (auto reduction = dyn_cast<ReductionOpInterface>(def); reduction && reduction.keepsIndex()) {
    AffineExpr count = end(1);
    for (int64_t axis : reduction.getReducedAxes())
      count = count * sizesOf(def->getOperand(0))[axis];
    if (isKnownAtLeast(count, end(1)))
      return WholeRange{0, normalizeSize(count), false};
    return std::nullopt;
  }
  if (auto indexing = dyn_cast<IndexingOpInterface>(def); indexing && def->getNumOperands() == 1) {
    std::optional<WholeRange> range = rangeOf(def->getOperand(0));
    if (range)
      range->isTight &= indexing.keepsOrder();
    return range;
  }
  return std::nullopt;
}

namespace {
/// Places that follow each other are a slice.
struct GatherIsSlice : OpRewritePattern<GatherOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(GatherOp op, PatternRewriter &rewriter) const override {
    if (op.getAxes().size() != 1)
      return failure();
    Value indices = beforeWidening(op.getIndices().front());
    int64_t axis = op.getAxes().front(), rank = cast<RankedTensorType>(indices.getType()).getRank();
    if (rank > 1 || (rank == 1 && static_cast<int64_t>(op.getPosition()) != axis))
      return failure();
    SmallVector<AffineExpr> sizes = sizesOf(op.getX());
    AffineExpr start = rewriter.getAffineConstantExpr(0), count;
    int64_t stride = 1;
    if (auto iota = indices.getDefiningOp<IotaOp>()) {
      count = sizesOf(indices).front();
      if (!isKnownAtLeast(sizes[axis], count))
        return failure();
    } else {
      std::optional<SmallVector<int64_t>> numbers = wholeNumbers(indices);
      auto size = dyn_cast<AffineConstantExpr>(sizes[axis]);
      if (!numbers || numbers->empty() || !size)
        return failure();
      for (int64_t &number : *numbers) {
        number += number < 0 ? size.getValue() : 0;
        if (number < 0 || number >= size.getValue())
          return failure();
      }
      if (numbers->size() > 1)
        stride = (*numbers)[1] - (*numbers)[0];
      for (size_t i = 1; i < numbers->size(); ++i)
        if (stride == 0 || (*numbers)[i] - (*numbers)[i - 1] != stride)
          return failure();
      start = rewriter.getAffineConstantExpr(numbers->front());
      count = rewriter.getAffineConstantExpr(numbers->size());
    }
    SmallVector<AffineExpr> starts(sizes.size(), rewriter.getAffineConstantExpr(0));
    SmallVector<int64_t> strides(sizes.size(), 1);
    starts[axis] = start;
    strides[axis] = stride;
    sizes[axis] = count;
    Value slice = SliceOp::create(rewriter, op.getLoc(), tensorType(sizes, getElementTypeOrSelf(op.getType())), op.getX(), sizeMap(starts, op.getContext()), strides);
    rewriter.replaceOpWithNewOp<ReshapeOp>(op, op.getType(), slice);
    return success();
  }
};
/// Of what is the same along the axes that are indexed.
struct GatherOfBroadcast : OpRewritePattern<GatherOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(GatherOp op, PatternRewriter &rewriter) const override {
    auto broadcast = op.getX().getDefiningOp<BroadcastOp>();
    if (!broadcast || llvm::any_of(op.getAxes(), [&](int64_t axis) { return llvm::is_contained(broadcast.getAxes(), axis); }))
      return failure();
    int64_t rank = cast<RankedTensorType>(op.getIndices().front().getType()).getRank(), position = op.getPosition();
    SmallVector<int64_t> others = otherAxes(broadcast.getType().getRank(), op.getAxes()), axes;
    for (int64_t axis : broadcast.getAxes()) {
      int64_t place = llvm::find(others, axis) - others.begin();
      axes.push_back(place < position ? place : place + rank);
    }
    rewriter.replaceOpWithNewOp<BroadcastOp>(op, op.getType(), broadcast.getX(), axes);
    return success();
  }
};
/// Nothing is added.
struct ScatterAddOfZeros : OpRewritePattern<ScatterAddOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(ScatterAddOp op, PatternRewriter &rewriter) const override {
    if (!isFilledWith(op.getUpdates(), 0))
      return failure();
    rewriter.replaceOp(op, op.getInto());
    return success();
  }
};
/// a + (zeros, with updates added at one place each) changes a at these places: no element is added to twice, so the order of additions stays.
struct AddOfScatterAdd : OpRewritePattern<AddOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(AddOp op, PatternRewriter &rewriter) const override {
    for (bool isLeft : {false, true}) {
      auto scatter = (isLeft ? op.getLhs() : op.getRhs()).getDefiningOp<ScatterAddOp>();
      if (!scatter || !scatter->hasOneUse() || !isFilledWith(scatter.getInto(), 0) || cast<RankedTensorType>(scatter.getIndices().front().getType()).getRank() != 0)
        continue;
      rewriter.replaceOpWithNewOp<ScatterAddOp>(op, isLeft ? op.getRhs() : op.getLhs(), scatter.getUpdates(), scatter.getIndices(), scatter.getAxes(), scatter.getPosition());
      return success();
    }
    return failure();
  }
};
/// What is known to lie inside needs no check.
struct CheckOfKnownIndex : OpRewritePattern<CheckIndexOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(CheckIndexOp op, PatternRewriter &rewriter) const override {
    std::optional<WholeRange> range = rangeOf(op.getX());
    AffineExpr size = op.getSize().getResult(0);
    if (!range || !isKnownAtLeast(size, range->end) || (op.getFromEnd() ? !isKnownAtLeast(size, rewriter.getAffineConstantExpr(-range->low)) : range->low < 0))
      return failure();
    rewriter.eraseOp(op);
    return success();
  }
};
} // namespace
void GatherOp::getCanonicalizationPatterns(RewritePatternSet &patterns, MLIRContext *context) { patterns.add<GatherIsSlice, GatherOfBroadcast>(context); }
void ScatterAddOp::getCanonicalizationPatterns(RewritePatternSet &patterns, MLIRContext *context) { patterns.add<ScatterAddOfZeros, AddOfScatterAdd>(context); }
void CheckIndexOp::getCanonicalizationPatterns(RewritePatternSet &patterns, MLIRContext *context) { patterns.add<CheckOfKnownIndex>(context); }

//===--- reductions ---===//

static LogicalResult inferReduction(std::optional<Location> location, Value operand, ArrayRef<int64_t> axes, Type element, SmallVectorImpl<Type> &results) {
  auto type = reducedType(location, cast<RankedTensorType>(operand.getType()), axes);
  if (failed(type))
    return failure();
  results.push_back(element ? withElementType(*type, element) : *type);
  return success();
}
#define DL_REDUCTION(OP, ELEMENT)                                                                                                                                  \
  LogicalResult OP::inferReturnTypes(MLIRContext *context, std::optional<Location> location, ValueRange operands, DictionaryAttr, OpaqueProperties properties,     \
                                     RegionRange, SmallVectorImpl<Type> &results) {                                                                               \
    return inferReduction(location, operands[0], properties.as<Properties *>()->axes.asArrayRef(), ELEMENT, results);                                              \
  }                                                                                                                                                                \
  ArrayRef<int64_t> OP::getReducedAxes() { return getAxes(); }                                                                                                     \
  Value OP::buildOver(OpBuilder &b, Value x, ArrayRef<int64_t> axes) { return OP::create(b, getLoc(), x, axes); }
DL_REDUCTION(SumOp, Type())
DL_REDUCTION(MaxOp, Type())
DL_REDUCTION(MinOp, Type())
DL_REDUCTION(AnyOp, Type())
DL_REDUCTION(AllOp, Type())
DL_REDUCTION(ArgmaxOp, Type(IntegerType::get(context, 32)))
DL_REDUCTION(ArgminOp, Type(IntegerType::get(context, 32)))
#undef DL_REDUCTION

static TypedAttr number(Type type, double value) {
  Builder b(type.getContext());
  return isa<FloatType>(type) ? TypedAttr(b.getFloatAttr(type, value)) : TypedAttr(b.getIntegerAttr(type, static_cast<int64_t>(value)));
}
static TypedAttr extreme(Type type, bool largest) {
  Builder b(type.getContext());
  if (auto f = dyn_cast<FloatType>(type))
    return b.getFloatAttr(type, APFloat::getInf(f.getFloatSemantics(), !largest));
  unsigned bits = type.getIntOrFloatBitWidth();
  return b.getIntegerAttr(type, largest ? APInt::getSignedMaxValue(bits) : APInt::getSignedMinValue(bits));
}
static Value combineMax(OpBuilder &b, Location loc, Value a, Value c) { return maximum(ScalarExpr(b, loc, a), ScalarExpr(b, loc, c)).value; }
static Value combineMin(OpBuilder &b, Location loc, Value a, Value c) { return minimum(ScalarExpr(b, loc, a), ScalarExpr(b, loc, c)).value; }

TypedAttr SumOp::getNeutral(Type type) { return ::number(type, 0); }
Value SumOp::buildCombine(OpBuilder &b, Location loc, Value a, Value c) { return (ScalarExpr(b, loc, a) + ScalarExpr(b, loc, c)).value; }
TypedAttr MaxOp::getNeutral(Type type) { return extreme(type, false); }
Value MaxOp::buildCombine(OpBuilder &b, Location loc, Value a, Value c) { return combineMax(b, loc, a, c); }
TypedAttr MinOp::getNeutral(Type type) { return extreme(type, true); }
Value MinOp::buildCombine(OpBuilder &b, Location loc, Value a, Value c) { return combineMin(b, loc, a, c); }
TypedAttr AnyOp::getNeutral(Type type) { return ::number(type, 0); }
Value AnyOp::buildCombine(OpBuilder &b, Location loc, Value a, Value c) { return arith::OrIOp::create(b, loc, a, c); }
TypedAttr AllOp::getNeutral(Type type) { return ::number(type, 1); }
Value AllOp::buildCombine(OpBuilder &b, Location loc, Value a, Value c) { return arith::AndIOp::create(b, loc, a, c); }
TypedAttr ArgmaxOp::getNeutral(Type type) { return extreme(type, false); }
Value ArgmaxOp::buildCombine(OpBuilder &b, Location loc, Value a, Value c) { return combineMax(b, loc, a, c); }
bool ArgmaxOp::keepsIndex() { return true; }
TypedAttr ArgminOp::getNeutral(Type type) { return extreme(type, true); }
Value ArgminOp::buildCombine(OpBuilder &b, Location loc, Value a, Value c) { return combineMin(b, loc, a, c); }
bool ArgminOp::keepsIndex() { return true; }

//===--- products ---===//

LogicalResult MatmulOp::inferReturnTypes(MLIRContext *, std::optional<Location> location, ValueRange operands, DictionaryAttr, OpaqueProperties properties, RegionRange,
                                         SmallVectorImpl<Type> &results) {
  auto *p = properties.as<Properties *>(); // null where both flags are left out
  auto type = matmulType(location, cast<RankedTensorType>(operands[0].getType()), cast<RankedTensorType>(operands[1].getType()), p && p->lhsTransposed, p && p->rhsTransposed);
  if (failed(type))
    return failure();
  results.push_back(*type);
  return success();
}
LogicalResult MatmulOp::verify() { return success(); } // the inferred type says it all

//===--- composites ---===//

static LogicalResult verifyAxis(Operation *op, Value x, uint64_t axis) {
  int64_t rank = cast<RankedTensorType>(x.getType()).getRank();
  if (axis >= static_cast<uint64_t>(rank))
    return op->emitOpError() << "works along axis " << axis << " of a tensor of rank " << rank;
  return success();
}
LogicalResult SoftmaxOp::verify() { return verifyAxis(*this, getX(), getAxis()); }
LogicalResult LogSoftmaxOp::verify() { return verifyAxis(*this, getX(), getAxis()); }
LogicalResult LogsumexpOp::verify() { return verifyAxis(*this, getX(), getAxis()); }
LogicalResult LogsumexpOp::inferReturnTypes(MLIRContext *, std::optional<Location> location, ValueRange operands, DictionaryAttr, OpaqueProperties properties, RegionRange,
                                            SmallVectorImpl<Type> &results) {
  return inferReduction(location, operands[0], properties.as<Properties *>()->axis.getInt(), {}, results);
}
LogicalResult CrossEntropyOp::inferReturnTypes(MLIRContext *, std::optional<Location> location, ValueRange operands, DictionaryAttr, OpaqueProperties, RegionRange,
                                               SmallVectorImpl<Type> &results) {
  auto scores = cast<RankedTensorType>(operands[0].getType());
  if (scores.getRank() == 0)
    return emitOptionalError(location, "needs scores with an axis of classes, got a scalar");
  return inferReduction(location, operands[0], scores.getRank() - 1, {}, results);
}
LogicalResult CrossEntropyOp::verify() {
  auto label = cast<RankedTensorType>(getLabel().getType()), result = cast<RankedTensorType>(getType());
  if (sizesOf(label) != sizesOf(result))
    return emitOpError() << "has labels of type " << label << " for scores of type " << getScores().getType();
  return success();
}

/// max x along the axis, repeated; with the largest subtracted no exponential overflows. An infinite maximum is replaced by 0, as inf - inf is NaN.
static TensorExpr finiteMax(TensorExpr x, int64_t axis) {
  TensorExpr largest = max(x, axis);
  TensorExpr isInfinite = eq(TensorExpr(*x.b, x.loc, AbsOp::create(*x.b, x.loc, largest.value)), std::numeric_limits<double>::infinity());
  return select(isInfinite, largest.number(0.0), largest);
}
/// A matrix of which every element is used once: the time goes into reading it, row by row.
Value MatmulOp::buildDecomposition(OpBuilder &b) {
  SmallVector<AffineExpr> sizes = sizesOf(getResult());
  AffineExpr one = b.getAffineConstantExpr(1);
  int64_t rank = sizes.size();
  bool byColumn = sizes[rank - 1] == one && !getLhsTransposed(), byRow = sizes[rank - 2] == one && getRhsTransposed();
  if (!byColumn && !byRow)
    return {};
  Value matrix = byColumn ? getLhs() : getRhs(), vector = byColumn ? getRhs() : getLhs();
  // [b…, k, 1] or [b…, 1, k] to [b…, k], to every row.
  SmallVector<int64_t> axes = llvm::to_vector(llvm::seq<int64_t>(0, rank));
  axes.erase(axes.begin() + rank - 2);
  SmallVector<AffineExpr> matrixSizes = sizesOf(matrix), vectorSizes(matrixSizes);
  vectorSizes.erase(vectorSizes.begin() + rank - 2);
  Type element = getElementTypeOrSelf(getType());
  Value flat = ReshapeOp::create(b, getLoc(), tensorType(vectorSizes, element), vector);
  Value spread = BroadcastOp::create(b, getLoc(), matrix.getType(), flat, axes);
  TensorExpr total = sum(TensorExpr(b, getLoc(), matrix) * TensorExpr(b, getLoc(), spread), rank - 1);
  return ReshapeOp::create(b, getLoc(), getType(), total.value);
}
Value SoftmaxOp::buildDecomposition(OpBuilder &b) {
  TensorExpr x(b, getLoc(), getX());
  int64_t axis = getAxis();
  TensorExpr e = exp(x - broadcastBack(max(x, axis), x, {axis}));
  // One division a row, then products.
  TensorExpr total = sum(e, axis);
  return (e * broadcastBack(total.number(1.0) / total, x, {axis})).value;
}
Value LogSoftmaxOp::buildDecomposition(OpBuilder &b) {
  TensorExpr x(b, getLoc(), getX());
  int64_t axis = getAxis();
  TensorExpr shifted = x - broadcastBack(max(x, axis), x, {axis});
  return (shifted - broadcastBack(log(sum(exp(shifted), axis)), x, {axis})).value;
}
Value LogsumexpOp::buildDecomposition(OpBuilder &b) {
  TensorExpr x(b, getLoc(), getX());
  int64_t axis = getAxis();
  TensorExpr largest = finiteMax(x, axis);
  return (largest + log(sum(exp(x - broadcastBack(largest, x, {axis})), axis))).value;
}
Value CrossEntropyOp::buildDecomposition(OpBuilder &b) {
  TensorExpr scores(b, getLoc(), getScores()), label = wideLabel(TensorExpr(b, getLoc(), getLabel()));
  int64_t last = scores.type().getRank() - 1;
  // The same parts as softmax's decomposition, so that common subexpressions make one pass of both.
  TensorExpr largest = max(scores, last);
  TensorExpr shifted = scores - broadcastBack(largest, scores, {last});
  TensorExpr total = sum(exp(shifted), last);
  TensorExpr hit = eq(iota(withElementType(scores.type(), label.type().getElementType()), last, scores), broadcastBack(label, scores, {last}));
  TensorExpr picked = sum(select(hit, shifted, shifted.number(0.0)), last);
  TensorExpr loss = log(total) - picked;
  return select(eq(label, -100.0), loss.number(0.0), loss).value;
}

//===--- programs ---===//

LogicalResult ModelOp::verify() {
  std::optional<Type> precision = getPrecision();
  if (precision && !isSmallFloat(*precision))
    return emitOpError() << "multiplies numbers of type " << *precision << "; expected bf16 or f16";
  return success();
}
LogicalResult VariableOp::verify() {
  auto type = cast<RankedTensorType>(getType());
  if (!type.hasStaticShape())
    return emitOpError() << "@" << getSymName() << " has type " << type << "; a variable's shape must be known at compile time";
  return success();
}

bool FuncOp::isConst() { return getBody().front().getOps<AssignOp>().empty(); }

void FuncOp::build(OpBuilder &b, OperationState &state, StringRef name, FunctionType type) {
  state.addAttribute(SymbolTable::getSymbolAttrName(), b.getStringAttr(name));
  state.addAttribute(getFunctionTypeAttrName(state.name), TypeAttr::get(type));
  state.addRegion();
}
ParseResult FuncOp::parse(OpAsmParser &parser, OperationState &result) {
  auto build = [](Builder &builder, ArrayRef<Type> arguments, ArrayRef<Type> results, function_interface_impl::VariadicFlag, std::string &) {
    return builder.getFunctionType(arguments, results);
  };
  return function_interface_impl::parseFunctionOp(parser, result, /*allowVariadic=*/false, getFunctionTypeAttrName(result.name), build, getArgAttrsAttrName(result.name),
                                                  getResAttrsAttrName(result.name));
}
void FuncOp::print(OpAsmPrinter &printer) {
  function_interface_impl::printFunctionOp(printer, *this, /*isVariadic=*/false, getFunctionTypeAttrName(), getArgAttrsAttrName(), getResAttrsAttrName());
}
LogicalResult ReturnOp::verify() {
  auto function = cast<FuncOp>((*this)->getParentOp());
  if (getOperandTypes() != function.getResultTypes())
    return emitOpError() << "returns " << getOperandTypes() << " from a function that declares " << function.getResultTypes();
  return success();
}

static LogicalResult verifyVariable(Operation *op, FlatSymbolRefAttr name, Type type, SymbolTableCollection &tables) {
  auto variable = tables.lookupNearestSymbolFrom<VariableOp>(op, name);
  if (!variable)
    return op->emitOpError() << "names @" << name.getValue() << ", which is no variable of the model";
  if (variable.getType() != type) {
    InFlightDiagnostic error = op->emitOpError() << "has type " << type << " for the variable @" << name.getValue() << " of type " << variable.getType();
    error.attachNote(variable.getLoc()) << "the variable is declared here";
    return error;
  }
  return success();
}
LogicalResult ReadOp::verifySymbolUses(SymbolTableCollection &tables) { return verifyVariable(*this, getVariableAttr(), getType(), tables); }
LogicalResult AssignOp::verifySymbolUses(SymbolTableCollection &tables) { return verifyVariable(*this, getVariableAttr(), getValue().getType(), tables); }

void GradientOp::build(OpBuilder &b, OperationState &state, Value value, ValueRange wrt) { build(b, state, wrt.getTypes(), value, wrt); }
LogicalResult GradientOp::verify() {
  if (cast<RankedTensorType>(getValue().getType()).getRank() != 0)
    return emitOpError() << "differentiates a value of type " << getValue().getType() << "; expected one number";
  if (getWrt().getTypes() != getResultTypes())
    return emitOpError() << "has results " << getResultTypes() << " for values " << getWrt().getTypes();
  return success();
}

LogicalResult CustomGradientOp::verify() {
  Block &body = getBody().front();
  SmallVector<Type> cotangents;
  for (Type type : getValues().getTypes())
    if (isa<FloatType>(getElementTypeOrSelf(type)))
      cotangents.push_back(type);
  if (body.getArgumentTypes() != ArrayRef(cotangents))
    return emitOpError() << "has a region for cotangents " << body.getArgumentTypes() << "; its values' are " << cotangents;
  auto yield = dyn_cast_or_null<YieldOp>(body.empty() ? nullptr : &body.back());
  if (!yield)
    return emitOpError() << "needs a region that ends in dl.yield";
  if (yield.getOperandTypes() != getWrt().getTypes())
    return emitOpError() << "yields derivatives " << yield.getOperandTypes() << " for " << getWrt().getTypes();
  return success();
}
bool CustomGradientOp::flowsTo(unsigned operand) { return operand >= getValues().size(); }
LogicalResult CustomGradientOp::buildVjp(OpBuilder &b, ValueRange cotangents, SmallVectorImpl<Value> &grads) {
  Block &body = getBody().front();
  IRMapping mapping;
  unsigned number = 0;
  for (auto [value, cotangent] : llvm::zip_equal(getValues(), cotangents)) {
    grads.push_back({});
    auto type = cast<RankedTensorType>(value.getType());
    if (!isa<FloatType>(type.getElementType()))
      continue;
    mapping.map(body.getArgument(number++), cotangent ? cotangent : FillOp::create(b, getLoc(), type, 0.0).getResult());
  }
  for (Operation &op : body.without_terminator())
    b.clone(op, mapping);
  for (Value derivative : body.getTerminator()->getOperands())
    grads.push_back(mapping.lookupOrDefault(derivative));
  return success();
}
Value CustomGradientOp::buildDecomposition(OpBuilder &) { return {}; }
SmallVector<Value> CustomGradientOp::buildDecompositions(OpBuilder &) { return llvm::to_vector(getValues()); }

LogicalResult ExternFunctionOp::verify() {
  if (!getCuda() && !getCpp())
    return emitOpError() << "@" << getSymName() << " has no file";
  return success();
}
ExternFunctionOp ExternOp::getDeclaration() { return SymbolTable::lookupNearestSymbolFrom<ExternFunctionOp>(*this, getFunctionAttr()); }
SmallVector<AffineExpr> ExternOp::getSizeExprs() { return getSizes() ? llvm::to_vector(getSizes()->getResults()) : SmallVector<AffineExpr>(); }
StringRef ExternOp::getSchedule() { return "extern"; }
std::string ExternOp::getKernelName() { return getDeclaration().getFunction().str(); }
LogicalResult ExternOp::verifySymbolUses(SymbolTableCollection &tables) {
  if (!tables.lookupNearestSymbolFrom<ExternFunctionOp>(*this, getFunctionAttr()))
    return emitOpError() << "names @" << getFunction() << ", which is no extern function of the model";
  return success();
}
LogicalResult ExternOp::verify() {
  if (getBlocks().getNumResults() != 1 || (getParallel() && getParallel()->getNumResults() != 1))
    return emitOpError() << "runs on one number of blocks and one range";
  if (getNumResults() == 0)
    return emitOpError() << "needs a result";
  return success();
}
LogicalResult ExternOp::buildVjp(OpBuilder &b, ValueRange, SmallVectorImpl<Value> &) {
  InFlightDiagnostic error = emitError() << "'" << getKernelName() << "' has no gradient";
  error.attachNote(getDeclaration().getLoc()) << "declared here";
  if (b.getInsertionPoint() != b.getInsertionBlock()->end())
    error.attachNote(b.getInsertionPoint()->getLoc()) << "needed for the gradient taken here";
  return error;
}

LogicalResult CheckSizeOp::verify() {
  if (getLhs().getNumResults() != 1 || getRhs().getNumResults() != 1)
    return emitOpError() << "compares one size with one size";
  if (!llvm::is_contained({"eq", "ne", "lt", "le", "gt", "ge"}, getPredicate()))
    return emitOpError() << "has the unknown predicate '" << getPredicate() << "'";
  return success();
}

void ForOp::build(OpBuilder &b, OperationState &state, AffineExpr first, AffineExpr last, Value limit, bool conditional, ValueRange inits) {
  MLIRContext *context = b.getContext();
  build(b, state, inits.getTypes(), AffineMapAttr::get(sizeMap(first, context)), last ? AffineMapAttr::get(sizeMap(last, context)) : AffineMapAttr(), limit,
        conditional ? b.getUnitAttr() : UnitAttr(), inits);
}
OperandRange ForOp::getNext() { return getBody().front().getTerminator()->getOperands(); }
MutableOperandRange ForOp::getNextMutable() { return cast<YieldOp>(getBody().front().getTerminator()).getOperandsMutable(); }
AffineExpr ForOp::getTurns() { return getLast() ? normalizeSize(getLast()->getResult(0) - getFirst().getResult(0)) : AffineExpr(); }
LogicalResult ForOp::verify() {
  if (getFirst().getNumResults() != 1 || (getLast() && getLast()->getNumResults() != 1))
    return emitOpError() << "counts from one size to one size";
  Block &body = getBody().front();
  SmallVector<Type> arguments{RankedTensorType::get({}, IntegerType::get(getContext(), 64))};
  llvm::append_range(arguments, getInits().getTypes());
  if (body.getArgumentTypes() != TypeRange(arguments) || getResultTypes() != getInits().getTypes())
    return emitOpError() << "carries " << getInits().getTypes() << " through a body for " << body.getArgumentTypes() << " to results " << getResultTypes();
  auto yield = dyn_cast_or_null<YieldOp>(body.empty() ? nullptr : &body.back());
  if (!yield || yield.getOperandTypes() != getInits().getTypes())
    return emitOpError() << "needs a body that yields " << getInits().getTypes();
  if (getConditional() && (getInits().empty() || getInits()[0].getType() != RankedTensorType::get({}, IntegerType::get(getContext(), 1))))
    return emitOpError() << "goes on while the first value that it carries is true, and carries " << getInits().getTypes();
  if (!getConditional() && !getLast() && !getLimit())
    return emitOpError() << "has no end";
  return success();
}
LogicalResult IfOp::verify() {
  for (Region *region : {&getWhenTrue(), &getWhenFalse()}) {
    auto yield = dyn_cast_or_null<YieldOp>(region->front().empty() ? nullptr : &region->front().back());
    if (!yield || yield.getOperandTypes() != getResultTypes())
      return emitOpError() << "needs branches that yield " << getResultTypes();
  }
  return success();
}

LogicalResult FusedOp::verify() {
  Block &body = getBody().front();
  auto yield = dyn_cast_or_null<YieldOp>(body.empty() ? nullptr : &body.back());
  if (!yield)
    return emitOpError() << "needs a body that ends in dl.yield";
  if (body.getArgumentTypes() != getInputs().getTypes())
    return emitOpError() << "has inputs " << getInputs().getTypes() << " and a body for " << body.getArgumentTypes();
  if (yield.getOperandTypes() != getResultTypes())
    return emitOpError() << "yields " << yield.getOperandTypes() << " for results " << getResultTypes();
  return success();
}

#define GET_OP_CLASSES
#include "dialects/dl/DlOps.cpp.inc"
