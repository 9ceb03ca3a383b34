"""Locks on files: one process at a time does what a folder or a database can take only once.

The system's own lock (``flock``) goes when its process does, however that ends. Some network file
systems have none: there a file ``<lock>.held`` that only one process can make says whose turn it
is, and one on the same machine whose process is over is taken over.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from dgm_bench.errors import HeldError, ResultsError
from dgm_bench.processes import is_gone, own_mark

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

Release = Callable[[], None]

_LOG = logging.getLogger("dgm_bench")
#: What a file system answers that has no locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
#: Seconds between two attempts, and until a wait is told.
_PAUSE, _SILENCE = 0.05, 2.0
#: File systems without locks that have been told of.
_TOLD: set[int] = set()


@contextmanager
def holding(
    path: Path,
    what: str,
    remedy: str,
    patience: float = 0.0,
    waiting: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Hold a lock; its file is there while somebody holds it, and says who.

    Args:
        path: The lock's file; its folder is made.
        what: What the holder does, as ``this run is under way``; ``in process ...`` follows.
        remedy: What to do where another process holds it.
        patience: Seconds to wait for it; a longer wait is told once.
        waiting: Called now and then during the wait; may raise to end it.

    Raises:
        HeldError: Another process has held it for all of that time, and which.
        ResultsError: The folder cannot be written.
    """
    try:
        release = _acquired(path, what, remedy, patience, waiting)
    except OSError as error:
        reason = f"cannot be written ({error.strerror or error})"
        raise ResultsError(path, reason, "make its folder writable, or name another") from error
    try:
        yield
    finally:
        with suppress(OSError):
            release()


def _acquired(
    path: Path, what: str, remedy: str, patience: float, waiting: Callable[[], None] | None
) -> Release:
    started, told = time.monotonic(), False
    while (release := _attempt(path)) is None:
        spent = time.monotonic() - started
        if spent >= patience:
            raise HeldError(path, f"{what} in {_owner(path)}", _how_to_free(path, remedy))
        if spent >= _SILENCE and not told:
            told = True
            _LOG.warning("%s: %s in %s; waiting for it", path, what, _owner(path))
        if waiting is not None:
            waiting()
        time.sleep(_PAUSE)
    return release


def _attempt(path: Path) -> Release | None:
    """Take the lock if it is free, and return what gives it back."""
    file = _opened(path)
    try:
        _flock(file)
        if not _still_there(file, path):  # its holder removed it between our opening and locking
            file.close()
            return _attempt(path)
    except OSError as error:
        file.close()
        if error.errno in _NO_LOCKS:
            path.unlink(missing_ok=True)
            return _attempt_without(_held(path), error.strerror or str(error))
        if isinstance(error, BlockingIOError):
            return None
        raise
    file.truncate(0)
    file.write(_signature())
    file.flush()
    return lambda: _given_back(path, file)


def _given_back(path: Path, file: TextIO) -> None:
    with file:
        path.unlink(missing_ok=True)


def _opened(path: Path) -> TextIO:
    """Open the lock's file in its folder, which another process may remove when it is empty."""
    for _ in range(100):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            return path.open("a+")
    return path.open("a+")


def _flock(file: TextIO) -> None:
    if fcntl is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _still_there(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


# ------------------------------------------------------------------------ where flock is none


def _attempt_without(held: Path, why: str) -> Release | None:
    """Take the lock by making a file that must not be there yet; take over a dead process's."""
    _tell_of_no_locks(held, why)
    try:
        with held.open("x") as file:
            file.write(_signature())
    except FileExistsError:
        mark = _mark(held)
        return _attempt_without(held, why) if is_gone(mark) and _removed(held, mark) else None
    return lambda: held.unlink(missing_ok=True)


def _removed(held: Path, mark: str) -> bool:
    """Remove the file of a dead process, unless another process does so or has taken over.

    Only who could make a file named after the mark may remove what has it: between reading a mark
    and removing its file, the file may have become that of a living process.
    """
    right = held.with_name(f"{held.name}.{hashlib.sha256(mark.encode()).hexdigest()[:8]}")
    try:
        right.open("x").close()
    except FileExistsError:
        return False
    try:
        if there := _mark(held) == mark:
            held.unlink()
        return there
    finally:
        right.unlink()


def _tell_of_no_locks(held: Path, why: str) -> None:
    """Say it once for each file system."""
    if (device := held.parent.stat().st_dev) not in _TOLD:
        _TOLD.add(device)
        _LOG.warning("%s: its file system has no locks (%s); this file is one instead", held, why)


# ------------------------------------------------------------------------------ whose it is


def _held(path: Path) -> Path:
    return path.with_name(f"{path.name}.held")


def _signature() -> str:
    """Return two lines: the process for people, and its mark."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"process {os.getpid()} on {platform.node()} since {now}\n{own_mark()}\n"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").split("\n")
    except OSError:
        return []


def holder(path: Path) -> str | None:
    """Return which process holds a lock, as its file says, without trying to take it.

    None where nobody does, or a process of this machine that is over.
    """
    for file in (path, _held(path)):
        lines = _lines(file)
        if lines[1:] and lines[1] and not is_gone(lines[1]):
            return lines[0]
    return None


def _owner(path: Path) -> str:
    """Return who holds the lock, as its file says."""
    lines = _lines(path) or _lines(_held(path)) or [""]
    return lines[0] if lines[0].startswith("process ") else f"process {lines[0] or 'unknown'}"


def _mark(held: Path) -> str:
    return "".join(_lines(held)[1:2])


def _how_to_free(path: Path, remedy: str) -> str:
    held = _held(path)
    return f"{remedy}; if it is gone, remove {held}" if held.exists() else remedy
