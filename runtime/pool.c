/*===- pool.c - the threads of an instance -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * A launch's tasks are split into one range for each thread. A thread works on its own range first,
 * which keeps neighbouring tasks of successive launches in the same cache, and then helps the
 * others. Who runs a task never decides what it computes.
 *
 * The launching thread works too and waits only for threads that have joined the launch: one that
 * is still asleep, or was put off its processor by a neighbour before it could join, holds nobody
 * up.
 *
 * The threads' state lies in memory that the kernel empties in the child of a fork
 * (MADV_WIPEONFORK). The child has none of the threads, finds their state empty, and starts threads
 * of its own at its first launch. pthread_atfork would need a part of libc that artefacts do not
 * link.
 */
#include "internal.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Longer than a launch of a small model's kernel, shorter than anybody notices. */
enum { SPIN_NS = 20000 };
enum { STACK_BYTES = 2 << 20 };
/* `control.launch`: */
enum { OPEN = 0x10000, ACTIVE = 0xffff };

typedef struct range {
  _Alignas(64) _Atomic int64_t next;
  int64_t end;
} range;

typedef struct worker {
  pthread_t thread;
  struct control *control;
  uint32_t number;
  void *scratch;
} worker;

/* In the memory that a fork empties. Words that different threads write are a cache line apart. */
typedef struct control {
  _Atomic uint32_t busy; /* a launch is under way */
  uint32_t started;      /* threads were started; fewer where the system refused them */
  uint32_t workers;
  dl_kernel_fn function;
  const dl_frame *frame;
  uint32_t range_count, together;
  range *ranges;                       /* [threads] */
  worker *worker;                      /* [threads]; [0] is not used */
  _Alignas(64) _Atomic uint32_t epoch; /* counts launches; workers sleep on it */
  _Atomic uint32_t stop;
  _Alignas(64) _Atomic uint32_t
      launch; /* OPEN while a launch may be joined, plus how many workers have joined */
  _Atomic uint32_t waiting; /* the launching thread sleeps on `launch` */
  _Alignas(64) _Atomic uint32_t sleepers;
} control;

struct dlrt_pool {
  uint32_t threads;
  uint64_t scratch_bytes; /* of a thread, rounded up to a multiple of the alignment */
  size_t mapped_bytes;
  control *control;
  pid_t process; /* 0: the kernel empties the mapping in a child; else whose threads they are */
};

static void futex_wait(_Atomic uint32_t *word, uint32_t value) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}
static void futex_wake(_Atomic uint32_t *word, uint32_t most) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, most, NULL, NULL, 0);
}

static void pause_cpu(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

static int64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Waits a moment while a word keeps a value (in the bits of `mask`). True once it has changed. */
static bool spin(_Atomic uint32_t *word, uint32_t mask, uint32_t value) {
  for (int64_t end = 0;;) {
    for (int i = 0; i < 32; ++i) {
      if ((atomic_load_explicit(word, memory_order_acquire) & mask) != value)
        return true;
      pause_cpu();
    }
    int64_t now = now_ns();
    if (!end)
      end = now + SPIN_NS;
    else if (now >= end)
      return false;
  }
}

/* Tasks that a call takes of those left in a range: a quarter, so that calls are few and yet the last
 * ones short, when another thread comes to help. As many as the kernel wishes for, if there are;
 * all, if fewer than these would be left. */
static int64_t part_of(int64_t left, int64_t together) {
  int64_t part = left / 4 + (left % 4 != 0);
  if (part < together)
    part = together;
  return left - part < together ? left : part;
}

static void work(control *c, uint32_t number, void *scratch) {
  uint32_t count = c->range_count;
  dlrt_scratch_enter(scratch);
  for (uint32_t i = 0; i < count; ++i) {
    range *r = &c->ranges[(number + i) % count];
    int64_t begin = atomic_load_explicit(&r->next, memory_order_relaxed);
    while (begin < r->end) {
      int64_t until = begin + part_of(r->end - begin, c->together);
      if (atomic_compare_exchange_weak_explicit(&r->next, &begin, until, memory_order_relaxed,
                                                memory_order_relaxed)) {
        c->function(c->frame, begin, until, scratch);
        begin = atomic_load_explicit(&r->next, memory_order_relaxed);
      }
    }
  }
}

static void *worker_main(void *argument) {
  worker *self = argument;
  control *c = self->control;
  dlrt_float_environment_enter();
  for (uint32_t seen = 0;;) {
    while (atomic_load_explicit(&c->epoch, memory_order_acquire) == seen &&
           !spin(&c->epoch, UINT32_MAX, seen)) {
      atomic_fetch_add(&c->sleepers, 1);
      futex_wait(&c->epoch, seen);
      atomic_fetch_sub(&c->sleepers, 1);
    }
    seen = atomic_load_explicit(&c->epoch, memory_order_acquire);
    if (atomic_load_explicit(&c->stop, memory_order_acquire))
      return NULL;
    uint32_t launch = atomic_load_explicit(&c->launch, memory_order_relaxed);
    while ((launch & OPEN) &&
           !atomic_compare_exchange_weak_explicit(&c->launch, &launch, launch + 1,
                                                  memory_order_acquire, memory_order_relaxed))
      ;
    if (!(launch & OPEN))
      continue; /* came too late */
    work(c, self->number, self->scratch);
    if (atomic_fetch_sub(&c->launch, 1) == 1 && atomic_load(&c->waiting))
      futex_wake(&c->launch, 1);
  }
}

/* Starts the threads. Where the system refuses some, the pool does with those that it gave. */
static void start(dlrt_pool *pool) {
  control *c = pool->control;
  char *memory = (char *)(c + 1);
  c->ranges = (range *)memory;
  memory += pool->threads * sizeof(range);
  char *scratch = memory;
  memory += pool->threads * pool->scratch_bytes;
  c->worker = (worker *)memory;
  c->started = 1;

  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0)
    return;
  sigset_t all, saved;
  sigfillset(&all);
  /* Signals belong to the host's threads: the workers inherit a mask that blocks them all. */
  if (pthread_attr_setstacksize(&attributes, STACK_BYTES) == 0 &&
      pthread_sigmask(SIG_SETMASK, &all, &saved) == 0) {
    for (uint32_t i = 1; i < pool->threads; ++i) {
      worker *w = &c->worker[i];
      w->control = c;
      w->number = i;
      w->scratch = scratch + i * pool->scratch_bytes;
      if (pthread_create(&w->thread, &attributes, worker_main, w) != 0)
        break;
      c->workers = i;
    }
    pthread_sigmask(SIG_SETMASK, &saved, NULL);
  }
  pthread_attr_destroy(&attributes);
}

dlrt_pool *dlrt_pool_create(uint32_t threads, uint64_t scratch_bytes) {
  dlrt_pool *pool = calloc(1, sizeof *pool);
  uint64_t all_scratch, bytes;
  if (!pool)
    return NULL;
  pool->threads = threads;
  if (!dlrt_align_up(scratch_bytes, DL_BUFFER_ALIGNMENT, &pool->scratch_bytes) ||
      __builtin_mul_overflow(pool->scratch_bytes, (uint64_t)threads, &all_scratch) ||
      __builtin_add_overflow(
          all_scratch, sizeof(control) + threads * (sizeof(range) + sizeof(worker)), &bytes) ||
      bytes > PTRDIFF_MAX) {
    free(pool);
    return NULL;
  }
  pool->mapped_bytes = bytes;
  void *mapping = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) {
    free(pool);
    return NULL;
  }
  pool->control = mapping;
  pool->process = madvise(mapping, bytes, MADV_WIPEONFORK) == 0 ? 0 : getpid();
  return pool;
}

/* For kernels that do not empty the mapping in a child. */
static void notice_fork(dlrt_pool *pool) {
  if (pool->process && pool->process != getpid()) {
    memset(pool->control, 0, sizeof(control));
    pool->process = getpid();
  }
}

void dlrt_pool_release(dlrt_pool *pool) {
  if (!pool)
    return;
  notice_fork(pool);
  control *c = pool->control;
  if (c->workers) {
    atomic_store(&c->stop, 1);
    atomic_fetch_add(&c->epoch, 1);
    futex_wake(&c->epoch, INT32_MAX);
    for (uint32_t i = 1; i <= c->workers; ++i)
      pthread_join(c->worker[i].thread, NULL);
  }
  munmap(c, pool->mapped_bytes);
  free(pool);
}

bool dlrt_pool_run(dlrt_pool *pool, const dl_frame *frame, dl_kernel_fn function, int64_t tasks,
                   uint32_t together, void *scratch) {
  notice_fork(pool);
  control *c = pool->control;
  uint32_t idle = 0;
  if (!atomic_compare_exchange_strong_explicit(&c->busy, &idle, 1, memory_order_acquire,
                                               memory_order_relaxed))
    return false; /* another const call's launch */
  if (!c->started)
    start(pool);
  if (!c->workers) {
    atomic_store_explicit(&c->busy, 0, memory_order_release);
    return false;
  }
  uint32_t count = c->workers + 1 < tasks ? c->workers + 1 : (uint32_t)tasks;
  int64_t share = tasks / count, rest = tasks % count, begin = 0;
  for (uint32_t i = 0; i < count; ++i) {
    atomic_store_explicit(&c->ranges[i].next, begin, memory_order_relaxed);
    c->ranges[i].end = begin += share + (i < rest);
  }
  c->together = together;
  c->function = function;
  c->frame = frame;
  c->range_count = count;
  atomic_store_explicit(&c->launch, OPEN, memory_order_release);
  /* Sequentially consistent, as is a sleeper's count before it looks at the epoch: either it sees
   * this launch or it is seen here. */
  atomic_fetch_add(&c->epoch, 1);
  if (atomic_load(&c->sleepers))
    futex_wake(&c->epoch, count - 1);

  work(c, 0, scratch);

  /* All tasks are taken. Nobody joins any more; wait for those who have. */
  uint32_t left = atomic_fetch_and(&c->launch, ~(uint32_t)OPEN) & ACTIVE;
  while (left) {
    if (!spin(&c->launch, UINT32_MAX, left)) {
      atomic_store(&c->waiting, 1); /* before the next look: either that sees the last one leave, or
                                       it is seen by the last one */
      if ((left = atomic_load(&c->launch)))
        futex_wait(&c->launch, left);
    }
    left = atomic_load_explicit(&c->launch, memory_order_acquire);
  }
  atomic_store_explicit(&c->waiting, 0, memory_order_relaxed);
  atomic_store_explicit(&c->busy, 0, memory_order_release);
  return true;
}

uint32_t dlrt_available_threads(void) {
  /* The mask of a machine with more CPUs than fit is refused with EINVAL: take a larger one. */
  for (size_t cpus = 1024; cpus <= (1u << 20); cpus *= 4) {
    cpu_set_t *set = CPU_ALLOC(cpus);
    if (!set)
      break;
    size_t bytes = CPU_ALLOC_SIZE(cpus);
    int result = sched_getaffinity(0, bytes, set);
    int count = result == 0 ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (result == 0)
      return count > 0 ? (uint32_t)count : 1;
    if (errno != EINVAL)
      break;
  }
  return 1;
}
