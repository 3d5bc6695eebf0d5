#!/usr/bin/env python3
#===- make_reference.py - PyTorch's figures for the reference cases -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Writes figures.npz: what PyTorch computes for the cases of suite.py, in f64 (and some programs in f32 too).

Run once, wherever torch is; the tests need only the figures:  python3 make_reference.py
Each class below restates one program of cases/ (or of examples/) with torch's own layers, losses and optimizers.
"""

import sys

import numpy as np
import torch
import torch.nn.functional as F
import torch.optim.lr_scheduler as schedulers

import suite


class Model:
    """A program: methods are its functions, `v` holds its variables in the program's layout."""

    def __init__(self, initial, dtype):
        self.dtype = dtype
        self.v = {}
        for name, value in initial.items():
            self.v[name] = torch.tensor(value, dtype=dtype).requires_grad_(True)
        self.prepare()

    def prepare(self):
        pass

    def variables(self):
        return self.v


def gradients(value, wanted):
    return torch.autograd.grad(value, wanted, materialize_grads=True)


# ---- the three programs ----


class TwoLayerGrad(Model):
    def step(self, x, y, lr=None):
        w1, w2 = self.v["w1"], self.v["w2"]
        loss = ((torch.relu(x @ w1) @ w2 - y) ** 2).sum(1).mean()
        g1, g2 = gradients(loss, (w1, w2))
        rate = 1e-5 if lr is None else lr
        with torch.no_grad():
            w1 -= rate * g1
            w2 -= rate * g2
        return loss

    step_lr = step


class Trained(Model):
    """What the layers `net.0`, `net.2`, … (weights [in, out]) and one or more torch optimizers make."""

    optimizer = None

    def prepare(self):
        self.steps = 0
        if self.optimizer is not None:
            self.torch_optimizer = self.optimizer(list(self.v.values()))

    def linear(self, i, x):
        return F.linear(x, self.v[f"net.{i}.weight"].T, self.v[f"net.{i}.bias"])

    def train(self, loss):
        self.torch_optimizer.zero_grad()
        loss.backward()
        self.torch_optimizer.step()
        self.steps += 1
        return loss.detach()

    def variables(self):
        out = dict(self.v)
        for name, value in self.v.items():
            state = self.torch_optimizer.state.get(value, {}) if self.torch_optimizer else {}
            if "exp_avg_sq" in state:
                out[f"step.m.{name}"] = state["exp_avg"]
                out[f"step.v.{name}"] = state["exp_avg_sq"]
        out["step.t"] = torch.tensor(self.steps)
        return out


class TwoLayer(Trained):
    def optimizer(self, parameters):
        return torch.optim.Adam(parameters, lr=1e-4)

    def predict(self, x):
        return self.linear(2, torch.relu(self.linear(0, x)))

    def loss(self, x, y):
        return ((self.predict(x) - y) ** 2).sum()

    def step(self, x, y):
        return self.train(self.loss(x, y))


class Mlp(Trained):
    def optimizer(self, parameters):
        return torch.optim.Adam(parameters, lr=1e-3)

    def scores(self, x):
        return self.linear(5, torch.relu(self.linear(3, torch.relu(self.linear(0, x)))))

    def predict(self, x):
        return torch.softmax(self.scores(x), 1)

    def loss(self, x, label):
        return F.cross_entropy(self.scores(x), label.long())

    def accuracy(self, x, label):
        return (self.scores(x).argmax(1) == label).to(self.dtype).mean()

    def step(self, x, label):
        return self.train(self.loss(x, label))


class LeNet(Trained):
    def optimizer(self, parameters):
        return torch.optim.SGD(parameters, lr=0.02, momentum=0.9)

    def convolved(self, i, x, padding=0):
        return F.max_pool2d(torch.relu(F.conv2d(x, self.v[f"net.{i}.weight"], self.v[f"net.{i}.bias"], padding=padding)), 2)

    def scores(self, x):
        features = self.convolved(3, self.convolved(0, x.reshape(-1, 1, 28, 28), 2)).flatten(1)
        return self.linear(11, torch.relu(self.linear(9, torch.relu(self.linear(7, features)))))

    predict, loss, accuracy, step = Mlp.predict, Mlp.loss, Mlp.accuracy, Mlp.step


class ResidualNet(Trained):
    def optimizer(self, parameters):
        return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-4)

    def prepare(self):
        super().prepare()
        self.running = {}
        for name, value in self.v.items():
            # A layer whose scale is kept with its bias and whose weight has one axis is a normalization.
            if name.endswith(".weight") and value.dim() == 1:
                base = name.removesuffix("weight")
                self.running[base + "running_mean"] = torch.zeros_like(value)
                self.running[base + "running_var"] = torch.ones_like(value)

    def conv(self, name, x, **settings):
        return F.conv2d(x, self.v[f"net.{name}.weight"], **settings)

    def norm(self, name, x, training):
        mean, var = (self.running[f"net.{name}.running_{part}"] for part in ("mean", "var"))
        return F.batch_norm(x, mean, var, self.v[f"net.{name}.weight"], self.v[f"net.{name}.bias"], training=training)

    def block(self, name, x, training, stride=1):
        y = torch.relu(self.norm(f"{name}.bn1", self.conv(f"{name}.conv1", x, stride=stride, padding=1), training))
        y = self.norm(f"{name}.bn2", self.conv(f"{name}.conv2", y, padding=1), training)
        if f"net.{name}.skip.0.weight" in self.v:
            x = self.norm(f"{name}.skip.1", self.conv(f"{name}.skip.0", x, stride=stride), training)
        return torch.relu(y + x)

    def scores(self, x, training=False):
        y = torch.relu(self.norm("1", self.conv("0", x, stride=2, padding=3), training))
        y = F.max_pool2d(y, 3, stride=2, padding=1)
        y = self.block("5", self.block("4", y, training), training, stride=2)
        return self.linear(7, y.mean((2, 3)))

    predict = Mlp.predict

    def step(self, x, label):
        return self.train(F.cross_entropy(self.scores(x, training=True), label.long()))

    def variables(self):
        return {**self.v, **self.running}


class CharLstm(Trained):
    def optimizer(self, parameters):
        return torch.optim.Adam(parameters, lr=2e-3)

    def logits(self, tokens):
        x = F.embedding(tokens, self.v["embed.weight"])
        h = c = torch.zeros_like(x[:, 0])
        out = []
        for t in range(x.shape[1]):
            gates = F.linear(torch.cat([x[:, t], h], 1), self.v["gates.weight"].T, self.v["gates.bias"])
            i, f, g, o = gates.chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            out.append(h)
        return F.linear(torch.stack(out, 1), self.v["head.weight"].T, self.v["head.bias"])

    def step(self, tokens, target):
        self.torch_optimizer.zero_grad()
        loss = F.cross_entropy(self.logits(tokens).flatten(0, 1), target.flatten().long())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self.v.values()), 1.0)
        self.torch_optimizer.step()
        self.steps += 1
        return loss.detach()


class ResNet18(ResidualNet):
    def optimizer(self, parameters):
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-4)

    def prepare(self):
        for name, value in list(self.v.items()):
            # The bias of a normalization begins with 0 and is not among the initial values.
            if value.dim() == 1 and name.endswith(".weight"):
                self.v[name.removesuffix("weight") + "bias"] = torch.zeros_like(value).requires_grad_(True)
        super().prepare()

    def scores(self, x, training=False):
        y = torch.relu(self.norm("1", self.conv("0", x, stride=2, padding=3), training))
        y = F.max_pool2d(y, 3, stride=2, padding=1)
        for i in range(4, 12):
            y = self.block(str(i), y, training, stride=2 if i in (6, 8, 10) else 1)
        return self.linear(13, y.mean((2, 3)))


# ---- layers ----


class Linear(Model):
    def forward(self, x):
        dense = F.linear(x, self.v["dense.weight"].T, self.v["dense.bias"])
        return F.linear(dense, self.v["plain.weight"].T)

    def gradients(self, x, dy):
        wanted = (x, self.v["dense.weight"], self.v["dense.bias"], self.v["plain.weight"])
        return gradients((self.forward(x) * dy).sum(), wanted)


class LayerNorm(Model):
    def forward(self, x):
        return F.layer_norm(x, (7,), self.v["norm.weight"], self.v["norm.bias"])

    def gradients(self, x, dy):
        return gradients((self.forward(x) * dy).sum(), (x, self.v["norm.weight"], self.v["norm.bias"]))


class GroupNorm(LayerNorm):
    def forward(self, x):
        return F.group_norm(x, 2, self.v["norm.weight"], self.v["norm.bias"])


class BatchNorm(LayerNorm):
    def prepare(self):
        self.layer = torch.nn.BatchNorm1d(5, dtype=self.dtype)
        self.layer.weight = torch.nn.Parameter(self.v["norm.weight"].detach())
        self.layer.bias = torch.nn.Parameter(self.v["norm.bias"].detach())

    def evaluate(self, x):
        return self.layer.eval()(x)

    def forward(self, x):
        return self.layer.train()(x)

    def gradients(self, x, dy):
        return gradients((self.forward(x) * dy).sum(), (x, self.layer.weight, self.layer.bias))

    def variables(self):
        return {"norm.running_mean": self.layer.running_mean, "norm.running_var": self.layer.running_var}


class Gpt(Trained):
    heads, depth = 3, 2

    def optimizer(self, parameters):
        return torch.optim.AdamW(parameters, lr=3e-4, weight_decay=0.1)

    def dense(self, name, x):
        return F.linear(x, self.v[f"{name}.weight"].T, self.v.get(f"{name}.bias"))

    def norm(self, name, x):
        return F.layer_norm(x, x.shape[-1:], self.v[f"{name}.weight"], self.v[f"{name}.bias"])

    def logits(self, tokens):
        n, t = tokens.shape
        x = self.v["token_embedding.weight"][tokens.long()] + self.v["position_embedding.weight"]
        for i in range(self.depth):
            block = f"blocks.{i}"
            qkv = self.dense(f"{block}.attn.qkv", self.norm(f"{block}.ln1", x)).reshape(n, t, 3 * self.heads, -1)
            q, k, v = (part.transpose(1, 2) for part in torch.chunk(qkv, 3, dim=2))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(n, t, -1)
            x = x + self.dense(f"{block}.attn.proj", y)
            x = x + self.dense(f"{block}.mlp.2", F.gelu(self.dense(f"{block}.mlp.0", self.norm(f"{block}.ln2", x))))
        return self.dense("head", self.norm("ln", x))

    def loss(self, tokens, target):
        return F.cross_entropy(self.logits(tokens).transpose(1, 2), target.long())

    def step(self, tokens, target):
        return self.train(self.loss(tokens, target))


class Attention(Model):
    def attend(self, q, k, v, mask=None, **settings):
        """[N, T, heads, d], where torch has the heads ahead."""
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **settings).transpose(1, 2)

    def forward(self, q, k, v):
        return self.attend(q, k, v)

    def gradients(self, q, k, v, mask, dy):
        y = self.attend(q, k, v, mask, scale=0.7)
        return (y, *gradients((y * dy).sum(), (q, k, v, mask)))

    def causal(self, x, dy):
        y = self.attend(*torch.chunk(x, 3, dim=2), is_causal=True)
        return (y, *gradients((y * dy).sum(), (x,)))

    def masked(self, q, k, mask, dy):
        size = q.shape[1]
        y = self.attend(q, k, k, mask & torch.ones(size, size, dtype=torch.bool).tril())
        return (y, *gradients((y * dy).sum(), (q, k)))

    def second(self, q, k, v, dy):
        # Written out: torch's own has no second derivative on the CPU.
        heads = [x.transpose(1, 2) for x in (q, k, v)]
        scores = heads[0] @ heads[1].transpose(2, 3) / q.shape[-1] ** 0.5
        size = q.shape[1]
        scores = scores.masked_fill(~torch.ones(size, size, dtype=torch.bool).tril(), -torch.inf)
        y = (torch.softmax(scores, -1) @ heads[2]).transpose(1, 2)
        first = torch.autograd.grad((y * dy).sum(), (q, k, v), create_graph=True)
        return gradients(sum((g * g).sum() for g in first), (q, k, v))


class Recurrent(Model):
    def prepare(self):
        self.gru = torch.nn.GRUCell(3, 4, dtype=self.dtype)
        self.lstm = torch.nn.LSTMCell(3, 4, dtype=self.dtype)
        v = {name: value.detach() for name, value in self.v.items()}
        with torch.no_grad():
            self.gru.weight_ih.copy_(v["gru.weight_x"].T)
            self.gru.weight_hh.copy_(v["gru.weight_h"].T)
            self.gru.bias_ih.copy_(v["gru.bias_x"])
            self.gru.bias_hh.copy_(v["gru.bias_h"])
            self.lstm.weight_ih.copy_(v["lstm.gates.weight"][:3].T)
            self.lstm.weight_hh.copy_(v["lstm.gates.weight"][3:].T)
            self.lstm.bias_ih.copy_(v["lstm.gates.bias"])
            self.lstm.bias_hh.zero_()

    def gru_forward(self, x, h):
        return self.gru(x, h)

    def gru_gradients(self, x, h, dy):
        g = self.gru
        dx, dh, wx, wh, bx, bh = gradients((g(x, h) * dy).sum(), (x, h, g.weight_ih, g.weight_hh, g.bias_ih, g.bias_hh))
        return dx, dh, wx.T, wh.T, bx, bh

    def lstm_forward(self, x, h, c):
        return self.lstm(x, (h, c))

    def lstm_gradients(self, x, h, c, dy):
        cell = self.lstm
        a, b = cell(x, (h, c))
        wanted = (x, h, c, cell.weight_ih, cell.weight_hh, cell.bias_ih)
        dx, dh, dc, wx, wh, bias = gradients((a * dy).sum() + (b * dy * dy).sum(), wanted)
        return dx, dh, dc, torch.cat([wx.T, wh.T]), bias


class PlainLayers(Trained):
    def flat(self, x):
        return x.flatten(1)

    def forward(self, x):
        return torch.sigmoid(self.linear(2, x.flatten(1)))


class Convolutions(Model):
    def both(self, y, dy, *wanted):
        return (y, *gradients((y * dy).sum(), wanted))

    def of_layer(self, function, name, x, dy, **settings):
        weight, bias = self.v[f"{name}.weight"], self.v[f"{name}.bias"]
        return self.both(function(x, weight, bias, **settings), dy, x, weight, bias)

    def plain_layer(self, x, dy):
        return self.of_layer(F.conv2d, "plain", x, dy, padding=1)

    def line_layer(self, x, dy):
        return self.of_layer(F.conv1d, "line", x, dy, stride=2, padding=2)

    def transposed_layer(self, x, dy):
        return self.of_layer(F.conv_transpose2d, "back", x, dy, stride=2, padding=1)

    def strided(self, x, w, dy):
        return self.both(F.conv2d(x, w, stride=2, padding=(1, 0)), dy, x, w)

    strided_one = strided

    def spread(self, x, w, dy):
        return self.both(F.conv2d(x, w, dilation=2), dy, x, w)

    def grouped(self, x, w, dy):
        return self.both(F.conv2d(x, w, padding=1, groups=2), dy, x, w)

    def each_channel(self, x, w, dy):
        return self.both(F.conv2d(x, w, stride=2, padding=1, groups=4), dy, x, w)

    def pointwise(self, x, w, dy):
        return self.both(F.conv2d(x, w), dy, x, w)

    def padded(self, x, w, dy):
        return self.both(F.conv2d(x, w, padding=(3, 2)), dy, x, w)

    def whole(self, x, w, dy):
        return self.both(F.conv2d(x, w), dy, x, w)

    def transposed(self, x, w, dy):
        y = F.conv_transpose2d(x, w, stride=(3, 2), padding=1, output_padding=1, groups=2, dilation=(1, 2))
        return self.both(y, dy, x, w)

    def transposed_line(self, x, w, dy):
        return self.both(F.conv_transpose1d(x, w, stride=2), dy, x, w)

    def second_order(self, x, w):
        y = (torch.tanh(F.conv2d(x, w, stride=(2, 1), padding=1)) ** 2).sum()
        (g,) = torch.autograd.grad(y, x, create_graph=True)
        return (y, *gradients((g * g).sum(), (x, w)))


class Pooling(Model):
    def both(self, y, dy, x):
        return (y, *gradients((y * dy).sum(), (x,)))

    def max_layer(self, x, dy):
        return self.both(F.max_pool2d(x, 3, stride=2, padding=1), dy, x)

    def max_apart(self, x, dy):
        return self.both(F.max_pool2d(x, 2), dy, x)

    def max_spread(self, x, dy):
        return self.both(F.max_pool2d(x, (2, 3), stride=1, padding=1, dilation=(4, 2)), dy, x)

    def max_line(self, x, dy):
        return self.both(F.max_pool1d(x, 5, stride=1, padding=2), dy, x)

    def avg_layer(self, x, dy):
        return self.both(F.avg_pool2d(x, 2), dy, x)

    def avg_padded(self, x, dy):
        return self.both(F.avg_pool2d(x, 3, stride=2, padding=1), dy, x)

    def avg_inside(self, x, dy):
        return self.both(F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False), dy, x)

    def avg_line(self, x, dy):
        return self.both(F.avg_pool1d(x, 3, stride=1), dy, x)


class Activations(Model):
    EACH = [
        F.elu,
        lambda x: F.elu(x, 0.7),
        lambda x: F.celu(x, 0.5),
        F.selu,
        F.mish,
        F.softsign,
        F.tanhshrink,
        F.logsigmoid,
        F.softplus,
        F.relu6,
        lambda x: F.relu6(x + 3) / 6,  # hardsigmoid; the gradient of torch's own has the digits of f32
        F.hardswish,
        F.hardtanh,
        lambda x: F.hardtanh(x, -2, 0.5),
        F.leaky_relu,
        lambda x: F.leaky_relu(x, 0.2),
        F.softshrink,
        lambda x: F.hardshrink(x, 0.75),
        lambda x: F.threshold(x, 0.1, 20),
        lambda x: F.rrelu(x, 0.1, 0.3, training=False),
    ]

    def of_elements(self, x):
        pairs = [self.both(f(x), torch.ones_like(x), x) for f in self.EACH]
        return torch.stack([y for y, dx in pairs]), torch.stack([dx for y, dx in pairs])

    def both(self, y, dy, *wanted):
        return (y, *gradients((y * dy).sum(), wanted))

    def glu(self, x, dy):
        return self.both(F.glu(x, 1), dy, x)

    def softmin(self, x, dy):
        return self.both(F.softmin(x, 1), dy, x)

    def prelu_one(self, x, dy):
        return self.both(F.prelu(x, self.v["one.weight"]), dy, x, self.v["one.weight"])

    def prelu_many(self, x, dy):
        return self.both(F.prelu(x, self.v["many.weight"]), dy, x, self.v["many.weight"])


class MoreLayers(Activations):
    def parts(self, name):
        return [self.v[f"{name}.{part}"] for part in ("weight", "bias")]

    def layer(self, function, name, x, dy):
        weight, bias = self.parts(name)
        return self.both(function(x, weight, bias), dy, x, weight, bias)

    def bilinear(self, x, z, dy):
        weight, bias = self.parts("both")
        return self.both(F.bilinear(x, z, weight.transpose(0, 1), bias), dy, x, z, weight, bias)

    def conv2d_wide(self, x, dy):
        return self.layer(lambda *a: F.conv2d(*a, padding=(0, 1), groups=2), "wide", x, dy)

    def conv_transpose1d(self, x, dy):
        return self.layer(lambda *a: F.conv_transpose1d(*a, 2, 1, 1, 2), "line", x, dy)

    def conv_transpose2d(self, x, dy):
        return self.layer(lambda *a: F.conv_transpose2d(*a, 2, 0, (1, 0), 1, (2, 1)), "back", x, dy)

    def rms_norm(self, x, dy):
        weight = self.v["rms.weight"]
        return self.both(F.rms_norm(x, (5,), weight, 1e-3), dy, x, weight)

    def instance_norm(self, x, dy):
        return self.both(F.instance_norm(x), dy, x)

    def instance_norm_affine(self, x, dy):
        return self.layer(lambda x, w, b: F.instance_norm(x, weight=w, bias=b), "affine", x, dy)

    def group_norm(self, x, dy):
        return self.layer(lambda x, w, b: F.group_norm(x, 2, w, b), "groups", x, dy)

    def local_response_norm(self, x, dy):
        y = F.local_response_norm(F.local_response_norm(x, 3, alpha=0.5), 2, alpha=2, beta=0.5, k=2)
        return self.both(y, dy, x)

    def pool1d(self, x, dy):
        return self.both(F.avg_pool1d(F.max_pool1d(x, 3, 2, 1), 2), dy, x)

    def global_pools(self, x, dy):
        mean = lambda x, f: f(x, 1).flatten(1)
        y = mean(x, F.adaptive_avg_pool2d) * mean(x, F.adaptive_max_pool2d)
        return self.both(y + mean(x[:, :, 1], F.adaptive_avg_pool1d) * mean(x[:, :, 2], F.adaptive_max_pool1d), dy, x)

    def adaptive_avg_pool1d(self, x, dy):
        return self.both(F.adaptive_avg_pool1d(x, 3), dy, x)

    def adaptive_avg_pool2d(self, x, dy):
        return self.both(F.adaptive_avg_pool2d(x, (3, 5)), dy, x)

    def pad2d(self, x, dy):
        modes = (dict(value=0.5), dict(mode="replicate"), dict(mode="reflect"), dict(mode="circular"))
        return self.both(torch.stack([F.pad(x, (1, 2, 0, 3), **mode) for mode in modes]), dy, x)

    def pad1d(self, x, dy):
        return self.both(F.pad(x, (2, 0), mode="reflect"), dy, x)

    def upsample2d(self, x, dy):
        y = [torch.nn.Upsample(scale_factor=2, mode=mode)(x) for mode in ("nearest", "bilinear")]
        return self.both(torch.stack(y), dy, x)

    def upsample1d(self, x, dy):
        y = [torch.nn.Upsample(scale_factor=3, mode=mode)(x) for mode in ("nearest", "linear")]
        return self.both(torch.stack(y), dy, x)

    def pixel_shuffle(self, x, dy):
        return self.both(F.pixel_shuffle(x, 2), dy, x)

    def pixel_unshuffle(self, x, dy):
        return self.both(F.pixel_unshuffle(x, 2), dy, x)

    def channel_shuffle(self, x, dy):
        # torch's own has no gradient: its definition
        n, c, size = x.shape
        y = x.reshape(n, 2, c // 2, size).transpose(1, 2).reshape(n, c, size)
        assert torch.equal(y, F.channel_shuffle(x[..., None].detach(), 2)[..., 0])
        return self.both(y, dy, x)


def put(parameters, variables):
    """Gives torch's parameters the variables' values: pairs of both."""
    with torch.no_grad():
        for parameter, value in zip(parameters, variables, strict=True):
            parameter.copy_(value)


def across(weight):
    return weight.T if weight.dim() == 2 else weight


class Sequences(Activations):
    def prepare(self):
        v = {name: value.detach() for name, value in self.v.items()}
        settings = dict(batch_first=True, dtype=self.dtype)
        gru = ("weight_x", "weight_h", "bias_x", "bias_h")
        self.cell = torch.nn.RNNCell(3, 4, nonlinearity="relu", dtype=self.dtype)
        self.plain = torch.nn.RNN(3, 4, **settings)
        self.gated = torch.nn.GRU(3, 4, **settings)
        self.deep = torch.nn.GRU(3, 4, 2, bidirectional=True, **settings)
        self.long = torch.nn.LSTM(3, 4, 2, bidirectional=True, dropout=0.5, **settings).eval()
        self.single = torch.nn.LSTM(3, 4, **settings)

        def simple(layer, name):
            weight, bias = v[f"{name}.weight_x"], v[f"{name}.bias"]
            put(layer.parameters(), (weight.T, v[f"{name}.weight_h"].T, bias, torch.zeros_like(bias)))

        def lstm(parameters, name, cin):
            weight, bias = v[f"{name}.gates.weight"], v[f"{name}.gates.bias"]
            put(parameters, (weight[:cin].T, weight[cin:].T, bias, torch.zeros_like(bias)))

        simple(self.cell, "cell")
        simple(self.plain, "plain.cells.0.0")
        lstm(self.single.parameters(), "single.cells.0.0", 3)
        put(self.gated.parameters(), (across(v[f"gated.cells.0.0.{p}"]) for p in gru))
        for level in range(2):
            for i in range(2):
                g, l = ([getattr(layer, p) for p in layer._all_weights[2 * level + i]] for layer in (self.deep, self.long))
                name = f"cells.{level}.{i}"
                put(g, (across(v[f"deep.{name}.{p}"]) for p in gru))
                lstm(l, f"long.{name}", (3, 8)[level])

    def rnn_cell(self, x, h, dy):
        c = self.cell
        y, dx, dh, dw, dv, db = self.both(c(x, h), dy, x, h, c.weight_ih, c.weight_hh, c.bias_ih)
        return y, dx, dh, dw.T, dv.T, db

    def rnn(self, x, dy, dlast):
        c = self.plain
        y, last = c(x)
        value = (y * dy).sum() + (last * dlast).sum()
        dx, dw, dv, db = gradients(value, (x, c.weight_ih_l0, c.weight_hh_l0, c.bias_ih_l0))
        return y, last, dx, dw.T, dv.T, db

    def gru(self, x, dy, dlast):
        c = self.gated
        y, last = c(x)
        value = (y * dy).sum() + (last * dlast).sum()
        dx, dw, dv, db, dc = gradients(value, (x, c.weight_ih_l0, c.weight_hh_l0, c.bias_ih_l0, c.bias_hh_l0))
        return y, last, dx, dw.T, dv.T, db, dc

    def gru_levels(self, x, h):
        return self.deep(x, h)

    def lstm(self, x, h, c, dy, dlast):
        l = self.long
        y, (a, b) = l(x, (h, c))
        value = (y * dy).sum() + (a * dlast).sum() + (b * dlast**2).sum()
        wanted = (l.weight_ih_l0_reverse, l.weight_hh_l0_reverse, l.bias_ih_l0_reverse)
        dx, dh, dc, dw, dv, db = gradients(value, (x, h, c, *wanted))
        return y, a, b, dx, dh, dc, torch.cat([dw.T, dv.T]), db

    def penalty(self, x):
        l = self.single
        (g,) = torch.autograd.grad((l(x)[0] ** 2).sum(), x, create_graph=True)
        loss = (((g**2).sum((1, 2)).sqrt() - 1) ** 2).mean()
        dx, dw, dv = gradients(loss, (x, l.weight_ih_l0, l.weight_hh_l0))
        return loss, dx, torch.cat([dw.T, dv.T])


class AttentionLayers(Activations):
    def prepare(self):
        make = dict(dtype=self.dtype, batch_first=True)
        settings = dict(make, dropout=0.1, dim_feedforward=8)
        attention = torch.nn.MultiheadAttention
        self.plain = attention(6, 2, **make)
        self.causal = attention(6, 3, bias=False, **make)
        self.encoder = torch.nn.TransformerEncoderLayer(6, 2, activation="gelu", **settings).eval()
        self.first = torch.nn.TransformerEncoderLayer(6, 2, norm_first=True, **settings).eval()
        self.decoder = torch.nn.TransformerDecoderLayer(6, 2, **settings).eval()
        self.whole = torch.nn.Transformer(6, 2, 1, 1, **settings).eval()

        def fill(module, name):
            """By torch's names; a product's weight is the other way around."""
            names = {"self_attn": "attention", "multihead_attn": "cross", "linear1": "feed.0", "linear2": "feed.3", "out_proj": "proj"}
            for child, part in module.named_children():
                fill(part, f"{name}.{names.get(child, child)}")
            for parameter, value in module.named_parameters(recurse=False):
                path = f"{name}.{parameter.replace('in_proj_', 'qkv.')}".replace(".layers.", ".")
                put([value], [across(self.v[path].detach())])

        for name in ("plain", "causal", "encoder", "first", "decoder"):
            fill(getattr(self, name), name)
        fill(self.whole.encoder.layers[0], "whole.encoder.0.0")
        fill(self.whole.encoder.norm, "whole.encoder.1")
        fill(self.whole.decoder.layers[0], "whole.decoder.0")
        fill(self.whole.decoder.norm, "whole.norm")

    def self(self, x, dy):
        m = self.plain
        y, dx, dw, db = self.both(m(x, x, x)[0], dy, x, m.in_proj_weight, m.in_proj_bias)
        return y, dx, dw.T, db

    def masked(self, x, seen):
        return self.plain(x, x, x, key_padding_mask=~seen)[0]

    def cross(self, x, memory, dy):
        m = self.plain
        y, dx, dm, dw, db = self.both(m(x, memory, memory)[0], dy, x, memory, m.in_proj_weight, m.in_proj_bias)
        return y, dx, dm, dw.T, db

    def later(self, x):
        return torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)

    def earlier(self, x):
        return self.causal(x, x, x, attn_mask=self.later(x))[0]

    def encoded(self, x, dy):
        y, dx, dw = self.both(self.encoder(x), dy, x, self.encoder.linear1.weight)
        return y, dx, dw.T

    def encoded_first(self, x):
        return self.first(x)

    def decoded(self, x, memory):
        return self.decoder(x, memory, tgt_mask=self.later(x))

    def translated(self, x, source):
        return self.whole(source, x, tgt_mask=self.later(x))

    def penalty(self, x):
        m = self.plain
        # torch's fused attention has no second derivative
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            (g,) = torch.autograd.grad((m(x, x, x)[0] ** 2).sum(), x, create_graph=True)
            loss = (((g**2).sum((1, 2)).sqrt() - 1) ** 2).mean()
            dx, dw = gradients(loss, (x, m.in_proj_weight))
        return loss, dx, dw.T


# ---- losses ----


class Losses(Model):
    def with_gradients(self, loss, *wanted):
        return (loss, *gradients(loss.sum(), wanted))

    def cross_entropy_mean(self, scores, label):
        return self.with_gradients(F.cross_entropy(scores, label.long()), scores)

    def cross_entropy_sum(self, scores, label):
        return self.with_gradients(F.cross_entropy(scores, label.long(), reduction="sum"), scores)

    def cross_entropy_each(self, scores, label, dy):
        loss = F.cross_entropy(scores, label.long(), reduction="none")
        return (loss, *gradients((loss * dy).sum(), (scores,)))

    def cross_entropy_axis(self, scores, label):
        return self.with_gradients(F.cross_entropy(scores, label.long()), scores)

    def binary_mean(self, scores, target):
        return self.with_gradients(F.binary_cross_entropy_with_logits(scores, target), scores)

    def binary_sum(self, scores, target):
        return self.with_gradients(F.binary_cross_entropy_with_logits(scores, target, reduction="sum"), scores)

    def huber_mean(self, x, y):
        return self.with_gradients(F.huber_loss(x, y), x)

    def huber_delta(self, x, y):
        return self.with_gradients(F.huber_loss(x, y, delta=0.5, reduction="sum"), x, y)

    def l2(self, x, y):
        return self.with_gradients(F.mse_loss(x, y), x, y)


class LibraryLosses(Losses):
    def l1(self, x, y):
        return self.with_gradients(F.l1_loss(x, y), x, y)

    def l1_sum(self, x, y):
        return self.with_gradients(F.l1_loss(x, y, reduction="sum"), x, y)

    def mse(self, x, y):
        return self.with_gradients(F.mse_loss(x, y), x, y)

    def smooth_l1(self, x, y):
        return self.with_gradients(F.smooth_l1_loss(x, y, beta=0.5), x, y)

    def binary(self, p, y):
        return self.with_gradients(F.binary_cross_entropy(p, y.detach()), p)

    def smooth_cross_entropy(self, x, label):
        return self.with_gradients(F.cross_entropy(x, label.long(), label_smoothing=0.2), x)

    def smooth_cross_entropy_sum(self, x, label):
        return self.with_gradients(F.cross_entropy(x, label.long(), label_smoothing=0.1, reduction="sum"), x)

    def kl_divergence(self, x, p):
        return self.with_gradients(F.kl_div(x, p, reduction="mean"), x, p)

    def hinge(self, x, sign):
        """Not one of PyTorch's for 1 and -1."""
        return self.with_gradients((1 - x * sign).clamp(min=0).mean(), x)

    def hinge_embedding(self, x, sign):
        return self.with_gradients(F.hinge_embedding_loss(x, sign), x)

    def soft_margin(self, x, sign):
        return self.with_gradients(F.soft_margin_loss(x, sign.detach()), x)

    def margin_ranking(self, x, y, sign):
        return self.with_gradients(F.margin_ranking_loss(x, y, sign, margin=0.25), x, y)

    def cosine_embedding(self, x, y, sign):
        return self.with_gradients(F.cosine_embedding_loss(x, y, sign, margin=0.25), x, y)

    def triplet(self, x, y, z):
        return self.with_gradients(F.triplet_margin_loss(x, y, z), x, y, z)

    def poisson(self, x, y):
        return self.with_gradients(F.poisson_nll_loss(x, y), x)

    def gaussian(self, x, y, p):
        return self.with_gradients(F.gaussian_nll_loss(x, y, p, eps=0.3), x, y, p)

    def nll(self, x, label):
        return self.with_gradients(F.nll_loss(x, label.long()), x)

    def nll_weighted(self, x, label, weight):
        # torch's own has no gradient for the weights
        counts = label != -100
        w = weight[label.long().clamp(min=0)] * counts
        loss = -(w * x.gather(1, label.long().clamp(min=0)[:, None])[:, 0]).sum() / w.sum()
        torch.testing.assert_close(loss, F.nll_loss(x, label.long(), weight.detach()))
        return self.with_gradients(loss, x, weight)

    def multi_margin(self, x, label):
        return self.with_gradients(F.multi_margin_loss(x, label.long(), p=2, margin=0.75), x)

    def multilabel_soft_margin(self, x, p):
        return self.with_gradients(F.multilabel_soft_margin_loss(x, p), x)

    def focal(self, x, p):
        """Not one of PyTorch's: sigmoid_focal_loss of torchvision, written out."""
        exact = F.binary_cross_entropy_with_logits(x, p, reduction="none")
        wrong = torch.sigmoid(x) * (1 - p) + (1 - torch.sigmoid(x)) * p
        return self.with_gradients(((0.25 * p + 0.75 * (1 - p)) * exact * wrong**2).mean(), x)


# ---- optimizers: one method per train step; PyTorch's own optimizer behind each ----


class Optimized(Trained):
    def prepare(self):
        super().prepare()
        self.torch_optimizer = None

    def loss(self, x, y):
        return ((self.linear(2, torch.tanh(self.linear(0, x))) - y) ** 2).mean()

    def weights(self, *names):
        return [value for name, value in self.v.items() if not names or name in names]

    def run(self, x, y, make, clip=None, schedule=None):
        if self.torch_optimizer is None:
            self.torch_optimizer = make()
            if schedule:
                self.schedule = torch.optim.lr_scheduler.LambdaLR(self.torch_optimizer, schedule)
        loss = self.loss(x, y)
        self.torch_optimizer.zero_grad()
        loss.backward()
        if clip:
            clip()
        self.torch_optimizer.step()
        if schedule:
            self.schedule.step()
        return loss.detach()

    def sgd(self, x, y, **settings):
        return self.run(x, y, lambda: torch.optim.SGD(self.weights(), lr=0.05, **settings))


class OptimizerSgd(Optimized):
    def plain(self, x, y):
        return self.sgd(x, y)

    def decayed(self, x, y):
        return self.sgd(x, y, weight_decay=0.01)

    def momentum(self, x, y):
        return self.sgd(x, y, momentum=0.9)

    def nesterov(self, x, y):
        return self.sgd(x, y, momentum=0.9, nesterov=True, weight_decay=0.01)


class OptimizerAdam(Optimized):
    def adam(self, x, y):
        return self.run(x, y, lambda: torch.optim.Adam(self.weights(), lr=0.01))

    def betas(self, x, y):
        return self.run(x, y, lambda: torch.optim.Adam(self.weights(), lr=0.01, betas=(0.8, 0.95), eps=1e-3))

    def adamw(self, x, y):
        return self.run(x, y, lambda: torch.optim.AdamW(self.weights(), lr=0.01, weight_decay=0.1))

    def matrices(self, x, y):
        groups = [
            dict(params=self.weights("net.0.weight", "net.2.weight"), weight_decay=0.1),
            dict(params=self.weights("net.0.bias", "net.2.bias"), weight_decay=0.0),
        ]
        return self.run(x, y, lambda: torch.optim.AdamW(groups, lr=0.01))


class OptimizerCommon(Optimized):
    def clip_norm(self, x, y):
        clip = lambda: torch.nn.utils.clip_grad_norm_(self.weights(), 0.1)
        return self.run(x, y, lambda: torch.optim.Adam(self.weights(), lr=0.01), clip)

    def clip_value(self, x, y):
        clip = lambda: torch.nn.utils.clip_grad_value_(self.weights(), 0.02)
        return self.run(x, y, lambda: torch.optim.SGD(self.weights(), lr=0.05), clip)

    def accumulate(self, x, y):
        if self.torch_optimizer is None:
            self.torch_optimizer = torch.optim.SGD(self.weights(), lr=0.05, momentum=0.9)
        loss = self.loss(x, y)
        (loss / 3).backward()
        self.steps += 1
        if self.steps % 3 == 0:
            self.torch_optimizer.step()
            self.torch_optimizer.zero_grad()
        return loss.detach()

    def head(self, x, y):
        return self.run(x, y, lambda: torch.optim.SGD(self.weights("net.2.weight", "net.2.bias"), lr=0.05))


class OptimizerOthers(Optimized):
    def optimized(self, x, y, kind, **settings):
        return self.run(x, y, lambda: kind(self.weights(), **settings))

    def amsgrad(self, x, y):
        return self.optimized(x, y, torch.optim.Adam, lr=0.01, weight_decay=0.1, betas=(0.9, 0.9), amsgrad=True)

    def adamax(self, x, y):
        return self.optimized(x, y, torch.optim.Adamax, lr=0.01, weight_decay=0.1)

    def nadam(self, x, y):
        torch.set_default_dtype(self.dtype)  # of the product that it keeps
        loss = self.optimized(x, y, torch.optim.NAdam, lr=0.01, momentum_decay=0.05, weight_decay=0.1)
        torch.set_default_dtype(torch.float32)
        return loss

    def radam(self, x, y):
        return self.optimized(x, y, torch.optim.RAdam, lr=0.01, weight_decay=0.1)

    def lion(self, x, y):
        """Not one of PyTorch's: program 1 of arXiv:2302.06675, line by line."""
        loss = self.loss(x, y)
        moments = self.__dict__.setdefault("moments", [torch.zeros_like(w) for w in self.weights()])
        with torch.no_grad():
            for w, g, momentum in zip(self.weights(), gradients(loss, self.weights()), moments):
                update = torch.sign(torch.lerp(g, momentum, 0.9))
                momentum.copy_(torch.lerp(g, momentum, 0.99))
                w -= (update + w * 0.1) * 0.001
        return loss.detach()

    def rmsprop(self, x, y):
        return self.optimized(x, y, torch.optim.RMSprop)

    def rmsprop_centered(self, x, y):
        settings = dict(lr=0.001, alpha=0.9, weight_decay=0.1, momentum=0.8, centered=True)
        return self.optimized(x, y, torch.optim.RMSprop, **settings)

    def adagrad(self, x, y):
        return self.optimized(x, y, torch.optim.Adagrad)

    def adagrad_decayed(self, x, y):
        settings = dict(lr=0.1, lr_decay=0.2, weight_decay=0.1, initial_accumulator_value=0.5)
        return self.optimized(x, y, torch.optim.Adagrad, **settings)

    def adadelta(self, x, y):
        return self.optimized(x, y, torch.optim.Adadelta, weight_decay=0.1)


class Schedules(Optimized):
    def scheduled(self, x, y, make):
        """With a schedule of PyTorch's own."""
        if self.torch_optimizer is None:
            self.torch_optimizer = torch.optim.SGD(self.weights(), lr=0.05)
            self.schedule = make(self.torch_optimizer)
        loss = self.run(x, y, None)
        self.schedule.step()
        return loss

    def stepped(self, x, y):
        return self.scheduled(x, y, lambda sgd: schedulers.StepLR(sgd, 3, gamma=0.5))

    def milestones(self, x, y):
        return self.scheduled(x, y, lambda sgd: schedulers.MultiStepLR(sgd, [2, 5], gamma=0.1))

    def straight(self, x, y):
        return self.scheduled(x, y, lambda sgd: schedulers.LinearLR(sgd, 1.0, 0.2, total_iters=8))

    def polynomial(self, x, y):
        return self.scheduled(x, y, lambda sgd: schedulers.PolynomialLR(sgd, total_iters=8, power=2))

    def restarts(self, x, y):
        return self.scheduled(x, y, lambda sgd: schedulers.CosineAnnealingWarmRestarts(sgd, 5, eta_min=0.001))

    def one_cycle(self, x, y):
        make = lambda sgd: schedulers.OneCycleLR(sgd, 0.05, total_steps=13, cycle_momentum=False)
        return self.scheduled(x, y, make)

    def warm_polynomial(self, x, y):
        def make(sgd):
            rise = schedulers.LinearLR(sgd, 1 / 3, 1.0, total_iters=2)
            return schedulers.SequentialLR(sgd, [rise, schedulers.PolynomialLR(sgd, total_iters=8, power=1)], [3])

        return self.scheduled(x, y, make)

    def warm(self, x, y):
        return self.scheduled(x, y, lambda sgd: schedulers.LinearLR(sgd, 1 / 4, 1.0, total_iters=3))

    def cosine(self, x, y):
        factor = lambda count: 0.5 * (1 + np.cos(np.pi * np.clip(count / 10, 0, 1)))
        return self.run(x, y, lambda: torch.optim.SGD(self.weights(), lr=0.05), schedule=factor)

    def warmup(self, x, y):
        def factor(count):
            progress = np.clip((count - 4) / 6, 0, 1)
            rate = 0.001 + (0.02 - 0.001) * 0.5 * (1 + np.cos(np.pi * progress))
            return min((count + 1) / 4, 1) * rate / 0.02

        return self.run(x, y, lambda: torch.optim.Adam(self.weights(), lr=0.02), schedule=factor)

    def exponential(self, x, y):
        factor = lambda count: 0.5 ** (count / 4)
        return self.run(x, y, lambda: torch.optim.SGD(self.weights(), lr=0.05), schedule=factor)


# ---- builtins ----

ELEMENTWISE = {
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "sin": torch.sin,
    "cos": torch.cos,
    "abs": torch.abs,
    "square": lambda x: x**2,
    "cube": lambda x: x**3,
    "reciprocal": lambda x: 1 / x,
    "inverse_square": lambda x: x**-2,
    "root": lambda x: x**0.5,
    "exponent": lambda x: 2**x,
    "negate": lambda x: -x,
    "clipped": lambda x: torch.clamp(x, -0.5, 0.75),
    "positive_part": torch.relu,  # and so with gradient 0 at 0
    "negative_part": lambda x: torch.clamp(x, max=0.0),
    "chosen": lambda x: torch.where(x > 0.5, x * x, -x),
    # the branch that is not taken gets a harmless argument: torch itself would give NaN
    "guarded_root": lambda x: torch.where(x > 0, torch.sqrt(torch.where(x > 0, x, 1.0)), 0.0),
    "guarded_log": lambda x: torch.where(x > 0, torch.log(torch.where(x > 0, x, 1.0)), x),
}


class Elementwise(Model):
    def rounded(self, x):
        return torch.round(x)

    def __getattr__(self, name):
        function = ELEMENTWISE[name.removesuffix("_of")]

        def value_and_gradient(x):
            y = function(x)
            return (y, *gradients(y.sum(), (x,)))

        return value_and_gradient


class Arithmetic(Model):
    def both(self, y, a, b, dy):
        return (y, *gradients((y * dy).sum(), (a, b)))

    def add(self, a, b, dy):
        return self.both(a + b, a, b, dy)

    def subtract(self, a, b, dy):
        return self.both(a - b, a, b, dy)

    def multiply(self, a, b, dy):
        return self.both(a * b, a, b, dy)

    def divide(self, a, b, dy):
        return self.both(a / b, a, b, dy)

    def power(self, a, b, dy):
        return self.both(a**b, a, b, dy)

    def larger(self, a, b, dy):
        return self.both(torch.maximum(a, b), a, b, dy)

    def smaller(self, a, b, dy):
        return self.both(torch.minimum(a, b), a, b, dy)

    def remainder(self, a, b):
        return torch.remainder(a, b)

    def choose(self, c, a, b, dy):
        return self.both(torch.where(c > 0, a, b), a, b, dy)

    def compare(self, a, b):
        return a == b, a != b, a < b, a <= b, a > b, a >= b

    def logic(self, a, b):
        return (a > 0) & (b > 0), (a > 0) | (b > 0), ~((a > 0) | (b > 0))

    def integers(self, a, b):
        return a + b, a - b, a * b, torch.remainder(a, b), torch.maximum(a, b), a.to(self.dtype) / 4


class Reductions(Model):
    def scalar(self, y, x):
        return (y, *gradients(y, (x,)))

    def weighted(self, y, x, dy):
        return (y, *gradients((y * dy).sum(), (x,)))

    def first(self, index, x, axis):
        """The values at an index of numpy's argmax or argmin, the first of several: the gradient goes there alone."""
        return torch.take_along_dim(
            x, torch.from_numpy(np.expand_dims(index(x.detach().numpy(), axis), axis)), axis
        ).squeeze(axis)

    def sum_all(self, x):
        return self.scalar((x * x).sum(), x)

    def mean_all(self, x):
        return self.scalar((x * x).mean(), x)

    def max_all(self, x):
        return self.scalar(x.max(), x)

    def min_all(self, x):
        return self.scalar(x.min(), x)

    def sum_axis(self, x, dy):
        return self.weighted((x * x).sum(1), x, dy)

    def mean_axes(self, x, dy):
        return self.weighted((x * x).mean((0, 2)), x, dy)

    def mean_kept(self, x, dy):
        return self.weighted((x * x).mean(-1, keepdim=True), x, dy)

    def sum_first(self, x, dy):
        return self.weighted((x * x).sum(0), x, dy)

    def max_axis(self, x, dy):
        return self.weighted(self.first(np.argmax, x, 1), x, dy)

    def min_axis(self, x, dy):
        return self.weighted(self.first(np.argmin, x, -1), x, dy)

    def argmax_axis(self, x):
        return torch.from_numpy(np.argmax(x.detach().numpy(), 1).astype(np.int32))

    def argmin_axis(self, x):
        return torch.from_numpy(np.argmin(x.detach().numpy(), -1).astype(np.int32))

    def softmax_last(self, x, dy):
        return self.weighted(torch.softmax(x, -1), x, dy)

    def softmax_axis(self, x, dy):
        return self.weighted(torch.softmax(x, 1), x, dy)

    def any_axis(self, x):
        return (x > 1.5).any(2)

    def all_axis(self, x):
        return (x > -1.5).all(2)

    def sum_long(self, x, dy):
        return self.weighted((x * x).sum(1), x, dy)

    def sum_columns(self, x, dy):
        return self.weighted((x * x).sum(0), x, dy)


class Shapes(Model):
    def squared(self, y, dy, *wanted):
        return (y, *gradients((y * y * dy).sum(), wanted))

    def reshaped(self, x, dy):
        return self.squared(x.reshape(len(x), -1, 3), dy, x)

    def transposed(self, x, dy):
        return self.squared(x.permute(2, 0, 1), dy, x)

    def flipped(self, x, dy):
        return self.squared(x.T, dy, x)

    def joined(self, a, b, dy):
        return self.squared(torch.cat([a, b], 1), dy, a, b)

    def stacked(self, a, b, dy):
        return self.squared(torch.stack([a, b], 1), dy, a, b)

    def parted(self, x, dy):
        a, b, c = torch.chunk(x, 3, 2)
        return (a, b, c, *gradients((a * b * dy).sum() + (c * c).sum(), (x,)))

    def picked(self, x, dy):
        return self.squared(x[:, 1], dy, x)

    def sliced(self, x, dy):
        return self.squared(x[:, 1:3, ::2], dy, x)

    def last(self, x, dy):
        return self.squared(x[..., -1], dy, x)

    def widened(self, x, dy):
        return self.squared(x[:, None].expand(-1, 4), dy, x)

    def counted(self, x):
        return torch.arange(6, dtype=torch.int32), torch.arange(3)[:, None] * x[None, :]


class Products(Arithmetic):
    def plain(self, a, b, dy):
        return self.both(a @ b, a, b, dy)

    shared_right = batched = by_vector = of_vector = plain

    def left_transposed(self, a, b, dy):
        return self.both(a.T @ b, a, b, dy)

    def right_transposed(self, a, b, dy):
        return self.both(a @ b.T, a, b, dy)

    def both_transposed(self, a, b, dy):
        return self.both(a.T @ b.T, a, b, dy)

    def inner(self, a, b):
        return (a @ b, *gradients(a @ b, (a, b)))

    def second_order(self, a, b):
        y = (torch.tanh(a @ b) ** 2).sum()
        (g,) = torch.autograd.grad(y, a, create_graph=True)
        return (y, *gradients((g * g).sum(), (b,)))


# ---- products of rounded operands ----


class RoundedProduct(torch.autograd.Function):
    """a @ b, and its gradients, of operands rounded to `kind`; sums in the operands' type."""

    @staticmethod
    def forward(context, a, b, kind):
        a, b = rounded(a, kind), rounded(b, kind)
        context.save_for_backward(a, b)
        context.kind = kind
        return a @ b

    @staticmethod
    def backward(context, dy):
        a, b = context.saved_tensors
        dy = rounded(dy, context.kind)
        return dy @ b.transpose(-1, -2), a.transpose(-1, -2) @ dy, None


class RoundedConvolution(torch.autograd.Function):
    @staticmethod
    def forward(context, x, w, kind, settings):
        x, w = rounded(x, kind), rounded(w, kind)
        context.save_for_backward(x, w)
        context.kind, context.settings = kind, settings
        return F.conv2d(x, w, **settings)

    @staticmethod
    def backward(context, dy):
        x, w = context.saved_tensors
        dy = rounded(dy, context.kind)
        dx = torch.nn.grad.conv2d_input(x.shape, w, dy, **context.settings)
        return dx, torch.nn.grad.conv2d_weight(x, w.shape, dy, **context.settings), None, None


def rounded(x, kind):
    """In f64 there is no precision: the figures of that float are plain ones."""
    return x.to(kind).to(x.dtype) if x.dtype == torch.float32 else x


class Precision(Trained):
    kind = torch.bfloat16

    def prepare(self):
        scales = self.kind == torch.float16 and self.dtype == torch.float32
        parts = [[value for name, value in self.v.items() if name.startswith(f"{net}.")] for net in ("net", "net2")]
        self.optimizers = {
            "step": torch.optim.Adam(parts[0], lr=0.01),
            "image_step": torch.optim.SGD(parts[1], lr=0.005, momentum=0.9),
            "large_step": torch.optim.SGD(parts[0], lr=1e-3, momentum=0.9),
        }
        self.scalers = {name: torch.amp.GradScaler("cpu", enabled=scales) for name in self.optimizers}

    def product(self, a, b):
        return RoundedProduct.apply(a, b, self.kind)

    def convolution(self, x, w, **settings):
        return RoundedConvolution.apply(x, w, self.kind, settings)

    def scores(self, x):
        h = torch.relu(self.product(x, self.v["net.0.weight"]) + self.v["net.0.bias"])
        return self.product(h, self.v["net.2.weight"]) + self.v["net.2.bias"]

    def gradients(self, x, label):
        loss = F.cross_entropy(self.scores(x), label.long())
        return (loss, *gradients(loss, (x, self.v["net.0.weight"], self.v["net.2.weight"])))

    def convolved(self, x, w, dy):
        y = self.convolution(x, w, stride=2, padding=1)
        return (y, *gradients((y * dy).sum(), (x, w)))

    def attended(self, q, k, v, dy):
        # As FlashAttention has it: what the softmax's derivative subtracts is the sum of dy times the result.
        r = lambda x: rounded(x, self.kind)
        scale = 0.7
        q, k, v, dy = (x.detach().transpose(1, 2) for x in (q, k, v, dy))
        p = torch.softmax(scale * (r(q) @ r(k).transpose(2, 3)), -1)
        y = r(p) @ r(v)
        dp = r(dy) @ r(v).transpose(2, 3)
        ds = scale * (p * (dp - (dy * y).sum(-1, keepdim=True)))
        parts = y, r(ds) @ r(k), r(ds).transpose(2, 3) @ r(q), r(p).transpose(2, 3) @ r(dy)
        return tuple(x.transpose(1, 2) for x in parts)

    def products(self, a, b, c):
        return self.product(a, b.expand(3, 9, 6)), self.product(a, c.expand(3, 9)[..., None])[..., 0]

    def train(self, name, loss):
        optimizer, scaler = self.optimizers[name], self.scalers[name]
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    def step(self, x, label):
        return self.train("step", F.cross_entropy(self.scores(x), label.long()))

    def image_step(self, x, label):
        h = torch.relu(self.convolution(x, self.v["net2.0.weight"], padding=1) + self.v["net2.0.bias"][:, None, None])
        scores = self.product(h.flatten(1), self.v["net2.3.weight"]) + self.v["net2.3.bias"]
        return self.train("image_step", F.cross_entropy(scores, label.long()))

    def large_step(self, x, label):
        return self.train("large_step", F.cross_entropy(self.scores(x), label.long(), reduction="sum") * 6)

    def variables(self):
        out = dict(self.v)
        for name, scaler in self.scalers.items():
            out[f"{name}.loss_scale"] = torch.tensor(scaler.get_scale(), dtype=self.dtype)
            out[f"{name}.good_steps"] = torch.tensor(scaler._get_growth_tracker())
        return out


class PrecisionF16(Precision):
    kind = torch.float16


MODELS = {
    "precision_bf16": Precision,
    "precision_f16": PrecisionF16,
    "two_layer_grad": TwoLayerGrad,
    "two_layer": TwoLayer,
    "mlp": Mlp,
    "lenet": LeNet,
    "residual_net": ResidualNet,
    "char_lstm": CharLstm,
    "resnet18": ResNet18,
    "convolutions": Convolutions,
    "pooling": Pooling,
    "linear": Linear,
    "layer_norm": LayerNorm,
    "group_norm": GroupNorm,
    "batch_norm": BatchNorm,
    "attention": Attention,
    "gpt": Gpt,
    "recurrent": Recurrent,
    "plain_layers": PlainLayers,
    "activations": Activations,
    "more_layers": MoreLayers,
    "sequences": Sequences,
    "attention_layers": AttentionLayers,
    "builtin_losses": Losses,
    "library_losses": LibraryLosses,
    "optimizer_sgd": OptimizerSgd,
    "optimizer_adam": OptimizerAdam,
    "optimizer_common": OptimizerCommon,
    "optimizer_others": OptimizerOthers,
    "schedules": Schedules,
    "elementwise": Elementwise,
    "arithmetic": Arithmetic,
    "reductions": Reductions,
    "shapes": Shapes,
    "products": Products,
}


def argument(value, dtype):
    value = np.asarray(value)
    if value.dtype.kind == "f":
        return torch.tensor(value, dtype=dtype).requires_grad_(True)
    return torch.tensor(value)


def plain(value):
    value = value.detach().numpy()
    return value.astype(np.float64) if value.dtype.kind == "f" else value


def figures_of(case, dtype):
    """-> what the case's calls return and leave in the variables, by 'tag.result' and 'tag/variable'"""
    out = {}
    model = MODELS[case.name](case.variables, dtype)
    for call in case.calls:
        if call.fresh:
            model = MODELS[case.name](case.variables, dtype)
        rows = []
        for _ in range(max(call.steps, 1)):
            inputs = {name: argument(value, dtype) for name, value in call.inputs.items()}
            got = getattr(model, call.function)(**inputs)
            got = got if isinstance(got, tuple) else (got,)
            rows.append([plain(value) for value in got])
        for i, name in enumerate(call.results):
            values = np.stack([row[i] for row in rows]) if call.steps else rows[0][i]
            out[f"{call.tag}.{name}"] = values
        variables = model.variables() if call.variables else {}
        for name in call.variables:
            out[f"{call.tag}/{name}"] = suite.digest(plain(variables[name]))
    return out


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    figures = {}
    for case in suite.cases():
        for name, value in figures_of(case, torch.float64).items():
            figures[f"{case.name}/{name}"] = value
        if case.name in ("two_layer_grad", "two_layer", "mlp", "precision_bf16", "precision_f16"):
            for name, value in figures_of(case, torch.float32).items():
                figures[f"f32/{case.name}/{name}"] = value
    np.savez_compressed(suite.FIGURES, torch=np.array(torch.__version__), **figures)
    print(f"{len(figures)} figures of torch {torch.__version__} in {suite.FIGURES}", file=sys.stderr)


if __name__ == "__main__":
    main()
