"""Results at an address of fsspec, as ``s3://bucket/x``: a copy of them in the user's cache.

What is at the address and not here, by name and size, is fetched before anything is read; what is
here and not there is put after each run, a run's record last, and nothing there is ever written
over. While a run is under way an object at the address, with a heartbeat, keeps other machines from
it, and its ``run.json`` tells them how it ended. Checkpoints stay on the machine.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dgm_bench import locks
from dgm_bench.cache import cache_folder, make_private
from dgm_bench.errors import ResultsError
from dgm_bench.extras import needing
from dgm_bench.processes import is_gone, is_of_this_machine
from dgm_bench.sealed import staged, write_atomically, written_together

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_LOG = logging.getLogger("dgm_bench")
#: A file of a mirror that says what it mirrors, and one of what is known to be there.
_ADDRESS, _KNOWN = "address", "known"
#: Files that are fetched at a time, together.
_BATCH = 500
#: File systems in which an object is there whole or not at all.
_OBJECTS = frozenset(
    {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "memory"}
)
#: Large files, which no verb that reads records needs.
_WEIGHTS = ".safetensors"


def mirrored_at(results: Path) -> Remote | None:
    """Return where a results folder is mirrored from; None for one that is no mirror."""
    try:
        return Remote((results / _ADDRESS).read_text())
    except OSError:
        return None


def shown(address: str) -> str:
    """Return an address as people may see it: without the name and password of a user."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def said_by(error: Exception, address: str) -> str:
    """Return what a library says of an address, without a password that is in that."""
    said = f"{type(error).__name__}: {error}".strip(": ")
    secret = urlsplit(address).password
    return said.replace(secret, "***") if secret else said


class Remote:
    """Results at an address.

    Args:
        address: As fsspec reads it.

    Raises:
        ResultsError: The user has no cache folder.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self.shown = shown(self.address)
        folder = cache_folder("mirrors")
        if folder is None:
            raise ResultsError(self.shown, "there is no cache folder", "set XDG_CACHE_HOME")
        self.mirror = folder / hashlib.sha256(self.address.encode()).hexdigest()[:16]

    @cached_property
    def _there(self) -> tuple[AbstractFileSystem, str]:
        with self._telling("used"):
            with needing(self.shown, ResultsError):
                from fsspec.core import url_to_fs
            fs, root = url_to_fs(self.address)
            return fs, root

    # ------------------------------------------------------------------------- to and fro

    def fetch(self, *, weights: bool = False) -> Path:
        """Fetch what is new at the address, and return the folder that has all of it.

        Args:
            weights: Whether weights are wanted too.

        Raises:
            ResultsError: When the address does not answer, or not to this user.
        """
        make_private(self.mirror)
        (self.mirror / "runs").mkdir(exist_ok=True)
        write_atomically(self.mirror / _ADDRESS, self.address.encode())
        there = self._listed()
        self._forget_what_is_gone(there)
        new = [name for name, size in there.items() if self._size(name) != size]
        small = [name for name in new if name.startswith("runs/")]
        for start in range(0, len(small), _BATCH):
            self._fetch_together(small[start : start + _BATCH])
        for name in new:
            if name.startswith("artifacts/") and (weights or not name.endswith(_WEIGHTS)):
                self.fetch_file(name)
        write_atomically(self.mirror / _KNOWN, "\n".join(there).encode())
        return self.mirror

    def put(self, names: Iterable[str] | None = None) -> None:
        """Put what is not yet at the address.

        Args:
            names: Of files, in order; None for all that is here, records last.

        Raises:
            ResultsError: When the address does not answer or cannot be written, or has another
                file of a name; what is left is put the next time.
        """
        there = self._listed() if names is None else None
        for name in self._to_put() if names is None else names:
            size = self._size_there(name) if there is None else there.get(name)
            if size is None:
                self._put_new(name)
            elif size != self._size(name):
                remedy = f"see which is right; the one here is {self.mirror / name}"
                raise ResultsError(f"{self.shown}/{name}", "is there with another content", remedy)

    def _size_there(self, name: str) -> int | None:
        fs, root = self._there
        with self._telling("read"):
            try:
                return int(fs.info(f"{root}/{name}")["size"])
            except FileNotFoundError:
                return None

    def fetch_file(self, name: str) -> bool:
        """Fetch a file in place of the one that is here; say whether there is one."""
        fs, root = self._there
        if self._size_there(name) is None:
            return False
        with staged(self.mirror / name) as temporary, self._telling("read"):
            fs.get_file(f"{root}/{name}", str(temporary))
        return True

    def put_over(self, name: str) -> None:
        """Put a file in place of the one that is there: for who holds its run."""
        fs, root = self._there
        with self._telling("written"):
            fs.pipe_file(f"{root}/{name}", (self.mirror / name).read_bytes())

    def _listed(self) -> dict[str, int]:
        """Return names and sizes of what is at the address: of records, curves and artifacts."""
        fs, root = self._there
        found: dict[str, int] = {}
        with self._telling("read"):
            fs.invalidate_cache()
            for part in ("runs", "artifacts"):
                with suppress(FileNotFoundError):
                    for path, info in fs.find(f"{root}/{part}", detail=True).items():
                        if not path.endswith(".tmp"):
                            found[path.removeprefix(f"{root}/")] = int(info["size"])
        return found

    def _forget_what_is_gone(self, there: dict[str, int]) -> None:
        """Remove what was at the address and is no more: it was deleted there."""
        with suppress(OSError):
            for name in set((self.mirror / _KNOWN).read_text().split("\n")) - set(there):
                (self.mirror / name).unlink(missing_ok=True)

    def _fetch_together(self, names: Sequence[str]) -> None:
        fs, root = self._there
        with self._telling("read"):
            contents = fs.cat([f"{root}/{name}" for name in names])
        for name in names:
            with suppress(OSError):  # it has another size there
                (self.mirror / name).unlink()
        with written_together() as write:
            for name in names:
                write(self.mirror / name, contents[f"{root}/{name}"])

    def _to_put(self) -> Iterator[str]:
        """Yield names of files: what belongs to records, then the records."""
        records = sorted(self.mirror.glob("runs/*/*/*/*/*.json"))
        known = {record.stem for record in records}
        for file in sorted(self.mirror.glob("artifacts/*/[!.]*")):
            if file.parent.name in known:
                yield file.relative_to(self.mirror).as_posix()
        for suffix in (".csv", ".json"):
            for record in records:
                if (file := record.with_suffix(suffix)).exists():
                    yield file.relative_to(self.mirror).as_posix()

    def _put_new(self, name: str) -> None:
        fs, root = self._there
        source, target = self.mirror / name, f"{root}/{name}"
        with self._telling("written"):
            fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            if self.address.partition("://")[0] in _OBJECTS:
                fs.put_file(str(source), target)
                return
            temporary = f"{target}.{secrets.token_hex(4)}.tmp"
            fs.put_file(str(source), temporary)
            fs.mv(temporary, target)

    def _size(self, name: str) -> int | None:
        try:
            return (self.mirror / name).stat().st_size
        except OSError:
            return None

    @contextmanager
    def _telling(self, done: str) -> Iterator[None]:
        """Tell in one line what an address answers: libraries raise errors of all kinds."""
        try:
            yield
        except ResultsError:
            raise
        except Exception as error:
            said = said_by(error, self.address)
            reason, remedy = (
                f"cannot be {done} ({said[:200]})",
                "see that it answers, and try again",
            )
            if isinstance(error, ImportError):
                remedy = "install what it asks for"
            elif isinstance(error, PermissionError) or "credential" in said.lower():
                remedy = "check the credentials, and what they allow"
            elif isinstance(error, ValueError):
                remedy = "write it as s3://bucket/folder"
            raise ResultsError(self.shown, reason, remedy) from error

    # ------------------------------------------------------------------------- locks

    @contextmanager
    def holding(self, name: str, what: str, remedy: str) -> Iterator[None]:
        """Hold a lock at the address, as :func:`dgm_bench.locks.holding` holds a file.

        Args:
            name: The object's.
            what: What the holder does.
            remedy: What to do where another process holds it.

        Raises:
            HeldError: Another process holds it, and which.
            ResultsError: When the address does not answer or cannot be written.
        """
        lock = _ObjectLock(self, name)
        release = locks.acquired(f"{self.shown}/{name}", lock, what, remedy)
        try:
            yield
        finally:
            with suppress(ResultsError):
                release()

    def read(self, name: str) -> str:
        """Return the text of a small object; empty where there is none."""
        fs, root = self._there
        with self._telling("read"):
            try:
                content: bytes = fs.cat_file(f"{root}/{name}")
            except FileNotFoundError:
                return ""
        return content.decode(errors="replace")

    def write(self, name: str, text: str, *, new: bool = False) -> bool:
        """Write a small object; with ``new`` only where there is none, and say whether."""
        fs, root = self._there
        path, content = f"{root}/{name}", text.encode()
        with self._telling("written"):
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            if not new:
                fs.pipe_file(path, content)
                return True
            try:
                fs.pipe_file(path, content, mode="create")
            except FileExistsError:
                return False
        return True

    def remove(self, name: str) -> None:
        """Remove an object, if there is one."""
        fs, root = self._there
        with self._telling("written"), suppress(FileNotFoundError):
            fs.rm_file(f"{root}/{name}")


class _ObjectLock:
    """A lock at an address: an object that says who holds it, and one that its holder rewrites.

    The second is the holder's own, so that a heartbeat never overwrites who took over.
    """

    def __init__(self, remote: Remote, name: str) -> None:
        self.path, self._remote, self._name = f"{remote.shown}/{name}", remote, name
        self._text = f"{locks.signature()}{secrets.token_hex(8)}\n"
        self._seen: dict[str, float] = {}

    def attempt(self) -> Callable[[], None] | None:
        """Take the lock if it is free, or its holder is gone."""
        if not self._remote.write(self._name, self._text, new=True):
            there = self._remote.read(self._name)
            if not self._is_gone(there) or self._remote.read(self._name) != there:
                return None
            _LOG.warning("%s: taken over, since its holder is gone: %s", self.path, _first(there))
            self._remote.remove(self._name)
            self._remote.remove(self._beats(there))
            if not self._remote.write(self._name, self._text, new=True):
                return None
        locks.HELD.add(self)
        ended = threading.Event()
        threading.Thread(target=self._beat, args=(ended,), daemon=True).start()
        return lambda: self._give_back(ended)

    def _give_back(self, ended: threading.Event) -> None:
        ended.set()
        locks.HELD.discard(self)
        if self.is_held():
            self._remote.remove(self._name)
        self._remote.remove(self._beats(self._text))

    def _beat(self, ended: threading.Event) -> None:
        number = 0
        while not ended.wait(locks.BEAT):
            number += 1
            with suppress(ResultsError):  # the address may be away for a while
                self._remote.write(self._beats(self._text), str(number))

    def is_held(self) -> bool:
        """Say whether nobody has taken it over."""
        return self._remote.read(self._name) == self._text

    def owner(self) -> str:
        """Return who holds it."""
        return _first(self._remote.read(self._name)) or "a process unknown"

    def undecided(self) -> bool:
        """Say whether its holder, on another machine, may be gone, and is watched."""
        there = self._remote.read(self._name).split("\n")
        return bool(there[1:]) and not is_of_this_machine(there[1]) and len(self._seen) < 2

    def _is_gone(self, there: str) -> bool:
        """Say whether a holder is over, or has not been heard of for long, by this clock alone."""
        if not there.count("\n") > 1 or is_gone(there.split("\n")[1]):
            return there.count("\n") > 1
        seen = there + self._remote.read(self._beats(there))
        now = time.monotonic()
        return now - self._seen.setdefault(seen, now) > locks.LEASE

    def _beats(self, text: str) -> str:
        return f"{self._name}.{text.split()[-1]}"


def _first(text: str) -> str:
    return text.partition("\n")[0]
