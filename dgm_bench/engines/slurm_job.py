"""What a job of Slurm does: its tasks one after the other, and back to the queue when it is told.

Slurm tells a job by a signal that it will end: SIGUSR2 some time before its limit, SIGTERM when
another job takes its place or somebody cancels it. submitit's own protocol asks for a checkpoint
within the handler of that signal, in the middle of a step. Here the signal is a request like
Ctrl-C: the step ends, the run saves and leaves, and only then submitit sends the job back to the
queue, where the same element of the array goes on from there.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from dgm_bench.engines.board import Board
from dgm_bench.engines.tasks import Job

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

#: Why a job stops: what it was told.
LIMIT, TAKEN = "the job's time limit", "its node is taken back"
_TOLD = {signal.SIGUSR2: LIMIT, signal.SIGTERM: TAKEN}


class Pack:
    """Does tasks in a job of Slurm; what submitit calls."""

    def __call__(self, folder: str, jobs: Sequence[str]) -> None:
        """Do what is left of some tasks.

        Args:
            folder: Of their board.
            jobs: As JSON.
        """
        board, wanted = Board(Path(folder)), list(map(Job.model_validate_json, jobs))
        with _listening() as told:
            from dgm_bench.engines.worker import do  # starts torch: a signal may come meanwhile

            for job in wanted:
                if told() is None and not _over(job, board):
                    state = do(job, board, told)
                    if state.state == "stopped" and not board.cancel_requested(job.task.id):
                        break
        left = [job for job in wanted if not _over(job, board)]
        if left and _is_running():
            _note_waiting(left, board)
            signal.raise_signal(signal.SIGUSR2)

    def checkpoint(self, folder: str, jobs: Sequence[str]) -> DelayedSubmission:
        """Return what the job does when it comes back: submitit asks when it is sent back."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, folder, jobs)


def _over(job: Job, board: Board) -> bool:
    """Say whether a task was dealt with before the job was sent back, or is not wanted any more."""
    state = board.state(job.task.id)
    done = state is not None and state.attempt == job.attempt and state.state in ("done", "failed")
    return done or board.cancel_requested(job.task.id)


def _note_waiting(jobs: Sequence[Job], board: Board) -> None:
    """Say that tasks which were begun are not over, but wait for their job to come back."""
    for job in jobs:
        state = board.state(job.task.id)
        if state is not None and state.attempt == job.attempt:
            board.note(state.model_copy(update={"state": "waiting"}))


@contextmanager
def _listening() -> Iterator[Callable[[], str | None]]:
    """Give what says which signal came first, until the block ends; then submitit's count again."""
    came: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        came.append(number)

    kept = {number: signal.signal(number, hear) for number in _TOLD}
    try:
        yield lambda: _TOLD[signal.Signals(came[0])] if came else None
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _is_running() -> bool:
    """Say whether Slurm still wants this job: one that is cancelled must not be sent back."""
    command = ["squeue", "--noheader", f"--jobs={os.environ['SLURM_JOB_ID']}", "--format=%T"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout.strip() == "RUNNING"
