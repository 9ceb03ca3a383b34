"""What a run takes: by its declared work, by earlier runs, and of what remains of a budget."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from dgm_bench.planner.machine import Machine, Speed
from dgm_bench.records import RunRecord
from dgm_bench.spec import Cost

#: A run that would get less than this share of its expected time is not begun.
LEAST_SHARE = 0.2


def expected_seconds(cost: Cost, speed: Speed) -> float:
    """Return a run's expected seconds from its declared work."""
    step = cost.flops_per_step / speed.flops_per_second
    step += cost.launches_per_step * speed.seconds_per_launch
    evaluation = cost.evaluation_flops / speed.flops_per_second
    return speed.start_seconds + cost.steps * step + evaluation


def known_seconds(records: Iterable[RunRecord], machine: Machine) -> dict[str, float]:
    """Return what runs take on a machine by records, by recipe hash: of its class, else of others.

    What a run took elsewhere is scaled as its declared work would be, which tells more than the
    declared work alone: how many steps patience allows, and what operations cost that are not
    counted.
    """
    here, elsewhere = list[RunRecord](), list[RunRecord]()
    for record in records:
        alike = record.environment.machine_class == machine.kind
        (here if alike else elsewhere).append(record)
    shared = machine.speed if machine.workers > 1 else None
    known = measured_seconds(elsewhere, None, machine.speed)
    return known | measured_seconds(here, machine.kind, shared)


def measured_seconds(
    records: Iterable[RunRecord], kind: str | None, speed: Speed | None = None
) -> dict[str, float]:
    """Return the median seconds of complete, unmodified runs on this machine, by recipe hash.

    Of runs trained together with other seeds it is the most that one of them would take alone.

    Args:
        records: Stored records.
        kind: The machine class of those that count; None for all.
        speed: Of each of several workers: what a run took with other threads, or with a GPU of
            its own, is scaled as its declared work would be.
    """
    taken: dict[str, list[float]] = {}
    for record in records:
        if record.is_measurement and kind in (None, record.environment.machine_class):
            scale = 1.0 if speed is None else _slower(record, speed)
            taken.setdefault(record.recipe_hash, []).append(scale * spent_seconds(record))
    return {recipe_hash: median(seconds) for recipe_hash, seconds in taken.items()}


def spent_seconds(record: RunRecord) -> float:
    """Return what a run took; of one trained together with others, what all of them did."""
    return record.budget.seconds + record.budget.train_seconds_of_others


def _slower(record: RunRecord, speed: Speed) -> float:
    """Return how many times as long as in a record its declared work takes at another speed."""
    where, cost = record.environment, record.recipe.cost
    then = Speed.gpu() if where.device == "cuda" else Speed.cpu(where.threads)
    return expected_seconds(cost, speed) / expected_seconds(cost, then) if cost else 1.0


def share_of(
    remaining_seconds: float | None, this: float | None, later_total: float, workers: int = 1
) -> float | None:
    """Return the time limit of the next run: what it is expected to take, and all the slack.

    Runs come in order of priority, so one that takes longer than expected may use what no later
    run is expected to need. Where there is less than expected, everyone gets a share. Of several
    workers each keeps its part of the time for later runs.

    Args:
        remaining_seconds: What remains, of wall-clock; None where the budget is unlimited.
        this: Expected seconds of the next run; None takes all that later runs leave.
        later_total: Expected seconds of all runs that start after it.
        workers: How many runs go at once.
    """
    if remaining_seconds is None:
        return None
    remaining, later = max(remaining_seconds, 0.0), later_total / workers
    if this is None:
        return max(remaining - later, 0.0)
    total = this + later
    return remaining - later if remaining >= total else remaining * this / total
