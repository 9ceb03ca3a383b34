"""The user's cache: what can be made again at any time, and is kept because that takes long."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

from dgm_bench.paths import PACKAGE


def cache_folder(name: str) -> Path | None:
    """Return a folder of the cache, which need not exist; None where the user has no cache."""
    from platformdirs import user_cache_path

    folder = user_cache_path("dgm-bench") / name
    return folder if folder.is_absolute() else None


def make_private(folder: Path) -> None:
    """Make a folder that only the user can look into.

    Raises:
        OSError: When it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def keep_newest(folder: Path, pattern: str, count: int) -> None:
    """Remove all files of a pattern but the newest; another process may be quicker."""
    with suppress(OSError):
        files = sorted(folder.glob(pattern), key=lambda file: file.stat().st_mtime)
        for file in files[:-count]:
            file.unlink()


@cache
def sources(*patterns: str) -> str:
    """Return the SHA-256 of sources of this package: what they made differs where they differ.

    Args:
        patterns: Of files below the package, as ``*.py``.
    """
    return sources_digest(PACKAGE, (f for p in patterns for f in sorted(PACKAGE.glob(p))))


def sources_digest(package: Path, files: Iterable[Path]) -> str:
    """Return the SHA-256 of files of a package, by name and content; those not there are left out.

    Args:
        package: The folder that names are relative to.
        files: In an order that does not depend on the machine.
    """
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(f"{file.relative_to(package).as_posix()}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
