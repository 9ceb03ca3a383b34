"""The board of a command that does its runs itself, one after the other.

It is there so that ``status`` and ``cancel`` are the same everywhere. A disk on which it cannot be
written holds up no run.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from dgm_bench.context import RunContext
from dgm_bench.engines.board import Board, Submission, TaskState
from dgm_bench.engines.tasks import task_of, tasks_of, terms_of
from dgm_bench.engines.worker import reporter_to, sign, watching
from dgm_bench.errors import ResultsError
from dgm_bench.events import Progress, Reporter
from dgm_bench.planner import Plan, PlannedRun
from dgm_bench.records import RunRecord, utc_now
from dgm_bench.session import Session


class OwnBoard:
    """Notes on a board what this process does, and heeds requests there.

    Args:
        plan: What it is to do.
        context: Of the command.

    Attributes:
        context: Of its runs: its reporter writes to the board too.
    """

    def __init__(self, plan: Plan, context: RunContext) -> None:
        self._board = Board.new(context.results)
        self._reporter = _Both(context.reporter)
        self.context = replace(context, reporter=self._reporter)
        self._submission = Submission.begun(self._board, "local", terms_of(context), tasks_of(plan))

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the board for as long as the block takes."""
        self._save()
        try:
            yield
        finally:
            self._board.remove()

    def withdrawn(self, runs: Sequence[PlannedRun]) -> bool:
        """Say whether somebody cancelled runs, and let those after them go on."""
        cancelled = self._board.cancel_requested(task_of(runs).id)
        if cancelled:
            self.context.control.go_on()
        return cancelled

    def done(
        self, session: Session, runs: Sequence[PlannedRun], limit: float | None
    ) -> Sequence[PlannedRun]:
        """Do runs of one recipe, noting every second where they are; return those left to do.

        Args:
            session: Does them.
            runs: One run, or seeds that are trained together.
            limit: Seconds that each of them may take, or None.
        """
        task = task_of(runs)
        if task not in self._submission.tasks:  # it was planned later
            self._submission.tasks += (task,)
            self._save()
        state = TaskState(task=task.id, state="running", started=utc_now())
        state.device, state.limit_seconds = self.context.device, limit
        sign(state)
        self._reporter.board = reporter_to(state)
        self._note(state)
        with watching(state, self._board, self.context.control, leave=_leave):
            left = session.run(runs, limit)
        state.state = "stopped" if left else "done"
        self._note(state)
        return left

    def _save(self) -> None:
        with suppress(ResultsError):
            self._board.save(self._submission)

    def _note(self, state: TaskState) -> None:
        with suppress(ResultsError):
            self._board.note(state)


def _leave() -> None:
    """End what this process does as a second signal would."""
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), number)


class _Both(Reporter):
    """Tells two reporters: the command's own, and that of the task under way."""

    def __init__(self, own: Reporter) -> None:
        self.own, self.board = own, Reporter()

    def plan(self, plan: Plan) -> None:
        self.own.plan(plan)

    def run_started(
        self,
        title: str,
        published: str | None,
        limit_seconds: float | None,
        resumed_at_step: int | None,
    ) -> None:
        for reporter in (self.own, self.board):
            reporter.run_started(title, published, limit_seconds, resumed_at_step)

    def about(self, title: str, published: str | None) -> None:
        for reporter in (self.own, self.board):
            reporter.about(title, published)

    def progress(self, event: Progress) -> None:
        for reporter in (self.own, self.board):
            reporter.progress(event)

    def run_finished(self, record: RunRecord) -> None:
        for reporter in (self.own, self.board):
            reporter.run_finished(record)

    def run_kept(self, record: RunRecord) -> None:
        self.own.run_kept(record)

    def run_stopped(self, reason: str) -> None:
        for reporter in (self.own, self.board):
            reporter.run_stopped(reason)

    def run_skipped(self, cell_id: str, reason: str) -> None:
        for reporter in (self.own, self.board):
            reporter.run_skipped(cell_id, reason)

    def planned_again(self, text: str, runs: int) -> None:
        self.own.planned_again(text, runs)

    def message(self, text: str) -> None:
        for reporter in (self.own, self.board):
            reporter.message(text)
