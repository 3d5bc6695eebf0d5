#===- cases.py - the benchmark's cases -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Every peer starts a case from the same NumPy weights and data, so `check` (the loss that the CHECK_STEPS-th step
returns, or a figure of the product) must agree between peers.

A new case is an entry of CASES, a branch of data.make(), of models_jax.loss_function() and of peer_torch.py, and a
program in programs/ with its entry of PROGRAMS in peer_dlc.py.
"""

from dataclasses import dataclass

CHECK_STEPS = 5
GEMM_SIZES = [(1024, 1024, 1024), (2048, 2048, 2048), (64, 1000, 100)]  # M, K, N
CUDA_GEMM_SIZES = [(1024, 1024, 1024), (2048, 2048, 2048), (4096, 4096, 4096)]


def gemm_sizes(options):
    return options.sizes or (CUDA_GEMM_SIZES if options.device == "cuda" else GEMM_SIZES)


@dataclass(frozen=True)
class Case:
    words: str
    optimizer: str = ""  # sgd | adam
    lr: float = 0.0


CASES = {
    "F": Case("matrix products in f32"),
    "A1_sgd": Case("two layers 1000-100-10, relu, no bias, batch 64, sum of squares, SGD 1e-6", "sgd", 1e-6),
    "A1_adam": Case("two layers 1000-100-10, relu, no bias, batch 64, sum of squares, Adam 1e-4", "adam", 1e-4),
    "A2_sgd": Case("two layers 1000-100-1000, relu, no bias, batch 64, sum of squares, SGD 1e-6", "sgd", 1e-6),
    "A2_adam": Case("two layers 1000-100-1000, relu, no bias, batch 64, sum of squares, Adam 1e-4", "adam", 1e-4),
    "B": Case("MLP 784-512-512-10, relu, batch 128, cross entropy, Adam 1e-3", "adam", 1e-3),
}
