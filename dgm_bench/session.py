"""Does runs in this process: data, model, training, evaluation, record.

:mod:`dgm_bench.workdir` keeps how far each run is, so that nothing finished is done again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch

from dgm_bench import data as datasets
from dgm_bench import provenance
from dgm_bench.context import RunContext
from dgm_bench.control import OUT_OF_BUDGET, Interrupted, beside
from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import DamagedError, DataError, DataUnavailable, HeldError
from dgm_bench.events import stopped_line
from dgm_bench.execution import Execution, require_runnable
from dgm_bench.joint_execution import train_together
from dgm_bench.paths import PACKAGE
from dgm_bench.planner import PlannedRun
from dgm_bench.records import RunRecord, read_record
from dgm_bench.spec import DataSpec, Recipe
from dgm_bench.summary import RunSummary
from dgm_bench.team import Team
from dgm_bench.tracking.beside import LoggingBeside
from dgm_bench.workdir import WorkFolder


def _trained(executions: Sequence[Execution]) -> Sequence[Callable[[], RunRecord]]:
    """Return what does each run, or what is left of it once they are trained together."""
    if len(executions) > 1 and not executions[0].split.divides:
        return train_together(executions)
    return [execution.run for execution in executions]


@dataclass
class DataSource:
    """Loads data sets and keeps the last one, as neighbouring runs mostly share it."""

    context: RunContext
    _key: tuple[DataSpec, int] | None = None
    _data: Dataset | None = None

    def load(self, spec: DataSpec, seed: int) -> Dataset:
        """Return a data set.

        Raises:
            DataError: Its files are missing or broken.
            Interrupted: It is time to stop.
        """
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
class Session:
    """What the runs of one process share.

    Attributes:
        context: Folders, device, limits and the reporter.
        device: Where to compute.
        source: Loads the data.
        logger: Logs runs, and what they tell; None where another process does.
        summary: What became of the runs so far.
        team: The processes that each run is computed by.
    """

    context: RunContext
    device: torch.device
    source: DataSource
    logger: LoggingBeside | None = None
    summary: RunSummary = field(default_factory=RunSummary)
    team: Team = field(default_factory=Team)

    def run(self, group: Sequence[PlannedRun], limit: float | None) -> Sequence[PlannedRun]:
        """Do runs of one recipe; return those left to do when the command has to leave.

        Args:
            group: One run, or seeds that are trained together.
            limit: Seconds that each of them may take, or None.
        """
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
                self.context.reporter.run_stopped(stop.reason)
            except DataError as error:
                while left:
                    self._data_failed(left.pop(0), error)
        return left

    def _ready(
        self, run: PlannedRun, limit: float | None, locks: ExitStack, left: list[PlannedRun]
    ) -> Execution | None:
        """Return what does a run, its folder locked; None where it is done or cannot be done."""
        recipe = run.chosen_recipe
        folder = WorkFolder(self.context.results, recipe.content_hash, run.seed)
        try:
            locks.enter_context(folder.locked())
            self._check_ahead(recipe)
            data = self.source.load(recipe.stages[0].data, run.seed)
        except HeldError as error:
            self.summary.skip(run.cell.id, f"{error.reason}; {error.remedy}", self.context)
            left.remove(run)
            return None
        except DataError as error:
            self._data_failed(run, error)
            left.remove(run)
            return None
        finished = self._finished_before(folder, data)
        if finished is None:
            return Execution(run, data, folder, self.context, limit, self.team)
        self.context.reporter.run_kept(finished)
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
            what = f"{run.cell.id} seed {run.seed}: evaluation"
            self.context.reporter.message(stopped_line(stop.reason, what))
            self.summary.unfinished.append(run.cell.id)

    def _check_ahead(self, recipe: Recipe) -> None:
        """Refuse what can be refused before hours of decoding."""
        known = datasets.card(recipe.stages[0].data.name)
        if known.layout:
            from dgm_bench.data.image_folder import expected

            require_runnable(recipe, expected(known), self.context.data_root)

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
        self.summary.take(record, self.context, self.logger)

    def _data_failed(self, run: PlannedRun, error: DataError) -> None:
        if isinstance(error, DataUnavailable):
            self.summary.unavailable = True
        else:
            self.summary.broken = self.summary.broken or error
        at_the_end = str(error) == str(self.summary.broken)
        reason = f"{error.thing} cannot be used" if at_the_end else str(error)
        self.summary.skip(run.cell.id, reason, self.context)
