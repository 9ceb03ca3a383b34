"""The plot of precision against recall: what a model's samples lack, row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

from dgm_bench.measured import measured
from dgm_bench.records import RunRecord
from dgm_bench.report.palette import BLUE, GREEN, INK, ORANGE, PURPLE, VERMILION
from dgm_bench.report.panels import panels
from dgm_bench.report.plots import WIDTH
from dgm_bench.report.rejection import rejection_points
from dgm_bench.spec import Cell, Row, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIX = "-precision"
LOOKS = [
    (colour, marker) for marker in "osD^" for colour in (BLUE, VERMILION, GREEN, PURPLE, ORANGE)
]


class Point(NamedTuple):
    """A row's precision and recall: means over runs, and their error bars.

    ``path`` is what they become as more and more samples are rejected: means as well.
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
        Figures by data set and features; none where fewer than two rows have both.
    """
    figures = {}
    for column in table.columns:
        if column.metric.endswith(SUFFIX):
            cells = [cell for cell in table.cells if cell.column.id == column.id]
            points = [point for cell in cells if (point := _point(cell, runs.get(cell.id, ())))]
            if len(points) > 1:
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
    """Return a metric's mean over runs and its error bar."""
    found = measured(runs, name)
    return None if found is None else (found.mean, found.error or 0.0)


def _figure(points: Sequence[Point], data: str, features: str) -> Figure:
    figure, (axes,) = panels(1, 1, (WIDTH, 4.4), squeeze=False)
    ordered = sorted(points, key=lambda point: -point.precision[0])
    for (colour, marker), point in zip(LOOKS, ordered, strict=False):
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
