//===- WriteFixture.cpp - writes the tests' model's description to a file -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
#include "Fixture.h"

#include <fstream>

int main(int argc, char **argv) {
  std::vector<uint8_t> bytes = dlc::test::fixtureModel().build();
  std::ofstream out(argc == 2 ? argv[1] : "", std::ios::binary);
  out.write(reinterpret_cast<const char *>(bytes.data()), bytes.size());
  out.close();
  return out ? 0 : 1;
}
