#!/usr/bin/env python3
#===- gpu_check_test.py - tools/gpu-check.sh on the stand-in for a GPU -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Packs at small sizes, runs what was packed on the stand-in's driver, and looks at the page: that the script works, and that it fails where it must.
Needs Python's own library, and NumPy for the benchmark; ends with 'N passed, M failed'."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True

import gpu_check

parser = argparse.ArgumentParser()
parser.add_argument("--bin", required=True, help="folder of dlc and dlrun")
parser.add_argument("--standin", required=True, help="folder of the stand-in's libcuda.so.1")
options, rest = parser.parse_known_args()
# Passes a command on, as compute-sanitizer does; the second finds something.
SANITIZER = """#!/bin/sh
[ "$1" = --tool ] && [ "$3" = --error-exitcode ] || exit 3
code=$4 && shift 4 && "$@" || exit
"""
FINDS = SANITIZER + 'echo "========= ERROR SUMMARY: 1 error"; exit "$code"\n'


class GpuCheck(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="gpu-check-test-")
        cls.packed = os.path.join(cls.folder, "packed")
        done = cls.script(gpu_check.ROOT, "pack", cls.packed, "--small", "--bin", options.bin)
        assert done.returncode == 0, done.stdout + done.stderr

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    @staticmethod
    def script(root, *words, **environment):
        command = [os.path.join(root, "tools", "gpu-check.sh"), *words]
        names = dict(os.environ, PYTHON=sys.executable, **environment)
        return subprocess.run(command, capture_output=True, text=True, env=names, timeout=500)

    def path(self, *names):
        return os.path.join(self.packed, *names)

    def tool(self, name, text):
        place = os.path.join(self.folder, name)
        with open(place, "w") as file:
            file.write(text)
        os.chmod(place, 0o755)
        return place

    def run_packed(self, sanitizer, output, **environment):
        """-> (exit code, what was said, the page's lines by their first cell)"""
        done = self.script(self.packed, "run", "--libraries", options.standin, "--sanitizer", sanitizer, "--output", output, **environment)
        rows, text = {}, ""
        if os.path.exists(output):
            with open(output) as file:
                text = file.read()
        for line in text.splitlines():
            if line.startswith("| "):
                cells = [cell.strip() for cell in line.strip("|").split(" | ")]
                rows.setdefault(cells[0], cells[1:])
        return done.returncode, done.stdout + done.stderr, rows, text

    def test_what_is_good(self):
        output = os.path.join(self.folder, "good.md")
        shutil.copy(os.path.join(gpu_check.ROOT, "docs", "gpu-results.md"), output)
        with open(output) as file:
            around = file.read().split(gpu_check.BEGIN)[0]
        code, said, rows, text = self.run_packed(self.tool("sanitizer", SANITIZER), output)
        self.assertEqual(code, 0, said)
        self.assertTrue(text.startswith(around))
        self.assertEqual((text.count(gpu_check.BEGIN), text.count(gpu_check.END)), (1, 1))
        self.assertIn("GPU: Stand-in GPU 0, sm_90, ", text)
        self.assertNotIn("None yet", text)
        checks = {name: cells[0] for name, cells in rows.items()}
        programs = next(words for name, words in checks.items() if name.startswith("The three programs"))
        self.assertEqual(programs, "2 passed, 0 failed; left out, as only the stand-in can do or tell it: test_what_a_step_does")
        halves = next(words for name, words in checks.items() if name.startswith("Calls in two halves"))
        self.assertEqual(halves, "2 passed, 0 failed")
        for gemm in ("auto", "own"):
            words = checks[f"Every function of tiny against the processor, and twice, `--gemm={gemm}`"]
            self.assertRegex(words, r"^[1-9]\d* passed, 0 failed$")
        self.assertEqual(checks["compute-sanitizer, memcheck"], "2 programs, nothing found")
        self.assertEqual(checks["compute-sanitizer, racecheck"], "1 program, nothing found")
        self.assertTrue(checks["Benchmark"].startswith("every peer that ran computes the same"), checks["Benchmark"])
        for name, (words, moved) in gpu_check.MOVED.items():
            cells = rows[f"{name}: `{words}`"]
            self.assertEqual(cells[0], str(moved))
            self.assertGreater(float(cells[1]), 0)
        self.assertEqual(len(rows["`cuMemcpyDtoD`"]), 4)
        self.assertGreater(float(rows["dlc own"][1]), 0)  # GFLOP/s
        self.assertGreater(float(rows["dlc cublaslt"][1]), 0)
        self.assertGreater(float(rows["A1_sgd"][0]), 0)  # ms, of auto and own
        self.assertGreater(float(rows["A1_sgd"][1]), 0)

    def test_what_is_bad(self):
        output = os.path.join(self.folder, "bad.md")
        expected = self.path("artefacts", "examples", "two_layer-packed.json")
        with open(expected) as file:
            loss = file.read()
        away = os.path.join(self.folder, "away")
        os.rename(self.path("artefacts", "benchmark"), away)
        try:
            with open(expected, "w") as file:
                json.dump(float(loss) * 1.001, file)
            code, said, rows, text = self.run_packed(self.tool("finds", FINDS), output)
        finally:
            os.rename(away, self.path("artefacts", "benchmark"))
            with open(expected, "w") as file:
                file.write(loss)
        self.assertEqual(code, 1, said)
        checks = {name: cells[0] for name, cells in rows.items() if cells}
        programs = next(words for name, words in checks.items() if name.startswith("The three programs"))
        self.assertTrue(programs.startswith("**failed**: 1 passed, 1 failed"), programs)
        self.assertIn("**failed**: two_layer (own), exit 9: ========= ERROR SUMMARY: 1 error", checks["compute-sanitizer, racecheck"])
        self.assertIn("**failed**: ", checks["bandwidth.dl, scale"])
        self.assertIn("**failed**: ", checks["Benchmark"])
        self.assertTrue(text.startswith("# Results on a GPU\n"))

    def test_no_gpu(self):
        output = os.path.join(self.folder, "none.md")
        code, said, _, text = self.run_packed("none", output, DLC_STANDIN_DEVICES="0")
        self.assertEqual((code, text), (1, ""))
        self.assertRegex(said, "no GPU can be had: .*(sees no GPU|cuInit failed with 100)")

    def test_refusals(self):
        done = self.script(gpu_check.ROOT, "pack", self.packed, "--bin", options.bin)
        self.assertEqual((done.returncode, done.stderr), (1, f"gpu-check: error: '{self.packed}' is not empty\n"))
        done = self.script(gpu_check.ROOT, "pack", os.path.join(self.folder, "new"), "--bin", self.folder)
        self.assertEqual((done.returncode, done.stderr), (1, f"gpu-check: error: no dlc in '{self.folder}': build first, or say --bin\n"))
        done = self.script(gpu_check.ROOT, "run")
        self.assertEqual(done.returncode, 1)
        self.assertIn("is not a packed folder", done.stderr)

    def test_bytes_moved(self):
        """What the page divides by is what kernels move: each tensor once, and less than two rows beside."""
        tensor = gpu_check.SMALL["rows"] * gpu_check.COLUMNS * 4
        for name, (_, moved) in gpu_check.MOVED.items():
            with self.subTest(name):
                counters = os.path.join(self.folder, name + ".json")
                command = [self.path("bin", "dlrun"), "call", self.path("artefacts", "benchmark", "bandwidth.so"), name, "--device", "cuda"]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=dict(os.environ, LD_LIBRARY_PATH=options.standin, DLC_STANDIN_COUNTERS=counters))
                with open(counters) as file:
                    found = json.load(file)
                bytes = found["kernel_bytes_read"] + found["kernel_bytes_written"]
                if name == "draw":  # each thread reads the same seed and count of calls, which stay in a cache
                    bytes -= 16 * found["kernels"][0]["threads"]
                self.assertGreaterEqual(bytes, moved * tensor)
                self.assertLess(bytes, moved * tensor + 2 * 4 * gpu_check.COLUMNS)


if __name__ == "__main__":
    result = unittest.main(argv=[sys.argv[0], *rest], exit=False, verbosity=2).result
    failed = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - failed} passed, {failed} failed")
    sys.exit(failed != 0)
