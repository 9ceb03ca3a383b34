"""What stored runs were planned to take, by their declared work, and what they took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import evidence

from dgm_bench.planner.expected import expected_seconds
from dgm_bench.planner.machine import Speed
from dgm_bench.records import RunRecord

HEAD = ("table", "data", "recipes", "runs", "planned", "took", "took / planned, by recipe")
INTRODUCTION = """# Hours

Complete runs that are stored, beside what `dgm-bench plan` says of their recipes before any has
been run: declared steps and operations, at 30 GFLOP/s and 10 microseconds an operation of one core.
Where early stopping ends a run the declared steps are a guess. Once a recipe has run, plans go by
what it took. Hours are of one core: seconds of training, validation and evaluation, times threads.
"""


def page() -> str:
    """Return the page, with a line for each table and data set."""
    groups: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for record in evidence.store().records():
        planned = record.recipe.cost is not None and not record.recipe.fitted
        if record.is_measurement and planned:
            groups[f"{record.paper}/{record.table}", record.data.name].append(record)
    lines = [f"| {' | '.join(HEAD)} |", "| --- | --- |" + " ---: |" * (len(HEAD) - 2)]
    lines += [_line(*key, groups[key]) for key in sorted(groups)]
    return f"{INTRODUCTION}\n" + "\n".join(lines) + "\n"


def _line(table: str, data: str, records: Sequence[RunRecord]) -> str:
    by_recipe: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        by_recipe[record.recipe_hash].append(record)
    ratios = sorted(_took(same) / _planned(same) for same in by_recipe.values())
    least, most = f"{ratios[0]:.2g}", f"{ratios[-1]:.2g}"
    entries = [
        f"`{table}`",
        data,
        str(len(by_recipe)),
        str(len(records)),
        _hours(_planned(records)),
        _hours(_took(records)),
        least if least == most else f"{least} to {most}",
    ]
    return f"| {' | '.join(entries)} |"


def _planned(records: Sequence[RunRecord]) -> float:
    core = Speed.cpu(1)
    return sum(expected_seconds(r.recipe.cost, core) for r in records if r.recipe.cost)


def _took(records: Sequence[RunRecord]) -> float:
    """Return seconds of one core; of a run that was trained together with others, its share."""
    return sum(r.budget.seconds * r.environment.threads for r in records)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
