//===- DlShapes.cpp - sizes, shapes and the types of results -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "dialects/dl/DlShapes.h"
#include "mlir/IR/BuiltinAttributes.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/raw_ostream.h"
#include <map>

using namespace mlir;

namespace dlc::dl {

namespace {
/// A factor of a product: a symbol, or a division or remainder as a whole. Ordered by what it says, so that the order of products does not depend on addresses.
struct Factor {
  std::string key;
  AffineExpr expr;
  bool operator<(const Factor &other) const { return key < other.key; }
};
/// Coefficient of each product of factors.
using Polynomial = std::map<std::vector<Factor>, int64_t>;
} // namespace

static std::string keyOf(AffineExpr expr) {
  std::string key;
  llvm::raw_string_ostream os(key);
  if (auto symbol = dyn_cast<AffineSymbolExpr>(expr))
    os << 's' << char('A' + symbol.getPosition());
  else
    os << expr;
  return key;
}

static void accumulate(Polynomial &into, const std::vector<Factor> &product, int64_t coefficient) {
  int64_t &entry = into[product];
  entry += coefficient;
  if (entry == 0)
    into.erase(product);
}

static AffineExpr rebuild(const Polynomial &polynomial, MLIRContext *context) {
  AffineExpr result = getAffineConstantExpr(0, context);
  for (const auto &[product, coefficient] : polynomial) {
    AffineExpr term = getAffineConstantExpr(1, context);
    for (const Factor &factor : product)
      term = term * factor.expr;
    result = result + term * coefficient;
  }
  return result;
}

static Polynomial polynomialOf(AffineExpr expr) {
  Polynomial result;
  switch (expr.getKind()) {
  case AffineExprKind::Constant:
    if (int64_t value = cast<AffineConstantExpr>(expr).getValue())
      result[{}] = value;
    return result;
  case AffineExprKind::SymbolId:
  case AffineExprKind::DimId:
    result[{Factor{keyOf(expr), expr}}] = 1;
    return result;
  default:
    break;
  }
  auto binary = cast<AffineBinaryOpExpr>(expr);
  Polynomial lhs = polynomialOf(binary.getLHS()), rhs = polynomialOf(binary.getRHS());
  if (expr.getKind() == AffineExprKind::Add) {
    for (const auto &[product, coefficient] : rhs)
      accumulate(lhs, product, coefficient);
    return lhs;
  }
  if (expr.getKind() == AffineExprKind::Mul) {
    for (const auto &[a, ca] : lhs)
      for (const auto &[c, cc] : rhs) {
        std::vector<Factor> product(a);
        product.insert(product.end(), c.begin(), c.end());
        llvm::sort(product);
        accumulate(result, product, ca * cc);
      }
    return result;
  }
  // A division whose every term divides is exact; others stay whole.
  MLIRContext *context = expr.getContext();
  if (auto divisor = dyn_cast<AffineConstantExpr>(rebuild(rhs, context)); divisor && divisor.getValue() > 0) {
    int64_t d = divisor.getValue();
    if (llvm::all_of(lhs, [&](const auto &term) { return term.second % d == 0; })) {
      if (expr.getKind() == AffineExprKind::Mod)
        return result;
      for (auto &term : lhs)
        term.second /= d;
      return lhs;
    }
  }
  AffineExpr whole = getAffineBinaryOpExpr(expr.getKind(), rebuild(lhs, context), rebuild(rhs, context));
  if (auto constant = dyn_cast<AffineConstantExpr>(whole)) {
    if (constant.getValue())
      result[{}] = constant.getValue();
    return result;
  }
  result[{Factor{keyOf(whole), whole}}] = 1;
  return result;
}

AffineExpr normalizeSize(AffineExpr size) {
  if (isa<AffineConstantExpr, AffineSymbolExpr>(size))
    return size;
  return rebuild(polynomialOf(size), size.getContext());
}

AffineExpr productOf(ArrayRef<AffineExpr> sizes, MLIRContext *context) {
  AffineExpr product = getAffineConstantExpr(1, context);
  for (AffineExpr size : sizes)
    product = product * size;
  return normalizeSize(product);
}

AffineMap sizeMap(ArrayRef<AffineExpr> sizes, MLIRContext *context) {
  SmallVector<AffineExpr> normal;
  unsigned symbols = 0;
  for (AffineExpr size : sizes) {
    normal.push_back(normalizeSize(size));
    normal.back().walk([&](AffineExpr e) {
      if (auto symbol = dyn_cast<AffineSymbolExpr>(e))
        symbols = std::max(symbols, symbol.getPosition() + 1);
    });
  }
  return AffineMap::get(0, symbols, normal, context);
}

RankedTensorType tensorType(ArrayRef<AffineExpr> sizes, Type elementType) {
  SmallVector<int64_t> dims;
  AffineMap map = sizeMap(sizes, elementType.getContext());
  bool isDynamic = false;
  for (AffineExpr size : map.getResults()) {
    auto constant = dyn_cast<AffineConstantExpr>(size);
    dims.push_back(constant ? constant.getValue() : ShapedType::kDynamic);
    isDynamic |= !constant;
  }
  return RankedTensorType::get(dims, elementType, isDynamic ? AffineMapAttr::get(map) : Attribute());
}

SmallVector<AffineExpr> sizesOf(RankedTensorType type) {
  SmallVector<AffineExpr> sizes;
  if (auto map = dyn_cast_or_null<AffineMapAttr>(type.getEncoding())) {
    llvm::append_range(sizes, map.getValue().getResults());
    return sizes;
  }
  for (int64_t dim : type.getShape())
    sizes.push_back(ShapedType::isDynamic(dim) ? AffineExpr() : getAffineConstantExpr(dim, type.getContext()));
  return sizes;
}

AffineExpr elementCount(RankedTensorType type) { return productOf(sizesOf(type), type.getContext()); }

RankedTensorType withElementType(RankedTensorType type, Type elementType) {
  return RankedTensorType::get(type.getShape(), elementType, type.getEncoding());
}

std::string sizeToString(AffineExpr size, ArrayRef<StringRef> dims) {
  if (!size)
    return "?";
  std::string text;
  llvm::raw_string_ostream os(text);
  auto name = [&](const Factor &factor) {
    if (auto symbol = dyn_cast<AffineSymbolExpr>(factor.expr); symbol && symbol.getPosition() < dims.size())
      return dims[symbol.getPosition()].str();
    auto binary = dyn_cast<AffineBinaryOpExpr>(factor.expr);
    if (!binary)
      return factor.key;
    StringRef op = factor.expr.getKind() == AffineExprKind::Mod ? " % " : factor.expr.getKind() == AffineExprKind::CeilDiv ? " ceildiv " : " / ";
    auto operand = [&](AffineExpr size) {
      std::string text = sizeToString(size, dims);
      return isa<AffineBinaryOpExpr>(size) ? "(" + text + ")" : text;
    };
    return "(" + operand(binary.getLHS()) + op.str() + operand(binary.getRHS()) + ")";
  };
  Polynomial polynomial = polynomialOf(size);
  if (polynomial.empty())
    return "0";
  // Products before the constant, as people write them.
  bool first = true;
  auto print = [&](const std::vector<Factor> &product, int64_t coefficient) {
    if (!first)
      os << (coefficient < 0 ? " - " : " + ");
    else if (coefficient < 0)
      os << "-";
    first = false;
    int64_t magnitude = coefficient < 0 ? -coefficient : coefficient;
    if (product.empty() || magnitude != 1)
      os << magnitude << (product.empty() ? "" : "*");
    llvm::interleave(product, os, [&](const Factor &factor) { os << name(factor); }, "*");
  };
  for (const auto &[product, coefficient] : polynomial)
    if (!product.empty())
      print(product, coefficient);
  if (auto constant = polynomial.find({}); constant != polynomial.end())
    print({}, constant->second);
  return text;
}

std::string shapeToString(ArrayRef<AffineExpr> sizes, ArrayRef<StringRef> dims) {
  std::string text = "[";
  llvm::raw_string_ostream os(text);
  llvm::interleaveComma(sizes, os, [&](AffineExpr size) { os << sizeToString(size, dims); });
  return text + "]";
}

bool isKnownAtLeast(AffineExpr size, AffineExpr other) {
  auto difference = dyn_cast<AffineConstantExpr>(normalizeSize(size - other));
  return difference && difference.getValue() >= 0;
}

FailureOr<RankedTensorType> reducedType(std::optional<Location> location, RankedTensorType type, ArrayRef<int64_t> axes) {
  SmallVector<AffineExpr> sizes = sizesOf(type), kept;
  int64_t before = -1;
  for (int64_t axis : axes) {
    if (axis <= before || axis >= type.getRank())
      return emitOptionalError(location, "reduces axis ", axis, " of a tensor of rank ", type.getRank(), "; axes must be increasing and in range");
    before = axis;
  }
  for (auto [axis, size] : llvm::enumerate(sizes))
    if (!llvm::is_contained(axes, static_cast<int64_t>(axis)))
      kept.push_back(size);
  return tensorType(kept, type.getElementType());
}

FailureOr<RankedTensorType> matmulType(std::optional<Location> location, RankedTensorType lhs, RankedTensorType rhs, bool lhsTransposed, bool rhsTransposed) {
  int64_t rank = lhs.getRank();
  if (rank < 2 || rhs.getRank() != rank)
    return emitOptionalError(location, "multiplies tensors of rank ", rank, " and ", rhs.getRank(), "; both must have the same rank, 2 or more");
  if (lhs.getElementType() != rhs.getElementType())
    return emitOptionalError(location, "multiplies ", lhs.getElementType(), " by ", rhs.getElementType());
  SmallVector<AffineExpr> a = sizesOf(lhs), c = sizesOf(rhs), sizes;
  for (int64_t axis = 0; axis < rank - 2; ++axis) {
    if (a[axis] != c[axis])
      return emitOptionalError(location, "batch dimension ", axis, " is ", sizeToString(a[axis], {}), " on the left and ", sizeToString(c[axis], {}), " on the right");
    sizes.push_back(a[axis]);
  }
  AffineExpr m = a[rank - (lhsTransposed ? 1 : 2)], k = a[rank - (lhsTransposed ? 2 : 1)];
  AffineExpr k2 = c[rank - (rhsTransposed ? 1 : 2)], n = c[rank - (rhsTransposed ? 2 : 1)];
  if (k != k2)
    return emitOptionalError(location, "contracts lhs dimension of size ", sizeToString(k, {}), " with rhs dimension of size ", sizeToString(k2, {}));
  sizes.push_back(m);
  sizes.push_back(n);
  return tensorType(sizes, lhs.getElementType());
}

FailureOr<RankedTensorType> transposedType(std::optional<Location> location, RankedTensorType type, ArrayRef<int64_t> permutation) {
  SmallVector<AffineExpr> sizes = sizesOf(type), out;
  SmallVector<bool> seen(sizes.size());
  if (permutation.size() != sizes.size())
    return emitOptionalError(location, "permutes ", permutation.size(), " axes of a tensor of rank ", sizes.size());
  for (int64_t axis : permutation) {
    if (axis < 0 || axis >= static_cast<int64_t>(sizes.size()) || seen[axis])
      return emitOptionalError(location, "axis ", axis, " is out of range or named twice in a permutation");
    seen[axis] = true;
    out.push_back(sizes[axis]);
  }
  return tensorType(out, type.getElementType());
}

FailureOr<RankedTensorType> concatType(std::optional<Location> location, TypeRange inputs, int64_t axis) {
  if (inputs.empty())
    return emitOptionalError(location, "concatenates nothing");
  auto first = cast<RankedTensorType>(inputs.front());
  if (axis < 0 || axis >= first.getRank())
    return emitOptionalError(location, "axis ", axis, " is out of range for rank ", first.getRank());
  SmallVector<AffineExpr> sizes = sizesOf(first);
  for (Type input : inputs.drop_front()) {
    auto type = cast<RankedTensorType>(input);
    if (type.getRank() != first.getRank() || type.getElementType() != first.getElementType())
      return emitOptionalError(location, "concatenates ", first, " and ", type);
    for (auto [i, size] : llvm::enumerate(sizesOf(type))) {
      if (static_cast<int64_t>(i) == axis)
        sizes[i] = sizes[i] + size;
      else if (sizes[i] != size)
        return emitOptionalError(location, "concatenates sizes ", sizeToString(sizes[i], {}), " and ", sizeToString(size, {}), " in dimension ", i);
    }
  }
  return tensorType(sizes, first.getElementType());
}

SmallVector<int64_t> otherAxes(int64_t rank, ArrayRef<int64_t> axes) {
  SmallVector<int64_t> others;
  for (int64_t axis = 0; axis < rank; ++axis)
    if (!llvm::is_contained(axes, axis))
      others.push_back(axis);
  return others;
}

FailureOr<RankedTensorType> gatherType(std::optional<Location> location, RankedTensorType x, TypeRange indices, ArrayRef<int64_t> axes, int64_t position) {
  if (axes.empty() || axes.size() != indices.size())
    return emitOptionalError(location, "indexes ", axes.size(), " axes by ", indices.size(), " tensors; expected one for each of one or more axes");
  for (Type type : indices)
    if (type != indices.front())
      return emitOptionalError(location, "has indices of type ", indices.front(), " and ", type);
  int64_t before = -1;
  for (int64_t axis : axes) {
    if (axis <= before || axis >= x.getRank())
      return emitOptionalError(location, "indexes axis ", axis, " of a tensor of rank ", x.getRank(), " after axis ", before);
    before = axis;
  }
  SmallVector<AffineExpr> sizes = sizesOf(x), result, places = sizesOf(cast<RankedTensorType>(indices.front()));
  for (int64_t axis : otherAxes(x.getRank(), axes))
    result.push_back(sizes[axis]);
  if (position < 0 || position > static_cast<int64_t>(result.size()))
    return emitOptionalError(location, "has the axes of the indices from position ", position, " on, among ", result.size(), " others");
  result.insert(result.begin() + position, places.begin(), places.end());
  return tensorType(result, x.getElementType());
}

FailureOr<std::pair<RankedTensorType, RankedTensorType>> attentionTypes(std::optional<Location> location, RankedTensorType q, RankedTensorType k, RankedTensorType v, RankedTensorType mask,
                                                                        bool isCausal) {
  for (RankedTensorType type : {q, k, v})
    if (type.getRank() != 4 || type.getElementType() != q.getElementType())
      return emitOptionalError(location, "attends by ", q, ", ", k, " and ", v, "; expected three tensors of 4 axes and one type");
  SmallVector<AffineExpr> a = sizesOf(q), c = sizesOf(k), e = sizesOf(v);
  for (int64_t axis : {0, 2, 3})
    if (a[axis] != c[axis])
      return emitOptionalError(location, "looks for queries of size ", sizeToString(a[axis], {}), " among keys of size ", sizeToString(c[axis], {}), " in dimension ", axis);
  for (int64_t axis : {0, 1, 2})
    if (c[axis] != e[axis])
      return emitOptionalError(location, "has keys of size ", sizeToString(c[axis], {}), " for values of size ", sizeToString(e[axis], {}), " in dimension ", axis);
  if (isCausal && a[1] != c[1])
    return emitOptionalError(location, "is causal with ", sizeToString(a[1], {}), " queries and ", sizeToString(c[1], {}), " keys");
  if (mask) {
    SmallVector<AffineExpr> scores{a[0], a[2], a[1], c[1]}, sizes = sizesOf(mask);
    bool fits = mask.getRank() == 4 && (mask.getElementType().isInteger(1) || mask.getElementType() == q.getElementType());
    for (int64_t axis = 0; fits && axis < 4; ++axis)
      fits = sizes[axis] == scores[axis] || sizes[axis] == getAffineConstantExpr(1, q.getContext());
    if (!fits)
      return emitOptionalError(location, "has a mask of type ", mask, " for scores ", shapeToString(scores, {}), " of ", q.getElementType());
  }
  return std::pair(tensorType({a[0], a[1], a[2], e[3]}, q.getElementType()), tensorType({a[0], a[1], a[2]}, q.getElementType()));
}

} // namespace dlc::dl
