"""The mean of several runs, and the one rule for the error that is printed beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dgm_bench import stats
from dgm_bench.records import Metric, RunRecord


@dataclass(frozen=True)
class Measured:
    """A metric over runs, one for each seed, in the metric's unit.

    Attributes:
        mean: Mean over seeds.
        sd: Standard deviation over seeds, None for a single one.
        se: Standard error of the mean over seeds, None for a single one.
        se_test: Typical standard error of one run, by the metric's protocol, mostly over the
            test points; None where no run has one.
        seeds: How many runs.
    """

    mean: float
    sd: float | None
    se: float | None
    se_test: float | None
    seeds: int

    @property
    def error(self) -> float | None:
        """What stands after ±, and how long an error bar is to each side."""
        return error_bar(self.sd, self.se_test)


def error_bar(sd: float | None, se_test: float | None) -> float | None:
    """Return the error of a measured number: the spread over seeds where there are several.

    Args:
        sd: Standard deviation over seeds.
        se_test: Standard error of a single run; doubled, as the MAF paper prints it.

    Returns:
        None where neither is known.
    """
    if sd is not None:
        return sd
    return None if se_test is None else 2 * se_test


def measured(runs: Iterable[RunRecord], name: str) -> Measured | None:
    """Sum up a metric over runs; None where no run has a value of it."""
    return summed_up(run.metric(name) for run in runs)


def summed_up(metrics: Iterable[Metric | None]) -> Measured | None:
    """Sum up the values of one metric, one for each run; None where there is none."""
    present = [metric for metric in metrics if metric is not None]
    values = [metric.value for metric in present if metric.value is not None]
    if not values:
        return None
    errors = [metric.se for metric in present if metric.se is not None]
    typical = stats.root_mean_square(errors) if errors else None
    return Measured(stats.mean(values), stats.sd(values), stats.se(values), typical, len(values))
