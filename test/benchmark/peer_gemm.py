#===- peer_gemm.py - case F on NumPy (OpenBLAS), torch or JAX -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
from timing import arguments, emit, measure, peak_memory_mb

a = arguments()

import cases
import data
import numpy as np

for size in cases.gemm_sizes(a):
    x, y = data.gemm_operands(size)
    if a.mode == "numpy":
        version, out = np.__version__, np.empty((size[0], size[2]), np.float32)

        def run(n):
            for _ in range(n):
                np.matmul(x, y, out=out)

        run(1)
    elif a.mode == "torch":
        import torch

        torch.set_num_threads(a.threads)
        version, tx, ty, result = (
            torch.__version__,
            torch.from_numpy(x).to(a.device),
            torch.from_numpy(y).to(a.device),
            torch.empty(size[0], size[2], device=a.device),
        )

        def run(n):
            for _ in range(n):
                torch.mm(tx, ty, out=result)
            if a.device == "cuda":
                torch.cuda.synchronize()

        run(1)
        out = result.cpu()
    elif a.mode == "jax":
        import jax
        import jax.numpy as jnp

        if a.device == "cuda":  # f32 as the others have it; by itself JAX takes TF32
            jax.config.update("jax_default_matmul_precision", "highest")
        version, jx, jy, product = jax.__version__, jnp.asarray(x), jnp.asarray(y), jax.jit(jnp.dot)
        out = product(jx, jy).block_until_ready()

        def run(n):
            for _ in range(n):
                last = product(jx, jy)
            last.block_until_ready()

    else:
        raise SystemExit(f"peer_gemm: no mode {a.mode}")
    check = data.tensor_check(out)
    times = {} if a.check_only else measure(run)
    m, k, n = size
    if times:
        times["gflops"] = round(2e-6 * m * k * n / times["ms"], 1)
    emit(
        peer=a.mode,
        mode="",
        case=f"F_{m}x{k}x{n}",
        threads=a.threads,
        check=check,
        rss_mb=peak_memory_mb(),
        version=version,
        **times,
    )
