"""A pool on this machine: one process a slot, each with its own cores or its part of a GPU.

A process starts torch once and does one job after the other; one that dies takes no other job
with it, and a new one takes its place. What the processes do is in
:mod:`dgm_bench.engines.pool_worker`.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dgm_bench.engines import Ended
from dgm_bench.engines.board import Board
from dgm_bench.engines.pool_worker import OVER
from dgm_bench.engines.tasks import Job
from dgm_bench.errors import ResultsError, refused
from dgm_bench.planner import Need, Room
from dgm_bench.processes import module_paths, thread_variables
from dgm_bench.records import new_run_id

#: With the modules of this process, and its command, which records name.
_PROGRAM = (
    "import json, sys; sys.path[:], sys.argv[:] = json.loads(sys.argv[1]); "
    "from dgm_bench.engines.pool_worker import serve; serve()"
)


class Place(NamedTuple):
    """Where one process runs: on which GPU, and the variables that bind it there.

    Attributes:
        device: Number of the GPU among those that are used; 0 where none is.
        environment: What the process finds besides the variables of this one.
    """

    device: int
    environment: dict[str, str]


def places(jobs: int, threads: int, gpus: Sequence[str] = ()) -> list[Place]:
    """Return where the processes of a pool run: evenly on the GPUs, as :class:`Room` has it.

    Args:
        jobs: How many there are.
        threads: Of each.
        gpus: What ``CUDA_VISIBLE_DEVICES`` is for one GPU, for each of them.
    """
    bound = thread_variables(threads)
    if not gpus:
        return [Place(0, bound)] * jobs
    return [
        Place(job % len(gpus), bound | {"CUDA_VISIBLE_DEVICES": gpus[job % len(gpus)]})
        for job in range(jobs)
    ]


@dataclass
class _Slot:
    """A place, the process there, and the job that it does."""

    place: Place
    process: _Process | None = None
    job: Job | None = None


class LocalEngine:
    """Does jobs in processes of this machine.

    Args:
        jobs: How many at once; further ones wait, as do those for which there is no memory.
        threads: Of each process.
        memory_bytes: Of the machine, or of each GPU.
        gpus: What ``CUDA_VISIBLE_DEVICES`` is for each GPU; the processes share them alike.
    """

    name = "local"

    def __init__(
        self, jobs: int, threads: int, memory_bytes: int = sys.maxsize, gpus: Sequence[str] = ()
    ) -> None:
        self.slots: int | None = jobs
        self._room = Room(jobs, max(min(len(gpus), jobs), 1), memory_bytes)
        self._slots = [_Slot(place) for place in places(jobs, threads, gpus)]
        self._waiting: list[tuple[Job, Board]] = []
        self._dropped: list[Ended] = []
        self._selector = selectors.DefaultSelector()

    def submit(self, job: Job, board: Board) -> None:
        """Start a job in a free slot, or once there is one, and the memory that it needs.

        Raises:
            ResultsError: No process can be started.
        """
        self._waiting.append((job, board))
        self._start_waiting()

    def poll(self, seconds: float) -> list[Ended]:
        """Wait for jobs to end, and let those that wait take their places."""
        if not self._selector.get_map():  # a selector without files would not wait
            time.sleep(seconds)
        ready = self._selector.select(seconds) if self._selector.get_map() else []
        ended = [end for key, _ in ready if (end := self._heard(key.data)) is not None]
        ended, self._dropped = [*self._dropped, *ended], []
        self._start_waiting()
        return ended

    def cancel(self, task_ids: Collection[str]) -> None:
        """End jobs: those that run by SIGTERM, those that wait at once."""
        for job, board in list(self._waiting):
            if job.task.id in task_ids:
                self._waiting.remove((job, board))
                self._dropped.append(Ended(job.task.id))
        for slot in self._slots:
            if slot.process is not None and slot.job is not None and slot.job.task.id in task_ids:
                slot.process.terminate()

    def close(self) -> None:
        """End all processes at once."""
        self._waiting.clear()
        for slot in self._slots:
            self._end(slot)
        self._selector.close()

    def _start_waiting(self) -> None:
        """Start the jobs for which there is room, in order; none waits for one before it."""
        for job, board in list(self._waiting):
            devices = self._room.take(_need(job))
            if devices is not None:
                self._waiting.remove((job, board))
                free = (s for s in self._slots if s.job is None and s.place.device == devices[0])
                self._start(next(free), job, board)

    def _start(self, slot: _Slot, job: Job, board: Board) -> None:
        slot.job = job
        if slot.process is None:
            slot.process = _Process(slot.place.environment, board)
            self._selector.register(slot.process.output, selectors.EVENT_READ, slot)
        slot.process.give(job, board)

    def _heard(self, slot: _Slot) -> Ended | None:
        """Take in what a process says: that its job is over, or by its end that it has died."""
        reason, job, slot.job = None, slot.job, None
        if slot.process is not None and not slot.process.is_done():
            reason = slot.process.how_it_died()
            self._end(slot)
        if job is None:  # it died while it had nothing to do
            return None
        self._room.leave(_need(job), (slot.place.device,))
        return Ended(job.task.id, reason)

    def _end(self, slot: _Slot) -> None:
        if slot.process is not None:
            self._selector.unregister(slot.process.output)
            slot.process.end()
            slot.process = None


def _need(job: Job) -> Need:
    return Need(job.task.memory_bytes or 0)


class _Process:
    """A process that does jobs, and the file that takes what libraries print there.

    Args:
        environment: What it finds besides the variables of this one.
        board: Of the first job; the file is beside it.

    Raises:
        ResultsError: It cannot be started, or the file not be made.
    """

    def __init__(self, environment: Mapping[str, str], board: Board) -> None:
        self._log = board.folder / "logs" / f"{new_run_id()}.log"
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _PROGRAM, json.dumps([module_paths(), sys.argv])],
                    bufsize=0,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env={**os.environ, **environment},
                )
        except OSError as error:
            raise refused(ResultsError, self._log, "written", error) from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self.output = self._process.stdin, self._process.stdout

    def give(self, job: Job, board: Board) -> None:
        """Let it do a job."""
        line = json.dumps(
            {"board": str(board.folder.absolute()), "job": job.model_dump(mode="json")}
        )
        with suppress(BrokenPipeError):  # that it is gone is seen when its answer is read
            self._input.write(line.encode() + b"\n")

    def is_done(self) -> bool:
        """Say whether its job is over; where not, it is gone. Only to be asked when it speaks."""
        return bool(os.read(self.output.fileno(), len(OVER)))

    def terminate(self) -> None:
        """Let it save and leave."""
        self._process.terminate()

    def how_it_died(self) -> str:
        """Return what the system knows of its end, in one line."""
        code = self._process.wait()
        if code == -signal.SIGKILL:
            reason = "killed (out of memory?)"
        elif code < 0:
            reason = f"ended by {signal.Signals(-code).name}"
        else:
            reason = f"ended with exit code {code}"
        return f"{reason}; see {self._log}" if _size(self._log) else reason

    def end(self) -> None:
        """End it, whatever it does; its file stays where it says something."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._input, self.output):
            with suppress(OSError):
                pipe.close()
        if not _size(self._log):
            self._log.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
