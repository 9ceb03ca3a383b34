"""Does a published ranking show again where the truth is known? A plot and a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dgm_bench.escaping import drawn
from dgm_bench.measured import measured
from dgm_bench.records import RunRecord
from dgm_bench.report.palette import BLUE
from dgm_bench.report.plots import WIDTH, new_figure
from dgm_bench.spec import Column, Table
from dgm_bench.stats import kendall

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Ranked:
    """A row with a published number in one column, and a gap with its error in another."""

    title: str
    published: float
    gap: float
    error: float


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
            gap, place = measured(runs.get(cell.id, ()), "gap"), published[cell.row.id]
            if gap is not None:
                found.append(Ranked(cell.row.title, place, gap.mean, gap.error or 0.0))
    return sorted(found, key=lambda row: row.published)


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
    """Plot gaps measured here, rows from the smallest published number down.

    Where the published ranking shows again, dots go from the upper left to the lower right.

    Returns:
        None where fewer than three rows have both.
    """
    rows = ranked_rows(table, column, runs)
    if len(rows) < 3:
        return None
    other = next(c for c in table.columns if c.id == column.ranks_like)
    figure, axes = new_figure(WIDTH, 0.3 * len(rows) + 1.3)
    places = range(len(rows))
    gaps, errors = [row.gap for row in rows], [row.error for row in rows]
    axes.plot(gaps, places, color=BLUE, linewidth=1.0, alpha=0.4)
    axes.errorbar(gaps, places, xerr=errors, fmt="o", color=BLUE, markersize=6, capsize=3)
    axes.set_yticks(places, [f"{drawn(row.title)}  {row.published:.2f}" for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"gap to the entropy on {column.title} (nats)")
    axes.set_ylabel(f"published on {other.title} ({other.unit})")
    title = f"Published on {other.title}, measured on {column.title}"
    tau = kendall([row.published for row in rows], gaps)
    axes.set_title(f"{title}: Kendall's tau {tau:.2f}", loc="left", fontsize=10)
    return figure
