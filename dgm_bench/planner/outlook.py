"""What a plan would take on a machine that is not here, with failures and preemptions.

Each draw takes for every run the time it takes with its interruptions, and makes the list schedule
of these. Without interruptions all draws are the list schedule of the expected times.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from dgm_bench.planner.faults import Faults
from dgm_bench.planner.fleet import Fleet
from dgm_bench.planner.parallel import seconds_on, weights_of
from dgm_bench.planner.planned import Plan, PlannedRun, Unit
from dgm_bench.planner.planning import PlanningContext, plan
from dgm_bench.planner.schedule import Need, Room, end_of, list_schedule
from dgm_bench.spec import Cell, Cost, Recipe

#: How many draws, of how many runs in all, and at least.
DRAWS, DRAWN_RUNS, LEAST_DRAWS = 200, 40_000, 10
#: A run gets twice as many devices only where that takes less than this part of the time.
SHORTER = 0.95
#: What bounds the end is told where it makes so much of it.
MOST_OF_IT = 0.9


@dataclass(frozen=True)
class Work:
    """A unit of a plan on a fleet.

    Attributes:
        unit: Its runs.
        recipe: What they run.
        cost: Its declared work.
        alone: Seconds on one device, which it may share.
        devices: How many it gets.
        seconds: On these.
    """

    unit: Unit
    recipe: Recipe
    cost: Cost
    alone: float
    devices: int = 1
    seconds: float = 0.0

    def on(self, fleet: Fleet, devices: int) -> Work:
        """Return it on so many devices."""
        each = seconds_on(self.recipe, self.cost, fleet, devices)
        return replace(self, devices=devices, seconds=each * len(self.unit.runs))

    def most(self, fleet: Fleet) -> int:
        """Return over how many devices it can be divided: seeds trained together over none."""
        single = len(self.unit.runs) > 1 or not fleet.device.is_gpu or not self.cost.steps
        return 1 if single else fleet.used

    @property
    def need(self) -> Need:
        """What it takes of the fleet; what is larger than a GPU is done in parts."""
        return Need(self.unit.need.memory_bytes, self.devices)


@dataclass(frozen=True)
class Outlook:
    """What a plan would take on a fleet.

    Attributes:
        fleet: The devices.
        work: What they do, in order.
        without: How many runs are left out, by reason.
        ends: When the last run ends, in seconds: one number for each draw.
        bound: What keeps it from ending sooner.
        price: Of a device for an hour.
    """

    fleet: Fleet
    work: tuple[Work, ...]
    without: dict[str, int]
    ends: tuple[float, ...]
    bound: str
    price: float

    @property
    def hours(self) -> float:
        """Expected hours."""
        return float(np.mean(self.ends)) / 3600

    @property
    def interval(self) -> tuple[float, float]:
        """Between which hours nine of ten draws are."""
        low, high = np.quantile(self.ends, [0.05, 0.95]) / 3600
        return float(low), float(high)

    @property
    def device_hours(self) -> float:
        """Hours of all devices until the end, busy or not."""
        return self.hours * self.fleet.count

    @property
    def cost(self) -> float:
        """What they cost until then."""
        return self.device_hours * self.price

    @property
    def work_hours(self) -> float:
        """Hours of one device without interruptions: the work that is useful."""
        return sum(work.alone for work in self.work) / self.fleet.sharing / 3600

    @property
    def efficiency(self) -> float:
        """Useful work by what all devices could have done until the end."""
        return self.work_hours / self.device_hours if self.device_hours else 0.0

    @cached_property
    def longest(self) -> Work | None:
        """The run that takes longest."""
        return max(self.work, key=lambda work: work.seconds, default=None)


def plan_on(
    cells: Sequence[Cell],
    fleet: Fleet,
    able: Callable[[Cell], tuple[bool, str]],
    seeds: int = 1,
    complete: Collection[tuple[str, int]] = (),
) -> Plan:
    """Plan all runs behind ``cells`` on a fleet, which has the data that is missing here.

    Args:
        cells: The cells that were asked for.
        fleet: The devices.
        able: Whether a cell's recipe resolves and its model builds, and why not.
        seeds: Runs of each recipe.
        complete: Runs that need not be done, by recipe hash and seed.
    """
    context = PlanningContext(
        machine=fleet.machine(),
        data_state=lambda name: _Elsewhere(),
        runnable=able,
        seconds_of=lambda recipe: seconds_on(recipe, recipe.cost, fleet) if recipe.cost else None,
        complete=complete,
    )
    return plan(cells, context, budget=None, seeds=seeds)


@dataclass(frozen=True)
class _Elsewhere:
    """The state of data on another machine."""

    status: str = ""
    remedy: str = ""
    loadable: bool = True


def outlook(
    planned: Plan, fleet: Fleet, faults: Faults, *, price: float, seed: int = 0, draws: int = DRAWS
) -> Outlook:
    """Return what a plan would take on a fleet.

    Args:
        planned: Made for the fleet by :func:`plan_on`.
        fleet: The devices.
        faults: What goes wrong.
        price: Of a device for an hour.
        seed: Of the draws.
        draws: How many, where runs are few.

    Raises:
        UsageError: Runs are interrupted so often that they would hardly end.
    """
    known = [work for unit in planned.units if (work := _work(unit)) is not None]
    works = in_order(allotted(known, fleet))
    draws = max(min(draws, DRAWN_RUNS // max(len(works), 1)), LEAST_DRAWS)
    ends = drawn_ends(works, fleet, faults, np.random.default_rng(seed), draws)
    price = price if works else 0.0
    return Outlook(fleet, tuple(works), _without(planned, known), ends, _bound(works, fleet), price)


def _work(unit: Unit) -> Work | None:
    recipe, alone = unit.runs[0].chosen_recipe, unit.seconds
    if recipe.cost is None or alone is None:
        return None
    return Work(unit, recipe, recipe.cost, alone, 1, alone)


def _without(planned: Plan, known: Sequence[Work]) -> dict[str, int]:
    """Return how many runs are left out, by reason."""
    priced = {id(run) for work in known for run in work.unit.runs}
    reasons = Counter("no cost" for run in planned.chosen if id(run) not in priced)
    reasons.update(_short(run) for run in planned.left_out)
    return dict(reasons)


def _short(run: PlannedRun) -> str:
    return "no recipe" if run.recipe is None else run.reason.partition(",")[0]


def in_order(works: Sequence[Work]) -> list[Work]:
    """Return work in the order of the plan: the longest first among equal priorities."""
    return sorted(works, key=lambda work: (-work.unit.priority, -work.seconds))


def allotted(works: Sequence[Work], fleet: Fleet) -> list[Work]:
    """Return work with the devices that each run gets.

    The longest run gets twice as many, again and again (Radulescu and van Gemund, A low-cost
    approach towards mixed task and data parallel scheduling, 2001), until all work, spread evenly,
    would take twice as long; what ends soonest on the way counts.
    """
    tried, shortest = [list(works)], math.inf
    divided = list(works)
    area = sum(work.alone for work in works) / fleet.sharing
    longest = [(-work.seconds, place) for place, work in enumerate(divided)]
    heapq.heapify(longest)
    while longest and -2 * longest[0][0] * fleet.used > area:
        place = heapq.heappop(longest)[1]
        before = divided[place]
        after = before.on(fleet, min(2 * before.devices, before.most(fleet)))
        if after.seconds > SHORTER * before.seconds:
            break
        area += _area(after, fleet) - _area(before, fleet)
        divided[place] = after
        heapq.heappush(longest, (-after.seconds, place))
        if -longest[0][0] < SHORTER * shortest:
            shortest = -longest[0][0]
            tried.append(list(divided))
    return min([*tried, divided], key=lambda some: schedule_end(some, fleet.room()))


def _area(work: Work, fleet: Fleet) -> float:
    """Return the seconds of whole devices that work takes."""
    return work.seconds * work.devices if work.devices > 1 else work.seconds / fleet.sharing


def schedule_end(works: Sequence[Work], room: Room) -> float:
    """Return when work without interruptions ends, in seconds."""
    ordered = in_order(works)
    seconds = [work.seconds for work in ordered]
    return end_of(list_schedule(seconds, [work.need for work in ordered], room))


def drawn_ends(
    works: Sequence[Work],
    fleet: Fleet,
    faults: Faults,
    generator: np.random.Generator,
    draws: int,
) -> tuple[float, ...]:
    """Return when work in this order ends, once for each draw of its interruptions."""
    kinds = [faults.of(work.devices, weights_of(work.recipe, work.cost)) for work in works]
    if not any(kind.rate for kind in kinds):
        draws = 1
    each = [
        kind.drawn(work.seconds, draws, generator).tolist()
        for work, kind in zip(works, kinds, strict=True)
    ]
    needs = [work.need for work in works]
    return tuple(
        end_of(list_schedule(seconds, needs, fleet.room())) for seconds in zip(*each, strict=True)
    ) or (0.0,)


def _bound(works: Sequence[Work], fleet: Fleet) -> str:
    """Return what keeps work from ending sooner."""
    if not works:
        return "nothing runs"
    end = schedule_end(works, fleet.room())
    if schedule_end(works, Room(fleet.jobs, fleet.machine().devices, 2**62)) < MOST_OF_IT * end:
        return "memory"
    longest = max(work.seconds for work in works)
    return "the longest run" if longest > MOST_OF_IT * end else "the amount of work"
