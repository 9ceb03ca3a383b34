"""Which records measure what a cell prints, and why others do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dgm_bench.records import Data, Metric, RunRecord
from dgm_bench.spec import YES_NO, Cell, Recipe
from dgm_bench.store import Store


def value_of(cell: Cell, record: RunRecord) -> Metric | None:
    """Return the metric of a run that a cell shows; None if the run broke or has no value."""
    metric = record.metric(cell.metric)
    return None if record.outcome.failed or metric is None or metric.value is None else metric


def comparable_runs(cell: Cell, records: Sequence[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    """Return the records that measure what the cell prints, and why others do not.

    Args:
        cell: The cell, with its recipe.
        records: Records with a value, newest last.
    """
    obstacles: dict[str, None] = {}
    differences, passed = _differences(cell, records), []
    for record in records:
        found = _obstacles(cell, record, differences)
        obstacles.update(dict.fromkeys(found))
        if not found:
            passed.append(record)
    agreeing = [record for record in passed if _same_data(cell, record, passed[-1])]
    if len(agreeing) < len(passed):
        left = f"{len(passed) - len(agreeing)} of {len(passed)} runs"
        obstacles[f"{left}, on other data or by another protocol than the newest"] = None
    return agreeing, list(obstacles)


def counting_runs(cell: Cell, store: Store) -> list[RunRecord]:
    """Return the complete runs of a store that measure what a cell prints, one for each seed."""
    valued = [run for run in store.measuring(cell) if value_of(cell, run) is not None]
    return comparable_runs(cell, valued)[0]


def _obstacles(cell: Cell, record: RunRecord, differences: Mapping[str, str]) -> list[str]:
    metric, found = value_of(cell, record), []
    split = cell.column.split or (cell.recipe and cell.recipe.evaluation.split)
    if record.modified:
        found.append(f"recipe modified ({', '.join(record.modified)})")
    if record.recipe_hash in differences:
        found.append(differences[record.recipe_hash])
    if metric and metric.unit != cell.column.unit:
        found.append(f"measured in {metric.unit}, printed in {cell.column.unit}")
    if metric and split and metric.split != split:
        found.append(f"measured on {metric.split}, not {split}")
    if cell.published and not record.data.verified:
        found.append(f"{record.data.name} is not verified as the published data")
    return found


def _differences(cell: Cell, records: Sequence[RunRecord]) -> dict[str, str]:
    """Return how recipes of runs differ from the cell's, by their hashes; none for the cell's."""
    if cell.recipe is None:
        return {}
    declared, own = cell.recipe, cell.recipe.content_hash
    recipes = {record.recipe_hash: record.recipe for record in records}
    return {known: _difference(declared, run) for known, run in recipes.items() if known != own}


def _difference(declared: Recipe, run: Recipe) -> str:
    if not declared.differs_by_revisions(run):
        return "another recipe"
    numbers = [", ".join(map(str, recipe.revisions)) for recipe in (run, declared)]
    return f"an older recipe (revision {numbers[0]} of its models; now {numbers[1]})"


def _same_data(cell: Cell, record: RunRecord, newest: RunRecord) -> bool:
    ours, theirs = value_of(cell, record), value_of(cell, newest)
    if ours is None or theirs is None:
        return False
    # The protocol of a property holds what its experiment gave, which differs between seeds.
    if ours.method != theirs.method and cell.column.unit != YES_NO:
        return False
    known = record.data.fingerprints.keys() & newest.data.fingerprints.keys()
    return share_data([record, newest], ours.split, *known)


def share_data(runs: Sequence[RunRecord], *splits: str) -> bool:
    """Say whether runs saw the same data: the same arrays of the splits that are named.

    Splits that are drawn with the seed are the same for runs of one seed, and of one set of files
    for the others.

    Args:
        runs: One at least.
        splits: Names of splits.
    """
    of_seed: dict[int, RunRecord] = {}
    for run in runs:
        alike = [of_seed.setdefault(run.seed, run)]
        if not (run.data.seeded and runs[0].data.seeded):
            alike.append(runs[0])
        elif _source(run.data) != _source(runs[0].data):
            return False
        prints = [[seen.data.fingerprints.get(name) for name in splits] for seen in (run, *alike)]
        if any(other != prints[0] for other in prints):
            return False
    return True


def _source(data: Data) -> tuple[str, dict[str, str]]:
    return data.version, data.files
