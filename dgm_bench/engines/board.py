"""The folder of a submission: what was asked for, where each task is, and requests to end them.

Every file has one writer: the command that submitted writes ``submission.json``, a task's worker
writes ``tasks/<task id>.json``, and for a task without one the command does. All are written
atomically, so that anybody may read them at any time; where they disagree with the records of runs,
the records are right. Times in them are those of whoever wrote them; how long ago a file was
written, only its file system can say.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dgm_bench.engines.tasks import Task, Terms
from dgm_bench.errors import DgmBenchError, ResultsError, refused
from dgm_bench.events import Progress
from dgm_bench.processes import own_mark
from dgm_bench.records import Data, new_run_id, utc_now
from dgm_bench.sealed import write_atomically

State = Literal["waiting", "running", "done", "stopped", "failed", "lost"]
#: States in which a task is over; a worker that dies leaves ``running``.
ENDED: tuple[State, ...] = ("done", "stopped", "failed", "lost")
#: The name of a request to end every task.
_ALL = "all"
#: Held by the thread that writes a state: of several, the last one written is the newest.
_NOTING = Lock()
#: What a request holds that is to leave no time for a checkpoint.
_NOW = b"now"


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

    @classmethod
    def of(cls, error: DgmBenchError) -> Fault:
        """Return an error as the board has it."""
        return cls(
            kind=type(error).__name__,
            thing=error.thing,
            reason=error.reason,
            remedy=error.remedy,
            exit_code=error.exit_code,
        )


class Beginning(_File):
    """A run that began, or went on: how to speak of it, its limit, and from which step it goes."""

    title: str
    published: str | None = None
    limit_seconds: float | None = None
    resumed_at_step: int | None = None


class LiveRows(_File):
    """Newest rows of a run's curve, as :class:`~dgm_bench.events.CurveRows` has them."""

    run_id: str
    recipe_hash: str
    seed: int
    time: int
    stage: str = ""
    rows: list[list[float | None]] = []
    data: Data | None = None


class Ending(_File):
    """A run that left a record: the record's place below ``runs``, and how to speak of the run.

    ``failure`` and ``hint`` say what broke and what to try, where something did.
    """

    place: str
    title: str
    published: str | None = None
    failure: str | None = None
    hint: str = ""


class TaskState(_File):
    """Where a task is, and at the end what became of it.

    Attributes:
        task: Its id.
        attempt: 1 for the first.
        state: ``done`` once all its runs were dealt with, whatever became of them; ``stopped``
            where it was asked to end first; ``failed`` where ``fault`` says why it could not go on;
            ``lost`` where its workers died, which who submitted says.
        host: Name of the machine.
        process: Number of the worker's process there.
        mark: Tells that process from all others (:func:`dgm_bench.processes.own_mark`).
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
        bad_validations: In a row; ``patience`` is their limit.
        quiet_seconds: Since the work last asked whether to stop, which it does every few seconds.
        messages: What the worker would have printed, in order: the last ones, after so many as
            ``forgotten`` says.
        curves: Numbers of the runs under way, in order: the newest, after so many as
            ``curves_forgotten`` says. Whoever reads them now and then may miss some.
        begun: Runs that this attempt began.
        records: Of the runs that this attempt brought to an end.
        earlier: Places of the records of runs that were finished before.
        skipped: Cells that did not run, each with its reason.
        unfinished: Cells that the budget left in the middle.
        left: Seeds of the runs that it left when it was stopped.
        unavailable: Whether data could not be fetched.
        stop_reason: Why it was stopped.
        fault: What ended the task, or broke its data.
    """

    task: str
    attempt: int = 1
    state: State = "waiting"
    host: str = ""
    process: int = 0
    mark: str = ""
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
    bad_validations: int = 0
    patience: int | None = None
    quiet_seconds: float = 0.0
    messages: list[str] = []
    forgotten: int = 0
    curves: list[LiveRows] = []
    curves_forgotten: int = 0
    begun: list[Beginning] = []
    records: list[Ending] = []
    earlier: list[str] = []
    skipped: list[tuple[str, str]] = []
    unfinished: list[str] = []
    left: list[int] = []
    unavailable: bool = False
    stop_reason: str | None = None
    fault: Fault | None = None

    @property
    def progress(self) -> Progress:
        """How far the stage under way is; nobody notes its learning rate."""
        return Progress(
            step=self.step,
            max_steps=self.max_steps,
            epoch=self.epoch,
            seconds=self.seconds,
            limit_seconds=self.limit_seconds,
            train_loss=self.train_loss,
            validation=self.validation,
            best=self.best,
            lr=0.0,
            bad_validations=self.bad_validations,
            patience=self.patience,
            stage=self.stage,
        )


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
        source_hash: Of the sources that decide numbers; empty where that does not matter.
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
    source_hash: str = ""
    handles: dict[str, str] = {}
    ended: str | None = None

    @classmethod
    def begun(cls, board: Board, engine: str, terms: Terms, tasks: Iterable[Task]) -> Submission:
        """Return what this process asks of an engine from now on."""
        return cls(
            id=board.id,
            engine=engine,
            command=shlex.join(["dgm-bench", *sys.argv[1:]]),
            host=platform.node(),
            process=own_mark(),
            created=utc_now(),
            terms=terms,
            tasks=tuple(tasks),
        )


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

    # ---------------------------------------------------------------- by who submitted

    def save(self, submission: Submission) -> None:
        """Write what was asked for.

        Raises:
            ResultsError: The folder cannot be written.
        """
        write_atomically(self._submission_file, submission.model_dump_json().encode())

    def submission(self) -> Submission | None:
        """Return what was asked for; None where the file is not there or not whole."""
        return _read(self._submission_file, Submission)

    def beat(self) -> None:
        """Show that who submitted is still there; to be done every few seconds."""
        with suppress(OSError):  # a disk that cannot be written now
            os.utime(self._submission_file)

    def end(self, submission: Submission) -> None:
        """Say that all is over; only where something went wrong is there more to look up.

        Raises:
            ResultsError: The folder cannot be written.
        """
        submission.ended = utc_now()
        if any(state.fault is not None for state in self.states()):
            self.save(submission)
        else:
            self.remove()

    def remove(self) -> None:
        """Remove the folder, and those around it where nothing is left in them."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.folder.parent.rmdir()
            self.folder.parent.parent.rmdir()

    # ---------------------------------------------------------------- by workers

    def note(self, state: TaskState) -> None:
        """Write where a task is.

        Raises:
            ResultsError: The folder cannot be written.
        """
        with _NOTING:
            state.updated = utc_now()
            content = state.model_dump_json().encode()
            _replace(self._file(state.task), content)

    def state(self, task_id: str) -> TaskState | None:
        """Return where a task is; None before any worker took it."""
        return _read(self._file(task_id), TaskState)

    def states(self) -> Iterator[TaskState]:
        """Return the states of all tasks that a worker took."""
        for path in sorted((self.folder / "tasks").glob("[!.]*.json")):
            if (state := _read(path, TaskState)) is not None:
                yield state

    # ---------------------------------------------------------------- by anybody

    def request_cancel(self, task_ids: Iterable[str] = (_ALL,), *, now: bool = False) -> None:
        """Ask for tasks to end in good order, all where none is named; workers see it in time.

        Args:
            task_ids: Which.
            now: Leave no time for a checkpoint.

        Raises:
            ResultsError: The folder cannot be written.
        """
        for task_id in task_ids:
            _replace(self.folder / "cancel" / task_id, _NOW if now else b"")

    def withdraw_requests(self) -> None:
        """Let go on what was cancelled: somebody has asked for it again."""
        shutil.rmtree(self.folder / "cancel", ignore_errors=True)

    def cancel_requested(self, task_id: str) -> bool:
        """Say whether a task is to end."""
        return any(path.exists() for path in self._requests(task_id))

    def cancelled_among(self, task_ids: Iterable[str]) -> list[str]:
        """Return those tasks that are to end."""
        requests = {path.name for path in (self.folder / "cancel").glob("[!.]*")}
        return [task_id for task_id in task_ids if requests & {task_id, _ALL}]

    def at_once_requested(self, task_id: str) -> bool:
        """Say whether a task is to end without a checkpoint."""
        return any(_content(path) == _NOW for path in self._requests(task_id))

    def silent_since(self, task_id: str | None = None) -> float | None:
        """Return when a task's worker last wrote, or who submitted was last there.

        It is a time of the file system's clock (:func:`file_system_time`); None where nothing was
        written.
        """
        path = self._submission_file if task_id is None else self._file(task_id)
        try:
            return path.stat().st_mtime
        except OSError:
            return None

    @property
    def _submission_file(self) -> Path:
        return self.folder / "submission.json"

    def _file(self, task_id: str) -> Path:
        return self.folder / "tasks" / f"{task_id}.json"

    def _requests(self, task_id: str) -> tuple[Path, Path]:
        return self.folder / "cancel" / task_id, self.folder / "cancel" / _ALL


def submissions_folder(results: Path) -> Path:
    """Return where the submissions of a results folder are."""
    return results / "work" / "submissions"


def boards(results: Path) -> list[Board]:
    """Return the boards of all submissions, the oldest first."""
    return [Board(path) for path in sorted(submissions_folder(results).glob("[!.]*"))]


def file_system_time(folder: Path) -> float | None:
    """Return what the clock says that dates files in a folder; None where none can be made."""
    probe = folder / f".{own_mark()}.clock.tmp"
    try:
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)
    except OSError:
        return None


def _read(path: Path, kind: type[Kind]) -> Kind | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _replace(path: Path, content: bytes) -> None:
    """Write a small file at a stroke, beside thousands of others.

    It need not outlive a failure of the machine, and is written too often to wait for the disk.
    """
    temporary = path.with_name(f".{path.name}.{own_mark()}.tmp")
    try:
        try:
            temporary.write_bytes(content)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise refused(ResultsError, path, "written", error) from error
