"""The folder of a submission: what was asked for, where each task is, and requests to end them.

Every file has one writer: the command that submitted writes ``submission.json``, a task's worker
writes ``tasks/<task id>.json``. All are written atomically, so that anybody may read them at any
time; where they disagree with the records of runs, the records are right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dgm_bench.engines.tasks import Task, Terms
from dgm_bench.records import new_run_id, utc_now
from dgm_bench.sealed import write_atomically

State = Literal["waiting", "running", "done", "stopped", "failed"]
#: States that a worker leaves behind; one that dies leaves ``running``.
ENDED: tuple[State, ...] = ("done", "stopped", "failed")
#: The name of a request to end every task.
_ALL = "all"


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")


Kind = TypeVar("Kind", bound=_File)


class Fault(_File):
    """A :class:`~dgm_bench.errors.DgmBenchError`: its class, its three parts and its exit code."""

    kind: str
    thing: str
    reason: str
    remedy: str
    exit_code: int


class Ending(_File):
    """A run that left a record: the record's place below ``runs``, and how to speak of the run."""

    place: str
    title: str
    published: str | None = None


class TaskState(_File):
    """Where a task is, and at the end what became of it.

    Attributes:
        task: Its id.
        attempt: 1 for the first.
        state: ``done`` once all its runs were dealt with, whatever became of them; ``stopped``
            where it was asked to end first; ``failed`` where ``fault`` says why it could not go on.
        host: Name of the machine.
        process: Number of the worker's process there.
        device: ``cpu`` or ``cuda``.
        started: When this attempt began.
        updated: When this was written; a worker does so every few seconds.
        title: Of the run or runs under way.
        published: The published number beside it, if there is one.
        stage: Name of the stage under way, where a run has several.
        step: Steps so far; ``max_steps`` is their limit, and ``resumed_at_step`` where this
            attempt went on from a checkpoint.
        seconds: Of training so far in this attempt; ``limit_seconds`` is their limit.
        train_loss: Of the objective, as the last validation and the best one.
        messages: What the worker would have printed, in order.
        records: Of the runs that this attempt brought to an end.
        earlier: Places of the records of runs that were finished before.
        skipped: Cells that did not run, each with its reason.
        unfinished: Cells that the budget left in the middle.
        unavailable: Whether data could not be fetched.
        stop_reason: Why it was stopped.
        fault: What ended the task, or broke its data.
    """

    task: str
    attempt: int = 1
    state: State = "waiting"
    host: str = ""
    process: int = 0
    device: str = ""
    started: str = ""
    updated: str = ""
    title: str = ""
    published: str | None = None
    stage: str = ""
    step: int = 0
    max_steps: int | None = None
    resumed_at_step: int | None = None
    epoch: float = 0.0
    seconds: float = 0.0
    limit_seconds: float | None = None
    train_loss: float | None = None
    validation: float | None = None
    best: float | None = None
    messages: list[str] = []
    records: list[Ending] = []
    earlier: list[str] = []
    skipped: list[tuple[str, str]] = []
    unfinished: list[str] = []
    unavailable: bool = False
    stop_reason: str | None = None
    fault: Fault | None = None


class Submission(_File):
    """What a command asked of an engine, and who follows it.

    Attributes:
        id: Names its folder; sorts by time.
        engine: ``local``, ``slurm`` or ``ray``.
        command: As it was typed.
        host: Of the process that follows.
        process: Its mark there (:func:`dgm_bench.processes.own_mark`).
        created: When.
        terms: What the tasks share.
        tasks: All of them, in order.
        handles: The engine's own names of tasks, as Slurm's job ids.
        ended: When all tasks had ended or been given up; None before that.
    """

    id: str
    engine: str
    command: str
    host: str
    process: str
    created: str
    terms: Terms
    tasks: tuple[Task, ...]
    handles: dict[str, str] = {}
    ended: str | None = None


class Board:
    """The folder of one submission.

    Args:
        folder: ``<results>/work/submissions/<id>``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def new(cls, results: Path) -> Board:
        """Return the board of a new submission."""
        return cls(submissions_folder(results) / new_run_id())

    @property
    def id(self) -> str:
        """The submission's id."""
        return self.folder.name

    def save(self, submission: Submission) -> None:
        """Write what was asked for.

        Raises:
            ResultsError: The folder cannot be written.
        """
        write_atomically(self.folder / "submission.json", submission.model_dump_json().encode())

    def submission(self) -> Submission | None:
        """Return what was asked for; None where the file is not there or not whole."""
        return _read(self.folder / "submission.json", Submission)

    def note(self, state: TaskState) -> None:
        """Write where a task is.

        Raises:
            ResultsError: The folder cannot be written.
        """
        state.updated = utc_now()
        write_atomically(self._file(state.task), state.model_dump_json().encode())

    def state(self, task_id: str) -> TaskState | None:
        """Return where a task is; None before any worker took it."""
        return _read(self._file(task_id), TaskState)

    def states(self) -> Iterator[TaskState]:
        """Return the states of all tasks that a worker took."""
        for path in sorted((self.folder / "tasks").glob("[!.]*.json")):
            if (state := _read(path, TaskState)) is not None:
                yield state

    def request_cancel(self, task_ids: Iterable[str] = (_ALL,)) -> None:
        """Ask for tasks to end in good order, all where none is named; workers see it in time.

        Raises:
            ResultsError: The folder cannot be written.
        """
        for task_id in task_ids:
            write_atomically(self.folder / "cancel" / task_id, b"")

    def cancel_requested(self, task_id: str) -> bool:
        """Say whether a task is to end."""
        return any((self.folder / "cancel" / name).exists() for name in (task_id, _ALL))

    def _file(self, task_id: str) -> Path:
        return self.folder / "tasks" / f"{task_id}.json"


def submissions_folder(results: Path) -> Path:
    """Return where the submissions of a results folder are."""
    return results / "work" / "submissions"


def boards(results: Path) -> list[Board]:
    """Return the boards of all submissions, the oldest first."""
    return [Board(path) for path in sorted(submissions_folder(results).glob("[!.]*"))]


def _read(path: Path, kind: type[Kind]) -> Kind | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
