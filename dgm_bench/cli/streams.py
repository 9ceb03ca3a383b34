"""Standard output and standard error as they are given: closed, full, or without our marks."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from dgm_bench.errors import OutputError
from dgm_bench.escaping import one_line, plain
from dgm_bench.screen import IN_ASCII

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Output(io.FileIO):
    """Standard output that says in one line why it cannot be written; a closed pipe is a pipe's."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _no_output(error) from error


def _no_output(error: OSError) -> OutputError:
    closed = error.errno == errno.EBADF
    reason = "is closed" if closed else f"cannot be written ({error.strerror})"
    remedy = "leave it open" if closed else "free space there"
    return OutputError("standard output", reason, f"{remedy}, or send it to a file")


class _Messages(io.FileIO):
    """Standard error, which may be closed or full: then there is nobody to tell."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError:
            return len(memoryview(data).cast("B"))


class _Warnings(logging.Handler):
    """Shows what the package logs as the command line shows the rest."""

    def emit(self, record: logging.LogRecord) -> None:
        tell(record.getMessage())


def prepare() -> None:
    """Make standard output and error safe to write to.

    Marks that their encoding lacks are written in ASCII. Descriptors that are closed are held by
    ones that cannot be used, so that no file that is opened later is taken for the output.
    """
    _hold_closed_descriptors()
    for name in ("COLUMNS", "LINES"):
        if not _is_size(os.environ.get(name, "1")):
            del os.environ[name]  # libraries read it too
    logging.getLogger("dgm_bench").addHandler(_Warnings())
    sys.stdout = _stream(sys.stdout, _Output(1, "w", closefd=False))
    sys.stderr = _stream(sys.stderr, _Messages(2, "w", closefd=False))


def _is_size(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6 and int(text) > 0


def _hold_closed_descriptors() -> None:
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # the lowest that is free is taken, which is this one
            os.open(os.devnull, os.O_WRONLY if descriptor == 0 else os.O_RDONLY)


def _stream(given: TextIO | None, raw: io.FileIO) -> io.TextIOWrapper:
    if os.name == "nt" and isinstance(given, io.TextIOWrapper) and given.isatty():
        given.reconfigure(errors=IN_ASCII)  # a console of Windows takes no bytes
        return given
    encoding = given.encoding if given is not None else "utf-8"
    at_once = isinstance(raw, _Messages) or raw.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, IN_ASCII, line_buffering=at_once)


def say(text: str) -> None:
    """Print lines of text without the control characters that they may hold.

    Raises:
        OutputError: When standard output cannot be written.
    """
    print(plain(text), flush=True)


def tell(text: str) -> None:
    """Print one line on standard error."""
    print(one_line(text), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Print what is escaped for its format, with the colours that it has.

    Raises:
        OutputError: When standard output cannot be written.
    """
    surely = text.encode("utf-8", "backslashreplace").decode()  # file names that are not UTF-8
    print(surely, flush=True)


def finish() -> None:
    """Write what is left; the interpreter must not find it at its end, and fail without a word.

    Raises:
        OutputError: When standard output cannot be written.
    """
    try:
        sys.stdout.flush()
    except BaseException:
        discard()
        raise


def without_output(error: Exception) -> None:
    """Go on without standard output, and say so: what is under way is not to be lost by it."""
    discard()
    if isinstance(error, OutputError):
        tell(f"warning: {error}; the runs go on without it")


def discard() -> None:
    """Let what is left to write go nowhere."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
