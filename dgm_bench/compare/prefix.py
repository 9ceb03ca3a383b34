"""Whether the first part of a training goes as the stored runs of its recipe went.

A change of the code that changes what is learnt mostly shows in the first hundredths of a
training. Compared are the values of a curve's first rows, training loss and validation. The mean
of ``k`` new seeds lies in the band about the mean of ``n`` stored ones where it is no further from
it than ``t s sqrt(1/n + 1/k)``, with the standard deviation ``s`` of both about their means,
pooled, and Student's ``t`` of ``n + k - 2`` degrees of freedom for :data:`FALSE_ALARMS`, divided by
the number of values (Bonferroni). With two values three stored and three new seeds tell shifts of
some eight standard deviations, ten and three those of half as many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median_high

from dgm_bench import stats
from dgm_bench.errors import ResultsError
from dgm_bench.quality import Curve, validated_rows
from dgm_bench.records import RunRecord
from dgm_bench.spec import Cell
from dgm_bench.store import Store

#: The probability that runs of the same code leave the band by chance, of each recipe.
FALSE_ALARMS = 0.001
#: Fewer stored seeds make no band.
LEAST_SEEDS = 3
#: Rows of a curve by the step after which they were taken.
Rows = Mapping[float, Mapping[str, float]]
#: Columns of a curve that are compared, and what they are called.
VALUES: Mapping[str, str] = {"train_loss": "training loss", "validation": "validation"}


@dataclass(frozen=True)
class Prefix:
    """The first rows of a recipe's stored curves.

    Attributes:
        curves: By stored seed the whole curve of the first stage.
        rows: How many rows of them are compared.
        of_steps: Steps of the whole training: the median of the stored ones.
    """

    curves: Mapping[int, Curve]
    rows: int
    of_steps: int

    @property
    def steps(self) -> int:
        """Steps until the last row that is compared."""
        return int(next(iter(self.curves.values()))[self.rows - 1]["step"])


@dataclass(frozen=True)
class Deviation:
    """A value of new runs beside that of the stored ones.

    Attributes:
        column: Of the curve.
        step: After which it was taken.
        new: Mean over the new runs; not a number where one of them did not get so far.
        stored: Mean over the stored ones.
        half: Half of the width of the band around it.
    """

    column: str
    step: int
    new: float
    stored: float
    half: float

    @property
    def inside(self) -> bool:
        """Whether the new value lies in the band."""
        return abs(self.new - self.stored) <= self.half

    @property
    def relative(self) -> float:
        """How far it is from the middle of the band, in halves of its width: above 1 outside."""
        if self.new == self.stored:
            return 0.0
        far = abs(self.new - self.stored) / self.half if self.half else math.inf
        return math.inf if math.isnan(far) else far


def stored_prefix(cell: Cell, store: Store, share: float) -> Prefix:
    """Return what the first part of new runs of a cell is compared with.

    Args:
        cell: With a recipe.
        store: Holds records and curves.
        share: Of the steps that the stored runs took; at least until their first validation.

    Raises:
        ResultsError: Too few seeds are stored, or they were validated at other steps.
    """
    curves = _curves(store, store.measuring(cell))
    if len(curves) < LEAST_SEEDS:
        found = f"{len(curves)} of the {LEAST_SEEDS} complete runs with a curve that make a band"
        remedy = f"dgm-bench run {cell.id} --seeds {LEAST_SEEDS} --budget none makes them"
        raise ResultsError(cell.id, f"has {found}", remedy)
    of_steps = median_high(int(curve[-1]["step"]) for curve in curves.values())
    rows = _rows_until(share * of_steps, list(curves.values()))
    if rows == 0:
        remedy = "run its seeds again, with one version of the code"
        raise ResultsError(cell.id, "has stored runs that were validated at other steps", remedy)
    return Prefix(curves, rows, of_steps)


def _curves(store: Store, records: Sequence[RunRecord]) -> dict[int, Curve]:
    """Return by seed the validated rows of the first stage of runs that have some."""
    found = {record.seed: validated_rows(record, store.known_curve(record)) for record in records}
    return {seed: found[seed] for seed in sorted(found) if found[seed]}


def _rows_until(steps: float, curves: Sequence[Curve]) -> int:
    """Return how many rows all curves have at the same steps until so many; one more than none."""
    rows = 0
    for at in zip(*([row["step"] for row in curve] for curve in curves), strict=False):
        if len(set(at)) > 1 or (rows and at[0] > steps):
            break
        rows += 1
    return rows


def deviations(prefix: Prefix, new: Sequence[Curve]) -> list[Deviation]:
    """Return the values of the first rows of new runs beside the band of the stored ones.

    Args:
        prefix: Of the stored ones.
        new: The curve of each new run, of one at least; one that broke has fewer rows.
    """
    stored = list(map(by_step, prefix.curves.values()))
    pairs = [
        (column, step)
        for step in list(stored[0])[: prefix.rows]
        for column in VALUES
        if all(map(math.isfinite, _values(stored, column, step)))
    ]
    found = list(map(by_step, new))
    return [_deviation(stored, found, *pair, values=len(pairs)) for pair in pairs]


def _deviation(
    stored: Sequence[Rows], new: Sequence[Rows], column: str, step: float, values: int
) -> Deviation:
    before, now = (_values(curves, column, step) for curves in (stored, new))
    df = len(before) + len(now) - 2
    squares = sum(
        spread**2 * (len(part) - 1) for part in (before, now) if (spread := stats.sd(part))
    )
    error = math.sqrt(squares / df * (1 / len(before) + 1 / len(now)))
    t = stats.t_quantile(1 - FALSE_ALARMS / (2 * values), df)
    return Deviation(
        column=column,
        step=int(step),
        new=stats.mean(now),
        stored=stats.mean(before),
        half=t * error,
    )


def _values(curves: Sequence[Rows], column: str, step: float) -> list[float]:
    return [curve.get(step, {}).get(column, math.nan) for curve in curves]


def by_step(curve: Curve) -> Rows:
    """Return a curve's rows by their steps: a stored one lacks rows with infinite validations."""
    return {row["step"]: row for row in curve}
