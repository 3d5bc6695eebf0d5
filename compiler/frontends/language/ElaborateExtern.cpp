//===- ElaborateExtern.cpp - extern functions, gradients of one's own -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// `extern fn`: a declaration is checked where it stands, its files are read for their pragmas, and
// each call becomes a dl.extern. The files are compiled when code is emitted (emit/ExternCode.h).
//
// `with gradient g`: a dl.custom_gradient around what the function returned, with g's code as its
// region.
//
//===----------------------------------------------------------------------===//

#include "Elaborator.h"
#include "Parser.h"

#include "llvm/ADT/ScopeExit.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/SaveAndRestore.h"

using namespace dlc;
using namespace dlc::language;
using llvm::dyn_cast;
using llvm::isa;
using llvm::SaveAndRestore;
using llvm::SMRange;
using llvm::StringRef;
using llvm::Twine;
using std::optional;

static SMRange rangeOf(StringRef text) {
  return {llvm::SMLoc::getFromPointer(text.data()),
          llvm::SMLoc::getFromPointer(text.data() + text.size())};
}

//===----------------------------------------------------------------------===//
// Declarations
//===----------------------------------------------------------------------===//

/// The names that an expression of sizes holds, in the order of the text.
static void collectNames(const ast::Expr *expr, llvm::SetVector<StringRef> &names) {
  if (auto *name = dyn_cast<ast::NameExpr>(expr)) {
    names.insert(name->name);
  } else if (auto *chain = dyn_cast<ast::ChainExpr>(expr)) {
    for (const ast::Expr *operand : chain->operands)
      collectNames(operand, names);
  } else if (auto *power = dyn_cast<ast::PowerExpr>(expr)) {
    collectNames(power->base, names);
    collectNames(power->exponent, names);
  } else if (auto *negate = dyn_cast<ast::NegateExpr>(expr)) {
    collectNames(negate->operand, names);
  } else if (auto *call = dyn_cast<ast::CallExpr>(expr)) {
    for (const ast::Argument &argument : call->arguments)
      collectNames(argument.value, names);
  }
}

void Elaborator::declareExtern(FileScope *file, const ast::ExternDecl *decl) {
  auto owned = std::make_unique<ExternFunction>();
  ExternFunction &function = *owned;
  function.decl = decl;
  function.file = file;
  externs[decl] = std::move(owned);
  std::string name = ("the extern function '" + decl->name.text + "'").str();
  unsigned errors = diagnostics.errorCount();

  auto checkType = [&](const ast::Type *type) {
    for (const ast::Dim &dim : type->dims)
      if (dim.size)
        collectNames(dim.size, function.sizeNames);
      else
        error(dim.range, name + " names every size");
    if (optional<DType> dtype = dtypeNamed(type->dtype.text);
        dtype == DType::F16 || dtype == DType::BF16)
      unsupported(type->dtype.range(), "the element type " + type->dtype.text + " of " + name);
  };
  for (const ast::Arg &arg : decl->args)
    if (!arg.type)
      error(arg.name.range(), "the argument '" + arg.name.text + "' of " + name + " needs a type");
    else
      checkType(arg.type);
  for (const ast::Result &result : decl->results)
    if (!result.name && result.type->scalar && !dtypeNamed(result.type->dtype.text))
      error(result.type->range, "the result '" + result.type->dtype.text + "' of " + name +
                                    " needs a type: '" + result.type->dtype.text + ": f32[…]'");
    else
      checkType(result.type);

  for (StringRef written : decl->files) {
    StringRef extension = llvm::sys::path::extension(written);
    bool isCuda = extension == ".cu";
    if (!isCuda && extension != ".cpp" && extension != ".cc" && extension != ".cxx") {
      error(rangeOf(written), "a file of " + name +
                                  " is CUDA C++ (.cu) or its twin for the CPU (.cpp, .cc, .cxx), "
                                  "not '" +
                                  written + "'");
      continue;
    }
    ExternFile *&slot = isCuda ? function.cuda : function.cpp;
    if (slot) {
      error(rangeOf(written), name + " has two files for the " + (isCuda ? "GPU" : "CPU") + ": '" +
                                  slot->written + "' and '" + written + "'");
      continue;
    }
    llvm::SmallString<256> path(file->folder);
    llvm::sys::path::append(path, written);
    slot = loadExtern(path.str().str(), written);
  }
  if (diagnostics.errorCount() != errors)
    function.failed = true;
}

/// Reads a file of C++, and what it includes by a path of its own: their lines are shown in errors,
/// and they are dependencies.
ExternFile *Elaborator::loadExtern(const std::string &path, StringRef written) {
  auto &entry = externFiles[path];
  if (entry)
    return entry.get();
  auto buffer = llvm::MemoryBuffer::getFile(path);
  if (!buffer || llvm::sys::fs::is_directory(path)) {
    error(rangeOf(written), "cannot read '" + path + "': " +
                                (buffer ? "it is a directory" : buffer.getError().message()));
    return nullptr;
  }
  entry = std::make_unique<ExternFile>();
  entry->path = path;
  entry->written = written;
  unsigned id = sources.AddNewSourceBuffer(std::move(*buffer), llvm::SMLoc());
  StringRef text = sources.getMemoryBuffer(id)->getBuffer();
  if (options.dependencies)
    options.dependencies->push_back(path);
  readPragmas(*entry, text);
  loadIncludes(path, text);
  return entry.get();
}

/// The word after `#` of a line of C++, and what follows it; nothing where the line has none.
static optional<StringRef> directive(StringRef line, StringRef word) {
  line = line.trim();
  if (!line.consume_front("#"))
    return std::nullopt;
  line = line.ltrim();
  if (!line.consume_front(word))
    return std::nullopt;
  return line.trim();
}

void Elaborator::loadIncludes(const std::string &path, StringRef text) {
  for (StringRef line : llvm::split(text, '\n')) {
    optional<StringRef> name = directive(line, "include");
    if (!name || !name->consume_front("\""))
      continue;
    llvm::SmallString<256> inner(llvm::sys::path::parent_path(path));
    llvm::sys::path::append(inner, name->split('"').first);
    std::string header = inner.str().str();
    if (!externHeaders.insert(header).second)
      continue;
    auto buffer = llvm::MemoryBuffer::getFile(header);
    if (!buffer || llvm::sys::fs::is_directory(header))
      continue; // of the system, or the compiler's to report
    unsigned id = sources.AddNewSourceBuffer(std::move(*buffer), llvm::SMLoc());
    if (options.dependencies)
      options.dependencies->push_back(header);
    loadIncludes(header, sources.getMemoryBuffer(id)->getBuffer());
  }
}

void Elaborator::readPragmas(ExternFile &file, StringRef text) {
  for (StringRef line : llvm::split(text, '\n')) {
    optional<StringRef> rest = directive(line, "pragma");
    if (!rest || !rest->consume_front("dlc") || (!rest->empty() && !llvm::isSpace(rest->front())))
      continue;
    rest = rest->trim();
    const ast::Expr *expr = parseExpression(arena, *rest, file.path, diagnostics);
    if (!expr)
      continue;
    auto *call = dyn_cast<ast::CallExpr>(expr);
    auto *callee = call ? dyn_cast<ast::NameExpr>(call->callee) : nullptr;
    auto *of = call && !call->arguments.empty() && !call->arguments[0].name
                   ? dyn_cast<ast::NameExpr>(call->arguments[0].value)
                   : nullptr;
    bool isLaunch = callee && callee->name == "launch";
    if (!of || (!isLaunch && callee->name != "parallel")) {
      diagnostics.error(rangeOf(*rest),
                        "a pragma of dlc is 'launch(FUNCTION, threads = …, elements = …)' or "
                        "'parallel(FUNCTION, COUNT)'");
      continue;
    }
    // What is wrong is wrong whether or not anything calls the function.
    unsigned errors = diagnostics.errorCount();
    const ast::CallExpr *&known = (isLaunch ? file.launches : file.parallels)[of->name];
    if (known)
      diagnostics
          .error(call->range, "a second '" + callee->name + "' of the function '" + of->name + "'")
          .note(known->range, "the first is here");
    if (!isLaunch && (call->arguments.size() != 2 || call->arguments[1].name))
      diagnostics.error(call->range, "'parallel' takes the function and one count");
    llvm::StringMap<SMRange> given;
    static constexpr StringRef words[] = {"threads", "elements", "blocks", "shared"};
    for (const ast::Argument &argument : call->arguments.drop_front()) {
      if (!isLaunch)
        break;
      SMRange where = argument.name ? argument.name.range() : argument.value->range;
      if (!argument.name || !llvm::is_contained(words, argument.name.text))
        diagnostics.error(where, "'launch' takes threads, elements or blocks, and shared, each as "
                                 "'name = value'" +
                                     (argument.name ? didYouMean(argument.name.text, words) : ""));
      else if (!given.try_emplace(argument.name.text, where).second)
        diagnostics.error(where, "'" + argument.name.text + "' is given twice");
    }
    if (given.contains("elements") && given.contains("blocks"))
      diagnostics
          .error(given["blocks"], "'blocks' is the number of blocks, 'elements' the number of "
                                  "threads from which it follows: one of them")
          .note(given["elements"], "'elements' is given here");
    if (diagnostics.errorCount() == errors)
      known = call;
  }
}

void Elaborator::buildExterns() {
  mlir::OpBuilder module = mlir::OpBuilder::atBlockBegin(&modelOp.getBody().front());
  for (ExternFunction *function : usedExterns) {
    auto path = [&](const ExternFile *file) {
      return file ? module.getStringAttr(file->path) : mlir::StringAttr();
    };
    dl::ExternFunctionOp::create(module, locationOf(function->decl->name.range()), function->symbol,
                                 function->decl->name.text, path(function->cuda),
                                 path(function->cpp));
  }
}

//===----------------------------------------------------------------------===//
// Calls
//===----------------------------------------------------------------------===//

/// Blocks and threads of a call on a GPU.
struct Elaborator::ExternLaunch {
  int64_t threads = 256, shared = 0;
  mlir::AffineExpr blocks;
};

optional<Elaborator::ExternLaunch> Elaborator::evaluateLaunch(const ExternFunction &function,
                                                              mlir::AffineExpr elements) {
  static constexpr int64_t mostThreads = 1024, mostShared = 227 << 10;
  ExternLaunch launch;
  const ast::CallExpr *pragma =
      function.cuda ? function.cuda->launches.lookup(function.decl->name.text) : nullptr;
  // A number that the kernel is compiled with.
  auto known = [&](const ast::Argument &argument, int64_t least, int64_t most, int64_t &into) {
    Value value = evaluate(argument.value);
    if (const Number *number = value.number(); number && !number->isKnown()) {
      error(argument.value,
            "'" + argument.name.text + "' must be known while compiling, and is left to the call");
      return false;
    }
    optional<int64_t> whole =
        wholeOf(value, ("'" + argument.name.text + "'").str(), argument.value->range);
    if (!whole)
      return false;
    if (*whole < least || *whole > most) {
      error(argument.value, "'" + argument.name.text + "' lies between " + Twine(least) + " and " +
                                Twine(most) + ", found " + Twine(*whole));
      return false;
    }
    into = *whole;
    return true;
  };
  if (pragma)
    for (const ast::Argument &argument : pragma->arguments.drop_front()) {
      StringRef word = argument.name.text;
      bool ok = true;
      if (word == "threads")
        ok = known(argument, 1, mostThreads, launch.threads);
      else if (word == "shared")
        ok = known(argument, 0, mostShared, launch.shared);
      else if (mlir::AffineExpr size = sizeOf(evaluate(argument.value), argument.value->range))
        (word == "blocks" ? launch.blocks : elements) = size;
      else
        ok = false;
      if (!ok)
        return std::nullopt;
    }
  if (!launch.blocks)
    launch.blocks = elements.ceilDiv(launch.threads);
  launch.blocks = dl::normalizeSize(launch.blocks);
  return launch;
}

Value Elaborator::callExtern(const ExternValue &callee, CallArguments &arguments) {
  ExternFunction &extern_ = *callee.function;
  const ast::ExternDecl *decl = extern_.decl;
  if (extern_.failed)
    return {};
  std::string name = ("'" + decl->name.text + "'").str();

  Frame own;
  own.file = extern_.file;
  own.caller = frame;
  own.call = arguments.range;
  optional<std::vector<Value>> given = bindArguments(decl->args, arguments, name, own);
  if (!given)
    return {};
  llvm::SmallVector<mlir::Value> inputs;
  for (const Value &value : *given)
    inputs.push_back(value.asTensor());
  llvm::SmallVector<mlir::Type> types;
  Shape sizes;
  optional<ExternLaunch> launch;
  mlir::AffineMapAttr parallel;
  {
    FrameScope scope(*this, own);
    for (const ast::Result &result : decl->results) {
      optional<std::pair<DType, Shape>> type = evaluateType(result.type);
      if (!type || !checkElements(type->second, result.type->range))
        return {};
      types.push_back(tensorType(type->second, type->first));
    }
    for (StringRef size : extern_.sizeNames) {
      sizes.push_back(sizeOf(lookup(size, decl->name.range()), decl->name.range()));
      if (!sizes.back())
        return {};
    }
    launch =
        evaluateLaunch(extern_, dl::elementCount(llvm::cast<mlir::RankedTensorType>(types[0])));
    if (!launch)
      return {};
    if (const ast::CallExpr *pragma =
            extern_.cpp ? extern_.cpp->parallels.lookup(decl->name.text) : nullptr) {
      const ast::Expr *count = pragma->arguments[1].value;
      mlir::AffineExpr size = sizeOf(evaluate(count), count->range);
      if (!size)
        return {};
      parallel = mlir::AffineMapAttr::get(dl::sizeMap({size}, &context));
    }
  }
  if (extern_.symbol.empty()) {
    // Two modules may have a function of that name.
    std::string base = ("extern." + decl->name.text).str();
    extern_.symbol = base;
    for (unsigned n = 1;
         llvm::any_of(usedExterns,
                      [&](const ExternFunction *other) { return other->symbol == extern_.symbol; });
         ++n)
      extern_.symbol = base + "." + std::to_string(n);
    usedExterns.insert(&extern_);
  }
  mlir::AffineMapAttr sizesAttr;
  if (!sizes.empty())
    sizesAttr = mlir::AffineMapAttr::get(dl::sizeMap(sizes, &context));
  auto op = dl::ExternOp::create(builder(), locationOf(arguments.range), types, extern_.symbol,
                                 inputs, sizesAttr, static_cast<uint64_t>(launch->threads),
                                 dl::sizeMap({launch->blocks}, &context),
                                 static_cast<uint64_t>(launch->shared), parallel);
  std::vector<Value> results;
  for (mlir::Value result : op.getResults())
    results.push_back(Value::tensor(result));
  Value result = results.size() == 1 ? results[0] : Value::list(std::move(results));
  if (!decl->gradient)
    return result;
  return withGradient({decl, nullptr, name, decl->gradient, extern_.file, decl->args},
                      std::move(result), *given, arguments.range);
}

//===----------------------------------------------------------------------===//
// Gradients of one's own
//===----------------------------------------------------------------------===//

static bool holdsTensor(const Value &value) {
  if (value.asTensor())
    return true;
  auto *list = value.elements();
  return list && llvm::any_of(*list, holdsTensor);
}

Value Elaborator::withGradient(const OwnGradient &of, Value result, llvm::ArrayRef<Value> given,
                               SMRange where) {
  SMRange place = of.gradient.range();
  // Within its own gradient a function is derived as it is written: its gradient's gradient would
  // have no end.
  if (!gradientsUnderway.insert({of.decl, of.owner}).second)
    return result;
  llvm::scope_exit done([&] { gradientsUnderway.erase({of.decl, of.owner}); });

  // What the function returned, as tensors.
  std::vector<Value> returned;
  if (auto *list = result.elements())
    returned = *list;
  else if (!result.isNone())
    returned.push_back(result);
  llvm::SmallVector<mlir::Value> values, wrt;
  for (const Value &value : returned) {
    mlir::Value tensor = toTensor(value, where, ("the result of " + of.name).str());
    if (!tensor)
      return {};
    values.push_back(tensor);
  }
  if (values.empty()) {
    error(place, of.name + " returns nothing that could have a gradient");
    return {};
  }
  for (auto [arg, value] : llvm::zip_equal(of.args, given)) {
    mlir::Value tensor = value.asTensor();
    if (tensor && isFloat(dtypeOf(tensor)))
      wrt.push_back(tensor);
    if (!tensor && holdsTensor(value)) {
      error(where, "the argument '" + arg.name.text + "' of " + of.name +
                       ", which has a gradient of its own, is one tensor or known while "
                       "compiling, found " +
                       describe(value))
          .note(arg.name.range(), "declared here");
      return {};
    }
  }

  Frame scope;
  scope.file = of.file;
  scope.owner = of.owner;
  scope.caller = frame;
  scope.call = where;
  FrameScope inner(*this, scope);
  Value gradient = lookup(of.gradient.text, place);
  if (gradient.isPoison())
    return {};
  if (!gradient.is<FunctionValue>() && !gradient.is<ExternValue>() &&
      !gradient.is<BuiltinValue>()) {
    error(place, "the gradient of " + of.name + " is a function, found " + describe(gradient));
    return {};
  }

  auto block = std::make_unique<mlir::Block>();
  CallArguments arguments;
  arguments.range = place;
  arguments.positional.assign(given.begin(), given.end());
  for (mlir::Value value : values)
    arguments.positional.push_back(
        isFloat(dtypeOf(value)) ? Value::tensor(block->addArgument(value.getType(), value.getLoc()))
                                : Value::none());

  // The region's own: checks on entry belong to it, since it may go; a variable keeps its value.
  mlir::OpBuilder outside = builder();
  mlir::OpBuilder::InsertionGuard guard(builder());
  builder().setInsertionPointToEnd(block.get());
  SaveAndRestore checkBlock(function->checkBlock, block.get());
  SaveAndRestore checks(function->checks);
  SaveAndRestore multiples(function->multiples);
  SaveAndRestore current(function->current);
  SaveAndRestore assigned(function->assigned);
  SaveAndRestore varAssigned(function->varAssigned);
  size_t before = function->assigned.size();
  Value derivatives = call(gradient, arguments);
  if (derivatives.isPoison())
    return {};
  StringRef name = of.gradient.text;
  if (function->assigned.size() != before) {
    error(place, "the gradient '" + name + "' changes the variable '" +
                     function->assigned.back()->path + "'; a gradient only computes");
    return {};
  }

  std::vector<Value> list;
  if (auto *elements = derivatives.elements())
    list = *elements;
  else
    list.push_back(derivatives);
  auto counted = [](size_t n, StringRef what) {
    return (Twine(n) + " " + what + (n == 1 ? "" : "s")).str();
  };
  auto declaredHere = [&](Report &report) {
    if (auto *fn = gradient.as<FunctionValue>())
      report.note(fn->decl->name.range(), "'" + name + "' is declared here");
    else if (auto *other = gradient.as<ExternValue>())
      report.note(other->function->decl->name.range(), "'" + name + "' is declared here");
  };
  if (list.size() != given.size()) {
    declaredHere(error(place, "the gradient '" + name + "' returns " +
                                  counted(list.size(), "derivative") + ", and " + of.name +
                                  " has " + counted(given.size(), "argument")));
    return {};
  }
  llvm::SmallVector<mlir::Value> yielded;
  for (auto [arg, value, derivative] : llvm::zip_equal(of.args, given, list)) {
    mlir::Value tensor = value.asTensor();
    if (!tensor || !isFloat(dtypeOf(tensor)))
      continue; // has no derivative: what is given for it is dropped
    std::string words =
        ("the gradient '" + name + "' gives " + describe(derivative) + " for the argument '" +
         arg.name.text + "', which is " + describeType(tensor))
            .str();
    mlir::Value fitting;
    if (auto *number = derivative.number())
      fitting = materialize(*number, dtypeOf(tensor), shapeOf(tensor), place, /*exact=*/false);
    else if (mlir::Value found = derivative.asTensor(); found && dtypeOf(found) == dtypeOf(tensor))
      fitting = conform(found, shapeOf(tensor), words, place);
    if (!fitting) {
      Report &report = error(place, words);
      report.note(arg.name.range(), "the argument is declared here");
      declaredHere(report);
      return {};
    }
    yielded.push_back(fitting);
  }
  dl::YieldOp::create(builder(), locationOf(place), yielded);
  auto op = dl::CustomGradientOp::create(outside, locationOf(place),
                                         mlir::ValueRange(values).getTypes(), values, wrt);
  op.getBody().push_back(block.release());

  std::vector<Value> results;
  for (mlir::Value value : op.getResults())
    results.push_back(Value::tensor(value));
  return results.size() == 1 ? results[0] : Value::list(std::move(results));
}
