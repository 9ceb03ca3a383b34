"""The plot of gradients through solvers: error over tolerance and time, memory over steps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from dgm_bench.records import RunRecord
from dgm_bench.report.palette import BLUE, GREEN, INK, ORANGE, PURPLE, VERMILION
from dgm_bench.report.panels import mark_powers, panels, runs_by_row
from dgm_bench.report.plots import WIDTH
from dgm_bench.spec import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Lines = Mapping[str, Sequence[RunRecord]]


class Panel(NamedTuple):
    """One quantity over another; None is the tolerance itself."""

    over: str | None
    quantity: str
    title: str
    across: str


PANELS = (
    Panel(None, "gradient-error", "error of the gradient, trained flow", "tolerance"),
    Panel(None, "linear-error", "error of the gradient, linear equation", "tolerance"),
    Panel("seconds", "gradient-error", "error of the gradient, trained flow", "seconds"),
    Panel(
        "forward-evaluations",
        "backward-memory",
        "held for the backward pass (KiB)",
        "evaluations of the dynamics on the way forward",
    ),
)
STYLES = (
    (BLUE, "o", "-"), (VERMILION, "s", "--"), (GREEN, "^", "-"), (PURPLE, "D", "--"),
    (ORANGE, "v", "-"), (INK, "P", "--"),
)  # fmt: skip


def values_of(runs: Sequence[RunRecord], quantity: str) -> dict[str, float]:
    """Return the mean over runs of a quantity, by the tolerance that its metric's name ends in.

    Args:
        runs: Runs of one row.
        quantity: Metrics are called ``<quantity>-<tolerance>``.
    """
    found: dict[str, list[float]] = {}
    for run in runs:
        for metric in run.metrics:
            match = re.fullmatch(rf"{quantity}-(\d+e-\d+)", metric.name)
            if match and metric.value is not None:
                found.setdefault(match[1], []).append(metric.value)
    return {label: fmean(values) for label, values in found.items()}


def points_of(runs: Sequence[RunRecord], panel: Panel) -> list[tuple[float, float]]:
    """Return a row's points in a panel, by tolerance, without those that a log axis cannot show."""
    heights = values_of(runs, panel.quantity)
    places = values_of(runs, panel.over) if panel.over else {t: float(t) for t in heights}
    labels = sorted(heights.keys() & places.keys(), key=float)
    pairs = [(places[label], heights[label]) for label in labels]
    return [(x, y) for x, y in pairs if x > 0 and y > 0]


def gradient_plot(table: Table, runs: Mapping[str, Sequence[RunRecord]]) -> Figure | None:
    """Plot errors over tolerance and over time, and memory over the length of the solution.

    There is one line for each way of taking gradients. Seconds are of each run's own machine.

    Args:
        table: The table.
        runs: Runs by cell id.

    Returns:
        None where no run measured gradients.
    """
    lines = runs_by_row(table, runs)
    lines = {title: found for title, found in lines.items() if values_of(found, PANELS[0].quantity)}
    if not lines:
        return None
    figure, grid = panels(2, 2, (WIDTH, 6.0))
    for axes, panel in zip(grid, PANELS, strict=True):
        for (title, found), style in zip(lines.items(), STYLES, strict=False):
            _draw_line(axes, points_of(found, panel), title, style)
        _label(axes, panel)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, frameon=False, fontsize=8)
    return figure


def _draw_line(
    axes: Axes, points: Sequence[tuple[float, float]], title: str, style: tuple[str, str, str]
) -> None:
    colour, marker, line = style
    look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": line, "markersize": 5}
    look["zorder"] = 3 if line == "--" else 2  # equal lines show through
    axes.plot([x for x, _ in points], [y for _, y in points], label=title, **look)


def _label(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    if panel.over is None:
        # From coarse to fine, as the other panels have it.
        axes.invert_xaxis()
        axes.xaxis.set_minor_locator(NullLocator())
        mark_powers(axes.xaxis)
    else:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
    axes.yaxis.set_minor_locator(NullLocator())
    mark_powers(axes.yaxis)
    axes.set_xlabel(panel.across, color=INK, fontsize=9)
    axes.set_title(panel.title, loc="left", color=INK, fontsize=10)
