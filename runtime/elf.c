/*===- elf.c - the description in an ELF file -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * Finds the note in a file's program headers (a library) or section headers (an object) and copies
 * it. Reads with pread instead of mapping the file: another process that cuts the file short
 * meanwhile then causes an error and no SIGBUS.
 */
#include "internal.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A file with more notes than this is not worth looking through. */
enum { MAX_NOTES = 4096 };

typedef struct elf_file {
  int file;
  const char *path;
  uint64_t bytes;
  uint32_t notes_seen, found;
  uint64_t note_offset, note_bytes;
} elf_file;

dlrt_status dlrt_read_at(int file, const char *path, void *data, uint64_t bytes, uint64_t offset) {
  while (bytes > 0) {
    size_t most = bytes > (1u << 30) ? 1u << 30 : (size_t)bytes;
    ssize_t got = pread(file, data, most, (off_t)offset);
    if (got < 0) {
      if (errno == EINTR)
        continue;
      return dlrt_fail_errno(errno, "read", path);
    }
    if (got == 0)
      return dlrt_fail(DLRT_CORRUPT,
                       "'%s' is truncated: it ends at byte %llu, but %llu more bytes were expected",
                       path, (unsigned long long)offset, (unsigned long long)bytes);
    data = (char *)data + got;
    bytes -= (uint64_t)got;
    offset += (uint64_t)got;
  }
  return NULL;
}

static dlrt_status truncated(const elf_file *elf, const char *what, uint64_t offset,
                             uint64_t bytes) {
  return dlrt_fail(
      DLRT_CORRUPT,
      "'%s' is truncated or damaged: %s of %llu bytes at %llu lies beyond the file's %llu bytes",
      elf->path, what, (unsigned long long)bytes, (unsigned long long)offset,
      (unsigned long long)elf->bytes);
}

static bool inside(const elf_file *elf, uint64_t offset, uint64_t bytes) {
  return offset <= elf->bytes && bytes <= elf->bytes - offset;
}

/* Looks through one run of notes. */
static dlrt_status scan(elf_file *elf, uint64_t offset, uint64_t bytes, uint64_t alignment) {
  uint64_t end = offset + bytes;
  /* Descriptors are padded to 4 bytes, or to 8 where the whole run is aligned so. */
  alignment = alignment == 8 ? 8 : 4;
  while (end - offset >= sizeof(Elf64_Nhdr) && elf->notes_seen++ < MAX_NOTES) {
    Elf64_Nhdr head;
    char name[sizeof DL_NOTE_NAME];
    dlrt_status status = dlrt_read_at(elf->file, elf->path, &head, sizeof head, offset);
    if (status)
      return status;
    uint64_t at = sizeof head + (uint64_t)head.n_namesz;
    at = (at + alignment - 1) & ~(alignment - 1);
    uint64_t next = (at + head.n_descsz + alignment - 1) & ~(alignment - 1);
    if (at + head.n_descsz > end - offset)
      return truncated(elf, "a note", offset, at + head.n_descsz);
    if (head.n_type == DL_NOTE_TYPE && head.n_namesz >= sizeof name) {
      if ((status = dlrt_read_at(elf->file, elf->path, name, sizeof name, offset + sizeof head)))
        return status;
      if (memcmp(name, DL_NOTE_NAME, sizeof name) == 0) {
        ++elf->found;
        elf->note_offset = offset + at;
        elf->note_bytes = head.n_descsz;
      }
    }
    if (next > end - offset)
      break;
    offset += next;
  }
  return NULL;
}

static dlrt_status find_note(elf_file *elf, const Elf64_Ehdr *head, bool for_loading) {
  dlrt_status status = NULL;
  uint64_t segments = (uint64_t)head->e_phnum * sizeof(Elf64_Phdr),
           sections = (uint64_t)head->e_shnum * sizeof(Elf64_Shdr);
  if ((head->e_phnum && head->e_phentsize != sizeof(Elf64_Phdr)) ||
      (head->e_shnum && head->e_shentsize != sizeof(Elf64_Shdr)))
    return dlrt_fail(DLRT_CORRUPT, "'%s' is damaged: its headers have an unknown size", elf->path);
  if (!inside(elf, head->e_phoff, segments))
    return truncated(elf, "the table of segments", head->e_phoff, segments);
  /* The last thing in a file as linkers write it, so a cut file is met here. */
  if (!inside(elf, head->e_shoff, sections))
    return truncated(elf, "the table of sections", head->e_shoff, sections);
  for (uint32_t i = 0; i < head->e_phnum; ++i) {
    Elf64_Phdr segment;
    if ((status = dlrt_read_at(elf->file, elf->path, &segment, sizeof segment,
                               head->e_phoff + i * sizeof segment)))
      return status;
    if ((segment.p_type == PT_NOTE ||
         (for_loading && (segment.p_type == PT_LOAD || segment.p_type == PT_DYNAMIC))) &&
        !inside(elf, segment.p_offset, segment.p_filesz))
      return truncated(elf, "a segment", segment.p_offset, segment.p_filesz);
    if (segment.p_type == PT_NOTE &&
        (status = scan(elf, segment.p_offset, segment.p_filesz, segment.p_align)))
      return status;
  }
  if (elf->found || for_loading)
    return NULL;
  for (uint32_t i = 0; i < head->e_shnum; ++i) {
    Elf64_Shdr section;
    if ((status = dlrt_read_at(elf->file, elf->path, &section, sizeof section,
                               head->e_shoff + i * sizeof section)))
      return status;
    if (section.sh_type != SHT_NOTE)
      continue;
    if (!inside(elf, section.sh_offset, section.sh_size))
      return truncated(elf, "a section", section.sh_offset, section.sh_size);
    if ((status = scan(elf, section.sh_offset, section.sh_size, section.sh_addralign)))
      return status;
  }
  return NULL;
}

dlrt_status dlrt_note_read(int file, const char *path, bool for_loading, void **out_data,
                           size_t *out_bytes) {
  struct stat info;
  Elf64_Ehdr head;
  if (fstat(file, &info) != 0)
    return dlrt_fail_errno(errno, "read", path);
  if (!S_ISREG(info.st_mode))
    return S_ISDIR(info.st_mode) ? dlrt_fail_errno(EISDIR, "read", path)
                                 : dlrt_fail(DLRT_INCOMPATIBLE, "'%s' is not a regular file", path);
  elf_file elf = {.file = file, .path = path, .bytes = (uint64_t)info.st_size};
  if (elf.bytes < EI_NIDENT)
    return dlrt_fail(DLRT_INCOMPATIBLE, "'%s' is not a compiled model: it has %llu bytes", path,
                     (unsigned long long)elf.bytes);
  dlrt_status status = dlrt_read_at(file, path, head.e_ident, EI_NIDENT, 0);
  if (status)
    return status;
  if (memcmp(head.e_ident, ELFMAG, SELFMAG) != 0)
    return dlrt_fail(DLRT_INCOMPATIBLE, "'%s' is not a compiled model: it is no ELF file", path);
  if (head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_ident[EI_DATA] != ELFDATA2LSB)
    return dlrt_fail(DLRT_INCOMPATIBLE,
                     "'%s' is not for this machine: it is no 64-bit little-endian ELF file", path);
  if ((status = dlrt_read_at(file, path, &head, sizeof head, 0)))
    return status;
#if defined(__x86_64__)
  if (for_loading && head.e_machine != EM_X86_64)
    return dlrt_fail(DLRT_INCOMPATIBLE,
                     "'%s' is not for this machine: it has ELF machine number %u, not %u", path,
                     head.e_machine, EM_X86_64);
#endif
  if (for_loading && head.e_type != ET_DYN)
    return dlrt_fail(DLRT_INCOMPATIBLE, "'%s' cannot be loaded: it is no shared library", path);
  if ((status = find_note(&elf, &head, for_loading)))
    return status;
  if (elf.found != 1)
    return elf.found
               ? dlrt_fail(DLRT_INCOMPATIBLE,
                           "'%s' holds %u models; only files with one can be opened", path,
                           elf.found)
               : dlrt_fail(DLRT_INCOMPATIBLE,
                           "'%s' is not a compiled model: it has no note '" DL_NOTE_NAME "'", path);
  void *data = malloc(elf.note_bytes ? elf.note_bytes : 1);
  if (!data)
    return dlrt_fail_memory("the model's description", elf.note_bytes);
  if ((status = dlrt_read_at(file, path, data, elf.note_bytes, elf.note_offset))) {
    free(data);
    return status;
  }
  *out_data = data;
  *out_bytes = elf.note_bytes;
  return NULL;
}
