#!/usr/bin/env python3
#===- check_documents.py - what the documents show is what there is -*- Python -*-===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
"""Checks every fenced block, link and named file of the project's Markdown pages. A comment on the line above a block says what it is:

    <!-- file: PATH -->       the whole of that file
    <!-- part of: PATH -->    consecutive lines of that file; a line `…` stands for lines left out
    <!-- not run: REASON -->  commands that are shown and not run; files of the repository in them must exist
    <!-- tree -->             a tree of files, which must exist
    <!-- exits: N -->         the last command of the block ends with that code

Without a comment, by the word after the fence:

    console   `$ command` lines are run, one after the other, and print the lines that follow; `$ NAME=VALUE` sets a variable for them. `…` stands for any text, alone on its line
              for any lines. All blocks of a page run in one empty folder that shows the repository's files.
    sh        shown, not run: as `not run`
    dl        a program that compiles
    text, ebnf, and no word: anything
    other     must have a comment

Messages between “ ” in dialects/dl/README.md must be words of the dialect's sources. The table of ops in README.md, between its two markers, is compared with the dialect's records.

The tables of docs/library.md, in the columns after PyTorch's names, have what the files of compiler/library declare and nothing else, with its settings
where they say any; names that begin with `_` are the files' own.

`--update` writes that table and what commands print now into the pages, the latter where the lines shown hold no `…`. Ends with 'N passed, M failed'.
"""

import argparse
import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs/*.md", "examples/README.md", "compiler/README.md",
         "dialects/dl/README.md", "runtime/README.md", "test/README.md", "test/benchmark/README.md", "test/reference/README.md",
         "test/standin/README.md"]
OPS_BEGIN, OPS_END = "<!-- ops: begin (written by test/docs/check_documents.py --update) -->", "<!-- ops: end -->"
OP_FILES = ["dialects/dl/DlElementwiseOps.td", "dialects/dl/DlTensorOps.td"]
MARK = re.compile(r"^<!--\s*(file|part of|not run|tree|exits)(?::\s*(.*?))?\s*-->$")
FENCE = re.compile(r"^(\s*)(```+)\s*([\w+-]*)\s*$")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
LIBRARY = "docs/library.md"
GAP = "…"
LIMIT_S = 300


def declared_in_library(module):
    """-> what a file of the library declares for others: name to its settings, none of a function"""
    names = {}
    for line in read_lines(f"compiler/library/{module}.dl"):
        found = re.match(r"(fn|layer|optimizer) ([a-z]\w*)\((.*?)\)(?: \{| =| ->)", line)
        if found:
            settings = re.sub(r" = [^,]+", "", found[3]) if found[1] != "fn" else None
            names[found[2]] = settings
    return names


class Block:
    """A fenced block: the lines first..last (from 0) of its page lie between the fences."""

    def __init__(self, page, first, language, mark, argument):
        self.page, self.first, self.last, self.language, self.mark, self.argument = page, first, first, language, mark, argument
        self.lines = []

    def place(self):
        return f"{self.page}:{self.first}"


def read_lines(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read().split("\n")


def blocks_of(page, lines):
    """-> the blocks, and the page's lines outside of them"""
    blocks, prose, open_fence, block = [], [], None, None
    mark = argument = None
    for number, line in enumerate(lines):
        if open_fence is not None:
            if line.strip() == open_fence:
                block.last = number
                blocks.append(block)
                open_fence = None
            else:
                block.lines.append(line[block.indent :] if line[: block.indent].isspace() else line)
            prose.append("")
            continue
        fence = FENCE.match(line)
        if fence:
            block = Block(page, number + 1, fence[3], mark, argument)
            block.indent = len(fence[1])
            open_fence, mark, argument = fence[2], None, None
            prose.append("")
            continue
        found = MARK.match(line.strip())
        mark, argument = (found[1], found[2]) if found else (None, None)
        prose.append(line)
    if open_fence is not None:
        raise ValueError(f"{page}:{block.first}: the block has no end")
    return blocks, prose


def line_matches(shown, actual):
    pattern = ".*".join(re.escape(part) for part in shown.rstrip().split(GAP))
    return re.fullmatch(pattern, actual.rstrip()) is not None


def output_matches(shown, actual):
    """Lines against lines; a line `…` stands for any number of them."""
    # places in `actual` that may have been reached after each line of `shown`
    reached = {0}
    for line in shown:
        if line.strip() == GAP:
            reached = set(range(min(reached), len(actual) + 1)) if reached else reached
        else:
            reached = {place + 1 for place in reached if place < len(actual) and line_matches(line, actual[place])}
    return len(actual) in reached


def difference(shown, actual):
    return "\n".join("    " + line for line in difflib.unified_diff(shown, actual, "shown", "actual", lineterm="", n=2))


def dedent(lines):
    width = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return [line[width:].rstrip() for line in lines]


def find_part(part, lines, start):
    """-> the place behind `part` in `lines`, in any indentation, from `start`; None where it is not"""
    for place in range(start, len(lines) - len(part) + 1):
        if dedent(lines[place : place + len(part)]) == dedent(part):
            return place + len(part)
    return None


def ops_table():
    """-> lines: the ops of the dialect by the sections of their files, and whether they have a gradient"""
    classes, rows = {}, []
    for path in OP_FILES:
        section, sections, lines = "elements", {}, iter(read_lines(path))
        for line in lines:
            heading = re.match(r"^// ---- (.*?) ----$", line)
            if heading:
                section = heading[1].split(":")[0]
            found = re.match(r"^(class|def) (Dl_\w+)", line)
            if not found:
                continue
            words = line
            while words.count("{") != words.count("}") or words.rstrip()[-1] not in "};":
                words += "\n" + next(lines)
            bases = re.findall(r"\b(Dl_\w+Op)\b", words.split("{")[0])
            formulas = re.search(r"let vjp = \[(.*?)\];", words, re.S)
            differentiable = None
            if formulas:
                differentiable = any(formula != "none" for formula in re.findall(r'"((?:[^"]|\n)*?)"', formulas[1]))
            elif "DifferentiableOpInterface" in words:
                differentiable = True
            else:
                differentiable = next((classes[base] for base in bases[1:] if classes.get(base) is not None), None)
            classes[found[2]] = differentiable
            name = re.search(r'<"([a-z_0-9]+)"', words)
            if found[1] == "def" and name and found[2].endswith("Op"):
                sections.setdefault(section, ([], []))[0 if differentiable else 1].append(name[1])
        for section, (with_gradient, without) in sections.items():
            for names, words in ((with_gradient, "yes"), (without, "none")):
                if names:
                    rows.append(f"| {section} | {', '.join(f'`{name}`' for name in names)} | yes | {words} |")
    return ["| | ops | forward | gradient |", "|---|---|---|---|", *rows]


class Checker:
    def __init__(self, options):
        self.options = options
        self.passed = self.failed = 0
        self.anchors = {}

    def record(self, place, what, problem=None):
        if problem is None:
            self.passed += 1
            if self.options.verbose:
                print(f"ok {place}: {what}")
        else:
            self.failed += 1
            print(f"FAILED {place}: {what}: {problem}", flush=True)

    # ---- pages ----

    def page(self, page):
        lines = read_lines(page)
        blocks, prose = blocks_of(page, lines)
        self.settings = {}
        self.links(page, prose)
        self.names(page, prose)
        folder = tempfile.mkdtemp(prefix="dlc-docs-")
        try:
            for name in os.listdir(ROOT):
                if not name.startswith(".") and not name.startswith("build"):
                    os.symlink(os.path.join(ROOT, name), os.path.join(folder, name))
            os.makedirs(os.path.join(folder, "build"))
            os.symlink(self.options.bin, os.path.join(folder, "build", "bin"))
            replaced = {}
            if page == os.path.join("dialects", "dl", "README.md"):
                self.messages(page, prose)
            if page == LIBRARY:
                self.library(page, prose)
            if OPS_BEGIN in lines:
                self.ops(page, lines)
            for block in blocks:
                new = self.block(block, folder)
                if new is not None:
                    replaced[block] = new
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if self.options.update and replaced:
            for block in reversed(blocks):
                if block in replaced:
                    lines[block.first : block.last] = [(" " * block.indent + line).rstrip() for line in replaced[block]]
            with open(os.path.join(ROOT, page), "w", encoding="utf-8") as file:
                file.write("\n".join(lines))
            print(f"updated {page}")

    def messages(self, page, prose):
        folder = os.path.join(ROOT, "dialects", "dl")
        sources = "".join("\n".join(read_lines(os.path.join(folder, name))) for name in sorted(os.listdir(folder)) if name.endswith(".cpp"))
        for number, line in enumerate(prose):
            for words in re.findall("“(.*?)”", line):
                known = words in sources
                self.record(f"{page}:{number + 1}", f"message '{words}'", None if known else "no source of the dialect says so")

    def library(self, page, prose):
        modules = {"Layers": "nn", "Optimizers": "optim", "Schedules": "optim", "Losses": "losses"}
        declared = {module: declared_in_library(module) for module in modules.values()}
        shown, module = {module: set() for module in modules.values()}, None
        for number, line in enumerate(prose):
            if line.startswith("## "):
                module = modules.get(line[3:].strip())
            if module is None or not line.startswith("| ") or line.startswith("| PyTorch "):
                continue
            cells = line.split(" | ")
            for span in re.findall("`(.*?)`", cells[1]):
                name, _, settings = span.rstrip(")").partition("(")
                if name not in declared[module]:
                    self.record(f"{page}:{number + 1}", f"'{name}'", f"{module}.dl declares no such name")
                    continue
                shown[module].add(name)
                actual = declared[module][name]
                if module == "optim" and not settings:  # those of an optimizer have a column
                    settings = re.search("`(.*?)`", cells[2])[1]
                if settings or actual:
                    same = settings == actual
                    self.record(f"{page}:{number + 1}", f"'{name}'", None if same else f"its settings are ({actual}), not ({settings})")
        for module, names in declared.items():
            missing = sorted(set(names) - shown[module])
            self.record(page, f"all of {module}.dl", f"not there: {', '.join(missing)}" if missing else None)

    def ops(self, page, lines):
        first, last = lines.index(OPS_BEGIN) + 1, lines.index(OPS_END)
        shown, actual = [line for line in lines[first:last] if line], ops_table()
        same = shown == actual
        self.record(f"{page}:{first}", "the table of ops", None if same else "differs\n" + difference(shown, actual))
        if self.options.update and not same:
            with open(os.path.join(ROOT, page), "w", encoding="utf-8") as file:
                file.write("\n".join([*lines[:first], "", *actual, "", *lines[last:]]))
            sys.exit(f"updated the table of ops in {page}; run again")

    def block(self, block, folder):
        """-> the lines that should stand there instead, or None"""
        if block.mark == "file":
            return self.whole_file(block)
        if block.mark == "part of":
            return self.part(block)
        if block.mark == "tree":
            return self.tree(block)
        if block.mark == "not run":
            if not block.argument:
                self.record(block.place(), "not run", "say why")
            return self.files_in(block)
        if block.language == "console":
            return self.console(block, folder)
        if block.language in ("sh", "bash"):
            return self.files_in(block)
        if block.language == "dl":
            return self.program(block, folder)
        if block.language in ("", "text", "ebnf", "mermaid"):
            return None
        self.record(block.place(), f"block '{block.language}'", "needs a comment that says which file it is from")
        return None

    # ---- kinds of blocks ----

    def whole_file(self, block):
        what = f"is {block.argument}"
        if not os.path.isfile(os.path.join(ROOT, block.argument)):
            self.record(block.place(), what, "no such file")
            return None
        actual = read_lines(block.argument)
        if actual and actual[-1] == "":
            actual.pop()
        if block.lines == actual:
            self.record(block.place(), what)
            return None
        self.record(block.place(), what, "differs\n" + difference(block.lines, actual))
        return actual

    def part(self, block):
        what = f"is part of {block.argument}"
        if not os.path.isfile(os.path.join(ROOT, block.argument)):
            self.record(block.place(), what, "no such file")
            return None
        lines, place, part = read_lines(block.argument), 0, []
        for line in [*block.lines, GAP]:
            if line.strip() != GAP:
                part.append(line)
                continue
            if part:
                place = find_part(part, lines, place)
                if place is None:
                    near = difflib.get_close_matches(part[0].strip(), [text.strip() for text in lines], 1, 0.6)
                    words = f"; there is '{near[0]}'" if near else ""
                    self.record(block.place(), what, f"the lines from '{part[0].strip()}' are not there{words}")
                    return None
            part = []
        self.record(block.place(), what)
        return None

    def tree(self, block):
        stack = []
        for line in block.lines:
            found = re.match(r"^( *)(\S+)", line)
            if not found:
                continue
            depth = len(found[1])
            if depth > 0 and not re.match(r"^[\w.{},/*-]+$", found[2]) or depth > 20:
                continue  # a description that goes on
            while stack and stack[-1][0] >= depth:
                stack.pop()
            base = stack[-1][1] if stack else ""
            for name in self.expand(found[2]):
                path = os.path.join(base, name)
                self.record(block.place(), f"{path} exists", None if os.path.exists(os.path.join(ROOT, path)) else "no such file")
            stack.append((depth, os.path.join(base, found[2].rstrip("/"))))
        return None

    @staticmethod
    def expand(name):
        """a.{h,cpp} -> a.h, a.cpp"""
        found = re.match(r"^(.*)\{(.*)\}(.*)$", name)
        return [found[1] + part + found[3] for part in found[2].split(",")] if found else [name]

    def files_in(self, block):
        for line in block.lines:
            command = line.split("#")[0]
            for word in re.findall(r"(?<![\w/.=$-])(?:[\w.-]+/)+[\w.-]+", command):
                top = word.split("/")[0]
                if not os.path.exists(os.path.join(ROOT, top)) or top in ("build",):
                    continue
                self.record(block.place(), f"{word} exists", None if os.path.exists(os.path.join(ROOT, word)) else "no such file")
        return None

    def environment(self):
        return dict(
            os.environ,
            **self.settings,
            PATH=os.pathsep.join([self.options.bin, self.options.shims, *self.options.path, os.environ["PATH"]]),
            LC_ALL="C.UTF-8",
        )

    def run(self, command, folder):
        try:
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", command],
                cwd=folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=LIMIT_S,
            )
        except subprocess.TimeoutExpired:
            return None, [f"(took more than {LIMIT_S} s)"]
        text = done.stdout.decode("utf-8", "replace")
        return done.returncode, text.rstrip("\n").split("\n") if text else []

    def program(self, block, folder):
        path = os.path.join(folder, "block.dl")
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(block.lines) + "\n")
        code, output = self.run("dlc block.dl --emit=dl >block.mlir", folder)
        self.record(block.place(), "compiles", None if code == 0 else "\n    ".join(["it does not", *output]))
        return None

    def console(self, block, folder):
        commands = []  # (lines of the command, lines shown)
        for line in block.lines:
            if line.startswith("$ "):
                commands.append(([line], []))
            elif commands and not commands[-1][1] and commands[-1][0][-1].endswith("\\"):
                commands[-1][0].append(line)
            elif commands:
                commands[-1][1].append(line)
            elif line.strip():
                self.record(block.place(), "console", "does not begin with a command")
        new = []
        for number, (command, shown) in enumerate(commands):
            trailing = []
            while shown and not shown[-1].strip():
                trailing.append(shown.pop())
            words = "\n".join([command[0][2:], *command[1:]])
            setting = re.fullmatch(r"([A-Z_]+)=(\S+)", words)
            if setting:  # for the commands that follow on the page
                self.settings[setting[1]] = setting[2]
                new += [*command, *shown, *trailing]
                continue
            code, actual = self.run(words, folder)
            expected = int(block.argument) if block.mark == "exits" and number == len(commands) - 1 else 0
            what = f"`{command[0][2:80]}`"
            if code != expected:
                self.record(block.place(), what, "\n    ".join([f"exits with {code}, expected {expected}", *actual]))
            elif not output_matches(shown, actual):
                self.record(block.place(), what, "prints something else\n" + difference(shown, actual))
            else:
                self.record(block.place(), what)
            keeps = any(GAP in line for line in shown) or code != expected
            new += [*command, *(shown if keeps else actual), *trailing]
        return new if new != block.lines else None

    # ---- links and names ----

    def names(self, page, prose):
        """Files that a sentence names in `code`, from the root or from the page's folder."""
        for number, line in enumerate(prose):
            for name in re.findall(r"`((?:[\w-]+/)+[\w.-]*)`", line):
                homes = [home for home in (ROOT, os.path.join(ROOT, os.path.dirname(page))) if os.path.exists(os.path.join(home, name.split("/")[0]))]
                if homes and not name.startswith("build"):
                    there = any(os.path.exists(os.path.join(home, name)) for home in homes)
                    self.record(f"{page}:{number + 1}", f"{name} exists", None if there else "no such file")

    def anchors_of(self, page):
        if page not in self.anchors:
            blocks, prose = blocks_of(page, read_lines(page))
            found = set()
            for line in prose:
                heading = re.match(r"^#+\s+(.*)$", line)
                if heading:
                    words = re.sub(r"[^\w\- ]", "", heading[1].lower())
                    found.add(words.strip().replace(" ", "-"))
            self.anchors[page] = found
        return self.anchors[page]

    def links(self, page, prose):
        for number, line in enumerate(prose):
            for target in LINK.findall(re.sub(r"`[^`]*`", "", line)):
                if re.match(r"^[a-z]+:", target):
                    continue
                path, _, anchor = target.partition("#")
                full = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
                problem = None
                if not os.path.exists(os.path.join(ROOT, full)):
                    problem = "no such file"
                elif anchor and full.endswith(".md") and anchor not in self.anchors_of(full):
                    problem = f"{full} has no such heading"
                self.record(f"{page}:{number + 1}", f"link to {target}", problem)


def all_pages():
    import glob

    found = []
    for pattern in PAGES:
        found += sorted(glob.glob(os.path.join(ROOT, pattern)))
    return [os.path.relpath(path, ROOT) for path in found]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="pages to check, from the root (default: all)")
    parser.add_argument("--bin", default=os.path.join(ROOT, "build", "bin"), help="folder of dlc, dl-opt and dlrun (default build/bin)")
    parser.add_argument("--path", action="append", default=[], help="a further folder of programs, e.g. LLVM's")
    parser.add_argument("--cc", help="the C compiler that `cc` stands for")
    parser.add_argument("--cxx", help="the C++ compiler that `c++` stands for")
    parser.add_argument("--update", action="store_true", help="write what commands print now into the pages")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    options.bin = os.path.abspath(options.bin)
    for name in ("dlc", "dlrun"):
        if not os.access(os.path.join(options.bin, name), os.X_OK):
            parser.error(f"no {name} in {options.bin}: build first, or say --bin")
    with tempfile.TemporaryDirectory(prefix="dlc-docs-cc-") as shims:
        options.shims = shims
        for name, program in (("cc", options.cc), ("c++", options.cxx), ("python3", sys.executable)):
            if program:
                os.symlink(shutil.which(program) or program, os.path.join(shims, name))
        checker = Checker(options)
        for page in options.pages or all_pages():
            checker.page(os.path.relpath(os.path.abspath(page), ROOT) if os.path.isabs(page) else page)
    print(f"{checker.passed} passed, {checker.failed} failed")
    return 1 if checker.failed or not checker.passed else 0


if __name__ == "__main__":
    sys.exit(main())
