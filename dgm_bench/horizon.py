"""How long a run will be: the steps that its recipe is expected to take, and the share done."""

from __future__ import annotations

import math

from dgm_bench.records import RunRecord
from dgm_bench.spec import Recipe, StoppingSpec


def expected_steps(recipe: Recipe, steps: int, epochs: float) -> float | None:
    """Return the steps of all stages at which a recipe is expected to stop.

    That is its maximum, where nothing else ends it. Where patience may, it is what the planner
    expects (``cost.steps``) or, once so many are done, the maximum.

    Args:
        recipe: Of the run.
        steps: Done so far.
        epochs: Done so far, which tells how many steps an epoch has.

    Returns:
        None where patience alone ends it, and the planner expected no more than is done.
    """
    stops = [stage.stopping for stage in recipe.stages]
    most = sum(_most(stop, steps / epochs if epochs else math.inf) for stop in stops)
    planned = recipe.cost.steps if recipe.cost else 0
    if any(stop.patience is not None for stop in stops) and steps < planned:
        return min(planned, most)
    return most if math.isfinite(most) else None


def _most(stop: StoppingSpec, steps_per_epoch: float) -> float:
    epochs = math.inf if stop.max_epochs is None else stop.max_epochs * steps_per_epoch
    return min(math.inf if stop.max_steps is None else stop.max_steps, epochs)


def fraction_done(record: RunRecord) -> float | None:
    """Return the share of the expected steps that a run did, at most 1; None if not known."""
    steps = record.budget.steps
    expected = expected_steps(record.recipe, steps, record.budget.epochs)
    return min(steps / expected, 1.0) if expected else None
