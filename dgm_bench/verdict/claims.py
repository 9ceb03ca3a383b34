"""What a paper says of two rows without numbers: whether it shows on columns of ours.

The difference of the two rows' means has a 90 % interval, from the spread between seeds. Wholly on
the side that the paper says the claim holds, wholly on the other one the opposite does; otherwise
more seeds decide. Along the curves of thresholds both rows are compared where another metric is
the same: that a point of one is more diverse says little where it is less precise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from dgm_bench import stats
from dgm_bench.records import RunRecord
from dgm_bench.spec import Cell, Claim, Table
from dgm_bench.store import Store
from dgm_bench.verdict.comparability import counting_runs
from dgm_bench.verdict.pool import Pool, values_of

ClaimState = Literal["holds", "opposite", "crosses", "inconclusive", "not-run"]
#: How many values of the other metric curves are compared at.
LEVELS = 5
#: Ends of names along a curve: all samples, parts of them, truncated noise.
_ENDING = re.compile(r"|-kept-\d+%|-truncated-[\d.e+-]+")
_WORDS = {
    "holds": "holds",
    "opposite": "the opposite holds",
    "crosses": "the curves cross",
    "inconclusive": "not decided",
    "not-run": "not run yet",
}
Front = list[tuple[float, float]]


@dataclass(frozen=True)
class Gap:
    """A difference, row minus the other, with its 90 % interval; ``at`` is the other metric."""

    difference: float
    low: float
    high: float
    at: float | None = None


@dataclass(frozen=True)
class ClaimVerdict:
    """Whether a claim shows on a column.

    Attributes:
        claim: What is said.
        column: The column's identifier.
        state: Whether it holds.
        reason: One sentence.
        gaps: The difference or, along curves, that at each level; none without an interval.
        seeds: Of the row and of the other.
    """

    claim: Claim
    column: str
    state: ClaimState
    reason: str
    gaps: tuple[Gap, ...] = ()
    seeds: tuple[int, int] = (0, 0)


def judge_claims(table: Table, store: Store, pool: Pool) -> list[ClaimVerdict]:
    """Judge every claim of a table on each of its columns.

    Args:
        table: With claims and cells.
        store: Of the records.
        pool: Variance priors of all of them.
    """
    cells = {(cell.row.id, cell.column.id): cell for cell in table.cells}
    return [
        _judged(claim, cells[claim.row, column], cells[claim.than, column], store, pool)
        for claim in table.claims
        for column in claim.columns
    ]


def _judged(claim: Claim, one: Cell, other: Cell, store: Store, pool: Pool) -> ClaimVerdict:
    runs = [counting_runs(cell, store) for cell in (one, other)]
    seeds = (len(runs[0]), len(runs[1]))
    if not all(runs):
        return ClaimVerdict(claim, one.column.id, "not-run", "not run yet", (), seeds)
    if claim.at_equal:
        gaps = _gaps_along(claim, (one, other), runs)
        lacking = f"curves of {claim.at_equal} in common, of two seeds of each"
    else:
        gaps = _gaps(claim, (one, other), runs, pool)
        lacking = "spread between seeds known"
    if not gaps:
        return ClaimVerdict(claim, one.column.id, "inconclusive", f"no {lacking}", (), seeds)
    state = _state([_side(claim, gap) for gap in gaps])
    reason = f"{_WORDS[state]}: {_told(claim, gaps)}, {seeds[0]} and {seeds[1]} seeds"
    return ClaimVerdict(claim, one.column.id, state, reason, tuple(gaps), seeds)


def _gaps(
    claim: Claim, cells: tuple[Cell, Cell], runs: Sequence[Sequence[RunRecord]], pool: Pool
) -> list[Gap]:
    """Return the difference of the rows' means; nothing where no spread is known."""
    samples = []
    for cell, found in zip(cells, runs, strict=True):
        values = values_of(found, cell.metric)
        variance = pool.variance(found[-1], cell.metric, cell.column.unit, values)
        if variance is not None:
            samples.append(stats.Sample(stats.mean(values), variance, len(values)))
    if len(samples) < len(cells):
        return []
    prior = pool.prior(runs[0][-1], cells[0].metric, cells[0].column.unit)
    return [_gap(samples[0], samples[1], shared=prior is not None)]


def _gaps_along(
    claim: Claim, cells: tuple[Cell, Cell], runs: Sequence[Sequence[RunRecord]]
) -> list[Gap]:
    """Return the difference at each level of the other metric that all curves reach."""
    fronts = [
        [front(run, cell.metric, _beside(cell.metric, claim.at_equal)) for run in found]
        for cell, found in zip(cells, runs, strict=True)
    ]
    every = [curve for both in fronts for curve in both]
    if not all(every) or min(map(len, fronts)) < 2:
        return []
    # What a run has at its lowest point it has at less, too: all reach what the lowest begins with.
    low, high = (min(curve[end][0] for curve in every) for end in (0, -1))
    levels = [low + (high - low) * step / (LEVELS - 1) for step in range(LEVELS)]
    return [_gap_at(fronts, level) for level in levels]


def _gap_at(fronts: Sequence[Sequence[Front]], level: float) -> Gap:
    samples = []
    for both in fronts:
        values = [at_level(curve, level) for curve in both]
        variance = stats.variance_of(values) or stats.Variance(0.0, 1.0)
        samples.append(stats.Sample(stats.mean(values), variance, len(values)))
    return _gap(samples[0], samples[1], level)


def _gap(
    one: stats.Sample, other: stats.Sample, at: float | None = None, *, shared: bool = False
) -> Gap:
    estimate = stats.welch(one, other, shared=shared)
    return Gap(estimate.value, *estimate.interval(), at)


def _beside(metric: str, ending: str) -> str:
    """Return the metric of the same features with another ending."""
    return f"{metric.rpartition('-')[0]}-{ending}"


def front(run: RunRecord, metric: str, other: str) -> Front:
    """Return the other metric and the best of the first where the other is at least as high.

    Args:
        run: With both at several thresholds.
        metric: The one compared, of which more is better.
        other: The one that is to be the same.

    Returns:
        Points along the curve, the lowest of the other metric first.
    """
    points: Front = []
    for name, found in run.by_name.items():
        if name.startswith(other) and _ENDING.fullmatch(ending := name.removeprefix(other)):
            own = run.metric(metric + ending)
            if own is not None and own.value is not None and found.value is not None:
                points.append((found.value, own.value))
    best: Front = []
    for level, value in sorted(points, reverse=True):
        best.append((level, max(value, best[-1][1]) if best else value))
    return best[::-1]


def at_level(curve: Front, level: float) -> float:
    """Return the value of a curve at a level, on the line between its points.

    Below the lowest it is the lowest's, which is of runs that have more than the level.
    """
    for (low, value), (high, further) in pairwise(curve):
        if low <= level <= high and high > low:
            return value + (further - value) * (level - low) / (high - low)
    return min(curve, key=lambda point: abs(point[0] - level))[1]


def _side(claim: Claim, gap: Gap) -> ClaimState:
    low, high = (gap.low, gap.high) if claim.relation == "higher" else (-gap.high, -gap.low)
    return "holds" if low > 0 else "opposite" if high < 0 else "inconclusive"


def _state(sides: Sequence[ClaimState]) -> ClaimState:
    """Return what all levels say; where two say the contrary, the curves cross."""
    if {"holds", "opposite"} <= set(sides):
        return "crosses"
    return sides[0] if len(set(sides)) == 1 else "inconclusive"


def _told(claim: Claim, gaps: Sequence[Gap]) -> str:
    if not claim.at_equal:
        return _interval(gaps[0])
    first, last = gaps[0], gaps[-1]
    ends = "; ".join(f"{_interval(gap)} at {gap.at:.3g}" for gap in (first, last))
    return f"at equal {claim.at_equal} {ends}"


def _interval(gap: Gap) -> str:
    return f"difference {gap.difference:+.3g} (90 % interval {gap.low:+.3g} to {gap.high:+.3g})"
