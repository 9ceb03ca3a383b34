"""What an engine is asked to do, as plain data: tasks, and what they share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from dgm_bench.context import RunContext
from dgm_bench.planner import Plan, PlannedRun
from dgm_bench.together import groups_of


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Task(_Message):
    """Runs of one recipe that one worker does: one run, or seeds that are trained together.

    Attributes:
        id: Names it in its submission, as ``1a2b3c4d5e6f-s0-2``.
        cells: Ids of all cells it serves; the first one names the record.
        seeds: One for each run.
        settings: The ``--set`` changes in the recipe.
        recipe_hash: Of the recipe; where a worker's declarations give another, it refuses.
        seconds: What all its runs are expected to take; None where nothing is known.
        memory_bytes: What one run is expected to need.
    """

    id: str
    cells: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: tuple[str, ...]
    recipe_hash: str
    seconds: float | None = None
    memory_bytes: int | None = None

    @property
    def name(self) -> str:
        """How to speak of it: its first cell and its seeds."""
        several = "s" if len(self.seeds) > 1 else ""
        return f"{self.cells[0]} seed{several} {', '.join(map(str, self.seeds))}"


class Terms(_Message):
    """What all tasks of a submission share; see :class:`~dgm_bench.context.RunContext`."""

    data_root: Path
    results: Path
    device: str
    threads: int | None
    offline: bool
    devices: int = 1
    accumulate: int = 1


class Job(_Message):
    """One attempt at a task.

    Attributes:
        task: What to do.
        terms: What it shares with others.
        limit_seconds: Each of its runs may take this long; None for no limit.
        attempt: 1 for the first.
    """

    task: Task
    terms: Terms
    limit_seconds: float | None = None
    attempt: int = 1


def terms_of(context: RunContext) -> Terms:
    """Return what a worker has to know of a command's context; its paths are absolute."""
    return Terms(
        data_root=context.data_root.absolute(),
        results=context.results.absolute(),
        device=context.device,
        threads=context.threads,
        offline=context.offline,
        devices=context.devices,
        accumulate=context.accumulate,
    )


def tasks_of(plan: Plan) -> list[Task]:
    """Return the tasks of the runs that a plan chose, in its order."""
    return [task_of(group) for group in groups_of(plan.chosen)]


def task_of(group: Sequence[PlannedRun]) -> Task:
    """Return the task of runs of one recipe."""
    first, seeds = group[0], tuple(run.seed for run in group)
    recipe_hash = first.chosen_recipe.content_hash
    known = [run.seconds for run in group if run.seconds is not None]
    span = f"{seeds[0]}-{seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
    return Task(
        id=f"{recipe_hash[:12]}-s{span}",
        cells=first.cells,
        seeds=seeds,
        settings=first.modified,
        recipe_hash=recipe_hash,
        seconds=sum(known) if len(known) == len(group) else None,
        memory_bytes=first.memory_bytes,
    )
