#===- timing.py - the timing loop of the peers that run in Python -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""A process measures one case and prints one line, 'RESULT {json}'. Times are medians over repeats of many steps; a
repeat is clean unless others took the processor from it."""

import json
import os
import resource
import statistics
import time

_TICKS = os.sysconf("SC_CLK_TCK")


def _process_start():
    """Wall time at which this process was started, to 10 ms."""
    with open("/proc/self/stat") as file:
        ticks = int(file.read().rsplit(")", 1)[1].split()[19])
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / _TICKS)


_START = _process_start()


def since_start():
    return round(time.time() - _START, 3)


def peak_memory_mb():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def emit(**fields):
    print("RESULT " + json.dumps(fields), flush=True)


def machine_ticks():
    """-> (busy, stolen) ticks of the processors this process may use"""
    allowed = os.sched_getaffinity(0)
    busy = stolen = 0
    with open("/proc/stat") as file:
        for line in file:
            name, *values = line.split()
            if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in allowed:
                values = list(map(int, values[:8]))
                busy += sum(values) - values[3] - values[4]
                stolen += values[7]
    return busy, stolen


def own_ticks():
    times = os.times()
    return (times.user + times.system + times.children_user + times.children_system) * _TICKS


def _waited():
    """Seconds that this process's threads were ready to run and did not."""
    total = 0
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/schedstat") as file:
                total += int(file.read().split()[1])
        except OSError:
            pass  # the thread has ended
    return total / 1e9


class Preferred:
    """Gives this process's session more of the processors while it is being timed (root only; otherwise nothing)."""

    def _set(self, value):
        try:
            with open("/proc/self/autogroup", "w") as file:
                file.write(str(value))
        except OSError:
            pass

    def __enter__(self):
        self._set(-15)

    def __exit__(self, *_):
        self._set(0)


def measure(run, block=0.12, wanted=9, most=40, seconds=20.0, warm=0.4):
    """Times run(n), which does n steps and returns when they are done; -> fields in ms per step.

    A repeat is clean unless other processes used more than 4 % of a core while our threads waited more than 2.5 % of
    the time, or the hypervisor took more than 3 %. Medians are of the clean repeats if there are five."""
    with Preferred():
        n, best, turns, begin = 1, float("inf"), 0, time.perf_counter()
        while time.perf_counter() - begin < warm or turns < 3:
            t = time.perf_counter()
            run(n)
            t = time.perf_counter() - t
            turns += 1
            best = min(best, t / n)
            if t < block / 2:
                n = max(n + 1, min(n * 4, int(block / best)))
            if turns > 3 and time.perf_counter() - begin > 6:
                break
        n = max(1, round(block / best))
        repeats, begin = [], time.perf_counter()
        while True:
            (busy0, stolen0), own0, waited0 = machine_ticks(), own_ticks(), _waited()
            t = time.perf_counter()
            run(n)
            t = time.perf_counter() - t
            waited1, (busy1, stolen1), own1 = _waited(), machine_ticks(), own_ticks()
            ticks = t * _TICKS
            others = max(0.0, (busy1 - busy0) - (own1 - own0)) / ticks
            stolen, waited = (stolen1 - stolen0) / ticks, (waited1 - waited0) / t
            clean = not ((others > 0.04 and waited > 0.025) or stolen > max(0.03, 1.5 / ticks))
            repeats.append((t / n * 1e3, clean, others))
            clean = [repeat[0] for repeat in repeats if repeat[1]]
            if (
                len(clean) >= wanted
                or len(repeats) >= most
                or (len(repeats) >= 5 and time.perf_counter() - begin > seconds)
            ):
                break
    used = clean if len(clean) >= 5 else [repeat[0] for repeat in repeats]
    return dict(
        ms=round(statistics.median(used), 5),
        ms_min=round(min(used), 5),
        ms_max=round(max(used), 5),
        repeats=len(repeats),
        clean=len(clean),
        steps=n,
        others_pct=round(100 * statistics.median(repeat[2] for repeat in repeats), 1),
    )


def arguments():
    import argparse

    parser = argparse.ArgumentParser()
    parser.add_argument("--case", required=True)
    parser.add_argument("--mode", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--check-only", action="store_true")
    parser.add_argument("--bin", help="folder of dlc and dlrun")
    parser.add_argument("--march", default="native", help="processor that dlc compiles for")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--artefacts", help="folder of what dlc has compiled before: dlc is not run")
    parser.add_argument("--sizes", help="M,K,N of case F, several with spaces between (default: those of cases.py)")
    parser.add_argument("--onnx", help="folder of CASE.onnx")
    parser.add_argument("--outputs", help="folder for what networks give")
    parser.add_argument("--roofline", action="store_true", help="dlc: where the time goes, too")
    parser.add_argument("--runs", type=int, help="timed calls and first results of dlc (default: as many as it takes)")
    found = parser.parse_args()
    found.sizes = [tuple(map(int, size.split(","))) for size in found.sizes.split()] if found.sizes else None
    return found
