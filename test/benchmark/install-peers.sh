#!/usr/bin/env bash
#===- install-peers.sh - the frameworks that dlc is measured against ---===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
# Installs NumPy, JAX, PyTorch, ONNX Runtime and OpenVINO into a virtual environment under $PEERS (default ~/.cache/dlc-peers), and TensorFlow, which needs other versions
# of what it needs, into another beside it: about 5 GB, some minutes.
#
# torch comes as its CUDA build only. It is installed without its CUDA packages, on top of the CUDA 13 toolkit ($CUDA_HOME, or found beside
# nvcc) and of four small packages without which it can't be imported; no GPU is needed.
set -euo pipefail
PEERS=${PEERS:-$HOME/.cache/dlc-peers}
mkdir -p "$PEERS"
pip="$PEERS/venv/bin/pip"
[ -x "$pip" ] || python3 -m venv "$PEERS/venv"
"$pip" -q install numpy==2.4.6 jax==0.10.2 jaxlib==0.10.2 sympy networkx jinja2 filelock typing-extensions fsspec setuptools
"$pip" -q install numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1
"$pip" -q install --no-deps torch==2.15.0 nvidia-cufile==1.20.0.107 nvidia-cusparselt-cu13==0.8.1 nvidia-nvshmem-cu13==3.7.2 nvidia-nccl-cu13==2.30.7
[ -x "$PEERS/tensorflow/bin/pip" ] || python3 -m venv "$PEERS/tensorflow"
"$PEERS/tensorflow/bin/pip" -q install tensorflow-cpu==2.21.0
