"""Runs a plan: data, model, training, evaluation, record; one run after the other.

The same command continues where it stopped and repeats nothing that is finished:
:mod:`dgm_bench.workdir` keeps how far each run is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import torch

from dgm_bench import data as datasets
from dgm_bench import provenance, tracking
from dgm_bench.allocator import keep_freed_memory
from dgm_bench.context import RunContext
from dgm_bench.control import OUT_OF_BUDGET, TIME_LIMIT, Interrupted, beside
from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import DamagedError, DataError, DataUnavailable
from dgm_bench.execution import Execution, require_runnable, resolve_device
from dgm_bench.joint_execution import train_together
from dgm_bench.kept import ask_in_modules
from dgm_bench.metrics.evaluate import require_known
from dgm_bench.paths import PACKAGE
from dgm_bench.planner import Plan, PlannedRun, share_of
from dgm_bench.records import FAILED, RunRecord, read_record
from dgm_bench.spec import DataSpec, Recipe
from dgm_bench.store import ensure_writable
from dgm_bench.together import why_apart
from dgm_bench.workdir import WorkFolder

#: A run that would get less than this share of its expected time is not started.
LEAST_SHARE = 0.2


@dataclass
class RunSummary:
    """What became of a plan.

    Attributes:
        finished: Records of runs that ended by their stopping rule or their budget.
        failed: Records of runs that broke.
        skipped: Cells that did not run, and why.
        unfinished: Cells that a time limit or the budget left in the middle, or ahead.
        unavailable: Whether data of a planned run could not be fetched.
        interrupted: Whether somebody stopped the command.
    """

    finished: list[RunRecord] = field(default_factory=list)
    failed: list[RunRecord] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    unavailable: bool = False
    interrupted: bool = False


def run_plan(plan: Plan, context: RunContext) -> RunSummary:
    """Do every run that the plan chose, and leave a record for each.

    Args:
        plan: Which runs, in order, and the budget they share.
        context: What they share besides.

    Raises:
        DeclarationError: When a run is to measure what is no metric.
        UsageError: When the device is not there.
        ResultsError: When the results folder cannot be written or a run is under way elsewhere.
        DataError: At the end, when a run's data is broken; runs after it are still done.
    """
    for run in plan.chosen:
        require_known(run.chosen_recipe.evaluation)
    ensure_writable(context.results)
    if context.threads is not None:
        torch.set_num_threads(context.threads)
    keep_freed_memory()
    context.reporter.plan(plan)
    with (
        context.control.catching_signals(),
        context.control.active(ask_in_modules),
        closing(tracking.RunLogger(context.results, context.control)) as logger,
    ):
        if context.track and plan.chosen:
            logger.begin()
        device, source = resolve_device(context.device), _DataSource(context)
        session = _Session(context, device, source, logger)
        for run in plan.left_out:
            session.skip(run, run.reason)
        session.run_all(plan.chosen, plan.budget_seconds)
    if session.broken_data is not None:
        raise session.broken_data
    return session.summary


def _of_one_recipe(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Return the first run and those that are trained together with it."""
    first, *others = runs
    if why_apart(first.chosen_recipe):
        return [first]
    wanted = first.chosen_recipe.content_hash
    return [first, *(run for run in others if run.chosen_recipe.content_hash == wanted)]


def _limit_of_each(
    group: Sequence[PlannedRun], later: Sequence[PlannedRun], remaining: float
) -> float | None:
    """Return the seconds that each run of a group may take; their sum is the group's."""
    taken = sum(run.seconds or 0.0 for run in group) or None
    limit = share_of(remaining, taken, sum(run.seconds or 0.0 for run in later))
    return None if limit is None else limit / len(group)


def _trained(executions: Sequence[Execution]) -> Sequence[Callable[[], RunRecord]]:
    """Return what does each run, or what is left of it once they are trained together."""
    if len(executions) > 1:
        return train_together(executions)
    return [execution.run for execution in executions]


@dataclass
class _DataSource:
    """Loads data sets and keeps the last one, as neighbouring runs mostly share it."""

    context: RunContext
    _key: tuple[DataSpec, int] | None = None
    _data: Dataset | None = None

    def load(self, spec: DataSpec, seed: int) -> Dataset:
        key = (spec, seed if datasets.card(spec.name).seeded else 0)
        if self._data is None or key != self._key:
            self._data = None  # free the old one before the new one is built
            root, offline = self.context.data_root, self.context.offline
            self._data = beside(
                lambda: datasets.load(spec.name, root, args=spec.args, seed=seed, offline=offline)
            )
            self._key = key
            if not self._data.verified:
                doubt = f"{spec.name} is not verified as the published files"
                remedy = f"dgm-bench data verify {spec.name} compares them"
                self.context.reporter.message(f"{doubt}; {remedy}")
        return self._data


@dataclass
class _Session:
    """What the runs of one command share."""

    context: RunContext
    device: torch.device
    source: _DataSource
    logger: tracking.RunLogger
    summary: RunSummary = field(default_factory=RunSummary)
    broken_data: DataError | None = None

    def run_all(self, runs: Sequence[PlannedRun], budget_seconds: float | None) -> None:
        started, left = time.monotonic(), list(runs)
        while left:
            group = _of_one_recipe(left)
            later = [run for run in left if run not in group]
            limit = None
            if budget_seconds is not None:
                remaining = max(0.0, budget_seconds - (time.monotonic() - started))
                limit = _limit_of_each(group, later, remaining)
                if limit is not None and limit < LEAST_SHARE * (group[0].seconds or 0.0):
                    for run in group:
                        self.skip(run, f"the budget was used up before it: {run.command}")
                    left = later
                    continue
            undone = self._run(group, limit)
            if undone:
                self._leave([*undone, *later])
                return
            left = later
        self._leave(())

    def _leave(self, left: Sequence[PlannedRun]) -> None:
        """Note who stopped the command, a person or the time that it had."""
        reason = self.context.control.stop_reason()
        self.summary.interrupted = reason not in (None, TIME_LIMIT)
        if not self.summary.interrupted:
            self.summary.unfinished += [run.cell.id for run in left]
            self._tell_unfinished()

    def _tell_unfinished(self) -> None:
        short = sum(record.outcome.cut_short for record in self.summary.finished)
        if n := len(self.summary.unfinished) + short:
            what = "1 run is" if n == 1 else f"{n} runs are"
            self.context.reporter.message(f"{what} not finished; the same command goes on")

    def _run(self, group: Sequence[PlannedRun], limit: float | None) -> Sequence[PlannedRun]:
        """Do runs of one recipe; return those left to do when the command has to leave."""
        left = list(group)
        if self.context.control.stop_reason() is not None:
            return left
        with ExitStack() as locks:
            try:
                executions = [e for run in group if (e := self._ready(run, limit, locks, left))]
                for execution, finish in zip(executions, _trained(executions), strict=True):
                    self._finish(execution.run_, finish)
                    left.remove(execution.run_)
            except Interrupted as stop:
                self._tell_stopped(stop.reason)
            except DataError as error:
                while left:
                    self._data_failed(left.pop(0), error)
        return left

    def _ready(
        self, run: PlannedRun, limit: float | None, locks: ExitStack, left: list[PlannedRun]
    ) -> Execution | None:
        """Return what does a run, its folder locked; None where it is done, or has no data."""
        recipe = run.chosen_recipe
        folder = WorkFolder(self.context.results, recipe.content_hash, run.seed)
        locks.enter_context(folder.locked())
        try:
            self._check_ahead(recipe)
            data = self.source.load(recipe.stages[0].data, run.seed)
        except DataError as error:
            self._data_failed(run, error)
            left.remove(run)
            return None
        finished = self._finished_before(folder, data)
        if finished is None:
            return Execution(run, data, folder, self.context, limit)
        path = finished.path(self.context.results)
        self.context.reporter.message(f"{run.cell.id} seed {run.seed} is finished: {path}")
        self.summary.finished.append(finished)
        left.remove(run)
        return None

    def _finish(self, run: PlannedRun, finish: Callable[[], RunRecord]) -> None:
        """Evaluate and record a run; without data, or when its budget is over, go on with others.

        Raises:
            Interrupted: It is time to stop for all.
        """
        try:
            self._took(finish())
        except DataError as error:
            self._data_failed(run, error)
        except Interrupted as stop:
            if stop.reason != OUT_OF_BUDGET:
                raise
            self._tell_stopped(stop.reason, f"{run.cell.id} seed {run.seed}: evaluation ")
            self.summary.unfinished.append(run.cell.id)

    def _check_ahead(self, recipe: Recipe) -> None:
        """Refuse what can be refused before hours of decoding."""
        known = datasets.card(recipe.stages[0].data.name)
        if known.layout:
            from dgm_bench.data.image_folder import expected

            require_runnable(recipe, expected(known), self.context.data_root)

    def _tell_stopped(self, reason: str, what: str = "") -> None:
        self.context.reporter.message(
            f"{what}stopped ({reason}); the same command goes on from here"
        )

    def _finished_before(self, folder: WorkFolder, data: Dataset) -> RunRecord | None:
        """Return the record of this very run: finished by this code, on this data and device."""
        state = folder.state()
        if state is None or state.status != "complete" or state.record is None:
            return None
        path = self.context.results / state.record
        if state.source_hash != provenance.source_hash(PACKAGE) or not path.exists():
            return None
        try:
            record = read_record(path)
        except DamagedError as error:
            self.context.reporter.message(f"{path}: {error.reason}; the run is done again")
            return None
        same = record.data.fingerprints == data.fingerprints() and record.run_id == state.run_id
        return record if same and record.environment.device == self.device.type else None

    def _took(self, record: RunRecord) -> None:
        failed = record.outcome.status in FAILED
        (self.summary.failed if failed else self.summary.finished).append(record)
        self.context.reporter.run_finished(record)
        if self.context.track:
            trouble = self.logger.log(record)
            if trouble is not None:
                self.context.reporter.message(trouble)

    def _data_failed(self, run: PlannedRun, error: DataError) -> None:
        if isinstance(error, DataUnavailable):
            self.summary.unavailable = True
        else:
            self.broken_data = self.broken_data or error
        at_the_end = str(error) == str(self.broken_data)
        self.skip(run, f"{error.thing} cannot be used" if at_the_end else str(error))

    def skip(self, run: PlannedRun, reason: str) -> None:
        self.summary.skipped.append((run.cell.id, reason))
        self.context.reporter.run_skipped(run.cell.id, reason)
