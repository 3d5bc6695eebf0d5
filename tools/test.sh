#!/usr/bin/env bash
#===- test.sh - builds everything and runs all tests ---===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
# Installs what is missing, builds incrementally, and runs all tests, also after some have failed: everything is a test of ctest, which
# calls lit, GoogleTest and Python. Ends with 'N passed, M failed', each lit file and each comparison of a Python test counting as one;
# exits 1 unless all passed.
#
#   BUILD=DIR tools/test.sh [ctest options]       e.g. -R runtime: only tests with such names
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${BUILD:-$root/build}
jobs=$(nproc)

give_up() {
  echo "test.sh: $1" >&2
  echo "0 passed, 1 failed"
  exit 1
}

"$root/tools/install-dependencies.sh" || give_up "packages are missing"
mkdir -p "$build"
log="$build/test-build.log"
if ! cmake -S "$root" -B "$build" -G Ninja -DCMAKE_C_COMPILER=clang-22 -DCMAKE_CXX_COMPILER=clang++-22 \
     -DPython3_EXECUTABLE=/usr/bin/python3 >"$log" 2>&1; then
  cat "$log" >&2
  give_up "configuring failed"
fi
if ! cmake --build "$build" --parallel "$jobs" >"$log" 2>&1; then
  grep -v '^\[[0-9]*/[0-9]*\] ' "$log" | tail -n 200 >&2
  give_up "building failed; all of it is in $log"
fi

results="$build/test-results.xml"
rm -f "$results"
status=0
# the counts are taken from the tests' own closing lines, so their output must not be cut
ctest --test-dir "$build" --parallel "$jobs" --output-on-failure --no-tests=error --output-junit "$results" \
      --test-output-size-passed 100000000 --test-output-size-failed 100000000 "$@" || status=$?
[ -s "$results" ] || give_up "ctest wrote no results (exit $status)"

/usr/bin/python3 - "$results" "$status" <<'COUNT'
import re
import sys
import xml.etree.ElementTree as tree

results, status = tree.parse(sys.argv[1]), int(sys.argv[2])
LIT = re.compile(r"^\s*(Passed|Passed With Retry|Expectedly Failed|Failed|Unresolved|Timed Out|Unexpectedly Passed|Unsupported|Skipped)\s*:\s*(\d+)", re.M)
LIT_GOOD = {"Passed", "Passed With Retry", "Expectedly Failed"}
LIT_NEITHER = {"Unsupported", "Skipped"}
OWN = re.compile(r"^(\d+) passed, (\d+) failed$", re.M)
passed = failed = 0
names, neither = [], []
for case in results.iter("testcase"):
    name, output = case.get("name"), case.findtext("system-out") or ""
    state = case.get("status")  # run, fail, notrun, disabled
    # a test that asked to be skipped is none; one that could not be started has failed
    reason = case.find("skipped")
    if state == "disabled" or reason is not None and reason.get("message", "").startswith("SKIP_"):
        neither.append(name)
        continue
    good = bad = 0
    own = OWN.findall(output)
    if own:
        good, bad = map(int, own[-1])
    elif "Total Discovered Tests:" in output:
        for word, count in LIT.findall(output[output.index("Total Discovered Tests:") :]):
            if word in LIT_GOOD:
                good += int(count)
            elif word in LIT_NEITHER:
                neither.append(f"{count} of {name}")
            else:
                bad += int(count)
    elif state == "run":
        good = 1
    if state != "run":
        bad = max(bad, 1)
    passed, failed = passed + good, failed + bad
    if bad:
        names.append(name)
if status != 0 and failed == 0:
    failed = 1
    names.append(f"ctest itself (exit {status})")
print()
if neither:
    print("not run here: " + ", ".join(neither))
if names:
    print("failed in: " + ", ".join(names))
print(f"{passed} passed, {failed} failed")
sys.exit(0 if passed and not failed else 1)
COUNT
