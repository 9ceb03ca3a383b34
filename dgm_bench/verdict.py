"""Whether a published number holds: a pure function of a cell and its records.

The rule: the difference from the published number is oriented so that positive is better, and
its 90 % interval (two one-sided tests at 5 %) is held against a margin. Inside is reproduced,
wholly below is worse, wholly above is better (an alarm: leaked data, easier data, other units),
anything else is inconclusive, with the number of further seeds that should decide.

A record whose data are not verified as the published files is not comparable with a published
number. For columns of ours it still counts, and the reason says so.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from dgm_bench import stats
from dgm_bench.records import COMPLETE, FAILED, Metric, RunRecord
from dgm_bench.spec import YES_NO, Cell, Published, Recipe, Table
from dgm_bench.store import Store, one_per_seed

State = Literal[
    "reproduced",
    "worse",
    "better",
    "inconclusive",
    "not-comparable",
    "failed",
    "not-run",
    "measured",
]

#: Smallest difference that is called one, by unit: below it lie the number format, the order of
#: sums and the draw of the dequantisation noise. A choice of this package.
FLOORS: Mapping[str, float] = {"nats": 0.01, "bits/dim": 0.002}

_CHOICE_ON_TEST = re.compile(r"\b(best|better|lowest|highest|min|max|chosen)\b.*\btest\b")
_POSITION_STATES: Mapping[stats.Position, State] = {
    "inside": "reproduced",
    "below": "worse",
    "above": "better",
    "undecided": "inconclusive",
}


@dataclass(frozen=True)
class Verdict:
    """The state of a cell, and the numbers that it rests on, in the metric's unit.

    Attributes:
        cell: The cell's identifier.
        state: One of :data:`State`; ``measured`` is a cell without a published number.
        reason: One sentence.
        mean: Mean over seeds; sd and se are the spread between seeds, None for one seed.
        se_test: Typical standard error over the test points of one run.
        seeds: How many seeds the mean is over.
        difference: Mean minus published, oriented so that positive is better.
        delta: Margin within which the difference counts as none.
        interval: 90 % interval of the difference.
        more_seeds: Further seeds expected to decide, where that would.
        gap: For data of known entropy, mean distance from it in nats.
        remarks: What a reader has to know besides; the reason ends with them.
    """

    cell: str
    state: State
    reason: str
    mean: float | None = None
    sd: float | None = None
    se: float | None = None
    se_test: float | None = None
    seeds: int = 0
    difference: float | None = None
    delta: float | None = None
    interval: tuple[float, float] | None = None
    more_seeds: int | None = None
    gap: float | None = None
    remarks: tuple[str, ...] = ()


# --------------------------------------------------------------------------- the pool


@dataclass(frozen=True)
class Pool:
    """How much seeds usually differ, by data set, metric and unit.

    Spread follows the data far more than the model: on one set it is a hundredth of a nat, on
    another half a nat. Fits are made when they are asked for.
    """

    priors: Mapping[tuple[str, str, str], stats.VariancePrior] = field(default_factory=dict)
    variances: Mapping[tuple[str, str, str], list[stats.Variance]] = field(default_factory=dict)

    def prior(self, recipe: Recipe, metric: str, unit: str) -> stats.VariancePrior | None:
        """Return the variance prior of a recipe's data set, None if too little is stored."""
        key = (_data_of(recipe), metric, unit)
        return self.priors.get(key) or _fitted(tuple(self.variances.get(key, ())))


_fitted = functools.cache(stats.fit_variance_prior)


def pool_variances(records: Iterable[RunRecord]) -> Pool:
    """Gather the variances of all stored complete, unmodified runs that were repeated."""
    by_recipe: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.outcome.status in COMPLETE and not record.modified:
            by_recipe[record.recipe_hash].append(record)
    found: dict[tuple[str, str, str], list[stats.Variance]] = defaultdict(list)
    for same in by_recipe.values():
        for key, variance in _variances(one_per_seed(same)):
            found[key].append(variance)
    return Pool(variances=found)


def _variances(runs: Sequence[RunRecord]) -> list[tuple[tuple[str, str, str], stats.Variance]]:
    data, found = _data_of(runs[-1].recipe), []
    for metric in runs[-1].metrics:
        variance = stats.variance_of(_values(runs, metric.name))
        if variance is not None:
            found.append(((data, metric.name, metric.unit), variance))
    return found


def _data_of(recipe: Recipe) -> str:
    return recipe.stages[0].data.name


def _values(runs: Iterable[RunRecord], name: str) -> list[float]:
    metrics = (run.metric(name) for run in runs)
    return [metric.value for metric in metrics if metric and metric.value is not None]


# --------------------------------------------------------------------------- judging


def judge_table(table: Table, store: Store, pool: Pool | None = None) -> dict[str, Verdict]:
    """Judge every cell of a table by the records of a store; returns verdicts by cell."""
    pool = pool if pool is not None else pool_variances(store.records())
    return {
        cell.id: judge(cell, store.for_cell(cell), pool, neighbour_gap(table, cell))
        for cell in table.cells
    }


def judge(
    cell: Cell,
    records: Sequence[RunRecord],
    pool: Pool | None = None,
    neighbour_gap: float | None = None,
) -> Verdict:
    """Judge one cell.

    Args:
        cell: The cell, with its recipe.
        records: Its records, newest last, one for each seed (``Store.for_cell``).
        pool: Variance priors of all stored records.
        neighbour_gap: Distance from the nearest other published number of that column; half of
            it caps the margin, so that "reproduced" keeps the table's ranking.
    """
    if not records:
        return not_run(cell)
    usable = [record for record in records if _value(cell, record) is not None]
    if not usable:
        return _failed(cell, records)
    comparable, obstacles = _gate(cell, usable)
    if not comparable:
        return Verdict(cell.id, "not-comparable", "; ".join(obstacles))
    complete = [run for run in comparable if run.outcome.status in COMPLETE]
    runs = complete or comparable
    remarks = _remarks(cell, records, runs, obstacles)
    measured = _measured(cell, runs)
    if cell.published is None:
        return _told(measured, _measured_text(measured), remarks)
    if not complete:
        return _unfinished(cell, cell.published, measured, remarks)
    if cell.column.unit == YES_NO:
        return _property(cell, cell.published, measured, runs[-1])
    trial = _Trial(cell, cell.published, runs, pool or Pool(), neighbour_gap)
    return trial.verdict(measured, remarks)


def not_run(cell: Cell, reason: str = "") -> Verdict:
    """Return the verdict of a cell without records, with a reason such as the planner's."""
    missing = cell.no_recipe or "no recipe yet"
    return Verdict(cell.id, "not-run", reason or ("not run yet" if cell.recipe else missing))


def neighbour_gap(table: Table, cell: Cell) -> float | None:
    """Return the distance to the nearest different published number in the cell's column.

    Rows that the paper does not print are no neighbours; equal numbers are not told apart by
    the paper, so they set no margin.
    """
    if cell.published is None:
        return None
    own = cell.published.value
    others = [
        abs(other.published.value - own)
        for other in table.cells
        if other.published and other.row.published and other.column.id == cell.column.id
    ]
    return min((float(gap) for gap in others if gap), default=None)


def _value(cell: Cell, record: RunRecord) -> Metric | None:
    metric = record.metric(cell.metric)
    broke = record.outcome.status in FAILED
    return None if broke or metric is None or metric.value is None else metric


def _failed(cell: Cell, records: Sequence[RunRecord]) -> Verdict:
    outcome = records[-1].outcome
    if outcome.status not in FAILED:
        return Verdict(cell.id, "failed", f"the run has no value of {cell.metric}")
    text = ": ".join(part for part in (outcome.status, outcome.reason) if part)
    return _told(Verdict(cell.id, "failed", ""), text, [outcome.hint] if outcome.hint else [])


# --------------------------------------------------------------------------- comparability


def _gate(cell: Cell, records: Sequence[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    """Return the records that measure what the cell prints, and why others do not."""
    obstacles: dict[str, None] = {}
    passed = []
    for record in records:
        found = _obstacles(cell, record)
        obstacles.update(dict.fromkeys(found))
        if not found:
            passed.append(record)
    agreeing = [record for record in passed if _same_data(cell, record, passed[-1])]
    if len(agreeing) < len(passed):
        left = f"{len(passed) - len(agreeing)} of {len(passed)} runs"
        obstacles[f"{left}, on other data or by another protocol than the newest"] = None
    return agreeing, list(obstacles)


def _obstacles(cell: Cell, record: RunRecord) -> list[str]:
    metric, found = _value(cell, record), []
    split = cell.column.split or (cell.recipe and cell.recipe.evaluation.split)
    if record.modified:
        found.append(f"recipe modified ({', '.join(record.modified)})")
    if cell.recipe and record.recipe_hash != cell.recipe.content_hash:
        found.append("another recipe")
    if metric and metric.unit != cell.column.unit:
        found.append(f"measured in {metric.unit}, printed in {cell.column.unit}")
    if metric and split and metric.split != split:
        found.append(f"measured on {metric.split}, not {split}")
    if cell.published and not record.data.verified:
        found.append(f"{record.data.name} is not verified as the published data")
    return found


def _same_data(cell: Cell, record: RunRecord, newest: RunRecord) -> bool:
    ours, theirs = _value(cell, record), _value(cell, newest)
    if ours is None or theirs is None:
        return False
    # The protocol of a property tells what its experiment gave, which no two seeds share.
    if ours.protocol != theirs.protocol and cell.column.unit != YES_NO:
        return False
    prints = (record.data.fingerprints, newest.data.fingerprints)
    splits = (prints[0].keys() & prints[1].keys()) | {ours.split}
    return all(prints[0].get(split) == prints[1].get(split) for split in splits)


# --------------------------------------------------------------------------- numbers and words


def _measured(cell: Cell, runs: Sequence[RunRecord]) -> Verdict:
    values = _values(runs, cell.metric)
    metrics = [run.metric(cell.metric) for run in runs]
    errors = [metric.se for metric in metrics if metric and metric.se is not None]
    gaps = _values(runs, "gap")
    return Verdict(
        cell.id,
        "measured",
        "",
        mean=stats.mean(values),
        sd=stats.sd(values),
        se=stats.se(values),
        se_test=stats.root_mean_square(errors) if errors else None,
        seeds=len(values),
        gap=stats.mean(gaps) if gaps else None,
    )


def _measured_text(measured: Verdict) -> str:
    if measured.gap is None:
        return f"{_seeds(measured.seeds)}, no published number"
    return f"{_seeds(measured.seeds)}, {measured.gap:.3g} nats from the entropy"


def _unfinished(cell: Cell, published: Published, measured: Verdict, remarks: list[str]) -> Verdict:
    """Judge runs that ended with their budget: never worse, as they might have gone on."""
    target = _oriented(cell, float(published.value))
    ahead = _oriented(cell, measured.mean or 0.0) - target
    place = "past" if ahead > 0 else "short of"
    text = f"{abs(ahead):.3g} {cell.column.unit} {place} the published number so far"
    return _told(replace(measured, state="inconclusive", difference=ahead), text, remarks)


def _property(cell: Cell, published: Published, measured: Verdict, newest: RunRecord) -> Verdict:
    """Judge a property: it has no spread, and every run has to say what the paper says.

    The reason is what the newest run's experiment gave.
    """
    difference = _oriented(cell, measured.mean or 0.0) - _oriented(cell, float(published.value))
    state: State = "better" if difference > 0 else "worse" if difference < 0 else "reproduced"
    said = "as published" if state == "reproduced" else "the paper says otherwise"
    metric = newest.metric(cell.metric)
    reason = f"{said}: {metric.protocol if metric else 'no protocol'}"
    return replace(measured, state=state, difference=difference, reason=reason)


def _remarks(
    cell: Cell, records: Sequence[RunRecord], runs: Sequence[RunRecord], obstacles: Sequence[str]
) -> list[str]:
    found = [f"left out: {obstacle}" for obstacle in obstacles]
    found += _unlike_the_rest(records, runs)
    versions = len({run.code.source_hash for run in runs})
    if versions > 1:
        found.append(f"runs of {versions} versions of the code")
    if not all(run.data.verified for run in runs):
        found.append("data not verified as the published files")
    if cell.published:
        found += _meaning(cell.published)
    return found


def _unlike_the_rest(records: Sequence[RunRecord], runs: Sequence[RunRecord]) -> list[str]:
    failed = [record for record in records if record.outcome.status in FAILED]
    short = sum(record.outcome.status == "budget" for record in records)
    found = []
    if failed:
        found.append(f"{len(failed)} of {_seeds(len(records))} {failed[-1].outcome.status}")
    if runs[-1].outcome.status not in COMPLETE:
        found.append(f"cut short by the budget after {runs[-1].budget.epochs:.3g} epochs")
    elif short:
        found.append(f"{_seeds(short)} cut short by the budget left out")
    return found


def _meaning(published: Published) -> list[str]:
    if published.pm_kind == "two_se_test":
        return ["the paper gives one model's ± over test points, no seed spread"]
    if published.pm_kind == "sd_runs" and (published.pm_n or 0) < 2:
        return ["the published ± is over an unknown number of runs and is not added"]
    if published.pm_kind == "unknown":
        return ["what the published ± means is unknown"]
    return []


def _oriented(cell: Cell, value: float) -> float:
    return value if cell.column.direction == "higher" else -value


def _seeds(n: int) -> str:
    return f"{n} seed" if n == 1 else f"{n} seeds"


def _told(verdict: Verdict, text: str, remarks: Sequence[str]) -> Verdict:
    return replace(verdict, reason="; ".join([text, *remarks]), remarks=tuple(remarks))


# --------------------------------------------------------------------------- the trial


@dataclass(frozen=True)
class _Trial:
    """Complete, comparable runs against a published number."""

    cell: Cell
    published: Published
    runs: Sequence[RunRecord]
    pool: Pool
    neighbour_gap: float | None

    def verdict(self, measured: Verdict, remarks: list[str]) -> Verdict:
        """Return the verdict with its interval, margin and reason."""
        ours = self._ours()
        target = _oriented(self.cell, float(self.published.value))
        if ours is None:
            difference = _oriented(self.cell, measured.mean or 0.0) - target
            return self._one_seed(measured, difference, remarks)
        estimate = stats.difference(ours, self._theirs(target) or target)
        state = _POSITION_STATES[stats.position(estimate, self.delta)]
        more = stats.further_seeds(ours, self._theirs(target) or target, self.delta)
        found = replace(
            measured,
            state=state,
            difference=estimate.value,
            delta=self.delta,
            interval=estimate.interval(),
            more_seeds=more if state == "inconclusive" else None,
        )
        return _told(found, self._text(found), self._more(found, remarks))

    @property
    def prior(self) -> stats.VariancePrior | None:
        """The variance prior of this data set and metric."""
        column = self.cell.column
        return self.pool.prior(self.runs[-1].recipe, self.cell.metric, column.unit)

    @property
    def sigma(self) -> float:
        """Usual spread between seeds: the stored runs', else the published one, else none.

        Never our own alone: a noisy reproduction would widen the margin that judges it.
        """
        if self.prior is not None:
            return float(self.prior.variance**0.5)
        if self.published.pm_kind == "sd_runs" and self.published.pm is not None:
            return float(self.published.pm)
        return 0.0

    @property
    def delta(self) -> float:
        """The margin: half the last printed digit, two sigma or the floor, capped by ranking."""
        floor = FLOORS.get(self.cell.column.unit, 0.0)
        wide = max(self.published.resolution, 2 * self.sigma, floor)
        return wide if self.neighbour_gap is None else min(wide, self.neighbour_gap / 2)

    def _values(self) -> list[float]:
        return [_oriented(self.cell, x) for x in _values(self.runs, self.cell.metric)]

    def _ours(self) -> stats.Sample | None:
        values = self._values()
        variance = stats.moderate(stats.variance_of(values), self.prior)
        if variance is None:
            return None
        return stats.Sample(stats.mean(values), variance, len(values))

    def _theirs(self, target: float) -> stats.Sample | None:
        """The published mean with its seed spread, where it is one over a known number of runs."""
        pm, n = self.published.pm, self.published.pm_n or 0
        if self.published.pm_kind != "sd_runs" or pm is None or n < 2:
            return None
        return stats.Sample(target, stats.Variance(float(pm) ** 2, n - 1), n)

    def _one_seed(self, measured: Verdict, difference: float, remarks: list[str]) -> Verdict:
        text = f"one seed, {self._apart(difference)}, and no spread known to judge it by"
        found = replace(
            measured,
            state="inconclusive",
            difference=difference,
            delta=self.delta,
            more_seeds=2,
        )
        more = ["2 more seeds would give one", *self._more(found, remarks)]
        return _told(found, text, more)

    def _text(self, found: Verdict) -> str:
        low, high = found.interval or (0.0, 0.0)
        place = {
            "reproduced": "lies within",
            "worse": "lies below",
            "better": "lies above",
            "inconclusive": "reaches over",
        }[found.state]
        return (
            f"{self._apart(found.difference or 0.0)} over {_seeds(found.seeds)}, 90 % interval "
            f"{low:+.3g} to {high:+.3g} {place} the margin of ±{self.delta:.3g}"
        )

    def _apart(self, difference: float) -> str:
        side = "better" if difference > 0 else "worse"
        return f"{abs(difference):.3g} {self.cell.column.unit} {side}"

    def _more(self, found: Verdict, remarks: list[str]) -> list[str]:
        more = []
        if found.state == "better":
            more.append("look for leaked or easier data, or another unit")
        if found.seeds == 1 and found.interval:
            more.append("the spread is that of other models' runs on the same data")
        if found.state == "inconclusive" and found.interval:
            more.append(_advice(found.more_seeds))
        if self.delta < self.sigma:
            more.append(f"ranking not resolvable, seeds differ by {self.sigma:.3g}")
        choice = _chosen_on_test(self.published)
        if choice and found.state in ("worse", "inconclusive"):
            more.append(f"the published number was chosen on test ({choice})")
        return more + remarks


def _advice(more_seeds: int | None) -> str:
    if more_seeds is None:
        return "more seeds are not expected to decide"
    return f"{more_seeds} more {'seed' if more_seeds == 1 else 'seeds'} expected to decide"


def _chosen_on_test(published: Published) -> str:
    """Return the clause of the selection rule that looks at the test data, if there is one."""
    clauses = (clause.strip() for clause in published.selection.split(";"))
    return next((clause for clause in clauses if _CHOICE_ON_TEST.search(clause)), "")
