"""The plot of adaptive computation: a solver's evaluations in training, and its error by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

from dgm_bench.records import RunRecord
from dgm_bench.report.gradients import STYLES, values_of
from dgm_bench.report.palette import INK
from dgm_bench.report.panels import panels
from dgm_bench.report.plots import WIDTH
from dgm_bench.spec import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = Sequence[Mapping[str, float]]
Point = tuple[float, float]

EVALUATIONS, ERROR = "forward-evaluations", "test-error"


def evaluations_per_step(curve: Curve) -> list[Point]:
    """Return epoch and evaluations of the dynamics in a step, means since the row before.

    Args:
        curve: Rows of a run's curve, whose evaluations are counted from the start on.
    """
    start = {"step": 0.0, "function_evaluations": 0.0}
    return [
        (
            after["epoch"],
            (after["function_evaluations"] - before["function_evaluations"])
            / (after["step"] - before["step"]),
        )
        for before, after in pairwise([start, *curve])
    ]


def errors_over_evaluations(runs: Sequence[RunRecord]) -> list[Point]:
    """Return evaluations and error of each tolerance at test time, means over runs, coarse first.

    Args:
        runs: Runs of one row.
    """
    evaluations, errors = values_of(runs, EVALUATIONS), values_of(runs, ERROR)
    shared = sorted(evaluations.keys() & errors.keys(), key=float, reverse=True)
    return [(evaluations[label], errors[label]) for label in shared]


def adaptive_plots(
    table: Table,
    runs: Mapping[str, Sequence[RunRecord]],
    curve_of: Callable[[RunRecord], Curve],
) -> dict[str, Figure]:
    """Plot evaluations over training, and the error over evaluations at test time.

    Args:
        table: The table.
        runs: Runs by cell id.
        curve_of: The rows of a run's curve; none where it is lost.

    Returns:
        A figure for each column of evaluations in which a run has errors at several tolerances.
    """
    figures = {}
    for column in table.columns:
        cells = [cell for cell in table.cells if cell.column.id == column.id]
        lines = {cell.row.title: runs.get(cell.id, ()) for cell in cells}
        shown = {title: own for title, own in lines.items() if errors_over_evaluations(own)}
        if column.metric == EVALUATIONS and shown:
            title = column.title.rpartition(": ")[0]
            figures[column.id.rpartition("-")[0]] = _figure(title, shown, curve_of)
    return figures


def _figure(
    data: str, lines: Mapping[str, Sequence[RunRecord]], curve_of: Callable[[RunRecord], Curve]
) -> Figure:
    figure, (training, test) = panels(1, 2, (WIDTH, 3.4))
    for (title, runs), (colour, marker, style) in zip(lines.items(), STYLES, strict=False):
        points = _mean([evaluations_per_step(curve) for curve in map(curve_of, runs) if curve])
        training.plot(*_columns(points), color=colour, linestyle=style, label=title)
        points = errors_over_evaluations(runs)
        test.plot(*_columns(points), color=colour, linestyle=style, marker=marker, markersize=5)
    training.set_xlabel("epoch", color=INK, fontsize=9)
    training.set_title(f"{data}: evaluations in a step", loc="left", color=INK, fontsize=10)
    training.legend(frameon=False, fontsize=8)
    test.set_xlabel("evaluations on the way forward, at test time", color=INK, fontsize=9)
    test.set_title("test error (%) at tolerances 1e-1 to 1e-5", loc="left", color=INK, fontsize=10)
    return figure


def _mean(curves: Sequence[Sequence[Point]]) -> list[Point]:
    """Return means over runs, as far as all of them go."""
    rows = zip(*curves, strict=False)
    return [(fmean(x for x, _ in row), fmean(y for _, y in row)) for row in rows]


def _columns(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
