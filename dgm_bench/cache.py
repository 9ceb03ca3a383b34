"""The user's cache: what can be made again at any time, and is kept because that takes long."""

from __future__ import annotations

import hashlib
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
    digest = hashlib.sha256()
    for pattern in patterns:
        for file in sorted(PACKAGE.glob(pattern)):
            digest.update(file.read_bytes())
    return digest.hexdigest()
