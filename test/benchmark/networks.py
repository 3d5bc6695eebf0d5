#===- networks.py - the networks that only infer, as lists of layers -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""What data.py draws weights for, onnx_models.py makes graphs of, and peer_dlc.py names the variables of: the networks
as torchvision has them, each a list of

    conv(name, channels, kernel, stride, padding, bias)    bn(name)    relu()    max_pool(kernel, stride, padding)
    mean()    flatten()    linear(name, features)    block(layers, skip)

where a block is the relu of the sum of two lists, of which the second, if it is empty, is what came in. Names are the
paths of the variables in programs/NETWORK.dl.
"""


def conv(name, channels, kernel, stride=1, padding=0, bias=True):
    return dict(kind="conv", name=name, channels=channels, kernel=kernel, stride=stride, padding=padding, bias=bias)


def bn(name):
    return dict(kind="bn", name=name)


def relu():
    return dict(kind="relu")


def max_pool(kernel, stride, padding=0):
    return dict(kind="max_pool", kernel=kernel, stride=stride, padding=padding)


def mean():
    return dict(kind="mean")


def flatten():
    return dict(kind="flatten")


def linear(name, features):
    return dict(kind="linear", name=name, features=features)


def block(layers, skip):
    return dict(kind="block", layers=layers, skip=skip)


def alexnet():
    net = [conv("net.0", 64, 11, 4, 2), relu(), max_pool(3, 2), conv("net.3", 192, 5, 1, 2), relu(), max_pool(3, 2)]
    net += [conv("net.6", 384, 3, 1, 1), relu(), conv("net.8", 256, 3, 1, 1), relu(), conv("net.10", 256, 3, 1, 1), relu()]
    net += [max_pool(3, 2), flatten(), linear("net.14", 4096), relu(), linear("net.16", 4096), relu(), linear("net.18", 1000)]
    return net


def vgg16():
    net = []
    for stage, (channels, depth) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]):
        for i in range(depth):
            net += [conv(f"stages.{stage}.convolutions.{i}", channels, 3, 1, 1), relu()]
        net.append(max_pool(2, 2))
    return net + [flatten(), linear("head.1", 4096), relu(), linear("head.3", 4096), relu(), linear("head.5", 1000)]


def resnet50():
    net = [conv("stem", 64, 7, 2, 3, bias=False), bn("stem_bn"), relu(), max_pool(3, 2, 1)]
    number = 0
    for stage, depth in enumerate([3, 4, 6, 3]):
        for i in range(depth):
            at, middle, stride = f"blocks.{number}", 64 << stage, 2 if i == 0 and stage > 0 else 1
            layers = []
            for k, (channels, kernel) in enumerate([(middle, 1), (middle, 3), (4 * middle, 1)]):
                layers.append(conv(f"{at}.conv{k + 1}", channels, kernel, stride if k == 1 else 1, kernel // 2, bias=False))
                layers += [bn(f"{at}.bn{k + 1}"), *([relu()] if k < 2 else [])]
            skip = [conv(f"{at}.skip.0", 4 * middle, 1, stride, bias=False), bn(f"{at}.skip.1")] if i == 0 else []
            net.append(block(layers, skip))
            number += 1
    return net + [mean(), linear("head", 1000)]


def walk(layers, channels, size, visit):
    """Calls visit(layer, channels, size) with what comes into each layer, in order; -> (channels, size) that come out.
    `size` is that of both spatial axes, None behind flatten() and mean(), where `channels` counts all features."""
    for layer in layers:
        kind = layer["kind"]
        visit(layer, channels, size)
        if kind == "block":
            before = channels, size
            channels, size = walk(layer["layers"], *before, visit)
            if layer["skip"] and walk(layer["skip"], *before, visit) != (channels, size):
                raise ValueError("the two ways of a block give different shapes")
        elif kind in ("conv", "max_pool"):
            size = (size + 2 * layer["padding"] - layer["kernel"]) // layer["stride"] + 1
            channels = layer.get("channels", channels)
        elif kind == "mean":
            size = None
        elif kind == "flatten":
            channels, size = channels * size * size, None
        elif kind == "linear":
            channels = layer["features"]
    return channels, size


MAKE = dict(alexnet=alexnet, vgg16=vgg16, resnet50=resnet50)
