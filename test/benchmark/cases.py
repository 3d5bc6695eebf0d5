#===- cases.py - the benchmark's cases -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Every peer starts a case from the same NumPy weights and data, so `check` (the loss that step number `check_steps`
returns, or a figure of the product or of the outputs) must agree between peers.

A new case is an entry of CASES with its program, a branch of data.make(), of models_jax.loss_function(), of
models_torch.make() and of peer_tf.py, and its names in peer_dlc.variables(). A new case of inference is an entry, a
function of networks.py, a program, and its names.
"""

from dataclasses import dataclass, field

GEMM_SIZES = [(1024, 1024, 1024), (2048, 2048, 2048), (64, 1000, 100)]  # M, K, N
CUDA_GEMM_SIZES = [(1024, 1024, 1024), (2048, 2048, 2048), (4096, 4096, 4096)]


def gemm_sizes(options):
    return options.sizes or (CUDA_GEMM_SIZES if options.device == "cuda" else GEMM_SIZES)


@dataclass(frozen=True)
class Case:
    words: str
    program: str = ""  # from the root of the repository
    defines: dict = field(default_factory=dict)  # -D
    optimizer: str = ""  # sgd | adam | adamw; none of them: inference
    lr: float = 0.0
    momentum: float = 0.0
    decay: float = 0.0  # adamw: taken off the weights; else added to the gradients
    clip: float = 0.0  # the largest norm of all gradients together; 0: any
    check_steps: int = 5

    @property
    def function(self):
        return "step" if self.optimizer else "predict"

    def defined(self):
        """The words of -D, as dlc takes them."""
        return [word for name, value in self.defines.items() for word in ("-D", f"{name}={value}")]


PROGRAMS = "test/benchmark/programs/"
WIDE = {"K": 1000, "scale": 0.1}
CASES = {
    "F": Case("matrix products in f32", PROGRAMS + "gemm.dl"),
    "A1_sgd": Case(
        "two layers 1000-100-10, relu, no bias, batch 64, sum of squares, SGD 1e-6",
        PROGRAMS + "two_layer_sgd.dl", {}, "sgd", 1e-6,
    ),
    "A1_adam": Case(
        "two layers 1000-100-10, relu, no bias, batch 64, sum of squares, Adam 1e-4",
        PROGRAMS + "two_layer_adam.dl", {}, "adam", 1e-4,
    ),
    "A2_sgd": Case(
        "two layers 1000-100-1000, relu, no bias, batch 64, sum of squares, SGD 1e-6",
        PROGRAMS + "two_layer_sgd.dl", WIDE, "sgd", 1e-6,
    ),
    "A2_adam": Case(
        "two layers 1000-100-1000, relu, no bias, batch 64, sum of squares, Adam 1e-4",
        PROGRAMS + "two_layer_adam.dl", WIDE, "adam", 1e-4,
    ),
    "B": Case(
        "MLP 784-512-512-10, relu, batch 128, cross entropy, Adam 1e-3",
        PROGRAMS + "mlp.dl", {}, "adam", 1e-3,
    ),
    "C": Case(
        "LeNet, 28×28, batch 64, cross entropy, SGD 0.01, momentum 0.9",
        "examples/lenet.dl", {"N": 64}, "sgd", 0.01, momentum=0.9,
    ),
    "D": Case(
        "ResNet-18, 3×64×64, batch 16, batch norm in training, 1000 classes, cross entropy, SGD 0.01, momentum 0.9, weight decay 1e-4",
        "examples/resnet18.dl", {"N": 16, "S": 64}, "sgd", 0.01, momentum=0.9, decay=1e-4, check_steps=2,
    ),
    "E": Case(
        "GPT, 4 layers of 256 with 4 heads, 128 tokens of 256, batch 8, AdamW 3e-4, weight decay 0.1",
        "examples/gpt.dl", {}, "adamw", 3e-4, decay=0.1,
    ),
    "G": Case(
        "LSTM of 256 over 64 characters of 128, batch 32, a prediction for each, Adam 1e-3, gradients clipped to a norm of 1",
        "examples/char_lstm.dl", {}, "adam", 1e-3, clip=1.0,
    ),
}
NETWORKS = {"alexnet": "AlexNet", "vgg16": "VGG-16", "resnet50": "ResNet-50"}
for _name, _words in NETWORKS.items():
    for _batch in (1, 8):
        CASES[f"{_name}_b{_batch}"] = Case(
            f"{_words}, inference, 3×224×224, batch {_batch}", f"{PROGRAMS}{_name}.dl", {"N": _batch}
        )
GROUPS = {
    "F": ["F"],
    "A1": ["A1_sgd", "A1_adam"],
    "A2": ["A2_sgd", "A2_adam"],
    **{name: [name] for name in "BCDEG"},
    "infer": [f"{name}_b{batch}" for name in NETWORKS for batch in (1, 8)],
}


def network_of(case):
    """-> (network, batch) of a case of inference"""
    name, _, batch = case.rpartition("_b")
    return name, int(batch)
