"""A pool on this machine: one process a slot, each with its own cores or GPU.

A process starts torch once and does one job after the other; one that dies takes no other job
with it, and a new one takes its place.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context

from dgm_bench.engines import Ended
from dgm_bench.engines.board import Board
from dgm_bench.engines.tasks import Job

#: What libraries ask for the number of threads before they start.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class _Slot:
    """A place for one process at a time, and the job that it does."""

    environment: Mapping[str, str]
    pool: ProcessPoolExecutor | None = None
    task_id: str | None = None
    done: Future[None] | None = None


class LocalEngine:
    """Does jobs in processes of this machine.

    Args:
        jobs: How many at once.
        threads: Of each process.
        gpus: What ``CUDA_VISIBLE_DEVICES`` is in each slot, in turn; empty where nothing is set.
    """

    name = "local"

    def __init__(self, jobs: int, threads: int, gpus: Collection[str] = ()) -> None:
        names = list(gpus)
        self.slots: int | None = jobs
        self._slots = [_Slot(_environment(threads, names, index)) for index in range(jobs)]

    def submit(self, job: Job, board: Board) -> None:
        """Start a job in a free slot."""
        slot = next(slot for slot in self._slots if slot.task_id is None)
        if slot.pool is None:
            slot.pool = ProcessPoolExecutor(
                1, get_context("spawn"), _begin, (dict(slot.environment),)
            )
        slot.task_id = job.task.id
        slot.done = slot.pool.submit(_work, job, board, os.getpid())

    def poll(self, seconds: float) -> list[Ended]:
        """Wait for jobs to end."""
        busy = {slot.done: slot for slot in self._slots if slot.done is not None}
        over = wait(busy, seconds, FIRST_COMPLETED).done
        return [_freed(busy[future], future) for future in over]

    def cancel(self, task_ids: Collection[str]) -> None:
        """Nothing to do: workers see the request on the board within a second."""

    def close(self) -> None:
        """End all processes; jobs under way are killed."""
        for slot in self._slots:
            if slot.pool is not None:
                for process in (slot.pool._processes or {}).values():
                    process.terminate()
                slot.pool.shutdown(wait=True, cancel_futures=True)


def _environment(threads: int, gpus: list[str], index: int) -> dict[str, str]:
    shown = {"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} if gpus else {}
    return dict.fromkeys(_THREADS, str(threads)) | shown


def _freed(slot: _Slot, future: Future[None]) -> Ended:
    """Return how a job ended, and make its slot ready for another."""
    task_id, slot.task_id, slot.done = slot.task_id or "", None, None
    error = future.exception()
    if isinstance(error, BrokenProcessPool) and slot.pool is not None:
        slot.pool.shutdown(wait=False)
        slot.pool = None
    return Ended(task_id, None if error is None else f"{type(error).__name__}: {error}")


# ------------------------------------------------------------------------ in the process


def _begin(environment: dict[str, str]) -> None:
    """Set what libraries read when they are loaded; Ctrl-C is for the process that submits."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(job: Job, board: Board, parent: int) -> None:
    from dgm_bench.engines.worker import do

    do(job, board, gone=lambda: None if os.getppid() == parent else "its command is gone")
