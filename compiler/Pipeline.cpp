//===- Pipeline.cpp - the compiler on one page -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/Pipeline.h"
#include "compiler/lowering/cpu/CpuTarget.h"
#include "compiler/lowering/cuda/CudaTarget.h"
#include "compiler/transforms/Passes.h"
#include "mlir/Pass/PassManager.h"
#include "llvm/ADT/SetVector.h"
#include "llvm/ADT/StringExtras.h"

using namespace mlir;

namespace dlc {

/// Runs one leg of the way, printed and timed as asked.
static LogicalResult runPasses(ModuleOp module, const PipelineOptions &options, llvm::function_ref<void(OpPassManager &)> build) {
  PassManager passes(module.getContext(), ModuleOp::getOperationName());
  if (!options.printIrAfter.empty()) {
    auto asked = [names = options.printIrAfter](Pass *pass, Operation *) {
      return llvm::is_contained(names, "all") || llvm::is_contained(names, pass->getArgument());
    };
    passes.enableIRPrinting([](Pass *, Operation *) { return false; }, asked, /*printModuleScope=*/false, /*printAfterOnlyOnChange=*/false,
                            /*printAfterOnlyOnFailure=*/false, llvm::errs());
  }
  if (options.timing)
    passes.enableTiming(*options.timing);
  build(passes);
  return passes.run(module);
}

/// From derivatives to kernels, which are formed once for all targets: what a GPU's engine does not know is taken apart where there is a GPU.
static void buildFusion(OpPassManager &passes, const PipelineOptions &options) {
  OpPassManager &model = passes.nest<dl::ModelOp>();
  model.addPass(createSimplify());      // first: maximum(x, 0) has to be relu before it is derived
  model.addPass(createBatchProducts()); // what is multiplied before a loop has its derivative outside of it, too
  model.addPass(createSimplify());      // a product of all turns may be one of an embedding's table
  model.addPass(createDifferentiate()); // of whole composites, whose gradients are simpler than their parts'
  model.addPass(createSimplify());      // what nobody reads of the gradients goes before it is taken apart
  model.addPass(createBatchProducts()); // the sums over turns that gradients make
  model.addPass(createSimplify());
  model.addPass(createRoundOperands()); // now that all products are there
  model.addPass(createDecompose({/*forEngine=*/!options.cuda}));
  model.addPass(createSimplify()); // the parts of softmax and of cross entropy are the same ones
  model.addPass(createFuse());
}

/// Leaves the functions that a target compiles.
static void keepFunctions(ModuleOp module, llvm::function_ref<bool(dl::FuncOp)> keeps) {
  for (auto model : module.getOps<dl::ModelOp>())
    for (auto function : llvm::make_early_inc_range(model.getBody().front().getOps<dl::FuncOp>()))
      if (!keeps(function))
        function.erase();
}

LogicalResult lowerToLlvm(ModuleOp module, const PipelineOptions &options, ModelDescription &description, OwningOpRef<ModuleOp> *kernels) {
  assert((!options.cuda || kernels) && "a GPU's kernels need a place");
  std::string error;
  std::optional<cpu::CpuInfo> cpu = cpu::CpuInfo::forFeatures(options.target.triple, options.target.baseline, options.target.featureString(), error);
  if (!cpu)
    return module.emitError() << "internal compiler error: " << error;
  if (!cpu->hasFma)
    return module.emitError() << "the CPU target needs AVX2 and FMA, which '" << options.target.cpu << "' does not have; use -march=x86-64-v3 or a later processor";

  // The legs of each target's way from kernels to LLVM, each followed by a stage at which one can stop.
  struct Leg {
    std::function<void(OpPassManager &)> build;
    std::optional<Stage> stage;
  };
  std::vector<Leg> cpuLegs = {
      {[&](OpPassManager &passes) { passes.nest<dl::ModelOp>().addPass(createPlanMemory(cpu::workspaceOf(*cpu))); }, Stage::Plan},
      {[&](OpPassManager &passes) { passes.addPass(cpu::createCpuEmitKernels(*cpu, description)); }, Stage::Lowered},
      {cpu::buildLlvmPipeline, std::nullopt},
  };
  std::vector<Leg> cudaLegs = {
      {[&](OpPassManager &passes) { passes.nest<dl::ModelOp>().addPass(createPlanMemory()); }, Stage::Plan},
      {[&](OpPassManager &passes) { passes.addPass(cuda::createCudaEmitKernels(*options.cuda, description)); }, Stage::Lowered},
      {cuda::buildLlvmPipeline, std::nullopt},
  };

  // A name that no pass has is a slip that would print nothing.
  if (!options.printIrAfter.empty()) {
    llvm::SetVector<StringRef> known;
    std::string all;
    llvm::raw_string_ostream os(all);
    auto collect = [&](llvm::function_ref<void(OpPassManager &)> build) {
      PassManager passes(module.getContext(), ModuleOp::getOperationName());
      build(passes);
      passes.printAsTextualPipeline(os);
      os << ",";
    };
    collect([&](OpPassManager &passes) { buildFusion(passes, options); });
    for (const Leg &leg : cpuLegs)
      collect(leg.build);
    if (options.cuda)
      for (const Leg &leg : cudaLegs)
        collect(leg.build);
    // "builtin.module(dl.model(dl-simplify{option=1},dl-fuse)),": names of passes have no dot.
    for (StringRef rest = all; !rest.empty();) {
      size_t end = rest.find_first_of("(),{");
      StringRef name = rest.take_front(end);
      if (!name.empty() && !name.contains('.'))
        known.insert(name);
      if (end != StringRef::npos && rest[end] == '{')
        end = rest.find('}');
      rest = end == StringRef::npos ? StringRef() : rest.drop_front(end + 1);
    }
    for (const std::string &name : options.printIrAfter)
      if (name != "all" && !known.contains(name))
        return emitError(UnknownLoc::get(module.getContext())) << "there is no pass '" << name << "' to print after; there are all, " << llvm::join(known, ", ");
  }

  // Kernels are formed once, whatever runs them.
  if (failed(runPasses(module, options, [&](OpPassManager &passes) { buildFusion(passes, options); })))
    return failure();
  if (options.atStage && !options.atStage(Stage::Fused, module))
    return success();

  auto isInit = [](dl::FuncOp function) { return function->hasAttr("init"); };
  if (options.cuda) {
    *kernels = module.clone();
    keepFunctions(**kernels, [&](dl::FuncOp function) { return !isInit(function); });
  }
  if (!options.cpu)
    keepFunctions(module, isInit);
  for (auto [cpuLeg, cudaLeg] : llvm::zip_equal(cpuLegs, cudaLegs)) {
    if (failed(runPasses(module, options, cpuLeg.build)) || (options.cuda && failed(runPasses(**kernels, options, cudaLeg.build))))
      return failure();
    if (!cpuLeg.stage || !options.atStage)
      continue;
    bool goesOn = true;
    if (options.cpu)
      goesOn = options.atStage(*cpuLeg.stage, module);
    if (options.cuda)
      goesOn = options.atStage(*cpuLeg.stage, **kernels);
    if (!goesOn)
      return success();
  }
  return success();
}

} // namespace dlc
