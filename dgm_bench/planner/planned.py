"""Planned runs, and a plan of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from dgm_bench.planner.machine import Machine
from dgm_bench.planner.schedule import Need, end_of, list_schedule
from dgm_bench.spec import Cell, Recipe
from dgm_bench.together import groups_of

#: In steps of how many bytes runs take memory: needs are known no better, and fewer are quick to
#: schedule.
MEMORY_STEP = 100_000_000
#: Why a run is left out that was done before, where only missing ones were asked for.
IS_COMPLETE = "complete already"
#: Metrics whose columns are mostly titled after their data.
USUAL_METRICS = ("nll", "negative-elbo", "importance-nll")


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
        waits: Whether nothing but the budget keeps it from running.
        judged: How many published numbers it is held against.
        whole_seconds: What it would take to its end, where a budget is expected to cut it short.
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
    waits: bool = False
    judged: int = 0
    whole_seconds: float | None = None

    @property
    def is_complete(self) -> bool:
        """Whether it is left out as it was done before."""
        return self.reason == IS_COMPLETE

    @property
    def modified(self) -> tuple[str, ...]:
        """The ``--set`` changes in its recipe."""
        return self.cell.modified

    @property
    def place(self) -> str:
        """What it is trained on, in words: its column, or its data where columns are metrics."""
        column = self.cell.column
        several = len({cell_id.rpartition("/")[2] for cell_id in self.cells}) > 1
        titled = column.metric not in USUAL_METRICS or column.id.endswith(column.metric)
        if self.recipe is not None and (several or titled):
            return self.recipe.stages[0].data.name
        return column.title

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
class Unit:
    """Runs that one worker does at once: one, or all seeds of a recipe that trains them together.

    Attributes:
        runs: In the order of the plan.
    """

    runs: tuple[PlannedRun, ...]

    @property
    def seconds(self) -> float | None:
        """What they take one after the other, which is the most; None where nothing is known."""
        known = [run.seconds for run in self.runs if run.seconds is not None]
        return sum(known) if known else None

    @property
    def priority(self) -> float:
        """The highest of its cells' priorities."""
        return max(run.cell.priority for run in self.runs)

    @property
    def need(self) -> Need:
        """The memory of the largest: seeds share the process and the data, which are most of it."""
        most = max(run.memory_bytes or 0 for run in self.runs)
        return Need(-(-most // MEMORY_STEP) * MEMORY_STEP)


def units(runs: Sequence[PlannedRun]) -> list[Unit]:
    """Put together runs that one worker does at once; each comes where its first run is."""
    return [Unit(tuple(group)) for group in groups_of(runs)]


@dataclass(frozen=True)
class Plan:
    """Runs in the order in which they run, then those that do not, as declared."""

    runs: tuple[PlannedRun, ...]
    budget_seconds: float | None
    machine: Machine

    @cached_property
    def chosen(self) -> tuple[PlannedRun, ...]:
        """The runs that run, in order."""
        return tuple(run for run in self.runs if run.runs)

    @property
    def left_out(self) -> tuple[PlannedRun, ...]:
        """The runs that do not run."""
        return tuple(run for run in self.runs if not run.runs)

    @property
    def is_done(self) -> bool:
        """Whether nothing runs as all of it is complete already."""
        return bool(self.runs) and all(run.is_complete for run in self.runs)

    @property
    def seconds(self) -> float:
        """Expected seconds of all that runs."""
        return sum(run.seconds or 0.0 for run in self.chosen)

    @cached_property
    def units(self) -> list[Unit]:
        """What its workers take one after the other: runs, or seeds that are trained together."""
        return units(self.chosen)

    @cached_property
    def expected_end_seconds(self) -> float:
        """When the last run ends, from the start: where there is one worker, ``seconds``."""
        if self.machine.workers == 1:
            return self.seconds
        return expected_end(self.units, self.machine)

    def reasons(self) -> dict[str, str]:
        """Return by its id why each cell has no number yet, and the command that changes that."""
        reasons = {cell_id: run.reason for run in self.left_out for cell_id in run.cells}
        waiting = {cell_id: run.command for run in self.chosen for cell_id in run.cells}
        return reasons | {cell_id: f"not run yet: {text}" for cell_id, text in waiting.items()}


def expected_end(units: Sequence[Unit], machine: Machine) -> float:
    """Return in how many seconds a machine has done what it takes in this order."""
    seconds = [unit.seconds or 0.0 for unit in units]
    return end_of(list_schedule(seconds, [unit.need for unit in units], machine.room()))
