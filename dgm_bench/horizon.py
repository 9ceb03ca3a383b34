"""How long a run will be: the steps that its recipe is expected to take, and the share done."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dgm_bench.records import RunRecord
from dgm_bench.spec import Recipe, StoppingSpec

#: One drop of the learning rate to this share of it, or less, bends a curve as nothing before
#: it tells: the noise of the larger steps goes at once.
GREAT_DROP = 0.1


@dataclass(frozen=True)
class Horizon:
    """The steps of all stages after which a recipe stops.

    Attributes:
        expected: Its maximum, where nothing else ends it. Where patience may, what the planner
            expects (``cost.steps``) or, once so many are done, the maximum.
        earliest: The same, or half of it where patience may end it.
        latest: The same, or twice of it within the maximum where patience may end it.
    """

    expected: float
    earliest: float
    latest: float


def horizon(recipe: Recipe, steps: int, epochs: float) -> Horizon | None:
    """Return when a recipe is expected to stop.

    Args:
        recipe: Of the run.
        steps: Done so far.
        epochs: Done so far, which tells how many steps an epoch has.

    Returns:
        None where patience alone ends it, and the planner expected no more than is done.
    """
    stops = [stage.stopping for stage in recipe.stages]
    most = sum(_most(stop, steps / epochs if epochs else math.inf) for stop in stops)
    if not stops_early(recipe):
        return Horizon(most, most, most) if math.isfinite(most) else None
    planned = recipe.cost.steps if recipe.cost else 0
    expected = min(planned, most) if steps < planned else most
    if not math.isfinite(expected):
        return None
    return Horizon(expected, max(expected / 2, steps), min(2 * expected, most))


def great_drop(recipe: Recipe, steps: int) -> int | None:
    """Return the step of the next great drop of the learning rate that a recipe still plans.

    A drop comes with the step of its milestone: after as many steps it is still ahead.

    Args:
        recipe: Of one stage.
        steps: Done so far.

    Returns:
        None where no milestone is left whose factor is at most :data:`GREAT_DROP`. Drops that
        wait for bad validations are not planned: nobody knows whether they come.
    """
    schedule = recipe.stages[0].schedule
    ahead = [milestone for milestone in schedule.milestones if milestone >= steps]
    return min(ahead, default=None) if schedule.factor <= GREAT_DROP else None


def stops_early(recipe: Recipe) -> bool:
    """Return whether early stopping may end a recipe before its maximum of steps."""
    return any(stage.stopping.patience is not None for stage in recipe.stages)


def _most(stop: StoppingSpec, steps_per_epoch: float) -> float:
    epochs = math.inf if stop.max_epochs is None else stop.max_epochs * steps_per_epoch
    return min(math.inf if stop.max_steps is None else stop.max_steps, epochs)


def fraction_done(record: RunRecord) -> float | None:
    """Return the share of the expected steps that a run did, at most 1; None if not known."""
    steps = record.budget.steps
    ahead = horizon(record.recipe, steps, record.budget.epochs)
    return min(steps / ahead.expected, 1.0) if ahead and ahead.expected else None
