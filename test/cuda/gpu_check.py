#!/usr/bin/env python3
#===- gpu_check.py - checks and measures compiled programs on a GPU -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""What tools/gpu-check.sh runs, which says how it is used.

`pack` makes a folder laid out as the repository is, with the tests that are needed, dlrun, and compiled programs in artefacts/. `run` runs
what is in the folder that it lies in. This file needs Python's own library only; comparing all functions and the benchmark need NumPy, and
are left out with a word where it is not."""

import argparse
import ctypes
import glob
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time

sys.dont_write_bytecode = True
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.append(os.path.join(ROOT, "test", "benchmark"))

import cases
import report

BEGIN, END = "<!-- gpu-check: begin (written by tools/gpu-check.sh) -->", "<!-- gpu-check: end -->"
COPIED = ["tools/gpu-check.sh", "test/cuda/*.py", "test/cuda/*.dl", "test/dlrun/cuda_test.py", "test/benchmark/*.py", "test/benchmark/programs/*.dl",
          "test/reference/checkpoints.py", "examples/*.dl", "docs/gpu-results.md"]
# What compare.py calls every function of. The MLPs are not among them, since rounding alone makes their steps differ by more than it allows: Adam divides
# small gradients by their size, and of many inputs to relu some lie so near to 0 that the order of a sum decides their sign. cuda_test.py has them.
PROGRAMS = ["test/cuda/schedules.dl", "test/cuda/products.dl", "test/cuda/chunks.dl", "test/benchmark/programs/two_layer_sgd.dl", "examples/custom.dl", "examples/tiny.dl",
            "examples/two_layer_grad.dl"]
TRAINING = [name for name, case in cases.CASES.items() if case.optimizer]
# Functions of bandwidth.dl: what they do, and how many tensors they read and write.
MOVED = {
    "scale": ("d = a * 2", 2),
    "triad": ("d = a + b * c", 4),
    "activate": ("d = gelu(a)", 2),
    "normalize": ("d = softmax(a), rows of 1024", 2),
    "draw": ("d = uniform()", 1),
    "rows": ("sums of rows", 1),
    "columns": ("sums of columns", 1),
    "update": ("Adam's update", 7),
}
COLUMNS = 1024
# All of memcheck; the others where no kernel is the library's.
SANITIZER = {"memcheck": ("auto", "own"), "racecheck": ("own",), "synccheck": ("own",), "initcheck": ("own",)}
# For trying the script itself, on the stand-in: some of everything.
SMALL = dict(
    rows=16,
    sizes=["64,64,64"],
    programs=["examples/tiny.dl"],
    models=["two_layer"],
    sanitizer=["memcheck", "racecheck"],
    cases=["A1_sgd"],
    tests=["Cuda.test_two_layer", "Cuda.test_fault", "Cuda.test_what_a_step_does"],
    submits=1,
    runs=2,
    processes=1,
)
WHOLE = dict(
    rows=65536,
    sizes=[",".join(map(str, size)) for size in cases.CUDA_GEMM_SIZES],
    programs=PROGRAMS,
    models=["two_layer_grad", "two_layer", "mlp"],
    sanitizer=list(SANITIZER),
    cases=TRAINING,
    tests=[],
    submits=20,
    runs=None,
    processes=5,
)


def path(*names):
    return os.path.join(ROOT, *names)


def say(words):
    print(f"gpu-check: {words}", file=sys.stderr, flush=True)


def stop(words):
    say("error: " + words)
    sys.exit(1)


# Packing


def checked(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        stop(f"{' '.join(map(str, command))}: exit {done.returncode}: {(done.stdout + done.stderr).strip()[-2000:]}")
    return done.stdout


def pack(options):
    folder, bin = os.path.abspath(options.folder), os.path.abspath(options.bin)
    setting = SMALL if options.small else WHOLE
    for name in ("dlc", "dlrun"):
        if not os.access(os.path.join(bin, name), os.X_OK):
            stop(f"no {name} in '{bin}': build first, or say --bin")
    if os.path.exists(folder) and os.listdir(folder):
        stop(f"'{folder}' is not empty")
    for pattern in COPIED:
        for found in glob.glob(path(pattern)):
            place = os.path.join(folder, os.path.relpath(found, ROOT))
            os.makedirs(os.path.dirname(place), exist_ok=True)
            shutil.copy2(found, place)
    os.makedirs(os.path.join(folder, "bin"))
    shutil.copy2(os.path.join(bin, "dlrun"), os.path.join(folder, "bin"))
    dlc, artefacts = os.path.join(bin, "dlc"), os.path.join(folder, "artefacts")
    # Not for the processor here: for each that can run dlc's code at all.
    flags = ["--target=cpu,cuda", "-march=x86-64-v3"]

    say("the three programs, their inputs and the processor's results")
    words = ["--dlc", dlc, "--dlrun", os.path.join(bin, "dlrun"), "--examples", path("examples"), "--pack", os.path.join(artefacts, "examples")]
    checked(sys.executable, path("test/dlrun/cuda_test.py"), *words)

    say("the program of calls in two halves")
    checked(sys.executable, path("test/cuda/submit_test.py"), "--dlc", dlc, "--cc", shutil.which("clang-22") or "cc", "--pack", os.path.join(artefacts, "submit"))

    say("programs whose functions are compared")
    for gemm in ("auto", "own"):
        place = os.path.join(artefacts, "compare-" + gemm)
        os.makedirs(place)
        for program in setting["programs"]:
            name = os.path.splitext(os.path.basename(program))[0]
            checked(dlc, path(program), *flags, f"--gemm={gemm}", "-o", os.path.join(place, name + ".so"))

    say("the benchmark's cases")
    place = os.path.join(artefacts, "benchmark")
    os.makedirs(place)
    program = lambda name: path("test/benchmark/programs", name + ".dl")
    packed, left_out = [], {}
    for name in setting["cases"]:
        case = cases.CASES[name]
        for gemm in ("auto", "own"):
            command = [dlc, path(case.program), *flags, f"--gemm={gemm}", *case.defined(), "-o", os.path.join(place, f"{name}-{gemm}.so")]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                # What the language has and this target has not yet: a word of it stands in the results. Anything else is a failure.
                refused = [line for line in done.stderr.splitlines() if re.search(r"error: .* (is|are) not supported", line)]
                if done.returncode != 1 or not refused:
                    stop(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()[-2000:]}")
                left_out[name] = os.path.basename(refused[0])
        if name not in left_out:
            packed.append(name)
        else:
            say(f"case {name} is left out: {left_out[name]}")
    if not packed:
        stop(f"no case can be compiled: {left_out}")
    for size in setting["sizes"]:
        m, k, n = size.split(",")
        for gemm in ("own", "cublaslt"):
            words = ["-D", f"M={m}", "-D", f"K={k}", "-D", f"N={n}"]
            checked(dlc, program("gemm"), *flags, f"--gemm={gemm}", *words, "-o", os.path.join(place, f"F_{m}x{k}x{n}-{gemm}.so"))
    checked(dlc, program("bandwidth"), "--target=cuda", "-march=x86-64-v3", "-D", f"R={setting['rows']}", "-o", os.path.join(place, "bandwidth.so"))
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    with open(os.path.join(folder, "packed.json"), "w") as file:
        json.dump(dict(setting, cases=packed, left_out=left_out, compiler=checked(dlc, "--version").strip(), commit=commit, when=time.strftime("%F", time.gmtime())), file, indent=1)
    say(f"packed; there: {options.folder}/tools/gpu-check.sh run")


# The device and its copies, without anything but the driver


def device_facts(options):
    """Prints JSON: what the driver says of its first device, and how fast that copies. A process by itself: libraries are found when it starts."""
    cuda = ctypes.CDLL("libcuda.so.1")

    def call(name, *arguments):
        result = getattr(cuda, name)(*arguments)
        if result:
            stop(f"{name} failed with {result}")

    def attribute(number):
        value = ctypes.c_int()
        call("cuDeviceGetAttribute", ctypes.byref(value), number, device)
        return value.value

    call("cuInit", 0)
    count, version, device, memory, name = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(100)
    call("cuDeviceGetCount", ctypes.byref(count))
    if not count.value:
        stop("the driver sees no GPU")
    call("cuDriverGetVersion", ctypes.byref(version))
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDeviceGetName", name, len(name), device)
    call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    facts = dict(
        name=name.value.decode(errors="replace"),
        cuda=f"{version.value // 1000}.{version.value % 1000 // 10}",
        gib=round(memory.value / 2**30, 1),
        arch=f"sm_{attribute(75)}{attribute(76)}",
        multiprocessors=attribute(16),
    )
    try:
        blas = ctypes.CDLL("libcublasLt.so.13")
        blas.cublasLtGetVersion.restype = ctypes.c_size_t
        facts["cublaslt"] = blas.cublasLtGetVersion()
    except OSError:
        pass

    context, source, target, begin, end = (ctypes.c_void_p() for _ in range(5))
    size = ctypes.c_size_t(options.bytes)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxSetCurrent", context)
    for pointer in (source, target):
        call("cuMemAlloc_v2", ctypes.byref(pointer), size)
    call("cuMemsetD32_v2", source, 0x3F000000, ctypes.c_size_t(options.bytes // 4))
    for event in (begin, end):
        call("cuEventCreate", ctypes.byref(event), 0)
    elapsed = "cuEventElapsedTime_v2" if hasattr(cuda, "cuEventElapsedTime_v2") else "cuEventElapsedTime"
    times = []
    for turn in range(25):
        call("cuEventRecord", begin, None)
        call("cuMemcpyDtoDAsync_v2", target, source, size, None)
        call("cuEventRecord", end, None)
        call("cuEventSynchronize", end)
        milliseconds = ctypes.c_float()
        call(elapsed, ctypes.byref(milliseconds), begin, end)
        times.append(milliseconds.value)
    for event in (begin, end):
        call("cuEventDestroy_v2", event)
    for pointer in (source, target):
        call("cuMemFree_v2", pointer)
    call("cuDevicePrimaryCtxRelease_v2", device)
    facts["copy_us"] = 1e3 * statistics.median(times[5:])
    print(json.dumps(facts))


# Running


def library_path(given):
    """Folders with a libcublasLt.so.13 behind what the user has: the toolkit's, and the registry's package for Python."""
    folders = ["/usr/local/cuda/lib64", *glob.glob(os.path.join(sysconfig.get_path("purelib"), "nvidia", "*", "lib"))]
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(name):
            folders.insert(0, os.path.join(os.environ[name], "lib64"))
    found = [folder for folder in folders if os.path.exists(os.path.join(folder, "libcublasLt.so.13"))]
    return os.pathsep.join([word for word in (given, os.environ.get("LD_LIBRARY_PATH")) if word] + found[:1])


class Check:
    def __init__(self, options):
        with open(path("packed.json")) as file:
            self.packed = json.load(file)
        self.options = options
        self.libraries = library_path(options.libraries)
        self.environment = dict(os.environ, LD_LIBRARY_PATH=self.libraries, PYTHONDONTWRITEBYTECODE="1")
        self.rows, self.failed = [], False
        self.dlrun = path("bin", "dlrun")
        self.has_numpy = not subprocess.run([sys.executable, "-c", "import numpy"], capture_output=True).returncode

    def process(self, *command, limit=1800):
        """-> (exit code, stdout, stderr)"""
        try:
            done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=self.environment, timeout=limit)
            return done.returncode, done.stdout, done.stderr
        except subprocess.TimeoutExpired:
            return -1, "", f"took more than {limit} s"

    def result(self, what, words, failed=False, details=""):
        self.rows.append([what, ("**failed**: " if failed else "") + words.replace("|", "\\|")])
        self.failed = self.failed or failed
        say(f"{what}: {'failed: ' if failed else ''}{words}")
        if failed and details:
            print(details, file=sys.stderr, flush=True)

    def counted(self, what, *command):
        """A Python test that ends with 'N passed, M failed'."""
        code, out, error = self.process(sys.executable, *command)
        found = re.findall(r"^(\d+) passed, (\d+) failed$", out, re.M)
        skipped = re.findall(r"^(test_\w+) .* skipped ", error, re.M)
        words = f"{found[-1][0]} passed, {found[-1][1]} failed" if found else f"exit {code}"
        if skipped:
            words += f"; left out, as only the stand-in can do or tell it: {', '.join(skipped)}"
        good = code == 0 and found and int(found[-1][0]) > 0 and found[-1][1] == "0"
        self.result(what, words, not good, out + error)

    def programs(self):
        words = ["--dlrun", self.dlrun, "--packed", path("artefacts", "examples"), *self.packed["tests"]]
        self.counted("The three programs against the processor's results from where they were compiled; the same bits twice; checkpoints both ways; faults; training; traces",
                     path("test/dlrun/cuda_test.py"), *words)

    def halves(self):
        words = ["--packed", path("artefacts", "submit"), "--runs", self.packed["submits"]]
        self.counted("Calls in two halves, in any order, with wrong labels among them, against calls that wait: the same bits", path("test/cuda/submit_test.py"), *words)

    def functions(self):
        for gemm in ("auto", "own"):
            place = path("artefacts", "compare-" + gemm)
            files = sorted(os.listdir(place))
            what = f"Every function of {', '.join(name[:-3] for name in files)} against the processor, and twice, `--gemm={gemm}`"
            if not self.has_numpy:
                self.result(what, "left out: Python here has no NumPy")
                continue
            names = [os.path.join(place, name) for name in files]
            self.counted(what, path("test/cuda/compare.py"), *names, "--bin", path("bin"), "--artefacts", place, "--libraries", self.libraries)

    def sanitizer(self):
        tool = shutil.which(self.options.sanitizer) or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
        if not tool:
            return self.result("compute-sanitizer", "left out: it is not installed here")
        models = self.packed["models"]
        inputs = {"two_layer_grad": ["x=gx", "y=gy"], "two_layer": ["x=gx", "y=ty"], "mlp": ["x=mx", "label=ml"]}
        place = path("artefacts", "examples")
        for kind in self.packed["sanitizer"]:
            gemms, bad = SANITIZER[kind], []
            for model in models:
                for gemm in gemms:
                    given = [f"{word.split('=')[0]}={os.path.join(place, word.split('=')[1])}.npy" for word in inputs[model]]
                    words = [self.dlrun, "call", os.path.join(place, f"{model}-{gemm}.so"), "step", "--input", *given, "--repeat", 2, "--device", "cuda"]
                    code, out, error = self.process(tool, "--tool", kind, "--error-exitcode", "9", *words)
                    if code:
                        lines = (out + error).strip().splitlines()
                        bad.append(f"{model} ({gemm}), exit {code}: {lines[-1] if lines else ''}")
                        print(out + error, file=sys.stderr)
            count = len(models) * len(gemms)
            self.result(f"compute-sanitizer, {kind}", "; ".join(bad) or f"{count} program{'s' if count > 1 else ''}, nothing found", bool(bad))

    def facts(self):
        code, out, error = self.process(sys.executable, __file__, "device", "--bytes", self.packed["rows"] * COLUMNS * 4)
        if code:
            stop("no GPU can be had: " + (error.strip().splitlines() or ["no words"])[-1])
        return json.loads(out)

    def bandwidth(self, facts):
        """-> lines of the page"""
        tensor = self.packed["rows"] * COLUMNS * 4
        copy = 2 * tensor / facts["copy_us"] / 1e3
        rows = [["`cuMemcpyDtoD`", "2", report.number(facts["copy_us"]), f"{copy:.0f}", ""]]
        runs = ["--runs", self.packed["runs"]] if self.packed["runs"] else []
        for name, (words, moved) in MOVED.items():
            code, out, error = self.process(self.dlrun, "bench", path("artefacts", "benchmark", "bandwidth.so"), name, "--device", "cuda", "--json", "--profile", *runs)
            if code:
                self.result(f"bandwidth.dl, {name}", f"exit {code}: {error.strip()[-300:]}", True)
                continue
            us = sum(row["us"] for row in json.loads(out)["kernels"][:-1])
            rate = moved * tensor / us / 1e3
            rows.append([f"{name}: `{words}`", str(moved), report.number(us), f"{rate:.0f}", f"{100 * rate / copy:.0f} %"])
        head = f"Kernels that only move memory, tensors of {tensor / 2**20:.4g} MiB; kernels alone, as `dlrun bench --profile` times them. The aim is 90 % of the copy."
        return ["### Bandwidth", "", head, "", *report.table(["", "tensors moved", "µs", "GB/s", "of the copy"], rows)]

    def benchmark(self):
        """-> lines of the page"""
        if not self.has_numpy:
            self.result("Benchmark", "left out: Python here has no NumPy")
            return []
        with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
            results = os.path.join(folder, "results.jsonl")
            groups = ["F", *dict.fromkeys(case.split("_")[0] for case in self.packed["cases"])]
            words = ["--device", "cuda", "--python", sys.executable, "--bin", path("bin"), "--artefacts", path("artefacts", "benchmark"), "--sizes", " ".join(self.packed["sizes"]),
                     "--processes", self.options.processes or self.packed["processes"], "--libraries", self.libraries, "--results", results]
            words += ["--only", ",".join(["F", *self.packed["cases"]])]
            words += ["--runs", self.packed["runs"]] if self.packed["runs"] else []
            code, out, error = self.process(sys.executable, path("test/benchmark/run.py"), *groups, *words, limit=7200)
            records = []
            if os.path.exists(results):
                with open(results) as file:
                    records = [json.loads(line) for line in file]
        left_out = [f"case {name} is left out, as dlc cannot compile it for a GPU: {why}" for name, why in self.packed["left_out"].items()]
        left_out += re.findall(r"^run.py: (.* is left out: .*)$", error, re.M)
        said = re.findall(r"^run.py: (?!.* is left out: )(.*)$", error, re.M)
        words = "; ".join(said) if code else "every peer that ran computes the same"
        self.result("Benchmark", "; ".join([words, *left_out]) or f"exit {code}", code != 0 or not records, error)
        if not records:
            return []
        return ["### Beside PyTorch and JAX", "", report.page(records), *against_compile(records)]

    def page(self):
        facts = self.facts()
        say(f"{facts['name']}, {facts['arch']}")
        smi = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True) if shutil.which("nvidia-smi") else None
        driver = f"driver {smi.stdout.split()[0]}, " if smi and smi.returncode == 0 and smi.stdout.split() else ""
        blas = f"cuBLASLt {facts['cublaslt']}" if "cublaslt" in facts else "no cuBLASLt"
        out = [
            f"GPU: {facts['name']}, {facts['arch']}, {facts['multiprocessors']} multiprocessors, {facts['gib']} GiB; {driver}CUDA {facts['cuda']}; {blas}.",
            f"Host: {report.machine()}. Compiled by {self.packed['compiler'].splitlines()[0]}" + (f", commit {self.packed['commit']}" if self.packed["commit"] else "")
            + f", {self.packed['when']}; run {time.strftime('%F', time.gmtime())}.",
            "",
        ]
        self.programs()
        self.halves()
        self.functions()
        self.sanitizer()
        measured = self.bandwidth(facts) + self.benchmark()
        out += ["### Checks", "", *report.table(["", "result"], self.rows), *measured]
        report.place("\n".join(out).rstrip("\n") + "\n", self.options.output, BEGIN, END, "# Results on a GPU")
        say(f"written: {self.options.output}")
        return 1 if self.failed else 0


def against_compile(records):
    """The aim: dlc's steps per second over those of torch.compile's faster mode, taken within each round."""
    results = report.Results(records)
    where, rows = results.settings[0], []
    for case in results.cases:
        times = {mode: results.times(case, where, "torch " + mode) for mode in ("max-autotune", "reduce-overhead")}
        medians = {mode: statistics.median(found.values()) for mode, found in times.items() if found}
        mine = results.times(case, where, "dlc")
        if medians and mine and not case.startswith("F_"):
            best = min(medians, key=medians.get)
            ratios = [times[best][turn] / mine[turn] for turn in mine if turn in times[best]]
            if ratios:
                rows.append([case, f"{statistics.median(ratios):.2f}", best])
    if not rows:
        return []
    return ["dlc's steps per second over torch.compile's; the aim is 1.30:", "", *report.table(["case", "", "its faster mode"], rows)]


def main():
    parser = argparse.ArgumentParser(prog="gpu-check.sh", description="checks and measures compiled programs on a GPU")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("pack", help="here: compiles, and makes a folder to take there")
    command.add_argument("folder")
    command.add_argument("--bin", default=path("build", "bin"), help="folder of dlc and dlrun (default build/bin)")
    command.add_argument("--small", action="store_true", help="some of everything, at small sizes: to try the script")
    command = commands.add_parser("run", help="there: runs what the folder holds")
    command.add_argument("--libraries", help="folders of libcuda.so.1 and libcublasLt.so.13, before those of the system")
    command.add_argument("--sanitizer", default="compute-sanitizer", help="which compute-sanitizer")
    command.add_argument("--processes", type=int, help="processes of each peer (default 5)")
    command.add_argument("--output", default=path("docs", "gpu-results.md"), help="page to write (default: the folder's docs/gpu-results.md)")
    command = commands.add_parser("device", help="what the driver says, as JSON")
    command.add_argument("--bytes", type=int, default=1 << 20)
    options = parser.parse_args()
    if options.command == "pack":
        return pack(options)
    if options.command == "device":
        return device_facts(options)
    if not os.path.exists(path("packed.json")):
        stop(f"'{ROOT}' is not a packed folder: say pack first, and run FOLDER/tools/gpu-check.sh")
    return Check(options).page()


if __name__ == "__main__":
    sys.exit(main())
