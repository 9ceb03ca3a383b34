"""New records against a baseline: regressions, noise, and what cannot be compared."""

import csv
import io
import json

import numpy as np
import pytest
from factories import (
    make_budget,
    make_cell,
    make_code,
    make_data,
    make_environment,
    make_metric,
    make_recipe,
    make_record,
)

from dgm_bench.catalog import load_catalog
from dgm_bench.compare import compare, declared_directions
from dgm_bench.report.comparison import render_comparison
from dgm_bench.spec import YES_NO
from dgm_bench.wording import MEASURED_LEGEND


def runs(*values, cell=None, **overrides):
    return [make_record(cell, value=v, seed=s, **overrides) for s, v in enumerate(values)]


BASE = runs(10.0, 10.1, 9.9)


def only(new, baseline=BASE):
    comparison = compare(new, baseline)
    assert len(comparison.rows) == 1
    return comparison.rows[0], comparison.exit_code


def test_a_regression_beyond_noise_is_flagged():
    row, code = only(runs(12.0, 12.1, 11.9))
    assert (row.state, code) == ("worse", 1)
    assert row.difference == pytest.approx(-2.0)
    assert 0.01 < row.bound < 2.0
    assert "worse by 2 nats" in row.reason


def test_an_improvement_is_told_and_fine():
    row, code = only(runs(8.0, 8.1, 7.9))
    assert (row.state, code) == ("better", 0)


def test_a_difference_within_noise_is_not_a_regression():
    row, code = only(runs(10.1, 10.2, 10.0))
    assert (row.state, code) == ("noise", 0)


def test_the_same_numbers_are_the_same():
    row, code = only(BASE)
    assert (row.state, row.difference, code) == ("same", 0.0, 0)


def test_many_seeds_show_that_nothing_changed():
    rng = np.random.default_rng(0)
    apart = make_environment(determinism="statistical")
    old, new = (runs(*rng.normal(10, 0.1, 12), environment=apart) for _ in range(2))
    assert only(new, old)[0].state == "same"


def test_higher_is_better_turns_the_sign_around():
    def accuracy(*values):
        metrics = [make_metric(v, name="accuracy", direction="higher") for v in values]
        return [make_record(seed=s, metrics=(m,)) for s, m in enumerate(metrics)]

    row, _ = only(accuracy(0.50, 0.51, 0.52), accuracy(0.90, 0.91, 0.92))
    assert (row.state, row.difference) == ("worse", pytest.approx(-0.40))


def test_false_alarms_are_rare():
    rng = np.random.default_rng(3)
    apart = make_environment(determinism="statistical")
    worse = 0
    for _ in range(300):
        old, new = (runs(*rng.normal(10, 0.1, 3), environment=apart) for _ in range(2))
        worse += compare(new, old).exit_code
    assert worse <= 8


@pytest.mark.parametrize(("seeds", "times"), [((3, 3), 250), ((2, 1), 250)])
def test_nor_are_they_frequent_where_three_cells_share_what_they_know_of_spread(seeds, times):
    """One per cent and cell; the variance of both sides is much the same number."""
    rng, worse = np.random.default_rng(4), 0
    apart = make_environment(determinism="statistical")
    cells = [make_cell(name) for name in ("made", "maf", "glow", "tan")]
    for _ in range(times):
        old, new = (
            [
                run
                for cell in cells
                for run in runs(*rng.normal(10, 0.1, n), cell=cell, environment=apart)
            ]
            for n in seeds
        )
        worse += sum(row.state == "worse" for row in compare(new, old).rows)
    assert worse <= 0.017 * times * len(cells)


TEN = runs(*(10 + 0.1 * z for z in (-1.5, -1, -0.7, -0.4, -0.1, 0.1, 0.4, 0.7, 1, 1.5)))


@pytest.mark.parametrize(
    ("values", "state", "times"),
    [
        ((12.4, 12.1, 18.0), "worse", "36"),
        ((7.6, 8.1, 2.0), "better", "36"),
        ((5.0, 10.0, 15.1), "noise", "54"),
    ],
)
def test_seeds_that_break_do_not_hide_behind_their_own_spread(values, state, times):
    """All of the first are far above the baseline's; Welch's interval of three reaches over 0."""
    row, _ = only(runs(*values), TEN)
    assert row.state == state
    assert f"the new seeds spread {times} times as widely" in row.reason


def test_one_new_run_is_judged_by_the_spread_of_the_baseline():
    assert only(runs(13.0))[0].state == "worse"
    assert only(runs(10.2))[0].state == "noise"


def test_one_run_on_each_side_that_ought_to_repeat_and_got_worse_is_worse():
    row, code = only(runs(12.0), runs(10.0))
    assert (row.state, code) == ("worse", 1)
    assert row.reason.startswith("worse by 2 nats; seed 0 did not repeat")
    assert (row.difference, row.margin, row.bound) == (pytest.approx(-2.0), 0.01, None)


@pytest.mark.parametrize(
    "overrides",
    [
        {"seed": 1},
        {"code": make_code(source_hash="new")},
        {"environment": make_environment(machine_class="another")},
        {"environment": make_environment(threads=2)},
        {"environment": make_environment(determinism="statistical")},
    ],
)
def test_one_run_on_each_side_that_need_not_repeat_is_not_comparable(overrides):
    row, code = only([make_record(value=12.0, **overrides)], runs(10.0))
    assert (row.state, code) == ("not-comparable", 3)
    assert "one run on each side, and no spread is known" in row.reason
    assert row.difference == pytest.approx(-2.0)


@pytest.mark.parametrize("value", [8.0, 10.009])
def test_one_run_on_each_side_not_worse_by_the_floor_is_not_comparable(value):
    row, code = only(runs(value), runs(10.0))
    assert (row.state, code) == ("not-comparable", 3)
    assert "seed 0 did not repeat" in row.reason


def test_one_run_on_each_side_with_the_same_number_is_the_same():
    assert only(runs(10.0), runs(10.0))[0].state == "same"


@pytest.mark.parametrize(
    ("value", "state"), [(10.009, "same"), (10.011, "worse"), (9.98, "better")]
)
def test_one_run_on_each_side_decides_where_nothing_is_trained(value, state):
    cell = make_cell(recipe=make_recipe(max_steps=0))
    new = runs(value, cell=cell, environment=make_environment(machine_class="another"))
    assert only(new, runs(10.0, cell=cell))[0].state == state


@pytest.mark.parametrize(("column", "state"), [("power", "worse"), ("gas", "noise")])
def test_baseline_runs_on_the_same_data_sharpen_the_test(column, state):
    others = [r for row in "abc" for r in runs(10.0, 10.1, 9.9, cell=make_cell(row, column))]
    comparison = compare(runs(10.4), [*others, *BASE])
    row = next(row for row in comparison.rows if row.state != "only-baseline")
    assert (row.cell, row.state) == ("ffjord/density/maf/power", state)


def test_five_equal_seeds_on_one_exact_machine_are_paired():
    spread = (0.0, 5.0, 9.0, 14.0, 20.0)
    baseline, new = runs(*spread), runs(*(x + 0.1 for x in spread))
    assert only(new, baseline)[0].state == "worse"
    for change in ({"machine_class": "another"}, {"threads": 2}):
        moved = runs(*(x + 0.1 for x in spread), environment=make_environment(**change))
        assert only(moved, baseline)[0].state == "same"


def test_pairs_are_of_equal_seeds():
    spread = {0: 40.0, 1: 0.0, 2: 5.0, 3: 9.0, 4: 14.0, 5: 20.0}
    baseline = [make_record(value=x, seed=s) for s, x in spread.items()]
    new = [make_record(value=x + 0.1, seed=s) for s, x in spread.items() if s]
    row, _ = only([*new, make_record(value=60.0, seed=6)], baseline)
    assert (row.state, row.difference) == ("worse", pytest.approx(-0.1))


def test_what_is_below_the_floor_of_the_unit_is_no_change():
    apart = make_environment(determinism="statistical")
    old, new = (
        runs(*(x + step for x in (10.0, 10.0001, 9.9999)), environment=apart)
        for step in (0.0, 0.005)
    )
    assert only(new, old)[0].state == only(old, new)[0].state == "same"


@pytest.mark.parametrize(("now", "state"), [(1.0, "same"), (0.0, "worse")])
@pytest.mark.parametrize("gave", ["distance 0.004", "distance 0.006"])
def test_a_property_has_no_spread(now, state, gave):
    """What is checked is so or is not, on any machine, whatever the experiment gave."""
    said = {"unit": YES_NO, "se": None, "direction": "higher"}
    there = make_environment(machine_class="another")
    new = make_record(metrics=(make_metric(now, protocol=gave, **said),), environment=there)
    old = make_record(metrics=(make_metric(1.0, protocol="distance 0.004", **said),))
    assert only([new], [old])[0].state == state


@pytest.mark.parametrize("value", [None, 99.0])
def test_runs_that_were_all_cut_short_are_unfinished_and_not_failed(value):
    row, code = only([make_record(value=value, status="budget")])
    assert (row.state, row.new.so_far, code) == ("unfinished", value, 3)


def test_a_new_run_that_failed_where_there_was_none_is_new():
    (row,) = compare([make_record(value=None, status="diverged")], []).rows
    assert row.state == "only-new"


def test_how_far_apart_is_told_in_standard_errors_of_the_difference():
    """Welch: 2 apart, of two means of three, each with a spread of 0.1."""
    row, _ = only(runs(12.0, 12.1, 11.9))
    assert row.standard_errors == pytest.approx(2 / (0.1 * (2 / 3) ** 0.5))
    assert only(runs(10.0), runs(10.0))[0].standard_errors is None


def test_numbers_that_do_not_repeat_are_told():
    row, _ = only(runs(10.0, 10.1, 9.8))
    assert "seed 2 did not repeat" in row.reason
    row, _ = only(runs(10.0, 10.1, 9.8, code=make_code(source_hash="new")))
    assert "code changed the numbers of seed 2" in row.reason
    for change in ({"determinism": "statistical"}, {"threads": 2}):
        row, _ = only(runs(10.0, 10.1, 9.8, environment=make_environment(**change)))
        assert "repeat" not in row.reason


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"data": make_data(fingerprints={"test": "other"})}, "the test data differ"),
        ({"metrics": (make_metric(10.0, protocol="estimate"),)}, "protocol differs"),
        ({"metrics": (make_metric(10.0, unit="bits/dim"),)}, "unit differs"),
        ({"recipe": make_recipe("x", args={"layers": 99})}, "another recipe"),
    ],
)
def test_what_is_not_the_same_thing_is_not_comparable(overrides, reason):
    row, code = only(runs(10.0, **overrides))
    assert (row.state, code) == ("not-comparable", 3)
    assert reason in row.reason


@pytest.mark.parametrize("sides", [("new",), ("baseline",), ("new", "baseline")])
def test_runs_cut_short_are_compared_with_nothing(sides):
    """However far apart; numbers so far stand apart from means."""
    values = {"new": (12.0, 12.1), "baseline": (10.0, 10.1)}
    status = {side: "budget" if side in sides else "complete" for side in values}
    row, code = only(*(runs(*values[side], status=status[side]) for side in values))
    assert (row.state, code, row.difference) == ("unfinished", 3, None)
    assert row.reason.startswith(f"{' and '.join(sides)} runs cut short by the budget")
    for name, side in (("new", row.new), ("baseline", row.baseline)):
        number = sum(values[name]) / 2
        shown = (None, number) if name in sides else (number, None)
        assert (side.mean, side.so_far) == pytest.approx(shown)


@pytest.mark.parametrize(("status", "code"), [("complete", 3), ("budget", 0)])
def test_what_the_baseline_did_not_finish_either_keeps_nothing_from_passing(status, code):
    other = make_cell("made")
    new = [*BASE, *runs(12.0, cell=other, status="budget")]
    assert compare(new, [*BASE, *runs(10.0, cell=other, status=status)]).exit_code == code


def test_one_finished_run_beats_those_cut_short():
    mixed = [*runs(10.0), make_record(value=20.0, seed=1, status="budget")]
    row, _ = only(mixed, runs(10.0))
    assert (row.state, row.new.seeds) == ("same", 1)


def test_a_run_that_breaks_now_is_worse():
    row, code = only([make_record(value=None, status="diverged")])
    assert (row.state, code) == ("worse", 1)
    assert "diverged" in row.reason


FAILED = [make_record(value=None, seed=seed, status="diverged") for seed in (1, 2)]


@pytest.mark.parametrize(
    ("new", "baseline", "state"),
    [
        ([*runs(10.0), *FAILED], BASE, "worse"),
        ([*BASE, make_record(value=None, seed=3, status="diverged")], BASE, "same"),
        ([*runs(10.0), *FAILED], [*runs(10.0, 10.1), FAILED[1]], "noise"),
    ],
    ids=["none-did", "another-seed", "some-did"],
)
def test_seeds_that_break_now_are_told(new, baseline, state):
    row, _ = only(new, baseline)
    assert row.state == state
    count = sum(run.outcome.status == "diverged" for run in new)
    assert f"{count} of {len(new)} new seeds failed: diverged" in row.reason


def test_what_new_runs_do_not_measure_has_not_failed():
    old = [make_record(metrics=(make_metric(1.0), make_metric(2.0, name="gap")))]
    rows = {row.metric: row for row in compare(runs(1.0), old).rows}
    assert (rows["gap"].state, rows["gap"].reason) == ("only-baseline", "no new run measures it")


def of_seeds(*values, **data):
    """Runs whose splits are drawn with their seeds."""
    return [
        make_record(
            value=v,
            seed=s,
            data=make_data(seeded=True, **{"fingerprints": {"test": str(s)}, **data}),
        )
        for s, v in enumerate(values)
    ]


def test_data_drawn_with_the_seed_are_compared_seed_by_seed():
    old = of_seeds(10.0, 10.1, 9.9)
    assert only(of_seeds(10.0, 10.1, 9.9), old)[0].state == "same"
    assert only(of_seeds(12.0, 12.1, 11.9), old)[0].state == "worse"
    for changed in ({"fingerprints": {"test": "x"}}, {"files": {"a": "0" * 64}}, {"version": "2"}):
        row, _ = only(of_seeds(12.0, 12.1, 11.9, **changed), old)
        assert (row.state, row.reason) == ("not-comparable", "the test data differ")


def test_a_run_that_works_now_is_no_regression():
    row, _ = only(BASE, [make_record(value=None, status="diverged")])
    assert row.state == "only-new"


def test_cells_of_one_side_are_listed():
    new = [*BASE, *runs(1.0, cell=make_cell("made"))]
    baseline = [*BASE, *runs(1.0, cell=make_cell("ffjord"))]
    comparison = compare(new, baseline)
    assert {row.state for row in comparison.rows} == {"same", "only-new", "only-baseline"}
    assert comparison.exit_code == 0


def test_the_same_recipe_meets_under_another_row():
    shared = make_recipe("shared")
    moved = runs(12.0, 12.1, 11.9, cell=make_cell("maf-mog"), recipe=shared)
    row, code = only(moved, runs(10.0, 10.1, 9.9, recipe=shared))
    assert (row.cell, row.state, code) == ("ffjord/density/maf/power", "worse", 1)
    assert (row.new.seeds, row.baseline.seeds) == (3, 3)


def test_the_same_recipe_does_not_meet_in_another_column_or_table():
    shared = make_recipe("shared")
    for cell in (make_cell(column="gas"), make_cell(table="other"), make_cell(paper="maf")):
        comparison = compare(runs(12.0, cell=cell, recipe=shared), runs(10.0, recipe=shared))
        assert [row.state for row in comparison.rows] == ["only-baseline", "only-new"]


def test_a_cell_whose_recipe_moved_and_changed_is_not_comparable():
    kept, other = make_recipe("kept"), make_recipe("other", args={"layers": 99})
    new = [*runs(10.0, cell=make_cell("moved"), recipe=kept), *runs(5.0, recipe=other)]
    comparison = compare(new, runs(10.0, recipe=kept))
    assert [(row.state, row.reason) for row in comparison.rows] == [
        ("same", "the same numbers, seed by seed"),
        ("not-comparable", "another recipe"),
    ]
    assert {row.cell for row in comparison.rows} == {"ffjord/density/maf/power"}


def test_a_further_recipe_of_a_cell_that_met_is_only_new():
    further = runs(5.0, recipe=make_recipe("other", args={"layers": 99}))
    comparison = compare([*BASE, *further], BASE)
    assert [row.state for row in comparison.rows] == ["same", "only-new"]


def test_nothing_in_common_is_not_comparable():
    assert compare(runs(1.0, cell=make_cell("made")), BASE).exit_code == 3
    assert compare([], []).exit_code == 3


def test_worse_outranks_not_comparable():
    other = make_cell("made")
    changed = runs(1.0, cell=other, data=make_data(fingerprints={"test": "other"}))
    comparison = compare([*runs(12.0, 12.1, 11.9), *changed], [*BASE, *runs(1.0, cell=other)])
    assert comparison.exit_code == 1


def test_a_superseded_record_does_not_count():
    wrong = runs(99.0)[0]
    right = make_record(value=10.0, run_id="right", supersedes=wrong.run_id)
    assert only([wrong, right], [right])[0].state == "same"


def test_training_time_is_shown_and_not_judged():
    row, _ = only([r.model_copy(update={"budget": make_budget(train_seconds=900.0)}) for r in BASE])
    assert (row.state, row.new.train_seconds, row.baseline.train_seconds) == ("same", 900.0, 60.0)


def comparison():
    new = [*runs(12.0, 12.1, 11.9), *runs(1.0, cell=make_cell("made"))]
    return compare(new, BASE)


def test_text_fits_its_width_and_says_what_is_worse():
    text = render_comparison(comparison(), width=100)
    assert max(map(len, text.splitlines())) <= 100
    assert "▼ worse ¹" in text
    assert "12.00 ±0.10" in text
    assert "worse by 2 nats" in text
    assert "1 worse, 1 only new" in text


def test_one_run_is_shown_with_its_own_error():
    metrics = [(make_metric(value, se=0.25),) for value in (12.0, 10.0)]
    new, old = ([make_record(metrics=of_run)] for of_run in metrics)
    text = render_comparison(compare(new, old))
    assert "12.00 ±0.50" in text
    assert MEASURED_LEGEND in " ".join(text.split())
    (row,) = json.loads(render_comparison(compare(new, old), "json"))["rows"]
    assert (row["new"]["sd"], row["new"]["se_test"]) == (None, 0.25)


def test_markdown_is_a_table():
    rows = [
        line for line in render_comparison(comparison(), "markdown").splitlines() if line[:1] == "|"
    ]
    assert len(rows) == 4
    assert {row.count("|") for row in rows} == {6}


def test_machine_formats_hold_every_row():
    body = json.loads(render_comparison(comparison(), "json"))
    assert [row["state"] for row in body["rows"]] == ["worse", "only-new"]
    assert body["exit_code"] == 1
    table = list(csv.DictReader(io.StringIO(render_comparison(comparison(), "csv"))))
    assert [row["state"] for row in table] == ["worse", "only-new"]
    assert float(table[0]["baseline_mean"]) == pytest.approx(10.0)


def test_an_empty_comparison_says_so():
    for format in ("text", "markdown"):
        assert "Nothing to compare" in render_comparison(compare([], []), format)
    assert render_comparison(compare([], []), "csv") == ""


NEUTRAL = {("ffjord/density", "nll"): "none"}


@pytest.mark.parametrize("step", [-2.0, 2.0])
def test_what_has_no_direction_is_told_and_not_judged(step):
    comparison = compare(runs(*(x + step for x in (10.0, 10.1, 9.9))), BASE, NEUTRAL)
    (row,) = comparison.rows
    assert (row.state, comparison.exit_code) == ("changed", 0)
    assert row.difference == pytest.approx(step)
    assert "changed by 2 nats" in row.reason
    assert "1 changed" in comparison.summary
    assert "~ changed" in render_comparison(comparison)


def test_one_run_on_each_side_without_direction_does_not_set_the_exit_code():
    comparison = compare(runs(12.0), runs(10.0), NEUTRAL)
    assert (comparison.rows[0].state, comparison.exit_code) == ("changed", 0)
    assert comparison.rows[0].difference == pytest.approx(2.0)


def test_what_has_no_direction_is_the_same_where_nothing_changed():
    assert compare(BASE, BASE, NEUTRAL).rows[0].state == "same"


def test_the_direction_of_the_column_goes_before_that_of_the_record():
    def told(*values, direction):
        metrics = [make_metric(v, direction=direction) for v in values]
        return [make_record(seed=s, metrics=(m,)) for s, m in enumerate(metrics)]

    new, old = told(1.0, 1.1, direction="none"), told(5.0, 5.1, direction="lower")
    assert compare(new, old).rows[0].state == "not-comparable"
    assert compare(new, old, NEUTRAL).rows[0].state == "changed"
    higher = {("ffjord/density", "nll"): "higher"}
    assert compare(new, old, higher).rows[0].state == "worse"


def test_directions_are_those_of_the_declared_columns():
    directions = declared_directions(load_catalog().papers)
    assert directions["priors/elbo-surgery", "mutual-information"] == "none"
    assert directions["priors/elbo-surgery", "marginal-kl"] == "lower"
    assert directions["avb/elbo", "discriminator-error"] == "none"
