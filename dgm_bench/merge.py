"""Records of several results folders put into one: each run once, and nothing overwritten.

A run is known by its ``run_id``. The same file twice is one run; two files that differ under one
``run_id`` are told, and the one that is there stays. Which records count is asked when they are
read (:mod:`dgm_bench.store`), so that superseded ones come along as they are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from dgm_bench.errors import DamagedError, ResultsError, UsageError, reading
from dgm_bench.locks import holding
from dgm_bench.record_files import files_below
from dgm_bench.records import (
    OtherVersionError,
    RunRecord,
    parse_as,
    record_bytes,
)
from dgm_bench.sealed import remove_leftovers, written_together
from dgm_bench.store import ensure_writable

#: Runs that are written at a time: the disk is waited for once, and little is in memory.
BATCH = 1000
_RESTORE = "restore it from where the run was done, then merge again"
_PIECE = 1 << 20


@dataclass
class MergeReport:
    """What a merge did, or would do.

    Attributes:
        merged: Runs that are new in the results.
        cut_short: How many of them are unfinished.
        already: Runs that were there.
        completed: Of these, runs whose curve or artifacts were not.
        conflicts: Files that have the ``run_id`` of a run with another content.
        damaged: Records that are none, and curves and artifacts that are not what was written.
        other_versions: By results folder and version, records of a version that is not known.
    """

    merged: int = 0
    cut_short: int = 0
    already: int = 0
    completed: int = 0
    conflicts: list[ResultsError] = field(default_factory=list)
    damaged: list[ResultsError] = field(default_factory=list)
    other_versions: dict[tuple[Path, object], int] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether everything that was found is in the results."""
        return not (self.conflicts or self.damaged or self.other_versions)

    def lines(self) -> Iterator[str]:
        """Yield a line on each thing that was left out."""
        yield from (str(fault) for fault in (*self.conflicts, *self.damaged))
        for (folder, version), n in self.other_versions.items():
            what = f"{n} record{'s' * (n > 1)} of schema version {version}"
            yield str(ResultsError(folder, f"has {what}, which is not known here", UPDATE))

    def summary(self, *, dry_run: bool = False) -> str:
        """Return what became of all, in one line."""
        cut_short = f" ({self.cut_short} of them cut short)" if self.cut_short else ""
        parts = [
            f"{self.merged} run{'s' * (self.merged != 1)} {'to merge' if dry_run else 'merged'}",
            f"{self.already} there already",
            f"{self.completed} of these completed" if self.completed else "",
            f"{len(self.conflicts)} in conflict" if self.conflicts else "",
            f"{len(self.damaged)} damaged" if self.damaged else "",
        ]
        parts[0] += cut_short
        if other := sum(self.other_versions.values()):
            parts.append(f"{other} of another version")
        return ", ".join(filter(None, parts))


UPDATE = "merge with the dgm-bench that wrote them, or a newer one"


def merge(folders: Sequence[Path], results: Path, *, dry_run: bool = False) -> MergeReport:
    """Put the records of results folders, with curves and artifacts, into one.

    Each file is there whole or not at all, a run's record last. A merge that was ended goes on when
    it is done again.

    Args:
        folders: The results folders, or their ``runs``.
        results: Where to.
        dry_run: Only say what would be done.

    Raises:
        UsageError: When a folder is none, holds no results, or is the one that is merged into.
        ResultsError: When the system cannot read or write a file, or another merge is under way.
    """
    sources = [_results_folder(folder, results) for folder in folders]
    if dry_run:
        return _Merge(results, dry_run=True).all_of(sources)
    ensure_writable(results)
    lock, remedy = results / "work" / "merge.lock", "wait for it, then merge again"
    try:
        with holding(lock, "another merge is under way", remedy):
            return _Merge(results, dry_run=False).all_of(sources)
    finally:
        with suppress(OSError):  # runs are under way there
            lock.parent.rmdir()


def _results_folder(folder: Path, results: Path) -> Path:
    """Return the results folder that somebody named.

    Raises:
        UsageError: It is none, or the one that is merged into.
    """
    if not folder.is_dir():
        reason = "is a file" if folder.exists() else "no such folder"
        raise UsageError(folder, reason, "name results folders")
    found = folder if (folder / "runs").is_dir() else folder.parent
    if not (found / "runs").is_dir() or (found != folder and folder.name != "runs"):
        raise UsageError(folder, "is no results folder: it has no runs", "name results folders")
    here, there = found.resolve() / "runs", results.resolve() / "runs"
    if here.is_relative_to(there) or there.is_relative_to(here):
        remedy = "name another with --results DIR"
        raise UsageError(folder, "is merged into itself", remedy)
    return found


@dataclass(frozen=True)
class _Copy:
    """What is to be written of a run: its record, or None where that is there already."""

    record: RunRecord
    content: bytes | None
    curve: Path | None
    artifacts: Path


class _Merge:
    """One merge: what is known of the results, and the report.

    Args:
        results: Where to.
        dry_run: Write nothing.
    """

    def __init__(self, results: Path, *, dry_run: bool) -> None:
        self.results, self.dry_run, self.report = results, dry_run, MergeReport()
        if not dry_run:  # also where nothing is merged, so that the outcome can be
            (results / "runs").mkdir(exist_ok=True)
        files = map(Path, files_below(str(results / "runs"), self.report.damaged))
        self._known = {file.stem: file for file in files}
        self._kept = _names(results / "artifacts")

    def all_of(self, sources: Iterable[Path]) -> MergeReport:
        """Merge results folders, one after the other."""
        for source in sources:
            copies = self._copies(source)
            while some := list(islice(copies, BATCH)):
                if not self.dry_run:
                    self._write(some)
        return self.report

    # --------------------------------------------------------------------- what is new

    def _copies(self, source: Path) -> Iterator[_Copy]:
        """Yield what is to be written of a results folder."""
        artifacts = _names(source / "artifacts")
        for path in map(Path, files_below(str(source / "runs"), self.report.damaged)):
            try:
                copy = self._copy(path, source / "artifacts", artifacts)
            except OtherVersionError as error:
                key = source, error.version
                self.report.other_versions[key] = self.report.other_versions.get(key, 0) + 1
            except ResultsError as error:
                self.report.damaged.append(error)
            else:
                if copy is not None:
                    yield copy

    def _copy(self, path: Path, folder: Path, artifacts: Collection[str]) -> _Copy | None:
        """Return what is to be written of a run; None where all of it is there, or a conflict."""
        content, there = record_bytes(path), self._known.get(path.stem)
        if there is None:  # a file may have another name than its run
            record = _parsed(path, content)
            there = self._known.setdefault(record.run_id, path)
            if there is path:
                self.report.merged += 1
                self.report.cut_short += record.outcome.cut_short
                return _Copy(record, content, _curve(path, record), folder / record.run_id)
        if self._conflicts(path, content, there):
            return None
        self.report.already += 1
        if not (path.stem in artifacts and self._lacks(folder / path.stem)) and not _lacks_curve(
            path, there
        ):
            return None
        record = _parsed(path, content)
        return _Copy(record, None, _curve(path, record), folder / record.run_id)

    def _conflicts(self, path: Path, content: bytes, there: Path) -> bool:
        """Say whether a known run's record is another here, and tell of it."""
        known = record_bytes(there)
        if content == known:
            return False
        record = _parsed(path, content)
        try:
            if record == _parsed(there, known):
                return False
        except DamagedError as error:
            remedy = f"delete it and merge again: {path} is whole"
            raise DamagedError(there, error.reason, remedy) from error
        reason = f"has the run_id of {there}, and another content"
        remedy = "neither is changed: delete the one that is wrong"
        self.report.conflicts.append(ResultsError(path, reason, remedy))
        return True

    def _lacks(self, artifacts: Path) -> bool:
        """Say whether a known run has artifacts here that the results do not have."""
        kept = self.results / "artifacts" / artifacts.name
        return artifacts.name not in self._kept or bool(_names(artifacts) - _names(kept))

    # --------------------------------------------------------------------- writing it

    def _write(self, copies: Sequence[_Copy]) -> None:
        for folder in {copy.record.path(self.results).parent for copy in copies}:
            remove_leftovers(folder)
        with written_together() as write:
            for copy in copies:
                wrote = self._write_beside(copy, write)
                if copy.content is not None:  # last: it is what makes the run count
                    write(copy.record.path(self.results), copy.content)
                else:
                    self.report.completed += wrote

    def _write_beside(self, copy: _Copy, write: Callable[[Path, Iterator[bytes]], None]) -> bool:
        """Write curve and artifacts that are not there; say whether any was written."""
        wrote = False
        for file, target, digest in self._beside(copy):
            if target.exists():
                continue
            try:
                write(target, _checked(file, digest))
                wrote = True
            except DamagedError as error:
                self.report.damaged.append(error)
        return wrote

    def _beside(self, copy: _Copy) -> Iterator[tuple[Path, Path, str | None]]:
        """Yield a run's curve and artifacts: where they are, where they go, and their digests."""
        record, kept = copy.record, self.results / "artifacts" / copy.record.run_id
        if copy.curve is not None:
            target = record.path(self.results).with_name(copy.curve.name)
            yield copy.curve, target, record.curve_sha256
        for name, digest in record.artifacts.items():
            if (copy.artifacts / name).exists():  # not every folder has them
                yield copy.artifacts / name, kept / name, digest


def _parsed(path: Path, content: bytes) -> RunRecord:
    return parse_as(path, content, RunRecord.model_validate)


def _curve(path: Path, record: RunRecord) -> Path | None:
    return None if record.curve is None else path.parent / record.curve


def _lacks_curve(path: Path, there: Path) -> bool:
    """Say whether there is a curve beside a record, and none beside the known one of its run."""
    return path.with_suffix(".csv").exists() and not there.with_suffix(".csv").exists()


def _checked(file: Path, sha256: str | None) -> Iterator[bytes]:
    """Yield the parts of a file, and raise at its end where it is not what was written.

    Raises:
        DamagedError: Likewise, or when it cannot be read.
    """
    digest = hashlib.sha256()
    with reading(file, DamagedError), file.open("rb") as opened:
        while part := opened.read(_PIECE):
            digest.update(part)
            yield part
    if sha256 not in (None, digest.hexdigest()):
        raise DamagedError(file, "is damaged (its SHA-256 is another)", _RESTORE)


def _names(folder: Path) -> set[str]:
    """Return the names of what is in a folder, which need not be there."""
    try:
        return {name for name in os.listdir(folder) if not name.startswith(".")}
    except OSError:
        return set()
