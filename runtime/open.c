/*===- open.c - models in files -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===
 *
 * Apart from model.c because artefacts, which have their model linked in, need nothing of it: it
 * brings the half for GPUs along.
 */
#include "internal.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A name for an open file that dlopen has not met before. dlopen takes a name that it knows for the
 * library that it knows, even if another file is behind it by now: a recompiled model under its old
 * path, or a reused file descriptor. So the path through /proc carries a number, spelt in steps
 * that lead nowhere: "/." is 1, "//" is 0. */
static void unique_name(int file, char *out_name, size_t bytes) {
  static _Atomic uint32_t opened;
  uint32_t number = atomic_fetch_add_explicit(&opened, 1, memory_order_relaxed);
  size_t used = (size_t)snprintf(out_name, bytes, "/proc/self/fd");
  for (; number; number >>= 1)
    used += (size_t)snprintf(out_name + used, bytes - used, number & 1 ? "/." : "//");
  snprintf(out_name + used, bytes - used, "/%d", file);
}

/* Loads a checked file's code into its model. */
static dlrt_status load(dlrt_model *model, const char *path) {
  char name[128];
  unique_name(model->file, name, sizeof name);
  model->library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (!model->library && access("/proc/self/fd", X_OK) != 0) {
    if (!strchr(path, '/')) { /* dlopen would look for it elsewhere */
      snprintf(name, sizeof name, "./%s", path);
      path = name;
    }
    model->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  }
  if (!model->library) {
    const char *words = dlerror();
    size_t length = strlen(name);
    if (words && strncmp(words, name, length) == 0 && strncmp(words + length, ": ", 2) == 0)
      words += length + 2;
    return dlrt_fail(DLRT_INCOMPATIBLE, "cannot be loaded: %s", words ? words : "unknown error");
  }
  union {
    void *address;
    dl_query_fn function;
  } query;
  const char *symbol = dlrt_string(model->blob, model->blob->query);
  query.address = dlsym(model->library, symbol);
  if (!query.address)
    return dlrt_fail(DLRT_CORRUPT, "lacks its query symbol '%s'", symbol);
  const dl_model *answer = query.function(DL_ABI_VERSION);
  dlrt_status status = dlrt_model_check_answer(answer);
  if (status)
    return status;
  /* What was checked must be what runs. */
  if (answer->blob->blob_bytes != model->blob->blob_bytes ||
      memcmp(answer->blob, model->blob, model->blob->blob_bytes) != 0)
    return dlrt_fail(DLRT_CORRUPT, "its code has another description than its note");
  if ((status = dlrt_model_check_code(answer)))
    return status;
  model->blob = answer->blob;
  dlrt_model_take_code(model, answer);
  model->gpu_half =
      &dlrt_cuda_half; /* whatever half the artefact brings: this runtime is its own */
  free(model->owned_blob);
  model->owned_blob = NULL;
  return NULL;
}

static dlrt_status open_file(const char *path, bool for_loading, dlrt_model **out_model) {
  if (!out_model)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "out_model is NULL");
  *out_model = NULL;
  if (!path)
    return dlrt_fail(DLRT_INVALID_ARGUMENT, "path is NULL");
  int file;
  do
    file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  while (file < 0 && errno == EINTR);
  if (file < 0)
    return dlrt_fail_errno(errno, "open", path);
  void *data;
  size_t bytes;
  dlrt_model *model = NULL;
  dlrt_status status = dlrt_note_read(file, path, for_loading, &data, &bytes);
  if (status) {
    close(file);
    return status;
  }
  if ((status = dlrt_model_create(data, bytes, &model))) {
    free(data);
    close(file);
    return dlrt_with_path(path, status);
  }
  model->owned_blob = data;
  model->file = file; /* stays open as long as the library is loaded: its name leads through it */
  if (for_loading && ((status = dlrt_cpu_check(dlrt_string(model->blob, model->blob->features))) ||
                      (status = load(model, path)))) {
    dlrt_model_release(model);
    return dlrt_with_path(path, status);
  }
  if (!for_loading) {
    close(file);
    model->file = -1;
  }
  *out_model = model;
  return NULL;
}

dlrt_status dlrt_model_open(const char *path, dlrt_model **out_model) {
  return open_file(path, true, out_model);
}
dlrt_status dlrt_model_inspect(const char *path, dlrt_model **out_model) {
  return open_file(path, false, out_model);
}
