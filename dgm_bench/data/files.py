"""Which files of a data set are there, and whether they are the published ones. Torch-free."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from dgm_bench.data.cards import DataFile, DatasetCard, Download
from dgm_bench.errors import DataError, reading

Status = Literal["embedded", "here", "missing", "incomplete"]
Outcome = Literal["ok", "wrong checksum", "wrong size", "missing", "no checksum"]


@dataclass(frozen=True)
class DataState:
    """Whether a data set can be loaded, judged by existence and size only.

    Attributes:
        status: ``embedded``, ``here``, ``missing`` or ``incomplete``.
        detail: The folder, or the file that is missing or short.
        remedy: The command that puts it right; empty where nothing is wrong.
    """

    status: Status
    detail: str
    remedy: str = ""

    @property
    def loadable(self) -> bool:
        """Whether it loads without a download."""
        return self.status in ("embedded", "here")


@dataclass(frozen=True)
class FileCheck:
    """What became of comparing a file with the published one.

    Attributes:
        path: The file, or the pattern of a group of files.
        outcome: ``no checksum`` where the file is there and nothing is published to compare with.
        detail: What was expected and what was found.
    """

    path: Path
    outcome: Outcome
    detail: str = ""


def home_of(card: DatasetCard, root: Path) -> Path:
    """Return the folder below ``root`` that holds the most of a set's files; else the first."""
    homes = [root / home for home in card.homes] or [root]
    return max(homes, key=lambda home: sum(bool(file.find(home)) for file in card.files))


def state_of(card: DatasetCard, root: Path) -> DataState:
    """Judge a data set by existence and size of its files."""
    if card.embedded:
        return DataState("embedded", "needs no files")
    home = home_of(card, root)
    checks = [check for file in card.files if (check := _quick_check(file, home))]
    if not checks:
        return DataState("here", str(home))
    nothing = not any(file.find(home) for file in card.files)
    detail = f"{checks[0].path}: {checks[0].detail}"
    return DataState("missing" if nothing else "incomplete", detail, card.fetch_command)


def check_files(card: DatasetCard, root: Path) -> list[FileCheck]:
    """Compare every file of a data set with the published one, by checksum where there is one."""
    home = home_of(card, root)
    return [_quick_check(file, home) or _checksum_check(file, home) for file in card.files]


def checksums(card: DatasetCard, home: Path) -> tuple[dict[str, str], bool]:
    """Return SHA-256 of every file of a set, and whether all equal the published ones."""
    files = {file.path: digest(file.find(home)) for file in card.files}
    return files, all(
        files[file.path] == file.sha256
        if file.sha256
        else _checksum_check(file, home).outcome == "ok"
        for file in card.files
    )


def require_published(card: DatasetCard, home: Path) -> None:
    """Refuse a file that has another checksum than the published one.

    Raises:
        DataError: It says which file that is.
    """
    for file in card.files:
        if not file.checksum or file.repacked:
            continue
        check = _checksum_check(file, home)
        if check.outcome != "ok":
            reason = f"is not the published file: its checksum is {check.detail}"
            raise DataError(check.path, reason, f"delete it and run {card.fetch_command}")


def noted(card: DatasetCard, verified: bool) -> str:
    """Return the note of a loaded set: its card's, and whether its files are others."""
    doubt = "" if verified else "files differ from the published ones: see dgm-bench data verify"
    return "; ".join(part for part in (card.note, doubt) if part)


def _quick_check(file: DataFile, home: Path) -> FileCheck | None:
    """Return what existence and size say against a file, or None."""
    found, path = file.find(home), home / file.path
    if not found:
        return FileCheck(path, "missing", "no such folder" if file.suffixes else "not found")
    if file.suffixes:
        return None
    if len(found) != file.count:
        return FileCheck(path, "missing", f"{len(found)} of {file.count} files found")
    size = found[0].stat().st_size
    if file.size is not None and size != file.size:
        return FileCheck(path, "wrong size", f"{size:,} bytes, expected {file.size:,}")
    return None


def _checksum_check(file: DataFile, home: Path) -> FileCheck:
    """Compare the checksum of a file that is there."""
    path = home / file.path
    if file.suffixes:
        images = len(listed(home, file.path, file.suffixes))
        detail = f"{images:,} images of {file.count:,} published; their checksums are not published"
        return FileCheck(path, "no checksum", detail)
    if file.checksum is None:
        return FileCheck(path, "no checksum", "none is published for this file")
    found = _checksum_like(file, file.find(home))
    if found != file.checksum:
        return FileCheck(path, "wrong checksum", f"{found}, expected {file.checksum}")
    return FileCheck(path, "ok")


def is_published(item: Download, path: Path) -> bool:
    """Return whether a downloaded file has its published checksum, where one is known."""
    return item.checksum in (None, _checksum_like(item, [path]))


def _checksum_like(known: DataFile | Download, paths: Sequence[Path]) -> str:
    """Return the checksum of a file, or of several, of the kind that is published."""
    if known.sha256 or not known.checksum:
        return digest(paths)
    return checksum(paths[0], "md5") if known.md5 else git_blob(paths[0])


def digest(paths: Sequence[Path]) -> str:
    """Return SHA-256 of a file, or, of several, of their names and SHA-256 in the given order."""
    if len(paths) == 1:
        return checksum(paths[0], "sha256")
    lines = (f"{checksum(path, 'sha256')}  {path.name}\n" for path in paths)
    return hashlib.sha256(as_bytes("".join(lines))).hexdigest()


def as_bytes(text: str) -> bytes:
    """Return UTF-8 with the bytes of file names as they are, which may be no UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def checksum(path: Path, algorithm: str) -> str:
    """Return the hexadecimal checksum of one file, read in chunks."""
    with reading(path, DataError), path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def git_blob(path: Path) -> str:
    """Return the name that git gives to a file of this content."""
    found = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with reading(path, DataError), path.open("rb") as stream:
        while chunk := stream.read(2**20):
            found.update(chunk)
    return found.hexdigest()


class Listed(NamedTuple):
    """A file as its folder lists it: path relative to the home, bytes, time of its last change."""

    path: str
    size: int
    mtime_ns: int


def listed(home: Path, folder: str, suffixes: Sequence[str]) -> list[Listed]:
    """Return the files below a folder whose names end so, in any case, sorted by path.

    Hidden files are left out.

    Raises:
        DataError: A folder cannot be read.
    """
    with reading(home / folder, DataError):
        return sorted(_walk(home / folder, Path(folder).as_posix(), tuple(suffixes)))


def _walk(folder: Path, name: str, suffixes: tuple[str, ...]) -> Iterator[Listed]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = entry.name if name == "." else f"{name}/{entry.name}"
            if entry.is_dir():
                yield from _walk(folder / entry.name, path, suffixes)
            elif entry.name.lower().endswith(suffixes):
                stat = entry.stat()
                yield Listed(path, stat.st_size, stat.st_mtime_ns)
