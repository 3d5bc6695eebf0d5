#!/usr/bin/env python3
#===- train_mlp.py - examples/mlp.dl learns Fashion-MNIST -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Trains as tools/quickstart.sh does and asks for 88 % of the test images.

train_mlp.py [--bin build/bin] [--at-least 0.88]
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def data_files(part):
    """-> {argument: file} of one half of Debian's package dataset-fashion-mnist"""
    listed = subprocess.run(["dpkg", "-L", "dataset-fashion-mnist"], capture_output=True, text=True).stdout.split("\n")
    names = {"x": f"{part}-images-idx3-ubyte.gz", "label": f"{part}-labels-idx1-ubyte.gz"}
    found = {key: [path for path in listed if os.path.basename(path) == name] for key, name in names.items()}
    if not all(found.values()):
        raise SystemExit("train_mlp: the package dataset-fashion-mnist is not installed")
    return {key: paths[0] for key, paths in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bin", default=os.path.join(ROOT, "build", "bin"), help="folder of dlc and dlrun")
    parser.add_argument("--at-least", type=float, default=0.88)
    options = parser.parse_args()
    dlc, dlrun = (os.path.join(os.path.abspath(options.bin), name) for name in ("dlc", "dlrun"))
    with tempfile.TemporaryDirectory(prefix="dlc-mlp-") as work:
        artefact = os.path.join(work, "mlp.so")
        subprocess.run([dlc, os.path.join(ROOT, "examples", "mlp.dl"), "-o", artefact], check=True)
        command = [dlrun, "train", artefact, "--batch", "128", "--epochs", "8", "--scale", "x=1/255"]
        command += ["--checkpoint", os.path.join(work, "checkpoints")]
        for option, part in (("--data", "train"), ("--validation", "t10k")):
            for name, path in data_files(part).items():
                command += [option, f"{name}={path}"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    last = (done.stdout.strip().split("\n") or [""])[-1]
    found = re.fullmatch(r"accuracy (\d\.\d+)", last)
    good = done.returncode == 0 and found is not None and float(found.group(1)) >= options.at_least
    if not good:
        print(f"exit {done.returncode}; expected a last line 'accuracy' with at least {options.at_least}:")
        print(done.stdout[-2000:] + done.stderr[-2000:])
    print(last)
    print("1 passed, 0 failed" if good else "0 passed, 1 failed")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
