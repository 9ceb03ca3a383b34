"""Unpacking published archives, which hold files and folders and no more than their cards say."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path, PurePosixPath

from dgm_bench.control import ask
from dgm_bench.errors import DataError

#: How much more may be unpacked than a card says, whose sizes are rounded; how many members there
#: may be (BSDS300 has 300), and how long a header that names one.
_SLACK, _MOST_MEMBERS, _LONGEST_NAME = 2, 10_000, 1 << 16
_KINDS = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)
_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE)
_CORRUPT = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError)


class UnsafeError(Exception):
    """An archive that holds what no published one does."""


class _Member(tarfile.TarInfo):
    """A member of an archive, refused by its header where it is no file, folder or name."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        """Return what a header says.

        Raises:
            UnsafeError: It is of a link, a device, or a name of more than 64 kB.
        """
        member = super().frombuf(buf, encoding, errors)
        if member.type not in (*_KINDS, *_NAMES):
            raise UnsafeError(f"{member.name!r} is neither a file nor a folder")
        if member.size < 0 or (member.type in _NAMES and member.size > _LONGEST_NAME):
            raise UnsafeError(f"a header of {member.size:,} bytes")
        return member


class _Bounded(gzip.GzipFile):
    """A gzipped file that unpacks to no more than so many bytes."""

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(path)
        self.most, self.given = most, 0

    def read(self, size: int | None = -1) -> bytes:
        """Read on.

        Raises:
            UnsafeError: That was too much.
            Interrupted: It is time to stop.
        """
        ask()
        content = super().read(size)
        self.given += len(content)
        if self.given > self.most:
            raise UnsafeError(f"it unpacks to more than {self.most:,} bytes")
        return content


def unpack(archive: Path, folder: Path, size: int) -> None:
    """Unpack a gzipped tar archive into ``folder``: all of it or nothing.

    Args:
        archive: The file.
        folder: Where its members go.
        size: Bytes that they take, at least about.

    Raises:
        DataError: The archive is truncated or corrupt, and is deleted; or it unpacks to much more,
            or a member is a link, a device, or has a path that climbs out.
    """
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as staging:
        try:
            _unpack(archive, Path(staging), _SLACK * size + (1 << 20))
        except UnsafeError as error:
            reason = f"unsafe archive: {error}"
            raise DataError(archive, reason, "it is not the published file: delete it") from error
        except _CORRUPT as error:
            archive.unlink()
            reason = f"was truncated or corrupt ({str(error)[:200]}), and is deleted"
            raise DataError(archive, reason, "run the same command again") from error
        except OSError as error:
            reason = f"cannot be unpacked ({os.strerror(error.errno or 0)})"
            raise DataError(archive, reason, "see that there is room, or fetch it again") from error
        for path in sorted(Path(staging).rglob("*")):
            if path.is_file():
                target = folder / path.relative_to(staging)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)


def _unpack(archive: Path, folder: Path, most: int) -> None:
    """Write the files of an archive, without their owners, modes and times."""
    with (
        _Bounded(archive, most) as unzipped,
        tarfile.open(fileobj=unzipped, mode="r|", tarinfo=_Member) as tar,
    ):
        for number, member in enumerate(tar):
            if number >= _MOST_MEMBERS:
                raise UnsafeError(f"it has more than {_MOST_MEMBERS:,} members")
            target = folder / _checked_name(member)
            if not member.isdir():
                _write(tar, member, target)
        while unzipped.read(1 << 20):  # to its checksum
            pass


def _checked_name(member: tarfile.TarInfo) -> PurePosixPath:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\0" in member.name:
        raise UnsafeError(f"{member.name!r} lies outside")
    return name


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    content = None if member.issparse() else tar.extractfile(member)
    if content is None:
        raise UnsafeError(f"{member.name!r} is no plain file")
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as stream:
        shutil.copyfileobj(content, stream)
