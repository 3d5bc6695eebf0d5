//===- GpuKernels.cpp - products as kernels in PTX -*- C++ -*-===//
//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GpuKernels.h"

#include "mlir/Conversion/ArithToLLVM/ArithToLLVM.h"
#include "mlir/Conversion/ControlFlowToLLVM/ControlFlowToLLVM.h"
#include "mlir/Conversion/MemRefToLLVM/MemRefToLLVM.h"
#include "mlir/Conversion/ReconcileUnrealizedCasts/ReconcileUnrealizedCasts.h"
#include "mlir/Conversion/SCFToControlFlow/SCFToControlFlow.h"
#include "mlir/Conversion/VectorToLLVM/ConvertVectorToLLVMPass.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/ControlFlow/IR/ControlFlow.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/Verifier.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/NVVM/NVVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "mlir/Transforms/Passes.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Module.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FileUtilities.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Program.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Target/TargetMachine.h"

using namespace mlir;
using namespace dlc;
using namespace dlc::test;

std::unique_ptr<MLIRContext> test::makeGpuContext() {
  DialectRegistry registry;
  registry.insert<arith::ArithDialect, cf::ControlFlowDialect, LLVM::LLVMDialect, memref::MemRefDialect, NVVM::NVVMDialect, scf::SCFDialect, vector::VectorDialect>();
  registerBuiltinDialectTranslation(registry);
  registerLLVMDialectTranslation(registry);
  registerNVVMDialectTranslation(registry);
  auto context = std::make_unique<MLIRContext>(registry, MLIRContext::Threading::DISABLED);
  context->loadAllAvailableDialects();
  LLVMInitializeNVPTXTargetInfo();
  LLVMInitializeNVPTXTarget();
  LLVMInitializeNVPTXTargetMC();
  LLVMInitializeNVPTXAsmPrinter();
  return context;
}

int64_t test::evaluate(AffineExpr expr, ArrayRef<int64_t> sizes) {
  SmallVector<AffineExpr> values;
  for (int64_t size : sizes)
    values.push_back(getAffineConstantExpr(size, expr.getContext()));
  return cast<AffineConstantExpr>(simplifyAffineExpr(expr.replaceSymbols(values), 0, 0)).getValue();
}

std::map<std::string, PtxasInfo> test::runPtxas(const std::string &ptx, const std::string &architecture) {
  std::map<std::string, PtxasInfo> kernels;
#ifdef DLC_TEST_PTXAS
  llvm::SmallString<64> input, output, words;
  auto require = [](std::error_code error) {
    if (error)
      llvm::report_fatal_error(llvm::Twine("no temporary file: ") + error.message(), false);
  };
  int file;
  require(llvm::sys::fs::createTemporaryFile("kernels", "ptx", file, input));
  llvm::raw_fd_ostream(file, /*shouldClose=*/true) << ptx;
  require(llvm::sys::fs::createTemporaryFile("kernels", "cubin", output));
  require(llvm::sys::fs::createTemporaryFile("kernels", "txt", words));
  llvm::FileRemover removers[] = {llvm::FileRemover(input), llvm::FileRemover(output), llvm::FileRemover(words)};
  std::string gpu = "--gpu-name=" + architecture;
  std::optional<llvm::StringRef> redirects[] = {std::nullopt, words.str(), words.str()};
  int status = llvm::sys::ExecuteAndWait(DLC_TEST_PTXAS, {DLC_TEST_PTXAS, "-v", gpu, input, "-o", output}, std::nullopt, redirects);
  auto said = llvm::MemoryBuffer::getFile(words);
  llvm::StringRef text = said ? (*said)->getBuffer() : "";
  if (status != 0)
    llvm::report_fatal_error("ptxas: " + text, false);
  // "Function properties for NAME", "... N bytes spill stores, N bytes spill loads", "Used N registers, ... N bytes smem".
  PtxasInfo *kernel = nullptr;
  llvm::SmallVector<llvm::StringRef> lines;
  text.split(lines, '\n');
  auto before = [](llvm::StringRef line, llvm::StringRef what) {
    int64_t number = 0;
    auto [left, right] = line.split(what);
    if (left.size() != line.size())
      left.rtrim().substr(left.rtrim().find_last_of(" ,") + 1).getAsInteger(10, number);
    return number;
  };
  for (llvm::StringRef line : lines) {
    if (size_t at = line.find("Function properties for "); at != llvm::StringRef::npos)
      kernel = &kernels[line.drop_front(at).drop_front(24).trim().str()];
    if (!kernel)
      continue;
    kernel->spilled += before(line, "bytes spill stores");
    if (line.contains("Used")) {
      kernel->registers = before(line, "registers");
      kernel->sharedBytes = before(line, "bytes smem");
    }
  }
#endif
  return kernels;
}

GpuModule::GpuModule(MLIRContext &context) : module(ModuleOp::create(UnknownLoc::get(&context))) {}
GpuModule::~GpuModule() = default;

/// memref<?xT> over a pointer.
static Value memoryAt(OpBuilder &b, Location loc, Value pointer, Type element) {
  Type i64 = b.getI64Type();
  auto array = LLVM::LLVMArrayType::get(i64, 1);
  auto descriptor = LLVM::LLVMStructType::getLiteral(b.getContext(), {pointer.getType(), pointer.getType(), i64, array, array});
  Value value = LLVM::PoisonOp::create(b, loc, descriptor);
  auto set = [&](Value field, ArrayRef<int64_t> at) { value = LLVM::InsertValueOp::create(b, loc, value, field, at); };
  auto constant = [&](int64_t n) -> Value { return LLVM::ConstantOp::create(b, loc, i64, b.getI64IntegerAttr(n)); };
  set(pointer, {0});
  set(pointer, {1});
  set(constant(0), {2});
  set(constant(INT64_MAX), {3, 0});
  set(constant(1), {4, 0});
  return UnrealizedConversionCastOp::create(b, loc, MemRefType::get(ShapedType::kDynamic, element), value).getResult(0);
}

GpuProduct GpuModule::add(const std::string &name, const cuda::GemmShape &shape, Tail tail) {
  cuda::Gemm gemm(shape);
  GpuProduct product;
  product.workspaceElements = gemm.workspaceElements();
  product.chunkSteps = gemm.chunkSteps();
  product.description = gemm.describe();
  product.shape = shape;
  product.tail = tail;

  OpBuilder b(module->getContext());
  Location loc = b.getUnknownLoc();
  Type pointer = LLVM::LLVMPointerType::get(b.getContext()), i64 = b.getI64Type();
  for (unsigned launch = 0; launch < gemm.launchCount(); ++launch) {
    std::string symbol = name + "_" + std::to_string(launch);
    product.launches.push_back({symbol, gemm.blocks(launch), gemm.threads(launch), gemm.residentBlocks(launch), gemm.sharedBytes(launch)});
    SmallVector<Type> parameters(8, pointer);
    parameters.append(6, i64);
    b.setInsertionPointToEnd(module->getBody());
    auto function = LLVM::LLVMFuncOp::create(b, loc, symbol, LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(b.getContext()), parameters));
    function->setAttr("nvvm.kernel", b.getUnitAttr());
    function->setAttr("nvvm.reqntid", b.getDenseI32ArrayAttr({static_cast<int32_t>(gemm.threads(launch))}));
    function->setAttr("nvvm.minctasm", b.getI32IntegerAttr(gemm.residentBlocks(launch)));
    Block *entry = function.addEntryBlock(b);
    b.setInsertionPointToStart(entry);
    auto memory = [&](unsigned i) { return memoryAt(b, loc, entry->getArgument(i), shape.type); };
    auto size = [&](unsigned i) -> Value { return arith::IndexCastOp::create(b, loc, b.getIndexType(), entry->getArgument(i)); };
    cuda::GemmOperands operands;
    operands.lhs = memory(0);
    operands.rhs = memory(1);
    Value out = memory(2), bias = memory(3), first = memory(4), second = memory(5);
    operands.workspace = memory(6);
    if (tail == Tail::Adam)
      operands.fault = memoryAt(b, loc, entry->getArgument(7), i64);
    operands.m = size(8);
    operands.n = size(9);
    operands.k = size(10);
    operands.batch = size(11);
    operands.lhsBatchStride = size(12);
    operands.rhsBatchStride = size(13);

    Value rate; // of Adam: 1/8, from memory
    auto loadRate = [&](OpBuilder &b, Location loc) {
      if (tail == Tail::Adam)
        rate = memref::LoadOp::create(b, loc, bias, ValueRange{arith::ConstantIndexOp::create(b, loc, 0)});
    };
    auto epilogue = [&](OpBuilder &b, Location loc, ValueRange at, Value acc) {
      Type type = acc.getType();
      auto vector = dyn_cast<VectorType>(type);
      llvm::Align alignment((vector ? vector.getNumElements() : 1) * getElementTypeOrSelf(type).getIntOrFloatBitWidth() / 8);
      auto load = [&](Value from, Value place) -> Value {
        if (!vector)
          return memref::LoadOp::create(b, loc, from, place);
        return vector::LoadOp::create(b, loc, vector, from, ValueRange{place}, false, alignment);
      };
      auto store = [&](Value value, Value to, Value place) {
        if (!vector)
          memref::StoreOp::create(b, loc, value, to, place);
        else
          vector::StoreOp::create(b, loc, value, to, ValueRange{place}, false, alignment);
      };
      auto number = [&](double value) -> Value {
        Attribute one = b.getFloatAttr(shape.type, value);
        return arith::ConstantOp::create(b, loc, vector ? cast<TypedAttr>(DenseElementsAttr::get(vector, one)) : cast<TypedAttr>(one));
      };
      auto mul = [&](Value x, Value y) -> Value { return arith::MulFOp::create(b, loc, x, y); };
      auto plus = [&](Value x, Value y) -> Value { return arith::AddFOp::create(b, loc, x, y); };
      auto imul = [&](Value x, Value y) -> Value { return arith::MulIOp::create(b, loc, x, y); };
      auto iplus = [&](Value x, Value y) -> Value { return arith::AddIOp::create(b, loc, x, y); };
      Value place = iplus(imul(iplus(imul(at[0], operands.m), at[1]), operands.n), at[2]);
      if (tail == Tail::BiasRelu) {
        acc = plus(acc, load(bias, at[2]));
        Value zero = number(0);
        acc = arith::SelectOp::create(b, loc, arith::CmpFOp::create(b, loc, arith::CmpFPredicate::OGT, acc, zero), acc, zero);
      }
      if (tail == Tail::Adam) {
        Value w = load(out, place), m = load(first, place), v = load(second, place);
        m = plus(mul(m, number(0.9)), mul(acc, number(0.1)));
        v = plus(mul(v, number(0.99)), mul(mul(acc, acc), number(0.01)));
        Value step = vector ? vector::BroadcastOp::create(b, loc, vector, rate).getResult() : rate;
        Value root = LLVM::SqrtOp::create(b, loc, type, v);
        acc = arith::SubFOp::create(b, loc, w, arith::DivFOp::create(b, loc, mul(m, step), plus(root, number(1e-6))));
        store(m, first, place);
        store(v, second, place);
      }
      store(acc, out, place);
    };
    gemm.emit(launch, b, loc, operands, epilogue, loadRate);
    LLVM::ReturnOp::create(b, loc, ValueRange());
  }
  return product;
}

std::string GpuModule::ptx(const std::string &architecture) {
  auto fail = [](const llvm::Twine &message) { llvm::report_fatal_error(message, false); };
  llvm::Triple triple("nvptx64-nvidia-cuda");
  std::string error;
  const llvm::Target *target = llvm::TargetRegistry::lookupTarget(triple, error);
  if (!target)
    fail(error);
  std::unique_ptr<llvm::TargetMachine> machine(
      target->createTargetMachine(triple, architecture, "+ptx78", llvm::TargetOptions(), std::nullopt, std::nullopt, llvm::CodeGenOptLevel::Aggressive));
  // Alignments of accesses follow from the layout: it has to be there before the translation.
  const llvm::DataLayout layout = machine->createDataLayout();
  (*module)->setAttr(LLVM::LLVMDialect::getDataLayoutAttrName(), StringAttr::get(module->getContext(), layout.getStringRepresentation()));
  PassManager passes(module->getContext());
  passes.addPass(createCanonicalizerPass());
  passes.addPass(createCSEPass());
  passes.addPass(createConvertVectorToLLVMPass());
  passes.addPass(createSCFToControlFlowPass());
  passes.addPass(createFinalizeMemRefToLLVMConversionPass());
  passes.addPass(createArithToLLVMConversionPass());
  passes.addPass(createConvertControlFlowToLLVMPass());
  passes.addPass(createReconcileUnrealizedCastsPass());
  if (failed(verify(*module)) || failed(passes.run(*module)))
    fail("lowering failed");
  llvm::LLVMContext context;
  std::unique_ptr<llvm::Module> ir = translateModuleToLLVMIR(*module, context);
  if (!ir)
    fail("translation to LLVM IR failed");

  ir->setTargetTriple(triple);
  ir->setDataLayout(layout);
  llvm::LoopAnalysisManager lam;
  llvm::FunctionAnalysisManager fam;
  llvm::CGSCCAnalysisManager cgam;
  llvm::ModuleAnalysisManager mam;
  llvm::PassBuilder pb(machine.get());
  pb.registerModuleAnalyses(mam);
  pb.registerCGSCCAnalyses(cgam);
  pb.registerFunctionAnalyses(fam);
  pb.registerLoopAnalyses(lam);
  pb.crossRegisterProxies(lam, fam, cgam, mam);
  pb.buildPerModuleDefaultPipeline(llvm::OptimizationLevel::O3).run(*ir, mam);

  llvm::SmallString<0> text;
  llvm::raw_svector_ostream stream(text);
  llvm::legacy::PassManager codegen;
  if (machine->addPassesToEmitFile(codegen, stream, nullptr, llvm::CodeGenFileType::AssemblyFile))
    fail("the target writes no assembly");
  codegen.run(*ir);
  return text.str().str();
}
