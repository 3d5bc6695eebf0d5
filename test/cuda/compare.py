#!/usr/bin/env python3
#===- compare.py - programs on the GPU and on the CPU -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Compiles programs for both targets into one artefact and calls each function on both, from the same seed and inputs: results and variables must agree, to rounding where
numbers are added up and to the bit elsewhere, and the GPU must give the same bits twice. With --artefacts FOLDER what was compiled stays there, and what is there is not
compiled; with --march=… and --compile-only that is for another machine. --libraries is a folder with a libcuda.so.1, the stand-in's or none for the
driver of the system; --gemm, --float and --tf32 go to dlc, and with the last one results differ by as much as TF32 makes them. Ends with 'N passed, M failed'."""

import argparse
import json
import os
import re
import struct
import subprocess
import sys
import tempfile

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from small_sizes import defines

TYPES = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64, "bool": np.bool_}
SAFETENSORS = {"F32": np.float32, "F64": np.float64, "I32": np.int32, "I64": np.int64}
# Functions whose elements are computed by the same operations in the same order on both targets.
EXACT = {"flat", "special", "remainder", "wide", "whole", "mask", "bias", "bias_aligned", "turned", "joined", "reversed", "row_long", "row_best", "row_worst", "row_any",
         "column_max", "column_best", "sum_i64", "chunked", "noise", "gauss", "dice", "gathered", "gathered_odd", "gathered_numbers", "gathered_one", "added_rows", "added_numbers",
         "added_columns", "put_columns", "put_rows", "embedding_gradient", "changed_rows"}

# Elements whose gradient is 0 but for rounding, and whose optimizer divides it by its size: of a program's variables with such a name, which third, and the most that calls change it by.
# A bias of keys adds the same to all of a query's scores, which softmax does not see.
ROUNDING_ALONE = {("gpt", "attn.qkv.bias"): (1, 2 * 3e-4)}


def run(command, libraries):
    environment = dict(os.environ)
    if libraries:
        environment["LD_LIBRARY_PATH"] = libraries
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    return done.returncode, done.stdout + done.stderr


def read_variables(path):
    with open(path, "rb") as file:
        data = file.read()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    variables = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            variables[name] = np.frombuffer(data[8 + length + begin : 8 + length + end], SAFETENSORS[entry["dtype"]])
    return variables


def signatures(info):
    """name -> [(argument, type, dims or None)] from `dlrun info`"""
    found = {}
    for line in info.splitlines():
        match = re.match(r"^  (\w+)\((.*?)\)(?: -> .*)?   \(", line)
        if match:
            arguments = []
            for text in re.findall(r"(\w+): (\w+)(?:\[([^\]]*)\])?( = [^,]+)?", match.group(2)):
                if not text[3]:
                    arguments.append((text[0], text[1], [d.strip() for d in text[2].split(",")] if text[2] else []))
            found[match.group(1)] = arguments
    return found


def make_inputs(arguments, rows, folder, rng):
    flags = []
    for name, dtype, dims in arguments:
        shape = [int(eval(d, {}, {"N": rows})) for d in dims]
        if dtype.startswith("f"):
            array = rng.standard_normal(shape).astype(TYPES[dtype])
        else:
            array = rng.integers(1, 10, shape).astype(TYPES[dtype])
        path = os.path.join(folder, name + ".npy")
        np.save(path, array)
        flags.append(f"{name}={path}")
    return ["--input", *flags] if flags else []


def differ(name, a, b, exact, tf32):
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{name}: {a.dtype}{a.shape} and {b.dtype}{b.shape}"
    if exact or not np.issubdtype(a.dtype, np.floating):
        same = np.array_equal(a, b, equal_nan=np.issubdtype(a.dtype, np.floating))
        return None if same else f"{name}: {np.count_nonzero(a != b)} of {a.size} elements differ"
    tolerance = 1e-12 if a.dtype != np.float32 else 4e-3 if tf32 else 2e-5
    scale = float(np.max(np.abs(a), initial=1.0))
    error = float(np.max(np.abs(a.astype(np.float64) - b.astype(np.float64)), initial=0.0)) / scale
    return None if error <= tolerance else f"{name}: differs by {error:.3g} of the largest, more than {tolerance}"


def differ_but_for_noise(program, name, a, b, exact, tf32):
    """The same of a program's variable, of whose elements some are rounding errors alone."""
    for (of, ending), (third, most) in ROUNDING_ALONE.items():
        # Not the optimizer's own, which are not divided.
        if of == program and name.startswith("variable blocks.") and name.endswith(ending) and a.shape == b.shape:
            parts, others = np.array_split(a.ravel(), 3), np.array_split(b.ravel(), 3)
            apart = float(np.max(np.abs(parts.pop(third) - others.pop(third))))
            if not apart <= 2 * most:
                return f"{name}: elements that rounding alone changes are {apart:.3g} apart, more than twice {most}"
            a, b = np.concatenate(parts), np.concatenate(others)
    return differ(name, a, b, exact, tf32)


class Comparison:
    def __init__(self, arguments):
        self.arguments, self.passed, self.failed, self.isRounded = arguments, 0, 0, False

    def report(self, what, problem):
        if problem:
            self.failed += 1
            print(f"FAILED {what}: {problem}", flush=True)
        else:
            self.passed += 1

    def program(self, path, folder):
        tool = lambda name: os.path.join(self.arguments.bin, name)
        name = os.path.splitext(os.path.basename(path))[0]
        artefact = os.path.join(self.arguments.artefacts or folder, name + ".so")
        if not self.arguments.artefacts or not os.path.exists(artefact):
            words = [tool("dlc"), path, "--target=cpu,cuda", f"--gemm={self.arguments.gemm}", f"--float={self.arguments.float}", *["--tf32"] * self.arguments.tf32, f"-march={self.arguments.march}", *defines(path), "-o", artefact]
            code, text = run(words, None)
            if code:
                return self.report(name, "does not compile: " + text.strip())
        if self.arguments.compile_only:
            return self.report(name, None)
        code, text = run([tool("dlrun"), "info", artefact], None)
        functions = signatures(text)
        if not functions:
            return self.report(name, "has no functions")
        for function, arguments in functions.items():
            if self.arguments.functions and function not in self.arguments.functions:
                continue
            for rows in self.arguments.rows if any("N" in d for _, _, dims in arguments for d in dims) else [1]:
                self.call(tool("dlrun"), name, artefact, function, arguments, rows, folder)

    def call(self, dlrun, name, artefact, function, arguments, rows, folder):
        inputs = make_inputs(arguments, rows, folder, np.random.default_rng(rows))
        outputs = []
        # What has the CPU's bits has the same ones twice.
        for turn, device in enumerate(["cpu", "cuda"] if function in EXACT else ["cpu", "cuda", "cuda"]):
            place = os.path.join(folder, f"{turn}")
            os.makedirs(place, exist_ok=True)
            for old in os.listdir(place):
                os.remove(os.path.join(place, old))
            command = [dlrun, "call", artefact, function, "--device", device, "--repeat", "2", *inputs, "--output-dir", place, "--save", os.path.join(place, "variables")]
            code, text = run(command, self.arguments.libraries)
            what = f"{name}.{function} with {rows} rows on {device}"
            wrong = [line for line in text.splitlines() if line.startswith("standin:")]
            if code or wrong:
                return self.report(what, (wrong or [text.strip()])[0])
            found = {file: np.load(os.path.join(place, file)) for file in sorted(os.listdir(place)) if file.endswith(".npy")}
            found.update({"variable " + key: value for key, value in read_variables(os.path.join(place, "variables")).items()})
            outputs.append(found)
        what = f"{name}.{function} with {rows} rows"
        for key, value in outputs[0].items():
            self.report(what, differ_but_for_noise(name, key, value, outputs[1][key], function in EXACT, self.arguments.tf32))
            self.isRounded |= differ(key, value, outputs[1][key], False, False) is not None
        if len(outputs) > 2:
            self.report(what + " twice", next((p for p in (differ(key, value, outputs[2][key], True, False) for key, value in outputs[1].items()) if p), None))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("programs", nargs="+")
    parser.add_argument("--bin", required=True, help="folder of dlc and dlrun")
    parser.add_argument("--libraries", help="folder of libcuda.so.1")
    parser.add_argument("--gemm", default="auto")
    parser.add_argument("--float", default="f32", help="what f32 means in the programs")
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--march", default="native")
    parser.add_argument("--artefacts", help="folder of compiled programs")
    parser.add_argument("--compile-only", action="store_true")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 37])
    parser.add_argument("--functions", nargs="+", help="only these")
    arguments = parser.parse_args()
    comparison = Comparison(arguments)
    with tempfile.TemporaryDirectory() as folder:
        for path in arguments.programs:
            comparison.program(path, folder)
    if arguments.tf32:
        comparison.report("TF32", None if comparison.isRounded else "no result differs by more than in f32")
    print(f"{comparison.passed} passed, {comparison.failed} failed")
    return 1 if comparison.failed or not comparison.passed else 0


if __name__ == "__main__":
    sys.exit(main())
