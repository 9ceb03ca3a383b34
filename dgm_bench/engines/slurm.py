"""Planned runs as jobs of Slurm, through submitit: one array for all that ask for the same.

Jobs are on their own: they write their records and states themselves, and outlive the command that
submitted them. The same command again takes over what is still queued or running.
"""

from __future__ import annotations

import getpass
import math
import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from dgm_bench.engines import Ended
from dgm_bench.engines.board import ENDED, Board, TaskState
from dgm_bench.engines.packing import packed
from dgm_bench.engines.slurm_job import Pack
from dgm_bench.engines.slurm_nodes import (
    Partition,
    Shape,
    SlurmOptions,
    ask,
    find_partition,
    require_shared,
    shape_of,
)
from dgm_bench.engines.tasks import Job
from dgm_bench.errors import UsageError
from dgm_bench.extras import needing
from dgm_bench.processes import thread_variables
from dgm_bench.sealed import write_atomically

#: Seconds between two questions to Slurm, and for each thousand of jobs.
_PAUSE, _PAUSE_OF_THOUSAND = 2.0, 2.0
#: States of jobs that do not come back; those of a preempted one do.
_FINAL = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "TIMEOUT",
}
#: How often a job may be sent back to the queue at its time limit.
_TIMES_BACK = 10_000
#: Of what is kept where ``SLURM_`` variables of a surrounding job are hidden from a new one.
_KEPT = ("SLURM_CONF", "SLURM_JWT")


class _Array(BaseModel):
    """Jobs that were submitted together.

    Attributes:
        name: Of the jobs; no others have it.
        packs: Tasks of each job, with their attempts.
        ids: Of the jobs; empty until Slurm has answered.
    """

    name: str
    packs: list[list[tuple[str, int]]]
    ids: list[str] = []


class _Arrays(BaseModel):
    arrays: list[_Array] = []


@dataclass
class _Slot:
    """A job of Slurm: the attempts at its tasks, how it was last seen, and how often as over."""

    tasks: dict[str, int]
    state: str
    final: int = 0


class SlurmEngine:
    """Does jobs on a cluster.

    Args:
        options: What they ask for.
        most: Jobs at once; None for as many as the cluster has room for.

    Raises:
        UsageError: submitit or Slurm is not here, or the partition does not exist.
    """

    name = "slurm"

    def __init__(self, options: SlurmOptions, most: int | None = None) -> None:
        _require_submitit()
        self.slots: int | None = None
        self.options, self.most = options, most
        self.partition: Partition = find_partition(options.partition)
        self.handles: dict[str, str] = {}
        self._waiting: list[tuple[Shape, Job]] = []
        self._let_go: list[Ended] = []
        self._jobs: dict[str, _Slot] = {}
        self._arrays = _Arrays()
        self._board: Board | None = None
        self._asked, self._devices = 0.0, 1

    # ------------------------------------------------------------------------- the interface

    def submit(self, job: Job, board: Board) -> None:
        """Take a job; it goes to Slurm with all others at the next :meth:`poll`.

        Raises:
            UsageError: No node has what it needs, or none can see the results.
        """
        if self._board is None:
            require_shared(job.terms.results, self.partition)
        self._board = board
        self._devices = job.terms.devices
        shape = shape_of(job.task, job.terms, self.options)
        self.partition.require(shape, job.task.cells[0])
        self.partition.time(job.task.seconds, self.options)
        self._waiting.append((shape, job))

    def poll(self, seconds: float) -> list[Ended]:
        """Submit what waits, then ask Slurm now and then which jobs are over."""
        if self._waiting:
            self._flush()
        if self._let_go:
            ended, self._let_go = self._let_go, []
            return ended
        pause = _PAUSE + _PAUSE_OF_THOUSAND * len(self._jobs) / 1000
        if time.monotonic() < self._asked + pause:
            time.sleep(seconds)
            return []
        states = self._states()
        self._asked = time.monotonic()
        return [] if states is None else self._over(states)

    def cancel(self, task_ids: Collection[str]) -> None:
        """Take jobs out of the queue; those that run see the request on the board."""
        wanted = set(task_ids)
        self._let_go += [Ended(job.task.id) for _, job in self._waiting if job.task.id in wanted]
        self._waiting = [(shape, job) for shape, job in self._waiting if job.task.id not in wanted]
        states = self._states() or {}
        ids = [
            job_id
            for job_id, slot in self._jobs.items()
            if states.get(job_id) == "PENDING" and wanted.issuperset(slot.tasks)
        ]
        for place in range(0, len(ids), 500):
            # Its --state=PENDING would take a whole array for one of its jobs.
            subprocess.run(["scancel", *ids[place : place + 500]], capture_output=True, check=False)

    def close(self) -> None:
        """Nothing to do: jobs go on, and the same command takes them over."""

    def adopt(self, board: Board) -> dict[str, int]:
        """Take over the jobs of an earlier command; return its tasks, each with its attempt."""
        self._board = board
        try:
            self._arrays = _Arrays.model_validate_json(self._file(board).read_bytes())
        except (OSError, ValidationError):
            return {}
        for array in self._arrays.arrays:
            array.ids = array.ids or _ids_of(array)
            self._take(array, "")
        return {
            task: attempt for slot in self._jobs.values() for task, attempt in slot.tasks.items()
        }

    # ---------------------------------------------------------------------------- submitting

    def _flush(self) -> None:
        """Submit all that waits; what Slurm does not take is left.

        Raises:
            UsageError: It does not take something.
        """
        waiting, self._waiting = self._waiting, []
        try:
            self._submit_all(waiting)
        except UsageError:
            tasks = {job.task.id for _, job in waiting}
            taken = {task for slot in self._jobs.values() for task in slot.tasks}
            self._let_go += [Ended(task) for task in tasks - taken]
            raise

    def _submit_all(self, waiting: Sequence[tuple[Shape, Job]]) -> None:
        assert self._board is not None
        room = {shape: self.partition.room(shape) for shape, _ in waiting}
        slots = min(self.most or sys.maxsize, max(room.values()))
        packs = packed(waiting, self.options.pack, slots)
        step = _most_in_array()
        for shape in room:
            alike = [pack for asked, pack in packs if asked == shape]
            for start in range(0, len(alike), step):
                self._submit(shape, alike[start : start + step], self._board)

    def _submit(self, shape: Shape, packs: Sequence[Sequence[Job]], board: Board) -> None:
        """Submit one array; what is in it is written down before, as this process may be killed."""
        name = f"dgm-bench-{board.id}-{len(self._arrays.arrays)}"
        tasks = [[(job.task.id, job.attempt) for job in pack] for pack in packs]
        array = _Array(name=name, packs=tasks)
        self._arrays.arrays.append(array)
        self._save(board)
        array.ids = self._ask_for(name, shape, packs, board)
        self._save(board)
        self._take(array, "PENDING")

    def _ask_for(
        self, name: str, shape: Shape, packs: Sequence[Sequence[Job]], board: Board
    ) -> list[str]:
        """Return the ids that Slurm gives to the jobs of an array.

        Raises:
            UsageError: It takes none, and why.
        """
        from submitit.core.utils import FailedJobError, FailedSubmissionError
        from submitit.slurm.slurm import SlurmExecutor

        logs, python = _logs(board), self.options.python
        executor = SlurmExecutor(logs, max_num_timeout=_TIMES_BACK, python=python)
        longest = max(sum(job.task.seconds or 0.0 for job in pack) for pack in packs)
        executor.update_parameters(**self._parameters(name, shape, longest))
        folders = [str(board.folder.absolute())] * len(packs)
        messages = [[job.model_dump_json() for job in pack] for pack in packs]
        try:
            with _hiding_own_job():
                jobs = executor.map_array(Pack(), folders, messages)
        except (FailedJobError, FailedSubmissionError) as error:
            said = [line for line in str(error).splitlines() if "error:" in line] or [str(error)]
            reason = said[-1].rpartition("error:")[2].strip()
            remedy = "see [slurm] in dgm-bench.toml, --partition and --engine-option"
            raise UsageError("sbatch", reason, remedy) from error
        return [job.job_id for job in jobs]

    def _parameters(self, name: str, shape: Shape, seconds: float) -> dict[str, Any]:
        """Return what submitit gives to sbatch.

        Args:
            name: Of the jobs.
            shape: What each asks for.
            seconds: What the longest is expected to take.
        """
        options = self.options
        keys = ("partition", "account", "qos", "constraint")
        named = {key: value for key in keys if (value := getattr(options, key)) is not None}
        bound = thread_variables(max(1, shape.cpus // self._devices))
        threads = [f"export {name}={count}" for name, count in bound.items()]
        return named | {
            "job_name": name,
            "time": max(1, int(self.partition.time(seconds, options) // 60)),
            "nodes": 1,
            "ntasks_per_node": 1,
            "cpus_per_task": shape.cpus,
            "gpus_per_node": shape.gpus or None,
            "mem": f"{math.ceil(shape.memory / 2**20)}M",
            "signal_delay_s": int(options.signal_delay),
            "setup": [*threads, *options.setup],
            # Newer versions of srun do not take over what sbatch was asked for.
            "srun_args": [f"--cpus-per-task={shape.cpus}"],
            "array_parallelism": self.most or sys.maxsize,
            "additional_parameters": {"requeue": True, **options.sbatch},
        }

    def _take(self, array: _Array, state: str) -> None:
        """Follow the jobs of an array; a task of theirs is no longer followed elsewhere."""
        for job_id, tasks in zip(array.ids, array.packs, strict=False):
            for task, _ in tasks:
                if (before := self._jobs.get(self.handles.get(task, ""))) is not None:
                    del before.tasks[task]
                self.handles[task] = job_id
            self._jobs[job_id] = _Slot(dict(tasks), state)

    def _save(self, board: Board) -> None:
        write_atomically(self._file(board), self._arrays.model_dump_json().encode())

    def _file(self, board: Board) -> Path:
        return board.folder / "slurm.json"

    # ----------------------------------------------------------------------------- following

    def _states(self) -> dict[str, str] | None:
        """Return the state of each job that Slurm knows of, by its id; None without an answer."""
        try:
            shown = ask("squeue", "-h", "-r", "-t", "all", "-u", getpass.getuser(), "-o", "%i|%T")
        except UsageError:  # its controller is away for now
            return None
        pairs = (line.split("|") for line in shown.splitlines())
        return {job_id: state for job_id, state in pairs if job_id in self._jobs}

    def _over(self, states: Mapping[str, str]) -> list[Ended]:
        """Return the tasks of jobs that were seen to be over twice: one may be on its way back."""
        ended = []
        for job_id, slot in list(self._jobs.items()):
            slot.state = states.get(job_id) or _gone(slot.state)
            over = slot.state in _FINAL or not slot.state
            slot.final = slot.final + 1 if over else 0
            if slot.final > 1 or slot.state == "COMPLETED":
                del self._jobs[job_id]
                ended += [self._ended(job_id, slot, task) for task in slot.tasks]
        return ended

    def _ended(self, job_id: str, slot: _Slot, task_id: str) -> Ended:
        """Say how a task ended; one whose job somebody cancelled was stopped, and did not die."""
        assert self._board is not None
        state, attempt = self._board.state(task_id), slot.tasks[task_id]
        if state is None or state.attempt != attempt:
            state = TaskState(task=task_id, attempt=attempt)
        if slot.state == "CANCELLED" and state.state not in ENDED:
            state.state, state.stop_reason = "stopped", f"job {job_id} was cancelled"
            self._board.note(state)
        return Ended(task_id, f"Slurm job {job_id}: {last_words(_logs(self._board), job_id)}")


def _gone(state: str) -> str:
    """Return the state of a job that Slurm no longer knows, as it was last seen.

    A job of an array that is cancelled before it began is forgotten at once.
    """
    if state == "PENDING":
        return "CANCELLED"
    return state if state in _FINAL else ""


def _require_submitit() -> None:
    with needing("--engine slurm"):
        import submitit  # noqa: F401


def _logs(board: Board) -> Path:
    """Return the folder of the jobs' logs."""
    return board.folder / "slurm"


def last_words(folder: Path, job_id: str) -> str:
    """Return the last line that a job wrote to its standard error."""
    path = folder / f"{job_id}_0_log.err"
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        return f"it wrote no log below {folder}; its node may not see that folder"
    return lines[-1].strip() if lines else "it ended without a word"


def _most_in_array() -> int:
    """Return how many jobs an array may have."""
    shown = ask("scontrol", "show", "config").splitlines()
    sizes = [line.partition("=")[2] for line in shown if line.startswith("MaxArraySize")]
    return max(1, int(sizes[0]) - 1) if sizes else 1000


def _ids_of(array: _Array) -> list[str]:
    """Return the ids of jobs by their name: this process's forerunner did not live to note them."""
    found = ask("squeue", "-h", "-t", "all", "-n", array.name, "-o", "%F").split()
    many = len(array.packs) > 1
    return (
        [f"{found[0]}_{i}" if many else found[0] for i in range(len(array.packs))] if found else []
    )


@contextmanager
def _hiding_own_job() -> Iterator[None]:
    """Hide the variables of a job in which this command itself may run: sbatch would take them."""
    from submitit.helpers import clean_env

    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    with clean_env():
        os.environ.update(kept)
        yield
