#===- data.py - initial values and data of the cases -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
import numpy as np


def make(name):
    """-> (weights by name, [out, in] as PyTorch has them; x; y)"""
    random = np.random.default_rng(0)

    def normal(*shape, scale=1.0):
        return (random.standard_normal(shape) * scale).astype(np.float32)

    def linear(cout, cin):
        return normal(cout, cin, scale=(1.0 / cin) ** 0.5)

    def zeros(*shape):
        return np.zeros(shape, np.float32)

    if name[0] == "A":
        outputs, scale = (10, 1.0) if name.startswith("A1") else (1000, 0.1)
        weights = {"w1": normal(100, 1000, scale=scale), "w2": normal(outputs, 100, scale=scale)}
        return weights, normal(64, 1000), normal(64, outputs)
    if name == "B":
        weights = {
            "w1": linear(512, 784),
            "b1": zeros(512),
            "w2": linear(512, 512),
            "b2": zeros(512),
            "w3": linear(10, 512),
            "b3": zeros(10),
        }
        return weights, normal(128, 784), random.integers(0, 10, 128).astype(np.int32)
    raise KeyError(name)


def gemm_operands(size):
    m, k, n = size
    random = np.random.default_rng(0)
    return random.standard_normal((m, k)).astype(np.float32), random.standard_normal((k, n)).astype(np.float32)


def gemm_check(product):
    """One number that a wrong product would not have."""
    product = np.asarray(product, np.float64)
    signs = np.cos(np.arange(product.size)).reshape(product.shape)
    return float(np.sqrt(np.mean((product + signs) ** 2)))


def in_out(weights):
    """PyTorch's [out, in] matrices as [in, out], which is how dlc and JAX have them."""
    return {name: np.ascontiguousarray(value.T) if value.ndim == 2 else value for name, value in weights.items()}
