#!/usr/bin/env python3
#===- layers.py - derivatives of derivatives and layers as values against NumPy -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Trains the models of cases/layers.dl, in f64, and compares results and variables of each step with the same written in
NumPy: a gradient penalty (with Adam, accumulation, clipping) beside a second train step, an average of a layer's variables, state
that goes from call to call, and MAML. One thread and two must give the same bytes.

    layers.py [--bin build/bin] [--device cuda --libraries build/standin --gemm cublaslt]

Ends with 'N passed, M failed'. Needs NumPy only.
"""

import argparse
import os
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True

import numpy as np

import checkpoints

N, D, H, Z = 6, 3, 5, 2
STEPS = 10


def critic_loss(w, real, z, mix):
    """-> the loss and its gradients with respect to the critic's variables"""
    W, b, v, c = (w[f"critic.{name}"] for name in ("0.weight", "0.bias", "2.weight", "2.bias"))
    made = z @ w["generator.weight"] + w["generator.bias"]
    grads = {f"critic.{name}": np.zeros_like(w[f"critic.{name}"]) for name in ("0.weight", "0.bias", "2.weight", "2.bias")}

    def add(dW, db, dv, dc):
        for name, value in (("0.weight", dW), ("0.bias", db), ("2.weight", dv), ("2.bias", dc)):
            grads[f"critic.{name}"] += value

    # The slope is u W' with u = (1 - t^2) v; its length l enters as (l - 1)^2.
    x = mix * real + (1 - mix) * made
    t = np.tanh(x @ W + b)
    u = (1 - t**2) * v[:, 0]
    slope = u @ W.T
    length = np.sqrt((slope**2).sum(axis=1, keepdims=True))
    dslope = 10 * 2 / N * (length - 1) / length * slope
    du = dslope @ W
    dt = du * v[:, 0] * -2 * t * (1 - t**2)
    add(dslope.T @ u + x.T @ dt, dt.sum(axis=0), (du * (1 - t**2)).sum(axis=0)[:, None], 0)
    loss = 10 * ((length - 1) ** 2).mean()
    for points, sign in ((made, 1), (real, -1)):
        t = np.tanh(points @ W + b)
        loss += sign * (t @ v + c).mean()
        dt = sign / N * v[:, 0] * (1 - t**2)
        add(points.T @ dt, dt.sum(axis=0), sign / N * t.sum(axis=0)[:, None], sign)
    return loss, grads


def generator_loss(w, z):
    W, b, v, c = (w[f"critic.{name}"] for name in ("0.weight", "0.bias", "2.weight", "2.bias"))
    t = np.tanh((z @ w["generator.weight"] + w["generator.bias"]) @ W + b)
    dmade = (-1 / N * v[:, 0] * (1 - t**2)) @ W.T
    return -(t @ v + c).mean(), {"generator.weight": z.T @ dmade, "generator.bias": dmade.sum(axis=0)}


class Twin:
    def __init__(self, variables):
        self.w = dict(variables)
        self.sums, self.m, self.v, self.speed, self.updates, self.turn = {}, {}, {}, {}, 0, 0

    def step(self, real, z, mix):
        w = self.w
        first, grads = critic_loss(w, real, z, mix)
        for name, g in grads.items():
            self.sums[name] = self.sums.get(name, 0) + g
        self.turn += 1
        if self.turn % 2 == 0:
            grads = {name: g / 2 for name, g in self.sums.items()}
            self.sums = {}
            scale = min(1.0, 3 / (np.sqrt(sum((g**2).sum() for g in grads.values())) + 1e-6))
            self.updates += 1
            for name, g in grads.items():
                self.m[name] = 0.9 * self.m.get(name, 0) + (1 - 0.9) * g * scale
                self.v[name] = 0.999 * self.v.get(name, 0) + (1 - 0.999) * (g * scale) ** 2
                mean, square = self.m[name] / (1 - 0.9**self.updates), self.v[name] / (1 - 0.999**self.updates)
                w[name] = w[name] - 0.02 * mean / (np.sqrt(square) + 1e-8)
        second, grads = generator_loss(w, z)
        for name, g in grads.items():
            self.speed[name] = 0.9 * self.speed.get(name, 0) + g
            w[name] = w[name] - 0.1 * self.speed[name]
        for name in ("weight", "bias"):
            w[f"average.{name}"] = 0.75 * w[f"average.{name}"] + 0.25 * w[f"generator.{name}"]
        center = (z @ w["average.weight"] + w["average.bias"]).mean(axis=0)
        w["drift"] = w["drift"] + np.linalg.norm(center - w["before"])
        w["before"] = center
        return {"critic_loss": first, "generator_loss": second, "drift": w["drift"]}

    def adapt(self, x, y, x2, y2):
        w = self.w["learner.weight"]
        fast = w - 0.2 * 2 / N * x.T @ (x @ w - y)
        error = x2 @ fast - y2
        dfast = 2 / N * x2.T @ error
        self.w["learner.weight"] = w - 0.1 * (dfast - 0.2 * 2 / N * x.T @ (x @ dfast))
        return {"out": (error**2).mean()}


def main():
    parser = argparse.ArgumentParser()
    here = os.path.dirname(os.path.abspath(__file__))
    parser.add_argument("--bin", default=os.path.join(here, "..", "..", "build", "bin"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--libraries", help="folder of the libcuda.so.1 to load")
    parser.add_argument("--gemm", default="auto", help="as dlc takes it")
    options = parser.parse_args()
    passed = failed = 0

    def record(name, is_right, detail=""):
        nonlocal passed, failed
        passed, failed = passed + bool(is_right), failed + (not is_right)
        if not is_right:
            print(f"FAIL {name}: {detail}")

    def compare(name, found, expected):
        error = np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-300)
        record(name, found.shape == np.shape(expected) and error <= 1e-9, f"relative error {error:.2g}")

    environment = dict(os.environ, LD_LIBRARY_PATH=options.libraries) if options.libraries else None
    with tempfile.TemporaryDirectory() as folder:
        path = lambda name: os.path.join(folder, name)

        def run(*command):
            done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment)
            if done.returncode or "standin: " in done.stderr:
                sys.exit(f"{' '.join(command)}\n  exit {done.returncode}: {done.stderr[-2000:]}")

        dlc, dlrun = (os.path.join(options.bin, name) for name in ("dlc", "dlrun"))
        run(dlc, os.path.join(here, "cases", "layers.dl"), "--float=f64", f"--target={options.device}", f"--gemm={options.gemm}", "-o", path("layers.so"))

        def call(function, inputs, load, save, *more):
            """-> the results by name"""
            words = [word for name in inputs for word in ("--input", f"{name}={path(name + '.npy')}")]
            out = path(f"{save}-{function}")
            run(dlrun, "call", path("layers.so"), function, *words, *(["--load", path(load)] if load else []), "--save", path(save),
                "--output-dir", out, "--device", options.device, *more)
            return {name[:-4]: np.load(os.path.join(out, name)) for name in os.listdir(out)} if os.path.isdir(out) else {}

        rng = np.random.default_rng(3)
        data = {"real": (N, D), "z": (N, Z), "x": (N, D), "y": (N, 1), "x2": (N, D), "y2": (N, 1)}
        data = {name: rng.normal(size=shape) for name, shape in data.items()}
        data["mix"] = rng.uniform(size=(N, 1))
        for name, value in data.items():
            np.save(path(name + ".npy"), value)
        steps = {"step": ("real", "z", "mix"), "adapt": ("x", "y", "x2", "y2")}
        call("step", steps["step"], None, "first", "--repeat", "0")
        first, _ = checkpoints.read(path("first"))
        record("a copy starts equal", all((first[f"average.{n}"] == first[f"generator.{n}"]).all() for n in ("weight", "bias")))
        twin = Twin(first)

        # Step by step: each call goes on from the file of the one before.
        last = "first"
        for number in range(1, STEPS + 1):
            for function, inputs in steps.items():
                name = f"{function}{number}"
                results = call(function, inputs, last, name)
                expected = getattr(twin, function)(**{name: data[name] for name in inputs})
                record(f"results of {function}", results.keys() == expected.keys(), f"{list(results)}")
                for result in results.keys() & expected.keys():
                    compare(f"{result}, {name}", results[result], expected[result])
                last = name
        variables, _ = checkpoints.read(path(last))
        for name, value in twin.w.items():
            if name.split(".")[0] in ("critic", "generator", "average", "learner", "before", "drift"):
                compare(name, variables[name], value)

        # At once, on one thread and on two.
        for threads in ("1", "2"):
            call("step", steps["step"], "first", f"half{threads}", "--repeat", str(STEPS), "--threads", threads)
            call("adapt", steps["adapt"], f"half{threads}", f"whole{threads}", "--repeat", str(STEPS), "--threads", threads)
        at_once, _ = checkpoints.read(path("whole1"))
        record("calls in one process", all((at_once[name] == variables[name]).all() for name in twin.w), "other values than step by step")
        with open(path("whole1"), "rb") as one, open(path("whole2"), "rb") as two:
            record("one thread and two", one.read() == two.read(), "other bytes")
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
