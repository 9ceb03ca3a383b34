"""Errors for users, in one line that names the thing, the reason and the remedy."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

from dgm_bench.escaping import one_line, shown

T = TypeVar("T")

#: Statuses of a run that failed.
FailureStatus = Literal["diverged", "solver-failed", "out-of-memory"]


class DgmBenchError(Exception):
    """Something a user can put right. The command line shows it in one line and exits with 2.

    Args:
        thing: What is wrong: a file, an option, a cell. A path is told as people write it.
        reason: What is wrong with it.
        remedy: What to do about it; a command where there is one.
    """

    exit_code = 2

    def __init__(self, thing: object, reason: str, remedy: str = "") -> None:
        name = shown(thing) if isinstance(thing, Path) else str(thing)
        self.thing, self.reason, self.remedy = name or "''", reason, remedy
        text = f"{self.thing}: {reason}" + (f"; {remedy}" if remedy else "")
        super().__init__(one_line(text))

    def __reduce__(self) -> tuple[type[DgmBenchError], tuple[str, str, str]]:
        """Say how another process makes the same error."""
        return type(self), (self.thing, self.reason, self.remedy)


class UsageError(DgmBenchError):
    """A command, an option or a name that means nothing."""


class DeclarationError(DgmBenchError):
    """A paper, cell or recipe that is declared wrongly."""


class DataError(DgmBenchError):
    """A data file that is missing, broken, or not the real thing."""


class DataUnavailable(DataError):  # noqa: N818  the data is not broken, it is elsewhere
    """Data that is not here and could not be fetched; its cells are skipped with this reason."""


class ResultsError(DgmBenchError):
    """A results folder or record that cannot be read or written."""


class HeldError(ResultsError):
    """What another process holds."""


class DamagedError(ResultsError):
    """A file of results that is not what was written."""


class EngineError(DgmBenchError):
    """What runs are executed by is lost; what was done is kept."""

    exit_code = 1


class OutputError(DgmBenchError):
    """Standard output that cannot be written."""


class LostProcessError(DgmBenchError):
    """A process of several that compute one run has gone: a failed try; the command exits with 1.

    Args:
        process: Which one, in words.
        reason: What became of it.
    """

    exit_code = 1

    def __init__(self, process: str, reason: str) -> None:
        super().__init__(process, reason, "the same command goes on from the last checkpoint")


class UnexpectedError(DgmBenchError):
    """A fault of the program, or something that it lacks; the command line exits with 3."""

    exit_code = 3


Kind = TypeVar("Kind", bound=DgmBenchError)

#: What to do about what the system refuses, whatever is in the file.
_REMEDIES: Mapping[int | None, str] = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of its path is a file: check the path",
    errno.EISDIR: "it is a folder: name a file",
    errno.EEXIST: "a file is in the place of a folder: name another",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ELOOP: "its links lead in a circle: check the path",
    errno.EROFS: "name a place that can be written",
    errno.ENOSPC: "free space there or name another place",
    errno.EDQUOT: "free space there or name another place",
    errno.EFBIG: "free space there or name another place",
    errno.EMFILE: "allow more open files: ulimit -n",
    errno.ENFILE: "end other programs, then try again",
    errno.ENOMEM: "free memory, then try again",
    errno.EAGAIN: "another program holds it: wait for it, then try again",
    errno.EBUSY: "another program holds it: wait for it, then try again",
    errno.ETXTBSY: "another program holds it: wait for it, then try again",
    errno.ENOTCONN: "see that its server answers, then try again",
    errno.ESTALE: "see that its server answers, then try again",
    errno.ETIMEDOUT: "see that its server answers, then try again",
}


def refused(
    kind: type[Kind], path: object, done: Literal["read", "written", "used"], error: OSError
) -> Kind:
    """Return the error for a file that the system refuses, which says nothing of what is in it.

    Args:
        kind: Of the error.
        path: The file or folder.
        done: What cannot be done with it.
        error: What the system said.
    """
    allow = {"read": "readable", "written": "writable", "used": "accessible"}[done]
    denied = f"make it {allow}, or name another"
    remedies = {**_REMEDIES, errno.EACCES: denied, errno.EPERM: denied}
    remedy = remedies.get(error.errno, "see that its disk works, then try again")
    return kind(path, f"cannot be {done} ({error.strerror or error})", remedy)


@contextmanager
def reading(path: object, kind: type[DgmBenchError]) -> Iterator[None]:
    """Tell in one line that the system cannot read a file; what is wrong in it is for the caller.

    Libraries raise OSError also for a format that they do not know, and then without a number.

    Args:
        path: The file.
        kind: Of the error.

    Raises:
        DgmBenchError: Of that kind.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise refused(kind, path, "read", error) from error


def explained(error: OSError) -> DgmBenchError | None:
    """Return what the system refused, where it says of which file, or the current folder is gone.

    Args:
        error: One that nothing nearer to the file has explained.
    """
    if error.errno is not None and error.filename is not None:
        return refused(DgmBenchError, error.filename, "used", error)
    try:
        os.getcwd()
    except OSError:
        return DgmBenchError("the current folder", "is gone", "change to one that exists")
    return None


class RunFailure(Exception):  # noqa: N818  a failure of the run, not a mistake of the user
    """Training or evaluation that failed; ends one run with a status, never the command.

    Args:
        status: What the record says of it.
        reason: What happened, with numbers.
        hint: What to try.
    """

    def __init__(self, status: FailureStatus, reason: str, hint: str) -> None:
        self.status, self.reason, self.hint = status, reason, hint
        super().__init__(f"{status}: {reason}; {hint}")


def shortened(text: str, most: int = 60) -> str:
    """Return a text as it is, or its beginning where it is too long for a message."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``'did you mean X?'`` for the nearest known name, else an empty string.

    Capitals, and an underscore for a hyphen, make no difference.
    """
    names = {_folded(name): name for name in known}
    near = difflib.get_close_matches(_folded(word), names, n=1, cutoff=0.6)
    return f"did you mean {names[near[0]]!r}?" if near else ""


def _folded(word: str) -> str:
    return word.lower().replace("_", "-")


def choose_from(word: str, known: Iterable[object]) -> str:
    """Return the remedy for a word that is not known: the nearest that is, or else all of them."""
    names = [str(name) for name in known]
    if near := did_you_mean(word, names):
        return near
    if not names:
        return "leave it out"
    return f"use {', '.join(names[:-1])} or {names[-1]}" if names[1:] else f"use {names[0]}"


def find_named(name: str, known: Mapping[str, T], kind: str, remedy: str = "") -> T:
    """Return what is known under a name that a user gave.

    Args:
        name: The name.
        known: What there is, by name.
        kind: What that is, in one word or two.
        remedy: What to do where no known name is near; empty for one that lists them all.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in known:
        hint = did_you_mean(name, known) or remedy or choose_from(name, known)
        raise UsageError(name, f"no such {kind}", hint)
    return known[name]


def require_choice(thing: str, value: object, choices: Collection[object]) -> None:
    """Refuse a value that is not among those that an argument may have.

    Args:
        thing: What it is: the argument's name.
        value: What it was given.
        choices: What it may be.

    Raises:
        DeclarationError: It says which choice is nearest, or names all.
    """
    if value not in choices:
        remedy = choose_from(str(value), choices)
        raise DeclarationError(f"{thing} {value!r}", "is not known", remedy)


def require_positive(**settings: float) -> None:
    """Refuse an argument that is not above zero.

    Raises:
        DeclarationError: It names the argument.
    """
    for name, value in settings.items():
        if not value > 0:
            raise DeclarationError(f"{name} {value}", "is not positive", "use a number above 0")
