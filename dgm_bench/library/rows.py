"""Records and published numbers, one row a number: what tables of either kind are made from."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from dgm_bench.catalog import Catalog
from dgm_bench.records import Metric, RunRecord
from dgm_bench.spec import Cell, Paper, Published
from dgm_bench.store import Store

Row = dict[str, Any]
_RESULT = """
    cell paper table row column shown metric value standard_error examples unit direction split
    protocol counts run seed origin status modified created data parameters precision steps epochs
    train_seconds validation_seconds evaluation_seconds peak_memory_bytes device threads version
    commit recipe_hash
"""
_PUBLISHED = """
    cell paper table row column model data metric value printed pm pm_kind pm_runs unit direction
    selection citation where note runnable
"""
#: Names of what a row of results has, in order.
RESULT_COLUMNS = tuple(_RESULT.split())
#: Likewise of a row of published numbers.
PUBLISHED_COLUMNS = tuple(_PUBLISHED.split())


def result_rows(catalog: Catalog, store: Store, *patterns: str) -> Iterator[Row]:
    """Yield a row for each metric of each record of the cells that match, oldest record first.

    Raises:
        UsageError: A pattern matches no cell.
    """
    cells = {cell.id: cell for cell in catalog.cells}
    wanted = {cell.id for cell in catalog.select(*(patterns or ("*",)))}
    recipes = {cell.recipe.content_hash: cell for cell in cells.values() if cell.recipe}
    counting = {r.run_id for cell in recipes.values() for r in store.measuring(cell)}
    for record in store.records():
        if wanted.isdisjoint(record.cells):
            continue
        ids = sorted(record.cells, key=lambda cell_id: cell_id not in wanted)
        of_record = [cells[cell_id] for cell_id in ids if cell_id in cells]
        about_run = _run_fields(record, store)
        for metric in record.metrics:
            yield {
                **_place_fields(record, metric, of_record, wanted),
                **_metric_fields(metric),
                "counts": record.run_id in counting,
                **about_run,
            }


def _place_fields(
    record: RunRecord, metric: Metric, cells: list[Cell], wanted: Collection[str]
) -> Row:
    """Return which cell a number is of: the first that shows it, else the first of the record's."""
    showing = [cell.id for cell in cells if cell.metric == metric.name]
    first = next((cell_id for cell_id in record.cells if cell_id in wanted), record.cells[0])
    paper, table, row, column = (showing or [first])[0].split("/")
    place = {"paper": paper, "table": table, "row": row, "column": column}
    return {"cell": "/".join(place.values()), **place, "shown": bool(showing)}


def _metric_fields(metric: Metric) -> Row:
    return {
        "metric": metric.name,
        "value": metric.value,
        "standard_error": metric.se,
        "examples": metric.n,
        "unit": metric.unit,
        "direction": metric.direction,
        "split": metric.split,
        "protocol": metric.protocol,
    }


def _run_fields(record: RunRecord, store: Store) -> Row:
    budget, environment = record.budget, record.environment
    stored = store.stored is not None and not store.is_own(record)
    return {
        "run": record.run_id,
        "seed": record.seed,
        "origin": "stored" if stored else "yours",
        "status": record.outcome.status,
        "modified": " ".join(record.modified),
        "created": record.created,
        "data": record.data.name,
        "parameters": record.scale.parameters,
        "precision": record.scale.precision,
        "steps": budget.steps,
        "epochs": budget.epochs,
        "train_seconds": budget.train_seconds,
        "validation_seconds": budget.validation_seconds,
        "evaluation_seconds": budget.evaluation_seconds,
        "peak_memory_bytes": budget.peak_memory_bytes,
        "device": environment.gpu or environment.cpu,
        "threads": environment.threads,
        "version": record.code.version,
        "commit": record.code.git_commit,
        "recipe_hash": record.recipe_hash,
    }


def published_rows(catalog: Catalog, *patterns: str) -> Iterator[Row]:
    """Yield a row for each published number of the cells that match, in declared order.

    Raises:
        UsageError: A pattern matches no cell.
    """
    papers = {paper.id: paper for paper in catalog.papers}
    for cell in catalog.select(*(patterns or ("*",))):
        if cell.published is not None:
            yield _published_row(cell, cell.published, papers[cell.paper])


def _published_row(cell: Cell, published: Published, paper: Paper) -> Row:
    source = next((known for known in paper.sources if known.id == published.source), None)
    return {
        "cell": cell.id,
        "paper": cell.paper,
        "table": cell.table,
        "row": cell.row.id,
        "column": cell.column.id,
        "model": published.model or cell.row.title,
        "data": cell.column.data,
        "metric": cell.metric,
        "value": float(published.value),
        "printed": str(published.value),
        "pm": None if published.pm is None else float(published.pm),
        "pm_kind": published.pm_kind,
        "pm_runs": published.pm_n,
        "unit": cell.column.unit,
        "direction": cell.column.direction,
        "selection": published.selection,
        "citation": source.citation if source else published.source,
        "where": source.where if source else "",
        "note": published.note,
        "runnable": cell.recipe is not None,
    }
