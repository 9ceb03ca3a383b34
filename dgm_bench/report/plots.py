"""Plots made from records and verdicts, for the page (SVG) and as files (PNG).

matplotlib is imported when a plot is made, and only its object interface is used, so that
nothing here depends on a display or on what a caller has drawn before.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from statistics import fmean
from typing import TYPE_CHECKING, Any

from dgm_bench.escaping import drawn
from dgm_bench.measured import measured
from dgm_bench.records import RunRecord
from dgm_bench.report.palette import BLUE, GREEN, INK, VERMILION
from dgm_bench.spec import YES_NO, Cell, Table
from dgm_bench.wording import PUBLISHED_BAR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dgm_bench.verdict import Verdict

#: Inches of a figure: as wide as a README shows it, so that its letters keep their size.
WIDTH = 7.5
#: Panels beside each other in a plot that has one for each column of a table.
PANELS_ACROSS = 2
#: Margins beyond which the axis of differences is logarithmic.
FAR = 5.0


def comparison_plot(table: Table, verdicts: Mapping[str, Verdict]) -> Figure | None:
    """Plot measured minus published in margins of the verdicts, one line for each cell.

    Cells stand by column, the best published number first. Bars of measured numbers are the 90 %
    intervals, or their errors where a verdict has none; bars at zero are the published ±.

    Args:
        table: The table.
        verdicts: Verdicts by cell id.

    Returns:
        None when no published number of the table is measured.
    """
    cells = [cell for cell in _by_column(table) if _is_compared(cell, verdicts[cell.id])]
    if not cells:
        return None
    figure, axes = new_figure(WIDTH, 0.3 * len(cells) + 1.5)
    axes.axvspan(-1.0, 1.0, color=GREEN, alpha=0.18, linewidth=0, label="margin")
    axes.axvline(0.0, color=INK, linewidth=0.8)
    for height, cell in enumerate(cells):
        _draw_difference(axes, height, cell, verdicts[cell.id])
    _name_rows(axes, [f"{cell.row.title}, {cell.column.title}" for cell in cells])
    if max(map(abs, axes.get_xlim())) > FAR:
        axes.set_xscale("symlog", linthresh=2.0)
    axes.set_xlabel("difference from the published number, in margins: right is better")
    shared_legend(figure, [axes])
    return figure


def gap_plot(table: Table, runs: Mapping[str, Sequence[RunRecord]]) -> Figure | None:
    """Plot each run's gap to the entropy in nats where the true density is known, best row first.

    Args:
        table: The table.
        runs: Runs by cell id; bars are the errors of single runs.

    Returns:
        A panel for each column in which several rows measured a gap; None where none has.
    """
    panels = []
    for column in table.columns:
        cells = [cell for cell in table.cells if cell.column.id == column.id and not cell.repeats]
        gaps = [
            (cell.row.title, found) for cell in cells if (found := _gaps(runs.get(cell.id, ())))
        ]
        if len(gaps) > 1:
            panels.append((column, sorted(gaps, key=lambda row: fmean(gap for gap, _ in row[1]))))
    if not panels:
        return None
    figure, grid = _panels([len(gaps) for _, gaps in panels])
    for axes, (column, gaps) in zip(grid, panels, strict=True):
        for height, (_, seeds) in enumerate(gaps):
            _draw_gaps(axes, height, seeds)
        _name_rows(axes, [title for title, _ in gaps])
        left, right = min(0.0, axes.get_xlim()[0]), axes.get_xlim()[1]
        axes.set_xlim(left, right + 0.04 * (right - left))
        axes.axvline(0.0, color=INK, linewidth=0.8)
        axes.set_title(column.title, loc="left", fontsize=10)
        axes.set_xlabel("gap to the entropy (nats)")
    return figure


def _by_column(table: Table) -> list[Cell]:
    """Return cells with published numbers by column, in it the best published number first."""
    order = {column.id: place for place, column in enumerate(table.columns)}

    def place(cell: Cell) -> tuple[int, float]:
        value = float(cell.published.value) if cell.published else 0.0
        return order[cell.column.id], -value if cell.column.direction == "higher" else value

    return sorted((cell for cell in table.cells if cell.published), key=place)


def _is_compared(cell: Cell, verdict: Verdict) -> bool:
    known = verdict.mean is not None and verdict.difference is not None
    return known and bool(verdict.delta) and cell.column.unit != YES_NO


# --------------------------------------------------------------------------- rows of a panel


def _draw_difference(axes: Axes, height: int, cell: Cell, verdict: Verdict) -> None:
    """Draw the published number at zero and the measured one beside it, in margins."""
    if cell.published is None or verdict.difference is None or not verdict.delta:
        return
    pm = float(cell.published.pm or 0) / verdict.delta
    look: dict[str, Any] = {"fmt": "D", "color": BLUE, "markerfacecolor": "none", "markersize": 6}
    axes.errorbar(0.0, height - 0.14, xerr=pm, label=PUBLISHED_BAR, **look)
    bars = [[side / verdict.delta] for side in _bars(verdict, verdict.difference)]
    look = {"fmt": "o", "color": VERMILION, "markersize": 6, "capsize": 3}
    difference = verdict.difference / verdict.delta
    axes.errorbar(difference, height + 0.14, xerr=bars, label="measured", **look)


def _bars(verdict: Verdict, difference: float) -> tuple[float, float]:
    """Return how far the measured number's error bar reaches to the left and to the right."""
    if verdict.interval is None:
        return (verdict.error or 0.0,) * 2
    low, high = verdict.interval
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


def _name_rows(axes: Axes, titles: Sequence[str]) -> None:
    axes.set_yticks(range(len(titles)), list(map(drawn, titles)))
    axes.set_ylim(len(titles) - 0.5, -0.5)


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


def _panels(rows: Sequence[int]) -> tuple[Figure, list[Axes]]:
    """Return a figure with a panel for each number of rows, as high as its neighbour needs."""
    from matplotlib.figure import Figure

    across = min(PANELS_ACROSS, len(rows))
    lines = [max(rows[start : start + across]) for start in range(0, len(rows), across)]
    heights = [0.26 * line + 0.9 for line in lines]
    figure = Figure(figsize=(WIDTH, sum(heights)), dpi=130, layout="constrained")
    places = figure.add_gridspec(len(lines), across, height_ratios=heights)
    grid = [figure.add_subplot(places[divmod(number, across)]) for number in range(len(rows))]
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
