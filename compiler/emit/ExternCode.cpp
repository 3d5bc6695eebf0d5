//===- ExternCode.cpp - compiles C++ of the user's own -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "ExternCode.h"
#include "CompileCpp.h"
#include "CompileCuda.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/Location.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/Path.h"

using namespace llvm;
using mlir::FileLineColLoc;

namespace dlc {

/// Where wrappers stand, one on a line, in what compilers say.
static constexpr StringLiteral wrapperFile = "<wrapper>";

mlir::Location ExternCode::declarationOf(const ExternWrapper &wrapper) const {
  if (wrapper.declaredIn.empty())
    return mlir::UnknownLoc::get(&context);
  return FileLineColLoc::get(&context, wrapper.declaredIn, wrapper.line, wrapper.column);
}

std::vector<ExternCode::Unit> ExternCode::units(bool isCuda) const {
  std::vector<Unit> units;
  for (const ExternWrapper &wrapper : model.externs) {
    if (wrapper.isCuda != isCuda)
      continue;
    auto unit = find_if(units, [&](const Unit &other) { return other.path == wrapper.file; });
    if (unit == units.end()) {
      // Without its folder: what the text makes of its own name does not depend on where it lies.
      units.push_back({wrapper.file, {}, ""});
      unit = std::prev(units.end());
      unit->text = ("#line 1 \"" + sys::path::filename(wrapper.file) + "\"\n" + read(wrapper.file) +
                    "\n#line 1 \"" + wrapperFile + "\"\n")
                       .str();
    }
    auto [before, after] = StringRef(wrapper.code).split('@');
    unit->wrappers.push_back(&wrapper);
    unit->text += (before + wrapper.symbol + after + "\n").str();
  }
  return units;
}

void ExternCode::report(const Unit &unit, ArrayRef<CompilerMessage> messages) const {
  StringRef folder = sys::path::parent_path(unit.path);
  for (const CompilerMessage &message : messages) {
    const ExternWrapper *wrapper = unit.wrappers.front();
    if (message.file == wrapperFile && message.line >= 1 && message.line <= unit.wrappers.size()) {
      wrapper = unit.wrappers[message.line - 1];
      mlir::InFlightDiagnostic error = mlir::emitError(declarationOf(*wrapper));
      error << "'" << unit.path << "' defines no " << (wrapper->isCuda ? "__device__ " : "")
            << "function '" << wrapper->function << "' that takes " << wrapper->signature;
      error.attachNote(declarationOf(*wrapper)) << "its compiler says: " << message.text;
      continue;
    }
    // A file that is included has the folder that it was found in.
    StringRef shown = message.file;
    if (folder.empty())
      shown.consume_front("./");
    std::string path = shown == sys::path::filename(unit.path) ? unit.path.str() : shown.str();
    // A column that the compiler does not say is the line's first.
    unsigned column = std::max(1u, message.column);
    mlir::InFlightDiagnostic error =
        mlir::emitError(FileLineColLoc::get(&context, path, std::max(1u, message.line), column));
    StringRef known = read(path);
    if (known.empty() && path != unit.path)
      error << "'" << path << "', line " << message.line << ": ";
    error << message.text;
    error.attachNote(declarationOf(*wrapper)) << "'" << wrapper->function << "' is declared here";
  }
}

std::vector<StringRef> ExternCode::cpuSymbols() const {
  std::vector<StringRef> symbols;
  for (const ExternWrapper &wrapper : model.externs)
    if (!wrapper.isCuda)
      symbols.push_back(wrapper.symbol);
  return symbols;
}

FailureOr<std::vector<Bytes>> ExternCode::compileForCpu(const Target &target) {
  std::vector<Bytes> objects;
  std::vector<Unit> all = units(/*isCuda=*/false);
  if (all.empty())
    return objects;
  auto fail = [&](const Unit &unit, const Twine &message) {
    const ExternWrapper &wrapper = *unit.wrappers.front();
    mlir::emitError(declarationOf(wrapper)) << message;
    return failure();
  };
  std::vector<std::string> compiler = findCppCompiler();
  if (compiler.empty())
    return fail(all.front(), "'" + all.front().wrappers.front()->function +
                                 "' is C++, and there is no compiler for it: looked for $CXX, and "
                                 "for c++, clang++ and g++ in $PATH");
  bool failed = false;
  for (const Unit &unit : all) {
    std::vector<CompilerMessage> messages;
    Expected<Bytes> object =
        compileCpp(unit.text, sys::path::parent_path(unit.path), target, compiler, messages);
    if (!object)
      return fail(unit, "'" + unit.path + "' does not compile: " + toString(object.takeError()));
    report(unit, messages);
    failed |= !messages.empty();
    if (!messages.empty())
      continue;
    Expected<std::string> foreign =
        findForeignSymbol(StringRef(object->data(), object->size()), {});
    if (!foreign)
      return fail(unit, "'" + unit.path + "': " + toString(foreign.takeError()));
    if (!foreign->empty())
      return fail(unit, "'" + unit.path + "' needs the symbol '" + *foreign +
                            "', which neither it nor the system's libc and libm have");
    // What a file calls its own is not another's of that name.
    SmallVector<StringRef> symbols;
    for (const ExternWrapper *wrapper : unit.wrappers)
      symbols.push_back(wrapper->symbol);
    Expected<Bytes> isolated = isolateObject(StringRef(object->data(), object->size()), symbols);
    if (!isolated)
      return fail(unit, "'" + unit.path + "': " + toString(isolated.takeError()));
    objects.push_back(std::move(*isolated));
  }
  if (failed)
    return failure();
  return objects;
}

bool ExternCode::hasCuda() const {
  return any_of(model.externs, [](const ExternWrapper &wrapper) { return wrapper.isCuda; });
}

FailureOr<std::string> ExternCode::joinCuda(StringRef ptx, uint32_t arch) {
  auto [entry, isNew] = compiled.try_emplace(arch);
  if (!isNew)
    return joinPtx(ptx, entry->second, arch);
  bool failed = false;
  for (const Unit &unit : units(/*isCuda=*/true)) {
    const ExternWrapper &wrapper = *unit.wrappers.front();
    std::vector<CompilerMessage> messages;
    StringRef folder = sys::path::parent_path(unit.path);
    Expected<std::string> code = compileCuda(
        unit.text, unit.path, {folder.empty() ? std::string(".") : folder.str()}, arch, messages);
    if (!code) {
      mlir::emitError(declarationOf(wrapper))
          << "'" << wrapper.function << "' is CUDA C++: " << toString(code.takeError());
      return failure();
    }
    report(unit, messages);
    failed |= !messages.empty();
    entry->second.push_back(std::move(*code));
  }
  if (failed)
    return failure();
  return joinPtx(ptx, entry->second, arch);
}

} // namespace dlc
