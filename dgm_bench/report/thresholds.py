"""Plots of what a threshold trades: fidelity, diversity and accuracy, row by row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dgm_bench.escaping import drawn
from dgm_bench.measured import Measured, summed_up
from dgm_bench.records import RunRecord
from dgm_bench.report.palette import INK
from dgm_bench.report.panels import panels
from dgm_bench.report.plots import WIDTH
from dgm_bench.report.tradeoff import LOOKS, SUFFIX
from dgm_bench.spec import Cell, Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Way = Literal["rejection", "truncation"]
#: Ends of the names of metrics at a threshold.
ENDINGS: Mapping[Way, str] = {"rejection": r"-kept-(\d+)%", "truncation": r"-truncated-([\d.e+-]+)"}
STYLES: Mapping[Way, str] = {"rejection": "-", "truncation": "--"}


class Point(NamedTuple):
    """What is measured at a threshold, by the metric's name: means over runs with their errors.

    ``threshold`` is the fraction of the samples that are kept, or where the noise is truncated;
    None for all samples of noise that is not.
    """

    threshold: float | None
    values: Mapping[str, Measured]


class Curve(NamedTuple):
    """A row's points, from all samples, or noise that is not truncated, on."""

    row: Row
    way: Way
    points: Sequence[Point]


def threshold_plots(table: Table, runs: Mapping[str, Sequence[RunRecord]]) -> dict[str, Figure]:
    """Plot what rows trade along their thresholds, one figure for each data set and network.

    Args:
        table: The table.
        runs: Runs by cell id.

    Returns:
        Figures by data set and features; none where no row has a curve.
    """
    figures = {}
    for column in table.columns:
        if column.metric.endswith(SUFFIX):
            features = column.metric.removesuffix(SUFFIX)
            cells = [cell for cell in table.cells if cell.column.id == column.id]
            each = (curves_of(cell, runs.get(cell.id, ()), features) for cell in cells)
            if curves := list(chain.from_iterable(each)):
                figures[f"{column.data}-{features}"] = _figure(curves, column.data, features)
    return figures


def curves_of(cell: Cell, runs: Sequence[RunRecord], features: str) -> list[Curve]:
    """Return the curves of a row: those at whose thresholds precision and recall are known.

    Args:
        cell: The cell of the row; rows that show a part of another's run have no curve.
        runs: Its runs; a point is the mean over those that have it.
        features: The network, as it begins the metrics' names.
    """
    if cell.row.reads or not runs:
        return []
    found = []
    for way in ENDINGS:
        points = [
            _point(runs, way, threshold, features) for threshold in _thresholds(runs, way, features)
        ]
        if len(points) > 1:
            found.append(Curve(cell.row, way, points))
    return found


def _thresholds(runs: Sequence[RunRecord], way: Way, features: str) -> Sequence[float | None]:
    """Return the thresholds of all runs, all samples first."""
    pattern = re.compile(f"{re.escape(features)}{SUFFIX}{ENDINGS[way]}")
    matches = (pattern.fullmatch(name) for run in runs for name in run.by_name)
    found = {float(match[1]) for match in matches if match}
    if way == "rejection":
        found = {per_cent / 100 for per_cent in found}
    ordered = sorted(found, reverse=True)
    return ordered if way == "rejection" or not ordered else [None, *ordered]


def _point(runs: Sequence[RunRecord], way: Way, threshold: float | None, features: str) -> Point:
    names = [f"{features}-{score}" for score in ("precision", "recall", "isc", "fid")]
    values = {}
    for name in [*names, "cas-top1"]:
        known = (
            next((m for each in _names(run, way, name, threshold) if (m := run.metric(each))), None)
            for run in runs
        )
        if (value := summed_up(known)) is not None:
            values[name] = value
    return Point(threshold, values)


def _names(run: RunRecord, way: Way, name: str, threshold: float | None) -> Iterable[str]:
    """Yield the names that a metric at a threshold may have.

    The half that the table shows, and all samples, are scored without the ending as well.
    """
    if threshold is None:
        return [name]
    if way == "truncation":
        return [f"{name}-truncated-{threshold:g}"]
    judge = run.recipe.evaluation.judge
    whole = [name] * (threshold == 1.0)
    half = [f"rejected-{name}"] * (judge is not None and threshold == judge.keep)
    return [f"{name}-kept-{threshold:.0%}", *whole, *half]


# --------------------------------------------------------------------------- drawing


def _figure(curves: Sequence[Curve], data: str, features: str) -> Figure:
    figure, (left, middle, right) = panels(1, 3, (WIDTH, 3.9), squeeze=False)
    furthest = max(point.threshold or 0.0 for curve in curves for point in curve.points)
    for (colour, marker), curve in zip(_looks(len(curves)), curves, strict=True):
        look = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.0}
        label = f"{drawn(curve.row.title)}, {curve.way}"
        look |= {"linestyle": STYLES[curve.way], "label": label, "capsize": 2, "elinewidth": 0.7}
        _line(left, curve, f"{features}-recall", f"{features}-precision", look)
        _line(middle, curve, f"{features}-isc", f"{features}-fid", look)
        _line(right, curve, 1.12 * furthest, "cas-top1", look)
    _name(left, "recall (fraction of the training set)", "precision (fraction of the images)")
    _name(middle, "Inception score (classes)", "FID (squared distance)")
    _name(right, "part kept, or truncation", "accuracy score (%)")
    points = [point.values.get(f"{features}-fid") for curve in curves for point in curve.points]
    _logarithmic(middle, [fid.mean for fid in points if fid is not None and fid.mean > 0])
    left.set_title(f"{data}, features of {features}", loc="left", fontsize=10)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False, fontsize=8)
    return figure


def _looks(curves: int) -> list[tuple[str, str]]:
    return [LOOKS[number % len(LOOKS)] for number in range(curves)]


def _line(axes: Axes, curve: Curve, across: str | float, up: str, look: Mapping[str, Any]) -> None:
    """Draw a metric over another, or over the threshold, with a ring around all samples.

    Args:
        axes: Where.
        curve: The row's points; those without the metric are left out.
        across: A metric, or where all samples stand on the axis of thresholds.
        up: A metric.
        look: Colour, marker, line.
    """
    there = [point for point in curve.points if up in point.values]
    if isinstance(across, str):
        there = [point for point in there if across in point.values]
        xs = [point.values[across].mean for point in there]
        errors = [point.values[across].error or 0.0 for point in there]
    else:
        xs = [across if point.threshold is None else point.threshold for point in there]
        errors = [0.0] * len(there)
    if not there:
        return
    ys = [point.values[up] for point in there]
    axes.errorbar(xs, [y.mean for y in ys], [y.error or 0.0 for y in ys], errors, **look)
    if there[0] is curve.points[0]:
        ring = {"marker": "o", "markersize": 9, "fillstyle": "none", "color": look["color"]}
        axes.plot(xs[:1], [ys[0].mean], **ring)


def _name(axes: Axes, across: str, up: str) -> None:
    axes.set_xlabel(across, color=INK, fontsize=9)
    axes.set_ylabel(up, color=INK, fontsize=9)


def _logarithmic(axes: Axes, heights: Sequence[float]) -> None:
    """Give the upward axis powers of ten, twos and fives as plain numbers, around the heights."""
    from matplotlib.ticker import LogLocator, NullLocator

    if not heights:
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(min(heights) / 1.4, 1.4 * max(heights))  # a bar may reach to zero
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
