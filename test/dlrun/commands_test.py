#===- commands_test.py - dlrun's commands on a small model -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Runs info, call, train and bench on the model of model.c. Needs Python's own library only; ends with 'N passed, M failed'.
Arguments name classes of tests; exits with 77 where a test was skipped."""

import argparse
import gzip
import json
import math
import os
import pty
import random
import re
import resource
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

parser = argparse.ArgumentParser()
parser.add_argument("--dlrun", required=True)
parser.add_argument("--model", required=True, help="model.c with a dynamic batch")
parser.add_argument("--fixed", required=True, help="model.c with a batch of 8")
options, rest = parser.parse_known_args()
for name in ("dlrun", "model", "fixed"):
    setattr(options, name, os.path.abspath(getattr(options, name)))

CODES = {"f": "<f4", "d": "<f8", "i": "<i4", "q": "<i8", "B": "|u1"}
FEATURES, CLASSES = 4, 3


def write_npy(path, code, shape, values):
    header = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }" % (CODES[code], tuple(shape))
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode())
        file.write(struct.pack(f"<{len(values)}{code}", *values))
    return path


def read_npy(path):
    """-> (shape, values)"""
    with open(path, "rb") as file:
        data = file.read()
    (length,) = struct.unpack("<H", data[8:10])
    header = eval(data[10 : 10 + length].decode())  # our own file
    code = {text: code for code, text in CODES.items()}[header["descr"]]
    body = data[10 + length :]
    return header["shape"], list(struct.unpack(f"<{len(body) // struct.calcsize(code)}{code}", body))


def write_idx(path, dims, values):
    data = bytes([0, 0, 8, len(dims)]) + struct.pack(f">{len(dims)}I", *dims) + bytes(values)
    with (gzip.open if path.endswith(".gz") else open)(path, "wb") as file:
        file.write(data)
    return path


def points(count, seed):
    """Points of three kinds that a linear model tells apart, as bytes."""
    draw = random.Random(seed)
    labels = [draw.randrange(CLASSES) for _ in range(count)]
    pixels = [min(255, draw.randrange(120) + (120 if k == label else 0)) for label in labels for k in range(FEATURES)]
    return pixels, labels


def content(path):
    with open(path, "rb") as file:
        return file.read()


class Commands(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="dlrun-commands-")
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def dlrun(self, *words, code=0, **more):
        done = subprocess.run([options.dlrun, *map(str, words)], capture_output=True, text=True, timeout=120, **more)
        self.assertEqual(done.returncode, code, f"{words}\n{done.stdout}{done.stderr}")
        return done

    def fails(self, *words, code=1, **more):
        """-> what dlrun says after 'dlrun: error: ', which must be one line"""
        done = self.dlrun(*words, code=code, **more)
        self.assertEqual(done.stdout, "")
        lines = done.stderr.splitlines()
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertTrue(lines[0].startswith("dlrun: error: "), done.stderr)
        return lines[0][len("dlrun: error: ") :]

    def arrays(self, rows=5):
        x = [((i * 7) % 11 - 5) / 4 for i in range(rows * FEATURES)]
        label = [i % CLASSES for i in range(rows)]
        return (
            write_npy(self.path("x.npy"), "f", (rows, FEATURES), x),
            write_npy(self.path("label.npy"), "i", (rows,), label),
        )

    def data(self, rows=300, held=90):
        """IDX files as MNIST's are, and the options that name them."""
        words = []
        for option, count, seed in (("--data", rows, 1), ("--validation", held, 2)):
            pixels, labels = points(count, seed)
            x = write_idx(self.path(f"{option[2:]}-x.gz"), [count, 2, 2], pixels)
            label = write_idx(self.path(f"{option[2:]}-label"), [count], labels)
            words += [option, f"x={x}", f"label={label}"]
        return words + ["--scale", "x=1/255"]


class Usage(Commands):
    def test_help_and_version(self):
        for words in (["--help"], ["info", "--help"], ["call", "--help"], ["train", "--help"], ["bench", "--help"]):
            self.assertIn("Usage: dlrun", self.dlrun(*words).stdout)
        self.assertRegex(self.dlrun("--version").stdout, r"^dlrun \d+\.\d+\.\d+ \(model ABI \d+\)$")

    def test_usage_errors(self):
        for words in (
            [],
            ["walk"],
            ["info"],
            ["info", options.model, "--jason"],
            ["call", options.model],
            ["call", options.model, "step", "--seed", "x"],
            ["call", options.model, "step", "--input", "x"],
            ["call", options.model, "step", "--input", "x=1", "x=2"],
            ["call", options.model, "step", "--seed", "1", "--load", "c"],
            ["train", options.model],
            ["train", options.model, "--data", "x=f", "--batch", "0"],
            ["train", options.model, "--data", "x=f", "--resume"],
            ["train", options.model, "--data", "x=f", "--scale", "y=2"],
            ["train", options.model, "--data", "x=f", "--scale", "x=1/0"],
            ["train", options.model, "--data", "x=f", "--metric", "accuracy"],
            ["bench", options.model, "step", "--dim", "N=-1"],
            ["bench", options.model, "step", "--runs", "0"],
        ):
            with self.subTest(words):
                self.fails(*words, code=2)

    def test_misspelt_names(self):
        for words, said in (
            (["train", "--chekpoint", "a"], "unknown option '--chekpoint'; did you mean '--checkpoint'?; see dlrun train --help"),
            (["train", options.model, "--data", "x=f", "--bacth=3"], "unknown option '--bacth'; did you mean '--batch'?; see dlrun train --help"),
            (["call", options.model, "step", "--ouput-dir", "d"], "unknown option '--ouput-dir'; did you mean '--output-dir'?; see dlrun call --help"),
            (["bench", options.model, "step", "--colour"], "unknown option '--colour'; see dlrun bench --help"),
            (["info", options.model, "--jason"], "unknown option '--jason'; did you mean '--json'?; see dlrun info --help"),
            (["--versoin"], "unknown option '--versoin'; did you mean '--version'?; see dlrun --help"),
            (["trian", options.model], "unknown command 'trian'; did you mean 'train'?; see dlrun --help"),
            (["walk"], "unknown command 'walk'; see dlrun --help"),
        ):
            with self.subTest(words):
                self.assertEqual(self.fails(*words, code=2), said)

    def test_full_device(self):
        with open("/dev/full", "w") as full:
            done = subprocess.run([options.dlrun, "info", options.model], stdout=full, stderr=subprocess.PIPE, text=True)
        self.assertEqual((done.returncode, done.stderr), (1, "dlrun: error: cannot write to standard output\n"))


class Info(Commands):
    def test_text(self):
        text = self.dlrun("info", options.model).stdout
        for line in (
            "model      softmax",
            "dims       N",
            "  step(x: f32[N, 4], label: i32[N], lr: f32 = 0.5, delay: i32 = 0) -> f32   (train, 1 kernel)",
            "      One step of gradient descent.",
            "  loss(x: f32[N, 4], label: i32[N]) -> f32   (const, 1 kernel)",
            "      step (model.dl:3)",
            "  2 in all, 56 bytes, of which 48 bytes trained",
        ):
            self.assertIn(line + "\n", text)

    def test_json(self):
        info = json.loads(self.dlrun("info", options.model, "--json").stdout)
        self.assertEqual((info["model"], info["abi_version"], info["dims"]), ("softmax", 5, ["N"]))
        self.assertRegex(info["glibc"], r"^2\.\d+$")
        self.assertIn("libc.so.6", info["libraries"])
        self.assertEqual((info["variable_bytes"], info["file_bytes"]), (56, os.path.getsize(options.model)))
        step = {function["name"]: function for function in info["functions"]}["step"]
        self.assertEqual((step["train"], step["const"], step["kernels"]), (True, False, ["step (model.dl:3)"]))
        self.assertEqual(step["arguments"][0], {"name": "x", "dtype": "f32", "shape": "[N, 4]", "dims": [None, 4]})
        self.assertEqual(step["arguments"][2]["default"], 0.5)
        self.assertEqual([value["name"] for value in step["results"]], ["out"])
        self.assertEqual(
            info["variables"][1], {"name": "step.t", "doc": "", "dtype": "i64", "dims": [], "kind": "slot", "bytes": 8}
        )

    def test_files_that_are_no_models(self):
        for name, data in (("empty", b""), ("text", b"hello"), ("elf", b"\x7fELF" + bytes(200)), ("cut", content(options.model)[:3000])):
            with open(self.path(name), "wb") as file:
                file.write(data)
            with self.subTest(name):
                for command in (["info", self.path(name)], ["call", self.path(name), "step"], ["bench", self.path(name), "step"]):
                    self.assertIn(self.path(name), self.fails(*command))
        self.fails("info", self.path("missing"))
        self.fails("info", self.folder)
        self.fails("info", options.dlrun)  # an ELF file, but no model

    def test_damaged_models(self):
        whole = content(options.model)
        note = whole.index(b"DLMODEL\0")
        draw = random.Random(5)
        for turn in range(150):
            data = bytearray(whole)
            for _ in range(draw.choice((1, 4, 32))):
                # the headers, or the description
                at = draw.randrange(700) if turn % 3 == 0 else note + draw.randrange(2100)
                data[at] = draw.randrange(256)
            with open(self.path("damaged"), "wb") as file:
                file.write(data)
            done = subprocess.run([options.dlrun, "info", self.path("damaged")], capture_output=True, timeout=20)
            self.assertIn(done.returncode, (0, 1), f"turn {turn}: {done.stderr}")


class Call(Commands):
    def call(self, function, *words, **more):
        return self.dlrun("call", options.model, function, *words, "--output-dir", self.path("out"), **more)

    def test_results(self):
        x, label = self.arrays()
        self.call("predict", "--input", f"x={x}", "--save", self.path("c"))
        shape, z = read_npy(self.path("out/out.npy"))
        self.assertEqual(shape, (5, CLASSES))
        done = self.call("loss", "--input", f"x={x}", f"label={label}", "--load", self.path("c"))
        shape, loss = read_npy(self.path("out/out.npy"))
        self.assertEqual(shape, ())
        rows = [z[i : i + CLASSES] for i in range(0, len(z), CLASSES)]
        expected = sum(math.log(sum(map(math.exp, row))) - row[i % CLASSES] for i, row in enumerate(rows)) / len(rows)
        self.assertAlmostEqual(loss[0], expected, places=5)
        self.assertRegex(done.stdout, r"^out f32 = \S+ -> .*out/out\.npy\n$")

    def test_seed_repeat_and_save(self):
        x, label = self.arrays()
        inputs = ["--input", f"x={x}", "--input", f"label={label}"]
        for seed in (0, 1):
            self.call("step", *inputs, "--seed", seed, "--repeat", 10, "--save", self.path(f"ten{seed}"))
        self.call("step", *inputs, "--repeat", 10, "--save", self.path("again"))
        self.assertEqual(content(self.path("ten0")), content(self.path("again")))
        self.assertNotEqual(content(self.path("ten0")), content(self.path("ten1")))
        # 4 + 6 steps are 10
        self.call("step", *inputs, "--repeat", 4, "--save", self.path("four"), "--threads", 1)
        self.call("step", *inputs, "--repeat", 6, "--load", self.path("four"), "--save", self.path("ten"), "--threads", 2)
        self.assertEqual(content(self.path("ten")), content(self.path("ten0")))

    def test_repeat_0_writes_no_results(self):
        self.call("step", "--repeat", 0, "--save", self.path("c"))
        self.assertFalse(os.path.exists(self.path("out")))
        self.assertTrue(os.path.exists(self.path("c")))

    def test_scalars(self):
        x, label = self.arrays()
        inputs = ["--input", f"x={x}", f"label={label}"]
        lr = write_npy(self.path("lr.npy"), "f", (), [0.25])
        self.call("step", *inputs, "lr=0.25", "--save", self.path("number"))
        self.call("step", *inputs, f"lr={lr}", "--save", self.path("file"))
        self.call("step", *inputs, "--save", self.path("default"))
        self.assertEqual(content(self.path("number")), content(self.path("file")))
        self.assertNotEqual(content(self.path("number")), content(self.path("default")))
        # a file of this name is a file
        write_npy(self.path("0.25"), "f", (), [0.5])
        self.call("step", "--input", "x=x.npy", "label=label.npy", "lr=0.25", "--save", "named", cwd=self.folder)
        self.assertEqual(content(self.path("named")), content(self.path("default")))

    def test_wrong_arguments(self):
        x, label = self.arrays()
        f64 = write_npy(self.path("f64.npy"), "d", (5, 4), [0] * 20)
        narrow = write_npy(self.path("narrow.npy"), "f", (5, 3), [0] * 15)
        short = write_npy(self.path("short.npy"), "i", (4,), [0] * 4)
        bad = write_npy(self.path("bad.npy"), "i", (5,), [0, 1, 3, 2, 0])
        for words, parts in (
            ([f"x={x}"], ["'label'", "i32[N]", "missing"]),
            ([f"x={x}", f"label={label}", "z=1"], ["no argument 'z'", "'x', 'label', 'lr' and 'delay'"]),
            ([f"x={f64}", f"label={label}"], ["'x'", "f32[N, 4]", "f64[5, 4]"]),
            ([f"x={narrow}", f"label={label}"], ["x", "4", "3"]),
            ([f"x={x}", f"label={short}"], ["label", "5", "4"]),
            ([f"x={x}", f"label={bad}"], ["label 2 is 3"]),
            (["x=1", f"label={label}"], ["'x'", "f32[N, 4]", "not a scalar"]),
            ([f"x={x}", f"label={label}", f"lr={x}"], ["lr"]),
            ([f"x={x}", f"label={label}", "delay=0.5"], ["'delay' is i32", "0.5"]),
            ([f"x={x}", f"label={label}", "delay=3000000000"], ["'delay' is i32", "3000000000"]),
            ([f"x={self.path('none.npy')}"], ["none.npy", "No such file"]),
            ([f"x={options.model}"], ["not a data file: neither .npy, .npz, IDX"]),
        ):
            with self.subTest(words):
                message = self.fails("call", options.model, "step", "--input", *words, "--output-dir", self.path("out"), "--save", self.path("c"))
                for part in parts:
                    self.assertIn(part, message)
                self.assertFalse(os.path.exists(self.path("out")) or os.path.exists(self.path("c")), "something was written")
        self.assertIn("no function 'walk'", self.fails("call", options.model, "walk"))

    def test_checkpoints_that_do_not_load(self):
        self.dlrun("call", options.model, "step", "--repeat", 0, "--save", self.path("c"))
        whole = content(self.path("c"))
        for name, data in (("empty", b""), ("cut", whole[:-1]), ("long", whole + b"x"), ("text", b"hello, world")):
            with open(self.path(name), "wb") as file:
                file.write(data)
            with self.subTest(name):
                self.assertIn(self.path(name), self.fails("call", options.model, "step", "--repeat", 0, "--load", self.path(name)))
        self.fails("call", options.model, "step", "--repeat", 0, "--load", self.path("missing"))

    def test_outputs_that_cannot_be_written(self):
        x, _ = self.arrays()
        words = ["call", options.model, "predict", "--input", f"x={x}"]
        self.fails(*words, "--output-dir", x)
        self.assertIn("/dev/full", self.fails("call", options.model, "step", "--repeat", 0, "--save", "/dev/full"))
        # a limit on the size of files: an error, the old file as it was, nothing beside it
        self.dlrun("call", options.model, "step", "--repeat", 0, "--save", self.path("c"))
        before, files = content(self.path("c")), sorted(os.listdir(self.folder))
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))
        self.fails("call", options.model, "step", "--repeat", 0, "--seed", 9, "--save", self.path("c"), preexec_fn=limit)
        self.assertEqual((content(self.path("c")), sorted(os.listdir(self.folder))), (before, files))
        os.mkdir(self.path("out"))
        self.fails(*words[:3], "--input", f"x={x}", "--output-dir", self.path("out"), preexec_fn=limit)
        self.assertEqual(os.listdir(self.path("out")), [])


class Bench(Commands):
    def test_json(self):
        got = json.loads(
            self.dlrun("bench", options.model, "step", "--threads", 2, "--dim", "N=16", "--range", "label=3", "--json", "--runs", 50).stdout
        )
        self.assertEqual(list(got), ["function", "device", "threads", "median_us", "min_us", "runs", "arena_bytes"])
        self.assertEqual((got["function"], got["threads"], got["runs"]), ("step", 2, 50))
        self.assertGreater(got["min_us"], 0)
        self.assertGreaterEqual(got["median_us"], got["min_us"])

    def test_half_a_second(self):
        start = time.monotonic()
        done = self.dlrun("bench", options.fixed, "loss", "--range", "label=3")
        self.assertGreater(time.monotonic() - start, 0.5)
        self.assertRegex(done.stdout, r"^loss, \d+ threads?: median \S+ us, min \S+ us, \d+ runs, arena \d+ bytes\n$")

    def test_profile(self):
        words = ["bench", options.model, "step", "--dim", "N=16", "--range", "label=3", "--runs", 50, "--input", "delay=1", "--profile"]
        text = self.dlrun(*words).stdout
        # The model says that it takes a million operations a row, reads x and writes w.
        self.assertRegex(text, r"\n *\d+\.\d\d +\d+\.\d% +1 +1 +16 +0\.000256 +4\.8e-05 +\d+% arithmetic  step \(model\.dl:3\)\n")
        self.assertRegex(text, r"\n *\d+\.\d\d +\d+\.\d% +1 +0 +- +- +- +-  outside the kernels\n")
        self.assertRegex(text, r"\nat most \S+ GFLOP/s in f32, \S+ in f64, \S+ GB/s of the call's \d+ bytes\n")
        got = json.loads(self.dlrun(*words, "--json").stdout)
        kernels = got["kernels"]
        self.assertEqual([kernels[0][name] for name in ("flops", "read_bytes", "written_bytes")], [16e6, 16 * 16, 4 * 12])
        self.assertEqual({name: got["whole"][name] for name in ("flops", "read_bytes", "written_bytes")}, {"flops": 16e6, "read_bytes": 256, "written_bytes": 48})
        # A multiply-add is as many operations in f32 as in f64, on at least as many numbers.
        self.assertGreater(got["peak"]["f32_gflops"], 0.5 * got["peak"]["f64_gflops"])
        for name in ("f64_gflops", "gbytes"):
            self.assertGreater(got["peak"][name], 0.05)
        self.assertAlmostEqual(kernels[0]["of_bound"], 16e6 / got["peak"]["f32_gflops"] / 1000 / kernels[0]["us"], delta=0.01 * kernels[0]["of_bound"])
        self.assertAlmostEqual(kernels[0]["gflops_per_s"], 16e3 / kernels[0]["us"], delta=0.01 * kernels[0]["gflops_per_s"])
        self.assertNotIn("flops", kernels[1])
        self.assertEqual([kernel["name"] for kernel in kernels], ["step (model.dl:3)", "outside the kernels"])
        self.assertGreater(kernels[0]["us"], 1000)  # it sleeps a millisecond
        self.assertAlmostEqual(sum(kernel["share"] for kernel in kernels), 1, delta=0.05)

    def test_peak(self):
        words = ["bench", options.model, "step", "--dim", "N=16", "--range", "label=3", "--runs", 5, "--profile", "--json", "--peak"]
        got = json.loads(self.dlrun(*words, "2000,0.5").stdout)
        self.assertEqual(got["peak"], {"f32_gflops": 2000.0, "f64_gflops": 2000.0, "gbytes": 0.5})
        self.assertEqual(got["kernels"][0]["bound"], "arithmetic")  # 8 µs, 0.6 µs
        got = json.loads(self.dlrun(*words, "2000,1e-3").stdout)
        self.assertEqual(got["kernels"][0]["bound"], "memory")
        self.assertAlmostEqual(got["kernels"][0]["of_bound"] * got["kernels"][0]["us"], 304, delta=1)  # µs are rounded
        for wrong in ("2000", "2000,", ",3", "0,1", "1,-1", "nan,1", "x,1", "1,2,3"):
            with self.subTest(wrong):
                self.assertIn(f"--peak takes two positive numbers with a comma between them, got '{wrong}'", self.fails(*words, wrong, code=2))

    def test_trace(self):
        path = self.path("trace.json")
        done = self.dlrun("bench", options.model, "step", "--dim", "N=16", "--range", "label=3", "--runs", 50, "--profile", path)
        self.assertNotIn("us per call", done.stdout)
        trace = json.loads(content(path))
        rows = {event["tid"]: event["args"]["name"] for event in trace["traceEvents"] if event["name"] == "thread_name"}
        self.assertEqual(rows, {0: "calls of step", 1: "step (model.dl:3)"})
        calls, kernels = ([event for event in trace["traceEvents"] if event.get("cat") == kind] for kind in ("call", "kernel"))
        self.assertEqual((len(calls), len(kernels)), (20, 20))
        for call, kernel in zip(calls, kernels):
            self.assertEqual(kernel["args"], {"tasks": 1})
            self.assertGreaterEqual(kernel["ts"], call["ts"])
            self.assertLessEqual(kernel["ts"] + kernel["dur"], call["ts"] + call["dur"] + 1)
        self.assertIn("nowhere", self.fails("bench", options.model, "step", "--dim", "N=16", "--range", "label=3", "--profile", self.path("nowhere/trace")))

    def test_device(self):
        words = ["bench", options.model, "step", "--dim", "N=16", "--range", "label=3", "--runs", 5]
        self.dlrun(*words, "--device", "cpu")
        self.assertEqual(json.loads(self.dlrun(*words, "--json", "--device", "cpu").stdout)["device"], "cpu: asked for")
        self.assertRegex(json.loads(self.dlrun(*words, "--json").stdout)["device"], "^cpu: model 'softmax' has no program for a GPU$")
        self.assertIn("has no program for a GPU", self.fails(*words, "--device", "cuda:1"))
        for wrong in ("gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0"):
            self.assertIn("--device takes cpu, cuda, cuda:K or auto", self.fails(*words, "--device", wrong, code=2))

    def test_wrong_options(self):
        for words, part in (
            ([], "--dim N=SIZE"),
            (["--dim", "N=4"], "--range label=COUNT"),
            (["--dim", "M=4"], "no dynamic dimension 'M'; it has N"),
            (["--dim", "N=4", "--range", "labels=3"], "no argument 'labels'"),
            (["--dim", "N=4", "--range", "label=4000000000"], "does not fit i32"),
            (["--dim", "N=9223372036854775807", "--range", "label=3"], "memory"),
            (
                ["--dim", "N=400000000000000000", "--range", "label=3"],
                "argument 'x' would be f32[400000000000000000, 4]: there is no memory for its 6400000000000000000 bytes",
            ),
            (["--dim", "N=4", "--range", "label=50"], "not in 0 to 2"),
        ):
            with self.subTest(words):
                self.assertIn(part, self.fails("bench", options.model, "step", *words))


class Training(Commands):
    def train(self, *words, model=None, **more):
        return self.dlrun("train", model or options.model, *words, **more)

    def start(self, *words):
        process = subprocess.Popen([options.dlrun, "train", options.model, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(lambda: (process.poll() is None and process.kill(), process.communicate()))
        return process

    def state(self, folder="c"):
        return json.loads(content(self.path(os.path.join(folder, "state.json"))))

    def wait_for(self, condition):
        for _ in range(2000):
            if condition():
                return
            time.sleep(0.005)
        self.fail("it did not happen in 10 seconds")


class Train(Training):
    def test_learns(self):
        done = self.train(*self.data(), "--batch", 32, "--epochs", 6, "--checkpoint", self.path("c"))
        lines = done.stdout.splitlines()
        self.assertEqual(len(lines), 7)
        numbers = r"epoch (\d)/6  loss (\d\.\d{4})  validation loss (\d\.\d{4})  accuracy (\d\.\d{4})  10 steps  \S+ s  \d+ steps/s"
        rows = [re.fullmatch(numbers, line) for line in lines[:6]]
        self.assertTrue(all(rows), done.stdout)
        self.assertEqual([row[1] for row in rows], list("123456"))
        self.assertLess(float(rows[5][2]), float(rows[0][2]))
        self.assertLess(float(rows[5][3]), float(rows[0][3]))
        self.assertEqual(lines[6], "accuracy " + rows[5][4])
        self.assertGreater(float(rows[5][4]), 0.9)
        self.assertEqual(done.stderr, "", "no progress line without a terminal")
        self.assertEqual(sorted(os.listdir(self.path("c"))), ["last.safetensors", "state.json"])
        state = self.state()
        self.assertEqual((state["epoch"], state["step_in_epoch"], len(state["history"])), (6, 0, 6))

    def test_measures_are_right(self):
        # with a rate of 0 they are those of the initial values
        self.train(*self.data(), "--epochs", 1, "--input", "lr=0", "--checkpoint", self.path("c"))
        last = self.state()["history"][-1]
        for count, seed, function, key in ((300, 1, "loss", "loss"), (90, 2, "loss", "validation_loss"), (90, 2, "accuracy", "validation_accuracy")):
            pixels, labels = points(count, seed)
            x = write_npy(self.path("x.npy"), "f", (count, 4), [value / 255 for value in pixels])
            label = write_npy(self.path("label.npy"), "i", (count,), labels)
            self.dlrun("call", options.model, function, "--input", f"x={x}", f"label={label}", "--output-dir", self.path("out"))
            self.assertAlmostEqual(read_npy(self.path("out/out.npy"))[1][0], last[key], places=5)

    def test_short_batch_is_weighted(self):
        words = [*self.data(rows=10, held=7), "--epochs", 1, "--input", "lr=0", "--checkpoint", self.path("c"), "--overwrite"]
        values = []
        for batch in (10, 4, 3):
            self.train(*words, "--batch", batch)
            last = self.state()["history"][-1]
            values.append([last["loss"], last["validation_loss"], last["validation_accuracy"]])
        for other in values[1:]:
            for a, b in zip(values[0], other):
                self.assertAlmostEqual(a, b, places=5)

    def test_same_bytes(self):
        data = self.data()
        for name, more in (("a", ["--threads", 1]), ("b", ["--threads", 2]), ("c", ["--seed", 1])):
            self.train(*data, "--epochs", 2, "--checkpoint", self.path(name), *more)
        read = lambda name: (content(self.path(name + "/last.safetensors")), content(self.path(name + "/state.json")))
        self.assertEqual(read("a"), read("b"))
        self.assertNotEqual(read("a")[0], read("c")[0])

    def whole(self, data, *words):
        """A training without interruption, to compare with -> its files"""
        self.train(*data, *words, "--checkpoint", self.path("whole"))
        return [content(self.path("whole/" + name)) for name in ("last.safetensors", "state.json")]

    def test_interrupted_and_resumed(self):
        data, words = self.data(), ["--batch", 16, "--epochs", 3]
        whole = self.whole(data, *words)
        for number in (signal.SIGINT, signal.SIGTERM):
            process = self.start(*data, *words, "--input", "delay=20", "--checkpoint", self.path("c"), "--save-every", 1, "--overwrite")
            # somewhere in the second epoch
            self.wait_for(lambda: os.path.exists(self.path("c/state.json")) and self.state()["epoch"] == 1 and self.state()["step_in_epoch"] > 2)
            process.send_signal(number)
            _, errors = process.communicate(timeout=20)
            self.assertEqual(process.returncode, 130, errors)
            self.assertRegex(errors, r"interrupted after step \d+ of 19 in epoch 2; saved in '.*'\ngo on with: .*dlrun train .* --resume\n$")
            self.assertNotIn("--overwrite", errors)
            self.assertEqual(self.state()["epoch"], 1)
            # without --resume it is not thrown away
            self.assertIn("--resume to go on", self.fails("train", options.model, *data, *words, "--checkpoint", self.path("c")))
            done = self.train(*data, *words, "--checkpoint", self.path("c"), "--resume")
            self.assertRegex(done.stdout, r"(?m)^accuracy \d\.\d{4}\n\Z")
            self.assertEqual([content(self.path("c/" + name)) for name in ("last.safetensors", "state.json")], whole)

    def test_hint_can_be_run(self):
        process = self.start(*self.data(), "--batch", 16, "--epochs", 1, "--checkpoint", self.path("with 'space'"), "--input", "delay=30")
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        self.assertEqual(process.returncode, 130, errors)
        command = errors.split("go on with: ")[1].strip()
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_second_interrupt_ends_at_once(self):
        process = self.start(*self.data(), "--batch", 150, "--epochs", 2, "--input", "delay=30000", "--checkpoint", self.path("c"))
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        self.assertIsNone(process.poll(), "the first one waits for the step")
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)
        self.assertLess(time.monotonic() - start, 5)
        self.assertEqual(process.returncode, 130)

    def test_killed_and_resumed(self):
        data, words = self.data(), ["--batch", 16, "--epochs", 2]
        whole = self.whole(data, *words)
        draw = random.Random(11)
        for turn in range(25):
            resume = ["--resume"] if os.path.exists(self.path("c/state.json")) else ["--overwrite"]
            process = self.start(*data, *words, "--save-every", 1, "--checkpoint", self.path("c"), *resume)
            try:
                process.wait(timeout=draw.uniform(0.005, 0.08))
                self.assertEqual(process.returncode, 0, process.stderr.read())
                if turn > 15:
                    break
                shutil.rmtree(self.path("c"))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        resume = ["--resume"] if os.path.exists(self.path("c/state.json")) else []
        self.train(*data, *words, "--checkpoint", self.path("c"), *resume)
        self.assertEqual([content(self.path("c/" + name)) for name in ("last.safetensors", "state.json")], whole)
        self.assertEqual(sorted(os.listdir(self.path("c"))), ["last.safetensors", "state.json"])

    def test_killed_between_the_renames(self):
        data, words = self.data(), ["--batch", 16]
        whole = self.whole(data, *words, "--epochs", 2)
        self.train(*data, *words, "--epochs", 1, "--checkpoint", self.path("c"))
        # the new state names next.safetensors; last.safetensors is still the older one
        os.rename(self.path("c/last.safetensors"), self.path("c/next.safetensors"))
        self.dlrun("call", options.model, "step", "--repeat", 0, "--save", self.path("c/last.safetensors"))
        self.train(*data, *words, "--epochs", 2, "--checkpoint", self.path("c"), "--resume")
        self.assertEqual([content(self.path("c/" + name)) for name in ("last.safetensors", "state.json")], whole)

    def test_epochs_go_on(self):
        data = self.data()
        whole = self.whole(data, "--epochs", 3)
        for epochs, resume in ((1, []), (2, ["--resume"]), (3, ["--resume"]), (3, ["--resume"])):
            done = self.train(*data, "--epochs", epochs, "--checkpoint", self.path("c"), *resume)
        self.assertEqual([content(self.path("c/" + name)) for name in ("last.safetensors", "state.json")], whole)
        self.assertRegex(done.stdout, r"^accuracy \d\.\d{4}\n$")  # nothing was left to do
        # --epochs defaults to what the training there asked for
        self.assertEqual(self.train(*data, "--checkpoint", self.path("c"), "--resume").stdout, done.stdout)

    def test_resuming_something_else(self):
        data = self.data()
        words = ["--checkpoint", self.path("c"), "--resume"]
        self.assertIn("holds no training to resume", self.fails("train", options.model, *data, *words))
        self.train(*data, "--epochs", 1, *words[:2])
        resume = lambda *more: self.fails("train", options.model, *more, *words)
        self.assertIn("--seed is 3, the training there has 0", resume(*data, "--seed", 3))
        self.assertIn("the batch is 64, the training there has 128", resume(*data, "--batch", 64))
        self.assertIn("1 epochs behind it, --epochs is 0", resume(*data, "--epochs", 0))
        self.assertIn("the data is", resume(*data[:-2]))
        self.assertIn("the number of rows is 200, the training there has 300", resume(*self.data(rows=200)))
        data = self.data()
        before = content(self.path("c/last.safetensors"))
        self.dlrun("call", options.model, "step", "--repeat", 0, "--save", self.path("c/last.safetensors"))
        self.assertIn("is not the file that", resume(*data))
        os.remove(self.path("c/last.safetensors"))
        self.assertIn("is missing", resume(*data))
        with open(self.path("c/last.safetensors"), "wb") as file:
            file.write(before)
        good = self.state()
        for text in (b"", b"[]", b"{", b"[" * 100000, b'{"format": 1}', b'{"format": 2}', b"\xff\xfe"):
            with open(self.path("c/state.json"), "wb") as file:
                file.write(text)
            self.assertIn("state.json", resume(*data))
        for key, value in (("epoch", -1), ("step_in_epoch", 10**6), ("batch", 0), ("rows", "x"), ("variables", {"bytes": 1, "crc32": 2**40}), ("history", {})):
            with open(self.path("c/state.json"), "w") as file:
                json.dump({**good, key: value}, file)
            with self.subTest(key):
                resume(*data)
        with open(self.path("c/state.json"), "w") as file:
            json.dump(good, file)
        self.train(*data, *words)

    def test_one_training_per_folder(self):
        process = self.start(*self.data(), "--input", "delay=200", "--checkpoint", self.path("c"))
        self.wait_for(lambda: os.path.exists(self.path("c")))
        time.sleep(0.1)
        self.assertIn("another dlrun trains in", self.fails("train", options.model, *self.data(), "--checkpoint", self.path("c")))
        process.kill()

    def test_full_disk(self):
        data = self.data()
        self.train(*data, "--epochs", 1, "--checkpoint", self.path("c"))
        before = {name: content(self.path("c/" + name)) for name in os.listdir(self.path("c"))}
        # 120 bytes: not even the variables; 400: the variables, but not the state
        for limit in (120, 400):
            done = subprocess.run(
                [options.dlrun, "train", options.model, *data, "--epochs", "2", "--checkpoint", self.path("c"), "--resume"],
                capture_output=True, text=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn("dlrun: error: ", done.stderr)
            self.assertEqual({name: content(self.path("c/" + name)) for name in os.listdir(self.path("c"))}, before)
        self.train(*data, "--epochs", 2, "--checkpoint", self.path("c"), "--resume")

    def test_fixed_batch(self):
        data = self.data(rows=30, held=17)
        done = self.train(*data, "--epochs", 1, "--checkpoint", self.path("c"), model=options.fixed)
        self.assertIn("  3 steps  ", done.stdout)
        self.assertIn("the last 6 of 30 rows of --data (after shuffling) are left out", done.stderr)
        self.assertIn("the last 1 of 17 rows of --validation are left out", done.stderr)
        self.train(*data, "--batch", 8, "--epochs", 1, model=options.fixed)
        message = self.fails("train", options.fixed, *data, "--batch", 9)
        self.assertIn("--batch 9", message)
        self.assertIn("a fixed batch of 8", message)
        self.assertIn("--data has 7 rows, fewer", self.fails("train", options.fixed, *self.data(rows=7)))

    def test_data_that_do_not_fit(self):
        x, label = self.arrays(6)
        wide = write_npy(self.path("wide.npy"), "f", (6, 5), [0] * 30)
        short = write_npy(self.path("short.npy"), "q", (5,), [0] * 5)
        large = write_npy(self.path("large.npy"), "q", (6,), [2**40] * 6)
        wrong = write_npy(self.path("wrong.npy"), "q", (6,), [0, 1, 2, 3, 1, 1])
        doubles = write_npy(self.path("doubles.npy"), "d", (6, 4), [0] * 24)
        empty = write_npy(self.path("empty.npy"), "f", (0, 4), [])
        for words, parts in (
            ([f"x={wide}", f"label={label}"], ["f32[6, 5]", "'x' of 'step' is f32[N, 4]"]),
            ([f"x={x}", f"label={short}"], ["'x' has 6 rows (f32[6, 4])", "'label' has 5 (i64[5])"]),
            ([f"x={x}", f"label={large}"], ["i64[6]", "1099511627776"]),
            ([f"x={x}", f"label={wrong}"], ["epoch 1, step 1", "is 3, which is not in 0 to 2"]),
            ([f"x={doubles}", f"label={label}"], ["f64[6, 4]", "f32[N, 4]", "f64 to f32"]),
            ([f"x={x}"], ["'label' of 'step' (i32[N]) is missing", "--data label=FILE"]),
            ([f"x={x}", f"label={label}", f"z={x}"], ["no argument 'z'"]),
            ([f"x={x}", f"label={label}", f"lr={x}"], ["'lr'", "--input lr=NUMBER"]),
            ([f"x={empty}", f"label={label}"], ["'x' has 0 rows", "'label' has 6"]),
            ([f"x={empty}"], ["no rows"]),
        ):
            with self.subTest(words):
                message = self.fails("train", options.model, "--data", *words, "--checkpoint", self.path("c"))
                for part in parts:
                    self.assertIn(part, message)
                self.assertFalse(os.path.exists(self.path("c/state.json")))

    def test_choosing_functions(self):
        data = self.data()
        fails = lambda *words: self.fails("train", options.model, *data, *words)
        self.assertIn("changes no variable", fails("--step", "loss"))
        self.assertIn("no function 'walk'", fails("--step", "walk"))
        self.assertIn("is no measure", fails("--metric", "predict"))
        self.assertIn("is no measure", fails("--loss", "step"))
        done = self.train(*data, "--step", "step", "--metric", "loss", "--epochs", 1)
        self.assertRegex(done.stdout, r"\nloss \d\.\d{4}\n$")
        without = data[: data.index("--validation")] + ["--scale", "x=1/255"]
        self.assertRegex(self.train(*without, "--epochs", 1).stdout, r"^epoch 1/1  loss (\d\.\d{4})  3 steps .*\nloss \1\n$")

    def test_one_step_is_no_steps(self):
        done = self.train(*self.data(), "--epochs", 1, "--batch", 300)
        self.assertRegex(done.stdout, r"^epoch 1/1 .*  1 step  \d+\.\d s  \d+ steps?/s\n")

    def test_no_epoch_measures_only(self):
        self.assertRegex(self.train(*self.data(), "--epochs", 0).stdout, r"^accuracy \d\.\d{4}\n$")


class Terminal(Training):
    """A test of its own for ctest: skipped where there is no pseudo-terminal to be had."""

    def test_progress_line(self):
        data = self.data()
        try:
            master, slave = pty.openpty()
        except OSError as problem:  # a container without devpts
            self.skipTest(f"no terminal to be had: {problem}")
        process = subprocess.Popen(
            [options.dlrun, "train", options.model, *data, "--epochs", "2", "--batch", "16", "--input", "delay=12"],
            stdout=subprocess.PIPE, stderr=slave)
        os.close(slave)
        shown = b""
        while True:
            ready, _, _ = select.select([master], [], [], 20)
            try:
                piece = os.read(master, 65536) if ready else b""
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            shown += piece
        os.close(master)
        output = process.communicate()[0].decode()
        self.assertEqual(process.returncode, 0)
        text = shown.decode()
        self.assertRegex(text, r"\repoch 1/2 \[#+\.+\] \d+/19  loss \d\.\d{4}  \d+ steps/s  0:0\d left\x1b\[K")
        self.assertTrue(text.endswith("\r\x1b[K"), repr(text[-40:]))
        self.assertNotIn("\n", text)
        self.assertEqual(len(output.splitlines()), 3)


class Result(unittest.TextTestResult):
    """Counts the tests that passed, a failed one once however many of its parts failed."""

    passed = 0

    def stopTest(self, test):
        super().stopTest(test)
        others = {getattr(case, "test_case", case) for case, _ in self.failures + self.errors + self.skipped}
        self.passed += test not in others


if __name__ == "__main__":
    runner = unittest.TextTestRunner(sys.stdout, verbosity=2, resultclass=Result)
    result = unittest.main(argv=[sys.argv[0], *rest], testRunner=runner, exit=False).result
    skipped, failed = len(result.skipped), result.testsRun - result.passed - len(result.skipped)
    print(f"{result.passed} passed, {failed} failed")
    sys.exit(1 if failed or not result.testsRun else 77 if skipped else 0)
