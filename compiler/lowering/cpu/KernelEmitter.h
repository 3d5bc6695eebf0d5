//===- KernelEmitter.h - the loops of a fused kernel -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// One dl.fused (or check) on the CPU: how many launches it takes, how many tasks each has, and what a task does. Tasks never share a result's element, and what
// an element's bits are depends on the shape alone: not on tasks, threads or their order.

#ifndef DLC_COMPILER_LOWERING_CPU_KERNELEMITTER_H
#define DLC_COMPILER_LOWERING_CPU_KERNELEMITTER_H

#include "compiler/lowering/ElementEmitter.h"
#include "compiler/lowering/cpu/Attention.h"
#include "compiler/lowering/cpu/Convolution.h"
#include "compiler/lowering/cpu/CpuInfo.h"
#include "compiler/lowering/cpu/Gemm.h"
#include "compiler/lowering/cpu/Pointwise.h"
#include "compiler/transforms/Passes.h"
#include "compiler/lowering/cpu/Winograd.h"
#include "dlrt/model_abi.h"
#include <optional>
#include <variant>

namespace dlc::cpu {

/// What a function that is being emitted knows of its frame (dl_frame).
class FrameAccess {
public:
  /// Loads are emitted at the start of `entry`. With `takesBuffers` the buffers that are asked for become further arguments of it.
  FrameAccess(mlir::Block *entry, mlir::Value frame, mlir::Location loc, bool takesBuffers = false) : entry(entry), frame(frame), loc(loc), takesBuffers(takesBuffers) {}
  /// A size as an index value.
  mlir::Value size(mlir::AffineExpr expr);
  /// A buffer of the function's table as memref<?xT>, and as a pointer.
  mlir::Value buffer(int64_t number, mlir::Type elementType);
  mlir::Value pointer(int64_t number);
  /// Field `number` of dl_frame, a pointer.
  mlir::Value field(unsigned number);
  mlir::OpBuilder atStart();
  /// The numbers of the buffers that became arguments, in their order.
  llvm::ArrayRef<int64_t> takenBuffers() const { return taken; }

private:
  mlir::Block *entry;
  mlir::Value frame;
  mlir::Location loc;
  bool takesBuffers;
  llvm::SmallVector<int64_t> taken;
  mlir::Operation *last = nullptr; // of what was emitted at the start
  std::map<unsigned, mlir::Value> fields;
  std::map<int64_t, mlir::Value> dims;
  std::map<int64_t, mlir::Value> pointers;
  std::map<std::pair<int64_t, void *>, mlir::Value> buffers;
  llvm::DenseMap<mlir::AffineExpr, mlir::Value> sizes;
};

/// memref<?xT> over memory that begins at a pointer.
mlir::Value memrefOf(mlir::OpBuilder &b, mlir::Location loc, mlir::Value pointer, mlir::Type elementType);

class KernelEmitter {
public:
  KernelEmitter(dl::FusedOp kernel, const CpuInfo &cpu);

  unsigned launchCount() const { return convolution ? ask([](auto &engine) { return engine.launchCount(); }) : gemm ? gemm->launchCount() : 1; }
  int64_t scratchBytes() const;
  /// How a product is computed, in words; empty for others.
  std::string describe() const { return convolution ? ask([](auto &engine) { return engine.describe(); }) : gemm ? gemm->describe() : std::string(); }
  /// Memory in the arena beside operands and results.
  Workspace workspace() const;
  /// So many launches, the first ones, run once for the operation that keeps what they write: before a loop around the kernel, or, if it is the function, when a variable has changed
  /// since a call.
  unsigned launchesOnce() const { return convolution ? ask([](auto &engine) { return engine.launchesOnce(); }) : gemm ? gemm->launchesOnce() : 0; }
  mlir::Operation *keeperOfLaunchesOnce() const { return launchesOnce() ? keeper : nullptr; }
  /// Number of tasks of a launch, an index.
  mlir::Value tasks(unsigned launch, mlir::OpBuilder &b, FrameAccess &frame) const;
  /// So many tasks of the last launch, next to each other, had better be run by one call; 0: any number.
  unsigned tasksTogether() const { return convolution ? ask([](auto &engine) { return engine.tasksTogether(); }) : gemm ? gemm->tasksTogether() : 0; }
  /// Tasks begin to end - 1 (index values). `scratch` is a pointer.
  void emit(unsigned launch, mlir::OpBuilder &b, FrameAccess &frame, mlir::Value begin, mlir::Value end, mlir::Value scratch) const;

private:
  /// What the scratch begins with: the number that the runtime sets to -1 (dl_kernel_fn).
  static constexpr int64_t keptBytes = DL_BUFFER_ALIGNMENT;

  struct Walk;
  /// The matrices of a product.
  dl::MatmulOp product() const { return llvm::cast<dl::MatmulOp>(contraction); }
  /// What a convolution's engine answers.
  template <typename Question> std::invoke_result_t<Question, const Convolution &> ask(Question question) const { return std::visit(question, *convolution); }
  /// May vectors of a convolution's epilogue cross the rows of an image (of a weight: any)?
  bool crossesRows() const;
  /// How many images a convolution has.
  mlir::AffineExpr imageCount() const;
  /// Bytes of a convolution's tables, in the scratch behind the kept number.
  int64_t tableBytes() const;
  /// For what an operand of a product stays the same: the calls of the function, if it is to be kept for them and the function reads it of a variable and changes none; or the turns of the
  /// outermost such loop around the kernel. Null for neither.
  mlir::Operation *keeperOf(mlir::Value operand, bool keepsForCalls) const;
  /// Where an operand of a product lies.
  mlir::Value operandMemory(FrameAccess &frame, mlir::Value operand) const;
  /// The buffer whose number such an attribute is; null for none.
  mlir::Value memoryNamed(FrameAccess &frame, llvm::StringRef attribute, mlir::Type element) const;
  GemmOperands gemmOperands(mlir::OpBuilder &b, FrameAccess &frame) const;
  void emitExtern(mlir::OpBuilder &b, FrameAccess &frame, mlir::Value begin, mlir::Value end) const;
  void emitProduct(unsigned launch, mlir::OpBuilder &b, FrameAccess &frame, mlir::Value begin, mlir::Value end, mlir::Value scratch) const;
  void emitFlat(mlir::OpBuilder &b, FrameAccess &frame, ElementEmitter &elements, mlir::Value begin, mlir::Value end) const;
  void emitWalk(mlir::OpBuilder &b, FrameAccess &frame, ElementEmitter &elements, mlir::Value begin, mlir::Value end) const;
  void emitScatter(mlir::OpBuilder &b, FrameAccess &frame, ElementEmitter &elements, mlir::Value begin, mlir::Value end) const;
  void planScatter();
  int64_t scatterLength() const;
  mlir::AffineExpr unitsOfWork() const;
  int64_t unitsPerTask() const;

  mutable dl::FusedOp kernel;
  CpuInfo cpu;
  mutable mlir::Operation *contraction = nullptr; // a product or convolution
  std::optional<std::variant<Convolution, Winograd, Pointwise>> convolution; // its engine, where it is one
  mutable dl::ExternOp call;    // of a function of the user's own
  std::optional<Gemm> gemm;
  mlir::Operation *keeper = nullptr; // of the product's fixed operand, or the convolution's
  std::optional<Attention> attention;
  mutable dl::ScatterOpInterface scatter; // of updates at places
  int64_t slotRanges = 1;                 // in how many parts the places are dealt out
  llvm::SmallVector<mlir::AffineExpr> full;
  llvm::SmallVector<int64_t> reduced, kept;
  bool flat = false;
  int64_t lanes = 1;
  int64_t segment = 0; // elements along the last axis in one unit of work, where that axis is kept
};

/// Name of the attribute of a kernel that is an extern function: the symbol of its wrapper.
inline constexpr llvm::StringLiteral wrapperAttr = "wrapper";
/// The type of that wrapper.
mlir::FunctionType wrapperType(dl::ExternOp op);

/// Constant sizes as they are, others as if they were large: what helps to choose a vector.
int64_t likelySize(mlir::AffineExpr size);

using Carried = llvm::SmallVector<mlir::Value>;
using VectorBody = llvm::function_ref<Carried(mlir::OpBuilder &, mlir::Value at, mlir::Value mask, mlir::ValueRange carried)>;
/// A loop over [from, to) in vectors; the last, shorter one is masked. Carries values along.
Carried vectorLoop(mlir::OpBuilder &b, mlir::Location loc, ElementEmitter &elements, mlir::Value from, mlir::Value to, int64_t lanes, bool divides, mlir::ValueRange carried,
                   VectorBody body);

/// Emits a check of indices: one task, which reports the first bad element. `fault` is the fault's number, from 1.
void emitIndexCheck(dl::CheckIndexOp check, int64_t fault, mlir::OpBuilder &b, FrameAccess &frame);

} // namespace dlc::cpu

#endif
