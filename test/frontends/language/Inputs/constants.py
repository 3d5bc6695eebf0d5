import numpy as np

table = np.arange(1, 7, dtype="<f4").reshape(2, 3)
np.save("lib/table.npy", table)
np.save("columns.npy", np.asfortranarray(table))
np.save("ids.npy", np.array([5, 9000000000000000001], "<i8"))
np.save("wide.npy", np.array([1 / 3, 2], "<f8"))
np.save("complex.npy", np.array([1j]))
for name, dtype in (("i8", "i1"), ("i16", "<i2"), ("i32", "<i4"), ("bool", "?"), ("big_endian", ">i4")):
    np.save(name + ".npy", np.array([1, 0], dtype))
np.save("u8.npy", np.array([200, 0], "u1"))
with open("text.npy", "w") as file:
    file.write("hello, this is no array")
with open("ids.npy", "rb") as file, open("cut.npy", "wb") as cut:
    cut.write(file.read()[:-3])
