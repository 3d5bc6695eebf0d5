//===- Compiled.h - dl programs, compiled and run in the test's process -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A model made in memory goes through the whole compiler (lowerToLlvm, emission, link) into a library in a temporary file, which the runtime opens. Arguments and
// results end where an inaccessible page begins: an access beyond them ends the test. A GPU is the stand-in (test/standin): what it reports of a call is that call's
// error, and what it reports when the instance goes, as leaks, fails the test.

#ifndef DLC_TEST_CONFORMANCE_COMPILED_H
#define DLC_TEST_CONFORMANCE_COMPILED_H

#include "compiler/lowering/cuda/CudaTarget.h"
#include "dlrt/dlrt.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OwningOpRef.h"
#include "test/conformance/Reference.h"
#include <functional>
#include <memory>

namespace dlc::test {

/// One context with all that a compilation needs; diagnostics are kept, not printed.
mlir::MLIRContext &testContext();
/// What was reported since the last call.
std::string takeDiagnostics();

/// What programs are compiled for, and run on.
struct TestTarget {
  std::string name;
  /// The processor's level. That of a GPU's program has code of the processor for initial values only.
  std::string march;
  std::optional<cuda::CudaOptions> cuda = std::nullopt;
};
/// The levels of x86-64 that this machine runs: x86-64-v3, and x86-64-v4 where it has AVX-512.
const std::vector<TestTarget> &processorsUnderTest();
/// A GPU, with cuBLASLt's products and then with our own. None where the stand-in is not built.
const std::vector<TestTarget> &gpusUnderTest();

using BuildFunction = std::function<llvm::SmallVector<mlir::Value>(mlir::OpBuilder &, mlir::ValueRange arguments)>;

/// A model under construction, in a module of its own.
class ModelBuilder {
public:
  /// Symbol k of every size is dimension dims[k].
  explicit ModelBuilder(llvm::ArrayRef<llvm::StringRef> dims);
  void addVariable(llvm::StringRef name, mlir::Type type);
  /// A function whose results are what `build` returns.
  dl::FuncOp addFunction(llvm::StringRef name, llvm::ArrayRef<mlir::Type> arguments, const BuildFunction &build);
  mlir::ModuleOp getModule() { return *module; }
  dl::ModelOp getModel() { return model; }
  dl::FuncOp getFunction(llvm::StringRef name);
  mlir::MLIRContext *getContext() { return module->getContext(); }
  /// What the passes see after --dl-simplify and --dl-differentiate, to be read by Reference: a copy.
  mlir::OwningOpRef<mlir::ModuleOp> differentiated();

private:
  mlir::OwningOpRef<mlir::ModuleOp> module;
  dl::ModelOp model;
};
dl::FuncOp findFunction(mlir::ModuleOp module, llvm::StringRef name);

/// A compiled model with one instance.
class Compiled {
public:
  /// Null, with the reason in `error`, where it does not compile. The module stays as it is.
  static std::unique_ptr<Compiled> make(mlir::ModuleOp module, const TestTarget &target, std::string &error, unsigned threads = 1);
  ~Compiled();
  /// Calls a function; `error` says why it failed.
  std::vector<Array> call(llvm::StringRef function, llvm::ArrayRef<Array> arguments, std::string &error);
  void write(llvm::StringRef variable, const Array &array);
  Array read(llvm::StringRef variable, const Array &like);
  /// Whether a GPU's cuBLASLt is asked for products.
  bool hasProducts() const { return products; }

private:
  Compiled() = default;
  bool products = false;
  dlrt_model *model = nullptr;
  dlrt_instance *instance = nullptr;
};

/// The bits of an array as they lie in memory, and back.
std::vector<char> toBytes(const Array &array);
void fromBytes(Array &array, const char *bytes);

/// Empty if `actual` is `expected` to within `tolerance` * (scale + |expected|), element by element; NaN equals NaN. Else says what differs first.
std::string difference(const Array &actual, const Array &expected, double tolerance, double scale);

} // namespace dlc::test

#endif
