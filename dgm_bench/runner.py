"""Runs a plan: in this process, one run after the other, or on an engine.

The same command continues where it stopped and repeats nothing that is finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import torch

from dgm_bench import tracking
from dgm_bench.allocator import keep_freed_memory
from dgm_bench.context import RunContext
from dgm_bench.engines import Engine
from dgm_bench.engines.head import run_on
from dgm_bench.engines.here import OwnBoard
from dgm_bench.engines.orphans import tidy, wait_for_workers
from dgm_bench.execution import resolve_device
from dgm_bench.kept import ask_in_modules
from dgm_bench.metrics.evaluate import require_known
from dgm_bench.planner import Plan, PlannedRun
from dgm_bench.session import DataSource, Session
from dgm_bench.store import ensure_writable
from dgm_bench.summary import RunSummary
from dgm_bench.team import gathered
from dgm_bench.tracking.beside import LoggingBeside, logging_beside
from dgm_bench.turns import Turns
from dgm_bench.workdir import require_scratch


def run_plan(plan: Plan, context: RunContext, engine: Engine | None = None) -> RunSummary:
    """Do every run that the plan chose, and leave a record for each.

    Args:
        plan: Which runs, in order, and the budget they share.
        context: What they share besides.
        engine: Where to do them; None for this process.

    Raises:
        DeclarationError: When a run is to measure what is no metric.
        UsageError: When the device is not there.
        ResultsError: When the results folder cannot be written.
        DataError: At the end, when a run's data is broken; runs after it are still done.
    """
    for run in plan.chosen:
        require_known(run.chosen_recipe.evaluation)
    ensure_writable(context.results)
    require_scratch()
    context.reporter.plan(plan)
    summary = RunSummary()
    with (
        context.control.catching_signals(),
        context.control.active(ask_in_modules),
        closing(_logger(context, engine)) as logger,
    ):
        if context.track and plan.chosen:
            logger.begin(plan.chosen)
        tidy(context.results)
        wait_for_workers(context)
        for run in plan.left_out:
            if not run.waits:  # what waits for time may still get some
                summary.skip(run.cell.id, run.reason, context)
        if engine is None:
            left = _run_here(plan, context, summary, logger)
        else:
            left = run_on(engine, plan, context, summary, logger)
    summary.leave(left, context)
    if summary.broken is not None:
        raise summary.broken
    return summary


def _logger(context: RunContext, engine: Engine | None) -> tracking.RunLogger:
    here = engine is None or engine.name == "local"
    return tracking.RunLogger(context.results, context.control, context.tracker, machine=here)


def _run_here(
    plan: Plan, context: RunContext, summary: RunSummary, logger: tracking.RunLogger
) -> Sequence[PlannedRun]:
    """Do the runs in this process; return those that are left when it has to leave."""
    if context.threads is not None:
        torch.set_num_threads(context.threads)
    keep_freed_memory()
    device = resolve_device(context.device)
    with logging_beside(logger, context) as logging:
        context = context if logging is None else replace(context, live=logging.live)
        return _take_turns(OwnBoard(plan, context), plan, context, device, summary, logging)


def _take_turns(
    board: OwnBoard,
    plan: Plan,
    context: RunContext,
    device: torch.device,
    summary: RunSummary,
    logging: LoggingBeside | None,
) -> Sequence[PlannedRun]:
    turns = Turns(
        plan,
        lambda run, reason: summary.left_out.append((run.cell.id, reason)),
        tell=context.reporter.planned_again,
    )
    with gathered(context, device) as team, board.shown(), closing(turns):
        session = Session(board.context, device, DataSource(board.context), logging, summary, team)
        while (turn := turns.next()) is not None:
            undone = turn[0] if board.withdrawn(turn[0]) else board.done(session, *turn)
            turns.over(turn[0], done=summary.new)
            if board.withdrawn(turn[0]):
                summary.cancelled += [run.cell.id for run in undone]
            elif undone:
                return [*undone, *turns.left()]
    return ()
