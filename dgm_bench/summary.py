"""What became of the runs of a command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dgm_bench.context import RunContext
from dgm_bench.control import TIME_LIMIT
from dgm_bench.errors import DgmBenchError
from dgm_bench.planner import PlannedRun
from dgm_bench.records import RunRecord
from dgm_bench.tracking.beside import LoggingBeside


@dataclass
class RunSummary:
    """What became of a plan.

    Attributes:
        finished: Records of runs that ended by their stopping rule or their budget.
        failed: Records of runs that broke.
        new: Those of both that this command made.
        skipped: Cells that did not run, and why.
        left_out: Cells that the budget had no time for, and the command that runs each.
        unfinished: Cells that a time limit or the budget left in the middle, or ahead.
        unavailable: Whether data of a planned run could not be fetched.
        interrupted: Whether somebody stopped the command.
        lost: Cells whose process died each time, and how.
        cancelled: Cells whose runs somebody cancelled while the others went on.
        broken: The first error that only some runs met, to be raised at the end.
    """

    finished: list[RunRecord] = field(default_factory=list)
    failed: list[RunRecord] = field(default_factory=list)
    new: list[RunRecord] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    unavailable: bool = False
    interrupted: bool = False
    lost: list[tuple[str, str]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    broken: DgmBenchError | None = None

    def take(self, record: RunRecord, context: RunContext, logger: LoggingBeside | None) -> None:
        """Take in the record of a run that ended; tell of it, and log it where it is wanted.

        Args:
            record: The record.
            context: Its reporter.
            logger: Logs it; None where nobody wants it, or another process does.
        """
        (self.failed if record.outcome.failed else self.finished).append(record)
        self.new.append(record)
        context.reporter.run_finished(record)
        if logger is not None:
            logger.log(record)
            for trouble in logger.troubles():
                context.reporter.message(trouble)

    def skip(self, cell_id: str, reason: str, context: RunContext) -> None:
        """Note that a cell does not run, and tell why."""
        self.skipped.append((cell_id, reason))
        context.reporter.run_skipped(cell_id, reason)

    def sort(self, runs: Sequence[PlannedRun]) -> None:
        """Put all in the order of a plan's runs, whichever ended first."""
        place = {(r.chosen_recipe.content_hash, r.seed): at for at, r in enumerate(runs)}
        cells = {run.cell.id: at for at, run in reversed(list(enumerate(runs)))}
        for records in (self.finished, self.failed):
            records.sort(key=lambda record: place.get((record.recipe_hash, record.seed), -1))
        for reasons in (self.skipped, self.left_out, self.lost):
            reasons.sort(key=lambda known: cells.get(known[0], -1))
        for ids in (self.unfinished, self.cancelled):
            ids.sort(key=lambda cell_id: cells.get(cell_id, -1))

    def leave(self, left: Sequence[PlannedRun], context: RunContext) -> None:
        """Note who stopped the command, a person or the time that it had, and what is left."""
        reason = context.control.stop_reason()
        self.interrupted = reason not in (None, TIME_LIMIT)
        if not self.interrupted:
            self.unfinished += [run.cell.id for run in left]
        if n := len(self.cancelled):
            self.interrupted = True
            what = "1 run was" if n == 1 else f"{n} runs were"
            context.reporter.message(f"{what} cancelled; the same command goes on")

    @property
    def why_nothing_ran(self) -> str | None:
        """Why no run was begun; None where one was, or somebody stopped the command."""
        if self.finished or self.failed or self.unfinished or self.lost or self.interrupted:
            return None
        reasons = [reason for _, reason in (*self.skipped, *self.left_out)]
        return reasons[0] if reasons else "no cell was left to run"

    @property
    def cut_short(self) -> int:
        """How many runs the budget or a time limit left in the middle, or ahead."""
        return len(self.unfinished) + sum(record.outcome.cut_short for record in self.finished)
