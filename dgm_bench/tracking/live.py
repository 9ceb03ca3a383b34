"""What the process that logs has heard of runs under way and not yet logged."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dgm_bench.records import Data
from dgm_bench.tracking.begun import Begun, Told
from dgm_bench.tracking.tracker import Tracker

#: Seconds between two batches, and after one that failed: they double up to the longest.
BATCH_SECONDS, LONGEST_PAUSE = 1.0, 60.0
#: Seconds between two measurements of the machine.
MACHINE_SECONDS = 10.0
#: How many messages of a run are kept while its tracker takes none: the newest ones.
MOST_KEPT = 5000
#: Numbers between two validations are shown each second at first, later in ever longer pauses:
#: a day of them is about as many as a thousand.
FIRST_PAUSE, SHARE_OF_AGE = 1.0, 1 / 200


@dataclass
class _Heard:
    begun: Begun
    told: deque[Told] = field(default_factory=lambda: deque(maxlen=MOST_KEPT))
    data: Data | None = None
    shown: int = 0

    def take(self, told: Told) -> None:
        """Take in rows; of those between two validations some are left out."""
        age = (told.time - self.begun.started) / 1000
        pause = max(FIRST_PAUSE, age * SHARE_OF_AGE)
        between = all(row.get("validation") is None for row in told.named())
        if told.rows and between:
            if told.time - self.shown < 900 * pause:
                return
            self.shown = told.time
        self.told.append(told)


class Live:
    """Shows runs under way, in batches; a tracker that fails is asked ever more seldom.

    Args:
        tracker: Shows them.
        machine: Whether this machine computes them, and is to be measured.
    """

    def __init__(self, tracker: Tracker, machine: bool) -> None:
        self._tracker = tracker
        self._heard: dict[str, _Heard] = {}
        self._pause = BATCH_SECONDS
        self._next = self._next_machine = 0.0
        self._machine = None
        if machine:
            from dgm_bench.tracking.machine import Machine

            self._machine = Machine()

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take in what a run tells: who it is at first, and its newest numbers."""
        run_id = message["run_id"]
        if "begun" in message:
            self._heard[run_id] = _Heard(Begun.model_validate(message["begun"]))
        if (heard := self._heard.get(run_id)) is not None:
            if "data" in message:
                heard.data = Data.model_validate(message["data"])
            for told in message["told"]:
                heard.take(Told.model_validate(told))

    def forget(self, run_id: str) -> None:
        """Leave a run that has ended to its record."""
        self._heard.pop(run_id, None)

    def seconds_left(self) -> float | None:
        """Return for how long there is nothing to do; None where it is for ever."""
        if not self._heard:
            return None
        times = [self._next] if any(heard.told for heard in self._heard.values()) else []
        times += [max(self._next, self._next_machine)] if self._machine else []
        return max(min(times) - time.monotonic(), 0.0) if times else None

    def show(self) -> None:
        """Show what has been heard, and how the machine is."""
        try:
            for heard in [heard for heard in self._heard.values() if heard.told]:
                self._tracker.live(heard.begun, list(heard.told), heard.data)
                heard.told.clear()
                heard.data = None
            self._measure()
            self._pause = BATCH_SECONDS
        except Exception:  # nothing is lost: what is told at the end has it
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._next = time.monotonic() + self._pause

    def _measure(self) -> None:
        if self._machine is not None and time.monotonic() >= self._next_machine:
            self._next_machine = time.monotonic() + MACHINE_SECONDS
            self._tracker.measured(self._machine.numbers())
