#===- peer_torch.py - training on PyTorch -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Modes: eager; eager_fused, with the fused Adam; compile, forward, backward and update in one compiled graph; the same with torch.compile's own modes
max-autotune and reduce-overhead, which on a GPU replay it as a CUDA graph."""

import time

from timing import arguments, emit, measure, peak_memory_mb, since_start

a = arguments()

import cases
import data
import torch
import torch.nn.functional as F

import_s = since_start()
torch.set_num_threads(a.threads)
case = cases.CASES[a.case]
GRAPHS = ("max-autotune", "reduce-overhead")


class Net(torch.nn.Module):
    """The matrices w1, w2, … with their biases b1, b2, … if there are any; relu between."""

    def __init__(self, name, weights):
        super().__init__()
        self.name = name
        self.layers = torch.nn.ModuleList()
        for key in [key for key in weights if key[0] == "w"]:
            cout, cin = weights[key].shape
            bias = weights.get("b" + key[1:])
            layer = torch.nn.Linear(cin, cout, bias=bias is not None)
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(weights[key]))
                if bias is not None:
                    layer.bias.copy_(torch.from_numpy(bias))
            self.layers.append(layer)

    def forward(self, x, y):
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        x = self.layers[-1](x)
        return F.cross_entropy(x, y) if self.name == "B" else (x - y).pow(2).sum()


def eager(net, x, y, fused):
    parameters = list(net.parameters())
    settings = dict(fused=True) if fused else {}
    make = torch.optim.SGD if case.optimizer == "sgd" else torch.optim.Adam
    optimizer = make(parameters, lr=case.lr, **settings)

    def step():
        optimizer.zero_grad()
        loss = net(x, y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def compiled(net, x, y):
    names = [name for name, _ in net.named_parameters()]
    values = [parameter.detach() for parameter in net.parameters()]
    m, v = ([torch.zeros_like(value) for value in values] for _ in range(2))
    t = torch.zeros((), device=x.device)
    # A CUDA graph may change what stays in its place; otherwise torch.compile would not make one.
    for tensor in [*values, *m, *v, t, x, y] if a.mode in GRAPHS else []:
        torch._dynamo.mark_static_address(tensor)

    def loss_of(values, x, y):
        return torch.func.functional_call(net, dict(zip(names, values)), (x, y))

    grad_and_value = torch.func.grad_and_value(loss_of)

    def step(values, m, v, t, x, y):
        grads, loss = grad_and_value(values, x, y)
        if case.optimizer == "sgd":
            for value, g in zip(values, grads):
                value.sub_(case.lr * g)
            return loss
        t.add_(1)
        c1, c2 = 1 - 0.9**t, (1 - 0.999**t).sqrt()
        for value, g, mean, square in zip(values, grads, m, v):
            mean.mul_(0.9).add_(g, alpha=0.1)
            square.mul_(0.999).addcmul_(g, g, value=0.001)
            value.sub_(case.lr / c1 * mean / (square.sqrt() / c2 + 1e-8))
        return loss

    step = torch.compile(step, mode=a.mode if a.mode in GRAPHS else None)

    def one():
        if a.mode in GRAPHS:
            torch.compiler.cudagraph_mark_step_begin()
        with torch.no_grad():
            return step(values, m, v, t, x, y)

    return one


weights, x, y = data.make(a.case)
net = Net(a.case, weights).train().to(a.device)
host = [torch.from_numpy(x), torch.from_numpy(y).long() if a.case == "B" else torch.from_numpy(y)]
if a.device == "cuda":
    host = [tensor.pin_memory() for tensor in host]
x, y = (tensor.to(a.device) for tensor in host)
one = compiled(net, x, y) if a.mode in ("compile", *GRAPHS) else eager(net, x, y, a.mode == "eager_fused")
begin = time.perf_counter()
loss = float(one().detach())
compile_s, first_result_s = time.perf_counter() - begin, since_start()
for _ in range(cases.CHECK_STEPS - 1):
    loss = float(one().detach())


def run(n):
    for _ in range(n):
        one()
    if a.device == "cuda":
        torch.cuda.synchronize()


def run_from_host(n):
    """As a training loop has it, and as dlrun bench does: the batch comes from the host, the loss goes back, each step."""
    for _ in range(n):
        x.copy_(host[0], non_blocking=True)
        y.copy_(host[1], non_blocking=True)
        float(one().detach())


times = {} if a.check_only else measure(run_from_host if a.device == "cuda" else run)
if a.device == "cuda":
    if times:
        times["resident_ms"] = measure(run)["ms"]
    if a.mode in GRAPHS:
        times["graphs_left_out"] = sum(
            count
            for name, count in torch._dynamo.utils.counters["inductor"].items()
            if name.startswith("cudagraph_skips")
        )
emit(
    peer="torch",
    mode=a.mode,
    case=a.case,
    threads=a.threads,
    check=loss,
    import_s=import_s,
    compile_s=round(compile_s, 3),
    first_result_s=first_result_s,
    version=torch.__version__,
    **times,
    rss_mb=peak_memory_mb(),
)
