//===- CompileCuda.cpp - CUDA C++ to PTX -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "CompileCuda.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/ScopeExit.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Process.h"
#include "llvm/Support/raw_ostream.h"
#include <dlfcn.h>

#ifndef DLC_NVRTC
#error "the build says where it found NVRTC, or that it did not: DLC_NVRTC"
#endif

using namespace llvm;

namespace dlc {

namespace {

/// The functions of NVRTC that are used, as every version since CUDA 11.2 has them.
struct Nvrtc {
  using Program = struct ProgramOfNvrtc *;
  int (*create)(Program *, const char *text, const char *name, int headers, const char *const *,
                const char *const *);
  int (*destroy)(Program *);
  int (*compile)(Program, int count, const char *const *options);
  int (*logSize)(Program, size_t *);
  int (*log)(Program, char *);
  int (*ptxSize)(Program, size_t *);
  int (*ptx)(Program, char *);
  int (*archCount)(int *);
  int (*archs)(int *);
  const char *(*errorText)(int);
  std::vector<int> knownArchs; // increasing
  std::string includeFolder;   // of the toolkit; empty where it has none
};

/// The folders of toolkits, the first one to be looked in first.
std::vector<std::string> toolkits() {
  std::vector<std::string> folders;
  for (const char *variable : {"CUDA_HOME", "CUDA_PATH"})
    if (std::optional<std::string> value = sys::Process::GetEnv(variable); value && !value->empty())
      folders.push_back(*value);
  return folders;
}

Expected<Nvrtc> openLibrary() {
  std::vector<std::string> candidates;
  if (std::optional<std::string> chosen = sys::Process::GetEnv("DLC_NVRTC")) {
    candidates.push_back(*chosen);
  } else {
    static constexpr StringLiteral names[] = {"libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12",
                                              "libnvrtc.so.11.2"};
    for (const std::string &folder : toolkits())
      for (StringRef part : {"lib64", "lib", "targets/x86_64-linux/lib"})
        for (StringRef name : names)
          if (std::string path = (folder + "/" + part + "/" + name).str(); sys::fs::exists(path))
            candidates.push_back(path);
    if (StringRef(DLC_NVRTC) != "") // where the build found it
      candidates.push_back(DLC_NVRTC);
    for (StringRef name : names)
      candidates.push_back(name.str());
  }
  void *library = nullptr;
  std::string why;
  for (const std::string &candidate : candidates) {
    // It stays open: it has threads and state of its own.
    library = ::dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library)
      break;
    if (const char *text = ::dlerror(); text && why.empty())
      why = text;
  }
  if (!library)
    return createStringError("there is no NVRTC, the CUDA toolkit's compiler for it: looked for "
                             "libnvrtc.so in $CUDA_HOME, $CUDA_PATH and along the loader's path (" +
                             why + "); $DLC_NVRTC may name it");
  Nvrtc nvrtc;
  std::string missing;
  auto find = [&](auto &function, const char *name) {
    void *address = ::dlsym(library, name);
    if (!address && missing.empty())
      missing = name;
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(address);
  };
  find(nvrtc.create, "nvrtcCreateProgram");
  find(nvrtc.destroy, "nvrtcDestroyProgram");
  find(nvrtc.compile, "nvrtcCompileProgram");
  find(nvrtc.logSize, "nvrtcGetProgramLogSize");
  find(nvrtc.log, "nvrtcGetProgramLog");
  find(nvrtc.ptxSize, "nvrtcGetPTXSize");
  find(nvrtc.ptx, "nvrtcGetPTX");
  find(nvrtc.archCount, "nvrtcGetNumSupportedArchs");
  find(nvrtc.archs, "nvrtcGetSupportedArchs");
  find(nvrtc.errorText, "nvrtcGetErrorString");
  std::string path;
  if (Dl_info info; ::dladdr(::dlsym(library, "nvrtcCreateProgram"), &info) && info.dli_fname)
    path = info.dli_fname;
  if (!missing.empty())
    return createStringError("'" + path + "' is no NVRTC of CUDA 11.2 or later: it has no '" +
                             missing + "'");
  int count = 0;
  if (nvrtc.archCount(&count) == 0) {
    nvrtc.knownArchs.resize(count);
    if (nvrtc.archs(nvrtc.knownArchs.data()) != 0)
      nvrtc.knownArchs.clear();
  }
  llvm::sort(nvrtc.knownArchs);
  // <toolkit>/lib64/libnvrtc.so: its headers are in <toolkit>/include.
  SmallString<128> real;
  if (!sys::fs::real_path(path, real)) {
    std::string include = (sys::path::parent_path(sys::path::parent_path(real)) + "/include").str();
    if (sys::fs::is_directory(include))
      nvrtc.includeFolder = include;
  }
  return nvrtc;
}

Expected<const Nvrtc *> nvrtc() {
  static std::optional<Nvrtc> opened;
  if (!opened) {
    Expected<Nvrtc> library = openLibrary();
    if (!library)
      return library.takeError();
    opened = std::move(*library);
  }
  return &*opened;
}

} // namespace

Expected<std::string> compileCuda(StringRef text, StringRef name,
                                  ArrayRef<std::string> includeFolders, uint32_t arch,
                                  std::vector<CompilerMessage> &messages) {
  Expected<const Nvrtc *> opened = nvrtc();
  if (!opened)
    return opened.takeError();
  const Nvrtc &library = **opened;
  int nearest = 0;
  for (int known : library.knownArchs)
    if (known <= static_cast<int>(arch))
      nearest = known;
  if (!library.knownArchs.empty() && !nearest)
    return createStringError("this NVRTC does not compile for sm_" + std::to_string(arch) +
                             " any more; its oldest architecture is sm_" +
                             std::to_string(library.knownArchs.front()));
  std::vector<std::string> options = {"--gpu-architecture=compute_" +
                                          std::to_string(nearest ? nearest : arch),
                                      "--std=c++17",
                                      "--fmad=false",
                                      "--prec-div=true",
                                      "--prec-sqrt=true",
                                      "--ftz=false",
                                      "--disable-warnings"};
  for (const std::string &folder : includeFolders)
    options.push_back("--include-path=" + folder);
  if (!library.includeFolder.empty())
    options.push_back("--include-path=" + library.includeFolder);
  std::vector<const char *> pointers;
  for (const std::string &option : options)
    pointers.push_back(option.c_str());

  Nvrtc::Program program = nullptr;
  auto fail = [&](int status) {
    return createStringError(Twine("NVRTC does not compile '") + name +
                             "': " + library.errorText(status));
  };
  if (int status =
          library.create(&program, text.str().c_str(), name.str().c_str(), 0, nullptr, nullptr))
    return fail(status);
  scope_exit destroy([&] { library.destroy(&program); });
  int status = library.compile(program, pointers.size(), pointers.data());
  size_t bytes = 0;
  if (status != 0) {
    std::string log;
    if (library.logSize(program, &bytes) == 0 && bytes > 1) {
      log.resize(bytes);
      library.log(program, log.data());
      log.resize(StringRef(log).find('\0') == StringRef::npos ? bytes : StringRef(log).find('\0'));
    }
    messages = parseCompilerMessages(log);
    if (messages.empty())
      return createStringError(Twine("NVRTC does not compile '") + name +
                               "': " + (log.empty() ? library.errorText(status) : log.c_str()));
    return std::string();
  }
  std::string ptx;
  if ((status = library.ptxSize(program, &bytes)) != 0)
    return fail(status);
  ptx.resize(bytes);
  if ((status = library.ptx(program, ptx.data())) != 0)
    return fail(status);
  while (!ptx.empty() && ptx.back() == '\0')
    ptx.pop_back();
  return ptx;
}

//===--- one module of several ---===//

namespace {

bool startsName(char c) { return isAlpha(c) || c == '_' || c == '$' || c == '%'; }
bool continuesName(char c) { return isAlnum(c) || c == '_' || c == '$'; }

/// Calls \p other with pieces of text as they are and \p name with the names in it; comments and
/// strings are no names.
void walkNames(StringRef text, function_ref<void(StringRef)> other,
               function_ref<void(StringRef)> name) {
  while (!text.empty()) {
    size_t length = 1;
    if (text.starts_with("//")) {
      length = std::min(text.find('\n'), text.size());
    } else if (text.starts_with("/*")) {
      length = std::min(text.find("*/", 2), text.size() - 2) + 2;
    } else if (text.front() == '"') {
      length = std::min(text.find('"', 1), text.size() - 1) + 1;
    } else if (startsName(text.front()) || text.front() == '.') {
      while (length < text.size() && continuesName(text[length]))
        ++length;
      (text.front() == '.' ? other : name)(text.take_front(length));
      text = text.drop_front(length);
      continue;
    } else if (isDigit(text.front())) {
      while (length < text.size() && continuesName(text[length])) // 0f3F800000
        ++length;
    }
    other(text.take_front(length));
    text = text.drop_front(length);
  }
}

/// What a module of PTX declares for itself: functions and memory, but neither kernels nor what the
/// driver brings along (vprintf).
StringSet<> internalNames(StringRef ptx) {
  StringSet<> names;
  int depth = 0;
  // The words of a declaration so far: ".extern", ".func"; a name ends it.
  bool isMemory = false, isFunction = false, isEntry = false, isExtern = false;
  int brackets = 0;
  auto reset = [&] { isMemory = isFunction = isEntry = isExtern = false; };
  walkNames(
      ptx,
      [&](StringRef piece) {
        if (piece == "{")
          ++depth;
        else if (piece == "}") {
          --depth;
          reset();
        } else if (piece == "(")
          ++brackets;
        else if (piece == ")")
          --brackets;
        else if (piece == ";" && depth == 0)
          reset();
        else if (depth == 0 && brackets == 0) {
          isMemory |= piece == ".global" || piece == ".const" || piece == ".shared";
          isFunction |= piece == ".func";
          isEntry |= piece == ".entry";
          isExtern |= piece == ".extern";
        }
      },
      [&](StringRef name) {
        if (depth != 0 || brackets != 0)
          return;
        if ((isMemory || (isFunction && !isExtern)) && !isEntry)
          names.insert(name);
        reset();
      });
  return names;
}

/// The number in a line like ".version 9.0", times ten.
unsigned versionOf(StringRef ptx) {
  for (StringRef line : split(ptx, '\n')) {
    if (!line.consume_front(".version "))
      continue;
    auto [major, minor] = line.trim().split('.');
    unsigned a = 0, b = 0;
    if (!major.getAsInteger(10, a) && !minor.getAsInteger(10, b))
      return a * 10 + b;
  }
  return 0;
}

} // namespace

std::string joinPtx(StringRef ptx, ArrayRef<std::string> others, uint32_t arch) {
  unsigned version = versionOf(ptx);
  for (const std::string &other : others)
    version = std::max(version, versionOf(other));
  std::string joined;
  raw_string_ostream os(joined);
  for (StringRef line : split(ptx, '\n')) {
    if (line.starts_with(".version "))
      os << ".version " << version / 10 << '.' << version % 10 << '\n';
    else if (StringRef rest = line; rest.consume_front(".target sm_"))
      os << ".target sm_" << arch << rest.drop_while(isDigit) << '\n';
    else
      os << line << '\n';
  }
  StringSet<> declared; // of what the driver brings along: once in a module
  for (auto [number, other] : enumerate(others)) {
    StringSet<> own = internalNames(other);
    std::string body;
    walkNames(
        other, [&](StringRef piece) { body += piece; },
        [&](StringRef name) {
          body += name;
          if (own.contains(name))
            body += "__dlc" + std::to_string(number);
        });
    bool inExtern = false, drop = false;
    for (StringRef line : split(body, '\n')) {
      StringRef word = line.ltrim();
      if (word.starts_with(".version ") || word.starts_with(".target ") ||
          word.starts_with(".address_size ") || word.starts_with("//"))
        continue;
      if (word.starts_with(".extern .func")) {
        inExtern = true;
        StringRef name = line.rtrim().rtrim('(').rtrim();
        drop = !declared.insert(name.take_back(name.size() - name.find_last_of(" )") - 1)).second;
      }
      if (!drop)
        os << line << '\n';
      if (inExtern && word.contains(';'))
        inExtern = drop = false;
    }
  }
  return joined;
}

} // namespace dlc
