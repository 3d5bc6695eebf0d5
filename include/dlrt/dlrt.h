/*===- dlrt.h - load and run compiled models -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * The runtime's C API (C11 and C++17). A *model* is a compiled program: immutable, shared by any number of threads. An
 * *instance* has variables, an arena and a thread pool of its own; one thread at a time may use it, except for functions
 * marked const (dlrt_function_info.is_const) between which no other call is made; different instances are independent.
 *
 * Ownership: what a `create`, `open` or `attach` returns is the caller's and goes back with the matching `release`; release of NULL does nothing.
 * Pointers returned by `info` functions live as long as the model. No function keeps a pointer given to it.
 *
 * Devices: an instance runs on the processor or on a GPU; on a GPU its variables stay there. There a call that asks for no result's data may return
 * before the GPU is done: what goes wrong later is the failure of the next call, of dlrt_instance_synchronize, or of whatever else looks at the variables first.
 * A call that is submitted does not wait for its results either; they, or what went wrong, are there when it is collected.
 *
 * Errors: every function that can fail returns a dlrt_status: NULL on success, else an object with a code and words, to be released
 * by the caller. Nothing is written to stderr. A failed call leaves variables and files as they were.
 */
#ifndef DLRT_DLRT_H
#define DLRT_DLRT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum dlrt_code {
  DLRT_OK = 0,
  DLRT_INVALID_ARGUMENT = 1, /* wrong name, type, shape, NULL, missing */
  DLRT_NOT_FOUND = 2,        /* no such function, variable, file */
  DLRT_INCOMPATIBLE = 3,     /* not an artefact, other ABI version, the processor lacks features, checkpoint of another model */
  DLRT_OUT_OF_MEMORY = 4,    /* says asked and available */
  DLRT_IO = 5,               /* the operating system refused; says which file and why */
  DLRT_CORRUPT = 6,          /* a truncated or damaged file */
  DLRT_FAULT = 7,            /* the program itself met a bad value, e.g. a label outside its classes */
  DLRT_INTERRUPTED = 8,
  DLRT_DEVICE = 9            /* no GPU, or it cannot run this model, or it was lost; says which and why */
} dlrt_code;

typedef struct dlrt_status_object *dlrt_status; /* NULL: success */

#if defined(__GNUC__)
#define DLRT_MUST_USE __attribute__((warn_unused_result))
#else
#define DLRT_MUST_USE
#endif
#ifndef DLRT_EXPORT
#define DLRT_EXPORT
#endif

DLRT_EXPORT dlrt_code dlrt_status_code(dlrt_status status);
DLRT_EXPORT const char *dlrt_status_message(dlrt_status status); /* "" for NULL; lives until the status is released */
DLRT_EXPORT void dlrt_status_release(dlrt_status status);

/* Same numbers as dl_dtype in model_abi.h. */
typedef enum dlrt_dtype {
  DLRT_BOOL = 0, DLRT_U8 = 1, DLRT_I8 = 2, DLRT_I16 = 3, DLRT_I32 = 4, DLRT_I64 = 5, DLRT_F16 = 6, DLRT_BF16 = 7, DLRT_F32 = 8, DLRT_F64 = 9
} dlrt_dtype;

DLRT_EXPORT size_t dlrt_dtype_bytes(dlrt_dtype dtype);     /* 0 for an unknown one */
DLRT_EXPORT const char *dlrt_dtype_name(dlrt_dtype dtype); /* "f32", …; NULL for an unknown one */

#define DLRT_MAX_RANK 8

/* A dense row-major tensor in the caller's memory. As an argument, data is read only. As a result, dlrt_call writes dtype, rank and dims and, if data is not
 * NULL, the elements; `bytes` then says how much room there is, and a too small one is an error that names the size needed. */
typedef struct dlrt_tensor {
  void *data;
  size_t bytes;
  int64_t dims[DLRT_MAX_RANK];
  uint8_t rank;
  uint8_t dtype; /* dlrt_dtype */
  uint8_t reserved[6];
} dlrt_tensor;

typedef struct dlrt_model dlrt_model;
typedef struct dlrt_instance dlrt_instance;
struct dl_model;

/* Opens an artefact. Its ELF note is read and checked before any of its code is loaded. */
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_model_open(const char *path, dlrt_model **out_model);
/* Takes a model that is linked into this program: the answer of its query symbol. */
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_model_attach(const struct dl_model *linked, dlrt_model **out_model);
/* Reads the description alone: nothing of the file is loaded or run, and instances can't be made of it. */
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_model_inspect(const char *path, dlrt_model **out_model);
/* The model lives on until its last instance is released. */
DLRT_EXPORT void dlrt_model_release(dlrt_model *model);

typedef struct dlrt_model_info {
  const char *name, *doc, *compiler, *triple, *cpu, *features; /* features: "avx2,fma,…" */
  uint32_t abi_version;
  uint32_t dim_count, variable_count, function_count; /* functions: exported ones only */
  const char *targets;                                /* what the functions were compiled for: "cpu", "cuda" or "cpu,cuda" */
  uint32_t image_count, gpu_kernel_count;
} dlrt_model_info;

typedef struct dlrt_variable_info {
  const char *name; /* dotted path: net.0.weight */
  const char *doc;
  dlrt_dtype dtype;
  uint32_t kind; /* dl_variable_kind: 0 trained, 1 state, 2 optimizer's state, 3 random state */
  uint32_t rank;
  int64_t dims[DLRT_MAX_RANK];
  size_t bytes;
} dlrt_variable_info;

typedef struct dlrt_value_info {
  const char *name;
  dlrt_dtype dtype;
  uint32_t rank;
  int64_t dims[DLRT_MAX_RANK]; /* -1 where it depends on dynamic dimensions */
  const char *shape; /* as text: "[N, 784]", "" for a scalar; lives as long as the model */
  int has_default;
  double default_value;
} dlrt_value_info;

typedef struct dlrt_function_info {
  const char *name, *doc;
  uint32_t argument_count, result_count, kernel_count; /* kernels: of the CPU code */
  int is_const, is_train;
  uint32_t launch_count; /* of the GPU program */
} dlrt_function_info;

/* The kernels of a GPU program, assembled or as PTX. */
typedef struct dlrt_image_info {
  int is_ptx;    /* text for this architecture and all later ones; else machine code */
  uint32_t arch; /* compute capability times ten: 90 */
  size_t bytes;
} dlrt_image_info;

typedef struct dlrt_kernel_resources {
  uint32_t arch;         /* of the machine code */
  uint32_t registers;    /* of a thread */
  uint32_t shared_bytes; /* of a block, static */
  uint32_t local_bytes;  /* of a thread: stack and spills */
} dlrt_kernel_resources;

typedef struct dlrt_gpu_kernel_info {
  const char *symbol;
  uint32_t threads;      /* of a block */
  uint32_t shared_bytes; /* of a block, dynamic */
  uint32_t resource_count;
  const dlrt_kernel_resources *resources; /* for each architecture with machine code */
} dlrt_gpu_kernel_info;

typedef struct dlrt_launch_info {
  const char *name, *location; /* location: "file:line" */
  uint32_t kernel;             /* number of the GPU kernel; UINT32_MAX: a matrix product of cuBLASLt, or a loop or branch */
  uint32_t when;               /* 0: always, 1: where cuBLASLt is used, 2: where it is not */
  uint32_t inner;              /* of a loop or branch: how many of the launches after it are inside; else 0 */
} dlrt_launch_info;

DLRT_EXPORT void dlrt_model_get_info(const dlrt_model *model, dlrt_model_info *out_info);
DLRT_EXPORT const char *dlrt_model_dim_name(const dlrt_model *model, uint32_t dim); /* NULL beyond the last */
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_model_get_variable(const dlrt_model *model, uint32_t variable, dlrt_variable_info *out_info);
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_model_find_variable(const dlrt_model *model, const char *name, uint32_t *out_variable);
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_model_get_function(const dlrt_model *model, uint32_t function, dlrt_function_info *out_info);
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_model_find_function(const dlrt_model *model, const char *name, uint32_t *out_function);
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_function_get_argument(const dlrt_model *model, uint32_t function, uint32_t argument, dlrt_value_info *out_info);
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_function_get_result(const dlrt_model *model, uint32_t function, uint32_t result, dlrt_value_info *out_info);
/* "name (file:line)" of a kernel of the CPU code; NULL beyond the last. */
DLRT_EXPORT const char *dlrt_function_kernel_name(const dlrt_model *model, uint32_t function, uint32_t kernel);
/* The GPU program. */
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_model_get_image(const dlrt_model *model, uint32_t image, dlrt_image_info *out_info);
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_model_get_gpu_kernel(const dlrt_model *model, uint32_t kernel, dlrt_gpu_kernel_info *out_info);
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_function_get_launch(const dlrt_model *model, uint32_t function, uint32_t launch, dlrt_launch_info *out_info);

typedef enum dlrt_device {
  DLRT_DEVICE_AUTO = 0, /* a GPU where the model has a program for it and one is there, else the processor */
  DLRT_DEVICE_CPU = 1,
  DLRT_DEVICE_CUDA = 2
} dlrt_device;

typedef struct dlrt_options {
  uint32_t size;        /* sizeof(dlrt_options) */
  uint32_t threads;     /* 0: as many as the process may use */
  uint64_t seed;        /* variables are initialised from it */
  size_t memory_limit;  /* bytes that variables and arena may take; 0: no limit */
  uint32_t device;      /* dlrt_device */
  uint32_t ordinal;     /* which GPU, from 0 */
} dlrt_options;

/* NULL options: defaults. Variables have their initial values for the seed. */
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_instance_create(dlrt_model *model, const dlrt_options *options, dlrt_instance **out_instance);
DLRT_EXPORT void dlrt_instance_release(dlrt_instance *instance);
/* Sets every variable to its initial value for a seed. */
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_instance_initialize(dlrt_instance *instance, uint64_t seed);

/* Calls a function. Arguments in the order of the signature; one that has a default may be left out at the end or have NULL data. The shapes of arguments bind the
 * model's dynamic dimensions. After the first call of a shape, a call allocates nothing. */
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_call(dlrt_instance *instance, uint32_t function, const dlrt_tensor *arguments, uint32_t argument_count, dlrt_tensor *results,
                                                uint32_t result_count);
/* A call in two halves, so that its caller can get the next one ready meanwhile. dlrt_submit takes the arguments over, which are the caller's again when it returns, and
 * gives a ticket, never 0; the first result_count results are kept until dlrt_collect waits for the call, writes them as dlrt_call does, and ends the ticket. On a
 * GPU the call runs between the two, behind what was called before; on the processor dlrt_submit runs it.
 *
 * Two calls at most are submitted and not collected; a third is refused. Tickets are collected in any order; with result_count 0 no result is copied. Other
 * calls may come in between: all run in the order in which they were called. Releasing the instance ends all tickets.
 *
 * dlrt_submit refuses what dlrt_call refuses before anything runs, and then gives no ticket. A fault while the call runs is its dlrt_collect's status, and nobody
 * else's. From then on until it and what was submitted behind it are collected, no other call runs: dlrt_call says so, and a call that was submitted says so when it is
 * collected. Of a lost device everything tells. Where dlrt_collect refuses its own arguments (too little room), the ticket stays good.
 *
 * Threads: both are as calls of functions that are not const. Between the two halves the instance is free. */
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_submit(dlrt_instance *instance, uint32_t function, const dlrt_tensor *arguments, uint32_t argument_count,
                                                  uint32_t result_count, uint64_t *out_ticket);
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_collect(dlrt_instance *instance, uint64_t ticket, dlrt_tensor *results, uint32_t result_count);
/* Shapes of the results for arguments of these shapes (data is not looked at); allocates and runs nothing. */
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_result_shapes(const dlrt_model *model, uint32_t function, const dlrt_tensor *arguments, uint32_t argument_count,
                                                         dlrt_tensor *results, uint32_t result_count);

/* Waits until everything that was called has been done, and tells whether it went well, except for calls that have a ticket. */
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_instance_synchronize(dlrt_instance *instance);

/* What the instance runs on, and why: "cuda:0 (NVIDIA H100 80GB HBM3)", "cpu: no driver: …". Lives as long as the instance. */
DLRT_EXPORT const char *dlrt_instance_device(const dlrt_instance *instance);

/* Bytes of the variables, and of the arena as it is now; on the processor with what const functions have prepared of variables, and with the results of submitted calls. */
DLRT_EXPORT size_t dlrt_instance_variable_bytes(const dlrt_instance *instance);
DLRT_EXPORT size_t dlrt_instance_arena_bytes(const dlrt_instance *instance);
DLRT_EXPORT uint32_t dlrt_instance_threads(const dlrt_instance *instance);

/* Reads or writes a whole variable; `bytes` must be its size. */
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_variable_read(const dlrt_instance *instance, uint32_t variable, void *data, size_t bytes);
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_variable_write(dlrt_instance *instance, uint32_t variable, const void *data, size_t bytes);

/* Checkpoints are safetensors files: one tensor per variable under its path, in the model's order, the model's name in the metadata. Saving writes
 * a temporary file beside the target, syncs it and renames it: the old file stays whole until the new one is. Loading checks everything first
 * and then replaces all variables, or none. */
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_instance_save(const dlrt_instance *instance, const char *path);
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_instance_load(dlrt_instance *instance, const char *path);

/* Called around every launch, on the calling thread, when set: begin with ns = -1, end with the nanoseconds it took. NULL switches it off. On a GPU, launches are
 * timed on the GPU, one by one instead of as a graph, and told of when the call is done; tasks are blocks there. */
typedef void (*dlrt_profile_fn)(void *user, uint32_t function, uint32_t kernel, int64_t tasks, int64_t ns);
DLRT_EXPORT void dlrt_instance_set_profile(dlrt_instance *instance, dlrt_profile_fn profile, void *user);
/* "name (file:line)" of what the profile calls `kernel`: a kernel of the CPU code, or a launch of the GPU program, as the instance runs one or the other. NULL beyond
 * the last. Lives as long as the model. */
DLRT_EXPORT const char *dlrt_instance_kernel_name(const dlrt_instance *instance, uint32_t function, uint32_t kernel);

/* What one launch of that kernel asks for with arguments of these shapes (data is looked at only where it is a size): operations on floating-point numbers, a multiply-add being two, and the
 * bytes of each operand and each result once. Operands that are packed, partial sums and what is computed again don't count. */
typedef struct dlrt_kernel_work {
  int is_known; /* 0: it is code of the user's own, or another kernel's work counts it */
  int64_t operations, read_bytes, written_bytes;
  dlrt_dtype dtype; /* DLRT_F32 or DLRT_F64: what it computes in */
} dlrt_kernel_work;
DLRT_EXPORT DLRT_MUST_USE dlrt_status dlrt_instance_kernel_work(const dlrt_instance *instance, uint32_t function, uint32_t kernel, const dlrt_tensor *arguments,
                                                                uint32_t argument_count, dlrt_kernel_work *out_work);

/* Called for each message that a function prints, in order, on the calling thread, when its call has gone well; a call that fails prints nothing. The message is UTF-8, has
 * no line's end of its own and lives until the hook returns. The hook must not use the instance. NULL, the default, switches it off: then nothing is printed. On a GPU a call
 * of a function that prints waits for its end while a hook is set. Overlapping calls of const functions call the hook at the same time. */
typedef void (*dlrt_log_fn)(void *user, uint32_t function, const char *message);
DLRT_EXPORT void dlrt_instance_set_log(dlrt_instance *instance, dlrt_log_fn log, void *user);

/* The functions above as a table: what an artefact that holds the runtime offers (dl_model.runtime). Grows at its end only. */
typedef struct dlrt_api {
  uint32_t abi_version, size;
  dlrt_code (*status_code)(dlrt_status);
  const char *(*status_message)(dlrt_status);
  void (*status_release)(dlrt_status);
  dlrt_status (*model_attach)(const struct dl_model *, dlrt_model **);
  void (*model_release)(dlrt_model *);
  dlrt_status (*model_get_variable)(const dlrt_model *, uint32_t, dlrt_variable_info *);
  dlrt_status (*model_find_variable)(const dlrt_model *, const char *, uint32_t *);
  dlrt_status (*instance_create)(dlrt_model *, const dlrt_options *, dlrt_instance **);
  void (*instance_release)(dlrt_instance *);
  dlrt_status (*instance_initialize)(dlrt_instance *, uint64_t);
  dlrt_status (*call)(dlrt_instance *, uint32_t, const dlrt_tensor *, uint32_t, dlrt_tensor *, uint32_t);
  dlrt_status (*variable_read)(const dlrt_instance *, uint32_t, void *, size_t);
  dlrt_status (*variable_write)(dlrt_instance *, uint32_t, const void *, size_t);
  dlrt_status (*instance_save)(const dlrt_instance *, const char *);
  dlrt_status (*instance_load)(dlrt_instance *, const char *);
  uint32_t (*instance_threads)(const dlrt_instance *);
  size_t (*instance_variable_bytes)(const dlrt_instance *);
  size_t (*instance_arena_bytes)(const dlrt_instance *);
  dlrt_status (*instance_synchronize)(dlrt_instance *);
  const char *(*instance_device)(const dlrt_instance *);
  dlrt_status (*submit)(dlrt_instance *, uint32_t, const dlrt_tensor *, uint32_t, uint32_t, uint64_t *);
  dlrt_status (*collect)(dlrt_instance *, uint64_t, dlrt_tensor *, uint32_t);
  void (*instance_set_log)(dlrt_instance *, dlrt_log_fn, void *);
} dlrt_api;
extern const dlrt_api dlrt_runtime_api;

/* The half of the runtime that runs GPU programs: linked into artefacts that have one (dl_model.cuda), and into programs that open artefacts. */
extern const struct dlrt_gpu_half dlrt_cuda_half;

#ifdef __cplusplus
}
#endif
#endif
