//===- Inputs.cpp - arguments from files and numbers on the command line -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Inputs.h"

#include "DataFile.h"
#include "File.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <unistd.h>

namespace dlc::run {

template <typename T> static Array scalarArray(dlrt_dtype dtype, T value) {
  Array array{dtype, {}, Buffer(sizeof(T))};
  std::memcpy(array.data.data(), &value, sizeof(T));
  return array;
}

template <typename T>
static Expected<Array> wholeScalar(double number, const Value &argument, const std::string &text) {
  // From 2^53 on a double does not tell neighbours apart: read the digits again.
  std::optional<T> value = parseInteger<T>(text);
  if (!value && number == std::trunc(number) && std::abs(number) <= 0x1p53 &&
      number >= static_cast<double>(std::numeric_limits<T>::min()) &&
      number <= static_cast<double>(std::numeric_limits<T>::max()))
    value = static_cast<T>(number);
  if (!value)
    return makeError("argument ", quote(argument.name), " is ", argument.type(),
                     ", which cannot hold ", text);
  return scalarArray(argument.dtype, *value);
}

Expected<Array> scalarOf(double number, const Value &argument, const std::string &text) {
  switch (argument.dtype) {
  case DLRT_BOOL:
    if (number != 0 && number != 1)
      return makeError("argument ", quote(argument.name), " is bool: 0 or 1, got ", text);
    return scalarArray<uint8_t>(DLRT_BOOL, number != 0);
  case DLRT_U8:
    return wholeScalar<uint8_t>(number, argument, text);
  case DLRT_I8:
    return wholeScalar<int8_t>(number, argument, text);
  case DLRT_I16:
    return wholeScalar<int16_t>(number, argument, text);
  case DLRT_I32:
    return wholeScalar<int32_t>(number, argument, text);
  case DLRT_I64:
    return wholeScalar<int64_t>(number, argument, text);
  case DLRT_F32:
    return scalarArray(DLRT_F32, static_cast<float>(number));
  case DLRT_F64:
    return scalarArray(DLRT_F64, number);
  case DLRT_F16:
  case DLRT_BF16:
    break;
  }
  return makeError("argument ", quote(argument.name), " is ", argument.type(),
                   ", which takes no number on the command line; give a data file");
}

Expected<Array> readInput(const Function &function, const Value &argument,
                          const std::string &text) {
  if (std::optional<double> number = parseNumber(text); number && access(text.c_str(), F_OK) != 0) {
    if (!argument.dims.empty())
      return makeError("argument ", quote(argument.name), " of ", quote(function.name), " is ",
                       argument.type(), ", not a scalar: ", text, " must be a file");
    return scalarOf(*number, argument, text);
  }
  Expected<std::unique_ptr<Rows>> rows = openData(text, argument.name, argument.dtype);
  Expected<Array> array = rows ? (*rows)->takeAll(physicalMemory()) : rows.error();
  if (!array)
    return makeError("input ", quote(argument.name), ": ", array.error().message);
  if (array->dtype != argument.dtype)
    return makeError("argument ", quote(argument.name), " of ", quote(function.name), " is ",
                     argument.type(), ", ", quote(text), " holds ", typeText(*array));
  return array;
}

Expected<std::vector<std::optional<Array>>> readInputs(const Function &function,
                                                       const std::vector<Assignment> &inputs) {
  std::vector<std::optional<Array>> arrays(function.arguments.size());
  for (const Assignment &input : inputs) {
    const Value *argument = function.findArgument(input.name);
    if (!argument)
      return makeError("function ", quote(function.name), " has no argument ", quote(input.name),
                       "; it has ", function.argumentNames());
    Expected<Array> array = readInput(function, *argument, input.value);
    if (!array)
      return array.error();
    arrays[static_cast<size_t>(argument - function.arguments.data())] = std::move(*array);
  }
  return arrays;
}

} // namespace dlc::run
