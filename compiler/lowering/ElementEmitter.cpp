//===- ElementEmitter.cpp - one element of a fused kernel's body -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/lowering/ElementEmitter.h"
#include "dialects/dl/DlExpr.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc {

Type memoryType(Type elementType) {
  if (elementType.isInteger(1))
    return IntegerType::get(elementType.getContext(), 8);
  if (elementType.isUnsignedInteger())
    return IntegerType::get(elementType.getContext(), elementType.getIntOrFloatBitWidth());
  return elementType;
}

static Value constantIndex(OpBuilder &b, Location loc, int64_t n) { return arith::ConstantIndexOp::create(b, loc, n); }

/// Can an element be asked for by its row-major number alone?
static bool hasFlatElements(Operation *op) {
  if (auto generator = dyn_cast<GeneratorOpInterface>(op))
    return generator.usesLinearOnly();
  if (auto indexing = dyn_cast<IndexingOpInterface>(op)) {
    std::optional<SmallVector<int64_t>> axes = indexing.getAxisMap();
    return indexing.keepsOrder() || (axes && axes->empty());
  }
  return isa<ElementwiseOpInterface, YieldOp>(op); // an update is written somewhere else than where it is computed
}

/// The same for everything that a value is computed of.
static bool hasFlatElements(Value value) {
  Operation *def = value.getDefiningOp();
  return !def || (hasFlatElements(def) && llvm::all_of(def->getOperands(), [](Value operand) { return hasFlatElements(operand); }));
}

Value computedValue(Value yielded) {
  auto update = yielded.getDefiningOp<UpdateOpInterface>();
  return update ? update->getOperand(1) : yielded;
}

/// Is a vector whose lanes lie so far apart in memory taken out of as many vectors? Beyond that its lanes are read one by one as fast.
static bool isShortStride(std::optional<int64_t> stride) { return stride && *stride != 0 && std::abs(*stride) <= 4; }

/// The longest vector along the last axis that comes from one operand, at one place, wherever it begins at a multiple of its length.
static int64_t longestVector(Operation *op) {
  int64_t last = cast<RankedTensorType>(op->getResult(0).getType()).getRank() - 1;
  // Sizes and starts that are multiples of 2^n have no border within 2^n elements.
  auto alignmentOf = [](AffineExpr size) {
    uint64_t divisor = size.getLargestKnownDivisor();
    return divisor ? static_cast<int64_t>(divisor & -divisor) : ElementEmitter::Vectors().longest;
  };
  int64_t longest = ElementEmitter::Vectors().longest;
  if (auto concat = dyn_cast<ConcatOp>(op)) {
    if (static_cast<int64_t>(concat.getAxis()) == last)
      for (Value input : concat.getInputs())
        longest = std::min(longest, alignmentOf(sizesOf(input)[last]));
    return longest;
  }
  auto pad = cast<PadOp>(op);
  if (last < 0 || pad.getStrides()[last] != 1)
    return 1;
  AffineExpr start = pad.getStarts().getResult(last), size = sizesOf(pad.getX()).back(), whole = sizesOf(pad.getResult()).back();
  if (start == getAffineConstantExpr(0, op->getContext()) && size == whole)
    return longest;
  return std::min({alignmentOf(start), alignmentOf(size), alignmentOf(whole)});
}

static SmallVector<Operation *> bodyOf(FusedOp kernel) { return llvm::map_to_vector(kernel.getBody().front(), [](Operation &op) { return &op; }); }
ElementEmitter::Vectors ElementEmitter::vectors(FusedOp kernel) { return vectors(bodyOf(kernel)); }
bool ElementEmitter::isFlat(FusedOp kernel) { return isFlat(bodyOf(kernel)); }

ElementEmitter::Vectors ElementEmitter::vectors(ArrayRef<Operation *> ops) {
  Vectors vectors;
  for (Operation *op : ops) {
    if (isa<ConcatOp, PadOp>(op)) {
      vectors.longest = std::min(vectors.longest, longestVector(op));
    } else if (auto indexing = dyn_cast<IndexingOpInterface>(op)) {
      // Beyond an end, a vector is in part another number: of what lies in memory the rest is read under a mask.
      bool isMasked = indexing.getElementOutside() && !indexing.dropsInnermost();
      if (isMasked && op->getOperand(0).getDefiningOp())
        vectors.areLaneByLane = true;
      std::optional<int64_t> stride = indexing.getInnermostStride();
      if (stride == 0 || stride == 1 || (indexing.keepsOrder() && hasFlatElements(op->getOperand(0))))
        continue;
      (isShortStride(stride) && !op->getOperand(0).getDefiningOp() ? vectors.areStrided : vectors.areLaneByLane) = true;
    } else if (auto update = dyn_cast<UpdateOpInterface>(op)) {
      if (!update.keepsInnermost())
        vectors.longest = 1;
    }
  }
  return vectors;
}

bool ElementEmitter::isFlat(ArrayRef<Operation *> ops) {
  return llvm::all_of(ops, [](Operation *op) { return hasFlatElements(op); });
}

bool ElementEmitter::crossesRows(ArrayRef<Operation *> ops, RankedTensorType type, int64_t first) {
  return llvm::all_of(ops, [&](Operation *op) {
    if (op->hasTrait<OpTrait::IsTerminator>())
      return llvm::all_of(op->getOperands(), [&](Value yielded) { return sizesOf(cast<RankedTensorType>(computedValue(yielded).getType())) == sizesOf(type); });
    auto indexing = dyn_cast<IndexingOpInterface>(op);
    if (!indexing)
      return hasFlatElements(op);
    // What is beyond an op that leaves these axes does not see them.
    if (sizesOf(cast<RankedTensorType>(op->getResult(0).getType())) != sizesOf(type))
      return true;
    if (indexing.keepsOrder())
      return hasFlatElements(op->getOperand(0));
    if (indexing.getElementOutside())
      return false;
    std::optional<SmallVector<int64_t>> map = indexing.getAxisMap();
    return map && llvm::all_of(*map, [&](int64_t axis) { return axis < first; });
  });
}

Value ElementEmitter::linearIndex(OpBuilder &b, Location loc, RankedTensorType type, const ElementIndex &at) {
  if (at.linear)
    return at.linear;
  SmallVector<AffineExpr> sizes = sizesOf(type);
  AffineExpr one = getAffineConstantExpr(1, b.getContext());
  Value linear;
  for (size_t axis = 0; axis < sizes.size(); ++axis) {
    AffineExpr stride = productOf(ArrayRef(sizes).drop_front(axis + 1), b.getContext());
    Value step = stride == one ? at.dims[axis] : arith::MulIOp::create(b, loc, at.dims[axis], size(stride)).getResult();
    linear = linear ? arith::AddIOp::create(b, loc, linear, step).getResult() : step;
  }
  return linear ? linear : constantIndex(b, loc, 0);
}

/// Buffers begin at multiples of DL_BUFFER_ALIGNMENT; 16 bytes are the widest access there is a use for.
llvm::MaybeAlign ElementEmitter::alignmentOf(RankedTensorType type, const ElementIndex &at, Type stored, int64_t lanes) const {
  if (at.isFlat ? !vectorStarts.contains(at.linear) : at.dims.empty() || !vectorStarts.contains(at.dims.back()))
    return {};
  if (!at.isFlat && type.getRank() > 1 && sizesOf(type).back().getLargestKnownDivisor() % lanes != 0)
    return {};
  return llvm::Align(std::min<uint64_t>(16, llvm::PowerOf2Ceil(lanes * stored.getIntOrFloatBitWidth() / 8)));
}

Value ElementEmitter::read(OpBuilder &b, Value from, RankedTensorType type, const ElementIndex &at, int64_t lanes, Value mask, TypedAttr masked) {
  Location loc = kernel.getLoc();
  Type element = type.getElementType(), stored = memoryType(element);
  Value index = linearIndex(b, loc, type, at), loaded;
  if (lanes == 1) {
    loaded = memref::LoadOp::create(b, loc, from, index);
  } else {
    auto vector = VectorType::get(lanes, stored);
    if (mask)
      loaded = vector::MaskedLoadOp::create(b, loc, vector, from, index, mask, masked ? buildNumber(b, loc, vector, masked) : buildNumber(b, loc, vector, 0.0));
    else
      loaded = vector::LoadOp::create(b, loc, vector, from, ValueRange{index}, /*nontemporal=*/false, alignmentOf(type, at, stored, lanes));
  }
  if (element.isInteger(1))
    return arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ne, loaded, buildNumber(b, loc, loaded.getType(), 0.0));
  return loaded;
}

void ElementEmitter::store(OpBuilder &b, Value memref, RankedTensorType type, const ElementIndex &at, Value elements, Value mask) {
  Location loc = kernel.getLoc();
  if (type.getElementType().isInteger(1)) {
    Type bytes = memoryType(type.getElementType());
    if (auto vector = dyn_cast<VectorType>(elements.getType()))
      bytes = vector.clone(bytes);
    elements = arith::ExtUIOp::create(b, loc, bytes, elements);
  }
  Value index = linearIndex(b, loc, type, at);
  if (!isa<VectorType>(elements.getType()))
    memref::StoreOp::create(b, loc, elements, memref, index);
  else if (mask)
    vector::MaskedStoreOp::create(b, loc, memref, index, mask, elements);
  else
    vector::StoreOp::create(b, loc, elements, memref, ValueRange{index}, /*nontemporal=*/false,
                            alignmentOf(type, at, memoryType(type.getElementType()), cast<VectorType>(elements.getType()).getNumElements()));
}

void ElementEmitter::storeResult(OpBuilder &b, Value yielded, Value memref, const ElementIndex &at, Value elements, Value mask) {
  auto type = cast<RankedTensorType>(yielded.getType());
  auto update = yielded.getDefiningOp<UpdateOpInterface>();
  if (!update)
    return store(b, memref, type, at, elements, mask);
  ElementIndex to;
  to.dims = update.mapPartIndices(b, update.getLoc(), at.dims, [&](Value indices, ValueRange place) { return indexElement(b, indices, place); });
  store(b, memref, type, to, elements, mask);
}

void ElementEmitter::prepareScalars(OpBuilder &b) {
  for (Operation &op : kernel.getBody().front()) {
    unsigned first = isa<UpdateOpInterface>(op) ? 2 : isa<IndexingOpInterface>(op) ? 1 : op.getNumOperands();
    for (Value scalar : op.getOperands().drop_front(first))
      if (auto type = cast<RankedTensorType>(scalar.getType()); type.getRank() == 0 && type.getElementType().isInteger()) // what `after` waits for is no index
        indexElement(b, scalar, {});
  }
}

/// The type of elements where they are computed.
static Type computedType(Value value, int64_t lanes) {
  Type element = getElementTypeOrSelf(value.getType());
  Type type = element.isInteger(1) ? element : memoryType(element);
  return lanes == 1 ? type : Type(VectorType::get(lanes, type));
}

Value ElementEmitter::indexElement(OpBuilder &b, Value indices, ValueRange at) {
  ElementIndex index;
  index.dims = llvm::to_vector(at);
  return arith::IndexCastOp::create(b, kernel.getLoc(), b.getIndexType(), element(b, indices, index, 1, {}));
}

/// Conditions together; null where there are none.
static Value buildAll(OpBuilder &b, Location loc, ArrayRef<Value> conditions) {
  Value together;
  for (Value condition : conditions)
    if (condition)
      together = together ? arith::AndIOp::create(b, loc, together, condition).getResult() : condition;
  return together;
}

namespace {
/// Lanes that lie `stride` apart in memory, taken out of as many vectors of neighbours. Places count from the lowest lane's.
struct StridedLanes {
  int64_t stride, lanes;

  int64_t parts() const { return std::abs(stride); }
  int64_t highest() const { return parts() * (lanes - 1); }
  int64_t placeOf(int64_t lane) const { return parts() * (stride < 0 ? lanes - 1 - lane : lane); }
  /// The last part ends with the highest lane: what lies behind it may be nobody's.
  int64_t startOf(int64_t part) const { return std::min(part * lanes, highest() + 1 - lanes); }

  /// Which elements of a part are lanes that exist.
  Value maskOf(OpBuilder &b, Location loc, int64_t part, Value mask) const {
    if (stride == 1)
      return mask;
    SmallVector<int64_t> from(lanes, lanes); // of no lane: the first of the zeros
    for (int64_t lane = 0; lane < lanes; ++lane)
      if (int64_t place = placeOf(lane) - startOf(part); place >= 0 && place < lanes)
        from[place] = lane;
    return vector::ShuffleOp::create(b, loc, mask, buildNumber(b, loc, mask.getType(), 0.0), from);
  }
  Value take(OpBuilder &b, Location loc, ArrayRef<Value> read) const {
    if (stride == 1)
      return read.front();
    // Each part after the first adds its lanes to those that are in their order already; the second one puts the first one's there too.
    Value taken = read.front();
    for (int64_t part = std::min<int64_t>(1, parts() - 1); part < parts(); ++part) {
      SmallVector<int64_t> from(lanes, vector::ShuffleOp::kPoisonIndex);
      for (int64_t lane = 0; lane < lanes; ++lane) {
        int64_t own = placeOf(lane) / lanes, place = placeOf(lane) - startOf(own);
        if (own <= part)
          from[lane] = own == part ? lanes + place : part == 1 ? place : lane;
      }
      taken = vector::ShuffleOp::create(b, loc, taken, read[part], from);
    }
    return taken;
  }
};
} // namespace

/// Which elements from index `first` on are inside an axis: a negative index is large without a sign.
static Value buildInsideMask(OpBuilder &b, Location loc, Value first, Value length, int64_t lanes) {
  auto type = VectorType::get(lanes, b.getI32Type());
  auto spread = [&](Value index) { return vector::BroadcastOp::create(b, loc, type, arith::IndexCastOp::create(b, loc, b.getI32Type(), index)); };
  SmallVector<int32_t> numbers = llvm::to_vector(llvm::seq<int32_t>(0, lanes));
  Value ramp = arith::ConstantOp::create(b, loc, DenseElementsAttr::get(type, ArrayRef(numbers)));
  return arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ult, arith::AddIOp::create(b, loc, spread(first), ramp), spread(length));
}

/// A vector whose neighbours are a stride apart in an operand that lies in memory.
Value ElementEmitter::strided(OpBuilder &b, IndexingOpInterface op, const ElementIndex &at, int64_t lanes, Value mask) {
  Location loc = op.getLoc();
  Value operand = op->getOperand(0);
  TypedAttr outside = op.getElementOutside();
  StridedLanes spread{*op.getInnermostStride(), lanes};
  ElementIndex to;
  to.dims = op.mapIndices(b, loc, at.dims, size);
  SmallVector<Value> inside = op.buildInside(b, loc, at.dims, size);
  Value first = to.dims.back(), length = size(sizesOf(operand).back());
  auto plus = [&](OpBuilder &b, Value index, int64_t n) { return n ? arith::AddIOp::create(b, loc, index, constantIndex(b, loc, n)).getResult() : index; };
  Value lowest = plus(b, first, spread.stride < 0 ? -spread.highest() : 0);
  auto build = [&](OpBuilder &b, bool isInside) {
    SmallVector<Value> parts;
    for (int64_t part = 0; part < spread.parts(); ++part) {
      Value exists = mask ? spread.maskOf(b, loc, part, mask) : Value();
      to.dims.back() = plus(b, lowest, spread.startOf(part));
      if (!isInside)
        exists = buildAll(b, loc, {exists, buildInsideMask(b, loc, to.dims.back(), length, lanes)});
      parts.push_back(read(b, memory.lookup(operand), cast<RankedTensorType>(operand.getType()), to, lanes, exists, outside));
    }
    return spread.take(b, loc, parts);
  };
  using Build = llvm::function_ref<Value(OpBuilder &)>;
  auto choose = [&](OpBuilder &b, Value condition, Build ifTrue, Build ifFalse) {
    auto branch = scf::IfOp::create(b, loc, computedType(operand, lanes), condition, /*withElseRegion=*/true);
    OpBuilder yes = branch.getThenBodyBuilder(), no = branch.getElseBodyBuilder();
    scf::YieldOp::create(yes, loc, ifTrue(yes));
    scf::YieldOp::create(no, loc, ifFalse(no));
    return branch.getResult(0);
  };
  // Most vectors are inside from the first lane to the last one that exists, and masks for the others cost more than the reads: they have code of their own.
  auto alongAxis = [&](OpBuilder &b) -> Value {
    if (!inside.back())
      return build(b, /*isInside=*/true);
    Value lane = constantIndex(b, loc, lanes - 1);
    if (mask)
      lane = arith::MinUIOp::create(b, loc, lane, arith::SubIOp::create(b, loc, plus(b, size(sizesOf(op->getResult(0)).back()), -1), at.dims.back()));
    Value last = arith::AddIOp::create(b, loc, first, arith::MulIOp::create(b, loc, lane, constantIndex(b, loc, spread.stride)));
    Value firstIsInside = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ult, first, length);
    Value lastIsInside = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ult, last, length);
    return choose(
        b, arith::AndIOp::create(b, loc, firstIsInside, lastIsInside), [&](OpBuilder &b) { return build(b, /*isInside=*/true); },
        [&](OpBuilder &b) { return build(b, /*isInside=*/false); });
  };
  Value others = buildAll(b, loc, ArrayRef(inside).drop_back());
  if (!others)
    return alongAxis(b);
  return choose(b, others, alongAxis, [&](OpBuilder &b) { return buildNumber(b, loc, computedType(operand, lanes), outside); });
}

/// An element of a value that only lies elsewhere in its operand.
Value ElementEmitter::moved(OpBuilder &b, IndexingOpInterface op, const ElementIndex &at, int64_t lanes, Value mask) {
  Location loc = op.getLoc();
  Value operand = op->getOperand(0);
  if (at.isFlat && op.keepsOrder())
    return element(b, operand, at, lanes, mask);
  // The operand's element for the result's at `dims`, or 0 where there is none.
  auto found = [&](OpBuilder &b, ValueRange dims, int64_t lanes, Value mask) {
    ElementIndex to;
    Value exists;
    to.dims = op.lookUpIndices(b, loc, dims, size, [&](Value indices, ValueRange place) { return indexElement(b, indices, place); }, exists);
    if (!exists)
      return element(b, operand, to, lanes, mask);
    Type type = computedType(operand, lanes);
    auto branch = scf::IfOp::create(b, loc, type, exists, /*withElseRegion=*/true);
    OpBuilder yes = branch.getThenBodyBuilder(), no = branch.getElseBodyBuilder();
    pushScope();
    scf::YieldOp::create(yes, loc, element(yes, operand, to, lanes, mask));
    popScope();
    scf::YieldOp::create(no, loc, buildNumber(no, loc, type, 0.0));
    return branch.getResult(0);
  };
  // Where all that is outside is a number, an element there is read at index 0 and not taken.
  TypedAttr outside = op.getElementOutside();
  auto single = [&](ValueRange dims) -> Value {
    if (!outside)
      return found(b, dims, 1, {});
    ElementIndex to;
    to.dims = op.mapIndices(b, loc, dims, size);
    SmallVector<Value> inside = op.buildInside(b, loc, dims, size);
    for (auto [index, condition] : llvm::zip(to.dims, inside))
      if (condition)
        index = arith::SelectOp::create(b, loc, condition, index, constantIndex(b, loc, 0));
    Value there = element(b, operand, to, 1, {});
    Value isInside = buildAll(b, loc, inside);
    return isInside ? arith::SelectOp::create(b, loc, isInside, there, buildNumber(b, loc, there.getType(), outside)).getResult() : there;
  };
  if (lanes == 1)
    return single(at.dims);
  if (op.dropsInnermost()) {
    Value one = single(at.dims);
    return vector::BroadcastOp::create(b, loc, VectorType::get(lanes, one.getType()), one);
  }
  if (op.keepsInnermost() && !outside)
    return found(b, at.dims, lanes, mask);
  if (isShortStride(op.getInnermostStride()) && !operand.getDefiningOp())
    return strided(b, op, at, lanes, mask);
  if (op.keepsOrder() && hasFlatElements(operand)) {
    ElementIndex to;
    to.linear = linearIndex(b, loc, cast<RankedTensorType>(op->getResult(0).getType()), at);
    to.isFlat = true;
    return element(b, operand, to, lanes, mask);
  }
  // One by one; lanes that do not exist read the last one that does.
  SmallVector<Value> each;
  AffineExpr last = sizesOf(op->getResult(0)).back();
  Value end = arith::SubIOp::create(b, loc, size(last), constantIndex(b, loc, 1));
  for (int64_t lane = 0; lane < lanes; ++lane) {
    SmallVector<Value> dims = at.dims;
    dims.back() = arith::AddIOp::create(b, loc, dims.back(), constantIndex(b, loc, lane));
    if (mask)
      dims.back() = arith::MinUIOp::create(b, loc, dims.back(), end);
    each.push_back(single(dims));
  }
  return vector::FromElementsOp::create(b, loc, VectorType::get(lanes, each.front().getType()), each);
}

/// An element that comes from one of several operands, or from none: only the one that has it may be read.
Value ElementEmitter::conditional(OpBuilder &b, Operation *op, const ElementIndex &at, int64_t lanes, Value mask) {
  Location loc = op->getLoc();
  Type type = computedType(op->getResult(0), lanes);
  auto inside = [&](OpBuilder &b, Value operand, ArrayRef<Value> dims) {
    pushScope();
    ElementIndex to;
    to.dims.assign(dims.begin(), dims.end());
    Value found = element(b, operand, to, lanes, mask);
    popScope();
    return found;
  };
  if (auto pad = dyn_cast<PadOp>(op)) {
    // Inside where every index minus start is a multiple of the stride within the operand's size.
    SmallVector<AffineExpr> sizes = sizesOf(pad.getX());
    Value isInside = arith::ConstantOp::create(b, loc, b.getBoolAttr(true));
    SmallVector<Value> dims;
    for (auto [index, start, stride, count] : llvm::zip(at.dims, pad.getStarts().getResults(), pad.getStrides(), sizes)) {
      Value offset = arith::SubIOp::create(b, loc, index, size(start));
      if (stride < 0)
        offset = arith::SubIOp::create(b, loc, constantIndex(b, loc, 0), offset);
      Value step = constantIndex(b, loc, std::abs(stride));
      Value quotient = arith::DivSIOp::create(b, loc, offset, step);
      Value exact = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, arith::MulIOp::create(b, loc, quotient, step), offset);
      // A negative offset is large without a sign.
      Value inRange = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ult, quotient, size(count));
      Value isPositive = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::sge, offset, constantIndex(b, loc, 0));
      for (Value condition : {exact, inRange, isPositive})
        isInside = arith::AndIOp::create(b, loc, isInside, condition);
      dims.push_back(quotient);
    }
    auto branch = scf::IfOp::create(b, loc, type, isInside, /*withElseRegion=*/true);
    OpBuilder yes = branch.getThenBodyBuilder(), no = branch.getElseBodyBuilder();
    Value found = inside(yes, pad.getX(), dims);
    scf::YieldOp::create(yes, loc, found);
    Value zero = buildNumber(no, loc, type, 0.0);
    scf::YieldOp::create(no, loc, zero);
    return branch.getResult(0);
  }
  auto concat = cast<ConcatOp>(op);
  int64_t axis = concat.getAxis();
  std::function<Value(OpBuilder &, unsigned, Value)> from = [&](OpBuilder &b, unsigned number, Value index) -> Value {
    SmallVector<Value> dims = at.dims;
    dims[axis] = index;
    Value operand = concat.getInputs()[number];
    if (number + 1 == concat.getInputs().size())
      return inside(b, operand, dims);
    Value count = size(sizesOf(operand)[axis]);
    Value isHere = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ult, index, count);
    auto branch = scf::IfOp::create(b, loc, type, isHere, /*withElseRegion=*/true);
    OpBuilder yes = branch.getThenBodyBuilder(), no = branch.getElseBodyBuilder();
    scf::YieldOp::create(yes, loc, inside(yes, operand, dims));
    Value rest = arith::SubIOp::create(no, loc, index, count);
    scf::YieldOp::create(no, loc, from(no, number + 1, rest));
    return branch.getResult(0);
  };
  return from(b, 0, at.dims[axis]);
}

/// Elements from a function of the module, which ops that differ in scalars alone share.
Value ElementEmitter::called(OpBuilder &b, GeneratorOpInterface op, Value linear, ValueRange scalars, int64_t lanes) {
  Location loc = op.getLoc();
  Type element = memoryType(getElementTypeOrSelf(op->getResult(0).getType()));
  Type type = lanes == 1 ? element : Type(VectorType::get(lanes, element));
  std::string name;
  llvm::raw_string_ostream os(name);
  os << "dl." << op->getName().stripDialect() << "_" << element << "_" << lanes;
  SmallVector<IntegerAttr> handed = op.getScalarAttributes();
  for (NamedAttribute attribute : op->getAttrs())
    if (auto number = dyn_cast<IntegerAttr>(attribute.getValue()); number && !llvm::is_contained(handed, number))
      os << "_" << number.getValue();
  auto module = b.getInsertionBlock()->getParentOp()->getParentOfType<ModuleOp>();
  auto function = module.lookupSymbol<func::FuncOp>(name);
  if (!function) {
    SmallVector<Type> arguments{linear.getType()};
    llvm::append_range(arguments, scalars.getTypes());
    OpBuilder outer = OpBuilder::atBlockEnd(module.getBody());
    function = func::FuncOp::create(outer, loc, name, b.getFunctionType(arguments, type));
    function.setPrivate();
    function->setAttr("passthrough", b.getStrArrayAttr({"noinline", "nounwind"}));
    OpBuilder body = OpBuilder::atBlockEnd(function.addEntryBlock());
    Value result = op.buildElements(body, loc, {}, function.getArgument(0), function.getArguments().drop_front(), lanes, size);
    func::ReturnOp::create(body, loc, result);
  }
  SmallVector<Value> operands{linear};
  llvm::append_range(operands, scalars);
  return func::CallOp::create(b, loc, function, operands).getResult(0);
}

Value ElementEmitter::element(OpBuilder &b, Value value, const ElementIndex &at, int64_t lanes, Value mask) {
  Location loc = kernel.getLoc();
  if (Value known = available.lookup(value)) {
    if (lanes > 1 && !isa<VectorType>(known.getType()))
      return vector::BroadcastOp::create(b, loc, VectorType::get(lanes, known.getType()), known);
    return known;
  }
  Key key{{value.getAsOpaquePointer(), mask.getAsOpaquePointer(), at.isFlat ? at.linear.getAsOpaquePointer() : nullptr}, lanes};
  for (Value dim : at.dims)
    key.first.push_back(dim.getAsOpaquePointer());
  for (auto &scope : scopes)
    if (auto it = scope.find(key); it != scope.end())
      return it->second;

  Value result;
  Operation *def = value.getDefiningOp();
  if (!def || inMemory.contains(value)) {
    result = read(b, memory.lookup(value), cast<RankedTensorType>(value.getType()), at, lanes, mask);
  } else if (auto indexing = dyn_cast<IndexingOpInterface>(def)) {
    result = moved(b, indexing, at, lanes, mask);
  } else if (auto elementwise = dyn_cast<ElementwiseOpInterface>(def)) {
    SmallVector<Value> elements;
    for (Value operand : def->getOperands())
      elements.push_back(element(b, operand, at, lanes, mask));
    result = elementwise.buildElement(b, def->getLoc(), elements);
  } else if (auto generator = dyn_cast<GeneratorOpInterface>(def)) {
    SmallVector<Value> scalars;
    for (Value operand : def->getOperands())
      scalars.push_back(element(b, operand, ElementIndex(), 1, {}));
    for (IntegerAttr attribute : generator.getScalarAttributes())
      scalars.push_back(arith::ConstantOp::create(b, loc, b.getIntegerAttr(IntegerType::get(b.getContext(), attribute.getValue().getBitWidth()), attribute.getValue())));
    Value linear = arith::IndexCastOp::create(b, loc, b.getI64Type(), linearIndex(b, loc, cast<RankedTensorType>(value.getType()), at));
    result = generator.isLarge() ? called(b, generator, linear, scalars, lanes) : generator.buildElements(b, def->getLoc(), at.dims, linear, scalars, lanes, size);
  } else {
    assert((lanes == 1 || isWholeAlongLastAxis(def)) && "elements that come from several places are asked for one by one");
    result = conditional(b, def, at, lanes, mask);
  }
  scopes.back()[key] = result;
  return result;
}

Value buildBeats(OpBuilder &b, Location loc, ReductionOpInterface op, Value first, Value second) {
  Value keptOne = op.buildCombine(b, loc, first, second);
  ScalarExpr f(b, loc, first), k(b, loc, keptOne);
  Value changed = compare(ComparePredicate::ne, k, f).value; // true too where one is NaN
  if (!f.isFloat())
    return changed;
  // NaN beats numbers; a NaN that was there first stays.
  Value firstIsNumber = arith::CmpFOp::create(b, loc, arith::CmpFPredicate::ORD, first, first);
  return arith::AndIOp::create(b, loc, changed, firstIsNumber);
}

Value buildIsOutside(OpBuilder &b, Location loc, CheckIndexOp check, Value element, Value size) {
  Value place = element, count = size;
  if (check.getFromEnd()) {
    place = arith::AddIOp::create(b, loc, place, size);
    count = arith::AddIOp::create(b, loc, count, size);
  }
  // A negative one is large without a sign.
  Value isBad = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::uge, place, count);
  if (std::optional<uint64_t> ignore = check.getIgnore()) {
    Value ignored = arith::ConstantOp::create(b, loc, b.getI64IntegerAttr(static_cast<int64_t>(*ignore)));
    isBad = arith::AndIOp::create(b, loc, isBad, arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ne, element, ignored));
  }
  return isBad;
}

} // namespace dlc
