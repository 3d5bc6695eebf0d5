#!/usr/bin/env python3
#===- train_fashion_mnist.py - examples learn Fashion-MNIST -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Trains one of the examples, mlp as tools/quickstart.sh does, and asks for a part of the test images.

train_fashion_mnist.py mlp [--bin build/bin] [--at-least 0.88]
train_fashion_mnist.py lenet --batch 64 --epochs 15 --within --at-least 0.895

With --within, after any of the epochs; else after the last one.

With --device cuda on a GPU; --libraries names the folder of the stand-in's libcuda.so.1, which takes so long that
--images N --epochs E and less accuracy are asked of it. --images needs NumPy.
"""

import argparse
import gzip
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
        raise SystemExit("train_fashion_mnist: the package dataset-fashion-mnist is not installed")
    return {key: paths[0] for key, paths in found.items()}


def first_images(path, count, folder):
    """-> a .npy file with the first entries of an IDX file"""
    import numpy as np

    with gzip.open(path) as file:
        data = file.read()
    rank = data[3]
    shape = np.frombuffer(data, ">i4", rank, 4)
    entries = np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)
    name = os.path.join(folder, os.path.basename(path) + ".npy")
    np.save(name, entries[:count])
    return name


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", help="of examples/, without its .dl")
    parser.add_argument("--bin", default=os.path.join(ROOT, "build", "bin"), help="folder of dlc and dlrun")
    parser.add_argument("--at-least", type=float, default=0.88)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="what to train on")
    parser.add_argument("--libraries", help="folder of libcuda.so.1: the stand-in's; that of the system where not given")
    parser.add_argument("--gemm", default="auto", help="what computes products on a GPU")
    parser.add_argument("--images", type=int, help="only so many, for training and for validation")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--within", action="store_true", help="the best epoch counts")
    options = parser.parse_args()
    environment = dict(os.environ, LD_LIBRARY_PATH=options.libraries) if options.libraries else None
    dlc, dlrun = (os.path.join(os.path.abspath(options.bin), name) for name in ("dlc", "dlrun"))
    with tempfile.TemporaryDirectory(prefix="dlc-train-") as work:
        artefact = os.path.join(work, options.program + ".so")
        target = ["--target=cpu,cuda", f"--gemm={options.gemm}"] if options.device == "cuda" else []
        subprocess.run([dlc, os.path.join(ROOT, "examples", options.program + ".dl"), *target, "-o", artefact], check=True)
        command = [dlrun, "train", artefact, "--batch", str(options.batch), "--epochs", str(options.epochs), "--scale", "x=1/255"]
        command += ["--checkpoint", os.path.join(work, "checkpoints"), "--device", options.device]
        for option, part in (("--data", "train"), ("--validation", "t10k")):
            for name, path in data_files(part).items():
                path = first_images(path, options.images, work) if options.images else path
                command += [option, f"{name}={path}"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment)
    last = (done.stdout.strip().split("\n") or [""])[-1]
    found = re.fullmatch(r"accuracy (\d\.\d+)", last)
    reported = "standin: " in done.stderr
    epochs = [float(each) for each in re.findall(r"^epoch .*  accuracy (\d\.\d+)  ", done.stdout, re.MULTILINE)]
    reached = 0.0 if found is None or len(epochs) != options.epochs else max(epochs) if options.within else float(found.group(1))
    good = done.returncode == 0 and not reported and reached >= options.at_least
    if not good:
        print(f"exit {done.returncode}; expected a line for each epoch and a last line 'accuracy', and at least {options.at_least}:")
        print(done.stdout[-2000:] + done.stderr[-2000:])
    print(last)
    print("1 passed, 0 failed" if good else "0 passed, 1 failed")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
