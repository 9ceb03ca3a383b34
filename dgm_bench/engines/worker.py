"""What a process of any engine does with a job: the same as a command of its own would.

Nothing is printed: what there is to say goes to the board, where the command that submitted reads
it.
"""

from __future__ import annotations

import logging
import os
import platform
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import torch

from dgm_bench.allocator import keep_freed_memory
from dgm_bench.context import RunContext
from dgm_bench.control import CANCELLED, Control, every
from dgm_bench.engines.board import Beginning, Board, Ending, Fault, LiveRows, TaskState
from dgm_bench.engines.declared import declared_cells
from dgm_bench.engines.tasks import Job, Task
from dgm_bench.errors import DgmBenchError, ResultsError, UnexpectedError, UsageError
from dgm_bench.events import CurveRows, Progress, Reporter
from dgm_bench.execution import resolve_device
from dgm_bench.kept import ask_in_modules
from dgm_bench.planner import PlannedRun
from dgm_bench.processes import own_mark
from dgm_bench.records import RunRecord, utc_now
from dgm_bench.session import DataSource, Session
from dgm_bench.team import gathered

#: Seconds between two looks at the board, each of which notes on it where the task is.
PAUSE = 1.0
#: The exit code of a worker that is to leave no time for a checkpoint.
EXIT_AT_ONCE = 130
#: How many messages of a task are kept: the last ones.
MOST_MESSAGES = 100
#: How many rows of curves are kept likewise: those of a second or two.
MOST_ROWS = 20


def do(job: Job, board: Board, gone: Callable[[], str | None] = lambda: None) -> TaskState:
    """Do a job, or what is left of it; note on the board where it is and what became of it.

    Args:
        job: The task, and what it shares with others.
        board: Of its submission.
        gone: Why to stop besides requests on the board and signals, as a lost parent; or None.

    Raises:
        ResultsError: The board cannot be written.
    """
    state = _begun(job, board.state(job.task.id))
    state.device, state.limit_seconds = job.terms.device, job.limit_seconds
    control = Control()
    sign(state)
    board.note(state)
    if (reason := CANCELLED if board.cancel_requested(state.task) else gone()) is not None:
        control.request(reason)
    with control.catching_signals(but_ignored=True), watching(state, board, control, gone):
        try:
            _do(job, state, board, control)
            state.state = "stopped" if state.left else "done"
            state.stop_reason = control.stop_reason() if state.left else None
        except DgmBenchError as error:
            state.state, state.fault = "failed", Fault.of(error)
        except Exception as error:
            state.state, state.fault = "failed", Fault.of(_unexpected(error, state, board))
    board.note(state)
    return state


def _begun(job: Job, before: TaskState | None) -> TaskState:
    """Return the state of a task that begins, or goes on in another process of this attempt."""
    state = TaskState(task=job.task.id, attempt=job.attempt, state="running", started=utc_now())
    if before is not None and before.attempt == job.attempt:
        state.messages, state.forgotten = before.messages, before.forgotten
        state.begun, state.records = before.begun, before.records
        state.curves, state.curves_forgotten = before.curves, before.curves_forgotten
    return state


def _do(job: Job, state: TaskState, board: Board, control: Control) -> None:
    """Do the runs of a job in this process."""
    runs, terms = planned_runs(job.task), job.terms
    if terms.threads is not None:
        torch.set_num_threads(terms.threads)
    keep_freed_memory()
    context = RunContext(
        terms.data_root,
        terms.results,
        device=terms.device,
        threads=terms.threads,
        offline=terms.offline,
        track=False,
        devices=terms.devices,
        accumulate=terms.accumulate,
        control=control,
        reporter=reporter_to(state, board),
        live=partial(note_rows, state),
    )
    device = resolve_device(terms.device)
    with (
        control.active(ask_in_modules),
        _told_to(context.reporter),
        gathered(context, device) as team,
    ):
        session = Session(context, device, _source(context), team=team)
        state.left = [run.seed for run in session.run(runs, job.limit_seconds)]
    summary = session.summary
    told = {ending.place for ending in state.records}
    places = ["/".join(record.place) for record in summary.finished]
    state.earlier = [place for place in places if place not in told]
    state.unavailable, state.unfinished = summary.unavailable, list(summary.unfinished)
    state.fault = Fault.of(summary.broken) if summary.broken is not None else None


def _unexpected(error: Exception, state: TaskState, board: Board) -> DgmBenchError:
    """Return a fault of the program as a line, its traceback kept beside the board."""
    path = board.folder / "faults" / f"{state.task}-{state.attempt}.txt"
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(traceback.format_exception(error)), errors="backslashreplace")
    what = f"unexpected {type(error).__name__}" + (f": {error}" if str(error) else "")
    return UnexpectedError(state.title or state.task, what, f"the details are in {path}")


#: The data source of the last job, whose data the next one mostly shares.
_last: list[DataSource] = []


def _source(context: RunContext) -> DataSource:
    """Return what loads data: that of the last job, where it looks in the same place."""
    source = _last.pop() if _last else DataSource(context)
    if source.context.data_root != context.data_root:
        source = DataSource(context)
    source.context = context
    _last.append(source)
    return source


@contextmanager
def _told_to(reporter: Reporter) -> Iterator[None]:
    """Let what the package warns of be messages, within the block."""
    log, handler = logging.getLogger("dgm_bench"), _Messages(reporter)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


class _Messages(logging.Handler):
    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self.reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        self.reporter.message(record.getMessage())


def planned_runs(task: Task) -> list[PlannedRun]:
    """Return the runs of a task, from the declarations that this process has.

    Raises:
        UsageError: They give another recipe than those of the process that planned it.
    """
    cells = declared_cells(task)
    recipe = cells[0].recipe
    if recipe is None or recipe.content_hash != task.recipe_hash:
        remedy = "install the same version of dgm-bench on all machines"
        raise UsageError(task.cells[0], f"has another recipe on {platform.node()}", remedy)
    each = None if task.seconds is None else task.seconds / len(task.seeds)
    return [
        PlannedRun(cells[0], task.cells, seed, recipe, seconds=each, runs=True)
        for seed in task.seeds
    ]


def sign(state: TaskState) -> None:
    """Say in a task's state that this process does it."""
    state.host, state.process, state.mark = platform.node(), os.getpid(), own_mark()


def note_rows(state: TaskState, told: CurveRows) -> None:
    """Put the newest numbers of a run under way into a task's state, for who logs them."""
    rows = [list(row) for row in told.rows[-MOST_ROWS:]]
    kept = [*state.curves, LiveRows(**{**vars(told), "rows": rows})]
    state.curves_forgotten += len(kept[:-MOST_ROWS])
    state.curves = kept[-MOST_ROWS:]


def reporter_to(state: TaskState, board: Board | None = None) -> Reporter:
    """Return what puts events of runs into a task's state.

    Args:
        state: Of the task.
        board: Where to note at once that a run left its record, if anywhere.
    """
    return _BoardReporter(state, board)


@contextmanager
def watching(
    state: TaskState,
    board: Board,
    control: Control,
    gone: Callable[[], str | None] = lambda: None,
    leave: Callable[[], None] = lambda: os._exit(EXIT_AT_ONCE),
) -> Iterator[None]:
    """Note every second where the task is, and look for reasons to stop, until the block ends.

    Args:
        state: Of the task; others change it meanwhile.
        board: Of its submission.
        control: Told of a reason to stop.
        gone: Why to stop besides requests on the board, or None.
        leave: Ends the process where there is to be no time for a checkpoint.
    """

    def look() -> None:
        state.quiet_seconds = control.quiet_seconds
        with suppress(ResultsError):  # a full disk: the run itself says so
            board.note(state)
        if board.at_once_requested(state.task):
            _stop_at_once(state, board, leave)
        reason = CANCELLED if board.cancel_requested(state.task) else gone()
        if reason is not None:
            control.request(reason)

    with every(PAUSE, look):
        yield


def _stop_at_once(state: TaskState, board: Board, leave: Callable[[], None]) -> None:
    """End this process; the lock of its run goes with it."""
    stopped = state.model_copy(update={"state": "stopped", "stop_reason": CANCELLED})
    with suppress(ResultsError):
        board.note(stopped)
    leave()


class _BoardReporter(Reporter):
    """Puts what happens into a task's state, which somebody else writes."""

    def __init__(self, state: TaskState, board: Board | None) -> None:
        self.state, self.board = state, board

    def run_started(
        self,
        title: str,
        published: str | None,
        limit_seconds: float | None,
        resumed_at_step: int | None,
    ) -> None:
        self.about(title, published)
        self.state.resumed_at_step = resumed_at_step
        self.state.begun.append(
            Beginning(
                title=title,
                published=published,
                limit_seconds=limit_seconds,
                resumed_at_step=resumed_at_step,
            )
        )

    def about(self, title: str, published: str | None) -> None:
        self.state.title, self.state.published = title, published

    def progress(self, event: Progress) -> None:
        state = self.state
        state.stage, state.step, state.max_steps = event.stage, event.step, event.max_steps
        state.epoch, state.seconds = event.epoch, event.seconds
        state.train_loss, state.validation = event.train_loss, event.validation
        state.best = event.best
        state.bad_validations, state.patience = event.bad_validations, event.patience

    def run_finished(self, record: RunRecord) -> None:
        state, outcome = self.state, record.outcome
        ending = Ending(place="/".join(record.place), title=state.title, published=state.published)
        if outcome.failed:
            ending.failure, ending.hint = f"{outcome.status}: {outcome.reason}", outcome.hint or ""
        state.records.append(ending)
        if self.board is not None:  # whoever takes over from here is not to do it again
            with suppress(ResultsError):
                self.board.note(state)

    def run_skipped(self, cell_id: str, reason: str) -> None:
        self.state.skipped.append((cell_id, reason))

    def message(self, text: str) -> None:
        kept = [*self.state.messages, text]
        self.state.forgotten += len(kept[:-MOST_MESSAGES])
        self.state.messages = kept[-MOST_MESSAGES:]
