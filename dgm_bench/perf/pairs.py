"""Two states of the code side by side: a process of each, whose calls alternate."""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any, Self

from dgm_bench.errors import UnexpectedError

#: Seconds that a turn of a worker lasts, at least, and all turns of both workers together. Many
#: short turns meet the same disturbances on both sides.
TURN_SECONDS, PAIR_SECONDS = 0.004, 1.5
FEWEST_ROUNDS, MOST_ROUNDS = 30, 200
#: Runs a worker of this state's cases on the code of another: whatever stands in ``dgm_bench.perf``
#: there, both sides do the same work.
_START = """
import sys, types
here, device = sys.argv[1:]
perf = types.ModuleType("dgm_bench.perf")
perf.__path__ = [here]
import dgm_bench
sys.modules["dgm_bench.perf"] = perf
sys.argv = ["worker", device]
from dgm_bench.perf.worker import main
main()
"""
_HERE = Path(__file__).resolve().parent


def worker_command(device: str) -> list[str]:
    """Return the command that starts a worker on the tree that ``PYTHONPATH`` names."""
    return [sys.executable, "-P", "-c", _START, str(_HERE), device]


@dataclass(frozen=True)
class Side:
    """One state of the code.

    Attributes:
        name: In messages.
        tree: The folder that holds ``dgm_bench``.
        command: Starts a worker.
    """

    name: str
    tree: Path
    command: Sequence[str]


class Worker:
    """A running worker.

    Args:
        side: What it runs.
    """

    def __init__(self, side: Side) -> None:
        self.side = side
        own = {"PYTHONPATH": str(side.tree), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed when the worker ends
        self._process = subprocess.Popen(
            side.command,
            env={**os.environ, **own},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def wait_until_ready(self) -> None:
        """Wait until it has started."""
        self._answer()

    def stay_on(self, core: int) -> None:
        """Let it run on one core alone."""
        os.sched_setaffinity(self._process.pid, {core})

    def make(self, case: str) -> tuple[float | None, str]:
        """Let it make a case; return the seconds of a call, or None and why there is no such."""
        answer = self._ask("case", case)
        return answer.get("seconds"), answer.get("lacks", "")

    def seconds(self, calls: int) -> float:
        """Let it take calls; return the seconds of one."""
        return float(self._ask("call", str(calls))["seconds"]) / calls

    def _ask(self, *words: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        with suppress(OSError):  # of a process that has ended; there is no answer then
            self._process.stdin.write(" ".join(words) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        try:
            return dict(json.loads(line))
        except ValueError as error:
            thing, remedy = f"the worker of {self.side.name}", "see whether it can be imported"
            raise UnexpectedError(thing, f"ended: {self._last_words()}", remedy) from error

    def _last_words(self) -> str:
        self._process.kill()
        self._process.wait()
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip().rpartition("\n")[2]


@dataclass(frozen=True)
class PairResult:
    """What a pair of processes found of a case.

    Attributes:
        log_ratio: Median over rounds of the logarithm of head's time by base's.
        seconds: Median seconds of a call, of base and head.
        lacks: Why a side cannot do it; the rest is empty then.
    """

    log_ratio: float = 0.0
    seconds: tuple[float, float] = (0.0, 0.0)
    lacks: str = ""


@contextmanager
def pair_of_workers(
    base: Side, head: Side, chance: random.Random
) -> Iterator[tuple[Worker, Worker]]:
    """Give two fresh processes on one core, and end them.

    They never work at once. On two cores one of them would have the busier neighbour: that doubled
    the spread of what pairs found on a machine with two cores and other processes.
    """
    with Worker(base) as first, Worker(head) as second:
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        for worker in (first, second):
            worker.wait_until_ready()
        if cores:
            core = chance.choice(cores)
            first.stay_on(core)
            second.stay_on(core)
        yield first, second


def measure_pair(
    base: Side, head: Side, cases: Sequence[str], chance: random.Random
) -> Mapping[str, PairResult]:
    """Time cases in one pair of fresh processes, call against call in random order.

    Raises:
        UnexpectedError: A process ended.
    """
    with pair_of_workers(base, head, chance) as workers:
        return {case: measure_case(workers, (case, case), chance) for case in cases}


def measure_case(
    workers: tuple[Worker, Worker], names: tuple[str, str], chance: random.Random
) -> PairResult:
    """Time a case in a pair of processes.

    Args:
        workers: Of base and head.
        names: What each of them calls the case.
        chance: Of the order.

    Raises:
        UnexpectedError: A process ended.
    """
    lengths = []
    for worker, name in zip(workers, names, strict=True):
        length, lacks = worker.make(name)
        if length is None:
            return PairResult(lacks=f"{worker.side.name} cannot do it: {lacks}")
        lengths.append(length)
    call = max(min(lengths), 1e-6)
    calls = max(1, round(TURN_SECONDS / call))
    rounds = int(PAIR_SECONDS / (2 * calls * call))
    return _alternated(workers, calls, min(max(rounds, FEWEST_ROUNDS), MOST_ROUNDS), chance)


def _alternated(
    workers: tuple[Worker, Worker], calls: int, rounds: int, chance: random.Random
) -> PairResult:
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for place in chance.sample((0, 1), 2):
            taken[place].append(workers[place].seconds(calls))
    ratios = [log(new / old) for old, new in zip(*taken, strict=True)]
    base, head = map(statistics.median, taken)
    return PairResult(statistics.median(ratios), (base, head))
