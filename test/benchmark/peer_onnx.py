#===- peer_onnx.py - inference on ONNX Runtime or OpenVINO, from one ONNX file -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Modes: onnxruntime, its processor's provider with all graph optimizations; openvino, its processor's plugin for one
request at a time. Both compute in f32."""

import os
import time

from timing import arguments, emit, measure, peak_memory_mb, since_start

a = arguments()

import cases
import data

path = os.path.join(a.onnx, a.case + ".onnx")
_, batch = cases.network_of(a.case)
if a.mode == "onnxruntime":
    import onnxruntime

    import_s, version = since_start(), onnxruntime.__version__
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = a.threads, 1
    options.log_severity_level = 3
    x = data.images(batch)
    begin = time.perf_counter()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    compile_s = time.perf_counter() - begin
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x))
    binding.bind_output("y", "cpu")
    one = lambda: session.run_with_iobinding(binding)
    result = lambda: binding.copy_outputs_to_cpu()[0]
elif a.mode == "openvino":
    import openvino

    import_s, version = since_start(), openvino.__version__.split("-")[0]
    x = data.images(batch)
    settings = {
        "INFERENCE_NUM_THREADS": a.threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,  # run.py says which processors there are
    }
    begin = time.perf_counter()
    core = openvino.Core()
    request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()
    compile_s = time.perf_counter() - begin
    request.set_input_tensor(openvino.Tensor(x))
    one = request.infer
    result = lambda: request.get_output_tensor().data
else:
    raise SystemExit(f"peer_onnx: no mode {a.mode}")
one()
first_result_s = since_start()
output = result().copy()


def run(n):
    for _ in range(n):
        one()


emit(
    peer=a.mode,
    mode="",
    case=a.case,
    threads=a.threads,
    check=data.tensor_check(output),
    output=data.save_output(output, a),
    import_s=import_s,
    compile_s=round(compile_s, 3),
    first_result_s=first_result_s,
    version=version,
    **({} if a.check_only else measure(run)),
    rss_mb=peak_memory_mb(),
)
