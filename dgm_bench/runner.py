"""Runs a plan: data, model, training, evaluation, record; one run after the other.

The same command continues where it stopped and repeats nothing that is finished:
:mod:`dgm_bench.workdir` keeps how far each run is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
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
from dgm_bench.kept import ask_in_modules
from dgm_bench.metrics.evaluate import require_known
from dgm_bench.paths import PACKAGE
from dgm_bench.planner import Plan, PlannedRun, share_of
from dgm_bench.records import FAILED, RunRecord, read_record
from dgm_bench.spec import DataSpec, Recipe
from dgm_bench.store import ensure_writable
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
        device, source = resolve_device(context.device), _DataSource(context)
        session = _Session(context, device, source, logger)
        for run in plan.left_out:
            session.skip(run, run.reason)
        session.run_all(plan.chosen, plan.budget_seconds)
    if session.broken_data is not None:
        raise session.broken_data
    return session.summary


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
        started = time.monotonic()
        for index, run in enumerate(runs):
            limit = None
            if budget_seconds is not None:
                remaining = max(0.0, budget_seconds - (time.monotonic() - started))
                later = sum(other.seconds or 0.0 for other in runs[index + 1 :])
                limit = share_of(remaining, run.seconds, later)
                if limit is not None and limit < LEAST_SHARE * (run.seconds or 0.0):
                    self.skip(run, f"the budget was used up before it: {run.command}")
                    continue
            if not self._run(run, limit):
                self._leave(runs[index:])
                return
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

    def _run(self, run: PlannedRun, limit: float | None) -> bool:
        """Do one run; return False when the command has to leave."""
        if self.context.control.stop_reason() is not None:
            return False
        recipe = run.chosen_recipe
        folder = WorkFolder(self.context.results, recipe.content_hash, run.seed)
        with folder.locked():
            try:
                self._check_ahead(recipe)
                data = self.source.load(recipe.stages[0].data, run.seed)
                finished = self._finished_before(folder, data)
                if finished is not None:
                    path = finished.path(self.context.results)
                    self.context.reporter.message(
                        f"{run.cell.id} seed {run.seed} is finished: {path}"
                    )
                    self.summary.finished.append(finished)
                    return True
                record = Execution(run, data, folder, self.context, limit).run()
            except Interrupted as stop:
                return self._stopped(run, stop.reason)
            except DataError as error:
                self._data_failed(run, error)
                return True
        self._took(record)
        return True

    def _check_ahead(self, recipe: Recipe) -> None:
        """Refuse what can be refused before hours of decoding."""
        known = datasets.card(recipe.stages[0].data.name)
        if known.layout:
            from dgm_bench.data.image_folder import expected

            require_runnable(recipe, expected(known), self.context.data_root)

    def _stopped(self, run: PlannedRun, reason: str) -> bool:
        """Say that a run stopped in the middle; return whether others may go on."""
        within_budget = reason != OUT_OF_BUDGET
        where = "" if within_budget else f"{run.cell.id} seed {run.seed}: evaluation "
        self.context.reporter.message(
            f"{where}stopped ({reason}); the same command goes on from here"
        )
        if not within_budget:
            self.summary.unfinished.append(run.cell.id)
        return not within_budget

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
