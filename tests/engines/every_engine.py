"""The same plan of small runs by one process, the pool, a real Slurm and a real Ray: a table.

    PYTHONPATH=.:tests:benchmarks python tests/engines/every_engine.py

42 runs, three seeds of 14 recipes; two processes of the pool, two nodes of Slurm, three of Ray, all
on this machine. Ends with 1 where records are not equal to the bit.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from engines.ray_nodes import ray_nodes
from engines.same_records import differences
from engines.slurm_cluster import SlurmCluster
from pool import small_plan

from dgm_bench.store import Store


@contextmanager
def slurm(folder: Path) -> Iterator[Mapping[str, str]]:
    """Give what the environment of a command on Slurm has."""
    with SlurmCluster(folder / "cluster", nodes=2, cpus=1) as cluster:
        yield cluster.environment


@contextmanager
def ray(folder: Path) -> Iterator[Mapping[str, str]]:
    """Give what the environment of a command on Ray has."""
    with ray_nodes() as nodes:
        yield {**os.environ, "RAY_ADDRESS": nodes.address}


@contextmanager
def here(folder: Path) -> Iterator[Mapping[str, str]]:
    """Give this environment."""
    yield os.environ


ALWAYS = ("--threads", "1", "--no-tracking", "--offline")
WAYS = {
    "one": (here, ("--jobs", "1")),
    "pool": (here, ("--jobs", "2")),
    "slurm": (slurm, ("--engine", "slurm")),
    "ray": (ray, ("--engine", "ray")),
}


def main() -> int:
    """Do the plan by each; print seconds, those of its runs by their records, and what differs."""
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="engines-") as name:
        folder = Path(name)
        for way, (around, words) in WAYS.items():
            command = [sys.executable, "-m", "dgm_bench", "run", *small_plan(), *ALWAYS, *words]
            with around(folder) as environment:
                began = time.monotonic()
                done = subprocess.run(
                    [*command, "--results", str(folder / way)],
                    env={**environment, "OMP_NUM_THREADS": "1"},
                    capture_output=True,
                    text=True,
                    check=False,
                )
                took = time.monotonic() - began
            records = Store(folder / way).records()
            work = sum(r.budget.seconds for r in records)
            found = differences(folder / "one", folder / way)
            wrong += len(found) + done.returncode
            same = "; ".join(found[:3]) or "equal to the bit"
            print(
                f"{way}: {len(records)} runs, {took:.1f} s, work {work:.1f} s, {same}", flush=True
            )
            if done.returncode:
                print(done.stderr[-2000:])
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
