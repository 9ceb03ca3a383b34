"""Statistics: closed forms, and the operating characteristics of the verdict by simulation."""

import math

import numpy as np
import pytest
from scipy import special
from scipy import stats as scipy_stats

from dgm_bench import stats
from dgm_bench.errors import DeclarationError
from dgm_bench.stats import Sample, Variance, VariancePrior

REPETITIONS = 4000


def outcome_rates(truth, seeds, delta, prior, repetitions=REPETITIONS):
    """Return how often each position comes out, for unit seed variance and the true difference."""
    runs = np.random.default_rng(0).normal(truth, 1.0, size=(repetitions, seeds))
    counts = dict.fromkeys(("inside", "below", "above", "undecided"), 0)
    for values in runs.tolist():
        variance = stats.moderate(stats.variance_of(values), prior)
        estimate = stats.difference(Sample(stats.mean(values), variance, seeds), 0.0)
        counts[stats.position(estimate, delta)] += 1
    return {name: count / repetitions for name, count in counts.items()}


POOLED = VariancePrior(variance=1.0, df=8.0)


@pytest.mark.parametrize(
    ("delta", "seeds", "prior", "expected"),
    [
        (2.0, 1, POOLED, 0.12),
        (2.0, 2, None, 0.25),
        (2.0, 2, POOLED, 0.68),
        (2.0, 3, None, 0.56),
        (2.0, 3, POOLED, 0.90),
        (2.0, 5, POOLED, 0.99),
        (3.0, 1, POOLED, 0.74),
        (1.5, 3, None, 0.32),
        (1.5, 3, POOLED, 0.57),
    ],
)
def test_exact_reproductions_are_recognised_as_often_as_designed(delta, seeds, prior, expected):
    rate = outcome_rates(0.0, seeds, delta, prior)["inside"]
    monte_carlo = math.sqrt(expected * (1 - expected) / REPETITIONS)
    assert rate == pytest.approx(expected, abs=0.005 + 3.5 * monte_carlo)


@pytest.mark.parametrize("prior", [None, POOLED])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_a_model_at_the_margin_is_called_reproduced_in_at_most_five_percent(seeds, prior):
    assert outcome_rates(-2.0, seeds, 2.0, prior)["inside"] <= 0.05 + 0.01


@pytest.mark.parametrize(
    ("seeds", "prior", "expected"), [(1, POOLED, 0.55), (3, None, 0.71), (3, POOLED, 0.95)]
)
def test_a_model_beyond_the_margin_is_called_worse_as_often_as_designed(seeds, prior, expected):
    assert outcome_rates(-4.0, seeds, 2.0, prior)["below"] == pytest.approx(expected, abs=0.03)


def test_moments_use_sample_variance():
    assert stats.mean([1.0, 2.0, 6.0]) == 3.0
    assert stats.sd([1.0, 3.0]) == pytest.approx(math.sqrt(2))
    assert stats.se([1.0, 3.0]) == pytest.approx(1.0)
    assert stats.root_mean_square([3.0, 4.0]) == pytest.approx(math.sqrt(12.5))


def test_one_value_has_no_spread():
    assert stats.sd([1.0]) is None
    assert stats.se([1.0]) is None
    assert stats.variance_of([1.0]) is None


def test_student_quantiles_are_those_of_the_tables():
    assert stats.t_quantile(0.95, 2) == pytest.approx(2.919986, abs=1e-6)
    assert stats.t_quantile(0.95, math.inf) == pytest.approx(1.644854, abs=1e-6)


@pytest.mark.parametrize("y", [1e-3, 0.05, 0.7, 3.0, 40.0, 1e5])
def test_inverse_trigamma_inverts(y):
    assert stats.inverse_trigamma(float(special.polygamma(1, y))) == pytest.approx(y, rel=1e-9)


def test_moderation_weighs_by_degrees_of_freedom():
    moderated = stats.moderate(Variance(4.0, 2), VariancePrior(1.0, 8.0))
    assert moderated == Variance(pytest.approx((8 * 1 + 2 * 4) / 10), 10)


def test_moderation_falls_back_on_what_there_is():
    prior = VariancePrior(1.0, 8.0)
    assert stats.moderate(None, prior) == Variance(1.0, 8.0)
    assert stats.moderate(Variance(4.0, 2), None) == Variance(4.0, 2)
    assert stats.moderate(None, None) is None


def test_a_prior_is_worth_no_more_than_the_pool():
    """Cells that differ by no more than chance do not silence one that does."""
    certain = VariancePrior(1.0, math.inf, pooled_df=6)
    assert stats.moderate(None, certain) == Variance(1.0, 6)
    assert stats.moderate(Variance(4.0, 2), certain) == Variance((6 * 1 + 2 * 4) / 8, 8)
    assert stats.moderate(Variance(4.0, 2), VariancePrior(1.0, math.inf)) == Variance(1.0, math.inf)


def test_prior_is_recovered_from_many_cells():
    rng = np.random.default_rng(1)
    df, nu0, sigma0 = 2, 8.0, 0.3
    truths = sigma0**2 * nu0 / rng.chisquare(nu0, 4000)
    cells = [Variance(float(v), df) for v in truths * rng.chisquare(df, 4000) / df]
    prior = stats.fit_variance_prior(cells)
    assert math.sqrt(prior.variance) == pytest.approx(sigma0, rel=0.05)
    assert prior.df == pytest.approx(nu0, rel=0.25)
    assert prior.pooled_df == 8000


def test_equal_variances_give_a_certain_prior():
    prior = stats.fit_variance_prior([Variance(0.01, 4)] * 6)
    assert math.isinf(prior.df)
    assert prior.variance == pytest.approx(0.01)
    assert prior.pooled_df == 24


@pytest.mark.parametrize("cells", [[], [Variance(1.0, 2)] * 2, [Variance(0.0, 2)] * 5])
def test_no_prior_from_too_little(cells):
    assert stats.fit_variance_prior(cells) is None


def test_a_cell_without_spread_does_not_break_the_prior():
    prior = stats.fit_variance_prior([Variance(v, 2) for v in (0.0, 1.0, 1.2, 0.8, 1.1)])
    assert math.isfinite(prior.variance)
    assert prior.variance > 0


def test_welch_matches_the_textbook():
    first = Sample(5.0, Variance(4.0, 3), 4)
    second = Sample(3.0, Variance(9.0, 8), 9)
    estimate = stats.welch(first, second)
    assert estimate.value == 2.0
    assert estimate.se == pytest.approx(math.sqrt(2.0))
    assert estimate.df == pytest.approx(4.0 / (1 / 3 + 1 / 8))


def test_variances_of_one_prior_are_worth_no_more_than_either():
    samples = Sample(5.0, Variance(4.0, 10), 4), Sample(3.0, Variance(4.0, 9), 4)
    assert stats.welch(*samples).df > 18
    assert stats.welch(*samples, shared=True).df == 9


def test_welch_bound_raises_few_false_alarms():
    rng = np.random.default_rng(2)
    alarms = 0
    for first, second in zip(rng.normal(size=(4000, 3)), rng.normal(size=(4000, 3)), strict=True):
        samples = [Sample(stats.mean(x), stats.variance_of(x), 3) for x in (first, second)]
        alarms += stats.welch(*samples).lower(0.99) > 0
    assert 0.002 <= alarms / 4000 <= 0.015


def test_pairing_removes_what_both_share():
    seeds = [0.0, 10.0, -7.0, 3.0]
    changed = [x + d for x, d in zip(seeds, (0.9, 1.1, 1.0, 1.0), strict=True)]
    estimate = stats.paired(changed, seeds)
    assert estimate.value == pytest.approx(1.0)
    assert estimate.lower(0.99) > 0.7
    samples = [Sample(stats.mean(x), stats.variance_of(x), 4) for x in (changed, seeds)]
    assert stats.welch(*samples).lower(0.99) < 0


def test_pairing_needs_pairs():
    with pytest.raises(DeclarationError, match="two pairs"):
        stats.paired([1.0], [2.0])
    with pytest.raises(ValueError, match="shorter"):
        stats.paired([1.0, 2.0], [2.0])


def test_interval_and_bounds_without_spread_are_points():
    estimate = stats.Estimate(1.5, 0.0, 0.0)
    assert estimate.interval() == (1.5, 1.5)
    assert estimate.lower() == estimate.upper() == 1.5


def test_further_seeds_shrink_the_interval_until_it_decides():
    ours = Sample(0.0, Variance(1.0, 2), 3)
    more = stats.further_seeds(ours, 0.0, delta=1.0)
    assert more is not None
    assert more > 0
    enough = Sample(0.0, Variance(1.0, 2 + more), 3 + more)
    too_few = Sample(0.0, Variance(1.0, 1 + more), 2 + more)
    assert stats.position(stats.difference(enough, 0.0), 1.0) == "inside"
    assert stats.position(stats.difference(too_few, 0.0), 1.0) == "undecided"


def test_further_seeds_are_none_needed_or_no_help():
    decided = Sample(0.0, Variance(1.0, 20), 21)
    assert stats.further_seeds(decided, 0.0, delta=1.0) == 0
    at_margin = Sample(1.0, Variance(1.0, 2), 3)
    assert stats.further_seeds(at_margin, 0.0, delta=1.0) is None
    vague = Sample(0.0, Variance(4.0, 2), 3)
    assert stats.further_seeds(Sample(0.0, Variance(1.0, 2), 3), vague, delta=1.0) is None


@pytest.mark.parametrize("df", [(1, 9), (2, 2), (2, 30), (4, math.inf)])
@pytest.mark.parametrize("level", [0.001, 0.05])
def test_one_variance_is_wider_where_fishers_test_says_so(df, level):
    """Against scipy's F distribution, and against that of chi squared for a known variance."""
    known = scipy_stats.chi2(df[0], scale=1 / df[0])
    edge = (known if math.isinf(df[1]) else scipy_stats.f(*df)).isf(level)
    for factor, expected in ((0.999, False), (1.001, True)):
        first = stats.Variance(3 * edge * factor, df[0])
        assert stats.is_wider(first, stats.Variance(3.0, df[1]), level) is expected


def test_no_variance_is_wider_than_one_of_nothing():
    assert not stats.is_wider(stats.Variance(1.0, 2), stats.Variance(0.0, 2), 0.05)
