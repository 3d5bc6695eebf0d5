/*===- model_abi.h - the seam between generated code and the runtime -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * The one contract between a compiled model and the runtime; it stands alone, without any other header of the project.
 *
 * A compiled model consists of
 *  - a *description* (dl_blob): position independent, little endian, offsets instead of pointers. It lies in an ELF note
 *    (name DL_NOTE_NAME, type DL_NOTE_TYPE) so that it can be read, and refused, before any code of the file runs;
 *  - *code*: one entry per function, and for some a preparation, found through the query symbol that the description names.
 * Generated code calls nothing but the functions of dl_host, which the runtime hands to it in every frame (and libm's
 * scalar functions); it keeps no state of its own.
 *
 * Rules of the description: every dl_ref is a byte offset from the blob's first byte, 0 means "none"; structures lie at
 * multiples of 8 bytes; strings end in NUL; arrays are contiguous. A reader validates every offset before it follows it.
 */
#ifndef DLRT_MODEL_ABI_H
#define DLRT_MODEL_ABI_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DL_ABI_VERSION 5u
#define DL_NOTE_NAME "dlc"
#define DL_NOTE_TYPE 1u
#define DL_BLOB_MAGIC "DLMODEL" /* with its NUL: 8 bytes */
#define DL_MAX_RANK 8
#define DL_MAX_DIMS 16 /* dynamic dimensions of a model */
#define DL_BUFFER_ALIGNMENT 64

/* Element types. The numbers are part of the ABI; sizes in bytes are dl_dtype_bytes' business. */
typedef enum dl_dtype {
  DL_BOOL = 0, DL_U8 = 1, DL_I8 = 2, DL_I16 = 3, DL_I32 = 4, DL_I64 = 5, DL_F16 = 6, DL_BF16 = 7, DL_F32 = 8, DL_F64 = 9,
  DL_DTYPE_COUNT = 10
} dl_dtype;

typedef uint32_t dl_ref; /* byte offset from the blob's start; 0: none */

/* A size: a postfix program over int64 values; it leaves exactly one value. Operands follow their opcode in the code array.
 * Evaluation is exact: an overflow is an error of the call. Static sizes are {DL_SIZE_CONST, n}. */
typedef enum dl_size_op {
  DL_SIZE_CONST = 0,    /* push the following word */
  DL_SIZE_DIM = 1,      /* push dynamic dimension number <following word> */
  DL_SIZE_ADD = 2,
  DL_SIZE_MUL = 3,
  DL_SIZE_FLOORDIV = 4,
  DL_SIZE_CEILDIV = 5,
  DL_SIZE_MOD = 6,
  DL_SIZE_EQ = 7,       /* comparisons push 1 or 0 */
  DL_SIZE_NE = 8,
  DL_SIZE_LT = 9,
  DL_SIZE_LE = 10,
  DL_SIZE_AND = 11,
  DL_SIZE_OR = 12,
  DL_SIZE_NOT = 13
} dl_size_op;

typedef struct dl_size {
  uint32_t count; /* words of code */
  uint32_t reserved;
  int64_t code[1]; /* [count] */
} dl_size;

typedef enum dl_variable_kind {
  DL_VARIABLE_TRAINED = 0, /* var */
  DL_VARIABLE_STATE = 1,   /* state of the model */
  DL_VARIABLE_SLOT = 2,    /* state of an optimizer, its settings included */
  DL_VARIABLE_RANDOM = 3   /* random.seed, random.calls (i64) */
} dl_variable_kind;

typedef struct dl_variable_desc {
  dl_ref name; /* dotted path */
  dl_ref doc;
  uint8_t dtype;
  uint8_t rank;
  uint8_t kind;
  uint8_t reserved;
  dl_ref dims; /* int64_t[rank] */
  uint64_t bytes;
} dl_variable_desc;

/* An argument or a result of a function. */
typedef struct dl_value_desc {
  dl_ref name;
  uint8_t dtype;
  uint8_t rank;
  uint8_t has_default; /* arguments: may be left out; a scalar then takes default_value */
  uint8_t dim;         /* arguments: 0, or k + 1 where this i64 scalar is the value of dynamic dimension k, which no tensor carries */
  dl_ref dims;     /* dl_ref[rank], each to a dl_size */
  dl_ref reserved2;
  double default_value;
} dl_value_desc;

typedef enum dl_buffer_kind {
  DL_BUFFER_ARGUMENT = 0, /* index: argument; read only */
  DL_BUFFER_RESULT = 1,   /* index: result; the caller's memory, or a place in the arena where the caller passed none */
  DL_BUFFER_VARIABLE = 2, /* index: variable */
  DL_BUFFER_ARENA = 3,    /* lives from launch `first` to launch `last`, both included */
  DL_BUFFER_CONSTANT = 4, /* index: byte offset of the bytes within the blob (alignment DL_BUFFER_ALIGNMENT); read only */
  DL_BUFFER_PREPARED = 5  /* of const functions' CPU code: written by the function's preparation from variables and constants alone, read by its entry; its size is the same for every call */
} dl_buffer_kind;

typedef struct dl_buffer_desc {
  uint8_t kind;
  uint8_t reserved[3];
  uint32_t index;
  dl_ref bytes; /* dl_size: how many */
  uint32_t first, last; /* RESULT and ARENA: lifetime in launches of the function */
  uint32_t reserved2;
} dl_buffer_desc;

/* A condition on sizes, checked on entry: `condition` must not be zero. */
typedef struct dl_check_desc {
  dl_ref condition; /* dl_size */
  dl_ref message;   /* what to say otherwise */
} dl_check_desc;

typedef enum dl_function_flags {
  DL_FUNCTION_CONST = 1u << 0,  /* neither assigns nor draws: may run on many threads over one const instance */
  DL_FUNCTION_INIT = 1u << 1,   /* assigns every variable its initial value; not listed for users */
  DL_FUNCTION_TRAIN = 1u << 2   /* a train step */
} dl_function_flags;

/* What one launch of a kernel asks for, whatever its schedule does: operations on floating-point numbers (a multiply-add is two), and bytes of each operand
 * and each result once. */
typedef struct dl_work_desc {
  dl_ref operations, read_bytes, written_bytes; /* dl_size */
  uint8_t dtype; /* DL_F32 or DL_F64: what it computes in */
  uint8_t reserved[3];
} dl_work_desc;

typedef struct dl_kernel_desc {
  dl_ref name;
  dl_ref location; /* "file:line" of the program's text */
  dl_ref work;     /* dl_work_desc, or none: not known, or counted with another kernel */
  uint32_t together; /* tasks next to each other that one call had better run; 0: any number. A wish: a thread's share may be smaller */
} dl_kernel_desc;

/* So many elements of a tensor are shown in a message. */
enum { DL_LOG_ELEMENTS = 64 };

/* A message of a call that has gone well. One that is printed in loops and branches comes as often as it came to that, and of those the last `kept`: its results are then how often it was printed
 * (i64), the number of each among the messages of the call that come so (i64[kept]), and for each value its first elements, row by row (dtype[kept, up to DL_LOG_ELEMENTS]); number k lies at k % kept. */
typedef struct dl_log_line {
  uint32_t value_count;
  dl_ref words;   /* dl_ref[value_count + 1]: strings, between each two of which a value stands */
  uint32_t kept;  /* 0: it is printed once in each call */
  dl_ref types;   /* dl_value_desc[value_count], without names: what the values are, if some are kept; else none */
} dl_log_line;

/* What a function prints, in order; lines that follow each other and of which some are kept, in the order of their numbers. Its values are the function's last results, which its caller does not see: dl_function_desc.result_count counts them. */
typedef struct dl_log_table {
  uint32_t value_count; /* of all lines */
  uint32_t line_count;
  dl_ref lines; /* dl_log_line[] */
  uint32_t reserved;
} dl_log_table;

typedef struct dl_function_desc {
  dl_ref name;
  dl_ref doc;
  uint32_t flags;
  uint32_t argument_count;
  dl_ref arguments; /* dl_value_desc[] */
  uint32_t result_count;
  dl_ref results; /* dl_value_desc[] */
  uint32_t buffer_count;
  dl_ref buffers; /* dl_buffer_desc[]: dl_frame.buffers has one pointer for each, in this order */
  uint32_t check_count;
  dl_ref checks; /* dl_check_desc[] */
  uint32_t kernel_count;
  dl_ref kernels; /* dl_kernel_desc[] */
  uint32_t launch_count;
  uint64_t scratch_bytes; /* for each worker thread */
  dl_ref cuda;            /* dl_cuda_function_desc, or none: no GPU program */
  dl_ref logs;            /* dl_log_table, or none: the function prints nothing */
} dl_function_desc;

/* ---- the program for an NVIDIA GPU: data alone, nothing of it is code of the host ---- */

typedef enum dl_cuda_image_kind {
  DL_CUDA_PTX = 0,  /* text with its NUL (counted in bytes): for its architecture and every later one */
  DL_CUDA_CUBIN = 1 /* for its architecture and later ones of the same major number */
} dl_cuda_image_kind;

/* All kernels of the model, assembled for one architecture. */
typedef struct dl_cuda_image {
  uint32_t kind;
  uint32_t arch; /* compute capability times ten: 80, 90, 100 */
  dl_ref data;
  uint32_t bytes;
} dl_cuda_image;

/* What a kernel takes of a multiprocessor, read when it was compiled. */
typedef struct dl_cuda_resources {
  uint32_t arch;
  uint32_t registers;    /* of a thread */
  uint32_t shared_bytes; /* of a block, static */
  uint32_t local_bytes;  /* of a thread: stack and spills */
} dl_cuda_resources;

/* A __global__ function, in every image under the same symbol; functions of the model share them. */
typedef struct dl_cuda_kernel_desc {
  dl_ref symbol;
  uint32_t threads;      /* of a block, in x */
  uint32_t shared_bytes; /* dynamic shared memory of a block */
  uint32_t resource_count;
  dl_ref resources; /* dl_cuda_resources[]: one for each cubin */
  uint32_t reserved;
} dl_cuda_kernel_desc;

typedef enum dl_cuda_parameter_kind {
  DL_CUDA_BUFFER = 0, /* value: number of a buffer of the function; passes its address, 8 bytes */
  DL_CUDA_SIZE = 1,   /* value: dl_ref of a dl_size; passes an int64_t */
  DL_CUDA_FAULT = 2   /* passes the address of the call's dl_fault in device memory */
} dl_cuda_parameter_kind;

typedef struct dl_cuda_parameter {
  uint32_t kind;
  uint32_t value;
} dl_cuda_parameter;

/* A matrix product for cuBLASLt, all operands dense and row-major:
 * D[i] = epilogue(alpha * op(A[i]) * op(B[i]) + beta * C[i]) for i below `batch`. */
typedef enum dl_cuda_epilogue {
  DL_CUDA_EPILOGUE_NONE = 0,
  DL_CUDA_EPILOGUE_BIAS = 1, /* + bias[n] */
  DL_CUDA_EPILOGUE_RELU = 2,
  DL_CUDA_EPILOGUE_RELU_BIAS = 3,
  DL_CUDA_EPILOGUE_RELU_AUX = 4, /* _AUX: what the gradient needs is written to aux; relu: one bit an element */
  DL_CUDA_EPILOGUE_RELU_AUX_BIAS = 5,
  DL_CUDA_EPILOGUE_GELU = 6, /* by tanh */
  DL_CUDA_EPILOGUE_GELU_BIAS = 7,
  DL_CUDA_EPILOGUE_GELU_AUX = 8,
  DL_CUDA_EPILOGUE_GELU_AUX_BIAS = 9,
  DL_CUDA_EPILOGUE_DRELU = 10,       /* the product times relu's derivative, from aux */
  DL_CUDA_EPILOGUE_DRELU_BGRAD = 11, /* and its sum over rows to bias[n] */
  DL_CUDA_EPILOGUE_DGELU = 12,
  DL_CUDA_EPILOGUE_DGELU_BGRAD = 13,
  DL_CUDA_EPILOGUE_BGRADA = 14, /* bias[m] = op(A)'s sum over k */
  DL_CUDA_EPILOGUE_BGRADB = 15, /* bias[n] = op(B)'s sum over k */
  DL_CUDA_EPILOGUE_COUNT = 16
} dl_cuda_epilogue;

#define DL_CUDA_NO_BUFFER 0xffffffffu

typedef struct dl_cuda_gemm_desc {
  uint8_t dtype;       /* of all operands */
  uint8_t tf32;        /* f32: products may round their factors to TF32 */
  uint8_t transpose_a; /* op(A): A lies as [k, m] */
  uint8_t transpose_b; /* op(B): B lies as [n, k] */
  uint32_t epilogue;
  dl_ref m, n, k, batch; /* dl_size */
  uint32_t a, b, c, d;   /* buffers; c: none where beta is none; c and d may be the same */
  dl_ref stride_a, stride_b, stride_c, stride_d; /* dl_size: elements from one matrix of a batch to the next */
  uint32_t alpha, beta; /* buffers with one element of the operands' type; none: 1 and 0 */
  uint32_t bias, aux;   /* buffers or none */
  dl_ref aux_ld;        /* dl_size: elements (relu: bits) from one row of aux to the next; none without aux */
  uint32_t reserved;
} dl_cuda_gemm_desc;

typedef enum dl_cuda_launch_kind {
  DL_CUDA_LAUNCH_KERNEL = 0,
  DL_CUDA_LAUNCH_GEMM = 1,
  DL_CUDA_LAUNCH_FOR = 2, /* a loop around the launches after it */
  DL_CUDA_LAUNCH_IF = 3   /* a choice among them */
} dl_cuda_launch_kind;

/* A product can stand twice in a list: as a call of cuBLASLt, and as kernels for where that is absent. */
typedef enum dl_cuda_when { DL_CUDA_ALWAYS = 0, DL_CUDA_WITH_CUBLASLT = 1, DL_CUDA_WITHOUT_CUBLASLT = 2 } dl_cuda_when;

typedef struct dl_cuda_launch_desc {
  uint8_t kind;
  uint8_t when;
  uint16_t reserved;
  uint32_t index;  /* of dl_cuda_desc.kernels, or of dl_cuda_function_desc.gemms; for: launches of the body, which follow; if: those of the branch for true, which follow */
  dl_ref name;     /* as in dl_kernel_desc */
  dl_ref location;
  dl_ref grid[3];  /* kernels: dl_size, blocks in x, y, z; where one is 0 nothing is launched. for: the first turn, and before which one it ends (none: without end) */
  uint32_t parameter_count;
  dl_ref parameters; /* dl_cuda_parameter[], in the order of the kernel's signature; of for and if, see below */
  uint32_t other;    /* if: launches of the other branch, which follow those of the first */
  dl_ref work;       /* as in dl_kernel_desc; none for `for` and `if` */
} dl_cuda_launch_desc;

/* The parameters of `for` are buffers: an i64, at most so many turns; a bool, a turn begins only where it is true (both may be DL_CUDA_NO_BUFFER); then pairs in the arena
 * whose places are exchanged after each turn. A kernel of the body counts the turns. The parameter of `if` is the buffer of the condition, a bool. */

/* A function's GPU program: its launches in order, all on one stream. Once a fault is set, no launch changes a variable. */
typedef struct dl_cuda_function_desc {
  uint32_t buffer_count;
  dl_ref buffers; /* dl_buffer_desc[]: lifetimes count launches of the plan, as on the CPU */
  uint32_t launch_count;
  dl_ref launches; /* dl_cuda_launch_desc[] */
  uint32_t gemm_count;
  dl_ref gemms; /* dl_cuda_gemm_desc[] */
} dl_cuda_function_desc;

typedef struct dl_cuda_desc {
  uint32_t image_count;
  dl_ref images; /* dl_cuda_image[] */
  uint32_t kernel_count;
  dl_ref kernels; /* dl_cuda_kernel_desc[] */
} dl_cuda_desc;

/* What a fault (dl_fault.site - 1) means, e.g. a label outside its classes. The message may hold {index} and {value}. */
typedef struct dl_fault_desc {
  dl_ref message;
  dl_ref location;
} dl_fault_desc;

typedef enum dl_blob_flags {
  DL_BLOB_WITHOUT_CPU = 1u << 0 /* of the functions, only the init function has CPU code: the others run on a GPU alone */
} dl_blob_flags;

typedef struct dl_blob {
  char magic[8];
  uint32_t abi_version;
  uint32_t blob_bytes;
  dl_ref name;     /* of the model */
  dl_ref doc;
  dl_ref compiler; /* e.g. "dlc 0.1.0, LLVM 22.1.8" */
  dl_ref triple;
  dl_ref cpu;
  dl_ref features; /* what the processor must have: names of LLVM's x86 features, comma separated: "avx,avx2,fma" */
  dl_ref query;    /* name of the query symbol */
  uint32_t dim_count;
  dl_ref dims; /* dl_ref[]: names of the dynamic dimensions */
  uint32_t variable_count;
  dl_ref variables; /* dl_variable_desc[] */
  uint32_t function_count;
  dl_ref functions; /* dl_function_desc[]; dl_model.entries is in the same order. The init function always has CPU code. */
  uint32_t fault_count;
  dl_ref faults; /* dl_fault_desc[] */
  dl_ref cuda;    /* dl_cuda_desc, or none */
  uint32_t flags; /* dl_blob_flags */
  uint32_t reserved;
} dl_blob;

/* ---- code ---- */

typedef struct dl_frame dl_frame;

/* Runs tasks [begin, end) of a launch. `scratch` is this worker's own memory: dl_function_desc.scratch_bytes bytes (at least 8), aligned to
 * DL_BUFFER_ALIGNMENT. Its first int64_t is -1 when a worker enters a launch; from then to the launch's end the memory is left as the kernel leaves it,
 * so that what one call has prepared there serves the worker's next. Tasks of one launch are independent of each other and of the order they run in. */
typedef void (*dl_kernel_fn)(const dl_frame *frame, int64_t begin, int64_t end, void *scratch);

/* What the runtime hands to generated code. */
typedef struct dl_host {
  uint32_t abi_version;
  uint32_t size; /* of this structure */
  /* Runs all tasks 0..tasks-1 of a kernel and returns when they are done. `kernel` indexes dl_function_desc.kernels. */
  void (*parallel)(const dl_frame *frame, dl_kernel_fn function, int64_t tasks, uint32_t kernel);
} dl_host;

/* The first fault of a call; generated code writes it only where site is 0 and returns early from the entry, before any
 * variable has changed. */
typedef struct dl_fault {
  int64_t site;  /* 0: none; else number of the dl_fault_desc, plus 1 */
  int64_t index; /* which element */
  int64_t value; /* what it was */
} dl_fault;

struct dl_frame {
  const dl_host *host;
  void *const *buffers; /* the entry of a function with loops exchanges some of the arena's; kernels only read them */
  const int64_t *dims; /* values of the dynamic dimensions */
  dl_fault *fault;
};

/* Runs a function once: its launches in order. */
typedef void (*dl_entry_fn)(const dl_frame *frame);

typedef struct dl_model {
  uint32_t abi_version;
  uint32_t size; /* of this structure */
  const dl_blob *blob;
  const dl_entry_fn *entries; /* NULL for a function without CPU code */
  const struct dlrt_api *runtime; /* the runtime linked into the artefact, or NULL */
  const struct dlrt_gpu_half *cuda; /* &dlrt_cuda_half, the runtime's half for GPUs, where the description has a GPU program; else NULL: that half is not linked then */
  /* Of a function with prepared buffers: writes these. Runs before the entry's first call, and again before the next one after a variable has changed; not while anything else reads them.
   * NULL for other functions; NULL instead of the table where there are no others. */
  const dl_entry_fn *preparations;
} dl_model;

/* The query symbol: NULL where the artefact does not speak the version asked for. */
typedef const dl_model *(*dl_query_fn)(uint32_t abi_version);

#ifdef __cplusplus
#define DL_STATIC_ASSERT(condition) static_assert(condition, #condition)
#else
#define DL_STATIC_ASSERT(condition) _Static_assert(condition, #condition)
#endif
DL_STATIC_ASSERT(sizeof(dl_variable_desc) == 24);
DL_STATIC_ASSERT(sizeof(dl_value_desc) == 24);
DL_STATIC_ASSERT(sizeof(dl_buffer_desc) == 24);
DL_STATIC_ASSERT(sizeof(dl_check_desc) == 8);
DL_STATIC_ASSERT(sizeof(dl_work_desc) == 16);
DL_STATIC_ASSERT(sizeof(dl_kernel_desc) == 16);
DL_STATIC_ASSERT(sizeof(dl_function_desc) == 72);
DL_STATIC_ASSERT(sizeof(dl_blob) == 88);
DL_STATIC_ASSERT(sizeof(dl_frame) == 32);
DL_STATIC_ASSERT(sizeof(dl_cuda_kernel_desc) == 24);
DL_STATIC_ASSERT(sizeof(dl_cuda_gemm_desc) == 80);
DL_STATIC_ASSERT(sizeof(dl_cuda_launch_desc) == 44);
DL_STATIC_ASSERT(sizeof(dl_cuda_function_desc) == 24);

#ifdef __cplusplus
}
#endif
#endif
