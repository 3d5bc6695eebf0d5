#===- cuda_test.py - compiled programs on the stand-in for a GPU -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Compiles the examples for both targets, runs them with dlrun on the stand-in's libcuda and on the processor, and compares; looks at what the
stand-in counted. Needs Python's own library only; ends with 'N passed, M failed'.

For a machine with a GPU and without dlc: --pack FOLDER writes artefacts, inputs and the processor's results, --packed FOLDER takes them from there.
Without --standin the machine's own driver is used, and tests of what only the stand-in can do or tell are skipped."""

import argparse
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

parser = argparse.ArgumentParser()
parser.add_argument("--dlc", help="not needed with --packed")
parser.add_argument("--dlrun", required=True)
parser.add_argument("--examples", help="not needed with --packed")
parser.add_argument("--standin", help="folder of the stand-in's libcuda.so.1")
parser.add_argument("--pack", metavar="FOLDER", help="compile for every GPU and every x86-64-v3, and run no test")
parser.add_argument("--packed", metavar="FOLDER")
options, rest = parser.parse_known_args()
if not options.packed and not (options.dlc and options.examples):
    parser.error("--dlc and --examples are needed, or --packed")
for name in ("dlc", "dlrun", "examples", "standin", "pack", "packed"):
    if getattr(options, name):
        setattr(options, name, os.path.abspath(getattr(options, name)))
needs_standin = unittest.skipUnless(options.standin, "only the stand-in can do or tell this")

FORMATS = {"f": "<f4", "i": "<i4"}


def write_npy(path, code, shape, values):
    header = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }" % (FORMATS[code], tuple(shape))
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode())
        file.write(struct.pack(f"<{len(values)}{code}", *values))
    return path


def read_checkpoint(path):
    """-> {name: values} of the f32 variables"""
    with open(path, "rb") as file:
        data = file.read()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    variables = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            variables[name] = struct.unpack(f"<{(end - begin) // 4}f", data[begin:end])
    return variables


class Cuda(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="dlrun-cuda-")
        if options.packed:
            shutil.copytree(options.packed, cls.folder, dirs_exist_ok=True)
        cls.prepare()

    @classmethod
    def prepare(cls):
        draw = random.Random(1)
        normal = lambda count: [draw.gauss(0, 1) for _ in range(count)]
        write = lambda name, code, shape, values: write_npy(cls.path(name), code, shape, values)
        cls.inputs = {
            "two_layer_grad": ["x=" + write("gx.npy", "f", (64, 1000), normal(64000)), "y=" + write("gy.npy", "f", (64, 1000), normal(64000))],
            "two_layer": ["x=" + cls.path("gx.npy"), "y=" + write("ty.npy", "f", (64, 10), normal(640))],
            "mlp": [
                "x=" + write("mx.npy", "f", (32, 784), [draw.random() for _ in range(32 * 784)]),
                "label=" + write("ml.npy", "i", (32,), [draw.randrange(10) for _ in range(32)]),
            ],
        }
        for model in cls.inputs:
            cls.compile(model, "auto")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder, name)

    @classmethod
    def compile(cls, model, gemm):
        path = cls.path(f"{model}-{gemm}.so")
        if not os.path.exists(path):
            words = [options.dlc, os.path.join(options.examples, model + ".dl"), "--target=cpu,cuda", f"--gemm={gemm}", "-o", path]
            words += ["-march=x86-64-v3"] if options.pack else ["--gpu-arch=sm_90"]
            subprocess.run(words, check=True)
        return path

    def dlrun(self, *words, code=0, standin=True, **environment):
        names = dict(os.environ, **environment)
        if standin and options.standin:
            names["LD_LIBRARY_PATH"] = options.standin
        done = subprocess.run([options.dlrun, *map(str, words)], capture_output=True, text=True, env=names, timeout=500)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        if code == 0:
            self.assertEqual(done.stderr, "")  # where the stand-in reports
        return done

    def fails(self, *words, **more):
        done = self.dlrun(*words, code=1, **more)
        errors = [line for line in done.stderr.splitlines() if line.startswith("dlrun: error: ")]
        self.assertEqual(len(errors), 1, done.stderr)
        return errors[0]

    def steps(self, model, device, count, gemm="auto", save=None, **environment):
        """Runs the step; -> its loss"""
        words = ["call", self.compile(model, gemm), "step", "--input", *self.inputs[model], "--repeat", count, "--device", device]
        done = self.dlrun(*words, *(["--save", save] if save else []), **environment)
        self.assertIn("device cuda:0 (" if device == "cuda" else "device cpu: asked for", done.stdout)
        return float(re.search(r"out f32 = (\S+)", done.stdout)[1])

    def compare(self, model, gemm):
        losses, saved = {}, {}
        for device in ("cuda", "cpu"):
            saved[device] = self.path(f"{model}-{gemm}-{device}.safetensors")
            if options.packed and device == "cpu":
                saved[device] = self.path(f"{model}-packed.safetensors")
                with open(self.path(f"{model}-packed.json")) as file:
                    losses[device] = json.load(file)
                continue
            losses[device] = self.steps(model, device, 3, gemm, saved[device])
        self.assertAlmostEqual(losses["cuda"], losses["cpu"], delta=1e-5 * abs(losses["cpu"]))
        on_gpu, on_cpu = read_checkpoint(saved["cuda"]), read_checkpoint(saved["cpu"])
        self.assertEqual(list(on_gpu), list(on_cpu))
        for name in on_cpu:
            largest = max(map(abs, on_cpu[name]))
            difference = max(abs(a - b) for a, b in zip(on_gpu[name], on_cpu[name]))
            self.assertLessEqual(difference, 1e-3 * largest, f"{model}, {name}")

    def test_two_layer_grad(self):
        self.compare("two_layer_grad", "auto")

    def test_two_layer(self):
        self.compare("two_layer", "auto")

    def test_mlp(self):
        self.compare("mlp", "auto")

    @unittest.skipIf(options.packed, "needs dlc")
    def test_functions_in_cuda(self):
        words = [options.dlc, os.path.join(options.examples, "custom_op.dl"), "--target=cuda", "--emit=ptx", "-o", os.devnull]
        done = subprocess.run(words, capture_output=True, text=True)
        if "there is no NVRTC" in done.stderr:
            self.skipTest("there is no NVRTC to compile them")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.inputs = dict(self.inputs, custom_op=self.inputs["mlp"])
        self.compare("custom_op", "auto")

    def test_products_of_our_own(self):
        for model in self.inputs:
            with self.subTest(model):
                self.compare(model, "own")

    def test_same_bits_twice(self):
        contents = []
        for i in range(2):
            path = self.path(f"twice{i}")
            self.steps("mlp", "cuda", 4, save=path)
            with open(path, "rb") as file:
                contents.append(file.read())
        self.assertEqual(*contents)

    @needs_standin
    def test_what_a_step_does(self):
        counts = []
        for repeat in (2, 12):
            path = self.path(f"counts{repeat}.json")
            self.steps("mlp", "cuda", repeat, DLC_STANDIN_COUNTERS=path)
            with open(path) as file:
                counts.append(json.load(file))
        more = {key: counts[1][key] - counts[0][key] for key in counts[0] if isinstance(counts[0][key], int)}
        for key, value in {
            "graph_launches": 10,
            "kernel_launches": 0,
            "matmuls": 0,
            "graph_instantiations": 0,
            "host_to_device_copies": 10,
            "device_to_host_copies": 10,
            "device_to_device_copies": 0,
            "device_allocations": 0,
            "pinned_allocations": 0,
            "memsets": 0,
            "reports": 0,
        }.items():
            self.assertEqual(more[key], value, key)
        # x and label, the fault and the loss; gaps of less than 256 bytes.
        exact = 32 * 784 * 4 + 32 * 4
        self.assertLess(more["host_to_device_bytes"], 10 * (exact + 256))
        self.assertLess(more["device_to_host_bytes"], 10 * 512)

    def test_checkpoints_go_both_ways(self):
        saved = self.path("both")
        self.steps("mlp", "cuda", 2, save=saved)
        words = ["call", self.compile("mlp", "auto"), "loss", "--input", *self.inputs["mlp"], "--load", saved, "--device"]
        values = [float(re.search(r"= (\S+)", self.dlrun(*words, device).stdout)[1]) for device in ("cpu", "cuda")]
        self.assertAlmostEqual(*values, delta=1e-5)
        again = self.path("again")
        self.dlrun("call", self.compile("mlp", "auto"), "loss", "--load", saved, "--save", again, "--repeat", 0, "--device", "cuda")
        with open(saved, "rb") as first, open(again, "rb") as second:
            self.assertEqual(first.read(), second.read())

    def test_train(self):
        words = ["train", self.compile("mlp", "auto"), "--data", *self.inputs["mlp"], "--batch", 12, "--checkpoint"]
        lines = {}
        for device in ("cuda", "cpu"):
            lines[device] = self.dlrun(*words, self.path("train-" + device), "--epochs", 3, "--device", device).stdout.splitlines()
        losses = {device: [float(re.search(r"loss (\S+)", line)[1]) for line in lines[device][1:4]] for device in lines}
        for gpu, cpu in zip(losses["cuda"], losses["cpu"]):
            self.assertAlmostEqual(gpu, cpu, delta=2e-4)
        self.assertLess(losses["cuda"][2], losses["cuda"][0])
        # What began on one device goes on on another.
        resumed = self.dlrun(*words, self.path("train-cuda"), "--epochs", 4, "--resume", "--device", "cpu").stdout
        self.assertIn("epoch 4/4", resumed)

    def small(self, rows=70):
        """A program of a few microseconds -> the words that train it, and its labels"""
        with open(self.path("small.dl"), "w") as file:
            file.write(
                "import nn, optim\n"
                "model small(N = ?) {\n"
                "  net = [nn.linear(6, 8), relu, nn.dropout(0.2), nn.linear(8, 3)]\n"
                "  fn loss(x: f32[N, 6], label: i32[N]) = cross_entropy(net(x), label)\n"
                "  fn accuracy(x: f32[N, 6], label: i32[N]) = mean(f32(argmax(net(x), axis = 1) == label))\n"
                "  train step = optim.adam(loss, lr = 1e-2)\n"
                "}\n")
        artefact = self.path("small.so")
        if not os.path.exists(artefact):
            subprocess.run([options.dlc, self.path("small.dl"), "--target=cpu,cuda", "-o", artefact], check=True)
        draw = random.Random(4)
        labels = [draw.randrange(3) for _ in range(rows)]
        x = write_npy(self.path("sx.npy"), "f", (rows, 6), [draw.gauss(0, 1) + (k == label) for label in labels for k in range(6)])
        write_npy(self.path("sl.npy"), "i", (rows,), labels)
        return ["train", artefact, "--data", "x=" + x, "label=" + self.path("sl.npy"), "--batch", 8], labels

    def saved(self, folder):
        contents = []
        for name in ("last.safetensors", "state.json"):
            with open(self.path(os.path.join(folder, name)), "rb") as file:
                contents.append(file.read())
        return contents

    # A step ahead of the one whose loss is waited for: whatever runs when, it is the same training.
    @needs_standin
    def test_train_in_any_order(self):
        words, _ = self.small()
        words += ["--validation", "x=" + self.path("sx.npy"), "label=" + self.path("sl.npy"), "--epochs", 3, "--device", "cuda", "--overwrite", "--checkpoint"]
        self.dlrun(*words, self.path("late"))
        late = self.saved("late")
        self.assertEqual(len(json.loads(late[1])["history"]), 3)
        for seed in range(1, 7):
            self.dlrun(*words, self.path("chance"), *(["--save-every", seed] if seed % 3 else []), DLC_STANDIN_SEED=str(seed))
            self.assertEqual(self.saved("chance"), late, f"seed {seed}")

    @needs_standin
    def test_train_is_interrupted_a_step_ahead(self):
        words, _ = self.small()
        words += ["--epochs", 40, "--device", "cuda", "--save-every", 7, "--checkpoint"]
        self.dlrun(*words, self.path("whole"))
        environment = dict(os.environ, LD_LIBRARY_PATH=options.standin)
        state = self.path("parts/state.json")
        before = None
        for turn in range(3):
            command = [options.dlrun, *map(str, words), self.path("parts"), *(["--resume"] if turn else [])]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
            while process.poll() is None:  # until it has saved something
                if os.path.exists(state):
                    with open(state, "rb") as file:
                        now = file.read()
                    if now != before:
                        break
                time.sleep(0.002)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=100)
            self.assertEqual(process.returncode, 130, errors)
            self.assertIn("go on with: ", errors)
            with open(state, "rb") as file:
                before = file.read()
            self.assertLess(json.loads(before)["epoch"], 40)
        self.dlrun(*words, self.path("parts"), "--resume")
        self.assertEqual(self.saved("parts"), self.saved("whole"))

    def test_faults_name_their_step(self):
        if options.packed:
            self.skipTest("compiles a program of its own")
        words, labels = self.small()
        words += ["--epochs", 1, "--overwrite"]
        faults = {}
        for row in range(0, len(labels), 2):  # shuffled: they lie in any step
            write_npy(self.path("sl.npy"), "i", (len(labels),), [5 if i == row else label for i, label in enumerate(labels)])
            message = self.fails(*words, "--device", "cpu")
            faults.setdefault(re.search(r"epoch 1, step (\d): .*label 5 ", message)[1], (row, message))
        for step in ("1", "4", "9"):
            row, message = faults[step]
            write_npy(self.path("sl.npy"), "i", (len(labels),), [5 if i == row else label for i, label in enumerate(labels)])
            self.assertEqual(self.fails(*words, "--device", "cuda", DLC_STANDIN_SEED=step), message)
        # What was saved before it is what is saved where no step goes ahead.
        write_npy(self.path("sl.npy"), "i", (len(labels),), [5 if i == faults["4"][0] else label for i, label in enumerate(labels)])
        for every in (1, 3):
            self.fails(*words, "--device", "cuda", "--save-every", every, "--checkpoint", self.path(f"every{every}"))
        self.assertEqual(self.saved("every1"), self.saved("every3"))
        self.assertEqual(json.loads(self.saved("every3")[1])["step_in_epoch"], 3)

    # Under a lost device the step that it was lost in is named.
    @needs_standin
    def test_device_lost_while_training(self):
        words, _ = self.small()
        for seed in (0, 1, 2):
            message = self.fails(*words, "--epochs", 1, "--device", "cuda", DLC_STANDIN_FAIL="launch:40", DLC_STANDIN_SEED=str(seed))
            self.assertRegex(message, r"epoch 1, step \d: cuda:0: cannot run 'step': unspecified launch failure \(CUDA_ERROR_LAUNCH_FAILED, 719\)$")

    def test_fault(self):
        bad = write_npy(self.path("bad.npy"), "i", (32,), [10 if i == 5 else 1 for i in range(32)])
        words = ["call", self.compile("mlp", "auto"), "step", "--input", self.inputs["mlp"][0], "label=" + bad]
        messages = {self.fails(*words, "--device", device) for device in ("cuda", "cpu")}
        self.assertEqual(len(messages), 1)
        self.assertIn("label 10 at index 5", messages.pop())

    @needs_standin
    def test_messages(self):
        text = """model told(N = ?) {
  var w: f32[2] = 1
  fn tell(x: f32[N], limit: f32 = 100) {
    print("x {} sums to {}", x, sum(x))
    w += sum(x)
    print("w {}", w)
    assert(w[0] < limit, "w is too large")
    return w[0]
  }
}
"""
        with open(self.path("told.dl"), "w") as file:
            file.write(text)
        model, x = self.path("told.so"), write_npy(self.path("told.npy"), "f", (3,), [0.5, 1, 2])
        subprocess.run([options.dlc, self.path("told.dl"), "--target=cpu,cuda", "--gpu-arch=sm_90", "-o", model], check=True)
        environment = dict(os.environ, LD_LIBRARY_PATH=options.standin)
        for device in ("cuda", "cpu"):
            words = [options.dlrun, "call", model, "tell", "--input", "x=" + x, "--device", device]
            done = subprocess.run([*words, "--repeat", "2"], capture_output=True, text=True, env=environment, timeout=500)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(done.stderr.splitlines(), ["x [0.5, 1, 2] sums to 3.5", "w [4.5, 4.5]", "x [0.5, 1, 2] sums to 3.5", "w [8, 8]"])
            self.assertIn("out f32 = 8", done.stdout)
            # A failed call prints nothing and changes nothing.
            done = subprocess.run([*words, "--input", "limit=4"], capture_output=True, text=True, env=environment, timeout=500)
            self.assertEqual(done.returncode, 1)
            self.assertIn("in 'tell': w is too large", done.stderr)
            self.assertNotIn("sums to", done.stderr)

    @needs_standin
    def test_messages_of_turns(self):
        text = """model told(N = ?) {
  var w: f32[2] = 1
  fn tell(x: f32[N]) {
    print("begins")
    for i in 0..2 {
      for k in 0..2 {
        x += f32(k)
        if x[0] > 1 { print("{} {}: {}", i, k, x) }
      }
      print("turn {}", i)
    }
    while sum(x) < 2000 {
      x += 1
      print("{}", arange(100) + i32(x[0]))
    }
    w += x[0]
    print("w {}", w)
    return w[0]
  }
}
"""
        with open(self.path("turns.dl"), "w") as file:
            file.write(text)
        model, x = self.path("turns.so"), write_npy(self.path("turns.npy"), "f", (2,), [0.5, 1])
        subprocess.run([options.dlc, self.path("turns.dl"), "--target=cpu,cuda", "--gpu-arch=sm_90", "-o", model], check=True)
        environment = dict(os.environ, LD_LIBRARY_PATH=options.standin)
        shown = lambda first: "[" + ", ".join(str(first + i) for i in range(64)) + ", …]"
        turns = ["begins", "0 1: [1.5, 2]", "turn 0", "1 0: [1.5, 2]", "1 1: [2.5, 3]", "turn 1"]
        for device in ("cuda", "cpu"):
            words = [options.dlrun, "call", model, "tell", "--input", "x=" + x, "--device", device]
            done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=500)
            self.assertEqual(done.returncode, 0, done.stderr)
            # 998 turns: x is 1000.5 and 1001 then
            self.assertEqual(done.stderr.splitlines(), [*turns, *(shown(3 + i) for i in range(998)), "w [1001.5, 1001.5]"])

    def test_info(self):
        model = self.compile("mlp", "auto")
        info = json.loads(self.dlrun("info", model, "--json").stdout)
        self.assertEqual(info["targets"], ["cpu", "cuda"])
        self.assertIn("ptx", [image["kind"] for image in info["images"]])
        symbols = {kernel["symbol"]: kernel for kernel in info["gpu_kernels"]}
        step = next(function for function in info["functions"] if function["name"] == "step")
        self.assertGreater(len(step["launches"]), 3)
        for launch in step["launches"]:
            if launch["kernel"] is not None:
                self.assertGreaterEqual(symbols[launch["kernel"]]["threads"], 32)
        text = self.dlrun("info", model).stdout
        self.assertRegex(text, r"\ntargets +cpu and cuda\n")
        self.assertRegex(text, r"\nimages +.*PTX for sm_\d+ \(")
        self.assertIn("\n      on a GPU\n", text)
        self.assertRegex(text, r"\ngpu kernels\n  symbol +arch +threads +registers +shared bytes +local bytes\n")

    def test_bench_and_trace(self):
        words = ["bench", self.compile("mlp", "auto"), "step", "--dim", "N=8", "--range", "label=10", "--runs", 3, "--device", "cuda"]
        self.assertRegex(self.dlrun(*words).stdout, r"^step, cuda:0 \(.*\): median \S+ us")
        got = json.loads(self.dlrun(*words, "--profile", "--json").stdout)
        self.assertTrue(got["device"].startswith("cuda:0 ("))
        self.assertTrue(all(row["launches"] == 1 for row in got["kernels"]))
        # Nobody measures a GPU's peaks here. What the launches ask for is no other than on the processor.
        self.assertNotIn("peak", got)
        self.assertFalse(any("bound" in row for row in got["kernels"]))
        cpu = json.loads(self.dlrun(*words[:-1], "cpu", "--profile", "--json", "--peak", "1,1").stdout)
        self.assertEqual(got["whole"]["flops"], cpu["whole"]["flops"])
        products = 2 * 8 * (784 * 512 * 2 + 512 * 512 * 3 + 512 * 10 * 3)
        self.assertGreater(got["whole"]["flops"], products)
        self.assertLess(got["whole"]["flops"], 2 * products)
        bounded = json.loads(self.dlrun(*words, "--profile", "--json", "--peak", "1000,100").stdout)
        self.assertTrue(any("bound" in row for row in bounded["kernels"]))
        path = self.path("trace.json")
        self.dlrun(*words, "--profile", path)
        with open(path) as file:
            events = json.load(file)["traceEvents"]
        rows = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
        bars = [event for event in events if event.get("cat") == "kernel"]
        self.assertEqual({rows[bar["tid"]] for bar in bars}, set(rows.values()) - {"calls of step"})
        self.assertTrue(all(bar["name"] == rows[bar["tid"]] for bar in bars))
        self.assertIn("mlp.dl:", "".join(rows.values()))

    @needs_standin
    def test_refusals(self):
        model = self.compile("mlp", "auto")
        words = ["call", model, "step", "--input", *self.inputs["mlp"], "--device"]
        for part, device, environment in (
            ("no device: the driver sees no GPU", "cuda", {"DLC_STANDIN_DEVICES": "0"}),
            ("no device cuda:3: there is 1, from cuda:0", "cuda:3", {}),
            ("the driver is too old: it is for CUDA 11.4, needed is one for 12.0 or later", "cuda", {"DLC_STANDIN_DRIVER_VERSION": "11040"}),
            ("has no kernels for cuda:0, which is sm_70: it has ", "cuda", {"DLC_STANDIN_CAPABILITY": "7.0"}),
            ("out of memory: the variables asked for ", "cuda", {"DLC_STANDIN_MEMORY": "200000"}),
        ):
            with self.subTest(part):
                self.assertIn(part, self.fails(*words, device, **environment))
                # Left to itself, dlrun takes the processor and says why.
                if device == "cuda":
                    self.assertIn("device cpu: " + part if "sm_70" not in part else "device cpu: model", self.dlrun(*words, "auto", **environment).stdout)

    @needs_standin
    def test_failures(self):
        words = ["call", self.compile("mlp", "auto"), "step", "--input", *self.inputs["mlp"], "--repeat", 3, "--device", "cuda"]
        for failure, part in (
            ("launch:20", "cuda:0: cannot run 'step': unspecified launch failure (CUDA_ERROR_LAUNCH_FAILED, 719)"),
            ("alloc:3", "out of memory: the arena of 'step' asked for "),
            ("graph:1", "cuda:0: cannot make a graph of 'step': out of memory"),
        ):
            with self.subTest(failure):
                self.assertIn(part, self.fails(*words, DLC_STANDIN_FAIL=failure))

    @needs_standin
    def test_no_driver(self):
        words = ["call", self.compile("mlp", "auto"), "step", "--input", *self.inputs["mlp"], "--device"]
        done = self.dlrun(*words, "auto", standin=False)
        if "device cuda" in done.stdout:
            self.skipTest("this machine has a GPU")
        self.assertRegex(done.stdout, "^device cpu: no (driver|device)")
        self.assertRegex(self.fails(*words, "cuda", standin=False), "no (driver|device)")


def pack():
    """Writes what --packed takes; ends with an exception where a program does not compile or run."""
    os.makedirs(options.pack, exist_ok=True)
    Cuda.folder = options.pack
    Cuda.prepare()
    test = Cuda()
    for model in Cuda.inputs:
        Cuda.compile(model, "own")
        loss = test.steps(model, "cpu", 3, save=test.path(f"{model}-packed.safetensors"))
        with open(test.path(f"{model}-packed.json"), "w") as file:
            json.dump(loss, file)


if __name__ == "__main__":
    if options.pack:
        sys.exit(pack())
    result = unittest.main(argv=[sys.argv[0], *rest], exit=False, verbosity=2).result
    failed = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - failed - len(result.skipped)} passed, {failed} failed")
    sys.exit(failed != 0)
