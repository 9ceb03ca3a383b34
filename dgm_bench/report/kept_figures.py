"""Figures of the page, drawn once: what is drawn of the same numbers by the same code is the same.

Drawing is nearly all the time that a page takes. A figure's file in the user's cache has the digest
of all that it was made of as its name, so that none can be out of date.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

from dgm_bench.cache import cache_folder, keep_newest, make_private, sources
from dgm_bench.errors import ResultsError
from dgm_bench.sealed import read_sealed, write_sealed

#: How many figures are kept: a page has some hundreds.
KEPT = 2000


def drawn_once(draw: Callable[[], str], *made_of: str) -> str:
    """Return what ``draw`` gives, from the cache where it was drawn before.

    Args:
        draw: Draws, and returns text.
        made_of: All that what it draws depends on, besides the code.
    """
    folder, name = cache_folder("figures"), _digest(*made_of)
    if folder is None:
        return draw()
    file = folder / f"{name}.svg"
    with suppress(OSError, ResultsError, ValueError):
        if (content := read_sealed(file, "it is drawn again")) is not None:
            return content.decode()
    text = draw()
    with suppress(OSError, ResultsError):
        make_private(folder)
        write_sealed(file, text.encode())
        _tidy(folder)
    return text


def _digest(*made_of: str) -> str:
    digest = hashlib.sha256(_drawn_by().encode())
    for part in made_of:
        digest.update(hashlib.sha256(part.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()


@cache
def _drawn_by() -> str:
    libraries = (f"{name} {version(name)}" for name in ("matplotlib", "numpy", "scipy"))
    return " ".join([sources("*.py", "report/*.py", "verdict/*.py"), *libraries])


@cache
def _tidy(folder: Path) -> None:
    """Keep the newest figures; once in a process is enough."""
    keep_newest(folder, "*.svg", KEPT)
