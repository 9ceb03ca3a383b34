"""The process that is a command's driver on a Ray cluster.

It is one of its own: what Ray prints, how it takes signals, and that it may end the process when
its cluster is lost, is nothing to the command then. When the command is gone, so is this process,
and Ray ends the tasks.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from dgm_bench import __version__, provenance
from dgm_bench.engines import Ended
from dgm_bench.engines.board import Board, Fault, TaskState
from dgm_bench.engines.datasets import digest_of, files_of
from dgm_bench.engines.declared import declared_cells
from dgm_bench.engines.files import Changes, needed_by, take_in
from dgm_bench.engines.ray_node import NodeError, Order, work
from dgm_bench.engines.ray_nodes import Nodes, connected, head_address
from dgm_bench.engines.ray_options import RayOptions, answers
from dgm_bench.engines.tasks import Job
from dgm_bench.errors import DgmBenchError, EngineError, HeldError
from dgm_bench.escaping import one_line
from dgm_bench.paths import PACKAGE
from dgm_bench.workdir import WorkFolder

#: Seconds: between two questions to the cluster's head, until it counts as lost, and that tasks
#: have to end in once they are asked to.
_ASK, _LOST, _LEAVE = 2.0, 20.0, 30.0
#: Seconds that a process of the cluster may take to start.
_START = 60.0


class Inbox:
    """An actor beside the driver: takes in what nodes send, and tells them when to stop."""

    def __init__(self) -> None:
        self._sent: list[tuple[str, int, Changes]] = []
        self._done = 0
        self._ends: set[str] = set()
        self._wanted: list[str] = []
        self._given: dict[str, list[Any]] = {}

    def tell(self, task_id: str, attempt: int, changes: Changes) -> bool:
        """Take in what changed; say whether the task is to stop."""
        self._sent.append((task_id, attempt, changes))
        return task_id in self._ends

    def take(self, done: int) -> tuple[list[tuple[str, int, Changes]], list[str]]:
        """Return what came, and which files are wanted.

        Args:
            done: How many of all that came were taken in, and need not be kept.
        """
        del self._sent[: done - self._done]
        self._done = done
        wanted, self._wanted = self._wanted, []
        return list(self._sent), wanted

    def file(self, place: str) -> list[Any]:
        """Return a reference to a file of the data root in a list; an empty one until it comes."""
        if place not in self._given:
            self._given[place] = []
            self._wanted.append(place)
        return self._given[place]

    def give(self, place: str, reference: list[Any]) -> None:
        """Take in a reference to a file that is wanted."""
        self._given[place] = reference

    def end(self, task_ids: Collection[str]) -> None:
        """Tell tasks to stop, at their next word."""
        self._ends.update(task_ids)


# ------------------------------------------------------------------------ what the command calls


_driver: Driver | None = None


def begin(parent: int, log: Path, environment: Mapping[str, str]) -> None:
    """Make this process the driver's: quiet, deaf to Ctrl-C, and gone when its parent is.

    Args:
        parent: Its number.
        log: Where what Ray prints goes.
        environment: Settings of Ray, which it reads when it is loaded.
    """
    os.setsid()
    os.environ.update(environment)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def connect(options: RayOptions, threads: int, device: str) -> int:
    """Connect to the cluster; return how many tasks it has room for.

    Raises:
        UsageError: It cannot be used, and why.
    """
    global _driver
    _driver = Driver(options, threads, device)
    return _driver.nodes.room


def ask(method: str, *arguments: object) -> Any:  # noqa: ANN401  that method's own
    """Call a method of the driver."""
    return getattr(_driver, method)(*arguments)


# ------------------------------------------------------------------------ the driver


@dataclass
class _Submitted:
    """A job that Ray has, with the locks of its runs.

    ``heard``: whether its worker sent anything yet; ``leave_by``: when it has to have ended.
    """

    job: Job
    board: Board
    held: ExitStack
    task: Any = None
    heard: bool = False
    leave_by: float | None = None


class Driver:
    """Submits jobs to a cluster, and takes in what their workers send.

    Args:
        options: Which cluster, and how it is used.
        threads: Of each task, a CPU each.
        device: ``cpu`` or ``cuda``.

    Raises:
        UsageError: The cluster cannot be used, and why.
    """

    def __init__(self, options: RayOptions, threads: int, device: str) -> None:
        self.options, self.threads = options, threads
        self.source_hash = provenance.source_hash(PACKAGE)
        self.ray = connected(options)
        self.nodes = Nodes(self.ray, options, threads, device)
        self.head, self._asked, self._silent = head_address(self.ray, options), 0.0, 0.0
        here = {"scheduling_strategy": self.nodes.on(self.nodes.own), "num_cpus": 0}
        self.inbox = self.ray.remote(Inbox).options(**here).remote()
        self._require_inbox()
        self.work = self.ray.remote(work)
        self.jobs: dict[str, _Submitted] = {}
        self.unfit: dict[str, set[str]] = {}
        self.files: dict[str, Path] = {}
        self._over: list[Ended] = []
        self._taken = 0
        self._given: dict[str, Any] = {}

    def _require_inbox(self) -> None:
        """Refuse a cluster that cannot start the process that takes in files.

        Raises:
            EngineError: It cannot.
        """
        try:
            self.ray.get(self.inbox.take.remote(0), timeout=_START)
        except self.ray.exceptions.RayError as error:
            why = one_line(str(error).rpartition("\n")[2] or type(error).__name__)
            remedy = "see its logs; the same command goes on"
            raise EngineError(
                "Ray", f"starts no process beside this one ({why})", remedy
            ) from error

    # ---------------------------------------------------------------- the cluster

    def _is_silent(self) -> bool:
        """Say whether the cluster's head does not answer now; asked now and then.

        Raises:
            EngineError: It has not for long, or this machine's part of the cluster is gone.
        """
        now = time.monotonic()
        if now - self._asked < _ASK:
            return self._silent > 0
        self._asked = now
        if answers(self.head, _ASK):
            self._silent = self._silent or now
            if now - self._silent > _LOST:
                raise _lost(f"its head at {self.head} does not answer any more")
            return True
        self._silent = 0.0
        if not self.nodes.look():
            raise _lost("its processes on this machine are gone")
        return False

    # ---------------------------------------------------------------- to the cluster

    def submit(self, job: Job, board: Board) -> None:
        """Queue a job; what cannot be done is told on the board."""
        submitted = _Submitted(job, board, ExitStack())
        state = TaskState(task=job.task.id, attempt=job.attempt, state="failed")
        try:
            self._hold(submitted)
            submitted.task = self._start(job, board)
            self.jobs[job.task.id] = submitted
            return
        except HeldError as error:
            skipped = (job.task.cells[0], f"{error.reason}; {error.remedy}")
            state.state, state.skipped = "done", [skipped] * len(job.task.seeds)
        except DgmBenchError as error:
            state.fault = Fault.of(error)
        submitted.held.close()
        board.note(state)
        self._over.append(Ended(job.task.id))

    def _hold(self, submitted: _Submitted) -> None:
        """Hold the runs of a job: nobody else is to do them, here or on another engine."""
        task, results = submitted.job.task, submitted.job.terms.results
        for seed in task.seeds:
            folder = WorkFolder(results, task.recipe_hash, seed)
            submitted.held.enter_context(folder.locked())

    def _start(self, job: Job, board: Board) -> Any:  # noqa: ANN401  a reference of Ray
        terms = job.terms.model_copy(update={"threads": self.threads})
        order = Order(
            job=job.model_copy(update={"terms": terms}),
            submission=board.id,
            version=__version__,
            source_hash=self.source_hash,
            command=tuple(sys.argv),
            environment={k: v for k, v in os.environ.items() if k in _PASSED_ON},
            data=self._data(job),
            storage=self.options.storage,
            scratch=self.options.scratch,
        )
        unfit = self.unfit.get(job.task.id, ())
        asked = self.nodes.asked_for(job.task.cells[0], job.task.memory_bytes, unfit)
        needed = needed_by(terms.results, job.task)
        return self.work.options(max_retries=0, **asked).remote(order, self.inbox, needed)

    def _data(self, job: Job) -> dict[str, str]:
        """Return what a job reads of the data root, by place, with the files' SHA-256."""
        if self.options.address in (None, "local"):
            return {}
        recipe = declared_cells(job.task)[0].recipe
        found = files_of(recipe, job.terms.data_root) if recipe is not None else {}
        self.files |= found
        return {place: digest_of(path) or "" for place, path in found.items()}

    # ---------------------------------------------------------------- from the cluster

    def poll(self, seconds: float) -> list[Ended]:
        """Take in what workers sent; return the jobs that are over.

        Raises:
            EngineError: The cluster is lost.
            ResultsError: The results folder cannot be written.
        """
        if self._is_silent():
            time.sleep(seconds)
            return []
        tasks = {submitted.task: task_id for task_id, submitted in self.jobs.items()}
        if not tasks or self._over:
            time.sleep(0 if self._over else seconds)
            over = []
        else:
            self.ray.wait(list(tasks), timeout=seconds)
            over, _ = self.ray.wait(list(tasks), num_returns=len(tasks), timeout=0)
        if not self._take_in():
            return []
        self.cancel([i for i, one in self.jobs.items() if one.board.cancel_requested(i)])
        ended, self._over = self._over, []
        return ended + [self._conclude(tasks[task]) for task in over]

    def _take_in(self) -> bool:
        """Take in what workers sent; say whether it could be asked for."""
        errors = self.ray.exceptions
        try:
            sent, wanted = self.ray.get(self.inbox.take.remote(self._taken), timeout=_LOST)
        except errors.GetTimeoutError:
            return False
        except errors.RayError as error:
            raise _lost("its process that takes in files is gone") from error
        for task_id, attempt, changes in sent:
            submitted = self.jobs.get(task_id)
            if submitted is not None and submitted.job.attempt == attempt:
                submitted.heard = True
                take_in(submitted.job.terms.results, changes)
            self._taken += 1
        for place in wanted:
            self._given[place] = self.ray.put(self.files[place].read_bytes())
            self.inbox.give.remote(place, [self._given[place]])
        return True

    def _conclude(self, task_id: str) -> Ended:
        submitted = self.jobs.pop(task_id)
        submitted.held.close()
        try:
            self.ray.get(submitted.task)
        except self.ray.exceptions.RayError as error:
            return Ended(task_id, self._reason(task_id, error))
        return Ended(task_id)

    def _reason(self, task_id: str, error: Exception) -> str:
        """Return in one line how a task's process ended."""
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, NodeError):
            self.unfit.setdefault(task_id, set()).add(cause.node)
            return cause.reason
        known = _KNOWN.get(type(cause).__name__)
        first = str(cause).partition("\n")[0]
        return known or one_line(f"{type(cause).__name__}: {first}")

    def cancel(self, task_ids: Collection[str]) -> None:
        """Let workers save and leave; jobs that wait, and those that do not leave, end at once."""
        now, new = time.monotonic(), []
        for task_id in task_ids:
            submitted = self.jobs.get(task_id)
            if submitted is None:
                continue
            if submitted.leave_by is None:
                new.append(task_id)
                submitted.leave_by = now + _LEAVE if submitted.heard else now
            if now >= submitted.leave_by or submitted.board.at_once_requested(task_id):
                self.ray.cancel(submitted.task, force=True)
        if new:
            self.inbox.end.remote(new)

    def close(self) -> None:
        """Let go of the cluster; end one that was started here."""
        for submitted in self.jobs.values():
            submitted.held.close()
        self.ray.shutdown()


#: Settings of the head that its workers have too.
_PASSED_ON = ("DGM_BENCH_CHECKPOINT_SECONDS",)
#: Ray's errors, in our words.
_KNOWN = {
    "NodeDiedError": "its node was lost",
    "WorkerCrashedError": "its process was killed",
    "OutOfMemoryError": "its node ran out of memory",
    "TaskCancelledError": "it did not leave in time",
}


def _lost(why: str) -> EngineError:
    return EngineError("Ray", why, "start it again; then the same command goes on")
