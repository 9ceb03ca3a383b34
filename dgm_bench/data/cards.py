"""Cards of the data sets: what each is, where its files lie, and where they come from.

Torch-free: the planner and ``data list`` read cards and file sizes only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class DataFile:
    """A file that a data set is read from.

    Attributes:
        path: Relative to the data set's home; a shell pattern when ``count`` is above 1.
        size: Bytes of the published file, where known.
        sha256: Of the published file; for a pattern, of all its files (see ``files.digest``).
        md5: Of the published file, where only that is published.
        git_blob: Git's name of the published file, where only that is at hand.
        count: How many files the pattern matches; of a folder, how many images the published holds.
        repacked: Whether the same data is about in files of other bytes: one of another checksum
            is then read, and told; otherwise it is refused.
        suffixes: Of the images, where ``path`` is a folder that the user has; else empty.
    """

    path: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    git_blob: str | None = None
    count: int = 1
    repacked: bool = False
    suffixes: tuple[str, ...] = ()

    @property
    def checksum(self) -> str | None:
        """The published one, of whichever kind."""
        return self.sha256 or self.md5 or self.git_blob

    def find(self, home: Path) -> list[Path]:
        """Return the files that are there, sorted by name; of a folder of images itself alone."""
        path = home / self.path
        if self.suffixes:
            return [path] if path.is_dir() else []
        if self.count > 1:
            return sorted(home.glob(self.path))
        return [path] if path.is_file() else []


@dataclass(frozen=True)
class Download:
    """A file to fetch, from the first of its mirrors that answers.

    Attributes:
        urls: The mirrors, in the order they are tried.
        path: Where it goes, relative to the data root; an archive is unpacked beside it.
        size: Bytes to download, at least about; asked for before the download starts.
        unpacked: Bytes it takes once unpacked; 0 for a file that is used as it is.
        sha256: Of the published file, where known.
        md5: Of the published file, where only that is published.
        git_blob: Git's name of the published file, where only that is at hand.
    """

    urls: tuple[str, ...]
    path: str
    size: int
    unpacked: int = 0
    sha256: str | None = None
    md5: str | None = None
    git_blob: str | None = None

    @property
    def checksum(self) -> str | None:
        """The published one, of whichever kind."""
        return self.sha256 or self.md5 or self.git_blob


@dataclass(frozen=True)
class DatasetCard:
    """What is known of a data set without loading it.

    Attributes:
        name: The name on the command line.
        title: One line for people.
        event_shape: Shape of one example: ``(channels, height, width)`` of an image, also where
            the loader gives its pixels as a vector, else ``(dim,)``.
        unit: Unit of the likelihood reported for it: ``nats`` or ``bits/dim``.
        sizes: Examples in each split.
        loader: ``module:function`` below ``dgm_bench.data``; called with card, home and options.
        classes: How many classes the examples have; None where they have no labels.
        version: Changes whenever the prepared arrays do.
        homes: Folders below the data root that may hold the files; the first that has any is used.
        files: What it is read from; empty for embedded sets.
        downloads: Where the files come from.
        options: The loader's options and their allowed values; the first is the default.
        seeded: Whether the split depends on the run: its loader is then given the run's seed.
        manual: Where a person finds the files by hand.
        layout: What is expected below the data root, of a set that is never downloaded.
        note: What to know about it.
    """

    name: str
    title: str
    event_shape: tuple[int, ...]
    unit: str
    sizes: Mapping[str, int]
    loader: str
    classes: int | None = None
    version: str = "1"
    homes: tuple[str, ...] = ()
    files: tuple[DataFile, ...] = ()
    downloads: tuple[Download, ...] = ()
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seeded: bool = False
    manual: str = ""
    layout: str = ""
    note: str = ""

    @property
    def dim(self) -> int:
        """Dimensions of one example."""
        return math.prod(self.event_shape)

    @property
    def is_image(self) -> bool:
        """Whether one example is an image."""
        return len(self.event_shape) == 3

    @property
    def embedded(self) -> bool:
        """Whether it needs no files."""
        return not self.files

    @property
    def fetch_command(self) -> str:
        """The command that fetches its files."""
        return f"dgm-bench data fetch {self.name}"


def split_sizes(train: int, val: int, test: int) -> dict[str, int]:
    """Return the numbers of examples by the names of the splits."""
    return {"train": train, "val": val, "test": test}


def as_published(file: DataFile, folder: str, *mirrors: str) -> Download:
    """Return the download of a file that is read as it is, under the same name on every mirror."""
    return Download(
        urls=tuple(f"{mirror}/{file.path}" for mirror in mirrors),
        path=f"{folder}/{file.path}",
        size=file.size or 0,
        sha256=file.sha256,
    )
