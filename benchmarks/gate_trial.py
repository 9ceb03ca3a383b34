"""Whether the gate of times can be believed: false alarms, and a slowdown that is there.

    python benchmarks/gate_trial.py [--minutes 12] [--busy 0] [--slowdown 0.1] [CASE ...]

Pairs of fresh processes time the same code, and code that does so much more in each call. Five
pairs of a case, or up to ten where the rule wants more, are a run of the gate on that case. Whole
runs are counted, of pairs that belong to no other run, and then runs drawn from all pairs of a
case again and again, which are not independent but many. ``--busy 2`` lets two other processes
work all the time.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import stdev
from typing import NamedTuple

import torch

from dgm_bench.paths import PACKAGE
from dgm_bench.perf import pairs
from dgm_bench.perf.judgement import MOST_PAIRS, PAIRS, State, judge
from dgm_bench.perf.pairs import Side
from dgm_bench.perf.steps import usual_settings
from dgm_bench.perf.worker import Timed, make_timed, serve

CASES = ("maf", "nsf-autoregressive", "maf-ddsf", "vqvae", "pixelcnn")
#: Seconds that a pair times a case: a fifth of what the gate takes.
SECONDS = 0.3
#: One pair of processes in so many times slower code too.
SLOWED_IN = 5
DRAWN_RUNS = 2000
_BUSY = "import torch; torch.set_num_threads(1); x = torch.randn(300, 300)\nwhile True: x @ x"


# --------------------------------------------------------------------------- the defect


def slowed(work: Callable[[], None], share: float) -> Callable[[], None]:
    """Return work that goes on for a share of its time, with small operators of torch."""
    x = torch.randn(100, 8)

    def slower() -> None:
        before = time.thread_time()
        work()
        until = time.thread_time() + share * (time.thread_time() - before)
        while time.thread_time() < until:
            x.tanh()

    return slower


def make_slowed(name: str, device: str) -> Timed:
    """Make a case ready: ``maf+0.1`` is the case ``maf``, slower by a tenth."""
    case, _, share = name.partition("+")
    timed = make_timed(case, device)
    if share:
        timed.work = slowed(timed.work, float(share))
    return timed


# --------------------------------------------------------------------------- pairs


class Pools(NamedTuple):
    """Logarithms of head's time by base's, by case: of equal code, and of slower code."""

    equal: dict[str, list[float]]
    slower: dict[str, list[float]]


@contextmanager
def busy(number: int) -> Iterator[None]:
    """Let so many other processes work."""
    processes = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(cases: Sequence[str], slowdown: float, minutes: float) -> Pools:
    """Measure pairs until the time is up."""
    pairs.PAIR_SECONDS, pairs.FEWEST_ROUNDS = SECONDS, 12
    command = [sys.executable, "-P", __file__, "--worker"]
    base, head = (Side(name, PACKAGE.parent, command) for name in ("base", "head"))
    pools = Pools({case: [] for case in cases}, {case: [] for case in cases})
    chance, until = random.Random(), time.monotonic() + 60 * minutes
    for number in count():
        if time.monotonic() >= until:
            break
        with pairs.pair_of_workers(base, head, chance) as workers:
            for case in cases:
                for pool, name in ((pools.equal, case), (pools.slower, f"{case}+{slowdown}")):
                    if pool is pools.equal or number % SLOWED_IN == 0:
                        found = pairs.measure_case(workers, (case, name), chance)
                        pool[case].append(found.log_ratio)
    return pools


# --------------------------------------------------------------------------- runs


def run_of(ratios: Sequence[float]) -> tuple[State, int]:
    """Return how a run of the gate ends that takes these pairs in turn, and how many it takes."""
    state: State = "same"
    taken = 0
    for taken in range(PAIRS, min(MOST_PAIRS, len(ratios)) + 1):
        state = judge(ratios[:taken]).state
        if state != "perhaps slower":
            break
    return state, taken


def whole_runs(ratios: Sequence[float]) -> list[State]:
    """Return how the runs end that follow each other, each of pairs of its own."""
    ends, place = [], 0
    while place + PAIRS <= len(ratios):
        state, taken = run_of(ratios[place:])
        ends.append(state)
        place += taken
    return ends


def drawn_runs(ratios: Sequence[float]) -> list[State]:
    """Return how runs end whose pairs are drawn from all."""
    chance, size = random.Random(0), min(MOST_PAIRS, len(ratios))
    return [run_of(chance.sample(ratios, size))[0] for _ in range(DRAWN_RUNS)]


def print_table(title: str, pool: dict[str, list[float]]) -> None:
    """Print, for each case, how the pairs spread and how many runs say slower."""
    print(f"\n{title}\n{'case':20} pairs  spread  whole runs: slower, perhaps  drawn runs: slower")
    total = [0, 0, 0]
    for case, ratios in pool.items():
        if len(ratios) < PAIRS:
            print(f"{case:20} {len(ratios):5}  too few pairs for a run")
            continue
        whole, drawn = whole_runs(ratios), drawn_runs(ratios)
        found = [len(whole), whole.count("slower"), whole.count("perhaps slower")]
        total = [a + b for a, b in zip(total, found, strict=True)]
        share = 100 * drawn.count("slower") / len(drawn)
        print(f"{case:20} {len(ratios):5}  {100 * stdev(ratios):4.1f} %  "
              f"{found[1]:3} of {found[0]:3}, {found[2]:3}  {share:20.1f} %")  # fmt: skip
    print(f"whole runs in all: {total[0]}; slower: {total[1]}, perhaps slower: {total[2]}")


def kept(file: Path, pools: Pools) -> Pools:
    """Return the pools with those of a file before them, and write all to the file."""
    before = json.loads(file.read_text()) if file.exists() else [{}, {}]
    whole = Pools(*({c: old.get(c, []) + new.get(c, []) for c in {**old, **new}}
                    for old, new in zip(before, pools, strict=True)))  # fmt: skip
    file.write_text(json.dumps(whole))
    return whole


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--slowdown", type=float, default=0.1)
    parser.add_argument("--keep", type=Path, help="add the pairs to a file, and print all in it")
    parser.add_argument("cases", nargs="*", default=list(CASES))
    given = parser.parse_args()
    with busy(given.busy):
        pools = measure(given.cases, given.slowdown, given.minutes)
    if given.keep:
        pools = kept(given.keep, pools)
    beside = f", beside {given.busy} busy processes" if given.busy else ""
    print_table(f"equal code{beside}", pools.equal)
    print_table(f"{given.slowdown:.0%} slower{beside}", pools.slower)


if __name__ == "__main__":
    if sys.argv[1:] == ["--worker"]:
        with usual_settings():
            serve("cpu", make_slowed)
    else:
        main()
