"""Gives the groups of a plan their turns, and each the time that the budget has for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from dgm_bench.planner import Plan, PlannedRun, share_of
from dgm_bench.together import groups_of

#: A run that would get less than this share of its expected time is not started.
LEAST_SHARE = 0.2


class Turns:
    """The groups of a plan that wait for their turn, in its order.

    Args:
        plan: Its chosen runs, and the budget they share from now on.
        skip: Told of each run that the budget leaves no time for, with the reason.
        workers: How many groups are done at once.
    """

    def __init__(
        self, plan: Plan, skip: Callable[[PlannedRun, str], None], workers: int = 1
    ) -> None:
        self.waiting = groups_of(plan.chosen)
        self._budget, self._skip, self._workers = plan.budget_seconds, skip, workers
        self._started = time.monotonic()
        self._going: list[tuple[Sequence[PlannedRun], float]] = []

    def next(self) -> tuple[Sequence[PlannedRun], float | None] | None:
        """Return the next group and the seconds that each of its runs may take; None at the end."""
        while self.waiting:
            group = self.waiting.pop(0)
            limit = self._limit(group)
            if limit is None or limit >= LEAST_SHARE * (group[0].seconds or 0.0):
                self._going.append((group, time.monotonic()))
                return group, limit
            for run in group:
                self._skip(run, f"the budget was used up before it: {run.command}")
        return None

    def over(self, group: Sequence[PlannedRun], again: Sequence[PlannedRun] = ()) -> None:
        """Note that a group is no longer under way.

        Args:
            group: As it was returned.
            again: Those of its runs that are to have another turn: the next one.
        """
        self._going = [(other, since) for other, since in self._going if other is not group]
        if again:
            self.waiting.insert(0, list(again))

    def left(self) -> list[PlannedRun]:
        """Return the runs that still wait."""
        return [run for group in self.waiting for run in group]

    def _limit(self, group: Sequence[PlannedRun]) -> float | None:
        """Return the seconds that each run of a group may take; their sum is the group's."""
        if self._budget is None:
            return None
        now = time.monotonic()
        remaining = max(0.0, self._budget - (now - self._started))
        taken, later = _seconds(group), _seconds(self.left())
        going = sum(max(_seconds(group) - (now - since), 0.0) for group, since in self._going)
        # Where all workers end at the same time, this one does so much after this group.
        after = (going + taken + later) / self._workers - taken
        limit = share_of(remaining, taken or None, min(max(after, 0.0), later))
        return None if limit is None else limit / len(group)


def _seconds(runs: Sequence[PlannedRun]) -> float:
    return sum(run.seconds or 0.0 for run in runs)
