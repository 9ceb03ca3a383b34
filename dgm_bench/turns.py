"""Gives the groups of a plan their turns, and each the time that the budget has for it.

What runs take is measured as they end; what is left is then planned again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dgm_bench.planner import (
    LEAST_SHARE,
    PLANNED_SHARE,
    Plan,
    PlannedRun,
    Unit,
    duration,
    share_of,
    spent_seconds,
    sureness,
    urgency,
)
from dgm_bench.records import RunRecord
from dgm_bench.together import groups_of
from dgm_bench.wording import counted

#: As if so many seconds of runs had taken what was expected: a few short runs prove little.
PRIOR_SECONDS = 30.0
#: The rest is planned again after this share of the budget: not for each small change.
AGAIN_AFTER = 0.1
#: It is said what changed after this share of the budget, for all changes together.
TOLD_AFTER = 0.2
#: A run may take so many times what is expected of it, and a share of the budget more, before it
#: is cut short for those after it.
OVERRUN, OVERRUN_SHARE = 3.0, 0.05

Group = Sequence[PlannedRun]


@dataclass
class Pace:
    """How many times as long runs take as was expected, by those that ended."""

    expected: float = PRIOR_SECONDS
    taken: float = PRIOR_SECONDS

    @property
    def factor(self) -> float:
        """What expected seconds are multiplied by."""
        return self.taken / self.expected

    def note(self, expected: float, taken: float, *, whole: bool) -> None:
        """Take in a run.

        Args:
            expected: Seconds.
            taken: Seconds.
            whole: Whether it ended by itself; of one cut short it is known that it takes longer.
        """
        if whole or taken > self.factor * expected:
            self.expected += expected
            self.taken += taken


class Turns:
    """The groups of a plan that wait for their turn, in its order.

    Args:
        plan: Its chosen runs, and the budget they share from now on.
        skip: Told of each run that the budget leaves no time for, with the reason.
        workers: How many groups are done at once.
        tell: Told in one line what is planned anew, or in an empty one where that was told a moment
            ago, and how many runs there are then.
    """

    def __init__(
        self,
        plan: Plan,
        skip: Callable[[PlannedRun, str], None],
        workers: int = 1,
        tell: Callable[[str, int], None] = lambda text, runs: None,
    ) -> None:
        self.waiting: list[Group] = list(groups_of(plan.chosen))
        self.spare: list[Group] = list(groups_of([run for run in plan.left_out if run.waits]))
        self._reasons = {id(run): run.reason for run in plan.left_out}
        self._runs, self._tell = len(plan.chosen), tell
        self._budget, self._skip, self._workers = plan.budget_seconds, skip, workers
        self._started = self._planned = time.monotonic()
        self._going: list[tuple[Group, float]] = []
        self._pace = Pace()
        self._told, self._untold = -math.inf, 0

    def next(self) -> tuple[Group, float | None] | None:
        """Return the next group and the seconds that each of its runs may take; None at the end."""
        self._plan_again()
        out = 0
        while self.waiting:
            group = self.waiting.pop(0)
            limit = self._limit(group)
            if limit is None or limit >= LEAST_SHARE * self._expected(group) / len(group):
                self._going.append((group, time.monotonic()))
                self._say(out, 0)
                return group, limit
            self.spare.append(group)
            out += len(group)
        self._say(out, 0)
        return None

    def over(self, group: Group, again: Group = (), done: Iterable[RunRecord] = ()) -> None:
        """Note that a group is no longer under way.

        Args:
            group: As it was returned.
            again: Those of its runs that are to have another turn: the next one.
            done: Records that this command made, of these runs among others.
        """
        self._going = [(other, since) for other, since in self._going if other is not group]
        if again:
            self.waiting.insert(0, list(again))
        if len(group) == 1 and group[0].seconds:  # seeds together take less than they would alone
            run = (group[0].chosen_recipe.content_hash, group[0].seed)
            for record in done:
                if (record.recipe_hash, record.seed) == run and not record.modified:
                    whole = not record.outcome.cut_short
                    self._pace.note(group[0].seconds, spent_seconds(record), whole=whole)

    def left(self) -> list[PlannedRun]:
        """Return the runs that still wait."""
        return [run for group in self.waiting for run in group]

    def close(self) -> None:
        """Tell which runs the budget had no time for, and why."""
        for run in (run for group in self.spare for run in group):
            self._skip(run, self._reasons.get(id(run)) or self._too_late(run))
        self.spare.clear()

    def _too_late(self, run: PlannedRun) -> str:
        needs, why = self._expected([run]), "the budget was used up before it"
        if LEAST_SHARE * needs > 1:
            why = f"it needs about {duration(needs)}, and a fifth of that was not left"
        return f"{why}: {run.command}"

    # ---------------------------------------------------------------- planning again

    def _plan_again(self) -> None:
        """Leave runs out that there is no time for any more, or take others in; say so."""
        now = time.monotonic()
        early = self._budget is not None and now < self._planned + AGAIN_AFTER * self._budget
        if self._budget is None or (early and self.waiting) or not (self.waiting or self.spare):
            return
        self._planned = now
        out = self._leave_out(self._free())
        took = 0 if out else self._take_in(PLANNED_SHARE * self._free())
        self._say(out, took)

    def _say(self, out: int, took: int) -> None:
        if not (out or took):
            return
        self._runs += took - out
        self._untold += took - out
        now, text = time.monotonic(), ""
        if now >= self._told + TOLD_AFTER * (self._budget or 0.0):
            self._told = now
            out, took, self._untold = max(-self._untold, 0), max(self._untold, 0), 0
            what = f"{counted(out, 'run')} left out" if out else f"{counted(took, 'run')} added"
            factor = f"{self._pace.factor:.1f}"
            pace = "" if factor == "1.0" else f"runs take {factor} times as long as expected, "
            text = f"planned again: {pace}{what}" if out or took else ""
        self._tell(text, self._runs)

    def _free(self) -> float:
        """Return the seconds that all workers have until the end of the budget."""
        now = time.monotonic()
        return self._workers * self._remaining(now) - self._of_others(now)

    def _leave_out(self, free: float) -> int:
        """Leave out the last in urgency until the rest ends in time; return how many runs."""
        out = 0
        while len(self.waiting) > 1 and self._expected(self.left()) > free:
            last = max(self.waiting, key=lambda group: urgency(group[0]))
            self.waiting.remove(last)
            self.spare.append(last)
            out += len(last)
        return out

    def _take_in(self, free: float) -> int:
        """Take in what surely ends in time, the first in urgency first; return how many runs."""
        most, took = PLANNED_SHARE * self._remaining(time.monotonic()), 0
        for group in sorted(self.spare, key=lambda group: urgency(group[0])):
            needs = self._expected(group)
            known = all(run.seconds is not None for run in group)
            if known and needs <= most and self._expected(self.left()) + needs <= free:
                self.spare.remove(group)
                self.waiting.append(group)
                took += len(group)
        if took:
            self.waiting.sort(key=lambda group: sureness(Unit(tuple(group))))
        return took

    # ---------------------------------------------------------------- seconds

    def _limit(self, group: Group) -> float | None:
        """Return the seconds that each run of a group may take; their sum is the group's."""
        if self._budget is None:
            return None
        now = time.monotonic()
        taken, later = self._expected(group), self._expected(self.left())
        # Where all workers end at the same time, this one does so much after this group.
        after = (self._of_others(now) + taken + later) / self._workers - taken
        remaining = self._remaining(now)
        limit = share_of(remaining, taken or None, min(max(after, 0.0), later))
        if limit is not None:  # what begins is to end: others are left out in its place
            most = OVERRUN * taken + OVERRUN_SHARE * self._budget
            limit = max(limit, min(most, remaining))
        return None if limit is None else limit / len(group)

    def _remaining(self, now: float) -> float:
        return max(0.0, (self._budget or 0.0) - (now - self._started))

    def _of_others(self, now: float) -> float:
        """Return the seconds that what is under way still takes."""
        left = (self._expected(group) - (now - since) for group, since in self._going)
        return sum(max(seconds, 0.0) for seconds in left)

    def _expected(self, runs: Group) -> float:
        return self._pace.factor * sum(run.seconds or 0.0 for run in runs)
