"""What a command would run: cost, data and memory of each cell, and what fits the budget.

Nothing here trains, loads data or imports torch; where data lies is asked of a function that
the caller gives, so that the planner knows no data set.
"""

from __future__ import annotations

import bisect
import math
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from dgm_bench.planner.durations import duration, gigabytes, option_value
from dgm_bench.planner.expected import LEAST_SHARE, expected_seconds, known_seconds
from dgm_bench.planner.machine import Machine, Speed
from dgm_bench.planner.planned import IS_COMPLETE, Plan, PlannedRun, Unit, expected_end, units
from dgm_bench.records import RunRecord
from dgm_bench.spec import Cell, Recipe
from dgm_bench.together import why_apart

#: Of so many numbers of runs the most is found that memory lets end in time.
TRIED_COUNTS = 100
#: How much of a budget is planned.
PLANNED_SHARE = 0.8
#: A longer budget is not advised: a week.
MOST_ADVISED = 7 * 86400.0


class DataState(Protocol):
    """What the planner needs to know of a data set; :class:`dgm_bench.data.DataState` has it."""

    @property
    def status(self) -> str:
        """``embedded``, ``here``, ``missing`` or ``incomplete``."""
        ...

    @property
    def remedy(self) -> str:
        """The command that puts it right."""
        ...

    @property
    def loadable(self) -> bool:
        """Whether it loads without a download."""
        ...


@dataclass(frozen=True)
class PlanningContext:
    """What a plan depends on besides the declarations.

    Attributes:
        machine: The machine it would run on.
        data_state: State of a data set, by its name.
        runnable: Whether a cell's recipe resolves and its model builds, and why not.
        records: Stored records, for what earlier runs took.
        may_fetch: Whether missing data may be downloaded; done only where time is unlimited.
        seconds_of: What a recipe takes on a machine that is not here; None for this one, where
            records and declared work say it.
        complete: Runs that are left out as they need not be done, by recipe hash and seed.
    """

    machine: Machine
    data_state: Callable[[str], DataState]
    runnable: Callable[[Cell], tuple[bool, str]]
    records: Sequence[RunRecord] = field(default=())
    may_fetch: bool = False
    seconds_of: Callable[[Recipe], float | None] | None = None
    complete: Collection[tuple[str, int]] = ()


def plan(
    cells: Sequence[Cell], context: PlanningContext, *, budget: float | None, seeds: int = 1
) -> Plan:
    """Plan ``seeds`` runs of every recipe behind ``cells``: what fits the budget runs.

    Cells that share a recipe are one run. Choice is by priority (high first), then seed, then by
    the time that it takes for each published number that it is held against. What surely ends
    comes first: where nothing is trained, and within a budget what takes least; without one,
    several workers take the longest first. Where nothing fits, the first choice that gets a fifth
    of what it needs runs all the same, cut short by the budget. A single cell without a budget runs
    whatever it takes.

    Args:
        cells: The cells that were asked for, with any ``--set`` changes in their recipes.
        context: Machine, data and earlier runs.
        budget: Seconds until all are done, however many workers there are; None for no limit.
        seeds: Runs of each recipe, with seeds 0, 1, ...
    """
    machine = context.machine
    measured = known_seconds(context.records, machine)
    context = replace(context, may_fetch=context.may_fetch and budget is None)
    groups = _by_recipe(cells)
    insist = len(groups) == 1 and budget is None
    firsts = [_offer(group, context, measured, insist) for group in groups]
    offers = [_of_seed(first, seed, context) for first in firsts for seed in range(seeds)]
    ready = sorted((offer for offer in offers if not offer.reason), key=urgency)
    decided = _decide(ready, budget, seeds, machine)
    chosen = _in_order([run for run in decided if run.runs], machine, budget)
    left_out = [run for run in decided if not run.runs]
    left_out += [offer for offer in offers if offer.reason]
    order = {group[0].id: place for place, group in enumerate(groups)}
    left_out.sort(key=lambda run: (order[run.cell.id], run.seed))
    return Plan((*chosen, *left_out), budget, machine)


def _by_recipe(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Group cells by recipe, those first for which it is declared.

    After them come cells that borrow another row's recipe, then those that ``--set`` gave it.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.recipe.content_hash if cell.recipe else cell.id, []).append(cell)
    return [sorted(group, key=_declared_first) for group in groups.values()]


def _declared_first(cell: Cell) -> tuple[bool, bool]:
    return bool(cell.modified), cell.same_as is not None


def _offer(
    group: Sequence[Cell],
    context: PlanningContext,
    measured: Mapping[str, float],
    insist: bool,
) -> PlannedRun:
    """Return the run of seed 0, its cost, and the reason why it cannot run where there is one."""
    cell = group[0]
    judged = sum(member.published is not None and not member.repeats for member in group)
    offer = PlannedRun(cell, tuple(member.id for member in group), 0, cell.recipe, judged=judged)
    able, why = context.runnable(cell)
    if cell.recipe is None or not able:
        return replace(offer, reason=why or "no recipe yet")
    offer = replace(
        offer,
        seconds=_seconds(cell.recipe, context, measured),
        h200_seconds=_declared(cell.recipe, Speed.h200()),
        memory_bytes=cell.recipe.cost.memory_bytes if cell.recipe.cost else None,
        command=run_command(cell),
    )
    offer = _with_data(offer, cell.recipe, context)
    return _with_memory(offer, context.machine, insist)


def _of_seed(first: PlannedRun, seed: int, context: PlanningContext) -> PlannedRun:
    offer = replace(first, seed=seed)
    if offer.recipe is None or (offer.recipe.content_hash, seed) not in context.complete:
        return offer
    return replace(offer, reason=IS_COMPLETE, command="")


def _seconds(
    recipe: Recipe, context: PlanningContext, measured: Mapping[str, float]
) -> float | None:
    if context.seconds_of is not None:
        return context.seconds_of(recipe)
    known = measured.get(recipe.content_hash)
    return _declared(recipe, context.machine.speed) if known is None else known


def _declared(recipe: Recipe, speed: Speed) -> float | None:
    return None if recipe.cost is None else expected_seconds(recipe.cost, speed)


def _with_data(offer: PlannedRun, recipe: Recipe, context: PlanningContext) -> PlannedRun:
    states = [context.data_state(stage.data.name) for stage in recipe.stages]
    absent = next((state for state in states if not state.loadable), None)
    if absent is None or (context.may_fetch and absent.status == "missing"):
        return _with_weights(replace(offer, data=(absent or states[0]).status), recipe, context)
    reason = "data not here" if absent.status == "missing" else f"data {absent.status}"
    return replace(
        offer, data=absent.status, reason=f"{reason}: {absent.remedy}", command=absent.remedy
    )


def _with_weights(offer: PlannedRun, recipe: Recipe, context: PlanningContext) -> PlannedRun:
    """Say where weights of others are missing; they are fetched only when asked for by name."""
    judge = recipe.evaluation.judge
    for name in judge.weights if judge is not None else ():
        state = context.data_state(name)
        if not state.loadable:
            reason = f"weights of {name} {state.status}: {state.remedy}"
            return replace(offer, reason=reason, command=state.remedy)
    return offer


def _with_memory(offer: PlannedRun, machine: Machine, insist: bool) -> PlannedRun:
    short = (offer.memory_bytes or 0) > machine.memory_bytes
    if offer.reason or insist or not short:
        return offer
    need, have = gigabytes(offer.memory_bytes), gigabytes(machine.memory_bytes)
    return replace(offer, reason=f"needs {need} memory, here are {have}")


def urgency(offer: PlannedRun) -> tuple[float, int, float]:
    """Return what sorts runs by which of them the time is for, the first ones first."""
    seconds = math.inf if offer.seconds is None else offer.seconds
    return -offer.cell.priority, offer.seed, seconds / max(offer.judged, 1)


def _in_order(
    chosen: Sequence[PlannedRun], machine: Machine, budget: float | None
) -> list[PlannedRun]:
    """Return runs as workers take them: within a budget the shortest first, else the longest.

    The shortest first ends most of them, whatever the last ones really take. The longest first
    ends all of them at most a third later than the best order (Graham, 1969, theorem 2).
    """
    if budget is not None:
        return [run for unit in sorted(units(chosen), key=sureness) for run in unit.runs]
    if machine.workers == 1:
        return sorted(chosen, key=lambda run: not run.chosen_recipe.fitted)
    return [run for unit in sorted(units(chosen), key=_length) for run in unit.runs]


def sureness(unit: Unit) -> tuple[bool, float]:
    """Return what sorts runs by how surely they end, the surest first."""
    trained = not unit.runs[0].chosen_recipe.fitted
    return trained, math.inf if unit.seconds is None else unit.seconds


def _length(unit: Unit) -> tuple[bool, float, float]:
    trained, seconds = sureness(unit)
    return trained, -unit.priority, -seconds


def _decide(
    ready: Sequence[PlannedRun], budget: float | None, seeds: int, machine: Machine
) -> list[PlannedRun]:
    """Say of each run whether it fits into what those before it leave of the budget.

    A fifth of the budget is kept for runs that take longer than expected.
    """
    if budget is None:
        return [replace(offer, runs=True) for offer in ready]
    left, fitting = _Left(PLANNED_SHARE * budget, machine.workers), list[PlannedRun]()
    for offer in ready:
        if left.take(offer):
            fitting.append(offer)
    fitting = fitting[: _how_many(fitting, budget, machine)]
    chosen = {id(offer) for offer in fitting}
    decided = [
        replace(offer, runs=True) if id(offer) in chosen else _too_long(offer, budget, seeds)
        for offer in ready
    ]
    enough = (place for place, offer in enumerate(ready) if gets_enough(offer.seconds, budget))
    if not fitting and (first := next(enough, None)) is not None:
        decided[first] = _cut_short(ready[first], budget)
    return decided


def gets_enough(seconds: float | None, limit: float) -> bool:
    """Say whether a run gets so much of the time it needs that it is worth beginning."""
    return seconds is None or limit >= LEAST_SHARE * seconds


class _Left:
    """What the runs chosen so far leave of each worker's time, in seconds."""

    def __init__(self, seconds: float, workers: int) -> None:
        self._left = [seconds] * workers
        self._worker: dict[str, int] = {}

    def take(self, offer: PlannedRun) -> bool:
        """Return whether a run fits, and take its time where it does."""
        recipe = offer.chosen_recipe
        most = max(range(len(self._left)), key=self._left.__getitem__)
        worker = self._worker.get(recipe.content_hash, most)
        if offer.seconds is None or offer.seconds > self._left[worker]:
            return False
        self._left[worker] -= offer.seconds
        if not why_apart(recipe):
            self._worker[recipe.content_hash] = worker
        return True


def _how_many(fitting: Sequence[PlannedRun], budget: float, machine: Machine) -> int:
    """Return how many of the first runs end in time, where memory lets fewer of them go at once."""

    def late(count: int) -> bool:
        first = _in_order(fitting[:count], machine, budget)
        return expected_end(units(first), machine) > budget

    if machine.workers == 1 or not late(len(fitting)):
        return len(fitting)
    counts = range(0, len(fitting), math.ceil(len(fitting) / TRIED_COUNTS))
    return counts[bisect.bisect_left(counts[1:], True, key=late)]


def _too_long(offer: PlannedRun, budget: float, seeds: int) -> PlannedRun:
    if offer.seconds is None:
        why, enough = f"cost unknown, budget {duration(budget)}", "none"
    else:
        why = f"needs about {duration(offer.seconds)}, {_missing(offer.seconds, budget)}"
        enough = option_value(offer.seconds * seeds)
    if offer.seconds is not None and offer.seconds * seeds > MOST_ADVISED:
        return replace(offer, reason=f"{why}: {_elsewhere(offer)}", command="", waits=True)
    command = run_command(offer.cell, enough, seeds)
    return replace(offer, reason=f"{why}: {command}", command=command, waits=True)


def _missing(seconds: float, budget: float) -> str:
    """Return what keeps a run from its time."""
    if not gets_enough(seconds, budget):
        return f"of which the budget of {duration(budget)} is less than a fifth"
    return f"{'others take' if seconds <= budget else 'over'} the budget of {duration(budget)}"


def _elsewhere(offer: PlannedRun) -> str:
    """Return where a run belongs that would take this machine weeks."""
    there = duration(offer.h200_seconds)
    return f"not on this machine; about {there} on one H200"


def _cut_short(offer: PlannedRun, budget: float) -> PlannedRun:
    reason = f"cut short by the budget: needs about {duration(offer.seconds)}"
    whole = offer.seconds
    return replace(offer, seconds=budget, whole_seconds=whole, runs=True, reason=reason)


def run_command(
    cell: Cell, budget: str = "", seeds: int = 1, *, missing: bool = False, results: str = ""
) -> str:
    """Return the command that runs one cell, with its ``--set`` changes."""
    words = ["dgm-bench", "run", cell.id]
    words += [word for change in cell.modified for word in ("--set", change)]
    words += ["--seeds", str(seeds)] if seeds > 1 else []
    words += ["--missing"] if missing else []
    words += ["--budget", budget] if budget else []
    words += ["--results", results] if results else []
    return shlex.join(words)
