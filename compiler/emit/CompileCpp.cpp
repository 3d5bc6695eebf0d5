//===- CompileCpp.cpp - C++ to an object, by the system's compiler -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "CompileCpp.h"
#include "EmitObject.h"
#include "TemporaryFolder.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Process.h"
#include "llvm/Support/Program.h"
#include <dlfcn.h>
#include <unistd.h>

using namespace llvm;

namespace dlc {

std::vector<std::string> findCppCompiler() {
  if (std::optional<std::string> chosen = sys::Process::GetEnv("CXX");
      chosen && !StringRef(*chosen).trim().empty()) {
    // "ccache g++": a program and its first arguments.
    SmallVector<StringRef> words;
    StringRef(*chosen).split(words, ' ', -1, /*KeepEmpty=*/false);
    std::vector<std::string> command(words.begin(), words.end());
    if (ErrorOr<std::string> found = sys::findProgramByName(command.front())) {
      command.front() = *found;
      return command;
    }
    return {};
  }
  std::vector<std::string> names = {"c++", "clang++", "g++"};
  for (int version = 30; version >= 14; --version)
    names.push_back("clang++-" + std::to_string(version));
  for (const std::string &name : names)
    if (ErrorOr<std::string> found = sys::findProgramByName(name))
      return {*found};
  return {};
}

Expected<Bytes> compileCpp(StringRef text, StringRef folder, const Target &target,
                           ArrayRef<std::string> compiler, std::vector<CompilerMessage> &messages) {
  Expected<TemporaryFolder> temporary = TemporaryFolder::create();
  if (!temporary)
    return temporary.takeError();
  Expected<std::string> source = temporary->write("source.cpp", text);
  if (!source)
    return source.takeError();
  std::string object = temporary->file("object.o"), log = temporary->file("log");
  std::string here = folder.empty() ? "." : folder.str();
  std::vector<std::string> arguments(compiler.begin(), compiler.end());
  for (StringRef option :
       {"-std=c++17", "-O2", "-g0", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti",
        "-fno-threadsafe-statics", "-fno-asynchronous-unwind-tables", "-fno-stack-protector",
        "-ffp-contract=off", "-w", "-fno-diagnostics-show-option", "-c"})
    arguments.push_back(option.str());
  arguments.push_back(*source);
  arguments.push_back("-march=" + target.baseline);
  for (const std::string &feature : target.features)
    arguments.push_back("-m" + feature);
  // No folder gets into the object.
  arguments.insert(arguments.end(),
                   {"-iquote", here, "-ffile-prefix-map=" + here + "=.",
                    "-ffile-prefix-map=" + temporary->file("") + "=", "-o", object});
  std::vector<std::string> variables;
  for (char **variable = ::environ; *variable; ++variable)
    if (StringRef entry = *variable; !entry.starts_with("LC_") && !entry.starts_with("LANG"))
      variables.push_back(entry.str());
  variables.push_back("LC_ALL=C"); // messages as we read them
  SmallVector<StringRef> words(arguments.begin(), arguments.end());
  SmallVector<StringRef> environment(variables.begin(), variables.end());
  std::optional<StringRef> redirects[] = {StringRef(""), StringRef(log), StringRef(log)};
  std::string why;
  int status = sys::ExecuteAndWait(arguments.front(), words, ArrayRef<StringRef>(environment),
                                   redirects, 0, 0, &why);
  ErrorOr<std::unique_ptr<MemoryBuffer>> said = MemoryBuffer::getFile(log);
  StringRef report = said ? (*said)->getBuffer() : StringRef();
  if (status != 0) {
    messages = parseCompilerMessages(report);
    if (messages.empty())
      return createStringError("'" + arguments.front() +
                               "' fails: " + (why.empty() ? report.trim().str() : why));
    return Bytes();
  }
  ErrorOr<std::unique_ptr<MemoryBuffer>> bytes =
      MemoryBuffer::getFile(object, /*IsText=*/false, /*RequiresNullTerminator=*/false);
  if (!bytes)
    return createStringError(bytes.getError(), "'" + arguments.front() + "' wrote no object");
  return Bytes((*bytes)->getBuffer().begin(), (*bytes)->getBuffer().end());
}

Expected<std::string> findForeignSymbol(StringRef object, ArrayRef<StringRef> defined) {
  Expected<std::vector<StringRef>> names = undefinedSymbols(object);
  if (!names)
    return names.takeError();
  auto inSystem = [](StringRef name) {
    if (name == "_GLOBAL_OFFSET_TABLE_")
      return true;
    // What an artefact is linked with. They are open here already.
    for (const char *soname : {"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2"})
      if (void *library = ::dlopen(soname, RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD)) {
        // Of itself, not of what it was linked with.
        void *address = ::dlsym(library, name.str().c_str());
        ::dlclose(library);
        if (address)
          return true;
      }
    return false;
  };
  for (StringRef name : *names)
    if (!is_contained(defined, name) && !inSystem(name))
      return name.str();
  return std::string();
}

} // namespace dlc
