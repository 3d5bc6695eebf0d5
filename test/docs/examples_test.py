#!/usr/bin/env python3
#===- examples_test.py - the examples do what a newcomer would try with them -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Compiles every program of examples/ and checks its gradients; builds train.c in C and C++ with each form of artefact; gives custom.dl another
depth, trains it on arrays of its own, interrupts and resumes it. Ends with 'N passed, M failed'."""

import argparse
import filecmp
import glob
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "test"))
from small_sizes import defines

EXAMPLES = os.path.join(ROOT, "examples")
LIMIT_S = 300


class Tests:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.passed = self.failed = 0
        self.environment = dict(os.environ, PATH=options.bin + os.pathsep + os.environ["PATH"], LC_ALL="C.UTF-8")

    def check(self, what, good, words=""):
        self.passed, self.failed = self.passed + bool(good), self.failed + (not good)
        if not good:
            print(f"FAILED {what}: {words}".rstrip(": "), flush=True)
        return good

    def run(self, *command, code=0, what=None):
        """-> what the command printed, stdout and stderr; counts as a test of its exit code"""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LIMIT_S,
            text=True,
        )
        words = what or " ".join(os.path.relpath(word, ROOT) if word.startswith(ROOT) else word for word in command)
        self.check(words, done.returncode == code, f"exits with {done.returncode}, expected {code}\n{done.stdout}")
        return done.stdout

    def programs(self):
        for path in sorted(glob.glob(os.path.join(EXAMPLES, "*.dl"))):
            with open(path, encoding="utf-8") as file:
                if not re.search(r"^model ", file.read(), re.M):
                    continue  # parts that others import
            name = os.path.basename(path)[:-3]
            self.run("dlc", path, "-o", name + ".so", f"--header={name}.h")
            self.run("dlrun", "info", name + ".so")
            if name == "resnet18":  # with fewer blocks: each difference goes through 11 million variables
                path = os.path.join(ROOT, "test", "reference", "cases", "residual_net.dl")
            found = self.run("dlc", "check-grad", path, "--samples", "10", *defines(path))
            self.check(f"check-grad {name}", re.search(r"^check-grad: [1-9]\d* variables?, .*: passed$", found, re.M), found)

    def from_c(self):
        source = os.path.join(EXAMPLES, "train.c")
        with open(source, encoding="utf-8") as file:
            lines = len(file.readlines())
        self.check("train.c has at most 40 lines", lines <= 40, str(lines))
        model = os.path.join(EXAMPLES, "two_layer.dl")
        for form in ("a", "o", "so"):
            self.run("dlc", model, "-o", f"two_layer.{form}", "--header=two_layer.h")
        warnings = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-I."]
        languages = {"C11": [self.options.cc, "-std=c11"], "C++17": [self.options.cxx, "-x", "c++", "-std=c++17"]}
        printed = {}
        for language, compiler in languages.items():
            self.run(*compiler, *warnings, "-c", source, "-o", "train.o", what=f"train.c is {language}")
            for form in ("a", "o", "so"):
                self.run(self.options.cc, "train.o", f"./two_layer.{form}", "-lm", "-pthread", "-o", "train", what=f"{language} links with .{form}")
                if os.path.exists(os.path.join(self.folder, "two_layer.safetensors")):
                    os.remove(os.path.join(self.folder, "two_layer.safetensors"))
                printed[language, form] = self.run("./train", what=f"{language} with .{form} runs")
                self.check(f"{language} with .{form} saves", os.path.exists(os.path.join(self.folder, "two_layer.safetensors")))
        first = printed["C11", "a"]
        for which, text in printed.items():
            self.check(f"{which} prints what all print", text == first, text + "instead of\n" + first)
        losses = [float(word) for word in re.findall(r"loss ([\d.]+)", first)]
        self.check("the loss falls", len(losses) == 5 and losses == sorted(losses, reverse=True) and losses[-1] < losses[0] / 10, first)
        # the archive's query symbol is the one that is visible
        self.run("dlrun", "call", "two_layer.so", "predict", code=1, what="a missing argument is an error")

    def custom(self):
        program = os.path.join(EXAMPLES, "custom.dl")
        random = np.random.default_rng(0)
        classes = random.standard_normal((10, 784))
        label = random.integers(0, 10, 6000).astype(np.int32)
        x = (classes[label] + random.standard_normal((6000, 784))).astype(np.float32)
        np.save(os.path.join(self.folder, "x.npy"), x)
        np.save(os.path.join(self.folder, "label.npy"), label)
        np.save(os.path.join(self.folder, "narrow.npy"), x[:, 1:])
        self.run("dlc", program, "-D", "depth=4", "-D", "width=96", "-o", "deep.so")
        info = self.run("dlrun", "info", "deep.so")
        self.check("depth 4 has five layers", len(re.findall(r"^  layers\.\d\.weight .* trained", info, re.M)) == 5, info)

        data = ["--data", "x=x.npy", "label=label.npy"]
        both = [*data, "--validation", "x=x.npy", "label=label.npy"]
        train = ["dlrun", "train", "deep.so", *both, "--batch", "20", "--epochs", "4"]
        output = self.run(*train, "--checkpoint", "once", what="training")
        found = re.search(r"^accuracy (0\.\d+|1\.0+)$", output, re.M)
        self.check("training learns", found and float(found[1]) > 0.9, output)

        # Ctrl-C, as soon as there is something to interrupt; --resume with another number of threads
        process = subprocess.Popen(
            [*train, "--checkpoint", "twice", "--save-every", "1"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        state = os.path.join(self.folder, "twice", "state.json")
        deadline = time.monotonic() + LIMIT_S
        while not os.path.exists(state) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        words = process.communicate(timeout=LIMIT_S)[1]
        self.check("an interrupted training exits with 130", process.returncode == 130, f"{process.returncode} {words}")
        self.check("and says how to go on", "--resume" in words, words)
        self.run(*train, "--checkpoint", "twice", code=1, what="starting over an interrupted training is an error")
        self.run(*train, "--checkpoint", "twice", "--resume", "--threads", "1", what="resuming")
        same = filecmp.cmp(*(os.path.join(self.folder, name, "last.safetensors") for name in ("once", "twice")), shallow=False)
        self.check("interrupted and resumed arrives at the same bytes", same)

        words = self.run("dlrun", "train", "deep.so", "--data", "x=narrow.npy", "label=label.npy", code=1, what="a wrong shape is an error")
        self.check("which names both shapes", "f32[6000, 783]" in words and "f32[N, 784]" in words, words)
        words = self.run("dlrun", "train", "deep.so", "--data", "x=none.npy", "label=label.npy", code=1, what="a missing file is an error")
        self.check("which names the file", "none.npy" in words, words)
        words = self.run("dlc", program, "-D", "dept=4", "-o", "no.so", code=1, what="an unknown parameter is an error")
        self.check("which names the nearest", "depth" in words and not os.path.exists(os.path.join(self.folder, "no.so")), words)

    def research(self):
        """The programs of papers train for a few steps on made-up data; what each is to learn shows."""
        random = np.random.default_rng(1)

        def save(**arrays):
            for name, array in arrays.items():
                np.save(os.path.join(self.folder, name + ".npy"), array)
            return ["--data", *(f"{name}={name}.npy" for name in arrays)]

        def train(name, data, *options):
            output = self.run("dlrun", "train", name + ".so", *data, *options, "--checkpoint", name, what=f"{name} trains")
            return [float(word) for word in re.findall(r"^epoch .*  loss (-?[\d.]+(?:e-?\d+)?)", output, re.M)]

        def call(name, function, *inputs):
            """-> the results, of the trained variables"""
            inputs = [word for one in inputs for word in ("--input", f"{one}={one}.npy")]
            folder = name + "-" + function
            self.run("dlrun", "call", name + ".so", function, *inputs, "--load", name + "/last.safetensors", "--output-dir", folder)
            out = os.path.join(self.folder, folder, "out.npy")
            return np.load(out) if os.path.exists(out) else None

        angle = random.uniform(0, 2 * np.pi, 4096)
        ring = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
        train("gan", save(real=ring), "--step", "step", "--batch", "64", "--epochs", "20")
        save(z=random.standard_normal((1000, 4)).astype(np.float32))
        radius = np.linalg.norm(call("gan", "generate", "z"), axis=1)
        self.check("gan makes points near the circle", abs(np.median(radius) - 1) < 0.25 and np.mean(abs(radius - 1) < 0.4) > 0.7, str(np.quantile(radius, [0, 0.1, 0.5, 0.9, 1])))

        pictures = (random.random((10, 784)) < 0.3).astype(np.float32)[random.integers(0, 10, 2000)]
        losses = train("vae", save(x=pictures), "--batch", "50", "--epochs", "8")
        self.check("vae learns", losses[-1] < losses[0] / 3, str(losses))
        again = call("vae", "reconstruct", "x")
        self.check("vae reconstructs", np.mean((again > 0.5) == (pictures > 0.5)) > 0.97, str(np.mean((again > 0.5) == (pictures > 0.5))))

        # Of two actions the one that the sign of the first number names is worth 1; an episode ends after it.
        now = random.standard_normal((4000, 4)).astype(np.float32)
        action = random.integers(0, 2, 4000).astype(np.int32)
        reward = ((now[:, 0] > 0) == (action == 1)).astype(np.float32)
        losses = train("dqn", save(now=now, action=action, reward=reward, next=now[::-1].copy(), done=np.ones(4000, bool)), "--batch", "50", "--epochs", "16")
        self.check("dqn learns", losses[-1] < losses[0] / 3, str(losses))
        best = call("dqn", "act", "now")
        self.check("dqn acts", np.mean((best == 1) == (now[:, 0] > 0)) > 0.95, str(np.mean((best == 1) == (now[:, 0] > 0))))

        x, t = (random.random((4096, 1)).astype(np.float32) for _ in range(2))
        losses = train("pinn", save(x=x, t=t), "--batch", "64", "--epochs", "12")
        self.check("pinn learns", losses[-1] < losses[0] / 50, str(losses))
        error = call("pinn", "error", "x", "t")
        self.check("pinn solves the heat equation", error < 0.02, str(error))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.path.join(ROOT, "build", "bin"), help="folder of dlc and dlrun (default build/bin)")
    parser.add_argument("--cc", default="cc")
    parser.add_argument("--cxx", default="c++")
    options = parser.parse_args()
    options.bin = os.path.abspath(options.bin)
    with tempfile.TemporaryDirectory(prefix="dlc-examples-") as folder:
        tests = Tests(options, folder)
        for group in (tests.programs, tests.from_c, tests.custom, tests.research):
            try:
                group()
            except (OSError, subprocess.TimeoutExpired) as error:
                tests.check(group.__name__, False, str(error))
    print(f"{tests.passed} passed, {tests.failed} failed")
    return 1 if tests.failed or not tests.passed else 0


if __name__ == "__main__":
    sys.exit(main())
