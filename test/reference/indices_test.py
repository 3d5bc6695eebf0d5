#!/usr/bin/env python3
#===- indices_test.py - tensors as indices, against NumPy -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Calls the functions of cases/indices.dl and compares with what NumPy says of the same indices: values, changed elements, gradients, steps of an embedding; indices out of
range are a status of the call; one and two threads give the same bits.

    indices_test.py [--bin build/bin] [--float f64] [--march x86-64-v3] [--verbose]

Ends with 'N passed, M failed'."""

import argparse
import os
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True

import numpy as np

import checkpoints
import suite
from run_reference import REAL, Failure, Tally, Tools

V, D = 50, 24
TIMEOUT = subprocess.TimeoutExpired


class Indices:
    def __init__(self, tools, real, tally, rng):
        self.tools, self.real, self.tally, self.rng = tools, real, tally, rng
        self.type = REAL[real]
        self.artefact = tools.compile(suite.Case("indices", os.path.join(suite.HERE, "cases", "indices.dl"), []), real)
        self.start = os.path.join(tools.work, "indices.start")
        self.call("tally", dict(i=np.zeros(1, np.int32)), (), ("--repeat", 0, "--save", self.start))
        tensors, metadata = checkpoints.read(self.start)
        tensors["embed.weight"], tensors["table"], tensors["grid"] = self.draw(V, D), self.draw(V, D), self.draw(7, 5, 6, 9)
        self.variables = tensors
        checkpoints.write(self.start, tensors, metadata)

    def draw(self, *shape):
        return self.rng.integers(-64, 64, shape).astype(self.type) / self.type(16)

    def places(self, size, *shape, dtype=np.int32):
        return self.rng.integers(-size, size, shape).astype(dtype)

    def call(self, function, inputs, results=("out",), options=()):
        return self.tools.call(self.artefact, function, inputs, self.real, results, options)

    def check(self, function, inputs, expected, kind="layer"):
        """Results by name, or one; on one thread and on two, which must have the same bits."""
        expected = expected if isinstance(expected, dict) else {"out": expected}
        try:
            one = self.call(function, inputs, expected, ("--load", self.start, "--threads", 1))
            two = self.call(function, inputs, expected, ("--load", self.start, "--threads", 2))
        except (Failure, TIMEOUT) as problem:
            return self.tally.record(f"{function}.{self.real}", False, str(problem))
        for name, value in expected.items():
            self.tally.compare(f"{function}.{self.real} {name}", one[name], value, kind, self.real)
            self.tally.record(f"{function}.{self.real} {name} on two threads", one[name].tobytes() == two[name].tobytes())

    def refused(self, function, inputs, *words):
        """The call fails with these words."""
        name = f"{function}.{self.real} refused"
        try:
            self.call(function, inputs, (), ("--load", self.start))
            return self.tally.record(name, False, "an index out of range passes")
        except Failure as problem:
            missing = [word for word in words if word not in str(problem)]
            return self.tally.record(name, not missing, f"no '{missing}' in {problem}")

    def reads(self, n):
        table, grid, embed = self.variables["table"], self.variables["grid"], self.variables["embed.weight"]
        i, k = self.places(V, n), self.places(V, n, 3, dtype=np.int64)
        self.check("rows", dict(i=i), embed[i], "exact")
        self.check("matrix", dict(i=k), table[k], "exact")
        x = self.draw(40)
        self.check("numbers", dict(x=x, i=self.places(40, n) * 0 + 7), x[np.full(n, 7)], "exact")
        j = self.places(40, n)
        self.check("numbers", dict(x=x, i=j), x[j], "exact")
        b = self.rng.integers(0, V, n).astype(np.uint8)
        self.check("bytes", dict(i=b), table[b], "exact")
        d = self.places(D, n)
        self.check("pairs", dict(i=i, j=d), table[i, d], "exact")
        f = self.places(D, 4)
        self.check("open", dict(i=i, j=f), table[i[:, None], f], "exact")
        g5, g6 = self.places(5, n), self.places(6, n)
        self.check("together", dict(i=g5, j=g6), grid[:, g5, g6], "exact")
        g7 = self.places(7, n)
        self.check("apart", dict(i=g7, j=g6), grid[g7, :, g6], "exact")
        g = self.places(5, n)
        self.check("with_number", dict(i=g), dict(a=grid[:, 2, g], b=grid[1, :, g], c=grid[g, ..., 3]), "exact")
        self.check("with_slice", dict(i=g), dict(a=grid[::-2, g, 1:4, None], b=grid[1:3, 1:, g]), "exact")
        x, y = self.draw(n, D), self.draw(3, n, D)
        for t in (0, -D, D - 1, -1, 5):
            self.check("column", dict(x=x, t=np.int32(t)), x[:, t], "exact")
        for t in (0, n - 1, -n):
            self.check("slice", dict(x=y, t=np.int64(t)), y[:, t], "exact")
        p = self.draw(n, D)
        self.check("fused", dict(i=i, p=p), np.maximum(embed[i] + p, 0) @ table.T[:, :5])
        s = self.draw(n, V)
        self.check("next", dict(x=s), table[np.argmax(s, axis=1)], "exact")

    def writes(self, n):
        i = self.places(V, n)
        x, y = self.draw(V, D), self.draw(n, D)
        z = x.copy()
        z[i] = y
        self.check("assigned", dict(x=x, i=i, y=y), z, "exact")
        a, b, c = x.copy(), x.copy(), x.copy()
        np.add.at(a, i, y)
        np.subtract.at(b, i, 2 * y)
        c[i] *= 3
        self.check("added", dict(x=x, i=i, y=y), dict(a=a, b=b, c=c))
        x, y, i = self.draw(7, 11), self.draw(7, n), self.places(11, n)
        a, b = x.copy(), x.copy()
        np.add.at(a, (slice(None), i), y)
        b[1:6, i] = y[1:6]
        self.check("columns", dict(x=x, i=i, y=y), dict(a=a, b=b))
        x, i, j = self.draw(7, 5, 9), self.places(7, n), self.places(5, n)
        a, b = x.copy(), x.copy()
        np.add.at(a, (i, j), 1)
        b[i, 2, j] = 4
        self.check("places", dict(x=x, i=i, j=j), dict(a=a, b=b), "exact")
        x, y = self.draw(6, 9), self.draw(9)
        for t in (0, 5, -1):
            z = x.copy()
            z[t] = y
            z[:, t] += 1
            self.check("one", dict(x=x, t=np.int32(t), y=y), z, "exact")
        i, y = self.places(V, n), self.rng.integers(-100, 100, n).astype(np.int8)
        a, b = np.zeros(V, np.int8), np.zeros(V, bool)
        np.add.at(a, i, y)
        b[i] = True
        self.check("kinds", dict(i=i, y=y), dict(a=a, b=b))
        i, y = self.places(900, n), self.draw(n, 700)
        z = np.zeros((900, 700), self.type)
        np.add.at(z, i, y)
        self.check("wide", dict(i=i, y=y), z)

    def gradients(self, n):
        table = self.variables["table"].astype(np.float64)
        i, y = self.places(V, n, 2), self.draw(n, 2, D)
        g = np.zeros((V, D))
        np.add.at(g, i, 2 * table[i] * y)
        self.check("gradients", dict(i=i, y=y), dict(l=np.sum(table[i] ** 2 * y), g=g))
        i, y = self.places(V, n), self.draw(n, D)
        g, h = np.zeros((V, D)), np.zeros((V, D))
        np.add.at(g, i, 3 * table[i] ** 2 * y)
        np.add.at(h, i, 6 * table[i] * y)
        self.check("second", dict(i=i, y=y), 2 * g * h)
        x, w = self.draw(V, D), self.draw(V, D)
        gx, gy, last = w.copy(), np.zeros((n, D), self.type), {}
        gx[i] = 0
        for number, place in enumerate(i):
            last[place % V] = number
        for place, number in last.items():
            gy[number] = w[place]
        self.check("last_counts", dict(x=x, i=i, y=y, w=w), dict(gx=gx, gy=gy), "exact")

    def steps(self, n):
        """Variables after steps; the same bytes on one thread and on two."""
        i, y = self.places(V, n), self.draw(n, D)
        table, embed = self.variables["table"].astype(np.float64), self.variables["embed.weight"].astype(np.float64)
        m, v = np.zeros_like(embed), np.zeros_like(embed)
        count = np.zeros(V, np.int64)
        for t in range(1, 6):
            np.subtract.at(table, i, 0.2 * (table[i] - y))
            g = np.zeros_like(embed)
            np.add.at(g, i, 2 * (embed[i] - y) / (n * D))
            m = 0.9 * m + 0.1 * g
            v = 0.999 * v + 0.001 * g * g
            embed -= 0.05 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            np.add.at(count, i, 1)
        left = []
        for threads in (1, 2):
            path = os.path.join(self.tools.work, f"steps.{threads}")
            for function, inputs in (("sparse", dict(i=i, y=y)), ("step", dict(i=i, y=y)), ("tally", dict(i=i))):
                options = ("--load", self.start if function == "sparse" else path, "--save", path, "--repeat", 5, "--threads", threads)
                self.call(function, inputs, (), options)
            left.append(open(path, "rb").read())
        tensors, _ = checkpoints.read(path)
        self.tally.compare(f"sparse.{self.real} table", tensors["table"], table, "training", self.real)
        self.tally.compare(f"step.{self.real} embed.weight", tensors["embed.weight"], embed, "training", self.real)
        self.tally.compare(f"tally.{self.real} count", tensors["count"], count, "exact", self.real)
        self.tally.record(f"steps.{self.real} on two threads", left[0] == left[1])

    def refusals(self):
        y = self.draw(4, D)
        self.refused("rows", dict(i=np.array([0, 3, V, -V - 1], np.int32)), "index 50 at element 2 is out of range for size 50", "indices.dl:")
        self.refused("rows", dict(i=np.array([0, -V - 1], np.int32)), "index -51 at element 1 is out of range for size 50")
        self.refused("matrix", dict(i=np.array([[0, 1, 2**40]], np.int64)), f"index {2**40} at element 2 is out of range")
        self.refused("bytes", dict(i=np.array([255], np.uint8)), "index 255 at element 0 is out of range for size 50")
        self.refused("column", dict(x=y, t=np.int32(D)), f"index {D} is out of range for size {D}")
        self.refused("slice", dict(x=self.draw(3, 4, D), t=np.int64(4)), "index 4 is out of range for size N")
        self.refused("sparse", dict(i=np.array([0, 1, 2, V], np.int32), y=y), "index 50 at element 3 is out of range for size 50")
        self.refused("step", dict(i=np.array([0, 1, 2, V], np.int32), y=y), "index 50 at element 3 is out of range for size 50")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default=os.path.join(suite.HERE, "..", "..", "build", "bin"))
    parser.add_argument("--float", choices=["f64", "f32"], action="append")
    parser.add_argument("--march", default="")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    tally = Tally(options.verbose)
    with tempfile.TemporaryDirectory(prefix="dlc-indices-") as work:
        tools = Tools(os.path.abspath(options.bin), work, options.march)
        for real in options.float or ["f64", "f32"]:
            try:
                test = Indices(tools, real, tally, np.random.default_rng(1))
                for n in (1, 37):
                    test.reads(n)
                    test.writes(n)
                    test.gradients(n)
                    test.steps(n)
                test.writes(700)
                test.gradients(700)
                test.refusals()
            except (Failure, TIMEOUT) as problem:
                tally.record(f"indices.{real}", False, str(problem))
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 0 if tally.passed and not tally.failed else 1


if __name__ == "__main__":
    sys.exit(main())
