"""How far the runs of a cell got that their budget cut short, and what their curve says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from dgm_bench.horizon import fraction_done
from dgm_bench.quality import Curve, not_validated, stages_quality
from dgm_bench.records import RunRecord
from dgm_bench.spec import Cell
from dgm_bench.verdict.comparability import value_of
from dgm_bench.verdict.judgement import Unfinished

#: Returns the rows of a run's curve.
CurveOf = Callable[[RunRecord], Curve]


def furthest(cell: Cell, runs: Sequence[RunRecord], curve_of: CurveOf) -> Unfinished:
    """Return how far the one with most steps got, with the forecast of its number.

    Args:
        cell: The cell.
        runs: Runs that were cut short.
        curve_of: Asked only for a record that has no forecast itself.
    """
    run = max(runs, key=lambda run: run.budget.steps)
    metric = value_of(cell, run)
    so_far = metric.value if metric else None
    found = Unfinished(so_far, run.budget.epochs, fraction_done(run))
    return _with_forecast(found, cell, run, curve_of)


def _with_forecast(found: Unfinished, cell: Cell, run: RunRecord, curve_of: CurveOf) -> Unfinished:
    """Add the forecast of the validation, moved by how far the number is from the best one so far.

    Both are of the same model on other examples.
    """
    if found.so_far is None or (why := not_validated(cell, run.recipe)):
        return replace(found, no_forecast=why if found.so_far is not None else "there is no number")
    quality = stages_quality(run, () if run.quality else curve_of(run))
    if not quality:
        return replace(found, no_forecast="there is no curve")
    ahead, apart = quality[0].forecast, found.so_far - quality[0].best
    if ahead is None:
        return replace(found, no_forecast=quality[0].no_forecast)
    return replace(
        found, forecast=ahead.value + apart, low=ahead.low + apart, high=ahead.high + apart
    )
