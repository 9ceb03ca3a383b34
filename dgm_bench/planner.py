"""What a command would run: cost, data and memory of each cell, and what fits the budget.

Nothing here trains, loads data or imports torch; where data lies is asked of a function that
the caller gives, so that the planner knows no data set.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Protocol

from dgm_bench import provenance
from dgm_bench.errors import UsageError, shortened
from dgm_bench.records import COMPLETE, RunRecord
from dgm_bench.spec import Cell, Cost, Recipe

#: What ``--budget auto`` allows on a machine without a GPU, in seconds.
AUTO_BUDGET = 600.0
#: How much of a budget is planned.
PLANNED_SHARE = 0.8
UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

# --------------------------------------------------------------------------- durations


def parse_duration(text: str, option: str, also: str = "") -> float:
    """Return the seconds of ``90s``, ``10m``, ``1h30m`` or ``1.5h``.

    Raises:
        UsageError: It is no duration, or not above zero.
    """
    compact = text.strip().lower()
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", compact)
    seconds = sum(float(number) * UNIT_SECONDS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != compact or not 0 < seconds < math.inf:
        raise UsageError(
            f"{option} {shortened(text)}",
            "not a time above zero",
            f"write 90s, 10m, 2h or 1h30m{also}",
        )
    return seconds


def parse_budget(text: str, device: str = "cpu", option: str = "--budget") -> float | None:
    """Return a budget in seconds; None where it is unlimited.

    Args:
        text: A duration, ``none``, or ``auto``: ten minutes without a GPU, unlimited with one.
        device: ``cpu`` or ``cuda``; decides what ``auto`` is.
        option: Its name in the message when it means nothing.

    Raises:
        UsageError: It is none of these, or not above zero.
    """
    if text == "none":
        return None
    if text == "auto":
        return AUTO_BUDGET if device == "cpu" else None
    return parse_duration(text, option, also=", none or auto")


def duration(seconds: float | None) -> str:
    """Return a duration for people: ``40 s``, ``12 min``, ``3.5 h``, ``4 days``."""
    if seconds is None:
        return "unknown"
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            number = seconds / unit
            return f"{number:.1f} h" if name == "h" and number < 10 else f"{number:.0f} {name}"
    return f"{seconds / 86400:.0f} days"


def option_value(seconds: float) -> str:
    """Return a duration that ``--budget`` takes, a quarter more than asked, in whole units."""
    ample = 1.25 * seconds
    if ample <= 90 * 60:
        return f"{math.ceil(ample / 60)}m"
    return f"{math.ceil(ample / 3600)}h"


def gigabytes(size: float | None) -> str:
    """Return a size for people: ``1.5 GB``."""
    if size is None:
        return "unknown"
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"


# --------------------------------------------------------------------------- machine


@dataclass(frozen=True)
class Speed:
    """How fast a machine works on small models.

    Attributes:
        flops_per_second: Sustained, on matrices of a few hundred rows and columns.
        seconds_per_launch: Overhead of one tensor operation, which dominates small models.
        start_seconds: Loading data, building the model, writing the record.
    """

    flops_per_second: float
    seconds_per_launch: float = 10e-6
    start_seconds: float = 2.0

    @classmethod
    def cpu(cls, cores: int) -> Speed:
        """Return 30 GFLOP/s a core: about a third of the peak of a current server core."""
        return cls(30e9 * cores)

    @classmethod
    def gpu(cls) -> Speed:
        """Return 20 TFLOP/s: about a third of float32's peak on a current server GPU."""
        return cls(20e12)

    @classmethod
    def h200(cls) -> Speed:
        """Return one NVIDIA H200: a third of the 67 TFLOP/s that its data sheet gives float32.

        Not measured. A launch costs what it costs a CPU: both are bound by the host's Python.
        """
        return cls(67e12 / 3)


@dataclass(frozen=True)
class Machine:
    """The machine as the planner sees it; ``kind`` is the machine class of the records."""

    device: str
    kind: str
    speed: Speed
    memory_bytes: int

    @classmethod
    def here(cls, device: str = "auto", threads: int | None = None) -> Machine:
        """Return this machine, with the device that torch would take; imports no torch."""
        device = provenance.likely_device() if device == "auto" else device
        cores = threads or provenance.cores()
        speed = Speed.gpu() if device == "cuda" else Speed.cpu(cores)
        kind = provenance.machine_class(device)
        return cls(device, kind, speed, provenance.memory_bytes())


# --------------------------------------------------------------------------- cost


def expected_seconds(cost: Cost, speed: Speed) -> float:
    """Return a run's expected seconds from its declared work."""
    step = cost.flops_per_step / speed.flops_per_second
    step += cost.launches_per_step * speed.seconds_per_launch
    evaluation = cost.evaluation_flops / speed.flops_per_second
    return speed.start_seconds + cost.steps * step + evaluation


def measured_seconds(records: Iterable[RunRecord], kind: str) -> dict[str, float]:
    """Return the median seconds of complete, unmodified runs on this machine, by recipe hash.

    Of runs trained together with other seeds it is the most that one of them would take alone.
    """
    taken: dict[str, list[float]] = {}
    for record in records:
        comparable = not record.modified and record.environment.machine_class == kind
        if comparable and record.outcome.status in COMPLETE:
            spent = record.budget
            total = spent.train_seconds + spent.train_seconds_of_others
            total += spent.validation_seconds + spent.evaluation_seconds
            taken.setdefault(record.recipe_hash, []).append(total)
    return {recipe_hash: median(seconds) for recipe_hash, seconds in taken.items()}


def share_of(
    remaining_seconds: float | None, this: float | None, later_total: float
) -> float | None:
    """Return the time limit of the next run: what it is expected to take, and all the slack.

    Runs come in order of priority, so one that takes longer than expected may use what no later
    run is expected to need. Where there is less than expected, everyone gets a share.

    Args:
        remaining_seconds: What remains; None where the budget is unlimited.
        this: Expected seconds of the next run; None takes all that later runs leave.
        later_total: Expected seconds of all runs after it.
    """
    if remaining_seconds is None:
        return None
    remaining = max(remaining_seconds, 0.0)
    if this is None:
        return max(remaining - later_total, 0.0)
    total = this + later_total
    return remaining - later_total if remaining >= total else remaining * this / total


# --------------------------------------------------------------------------- plan


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
class PlannedRun:
    """One recipe with one seed, the cells it serves, and whether it runs.

    Attributes:
        cell: The cell whose row and column name the record.
        cells: Ids of all cells it serves, that one first.
        recipe: What runs, with any ``--set`` changes.
        data: State of its data: ``embedded``, ``here``, ``missing``, ``incomplete``, or ``""``.
        seconds: What it is expected to take; None where nothing is known.
        memory_bytes: What it is expected to need.
        reason: Why it does not run, and the command that would run it; or what limits it.
        command: The command that would run it, or make it runnable; empty where none would.
        h200_seconds: What its declared work would take on one NVIDIA H200.
    """

    cell: Cell
    cells: tuple[str, ...]
    seed: int
    recipe: Recipe | None = None
    data: str = ""
    seconds: float | None = None
    memory_bytes: int | None = None
    runs: bool = False
    reason: str = ""
    command: str = ""
    h200_seconds: float | None = None

    @property
    def modified(self) -> tuple[str, ...]:
        """The ``--set`` changes in its recipe."""
        return self.cell.modified

    @property
    def chosen_recipe(self) -> Recipe:
        """The recipe of a run that runs.

        Raises:
            ValueError: There is none: no plan chooses such a run.
        """
        if self.recipe is None:
            raise ValueError(f"{self.cell.id} was planned without a recipe")
        return self.recipe


@dataclass(frozen=True)
class Plan:
    """Runs in the order in which they run, then those that do not, as declared."""

    runs: tuple[PlannedRun, ...]
    budget_seconds: float | None
    machine: Machine

    @property
    def chosen(self) -> tuple[PlannedRun, ...]:
        """The runs that run, in order."""
        return tuple(run for run in self.runs if run.runs)

    @property
    def left_out(self) -> tuple[PlannedRun, ...]:
        """The runs that do not run."""
        return tuple(run for run in self.runs if not run.runs)

    @property
    def seconds(self) -> float:
        """Expected seconds of all that runs."""
        return sum(run.seconds or 0.0 for run in self.chosen)

    def reasons(self) -> dict[str, str]:
        """Return by its id why each cell has no number yet, and the command that changes that."""
        reasons = {cell_id: run.reason for run in self.left_out for cell_id in run.cells}
        waiting = {cell_id: run.command for run in self.chosen for cell_id in run.cells}
        return reasons | {cell_id: f"not run yet: {text}" for cell_id, text in waiting.items()}


@dataclass(frozen=True)
class PlanningContext:
    """What a plan depends on besides the declarations.

    Attributes:
        machine: The machine it would run on.
        data_state: State of a data set, by its name.
        runnable: Whether a cell's recipe resolves and its model builds, and why not.
        records: Stored records, for what earlier runs took.
        may_fetch: Whether missing data may be downloaded; done only where time is unlimited.
    """

    machine: Machine
    data_state: Callable[[str], DataState]
    runnable: Callable[[Cell], tuple[bool, str]]
    records: Sequence[RunRecord] = field(default=())
    may_fetch: bool = False


def plan(
    cells: Sequence[Cell], context: PlanningContext, *, budget: float | None, seeds: int = 1
) -> Plan:
    """Plan ``seeds`` runs of every recipe behind ``cells``: what fits the budget runs.

    Cells that share a recipe are one run. Choice is by priority (high first), then seed, then
    cost. Where nothing fits, the first choice runs all the same, cut short by the budget. A
    single cell without a budget runs whatever it takes.

    Args:
        cells: The cells that were asked for, with any ``--set`` changes in their recipes.
        context: Machine, data and earlier runs.
        budget: Seconds for all runs together; None for no limit.
        seeds: Runs of each recipe, with seeds 0, 1, ...
    """
    measured = measured_seconds(context.records, context.machine.kind)
    context = replace(context, may_fetch=context.may_fetch and budget is None)
    groups = _by_recipe(cells)
    insist = len(groups) == 1 and budget is None
    firsts = [_offer(group, context, measured, insist) for group in groups]
    offers = [replace(first, seed=seed) for first in firsts for seed in range(seeds)]
    ready = sorted((offer for offer in offers if not offer.reason), key=_urgency)
    decided = _decide(ready, budget, seeds)
    chosen = [run for run in decided if run.runs]
    left_out = [run for run in decided if not run.runs]
    left_out += [offer for offer in offers if offer.reason]
    order = {group[0].id: place for place, group in enumerate(groups)}
    left_out.sort(key=lambda run: (order[run.cell.id], run.seed))
    return Plan((*chosen, *left_out), budget, context.machine)


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
    offer = PlannedRun(cell, tuple(member.id for member in group), 0, cell.recipe)
    able, why = context.runnable(cell)
    if cell.recipe is None or not able:
        return replace(offer, reason=why or "no recipe yet")
    offer = replace(
        offer,
        seconds=_seconds(cell.recipe, context.machine.speed, measured),
        h200_seconds=_seconds(cell.recipe, Speed.h200(), {}),
        memory_bytes=cell.recipe.cost.memory_bytes if cell.recipe.cost else None,
        command=run_command(cell),
    )
    offer = _with_data(offer, cell.recipe, context)
    return _with_memory(offer, context.machine, insist)


def _seconds(recipe: Recipe, speed: Speed, measured: Mapping[str, float]) -> float | None:
    known = measured.get(recipe.content_hash)
    if known is None and recipe.cost is not None:
        return expected_seconds(recipe.cost, speed)
    return known


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


def _urgency(offer: PlannedRun) -> tuple[float, int, float]:
    return -offer.cell.priority, offer.seed, math.inf if offer.seconds is None else offer.seconds


def _decide(ready: Sequence[PlannedRun], budget: float | None, seeds: int) -> list[PlannedRun]:
    """Say of each run whether it fits into what those before it leave of the budget.

    A fifth of the budget is kept for runs that take longer than expected.
    """
    if budget is None:
        return [replace(offer, runs=True) for offer in ready]
    left, decided = PLANNED_SHARE * budget, []
    for offer in ready:
        fits = offer.seconds is not None and offer.seconds <= left
        decided.append(replace(offer, runs=True) if fits else _too_long(offer, budget, seeds))
        left -= offer.seconds or 0.0 if fits else 0.0
    if ready and not any(run.runs for run in decided):
        decided[0] = _cut_short(ready[0], budget)
    return decided


def _too_long(offer: PlannedRun, budget: float, seeds: int) -> PlannedRun:
    if offer.seconds is None:
        why, enough = f"cost unknown, budget {duration(budget)}", "none"
    else:
        spent = "others take the" if offer.seconds <= budget else "over the"
        why = f"needs about {duration(offer.seconds)}, {spent} budget of {duration(budget)}"
        enough = option_value(offer.seconds * seeds)
    command = run_command(offer.cell, enough, seeds)
    return replace(offer, reason=f"{why}: {command}", command=command)


def _cut_short(offer: PlannedRun, budget: float) -> PlannedRun:
    reason = f"cut short by the budget: needs about {duration(offer.seconds)}"
    return replace(offer, seconds=budget, runs=True, reason=reason)


def run_command(cell: Cell, budget: str = "", seeds: int = 1) -> str:
    """Return the command that runs one cell, with its ``--set`` changes."""
    words = ["dgm-bench", "run", cell.id]
    words += [word for change in cell.modified for word in ("--set", change)]
    words += ["--seeds", str(seeds)] if seeds > 1 else []
    words += ["--budget", budget] if budget else []
    return shlex.join(words)
