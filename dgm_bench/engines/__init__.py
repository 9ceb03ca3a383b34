"""Where planned runs are executed: in processes of this machine, on Slurm, or on Ray.

An engine only starts processes. What they do is the same everywhere
(:mod:`dgm_bench.engines.worker`), what they are told and what becomes of it are files
(:mod:`dgm_bench.engines.tasks`, :mod:`dgm_bench.engines.board`), and who follows them is
:mod:`dgm_bench.engines.head`. Nothing here imports torch until a worker begins.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from dgm_bench.engines.board import Board
from dgm_bench.engines.tasks import Job


@dataclass(frozen=True)
class Ended:
    """A job whose process is over, or has gone on to others.

    Attributes:
        task_id: Of its task.
        reason: What the engine knows of a process that died, in one line; None where it ended by
            itself. The outcome of the task is on the board.
    """

    task_id: str
    reason: str | None = None


class Engine(Protocol):
    """Starts workers and says when they are over.

    Attributes:
        name: ``local``, ``slurm`` or ``ray``.
        slots: Jobs that it takes at once; None where the cluster decides and takes any number.
    """

    name: str
    slots: int | None

    def submit(self, job: Job, board: Board) -> None:
        """Start a job, or queue it; its worker writes to the board.

        Raises:
            DgmBenchError: The engine cannot take it, and what to do.
        """

    def poll(self, seconds: float) -> list[Ended]:
        """Wait at most so long for jobs to end; return those that did since the last time."""

    def cancel(self, task_ids: Collection[str]) -> None:
        """End jobs: those that run by SIGTERM, after which they save and leave, others at once."""

    def close(self) -> None:
        """Let go of workers; those that still run are ended at once."""


@runtime_checkable
class LastingEngine(Engine, Protocol):
    """One whose jobs outlive the command that submitted them.

    Attributes:
        handles: Its own name of each task's job, to be kept in the submission.
    """

    handles: dict[str, str]

    def adopt(self, board: Board) -> dict[str, int]:
        """Take over the jobs of an earlier command's board; return its tasks with their attempts.

        Those that are over by now come from :meth:`poll`.
        """
