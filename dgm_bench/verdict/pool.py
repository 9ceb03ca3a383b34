"""How much seeds usually differ, gathered from all stored runs."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dgm_bench import stats
from dgm_bench.records import RunRecord
from dgm_bench.spec import Recipe
from dgm_bench.store import one_per_seed

#: Metrics that count what a recipe builds: no seed changes them.
COUNTED = frozenset({"parameters"})
#: Data set, metric and unit.
Scale = tuple[str, str, str]


@dataclass(frozen=True)
class Pool:
    """How much seeds usually differ, by data set, metric and unit.

    Spread follows the data far more than the model: on one set it is a hundredth of a nat, on
    another half a nat. Fits are made when they are asked for.

    Attributes:
        priors: Fitted before.
        variances: Of repeated runs, by recipe hash.
    """

    priors: Mapping[Scale, stats.VariancePrior] = field(default_factory=dict)
    variances: Mapping[Scale, Mapping[str, stats.Variance]] = field(default_factory=dict)

    def prior(self, run: RunRecord, metric: str, unit: str) -> stats.VariancePrior | None:
        """Return the variance prior of a run's data set, None if too little is stored.

        It is of other recipes alone: a noisy one would else widen what it is judged by. A recipe
        that trains nothing has none: models that are trained say nothing of its spread.
        """
        if why_certain(run.recipe, metric):
            return None
        key, own = (_data_of(run.recipe), metric, unit), run.recipe_hash
        others = (v for known, v in self.variances.get(key, {}).items() if known != own)
        return self.priors.get(key) or _fitted(tuple(others))

    def variance(
        self, run: RunRecord, metric: str, unit: str, values: Sequence[float]
    ) -> stats.Variance | None:
        """Return the variance of runs like one, from the values of its seeds and from the pool.

        Where nothing is trained, one run has none but that of its noise, which is below the floor
        of every margin; what is counted has none. None where it is not known.
        """
        own = stats.variance_of(values)
        if why_certain(run.recipe, metric):
            return own or stats.Variance(0.0, math.inf)
        return stats.moderate(own, self.prior(run, metric, unit))


_fitted = functools.cache(stats.fit_variance_prior)


def why_certain(recipe: Recipe, metric: str) -> str:
    """Return why one run of a recipe says what others would; empty where it does not."""
    if recipe.fitted:
        return "nothing is trained, so that seeds differ in noise at most"
    return "it is counted, and no seed changes it" if metric in COUNTED else ""


def pool_variances(records: Iterable[RunRecord]) -> Pool:
    """Gather the variances of all stored complete, unmodified, trained runs that were repeated."""
    by_recipe: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.is_measurement and not record.recipe.fitted:
            by_recipe[record.recipe_hash].append(record)
    found: dict[Scale, dict[str, stats.Variance]] = defaultdict(dict)
    for recipe, same in by_recipe.items():
        for key, variance in _variances(one_per_seed(same)):
            found[key][recipe] = variance
    return Pool(variances=found)


def _variances(runs: Sequence[RunRecord]) -> list[tuple[Scale, stats.Variance]]:
    data, found = _data_of(runs[-1].recipe), []
    for metric in runs[-1].metrics:
        variance = stats.variance_of(values_of(runs, metric.name))
        if variance is not None:
            found.append(((data, metric.name, metric.unit), variance))
    return found


def _data_of(recipe: Recipe) -> str:
    return recipe.stages[0].data.name


def values_of(runs: Iterable[RunRecord], name: str) -> list[float]:
    """Return the values of a metric, of the runs that have one."""
    metrics = (run.metric(name) for run in runs)
    return [metric.value for metric in metrics if metric and metric.value is not None]
