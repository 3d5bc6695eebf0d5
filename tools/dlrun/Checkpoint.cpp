//===- Checkpoint.cpp - a training's folder: variables and state, never apart -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Checkpoint.h"

#include "File.h"

#include <array>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <sys/file.h>
#include <unistd.h>

namespace dlc::run {

static constexpr int64_t stateFormat = 1;
static constexpr uint64_t largestState = UINT64_C(64) << 20;

/// Removes the temporary files of trainings that were killed while they saved: state.json.XXXXXX
/// (ours; the folder is locked, so nobody writes one now) and .dlrt-PID-….tmp (the runtime's) of
/// processes that are gone.
static void removeLeftovers(const std::string &path) {
  std::error_code code;
  std::vector<std::filesystem::path> leftovers;
  for (std::filesystem::directory_iterator entry(path, code), end; !code && entry != end;
       entry.increment(code)) {
    std::string name = entry->path().filename().string();
    constexpr std::string_view state = "state.json.", variables = ".dlrt-";
    bool isLeftover = name.starts_with(state) && name.size() == state.size() + 6;
    if (name.starts_with(variables) && name.ends_with(".tmp")) {
      size_t begin = variables.size();
      std::optional<pid_t> process =
          parseInteger<pid_t>(std::string_view(name).substr(begin, name.find('-', begin) - begin));
      isLeftover = process && *process > 0 && kill(*process, 0) != 0 && errno == ESRCH;
    }
    if (isLeftover)
      leftovers.push_back(entry->path());
  }
  for (const std::filesystem::path &leftover : leftovers)
    std::filesystem::remove(leftover, code);
}

Expected<CheckpointFolder> CheckpointFolder::open(const std::string &path) {
  if (Status created = createFolders(path); !created)
    return created.error();
  int lock = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock < 0)
    return makeError("cannot open the folder ", quote(path), ": ", errnoText(errno));
  CheckpointFolder folder(path, lock);
  // A file system without locks is no reason not to train.
  if (flock(lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    return makeError("another dlrun trains in ", quote(path));
  removeLeftovers(path);
  return folder;
}

CheckpointFolder::~CheckpointFolder() {
  if (lock >= 0)
    close(lock);
}

static Json fingerprintJson(const Fingerprint &print) {
  return Json{{"bytes", print.bytes}, {"crc32", print.crc32}};
}

Status CheckpointFolder::save(const Instance &instance, const TrainState &state) const {
  if (Status saved = instance.save(nextPath()); !saved)
    return saved;
  auto giveUp = [&](Status status) {
    ::unlink(nextPath().c_str()); // the old pair stands
    return status;
  };
  Expected<std::optional<Fingerprint>> print = fingerprintOf(nextPath());
  if (!print)
    return giveUp(print.error());
  if (!*print)
    return makeError(quote(nextPath()), " was removed while it was saved");

  Json json = {{"format", stateFormat},
               {"model", state.model},
               {"step", state.step},
               {"seed", state.seed},
               {"batch", state.batch},
               {"rows", state.rows},
               {"epoch", state.epoch},
               {"epochs", state.epochs},
               {"step_in_epoch", state.stepInEpoch},
               // JSON has no infinity and no NaN; null reads back as NaN.
               {"loss_sum", std::isfinite(state.lossSum) ? Json(state.lossSum) : Json(nullptr)},
               {"loss_rows", state.lossRows},
               {"data", state.data},
               {"variables", fingerprintJson(**print)},
               {"history", state.history}};
  std::string text = dumpJson(json, 2) + '\n';
  std::array<std::string_view, 1> parts = {text};
  if (Status written = writeFileAtomically(statePath(), parts, Durability::Durable); !written)
    return giveUp(written);
  return renameDurably(nextPath(), variablesPath());
}

Expected<Json> CheckpointFolder::readStateJson() const {
  Expected<std::string> text = readWholeFile(statePath(), largestState);
  if (!text)
    return text.error();
  Json json = parseJson(*text);
  if (!json.is_object())
    return makeError(quote(statePath()), ": damaged: not a JSON object");
  return json;
}

namespace {
/// Takes members out of an object and remembers the first that is missing or of another type.
class Members {
public:
  explicit Members(const Json &json) : json(json) {}

  void text(const char *name, std::string &to) {
    if (const Json *value = find(name); value && value->is_string())
      to = value->get<std::string>();
    else
      fail(name, "text");
  }
  void number(const char *name, uint64_t &to) {
    if (const Json *value = find(name); value && value->is_number_unsigned())
      to = value->get<uint64_t>();
    else
      fail(name, "a whole number from 0");
  }
  void number(const char *name, int64_t &to) {
    uint64_t value = 0;
    number(name, value);
    if (value > INT64_MAX)
      fail(name, "a smaller number");
    else
      to = static_cast<int64_t>(value);
  }
  void real(const char *name, double &to) {
    const Json *value = find(name);
    if (value && value->is_number())
      to = value->get<double>();
    else if (value && value->is_null())
      to = NAN;
    else
      fail(name, "a number");
  }
  void object(const char *name, Json &to) {
    if (const Json *value = find(name); value && value->is_object())
      to = *value;
    else
      fail(name, "an object");
  }
  void array(const char *name, Json &to) {
    if (const Json *value = find(name); value && value->is_array())
      to = *value;
    else
      fail(name, "an array");
  }

  std::string problem;

private:
  const Json *find(const char *name) {
    auto found = json.find(name);
    return found == json.end() ? nullptr : &*found;
  }
  void fail(const char *name, const char *expected) {
    if (problem.empty())
      problem = concat(quote(name), " is missing or not ", expected);
  }

  const Json &json;
};
} // namespace

Expected<std::optional<TrainState>> CheckpointFolder::readState() const {
  if (::access(statePath().c_str(), F_OK) != 0 && errno == ENOENT)
    return std::optional<TrainState>();
  Expected<Json> json = readStateJson();
  if (!json)
    return json.error();
  Members members(*json);
  int64_t format = 0;
  members.number("format", format);
  if (members.problem.empty() && format != stateFormat)
    return makeError(quote(statePath()), ": format ", format, ", this dlrun reads ", stateFormat);
  TrainState state;
  members.text("model", state.model);
  members.text("step", state.step);
  members.number("seed", state.seed);
  members.number("batch", state.batch);
  members.number("rows", state.rows);
  members.number("epoch", state.epoch);
  members.number("epochs", state.epochs);
  members.number("step_in_epoch", state.stepInEpoch);
  members.real("loss_sum", state.lossSum);
  members.number("loss_rows", state.lossRows);
  members.object("data", state.data);
  members.array("history", state.history);
  if (!members.problem.empty())
    return makeError(quote(statePath()), ": damaged: ", members.problem);
  return std::optional<TrainState>(std::move(state));
}

Status CheckpointFolder::loadVariables(Instance &instance) const {
  Expected<Json> json = readStateJson();
  if (!json)
    return json.error();
  Json variables;
  Members members(*json);
  members.object("variables", variables);
  Members fields(variables);
  Fingerprint wanted;
  uint64_t crc32 = 0;
  if (members.problem.empty()) {
    fields.number("bytes", wanted.bytes);
    fields.number("crc32", crc32);
  }
  if (!members.problem.empty() || !fields.problem.empty() || crc32 > UINT32_MAX)
    return makeError(quote(statePath()), ": damaged: ", members.problem, fields.problem,
                     crc32 > UINT32_MAX ? "'crc32' is too large" : "");
  wanted.crc32 = static_cast<uint32_t>(crc32);

  Expected<std::optional<Fingerprint>> last = fingerprintOf(variablesPath());
  if (!last)
    return last.error();
  if (*last != wanted) {
    // Killed between the two renames: the other half of the pair still has its first name.
    Expected<std::optional<Fingerprint>> next = fingerprintOf(nextPath());
    if (!next)
      return next.error();
    if (*next != wanted)
      return makeError(quote(variablesPath()),
                       *last ? " is not the file that " : " is missing, which ", quote(statePath()),
                       " was saved with (", wanted.bytes, " bytes, CRC-32 ", wanted.crc32, ")");
    if (Status renamed = renameDurably(nextPath(), variablesPath()); !renamed)
      return renamed;
  } else {
    // Killed between steps 1 and 2: this file belongs to no state.
    ::unlink(nextPath().c_str());
  }
  return instance.load(variablesPath());
}

} // namespace dlc::run
