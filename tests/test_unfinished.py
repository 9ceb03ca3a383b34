"""Verdicts of runs that their budget cut short: never a measurement, and what is forecast."""

import math

import pytest
from factories import (
    make_budget,
    make_cell,
    make_column,
    make_data,
    make_published,
    make_quality,
    make_record,
    make_table,
)
from two_stores import store_of

from dgm_bench.spec import Cost, StoppingSpec
from dgm_bench.verdict import Pool, judge, judge_table


def runs(cell, *values, **overrides):
    return [make_record(cell, value=v, seed=s, **overrides) for s, v in enumerate(values)]


@pytest.fixture
def cell():
    return make_cell(published=make_published("10.00", "0.20"))


def cut_short(cell, value, seed=0, **budget):
    return make_record(cell, value=value, seed=seed, status="budget", budget=make_budget(**budget))


@pytest.mark.parametrize("published", [make_published("10.00", "0.20"), None])
def test_runs_cut_short_are_no_measurement(published):
    """Neither worse nor better nor measured, wherever they got; the furthest is shown."""
    cell = make_cell(published=published)
    records = [cut_short(cell, 9.0, 0, steps=900), cut_short(cell, 20.0, 1, steps=300, epochs=2.0)]
    verdict = judge(cell, records, Pool())
    assert (verdict.state, verdict.mean, verdict.seeds) == ("unfinished", None, 0)
    assert (verdict.difference, verdict.interval) == (None, None)
    assert (verdict.unfinished.so_far, verdict.unfinished.epochs) == (9.0, 12.5)
    said = "cut short by the budget after 12.5 epochs, early stopping not reached: 9 nats so far"
    assert said in verdict.reason


def test_a_run_cut_short_without_a_value_is_no_failure(cell):
    verdict = judge(cell, [cut_short(cell, None)], Pool())
    assert (verdict.state, verdict.unfinished.so_far) == ("unfinished", None)


def falling(record):
    """Six validations, from 30 to 25 by one and a half in the last doubling of the steps."""
    return [
        {"step": 100.0 * i, "epoch": float(i), "seconds": float(i), "validation": loss}
        for i, loss in enumerate([30, 27.5, 26.5, 26, 25.5, 25], 1)
    ]


def with_most(cell, steps):
    stage = cell.recipe.stages[0]
    stage = stage.model_copy(update={"stopping": StoppingSpec(max_steps=steps)})
    recipe = cell.recipe.model_copy(update={"stages": (stage,)})
    return cell.model_copy(update={"recipe": recipe})


def test_an_unfinished_number_is_forecast_as_far_from_its_validation_as_it_is_now(cell):
    cell = with_most(cell, 1200)
    record = cut_short(cell, 26.0, steps=600, epochs=6.0)
    found = judge(cell, [record], Pool(), curve_of=falling).unfinished
    assert (found.so_far, found.fraction) == (26.0, 0.5)
    # One more doubling: a power law of exponent 0.55 falls by 1.5 / 2^0.55 more, from 26.
    assert found.forecast == pytest.approx(26 - 1.5 / 2**0.55)
    assert found.low < found.forecast < found.high <= 26
    assert (
        "its curve, extrapolated, ends at 24.98 ["
        in judge(cell, [record], Pool(), curve_of=falling).reason
    )


def test_a_number_in_bits_per_dimension_falls_by_as_many_as_its_nats_are(cell):
    cell = with_most(make_cell(column=make_column(unit="bits/dim")), 1200)
    record = cut_short(cell, 4.0, steps=600, epochs=6.0)
    record = record.model_copy(update={"data": make_data(dim=64)})
    found = judge(cell, [record], Pool(), curve_of=falling).unfinished
    assert found.forecast == pytest.approx(4 - 1.5 / 2**0.55 / (64 * math.log(2)))


def test_a_forecast_of_the_record_is_taken_as_it_is(cell):
    record = cut_short(with_most(cell, 1200), 2.5, steps=600, epochs=6.0)
    record = record.model_copy(update={"quality": (make_quality(forecast=True),)})
    found = judge(with_most(cell, 1200), [record], Pool(), curve_of=None).unfinished
    assert (found.forecast, found.low, found.high) == (2.0, 1.5, 2.4)


@pytest.mark.parametrize(
    ("column", "curve", "why"),
    [
        ({}, (), "there is no curve"),
        ({}, falling(None)[:4], "4 of 5 validations"),
        (
            {"unit": "bits/dim"},
            falling(None),
            "validations are in nats, and how many",
        ),
    ],
)
def test_why_there_is_no_forecast_is_said(column, curve, why):
    cell = with_most(make_cell(column=make_column(**column)), 1200)
    verdict = judge(cell, [cut_short(cell, 26.0, steps=600)], Pool(), curve_of=lambda _: curve)
    assert verdict.unfinished.forecast is None
    assert why in verdict.unfinished.no_forecast
    assert f"no forecast: {why}" in verdict.reason


def test_runs_cut_short_take_no_place_of_finished_ones_that_are_not_comparable(cell):
    finished = make_record(cell, value=10.0, seed=1, data=make_data(verified=False))
    verdict = judge(cell, [cut_short(cell, 20.0), finished], Pool())
    assert verdict == judge(cell, [finished], Pool())
    assert verdict.state == "not-comparable"


def test_runs_cut_short_of_other_data_are_unfinished_and_said_to_be_not_comparable(cell):
    verdict = judge(cell, runs(cell, 10.0, status="budget", data=make_data(verified=False)), Pool())
    assert verdict.state == "unfinished"
    assert "not comparable when it ends: power is not verified" in verdict.reason


@pytest.mark.parametrize(
    ("stopping", "planned", "said"),
    [
        ({"max_steps": 1200}, 5000, ", 50 % of its steps:"),
        ({"patience": 30}, 1200, ", 50 % of the steps expected, early stopping not reached:"),
        ({"patience": 30}, None, ", early stopping not reached:"),
        ({"patience": 30, "max_steps": 1200}, None, ", 50 % of the steps expected, early"),
    ],
)
def test_the_share_done_is_of_what_the_run_needed(cell, stopping, planned, said):
    stage = cell.recipe.stages[0].model_copy(update={"stopping": StoppingSpec(**stopping)})
    cost = planned and Cost(steps=planned, flops_per_step=1.0, launches_per_step=1.0)
    recipe = cell.recipe.model_copy(update={"stages": (stage,), "cost": cost})
    cell = cell.model_copy(update={"recipe": recipe})
    verdict = judge(cell, [cut_short(cell, 20.0, steps=600, epochs=6.0)], Pool())
    assert said in verdict.reason
    assert verdict.unfinished.early_stopping == ("patience" in stopping)


def test_complete_runs_count_before_those_cut_short(cell):
    records = [
        *runs(cell, 10.0, 10.002, 9.998),
        make_record(cell, seed=3, value=20.0, status="budget"),
    ]
    verdict = judge(cell, records, Pool())
    assert (verdict.state, verdict.seeds) == ("reproduced", 3)
    assert "1 seed cut short by the budget left out" in verdict.reason


def judged(cell, own, stored):
    table = make_table([cell])
    return judge_table(table, store_of(own, stored))[cell.id]


def test_ones_own_unfinished_run_is_told_beside_the_stored_number(cell):
    mine = cut_short(with_most(cell, 1200), 99.0, steps=600).model_copy(update={"run_id": "mine"})
    cell = with_most(cell, 1200)
    stored = runs(cell, 10.0, 10.002, 9.998)
    found = judged(cell, [mine], stored)
    assert (found.state, found.seeds, found.own_seeds) == ("reproduced", 3, ())
    assert (found.own_unfinished.fraction, found.own_unfinished.so_far) == (0.5, 99.0)
    alone = judged(cell, [mine], [])
    assert (alone.state, alone.own_seeds, alone.own_unfinished) == ("unfinished", (0,), None)
    assert judged(cell, [], [mine, *stored]).own_unfinished is None
    ended = make_record(cell, value=10.0, seed=1, run_id="ended")
    found = judged(cell, [mine, ended], stored)
    assert (found.own_seeds, found.own_unfinished) == ((1,), None)
