"""What showing a run while it trains costs its steps: on and off in turns, in one process.

``python benchmarks/tracking.py [--pairs 12] [--seconds 2]`` trains a small flow, whose steps take a
millisecond and which validates every 20 of them: far more often than real runs do. In every other
block its numbers go the way of a real run, to MLflow on a SQLite file, by a process of its own. It
prints steps a second with and without, their ratio with its 95 % interval over pairs of blocks, and
what telling a row costs the step that tells it.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median

import torch

from dgm_bench.catalog import load_catalog
from dgm_bench.context import RunContext
from dgm_bench.control import Control
from dgm_bench.data import load
from dgm_bench.events import CurveRows
from dgm_bench.models.build import build
from dgm_bench.planner import PlannedRun
from dgm_bench.records import new_run_id
from dgm_bench.tracking import RunLogger
from dgm_bench.tracking.beside import LoggingBeside
from dgm_bench.train.loop import Trainer

CELL = "ffjord/density/maf-5/8gaussians"
Tell = Callable[[Sequence[float | None]], None]


def trainer(results: Path) -> tuple[Trainer, PlannedRun]:
    """Return the training of a small flow that never ends, and its run."""
    (cell,) = load_catalog().select(CELL)
    run = PlannedRun(cell, (cell.id,), 0, cell.recipe, runs=True)
    (stage,) = run.chosen_recipe.stages
    often = stage.validation.model_copy(update={"every": 20, "unit": "steps"})
    endless = stage.stopping.model_copy(update={"patience": None, "max_steps": None})
    stage = stage.model_copy(update={"validation": often, "stopping": endless})
    data = load(stage.data.name, results, seed=0)
    model = build(stage.model, data.event_shape)
    return Trainer(stage, model, data, RunContext(results, results), seed=0), run


def steps_a_second(training: Trainer, seconds: float) -> float:
    """Train for so long, and return the rate."""
    started, steps = time.perf_counter(), 0
    while (now := time.perf_counter()) < started + seconds:
        training._step()
        training.after_step()
        steps += 1
    return steps / (now - started)


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Return a 95 % interval of the median, by drawing pairs again and again."""
    chance = random.Random(0)
    medians = sorted(median(chance.choices(ratios, k=len(ratios))) for _ in range(4000))
    return medians[100], medians[3900]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=2.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(RunLogger(Path(folder), Control())) as log,
    ):
        training, run = trainer(Path(folder))
        log.begin([run])
        logging, told = LoggingBeside(log), list[float]()
        run_id, recipe_hash = new_run_id(), run.chosen_recipe.content_hash

        def tell(row: Sequence[float | None]) -> None:
            started = time.perf_counter()
            now = int(1000 * time.time())
            logging.live(CurveRows(run_id, recipe_hash, 0, now, rows=(tuple(row),)))
            told.append(time.perf_counter() - started)

        rates = measured(training, tell, args.pairs, args.seconds)
        list(logging.close())
    on, off = (median(rate[kind] for rate in rates) for kind in (True, False))
    low, high = interval([rate[True] / rate[False] for rate in rates])
    print(
        f"{off:.1f} steps/s without, {on:.1f} with; ratio {on / off:.4f} ({low:.4f} to {high:.4f})"
    )
    print(f"{len(told)} rows told, {1e6 * median(told):.1f} us each")


def measured(training: Trainer, tell: Tell, pairs: int, seconds: float) -> list[dict[bool, float]]:
    """Return the rates with and without, pair by pair, in an order that changes."""
    training.begin()
    training.tell = tell
    steps_a_second(training, 10.0)  # MLflow starts, and makes its tables
    rates = []
    for pair in range(pairs):
        rate = {}
        for shows in (pair % 2 == 0, pair % 2 == 1):
            training.tell = tell if shows else lambda _: None
            steps_a_second(training, 1.2)  # what the other kind left to do
            rate[shows] = steps_a_second(training, seconds)
        rates.append(rate)
    return rates


if __name__ == "__main__":
    main()
