#===- peer_dlc.py - dlc: compiles the case's program, checks it, and times it with dlrun bench -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Every figure is of a separate process of dlc or dlrun: compiling (the best of three, the files being in the
system's cache), from starting the process to its end with one result written, and the timed steps themselves."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from timing import Preferred, arguments, emit, machine_ticks

a = arguments()
here = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(here, "..", "reference"))

import cases
import data
import checkpoints
import numpy as np

# On a GPU the mode is what computes products, dlc's --gemm; it is not named where it is the default.
GEMM = a.mode if a.device == "cuda" else "auto"
SHOWN = "" if GEMM == "auto" else GEMM
DEVICE = ["--device", a.device]
dlc, dlrun = (os.path.join(a.bin or os.path.join(here, "..", "..", "build", "bin"), name) for name in ("dlc", "dlrun"))
work = tempfile.mkdtemp(prefix="dlc-benchmark-")


def run(*command, watch=False):
    """-> (output, seconds, peak memory in MB) of one process.

    The memory is watched while the process runs, which disturbs it: not where the time counts. (What wait4 says would
    not do: it counts the memory of this process, from before the exec, as the other's.)"""
    with tempfile.TemporaryFile("w+", dir=work) as out, tempfile.TemporaryFile("w+", dir=work) as error:
        begin, peak = time.perf_counter(), 0
        process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=out, stderr=error)
        while watch and process.poll() is None:
            peak = max(peak, high_water(process.pid))
            time.sleep(0.002)
        process.wait()
        seconds = time.perf_counter() - begin
        out.seek(0)
        error.seek(0)
        if process.returncode != 0:
            words = error.read().strip()[-400:]
            raise SystemExit(f"{' '.join(map(str, command))}: exit {process.returncode}: {words}")
        return out.read(), seconds, round(peak / 1024, 1)


def high_water(pid):
    """The most memory that a running process has had so far, KB."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("VmHWM")), 0)
    except OSError:
        return 0  # it has ended


def variables(name, weights):
    """PyTorch's weights under the names, and as the tensors, that the program has."""

    def linear(at, kind):
        return f"{at}.{'bias' if kind == 'b' else 'weight'}"

    if name[0] == "A":
        return weights
    if name == "B":
        return {linear(f"net.{2 * int(key[1]) - 2}", key[0]): value for key, value in weights.items()}
    if name == "C":
        places = dict(c1="net.0", c2="net.3", w1="net.7", w2="net.9", w3="net.11")
        named = {key: linear(place, "w") for key, place in places.items()}
        named.update(cb1="net.0.bias", cb2="net.3.bias", b1="net.7.bias", b2="net.9.bias", b3="net.11.bias")
        return {named[key]: value for key, value in weights.items()}
    if name == "D":
        places = {"conv1": "net.0", "bn1": "net.1", "fc": "net.13"}
        for number, (at, *_) in enumerate(data.resnet18_blocks()):
            for part in ("conv1", "bn1", "conv2", "bn2"):
                places[f"{at}.{part}"] = f"net.{4 + number}.{part}"
            for part in (0, 1):
                places[f"{at}.downsample.{part}"] = f"net.{4 + number}.skip.{part}"
        parted = {key: key.rpartition(".") for key in weights}
        return {f"{places[at]}.{kind}": weights[key] for key, (at, _, kind) in parted.items()}
    if name == "E":
        places = dict(ln1="ln1", qkv="attn.qkv", o="attn.proj", ln2="ln2", f="mlp.0", p="mlp.2")
        named = {"wte": "token_embedding.weight", "wpe": "position_embedding.weight", "lnfw": "ln.weight"}
        named.update({"lnfb": "ln.bias", "head": "head.weight"})
        for i in range(data.GPT["layers"]):
            for short, place in places.items():
                for kind in "wb":
                    named[f"{i}.{short}{kind}"] = linear(f"blocks.{i}.{place}", kind)
        return {named[key]: value for key, value in weights.items()}
    if name == "G":
        named = {"gates_bias": "gates.bias", "head_bias": "head.bias"}
        return {named.get(key, key + ".weight"): value for key, value in weights.items()}
    raise KeyError(name)


def compile(case, words=()):
    if a.artefacts:
        artefact = os.path.join(a.artefacts, f"{case}-{GEMM}.so")
        return artefact, dict(artefact_kb=round(os.path.getsize(artefact) / 1024, 1))
    artefact = os.path.join(work, "model.so")
    words = [*cases.CASES[a.case].defined(), *words]
    if a.device == "cuda":
        words += ["--target=cpu,cuda", f"--gemm={GEMM}"]
    program = os.path.join(here, "..", "..", cases.CASES[a.case].program)
    command = [dlc, program, "-o", artefact, f"-march={a.march}", *words]
    _, _, memory = run(*command, watch=True)
    seconds = [] if a.check_only else [run(*command)[1] for _ in range(3)]
    fields = dict(compile_s=round(min(seconds), 3)) if seconds else {}
    return artefact, dict(fields, compile_rss_mb=memory, artefact_kb=round(os.path.getsize(artefact) / 1024, 1))


def save(name, value):
    path = os.path.join(work, name + ".npy")
    np.save(path, value)
    return ["--input", f"{name}={path}"]


def call(artefact, function, inputs, *options):
    """-> (the result, seconds from start to end of the process)"""
    out = os.path.join(work, "out")
    os.makedirs(out, exist_ok=True)
    _, seconds, _ = run(
        dlrun, "call", artefact, function, *inputs, "--output-dir", out, "--threads", a.threads, *DEVICE, *options
    )
    return np.load(os.path.join(out, "out.npy")), seconds


def bench(artefact, function, *options):
    options = [*options, *DEVICE, *(["--runs", a.runs] if a.runs else [])]
    with Preferred():
        busy0, _ = machine_ticks()
        own0 = os.times()
        out, seconds, _ = run(dlrun, "bench", artefact, function, "--threads", a.threads, "--json", *options)
        own1, (busy1, _) = os.times(), machine_ticks()
    own = own1.children_user + own1.children_system - own0.children_user - own0.children_system
    others = max(0.0, (busy1 - busy0) / os.sysconf("SC_CLK_TCK") - own) / seconds
    _, _, memory = run(dlrun, "bench", artefact, function, "--threads", a.threads, "--json", *options, watch=True)
    got = json.loads(out)
    return dict(
        ms=round(got["median_us"] / 1e3, 5),
        ms_min=round(got["min_us"] / 1e3, 5),
        repeats=got["runs"],
        arena_kb=round(got["arena_bytes"] / 1024, 1),
        rss_mb=memory,
        others_pct=round(100 * others, 1),
        # Kernels by themselves, without the copies of arguments and results.
        **({"kernels_ms": round(sum(row["us"] for row in got["kernels"][:-1]) / 1e3, 5)} if "kernels" in got else {}),
    )


def roofline(artefact, function, *options):
    """The kernels that take the most time, and all of them together, as `dlrun bench --profile` says."""
    options = [*options, *DEVICE, *(["--runs", a.runs] if a.runs else [])]
    out, _, _ = run(dlrun, "bench", artefact, function, "--threads", a.threads, "--json", "--profile", *options)
    got = json.loads(out)
    return dict(roofline=dict(kernels=got["kernels"][:8], peak=got.get("peak"), whole=got.get("whole")))


def gemm():
    for m, k, n in cases.gemm_sizes(a):
        case = f"F_{m}x{k}x{n}"
        artefact, fields = compile(case, ["-D", f"M={m}", "-D", f"K={k}", "-D", f"N={n}"])
        x, y = data.gemm_operands((m, k, n))
        inputs = save("x", x) + save("y", y)
        product, _ = call(artefact, "product", inputs)
        if not a.check_only:
            fields.update(bench(artefact, "product", *inputs, *(["--profile"] if a.device == "cuda" else [])))
            # A peer's factors lie on the GPU: so dlc's copies do not count.
            fields["ms"] = fields.pop("kernels_ms", fields["ms"])
            fields["gflops"] = round(2e-6 * m * k * n / fields["ms"], 1)
        emit(peer="dlc", mode=SHOWN, case=case, threads=a.threads, check=data.tensor_check(product), **fields)


def write_variables(artefact, function, inputs, values):
    """-> the path of a checkpoint: what an instance begins with, but for these values"""
    path, out = os.path.join(work, "variables.safetensors"), os.path.join(work, "out")
    run(dlrun, "call", artefact, function, *inputs, "--repeat", 0, "--save", path, "--output-dir", out, *DEVICE)
    tensors, metadata = checkpoints.read(path)
    for name, value in values.items():
        assert tensors[name].shape == value.shape, f"{name}: {tensors[name].shape}, expected {value.shape}"
        tensors[name] = value
    checkpoints.write(path, tensors, metadata)
    return path


def measured(artefact, function, options):
    if a.check_only:
        return {}
    found = bench(artefact, function, *options)
    return dict(found, **roofline(artefact, function, *options)) if a.roofline else found


def training():
    artefact, fields = compile(a.case)
    weights, x, y = data.make(a.case)
    names = {"A": ("x", "y"), "E": ("tokens", "target"), "G": ("tokens", "target")}
    inputs = [word for name, value in zip(names.get(a.case[0], ("x", "label")), (x, y)) for word in save(name, value)]
    call_first = lambda: call(artefact, "step", inputs)[1]
    seconds = [call_first() for _ in range(1 if a.check_only else a.runs or 7)]
    fields["first_result_s"] = round(statistics.median(seconds), 4)
    values = variables(a.case, data.in_out(weights))
    values["step.lr"] = np.array(cases.CASES[a.case].lr)
    path = write_variables(artefact, "step", inputs, values)
    loss, _ = call(artefact, "step", inputs, "--load", path, "--repeat", cases.CASES[a.case].check_steps)
    fields.update(measured(artefact, "step", [*inputs, "--load", path]))
    emit(peer="dlc", mode=SHOWN, case=a.case, threads=a.threads, check=float(loss), **fields)


def inference():
    artefact, fields = compile(a.case)
    name, batch = cases.network_of(a.case)
    inputs = save("x", data.images(batch))
    options = ["--load", write_variables(artefact, "predict", inputs, data.network(name))]
    calls = [call(artefact, "predict", inputs, *options) for _ in range(1 if a.check_only else a.runs or 3)]
    fields["first_result_s"] = round(statistics.median(seconds for _, seconds in calls), 4)
    output = calls[0][0]
    fields.update(measured(artefact, "predict", [*inputs, *options]))
    fields["output"] = data.save_output(output, a)
    emit(peer="dlc", mode=SHOWN, case=a.case, threads=a.threads, check=data.tensor_check(output), **fields)


try:
    gemm() if a.case == "F" else training() if cases.CASES[a.case].optimizer else inference()
finally:
    shutil.rmtree(work)
