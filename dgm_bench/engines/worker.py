"""What a process of any engine does with a job: the same as a command of its own would.

Nothing is printed: what there is to say goes to the board, where the command that submitted reads
it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import torch

from dgm_bench.allocator import keep_freed_memory
from dgm_bench.catalog import load_catalog
from dgm_bench.context import RunContext
from dgm_bench.control import Control
from dgm_bench.engines.board import Board, Ending, Fault, TaskState
from dgm_bench.engines.tasks import Job, Task
from dgm_bench.errors import DgmBenchError, ResultsError, UsageError
from dgm_bench.events import Progress, Reporter
from dgm_bench.execution import resolve_device
from dgm_bench.kept import ask_in_modules
from dgm_bench.overrides import change_cells
from dgm_bench.planner import PlannedRun
from dgm_bench.records import RunRecord, utc_now
from dgm_bench.session import DataSource, Session

#: Seconds between two looks at the board, each of which notes on it where the task is.
PAUSE = 1.0
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
    state = TaskState(task=job.task.id, attempt=job.attempt, state="running", started=utc_now())
    state.host, state.process, state.device = platform.node(), os.getpid(), job.terms.device
    state.limit_seconds = job.limit_seconds
    control = Control()
    board.note(state)
    with control.catching_signals(), _watching(state, board, control, gone):
        try:
            stopped = _done(job, state, control)
            state.state = "stopped" if stopped else "done"
            state.stop_reason = control.stop_reason() if stopped else None
        except DgmBenchError as error:
            state.state, state.fault = "failed", fault_of(error)
    board.note(state)
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
        control=control,
        reporter=_BoardReporter(state),
    )
    session = Session(context, resolve_device(terms.device), DataSource(context))
    with control.active(ask_in_modules):
        left = session.run(runs, job.limit_seconds)
    summary = session.summary
    told = {ending.place for ending in state.records}
    places = ["/".join(record.place) for record in summary.finished]
    state.earlier = [place for place in places if place not in told]
    state.unavailable, state.unfinished = summary.unavailable, list(summary.unfinished)
    state.fault = fault_of(summary.broken) if summary.broken is not None else None
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


def fault_of(error: DgmBenchError) -> Fault:
    """Return an error as the board has it."""
    return Fault(
        kind=type(error).__name__,
        thing=error.thing,
        reason=error.reason,
        remedy=error.remedy,
        exit_code=error.exit_code,
    )


@contextmanager
def _watching(
    state: TaskState, board: Board, control: Control, gone: Callable[[], str | None]
) -> Iterator[None]:
    """Note every second where the task is, and look for reasons to stop, until the block ends."""
    over = Event()

    def watch() -> None:
        while not over.wait(PAUSE):
            reason = "cancelled" if board.cancel_requested(state.task) else gone()
            if reason is not None:
                control.request(reason)
            try:
                board.note(state)
            except ResultsError:  # a full disk: the run itself says so
                continue

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


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
        state, place = self.state, "/".join(record.place)
        state.records.append(Ending(place=place, title=state.title, published=state.published))

    def run_skipped(self, cell_id: str, reason: str) -> None:
        self.state.skipped.append((cell_id, reason))

    def message(self, text: str) -> None:
        self.state.messages = [*self.state.messages, text][-MOST_MESSAGES:]
