//===- Inputs.h - arguments from files and numbers on the command line -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TOOLS_DLRUN_INPUTS_H
#define DLC_TOOLS_DLRUN_INPUTS_H

#include "Model.h"

namespace dlc::run {

/// The value of an argument: a file, or a number where the argument is a scalar, the text is a
/// number and no file has this name. Types must agree exactly.
Expected<Array> readInput(const Function &function, const Value &argument, const std::string &text);

/// A number as a scalar of a type; it must fit.
Expected<Array> scalarOf(double number, const Value &argument, const std::string &text);

/// Arrays for those arguments that are named. An unknown name is an error.
Expected<std::vector<std::optional<Array>>> readInputs(const Function &function,
                                                       const std::vector<Assignment> &inputs);

} // namespace dlc::run

#endif
