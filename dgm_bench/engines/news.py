"""What a command tells of tasks that others do: what is new on the board, and where they stand."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from dgm_bench.context import RunContext
from dgm_bench.engines.board import Beginning, Board, LiveRows, TaskState
from dgm_bench.engines.tasks import Job
from dgm_bench.errors import DamagedError, ResultsError
from dgm_bench.events import CurveRows
from dgm_bench.planner import PlannedRun, duration
from dgm_bench.records import RunRecord, read_record
from dgm_bench.summary import RunSummary
from dgm_bench.tracking.beside import LoggingBeside

#: Seconds after which it is told that a worker has not written, or its work asked for nothing.
SILENT, QUIET = 60.0, 600.0


@dataclass
class Running:
    """A task that an engine has, and what was already told of it.

    Attributes:
        group: Its runs, as they had their turn.
        job: The attempt under way.
        state: As it was last seen of this attempt.
        recorded: Seeds of the runs that left a record.
        heard: When its state last changed, by the clock of this process.
        warned: Whether its silence was told.
    """

    group: Sequence[PlannedRun]
    job: Job
    state: TaskState | None = None
    recorded: set[int] = field(default_factory=set)
    heard: float = field(default_factory=time.monotonic)
    warned: bool = False
    begun: int = 0
    messages: int = 0
    records: int = 0
    curves: int = 0

    @property
    def name(self) -> str:
        """How to speak of it."""
        if self.state is not None and self.state.title:
            return self.state.title
        return self.job.task.name

    def left(self) -> list[PlannedRun]:
        """Return the runs that left no record."""
        return [run for run in self.group if run.seed not in self.recorded]


class News:
    """Tells what is new of running tasks, and takes in the records that they leave.

    Args:
        board: Of the submission.
        context: Of the command: its reporter is told.
        summary: Takes in the records.
        logging: Logs them to MLflow; None where nothing is to be logged.
    """

    def __init__(
        self,
        board: Board,
        context: RunContext,
        summary: RunSummary,
        logging: LoggingBeside | None,
    ) -> None:
        self._board, self._context, self._summary = board, context, summary
        self._logging, self._reporter = logging, context.reporter
        self._taken: set[str] = set()
        self._begun: set[tuple[str, str]] = set()

    def look(self, running: Running) -> None:
        """Read a task's state, and tell what is new."""
        state = self._board.state(running.job.task.id)
        if state is None or state.attempt != running.job.attempt:
            return
        if running.state is None or state.updated != running.state.updated:
            running.heard, running.warned = time.monotonic(), running.warned and _quiet(state)
        running.state = state
        for beginning in state.begun[running.begun :]:
            self._begin(running, beginning)
        for text in state.messages[max(running.messages - state.forgotten, 0) :]:
            self._tell(running, text)
        for ending in state.records[running.records :]:
            self._reporter.about(ending.title, ending.published)
            self.take(running, ending.place)
        self._log_rows(state.curves[max(running.curves - state.curves_forgotten, 0) :])
        running.curves = state.curves_forgotten + len(state.curves)
        running.begun, running.records = len(state.begun), len(state.records)
        running.messages = state.forgotten + len(state.messages)

    def take(self, running: Running, place: str, *, new: bool = True) -> None:
        """Take in a record, once.

        Args:
            running: The task that it is of.
            place: Below ``runs``.
            new: Whether it was made by this command.
        """
        if place in self._taken:
            return
        self._taken.add(place)
        try:
            record = read_record(self._context.results / "runs" / place)
        except (DamagedError, ResultsError) as error:
            self._summary.broken = self._summary.broken or error
            return
        running.recorded.add(record.seed)
        if not new:
            self._summary.finished.append(record)
            self._reporter.run_kept(record)
            return
        self._summary.take(record, self._context, None)
        self._log(record)

    def show(self, tasks: Collection[Running]) -> None:
        """Show where tasks stand, and warn of those that are silent."""
        going = [(t.name, t.state.progress) for t in tasks if t.state is not None and t.state.step]
        if going:
            self._reporter.going(going)
        for running in tasks:
            self._warn(running)
        for trouble in self._logging.troubles() if self._logging else ():
            self._reporter.message(trouble)

    def _begin(self, running: Running, beginning: Beginning) -> None:
        """Tell that a run begins; of another attempt at it, where it goes on."""
        known = running.job.task.id, beginning.title
        if known not in self._begun:
            self._begun.add(known)
            self._reporter.run_started(**beginning.model_dump())
        elif beginning.resumed_at_step is not None:
            step = beginning.resumed_at_step
            self._reporter.message(f"{beginning.title}: goes on at step {step}")

    def _log_rows(self, told: Sequence[LiveRows]) -> None:
        if self._logging is not None:
            for new in told:
                rows = tuple(map(tuple, new.rows))
                self._logging.live(CurveRows(**{**dict(new), "rows": rows}))

    def _log(self, record: RunRecord) -> None:
        if self._logging is not None:
            self._logging.log(record)

    def _tell(self, running: Running, text: str) -> None:
        """Tell a message, with the name of its run where it does not say it."""
        names = (running.name, running.group[0].cell.id)
        self._reporter.message(text if text.startswith(names) else f"{running.name}: {text}")

    def _warn(self, running: Running) -> None:
        """Say once that a worker may hang: whoever knows better ends it, and the run goes on."""
        state = running.state
        if running.warned or state is None or state.state == "waiting":  # for a cluster
            return
        silent = time.monotonic() - running.heard
        if silent <= SILENT and not _quiet(state):
            return
        running.warned, silent = True, max(silent, state.quiet_seconds)
        who = f"process {state.process} on {state.host}"
        self._reporter.message(
            f"{running.name}: no sign of life for {duration(silent)}; where {who} hangs, kill it: "
            "the run goes on from its checkpoint"
        )


def _quiet(state: TaskState) -> bool:
    return state.quiet_seconds > QUIET
