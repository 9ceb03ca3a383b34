"""Where two runs part: the first stage of their making in which they have not the same bits.

Two people who run one recipe and end with other numbers find whether it was the data, the weights
that they began with, the first batch, its loss, its gradient or the step. Numbers and hashes are
those that the records have; what a record of before their time does not say is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from dgm_bench.quality import Curve, validated_rows
from dgm_bench.records import WEIGHTS, Beginning, Metric, RunRecord
from dgm_bench.stats import relative_difference

#: Of a hash, what is shown.
SHOWN = 12
UNKNOWN = "not recorded"
#: Unit of metrics that no two runs have alike.
SECONDS = "s"
#: Fields of a :class:`~dgm_bench.records.Beginning` in the order in which a step makes them.
_STEP = (
    ("weights", "weights as built"),
    ("weights_on_data", "weights after the pass over data"),
    ("batch", "first batch"),
    ("loss", "first loss"),
    ("gradient", "first gradient"),
    ("weights_stepped", "weights after the first step"),
)


@dataclass(frozen=True)
class Point:
    """What two runs have of one thing.

    Attributes:
        name: Of the thing.
        first: What the first run has, a hash or a number, shortened.
        second: What the second has.
        same: Whether they are equal to the bit; None where one of the records does not say.
        apart: By how much numbers differ, relative to the larger; None for others.
    """

    name: str
    first: str
    second: str
    same: bool | None
    apart: float | None = None


def given(first: RunRecord, second: RunRecord) -> list[Point]:
    """Return what both runs were given that may explain where they part: recipe, code, machine."""
    pairs = zip(_given(first), _given(second), strict=True)
    return [_point(name, one, other) for (name, one), (_, other) in pairs]


def _given(record: RunRecord) -> Iterator[tuple[str, str | None]]:
    environment, scale = record.environment, record.scale
    yield "recipe", record.recipe_hash
    yield "seed", str(record.seed)
    yield "code", record.code.source_hash
    yield "torch", environment.packages.get("torch")
    yield "numpy", environment.packages.get("numpy")
    yield "processor", environment.gpu or environment.cpu
    yield "threads", str(environment.threads)
    yield "processes", str(scale.world_size)
    yield "seeds at once", str(record.budget.seeds_together)
    yield "precision", scale.precision
    yield "interruptions", str(len(record.budget.segments) - len(record.recipe.stages))


def made(
    first: RunRecord, second: RunRecord, first_curve: Curve, second_curve: Curve
) -> list[Point]:
    """Return what both runs made, in the order of its making.

    Args:
        first: A run.
        second: Another one, which need not be of the same recipe.
        first_curve: The rows of the first one's curve, of all stages.
        second_curve: Those of the second one's.
    """
    data, results = _data(first, second), _results(first, second)
    return [*data, *_stages(first, second, first_curve, second_curve), *results]


def parting(points: Sequence[Point]) -> Point | None:
    """Return the first thing that is known to differ; None where nothing is."""
    return next((point for point in points if point.same is False), None)


def _data(first: RunRecord, second: RunRecord) -> Iterator[Point]:
    one, other = first.data, second.data
    yield from _hashes("file ", one.files, other.files)
    yield from _hashes("data, ", one.fingerprints, other.fingerprints)


def _hashes(before: str, one: Mapping[str, str], other: Mapping[str, str]) -> Iterator[Point]:
    for name in dict.fromkeys((*one, *other)):
        yield _point(before + name, one.get(name), other.get(name))


def _stages(
    first: RunRecord, second: RunRecord, first_curve: Curve, second_curve: Curve
) -> Iterator[Point]:
    several = max(len(first.recipe.stages), len(second.recipe.stages)) > 1
    runs = ((first, first_curve), (second, second_curve))
    pairs = zip_longest(first.recipe.stages, second.recipe.stages)
    for number, (one, other) in enumerate(pairs):
        name = (one or other).name
        before = f"{name}: " if several else ""
        source = (one or other).data.codes_of
        if source is not None:
            codes = (record.data.codes.get(source, {}) for record in (first, second))
            yield from _hashes(f"{before}codes, ", *codes)
        yield from _first_step(before, _beginning(first, number), _beginning(second, number))
        curves = (_validations(*run, number) for run in runs)
        yield _validation_point(before, *curves)


def _beginning(record: RunRecord, number: int) -> Beginning | None:
    return record.beginnings[number] if number < len(record.beginnings) else None


def _first_step(before: str, one: Beginning | None, other: Beginning | None) -> Iterator[Point]:
    for field, name in _STEP:
        values = [getattr(each, field) if each else None for each in (one, other)]
        if field == "weights_on_data" and values == [None, None]:
            continue  # most models start without
        if field == "gradient" and one and other:
            yield _gradient_point(before + name, one, other)
        else:
            yield _point(before + name, *values)


def _gradient_point(name: str, one: Beginning, other: Beginning) -> Point:
    """Return whether gradients are equal, and what their norms are."""
    same = _same(one.gradient, other.gradient)
    norms = _point(name, one.gradient_norm, other.gradient_norm)
    return Point(name, f"norm {norms.first}", f"norm {norms.second}", same, norms.apart)


def _validations(record: RunRecord, curve: Curve, stage: int) -> dict[float, float]:
    return {row["step"]: row["validation"] for row in validated_rows(record, curve, stage)}


def _validation_point(before: str, one: dict[float, float], other: dict[float, float]) -> Point:
    """Return the first validation that differs, or else the last of those at the same step."""
    steps = [step for step in one if step in other]
    if not steps:
        return Point(f"{before}validation", UNKNOWN, UNKNOWN, None)
    step = next((step for step in steps if one[step] != other[step]), steps[-1])
    return _point(f"{before}validation at step {step:.0f}", one[step], other[step])


def _results(first: RunRecord, second: RunRecord) -> Iterator[Point]:
    yield _point("trained weights", first.artifacts.get(WEIGHTS), second.artifacts.get(WEIGHTS))
    for name, metric in (first.by_name | second.by_name).items():
        if metric.unit != SECONDS:
            yield _point(name, *(_value(record.metric(name)) for record in (first, second)))


def _value(metric: Metric | None) -> float | None:
    return None if metric is None else metric.value


def _point(name: str, one: str | float | None, other: str | float | None) -> Point:
    return Point(name, _text(one), _text(other), _same(one, other), _apart(one, other))


def _same(one: str | float | None, other: str | float | None) -> bool | None:
    return None if one is None or other is None else one == other


def _text(value: str | float | None) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, float):
        return f"{value:.10g}"
    return value[:SHOWN] if len(value) == 64 else value


def _apart(one: str | float | None, other: str | float | None) -> float | None:
    if not isinstance(one, float) or not isinstance(other, float):
        return None
    return relative_difference(one, other)
