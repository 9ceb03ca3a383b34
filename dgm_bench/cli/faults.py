"""Faults that nothing else has explained: one line that says where the details are."""

from __future__ import annotations

import os
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dgm_bench.errors import UnexpectedError

#: Files of details that are kept, the newest.
KEPT = 20
_MEMORY = "use a smaller batch, or a machine with more memory"


def unexpected(error: BaseException) -> UnexpectedError:
    """Return a fault as a line, having written its traceback to a file.

    Args:
        error: What was raised.
    """
    found = _write_details(error)
    details = f"the details for a report are in {found}" if found else "run it again with -v"
    if isinstance(error, ImportError):
        return _missing_package(error, details)
    if isinstance(error, MemoryError):
        return UnexpectedError("memory", "there is not enough", f"{_MEMORY}; {details}")
    text = f": {error}" if str(error) else ""
    return UnexpectedError("dgm-bench", f"unexpected {type(error).__name__}{text}", details)


def _missing_package(error: ImportError, details: str) -> UnexpectedError:
    from dgm_bench.extras import package_of

    package = package_of(error.name or "a package")
    remedy = f"pip install --force-reinstall {package}" if error.name else "install it anew"
    return UnexpectedError(package, f"cannot be imported ({error})", f"{remedy}; {details}")


def _write_details(error: BaseException) -> Path | None:
    """Write a traceback where one may; return the file, or None where there is no place."""
    lines = "".join(traceback.format_exception(error))
    name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}.txt"
    for folder in _folders():
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            for old in sorted(folder.glob("*.txt"))[: -KEPT + 1 or None]:
                old.unlink()
            (folder / name).write_text(lines, encoding="utf-8", errors="backslashreplace")
            return folder / name
    return None


def _folders() -> Iterator[Path]:
    """Yield where details may be kept: the user's folder of states, else a temporary one."""
    from platformdirs import user_state_path

    state = user_state_path("dgm-bench")
    if state.is_absolute():
        yield state / "errors"
    with suppress(OSError):
        yield Path(tempfile.mkdtemp(prefix="dgm-bench-"))
