"""What the plots of measurements share: their panels, and the runs of each row."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dgm_bench.records import RunRecord
from dgm_bench.report.grid import superscript
from dgm_bench.report.palette import INK
from dgm_bench.spec import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure


def narrowed(table: Table, chosen: Collection[str] | None) -> Table:
    """Return a table with some of its cells alone, and the rows and columns that have any.

    Args:
        table: The table.
        chosen: Ids of cells; None for all.
    """
    if chosen is None:
        return table
    cells = tuple(cell for cell in table.cells if cell.id in chosen)
    rows, columns = {cell.row.id for cell in cells}, {cell.column.id for cell in cells}
    kept = {
        "cells": cells,
        "rows": tuple(row for row in table.rows if row.id in rows),
        "columns": tuple(column for column in table.columns if column.id in columns),
    }
    return table.model_copy(update=kept)


def runs_by_row(
    table: Table, runs: Mapping[str, Sequence[RunRecord]], data: str | None = None
) -> dict[str, list[RunRecord]]:
    """Return each row's runs once, by its title: its cells share them.

    Args:
        table: The table.
        runs: Runs by cell id.
        data: Only those on this data set.
    """
    by_row: dict[str, dict[str, RunRecord]] = {}
    for cell in table.cells:
        if data in (None, cell.column.data):
            for run in runs.get(cell.id, ()):
                by_row.setdefault(cell.row.title, {})[run.run_id] = run
    return {title: list(found.values()) for title, found in by_row.items()}


def panels(
    rows: int,
    columns: int,
    size: tuple[float, float],
    **layout: Any,  # noqa: ANN401
) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels row by row; ``layout`` goes to its ``subplots``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=130, layout="constrained")
    grid = list(figure.subplots(rows, columns, **layout).flat)
    for axes in grid:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=INK, alpha=0.12, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=INK, labelsize=8)
    return figure, grid


def mark_powers(axis: Axis) -> None:
    """Write the powers of ten of a logarithmic axis as text: setting formulas takes long."""
    axis.set_major_formatter(lambda value, _: "10" + raised(round(math.log10(value))))


def raised(power: int) -> str:
    """Return an exponent."""
    return ("⁻" if power < 0 else "") + superscript(str(abs(power)))
