"""Downloading published files: from several mirrors, with checksums, resuming where interrupted.

No incomplete file has its final name: downloads are written to a ``.part`` file beside it, and
archives are unpacked in a temporary folder before anything is moved into place.
"""

from __future__ import annotations

import gzip
import os
import shutil
import sys
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests
from tqdm import tqdm

from dgm_bench.data.cards import Download
from dgm_bench.errors import DataError

_CHUNK = 1 << 20
_TIMEOUT = 30.0
_CORRUPT = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)


def download(item: Download, root: Path, *, progress: bool) -> None:
    """Fetch a file below ``root``, and unpack it beside itself if it is an archive.

    An archive that somebody put there is unpacked without a download, and stays.

    Raises:
        DataError: No mirror has the published file, there is no space, or the archive is corrupt
            or unsafe.
    """
    target = root / item.path
    _require_space(item, target)
    was_there = target.exists()
    try:
        _retrieve(item, target, progress)
        if item.unpacked:
            unpack(target, target.parent)
            if not was_there:
                target.unlink()
    except OSError as error:
        raise DataError(target, f"cannot be written ({error})", "see DGM_BENCH_DATA") from error


def _require_space(item: Download, target: Path) -> None:
    """Refuse a download that the disk has no room for."""
    folder = next(parent for parent in target.parents if parent.exists())
    part = _part_of(target)
    here = target if target.exists() else part
    needed = item.size + item.unpacked - (here.stat().st_size if here.exists() else 0)
    free = shutil.disk_usage(folder).free
    if free < needed:
        reason = f"needs {needed / 1e9:.2f} GB, {folder} has {free / 1e9:.2f} GB free"
        raise DataError(target, reason, "free some, or name another folder in DGM_BENCH_DATA")


# -------------------------------------------------------------------------------- downloads


def _retrieve(item: Download, target: Path, progress: bool) -> None:
    """Fetch a file from the first mirror that gives the published one."""
    pooch.get_logger().setLevel("WARNING")
    known = f"sha256:{item.sha256}" if item.sha256 else f"md5:{item.md5}" if item.md5 else None
    downloader = ResumingDownloader(_part_of(target), progress)
    failures = []
    for url in item.urls:
        try:
            pooch.retrieve(url, known, target.name, target.parent, downloader=downloader)
        except requests.RequestException as error:
            failures.append(f"{urlsplit(url).netloc}: {_in_short(error)}")
        except ValueError:  # how pooch reports another checksum
            failures.append(f"{urlsplit(url).netloc}: wrong checksum")
        else:
            return
    remedy = "run the same command again: it continues where it stopped"
    raise DataError(target, f"cannot be downloaded ({'; '.join(failures)})", remedy)


def _in_short(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"HTTP status {error.response.status_code}"
    return "timed out" if isinstance(error, requests.Timeout) else str(error)[:120]


def _part_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


@dataclass
class ResumingDownloader:
    """A downloader for :func:`pooch.retrieve` that continues where an earlier attempt stopped.

    Args:
        part: Where the bytes grow; kept when the connection breaks.
        progress: Show a bar, where there is a terminal.
    """

    part: Path
    progress: bool = True

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Download ``url`` and move it to ``output_file`` once it is whole.

        As long as a broken connection brought something, it is tried again.

        Raises:
            requests.RequestException: The server refuses, or the connection keeps breaking.
        """
        while not self._receive(url):
            pass
        os.replace(self.part, output_file)

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _receive(self, url: str) -> bool:
        """Receive what is missing; False when the connection broke but brought something."""
        before = self._have()
        headers = {"Range": f"bytes={before}-"} if before else {}
        headers["Accept-Encoding"] = "identity"  # lengths are those of the file itself
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                return self._is_whole(response)
            response.raise_for_status()
            begin = before if response.status_code == requests.codes.partial_content else 0
            try:
                self._append(response, begin)
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
                if self._have() <= before:
                    raise
                return False
        return True

    def _is_whole(self, response: requests.Response) -> bool:
        """Return whether the file is complete; delete a part that belongs to another file."""
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        if total == str(self._have()):
            return True
        self.part.unlink()
        return False

    def _append(self, response: requests.Response, begin: int) -> None:
        """Write a response behind the first ``begin`` bytes; a server may ignore the range."""
        length = response.headers.get("Content-Length")
        total = begin + int(length) if length else None
        hidden = not (self.progress and sys.stderr.isatty())
        self.part.parent.mkdir(parents=True, exist_ok=True)
        with (
            self.part.open("ab" if begin else "wb") as stream,
            tqdm(
                desc=self.part.stem,
                total=total,
                initial=begin,
                unit="B",
                unit_scale=True,
                disable=hidden,
            ) as bar,
        ):
            for chunk in response.iter_content(_CHUNK):
                bar.update(stream.write(chunk))
        if total is not None and self._have() < total:
            raise requests.ConnectionError(f"broke off after {self._have():,} of {total:,} bytes")


# --------------------------------------------------------------------------------- archives


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar archive into ``folder``: all of it or nothing.

    Raises:
        DataError: The archive is truncated or corrupt, and is deleted; or a member is a link, a
            device, or has a path that climbs out.
    """
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as staging:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(staging, filter=_plain_members_only)
        except tarfile.FilterError as error:
            reason = f"unsafe archive: {error}"
            raise DataError(archive, reason, "it is not the published file: delete it") from error
        except _CORRUPT as error:
            archive.unlink()
            reason = f"was truncated or corrupt ({error}), and is deleted"
            raise DataError(archive, reason, "run the same command again") from error
        for path in sorted(Path(staging).rglob("*")):
            if path.is_file():
                target = folder / path.relative_to(staging)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)


def _plain_members_only(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """Tarfile's ``data`` filter, and neither links nor absolute paths."""
    if member.issym() or member.islnk():
        raise tarfile.LinkOutsideDestinationError(member, member.linkname)
    if member.name.startswith("/"):
        raise tarfile.AbsolutePathError(member)
    return tarfile.data_filter(member, folder)
