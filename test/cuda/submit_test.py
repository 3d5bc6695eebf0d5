#!/usr/bin/env python3
#===- submit_test.py - calls in two halves on CPU and GPU -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Compiles submit.dl for both targets, links submit.c with it through the typed header, and runs it: on the CPU, and on the stand-in (or with no --libraries on the machine's
driver) with many seeds. Each run is another order of the stand-in's work, and has as many seeds as --each says, since starting it takes longest. Needs a C compiler. With
--pack FILE the program is made for another machine, which runs it with --packed FILE. Ends with 'N passed, M failed'."""

import argparse
import os
import subprocess
import sys
import tempfile


def make(arguments, folder, program):
    """Compiles and links."""
    sources = os.path.dirname(os.path.abspath(__file__))
    model = os.path.join(folder, "submit")
    words = ["--target=cpu,cuda", *(["-march=x86-64-v3"] if arguments.pack else []), "-o", model + ".a", "--header=" + model + ".h"]
    subprocess.run([arguments.dlc, os.path.join(sources, "submit.dl"), *words], check=True)
    words = ["-std=c11", "-Wall", "-Wextra", "-Wcast-qual", "-pedantic", "-Werror", "-I" + folder]
    subprocess.run([arguments.cc, *words, os.path.join(sources, "submit.c"), model + ".a", "-lm", "-pthread", "-o", program], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dlc", help="not needed with --packed")
    parser.add_argument("--cc", help="not needed with --packed")
    parser.add_argument("--libraries", help="folder of the stand-in's libcuda.so.1")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--each", type=int, default=5)
    parser.add_argument("--pack", metavar="FILE", help="only make the program")
    parser.add_argument("--packed", metavar="FILE")
    arguments = parser.parse_args()
    if not arguments.packed and not (arguments.dlc and arguments.cc):
        parser.error("--dlc and --cc are needed, or --packed")
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="dlc-submit-") as folder:
        program = arguments.packed or arguments.pack or os.path.join(folder, "program")
        if not arguments.packed:
            make(arguments, folder, program)
        if arguments.pack:
            return 0
        for device, runs in (("cpu", 1), ("cuda", arguments.runs)):
            for seed in range(1, runs + 1):
                environment = dict(os.environ, DLC_STANDIN_SEED=str(seed))
                if arguments.libraries:
                    environment["LD_LIBRARY_PATH"] = arguments.libraries
                done = subprocess.run([program, device, str(seed * 1000), str(arguments.each), folder], capture_output=True, text=True, env=environment, timeout=300)
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
