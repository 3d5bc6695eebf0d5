#===- models_torch.py - the cases as PyTorch modules -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
import data
import torch
import torch.nn.functional as F
from torch import nn


def tensor(value):
    return torch.from_numpy(value.copy())


class Multilayer(nn.Module):
    """Cases A and B: the matrices w1, w2, … with their biases b1, b2, … if there are any; relu between."""

    def __init__(self, name, weights):
        super().__init__()
        self.name = name
        self.layers = nn.ModuleList()
        for key in [key for key in weights if key[0] == "w"]:
            cout, cin = weights[key].shape
            bias = weights.get("b" + key[1:])
            layer = nn.Linear(cin, cout, bias=bias is not None)
            with torch.no_grad():
                layer.weight.copy_(tensor(weights[key]))
                if bias is not None:
                    layer.bias.copy_(tensor(bias))
            self.layers.append(layer)

    def forward(self, x, y):
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        x = self.layers[-1](x)
        return F.cross_entropy(x, y) if self.name == "B" else (x - y).pow(2).sum()


class Parameters(nn.Module):
    """The weights under their names, '.' as '_'."""

    def __init__(self, weights):
        super().__init__()
        for name, value in weights.items():
            self.register_parameter(self.key(name), nn.Parameter(tensor(value)))

    @staticmethod
    def key(name):
        name = name.replace(".", "_")
        return "_" + name if name[0].isdigit() else name

    def at(self, name):
        return getattr(self, self.key(name))


class LeNet(Parameters):
    def forward(self, x, y):
        x = x.view(-1, 1, 28, 28)
        x = F.max_pool2d(torch.relu(F.conv2d(x, self.c1, self.cb1, padding=2)), 2)
        x = F.max_pool2d(torch.relu(F.conv2d(x, self.c2, self.cb2)), 2).flatten(1)
        x = torch.relu(F.linear(x, self.w1, self.b1))
        x = torch.relu(F.linear(x, self.w2, self.b2))
        return F.cross_entropy(F.linear(x, self.w3, self.b3), y)


class ResNet18(nn.Module):
    """Modules under torchvision's names."""

    class Block(nn.Module):
        def __init__(self, cin, cout, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(cout)
            self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(cout)
            if stride != 1 or cin != cout:
                self.downsample = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

        def forward(self, x):
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            return torch.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))

    def __init__(self, weights):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        for stage in range(1, 5):
            blocks = [b for b in data.resnet18_blocks() if b[0].startswith(f"layer{stage}.")]
            setattr(self, f"layer{stage}", nn.Sequential(*(self.Block(*b[1:]) for b in blocks)))
        self.fc = nn.Linear(512, 1000)
        lacking = self.load_state_dict({name: tensor(value) for name, value in weights.items()}, strict=False)
        assert not lacking.unexpected_keys, lacking
        # How many steps there were counts for nobody.
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.num_batches_tracked = None

    def forward(self, x, y):
        x = F.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return F.cross_entropy(self.fc(x.mean((2, 3))), y)


class Gpt(Parameters):
    def forward(self, x, y):
        d, heads = data.GPT["width"], data.GPT["heads"]
        batch, tokens = x.shape
        h = F.embedding(x, self.wte) + self.wpe
        for i in range(data.GPT["layers"]):
            w = lambda name: self.at(f"{i}.{name}")
            u = F.linear(F.layer_norm(h, (d,), w("ln1w"), w("ln1b")), w("qkvw"), w("qkvb"))
            q, k, v = (t.view(batch, tokens, heads, d // heads).transpose(1, 2) for t in u.split(d, 2))
            o = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, tokens, d)
            h = h + F.linear(o, w("ow"), w("ob"))
            u = F.layer_norm(h, (d,), w("ln2w"), w("ln2b"))
            h = h + F.linear(F.gelu(F.linear(u, w("fw"), w("fb"))), w("pw"), w("pb"))
        scores = F.linear(F.layer_norm(h, (d,), self.lnfw, self.lnfb), self.head)
        return F.cross_entropy(scores.flatten(0, 1), y.flatten())


class CharLstm(nn.Module):
    def __init__(self, weights):
        super().__init__()
        h, vocabulary = data.LSTM["width"], data.LSTM["vocabulary"]
        self.embed = nn.Embedding(vocabulary, h)
        self.lstm = nn.LSTM(h, h, batch_first=True)
        self.head = nn.Linear(h, vocabulary)
        # PyTorch has two biases, which are added; one of them is enough.
        self.lstm.bias_hh_l0.requires_grad_(False)
        places = [
            (self.embed.weight, weights["embed"]),
            (self.lstm.weight_ih_l0, weights["gates"][:, :h]),
            (self.lstm.weight_hh_l0, weights["gates"][:, h:]),
            (self.lstm.bias_ih_l0, weights["gates_bias"]),
            (self.lstm.bias_hh_l0, 0 * weights["gates_bias"]),
            (self.head.weight, weights["head"]),
            (self.head.bias, weights["head_bias"]),
        ]
        with torch.no_grad():
            for parameter, value in places:
                parameter.copy_(tensor(value))

    def forward(self, x, y):
        states, _ = self.lstm(self.embed(x))
        return F.cross_entropy(self.head(states).flatten(0, 1), y.flatten())


def make(name, weights):
    """-> a module that gives the loss of (x, y)"""
    if name[0] == "A" or name == "B":
        return Multilayer(name, weights)
    return {"C": LeNet, "D": ResNet18, "E": Gpt, "G": CharLstm}[name](weights)
