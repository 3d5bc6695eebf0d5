//===- LinkModel.cpp - object code to an artefact -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "LinkModel.h"
#include "Embedded.h"
#include "TemporaryFolder.h"
#include "lld/Common/Driver.h"
#include "llvm/ADT/SmallString.h"
#include "llvm/ObjCopy/CommonConfig.h"
#include "llvm/ObjCopy/ConfigManager.h"
#include "llvm/ObjCopy/ELF/ELFObjcopy.h"
#include "llvm/Object/ArchiveWriter.h"
#include "llvm/Object/ELFObjectFile.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/raw_ostream.h"
#include <dlfcn.h>
#include <link.h>
#include <mutex>

LLD_HAS_DRIVER(elf)

using namespace llvm;

namespace dlc {

namespace {

Error runLinker(ArrayRef<std::string> arguments) {
  // lld has state of its own between start and end of a link.
  static std::mutex mutex;
  static bool usable = true;
  std::lock_guard<std::mutex> lock(mutex);
  if (!usable)
    return createStringError("the linker cannot run again after its crash");

  SmallVector<const char *> pointers = {"ld.lld"};
  for (const std::string &argument : arguments)
    pointers.push_back(argument.c_str());
  std::string words;
  raw_string_ostream stream(words);
  const lld::DriverDef drivers[] = {{lld::Gnu, &lld::elf::link}};
  lld::Result result = lld::lldMain(pointers, stream, stream, drivers);
  usable = result.canRunAgain;
  if (result.retCode != 0)
    return createStringError("linking failed: " + StringRef(words).trim());
  return Error::success();
}

Expected<Bytes> readFile(const std::string &path) {
  ErrorOr<std::unique_ptr<MemoryBuffer>> buffer =
      MemoryBuffer::getFile(path, /*IsText=*/false, /*RequiresNullTerminator=*/false);
  if (!buffer)
    return createStringError(buffer.getError(),
                             "cannot read '" + path + "': " + buffer.getError().message());
  return Bytes((*buffer)->getBuffer().begin(), (*buffer)->getBuffer().end());
}

/// lld runs on one thread: links are small, and starting threads takes longer than they do.
const std::string commonFlags[] = {"-m",
                                   "elf_x86_64",
                                   "--threads=1",
                                   "--build-id=none",
                                   "--no-color-diagnostics",
                                   "--error-limit=5"};

/// Writes the inputs, runs lld with \p extra arguments, and reads what it made.
Expected<Bytes> link(const LinkInput &input, const TemporaryFolder &folder,
                     ArrayRef<std::string> extra) {
  // Inputs have fixed names.
  Expected<std::string> object = folder.write("model.o", input.object);
  if (!object)
    return object.takeError();
  Expected<std::string> runtime = folder.write(
      "libdlrt.a", input.runtimeArchive.empty() ? embeddedRuntimeArchive() : input.runtimeArchive);
  if (!runtime)
    return runtime.takeError();
  std::string output = folder.file("output");
  std::vector<std::string> arguments(commonFlags, std::end(commonFlags));
  arguments.insert(arguments.end(), {"-o", output});
  arguments.insert(arguments.end(), extra.begin(), extra.end());
  arguments.push_back(*object);
  for (auto [number, bytes] : enumerate(input.more)) {
    Expected<std::string> path = folder.write("extern" + std::to_string(number) + ".o",
                                              StringRef(bytes.data(), bytes.size()));
    if (!path)
      return path.takeError();
    arguments.push_back(*path);
  }
  arguments.push_back(*runtime);
  if (Error error = runLinker(arguments))
    return std::move(error);
  return readFile(output);
}

} // namespace

Expected<std::string> findSystemLibrary(StringRef soname) {
  // The loader knows its cache, its configuration and the environment; asking it finds what a
  // program would get.
  void *library = ::dlopen(soname.str().c_str(), RTLD_LAZY | RTLD_LOCAL);
  if (!library) {
    const char *why = ::dlerror();
    return createStringError("the system has no '" + soname +
                             "': " + (why ? why : "unknown reason"));
  }
  std::string path;
  struct link_map *map = nullptr;
  if (::dlinfo(library, RTLD_DI_LINKMAP, &map) == 0 && map && map->l_name)
    path = map->l_name;
  ::dlclose(library);
  if (path.empty())
    return createStringError("the loader does not say where '" + soname + "' is");
  return path;
}

Expected<Bytes> linkSharedLibrary(const LinkInput &input) {
  Expected<TemporaryFolder> folder = TemporaryFolder::create();
  if (!folder)
    return folder.takeError();
  Expected<std::string> script =
      folder->write("exports", ("{ global: " + input.querySymbol + "; local: *; };\n").str());
  if (!script)
    return script.takeError();
  std::vector<std::string> arguments = {"-shared",
                                        "-Bsymbolic",
                                        "--version-script=" + *script,
                                        "--gc-sections",
                                        "--strip-all",
                                        "--no-undefined",
                                        "--hash-style=gnu",
                                        "--as-needed",
                                        "-zrelro",
                                        "-znow",
                                        "-znoexecstack",
                                        "-zmax-page-size=4096"};
  // The library of threads is part of libc; the loader itself offers thread-local storage.
  for (StringRef soname : {"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2"}) {
    Expected<std::string> path = findSystemLibrary(soname);
    if (!path)
      return path.takeError();
    arguments.push_back(*path);
  }
  return link(input, *folder, arguments);
}

/// Every symbol of an object but those of \p visible becomes local.
static Expected<Bytes> hideSymbols(const Bytes &object, ArrayRef<StringRef> visible) {
  Expected<std::unique_ptr<object::Binary>> binary =
      object::createBinary(MemoryBufferRef(StringRef(object.data(), object.size()), "model.o"));
  if (!binary)
    return binary.takeError();
  objcopy::ConfigManager config;
  config.Common.StripDebug = true;
  for (StringRef symbol : visible)
    if (Error error = config.Common.SymbolsToKeepGlobal.addMatcher(objcopy::NameOrPattern::create(
            symbol, objcopy::MatchStyle::Literal, [](Error error) { return error; })))
      return std::move(error);
  config.ELF.LocalizeHidden = true;
  Bytes hidden;
  raw_svector_ostream stream(hidden);
  if (Error error = objcopy::elf::executeObjcopyOnBinary(
          config.Common, config.ELF, *cast<object::ELFObjectFileBase>(binary->get()), stream))
    return std::move(error);
  return hidden;
}

/// Joins into an object. Groups of a template's code are taken apart: a program that links several
/// such objects would take those of one for those of the other.
static const std::string joinFlags[] = {"-r", "--force-group-allocation"};

Expected<Bytes> linkObject(const LinkInput &input) {
  Expected<TemporaryFolder> folder = TemporaryFolder::create();
  if (!folder)
    return folder.takeError();
  Expected<Bytes> joined = link(input, *folder, joinFlags);
  if (!joined)
    return joined.takeError();
  // Joining keeps symbols global; two models in one program would clash in the runtime's.
  return hideSymbols(*joined, input.querySymbol);
}

Expected<Bytes> isolateObject(StringRef object, ArrayRef<StringRef> visible) {
  Expected<TemporaryFolder> folder = TemporaryFolder::create();
  if (!folder)
    return folder.takeError();
  Expected<std::string> path = folder->write("extern.o", object);
  if (!path)
    return path.takeError();
  std::string output = folder->file("output");
  std::vector<std::string> arguments(commonFlags, std::end(commonFlags));
  arguments.insert(arguments.end(), std::begin(joinFlags), std::end(joinFlags));
  arguments.insert(arguments.end(), {"-o", output, *path});
  if (Error error = runLinker(arguments))
    return std::move(error);
  Expected<Bytes> joined = readFile(output);
  if (!joined)
    return joined.takeError();
  return hideSymbols(*joined, visible);
}

Expected<Bytes> linkArchive(const LinkInput &input, StringRef memberName) {
  Expected<Bytes> object = linkObject(input);
  if (!object)
    return object.takeError();
  NewArchiveMember member(MemoryBufferRef(StringRef(object->data(), object->size()), memberName));
  Expected<std::unique_ptr<MemoryBuffer>> archive =
      writeArchiveToBuffer(member, SymtabWritingMode::NormalSymtab, object::Archive::K_GNU,
                           /*Deterministic=*/true, /*Thin=*/false);
  if (!archive)
    return archive.takeError();
  return Bytes((*archive)->getBuffer().begin(), (*archive)->getBuffer().end());
}

} // namespace dlc
