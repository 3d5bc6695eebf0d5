#!/usr/bin/env python3
#===- run.py - runs the benchmark: dlc and its peers, interleaved, each figure from several processes -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Measures the cases on dlc and on the peers that install-peers.sh has installed, and writes tables.

    run.py                                    everything: all cases, 2 and 1 threads, 5 processes of each
    run.py A1 --threads 2 --processes 3       some of it
    run.py --vectors native,AVX2              and again with dlc and the peers held to AVX2
    run.py --check-only                       only that all peers compute the same
    run.py --output docs/performance.md       the tables into the page, between its two markers
    run.py --device cuda                      on a GPU; tools/gpu-check.sh does this where dlc is not

A round measures every peer once, in turn, each in a fresh process; then comes the next round. Ratios are taken
within a round, so that a slow minute of the machine falls on both. Results go to a file of JSON lines (--results);
report.py makes the tables from it again. Exits 1 where dlc failed or computed something else than the peers.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time

sys.dont_write_bytecode = True

import report
from cases import CASES, GROUPS

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PEERS = os.environ.get("PEERS", os.path.expanduser("~/.cache/dlc-peers"))
PEER_NAMES = ["dlc", "jax", "torch", "torch-compile", "tensorflow", "numpy", "onnxruntime", "openvino"]
LIMIT_S = 600


def jobs_of(case, peers, device):
    """-> [(peer, script, mode)]"""
    if device == "cuda":
        return cuda_jobs_of(case, peers)
    if case == "F":
        found = [("dlc", "peer_dlc.py", "gemm"), *((peer, "peer_gemm.py", peer) for peer in ("jax", "torch", "numpy"))]
        return [job for job in found if job[0] in peers]
    if not CASES[case].optimizer:
        found = [("dlc", "peer_dlc.py", "predict")]
        found += [(peer, "peer_onnx.py", peer) for peer in ("onnxruntime", "openvino")]
        return [job for job in found if job[0] in peers]
    found = [("dlc", "peer_dlc.py", "step"), ("jax", "peer_jax.py", "jit"), ("torch", "peer_torch.py", "eager")]
    if CASES[case].optimizer != "sgd":
        found.append(("torch", "peer_torch.py", "eager_fused"))
    found.append(("torch-compile", "peer_torch.py", "compile"))
    found += [("tensorflow", "peer_tf.py", mode) for mode in ("graph", "xla")]
    return [job for job in found if job[0] in peers]


def cuda_jobs_of(case, peers):
    if case == "F":
        found = [("dlc", "peer_dlc.py", gemm) for gemm in ("own", "cublaslt")]
        found += [(peer, "peer_gemm.py", peer) for peer in ("jax", "torch")]
    else:
        found = [("dlc", "peer_dlc.py", gemm) for gemm in ("auto", "own")]
        found += [("jax", "peer_jax.py", "jit"), ("torch", "peer_torch.py", "eager")]
        if CASES[case].optimizer != "sgd":
            found.append(("torch", "peer_torch.py", "eager_fused"))
        found += [("torch-compile", "peer_torch.py", mode) for mode in ("max-autotune", "reduce-overhead")]
    return [job for job in found if job[0] in peers]


def lacking_on_gpu(python, peers):
    """-> {peer: why it cannot be measured on the GPU}"""
    tests = {
        "numpy": "raise SystemExit('has no GPU program')",
        "jax": "import jax; jax.devices('cuda')",
        "torch": "import torch; torch.zeros(1, device='cuda')",
    }
    lacking = {}
    for peer in peers:
        if peer in ("tensorflow", "onnxruntime", "openvino"):
            lacking[peer] = "is measured on the processor alone"
        elif peer != "dlc":
            done = subprocess.run([python, "-c", tests[peer.split("-")[0]]], capture_output=True, text=True)
            if done.returncode:
                lacking[peer] = (done.stderr.strip().splitlines() or ["failed"])[-1][:200]
    return lacking


def library_path(packages):
    """torch of the package registry is a CUDA build: it loads libraries of its neighbours, and of the toolkit."""
    folders = [os.path.join(packages, "nvidia", name, "lib") for name in ("cu13", "cusparselt", "nvshmem", "nccl")]
    nvcc = shutil.which("nvcc")
    toolkit = os.environ.get("CUDA_HOME") or (
        os.path.dirname(os.path.dirname(os.path.realpath(nvcc))) if nvcc else None
    )
    if toolkit:
        folders.append(os.path.join(toolkit, "lib64"))
    return os.pathsep.join(folder for folder in folders if os.path.isdir(folder))


def environment(python, peer, threads, vectors, cache, options):
    if options.device == "cuda":
        # The drivers and libraries of the machine are its owner's business; dlc's may be others.
        env = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", TORCHINDUCTOR_CACHE_DIR=cache, JAX_PLATFORMS="cuda")
        if peer == "dlc" and options.libraries:
            env["LD_LIBRARY_PATH"] = options.libraries
        return env
    env = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", PATH=os.path.dirname(python) + os.pathsep + os.environ["PATH"])
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "LD_LIBRARY_PATH", "XLA_FLAGS"):
        env.pop(name, None)  # settings of this machine's owner would change the peers
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        env[name] = str(threads)
    if peer.startswith("torch"):
        packages = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        env["LD_LIBRARY_PATH"] = library_path(packages)
        env["TORCHINDUCTOR_CACHE_DIR"] = cache
    flags = ["--xla_cpu_multi_thread_eigen=false"] if threads == 1 else []
    if vectors == "AVX2":
        # The peers as they are where there is no AVX-512: each library has a word of its own for it.
        env.update(
            ATEN_CPU_CAPABILITY="avx2",
            MKL_ENABLE_INSTRUCTIONS="AVX2",
            ONEDNN_MAX_CPU_ISA="AVX2",
            OPENBLAS_CORETYPE="Haswell",
        )
        flags.append("--xla_cpu_max_isa=AVX2")
    if peer == "jax" and flags:
        env["XLA_FLAGS"] = " ".join(flags)
    return env


def prepare_inference(names, python, options):
    """Makes the files that peers of inference read, and a folder for what all give."""
    folder = os.path.dirname(options.results)
    options.onnx, options.outputs = os.path.join(folder, "onnx"), os.path.join(folder, "outputs")
    shutil.rmtree(options.outputs, ignore_errors=True)
    os.makedirs(options.outputs)
    wanted = [name for name in names if name != "F" and not CASES[name].optimizer]
    if wanted:
        subprocess.run([python, os.path.join(HERE, "onnx_models.py"), options.onnx, *wanted], check=True)


def measure(python, job, case, threads, vectors, options, cache):
    """-> the records of one process"""
    peer, script, mode = job
    if peer == "tensorflow":
        python = options.tensorflow
    command = [python, os.path.join(HERE, script), "--case", case, "--mode", mode, "--threads", str(threads)]
    if options.check_only:
        command.append("--check-only")
    if peer == "dlc":
        command += ["--bin", options.bin, "--march", "x86-64-v3" if vectors == "AVX2" else "native"]
        command += ["--roofline"] if options.roofline else []
    for name in ("artefacts", "sizes", "runs", "onnx", "outputs"):
        if getattr(options, name, None):
            command += ["--" + name, str(getattr(options, name))]
    command += ["--device", options.device]
    processors = sorted(os.sched_getaffinity(0))[-threads:]
    words = ""
    try:
        done = subprocess.run(
            command,
            env=environment(python, peer, threads, vectors, cache, options),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, processors),
        )
        found = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if done.returncode != 0 or not found:
            words = (done.stderr.strip().splitlines() or ["no result"])[-1][:300]
    except subprocess.TimeoutExpired:
        found, words = [], f"took more than {LIMIT_S} s"
    if words:
        found.append(
            dict(
                peer=peer.split("-")[0],
                mode="" if mode in ("auto", "step", "predict", "gemm", peer) else mode,
                case=case,
                threads=threads,
                error=words,
            )
        )
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {' '.join(GROUPS)} (default: all)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", help="thread counts (default 2,1; on a GPU all that there are)")
    parser.add_argument(
        "--vectors",
        default="native",
        help="'native', or 'native,AVX2': measures a second time with all held to AVX2",
    )
    parser.add_argument("--processes", type=int, default=5, help="processes of each, that is, rounds (default 5)")
    parser.add_argument("--peers", default=",".join(PEER_NAMES), help=f"default {','.join(PEER_NAMES)}")
    parser.add_argument(
        "--bin", default=os.path.join(ROOT, "build", "bin"), help="folder of dlc and dlrun (default build/bin)"
    )
    parser.add_argument(
        "--results", default=os.path.join(ROOT, "build", "benchmark", "results.jsonl"), help="JSON lines; begun anew"
    )
    parser.add_argument("--output", help="write the tables into this Markdown page; else they are printed")
    parser.add_argument(
        "--python", default=os.path.join(PEERS, "venv", "bin", "python"), help="what runs the peers"
    )
    parser.add_argument(
        "--tensorflow",
        default=os.path.join(PEERS, "tensorflow", "bin", "python"),
        help="what runs TensorFlow, which needs libraries of other versions",
    )
    parser.add_argument("--artefacts", help="folder of CASE-GEMM.so, compiled before: dlc itself is not needed")
    parser.add_argument("--libraries", help="LD_LIBRARY_PATH of dlrun on a GPU")
    parser.add_argument("--only", help="of the cases named, only these: A1_sgd,B")
    parser.add_argument("--sizes", help="M,K,N of case F, several with spaces between")
    parser.add_argument("--runs", type=int, help="timed calls of dlrun bench")
    parser.add_argument(
        "--roofline", action="store_true", help="also which of dlc's kernels take the time, and what bounds them"
    )
    parser.add_argument("--check-only", action="store_true", help="no timing: only that all compute the same")
    options = parser.parse_args()
    options.bin = os.path.abspath(options.bin)
    for name in options.cases:
        if name not in GROUPS:
            parser.error(f"no case {name}; there are {' '.join(GROUPS)}")
    peers = options.peers.split(",")
    for name in peers:
        if name not in PEER_NAMES:
            parser.error(f"no peer {name}; there are {' '.join(PEER_NAMES)}")
    python = shutil.which(options.python)
    if not python:
        parser.error(f"no {options.python}: run {os.path.join(HERE, 'install-peers.sh')} first, or set PEERS")
    tool = "dlrun" if options.artefacts else "dlc"
    if "dlc" in peers and not os.access(os.path.join(options.bin, tool), os.X_OK):
        parser.error(f"no {tool} in {options.bin}: build first, or say --bin, or leave it out with --peers")
    groups = options.cases or [name for name in GROUPS if options.device == "cpu" or name != "infer"]
    names = [name for group in groups for name in GROUPS[group]]
    names = [name for name in names if not options.only or name in options.only.split(",")]
    if options.device == "cuda":
        for name, why in lacking_on_gpu(python, peers).items():
            print(f"run.py: {name} is left out: {why}", file=sys.stderr)
            peers.remove(name)
    if options.threads is None:
        options.threads = str(len(os.sched_getaffinity(0))) if options.device == "cuda" else "2,1"
    settings = [
        (int(threads), "" if vectors == "native" else vectors)
        for vectors in options.vectors.split(",")
        for threads in options.threads.split(",")
    ]
    if any(vectors not in ("", "AVX2") for _, vectors in settings):
        parser.error(f"--vectors takes native and AVX2, not '{options.vectors}'")
    if options.device == "cpu":
        if "tensorflow" in peers and not os.access(options.tensorflow, os.X_OK):
            print(f"run.py: tensorflow is left out: no {options.tensorflow}", file=sys.stderr)
            peers.remove("tensorflow")
        prepare_inference(names, python, options)
    cache = os.path.join(os.path.dirname(options.results), "torch-cache")
    shutil.rmtree(cache, ignore_errors=True)
    os.makedirs(cache)
    records = []
    with open(options.results, "w") as file:
        for turn in range(1 if options.check_only else options.processes):
            for name in names:
                for threads, vectors in settings:
                    for job in jobs_of(name, peers, options.device):
                        for record in measure(python, job, name, threads, vectors, options, cache):
                            record.update(
                                vectors=vectors,
                                device=options.device,
                                round=turn,
                                load=round(os.getloadavg()[0], 2),
                                when=time.strftime("%FT%TZ", time.gmtime()),
                            )
                            records.append(record)
                            file.write(json.dumps(record) + "\n")
                            file.flush()
                            print(report.line(record), file=sys.stderr, flush=True)
    shutil.rmtree(cache, ignore_errors=True)
    report.write(records, options.output)
    problems = report.problems(records)
    for words in problems:
        print(f"run.py: {words}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
