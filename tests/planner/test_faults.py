"""Interrupted runs: drawn times against a simulation event by event, and against closed forms."""

import math
import random

import numpy as np
import pytest

from dgm_bench.errors import UsageError
from dgm_bench.planner.faults import MTBF_SECONDS, Faults, Interruptions

DRAWS = 4000


def played(seconds, kind, clock):
    """One run, event by event: a failure sets it back to its last checkpoint."""
    taken, done = 0.0, 0.0
    while done < seconds:
        length = min(kind.every, seconds - done)
        needed = length + (kind.saving if length == kind.every else 0.0)
        failure = clock.expovariate(kind.failures) if kind.failures else math.inf
        taken += min(failure, needed)
        if failure >= needed:
            done += length
            continue
        taken += waited(kind, clock)
    return taken


def waited(kind, clock):
    """Until a restart is over; each interruption of it begins another."""
    taken = 0.0
    while (event := clock.expovariate(kind.rate)) < kind.restart:
        taken += event
    return taken + kind.restart


def mean_and_error(times):
    return np.mean(times), np.std(times) / math.sqrt(len(times))


@pytest.mark.parametrize(
    "kind",
    [
        Interruptions(1 / 300, 0.0, 50, 40, 7),
        Interruptions(1 / 2000, 0.0, 500, 900, 60),
        Interruptions(1 / 30, 0.0, 20, 40, 0),
    ],
)
def test_failures_are_those_played_event_by_event_and_dalys_formula(kind):
    """Daly (2006), equation 13: of each segment (e^(rate s) - 1) e^(rate restart) / rate."""
    clock = random.Random(1)
    oracle, error = mean_and_error([played(2980, kind, clock) for _ in range(1000)])
    drawn, own = mean_and_error(kind.drawn(2980, DRAWS, np.random.default_rng(2)))
    rate, (whole, rest) = kind.failures, divmod(2980, kind.every)
    segment = (math.exp(rate * (kind.every + kind.saving)) - 1) / rate
    formula = (whole * segment + (math.exp(rate * rest) - 1) / rate) * math.exp(rate * kind.restart)
    assert kind.expected(2980) == pytest.approx(formula)
    assert abs(oracle - formula) < 4 * error
    assert abs(drawn - formula) < 4 * own


def test_the_spread_of_drawn_times_is_that_of_played_ones():
    kind, clock = Interruptions(1 / 300, 0.0, 50, 40, 7), random.Random(3)
    oracle = np.std([played(2980, kind, clock) for _ in range(1000)])
    drawn = np.std(kind.drawn(2980, DRAWS, np.random.default_rng(4)))
    assert drawn == pytest.approx(oracle, rel=0.1)  # 1,000 plays give it within 3 %


def test_the_spread_grows_with_the_root_of_the_work():
    """Also where losses are many, and no longer drawn one by one."""
    kind, generator = Interruptions(1 / 300, 0.0, 50, 40, 7), np.random.default_rng(7)
    some, many = (np.std(kind.drawn(work, DRAWS, generator)) for work in (1e4, 1e5))
    assert many == pytest.approx(math.sqrt(10) * some, rel=0.1)


def test_a_preemption_loses_nothing_but_its_restart():
    """As many as pass in the work, each with restarts until one is not interrupted."""
    kind = Interruptions(0.0, 1 / 400, 300, math.inf, 0)
    drawn, error = mean_and_error(kind.drawn(5000, DRAWS, np.random.default_rng(5)))
    assert kind.expected(5000) == pytest.approx(5000 * math.exp(300 / 400))
    assert abs(drawn - kind.expected(5000)) < 4 * error


@pytest.mark.parametrize("work", [100.0, 1e5])
def test_both_together_have_the_mean_of_the_closed_form(work):
    """A short run has few interruptions, which are drawn one by one, a long one very many."""
    kind = Interruptions(1 / 300, 1 / 500, 50, 40, 7)
    drawn, error = mean_and_error(kind.drawn(work, DRAWS, np.random.default_rng(6)))
    assert abs(drawn - kind.expected(work)) < 4 * error


def test_nothing_is_added_where_nothing_fails():
    kind = Faults(None, None).of(64, 1e9)
    assert kind.rate == 0
    assert kind.drawn(1234.5, 3, np.random.default_rng(0)).tolist() == [1234.5] * 3
    assert kind.expected(1234.5) == 1234.5


def test_more_devices_fail_more_often_and_are_taken_away_by_machines():
    one, many = Faults(8e6, 8e4).of(1, 0), Faults(8e6, 8e4).of(24, 0)
    assert (one.failures, one.preemptions) == (1 / 8e6, 1 / 8e4)
    assert (many.failures, many.preemptions) == (24 / 8e6, 3 / 8e4)


def test_checkpoints_come_as_young_has_it_but_not_more_often_than_runs_save():
    kind = Faults(1e6, None).of(1, weights=1e9)
    assert kind.saving == 12
    assert kind.every == pytest.approx(math.sqrt(2 * 12 * 1e6))
    assert Faults(1e6, None).of(1, weights=0).every == 30
    best = min(
        (30.0, kind.every / 3, kind.every, 3 * kind.every), key=lambda every: _mean(kind, every)
    )
    assert best == kind.every


def _mean(kind, every):
    return Interruptions(kind.failures, 0.0, kind.restart, every, kind.saving).expected(1e6)


def test_the_mean_time_between_failures_is_the_published_one():
    """419 in 54 days on 16,384 GPUs."""
    assert pytest.approx(16_384 * 54 * 86_400 / 419, rel=1e-4) == MTBF_SECONDS


def test_what_would_never_end_is_told():
    with pytest.raises(UsageError, match="--mtbf: so often interrupted"):
        Faults(100.0, None).of(8, 0)
    with pytest.raises(UsageError, match="--preempt-every"):
        Faults(None, 20.0).of(1, 0)
