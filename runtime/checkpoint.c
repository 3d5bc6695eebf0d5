/*===- checkpoint.c - saving and loading variables -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * A checkpoint is a safetensors file: 8 bytes with the header's length, a JSON header that gives
 * each tensor its type, shape and place, then the tensors' bytes without gaps. What is written
 * depends on the variables alone: same values, same bytes.
 *
 * Saving never touches the old file: a new one grows beside it under another name, is synced, and
 * takes its place by rename. Loading reads everything into fresh memory and checks it, and only
 * then lets it take the place of the variables.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The format's own bound. */
static const uint64_t max_header_bytes = 100000000;

/* safetensors' names of element types, in the order of dl_dtype. */
static const char dtype_names[DL_DTYPE_COUNT][5] = {"BOOL", "U8",  "I8",   "I16", "I32",
                                                    "I64",  "F16", "BF16", "F32", "F64"};

/* ---- saving: the header ---- */

typedef struct writer {
  char *data; /* NULL: only counts */
  size_t used;
} writer;

static void put(writer *w, const char *text) {
  size_t bytes = strlen(text);
  if (w->data)
    memcpy(w->data + w->used, text, bytes);
  w->used += bytes;
}

static void put_number(writer *w, uint64_t number) {
  char text[24];
  snprintf(text, sizeof text, "%llu", (unsigned long long)number);
  put(w, text);
}

/* A JSON string. Names have no control characters (description.c sees to it), so two characters
 * need an escape. */
static void put_string(writer *w, const char *text) {
  put(w, "\"");
  for (; *text; ++text) {
    char one[3] = {*text, 0, 0};
    if (*text == '"' || *text == '\\')
      one[0] = '\\', one[1] = *text;
    put(w, one);
  }
  put(w, "\"");
}

static void put_header(writer *w, const dlrt_model *model) {
  const dl_blob *blob = model->blob;
  uint64_t offset = 0;
  put(w, "{\"__metadata__\":{\"format\":\"dlc\",\"model\":");
  put_string(w, dlrt_string(blob, blob->name));
  put(w, "}");
  for (uint32_t v = 0; v < blob->variable_count; ++v) {
    const dl_variable_desc *variable = &dlrt_variables(blob)[v];
    const int64_t *dims = dlrt_at(blob, variable->dims);
    put(w, ",");
    put_string(w, dlrt_string(blob, variable->name));
    put(w, ":{\"dtype\":\"");
    put(w, dtype_names[variable->dtype]);
    put(w, "\",\"shape\":[");
    for (uint32_t d = 0; d < variable->rank; ++d) {
      put(w, d ? "," : "");
      put_number(w, (uint64_t)dims[d]);
    }
    put(w, "],\"data_offsets\":[");
    put_number(w, offset);
    put(w, ",");
    put_number(w, offset += variable->bytes);
    put(w, "]}");
  }
  put(w, "}");
  while (w->used % 8 != 0) /* the data begins at a multiple of 8 */
    put(w, " ");
}

/* The length and the header, for free(). NULL: out of memory. */
static char *make_header(const dlrt_model *model, size_t *out_bytes) {
  writer w = {NULL, 8};
  put_header(&w, model);
  uint64_t length = w.used - 8;
  char *data = malloc(w.used);
  *out_bytes = w.used;
  if (!data)
    return NULL;
  memcpy(data, &length, sizeof length); /* little endian, as everything here */
  w = (writer){data, 8};
  put_header(&w, model);
  return data;
}

/* ---- saving: the file ---- */

/* Writes all of some pieces; 0 or an errno. */
static int write_pieces(int file, struct iovec *pieces, int count) {
  while (count > 0) {
    if (pieces->iov_len == 0) {
      ++pieces;
      --count;
      continue;
    }
    ssize_t written = writev(file, pieces, count);
    if (written < 0) {
      if (errno == EINTR)
        continue;
      return errno;
    }
    if (written == 0) /* a device that takes nothing and says nothing */
      return EIO;
    for (size_t left = (size_t)written; left > 0;) {
      size_t part = left < pieces->iov_len ? left : pieces->iov_len;
      pieces->iov_base = (char *)pieces->iov_base + part;
      pieces->iov_len -= part;
      left -= part;
      if (pieces->iov_len == 0) {
        ++pieces;
        --count;
      }
    }
  }
  return 0;
}

/* What is saved: the variables of an instance, in this process's memory. */
typedef struct source {
  const dlrt_model *model;
  const char *variables; /* laid out as an instance's */
} source;

static int write_all(int file, const source *from, const char *header, size_t header_bytes) {
  const dl_blob *blob = from->model->blob;
  struct iovec pieces[64] = {{(void *)header, header_bytes}};
  int count = 1;
  for (uint32_t v = 0; v < blob->variable_count; ++v) {
    pieces[count++] = (struct iovec){(void *)(from->variables + from->model->variable_offsets[v]),
                                     dlrt_variables(blob)[v].bytes};
    if (count == 64) {
      int error = write_pieces(file, pieces, count);
      if (error)
        return error;
      count = 0;
    }
  }
  return write_pieces(file, pieces, count);
}

/* Makes a new file in the target's folder; its name is written to `name`. The file, or -1. */
static int create_beside(const char *target, mode_t mode, char *name, size_t bytes) {
  static _Atomic uint32_t counter;
  const char *slash = strrchr(target, '/');
  int folder = slash ? (int)(slash - target) + 1 : 0;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  for (int attempt = 0; attempt < 100; ++attempt) {
    uint32_t number = atomic_fetch_add_explicit(&counter, 1, memory_order_relaxed);
    int length = snprintf(name, bytes, "%.*s.dlrt-%lld-%llx-%x.tmp", folder, target,
                          (long long)getpid(), (unsigned long long)now.tv_nsec, number);
    if (length < 0 || (size_t)length >= bytes) {
      errno = ENAMETOOLONG;
      return -1;
    }
    int file = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (file >= 0 || (errno != EEXIST && errno != EINTR))
      return file;
  }
  return -1;
}

/* Makes the rename durable. A folder that cannot be opened or synced (some file systems refuse) is
 * no reason to call a written file a failure; an input or output error is. */
static int sync_folder(const char *target) {
  char folder[PATH_MAX];
  const char *slash = strrchr(target, '/');
  snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - target) + 1 : 1,
           slash ? target : ".");
  int file = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0)
    return 0;
  int error = fsync(file) != 0 && errno == EIO ? EIO : 0;
  close(file);
  return error;
}

static dlrt_status save_beside(const source *from, const char *path, const struct stat *old,
                               const char *header, size_t header_bytes) {
  char name[PATH_MAX];
  if (old && access(path, W_OK) != 0) /* renaming over it would get around its owner's wish */
    return dlrt_fail_errno(errno, "write", path);
  int file = create_beside(path, 0666, name, sizeof name);
  if (file < 0)
    return dlrt_fail_errno(errno, "create a file beside", path);
  int error = write_all(file, from, header, header_bytes);
  const char *action = "write";
  if (!error && old)
    (void)fchmod(file, old->st_mode & 07777); /* best effort, as for its owner */
  if (!error && fsync(file) != 0) {
    error = errno;
    action = "sync";
  }
  if (close(file) != 0 && !error && errno != EINTR) {
    error = errno;
    action = "close";
  }
  if (!error && rename(name, path) != 0) {
    error = errno;
    action = "replace";
  }
  if (error) {
    unlink(name);
    return dlrt_fail_errno(error, action, path);
  }
  return (error = sync_folder(path)) ? dlrt_fail_errno(error, "sync the folder of", path) : NULL;
}

/* A device, pipe or the like: there is nothing to replace. */
static dlrt_status save_directly(const source *from, const char *path, const char *header,
                                 size_t header_bytes) {
  int file;
  do
    file = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
  while (file < 0 && errno == EINTR);
  if (file < 0)
    return dlrt_fail_errno(errno, "open", path);
  int error = write_all(file, from, header, header_bytes);
  if (close(file) != 0 && !error && errno != EINTR)
    error = errno;
  return error ? dlrt_fail_errno(error, "write", path) : NULL;
}

/* Holds back the signals that a write may cause (a size limit, a closed pipe) in this thread, so
 * that they come as errors. */
typedef struct write_signals {
  sigset_t ours, saved, pending;
} write_signals;

static void hold_signals(write_signals *w) {
  sigemptyset(&w->ours);
  sigaddset(&w->ours, SIGXFSZ);
  sigaddset(&w->ours, SIGPIPE);
  sigpending(&w->pending);
  pthread_sigmask(SIG_BLOCK, &w->ours, &w->saved);
}

static void restore_signals(write_signals *w) {
  /* Takes back those that we caused; one that was pending before stays. */
  static const int numbers[] = {SIGXFSZ, SIGPIPE};
  for (int i = 0; i < 2; ++i) {
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, numbers[i]);
    const struct timespec at_once = {0, 0};
    if (!sigismember(&w->pending, numbers[i]))
      while (sigtimedwait(&one, NULL, &at_once) < 0 && errno == EINTR)
        ;
  }
  pthread_sigmask(SIG_SETMASK, &w->saved, NULL);
}

dlrt_status dlrt_instance_save(const dlrt_instance *instance, const char *path) {
  if (!instance || !path)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "%s is NULL", instance ? "path" : "instance");
  dlrt_status status = dlrt_instance_enter(instance, false);
  if (status)
    return status;
  source from = {instance->model, instance->variables.data};
  dlrt_block copy = {0}; /* of what lies on a GPU */
  if (instance->gpu) {
    uint64_t bytes = instance->model->variable_bytes;
    if (!dlrt_block_allocate(&copy, bytes))
      status = dlrt_fail_memory("a checkpoint's variables", bytes);
    else
      status = instance->model->gpu_half->read(instance->gpu, 0, copy.data, bytes);
    if (status) {
      dlrt_block_release(&copy);
      dlrt_instance_leave(instance, false);
      return status;
    }
    from.variables = copy.data;
  }
  size_t header_bytes;
  char *header = make_header(instance->model, &header_bytes);
  /* A link keeps being a link: the file that it leads to is replaced. */
  char *real = realpath(path, NULL);
  const char *target = real ? real : path;
  struct stat info;
  bool exists = stat(target, &info) == 0;
  write_signals signals;
  hold_signals(&signals);
  if (!header)
    status = dlrt_fail_memory("a checkpoint's header", header_bytes);
  else if (header_bytes - 8 > max_header_bytes)
    status = dlrt_fail(
        DLRT_IO, "'%s': cannot write: a header of %zu bytes is more than a checkpoint may have",
        path, header_bytes - 8);
  else if (exists && S_ISDIR(info.st_mode))
    status = dlrt_fail_errno(EISDIR, "write", path);
  else if (exists && !S_ISREG(info.st_mode))
    status = save_directly(&from, target, header, header_bytes);
  else
    status = save_beside(&from, target, exists ? &info : NULL, header, header_bytes);
  restore_signals(&signals);
  free(real);
  free(header);
  dlrt_block_release(&copy);
  dlrt_instance_leave(instance, false);
  return status;
}

/* ---- loading: the header ---- */

/* A strict reader of the few things a header may hold. Strings are decoded in place. */
typedef struct json {
  char *at, *end;
  const char *start;
} json;

static void skip_space(json *j) {
  while (j->at < j->end && (*j->at == ' ' || *j->at == '\t' || *j->at == '\n' || *j->at == '\r'))
    ++j->at;
}

static bool take(json *j, char c) {
  skip_space(j);
  if (j->at == j->end || *j->at != c)
    return false;
  ++j->at;
  return true;
}

static bool take_hex(json *j, uint32_t *out_code) {
  uint32_t code = 0;
  if (j->end - j->at < 4)
    return false;
  for (int i = 0; i < 4; ++i) {
    char c = *j->at++;
    uint32_t digit;
    if (c >= '0' && c <= '9')
      digit = (uint32_t)(c - '0');
    else if ((c | 32) >= 'a' && (c | 32) <= 'f')
      digit = (uint32_t)((c | 32) - 'a' + 10);
    else
      return false;
    code = code << 4 | digit;
  }
  *out_code = code;
  return true;
}

/* A string; NUL terminated in place. An escape is never shorter than what it stands for. */
static bool take_string(json *j, char **out_text) {
  static const char plain[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
  if (!take(j, '"'))
    return false;
  char *out = *out_text = j->at;
  while (j->at < j->end) {
    unsigned char c = (unsigned char)*j->at++;
    if (c == '"') {
      *out = 0;
      return true;
    }
    if (c < 0x20)
      return false;
    if (c != '\\') {
      *out++ = (char)c;
      continue;
    }
    if (j->at == j->end)
      return false;
    char escape = *j->at++;
    if (escape != 'u') {
      const char *found = escape ? strchr(plain, escape) : NULL;
      if (!found)
        return false;
      *out++ = meant[found - plain];
      continue;
    }
    uint32_t code, low;
    if (!take_hex(j, &code) || code == 0) /* a NUL would cut the text short */
      return false;
    if (code >= 0xdc00 && code < 0xe000)
      return false;
    if (code >= 0xd800 && code < 0xdc00) {
      if (j->end - j->at < 6 || j->at[0] != '\\' || j->at[1] != 'u')
        return false;
      j->at += 2;
      if (!take_hex(j, &low) || low < 0xdc00 || low >= 0xe000)
        return false;
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    if (code < 0x80)
      *out++ = (char)code;
    else if (code < 0x800) {
      *out++ = (char)(0xc0 | code >> 6);
      *out++ = (char)(0x80 | (code & 63));
    } else if (code < 0x10000) {
      *out++ = (char)(0xe0 | code >> 12);
      *out++ = (char)(0x80 | (code >> 6 & 63));
      *out++ = (char)(0x80 | (code & 63));
    } else {
      *out++ = (char)(0xf0 | code >> 18);
      *out++ = (char)(0x80 | (code >> 12 & 63));
      *out++ = (char)(0x80 | (code >> 6 & 63));
      *out++ = (char)(0x80 | (code & 63));
    }
  }
  return false;
}

/* A whole number that fits into int64. */
static bool take_number(json *j, uint64_t *out_number) {
  skip_space(j);
  char *first = j->at;
  uint64_t number = 0;
  while (j->at < j->end && *j->at >= '0' && *j->at <= '9') {
    if (__builtin_mul_overflow(number, 10u, &number) ||
        __builtin_add_overflow(number, (uint64_t)(*j->at - '0'), &number) || number > INT64_MAX)
      return false;
    ++j->at;
  }
  if (j->at == first || (*first == '0' && j->at - first > 1))
    return false;
  *out_number = number;
  return true;
}

/* "[1, 2]" with at most `most` numbers. */
static bool take_numbers(json *j, uint64_t *out_numbers, uint32_t most, uint32_t *out_count) {
  *out_count = 0;
  if (!take(j, '['))
    return false;
  if (take(j, ']'))
    return true;
  do {
    if (*out_count == most || !take_number(j, &out_numbers[(*out_count)++]))
      return false;
  } while (take(j, ','));
  return take(j, ']');
}

typedef struct entry {
  const char *dtype;
  uint64_t dims[DL_MAX_RANK], place[2];
  uint32_t rank;
} entry;

/* The object that describes a tensor: exactly dtype, shape and data_offsets. */
static bool take_entry(json *j, entry *e) {
  unsigned seen = 0;
  uint32_t places = 0;
  if (!take(j, '{'))
    return false;
  do {
    char *key, *text;
    unsigned which;
    if (!take_string(j, &key) || !take(j, ':'))
      return false;
    if (strcmp(key, "dtype") == 0) {
      which = 1;
      if (!take_string(j, &text))
        return false;
      e->dtype = text;
    } else if (strcmp(key, "shape") == 0) {
      which = 2;
      if (!take_numbers(j, e->dims, DL_MAX_RANK, &e->rank))
        return false;
    } else if (strcmp(key, "data_offsets") == 0) {
      which = 4;
      if (!take_numbers(j, e->place, 2, &places) || places != 2)
        return false;
    } else
      return false;
    if (seen & which)
      return false;
    seen |= which;
  } while (take(j, ','));
  return seen == 7 && take(j, '}');
}

/* "__metadata__": texts by name. Finds the model's name. */
static bool take_metadata(json *j, const char **out_model) {
  if (!take(j, '{'))
    return false;
  if (take(j, '}'))
    return true;
  do {
    char *key, *text;
    if (!take_string(j, &key) || !take(j, ':') || !take_string(j, &text))
      return false;
    if (strcmp(key, "model") == 0)
      *out_model = text;
  } while (take(j, ','));
  return take(j, '}');
}

/* Where a variable lies in the file's data; begin > end: not seen yet. */
typedef struct place {
  uint64_t begin, end;
  uint32_t variable;
} place;

static int compare_places(const void *a, const void *b) {
  const place *x = a, *y = b;
  if (x->begin != y->begin)
    return x->begin < y->begin ? -1 : 1;
  return x->end < y->end ? -1 : x->end > y->end; /* empty ones first */
}

/* "f32[784, 128]" of a file's entry. */
static const char *entry_type(char buffer[DLRT_TYPE_TEXT], const entry *e) {
  int64_t dims[DL_MAX_RANK];
  for (uint32_t d = 0; d < e->rank; ++d)
    dims[d] = (int64_t)e->dims[d];
  for (uint8_t dtype = 0; dtype < DL_DTYPE_COUNT; ++dtype)
    if (strcmp(e->dtype, dtype_names[dtype]) == 0)
      return dlrt_type_text(buffer, dtype, e->rank, dims);
  snprintf(buffer, DLRT_TYPE_TEXT, "element type '%.40s'", e->dtype);
  return buffer;
}

static dlrt_status damaged(const char *path, const json *j, const char *what) {
  return dlrt_fail(DLRT_CORRUPT, "'%s' is no valid checkpoint: %s at byte %lld of its header", path,
                   what, (long long)(j->at - j->start));
}

/* Compares one entry with the model and notes its place. */
static dlrt_status match_entry(const dlrt_model *model, const char *path, const json *j,
                               const char *key, const entry *e, place *places) {
  const dl_blob *blob = model->blob;
  uint32_t v = dlrt_variable_number(model, key);
  if (v == UINT32_MAX)
    return dlrt_fail(DLRT_INCOMPATIBLE,
                     "'%s' is a checkpoint of another model: model '%s' has no variable '%.200s'",
                     path, dlrt_string(blob, blob->name), key);
  const dl_variable_desc *variable = &dlrt_variables(blob)[v];
  const int64_t *dims = dlrt_at(blob, variable->dims);
  if (places[v].begin <= places[v].end)
    return damaged(path, j, "a second entry for the same variable");
  bool same = strcmp(e->dtype, dtype_names[variable->dtype]) == 0 && e->rank == variable->rank;
  for (uint32_t d = 0; same && d < e->rank; ++d)
    same = (int64_t)e->dims[d] == dims[d];
  if (!same) {
    char expected[DLRT_TYPE_TEXT], found[DLRT_TYPE_TEXT];
    return dlrt_fail(DLRT_INCOMPATIBLE, "'%s': variable '%.200s': expected %s, found %s", path, key,
                     dlrt_type_text(expected, variable->dtype, variable->rank, dims),
                     entry_type(found, e));
  }
  if (e->place[1] < e->place[0] || e->place[1] - e->place[0] != variable->bytes)
    return dlrt_fail(DLRT_CORRUPT,
                     "'%s' is no valid checkpoint: variable '%.200s' has %llu bytes, but its place "
                     "is [%llu, %llu]",
                     path, key, (unsigned long long)variable->bytes,
                     (unsigned long long)e->place[0], (unsigned long long)e->place[1]);
  places[v].begin = e->place[0];
  places[v].end = e->place[1];
  return NULL;
}

/* Reads a header (which it overwrites) against a model. places[variable_count] come out sorted by
 * place; together they fill the data. */
static dlrt_status read_header(const dlrt_model *model, const char *path, char *header,
                               uint64_t header_bytes, uint64_t data_bytes, place *places) {
  const dl_blob *blob = model->blob;
  json j = {.at = header, .end = header + header_bytes, .start = header};
  const char *other_model = NULL;
  bool metadata_seen = false;
  dlrt_status status = NULL;
  for (uint32_t v = 0; v < blob->variable_count; ++v)
    places[v] = (place){1, 0, v};
  if (header_bytes == 0 || header[0] != '{' || !take(&j, '{'))
    return damaged(path, &j, "no JSON object");
  if (!take(&j, '}')) {
    do {
      char *key;
      entry e = {0};
      if (!take_string(&j, &key) || !take(&j, ':'))
        return damaged(path, &j, "no key");
      if (strcmp(key, "__metadata__") == 0) {
        if (metadata_seen || !take_metadata(&j, &other_model))
          return damaged(path, &j, "damaged metadata");
        metadata_seen = true;
        continue;
      }
      if (!take_entry(&j, &e))
        return damaged(path, &j, "damaged entry");
      if ((status = match_entry(model, path, &j, key, &e, places)))
        return status;
    } while (take(&j, ','));
    if (!take(&j, '}'))
      return damaged(path, &j, "no end of the JSON object");
  }
  skip_space(&j);
  if (j.at != j.end)
    return damaged(path, &j, "something after the JSON object");
  for (uint32_t v = 0; v < blob->variable_count; ++v) {
    const char *name = dlrt_string(blob, dlrt_variables(blob)[v].name),
               *ours = dlrt_string(blob, blob->name);
    if (places[v].begin <= places[v].end)
      continue;
    if (other_model && strcmp(other_model, ours) != 0)
      return dlrt_fail(
          DLRT_INCOMPATIBLE,
          "'%s' is a checkpoint of model '%.200s', not of '%s': it lacks variable '%s'", path,
          other_model, ours, name);
    return dlrt_fail(DLRT_INCOMPATIBLE,
                     "'%s' is a checkpoint of another model: it lacks variable '%s' of '%s'", path,
                     name, ours);
  }
  qsort(places, blob->variable_count, sizeof *places, compare_places);
  uint64_t end = 0;
  for (uint32_t i = 0; i < blob->variable_count; ++i) {
    if (places[i].begin != end)
      return dlrt_fail(
          DLRT_CORRUPT,
          "'%s' is no valid checkpoint: variable '%s' begins at byte %llu of the data, not at %llu",
          path, dlrt_string(blob, dlrt_variables(blob)[places[i].variable].name),
          (unsigned long long)places[i].begin, (unsigned long long)end);
    end = places[i].end;
  }
  if (end != data_bytes)
    return dlrt_fail(DLRT_CORRUPT,
                     "'%s' is %s: its header describes %llu bytes of data, there are %llu", path,
                     end > data_bytes ? "truncated" : "no valid checkpoint",
                     (unsigned long long)end, (unsigned long long)data_bytes);
  return NULL;
}

/* ---- loading: the file ---- */

/* Reads the tensors into a block laid out as an instance's variables. */
static dlrt_status read_variables(const dlrt_model *model, const char *path, int file,
                                  uint64_t start, const place *places, dlrt_block *block) {
  const dl_blob *blob = model->blob;
  for (uint32_t i = 0; i < blob->variable_count; ++i) {
    const dl_variable_desc *variable = &dlrt_variables(blob)[places[i].variable];
    uint8_t *data = (uint8_t *)block->data + model->variable_offsets[places[i].variable];
    dlrt_status status = dlrt_read_at(file, path, data, variable->bytes, start + places[i].begin);
    if (status)
      return status;
    for (uint64_t b = 0; variable->dtype == DL_BOOL && b < variable->bytes; ++b)
      if (data[b] > 1)
        return dlrt_fail(DLRT_CORRUPT,
                         "'%s' is no valid checkpoint: element %llu of bool variable '%s' is %u",
                         path, (unsigned long long)b, dlrt_string(blob, variable->name), data[b]);
  }
  return NULL;
}

static dlrt_status load_file(dlrt_instance *instance, const char *path, int file) {
  const dlrt_model *model = instance->model;
  struct stat info;
  uint64_t header_bytes, file_bytes;
  if (fstat(file, &info) != 0)
    return dlrt_fail_errno(errno, "read", path);
  if (S_ISDIR(info.st_mode))
    return dlrt_fail_errno(EISDIR, "read", path);
  if (!S_ISREG(info.st_mode))
    return dlrt_fail(DLRT_IO, "'%s': cannot read: not a regular file", path);
  file_bytes = (uint64_t)info.st_size;
  if (file_bytes < 8)
    return dlrt_fail(DLRT_CORRUPT, "'%s' is no valid checkpoint: it has %llu bytes", path,
                     (unsigned long long)file_bytes);
  dlrt_status status = dlrt_read_at(file, path, &header_bytes, sizeof header_bytes, 0);
  if (status)
    return status;
  if (header_bytes > max_header_bytes || header_bytes > file_bytes - 8)
    return dlrt_fail(
        DLRT_CORRUPT,
        "'%s' is truncated or no checkpoint: its header would have %llu bytes, the file has %llu",
        path, (unsigned long long)header_bytes, (unsigned long long)file_bytes);
  char *header = malloc(header_bytes + 1);
  place *places = malloc((model->blob->variable_count + (size_t)1) * sizeof *places);
  dlrt_block block = {0};
  if (!header || !places)
    status = dlrt_fail_memory("a checkpoint's header", header_bytes);
  else if (!(status = dlrt_read_at(file, path, header, header_bytes, 8)) &&
           !(status = read_header(model, path, header, header_bytes, file_bytes - 8 - header_bytes,
                                  places))) {
    if (!dlrt_block_allocate(&block, model->variable_bytes))
      status = dlrt_fail_memory("a checkpoint's variables", model->variable_bytes);
    else if ((status = read_variables(model, path, file, 8 + header_bytes, places, &block)))
      ;
    else if (instance->gpu)
      status = model->gpu_half->write(instance->gpu, 0, block.data, model->variable_bytes);
    else {
      dlrt_block old = instance->variables;
      instance->variables = block;
      dlrt_variables_changed(instance);
      block = old;
    }
  }
  dlrt_block_release(&block);
  free(places);
  free(header);
  return status;
}

dlrt_status dlrt_instance_load(dlrt_instance *instance, const char *path) {
  if (!instance || !path)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "%s is NULL", instance ? "path" : "instance");
  dlrt_status status = dlrt_instance_enter(instance, true);
  if (status)
    return status;
  int file;
  do
    file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  while (file < 0 && errno == EINTR);
  if (file < 0)
    status = dlrt_fail_errno(errno, "open", path);
  else {
    status = load_file(instance, path, file);
    close(file);
  }
  dlrt_instance_leave(instance, true);
  return status;
}
