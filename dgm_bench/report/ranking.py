"""Does a published ranking show again where the truth is known? A plot and a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dgm_bench.records import RunRecord
from dgm_bench.report.plots import BLUE, new_figure
from dgm_bench.spec import Column, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Ranked:
    """A row with a published number in one column and a measured gap in another."""

    title: str
    published: float
    gap: float
    se: float


def ranked_rows(
    table: Table, column: Column, runs: Mapping[str, Sequence[RunRecord]]
) -> list[Ranked]:
    """Return the rows that have both, by their published numbers, smallest first.

    Args:
        table: The table.
        column: A column whose ``ranks_like`` names a published one.
        runs: Runs by cell id; the gap is the mean over them.
    """
    published = {
        cell.row.id: float(cell.published.value)
        for cell in table.cells
        if cell.published and cell.column.id == column.ranks_like and cell.same_as is None
    }
    found = []
    for cell in table.cells:
        if cell.column.id == column.id and cell.row.id in published and not cell.repeats:
            gaps = [m for run in runs.get(cell.id, ()) if (m := run.metric("gap")) is not None]
            values = [m.value for m in gaps if m.value is not None]
            if values:
                error = sum((m.se or 0.0) ** 2 for m in gaps) ** 0.5 / len(gaps)
                place = published[cell.row.id]
                found.append(Ranked(cell.row.title, place, sum(values) / len(values), error))
    return sorted(found, key=lambda row: row.published)


def kendall(rows: Sequence[Ranked]) -> float:
    """Return Kendall's tau between published numbers and gaps: 1 where the order is the same."""
    from scipy.stats import kendalltau

    return float(kendalltau([r.published for r in rows], [r.gap for r in rows]).statistic)


def ranking_plots(table: Table, runs: Mapping[str, Sequence[RunRecord]]) -> dict[str, Figure]:
    """Return a plot for each column whose ranking ought to be a published one, by its id."""
    plots = {
        column.id: ranking_plot(table, column, runs)
        for column in table.columns
        if column.ranks_like
    }
    return {name: figure for name, figure in plots.items() if figure is not None}


def ranking_plot(
    table: Table, column: Column, runs: Mapping[str, Sequence[RunRecord]]
) -> Figure | None:
    """Plot gaps measured here against published numbers of another data set, row by row.

    Bars are two standard errors over the test points. Rows on a rising line rank as published.

    Returns:
        None where fewer than three rows have both.
    """
    rows = ranked_rows(table, column, runs)
    if len(rows) < 3:
        return None
    other = next(c for c in table.columns if c.id == column.ranks_like)
    figure, axes = new_figure(7.2, 4.8)
    errors = [2 * row.se for row in rows]
    places, gaps = [row.published for row in rows], [row.gap for row in rows]
    axes.errorbar(places, gaps, yerr=errors, fmt="o", color=BLUE, markersize=6, capsize=3)
    for row in rows:
        axes.annotate(
            row.title, (row.published, row.gap), (6, 4), textcoords="offset points", fontsize=8
        )
    axes.set_xlabel(f"published on {other.title} ({other.unit}), {other.direction} is better")
    axes.set_ylabel(f"gap to the entropy on {column.title} (nats)")
    title = f"{column.title} against {other.title}: Kendall's tau {kendall(rows):.2f}"
    axes.set_title(f"{title}, {len(rows)} rows", loc="left", fontsize=10)
    axes.margins(x=0.14)
    return figure
