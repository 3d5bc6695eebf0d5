//===- Parser.h - PTX text to Ast.h -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TEST_STANDIN_PTX_PARSER_H
#define DLC_TEST_STANDIN_PTX_PARSER_H

#include "Ast.h"
#include "llvm/Support/Error.h"

namespace standin::ptx {

/// "name:line: message"
llvm::Error errorAt(llvm::StringRef name, unsigned line, const llvm::Twine &message);

llvm::Expected<std::unique_ptr<Program>> parse(llvm::StringRef source, llvm::StringRef name);

} // namespace standin::ptx

#endif // DLC_TEST_STANDIN_PTX_PARSER_H
