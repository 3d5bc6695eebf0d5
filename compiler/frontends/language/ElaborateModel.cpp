//===- ElaborateModel.cpp - files, layers, variables, exported functions -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Elaborator.h"
#include "Parser.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/SaveAndRestore.h"
#include <cmath>

using namespace dlc;
using namespace dlc::language;
using llvm::ArrayRef;
using llvm::SaveAndRestore;
using llvm::SMLoc;
using llvm::SMRange;
using llvm::StringRef;
using llvm::Twine;
using std::nullopt;
using std::optional;

/// Dynamic dimensions of a model: what the artefact's description holds.
static constexpr unsigned dimLimit = 16;

Elaborator::Elaborator(mlir::MLIRContext &context, llvm::SourceMgr &sources,
                       const LanguageOptions &options, Diagnostics &diagnostics)
    : context(context), sources(sources), options(options), diagnostics(diagnostics) {
  modes.push_back({/*training=*/false, /*chosen=*/false, /*forced=*/false});
  collectBuiltins();
}

//===----------------------------------------------------------------------===//
// Errors and places
//===----------------------------------------------------------------------===//

SMRange Elaborator::userPlace(SMRange where, Frame *&at) const {
  at = frame;
  while (at && isLibraryFile(diagnostics.fileOf(where.Start))) {
    if (at->call.isValid())
      where = at->call;
    at = at->caller;
  }
  return where;
}

Diagnostics::Report &Elaborator::error(SMRange where, const Twine &message) {
  SMRange inner = where;
  Frame *at;
  where = userPlace(where, at);
  Report &report = diagnostics.error(where, message);
  if (where.Start != inner.Start)
    report.note(inner, "in the library, here");
  // A function or layer that is used in several places fails for the values of one of them.
  unsigned notes = 0;
  for (; at && notes < 3; at = at->caller)
    if (at->call.isValid() && !isLibraryFile(diagnostics.fileOf(at->call.Start)) &&
        at->call.Start != where.Start) {
      report.note(at->call, "in this call");
      ++notes;
    }
  return report;
}

Diagnostics::Report &Elaborator::error(const ast::Expr *expr, const Twine &message) {
  return error(SMRange(expr->range.Start, expr->range.End), message);
}

StringRef Elaborator::sourceOf(SMRange range) {
  return StringRef(range.Start.getPointer(), range.End.getPointer() - range.Start.getPointer());
}

Value Elaborator::unsupported(SMRange where, const Twine &what) {
  error(where, what + " is not supported yet");
  return {};
}

mlir::Location Elaborator::locationOf(SMLoc where) {
  auto plain = [&](SMLoc place) -> mlir::LocationAttr {
    unsigned buffer = place.isValid() ? sources.FindBufferContainingLoc(place) : 0;
    if (!buffer)
      return mlir::UnknownLoc::get(&context);
    auto [line, column] = sources.getLineAndColumn(place, buffer);
    return mlir::FileLineColLoc::get(
        &context, sources.getMemoryBuffer(buffer)->getBufferIdentifier(), line, column);
  };
  mlir::LocationAttr location = plain(where);
  if (!frame)
    return location;
  if (!frame->callLocation && frame->call.isValid()) {
    llvm::SmallVector<Frame *> chain;
    for (Frame *at = frame; at && !at->callLocation; at = at->caller)
      chain.push_back(at);
    for (Frame *at : llvm::reverse(chain)) {
      mlir::LocationAttr outer = at->caller ? at->caller->callLocation : nullptr;
      if (!at->call.isValid())
        at->callLocation = outer;
      else
        at->callLocation =
            outer ? mlir::LocationAttr(mlir::CallSiteLoc::get(plain(at->call.Start), outer))
                  : plain(at->call.Start);
    }
  }
  if (frame->callLocation)
    return mlir::CallSiteLoc::get(location, frame->callLocation);
  return location;
}

std::string Elaborator::describeShape(ArrayRef<mlir::AffineExpr> shape) const {
  return dl::shapeToString(shape, dimNames);
}

std::string Elaborator::describeType(DType dtype, ArrayRef<mlir::AffineExpr> shape) const {
  return nameOf(dtype).str() + (shape.empty() ? "" : describeShape(shape));
}

std::string Elaborator::describeType(mlir::Value value) const {
  return describeType(dtypeOf(value), shapeOf(value));
}

std::string Elaborator::describe(const Value &value) const {
  if (value.isNone())
    return "none";
  if (auto *truth = value.as<BoolValue>())
    return truth->value ? "true" : "false";
  if (auto *number = value.number())
    return number->isRuntime() || number->isComputed() ? "a number" : "the number " + text(*number);
  if (mlir::Value tensor = value.asTensor())
    return describeType(tensor);
  if (auto *string = value.as<StringValue>())
    return ("the string \"" + string->text + "\"").str();
  if (auto *dtype = value.as<DType>())
    return ("the type " + nameOf(*dtype)).str();
  if (isLayerLike(value))
    return value.layer()         ? ("the layer " + value.layer()->name()).str()
           : isWholeLayer(value) ? "a list of layers"
                                 : "a list of layers and other values";
  if (auto *list = value.elements())
    return "a list of " + std::to_string(list->size()) + (list->size() == 1 ? " value" : " values");
  if (value.is<RangeValue>())
    return "a range";
  if (value.is<FunctionValue>() || value.is<ExternValue>() || value.is<BuiltinValue>())
    return "a function";
  if (auto *maker = value.as<LayerMaker>())
    return ("the layer " + maker->decl->name.text + " without its settings").str();
  if (value.is<OptimizerMaker>() || value.is<Optimizer *>())
    return "an optimizer";
  if (value.is<TrainStep *>())
    return "a train step";
  if (value.is<ModuleValue>())
    return "a module";
  if (LayerForm *form = value.form())
    return form->isDerivative ? "the derivatives of a layer" : "a local layer";
  if (value.is<std::shared_ptr<Checkpointed>>())
    return "a function";
  if (value.is<std::shared_ptr<ArrayValue>>() || value.is<DeferredValue>())
    return "a constant tensor";
  return "an error";
}

std::string language::didYouMean(StringRef name, ArrayRef<StringRef> names,
                                 ArrayRef<StringRef> farther) {
  StringRef best;
  unsigned bestDistance = name.size() <= 1 ? 0 : name.size() <= 2 ? 1 : name.size() <= 5 ? 2 : 3;
  for (ArrayRef<StringRef> scope : {names, farther}) {
    StringRef nearer = best; // one of an inner scope wins where it is as close
    for (StringRef candidate : scope) {
      if (candidate == name || candidate.size() <= 1)
        continue; // any name is near to a single letter
      unsigned distance =
          name.edit_distance(candidate, /*AllowReplacements=*/true, bestDistance + 1);
      // The first of equal ones in the order of names, so that messages do not depend on a hash.
      if (distance < bestDistance ||
          (distance == bestDistance && nearer.empty() && (best.empty() || candidate < best))) {
        best = candidate;
        bestDistance = distance;
        nearer = {};
      }
    }
  }
  return best.empty() ? "" : ("; did you mean '" + best + "'?").str();
}

uint32_t language::streamOf(StringRef path) {
  uint32_t hash = 2166136261u;
  for (char c : path)
    hash = (hash ^ static_cast<uint8_t>(c)) * 16777619u;
  return hash;
}

//===----------------------------------------------------------------------===//
// Files and names
//===----------------------------------------------------------------------===//

FileScope *Elaborator::loadBuffer(std::unique_ptr<llvm::MemoryBuffer> buffer,
                                  const std::string &folder, bool library) {
  auto &scope = files.emplace_back(std::make_unique<FileScope>());
  scope->folder = folder;
  scope->library = library;
  unsigned id = sources.AddNewSourceBuffer(std::move(buffer), SMLoc());
  unsigned errors = diagnostics.errorCount();
  scope->ast = parse(arena, sources, id, diagnostics);
  hasHoles |= diagnostics.errorCount() != errors;
  return scope.get();
}

FileScope *Elaborator::load(const std::string &path, SMRange from) {
  llvm::SmallString<256> real;
  std::string key = llvm::sys::fs::real_path(path, real) ? path : real.str().str();
  if (auto found = filesByPath.find(key); found != filesByPath.end())
    return found->second;
  auto buffer = llvm::MemoryBuffer::getFile(path);
  if (!buffer || llvm::sys::fs::is_directory(path)) {
    std::string why = buffer ? "it is a directory" : buffer.getError().message();
    if (from.isValid())
      error(from, "cannot read '" + path + "': " + why);
    else
      diagnostics.error("cannot read '" + path + "': " + why);
    return nullptr;
  }
  if (options.dependencies)
    options.dependencies->push_back(path);
  FileScope *file = loadBuffer(std::move(*buffer), llvm::sys::path::parent_path(path).str(), false);
  filesByPath[key] = file;
  declareItems(file);
  return file;
}

FileScope *Elaborator::import(FileScope *from, const ast::ImportDecl *decl) {
  std::string name = decl->named ? decl->file.str() : decl->name.text.str() + ".dl";
  SMRange where = decl->named ? decl->fileRange : decl->name.range();
  auto join = [&](StringRef folder) {
    llvm::SmallString<256> path(folder);
    llvm::sys::path::append(path, name);
    return path.str().str();
  };
  if (!from->library) {
    std::string path = join(from->folder);
    if (llvm::sys::fs::exists(path))
      return load(path, where);
    for (const std::string &folder : options.includePaths)
      if (path = join(folder); llvm::sys::fs::exists(path))
        return load(path, where);
  }
  std::string key = (libraryPrefix + name).str();
  if (auto found = filesByPath.find(key); found != filesByPath.end())
    return found->second;
  optional<StringRef> text = libraryFile(name);
  if (!text) {
    Report &report =
        error(where, "no file '" + name + "' in the folder of this file" +
                         (options.includePaths.empty() ? "" : ", along -I") + " or in the library");
    if (!decl->named && llvm::sys::fs::exists(join(from->folder + "/" + decl->name.text.str())))
      report.note(where, "a module is a file that ends in .dl");
    return nullptr;
  }
  FileScope *file = loadBuffer(llvm::MemoryBuffer::getMemBuffer(*text, key), "", true);
  filesByPath[key] = file;
  declareItems(file);
  return file;
}

void Elaborator::declareItems(FileScope *file) {
  Frame place; // for places of errors: none is inside a call
  FrameScope scope(*this, place);
  auto declare = [&](const ast::Decl *decl) {
    auto [entry, isNew] = file->decls.try_emplace(decl->name.text, decl);
    if (!isNew)
      error(decl->name.range(), "'" + decl->name.text + "' is declared twice")
          .note(entry->second->name.range(), "first here");
  };
  for (const ast::Decl *item : file->ast->items) {
    declare(item);
    if (auto *import = llvm::dyn_cast<ast::ImportDecl>(item)) {
      if (FileScope *module = this->import(file, import))
        file->modules[item->name.text] = module;
    } else if (llvm::isa<ast::ImportGraphDecl>(item)) {
      unsupported(item->range, "importing a graph");
    } else if (auto *function = llvm::dyn_cast<ast::ExternDecl>(item)) {
      declareExtern(file, function);
    }
  }
}

Value Elaborator::constantOf(FileScope *file, const ast::ConstDecl *decl) {
  StringRef name = decl->name.text;
  if (auto found = file->constants.find(name); found != file->constants.end())
    return found->second;
  if (!file->evaluating.insert(name).second) {
    error(decl->name.range(), "the constant '" + name + "' is defined by itself");
    return {};
  }
  Value value = evaluateConstant(decl->value, file, nullptr);
  file->evaluating.erase(name);
  file->constants[name] = value;
  return value;
}

static bool containsTensor(const Value &value) {
  if (value.asTensor() || value.is<std::shared_ptr<LayerForm>>())
    return true;
  if (auto *number = value.number())
    return number->isRuntime();
  if (auto *list = value.elements())
    return llvm::any_of(*list, containsTensor);
  return false;
}

Value Elaborator::evaluateConstant(const ast::Expr *expr, FileScope *file, Layer *owner) {
  mlir::Block block;
  FunctionState scratch(&context, &block);
  scratch.isScratch = scratch.isConstant = true;
  SaveAndRestore inFunction(function, &scratch);
  SaveAndRestore inDeclaration(declaring, true);
  Frame own;
  own.file = file;
  own.owner = owner;
  bool here = frame && frame->file == file && frame->owner == owner && !frame->fn;
  FrameScope scope(*this, here ? *frame : own);
  Value value = evaluate(expr);
  if (containsTensor(value))
    return DeferredValue{expr, file, owner};
  return value;
}

Value Elaborator::undefer(const Value &value, SMRange where) {
  auto *deferred = value.as<DeferredValue>();
  if (!deferred)
    return value;
  Frame own;
  own.file = deferred->file;
  own.owner = deferred->owner;
  own.caller = frame;
  own.call = where;
  FrameScope scope(*this, own);
  return evaluate(deferred->expr);
}

optional<Value> Elaborator::lookupInFile(FileScope *file, StringRef name, SMRange where) {
  auto found = file->decls.find(name);
  if (found == file->decls.end())
    return nullopt;
  const ast::Decl *decl = found->second;
  if (auto *constant = llvm::dyn_cast<ast::ConstDecl>(decl))
    return undefer(constantOf(file, constant), where);
  if (auto *fn = llvm::dyn_cast<ast::FnDecl>(decl))
    return Value(FunctionValue{fn, file, nullptr});
  if (auto *function = llvm::dyn_cast<ast::ExternDecl>(decl))
    return Value(ExternValue{externs.at(function).get()});
  if (auto *layer = llvm::dyn_cast<ast::LayerDecl>(decl))
    return Value(LayerMaker{layer, file});
  if (auto *optimizer = llvm::dyn_cast<ast::OptimizerDecl>(decl))
    return Value(OptimizerMaker{optimizer, file});
  if (auto module = file->modules.find(name); module != file->modules.end())
    return Value(ModuleValue{module->second});
  return Value(); // an import that failed, a graph: reported at its declaration
}

Value Elaborator::lookup(StringRef name, SMRange where) {
  if (auto local = frame->locals.find(name); local != frame->locals.end())
    return local->second;
  if (OptimizerScope *optimizer = frame->optimizer) {
    if (auto *state = optimizer->state.find(name); state != optimizer->state.end()) {
      Value value = readVariable(state->second, where);
      // The state of an optimizer that is one in all is a number of the step (rule 7).
      mlir::Value tensor = value.asTensor();
      if (tensor && rankOf(tensor) == 0)
        return Number::ofValue(convert(tensor, DType::F64, where));
      return value;
    }
    if (auto *each = optimizer->each.find(name); each != optimizer->each.end())
      return readVariable(each->second, where);
    if (auto *value = optimizer->values.find(name); value != optimizer->values.end())
      return undefer(value->second, where);
  }
  if (Layer *owner = frame->owner) {
    if (auto *member = owner->members.find(name); member != owner->members.end()) {
      if (member->second.kind == Member::Kind::Variable)
        return readVariable(member->second.variable, where);
      return undefer(member->second.value, where);
    }
    if (auto *param = owner->params.find(name); param != owner->params.end())
      return undefer(param->second, where);
  }
  if (frame->file)
    if (optional<Value> value = lookupInFile(frame->file, name, where))
      return *value;
  if (optional<DType> dtype = dtypeNamed(name))
    return dtype == DType::F32 && options.f64 ? DType::F64 : *dtype;
  if (name == "training") {
    if (!modes.back().chosen && !function->trainingRead)
      function->trainingRead = where;
    return Value::boolean(modes.back().training);
  }
  if (name == "pi")
    return Number::ofReal(M_PI);
  if (name == "inf")
    return Number::ofReal(HUGE_VAL);
  if (name == "dl")
    return ModuleValue{nullptr};
  if (isBuiltin(name))
    return BuiltinValue{name};
  // checkNames has reported every name that nothing declares; what is left is a name that has no
  // value here.
  if (auto half = frame->halves.find(name); half != frame->halves.end())
    error(where, "'" + name + "' has a value only where a condition of run time holds")
        .note(half->second, "it is assigned in one branch of this 'if'; give it a value before, or in both");
  else if (!diagnostics.hasErrors())
    error(where, "'" + name + "' has no value here");
  return {};
}

//===----------------------------------------------------------------------===//
// Layers
//===----------------------------------------------------------------------===//

const ast::LayerDecl *Elaborator::chooseModel(FileScope *file) {
  llvm::SmallVector<const ast::LayerDecl *> models;
  for (const ast::Decl *item : file->ast->items)
    if (auto *layer = llvm::dyn_cast<ast::LayerDecl>(item); layer && layer->model)
      models.push_back(layer);
  StringRef path = file->ast->path;
  if (!options.model.empty()) {
    llvm::SmallVector<StringRef> names;
    for (const ast::LayerDecl *model : models) {
      if (model->name.text == options.model)
        return model;
      names.push_back(model->name.text);
    }
    diagnostics.error("'" + path + "' declares no model '" + options.model + "'" +
                      didYouMean(options.model, names));
    return nullptr;
  }
  if (models.empty()) {
    const llvm::MemoryBuffer *buffer = sources.getMemoryBuffer(file->ast->buffer);
    diagnostics.error(SMLoc::getFromPointer(buffer->getBufferStart()),
                      "the file declares no model" +
                          Twine(buffer->getBuffer().trim().empty() ? "; it is empty" : ""));
    return nullptr;
  }
  if (models.size() > 1) {
    Report &report = error(models[1]->name.range(),
                           "'" + path + "' declares several models; choose one with --model");
    for (const ast::LayerDecl *model : models)
      report.note(model->name.range(), "'" + model->name.text + "' is one");
    return nullptr;
  }
  return models.front();
}

Layer *Elaborator::makeModel(const ast::LayerDecl *decl, FileScope *file) {
  layers.push_back(std::make_unique<Layer>());
  Layer *layer = layers.back().get();
  layer->decl = decl;
  layer->file = file;
  layer->madeAt = decl->name.range();
  layer->placed = true;
  model = layer;
  Frame own;
  own.file = file;
  own.owner = layer;
  FrameScope scope(*this, own);

  llvm::SmallVector<StringRef> names;
  for (const ast::Param &param : decl->params)
    names.push_back(param.name.text);
  std::vector<StringRef> defines;
  for (auto &entry : options.defines)
    defines.push_back(entry.getKey());
  llvm::sort(defines);
  for (StringRef define : defines)
    if (!llvm::is_contained(names, define))
      diagnostics.error("-D " + define + ": the model '" + decl->name.text +
                        "' has no parameter of this name" + didYouMean(define, names));

  for (const ast::Param &param : decl->params) {
    StringRef name = param.name.text;
    auto define = options.defines.find(name);
    bool unknown =
        define != options.defines.end() ? StringRef(define->second).trim() == "?" : param.unknown;
    Value value;
    if (unknown) {
      if (dimNames.size() == dimLimit) {
        error(param.name.range(),
              "a model has at most " + Twine(dimLimit) + " sizes that are left to the call");
      } else {
        value = Number::ofSize(mlir::getAffineSymbolExpr(dimNames.size(), &context));
        dimNames.push_back(name);
      }
    } else if (define != options.defines.end()) {
      std::string text = (name + " = " + define->second + "\n").str();
      unsigned errors = diagnostics.errorCount();
      FileScope *command =
          loadBuffer(llvm::MemoryBuffer::getMemBufferCopy(text, ("-D " + name).str()), "", false);
      auto items = command->ast->items;
      if (diagnostics.errorCount() == errors && items.size() == 1 &&
          llvm::isa<ast::ConstDecl>(items[0]))
        value = evaluateConstant(llvm::cast<ast::ConstDecl>(items[0])->value, file, layer);
      else if (diagnostics.errorCount() == errors)
        diagnostics.error("-D " + name + ": '" + define->second + "' is not one value");
    } else if (param.initial) {
      value = evaluateConstant(param.initial, file, layer);
    } else {
      error(param.name.range(), "the parameter '" + name +
                                    "' of the model has no value: give one with -D " + name +
                                    "=VALUE");
    }
    if (layer->params.contains(name))
      error(param.name.range(), "'" + name + "' is declared twice");
    layer->params[name] = value;
  }
  declareMembers(layer, decl->members);
  return layer;
}

/// How deep layers may lie in each other, and functions call each other.
static constexpr unsigned callLimit = 200;

Value Elaborator::makeLayer(const LayerMaker &maker, const CallArguments &arguments) {
  const ast::LayerDecl *decl = maker.decl;
  if (!declaring) {
    error(arguments.range,
          "a layer is made in a declaration, not in a function: it has variables of its own")
        .note(decl->name.range(), "'" + decl->name.text + "' is declared here");
    return {};
  }
  if (calls >= callLimit) {
    error(arguments.range, "layers lie more than " + Twine(callLimit) + " deep in each other");
    return {};
  }
  SaveAndRestore counted(calls, calls + 1);
  layers.push_back(std::make_unique<Layer>());
  Layer *layer = layers.back().get();
  layer->decl = decl;
  layer->file = maker.file;
  layer->madeAt = arguments.range;

  // Arguments were evaluated where the call stands; defaults are where the layer is declared.
  CallArguments given = arguments;
  llvm::SmallVector<StringRef> names;
  for (const ast::Param &param : decl->params)
    names.push_back(param.name.text);
  llvm::SmallVector<Value *> values;
  if (!bindNames(given, "layer '" + decl->name.text + "'", names, 0, values))
    return {};
  Frame own;
  own.file = maker.file;
  own.owner = layer;
  own.caller = frame;
  own.call = arguments.range;
  FrameScope scope(*this, own);
  bool missing = false;
  for (auto [param, value] : llvm::zip(decl->params, values)) {
    if (layer->params.contains(param.name.text))
      error(param.name.range(), "'" + param.name.text + "' is declared twice");
    if (value) {
      layer->params[param.name.text] = *value;
    } else if (param.initial) {
      layer->params[param.name.text] = evaluateConstant(param.initial, maker.file, layer);
    } else {
      error(arguments.range,
            "layer '" + decl->name.text + "': parameter '" + param.name.text + "' is missing")
          .note(param.name.range(), "declared here");
      missing = true;
    }
  }
  if (missing)
    return {};
  declareMembers(layer, decl->members);
  return layer;
}

void Elaborator::declareMember(Layer *layer, ast::Name name, Member member) {
  member.where = name ? name.range() : SMRange();
  auto before = layer->members.find(name.text);
  bool isParam = layer->params.contains(name.text) && name;
  if (before != layer->members.end() || isParam) {
    Report &report =
        name ? error(name.range(), "'" + name.text + "' is declared twice")
             : error(layer->decl->name.range(), "a layer has one function without a name");
    if (before != layer->members.end() && before->second.where.isValid())
      report.note(before->second.where, "first here");
    else
      for (const ast::Param &param : layer->decl->params)
        if (isParam && param.name.text == name.text)
          report.note(param.name.range(), "it is a parameter");
    return;
  }
  layer->members[name.text] = std::move(member);
}

bool Elaborator::evaluateVariableType(const ast::Type *type, DType &dtype, Shape &shape, bool isVar,
                                      SMRange where) {
  optional<std::pair<DType, Shape>> evaluated = evaluateType(type);
  if (!evaluated)
    return false;
  std::tie(dtype, shape) = *evaluated;
  for (auto [dim, size] : llvm::zip_equal(type->dims, shape))
    if (!llvm::isa<mlir::AffineConstantExpr>(size)) {
      error(dim.range, "the shape of a variable must be known at compile time; " +
                           dl::sizeToString(size, dimNames) + " is left to the call");
      return false;
    }
  if (isVar && !isFloat(dtype)) {
    error(type->range,
          "a trained variable must be floating point, not " + nameOf(dtype) + "; write 'state'");
    return false;
  }
  return checkElements(shape, type->range);
}

void Elaborator::declareVariable(Layer *layer, const ast::VariableDecl *decl) {
  auto variable = std::make_unique<Variable>();
  variable->name = decl->name;
  variable->doc = decl->doc;
  variable->kind = decl->keep == ast::Keep::Var ? Variable::Kind::Trained : Variable::Kind::State;
  variable->initial = decl->initial;
  variable->owner = layer;
  Member member{Member::Kind::Variable, {}, variable.get(), {}};
  if (!evaluateVariableType(decl->type, variable->dtype, variable->shape,
                            decl->keep == ast::Keep::Var, decl->range))
    member = {Member::Kind::Value, {}, nullptr, Value()}; // poison: reading it is no second error
  variables.push_back(std::move(variable));
  declareMember(layer, decl->name, member);
}

void Elaborator::declareMembers(Layer *layer, ArrayRef<ast::Decl *> members) {
  for (const ast::Decl *decl : members) {
    switch (decl->kind) {
    case ast::Decl::Kind::Variable:
      declareVariable(layer, llvm::cast<ast::VariableDecl>(decl));
      break;
    case ast::Decl::Kind::Frozen: {
      Value value = evaluateConstant(llvm::cast<ast::FrozenDecl>(decl)->value, layer->file, layer);
      if (!value.isPoison() && !isLayerLike(value)) {
        error(decl->name.range(), "a variable needs a type: 'state " + decl->name.text +
                                      ": f32[…] = …'; only layers go without");
        value = {};
      }
      freeze(value);
      declareMember(layer, decl->name, {Member::Kind::Value, {}, nullptr, value});
      break;
    }
    case ast::Decl::Kind::Const: {
      Value value = evaluateConstant(llvm::cast<ast::ConstDecl>(decl)->value, layer->file, layer);
      declareMember(layer, decl->name, {Member::Kind::Value, {}, nullptr, value});
      break;
    }
    case ast::Decl::Kind::Fn: {
      auto *fn = llvm::cast<ast::FnDecl>(decl);
      declareMember(layer, fn->name ? fn->name : ast::Name{""},
                    {Member::Kind::Function, {}, nullptr, FunctionValue{fn, layer->file, layer}});
      break;
    }
    case ast::Decl::Kind::Train:
      declareTrain(layer, llvm::cast<ast::TrainDecl>(decl));
      break;
    case ast::Decl::Kind::Precision:
      declarePrecision(layer, llvm::cast<ast::PrecisionDecl>(decl));
      break;
    case ast::Decl::Kind::Assert:
      checkAssertion(llvm::cast<ast::AssertDecl>(decl)->assertion, layer);
      break;
    case ast::Decl::Kind::If: {
      auto *branch = llvm::cast<ast::IfDecl>(decl);
      Value condition = evaluateConstant(branch->condition, layer->file, layer);
      if (auto *truth = condition.as<BoolValue>())
        declareMembers(layer, truth->value ? branch->thenMembers : branch->elseMembers);
      else if (condition.is<DeferredValue>())
        error(branch->condition, "a declaration depends on a value that is known at run time only");
      else if (!condition.isPoison())
        error(branch->condition, "a condition must be one bool, found " + describe(condition));
      break;
    }
    default:
      llvm_unreachable("the parser lets no other declaration into a layer");
    }
  }
}

void Elaborator::freeze(const Value &value) {
  if (Layer *layer = value.layer()) {
    layer->frozen = true;
    for (auto &[name, member] : layer->members) {
      if (member.variable)
        member.variable->kind = Variable::Kind::State;
      freeze(member.value);
    }
  } else if (auto *list = value.elements()) {
    for (const Value &element : *list)
      freeze(element);
  }
}

/// Names are given when the model is complete: the first name that a part got, in the order of the
/// text.
void Elaborator::place(const Value &value, const std::string &path) {
  if (auto *list = value.elements()) {
    for (auto [i, element] : llvm::enumerate(*list))
      place(element, path + "." + std::to_string(i));
  } else if (auto *optimizer = value.as<Optimizer *>()) {
    if ((*optimizer)->path.empty())
      (*optimizer)->path = path;
  } else if (Layer *layer = value.layer(); layer && (!layer->placed || layer == model)) {
    layer->placed = true;
    layer->path = path;
    for (auto &[name, member] : layer->members) {
      std::string inner = path.empty() ? name.str() : path + "." + name.str();
      if (member.variable) {
        member.variable->path = inner;
        member.variable->placed = true;
      }
      place(member.value, inner);
    }
  }
}

/// A layer that was made for a parameter alone, `tied(nn.embedding(V, d))`, is named after the
/// parameter.
void Elaborator::placeParams(const Value &value, llvm::DenseSet<Layer *> &seen) {
  if (auto *list = value.elements()) {
    for (const Value &element : *list)
      placeParams(element, seen);
    return;
  }
  Layer *layer = value.layer();
  if (!layer || !seen.insert(layer).second)
    return;
  for (auto &[name, param] : layer->params) {
    place(param, layer->path.empty() ? name.str() : layer->path + "." + name.str());
    placeParams(param, seen);
  }
  for (auto &[name, member] : layer->members)
    placeParams(member.value, seen);
}

void Elaborator::variablesOf(const Value &value, llvm::SetVector<Variable *> &into) {
  if (auto *list = value.elements()) {
    for (const Value &element : *list)
      variablesOf(element, into);
  } else if (Layer *layer = value.layer()) {
    for (auto &[name, member] : layer->members) {
      if (member.variable)
        into.insert(member.variable);
      variablesOf(member.value, into);
    }
    for (auto &[name, param] : layer->params)
      if (isLayerLike(param))
        variablesOf(param, into);
  }
}

//===----------------------------------------------------------------------===//
// Assertions
//===----------------------------------------------------------------------===//

static StringRef predicateOf(Tok op) {
  switch (op) {
  case Tok::Equal:
    return "eq";
  case Tok::NotEqual:
    return "ne";
  case Tok::Less:
    return "lt";
  case Tok::LessEqual:
    return "le";
  case Tok::Greater:
    return "gt";
  default:
    return "ge";
  }
}

/// One of sizesCompared.
static mlir::AffineExpr sizeOfWhole(const Number &n, mlir::MLIRContext *context) {
  return n.isSize() ? n.size : mlir::getAffineConstantExpr(*n.asWhole(), context);
}

void Elaborator::checkAssertion(const ast::Assertion &assertion, Layer *layer) {
  // Of `a and b` each by itself: one may be known while compiling, the other on entry.
  auto *chain = llvm::dyn_cast<ast::ChainExpr>(assertion.condition);
  if (chain && chain->operators.front().kind == Tok::And) {
    unsigned errors = diagnostics.errorCount();
    for (ast::Expr *part : chain->operands) {
      checkAssertion(
          *arena.make<ast::Assertion>(ast::Assertion{assertion.range, part, assertion.words}),
          layer);
      if (diagnostics.errorCount() != errors)
        return;
    }
    return;
  }
  Value value = evaluateConstant(assertion.condition, layer->file, layer);
  if (auto *truth = value.as<BoolValue>()) {
    if (!truth->value)
      error(assertion.range, "assertion failed: " + assertion.words);
    return;
  }
  if (value.isPoison())
    return;
  if (!value.is<DeferredValue>()) {
    error(assertion.condition, "a condition must be one bool, found " + describe(value));
    return;
  }
  mlir::Block block;
  FunctionState scratch(&context, &block);
  scratch.isScratch = scratch.isConstant = true;
  SaveAndRestore inFunction(function, &scratch);
  auto *compare = llvm::dyn_cast<ast::CompareExpr>(assertion.condition);
  if (optional<std::pair<Number, Number>> sizes = sizesCompared(assertion.condition)) {
    // `assert(M == N, …)` makes both names mean one size: what is declared [M] is checked against N
    // on entry.
    auto alias = [&](const Number &name, const Number &other) {
      if (compare->op != Tok::Equal || layer != model || !name.isSize() || name.denominator != 1 ||
          other.isRuntime() || (other.isSize() && other.denominator != 1))
        return false;
      auto symbol = llvm::dyn_cast<mlir::AffineSymbolExpr>(name.size);
      if (!symbol || (other.isSize() && other.size.isFunctionOfSymbol(symbol.getPosition())) ||
          (!other.isSize() && !other.asWhole()))
        return false;
      layer->params[dimNames[symbol.getPosition()]] = other;
      return true;
    };
    if (!alias(sizes->second, sizes->first) && !alias(sizes->first, sizes->second)) {
      sizeAssertions.emplace_back(&assertion, layer);
      asserted.insert(conditionKey(sizeOfWhole(sizes->first, &context), predicateOf(compare->op),
                                   sizeOfWhole(sizes->second, &context)));
    }
    return;
  }
  error(assertion.condition, "an 'assert' among declarations is about what is known while "
                             "compiling, or compares two sizes; one about values stands in a "
                             "function");
}

optional<std::pair<Number, Number>> Elaborator::sizesCompared(const ast::Expr *condition) {
  auto *compare = llvm::dyn_cast<ast::CompareExpr>(condition);
  if (!compare)
    return nullopt;
  Value lhs = evaluate(compare->lhs), rhs = evaluate(compare->rhs);
  const Number *a = lhs.number(), *b = rhs.number();
  if (!a || !b || a->isRuntime() || b->isRuntime() || a->isComputed() || b->isComputed() ||
      !(a->isSize() || b->isSize()))
    return nullopt;
  // Both times the denominators, so that they are whole.
  Number scale = Number::whole(1);
  for (const Number *n : {a, b})
    if (n->kind == Number::Kind::Real && !n->asWhole())
      return nullopt;
    else
      scale = *fold(Tok::Star, scale,
                    Number::whole(n->kind == Number::Kind::Real ? 1 : n->denominator));
  optional<Number> x = fold(Tok::Star, *a, scale), y = fold(Tok::Star, *b, scale);
  if (!x || !y)
    return nullopt;
  return std::make_pair(*x, *y);
}

bool Elaborator::checkSizes(const ast::Expr *condition, StringRef words) {
  optional<std::pair<Number, Number>> sizes = sizesCompared(condition);
  if (!sizes)
    return false;
  mlir::AffineExpr lhs = sizeOfWhole(sizes->first, &context),
                   rhs = sizeOfWhole(sizes->second, &context);
  StringRef predicate = predicateOf(llvm::cast<ast::CompareExpr>(condition)->op);
  // Words of the program come first: they are checked even where another check says the same.
  function->checks.insert(conditionKey(lhs, predicate, rhs));
  mlir::OpBuilder entry = function->atCheck();
  dl::CheckSizeOp::create(entry, locationOf(condition->place), dl::sizeMap({lhs}, &context),
                          predicate, dl::sizeMap({rhs}, &context), words);
  return true;
}

//===----------------------------------------------------------------------===//
// Functions of the model
//===----------------------------------------------------------------------===//

void Elaborator::exportFunctions() {
  for (auto &[name, member] : model->members) {
    if (member.kind == Member::Kind::Function) {
      auto *function = member.value.as<FunctionValue>();
      if (name.empty())
        error(function->decl->range, "a function of a model is exported and needs a name");
      else if (!name.starts_with("_"))
        exportFunction(name, function->decl, nullptr, /*gradients=*/false);
    } else if (member.kind == Member::Kind::Train && !name.starts_with("_")) {
      TrainStep *step = *member.value.as<TrainStep *>();
      if (auto *function = step->function.as<FunctionValue>())
        exportFunction(name, function->decl, step, /*gradients=*/false);
    }
  }
  if (options.checkGradOf.empty())
    return;
  auto *member = model->members.find(options.checkGradOf);
  llvm::SmallVector<StringRef> names;
  for (auto &[name, member] : model->members)
    if (member.kind == Member::Kind::Function)
      names.push_back(name);
  if (member == model->members.end() || member->second.kind != Member::Kind::Function) {
    diagnostics.error("the model '" + model->name() + "' has no function '" + options.checkGradOf +
                      "'" + didYouMean(options.checkGradOf, names));
    return;
  }
  exportFunction(member->first, member->second.value.as<FunctionValue>()->decl, nullptr,
                 /*gradients=*/true);
}

void Elaborator::exportFunction(StringRef name, const ast::FnDecl *fn, const TrainStep *train,
                                bool gradients) {
  unsigned errors = diagnostics.errorCount();
  auto block = std::make_unique<mlir::Block>();
  FunctionState state(&context, block.get());
  state.name =
      name.str(); // of draws: derivatives are checked with the draws of the function itself
  SaveAndRestore inFunction(function, &state);
  SaveAndRestore notDeclaring(declaring, false);
  SMRange where = train ? train->decl->name.range() : fn->name ? fn->name.range() : fn->range;
  Frame own;
  own.file = model->file;
  own.owner = model;
  FrameScope scope(*this, own);

  CallArguments arguments; // without a place: nothing in the program calls it here
  llvm::SmallVector<mlir::NamedAttrList> argumentAttributes;
  for (const ast::Arg &arg : fn->args) {
    if (!arg.type) {
      error(arg.name.range(), "the argument '" + arg.name.text + "' of the exported function '" +
                                  name + "' needs a type; a helper's name begins with '_'");
      continue;
    }
    bool ellipsis = false;
    for (const ast::Dim &dim : arg.type->dims)
      if (!dim.size) {
        error(dim.range, "an exported function declares every size");
        ellipsis = true;
      }
    optional<std::pair<DType, Shape>> type;
    if (!ellipsis)
      type = evaluateType(arg.type);
    if (!type || !checkElements(type->second, arg.type->range))
      continue;
    mlir::Value value =
        block->addArgument(tensorType(type->second, type->first), locationOf(arg.name.range()));
    arguments.positional.push_back(Value::tensor(value));
    mlir::NamedAttrList &attributes = argumentAttributes.emplace_back();
    attributes.set("dl.name", state.builder.getStringAttr(arg.name.text));
    if (arg.initial) {
      Value initial = evaluateConstant(arg.initial, model->file, model);
      const Number *number = initial.number();
      auto *truth = initial.as<BoolValue>();
      if ((!number || !number->isKnown()) && !truth) {
        if (!initial.isPoison())
          error(arg.initial,
                "a default of an exported function is a number, found " + describe(initial));
      } else if (!type->second.empty()) {
        error(arg.initial, "only a scalar argument of an exported function has a default");
      } else {
        double n = truth ? truth->value : number->asDouble();
        if (!isFloat(type->first) && std::trunc(n) != n)
          error(arg.initial, text(*number) + " is not a whole number, and '" + arg.name.text +
                                 "' is " + nameOf(type->first));
        attributes.set("dl.default", state.builder.getF64FloatAttr(n));
      }
    }
  }
  if (arguments.positional.size() != fn->args.size())
    return;

  // Settings that are left to the function are evaluated with the mode that it chooses.
  Value result;
  if (train)
    result = callTrain(const_cast<TrainStep *>(train), arguments);
  else
    result = callFunction(FunctionValue{fn, model->file, model}, arguments);
  if (diagnostics.errorCount() != errors)
    return;

  if (state.trainingRead && state.varAssigned && !train && !fn->train) {
    error(where, "'" + name +
                     "' changes a trained variable and reaches 'training': write 'train fn', "
                     "or it runs in evaluation mode")
        .note(*state.trainingRead, "'training' is read here")
        .note(*state.varAssigned, "a trained variable changes here");
    return;
  }

  // Results under their names.
  FunctionValue declared{fn, model->file, model};
  if (train)
    declared = *train->function.as<FunctionValue>();
  std::vector<ResultDecl> names = resultsOf(declared.decl, declared.file, declared.owner);
  std::vector<Value> values;
  if (auto *list = result.elements())
    values = *list;
  else if (!result.isNone())
    values.push_back(result);
  llvm::SmallVector<mlir::Value> results;
  llvm::SmallVector<std::string> resultNames;
  for (auto [i, value] : llvm::enumerate(values)) {
    mlir::Value tensor =
        toTensor(value, where, ("result " + Twine(i) + " of '" + name + "'").str());
    if (!tensor)
      return;
    results.push_back(tensor);
    if (i < names.size() && !names[i].name.empty())
      resultNames.push_back(names[i].name.str());
    else
      resultNames.push_back(values.size() == 1 ? "out" : "out" + std::to_string(i));
  }
  if (gradients) {
    if (results.empty() || rankOf(results[0]) != 0 || !isFloat(dtypeOf(results[0]))) {
      error(where, "derivatives are checked of one number; the first result of '" + name + "' is " +
                       (results.empty() ? "missing" : describeType(results[0])));
      return;
    }
    results.truncate(1);
    resultNames.resize(1);
    state.assigned.clear(); // looks, changes nothing
    state.logs.clear();
    llvm::DenseSet<mlir::Value> reached = dependencesOf(results[0]);
    llvm::SmallVector<mlir::Value> wanted;
    llvm::SetVector<Variable *> all;
    variablesOf(model, all);
    for (Variable *variable : all)
      if (variable->kind == Variable::Kind::Trained && state.entry.contains(variable) &&
          reached.contains(state.entry[variable])) {
        wanted.push_back(state.entry[variable]);
        resultNames.push_back(variable->path);
      }
    if (!wanted.empty())
      llvm::append_range(results, gradient(results[0], wanted, where));
  }

  // The order of assignments is the order of the model's variables.
  llvm::SetVector<Variable *> order;
  variablesOf(model, order);
  order.insert(slots.begin(), slots.end());
  for (Variable *variable : order)
    if (state.assigned.contains(variable))
      dl::AssignOp::create(state.builder, locationOf(where), variable->path,
                           state.current[variable]);
  if (state.calls) {
    auto type = llvm::cast<mlir::RankedTensorType>(state.calls.getType());
    mlir::Value one = dl::FillOp::create(state.builder, locationOf(where), type, int64_t(1));
    mlir::Value next = dl::AddOp::create(state.builder, locationOf(where), state.calls, one);
    dl::AssignOp::create(state.builder, locationOf(where), callsVariable->path, next);
  }
  // What it prints comes after its results.
  size_t shown = results.size();
  llvm::SmallVector<mlir::Attribute> logs = finishMessages(results, where);
  dl::ReturnOp::create(state.builder, locationOf(where), results);

  // Sizes that no argument carries become arguments. A size is carried where it stands alone in a
  // shape.
  llvm::SmallVector<bool> used(dimNames.size()), carried(dimNames.size());
  auto use = [&](mlir::AffineExpr size) {
    size.walk([&](mlir::AffineExpr part) {
      if (auto symbol = llvm::dyn_cast<mlir::AffineSymbolExpr>(part))
        used[symbol.getPosition()] = true;
    });
  };
  for (mlir::Value argument : block->getArguments())
    for (mlir::AffineExpr size : dl::sizesOf(argument)) {
      use(size);
      if (auto symbol = llvm::dyn_cast<mlir::AffineSymbolExpr>(size))
        carried[symbol.getPosition()] = true;
    }
  auto useOfBody = [&] {
    block->walk([&](mlir::Operation *op) {
      for (mlir::Value result : op->getResults())
        for (mlir::AffineExpr size : dl::sizesOf(result))
          use(size);
      for (mlir::NamedAttribute attribute : op->getAttrs())
        if (auto map = llvm::dyn_cast<mlir::AffineMapAttr>(attribute.getValue()))
          for (mlir::AffineExpr size : map.getValue().getResults())
            use(size);
    });
  };
  useOfBody();
  // Assertions about sizes that this function has.
  state.builder.setInsertionPointToStart(block.get());
  for (auto &[assertion, layer] : sizeAssertions) {
    Frame inner;
    inner.file = layer->file;
    inner.owner = layer;
    FrameScope innerScope(*this, inner);
    mlir::Block trial;
    FunctionState scratch(&context, &trial);
    scratch.isScratch = scratch.isConstant = true;
    SaveAndRestore inScratch(function, &scratch);
    optional<std::pair<Number, Number>> sizes = sizesCompared(assertion->condition);
    if (!sizes)
      continue;
    bool known = true;
    for (const Number *n : {&sizes->first, &sizes->second})
      if (n->isSize())
        n->size.walk([&](mlir::AffineExpr part) {
          if (auto symbol = llvm::dyn_cast<mlir::AffineSymbolExpr>(part))
            known &= used[symbol.getPosition()];
        });
    if (known) {
      function = &state;
      checkSizes(assertion->condition, assertion->words);
    }
  }

  for (auto [i, dim] : llvm::enumerate(dimNames)) {
    if (!used[i] || carried[i])
      continue;
    block->addArgument(mlir::RankedTensorType::get({}, state.builder.getI64Type()),
                       locationOf(where));
    mlir::NamedAttrList &attributes = argumentAttributes.emplace_back();
    attributes.set("dl.name", state.builder.getStringAttr(dim));
    attributes.set("dl.dim", state.builder.getI64IntegerAttr(i));
  }

  mlir::OpBuilder module = mlir::OpBuilder::atBlockEnd(&modelOp.getBody().front());
  auto type =
      module.getFunctionType(block->getArgumentTypes(), mlir::ValueRange(results).getTypes());
  auto func = dl::FuncOp::create(module, locationOf(where),
                                 gradients ? ("__grad_" + name).str() : name.str(), type);
  func.getBody().push_back(block.release());
  for (auto [i, attributes] : llvm::enumerate(argumentAttributes))
    func.setArgAttrs(i, attributes);
  for (auto [i, name] : llvm::enumerate(resultNames))
    func.setResultAttr(i, "dl.name", module.getStringAttr(name));
  for (size_t i = shown; i < results.size(); ++i)
    func.setResultAttr(i, dl::logAttrName, module.getUnitAttr());
  if (!logs.empty())
    func->setAttr("logs", module.getArrayAttr(logs));
  if (train || fn->train)
    func->setAttr("train", module.getUnitAttr());
  StringRef doc = train ? train->decl->doc : fn->doc;
  if (!doc.empty())
    func->setAttr("doc", module.getStringAttr(docText(doc)));
}

/// Declares the model's variables: those of its layers, the state of its optimizers, the state of
/// its draws.
void Elaborator::buildVariables() {
  mlir::OpBuilder module = mlir::OpBuilder::atBlockBegin(&modelOp.getBody().front());
  llvm::SetVector<Variable *> all;
  variablesOf(model, all);
  all.insert(slots.begin(), slots.end());
  if (callsVariable) {
    all.insert(seedVariable);
    all.insert(callsVariable);
  }
  llvm::StringMap<Variable *> paths;
  for (Variable *variable : all) {
    SMRange where = variable->name ? variable->name.range() : SMRange();
    if (auto [entry, isNew] = paths.try_emplace(variable->path, variable); !isNew) {
      error(where, "two variables are called '" + variable->path + "'")
          .note(entry->second->name ? entry->second->name.range() : SMRange(), "the other one");
      continue;
    }
    auto kind = static_cast<dl::VariableKind>(variable->kind);
    auto op =
        dl::VariableOp::create(module, locationOf(where), variable->path, kind,
                               tensorType(variable->shape, variable->dtype), mlir::StringAttr());
    if (!variable->doc.empty())
      op.setDocAttr(module.getStringAttr(docText(variable->doc)));
  }
}

mlir::Value Elaborator::initialValueOf(Variable *variable) {
  if (Variable *original = variable->copyOf) {
    // One that is no part of the model itself, `copy(nn.linear(2, 3))`, begins under the copy's name.
    mlir::Value &value = function->current[original];
    if (!value) {
      SaveAndRestore named(function->initOf,
                           original->placed ? static_cast<const Variable *>(original)
                                            : function->initOf);
      mlir::Value initial = initialValueOf(original);
      return function->current[original] = initial;
    }
    return value;
  }
  if (!variable->owner) {
    SMRange where = variable->name ? variable->name.range() : SMRange();
    Value initial = variable->initialValue;
    if (auto *deferred = initial.as<DeferredValue>()) {
      const ast::Expr *expr = deferred->expr;
      where = expr->range;
      initial = initialStateOf(variable, expr);
    }
    if (initial.isPoison())
      return {};
    return fit(initial, variable->dtype, variable->shape, "'" + variable->path + "'", where);
  }
  if (!variable->initial) {
    Value zero = Number::whole(0);
    if (variable->dtype == DType::Bool)
      zero = Value::boolean(false);
    return fit(zero, variable->dtype, variable->shape, variable->path, variable->name.range());
  }
  // The frame of the layer's declarations, with the calls that made it for the places of errors.
  Frame own;
  own.file = variable->owner->file;
  own.owner = variable->owner;
  own.caller = frame;
  own.call = variable->owner == model ? SMRange() : variable->owner->madeAt;
  own.drawType = variable->dtype;
  own.drawShape = variable->shape;
  FrameScope scope(*this, own);
  Value value = evaluate(variable->initial);
  if (value.isPoison())
    return {};
  return fit(value, variable->dtype, variable->shape, ("'" + variable->name.text + "'").str(),
             variable->initial->range);
}

void Elaborator::buildInit() {
  auto block = std::make_unique<mlir::Block>();
  FunctionState state(&context, block.get());
  state.name = "__init";
  state.isInit = true;
  SaveAndRestore inFunction(function, &state);
  SaveAndRestore notDeclaring(declaring, false);
  Frame own;
  own.file = model->file;
  own.owner = nullptr;
  FrameScope scope(*this, own);
  mlir::Location where = locationOf(model->decl->name.range());
  auto scalar = mlir::RankedTensorType::get({}, state.builder.getI64Type());
  state.seed = block->addArgument(scalar, where);

  llvm::SetVector<Variable *> all;
  variablesOf(model, all);
  all.insert(slots.begin(), slots.end());
  for (Variable *variable : all) {
    state.assigned.insert(variable);
    if (state.current.lookup(variable))
      continue; // a copy was before it
    state.initOf = variable;
    if (mlir::Value value = initialValueOf(variable))
      state.current[variable] = value;
  }
  if (diagnostics.hasErrors())
    return;
  for (Variable *variable : all)
    dl::AssignOp::create(state.builder, where, variable->path, state.current[variable]);
  if (callsVariable) {
    dl::AssignOp::create(state.builder, where, seedVariable->path, state.seed);
    mlir::Value zero = dl::FillOp::create(state.builder, where, scalar, int64_t(0));
    dl::AssignOp::create(state.builder, where, callsVariable->path, zero);
  }
  dl::ReturnOp::create(state.builder, where, mlir::ValueRange());
  mlir::OpBuilder module = mlir::OpBuilder::atBlockEnd(&modelOp.getBody().front());
  auto func = dl::FuncOp::create(module, where, "__init",
                                 module.getFunctionType(block->getArgumentTypes(), {}));
  func.getBody().push_back(block.release());
  func.setArgAttr(0, "dl.name", module.getStringAttr("seed"));
  func->setAttr("init", module.getUnitAttr());
}

mlir::OwningOpRef<mlir::ModuleOp> Elaborator::run(const std::string &path) {
  return elaborate(load(path, {}));
}

mlir::OwningOpRef<mlir::ModuleOp> Elaborator::run(std::unique_ptr<llvm::MemoryBuffer> text) {
  FileScope *file = loadBuffer(std::move(text), "", /*library=*/false);
  declareItems(file);
  return elaborate(file);
}

mlir::OwningOpRef<mlir::ModuleOp> Elaborator::elaborate(FileScope *file) {
  if (!file || hasHoles) // a tree with holes gives errors that are none
    return nullptr;
  for (auto &scope : files)
    checkNames(*scope, builtinNames, diagnostics);
  const ast::LayerDecl *decl = chooseModel(file);
  if (!decl)
    return nullptr;
  model = makeModel(decl, file);
  place(model, "");
  llvm::DenseSet<Layer *> seen;
  placeParams(model, seen);

  mlir::OwningOpRef<mlir::ModuleOp> module = mlir::ModuleOp::create(locationOf(
      SMLoc::getFromPointer(sources.getMemoryBuffer(file->ast->buffer)->getBufferStart())));
  mlir::OpBuilder builder = mlir::OpBuilder::atBlockEnd(module->getBody());
  modelOp = dl::ModelOp::create(builder, locationOf(decl->name.range()), decl->name.text,
                                builder.getStrArrayAttr(dimNames), mlir::StringAttr(),
                                mlir::TypeAttr());
  if (optional<DType> type = productType())
    modelOp.setPrecision(typeOf(*type));
  if (!decl->doc.empty())
    modelOp.setDocAttr(builder.getStringAttr(docText(decl->doc)));
  if (modelOp->getRegion(0).empty())
    modelOp->getRegion(0).emplaceBlock();
  exportFunctions();
  buildInit();
  buildVariables();
  buildExterns();
  if (diagnostics.hasErrors())
    return nullptr;
  return module;
}

mlir::OwningOpRef<mlir::ModuleOp>
dlc::compileLanguage(mlir::MLIRContext &context, llvm::SourceMgr &sources, const std::string &file,
                     const LanguageOptions &options, Diagnostics &diagnostics) {
  context.loadDialect<dl::DlDialect>();
  MlirDiagnosticHandler handler(&context, diagnostics);
  return Elaborator(context, sources, options, diagnostics).run(file);
}

mlir::OwningOpRef<mlir::ModuleOp> dlc::compileLanguage(mlir::MLIRContext &context,
                                                       llvm::SourceMgr &sources,
                                                       std::unique_ptr<llvm::MemoryBuffer> text,
                                                       const LanguageOptions &options,
                                                       Diagnostics &diagnostics) {
  context.loadDialect<dl::DlDialect>();
  MlirDiagnosticHandler handler(&context, diagnostics);
  return Elaborator(context, sources, options, diagnostics).run(std::move(text));
}
