"""The rule: from a cell's records, by statistics, to a state and the numbers behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from dgm_bench import stats
from dgm_bench.measured import measured
from dgm_bench.records import RunRecord
from dgm_bench.spec import YES_NO, Cell, Published, Table
from dgm_bench.store import Store
from dgm_bench.verdict import reasons
from dgm_bench.verdict.comparability import comparable_runs, value_of
from dgm_bench.verdict.judgement import Verdict
from dgm_bench.verdict.pool import Pool, pool_variances, values_of, why_certain
from dgm_bench.verdict.unfinished import CurveOf, furthest
from dgm_bench.wording import State

#: Smallest difference that is called one, by unit: below it lie the number format, the order of
#: sums and the draw of the dequantisation noise. A choice of this package.
FLOORS: Mapping[str, float] = {"nats": 0.01, "bits/dim": 0.002}

_POSITION_STATES: Mapping[stats.Position, State] = {
    "inside": "reproduced",
    "below": "worse",
    "above": "better",
    "undecided": "inconclusive",
}


def judge_table(table: Table, store: Store, pool: Pool | None = None) -> dict[str, Verdict]:
    """Judge every cell of a table by the records of a store; returns verdicts by cell."""
    pool = pool if pool is not None else pool_variances(store.records())
    return {cell.id: judge_cell(table, cell, store, pool) for cell in table.cells}


def judge_cell(table: Table, cell: Cell, store: Store, pool: Pool) -> Verdict:
    """Judge a cell of a table by the records of a store.

    Args:
        table: Its table, with the published numbers beside it.
        cell: The cell.
        store: Of the records.
        pool: Variance priors of all of them.
    """
    records, curve_of = records_of(cell, store), store.known_curve
    found = judge(cell, records, pool, neighbour_gap(table, cell), curve_of, store.is_own)
    short = store.own_unfinished(cell) if found.unfinished is None else []
    if not short:
        return found
    return replace(found, own_unfinished=furthest(cell, short, curve_of))


def records_of(cell: Cell, store: Store) -> list[RunRecord]:
    """Return the records that a cell is judged by, newest last.

    They are those that count for it, after those of older code where none of them ended.
    """
    current = store.for_cell(cell)
    if any(not record.outcome.cut_short for record in current):
        return current
    return [*store.of_older_code(cell), *current]


def judge(
    cell: Cell,
    records: Sequence[RunRecord],
    pool: Pool | None = None,
    neighbour_gap: float | None = None,
    curve_of: CurveOf = lambda _: (),
    is_own: Callable[[RunRecord], bool] = lambda _: False,
) -> Verdict:
    """Judge one cell.

    Args:
        cell: The cell, with its recipe.
        records: Its records, newest last, one for each seed (:func:`records_of`). Those that
            their budget cut short change nothing where there are others.
        pool: Variance priors of all stored records.
        neighbour_gap: Distance from the nearest other published number of that column; half of
            it caps the margin, so that "reproduced" keeps the table's ranking.
        curve_of: Returns the curve of a run, for what unfinished ones are going to be.
        is_own: Says whether a run is the user's own.
    """
    if not records:
        return not_run(cell)
    ended = [record for record in records if not record.outcome.cut_short]
    usable = [record for record in ended if value_of(cell, record) is not None]
    runs, obstacles = comparable_runs(cell, usable)
    if runs:
        found = _compared(cell, records, runs, obstacles, pool or Pool(), neighbour_gap)
    elif usable:
        found = Verdict(cell.id, "not-comparable", "; ".join(obstacles))
    else:
        found = reasons.failed(cell, ended) if ended else _unfinished(cell, records, curve_of)
    own = (run.seed for run in runs or ended or records if is_own(run))
    return replace(found, own_seeds=tuple(sorted(own)))


def _compared(
    cell: Cell,
    records: Sequence[RunRecord],
    runs: Sequence[RunRecord],
    obstacles: Sequence[str],
    pool: Pool,
    neighbour_gap: float | None,
) -> Verdict:
    """Judge runs that measure what the cell prints; ``records`` are all that it has."""
    remarks = reasons.remarks_on_runs(cell, records, runs, obstacles)
    found = _measured(cell, runs)
    if cell.published is None:
        return reasons.told(found, reasons.unpublished(found), remarks)
    if cell.column.unit == YES_NO:
        return _property(cell, cell.published, found, runs[-1])
    trial = _Trial(cell, cell.published, runs, pool, neighbour_gap)
    return trial.verdict(found, remarks)


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


def _measured(cell: Cell, runs: Sequence[RunRecord]) -> Verdict:
    """Return the numbers of runs that all have a value, without a judgement."""
    found, gap = measured(runs, cell.metric), measured(runs, "gap")
    if found is None:
        raise ValueError(f"no run of {cell.id} has a value of {cell.metric}")
    return Verdict(cell.id, "measured", "", **vars(found), gap=gap.mean if gap else None)


def _unfinished(cell: Cell, short: Sequence[RunRecord], curve_of: CurveOf) -> Verdict:
    """Return how far runs got that their budget cut short."""
    usable = [record for record in short if value_of(cell, record) is not None]
    runs, obstacles = comparable_runs(cell, usable)
    found = furthest(cell, runs or short, curve_of)
    if runs:
        remarks = reasons.remarks_on_runs(cell, short, runs, obstacles)
    else:
        remarks = [f"not comparable when it ends: {obstacle}" for obstacle in obstacles]
    verdict = Verdict(cell.id, "unfinished", "", unfinished=found)
    return reasons.told(verdict, reasons.unfinished(found, cell.column.unit), remarks)


def _property(cell: Cell, published: Published, found: Verdict, newest: RunRecord) -> Verdict:
    """Judge a property: it has no spread, and every run has to say what the paper says.

    The reason is what the newest run's experiment gave.
    """
    difference = _oriented(cell, found.mean or 0.0) - _oriented(cell, float(published.value))
    state: State = "better" if difference > 0 else "worse" if difference < 0 else "reproduced"
    said = "as published" if state == "reproduced" else "the paper says otherwise"
    metric = newest.metric(cell.metric)
    reason = f"{said}: {metric.protocol if metric else 'no protocol'}"
    return replace(found, state=state, difference=difference, reason=reason)


def _oriented(cell: Cell, value: float) -> float:
    return value if cell.column.direction == "higher" else -value


@dataclass(frozen=True)
class _Trial:
    """Complete, comparable runs against a published number."""

    cell: Cell
    published: Published
    runs: Sequence[RunRecord]
    pool: Pool
    neighbour_gap: float | None

    def verdict(self, found: Verdict, remarks: list[str]) -> Verdict:
        """Return the verdict with its interval, margin and reason."""
        unit = self.cell.column.unit
        ours = self._ours()
        if ours is None:
            found = self._undecided(found)
            text = reasons.one_seed(found, unit)
        else:
            found = self._tested(found, ours)
            text = reasons.decided(found, unit)
        certain = why_certain(self.runs[-1].recipe, self.cell.column.metric)
        more = reasons.remarks_on_verdict(found, self.published, self.sigma, certain)
        return reasons.told(found, text, more + remarks)

    def _undecided(self, found: Verdict) -> Verdict:
        """Judge a single run without a known spread; two more would give one."""
        difference = _oriented(self.cell, found.mean or 0.0) - self._target
        return replace(
            found, state="inconclusive", difference=difference, delta=self.delta, more_seeds=2
        )

    def _tested(self, found: Verdict, ours: stats.Sample) -> Verdict:
        theirs = self._theirs() or self._target
        estimate = stats.difference(ours, theirs)
        state = _POSITION_STATES[stats.position(estimate, self.delta)]
        more = stats.further_seeds(ours, theirs, self.delta)
        return replace(
            found,
            state=state,
            difference=estimate.value,
            delta=self.delta,
            interval=estimate.interval(),
            more_seeds=more if state == "inconclusive" else None,
        )

    @property
    def prior(self) -> stats.VariancePrior | None:
        """The variance prior of this data set and metric."""
        return self.pool.prior(self.runs[-1], self.cell.metric, self.cell.column.unit)

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

    @property
    def _target(self) -> float:
        return _oriented(self.cell, float(self.published.value))

    def _ours(self) -> stats.Sample | None:
        values = [_oriented(self.cell, x) for x in values_of(self.runs, self.cell.metric)]
        unit = self.cell.column.unit
        variance = self.pool.variance(self.runs[-1], self.cell.metric, unit, values)
        if variance is None:
            return None
        return stats.Sample(stats.mean(values), variance, len(values))

    def _theirs(self) -> stats.Sample | None:
        """The published mean with its seed spread, where it is one over a known number of runs."""
        pm, n = self.published.pm, self.published.pm_n or 0
        if self.published.pm_kind != "sd_runs" or pm is None or n < 2:
            return None
        return stats.Sample(self._target, stats.Variance(float(pm) ** 2, n - 1), n)
