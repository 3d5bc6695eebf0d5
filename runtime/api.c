/*===- api.c - the runtime as a table -*- C -*-===
 * Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
 * SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
 *===----------------------------------------------------------------------===*/
#include "internal.h"

const dlrt_api dlrt_runtime_api = {
    .abi_version = DL_ABI_VERSION,
    .size = sizeof(dlrt_api),
    .status_code = dlrt_status_code,
    .status_message = dlrt_status_message,
    .status_release = dlrt_status_release,
    .model_attach = dlrt_model_attach,
    .model_release = dlrt_model_release,
    .model_get_variable = dlrt_model_get_variable,
    .model_find_variable = dlrt_model_find_variable,
    .instance_create = dlrt_instance_create,
    .instance_release = dlrt_instance_release,
    .instance_initialize = dlrt_instance_initialize,
    .call = dlrt_call,
    .variable_read = dlrt_variable_read,
    .variable_write = dlrt_variable_write,
    .instance_save = dlrt_instance_save,
    .instance_load = dlrt_instance_load,
    .instance_threads = dlrt_instance_threads,
    .instance_variable_bytes = dlrt_instance_variable_bytes,
    .instance_arena_bytes = dlrt_instance_arena_bytes,
    .instance_synchronize = dlrt_instance_synchronize,
    .instance_device = dlrt_instance_device,
    .submit = dlrt_submit,
    .collect = dlrt_collect,
    .instance_set_log = dlrt_instance_set_log,
};
