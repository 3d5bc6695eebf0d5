#===- formats_test.py - the same training from data files of every format -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Trains the model of model.c from .npy, .npz, CSV, HDF5 and LMDB files, which must give the same bytes, and from damaged ones, which must
give one clear message. Needs NumPy, h5py and Python's lmdb; takes the options of commands_test.py, ends with 'N passed, M failed'."""

import gzip
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import unittest
import zipfile

import h5py
import lmdb
import numpy

from commands_test import CLASSES, Result, Training, content, options, points, rest

ROWS, HELD = 300, 90


def varint(number):
    number &= (1 << 64) - 1
    data = b""
    while number > 127:
        data += bytes([number & 127 | 128])
        number >>= 7
    return data + bytes([number])


def datum(shape, data=None, label=None, floats=(), encoded=False):
    """A message Datum of Caffe's."""
    message = b"".join(bytes([field << 3]) + varint(size) for field, size in zip((1, 2, 3), shape))
    if data is not None:
        message += b"\x22" + varint(len(data)) + data
    if label is not None:
        message += b"\x28" + varint(label)
    message += b"".join(b"\x35" + struct.pack("<f", number) for number in floats)
    return message + (b"\x38\x01" if encoded else b"")


class Formats(Training):
    def images(self, rows, seed):
        pixels, labels = points(rows, seed)
        return numpy.array(pixels, "u1").reshape(rows, 1, 2, 2), numpy.array(labels, "i4")

    def npy(self, name, array):
        numpy.save(self.path(name + ".npy"), array)
        return self.path(name + ".npy")

    def npz(self, name, save=numpy.savez, **arrays):
        save(self.path(name + ".npz"), **arrays)
        return self.path(name + ".npz")

    def text(self, name, text):
        with (gzip.open if name.endswith(".gz") else open)(self.path(name), "wt", newline="") as file:
            file.write(text)
        return self.path(name)

    def hdf5(self, name, **arrays):
        with h5py.File(self.path(name + ".h5"), "w") as file:
            for path, (array, how) in arrays.items():
                file.create_dataset(path.replace("__", "/"), data=array, **how)
        return self.path(name + ".h5")

    def lmdb(self, name, records):
        base = lmdb.open(self.path(name), map_size=1 << 26)
        with base.begin(write=True) as transaction:
            for number, record in enumerate(records):
                transaction.put(b"%08d" % number, record)
        base.close()
        return self.path(name)

    def caffe(self, name, x, label):
        return self.lmdb(name, [datum(a.shape, a.tobytes(), int(b)) for a, b in zip(x, label)])

    def csv(self, name, x, label, header=True):
        flat = x.reshape(len(x), -1)
        lines = ["id," + ",".join(f"p{k}" for k in range(flat.shape[1])) + ",label"] if header else []
        lines += [f'"row, {i}",' + ",".join(map(str, row)) + f",{kind}" for i, (row, kind) in enumerate(zip(flat, label))]
        return self.text(name, "".join(line + "\r\n" for line in lines))

    def refuses(self, parts, *data, more=()):
        message = self.fails("train", options.model, "--data", *data, "--checkpoint", self.path("c"), *more)
        for part in parts:
            self.assertIn(part, message)
        self.assertFalse(os.path.exists(self.path("c/state.json")))


class Same(Formats):
    """Every format gives what .npy gives, bit by bit."""

    def sources(self):
        """-> name of a format to the options that name its data: bytes that are scaled"""
        sources = {}
        for option, rows, seed in (("--data", ROWS, 1), ("--validation", HELD, 2)):
            x, label = self.images(rows, seed)
            name = option[2:]
            npz = self.npz(name, images=x, kinds=label)
            packed = self.npz(name + "-packed", save=numpy.savez_compressed, x=x, label=label)
            chunked = dict(chunks=(7, 1, 1, 2), compression="gzip", shuffle=True)
            h5 = self.hdf5(name, train__images=(x, {}), train__packed=(x, chunked), kinds=(label, dict(chunks=(16,))), x=(x, chunked), label=(label, {}))
            base = self.caffe(name + "-lmdb", x, label)
            for format, words in {
                "npy": [f"x={self.npy(name + '-x', x)}", f"label={self.npy(name + '-label', label)}"],
                "npz": [f"x={npz}:images", f"label={npz}:kinds"],
                "npz alone": [packed],
                "npz and npy": [f"x={self.path(name + '-x.npy')}", packed],
                "hdf5": [f"x={h5}:/train/images", f"label={h5}:kinds"],
                "hdf5 in chunks": [f"x={h5}:train/packed", f"label={h5}:/kinds"],
                "hdf5 alone": [h5],
                "lmdb": [f"x={base}:data", f"label={base}:label"],
                "lmdb, its file": [f"x={base}/data.mdb:data", f"label={base}/data.mdb"],
            }.items():
                sources.setdefault(format, []).extend([option, *words])
        return {format: words + ["--scale", "x=1/255"] for format, words in sources.items()}

    def trained(self, words, *more):
        self.train(*words, "--batch", 16, "--epochs", 2, "--checkpoint", self.path("c"), "--overwrite", *more)
        return [content(self.path("c/" + name)) for name in ("last.safetensors", "state.json")]

    def test_same_bytes(self):
        sources = self.sources()
        expected = self.trained(sources["npy"])
        for format, words in sources.items():
            with self.subTest(format):
                self.assertEqual(self.trained(words), expected)

    def test_same_bytes_of_text(self):
        """Text has the argument's type, and f64 where it is scaled."""
        for scale, kind in (([], "f4"), (["--scale", "x=1/255"], "f8")):
            sources = {}
            for option, rows, seed in (("--data", ROWS, 1), ("--validation", HELD, 2)):
                x, label = self.images(rows, seed)
                x = (x.reshape(rows, 4) / 3).astype(kind)
                name = option[2:]
                table, bare = self.csv(name + ".csv", x, label), self.csv(name + "-bare.csv.gz", x, label, header=False)
                for format, words in {
                    "npy": [f"x={self.npy(name + '-x', x)}", f"label={self.npy(name + '-label', label)}"],
                    "csv": [f"x={table}:1-4", f"label={table}:label"],
                    "csv, names": [f"x={table}:p0,p1,p2,p3", table],
                    "csv without header": [f"x={bare}:1-2,3,4", f"label={bare}:5"],
                }.items():
                    sources.setdefault(format, []).extend([option, *words])
            expected = self.trained(sources["npy"] + scale)
            for format, words in sources.items():
                with self.subTest((format, kind)):
                    self.assertEqual(self.trained(words + scale), expected)

    def test_floats(self):
        x, label = self.images(ROWS, 1)
        x = (x / 255).astype("f4")
        expected = self.trained(["--data", f"x={self.npy('x', x)}", f"label={self.npy('label', label)}"])
        base = self.lmdb("floats", [datum(a.shape, None, int(b), a.flatten()) for a, b in zip(x, label)])
        h5 = self.hdf5("floats", x=(x.astype(">f4"), {}), label=(label.astype(">i4"), dict(chunks=(5,), compression="gzip")))
        for words in ([f"x={base}:data", f"label={base}:label"], [h5]):
            with self.subTest(words):
                self.assertEqual(self.trained(["--data", *words]), expected)

    def test_whole_numbers_are_converted(self):
        """Each of them is looked at, in blocks where they stay in their file."""
        x, label = self.images(ROWS, 1)
        expected = self.trained(["--data", f"x={self.npy('x', x)}", f"label={self.npy('label', label.astype('i8'))}", "--scale", "x=1/255"])
        h5 = self.hdf5("wide", x=(x, {}), label=(label.astype("i8"), dict(chunks=(5,))))
        self.assertEqual(self.trained(["--data", h5, "--scale", "x=1/255"]), expected)
        shutil.rmtree(self.path("c"))
        label = label.astype("i8")
        label[217] = 2**40
        h5 = self.hdf5("wider", x=(x, {}), label=(label, {}))
        self.refuses(["i64[300]", "element 217 is 1099511627776, which i32 does not hold"], h5, more=["--scale", "x=1/255"])

    def test_interrupted_and_resumed(self):
        sources = self.sources()
        words = ["--batch", 16, "--epochs", 3]
        table = self.csv("data.csv", *self.images(ROWS, 1))
        sources["csv"] = ["--data", f"x={table}:1-4", table, "--scale", "x=1/255"]
        for format, like in (("npz", "npy"), ("hdf5 in chunks", "npy"), ("lmdb", "npy"), ("csv", "csv")):
            with self.subTest(format):
                self.train(*sources[like], *words, "--checkpoint", self.path("whole"))
                whole = [content(self.path("whole/" + name)) for name in ("last.safetensors", "state.json")]
                process = self.start(*sources[format], *words, "--input", "delay=20", "--checkpoint", self.path("c"), "--save-every", 1, "--overwrite")
                self.wait_for(lambda: os.path.exists(self.path("c/state.json")) and self.state()["epoch"] == 1 and self.state()["step_in_epoch"] > 2)
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=60)
                self.assertEqual(process.returncode, 130, errors)
                self.train(*sources[format], *words, "--checkpoint", self.path("c"), "--resume")
                self.assertEqual([content(self.path("c/" + name)) for name in ("last.safetensors", "state.json")], whole)
                shutil.rmtree(self.path("c"))
        # the data must be of the same types
        self.train(*sources["npy"], *words, "--checkpoint", self.path("c"))
        self.assertIn("the data is", self.fails("train", options.model, *sources["csv"], "--checkpoint", self.path("c"), "--resume"))

    def test_call(self):
        x = numpy.arange(20, dtype="f4").reshape(5, 4) / 7
        label = numpy.arange(5, dtype="i4") % CLASSES
        names = [f"x={self.npy('x', x)}", f"label={self.npy('label', label)}"]
        npz, h5 = self.npz("a", x=x, y=label), self.hdf5("a", x=(x, {}), y=(label, {}), rate=(numpy.float32(0.25), {}))
        table = self.text("a.csv", "a,b,c,d,label\n" + "".join(",".join(repr(float(v)) for v in row) + f",{kind}\n" for row, kind in zip(x, label)))
        outputs = []
        for words in (names, [f"x={npz}", f"label={npz}:y"], [f"x={h5}", f"label={h5}:y"], [f"x={table}:0-3", f"label={table}:label"]):
            self.dlrun("call", options.model, "step", "--input", *words, "lr=0.25", "--save", self.path("saved"))
            outputs.append(content(self.path("saved")))
        self.dlrun("call", options.model, "step", "--input", *names, f"lr={h5}:rate", "--save", self.path("saved"))
        self.assertEqual({*outputs, content(self.path("saved"))}, {outputs[0]})
        self.assertIn("i32[5]", self.fails("call", options.model, "predict", "--input", f"x={npz}:y"))

    def test_names_with_colons(self):
        x, label = self.images(ROWS, 1)
        npz = self.npz("a:b", **{"x:y": x, "kinds": label})
        plain = self.npy("c:d", label)
        expected = self.trained(["--data", f"x={npz}:x:y", f"label={npz}:kinds", "--scale", "x=1/255"])
        self.assertEqual(self.trained(["--data", f"x={npz}:x:y", f"label={plain}", "--scale", "x=1/255"]), expected)


class Refused(Formats):
    """One message, which names the file and what is wrong with it."""

    def test_places(self):
        npz = self.npz("a", x=numpy.zeros((3, 4), "f4"))
        npy = self.npy("b", numpy.zeros(3, "i4"))
        self.refuses(["none.npz:x': No such file or directory, nor is there '", "none.npz'"], f"x={self.path('none.npz')}:x")
        self.refuses(["a.npz': the name of a part is missing after ':'"], f"x={npz}:")
        self.refuses(["b.npy': it holds one array, which has no parts such as 'x'"], f"x={npy}:x")
        self.refuses(["b.npy': it holds one array; say for which argument, as NAME="], npy)
        self.refuses([f"'{self.folder}': a folder without data.mdb is no LMDB data base"], f"x={self.folder}")
        text = self.text("text", "hello\n")
        self.refuses(["text': not a data file: neither .npy, .npz, IDX, HDF5 or LMDB by its content nor .csv by its name"], f"x={text}")
        other = self.npz("other", x=numpy.zeros((3, 4), "f4"))
        self.refuses(["both '", "a.npz:x' and '", "other.npz' give argument 'x'; say which with x=FILE:PART"], npz, other)
        wrong = self.npz("wrong", images=numpy.zeros((3, 4), "f4"), lr=numpy.float32(1))
        self.refuses(["wrong.npz' has nothing called 'x' and 'label', the arguments of 'step'; it has 'images' and 'lr'; name a part, as in NAME=FILE:PART"], wrong)
        self.refuses(["argument 'label' of 'step' (i32[N]) is missing"], npz)
        message = self.fails("train", options.model, "--data", npz, f"label={npy}", "--scale", "z=2", code=2)
        self.assertIn("--scale names 'z', which neither --data nor --validation does", message)
        self.fails("train", options.model, "--data", npz, "--input", "label=3", "--scale", "label=2", code=2)

    def everywhere(self, name, first, second):
        """What every format refuses: rows of another size, files of different numbers of rows."""
        self.refuses([f"{name}' holds", "f32[6, 5]", "'x' of 'step' is f32[N, 4]: a row of the file has 5 elements, one of the argument 4"], f"x={first}")
        self.refuses(["'x' has 300 rows", "'label' has 6 (i32[6])"], *second)

    def test_npz(self):
        x, label = self.images(ROWS, 1)
        npz = self.npz("a", wide=numpy.zeros((6, 5), "f4"), short=numpy.zeros(6, "i4"), x=x.astype("f4"), kinds=label, words=numpy.array(["a", "b"]))
        self.everywhere("a.npz:wide", f"{npz}:wide", [f"x={npz}", f"label={npz}:short"])
        self.refuses(["a.npz': no member 'kind'; it has 'wide', 'short', 'x', 'kinds' and 'words'; did you mean 'kinds'?"], f"x={npz}", f"label={npz}:kind")
        self.refuses(["a.npz': no member 'label'; it has"], f"x={npz}", f"label={npz}")
        self.refuses(["member 'words': its elements are of NumPy's type '<U1', which no model takes"], f"x={npz}:words")
        with zipfile.ZipFile(self.path("b.zip"), "w") as file:
            file.writestr("x.npy", b"hello")
            file.writestr("label", b"hello")
        self.refuses(["b.zip': member 'x': not a .npy file"], self.path("b.zip"))
        arrays = dict(x=numpy.random.default_rng(1).random((ROWS, 4), "f4"), label=label)
        packed, stored = content(self.npz("packed", save=numpy.savez_compressed, **arrays)), content(self.npz("stored", **arrays))
        for name, data, parts in (
            ("cut", packed[:-30], ["not a readable zip file: "]),
            ("empty", b"", ["not a readable zip file: "]),
            ("text", b"hello", ["not a readable zip file: "]),
            ("flipped", stored[:1000] + bytes([stored[1000] ^ 255]) + stored[1001:], ["member 'x': the zip file is damaged: CRC error"]),
        ):
            with open(self.path(name + ".npz"), "wb") as file:
                file.write(data)
            with self.subTest(name):
                self.refuses([name + ".npz': ", *parts], f"x={self.path(name + '.npz')}")
        self.survives("bad.npz", packed, lambda path: [path])

    def test_csv(self):
        x, label = self.images(ROWS, 1)
        table = self.csv("a.csv", x, label)
        wide = self.text("wide.csv", "1,2,3,4,5\n" * 6)
        self.everywhere("wide.csv", wide, [f"x={table}:1-4", f"label={wide}:0"])
        self.refuses(["a.csv': no column 'labels'; it has 'id', 'p0'", "did you mean 'label'?"], f"x={table}:1-4", f"label={table}:labels")
        self.refuses(["a.csv': line 2, column 0 ('id'): 'row, 0' is not a number; text is not converted"], f"x={table}:0-3")
        lines = "a,b,c,d,label\n1,2,3,4,0\n1,2,3,4,%s\n"
        for last, parts in (
            ("Iris-setosa", ["line 3, column 4 ('label'): 'Iris-setosa' is not a number; text is not converted: a class must be the number of its class"]),
            ("", ["line 3, column 4 ('label'): it is empty"]),
            ("1.5", ["line 3, column 4 ('label'): '1.5' is not a whole number, which i32 asks for"]),
            ("3000000000", ["'3000000000' does not fit i32"]),
            ("1,1", ["line 3 has 6 fields, line 1 has 5"]),
            ('"1', ["line 3: a quoted field does not end before the file"]),
        ):
            with self.subTest(last):
                path = self.text("bad.csv", lines % last)
                self.refuses(["bad.csv': ", *parts], f"x={path}:0-3", path)
        packed = gzip.compress(content(table))
        with open(self.path("cut.csv.gz"), "wb") as file:
            file.write(packed[: len(packed) // 2])
        self.refuses(["cut.csv.gz': the gzip file is truncated"], f"x={self.path('cut.csv.gz')}:1-4")
        self.refuses(["empty.csv': the file is empty"], f"x={self.text('empty.csv', '')}")
        self.refuses(["no rows"], f"x={self.text('header.csv', 'a,b,c,d' + chr(10))}:a,b,c,d")

    def test_hdf5(self):
        x, label = self.images(ROWS, 1)
        h5 = self.hdf5("a", wide=(numpy.zeros((6, 5), "f4"), {}), short=(numpy.zeros(6, "i4"), {}), train__x=(x.astype("f4"), dict(chunks=(50, 1, 2, 2), compression="gzip")),
                       unsigned=(numpy.zeros(3, "u4"), {}), deep=(numpy.zeros((1,) * 9, "f4"), {}), words=(["a", "b"], {}))
        self.everywhere("a.h5:wide", f"{h5}:wide", [f"x={h5}:train/x", f"label={h5}:short"])
        self.refuses(["a.h5': no dataset 'train/y'; it has 'deep', 'short', 'train/x', 'unsigned', 'wide' and 'words'; did you mean 'train/x'?"], f"x={h5}:train/y")
        self.refuses(["a.h5': no dataset 'train'; it has"], f"x={h5}:train")
        for name in ("unsigned", "words"):
            self.refuses([f"dataset '{name}': its elements are of a type that no model takes; bool, u8, i8 to i64, f16, f32 and f64 are read"], f"x={h5}:{name}")
        self.refuses(["dataset 'deep': it has 9 dimensions, more than 8"], f"x={h5}:deep")
        whole = content(h5)
        for name, data in (("cut", whole[:-100]), ("start", whole[:50]), ("text", b"hello"), ("empty", b"")):
            with open(self.path(name + ".h5"), "wb") as file:
                file.write(data)
            with self.subTest(name):
                self.refuses([name + ".h5': not a readable HDF5 file: "], f"x={self.path(name + '.h5')}")
        # a chunk that does not decompress: seen when it is read
        with h5py.File(h5, "r") as file:
            place = file["train/x"].id.get_chunk_info(3)
        damaged = bytearray(whole)
        damaged[place.byte_offset : place.byte_offset + 8] = bytes(8)
        with open(self.path("chunk.h5"), "wb") as file:
            file.write(damaged)
        npy = self.npy("label", label)
        message = self.fails("train", options.model, "--data", f"x={self.path('chunk.h5')}:train/x", f"label={npy}")
        self.assertRegex(message, r"^epoch 1, step \d: '.*chunk\.h5:train/x': rows \d+ to \d+: ")
        self.survives("bad.h5", whole, lambda path: [f"x={path}:train/x", f"label={npy}"])

    def test_lmdb(self):
        x, label = self.images(ROWS, 1)
        base = self.caffe("a", x, label)
        npy = self.npy("short", numpy.zeros(6, "i4"))
        wide = self.lmdb("wide", [datum((1, 1, 5), None, 1, [0] * 5)] * 6)
        self.refuses(["wide:data' holds f32[6, 1, 1, 5]", "a row of the file has 5 elements"], f"x={wide}:data")
        self.refuses(["'x' has 300 rows (u8[300, 1, 2, 2])", "'label' has 6 (i32[6])"], f"x={base}:data", f"label={npy}", more=["--scale", "x=1/255"])
        self.refuses(["a': no part 'x'; it has 'data' and 'label'"], f"x={base}")
        good = datum((1, 2, 2), b"abcd", 1)
        for name, records, parts in (
            ("encoded", [datum((3, 0, 0), b"\xff\xd8\xff", 1, encoded=True)], ["record 0 is an encoded image (JPEG or PNG), which is not decoded here; make the data base without --encoded"]),
            ("bytes", [datum((1, 2, 2), b"abc", 1)], ["record 0 has 3 bytes, its shape 4"]),
            ("negative", [datum((-1, 2, 2), b"abcd", 1)], ["record 0 has the shape u8[-1, 2, 2], which no record has"]),
            ("other", [b"\xff\xff"], ["record 0 is not a Datum of Caffe's"]),
            ("none", [], ["it has no records"]),
        ):
            with self.subTest(name):
                self.refuses([f"{name}': ", *parts], f"x={self.lmdb(name, records)}:data")
        for name, record, part in (
            ("size", datum((1, 2, 3), b"abcdef", 1), "record 2 is u8[1, 2, 3], record 0 is u8[1, 2, 2]"),
            ("unlabelled", datum((1, 2, 2), b"abcd"), "record 2 has no label"),
        ):
            with self.subTest(name):
                path = self.lmdb(name, [good, good, record])
                message = self.fails("train", options.model, "--data", f"x={path}:data", f"label={path}:label", "--scale", "x=1/255")
                self.assertIn("epoch 1, step 1: ", message)
                self.assertIn(part, message)
        named = lmdb.open(self.path("named"), max_dbs=1)
        named.open_db(b"train")
        named.close()
        self.refuses(["it holds named data bases or several values of a key, not records"], f"x={self.path('named')}:data")
        # values of 8 kB lie in pages of their own
        large = self.lmdb("large", [datum((1, 80, 100), bytes(8000), 1)] * 50)
        whole = content(large + "/data.mdb")
        for name, data, part in (
            ("cut", whole[:-20000], "truncated or damaged: "),
            ("start", whole[:5000], "truncated"),
            ("text", b"hello", "truncated: it ends at byte 5"),
            ("zeros", bytes(8192), "not an LMDB data base"),
        ):
            with open(self.path(name + ".mdb"), "wb") as file:
                file.write(data)
            with self.subTest(name):
                self.refuses([name + ".mdb': " + part], f"x={self.path(name + '.mdb')}:data")
        small = content(base + "/data.mdb")
        self.survives("bad.mdb", small, lambda path: [f"x={path}:data", f"label={path}:label", "--scale", "x=1/255"])

    def survives(self, name, whole, words):
        """Damage in any place: an answer or a refusal, no more."""
        draw = random.Random(7)
        for turn in range(40):
            data = bytearray(whole)
            for _ in range(draw.choice((1, 4, 32))):
                data[draw.randrange(len(data))] = draw.randrange(256)
            if turn % 4 == 3:
                del data[draw.randrange(len(data)) :]
            with open(self.path(name), "wb") as file:
                file.write(data)
            done = subprocess.run(
                [options.dlrun, "train", options.model, "--data", *words(self.path(name)), "--epochs", "1"], capture_output=True, text=True, timeout=60)
            self.assertIn(done.returncode, (0, 1), f"turn {turn}: {done.stderr}")
            self.assertEqual(done.stderr.count("dlrun: error: "), done.returncode, done.stderr)


if __name__ == "__main__":
    runner = unittest.TextTestRunner(sys.stdout, verbosity=2, resultclass=Result)
    result = unittest.main(argv=[sys.argv[0], *rest], testRunner=runner, exit=False).result
    failed = result.testsRun - result.passed
    print(f"{result.passed} passed, {failed} failed")
    sys.exit(1 if failed or not result.testsRun else 0)
