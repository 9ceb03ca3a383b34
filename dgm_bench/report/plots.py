"""Plots made from records and verdicts, for the page (SVG) and as files (PNG).

matplotlib is imported when a plot is made, and only its object interface is used, so that
nothing here depends on a display or on what a caller has drawn before.
"""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from dgm_bench.escaping import drawn
from dgm_bench.measured import measured
from dgm_bench.records import RunRecord
from dgm_bench.report.palette import BLUE, GREEN, INK, VERMILION
from dgm_bench.spec import YES_NO, Cell, Column, Table
from dgm_bench.wording import PUBLISHED_BAR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dgm_bench.verdict import Verdict

#: Columns of panels in a plot that has one panel for each column of a table.
PANELS_ACROSS = 3


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
    return _on_page(file.getvalue(), name)


def _on_page(svg: str, name: str) -> str:
    """Return matplotlib's SVG without what a page does not need, to a tenth of a point."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r"font-family: [^;\"]*", "font-family: 'DejaVu Sans', sans-serif", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    svg = re.sub(r' (?:d|x|y)="[^"]*"', _rounded, svg)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]*)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", svg)
    svg = re.sub(r"\s*\n\s*", " ", svg).replace("> <", "><")
    found = 1
    while found:  # groups of nothing, from within
        svg, found = re.subn(r"<g>((?:(?!</?g\b).)*)</g>", r"\1", svg)
    svg = _with_classes(svg)
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(rf"{INK}|#000000", "currentColor", svg, flags=re.IGNORECASE)
    return re.sub(BLUE, "var(--plot-blue)", svg, flags=re.IGNORECASE)


def _rounded(attribute: re.Match[str]) -> str:
    return re.sub(r"-?\d+\.\d\d+", lambda number: f"{float(number[0]):.1f}", attribute[0])


def _with_classes(svg: str) -> str:
    """Return SVG in which styles that come again stand once, under the digest of what they say."""
    rules = ""
    for style, count in Counter(re.findall(r' style="([^"]*)"', svg)).items():
        if count > 1:
            name = "s" + sha256(style.encode()).hexdigest()[:7]
            svg = svg.replace(f' style="{style}"', f' class="{name}"')
            rules += f".{name}{{{style}}}"
    return svg.replace("</style>", f"{rules}</style>", 1)
