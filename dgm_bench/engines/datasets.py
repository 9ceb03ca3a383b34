"""Gives nodes the data that they do not have: files of the head's data root, by content."""

from __future__ import annotations

import getpass
import hashlib
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from dgm_bench import data as sets
from dgm_bench.errors import DataError
from dgm_bench.locks import holding
from dgm_bench.sealed import write_atomically
from dgm_bench.spec import Recipe

#: Bytes of a data set that are sent at most; nodes are to have larger ones themselves.
MOST_SENT = 4 * 2**30
#: Seconds that a process waits for another of its node to take the files.
_PATIENCE = 3600.0


def files_of(recipe: Recipe, root: Path) -> dict[str, Path]:
    """Return what a recipe reads below the data root and is here, by place below that root.

    Nothing of a data set that is not here, is too large to send, or needs no files.
    """
    names = {stage.data.name for stage in recipe.stages if stage.data.codes_of is None}
    judge = recipe.evaluation.judge
    here = [
        path
        for name in sorted(names | set(judge.weights if judge is not None else ()))
        if sets.state(name, root).loadable
        for path in sets.fetch(name, root)
    ]
    small = sum(path.stat().st_size for path in here if path.is_file()) <= MOST_SENT
    files = [path for path in here if path.is_file() and path.is_relative_to(root)]
    return {path.relative_to(root).as_posix(): path for path in files} if small else {}


@cache
def digest(path: Path, size: int, written: int) -> str:
    """Return SHA-256 of a file of that size, last written at that time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(path: Path) -> str | None:
    """Return SHA-256 of a file, or None where it is not there; computed once a process."""
    with suppress(OSError):
        stat = path.stat()
        return digest(path, stat.st_size, stat.st_mtime_ns)
    return None


def root_with(wanted: Mapping[str, str], root: Path, take: Callable[[str], bytes]) -> Path:
    """Return a data root of this node that has the files of the head's.

    Args:
        wanted: SHA-256 of each file, by its place below a data root.
        root: The head's; it is this node's too where the same files are there.
        take: Returns the bytes of a file; asked once a node.

    Raises:
        DataError: They are not what was sent.
        ResultsError: This node cannot keep them.
    """
    if all(digest_of(root / place) == sha256 for place, sha256 in wanted.items()):
        return root
    name = hashlib.sha256("\n".join(sorted(wanted.values())).encode()).hexdigest()[:12]
    own = Path(tempfile.gettempdir(), f"dgm-bench-data-{getpass.getuser()}", name)
    with holding(own / "lock", "its data is being copied", "wait for it", _PATIENCE):
        for place, sha256 in wanted.items():
            if digest_of(own / place) != sha256:
                write_atomically(own / place, _checked(place, take(place), sha256))
    return own


def _checked(place: str, content: bytes, sha256: str) -> bytes:
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(place, "changed while it was sent", "the same command goes on")
    return content
