//===- dlc.cpp - the compiler's command line -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Flags to options, options to compile() or checkGrad(), their answer to the exit code: 0 done, 1
// errors in the program or in files, 2 the command line is wrong.
//
//===----------------------------------------------------------------------===//

#include "CheckGrad.h"
#include "compiler/Compile.h"
#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <unistd.h>

using namespace dlc;

namespace {

constexpr int exitError = 1, exitUsage = 2;

struct UsageError {
  std::string message;
};

struct StageName {
  const char *name;
  const char *extension; // "" where only --emit asks for it
  Stage stage;
  bool isText;
};

constexpr StageName stages[] = {
    {"dl", ".mlir", Stage::Dl, true},      {"fused", "", Stage::Fused, true},
    {"plan", "", Stage::Plan, true},       {"lowered", "", Stage::Lowered, true},
    {"ptx", ".ptx", Stage::Ptx, true},     {"cubin", ".cubin", Stage::Cubin, false},
    {"llvm", ".ll", Stage::Llvm, true},    {"asm", ".s", Stage::Asm, true},
    {"obj", ".o", Stage::Object, false},   {"archive", ".a", Stage::Archive, false},
    {"lib", ".so", Stage::Library, false}, {"header", ".h", Stage::Header, true},
};

std::string listStages() {
  std::string text;
  for (const StageName &stage : stages)
    text += (text.empty() ? "" : ", ") + std::string(stage.name);
  return text;
}

std::string listExtensions() {
  std::string text;
  for (const StageName &stage : stages)
    if (*stage.extension)
      text += (text.empty() ? "" : ", ") + std::string(stage.extension);
  return text;
}

/// A compiler's options with one dash and several letters, as CLI11 takes them.
std::vector<std::string> normalize(int argc, char **argv, int first) {
  std::vector<std::string> arguments;
  for (int i = first; i < argc; ++i) {
    std::string argument = argv[i];
    if (argument == "-MD")
      argument = "--write-dependencies";
    else if (argument.rfind("-MF", 0) == 0)
      argument =
          argument.size() == 3 ? "--dependency-file" : "--dependency-file=" + argument.substr(3);
    else if (argument.rfind("-march=", 0) == 0)
      argument = "-" + argument;
    else if (argument == "-march")
      argument = "--march";
    arguments.push_back(std::move(argument));
  }
  std::reverse(arguments.begin(), arguments.end()); // as CLI11 wants them
  return arguments;
}

/// Splits NAME=VALUE.
std::pair<std::string, std::string> splitBinding(const std::string &option,
                                                 const std::string &text) {
  size_t equal = text.find('=');
  if (equal == 0 || equal == std::string::npos)
    throw UsageError{option + " takes NAME=VALUE, not '" + text + "'"};
  return {text.substr(0, equal), text.substr(equal + 1)};
}

std::pair<std::string, int64_t> splitNumber(const std::string &option, const std::string &text) {
  auto [name, value] = splitBinding(option, text);
  int64_t number = 0;
  auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size() || number < 1)
    throw UsageError{option + " takes NAME=NUMBER with a number of at least 1, not '" + text + "'"};
  return {name, number};
}

/// What stands between commas.
std::vector<std::string> splitList(const std::string &text) {
  std::vector<std::string> parts(1);
  for (char c : text) {
    if (c == ',')
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

/// Options that compiling and checking share.
struct CommonFlags {
  CompileOptions options;
  std::vector<std::string> defines;
  std::string target = "cpu", triple, gpuArchs;

  void add(CLI::App &app) {
    app.add_option("-D", defines, "Bind a parameter of the model; ? leaves a size to the call")
        ->type_name("NAME=VALUE")
        ->allow_extra_args(false);
    app.add_option("-I", options.includePaths, "Look here for imports, before the library")
        ->type_name("DIR")
        ->allow_extra_args(false);
    app.add_option("--model", options.model, "Which model, where the file has several")
        ->type_name("NAME");
    app.add_option("-O", options.optLevel, "Optimization, 0 to 3; values don't depend on it")
        ->type_name("LEVEL")
        ->default_val(2);
    app.add_option("--march", options.march,
                   "Processor to compile for: native, x86-64-v3, x86-64-v4, or a name")
        ->type_name("CPU")
        ->default_val("native");
    app.add_option("--triple", triple, "Machine to compile for")->type_name("TRIPLE");
    app.add_option("--target", target,
                   "What runs the model: cpu, cuda, or cpu,cuda for one artefact that does both")
        ->type_name("TARGET")
        ->default_val("cpu");
    app.add_option("--gpu-arch", gpuArchs,
                   "GPUs to assemble for; later ones compile the PTX when it is loaded")
        ->type_name("sm_N,...")
        ->default_val("sm_80,sm_90");
    app.add_option("--gemm", options.gemm,
                   "What computes products on a GPU: auto, own or cublaslt")
        ->type_name("ENGINE")
        ->default_val("auto");
    app.add_flag("--tf32", options.tf32, "Let products of f32 round their factors to TF32");
    app.add_option("--print-ir-after", options.printIrAfter,
                   "Print the program after a pass, or after all, to stderr")
        ->type_name("PASS")
        ->allow_extra_args(false);
    app.add_flag("--time-passes", options.timePasses,
                 "Print where compiling spent its time, to stderr");
  }

  void finish() {
    for (const std::string &text : defines)
      options.defines.push_back(splitBinding("-D", text));
    if (options.optLevel > 3)
      throw UsageError{"-O takes 0 to 3, not " + std::to_string(options.optLevel)};
    options.triple = triple;
    options.cpu = options.cuda = false;
    for (const std::string &name : splitList(target)) {
      if (name != "cpu" && name != "cuda")
        throw UsageError{"--target takes cpu, cuda or cpu,cuda, not '" + target + "'"};
      (name == "cpu" ? options.cpu : options.cuda) = true;
    }
    options.gpuArchs = splitList(gpuArchs);
    if (options.gemm != "auto" && options.gemm != "own" && options.gemm != "cublaslt")
      throw UsageError{"--gemm takes auto, own or cublaslt, not '" + options.gemm + "'"};
    if (options.cuda) {
      if (std::string wrong = checkGpuArchs(options.gpuArchs); !wrong.empty())
        throw UsageError{wrong};
      constexpr int tf32Since = 80; // mma of TF32
      for (const std::string &arch : options.gpuArchs)
        if (options.tf32 && std::stoi(arch.substr(std::strlen("sm_"))) < tf32Since)
          throw UsageError{"--tf32 needs GPUs of architecture sm_80 or later, not " + arch};
    }
    if (std::string wrong = checkTarget(options.march, options.triple); !wrong.empty())
      throw UsageError{wrong};
    std::string extension = std::filesystem::path(options.input).extension().string();
    for (const char *graph :
         {".onnx", ".pb", ".pbtxt", ".caffemodel", ".prototxt", ".pt2", ".pt", ".mlirbc"})
      if (extension == graph)
        throw UsageError{"'" + options.input + "': importing " + extension +
                         " is not supported yet; dlc compiles programs in its own language"};
  }
};

int runCompile(const std::vector<std::string> &arguments) {
  CLI::App app{"Compiles a neural network with its training step into a native library.\n"
               "`dlc check-grad --help` says how to check gradients.",
               "dlc"};
  CommonFlags common;
  std::string output, floatName = "f32", emit, header, dependencyFile;
  bool writeRule = false;
  app.add_option("program", common.options.input, "Program to compile, model.dl")->required();
  app.add_option("-o", output,
                 "File to write; its extension decides what: " + listExtensions() +
                     "; - is standard output")
      ->type_name("FILE");
  app.add_option("--emit", emit, "What to write, whatever the file's name: " + listStages())
      ->type_name("STAGE");
  app.add_option("--header", header, "Write a C header typed for the model")->type_name("FILE");
  common.add(app);
  app.add_option("--float", floatName, "What f32 in the program means: f32 or f64")
      ->type_name("TYPE")
      ->default_val("f32");
  app.add_flag("--write-dependencies", writeRule,
               "Also -MD: write a make rule of the files that were read");
  app.add_option("--dependency-file", dependencyFile,
                 "Also -MF: where to write it; by default the output's name with .d")
      ->type_name("FILE");
  app.set_version_flag("--version", [] { return versionText(); });
  app.get_formatter()->column_width(36);
  try {
    std::vector<std::string> copy = arguments;
    app.parse(copy);
  } catch (const CLI::ParseError &error) {
    if (error.get_exit_code() == 0)
      return app.exit(error);
    throw UsageError{error.what()};
  }
  common.finish();
  CompileOptions &options = common.options;
  if (floatName != "f32" && floatName != "f64")
    throw UsageError{"--float takes f32 or f64, not '" + floatName + "'"};
  options.f64 = floatName == "f64";

  std::vector<Output> outputs;
  std::filesystem::path input(options.input);
  const StageName *stage = nullptr;
  if (!emit.empty()) {
    for (const StageName &candidate : stages)
      if (emit == candidate.name)
        stage = &candidate;
    if (!stage)
      throw UsageError{"--emit takes " + listStages() + ", not '" + emit + "'"};
  } else if (!output.empty() && output != "-") {
    std::string extension = std::filesystem::path(output).extension().string();
    for (const StageName &candidate : stages)
      if (!extension.empty() && extension == candidate.extension)
        stage = &candidate;
    if (!stage)
      throw UsageError{"the name '" + output +
                       "' does not say what to write: its extension is none of " +
                       listExtensions() + "; --emit=STAGE says it too"};
  } else if (output == "-") {
    throw UsageError{"-o - needs --emit=STAGE to say what to write"};
  } else if (header.empty()) {
    stage = &stages[10]; // a library beside the caller, as a C compiler leaves its output there
    static_assert(stages[10].stage == Stage::Library);
  }
  if (stage && !options.cuda && (stage->stage == Stage::Ptx || stage->stage == Stage::Cubin))
    throw UsageError{std::string("--target=") + common.target + " makes no " + stage->name +
                     "; --target=cuda does"};
  if (stage && !options.cpu && stage->stage == Stage::Asm)
    throw UsageError{"--target=cuda makes PTX rather than a processor's assembly; --emit=ptx shows "
                     "it"};
  if (stage && output.empty())
    output = stage->isText && stage->stage != Stage::Header
                 ? "-"
                 : input.stem().string() + (*stage->extension ? stage->extension : ".out");
  if (stage && !stage->isText && output == "-" && ::isatty(STDOUT_FILENO))
    throw UsageError{"a terminal shows no object code; -o FILE writes it to a file"};
  if (stage)
    outputs.push_back({stage->stage, output});
  if (!header.empty())
    outputs.push_back({Stage::Header, header});
  for (const Output &one : outputs) {
    std::error_code ignored;
    if (std::filesystem::equivalent(one.path, input, ignored))
      throw UsageError{"'" + one.path + "' is the program itself; name another file to write"};
  }

  if (!dependencyFile.empty())
    writeRule = true;
  if (writeRule && dependencyFile.empty()) {
    if (outputs.front().path == "-")
      throw UsageError{"-MD needs -MF FILE where the output has no name"};
    dependencyFile = std::filesystem::path(outputs.front().path).replace_extension(".d").string();
  }

  CompileResult result = compile(options, outputs);
  if (!result.ok)
    return exitError;
  if (writeRule) {
    std::vector<std::string> targets;
    for (const Output &one : outputs)
      if (one.path != "-")
        targets.push_back(one.path);
    if (targets.empty())
      targets.push_back(input.stem().string());
    if (!writeDependencies(dependencyFile, targets, result.dependencies))
      return exitError;
  }
  return 0;
}

int runCheckGrad(const std::vector<std::string> &arguments) {
  CLI::App app{"Compares the derivatives that dlc makes with central differences, in f64, for "
               "every trained variable.\n"
               "Without functions: each exported one whose first result is one float and "
               "depends on a variable.",
               "dlc check-grad"};
  CommonFlags common;
  CheckGradOptions options;
  std::vector<std::string> sizes, ranges;
  app.add_option("program", common.options.input, "Program to check, model.dl")->required();
  app.add_option("functions", options.functions,
                 "Functions whose first results are differentiated");
  app.add_option("--tolerance", options.tolerance, "Largest relative error that passes")
      ->type_name("X")
      ->default_val(options.tolerance);
  app.add_option("--seed", options.seed, "Of the variables' initial values and the inputs")
      ->type_name("K")
      ->default_val(0);
  app.add_option("--samples", options.samples, "Elements to check of each variable; 0: all")
      ->type_name("K")
      ->default_val(options.samples);
  app.add_option("--dim", sizes, "A size that the program leaves to the call")
      ->type_name("NAME=SIZE")
      ->allow_extra_args(false);
  app.add_option("--range", ranges, "An integer argument takes values from 0 to below N")
      ->type_name("NAME=N")
      ->allow_extra_args(false);
  common.add(app);
  app.get_formatter()->column_width(36);
  try {
    std::vector<std::string> copy = arguments;
    app.parse(copy);
  } catch (const CLI::ParseError &error) {
    if (error.get_exit_code() == 0)
      return app.exit(error);
    throw UsageError{error.what()};
  }
  common.finish();
  if (common.options.cuda)
    throw UsageError{"gradients are checked on the CPU: leave out --target=" + common.target};
  if (!(options.tolerance > 0))
    throw UsageError{"--tolerance takes a number above 0"};
  for (const std::string &text : sizes)
    options.dims.push_back(splitNumber("--dim", text));
  for (const std::string &text : ranges)
    options.ranges.push_back(splitNumber("--range", text));
  options.compile = common.options;
  return checkGrad(options) ? 0 : exitError;
}

} // namespace

int main(int argc, char **argv) {
  // A limit on the size of files is an error of the write, not the end of the process.
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    if (argc > 1 && std::string(argv[1]) == "check-grad")
      return runCheckGrad(normalize(argc, argv, 2));
    return runCompile(normalize(argc, argv, 1));
  } catch (const UsageError &error) {
    reportError(error.message);
    return exitUsage;
  }
}
