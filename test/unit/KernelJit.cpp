//===- KernelJit.cpp - runs emitted kernels in the test's own process -*- C++
//-*-===//
//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "KernelJit.h"

#include "mlir/Conversion/ArithToLLVM/ArithToLLVM.h"
#include "mlir/Conversion/ControlFlowToLLVM/ControlFlowToLLVM.h"
#include "mlir/Conversion/FuncToLLVM/ConvertFuncToLLVMPass.h"
#include "mlir/Conversion/IndexToLLVM/IndexToLLVM.h"
#include "mlir/Conversion/MathToLLVM/MathToLLVM.h"
#include "mlir/Conversion/MemRefToLLVM/MemRefToLLVM.h"
#include "mlir/Conversion/ReconcileUnrealizedCasts/ReconcileUnrealizedCasts.h"
#include "mlir/Conversion/SCFToControlFlow/SCFToControlFlow.h"
#include "mlir/Conversion/VectorToLLVM/ConvertVectorToLLVMPass.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/ControlFlow/IR/ControlFlow.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/Verifier.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "mlir/Transforms/Passes.h"
#include "llvm/ExecutionEngine/Orc/JITTargetMachineBuilder.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Module.h"
#include "llvm/Object/ObjectFile.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Support/raw_ostream.h"
#include "llvm/Target/TargetMachine.h"
#include "llvm/TargetParser/Host.h"

#include <cstdlib>
#include <ctime>
#include <thread>

using namespace mlir;
using namespace dlc;
using namespace dlc::test;

std::unique_ptr<MLIRContext> test::makeContext() {
  DialectRegistry registry;
  registry
      .insert<arith::ArithDialect, cf::ControlFlowDialect, func::FuncDialect, LLVM::LLVMDialect,
              math::MathDialect, memref::MemRefDialect, scf::SCFDialect, vector::VectorDialect>();
  registerBuiltinDialectTranslation(registry);
  registerLLVMDialectTranslation(registry);
  auto context = std::make_unique<MLIRContext>(registry, MLIRContext::Threading::DISABLED);
  context->loadAllAvailableDialects();
  llvm::InitializeNativeTarget();
  llvm::InitializeNativeTargetAsmPrinter();
  return context;
}

cpu::CpuInfo Machine::info() const {
  std::string error;
  auto info = cpu::CpuInfo::forFeatures(llvm::sys::getDefaultTargetTriple(), cpu, features, error);
  if (!info)
    llvm::report_fatal_error(llvm::StringRef(error), false);
  return *info;
}

Machine Machine::native() {
  std::string features;
  for (const auto &[name, has] : llvm::sys::getHostCPUFeatures())
    features += (features.empty() ? "" : ",") + std::string(has ? "+" : "-") + name.str();
  return {llvm::sys::getHostCPUName().str(), features + ",-prefer-256-bit"};
}

bool Machine::runs(llvm::StringRef cpu) {
  auto features = llvm::sys::getHostCPUFeatures();
  auto has = [&](llvm::StringRef name) { return features.lookup(name); };
  if (cpu == "x86-64-v3")
    return has("avx2") && has("fma") && has("bmi2");
  if (cpu == "x86-64-v4")
    return has("avx512f") && has("avx512vl") && has("avx512dq") && has("avx512bw") &&
           has("avx512cd");
  return false;
}

/// Time that this thread ran: what else the machine does at the moment does not count.
static double processorMs() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec * 1e3 + now.tv_nsec * 1e-6;
}

Jit::Jit(ModuleOp module, const Machine &machine) {
  auto fail = [](const llvm::Twine &message) { llvm::report_fatal_error(message, false); };
  const double start = processorMs();
  PassManager passes(module.getContext());
  passes.addPass(createCSEPass());
  passes.addPass(createConvertVectorToLLVMPass());
  passes.addPass(createSCFToControlFlowPass());
  passes.addPass(createConvertMathToLLVMPass());
  passes.addPass(createFinalizeMemRefToLLVMConversionPass());
  passes.addPass(createArithToLLVMConversionPass());
  passes.addPass(createConvertFuncToLLVMPass());
  passes.addPass(createConvertControlFlowToLLVMPass());
  passes.addPass(createReconcileUnrealizedCastsPass());
  if (failed(verify(module)) || failed(passes.run(module)))
    fail("lowering failed");

  auto context = std::make_unique<llvm::LLVMContext>();
  std::unique_ptr<llvm::Module> ir = translateModuleToLLVMIR(module, *context);
  if (!ir)
    fail("translation to LLVM IR failed");

  llvm::orc::JITTargetMachineBuilder builder{llvm::Triple(llvm::sys::getDefaultTargetTriple())};
  builder.setCPU(machine.cpu);
  builder.getFeatures() = llvm::SubtargetFeatures(machine.features);
  builder.setCodeGenOptLevel(llvm::CodeGenOptLevel::Aggressive);
  builder.setRelocationModel(llvm::Reloc::PIC_);
  auto target = llvm::cantFail(builder.createTargetMachine());
  ir->setTargetTriple(target->getTargetTriple());
  ir->setDataLayout(target->createDataLayout());

  llvm::LoopAnalysisManager lam;
  llvm::FunctionAnalysisManager fam;
  llvm::CGSCCAnalysisManager cgam;
  llvm::ModuleAnalysisManager mam;
  llvm::PassBuilder pb(target.get());
  pb.registerModuleAnalyses(mam);
  pb.registerCGSCCAnalyses(cgam);
  pb.registerFunctionAnalyses(fam);
  pb.registerLoopAnalyses(lam);
  pb.crossRegisterProxies(lam, fam, cgam, mam);
  pb.buildPerModuleDefaultPipeline(llvm::OptimizationLevel::O3).run(*ir, mam);
  if (std::getenv("DLC_TEST_DUMP_LLVM"))
    ir->print(llvm::errs(), nullptr);

  llvm::SmallString<0> object;
  llvm::raw_svector_ostream stream(object);
  llvm::legacy::PassManager codegen;
  if (target->addPassesToEmitFile(codegen, stream, nullptr, llvm::CodeGenFileType::ObjectFile))
    fail("the target writes no objects");
  codegen.run(*ir);
  compileMs = processorMs() - start;

  auto buffer = llvm::MemoryBuffer::getMemBufferCopy(object, "kernels");
  objectBytes = object.size();
  auto parsed =
      llvm::cantFail(llvm::object::ObjectFile::createObjectFile(buffer->getMemBufferRef()));
  for (const auto &section : parsed->sections())
    if (section.isText())
      textBytes += section.getSize();
  if (const char *path = std::getenv("DLC_TEST_OBJECT")) {
    std::error_code error;
    llvm::raw_fd_ostream file(path, error);
    file << object;
  }
  jit = llvm::cantFail(llvm::orc::LLJITBuilder().setJITTargetMachineBuilder(builder).create());
  llvm::cantFail(jit->addObjectFile(std::move(buffer)));
}

void *Jit::lookup(const std::string &name) {
  return llvm::cantFail(jit->lookup(name)).toPtr<void *>();
}

//===----------------------------------------------------------------------===//
// Products
//===----------------------------------------------------------------------===//

GemmBuilder::GemmBuilder(MLIRContext &context, const Machine &machine)
    : machine(machine), info(machine.info()), module(ModuleOp::create(UnknownLoc::get(&context))) {}
GemmBuilder::~GemmBuilder() = default;

namespace {

/// Reads the frame inside a kernel.
struct FrameReader {
  OpBuilder &b;
  Location loc;
  Value frame;
  Type element;

  Value field(unsigned i, Type type) {
    auto pointer = LLVM::LLVMPointerType::get(b.getContext());
    Value address = LLVM::GEPOp::create(b, loc, pointer, b.getI64Type(), frame,
                                        ArrayRef<LLVM::GEPArg>{int32_t(i)});
    return LLVM::LoadOp::create(b, loc, type, address);
  }
  Value memory(Value pointer) {
    auto type = MemRefType::get({ShapedType::kDynamic}, element);
    auto ptr = pointer.getType();
    auto i64 = b.getI64Type();
    auto one = LLVM::LLVMArrayType::get(i64, 1);
    auto descriptor = LLVM::LLVMStructType::getLiteral(b.getContext(), {ptr, ptr, i64, one, one});
    Value value = LLVM::PoisonOp::create(b, loc, descriptor);
    auto constant = [&](int64_t c) -> Value {
      return LLVM::ConstantOp::create(b, loc, i64, b.getI64IntegerAttr(c));
    };
    auto set = [&](Value v, ArrayRef<int64_t> at) {
      value = LLVM::InsertValueOp::create(b, loc, value, v, at);
    };
    set(pointer, {0});
    set(pointer, {1});
    set(constant(0), {2});
    set(constant(INT64_MAX), {3, 0});
    set(constant(1), {4, 0});
    return UnrealizedConversionCastOp::create(b, loc, type, value).getResult(0);
  }
  Value memory(unsigned i) { return memory(field(i, LLVM::LLVMPointerType::get(b.getContext()))); }
  Value size(unsigned i) {
    return arith::IndexCastOp::create(b, loc, b.getIndexType(), field(i, b.getI64Type()));
  }
  cpu::GemmOperands operands() {
    cpu::GemmOperands operands;
    operands.lhs = memory(0u);
    operands.rhs = memory(1u);
    operands.workspace = memory(3u);
    operands.panels = memory(11u);
    operands.m = size(4);
    operands.n = size(5);
    operands.k = size(6);
    operands.batch = size(7);
    operands.lhsBatchStride = size(8);
    operands.rhsBatchStride = size(9);
    return operands;
  }
};

} // namespace

unsigned GemmBuilder::add(const cpu::GemmShape &shape, Tail tail) {
  cpu::Gemm gemm(info, shape);
  unsigned number = products.size();
  OpBuilder b(module->getContext());
  Location loc = b.getUnknownLoc();
  auto pointer = LLVM::LLVMPointerType::get(b.getContext());
  Type i64 = b.getI64Type();
  [[maybe_unused]] const int64_t lanes = gemm.lanes();

  for (unsigned launch = 0; launch < gemm.launchCount(); ++launch) {
    std::string suffix = "_" + std::to_string(number) + "_" + std::to_string(launch);
    b.setInsertionPointToEnd(module->getBody());
    auto kernel = func::FuncOp::create(b, loc, "k" + suffix,
                                       b.getFunctionType({pointer, i64, i64, pointer}, {}));
    Block *entry = kernel.addEntryBlock();
    b.setInsertionPointToStart(entry);
    FrameReader frame{b, loc, entry->getArgument(0), shape.type};
    cpu::GemmOperands operands = frame.operands();
    Value out = frame.memory(2u), bias = frame.memory(10u);
    auto toIndex = [&](Value v) -> Value {
      return arith::IndexCastOp::create(b, loc, b.getIndexType(), v);
    };
    Value begin = toIndex(entry->getArgument(1)), end = toIndex(entry->getArgument(2));
    Value scratch = frame.memory(entry->getArgument(3));
    auto epilogue = [&](OpBuilder &b, Location loc, ValueRange at, Value acc, Value mask) {
      auto vectorType = cast<VectorType>(acc.getType());
      assert(vectorType.getDimSize(0) == lanes);
      auto mul = [&](Value x, Value y) -> Value { return arith::MulIOp::create(b, loc, x, y); };
      auto plus = [&](Value x, Value y) -> Value { return arith::AddIOp::create(b, loc, x, y); };
      Value place = plus(mul(plus(mul(at[0], operands.m), at[1]), operands.n), at[2]);
      if (tail == Tail::BiasRelu) {
        Value zero = arith::ConstantOp::create(b, loc, vectorType, b.getZeroAttr(vectorType));
        Value add =
            mask ? vector::MaskedLoadOp::create(b, loc, vectorType, bias, ValueRange{at[2]}, mask,
                                                zero)
                       .getResult()
                 : vector::LoadOp::create(b, loc, vectorType, bias, ValueRange{at[2]}).getResult();
        acc = arith::AddFOp::create(b, loc, acc, add);
        Value positive = arith::CmpFOp::create(b, loc, arith::CmpFPredicate::OGT, acc, zero);
        acc = arith::SelectOp::create(b, loc, positive, acc, zero);
      }
      if (mask)
        vector::MaskedStoreOp::create(b, loc, out, ValueRange{place}, mask, acc);
      else
        vector::StoreOp::create(b, loc, acc, out, ValueRange{place});
    };
    gemm.emit(launch, b, loc, operands, begin, end, scratch, epilogue);
    func::ReturnOp::create(b, loc);

    b.setInsertionPointToEnd(module->getBody());
    auto tasks = func::FuncOp::create(b, loc, "t" + suffix, b.getFunctionType({pointer}, {i64}));
    entry = tasks.addEntryBlock();
    b.setInsertionPointToStart(entry);
    FrameReader taskFrame{b, loc, entry->getArgument(0), shape.type};
    Value count = gemm.tasks(launch, b, loc, taskFrame.operands());
    func::ReturnOp::create(b, loc, ValueRange{arith::IndexCastOp::create(b, loc, i64, count)});
  }

  GemmFunctions functions;
  functions.scratchBytes = gemm.scratchBytes();
  auto symbol = [&](unsigned i) { return getAffineSymbolExpr(i, b.getContext()); };
  functions.workspace = gemm.workspaceElements(symbol(0), symbol(1), symbol(2));
  functions.panels = gemm.panelElements(symbol(0), symbol(1), symbol(2));
  functions.description = gemm.describe();
  functions.shape = shape;
  functions.launchesOnce = gemm.launchesOnce();
  functions.tasksTogether = gemm.tasksTogether();
  functions.kernels.resize(gemm.launchCount());
  functions.tasks.resize(gemm.launchCount());
  products.push_back(functions);
  return number;
}

void GemmBuilder::compile() {
  jit = std::make_unique<Jit>(*module, machine);
  for (unsigned i = 0; i < products.size(); ++i) {
    for (unsigned launch = 0; launch < products[i].kernels.size(); ++launch) {
      std::string suffix = "_" + std::to_string(i) + "_" + std::to_string(launch);
      products[i].kernels[launch] =
          reinterpret_cast<GemmFunctions::Kernel>(jit->lookup("k" + suffix));
      products[i].tasks[launch] =
          reinterpret_cast<int64_t (*)(const GemmFrame *)>(jit->lookup("t" + suffix));
    }
  }
}

int64_t GemmFunctions::evaluate(AffineExpr elements, const GemmFrame &frame) {
  SmallVector<AffineExpr> sizes;
  for (int64_t size : {frame.m, frame.n, frame.k})
    sizes.push_back(getAffineConstantExpr(size, elements.getContext()));
  AffineExpr value = elements.replaceSymbols(sizes);
  return cast<AffineConstantExpr>(simplifyAffineExpr(value, 0, 0)).getValue();
}

void GemmFunctions::run(const GemmFrame &frame, unsigned threads,
                        std::vector<void *> &scratch, unsigned first) const {
  for (unsigned launch = first; launch < kernels.size(); ++launch) {
    int64_t count = tasks[launch](&frame);
    std::vector<std::thread> workers;
    for (unsigned t = 0; t < threads; ++t) {
      auto work = [&, t] {
        kernels[launch](&frame, count * t / threads, count * (t + 1) / threads, scratch[t]);
      };
      if (t + 1 == threads)
        work();
      else
        workers.emplace_back(work);
    }
    for (std::thread &worker : workers)
      worker.join();
  }
}
