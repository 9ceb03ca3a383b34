"""New times against stored ones: of training steps, and of runs until they were as good."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from dgm_bench import stats
from dgm_bench.compare.rows import Comparison, SpeedRow
from dgm_bench.compare.time_to_quality import ComparedTime, CurveOf, compare_times
from dgm_bench.performance import Measurement, Timing
from dgm_bench.records import RunRecord
from dgm_bench.wording import RowState

#: Relative change of a stored time that is none: two measurements of equal code differ by as much.
MARGIN = 0.15
#: And of the seconds of runs, which no other process waited for.
RUN_MARGIN = 0.25
#: Part of the way to its best validation at which a run's time is taken.
FRACTION = 0.99

Measurements = Mapping[str, Sequence[Measurement]]


def with_speed(
    comparison: Comparison,
    runs: tuple[Sequence[RunRecord], Sequence[RunRecord]],
    measured: tuple[Measurements, Measurements],
    curves: tuple[CurveOf, CurveOf] | None = None,
) -> Comparison:
    """Return a comparison of quality with that of times.

    Args:
        comparison: Of quality.
        runs: New ones and the baseline's.
        measured: New ones and the baseline's, by class of machine, oldest first.
        curves: Of new runs and of the baseline's, where steps are compared too.
    """
    steps = compare_times(*runs, *curves) if curves else []
    speed = (
        *compare_measurements(*measured),
        *compare_times_to_quality(*runs),
        *(_steps_row(row) for row in steps if row.fraction == FRACTION),
    )
    remarks = tuple(filter(None, (not_compared(*measured),)))
    return replace(comparison, speed=speed, remarks=remarks)


# --------------------------------------------------------------------------- training steps


def compare_measurements(new: Measurements, baseline: Measurements) -> tuple[SpeedRow, ...]:
    """Compare the newest measurements of each class of machine that both sides have.

    Args:
        new: By class of machine, oldest first.
        baseline: Likewise.
    """
    rows: list[SpeedRow] = []
    for machine in (name for name in baseline if name in new):
        old, ours = baseline[machine][-1].timings, new[machine][-1].timings
        rows += (_row(case, machine, old.get(case), ours.get(case)) for case in {**old, **ours})
    return tuple(rows)


def not_compared(new: Measurements, baseline: Measurements) -> str:
    """Return why times of steps are not compared; empty where they are, or none are new."""
    if not new or new.keys() & baseline.keys():
        return ""
    ours, theirs = (", ".join(side) or "none" for side in (new, baseline))
    return (
        f"Times of training steps are not compared: they are of different machines "
        f"(baseline: {theirs}; new: {ours}); measure both on one: tox -e perf -- store."
    )


def _row(case: str, machine: str, old: Timing | None, new: Timing | None) -> SpeedRow:
    state, reason = _judged(old, new)
    before, now = (timing.ratio if timing else None for timing in (old, new))
    return SpeedRow(case, machine, "step / plain network", before, now, state, reason)


def _judged(old: Timing | None, new: Timing | None) -> tuple[RowState, str]:
    if old is None or new is None:
        return ("only-new" if old is None else "only-baseline"), "the other side did not time it"
    if not old.alike(new):
        return "not-comparable", "the case is other work, or is measured by another network"
    change = new.ratio / old.ratio - 1
    if change > MARGIN and new.lower > old.upper:
        return "worse", f"slower by more than {MARGIN:.0%}, and the bounds lie apart"
    if change < -MARGIN and new.upper < old.lower:
        return "better", f"faster by more than {MARGIN:.0%}, and the bounds lie apart"
    return "same", f"within {MARGIN:.0%}, or within the bounds"


# --------------------------------------------------------------------------- runs


def compare_times_to_quality(
    new: Sequence[RunRecord], baseline: Sequence[RunRecord]
) -> tuple[SpeedRow, ...]:
    """Compare what runs of one recipe took until they were as good, on one class of machine.

    Runs of one recipe and seed are paired whose validations come as far, so that nothing but the
    time differs. Seconds of a run are shown and not judged: other processes may have taken them.
    """
    ours, theirs = _times(new), _times(baseline)
    found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for key, (target, seconds) in theirs.items():
        again = ours.get(key)
        if again is not None and abs(again[0] - target) <= 1e-3 * max(abs(target), 1.0):
            cell, machine = key[:2]
            found[cell, machine].append((seconds, again[1]))
    return tuple(_run_row(*key, pairs) for key, pairs in found.items())


def _times(records: Sequence[RunRecord]) -> dict[tuple[str, str, str, int], tuple[float, float]]:
    """Return the value reached and the seconds until then; of several runs alike the newest."""
    found = {}
    for run in records:
        for target, seconds in _reached(run):
            cell = "/".join((run.paper, run.table, run.row, run.column))
            found[cell, run.timed_on, run.recipe_hash, run.seed] = (target, seconds)
    return found


def _reached(run: RunRecord) -> Iterator[tuple[float, float]]:
    """Yield the validation that a run of one stage had to reach, and what it took, if it did."""
    if len(run.quality) == 1 and not run.outcome.cut_short:
        for point in run.quality[0].reached:
            if point.fraction == FRACTION and point.train_seconds > 0:
                yield point.target, point.train_seconds


def _run_row(cell: str, where: str, pairs: Sequence[tuple[float, float]]) -> SpeedRow:
    old, new = (stats.mean(side) for side in zip(*pairs, strict=True))
    state: RowState = "same" if abs(new / old - 1) <= RUN_MARGIN else "changed"
    reason = f"mean of {len(pairs)} pairs of runs; their time is shown, and not judged"
    return SpeedRow(cell, where, f"seconds to {FRACTION:.0%} of the way", old, new, state, reason)


def _steps_row(row: ComparedTime) -> SpeedRow:
    """Return steps to the validation that stands for the baseline's: the same on any machine."""
    before, now = (side and side[0] for side in (row.baseline, row.new))
    near = row.ratio is not None and abs(row.ratio - 1) <= row.rhythm
    state: RowState = "same" if near and not row.missed else "changed"
    late = f"; {row.missed} runs never got there" if row.missed else ""
    reason = f"{row.seeds} seeds reached {row.target:.4g} on both sides{late}; shown, not judged"
    quantity = f"steps to {row.fraction:.0%} of the baseline's way"
    return SpeedRow(row.cell, f"any, {row.stage}", quantity, before, now, state, reason)
