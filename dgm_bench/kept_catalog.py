"""The catalogue as it was last read, for as long as all that it was read from is the same.

Reading the declarations and resolving their recipes takes half a second, and taking them from a
file of the user's cache a tenth of that. That file's name has the digest of all sources that the
declarations depend on: the package, the papers, and the libraries that hold them. A process uses it
only where those sources are older than itself: else the code that it runs may be another than the
code that they hold now.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from pydantic import VERSION

from dgm_bench import spec
from dgm_bench.cache import cache_folder, keep_newest, make_private
from dgm_bench.errors import ResultsError
from dgm_bench.paths import PACKAGE
from dgm_bench.sealed import read_sealed, write_sealed

#: When this process began, nearly: what was changed later may not be what it has imported.
STARTED = time.time()
#: Seconds within which a file may change and look older: FAT counts in two.
RESOLUTION = 2.0
#: How many states of the sources are kept.
KEPT = 8


class Declared(NamedTuple):
    """What is kept.

    Attributes:
        papers: All papers.
        sound: Hashes of the recipes whose arguments fit.
    """

    papers: tuple[spec.Paper, ...]
    sound: frozenset[str] = frozenset()


Papers = tuple[spec.Paper, ...]


def read_once(
    folder: Path, read: Callable[[], Papers], sound: Callable[[Papers], Iterable[str]]
) -> Declared:
    """Return what ``read`` gives, from the cache where it was read before.

    Args:
        folder: Holds the papers.
        read: Reads them.
        sound: Gives the hashes of the recipes whose arguments fit; asked only for the cache.

    Raises:
        DeclarationError: As ``read`` does.
    """
    file = _file_of(folder)
    if file is None:
        return Declared(read())
    with suppress(OSError, ResultsError, ValueError):
        if (content := read_sealed(file, "it is made again")) is not None:
            return _unpickled(content)
    papers = read()
    with suppress(OSError, ResultsError):
        make_private(file.parent)
        write_sealed(file, _content(papers, sound))
        keep_newest(file.parent, "*.pickle", KEPT)
    return Declared(papers)


def _file_of(folder: Path) -> Path | None:
    """Return the file for the sources as they are; None where there is no place or no telling."""
    with suppress(OSError):
        home, name = cache_folder("catalogue"), _digest(folder)
        return home / f"{name}.pickle" if home and name else None
    return None


# --------------------------------------------------------------------------- what it depends on


def _digest(folder: Path) -> str:
    """Return the SHA-256 of all sources; empty where one is younger than this process."""
    digest = hashlib.sha256(f"{sys.version} {platform.machine()} {VERSION}".encode())
    for base in (PACKAGE, folder):
        for file in _sources(str(base)):
            with open(file, "rb") as opened:
                if os.fstat(opened.fileno()).st_ctime + RESOLUTION > STARTED:
                    return ""
                content = opened.read()
            digest.update(f"\n{file} {len(content)}\n".encode("utf-8", "surrogateescape"))
            digest.update(content)
    return digest.hexdigest()


def _sources(folder: str) -> Iterator[str]:
    """Yield the files of code and of declarations below a folder, in order."""
    for home, folders, files in os.walk(folder):
        folders.sort()
        yield from (os.path.join(home, f) for f in sorted(files) if f.endswith((".py", ".toml")))


# --------------------------------------------------------------------------- its form


def _content(papers: Papers, sound: Callable[[Papers], Iterable[str]]) -> Iterator[bytes]:
    """Yield what is kept of papers. Nothing is done where the file cannot be written.

    Their recipes have their hashes with them once they were asked for.
    """
    yield pickle.dumps((papers, *sound(papers)), protocol=5)


class _Reader(pickle.Unpickler):
    """Makes declarations of a pickle, and nothing else: it calls what it names."""

    def find_class(self, module: str, name: str) -> type:
        found = getattr(spec, name, None) if module == spec.__name__ else None
        if isinstance(found, type) and issubclass(found, spec.Spec):
            return found
        if (module, name) == ("decimal", "Decimal"):
            return Decimal
        raise ValueError(f"{module}.{name} is no declaration")


def _unpickled(content: bytes) -> Declared:
    """Return what was kept.

    Raises:
        ValueError: It is something else.
    """
    try:
        papers, *sound = _Reader(io.BytesIO(content)).load()
    except (pickle.UnpicklingError, LookupError, TypeError, AttributeError, EOFError) as error:
        raise ValueError("no catalogue") from error
    return Declared(papers, frozenset(sound))
