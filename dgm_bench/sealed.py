"""Files that are there whole or not at all, and sealed ones, which are checked when they are read.

A sealed file is some content and a last line with the content's SHA-256. The content begins at the
first byte, so that it can be mapped. Whoever reads it gets what was written, or learns that it is
not there. A damaged file is set aside under the name ``<name>.damaged``, which the next writing
removes, and told in one line; that the system cannot read a file says nothing of its content, and
is an error.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from dgm_bench.errors import DamagedError, ResultsError, reading, refused
from dgm_bench.locks import require_held
from dgm_bench.processes import is_gone, own_mark

_LOG = logging.getLogger("dgm_bench")
_SEAL_LENGTH = len("\nsha256:\n") + 64
_CHUNK = 1 << 20
#: Seconds after which a temporary file of another machine is taken for a dead process's.
_OLD = 24 * 3600.0

# ----------------------------------------------------------------------------- sealed files


def write_sealed(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write a file with its digest, as :func:`write_atomically` does.

    Args:
        path: Where.
        content: The bytes, or parts of them in order.

    Raises:
        ResultsError: When the folder cannot be written or the disk is full.
    """
    write_atomically(path, _with_seal([content] if isinstance(content, bytes) else content))


def read_sealed(path: Path, instead: str) -> bytes | None:
    """Return the content of a sealed file, or None where there is none, or a damaged one.

    Args:
        path: The file.
        instead: What is done where it is damaged, as ``it is made again``; told with the damage.

    Raises:
        ResultsError: When the system cannot read it.
    """
    try:
        with path.open("rb") as file:
            content, seal = file.read(_content_size(file)), file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refused(ResultsError, path, "read", error) from error
    if seal == _seal(hashlib.sha256(content)):
        return content
    set_aside(path, _damage(seal), instead)
    return None


def sealed_size(path: Path, instead: str) -> int | None:
    """Return how many bytes a sealed file's content has, having checked them a little at a time.

    For content that is mapped rather than read; the arguments, the answer None and the error are
    those of :func:`read_sealed`.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            size = _content_size(file)
            while part := file.read(min(_CHUNK, size - file.tell())):
                digest.update(part)
            seal = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refused(ResultsError, path, "read", error) from error
    if seal == _seal(digest):
        return size
    set_aside(path, _damage(seal), instead)
    return None


def read_known(path: Path, sha256: str | None, remedy: str) -> bytes:
    """Return the content of a file whose SHA-256 stands elsewhere.

    Args:
        path: The file.
        sha256: What it has to be, or None where nobody knows.
        remedy: What to do where it is another.

    Raises:
        DamagedError: When it is not what was written.
        ResultsError: When the system cannot read it.
    """
    with reading(path, ResultsError):
        content = path.read_bytes()
    if sha256 not in (None, hashlib.sha256(content).hexdigest()):
        raise DamagedError(path, "is damaged (its SHA-256 is another)", remedy)
    return content


def set_aside(path: Path, reason: str, instead: str) -> None:
    """Rename a damaged file and tell of it in one line.

    Args:
        path: The file.
        reason: What is wrong with it.
        instead: What is done now.
    """
    with suppress(OSError):  # of a folder that may only be read it stays in its place
        os.replace(path, _damaged(path))
    _LOG.warning("%s: %s; %s", path, " ".join(reason.split()), instead)


def forget_damaged(path: Path) -> None:
    """Remove what was set aside of a file that is written anew."""
    _damaged(path).unlink(missing_ok=True)


def _with_seal(parts: Iterable[bytes]) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
        yield part
    yield _seal(digest)


def _seal(digest: hashlib._Hash) -> bytes:
    return f"\nsha256:{digest.hexdigest()}\n".encode()


def _content_size(file: BinaryIO) -> int:
    return max(os.fstat(file.fileno()).st_size - _SEAL_LENGTH, 0)


def _damage(seal: bytes) -> str:
    sealed = seal.startswith(b"\nsha256:")
    return "is damaged (its SHA-256 is another)" if sealed else "is damaged (it has no whole seal)"


def _damaged(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged")


# ----------------------------------------------------------------------- writing at a stroke


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write a file so that it is there whole or not at all.

    Args:
        path: Where; folders are made.
        content: The bytes, or parts of them in order.

    Raises:
        ResultsError: When the folder cannot be written or the disk is full.
    """
    with staged(path) as temporary, temporary.open("wb") as file:
        file.writelines([content] if isinstance(content, bytes) else content)


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Give a temporary file that takes a file's place when the block ends well.

    Temporary files that killed processes have left in the folder are removed.

    Args:
        path: Of the file; folders are made.

    Raises:
        ResultsError: When the folder cannot be written or the disk is full.
    """
    temporary = _temporary_beside(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        require_held()
        os.replace(temporary, path)
        forget_damaged(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise refused(ResultsError, path, "written", error) from error
        raise


Content = bytes | Iterable[bytes]


def write_once(path: Path, content: Content) -> bool:
    """Write a file whole where there is none, and never over another.

    Args:
        path: Where; folders are made. Leftovers there are for :func:`remove_leftovers`.
        content: The bytes, or parts of them in order.

    Returns:
        Whether it was written; False where there is a file already.

    Raises:
        ResultsError: When the folder cannot be written or the disk is full.
    """
    temporary = _name_of_new(path)
    try:
        with _opened_new(temporary) as file:
            _fill(file, content)
            file.flush()
            os.fsync(file.fileno())
        require_held()
        return _put_where_none_is(temporary, path)
    except OSError as error:
        raise refused(ResultsError, path, "written", error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def written_together() -> Iterator[Callable[[Path, Content], None]]:
    """Give a function that writes new files as :func:`write_once` does, a thousand as fast as ten.

    They are flushed to the disk together when the block ends, and only then get their names, in
    the order of the calls. Where the content raises, that file alone is none.
    """
    staged: list[tuple[Path, Path]] = []

    def write(path: Path, content: Content) -> None:
        temporary = _name_of_new(path)
        staged.append((temporary, path))
        try:
            with _opened_new(temporary) as file:
                _fill(file, content)
        except OSError as error:
            raise refused(ResultsError, path, "written", error) from error
        except DamagedError:
            del staged[-1]
            temporary.unlink()
            raise

    try:
        yield write
        _flush_all(temporary for temporary, _ in staged)
        require_held()
        for temporary, path in staged:
            _put_where_none_is(temporary, path)
    except OSError as error:
        raise refused(ResultsError, path, "written", error) from error
    finally:
        for temporary, _ in staged:
            with suppress(OSError):
                temporary.unlink()


def _flush_all(files: Iterable[Path]) -> None:
    """Flush files to the disk, all at once where the system can."""
    if hasattr(os, "sync"):
        os.sync()
        return
    for path in files:
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def _name_of_new(path: Path) -> Path:
    return path.with_name(f".{path.name}.{own_mark()}.{secrets.token_hex(4)}.tmp")


def _fill(file: BinaryIO, content: Content) -> None:
    file.writelines([content] if isinstance(content, bytes) else content)


def _opened_new(path: Path) -> BinaryIO:
    """Open a new file; its folder is made where it is not there, which is seldom."""
    try:
        return path.open("xb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")


def _put_where_none_is(temporary: Path, path: Path) -> bool:
    """Give a file its name, by a link where there are links: a renaming would replace another."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:
        if path.exists():
            return False
        os.replace(temporary, path)
    return True


def require_writable(path: Path) -> None:
    """Check that a file can be written before the work that makes its content; makes its folder.

    Raises:
        ResultsError: When it cannot.
    """
    _temporary_beside(path).unlink()


def _temporary_beside(path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        prefix = f".{path.name}.{own_mark()}."
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=".tmp")
        os.close(handle)
    except OSError as error:
        raise refused(ResultsError, path, "written", error) from error
    return Path(name)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed processes from a folder, and no living one's.

    A process of another machine counts as dead when its file has not grown for a day.
    """
    for file in folder.glob(".*.tmp"):
        mark = file.name.split(".")[-3] if file.name.count(".") > 3 else ""
        with suppress(OSError):  # another process may be quicker
            if is_gone(mark) or time.time() - file.stat().st_mtime > _OLD:
                file.unlink()


def _umask() -> int:
    """Return the process's mask; the system has no call that only reads it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
