"""Kills runs in each of their phases, at any moment and before each change of a file.

    python kill_driver.py KILLS FOLDER < cases.json

Used by the tests. A case is ``{"name": ..., "arguments": [...]}``, arguments of ``dgm-bench run``
without ``--results`` and ``--data-root``. Each case runs to its end once, which shows its phases
and how long each takes; then again and again, killed and continued, until there are KILLS kills.
Everything is imported before children are forked, so that a kill falls into the run itself.
Prints JSON: for each round of kills its case, the two folders, the exit code, the kills by phase.
"""

import functools
import json
import mmap
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401
import numpy as np
import torch
import torch._dynamo
from PIL import Image
from stand_ins import hasty

from dgm_bench import data, execution, kept, provenance, session, staged_training, workdir
from dgm_bench.catalog import load_catalog
from dgm_bench.cli import cli
from dgm_bench.data import image_folder
from dgm_bench.metrics.images import classifier
from dgm_bench.pictures import pictures, two_stage
from dgm_bench.train import loop, validation

#: Where each phase is: the innermost counts. In the order in which kills are aimed at them.
PHASES = {
    "loading data": (session.DataSource, "load"),
    "decoding images": (image_folder, "decoded"),
    "beginning": (workdir.WorkFolder, "begin"),
    "between stages": (execution.Execution, "_train"),
    "training": (loop.Trainer, "run"),
    "validating": (validation.Validation, "measure"),
    "encoding codes": (staged_training, "latents"),
    "preparing": (execution, "prepare"),
    "evaluating": (execution, "evaluate"),
    "writing artifacts": (execution.Execution, "_keep_artifacts"),
    "writing the record": (execution.Execution, "_write"),
    "closing": (execution.Execution, "_close"),
}
NAMES = ("elsewhere", *PHASES)
#: What changes files, as Python's audit events name it; rmtree names relative to an open folder.
CHANGES = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod")
#: How often a phase is aimed at in one round, where all are.
TIMES = 2
PATIENCE = 120.0
#: Seconds between two savings of what is done.
OFTEN = 0.05
IMAGES, SIDE = 48, 16


class Shared:
    """What a child tells the driver, and what the driver wants of it, in shared memory."""

    def __init__(self):
        numbers = np.frombuffer(mmap.mmap(-1, 8 * (3 + 3 * len(NAMES))), dtype=np.float64)
        #: The phase now; the phase to be killed in; before which change, counted down.
        self.now, self.target, self.left = (numbers[i : i + 1] for i in range(3))
        #: Of each phase: how long it took, how many changes it made, how often it began.
        self.seconds, self.changes, self.begun = numbers[3:].reshape(3, -1)

    def phase(self):
        return int(self.now[0])


SHARED = Shared()


def watch():
    """Let every phase say that it is on, how long it took, and how many files it changed."""
    for number, (owner, name) in enumerate(PHASES.values(), start=1):
        setattr(owner, name, watched(getattr(owner, name), number))
    sys.addaudithook(on_event)


def keep_often():
    """Let evaluations keep what is done as often as training does here."""
    kept.Journal.__init__ = functools.partialmethod(kept.Journal.__init__, every=OFTEN)
    kept.EVERY_STATE = OFTEN


def show_little():
    """Draw few images and points, compared by a classifier that saw each image once."""
    classifier.settings_for = hasty
    two_stage.RECONSTRUCTED = two_stage.QUERIES = two_stage.NEAREST = 2
    two_stage.PER_CLASS = two_stage.CLASSES = 3
    pictures.GRID, pictures.POINTS = 40, 200


def watched(function, number):
    @functools.wraps(function)
    def inside(*args, **options):
        before, began = SHARED.phase(), time.perf_counter()
        SHARED.now[0] = number
        SHARED.begun[number] += 1
        try:
            return function(*args, **options)
        finally:
            spent = time.perf_counter() - began
            SHARED.seconds[number] += spent
            SHARED.seconds[before] -= spent
            SHARED.now[0] = before

    return inside


def on_event(event, args):
    """Count changes of files, and die before the one that the driver chose."""
    if event not in CHANGES or not changes_a_file(event, args):
        return
    SHARED.changes[SHARED.phase()] += 1
    if SHARED.target[0] == SHARED.phase():
        SHARED.left[0] -= 1
        if SHARED.left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def changes_a_file(event, args):
    """Say whether an event is a change below the folder of the round, the working directory."""
    if event == "open" and not (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return False
    path = os.fsdecode(args[0]) if isinstance(args[0], str | bytes | os.PathLike) else ""
    return not os.path.isabs(path) or path.startswith(os.getcwd())


def child(arguments, target=0, left=0):
    """Fork a run; its kills are those before a change of a file, if any."""
    SHARED.now[0], SHARED.target[0], SHARED.left[0] = 0, target, left
    pid = os.fork()
    if pid:
        return pid
    code = 3
    try:
        cli.main(arguments, prog_name="dgm-bench", standalone_mode=True)
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(pid, patience=PATIENCE):
    """Return how a child ended; one that takes too long is an error of the driver."""
    ends = time.monotonic() + patience
    while time.monotonic() < ends:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    raise SystemExit(f"a run takes longer than {patience} s in {NAMES[SHARED.phase()]}")


def kill_in(pid, target, delay):
    """Kill a child a while after it came to a phase, if it does not end before."""
    ends = time.monotonic() + PATIENCE
    while SHARED.phase() != target and time.monotonic() < ends:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.0005)
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


class Case:
    """One command, run whole once and then killed in rounds."""

    def __init__(self, name, arguments, folder):
        self.name, self.arguments, self.hits = name, arguments, Counter()
        self.whole = self.prepared(folder / f"{name}-whole")
        SHARED.seconds[:] = SHARED.changes[:] = SHARED.begun[:] = 0
        status = wait(child(arguments))
        if status:
            raise SystemExit(f"{name}: the uninterrupted run ends with {status}")
        self.seconds, self.changes = SHARED.seconds.copy(), SHARED.changes.copy()
        self.targets = [number for number in range(1, len(NAMES)) if SHARED.begun[number]]
        if SHARED.begun[NAMES.index("encoding codes")]:  # a stage is trained after it
            place = self.targets.index(NAMES.index("encoding codes"))
            self.targets.insert(place + 1, NAMES.index("training"))

    def prepared(self, folder):
        """Enter a new folder with the images that a data set is to find; results go beside."""
        folder.mkdir()
        shutil.copytree(folder.parent / "images", folder / "data")
        os.chdir(folder)
        return folder

    def round(self, folder, kills, chance):
        """Kill one run at most so often, and let it end; return what became of it."""
        self.prepared(folder)
        hits = dict.fromkeys(NAMES, 0)
        for target in self.aims(kills, chance):
            if not os.WIFSIGNALED(self.kill(target, chance)):
                break
            hits[NAMES[SHARED.phase()]] += 1
        self.hits.update(hits)
        code = os.waitstatus_to_exitcode(wait(child(self.arguments)))
        ended = {"case": self.name, "whole": str(self.whole), "killed": str(folder)}
        return {**ended, "code": code, "hits": {name: n for name, n in hits.items() if n}}

    def aims(self, kills, chance):
        """Return phases in the order of the run: those that were hit least so far."""
        places = chance.sample(range(TIMES * len(self.targets)), TIMES * len(self.targets))
        places.sort(key=lambda place: self.hits[NAMES[self.targets[place // TIMES]]])
        return [self.targets[place // TIMES] for place in sorted(places[:kills])]

    def kill(self, target, chance):
        """Kill one child in a phase: at a random time, or before a random change of a file.

        What is left of a phase may be short, and what is changed little.
        """
        changes = int(self.changes[target])
        if changes and chance.random() < 0.5:
            most = chance.randint(1, changes)
            return wait(child(self.arguments, target, chance.randint(1, most)))
        longest = chance.uniform(0, float(self.seconds[target]))
        return kill_in(child(self.arguments), target, chance.uniform(0, longest))


def write_images(home):
    """Write a small folder of images of two classes, and let its data set be of that kind."""
    colours = np.random.default_rng(0).integers(256, size=(IMAGES, 3))
    for number, colour in enumerate(colours):
        split = "val" if number % 4 == 0 else "train"
        path = home / "imagenet" / split / f"n0000000{number % 2}" / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (SIDE, SIDE), tuple(colour.tolist())).save(path)
    small = replace(data.card("imagenet-256"), event_shape=(3, SIDE, SIDE), classes=2)
    data.CARDS = tuple(small if card.name == small.name else card for card in data.CARDS)


def main():
    torch.set_num_threads(1)
    os.environ["DGM_BENCH_CHECKPOINT_SECONDS"] = str(OFTEN)
    wanted, folder = int(sys.argv[1]), Path(sys.argv[2]).resolve()
    load_catalog()  # declared for images of their own size
    write_images(folder / "images")
    provenance.code()  # once: a change of the package in the meantime would start runs again
    keep_often()
    show_little()
    watch()
    places = ["--results", "results", "--data-root", "data"]
    cases = [
        Case(case["name"], [*case["arguments"], *places], folder) for case in json.load(sys.stdin)
    ]
    chance, rounds = random.Random(0), []
    while wanted > 0:
        case = cases[len(rounds) % len(cases)]
        share = -(-wanted // max(len(cases) - len(rounds), 1))
        rounds.append(case.round(folder / f"{case.name}-{len(rounds)}", share, chance))
        print(json.dumps(rounds[-1]), file=sys.stderr, flush=True)
        wanted -= max(sum(rounds[-1]["hits"].values()), 1)
    return rounds


if __name__ == "__main__":
    with redirect_stdout(sys.stderr):  # where the runs' rows go too
        found = main()
    print(json.dumps(found))
