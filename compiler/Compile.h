//===- Compile.h - a program's text to its artefacts -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// What the driver calls. This header stands alone: whoever includes it sees nothing of LLVM.
//
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_COMPILE_H
#define DLC_COMPILER_COMPILE_H

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace dlc {

struct ModelDescription;

/// What can be written, in the order in which it comes to be.
enum class Stage { Dl, Fused, Plan, Lowered, Ptx, Cubin, Llvm, Asm, Object, Archive, Library, Header };

struct Output {
  Stage stage;
  std::string path; // "-": standard output
};

struct CompileOptions {
  std::string input;
  std::vector<std::pair<std::string, std::string>> defines; // -D
  std::vector<std::string> includePaths;                    // -I
  std::string model;                                        // which one, where the file has several
  bool f64 = false;                                         // --float=f64
  unsigned optLevel = 2;
  std::string march = "native";
  std::string triple; // empty: of this build
  bool cpu = true, cuda = false;                             // --target
  std::vector<std::string> gpuArchs = {"sm_80", "sm_90"};    // --gpu-arch
  std::string gemm = "auto";                                // --gemm: auto, own, cublaslt
  bool tf32 = false;                                        // --tf32
  std::vector<std::string> printIrAfter;
  bool timePasses = false;
  std::string checkGradOf; // LanguageOptions::checkGradOf
};

struct CompileResult {
  bool ok = false;
  std::vector<std::string> dependencies;         // files that were read, the program first
  std::shared_ptr<const ModelDescription> model; // null where compilation stopped before it
};

/// Compiles and writes every output, or writes none and reports to stderr why.
CompileResult compile(const CompileOptions &options, const std::vector<Output> &outputs);

/// Writes a make rule: \p targets depend on \p dependencies. Reports to stderr what goes wrong.
bool writeDependencies(const std::string &path, const std::vector<std::string> &targets,
                       const std::vector<std::string> &dependencies);

/// What is wrong with a processor and a machine to compile for; empty where nothing is.
std::string checkTarget(const std::string &march, const std::string &triple);

/// What is wrong with names of GPU architectures; empty where nothing is.
std::string checkGpuArchs(const std::vector<std::string> &archs);

/// An error that belongs to no line of a program: "dlc: error: ..." on stderr.
void reportError(const std::string &message);

/// "dlc 0.1.0, LLVM 22.1.8".
std::string versionText();

} // namespace dlc

#endif // DLC_COMPILER_COMPILE_H
