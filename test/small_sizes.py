#===- small_sizes.py - examples at sizes that a test has time for -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Parameters of examples whose own sizes are those of a real model, for tests that run every example."""

import os

PARAMETERS = {
    "char_lstm": dict(N=2, T=4, V=11, H=6),
    "gpt": dict(N=2, T=35, V=19, d=24, heads=3, depth=2),
    "vae": dict(D=40, width=32),
}


def defines(program):
    """-> the words for dlc that make the program at `program` small"""
    name = os.path.splitext(os.path.basename(program))[0]
    return [word for key, value in PARAMETERS.get(name, {}).items() for word in ("-D", f"{key}={value}")]
