"""A verdict in sentences: why it is what it is, and what a reader has to know besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dgm_bench.records import RunRecord
from dgm_bench.spec import Cell, Published
from dgm_bench.verdict.judgement import Unfinished, Verdict
from dgm_bench.wording import around_zero, counted, error_remark, selection_remark, share

_PLACES = {
    "reproduced": "lies within",
    "worse": "lies below",
    "better": "lies above",
    "inconclusive": "reaches over",
}


def told(verdict: Verdict, text: str, remarks: Sequence[str]) -> Verdict:
    """Return a verdict with its reason: a sentence that ends with the remarks."""
    return replace(verdict, reason="; ".join([text, *remarks]), remarks=tuple(remarks))


def failed(cell: Cell, records: Sequence[RunRecord]) -> Verdict:
    """Return the verdict of a cell of which no run has a value: what the newest one ended with.

    Runs of before the metric was measured say nothing of it.
    """
    outcome = records[-1].outcome
    if not outcome.failed:
        if all(record.metric(cell.metric) is None for record in records):
            return Verdict(cell.id, "not-run", f"not run since {cell.metric} is measured")
        return Verdict(cell.id, "failed", f"the run has no value of {cell.metric}")
    text = ": ".join(part for part in (outcome.status, outcome.reason) if part)
    return told(Verdict(cell.id, "failed", ""), text, [outcome.hint] if outcome.hint else [])


def unpublished(measured: Verdict) -> str:
    """Return what is said of a number with nothing published beside it."""
    seeds = counted(measured.seeds, "seed")
    if measured.gap is None:
        return f"{seeds}, no published number"
    return f"{seeds}, {measured.gap:.3g} nats from the entropy"


def unfinished(found: Unfinished, unit: str) -> str:
    """Return how far a run got that its budget cut short."""
    of = "the steps expected, early stopping not reached" if found.early_stopping else "its steps"
    done = "" if found.fraction is None else f", {share(found.fraction)} of {of}"
    if found.fraction is None and found.early_stopping:
        done = ", early stopping not reached"
    number = "no number" if found.so_far is None else f"{found.so_far:.4g} {unit}"
    text = f"cut short by the budget after {found.epochs:.3g} epochs{done}: {number} so far"
    if found.forecast is None:
        return f"{text}; no forecast: {found.no_forecast}"
    return f"{text}; its curve, extrapolated, ends at {extrapolated(found)} {unit} (90 % interval)"


def extrapolated(found: Unfinished) -> str:
    """Return a forecast with its 90 % interval, as in ``101.2 [92.31, 118.4]``."""
    low, high = found.low or 0.0, found.high or 0.0
    return f"{found.forecast or 0.0:#.4g} [{low:#.4g}, {high:#.4g}]"


def decided(verdict: Verdict, unit: str) -> str:
    """Return where a verdict's interval lies."""
    low, high = verdict.interval or (0.0, 0.0)
    return (
        f"{_apart(verdict, unit)} over {counted(verdict.seeds, 'seed')}, 90 % interval "
        f"{low:+.3g} to {high:+.3g} {_PLACES[verdict.state]} the margin of "
        f"{around_zero(verdict.delta or 0.0)}"
    )


def one_seed(verdict: Verdict, unit: str) -> str:
    """Return why a single run without a known spread decides nothing."""
    return f"one seed, {_apart(verdict, unit)}, and no spread known to judge it by"


def remarks_on_verdict(
    verdict: Verdict, published: Published, sigma: float, certain: str
) -> list[str]:
    """Return what would decide, and what a reader has to know of margin and published number.

    Args:
        verdict: With its state and numbers.
        published: What it is held against.
        sigma: Usual spread between seeds.
        certain: Why one run says what others would; empty where it does not.
    """
    found = []
    if verdict.interval is None:
        found.append("2 more seeds would give one")
    if verdict.state == "better":
        found.append("look for leaked or easier data, or another unit")
    if verdict.seeds == 1 and verdict.interval:
        others = "the spread is that of other models' runs on the same data"
        found.append(certain or others)
    if verdict.state == "inconclusive" and verdict.interval:
        found.append(_advice(verdict.more_seeds))
    if (verdict.delta or 0.0) < sigma:
        found.append(f"ranking not resolvable, seeds differ by {sigma:.3g}")
    chosen = selection_remark(published)
    if chosen and verdict.state in ("worse", "inconclusive"):
        found.append(chosen)
    return found


def remarks_on_runs(
    cell: Cell, records: Sequence[RunRecord], runs: Sequence[RunRecord], obstacles: Sequence[str]
) -> list[str]:
    """Return what a reader has to know of the runs, and of the published ±.

    Args:
        cell: The cell.
        records: All its records.
        runs: Those that count.
        obstacles: Why others are not comparable.
    """
    found = [f"left out: {obstacle}" for obstacle in obstacles]
    found += _unlike_the_rest(records, runs)
    versions = len({run.code.source_hash for run in runs})
    if versions > 1:
        found.append(f"runs of {versions} versions of the code")
    if not all(run.data.verified for run in runs):
        found.append("data not verified as the published files")
    if cell.published and (remark := error_remark(cell.published)):
        found.append(remark)
    return found


def _unlike_the_rest(records: Sequence[RunRecord], runs: Sequence[RunRecord]) -> list[str]:
    ended = [record for record in records if not record.outcome.cut_short]
    failed = [record for record in ended if record.outcome.failed]
    counted_runs = {run.run_id for run in runs}
    short = sum(r.outcome.cut_short for r in records if r.run_id not in counted_runs)
    found = []
    if failed:
        seeds = counted(len(ended), "seed")
        found.append(f"{len(failed)} of {seeds} {failed[-1].outcome.status}")
    if short:
        found.append(f"{counted(short, 'seed')} cut short by the budget left out")
    return found


def _apart(verdict: Verdict, unit: str) -> str:
    difference = verdict.difference or 0.0
    return f"{abs(difference):.3g} {unit} {'better' if difference > 0 else 'worse'}"


def _advice(more_seeds: int | None) -> str:
    if more_seeds is None:
        return "more seeds are not expected to decide"
    return f"{counted(more_seeds, 'more seed')} expected to decide"
