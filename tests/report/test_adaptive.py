"""The figure of adaptive computation: evaluations in training, and the error by them at test."""

import pytest
from factories import make_metric, make_record

from dgm_bench.catalog import load_catalog
from dgm_bench.report.adaptive import adaptive_plots, evaluations_per_step

TABLE = load_catalog().table("neural-ode/mnist")


def curve(*evaluations):
    """Rows of four steps each, with so many evaluations at their ends."""
    return [
        {"step": 4.0 * n, "epoch": 2.0 * n, "function_evaluations": float(count)}
        for n, count in enumerate(evaluations, 1)
    ]


def runs_of(row, seeds=1):
    (cell,) = (c for c in TABLE.cells if (c.row.id, c.column.id) == (row, "digits-forward"))
    metrics = [
        make_metric(value, name=f"{name}-{tolerance}")
        for tolerance, evaluations, error in (("1e-1", 14, 3.0), ("1e-5", 62, 0.0))
        for name, value in (("forward-evaluations", evaluations), ("test-error", error))
    ]
    return {cell.id: [make_record(cell, seed=s, metrics=tuple(metrics)) for s in range(seeds)]}


def test_evaluations_are_those_since_the_row_before_for_each_step():
    assert evaluations_per_step(curve(80, 240)) == [(2.0, 20.0), (4.0, 40.0)]
    assert evaluations_per_step([]) == []


def test_a_line_a_row_with_means_over_seeds_and_coarse_tolerances_first():
    runs = {**runs_of("rk-net", seeds=2), **runs_of("ode-net")}
    curves = {0: curve(80, 240), 1: curve(160)}
    (figure,) = adaptive_plots(TABLE, runs, lambda run: curves[run.seed]).values()
    training, test = figure.axes
    assert [line.get_label() for line in training.lines] == ["RK-Net", "ODE-Net"]
    shown = [list(zip(*line.get_data(), strict=True)) for line in (*training.lines, *test.lines)]
    assert shown[0] == [(2.0, pytest.approx(30.0))]  # as far as both seeds go
    assert shown[1] == [(2.0, 20.0), (4.0, 40.0)]
    assert shown[2] == shown[3] == [(14.0, 3.0), (62.0, 0.0)]
    assert "digits" in training.get_title(loc="left")


def test_no_figure_without_errors_at_tolerances_and_one_without_curves():
    assert adaptive_plots(TABLE, {}, lambda run: []) == {}
    assert list(adaptive_plots(TABLE, runs_of("ode-net"), lambda run: [])) == ["digits"]
