"""Finds what an earlier command left on an engine."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from dgm_bench import provenance
from dgm_bench.engines import Engine, LastingEngine
from dgm_bench.engines.board import Board, Submission, boards
from dgm_bench.engines.tasks import Task, Terms
from dgm_bench.paths import PACKAGE
from dgm_bench.processes import is_gone, own_mark


def taken_over(
    engine: Engine, results: Path, terms: Terms, tasks: Collection[Task]
) -> tuple[Board, dict[str, int]]:
    """Return the board to go on with, and its tasks that the engine has, each with its attempt.

    The board is that of the last command that asked for some of the same, with the same code, and
    did not live to see their end; or else a new one.

    Args:
        engine: Takes over the jobs.
        results: The results folder.
        terms: What the tasks share.
        tasks: What is asked for now.
    """
    if isinstance(engine, LastingEngine):
        wanted, code = {task.id for task in tasks}, provenance.source_hash(PACKAGE)
        for board in reversed(boards(results)):
            left = board.submission()
            if left is None or not _is_open(left, engine.name, terms, code):
                continue
            if wanted.intersection(task.id for task in left.tasks):
                board.withdraw_requests()
                return board, engine.adopt(board)
    return Board.new(results), {}


def _is_open(left: Submission, engine: str, terms: Terms, code: str) -> bool:
    """Say whether nobody follows a submission any more that could be followed now.

    Of a command on another machine nothing is known: a cluster has several to log in to.
    """
    same = (left.engine, left.terms, left.source_hash) == (engine, terms, code)
    elsewhere = left.process.rpartition("-")[2] != own_mark().rpartition("-")[2]
    return same and left.ended is None and (elsewhere or is_gone(left.process))
