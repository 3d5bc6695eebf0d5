#===- peer_torch.py - training on PyTorch -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Modes: eager; eager_fused, with the fused optimizer; compile, forward, backward and update in one compiled graph; the same with torch.compile's own modes
max-autotune and reduce-overhead, which on a GPU replay it as a CUDA graph."""

import time

from timing import arguments, emit, measure, peak_memory_mb, since_start

a = arguments()

import cases
import data
import models_torch
import torch

import_s = since_start()
torch.set_num_threads(a.threads)
torch.backends.cudnn.allow_tf32 = False  # f32 as the others have it
case = cases.CASES[a.case]
GRAPHS = ("max-autotune", "reduce-overhead")


def eager(net, x, y, fused):
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    settings = dict(fused=True) if fused else {}
    if case.optimizer == "sgd":
        settings.update(momentum=case.momentum)
    make = dict(sgd=torch.optim.SGD, adam=torch.optim.Adam, adamw=torch.optim.AdamW)[case.optimizer]
    optimizer = make(parameters, lr=case.lr, weight_decay=case.decay, **settings)

    def step():
        optimizer.zero_grad()
        loss = net(x, y)
        loss.backward()
        if case.clip:
            torch.nn.utils.clip_grad_norm_(parameters, case.clip)
        optimizer.step()
        return loss

    return step


def compiled(net, x, y):
    names, values = [], []
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            names.append(name)
            values.append(parameter.detach())
    others = {name: value for name, value in net.named_parameters() if not value.requires_grad}
    others.update(net.named_buffers())
    other_names, other_values = list(others), [value.detach() for value in others.values()]
    m, v = ([torch.zeros_like(value) for value in values] for _ in range(2))
    t = torch.zeros((), device=x.device)
    # A CUDA graph may change what stays in its place; otherwise torch.compile would not make one.
    for tensor in [*values, *other_values, *m, *v, t, x, y] if a.mode in GRAPHS else []:
        torch._dynamo.mark_static_address(tensor)

    def loss_of(values, others, x, y):
        return torch.func.functional_call(net, {**dict(zip(names, values)), **dict(zip(other_names, others))}, (x, y))

    grad_and_value = torch.func.grad_and_value(loss_of)

    def step(values, others, m, v, t, x, y):
        grads, loss = grad_and_value(values, others, x, y)
        if case.clip:
            norm = torch.stack([g.square().sum() for g in grads]).sum().sqrt()
            scale = torch.clamp(case.clip / (norm + 1e-6), max=1.0)
            grads = [g * scale for g in grads]
        if case.optimizer == "sgd":
            for value, g, speed in zip(values, grads, m):
                if case.decay:
                    g = g + case.decay * value
                if case.momentum:
                    g = speed.mul_(case.momentum).add_(g)
                value.sub_(case.lr * g)
            return loss
        t.add_(1)
        c1, c2 = 1 - 0.9**t, (1 - 0.999**t).sqrt()
        for value, g, mean, square in zip(values, grads, m, v):
            mean.mul_(0.9).add_(g, alpha=0.1)
            square.mul_(0.999).addcmul_(g, g, value=0.001)
            if case.optimizer == "adamw":
                value.mul_(1 - case.lr * case.decay)
            value.sub_(case.lr / c1 * mean / (square.sqrt() / c2 + 1e-8))
        return loss

    step = torch.compile(step, mode=a.mode if a.mode in GRAPHS else None)

    def one():
        if a.mode in GRAPHS:
            torch.compiler.cudagraph_mark_step_begin()
        with torch.no_grad():
            return step(values, other_values, m, v, t, x, y)

    return one


weights, x, y = data.make(a.case)
net = models_torch.make(a.case, weights).train().to(a.device)
host = [torch.from_numpy(value).long() if value.dtype.kind == "i" else torch.from_numpy(value) for value in (x, y)]
if a.device == "cuda":
    host = [tensor.pin_memory() for tensor in host]
x, y = (tensor.to(a.device) for tensor in host)
one = compiled(net, x, y) if a.mode in ("compile", *GRAPHS) else eager(net, x, y, a.mode == "eager_fused")
begin = time.perf_counter()
loss = float(one().detach())
compile_s, first_result_s = time.perf_counter() - begin, since_start()
for _ in range(cases.CASES[a.case].check_steps - 1):
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
