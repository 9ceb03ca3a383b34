"""Time to quality of new runs against the baseline's, in steps and epochs: the same on any machine.

A fraction of the way is of each run's own; so both sides are held to the same validations, those at
which the baseline had gone half, nine tenths and all but a hundredth of its way.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from dgm_bench import stats
from dgm_bench.quality import FRACTIONS, Curve, reached, validated_rows
from dgm_bench.records import Reached, RunRecord
from dgm_bench.store import one_per_seed

CurveOf = Callable[[RunRecord], Curve]


@dataclass(frozen=True)
class ComparedTime:
    """What both sides took until a stage's validation was first so good.

    Attributes:
        cell: ``paper/table/row/column`` of the baseline.
        stage: The stage's name.
        fraction: Of the baseline's way.
        target: The validation that it stands for, the median over the baseline's runs.
        baseline: Median steps of its runs that reached it, with their epochs; None where none did.
        new: Likewise.
        seeds: How many seeds reached it on both sides.
        ratio: Geometric mean over them of new steps to the baseline's: below 1 is faster.
        spread: Standard deviation of the ratio's logarithm over seeds, None for fewer than two.
        rhythm: Steps between validations to which times are rounded up, as a share of the
            baseline's: no smaller change can be seen.
        missed: Seeds of which the new run never reached it, though the baseline's did.
    """

    cell: str
    stage: str
    fraction: float
    target: float
    baseline: tuple[float, float] | None
    new: tuple[float, float] | None
    seeds: int
    ratio: float | None
    spread: float | None
    rhythm: float
    missed: int


def compare_times(
    new: Iterable[RunRecord], baseline: Iterable[RunRecord], new_curve: CurveOf, old_curve: CurveOf
) -> list[ComparedTime]:
    """Compare finished runs of the same recipe, stage by stage and fraction by fraction.

    Where the new runs are the baseline's, nothing is compared.

    Args:
        new: Records.
        baseline: Records.
        new_curve: Returns the rows of the curve of a new run; without any it counts for nothing.
        old_curve: Likewise of the baseline.
    """
    ours, theirs = _by_recipe(new), _by_recipe(baseline)
    found: list[ComparedTime] = []
    for recipe, runs in theirs.items():
        again = {run.run_id for run in ours.get(recipe, ())} - {run.run_id for run in runs}
        for number in range(len(runs[-1].recipe.stages) if again else 0):
            sides = _rows(ours[recipe], new_curve, number), _rows(runs, old_curve, number)
            found += _compared(runs[-1], number, *sides)
    return found


def _by_recipe(records: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    groups: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.outcome.complete:
            groups[record.recipe_hash].append(record)
    return {recipe: one_per_seed(runs) for recipe, runs in groups.items()}


#: Rows with validations by seed.
Rows = Mapping[int, Sequence[Mapping[str, float]]]


def _rows(runs: Sequence[RunRecord], curve_of: CurveOf, stage: int) -> Rows:
    found = {run.seed: validated_rows(run, curve_of(run), stage) for run in runs}
    return {seed: rows for seed, rows in found.items() if rows}


def _compared(run: RunRecord, stage: int, new: Rows, old: Rows) -> Iterable[ComparedTime]:
    if not (new and old):
        return
    first = median(rows[0]["validation"] for rows in old.values())
    best = median(min(row["validation"] for row in rows) for rows in old.values())
    cell = f"{run.paper}/{run.table}/{run.row}/{run.column}"
    for fraction in FRACTIONS if best < first else ():
        target = first - fraction * (first - best)
        yield _row(cell, run.recipe.stages[stage].name, fraction, target, new, old)


def _row(
    cell: str, stage: str, fraction: float, target: float, new: Rows, old: Rows
) -> ComparedTime:
    ours, theirs = _reached(new, target), _reached(old, target)
    both = sorted(ours.keys() & theirs.keys())
    logs = [math.log(ours[seed].step / theirs[seed].step) for seed in both]
    return ComparedTime(
        cell=cell,
        stage=stage,
        fraction=fraction,
        target=target,
        baseline=_middle(theirs),
        new=_middle(ours),
        seeds=len(both),
        ratio=math.exp(stats.mean(logs)) if logs else None,
        spread=stats.sd(logs),
        rhythm=_rhythm(old, theirs),
        missed=len((theirs.keys() & new.keys()) - ours.keys()),
    )


def _reached(rows: Rows, target: float) -> dict[int, Reached]:
    found = {seed: reached(part, target) for seed, part in rows.items()}
    return {seed: each for seed, each in found.items() if each is not None}


def _middle(found: Mapping[int, Reached]) -> tuple[float, float] | None:
    """Return median steps and epochs."""
    if not found:
        return None
    return median(r.step for r in found.values()), median(r.epoch for r in found.values())


def _rhythm(rows: Rows, found: Mapping[int, Reached]) -> float:
    """Return the steps before the validation that reached it, as a share of all until then."""
    shares = []
    for seed, each in found.items():
        before = [row["step"] for row in rows[seed] if row["step"] < each.step]
        shares.append((each.step - max(before, default=0.0)) / each.step)
    return median(shares) if shares else 0.0
