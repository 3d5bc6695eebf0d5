"""write-batch.py N D K: a batch of random numbers, x.npy [N, D] and y.npy [N, K], the same each time."""
import sys

import numpy

n, d, k = map(int, sys.argv[1:])
numbers = numpy.random.default_rng(1)
numpy.save("x.npy", numbers.standard_normal((n, d)).astype(numpy.float32))
numpy.save("y.npy", numbers.standard_normal((n, k)).astype(numpy.float32))
