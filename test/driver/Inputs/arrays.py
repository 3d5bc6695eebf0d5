"""Inputs of extern.test and with-gradient.test, written without NumPy."""
import random
import struct


def write(name, kind, shape, values):
    header = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }" % (kind, tuple(shape))
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    with open(name, "wb") as file:
        file.write(b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode())
        file.write(struct.pack(f"<{len(values)}{ {'<f4': 'f', '<f8': 'd', '<i4': 'i'}[kind] }", *values))


draw = random.Random(1)
normal = lambda n: [draw.gauss(0, 1) for _ in range(n)]
write("x.npy", "<f4", (37, 6), normal(37 * 6))
write("x5.npy", "<f4", (37, 5), normal(37 * 5))
write("x8.npy", "<f4", (8, 6), normal(48))
write("x64.npy", "<f8", (37, 6), normal(37 * 6))
write("none.npy", "<f4", (0,), [])
write("offset.npy", "<i4", (37,), [draw.randrange(100) for _ in range(37)])
