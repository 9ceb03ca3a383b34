"""Puts small tasks together in one job of a cluster, which starts torch once for all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

from dgm_bench.engines.tasks import Job

#: Of the jobs that could run at once, each gets work this often: the last ones end close together.
ROUNDS = 2

Shape = TypeVar("Shape")


def packed(
    jobs: Iterable[tuple[Shape, Job]], limit: float, slots: int
) -> list[tuple[Shape, list[Job]]]:
    """Return jobs in packs that ask for the same, in their order.

    A pack is full at ``limit`` seconds, or earlier where fewer packs would leave some of ``slots``
    without work. A job of unknown length is alone, and one that is tried again: it may be what its
    pack died of.

    Args:
        jobs: Each with what it asks for.
        limit: Expected seconds of a pack.
        slots: How many packs may run at once.
    """
    given = list(jobs)
    total = sum(job.task.seconds or 0.0 for _, job in given)
    limit = min(limit, total / (ROUNDS * max(slots, 1)))
    by_shape: dict[Shape, list[Job]] = {}
    for shape, job in given:
        by_shape.setdefault(shape, []).append(job)
    return [(shape, pack) for shape, alike in by_shape.items() for pack in _packs(alike, limit)]


def _packs(jobs: Sequence[Job], limit: float) -> list[list[Job]]:
    """Fill one pack after the other; a job that would go over the limit begins the next."""
    packs: list[list[Job]] = []
    used = math.inf
    for job in jobs:
        seconds = job.task.seconds
        taken = math.inf if seconds is None or job.attempt > 1 else seconds
        if used + taken > limit:
            packs.append([])
            used = 0.0
        packs[-1].append(job)
        used += taken
    return packs
