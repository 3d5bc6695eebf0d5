#!/usr/bin/env bash
#===- gpu-check.sh - checks and measures on a GPU machine what was compiled elsewhere ---===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
# Two steps on two machines:
#
#   tools/gpu-check.sh pack FOLDER [--bin DIR]      where dlc is built: compiles the programs and puts all that is needed into FOLDER
#   FOLDER/tools/gpu-check.sh run [--output PAGE]   where the GPU is: tests, compute-sanitizer and benchmark; writes FOLDER/docs/gpu-results.md
#
# There it needs a driver and Python 3; no compiler, no LLVM, no network. NumPy, PyTorch, JAX, cuBLASLt and compute-sanitizer are used where
# they are installed, and what lacks them is left out with a word. PYTHON=… names the interpreter that has them. Exits 1 where a check failed.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
exec "${PYTHON:-python3}" "$root/test/cuda/gpu_check.py" "$@"
