"""The planner: durations, cost, data, memory, and what fits the budget."""

import math
from dataclasses import replace

import pytest
from factories import make_published
from planner_parts import MACHINE, Record, Spent, State, a_cell, a_recipe, around

from dgm_bench.errors import UsageError
from dgm_bench.overrides import change_cells
from dgm_bench.planner import (
    AUTO_BUDGET,
    PLANNED_SHARE,
    Speed,
    duration,
    expected_seconds,
    measured_seconds,
    option_value,
    parse_budget,
    parse_duration,
    plan,
    share_of,
)
from dgm_bench.spec import Cost, StoppingSpec


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("2h", 7200), ("1h30m", 5400), ("1.5h", 5400), ("1d", 86400)],
)
def test_durations_are_read(text, seconds):
    assert parse_duration(text, "--budget") == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("-5m", "0s", "0.0h", "10", "", "m", "ten minutes", "10m5", "inf", "nan", "1e3s", "5 m x"),
        "9" * 400 + "h",
    ],
)
def test_bad_durations_are_refused_in_one_line_with_examples(text):
    with pytest.raises(UsageError) as caught:
        parse_budget(text)
    message = str(caught.value)
    assert "--budget" in message
    assert "10m" in message
    assert "\n" not in message


def test_budget_auto_is_ten_minutes_without_a_gpu_and_unlimited_with_one():
    assert parse_budget("auto", "cpu") == AUTO_BUDGET == 600
    assert parse_budget("auto", "cuda") is None
    assert parse_budget("none", "cpu") is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "unknown"), (40.2, "40 s"), (720, "12 min"), (12600, "3.5 h"), (4 * 86400, "4 days")],
)
def test_durations_for_people(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("seconds", [1, 59, 600, 3000, 10800, 1e6])
def test_suggested_budgets_are_ample_and_can_be_typed(seconds):
    assert 1.2 * seconds <= parse_duration(option_value(seconds), "--budget") <= 2 * seconds + 3600


def test_expected_seconds_add_arithmetic_overhead_and_evaluation():
    cost = Cost(steps=1000, flops_per_step=2e6, launches_per_step=100, evaluation_flops=3e9)
    speed = Speed(1e9, 1e-5, start_seconds=2.0)
    assert expected_seconds(cost, speed) == pytest.approx(2 + 1000 * (2e-3 + 1e-3) + 3)


def test_measured_seconds_are_the_median_of_complete_unmodified_runs_on_this_machine():
    records = [
        Record("h", Spent(10, 1, 1)),
        Record("h", Spent(20, 2, 2)),
        Record("h", Spent(90, 5, 5)),
        Record("h", Spent(1), machine_class="other"),
        Record("h", Spent(1), status="budget"),
        Record("h", Spent(1), modified=("optimizer.lr=1",)),
        Record("g", Spent(7)),
        Record("k", Spent(3, 1, 1, train_seconds_of_others=6)),
    ]
    assert measured_seconds(records, "thismach") == {"h": 24, "g": 7, "k": 11}


def test_a_stored_run_beats_the_declared_cost():
    recipe = a_recipe(seconds=500)
    records = [Record(recipe.content_hash, Spent(33.0))]
    planned = plan([a_cell(recipe=recipe)], around(records=records), budget=600)
    assert planned.seconds == 33


def test_what_fits_runs_by_priority_then_cost():
    cells = [
        a_cell("slow", recipe=a_recipe(300, lr=1)),
        a_cell("quick", recipe=a_recipe(100, lr=2)),
        a_cell("first", recipe=a_recipe(350, lr=3), priority=5),
    ]
    planned = plan(cells, around(), budget=600)
    assert [run.cell.row.id for run in planned.chosen] == ["quick", "first"]  # the surest first
    assert planned.seconds == pytest.approx(450)
    (out,) = planned.left_out
    assert out.reason == (
        "needs about 5 min, others take the budget of 10 min: "
        "dgm-bench run ffjord/density/slow/digits --budget 7m"
    )
    assert out.command.endswith("--budget 7m")


def test_of_one_priority_the_most_published_numbers_an_hour_come_first():
    """A run of 100 s that two rows quote, before one of 60 s that one row does."""
    shared, single, ours = (a_recipe(s, lr=lr) for s, lr in ((100, 1), (60, 2), (55, 3)))
    rows = {
        "ours": {"recipe": ours},
        "single": {"recipe": single, "published": make_published()},
        "quoted": {"recipe": shared, "published": make_published(), "same_as": "shared"},
        "shared": {"recipe": shared, "published": make_published()},
    }
    cells = [
        a_cell(row, recipe=fields["recipe"], same_as=fields.get("same_as")).model_copy(
            update={"published": fields.get("published")}
        )
        for row, fields in rows.items()
    ]
    chosen = plan(cells, around(), budget=None).chosen
    found = [(run.cell.row.id, run.judged) for run in chosen]
    assert found == [("shared", 2), ("ours", 0), ("single", 1)]


def test_what_is_longer_than_the_whole_budget_says_so():
    cells = [a_cell("long", recipe=a_recipe(3 * 3600, lr=1)), a_cell("b", recipe=a_recipe(1, lr=2))]
    (out,) = plan(cells, around(), budget=600).left_out
    assert out.reason == (
        "needs about 3.0 h, of which the budget of 10 min is less than a fifth: "
        "dgm-bench run ffjord/density/long/digits --budget 4h"
    )
    cells[0] = a_cell("long", recipe=a_recipe(20 * 60, lr=1))
    (out,) = plan(cells, around(), budget=600).left_out
    assert out.reason.startswith("needs about 20 min, over the budget of 10 min: dgm-bench run")


def test_no_budget_of_weeks_is_advised():
    weeks = a_cell("long", recipe=a_recipe(8 * 86400, lr=1))
    (out,) = plan([weeks, a_cell("b", recipe=a_recipe(1, lr=2))], around(), budget=600).left_out
    there = duration(out.h200_seconds)
    assert out.reason.endswith(f"less than a fifth: not on this machine; about {there} on one H200")
    assert "--budget" not in out.reason
    assert out.command == ""


def test_runs_that_are_complete_are_left_out_whatever_else_keeps_them():
    cells = [a_cell(row, recipe=a_recipe(lr=lr)) for row, lr in (("a", 1e-3), ("b", 1e-4))]
    first, other = (cell.recipe.content_hash for cell in cells)
    context = replace(around(), complete={(first, 0), (first, 2), (other, 1)})
    planned = plan(cells, context, budget=None, seeds=3)
    assert {(run.cell.row.id, run.seed) for run in planned.chosen} == {("a", 1), ("b", 0), ("b", 2)}
    assert {run.reason for run in planned.left_out} == {"complete already"}
    assert not planned.is_done
    missing = around({"digits": State("missing", "fetch it")})
    planned = plan(cells[:1], replace(missing, complete={(first, 0)}), budget=None, seeds=1)
    assert planned.is_done
    assert not plan([], context, budget=None).is_done


def test_every_cell_gets_its_first_seed_before_any_gets_its_second():
    cells = [a_cell("a", recipe=a_recipe(100, lr=1)), a_cell("b", recipe=a_recipe(200, lr=2))]
    planned = plan(cells, around(), budget=450 / PLANNED_SHARE, seeds=2)
    assert [(run.cell.row.id, run.seed) for run in planned.chosen] == [("a", 0), ("a", 1), ("b", 0)]
    assert "--seeds 2 --budget" in planned.left_out[0].reason


def test_cells_that_share_a_recipe_are_one_run_named_after_the_row_that_owns_it():
    recipe = a_recipe()
    borrowed = a_cell("maf", recipe=recipe, same_as="maf-5")
    owner = a_cell("maf-5", recipe=recipe)
    (run,) = plan([borrowed, owner], around(), budget=None).runs
    assert run.cell == owner
    assert run.cells == (owner.id, borrowed.id)


def test_without_a_budget_everything_runs():
    planned = plan([a_cell(recipe=a_recipe(1e6))], around(), budget=None)
    assert planned.chosen
    assert planned.left_out == ()


def test_a_budget_below_the_cheapest_run_still_runs_the_first_that_gets_a_fifth():
    cells = [
        a_cell("cheap", recipe=a_recipe(100, lr=1)),
        a_cell("first", recipe=a_recipe(300, lr=2), priority=1),
        a_cell("very first", recipe=a_recipe(301, lr=3), priority=2),
    ]
    planned = plan(cells, around(), budget=60)
    (run,) = planned.chosen
    assert run.cell.row.id == "first"
    assert run.seconds == 60
    assert "cut short by the budget" in run.reason
    assert [out.cell.row.id for out in planned.left_out] == ["cheap", "very first"]
    assert "less than a fifth" in planned.left_out[1].reason
    assert plan(cells, around(), budget=19).chosen == ()


def test_baselines_come_first_and_then_what_takes_least():
    trained = a_recipe(30, lr=3)
    stage = trained.stages[0].model_copy(update={"stopping": StoppingSpec(max_steps=0)})
    baseline = a_cell("baseline", recipe=trained.model_copy(update={"stages": (stage,)}))
    cells = [a_cell("b", recipe=a_recipe(20, lr=1)), a_cell("a", recipe=a_recipe(10, lr=2))]
    for workers in (1, 2):
        machine = replace(MACHINE, workers=workers)
        for budget in (600, None):
            ordered = plan([*cells, baseline], around(machine=machine), budget=budget)
            first, *rest = [run.cell.row.id for run in ordered.chosen]
            assert first == "baseline"
            assert rest == (["b", "a"] if workers == 2 and budget is None else ["a", "b"])


def test_what_a_run_took_elsewhere_is_scaled_to_this_machine():
    """One that took three times its declared work there is expected to do so here."""
    recipe = a_recipe(100)
    there = Record(recipe.content_hash, Spent(3 * expected_seconds(recipe.cost, Speed.cpu(2))),
                   machine_class="other", recipe=recipe, threads=2)  # fmt: skip
    (run,) = plan([a_cell(recipe=recipe)], around(records=[there]), budget=None).chosen
    assert run.seconds == pytest.approx(300)
    here = Record(recipe.content_hash, Spent(50), recipe=recipe)
    assert plan([a_cell(recipe=recipe)], around(records=[there, here]), budget=None).seconds == 50


def test_a_cell_without_a_recipe_says_so():
    planned = plan([a_cell()], around(), budget=None)
    assert planned.reasons() == {"ffjord/density/maf/digits": "no recipe yet"}
    assert planned.runs[0].seconds is None


def test_a_model_that_cannot_be_built_gives_its_own_reason():
    broken = around(runnable=lambda cell: (False, "no module maf"))
    assert plan([a_cell(recipe=a_recipe())], broken, budget=None).runs[0].reason == "no module maf"


def test_missing_data_names_the_command_that_gets_it_and_still_shows_the_cost():
    missing = {"power": State("missing", "dgm-bench data fetch power")}
    recipe = a_recipe(100, data="power")
    (run,) = plan([a_cell(recipe=recipe)], around(missing), budget=None).runs
    assert not run.runs
    assert run.data == "missing"
    assert run.reason == "data not here: dgm-bench data fetch power"
    assert run.seconds == pytest.approx(100)


def test_too_little_memory_is_a_reason_unless_that_one_cell_is_asked_for_without_a_budget():
    large = a_cell("large", recipe=a_recipe(memory=8 * 10**9, lr=1))
    small = a_cell("small", recipe=a_recipe(lr=2))
    planned = plan([large, small], around(), budget=None)
    assert planned.reasons() == {
        large.id: "needs 8.0 GB memory, here are 4.0 GB",
        small.id: "not run yet: dgm-bench run ffjord/density/small/digits",
    }
    assert plan([large], around(), budget=600).chosen == ()
    assert plan([large], around(), budget=None).chosen


def test_unknown_cost_runs_only_without_a_budget():
    cell = a_cell(recipe=a_recipe(costed=False, lr=1))
    known = a_cell("known", recipe=a_recipe(lr=2))
    assert plan([cell], around(), budget=None).chosen
    assert "cost unknown" in plan([cell, known], around(), budget=600).reasons()[cell.id]


def test_shares_of_a_budget():
    assert share_of(None, 10, 10) is None
    assert share_of(600, 100, 200) == 400
    assert share_of(150, 100, 200) == pytest.approx(50)
    assert share_of(600, 100, 0) == 600
    assert share_of(-5, 100, 200) == 0
    assert share_of(600, None, 200) == 400
    assert share_of(600, 0, 0) == 600


def test_shares_taken_in_turn_use_the_budget_up():
    estimates, remaining = [10.0, 50.0, 40.0], 300.0
    for place, this in enumerate(estimates):
        remaining -= share_of(remaining, this, math.fsum(estimates[place + 1 :]))
    assert remaining == pytest.approx(0)


def test_every_run_is_priced_on_one_h200_too():
    recipe = a_recipe(seconds=1e6)
    (run,) = plan([a_cell(recipe=recipe)], around(), budget=None).runs
    assert run.h200_seconds == pytest.approx(expected_seconds(recipe.cost, Speed.h200()))
    assert run.h200_seconds < run.seconds


# ------------------------------------------------------------------------------ --set


def test_a_changed_run_is_priced_as_it_runs_and_not_as_what_was_measured_of_the_declared_one():
    recipe = a_recipe(seconds=500)
    records = [Record(recipe.content_hash, Spent(33.0))]
    (cell,) = change_cells([a_cell(recipe=recipe)], {"stopping.max_steps": "10"})
    (run,) = plan([cell], around(records=records), budget=600).chosen
    assert run.seconds == pytest.approx(50)
    assert run.recipe == cell.recipe
    assert run.modified == ("stopping.max_steps=10",)
    assert run.command == ("dgm-bench run ffjord/density/maf/digits --set stopping.max_steps=10")


def test_a_run_that_does_not_fit_is_offered_with_its_changes():
    cells = [a_cell("long", recipe=a_recipe(3e3, lr=1)), a_cell("b", recipe=a_recipe(1, lr=2))]
    cells = change_cells(cells, {"model.args.hidden": "[3, 4]"})
    (out,) = plan(cells, around(), budget=600).left_out
    assert out.reason.endswith(
        "dgm-bench run ffjord/density/long/digits --set 'model.args.hidden=[3, 4]' --budget 63m"
    )


def test_recipes_that_become_the_same_are_one_run():
    cells = [a_cell("a", recipe=a_recipe(lr=1)), a_cell("b", recipe=a_recipe(lr=2))]
    assert len(plan(cells, around(), budget=None).chosen) == 2
    (run,) = plan(change_cells(cells, {"optimizer.lr": "3"}), around(), budget=None).chosen
    assert run.cells == ("ffjord/density/a/digits", "ffjord/density/b/digits")
    assert run.modified == ("optimizer.lr=3",)


def test_a_run_is_named_after_the_cell_that_declares_its_recipe():
    cells = [a_cell("a", recipe=a_recipe(lr=1)), a_cell("b", recipe=a_recipe(lr=2))]
    (run,) = plan(change_cells(cells, {"optimizer.lr": "2"}), around(), budget=None).chosen
    assert run.cell.row.id == "b"
    assert run.modified == ()


def test_data_and_weights_are_those_of_the_changed_recipe():
    cells = [a_cell(recipe=a_recipe())]
    absent = {
        "power": State("missing", "dgm-bench data fetch power"),
        "vgg16": State("missing", "dgm-bench data fetch vgg16"),
    }
    (run,) = plan(change_cells(cells, {"data.name": "power"}), around(absent), budget=None).runs
    assert run.reason == "data not here: dgm-bench data fetch power"
    judge = {"evaluation.judge": '{"samples": 9, "features": ["vgg16"]}'}
    (run,) = plan(change_cells(cells, judge), around(absent), budget=None).runs
    assert run.reason == "weights of vgg16 missing: dgm-bench data fetch vgg16"
