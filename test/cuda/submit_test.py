#!/usr/bin/env python3
#===- submit_test.py - calls in two halves on CPU and GPU -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Compiles submit.dl for both targets, links submit.c with it through the typed header, and runs it: on the CPU, and on the stand-in (or with no --libraries on the machine's
driver) with many seeds. Each run is another order of the stand-in's work, and has as many seeds as --each says, since starting it takes longest. Needs a C compiler.
Ends with 'N passed, M failed'."""

import argparse
import os
import subprocess
import sys
import tempfile


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dlc", required=True)
    parser.add_argument("--cc", required=True)
    parser.add_argument("--libraries", help="folder of the stand-in's libcuda.so.1")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--each", type=int, default=5)
    arguments = parser.parse_args()
    sources = os.path.dirname(os.path.abspath(__file__))
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="dlc-submit-") as folder:
        path = lambda name: os.path.join(folder, name)
        subprocess.run([arguments.dlc, os.path.join(sources, "submit.dl"), "--target=cpu,cuda", "-o", path("submit.a"), "--header=" + path("submit.h")], check=True)
        subprocess.run([*arguments.cc.split(), "-std=c11", "-Wall", "-Wextra", "-Wcast-qual", "-pedantic", "-Werror", "-I" + folder,
                        os.path.join(sources, "submit.c"), path("submit.a"), "-lm", "-pthread", "-o", path("submit")], check=True)
        for device, runs in (("cpu", 1), ("cuda", arguments.runs)):
            for seed in range(1, runs + 1):
                environment = dict(os.environ, DLC_STANDIN_SEED=str(seed))
                if arguments.libraries:
                    environment["LD_LIBRARY_PATH"] = arguments.libraries
                done = subprocess.run([path("submit"), device, str(seed * 1000), str(arguments.each), folder], capture_output=True, text=True, env=environment, timeout=300)
                # The stand-in reports on stderr.
                if (done.returncode, done.stdout, done.stderr) == (0, "same bits\n", ""):
                    passed += 1
                else:
                    failed += 1
                    print(f"FAILED {device}, seed {seed}: {done.stdout}{done.stderr}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
