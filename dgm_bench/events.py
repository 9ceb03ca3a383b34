"""Events of a run, as reporters receive them. The console's reporters are :class:`Reporter`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dgm_bench.planner import Plan
    from dgm_bench.records import Data, RunRecord


@dataclass(frozen=True)
class Progress:
    """Where a training stage stands. Losses are those of its objective; all numbers on the host.

    ``stage`` is its name, empty where a run has only one.
    """

    step: int
    max_steps: int | None
    epoch: float
    seconds: float
    limit_seconds: float | None
    train_loss: float | None
    validation: float | None
    best: float | None
    lr: float
    bad_validations: int
    patience: int | None
    stage: str = ""


@dataclass(frozen=True)
class CurveRows:
    """Numbers of a run under way, for whoever draws its curve before it ends.

    Attributes:
        run_id: Of the run, as its record will have it.
        recipe_hash: With the seed, tells which run of a plan it is.
        seed: Of the run.
        time: When they were told, in milliseconds since 1970.
        stage: Name of the stage, empty where a run has only one.
        rows: In the order of the curve's columns: those of the curve itself, as they are added,
            and about once a second between two validations what is known then, with None for the
            rest. A run that begins has none, and one that goes on those of its checkpoint.
        data: What it is trained on, as its record will have it; told when a stage begins.
    """

    run_id: str
    recipe_hash: str
    seed: int
    time: int
    stage: str = ""
    rows: tuple[tuple[float | None, ...], ...] = ()
    data: Data | None = None


class Reporter:
    """Receives the events of a ``run`` command, in order; this one says nothing of them."""

    def plan(self, plan: Plan) -> None:
        """The plan, before anything runs."""

    def run_started(
        self,
        title: str,
        published: str | None,
        limit_seconds: float | None,
        resumed_at_step: int | None,
    ) -> None:
        """A run begins, or goes on from a checkpoint."""

    def about(self, title: str, published: str | None) -> None:
        """What follows is about this run, or about several that are trained together."""

    def progress(self, event: Progress) -> None:
        """A training stage moved on: after each validation, and about once a second between."""

    def going(self, runs: Sequence[tuple[str, Progress]]) -> None:
        """Where runs stand that go at once, each with its title: about once a second."""

    def run_finished(self, record: RunRecord) -> None:
        """A run left its record."""

    def run_kept(self, record: RunRecord) -> None:
        """A run was finished by an earlier command, and is not done again."""

    def run_stopped(self, reason: str) -> None:
        """The run that was begun last stopped, with what is done kept."""

    def run_skipped(self, cell_id: str, reason: str) -> None:
        """A cell does not run, and why."""

    def planned_again(self, text: str, runs: int) -> None:
        """Runs were left out or added; how many are done in all then."""

    def message(self, text: str) -> None:
        """Anything else worth a line."""


def stopped_line(reason: str, what: str = "") -> str:
    """Return in one line that something stopped, why, and what goes on."""
    return f"{what} stopped ({reason}); the same command goes on from here".lstrip()
