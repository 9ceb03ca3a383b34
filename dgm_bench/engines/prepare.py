"""Brings data to where jobs find it, once and ahead of all of them."""

from __future__ import annotations

from contextlib import suppress

from dgm_bench import data
from dgm_bench.context import RunContext
from dgm_bench.control import Interrupted, beside
from dgm_bench.errors import DataError
from dgm_bench.planner import Plan
from dgm_bench.spec import DataSpec


def prepare(plan: Plan, context: RunContext) -> None:
    """Fetch data that is missing, and decode images that were not: jobs would each do it.

    What cannot be got is told, and once more by the runs that need it. Where it is time to stop,
    the rest is left.

    Args:
        plan: Whose runs need it.
        context: The data root, and whether to fetch.
    """
    specs = [stage.data for run in plan.chosen for stage in run.chosen_recipe.stages]
    wanted = {(spec.name, repr(spec.args)): spec for spec in specs}.values()
    with suppress(Interrupted):
        for spec in wanted:
            if _is_work(spec, context):
                _prepare(spec, context)


def _is_work(spec: DataSpec, context: RunContext) -> bool:
    """Say whether loading a data set leaves something for the next one who does."""
    known = data.card(spec.name)
    return bool(known.layout) or data.state(spec.name, context.data_root).status == "missing"


def _prepare(spec: DataSpec, context: RunContext) -> None:
    root, offline = context.data_root, context.offline
    try:
        if data.card(spec.name).layout:
            beside(lambda: data.load(spec.name, root, args=spec.args, offline=offline))
        elif not offline:
            context.reporter.message(f"fetching {spec.name} to {root}, for all jobs")
            beside(lambda: data.fetch(spec.name, root, progress=False))
    except DataError as error:
        context.reporter.message(f"{spec.name}: {error.reason}")
