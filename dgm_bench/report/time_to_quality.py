"""Time to quality beside the numbers of a table: what runs took until they were first so good.

:mod:`dgm_bench.quality` defines it. Here it is the median over the finished runs of a cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from dgm_bench.planner import duration
from dgm_bench.quality import FRACTIONS, Curve, passed_published, stages_quality
from dgm_bench.records import Environment, Reached, RunRecord
from dgm_bench.report.grid import Entry, Heading, Notes, Section
from dgm_bench.spec import Cell
from dgm_bench.store import Store
from dgm_bench.verdict import Verdict

CurveOf = Callable[[RunRecord], Curve]

PUBLISHED = "published"
#: What is asked of a stage: fractions of its way in per cent, and the published number.
TARGETS = (*(f"{100 * fraction:g}" for fraction in FRACTIONS), PUBLISHED)
#: Of the table; the last two are left out where they say the same of all.
COLUMNS = ("", "reached", "at", "steps", "epochs", "training", "evaluations", "machine, threads")
NUMBERS = ("steps", "epochs", "training", "evaluations")
TITLE = (
    "Time to quality: training until the validation was first as good as the published number or, "
    "where it was not or measures something else, had gone 99 % of its way"
)


@dataclass(frozen=True)
class Taken:
    """What it took until a validation was so good, as the median over seeds.

    Seconds are those of training alone, None of runs on several machines; function evaluations,
    of models that solve an equation, include those of validations.
    """

    target: float
    steps: float
    epochs: float
    train_seconds: float | None
    evaluations: float | None


@dataclass(frozen=True)
class TimeToQuality:
    """Of the runs of a cell, by stage and by target, what they took.

    Attributes:
        runs: Identifiers of the runs.
        stages: By the stage's name, in order; each has those of :data:`TARGETS` that all runs
            reached, the published number in runs of one stage only.
        not_passed: Why there is no time to the published number.
        machine: What their seconds are of (``RunRecord.timed_on``); empty where they differ in it.
        machines: What these machines are, by the same.
    """

    runs: tuple[str, ...]
    stages: Mapping[str, Mapping[str, Taken]]
    not_passed: str = ""
    machine: str = ""
    machines: Mapping[str, str] = field(default_factory=dict)


def times_of(
    cells: Iterable[Cell], verdicts: Mapping[str, Verdict], store: Store
) -> dict[str, TimeToQuality]:
    """Return the times of the cells that are measured, by cell.

    Args:
        cells: The cells.
        verdicts: By cell; a cell without a mean has no times.
        store: Of the runs and their curves.
    """
    found = {
        cell.id: time_to_quality(cell, store.for_cell(cell), store.known_curve)
        for cell in cells
        if verdicts[cell.id].mean is not None
    }
    return {cell: times for cell, times in found.items() if times is not None}


def time_to_quality(
    cell: Cell, records: Sequence[RunRecord], curve_of: CurveOf
) -> TimeToQuality | None:
    """Return what the finished runs of a cell took; None where no stage got any better.

    Args:
        cell: The cell.
        records: Its runs; those that broke or were cut short do not count.
        curve_of: Returns the rows of a run's curve.
    """
    runs = [run for run in records if run.outcome.complete]
    machines = {run.timed_on: _processor(run.environment) for run in runs}
    one = len(machines) == 1
    stages: dict[str, dict[str, Taken]] = {}
    for run_stages in zip(*(stages_quality(run, curve_of(run)) for run in runs), strict=False):
        by_target = zip(*(quality.reached for quality in run_stages), strict=False)
        taken = {f"{100 * (r[0].fraction or 0):g}": _taken(r, one) for r in by_target}
        stages |= {run_stages[0].stage: taken} if taken else {}
    passed = [passed_published(cell, run, curve_of(run)) for run in runs]
    reached = [each for each in passed if isinstance(each, Reached)]
    if stages and len(reached) == len(runs):
        next(iter(stages.values()))[PUBLISHED] = _taken(reached, one)
    if not stages:
        return None
    return TimeToQuality(
        runs=tuple(run.run_id for run in runs),
        stages=stages,
        not_passed=next((each for each in passed if isinstance(each, str)), ""),
        machine=next(iter(machines)) if one else "",
        machines=machines,
    )


def _processor(environment: Environment) -> str:
    return f"{environment.gpu or environment.cpu}, {environment.cores} cores"


def _taken(found: Sequence[Reached], one_machine: bool) -> Taken:
    evaluations = [each.function_evaluations for each in found]
    known = [number for number in evaluations if number is not None]
    return Taken(
        target=median(each.target for each in found),
        steps=median(each.step for each in found),
        epochs=median(each.epoch for each in found),
        train_seconds=median(each.train_seconds for each in found) if one_machine else None,
        evaluations=median(known) if len(known) == len(found) else None,
    )


# --------------------------------------------------------------------------- shown


def quality_section(cells: Sequence[Cell], times: Mapping[str, TimeToQuality]) -> Section:
    """Return a table of what runs took, one line for each stage of the runs behind cells.

    Args:
        cells: Of a table, in order.
        times: By cell.
    """
    shared: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        if cell.id in times and not cell.repeats:
            shared.setdefault(times[cell.id].runs, []).append(cell)
    rows = [row for group in shared.values() for row in _rows(group, times)]
    last = len(COLUMNS) - 2
    kept = [i for i in range(len(COLUMNS)) if i < last or len({row[i] for row in rows}) > 1]
    headings = tuple(Heading((COLUMNS[i],), right=COLUMNS[i] in NUMBERS) for i in kept)
    body = tuple(tuple(Entry.of(row[i]) for i in kept) for row in rows)
    return Section(TITLE, headings, body)


def _rows(group: Sequence[Cell], times: Mapping[str, TimeToQuality]) -> Iterable[tuple[str, ...]]:
    """Yield the lines of one run; where it serves several cells, one that it passed comes first."""
    cell = max(group, key=lambda cell: any(PUBLISHED in t for t in times[cell.id].stages.values()))
    found = times[cell.id]
    where = cell.column.title if len(group) == 1 else cell.column.data
    for stage, taken in found.stages.items():
        name = f"{cell.row.title}, {where}" + (f": {stage}" if len(found.stages) > 1 else "")
        target = PUBLISHED if PUBLISHED in taken else TARGETS[-2]
        if target in taken:
            words = target if target == PUBLISHED else f"{target} %"
            yield _line(name, words, taken[target], found.machine or "several")


def all_lines(found: TimeToQuality) -> Iterable[tuple[str, ...]]:
    """Yield a line for each stage and target: with stage, the columns of :data:`COLUMNS`."""
    for stage, taken in found.stages.items():
        for target in (target for target in TARGETS if target in taken):
            words = target if target == PUBLISHED else f"{target} % of the way"
            yield _line(stage, words, taken[target], found.machine or "several")


def _line(name: str, words: str, taken: Taken, machine: str) -> tuple[str, ...]:
    seconds = "-" if taken.train_seconds is None else duration(taken.train_seconds)
    evaluations = "-" if taken.evaluations is None else f"{taken.evaluations:,.0f}"
    shown = (name, words, f"{taken.target:.4g}", f"{taken.steps:,.0f}", f"{taken.epochs:.1f}")
    return (*shown, seconds, evaluations, machine)


def machine_notes(times: Mapping[str, TimeToQuality]) -> Notes:
    """Return what the machines are that seconds are of: they compare on one of them only."""
    machines: dict[str, str] = {}
    for found in times.values():
        machines |= found.machines
    items = tuple(("", f"{name}: {text}") for name, text in sorted(machines.items()))
    return Notes("Machines: seconds of training compare on one of them only", items)


def quality_fields(found: TimeToQuality | None) -> dict[str, Any]:
    """Return all times of a cell with runs of one stage, flat, with null for what is not known."""
    one = found is not None and len(found.stages) == 1
    taken = next(iter(found.stages.values())) if found is not None and one else {}
    fields: dict[str, Any] = {}
    for target in TARGETS:
        for name in ("steps", "epochs", "train_seconds", "evaluations"):
            known = taken.get(target)
            fields[f"to_{target}_{name}"] = None if known is None else getattr(known, name)
    fields["to_published_why_not"] = found.not_passed if found is not None else None
    fields["train_seconds_on"] = found.machine if found is not None else None
    return fields
