//===- VectorMathJit.cpp - runs the emitted functions on arrays -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "VectorMathJit.h"
#include "compiler/lowering/cpu/VectorMath.h"
#include "mlir/Conversion/Passes.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/ExecutionEngine/OptUtils.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "mlir/Transforms/Passes.h"
#include "llvm/ExecutionEngine/Orc/LLJIT.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Module.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Object/ELFObjectFile.h"
#include "llvm/Support/SmallVectorMemoryBuffer.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Target/TargetMachine.h"
#include "llvm/TargetParser/Host.h"

using namespace mlir;

namespace dlc::vecmath {

bool hostRuns(StringRef cpu) {
  llvm::StringMap<bool> host = llvm::sys::getHostCPUFeatures();
  std::vector<StringRef> needed = {"avx2", "fma", "bmi", "bmi2", "f16c", "lzcnt", "movbe"};
  if (cpu == "x86-64-v4")
    needed.insert(needed.end(), {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"});
  return llvm::all_of(needed, [&](StringRef feature) { return host.lookup(feature); });
}

/// func @name(%x: !llvm.ptr, %y: !llvm.ptr, %out: !llvm.ptr, %n: index): one loop over vectors.
static void buildLoop(OpBuilder &b, const MathOp &op, Type type, unsigned lanes) {
  Location loc = b.getUnknownLoc();
  auto pointer = LLVM::LLVMPointerType::get(b.getContext());
  auto function = func::FuncOp::create(
      b, loc, op.name, b.getFunctionType({pointer, pointer, pointer, b.getIndexType()}, {}));
  OpBuilder::InsertionGuard guard(b);
  Block *entry = function.addEntryBlock();
  b.setInsertionPointToStart(entry);
  Value zero = arith::ConstantIndexOp::create(b, loc, 0);
  Value step = arith::ConstantIndexOp::create(b, loc, std::max(lanes, 1u));
  auto loop = scf::ForOp::create(b, loc, zero, entry->getArgument(3), step);
  func::ReturnOp::create(b, loc);

  b.setInsertionPointToStart(loop.getBody());
  Type element = type;
  unsigned alignment = element.getIntOrFloatBitWidth() / 8;
  if (lanes)
    type = VectorType::get(lanes, element);
  Value index = arith::IndexCastOp::create(b, loc, b.getI64Type(), loop.getInductionVar());
  auto addressIn = [&](unsigned argument) -> Value {
    return LLVM::GEPOp::create(b, loc, pointer, element, entry->getArgument(argument),
                               ArrayRef<LLVM::GEPArg>{index});
  };
  SmallVector<Value> operands;
  for (unsigned i = 0; i < op.numOperands; ++i)
    operands.push_back(LLVM::LoadOp::create(b, loc, type, addressIn(i), alignment));
  std::optional<Value> result = emitMathOp(b, loc, op.name, operands);
  assert(result && "a function of the table takes floats");
  LLVM::StoreOp::create(b, loc, *result, addressIn(2), alignment);
}

static llvm::Error makeError(const llvm::Twine &message) {
  return llvm::createStringError(llvm::inconvertibleErrorCode(), message);
}

Jit::Jit() = default;
Jit::Jit(Jit &&) = default;
Jit::~Jit() = default;

llvm::Expected<Jit> Jit::compile(const JitOptions &options) {
  llvm::InitializeNativeTarget();
  llvm::InitializeNativeTargetAsmPrinter();

  DialectRegistry registry;
  registry.insert<arith::ArithDialect, func::FuncDialect, LLVM::LLVMDialect, math::MathDialect,
                  scf::SCFDialect, vector::VectorDialect>();
  registerBuiltinDialectTranslation(registry);
  registerLLVMDialectTranslation(registry);
  MLIRContext context(registry, MLIRContext::Threading::DISABLED);
  context.loadAllAvailableDialects();

  OpBuilder b(&context);
  OwningOpRef<ModuleOp> module(ModuleOp::create(b, b.getUnknownLoc()));
  b.setInsertionPointToEnd(module->getBody());
  Type type = options.isF64 ? Type(b.getF64Type()) : Type(b.getF32Type());
  for (const MathOp &op : getMathOps())
    if (options.only.empty() || options.only == op.name)
      buildLoop(b, op, type, options.lanes);

  PassManager passes(&context);
  passes.addPass(createCanonicalizerPass());
  passes.addPass(createCSEPass());
  passes.addPass(createSCFToControlFlowPass());
  passes.addPass(createConvertVectorToLLVMPass());
  passes.addPass(createConvertMathToLLVMPass());
  passes.addPass(createArithToLLVMConversionPass());
  passes.addPass(createConvertControlFlowToLLVMPass());
  passes.addPass(createConvertFuncToLLVMPass());
  passes.addPass(createReconcileUnrealizedCastsPass());
  if (failed(passes.run(*module)))
    return makeError("cannot lower the functions to the LLVM dialect");

  auto llvmContext = std::make_unique<llvm::LLVMContext>();
  std::unique_ptr<llvm::Module> llvmModule = translateModuleToLLVMIR(*module, *llvmContext);
  if (!llvmModule)
    return makeError("cannot translate the functions to LLVM IR");

  llvm::Triple triple(llvm::sys::getProcessTriple());
  std::string message;
  const llvm::Target *target = llvm::TargetRegistry::lookupTarget(triple, message);
  if (!target)
    return makeError(message);
  std::unique_ptr<llvm::TargetMachine> machine(target->createTargetMachine(
      triple, options.cpu, "", llvm::TargetOptions(), llvm::Reloc::PIC_, std::nullopt,
      options.optLevel ? llvm::CodeGenOptLevel::Default : llvm::CodeGenOptLevel::None));
  llvmModule->setTargetTriple(triple);
  llvmModule->setDataLayout(machine->createDataLayout());
  if (llvm::Error error = makeOptimizingTransformer(options.optLevel, /*sizeLevel=*/0,
                                                    machine.get())(llvmModule.get()))
    return std::move(error);

  llvm::SmallVector<char, 0> bytes;
  llvm::raw_svector_ostream stream(bytes);
  llvm::legacy::PassManager codegen;
  if (machine->addPassesToEmitFile(codegen, stream, nullptr, llvm::CodeGenFileType::ObjectFile))
    return makeError("the target emits no object files");
  codegen.run(*llvmModule);
  if (!options.objectFile.empty()) {
    std::error_code error;
    llvm::raw_fd_ostream file(options.objectFile, error);
    if (error)
      return makeError("cannot write '" + options.objectFile + "': " + error.message());
    file << bytes;
  }
  auto buffer = std::make_unique<llvm::SmallVectorMemoryBuffer>(std::move(bytes), "vector_math.o",
                                                                /*RequiresNullTerminator=*/false);

  Jit result;
  auto object = llvm::object::ObjectFile::createELFObjectFile(buffer->getMemBufferRef());
  if (!object)
    return object.takeError();
  for (const llvm::object::ELFSymbolRef symbol : (*object)->symbols()) {
    llvm::Expected<StringRef> name = symbol.getName();
    llvm::Expected<uint32_t> flags = symbol.getFlags();
    if (!name || !flags)
      return makeError("cannot read the symbols of the object");
    if (*flags & llvm::object::SymbolRef::SF_Undefined && !name->empty())
      result.undefined.push_back(name->str());
    else if (*flags & llvm::object::SymbolRef::SF_Global)
      result.sizes[*name] = symbol.getSize();
  }

  auto jit = llvm::orc::LLJITBuilder().create();
  if (!jit)
    return jit.takeError();
  result.jit = std::move(*jit);
  if (llvm::Error error = result.jit->addObjectFile(std::move(buffer)))
    return std::move(error);
  for (auto &entry : result.sizes) {
    auto address = result.jit->lookup(entry.getKey());
    if (!address)
      return address.takeError();
    result.addresses[entry.getKey()] = address->getValue();
  }
  return std::move(result);
}

void Jit::run(StringRef function, const void *x, const void *y, void *out, int64_t n) const {
  using Loop = void(const void *, const void *, void *, int64_t);
  uint64_t address = addresses.lookup(function);
  assert(address && "the function was not compiled");
  reinterpret_cast<Loop *>(address)(x, y, out, n);
}

} // namespace dlc::vecmath
