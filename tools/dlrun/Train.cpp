//===- Train.cpp - dlrun train: epochs over a data set -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Checkpoint.h"
#include "Commands.h"
#include "DataFile.h"
#include "Dataset.h"
#include "Inputs.h"
#include "Progress.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <deque>
#include <functional>
#include <map>
#include <numeric>
#include <set>
#include <unistd.h>

namespace dlc::run {

//===----------------------------------------------------------------------===//
// Signals
//===----------------------------------------------------------------------===//

static volatile std::sig_atomic_t interruptions = 0;

/// The first signal asks the training to stop after its step, the second ends the process.
static void onSignal(int) {
  if (interruptions != 0)
    _exit(ExitInterrupted);
  interruptions = 1;
}

static void catchSignals() {
  struct sigaction action{};
  action.sa_handler = onSignal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (int signal : {SIGINT, SIGTERM}) {
    // A signal that is ignored (nohup, a background job) stays so.
    struct sigaction old{};
    if (sigaction(signal, nullptr, &old) == 0 && old.sa_handler != SIG_IGN)
      sigaction(signal, &action, nullptr);
  }
}

//===----------------------------------------------------------------------===//
// Choosing functions
//===----------------------------------------------------------------------===//

using Names = std::set<std::string>;

/// Whether a function can be called with what `given` names, sees it as the step does, and answers
/// with one number first.
static bool isMeasure(const Function &function, const Function &step, const Names &given) {
  if (!function.isConst || function.results.empty() || !function.results[0].dims.empty())
    return false;
  bool usesRows = false;
  for (const Value &argument : function.arguments) {
    bool isGiven = given.count(argument.name) != 0;
    if (!isGiven && !argument.hasDefault)
      return false;
    const Value *trained = step.findArgument(argument.name);
    if (isGiven && trained && trained->type() != argument.type())
      return false;
    usesRows = usesRows || (isGiven && !argument.dims.empty());
  }
  return usesRows;
}

static Expected<const Function *> chooseStep(const Model &model, const std::string &named) {
  if (!named.empty()) {
    Expected<const Function *> function = model.function(named);
    if (function && (*function)->isConst)
      return makeError("function ", quote(named), " changes no variable, so it cannot train");
    return function;
  }
  // A step written out by hand is a function that assigns; one made by an optimizer is marked as
  // such.
  for (bool marked : {true, false}) {
    std::vector<const Function *> found;
    std::vector<std::string> names;
    for (const Function &function : model.functions())
      if (marked ? function.isTrain : !function.isConst) {
        found.push_back(&function);
        names.push_back(quote(function.name));
      }
    if (found.size() == 1)
      return found[0];
    if (found.size() > 1)
      return makeError("the model has several ", marked ? "train steps" : "functions that assign",
                       ", ", joinWords(names), "; choose one with --step");
  }
  return makeError(
      "the model has no function that changes a variable, so there is nothing to train");
}

/// The functions that measure on held-out data; either may be NULL.
struct Measures {
  const Function *loss = nullptr, *metric = nullptr;
};

static Expected<Measures> chooseMeasures(const Model &model, const Function &step,
                                         const TrainOptions &options, const Names &given) {
  Measures measures;
  auto named = [&](const std::string &name, const char *option) -> Expected<const Function *> {
    Expected<const Function *> function = model.function(name);
    if (function && !isMeasure(**function, step, given))
      return makeError(
          option, ": function ", printable((*function)->signature()),
          " is no measure of the data: it must assign nothing, return one number first, "
          "and take arguments that --validation names, of the step's types");
    return function;
  };
  for (const Function &function : model.functions())
    if (function.name == "loss" && isMeasure(function, step, given))
      measures.loss = &function;
  if (!options.loss.empty()) {
    Expected<const Function *> function = named(options.loss, "--loss");
    if (!function)
      return function.error();
    measures.loss = *function;
  }
  if (!options.metric.empty()) {
    Expected<const Function *> function = named(options.metric, "--metric");
    if (!function)
      return function.error();
    measures.metric = *function;
    return measures;
  }
  for (const Function &function : model.functions()) {
    if (&function == measures.loss || !isMeasure(function, step, given))
      continue;
    if (!measures.metric || function.name == "accuracy")
      measures.metric = &function;
  }
  return measures;
}

//===----------------------------------------------------------------------===//
// Batches
//===----------------------------------------------------------------------===//

namespace {

/// Calls one function on batches of a data set.
class BatchCaller {
public:
  /// `inputs`: arguments that are the same for every batch. Arguments without a column, an input or
  /// a default are an error.
  static Expected<BatchCaller> create(const Model &model, const Function &function,
                                      const Dataset &data, const std::vector<Assignment> &inputs,
                                      std::string_view dataOption);

  /// Sends the batch of these rows off; at most two are on their way.
  Status submit(Instance &instance, std::span<const int64_t> rows);
  /// Waits for the oldest batch on its way; the first result, NaN where that is no number.
  Expected<double> collect(Instance &instance);
  bool answersNumber() const { return frame.answersNumber(); }

private:
  BatchCaller(const Model &model, const Function &function) : frame(model, function) {}

  struct Source {
    size_t argument;
    const Column *column;
    Buffer batch;
  };
  CallFrame frame;
  std::vector<Source> sources;
  std::vector<std::optional<Array>> constants;
  std::deque<uint64_t> tickets;
};

} // namespace

Expected<BatchCaller> BatchCaller::create(const Model &model, const Function &function,
                                          const Dataset &data,
                                          const std::vector<Assignment> &inputs,
                                          std::string_view dataOption) {
  BatchCaller caller(model, function);
  std::vector<Assignment> known;
  for (const Assignment &input : inputs)
    if (function.findArgument(input.name))
      known.push_back(input);
  Expected<std::vector<std::optional<Array>>> constants = readInputs(function, known);
  if (!constants)
    return constants.error();
  caller.constants = std::move(*constants);
  for (size_t i = 0; i < function.arguments.size(); ++i) {
    const Value &argument = function.arguments[i];
    auto column = std::find_if(data.columns().begin(), data.columns().end(),
                               [&](const Column &entry) { return entry.name() == argument.name; });
    if (column != data.columns().end()) {
      caller.sources.push_back({i, &*column, Buffer()});
    } else if (const std::optional<Array> &constant = caller.constants[i]) {
      caller.frame.setArgument(i, constant->data.data(), constant->dtype, constant->dims);
    } else if (!argument.hasDefault) {
      return makeError("argument ", quote(argument.name), " of ", quote(function.name), " (",
                       argument.type(), ") is missing; give it with ",
                       argument.dims.empty() ? "--input" : dataOption, ' ', argument.name, '=',
                       argument.dims.empty() ? "NUMBER" : "FILE");
    }
  }
  return caller;
}

Status BatchCaller::submit(Instance &instance, std::span<const int64_t> rows) {
  for (Source &source : sources) {
    size_t bytes = source.column->rowBytes() * rows.size();
    if (source.batch.size() < bytes || !source.batch.data())
      source.batch = Buffer(bytes);
    if (Status read = source.column->gather(rows, source.batch.data()); !read)
      return read;
    frame.setArgument(source.argument, source.batch.data(), source.column->dtype(),
                      source.column->batchDims(static_cast<int64_t>(rows.size())));
  }
  Expected<uint64_t> ticket = frame.submit(instance);
  if (!ticket)
    return ticket.error();
  tickets.push_back(*ticket);
  return {};
}

Expected<double> BatchCaller::collect(Instance &instance) {
  uint64_t ticket = tickets.front();
  tickets.pop_front();
  return frame.collect(instance, ticket);
}

//===----------------------------------------------------------------------===//
// The trainer
//===----------------------------------------------------------------------===//

namespace {

class Trainer {
public:
  explicit Trainer(const TrainOptions &options) : options(options) {}
  Expected<int> run();

private:
  Status parseOptions();
  /// Whether what is scaled and what is the same in every step goes with the data.
  Status checkNames() const;
  /// Files that name no argument give each argument of the step that nothing else gives what is
  /// called like it in them.
  Status assignWholeFiles();
  Expected<Dataset> readData(const std::vector<Assignment> &files, const Function &function,
                             std::string_view option);
  Status chooseBatch();
  Status openCheckpoint();
  Status checkResumed(const TrainState &saved) const;
  /// Batches of one function, and what becomes of their numbers.
  struct Batches {
    BatchCaller &caller;
    int64_t count;
    std::function<std::span<const int64_t>(int64_t batch)> rows;
    /// Whether the next one has to wait for this one's number.
    std::function<bool(int64_t batch)> isBarrier;
    std::function<Status(double number)> take;
    std::function<std::string()> place; // of the batch that is `done`, for errors
  };
  /// Runs batches from number `done` on, which counts them, and takes their numbers in order. On a
  /// GPU the next batch is got ready and sent off before a number is waited for.
  Status runBatches(const Batches &batches, int64_t &done, bool &interrupted);
  Status trainEpoch(bool &interrupted);
  Status takeLoss(double loss, int64_t rows);
  /// Whether the variables are saved after so many steps of this epoch, by --save-every.
  bool isSavePoint(int64_t stepInEpoch) const;
  Status finishEpoch(bool &interrupted);
  /// The mean over the held-out data, weighted by batch size; nothing if interrupted.
  Expected<std::optional<double>> measure(BatchCaller &caller);
  struct Measurement {
    std::string label, key; // "validation loss", "validation_loss"
    double value;
  };
  /// The loss and the metric, as far as there are functions and data for them.
  Expected<std::vector<Measurement>> measureAll(bool &interrupted);
  /// Without an epoch, the model as it is is measured.
  Status evaluateOnly(bool &interrupted);
  Status save();
  void printResumeHint() const;
  void printFinal() const;

  int64_t stepsPerEpoch() const { return stepsFor(state.rows); }
  int64_t stepsFor(int64_t rows) const {
    return fixedBatch ? rows / state.batch : (rows + state.batch - 1) / state.batch;
  }

  const TrainOptions &options;
  std::vector<Assignment> dataFiles, validationFiles, inputs;
  std::vector<std::string> wholeDataFiles, wholeValidationFiles; // without NAME=
  std::map<std::string, Scale> scales;

  std::optional<Model> model;
  const Function *step = nullptr;
  Measures measures;
  bool fixedBatch = false;
  std::optional<Dataset> data, validation;
  std::optional<CheckpointFolder> folder;
  std::optional<Instance> instance;
  std::optional<BatchCaller> stepCaller, lossCaller, metricCaller;
  TrainState state;
  // A training that has not been saved yet has something to save, before its first step as well.
  bool unsaved = true, warnedAboutLoss = false;

  Progress progress;
  Progress::Clock::time_point epochStart;
  int64_t epochFirstStep = 0;
};

} // namespace

Status Trainer::parseOptions() {
  auto parse = [](const std::vector<std::string> &texts, const char *option,
                  std::vector<Assignment> &to) -> Status {
    Expected<std::vector<Assignment>> parsed = parseAssignments(texts, option);
    if (!parsed)
      return parsed.error();
    to = std::move(*parsed);
    return {};
  };
  auto parseFiles = [&](const std::vector<std::string> &texts, const char *option,
                        std::vector<Assignment> &to, std::vector<std::string> &whole) {
    std::vector<std::string> assignments;
    for (const std::string &text : texts)
      (text.find('=') == std::string::npos ? whole : assignments).push_back(text);
    return parse(assignments, option, to);
  };
  std::vector<Assignment> scaleTexts;
  if (Status status = parseFiles(options.data, "--data", dataFiles, wholeDataFiles); !status)
    return status;
  if (Status status =
          parseFiles(options.validation, "--validation", validationFiles, wholeValidationFiles);
      !status)
    return status;
  if (Status status = parse(options.inputs, "--input", inputs); !status)
    return status;
  if (Status status = parse(options.scales, "--scale", scaleTexts); !status)
    return status;
  for (const Assignment &text : scaleTexts) {
    Expected<Scale> scale = Scale::parse(text.value);
    if (!scale)
      return makeUsageError("--scale ", text.name, ": ", scale.error().message);
    scales[text.name] = *scale;
  }
  // What whole files give is known when they are open.
  if (wholeDataFiles.empty() && wholeValidationFiles.empty())
    if (Status status = checkNames(); !status)
      return status;
  if (validationFiles.empty() && wholeValidationFiles.empty() &&
      (!options.metric.empty() || !options.loss.empty()))
    return makeUsageError(options.metric.empty() ? "--loss" : "--metric",
                          " measures on held-out data: give them with --validation");
  if (options.resume && options.checkpoint.empty())
    return makeUsageError("--resume needs --checkpoint DIR");
  if (options.saveEvery != 0 && options.checkpoint.empty())
    return makeUsageError("--save-every needs --checkpoint DIR");
  return {};
}

Status Trainer::checkNames() const {
  auto isIn = [](const std::vector<Assignment> &files, const std::string &name) {
    return std::any_of(files.begin(), files.end(),
                       [&](const Assignment &file) { return file.name == name; });
  };
  for (const auto &[name, scale] : scales)
    if (!isIn(dataFiles, name) && !isIn(validationFiles, name))
      return makeUsageError("--scale names ", quote(name),
                            ", which neither --data nor --validation does");
  for (const Assignment &input : inputs)
    if (isIn(dataFiles, input.name))
      return makeUsageError(quote(input.name), " is given by both --data and --input");
  return {};
}

Status Trainer::assignWholeFiles() {
  if (wholeDataFiles.empty() && wholeValidationFiles.empty())
    return {};
  auto assign = [&](const std::vector<std::string> &whole, std::vector<Assignment> &files,
                    std::string_view option) -> Status {
    const size_t named = files.size();
    Names given;
    for (const std::vector<Assignment> *list : {&files, &inputs})
      for (const Assignment &assignment : *list)
        given.insert(assignment.name);
    for (const std::string &file : whole) {
      Expected<std::vector<std::string>> parts = partsOf(file);
      if (!parts)
        return makeError(option, ": ", parts.error().message);
      std::vector<std::string> wanted;
      bool used = false;
      for (const Value &argument : step->arguments) {
        if (argument.dims.empty() || given.count(argument.name))
          continue;
        wanted.push_back(quote(argument.name));
        if (std::find(parts->begin(), parts->end(), argument.name) == parts->end())
          continue;
        auto other =
            std::find_if(files.begin() + static_cast<ptrdiff_t>(named), files.end(),
                         [&](const Assignment &entry) { return entry.name == argument.name; });
        if (other != files.end())
          return makeError(option, ": both ", quote(other->value), " and ", quote(file),
                           " give argument ", quote(argument.name), "; say which with ",
                           printable(argument.name), "=FILE:PART");
        files.push_back({argument.name, concat(file, ':', argument.name)});
        used = true;
      }
      if (!used) {
        if (wanted.empty())
          return makeError(option, ": ", quote(file), ": all arguments of ", quote(step->name),
                           " are given without it");
        return makeError(option, ": ", quote(file), " has nothing called ", joinWords(wanted),
                         ", the arguments of ", quote(step->name), "; it has ", quotedList(*parts),
                         "; name a part, as in NAME=FILE:PART");
      }
    }
    return {};
  };
  if (Status status = assign(wholeDataFiles, dataFiles, "--data"); !status)
    return status;
  if (Status status = assign(wholeValidationFiles, validationFiles, "--validation"); !status)
    return status;
  return checkNames();
}

Expected<Dataset> Trainer::readData(const std::vector<Assignment> &files, const Function &function,
                                    std::string_view option) {
  std::vector<Column> columns;
  for (const Assignment &file : files) {
    const Value *argument = function.findArgument(file.name);
    if (!argument)
      return makeError(option, ": function ", quote(function.name), " has no argument ",
                       quote(file.name), "; it has ", function.argumentNames());
    auto found = scales.find(file.name);
    Scale scale = found == scales.end() ? Scale() : found->second;
    // A number is scaled in f64, so text is read as that.
    Expected<std::unique_ptr<Rows>> rows =
        openData(file.value, file.name, scale.isOne() ? argument->dtype : DLRT_F64);
    if (!rows)
      return makeError(option, ' ', file.name, ": ", rows.error().message);
    Expected<Column> column = Column::create(
        std::move(*rows), file.value,
        {argument->name, function.name, argument->type(), argument->dtype, argument->dims}, scale);
    if (!column)
      return makeError(option, ": ", column.error().message);
    columns.push_back(std::move(*column));
  }
  return Dataset::create(std::move(columns), option);
}

/// A model whose arguments have a written-out first size decides the batch; else the command line
/// does.
Status Trainer::chooseBatch() {
  const Value *fixed = nullptr;
  for (const Assignment &file : dataFiles) {
    const Value *argument = step->findArgument(file.name);
    if (argument->dims[0] < 0)
      continue;
    if (fixed && fixed->dims[0] != argument->dims[0])
      return makeError("function ", quote(step->name),
                       " takes batches of different sizes: ", quote(fixed->name), " is ",
                       fixed->type(), ", ", quote(argument->name), " is ", argument->type());
    fixed = argument;
  }
  state.batch = options.batch.value_or(fixed ? fixed->dims[0] : 128);
  if (!fixed)
    return {};
  fixedBatch = true;
  if (state.batch != fixed->dims[0])
    return makeError("--batch ", state.batch, " does not fit argument ", quote(fixed->name), " of ",
                     quote(step->name), ", ", fixed->type(), ": the model has a fixed batch of ",
                     fixed->dims[0]);
  if (state.batch == 0)
    return makeError("argument ", quote(fixed->name), " of ", quote(step->name), " is ",
                     fixed->type(), ": batches of no rows train nothing");
  for (const std::optional<Dataset> *set : {&data, &validation}) {
    if (!*set)
      continue;
    const char *option = set == &data ? "--data" : "--validation";
    int64_t rows = (*set)->rows();
    if (rows < state.batch)
      return makeError(option, " has ", rows, " rows, fewer than the model's fixed batch of ",
                       state.batch);
    if (int64_t rest = rows % state.batch; rest != 0)
      std::fprintf(
          stderr,
          "dlrun: note: the model has a fixed batch of %lld; the last %lld of %lld rows of "
          "%s%s are left out of every epoch\n",
          static_cast<long long>(state.batch), static_cast<long long>(rest),
          static_cast<long long>(rows), option, set == &data ? " (after shuffling)" : "");
  }
  return {};
}

Status Trainer::checkResumed(const TrainState &saved) const {
  auto clash = [&](const char *what, const auto &now, const auto &then) {
    return makeError("cannot resume in ", quote(options.checkpoint), ": ", what, " is ", now,
                     ", the training there has ", then);
  };
  if (saved.model != state.model)
    return clash("the model", quote(state.model), quote(saved.model));
  if (saved.step != state.step)
    return clash("the step function", quote(state.step), quote(saved.step));
  if (options.seed && saved.seed != *options.seed)
    return clash("--seed", *options.seed, saved.seed);
  if (saved.rows != state.rows)
    return clash("the number of rows", state.rows, saved.rows);
  if (saved.data != state.data)
    return clash("the data", printable(dumpJson(state.data)), printable(dumpJson(saved.data)));
  return {};
}

Status Trainer::openCheckpoint() {
  Expected<CheckpointFolder> opened = CheckpointFolder::open(options.checkpoint);
  if (!opened)
    return opened.error();
  folder.emplace(std::move(*opened));
  if (options.overwrite && !options.resume)
    return {};
  Expected<std::optional<TrainState>> saved = folder->readState();
  if (!saved)
    return saved.error();
  if (!options.resume) {
    // A finished training may be repeated; an interrupted one is not thrown away by accident.
    if (*saved && (*saved)->epoch < (*saved)->epochs)
      return makeError("folder ", quote(options.checkpoint),
                       " holds a training that was interrupted in epoch ", (*saved)->epoch + 1,
                       " of ", (*saved)->epochs,
                       "; give --resume to go on, --overwrite to start again");
    return {};
  }
  if (!*saved)
    return makeError("folder ", quote(options.checkpoint),
                     " holds no training to resume (no state.json)");
  const TrainState &there = **saved;
  if (Status same = checkResumed(there); !same)
    return same;
  int64_t asked = state.batch;
  state.batch = there.batch;
  if ((options.batch || fixedBatch) && asked != there.batch)
    return makeError("cannot resume in ", quote(options.checkpoint), ": the batch is ", asked,
                     ", the training there has ", there.batch);
  if (there.batch < 1 || there.stepInEpoch > stepsPerEpoch())
    return makeError("cannot resume in ", quote(options.checkpoint), ": state.json is at step ",
                     there.stepInEpoch, " with batches of ", there.batch, ", the data have ",
                     state.rows, " rows");
  state = there;
  state.epochs = options.epochs.value_or(there.epochs);
  if (state.epoch > state.epochs)
    return makeError("cannot resume in ", quote(options.checkpoint), ": the training there has ",
                     state.epoch, " epochs behind it, --epochs is ", state.epochs);
  return {};
}

Status Trainer::save() {
  if (!folder)
    return {};
  if (Status saved = folder->save(*instance, state); !saved)
    return saved;
  unsaved = false;
  return {};
}

Status Trainer::runBatches(const Batches &batches, int64_t &done, bool &interrupted) {
  // On the processor going ahead would win nothing and show every number late.
  const int64_t ahead = instance->runsApart() ? 1 : 0;
  auto fail = [&](const Error &error) {
    progress.clear();
    return makeError(batches.place(), ": ", error.message);
  };
  for (int64_t submitted = done; done < batches.count;) {
    bool mayGoOn = submitted < batches.count && submitted - done <= ahead &&
                   (submitted == done || !batches.isBarrier(submitted - 1));
    if (mayGoOn && interruptions == 0) {
      Status sent = batches.caller.submit(*instance, batches.rows(submitted));
      if (sent) {
        ++submitted;
        continue;
      }
      // The reason may be a batch before it, which is to be named.
      if (submitted == done)
        return fail(sent.error());
    } else if (submitted == done) {
      interrupted = true;
      return {};
    }
    Expected<double> number = batches.caller.collect(*instance);
    if (!number)
      return fail(number.error());
    ++done;
    if (Status taken = batches.take(*number); !taken)
      return taken;
  }
  return {};
}

bool Trainer::isSavePoint(int64_t stepInEpoch) const {
  uint64_t step =
      state.epoch * static_cast<uint64_t>(stepsPerEpoch()) + static_cast<uint64_t>(stepInEpoch);
  return options.saveEvery != 0 && step % options.saveEvery == 0;
}

Status Trainer::trainEpoch(bool &interrupted) {
  int64_t steps = stepsPerEpoch();
  epochStart = Progress::Clock::now();
  epochFirstStep = state.stepInEpoch;
  if (state.stepInEpoch == steps)
    return {};
  std::vector<int64_t> order = epochOrder(state.seed, state.epoch, state.rows);
  auto rows = [&](int64_t step) {
    int64_t begin = step * state.batch, count = std::min(state.batch, state.rows - begin);
    return std::span<const int64_t>(order.data() + begin, static_cast<size_t>(count));
  };
  auto isBarrier = [&](int64_t step) { return isSavePoint(step + 1); };
  auto take = [&](double loss) {
    return takeLoss(loss, static_cast<int64_t>(rows(state.stepInEpoch - 1).size()));
  };
  auto place = [&] { return concat("epoch ", state.epoch + 1, ", step ", state.stepInEpoch + 1); };
  return runBatches({*stepCaller, steps, rows, isBarrier, take, place}, state.stepInEpoch,
                    interrupted);
}

/// A step is done.
Status Trainer::takeLoss(double loss, int64_t rows) {
  unsaved = true;
  if (stepCaller->answersNumber()) {
    state.lossSum += loss * static_cast<double>(rows);
    state.lossRows += rows;
    if (!std::isfinite(loss) && !warnedAboutLoss) {
      warnedAboutLoss = true;
      progress.clear();
      std::fprintf(stderr, "dlrun: warning: the loss is %g in epoch %llu, step %lld\n", loss,
                   static_cast<unsigned long long>(state.epoch + 1),
                   static_cast<long long>(state.stepInEpoch));
    }
  }
  if (isSavePoint(state.stepInEpoch))
    if (Status saved = save(); !saved)
      return saved;
  int64_t steps = stepsPerEpoch();
  double mean = state.lossRows ? state.lossSum / static_cast<double>(state.lossRows) : NAN;
  uint64_t left = (state.epochs - state.epoch) * static_cast<uint64_t>(steps) -
                  static_cast<uint64_t>(state.stepInEpoch);
  progress.step({state.epoch + 1, state.epochs, state.stepInEpoch, steps, mean, left});
  return {};
}

Expected<std::optional<double>> Trainer::measure(BatchCaller &caller) {
  int64_t rows = validation->rows(), done = 0, used = 0;
  std::vector<int64_t> batch;
  double sum = 0;
  bool interrupted = false;
  auto size = [&](int64_t i) { return std::min(state.batch, rows - i * state.batch); };
  auto rowsOf = [&](int64_t i) {
    batch.resize(static_cast<size_t>(size(i)));
    std::iota(batch.begin(), batch.end(), i * state.batch);
    return std::span<const int64_t>(batch);
  };
  auto isBarrier = [](int64_t) { return false; };
  auto take = [&](double number) {
    sum += number * static_cast<double>(size(done - 1));
    used += size(done - 1);
    return Status();
  };
  auto place = [&] { return concat("validation, batch ", done + 1); };
  if (Status status =
          runBatches({caller, stepsFor(rows), rowsOf, isBarrier, take, place}, done, interrupted);
      !status)
    return status.error();
  if (interrupted)
    return std::optional<double>();
  return std::optional<double>(sum / static_cast<double>(used));
}

Expected<std::vector<Trainer::Measurement>> Trainer::measureAll(bool &interrupted) {
  std::vector<Measurement> measurements;
  auto add = [&](std::optional<BatchCaller> &caller, const std::string &label,
                 const std::string &key) -> Status {
    if (!caller || interrupted)
      return {};
    Expected<std::optional<double>> value = measure(*caller);
    if (!value)
      return value.error();
    if (*value)
      measurements.push_back({label, key, **value});
    else
      interrupted = true;
    return {};
  };
  if (Status added = add(lossCaller, "validation loss", "validation_loss"); !added)
    return added.error();
  if (measures.metric) {
    std::string name = printable(measures.metric->name);
    if (Status added = add(metricCaller, name, "validation_" + name); !added)
      return added.error();
  }
  return measurements;
}

Status Trainer::evaluateOnly(bool &interrupted) {
  Expected<std::vector<Measurement>> measured = measureAll(interrupted);
  if (!measured)
    return measured.error();
  if (interrupted || measured->empty())
    return {};
  Json record = {{"epoch", state.epoch}};
  for (const Measurement &measurement : *measured)
    record[measurement.key] =
        std::isfinite(measurement.value) ? Json(measurement.value) : Json(nullptr);
  state.history.push_back(std::move(record));
  return {};
}

Status Trainer::finishEpoch(bool &interrupted) {
  double seconds = std::chrono::duration<double>(Progress::Clock::now() - epochStart).count();
  int64_t stepsHere = state.stepInEpoch - epochFirstStep;
  Json record = {{"epoch", state.epoch + 1}};
  std::string line = concat("epoch ", state.epoch + 1, '/', state.epochs);
  auto add = [&](std::string_view label, const std::string &key, double value) {
    char text[64];
    std::snprintf(text, sizeof(text), " %.4f", value);
    line += concat("  ", label, text);
    record[key] = std::isfinite(value) ? Json(value) : Json(nullptr);
  };
  if (state.lossRows > 0)
    add("loss", "loss", state.lossSum / static_cast<double>(state.lossRows));
  Expected<std::vector<Measurement>> measured = measureAll(interrupted);
  if (!measured)
    return measured.error();
  if (interrupted)
    return {};
  for (const Measurement &measurement : *measured)
    add(measurement.label, measurement.key, measurement.value);
  progress.clear();
  std::printf("%s  %s  %.1f s  %s\n", line.c_str(), counted(stepsHere, "step").c_str(), seconds,
              formatRate(seconds > 0 ? static_cast<double>(stepsHere) / seconds : 0).c_str());
  std::fflush(stdout);

  state.history.push_back(std::move(record));
  ++state.epoch;
  state.stepInEpoch = 0;
  state.lossSum = 0;
  state.lossRows = 0;
  return save();
}

void Trainer::printResumeHint() const {
  std::string where = state.stepInEpoch == 0
                          ? concat("after epoch ", state.epoch)
                          : concat("after step ", state.stepInEpoch, " of ", stepsPerEpoch(),
                                   " in epoch ", state.epoch + 1);
  if (!folder) {
    std::fprintf(stderr, "dlrun: interrupted %s; nothing is saved without --checkpoint\n",
                 where.c_str());
    return;
  }
  std::string command;
  bool resumes = false;
  for (const std::string &word : options.commandLine) {
    if (word == "--overwrite")
      continue;
    resumes = resumes || word == "--resume";
    command += (command.empty() ? "" : " ") + shellQuote(word);
  }
  if (!resumes)
    command += " --resume";
  std::fprintf(stderr, "dlrun: interrupted %s; saved in %s\ngo on with: %s\n", where.c_str(),
               quote(options.checkpoint).c_str(), command.c_str());
}

/// The last line says how good the model is: its metric, else its loss, on held-out data if there
/// are any.
void Trainer::printFinal() const {
  if (state.history.empty())
    return;
  const Json &last = state.history.back();
  std::vector<std::pair<std::string, std::string>> candidates;
  if (measures.metric)
    candidates.emplace_back(printable(measures.metric->name),
                            concat("validation_", printable(measures.metric->name)));
  if (measures.loss)
    candidates.emplace_back(printable(measures.loss->name), "validation_loss");
  candidates.emplace_back("loss", "loss");
  for (const auto &[label, key] : candidates) {
    auto value = last.is_object() ? last.find(key) : last.end();
    if (value == last.end())
      continue;
    std::printf("%s %.4f\n", label.c_str(), value->is_number() ? value->get<double>() : NAN);
    return;
  }
}

Expected<int> Trainer::run() {
  if (Status parsed = parseOptions(); !parsed)
    return parsed.error();
  Expected<Model> opened = Model::open(options.model, Model::Access::Run);
  if (!opened)
    return opened.error();
  model.emplace(std::move(*opened));
  Expected<const Function *> chosen = chooseStep(*model, options.step);
  if (!chosen)
    return chosen.error();
  step = *chosen;
  if (Status assigned = assignWholeFiles(); !assigned)
    return assigned.error();

  // What the command line can get wrong comes before the data are read, which may take a while.
  std::set<std::string> validationGiven;
  for (const Assignment &file : validationFiles)
    validationGiven.insert(file.name);
  for (const Assignment &input : inputs) {
    validationGiven.insert(input.name);
    if (!step->findArgument(input.name))
      return makeError("--input: function ", quote(step->name), " has no argument ",
                       quote(input.name), "; it has ", step->argumentNames());
  }
  if (!validationFiles.empty()) {
    Expected<Measures> found = chooseMeasures(*model, *step, options, validationGiven);
    if (!found)
      return found.error();
    measures = *found;
    if (!measures.loss && !measures.metric)
      return makeError(
          "no function of the model measures the data of --validation: one must assign "
          "nothing, return one number first, and take the arguments that --validation "
          "names, of the step's types");
  }

  Expected<Dataset> read = readData(dataFiles, *step, "--data");
  if (!read)
    return read.error();
  data.emplace(std::move(*read));
  if (!validationFiles.empty()) {
    // Loss and metric share the held-out data, so both must see the same types; the step's are the
    // reference where it has such an argument.
    const Function &reference = measures.metric ? *measures.metric : *measures.loss;
    const Function &source =
        std::all_of(validationFiles.begin(), validationFiles.end(),
                    [&](const Assignment &file) { return step->findArgument(file.name); })
            ? *step
            : reference;
    Expected<Dataset> held = readData(validationFiles, source, "--validation");
    if (!held)
      return held.error();
    validation.emplace(std::move(*held));
  }

  state.model = model->info().name ? model->info().name : "";
  state.step = step->name;
  state.seed = options.seed.value_or(0);
  state.epochs = options.epochs.value_or(8);
  state.rows = data->rows();
  for (const Column &column : data->columns())
    state.data[column.name()] = Json{{"type", column.fileType()}, {"scale", column.scale().text}};
  if (Status batch = chooseBatch(); !batch)
    return batch.error();
  if (!options.checkpoint.empty())
    if (Status status = openCheckpoint(); !status)
      return status.error();

  auto makeCaller = [&](const Function *function, const Dataset &set, const char *option,
                        std::optional<BatchCaller> &to) -> Status {
    if (!function)
      return {};
    Expected<BatchCaller> caller = BatchCaller::create(*model, *function, set, inputs, option);
    if (!caller)
      return caller.error();
    to.emplace(std::move(*caller));
    return {};
  };
  if (Status made = makeCaller(step, *data, "--data", stepCaller); !made)
    return made.error();
  if (validation) {
    if (Status made = makeCaller(measures.loss, *validation, "--validation", lossCaller); !made)
      return made.error();
    if (Status made = makeCaller(measures.metric, *validation, "--validation", metricCaller); !made)
      return made.error();
  }

  Expected<Instance> created =
      Instance::create(*model, state.seed, options.threads, options.device);
  if (!created)
    return created.error();
  instance.emplace(std::move(*created));
  if (model->hasGpuProgram())
    std::printf("device %s\n", printable(instance->device()).c_str());
  if (options.resume) {
    if (Status loaded = folder->loadVariables(*instance); !loaded)
      return loaded.error();
    unsaved = false;
  } else if (!options.load.empty()) {
    if (Status loaded = instance->load(options.load); !loaded)
      return loaded.error();
  }

  catchSignals();
  bool interrupted = false;
  while (state.epoch < state.epochs && !interrupted) {
    Status status = trainEpoch(interrupted);
    if (status && !interrupted)
      status = finishEpoch(interrupted);
    if (!status) {
      progress.clear();
      return status.error();
    }
  }
  progress.clear();
  if (!interrupted && state.history.empty())
    if (Status evaluated = evaluateOnly(interrupted); !evaluated)
      return evaluated.error();
  if (interrupted) {
    if (unsaved)
      if (Status saved = save(); !saved)
        return saved.error();
    printResumeHint();
    return ExitInterrupted;
  }
  printFinal();
  return ExitSuccess;
}

Expected<int> runTrain(const TrainOptions &options) { return Trainer(options).run(); }

} // namespace dlc::run
