#===- models_jax.py - the cases as pure JAX functions -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Images have their channels last, kernels are [height, width, in, out]: what XLA likes best on a processor."""

import cases
import data
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def cross_entropy(scores, label):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(scores, -1), label[..., None], -1))


def convolution(x, w, stride=1, padding=0):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, w, (stride, stride), [(padding, padding)] * 2, dimension_numbers=numbers)


def max_pool(x, kernel, stride, padding=0):
    sides = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, kernel, kernel, 1), (1, stride, stride, 1), sides)


def layer_norm(x, weight, bias):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(jnp.square(x - mean).mean(-1, keepdims=True) + 1e-5) * weight + bias


def lenet(p, x, y):
    relu = jax.nn.relu
    x = x.reshape(-1, 28, 28, 1)
    x = max_pool(relu(convolution(x, p["c1"], 1, 2) + p["cb1"]), 2, 2)
    x = max_pool(relu(convolution(x, p["c2"]) + p["cb2"]), 2, 2)
    x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)  # PyTorch's order
    x = relu(relu(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"])
    return cross_entropy(x @ p["w3"] + p["b3"], y)


def resnet18(p, x, y):
    """-> loss, the batch's (mean, variance) of each batch norm"""
    found = {}

    def bn(at, x):
        mean = x.mean((0, 1, 2))
        variance = jnp.square(x).mean((0, 1, 2)) - mean * mean
        count = x.size // x.shape[-1]
        found[at] = mean, variance * (count / (count - 1))
        return (x - mean) * (lax.rsqrt(variance + 1e-5) * p[at + ".weight"]) + p[at + ".bias"]

    relu = jax.nn.relu
    x = max_pool(relu(bn("bn1", convolution(x, p["conv1.weight"], 2, 3))), 3, 2, 1)
    for at, cin, cout, stride in data.resnet18_blocks():
        skip = x
        if stride != 1 or cin != cout:
            skip = bn(at + ".downsample.1", convolution(x, p[at + ".downsample.0.weight"], stride))
        x = relu(bn(at + ".bn1", convolution(x, p[at + ".conv1.weight"], stride, 1)))
        x = relu(bn(at + ".bn2", convolution(x, p[at + ".conv2.weight"], 1, 1)) + skip)
    return cross_entropy(x.mean((1, 2)) @ p["fc.weight"] + p["fc.bias"], y), found


def gpt(p, x, y):
    d, heads = data.GPT["width"], data.GPT["heads"]
    batch, tokens = x.shape
    h = p["wte"][x] + p["wpe"]
    mask = jnp.tril(jnp.ones((tokens, tokens), bool))
    for i in range(data.GPT["layers"]):
        w = lambda name: p[f"{i}.{name}"]
        u = layer_norm(h, w("ln1w"), w("ln1b")) @ w("qkvw") + w("qkvb")
        q, k, v = (t.reshape(batch, tokens, heads, d // heads) for t in jnp.split(u, 3, -1))
        scores = jnp.where(mask, jnp.einsum("bthc,bshc->bhts", q, k) * (d // heads) ** -0.5, -jnp.inf)
        o = jnp.einsum("bhts,bshc->bthc", jax.nn.softmax(scores, -1), v).reshape(batch, tokens, d)
        h = h + o @ w("ow") + w("ob")
        u = layer_norm(h, w("ln2w"), w("ln2b")) @ w("fw") + w("fb")
        h = h + jax.nn.gelu(u, approximate=False) @ w("pw") + w("pb")
    return cross_entropy(layer_norm(h, p["lnfw"], p["lnfb"]) @ p["head"], y)


def char_lstm(p, x, y):
    width = data.LSTM["width"]
    # The products with all inputs come as one before the loop.
    given = p["embed"][x] @ p["gates"][:width] + p["gates_bias"]
    zero = jnp.zeros((x.shape[0], width), jnp.float32)

    def cell(carried, given):
        h, c = carried
        i, f, g, o = jnp.split(given + h @ p["gates"][width:], 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    _, states = lax.scan(cell, (zero, zero), given.transpose(1, 0, 2))
    return cross_entropy(states.transpose(1, 0, 2) @ p["head"] + p["head_bias"], y)


def loss_function(name):
    """-> loss(weights, x, y), which gives the loss and what batch norm found of the batch"""
    relu = jax.nn.relu
    if name[0] == "A":
        loss = lambda p, x, y: jnp.square(relu(x @ p["w1"]) @ p["w2"] - y).sum()
    elif name == "B":
        hidden = lambda p, x: relu(relu(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"])
        loss = lambda p, x, y: cross_entropy(hidden(p, x) @ p["w3"] + p["b3"], y)
    elif name == "D":
        return resnet18
    else:
        loss = dict(C=lenet, E=gpt, G=char_lstm)[name]
    return lambda p, x, y: (loss(p, x, y), {})


def make_step(name):
    """-> step(weights, m, v, t, running, x, y) -> (weights, m, v, t, running, loss)"""
    case = cases.CASES[name]
    value_and_grad = jax.value_and_grad(loss_function(name), has_aux=True)
    each = jax.tree_util.tree_map

    def step(p, m, v, t, running, x, y):
        (loss, found), g = value_and_grad(p, x, y)
        running = {at: tuple(0.9 * s + 0.1 * f for s, f in zip(running[at], found[at])) for at in running}
        if case.clip:
            norm = jnp.sqrt(sum(jnp.square(dw).sum() for dw in g.values()))
            scale = jnp.minimum(1.0, case.clip / (norm + 1e-6))
            g = each(lambda dw: dw * scale, g)
        if case.optimizer == "sgd":
            if case.decay:
                g = each(lambda w, dw: dw + case.decay * w, p, g)
            if case.momentum:
                g = m = each(lambda s, dw: case.momentum * s + dw, m, g)
            return each(lambda w, dw: w - case.lr * dw, p, g), m, v, t, running, loss
        t = t + 1
        c1, c2 = 1 - 0.9**t, jnp.sqrt(1 - 0.999**t)
        m = each(lambda s, dw: 0.9 * s + 0.1 * dw, m, g)
        v = each(lambda s, dw: 0.999 * s + 0.001 * dw * dw, v, g)
        kept = 1 - case.lr * case.decay if case.optimizer == "adamw" else 1.0
        p = each(lambda w, s, q: kept * w - case.lr / c1 * s / (jnp.sqrt(q) / c2 + 1e-8), p, m, v)
        return p, m, v, t, running, loss

    return step


def channels_last(weights):
    """Kernels [out, in, height, width] as [height, width, in, out]; matrices [out, in] as [in, out]."""
    return {
        name: np.ascontiguousarray(value.transpose(2, 3, 1, 0)) if value.ndim == 4 else value
        for name, value in data.in_out(weights).items()
    }


def state(name):
    """-> [weights, m, v, t, running means and variances, x, y]"""
    case = cases.CASES[name]
    weights, x, y = data.make(name)
    running = {
        at[:-7]: (np.zeros_like(w), np.ones_like(w))
        for at, w in weights.items()
        if name == "D" and w.ndim == 1 and at.endswith(".weight")
    }
    weights = channels_last(weights)
    if x.ndim == 4:
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    slots = lambda wanted: {key: np.zeros_like(w) for key, w in weights.items()} if wanted else {}
    adaptive = case.optimizer != "sgd"
    return [weights, slots(adaptive or case.momentum), slots(adaptive), np.float32(0), running, x, y]
