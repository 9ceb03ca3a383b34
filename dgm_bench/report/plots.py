"""Plots made from records, curves and verdicts: for MLflow (PNG) and for the page (SVG).

matplotlib is imported when a plot is made, and only its object interface is used, so that
nothing here depends on a display or on what a caller has drawn before.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Container, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dgm_bench.escaping import drawn
from dgm_bench.measured import measured
from dgm_bench.records import RunRecord
from dgm_bench.spec import YES_NO, Cell, Column, Table
from dgm_bench.wording import PUBLISHED_BAR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    from dgm_bench.verdict import Verdict

Curve = Sequence[Mapping[str, float]]

# The colour-blind safe palette of Okabe and Ito (2008).
BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
#: Colour of text and lines; the page turns it into the reader's own text colour.
INK = "#24292f"
#: Columns of panels in a plot that has one panel for each column of a table.
PANELS_ACROSS = 3


def learning_curve(curve: Curve, record: RunRecord, published: float | None = None) -> Figure:
    """Plot training and validation loss against steps, and against seconds on the upper edge.

    Each stage of a run has a panel of its own.

    Args:
        curve: Rows of the run's curve; losses are in nats per example.
        record: The run; its best step is marked, and drops of the learning rate.
        published: The published value in nats per example, where the two can be compared.
    """
    if curve and "stage" in curve[0]:
        return _curves_of_stages(curve, record)
    figure, axes = new_figure(7.2, 3.6)
    series = _draw_losses(axes, curve, published)
    _mark_best(axes, record, series)
    _mark_drops(axes, curve)
    if published is not None:
        axes.axhline(published, color=GREEN, linestyle="--", linewidth=1.3, label="published")
    axes.set_ylabel("loss (nats per example)")
    _seconds_above(axes, curve)
    axes.set_title(f"{record.cells[0]}, seed {record.seed}", loc="left", fontsize=10)
    figure.legend(loc="outside lower center", frameon=False, fontsize=8, ncols=5)
    return literal(figure)


def _curves_of_stages(curve: Curve, record: RunRecord) -> Figure:
    """Plot the losses of each stage, each in the unit of its own objective."""
    figure, first = new_figure(7.2, 3.0)
    first.remove()
    stages = record.recipe.stages
    grid = figure.subplots(1, len(stages), squeeze=False)[0]
    for index, (axes, stage) in enumerate(zip(grid, stages, strict=True)):
        _draw_losses(axes, [row for row in curve if row["stage"] == index], None)
        axes.set_title(stage.name, loc="left", fontsize=9)
        axes.tick_params(labelsize=8, colors=INK)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0].set_ylabel("loss of the stage")
    figure.suptitle(f"{record.cells[0]}, seed {record.seed}", fontsize=10)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", frameon=False, fontsize=8, ncols=5)
    return literal(figure)


def _draw_losses(axes: Axes, curve: Curve, published: float | None) -> dict[float, float]:
    """Draw both losses, and return that of validation by step."""
    steps, train = _series(curve, "train_loss")
    axes.plot(steps, train, color=BLUE, linewidth=1.2, alpha=0.8, label="training")
    steps, validation = _series(curve, "validation")
    axes.plot(steps, validation, color=VERMILION, linewidth=1.6, label="validation")
    axes.set_ylim(*_limits([*train, *validation], published))
    axes.set_xlabel("training step")
    return dict(zip(steps, validation, strict=True))


def comparison_plot(table: Table, verdicts: Mapping[str, Verdict]) -> Figure | None:
    """Plot measured minus published by row, one panel for each column where there are both.

    Bands are the margins of the verdicts, bars of measured numbers the 90 % intervals, or their
    errors where a verdict has none; bars at zero are the published ±.

    Args:
        table: The table.
        verdicts: Verdicts by cell id.

    Returns:
        None when no published number of the table is measured.
    """
    both = {
        cell.id
        for cell in table.cells
        if cell.published and verdicts[cell.id].mean is not None and cell.column.unit != YES_NO
    }
    figure = _cells_plot(
        table,
        both,
        lambda axes, height, cell: _draw_difference(axes, height, cell, verdicts[cell.id]),
        lambda column: f"measured - published ({column.unit}), {column.direction} is better",
    )
    if figure is not None:
        shared_legend(figure, figure.axes)
    return figure


def gap_plot(table: Table, runs: Mapping[str, Sequence[RunRecord]]) -> Figure | None:
    """Plot each run's gap to the entropy in nats, by row, where the true density is known.

    Args:
        table: The table.
        runs: Runs by cell id; bars are the errors of single runs.

    Returns:
        None when no run measured a gap.
    """
    gaps = {id: found for id, records in runs.items() if (found := _gaps(records))}
    return _cells_plot(
        table,
        gaps,
        lambda axes, height, cell: _draw_gaps(axes, height, gaps[cell.id]),
        lambda column: "gap to the entropy (nats)",
    )


def _cells_plot(
    table: Table,
    ids: Container[str],
    draw: Callable[[Axes, int, Cell], None],
    label: Callable[[Column], str],
) -> Figure | None:
    """Return a figure with a panel for each column and a height for each row, zero marked.

    Args:
        table: The table.
        ids: The cells that are shown.
        draw: Draws a cell at its height.
        label: What the horizontal axis of a column's panel shows, with its unit.
    """
    columns = [c for c in table.columns if _cells_in(table, c, ids)]
    if not columns:
        return None
    figure, panels = _panels(columns, [len(_cells_in(table, c, ids)) for c in columns])
    for axes, column in zip(panels, columns, strict=True):
        cells = _cells_in(table, column, ids)
        for height, cell in enumerate(cells):
            draw(axes, height, cell)
        _name_rows(axes, cells)
        axes.axvline(0.0, color=INK, linewidth=0.8)
        axes.set_title(column.title, loc="left", fontsize=10)
        axes.set_xlabel(label(column))
    return figure


# --------------------------------------------------------------------------- learning curve


def _series(curve: Curve, name: str) -> tuple[list[float], list[float]]:
    points = [(r["step"], r[name]) for r in curve if math.isfinite(r.get(name, math.nan))]
    return [x for x, _ in points], [y for _, y in points]


def _limits(values: Sequence[float], published: float | None) -> tuple[float, float]:
    """Return limits that show the end of training: the first, huge losses may leave the frame."""
    if not values:
        return 0.0, 1.0
    ordered = sorted(values)
    low, high = ordered[0], ordered[int(0.95 * (len(ordered) - 1))]
    if published is not None:
        low, high = min(low, published), max(high, published)
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin


def _mark_best(axes: Axes, record: RunRecord, validation: Mapping[float, float]) -> None:
    best = record.budget.best_step
    if best is not None and best in validation:
        label = f"best, step {best:,}"
        axes.plot([best], [validation[best]], "o", color=INK, markersize=6, label=label)


def _mark_drops(axes: Axes, curve: Curve) -> None:
    drops = [b["step"] for a, b in pairwise(curve) if b["lr"] < 0.7 * a["lr"]]
    for number, step in enumerate(drops):
        label = "learning rate drops" if number == 0 else None
        axes.axvline(step, color=PURPLE, linestyle=":", linewidth=1.4, label=label)


def _seconds_above(axes: Axes, curve: Curve) -> None:
    """Show time on the upper edge; not where stages follow each other and steps start again."""
    rising = all(a["step"] < b["step"] and a["seconds"] < b["seconds"] for a, b in pairwise(curve))
    if len(curve) < 2 or not rising:
        return
    unit, size = _time_unit(curve[-1]["seconds"])
    steps, times = [row["step"] for row in curve], [row["seconds"] / size for row in curve]
    both_ways = (_interpolation(steps, times), _interpolation(times, steps))
    above = axes.secondary_xaxis("top", functions=both_ways)
    above.set_xlabel(f"training and validation time ({unit})", fontsize=8)
    above.tick_params(labelsize=8, colors=INK)


def _interpolation(x: Sequence[float], y: Sequence[float]) -> Callable[[ArrayLike], NDArray[Any]]:
    """Return the straight lines through the points, continued at both ends."""
    import numpy as np

    first = (y[1] - y[0]) / (x[1] - x[0])
    last = (y[-1] - y[-2]) / (x[-1] - x[-2])

    def apply(at: ArrayLike) -> NDArray[Any]:
        at = np.asarray(at, float)
        before, after = np.minimum(at - x[0], 0), np.maximum(at - x[-1], 0)
        return np.asarray(np.interp(at, x, y) + first * before + last * after)

    return apply


def _time_unit(seconds: float) -> tuple[str, float]:
    if seconds >= 3 * 3600:
        return "hours", 3600.0
    return ("minutes", 60.0) if seconds >= 180 else ("seconds", 1.0)


# --------------------------------------------------------------------------- panels by column


def _cells_in(table: Table, column: Column, ids: Container[str]) -> list[Cell]:
    """Return the column's cells whose id is among ``ids``, in the order of the rows."""
    order = {row.id: place for place, row in enumerate(table.rows)}
    found = [c for c in table.cells if c.column.id == column.id and c.id in ids and not c.repeats]
    return sorted(found, key=lambda cell: order[cell.row.id])


def _draw_difference(axes: Axes, height: int, cell: Cell, verdict: Verdict) -> None:
    """Draw the published number at zero, the margin around it, and the measured one beside it."""
    if cell.published is None or verdict.mean is None:
        return
    if verdict.delta is not None:
        look: dict[str, Any] = {"color": GREEN, "alpha": 0.18, "linewidth": 0}
        axes.barh(height, 2 * verdict.delta, 0.6, -verdict.delta, label="margin", **look)
    pm = float(cell.published.pm or 0)
    look = {"fmt": "D", "color": BLUE, "markerfacecolor": "none", "markersize": 7}
    axes.errorbar(0.0, height, xerr=pm, label=PUBLISHED_BAR, **look)
    difference = verdict.mean - float(cell.published.value)
    bars = [[side] for side in _bars(cell, verdict, difference)]
    look = {"fmt": "o", "color": VERMILION, "markersize": 6, "capsize": 3}
    axes.errorbar(difference, height, xerr=bars, label="measured", **look)


def _bars(cell: Cell, verdict: Verdict, difference: float) -> tuple[float, float]:
    """Return how far the measured number's error bar reaches to the left and to the right."""
    if verdict.interval is None:
        return (verdict.error or 0.0,) * 2
    low, high = verdict.interval
    if cell.column.direction == "lower":  # a verdict's interval counts better as positive
        low, high = -high, -low
    return difference - low, high - difference


def _gaps(runs: Sequence[RunRecord]) -> list[tuple[float, float]]:
    """Return gap and error of each run that measured one."""
    found = [measured([run], "gap") for run in runs]
    return [(gap.mean, gap.error or 0.0) for gap in found if gap is not None]


def _draw_gaps(axes: Axes, height: int, gaps: Sequence[tuple[float, float]]) -> None:
    """Draw one dot with its error bar for each seed, a little apart."""
    look: dict[str, Any] = {"fmt": "o", "color": BLUE, "markersize": 5, "capsize": 3}
    for index, (gap, error) in enumerate(gaps):
        y = height + 0.16 * (index - (len(gaps) - 1) / 2)
        axes.errorbar(gap, y, xerr=error, **look)


def _name_rows(axes: Axes, cells: Sequence[Cell]) -> None:
    axes.set_yticks(range(len(cells)), [drawn(cell.row.title) for cell in cells])
    axes.set_ylim(len(cells) - 0.5, -0.5)


def shared_legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """Name above a figure what its panels show, each label once."""
    handles: dict[str, Any] = {}
    for axes in panels:
        drawn, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, drawn, strict=True))
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside upper left",
        ncols=3,
        frameon=False,
        fontsize=8,
    )


# --------------------------------------------------------------------------- figures


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of that many inches with one set of axes in the project's look."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    _dress(axes)
    return figure, axes


def literal(figure: Figure) -> Figure:
    """Show the texts of a figure as they are, dollars included; ticks are their maker's."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if isinstance(text, Text) and r"\mathdefault" not in text.get_text():
            text.set_text(drawn(text.get_text()))
    return figure


def described(figure: Figure, text: str) -> Figure:
    """Write one small line below everything that is drawn."""
    figure.supxlabel(text, fontsize=8, color=INK)
    return figure


def _panels(columns: Sequence[Column], rows: Sequence[int]) -> tuple[Figure, list[Axes]]:
    """Return a figure with one panel for each column, as high as the longest needs."""
    from matplotlib.figure import Figure

    across = min(PANELS_ACROSS, len(columns))
    down = math.ceil(len(columns) / across)
    size = (3.6 * across + 0.6, (0.34 * max(rows) + 1.1) * down + 0.4)
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    grid = [figure.add_subplot(down, across, index + 1) for index in range(len(columns))]
    for axes in grid:
        _dress(axes)
        axes.locator_params(axis="x", nbins=5)
    return figure, grid


def _dress(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(INK)
    axes.grid(color=INK, alpha=0.12, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=8)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_color(INK)
        text.set_fontsize(9)


def to_svg(figure: Figure, name: str) -> str:
    """Return a figure as SVG for a page: no file header, the page's colours, its own ids.

    Text takes the colour of the text around it; the page's style sets ``--plot-blue``.

    Args:
        figure: The figure.
        name: Unique on the page; keeps the ids of several figures apart.
    """
    import matplotlib

    literal(figure)
    file = io.StringIO()
    bare = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata=bare)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(rf"{INK}|#000000", "currentColor", svg, flags=re.IGNORECASE)
    return re.sub(BLUE, "var(--plot-blue)", svg, flags=re.IGNORECASE)
