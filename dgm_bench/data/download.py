"""Downloading published files: from several mirrors, with checksums, resuming where interrupted.

No incomplete file has its final name: downloads are written to a ``.part`` file beside it, which
has to have the published checksum, where one is known, before it gets that name. Nothing is taken
beyond the size that is known, nor from another host than the one that was asked, unless the
checksum is known.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from dgm_bench.control import ask
from dgm_bench.data.archives import unpack
from dgm_bench.data.cards import Download
from dgm_bench.data.files import is_published
from dgm_bench.errors import DataError

_CHUNK = 1 << 20
_TIMEOUT = 30.0
_MOST_REDIRECTS = 10
#: How much more may come than a card says, whose size may be rounded.
_SLACK = 1.25
_PAGES = ("text/html", "application/xhtml+xml")


class NotPublishedError(requests.RequestException):
    """What a server gives is not the published file; the message says why, in few words."""


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
        if not was_there or not is_published(item, target):
            _retrieve(item, target, progress)
        if item.unpacked:
            unpack(target, target.parent, item.unpacked)
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
    failures = []
    for url in item.urls:
        try:
            _Transfer(item, _part_of(target), progress).fetch(url)
        except requests.RequestException as error:
            failures.append(f"{urlsplit(url).netloc}: {_in_short(error)}")
        else:
            os.replace(_part_of(target), target)
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
class _Transfer:
    """Fetches a file, and continues where an earlier attempt stopped.

    Args:
        item: What is known of the file.
        part: Where the bytes grow; kept when the connection breaks.
        progress: Show a bar, where there is a terminal.
    """

    item: Download
    part: Path
    progress: bool

    def fetch(self, url: str) -> None:
        """Download ``url`` to ``part``; as long as a broken connection brought something, again.

        A part of an earlier attempt is only continued where a checksum says whether it fits.

        Raises:
            requests.RequestException: The server refuses, gives another file, or the connection
                keeps breaking.
        """
        if not self.item.checksum:
            self.part.unlink(missing_ok=True)
        begun = self._have() > 0
        while not self._receive(url):
            pass
        if not is_published(self.item, self.part):
            self.part.unlink()
            if not begun:
                raise NotPublishedError("wrong checksum")
            self.fetch(url)  # the part was another file's

    @property
    def _most(self) -> float:
        return self.item.size * _SLACK if self.item.size else float("inf")

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _receive(self, url: str) -> bool:
        """Receive what is missing; False when the connection broke but brought something."""
        before = self._have()
        headers = {"Range": f"bytes={before}-"} if before else {}
        headers["Accept-Encoding"] = "identity"  # lengths are those of the file itself
        with self._opened(url, headers) as response:
            if before and response.status_code == requests.codes.requested_range_not_satisfiable:
                return self._is_whole(response)
            response.raise_for_status()
            if response.status_code not in (requests.codes.ok, requests.codes.partial_content):
                raise NotPublishedError(f"HTTP status {response.status_code}")
            begin = self._begin(response, before)
            try:
                self._append(response, begin)
            except requests.ConnectionError:
                if self._have() <= before:
                    raise
                return False
        return True

    def _opened(self, url: str, headers: dict[str, str]) -> requests.Response:
        """Return the answer, of where the server redirects to, if that may be."""
        for _ in range(_MOST_REDIRECTS):
            response = requests.get(
                url, headers=headers, stream=True, timeout=_TIMEOUT, allow_redirects=False
            )
            if not response.is_redirect:
                return response
            response.close()
            url = self._redirected(url, response.headers["Location"])
        raise NotPublishedError("redirects without end")

    def _redirected(self, url: str, location: str) -> str:
        try:
            here, there = urlsplit(url), urlsplit(urljoin(url, location))
        except ValueError as error:
            raise NotPublishedError("redirects to what is no address") from error
        if there.scheme not in ("http", "https") or (here.scheme, there.scheme) == (
            "https",
            "http",
        ):
            raise NotPublishedError(f"redirects from {here.scheme} to {there.scheme or 'nothing'}")
        if there.netloc != here.netloc and not self.item.checksum:
            reason = f"redirects to {there.netloc}, and no checksum says whether that has the file"
            raise NotPublishedError(reason)
        return there.geturl()

    def _begin(self, response: requests.Response, before: int) -> int:
        """Return where the content begins that a server gives, which may ignore the range."""
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind in _PAGES:
            raise NotPublishedError("gives a web page: does the network ask for a login?")
        begin = 0
        if response.status_code == requests.codes.partial_content:
            begin = before
            if not response.headers.get("Content-Range", "").startswith(f"bytes {before}-"):
                raise NotPublishedError("gives another part than was asked for")
        self._require_bounded(begin + (_length(response) or 0))
        return begin

    def _require_bounded(self, total: int) -> None:
        if total > self._most:
            self.part.unlink(missing_ok=True)
            raise NotPublishedError(f"gives more than the {self.item.size:,} bytes it should have")

    def _is_whole(self, response: requests.Response) -> bool:
        """Return whether the file is complete; delete a part that belongs to another file."""
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        if total == str(self._have()):
            return True
        self.part.unlink()
        return False

    def _append(self, response: requests.Response, begin: int) -> None:
        """Write a response behind the first ``begin`` bytes."""
        length = _length(response)
        total = None if length is None else begin + length
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
            while chunk := _next_chunk(response):
                ask()
                begin += stream.write(chunk)
                bar.update(len(chunk))
                self._require_bounded(begin)
        if total is not None and self._have() < total:
            raise requests.ConnectionError(f"broke off after {self._have():,} of {total:,} bytes")


def _length(response: requests.Response) -> int | None:
    """Return how many bytes follow, where the server says so."""
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() and len(length) < 20 else None


def _next_chunk(response: requests.Response) -> bytes:
    """Return the next bytes as they are sent: some servers call an archive's gzip an encoding."""
    try:
        chunk: bytes = response.raw.read(_CHUNK, decode_content=False)
    except (HTTPError, OSError) as error:
        raise requests.ConnectionError(str(error)) from error
    return chunk
