#!/usr/bin/env python3
#===- chunks_test.py - reductions in chunks, of sizes known early and late -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Compiles chunks.dl for numbers of rows that are known when it is compiled, and for one that each call decides. On the GPU both must give the same bits (but for sums of
less than 32 rows, whose threads share them in another way where that is known), twice, and what NumPy computes in f64. The stand-in counts how many kernels a call takes.
Ends with 'N passed, M failed'."""

import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

from compare import read_variables

HERE = os.path.dirname(os.path.abspath(__file__))
# Rows, and how many kernels `sums` takes of them: a second one from 512 on, where a thread would add 16.
ROWS = {1: 1, 32: 1, 511: 1, 512: 2, 3000: 2, 40000: 2}
EXPECTED = {
    "sums": lambda x: x.sum(0),
    "largest": lambda x: x.max(0),
    "many_columns": lambda x: x.sum(0),
    "two": lambda x: np.sqrt((x * x).sum(0)) - np.abs(x).sum(0),
    "step": lambda x: None,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="folder of dlc and dlrun")
    parser.add_argument("--libraries", required=True, help="folder of the stand-in's libcuda.so.1")
    arguments = parser.parse_args()
    passed = failed = 0

    def check(what, right):
        nonlocal passed, failed
        passed, failed = passed + bool(right), failed + (not right)
        if not right:
            print(f"FAILED {what}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        path = lambda *names: os.path.join(folder, *names)

        def compiled(name, *flags):
            words = [os.path.join(arguments.bin, "dlc"), os.path.join(HERE, "chunks.dl"), "--target=cuda", "--gpu-arch=sm_90", *flags, "-o", path(name)]
            subprocess.run(words, check=True)
            return path(name)

        def call(artefact, function, x):
            """-> the bytes of results and variables, the result, how many kernels ran"""
            os.makedirs(path("out"), exist_ok=True)
            for old in os.listdir(path("out")):
                os.remove(path("out", old))
            np.save(path("x.npy"), x)
            words = [os.path.join(arguments.bin, "dlrun"), "call", artefact, function, "--device", "cuda", "--input", "x=" + path("x.npy")]
            words += ["--output-dir", path("out"), "--save", path("variables")]
            environment = dict(os.environ, LD_LIBRARY_PATH=arguments.libraries, DLC_STANDIN_COUNTERS=path("counters.json"))
            done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=300)
            if done.returncode or "standin:" in done.stderr:
                sys.exit(f"{function} of {len(x)} rows: {done.stdout}{done.stderr}")
            result = np.load(path("out", "out.npy"))
            with open(path("counters.json")) as file:
                counts = json.load(file)
            variables = {name: value.tobytes() for name, value in read_variables(path("variables")).items()}
            return (result.tobytes(), variables), result, counts["kernel_launches"] + counts["graph_kernel_launches"]

        late = compiled("late.so")
        for rows, kernels in ROWS.items():
            early = compiled(f"{rows}.so", "-D", f"N={rows}")
            for function, expected in EXPECTED.items():
                x = np.random.default_rng(rows).standard_normal((rows, 130 if function == "many_columns" else 5)).astype(np.float32)
                what = f"{function} of {rows} rows"
                bits, result, count = call(late, function, x)
                check(f"{what}: the same bits where the compiler knows the number", call(early, function, x)[0] == bits)
                check(f"{what}: the same bits twice", call(late, function, x)[0] == bits)
                value = expected(x.astype(np.float64))
                if value is not None:
                    error = np.max(np.abs(result - value)) / max(1.0, np.max(np.abs(value)))
                    check(f"{what}: differs by {error:.3g} of the largest", error < 2e-6)
                if function == "sums":
                    check(f"{what}: {count} kernels instead of {kernels}", count == kernels)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
