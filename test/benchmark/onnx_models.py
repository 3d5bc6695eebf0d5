#!/usr/bin/env python3
#===- onnx_models.py - the networks that only infer, as ONNX files -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""onnx_models.py FOLDER CASE…: writes FOLDER/CASE.onnx, where it is not newer than what it is made of."""

import os
import sys

sys.dont_write_bytecode = True

import cases
import data
import networks


def build(name, batch):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights, nodes, count = data.network(name), [], 0

    def node(kind, inputs, **attributes):
        nonlocal count
        count += 1
        nodes.append(helper.make_node(kind, inputs, [f"t{count}"], **attributes))
        return f"t{count}"

    def chain(layers, x):
        for layer in layers:
            kind, at = layer["kind"], layer.get("name")
            window = {}
            if kind in ("conv", "max_pool"):
                window = dict(kernel_shape=[layer["kernel"]] * 2, strides=[layer["stride"]] * 2, pads=[layer["padding"]] * 4)
            if kind == "conv":
                x = node("Conv", [x, at + ".weight", *([at + ".bias"] if layer["bias"] else [])], **window)
            elif kind == "bn":
                names = [f"{at}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
                x = node("BatchNormalization", [x, *names], epsilon=1e-5)
            elif kind == "relu":
                x = node("Relu", [x])
            elif kind == "max_pool":
                x = node("MaxPool", [x], **window)
            elif kind == "mean":
                x = node("Flatten", [node("GlobalAveragePool", [x])])
            elif kind == "flatten":
                x = node("Flatten", [x])
            elif kind == "linear":
                x = node("Gemm", [x, at + ".weight", at + ".bias"])
            elif kind == "block":
                y = chain(layer["layers"], x)
                x = node("Relu", [node("Add", [y, chain(layer["skip"], x)])])
        return x

    last = chain(networks.MAKE[name](), "x")
    nodes[-1].output[0] = "y"
    assert last == f"t{count}"
    value = lambda name, *shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, name, [value("x", batch, 3, 224, 224)], [value("y", batch, 1000)], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def main():
    folder, *names = sys.argv[1:]
    here = os.path.dirname(os.path.abspath(__file__))
    changed = max(os.path.getmtime(os.path.join(here, name)) for name in ("data.py", "networks.py", "onnx_models.py"))
    os.makedirs(folder, exist_ok=True)
    for case in names:
        path = os.path.join(folder, case + ".onnx")
        if os.path.exists(path) and os.path.getmtime(path) > changed:
            continue
        with open(path + ".part", "wb") as file:
            file.write(build(*cases.network_of(case)).SerializeToString())
        os.replace(path + ".part", path)


if __name__ == "__main__":
    main()
