//===- ModelDescription.cpp - what the runtime is told about a model -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "ModelDescription.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/Twine.h"
#include "llvm/Support/ErrorHandling.h"
#include "llvm/Support/MathExtras.h"
#include <cstddef>
#include <cstring>
#include <map>

using namespace llvm;

namespace dlc {

//===----------------------------------------------------------------------===//
// Sizes
//===----------------------------------------------------------------------===//

Size::Size(mlir::AffineExpr expression) {
  assert(expression && expression.isSymbolicOrConstant() && "sizes depend on symbols only");
  append(expression);
}

Size Size::dim(unsigned index) {
  Size size;
  size.code = {DL_SIZE_DIM, static_cast<int64_t>(index)};
  return size;
}

void Size::append(mlir::AffineExpr expression) {
  if (auto constant = dyn_cast<mlir::AffineConstantExpr>(expression)) {
    code.append({DL_SIZE_CONST, constant.getValue()});
    return;
  }
  if (auto symbol = dyn_cast<mlir::AffineSymbolExpr>(expression)) {
    code.append({DL_SIZE_DIM, static_cast<int64_t>(symbol.getPosition())});
    return;
  }
  auto binary = cast<mlir::AffineBinaryOpExpr>(expression);
  append(binary.getLHS());
  append(binary.getRHS());
  switch (binary.getKind()) {
  case mlir::AffineExprKind::Add:
    code.push_back(DL_SIZE_ADD);
    return;
  case mlir::AffineExprKind::Mul:
    code.push_back(DL_SIZE_MUL);
    return;
  case mlir::AffineExprKind::FloorDiv:
    code.push_back(DL_SIZE_FLOORDIV);
    return;
  case mlir::AffineExprKind::CeilDiv:
    code.push_back(DL_SIZE_CEILDIV);
    return;
  case mlir::AffineExprKind::Mod:
    code.push_back(DL_SIZE_MOD);
    return;
  default:
    llvm_unreachable("sizes depend on symbols only");
  }
}

Size Size::binary(const Size &other, dl_size_op op) const {
  Size size = *this;
  size.code.append(other.code.begin(), other.code.end());
  size.code.push_back(op);
  return size;
}

Size Size::negated() const {
  Size size = *this;
  size.code.push_back(DL_SIZE_NOT);
  return size;
}

std::optional<int64_t> Size::asConstant() const {
  if (code.size() == 2 && code[0] == DL_SIZE_CONST)
    return code[1];
  return std::nullopt;
}

std::optional<int64_t> Size::evaluate(ArrayRef<int64_t> dims) const {
  SmallVector<int64_t> stack;
  for (size_t i = 0; i < code.size(); ++i) {
    if (code[i] == DL_SIZE_CONST || code[i] == DL_SIZE_DIM) {
      int64_t operand = code[i + 1];
      stack.push_back(code[i] == DL_SIZE_CONST ? operand : dims[operand]);
      ++i;
      continue;
    }
    if (code[i] == DL_SIZE_NOT) {
      stack.back() = !stack.back();
      continue;
    }
    int64_t rhs = stack.pop_back_val(), lhs = stack.back(), &result = stack.back();
    bool divides =
        code[i] == DL_SIZE_FLOORDIV || code[i] == DL_SIZE_CEILDIV || code[i] == DL_SIZE_MOD;
    if (divides && (rhs == 0 || (lhs == INT64_MIN && rhs == -1)))
      return std::nullopt;
    switch (code[i]) {
    case DL_SIZE_ADD:
      if (AddOverflow(lhs, rhs, result))
        return std::nullopt;
      break;
    case DL_SIZE_MUL:
      if (MulOverflow(lhs, rhs, result))
        return std::nullopt;
      break;
    case DL_SIZE_FLOORDIV:
      result = divideFloorSigned(lhs, rhs);
      break;
    case DL_SIZE_CEILDIV:
      result = divideCeilSigned(lhs, rhs);
      break;
    case DL_SIZE_MOD:
      result = lhs - rhs * divideFloorSigned(lhs, rhs);
      break;
    case DL_SIZE_EQ:
      result = lhs == rhs;
      break;
    case DL_SIZE_NE:
      result = lhs != rhs;
      break;
    case DL_SIZE_LT:
      result = lhs < rhs;
      break;
    case DL_SIZE_LE:
      result = lhs <= rhs;
      break;
    case DL_SIZE_AND:
      result = lhs && rhs;
      break;
    case DL_SIZE_OR:
      result = lhs || rhs;
      break;
    default:
      llvm_unreachable("unknown opcode in a size");
    }
  }
  return stack.back();
}

void Size::collectDims(std::vector<bool> &used) const {
  for (size_t i = 0; i < code.size(); ++i) {
    if (code[i] == DL_SIZE_DIM) {
      size_t dim = code[++i];
      if (dim >= used.size())
        used.resize(dim + 1);
      used[dim] = true;
    } else if (code[i] == DL_SIZE_CONST) {
      ++i;
    }
  }
}

std::string Size::toC(ArrayRef<std::string> dimNames) const {
  std::vector<std::string> stack;
  auto binary = [&](StringRef format) {
    std::string rhs = std::move(stack.back());
    stack.pop_back();
    std::string lhs = std::move(stack.back());
    std::string text;
    for (char c : format)
      text += c == 'a' ? lhs : c == 'b' ? rhs : std::string(1, c);
    stack.back() = "(" + text + ")";
  };
  for (size_t i = 0; i < code.size(); ++i) {
    switch (code[i]) {
    case DL_SIZE_CONST: {
      int64_t value = code[++i];
      // INT64_MIN has no literal; sizes never reach it.
      stack.push_back(value < 0 ? "(" + std::to_string(value) + ")" : std::to_string(value));
      break;
    }
    case DL_SIZE_DIM:
      stack.push_back(dimNames[code[++i]]);
      break;
    case DL_SIZE_ADD:
      binary("a + b");
      break;
    case DL_SIZE_MUL:
      binary("a * b");
      break;
    case DL_SIZE_FLOORDIV: // of a negative number C rounds up
      binary("a / b - (a % b != 0 && (a % b < 0) != (b < 0))");
      break;
    case DL_SIZE_CEILDIV:
      binary("a / b + (a % b != 0 && (a % b < 0) == (b < 0))");
      break;
    case DL_SIZE_MOD:
      binary("(a % b + b) % b");
      break;
    case DL_SIZE_EQ:
      binary("a == b");
      break;
    case DL_SIZE_NE:
      binary("a != b");
      break;
    case DL_SIZE_LT:
      binary("a < b");
      break;
    case DL_SIZE_LE:
      binary("a <= b");
      break;
    case DL_SIZE_AND:
      binary("a && b");
      break;
    case DL_SIZE_OR:
      binary("a || b");
      break;
    case DL_SIZE_NOT:
      stack.back() = "!" + stack.back();
      break;
    default:
      llvm_unreachable("unknown opcode in a size");
    }
  }
  assert(stack.size() == 1 && "a size leaves one value");
  return stack.back();
}

//===----------------------------------------------------------------------===//
// Names
//===----------------------------------------------------------------------===//

size_t dtypeBytes(dl_dtype dtype) {
  switch (dtype) {
  case DL_BOOL:
  case DL_U8:
  case DL_I8:
    return 1;
  case DL_I16:
  case DL_F16:
  case DL_BF16:
    return 2;
  case DL_I32:
  case DL_F32:
    return 4;
  case DL_I64:
  case DL_F64:
    return 8;
  case DL_DTYPE_COUNT:
    break;
  }
  llvm_unreachable("unknown dtype");
}

StringRef dtypeName(dl_dtype dtype) {
  static constexpr StringLiteral names[] = {"bool", "u8",  "i8",   "i16", "i32",
                                            "i64",  "f16", "bf16", "f32", "f64"};
  static_assert(std::size(names) == DL_DTYPE_COUNT);
  return names[dtype];
}

void ModelDescription::sortFunctions() {
  std::vector<FunctionDescription> shown, hidden;
  for (FunctionDescription &function : functions)
    (function.isInit() ? hidden : shown).push_back(std::move(function));
  functions = std::move(shown);
  append_range(functions, std::move(hidden));
}

//===----------------------------------------------------------------------===//
// Bytes
//===----------------------------------------------------------------------===//

namespace {

/// Grows the blob at its end; structures are written where there is room already, so offsets are
/// known before contents.
class BlobWriter {
public:
  /// Room for an array, zeroed; its offset, or 0 for an empty one.
  template <typename T> dl_ref reserve(size_t count, size_t alignment = 8) {
    if (count == 0)
      return 0;
    bytes.resize(alignTo(bytes.size(), alignment));
    dl_ref offset = check(bytes.size());
    bytes.resize(bytes.size() + count * sizeof(T));
    return offset;
  }
  template <typename T> void put(dl_ref offset, const T &value) {
    std::memcpy(bytes.data() + offset, &value, sizeof(T));
  }
  dl_ref string(StringRef text) {
    if (text.empty())
      return 0;
    auto [entry, inserted] = strings.try_emplace(text, 0);
    if (inserted) {
      entry->second = check(bytes.size());
      bytes.insert(bytes.end(), text.begin(), text.end());
      bytes.push_back('\0');
    }
    return entry->second;
  }
  dl_ref size(const Size &size) {
    std::vector<int64_t> code(size.getCode().begin(), size.getCode().end());
    auto [entry, inserted] = sizes.try_emplace(code, 0);
    if (inserted) {
      entry->second = reserve<char>(offsetof(dl_size, code) + code.size() * sizeof(int64_t));
      put(entry->second, static_cast<uint32_t>(code.size()));
      std::memcpy(bytes.data() + entry->second + offsetof(dl_size, code), code.data(),
                  code.size() * sizeof(int64_t));
    }
    return entry->second;
  }
  dl_ref check(size_t offset) {
    tooLarge |= offset > UINT32_MAX;
    return static_cast<dl_ref>(offset);
  }

  std::vector<char> bytes;
  bool tooLarge = false;

private:
  StringMap<dl_ref> strings;
  std::map<std::vector<int64_t>, dl_ref> sizes;
};

Error broken(const ModelDescription &model, const Twine &what) {
  return createStringError("internal compiler error: the description of model '" + model.name +
                           "' " + what.str());
}

Error verifySize(const ModelDescription &model, const Size &size) {
  std::vector<bool> used;
  size.collectDims(used);
  if (used.size() > model.dims.size())
    return broken(model, "has a size that depends on dimension " + Twine(used.size() - 1) + " of " +
                             Twine(model.dims.size()));
  return Error::success();
}

Error verifyWork(const ModelDescription &model, const std::optional<WorkDescription> &work) {
  if (work)
    for (const Size *size : {&work->operations, &work->readBytes, &work->writtenBytes})
      if (Error error = verifySize(model, *size))
        return error;
  return Error::success();
}

/// The runtime reads no name and no text beyond these.
constexpr size_t maxNameBytes = 1024, maxTextBytes = 64 << 10;

Error verifyText(const Twine &what, StringRef text, size_t most) {
  if (text.size() > most)
    return createStringError(what + " is " + Twine(text.size()) + " bytes long; at most " +
                             Twine(most) + " are supported");
  return Error::success();
}

Error verifyTexts(const ModelDescription &model) {
  if (Error error = verifyText("the name of model '" + model.name + "'", model.name, maxNameBytes))
    return error;
  if (Error error =
          verifyText("the documentation of model '" + model.name + "'", model.doc, maxTextBytes))
    return error;
  for (const std::string &dim : model.dims)
    if (Error error = verifyText("the name of size '" + dim + "'", dim, maxNameBytes))
      return error;
  for (const VariableDescription &variable : model.variables) {
    if (Error error =
            verifyText("the name of variable '" + variable.name + "'", variable.name, maxNameBytes))
      return error;
    if (Error error = verifyText("the documentation of variable '" + variable.name + "'",
                                 variable.doc, maxTextBytes))
      return error;
  }
  for (const FunctionDescription &function : model.functions) {
    if (Error error =
            verifyText("the name of function '" + function.name + "'", function.name, maxNameBytes))
      return error;
    if (Error error = verifyText("the documentation of function '" + function.name + "'",
                                 function.doc, maxTextBytes))
      return error;
    for (const auto *values : {&function.arguments, &function.results, &function.logValues})
      for (const ValueDescription &value : *values)
        if (Error error =
                verifyText("the name '" + value.name + "' of function '" + function.name + "'",
                           value.name, maxNameBytes))
          return error;
    for (const LogDescription &log : function.logs)
      for (const std::string &words : log.words)
        if (Error error = verifyText("a message of function '" + function.name + "'", words,
                                     maxTextBytes))
          return error;
    for (const CheckDescription &check : function.checks)
      if (Error error = verifyText("a message of function '" + function.name + "'", check.message,
                                   maxTextBytes))
        return error;
    for (const KernelDescription &kernel : function.kernels)
      for (const std::string &text : {kernel.name, kernel.location})
        if (Error error = verifyText("the name of a kernel of function '" + function.name + "'",
                                     text, maxNameBytes))
          return error;
    if (function.cuda)
      for (const CudaLaunchDescription &launch : function.cuda->launches)
        for (const std::string &text : {launch.name, launch.location, launch.symbol})
          if (Error error = verifyText("the name of a kernel of function '" + function.name + "'",
                                       text, maxNameBytes))
            return error;
  }
  for (const FaultDescription &fault : model.faults) {
    if (Error error =
            verifyText("a message of model '" + model.name + "'", fault.message, maxTextBytes))
      return error;
    if (Error error = verifyText("the place of a message", fault.location, maxNameBytes))
      return error;
  }
  return Error::success();
}

Error verifyBuffers(const ModelDescription &model, const FunctionDescription &function,
                    ArrayRef<BufferDescription> buffers) {
  for (auto [number, buffer] : enumerate(buffers)) {
    if (Error error = verifySize(model, buffer.bytes))
      return error;
    size_t count = buffer.kind == DL_BUFFER_ARGUMENT   ? function.arguments.size()
                   : buffer.kind == DL_BUFFER_RESULT
                       ? function.results.size() + function.logValues.size()
                   : buffer.kind == DL_BUFFER_VARIABLE ? model.variables.size()
                   : buffer.kind == DL_BUFFER_CONSTANT ? model.constants.size()
                                                       : SIZE_MAX;
    if (buffer.index >= count)
      return broken(model, "has buffer " + Twine(number) + " of function '" + function.name +
                               "' for number " + Twine(buffer.index) + " of " + Twine(count));
    if (buffer.kind == DL_BUFFER_PREPARED && function.preparationSymbol.empty())
      return broken(model, "has buffer " + Twine(number) + " of function '" + function.name +
                               "' that nothing prepares");
    if (buffer.first > buffer.last)
      return broken(model, "has buffer " + Twine(number) + " of function '" + function.name +
                               "' that dies at launch " + Twine(buffer.last) +
                               " before it is made at " + Twine(buffer.first));
  }
  return Error::success();
}

Error verifyCuda(const ModelDescription &model, const FunctionDescription &function) {
  const CudaFunctionDescription &cuda = *function.cuda;
  if (Error error = verifyBuffers(model, function, cuda.buffers))
    return error;
  auto wrong = [&](const Twine &what) {
    return broken(model, "has in the GPU program of function '" + function.name + "' " + what);
  };
  auto isBuffer = [&](uint32_t number) { return number < cuda.buffers.size(); };
  auto mayBeBuffer = [&](uint32_t number) {
    return number == DL_CUDA_NO_BUFFER || isBuffer(number);
  };
  for (const CudaGemmDescription &gemm : cuda.gemms) {
    if (!isBuffer(gemm.a) || !isBuffer(gemm.b) || !isBuffer(gemm.d) || !mayBeBuffer(gemm.c) ||
        !mayBeBuffer(gemm.alpha) || !mayBeBuffer(gemm.beta) || !mayBeBuffer(gemm.bias) ||
        !mayBeBuffer(gemm.aux))
      return wrong("a product of buffers that are not there");
    for (const Size *size : {&gemm.m, &gemm.n, &gemm.k, &gemm.batch, &gemm.strideA, &gemm.strideB,
                             &gemm.strideC, &gemm.strideD, &gemm.auxLd})
      if (Error error = verifySize(model, *size))
        return error;
  }
  for (const CudaLaunchDescription &launch : cuda.launches) {
    if (Error error = verifyWork(model, launch.work))
      return error;
    if (launch.kind == DL_CUDA_LAUNCH_GEMM) {
      if (launch.gemm >= cuda.gemms.size())
        return wrong("a launch of product " + Twine(launch.gemm) + " of " +
                     Twine(cuda.gemms.size()));
      continue;
    }
    if (launch.kind == DL_CUDA_LAUNCH_FOR || launch.kind == DL_CUDA_LAUNCH_IF) {
      for (const Size &size : launch.grid)
        if (Error error = verifySize(model, size))
          return error;
      for (const CudaParameter &parameter : launch.parameters)
        if (!mayBeBuffer(parameter.buffer))
          return wrong("a loop or branch with buffers that are not there");
      continue;
    }
    if (!model.cuda || none_of(model.cuda->kernels, [&](const CudaKernelDescription &kernel) {
          return kernel.symbol == launch.symbol;
        }))
      return wrong("a launch of '" + launch.symbol + "', which is no kernel");
    for (const Size &size : launch.grid)
      if (Error error = verifySize(model, size))
        return error;
    for (const CudaParameter &parameter : launch.parameters) {
      if (parameter.kind == DL_CUDA_BUFFER && !isBuffer(parameter.buffer))
        return wrong("a launch of '" + launch.symbol + "' with buffer " +
                     Twine(parameter.buffer) + " of " + Twine(cuda.buffers.size()));
      if (Error error = verifySize(model, parameter.size))
        return error;
    }
  }
  return Error::success();
}

Error verify(const ModelDescription &model) {
  if (model.name.empty())
    return broken(model, "has no name");
  if (Error error = verifyTexts(model))
    return error;
  if (model.dims.size() > DL_MAX_DIMS)
    return createStringError("model '" + model.name + "' has " + Twine(model.dims.size()) +
                             " sizes left to the call; at most " + Twine(DL_MAX_DIMS) +
                             " are supported");
  for (const VariableDescription &variable : model.variables)
    if (variable.dims.size() > DL_MAX_RANK)
      return createStringError("variable '" + variable.name + "' has rank " +
                               Twine(variable.dims.size()) + "; at most " + Twine(DL_MAX_RANK) +
                               " is supported");
  for (const FunctionDescription &function : model.functions) {
    for (const auto *values : {&function.arguments, &function.results, &function.logValues})
      for (const ValueDescription &value : *values) {
        if (value.dims.size() > DL_MAX_RANK)
          return createStringError("'" + value.name + "' of function '" + function.name +
                                   "' has rank " + Twine(value.dims.size()) + "; at most " +
                                   Twine(DL_MAX_RANK) + " is supported");
        for (const Size &dim : value.dims)
          if (Error error = verifySize(model, dim))
            return error;
      }
    if (Error error = verifyBuffers(model, function, function.buffers))
      return error;
    for (const KernelDescription &kernel : function.kernels)
      if (Error error = verifyWork(model, kernel.work))
        return error;
    if (function.cuda)
      if (Error error = verifyCuda(model, function))
        return error;
    for (const CheckDescription &check : function.checks)
      if (Error error = verifySize(model, check.condition))
        return error;
  }
  return Error::success();
}

dl_ref writeValues(BlobWriter &writer, ArrayRef<ValueDescription> values) {
  dl_ref array = writer.reserve<dl_value_desc>(values.size());
  for (auto [i, value] : enumerate(values)) {
    dl_value_desc desc = {};
    desc.name = writer.string(value.name);
    desc.dtype = value.dtype;
    desc.rank = value.dims.size();
    desc.has_default = value.hasDefault;
    desc.default_value = value.defaultValue;
    desc.dim = value.dim ? *value.dim + 1 : 0;
    desc.dims = writer.reserve<dl_ref>(value.dims.size());
    for (auto [k, dim] : enumerate(value.dims))
      writer.put(desc.dims + k * sizeof(dl_ref), writer.size(dim));
    writer.put(array + i * sizeof(desc), desc);
  }
  return array;
}

dl_ref writeWork(BlobWriter &writer, const std::optional<WorkDescription> &work) {
  if (!work)
    return 0;
  dl_work_desc desc = {};
  desc.operations = writer.size(work->operations);
  desc.read_bytes = writer.size(work->readBytes);
  desc.written_bytes = writer.size(work->writtenBytes);
  desc.dtype = work->dtype;
  dl_ref place = writer.reserve<dl_work_desc>(1);
  writer.put(place, desc);
  return place;
}

void writeCudaLaunches(BlobWriter &writer, const ModelDescription &model,
                       const CudaFunctionDescription &from, dl_cuda_function_desc &to) {
  to.gemm_count = from.gemms.size();
  to.gemms = writer.reserve<dl_cuda_gemm_desc>(from.gemms.size());
  for (auto [i, gemm] : enumerate(from.gemms)) {
    dl_cuda_gemm_desc desc = {};
    desc.dtype = gemm.dtype;
    desc.tf32 = gemm.tf32;
    desc.transpose_a = gemm.transposeA;
    desc.transpose_b = gemm.transposeB;
    desc.epilogue = gemm.epilogue;
    desc.m = writer.size(gemm.m);
    desc.n = writer.size(gemm.n);
    desc.k = writer.size(gemm.k);
    desc.batch = writer.size(gemm.batch);
    desc.a = gemm.a;
    desc.b = gemm.b;
    desc.c = gemm.c;
    desc.d = gemm.d;
    desc.stride_a = writer.size(gemm.strideA);
    desc.stride_b = writer.size(gemm.strideB);
    desc.stride_c = writer.size(gemm.strideC);
    desc.stride_d = writer.size(gemm.strideD);
    desc.alpha = gemm.alpha;
    desc.beta = gemm.beta;
    desc.bias = gemm.bias;
    desc.aux = gemm.aux;
    if (gemm.aux != DL_CUDA_NO_BUFFER)
      desc.aux_ld = writer.size(gemm.auxLd);
    writer.put(to.gemms + i * sizeof(desc), desc);
  }
  to.launch_count = from.launches.size();
  to.launches = writer.reserve<dl_cuda_launch_desc>(from.launches.size());
  for (auto [i, launch] : enumerate(from.launches)) {
    dl_cuda_launch_desc desc = {};
    desc.kind = launch.kind;
    desc.when = launch.when;
    desc.name = writer.string(launch.name);
    desc.location = writer.string(launch.location);
    bool isControl = launch.kind == DL_CUDA_LAUNCH_FOR || launch.kind == DL_CUDA_LAUNCH_IF;
    desc.other = launch.other;
    desc.work = writeWork(writer, launch.work);
    if (launch.kind == DL_CUDA_LAUNCH_GEMM) {
      desc.index = launch.gemm;
    } else if (isControl) {
      desc.index = launch.inner;
      if (launch.kind == DL_CUDA_LAUNCH_FOR) {
        desc.grid[0] = writer.size(launch.grid[0]);
        if (!launch.isEndless)
          desc.grid[1] = writer.size(launch.grid[1]);
      }
    } else {
      desc.index = find_if(model.cuda->kernels,
                           [&](const CudaKernelDescription &kernel) {
                             return kernel.symbol == launch.symbol;
                           }) -
                   model.cuda->kernels.begin();
      for (auto [axis, blocks] : enumerate(launch.grid))
        desc.grid[axis] = writer.size(blocks);
    }
    if (launch.kind != DL_CUDA_LAUNCH_GEMM) {
      desc.parameter_count = launch.parameters.size();
      desc.parameters = writer.reserve<dl_cuda_parameter>(launch.parameters.size());
      for (auto [k, parameter] : enumerate(launch.parameters)) {
        dl_cuda_parameter parameterDesc = {parameter.kind, parameter.buffer};
        if (parameter.kind == DL_CUDA_SIZE)
          parameterDesc.value = writer.size(parameter.size);
        writer.put(desc.parameters + k * sizeof(parameterDesc), parameterDesc);
      }
    }
    writer.put(to.launches + i * sizeof(desc), desc);
  }
}

dl_ref writeCuda(BlobWriter &writer, const CudaDescription &from) {
  dl_cuda_desc to = {};
  to.kernel_count = from.kernels.size();
  to.kernels = writer.reserve<dl_cuda_kernel_desc>(from.kernels.size());
  for (auto [i, kernel] : enumerate(from.kernels)) {
    dl_cuda_kernel_desc desc = {};
    desc.symbol = writer.string(kernel.symbol);
    desc.threads = kernel.threads;
    desc.shared_bytes = kernel.sharedBytes;
    desc.resource_count = kernel.resources.size();
    desc.resources = writer.reserve<dl_cuda_resources>(kernel.resources.size());
    for (auto [k, resources] : enumerate(kernel.resources))
      writer.put(desc.resources + k * sizeof(resources), resources);
    writer.put(to.kernels + i * sizeof(desc), desc);
  }
  to.image_count = from.images.size();
  to.images = writer.reserve<dl_cuda_image>(from.images.size());
  for (auto [i, image] : enumerate(from.images)) {
    dl_cuda_image desc = {};
    desc.kind = image.kind;
    desc.arch = image.arch;
    desc.bytes = image.bytes.size() + (image.kind == DL_CUDA_PTX);
    desc.data = writer.reserve<char>(desc.bytes);
    std::memcpy(writer.bytes.data() + desc.data, image.bytes.data(), image.bytes.size());
    writer.put(to.images + i * sizeof(desc), desc);
  }
  dl_ref offset = writer.reserve<dl_cuda_desc>(1);
  writer.put(offset, to);
  return offset;
}

dl_ref writeLogs(BlobWriter &writer, const FunctionDescription &function) {
  if (function.logs.empty())
    return 0;
  dl_log_table table = {};
  table.value_count = function.logValues.size();
  table.line_count = function.logs.size();
  table.lines = writer.reserve<dl_log_line>(function.logs.size());
  for (auto [i, log] : enumerate(function.logs)) {
    dl_log_line line = {};
    line.value_count = log.words.size() - 1;
    line.words = writer.reserve<dl_ref>(log.words.size());
    for (auto [k, words] : enumerate(log.words))
      writer.put(line.words + k * sizeof(dl_ref), writer.string(words));
    line.kept = log.kept;
    if (log.kept)
      line.types = writeValues(writer, log.types);
    writer.put(table.lines + i * sizeof(line), line);
  }
  dl_ref offset = writer.reserve<dl_log_table>(1);
  writer.put(offset, table);
  return offset;
}

} // namespace

Expected<Blob> serialize(const ModelDescription &model) {
  if (Error error = verify(model))
    return std::move(error);

  BlobWriter writer;
  writer.reserve<dl_blob>(1); // at 0
  dl_blob blob = {};
  std::memcpy(blob.magic, DL_BLOB_MAGIC, sizeof(blob.magic));
  blob.abi_version = DL_ABI_VERSION;
  blob.name = writer.string(model.name);
  blob.doc = writer.string(model.doc);
  blob.compiler = writer.string(model.compiler);
  blob.triple = writer.string(model.triple);
  blob.cpu = writer.string(model.cpu);
  blob.features = writer.string(model.features);
  blob.query = writer.string(model.querySymbol());

  blob.dim_count = model.dims.size();
  blob.dims = writer.reserve<dl_ref>(model.dims.size());
  for (auto [i, name] : enumerate(model.dims))
    writer.put(blob.dims + i * sizeof(dl_ref), writer.string(name));

  blob.variable_count = model.variables.size();
  blob.variables = writer.reserve<dl_variable_desc>(model.variables.size());
  for (auto [i, variable] : enumerate(model.variables)) {
    dl_variable_desc desc = {};
    desc.name = writer.string(variable.name);
    desc.doc = writer.string(variable.doc);
    desc.dtype = variable.dtype;
    desc.rank = variable.dims.size();
    desc.kind = variable.kind;
    int64_t bytes = dtypeBytes(variable.dtype);
    desc.dims = writer.reserve<int64_t>(variable.dims.size());
    for (auto [k, dim] : enumerate(variable.dims)) {
      if (dim < 0 || MulOverflow(bytes, dim, bytes))
        return createStringError("variable '" + variable.name +
                                 "' is too large: its bytes exceed 64 bits");
      writer.put(desc.dims + k * sizeof(int64_t), dim);
    }
    desc.bytes = bytes;
    writer.put(blob.variables + i * sizeof(desc), desc);
  }

  blob.fault_count = model.faults.size();
  blob.faults = writer.reserve<dl_fault_desc>(model.faults.size());
  for (auto [i, fault] : enumerate(model.faults)) {
    dl_fault_desc desc = {writer.string(fault.message), writer.string(fault.location)};
    writer.put(blob.faults + i * sizeof(desc), desc);
  }

  // Constants come last; what refers to them is remembered until their places are known.
  struct Patch {
    dl_ref where;
    uint32_t constant;
  };
  std::vector<Patch> patches;

  auto writeBuffers = [&](ArrayRef<BufferDescription> buffers) {
    dl_ref array = writer.reserve<dl_buffer_desc>(buffers.size());
    for (auto [k, buffer] : enumerate(buffers)) {
      dl_buffer_desc bufferDesc = {};
      bufferDesc.kind = buffer.kind;
      bufferDesc.index = buffer.index;
      bufferDesc.bytes = writer.size(buffer.bytes);
      bufferDesc.first = buffer.first;
      bufferDesc.last = buffer.last;
      dl_ref where = array + k * sizeof(bufferDesc);
      if (buffer.kind == DL_BUFFER_CONSTANT)
        patches.push_back(
            {where + static_cast<dl_ref>(offsetof(dl_buffer_desc, index)), buffer.index});
      writer.put(where, bufferDesc);
    }
    return array;
  };

  blob.function_count = model.functions.size();
  blob.functions = writer.reserve<dl_function_desc>(model.functions.size());
  for (auto [i, function] : enumerate(model.functions)) {
    dl_function_desc desc = {};
    desc.name = writer.string(function.name);
    desc.doc = writer.string(function.doc);
    desc.flags = function.flags;
    desc.argument_count = function.arguments.size();
    desc.arguments = writeValues(writer, function.arguments);
    std::vector<ValueDescription> results = function.results;
    results.insert(results.end(), function.logValues.begin(), function.logValues.end());
    desc.result_count = results.size();
    desc.results = writeValues(writer, results);
    desc.logs = writeLogs(writer, function);

    desc.buffer_count = function.buffers.size();
    desc.buffers = writeBuffers(function.buffers);

    desc.check_count = function.checks.size();
    desc.checks = writer.reserve<dl_check_desc>(function.checks.size());
    for (auto [k, check] : enumerate(function.checks)) {
      dl_check_desc checkDesc = {writer.size(check.condition), writer.string(check.message)};
      writer.put(desc.checks + k * sizeof(checkDesc), checkDesc);
    }

    desc.kernel_count = function.kernels.size();
    desc.kernels = writer.reserve<dl_kernel_desc>(function.kernels.size());
    for (auto [k, kernel] : enumerate(function.kernels)) {
      dl_kernel_desc kernelDesc = {};
      kernelDesc.name = writer.string(kernel.name);
      kernelDesc.location = writer.string(kernel.location);
      kernelDesc.work = writeWork(writer, kernel.work);
      kernelDesc.together = kernel.together;
      writer.put(desc.kernels + k * sizeof(kernelDesc), kernelDesc);
    }
    desc.launch_count = function.launchCount;
    desc.scratch_bytes = function.scratchBytes;
    if (function.cuda) {
      dl_cuda_function_desc cuda = {};
      cuda.buffer_count = function.cuda->buffers.size();
      cuda.buffers = writeBuffers(function.cuda->buffers);
      writeCudaLaunches(writer, model, *function.cuda, cuda);
      desc.cuda = writer.reserve<dl_cuda_function_desc>(1);
      writer.put(desc.cuda, cuda);
    }
    writer.put(blob.functions + i * sizeof(desc), desc);
  }

  if (model.cuda)
    blob.cuda = writeCuda(writer, *model.cuda);
  if (any_of(model.functions, [](const FunctionDescription &function) {
        return function.entrySymbol.empty() && !function.isInit();
      }))
    blob.flags |= DL_BLOB_WITHOUT_CPU;

  Blob result;
  std::vector<dl_ref> places;
  for (const std::vector<char> &constant : model.constants) {
    result.alignment = DL_BUFFER_ALIGNMENT;
    // One byte at least, so that an empty constant has a place of its own.
    dl_ref place = writer.reserve<char>(std::max<size_t>(1, constant.size()), DL_BUFFER_ALIGNMENT);
    if (!constant.empty())
      std::memcpy(writer.bytes.data() + place, constant.data(), constant.size());
    places.push_back(place);
  }
  for (const Patch &patch : patches)
    writer.put(patch.where, places[patch.constant]);

  writer.bytes.resize(alignTo(writer.bytes.size(), 8));
  blob.blob_bytes = writer.check(writer.bytes.size());
  if (writer.tooLarge)
    return createStringError(
        "model '" + model.name + "' is too large: its description and constants take " +
        Twine(writer.bytes.size()) + " bytes, at most " + Twine(UINT32_MAX) + " are supported");
  writer.put(0, blob);
  result.bytes = std::move(writer.bytes);
  return result;
}

} // namespace dlc
