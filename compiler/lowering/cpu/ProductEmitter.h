//===- ProductEmitter.h - what emitters of products share -*- C++ -*-===//
//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Gemm.cpp emits products of matrices, Convolution.cpp products of which one factor is read at places
// that a table lists, Winograd.cpp products of transformed tiles. Here is what all are made of: arithmetic on indices, loops, outlined
// functions, the multiplication of a register-sized part of the result, the transposition of a
// block; and the estimates that their schedules are chosen by.
//
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_LOWERING_CPU_PRODUCTEMITTER_H
#define DLC_COMPILER_LOWERING_CPU_PRODUCTEMITTER_H

#include "compiler/lowering/cpu/CpuInfo.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/Builders.h"
#include "llvm/ADT/STLFunctionalExtras.h"

#include <algorithm>
#include <string>
#include <utility>

namespace dlc::cpu {

//===----------------------------------------------------------------------===//
// Planning
//===----------------------------------------------------------------------===//

/// What is assumed of sizes that are known only at run time: they are mostly a batch.
inline constexpr int64_t assumedSize = 128;

/// Rows that the micro-kernel may have: each needs an address, and x86 has 16 general registers.
inline constexpr int64_t maxRows = 8;

/// Work of a task below which more tasks do not pay, in cycles of one core (about 7 microseconds).
inline constexpr int64_t taskCycles = 16 * 1024;

/// Tiles there should be: enough for 16 threads to share evenly.
inline constexpr int64_t wantedTiles = 16;

/// Bytes of a line of every cache of every x86 processor.
inline constexpr int64_t lineBytes = 64;

/// Estimates in cycles, fitted to measurements on Sapphire Rapids: for each vector that is
/// transposed in registers, packed by a copy, or read for the first time in a tile; for each call
/// of a micro-kernel and each accumulator in it; for a launch.
inline constexpr double transposeCycles = 7, copyCycles = 9, firstReadCycles = 3, callCycles = 40,
                 accumulatorCycles = 1.5, launchCycles = 10000;

/// What another micro-kernel has to save to be worth its code, beyond a few percent.
inline constexpr double sharedCycles = 1500;

/// Rows and vectors of the micro-kernel that is taken if nothing speaks against it.
inline std::pair<int64_t, int64_t> usualMicroTile(const CpuInfo &cpu) {
  return cpu.vectorRegisters >= 32 ? std::pair(4, 4) : std::pair(6, 2);
}

inline int64_t orAssumed(int64_t size) {
  return mlir::ShapedType::isDynamic(size) ? assumedSize : std::max<int64_t>(size, 1);
}

/// Divides `size` into the fewest parts of at most `limit` and makes them alike; a multiple of
/// `unit`.
int64_t balancedPart(int64_t size, int64_t limit, int64_t unit);

/// Cycles that one step of k takes in a micro-kernel of `mr` rows and `nv` vectors: the largest of
/// what the two multiply-add units, the two load units, the latency of a chain (4) and the front
/// end (5 instructions) allow.
double cyclesPerStep(int64_t mr, int64_t nv);

//===----------------------------------------------------------------------===//
// Emission
//===----------------------------------------------------------------------===//

/// What one emission of a product knows whatever the product is: the builder, the type, the width of
/// a vector.
struct ProductEmitter {
  mlir::OpBuilder &b;
  mlir::Location loc;
  mlir::FloatType element;
  int64_t lanes;

  ProductEmitter(const CpuInfo &cpu, mlir::FloatType element, mlir::OpBuilder &b, mlir::Location loc)
      : b(b), loc(loc), element(element), lanes(cpu.lanes(element)) {}

  //===--- Arithmetic on indices, folded where possible ---===//

  mlir::Value index(int64_t value) { return mlir::arith::ConstantIndexOp::create(b, loc, value); }
  mlir::Value add(mlir::Value x, mlir::Value y) { return b.createOrFold<mlir::arith::AddIOp>(loc, x, y); }
  mlir::Value add(mlir::Value x, int64_t y) { return y == 0 ? x : add(x, index(y)); }
  mlir::Value sub(mlir::Value x, mlir::Value y) { return b.createOrFold<mlir::arith::SubIOp>(loc, x, y); }
  mlir::Value mul(mlir::Value x, mlir::Value y) { return b.createOrFold<mlir::arith::MulIOp>(loc, x, y); }
  mlir::Value mul(mlir::Value x, int64_t y) { return mul(x, index(y)); }
  mlir::Value div(mlir::Value x, mlir::Value y) { return b.createOrFold<mlir::arith::DivUIOp>(loc, x, y); }
  mlir::Value div(mlir::Value x, int64_t y) { return div(x, index(y)); }
  mlir::Value rem(mlir::Value x, mlir::Value y) { return b.createOrFold<mlir::arith::RemUIOp>(loc, x, y); }
  mlir::Value min(mlir::Value x, mlir::Value y) { return b.createOrFold<mlir::arith::MinSIOp>(loc, x, y); }
  mlir::Value max(mlir::Value x, mlir::Value y) { return b.createOrFold<mlir::arith::MaxSIOp>(loc, x, y); }
  mlir::Value ceilDiv(mlir::Value x, int64_t y) { return div(add(x, y - 1), y); }
  mlir::Value ceilDivByValue(mlir::Value x, mlir::Value y) { return div(add(x, sub(y, index(1))), y); }
  mlir::Value roundUp(mlir::Value x, int64_t y) { return mul(ceilDiv(x, y), y); }
  mlir::Value less(mlir::Value x, mlir::Value y) {
    return b.createOrFold<mlir::arith::CmpIOp>(loc, mlir::arith::CmpIPredicate::slt, x, y);
  }
  mlir::Value boolean(bool value) { return mlir::arith::ConstantIntOp::create(b, loc, value, 1); }

  //===--- Vectors ---===//

  mlir::VectorType vectorType() const { return mlir::VectorType::get({lanes}, element); }
  mlir::VectorType maskType() const { return mlir::VectorType::get({lanes}, b.getI1Type()); }
  mlir::Value zeroVector() {
    return mlir::arith::ConstantOp::create(
        b, loc, vectorType(), mlir::SplatElementsAttr::get(vectorType(), b.getFloatAttr(element, 0)));
  }
  mlir::Value load(mlir::Value memory, mlir::Value at) {
    return mlir::vector::LoadOp::create(b, loc, vectorType(), memory, mlir::ValueRange{at});
  }
  void store(mlir::Value vector, mlir::Value memory, mlir::Value at) {
    mlir::vector::StoreOp::create(b, loc, vector, memory, mlir::ValueRange{at});
  }
  /// The first `count` lanes; none if it is negative.
  mlir::Value mask(mlir::Value count) {
    return mlir::vector::CreateMaskOp::create(b, loc, maskType(), mlir::ValueRange{count});
  }
  /// The lanes from `count` on; all if it is not positive.
  mlir::Value maskFrom(mlir::Value count) {
    mlir::Value ones = mlir::arith::ConstantOp::create(
        b, loc, maskType(), mlir::SplatElementsAttr::get(maskType(), b.getBoolAttr(true)));
    return mlir::arith::XOrIOp::create(b, loc, mask(count), ones);
  }
  /// 0, stride, 2 * stride, ...: where the lanes of a gather lie behind its first element.
  mlir::Value ramp(int64_t stride) {
    llvm::SmallVector<int32_t> places;
    for (int64_t lane = 0; lane < lanes; ++lane)
      places.push_back(static_cast<int32_t>(lane * stride));
    return mlir::arith::ConstantOp::create(b, loc, b.getI32VectorAttr(places));
  }
  mlir::Value maskedLoad(mlir::Value memory, mlir::Value at, mlir::Value mask) {
    return mlir::vector::MaskedLoadOp::create(b, loc, vectorType(), memory, mlir::ValueRange{at}, mask,
                                        zeroVector());
  }

  /// Where an element lies, as a number of bytes.
  mlir::Value addressOf(mlir::Value memory, mlir::Value at) {
    mlir::Value base = mlir::memref::ExtractAlignedPointerAsIndexOp::create(b, loc, memory);
    return add(base, mul(at, element.getIntOrFloatBitWidth() / 8));
  }
  /// Has the line at an address brought into L2, to be read later; nothing need be there. A loop counts the address for
  /// itself: of an element whose place is counted, LLVM would count those of its other elements one by one as well.
  void fetch(mlir::Value address) {
    address = mlir::arith::IndexCastOp::create(b, loc, b.getI64Type(), address);
    address = mlir::LLVM::IntToPtrOp::create(b, loc, mlir::LLVM::LLVMPointerType::get(b.getContext()), address);
    mlir::LLVM::Prefetch::create(b, loc, address, /*rw=*/0, /*hint=*/2, /*cache=*/1);
  }
  /// Brings the line of an element into the cache, to be written. Another thread may have read it
  /// since this one wrote it; asked for only by the store, every line would wait for the other core.
  /// As text, because LLVM has the instruction only for processors that are known to act on it, while
  /// all others ignore it.
  void own(mlir::Value memory, mlir::Value at) {
    mlir::Value address = mlir::arith::IndexCastOp::create(b, loc, b.getI64Type(), addressOf(memory, at));
    mlir::LLVM::InlineAsmOp::create(b, loc, /*resultTypes=*/mlir::Type(), mlir::ValueRange{address}, "prefetchw ($0)", "r",
                              /*has_side_effects=*/true, /*is_align_stack=*/false,
                              mlir::LLVM::TailCallKind::None, /*asm_dialect=*/mlir::LLVM::AsmDialectAttr(),
                              /*operand_attrs=*/mlir::ArrayAttr());
  }

  //===--- Control flow ---===//

  /// For loops that must stay small, not become a page of unrolled code. The lowering from scf to
  /// cf hands attributes of the LLVM dialect on to the branch, whose own attribute has this name
  /// (without the "llvm." that is also seen).
  mlir::LLVM::LoopAnnotationAttr noUnroll() {
    mlir::MLIRContext *context = b.getContext();
    auto unroll = mlir::LLVM::LoopUnrollAttr::get(context, b.getBoolAttr(true), {}, {}, {}, {}, {}, {});
    return mlir::LLVM::LoopAnnotationAttr::get(context, {}, {}, {}, unroll, {}, {}, {}, {}, {}, {}, {},
                                         {}, {}, {}, llvm::ArrayRef<mlir::LLVM::AccessGroupAttr>());
  }
  void loop(mlir::Value from, mlir::Value to, mlir::Value step, llvm::function_ref<void(mlir::Value)> body) {
    auto op = mlir::scf::ForOp::create(b, loc, from, to, step);
    op->setAttr("loop_annotation", noUnroll());
    mlir::OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(op.getBody());
    body(op.getInductionVar());
  }
  void loop(mlir::Value to, int64_t step, llvm::function_ref<void(mlir::Value)> body) {
    loop(index(0), to, index(step), body);
  }
  void loop(mlir::Value from, mlir::Value to, llvm::function_ref<void(mlir::Value)> body) {
    loop(from, to, index(1), body);
  }
  void loop(int64_t to, llvm::function_ref<void(mlir::Value)> body) { loop(index(0), index(to), body); }

  /// The first of `units` that belongs to a task, of `tasks` (at least one) that have equal shares.
  mlir::Value share(mlir::Value task, mlir::Value units, mlir::Value tasks) {
    return div(mul(task, units), tasks);
  }
  void when(mlir::Value condition, llvm::function_ref<void()> body) {
    auto op = mlir::scf::IfOp::create(b, loc, condition, /*withElseRegion=*/false);
    mlir::OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(op.thenBlock());
    body();
  }

  /// From `begin` to `end` in vectors, the last one with a mask. `areWhole`: there is no shorter one;
  /// `areShort`: there is none that is whole.
  void neighbours(mlir::Value begin, mlir::Value end, bool areWhole, bool areShort,
                  llvm::function_ref<void(mlir::Value at, mlir::Value mask)> body) {
    mlir::Value whole = areWhole ? end : add(begin, mul(div(sub(end, begin), lanes), lanes));
    if (!areShort)
      loop(begin, whole, index(lanes), [&](mlir::Value at) { body(at, {}); });
    if (!areWhole)
      when(less(whole, end), [&] { body(whole, mask(sub(end, whole))); });
  }

  //===--- Outlined functions ---===//

  mlir::MemRefType memoryType() const { return mlir::MemRefType::get({mlir::ShapedType::kDynamic}, element); }
  /// Finds the function `name` in the surrounding module, or makes it with `body`.
  mlir::func::FuncOp outlined(const std::string &name, llvm::ArrayRef<mlir::Type> arguments,
                        llvm::function_ref<void(mlir::ValueRange)> body);
  std::string typeName() const { return element.isF32() ? "f32" : "f64"; }
  /// destination[columns, rows] = source[rows, columns]^T, a function of (source, where it begins in
  /// it, elements from row to row, rows, columns, destination, where it begins, elements from row to
  /// row). Whole blocks of lanes x lanes are written: rows beyond the last one repeat it, columns
  /// beyond the last one are not read and become zero.
  mlir::func::FuncOp transposition();

  /// Where a step finds its elements: a number that says where A's are, and the first of B's.
  struct Step {
    mlir::Value a, b;
  };
  using StepBuilder =
      llvm::function_ref<Step(mlir::ValueRange carried, llvm::SmallVectorImpl<mlir::Value> &next)>;
  /// A register-sized part of the result: c[places] += A[row, step] * B[step, nv vectors], over `count`
  /// steps, or = where `first`. There are mr * nv places, row by row. `carried` goes through the
  /// steps; `at` builds where a step's elements are and what the next one carries, `elementOf` the
  /// element of A in a row.
  void multiplySteps(int64_t mr, int64_t nv, mlir::Value bMemory, mlir::Value c,
                     mlir::ValueRange places, mlir::Value count, mlir::Value first,
                     mlir::ValueRange carried, StepBuilder at,
                     llvm::function_ref<mlir::Value(int64_t row, mlir::Value step)> elementOf);
};

} // namespace dlc::cpu

#endif // DLC_COMPILER_LOWERING_CPU_PRODUCTEMITTER_H
