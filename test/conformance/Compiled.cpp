//===- Compiled.cpp - dl programs, compiled and run in the test's process -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "test/conformance/Compiled.h"
#include "compiler/Pipeline.h"
#include "compiler/Registration.h"
#include "compiler/emit/EmitCuda.h"
#include "compiler/emit/EmitObject.h"
#include "compiler/emit/LinkModel.h"
#include "compiler/transforms/Passes.h"
#include "mlir/IR/Verifier.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/NVVM/NVVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/Module.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/raw_ostream.h"
#include "llvm/Target/TargetMachine.h"
#include "test/standin/StandIn.h"
#include "gtest/gtest.h"
#include <cmath>
#include <cstring>
#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

using namespace mlir;

namespace dlc::test {

static std::string &diagnostics() {
  static std::string text;
  return text;
}
std::string takeDiagnostics() { return std::exchange(diagnostics(), std::string()); }

MLIRContext &testContext() {
  static MLIRContext *context = [] {
    DialectRegistry registry;
    registerDialects(registry);
    registerBuiltinDialectTranslation(registry);
    registerLLVMDialectTranslation(registry);
    registerNVVMDialectTranslation(registry);
    auto *made = new MLIRContext(registry, MLIRContext::Threading::DISABLED);
    made->loadAllAvailableDialects();
    made->getDiagEngine().registerHandler([](Diagnostic &diagnostic) {
      llvm::raw_string_ostream os(diagnostics());
      auto print = [&](Diagnostic &d) { os << d.getLocation() << ": " << d << "\n"; };
      print(diagnostic);
      for (Diagnostic &note : diagnostic.getNotes())
        print(note);
    });
    return made;
  }();
  return *context;
}

//===--- targets ---===//

const std::vector<TestTarget> &processorsUnderTest() {
  static const std::vector<TestTarget> targets = [] {
    std::vector<TestTarget> list{{"x86-64-v3", "x86-64-v3"}};
    if (__builtin_cpu_supports("x86-64-v4"))
      list.push_back({"x86-64-v4", "x86-64-v4"});
    return list;
  }();
  return targets;
}

const std::vector<TestTarget> &gpusUnderTest() {
  static const std::vector<TestTarget> targets = [] {
    std::vector<TestTarget> list;
#ifdef DLC_TEST_STANDIN
    list.push_back({"cuda", "x86-64-v3", cuda::CudaOptions{cuda::GemmChoice::Cublaslt}});
    list.push_back({"cuda, own products", "x86-64-v3", cuda::CudaOptions{cuda::GemmChoice::Own}});
#endif
    return list;
  }();
  return targets;
}

#ifdef DLC_TEST_STANDIN
static void *openStandin(const char *path) {
  // The loader knows an open library by the name in it: the runtime gets this one when it asks for NVIDIA's.
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library)
    llvm::report_fatal_error(llvm::Twine("the stand-in is not there: ") + dlerror());
  return library;
}
template <typename F> static F *findInStandin(void *library, const char *name) {
  auto *function = reinterpret_cast<F *>(dlsym(library, name));
  if (!function)
    llvm::report_fatal_error(llvm::Twine("the stand-in has no ") + name);
  return function;
}
#endif

/// What the stand-in has reported since the last call.
static std::string takeReports() {
  std::string text;
#ifdef DLC_TEST_STANDIN
  static void *const library = [] {
    void *driver = openStandin(DLC_TEST_STANDIN "/libcuda.so.1");
    openStandin(DLC_TEST_STANDIN "/libcublasLt.so.13");
    return driver;
  }();
  static auto *const count = findInStandin<decltype(standin_report_count)>(library, "standin_report_count");
  static auto *const report = findInStandin<decltype(standin_report)>(library, "standin_report");
  static size_t seen = 0;
  for (size_t total = count(); seen < total; ++seen)
    text += std::string("the stand-in reports ") + report(seen) + "\n";
#endif
  return text;
}

//===--- building ---===//

ModelBuilder::ModelBuilder(ArrayRef<StringRef> dims) {
  MLIRContext *context = &testContext();
  OpBuilder b(context);
  Location loc = UnknownLoc::get(context);
  module = ModuleOp::create(loc);
  b.setInsertionPointToEnd(module->getBody());
  OperationState state(loc, dl::ModelOp::getOperationName());
  state.addAttribute(SymbolTable::getSymbolAttrName(), b.getStringAttr("tested"));
  state.addAttribute("dims", b.getStrArrayAttr(dims));
  state.addRegion()->emplaceBlock();
  model = cast<dl::ModelOp>(b.create(state));
}

void ModelBuilder::addVariable(StringRef name, Type type) {
  // Variables come first.
  OpBuilder b(getContext());
  Block &block = model.getBody().front();
  auto functions = block.getOps<dl::FuncOp>();
  if (functions.empty())
    b.setInsertionPointToEnd(&block);
  else
    b.setInsertionPoint(*functions.begin());
  dl::VariableOp::create(b, UnknownLoc::get(getContext()), name, dl::VariableKind::trained, cast<RankedTensorType>(type), StringAttr());
}

dl::FuncOp ModelBuilder::addFunction(StringRef name, ArrayRef<Type> arguments, const BuildFunction &build) {
  MLIRContext *context = getContext();
  Location loc = NameLoc::get(StringAttr::get(context, name));
  OpBuilder b = OpBuilder::atBlockEnd(&model.getBody().front());
  auto function = dl::FuncOp::create(b, loc, name, b.getFunctionType(arguments, {}));
  Block &block = function.getBody().emplaceBlock();
  for (Type type : arguments)
    block.addArgument(type, loc);
  OpBuilder inner = OpBuilder::atBlockEnd(&block);
  SmallVector<Value> results = build(inner, block.getArguments());
  dl::ReturnOp::create(inner, loc, results);
  // Assignments are what precedes the return.
  function.setFunctionType(b.getFunctionType(arguments, ValueRange(results).getTypes()));
  for (unsigned i = 0; i < arguments.size(); ++i)
    function.setArgAttr(i, "dl.name", b.getStringAttr("x" + Twine(i)));
  for (unsigned i = 0; i < results.size(); ++i)
    function.setResultAttr(i, "dl.name", b.getStringAttr("y" + Twine(i)));
  return function;
}

dl::FuncOp findFunction(ModuleOp module, StringRef name) {
  dl::FuncOp found;
  module.walk([&](dl::FuncOp function) {
    if (function.getSymName() == name)
      found = function;
  });
  return found;
}
dl::FuncOp ModelBuilder::getFunction(StringRef name) { return findFunction(*module, name); }

OwningOpRef<ModuleOp> ModelBuilder::differentiated() {
  OwningOpRef<ModuleOp> copy = module->clone();
  PassManager passes(getContext(), ModuleOp::getOperationName());
  OpPassManager &nested = passes.nest<dl::ModelOp>();
  nested.addPass(createSimplify());
  nested.addPass(createDifferentiate());
  if (failed(passes.run(*copy)))
    return nullptr;
  return copy;
}

//===--- compiling ---===//

/// The library's bytes, or why there are none.
static llvm::Expected<Bytes> compileModule(ModuleOp original, const TestTarget &testTarget, bool &hasProducts) {
  OwningOpRef<ModuleOp> module = original.clone();
  auto failed = [](const char *what) { return llvm::createStringError(std::string(what) + "\n" + takeDiagnostics()); };
  if (mlir::failed(verify(*module)))
    return failed("the program does not verify");
  PipelineOptions options;
  llvm::Expected<Target> target = resolveTarget(testTarget.march);
  if (!target)
    return target.takeError();
  options.target = *target;
  options.optLevel = 1;
  options.cpu = !testTarget.cuda;
  options.cuda = testTarget.cuda;
  ModelDescription description;
  OwningOpRef<ModuleOp> kernels;
  if (mlir::failed(lowerToLlvm(*module, options, description, &kernels)))
    return failed("the program is not lowered");
  if (kernels) {
    // PTX alone: nothing here takes machine code.
    llvm::Expected<CudaTargets> archs = resolveCudaTargets({"sm_80"}, [](const std::string &) {});
    if (!archs)
      return archs.takeError();
    llvm::LLVMContext context;
    std::unique_ptr<llvm::Module> code = translateModuleToLLVMIR(*kernels, context, description.name);
    if (!code)
      return failed("the GPU's kernels do not translate to LLVM");
    if (llvm::Error error = emitPtx(*code, *archs, options.optLevel, *description.cuda))
      return std::move(error);
  }
  for (const FunctionDescription &function : description.functions)
    hasProducts |= function.cuda && !function.cuda->gemms.empty();
  llvm::LLVMContext context;
  std::unique_ptr<llvm::Module> code = translateModuleToLLVMIR(*module, context, description.name);
  if (!code)
    return failed("the lowered program does not translate to LLVM");
  auto machine = createTargetMachine(*target, options.optLevel);
  if (!machine)
    return machine.takeError();
  if (llvm::Error error = addModelData(*code, description, *target))
    return std::move(error);
  optimizeModule(*code, **machine, options.optLevel);
  auto object = emitObject(*code, **machine);
  if (!object)
    return object.takeError();
  std::string query = description.querySymbol();
  return linkSharedLibrary({StringRef(object->data(), object->size()), query, {}});
}

static std::string takeMessage(dlrt_status status) {
  std::string message = dlrt_status_message(status);
  dlrt_status_release(status);
  return message;
}

std::unique_ptr<Compiled> Compiled::make(ModuleOp module, const TestTarget &target, std::string &error, unsigned threads) {
  std::unique_ptr<Compiled> result(new Compiled());
  llvm::Expected<Bytes> library = compileModule(module, target, result->products);
  if (!library) {
    error = llvm::toString(library.takeError());
    return nullptr;
  }
  // The file is gone as soon as it is open.
  SmallString<128> path;
  int file;
  if (std::error_code code = llvm::sys::fs::createTemporaryFile("dlc-test", "so", file, path)) {
    error = code.message();
    return nullptr;
  }
  llvm::raw_fd_ostream(file, /*shouldClose=*/true) << StringRef(library->data(), library->size());
  dlrt_status status = dlrt_model_open(path.c_str(), &result->model);
  llvm::sys::fs::remove(path);
  if (!status) {
    dlrt_options options = {};
    options.size = sizeof options;
    options.threads = threads;
    options.device = target.cuda ? DLRT_DEVICE_CUDA : DLRT_DEVICE_CPU;
    takeReports(); // opens the stand-in
    status = dlrt_instance_create(result->model, &options, &result->instance);
  }
  if (status) {
    error = takeMessage(status) + takeReports();
    return nullptr;
  }
  return result;
}

Compiled::~Compiled() {
  dlrt_instance_release(instance);
  dlrt_model_release(model);
  EXPECT_EQ(takeReports(), "");
}

//===--- numbers ---===//

template <typename T> static void appendNumber(std::vector<char> &bytes, double value) {
  T number;
  if constexpr (std::is_floating_point_v<T>)
    number = static_cast<T>(value);
  else
    number = static_cast<T>(static_cast<int64_t>(value));
  const char *at = reinterpret_cast<const char *>(&number);
  bytes.insert(bytes.end(), at, at + sizeof number);
}
template <typename T> static double readNumber(const char *&bytes) {
  T number;
  std::memcpy(&number, bytes, sizeof number);
  bytes += sizeof number;
  return static_cast<double>(number);
}

static dlrt_dtype dtypeOf(Type element) {
  if (element.isF32())
    return DLRT_F32;
  if (element.isF64())
    return DLRT_F64;
  switch (element.getIntOrFloatBitWidth()) {
  case 1:
    return DLRT_BOOL;
  case 8:
    return element.isUnsignedInteger() ? DLRT_U8 : DLRT_I8;
  case 16:
    return DLRT_I16;
  case 32:
    return DLRT_I32;
  default:
    return DLRT_I64;
  }
}

std::vector<char> toBytes(const Array &array) {
  std::vector<char> bytes;
  for (double value : array.values)
    switch (dtypeOf(array.element)) {
    case DLRT_F32: appendNumber<float>(bytes, value); break;
    case DLRT_F64: appendNumber<double>(bytes, value); break;
    case DLRT_BOOL: case DLRT_U8: appendNumber<uint8_t>(bytes, value); break;
    case DLRT_I8: appendNumber<int8_t>(bytes, value); break;
    case DLRT_I16: appendNumber<int16_t>(bytes, value); break;
    case DLRT_I32: appendNumber<int32_t>(bytes, value); break;
    default: appendNumber<int64_t>(bytes, value); break;
    }
  return bytes;
}

void fromBytes(Array &array, const char *bytes) {
  array.values.resize(array.count());
  for (double &value : array.values)
    switch (dtypeOf(array.element)) {
    case DLRT_F32: value = readNumber<float>(bytes); break;
    case DLRT_F64: value = readNumber<double>(bytes); break;
    case DLRT_BOOL: case DLRT_U8: value = readNumber<uint8_t>(bytes); break;
    case DLRT_I8: value = readNumber<int8_t>(bytes); break;
    case DLRT_I16: value = readNumber<int16_t>(bytes); break;
    case DLRT_I32: value = readNumber<int32_t>(bytes); break;
    default: value = readNumber<int64_t>(bytes); break;
    }
}

static Type elementOf(uint8_t dtype) {
  Builder b(&testContext());
  switch (dtype) {
  case DLRT_F32: return b.getF32Type();
  case DLRT_F64: return b.getF64Type();
  case DLRT_BOOL: return b.getI1Type();
  case DLRT_U8: return b.getIntegerType(8, /*isSigned=*/false);
  case DLRT_I8: return b.getI8Type();
  case DLRT_I16: return b.getI16Type();
  case DLRT_I32: return b.getI32Type();
  default: return b.getI64Type();
  }
}

namespace {
/// Memory that ends where an inaccessible page begins, full of ones.
class Guarded {
public:
  explicit Guarded(size_t bytes) {
    size_t page = sysconf(_SC_PAGESIZE), inner = (bytes + page - 1) / page * page;
    total = inner + 2 * page;
    base = static_cast<char *>(mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base == MAP_FAILED)
      llvm::report_fatal_error("out of memory");
    mprotect(base, page, PROT_NONE);
    mprotect(base + page + inner, page, PROT_NONE);
    start = base + page + inner - bytes;
    std::memset(base + page, 0xff, inner);
  }
  Guarded(Guarded &&other) : base(std::exchange(other.base, nullptr)), start(other.start), total(other.total) {}
  ~Guarded() {
    if (base)
      munmap(base, total);
  }
  char *data() const { return start; }

private:
  char *base, *start;
  size_t total;
};
} // namespace

static dlrt_tensor describe(const Array &array) {
  dlrt_tensor tensor = {};
  tensor.dtype = dtypeOf(array.element);
  tensor.rank = array.dims.size();
  std::copy(array.dims.begin(), array.dims.end(), tensor.dims);
  return tensor;
}

std::vector<Array> Compiled::call(StringRef name, ArrayRef<Array> arguments, std::string &error) {
  std::vector<dlrt_tensor> inputs, outputs;
  std::vector<Guarded> memory;
  for (const Array &argument : arguments) {
    dlrt_tensor tensor = describe(argument);
    std::vector<char> bytes = toBytes(argument);
    memory.emplace_back(bytes.size());
    std::copy(bytes.begin(), bytes.end(), memory.back().data());
    tensor.data = memory.back().data();
    tensor.bytes = bytes.size();
    inputs.push_back(tensor);
  }
  uint32_t function;
  dlrt_function_info info;
  dlrt_status status = dlrt_model_find_function(model, name.str().c_str(), &function);
  if (!status)
    status = dlrt_model_get_function(model, function, &info);
  if (!status) {
    outputs.resize(info.result_count);
    status = dlrt_result_shapes(model, function, inputs.data(), inputs.size(), outputs.data(), outputs.size());
  }
  std::vector<Array> results;
  if (!status) {
    for (dlrt_tensor &output : outputs) {
      Array array;
      array.element = elementOf(output.dtype);
      array.dims.assign(output.dims, output.dims + output.rank);
      output.bytes = array.count() * dlrt_dtype_bytes(static_cast<dlrt_dtype>(output.dtype));
      memory.emplace_back(output.bytes);
      output.data = memory.back().data();
      results.push_back(std::move(array));
    }
    status = dlrt_call(instance, function, inputs.data(), inputs.size(), outputs.data(), outputs.size());
  }
  std::string reports = takeReports();
  if (status || !reports.empty()) {
    error = (status ? takeMessage(status) : "") + reports;
    return {};
  }
  for (auto [array, output] : llvm::zip_equal(results, outputs))
    fromBytes(array, static_cast<const char *>(output.data));
  return results;
}

void Compiled::write(StringRef name, const Array &array) {
  uint32_t variable;
  std::vector<char> bytes = toBytes(array);
  dlrt_status status = dlrt_model_find_variable(model, name.str().c_str(), &variable);
  if (!status)
    status = dlrt_variable_write(instance, variable, bytes.data(), bytes.size());
  if (status)
    llvm::report_fatal_error(llvm::StringRef(takeMessage(status)));
}

Array Compiled::read(StringRef name, const Array &like) {
  uint32_t variable;
  Array array = like;
  std::vector<char> bytes(toBytes(like).size());
  dlrt_status status = dlrt_model_find_variable(model, name.str().c_str(), &variable);
  if (!status)
    status = dlrt_variable_read(instance, variable, bytes.data(), bytes.size());
  if (status)
    llvm::report_fatal_error(llvm::StringRef(takeMessage(status)));
  fromBytes(array, bytes.data());
  return array;
}

std::string difference(const Array &actual, const Array &expected, double tolerance, double scale) {
  std::string text;
  llvm::raw_string_ostream os(text);
  if (actual.dims != expected.dims || actual.element != expected.element) {
    os << "is " << actual.element << " [";
    llvm::interleaveComma(actual.dims, os);
    os << "], expected " << expected.element << " [";
    llvm::interleaveComma(expected.dims, os);
    os << "]";
    return text;
  }
  int64_t wrong = 0, first = -1;
  for (size_t i = 0; i < expected.values.size(); ++i) {
    double a = actual.values[i], e = expected.values[i];
    bool same = a == e || (std::isnan(a) && std::isnan(e));
    if (!same && (!std::isfinite(a) || !std::isfinite(e) || std::fabs(a - e) > tolerance * (scale + std::fabs(e)))) {
      ++wrong;
      if (first < 0)
        first = i;
    }
  }
  if (first >= 0) {
    os << wrong << " of " << expected.values.size() << " elements of [";
    llvm::interleaveComma(expected.dims, os);
    char numbers[100];
    snprintf(numbers, sizeof numbers, "] differ: number %lld is %.17g, expected %.17g", static_cast<long long>(first), actual.values[first], expected.values[first]);
    os << numbers;
  }
  return text;
}

} // namespace dlc::test
