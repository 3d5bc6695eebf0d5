//===- checkpoint_fuzz.cpp - loading checkpoints of any bytes -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Any bytes are either refused, and the variables stay as they are, or are a checkpoint: then
// saving and loading again gives the same variables.
//
//===----------------------------------------------------------------------===//
#include "Fixture.h"
#include "dlrt/dlrt.h"

#include <cstdio>
#include <cstdlib>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

using namespace dlc::test;

namespace {

void check(bool condition, const char *words) {
  if (condition)
    return;
  std::fprintf(stderr, "%s\n", words);
  std::abort();
}

void nothing(const dl_frame *) {}

struct Target {
  std::vector<uint64_t> blob;
  std::vector<dl_entry_fn> entries;
  dlrt_model *model = nullptr;
  dlrt_instance *instance = nullptr;
  int file = memfd_create("checkpoint", 0);
  std::string path = "/proc/self/fd/" + std::to_string(file);

  Target() {
    Model m = fixtureModel();
    m.constants.clear();
    m.functions.clear();
    std::vector<uint8_t> bytes = m.build();
    blob.resize((bytes.size() + 7) / 8);
    std::memcpy(blob.data(), bytes.data(), bytes.size());
    entries.assign(1, nothing);
    dl_model linked = {DL_ABI_VERSION, sizeof linked,
                       reinterpret_cast<const dl_blob *>(blob.data()), entries.data(), nullptr};
    dlrt_options options = {sizeof options, 1, 0, 0, DLRT_DEVICE_AUTO, 0};
    check(!dlrt_model_attach(&linked, &model) && !dlrt_instance_create(model, &options, &instance),
          "the model is refused");
  }

  std::vector<uint8_t> variables() const {
    dlrt_model_info info;
    dlrt_model_get_info(model, &info);
    std::vector<uint8_t> all;
    for (uint32_t i = 0; i < info.variable_count; ++i) {
      dlrt_variable_info variable;
      check(!dlrt_model_get_variable(model, i, &variable), "no variable");
      std::vector<uint8_t> bytes(variable.bytes);
      check(!dlrt_variable_read(instance, i, bytes.data(), bytes.size()), "unreadable variable");
      all.insert(all.end(), bytes.begin(), bytes.end());
    }
    return all;
  }
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static Target target;
  check(ftruncate(target.file, 0) == 0 &&
            pwrite(target.file, data, size, 0) == static_cast<ssize_t>(size),
        "no file");
  std::vector<uint8_t> before = target.variables();
  if (dlrt_status status = dlrt_instance_load(target.instance, target.path.c_str())) {
    check(dlrt_status_message(status)[0] != 0, "a failure without words");
    dlrt_status_release(status);
    check(target.variables() == before, "a refused checkpoint changed variables");
    return 0;
  }
  std::vector<uint8_t> loaded = target.variables();
  char name[] = "/tmp/dlrt-fuzz-XXXXXX";
  int file = mkstemp(name);
  check(file >= 0, "no file");
  close(file);
  check(!dlrt_instance_save(target.instance, name) && !dlrt_instance_load(target.instance, name),
        "cannot save and load again");
  unlink(name);
  check(target.variables() == loaded, "variables change when saved and loaded");
  return 0;
}
