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

/// What must live as long as the code.
struct Compiled {
  std::unique_ptr<ptx::Program> program;
  std::unique_ptr<orc::LLJIT> jit;
};

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

Error compile(Module::Impl &result, std::unique_ptr<ptx::Program> program) {
  static const bool initialised = !InitializeNativeTarget() && !InitializeNativeTargetAsmPrinter();
  if (!initialised)
    return createStringError(inconvertibleErrorCode(), "LLVM has no code generator for this machine");
  auto compiled = std::make_shared<Compiled>();
  compiled->program = std::move(program);

  auto context = std::make_unique<LLVMContext>();
  Expected<std::unique_ptr<llvm::Module>> module = ptx::translate(*compiled->program, result, *context);
  if (!module)
    return module.takeError();

  Expected<orc::JITTargetMachineBuilder> builder = orc::JITTargetMachineBuilder::detectHost();
  if (!builder)
    return builder.takeError();
  builder->setCodeGenOptLevel(CodeGenOptLevel::Less);
  Expected<std::unique_ptr<TargetMachine>> machine = builder->createTargetMachine();
  if (!machine)
    return machine.takeError();
  (*module)->setDataLayout((*machine)->createDataLayout());
  (*module)->setTargetTriple((*machine)->getTargetTriple());
  optimize(**module, **machine);

  Expected<std::unique_ptr<orc::LLJIT>> jit = orc::LLJITBuilder().setJITTargetMachineBuilder(std::move(*builder)).create();
  if (!jit)
    return jit.takeError();
  compiled->jit = std::move(*jit);
  orc::SymbolMap helpers;
  for (const auto &list : {engineHelpers(), arithmeticHelpers()})
    for (auto [name, address] : list)
      helpers[compiled->jit->mangleAndIntern(name)] = {orc::ExecutorAddr::fromPtr(address), JITSymbolFlags::Exported | JITSymbolFlags::Callable};
  orc::JITDylib &library = compiled->jit->getMainJITDylib();
  if (Error error = library.define(orc::absoluteSymbols(std::move(helpers))))
    return error;
  // fma(), memcpy() and others that LLVM calls where the processor has no instruction
  auto process = orc::DynamicLibrarySearchGenerator::GetForCurrentProcess(compiled->jit->getDataLayout().getGlobalPrefix());
  if (!process)
    return process.takeError();
  library.addGenerator(std::move(*process));
  if (Error error = compiled->jit->addIRModule(orc::ThreadSafeModule(std::move(*module), std::move(context))))
    return error;
  for (size_t i = 0; i < result.kernels.size(); ++i) {
    Expected<orc::ExecutorAddr> entry = compiled->jit->lookup("kernel." + std::to_string(i));
    if (!entry)
      return entry.takeError();
    result.kernels[i]->entry = entry->toPtr<void (*)(void *)>();
  }
  result.owner = std::move(compiled);
  return Error::success();
}

} // namespace

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
  if (Error error = compile(impl, std::move(*program)))
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
