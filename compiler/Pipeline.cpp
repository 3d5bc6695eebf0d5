//===- Pipeline.cpp - the compiler on one page -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "compiler/Pipeline.h"
#include "compiler/lowering/cpu/CpuTarget.h"
#include "compiler/transforms/Passes.h"
#include "mlir/Pass/PassManager.h"

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

LogicalResult lowerToLlvm(ModuleOp module, const PipelineOptions &options, ModelDescription &description) {
  std::string error;
  std::optional<cpu::CpuInfo> cpu = cpu::CpuInfo::forFeatures(options.target.triple, options.target.baseline, options.target.featureString(), error);
  if (!cpu)
    return module.emitError() << "internal compiler error: " << error;
  if (!cpu->hasFma)
    return module.emitError() << "the CPU target needs AVX2 and FMA, which '" << options.target.cpu << "' does not have; use -march=x86-64-v3 or a later processor";
  auto goesOn = [&](Stage stage) { return !options.atStage || options.atStage(stage, module); };

  // From derivatives to kernels.
  LogicalResult fused = runPasses(module, options, [](OpPassManager &passes) {
    OpPassManager &model = passes.nest<dl::ModelOp>();
    model.addPass(createSimplify());      // first: maximum(x, 0) has to be relu before it is derived
    model.addPass(createDifferentiate()); // of whole composites, whose gradients are simpler than their parts'
    model.addPass(createSimplify());      // what nobody reads of the gradients goes before it is taken apart
    model.addPass(createDecompose());
    model.addPass(createSimplify()); // the parts of softmax and of cross entropy are the same ones
    model.addPass(createFuse());
  });
  if (failed(fused))
    return failure();
  if (!goesOn(Stage::Fused))
    return success();

  LogicalResult planned = runPasses(module, options, [&](OpPassManager &passes) { passes.nest<dl::ModelOp>().addPass(createPlanMemory(cpu::workspaceSize(*cpu))); });
  if (failed(planned))
    return failure();
  if (!goesOn(Stage::Plan))
    return success();

  if (failed(runPasses(module, options, [&](OpPassManager &passes) { passes.addPass(cpu::createCpuEmitKernels(*cpu, description)); })))
    return failure();
  if (!goesOn(Stage::Lowered))
    return success();
  return runPasses(module, options, [](OpPassManager &passes) { cpu::buildLlvmPipeline(passes); });
}

} // namespace dlc
