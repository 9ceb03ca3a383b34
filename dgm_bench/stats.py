"""Statistics for few seeds: moderated variances, equivalence, and how many seeds would decide.

Everything works on raw values of runs, with sample (not population) variances, and may answer
that nothing can be decided. SciPy is imported inside functions, so that listing stays fast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from dgm_bench.errors import DeclarationError

Position = Literal["inside", "below", "above", "undecided"]

#: With fewer cells than this a variance prior is not fitted: it would be a guess.
MIN_PRIOR_CELLS = 3
#: Beyond this many further seeds, "more seeds" is no advice.
MAX_FURTHER_SEEDS = 50


# --------------------------------------------------------------------------- plain moments


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean of at least one value."""
    return math.fsum(values) / len(values)


def sd(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation (n - 1), or None for fewer than two values."""
    if len(values) < 2:
        return None
    centre = mean(values)
    return math.sqrt(math.fsum((x - centre) ** 2 for x in values) / (len(values) - 1))


def se(values: Sequence[float]) -> float | None:
    """Return the standard error of the mean, or None for fewer than two values."""
    spread = sd(values)
    return None if spread is None else spread / math.sqrt(len(values))


def root_mean_square(values: Sequence[float]) -> float:
    """Return the typical size of standard errors: the root of their mean square."""
    return math.sqrt(mean([x * x for x in values]))


def t_quantile(probability: float, df: float) -> float:
    """Return the quantile of Student's t distribution; ``df`` may be infinite."""
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def relative_difference(one: float, other: float) -> float:
    """Return how far two numbers are apart, relative to the larger; 0 where they are equal."""
    return abs(one - other) / max(abs(one), abs(other)) if one != other else 0.0


def kendall(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Kendall's tau between two lists of numbers: 1 where they have the same order.

    Ties count as in tau-b (Kendall, 1945): concordant minus discordant pairs, over the geometric
    mean of the pairs that are not tied in either. NaN where all are tied.
    """
    pairs = [
        ((a > c) - (a < c), (b > d) - (b < d))
        for (a, b), (c, d) in combinations(zip(first, second, strict=True), 2)
    ]
    apart = math.prod(sum(pair[side] != 0 for pair in pairs) for side in (0, 1))
    return sum(a * b for a, b in pairs) / math.sqrt(apart) if apart else math.nan


# --------------------------------------------------------------------------- variances


@dataclass(frozen=True)
class Variance:
    """A variance between runs, and the degrees of freedom that it is worth."""

    value: float
    df: float


@dataclass(frozen=True)
class VariancePrior:
    """What the seed variance of cells that belong together usually is.

    Attributes:
        variance: sigma0², in the metric's unit squared.
        df: nu0, how many degrees of freedom the prior is worth; may be infinite.
        pooled_df: Degrees of freedom of the cells it was fitted to; it is never worth more.
    """

    variance: float
    df: float
    pooled_df: float = math.inf


def moderate(own: Variance | None, prior: VariancePrior | None) -> Variance | None:
    """Return the moderated variance (nu0 sigma0² + df s²) / (nu0 + df) of Smyth (2004).

    There an infinite nu0 leaves nothing to the cell's own variance. Here nu0 is no more than the
    degrees of freedom that the prior was fitted to: it is no better known than by those.

    Args:
        own: The variance of this cell's seeds, None for a single seed.
        prior: The prior of other cells that it belongs with, None where too few are stored.
    """
    if prior is None:
        return own
    known = min(prior.df, prior.pooled_df)
    if own is None or math.isinf(known):
        return Variance(prior.variance, known)
    df = known + own.df
    return Variance((known * prior.variance + own.df * own.value) / df, df)


def is_wider(first: Variance, second: Variance, level: float) -> bool:
    """Say whether one variance is larger than another by more than chance explains.

    Fisher's one-sided test of the ratio of two variances. One of nothing is no scale for another.

    Args:
        first: The one.
        second: The other.
        level: How often it says so of two samples of one normal distribution.
    """
    from scipy.special import chdtrc, fdtrc

    if second.value == 0.0 or min(first.df, second.df) == 0.0:
        return False
    ratio = first.value / second.value
    if math.isinf(second.df):
        return bool(chdtrc(first.df, first.df * ratio) < level)
    return bool(fdtrc(first.df, second.df, ratio) < level)


def variance_of(values: Sequence[float]) -> Variance | None:
    """Return the sample variance with its degrees of freedom, or None for a single value."""
    spread = sd(values)
    return None if spread is None else Variance(spread**2, len(values) - 1)


def fit_variance_prior(variances: Sequence[Variance]) -> VariancePrior | None:
    """Fit sigma0 and nu0 to the seed variances of several cells.

    The moments of the log variances, as in Smyth (2004), "Linear models and empirical Bayes
    methods for assessing differential expression", section 6.2: a sample variance is sigma0²
    times an F variable, so the variance of its logarithm is trigamma(df/2) + trigamma(nu0/2).

    Returns:
        None for fewer than :data:`MIN_PRIOR_CELLS` cells, or when most of them have no spread.
    """
    if len(variances) < MIN_PRIOR_CELLS:
        return None
    values = sorted(variance.value for variance in variances)
    floor = 1e-5 * values[len(values) // 2]
    if floor == 0.0:
        return None
    return _match_log_moments([Variance(max(v.value, floor), v.df) for v in variances])


def _match_log_moments(variances: Sequence[Variance]) -> VariancePrior:
    from scipy.special import digamma, polygamma

    centred = [math.log(v.value) - digamma(v.df / 2) + math.log(v.df / 2) for v in variances]
    noise = mean([float(polygamma(1, v.df / 2)) for v in variances])
    excess = (sd(centred) or 0.0) ** 2 - noise
    pooled = math.fsum(v.df for v in variances)
    if excess <= 0:  # the cells differ by no more than chance: one common variance
        common = math.fsum(v.df * v.value for v in variances) / pooled
        return VariancePrior(common, math.inf, pooled)
    df = 2 * inverse_trigamma(excess)
    log_variance = mean(centred) + float(digamma(df / 2)) - math.log(df / 2)
    return VariancePrior(math.exp(log_variance), df, pooled)


def inverse_trigamma(x: float) -> float:
    """Return y > 0 with trigamma(y) = x, for x > 0.

    Newton's method on 1/trigamma, which is convex and nearly linear, so that it converges from
    the start value 0.5 + 1/x for every x.
    """
    from scipy.special import polygamma

    y = 0.5 + 1.0 / x
    for _ in range(50):
        trigamma = float(polygamma(1, y))
        step = trigamma * (1.0 - trigamma / x) / float(polygamma(2, y))
        y += step
        if abs(step) <= 1e-12 * y:
            break
    return y


# --------------------------------------------------------------------------- differences


@dataclass(frozen=True)
class Sample:
    """A mean over ``n`` runs, with the variance of one run."""

    mean: float
    variance: Variance
    n: int


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error, and the degrees of freedom of that error."""

    value: float
    se: float
    df: float

    def interval(self, confidence: float = 0.90) -> tuple[float, float]:
        """Return the two-sided interval; 0.90 is that of two one-sided tests at 5 %."""
        half = self._half((1 + confidence) / 2)
        return self.value - half, self.value + half

    def lower(self, confidence: float = 0.99) -> float:
        """Return the one-sided lower bound."""
        return self.value - self._half(confidence)

    def upper(self, confidence: float = 0.99) -> float:
        """Return the one-sided upper bound."""
        return self.value + self._half(confidence)

    def _half(self, probability: float) -> float:
        return t_quantile(probability, self.df) * self.se if self.se else 0.0


def difference_from(ours: Sample, constant: float) -> Estimate:
    """Return the difference of a mean from a number that is taken as exact."""
    se = math.sqrt(ours.variance.value / ours.n)
    return Estimate(ours.mean - constant, se, ours.variance.df)


def welch(first: Sample, second: Sample, *, shared: bool = False) -> Estimate:
    """Return ``first - second`` with Welch's standard error and Satterthwaite's freedom.

    Args:
        first: The one.
        second: The other.
        shared: Whether one prior moderated both variances: they are not independent then, as
            Satterthwaite's formula has it, and are worth no more than the lesser of them.
    """
    parts = [(s.variance.value / s.n, s.variance.df) for s in (first, second)]
    total = sum(part for part, _ in parts)
    scale = sum(part**2 / df for part, df in parts)
    least = min(df for _, df in parts)
    df = total**2 / scale if scale and not shared else least
    return Estimate(first.mean - second.mean, math.sqrt(total), df)


def paired(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Return the mean of ``first[i] - second[i]`` for at least two pairs.

    Raises:
        DeclarationError: When there are fewer than two pairs.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    error = se(differences)
    if error is None:
        raise DeclarationError("a paired comparison", "needs two pairs or more", "run more seeds")
    return Estimate(mean(differences), error, len(differences) - 1)


def position(estimate: Estimate, delta: float) -> Position:
    """Return where the 90 % interval lies: two one-sided tests at 5 % against ±delta."""
    low, high = estimate.interval()
    if -delta < low and high < delta:
        return "inside"
    if high < -delta:
        return "below"
    return "above" if low > delta else "undecided"


def further_seeds(
    ours: Sample, published: Sample | float, delta: float, at_most: int = MAX_FURTHER_SEEDS
) -> int | None:
    """Return how many more seeds are expected to decide, if mean and variance stay as they are.

    Returns:
        0 when it is decided already; None when ``at_most`` further seeds would not do, because
        the difference lies at the margin or the published number's own spread is too wide.
    """
    for extra in range(at_most + 1):
        variance = Variance(ours.variance.value, ours.variance.df + extra)
        grown = Sample(ours.mean, variance, ours.n + extra)
        if position(difference(grown, published), delta) != "undecided":
            return extra
    return None


def difference(ours: Sample, other: Sample | float) -> Estimate:
    """Return ours minus another mean, or minus a number without known spread."""
    return welch(ours, other) if isinstance(other, Sample) else difference_from(ours, other)


def borrowed(first: tuple[float, int], second: tuple[float, int], variance: Variance) -> Estimate:
    """Return ``first - second`` when one variance has to do for both.

    Args:
        first: Mean and number of runs.
        second: Likewise.
        variance: The variance of one run.
    """
    se = math.sqrt(variance.value * (1 / first[1] + 1 / second[1]))
    return Estimate(first[0] - second[0], se, variance.df)
