"""Learning curves as the page draws them: few points of each run, in few characters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from dgm_bench.quality import VALIDATED, Curve, not_validated
from dgm_bench.records import RunRecord
from dgm_bench.spec import Cell, Stage

#: Points of a curve: a panel has no room for more.
POINTS = 40


def compact_curves(curve: Curve, record: RunRecord) -> list[dict[str, Any]]:
    """Return of each stage of a run its name, what it validates, and some rows of its curve.

    Args:
        curve: The rows of the run's curve; losses are in nats per example.
        record: The run.

    Returns:
        Steps, training losses and validations of the same rows, None where there is none.
    """
    found = []
    for number, stage in enumerate(record.recipe.stages):
        rows = [row for row in curve if row.get("stage", 0) == number]
        if rows:
            found.append({"stage": stage.name, "of": _quantity(stage), **_columns(some_rows(rows))})
    return found


def _quantity(stage: Stage) -> str:
    """Return what a stage's validations are, with the unit."""
    objective = stage.objective.name
    known = VALIDATED.get(objective)
    return f"{known} (nats per example)" if known else f"{objective} (loss)"


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float | None]]:
    names = {"steps": "step", "training": "train_loss", "validation": "validation"}
    return {name: [short(row.get(key, math.nan)) for row in rows] for name, key in names.items()}


def some_rows(
    rows: Sequence[Mapping[str, float]], count: int = POINTS
) -> list[Mapping[str, float]]:
    """Return about that many rows: the first, the last, the best and some between them."""
    if len(rows) <= count:
        return list(rows)
    places = {round(i * (len(rows) - 1) / (count - 1)) for i in range(count)}
    known = [i for i, row in enumerate(rows) if math.isfinite(row.get("validation", math.nan))]
    if known:
        places.add(min(known, key=lambda i: rows[i]["validation"]))
    return [rows[place] for place in sorted(places)]


def learning_rate_drops(curve: Curve) -> list[float | None]:
    """Return the steps of a run of one stage at which its learning rate fell."""
    if curve and "stage" in curve[0]:
        return []
    return [short(b["step"]) for a, b in pairwise(curve) if b["lr"] < 0.7 * a["lr"]]


def published_level(cell: Cell, record: RunRecord) -> float | None:
    """Return the published number in nats, where the run's validations are of the same quantity.

    Bits per dimension are linear in nats, with constants of the data. The slope is the ratio of
    a run's standard errors in both units, and its numbers in both give the rest.
    """
    if cell.published is None or not_validated(cell, record.recipe):
        return None
    value = float(cell.published.value)
    if cell.column.unit == "nats":
        return short(value)
    known, nats = _number(record, cell.metric), _number(record, f"{cell.metric}_nats")
    if known is None or nats is None:
        return None
    return short(nats[0] + (value - known[0]) * nats[1] / known[1])


def _number(record: RunRecord, name: str) -> tuple[float, float] | None:
    """Return a metric's value and standard error, where it has both."""
    metric = record.metric(name)
    if metric is None or metric.value is None or not metric.se:
        return None
    return metric.value, metric.se


def short(value: float | None) -> float | None:
    """Return a number with the digits that a drawing shows, as an integer where it is one."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if value == int(value) else float(f"{value:.5g}")
