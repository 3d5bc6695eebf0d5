//===- KernelJit.h - runs emitted kernels in the test's own process -*- C++
//-*-===//
//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef DLC_TEST_UNIT_KERNELJIT_H
#define DLC_TEST_UNIT_KERNELJIT_H

#include "compiler/lowering/cpu/CpuInfo.h"
#include "compiler/lowering/cpu/Gemm.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/IR/OwningOpRef.h"
#include "llvm/ExecutionEngine/Orc/LLJIT.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace dlc::test {

/// A context with the dialects that kernels are made of and their translation to LLVM IR.
std::unique_ptr<mlir::MLIRContext> makeContext();

/// The names to compile for: LLVM's name of the processor and its feature string. "native" stands
/// for this machine.
struct Machine {
  std::string cpu, features;
  cpu::CpuInfo info() const;
  static Machine native();
  /// Whether this machine can run code for `cpu`, one of the x86-64 levels.
  static bool runs(llvm::StringRef cpu);
};

/// A compiled module.
class Jit {
public:
  /// Lowers `module` to machine code at -O3. Exits the process with a message if that fails: a test
  /// cannot go on.
  Jit(mlir::ModuleOp module, const Machine &machine);
  void *lookup(const std::string &name);

  double compileMs = 0; ///< processor time of lowering, optimization and code generation
  size_t objectBytes = 0, textBytes = 0;

private:
  std::unique_ptr<llvm::orc::LLJIT> jit;
};

/// What a product's kernels receive as their frame.
struct GemmFrame {
  const void *lhs, *rhs;
  void *out;
  void *workspace;
  int64_t m, n, k, batch, lhsBatchStride, rhsBatchStride;
  const void *bias;
  void *panels;
};

/// One product as functions of the kernel signature.
struct GemmFunctions {
  using Kernel = void (*)(const GemmFrame *, int64_t begin, int64_t end, void *scratch);
  std::vector<Kernel> kernels;
  std::vector<int64_t (*)(const GemmFrame *)> tasks;
  int64_t scratchBytes = 0;
  int64_t workspaceElements(const GemmFrame &frame) const { return evaluate(workspace, frame); }
  int64_t panelElements(const GemmFrame &frame) const { return evaluate(panels, frame); }
  static int64_t evaluate(mlir::AffineExpr elements, const GemmFrame &frame);
  mlir::AffineExpr workspace, panels;
  std::string description;
  cpu::GemmShape shape;
  unsigned launchesOnce = 0, tasksTogether = 0;

  /// Runs the kernels of all launches from `first` on, on `threads` threads, each with one contiguous
  /// range of the tasks.
  void run(const GemmFrame &frame, unsigned threads, std::vector<void *> &scratch,
           unsigned first = 0) const;
};

enum class Tail { Store, BiasRelu };

/// Emits products into one module and compiles them together.
class GemmBuilder {
public:
  GemmBuilder(mlir::MLIRContext &context, const Machine &machine);
  ~GemmBuilder();
  /// Returns the index of the product.
  unsigned add(const cpu::GemmShape &shape, Tail tail = Tail::Store);
  void compile();
  const GemmFunctions &operator[](unsigned i) const { return products[i]; }
  Jit &code() { return *jit; }
  mlir::ModuleOp getModule() { return *module; }

private:
  Machine machine;
  cpu::CpuInfo info;
  mlir::OwningOpRef<mlir::ModuleOp> module;
  std::unique_ptr<Jit> jit;
  std::vector<GemmFunctions> products;
};

} // namespace dlc::test

#endif // DLC_TEST_UNIT_KERNELJIT_H
