"""Boards of commands that are over: those that tell nothing any more are removed.

A command that was killed leaves its board. Its workers of the local pool see that it is gone, save
and stop; jobs of a cluster go on by themselves.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dgm_bench.context import RunContext
from dgm_bench.engines.board import (
    ENDED,
    Board,
    Submission,
    boards,
    file_system_time,
    submissions_folder,
)
from dgm_bench.processes import is_gone

#: Boards that are kept of submissions that ended with something to look up, the newest.
KEPT = 5
#: Seconds after which a board is over that nobody writes to, and whose machine cannot be asked.
_SILENCE = 24 * 3600.0
#: The same where jobs may wait in a queue, and where the same command takes in what became of them.
_LONG_SILENCE = 30 * _SILENCE
#: Seconds that workers of a command that is gone may take to save.
PATIENCE = 20.0
_PAUSE = 0.2


def tidy(results: Path) -> None:
    """Remove the boards of submissions that are over; several commands may do so at once.

    Args:
        results: The results folder.
    """
    found = [(board, board.submission()) for board in boards(results)]
    ended = [board for board, submission in found if submission and submission.ended]
    for board in ended[:-KEPT]:
        board.remove()
    for board, submission in found:
        if (submission is None or not submission.ended) and _is_over(board, submission):
            board.remove()


def wait_for_workers(context: RunContext) -> None:
    """Let workers on this machine whose command was killed save and stop before their runs go on.

    Args:
        context: Its results folder, who is told of the wait, and who ends it.
    """
    ends = time.monotonic() + PATIENCE
    told = False
    while there := list(_orphans(context.results)):
        if time.monotonic() >= ends or context.control.stop_reason() is not None:
            return
        if not told:
            told, many = True, len(there) > 1
            what = f"{len(there)} processes of an earlier command" if many else "a process of one"
            context.reporter.message(f"waiting for {what} that is gone to save")
        time.sleep(_PAUSE)


def _orphans(results: Path) -> Iterator[str]:
    """Yield the processes of the local pool here that are still there without their command."""
    for board in boards(results):
        submission = board.submission()
        if submission is None or submission.engine != "local" or not is_gone(submission.process):
            continue
        for state in board.states():
            if state.state == "running" and not is_gone(state.mark):
                yield state.mark


def _is_over(board: Board, submission: Submission | None) -> bool:
    """Say whether nobody writes to a board any more."""
    if submission is not None and submission.engine == "slurm":  # its jobs may be still to come
        return _is_silent(board, _LONG_SILENCE)
    if submission is None or not is_gone(submission.process):
        return _is_silent(board)
    if submission.engine == "ray":  # its cluster ends the tasks of a command that is gone
        return True
    gone = all(state.state in ENDED or is_gone(state.mark) for state in board.states())
    return gone or _is_silent(board)


def _is_silent(board: Board, seconds: float = _SILENCE) -> bool:
    """Say whether nothing was written to a board so long, by the clock of its file system."""
    now, newest = file_system_time(submissions_folder(board.folder.parents[2])), 0.0
    for path in (board.folder, *board.folder.rglob("*")):
        with suppress(OSError):
            newest = max(newest, path.stat().st_mtime)
    return now is not None and now - newest > seconds
