"""Trains the first part of recipes anew and holds it against the stored runs: nothing is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from dgm_bench.allocator import keep_freed_memory
from dgm_bench.compare.prefix import VALUES, Deviation, Prefix, by_step, deviations
from dgm_bench.context import RunContext
from dgm_bench.control import Control, Interrupted
from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import RunFailure
from dgm_bench.execution import require_runnable, resolve_device
from dgm_bench.kept import ask_in_modules
from dgm_bench.quality import Curve
from dgm_bench.session import DataSource
from dgm_bench.spec import Cell, Recipe
from dgm_bench.staged_training import StagedTraining
from dgm_bench.stats import relative_difference
from dgm_bench.train.memory import failures
from dgm_bench.train.tally import CURVE_COLUMNS

#: Why a training stops that has got as far as it is compared.
FAR_ENOUGH = "far enough"


@dataclass(frozen=True)
class PrefixRun:
    """New runs of a recipe as far as they are compared, beside the stored ones.

    Attributes:
        cell: Of the recipe.
        prefix: Of the stored runs.
        curves: Of the new ones, by seed: the rows that are compared.
        broken: What broke new runs, by seed.
    """

    cell: Cell
    prefix: Prefix
    curves: dict[int, Curve] = field(default_factory=dict)
    broken: dict[int, str] = field(default_factory=dict)

    @property
    def deviations(self) -> list[Deviation]:
        """The values of the new runs beside the band, row by row."""
        return deviations(self.prefix, list(self.curves.values()))

    @property
    def left(self) -> list[Deviation]:
        """Those that left it."""
        return [each for each in self.deviations if not each.inside]

    @property
    def apart(self) -> float | None:
        """How far new runs are from stored ones of their own seeds; None without such a seed.

        The largest difference of a value, relative to the larger; 0 where all have the same bits.
        """
        found = [
            relative_difference(row[column], stored[row["step"]][column])
            for seed, curve in self.curves.items()
            for stored in [by_step(self.prefix.curves.get(seed, ()))]
            for row in curve
            for column in VALUES
            if math.isfinite(row[column] + stored.get(row["step"], {}).get(column, math.nan))
        ]
        return max(found, default=None)


def run_prefix(
    cell: Cell, prefix: Prefix, seeds: Sequence[int], context: RunContext, source: DataSource
) -> PrefixRun:
    """Train the first part of a cell's recipe with each seed.

    Args:
        cell: With a recipe.
        prefix: What its runs are compared with.
        seeds: Of the new runs, which may be stored ones.
        context: Data root, device and threads; its results are not touched.
        source: Loads the data.

    Raises:
        DataError: It is missing or broken.
        DeclarationError: The recipe cannot be run.
        Interrupted: Somebody stopped it.
        UsageError: The device is not there.
    """
    assert cell.recipe is not None  # a prefix was made of its runs
    if context.threads is not None:
        torch.set_num_threads(context.threads)
    keep_freed_memory()
    found, device = PrefixRun(cell, prefix), resolve_device(context.device)
    for seed in seeds:
        data = source.load(cell.recipe.stages[0].data, seed)
        require_runnable(cell.recipe, data, context.data_root)
        rows, broken = _first_rows(cell.recipe, seed, data, device, context, prefix.rows)
        found.curves[seed] = rows
        if broken:
            found.broken[seed] = broken
    return found


def _first_rows(
    recipe: Recipe,
    seed: int,
    data: Dataset,
    device: torch.device,
    context: RunContext,
    rows: int,
) -> tuple[list[dict[str, float]], str]:
    """Return the first rows of a training's curve, and what broke it before; empty if nothing."""
    control = Control()
    training = StagedTraining(recipe, seed, data, device, replace(context, control=control), None)
    broken = ""
    with control.catching_signals(), control.active(ask_in_modules):
        trainer = training.open_stage(0, None)

        def heed(_: Sequence[float | None]) -> None:
            if len(trainer.tally.curve) >= rows:
                control.request(FAR_ENOUGH)

        trainer.tell = heed
        try:
            with failures():
                trainer.run()
        except RunFailure as failure:
            broken = f"{failure.status}: {failure.reason}"
        except Interrupted as stop:
            if stop.reason != FAR_ENOUGH:
                raise
    return [_row(values) for values in trainer.tally.curve[:rows]], broken


def _row(values: Sequence[float | None]) -> dict[str, float]:
    numbers = (math.nan if value is None else float(value) for value in values)
    return dict(zip(CURVE_COLUMNS, numbers, strict=True))
