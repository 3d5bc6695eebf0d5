//===- Parser.h - tokens to a tree -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_FRONTENDS_LANGUAGE_PARSER_H
#define DLC_COMPILER_FRONTENDS_LANGUAGE_PARSER_H

#include "Ast.h"

namespace dlc::language {

/// Brackets, blocks, branches and prefixes may nest this deep.
inline constexpr unsigned nestingLimit = 256;

/// Reads a whole buffer. Syntax errors are reported and the statement that holds one is left out,
/// so that one run shows several of them; the tree is fit for checking only if nothing was
/// reported.
ast::File *parse(ast::Arena &arena, llvm::SourceMgr &sources, unsigned buffer,
                 Diagnostics &diagnostics);

/// Reads one expression, all of \p text, which is a piece of a buffer of the sources; null after an
/// error. \p file: the name of what it is in.
ast::Expr *parseExpression(ast::Arena &arena, llvm::StringRef text, llvm::StringRef file,
                           Diagnostics &diagnostics);

} // namespace dlc::language

#endif // DLC_COMPILER_FRONTENDS_LANGUAGE_PARSER_H
