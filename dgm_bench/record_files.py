"""The record files of a folder: all that are whole, and one line on those that are not.

One broken file must not keep the others from being read, nor go unsaid.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dgm_bench.errors import ResultsError, refused
from dgm_bench.record_index import RecordIndex
from dgm_bench.records import RunRecord

_LOG = logging.getLogger("dgm_bench")
#: Parts of a results folder that hold JSON files which are not records.
NOT_RECORDS = frozenset({"schema", "work", "artifacts", "mlartifacts", "performance"})
#: How many files an index pays for: fewer are read in a tenth of a second.
INDEXED_FROM = 200
#: How many broken files a warning describes before it counts the rest.
DESCRIBED = 3


@dataclass
class Reading:
    """What a folder of records holds.

    Attributes:
        records: Records by their files, newest last.
        left_out: Why each other file is none that counts.
        misplaced: Records that count, and lie elsewhere than they should.
    """

    records: dict[str, RunRecord] = field(default_factory=dict)
    left_out: list[ResultsError] = field(default_factory=list)
    misplaced: list[ResultsError] = field(default_factory=list)

    def beside(self, stored: Reading) -> Reading:
        """Return both: a run that is in both is the stored one."""
        kept = {record.run_id for record in stored.records.values()}
        ours = {p: record for p, record in self.records.items() if record.run_id not in kept}
        return Reading(
            _by_age(ours | stored.records),
            self.left_out + stored.left_out,
            self.misplaced + stored.misplaced,
        )

    def tell(self, strict: bool) -> None:
        """Say in one line on stderr what is wrong, if anything is.

        Raises:
            ResultsError: The first fault, where ``strict`` allows none.
        """
        faults = [*self.left_out, *self.misplaced]
        if faults and strict:
            raise faults[0]
        lines = _summed_up("left out", self.left_out), _summed_up("misplaced", self.misplaced)
        if text := "; ".join(line for line in lines if line):
            _LOG.warning("warning: %s", text)


def read_all(root: Path, results: Path | None = None, *, strict: bool = False) -> Reading:
    """Read every record below a folder, and tell in one line on stderr what is none.

    Of two records with the same ``run_id`` one counts.

    Args:
        root: The folder, which need not exist.
        results: The results folder where ``root`` is its ``runs``: records then have a place.
        strict: Whether to read every file anew, and to refuse the first that is wrong.

    Raises:
        ResultsError: That one.
    """
    found, read = Reading(), {}
    paths = list(files_below(str(root), found.left_out))
    index = RecordIndex(None if strict or len(paths) < INDEXED_FROM else root)
    with _uncollected():
        for path in paths:
            try:
                read[path] = index.record(path)
            except ResultsError as error:
                found.left_out.append(error)
    index.save()
    found.records = _by_age(read)
    _leave_out_doubles(found, results)
    if results is not None:
        _find_misplaced(found, results)
    found.tell(strict)
    return found


def _by_age(records: dict[str, RunRecord]) -> dict[str, RunRecord]:
    return dict(sorted(records.items(), key=lambda item: (item[1].created, item[1].run_id)))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Make records without looking for garbage: Python would look through all of them each time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def record_files(path: Path) -> list[Path]:
    """Return the record files that a path means: a file, a folder of records, or of results.

    Raises:
        ResultsError: When the path does not exist.
    """
    if path.is_dir():
        return [Path(file) for file in files_below(str(root_of(path)), [])]
    if not path.exists():
        raise ResultsError(path, "no such file or folder", "name a record or a results folder")
    return [path]


def root_of(path: Path) -> Path:
    """Return the folder of records that a folder means: itself, or its ``runs``."""
    return path / "runs" if (path / "runs").is_dir() else path


# --------------------------------------------------------------------------- finding


def files_below(folder: str, left_out: list[ResultsError]) -> Iterator[str]:
    """Yield the files below a folder that may be records, in order.

    Args:
        folder: It need not be there.
        left_out: Gets what cannot be looked into.
    """
    try:
        with os.scandir(folder) as entries:
            inside = sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    except OSError as error:
        left_out.append(refused(ResultsError, folder, "read", error))
        return
    for entry in inside:
        named = entry.name.endswith(".json") and not entry.name.startswith(".")
        if entry.is_dir(follow_symlinks=False):
            if named:
                fault = "is a folder, not a record"
                left_out.append(ResultsError(entry.path, fault, "rename it"))
            if entry.name not in NOT_RECORDS:
                yield from files_below(entry.path, left_out)
        elif named:
            yield entry.path


# --------------------------------------------------------------------------- faults


def _leave_out_doubles(found: Reading, results: Path | None) -> None:
    """Keep one record of each ``run_id``: the one in its place, else the first."""
    kept: dict[str, str] = {}
    for path, record in list(found.records.items()):
        rival = kept.setdefault(record.run_id, path)
        if rival is path:
            continue
        if results is not None and path == str(record.path(results)):
            kept[record.run_id], path, rival = path, rival, path
        del found.records[path]
        reason = f"has the run_id of {rival}"
        found.left_out.append(ResultsError(path, reason, "delete the one that is wrong"))


def _find_misplaced(found: Reading, results: Path) -> None:
    for path, record in found.records.items():
        place = os.path.join(results, "runs", *record.place)
        if path != place:
            reason = "lies elsewhere than a record of its cell and run_id"
            found.misplaced.append(ResultsError(path, reason, f"move it to {place}"))


def _summed_up(what: str, faults: Sequence[ResultsError]) -> str:
    """Return one line: each fault where they are few, else the first ones and how many more."""
    if not faults:
        return ""
    if len(faults) == 1:
        return f"{what}: {faults[0]}"
    told = "; ".join(f"{fault.thing}: {fault.reason}" for fault in faults[:DESCRIBED])
    more = f"; and {len(faults) - DESCRIBED} more" if len(faults) > DESCRIBED else ""
    remedy = "mend, move or delete them"
    return " ".join(f"{len(faults)} records {what}: {told}{more}; {remedy}".split())
