"""write-arrays.py NAME=D0,D1,…[:N] …: NAME.npy with random f32 numbers of that shape, or i32 ones from 0 to N - 1; the same each time."""
import sys

import numpy

numbers = numpy.random.default_rng(1)
for word in sys.argv[1:]:
    name, _, shape = word.partition("=")
    shape, _, classes = shape.partition(":")
    dims = tuple(map(int, shape.split(",")))
    values = numbers.integers(0, int(classes), dims).astype(numpy.int32) if classes else numbers.standard_normal(dims).astype(numpy.float32)
    numpy.save(name + ".npy", values)
