"""Time to quality of new runs against the baseline's."""

import pytest
from factories import make_cell, make_recipe, make_record

from dgm_bench.compare import compare, with_speed
from dgm_bench.compare.time_to_quality import compare_times


def side(*speeds, reach=1.0, every=100.0, name="new"):
    """Runs by seed whose validations fall from 11 in a straight line of so many times 0.01 a step.

    Returns:
        Records, and what gives their curves, which end at ``reach``.
    """
    ids = (f"{name}-{seed}" for seed, _ in enumerate(speeds))
    records = [make_record(seed=seed, run_id=run_id) for seed, run_id in enumerate(ids)]

    def curve(record):
        losses = [11 - 0.01 * speeds[record.seed] * every * i for i in range(21)]
        return [
            {"step": every * (i + 1), "epoch": i + 1.0, "seconds": 1.0, "validation": max(x, reach)}
            for i, x in enumerate(losses)
        ]

    return records, curve


def old_side(*speeds):
    return side(*speeds, name="old")


def times(new, old):
    return compare_times(new[0], old[0], new[1], old[1])


def test_the_same_curves_take_the_same_steps():
    found = times(side(1.0, 1.0), old_side(1.0, 1.0))
    assert [(row.fraction, row.target) for row in found] == [
        (0.5, 6.0), (0.9, pytest.approx(2.0)), (0.99, pytest.approx(1.1)),
    ]  # fmt: skip
    assert {(row.ratio, row.spread, row.seeds, row.missed) for row in found} == {(1.0, 0.0, 2, 0)}
    assert [(row.new, row.baseline) for row in found] == [
        ((600, 6), (600, 6)), ((1000, 10), (1000, 10)), ((1100, 11), (1100, 11)),
    ]  # fmt: skip
    assert [row.rhythm for row in found] == pytest.approx([1 / 6, 0.1, 1 / 11])


def test_the_ratio_is_the_geometric_mean_over_seeds():
    half, *_ = times(side(0.5, 2.0), old_side(1.0, 1.0))
    # After 11 and 4 validations instead of 6.
    assert half.ratio == pytest.approx(((1100 / 600) * (400 / 600)) ** 0.5)
    assert half.spread == pytest.approx(0.7153, abs=1e-4)
    new, old = side(0.5, 2.0), old_side(1.0, 1.0)
    only, *_ = times((new[0][1:], new[1]), old)
    assert (only.seeds, only.ratio, only.spread) == (1, pytest.approx(400 / 600), None)


def test_both_sides_are_held_to_the_baseline_s_validations():
    """A new run that ends worse has gone its own way as fast, and has not come as far."""
    *_, last = times(side(1.0, 1.0, reach=2.0), old_side(1.0, 1.0))
    assert (last.new, last.ratio, last.seeds, last.missed) == (None, None, 0, 2)


def test_other_recipes_runs_cut_short_and_lost_curves_count_for_nothing():
    new, old = side(1.0), old_side(1.0)
    other = make_record(make_cell(recipe=make_recipe(args={"layers": 7})))
    assert times(([other], new[1]), old) == []
    assert times(([make_record(status="budget")], new[1]), old) == []
    assert times((new[0], lambda _: ()), old) == []
    assert times(old, old) == [], "the same runs"


@pytest.mark.parametrize(
    ("new", "numbers", "state"),
    [
        (side(1.0), (1100, 1100), "same"),
        (side(0.97), (1100, 1200), "same"),  # within the rhythm of validations
        (side(0.5), (1100, 2100), "changed"),
        (side(1.0, reach=2.0), (1100, None), "changed"),
    ],
)
def test_steps_are_shown_in_comparisons_and_not_judged(new, numbers, state):
    old = old_side(1.0)
    runs, curves = (new[0], old[0]), (new[1], old[1])
    (row,) = with_speed(compare([], []), runs, ({}, {}), curves).speed
    assert (row.baseline, row.new, row.state) == (*numbers, state)
    assert row.quantity == "steps to 99% of the baseline's way"
