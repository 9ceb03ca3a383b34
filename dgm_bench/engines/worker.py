"""What a process of any engine does with a job: the same as a command of its own would.

Nothing is printed: what there is to say goes to the board, where the command that submitted reads
it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

import torch

from dgm_bench.allocator import keep_freed_memory
from dgm_bench.catalog import load_catalog
from dgm_bench.context import RunContext
from dgm_bench.control import CANCELLED, Control
from dgm_bench.engines.board import Board, Ending, Fault, TaskState
from dgm_bench.engines.tasks import Job, Task
from dgm_bench.errors import DgmBenchError, ResultsError, UsageError
from dgm_bench.events import Progress, Reporter
from dgm_bench.execution import resolve_device
from dgm_bench.kept import ask_in_modules
from dgm_bench.overrides import change_cells
from dgm_bench.planner import PlannedRun
from dgm_bench.processes import own_mark
from dgm_bench.records import FAILED, RunRecord, utc_now
from dgm_bench.session import DataSource, Session
from dgm_bench.team import gathered

#: Seconds between two looks at the board, each of which notes on it where the task is.
PAUSE = 1.0
#: The exit code of a worker that is to leave no time for a checkpoint.
EXIT_AT_ONCE = 130
#: How many messages of a task are kept: the last ones.
MOST_MESSAGES = 100


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
    if board.cancel_requested(state.task):
        control.request(CANCELLED)
    with control.catching_signals(but_ignored=True), watching(state, board, control, gone):
        try:
            stopped = _done(job, state, control)
            state.state = "stopped" if stopped else "done"
            state.stop_reason = control.stop_reason() if stopped else None
        except DgmBenchError as error:
            state.state, state.fault = "failed", Fault.of(error)
    board.note(state)
    return state


def _begun(job: Job, before: TaskState | None) -> TaskState:
    """Return the state of a task that begins, or goes on in another process of this attempt."""
    state = TaskState(task=job.task.id, attempt=job.attempt, state="running", started=utc_now())
    if before is not None and before.attempt == job.attempt:
        state.messages, state.records = before.messages, before.records
    return state


def _done(job: Job, state: TaskState, control: Control) -> bool:
    """Do the runs of a job in this process; say whether it had to leave some."""
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
        reporter=reporter_to(state),
    )
    device = resolve_device(terms.device)
    with control.active(ask_in_modules), gathered(context, device) as team:
        session = Session(context, device, DataSource(context), team=team)
        left = session.run(runs, job.limit_seconds)
    summary = session.summary
    told = {ending.place for ending in state.records}
    places = ["/".join(record.place) for record in summary.finished]
    state.earlier = [place for place in places if place not in told]
    state.unavailable, state.unfinished = summary.unavailable, list(summary.unfinished)
    state.fault = Fault.of(summary.broken) if summary.broken is not None else None
    return bool(left)


def planned_runs(task: Task) -> list[PlannedRun]:
    """Return the runs of a task, from the declarations that this process has.

    Raises:
        UsageError: They give another recipe than those of the process that planned it.
    """
    cells = load_catalog().select(*task.cells)
    changes = dict(setting.partition("=")[::2] for setting in task.settings)
    cells = sorted(change_cells(cells, changes), key=lambda cell: task.cells.index(cell.id))
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


def reporter_to(state: TaskState) -> Reporter:
    """Return what puts events of runs into a task's state."""
    return _BoardReporter(state)


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
    over = Event()

    def watch() -> None:
        while not over.wait(PAUSE):
            with suppress(ResultsError):  # a full disk: the run itself says so
                board.note(state)
            if board.at_once_requested(state.task):
                _stop_at_once(state, board, leave)
            reason = CANCELLED if board.cancel_requested(state.task) else gone()
            if reason is not None:
                control.request(reason)

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _stop_at_once(state: TaskState, board: Board, leave: Callable[[], None]) -> None:
    """End this process; the lock of its run goes with it."""
    stopped = state.model_copy(update={"state": "stopped", "stop_reason": CANCELLED})
    with suppress(ResultsError):
        board.note(stopped)
    leave()


class _BoardReporter(Reporter):
    """Puts what happens into a task's state, which somebody else writes."""

    def __init__(self, state: TaskState) -> None:
        self.state = state

    def run_started(
        self,
        title: str,
        published: str | None,
        limit_seconds: float | None,
        resumed_at_step: int | None,
    ) -> None:
        self.about(title, published)
        self.state.resumed_at_step = resumed_at_step

    def about(self, title: str, published: str | None) -> None:
        self.state.title, self.state.published = title, published

    def progress(self, event: Progress) -> None:
        state = self.state
        state.stage, state.step, state.max_steps = event.stage, event.step, event.max_steps
        state.epoch, state.seconds = event.epoch, event.seconds
        state.train_loss, state.validation = event.train_loss, event.validation
        state.best = event.best

    def run_finished(self, record: RunRecord) -> None:
        state, outcome = self.state, record.outcome
        ending = Ending(place="/".join(record.place), title=state.title, published=state.published)
        if outcome.status in FAILED:
            ending.failure, ending.hint = f"{outcome.status}: {outcome.reason}", outcome.hint or ""
        state.records.append(ending)

    def run_skipped(self, cell_id: str, reason: str) -> None:
        self.state.skipped.append((cell_id, reason))

    def message(self, text: str) -> None:
        self.state.messages = [*self.state.messages, text][-MOST_MESSAGES:]
