"""How far the runs of a cell got that their budget cut short, and what their curve says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from dgm_bench.horizon import fraction_done, stops_early
from dgm_bench.quality import Curve, not_validated, per_nat, stages_quality
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
    found = Unfinished(
        so_far, run.budget.epochs, fraction_done(run), early_stopping=stops_early(run.recipe)
    )
    return _with_forecast(found, cell, run, curve_of)


def _with_forecast(found: Unfinished, cell: Cell, run: RunRecord, curve_of: CurveOf) -> Unfinished:
    """Add the forecast of the validation, moved by how far the number is from the best one so far.

    Both are of the same model on other examples.
    """
    if found.so_far is None:
        return replace(found, no_forecast="there is no number")
    if why := not_validated(cell, run.recipe):
        return replace(found, no_forecast=why)
    scale = per_nat(cell, run)
    if scale is None:
        why = f"validations are in nats, and how many a {cell.column.unit} is was not recorded"
        return replace(found, no_forecast=why)
    quality = stages_quality(run, () if run.quality else curve_of(run))
    if not quality:
        return replace(found, no_forecast="there is no curve")
    ahead, best = quality[0].forecast, quality[0].best
    if ahead is None:
        return replace(found, no_forecast=quality[0].no_forecast)
    value, low, high = (
        found.so_far + scale * (loss - best) for loss in (ahead.value, ahead.low, ahead.high)
    )
    return replace(found, forecast=value, low=low, high=high)
