"""How many runs go at once where nobody says: as many as it is worth."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

from dgm_bench import provenance
from dgm_bench.planner.machine import Machine
from dgm_bench.planner.planned import Plan

#: How much of the memory is given to runs that go at once; the rest is the system's and others'.
MEMORY_SHARE = 0.8
#: Seconds that have to be gained for it to be worth starting processes, each of which loads torch.
LEAST_GAIN = 20.0


def most_workers(machine: Machine, threads: int | None = None) -> int:
    """Return how many runs can go at once with a core for each, or the threads that each takes.

    On GPUs too: small models are bound by the core that starts their operations.

    Args:
        machine: Where.
        threads: Of each worker, where it is said.
    """
    if machine.device == "mps":
        return 1
    each = 1 if machine.device == "cuda" else threads or 1
    return max(provenance.cores() // each, 1)


def useful_workers(plan: Plan) -> int:
    """Return how many of a plan's workers have something to do, and the memory for it.

    As many as fit even where the largest runs come together.
    """
    machine, needs = plan.machine, sorted(unit.need.memory_bytes for unit in plan.units)
    free = MEMORY_SHARE * machine.memory_bytes
    fit = sum(total <= free for total in accumulate(reversed(needs)))
    return max(min(machine.workers, len(needs), fit * machine.devices), 1)


def plan_for_workers(make: Callable[[int], Plan], jobs: int | None, most: int) -> Plan:
    """Return a plan for a number of workers, or for as many as it is worth.

    Args:
        make: Returns the plan for a number of workers.
        jobs: How many are wanted, if that is said: no more than there are runs.
        most: How many there may be where it is not said.
    """
    if jobs is not None:
        plan = make(jobs)
        needed = max(min(jobs, len(plan.units)), 1)
        return plan if needed == jobs else make(needed)
    plan = make(most)
    while (useful := useful_workers(plan)) < plan.machine.workers:
        plan = make(useful)
    return _sharing_less(plan, make) if _is_worth_it(plan) else make(1)


def _is_worth_it(plan: Plan) -> bool:
    """Say whether a plan ends so much earlier with its workers; what is unknown may be long."""
    unknown = any(run.seconds is None for run in plan.chosen)
    return unknown or plan.seconds - plan.expected_end_seconds >= LEAST_GAIN


def _sharing_less(plan: Plan, make: Callable[[int], Plan]) -> Plan:
    """Return the plan in which each run has a GPU of its own, where that ends earlier."""
    if plan.machine.workers <= plan.machine.devices or plan.machine.device != "cuda":
        return plan
    alone = make(plan.machine.devices)
    return alone if alone.expected_end_seconds < plan.expected_end_seconds else plan
