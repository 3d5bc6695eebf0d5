//===- Json.h - JSON without exceptions -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TOOLS_DLRUN_JSON_H
#define DLC_TOOLS_DLRUN_JSON_H

#include <nlohmann/json.hpp>

namespace dlc::run {

/// Objects keep the order in which their members were added.
using Json = nlohmann::ordered_json;

/// Names in a damaged artefact may be no UTF-8; such bytes are replaced.
inline std::string dumpJson(const Json &json, int indent = -1) {
  return json.dump(indent, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

/// A discarded value where the text is no JSON.
inline Json parseJson(const std::string &text) {
  return Json::parse(text, nullptr, /*allow_exceptions=*/false);
}

} // namespace dlc::run

#endif
