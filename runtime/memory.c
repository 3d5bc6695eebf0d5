/*===- memory.c - blocks of memory -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===*/
#include "internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* From this size on a block is a mapping of its own that asks for huge pages: matrices of some
 * megabytes otherwise spend a good part of their time in page faults and TLB misses. */
static const uint64_t huge_page = 2u << 20;
static const uint64_t mapping_threshold = 4u << 20;

bool dlrt_align_up(uint64_t value, uint64_t alignment, uint64_t *out_value) {
  if (__builtin_add_overflow(value, alignment - 1, &value))
    return false;
  *out_value = value & ~(alignment - 1);
  return true;
}

bool dlrt_block_allocate(dlrt_block *block, uint64_t bytes) {
  memset(block, 0, sizeof *block);
  /* Never empty, so that buffers of no bytes have an address too. */
  if (!dlrt_align_up(bytes ? bytes : 1, DL_BUFFER_ALIGNMENT, &bytes) ||
      bytes > PTRDIFF_MAX - 2 * huge_page)
    return false;
  if (bytes < mapping_threshold) {
    block->data = aligned_alloc(DL_BUFFER_ALIGNMENT, bytes);
    if (!block->data)
      return false;
    memset(block->data, 0, bytes);
  } else {
    size_t mapped = bytes + huge_page;
    void *mapping = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED)
      return false;
    block->mapping = mapping;
    block->mapped_bytes = mapped;
    block->data = (void *)(((uintptr_t)mapping + huge_page - 1) & ~(uintptr_t)(huge_page - 1));
    (void)madvise(block->data, bytes, MADV_HUGEPAGE); /* advice: refusing it is fine */
  }
  block->bytes = bytes;
  return true;
}

void dlrt_block_release(dlrt_block *block) {
  if (block->mapped_bytes)
    munmap(block->mapping, block->mapped_bytes);
  else
    free(block->data);
  memset(block, 0, sizeof *block);
}
