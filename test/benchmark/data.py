#===- data.py - initial values and data of the cases -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
import os

import networks
import numpy as np

GPT = dict(layers=4, width=256, heads=4, tokens=128, batch=8, vocabulary=256)
LSTM = dict(width=256, tokens=64, batch=32, vocabulary=128)
EMBEDDINGS = ("wte", "wpe", "embed")  # tables: rows are looked up, in every framework


def make(name):
    """-> (weights by name, matrices [out, in] and kernels [out, in, height, width] as PyTorch has them; x; y)"""
    random = np.random.default_rng(0)

    def normal(*shape, scale=1.0):
        return (random.standard_normal(shape) * scale).astype(np.float32)

    def linear(cout, cin):
        return normal(cout, cin, scale=(1.0 / cin) ** 0.5)

    def zeros(*shape):
        return np.zeros(shape, np.float32)

    def ones(*shape):
        return np.ones(shape, np.float32)

    def integers(most, *shape):
        return random.integers(0, most, shape).astype(np.int32)

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
        return weights, normal(128, 784), integers(10, 128)
    if name == "C":
        weights = {
            "c1": normal(6, 1, 5, 5, scale=0.2),
            "cb1": zeros(6),
            "c2": normal(16, 6, 5, 5, scale=0.08),
            "cb2": zeros(16),
            "w1": linear(120, 400),
            "b1": zeros(120),
            "w2": linear(84, 120),
            "b2": zeros(84),
            "w3": linear(10, 84),
            "b3": zeros(10),
        }
        return weights, normal(64, 784), integers(10, 64)
    if name == "D":
        weights = {}

        def conv(at, cout, cin, kernel):
            weights[at + ".weight"] = normal(cout, cin, kernel, kernel, scale=(2.0 / (cout * kernel * kernel)) ** 0.5)

        def bn(at, channels):
            weights.update({at + ".weight": ones(channels), at + ".bias": zeros(channels)})

        conv("conv1", 64, 3, 7)
        bn("bn1", 64)
        for at, cin, cout, stride in resnet18_blocks():
            for i, channels in ((1, cin), (2, cout)):
                conv(f"{at}.conv{i}", cout, channels, 3)
                bn(f"{at}.bn{i}", cout)
            if stride != 1 or cin != cout:
                conv(f"{at}.downsample.0", cout, cin, 1)
                bn(f"{at}.downsample.1", cout)
        weights.update({"fc.weight": linear(1000, 512), "fc.bias": zeros(1000)})
        return weights, normal(16, 3, 64, 64), integers(1000, 16)
    if name == "E":
        d, vocabulary = GPT["width"], GPT["vocabulary"]
        weights = {"wte": normal(vocabulary, d, scale=0.02), "wpe": normal(GPT["tokens"], d, scale=0.02)}
        for i in range(GPT["layers"]):
            weights.update({f"{i}.ln1w": ones(d), f"{i}.ln1b": zeros(d)})
            weights.update({f"{i}.qkvw": normal(3 * d, d, scale=0.02), f"{i}.qkvb": zeros(3 * d)})
            weights.update({f"{i}.ow": normal(d, d, scale=0.02), f"{i}.ob": zeros(d)})
            weights.update({f"{i}.ln2w": ones(d), f"{i}.ln2b": zeros(d)})
            weights.update({f"{i}.fw": normal(4 * d, d, scale=0.02), f"{i}.fb": zeros(4 * d)})
            weights.update({f"{i}.pw": normal(d, 4 * d, scale=0.02), f"{i}.pb": zeros(d)})
        weights.update({"lnfw": ones(d), "lnfb": zeros(d), "head": normal(vocabulary, d, scale=0.02)})
        shape = GPT["batch"], GPT["tokens"]
        return weights, integers(vocabulary, *shape), integers(vocabulary, *shape)
    if name == "G":
        h, vocabulary = LSTM["width"], LSTM["vocabulary"]
        weights = {
            "embed": normal(vocabulary, h),
            "gates": normal(4 * h, 2 * h, scale=0.06),  # of the input, then of the state; i, f, g, o
            "gates_bias": zeros(4 * h),
            "head": linear(vocabulary, h),
            "head_bias": zeros(vocabulary),
        }
        shape = LSTM["batch"], LSTM["tokens"]
        return weights, integers(vocabulary, *shape), integers(vocabulary, *shape)
    raise KeyError(name)


def resnet18_blocks():
    """-> [(torchvision's name, channels in, channels out, stride)]"""
    found, cin = [], 64
    for stage in range(4):
        cout = 64 << stage
        for i in range(2):
            found.append((f"layer{stage + 1}.{i}", cin, cout, 2 if i == 0 and stage > 0 else 1))
            cin = cout
    return found


def network(name):
    """-> weights by the names of their variables, matrices [in, out] as dlc has them"""
    random, weights = np.random.default_rng(0), {}

    def normal(*shape, scale, mean=0.0):
        values = random.standard_normal(shape, np.float32)
        values *= np.float32(scale)
        return values + np.float32(mean) if mean else values

    def visit(layer, channels, size):
        at = layer.get("name")
        if layer["kind"] == "conv":
            fan = channels * layer["kernel"] ** 2
            shape = layer["channels"], channels, layer["kernel"], layer["kernel"]
            weights[at + ".weight"] = normal(*shape, scale=(2.0 / fan) ** 0.5)
            if layer["bias"]:
                weights[at + ".bias"] = normal(layer["channels"], scale=0.1)
        elif layer["kind"] == "bn":
            weights[at + ".weight"] = normal(channels, scale=0.1, mean=0.7)
            weights[at + ".bias"] = normal(channels, scale=0.1)
            weights[at + ".running_mean"] = normal(channels, scale=0.1)
            weights[at + ".running_var"] = random.uniform(0.5, 1.5, channels).astype(np.float32)
        elif layer["kind"] == "linear":
            weights[at + ".weight"] = normal(channels, layer["features"], scale=(1.0 / channels) ** 0.5)
            weights[at + ".bias"] = normal(layer["features"], scale=0.1)

    networks.walk(networks.MAKE[name](), 3, 224, visit)
    return weights


def images(batch):
    return np.random.default_rng(1).standard_normal((batch, 3, 224, 224), np.float32)


def gemm_operands(size):
    m, k, n = size
    random = np.random.default_rng(0)
    return random.standard_normal((m, k)).astype(np.float32), random.standard_normal((k, n)).astype(np.float32)


def tensor_check(tensor):
    """One number that a wrong tensor would not have."""
    tensor = np.asarray(tensor, np.float64)
    scale = float(np.sqrt(np.mean(tensor**2)))
    signs = scale * np.cos(np.arange(tensor.size)).reshape(tensor.shape)
    return float(np.sqrt(np.mean((tensor + signs) ** 2)))


def save_output(output, options):
    """What a network gives, as f32 in row-major order, for run.py to compare; -> the file's path"""
    if not options.outputs:
        return ""
    path = os.path.join(options.outputs, f"{options.case}-{options.mode}-{options.threads}.f32")
    np.ascontiguousarray(output, np.float32).tofile(path)
    return path


def in_out(weights):
    """PyTorch's [out, in] matrices as [in, out], which is how dlc and JAX have them; tables and kernels stay."""
    return {
        name: np.ascontiguousarray(value.T) if value.ndim == 2 and name not in EMBEDDINGS else value
        for name, value in weights.items()
    }
