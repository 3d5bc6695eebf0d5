#===- philox.py - the language's random numbers, restated in NumPy -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Philox4x32-10 as the language uses it: key = seed, counter = (element / 4, stream, call), word = element % 4.

Written from the definition alone, so that it can disagree with the compiler. It also makes the inputs and initial
values of the reference figures: they are multiples of a power of two, exact in f32 and the same with every NumPy.
"""

import numpy as np

_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox4x32(counter, key):
    """The four output words of Philox4x32-10; `counter` is four uint32 arrays (or numbers), `key` two numbers."""
    c = [np.asarray(word, np.uint64) for word in counter]
    k = [int(word) & 0xFFFFFFFF for word in key]
    for _ in range(10):
        product0 = _MULTIPLIERS[0] * c[0]
        product1 = _MULTIPLIERS[1] * c[2]
        c = [
            (product1 >> _SHIFT) ^ c[1] ^ np.uint64(k[0]),
            product1 & _LOW,
            (product0 >> _SHIFT) ^ c[3] ^ np.uint64(k[1]),
            product0 & _LOW,
        ]
        k = [(word + step) & 0xFFFFFFFF for word, step in zip(k, _WEYL)]
    return [np.asarray(word, np.uint32) for word in c]


def fnv1a(text):
    """FNV-1a, 32 bits: the number of the stream that a path draws from."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def words(shape, path, seed=0, call=0):
    """The random words of the elements of a tensor, in row-major order."""
    count = int(np.prod(shape, dtype=np.int64))
    block = np.arange((count + 3) // 4, dtype=np.uint64)
    low, high = call & 0xFFFFFFFF, call >> 32
    out = philox4x32((block, fnv1a(path), low, high), (seed & 0xFFFFFFFF, seed >> 32))
    return np.stack([np.broadcast_to(word, block.shape) for word in out], axis=1).reshape(-1)[:count].reshape(shape)


def uniform(shape, path, seed=0, call=0):
    """Uniform in [0, 1): the top 24 bits of each word, as f64 (exact in f32 as well)."""
    return (words(shape, path, seed, call) >> np.uint32(8)).astype(np.float64) * 2.0**-24


def normal(shape, path, seed=0, call=0):
    """Standard normal, in f64: Box and Muller's transform of the words 0 and 1, and of 2 and 3, of each block."""
    count = int(np.prod(shape, dtype=np.int64))
    draws = uniform(((count + 3) // 4 * 2, 2), path, seed, call)
    radius, turn = np.sqrt(-2 * np.log(1 - draws[:, 0])), 2 * np.pi * draws[:, 1]
    return np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1).reshape(-1)[:count].reshape(shape)


def signed(name, shape, scale=2.0):
    """A named array of values in [-scale, scale), exact in f32 where scale is a power of two."""
    return (uniform(shape, name) * 2.0 - 1.0) * scale


def positive(name, shape):
    """A named array of values in [0.25, 2.25), exact in f32."""
    return uniform(shape, name) * 2.0 + 0.25


def integers(name, shape, bound):
    """A named array of whole numbers in [0, bound)."""
    return np.floor(uniform(shape, name) * bound).astype(np.int32)


_answer = [int(word) for word in philox4x32((0, 0, 0, 0), (0, 0))]
assert _answer == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8], "Philox4x32-10 does not give its known answer"
