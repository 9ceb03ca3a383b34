"""Which runs go at the same time, and when the last one ends.

A list schedule (Graham, Bounds on multiprocessing timing anomalies, 1969): whenever there is room,
the first run in order that fits starts. No run waits for another.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Need(NamedTuple):
    """What a run needs while it goes: whole devices, or a place on one, and memory on each."""

    memory_bytes: int = 0
    devices: int = 1


class Placed(NamedTuple):
    """When a run starts and ends, in seconds, and on which devices."""

    start: float
    end: float
    devices: tuple[int, ...]


class Room:
    """Free places and memory on devices that are alike; a CPU is one device with many places.

    A run goes to the device with the most free memory. One that needs more than a device has
    takes all of one. Of what takes several devices each has to be idle.

    Args:
        workers: How many runs go at a time, spread evenly over the devices.
        devices: How many there are.
        memory_bytes: Of each.
    """

    def __init__(self, workers: int, devices: int, memory_bytes: int) -> None:
        each, more = divmod(workers, devices)
        self._all = [each + (device < more) for device in range(devices)]
        self._places, self._memory = list(self._all), [memory_bytes] * devices
        self._idle = set(range(devices))
        self.memory_bytes = memory_bytes
        #: Devices with a free place, the one with the most free memory first; older states of a
        #: device stay until they are come upon.
        self._free = [self._state(device) for device in range(devices) if self._all[device]]
        heapq.heapify(self._free)

    @property
    def full(self) -> bool:
        """Whether no device has a free place."""
        return self._best() is None

    def fits(self, need: Need) -> bool:
        """Return whether a run can start now."""
        if need.devices > 1:
            return need.devices <= len(self._idle)
        best = self._best()
        return best is not None and self._taken(need) <= self._memory[best]

    def take(self, need: Need) -> tuple[int, ...] | None:
        """Return the devices on which a run may start, from now on taken; None where it waits."""
        if not self.fits(need):
            return None
        if need.devices > 1:
            taken = tuple(sorted(self._idle)[: need.devices])
        else:
            taken = tuple(device for device in (self._best(),) if device is not None)
        for device in taken:
            self._change(device, need, -1)
        return taken

    def leave(self, need: Need, devices: Sequence[int]) -> None:
        """Free what a run had taken."""
        for device in devices:
            self._change(device, need, 1)

    def _taken(self, need: Need) -> int:
        alone = need.devices > 1
        return self.memory_bytes if alone else min(need.memory_bytes, self.memory_bytes)

    def _change(self, device: int, need: Need, sign: int) -> None:
        self._places[device] += sign * (self._all[device] if need.devices > 1 else 1)
        self._memory[device] += sign * self._taken(need)
        idle = self._places[device] == self._all[device]
        (self._idle.add if idle else self._idle.discard)(device)
        if self._places[device]:
            heapq.heappush(self._free, self._state(device))

    def _state(self, device: int) -> tuple[int, int, int]:
        return -self._memory[device], -self._places[device], device

    def _best(self) -> int | None:
        """Return the device with a free place that has the most free memory."""
        while self._free:
            device = self._free[0][2]
            if self._places[device] and self._free[0] == self._state(device):
                return device
            heapq.heappop(self._free)
        return None


def list_schedule(seconds: Sequence[float], needs: Sequence[Need], room: Room) -> list[Placed]:
    """Return when each run starts and ends.

    Args:
        seconds: What each takes, in the order in which they are started.
        needs: What each needs.
        room: All of it free.

    Raises:
        ValueError: A run needs more devices than there are.
    """
    placed: dict[int, Placed] = {}
    waiting, going, now = _Waiting(needs), list[tuple[float, int]](), 0.0
    while len(placed) < len(seconds) or going:
        for run, devices in waiting.started(room):
            placed[run] = Placed(now, now + seconds[run], devices)
            heapq.heappush(going, (placed[run].end, run))
        if not going:
            raise ValueError("a run needs more devices than there are")
        now, ended = heapq.heappop(going)
        room.leave(needs[ended], placed[ended].devices)
    return [placed[run] for run in range(len(seconds))]


class _Waiting:
    """Runs that have not started, in order, apart by what they need."""

    def __init__(self, needs: Sequence[Need]) -> None:
        self._queues: dict[Need, deque[int]] = {}
        for run, need in enumerate(needs):
            self._queues.setdefault(need, deque()).append(run)
        #: The first run of each need, the very first one at the top.
        self._first = [(queue[0], need) for need, queue in self._queues.items()]

    def started(self, room: Room) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Yield each run that can start now, and its devices, which are taken."""
        passed: list[tuple[int, Need]] = []
        smallest = math.inf  # of the memory of those that did not fit
        while self._first and not room.full:
            run, need = heapq.heappop(self._first)
            devices = None
            if need.devices > 1 or need.memory_bytes < smallest:
                devices = room.take(need)
            if devices is None:
                smallest = min(smallest, need.memory_bytes) if need.devices == 1 else smallest
                passed.append((run, need))
                continue
            self._queues[need].popleft()
            if self._queues[need]:
                heapq.heappush(self._first, (self._queues[need][0], need))
            yield run, devices
        for first in passed:
            heapq.heappush(self._first, first)


def end_of(placed: Sequence[Placed]) -> float:
    """Return when the last run ends, in seconds; 0 without runs."""
    return max((run.end for run in placed), default=0.0)
