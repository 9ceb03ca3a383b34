"""Time to quality: what a run took until its validation was first so good.

The validation of a stage chooses its weights. It is a loss, lower is better: of models with a
density the negative log-likelihood, else the stage's objective, as a mean over the examples held
out (:data:`VALIDATED` says of which metric it is the value on those). Of a stage whose first
validation is ``f`` and whose best one is ``b``, a fraction ``p`` of the way is done at the first
validation that is at most ``f - p (f - b)``; a value that is asked for, as a published number, at
the first that is at most that. Nothing is interpolated: what it took is a multiple of the rhythm
of validations. Steps and epochs are the stage's and the same on every machine; seconds are those
of training until then, without validation and evaluation, and compare on one machine only.

Curves of before the column ``train_seconds`` have those of training and validation together: the
share of the run's training in both stands in for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dgm_bench.forecast import forecast
from dgm_bench.horizon import great_drop, horizon
from dgm_bench.records import Budget, Forecast, Reached, RunRecord, StageQuality
from dgm_bench.spec import Cell, Recipe, Stage

Curve = Sequence[Mapping[str, float]]

#: Of the way from the first validation to the best.
FRACTIONS = (0.5, 0.9, 0.99)
#: Columns of a curve without which a row says nothing.
NEEDED = ("validation", "step", "epoch", "seconds")
#: The metric, in nats, whose value on the examples held out validations are, by objective.
VALIDATED: Mapping[str, str] = {
    "nll": "nll",
    "rnode": "nll",
    "flow-matching": "nll",
    "elbo": "negative-elbo",
    "warmed-elbo": "negative-elbo",
    "discrete-elbo": "negative-elbo",
    "prediction": "prediction-mean",
    "classification": "class-nll",
}


def stages_quality(record: RunRecord, curve: Curve) -> tuple[StageQuality, ...]:
    """Return how the validations of a run's stages went: as its record has it, or else its curve.

    Args:
        record: The run.
        curve: The rows of its curve, of all stages; may be empty where the record has it.
    """
    if record.quality:
        return record.quality
    stages = enumerate(record.recipe.stages)
    rows = [(stage, validated_rows(record, curve, number)) for number, stage in stages]
    return tuple(_stage_quality(record, stage, found) for stage, found in rows if found)


def validated_rows(record: RunRecord, curve: Curve, stage: int = 0) -> list[Mapping[str, float]]:
    """Return the rows of a stage with a validation, each with its ``train_seconds``."""
    share = _share_of_training(record.budget)
    return [
        {"train_seconds": share * row["seconds"], **row}
        for row in curve
        if row.get("stage", 0) == stage and all(math.isfinite(row.get(n, math.nan)) for n in NEEDED)
    ]


def _share_of_training(spent: Budget) -> float:
    both = spent.train_seconds + spent.validation_seconds
    return spent.train_seconds / both if both else 1.0


def _stage_quality(
    record: RunRecord, stage: Stage, rows: Sequence[Mapping[str, float]]
) -> StageQuality:
    losses = [row["validation"] for row in rows]
    first, best = losses[0], min(losses)
    found = [reached(rows, first - p * (first - best), p) for p in FRACTIONS if best < first]
    ahead = _forecast(record, rows) if record.outcome.cut_short else ""
    objective = stage.objective.name
    return StageQuality(
        stage=stage.name,
        validated=VALIDATED.get(objective, objective),
        unit="nats" if objective in VALIDATED else "loss",
        validations=len(rows),
        first=first,
        best=best,
        reached=tuple(each for each in found if each),
        forecast=ahead if isinstance(ahead, Forecast) else None,
        no_forecast=ahead if isinstance(ahead, str) else "",
    )


def reached(
    rows: Sequence[Mapping[str, float]], target: float, fraction: float | None = None
) -> Reached | None:
    """Return when a validation was first at most ``target``; None where none was.

    Args:
        rows: Of :func:`validated_rows`.
        target: In the unit of the validations.
        fraction: Of the way, where the target is one.
    """
    slack = 1e-12 * abs(target)  # for what rounding adds to the best of all
    row = next((row for row in rows if row["validation"] <= target + slack), None)
    if row is None:
        return None
    evaluations = row.get("function_evaluations", math.nan)
    return Reached(
        fraction=fraction,
        target=target,
        validation=row["validation"],
        step=int(row["step"]),
        epoch=row["epoch"],
        train_seconds=row["train_seconds"],
        function_evaluations=int(evaluations) if math.isfinite(evaluations) else None,
    )


def _forecast(record: RunRecord, rows: Sequence[Mapping[str, float]]) -> Forecast | str:
    if len(record.recipe.stages) > 1:
        return "a run of several stages has no curve of its number"
    ahead = horizon(record.recipe, record.budget.steps, record.budget.epochs)
    if ahead is None:
        return "nothing says how long it would go on"
    drop = great_drop(record.recipe, record.budget.steps)
    if drop is not None:
        return f"the learning rate drops to a tenth at step {drop}: no curve tells what follows"
    return forecast([row["step"] for row in rows], [row["validation"] for row in rows], ahead)


# --------------------------------------------------------------------------- published numbers


def not_validated(cell: Cell, recipe: Recipe) -> str:
    """Return why a cell's number is of another quantity than its runs validate; empty if it is not.

    Args:
        cell: The cell.
        recipe: Of its runs.
    """
    if len(recipe.stages) > 1:
        return "runs of several stages validate each for itself"
    objective = recipe.stages[0].objective.name
    validated = VALIDATED.get(objective)
    if validated == cell.metric:
        return ""
    return f"validations are of {validated or objective}, the number is {cell.metric}"


def per_nat(cell: Cell, record: RunRecord) -> float | None:
    """Return by how much a cell's number changes with a nat of its validation; None if unknown.

    Of bits per dimension that is 1 / (dim ln 2): what else their formulas have is of the data.
    """
    unit, dim = cell.column.unit, record.data.dim
    if unit == "bits/dim" and dim:
        return 1 / (dim * math.log(2))
    return 1.0 if unit == "nats" else None


def passed_published(cell: Cell, record: RunRecord, curve: Curve) -> Reached | str:
    """Return when a run's validation first passed the published number, or why that is not known.

    Args:
        cell: With a published number or without.
        record: A run of its recipe.
        curve: The rows of its curve.
    """
    if cell.published is None:
        return "nothing is published"
    if why := not_validated(cell, record.recipe):
        return why
    if cell.column.unit != "nats":
        return f"validations are in nats, the number in {cell.column.unit}"
    rows = validated_rows(record, curve)
    found = reached(rows, float(cell.published.value))
    return found or ("no validation passed it" if rows else "there is no curve")
