"""Locks on files: one process at a time does what a folder or a database can take only once.

The system's own lock (``flock``) goes when its process does, however that ends. Some network file
systems have none, or one that holds on a single machine: there :class:`filelock.SoftFileLease`
keeps a file ``<lock>.held`` and touches it every few seconds. It is taken over from a process of
this machine that is over, and from one of another machine whose file was not touched for a minute:
its time of change is watched, by the watcher's own clock, and clocks are never compared.

A process that was stopped for longer may go on in the belief that it holds the lock. It asks before
it gives a file its name (:func:`require_held`), and ends there. What is left is the moment between
that question and the renaming; and records are never written over one another.
"""

from __future__ import annotations

import errno
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dgm_bench.errors import HeldError, ResultsError
from dgm_bench.processes import is_gone, is_of_this_machine, own_mark

if TYPE_CHECKING:
    from filelock import BaseFileLock, SoftFileLease

Release = Callable[[], None]

_LOG = logging.getLogger("dgm_bench")
#: What a file system answers that has no locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
#: Seconds for which a file of another machine must not change until it is taken over, and after
#: which a holder touches it again. All processes have to agree on the first.
LEASE, BEAT = 60.0, 5.0
#: Options of network file systems whose locks are seen by one machine alone: nfs(5), mount.cifs(8),
#: and "Mounting a Lustre File System" of the Lustre manual.
_LOCAL = {
    "nfs": {"nolock", "local_lock=all", "local_lock=flock"},
    "nfs4": {"local_lock=all", "local_lock=flock"},
    "cifs": {"nobrl"},
    "smb3": {"nobrl"},
    "lustre": {"localflock"},
}
_MOUNTS = Path("/proc/self/mountinfo")
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
        release = acquired(path, _FileLock(path), what, remedy, patience, waiting)
    except OSError as error:
        reason = f"cannot be written ({error.strerror or error})"
        raise ResultsError(path, reason, "make its folder writable, or name another") from error
    try:
        yield
    finally:
        with suppress(OSError):
            release()


class Lock(Protocol):
    """What can be held by one process at a time."""

    def attempt(self) -> Release | None:
        """Take the lock if it is free, and return what gives it back."""

    def undecided(self) -> bool:
        """Say whether its holder may be gone, and is watched."""

    def owner(self) -> str:
        """Return who holds it."""


def acquired(
    name: object,
    lock: Lock,
    what: str,
    remedy: str,
    patience: float = 0.0,
    waiting: Callable[[], None] | None = None,
) -> Release:
    """Take a lock, and return what gives it back; see :func:`holding`."""
    started, told = time.monotonic(), False
    while (release := lock.attempt()) is None:
        spent = time.monotonic() - started
        if spent >= patience and not lock.undecided():
            raise HeldError(name, f"{what} in {lock.owner()}", remedy)
        if spent >= _SILENCE and not told:
            told = True
            _LOG.warning("%s: %s in %s; waiting for it", name, what, lock.owner())
        if waiting is not None:
            waiting()
        time.sleep(_PAUSE)
    return release


class _FileLock:
    """A lock on a file: the system's, or where it has none, a lease."""

    def __init__(self, path: Path) -> None:
        self._path, self._lease = path, _Lease(path)
        self.undecided = self._lease.undecided

    def attempt(self) -> Release | None:
        return _attempt(self._path, self._lease)

    def owner(self) -> str:
        return _owner(self._path)


def _attempt(path: Path, lease: _Lease) -> Release | None:
    """Take the lock if it is free, and return what gives it back."""
    if lease.in_use:
        return lease.attempt()
    from filelock import FileLock, Timeout

    lock = FileLock(path, thread_local=False, fallback_to_soft=False, on_acquired=_sign)
    for _ in range(100):  # others may remove the file, and an empty folder, at any time
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _require_locks(path.parent.stat().st_dev)
            lock.acquire(timeout=0)
            return lambda: _given_back(path, lock)
        except Timeout:
            if path.exists():
                break
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _remove_if_empty(path)
            _tell_of_no_locks(lease.held, error.strerror or str(error))
            return lease.attempt()
    return None


def _sign(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.write(descriptor, signature().encode())


def _given_back(path: Path, lock: BaseFileLock) -> None:
    try:
        path.unlink(missing_ok=True)
    finally:
        lock.release()


def _remove_if_empty(path: Path) -> None:
    with suppress(FileNotFoundError):
        if not path.stat().st_size:
            path.unlink()


@cache
def _require_locks(device: int) -> None:
    """Refuse a file system, as it is mounted, whose locks are not for us.

    Raises:
        OSError: They are seen by one machine alone, or keep others from reading who has them.
    """
    if os.name == "nt":
        raise OSError(errno.ENOLCK, "they hide the file")
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = _MOUNTS.read_text(errors="replace").splitlines()
    except OSError:  # not a Linux
        return
    for before, _, after in (line.partition(" - ") for line in lines):
        if before.split()[2:3] == [number]:
            kind, *_, options = after.split()
            if not _LOCAL.get(kind, set()).isdisjoint(options.split(",")):
                raise OSError(errno.ENOLCK, "they hold on one machine alone")
            return


# ------------------------------------------------------------------------ where flock is none


class LostLockError(ResultsError):
    """A lock that another process has taken over while this one stood still."""


class Lost(Protocol):
    """A lock that can be lost."""

    path: Any

    def is_held(self) -> bool:
        """Say whether nobody has taken it over."""

    def owner(self) -> str:
        """Return who holds it."""


class _Lease:
    """A lock by a file that is touched, in place of the system's.

    Args:
        path: The lock; it says who holds it, and ``<path>.held`` is the file that is touched.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.held, self.token = path, path.with_name(f"{path.name}.held"), ""
        self._lease: SoftFileLease | None = None
        self._seen: set[int] = set()

    @property
    def in_use(self) -> bool:
        """Whether it was attempted before."""
        return self._lease is not None

    def attempt(self) -> Release | None:
        """Take the lock if it is free, or its holder is gone."""
        from filelock import SoftFileLease, Timeout

        if self._lease is None:
            self._lease = SoftFileLease(self.held, lease_duration=LEASE, heartbeat_interval=BEAT)
        for last in (False, True):  # the first may only clear away what a dead process left
            try:
                self._lease.acquire(timeout=0)
                break
            except Timeout:
                if last:
                    return None
        before = _lines(self.path)  # a holder that gave it back has left nothing
        if before[1:] and not is_of_this_machine(before[1]):
            said = "taken over, since it has not been touched for so long that its holder is gone"
            _LOG.warning("%s: %s: %s", self.held, said, before[0])
        self.token = self._lease.token or ""
        self.path.write_text(signature())
        HELD.add(self)
        return self._give_back

    def _give_back(self) -> None:
        assert self._lease is not None
        HELD.discard(self)
        if self.is_held():
            self.path.unlink(missing_ok=True)
        self._lease.release()

    def owner(self) -> str:
        """Return who holds it."""
        return _owner(self.path)

    def is_held(self) -> bool:
        """Say whether nobody has taken it over."""
        return f"token={self.token}" in _lines(self.held)

    def undecided(self) -> bool:
        """Say whether its holder may be gone, on another machine, and is watched.

        A file that changes was touched by somebody who is there.
        """
        owner = _lines(self.path)[1:2]
        if self._lease is None or (owner and is_of_this_machine(owner[0])):
            return False
        with suppress(OSError), self.held.open() as file:  # opened: network file systems look anew
            self._seen.add(os.fstat(file.fileno()).st_mtime_ns)
        return len(self._seen) < 2


#: Locks that this process holds, and that others may take over.
HELD: set[Lost] = set()


def require_held() -> None:
    """Check, before anything is written, that no other process has taken over.

    Raises:
        LostLockError: One has.
    """
    for lease in list(HELD):
        if not lease.is_held():
            reason = f"was taken over by {lease.owner()}, while this one stood still"
            raise LostLockError(lease.path, reason, "the other one goes on")


def _tell_of_no_locks(held: Path, why: str) -> None:
    """Say it once for each file system."""
    if (device := held.parent.stat().st_dev) not in _TOLD:
        _TOLD.add(device)
        _LOG.warning("%s: its file system has no locks (%s); this file is one instead", held, why)


# ------------------------------------------------------------------------------ whose it is


def signature() -> str:
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
    lines = _lines(path)
    return lines[0] if lines[1:] and lines[1] and not is_gone(lines[1]) else None


def _owner(path: Path) -> str:
    """Return who holds the lock, as its file says."""
    lines = _lines(path) or [""]
    return lines[0] if lines[0].startswith("process ") else f"process {lines[0] or 'unknown'}"
