/*===- AllocationCounter.c - counts what a program allocates -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * Stands in front of libc's allocator and counts calls on all threads between
 * allocation_counter_start and allocation_counter_stop. Linked into a test program, or preloaded
 * (LD_PRELOAD) under any program that finds the two functions with dlsym.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static _Atomic int counting;
static _Atomic long calls;

static void count(void) {
  if (atomic_load_explicit(&counting, memory_order_relaxed))
    atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
}

void allocation_counter_start(void) {
  atomic_store(&calls, 0);
  atomic_store(&counting, 1);
}
long allocation_counter_stop(void) {
  atomic_store(&counting, 0);
  return atomic_load(&calls);
}

void *malloc(size_t bytes) {
  count();
  return __libc_malloc(bytes);
}
void *calloc(size_t n, size_t bytes) {
  count();
  return __libc_calloc(n, bytes);
}
void *realloc(void *memory, size_t bytes) {
  count();
  return __libc_realloc(memory, bytes);
}
void *aligned_alloc(size_t alignment, size_t bytes) {
  count();
  return __libc_memalign(alignment, bytes);
}
void *memalign(size_t alignment, size_t bytes) {
  count();
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void **out, size_t alignment, size_t bytes) {
  count();
  void *memory = __libc_memalign(alignment, bytes);
  if (!memory)
    return ENOMEM;
  *out = memory;
  return 0;
}
void free(void *memory) {
  if (memory)
    count();
  __libc_free(memory);
}
void *mmap(void *address, size_t bytes, int protection, int flags, int file, off_t offset) {
  count();
  return (void *)syscall(SYS_mmap, address, bytes, protection, flags, file, offset);
}
int munmap(void *address, size_t bytes) {
  count();
  return (int)syscall(SYS_munmap, address, bytes);
}
