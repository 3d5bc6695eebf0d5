//===- Info.cpp - dlrun info: what an artefact says about itself -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Runs no code of the file: the description and the ELF structures are read as data.
//
//===----------------------------------------------------------------------===//

#include "Commands.h"
#include "ElfNeeds.h"
#include "File.h"
#include "Json.h"
#include "Model.h"

#include <cmath>
#include <cstdio>

namespace dlc::run {

static std::string kindName(uint32_t kind) {
  static const char *const names[] = {"trained", "state", "slot", "random"};
  return kind < std::size(names) ? names[kind] : concat("kind ", kind);
}

static std::vector<std::string> splitCommas(std::string_view text) {
  std::vector<std::string> words;
  while (!text.empty()) {
    size_t comma = text.find(',');
    if (comma != 0)
      words.emplace_back(text.substr(0, comma));
    text.remove_prefix(comma == std::string_view::npos ? text.size() : comma + 1);
  }
  return words;
}

static std::string orEmpty(const char *text) { return text ? text : ""; }

namespace {
struct Totals {
  uint64_t variables = 0, trained = 0, file = 0;
};
} // namespace

static std::string imageText(const dlrt_image_info &image) {
  return concat(image.is_ptx ? "PTX for sm_" : "sm_", image.arch, " (", formatBytes(image.bytes),
                ')');
}

/// "add (model.dl:3): add_kernel" and when it runs.
static std::string launchText(const Model &model, const Launch &launch) {
  std::string text = launch.name;
  if (!launch.location.empty())
    text += concat(" (", launch.location, ')');
  if (launch.inner)
    return concat(text, ": around the next ", launch.inner);
  text += concat(": ", launch.kernel ? model.gpuKernels()[*launch.kernel].symbol : "cuBLASLt");
  if (launch.when == 2)
    text += ", without cuBLASLt";
  else if (launch.when == 1 && launch.kernel)
    text += ", with cuBLASLt";
  return text;
}

static Json launchesJson(const Model &model, const Function &function) {
  static const char *const when[] = {"always", "with cublasLt", "without cublasLt"};
  Json list = Json::array();
  for (const Launch &launch : function.launches)
    list.push_back(Json{
        {"name", launch.name},
        {"location", launch.location},
        {"kernel", launch.kernel ? Json(model.gpuKernels()[*launch.kernel].symbol) : Json(nullptr)},
        {"when", when[launch.when]},
        {"inner", launch.inner}});
  return list;
}

static void addGpuJson(const Model &model, Json &root) {
  root["images"] = Json::array();
  for (const dlrt_image_info &image : model.images())
    root["images"].push_back(Json{{"kind", image.is_ptx ? "ptx" : "cubin"},
                                  {"arch", concat("sm_", image.arch)},
                                  {"bytes", image.bytes}});
  root["gpu_kernels"] = Json::array();
  for (const GpuKernel &kernel : model.gpuKernels()) {
    Json resources = Json::array();
    for (const dlrt_kernel_resources &one : kernel.resources)
      resources.push_back(Json{{"arch", concat("sm_", one.arch)},
                               {"registers", one.registers},
                               {"shared_bytes", one.shared_bytes},
                               {"local_bytes", one.local_bytes}});
    root["gpu_kernels"].push_back(Json{{"symbol", kernel.symbol},
                                       {"threads", kernel.threads},
                                       {"dynamic_shared_bytes", kernel.sharedBytes},
                                       {"resources", std::move(resources)}});
  }
}

/// A line for each kernel and architecture.
static void printGpuKernels(const Model &model) {
  if (model.gpuKernels().empty())
    return;
  size_t width = 6;
  for (const GpuKernel &kernel : model.gpuKernels())
    width = std::max(width, printable(kernel.symbol).size());
  int columns = static_cast<int>(std::min<size_t>(width, 60));
  std::printf("\ngpu kernels\n  %-*s  %-8s  %7s  %9s  %12s  %12s\n", columns, "symbol", "arch",
              "threads", "registers", "shared bytes", "local bytes");
  for (const GpuKernel &kernel : model.gpuKernels()) {
    std::string symbol = printable(kernel.symbol);
    if (kernel.resources.empty())
      std::printf("  %-*s  %-8s  %7u  %9s  %12u  %12s\n", columns, symbol.c_str(), "PTX",
                  kernel.threads, "?", kernel.sharedBytes, "?");
    for (const dlrt_kernel_resources &one : kernel.resources)
      std::printf("  %-*s  %-8s  %7u  %9u  %12llu  %12u\n", columns, symbol.c_str(),
                  concat("sm_", one.arch).c_str(), kernel.threads, one.registers,
                  static_cast<unsigned long long>(one.shared_bytes) + kernel.sharedBytes,
                  one.local_bytes);
  }
}

static Json valuesJson(const std::vector<Value> &values) {
  Json list = Json::array();
  for (const Value &value : values) {
    Json entry = {{"name", value.name}, {"dtype", nameOf(value.dtype)}, {"shape", value.shape}};
    entry["dims"] = Json::array();
    for (int64_t dim : value.dims)
      entry["dims"].push_back(dim >= 0 ? Json(dim) : Json(nullptr));
    if (value.hasDefault)
      entry["default"] = value.defaultValue && std::isfinite(*value.defaultValue)
                             ? Json(*value.defaultValue)
                             : Json(nullptr);
    list.push_back(std::move(entry));
  }
  return list;
}

static void printJson(const Model &model, const ElfNeeds &needs, const Totals &totals) {
  const dlrt_model_info &info = model.info();
  Json root;
  root["model"] = orEmpty(info.name);
  root["doc"] = orEmpty(info.doc);
  root["compiler"] = orEmpty(info.compiler);
  root["abi_version"] = info.abi_version;
  root["triple"] = orEmpty(info.triple);
  root["cpu"] = orEmpty(info.cpu);
  root["features"] = splitCommas(orEmpty(info.features));
  root["targets"] = splitCommas(orEmpty(info.targets));
  root["libraries"] = needs.libraries;
  root["glibc"] = needs.newestGlibc.empty() ? Json(nullptr) : Json(needs.newestGlibc);
  root["dims"] = model.dims();
  root["functions"] = Json::array();
  for (const Function &function : model.functions()) {
    Json entry;
    entry["name"] = function.name;
    entry["doc"] = function.doc;
    entry["const"] = function.isConst;
    entry["train"] = function.isTrain;
    entry["arguments"] = valuesJson(function.arguments);
    entry["results"] = valuesJson(function.results);
    entry["kernels"] = function.kernels;
    entry["launches"] = launchesJson(model, function);
    root["functions"].push_back(std::move(entry));
  }
  root["variables"] = Json::array();
  for (const Variable &variable : model.variables())
    root["variables"].push_back(Json{{"name", variable.name},
                                     {"doc", variable.doc},
                                     {"dtype", nameOf(variable.dtype)},
                                     {"dims", variable.dims},
                                     {"kind", kindName(variable.kind)},
                                     {"bytes", variable.bytes}});
  addGpuJson(model, root);
  root["variable_bytes"] = totals.variables;
  root["trained_bytes"] = totals.trained;
  root["file_bytes"] = totals.file;
  std::printf("%s\n", dumpJson(root, 2).c_str());
}

/// A /// comment of several lines, indented.
static void printDoc(const std::string &doc, const char *indent) {
  std::string_view rest = doc;
  while (!rest.empty()) {
    size_t end = rest.find('\n');
    std::printf("%s%s\n", indent, printable(rest.substr(0, end)).c_str());
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
}

static void printText(const Model &model, const ElfNeeds &needs, const Totals &totals) {
  const dlrt_model_info &info = model.info();
  auto line = [](const char *label, const std::string &text) {
    if (!text.empty())
      std::printf("%-10s %s\n", label, printable(text).c_str());
  };
  line("model", orEmpty(info.name));
  printDoc(orEmpty(info.doc), "           ");
  line("compiler", orEmpty(info.compiler));
  line("abi", concat(info.abi_version));
  std::string cpu = orEmpty(info.cpu);
  line("target", concat(orEmpty(info.triple), cpu.empty() ? "" : ", ", cpu));
  line("features", joinWords(splitCommas(orEmpty(info.features))));
  line("targets", joinWords(splitCommas(orEmpty(info.targets))));
  std::vector<std::string> images;
  for (const dlrt_image_info &image : model.images())
    images.push_back(imageText(image));
  line("images", joinWords(images));
  line("libraries", joinWords(needs.libraries));
  line("glibc", needs.newestGlibc.empty() ? "" : concat(needs.newestGlibc, " or newer"));
  line("dims", joinWords(model.dims()));
  line("file", formatBytes(totals.file));

  std::printf("\nfunctions\n");
  for (const Function &function : model.functions()) {
    std::vector<std::string> marks;
    if (function.isTrain)
      marks.push_back("train");
    if (function.isConst)
      marks.push_back("const");
    marks.push_back(
        concat(function.kernels.size(), function.kernels.size() == 1 ? " kernel" : " kernels"));
    std::string text;
    for (const std::string &mark : marks)
      text += (text.empty() ? "" : ", ") + mark;
    std::printf("  %s   (%s)\n", printable(function.signature()).c_str(), text.c_str());
    printDoc(function.doc, "      ");
    for (const std::string &kernel : function.kernels)
      std::printf("      %s\n", printable(kernel).c_str());
    if (!function.launches.empty())
      std::printf("      on a GPU\n");
    for (const Launch &launch : function.launches)
      std::printf("        %s\n", printable(launchText(model, launch)).c_str());
  }
  printGpuKernels(model);

  std::printf("\nvariables\n");
  size_t width = 0;
  for (const Variable &variable : model.variables())
    width = std::max(width, printable(variable.name).size());
  for (const Variable &variable : model.variables()) {
    std::printf("  %-*s  %-20s  %-7s  %12llu bytes\n",
                static_cast<int>(std::min<size_t>(width, 60)), printable(variable.name).c_str(),
                typeText(variable.dtype, variable.dims).c_str(), kindName(variable.kind).c_str(),
                static_cast<unsigned long long>(variable.bytes));
    printDoc(variable.doc, "      ");
  }
  std::printf("  %zu in all, %s, of which %s trained\n", model.variables().size(),
              formatBytes(totals.variables).c_str(), formatBytes(totals.trained).c_str());
}

Expected<int> runInfo(const InfoOptions &options) {
  Expected<Model> model = Model::open(options.model, Model::Access::Inspect);
  if (!model)
    return model.error();
  Expected<std::string> file = readWholeFile(options.model, physicalMemory() / 2);
  if (!file)
    return file.error();
  Expected<ElfNeeds> needs = readElfNeeds(*file);
  if (!needs)
    return makeError(quote(options.model), ": ", needs.error().message);

  Totals totals;
  totals.file = file->size();
  for (const Variable &variable : model->variables()) {
    totals.variables += variable.bytes;
    if (variable.kind == 0)
      totals.trained += variable.bytes;
  }
  if (options.json)
    printJson(*model, *needs, totals);
  else
    printText(*model, *needs, totals);
  return ExitSuccess;
}

} // namespace dlc::run
