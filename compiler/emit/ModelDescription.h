//===- ModelDescription.h - what the runtime is told about a model -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// The C++ twin of dl_blob (dlrt/model_abi.h): the compiler fills it, serialize() writes the bytes.
// The same description gives the same bytes.
//
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_EMIT_MODELDESCRIPTION_H
#define DLC_COMPILER_EMIT_MODELDESCRIPTION_H

#include "dlrt/model_abi.h"
#include "mlir/IR/AffineExpr.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/Support/Error.h"
#include <optional>
#include <string>
#include <vector>

namespace dlc {

/// A size or a condition on sizes as a dl_size program: postfix code over the model's dynamic
/// dimensions.
class Size {
public:
  Size() : Size(0) {}
  Size(int64_t constant) : code{DL_SIZE_CONST, constant} {}
  /// Symbol k is the model's dynamic dimension k. The expression has no dims (d0, d1, ...).
  Size(mlir::AffineExpr expression);
  static Size dim(unsigned index);

  Size operator+(const Size &other) const { return binary(other, DL_SIZE_ADD); }
  Size operator*(const Size &other) const { return binary(other, DL_SIZE_MUL); }
  Size floorDiv(const Size &other) const { return binary(other, DL_SIZE_FLOORDIV); }
  Size ceilDiv(const Size &other) const { return binary(other, DL_SIZE_CEILDIV); }
  Size mod(const Size &other) const { return binary(other, DL_SIZE_MOD); }
  Size equal(const Size &other) const { return binary(other, DL_SIZE_EQ); }
  Size notEqual(const Size &other) const { return binary(other, DL_SIZE_NE); }
  Size less(const Size &other) const { return binary(other, DL_SIZE_LT); }
  Size lessEqual(const Size &other) const { return binary(other, DL_SIZE_LE); }
  Size both(const Size &other) const { return binary(other, DL_SIZE_AND); }
  Size either(const Size &other) const { return binary(other, DL_SIZE_OR); }
  Size negated() const;

  std::optional<int64_t> asConstant() const;
  /// The value for sizes of the dynamic dimensions; none where it overflows or divides by 0.
  std::optional<int64_t> evaluate(llvm::ArrayRef<int64_t> dims) const;
  llvm::ArrayRef<int64_t> getCode() const { return code; }
  /// Adds the dynamic dimensions that the size depends on.
  void collectDims(std::vector<bool> &used) const;
  /// As an expression of C over int64_t; \p dimNames says how each dynamic dimension is called
  /// there.
  std::string toC(llvm::ArrayRef<std::string> dimNames) const;

private:
  Size binary(const Size &other, dl_size_op op) const;
  void append(mlir::AffineExpr expression);
  llvm::SmallVector<int64_t, 4> code;
};

struct VariableDescription {
  std::string name;
  std::string doc;
  dl_dtype dtype = DL_F32;
  dl_variable_kind kind = DL_VARIABLE_TRAINED;
  std::vector<int64_t> dims;
};

/// An argument or a result.
struct ValueDescription {
  std::string name;
  dl_dtype dtype = DL_F32;
  std::vector<Size> dims;
  bool hasDefault = false;
  double defaultValue = 0;
  /// Of an i64 scalar that is the value of a dynamic dimension.
  std::optional<unsigned> dim;
};

struct BufferDescription {
  dl_buffer_kind kind = DL_BUFFER_ARENA;
  /// Of the argument, result or variable; for a constant its number in ModelDescription::constants.
  uint32_t index = 0;
  Size bytes;
  uint32_t first = 0, last = 0;
};

struct CheckDescription {
  Size condition;
  std::string message;
};

/// What one launch of a kernel asks for: dl_work_desc.
struct WorkDescription {
  Size operations, readBytes, writtenBytes;
  dl_dtype dtype = DL_F32;
};

struct KernelDescription {
  std::string name;
  std::string location;
  std::optional<WorkDescription> work;
  uint32_t together = 0; ///< dl_kernel_desc.together
};

//===--- the program for an NVIDIA GPU ---===//

/// What a launch hands to its kernel.
struct CudaParameter {
  dl_cuda_parameter_kind kind = DL_CUDA_BUFFER;
  uint32_t buffer = 0;
  Size size;
  static CudaParameter ofBuffer(uint32_t number) { return {DL_CUDA_BUFFER, number, {}}; }
  static CudaParameter ofSize(Size size) { return {DL_CUDA_SIZE, 0, std::move(size)}; }
  static CudaParameter ofFault() { return {DL_CUDA_FAULT, 0, {}}; }
};

/// A product as cuBLASLt computes it: dl_cuda_gemm_desc, with sizes as expressions.
struct CudaGemmDescription {
  dl_dtype dtype = DL_F32;
  bool tf32 = false, transposeA = false, transposeB = false;
  dl_cuda_epilogue epilogue = DL_CUDA_EPILOGUE_NONE;
  Size m, n, k, batch = 1;
  uint32_t a = 0, b = 0, c = DL_CUDA_NO_BUFFER, d = 0;
  Size strideA, strideB, strideC, strideD;
  uint32_t alpha = DL_CUDA_NO_BUFFER, beta = DL_CUDA_NO_BUFFER;
  uint32_t bias = DL_CUDA_NO_BUFFER, aux = DL_CUDA_NO_BUFFER;
  Size auxLd;
};

struct CudaLaunchDescription {
  dl_cuda_launch_kind kind = DL_CUDA_LAUNCH_KERNEL;
  dl_cuda_when when = DL_CUDA_ALWAYS;
  std::string symbol; // of the kernel
  uint32_t gemm = 0;  // number in CudaFunctionDescription::gemms
  std::string name, location;
  Size grid[3] = {1, 1, 1};
  std::vector<CudaParameter> parameters;
  // Of a loop or branch: how many launches after it are inside, and before which turn a loop ends.
  uint32_t inner = 0, other = 0;
  bool isEndless = false;
  std::optional<WorkDescription> work;
};

struct CudaFunctionDescription {
  std::vector<BufferDescription> buffers;
  std::vector<CudaLaunchDescription> launches;
  std::vector<CudaGemmDescription> gemms;
};

struct CudaKernelDescription {
  std::string symbol;
  uint32_t threads = 0, sharedBytes = 0;
  std::vector<dl_cuda_resources> resources; // of each cubin
};

struct CudaImage {
  dl_cuda_image_kind kind = DL_CUDA_PTX;
  uint32_t arch = 0;
  std::string bytes; // PTX: without its NUL
};

struct CudaDescription {
  std::vector<CudaKernelDescription> kernels;
  std::vector<CudaImage> images; // filled in when code is emitted
};

/// A message of `print`: its values stand between its words.
struct LogDescription {
  std::vector<std::string> words; // one more than values
  /// Of one in branches and loops: how many of them are kept (dl_log_line), and what the values are.
  uint32_t kept = 0;
  std::vector<ValueDescription> types = {};
};

struct FunctionDescription {
  std::string name;
  std::string doc;
  uint32_t flags = 0; // dl_function_flags
  /// The LLVM function of type dl_entry_fn; empty where there is no code for the CPU.
  std::string entrySymbol;
  /// The same of what writes its prepared buffers; empty where there are none.
  std::string preparationSymbol = {};
  std::vector<ValueDescription> arguments, results;
  /// Further results, which are no results for the caller but the values of `logs`, in their order.
  std::vector<ValueDescription> logValues;
  std::vector<LogDescription> logs;
  std::vector<BufferDescription> buffers;
  std::vector<CheckDescription> checks;
  std::vector<KernelDescription> kernels;
  uint32_t launchCount = 0;
  uint64_t scratchBytes = 0;
  std::optional<CudaFunctionDescription> cuda;

  bool isInit() const { return flags & DL_FUNCTION_INIT; }
};

struct FaultDescription {
  std::string message;
  std::string location;
};

/// A function of C++ through which generated code calls one of the user's own. Not part of the
/// artefact's description: it is compiled when code is emitted.
struct ExternWrapper {
  bool isCuda = false;
  std::string file;      // where the function is; the wrapper is compiled with it
  std::string function;  // of the user's
  std::string symbol;    // of the wrapper
  std::string code;      // of the wrapper, with `@` for its symbol
  std::string signature; // what the function is called with: "(const float *, float *, long long)"
  int64_t sharedBytes = 0;
  std::string declaredIn; // where the program declares the function
  unsigned line = 0, column = 0;
};

struct ModelDescription {
  std::string name;
  std::string doc;
  std::string compiler, triple, cpu, features; // filled in when code is emitted
  std::vector<std::string> dims;               // names of the dynamic dimensions
  std::vector<VariableDescription> variables;
  std::vector<FunctionDescription> functions;
  std::vector<FaultDescription> faults;
  std::vector<std::vector<char>> constants;
  std::optional<CudaDescription> cuda;
  std::vector<ExternWrapper> externs;

  std::string querySymbol() const { return name + "_dl_query"; }
  /// Puts what users do not see behind what they see, so that functions are numbered alike for
  /// both.
  void sortFunctions();
};

size_t dtypeBytes(dl_dtype dtype);
llvm::StringRef dtypeName(dl_dtype dtype);

struct Blob {
  std::vector<char> bytes;
  /// What the blob's first byte must be aligned to; its constants lie at multiples of
  /// DL_BUFFER_ALIGNMENT in it.
  uint32_t alignment = 8;
};

/// Fails where the description breaks the ABI's limits or refers to what does not exist: a bug of
/// the compiler, in words.
llvm::Expected<Blob> serialize(const ModelDescription &model);

} // namespace dlc

#endif // DLC_COMPILER_EMIT_MODELDESCRIPTION_H
