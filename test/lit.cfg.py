# lit's configuration for all tests of tools. DLC_CHECK_IR_ROUNDTRIP=1 makes every run of dl-opt also check that what it reads
# prints and parses, as text and as bytecode, to the same program.
import os

import lit.formats

config.name = "dlc"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir", ".test"]
config.excludes = ["Inputs"]

config.environment["PATH"] = os.pathsep.join([config.dlc_tools, config.llvm_tools, config.environment["PATH"]])
# what a test reads and prints does not depend on who runs it
config.environment["LC_ALL"] = "C.UTF-8"

if os.environ.get("DLC_CHECK_IR_ROUNDTRIP") == "1":
    config.substitutions.append((r"(?<![\w/.-])dl-opt(?![\w/.-])", "dl-opt --verify-roundtrip"))

# avx512: the machine runs code for x86-64-v4
try:
    with open("/proc/cpuinfo") as cpuinfo:
        flags = next((line.split() for line in cpuinfo if line.startswith("flags")), [])
except OSError:
    flags = []
if all("avx512" + part in flags for part in ("f", "bw", "cd", "dq", "vl")):
    config.available_features.add("avx512")

# nvrtc: the library that the environment names, or that the build found
if "DLC_NVRTC" in os.environ:
    config.environment["DLC_NVRTC"] = os.environ["DLC_NVRTC"]
if os.environ.get("DLC_NVRTC", config.nvrtc):
    config.available_features.add("nvrtc")
