//===- Diagnostics.cpp - errors at the user's own line -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license
// information. SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "Diagnostics.h"

#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/Location.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/ConvertUTF.h"
#include "llvm/Support/Unicode.h"
#include "llvm/Support/WithColor.h"
#include "llvm/Support/raw_ostream.h"
#include <tuple>

using namespace dlc;
using llvm::SMLoc;
using llvm::SMRange;
using llvm::StringRef;

/// What is stored: far more than is printed, but a program made to overflow cannot fill memory.
static constexpr size_t kept = 2000;
/// Lines longer than this are shown around the caret only.
static constexpr size_t shownColumns = 160;

Diagnostics::Report &Diagnostics::error(SMRange where, const llvm::Twine &message) {
  ++count;
  if (isSilent || reports.size() >= kept) {
    overflow = Report();
    return overflow;
  }
  reports.emplace_back();
  reports.back().head = {where, message.str()};
  return reports.back();
}

void Diagnostics::remark(SMRange where, const llvm::Twine &message) {
  if (isSilent || remarks.size() >= kept)
    return;
  remarks.emplace_back();
  remarks.back().head = {where, message.str()};
}

StringRef Diagnostics::fileOf(SMLoc where) const {
  if (!where.isValid())
    return {};
  unsigned buffer = sources.FindBufferContainingLoc(where);
  return buffer ? sources.getMemoryBuffer(buffer)->getBufferIdentifier() : StringRef();
}

SMRange Diagnostics::find(mlir::Location location) const {
  SMRange library; // the answer when no file of the user is in the chain
  llvm::SmallVector<mlir::Location> stack{location};
  while (!stack.empty()) {
    mlir::Location next = stack.pop_back_val();
    if (auto call = llvm::dyn_cast<mlir::CallSiteLoc>(next)) {
      stack.push_back(call.getCaller());
      stack.push_back(call.getCallee());
    } else if (auto named = llvm::dyn_cast<mlir::NameLoc>(next)) {
      stack.push_back(named.getChildLoc());
    } else if (auto fused = llvm::dyn_cast<mlir::FusedLoc>(next)) {
      for (mlir::Location part : llvm::reverse(fused.getLocations()))
        stack.push_back(part);
    } else if (auto file = llvm::dyn_cast<mlir::FileLineColLoc>(next)) {
      for (unsigned id = 1; id <= sources.getNumBuffers(); ++id) {
        if (sources.getMemoryBuffer(id)->getBufferIdentifier() != file.getFilename().getValue())
          continue;
        SMLoc place = sources.FindLocForLineAndColumn(id, file.getLine(), file.getColumn());
        if (!place.isValid())
          break;
        if (!isLibraryFile(file.getFilename().getValue()))
          return SMRange(place, place);
        if (!library.isValid())
          library = SMRange(place, place);
        break;
      }
    }
  }
  return library;
}

void Diagnostics::printLine(llvm::raw_ostream &os, const Report::Line &line, StringRef kind) const {
  auto color = kind == "error"    ? llvm::raw_ostream::RED
               : kind == "remark" ? llvm::raw_ostream::BLUE
                                  : llvm::raw_ostream::CYAN;
  auto paint = [&](llvm::raw_ostream::Colors paint, bool bold, StringRef text) {
    llvm::WithColor(os, paint, bold, /*BG=*/false, llvm::ColorMode::Auto) << text;
  };
  auto head = [&](StringRef place) {
    paint(llvm::raw_ostream::SAVEDCOLOR, true, place);
    paint(color, true, kind);
    os << ": ";
    paint(llvm::raw_ostream::SAVEDCOLOR, kind != "note", line.message);
    os << '\n';
  };
  unsigned id = line.where.Start.isValid() ? sources.FindBufferContainingLoc(line.where.Start) : 0;
  if (!id) {
    head("dlc: ");
    return;
  }
  const llvm::MemoryBuffer *buffer = sources.getMemoryBuffer(id);
  auto [row, column] = sources.getLineAndColumn(line.where.Start, id);
  head((buffer->getBufferIdentifier() + ":" + llvm::Twine(row) + ":" + llvm::Twine(column) + ": ")
           .str());

  const char *start = line.where.Start.getPointer(), *first = start, *last = start;
  while (first != buffer->getBufferStart() && first[-1] != '\n')
    --first;
  while (last != buffer->getBufferEnd() && *last != '\n' && *last != '\r')
    ++last;
  const char *end = line.where.End.isValid() ? line.where.End.getPointer() : start;
  end = std::max(start, std::min(end, last));
  if (static_cast<size_t>(last - first) > shownColumns) {
    // Show the neighbourhood of the caret; step back to the beginning of a UTF-8 sequence on both
    // sides.
    const char *from =
        start - first > static_cast<ptrdiff_t>(shownColumns / 2) ? start - shownColumns / 2 : first;
    const char *to = std::min(last, from + shownColumns);
    while (from > first && (*from & 0xC0) == 0x80)
      --from;
    while (to < last && to > start && (*to & 0xC0) == 0x80)
      --to;
    first = from, last = to, end = std::min(end, last);
  }
  StringRef text(first, last - first);
  auto *bytes = reinterpret_cast<const llvm::UTF8 *>(text.data());
  if (!llvm::isLegalUTF8String(&bytes, reinterpret_cast<const llvm::UTF8 *>(text.end())))
    return; // a byte that a terminal cannot show: the place says enough
  if (llvm::any_of(text, [](char c) { return static_cast<uint8_t>(c) < 0x20 && c != '\t'; }))
    return;
  // Tabs keep their width in the line of the caret; other characters count by their width on a
  // terminal.
  std::string marks;
  for (const char *at = first; at < start;) {
    unsigned length = llvm::getNumBytesForUTF8(static_cast<llvm::UTF8>(*at));
    if (*at == '\t')
      marks += '\t';
    else
      marks.append(std::max(0, llvm::sys::unicode::columnWidthUTF8(StringRef(at, length))), ' ');
    at += length;
  }
  marks += '^';
  if (end > start + 1)
    marks.append(
        std::max(1, llvm::sys::unicode::columnWidthUTF8(StringRef(start, end - start))) - 1, '~');
  os << text << '\n';
  paint(llvm::raw_ostream::GREEN, true, marks);
  os << '\n';
}

void Diagnostics::print(llvm::raw_ostream &os) {
  // Sort by the order in which the files were opened, then by place: a reader walks each file from
  // top to bottom.
  auto key = [&](const Report &report) {
    SMLoc where = report.head.where.Start;
    unsigned id = where.isValid() ? sources.FindBufferContainingLoc(where) : 0;
    const char *base = id ? sources.getMemoryBuffer(id)->getBufferStart() : nullptr;
    return std::make_pair(id, id ? where.getPointer() - base : ptrdiff_t(0));
  };
  using Place = std::pair<unsigned, ptrdiff_t>;
  std::vector<std::tuple<Place, size_t, const Report *>>
      sorted; // at one place in the order of reporting
  bool errors = !reports.empty();
  for (const Report &report : errors ? reports : remarks)
    sorted.emplace_back(key(report), sorted.size(), &report);
  llvm::sort(sorted);

  llvm::StringSet<> seen; // of the place at hand: a layer that is used twice reports twice
  Place place;
  unsigned printed = 0, left = count - reports.size();
  for (auto &[at, order, report] : sorted) {
    if (at != place)
      seen.clear();
    place = at;
    if (!seen.insert(report->head.message).second)
      continue;
    if (errors && limit && printed == limit) {
      ++left;
      continue;
    }
    ++printed;
    printLine(os, report->head, errors ? "error" : "remark");
    for (const Report::Line &note : report->notes)
      printLine(os, note, "note");
  }
  if (left)
    os << "dlc: " << left << " more error" << (left == 1 ? "" : "s") << " not shown\n";
  os.flush();
  reports.clear();
  remarks.clear();
}

MlirDiagnosticHandler::MlirDiagnosticHandler(mlir::MLIRContext *context, Diagnostics &diagnostics)
    : ScopedDiagnosticHandler(context) {
  setHandler([&diagnostics](mlir::Diagnostic &diagnostic) {
    if (diagnostic.getSeverity() != mlir::DiagnosticSeverity::Error)
      return mlir::failure(); // warnings and remarks are for whoever asked for them
    Diagnostics::Report &report =
        diagnostics.error(diagnostics.find(diagnostic.getLocation()), diagnostic.str());
    for (mlir::Diagnostic &note : diagnostic.getNotes()) {
      SMRange where = diagnostics.find(note.getLocation());
      // A note that shows the operation in its textual form helps who debugs a pass, not who wrote
      // the program.
      if (!StringRef(note.str()).starts_with("see current operation"))
        report.note(where, note.str());
    }
    return mlir::success();
  });
}
