"""Footnotes of a table: numbered reasons, and lettered errata placed where they are read once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dgm_bench.report.grid import LETTERS, superscript
from dgm_bench.spec import Cell, Erratum, Table


@dataclass
class Footnotes:
    """Notes in the order in which they are first referred to, each once.

    Attributes:
        letters: Labels of the notes; numbers where there are none.
        labels: The label of each note so far.
    """

    letters: str = ""
    labels: dict[str, str] = field(default_factory=dict)

    def refer(self, text: str) -> str:
        """Return the raised label of a note."""
        return superscript(self.labels.setdefault(text, self._label(len(self.labels))))

    def items(self) -> tuple[tuple[str, str], ...]:
        """Return labels and notes."""
        return tuple((superscript(label), text) for text, label in self.labels.items())

    def _label(self, number: int) -> str:
        if not self.letters:
            return str(number + 1)
        times, place = divmod(number, len(self.letters))
        return self.letters[place] * (times + 1)


class Errata:
    """The errata of a table, as lettered notes that begin with the columns they are about."""

    def __init__(self, table: Table) -> None:
        self.notes = Footnotes(LETTERS)
        published = [cell for cell in table.cells if cell.published]
        self._columns = {cell.column.id: cell.column.title for cell in published}
        self._touched: dict[str, set[str]] = {}
        for cell in published:
            for erratum in cell.errata:
                self._touched.setdefault(erratum.id, set()).add(cell.column.id)

    def labels(self, errata: Iterable[Erratum]) -> str:
        """Return the raised labels of errata."""
        return "".join(self.notes.refer(self._note(erratum)) for erratum in errata)

    def _note(self, erratum: Erratum) -> str:
        touched = self._touched[erratum.id]
        titles = [title for column, title in self._columns.items() if column in touched]
        where = "" if len(titles) == len(self._columns) else f"{', '.join(titles)}: "
        return where + erratum.text + (f" ({erratum.source})" if erratum.source else "")


class Placement:
    """Where the errata of a section stand: at a column, else at a row, else at one number.

    Args:
        cells: The section's cells. An erratum of every number of a column stands at its heading,
            any other of several numbers of a row at the row's name.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._published = [cell for cell in cells if cell.published]
        self._wide = {cell.column.id: self._of_column(cell.column.id) for cell in cells}
        self._long = {cell.row.id: self._of_row(cell.row.id) for cell in cells}

    def column(self, column: str) -> Sequence[Erratum]:
        """Return the errata at a column's heading."""
        return self._wide.get(column, ())

    def row(self, row: str) -> Sequence[Erratum]:
        """Return the errata at a row's name."""
        return self._long.get(row, ())

    def cell(self, cell: Cell) -> list[Erratum]:
        """Return the errata at a single number."""
        elsewhere = (*self.column(cell.column.id), *self.row(cell.row.id))
        return [erratum for erratum in cell.errata if erratum not in elsewhere]

    def _of_column(self, column: str) -> list[Erratum]:
        touched = [cell.errata for cell in self._published if cell.column.id == column]
        if len(touched) < 2:
            return []
        return [e for e in touched[0] if all(e in errata for errata in touched)]

    def _of_row(self, row: str) -> list[Erratum]:
        found = [
            erratum
            for cell in self._published
            if cell.row.id == row
            for erratum in cell.errata
            if erratum not in self.column(cell.column.id)
        ]
        return [erratum for erratum in dict.fromkeys(found) if found.count(erratum) > 1]
