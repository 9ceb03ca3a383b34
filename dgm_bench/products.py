"""Products of a ``paper.toml``: several data sets in the same metrics, and their cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from itertools import product

from dgm_bench.spec import Column, Spec
from dgm_bench.tomlfile import Raw, TomlFile


class GridEntry(Spec):
    """Cells without a published number: each row with each column.

    Rows and columns may be shell patterns, which stand for all that match, in declared order.
    ``same_as`` is the row whose recipes these are, for all rows or for each of them.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    same_as: str | dict[str, str] | None = None
    priority: int = 0

    def lender(self, row: str) -> str | None:
        """Return the row whose recipes a row of it has, where they are not its own."""
        return self.same_as.get(row) if isinstance(self.same_as, dict) else self.same_as


class _ProductGrid(Spec):
    """Each row with each metric, for every data set; ``priority`` may be one for each."""

    rows: tuple[str, ...]
    metrics: tuple[str, ...] = ("*",)
    priority: int | dict[str, int] = 0

    def priority_of(self, data: str) -> int:
        """Return the priority of a data set's cells."""
        return self.priority.get(data, 0) if isinstance(self.priority, dict) else self.priority


class _ProductEntry(Spec):
    """Each data set with each metric: what both say of a column is put together.

    ``changes`` says what else holds of single columns.
    """

    data: tuple[Raw, ...]
    metrics: tuple[Raw, ...]
    changes: tuple[Raw, ...] = ()
    grids: tuple[_ProductGrid, ...] = ()


class Product:
    """One ``[[tables.products]]``.

    Args:
        file: Where it stands.
        raw: The entry.
        what: Its name in messages.
        line: Its line.
    """

    def __init__(self, file: TomlFile, raw: Raw, what: str, line: int) -> None:
        self.file, self.what, self.line = file, what, line
        self.entry = file.parse(_ProductEntry, raw, what, line)
        self.data = self._by_id("data", self.entry.data, needed=("id", "title", "data"))
        self.metrics = self._by_id("metrics", self.entry.metrics, needed=("id", "title"))

    def _by_id(self, name: str, raws: Iterable[Raw], needed: Iterable[str]) -> dict[str, Raw]:
        found: dict[str, Raw] = {}
        for raw in raws:
            for key in needed:
                if key not in raw:
                    reason = f"{self.what}: an entry of {name} has no {key}"
                    raise self.file.error(self.line, reason, f"add {key} = ...")
            if raw["id"] in found:
                raise self.file.error(self.line, f"{self.what}: duplicate {name} {raw['id']!r}")
            found[raw["id"]] = raw
        return found

    def columns(self, defaults: Raw) -> Iterator[tuple[Column, str, int]]:
        """Yield its columns, data set by data set, each with its name and line for messages.

        Args:
            defaults: What a column has that neither its data nor its metric says.
        """
        raws = {
            f"{data}-{metric}": {
                **defaults,
                **of_data,
                **of_metric,
                "id": f"{data}-{metric}",
                "title": f"{of_data['title']}: {of_metric['title']}",
            }
            for (data, of_data), (metric, of_metric) in product(
                self.data.items(), self.metrics.items()
            )
        }
        for change in self._by_id("changes", self.entry.changes, needed=("id",)).values():
            self.file.require("column", change["id"], raws, self.what, self.line)
            raws[change["id"]] |= change
        for name, raw in raws.items():
            what = f"column {name}"
            yield self.file.parse(Column, raw, what, self.line), what, self.line

    def grids(self) -> Iterator[GridEntry]:
        """Yield its cells: those of the first data set in all grids, then those of the next."""
        for grid in self.entry.grids:
            for name in grid.priority if isinstance(grid.priority, dict) else ():
                self.file.require("data", name, self.data, self.what, self.line)
        for data, grid in product(self.data, self.entry.grids):
            metrics = expanded(
                self.file, "metric", grid.metrics, self.metrics, self.what, self.line
            )
            yield GridEntry(
                rows=grid.rows,
                columns=tuple(f"{data}-{metric}" for metric in metrics),
                priority=grid.priority_of(data),
            )


def expanded(
    file: TomlFile, kind: str, names: Iterable[str], known: Iterable[str], what: str, line: int
) -> list[str]:
    """Return names, with those that match in the place of each shell pattern.

    Raises:
        DeclarationError: A name is unknown, or nothing matches a pattern.
    """
    declared, found = list(known), []
    for name in names:
        matching = [other for other in declared if fnmatchcase(other, name)]
        if not matching:
            file.require(kind, name, declared, what, line)
        found += matching
    return found
