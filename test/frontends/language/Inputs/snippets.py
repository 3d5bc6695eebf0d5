"""Writes every ```dl block of a document into a folder, one file each: the test that compiles them keeps the document true."""
import pathlib
import re
import sys

document, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
blocks = re.findall(r"^```dl\n(.*?)^```$", document.read_text(encoding="utf-8"), re.S | re.M)
for number, block in enumerate(blocks):
    (folder / f"{number:02}.dl").write_text(block, encoding="utf-8")
print(len(blocks), "programs")
