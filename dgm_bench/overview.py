"""What runs where, since when and how far, as boards and work folders tell; nothing is changed.

No two clocks are compared: times are shown as whoever wrote them told them, and how long a worker
has given no sign is told by the clock of the file system that its files lie on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from dgm_bench.engines.board import (
    ENDED,
    Board,
    Submission,
    TaskState,
    boards,
    file_system_time,
    submissions_folder,
)
from dgm_bench.engines.interrupted import InterruptedRun, interrupted_runs
from dgm_bench.engines.tasks import Task
from dgm_bench.processes import is_gone
from dgm_bench.progress import time_left

STATES = ("waiting", "running", "done", "stopped", "failed", "lost")
#: Seconds without a sign after which it is told: workers give one a second, and file systems
#: that machines share show it up to a minute later.
SILENT = 120.0


@dataclass(frozen=True)
class Failure:
    """What failed, why, and what to do about it."""

    what: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class TaskView:
    """Where a task is.

    Attributes:
        task: What is to be done.
        state: What its worker said last; one that went wrong is ``failed``.
        silent_seconds: Since its worker gave a sign, where it should and has not for long.
        gone: Whether its worker is surely over without having said how it ended.
    """

    task: Task
    state: TaskState
    silent_seconds: float | None = None
    gone: bool = False

    @property
    def kind(self) -> str:
        """One of :data:`STATES`."""
        broke = any(ending.failure for ending in self.state.records)
        went_wrong = self.state.fault is not None or broke
        return "failed" if self.state.state == "done" and went_wrong else self.state.state

    @property
    def name(self) -> str:
        """Its cell and seeds."""
        return self.task.name

    @property
    def seconds_left(self) -> float | None:
        """What is left of it at most, or as far as was expected; None where nothing is known."""
        if self.state.state in ENDED:
            return 0.0
        bound = time_left(self.state.progress)
        expected = self.task.seconds
        known = [bound] if bound is not None else []
        if expected is not None and expected > self.state.seconds:
            known.append(expected - self.state.seconds)
        return min(known, default=None)

    @property
    def failures(self) -> Iterator[Failure]:
        """What failed of it."""
        fault, skipped = self.state.fault, self.state.skipped
        if fault is not None:
            named = fault.thing in (*self.task.cells, self.name, self.state.title)
            thing = "" if named else f"{fault.thing}: "
            yield Failure(self.name, f"{thing}{fault.reason}", fault.remedy)
        for ending in self.state.records:
            if ending.failure:
                yield Failure(ending.title, ending.failure, ending.hint)
        for cell_id, reason in skipped:
            yield Failure(cell_id, f"not run: {reason}", "")


@dataclass(frozen=True)
class SubmissionView:
    """A submission and its tasks.

    Attributes:
        board: Its board.
        submission: What was asked for.
        tasks: Those that were asked about.
        head: ``there``, ``gone``, or ``silent`` where it gives no sign, for ``silent_seconds``;
            ``ended`` once all is over.
    """

    board: Board
    submission: Submission
    tasks: Sequence[TaskView]
    head: str
    silent_seconds: float | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many tasks are in each state."""
        counted = Counter(view.kind for view in self.tasks)
        return {state: counted[state] for state in STATES}

    @property
    def running(self) -> list[TaskView]:
        """Tasks that a worker does, or did when it was last heard of."""
        return [view for view in self.tasks if view.state.state == "running"]

    @property
    def seconds_left(self) -> float | None:
        """What is left, if as many tasks go on at once as do now; None where it is not known."""
        if self.head in ("gone", "ended"):
            return None
        left = [view.seconds_left for view in self.tasks if view.state.state not in ENDED]
        known = [seconds for seconds in left if seconds is not None]
        if len(known) < len(left):
            return None
        return max(sum(known) / max(len(self.running), 1), max(known, default=0.0))


@dataclass(frozen=True)
class Overview:
    """All that is under way on a results folder, and what waits to be gone on with.

    Attributes:
        submissions: The open ones; also those that ended, where they were asked for.
        interrupted: Runs that nobody does now, and that have a checkpoint.
        damaged: Boards that cannot be read.
        ended: How many submissions ended with something that failed and are not shown.
    """

    submissions: Sequence[SubmissionView]
    interrupted: Sequence[InterruptedRun]
    damaged: Sequence[Path]
    ended: int


def overview(results: Path, patterns: Sequence[str] = (), *, everything: bool = False) -> Overview:
    """Look at the boards and work folders of a results folder.

    Args:
        results: The results folder; it may be written meanwhile, and by other machines.
        patterns: Shell patterns of cells; only tasks that serve such a cell are shown.
        everything: Also show submissions that ended.
    """
    found = [(board, board.submission()) for board in boards(results)]
    wanted = [
        (board, submission)
        for board, submission in found
        if submission is not None and (everything or not submission.ended)
    ]
    views = [_view(board, submission, patterns) for board, submission in wanted]
    under_way = {name for view in views if view.head != "gone" for name in _folders(view.running)}
    return Overview(
        submissions=[view for view in views if view.tasks],
        interrupted=[
            run
            for run in interrupted_runs(results)
            if run.folder not in under_way and matches([run.cell], patterns)
        ],
        damaged=[
            board.folder
            for board, submission in found
            if submission is None and (board.folder / "submission.json").exists()
        ],
        ended=sum(s is not None and bool(s.ended) for _, s in found) if not everything else 0,
    )


def matches(cells: Collection[str], patterns: Sequence[str]) -> bool:
    """Say whether one of some cells matches one of the patterns, if there are any."""
    return not patterns or any(fnmatchcase(cell, p) for cell in cells for p in patterns)


def _folders(views: Sequence[TaskView]) -> Iterator[str]:
    """Yield the names of the work folders of tasks."""
    for view in views:
        for seed in view.task.seeds:
            yield f"{view.task.recipe_hash[:12]}-s{seed}"


def _view(board: Board, submission: Submission, patterns: Sequence[str]) -> SubmissionView:
    states = {state.task: state for state in board.states()}
    chosen = [task for task in submission.tasks if matches(task.cells, patterns)]
    known = [states.get(task.id) or TaskState(task=task.id) for task in chosen]
    clock = _Clock(board, states.values())
    tasks = [clock.view(task, state) for task, state in zip(chosen, known, strict=True)]
    if submission.ended:
        return SubmissionView(board, submission, tasks, "ended")
    if is_gone(submission.process):
        return SubmissionView(board, submission, tasks, "gone")
    own = any(state.mark == submission.process for state in states.values())
    silence = None if own else clock.silence(board.silent_since())
    head = "there" if silence is None else "silent"
    return SubmissionView(board, submission, tasks, head, silence)


class _Clock:
    """How long workers have given no sign, by the clock of the file system.

    Where no file can be made that tells its time, the newest file of the board is not later.
    """

    def __init__(self, board: Board, states: Collection[TaskState]) -> None:
        self._board = board
        running = [state.task for state in states if state.state == "running"]
        times = [board.silent_since(task_id) for task_id in (None, *running)]
        newest = max((time for time in times if time is not None), default=0.0)
        self._now = file_system_time(submissions_folder(board.folder.parents[2])) or newest

    def silence(self, since: float | None) -> float | None:
        """Return how long nothing came, where that is too long."""
        if since is None or self._now - since < SILENT:
            return None
        return self._now - since

    def view(self, task: Task, state: TaskState) -> TaskView:
        """Return where a task is."""
        if state.state != "running":
            return TaskView(task, state)
        silence = self.silence(self._board.silent_since(task.id))
        return TaskView(task, state, silence, is_gone(state.mark))
