"""Time and memory against batch, dimension, data, cells and stored records, with the exponents.

``python benchmarks/scaling.py`` measures each size in a process of its own, prints the tables of
benchmarks/README.md, and draws a plot of each into ``benchmarks/scaling``. It takes about four
minutes on an idle core. ``--only batch,cells`` measures some.

Seconds are processor time of one thread, the median of several calls after the first; megabytes
are what the process holds at most during them beyond what it held before.
"""

from __future__ import annotations

import argparse
import atexit
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

PLOTS = Path(__file__).parent / "scaling"
#: Of a measurement: fewest calls, and seconds of processor time after which no more are made.
CALLS, SECONDS = 5, 3.0
#: Points at the large end over which the second exponent is taken.
LARGE = 3
WIDTH, DIM, BATCH = 256, 63, 100


class Sweep(NamedTuple):
    """One quantity that grows, and what is measured.

    Attributes:
        sizes: From small to large.
        axis: What grows.
        what: What takes the time.
        prepare: Returns the work of a size.
    """

    sizes: Sequence[int]
    axis: str
    what: str
    prepare: Callable[[int], Callable[[], object]]


class Point(NamedTuple):
    """What the work of one size takes."""

    size: int
    seconds: float
    megabytes: float


# --------------------------------------------------------------------------- the work


def _step(batch: int, dim: int) -> Callable[[], object]:
    """Return a training step of MAF (5 MADEs of 2 x 256) with Adam."""
    import torch

    from dgm_bench.models.flows.maf import MAF
    from dgm_bench.spec import OptimizerSpec
    from dgm_bench.train.optimizers import build_optimizer

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = MAF((dim,), layers=5, hidden=(WIDTH, WIDTH), batch_norm=False)
    optimizer = build_optimizer(OptimizerSpec(lr=1e-4), model)
    x = torch.randn(batch, dim)

    def step() -> None:
        optimizer.zero_grad()
        (-model.log_prob(x).mean()).backward()
        optimizer.step()

    return step


def _validation(examples: int) -> Callable[[], object]:
    """Return the likelihood of that many examples, as validation takes it: 10,000 at once."""
    import torch

    from dgm_bench.models.flows.maf import MAF

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = MAF((DIM,), layers=5, hidden=(WIDTH, WIDTH), batch_norm=False).eval()

    def validate() -> float:
        x = torch.randn(examples, DIM)
        with torch.no_grad():
            return sum(float(model.log_prob(part).sum()) for part in x.split(10_000))

    return validate


def _plan(cells: int) -> Callable[[], object]:
    """Return planning that many cells, by declarations and records that were read before."""
    from dgm_bench.catalog import load_catalog
    from dgm_bench.cli.queries import make_plan
    from dgm_bench.context import RunContext
    from dgm_bench.paths import own_results, stored_results
    from dgm_bench.store import Store

    chosen = load_catalog().cells[:cells]
    store = Store(own_results(), stored_results())
    store.records()
    context = RunContext(Path(tempfile.gettempdir()), own_results(), stored_results(), offline=True)
    return lambda: make_plan(chosen, context, store)


def _list(records: int) -> Callable[[], object]:
    """Return ``dgm-bench list`` of so many stored records, with the index that it kept before."""
    from scale import make_results, measured

    folder = Path(tempfile.mkdtemp(prefix="scaling-"))
    atexit.register(shutil.rmtree, folder)
    make_results(folder, records)
    time.sleep(3)  # the index takes no file that was written within two seconds
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    return lambda: measured(("list", "--results", str(folder)), environment)


SWEEPS: Mapping[str, Sweep] = {
    "batch": Sweep(
        (16, 64, 256, 1024, 4096), "examples in a batch", "a training step of MAF, 63 dimensions",
        lambda size: _step(size, DIM),
    ),
    "dimension": Sweep(
        (8, 32, 128, 512, 2048), "dimensions", "a training step of MAF, batch 100",
        lambda size: _step(BATCH, size),
    ),
    "data": Sweep(
        (1000, 4000, 16_000, 64_000), "examples", "validation of MAF, 63 dimensions", _validation
    ),
    "cells": Sweep((50, 150, 450, 1350), "cells", "planning", _plan),
    "records": Sweep((300, 1000, 3000, 10_000), "stored records", "`list`, warm", _list),
}  # fmt: skip

# --------------------------------------------------------------------------- measuring


def measure(name: str, size: int) -> Point:
    """Return what the work of one size takes, in this process."""
    work = SWEEPS[name].prepare(size)
    first = work()
    if name == "records":  # a process of its own, which knows what it took
        taken = [work() for _ in range(3)]
        return Point(size, median(t.cpu for t in taken), max(t.peak for t in (first, *taken)))
    held = _held(reset=True)
    seconds: list[float] = []
    while len(seconds) < CALLS or (sum(seconds) < SECONDS and len(seconds) < 10 * CALLS):
        start = time.thread_time()
        work()
        seconds.append(time.thread_time() - start)
    return Point(size, median(seconds), _held() - held)


def _held(*, reset: bool = False) -> float:
    """Return megabytes that this process held at most since it was reset (Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    wanted = "VmRSS:" if reset else "VmHWM:"
    return next(int(line.split()[1]) for line in lines if line.startswith(wanted)) / 1024


def points(name: str) -> Iterator[Point]:
    """Yield what each size takes, each measured in a new process."""
    for size in SWEEPS[name].sizes:
        command = [sys.executable, __file__, "--point", name, str(size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        yield Point(*json.loads(done.stdout.splitlines()[-1]))


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the slope of the least-squares line through the logarithms; NaN where one has none."""
    if min(y) <= 0:
        return math.nan
    xs, ys = [math.log(v) for v in x], [math.log(v) for v in y]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    above = sum((a - mean_x) * (b - mean_y) for a, b in zip(xs, ys, strict=True))
    return above / sum((a - mean_x) ** 2 for a in xs)


# --------------------------------------------------------------------------- showing


def table(name: str, found: Sequence[Point]) -> str:
    """Return a Markdown table: sizes across, time and memory down, with their exponents."""
    sweep, sizes = SWEEPS[name], [point.size for point in found]
    lines = [["", *(f"{size:,}" for size in sizes), "exponent", "of the largest three"]]
    for unit, values in (
        ("ms", [1000 * point.seconds for point in found]),
        ("MB", [point.megabytes for point in found]),
    ):
        slopes = [exponent(sizes[-n:], values[-n:]) for n in (len(sizes), LARGE)]
        lines.append([unit, *(f"{v:,.3g}" for v in values), *(f"{s:.2f}" for s in slopes)])
    lines[1:1] = [["---"] * len(lines[0])]
    rows = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"**{sweep.what}, against {sweep.axis}** ([plot](scaling/{name}.svg))\n\n{rows}\n"


def draw(name: str, found: Sequence[Point]) -> None:
    """Draw time and memory over the size, both axes logarithmic, with lines of the exponents."""
    import matplotlib
    from matplotlib.figure import Figure

    sweep, figure = SWEEPS[name], Figure(figsize=(7.2, 2.8), layout="constrained")
    sizes = [point.size for point in found]
    for axes, unit, values in zip(
        figure.subplots(1, 2),
        ("processor time (ms)", "memory (MB)"),
        ([1000 * p.seconds for p in found], [p.megabytes for p in found]),
        strict=True,
    ):
        slope = exponent(sizes[-LARGE:], values[-LARGE:])
        axes.loglog(sizes, values, "o-", color="#0072B2")
        line = [values[-1] * (size / sizes[-1]) ** slope for size in sizes]
        axes.loglog(sizes, line, ":", color="#D55E00", label=f"exponent {slope:.2f}")
        axes.set(xlabel=sweep.axis, ylabel=unit)
        axes.legend(frameon=False)
    figure.suptitle(sweep.what.replace("`", ""), fontsize=10)
    PLOTS.mkdir(exist_ok=True)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(PLOTS / f"{name}.svg", metadata=dict.fromkeys(("Date", "Creator")))


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(SWEEPS), help="as batch,cells")
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.point:
        print(json.dumps(measure(asked.point[0], int(asked.point[1]))))
        return
    for name in asked.only.split(","):
        found = list(points(name))
        print(table(name, found), flush=True)
        draw(name, found)


if __name__ == "__main__":
    main()
