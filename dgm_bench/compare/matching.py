"""Which runs are compared with which: those of one recipe, within a column of a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dgm_bench.compare.pairs import Pair, cut_short
from dgm_bench.compare.rows import ComparedRow, Comparison
from dgm_bench.records import RunRecord
from dgm_bench.spec import Direction, Paper
from dgm_bench.store import one_per_seed
from dgm_bench.verdict import Pool, pool_variances

#: Which way is better, by ``paper/table`` and metric.
Directions = Mapping[tuple[str, str], Direction]


def declared_directions(papers: Iterable[Paper]) -> Directions:
    """Return which way is better by the cells of all tables."""
    return {
        (table.name, cell.metric): cell.column.direction
        for paper in papers
        for table in paper.tables
        for cell in table.cells
    }


def compare(
    new: Sequence[RunRecord],
    baseline: Sequence[RunRecord],
    directions: Directions | None = None,
) -> Comparison:
    """Compare new records with stored ones, recipe by recipe and metric by metric.

    Within a column of a table, runs of one recipe are compared with runs of the same recipe,
    whichever row they are stored under, and shown under the baseline's. A cell whose recipe
    differs between the two sides is not comparable. Variances are moderated by those of the
    baseline's runs on the same data. ``directions`` are those of the tables' columns; of other
    metrics the records say which way is better.

    Runs that their budget cut short are compared with nothing: where a side has no others of a
    recipe, its numbers are unfinished, and all else is as if they were not there.
    """
    ours, theirs = _grouped(new, _column_of), _grouped(baseline, _column_of)
    context = _Context(pool_variances(baseline), directions or {})
    rows: list[ComparedRow] = []
    for column in dict.fromkeys((*theirs, *ours)):
        mine, others = ours.get(column, []), theirs.get(column, [])
        found = _compare_column(_ended(mine), _ended(others), context)
        rows += _with_unfinished(found, mine, others, context)
    return Comparison(tuple(rows))


def _ended(records: Iterable[RunRecord]) -> list[RunRecord]:
    return [record for record in records if not record.outcome.cut_short]


@dataclass(frozen=True)
class _Context:
    """What is known besides the runs of a cell: spreads, and which way is better."""

    pool: Pool
    directions: Directions


def _with_unfinished(
    rows: Sequence[ComparedRow],
    new: Sequence[RunRecord],
    baseline: Sequence[RunRecord],
    context: _Context,
) -> Iterator[ComparedRow]:
    """Yield a column's rows, and those of recipes that a side has not finished.

    They take the place of rows of which one side only has a value, and of no others.
    """
    ours, theirs = by_recipe(new), by_recipe(baseline)
    recipes = dict.fromkeys((*theirs, *ours))
    pairs = ((ours.get(recipe, []), theirs.get(recipe, [])) for recipe in recipes)
    unfinished = {
        (row.cell, row.metric): row
        for sides in pairs
        if any(map(cut_short, sides))
        for row in _compare_recipe(*sides, context)
    }
    for row in rows:
        instead = unfinished.pop((row.cell, row.metric), row)
        yield instead if row.state in ("only-new", "only-baseline") else row
    yield from unfinished.values()


def _compare_column(
    new: Sequence[RunRecord], baseline: Sequence[RunRecord], context: _Context
) -> list[ComparedRow]:
    ours, theirs = by_recipe(new), by_recipe(baseline)
    common = [recipe for recipe in theirs if recipe in ours]
    rows = []
    for recipe in common:
        rows += _compare_recipe(ours[recipe], theirs[recipe], context)
    our_cells, their_cells = _grouped(new, _cell_of), _grouped(baseline, _cell_of)
    for cell in dict.fromkeys((*their_cells, *our_cells)):
        rows += _unmatched(cell, our_cells.get(cell, []), their_cells.get(cell, []), common)
    return rows


def _compare_recipe(
    new: list[RunRecord], baseline: list[RunRecord], context: _Context
) -> list[ComparedRow]:
    sides = [runs for runs in (baseline, new) if runs]
    shown = next((runs for runs in sides if not cut_short(runs)), sides[0])[-1]
    cell, table = _cell_of(shown), f"{shown.paper}/{shown.table}"
    return [
        Pair(cell, name, new, baseline, context.directions.get((table, name))).judged(context.pool)
        for name in _metric_names([*baseline, *new])
    ]


def _unmatched(
    cell: str,
    new: Sequence[RunRecord],
    baseline: Sequence[RunRecord],
    common: Collection[str],
) -> list[ComparedRow]:
    """Return the rows of a cell's runs whose recipe the other side of the column lacks.

    Where the two sides of the cell share no recipe they are not comparable, even if the recipe of
    one of them was compared in another row.
    """
    left, right = _without(new, common), _without(baseline, common)
    if not (left or right):
        return []
    if not {run.recipe_hash for run in new} & {run.recipe_hash for run in baseline}:
        left, right = left or _without(new, ()), right or _without(baseline, ())
    pairs = [Pair(cell, name, left, right) for name in _metric_names([*right, *left])]
    both = left and right
    return [pair.obstructed(["another recipe"]) if both else pair.alone() for pair in pairs]


def _without(records: Iterable[RunRecord], recipes: Collection[str]) -> list[RunRecord]:
    groups = by_recipe(records).items()
    return [run for recipe, runs in groups if recipe not in recipes for run in runs]


def by_recipe(records: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    """Return the runs of each recipe that count, by its hash: one for each seed, newest last."""
    groups = _grouped(records, lambda record: record.recipe_hash)
    return {recipe: one_per_seed(runs) for recipe, runs in groups.items()}


def _grouped(
    records: Iterable[RunRecord], key: Callable[[RunRecord], str]
) -> dict[str, list[RunRecord]]:
    found: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        found[key(record)].append(record)
    return found


def _column_of(record: RunRecord) -> str:
    return f"{record.paper}/{record.table}/{record.column}"


def _cell_of(record: RunRecord) -> str:
    return f"{record.paper}/{record.table}/{record.row}/{record.column}"


def _metric_names(records: Iterable[RunRecord]) -> list[str]:
    return list(dict.fromkeys(metric.name for run in records for metric in run.metrics))
