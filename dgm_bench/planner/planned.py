"""Planned runs, and a plan of them."""

from __future__ import annotations

from dataclasses import dataclass

from dgm_bench.planner.machine import Machine
from dgm_bench.spec import Cell, Recipe


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
