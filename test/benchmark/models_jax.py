#===- models_jax.py - the cases as pure JAX functions -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
import cases
import data
import jax
import jax.numpy as jnp
import numpy as np


def cross_entropy(scores, label):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(scores, -1), label[..., None], -1))


def loss_function(name):
    """-> loss(weights, x, y)"""
    relu = jax.nn.relu
    if name[0] == "A":
        return lambda p, x, y: jnp.square(relu(x @ p["w1"]) @ p["w2"] - y).sum()
    if name == "B":
        hidden = lambda p, x: relu(relu(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"])
        return lambda p, x, y: cross_entropy(hidden(p, x) @ p["w3"] + p["b3"], y)
    raise KeyError(name)


def make_step(name):
    """-> step(weights, m, v, t, x, y) -> (weights, m, v, t, loss)"""
    case = cases.CASES[name]
    value_and_grad = jax.value_and_grad(loss_function(name))
    each = jax.tree_util.tree_map

    def step(p, m, v, t, x, y):
        loss, g = value_and_grad(p, x, y)
        if case.optimizer == "sgd":
            return each(lambda w, dw: w - case.lr * dw, p, g), m, v, t, loss
        t = t + 1
        c1, c2 = 1 - 0.9**t, jnp.sqrt(1 - 0.999**t)
        m = each(lambda s, dw: 0.9 * s + 0.1 * dw, m, g)
        v = each(lambda s, dw: 0.999 * s + 0.001 * dw * dw, v, g)
        p = each(lambda w, s, q: w - case.lr / c1 * s / (jnp.sqrt(q) / c2 + 1e-8), p, m, v)
        return p, m, v, t, loss

    return step


def state(name):
    """-> [weights, m, v, t, x, y]"""
    weights, x, y = data.make(name)
    weights = data.in_out(weights)
    slots = lambda: (
        {key: np.zeros_like(w) for key, w in weights.items()} if cases.CASES[name].optimizer != "sgd" else {}
    )
    return [weights, slots(), slots(), np.float32(0), x, y]
