//===- EmitObject.cpp - LLVM IR to object code -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "EmitObject.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/Config/llvm-config.h"
#include "llvm/IR/IRBuilder.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Module.h"
#include "llvm/IR/Verifier.h"
#include "llvm/Object/ELFObjectFile.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Support/MathExtras.h"
#include "llvm/Support/raw_ostream.h"
#include "llvm/Target/TargetMachine.h"

#ifndef DLC_VERSION
#error "the build names the version: DLC_VERSION"
#endif

using namespace llvm;

namespace dlc {

std::string compilerVersion() { return "dlc " DLC_VERSION ", LLVM " LLVM_VERSION_STRING; }

namespace {

/// The C functions that generated code may call: scalar mathematics, for each type, and what LLVM
/// itself makes of loops that set and copy memory.
bool isAllowed(StringRef symbol) {
  static constexpr StringLiteral exact[] = {"memcpy", "memmove", "memset", "_GLOBAL_OFFSET_TABLE_",
                                            runtimeSymbol, cudaHalfSymbol};
  if (is_contained(exact, symbol))
    return true;
  static constexpr StringLiteral math[] = {
      "acos",     "acosh", "asin", "asinh",     "atan", "atan2",     "atanh", "cbrt",   "ceil",
      "copysign", "cos",   "cosh", "erf",       "erfc", "exp",       "exp2",  "expm1",  "fabs",
      "floor",    "fma",   "fmax", "fmin",      "fmod", "hypot",     "ldexp", "lgamma", "log",
      "log10",    "log1p", "log2", "nearbyint", "pow",  "remainder", "rint",  "round",  "roundeven",
      "sin",      "sinh",  "sqrt", "tan",       "tanh", "tgamma",    "trunc"};
  if (is_contained(math, symbol))
    return true;
  return symbol.consume_back("f") && is_contained(math, symbol);
}

Error internalError(const Twine &what) {
  return createStringError("internal compiler error: " + what);
}

Constant *i32(LLVMContext &context, uint32_t value) {
  return ConstantInt::get(Type::getInt32Ty(context), value);
}

GlobalVariable *addConstant(Module &module, Constant *value, const Twine &name) {
  auto *global = new GlobalVariable(module, value->getType(), /*isConstant=*/true,
                                    GlobalValue::InternalLinkage, value, name);
  return global;
}

/// The note's global; \p blob becomes a pointer to the description in it.
///
/// An ELF note is a header of three words, its name and its bytes, one after the other. Where the
/// description holds constants it has to start at a multiple of 64: an empty note in front makes up
/// for the header. Readers walk over it, as over any note of another type.
GlobalVariable *addNote(Module &module, const Blob &description, Constant *&blob) {
  LLVMContext &context = module.getContext();
  static_assert(sizeof(DL_NOTE_NAME) == 4, "the name needs no padding");
  constexpr uint32_t headerBytes = 3 * sizeof(uint32_t) + sizeof(DL_NOTE_NAME);
  SmallVector<Constant *> fields;
  auto addHeader = [&](uint32_t bytes, uint32_t type) {
    append_range(fields, ArrayRef<Constant *>{i32(context, sizeof(DL_NOTE_NAME)),
                                              i32(context, bytes), i32(context, type),
                                              ConstantDataArray::getString(context, DL_NOTE_NAME)});
  };
  if (description.alignment > 8) {
    uint32_t padding = description.alignment - 2 * headerBytes;
    addHeader(padding, DL_NOTE_TYPE + 1);
    fields.push_back(
        ConstantDataArray::getString(context, std::string(padding, '\0'), /*AddNull=*/false));
  }
  addHeader(description.bytes.size(), DL_NOTE_TYPE);
  unsigned blobField = fields.size();
  fields.push_back(ConstantDataArray::getString(
      context, StringRef(description.bytes.data(), description.bytes.size()),
      /*AddNull=*/false));
  auto *value = cast<ConstantStruct>(ConstantStruct::getAnon(fields, /*Packed=*/true));
  GlobalVariable *note = addConstant(module, value, "dl_note");
  note->setSection(".note." DL_NOTE_NAME);
  note->setAlignment(Align(std::max<uint32_t>(8, description.alignment)));
  blob = ConstantExpr::getInBoundsGetElementPtr(
      value->getType(), note, ArrayRef<Constant *>{i32(context, 0), i32(context, blobField)});
  return note;
}

/// "folder/m.dl:3" without the folder: the bytes of an artefact don't depend on where its program
/// lies.
/// "<library>/nn.dl:3" is the same everywhere.
void dropFolder(std::string &location) {
  if (!StringRef(location).starts_with("<"))
    location.erase(0, location.rfind('/') + 1); // all of it stays where there is no '/'
}

} // namespace

Error addModelData(Module &module, ModelDescription &model, const Target &target) {
  LLVMContext &context = module.getContext();
  model.compiler = compilerVersion();
  model.triple = target.triple;
  model.cpu = target.cpu;
  model.features = target.featureList();
  model.sortFunctions();
  for (FunctionDescription &function : model.functions) {
    for (KernelDescription &kernel : function.kernels)
      dropFolder(kernel.location);
    if (function.cuda)
      for (CudaLaunchDescription &launch : function.cuda->launches)
        dropFolder(launch.location);
  }
  for (FaultDescription &fault : model.faults)
    dropFolder(fault.location);

  // The name is in the object's symbol table: nothing of the file's own name may get there.
  module.setModuleIdentifier(model.name);
  module.setSourceFileName(model.name);
  module.setTargetTriple(Triple(target.triple));
  if (!module.getModuleFlag("PIC Level"))
    module.setPICLevel(PICLevel::BigPIC);
  for (Function &function : module) {
    if (function.isDeclaration())
      continue;
    function.addFnAttr("target-cpu", target.baseline);
    function.addFnAttr("tune-cpu", target.cpu);
    function.addFnAttr("target-features", target.featureString());
    function.setDoesNotThrow();
  }

  Expected<Blob> description = serialize(model);
  if (!description)
    return description.takeError();
  Constant *blob = nullptr;
  addNote(module, *description, blob);

  std::string querySymbol = model.querySymbol();
  for (StringRef taken :
       {StringRef(querySymbol), StringRef(runtimeSymbol), StringRef(cudaHalfSymbol)})
    if (module.getNamedValue(taken))
      return createStringError("'" + taken +
                               "' is a symbol of every artefact; give the function another name");

  PointerType *pointer = PointerType::getUnqual(context);
  Constant *null = ConstantPointerNull::get(pointer);
  // One function of the module for each of the model's; null where it has no symbol.
  auto tableOf = [&](std::string FunctionDescription::*symbol,
                     StringRef name) -> Expected<Constant *> {
    SmallVector<Constant *> entries;
    for (const FunctionDescription &function : model.functions) {
      if ((function.*symbol).empty()) {
        entries.push_back(null);
        continue;
      }
      Function *entry = module.getFunction(function.*symbol);
      if (!entry || entry->isDeclaration())
        return internalError("function '" + function.name + "' has no entry '" + function.*symbol +
                             "'");
      entries.push_back(entry);
    }
    return addConstant(module, ConstantArray::get(ArrayType::get(pointer, entries.size()), entries),
                       name);
  };
  Expected<Constant *> entryTable = tableOf(&FunctionDescription::entrySymbol, "dl_entries");
  if (!entryTable)
    return entryTable.takeError();
  Expected<Constant *> preparationTable = null;
  if (any_of(model.functions,
             [](const FunctionDescription &f) { return !f.preparationSymbol.empty(); }))
    preparationTable = tableOf(&FunctionDescription::preparationSymbol, "dl_preparations");
  if (!preparationTable)
    return preparationTable.takeError();

  auto *runtime =
      cast<GlobalVariable>(module.getOrInsertGlobal(runtimeSymbol, Type::getInt8Ty(context)));
  runtime->setConstant(true);
  runtime->setVisibility(GlobalValue::HiddenVisibility);
  // The runtime's half for GPUs is linked only where it has something to run.
  Constant *cudaHalf = null;
  if (reinterpret_cast<const dl_blob *>(description->bytes.data())->cuda) {
    auto *half =
        cast<GlobalVariable>(module.getOrInsertGlobal(cudaHalfSymbol, Type::getInt8Ty(context)));
    half->setConstant(true);
    half->setVisibility(GlobalValue::HiddenVisibility);
    cudaHalf = half;
  }
  Constant *table =
      ConstantStruct::getAnon({i32(context, DL_ABI_VERSION), i32(context, sizeof(dl_model)), blob,
                               *entryTable, runtime, cudaHalf, *preparationTable});
  GlobalVariable *modelTable = addConstant(module, table, "dl_model");

  Function *query = Function::Create(FunctionType::get(pointer, {Type::getInt32Ty(context)}, false),
                                     GlobalValue::ExternalLinkage, querySymbol, module);
  query->addFnAttr("target-cpu",
                   target.baseline); // it runs before the processor is checked: no features
  query->setDoesNotThrow();
  IRBuilder<> builder(BasicBlock::Create(context, "", query));
  Value *known = builder.CreateICmpEQ(query->getArg(0), i32(context, DL_ABI_VERSION));
  builder.CreateRet(builder.CreateSelect(known, modelTable, null));

  for (GlobalValue &value : module.global_values())
    if (!value.isDeclaration() && &value != query) {
      value.setVisibility(GlobalValue::DefaultVisibility); // internal symbols have no other
      value.setLinkage(GlobalValue::InternalLinkage);
    }

  std::string message;
  raw_string_ostream stream(message);
  if (verifyModule(module, &stream))
    return internalError("broken LLVM IR: " + message);
  return Error::success();
}

void optimizeModule(Module &module, TargetMachine &machine, unsigned optLevel) {
  module.setDataLayout(machine.createDataLayout());
  PipelineTuningOptions tuning;
  tuning.LoopVectorization = false;
  tuning.LoopInterleaving = false;
  tuning.SLPVectorization = false;
  tuning.LoopUnrolling = false;
  PassBuilder builder(&machine, tuning);
  LoopAnalysisManager loops;
  FunctionAnalysisManager functions;
  CGSCCAnalysisManager components;
  ModuleAnalysisManager modules;
  builder.registerModuleAnalyses(modules);
  builder.registerCGSCCAnalyses(components);
  builder.registerFunctionAnalyses(functions);
  builder.registerLoopAnalyses(loops);
  builder.crossRegisterProxies(loops, functions, components, modules);
  OptimizationLevel level = optLevel == 0   ? OptimizationLevel::O0
                            : optLevel == 1 ? OptimizationLevel::O1
                            : optLevel == 2 ? OptimizationLevel::O2
                                            : OptimizationLevel::O3;
  ModulePassManager passes = optLevel == 0 ? builder.buildO0DefaultPipeline(level)
                                           : builder.buildPerModuleDefaultPipeline(level);
  passes.run(module, modules);
}

static Expected<SmallVector<char, 0>> emit(Module &module, TargetMachine &machine,
                                           CodeGenFileType type) {
  module.setDataLayout(machine.createDataLayout());
  SmallVector<char, 0> bytes;
  raw_svector_ostream stream(bytes);
  legacy::PassManager passes;
  if (machine.addPassesToEmitFile(passes, stream, nullptr, type))
    return internalError("LLVM writes no code for " + module.getTargetTriple().str());
  passes.run(module);
  return bytes;
}

Expected<SmallVector<char, 0>> emitAssembly(Module &module, TargetMachine &machine) {
  return emit(module, machine, CodeGenFileType::AssemblyFile);
}

Expected<SmallVector<char, 0>> emitObject(Module &module, TargetMachine &machine,
                                          ArrayRef<StringRef> defined) {
  Expected<SmallVector<char, 0>> object = emit(module, machine, CodeGenFileType::ObjectFile);
  if (!object)
    return object.takeError();
  if (Error error = checkUndefinedSymbols(StringRef(object->data(), object->size()), defined))
    return std::move(error);
  return object;
}

Expected<std::vector<StringRef>> undefinedSymbols(StringRef object) {
  Expected<std::unique_ptr<object::ObjectFile>> file =
      object::ObjectFile::createObjectFile(MemoryBufferRef(object, "object"));
  if (!file)
    return file.takeError();
  std::vector<StringRef> names;
  for (const object::SymbolRef &symbol : (*file)->symbols()) {
    Expected<uint32_t> flags = symbol.getFlags();
    if (!flags)
      return flags.takeError();
    if (!(*flags & object::SymbolRef::SF_Undefined) ||
        (*flags & object::SymbolRef::SF_FormatSpecific))
      continue;
    Expected<StringRef> name = symbol.getName();
    if (!name)
      return name.takeError();
    names.push_back(*name);
  }
  return names;
}

Error checkUndefinedSymbols(StringRef object, ArrayRef<StringRef> defined) {
  Expected<std::vector<StringRef>> names = undefinedSymbols(object);
  if (!names)
    return names.takeError();
  for (StringRef name : *names)
    if (!isAllowed(name) && !is_contained(defined, name))
      return internalError("generated code needs '" + name + "', which no artefact has");
  return Error::success();
}

} // namespace dlc
