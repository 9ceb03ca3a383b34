"""The plot of precision against recall: what a model's samples lack, row by row."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

from dgm_bench.records import Metric, RunRecord
from dgm_bench.report.panels import panels
from dgm_bench.report.plots import BLUE, GREEN, INK, ORANGE, PURPLE, VERMILION
from dgm_bench.spec import Cell, Row, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIX = "-precision"
_KEPT = re.compile(r"(?P<features>.*)-(?P<what>precision|recall)-kept-(?P<per_cent>\d+)%")
LOOKS = [
    (colour, marker) for marker in "osD^" for colour in (BLUE, VERMILION, GREEN, PURPLE, ORANGE)
]


class Point(NamedTuple):
    """A row's precision and recall: means over runs, and their spread over seeds or their errors.

    ``path`` is what they become as more and more samples are rejected, likewise means.
    """

    row: Row
    precision: tuple[float, float]
    recall: tuple[float, float]
    path: list[tuple[float, float, float]]


def tradeoff_plots(table: Table, runs: Mapping[str, Sequence[RunRecord]]) -> dict[str, Figure]:
    """Plot precision against recall, one figure for each data set and network that has both.

    Args:
        table: The table.
        runs: Runs by cell id.

    Returns:
        Figures by data set and features; none where nothing was measured.
    """
    figures = {}
    for column in table.columns:
        if column.metric.endswith(SUFFIX):
            cells = [cell for cell in table.cells if cell.column.id == column.id]
            points = [point for cell in cells if (point := _point(cell, runs.get(cell.id, ())))]
            if points:
                features = column.metric.removesuffix(SUFFIX)
                figures[f"{column.data}-{features}"] = _figure(points, column.data, features)
    return figures


def _point(cell: Cell, runs: Sequence[RunRecord]) -> Point | None:
    precision = _number(runs, cell.metric)
    recall = _number(runs, cell.metric.removesuffix(SUFFIX) + "-recall")
    if precision is None or recall is None:
        return None
    features = cell.column.metric.removesuffix(SUFFIX)
    return Point(cell.row, precision, recall, [] if cell.row.reads else _path(runs, features))


def _path(runs: Sequence[RunRecord], features: str) -> list[tuple[float, float, float]]:
    """Return the means over runs at each threshold that all of them have."""
    found = [rejection_points(run.metrics).get(features, []) for run in runs]
    by_kept = [{kept: (precision, recall) for kept, precision, recall in run} for run in found]
    shared = [kept for kept in by_kept[0] if all(kept in run for run in by_kept)]
    return [
        (kept, mean(run[kept][0] for run in by_kept), mean(run[kept][1] for run in by_kept))
        for kept in shared
    ]


def _number(runs: Sequence[RunRecord], name: str) -> tuple[float, float] | None:
    """Return the mean over runs with its spread, or of a single run twice its standard error."""
    found = [metric for run in runs if (metric := run.metric(name)) and metric.value is not None]
    values = [metric.value for metric in found if metric.value is not None]
    if not values:
        return None
    return mean(values), stdev(values) if len(values) > 1 else 2 * (found[0].se or 0.0)


def _figure(points: Sequence[Point], data: str, features: str) -> Figure:
    figure, (axes,) = panels(1, 1, (6.4, 4.6), squeeze=False)
    for (colour, marker), point in zip(LOOKS, points, strict=False):
        (y, dy), (x, dx) = point.precision, point.recall
        look: dict[str, Any] = {"color": colour, "markersize": 6, "linewidth": 1.0}
        axes.errorbar(x, y, dy, dx, fmt=marker, label=point.row.title, **look)
        if point.path:
            recalls, precisions = [p[2] for p in point.path], [p[1] for p in point.path]
            axes.plot(recalls, precisions, "-", color=colour, linewidth=0.9, alpha=0.6)
    axes.set_xlabel("recall (fraction of the training set)", color=INK, fontsize=9)
    axes.set_ylabel("precision (fraction of the images)", color=INK, fontsize=9)
    axes.set_title(f"{data}, features of {features}", loc="left", fontsize=10)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


def rejection_points(
    metrics: Sequence[Metric],
) -> dict[str, list[tuple[float, float, float]]]:
    """Return kept fraction, precision and recall, by the features that they are of."""
    found: dict[tuple[str, float], dict[str, float]] = {}
    for metric in metrics:
        match = _KEPT.fullmatch(metric.name)
        if match and metric.value is not None:
            key = (match["features"], int(match["per_cent"]) / 100)
            found.setdefault(key, {})[match["what"]] = metric.value
    points: dict[str, list[tuple[float, float, float]]] = {}
    for (features, kept), both in found.items():
        points.setdefault(features, []).append((kept, both["precision"], both["recall"]))
    return points
