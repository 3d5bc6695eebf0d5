#!/usr/bin/env python3
#===- loops.py - a differentiated loop against NumPy -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Trains the LSTM of cases/loops.dl for 20 steps, in f64, and compares losses and variables with the same written in NumPy:
forward, backward through time, clipping and Adam. One thread and two must give the same bytes.

    loops.py [--bin build/bin]

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

N, T, D, H, V = 4, 6, 5, 7, 3
STEPS = 20


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def loss_and_gradients(w, x, target):
    h, c, kept, out = np.zeros((N, H)), np.zeros((N, H)), [], np.zeros((N, T, H))
    for t in range(T):
        z = np.concatenate([x[:, t], h], axis=1)
        a = z @ w["gates.weight"] + w["gates.bias"]
        i, f, g, o = sigmoid(a[:, :H]), sigmoid(a[:, H : 2 * H]), np.tanh(a[:, 2 * H : 3 * H]), sigmoid(a[:, 3 * H :])
        before, c = c, f * c + i * g
        h = o * np.tanh(c)
        out[:, t] = h
        kept.append((z, i, f, g, o, before, c))
    scores = out @ w["head.weight"] + w["head.bias"]
    shifted = scores - scores.max(axis=2, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=2, keepdims=True))
    rows = np.arange(N)[:, None], np.arange(T)[None, :], target
    loss = -logs[rows].mean()
    dscores = np.exp(logs)
    dscores[rows] -= 1
    dscores /= N * T
    grads = {name: np.zeros_like(value) for name, value in w.items()}
    grads["head.weight"] = np.einsum("nth,ntv->hv", out, dscores)
    grads["head.bias"] = dscores.sum(axis=(0, 1))
    dout = dscores @ w["head.weight"].T
    dh, dc = np.zeros((N, H)), np.zeros((N, H))
    for t in reversed(range(T)):
        z, i, f, g, o, before, c = kept[t]
        dh = dh + dout[:, t]
        dc = dc + dh * o * (1 - np.tanh(c) ** 2)
        da = np.concatenate(
            [dc * g * i * (1 - i), dc * before * f * (1 - f), dc * i * (1 - g**2), dh * np.tanh(c) * o * (1 - o)], axis=1
        )
        grads["gates.weight"] += z.T @ da
        grads["gates.bias"] += da.sum(axis=0)
        dh = (da @ w["gates.weight"].T)[:, D:]
        dc = dc * f
    return loss, grads


def train(w, x, target):
    m, v, losses = {k: 0 * a for k, a in w.items()}, {k: 0 * a for k, a in w.items()}, []
    for step in range(1, STEPS + 1):
        loss, grads = loss_and_gradients(w, x, target)
        losses.append(loss)
        norm = np.sqrt(sum((g**2).sum() for g in grads.values())) + 1e-6
        for name in w:
            g = grads[name] * min(1.0, 1.0 / norm)
            m[name] = 0.9 * m[name] + (1 - 0.9) * g
            v[name] = 0.999 * v[name] + (1 - 0.999) * g**2
            w[name] = w[name] - 2e-3 * (m[name] / (1 - 0.9**step)) / (np.sqrt(v[name] / (1 - 0.999**step)) + 1e-8)
    return losses


def main():
    parser = argparse.ArgumentParser()
    here = os.path.dirname(os.path.abspath(__file__))
    parser.add_argument("--bin", default=os.path.join(here, "..", "..", "build", "bin"))
    options = parser.parse_args()
    passed = failed = 0

    def record(name, is_right, detail=""):
        nonlocal passed, failed
        passed, failed = passed + is_right, failed + (not is_right)
        if not is_right:
            print(f"FAIL {name}: {detail}")

    with tempfile.TemporaryDirectory() as folder:
        path = lambda name: os.path.join(folder, name)

        def run(*command):
            return subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout

        dlc, dlrun = (os.path.join(options.bin, name) for name in ("dlc", "dlrun"))
        run(dlc, os.path.join(here, "cases", "loops.dl"), "--float=f64", "-o", path("loops.so"))
        rng = np.random.default_rng(1)
        x, target = rng.normal(size=(N, T, D)), rng.integers(0, V, size=(N, T)).astype(np.int32)
        np.save(path("x.npy"), x)
        np.save(path("target.npy"), target)
        inputs = ["--input", f"x={path('x.npy')}", "--input", f"target={path('target.npy')}"]
        run(dlrun, "call", path("loops.so"), "loss", *inputs, "--repeat", "0", "--save", path("first.safetensors"))
        first, _ = checkpoints.read(path("first.safetensors"))
        w = {name: first[name] for name in ("gates.weight", "gates.bias", "head.weight", "head.bias")}
        losses = train(w, x, target)

        for threads in (1, 2):
            out = path(f"out{threads}")
            run(dlrun, "call", path("loops.so"), "step", *inputs, "--load", path("first.safetensors"), "--repeat", str(STEPS),
                "--threads", str(threads), "--save", path(f"last{threads}.safetensors"), "--output-dir", out)
            loss = np.load(os.path.join(out, os.listdir(out)[0]))
            record(f"loss, {threads} threads", abs(loss - losses[-1]) <= 1e-9 * abs(losses[-1]), f"{loss} and {losses[-1]}")
        last, _ = checkpoints.read(path("last1.safetensors"))
        for name, value in w.items():
            error = np.abs(last[name] - value).max() / np.abs(value).max()
            record(name, error <= 1e-9, f"relative error {error:.2g}")
        with open(path("last1.safetensors"), "rb") as one, open(path("last2.safetensors"), "rb") as two:
            record("one thread and two", one.read() == two.read(), "other bytes")
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
