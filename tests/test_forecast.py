"""Forecasts of runs cut short: exact on power laws, and as sure as they say on stored curves."""

from collections import defaultdict
from pathlib import Path
from statistics import mean, median

import pytest

from dgm_bench.forecast import EXPONENTS, forecast
from dgm_bench.horizon import Horizon, great_drop, horizon
from dgm_bench.quality import VALIDATED, validated_rows
from dgm_bench.store import Store

STEPS = [100.0 * (i + 1) for i in range(20)]


def power_law(exponent, steps=STEPS, floor=10.0):
    return [floor + 50 * step**-exponent for step in steps]


def certain(steps):
    return Horizon(steps, steps, steps)


@pytest.mark.parametrize("end", [2000.0, 4000.0, 20000.0])
def test_a_power_law_of_the_typical_exponent_is_met(end):
    found = forecast(STEPS, power_law(EXPONENTS[1]), certain(end))
    assert found.value == pytest.approx(10 + 50 * end ** -EXPONENTS[1], rel=1e-9)
    assert found.low <= found.value <= found.high
    assert found.expected_steps == end


@pytest.mark.parametrize("exponent", [EXPONENTS[0] + 0.01, 0.2, EXPONENTS[2] - 0.01])
def test_the_interval_holds_all_exponents_between_slow_and_fast(exponent):
    sign = -1 if exponent < 0 else 1
    losses = [10 + sign * 50 * step**-exponent for step in STEPS]
    found = forecast(STEPS, losses, certain(20000.0))
    assert found.low < 10 + sign * 50 * 20000.0**-exponent < found.high


def test_a_stop_that_may_come_early_or_late_widens_the_interval():
    losses = power_law(0.55)
    sure, unsure = (
        forecast(STEPS, losses, ahead)
        for ahead in (certain(8000.0), Horizon(8000.0, 4000.0, 16000.0))
    )
    assert unsure.value == sure.value
    assert unsure.low < sure.low < sure.high < unsure.high


def test_noise_widens_the_interval_and_no_end_is_above_the_best():
    smooth = power_law(0.55)
    noisy = [loss + (0.3 if i % 2 else -0.3) for i, loss in enumerate(smooth)]
    sure, unsure = (forecast(STEPS, losses, certain(2200.0)) for losses in (smooth, noisy))
    assert unsure.high - unsure.low > 0.5 > sure.high - sure.low
    rising = [5.0 - step / 1000 if step < 1000 else step / 250 for step in STEPS]
    found = forecast(STEPS, rising, certain(4000.0))
    assert found.value == found.high == min(rising)


@pytest.mark.parametrize(
    ("count", "end", "why"),
    [(4, 400.0, "4 of 5 validations"), (20, 50000.0, "4 % done, of 5 %")],
)
def test_of_too_little_nothing_is_said(count, end, why):
    said = forecast(STEPS[:count], power_law(0.5)[:count], certain(end))
    assert said.startswith(why)


def ends(records, store, share):
    """Finished runs, their forecasts as they were at a share of their steps, and their ends."""
    for record in records:
        rows = validated_rows(record, store.curve(record))
        part = [row for row in rows if row["step"] <= share * rows[-1]["step"]]
        if not part:
            continue
        steps, losses = ([row[name] for row in part] for name in ("step", "validation"))
        if great_drop(record.recipe, int(steps[-1])):
            continue
        ahead = horizon(record.recipe, int(steps[-1]), part[-1]["epoch"])
        found = ahead and forecast(steps, losses, ahead)
        if found and not isinstance(found, str) and ahead.expected > steps[-1]:
            yield record, found, min(row["validation"] for row in rows), min(losses)


@pytest.mark.parametrize(("share", "least"), [(0.1, 30), (0.2, 90), (0.5, 110)])
def test_nine_in_ten_of_the_stored_curves_end_within_the_interval(share, least):
    """Bounds and likelihoods of one stage; the median error is half of what no forecast has.

    Runs of one recipe have nearly one curve, so each recipe counts once, and nine in ten has the
    error (2.6 standard deviations) of so many independent draws.
    """
    store = Store(Path(__file__).parent.parent / "results")
    runs = [
        record
        for record in store.records()
        if record.outcome.status == "complete"
        and len(record.recipe.stages) == 1
        and record.recipe.stages[0].objective.name in {*VALIDATED, "iwae"}
        and record.table not in ("neural-ode", "relaxation", "approaches")
    ]
    found = list(ends(runs, store, share))
    recipes = defaultdict(list)
    for record, f, end, _ in found:
        recipes[record.recipe_hash].append(f.low - 1e-9 <= end <= f.high + 1e-9)
    assert len(recipes) >= least
    within = mean(mean(each) for each in recipes.values())
    assert within == pytest.approx(0.9, abs=2.6 * (0.9 * 0.1 / len(recipes)) ** 0.5)
    error = median(abs(f.value - end) for _, f, end, _ in found)
    assert error < 0.55 * median(best - end for _, _, end, best in found)
