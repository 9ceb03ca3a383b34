"""What a real Slurm on this machine costs: a plan of small runs beside one process, and a table.

    python tests/engines/slurm_times.py [--jobs-alone] [PATTERN ...]

Two nodes of one processor each; an idle machine of two cores. ``--jobs-alone`` gives each task a
job of its own, which then starts torch. Ends with 1 where records differ.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from engines.same_records import differences
from engines.slurm_cluster import SlurmCluster

from dgm_bench.store import Store

#: 42 small runs, with three seeds each.
TOYS = "2spirals", "8gaussians", "circles", "moons", "pinwheel", "rings", "swissroll"
PLAN = [f"ffjord/density/{row}/{toy}" for row in ("gaussian", "made") for toy in TOYS]
START = "import dgm_bench.engines.worker"


def seconds(cluster: SlurmCluster, *command: str) -> float:
    """Return what a command takes."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *command],
        env=cluster.environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return time.monotonic() - began


def run(cluster: SlurmCluster, results: Path, *words: str) -> float:
    """Return what ``dgm-bench run`` takes."""
    always = ("--seeds", "3", "--budget", "none", "--no-tracking", "--threads", "1", "--offline")
    return seconds(cluster, "-m", "dgm_bench", "run", *words, *always, "--results", str(results))


def spent(results: Path) -> float:
    """Return what the runs of a results folder took by their own records, all together."""
    budgets = [record.budget for record in Store(results).records()]
    return sum(b.seconds for b in budgets)


def main(words: Sequence[str]) -> int:
    """Measure, and print a table."""
    alone = ["--engine-option", "pack=1s"] if "--jobs-alone" in words else []
    plan = [word for word in words if not word.startswith("--")] or PLAN
    with tempfile.TemporaryDirectory(prefix="slurm-") as place:
        one, many = Path(place) / "one", Path(place) / "slurm"
        with SlurmCluster(Path(place) / "cluster", nodes=2, cpus=1) as cluster:
            start = median(seconds(cluster, "-c", START) for _ in range(3))
            single = run(cluster, one, *plan, "--jobs", "1")
            both = run(cluster, many, *plan, "--engine", "slurm", *alone)
            shown = cluster.run("squeue", "-h", "-r", "-t", "all", "-o", "%i").split()
        runs, jobs = len(Store(many).records()), len(shown)
        print(f"{runs} runs in {jobs} jobs on 2 nodes of one processor, {os.cpu_count()} cores")
        print(f"one process {single:.1f} s, Slurm {both:.1f} s: ratio {single / both:.2f}")
        print(f"the runs themselves: one process {spent(one):.1f} s, Slurm {spent(many):.1f} s")
        extra = (2 * both - spent(many)) / runs
        beside = (2 * both - spent(many) - jobs * start) / runs
        print(
            f"starting torch {start:.1f} s; overhead a run {extra:.2f} s, {beside:.2f} s beside it"
        )
        print(*differences(one, many) or ["all records equal to the bit"], sep="\n")
        return int(bool(differences(one, many)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
