"""Tables as the page has them: matrices of published and measured numbers, and their figures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from dgm_bench.compare import Beside
from dgm_bench.report.figures import FigureKind
from dgm_bench.report.numbers import how_far, measured_text, published_text
from dgm_bench.report.panels import narrowed
from dgm_bench.spec import Cell, Column, Paper, Row, Table
from dgm_bench.verdict import Verdict, extrapolated
from dgm_bench.wording import State

if TYPE_CHECKING:
    from markupsafe import Markup

#: Columns of a matrix, as a sheet of paper takes them; more are several, by data.
ACROSS = 8
Key = tuple[str, str]


@dataclass(frozen=True)
class Entry:
    """What stands in one place of a matrix; ``beside`` is known where the user has runs of it."""

    cell: Cell
    verdict: Verdict
    beside: Beside | None = None

    @property
    def own(self) -> str:
        """Whether the user has runs of it, and how their number compares with the stored one."""
        if self.beside is None:
            return ""
        return f"yours: {self.beside.word}" if self.beside.word else "yours"

    @property
    def published(self) -> str:
        """The published number, where there is one."""
        return published_text(self.cell)

    @property
    def measured(self) -> str:
        """The measured number; of unfinished runs the one so far, marked as such."""
        return measured_text(self.cell, self.verdict)

    @property
    def progress(self) -> str:
        """How far an unfinished run got, and what its curve says where it says something."""
        ahead = self.verdict.unfinished
        if ahead is None:
            return ""
        forecast = f", forecast {extrapolated(ahead)}" if ahead.forecast is not None else ""
        return how_far(ahead) + forecast


@dataclass(frozen=True)
class Part:
    """A rectangle of a table; ``folded`` ones are closed until somebody opens them."""

    title: str
    rows: Sequence[Row]
    columns: Sequence[Column]
    folded: bool = False


@dataclass(frozen=True)
class TableView:
    """One table as the page shows it; what is said below it has a heading each."""

    paper: Paper
    table: Table
    parts: Sequence[Part]
    cells: Mapping[Key, Entry]
    figures: Sequence[tuple[FigureKind, Sequence[Markup]]]
    below: Sequence[tuple[str, Sequence[str]]] = ()


def by_importance(papers: Sequence[Paper]) -> list[Paper]:
    """Return papers with the most published numbers first."""
    return sorted(papers, key=lambda paper: -sum(map(_published, paper.tables)))


def _published(table: Table) -> int:
    return sum(cell.published is not None for cell in table.cells)


def paper_of(paper: Paper, chosen: Collection[str] | None) -> Paper:
    """Return a paper with the chosen cells alone, and the tables that have any."""
    tables = (narrowed(table, chosen) for table in paper.tables)
    return paper.model_copy(update={"tables": tuple(table for table in tables if table.cells)})


# --------------------------------------------------------------------------- parts of a table


def parts_of(table: Table, states: Mapping[Key, State]) -> Iterator[Part]:
    """Yield the paper's rows and columns, further rows, then columns of ours, and what never ran.

    Args:
        table: The table.
        states: By row and column.
    """
    columns = [column for column in table.columns if column.published]
    ours = [column for column in table.columns if not column.published]
    printed = [row for row in table.rows if row.published]
    further = [row for row in table.rows if not row.published]
    yield from _split("", printed, columns, states)
    yield from _split("Further rows, which the paper does not print", further, columns, states)
    published = any(cell.published for cell in table.cells)
    title = "Columns of ours, which the paper does not have" if published else "Measured here"
    ran = _with(lambda row, column: states[row.id, column.id] != "not-run", states)
    run_columns = [column for column in ours if any(ran(row, column) for row in table.rows)]
    run_rows = [row for row in table.rows if any(ran(row, column) for column in run_columns)]
    yield from _split(title, run_rows, run_columns, states)
    idle_rows = [row for row in table.rows if row not in run_rows]
    idle_columns = [column for column in ours if column not in run_columns]
    yield from _split("Not run yet: further rows", idle_rows, run_columns, states, folded=True)
    yield from _split("Not run yet: further columns", table.rows, idle_columns, states, folded=True)


def _with(
    test: Callable[[Row, Column], bool], states: Mapping[Key, State]
) -> Callable[[Row, Column], bool]:
    """Return a test that only passes where there is a cell."""
    return lambda row, column: (row.id, column.id) in states and test(row, column)


def _split(
    title: str,
    rows: Sequence[Row],
    columns: Sequence[Column],
    states: Mapping[Key, State],
    *,
    folded: bool = False,
) -> Iterator[Part]:
    """Yield what there is of a rectangle, in parts that a sheet of paper takes."""
    for across in _sheets(columns):
        there = [row for row in rows if any((row.id, column.id) in states for column in across)]
        used = [column for column in across if any((row.id, column.id) in states for row in there)]
        if there and used:
            yield Part(title, there, used, folded)


def _sheets(columns: Sequence[Column]) -> list[list[Column]]:
    """Return columns in groups of at most so many, each set of data in one where it fits."""
    sheets: list[list[Column]] = [[]]
    for _, same in groupby(columns, key=lambda column: column.data):
        group = list(same)
        for start in range(0, len(group), ACROSS):
            some = group[start : start + ACROSS]
            if len(sheets[-1]) + len(some) > ACROSS:
                sheets.append([])
            sheets[-1] += some
    return sheets
