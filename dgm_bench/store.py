"""The records of results folders: reading them, and choosing those that count."""

from __future__ import annotations

import csv
import io
import logging
import math
import tempfile
from collections import defaultdict
from collections.abc import Container, Iterable
from functools import cached_property
from pathlib import Path

from dgm_bench.errors import DamagedError, ResultsError, did_you_mean
from dgm_bench.record_files import Reading, read_all, record_files, root_of
from dgm_bench.records import RunRecord, read_record
from dgm_bench.sealed import read_known
from dgm_bench.spec import Cell, Recipe

__all__ = ["Store", "ensure_writable", "load_records", "one_per_seed", "record_files"]

_LOG = logging.getLogger("dgm_bench")
#: What to do about a curve that is not as it was written.
RESTORE = "restore it from git or a copy"


class Store:
    """The records of the user's results folder and of those that came with the suite, read once.

    Files that are no whole records are left out, and told in one line on stderr.

    Args:
        results: The results folder; it need not exist yet.
        stored: A second one that is read beside it, likewise; None for none. Where both are the
            same folder, there is one.
        strict: Whether one such file is an error.
    """

    def __init__(self, results: Path, stored: Path | None = None, *, strict: bool = False) -> None:
        if stored is not None and stored.resolve() == results.resolve():
            stored = None
        self.results, self.stored, self.strict = results, stored, strict
        self._counting: dict[str, list[RunRecord]] = {}
        self._curves: dict[str, list[dict[str, float]]] = {}

    @classmethod
    def of(cls, path: Path, *, strict: bool = False) -> Store:
        """Return the store of the records that a path means, as :func:`load_records` reads it."""
        store = cls(path, strict=strict)
        if path.is_dir():
            store._reading = read_all(root_of(path), strict=strict)
        else:
            store._reading = Reading({str(file): read_record(file) for file in record_files(path)})
        return store

    def records(self) -> list[RunRecord]:
        """Return every record, newest last.

        Raises:
            ResultsError: With ``strict``, naming the first file that is not a valid record.
        """
        return list(self._reading.records.values())

    def is_own(self, record: RunRecord) -> bool:
        """Say whether a record is the user's, and not of those that came with the suite.

        False for all where one folder is read: nothing is told apart then.
        """
        return record.run_id in self._own

    def folder_of(self, record: RunRecord) -> Path:
        """Return the results folder that a record is in, with its curve and artifacts."""
        return self.results if self.stored is None or self.is_own(record) else self.stored

    def for_cell(self, cell: Cell) -> list[RunRecord]:
        """Return the records that count for a cell: same recipe, unmodified, one for each seed.

        The user's own counts before a stored one, unless it was cut short and the other was not.
        """
        return [] if cell.recipe is None else self._of_recipe(cell.recipe.content_hash)

    def measuring(self, cell: Cell) -> list[RunRecord]:
        """Return the records that count for a cell and are complete: others measure nothing."""
        return [record for record in self.for_cell(cell) if record.outcome.complete]

    def own_unfinished(self, cell: Cell) -> list[RunRecord]:
        """Return the user's own runs of a cell that were cut short, where no other one ended.

        They count for nothing where stored ones do, and say how far the user is.
        """
        same = self._by_recipe.get(cell.recipe.content_hash, ()) if cell.recipe else ()
        own = [record for record in same if self.is_own(record)]
        ended = any(not record.outcome.cut_short for record in own)
        return [] if ended else one_per_seed(own)

    def of_older_code(self, cell: Cell) -> list[RunRecord]:
        """Return the records of a cell's recipe by earlier revisions of its models, as above.

        They measure nothing that the cell shows, and say that it was measured before.
        """
        if cell.recipe is None or set(cell.recipe.revisions) == {1}:
            return []
        older = (
            recipe_hash
            for recipe_hash, recipe in self._recipes.get(cell.recipe.name, {}).items()
            if recipe.revisions < cell.recipe.revisions and recipe.differs_by_revisions(cell.recipe)
        )
        return one_per_seed(
            (record for known in older for record in self._of_recipe(known)), self._own
        )

    def _of_recipe(self, recipe_hash: str) -> list[RunRecord]:
        if recipe_hash not in self._counting:
            same = self._by_recipe.get(recipe_hash, ())
            self._counting[recipe_hash] = one_per_seed(same, self._own)
        return list(self._counting[recipe_hash])

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
            ways = (
                "name a record's file, which ends in .json, or a run that dgm-bench show CELL lists"
            )
            hint = did_you_mean(str(run), known) or ways
            where = " or ".join(str(folder) for folder in (self.results, self.stored) if folder)
            raise ResultsError(run, f"no such run in {where}", hint)
        return known[str(run)]

    def curve(self, record: RunRecord) -> list[dict[str, float]]:
        """Return the rows of a run's curve, with NaN for empty fields; empty without a curve.

        Raises:
            DamagedError: When the file is not the one that the run wrote, or holds
                something that is not a number.
        """
        content = self.curve_content(record)
        try:
            return [] if record.curve is None else parse_curve(content.decode())
        except (ValueError, TypeError, csv.Error) as error:
            reason = f"is not a readable curve ({error})"
            raise DamagedError(self.curve_file(record), reason, RESTORE) from error

    def known_curve(self, record: RunRecord) -> list[dict[str, float]]:
        """Return :meth:`curve`; nothing where it is damaged or lost, which is told in one line.

        Raises:
            ResultsError: With ``strict``, in place of the line.
        """
        if record.run_id not in self._curves:
            self._curves[record.run_id] = self._curve_or_nothing(record)
        return self._curves[record.run_id]

    def _curve_or_nothing(self, record: RunRecord) -> list[dict[str, float]]:
        try:
            return self.curve(record)
        except ResultsError as error:
            if self.strict:
                raise
            _LOG.warning("warning: left out: %s", error)
            return []

    def curve_content(self, record: RunRecord) -> bytes:
        """Return the file of a run's curve; empty without a curve.

        Raises:
            DamagedError: When it is not the one that the run wrote.
        """
        if record.curve is None:
            return b""
        return read_known(self.curve_file(record), record.curve_sha256, RESTORE)

    def curve_file(self, record: RunRecord) -> Path:
        """Return the file of a run's curve: beside that of the record, wherever this lies."""
        place = record.path(self.folder_of(record))
        if not place.exists():
            place = self._paths.get(record.run_id, place)
        return place.parent / Path(record.curve or "").name

    @cached_property
    def _reading(self) -> Reading:
        own = read_all(self.results / "runs", self.results, strict=self.strict)
        if self.stored is None:
            return own
        return own.beside(read_all(self.stored / "runs", self.stored, strict=self.strict))

    @cached_property
    def _own(self) -> frozenset[str]:
        """The runs that are the user's alone."""
        if self.stored is None:
            return frozenset()
        runs = self.results / "runs"
        return frozenset(run for run, path in self._paths.items() if path.is_relative_to(runs))

    @cached_property
    def _by_recipe(self) -> dict[str, list[RunRecord]]:
        """Records that were not modified and that no record supersedes, by their recipe."""
        superseded = _superseded(self.records())
        found: dict[str, list[RunRecord]] = defaultdict(list)
        for record in self.records():
            if not record.modified and record.run_id not in superseded:
                found[record.recipe_hash].append(record)
        return found

    @cached_property
    def _recipes(self) -> dict[str, dict[str, Recipe]]:
        """Recipes of records by their names and hashes."""
        found: dict[str, dict[str, Recipe]] = defaultdict(dict)
        for record in self.records():
            found[record.recipe.name][record.recipe_hash] = record.recipe
        return found

    @cached_property
    def _paths(self) -> dict[str, Path]:
        return {record.run_id: Path(path) for path, record in self._reading.records.items()}


def one_per_seed(
    records: Iterable[RunRecord], own: Container[str] = frozenset()
) -> list[RunRecord]:
    """Return one record for each seed, newest last.

    Records that another of them supersedes are dropped. Among those of one seed a complete run
    beats one that broke, which beats one that its budget cut short: that one is unfinished, and
    changes nothing where anything else is known. Then the user's own counts, then the newest.

    Args:
        records: Of one recipe.
        own: The runs that are the user's own.
    """

    def worth(record: RunRecord) -> tuple[int, bool, str, str]:
        outcome = record.outcome
        rank = 0 if outcome.cut_short else 1 if outcome.failed else 2
        return (rank, record.run_id in own, *_age(record))

    everything = list(records)
    superseded = _superseded(everything)
    best: dict[int, RunRecord] = {}
    for record in everything:
        if record.run_id in superseded:
            continue
        rival = best.get(record.seed)
        if rival is None or worth(record) >= worth(rival):
            best[record.seed] = record
    return sorted(best.values(), key=_age)


def _superseded(records: Iterable[RunRecord]) -> set[str | None]:
    """Return the runs in whose place others came; of those cut short the newest counts anyway."""
    return {record.supersedes for record in records if not record.outcome.cut_short}


def load_records(path: Path, *, strict: bool = False) -> list[RunRecord]:
    """Read every record that a path means (see :func:`record_files`), newest last.

    In a folder, files that are no whole records are left out and told, as by a :class:`Store`.

    Args:
        path: A record's file, a folder of records, or a results folder.
        strict: Whether such a file in a folder is an error.

    Raises:
        ResultsError: When the path does not exist, or is a file that is not a record.
    """
    return Store.of(path, strict=strict).records()


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


def parse_curve(text: str) -> list[dict[str, float]]:
    """Return the numbers of a curve's lines, each of which has as many as the first has names.

    Raises:
        ValueError: When one has not, or the last is cut; likewise ``TypeError``, ``csv.Error``.
    """
    if not text.endswith("\n"):
        raise ValueError("its last line is cut")
    rows = csv.DictReader(io.StringIO(text, newline=""), restval="missing", strict=True)
    return [{name: float(t) if t else math.nan for name, t in row.items()} for row in rows]
