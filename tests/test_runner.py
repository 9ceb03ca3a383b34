"""What a plan is refused for before anything is written."""

from dataclasses import replace

import pytest
from factories import make_cell, make_context, make_recipe

from dgm_bench.errors import DeclarationError
from dgm_bench.planner import Machine, Plan, PlannedRun
from dgm_bench.runner import run_plan
from dgm_bench.spec import EvaluationSpec


def test_what_is_no_metric_is_refused_before_data_are_loaded(tmp_path):
    wrong = make_recipe().model_copy(update={"evaluation": EvaluationSpec(metrics=("nl",))})
    planned = PlannedRun(make_cell(recipe=wrong), ("a",), 0, wrong, runs=True)
    plan = Plan((planned, replace(planned, runs=False)), None, Machine.here("cpu"))
    with pytest.raises(DeclarationError, match="metric 'nl': is not known; did you mean 'nll'"):
        run_plan(plan, make_context(tmp_path / "results"))
    assert not (tmp_path / "results").exists()
