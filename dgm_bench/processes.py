"""Which process wrote a file, whether it is still there, and what a new one is to find."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

#: In place of a time of start.
_NOBODY_KNOWS = "0"


def own_mark() -> str:
    """Return what tells this process from all others: number, time of start, and machine."""
    return _mark(os.getpid())


@cache
def _mark(process: int) -> str:
    return f"{process}-{_started(process)}-{_machine()}"


def is_gone(mark: str) -> bool:
    """Say whether the process of a mark is surely over; one of another machine never is."""
    number, _, rest = mark.partition("-")
    started, _, machine = rest.partition("-")
    if not number.isdecimal() or machine != _machine():
        return False
    import psutil

    if int(number) >= 2**31 or not psutil.pid_exists(int(number)):
        return True
    now = _started(int(number))
    return now != started and _NOBODY_KNOWS not in (now, started)


def is_of_this_machine(mark: str) -> bool:
    """Say whether the process of a mark is one of this machine, or container."""
    return mark.rpartition("-")[2] == _machine()


def _started(process: int) -> str:
    """Return when a process started, as a number; :data:`_NOBODY_KNOWS` where none can tell.

    The system gives numbers of processes that are over to new ones; the time tells them apart.
    On Linux it is in ticks since the machine started: psutil's moves when the clock is set.
    """
    with suppress(OSError):
        text = Path(f"/proc/{process}/stat").read_text(errors="replace")
        return text.rpartition(")")[2].split()[19]  # the 22nd field; the second is the name
    import psutil

    with suppress(psutil.Error):
        return str(int(1e6 * psutil.Process(process).create_time()))
    return _NOBODY_KNOWS


def _machine() -> str:
    """Return a short hash of the machine, or container, that numbers the processes."""
    try:
        numbering = os.readlink("/proc/self/ns/pid")
    except OSError:
        numbering = ""
    return hashlib.sha256(f"{platform.node()} {numbering}".encode()).hexdigest()[:8]


def module_paths() -> list[str]:
    """Return where modules are found, for a process that stands elsewhere."""
    try:
        here = os.getcwd()
    except FileNotFoundError:
        here = os.sep
    return [os.path.join(here, path) for path in sys.path]


def thread_variables(count: int) -> dict[str, str]:
    """Return what makes the libraries of a new process use so many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, str(count))
