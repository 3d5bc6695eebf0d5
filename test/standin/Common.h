//===- Common.h - what the stand-in's tests share -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TEST_STANDIN_COMMON_H
#define DLC_TEST_STANDIN_COMMON_H

#include "ptx/Module.h"
#include "gtest/gtest.h"
#include <cstring>

namespace standin {

/// A device, a module on it, and its launches.
class Device {
public:
  Memory memory;

  /// Fails the test if the PTX is refused.
  void load(llvm::StringRef ptx, llvm::StringRef name = "test") {
    llvm::Expected<std::unique_ptr<Module>> loaded = Module::load(memory, ptx, name);
    if (!loaded)
      FAIL() << llvm::toString(loaded.takeError());
    module = std::move(*loaded);
  }
  /// The message of the refusal; empty if there is none.
  std::string refusal(llvm::StringRef ptx) {
    llvm::Expected<std::unique_ptr<Module>> loaded = Module::load(memory, ptx, "test");
    return loaded ? "" : llvm::toString(loaded.takeError());
  }

  template <typename T> uint64_t upload(const std::vector<T> &values, llvm::StringRef what = "data") {
    uint64_t address = memory.allocate(values.size() * sizeof(T), what);
    std::memcpy(reinterpret_cast<void *>(address), values.data(), values.size() * sizeof(T));
    memory.markWritten(address, values.size() * sizeof(T));
    return address;
  }
  template <typename T> std::vector<T> download(uint64_t address, size_t count) {
    std::vector<T> values(count);
    std::optional<Report> fault = memory.checkRead(address, count * sizeof(T), "download");
    EXPECT_FALSE(fault) << fault->str();
    if (!fault)
      std::memcpy(values.data(), reinterpret_cast<const void *>(address), count * sizeof(T));
    return values;
  }

  template <typename... Args> std::optional<Report> tryLaunch(llvm::StringRef kernel, const LaunchConfig &config, Args... arguments) {
    const Kernel *found = module ? module->kernel(kernel) : nullptr;
    if (!found) {
      ADD_FAILURE() << "no kernel " << kernel.str();
      return std::nullopt;
    }
    void *pointers[] = {&arguments..., nullptr};
    EXPECT_EQ(sizeof...(Args), found->parameters.size());
    return standin::launch(*found, config, found->pack(pointers), counters);
  }
  /// Fails the test if the launch does.
  template <typename... Args> void launch(llvm::StringRef kernel, const LaunchConfig &config, Args... arguments) {
    std::optional<Report> fault = tryLaunch(kernel, config, arguments...);
    EXPECT_FALSE(fault) << fault->str();
  }

  std::unique_ptr<Module> module;
  LaunchCounters counters;
};

} // namespace standin

#endif // DLC_TEST_STANDIN_COMMON_H
