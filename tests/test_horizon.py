"""How many steps a run is expected to take, and which share of them is done."""

import pytest
from factories import make_budget, make_record

from dgm_bench.horizon import fraction_done, horizon
from dgm_bench.spec import Cost, DataSpec, ModelSpec, OptimizerSpec, Recipe, Stage, StoppingSpec


def recipe(*stopping, planned=None):
    stages = tuple(
        Stage(
            name=f"stage-{number}",
            data=DataSpec(name="power"),
            model=ModelSpec(name="maf:MAF"),
            optimizer=OptimizerSpec(lr=1e-4),
            batch_size=100,
            stopping=StoppingSpec(**rule),
        )
        for number, rule in enumerate(stopping)
    )
    cost = planned and Cost(steps=planned, flops_per_step=1.0, launches_per_step=1.0)
    return Recipe(name="recipe", stages=stages, cost=cost)


@pytest.mark.parametrize(
    ("stopping", "planned", "expected"),
    [
        ([{"max_steps": 2000}], 500, 2000),  # nothing else ends it
        ([{"max_epochs": 30}], None, 3000),  # an epoch has 100 steps
        ([{"max_steps": 2000, "max_epochs": 30}], None, 2000),
        ([{"max_steps": 2000}, {"max_steps": 3000}], None, 5000),
        ([{"patience": 30}], 9000, 9000),
        ([{"patience": 30, "max_steps": 5000}], 9000, 5000),
        ([{"patience": 30, "max_steps": 5000}], 700, 5000),  # more are done than were planned
        ([{"patience": 30}], 700, None),
        ([{"patience": 30}], None, None),
    ],
)
def test_expected_steps_are_the_maximum_or_what_is_planned(stopping, planned, expected):
    ahead = horizon(recipe(*stopping, planned=planned), 1000, 10.0)
    assert (ahead and ahead.expected) == expected


@pytest.mark.parametrize(
    ("stopping", "planned", "bounds"),
    [
        ({"max_steps": 2000}, 500, (2000, 2000)),
        ({"patience": 30}, 9000, (4500, 18000)),
        ({"patience": 30}, 1500, (1000, 3000)),  # so many are done
        ({"patience": 30, "max_steps": 12000}, 9000, (4500, 12000)),
    ],
)
def test_patience_may_end_it_in_half_or_twice_the_steps(stopping, planned, bounds):
    ahead = horizon(recipe(stopping, planned=planned), 1000, 10.0)
    assert (ahead.earliest, ahead.latest) == bounds


def test_the_share_done_is_at_most_all():
    for planned, steps, share in ((4000, 1000, 0.25), (500, 1000, None)):
        budget = make_budget(steps=steps, epochs=10.0)
        record = make_record(recipe=recipe({"patience": 3}, planned=planned), budget=budget)
        assert fraction_done(record) == share
    done = make_record(recipe=recipe({"max_steps": 900}), budget=make_budget(steps=1000))
    assert fraction_done(done) == 1.0
