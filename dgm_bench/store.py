"""The stored records of a results folder: reading them, and choosing those that count."""

from __future__ import annotations

import csv
import io
import math
import tempfile
from collections.abc import Iterable
from pathlib import Path

from dgm_bench.errors import DamagedError, ResultsError, did_you_mean
from dgm_bench.records import COMPLETE, FAILED, RunRecord, read_record
from dgm_bench.sealed import read_known
from dgm_bench.spec import Cell

#: Parts of a results folder that hold JSON files which are not records.
NOT_RECORDS = frozenset({"schema", "work", "artifacts", "mlartifacts"})


class Store:
    """The records below ``results/runs``, read once.

    Args:
        results: The results folder; it need not exist yet.
    """

    def __init__(self, results: Path) -> None:
        self.results = results
        self._records: dict[Path, RunRecord] | None = None

    def records(self) -> list[RunRecord]:
        """Return every record, newest last.

        Raises:
            ResultsError: Naming the first file that is not a valid record.
        """
        return list(self._by_path().values())

    def for_cell(self, cell: Cell) -> list[RunRecord]:
        """Return the records that count for a cell: same recipe, unmodified, one for each seed."""
        return [] if cell.recipe is None else self._counting(cell.recipe.content_hash)

    def of_older_code(self, cell: Cell) -> list[RunRecord]:
        """Return the records of a cell's recipe by earlier revisions of its models, as above.

        They measure nothing that the cell shows, and say that it was measured before.
        """
        if cell.recipe is None or set(cell.recipe.revisions) == {1}:
            return []
        first = cell.recipe.unrevised
        hashes = {record.recipe_hash: record.recipe for record in self.records()}
        older = (
            known
            for known, recipe in hashes.items()
            if recipe.name == first.name
            and recipe.revisions < cell.recipe.revisions
            and recipe.unrevised.content_hash == first.content_hash
        )
        return one_per_seed(record for known in older for record in self._counting(known))

    def _counting(self, recipe_hash: str) -> list[RunRecord]:
        superseded = {record.supersedes for record in self.records()}
        same = (r for r in self.records() if r.recipe_hash == recipe_hash and not r.modified)
        return one_per_seed(record for record in same if record.run_id not in superseded)

    def find(self, run: str | Path) -> RunRecord:
        """Return the record of a run identifier, or of a record's file.

        Raises:
            ResultsError: When there is no such run.
        """
        path = Path(run)
        if path.suffix == ".json":
            return read_record(path)
        known = {record.run_id: record for record in self.records()}
        if str(run) not in known:
            hint = did_you_mean(str(run), known) or "see dgm-bench list --json"
            raise ResultsError(run, f"no such run in {self.results}", hint)
        return known[str(run)]

    def curve(self, record: RunRecord) -> list[dict[str, float]]:
        """Return the rows of a run's curve, with NaN for empty fields; empty without a curve.

        Raises:
            DamagedError: When the file is not the one that the run wrote, or holds
                something that is not a number.
        """
        if record.curve is None:
            return []
        path = self._location(record).parent / Path(record.curve).name
        remedy = "restore it from git or a copy"
        content = read_known(path, record.curve_sha256, remedy)
        try:
            return _rows(content.decode())
        except (ValueError, TypeError, csv.Error) as error:
            raise DamagedError(path, f"is not a readable curve ({error})", remedy) from error

    def _by_path(self) -> dict[Path, RunRecord]:
        if self._records is None:
            runs = self.results / "runs"
            read = {path: read_record(path) for path in record_files(runs)} if runs.is_dir() else {}
            order = sorted(read.items(), key=lambda item: (item[1].created, item[1].run_id))
            self._records = dict(order)
        return self._records

    def _location(self, record: RunRecord) -> Path:
        found = (path for path, known in self._by_path().items() if known.run_id == record.run_id)
        return next(found, record.path(self.results))


def one_per_seed(records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return one record for each seed, newest last.

    Records that another of them supersedes are dropped. Among those of one seed a complete run
    beats one that ended with its budget, which beats one that broke; then the newest counts.
    """
    everything = list(records)
    superseded = {record.supersedes for record in everything}
    best: dict[int, RunRecord] = {}
    for record in everything:
        if record.run_id in superseded:
            continue
        rival = best.get(record.seed)
        if rival is None or _worth(record) >= _worth(rival):
            best[record.seed] = record
    return sorted(best.values(), key=_age)


def record_files(path: Path) -> list[Path]:
    """Return the record files that a path means: a file, a folder of records, or of results.

    Raises:
        ResultsError: When the path does not exist.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ResultsError(path, "no such file or folder", "name a record or a results folder")
    root = path / "runs" if (path / "runs").is_dir() else path
    return [file for file in sorted(root.rglob("*.json")) if _may_be_record(file, root)]


def load_records(path: Path) -> list[RunRecord]:
    """Read every record that a path means (see :func:`record_files`), newest last.

    Raises:
        ResultsError: When the path does not exist, or holds a file that is not a record.
    """
    return sorted((read_record(file) for file in record_files(path)), key=_age)


def ensure_writable(results: Path) -> None:
    """Create the results folder if need be, and check that files can be written there.

    Raises:
        ResultsError: When they cannot.
    """
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results):
            pass
    except OSError as error:
        reason = f"cannot be written ({error.strerror or error})"
        remedy = "name another folder with --results DIR"
        raise ResultsError(results, reason, remedy) from error


def _age(record: RunRecord) -> tuple[str, str]:
    return record.created, record.run_id


def _worth(record: RunRecord) -> tuple[int, str, str]:
    status = record.outcome.status
    rank = 2 if status in COMPLETE else 0 if status in FAILED else 1
    return (rank, *_age(record))


def _may_be_record(file: Path, root: Path) -> bool:
    parts = file.relative_to(root).parts
    return not file.name.startswith(".") and NOT_RECORDS.isdisjoint(parts[:-1])


def _rows(text: str) -> list[dict[str, float]]:
    """Return the numbers of each line, which has as many as the first line has names."""
    if not text.endswith("\n"):
        raise ValueError("its last line is cut")
    rows = csv.DictReader(io.StringIO(text, newline=""), restval="missing", strict=True)
    return [{name: float(t) if t else math.nan for name, t in row.items()} for row in rows]
