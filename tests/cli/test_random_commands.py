"""Whatever is typed, and wherever: an exit code of the contract, and one line that says what to do.

``DGM_BENCH_COMMANDS=1000`` tries a thousand commands, and prints how they ended.
"""

import gzip
import importlib
import os
import random
import re
import shutil
import string
from collections import Counter
from pathlib import Path

import hostile
from cli.commands import CLOSED, FULL, command

from dgm_bench import data
from dgm_bench.catalog import load_catalog

MANY = int(os.environ.get("DGM_BENCH_COMMANDS", "15"))
STORED = Path(__file__).parents[2] / "results/runs"
CODES = {0, 1, 2, 3, 130}
#: Thing, reason and remedy. What a command gives as its thing may have any character.
LINE = re.compile(r"error: .+?[: ].+; .+|interrupted|stopped .*", re.DOTALL)
#: A cell that needs no files and little time.
SMALL = "avb/elbo/vae/8gaussians-negative-elbo"
#: How long a command of this kind may take on a slow machine, which others use too.
SECONDS = 240.0

# --------------------------------------------------------------------------- where


def a_world(root):
    """Lay out folders and files that a command may meet: whole, broken, strange."""
    for name in ("empty", "gone", "data/mnist", "broken/runs/ffjord", "whole"):
        (root / name).mkdir(parents=True)
    for file in sorted(STORED.rglob("*.json"))[:6]:
        target = root / "whole/runs" / file.relative_to(STORED)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    text = file.read_text()
    for name, content in {
        "cut": text[: len(text) // 2].encode(), "none": b"", "bytes": os.urandom(200),
        "deep": b"[" * 5000, "digits": b'{"seed": ' + b"9" * 5000 + b"}", "nan": b'{"seed": NaN}',
        "cells": re.sub(r'"cells": \[[^]]*\]', '"cells": []', text).encode(),
        "escape": re.sub(r'"run_id": "[^"]*"', '"run_id": "../../x"', text).encode(),
    }.items():  # fmt: skip
        (root / f"broken/runs/ffjord/{name}.json").write_bytes(content)
    for split in ("train", "t10k"):
        for what in ("images-idx3", "labels-idx1"):
            (root / f"data/mnist/{split}-{what}-ubyte.gz").write_bytes(gzip.compress(b"no idx"))
    (root / "file").write_text("text")
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "fifo")
    (root / os.fsdecode(b"caf\xe9")).mkdir()
    return root


# --------------------------------------------------------------------------- words


class Words:
    """Draws commands, with ``heavy`` ones among them: words, variables, where output goes."""

    def __init__(self, number, world, heavy):
        self.random, self.world = random.Random(f"command {number}"), world
        self.heavy, catalog = heavy, load_catalog()
        self.tables = [table.name for table in catalog.tables]
        self.papers = [paper.id for paper in catalog.papers]
        self.cells = [cell.id for table in catalog.tables for cell in table.cells]
        self.sets = [card.name for card in data.cards()]

    def one(self, *choices):
        return self.random.choice(choices)

    def rarely(self, share=0.2):
        return self.random.random() < share

    def wild(self):
        """Anything that a word of a command can be; it cannot hold a zero byte."""
        text = self.one(
            "", " ", "-", "--", "x" * 300, "9" * 400, "-1", "nan", "inf", "1e400", "0x10", "²", "~",
            "~no-such-user", "/dev/null", "/dev/full", ".", "*", "[", "[!]", "**",
            "a/b/c/d/e", "'", '"', "%s", "${HOME}", "--help", "-v", "=", "a=b", "{}",
            "[" * 3000, '{"a":' * 500,
            "".join(self.random.choices(string.printable, k=8)), self.one(*hostile.PIECES),
        )  # fmt: skip
        return (
            text.replace("\0", "")
            .encode("utf-8", "surrogatepass")
            .decode("utf-8", "surrogateescape")
        )

    def near(self, word):
        """A word with a slip of the finger."""
        place = self.random.randrange(len(word) + 1)
        return self.one(word[:place] + word[place + 1 :], word[:place] + "x" + word[place:],
                        word.upper(), word + "/", word.replace("-", "_"))  # fmt: skip

    def some(self, *good):
        """One of the good ones, mostly."""
        return self.one(self.one(*good), self.one(*good), self.near(self.one(*good)), self.wild())

    def pattern(self):
        cell = self.one(*self.cells)
        parts = [self.one(part, part, "*") for part in cell.split("/")]
        return self.some(cell, "/".join(parts), f"{self.one(*self.papers)}/*")

    def folder(self):
        names = (
            "empty",
            "whole",
            "broken",
            "file",
            "loop",
            "fifo",
            "gone",
            os.fsdecode(b"caf\xe9"),
        )
        return self.some(*names, "no/such", "/dev/null/x", "/proc/x", str(self.world / "whole"))

    def time(self):
        return self.some("10s", "1m", "2h", "none", "auto", "0s", "-5m", "1e9h", "9" * 400 + "s")

    def number(self):
        return self.some("1", "2", "3", "0", "-1", "1000000", "9" * 30)

    def options(self, **values):
        """Some of a verb's options with values; now and then one that it does not have."""
        given = []
        for name, value in values.items():
            if self.rarely(0.35):
                given += [f"--{name.replace('_', '-')}", *([] if value is True else [value()])]
        return given + (
            [self.one("--nothing", "-x", "-v", "--verbose")] if self.rarely(0.1) else []
        )

    # ------------------------------------------------------------------ verbs

    def list(self):
        chosen = [self.pattern() for _ in range(self.random.randrange(3))]
        return [*chosen, *self.options(results=self.folder, json=True)]

    def plan(self):
        chosen = self.options(seeds=self.number, budget=self.time, device=self.device,
                              data_root=self.folder, results=self.folder, json=True,
                              all=True)  # fmt: skip
        return [*(self.pattern() for _ in range(self.random.randrange(3))), *chosen]

    def table(self):
        chosen = self.options(paper=lambda: self.some(*self.papers), format=self.style,
                              results=self.folder, data_root=self.folder)  # fmt: skip
        return [*([self.some(*self.tables)] if self.rarely(0.8) else []), *chosen]

    def compare(self):
        return [self.folder(), self.folder(), *self.options(format=self.style)]

    def report(self):
        """Never one that is made: that takes long."""
        page = self.one("/dev/null/x", "/proc/x.html", "empty", "x" * 300, "loop/x", "file/x")
        return ["-o", page, *self.options(results=self.folder)]

    def doctor(self):
        return self.options(results=self.folder, data_root=self.folder)

    def data(self):
        what = self.some("list", "verify", "fetch")
        names = self.sets if what == "verify" else ("digits", "8gaussians", "nothing")
        chosen = [self.some(*names) for _ in range(self.random.randrange(1, 3))]
        return [what, *([] if what == "list" else chosen), *self.options(data_root=self.folder)]

    def run(self):
        """Never one that trains for long."""
        chosen = self.options(
            paper=lambda: "nothing", seeds=self.number, threads=self.number, device=self.device,
            results=self.folder, data_root=self.folder, quiet=True, dry_run=True,
        )  # fmt: skip
        bounds = ["--set", "stopping.max_steps=2", "--time-limit", "3s"]
        bounds += ["--offline", "--no-tracking"]
        if self.rarely(0.3):
            return [SMALL, *bounds]
        cell = self.one(SMALL, self.near("avb/elbo/vae"), self.wild())
        changes = [["--set", self.setting()] for _ in range(self.random.randrange(3))]
        changed = [word for change in changes for word in change]
        return [cell, *chosen, *changed, *bounds]

    def setting(self):
        return self.some(
            "optimizer.lr=1e-3", "batch_size=8", "model.args.hidden=[8]", "optimizer.lr=nan",
            "stopping.max_steps=1e30", "evaluation.metrics=[]", "objective.name=x", "a.b.c=1",
        )  # fmt: skip

    def sync(self):
        return [*self.options(results=lambda: self.one("empty", "file", "no/such", self.wild())),
                "--time-limit", self.one("1s", "2s", self.wild())]  # fmt: skip

    def style(self):
        return self.some("text", "markdown", "csv", "json", "latex")

    def device(self):
        return self.some("auto", "cpu", "cuda")

    def words(self):
        often = ("list", "plan", "table", "compare")
        rare = ("data", "report", *(("run", "doctor", "sync") if self.heavy else ()))
        verb = self.one(*often, *often, *rare)
        words = [verb, *getattr(self, verb)()]
        if self.rarely(0.1):
            words.insert(self.random.randrange(len(words) + 1), self.wild())
        if self.rarely(0.05):
            words[0] = self.some(verb)
        return words

    def environment(self):
        """Variables as they may be anywhere."""
        tmp = str(self.world)
        known = {"HOME": str(self.world / "home"), "PATH": os.environ["PATH"], "TMPDIR": tmp}
        wild = {
            "COLUMNS": lambda: self.some("80", "0", "-1", "1", "x", "100000"),
            "HOME": lambda: self.one("", "/nowhere", "/dev/null", "~", tmp),
            "PYTHONIOENCODING": lambda: self.one("ascii", "latin-1", "cp437", "utf-8", "koi8-r"),
            "DGM_BENCH_DATA": self.folder,
            "DGM_BENCH_WEIGHTS": self.folder,
            "MLFLOW_TRACKING_URI": lambda: self.some(
                "http://127.0.0.1:9", "file:/x", "nonsense://x"
            ),
            "DGM_BENCH_CHECKPOINT_SECONDS": self.number,
            "XDG_STATE_HOME": self.folder,
            "FORCE_COLOR": lambda: "1",
            "TERM": lambda: self.one("dumb", "", "xterm"),
        }
        return known | {name: draw() for name, draw in wild.items() if self.rarely(0.15)}


# --------------------------------------------------------------------------- what may come of it


def fault(done, words, err):
    """Return what a command did that it may not do, or nothing."""
    if "Traceback" in done.err and not {"-v", "--verbose"} & set(words):
        return "a traceback"
    if done.code not in CODES:
        return "an exit code of no meaning"
    if err is not None or done.code == 0 or {"-v", "--verbose"} & set(words):
        return ""
    if done.code == 3 and "unexpected" in done.err:
        return "a fault that nothing explains"
    told = [line for line in done.told if not line.startswith("warning: ")]
    answer = words[0] in ("run", "sync") or (words[0] == "compare" and not told)
    if answer and done.code in (1, 3):  # something failed, is worse, or cannot be compared
        return ""
    alone = len(told) == 1 or words[0] in ("run", "sync", "data", "")
    if not (told and LINE.fullmatch(told[-1]) and alone):
        return "no line that says what to do"
    return ""


def test_of_random_commands_none_ends_otherwise_than_it_may(tmp_path):
    if heavy := MANY > 100:  # loaded once rather than by each child
        importlib.import_module("dgm_bench.runner")
    world, ends, faults, slowest = a_world(tmp_path), Counter(), [], (0.0, [])
    for number in range(MANY):
        draw = Words(number, world, heavy)
        words, environment = draw.words(), draw.environment()
        out, err = (draw.one(*[None] * 18, CLOSED, FULL) for _ in range(2))
        cwd = None if draw.rarely(0.03) else world
        done = command(*words, cwd=cwd, environment=environment, out=out, err=err, seconds=SECONDS)
        ends[words[0] if words[0] in dir(draw) else "other", done.code] += 1
        slowest = max(slowest, (done.seconds, words))
        if wrong := fault(done, words, err):
            where = {"cwd": cwd, "out": out, "err": err, **environment}
            faults.append(f"{number}: {wrong}: {done.code}: {words} {where}\n{done.err[-600:]!r}")
    for (verb, code), count in sorted(ends.items()):
        print(f"{verb:8} exit code {code:4}: {count}")
    print(f"{MANY} commands; slowest {slowest[0]:.1f} s: {slowest[1]}"[:300])
    assert not faults, "\n".join(faults)
