"""Time to quality: fractions of the way, published numbers, and what is validated."""

import math

import pytest
from factories import (
    make_budget,
    make_cell,
    make_column,
    make_published,
    make_quality,
    make_recipe,
    make_record,
)

from dgm_bench.quality import (
    FRACTIONS,
    not_validated,
    passed_published,
    stages_quality,
)
from dgm_bench.spec import Cost, ObjectiveSpec, ScheduleSpec, StoppingSpec

#: From 11 to 1: half of the way is 6, nine tenths 2, all but a hundredth 1.1.
LOSSES = [11.0, 7.0, 6.0, 6.5, 2.1, 2.0, 1.05, 1.0, 3.0]


def curve(losses=LOSSES, **columns):
    given = {"seconds": lambda i: 5.0 * (i + 1), "function_evaluations": lambda i: math.nan}
    return [
        {
            "step": 100.0 * (i + 1),
            "epoch": (i + 1) / 2,
            "validation": loss,
            **{name: value(i) for name, value in (given | columns).items()},
        }
        for i, loss in enumerate(losses)
    ]


def test_fractions_are_of_the_way_from_the_first_validation_to_the_best():
    (found,) = stages_quality(make_record(), curve())
    assert (found.first, found.best, found.validations) == (11.0, 1.0, 9)
    assert (found.validated, found.unit) == ("nll", "nats")
    assert [r.fraction for r in found.reached] == list(FRACTIONS)
    assert [(r.step, r.epoch, r.validation) for r in found.reached] == [
        (300, 1.5, 6.0), (600, 3.0, 2.0), (700, 3.5, 1.05),
    ]  # fmt: skip
    assert [r.target for r in found.reached] == pytest.approx([6.0, 2.0, 1.1])


def test_seconds_are_of_training_alone():
    """As the curve counts them; of one that does not, the run's share of training."""
    record = make_record(budget=make_budget(train_seconds=80.0, validation_seconds=20.0))
    (old,) = stages_quality(record, curve())
    (new,) = stages_quality(record, curve(train_seconds=lambda i: 1.0 * (i + 1)))
    assert [r.train_seconds for r in old.reached] == pytest.approx([12.0, 24.0, 28.0])
    assert [r.train_seconds for r in new.reached] == [3.0, 6.0, 7.0]


def test_function_evaluations_are_counted_where_there_are_some():
    (found,) = stages_quality(make_record(), curve(function_evaluations=lambda i: 40.0 * i))
    assert [r.function_evaluations for r in found.reached] == [80, 200, 240]
    (found,) = stages_quality(make_record(), curve())
    assert {r.function_evaluations for r in found.reached} == {None}


def test_each_stage_has_its_own_and_validations_that_are_no_numbers_count_for_nothing():
    stages = make_recipe().stages
    two = (stages[0], stages[0].model_copy(update={"name": "prior"}))
    record = make_record(recipe=make_recipe().model_copy(update={"stages": two}))
    rows = [{**row, "stage": 0.0} for row in curve([math.nan, 4.0, 2.0])]
    rows += [{**row, "stage": 1.0} for row in curve([9.0])]
    first, second = stages_quality(record, rows)
    assert (first.stage, first.first, first.validations) == ("train", 4.0, 2)
    assert (second.stage, second.reached) == ("prior", ())


@pytest.mark.parametrize("row", [{}, {"step": 1.0}, {"validation": 1.0, "step": math.inf}])
def test_rows_that_lack_something_count_for_nothing(row):
    assert stages_quality(make_record(), [row]) == ()


def test_what_a_record_has_is_not_derived_again():
    record = make_record(quality=(make_quality(),))
    assert stages_quality(record, ()) == record.quality
    assert stages_quality(make_record(), ()) == ()


def with_rule(**rule):
    recipe = make_recipe()
    stage = recipe.stages[0].model_copy(update={"stopping": StoppingSpec(**rule)})
    return recipe.model_copy(update={"stages": (stage,)})


@pytest.mark.parametrize(
    ("status", "recipe", "why"),
    [
        ("budget", with_rule(max_steps=2000), ""),
        ("budget", with_rule(patience=30), "nothing says how long"),
        ("complete", with_rule(max_steps=2000), ""),
    ],
)
def test_runs_cut_short_have_a_forecast_or_say_why_not(status, recipe, why):
    budget = make_budget(steps=900, epochs=4.5)
    (found,) = stages_quality(make_record(recipe=recipe, status=status, budget=budget), curve())
    assert (found.forecast is not None) == (status == "budget" and not why)
    assert found.no_forecast.startswith(why)
    assert bool(found.no_forecast) == bool(why)


@pytest.mark.parametrize(
    ("factor", "steps", "why"),
    [
        (0.1, 900, "the learning rate drops to a tenth at step 1000"),
        (0.1, 1000, "the learning rate drops to a tenth at step 1000"),  # not yet taken
        (0.1, 1001, ""),
        (0.5, 900, ""),
    ],
)
def test_before_a_tenfold_drop_of_the_learning_rate_nothing_is_foretold(factor, steps, why):
    recipe = with_rule(max_steps=2000)
    schedule = ScheduleSpec(milestones=(500, 1000), factor=factor)
    stage = recipe.stages[0].model_copy(update={"schedule": schedule})
    recipe = recipe.model_copy(update={"stages": (stage,)})
    budget = make_budget(steps=steps, epochs=4.5)
    (found,) = stages_quality(make_record(recipe=recipe, status="budget", budget=budget), curve())
    assert (found.forecast is None) == bool(why)
    assert found.no_forecast.startswith(why)


@pytest.mark.parametrize(
    ("objective", "metric", "unit", "why"),
    [
        ("nll", "nll", "nats", ""),
        ("warmed-elbo", "negative-elbo", "nats", ""),
        ("warmed-elbo", "importance-nll", "nats", "validations are of negative-elbo"),
        ("iwae", "importance-nll", "nats", "validations are of iwae"),
        ("nll", "nll", "bits/dim", "validations are in nats, the number in bits/dim"),
    ],
)
def test_a_number_is_compared_with_validations_of_its_own_kind(objective, metric, unit, why):
    recipe = make_recipe()
    stage = recipe.stages[0].model_copy(update={"objective": ObjectiveSpec(name=objective)})
    recipe = recipe.model_copy(update={"stages": (stage,)})
    column = make_column(metric=metric, unit=unit)
    cell = make_cell(column=column, published=make_published("6.0"), recipe=recipe)
    found = passed_published(cell, make_record(cell), curve())
    if why:
        assert found.startswith(why)
    else:
        assert (found.step, found.fraction) == (300, None)
    assert bool(not_validated(cell, recipe)) == ("are of" in why)


def test_a_published_number_may_not_be_passed():
    cell = make_cell(published=make_published("0.5"))
    assert passed_published(cell, make_record(cell), curve()) == "no validation passed it"
    assert passed_published(cell, make_record(cell), ()) == "there is no curve"
    assert passed_published(make_cell(), make_record(), curve()) == "nothing is published"


def test_planned_steps_end_a_run_that_patience_may_end():
    recipe = with_rule(patience=30)
    cost = Cost(steps=3000, flops_per_step=1.0, launches_per_step=1.0)
    budget = make_budget(steps=900, epochs=4.5)
    record = make_record(
        recipe=recipe.model_copy(update={"cost": cost}), status="budget", budget=budget
    )
    (found,) = stages_quality(record, curve())
    assert found.forecast.expected_steps == 3000
