//===- Diagnostics.h - errors at the user's own line -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//
//
// Reports are collected, not printed at once: one run shows several errors, sorted by place, each
// once, up to a limit. Every report may carry notes that point at the other side of a clash. Files
// that are embedded in the compiler (its library) are known by their name: reports prefer a place
// in a file of the user.
//
//===----------------------------------------------------------------------===//

#ifndef DLC_COMPILER_FRONTENDS_LANGUAGE_DIAGNOSTICS_H
#define DLC_COMPILER_FRONTENDS_LANGUAGE_DIAGNOSTICS_H

#include "mlir/IR/Diagnostics.h"
#include "llvm/Support/SourceMgr.h"
#include <deque>
#include <string>
#include <vector>

namespace dlc {

/// Names of embedded files begin so; no file of a user does.
inline constexpr llvm::StringLiteral libraryPrefix = "<library>/";
inline bool isLibraryFile(llvm::StringRef name) { return name.starts_with(libraryPrefix); }

class Diagnostics {
public:
  /// One error with its notes. A place that is invalid belongs to no line.
  class Report {
  public:
    Report &note(llvm::SMRange where, const llvm::Twine &message) {
      notes.push_back({where, message.str()});
      return *this;
    }

  private:
    friend class Diagnostics;
    struct Line {
      llvm::SMRange where;
      std::string message;
    };
    Line head;
    std::vector<Line> notes;
  };

  /// At most \p limit errors are printed; 0 means all.
  explicit Diagnostics(llvm::SourceMgr &sources, unsigned limit = 20)
      : sources(sources), limit(limit) {}
  Diagnostics(const Diagnostics &) = delete;
  Diagnostics &operator=(const Diagnostics &) = delete;

  Report &error(llvm::SMRange where, const llvm::Twine &message);
  Report &error(llvm::SMLoc where, const llvm::Twine &message) {
    return error(llvm::SMRange(where, where), message);
  }
  /// An error that belongs to no line of a program (a file that cannot be read).
  Report &error(const llvm::Twine &message) { return error(llvm::SMRange(), message); }

  /// Something that the compiler found and took care of; printed where there are no errors.
  void remark(llvm::SMRange where, const llvm::Twine &message);

  /// While it lives, errors are counted, as what happens next depends on them, and then forgotten.
  class Silence {
  public:
    explicit Silence(Diagnostics &diagnostics)
        : diagnostics(diagnostics), count(diagnostics.count), outer(diagnostics.isSilent) {
      diagnostics.isSilent = true;
    }
    ~Silence() {
      diagnostics.count = count;
      diagnostics.isSilent = outer;
    }

  private:
    Diagnostics &diagnostics;
    unsigned count;
    bool outer;
  };

  bool silent() const { return isSilent; }
  bool hasErrors() const { return count != 0; }
  unsigned errorCount() const { return count; }

  /// Prints the errors, or the remarks if there are none, sorted by file and place, each once, and
  /// forgets them (hasErrors stays).
  void print(llvm::raw_ostream &os);

  llvm::SourceMgr &getSources() { return sources; }

  /// The place in the sources that a location of the IR names: of a chain of calls the innermost
  /// one in a file of the user; invalid when none is known.
  llvm::SMRange find(mlir::Location location) const;

  /// The name of the file that holds a place; empty when it is in none.
  llvm::StringRef fileOf(llvm::SMLoc where) const;

private:
  void printLine(llvm::raw_ostream &os, const Report::Line &line, llvm::StringRef kind) const;

  llvm::SourceMgr &sources;
  std::deque<Report> reports; // a deque: references to reports stay valid
  std::deque<Report> remarks;
  Report overflow; // takes what comes after `kept` reports
  unsigned limit, count = 0;
  bool isSilent = false;
};

/// While it lives, errors of passes and verifiers become reports at the user's line.
class MlirDiagnosticHandler : public mlir::ScopedDiagnosticHandler {
public:
  MlirDiagnosticHandler(mlir::MLIRContext *context, Diagnostics &diagnostics);
};

} // namespace dlc

#endif // DLC_COMPILER_FRONTENDS_LANGUAGE_DIAGNOSTICS_H
