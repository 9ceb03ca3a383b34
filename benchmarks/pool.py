"""What the local pool gains: the same plan by one process and by the pool, in turns.

``python benchmarks/pool.py`` needs an idle machine and prints three things:

- ``ratio``: 40 small runs, three seeds, by one process with a thread (``--jobs 1 --threads 1``) and
  by a pool with a process a core, and how many times as long the first takes. Both are beside
  ``threads``: one process with all cores. The records are compared to the bit.
- ``overhead``: seconds a run that its commands take beside its training and evaluation and beside
  what one start of torch takes, in a pool of one process.
- ``trainings``: how many finish in ten minutes (``--minutes``) of ``run --paper ffjord``, by one
  process with all cores and by the pool.

About half an hour on two cores; ``--part`` does one of them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from dgm_bench import provenance
from dgm_bench.store import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "engines"))
from same_records import differences

#: 14 recipes with three seeds, of which some are trained together: 42 runs.
ROWS = ("made", "real-nvp-5", "maf-5", "glow", "nice", "ffjord", "planar-cnf")
DATA = ("8gaussians", "pinwheel")
SEEDS = 3
STEPS = "stopping.max_steps=200"
SETTINGS = ("stopping.patience=null", STEPS, "validation.every=100")


def run(results: Path, *words: str) -> float:
    """Run a command, and return the seconds that it takes."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "dgm_bench", "run", *words, "--offline", "--no-tracking"]
    done = subprocess.run(
        [*command, "--results", str(results)], capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr)
    return time.perf_counter() - started


def small_plan(steps: str = STEPS) -> list[str]:
    """Return the words that ask for the small runs."""
    words = [f"ffjord/density/{row}/{data}" for row in ROWS for data in DATA]
    settings = [word for setting in (*SETTINGS, steps) for word in ("--set", setting)]
    return [*words, *settings, "--seeds", str(SEEDS), "--budget", "none"]


def ratio(folder: Path, jobs: int, repeats: int) -> None:
    """Print seconds of one process, of all threads, and of the pool, and their ratios."""
    ways = {
        "one": ["--jobs", "1", "--threads", "1"],
        "threads": ["--jobs", "1"],
        "pool": ["--jobs", str(jobs), "--threads", "1"],
    }
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(repeats):
        for way, words in ways.items():
            taken[way].append(run(folder / f"{way}-{turn}", *small_plan(), *words))
            print(f"  {way}: {taken[way][-1]:.1f} s", flush=True)
    best = {way: min(seconds) for way, seconds in taken.items()}
    count = len(Store(folder / "one-0").records())
    same = differences(folder / "one-0", folder / "pool-0")
    print(
        f"ratio: {count} runs, {jobs} at once: {best['one'] / best['pool']:.2f} times one thread,"
    )
    print(f"  {best['threads'] / best['pool']:.2f} times one process with all cores")
    print("  records: " + ("; ".join(same[:3]) or "equal to the bit"))


def overhead(folder: Path) -> None:
    """Print what a run takes beside its work, with runs of few steps."""
    start = min(_seconds([sys.executable, "-c", "import torch"]) for _ in range(3))
    took = run(folder / "few", *small_plan("stopping.max_steps=10"), "--jobs", "1")
    pooled = run(folder / "pooled", *small_plan("stopping.max_steps=10"), "--jobs", "2")
    records = Store(folder / "pooled").records()
    work = sum(
        r.budget.train_seconds + r.budget.validation_seconds + r.budget.evaluation_seconds
        for r in records
    )
    own = 2 * pooled - work - 2 * start
    print(f"overhead: torch starts in {start:.1f} s; {len(records)} runs work {work:.1f} s in sum;")
    print(f"  one process {took:.1f} s, two {pooled:.1f} s: {own / len(records):.2f} s a run")


def _seconds(command: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - started


def trainings(folder: Path, jobs: int, minutes: float) -> None:
    """Print how many trainings of the ffjord catalogue end within a budget."""
    found = {}
    for way, words in {"one": ["--jobs", "1"], "pool": ["--jobs", str(jobs)]}.items():
        took = run(folder / way, "--paper", "ffjord", "--budget", f"{minutes * 60:.0f}s", *words)
        records = Store(folder / way).records()
        ended = [r for r in records if not r.outcome.cut_short and r.outcome.status == "complete"]
        found[way] = len(ended)
        print(f"  {way}: {len(ended)} of {len(records)} ended, {took / 60:.1f} minutes", flush=True)
    print(f"trainings: {found['pool'] / max(found['one'], 1):.2f} times as many with the pool")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=["ratio", "overhead", "trainings"])
    parser.add_argument("--jobs", type=int, default=provenance.cores())
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=10.0)
    given = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "DGM_BENCH_JOBS"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.part in (None, "ratio"):
            ratio(folder / "ratio", given.jobs, given.repeats)
        if given.part in (None, "overhead"):
            overhead(folder / "overhead")
        if given.part in (None, "trainings"):
            trainings(folder / "trainings", given.jobs, given.minutes)


if __name__ == "__main__":
    main()
