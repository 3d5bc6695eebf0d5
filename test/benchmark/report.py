#!/usr/bin/env python3
#===- report.py - tables from the benchmark's results -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""report.py [results.jsonl] [--output docs/performance.md]"""

import array
import json
import os
import platform
import statistics
import sys

sys.dont_write_bytecode = True

from cases import CASES

BEGIN, END = "<!-- benchmark: begin (written by test/benchmark/run.py) -->", "<!-- benchmark: end -->"
CHECK_TOLERANCE = 1e-3
OUTPUT_TOLERANCE = 1e-4  # of a network's outputs, to the largest of them


def title(record):
    """'jax', 'torch eager', …"""
    mode = record["mode"] if record["peer"] in ("torch", "tensorflow", "dlc") else ""
    return f"{record['peer']} {mode}".strip()


def line(record):
    """A record as one line of progress."""
    words = f"round {record['round']} {record['case']}, {setting(record)}, {title(record)}: "
    if "error" in record:
        return words + "failed: " + record["error"]
    time = f"{record['ms']} ms, others {record.get('others_pct')} %, " if "ms" in record else ""
    return words + time + f"check {record['check']:.7g}"


def setting(record):
    """Under what a record was measured: '2 threads', '1 thread, AVX2', …"""
    if record.get("device", "cpu") != "cpu":
        return record["device"]
    count = record["threads"]
    words = f"{count} thread{'s' if count > 1 else ''}"
    return words + (f", {record['vectors']}" if record.get("vectors") else "")


def number(value):
    return f"{value:.3f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def is_ours(peer):
    """'dlc', and on a GPU also 'dlc own' and 'dlc cublaslt'"""
    return peer.split()[0] == "dlc"


class Results:
    """Records by case, setting and peer, in the order they came."""

    def __init__(self, records):
        self.by = {}
        for record in records:
            self.by.setdefault((record["case"], setting(record), title(record)), []).append(record)
        self.cases = list(dict.fromkeys(record["case"] for record in records if record["case"] != "F"))
        self.settings = list(dict.fromkeys(setting(record) for record in records))
        self.peers = sorted({title(record) for record in records}, key=lambda name: (not is_ours(name), name))
        self.ours = [peer for peer in self.peers if is_ours(peer)]

    def times(self, case, where, peer):
        """-> ms by round"""
        return {r["round"]: r["ms"] for r in self.by.get((case, where, peer), []) if "ms" in r}

    def median(self, case, where, peer, key="ms"):
        values = [r[key] for r in self.by.get((case, where, peer), []) if key in r]
        return statistics.median(values) if values else None

    def spread(self, case, where, peer):
        values = self.times(case, where, peer).values()
        return f"{number(min(values))}–{number(max(values))}" if len(values) > 1 else ""

    def best_peer(self, case, where):
        found = [(self.median(case, where, peer), peer) for peer in self.peers if not is_ours(peer)]
        return min(((ms, peer) for ms, peer in found if ms is not None), default=None)

    def ratio(self, case, where, ours="dlc"):
        """dlc's time over the best peer's, each round by itself; -> (median, best peer) or None"""
        best = self.best_peer(case, where)
        if best is None:
            return None
        mine, other = self.times(case, where, ours), self.times(case, where, best[1])
        ratios = [mine[turn] / other[turn] for turn in mine if turn in other]
        return (statistics.median(ratios), best[1]) if ratios else None


def table(head, rows):
    return [
        "| " + " | ".join(head) + " |",
        "|---" * len(head) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def shape(case):
    return "×".join(case[2:].split("x"))


def gemm_tables(results):
    cases = [case for case in results.cases if case.startswith("F_")]
    peers = [
        peer for peer in results.peers if any(results.times(case, s, peer) for case in cases for s in results.settings)
    ]
    if not peers:
        return []
    out = ["### Matrix products, f32, GFLOP/s", ""]
    rows = []
    for peer in peers:
        for where in results.settings:
            cells = [results.median(case, where, peer, "gflops") for case in cases]
            rows.append([peer, where, *("—" if cell is None else number(cell) for cell in cells)])
    for where in results.settings:
        for ours in (peer for peer in results.ours if peer in peers):
            cells = [results.ratio(case, where, ours) for case in cases]
            if not any(cells):
                continue
            rows.append(
                [
                    f"**{ours}'s rate / best peer's**",
                    where,
                    *(f"**{1 / cell[0]:.2f}** ({cell[1]})" if cell else "—" for cell in cells),
                ]
            )
    return out + table(["", "", *(shape(case) for case in cases)], rows)


def time_tables(results, heading, cases):
    if not any(results.times(case, s, peer) for case in cases for s in results.settings for peer in results.peers):
        return []
    out = [heading, ""]
    for where in results.settings:
        rows = []
        peers = [peer for peer in results.peers if any(results.times(case, where, peer) for case in cases)]
        for case in cases:
            row = [case]
            for peer in peers:
                ms = results.median(case, where, peer)
                row.append(
                    "—" if ms is None else f"{number(ms)} ({results.spread(case, where, peer)})".replace(" ()", "")
                )
            ratio = results.ratio(case, where)
            rows.append([*row, f"**{ratio[0]:.2f}** ({ratio[1]})" if ratio else "—"])
        out += [f"{where}; in brackets the fastest and the slowest process:", ""]
        out += table(["case", *peers, "dlc / best peer"], rows)
        out += resident_table(results, where, cases, peers)
    out += ["- " + f"{case}: {CASES[case].words}" for case in cases] + [""]
    return out


def short(name):
    """A kernel's name where many share a launch: the first of them, and how many there are."""
    parts, place = name.partition(" (")[0].split("+"), name.partition(" (")[2]
    words = parts[0] if len(parts) == 1 else f"{parts[0]} and {len(parts) - 1} more"
    return f"{words} ({place}" if place else words


def roofline_tables(results):
    """Where dlc's time goes, in the fastest process of each case."""
    out = []
    for case in results.cases:
        for where in results.settings:
            found = [r for peer in results.ours for r in results.by.get((case, where, peer), []) if r.get("roofline")]
            if not found or not found[0]["roofline"].get("peak"):
                continue
            record = min(found, key=lambda r: r["ms"])
            kernels, peak, whole = (record["roofline"][name] for name in ("kernels", "peak", "whole"))
            gflops = peak["f32_gflops"]
            out += [
                f"{case}, {where}: {number(record['ms'])} ms. Its arithmetic alone, {number(whole['flops'] / 1e9)} GFLOP at the "
                f"processor's {number(gflops)} GFLOP/s, is {number(whole['flops'] / gflops / 1e6)} ms; "
                f"memory gives {number(peak['gbytes'])} GB/s.",
                "",
            ]
            rows = [
                [
                    f"`{short(row['name'])}`",
                    number(row["us"] / 1e3),
                    f"{100 * row['share']:.0f} %",
                    number(row["gflops_per_s"]) if row.get("gflops_per_s") else "—",
                    number(row["gbytes_per_s"]) if row.get("gbytes_per_s") else "—",
                    f"{100 * row['of_bound']:.0f} % of {row['bound']}" if row.get("of_bound") else "—",
                ]
                for row in kernels
            ]
            out += table(["kernel", "ms", "of the call", "GFLOP/s", "GB/s", "of what bounds it"], rows)
    return ["### Where the time goes", "", *out] if out else []


def resident_table(results, where, cases, peers):
    """The peers without what belongs to every step of a training: the batch that comes and the loss that goes."""
    peers = [peer for peer in peers if any(results.median(case, where, peer, "resident_ms") for case in cases)]
    if not peers:
        return []
    rows = []
    for case in cases:
        cells = [results.median(case, where, peer, "resident_ms") for peer in peers]
        rows.append([case, *("—" if cell is None else number(cell) for cell in cells)])
    words = "In a step the batch comes from the host and the loss goes back. The peers alone, with data that stay on the device and one wait at the end of many steps:"
    return [words, "", *table(["case", *peers], rows)]


def cost_tables(results):
    """What surrounds the steps: compiling, the first result, memory."""
    where = results.settings[0]
    fields = [
        ("compile_s", "compiling, s", lambda v: f"{v:.3f}"),
        ("first_result_s", "start of the process to first result, s", lambda v: f"{v:.3f}"),
        ("rss_mb", "peak memory, MB", lambda v: f"{v:.0f}"),
        ("artefact_kb", "artefact, KB", lambda v: f"{v:.0f}"),
        ("arena_kb", "arena, KB", lambda v: f"{v:.0f}"),
    ]
    rows = []
    for case in results.cases:
        for peer in results.peers:
            values = []
            for key, _, text in fields:
                # a framework's compile time is that of its first process: later ones find its cache
                found = [r[key] for r in results.by.get((case, where, peer), []) if key in r]
                value = (
                    None
                    if not found
                    else found[0] if key == "compile_s" and not is_ours(peer) else statistics.median(found)
                )
                values.append("—" if value is None else text(value))
            if any(value != "—" for value in values) and not (case.startswith("F_") and not is_ours(peer)):
                rows.append([shape(case) if case.startswith("F_") else case, peer, *values])
    if not rows:
        return []
    return ["### Compiling, starting, memory", "", *table(["case", "", *(words for _, words, _ in fields)], rows)]


def machine():
    model, flags = "", set()
    with open("/proc/cpuinfo") as file:
        for text in file:
            key, _, value = text.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() == "flags":
                flags = set(value.split())
    vectors = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    return f"{model}, {len(os.sched_getaffinity(0))} processors, {vectors}, Linux {platform.release().split('-')[0]}"


def versions(records):
    found = {}
    for record in records:
        if record.get("version"):
            found[record["peer"]] = record["version"]
    return ", ".join(f"{peer} {version}" for peer, version in sorted(found.items()))


def page(records):
    results = Results(records)
    processes = 1 + max(record["round"] for record in records)
    busy = [record["others_pct"] for record in records if "others_pct" in record]
    out = [
        f"Machine: {machine()}. Peers: {versions(records) or 'none'}.",
        f"Measured {records[0]['when'][:10]}; processes of each: {processes}, interleaved.",
    ]
    if busy:
        median, most = statistics.median(busy), max(busy)
        out.append(f"Other programs took {median:.0f} % of a processor meanwhile (median; at most {most:.0f} %).")
    trained = [case for case in results.cases if case in CASES and CASES[case].optimizer]
    inferred = [case for case in results.cases if case in CASES and not CASES[case].optimizer]
    out += ["", *gemm_tables(results), *time_tables(results, "### One training step, ms", trained)]
    out += [*time_tables(results, "### One inference, ms", inferred), *roofline_tables(results), *cost_tables(results)]
    failed = sorted(
        {
            f"- {record['case']}, {setting(record)}, {title(record)}: {record['error']}"
            for record in records
            if "error" in record
        }
    )
    if failed:
        out += ["Failed:", "", *failed, ""]
    plain = sorted({title(record) for record in records if record.get("graphs_left_out")})
    if plain:
        out += [f"Parts of it ran without a CUDA graph, says PyTorch: {', '.join(plain)}.", ""]
    return "\n".join(out)


def outputs_of(record):
    values = array.array("f")
    with open(record["output"], "rb") as file:
        values.frombytes(file.read())
    return values


def different_outputs(records):
    """What a network gives, on dlc and on each peer of the same case, element by element."""
    by_case, out = {}, []
    for record in records:
        if record.get("output") and os.path.exists(record["output"]):
            by_case.setdefault((record["case"], setting(record)), {}).setdefault(title(record), record)
    for (case, where), found in by_case.items():
        if "dlc" not in found:
            continue
        ours = outputs_of(found["dlc"])
        for peer, record in found.items():
            theirs = outputs_of(record)
            largest = max(map(abs, theirs))
            error = max(abs(x - y) for x, y in zip(ours, theirs)) / largest if len(ours) == len(theirs) else float("inf")
            if not error <= OUTPUT_TOLERANCE:
                out.append(f"{case}, {where}: an output of dlc's is {error:.1e} of the largest away from {peer}'s")
    return out


def problems(records):
    """What makes the run worthless: dlc failed, or its results are not the peers'."""
    out = [
        f"{r['case']}, {setting(r)}: dlc failed: {r['error']}"
        for r in records
        if r["peer"] == "dlc" and "error" in r
    ]
    for case in dict.fromkeys(record["case"] for record in records):
        checks = {}
        for record in records:
            if record["case"] == case and "check" in record:
                checks.setdefault(title(record), []).append(record["check"])
        values = [value for found in checks.values() for value in found]
        if values and not max(values) - min(values) <= CHECK_TOLERANCE * abs(statistics.median(values)):
            out.append(
                f"{case}: the checks differ: " + ", ".join(f"{peer} {found[0]:.7g}" for peer, found in checks.items())
            )
    return out + different_outputs(records)


def write(records, output=None):
    """Prints the tables, or puts them into a page."""
    if not records:
        return
    text = page(records)
    if output is None:
        print(text)
        return
    place(text, output, BEGIN, END, "# Performance")


def place(text, output, begin, end, heading):
    """Puts a text into a page: between the markers, if it has them, else at its end, or as a new page."""
    block = f"{begin}\n\n{text}\n{end}"
    old = ""
    if os.path.exists(output):
        with open(output) as file:
            old = file.read()
    if begin in old and end in old:
        new = old[: old.index(begin)] + block + old[old.index(end) + len(end) :]
    else:
        new = (old.rstrip("\n") if old else heading) + "\n\n" + block + "\n"
    with open(output, "w") as file:
        file.write(new)


def main():
    import argparse

    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    parser = argparse.ArgumentParser(description="tables from the benchmark's results")
    parser.add_argument("results", nargs="?", default=os.path.join(root, "build", "benchmark", "results.jsonl"))
    parser.add_argument("--output", help="write the tables into this Markdown page; else they are printed")
    options = parser.parse_args()
    with open(options.results) as file:
        records = [json.loads(text) for text in file]
    write(records, options.output)
    return 1 if problems(records) else 0


if __name__ == "__main__":
    sys.exit(main())
