//===- ProductEmitter.cpp - what emitters of products share -*- C++ -*-===//
//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "compiler/lowering/cpu/ProductEmitter.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/BuiltinOps.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/MathExtras.h"

#include <cassert>

using namespace mlir;

namespace dlc::cpu {

int64_t balancedPart(int64_t size, int64_t limit, int64_t unit) {
  int64_t parts = llvm::divideCeil(size, std::max(limit, unit));
  return llvm::alignTo(llvm::divideCeil(size, std::max<int64_t>(parts, 1)), unit);
}

double cyclesPerStep(int64_t mr, int64_t nv) {
  double fma = mr * nv / 2.0;
  double load = (mr + nv) / 2.0;
  double frontEnd = (mr * nv + nv + (nv > 1 ? mr : 0) + 4) / 5.0;
  return std::max({fma, load, frontEnd, 4.0});
}

func::FuncOp ProductEmitter::outlined(const std::string &name, ArrayRef<Type> arguments,
                                     llvm::function_ref<void(ValueRange)> body) {
  auto module = b.getInsertionBlock()->getParentOp()->getParentOfType<ModuleOp>();
  if (!module)
    module = cast<ModuleOp>(b.getInsertionBlock()->getParentOp());
  if (auto existing = module.lookupSymbol<func::FuncOp>(name))
    return existing;
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToEnd(module.getBody());
  auto function = func::FuncOp::create(b, loc, name, b.getFunctionType(arguments, {}));
  function.setPrivate();
  // One copy, whoever calls it: inlined it would compete with its surroundings for registers, and
  // LLVM would specialize it for constant arguments if it may be duplicated.
  function->setAttr("passthrough", b.getStrArrayAttr({"noinline", "noduplicate", "nounwind"}));
  function->setAttr("llvm.linkage",
                    LLVM::LinkageAttr::get(b.getContext(), LLVM::Linkage::Internal));
  Block *entry = function.addEntryBlock();
  b.setInsertionPointToStart(entry);
  body(entry->getArguments());
  b.setInsertionPointToEnd(entry);
  func::ReturnOp::create(b, loc);
  return function;
}

void ProductEmitter::multiplySteps(int64_t mr, int64_t nv, Value bMemory, Value c, ValueRange places,
                                   Value count, Value first, ValueRange carried, StepBuilder at,
                                   llvm::function_ref<Value(int64_t, Value)> elementOf) {
  SmallVector<Type> types(mr * nv, vectorType());
  auto start = scf::IfOp::create(b, loc, types, first, /*withElseRegion=*/true);
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(start.thenBlock());
    scf::YieldOp::create(b, loc, SmallVector<Value>(mr * nv, zeroVector()));
    b.setInsertionPointToStart(start.elseBlock());
    SmallVector<Value> loaded;
    for (Value place : places)
      loaded.push_back(load(c, place));
    scf::YieldOp::create(b, loc, loaded);
  }

  SmallVector<Value> begin(start.getResults());
  llvm::append_range(begin, carried);
  auto steps = scf::ForOp::create(b, loc, index(0), count, index(1), begin);
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(steps.getBody());
    ValueRange state = steps.getRegionIterArgs();
    SmallVector<Value> bVectors, next, nextCarried;
    Step step = at(state.drop_front(mr * nv), nextCarried);
    for (int64_t v = 0; v < nv; ++v)
      bVectors.push_back(load(bMemory, add(step.b, v * lanes)));
    for (int64_t i = 0; i < mr; ++i) {
      Value spread = vector::BroadcastOp::create(b, loc, vectorType(), elementOf(i, step.a));
      for (int64_t v = 0; v < nv; ++v)
        next.push_back(math::FmaOp::create(b, loc, spread, bVectors[v], state[i * nv + v]));
    }
    llvm::append_range(next, nextCarried);
    scf::YieldOp::create(b, loc, next);
  }
  for (int64_t i = 0; i < mr * nv; ++i)
    store(steps.getResult(i), c, places[i]);
}

/// How far ahead of a row that is transposed its lines are asked for: about as long as memory takes.
static constexpr int64_t linesAhead = 6;

func::FuncOp ProductEmitter::transposition() {
  Type memory = memoryType(), idx = b.getIndexType();
  std::string name = llvm::formatv("dl.transpose_{0}_{1}", typeName(), lanes).str();
  return outlined(name, {memory, idx, idx, idx, idx, memory, idx, idx}, [&](ValueRange arguments) {
    Value source = arguments[0], sourceBase = arguments[1], sourceRow = arguments[2],
          rows = arguments[3];
    Value columns = arguments[4], destination = arguments[5], base = arguments[6],
          destinationRow = arguments[7];
    // The blocks, down the rows of the source: those of the destination are then written one after the other, in whole lines.
    OpBuilder::InsertionGuard guard(b);
    Value block[2], size[2] = {rows, columns};
    for (int i : {1, 0}) {
      auto blocks = scf::ForOp::create(b, loc, index(0), size[i], index(lanes));
      block[i] = blocks.getInductionVar();
      b.setInsertionPointToStart(blocks.getBody());
      // There are more rows than the processor by itself fetches ahead of.
      if (i == 1) {
        Value later = add(add(sourceBase, block[1]), linesAhead * lineBytes * 8 / element.getIntOrFloatBitWidth());
        loop(rows, 1, [&](Value row) { fetch(addressOf(source, add(later, mul(row, sourceRow)))); });
      }
    }
    Value sourceAt = add(add(sourceBase, mul(block[0], sourceRow)), block[1]);
    Value at = add(add(base, mul(block[1], destinationRow)), block[0]);
    Value existing = mask(sub(columns, block[1])), last = add(sub(rows, block[0]), -1);

    // Each register with the (row, column) of its elements, so that the order in which columns come
    // out follows from the exchanges and need not be worked out by hand.
    struct Register {
      Value value;
      SmallVector<std::pair<int64_t, int64_t>> labels;
    };
    SmallVector<Register> registers;
    for (int64_t i = 0; i < lanes; ++i) {
      Register r;
      r.value = maskedLoad(source, add(sourceAt, mul(min(index(i), last), sourceRow)), existing);
      for (int64_t j = 0; j < lanes; ++j)
        r.labels.push_back({i, j});
      registers.push_back(r);
    }

    // Exchanges registers i and i + distance for all i: `select` lists, for the low and the high
    // result, elements of the pair (numbered through).
    auto exchange = [&](int64_t distance, ArrayRef<int64_t> low, ArrayRef<int64_t> high) {
      for (int64_t i = 0; i < lanes; ++i) {
        if (i & distance)
          continue;
        Register x = registers[i], y = registers[i + distance];
        auto pick = [&](ArrayRef<int64_t> order) {
          Register r;
          r.value = vector::ShuffleOp::create(b, loc, x.value, y.value, order);
          for (int64_t e : order)
            r.labels.push_back(e < lanes ? x.labels[e] : y.labels[e - lanes]);
          return r;
        };
        registers[i] = pick(low);
        registers[i + distance] = pick(high);
      }
    };

    // Within 128 bits: interleave single elements, then pairs (unpcklps, unpcklpd and their high
    // halves).
    const int64_t quad = std::min<int64_t>(lanes, 128 / element.getIntOrFloatBitWidth());
    int64_t distance = 1;
    for (int64_t width = 1; width < quad; width *= 2, distance *= 2) {
      SmallVector<int64_t> low, high;
      for (int64_t base = 0; base < lanes; base += quad) {
        for (int64_t half : {0, 1}) {
          SmallVector<int64_t> &order = half ? high : low;
          for (int64_t e = 0; e < quad / 2; e += width) {
            for (int64_t from : {int64_t(0), lanes})
              for (int64_t j = 0; j < width; ++j)
                order.push_back(from + base + half * quad / 2 + e + j);
          }
        }
      }
      exchange(distance, low, high);
    }
    // Across: even units of both, odd units of both (vperm2f128, vshuff32x4).
    for (; distance < lanes; distance *= 2) {
      SmallVector<int64_t> low, high;
      for (int64_t odd : {0, 1}) {
        SmallVector<int64_t> &order = odd ? high : low;
        for (int64_t from : {int64_t(0), lanes})
          for (int64_t unit = odd; unit < lanes / quad; unit += 2)
            for (int64_t j = 0; j < quad; ++j)
              order.push_back(from + unit * quad + j);
      }
      exchange(distance, low, high);
    }

    SmallVector<Value> byColumn(lanes);
    for (Register &r : registers) {
      for ([[maybe_unused]] auto [row, label] : llvm::enumerate(r.labels))
        assert(label.first == static_cast<int64_t>(row) && label.second == r.labels[0].second &&
               "exchanges do not transpose");
      byColumn[r.labels[0].second] = r.value;
    }
    for (auto [j, value] : llvm::enumerate(byColumn))
      store(value, destination, add(at, mul(destinationRow, j)));
  });
}

} // namespace dlc::cpu
