#===- peer_jax.py - training on JAX: one jitted step, its state donated -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
import time

from timing import arguments, emit, measure, peak_memory_mb, since_start

a = arguments()

import cases
import data
import jax
import jax.numpy as jnp
import models_jax

import_s = since_start()
if a.device == "cuda":  # f32 as the others have it; by itself JAX takes TF32
    jax.config.update("jax_default_matmul_precision", "highest")
state = list(jax.tree_util.tree_map(jnp.asarray, models_jax.state(a.case)))
x, y = state[5:]
step = jax.jit(models_jax.make_step(a.case), donate_argnums=(0, 1, 2, 3, 4))
begin = time.perf_counter()
*state, loss = step(*state[:5], x, y)
loss = float(loss)
compile_s, first_result_s = time.perf_counter() - begin, since_start()
for _ in range(cases.CASES[a.case].check_steps - 1):
    *state, loss = step(*state, x, y)


def run(n):
    global state
    for _ in range(n):
        *state, last = step(*state, x, y)
    jax.block_until_ready((state, last))


def run_from_host(n):
    """As a training loop has it, and as dlrun bench does: the batch comes from the host, the loss goes back, each step."""
    global state
    for _ in range(n):
        *state, last = step(*state, *jax.device_put(host))
        float(last)


host = jax.device_get((x, y))
times = {} if a.check_only else measure(run_from_host if a.device == "cuda" else run)
if times and a.device == "cuda":
    times["resident_ms"] = measure(run)["ms"]
emit(
    peer="jax",
    mode="jit",
    case=a.case,
    threads=a.threads,
    check=float(loss),
    import_s=import_s,
    compile_s=round(compile_s, 3),
    first_result_s=first_result_s,
    version=jax.__version__,
    **times,
    rss_mb=peak_memory_mb(),
)
