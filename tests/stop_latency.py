"""How long a run takes to leave after SIGTERM, in each phase of real runs: a table.

    python tests/stop_latency.py [--minutes 9] [--tries 3] [WORKLOAD ...]

Each workload runs once without interruption, which shows how long its phases are. Then it is
stopped at random moments of each phase, again and again, and must end with the same record.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from dgm_bench.records import RunRecord, read_record

#: Where each phase is: a function of a module, or of a class of it.
PHASES = {
    "loading a data set": ["data:load"],
    "decoding images": ["data.image_folder:decoded"],
    "training": ["train.loop:Trainer.run"],
    "validation": ["train.validation:Validation.measure"],
    "encoding codes": ["execution:latents"],
    "calibration": ["execution:prepare"],
    "fitting a classifier": ["metrics.images.classifier:fit", "metrics.images.accuracy_score:fit"],
    "features": ["metrics.images.fidelity:extract"],
    "FID, KID, precision, recall": ["metrics.images.fidelity:_distributional",
                                    "metrics.images.fidelity:_manifolds"],
    "drawing images": ["metrics.images.samples:drawn"],
    "reconstructions, codes": ["metrics.images.codes:reconstruction_metrics",
                               "metrics.images.codes:codebook_metrics",
                               "metrics.images.codes:prior_metrics"],
    "importance sampling": ["metrics.bounds.variational:importance_bound"],
    "likelihood": ["metrics.bounds.likelihood:log_likelihoods"],
    "two bounds": ["metrics.bounds.avb:bounds"],
    "quadrature": ["metrics.bounds.avb:log_marginal"],
    "gradients of solvers": ["metrics.gradients.solver_gradients:_of_flow",
                             "metrics.gradients.solver_gradients:reference_gradient"],
    "pictures": ["execution:make_pictures"],
    "logging": ["tracking:RunLogger.log"],
}  # fmt: skip


def workload(cell: str, *changes: str) -> list[str]:
    return [cell, *(word for change in changes for word in ("--set", change))]


STEPS = "stopping.patience=null"
WORKLOADS = {
    "images": workload(
        "vqvae2/diversity/vqvae-2/digits-precision", STEPS, "stopping.max_steps=30",
        "validation.every=15", "batch_size=32",
    ),
    "folder": workload(
        "vqvae2/diversity/vqvae-2/cas-top1", STEPS, "stopping.max_steps=1", "batch_size=2",
        "validation.batch_size=2", 'evaluation.metrics=["codes"]', "evaluation.batch_size=2",
        "evaluation.judge=null",
    ),
    "importance": workload(
        "iwae/likelihood/iwae-2-50/digits-binary-nll", STEPS, "stopping.max_steps=100",
        "validation.every=50", "evaluation.importance_samples=5000",
    ),
    "solver": workload(
        "ffjord/density/ffjord/8gaussians", STEPS, "stopping.max_steps=20", "validation.every=10",
    ),
    "bounds": workload("avb/elbo/avb/pinwheel-negative-elbo", STEPS, "stopping.max_steps=200"),
    "gradients": workload(
        "ffjord/neural-ode/adjoint-dopri5/error-1e-3", STEPS, "stopping.max_steps=20"
    ),
    "patches": workload(
        "ffjord/density/real-nvp-5/bsds300-patches", STEPS, "stopping.max_steps=40",
        "validation.every=20",
    ),
}  # fmt: skip
#: What needs files of a data set.
NEEDS = {"patches": "bsds300"}


# ------------------------------------------------------------------------------- the run


def child(events: Path, words: list[str]) -> None:
    """Run the command line, and note where each phase begins and ends."""
    note = os.open(events, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for phase, places in PHASES.items():
        for place in places:
            module, _, path = place.partition(":")
            owner: Any = import_module(f"dgm_bench.{module}")
            *outer, name = path.split(".")
            for part in outer:
                owner = getattr(owner, part)
            setattr(owner, name, noted(getattr(owner, name), phase, note))
    from dgm_bench.cli import main

    sys.argv = ["dgm-bench", *words]
    main()


def noted(function: Callable[..., Any], phase: str, note: int) -> Callable[..., Any]:
    def inner(*args: Any, **options: Any) -> Any:
        os.write(note, f"+{phase}\n".encode())
        try:
            return function(*args, **options)
        finally:
            os.write(note, f"-{phase}\n".encode())

    return inner


# ------------------------------------------------------------------------------- the driver


class Run:
    """One process, and the phases that it is in."""

    def __init__(self, folder: Path, words: list[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.events, self.read = folder / "events", 0
        self.events.write_text("")
        own = ["run", *words, "--budget", "none", "--threads", "1", "--offline"]
        own += ["--results", str(folder / "results")]
        command = [sys.executable, __file__, "--child", str(self.events), *own]
        log = (folder / "log").open("a")
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.within: list[str] = []

    def phases(self) -> Iterator[str]:
        """Yield the innermost phase again and again, until the process has ended."""
        while self.process.poll() is None:
            time.sleep(0.01)
            lines = self.events.read_text().splitlines()
            for line in lines[self.read :]:
                if line[0] == "+":
                    self.within.append(line[1:])
                elif line[1:] in self.within:
                    self.within.remove(line[1:])
            self.read = len(lines)
            yield self.within[-1] if self.within else ""

    def stop(self) -> tuple[float, int]:
        """Send SIGTERM; return the seconds until the process has ended, and its exit code."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait()
        return time.monotonic() - started, code


def lengths(folder: Path, words: list[str]) -> dict[str, float]:
    """Run to the end; return the seconds spent in each phase, in the order of their beginning."""
    run, spent, before = Run(folder, words), {}, time.monotonic()
    for phase in run.phases():
        now = time.monotonic()
        spent[phase] = spent.get(phase, 0.0) + now - before
        before = now
    if run.process.returncode:
        raise SystemExit((folder / "log").read_text())
    return {phase: seconds for phase, seconds in spent.items() if phase}


def stop_within(folder: Path, words: list[str], phase: str, after: float) -> tuple[float, int]:
    """Stop a run so many seconds after it has come to a phase; code 0 where it came to its end."""
    run, since = Run(folder, words), None
    for now in run.phases():
        if now == phase:
            since = since or time.monotonic()
            if time.monotonic() - since >= after:
                return run.stop()
    return 0.0, run.process.returncode


def measure(name: str, folder: Path, tries: int, until: float) -> dict[str, list[float]]:
    words, found = WORKLOADS[name], {}
    spent = lengths(folder / "whole", words)
    said = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in spent.items())
    print(f"{name}: {said}", flush=True)
    draw, same = random.Random(name), True
    for phase, seconds in spent.items():
        for _ in range(tries if seconds > 0.3 and time.monotonic() < until else 0):
            after = draw.uniform(0, seconds / tries)
            took, code = stop_within(folder / "stopped", words, phase, after)
            if code not in (0, 130):
                raise SystemExit(f"exit code {code}\n" + (folder / "stopped/log").read_text())
            if took:
                found.setdefault(phase, []).append(took)
            else:  # its end came first, and what it had kept is gone
                same &= ended_alike(folder)
                shutil.rmtree(folder / "stopped")
    lengths(folder / "stopped", words)
    same &= ended_alike(folder)
    print(f"{name}: the record is {'the same' if same else 'ANOTHER'}", flush=True)
    return found


def measure_decoding(folder: Path, tries: int) -> dict[str, list[float]]:
    """Stop the decoding of a folder; its model is too large to be trained here."""
    phase, found = "decoding images", []
    for _ in range(tries):
        took, code = stop_within(folder, WORKLOADS["folder"], phase, random.uniform(0, 1))
        found += [took] if code == 130 else []
    print(f"folder: stopped {len(found)} times", flush=True)
    return {phase: found}


def ended_alike(folder: Path) -> bool:
    whole, stopped = (record_of(folder / part) for part in ("whole", "stopped"))
    return comparable(whole) == comparable(stopped)


def record_of(folder: Path) -> RunRecord:
    (path,) = (folder / "results/runs").rglob("*.json")
    return read_record(path)


def comparable(record: RunRecord) -> object:
    """All but times: of the gradients' metrics, some are."""
    timed = ("seconds", "time-ratio")
    metrics = [metric for metric in record.metrics if not metric.name.startswith(timed)]
    spent = record.budget
    counts = spent.steps, spent.examples, spent.function_evaluations, spent.best_step
    return metrics, record.data, counts, record.artifacts["weights.safetensors"]


def make_folder(root: Path, images: int = 400) -> None:
    """Write JPEG files as ImageNet has them, of noise, which takes long to decode."""
    draw = np.random.default_rng(0)
    small = draw.integers(256, size=(images, 60, 80, 3), dtype=np.uint8)
    for number, levels in enumerate(small):
        split, wnid = ("train", "val")[number % 10 == 0], f"n0000000{number % 3}"
        path = root / f"imagenet/{split}/{wnid}/{number:05}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(levels).resize((2000, 1500)).save(path)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("workloads", nargs="*", default=list(WORKLOADS))
    given = parser.parse_args()
    until, found = time.monotonic() + 60 * given.minutes, dict[str, list[float]]()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(os.environ.get("DGM_BENCH_DATA", f"{folder}/nothing"))
        for name in given.workloads:
            if name in NEEDS and not (root / NEEDS[name]).is_dir():
                print(f"{name}: left out, {root} has no {NEEDS[name]}")
                continue
            if name == "folder":
                make_folder(Path(folder) / "data")
                os.environ["DGM_BENCH_DATA"] = str(Path(folder) / "data")
            else:
                os.environ["DGM_BENCH_DATA"] = str(root)
            place = Path(folder) / name
            measured = (
                measure_decoding(place, given.tries)
                if name == "folder"
                else measure(name, place, given.tries, until)
            )
            for phase, took in measured.items():
                print(f"  {phase}: {', '.join(f'{seconds:.2f}' for seconds in took)} s", flush=True)
                found.setdefault(phase, []).extend(took)
    print(f"\n{'phase':30} {'tries':>5} {'median':>8} {'worst':>8}")
    for phase in PHASES:
        if took := found.get(phase):
            print(f"{phase:30} {len(took):5} {median(took):6.2f} s {max(took):6.2f} s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), sys.argv[3:])
    else:
        main()
