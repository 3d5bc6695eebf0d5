//===- KernelEmitter.cpp - a fused kernel as threads -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/lowering/cuda/KernelEmitter.h"
#include "dialects/dl/DlExpr.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc::cuda {

static constexpr int64_t warpThreads = 32, warps = blockThreads / warpThreads;
/// Pieces of a row that a thread keeps in registers over all passes.
static constexpr int64_t registerPieces = 8;
/// A reduction that would give a thread this many pieces, and has few results, is cut into chunks, until it has this many blocks.
static constexpr int64_t piecesOfChunk = 16, blocksOfChunks = 256;

static Value constantIndex(OpBuilder &b, Location loc, int64_t n) { return arith::ConstantIndexOp::create(b, loc, n); }
static Value add(OpBuilder &b, Location loc, Value x, Value y) { return arith::AddIOp::create(b, loc, x, y); }
static Value sub(OpBuilder &b, Location loc, Value x, Value y) { return arith::SubIOp::create(b, loc, x, y); }
static Value mul(OpBuilder &b, Location loc, Value x, Value y) { return arith::MulIOp::create(b, loc, x, y); }
static Value less(OpBuilder &b, Location loc, Value x, Value y) { return arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ult, x, y); }
static Value quotient(OpBuilder &b, Location loc, Value x, int64_t n) { return n == 1 ? x : arith::DivUIOp::create(b, loc, x, constantIndex(b, loc, n)).getResult(); }
static Value remainder(OpBuilder &b, Location loc, Value x, int64_t n) {
  return n == 1 ? constantIndex(b, loc, 0) : arith::RemUIOp::create(b, loc, x, constantIndex(b, loc, n)).getResult();
}

static std::optional<int64_t> constantOf(AffineExpr size) {
  auto constant = dyn_cast<AffineConstantExpr>(size);
  return constant ? std::optional(constant.getValue()) : std::nullopt;
}

SmallVector<Value> indicesOf(OpBuilder &b, Location loc, KernelAccess &access, ArrayRef<AffineExpr> shape, Value number) {
  SmallVector<Value> indices;
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    if (axis + 1 == shape.size()) {
      indices.push_back(number);
      break;
    }
    Value inner = access.size(normalizeSize(productOf(shape.drop_front(axis + 1), b.getContext())));
    Value index = arith::DivUIOp::create(b, loc, number, inner);
    number = sub(b, loc, number, mul(b, loc, index, inner));
    indices.push_back(index);
  }
  return indices;
}

//===--- schedules ---===//

/// Can four neighbours be had as a vector, none of them computed by itself? A thread that takes them out of more than four only reads more.
static bool comeFour(ArrayRef<Operation *> ops) {
  ElementEmitter::Vectors vectors = ElementEmitter::vectors(ops);
  return vectors.longest >= 4 && !vectors.areLaneByLane && !vectors.areStrided;
}

KernelEmitter::KernelEmitter(FusedOp kernel, ArrayRef<Given> given) : kernel(kernel), given(given) {
  Block &body = kernel.getBody().front();
  auto yield = cast<YieldOp>(body.getTerminator());
  auto isGiven = [&](Value value) { return llvm::any_of(given, [&](const Given &one) { return one.value == value; }); };
  auto isStored = [&](Value value) { return llvm::any_of(given, [&](const Given &one) { return one.value == value && one.isStored; }); };
  // What has to be computed for the results that are not there yet.
  DenseSet<Operation *> wanted;
  std::function<void(Value)> want = [&](Value value) {
    Operation *def = value.getDefiningOp();
    if (!def || isGiven(value) || !wanted.insert(def).second)
      return;
    for (Value operand : def->getOperands())
      want(operand);
  };
  for (auto [number, value] : llvm::enumerate(yield.getOperands()))
    if (!isStored(value)) {
      results.push_back(number);
      want(value);
    }
  for (Operation &op : body)
    if (wanted.contains(&op))
      needed.push_back(&op);
  if (results.empty())
    return;

  for (Operation *op : needed)
    if (auto update = dyn_cast<ScatterOpInterface>(op))
      scatter = update;
  if (scatter) {
    planScatter();
    return;
  }
  bool keepsIndex = false;
  SmallVector<ReductionOpInterface> reductions;
  for (Operation *op : needed)
    if (auto reduction = dyn_cast<ReductionOpInterface>(op)) {
      full = sizesOf(op->getOperand(0));
      reduced = llvm::to_vector(reduction.getReducedAxes());
      keepsIndex |= reduction.keepsIndex();
      reductions.push_back(reduction);
    }
  if (reductions.empty())
    full = sizesOf(computedValue(yield.getOperand(results.front())));
  for (int64_t axis = 0; axis < static_cast<int64_t>(full.size()); ++axis)
    if (!llvm::is_contained(reduced, axis))
      kept.push_back(axis);

  MLIRContext *context = kernel.getContext();
  const bool vectors = comeFour(needed);
  if (reductions.empty()) {
    planLoop(needed);
    return;
  }

  AffineExpr lengthExpr = productOf(llvm::map_to_vector(reduced, [&](int64_t axis) { return full[axis]; }), context);
  std::optional<int64_t> length = constantOf(lengthExpr);
  std::optional<int64_t> points = constantOf(normalizeSize(keptPoints()));
  bool reducesLast = reduced.back() == static_cast<int64_t>(full.size()) - 1;
  if (reducesLast) {
    std::optional<int64_t> last = constantOf(full.back());
    if (vectors && !keepsIndex && length && *length >= 128 && last && *last % 4 == 0)
      lanes = 4;
    bool fewPoints = points && *points < 64;
    if (!length || *length > 32 * warpThreads || (fewPoints && *length > 4 * warpThreads))
      members = blockThreads;
    else
      members = std::min<int64_t>(warpThreads, llvm::PowerOf2Ceil(std::max<int64_t>(1, *length / lanes)));
  } else {
    width = length && *length < 32 ? 32 : 8;
    members = blockThreads / width;
  }
  inRegisters = length && *length > 0 && *length % lanes == 0 && llvm::divideCeil(*length / lanes, members) <= registerPieces;

  // A long reduction with few results would keep few blocks busy: cut it into chunks, if one pass is all there is to do.
  bool storesFull = llvm::any_of(results, [&](unsigned i) { return sizesOf(computedValue(yield.getOperand(i))) == full; });
  bool chained = llvm::any_of(reductions, [&](ReductionOpInterface reduction) {
    SmallVector<Value> work{reduction->getOperand(0)};
    while (!work.empty())
      if (Operation *def = work.pop_back_val().getDefiningOp(); def && wanted.contains(def)) {
        if (isa<ReductionOpInterface>(def))
          return true;
        llvm::append_range(work, def->getOperands());
      }
    return false;
  });
  Type element = getElementTypeOrSelf(reductions.front()->getOperand(0).getType());
  bool sameType = llvm::all_of(reductions, [&](ReductionOpInterface reduction) { return getElementTypeOrSelf(reduction->getOperand(0).getType()) == element; });
  if (points && !storesFull && !chained && !keepsIndex && sameType && !element.isInteger(1)) {
    // Chunks of half a unit to one; where these are more than twice the blocks that are wanted, of as many units as it takes. A function of the shape, whether that is known
    // here or when it is called: the bits are the same.
    int64_t pointBlocks = std::max<int64_t>(1, llvm::divideCeil(*points, blockThreads / members)), unit = piecesOfChunk * members * lanes;
    mostChunks = llvm::divideCeil(2 * blocksOfChunks, pointBlocks);
    AffineExpr units = getAffineConstantExpr(unit, context) * (lengthExpr.floorDiv(unit * mostChunks) + 1);
    AffineExpr count = normalizeSize(lengthExpr.floorDiv(units) + 1);
    if (mostChunks > 1 && count != getAffineConstantExpr(1, context)) {
      chunks = count;
      chunkLength = normalizeSize(lengthExpr.floorDiv(lanes).ceilDiv(chunks) * lanes);
    }
  }
  if (chunks)
    inRegisters = false;
}

void KernelEmitter::planLoop(ArrayRef<Operation *> ops) {
  flat = ElementEmitter::isFlat(ops) && llvm::all_of(results, [&](unsigned i) { return sizesOf(kernel.getResult(i)) == full; });
  std::optional<int64_t> size = full.empty() ? std::optional<int64_t>(1) : constantOf(flat ? normalizeSize(productOf(full, kernel.getContext())) : full.back());
  if (comeFour(ops) && (flat ? !size || *size >= 4 : size && *size % 4 == 0))
    lanes = 4;
}

/// Of a loop that is not flat, of one row of one element where the result is a number.
AffineExpr KernelEmitter::rowCount() const { return normalizeSize(productOf(ArrayRef(full).drop_back(full.empty() ? 0 : 1), kernel.getContext())); }
AffineExpr KernelEmitter::unitsInRow() const { return full.empty() ? getAffineConstantExpr(1, kernel.getContext()) : normalizeSize(full.back().floorDiv(lanes)); }

AffineExpr KernelEmitter::keptPoints() const {
  return productOf(llvm::map_to_vector(kept, [&](int64_t axis) { return full[axis]; }), kernel.getContext());
}

AffineExpr KernelEmitter::blocks(unsigned launch) const {
  MLIRContext *context = kernel.getContext();
  if (scatter && !(copiesFirst && launch == 0))
    return normalizeSize((normalizeSize(keptPoints().ceilDiv(warpThreads)) * slotRanges).ceilDiv(warps));
  if (reduced.empty()) {
    if (flat)
      return normalizeSize(normalizeSize(productOf(full, context)).ceilDiv(lanes * blockThreads));
    return normalizeSize(normalizeSize(rowCount() * unitsInRow()).ceilDiv(blockThreads));
  }
  AffineExpr points = normalizeSize(normalizeSize(keptPoints()).ceilDiv(blockThreads / members));
  if (!chunks)
    return points;
  if (launch == 0)
    return normalizeSize(points * chunks);
  return normalizeSize(points * (chunks - 1).ceilDiv(mostChunks)); // none for one chunk, which is done
}

AffineExpr KernelEmitter::partialElements(Type &elementType) const {
  if (!chunks)
    return {};
  int64_t count = 0;
  for (Operation *op : needed)
    if (isa<ReductionOpInterface>(op)) {
      elementType = getElementTypeOrSelf(op->getOperand(0).getType());
      ++count;
    }
  return normalizeSize(keptPoints() * chunks * count);
}

void KernelEmitter::emit(unsigned launch, OpBuilder &b, KernelAccess &access, Value block, std::optional<int64_t> partials) const {
  ElementEmitter elements(kernel, [&](AffineExpr expr) { return access.size(normalizeSize(expr)); });
  // Memory that nothing reads is no parameter: only what the needed ops read is bound.
  auto buffers = kernel->getAttrOfType<DenseI64ArrayAttr>("input_buffers").asArrayRef();
  auto bind = [&](Value value) {
    for (const Given &one : given)
      if (one.value == value)
        elements.setMemory(value, access.buffer(one.buffer, getElementTypeOrSelf(value.getType())));
    if (auto argument = dyn_cast<BlockArgument>(value))
      elements.setMemory(value, access.buffer(buffers[argument.getArgNumber()], getElementTypeOrSelf(value.getType())));
  };
  auto yield = cast<YieldOp>(kernel.getBody().front().getTerminator());
  // In the second half of a reduction in chunks what is reduced has been read already; in the first half nothing else is, if there are several.
  DenseSet<Operation *> seen;
  std::function<void(Value)> visit = [&](Value value) {
    bind(value);
    Operation *def = value.getDefiningOp();
    bool isRead = !def || !llvm::is_contained(needed, def) || (chunks && launch == 1 && isa<ReductionOpInterface>(def));
    if (!isRead && seen.insert(def).second)
      for (Value operand : def->getOperands())
        visit(operand);
  };
  if (chunks && constantOf(chunks) && launch == 0) {
    for (Operation *op : needed)
      if (isa<ReductionOpInterface>(op))
        visit(op->getOperand(0));
  } else if (scatter) {
    if (copiesFirst && launch == 0)
      visit(scatter.getInto());
    else
      for (Value operand : scatter->getOperands().drop_front())
        visit(operand);
  } else {
    for (unsigned i : results)
      visit(yield.getOperand(i));
  }
  for (const Given &one : given)
    if (Operation *def = one.value.getDefiningOp())
      elements.setInMemory(def->getResult(0));
  if (scatter && !(copiesFirst && launch == 0))
    emitScatter(b, access, elements, block);
  else if (reduced.empty())
    emitLoop(b, access, elements, block, /*copies=*/scatter != nullptr);
  else
    emitReduction(launch, b, access, elements, block, partials);
}

Value KernelEmitter::stored(unsigned result, bool copies) const {
  return copies ? scatter.getInto() : cast<YieldOp>(kernel.getBody().front().getTerminator()).getOperand(result);
}

void KernelEmitter::emitLoop(OpBuilder &b, KernelAccess &access, ElementEmitter &elements, Value block, bool copies) const {
  Location loc = kernel.getLoc();
  MLIRContext *context = b.getContext();
  auto buffers = kernel->getAttrOfType<DenseI64ArrayAttr>("result_buffers").asArrayRef();
  auto compute = [&](OpBuilder &o, const ElementIndex &at, int64_t count) {
    // All loads come before all stores: a result may lie where an operand did.
    elements.pushScope();
    SmallVector<Value> values;
    for (unsigned i : results)
      values.push_back(elements.element(o, computedValue(stored(i, copies)), at, count, {}));
    for (auto [i, value] : llvm::zip(results, values))
      elements.storeResult(o, stored(i, copies), access.buffer(buffers[i], getElementTypeOrSelf(stored(i, copies).getType())), at, value, {});
    elements.popScope();
  };
  Value number = add(b, loc, mul(b, loc, block, constantIndex(b, loc, blockThreads)), access.thread());
  if (!flat) {
    AffineExpr rows = rowCount(), inRow = unitsInRow();
    auto inside = scf::IfOp::create(b, loc, less(b, loc, number, access.size(normalizeSize(rows * inRow))), /*withElseRegion=*/false);
    OpBuilder o = inside.getThenBodyBuilder();
    ElementIndex at;
    if (!full.empty()) {
      SmallVector<AffineExpr> shape(ArrayRef(full).drop_back());
      shape.push_back(inRow);
      at.dims = indicesOf(o, loc, access, shape, number);
    }
    if (lanes > 1) {
      at.dims.back() = mul(o, loc, at.dims.back(), constantIndex(o, loc, lanes));
      elements.setVectorStart(at.dims.back());
    }
    compute(o, at, lanes);
    return;
  }
  AffineExpr total = normalizeSize(productOf(full, context));
  Value size = access.size(total), begin = lanes == 1 ? number : mul(b, loc, number, constantIndex(b, loc, lanes));
  auto flatIndex = [](Value linear) {
    ElementIndex at;
    at.linear = linear;
    at.isFlat = true;
    return at;
  };
  std::optional<int64_t> constant = constantOf(total);
  bool divides = constant && *constant % lanes == 0;
  if (lanes > 1)
    elements.setVectorStart(begin);
  Value end = divides ? begin : add(b, loc, begin, constantIndex(b, loc, lanes - 1));
  auto whole = scf::IfOp::create(b, loc, less(b, loc, end, size), /*withElseRegion=*/!divides && lanes > 1);
  OpBuilder o = whole.getThenBodyBuilder();
  compute(o, flatIndex(begin), lanes);
  if (divides || lanes == 1)
    return;
  // The last few, one by one.
  OpBuilder rest = whole.getElseBodyBuilder();
  auto loop = scf::ForOp::create(rest, loc, begin, size, constantIndex(rest, loc, 1));
  OpBuilder one = OpBuilder::atBlockBegin(loop.getBody());
  compute(one, flatIndex(loop.getInductionVar()), 1);
}

//===--- exchange between threads ---===//

Value shuffle(OpBuilder &b, Location loc, Value value, int64_t mask) {
  Type type = value.getType(), i32 = b.getI32Type();
  auto number = [&](int32_t n) -> Value { return arith::ConstantOp::create(b, loc, b.getI32IntegerAttr(n)); };
  auto exchange = [&](Value word) -> Value {
    return NVVM::ShflOp::create(b, loc, word.getType(), number(-1), word, number(mask), number(warpThreads - 1), NVVM::ShflKind::bfly, UnitAttr());
  };
  if (type.isF32() || type.isInteger(32))
    return exchange(value);
  if (type.isIntOrFloat() && type.getIntOrFloatBitWidth() < 32) {
    Type bits = b.getIntegerType(type.getIntOrFloatBitWidth());
    Value word = isa<FloatType>(type) ? arith::BitcastOp::create(b, loc, bits, value).getResult() : value;
    word = arith::TruncIOp::create(b, loc, bits, exchange(arith::ExtUIOp::create(b, loc, i32, word)));
    return isa<FloatType>(type) ? arith::BitcastOp::create(b, loc, type, word).getResult() : word;
  }
  Type i64 = b.getI64Type();
  Value bits = isa<FloatType>(type) ? arith::BitcastOp::create(b, loc, i64, value).getResult() : value;
  Value shift = arith::ConstantOp::create(b, loc, b.getI64IntegerAttr(32));
  Value low = exchange(arith::TruncIOp::create(b, loc, i32, bits));
  Value high = exchange(arith::TruncIOp::create(b, loc, i32, arith::ShRUIOp::create(b, loc, bits, shift)));
  Value joined = arith::OrIOp::create(b, loc, arith::ExtUIOp::create(b, loc, i64, low),
                                      arith::ShLIOp::create(b, loc, arith::ExtUIOp::create(b, loc, i64, high), shift).getResult());
  return isa<FloatType>(type) ? arith::BitcastOp::create(b, loc, type, joined).getResult() : joined;
}

namespace {
/// Shared memory for one exchange through a block: a number of up to 8 bytes for each warp and column. A block runs one kernel, which uses each slot once: no barrier
/// is needed before it is written.
class SharedSlot {
public:
  SharedSlot(OpBuilder &b, Location loc, unsigned number, Type type) : type(type), stored(type.isInteger(1) ? Type(b.getI8Type()) : type) {
    auto module = b.getInsertionBlock()->getParentOp()->getParentOfType<ModuleOp>();
    std::string name = "dl_shared_" + std::to_string(number);
    auto global = module.lookupSymbol<LLVM::GlobalOp>(name);
    if (!global) {
      OpBuilder outer = OpBuilder::atBlockBegin(module.getBody());
      auto bytes = LLVM::LLVMArrayType::get(b.getI8Type(), warps * warpThreads * 8);
      constexpr unsigned sharedSpace = 3;
      global = LLVM::GlobalOp::create(outer, loc, bytes, /*isConstant=*/false, LLVM::Linkage::Internal, name, Attribute(), /*alignment=*/16, sharedSpace);
      Block *block = outer.createBlock(&global.getInitializerRegion());
      OpBuilder init = OpBuilder::atBlockEnd(block);
      LLVM::ReturnOp::create(init, loc, LLVM::UndefOp::create(init, loc, bytes).getResult());
    }
    base = LLVM::AddressOfOp::create(b, loc, global);
  }
  void store(OpBuilder &b, Location loc, Value index, Value value) const {
    if (stored != type)
      value = arith::ExtUIOp::create(b, loc, stored, value);
    LLVM::StoreOp::create(b, loc, value, at(b, loc, index));
  }
  Value load(OpBuilder &b, Location loc, Value index) const {
    Value value = LLVM::LoadOp::create(b, loc, stored, at(b, loc, index));
    return stored == type ? value : arith::TruncIOp::create(b, loc, type, value).getResult();
  }

private:
  Value at(OpBuilder &b, Location loc, Value index) const {
    Value offset = arith::IndexCastOp::create(b, loc, b.getI64Type(), index);
    return LLVM::GEPOp::create(b, loc, base.getType(), stored, base, ArrayRef<LLVM::GEPArg>{offset});
  }
  Type type, stored;
  Value base;
};

/// A partial result; the index only where the reduction keeps it.
struct Partial {
  Value value, index;
};
} // namespace

/// Of two partial results, the first from elements that are combined first. Of equals, the one with the smaller index.
static Partial combine(OpBuilder &b, Location loc, ReductionOpInterface op, Partial a, Partial c) {
  if (!a.index)
    return {op.buildCombine(b, loc, a.value, c.value), {}};
  Value second = buildBeats(b, loc, op, a.value, c.value), first = buildBeats(b, loc, op, c.value, a.value);
  Value earlier = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::slt, c.index, a.index);
  Value neither = arith::AndIOp::create(b, loc, (!(ScalarExpr(b, loc, second) | ScalarExpr(b, loc, first))).value, earlier);
  Value takeSecond = arith::OrIOp::create(b, loc, second, neither);
  return {arith::SelectOp::create(b, loc, takeSecond, c.value, a.value), arith::SelectOp::create(b, loc, takeSecond, c.index, a.index)};
}

/// What all threads that share a kept index have together; all of them get it. Threads `width` apart are neighbours.
static Partial combineMembers(OpBuilder &b, Location loc, KernelAccess &access, ReductionOpInterface op, Partial partial, int64_t members, int64_t width, unsigned &slot) {
  bool commutes = isa<SumOp>(op.getOperation()) || !isa<FloatType>(partial.value.getType());
  for (int64_t mask = width; mask < std::min(warpThreads, width * members); mask *= 2) {
    Partial other = {shuffle(b, loc, partial.value, mask), partial.index ? shuffle(b, loc, partial.index, mask) : Value()};
    if (commutes || partial.index) {
      partial = combine(b, loc, op, partial, other);
      continue;
    }
    // Both lanes must get the same bits: the lower one's value comes first.
    Value bit = arith::AndIOp::create(b, loc, access.thread(), constantIndex(b, loc, mask));
    Value isUpper = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ne, bit, constantIndex(b, loc, 0));
    Value first = arith::SelectOp::create(b, loc, isUpper, other.value, partial.value), second = arith::SelectOp::create(b, loc, isUpper, partial.value, other.value);
    partial.value = op.buildCombine(b, loc, first, second);
  }
  if (width * members <= warpThreads)
    return partial;
  Value thread = access.thread(), lane = remainder(b, loc, thread, warpThreads), warp = quotient(b, loc, thread, warpThreads);
  SharedSlot values(b, loc, slot++, partial.value.getType());
  std::optional<SharedSlot> indices;
  if (partial.index)
    indices.emplace(b, loc, slot++, partial.index.getType());
  auto speaks = scf::IfOp::create(b, loc, less(b, loc, lane, constantIndex(b, loc, width)), /*withElseRegion=*/false);
  OpBuilder s = speaks.getThenBodyBuilder();
  Value place = add(s, loc, mul(s, loc, warp, constantIndex(s, loc, width)), lane);
  values.store(s, loc, place, partial.value);
  if (indices)
    indices->store(s, loc, place, partial.index);
  NVVM::Barrier0Op::create(b, loc);
  Value column = remainder(b, loc, thread, width);
  Partial total;
  for (int64_t w = 0; w < warps; ++w) {
    Value at = w ? add(b, loc, column, constantIndex(b, loc, w * width)) : column;
    Partial one = {values.load(b, loc, at), indices ? indices->load(b, loc, at) : Value()};
    total = w ? combine(b, loc, op, total, one) : one;
  }
  return total;
}

//===--- reductions ---===//

void KernelEmitter::emitReduction(unsigned launch, OpBuilder &b, KernelAccess &access, ElementEmitter &elements, Value block, std::optional<int64_t> partials) const {
  Location loc = kernel.getLoc();
  MLIRContext *context = b.getContext();
  Block &body = kernel.getBody().front();
  auto yield = cast<YieldOp>(body.getTerminator());
  auto buffers = kernel->getAttrOfType<DenseI64ArrayAttr>("result_buffers").asArrayRef();
  int64_t rank = full.size();
  bool reducesLast = width == 1, isSecond = chunks && launch == 1, isFirst = chunks && launch == 0;
  unsigned slot = 0;

  // In which pass over the reduced axes can a value be computed?
  DenseMap<Operation *, int64_t> stage;
  SmallVector<SmallVector<ReductionOpInterface>> passes;
  for (Operation *op : needed) {
    int64_t s = 0;
    for (Value operand : op->getOperands())
      if (Operation *def = operand.getDefiningOp())
        s = std::max(s, stage.lookup(def));
    if (auto reduction = dyn_cast<ReductionOpInterface>(op)) {
      if (static_cast<int64_t>(passes.size()) <= s)
        passes.resize(s + 1);
      passes[s].push_back(reduction);
      ++s;
    }
    stage[op] = s;
  }
  SmallVector<unsigned> fullResults, keptResults;
  int64_t storePass = static_cast<int64_t>(passes.size()) - 1;
  for (unsigned i : results) {
    Value value = yield.getOperand(i);
    bool isFull = sizesOf(computedValue(value)) == full;
    (isFull ? fullResults : keptResults).push_back(i);
    if (isFull && value.getDefiningOp())
      storePass = std::max(storePass, stage.lookup(value.getDefiningOp()));
  }
  int64_t passCount = std::max<int64_t>(passes.size(), fullResults.empty() ? 0 : storePass + 1);
  passes.resize(passCount);

  // Which kept index, and which share of its elements.
  Value thread = access.thread();
  Value member = reducesLast ? remainder(b, loc, thread, members) : quotient(b, loc, thread, width);
  Value point = reducesLast ? quotient(b, loc, thread, members) : remainder(b, loc, thread, width);
  AffineExpr points = normalizeSize(keptPoints());
  int64_t pointsPerBlock = blockThreads / members;
  Value chunk;
  if (isFirst) {
    Value pointBlocks = access.size(normalizeSize(points.ceilDiv(pointsPerBlock)));
    chunk = arith::DivUIOp::create(b, loc, block, pointBlocks);
    block = sub(b, loc, block, mul(b, loc, chunk, pointBlocks));
  }
  point = add(b, loc, mul(b, loc, block, constantIndex(b, loc, pointsPerBlock)), point);
  // All threads go all the way, for the sake of exchanges and barriers; those beyond the end repeat the last point and store nothing.
  Value isPoint;
  if (std::optional<int64_t> constant = constantOf(points); !constant || *constant % pointsPerBlock != 0) {
    isPoint = less(b, loc, point, access.size(points));
    point = arith::MinUIOp::create(b, loc, point, sub(b, loc, access.size(points), constantIndex(b, loc, 1)));
  }
  auto both = [&](OpBuilder &o, Value x, Value y) { return x && y ? arith::AndIOp::create(o, loc, x, y).getResult() : x ? x : y; };
  SmallVector<AffineExpr> keptShape, reducedShape;
  for (int64_t axis : kept)
    keptShape.push_back(full[axis]);
  for (int64_t axis : reduced)
    reducedShape.push_back(full[axis]);
  ElementIndex keptIndex;
  keptIndex.dims = indicesOf(b, loc, access, keptShape, point);
  AffineExpr lengthExpr = normalizeSize(productOf(reducedShape, context));
  auto place = [&](OpBuilder &o, Value number) {
    ElementIndex at;
    at.dims.resize(rank);
    for (auto [axis, index] : llvm::zip(kept, keptIndex.dims))
      at.dims[axis] = index;
    for (auto [axis, index] : llvm::zip(reduced, indicesOf(o, loc, access, reducedShape, number)))
      at.dims[axis] = index;
    if (lanes > 1)
      elements.setVectorStart(at.dims.back());
    return at;
  };

  // The elements that this thread looks at: pieces in registers, or a loop.
  struct Piece {
    ElementIndex at;
    Value number, exists; // null: it always does
  };
  SmallVector<Piece> pieces;
  if (inRegisters) {
    int64_t units = cast<AffineConstantExpr>(lengthExpr).getValue() / lanes;
    for (int64_t k = 0; k * members < units; ++k) {
      Piece piece;
      Value unit = k ? add(b, loc, member, constantIndex(b, loc, k * members)) : member;
      if ((k + 1) * members > units) {
        piece.exists = less(b, loc, unit, constantIndex(b, loc, units));
        unit = arith::MinUIOp::create(b, loc, unit, constantIndex(b, loc, units - 1));
      }
      piece.number = lanes == 1 ? unit : mul(b, loc, unit, constantIndex(b, loc, lanes));
      piece.at = place(b, piece.number);
      pieces.push_back(piece);
    }
  }
  Value from = mul(b, loc, member, constantIndex(b, loc, lanes)), to = access.size(lengthExpr);
  if (isFirst) {
    Value start = mul(b, loc, chunk, access.size(chunkLength));
    to = arith::MinUIOp::create(b, loc, add(b, loc, start, access.size(chunkLength)), to);
    from = add(b, loc, from, start);
  }

  auto storeFull = [&](OpBuilder &o, const ElementIndex &at, Value exists) {
    SmallVector<Value> values;
    for (unsigned i : fullResults)
      values.push_back(elements.element(o, computedValue(yield.getOperand(i)), at, lanes, {}));
    Value condition = both(o, isPoint, exists);
    OpBuilder inner = o;
    if (condition)
      inner = scf::IfOp::create(o, loc, condition, /*withElseRegion=*/false).getThenBodyBuilder();
    for (auto [i, value] : llvm::zip(fullResults, values))
      elements.storeResult(inner, yield.getOperand(i), access.buffer(buffers[i], getElementTypeOrSelf(yield.getOperand(i).getType())), at, value, {});
  };

  // Is one chunk all there is? Only the shape of the call says so where it is not known before.
  Value isWhole, isPart;
  if (isFirst && !constantOf(chunks)) {
    isWhole = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, access.size(chunks), constantIndex(b, loc, 1));
    isPart = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ne, access.size(chunks), constantIndex(b, loc, 1));
  }
  unsigned partialNumber = 0; // counts reductions, for their places between the launches
  for (int64_t pass = 0; pass < passCount; ++pass) {
    MutableArrayRef<ReductionOpInterface> reductions = passes[pass];
    bool stores = pass == storePass && !fullResults.empty();
    int64_t stepLanes = isSecond ? 1 : lanes;
    SmallVector<Value> carried;
    for (ReductionOpInterface reduction : reductions) {
      Type element = getElementTypeOrSelf(reduction->getOperand(0).getType());
      Type type = stepLanes == 1 ? element : Type(VectorType::get(stepLanes, element));
      carried.push_back(buildNumber(b, loc, type, reduction.getNeutral(element)));
      if (reduction.keepsIndex())
        carried.push_back(arith::ConstantOp::create(b, loc, b.getI32IntegerAttr(0)));
    }
    auto step = [&](OpBuilder &o, const ElementIndex &at, Value number, Value exists, ValueRange before, function_ref<Value(OpBuilder &, ReductionOpInterface, unsigned)> get) {
      SmallVector<Value> next;
      unsigned place = 0;
      for (unsigned r = 0; r < reductions.size(); ++r) {
        ReductionOpInterface reduction = reductions[r];
        Value value = get(o, reduction, r), old = before[place++];
        if (reduction.keepsIndex()) {
          Value better = both(o, buildBeats(o, loc, reduction, old, value), exists);
          next.push_back(arith::SelectOp::create(o, loc, better, value, old));
          next.push_back(arith::SelectOp::create(o, loc, better, arith::IndexCastOp::create(o, loc, o.getI32Type(), number), before[place++]));
          continue;
        }
        Value combined = reduction.buildCombine(o, loc, old, value);
        next.push_back(exists ? arith::SelectOp::create(o, loc, exists, combined, old).getResult() : combined);
      }
      return next;
    };
    if (inRegisters) {
      for (const Piece &piece : pieces)
        carried = step(b, piece.at, piece.number, piece.exists, carried,
                       [&](OpBuilder &o, ReductionOpInterface reduction, unsigned) { return elements.element(o, reduction->getOperand(0), piece.at, lanes, {}); });
      if (stores)
        for (const Piece &piece : pieces)
          storeFull(b, piece.at, piece.exists);
    } else {
      Value end = isSecond ? access.size(chunks) : to, begin = isSecond ? member : from;
      auto loop = scf::ForOp::create(b, loc, begin, end, constantIndex(b, loc, members * stepLanes), carried);
      OpBuilder o = OpBuilder::atBlockBegin(loop.getBody());
      elements.pushScope();
      Value number = loop.getInductionVar();
      ElementIndex at;
      if (!isSecond)
        at = place(o, number);
      SmallVector<Value> next = step(o, at, number, {}, loop.getRegionIterArgs(), [&](OpBuilder &o, ReductionOpInterface reduction, unsigned r) -> Value {
        if (!isSecond)
          return elements.element(o, reduction->getOperand(0), at, lanes, {});
        Value row = add(o, loc, mul(o, loc, access.size(chunks), constantIndex(o, loc, partialNumber + r)), number);
        Value where = add(o, loc, mul(o, loc, row, access.size(points)), point);
        return memref::LoadOp::create(o, loc, access.buffer(*partials, getElementTypeOrSelf(reduction->getOperand(0).getType())), where);
      });
      if (stores)
        storeFull(o, at, {});
      elements.popScope();
      if (!next.empty())
        scf::YieldOp::create(o, loc, next);
      carried.assign(loop.getResults().begin(), loop.getResults().end());
    }
    unsigned place = 0;
    for (ReductionOpInterface reduction : reductions) {
      Partial partial = {carried[place++], {}};
      if (reduction.keepsIndex())
        partial.index = carried[place++];
      // A vector's lanes, halves with halves.
      if (isa<VectorType>(partial.value.getType())) {
        SmallVector<Value> parts;
        for (int64_t lane = 0; lane < stepLanes; ++lane)
          parts.push_back(vector::ExtractOp::create(b, loc, partial.value, ArrayRef<int64_t>{lane}));
        for (size_t half = parts.size() / 2; half; half /= 2)
          for (size_t i = 0; i < half; ++i)
            parts[i] = reduction.buildCombine(b, loc, parts[i], parts[i + half]);
        partial.value = parts.front();
      }
      Partial total = combineMembers(b, loc, access, reduction, partial, members, width, slot);
      elements.setAvailable(reduction->getResult(0), total.index ? total.index : total.value);
      if (isFirst) {
        Value speaks = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, member, constantIndex(b, loc, 0));
        auto store = scf::IfOp::create(b, loc, both(b, both(b, speaks, isPoint), isPart), /*withElseRegion=*/false);
        OpBuilder o = store.getThenBodyBuilder();
        Value row = add(o, loc, mul(o, loc, access.size(chunks), constantIndex(o, loc, partialNumber)), chunk);
        Value where = add(o, loc, mul(o, loc, row, access.size(points)), point);
        memref::StoreOp::create(o, loc, total.value, access.buffer(*partials, total.value.getType()), where);
      }
      ++partialNumber;
    }
  }
  if (keptResults.empty() || (isFirst && !isWhole))
    return;

  // One of the threads stores what belongs to the kept index. Where it overwrites what the others may still read, it waits for them.
  bool overwrites = llvm::any_of(keptResults, [&](unsigned i) { return llvm::is_contained(kernel->getAttrOfType<DenseI64ArrayAttr>("input_buffers").asArrayRef(), buffers[i]); });
  if (overwrites && members > 1 && (!fullResults.empty() || passCount > 1))
    NVVM::Barrier0Op::create(b, loc);
  Value speaks = members == 1 ? Value() : arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, member, constantIndex(b, loc, 0)).getResult();
  Value condition = both(b, both(b, speaks, isPoint), isWhole);
  OpBuilder o = b;
  if (condition)
    o = scf::IfOp::create(b, loc, condition, /*withElseRegion=*/false).getThenBodyBuilder();
  elements.pushScope();
  SmallVector<Value> values;
  for (unsigned i : keptResults)
    values.push_back(elements.element(o, computedValue(yield.getOperand(i)), keptIndex, 1, {}));
  for (auto [i, value] : llvm::zip(keptResults, values))
    elements.storeResult(o, yield.getOperand(i), access.buffer(buffers[i], getElementTypeOrSelf(yield.getOperand(i).getType())), keptIndex, value, {});
  elements.popScope();
}

//===--- checks ---===//

void emitIndexCheck(CheckIndexOp check, int64_t fault, OpBuilder &b, KernelAccess &access) {
  Location loc = check.getLoc();
  auto type = cast<RankedTensorType>(check.getX().getType());
  Type i64 = b.getI64Type();
  Value memory = access.buffer(check->getAttrOfType<DenseI64ArrayAttr>("input_buffers")[0], type.getElementType());
  auto number = [&](OpBuilder &o, int64_t n) -> Value { return arith::ConstantOp::create(o, loc, o.getI64IntegerAttr(n)); };
  Value limit = arith::IndexCastOp::create(b, loc, i64, access.size(check.getSize().getResult(0)));
  Value none = number(b, std::numeric_limits<int64_t>::max());
  auto wide = [&](OpBuilder &o, Value at) {
    return convert(ScalarExpr(o, loc, memref::LoadOp::create(o, loc, memory, at)), type.getElementType(), i64).value;
  };
  // Each thread finds the first bad one of its own, all together the first of all.
  auto loop = scf::ForOp::create(b, loc, access.thread(), access.size(normalizeSize(elementCount(type))), constantIndex(b, loc, blockThreads), none);
  OpBuilder o = OpBuilder::atBlockBegin(loop.getBody());
  Value value = wide(o, loop.getInductionVar());
  Value isBad = buildIsOutside(o, loc, check, value, limit);
  Value here = arith::IndexCastOp::create(o, loc, i64, loop.getInductionVar());
  Value candidate = arith::SelectOp::create(o, loc, isBad, here, none);
  scf::YieldOp::create(o, loc, arith::MinSIOp::create(o, loc, loop.getRegionIterArg(0), candidate).getResult());

  Value found = loop.getResult(0);
  for (int64_t mask = 1; mask < warpThreads; mask *= 2)
    found = arith::MinSIOp::create(b, loc, found, shuffle(b, loc, found, mask));
  Value thread = access.thread(), lane = remainder(b, loc, thread, warpThreads), warp = quotient(b, loc, thread, warpThreads), zero = constantIndex(b, loc, 0);
  SharedSlot firsts(b, loc, 0, i64);
  auto speaks = scf::IfOp::create(b, loc, arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, lane, zero), /*withElseRegion=*/false);
  OpBuilder s = speaks.getThenBodyBuilder();
  firsts.store(s, loc, warp, found);
  NVVM::Barrier0Op::create(b, loc);
  for (int64_t w = 0; w < warps; ++w)
    found = arith::MinSIOp::create(b, loc, found, firsts.load(b, loc, constantIndex(b, loc, w)));

  Value report = access.fault();
  Value isFirstThread = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, thread, zero);
  Value isFault = arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ne, found, none);
  auto branch = scf::IfOp::create(b, loc, arith::AndIOp::create(b, loc, isFirstThread, arith::AndIOp::create(b, loc, isFault, access.hasNoFault())), /*withElseRegion=*/false);
  OpBuilder t = branch.getThenBodyBuilder();
  auto put = [&](int64_t place, Value word) { memref::StoreOp::create(t, loc, word, report, ValueRange{constantIndex(t, loc, place)}); };
  put(0, number(t, fault));
  put(1, found);
  put(2, wide(t, arith::IndexCastOp::create(t, loc, t.getIndexType(), found)));
}

} // namespace dlc::cuda
