//===- Attention.cpp - attention without scores in memory -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/lowering/cpu/Attention.h"
#include "compiler/lowering/StridedView.h"
#include "compiler/lowering/cpu/KernelEmitter.h"
#include "compiler/lowering/cpu/ProductEmitter.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/MathExtras.h"
#include <limits>

using namespace mlir;
using namespace dlc::dl;

namespace dlc::cpu {

/// Rows for which a causal head cuts keys off together: a multiple of every micro-kernel's rows.
static constexpr int64_t unit = 12;
/// Rows whose scores are made together: the first cache has room for them and for a panel of what they are multiplied by, which is then read once for all of them.
static constexpr int64_t band = 2 * unit;
/// Rows of q whose share in the gradients of k and v is added at once.
static constexpr int64_t gradientRows = 4 * band;
/// Elements from row to row of a block of scores, beyond the keys: a line, so that as many rows of a key as the processor's first cache has lines are not all in the same few sets of it.
static constexpr int64_t scorePadding = 16;
/// Bytes of the vectors that rows of scores are added up in, whatever the processor's are.
static constexpr int64_t sumBytes = 64;
/// Heads of all examples together that are enough for every thread.
static constexpr int64_t enoughHeads = 16;

static int64_t bytesOf(Type type) { return type.getIntOrFloatBitWidth() / 8; }

std::optional<Attention> Attention::of(FusedOp kernel, const CpuInfo &cpu) {
  for (Operation &op : kernel.getBody().front()) {
    if (auto attention = dyn_cast<AttentionOp>(op))
      return Attention(kernel, &op, attention.getAttention(), cpu);
    if (auto gradient = dyn_cast<AttentionGradientOp>(op))
      return Attention(kernel, &op, gradient.getAttention(), cpu);
  }
  return std::nullopt;
}

static FloatType elementOf(const AttentionOperands &operands) { return cast<FloatType>(getElementTypeOrSelf(operands.q)); }
static int64_t widthOf(Value rows) { return cast<RankedTensorType>(rows.getType()).getShape().back(); }

Attention::Attention(FusedOp kernel, Operation *op, const AttentionOperands &operands, const CpuInfo &cpu)
    : kernel(kernel), op(op), operands(operands), cpu(cpu), element(elementOf(operands)), width(widthOf(operands.q)), valueWidth(widthOf(operands.v)),
      engine(cpu, element, /*columns=*/std::max(width, valueWidth)) {
  // What is packed of a block stays in L2, and a row of it is not too short for the products.
  keysPerBlock = std::max(width, valueWidth) * bytesOf(element) <= 256 ? 128 : 64;
  SmallVector<AffineExpr> sizes = sizesOf(operands.q);
  rowsPerTask = likelySize(normalizeSize(sizes[0] * sizes[2])) >= enoughHeads ? 11 * unit : 4 * unit;
}

AffineExpr Attention::tasks() const {
  SmallVector<AffineExpr> sizes = sizesOf(operands.q);
  AffineExpr heads = sizes[0] * sizes[2];
  return normalizeSize(isa<AttentionOp>(op) ? heads * sizes[1].ceilDiv(rowsPerTask) : heads);
}

//===--- emission ---===//

struct Attention::Emitter : ProductEmitter {
  const Attention &attention;
  FrameAccess *frame; // null where only sizes are asked for
  Value scratch;

  const bool isCausal;
  const int64_t wide;   // lanes of the vectors that scores are handled in
  const int64_t mr, nr; // of the micro-kernel
  const int64_t keys, scoreRow; // of a block; elements from row to row of its scores
  const int64_t width, valueWidth, widthColumns, valueColumns; // the latter: of accumulators, whole panels

  // Places in the scratch memory, in elements.
  int64_t scratchElements = 0;
  int64_t place(int64_t elements) {
    int64_t at = scratchElements;
    scratchElements += llvm::alignTo(elements, 64);
    return at;
  }

  Value queries, keyRows, heads; // sizes

  Emitter(const Attention &attention, OpBuilder &b, FrameAccess *frame, Value scratch)
      : ProductEmitter(attention.cpu, attention.element, b, attention.op->getLoc()), attention(attention), frame(frame), scratch(scratch), isCausal(attention.operands.isCausal),
        wide(sumBytes / bytesOf(element)), mr(attention.engine.rows()), nr(attention.engine.columns()), keys(attention.keysPerBlock), scoreRow(keys + scorePadding), width(attention.width),
        valueWidth(attention.valueWidth), widthColumns(llvm::alignTo(width, nr)), valueColumns(llvm::alignTo(valueWidth, nr)) {
    if (!frame)
      return;
    SmallVector<AffineExpr> q = sizesOf(attention.operands.q), k = sizesOf(attention.operands.k);
    queries = frame->size(q[1]);
    keyRows = frame->size(k[1]);
    heads = frame->size(q[2]);
  }

  //===--- arithmetic ---===//

  VectorType vectorOf(int64_t count, Type type) { return VectorType::get({count}, type); }
  /// A number, or a vector of it.
  Value number(Type type, double n) {
    FloatAttr attribute = b.getFloatAttr(element, n);
    if (auto vector = dyn_cast<VectorType>(type))
      return arith::ConstantOp::create(b, loc, vector, SplatElementsAttr::get(vector, attribute));
    return arith::ConstantOp::create(b, loc, type, attribute);
  }
  Value spread(Value value, int64_t count) { return vector::BroadcastOp::create(b, loc, vectorOf(count, value.getType()), value); }
  Value times(Value x, Value y) { return arith::MulFOp::create(b, loc, x, y); }
  Value exp(Value x) { return math::ExpOp::create(b, loc, x); }
  Value is(arith::CmpFPredicate predicate, Value x, Value y) { return arith::CmpFOp::create(b, loc, predicate, x, y); }
  Value select(Value condition, Value yes, Value no) { return arith::SelectOp::create(b, loc, condition, yes, no); }
  Value larger(Value x, Value y) { return select(is(arith::CmpFPredicate::OGT, x, y), x, y); }
  /// -inf, of a row that looks at nothing, as 0: differences to it are then no NaN.
  Value finite(Value x) {
    Value none = number(x.getType(), -std::numeric_limits<double>::infinity());
    return select(is(arith::CmpFPredicate::OEQ, x, none), number(x.getType(), 0), x);
  }
  /// exp(x), for many x that are -inf: to come to 0 by way of subnormal numbers takes processors long.
  Value weightsOf(Value x) {
    Value isNone = is(arith::CmpFPredicate::OEQ, x, number(x.getType(), -std::numeric_limits<double>::infinity())), zero = number(x.getType(), 0);
    return select(isNone, zero, exp(select(isNone, zero, x)));
  }
  /// A vector's lanes combined in a fixed tree: halves with halves.
  Value combined(Value v, llvm::function_ref<Value(Value, Value)> combine) {
    for (int64_t count = wide; count > 1; count /= 2) {
      auto half = [&](int64_t from) -> Value {
        return vector::ExtractStridedSliceOp::create(b, loc, v, ArrayRef<int64_t>{from}, ArrayRef<int64_t>{count / 2}, ArrayRef<int64_t>{1});
      };
      v = combine(half(0), half(count / 2));
    }
    return vector::ExtractOp::create(b, loc, v, ArrayRef<int64_t>{0});
  }
  Value plus(Value x, Value y) { return arith::AddFOp::create(b, loc, x, y); }

  Value load(Value memory, Value at, int64_t count) { return vector::LoadOp::create(b, loc, vectorOf(count, element), memory, ValueRange{at}); }
  Value loadNumber(Value memory, Value at) { return memref::LoadOp::create(b, loc, memory, ValueRange{at}); }
  void store(Value value, Value memory, Value at) {
    if (isa<VectorType>(value.getType()))
      vector::StoreOp::create(b, loc, value, memory, ValueRange{at});
    else
      memref::StoreOp::create(b, loc, value, memory, ValueRange{at});
  }
  /// The first `count` of some lanes; none if it is negative.
  Value firstLanes(Value count, int64_t of) { return vector::CreateMaskOp::create(b, loc, vectorOf(of, b.getI1Type()), ValueRange{count}); }
  Value maskedLoad(Value memory, Value at, Value mask, VectorType type) {
    return vector::MaskedLoadOp::create(b, loc, type, memory, ValueRange{at}, mask, arith::ConstantOp::create(b, loc, type, b.getZeroAttr(type)));
  }

  //===--- control flow ---===//

  /// A loop that carries values; `body` gives those for the next turn.
  SmallVector<Value> loop(Value from, Value to, int64_t step, ValueRange carried, llvm::function_ref<SmallVector<Value>(Value, ValueRange)> body) {
    auto op = scf::ForOp::create(b, loc, from, to, index(step), carried);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(op.getBody());
    SmallVector<Value> next = body(op.getInductionVar(), op.getRegionIterArgs());
    if (!carried.empty())
      scf::YieldOp::create(b, loc, next);
    return SmallVector<Value>(op.getResults());
  }
  void loop(Value from, Value to, int64_t step, llvm::function_ref<void(Value)> body) {
    loop(from, to, step, ValueRange(), [&](Value at, ValueRange) {
      body(at);
      return SmallVector<Value>();
    });
  }
  void loop(Value to, int64_t step, llvm::function_ref<void(Value)> body) { loop(index(0), to, step, body); }

  //===--- operands and results where they lie ---===//

  StridedView operand(Value value) {
    return viewOfOperand(b, loc, attention.kernel, value, [&](int64_t number, Type element) { return frame->buffer(number, element); }, [&](AffineExpr size) { return frame->size(size); });
  }
  StridedView result(unsigned number) {
    return viewOfResult(b, loc, attention.kernel, number, [&](int64_t number, Type element) { return frame->buffer(number, element); }, [&](AffineExpr size) { return frame->size(size); });
  }
  /// Where a row of a head begins: view is [N, rows, heads, …].
  Value rowOf(const StridedView &view, Value n, Value row, Value head) { return view.at(b, loc, {n, row, head}); }

  /// The mask: where it lies, and that its numbers are the same along axes of size 1.
  std::optional<StridedView> mask;
  bool isMaskOfBools = false, isMaskOneForKeys = false;
  void prepareMask() {
    Value value = attention.operands.mask;
    if (!value)
      return;
    mask = operand(value);
    isMaskOfBools = getElementTypeOrSelf(value).isInteger(1);
    SmallVector<AffineExpr> sizes = sizesOf(value);
    for (auto [size, stride] : llvm::zip_equal(sizes, mask->strides))
      if (size == b.getAffineConstantExpr(1))
        stride = index(0);
    isMaskOneForKeys = sizes[3] == b.getAffineConstantExpr(1);
  }
  Value maskRow(Value n, Value row, Value head) {
    if (!mask)
      return {};
    return mask->at(b, loc, {n, head, row});
  }

  //===--- packing ---===//

  using ProductEmitter::fetch;
  /// Asks for the lines of a head's row before it is read, or written. A head's rows lie far apart, so that the processor does not foresee them; and as all are a multiple of some large power of 2 apart,
  /// the first cache has room for few of them: they are called to the second one. It takes few at once, so those who call do so between other things. A row that does not exist does no harm.
  void fetch(const StridedView &view, Value n, Value row, Value head, int64_t columns, bool isWritten = false) {
    Value from = rowOf(view, n, row, head);
    for (int64_t column = 0; column < columns; column += lineBytes / bytesOf(element)) {
      if (isWritten)
        own(view.memory, add(from, column));
      else
        fetch(addressOf(view.memory, add(from, column)));
    }
  }
  /// rows x columns of a head, from row `row0` on, into panels [columns / nr][steps][nr] at `to`. Columns that do not exist are 0.
  void packRows(const StridedView &view, Value n, Value head, Value row0, Value rows, int64_t columns, int64_t steps, int64_t to) {
    loop(rows, 1, [&](Value row) {
      Value from = rowOf(view, n, add(row0, row), head), at = add(mul(row, nr), to);
      for (int64_t column = 0; column < static_cast<int64_t>(llvm::alignTo(columns, nr)); column += lanes) {
        Value vector;
        VectorType type = vectorOf(lanes, element);
        if (column + lanes <= columns)
          vector = load(view.memory, add(from, column), lanes);
        else if (column < columns)
          vector = maskedLoad(view.memory, add(from, column), firstLanes(index(columns - column), lanes), type);
        else
          vector = number(type, 0);
        store(vector, scratch, add(at, column / nr * nr * steps + column % nr));
      }
    });
  }
  /// The same of the transposed matrix: panels [rows / nr][columns][nr]; columns are rounded up to whole vectors.
  void packTransposed(const StridedView &view, Value n, Value head, Value row0, Value rows, int64_t columns, int64_t to) {
    func::FuncOp transpose = transposition();
    loop(rows, nr, [&](Value panel) {
      Value from = rowOf(view, n, add(row0, panel), head);
      loop(index(nr), 1, [&](Value row) { fetch(view, n, add(add(add(row0, panel), nr), row), head, columns); });
      func::CallOp::create(b, loc, transpose,
                           ValueRange{view.memory, from, view.strides[1], min(sub(rows, panel), index(nr)), index(columns), scratch, add(mul(panel, llvm::alignTo(columns, lanes)), to), index(nr)});
    });
  }

  /// What a causal head leaves out of a product, for units of rows: those columns, or those last or first steps, that no row of the unit needs.
  enum class Cut { Columns, LastSteps, FirstSteps };
  /// C[rows, columns] (+)= A[rows, count] * panels, whose first elements are `panel` apart. `cut`: columns, or steps, that come before the first row's own (that of the diagonal); a number that is large
  /// enough cuts off nothing, or for FirstSteps one that is small enough. C lies in the scratch memory, as the panels do, and has room for whole micro-tiles.
  struct Product {
    Value a, aAt, aRow, aStep, rows, panels;
    int64_t panel;
    Value columns, cAt;
    int64_t cRow;
    Value count, isFirst, cut;
  };
  void product(Cut kind, const Product &p) {
    func::CallOp::create(b, loc, productFunction(kind),
                         ValueRange{p.a, p.aAt, p.aRow, p.aStep, p.rows, scratch, p.panels, index(p.panel), p.columns, p.cAt, index(p.cRow), p.count, p.isFirst, p.cut});
  }
  /// One function for all products of a kind: panel by panel, and of each, which then stays in the first cache, one micro-tile of rows after the other.
  func::FuncOp productFunction(Cut kind) {
    const int64_t nv = nr / lanes;
    StringRef what = kind == Cut::Columns ? "columns" : kind == Cut::LastSteps ? "last" : "first";
    Type memory = memoryType(), idx = b.getIndexType();
    return outlined(llvm::formatv("dl.attention_{0}_{1}_{2}x{3}", what, typeName(), mr, nr).str(), {memory, idx, idx, idx, idx, memory, idx, idx, idx, idx, idx, idx, b.getI1Type(), idx},
                      [&](ValueRange arguments) {
      Value a = arguments[0], aAt = arguments[1], aRow = arguments[2], aStep = arguments[3], rows = arguments[4], packed = arguments[5], panels = arguments[6], panel = arguments[7];
      Value columns = arguments[8], cAt = arguments[9], cRow = arguments[10], count = arguments[11], isFirst = arguments[12], cut = arguments[13];
      Value lastRow = add(rows, -1);
      auto tile = [&](Value column, Value row) {
        Value panelAt = add(panels, mul(div(column, nr), panel)), columnAt = add(cAt, column);
        auto multiply = [&](Value firstStep, Value steps) {
          SmallVector<Value> aRows, places;
          Value from = add(aAt, mul(firstStep, aStep)), bAt = add(panelAt, mul(firstStep, nr));
          for (int64_t i = 0; i < mr; ++i) {
            aRows.push_back(add(from, mul(min(add(row, i), lastRow), aRow)));
            for (int64_t v = 0; v < nv; ++v)
              places.push_back(add(add(columnAt, mul(add(row, i), cRow)), v * lanes));
          }
          multiplySteps(
              mr, nv, packed, packed, places, steps, isFirst, ValueRange{index(0), bAt},
              [&](ValueRange at, SmallVectorImpl<Value> &next) {
                next.push_back(add(at[0], aStep));
                next.push_back(add(at[1], nr));
                return Step{at[0], at[1]};
              },
              [&](int64_t i, Value step) { return loadNumber(a, add(aRows[i], step)); });
        };
        Value before = add(cut, mul(div(row, unit), unit)), needed = add(before, unit);
        if (kind == Cut::Columns)
          when(less(column, needed), [&] { multiply(index(0), count); });
        else if (kind == Cut::LastSteps)
          multiply(index(0), min(max(needed, index(0)), count));
        else {
          Value skipped = min(max(before, index(0)), count);
          multiply(skipped, sub(count, skipped));
        }
      };
      if (kind == Cut::FirstSteps)
        loop(rows, mr, [&](Value row) { loop(columns, nr, [&](Value column) { tile(column, row); }); });
      else
        loop(columns, nr, [&](Value column) { loop(rows, mr, [&](Value row) { tile(column, row); }); });
    });
  }

  //===--- scores ---===//

  /// Of wide scores of a row, from key `key` of the block on, what they are with scale and mask. `seen`: which of them the row looks at. `left`: keys of the block from here on, `visible` those that
  /// the row may look at.
  Value finished(Value scores, Value maskAt, Value key, Value left, Value visible, Value &seen) {
    double scale = attention.operands.scale;
    if (scale != 1)
      scores = times(scores, number(scores.getType(), scale));
    seen = firstLanes(visible, wide);
    if (!mask)
      return scores;
    Type type = isMaskOfBools ? Type(b.getI8Type()) : Type(element);
    Value numbers = isMaskOneForKeys ? spread(loadNumber(mask->memory, maskAt), wide) : maskedLoad(mask->memory, add(maskAt, key), firstLanes(left, wide), vectorOf(wide, type));
    if (!isMaskOfBools)
      return plus(scores, numbers);
    Value zeros = arith::ConstantOp::create(b, loc, b.getZeroAttr(vectorOf(wide, type)));
    seen = arith::AndIOp::create(b, loc, seen, arith::CmpIOp::create(b, loc, arith::CmpIPredicate::ne, numbers, zeros));
    return scores;
  }
  /// Where the block of keys after one lies: in the same head, or, if `isEnd`, at the head of the next task, in which `tasksOfHead` tasks are of a head.
  struct Block {
    Value n, head, key0;
  };
  Block blockAfter(const Block &block, Value isEnd, Value task, Value tasksOfHead) {
    Value all = div(add(task, 1), tasksOfHead);
    return {select(isEnd, div(all, heads), block.n), select(isEnd, rem(all, heads), block.head),
            select(isEnd, index(0), add(block.key0, keys))};
  }
  /// Keys of the block at key0 that row `row` may look at; may be negative.
  Value visibleTo(Value row, Value key0, Value blockKeys) { return isCausal ? min(blockKeys, sub(add(row, 1), key0)) : blockKeys; }
  /// Keys of the block at key0 that come before row `row`'s own, for Product::cut; all if none is cut off.
  Value keysBefore(Value row, Value key0, Value blockKeys) { return isCausal ? sub(row, key0) : blockKeys; }
  /// Keys that the unit of a band's row r needs, if those before the band's first row are `before`.
  Value neededBy(Value r, Value before, Value blockKeys) {
    if (!isCausal)
      return blockKeys;
    return min(blockKeys, max(add(before, mul(add(div(r, index(unit)), 1), unit)), index(0)));
  }

  void attend(Value begin, Value end);
  void passBack(Value begin, Value end);
};

void Attention::Emitter::attend(Value begin, Value end) {
  // Packed keys and values of a block, scores of a band of rows, and for each row of the task what has come together so far: the mean, not yet divided, the largest score and the sum. Numbers of a band's
  // rows lie in whole vectors, for what is done to all of them at once; in the same way those of the present block: the largest score, what is subtracted from scores, the factor of what came before.
  const int64_t rowsPerTask = attention.rowsPerTask, bandNumbers = llvm::alignTo(band, wide), taskNumbers = llvm::divideCeil(rowsPerTask, band) * bandNumbers,
                nextKeys = llvm::divideCeil(keys, rowsPerTask);
  const int64_t keysAt = place(keys * llvm::alignTo(width, lanes)), valuesAt = place(keys * valueColumns), scoresAt = place(band * scoreRow), meansAt = place(rowsPerTask * valueColumns),
                largestAt = place(taskNumbers), sumsAt = place(taskNumbers), blockLargestAt = place(bandNumbers), basesAt = place(bandNumbers), factorsAt = place(bandNumbers);
  if (!frame)
    return;
  const StridedView q = operand(attention.operands.q), k = operand(attention.operands.k), v = operand(attention.operands.v), y = result(0), logsumexp = result(1);
  prepareMask();
  const double infinity = std::numeric_limits<double>::infinity();
  const VectorType wideType = vectorOf(wide, element);
  const int64_t keysPanel = nr * llvm::alignTo(width, lanes);
  auto stateOf = [&](Value bandRow) { return mul(div(bandRow, index(band)), bandNumbers); };
  Value blocks = frame->size(sizesOf(attention.operands.q)[1].ceilDiv(rowsPerTask));
  loop(begin, end, 1, [&](Value task) {
    Value all = div(task, blocks), row0 = mul(rem(task, blocks), rowsPerTask);
    Value n = div(all, heads), head = rem(all, heads);
    Value rows = min(sub(queries, row0), index(rowsPerTask));
    loop(index(taskNumbers), wide, [&](Value state) {
      store(number(wideType, -infinity), scratch, add(state, largestAt));
      store(number(wideType, 0), scratch, add(state, sumsAt));
    });
    loop(index(0), isCausal ? add(row0, rows) : keyRows, keys, [&](Value key0) {
      Value allKeys = isCausal ? add(row0, rows) : keyRows, blockKeys = min(sub(allKeys, key0), index(keys));
      Block next = blockAfter({n, head, key0}, less(allKeys, add(key0, keys + 1)), task, blocks);
      packTransposed(k, n, head, key0, blockKeys, width, keysAt);
      packRows(v, n, head, key0, blockKeys, valueWidth, keys, valuesAt);
      Value isFirst = b.createOrFold<arith::CmpIOp>(loc, arith::CmpIPredicate::eq, key0, index(0));
      loop(rows, band, [&](Value bandRow) {
        Value from = add(row0, bandRow), bandRows = min(sub(rows, bandRow), index(band));
        Value before = keysBefore(from, key0, blockKeys), needed = neededBy(add(bandRows, -1), before, blockKeys), state = stateOf(bandRow);
        when(less(index(0), needed), [&] {
          product(Cut::Columns, {q.memory, rowOf(q, n, from, head), q.strides[1], index(1), bandRows, index(keysAt), keysPanel, needed, index(scoresAt), scoreRow, index(width), boolean(true), before});
          loop(bandRows, 1, [&](Value r) {
            Value row = add(from, r), scoresFrom = add(mul(r, scoreRow), scoresAt), needed = neededBy(r, before, blockKeys), maskAt = maskRow(n, row, head);
            if (mask && !isMaskOneForKeys)
              maskAt = add(maskAt, key0);
            // What is read next.
            fetch(q, n, add(row, band), head, width);
            when(isFirst, [&] { fetch(y, n, row, head, valueWidth, /*isWritten=*/true); });
            Value visible = visibleTo(row, key0, blockKeys);
            Value none = number(wideType, -infinity);
            Value largest = loop(index(0), needed, wide, ValueRange{none}, [&](Value key, ValueRange carried) {
              Value seen, at = add(scoresFrom, key);
              Value scores = finished(load(scratch, at, wide), maskAt, key, sub(blockKeys, key), sub(visible, key), seen);
              scores = select(seen, scores, none);
              store(scores, scratch, at);
              return SmallVector<Value>{larger(scores, carried[0])};
            })[0];
            store(combined(largest, [&](Value x, Value y) { return larger(x, y); }), scratch, add(r, blockLargestAt));
          });
          // What came before is seen from the new largest score.
          for (int64_t r = 0; r < bandNumbers; r += wide) {
            Value largestHere = add(state, largestAt + r), sumsHere = add(state, sumsAt + r);
            Value old = load(scratch, largestHere, wide), now = larger(load(scratch, index(blockLargestAt + r), wide), old), base = finite(now);
            Value factor = weightsOf(arith::SubFOp::create(b, loc, old, base));
            store(now, scratch, largestHere);
            store(times(load(scratch, sumsHere, wide), factor), scratch, sumsHere);
            store(base, scratch, index(basesAt + r));
            store(factor, scratch, index(factorsAt + r));
          }
          loop(bandRows, 1, [&](Value r) {
            Value scoresFrom = add(mul(r, scoreRow), scoresAt), needed = neededBy(r, before, blockKeys), base = spread(loadNumber(scratch, add(r, basesAt)), wide);
            // A share of what the next block is packed of.
            for (int64_t i = 0; i < nextKeys; ++i) {
              Value nextKey = add(add(next.key0, mul(add(bandRow, r), nextKeys)), i);
              fetch(k, next.n, nextKey, next.head, width);
              fetch(v, next.n, nextKey, next.head, valueWidth);
            }
            Value total = loop(index(0), needed, wide, ValueRange{number(wideType, 0)}, [&](Value key, ValueRange carried) {
              Value at = add(scoresFrom, key);
              Value weights = weightsOf(arith::SubFOp::create(b, loc, load(scratch, at, wide), base));
              store(weights, scratch, at);
              return SmallVector<Value>{plus(carried[0], weights)};
            })[0];
            total = combined(total, [&](Value x, Value y) { return plus(x, y); });
            Value sum = add(add(state, r), sumsAt);
            store(plus(loadNumber(scratch, sum), total), scratch, sum);
          });
          when(less(index(0), key0), [&] {
            loop(bandRows, 1, [&](Value r) {
              Value mean = add(mul(add(bandRow, r), valueColumns), meansAt), factors = spread(loadNumber(scratch, add(r, factorsAt)), lanes);
              loop(index(valueColumns), lanes, [&](Value column) { store(times(load(scratch, add(mean, column), lanes), factors), scratch, add(mean, column)); });
            });
          });
          product(Cut::LastSteps, {scratch, index(scoresAt), index(scoreRow), index(1), bandRows, index(valuesAt), keys * nr, index(valueColumns), add(mul(bandRow, valueColumns), meansAt), valueColumns,
                                   needed, isFirst, before});
        });
      });
    });
    loop(rows, band, [&](Value bandRow) {
      Value state = stateOf(bandRow), bandRows = min(sub(rows, bandRow), index(band));
      for (int64_t r = 0; r < bandNumbers; r += wide) {
        Value sums = load(scratch, add(state, sumsAt + r), wide), bases = finite(load(scratch, add(state, largestAt + r), wide));
        store(plus(bases, math::LogOp::create(b, loc, sums)), scratch, index(basesAt + r));
        store(arith::DivFOp::create(b, loc, number(wideType, 1), sums), scratch, index(factorsAt + r));
      }
      loop(bandRows, 1, [&](Value r) {
        Value row = add(bandRow, r), at = add(row0, row);
        store(loadNumber(scratch, add(r, basesAt)), logsumexp.memory, rowOf(logsumexp, n, at, head));
        Value isNone = is(arith::CmpFPredicate::OEQ, loadNumber(scratch, add(add(state, r), sumsAt)), number(element, 0));
        Value factors = spread(loadNumber(scratch, add(r, factorsAt)), lanes), zeros = number(vectorOf(lanes, element), 0);
        Value from = add(mul(row, valueColumns), meansAt), to = rowOf(y, n, at, head);
        for (int64_t column = 0; column < valueWidth; column += lanes) {
          Value mean = select(isNone, zeros, times(load(scratch, add(from, column), lanes), factors));
          if (column + lanes <= valueWidth)
            store(mean, y.memory, add(to, column));
          else
            vector::MaskedStoreOp::create(b, loc, y.memory, ValueRange{add(to, column)}, firstLanes(index(valueWidth - column), lanes), mean);
        }
      });
    });
  });
}

void Attention::Emitter::passBack(Value begin, Value end) {
  // Of a block of keys: keys and values transposed, keys as they are; of some rows: queries and cotangents; weights and the scores' cotangents; what has come together for keys and values, and for the
  // queries of a band.
  const int64_t blockRows = llvm::alignTo(keys, unit);
  const int64_t keysAt = place(keys * llvm::alignTo(width, lanes)), valuesAt = place(keys * llvm::alignTo(valueWidth, lanes)), keyRowsAt = place(keys * widthColumns),
                queriesAt = place(gradientRows * widthColumns), cotangentsAt = place(gradientRows * valueColumns), weightsAt = place(gradientRows * scoreRow), scoresAt = place(gradientRows * scoreRow),
                dkAt = place(blockRows * widthColumns), dvAt = place(blockRows * valueColumns), dqAt = place(band * widthColumns);
  if (!frame)
    return;
  auto gradient = cast<AttentionGradientOp>(attention.op);
  const StridedView q = operand(attention.operands.q), k = operand(attention.operands.k), v = operand(attention.operands.v), logsumexp = operand(gradient.getLogsumexp()),
             delta = operand(gradient.getDelta()), dy = operand(gradient.getDy()), dq = result(0), dk = result(1), dv = result(2);
  prepareMask();
  const VectorType wideType = vectorOf(wide, element), type = vectorOf(lanes, element);
  const int64_t keysPanel = nr * llvm::alignTo(width, lanes), valuesPanel = nr * llvm::alignTo(valueWidth, lanes);
  auto clear = [&](Value elements, int64_t at) {
    loop(elements, lanes, [&](Value i) { store(number(type, 0), scratch, add(i, at)); });
  };
  /// Calls `body` for the vectors of a row: the column, and which lanes of it exist (null: all).
  auto along = [&](int64_t columns, llvm::function_ref<void(int64_t, Value)> body) {
    for (int64_t column = 0; column < columns; column += lanes)
      body(column, column + lanes <= columns ? Value() : firstLanes(index(columns - column), lanes));
  };
  auto put = [&](Value vector, Value memory, Value at, Value mask) {
    if (mask)
      vector::MaskedStoreOp::create(b, loc, memory, ValueRange{at}, mask, vector);
    else
      store(vector, memory, at);
  };
  auto get = [&](Value memory, Value at, Value mask) { return mask ? maskedLoad(memory, at, mask, type) : load(memory, at, lanes); };

  loop(begin, end, 1, [&](Value task) {
    Value n = div(task, heads), head = rem(task, heads);
    // Where there are keys, the first block of them begins every row.
    when(b.createOrFold<arith::CmpIOp>(loc, arith::CmpIPredicate::eq, keyRows, index(0)), [&] {
      loop(queries, 1, [&](Value row) {
        Value to = rowOf(dq, n, row, head);
        along(width, [&](int64_t column, Value mask) { put(number(type, 0), dq.memory, add(to, column), mask); });
      });
    });
    loop(index(0), keyRows, keys, [&](Value key0) {
      Value blockKeys = min(sub(keyRows, key0), index(keys));
      Block next = blockAfter({n, head, key0}, less(keyRows, add(key0, keys + 1)), task, index(1));
      Value isFirst = b.createOrFold<arith::CmpIOp>(loc, arith::CmpIPredicate::eq, key0, index(0)), isLater = less(index(0), key0);
      // Rows before these look at no key of the block.
      auto firstRowOf = [&](Value key0) { return isCausal ? mul(div(key0, index(gradientRows)), gradientRows) : index(0); };
      packTransposed(k, n, head, key0, blockKeys, width, keysAt);
      packTransposed(v, n, head, key0, blockKeys, valueWidth, valuesAt);
      packRows(k, n, head, key0, blockKeys, width, keys, keyRowsAt);
      when(b.createOrFold<arith::CmpIOp>(loc, arith::CmpIPredicate::eq, queries, index(0)), [&] {
        clear(index(blockRows * widthColumns), dkAt);
        clear(index(blockRows * valueColumns), dvAt);
      });
      loop(firstRowOf(key0), queries, gradientRows, [&](Value row0) {
        Value rows = min(sub(queries, row0), index(gradientRows));
        Value isFirstOfRows = b.createOrFold<arith::CmpIOp>(loc, arith::CmpIPredicate::eq, row0, firstRowOf(key0));
        Value isLast = b.createOrFold<arith::CmpIOp>(loc, arith::CmpIPredicate::eq, add(row0, rows), queries);
        packRows(q, n, head, row0, rows, width, gradientRows, queriesAt);
        packRows(dy, n, head, row0, rows, valueWidth, gradientRows, cotangentsAt);
        loop(rows, band, [&](Value bandRow) {
          Value from = add(row0, bandRow), bandRows = min(sub(rows, bandRow), index(band));
          Value before = keysBefore(from, key0, blockKeys), needed = neededBy(add(bandRows, -1), before, blockKeys);
          // The rows after these, which are the next block's first ones in the end; with the last rows also what that block is packed of, and where this one's results go.
          Value nextN = select(isLast, next.n, n), nextHead = select(isLast, next.head, head), nextRow = add(bandRow, select(isLast, firstRowOf(next.key0), add(row0, gradientRows)));
          when(less(index(0), needed), [&] {
            Value weights = add(mul(bandRow, scoreRow), weightsAt), scores = add(mul(bandRow, scoreRow), scoresAt);
            product(Cut::Columns, {q.memory, rowOf(q, n, from, head), q.strides[1], index(1), bandRows, index(keysAt), keysPanel, needed, weights, scoreRow, index(width), boolean(true), before});
            product(Cut::Columns, {dy.memory, rowOf(dy, n, from, head), dy.strides[1], index(1), bandRows, index(valuesAt), valuesPanel, needed, scores, scoreRow, index(valueWidth), boolean(true), before});
            loop(bandRows, 1, [&](Value r) {
              Value row = add(from, r), maskAt = maskRow(n, row, head), visible = visibleTo(row, key0, blockKeys);
              fetch(q, nextN, add(nextRow, r), nextHead, width);
              fetch(dy, nextN, add(nextRow, r), nextHead, valueWidth);
              when(isFirst, [&] { fetch(dq, n, row, head, width, /*isWritten=*/true); });
              Value key = sub(row, max(sub(queries, index(keys)), index(0)));
              when(less(index(-1), key), [&] {
                fetch(k, next.n, add(next.key0, key), next.head, width);
                fetch(v, next.n, add(next.key0, key), next.head, valueWidth);
                fetch(dk, n, add(key0, key), head, width, /*isWritten=*/true);
                fetch(dv, n, add(key0, key), head, valueWidth, /*isWritten=*/true);
              });
              if (mask && !isMaskOneForKeys)
                maskAt = add(maskAt, key0);
              Value base = spread(finite(loadNumber(logsumexp.memory, rowOf(logsumexp, n, row, head))), wide);
              Value rowDelta = spread(loadNumber(delta.memory, rowOf(delta, n, row, head)), wide), zeros = number(wideType, 0);
              Value weightsFrom = add(weights, mul(r, scoreRow)), scoresFrom = add(scores, mul(r, scoreRow)), needed = neededBy(r, before, blockKeys);
              loop(needed, wide, [&](Value key) {
                Value seen, weightAt = add(weightsFrom, key), scoreAt = add(scoresFrom, key);
                Value score = finished(load(scratch, weightAt, wide), maskAt, key, sub(blockKeys, key), sub(visible, key), seen);
                Value weight = select(seen, weightsOf(arith::SubFOp::create(b, loc, score, base)), zeros);
                Value cotangent = times(arith::SubFOp::create(b, loc, load(scratch, scoreAt, wide), rowDelta), weight);
                cotangent = select(is(arith::CmpFPredicate::OEQ, weight, zeros), zeros, cotangent);
                if (double scale = attention.operands.scale; scale != 1)
                  cotangent = times(cotangent, number(wideType, scale));
                store(weight, scratch, weightAt);
                store(cotangent, scratch, scoreAt);
              });
              // What rows together give to a unit of keys is read from the first of these rows on for all keys of the unit.
              if (isCausal)
                loop(mul(b.createOrFold<arith::CeilDivUIOp>(loc, needed, index(wide)), wide), min(add(needed, unit), blockKeys), wide, [&](Value key) {
                  store(zeros, scratch, add(weightsFrom, key));
                  store(zeros, scratch, add(scoresFrom, key));
                });
            });
            product(Cut::LastSteps,
                    {scratch, scores, index(scoreRow), index(1), bandRows, index(keyRowsAt), keys * nr, index(widthColumns), index(dqAt), widthColumns, needed, boolean(true), before});
            auto addTo = [&](bool isBegun) {
              loop(bandRows, 1, [&](Value r) {
                Value part = add(mul(r, widthColumns), dqAt), to = rowOf(dq, n, add(from, r), head);
                along(width, [&](int64_t column, Value mask) {
                  Value sum = load(scratch, add(part, column), lanes);
                  put(isBegun ? plus(get(dq.memory, add(to, column), mask), sum) : sum, dq.memory, add(to, column), mask);
                });
              });
            };
            when(isFirst, [&] { addTo(false); });
            when(isLater, [&] { addTo(true); });
          });
        });
        // A key is looked at by its own row and those after it.
        Value before = isCausal ? sub(key0, row0) : index(std::numeric_limits<int32_t>::min());
        product(Cut::FirstSteps, {scratch, index(weightsAt), index(1), index(scoreRow), blockKeys, index(cotangentsAt), gradientRows * nr, index(valueColumns), index(dvAt), valueColumns, rows,
                                  isFirstOfRows, before});
        product(Cut::FirstSteps,
                {scratch, index(scoresAt), index(1), index(scoreRow), blockKeys, index(queriesAt), gradientRows * nr, index(widthColumns), index(dkAt), widthColumns, rows, isFirstOfRows, before});
      });
      loop(blockKeys, 1, [&](Value key) {
        Value toKey = rowOf(dk, n, add(key0, key), head), toValue = rowOf(dv, n, add(key0, key), head);
        along(width, [&](int64_t column, Value mask) { put(load(scratch, add(add(mul(key, widthColumns), dkAt), column), lanes), dk.memory, add(toKey, column), mask); });
        along(valueWidth, [&](int64_t column, Value mask) { put(load(scratch, add(add(mul(key, valueColumns), dvAt), column), lanes), dv.memory, add(toValue, column), mask); });
      });
    });
  });
}

int64_t Attention::scratchBytes() const {
  // Only sizes are asked for, so nothing is built.
  OpBuilder b(op->getContext());
  Emitter emitter(*this, b, nullptr, {});
  if (isa<AttentionOp>(op))
    emitter.attend({}, {});
  else
    emitter.passBack({}, {});
  return emitter.scratchElements * bytesOf(element);
}

void Attention::emit(OpBuilder &b, FrameAccess &frame, Value begin, Value end, Value scratch) const {
  Emitter emitter(*this, b, &frame, memrefOf(b, op->getLoc(), scratch, element));
  if (isa<AttentionOp>(op))
    emitter.attend(begin, end);
  else
    emitter.passBack(begin, end);
}

} // namespace dlc::cpu
