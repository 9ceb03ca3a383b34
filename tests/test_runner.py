"""What a plan is refused for before anything is written."""

import io
import re
from dataclasses import replace

import pytest
from factories import make_cell, make_context, make_recipe
from rich.console import Console

from dgm_bench.errors import DataError, DataUnavailable, DeclarationError
from dgm_bench.planner import Machine, Plan, PlannedRun
from dgm_bench.progress import PlainReporter
from dgm_bench.runner import run_plan
from dgm_bench.spec import EvaluationSpec
from dgm_bench.workdir import WorkFolder


def test_what_is_no_metric_is_refused_before_data_are_loaded(tmp_path):
    wrong = make_recipe().model_copy(update={"evaluation": EvaluationSpec(metrics=("nl",))})
    planned = PlannedRun(make_cell(recipe=wrong), ("a",), 0, wrong, runs=True)
    plan = Plan((planned, replace(planned, runs=False)), None, Machine.here("cpu"))
    with pytest.raises(DeclarationError, match="metric 'nl': is not known; did you mean 'nll'"):
        run_plan(plan, make_context(tmp_path / "results"))
    assert not (tmp_path / "results").exists()


def test_broken_data_are_told_once_with_the_cells_that_they_stop(tmp_path, monkeypatch):
    """At once which cell does not run, and at the end why, with the remedy."""
    broken = DataError("digits.npy", "is truncated", "delete it")
    other = DataError("mnist.gz", "is no gzip file", "fetch it again")
    raised = iter((broken, broken, other))
    monkeypatch.setattr("dgm_bench.data.load", lambda *_, **__: (_ for _ in ()).throw(next(raised)))
    cells = [make_cell(row) for row in ("a", "b", "c")]
    runs = [PlannedRun(cell, (cell.id,), 0, cell.recipe, runs=True) for cell in cells]
    reporter = PlainReporter(Console(file=io.StringIO(), width=200))
    with pytest.raises(DataError) as caught:
        run_plan(
            Plan(tuple(runs), None, Machine.here("cpu")), make_context(tmp_path, reporter=reporter)
        )
    assert caught.value is broken
    said = reporter.console.file.getvalue()
    for cell, reason in zip(cells, ("digits.npy cannot be used",) * 2 + (str(other),), strict=True):
        assert f"{cell.id}: not run: {reason}" in said
    assert "is truncated" not in said


def test_a_run_that_another_command_does_keeps_none_of_the_others_waiting(tmp_path, monkeypatch):
    away = DataUnavailable("toy", "cannot be fetched", "fetch it")
    monkeypatch.setattr("dgm_bench.data.load", lambda *_, **__: (_ for _ in ()).throw(away))
    context, recipe = make_context(tmp_path), make_recipe()
    cell = make_cell(recipe=recipe)
    runs = tuple(PlannedRun(cell, (cell.id,), seed, recipe, runs=True) for seed in (0, 1))
    with WorkFolder(context.results, recipe.content_hash, 0).locked():
        summary = run_plan(Plan(runs, None, Machine.here("cpu")), context)
    (first, held), (second, reason) = summary.skipped
    assert first == second == cell.id
    assert re.match("this run is under way in process .*; wait for it, or stop it first", held)
    assert reason == str(away)
