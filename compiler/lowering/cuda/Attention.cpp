//===- Attention.cpp - attention without scores in memory, on a GPU -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/lowering/cuda/Attention.h"
#include "compiler/lowering/StridedView.h"
#include "compiler/lowering/cuda/KernelEmitter.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"

using namespace mlir;
using namespace dlc::dl;

namespace dlc::cuda {

/// Shared memory that every device gives a block unasked.
static constexpr int64_t sharedBytes = 48 * 1024;

static int64_t bytesOf(Type type) { return type.getIntOrFloatBitWidth() / 8; }
static int64_t widthOf(Value rows) { return cast<RankedTensorType>(rows.getType()).getShape().back(); }

std::optional<Attention> Attention::of(FusedOp kernel) {
  for (Operation &op : kernel.getBody().front()) {
    if (auto attention = dyn_cast<AttentionOp>(op))
      return Attention(kernel, &op, attention.getAttention());
    if (auto gradient = dyn_cast<AttentionGradientOp>(op))
      return Attention(kernel, &op, gradient.getAttention());
  }
  return std::nullopt;
}

/// Elements from row to row in shared memory: an odd number, so that a column lies in as many banks as it has rows.
static int64_t pitchOf(int64_t columns) { return columns | 1; }

Attention::Attention(FusedOp kernel, Operation *op, const AttentionOperands &operands)
    : kernel(kernel), op(op), operands(operands), element(cast<FloatType>(getElementTypeOrSelf(operands.q))), width(widthOf(operands.q)), valueWidth(widthOf(operands.v)), tile(32) {
  // At most four tiles of rows and two of scores lie there.
  while (tile * (2 * pitchOf(width) + 2 * pitchOf(valueWidth) + 2 * pitchOf(tile)) * bytesOf(element) > sharedBytes)
    tile /= 2;
  assert(tile * tile >= threads && "heads too wide for a kernel (AttentionOp::isForGpu)");
}

AffineExpr Attention::blocks(unsigned launch) const {
  SmallVector<AffineExpr> owners = sizesOf(launch == 1 ? operands.k : operands.q);
  return normalizeSize(owners[0] * owners[2] * owners[1].ceilDiv(tile));
}

//===--- emission ---===//

struct Attention::Emitter {
  const Attention &attention;
  OpBuilder &b;
  KernelAccess &access;
  Location loc;
  const FloatType element;
  const bool isCausal;
  const int64_t tile, members, shares; // members: threads that share an owner; shares: partners in a tile for each of them
  Value shared;                        // !llvm.ptr<3>
  int64_t sharedElements = 0;
  Value queries, keys, n, head;
  Value owner, member; // in the tile; in the owner's group of threads

  Emitter(const Attention &attention, OpBuilder &b, KernelAccess &access)
      : attention(attention), b(b), access(access), loc(attention.op->getLoc()), element(attention.element), isCausal(attention.operands.isCausal), tile(attention.tile),
        members(threads / attention.tile), shares(attention.tile / members) {
    queries = size(sizesOf(attention.operands.q)[1]);
    keys = size(sizesOf(attention.operands.k)[1]);
    owner = arith::DivUIOp::create(b, loc, access.thread(), index(members));
    member = arith::RemUIOp::create(b, loc, access.thread(), index(members));
  }

  //===--- arithmetic ---===//

  Value size(AffineExpr expr) { return access.size(normalizeSize(expr)); }
  Value index(int64_t n) { return arith::ConstantIndexOp::create(b, loc, n); }
  Value add(Value x, Value y) { return b.createOrFold<arith::AddIOp>(loc, x, y); }
  Value add(Value x, int64_t y) { return y == 0 ? x : add(x, index(y)); }
  Value mul(Value x, int64_t y) { return b.createOrFold<arith::MulIOp>(loc, x, index(y)); }
  Value least(Value x, Value y) { return b.createOrFold<arith::MinSIOp>(loc, x, y); }
  Value isLess(Value x, Value y) { return arith::CmpIOp::create(b, loc, arith::CmpIPredicate::slt, x, y); }
  Value both(Value x, Value y) { return arith::AndIOp::create(b, loc, x, y); }
  Value number(double n) { return arith::ConstantOp::create(b, loc, b.getFloatAttr(element, n)); }
  Value times(Value x, Value y) { return arith::MulFOp::create(b, loc, x, y); }
  Value plus(Value x, Value y) { return arith::AddFOp::create(b, loc, x, y); }
  Value minus(Value x, Value y) { return arith::SubFOp::create(b, loc, x, y); }
  Value exp(Value x) { return math::ExpOp::create(b, loc, x); }
  Value fma(Value x, Value y, Value z) { return math::FmaOp::create(b, loc, x, y, z); }
  Value select(Value condition, Value yes, Value no) { return arith::SelectOp::create(b, loc, condition, yes, no); }
  Value larger(Value x, Value y) { return select(arith::CmpFOp::create(b, loc, arith::CmpFPredicate::OGT, x, y), x, y); }
  Value equals(Value x, double n) { return arith::CmpFOp::create(b, loc, arith::CmpFPredicate::OEQ, x, number(n)); }
  /// -inf, of a row that looks at nothing, as 0: differences to it are then no NaN.
  Value finite(Value x) { return select(equals(x, -std::numeric_limits<double>::infinity()), number(0), x); }

  /// What all threads of an owner's group come to together; the order is the same in each of them.
  Value together(Value value, llvm::function_ref<Value(Value, Value)> combine) {
    for (int64_t mask = 1; mask < members; mask *= 2)
      value = combine(value, shuffle(b, loc, value, mask));
    return value;
  }
  void barrier() { NVVM::BarrierOp::create(b, loc); }

  SmallVector<Value> loop(Value from, Value to, int64_t step, ValueRange carried, llvm::function_ref<SmallVector<Value>(Value, ValueRange)> body) {
    auto op = scf::ForOp::create(b, loc, from, to, index(step), carried);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(op.getBody());
    SmallVector<Value> next = body(op.getInductionVar(), op.getRegionIterArgs());
    if (!carried.empty())
      scf::YieldOp::create(b, loc, next);
    return SmallVector<Value>(op.getResults());
  }
  void when(Value condition, llvm::function_ref<void()> body) {
    auto op = scf::IfOp::create(b, loc, condition, /*withElseRegion=*/false);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(op.thenBlock());
    body();
  }

  //===--- memory ---===//

  StridedView operand(Value value) {
    return viewOfOperand(b, loc, attention.kernel, value, [&](int64_t number, Type element) { return access.buffer(number, element); }, [&](AffineExpr expr) { return size(expr); });
  }
  StridedView result(unsigned number) {
    return viewOfResult(b, loc, attention.kernel, number, [&](int64_t number, Type element) { return access.buffer(number, element); }, [&](AffineExpr expr) { return size(expr); });
  }
  Value load(const StridedView &view, Value at) { return memref::LoadOp::create(b, loc, view.memory, ValueRange{at}); }
  void store(Value value, const StridedView &view, Value at) { memref::StoreOp::create(b, loc, value, view.memory, ValueRange{at}); }

  /// Rows of shared memory.
  struct Tile {
    int64_t at, pitch, columns;
  };
  Tile placeTile(int64_t columns) {
    Tile placed{sharedElements, pitchOf(columns), columns};
    sharedElements += tile * placed.pitch;
    return placed;
  }
  /// All tiles are placed: a global of the module.
  void defineShared() {
    auto function = b.getInsertionBlock()->getParentOp()->getParentOfType<func::FuncOp>();
    if (!function)
      function = cast<func::FuncOp>(b.getInsertionBlock()->getParentOp());
    OpBuilder outer = OpBuilder::atBlockBegin(function->getParentOfType<ModuleOp>().getBody());
    auto array = LLVM::LLVMArrayType::get(element, sharedElements);
    auto global = LLVM::GlobalOp::create(outer, loc, array, /*isConstant=*/false, LLVM::Linkage::Internal, (function.getName() + "_tiles").str(), Attribute(), /*alignment=*/16, /*addrSpace=*/3);
    shared = LLVM::AddressOfOp::create(b, loc, LLVM::LLVMPointerType::get(b.getContext(), 3), global.getSymName());
  }
  Value sharedAt(const Tile &of, Value row, Value column) {
    Value offset = arith::IndexCastOp::create(b, loc, b.getI64Type(), add(add(mul(row, of.pitch), column), of.at));
    return LLVM::GEPOp::create(b, loc, shared.getType(), element, shared, ArrayRef<LLVM::GEPArg>{offset});
  }
  Value get(const Tile &of, Value row, Value column) { return LLVM::LoadOp::create(b, loc, element, sharedAt(of, row, column), bytesOf(element)); }
  void put(Value value, const Tile &of, Value row, Value column) { LLVM::StoreOp::create(b, loc, value, sharedAt(of, row, column), bytesOf(element)); }

  /// Copies rows row0 to row0 + tile of the head; 0 for those beyond `rows`.
  void fetch(const StridedView &view, Value row0, Value rows, const Tile &to) {
    loop(access.thread(), index(tile * to.columns), threads, ValueRange(), [&](Value i, ValueRange) {
      Value row = arith::DivUIOp::create(b, loc, i, index(to.columns)), column = arith::RemUIOp::create(b, loc, i, index(to.columns));
      Value at = add(row0, row), value = load(view, view.at(b, loc, {n, least(at, add(rows, -1)), head, column}));
      put(select(isLess(at, rows), value, number(0)), to, row, column);
      return SmallVector<Value>();
    });
  }
  /// Products of the owner's row with those of its partners, row by row: one chain over the columns each.
  SmallVector<Value> products(const Tile &owners, const Tile &partners) {
    return loop(index(0), index(owners.columns), 1, SmallVector<Value>(shares, number(0)), [&](Value column, ValueRange sums) {
      Value own = get(owners, owner, column);
      SmallVector<Value> next;
      for (int64_t share = 0; share < shares; ++share)
        next.push_back(fma(own, get(partners, partner(share), column), sums[share]));
      return next;
    });
  }
  /// The thread's partner number `share` in a tile.
  Value partner(int64_t share) { return add(member, share * members); }
  /// Columns that each thread of a group has of a row; some of the last ones do not exist.
  int64_t columnsOf(int64_t columns) { return (columns + members - 1) / members; }
  Value column(int64_t number) { return add(member, number * members); }
  /// sums[column] += weights[owner, partner] * rows[partner, column], partner by partner.
  SmallVector<Value> accumulate(const Tile &weights, const Tile &rows, ValueRange sums) {
    return loop(index(0), index(tile), 1, sums, [&](Value other, ValueRange carried) {
      Value weight = get(weights, owner, other);
      SmallVector<Value> next;
      for (auto [number, sum] : llvm::enumerate(carried))
        next.push_back(fma(weight, get(rows, other, least(column(number), index(rows.columns - 1))), sum));
      return next;
    });
  }
  /// Stores the thread's columns of a row.
  void finish(ValueRange values, const StridedView &view, Value row, int64_t columns) {
    for (auto [number, value] : llvm::enumerate(values)) {
      auto store = [&, value = value] { this->store(value, view, view.at(b, loc, {n, row, head, column(number)})); };
      if ((number + 1) * members <= static_cast<size_t>(columns))
        store();
      else
        when(isLess(column(number), index(columns)), store);
    }
  }

  //===--- scores ---===//

  std::optional<StridedView> mask;
  bool isMaskOfBools = false;
  void prepareMask() {
    Value value = attention.operands.mask;
    if (!value)
      return;
    mask = operand(value);
    isMaskOfBools = getElementTypeOrSelf(value).isInteger(1);
    for (auto [expr, stride] : llvm::zip_equal(sizesOf(value), mask->strides))
      if (expr == b.getAffineConstantExpr(1))
        stride = index(0);
  }
  /// A product as a score; `seen`: whether the row looks at the key, both of which exist then.
  Value scoreOf(Value product, Value row, Value key, Value &seen) {
    seen = both(isLess(row, queries), isLess(key, keys));
    if (isCausal)
      seen = both(seen, arith::CmpIOp::create(b, loc, arith::CmpIPredicate::sle, key, row));
    Value score = product;
    if (double scale = attention.operands.scale; scale != 1)
      score = times(score, number(scale));
    if (!mask)
      return score;
    Value added = load(*mask, mask->at(b, loc, {n, head, least(row, add(queries, -1)), least(key, add(keys, -1))}));
    if (!isMaskOfBools)
      return plus(score, added);
    seen = both(seen, arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ne, added, arith::ConstantOp::create(b, loc, b.getI8IntegerAttr(0))));
    return score;
  }

  /// The cotangent of a score, from the products of the row with the key and of the row's cotangent with the value.
  Value scoreCotangent(Value score, Value cotangent, Value row, Value key, Value base, Value rowDelta, Value &weight) {
    Value seen;
    score = scoreOf(score, row, key, seen);
    weight = select(seen, exp(minus(score, base)), number(0));
    Value ds = select(equals(weight, 0), number(0), times(minus(cotangent, rowDelta), weight));
    double scale = attention.operands.scale;
    return scale == 1 ? ds : times(ds, number(scale));
  }

  /// Which tile of which head the block owns: its first row.
  Value ownedBy(AffineExpr count) {
    Value tiles = size(count.ceilDiv(tile)), heads = size(sizesOf(attention.operands.q)[2]);
    Value all = arith::DivUIOp::create(b, loc, access.block(), tiles);
    n = arith::DivUIOp::create(b, loc, all, heads);
    head = arith::RemUIOp::create(b, loc, all, heads);
    return mul(arith::RemUIOp::create(b, loc, access.block(), tiles), tile);
  }

  void attend();
  void passBackToQueries();
  void passBackToKeys();
};

void Attention::Emitter::attend() {
  const double infinity = std::numeric_limits<double>::infinity();
  const int64_t valueWidth = attention.valueWidth;
  const Tile queryTile = placeTile(attention.width), keyTile = placeTile(attention.width), valueTile = placeTile(valueWidth), weightTile = placeTile(tile);
  defineShared();
  const StridedView q = operand(attention.operands.q), k = operand(attention.operands.k), v = operand(attention.operands.v), y = result(0), logsumexp = result(1);
  prepareMask();
  Value row0 = ownedBy(sizesOf(attention.operands.q)[1]), row = add(row0, owner);
  fetch(q, row0, queries, queryTile);
  // The largest score so far, the sum of the weights, and the mean, not yet divided.
  SmallVector<Value> state{number(-infinity), number(0)};
  state.append(columnsOf(valueWidth), number(0));
  state = loop(index(0), isCausal ? least(add(row0, tile), keys) : keys, tile, state, [&](Value key0, ValueRange carried) {
    barrier();
    fetch(k, key0, keys, keyTile);
    fetch(v, key0, keys, valueTile);
    barrier();
    SmallVector<Value> scores = products(queryTile, keyTile);
    Value largest = number(-infinity);
    for (auto [share, score] : llvm::enumerate(scores)) {
      Value seen;
      score = scoreOf(score, row, add(key0, partner(share)), seen);
      score = select(seen, score, number(-infinity));
      largest = larger(score, largest);
    }
    Value before = carried[0], now = larger(together(largest, [&](Value x, Value y) { return larger(x, y); }), before), base = finite(now);
    Value total = number(0);
    for (auto [share, score] : llvm::enumerate(scores)) {
      Value weight = exp(minus(score, base));
      put(weight, weightTile, owner, partner(share));
      total = plus(total, weight);
    }
    total = together(total, [&](Value x, Value y) { return plus(x, y); });
    // What came before is seen from the new largest score.
    Value factor = exp(minus(before, base));
    SmallVector<Value> sums, next{now, plus(times(carried[1], factor), total)};
    for (Value sum : carried.drop_front(2))
      sums.push_back(times(sum, factor));
    barrier();
    llvm::append_range(next, accumulate(weightTile, valueTile, sums));
    return next;
  });
  when(isLess(row, queries), [&] {
    Value sum = state[1], isNone = equals(sum, 0), factor = arith::DivFOp::create(b, loc, number(1), sum);
    SmallVector<Value> means;
    for (Value value : ArrayRef(state).drop_front(2))
      means.push_back(select(isNone, number(0), times(value, factor)));
    finish(means, y, row, valueWidth);
    when(arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, member, index(0)),
         [&] { store(plus(finite(state[0]), math::LogOp::create(b, loc, sum)), logsumexp, logsumexp.at(b, loc, {n, row, head})); });
  });
}

void Attention::Emitter::passBackToQueries() {
  auto gradient = cast<AttentionGradientOp>(attention.op);
  const Tile queryTile = placeTile(attention.width), cotangentTile = placeTile(attention.valueWidth), keyTile = placeTile(attention.width), valueTile = placeTile(attention.valueWidth),
             scoreTile = placeTile(tile);
  defineShared();
  const StridedView q = operand(attention.operands.q), k = operand(attention.operands.k), v = operand(attention.operands.v), logsumexp = operand(gradient.getLogsumexp()),
                    delta = operand(gradient.getDelta()), dy = operand(gradient.getDy()), dq = result(0);
  prepareMask();
  Value row0 = ownedBy(sizesOf(attention.operands.q)[1]), row = add(row0, owner);
  fetch(q, row0, queries, queryTile);
  fetch(dy, row0, queries, cotangentTile);
  SmallVector<Value> ofRow{n, least(row, add(queries, -1)), head};
  Value base = finite(load(logsumexp, logsumexp.at(b, loc, ofRow))), rowDelta = load(delta, delta.at(b, loc, ofRow));
  SmallVector<Value> sums = loop(index(0), isCausal ? least(add(row0, tile), keys) : keys, tile, SmallVector<Value>(columnsOf(attention.width), number(0)), [&](Value key0, ValueRange carried) {
    barrier();
    fetch(k, key0, keys, keyTile);
    fetch(v, key0, keys, valueTile);
    barrier();
    SmallVector<Value> scores = products(queryTile, keyTile), cotangents = products(cotangentTile, valueTile);
    for (int64_t share = 0; share < shares; ++share) {
      Value weight, score = scoreCotangent(scores[share], cotangents[share], row, add(key0, partner(share)), base, rowDelta, weight);
      put(score, scoreTile, owner, partner(share));
    }
    barrier();
    return accumulate(scoreTile, keyTile, carried);
  });
  when(isLess(row, queries), [&] { finish(sums, dq, row, attention.width); });
}

void Attention::Emitter::passBackToKeys() {
  auto gradient = cast<AttentionGradientOp>(attention.op);
  const Tile keyTile = placeTile(attention.width), valueTile = placeTile(attention.valueWidth), queryTile = placeTile(attention.width), cotangentTile = placeTile(attention.valueWidth),
             scoreTile = placeTile(tile), weightTile = placeTile(tile);
  defineShared();
  const StridedView q = operand(attention.operands.q), k = operand(attention.operands.k), v = operand(attention.operands.v), logsumexp = operand(gradient.getLogsumexp()),
                    delta = operand(gradient.getDelta()), dy = operand(gradient.getDy()), dk = result(1), dv = result(2);
  prepareMask();
  Value key0 = ownedBy(sizesOf(attention.operands.k)[1]), key = add(key0, owner);
  fetch(k, key0, keys, keyTile);
  fetch(v, key0, keys, valueTile);
  const int64_t keyColumns = columnsOf(attention.width);
  SmallVector<Value> sums(keyColumns + columnsOf(attention.valueWidth), number(0));
  // Rows before the tile's own look at none of its keys.
  sums = loop(isCausal ? key0 : index(0), queries, tile, sums, [&](Value row0, ValueRange carried) {
    barrier();
    fetch(q, row0, queries, queryTile);
    fetch(dy, row0, queries, cotangentTile);
    barrier();
    SmallVector<Value> scores = products(keyTile, queryTile), cotangents = products(valueTile, cotangentTile);
    for (int64_t share = 0; share < shares; ++share) {
      Value row = add(row0, partner(share)), weight;
      SmallVector<Value> ofRow{n, least(row, add(queries, -1)), head};
      Value base = finite(load(logsumexp, logsumexp.at(b, loc, ofRow))), rowDelta = load(delta, delta.at(b, loc, ofRow));
      Value score = scoreCotangent(scores[share], cotangents[share], row, key, base, rowDelta, weight);
      put(score, scoreTile, owner, partner(share));
      put(weight, weightTile, owner, partner(share));
    }
    barrier();
    SmallVector<Value> next = accumulate(scoreTile, queryTile, carried.take_front(keyColumns));
    llvm::append_range(next, accumulate(weightTile, cotangentTile, carried.drop_front(keyColumns)));
    return next;
  });
  when(isLess(key, keys), [&] {
    finish(ArrayRef(sums).take_front(keyColumns), dk, key, attention.width);
    finish(ArrayRef(sums).drop_front(keyColumns), dv, key, attention.valueWidth);
  });
}

void Attention::emit(unsigned launch, OpBuilder &b, KernelAccess &access) const {
  Emitter emitter(*this, b, access);
  if (isa<AttentionOp>(op))
    emitter.attend();
  else if (launch == 0)
    emitter.passBackToQueries();
  else
    emitter.passBackToKeys();
}

} // namespace dlc::cuda
