"""A process that does the work of cases when it is told to, and says how long that took.

It reads a command a line: ``case NAME`` makes a case's work and takes its first calls, ``call N``
takes N calls. It answers each with a line of JSON: seconds, or why it cannot. A first line says
that it is ready.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable

import torch

from dgm_bench.perf.cases import CASES
from dgm_bench.perf.kernels import KERNELS, PlainStep
from dgm_bench.perf.steps import Work, make_work, usual_settings

#: Calls that are taken and not timed, and then the ones that say how long one is.
FIRST_CALLS, TRIED_CALLS = 3, 3


class Timed:
    """Calls of a work on a device, timed.

    Args:
        work: The work.
        device: ``cpu``: the thread's processor time, which waits for nobody. ``cuda``: the time
            between two events of the GPU.
    """

    def __init__(self, work: Work, device: str) -> None:
        self.work = work
        self.seconds: Callable[[int], float] = self._events if device == "cuda" else self._thread

    def _thread(self, calls: int) -> float:
        before = time.thread_time()
        for _ in range(calls):
            self.work()
        return time.thread_time() - before

    def _events(self, calls: int) -> float:
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        for _ in range(calls):
            self.work()
        after.record()
        torch.cuda.synchronize()
        return float(before.elapsed_time(after)) / 1e3


def make_timed(name: str, device: str) -> Timed:
    """Return a case's or a kernel's work after its first calls, with nothing left to collect."""
    kernel = KERNELS.get(name)
    work = make_work(CASES[name], device) if kernel is None else PlainStep(kernel, device)
    timed = Timed(work, device)
    timed.seconds(FIRST_CALLS)
    gc.collect()
    return timed


def serve(device: str, make: Callable[[str, str], Timed] = make_timed) -> None:
    """Answer commands until the input ends.

    Args:
        device: Where to work.
        make: Makes a case ready.
    """
    gc.disable()
    print(json.dumps({}), flush=True)  # ready
    timed: Timed | None = None
    answer: dict[str, float | str]
    for line in sys.stdin:
        command, word = line.split()
        if command == "case":
            timed = None
            try:
                timed = make(word, device)
                answer = {"seconds": timed.seconds(TRIED_CALLS) / TRIED_CALLS}
            except Exception as error:  # whatever an older state of the code makes of it
                answer = {"lacks": f"{type(error).__name__}: {error}"}
        else:
            assert timed is not None
            answer = {"seconds": timed.seconds(int(word))}
        print(json.dumps(answer), flush=True)


def main() -> None:
    """Serve on the device that the first argument names."""
    with usual_settings():
        serve(sys.argv[1])
