"""Moves the files of runs between results folders of machines that have no common disk.

What changes in one folder is sent in the order in which a process writes it there: a folder that
takes in only the first of those changes is one that such a process could have left.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dgm_bench.engines.tasks import Task
from dgm_bench.errors import DamagedError, ResultsError, UsageError, refused
from dgm_bench.extras import needing
from dgm_bench.remote import mirrored_at, said_by, shown
from dgm_bench.sealed import write_atomically
from dgm_bench.workdir import WorkFolder, stages_folder

#: Looks at a folder that somebody writes to, until two in a row are the same.
_LOOKS, _PAUSE = 5, 0.05


@dataclass(frozen=True)
class Content:
    """The bytes of a file, and their SHA-256."""

    content: bytes
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> Content:
        """Return bytes with their digest."""
        return cls(content, hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class Former:
    """What lay at another place before the changes, as the checkpoint before the newest."""

    place: str


#: What becomes of a place; None: its file is removed.
Change = Content | Former | None
#: What becomes of places below a results folder, in order.
Changes = dict[str, Change]
#: When a file was written, its length and its number on the disk.
_Mark = tuple[int, int, int]


def take_in(results: Path, changes: Changes) -> None:
    """Do in a results folder what was done in another; where it is a mirror, at its address too.

    Raises:
        DamagedError: Something is not what was sent; nothing is changed.
        ResultsError: The folder cannot be written.
    """
    for place, change in changes.items():
        if isinstance(change, Content) and Content.of(change.content).sha256 != change.sha256:
            raise DamagedError(place, "was damaged on its way", "the same command goes on")
    for place, content in _resolved(changes, lambda place: _read(results / place)).items():
        if content is None:
            (results / place).unlink(missing_ok=True)
        else:
            write_atomically(results / place, content)
    if (remote := mirrored_at(results)) is not None:
        given = [place for place, change in changes.items() if change is not None]
        remote.put(place for place in given if place.startswith(("runs/", "artifacts/")))
        for place in given:
            if place.endswith("/run.json"):
                remote.put_over(place)


def _resolved(changes: Changes, read: Callable[[str], bytes | None]) -> dict[str, bytes | None]:
    """Return the content that each place gets, once all that is to be moved has been read."""
    moved = {c.place: read(c.place) for c in changes.values() if isinstance(c, Former)}
    return {
        place: moved[c.place] if isinstance(c, Former) else c.content if c is not None else None
        for place, c in changes.items()
    }


def needed_by(results: Path, task: Task) -> Changes:
    """Return what a worker needs to go on with a task: work folders, and records of their runs."""
    found: Changes = {}
    for seed in task.seeds:
        folder = WorkFolder(results, task.recipe_hash, seed)
        state = folder.state()
        found |= _contents(folder.path.rglob("*"), results)
        if state is None:
            continue
        stages = stages_folder(folder.path, state.source_hash)
        if stages != folder.path:  # as if they lay with the results
            kept = _contents(stages.rglob("*"), stages)
            found |= {f"work/{folder.path.name}/{place}": kept[place] for place in kept}
        paper, table, *_ = task.cells[0].split("/")
        named = results.glob(f"runs/{paper}/{table}/*/*/{state.run_id}.*")
        found |= _contents(named, results)
    return found


class Outgoing:
    """Finds what changed in a results folder since it was last sent.

    Args:
        results: The folder.
        there: What the other side has already, as :func:`needed_by` gave it.
    """

    def __init__(self, results: Path, there: Iterable[str] = ()) -> None:
        self.results = results
        marks = _marks(results)
        self._sent = {place: marks[place] for place in there if place in marks}

    def look(self) -> tuple[Changes, dict[str, _Mark]]:
        """Return what changed, in the order to take it in, and the marks to :meth:`note` then.

        A look in which files change beside it is done again; nothing is found where they never
        cease to.
        """
        for _ in range(_LOOKS):
            before = _marks(self.results)
            try:
                found = dict(self._changes(before))
            except FileNotFoundError:
                continue
            if _marks(self.results) == before:
                return dict(sorted(found.items(), key=_turn)), before
            time.sleep(_PAUSE)
        return {}, self._sent

    def note(self, marks: dict[str, _Mark]) -> None:
        """Note that all that a look found has been sent."""
        self._sent = marks

    def _changes(self, marks: Mapping[str, _Mark]) -> Iterator[tuple[str, Change]]:
        yield from ((place, None) for place in self._sent.keys() - marks.keys())
        places = {mark: place for place, mark in self._sent.items()}
        for place, mark in marks.items():
            if self._sent.get(place) != mark:
                moved = places.get(mark)
                yield place, Former(moved) if moved else Content.of(_bytes(self.results / place))


def _turn(change: tuple[str, object]) -> int:
    """Return when a change is to be taken in: a record last of its run's, then how far it is."""
    place, content = PurePosixPath(change[0]), change[1]
    match place.parts[0]:
        case "artifacts":
            return 0
        case "runs":
            return 1 + (place.suffix == ".json")
    if place.parts[1] == "submissions":
        return 6
    return 3 if content is None else 4 + (place.name == "run.json")


def _contents(paths: Iterable[Path], root: Path) -> Changes:
    kept = (path for path in paths if _is_sent(path))
    return {path.relative_to(root).as_posix(): Content.of(_bytes(path)) for path in kept}


def _marks(results: Path) -> dict[str, _Mark]:
    found = {}
    for path in results.rglob("*"):
        try:
            if _is_sent(path):
                stat = path.stat()
                place = path.relative_to(results).as_posix()
                found[place] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except FileNotFoundError:  # removed beside us
            continue
    return found


def _is_sent(path: Path) -> bool:
    """Say whether a file is for others: no lock, request, file half written or set aside."""
    own = path.name.startswith((".", "lock")) or path.suffix == ".damaged"
    return not own and path.parent.name != "cancel" and path.is_file()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise refused(ResultsError, path, "read", error) from error


def _read(path: Path) -> bytes | None:
    try:
        return _bytes(path)
    except FileNotFoundError:
        return None


# ------------------------------------------------------------------------ at an address


class Storage:
    """Work folders at an address of fsspec, which the head and all nodes reach.

    Args:
        address: Of a folder for one results folder's runs, such as ``s3://bucket/dgm-bench``.

    Raises:
        UsageError: There is no such kind of address here, or it cannot be written.
    """

    def __init__(self, address: str) -> None:
        self.address, self.shown = address, shown(address)
        with needing(self.shown):
            from fsspec.core import url_to_fs

        try:
            self.files, root = url_to_fs(address)
            self.root = str(root).rstrip("/")
        except (ImportError, ValueError) as error:
            raise UsageError(self.shown, f"cannot be used ({error})", "name another") from error

    def require_writable(self) -> None:
        """Refuse an address that cannot be written before there is anything to lose.

        Raises:
            UsageError: It cannot.
        """
        probe = f"{self.root}/work/.probe"
        try:
            self._write(probe, b"")
            self.files.rm_file(probe)
        except Exception as error:  # whatever its library raises
            reason = f"cannot be written ({said_by(error, self.address)})"
            raise UsageError(self.shown, reason, "check the address and who may use it") from error

    def needed_by(self, task: Task) -> Changes:
        """Return the work folders of a task as they were last sent here.

        Raises:
            ResultsError: The address cannot be read.
        """
        names = [WorkFolder(Path(), task.recipe_hash, seed).path.name for seed in task.seeds]
        return dict(pair for name in names for pair in self._folder(name))

    def _folder(self, name: str) -> Iterator[tuple[str, Content]]:
        with self._reaching():
            folder = f"{self.root}/work/{name}"
            self.files.invalidate_cache()
            if not self.files.exists(folder):
                return
            for path in self.files.find(folder):
                place = f"work/{name}/{str(path).partition(f'/work/{name}/')[2]}"
                if not PurePosixPath(place).name.startswith("."):
                    yield place, Content.of(self.files.cat_file(path))

    def take_in(self, changes: Changes) -> None:
        """Do here what was done in a results folder.

        Raises:
            ResultsError: The address cannot be written.
        """
        with self._reaching():
            for place, content in _resolved(changes, self._read).items():
                path = f"{self.root}/{place}"
                if content is not None:
                    self._write(path, content)
                elif self.files.exists(path):
                    self.files.rm_file(path)

    def _read(self, place: str) -> bytes | None:
        path = f"{self.root}/{place}"
        return bytes(self.files.cat_file(path)) if self.files.exists(path) else None

    def _write(self, path: str, content: bytes) -> None:
        """Write a file at a stroke, which on a disk takes another name first."""
        from fsspec.implementations.local import LocalFileSystem

        if isinstance(self.files, LocalFileSystem):
            write_atomically(Path(path), content)
        else:
            self.files.makedirs(path.rpartition("/")[0], exist_ok=True)
            self.files.pipe_file(path, content)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turn what the address's library raises into one line."""
        try:
            yield
        except ResultsError:
            raise
        except Exception as error:
            reason = f"cannot be reached ({said_by(error, self.address)})"
            raise ResultsError(self.shown, reason, "the same command goes on") from error
