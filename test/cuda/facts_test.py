#!/usr/bin/env python3
#===- facts_test.py - what a step does on a GPU, counted -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Facts instead of times: the stand-in (test/standin) counts launches, copies, allocations and bytes, and each number is written out here. Whatever makes one larger is to be
explained; where the compiler gets better, it is made smaller. Needs Python's own library only; ends with 'N passed, M failed'."""

import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import unittest

parser = argparse.ArgumentParser()
parser.add_argument("--bin", required=True, help="folder of dlc and dlrun")
parser.add_argument("--standin", required=True, help="folder of the stand-in's libcuda.so.1")
options, rest = parser.parse_known_args()

HERE = os.path.dirname(os.path.abspath(__file__))
EXAMPLES = os.path.join(HERE, "..", "..", "examples")
FORMATS = {"f4": "f", "f8": "d", "i4": "i"}


class Facts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = tempfile.TemporaryDirectory(prefix="dlc-facts-")
        cls.random = random.Random(1)
        cls.artefacts = {}

    @classmethod
    def tearDownClass(cls):
        cls.work.cleanup()

    def path(self, name):
        return os.path.join(self.work.name, name)

    def array(self, name, shape, dtype="f4", below=None):
        """-> 'name=FILE' of an array of random numbers, or of whole ones below a number"""
        count = 1
        for size in shape:
            count *= size
        draw = (lambda: self.random.randrange(below)) if below else (lambda: self.random.gauss(0, 1))
        header = "{'descr': '<%s', 'fortran_order': False, 'shape': %s, }" % (dtype, tuple(shape))
        header += " " * (-(10 + len(header) + 1) % 64) + "\n"
        path = self.path(name + ".npy")
        with open(path, "wb") as file:
            file.write(b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode())
            file.write(struct.pack(f"<{count}{FORMATS[dtype]}", *(draw() for _ in range(count))))
        return f"{name}={path}"

    def compile(self, program):
        name = os.path.splitext(os.path.basename(program))[0]
        if name not in self.artefacts:
            artefact = self.path(name + ".so")
            words = [os.path.join(options.bin, "dlc"), program, "--target=cuda", "--gpu-arch=sm_90", "-o", artefact]
            subprocess.run(words, check=True)
            self.artefacts[name] = artefact
        return self.artefacts[name]

    def dlrun(self, *words, **environment):
        names = dict(os.environ, LD_LIBRARY_PATH=options.standin, **environment)
        words = [os.path.join(options.bin, "dlrun"), *map(str, words)]
        done = subprocess.run(words, capture_output=True, text=True, env=names, timeout=500)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)  # the stand-in reports to stderr
        return done.stdout

    def counted(self, *words):
        """-> what the stand-in counted of a command"""
        path = self.path("counters.json")
        self.dlrun(*words, "--device", "cuda", DLC_STANDIN_COUNTERS=path)
        with open(path) as file:
            return json.load(file)

    def kernels(self, function, *inputs):
        """-> {name of the launch: (bytes read, bytes written)} of one call of a function of facts.dl"""
        model = self.compile(os.path.join(HERE, "facts.dl"))
        counts = self.counted("call", model, function, "--input", *inputs)
        bytes_of = {kernel["name"]: (kernel["bytes_read"], kernel["bytes_written"]) for kernel in counts["kernels"]}
        info = json.loads(self.dlrun("info", model, "--json"))
        launches = next(each["launches"] for each in info["functions"] if each["name"] == function)
        return {launch["name"].split(" ")[0]: bytes_of[launch["kernel"]] for launch in launches if launch["kernel"] in bytes_of}

    def step(self, example, inputs, bytes_in, kernels, products):
        words = ["call", self.compile(os.path.join(EXAMPLES, example + ".dl")), "step", "--input", *inputs]
        # Two runs are the same, to the last bit of every variable and count; one with 3 steps more tells what a step does once the first has been made.
        saved = [self.path(f"saved{turn}") for turn in range(3)]
        few, again, many = (self.counted(*words, "--repeat", count, "--save", path) for count, path in zip((2, 2, 5), saved))
        contents = []
        for path in saved:
            with open(path, "rb") as file:
                contents.append(file.read())
        self.assertEqual(contents[0], contents[1])
        self.assertNotEqual(contents[0], contents[2])
        numbers = [key for key, value in few.items() if isinstance(value, int)]
        self.assertEqual({key: few[key] for key in numbers}, {key: again[key] for key in numbers})
        counts = {key: (many[key] - few[key]) / 3 for key in numbers}
        for key, value in {
            "graph_launches": 1,
            "graph_matmuls": products,
            "host_to_device_copies": 1,
            "host_to_device_bytes": bytes_in,
            "device_to_host_copies": 1,
            "device_to_host_bytes": 256 + 4,  # the fault, with the gap behind it, and the loss
            "synchronisations": 1,
            # All in the graph, which is made once; memory too.
            **dict.fromkeys(("kernel_launches", "matmuls", "graph_instantiations", "graph_updates", "modules", "host_functions", "reports"), 0),
            **dict.fromkeys(("memsets", "device_to_device_copies", "device_allocations", "device_frees", "pinned_allocations"), 0),
        }.items():
            self.assertEqual(counts[key], value, key)
        self.assertLessEqual(counts["graph_kernel_launches"], kernels)

    def test_step_of_two_layer_grad(self):
        # two products forward, three backward, of which two are the updates; lr is an argument
        inputs = [self.array("x", (64, 1000)), self.array("y", (64, 1000))]
        self.step("two_layer_grad", inputs, 2 * 64 * 1000 * 4 + 4, kernels=4, products=5)

    def test_step_of_two_layer(self):
        # two products forward, one backward for the hidden layer; the two whose epilogue is Adam's update are the engine's, and kernels
        inputs = [self.array("x", (64, 1000)), self.array("y", (64, 10))]
        self.step("two_layer", inputs, 64 * 1000 * 4 + 64 * 10 * 4, kernels=6, products=3)

    def test_step_of_mlp(self):
        # three products forward, two backward; three are the engine's, with Adam's updates, and kernels
        inputs = [self.array("x", (32, 784)), self.array("label", (32,), "i4", below=10)]
        self.step("mlp", inputs, 32 * 784 * 4 + 32 * 4, kernels=12, products=5)

    def test_shapes_that_alternate_allocate_nothing(self):
        # 12, 12 and 8 rows in each epoch
        inputs = [self.array("x", (32, 32)), self.array("label", (32,), "i4", below=64)]
        words = ["train", self.compile(os.path.join(HERE, "facts.dl")), "--data", *inputs, "--step", "step", "--batch", 12, "--checkpoint", self.path("train")]
        few, many = (self.counted(*words, "--epochs", epochs) for epochs in (1, 4))
        for key, value in {
            "graph_launches": 3 * 3,
            **dict.fromkeys(("graph_instantiations", "graph_updates", "device_allocations", "pinned_allocations", "kernel_launches", "modules"), 0),
        }.items():
            self.assertEqual(many[key] - few[key], value, key)

    def test_chains_read_and_write_each_tensor_once(self):
        for function, dtype, bytes_each, outputs in (("chain", "f4", 4, 1), ("chain_of_two", "f4", 4, 2), ("chain_f64", "f8", 8, 1)):
            # 37 rows: what is left of a vector of four and of a block, too
            tensor = 37 * 36 * bytes_each
            found = self.kernels(function, self.array("x", (37, 36), dtype), self.array("y", (37, 36), dtype))
            self.assertEqual(list(found.values()), [(2 * tensor, outputs * tensor)], function)

    def test_rows_are_read_once(self):
        # 40 rows fill their blocks. A warp has a row; each of its lanes reads the row's label.
        rows, lanes = 40, 32
        tensor, column = rows * 64 * 4, rows * 4
        scores, label = self.array("scores", (rows, 64)), self.array("label", (rows,), "i4", below=64)
        self.assertEqual(list(self.kernels("probabilities", scores).values()), [(tensor, tensor)])
        self.assertEqual(self.kernels("entropies", scores, label)["max_sub_exp_sum_select_sum"], (tensor + lanes * column, column))
        # The losses and the gradient of all scores in one reading; another column says how much a row counts.
        found = self.kernels("step", self.array("x", (rows, 32)), label)
        self.assertEqual(found["max_sub_exp_sum_select_sum"], (tensor + 2 * lanes * column, tensor + column))

    def test_attention_reads_and_writes_each_tensor_once(self):
        # A block owns 32 rows of q; of more rows, the block of each 32 reads the keys and values. Besides the result it writes a number for each row and head, for a gradient.
        for function, rows in (("attended", 32), ("attended_long", 96)):
            tensor, row_numbers = 3 * rows * 2 * 16 * 4, 3 * rows * 2 * 4
            found = self.kernels(function, *(self.array(name, (3, rows, 2, 16)) for name in "qkv"))
            self.assertEqual(list(found.values()), [(tensor + 2 * tensor * (rows // 32), tensor + row_numbers)], function)

    def test_batch_norm_reads_its_input_twice(self):
        # Once for both sums, once for what becomes of it. Besides, each vector of four reads what its channel's numbers are near to, which the other kernels find in a sample.
        tensor = 16 * 8 * 144 * 4
        found = self.kernels("normal_channels", self.array("x", (16, 8, 144)))
        read, written = found.pop("sub_sum_mul_add_mul_sum")
        self.assertGreaterEqual(read, 2 * tensor)
        self.assertLess(read, 3 * tensor)
        self.assertLess(written, tensor + 16 * 8 * 4)
        self.assertLess(sum(each for each, _ in found.values()), tensor / 100)


if __name__ == "__main__":
    result = unittest.main(argv=[sys.argv[0], *rest], exit=False, verbosity=2).result
    failed = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - failed - len(result.skipped)} passed, {failed} failed")
    sys.exit(failed != 0 or not result.testsRun)
