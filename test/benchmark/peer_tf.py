#===- peer_tf.py - training on TensorFlow -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Modes: graph, a tf.function; xla, the same compiled by XLA. Images have their channels last. The updates are written
out, on variables: forward, backward and update are one graph."""

import os
import time

from timing import arguments, emit, measure, peak_memory_mb, since_start

a = arguments()
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import cases
import data
import numpy as np
import tensorflow as tf

import_s = since_start()
tf.config.threading.set_intra_op_parallelism_threads(a.threads)
tf.config.threading.set_inter_op_parallelism_threads(1)
case = cases.CASES[a.case]
nn, relu = tf.nn, tf.nn.relu
weights, x, y = data.make(a.case)
p = {}
for name, value in data.in_out(weights).items():
    value = np.ascontiguousarray(value.transpose(2, 3, 1, 0)) if value.ndim == 4 else value
    p[name] = tf.Variable(value, name=name.replace(".", "_"))
variables = list(p.values())
x, y = tf.constant(np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if x.ndim == 4 else x), tf.constant(y)


def cross_entropy(scores):
    return tf.reduce_mean(nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=scores))


def matmul(x, w):
    """Of the last axis of any tensor: one product."""
    return tf.reshape(tf.reshape(x, (-1, x.shape[-1])) @ w, (*x.shape[:-1], w.shape[-1]))


def two_layer():
    return tf.reduce_sum(tf.square(relu(x @ p["w1"]) @ p["w2"] - y))


def mlp():
    h = relu(relu(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"])
    return cross_entropy(h @ p["w3"] + p["b3"])


def lenet():
    h = tf.reshape(x, (-1, 28, 28, 1))
    h = nn.max_pool2d(relu(nn.conv2d(h, p["c1"], 1, "SAME") + p["cb1"]), 2, 2, "VALID")
    h = nn.max_pool2d(relu(nn.conv2d(h, p["c2"], 1, "VALID") + p["cb2"]), 2, 2, "VALID")
    h = tf.reshape(tf.transpose(h, (0, 3, 1, 2)), (-1, 400))  # PyTorch's order
    h = relu(relu(h @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"])
    return cross_entropy(h @ p["w3"] + p["b3"])


running = {
    at[:-7]: (tf.Variable(tf.zeros(w.shape)), tf.Variable(tf.ones(w.shape)))
    for at, w in weights.items()
    if a.case == "D" and w.ndim == 1 and at.endswith(".weight")
}


def resnet18():
    def padded(x, by):
        return tf.pad(x, [[0, 0], [by, by], [by, by], [0, 0]]) if by else x

    def convolution(x, at, stride=1, padding=0):
        return nn.conv2d(padded(x, padding), p[at + ".weight"], stride, "VALID")

    def bn(at, x):
        normal = tf.compat.v1.nn.fused_batch_norm
        result, mean, variance, *_ = normal(x, p[at + ".weight"], p[at + ".bias"], epsilon=1e-5, is_training=True)
        for state, found in zip(running[at], (mean, variance)):
            state.assign(0.9 * state + 0.1 * found)
        return result

    h = relu(bn("bn1", convolution(x, "conv1", 2, 3)))
    h = nn.max_pool2d(padded(h, 1), 3, 2, "VALID")
    for at, cin, cout, stride in data.resnet18_blocks():
        skip = h
        if stride != 1 or cin != cout:
            skip = bn(at + ".downsample.1", convolution(h, at + ".downsample.0", stride))
        h = relu(bn(at + ".bn1", convolution(h, at + ".conv1", stride, 1)))
        h = relu(bn(at + ".bn2", convolution(h, at + ".conv2", 1, 1)) + skip)
    return cross_entropy(tf.reduce_mean(h, (1, 2)) @ p["fc.weight"] + p["fc.bias"])


def gpt():
    d, heads, tokens, batch = (data.GPT[name] for name in ("width", "heads", "tokens", "batch"))
    mask = tf.constant(np.where(np.tril(np.ones((tokens, tokens))), 0, -1e30).astype(np.float32))

    def layer_norm(x, w, b):
        mean, variance = nn.moments(x, -1, keepdims=True)
        return (x - mean) * tf.math.rsqrt(variance + 1e-5) * w + b

    h = tf.gather(p["wte"], x) + p["wpe"]
    for i in range(data.GPT["layers"]):
        w = lambda name: p[f"{i}.{name}"]
        u = matmul(layer_norm(h, w("ln1w"), w("ln1b")), w("qkvw")) + w("qkvb")
        parts = [tf.reshape(t, (batch, tokens, heads, d // heads)) for t in tf.split(u, 3, -1)]
        q, k, v = (tf.transpose(t, (0, 2, 1, 3)) for t in parts)
        o = nn.softmax(tf.matmul(q, k, transpose_b=True) * (d // heads) ** -0.5 + mask) @ v
        h = h + matmul(tf.reshape(tf.transpose(o, (0, 2, 1, 3)), (batch, tokens, d)), w("ow")) + w("ob")
        u = matmul(layer_norm(h, w("ln2w"), w("ln2b")), w("fw")) + w("fb")
        h = h + matmul(nn.gelu(u, approximate=False), w("pw")) + w("pb")
    return cross_entropy(matmul(layer_norm(h, p["lnfw"], p["lnfb"]), p["head"]))


def char_lstm():
    width, tokens = data.LSTM["width"], data.LSTM["tokens"]
    given = tf.transpose(matmul(tf.gather(p["embed"], x), p["gates"][:width]) + p["gates_bias"], (1, 0, 2))
    zero = tf.zeros((x.shape[0], width))

    def cell(t, h, c, states):
        i, f, g, o = tf.split(given[t] + h @ p["gates"][width:], 4, -1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        h = tf.sigmoid(o) * tf.tanh(c)
        return t + 1, h, c, states.write(t, h)

    states = tf.TensorArray(tf.float32, tokens, element_shape=zero.shape)
    goes_on = lambda t, *_: t < tokens
    *_, states = tf.while_loop(goes_on, cell, (tf.constant(0), zero, zero, states), maximum_iterations=tokens)
    h = tf.ensure_shape(tf.transpose(states.stack(), (1, 0, 2)), (x.shape[0], tokens, width))
    return cross_entropy(matmul(h, p["head"]) + p["head_bias"])


loss_of = two_layer if a.case[0] == "A" else dict(B=mlp, C=lenet, D=resnet18, E=gpt, G=char_lstm)[a.case]
adaptive = case.optimizer != "sgd"
slots = lambda wanted: [tf.Variable(tf.zeros(w.shape)) for w in variables] if wanted else []
m, v, t = slots(adaptive or case.momentum), slots(adaptive), tf.Variable(0.0)


@tf.function(jit_compile=a.mode == "xla")
def step():
    with tf.GradientTape() as tape:
        loss = loss_of()
    grads = [tf.convert_to_tensor(g) for g in tape.gradient(loss, variables)]  # a table's is one of rows
    if case.clip:
        norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(g)) for g in grads]))
        scale = tf.minimum(1.0, case.clip / (norm + 1e-6))
        grads = [g * scale for g in grads]
    if not adaptive:
        for i, (w, g) in enumerate(zip(variables, grads)):
            g = g + case.decay * w if case.decay else g
            if case.momentum:
                g = case.momentum * m[i] + g
                m[i].assign(g)
            w.assign_sub(case.lr * g)
        return loss
    t.assign_add(1.0)
    c1, c2 = 1 - tf.pow(0.9, t), tf.sqrt(1 - tf.pow(0.999, t))
    for i, (w, g) in enumerate(zip(variables, grads)):
        mean, square = 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g * g
        m[i].assign(mean)
        v[i].assign(square)
        kept = 1 - case.lr * case.decay if case.optimizer == "adamw" else 1.0
        w.assign(kept * w - case.lr / c1 * mean / (tf.sqrt(square) / c2 + 1e-8))
    return loss


begin = time.perf_counter()
loss = float(step())
compile_s, first_result_s = time.perf_counter() - begin, since_start()
for _ in range(cases.CASES[a.case].check_steps - 1):
    loss = float(step())


def run(n):
    for _ in range(n):
        last = step()
    last.numpy()


emit(
    peer="tensorflow",
    mode=a.mode,
    case=a.case,
    threads=a.threads,
    check=loss,
    import_s=import_s,
    compile_s=round(compile_s, 3),
    first_result_s=first_result_s,
    version=tf.__version__,
    **({} if a.check_only else measure(run)),
    rss_mb=peak_memory_mb(),
)
