"""How ``diff`` looks: what two runs were given, what they made, and where they part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dgm_bench.compare.parting import Point, parting
from dgm_bench.records import RunRecord

_MARKS = {True: "same", False: "DIFFERS", None: "unknown"}


def render_parting(
    runs: tuple[RunRecord, RunRecord], given: Sequence[Point], made: Sequence[Point]
) -> str:
    """Return two runs side by side as text.

    Args:
        runs: The two.
        given: Of :func:`dgm_bench.compare.parting.given`.
        made: Of :func:`dgm_bench.compare.parting.made`.
    """
    heads = [f"{name:8}{_said(run)}" for name, run in zip(("first", "second"), runs, strict=True)]
    width = max(len(point.name) for point in (*given, *made))
    parts = (
        heads,
        ["", "What they were given"],
        [f"  {_line(point, width)}" for point in given],
        ["", "What they made, in its order"],
        [f"  {_line(point, width)}" for point in made],
        ["", conclusion(made)],
    )
    return "\n".join(line for part in parts for line in part)


def _said(run: RunRecord) -> str:
    where = f"{run.paper}/{run.table}/{run.row}/{run.column}"
    return f"{run.run_id}: {where}, seed {run.seed}, {run.outcome.status}"


def _line(point: Point, width: int) -> str:
    mark = f"{point.name:{width}}  {_MARKS[point.same]:8}"
    if point.same:
        return f"{mark}{point.first}"
    far = f" (relative difference {point.apart:.1g})" if point.apart else ""
    return f"{mark}{point.first} / {point.second}{far}"


def conclusion(made: Sequence[Point]) -> str:
    """Return in a sentence where two runs part."""
    where = parting(made)
    before = made if where is None else made[: made.index(where)]
    unknown = [point.name for point in before if point.same is None]
    if where is not None:
        maybe = f"; not recorded, and so perhaps before: {', '.join(unknown)}" if unknown else ""
        return f"They part at: {where.name}{maybe}."
    rest = f"; not recorded by both: {', '.join(unknown)}" if unknown else ""
    return f"All {len(made) - len(unknown)} that both tell are the same to the bit{rest}."


def parting_json(
    runs: tuple[RunRecord, RunRecord], given: Sequence[Point], made: Sequence[Point]
) -> dict[str, Any]:
    """Return the same for programs."""
    where = parting(made)
    return {
        "runs": [run.run_id for run in runs],
        "parting": where.name if where else None,
        "given": [asdict(point) for point in given],
        "made": [asdict(point) for point in made],
    }
