"""Tier 0: what a training step and a command take, counted exactly."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from itertools import pairwise

from torch import nn

from dgm_bench.perf.cases import CASES, Case
from dgm_bench.perf.operators import OperatorCount
from dgm_bench.perf.startup import Counters, startup_counters
from dgm_bench.perf.steps import LoopSteps, Work, make_work, usual_settings

#: Calls before the one that is counted: they make the optimiser's state, and what a solver keeps.
FIRST_CALLS = 2


def measured_counters(
    cases: Mapping[str, Case] = CASES, make: Callable[[Case], Work] = make_work
) -> dict[str, Counters]:
    """Return the counters of every case and of the commands.

    Args:
        cases: The cases.
        make: Makes the work of one.
    """
    with usual_settings():
        steps = {name: step_counters(make(case)) for name, case in cases.items()}
    commands = {f"command-{name}": found for name, found in startup_counters().items()}
    return steps | commands


def step_counters(work: Work) -> Counters:
    """Return the counters of one step.

    Parameters, evaluations of the dynamics where a model solves an equation, floating-point
    operations, operators, and the bytes that the step adds at its peak. Of the training loop it
    is the operators of a step, with all that is done around it.
    """
    for _ in range(FIRST_CALLS):
        work()
    if isinstance(work, LoopSteps):
        return {"operators": _operators_of_a_step(work)}
    evaluations = _evaluations(work.model)
    with OperatorCount() as count:
        work()
    found = {"parameters": sum(p.numel() for p in work.model.parameters())}
    if evaluations is not None:
        found["evaluations"] = (_evaluations(work.model) or 0) - evaluations
    return found | {
        "flops": count.flops,
        "operators": count.operators,
        "peak_bytes": count.peak_bytes,
    }


def _operators_of_a_step(work: LoopSteps) -> int:
    """Return how many operators most steps call: once a second the loop does more, for display."""
    after: list[int] = []
    with OperatorCount() as count:
        work(lambda: after.append(count.operators))
    between = [late - early for early, late in pairwise(after)]
    return statistics.mode(between)


def _evaluations(model: nn.Module) -> int | None:
    count = getattr(model, "function_evaluations", None)
    return None if count is None else int(count)
