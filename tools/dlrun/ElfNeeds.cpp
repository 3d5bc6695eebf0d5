//===- ElfNeeds.cpp - which libraries and versions an ELF file needs -*- C++ -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//===----------------------------------------------------------------------===//

#include "ElfNeeds.h"

#include <cstring>
#include <elf.h>

namespace dlc::run {

namespace {

class Reader {
public:
  explicit Reader(std::string_view file) : file(file) {}

  /// A structure at a file offset, copied out so that alignment does not matter.
  template <typename T> bool at(uint64_t offset, T &to) const {
    if (offset > file.size() || file.size() - offset < sizeof(T))
      return false;
    std::memcpy(&to, file.data() + offset, sizeof(T));
    return true;
  }

  /// Remembers which part of memory comes from where.
  void addSegment(const Elf64_Phdr &segment) { segments.push_back(segment); }

  std::optional<uint64_t> offsetOf(uint64_t address) const {
    for (const Elf64_Phdr &segment : segments)
      if (address >= segment.p_vaddr && address - segment.p_vaddr < segment.p_filesz) {
        uint64_t offset;
        if (!__builtin_add_overflow(segment.p_offset, address - segment.p_vaddr, &offset))
          return offset;
      }
    return std::nullopt;
  }

  /// A string of the string table that ends inside it.
  std::optional<std::string_view> string(uint64_t table, uint64_t tableBytes, uint64_t at) const {
    if (table > file.size() || tableBytes > file.size() - table || at >= tableBytes)
      return std::nullopt;
    std::string_view text = file.substr(table + at, tableBytes - at);
    size_t end = text.find('\0');
    if (end == std::string_view::npos)
      return std::nullopt;
    return text.substr(0, end);
  }

private:
  std::string_view file;
  std::vector<Elf64_Phdr> segments;
};

/// "2.29" -> {2, 29}; nothing for names such as "PRIVATE".
std::optional<std::vector<uint32_t>> versionNumbers(std::string_view text) {
  std::vector<uint32_t> numbers;
  for (;;) {
    size_t dot = text.find('.');
    std::optional<uint32_t> number = parseInteger<uint32_t>(text.substr(0, dot));
    if (!number)
      return std::nullopt;
    numbers.push_back(*number);
    if (dot == std::string_view::npos)
      return numbers;
    text.remove_prefix(dot + 1);
  }
}

} // namespace

Expected<ElfNeeds> readElfNeeds(std::string_view file) {
  Reader reader(file);
  Elf64_Ehdr header;
  if (!reader.at(0, header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
      header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
      (header.e_phnum != 0 && header.e_phentsize != sizeof(Elf64_Phdr)))
    return makeError("not a 64-bit little-endian ELF file");

  Error damaged = makeError("its ELF structures are damaged");
  std::optional<Elf64_Phdr> dynamic;
  for (uint64_t i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment;
    uint64_t offset;
    if (__builtin_add_overflow(header.e_phoff, i * sizeof(segment), &offset) ||
        !reader.at(offset, segment))
      return damaged;
    if (segment.p_type == PT_LOAD)
      reader.addSegment(segment);
    else if (segment.p_type == PT_DYNAMIC)
      dynamic = segment;
  }
  ElfNeeds needs;
  if (!dynamic)
    return needs;

  std::vector<uint64_t> needed;
  uint64_t stringsAddress = 0, stringsBytes = 0, versionsAddress = 0, versionsCount = 0;
  for (uint64_t i = 0; i < dynamic->p_filesz / sizeof(Elf64_Dyn); ++i) {
    Elf64_Dyn entry;
    uint64_t offset;
    if (__builtin_add_overflow(dynamic->p_offset, i * sizeof(entry), &offset) ||
        !reader.at(offset, entry))
      return damaged;
    if (entry.d_tag == DT_NULL)
      break;
    if (entry.d_tag == DT_NEEDED)
      needed.push_back(entry.d_un.d_val);
    else if (entry.d_tag == DT_STRTAB)
      stringsAddress = entry.d_un.d_ptr;
    else if (entry.d_tag == DT_STRSZ)
      stringsBytes = entry.d_un.d_val;
    else if (entry.d_tag == DT_VERNEED)
      versionsAddress = entry.d_un.d_ptr;
    else if (entry.d_tag == DT_VERNEEDNUM)
      versionsCount = entry.d_un.d_val;
  }

  std::optional<uint64_t> strings = reader.offsetOf(stringsAddress);
  for (uint64_t name : needed) {
    std::optional<std::string_view> text =
        strings ? reader.string(*strings, stringsBytes, name) : std::nullopt;
    if (!text)
      return damaged;
    needs.libraries.push_back(std::string(*text));
  }

  if (versionsAddress == 0)
    return needs;
  std::optional<uint64_t> at = reader.offsetOf(versionsAddress);
  if (!at || !strings)
    return damaged;
  std::vector<uint32_t> newest;
  // Links only lead onward, and no file holds more entries than it has room for; one that has them
  // overlap is refused instead of walked through.
  uint64_t entriesLeft = file.size() / sizeof(Elf64_Vernaux);
  for (uint64_t i = 0; i < versionsCount; ++i) {
    Elf64_Verneed need;
    if (entriesLeft-- == 0 || !reader.at(*at, need))
      return damaged;
    uint64_t auxiliary = *at + need.vn_aux;
    for (uint32_t k = 0; k < need.vn_cnt; ++k) {
      Elf64_Vernaux version;
      if (entriesLeft-- == 0 || !reader.at(auxiliary, version))
        return damaged;
      std::optional<std::string_view> text =
          reader.string(*strings, stringsBytes, version.vna_name);
      if (!text)
        return damaged;
      constexpr std::string_view prefix = "GLIBC_";
      if (text->starts_with(prefix)) {
        std::string_view number = text->substr(prefix.size());
        std::optional<std::vector<uint32_t>> numbers = versionNumbers(number);
        if (numbers && *numbers > newest) {
          newest = *numbers;
          needs.newestGlibc = std::string(number);
        }
      }
      if (version.vna_next == 0)
        break;
      auxiliary += version.vna_next;
    }
    if (need.vn_next == 0)
      break;
    *at += need.vn_next;
  }
  return needs;
}

} // namespace dlc::run
