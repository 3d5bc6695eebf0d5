//===- Compile.cpp - a program's text to its artefacts -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Front end, passes, LLVM, link; every output is made in memory first, and only when all are there
// is any written.
//
//===----------------------------------------------------------------------===//

#include "Compile.h"
#include "Pipeline.h"
#include "Registration.h"
#include "emit/EmitCuda.h"
#include "emit/EmitHeader.h"
#include "emit/EmitObject.h"
#include "emit/ExternCode.h"
#include "emit/LinkModel.h"
#include "emit/OutputFile.h"
#include "frontends/language/Language.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/Support/Timing.h"
#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/NVVM/NVVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/Module.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/WithColor.h"
#include "llvm/Support/raw_ostream.h"
#include "llvm/Target/TargetMachine.h"
#include "llvm/Transforms/Utils/Cloning.h"
#include <functional>

using namespace llvm;

namespace dlc {

void reportError(const std::string &message) {
  outs().flush();
  WithColor::error(errs(), "dlc") << message << "\n";
}

std::string checkTarget(const std::string &march, const std::string &triple) {
  Expected<Target> target = resolveTarget(march, triple);
  if (!target)
    return toString(target.takeError());
  if (!target->has("avx2") || !target->has("fma"))
    return "processor '" + target->cpu + "' has no AVX2 and FMA, which the CPU target needs; -march takes x86-64-v3 and later ones";
  return "";
}

std::string checkGpuArchs(const std::vector<std::string> &archs) {
  Expected<CudaTargets> targets = resolveCudaTargets(archs, [](const std::string &) {});
  return targets ? "" : toString(targets.takeError());
}

static void reportWarning(const std::string &message) {
  outs().flush();
  WithColor::warning(errs(), "dlc") << message << "\n";
}

std::string versionText() { return compilerVersion(); }

namespace {

/// One run of the compiler: from the program to the bytes of each output.
class Compilation {
public:
  Compilation(const CompileOptions &options, ArrayRef<Output> outputs, CompileResult &result)
      : options(options), outputs(outputs), result(result), contents(outputs.size()) {
    if (options.timePasses)
      timing.setEnabled(true);
  }

  bool run() {
    mlir::TimingScope total = timing.getRootScope();
    bool ok = compile(total);
    total.stop();
    return ok && write();
  }

private:
  bool wants(Stage stage) const {
    return any_of(outputs, [&](const Output &output) { return output.stage == stage; });
  }
  /// Whether anything is wanted that comes after a stage. The description, all that a header needs
  /// and all that is wanted without outputs, is there once the program is lowered.
  bool wantsBeyond(Stage stage) const {
    if (stage < Stage::Lowered && (outputs.empty() || wants(Stage::Header)))
      return true;
    return any_of(outputs, [&](const Output &output) {
      return output.stage > stage && output.stage != Stage::Header;
    });
  }
  void add(Stage stage, StringRef text) {
    for (auto [i, output] : enumerate(outputs))
      if (output.stage == stage)
        contents[i] += text.str();
  }
  void add(Stage stage, const SmallVectorImpl<char> &bytes) {
    add(stage, StringRef(bytes.data(), bytes.size()));
  }

  void addIr(Stage stage, mlir::ModuleOp module) {
    if (!wants(stage))
      return;
    std::string text;
    raw_string_ostream stream(text);
    if (any_of(enumerate(outputs), [&](auto entry) {
          return entry.value().stage == stage && !contents[entry.index()].empty();
        }))
      stream << "// -----\n"; // of another target, as mlir-opt --split-input-file has it
    module.print(stream);
    stream << "\n";
    add(stage, text);
  }

  bool fail(Error error) {
    reportError(toString(std::move(error)));
    return false;
  }

  bool compile(mlir::TimingScope &total);
  /// False after an error that was reported, or that \p externs gave to the context's handler.
  bool emit(mlir::ModuleOp module, ModelDescription &model, ExternCode &externs,
            mlir::TimingScope &total);
  bool emitKernels(mlir::ModuleOp kernels, ModelDescription &model, ExternCode &externs,
                   mlir::TimingScope &total);
  bool write();

  const CompileOptions &options;
  ArrayRef<Output> outputs;
  CompileResult &result;
  std::vector<std::string> contents; // of each output
  mlir::DefaultTimingManager timing;
  Target target;
};

bool Compilation::compile(mlir::TimingScope &total) {
  Expected<Target> resolved = resolveTarget(options.march, options.triple);
  if (!resolved)
    return fail(resolved.takeError());
  target = std::move(*resolved);

  mlir::DialectRegistry registry;
  registerDialects(registry);
  mlir::registerBuiltinDialectTranslation(registry);
  mlir::registerLLVMDialectTranslation(registry);
  mlir::registerNVVMDialectTranslation(registry);
  // One thread: a program compiles in less time than it takes to start more.
  mlir::MLIRContext context(registry, mlir::MLIRContext::Threading::DISABLED);

  SourceMgr sources;
  Diagnostics diagnostics(sources);
  MlirDiagnosticHandler handler(&context, diagnostics);
  auto failed = [&] {
    if (!diagnostics.hasErrors())
      diagnostics.error("internal compiler error: compilation failed without a message");
    diagnostics.print(errs());
    return false;
  };

  LanguageOptions language;
  language.includePaths = options.includePaths;
  for (const auto &[name, value] : options.defines)
    language.defines[name] = value;
  language.f64 = options.f64;
  language.model = options.model;
  language.checkGradOf = options.checkGradOf;
  language.dependencies = &result.dependencies;
  mlir::TimingScope frontEnd = total.nest("Front end");
  mlir::OwningOpRef<mlir::ModuleOp> module =
      compileLanguage(context, sources, options.input, language, diagnostics);
  frontEnd.stop();
  if (!module || diagnostics.hasErrors())
    return failed();
  diagnostics.print(errs()); // what is checked on entry
  addIr(Stage::Dl, *module);
  if (!wantsBeyond(Stage::Dl))
    return true;

  PipelineOptions pipeline;
  pipeline.target = target;
  pipeline.optLevel = options.optLevel;
  pipeline.cpu = options.cpu;
  if (options.cuda) {
    pipeline.cuda.emplace();
    pipeline.cuda->gemm = options.gemm == "own"        ? cuda::GemmChoice::Own
                          : options.gemm == "cublaslt" ? cuda::GemmChoice::Cublaslt
                                                       : cuda::GemmChoice::Auto;
    pipeline.cuda->tf32 = options.tf32;
  }
  pipeline.printIrAfter = options.printIrAfter;
  mlir::TimingScope passes = total.nest("Passes");
  pipeline.timing = &passes;
  pipeline.atStage = [&](Stage stage, mlir::ModuleOp ir) {
    addIr(stage, ir);
    return wantsBeyond(stage);
  };
  auto model = std::make_shared<ModelDescription>();
  mlir::OwningOpRef<mlir::ModuleOp> kernels;
  if (mlir::failed(lowerToLlvm(*module, pipeline, *model, &kernels)) || diagnostics.hasErrors())
    return failed();
  passes.stop();
  if (model->name.empty())
    return true; // stopped before the description
  model->compiler = compilerVersion();
  result.model = model;
  if (wants(Stage::Header))
    add(Stage::Header, emitHeader(*model));
  if (!wantsBeyond(Stage::Lowered))
    return true;
  auto read = [&](StringRef path) -> StringRef {
    for (unsigned id = 1; id <= sources.getNumBuffers(); ++id)
      if (const MemoryBuffer *buffer = sources.getMemoryBuffer(id);
          buffer->getBufferIdentifier() == path)
        return buffer->getBuffer();
    return "";
  };
  ExternCode externs(*model, context, read);
  bool ok = !kernels || emitKernels(*kernels, *model, externs, total);
  ok = ok && (!wantsBeyond(Stage::Cubin) || emit(*module, *model, externs, total));
  diagnostics.print(errs()); // of the user's own files
  return ok;
}

/// The GPU's images, into the description.
bool Compilation::emitKernels(mlir::ModuleOp kernels, ModelDescription &model, ExternCode &externs,
                              mlir::TimingScope &total) {
  Expected<CudaTargets> targets = resolveCudaTargets(options.gpuArchs, reportWarning);
  if (!targets)
    return fail(targets.takeError());
  mlir::TimingScope generation = total.nest("PTX");
  LLVMContext context;
  std::unique_ptr<Module> code = mlir::translateModuleToLLVMIR(kernels, context, model.name);
  if (!code)
    return fail(createStringError(
        "internal compiler error: the GPU's kernels do not translate to LLVM"));
  code->setSourceFileName(model.name);
  if (wants(Stage::Llvm) && !options.cpu) {
    std::string text;
    raw_string_ostream stream(text);
    code->print(stream, nullptr);
    add(Stage::Llvm, text);
  }
  if (Error error = emitPtx(*code, *targets, options.optLevel, *model.cuda))
    return fail(std::move(error));
  // Of each architecture its own: what it is compiled for is known to CUDA C++.
  std::string ours = model.cuda->images.front().bytes;
  if (externs.hasCuda())
    for (CudaImage &image : model.cuda->images) {
      FailureOr<std::string> joined = externs.joinCuda(image.bytes, image.arch);
      if (failed(joined))
        return false;
      image.bytes = std::move(*joined);
    }
  add(Stage::Ptx, model.cuda->images.front().bytes);
  generation.stop();
  if (!wantsBeyond(Stage::Ptx))
    return true;
  mlir::TimingScope assembly = total.nest("ptxas");
  bool reported = false;
  auto joined = [&](uint32_t arch) -> Expected<std::string> {
    FailureOr<std::string> ptx = externs.joinCuda(ours, arch);
    reported |= failed(ptx);
    return failed(ptx) ? Expected<std::string>(createStringError("")) : std::move(*ptx);
  };
  using PtxFor = function_ref<Expected<std::string>(uint32_t)>;
  if (Error error = assembleCubins(*targets, *model.cuda, reportWarning,
                                   externs.hasCuda() ? PtxFor(joined) : PtxFor())) {
    if (!reported)
      return fail(std::move(error));
    consumeError(std::move(error));
    return false;
  }
  if (!wants(Stage::Cubin))
    return true;
  for (const CudaImage &image : model.cuda->images)
    if (image.kind == DL_CUDA_CUBIN) {
      add(Stage::Cubin, image.bytes);
      return true;
    }
  return fail(createStringError("there is no cubin to write: ptxas, of the CUDA toolkit, was not "
                                "found or does not know the architecture"));
}

bool Compilation::emit(mlir::ModuleOp module, ModelDescription &model, ExternCode &externs,
                       mlir::TimingScope &total) {
  LLVMContext context;
  mlir::TimingScope translation = total.nest("Translation to LLVM");
  std::unique_ptr<Module> code = mlir::translateModuleToLLVMIR(module, context, model.name);
  if (!code)
    return fail(createStringError(
        "internal compiler error: the lowered program does not translate to LLVM"));
  Expected<std::unique_ptr<TargetMachine>> machine = createTargetMachine(target, options.optLevel);
  if (!machine)
    return fail(machine.takeError());
  if (Error error = addModelData(*code, model, target))
    return fail(std::move(error));
  translation.stop();

  mlir::TimingScope optimization = total.nest("LLVM optimization");
  optimizeModule(*code, **machine, options.optLevel);
  optimization.stop();
  if (wants(Stage::Llvm) && options.cpu) {
    std::string text;
    raw_string_ostream stream(text);
    code->print(stream, nullptr);
    add(Stage::Llvm, text);
  }
  mlir::TimingScope generation = total.nest("Code generation");
  if (wants(Stage::Asm)) {
    Expected<SmallVector<char, 0>> text =
        emitAssembly(*CloneModule(*code), **machine); // which it changes
    if (!text)
      return fail(text.takeError());
    add(Stage::Asm, *text);
  }
  if (!wants(Stage::Object) && !wants(Stage::Archive) && !wants(Stage::Library))
    return true;
  Expected<SmallVector<char, 0>> object = emitObject(*code, **machine, externs.cpuSymbols());
  if (!object)
    return fail(object.takeError());
  FailureOr<std::vector<Bytes>> more = externs.compileForCpu(target);
  if (failed(more))
    return false;
  generation.stop();

  mlir::TimingScope linking = total.nest("Link");
  std::string query = model.querySymbol();
  LinkInput input = {StringRef(object->data(), object->size()), query, {}, *more};
  struct {
    Stage stage;
    std::function<Expected<Bytes>()> link;
  } forms[] = {{Stage::Object, [&] { return linkObject(input); }},
               {Stage::Archive, [&] { return linkArchive(input, model.name + ".o"); }},
               {Stage::Library, [&] { return linkSharedLibrary(input); }}};
  for (auto &form : forms) {
    if (!wants(form.stage))
      continue;
    Expected<Bytes> bytes = form.link();
    if (!bytes)
      return fail(bytes.takeError());
    add(form.stage, *bytes);
  }
  return true;
}

bool Compilation::write() {
  for (auto [output, bytes] : zip_equal(outputs, contents))
    if (Error error = writeOutputFile(output.path, bytes, output.stage == Stage::Library))
      return fail(std::move(error));
  return true;
}

/// A path as make reads it.
std::string quoteForMake(StringRef path) {
  std::string text;
  for (char c : path) {
    if (c == ' ' || c == '#')
      text += '\\';
    if (c == '$')
      text += '$';
    text += c;
  }
  return text;
}

} // namespace

CompileResult compile(const CompileOptions &options, const std::vector<Output> &outputs) {
  CompileResult result;
  result.ok = Compilation(options, outputs, result).run();
  return result;
}

bool writeDependencies(const std::string &path, const std::vector<std::string> &targets,
                       const std::vector<std::string> &dependencies) {
  std::string rule;
  for (const std::string &target : targets)
    rule += (rule.empty() ? "" : " ") + quoteForMake(target);
  rule += ":";
  for (const std::string &dependency : dependencies)
    rule += " \\\n  " + quoteForMake(dependency);
  rule += "\n";
  // A file that is no longer imported, and gone, must not stop make.
  for (const std::string &dependency :
       ArrayRef(dependencies).drop_front(dependencies.empty() ? 0 : 1))
    rule += "\n" + quoteForMake(dependency) + ":\n";
  if (Error error = writeOutputFile(path, rule)) {
    reportError(toString(std::move(error)));
    return false;
  }
  return true;
}

} // namespace dlc
