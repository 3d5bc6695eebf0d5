"""Prints the scalars of a checkpoint: a line 'name value' for each."""

import json
import struct
import sys

with open(sys.argv[1], "rb") as file:
    data = file.read()
(length,) = struct.unpack("<Q", data[:8])
for name, entry in json.loads(data[8 : 8 + length]).items():
    if name != "__metadata__" and entry["shape"] == []:
        code = {"F32": "f", "F64": "d", "I32": "i", "I64": "q"}[entry["dtype"]]
        print(name, struct.unpack_from("<" + code, data, 8 + length + entry["data_offsets"][0])[0])
