"""Verdicts and plans for the verbs that print them, and their JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from typing import Any

from dgm_bench import data, planner
from dgm_bench.catalog import Catalog, runnable
from dgm_bench.context import RunContext
from dgm_bench.report.fields import identity_fields
from dgm_bench.spec import Cell, Published
from dgm_bench.store import Store
from dgm_bench.verdict import Verdict, judge_table, pool_variances
from dgm_bench.verdict.comparability import counting_runs


def verdicts_of(catalog: Catalog, cells: Sequence[Cell], store: Store) -> dict[str, Verdict]:
    """Return the verdict of each cell, judged beside its neighbours in its table."""
    pool, wanted = pool_variances(store.records()), {cell.id for cell in cells}
    tables = dict.fromkeys(f"{cell.paper}/{cell.table}" for cell in cells)
    judged: dict[str, Verdict] = {}
    for name in tables:
        judged |= judge_table(catalog.table(name), store, pool)
    return {cell_id: verdict for cell_id, verdict in judged.items() if cell_id in wanted}


def make_plan(
    cells: Sequence[Cell],
    context: RunContext,
    store: Store,
    *,
    budget: str = "auto",
    seeds: int = 1,
    missing: bool = False,
    jobs: int | None = 1,
    memory_bytes: int | None = None,
) -> planner.Plan:
    """Plan runs on this machine from the options of the command line.

    Args:
        cells: The cells that were asked for, with any ``--set`` changes in their recipes.
        context: What the runs would share.
        store: Its records, for what earlier runs took.
        budget: For all of them together, as :func:`planner.parse_budget` takes it.
        seeds: Runs of each recipe.
        missing: Leave out those of which the store has a complete record.
        jobs: Runs at once; None for as many as it is worth.
        memory_bytes: Of the machines that do them, where that is not this one.

    Raises:
        UsageError: The budget means nothing.
    """

    def machine(workers: int) -> planner.Machine:
        here = planner.Machine.here(context.device, context.threads, workers)
        return here if memory_bytes is None else replace(here, memory_bytes=memory_bytes)

    around = planner.PlanningContext(
        machine=machine(1),
        data_state=cache(lambda name: data.state(name, context.data_root)),
        runnable=runnable,
        records=store.records(),
        may_fetch=not context.offline,
        complete=complete_runs(cells, store) if missing else (),
    )
    seconds = planner.parse_budget(budget, around.machine.device)

    def make(workers: int) -> planner.Plan:
        there = replace(around, machine=machine(workers))
        return planner.plan(cells, there, budget=seconds, seeds=seeds)

    most = planner.most_workers(around.machine, context.threads)
    return planner.plan_for_workers(make, jobs, most)


def complete_runs(cells: Sequence[Cell], store: Store) -> set[tuple[str, int]]:
    """Return what need not be run, by recipe hash and seed: runs that count in all of its cells.

    Of recipes that ``--set`` changed no run counts in a cell: those that are complete.
    """
    found: dict[str, set[int]] = {}
    for cell in cells:
        if cell.recipe is None:
            continue
        recipe = cell.recipe.content_hash
        if cell.modified:
            whole = (record for record in store.records() if record.outcome.complete)
            counting = [record for record in whole if record.recipe_hash == recipe]
        else:
            counting = counting_runs(cell, store)
        seeds = {record.seed for record in counting}
        found[recipe] = found.get(recipe, seeds) & seeds
    return {(recipe, seed) for recipe, seeds in found.items() for seed in seeds}


# --------------------------------------------------------------------------- JSON


def cell_json(cell: Cell, verdict: Verdict) -> dict[str, Any]:
    """Return a cell as ``list --json`` prints it.

    Beside what is promised: ``own_seeds`` are those of the user's own runs among the measured, and
    ``unfinished`` and ``own_unfinished`` are how far runs got that their budget cut short.
    """
    return {
        **identity_fields(cell),
        "published": _published_json(cell.published) if cell.published else None,
        "runnable": runnable(cell)[0],
        "state": verdict.state,
        "measured": _measured_json(verdict),
        "own_seeds": list(verdict.own_seeds),
        "unfinished": verdict.unfinished and asdict(verdict.unfinished),
        "own_unfinished": verdict.own_unfinished and asdict(verdict.own_unfinished),
    }


def _published_json(published: Published) -> dict[str, Any]:
    return {
        "value": float(published.value),
        "pm": None if published.pm is None else float(published.pm),
        "pm_kind": published.pm_kind,
        "selection": published.selection,
        "source": published.source,
    }


def _measured_json(verdict: Verdict) -> dict[str, Any] | None:
    if verdict.mean is None:
        return None
    numbers = {"mean": verdict.mean, "se": verdict.se, "seeds": verdict.seeds}
    return {**numbers, "sd": verdict.sd, "se_test": verdict.se_test}


def plan_json(plan: planner.Plan) -> dict[str, Any]:
    """Return a plan as ``plan --json`` prints it: one entry for each cell and seed.

    A cell that is served by another cell's run takes no time of its own: the seconds of the
    entries that run add up to ``seconds``.
    """
    entries = [entry for run in plan.runs for entry in _entries(run)]
    return {
        "cells": entries,
        "seconds": plan.seconds,
        "workers": plan.machine.workers,
        "expected_end_seconds": plan.expected_end_seconds,
    }


def _entries(run: planner.PlannedRun) -> list[Mapping[str, Any]]:
    first = {
        "id": run.cells[0],
        "seed": run.seed,
        "data": run.data,
        "seconds": run.seconds,
        "memory_bytes": run.memory_bytes,
        "runs": run.runs,
        "reason": run.reason,
        "h200_seconds": run.h200_seconds,
    }
    shared = {"seconds": 0.0, "reason": f"same run as {run.cells[0]}"} if run.runs else {}
    return [first, *({**first, "id": also, **shared} for also in run.cells[1:])]
