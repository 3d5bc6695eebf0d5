//===- main.cpp - dlrun: drives compiled models -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Commands.h"
#include "Model.h"

#include "dlrt/model_abi.h"

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <functional>
#include <new>

using namespace dlc::run;

namespace {

/// A command line in the making: what to run once it is parsed.
struct CommandLine {
  InfoOptions info;
  CallOptions call;
  TrainOptions train;
  BenchOptions bench;
  std::function<Expected<int>()> run;
};

/// CLI11's own check for this prints its bounds in every help text.
CLI::Validator positive() {
  auto check = [](const std::string &text) {
    std::optional<int64_t> number = parseInteger<int64_t>(text);
    return number && *number > 0 ? std::string()
                                 : concat("takes a whole number from 1, got ", quote(text));
  };
  return CLI::Validator(check, "");
}

void addModel(CLI::App &command, std::string &model) {
  command.add_option("MODEL", model, "A compiled model (.so)")->required();
}

void addThreads(CLI::App &command, uint32_t &threads) {
  command.add_option("--threads", threads, "Threads to use; 0, the default: all of the process")
      ->type_name("K");
}

void addDevice(CLI::App &command, std::string &device) {
  command
      .add_option("--device", device,
                  "cpu, cuda, cuda:K (a GPU by number) or auto, the default: a GPU where the model "
                  "has a program for it and one is there")
      ->type_name("DEVICE");
}

CLI::Option *addAssignments(CLI::App &command, const char *option, std::vector<std::string> &to,
                            const char *type, const char *help) {
  return command.add_option(option, to, help)->type_name(type);
}

void addInfo(CLI::App &app, CommandLine &line) {
  CLI::App &command =
      *app.add_subcommand("info", "Print what a model offers and needs; runs none of its code");
  addModel(command, line.info.model);
  command.add_flag("--json", line.info.json, "Print JSON");
  command.callback([&line] { line.run = [&line] { return runInfo(line.info); }; });
}

void addCall(CLI::App &app, CommandLine &line) {
  CLI::App &command = *app.add_subcommand("call", "Call a function on arrays from files");
  CallOptions &options = line.call;
  addModel(command, options.model);
  command.add_option("FUNCTION", options.function, "The function to call")->required();
  addAssignments(command, "--input", options.inputs, "NAME=FILE",
                 "Arguments: .npy or IDX files; numbers for scalars");
  command
      .add_option("--output-dir", options.outputFolder,
                  "Write each result here as NAME.npy (an unnamed one as out.npy)")
      ->type_name("DIR");
  CLI::Option *load = command.add_option("--load", options.load, "Variables from this checkpoint")
                          ->type_name("FILE");
  command.add_option("--seed", options.seed, "Initial values from this seed (default 0)")
      ->type_name("K")
      ->excludes(load);
  command
      .add_option("--repeat", options.repeat,
                  "Call so many times on the same inputs (default 1; 0: not at all)")
      ->type_name("K");
  command.add_option("--save", options.save, "Then save the variables here")->type_name("FILE");
  addThreads(command, options.threads);
  addDevice(command, options.device);
  command.callback([&line] { line.run = [&line] { return runCall(line.call); }; });
}

void addTrain(CLI::App &app, CommandLine &line) {
  CLI::App &command = *app.add_subcommand("train", "Train a model on data from files");
  TrainOptions &options = line.train;
  addModel(command, options.model);
  addAssignments(
      command, "--data", options.data, "NAME=FILE[:PART]",
      "The step's arguments, row by row, from .npy, .npz, IDX, CSV, HDF5 or LMDB; a file "
      "without NAME= gives the arguments that its parts are called like")
      ->required();
  addAssignments(command, "--validation", options.validation, "NAME=FILE[:PART]",
                 "Held-out data, measured after each epoch");
  addAssignments(command, "--scale", options.scales, "NAME=FACTOR",
                 "Multiply data by a number or a fraction such as 1/255");
  addAssignments(command, "--input", options.inputs, "NAME=VALUE",
                 "Arguments that are the same in every step");
  command
      .add_option("--batch", options.batch, "Rows per step (default 128, or what the model fixes)")
      ->type_name("ROWS")
      ->check(positive());
  command.add_option("--epochs", options.epochs, "Passes over the data (default 8)")
      ->type_name("K");
  command
      .add_option("--checkpoint", options.checkpoint,
                  "Save last.safetensors and state.json here after each epoch")
      ->type_name("DIR");
  command.add_option("--save-every", options.saveEvery, "Save after every N steps as well")
      ->type_name("N");
  CLI::Option *resume =
      command.add_flag("--resume", options.resume, "Go on with the training in --checkpoint");
  command
      .add_flag("--overwrite", options.overwrite,
                "Start again even if --checkpoint holds an interrupted training")
      ->excludes(resume);
  command.add_option("--load", options.load, "Start from this checkpoint's variables")
      ->type_name("FILE")
      ->excludes(resume);
  command.add_option("--seed", options.seed, "For initial values and shuffling (default 0)")
      ->type_name("K");
  command.add_option("--step", options.step, "The train step (default: the only one)")
      ->type_name("FUNCTION");
  command
      .add_option("--loss", options.loss,
                  "Measures the loss on --validation (default: loss, if any)")
      ->type_name("FUNCTION");
  command
      .add_option(
          "--metric", options.metric,
          "Measures the metric on --validation (default: accuracy, else the first that fits)")
      ->type_name("FUNCTION");
  addThreads(command, options.threads);
  addDevice(command, options.device);
  command.callback([&line] { line.run = [&line] { return runTrain(line.train); }; });
}

void addBench(CLI::App &app, CommandLine &line) {
  CLI::App &command =
      *app.add_subcommand("bench", "Time a function on random arguments that stay in memory");
  BenchOptions &options = line.bench;
  addModel(command, options.model);
  command.add_option("FUNCTION", options.function, "The function to call")->required();
  addAssignments(command, "--dim", options.dims, "NAME=SIZE", "Sizes of dynamic dimensions");
  addAssignments(command, "--range", options.ranges, "NAME=COUNT",
                 "Whole-number arguments are drawn from 0 to COUNT - 1");
  addAssignments(command, "--input", options.inputs, "NAME=VALUE",
                 "Arguments that are not random: files, or numbers for scalars");
  command.add_option("--load", options.load, "Variables from this checkpoint")->type_name("FILE");
  command.add_option("--seed", options.seed, "For variables and arguments (default 0)")
      ->type_name("K");
  command.add_option("--runs", options.runs, "Timed calls (default: at least 5 and half a second)")
      ->type_name("R")
      ->check(positive());
  command.add_flag("--json", options.json, "Print JSON");
  CLI::Option *profile =
      command
          .add_option("--profile", options.trace,
                      "Print the time of each kernel as well; with FILE, write a trace there "
                      "instead (for Perfetto and chrome://tracing)")
          ->expected(0, 1)
          ->type_name("[FILE]");
  command
      .add_option("--peak", options.peak,
                  "What the device can do at most, for --profile: 1e9 operations on floating-point "
                  "numbers and 1e9 bytes "
                  "a second (default: measured, on the processor; unknown on a GPU)")
      ->type_name("GFLOPS,GBS");
  addThreads(command, options.threads);
  addDevice(command, options.device);
  command.callback([&line, profile] {
    line.bench.profile = profile->count() > 0;
    line.run = [&line] { return runBench(line.bench); };
  });
}

int fail(const Error &error) {
  std::fflush(stdout);
  std::fprintf(stderr, "dlrun: error: %s\n", error.message.c_str());
  return error.exitCode;
}

/// CLI11's messages in the form of ours: one line, lower-case start, no period at the end.
std::string oneLine(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '.'))
    text.pop_back();
  for (char &c : text)
    if (c == '\n')
      c = ' ';
  if (!text.empty() && text[0] >= 'A' && text[0] <= 'Z')
    text[0] = static_cast<char>(text[0] - 'A' + 'a');
  return printable(text);
}

/// What is wrong with the names on a command line that CLI11 refuses: the first unknown option or
/// command, and which one is near; nothing where they are all known.
std::string unknownName(CLI::App &app, int argc, char **argv) {
  CLI::App *command = nullptr;
  std::vector<std::string> names;
  for (int i = 1; i < argc; ++i) {
    std::string_view word = argv[i];
    if (word == "--")
      return "";
    if (!command && !word.starts_with("-")) {
      for (CLI::App *candidate : app.get_subcommands(nullptr)) {
        names.push_back(candidate->get_name());
        if (word == names.back())
          command = candidate;
      }
      if (!command)
        return concat("unknown command ", quote(word), didYouMean(word, names));
      continue;
    }
    if (!word.starts_with("--"))
      continue;
    std::string name(word.substr(0, word.find('=')));
    CLI::App &scope = command ? *command : app;
    if (scope.get_option_no_throw(name))
      continue;
    names.clear();
    for (const CLI::Option *option : scope.get_options())
      for (const std::string &known : option->get_lnames())
        names.push_back("--" + known);
    return concat("unknown option ", quote(name), didYouMean(name, names));
  }
  return "";
}

int runMain(int argc, char **argv) {
  CommandLine line;
  line.train.commandLine.assign(argv, argv + argc);

  CLI::App app("dlrun drives models that dlc compiled", "dlrun");
  app.require_subcommand(1);
  app.set_version_flag("--version",
                       concat("dlrun ", DLC_VERSION, " (model ABI ", DL_ABI_VERSION, ")"),
                       "Print the version and exit");
  app.failure_message([](const CLI::App *, const CLI::Error &) { return std::string(); });
  addInfo(app, line);
  addCall(app, line);
  addTrain(app, line);
  addBench(app, line);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success &success) { // --help, --version
    return app.exit(success);
  } catch (const CLI::ParseError &error) {
    std::string_view command;
    for (const CLI::App *used : app.get_subcommands())
      command = used->get_name();
    std::string unknown = unknownName(app, argc, argv);
    std::string message = unknown.empty() ? oneLine(error.what()) : unknown;
    return fail(
        makeUsageError(message, "; see dlrun ", command, command.empty() ? "" : " ", "--help"));
  }
  Expected<int> code = line.run();
  return code ? *code : fail(code.error());
}

} // namespace

int main(int argc, char **argv) {
  // A limit on file sizes becomes an error of the write instead of the end of the process.
  std::signal(SIGXFSZ, SIG_IGN);
  int code;
  try {
    code = runMain(argc, argv);
  } catch (const std::bad_alloc &) {
    code = fail(makeError("out of memory"));
  } catch (const std::exception &exception) {
    code = fail(makeError("internal error: ", printable(exception.what())));
  }
  if ((std::fflush(stdout) != 0 || std::ferror(stdout)) && code == ExitSuccess)
    code = fail(makeError("cannot write to standard output"));
  return code;
}
