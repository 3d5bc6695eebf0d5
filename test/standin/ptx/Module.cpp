//===- Module.cpp - PTX that runs on the CPU -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Module.h"
#include "Execution.h"
#include "Parser.h"
#include "Translate.h"
#include "llvm/ExecutionEngine/Orc/AbsoluteSymbols.h"
#include "llvm/ExecutionEngine/Orc/ExecutionUtils.h"
#include "llvm/ExecutionEngine/Orc/LLJIT.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Target/TargetMachine.h"
#include "llvm/Transforms/InstCombine/InstCombine.h"
#include "llvm/Transforms/Scalar/EarlyCSE.h"
#include "llvm/Transforms/Scalar/LICM.h"
#include "llvm/Transforms/Scalar/LoopPassManager.h"
#include "llvm/Transforms/Scalar/SROA.h"
#include "llvm/Transforms/Scalar/SimplifyCFG.h"

using namespace llvm;

namespace standin {

namespace {

void optimize(llvm::Module &module, TargetMachine &machine) {
  LoopAnalysisManager loops;
  FunctionAnalysisManager functions;
  CGSCCAnalysisManager calls;
  ModuleAnalysisManager modules;
  PassBuilder passes(&machine);
  passes.registerModuleAnalyses(modules);
  passes.registerCGSCCAnalyses(calls);
  passes.registerFunctionAnalyses(functions);
  passes.registerLoopAnalyses(loops);
  passes.crossRegisterProxies(loops, functions, calls, modules);
  // Checks make bodies large, and the code runs a few times: registers become values, addresses and
  // what checks have in common are computed once. Loops stay as they are.
  FunctionPassManager pipeline;
  pipeline.addPass(SROAPass(SROAOptions::ModifyCFG));
  pipeline.addPass(EarlyCSEPass(/*UseMemorySSA=*/true));
  pipeline.addPass(SimplifyCFGPass());
  pipeline.addPass(InstCombinePass());
  pipeline.addPass(EarlyCSEPass(/*UseMemorySSA=*/true));
  pipeline.addPass(createFunctionToLoopPassAdaptor(LICMPass(LICMOptions()), /*UseMemorySSA=*/true));
  pipeline.addPass(SimplifyCFGPass());
  createModuleToFunctionPassAdaptor(std::move(pipeline)).run(module, modules);
}

} // namespace

struct Module::Impl::Compiler {
  std::unique_ptr<ptx::Program> program;
  orc::ThreadSafeContext context;
  std::unique_ptr<orc::LLJIT> jit;
  std::unique_ptr<TargetMachine> machine;
  std::vector<std::unique_ptr<llvm::Module>> kernels; ///< those not yet compiled
};

Module::Impl::Impl(Memory &memory) : memory(memory) {}
Module::Impl::~Impl() = default;

/// Translates everything, so that what is not understood is found, and makes the JIT ready.
static Error prepare(Module::Impl &result, std::unique_ptr<ptx::Program> program) {
  static const bool initialised = !InitializeNativeTarget() && !InitializeNativeTargetAsmPrinter();
  if (!initialised)
    return createStringError(inconvertibleErrorCode(), "LLVM has no code generator for this machine");
  result.compiler = std::make_unique<Module::Impl::Compiler>();
  Module::Impl::Compiler &compiler = *result.compiler;
  compiler.program = std::move(program);
  auto context = std::make_unique<LLVMContext>();
  Expected<std::vector<std::unique_ptr<llvm::Module>>> modules = ptx::translate(*compiler.program, result, *context);
  if (!modules)
    return modules.takeError();
  compiler.context = orc::ThreadSafeContext(std::move(context));
  compiler.kernels = std::move(*modules);

  Expected<orc::JITTargetMachineBuilder> builder = orc::JITTargetMachineBuilder::detectHost();
  if (!builder)
    return builder.takeError();
  builder->setCodeGenOptLevel(CodeGenOptLevel::Less);
  Expected<std::unique_ptr<TargetMachine>> machine = builder->createTargetMachine();
  if (!machine)
    return machine.takeError();
  compiler.machine = std::move(*machine);
  Expected<std::unique_ptr<orc::LLJIT>> jit = orc::LLJITBuilder().setJITTargetMachineBuilder(std::move(*builder)).create();
  if (!jit)
    return jit.takeError();
  compiler.jit = std::move(*jit);
  orc::SymbolMap routines;
  for (const auto &list : {engineRoutines(), arithmeticRoutines()})
    for (auto [name, address] : list)
      routines[compiler.jit->mangleAndIntern(name)] = {orc::ExecutorAddr::fromPtr(address), JITSymbolFlags::Exported | JITSymbolFlags::Callable};
  orc::JITDylib &library = compiler.jit->getMainJITDylib();
  if (Error error = library.define(orc::absoluteSymbols(std::move(routines))))
    return error;
  // fma(), memcpy() and others that LLVM calls where the processor has no instruction
  auto process = orc::DynamicLibrarySearchGenerator::GetForCurrentProcess(compiler.jit->getDataLayout().getGlobalPrefix());
  if (!process)
    return process.takeError();
  library.addGenerator(std::move(*process));
  return Error::success();
}

Error Module::Impl::compile(KernelCode &code) {
  if (code.entry)
    return Error::success();
  std::unique_ptr<llvm::Module> kernel = std::move(compiler->kernels[code.number]);
  std::string symbol = "kernel." + std::to_string(code.number);
  kernel->setDataLayout(compiler->machine->createDataLayout());
  kernel->setTargetTriple(compiler->machine->getTargetTriple());
  optimize(*kernel, *compiler->machine);
  if (Error error = compiler->jit->addIRModule(orc::ThreadSafeModule(std::move(kernel), compiler->context)))
    return error;
  Expected<orc::ExecutorAddr> entry = compiler->jit->lookup(symbol);
  if (!entry)
    return entry.takeError();
  code.entry = entry->toPtr<void (*)(void *)>();
  return Error::success();
}

Module::Module(std::unique_ptr<Impl> self) : self(std::move(self)) {}

Module::~Module() {
  for (const auto &global : self->globals)
    self->memory.freeGlobal(global->address);
}

Expected<std::unique_ptr<Module>> Module::load(Memory &memory, StringRef source, StringRef name) {
  Expected<std::unique_ptr<ptx::Program>> program = ptx::parse(source.take_until([](char c) { return c == '\0'; }), name);
  if (!program)
    return program.takeError();
  // Owned from the start, so that variables are freed when something fails.
  std::unique_ptr<Module> module(new Module(std::make_unique<Impl>(memory)));
  Impl &impl = *module->self;
  impl.name = name.str();
  impl.target = (*program)->target;
  impl.version = (*program)->version;
  for (const auto &[number, file] : (*program)->files)
    impl.files[number] = file;
  if (Error error = prepare(impl, std::move(*program)))
    return std::move(error);
  for (const auto &kernel : impl.kernels)
    kernel->module = module.get();
  return std::move(module);
}

StringRef Module::name() const { return self->name; }
Memory &Module::memory() const { return self->memory; }
unsigned Module::target() const { return self->target; }
unsigned Module::version() const { return self->version; }
const Kernel *Module::kernel(StringRef name) const { return self->kernelNames.lookup(name); }
const Global *Module::global(StringRef name) const { return self->globalNames.lookup(name); }
std::vector<const Kernel *> Module::kernels() const {
  std::vector<const Kernel *> result;
  for (const auto &kernel : self->kernels)
    result.push_back(kernel.get());
  return result;
}

} // namespace standin
