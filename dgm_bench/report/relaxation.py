"""The plot of bias and variance of gradient estimates over the temperature."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dgm_bench.measured import summed_up
from dgm_bench.records import Metric, RunRecord
from dgm_bench.report.palette import BLUE, GREEN, INK, ORANGE, PURPLE, VERMILION
from dgm_bench.report.panels import mark_powers, panels, runs_by_row
from dgm_bench.report.plots import WIDTH
from dgm_bench.spec import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {
    "squared-bias": "squared bias / squared gradient",
    "variance": "variance / squared gradient",
}
STYLES = (
    (BLUE, "o"),
    (VERMILION, "s"),
    (GREEN, "^"),
    (PURPLE, "D"),
    (ORANGE, "v"),
    (INK, "P"),
)
APART = 1.04  # between rows, so that equal lines do not hide each other
Point = tuple[float, float, float]


def points_of(runs: Sequence[RunRecord], quantity: str) -> list[Point]:
    """Return (temperature, mean over runs, error), by temperature.

    Args:
        runs: Runs of one row.
        quantity: ``squared-bias`` or ``variance``; metrics are called ``<quantity>-<temperature>``.
    """
    metrics: dict[float, list[Metric]] = {}
    for run in runs:
        for metric in run.metrics:
            if match := re.fullmatch(rf"{quantity}-([\d.]+)", metric.name):
                metrics.setdefault(float(match[1]), []).append(metric)
    found = [(temperature, summed_up(same)) for temperature, same in sorted(metrics.items())]
    return [(t, point.mean, point.error or 0.0) for t, point in found if point is not None]


def relaxation_plot(table: Table, runs: Mapping[str, Sequence[RunRecord]]) -> Figure | None:
    """Plot squared bias and variance over the temperature, one line for each row.

    Hollow markers are values whose bar reaches zero, which a logarithmic axis cannot show: they
    stand at the bar's upper end, as bounds.

    Returns:
        None where no run measured them.
    """
    by_row = runs_by_row(table, runs)
    if not any(points_of(found, "variance") for found in by_row.values()):
        return None
    figure, grid = panels(1, 2, (WIDTH, 3.5))
    for axes, (quantity, label) in zip(grid, PANELS.items(), strict=True):
        lines = zip(by_row.items(), STYLES, strict=False)
        for place, ((title, found), style) in enumerate(lines):
            points = points_of(found, quantity)
            apart = [(t * APART**place, value, error) for t, value, error in points]
            _draw_line(axes, apart, title, style)
        axes.set_xscale("log")
        axes.set_yscale("log")
        mark_powers(axes.yaxis)
        axes.set_xlabel("temperature", color=INK, fontsize=9)
        axes.set_title(label, loc="left", color=INK, fontsize=10)
        _mark_temperatures(axes, [t for f in by_row.values() for t, _, _ in points_of(f, quantity)])
    handles, labels = grid[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4, frameon=False, fontsize=8)
    return figure


def _draw_line(axes: Axes, points: Sequence[Point], title: str, style: tuple[str, str]) -> None:
    """Draw what differs from zero with its bars, and bounds for the rest."""
    colour, marker = style
    sure = [point for point in points if point[1] > point[2]]
    if sure:
        t, value, bars = (list(column) for column in zip(*sure, strict=True))
        look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 5, "capsize": 3}
        axes.errorbar(t, value, bars, label=title, **look)
    bounds = [(t, max(value, 0.0) + error) for t, value, error in points if value <= error]
    if bounds:
        t, value = (list(column) for column in zip(*bounds, strict=True))
        look = {"linestyle": "none", "markerfacecolor": "none"}
        axes.plot(t, value, color=colour, marker=marker, markersize=6, **look)


def _mark_temperatures(axes: Axes, temperatures: Sequence[float]) -> None:
    shown = sorted(set(temperatures))
    axes.set_xticks(shown, [f"{t:g}" for t in shown])
    axes.minorticks_off()
