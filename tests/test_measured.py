"""The number after ±."""

import pytest
from factories import make_metric

from dgm_bench.measured import error_bar, summed_up


def test_the_error_is_the_spread_of_seeds_or_else_two_standard_errors():
    """The MAF paper prints two standard errors over test points."""
    assert error_bar(0.3, 0.25) == 0.3
    assert error_bar(None, 0.25) == 0.5
    assert error_bar(None, None) is None


def test_runs_are_summed_up_by_mean_sample_spread_and_typical_error():
    metrics = [make_metric(1.0, se=0.3), None, make_metric(None), make_metric(4.0, se=0.4)]
    found = summed_up(metrics)
    assert (found.mean, found.seeds) == (2.5, 2)
    assert found.sd == pytest.approx(4.5**0.5)
    assert found.se == pytest.approx(1.5)
    # The run without a value has the factory's error of 0.005.
    assert found.se_test == pytest.approx(((0.3**2 + 0.005**2 + 0.4**2) / 3) ** 0.5)
    assert summed_up([None, make_metric(None)]) is None
