/*===- internal.h - what the runtime's files share -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===*/
#ifndef DLRT_INTERNAL_H
#define DLRT_INTERNAL_H

#include "description.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- status.c ---- */

/* A failure in words. The format uses strings and integers only: their output does not depend on
 * the host's locale. */
dlrt_status dlrt_fail(dlrt_code code, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));
/* The failure of a system call on a file: "'path': cannot ACTION: DESCRIPTION". */
dlrt_status dlrt_fail_errno(int error, const char *action, const char *path) __attribute__((cold));
/* A failed allocation of `asked` bytes for something. */
dlrt_status dlrt_fail_memory(const char *what, uint64_t asked) __attribute__((cold));

/* Room for "bf16[…]" with eight dimensions of twenty characters. */
#define DLRT_TYPE_TEXT 208
/* Writes "f32[128, 784]" ("f32" for a scalar) and returns the buffer. */
const char *dlrt_type_text(char buffer[DLRT_TYPE_TEXT], uint8_t dtype, uint32_t rank,
                           const int64_t *dims);

/* ---- memory.c ---- */

/* A block of memory, aligned to DL_BUFFER_ALIGNMENT, zero at first. */
typedef struct dlrt_block {
  void *data;
  size_t bytes;        /* that may be used */
  size_t mapped_bytes; /* not 0: a mapping of its own */
  void *mapping;
} dlrt_block;

bool dlrt_block_allocate(dlrt_block *block, uint64_t bytes);
void dlrt_block_release(dlrt_block *block);

/* The next multiple of `alignment` (a power of two); false on overflow. */
bool dlrt_align_up(uint64_t value, uint64_t alignment, uint64_t *out_value);

/* ---- description.c ---- */

/* Which of bias and aux a product's epilogue uses, and which of them it writes. */
void dlrt_epilogue_buffers(uint32_t epilogue, bool *out_bias, bool *out_writes_bias, bool *out_aux,
                           bool *out_writes_aux);

/* ---- submitted calls (call.c) ---- */

/* How many calls may have been submitted and not been collected. */
#define DLRT_TICKETS 2

/* A submitted call, until it is collected. */
typedef struct dlrt_ticket {
  uint64_t number;   /* what the caller holds; 0: free */
  uint32_t function; /* in the blob */
  uint32_t result_count;
  dlrt_tensor *results; /* [model->max_results] type, shape, bytes, and where the elements are */
  dlrt_block memory;    /* room for them, one behind the other */
  bool in_memory;       /* they are there; else in pinned memory, which the next calls need */
  dlrt_status failure;  /* NULL: none that is known */
  bool held_back;       /* not run: the failure is an earlier call's */
} dlrt_ticket;

/* Moves a ticket's results to its own memory. */
void dlrt_ticket_keep(dlrt_ticket *ticket);
/* The failure of a submitted call that has not been collected, the first one's; NULL: none. */
dlrt_status dlrt_failure_ahead(const dlrt_ticket tickets[DLRT_TICKETS]);
/* Notes that a submitted call was not run because of that failure, which stays its owner's. */
void dlrt_ticket_hold_back(dlrt_ticket *ticket, dlrt_status failure);
/* The same for any call: one without a ticket (NULL) is told by the status. */
dlrt_status dlrt_hold_back(const dlrt_model *model, uint32_t function, dlrt_ticket *ticket,
                           dlrt_status failure);

/* ---- the half for GPUs ---- */

/* An instance's part on a GPU: its variables there, and what calls need. */
typedef struct dlrt_gpu dlrt_gpu;

/* Who hears what functions print. */
typedef struct dlrt_log {
  dlrt_log_fn write; /* NULL: nobody */
  void *user;
} dlrt_log;

/* A call whose arguments and results have been checked. */
typedef struct dlrt_gpu_call {
  uint32_t function; /* in the blob */
  uint32_t exported; /* as users count them */
  const dlrt_binding *binding;
  const dlrt_tensor *arguments; /* one that takes its default: see dlrt_takes_default */
  uint32_t argument_count;
  const dlrt_tensor *results; /* NULL data: not asked for */
  uint32_t result_count;
  dlrt_ticket *ticket;        /* NULL: results go to the caller's memory before the call returns */
  const dlrt_ticket *tickets; /* [DLRT_TICKETS] the instance's */
  dlrt_profile_fn profile;
  void *profile_user;
  const dlrt_log *log;
} dlrt_gpu_call;

/* What the rest of the runtime knows of that half. It is reached through pointers alone
 * (dl_model.cuda, or dlrt_model_open's own reference), so that it is linked only where it is of
 * use. */
typedef struct dlrt_gpu_half {
  uint32_t abi_version, size;
  /* Opens a GPU for a model. Variables are zero. */
  dlrt_status (*open)(const dlrt_model *model, uint32_t ordinal, uint64_t memory_limit,
                      dlrt_gpu **out_gpu);
  void (*release)(dlrt_gpu *gpu);
  const char *(*name)(const dlrt_gpu *gpu); /* "cuda:0 (NVIDIA H100)" */
  /* Bytes of the variables, which lie as they do on the host. */
  dlrt_status (*read)(dlrt_gpu *gpu, uint64_t offset, void *data, uint64_t bytes);
  dlrt_status (*write)(dlrt_gpu *gpu, uint64_t offset, const void *data, uint64_t bytes);
  dlrt_status (*call)(dlrt_gpu *gpu, const dlrt_gpu_call *call);
  /* Waits for a submitted call and lets go of its ticket. Its own failure goes to the ticket; where
   * the device was lost, the status may say so. The results stay in place until the next call. */
  dlrt_status (*collect)(dlrt_gpu *gpu, dlrt_ticket *ticket);
  dlrt_status (*synchronize)(dlrt_gpu *gpu);
  uint64_t (*arena_bytes)(dlrt_gpu *gpu);
} dlrt_gpu_half;

/* ---- model.c ---- */

struct dlrt_model {
  _Atomic uint32_t references;
  const dl_blob *blob;
  const dl_entry_fn
      *entries; /* in the order of the blob's functions; NULL where only the description was read */
  const dl_entry_fn *preparations; /* likewise; NULL where no function has any */
  void *owned_blob; /* the copy that `blob` points to, or NULL */
  void *library;    /* of dlopen, or NULL */
  int file;         /* the library's open file, or -1 */

  uint32_t exported_count; /* functions that users see … */
  uint32_t *exported;      /* … and their numbers in the blob */
  uint32_t init;           /* number of the init function in the blob, or UINT32_MAX */
  uint32_t random_seed;    /* variables, or UINT32_MAX */
  uint32_t random_calls;
  uint32_t *variables_by_name; /* sorted, for lookup */
  uint64_t *variable_offsets;  /* in an instance's block */
  uint64_t variable_bytes;     /* of that block */

  uint32_t max_arguments, max_results, max_buffers;
  uint64_t scratch_bytes; /* the most that any function asks for */

  uint32_t *first_value;  /* for each function of the blob: where its arguments, then its results,
                             begin in … */
  const char **shapes;    /* … the shapes as text */
  uint32_t *first_kernel; /* likewise for kernels: */
  const char **kernel_names; /* "name (file:line)" */
  uint32_t *first_launch;    /* likewise for launches of the GPU program: */
  const char **launch_names;
  char *texts; /* the memory behind all three */

  const dlrt_gpu_half *gpu_half; /* NULL: not linked */
};

static inline const void *dlrt_at(const dl_blob *blob, dl_ref ref) {
  return (const char *)blob + ref;
}
static inline const char *dlrt_string(const dl_blob *blob, dl_ref ref) {
  return ref ? (const char *)blob + ref : "";
}
static inline const dl_function_desc *dlrt_functions(const dl_blob *blob) {
  return (const dl_function_desc *)dlrt_at(blob, blob->functions);
}
static inline const dl_variable_desc *dlrt_variables(const dl_blob *blob) {
  return (const dl_variable_desc *)dlrt_at(blob, blob->variables);
}
static inline const dl_size *dlrt_value_dim(const dl_blob *blob, const dl_value_desc *value,
                                            uint32_t dim) {
  return (const dl_size *)dlrt_at(blob, ((const dl_ref *)dlrt_at(blob, value->dims))[dim]);
}

/* NULL: no program for a GPU. */
static inline const dl_cuda_function_desc *dlrt_cuda_function(const dl_blob *blob,
                                                              uint32_t function) {
  dl_ref ref = dlrt_functions(blob)[function].cuda;
  return ref ? (const dl_cuda_function_desc *)dlrt_at(blob, ref) : NULL;
}
/* NULL: the function prints nothing. */
static inline const dl_log_table *dlrt_log_table(const dl_blob *blob,
                                                 const dl_function_desc *function) {
  return function->logs ? (const dl_log_table *)dlrt_at(blob, function->logs) : NULL;
}
/* The results that a function's caller sees. */
static inline uint32_t dlrt_shown_results(const dl_blob *blob, const dl_function_desc *function) {
  const dl_log_table *table = dlrt_log_table(blob, function);
  return function->result_count - (table ? table->value_count : 0);
}
static inline bool dlrt_has_cpu_code(const dl_blob *blob) {
  return !(blob->flags & DL_BLOB_WITHOUT_CPU);
}

/* Makes a model of a description, which it checks. The model takes nothing over: blob must outlive
 * it or become its owned_blob. */
dlrt_status dlrt_model_create(const dl_blob *blob, size_t bytes, dlrt_model **out_model);
/* Looks at what a query symbol answered before anything in it is used. */
dlrt_status dlrt_model_check_answer(const dl_model *answer);
/* Whether there is code for what a checked description promises. */
dlrt_status dlrt_model_check_code(const dl_model *answer);
/* Takes that code over. */
void dlrt_model_take_code(dlrt_model *model, const dl_model *answer);
/* Puts a file's name before a refusal. */
dlrt_status dlrt_with_path(const char *path, dlrt_status status);
/* The model's variable of a name, or UINT32_MAX. */
uint32_t dlrt_variable_number(const dlrt_model *model, const char *name);
void dlrt_model_retain(dlrt_model *model);

/* ---- elf.c ---- */

/* Reads the description out of an ELF file's note into memory of its own (8-byte aligned, for
 * free()). With `for_loading`, the file must also be a whole shared object. The description itself
 * is not looked at. */
dlrt_status dlrt_note_read(int file, const char *path, bool for_loading, void **out_data,
                           size_t *out_bytes);
/* Reads exactly `bytes` bytes at an offset. */
dlrt_status dlrt_read_at(int file, const char *path, void *data, uint64_t bytes, uint64_t offset);

/* ---- sizes.c ---- */

/* Bytes of a dense tensor; false on overflow or a negative dimension. */
bool dlrt_tensor_bytes(uint8_t dtype, uint32_t rank, const int64_t *dims, uint64_t *out_bytes);
/* Writes a size program as an expression ("N", "2 * N + 1", "?" where it is too long); returns the
 * buffer. */
#define DLRT_SIZE_TEXT 160
const char *dlrt_size_text(char buffer[DLRT_SIZE_TEXT], const dl_blob *blob, const dl_size *size);
/* Writes a default value as an element; every dtype rounds to nearest even, whatever the caller's
 * rounding mode. */
void dlrt_store_scalar(uint8_t dtype, double value, void *out_element);

/* ---- pool.c ---- */

typedef struct dlrt_pool dlrt_pool;

/* A pool for launches on `threads` threads, the calling one included; its threads start at the
 * first launch. NULL: out of memory. */
dlrt_pool *dlrt_pool_create(uint32_t threads, uint64_t scratch_bytes);
/* Joins the threads. */
void dlrt_pool_release(dlrt_pool *pool);
/* Runs a launch; `together`: dl_kernel_desc.together. False where nothing has run: the pool is busy
 * with another launch or has no threads. */
bool dlrt_pool_run(dlrt_pool *pool, const dl_frame *frame, dl_kernel_fn function, int64_t tasks,
                   uint32_t together, void *scratch);
/* What a worker's scratch memory begins with when it enters a launch (dl_kernel_fn). */
static inline void dlrt_scratch_enter(void *scratch) { *(int64_t *)scratch = -1; }
/* CPUs that this process may run on. */
uint32_t dlrt_available_threads(void);

/* Generated code's floating-point environment: round to nearest, denormals kept, exceptions masked.
 */
static inline uint32_t dlrt_float_environment_enter(void) {
  uint32_t saved = 0;
#if defined(__x86_64__)
  uint32_t standard = 0x1f80;
  __asm__ volatile("stmxcsr %0" : "=m"(saved)::"memory");
  __asm__ volatile("ldmxcsr %0" ::"m"(standard) : "memory");
#endif
  return saved;
}
static inline void dlrt_float_environment_leave(uint32_t saved) {
#if defined(__x86_64__)
  __asm__ volatile("ldmxcsr %0" ::"m"(saved) : "memory");
#else
  (void)saved;
#endif
}

/* ---- plan.c ---- */

/* Shapes of one function whose plans a context remembers. */
#define DLRT_PLANS_PER_FUNCTION 8

/* Where everything lies for one function, one binding of the dimensions and one choice of results
 * that the caller takes. */
typedef struct dlrt_plan {
  uint64_t used;          /* the context's clock at its last use; 0: nothing in it */
  uint64_t arena_results; /* bit i: result i lies in the arena (results beyond 63 always have a
                             place there) */
  uint64_t arena_bytes, prepared_bytes;
  dlrt_binding binding;
  uint64_t *offsets; /* [buffer_count] in the arena or among what is prepared, for what is there */
  uint64_t *bytes;   /* [buffer_count] workspace of planning, as the rest */
  uint32_t *first, *last, *order, *which;
} dlrt_plan;

/* A plan with nothing in it, for free(). NULL: out of memory. */
dlrt_plan *dlrt_plan_allocate(uint32_t buffer_count);
/* Fills in offsets and the arena's size for the plan's binding and results; `buffers` are the
 * function's for the CPU or for a GPU. Sizes of what is not in the arena are checked against what
 * is really there. */
dlrt_status dlrt_plan_make(const dlrt_model *model, uint32_t function,
                           const dl_buffer_desc *buffers, uint32_t buffer_count, dlrt_plan *plan);
struct dlrt_instance;

/* What one call at a time needs. The instance's own context serves all calls except const ones that
 * overlap in time. */
typedef struct dlrt_context {
  struct dlrt_context *next;
  _Atomic uint32_t busy;
  uint64_t clock;
  dlrt_block arena;
  dlrt_block scratch; /* of the calling thread */
  void **buffers;     /* [model->max_buffers] dl_frame.buffers */
  uint64_t *defaults; /* [model->max_arguments] elements of arguments left out */
  dlrt_plan **plans;  /* [function_count][DLRT_PLANS_PER_FUNCTION] */
} dlrt_context;

/* The plan for a call, from memory or made now; makes sure that the context's arena is large
 * enough. */
dlrt_status dlrt_plan_find(struct dlrt_instance *instance, dlrt_context *context, uint32_t function,
                           const dlrt_binding *binding, uint64_t arena_results,
                           const dlrt_plan **out_plan);

/* Whether `bytes` for `what` of a function keep to the instance's memory limit, if `held` of what
 * is counted go back first. */
dlrt_status dlrt_check_limit(const struct dlrt_instance *instance, const char *what,
                             uint32_t function, uint64_t bytes, uint64_t held);

/* ---- prepare.c ---- */

/* What a function makes of variables, for all of its calls. */
typedef struct dlrt_prepared {
  dlrt_block memory; /* empty before its first call; counted with the arenas */
  uint64_t changes;  /* of the instance, when it was made; 0: never */
} dlrt_prepared;

bool dlrt_preparations_create(struct dlrt_instance *instance);
void dlrt_preparations_release(struct dlrt_instance *instance);
/* Places the prepared buffers of a call, which is inside and whose other buffers are placed, and
 * makes what they hold if it is not of the variables as they are now. */
dlrt_status dlrt_prepare(struct dlrt_instance *instance, uint32_t function, const dlrt_plan *plan,
                         void **buffers, const dl_frame *frame);

/* ---- log.c ---- */

/* Where a result of the function lies, or NULL. */
typedef const void *(*dlrt_log_value_fn)(const void *context, uint32_t result);
/* Hands the messages of a call that has gone well to the log, which knows the function as
 * `exported`. */
void dlrt_log_write(const dlrt_model *model, uint32_t function, const dlrt_binding *binding,
                    dlrt_log_value_fn value, const void *context, const dlrt_log *log,
                    uint32_t exported);

/* ---- instance.c ---- */

struct dlrt_instance {
  dlrt_model *model;
  uint32_t threads;
  uint64_t memory_limit;            /* UINT64_MAX: none */
  dlrt_block variables;             /* empty on a GPU, except while they are initialised */
  dlrt_gpu *gpu;                    /* NULL: runs on the processor */
  char device[512];                 /* what it runs on, in words */
  dlrt_pool *pool;                  /* NULL: one thread */
  _Atomic int32_t users;            /* calls inside: n const ones, or -1 for one that is not */
  _Atomic uint64_t arena_bytes;     /* of all contexts, what is prepared, and what tickets keep */
  uint64_t changes;                 /* of variables, so far and 1 more; counted by who is alone */
  pthread_mutex_t preparing;        /* held by who looks at `prepared` */
  dlrt_prepared *prepared;          /* [function_count] */
  _Atomic(dlrt_context *) contexts; /* never NULL; only grows at its front */
  dlrt_ticket tickets[DLRT_TICKETS];
  uint64_t last_ticket;
  dlrt_profile_fn profile;
  void *profile_user;
  dlrt_log log;
};

/* Says, by who is alone inside, that variables have other values. */
static inline void dlrt_variables_changed(dlrt_instance *instance) { ++instance->changes; }
static inline void *dlrt_variable_data(const dlrt_instance *instance, uint32_t variable) {
  return (char *)instance->variables.data + instance->model->variable_offsets[variable];
}

/* Enters an instance, alone or beside others that only read it. The refusal is in words. */
dlrt_status dlrt_instance_enter(const dlrt_instance *instance, bool exclusive);
void dlrt_instance_leave(const dlrt_instance *instance, bool exclusive);
/* A context that nobody else uses, and back. */
dlrt_status dlrt_context_acquire(dlrt_instance *instance, dlrt_context **out_context);
void dlrt_context_release(dlrt_context *context);

/* ---- call.c ---- */

/* An argument that takes its default: left out at the end, or NULL where data counts. */
static inline bool dlrt_takes_default(const dl_value_desc *desc, const dlrt_tensor *arguments,
                                      uint32_t count, uint32_t i, bool with_data) {
  return desc->has_default && (i >= count || !with_data || !arguments[i].data);
}
/* A fault in words, {index} and {value} filled in. */
dlrt_status dlrt_fault_status(const dlrt_model *model, uint32_t function, const dl_fault *fault);

/* Runs a function of the blob inside an instance that has been entered. */
dlrt_status dlrt_run(dlrt_instance *instance, uint32_t function, const dlrt_tensor *arguments,
                     uint32_t argument_count, dlrt_tensor *results, uint32_t result_count);

#endif
