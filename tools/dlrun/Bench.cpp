//===- Bench.cpp - dlrun bench: how long one call takes -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Commands.h"
#include "File.h"
#include "Inputs.h"
#include "Json.h"
#include "Peaks.h"
#include "ShapeText.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numbers>
#include <random>

namespace dlc::run {

namespace {

using Clock = std::chrono::steady_clock;

double secondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Fills arrays with standard-normal numbers, whole numbers in [0, range) and random bools.
class Filler {
public:
  explicit Filler(uint64_t seed) : random(seed) {}

  Expected<Array> fill(const Value &argument, std::vector<int64_t> dims,
                       std::optional<int64_t> range) {
    std::optional<uint64_t> bytes = byteCount(argument.dtype, dims);
    if (!bytes || *bytes > SIZE_MAX / 2)
      return makeError("argument ", quote(argument.name), " would be ",
                       typeText(argument.dtype, dims), ", which no memory holds");
    Array array{argument.dtype, dims, {}};
    if (!array.data.allocate(static_cast<size_t>(*bytes)))
      return makeError("argument ", quote(argument.name), " would be ",
                       typeText(argument.dtype, dims), ": there is no memory for its ", *bytes,
                       " bytes");
    size_t count = array.data.size() / bytesOf(argument.dtype);
    switch (argument.dtype) {
    case DLRT_BOOL:
      store<uint8_t>(array, count, [&] { return random() & 1; });
      return array;
    case DLRT_F32:
      store<float>(array, count, [&] { return normal(); });
      return array;
    case DLRT_F64:
      store<double>(array, count, [&] { return normal(); });
      return array;
    case DLRT_BF16:
      store<uint16_t>(array, count, [&] {
        float value = static_cast<float>(normal());
        uint32_t bits;
        std::memcpy(&bits, &value, sizeof(bits));
        return bits >> 16;
      });
      return array;
    case DLRT_F16:
      return makeError("argument ", quote(argument.name),
                       " is f16, which has no random values; give a file with --input");
    case DLRT_U8:
    case DLRT_I8:
    case DLRT_I16:
    case DLRT_I32:
    case DLRT_I64:
      break;
    }
    if (!range)
      return makeError("argument ", quote(argument.name), " is ", argument.type(),
                       "; give its range with --range ", argument.name, "=COUNT");
    // With a range of `count` the largest value is count - 1.
    unsigned bits = static_cast<unsigned>(bytesOf(argument.dtype) * 8);
    uint64_t most = argument.dtype == DLRT_U8 ? 255 : (UINT64_C(1) << (bits - 1)) - 1;
    if (*range < 1 || static_cast<uint64_t>(*range - 1) > most)
      return makeError("--range ", argument.name, '=', *range, " does not fit ",
                       nameOf(argument.dtype), ": 1 to ", most, " are possible");
    auto draw = [&] { return static_cast<int64_t>(random() % static_cast<uint64_t>(*range)); };
    switch (bytesOf(argument.dtype)) {
    case 1:
      store<uint8_t>(array, count, draw);
      break;
    case 2:
      store<int16_t>(array, count, draw);
      break;
    case 4:
      store<int32_t>(array, count, draw);
      break;
    default:
      store<int64_t>(array, count, draw);
    }
    return array;
  }

private:
  template <typename T, typename Draw> static void store(Array &array, size_t count, Draw draw) {
    T *values = reinterpret_cast<T *>(array.data.data());
    for (size_t i = 0; i < count; ++i)
      values[i] = static_cast<T>(draw());
  }

  /// Box and Muller's method; mt19937_64 is the same everywhere, std::normal_distribution is not.
  double normal() {
    if (spare) {
      double value = *spare;
      spare.reset();
      return value;
    }
    double u = static_cast<double>((random() >> 11) + 1) * 0x1p-53; // in (0, 1]
    double v = static_cast<double>(random() >> 11) * 0x1p-53;
    double radius = std::sqrt(-2 * std::log(u)), angle = 2 * std::numbers::pi * v;
    spare = radius * std::sin(angle);
    return radius * std::cos(angle);
  }

  std::mt19937_64 random;
  std::optional<double> spare;
};

/// What the profile hook adds up.
struct Profile {
  struct Kernel {
    uint64_t launches = 0, tasks = 0, ns = 0;
  };
  /// A bar of the trace, in microseconds from the first call's start.
  struct Bar {
    uint32_t row; // 0: calls; else a kernel's number and one
    double start, duration;
    int64_t tasks;
  };
  uint32_t function = 0;
  std::vector<std::string> names; // of the kernels
  std::vector<Kernel> kernels;
  bool isTraced = false;
  std::vector<Bar> bars;
  Clock::time_point begin = Clock::now();
  double callStart = 0, launchStart = 0, gpuTime = 0;
  bool onGpu = false;

  double now() const { return secondsSince(begin) * 1e6; }

  void beginCall() { callStart = gpuTime = now(); }
  void endCall() {
    if (isTraced)
      bars.push_back({0, callStart, now() - callStart, 0});
  }

  static void record(void *user, uint32_t function, uint32_t kernel, int64_t tasks, int64_t ns) {
    Profile &profile = *static_cast<Profile *>(user);
    if (function != profile.function || kernel >= profile.kernels.size())
      return;
    if (ns < 0) {
      // A GPU's times come when the call is over: there, one launch follows the other.
      profile.launchStart = profile.onGpu ? profile.gpuTime : profile.now();
      return;
    }
    double microseconds = static_cast<double>(ns) / 1000;
    profile.gpuTime += microseconds;
    if (profile.isTraced)
      profile.bars.push_back({kernel + 1, profile.launchStart, microseconds, tasks});
    Kernel &entry = profile.kernels[kernel];
    ++entry.launches;
    entry.tasks += static_cast<uint64_t>(tasks);
    entry.ns += static_cast<uint64_t>(ns);
  }
};

/// What a kernel asks for in one call.
struct Work {
  double operations = 0, read = 0, written = 0;
  bool isF64 = false;
};

struct Row {
  std::string name;
  double launches, tasks, microseconds, share;
  std::optional<Work> work;
};

/// The time that a kernel needs at least, by what the device can do at most, in microseconds.
struct Bound {
  double microseconds;
  bool isArithmetic; // else memory
};

std::optional<Bound> boundOf(const Row &row, const std::optional<Peaks> &peaks) {
  if (!peaks || !row.work)
    return std::nullopt;
  double arithmetic = row.work->operations / (row.work->isF64 ? peaks->f64 : peaks->f32) / 1000;
  double memory = (row.work->read + row.work->written) / peaks->bytes / 1000;
  if (std::max(arithmetic, memory) <= 0 || row.microseconds <= 0)
    return std::nullopt;
  return Bound{std::max(arithmetic, memory), arithmetic > memory};
}

} // namespace

/// "N=128" … with values that are whole numbers above `least`.
static Expected<std::vector<std::pair<std::string, int64_t>>>
parseSizes(const std::vector<std::string> &texts, std::string_view option, int64_t least) {
  Expected<std::vector<Assignment>> assignments = parseAssignments(texts, option);
  if (!assignments)
    return assignments.error();
  std::vector<std::pair<std::string, int64_t>> sizes;
  for (const Assignment &assignment : *assignments) {
    std::optional<int64_t> size = parseInteger<int64_t>(assignment.value);
    if (!size || *size < least)
      return makeUsageError(option, ' ', assignment.name, " takes a whole number from ", least,
                            ", got ", quote(assignment.value));
    sizes.emplace_back(assignment.name, *size);
  }
  return sizes;
}

/// The format that Perfetto and chrome://tracing read: a row for the calls, and one for each
/// kernel.
static Status writeTrace(const std::string &path, const Profile &profile,
                         const std::string &function, const std::string &device) {
  Json events = Json::array();
  auto name = [&](const char *what, uint32_t row, const std::string &text) {
    events.push_back(Json{
        {"name", what}, {"ph", "M"}, {"pid", 1}, {"tid", row}, {"args", Json{{"name", text}}}});
  };
  name("process_name", 0, device);
  name("thread_name", 0, concat("calls of ", function));
  for (uint32_t i = 0; i < profile.names.size(); ++i)
    if (profile.kernels[i].launches > 0)
      name("thread_name", i + 1, profile.names[i]);
  for (const Profile::Bar &bar : profile.bars) {
    Json event = {{"name", bar.row ? profile.names[bar.row - 1] : function},
                  {"cat", bar.row ? "kernel" : "call"},
                  {"ph", "X"},
                  {"ts", bar.start},
                  {"dur", bar.duration},
                  {"pid", 1},
                  {"tid", bar.row}};
    if (bar.row)
      event["args"] = Json{{"tasks", bar.tasks}};
    events.push_back(std::move(event));
  }
  std::string text =
      dumpJson(Json{{"traceEvents", std::move(events)}, {"displayTimeUnit", "ns"}}) + '\n';
  std::string_view parts[] = {text};
  return writeFileAtomically(path, parts, Durability::Fast);
}

static void printProfile(const std::vector<Row> &rows, const std::optional<Peaks> &peaks,
                         uint64_t touched) {
  if (peaks)
    std::printf("\nat most %.4g GFLOP/s in f32, %.4g in f64, %.4g GB/s of the call's %s\n",
                peaks->f32, peaks->f64, peaks->bytes, formatBytes(touched).c_str());
  std::printf("\n%12s  %6s  %9s  %10s  %9s  %9s  %9s  %15s  kernel\n", "us per call", "share",
              "launches", "tasks", "MFLOP", "MB read", "written", "of its bound");
  for (const Row &row : rows) {
    std::printf("%12.2f  %5.1f%%  %9.4g  %10.6g  ", row.microseconds, row.share * 100, row.launches,
                row.tasks);
    if (row.work)
      std::printf("%9.4g  %9.4g  %9.4g  ", row.work->operations / 1e6, row.work->read / 1e6,
                  row.work->written / 1e6);
    else
      std::printf("%9s  %9s  %9s  ", "-", "-", "-");
    if (std::optional<Bound> bound = boundOf(row, peaks))
      std::printf("%4.0f%% %10s", 100 * bound->microseconds / row.microseconds,
                  bound->isArithmetic ? "arithmetic" : "memory");
    else
      std::printf("%15s", "-");
    std::printf("  %s\n", printable(row.name).c_str());
  }
}

static Json describe(const Row &row, const std::optional<Peaks> &peaks) {
  auto rounded = [](double microseconds) { return std::round(microseconds * 1000) / 1000; };
  Json json = {{"name", row.name},
               {"us", rounded(row.microseconds)},
               {"share", row.share},
               {"launches", row.launches},
               {"tasks", row.tasks}};
  if (!row.work)
    return json;
  json["flops"] = row.work->operations;
  json["read_bytes"] = row.work->read;
  json["written_bytes"] = row.work->written;
  if (row.microseconds > 0) {
    json["gflops_per_s"] = row.work->operations / row.microseconds / 1000;
    json["gbytes_per_s"] = (row.work->read + row.work->written) / row.microseconds / 1000;
  }
  if (std::optional<Bound> bound = boundOf(row, peaks)) {
    json["bound"] = bound->isArithmetic ? "arithmetic" : "memory";
    json["of_bound"] = bound->microseconds / row.microseconds;
  }
  return json;
}

/// "OPERATIONS,BYTES"
static Expected<Peaks> parsePeaks(const std::string &text) {
  size_t comma = text.find(',');
  double numbers[2] = {};
  for (int i = 0; i < 2 && comma != std::string::npos; ++i) {
    std::string part = i ? text.substr(comma + 1) : text.substr(0, comma);
    char *end = nullptr;
    double number = std::strtod(part.c_str(), &end);
    if (!part.empty() && !*end && std::isfinite(number) && number > 0)
      numbers[i] = number;
  }
  if (numbers[0] <= 0 || numbers[1] <= 0)
    return makeUsageError("--peak takes two positive numbers with a comma between them, got ",
                          quote(text));
  return Peaks{numbers[0], numbers[0], numbers[1]};
}

Expected<int> runBench(const BenchOptions &options) {
  auto dims = parseSizes(options.dims, "--dim", 0);
  if (!dims)
    return dims.error();
  auto ranges = parseSizes(options.ranges, "--range", 1);
  if (!ranges)
    return ranges.error();
  Expected<std::vector<Assignment>> inputs = parseAssignments(options.inputs, "--input");
  if (!inputs)
    return inputs.error();
  std::optional<Peaks> peaks;
  if (!options.peak.empty()) {
    Expected<Peaks> given = parsePeaks(options.peak);
    if (!given)
      return given.error();
    peaks = *given;
  }

  Expected<Model> model = Model::open(options.model, Model::Access::Run);
  if (!model)
    return model.error();
  Expected<const Function *> found = model->function(options.function);
  if (!found)
    return found.error();
  const Function &function = **found;
  for (const auto &[name, size] : *dims)
    if (std::find(model->dims().begin(), model->dims().end(), name) == model->dims().end())
      return makeError("the model has no dynamic dimension ", quote(name), "; it has ",
                       model->dims().empty() ? "none" : joinWords(model->dims()));
  for (const auto &[name, range] : *ranges)
    if (!function.findArgument(name))
      return makeError("function ", quote(function.name), " has no argument ", quote(name),
                       "; it has ", function.argumentNames());

  Expected<std::vector<std::optional<Array>>> arrays = readInputs(function, *inputs);
  if (!arrays)
    return arrays.error();
  Filler filler(options.seed);
  CallFrame frame(*model, function);
  for (size_t i = 0; i < function.arguments.size(); ++i) {
    const Value &argument = function.arguments[i];
    std::optional<Array> &array = (*arrays)[i];
    if (!array && argument.hasDefault)
      continue;
    // A size that no shape carries is an argument under its name.
    for (const auto &[name, size] : *dims)
      if (!array && name == argument.name && argument.dims.empty() && argument.dtype == DLRT_I64) {
        array = Array{argument.dtype, {}, Buffer(sizeof(int64_t))};
        std::memcpy(array->data.data(), &size, sizeof(int64_t));
      }
    if (!array) {
      Expected<std::vector<int64_t>> shape =
          argument.isStatic() ? argument.dims : evaluateShape(argument.shape, *dims);
      if (!shape)
        return makeError("argument ", quote(argument.name), " is ", argument.type(), ": ",
                         shape.error().message);
      std::optional<int64_t> range;
      for (const auto &[name, count] : *ranges)
        if (name == argument.name)
          range = count;
      Expected<Array> filled = filler.fill(argument, std::move(*shape), range);
      if (!filled)
        return filled.error();
      array = std::move(*filled);
    }
    frame.setArgument(i, array->data.data(), array->dtype, array->dims);
  }
  if (Status prepared = frame.prepareResults(); !prepared)
    return prepared.error();

  Expected<Instance> instance =
      Instance::create(*model, options.seed, options.threads, options.device);
  if (!instance)
    return instance.error();
  if (!options.load.empty())
    if (Status loaded = instance->load(options.load); !loaded)
      return loaded.error();

  // Warm up: the first call plans memory; then caches, branch predictors and the clock of the
  // processor settle.
  // A call is over when all of it is done, on a GPU too.
  auto call = [&] {
    Status called = frame.call(*instance);
    return called ? instance->synchronize() : called;
  };
  Clock::time_point start = Clock::now();
  for (int calls = 0; calls < 3 || secondsSince(start) < 0.1; ++calls)
    if (Status called = call(); !called)
      return called.error();

  std::vector<double> times;
  times.reserve(1 << 16);
  start = Clock::now();
  constexpr size_t fewest = 5, most = 10'000'000;
  while (options.runs
             ? times.size() < *options.runs
             : times.size() < fewest || (secondsSince(start) < 0.5 && times.size() < most)) {
    Clock::time_point begin = Clock::now();
    Status called = call();
    times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
    if (!called)
      return called.error();
  }
  std::sort(times.begin(), times.end());
  size_t half = times.size() / 2;
  double median = times.size() % 2 ? times[half] : (times[half - 1] + times[half]) / 2;

  // Profiled calls come after the timed ones, which they would slow down.
  std::vector<Row> rows;
  Work whole;
  uint64_t touched =
      dlrt_instance_variable_bytes(instance->get()) + dlrt_instance_arena_bytes(instance->get());
  for (const std::optional<Array> &array : *arrays)
    touched += array ? array->data.size() : 0;
  if (options.profile) {
    Profile profile;
    profile.function = function.index;
    while (const char *name = dlrt_instance_kernel_name(
               instance->get(), function.index, static_cast<uint32_t>(profile.names.size())))
      profile.names.push_back(name);
    profile.kernels.resize(profile.names.size());
    profile.onGpu = instance->device().starts_with("cuda:");
    constexpr uint64_t tracedCalls = 20; // more would not be looked at
    dlrt_instance_set_profile(instance->get(), Profile::record, &profile);
    uint64_t calls = 0;
    start = Clock::now();
    do {
      profile.isTraced = !options.trace.empty() && calls < tracedCalls;
      profile.beginCall();
      if (Status called = call(); !called)
        return called.error();
      profile.endCall();
      ++calls;
    } while (secondsSince(start) < 0.25 && calls < times.size());
    double total = secondsSince(start) * 1e6 / static_cast<double>(calls), inside = 0;
    dlrt_instance_set_profile(instance->get(), nullptr, nullptr);
    auto perCall = [&](uint64_t sum) {
      return static_cast<double>(sum) / static_cast<double>(calls);
    };
    for (size_t i = 0; i < profile.kernels.size(); ++i) {
      const Profile::Kernel &kernel = profile.kernels[i];
      if (profile.onGpu && kernel.launches == 0) // the other way to do a product
        continue;
      double microseconds = perCall(kernel.ns) / 1000;
      inside += microseconds;
      Expected<dlrt_kernel_work> launch = frame.kernelWork(*instance, static_cast<uint32_t>(i));
      if (!launch)
        return launch.error();
      std::optional<Work> work;
      if (launch->is_known) {
        auto ofCall = [&](int64_t each) {
          return static_cast<double>(each) * perCall(kernel.launches);
        };
        work = Work{ofCall(launch->operations), ofCall(launch->read_bytes),
                    ofCall(launch->written_bytes), launch->dtype == DLRT_F64};
        whole.operations += work->operations;
        whole.read += work->read;
        whole.written += work->written;
      }
      rows.push_back({profile.names[i], perCall(kernel.launches), perCall(kernel.tasks),
                      microseconds, microseconds / total, work});
    }
    std::sort(rows.begin(), rows.end(), [](const Row &a, const Row &b) {
      return a.microseconds != b.microseconds ? a.microseconds > b.microseconds : a.name < b.name;
    });
    double outside = std::max(0.0, total - inside);
    rows.push_back({"outside the kernels", 1, 0, outside, outside / total, {}});
    if (!peaks && !profile.onGpu && options.trace.empty())
      peaks = measurePeaks(dlrt_instance_threads(instance->get()), touched);
    if (!options.trace.empty())
      if (Status written = writeTrace(options.trace, profile, function.name, instance->device());
          !written)
        return written.error();
  }

  uint32_t threads = dlrt_instance_threads(instance->get());
  uint64_t arena = dlrt_instance_arena_bytes(instance->get());
  // Nanoseconds are the clock's unit: more digits would be noise.
  auto rounded = [](double microseconds) { return std::round(microseconds * 1000) / 1000; };
  if (options.json) {
    Json root = {
        {"function", function.name},    {"device", instance->device()},     {"threads", threads},
        {"median_us", rounded(median)}, {"min_us", rounded(times.front())}, {"runs", times.size()},
        {"arena_bytes", arena}};
    if (options.profile) {
      root["kernels"] = Json::array();
      for (const Row &row : rows)
        root["kernels"].push_back(describe(row, peaks));
      root["whole"] = Json{{"flops", whole.operations},
                           {"read_bytes", whole.read},
                           {"written_bytes", whole.written},
                           {"touched_bytes", touched}};
      if (peaks)
        root["peak"] =
            Json{{"f32_gflops", peaks->f32}, {"f64_gflops", peaks->f64}, {"gbytes", peaks->bytes}};
    }
    std::printf("%s\n", dumpJson(root).c_str());
    return ExitSuccess;
  }
  std::string where = concat(threads, threads == 1 ? " thread" : " threads");
  if (model->hasGpuProgram())
    where = instance->device().starts_with("cuda:") ? instance->device()
                                                    : concat(instance->device(), ", ", where);
  std::printf("%s, %s: median %.3f us, min %.3f us, %zu runs, arena %s\n",
              printable(function.name).c_str(), printable(where).c_str(), median, times.front(),
              times.size(), formatBytes(arena).c_str());
  if (options.profile && options.trace.empty())
    printProfile(rows, peaks, touched);
  return ExitSuccess;
}

} // namespace dlc::run
