"""Plans and runs, as the command line makes them, with Python's own types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from dgm_bench.catalog import load_catalog
from dgm_bench.cli.queries import make_plan
from dgm_bench.context import RunContext
from dgm_bench.errors import UsageError
from dgm_bench.library.folders import Folder, data_folder, own_folder, stored_folder
from dgm_bench.overrides import change_cells
from dgm_bench.planner import Plan
from dgm_bench.store import Store

if TYPE_CHECKING:
    from dgm_bench.summary import RunSummary

#: For all runs together: seconds, or as ``--budget`` takes it; None for no limit.
Budget = float | str | None


def plan(
    *patterns: str,
    seeds: int = 1,
    missing: bool = False,
    budget: Budget = "auto",
    device: str = "auto",
    jobs: int | None = 1,
    settings: Mapping[str, object] | None = None,
    results: Folder = None,
    stored: Folder = None,
    data_root: Folder = None,
) -> Plan:
    """Return what :func:`run` would do: which runs, in which order, how long each takes, why not.

    Args:
        patterns: Of cells, as on the command line; none for all.
        seeds: Runs of each recipe, with seeds 0, 1, ...
        missing: Only seeds of which no complete run is here, yours or stored.
        budget: For all runs together: seconds, ``"2h"``, ``"auto"``, or None for no limit.
        device: ``cpu``, ``cuda``, or ``auto`` for a GPU where there is one.
        jobs: Runs at once; None for as many as it is worth.
        settings: Changes of the recipes, such as ``{"optimizer.lr": 1e-4}``.
        results: Your results folder or its address; None for ``$DGM_BENCH_RESULTS``, else
            ``dgm-results`` in the current folder.
        stored: Results that are read beside them; None for those that came with the suite,
            ``"none"`` for no others.
        data_root: Folder of the data sets; None for ``$DGM_BENCH_DATA``, else the user's cache.

    Raises:
        UsageError: A pattern matches no cell, or the budget means nothing.
        DeclarationError: A setting does not fit.

    Example:
        >>> planned = plan("ffjord/density/made/digits", budget=600, device="cpu")
        >>> [(one.cell.id, one.seed) for one in planned.chosen]
        [('ffjord/density/made/digits', 0)]
    """
    where = own_folder(results), stored_folder(stored)
    context = RunContext(data_folder(data_root), *where, device=device, offline=True)
    return _planned(patterns, context, seeds, missing, budget, jobs, settings)


def run(
    *patterns: str,
    seeds: int = 1,
    missing: bool = False,
    budget: Budget = "auto",
    device: str = "auto",
    threads: int | None = None,
    jobs: int | None = 1,
    settings: Mapping[str, object] | None = None,
    offline: bool = False,
    track: bool = True,
    progress: bool = False,
    results: Folder = None,
    stored: Folder = None,
    data_root: Folder = None,
) -> RunSummary:
    """Train, evaluate and record; go on with what was interrupted. Returns what became of it.

    ``finished`` of the result has the records, in the plan's order, and :func:`dgm_bench.load`
    gives the models. The other arguments are those of :func:`plan`.

    Args:
        patterns: Of cells, one at least.
        seeds: As for a plan.
        missing: As for a plan; the summary of none is empty.
        budget: As for a plan.
        device: As for a plan.
        threads: CPU threads of a run; None for torch's own choice.
        jobs: Runs at once; more than one are processes of their own.
        settings: As for a plan; records are then marked as modified, and verdicts leave them out.
        offline: Download nothing.
        track: Log to MLflow.
        progress: Show what the command shows.
        results: Where records go; as for a plan.
        stored: As for a plan.
        data_root: As for a plan.

    Raises:
        UsageError: As for a plan; or nothing can run.
        DgmBenchError: Something that the user can put right is in the way.
    """
    if not patterns:
        raise UsageError("run", "takes at least one pattern", 'use "*" for all cells')
    from dgm_bench.engines.choice import Choice, make_engine
    from dgm_bench.progress import make_reporter
    from dgm_bench.runner import run_plan

    choice = Choice(jobs=jobs)
    context = RunContext(
        data_folder(data_root),
        own_folder(results, read=False),
        stored_folder(stored),
        device=choice.device(device),
        threads=threads,
        offline=offline,
        track=track,
    )
    planned = _planned(patterns, context, seeds, missing, budget, jobs, settings)
    if planned.is_done:
        from dgm_bench.summary import RunSummary

        return RunSummary()
    if not progress:
        return _done(run_plan(planned, context, make_engine(choice, context, planned.machine)))
    with make_reporter() as reporter:
        shown = replace(context, reporter=reporter)
        return _done(run_plan(planned, shown, make_engine(choice, shown, planned.machine)))


def _planned(
    patterns: tuple[str, ...],
    context: RunContext,
    seeds: int,
    missing: bool,
    budget: Budget,
    jobs: int | None,
    settings: Mapping[str, object] | None,
) -> Plan:
    texts = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in (settings or {}).items()
    }
    cells = change_cells(load_catalog().select(*(patterns or ("*",))), texts)
    limit = "none" if budget is None else budget if isinstance(budget, str) else f"{budget}s"
    store = Store(context.results, context.stored)
    return make_plan(cells, context, store, budget=limit, seeds=seeds, missing=missing, jobs=jobs)


def _done(summary: RunSummary) -> RunSummary:
    """Return a summary of runs, unless there was none."""
    if (why := summary.why_nothing_ran) is not None:
        raise UsageError("nothing ran", why, "plan() says why of every cell")
    return summary
