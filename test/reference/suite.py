#===- suite.py - what the reference figures are made of -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""The cases: a program, initial values, and calls with their inputs.

make_reference.py asks PyTorch for the results of each case and stores them; run_reference.py compiles the programs and
compares. Initial values and inputs are not stored: both sides draw them from philox.py by name.
"""

import os
from dataclasses import dataclass, field

import numpy as np

from philox import integers, positive, signed, uniform

HERE = os.path.dirname(os.path.abspath(__file__))
EXAMPLES = os.path.join(HERE, "..", "..", "examples")
FIGURES = os.path.join(HERE, "figures.npz")

# Largest error allowed, as a part of the expected value (of its array's largest element, where that is what counts).
TOLERANCE = {
    "exact": {"f64": 0.0, "f32": 0.0},
    "elementwise": {"f64": 1e-13, "f32": 1e-6},
    "layer": {"f64": 1e-11, "f32": 2e-5},
    "training": {"f64": 1e-9, "f32": 1e-4},
    "deep": {"f64": 1e-9, "f32": 1e-3},
}


@dataclass
class Call:
    """One function called `steps` times on the same inputs, the variables going from call to call."""

    function: str
    inputs: dict
    results: tuple = ("out",)
    tag: str = ""  # names the stored figures; the function's name if empty
    steps: int = 0  # 0: one call; else that many, whose results are stacked
    fresh: bool = False  # begins with the initial values again
    variables: tuple = ()  # compared afterwards
    together: bool = False  # the steps in one process, so that of the results the last are compared
    reals: tuple = ("f64", "f32")  # in which it is made

    def __post_init__(self):
        self.tag = self.tag or self.function


@dataclass
class Case:
    name: str
    program: str
    calls: list
    variables: dict = field(default_factory=dict)  # initial values
    defines: dict = field(default_factory=dict)
    edit: tuple = ()  # (old, new): a change of the program's text
    tolerance: str = "layer"
    on_gpu: bool = True  # False: what the GPU's target refuses, or what takes its stand-in too long


def digest(value):
    """What is stored of a large array: its norm and every so many elements."""
    value = np.asarray(value, np.float64)
    if value.size <= 1024:
        return value
    stride = value.size // 250 | 1
    return np.concatenate([[np.linalg.norm(value)], value.reshape(-1)[::stride]])


def _weights(case, scale=None, **shapes):
    """Initial values by variable; '__' stands for a dot in a name."""
    out = {}
    for name, shape in shapes.items():
        name = name.replace("__", ".")
        # about as large as a layer's own initial values
        size = scale if scale is not None else 2.0 ** -np.round(np.log2(shape[0]) / 2)
        out[name] = signed(f"{case}/{name}", shape, size)
    return out


def _programs():
    n, d, h, k = 8, 20, 12, 5
    x = signed("two_layer_grad/x", (n, d))
    y = signed("two_layer_grad/y", (n, d))
    yield Case(
        "two_layer_grad",
        os.path.join(EXAMPLES, "two_layer_grad.dl"),
        [
            Call("step", dict(x=x, y=y), steps=20, variables=("w1", "w2")),
            Call(
                "step",
                dict(x=x, y=y, lr=np.float64(2.0**-10)),
                tag="step_lr",
                steps=20,
                fresh=True,
                variables=("w1", "w2"),
            ),
        ],
        _weights("two_layer_grad", scale=2.0, w1=(d, h), w2=(h, d)),
        dict(N=n, D=d, H=h),
        tolerance="training",
    )

    x = signed("two_layer/x", (n, d))
    y = signed("two_layer/y", (n, k))
    names = ("net.0.weight", "net.0.bias", "net.2.weight", "net.2.bias")
    slots = tuple(f"step.{slot}.{name}" for slot in "mv" for name in names)
    yield Case(
        "two_layer",
        os.path.join(EXAMPLES, "two_layer.dl"),
        [
            Call("predict", dict(x=x)),
            Call("loss", dict(x=x, y=y)),
            Call("step", dict(x=x, y=y), steps=20, variables=names + slots + ("step.t",)),
            Call("predict", dict(x=x), tag="predict_after"),
        ],
        _weights("two_layer", net__0__weight=(d, h), net__0__bias=(h,), net__2__weight=(h, k), net__2__bias=(k,)),
        dict(N=n, D=d, H=h, K=k),
        tolerance="training",
    )

    yield gpt()
    yield mlp("mlp", ("nn.dropout(0.1)", "nn.dropout(0)"))

    x, label = uniform((16, 784), "lenet/x"), integers("lenet/label", (16,), 10)
    initial = _weights(
        "lenet",
        scale=2.0**-2,
        net__0__weight=(6, 1, 5, 5),
        net__0__bias=(6,),
        net__3__weight=(16, 6, 5, 5),
        net__3__bias=(16,),
    )
    for i, cin, cout in ((7, 400, 120), (9, 120, 84), (11, 84, 10)):
        initial |= _weights("lenet", scale=2.0**-4, **{f"net__{i}__weight": (cin, cout), f"net__{i}__bias": (cout,)})
    yield Case(
        "lenet",
        os.path.join(EXAMPLES, "lenet.dl"),
        [
            Call("predict", dict(x=x[:5]), tag="predict_5"),
            Call("step", dict(x=x, label=label), steps=20, variables=tuple(initial)),
            Call("accuracy", dict(x=x, label=label), tag="accuracy_after"),
        ],
        initial,
        tolerance="training",
    )

    x, label = signed("residual_net/x", (6, 3, 32, 32)), integers("residual_net/label", (6,), 5)
    convolutions = {
        "0": (8, 3, 7, 7),
        "4.conv1": (8, 8, 3, 3),
        "4.conv2": (8, 8, 3, 3),
        "5.conv1": (16, 8, 3, 3),
        "5.conv2": (16, 16, 3, 3),
        "5.skip.0": (16, 8, 1, 1),
    }
    norms = {"1": 8, "4.bn1": 8, "4.bn2": 8, "5.bn1": 16, "5.bn2": 16, "5.skip.1": 16}
    shapes = {f"net.{name}.weight": shape for name, shape in convolutions.items()}
    shapes |= {f"net.{name}.{part}": (width,) for name, width in norms.items() for part in ("weight", "bias")}
    shapes |= {"net.7.weight": (16, 5), "net.7.bias": (5,)}
    initial = _weights("residual_net", scale=2.0**-2, **{name.replace(".", "__"): shape for name, shape in shapes.items()})
    for name in norms:
        initial[f"net.{name}.weight"] += 1
    running = tuple(f"net.{name}.running_{part}" for name in norms for part in ("mean", "var"))
    yield Case(
        "residual_net",
        os.path.join(HERE, "cases", "residual_net.dl"),
        [
            Call("step", dict(x=x, label=label), steps=20, variables=tuple(initial) + running),
            Call("predict", dict(x=x), tag="predict_after"),
        ],
        initial,
        tolerance="training",
    )


    n, t, v, h = 3, 9, 11, 8
    tokens = dict(tokens=integers("char_lstm/tokens", (n, t), v), target=integers("char_lstm/target", (n, t), v))
    shapes = dict(embed__weight=(v, h), gates__weight=(2 * h, 4 * h), gates__bias=(4 * h,), head__weight=(h, v), head__bias=(v,))
    initial = _weights("char_lstm", scale=2.0**-1, **shapes)
    yield Case(
        "char_lstm",
        os.path.join(EXAMPLES, "char_lstm.dl"),
        [
            Call("step", tokens, steps=20, variables=(*initial, "step.t")),
            Call("logits", dict(tokens=tokens["tokens"]), tag="logits_after"),
        ],
        initial,
        dict(N=n, T=t, V=v, H=h),
        tolerance="training",
    )

    yield resnet18()


def resnet18():
    """As in the text, 11 million variables; on small images."""
    n, size = 3, 40
    shapes, norms = {"net.0.weight": (64, 3, 7, 7)}, {"net.1": 64}
    cin = 64
    for i, cout in zip(range(4, 12), (64, 64, 128, 128, 256, 256, 512, 512)):
        shapes |= {f"net.{i}.conv1.weight": (cout, cin, 3, 3), f"net.{i}.conv2.weight": (cout, cout, 3, 3)}
        norms |= {f"net.{i}.bn1": cout, f"net.{i}.bn2": cout}
        if cin != cout:
            shapes[f"net.{i}.skip.0.weight"] = (cout, cin, 1, 1)
            norms[f"net.{i}.skip.1"] = cout
        cin = cout
    # about as large as a convolution's own initial values
    initial = {name: signed(f"resnet18/{name}", shape, 2.0 ** -np.round(np.log2(np.prod(shape[1:])) / 2)) for name, shape in shapes.items()}
    initial |= {f"{name}.weight": 1 + signed(f"resnet18/{name}", (width,), 2.0**-2) for name, width in norms.items()}
    initial |= {"net.13.weight": signed("resnet18/net.13.weight", (512, 10), 2.0**-4), "net.13.bias": np.zeros(10)}
    # A few of them: each has been through all of the network.
    watched = ("net.0.weight", "net.1.running_var", "net.4.conv1.weight", "net.7.bn2.weight", "net.8.skip.0.weight")
    watched += ("net.10.bn1.running_mean", "net.11.conv2.weight", "net.13.weight", "net.13.bias")
    data = dict(x=signed("resnet18/x", (n, 3, size, size)), label=integers("resnet18/label", (n,), 10))
    return Case(
        "resnet18",
        os.path.join(EXAMPLES, "resnet18.dl"),
        [
            Call("step", data, tag="first"),
            Call("step", data, tag="second"),
            Call("step", data, steps=18, together=True, reals=("f64",), variables=watched),
        ],
        initial,
        dict(N=n, S=size, classes=10),
        tolerance="deep",
        on_gpu=False,  # too large for the stand-in; residual_net.dl is there
    )


def gpt():
    n, t, v, d, heads, depth = 3, 20, 30, 24, 3, 2
    shapes = {"token_embedding.weight": (v, d), "position_embedding.weight": (t, d), "head.weight": (d, v)}
    norms = ["ln"]
    for i in range(depth):
        norms += [f"blocks.{i}.ln1", f"blocks.{i}.ln2"]
        for part, cin, cout in (("attn.qkv", d, 3 * d), ("attn.proj", d, d), ("mlp.0", d, 4 * d), ("mlp.2", 4 * d, d)):
            shapes |= {f"blocks.{i}.{part}.weight": (cin, cout), f"blocks.{i}.{part}.bias": (cout,)}
    initial = {name: signed(f"gpt/{name}", shape, 2.0**-2) for name, shape in shapes.items()}
    for name in norms:
        initial |= {f"{name}.weight": 1 + signed(f"gpt/{name}.weight", (d,), 2.0**-2), f"{name}.bias": signed(f"gpt/{name}.bias", (d,), 2.0**-2)}
    # What is added to all keys changes nothing: its derivative is rounding, which AdamW makes as large as any other in f32.
    compared = tuple(name for name in initial if not name.endswith("qkv.bias"))
    data = dict(tokens=integers("gpt/tokens", (n, t), v), target=integers("gpt/target", (n, t), v))
    return Case(
        "gpt",
        os.path.join(EXAMPLES, "gpt.dl"),
        [
            Call("logits", dict(tokens=data["tokens"])),
            Call("step", data, steps=20, variables=compared),
            Call("loss", data, tag="loss_after"),
        ],
        initial,
        dict(N=n, T=t, V=v, d=d, heads=heads, depth=depth),
        tolerance="training",
    )


def mlp(name, edit=()):
    n = 32
    x = uniform((n, 784), "mlp/x")
    label = integers("mlp/label", (n,), 10)
    names = tuple(f"net.{i}.{part}" for i in (0, 3, 5) for part in ("weight", "bias"))
    initial = {}
    for i, cin, cout in ((0, 784, 512), (3, 512, 512), (5, 512, 10)):
        initial[f"net.{i}.weight"] = signed(f"mlp/net.{i}.weight", (cin, cout), 2.0**-5)
        initial[f"net.{i}.bias"] = signed(f"mlp/net.{i}.bias", (cout,), 2.0**-5)
    return Case(
        name,
        os.path.join(EXAMPLES, "mlp.dl"),
        [
            Call("predict", dict(x=x[:5]), tag="predict_5"),
            Call("loss", dict(x=x, label=label)),
            Call("step", dict(x=x, label=label), steps=20, variables=names + ("step.t",)),
            Call("accuracy", dict(x=x, label=label), tag="accuracy_after"),
            Call("loss", dict(x=x[:7], label=label[:7]), tag="loss_7_after"),
        ],
        initial,
        edit=edit,
        tolerance="training",
    )


def _case(name, calls, tolerance="layer", on_gpu=True, **shapes):
    program = os.path.join(HERE, "cases", name + ".dl")
    return Case(name, program, calls, _weights(name, **shapes), tolerance=tolerance, on_gpu=on_gpu)


def _layers():
    x, dy = signed("linear/x", (5, 3, 7)), signed("linear/dy", (5, 3, 5))
    yield _case(
        "linear",
        [
            Call("forward", dict(x=x)),
            Call("gradients", dict(x=x, dy=dy), ("dx", "dense_weight", "dense_bias", "plain_weight")),
        ],
        dense__weight=(7, 4),
        dense__bias=(4,),
        plain__weight=(4, 5),
    )
    for name, width, shape in (("layer_norm", 7, (5, 3, 7)), ("group_norm", 6, (4, 6, 3, 5))):
        x, dy = signed(f"{name}/x", shape), signed(f"{name}/dy", shape)
        yield _case(
            name,
            [Call("forward", dict(x=x)), Call("gradients", dict(x=x, dy=dy), ("dx", "weight", "bias"))],
            norm__weight=(width,),
            norm__bias=(width,),
        )
    queries, keys, values = signed("attention/q", (2, 61, 3, 8)), signed("attention/k", (2, 61, 3, 8)), signed("attention/v", (2, 13, 3, 5))
    dy, wide = signed("attention/dy", (2, 61, 3, 5)), signed("attention/wide", (2, 61, 3, 8))
    seen = signed("attention/seen", (2, 1, 1, 61)) > -0.3
    seen[:, :, :, 0] = True  # every row looks at something
    yield _case(
        "attention",
        [
            Call("forward", dict(q=queries, k=keys[:, :13], v=values)),
            Call("gradients", dict(q=queries, k=keys[:, :13], v=values, mask=signed("attention/mask", (61, 13)), dy=dy), ("y", "dq", "dk", "dv", "dmask")),
            Call("causal", dict(x=signed("attention/x", (2, 61, 9, 8)), dy=wide), ("y", "dx")),
            Call("masked", dict(q=queries, k=keys, mask=seen, dy=wide), ("y", "dq", "dk")),
            Call("second", dict(q=queries[:, :13], k=keys[:, :13], v=values, dy=dy[:, :13]), ("dq", "dk", "dv")),
        ],
    )
    running = ("norm.running_mean", "norm.running_var")
    x, dy = signed("batch_norm/x", (6, 5, 3)), signed("batch_norm/dy", (6, 5, 3))
    yield _case(
        "batch_norm",
        [
            Call("evaluate", dict(x=x)),
            Call("forward", dict(x=x), variables=running),
            Call("gradients", dict(x=x[:4], dy=dy[:4]), ("dx", "weight", "bias"), variables=running),
            Call("evaluate", dict(x=x), tag="evaluate_after"),
        ],
        norm__weight=(5,),
        norm__bias=(5,),
    )
    x, h, c, dy = (signed(f"recurrent/{name}", (5, size)) for name, size in (("x", 3), ("h", 4), ("c", 4), ("dy", 4)))
    gru = dict(x=x, h=h)
    lstm = dict(x=x, h=h, c=c)
    yield _case(
        "recurrent",
        [
            Call("gru_forward", gru),
            Call("gru_gradients", dict(gru, dy=dy), ("dx", "dh", "weight_x", "weight_h", "bias_x", "bias_h")),
            Call("lstm_forward", lstm, ("h_next", "c_next")),
            Call("lstm_gradients", dict(lstm, dy=dy), ("dx", "dh", "dc", "weight", "bias")),
        ],
        gru__weight_x=(3, 12),
        gru__weight_h=(4, 12),
        gru__bias_x=(12,),
        gru__bias_h=(12,),
        lstm__gates__weight=(7, 16),
        lstm__gates__bias=(16,),
    )
    x = signed("plain_layers/x", (5, 3, 5))
    yield _case(
        "plain_layers", [Call("flat", dict(x=x)), Call("forward", dict(x=x))], net__2__weight=(15, 4), net__2__bias=(4,)
    )


def _more_layers():
    s = lambda *shape: signed(f"more_layers/{shape}", shape)
    x = s(8, 23)[0] * 2
    large = np.array([0.0, 1e-5, -1e-5, 1000.0, -1000.0, 3.5, -3.5])
    n, two, three, four = 5, ("y", "dx"), ("y", "dx", "dw"), ("y", "dx", "dw", "db")
    yield _case(
        "activations",
        [
            Call("of_elements", dict(x=x), two),
            Call("of_elements", dict(x=large), two, tag="of_large"),
            Call("glu", dict(x=s(n, 6, 2), dy=s(n, 3, 2)), two),
            Call("softmin", dict(x=s(n, 6), dy=s(n, 6)), two),
            Call("prelu_one", dict(x=s(n, 4, 3), dy=s(3, n, 4, 3)[0]), three),
            Call("prelu_many", dict(x=s(n, 4, 3), dy=s(3, n, 4, 3)[0]), three),
        ],
        "elementwise",
        one__weight=(1,),
        many__weight=(4,),
    )
    image, line = dict(x=s(n, 4, 6, 5)), dict(x=s(n, 4, 5))
    yield _case(
        "more_layers",
        [
            Call("bilinear", dict(x=s(n, 3), z=s(n, 4), dy=s(n, 2)), ("y", "dx", "dz", "dw", "db")),
            Call("conv2d_wide", dict(image, dy=s(n, 6, 6, 5)), four),
            Call("conv_transpose1d", dict(line, dy=s(n, 6, 11)), four),
            Call("conv_transpose2d", dict(image, dy=s(n, 2, 16, 10)), four),
            Call("rms_norm", dict(line, dy=s(2, n, 4, 5)[1]), three),
            Call("instance_norm", dict(image, dy=s(2, n, 4, 6, 5)[1]), two),
            Call("instance_norm_affine", dict(line, dy=s(2, n, 4, 5)[1]), four),
            Call("group_norm", dict(line, dy=s(2, n, 4, 5)[1]), four),
            Call("local_response_norm", dict(image, dy=s(2, n, 4, 6, 5)[1]), two),
            Call("pool1d", dict(x=s(n, 4, 11), dy=s(n, 4, 3)), two),
            Call("global_pools", dict(image, dy=s(n, 4)), two),
            Call("adaptive_avg_pool1d", dict(x=s(n, 4, 11), dy=s(n, 4, 3)), two),
            Call("adaptive_avg_pool2d", dict(x=s(n, 4, 7, 6), dy=s(n, 4, 3, 5)), two),
            Call("pad2d", dict(image, dy=s(4, n, 4, 9, 8)), two),
            Call("pad1d", dict(line, dy=s(n, 4, 7)), two),
            Call("upsample2d", dict(image, dy=s(2, n, 4, 12, 10)), two),
            Call("upsample1d", dict(line, dy=s(2, n, 4, 15)), two),
            Call("pixel_shuffle", dict(x=s(n, 8, 3, 2), dy=s(n, 2, 6, 4)), two),
            Call("pixel_unshuffle", dict(x=s(n, 2, 6, 4), dy=s(n, 8, 3, 2)), two),
            Call("channel_shuffle", dict(line, dy=s(2, n, 4, 5)[1]), two),
        ],
        both__weight=(3, 2, 4),
        both__bias=(2,),
        wide__weight=(6, 2, 1, 3),
        wide__bias=(6,),
        line__weight=(4, 3, 4),
        line__bias=(6,),
        back__weight=(4, 2, 3, 2),
        back__bias=(2,),
        rms__weight=(5,),
        affine__weight=(4,),
        affine__bias=(4,),
        groups__weight=(4,),
        groups__bias=(4,),
    )


def _sequences():
    n, t = 4, 5
    s = lambda *shape: signed(f"sequences/{shape}", shape)
    x, last = s(n, t, 3), dict(h=s(4, n, 4), dlast=s(2, 4, n, 4)[0])
    shapes = dict(cell__weight_x=(3, 4), cell__weight_h=(4, 4), cell__bias=(4,))
    shapes |= {f"plain__cells__0__0__{name}": shape for name, shape in (("weight_x", (3, 4)), ("weight_h", (4, 4)), ("bias", (4,)))}
    for level in range(2):
        cin = (3, 8)[level]
        for i in range(2):
            gru, lstm = f"deep__cells__{level}__{i}", f"long__cells__{level}__{i}__gates"
            shapes |= {f"{gru}__weight_x": (cin, 12), f"{gru}__weight_h": (4, 12), f"{gru}__bias_x": (12,), f"{gru}__bias_h": (12,)}
            shapes |= {f"{lstm}__weight": (cin + 4, 16), f"{lstm}__bias": (16,)}
    shapes |= {name.replace("deep", "gated"): shape for name, shape in shapes.items() if name.startswith("deep__cells__0__0__")}
    shapes |= dict(single__cells__0__0__gates__weight=(7, 16), single__cells__0__0__gates__bias=(16,))
    yield _case(
        "sequences",
        [
            Call("rnn_cell", dict(x=x[:, 0], h=s(n, 4), dy=s(2, n, 4)[0]), ("y", "dx", "dh", "dw", "dv", "db")),
            Call("rnn", dict(x=x, dy=s(n, t, 4), dlast=s(1, n, 4)), ("y", "last", "dx", "dw", "dv", "db")),
            Call("gru", dict(x=x, dy=s(n, t, 4), dlast=s(1, n, 4)), ("y", "last", "dx", "dw", "dv", "db", "dc")),
            Call("gru_levels", dict(x=x, h=last["h"]), ("y", "last")),
            Call("lstm", dict(last, x=x, c=s(3, 4, n, 4)[0], dy=s(n, t, 8)), ("y", "last_h", "last_c", "dx", "dh", "dc", "dw", "db")),
            Call("penalty", dict(x=x), ("loss", "dx", "dw")),
            Call("rnn", dict(x=x[:1, :1], dy=s(1, 1, 4), dlast=s(1, 1, 4)), ("y", "last", "dx", "dw", "dv", "db"), tag="rnn_one"),
        ],
        **shapes,
    )


def _attention_layers():
    n, t, m = 4, 5, 3
    s = lambda *shape: signed(f"attention_layers/{shape}", shape)
    x, dy, memory = s(n, t, 6), s(2, n, t, 6)[0], s(n, m, 6)
    seen = integers("attention_layers/seen", (n, t), 2) == 1
    seen[:, 2] = True
    shapes = {}

    def attention(name, bias=True):
        shapes[f"{name}.qkv.weight"], shapes[f"{name}.proj.weight"] = (6, 18), (6, 6)
        if bias:
            shapes[f"{name}.qkv.bias"], shapes[f"{name}.proj.bias"] = (18,), (6,)

    def norm(name):
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (6,)

    def block(name, parts, norms):
        for part in parts:
            attention(f"{name}.{part}")
        for i in range(norms):
            norm(f"{name}.norm{i + 1}")
        shapes.update({f"{name}.feed.0.weight": (6, 8), f"{name}.feed.0.bias": (8,), f"{name}.feed.3.weight": (8, 6), f"{name}.feed.3.bias": (6,)})

    attention("plain")
    attention("causal", bias=False)
    for name in ("encoder", "first", "whole.encoder.0.0"):
        block(name, ["attention"], 2)
    for name in ("decoder", "whole.decoder.0"):
        block(name, ["attention", "cross"], 3)
    norm("whole.encoder.1")
    norm("whole.norm")
    yield _case(
        "attention_layers",
        [
            Call("self", dict(x=x, dy=dy), ("y", "dx", "dw", "db")),
            Call("masked", dict(x=x, seen=seen)),
            Call("cross", dict(x=x, memory=memory, dy=dy), ("y", "dx", "dmemory", "dw", "db")),
            Call("earlier", dict(x=x)),
            Call("encoded", dict(x=x, dy=dy), ("y", "dx", "dw")),
            Call("encoded_first", dict(x=x)),
            Call("decoded", dict(x=x, memory=memory)),
            Call("translated", dict(x=x, source=memory)),
            Call("penalty", dict(x=x), ("loss", "dx", "dw")),
        ],
        **{name.replace(".", "__"): shape for name, shape in shapes.items()},
    )


def _windows():
    s = lambda *shape: signed(f"windows/{shape}", shape)
    n, three, four = 5, ("y", "dx", "dw"), ("y", "dx", "dw", "db")
    yield _case(
        "convolutions",
        [
            Call("plain_layer", dict(x=s(n, 3, 7, 6), dy=s(n, 4, 7, 6)), four),
            Call("line_layer", dict(x=s(n, 3, 11), dy=s(n, 4, 6)), four),
            Call("transposed_layer", dict(x=s(n, 3, 4, 5), dy=s(n, 2, 7, 9)), four),
            Call("strided", dict(x=s(n, 3, 9, 8), w=s(5, 3, 3, 2), dy=s(n, 5, 5, 4)), three),
            Call("spread", dict(x=s(n, 2, 9, 8), w=s(3, 2, 3, 2), dy=s(n, 3, 5, 6)), three),
            Call("grouped", dict(x=s(n, 4, 6, 5), w=s(6, 2, 3, 3), dy=s(n, 6, 6, 5)), three),
            Call("each_channel", dict(x=s(n, 4, 6, 5), w=s(8, 1, 3, 3), dy=s(n, 8, 3, 3)), three),
            Call("pointwise", dict(x=s(n, 5, 4, 7), w=s(3, 5, 1, 1), dy=s(n, 3, 4, 7)), three),
            Call("padded", dict(x=s(n, 2, 3, 4), w=s(2, 2, 2, 3), dy=s(n, 2, 8, 6)), three),
            Call("whole", dict(x=s(n, 2, 4, 3), w=s(3, 2, 4, 3), dy=s(n, 3, 1, 1)), three),
            Call("transposed", dict(x=s(n, 4, 3, 4), w=s(4, 3, 3, 2), dy=s(n, 6, 8, 8)), three),
            Call("transposed_line", dict(x=s(n, 2, 5), w=s(2, 3, 4), dy=s(n, 3, 12)), three),
            Call("second_order", dict(x=s(n, 2, 6, 5), w=s(3, 2, 3, 3)), three),
            Call("strided", dict(x=s(1, 3, 9, 8), w=s(5, 3, 3, 2), dy=s(1, 5, 5, 4)), three, tag="strided_one"),
        ],
        plain__weight=(4, 3, 3, 3),
        plain__bias=(4,),
        line__weight=(4, 3, 5),
        line__bias=(4,),
        back__weight=(3, 2, 3, 3),
        back__bias=(2,),
    )
    two = ("y", "dx")
    ties = integers("windows/ties", (n, 3, 8, 7), 3).astype(np.float64)
    yield _case(
        "pooling",
        [
            Call("max_layer", dict(x=s(n, 3, 8, 7), dy=s(n, 3, 4, 4)), two),
            Call("max_layer", dict(x=ties, dy=s(n, 3, 4, 4)), two, tag="max_ties"),
            Call("max_apart", dict(x=s(n, 3, 8, 7), dy=s(n, 3, 4, 3)), two),
            Call("max_spread", dict(x=s(n, 2, 9, 8), dy=s(n, 2, 7, 6)), two),
            Call("max_line", dict(x=s(n, 2, 40), dy=s(n, 2, 40)), two),
            Call("avg_layer", dict(x=s(n, 3, 8, 7), dy=s(n, 3, 4, 3)), two),
            Call("avg_padded", dict(x=s(n, 3, 8, 7), dy=s(n, 3, 4, 4)), two),
            Call("avg_inside", dict(x=s(n, 3, 8, 7), dy=s(n, 3, 4, 4)), two),
            Call("avg_line", dict(x=s(n, 2, 40), dy=s(n, 2, 38)), two),
        ],
    )


def _losses():
    pair = ("loss", "dscores")
    scores = signed("losses/scores", (9, 7), 4.0)
    label = integers("losses/label", (9,), 7)
    ignored = label.copy()
    ignored[[1, 4, 8]] = -100
    wide = signed("losses/wide", (4, 7, 3), 4.0)
    wide_label = integers("losses/wide_label", (4, 3), 7)
    wide_label[1, 2] = -100
    large = scores * 64
    x, y = signed("losses/x", (9, 3)), signed("losses/y", (9, 3))
    target = uniform((9, 3), "losses/target")
    yield _case(
        "builtin_losses",
        [
            Call("cross_entropy_mean", dict(scores=scores, label=label), pair),
            Call("cross_entropy_mean", dict(scores=scores, label=ignored), pair, tag="cross_entropy_ignored"),
            Call("cross_entropy_mean", dict(scores=large, label=label), pair, tag="cross_entropy_large"),
            Call("cross_entropy_sum", dict(scores=scores, label=ignored), pair),
            Call("cross_entropy_each", dict(scores=scores, label=ignored, dy=signed("losses/dy", (9,))), pair),
            Call("cross_entropy_axis", dict(scores=wide, label=wide_label), pair),
            Call("binary_mean", dict(scores=x, target=target), pair),
            Call("binary_mean", dict(scores=x * 64, target=target), pair, tag="binary_large"),
            Call("binary_sum", dict(scores=x, target=target), pair),
            Call("huber_mean", dict(x=x, y=y), ("loss", "dx")),
            Call("huber_delta", dict(x=x, y=y), ("loss", "dx", "dy")),
            Call("l2", dict(x=x, y=y), ("loss", "dx", "dy")),
        ],
    )


def _library_losses():
    n, one = 9, ("loss", "dx")
    matrix = lambda name: signed(f"library_losses/{name}", (n, 3), 2.0)
    x, y, z = (matrix(name) for name in "xyz")
    p = uniform((n, 3), "library_losses/p")
    sign = np.where(matrix("sign") > 0, 1.0, -1.0)
    every = integers("library_losses/label", (n,), 3)
    label = every.copy()
    label[[2, 5]] = -100
    two = ("loss", "dx", "dy")
    yield _case(
        "library_losses",
        [
            *(Call(f, dict(x=x, y=y), two) for f in ("l1", "l1_sum", "mse", "smooth_l1")),
            Call("binary", dict(p=uniform((n, 3), "library_losses/q"), y=p), ("loss", "dp")),
            *(Call(f, dict(x=x, label=label), one) for f in ("smooth_cross_entropy", "smooth_cross_entropy_sum", "nll")),
            Call("nll_weighted", dict(x=x, label=label, weight=positive("library_losses/weight", (3,))), (*one, "dw")),
            Call("multi_margin", dict(x=x, label=every), one),
            Call("multilabel_soft_margin", dict(x=x, p=p), one),
            Call("kl_divergence", dict(x=x, p=p), ("loss", "dx", "dp")),
            *(Call(f, dict(x=x, sign=sign), one) for f in ("hinge", "hinge_embedding", "soft_margin")),
            Call("margin_ranking", dict(x=x, y=y, sign=sign), two),
            Call("cosine_embedding", dict(x=x, y=y, sign=sign[:, 0]), two),
            Call("triplet", dict(x=x, y=y, z=z), (*two, "dz")),
            Call("poisson", dict(x=x, y=y), one),
            Call("gaussian", dict(x=x, y=y, p=p), (*two, "dp")),
            Call("focal", dict(x=x, p=p), one),
        ],
    )


NET = dict(net__0__weight=(6, 8), net__0__bias=(8,), net__2__weight=(8, 2), net__2__bias=(2,))


def _optimizers():
    x, y = signed("optimizers/x", (9, 6)), signed("optimizers/y", (9, 2))
    names = tuple(name.replace("__", ".") for name in NET)
    others = "amsgrad adamax nadam radam lion rmsprop rmsprop_centered adagrad adagrad_decayed adadelta".split()
    schedules = "cosine warmup exponential stepped milestones straight polynomial restarts one_cycle warm_polynomial warm".split()
    for name, steps in (
        ("optimizer_sgd", ("plain", "decayed", "momentum", "nesterov")),
        ("optimizer_adam", ("adam", "betas", "adamw", "matrices")),
        ("optimizer_common", ("clip_norm", "clip_value", "accumulate", "head")),
        ("optimizer_others", others),
        ("schedules", schedules),
    ):
        count = 20 if name == "optimizer_others" else 12
        calls = [Call(step, dict(x=x, y=y), steps=count, fresh=True, variables=names) for step in steps]
        yield _case(name, calls, "training", **NET)


# How each function of elementwise.dl is called: the range of its argument.
ANYWHERE = (
    "exp tanh sigmoid relu gelu gelu_tanh silu sin cos abs square cube exponent negate "
    "clipped positive_part negative_part chosen guarded_root guarded_log rounded"
).split()
REACH = {"gelu_tanh": 2.0}  # of the argument, instead of 4; below -2 PyTorch's 1 + tanh has lost digits that ours has
POSITIVE = "log sqrt rsqrt reciprocal inverse_square root".split()
OPERATORS = (
    "square cube reciprocal inverse_square root exponent negate "
    "clipped positive_part negative_part chosen guarded_root guarded_log rounded"
).split()
SPECIAL_X = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1000.0, -1000.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5])
# Where functions are asked for their limits, the arguments that have none are left out.
SPECIAL = {
    "exp": SPECIAL_X,
    "log": SPECIAL_X,
    "sqrt": SPECIAL_X,
    "rsqrt": SPECIAL_X,
    "tanh": SPECIAL_X,
    "sigmoid": SPECIAL_X,
    "relu": SPECIAL_X,
    "gelu": SPECIAL_X[[0, 1, 2, 4, 5, 6, 7, 8]],
    "gelu_tanh": SPECIAL_X[[0, 1, 2, 4, 5, 6, 7, 8]],
    "silu": SPECIAL_X[[0, 1, 2, 4, 5, 6, 7, 8]],
    "sin": SPECIAL_X,
    "cos": SPECIAL_X,
    "abs": SPECIAL_X,
    "rounded": SPECIAL_X,
    "positive_part": SPECIAL_X,
    "negative_part": SPECIAL_X,
    "clipped": SPECIAL_X,
    "reciprocal": SPECIAL_X,
    "guarded_root": SPECIAL_X,
    "guarded_log": SPECIAL_X,
}
# At these the derivative is laid down by the language (rule 13) or plain.
KINKS = {
    "relu": np.array([0.0, -0.0, 1.0, -1.0]),
    "abs": np.array([0.0, -0.0, 1.0, -1.0]),
    "positive_part": np.array([0.0, -0.0, 1.0, -1.0]),
    "guarded_root": np.array([0.0, -1.0, 4.0]),
    "guarded_log": np.array([0.0, -1.0, 4.0]),
}


def elementwise_function(name):
    return name if name in OPERATORS else name + "_of"


def _builtins():
    n = 61
    calls = []
    for name in ANYWHERE + POSITIVE:
        x = positive(f"elementwise/{name}", (n,)) if name in POSITIVE else signed(f"elementwise/{name}", (n,), REACH.get(name, 4.0))
        results = ("out",) if name == "rounded" else ("y", "dx")
        calls.append(Call(elementwise_function(name), dict(x=x), results))
    for name, x in SPECIAL.items():
        first = "out" if name == "rounded" else "y"
        calls.append(Call(elementwise_function(name), dict(x=x), (first,), tag=name + "_special"))
    for name, x in KINKS.items():
        calls.append(Call(elementwise_function(name), dict(x=x), ("y", "dx"), tag=name + "_kink"))
    yield _case("elementwise", calls, "elementwise")

    a, b, dy = signed("arithmetic/a", (7, 1)), signed("arithmetic/b", (5,)), signed("arithmetic/dy", (7, 5))
    p, q = positive("arithmetic/p", (7, 1)), positive("arithmetic/q", (5,))
    three = ("y", "da", "db")
    u = np.array([0.0, 1.0, -1.0, 2.0, np.inf, -np.inf, np.nan, np.nan, 3.0])
    v = np.array([-0.0, 1.0, 1.0, -2.0, np.inf, np.inf, np.nan, 1.0, np.nan])
    i, j = integers("arithmetic/i", (9,), 1000) - 500, integers("arithmetic/j", (9,), 50) + 1
    yield _case(
        "arithmetic",
        [
            *(Call(f, dict(a=a, b=b, dy=dy), three) for f in ("add", "subtract", "multiply", "larger", "smaller")),
            Call("divide", dict(a=a, b=q, dy=dy), three),
            Call("power", dict(a=p, b=b, dy=dy), three),
            Call("remainder", dict(a=a, b=q)),
            Call("remainder", dict(a=a, b=-q), tag="remainder_negative"),
            Call("choose", dict(c=a, a=b, b=signed("arithmetic/m", (7, 5)), dy=dy), three),
            Call("compare", dict(a=u, b=v), ("equal", "unequal", "less", "less_equal", "greater", "greater_equal")),
            Call("logic", dict(a=u, b=v), ("both", "either", "neither")),
            Call("integers", dict(a=i, b=j), ("total", "difference", "product", "modulus", "largest", "as_float")),
        ],
    )

    x = signed("reductions/x", (4, 5, 3))
    ties = integers("reductions/ties", (4, 5, 3), 3).astype(np.float64)
    long = signed("reductions/long", (3, 1000))
    two = ("y", "dx")
    dy3, dy5 = signed("reductions/dy3", (4, 3)), signed("reductions/dy5", (4, 5))
    yield _case(
        "reductions",
        [
            *(Call(f, dict(x=x), two) for f in ("sum_all", "mean_all", "max_all", "min_all")),
            Call("sum_axis", dict(x=x, dy=dy3), two),
            Call("mean_axes", dict(x=x, dy=dy5[0]), two),
            Call("mean_kept", dict(x=x, dy=dy5[:, :, None]), two),
            Call("sum_first", dict(x=x, dy=x[0]), two),
            Call("max_axis", dict(x=x, dy=dy3), two),
            Call("max_axis", dict(x=ties, dy=dy3), two, tag="max_ties"),
            Call("min_axis", dict(x=x, dy=dy5), two),
            Call("min_axis", dict(x=ties, dy=dy5), two, tag="min_ties"),
            Call("argmax_axis", dict(x=x)),
            Call("argmax_axis", dict(x=ties), tag="argmax_ties"),
            Call("argmin_axis", dict(x=x)),
            Call("argmin_axis", dict(x=ties), tag="argmin_ties"),
            *(Call(f, dict(x=x, dy=signed("reductions/dy", (4, 5, 3))), two) for f in ("softmax_last", "softmax_axis")),
            Call("softmax_last", dict(x=x * 512, dy=x), two, tag="softmax_large"),
            Call("any_axis", dict(x=x)),
            Call("all_axis", dict(x=x)),
            Call("sum_long", dict(x=long, dy=dy3[:3, 0]), two),
            Call("sum_columns", dict(x=long, dy=long[0]), two),
        ],
    )

    x = signed("shapes/x", (5, 4, 6))
    s = lambda *shape: signed(f"shapes/{shape}", shape)
    yield _case(
        "shapes",
        [
            Call("reshaped", dict(x=x, dy=s(5, 8, 3)), two),
            Call("transposed", dict(x=x, dy=s(6, 5, 4)), two),
            Call("flipped", dict(x=x[:, 0], dy=s(6, 5)), two),
            Call("joined", dict(a=s(5, 3), b=s(5, 5), dy=s(5, 8)), three),
            Call("stacked", dict(a=s(5, 3), b=-2 * s(5, 3), dy=s(5, 2, 3)), three),
            Call("parted", dict(x=x, dy=s(5, 4, 2)), ("p", "q", "r", "dx")),
            Call("picked", dict(x=x, dy=s(5, 6)), two),
            Call("sliced", dict(x=x, dy=s(5, 2, 3)), two),
            Call("last", dict(x=x, dy=s(5, 4)), two),
            Call("widened", dict(x=x[:, 0, 0], dy=s(5, 4)), two),
            Call("counted", dict(x=x[:, 0, 0]), ("numbers", "table")),
        ],
    )

    n = 17
    s = lambda *shape: signed(f"products/{shape}", shape)
    yield _case(
        "products",
        [
            Call("plain", dict(a=s(n, 133), b=s(133, 45), dy=s(n, 45)), three),
            Call("left_transposed", dict(a=s(9, n), b=s(9, 4), dy=s(n, 4)), three),
            Call("right_transposed", dict(a=s(n, 9), b=s(4, 9), dy=s(n, 4)), three),
            Call("both_transposed", dict(a=s(9, n), b=s(4, 9), dy=s(n, 4)), three),
            Call("shared_right", dict(a=s(n, 3, 9), b=s(9, 4), dy=s(n, 3, 4)), three),
            Call("batched", dict(a=s(n, 3, 9), b=s(n, 9, 4), dy=s(n, 3, 4)), three),
            Call("by_vector", dict(a=s(n, 9), b=s(9), dy=s(n)), three),
            Call("of_vector", dict(a=s(9), b=s(9, 4), dy=s(4)), three),
            Call("inner", dict(a=s(n), b=-s(n) / 2), three),
            Call("second_order", dict(a=s(n, 9) / 4, b=s(9, 4)), ("y", "db")),
        ],
    )


def _precisions():
    n, d, h, k = 8, 20, 12, 5
    s = lambda *shape: signed(f"precision/{shape}", shape)
    x, label = s(n, d), integers("precision/label", (n,), k)
    image = s(n, 2, 6, 6)
    net = ("net.0.weight", "net.0.bias", "net.2.weight", "net.2.bias")
    net2 = ("net2.0.weight", "net2.0.bias", "net2.3.weight", "net2.3.bias")
    shapes = dict(net__0__weight=(d, h), net__0__bias=(h,), net__2__weight=(h, k), net__2__bias=(k,))
    shapes |= dict(net2__0__weight=(3, 2, 3, 3), net2__0__bias=(3,), net2__3__weight=(108, k), net2__3__bias=(k,))
    for kind in ("bf16", "f16"):
        scale = tuple(f"{{}}.{name}" for name in ("loss_scale", "good_steps")) if kind == "f16" else ()
        scaled = lambda step: tuple(name.format(step) for name in scale)
        calls = [
            Call("scores", dict(x=x)),
            Call("gradients", dict(x=x, label=label), ("loss", "dx", "dw0", "dw2")),
            Call("convolved", dict(x=image, w=s(4, 2, 3, 3), dy=s(n, 4, 3, 3)), ("y", "dx", "dw")),
            Call("attended", dict(q=s(2, 7, 2, 4), k=s(1, 2, 7, 2, 4)[0], v=s(2, 7, 2, 3), dy=s(1, 2, 7, 2, 3)[0]), ("y", "dq", "dk", "dv")),
            Call("products", dict(a=s(3, 4, 9), b=s(9, 6), c=s(9)), ("y", "z")),
            Call("step", dict(x=x, label=label), steps=20, fresh=True, variables=net),
            Call("image_step", dict(x=image, label=label), steps=20, fresh=True, variables=net2),
        ]
        if kind == "f16":  # the scales that torch.amp.GradScaler goes through; in f64 there are none
            for steps in (1, 2, 3, 20):
                calls.append(
                    Call("large_step", dict(x=x, label=label), tag=f"large_step_{steps}", steps=steps, fresh=True, variables=(*net, *scaled("large_step")), reals=("f32",))
                )
        yield Case(
            f"precision_{kind}",
            os.path.join(HERE, "cases", "precision.dl"),
            calls,
            _weights("precision", **shapes),
            edit=("precision bf16", f"precision {kind}"),
            tolerance="training",
        )


def cases():
    return [*_programs(), *_precisions(), *_layers(), *_more_layers(), *_sequences(), *_attention_layers(), *_windows(), *_losses(), *_library_losses(), *_optimizers(), *_builtins()]
