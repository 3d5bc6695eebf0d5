//===- DlOps.td - all ops: the only TableGen root -*- tablegen -*-===//
// Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#ifndef DL_OPS
#define DL_OPS

include "dialects/dl/DlElementwiseOps.td"
include "dialects/dl/DlTensorOps.td"
include "dialects/dl/DlProgramOps.td"

#endif
