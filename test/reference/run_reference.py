#!/usr/bin/env python3
#===- run_reference.py - compiled programs against stored figures -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Compiles the programs of suite.py, runs them with dlrun, in f64 and in f32, and compares with PyTorch's figures.

Random numbers are compared with philox.py: initial values, the masks of dropout, and the training of mlp.dl, dropout
included, against a NumPy twin (which is itself held to PyTorch's figures).

    run_reference.py [--bin build/bin] [--filter 'two_*'] [--verbose]

With --device cuda the programs run on a GPU; --libraries names the folder of the stand-in's libcuda.so.1 (test/standin), and
what that reports is a failure. Figures and tolerances are the same. A call of many steps is then one process instead of
one for each step, so that of the results the last ones are compared; the variables show what every step did.

Ends with 'N passed, M failed'. Needs NumPy only.
"""

import argparse
import fnmatch
import os
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True

import numpy as np

import checkpoints
import suite
from philox import normal, uniform

REAL = {"f64": np.float64, "f32": np.float32}


class Failure(Exception):
    """A command did not do what it should."""


def run(*command, libraries=None):
    environment = dict(os.environ, LD_LIBRARY_PATH=libraries) if libraries else None
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )
    reported = "standin: " in done.stderr  # by the stand-in, whatever the program made of it
    if done.returncode != 0 or reported:
        words = (done.stderr or done.stdout).strip()[-2000:]
        raise Failure(f"{' '.join(map(str, command))}\n  exit {done.returncode}: {words}")
    return done.stdout


class Tally:
    def __init__(self, verbose):
        self.verbose, self.passed, self.failed = verbose, 0, 0

    def record(self, name, passed, detail=""):
        if passed:
            self.passed += 1
        else:
            self.failed += 1
        if self.verbose or not passed:
            print(f"{'ok  ' if passed else 'FAIL'} {name}{': ' if detail else ''}{detail}", flush=True)

    def compare(self, name, actual, expected, kind, real):
        """`kind` names the row of suite.TOLERANCE; whole numbers and bools must be equal."""
        actual, expected = np.asarray(actual), np.asarray(expected)
        if actual.shape != expected.shape:
            return self.record(name, False, f"shape {list(actual.shape)}, expected {list(expected.shape)}")
        if expected.dtype.kind != "f" or name.endswith((".t", ".good_steps")):  # PyTorch counts its steps in floating point
            wrong = np.flatnonzero((actual != expected).reshape(-1))
            same_kind = (actual.dtype.kind == "b") == (expected.dtype.kind == "b")
            if wrong.size or not same_kind:
                at = int(wrong[0]) if wrong.size else 0
                return self.record(
                    name,
                    False,
                    f"element {at} is {actual.reshape(-1)[at]} ({actual.dtype}), "
                    f"expected {expected.reshape(-1)[at]} ({expected.dtype})",
                )
            return self.record(name, True)
        if actual.dtype != REAL[real]:
            return self.record(name, False, f"{actual.dtype}, expected {real}")
        error, at = relative_error(actual.astype(np.float64), expected, elementwise=kind == "elementwise")
        bound = suite.TOLERANCE[kind][real]
        detail = f"error {error:.1e}, allowed {bound:.0e}"
        if not error <= bound:
            detail += f"; element {at} is {actual.reshape(-1)[at]!r}, expected {expected.reshape(-1)[at]!r}"
        self.record(name, error <= bound, detail)


def relative_error(actual, expected, elementwise):
    """-> (largest error, where). Infinities, NaN must be in the same places. Otherwise an error counts as a part of the
    array's largest element; elementwise, of the expected element, or of the array's mean size where that is larger."""
    actual, expected = actual.reshape(-1), expected.reshape(-1)
    if expected.size == 0:
        return 0.0, 0
    finite = np.isfinite(expected)
    same = np.where(np.isnan(expected), np.isnan(actual), actual == expected)
    wrong = np.flatnonzero(~finite & ~same)
    if wrong.size:
        return np.inf, int(wrong[0])
    if not finite.any():
        return 0.0, 0
    size = np.abs(np.where(finite, expected, 0))
    scale = np.maximum(size, size.sum() / finite.sum()) if elementwise else np.full_like(size, size.max())
    with np.errstate(invalid="ignore"):
        error = np.abs(actual - expected) / np.where(scale > 0, scale, 1)
    error = np.where(finite, np.where(np.isfinite(actual), error, np.inf), 0)
    at = int(np.argmax(error))
    return float(error[at]), at


class Tools:
    def __init__(self, folder, work, march="", device="cpu", gemm="auto", libraries=None):
        self.march, self.gemm, self.libraries = march, gemm, libraries
        self.on_gpu = device == "cuda"
        self.dlc, self.dlrun, self.work = os.path.join(folder, "dlc"), os.path.join(folder, "dlrun"), work

    def compile(self, case, real, folder=""):
        program = case.program
        if case.edit:
            with open(program) as file:
                text = file.read()
            if case.edit[0] not in text:
                raise Failure(f"{program} has no '{case.edit[0]}'")
            program = os.path.join(self.work, os.path.basename(program))
            with open(program, "w") as file:
                file.write(text.replace(*case.edit))
        artefact = os.path.join(self.work, folder, f"{case.name}.{real}.so")
        os.makedirs(os.path.dirname(artefact), exist_ok=True)
        defines = [word for name, value in case.defines.items() for word in ("-D", f"{name}={value}")]
        options = [*(["--float=f64"] if real == "f64" else []), *([f"-march={self.march}"] if self.march else [])]
        if self.on_gpu:
            options += ["--target=cpu,cuda", f"--gemm={self.gemm}"]
        run(self.dlc, program, "-o", artefact, *defines, *options)
        return artefact

    def call(self, artefact, function, inputs, real, results=(), options=()):
        """One run of `dlrun call`; -> the results, by name."""
        folder = tempfile.mkdtemp(dir=self.work)
        try:
            words = []
            for name, value in inputs.items():
                value = np.asarray(value)
                if value.dtype.kind == "f":
                    value = value.astype(REAL[real])
                path = os.path.join(folder, f"input.{name}.npy")
                np.save(path, value)
                words += ["--input", f"{name}={path}"]
            out = os.path.join(folder, "out")
            os.mkdir(out)
            device = "cuda" if self.on_gpu else "cpu"
            words += ["--output-dir", out, "--device", device]
            run(self.dlrun, "call", artefact, function, *words, *options, libraries=self.libraries)
            got = {}
            for name in results:
                path = os.path.join(out, name + ".npy")
                if not os.path.exists(path):
                    raise Failure(f"dlrun call {function} wrote {sorted(os.listdir(out))}, not {name}.npy")
                got[name] = np.load(path, allow_pickle=False)
            return got
        finally:
            shutil.rmtree(folder)

    def call_steps(self, artefact, call, real, options):
        """-> the results of the call's last steps: of all of them on the processor, each in a process of its own, unless `together`."""
        steps = max(call.steps, 1)
        if self.on_gpu or call.together:
            options, steps = (*options, "--repeat", steps), 1
        return [self.call(artefact, call.function, call.inputs, real, call.results, options) for _ in range(steps)]

    def initial(self, artefact, case, call, real, path, seed=0):
        """Writes a checkpoint with the case's initial values, everything else as the artefact has it."""
        self.call(artefact, call.function, call.inputs, real, options=("--repeat", 0, "--seed", seed, "--save", path))
        tensors, metadata = checkpoints.read(path)
        for name, value in case.variables.items():
            if name not in tensors:
                raise Failure(f"{case.name}: no variable '{name}' in the checkpoint, which has {', '.join(tensors)}")
            if tensors[name].shape != np.shape(value) or tensors[name].dtype != REAL[real]:
                found = f"{tensors[name].dtype}{list(tensors[name].shape)}"
                raise Failure(f"{case.name}: variable '{name}' is {found} in the checkpoint")
            tensors[name] = np.asarray(value, REAL[real])
        checkpoints.write(path, tensors, metadata)


def expected_figure(figures, key, real):
    if real == "f32" and f"f32/{key}" in figures:
        key = f"f32/{key}"
    return figures[key]


def run_case(case, real, tools, figures, tally):
    title = f"{case.name}.{real}"
    try:
        artefact = tools.compile(case, real)
    except (Failure, subprocess.TimeoutExpired) as problem:
        for call in case.calls:
            for name in (*call.results, *call.variables):
                tally.record(f"{title} {call.tag} {name}", False, "not compiled")
        print(problem)
        return
    checkpoint = os.path.join(tools.work, "variables.safetensors")
    ready = False
    for call in case.calls:
        if real not in call.reals:
            continue
        names = [f"{title} {call.tag} {name}" for name in (*call.results, *call.variables)]
        try:
            options = ()
            if case.variables:
                if call.fresh or not ready:
                    tools.initial(artefact, case, call, real, checkpoint)
                    ready = True
                options = ("--load", checkpoint, "--save", checkpoint)
            rows = tools.call_steps(artefact, call, real, options)
            state = checkpoints.read(checkpoint)[0] if call.variables else {}
        except (Failure, subprocess.TimeoutExpired) as problem:
            for name in names:
                tally.record(name, False, "not run")
            print(problem)
            continue
        for name in call.results:
            actual = np.stack([row[name] for row in rows]) if call.steps else rows[0][name]
            expected = expected_figure(figures, f"{case.name}/{call.tag}.{name}", real)
            if call.steps:
                expected = expected[-len(rows) :]
            tally.compare(f"{title} {call.tag} {name}", actual, expected, case.tolerance, real)
        for name in call.variables:
            expected = expected_figure(figures, f"{case.name}/{call.tag}/{name}", real)
            if name not in state:
                tally.record(
                    f"{title} {call.tag} {name}", False, f"no such variable; the checkpoint has {', '.join(state)}"
                )
                continue
            if expected.dtype.kind == "f" and not name.endswith((".t", ".good_steps")):
                if state[name].dtype != REAL[real]:
                    tally.record(f"{title} {call.tag} {name}", False, f"{state[name].dtype}, expected {real}")
                    continue
                actual = suite.digest(state[name])
                # a digest is f64; the comparison is of the variable's own values
                tally.compare(f"{title} {call.tag} {name}", actual.astype(REAL[real]), expected, case.tolerance, real)
            else:
                tally.compare(f"{title} {call.tag} {name}", state[name], expected, case.tolerance, real)


def contents(path):
    with open(path, "rb") as file:
        return file.read()


def run_repeated(case, real, tools, tally):
    """The same bytes, however it is run (20 processes of one step, one of 20, 1 or 2 threads), and compiled again. A GPU has no
    threads to choose, and takes 4 steps: its stand-in compiles the kernels anew in every process."""
    title = f"{case.name}.{real}"
    try:
        artefact = tools.compile(case, real)
        again = tools.compile(case, real, folder="another/folder/and a name")
        tally.record(f"{title} compiled again elsewhere, byte for byte", contents(artefact) == contents(again))
        call = next(call for call in case.calls if call.function == "step")
        start, left = os.path.join(tools.work, "start.safetensors"), {}
        tools.initial(artefact, case, call, real, start)
        ways = (
            ("20 steps", 1, 1),
            ("20 steps again", 1, 1),
            ("20 steps on 2 threads", 1, 2),
            ("10 and 10 steps", 2, 1),
            ("20 single steps", 20, 2),
        )
        if tools.on_gpu:
            ways = (("4 steps", 1, 1), ("4 steps again", 1, 1), ("2 and 2 steps", 2, 1))
        count = 4 if tools.on_gpu else 20
        for name, parts, threads in ways:
            path = os.path.join(tools.work, "way.safetensors")
            shutil.copyfile(start, path)
            options = ("--load", path, "--save", path, "--repeat", count // parts, "--threads", threads)
            for _ in range(parts):
                tools.call(artefact, call.function, call.inputs, real, options=options)
            left[name] = contents(path)
    except (Failure, subprocess.TimeoutExpired) as problem:
        tally.record(f"{title} repeated", False, str(problem))
        return
    first, *others = left
    tally.record(f"{title} {first} change the variables", left[first] != contents(start))
    for name in others:
        tally.record(f"{title} {name} as {first}, byte for byte", left[name] == left[first])


# ---- random numbers ----


def run_initial_values(real, tools, tally):
    case = suite.Case("initial_values", os.path.join(suite.HERE, "cases", "initial_values.dl"), [])
    seed = 7 + (5 << 32)
    x = np.zeros((4, 37))
    try:
        artefact = tools.compile(case, real)
        path = os.path.join(tools.work, "seeded.safetensors")
        tools.call(artefact, "forward", dict(x=x), real, options=("--repeat", 0, "--seed", seed, "--save", path))
        tensors = checkpoints.read(path)[0]
    except (Failure, subprocess.TimeoutExpired) as problem:
        tally.record(f"initial_values.{real}", False, str(problem))
        return
    ranges = {
        "net.0.weight": ((37, 13), -(37**-0.5), 37**-0.5),
        "net.0.bias": ((13,), -(37**-0.5), 37**-0.5),
        "net.2.weight": ((13, 5), -(13**-0.5), 13**-0.5),
        "scale": ((37,), -3, 5),
        "start": ((2, 3), 0.5, 0.5),
    }
    tally.record(f"initial_values.{real} names", {*ranges, "noise"} <= set(tensors), ", ".join(tensors))
    for name, (shape, low, high) in ranges.items():
        if name in tensors:
            expected = low + (high - low) * uniform(shape, name, seed)
            tally.compare(f"initial_values.{real} {name}", tensors[name], expected, "layer", real)
    if "noise" in tensors:
        tally.compare(
            f"initial_values.{real} noise", tensors["noise"], 1 + 2 * normal((37,), "noise", seed), "layer", real
        )


def draw_path(function, layer):
    """The path of the first draw of a layer in a function: it names the stream (docs/language.md)."""
    return f"{function}.{layer}.0"


def run_dropout(real, tools, tally):
    case = suite.Case("dropout", os.path.join(suite.HERE, "cases", "dropout.dl"), [])
    x = suite.signed("dropout/x", (7, 37)) + 3.0
    seed = 11
    try:
        artefact = tools.compile(case, real)
        got = tools.call(artefact, "evaluate", dict(x=x), real, ("out",))["out"]
        tally.compare(f"dropout.{real} evaluate", got, x.astype(REAL[real]), "exact", real)
        path = os.path.join(tools.work, "dropout.safetensors")
        tools.call(artefact, "apply", dict(x=x), real, options=("--repeat", 0, "--seed", seed, "--save", path))
        for number in range(3):
            # another thread count each time: the mask must not depend on it
            options = ("--load", path, "--save", path, "--threads", 1 + number % 2)
            got = tools.call(artefact, "apply", dict(x=x), real, ("out",), options)["out"]
            mask = uniform(x.shape, draw_path("apply", "drop"), seed, number) < 0.25
            tally.record(
                f"dropout.{real} mask of call {number}",
                np.array_equal(got == 0, mask),
                f"{(got == 0).sum()} and {mask.sum()} zeros",
            )
            tally.compare(f"dropout.{real} call {number}", got, np.where(mask, 0, x / 0.75), "elementwise", real)

        tools.call(artefact, "apply_others", dict(x=x), real, options=("--repeat", 0, "--seed", seed, "--save", path))
        got = tools.call(artefact, "apply_others", dict(x=x), real, ("channels", "alpha", "slopes"), ("--load", path))
        drawn = lambda layer: uniform(x.shape, draw_path("apply_others", layer), seed)
        least = -1.7580993408473766  # of selu; the scale keeps the variance (Klambauer et al., arXiv:1706.02515, section 3)
        scale = (0.75 * (1 + 0.25 * least**2)) ** -0.5
        expected = {
            "channels": np.where(drawn("channels") < 0.25, 0, x / 0.75)[..., None] * np.ones(3),
            "alpha": scale * (np.where(drawn("alpha") < 0.25, least, x) - 0.25 * least),
            "slopes": -x * (0.125 + 0.375 * drawn("slopes")),
        }
        for name, value in expected.items():
            tally.compare(f"dropout.{real} {name}", got[name], value, "elementwise", real)
    except (Failure, subprocess.TimeoutExpired) as problem:
        tally.record(f"dropout.{real}", False, str(problem))


class NumpyMlp:
    """mlp.dl in NumPy, f64: the forward and backward pass, the masks, Adam."""

    def __init__(self, initial, rate, seed=0):
        self.v = {name: value.copy() for name, value in initial.items()}
        self.m = {name: np.zeros_like(value) for name, value in initial.items()}
        self.s = {name: np.zeros_like(value) for name, value in initial.items()}
        self.rate, self.seed, self.t = rate, seed, 0

    def step(self, x, label):
        v, n = self.v, len(x)
        a = x @ v["net.0.weight"] + v["net.0.bias"]
        keep = np.ones(a.shape)
        if self.rate:
            keep = np.where(uniform(a.shape, draw_path("step", "net.2"), self.seed, self.t) < self.rate, 0, 1 / (1 - self.rate))
        b = np.maximum(a, 0) * keep
        c = b @ v["net.3.weight"] + v["net.3.bias"]
        d = np.maximum(c, 0)
        scores = d @ v["net.5.weight"] + v["net.5.bias"]
        scores = scores - scores.max(1, keepdims=True)
        log_total = np.log(np.exp(scores).sum(1, keepdims=True))
        rows = np.arange(n)
        loss = (log_total[:, 0] - scores[rows, label]).mean()
        g = np.exp(scores - log_total)
        g[rows, label] -= 1
        g /= n
        grads = {"net.5.weight": d.T @ g, "net.5.bias": g.sum(0)}
        g = (g @ v["net.5.weight"].T) * (c > 0)
        grads.update({"net.3.weight": b.T @ g, "net.3.bias": g.sum(0)})
        g = (g @ v["net.3.weight"].T) * keep * (a > 0)
        grads.update({"net.0.weight": x.T @ g, "net.0.bias": g.sum(0)})
        self.t += 1
        for name, g in grads.items():
            self.m[name] = 0.9 * self.m[name] + 0.1 * g
            self.s[name] = 0.999 * self.s[name] + 0.001 * g * g
            mean, square = self.m[name] / (1 - 0.9**self.t), self.s[name] / (1 - 0.999**self.t)
            v[name] -= 1e-3 * mean / (np.sqrt(square) + 1e-8)
        return loss


def run_mlp(tools, figures, tally, reals):
    case = suite.mlp("mlp_dropout")
    call = next(call for call in case.calls if call.function == "step")
    plain = NumpyMlp(case.variables, 0)
    losses = np.array([plain.step(**call.inputs) for _ in range(call.steps)])
    tally.compare("numpy twin of mlp: losses without dropout", losses, figures["mlp/step.out"], "training", "f64")
    seed = 3
    twin = NumpyMlp(case.variables, 0.1, seed)
    losses = np.array([twin.step(**call.inputs) for _ in range(call.steps)])
    for real in reals:
        run_repeated(case, real, tools, tally)
        title = f"mlp with dropout.{real}"
        try:
            artefact = tools.compile(case, real)
            path = os.path.join(tools.work, "mlp.safetensors")
            tools.initial(artefact, case, call, real, path, seed)
            got = [row["out"] for row in tools.call_steps(artefact, call, real, ("--load", path, "--save", path))]
            state = checkpoints.read(path)[0]
        except (Failure, subprocess.TimeoutExpired) as problem:
            tally.record(title, False, str(problem))
            continue
        tally.compare(f"{title} losses", np.stack(got), losses[-len(got) :], "training", real)
        for name in call.variables:
            if name in twin.v and real == "f32":
                # Adam divides by the gradient's size: an element whose gradient is nearly 0, and in f32 of either sign, takes whole
                # steps. So here the error of the array as a whole counts.
                error = np.linalg.norm(state[name] - twin.v[name]) / np.linalg.norm(twin.v[name])
                bound = suite.TOLERANCE["training"][real]
                tally.record(f"{title} {name}", error <= bound, f"error of the norm {error:.1e}, allowed {bound:.0e}")
            elif name in twin.v:
                tally.compare(
                    f"{title} {name}",
                    suite.digest(state[name]).astype(REAL[real]),
                    suite.digest(twin.v[name]),
                    "training",
                    real,
                )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = os.path.join(suite.HERE, "..", "..")
    parser.add_argument("--bin", default=os.path.join(root, "build", "bin"), help="folder of dlc and dlrun")
    parser.add_argument("--filter", default="*", help="only cases whose names match, e.g. 'two_*'")
    parser.add_argument("--float", choices=("f64", "f32"), action="append", help="only this precision")
    parser.add_argument("--march", default="", help="compile for this processor instead of the machine's")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="what the programs run on")
    parser.add_argument("--libraries", help="folder of libcuda.so.1: the stand-in's; that of the system where not given")
    parser.add_argument("--gemm", choices=("auto", "own", "cublaslt"), default="auto", help="what computes products on a GPU")
    parser.add_argument("--verbose", action="store_true", help="a line for every comparison")
    options = parser.parse_args()
    reals = options.float or ["f64", "f32"]
    wanted = lambda name: fnmatch.fnmatch(name, options.filter)
    tally = Tally(options.verbose)
    with np.load(suite.FIGURES) as stored:
        figures = {name: stored[name] for name in stored.files}
    with tempfile.TemporaryDirectory(prefix="dlc-reference-") as work:
        tools = Tools(os.path.abspath(options.bin), work, options.march, options.device, options.gemm, options.libraries)
        for program in (tools.dlc, tools.dlrun):
            if not os.access(program, os.X_OK):
                print(f"run_reference: no program {program}; build first, or say --bin", file=sys.stderr)
                return 2
        for case in suite.cases():
            if wanted(case.name) and (case.on_gpu or not tools.on_gpu):
                for real in reals:
                    run_case(case, real, tools, figures, tally)
                    if case.program.startswith(suite.EXAMPLES) and not any(call.together for call in case.calls):
                        run_repeated(case, real, tools, tally)
        for name, function in (("initial_values", run_initial_values), ("dropout", run_dropout)):
            if wanted(name):
                for real in reals:
                    function(real, tools, tally)
        if wanted("mlp_dropout"):
            run_mlp(tools, figures, tally, reals)
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 0 if tally.passed and not tally.failed else 1


if __name__ == "__main__":
    sys.exit(main())
