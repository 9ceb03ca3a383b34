"""One metric of one cell, new against baseline: comparable or not, changed or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dgm_bench import stats
from dgm_bench.compare.rows import ComparedRow, Side
from dgm_bench.measured import measured
from dgm_bench.records import Metric, RunRecord
from dgm_bench.spec import YES_NO, Direction
from dgm_bench.verdict import FLOORS, Pool
from dgm_bench.verdict.comparability import share_data
from dgm_bench.wording import RowState

#: Runs of equal seeds on a machine that repeats its numbers are paired from this many on: with
#: fewer, a paired test has too little freedom to beat Welch's.
MIN_PAIRS = 5
#: How often runs of the same code are taken for ones that spread more widely.
WIDER_BY_CHANCE = 0.001


@dataclass(frozen=True)
class Pair:
    """The runs of both sides that bear on one metric of one cell.

    ``declared`` is the direction of the table's column; without one the records decide.
    """

    cell: str
    name: str
    new: Sequence[RunRecord]
    baseline: Sequence[RunRecord]
    declared: Direction | None = None

    def judged(self, pool: Pool) -> ComparedRow:
        """Return the row, with its state."""
        if any(map(cut_short, (self.new, self.baseline))):
            return self._unfinished()
        new, baseline = self._usable(self.new), self._usable(self.baseline)
        if not new and not baseline:
            return self.obstructed(["no run of either side has a value"])
        if not new and self.new:
            failed = all(run.outcome.failed for run in self.new)
            return self._broken() if failed else self._no_longer()
        if not new or not baseline:
            return self.alone()
        usable = replace(self, new=new, baseline=baseline)
        obstacles = usable._obstacles()
        row = usable.obstructed(obstacles) if obstacles else usable._tested(pool)
        return self._with_failures(row)

    def obstructed(self, obstacles: Sequence[str]) -> ComparedRow:
        """Return a row that is not comparable."""
        return self._row("not-comparable", "; ".join(obstacles))

    def alone(self) -> ComparedRow:
        """Return a row of which one side only has a value."""
        if self.new:
            return self._row("only-new", "the baseline has no run with a value")
        return self._row("only-baseline", "no new run")

    def _unfinished(self) -> ComparedRow:
        """Return the row of which a side was not run to its end by any of its runs."""
        sides = {"new": self.new, "baseline": self.baseline}
        short = " and ".join(name for name, runs in sides.items() if cut_short(runs))
        return self._row("unfinished", f"{short} runs cut short by the budget: no measurement")

    def _broken(self) -> ComparedRow:
        outcome = self.new[-1].outcome
        return self._row("worse", f"every new run failed: {outcome.status}: {outcome.reason}")

    def _no_longer(self) -> ComparedRow:
        return self._row("only-baseline", "no new run measures it")

    def _with_failures(self, row: ComparedRow) -> ComparedRow:
        """Return a row that tells of new seeds that failed; worse where none did before."""
        failed = [run for run in self.new if run.outcome.failed]
        if not failed:
            return row
        how = f"{len(failed)} of {len(self.new)} new seeds failed: {failed[-1].outcome.status}"
        ended = {run.seed for run in self.baseline if not run.outcome.failed}
        before = any(run.outcome.failed for run in self.baseline)
        if row.state == "not-comparable" or before or not ended & {run.seed for run in failed}:
            return replace(row, reason=f"{row.reason}; {how}")
        return replace(row, state="worse", reason=f"{how}, and none did before; {row.reason}")

    # ------------------------------------------------------------------ comparability

    def _usable(self, runs: Sequence[RunRecord]) -> list[RunRecord]:
        """Return the runs that have a value, of those that came to an end where there are any."""
        ended = [run for run in runs if not run.outcome.cut_short] or runs
        return [run for run in ended if not run.outcome.failed and _has(run, self.name)]

    def _obstacles(self) -> list[str]:
        new, old = self._metric(self.new), self._metric(self.baseline)
        found = [
            f"{what} differs ({getattr(old, what)} before, {getattr(new, what)} now)"
            for what in ("unit", "direction", "split", "protocol")
            if _kind(old, what) != _kind(new, what) and not (what == "direction" and self.declared)
        ]
        if not share_data((*self.new, *self.baseline), new.split):
            found.append(f"the {new.split} data differ")
        return found

    def _metric(self, runs: Sequence[RunRecord]) -> Metric:
        return [metric for run in runs if (metric := run.metric(self.name))][-1]

    # ------------------------------------------------------------------ testing

    def _tested(self, pool: Pool) -> ComparedRow:
        new, old = self._values(self.new), self._values(self.baseline)
        remarks = self._repeatability(new, old)
        if new == old:
            return self._row("same", "the same numbers, seed by seed", difference=0.0)
        wider = self._wider(pool)
        estimate, sigma = self._estimate(pool, wider and wider[1])
        if estimate is None:
            return self._single(next(iter(new.values())) - next(iter(old.values())), remarks)
        margin = self._floor()
        state = _state(estimate, margin, max(margin, 2 * sigma))
        if wider is not None:
            state = "noise" if state == "same" else state
            times = (wider[0].value / wider[1].value) ** 0.5
            remarks = [f"the new seeds spread {times:.2g} times as widely", *remarks]
        bound = None if self._neutral or wider else -estimate.upper()
        row = self._row(self._unjudged(state), "", estimate.value, bound, margin)
        errors = abs(estimate.value) / estimate.se if estimate.se else None
        reason = "; ".join([_reason(row), *remarks])
        return replace(row, reason=reason, standard_errors=errors)

    def _single(self, difference: float, remarks: Sequence[str]) -> ComparedRow:
        """Return the row of one run on each side, where no spread is known."""
        state: RowState = "not-comparable"
        reason = "one run on each side, and no spread is known; run 3 seeds"
        if self._neutral:
            unit = self._metric(self.new).unit
            state, reason = "changed", f"{abs(difference):.3g} {unit} apart, no spread is known"
        elif self._metric(self.new).unit == YES_NO:
            state, reason = _oriented(difference), "the property was checked, and is another"
        elif self._repeats() and -difference > self._floor():
            state = "worse"
            reason = f"worse by {-difference:.3g} {self._metric(self.new).unit}"
        return self._row(state, "; ".join([reason, *remarks]), difference, margin=self._floor())

    def _unjudged(self, state: RowState) -> RowState:
        """Return ``changed`` for what is called worse or better where neither way is better."""
        return "changed" if self._neutral and state in ("worse", "better") else state

    @property
    def _neutral(self) -> bool:
        return self._direction(self.new) == "none"

    def _direction(self, runs: Sequence[RunRecord]) -> Direction:
        return self.declared or self._metric(runs).direction

    def _floor(self) -> float:
        return FLOORS.get(self._metric(self.new).unit, 0.0)

    def _estimate(
        self, pool: Pool, usual: stats.Variance | None
    ) -> tuple[stats.Estimate | None, float]:
        """Return new minus baseline, oriented, and the spread of one run.

        Args:
            pool: How much seeds usually differ.
            usual: The baseline's variance, where it alone is to decide: some seeds break now, and
                their spread would hide how far all are from the baseline's.
        """
        new, old = self._values(self.new), self._values(self.baseline)
        seeds = sorted(new.keys() & old.keys())
        first, second = list(new.values()), list(old.values())
        variances = [pool.variance(*self._scale, x) for x in (first, second)]
        spread = variances[1] or variances[0]
        if spread is None:
            return None, 0.0
        sigma = spread.value**0.5
        ours, theirs = (stats.mean(first), len(first)), (stats.mean(second), len(second))
        if usual is not None:
            return stats.borrowed(ours, theirs, usual), sigma
        if len(seeds) >= MIN_PAIRS and self._repeatable():
            return stats.paired([new[s] for s in seeds], [old[s] for s in seeds]), sigma
        if variances[0] is None or variances[1] is None:
            return stats.borrowed(ours, theirs, spread), sigma
        samples = (
            stats.Sample(ours[0], variances[0], ours[1]),
            stats.Sample(theirs[0], variances[1], theirs[1]),
        )
        return stats.welch(*samples, shared=pool.prior(*self._scale) is not None), sigma

    @property
    def _scale(self) -> tuple[RunRecord, str, str]:
        """What the pool is asked for."""
        return self.baseline[-1], self.name, self._metric(self.baseline).unit

    def _wider(self, pool: Pool) -> tuple[stats.Variance, stats.Variance] | None:
        """Return the variances of both sides where the new seeds spread more than by chance."""
        new = stats.variance_of([*self._values(self.new).values()])
        old = pool.variance(*self._scale, [*self._values(self.baseline).values()])
        if new is None or old is None or not stats.is_wider(new, old, WIDER_BY_CHANCE):
            return None
        return new, old

    def _values(self, runs: Sequence[RunRecord]) -> dict[int, float]:
        """Return values by seed; of a metric that is better lower, with the sign changed."""
        sign = -1.0 if self._direction(runs) == "lower" else 1.0
        metrics = ((run.seed, run.metric(self.name)) for run in runs)
        return {s: sign * m.value for s, m in metrics if m is not None and m.value is not None}

    def _repeats(self) -> bool:
        """Whether seed, code and machine are the same, so that the numbers should be equal."""
        sources = {run.code.source_hash for run in (*self.new, *self.baseline)}
        seeds = {run.seed for run in (*self.new, *self.baseline)}
        return self._repeatable() and len(sources) == len(seeds) == 1

    def _repeatable(self) -> bool:
        """Whether machine class and threads are the same, and repeat their numbers exactly."""
        environments = [run.environment for run in (*self.new, *self.baseline)]
        classes = {(e.machine_class, e.threads) for e in environments}
        return len(classes) == 1 and all(e.determinism == "exact" for e in environments)

    def _repeatability(self, new: Mapping[int, float], old: Mapping[int, float]) -> list[str]:
        """Say so when the same seed, code and machine gave another number."""
        sources = {run.code.source_hash for run in (*self.new, *self.baseline)}
        off = [seed for seed in new if seed in old and new[seed] != old[seed]]
        if not off or not self._repeatable():
            return []
        listed = ("seed " if len(off) == 1 else "seeds ") + ", ".join(map(str, off))
        if len(sources) > 1:
            return [f"the code changed the numbers of {listed}"]
        return [f"{listed} did not repeat, though code, machine class and threads are the same"]

    # ------------------------------------------------------------------ the row

    def _row(
        self,
        state: RowState,
        reason: str,
        difference: float | None = None,
        bound: float | None = None,
        margin: float | None = None,
    ) -> ComparedRow:
        unit = next(
            (m.unit for run in (*self.new, *self.baseline) if (m := run.metric(self.name))), ""
        )
        baseline, new = (self._side(self._usable(runs)) for runs in (self.baseline, self.new))
        return ComparedRow(
            self.cell, self.name, unit, state, reason, baseline, new, difference, bound, margin
        )

    def _side(self, runs: Sequence[RunRecord]) -> Side:
        found = measured(runs, self.name)
        if found is None:
            return Side()
        seconds = stats.mean([run.budget.train_seconds for run in runs])
        if runs[-1].outcome.cut_short:
            return Side(seeds=found.seeds, train_seconds=seconds, so_far=found.mean)
        return Side(found.mean, found.sd, found.seeds, seconds, found.se_test)


def cut_short(runs: Sequence[RunRecord]) -> bool:
    """Return whether there are runs, and their budget ended all of them: nothing is measured."""
    return bool(runs) and all(run.outcome.cut_short for run in runs)


def _oriented(difference: float) -> RowState:
    return "better" if difference > 0 else "worse"


def _kind(metric: Metric, what: str) -> str:
    """Return what two metrics have to share: their unit, ..., and how they are measured.

    The protocol of a property holds what its experiment gave, which differs between runs.
    """
    if what == "protocol" and metric.unit == YES_NO:
        return ""
    return metric.method if what == "protocol" else str(getattr(metric, what))


def _has(run: RunRecord, name: str) -> bool:
    metric = run.metric(name)
    return metric is not None and metric.value is not None


def _state(estimate: stats.Estimate, floor: float, same_within: float) -> RowState:
    if estimate.upper() < -floor:
        return "worse"
    if estimate.lower() > floor:
        return "better"
    inside = -same_within < estimate.lower() and estimate.upper() < same_within
    return "same" if inside else "noise"


def _reason(row: ComparedRow) -> str:
    size, unit = abs(row.difference or 0.0), row.unit
    if row.state == "worse" and row.bound is None:
        return (
            f"worse by {size:.3g} {unit}, more than the spread over the baseline's seeds explains"
        )
    if row.state == "worse":
        return f"worse by {size:.3g} {unit}, with 99 % confidence by more than {row.bound:.3g}"
    if row.state == "better":
        return (
            f"better by {size:.3g} {unit}, more than the spread over seeds explains: find out why"
        )
    if row.state == "changed":
        return (
            f"changed by {size:.3g} {unit}, more than the spread over seeds explains; this metric "
            "has no better direction"
        )
    if row.state == "same":
        return f"{size:.3g} {unit} apart, which is within the spread over seeds"
    return f"{size:.3g} {unit} apart: too few seeds to tell a change from noise; run more"
