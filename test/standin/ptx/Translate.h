//===- Translate.h - PTX to LLVM IR -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_TEST_STANDIN_PTX_TRANSLATE_H
#define DLC_TEST_STANDIN_PTX_TRANSLATE_H

#include "Ast.h"
#include "Execution.h"
#include "llvm/IR/Module.h"

namespace standin::ptx {

/// Allocates the program's variables in `result`, lays out parameters, shared and local memory,
/// fills `result.kernels` and `result.sites`, and makes the code: for each kernel a module with the
/// function `kernel.<number>`, whose only argument is the Context, and copies of what it calls. The
/// program must outlive `result`.
llvm::Expected<std::vector<std::unique_ptr<llvm::Module>>> translate(Program &program, Module::Impl &result, llvm::LLVMContext &context);

} // namespace standin::ptx

#endif // DLC_TEST_STANDIN_PTX_TRANSLATE_H
