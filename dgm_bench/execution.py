"""One run: a recipe with a seed, from a data set to a record."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save as to_safetensors
from torch import nn

from dgm_bench import provenance
from dgm_bench.context import RunContext
from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import (
    DamagedError,
    DeclarationError,
    RunFailure,
    UsageError,
)
from dgm_bench.events import CurveRows
from dgm_bench.kept import Journal, scope
from dgm_bench.keyed_tensors import weights_hash
from dgm_bench.metrics.evaluate import evaluate, prepare, require_fit
from dgm_bench.models.build import sketch
from dgm_bench.models.codes.two_stage import compose
from dgm_bench.pictures.pictures import make_pictures
from dgm_bench.planner import PlannedRun
from dgm_bench.quality import stages_quality
from dgm_bench.records import (
    WEIGHTS,
    Budget,
    Data,
    Metric,
    Outcome,
    RunRecord,
    read_record,
    write_record,
)
from dgm_bench.remote import mirrored_at
from dgm_bench.sealed import set_aside, write_atomically
from dgm_bench.spec import YES_NO, Recipe, Stage
from dgm_bench.staged_training import StagedTraining, checkpoint_seconds
from dgm_bench.store import parse_curve
from dgm_bench.team import ALONE, Team
from dgm_bench.train import objectives
from dgm_bench.train.apple import home_of, is_apple
from dgm_bench.train.first_step import beginning_of
from dgm_bench.train.latents import code_shape
from dgm_bench.train.loop import Trainer
from dgm_bench.train.memory import failures
from dgm_bench.train.players import require_classes, require_players
from dgm_bench.train.summary import budget_of, curve_csv, outcome_of, scale_of
from dgm_bench.workdir import RunState, WorkFolder

#: Kinds of files among a run's artifacts.
_ARTIFACTS = (".png", ".safetensors")
#: An evaluation may take this long, however little the training has left of the budget.
GRACE_SECONDS = 60.0


class Execution(StagedTraining):
    """Trains, evaluates and records one planned run.

    Args:
        run: The cell, the seed, and the recipe with any ``--set`` changes.
        data: The data set, on the host.
        folder: The run's work folder, locked by this process.
        context: What it shares with other runs of the command.
        limit_seconds: Training and validation may take this long, or None; what they leave of it,
            but at least :data:`GRACE_SECONDS`, is the evaluation's.
        team: The processes that it is trained by.

    Raises:
        UsageError: The device is not there.
        ValueError: The run has no recipe.
    """

    def __init__(
        self,
        run: PlannedRun,
        data: Dataset,
        folder: WorkFolder,
        context: RunContext,
        limit_seconds: float | None = None,
        team: Team = ALONE,
    ) -> None:
        device, recipe = resolve_device(context.device), run.chosen_recipe
        super().__init__(recipe, run.seed, data, device, context, folder, limit_seconds, team.split)
        self.run_, self.folder, self.team = run, folder, team
        self.code = provenance.code()
        self.evaluation_seconds = 0.0
        self._started = time.monotonic()

    def run(self) -> RunRecord:
        """Do the run, or what is left of it, and return its record.

        Raises:
            Interrupted: When it is time to stop, with what is done kept; for an evaluation that
                does not end within the budget too.
            DgmBenchError: When something the user can put right is in the way.
        """
        before = self.begin()
        return before if before is not None else self.conclude(self._train)

    def begin(self) -> RunRecord | None:
        """Make ready to train; return the record where there is one already."""
        self._started = time.monotonic()  # runs of a group that are not trained at once wait
        require_runnable(self.recipe, self.data, self.context.data_root)
        self._state = self.folder.begin(
            self.code.source_hash, self.run_.cell.id, self.run_.modified
        )
        before = self._recorded(self._state)
        if before is not None:
            self._close(self._state, before)
        provenance.reset_peak_memory(self.device.type)
        return before

    def conclude(self, train: Callable[[], tuple[Outcome, nn.Module]]) -> RunRecord:
        """Record a run that was begun; ``train`` returns how it ended, and the model that it left.

        Raises:
            Interrupted: As :meth:`run`.
        """
        state = self._state
        try:
            with failures():
                outcome, model = train()
        except RunFailure as failure:
            outcome = Outcome(status=failure.status, reason=failure.reason, hint=failure.hint)
            metrics, spent = list[Metric](), self._spent()
        else:
            outcome, metrics, spent = self._evaluated(state, outcome, model)
        curve = curve_csv(self.trainers)
        record = self._record(state, outcome, metrics, spent, curve)
        self._write(record, curve)
        self._close(state, record)
        return record

    # ---------------------------------------------------------------- training

    def _train(self) -> tuple[Outcome, nn.Module]:
        """Train every stage, each to its own stopping rule; return how they ended."""
        with self.team.training(self.recipe, self.seed):
            ends = self.train_stages()
        return self._trained(ends)

    def open_stage(self, index: int, limit: float | None) -> Trainer:
        """Return the trainer of a stage; one that was evaluated already takes no further step."""
        trainer = super().open_stage(index, 0.0 if self._state.evaluating else limit)
        trainer.tell = lambda row: self._tell(trainer.stage, [row])
        self._tell(trainer.stage, trainer.tally.curve, self._data())
        return trainer

    def _tell(
        self,
        stage: Stage,
        rows: Sequence[Sequence[float | None]],
        data: Data | None = None,
    ) -> None:
        """Tell the numbers of a stage under way; of one that begins, what it is trained on too."""
        self.context.live(
            CurveRows(
                run_id=self._state.run_id,
                recipe_hash=self.recipe.content_hash,
                seed=self.run_.seed,
                time=int(1000 * time.time()),
                stage=stage.name if len(self.recipe.stages) > 1 else "",
                rows=tuple(map(tuple, rows)),
                data=data,
            )
        )

    def trained_elsewhere(self, ended: str, seconds: float) -> tuple[Outcome, nn.Module]:
        """Return outcome and model of a run whose only stage somebody else has trained to its end.

        Args:
            ended: The rule by which it ended.
            seconds: What that took of the run's limit; the evaluation has the rest.
        """
        self._started = time.monotonic() - seconds
        self._choose_weights(self.trainers[0])
        return self._trained([ended])

    def _trained(self, ends: Sequence[str]) -> tuple[Outcome, nn.Module]:
        models = [trainer.model.to(home_of(self.device)) for trainer in self.trainers]
        return outcome_of(ends, self.trainers), compose(self.recipe.stages, models)

    def _announce(self, trainer: Trainer, resumed_at_step: int | None) -> None:
        if trainer is not self.trainers[0]:
            where = f", goes on at step {resumed_at_step}" if resumed_at_step else ""
            self.context.reporter.message(f"{self._title()}: {trainer.stage.name}{where}")
            return
        self.context.reporter.run_started(
            self._title(), self._published(), self.limit_seconds, resumed_at_step
        )

    def speak_of(self, seeds: Sequence[int]) -> None:
        """Tell the reporter that what follows is about these seeds of the recipe."""
        self.context.reporter.about(self._title(seeds), self._published())

    def _published(self) -> str | None:
        cell = self.run_.cell
        published = cell.published if cell.column.unit != YES_NO else None
        return f"{published.value} {cell.column.unit}" if published is not None else None

    @property
    def _row(self) -> str:
        """The row that the recipe belongs to, whichever of its cells was asked for."""
        return self.run_.cell.same_as or self.run_.cell.row.id

    def _title(self, seeds: Sequence[int] = ()) -> str:
        cell = self.run_.cell
        numbers = ", ".join(map(str, seeds or [self.run_.seed]))
        return f"{cell.row.title} on {self.run_.place}, seed{'s' * (len(seeds) > 1)} {numbers}"

    # ---------------------------------------------------------------- evaluation

    def _evaluated(
        self, state: RunState, outcome: Outcome, model: nn.Module
    ) -> tuple[Outcome, list[Metric], Budget]:
        """Return how a run ended that was trained, with what it measured and what it spent.

        Where its evaluation fails the training is kept: the same command evaluates it again.
        """
        try:
            with self._evaluating(state, outcome, model) as journal:
                with failures():
                    metrics = self._evaluate(model, journal)
                spent = self._spent()
                self._keep_artifacts(state, model, metrics)
        except RunFailure as failure:
            state.evaluating = True
            reason = f"evaluation: {failure.reason}"
            if outcome.cut_short:
                outcome = outcome.model_copy(update={"reason": f"{outcome.reason}; {reason}"})
            else:
                outcome = Outcome(status=failure.status, reason=reason, hint=failure.hint)
            return outcome, [], self._spent()
        return outcome, metrics, spent

    @contextmanager
    def _evaluating(self, state: RunState, outcome: Outcome, model: nn.Module) -> Iterator[Journal]:
        """Keep what is done after the training, and end it when the run's budget does."""
        if outcome.cut_short and not state.evaluating:
            state.evaluating = True
            self.folder.save(state)
        ends = None
        if self.limit_seconds is not None:
            ends = max(self._started + self.limit_seconds, time.monotonic() + GRACE_SECONDS)
        journal = Journal(self.folder.stage("evaluation"), self._evaluation_identity(model), model)
        with self.context.control.until(ends), journal.active(), self.team.evaluating():
            yield journal

    def _evaluation_identity(self, model: nn.Module) -> str:
        """Return a hash of what decides the metrics."""
        recipe, seed, code = self.recipe.content_hash, self.run_.seed, self.code.source_hash
        of_data = sorted(self.fingerprints.values())
        parts = [recipe, seed, code, weights_hash(model), *of_data, self.device.type]
        return hashlib.sha256(f"{torch.__version__} {parts}".encode()).hexdigest()[:16]

    def _evaluate(self, model: nn.Module, journal: Journal) -> list[Metric]:
        data, spec = self._data_at_home, self.recipe.evaluation
        prepare(model, data, spec)
        metrics = evaluate(model, data, spec, self.run_.seed, self.context.data_root, journal)
        # What an interrupted process drew after it does not count.
        self.evaluation_seconds = float(journal.text("evaluated", lambda: repr(journal.seconds)))
        return metrics

    @property
    def _data_at_home(self) -> Dataset:
        data = self.trainers[0].data
        return data.to(home_of(self.device)) if is_apple(self.device) else data

    def _keep_artifacts(self, state: RunState, model: nn.Module, metrics: list[Metric]) -> None:
        """Keep the weights, without code, and pictures where there is something to see."""
        folder = self.folder.results / "artifacts" / state.run_id
        weights = {name: value.contiguous().cpu() for name, value in model.state_dict().items()}
        write_atomically(folder / WEIGHTS, to_safetensors(weights))
        noise = torch.Generator(home_of(self.device)).manual_seed(self.run_.seed)
        try:
            with failures(), scope("pictures"):
                data, root = self._data_at_home, self.context.data_root
                make_pictures(model, data, self._title(), folder, noise, metrics, root)
        except RunFailure as failure:
            self.context.reporter.message(f"no picture of {self._title()}: {failure.reason}")

    # ---------------------------------------------------------------- the record

    def _record(
        self,
        state: RunState,
        outcome: Outcome,
        metrics: list[Metric],
        spent: Budget,
        curve: bytes,
    ) -> RunRecord:
        cell = self.run_.cell
        record = RunRecord(
            run_id=state.run_id,
            created=state.created,
            paper=cell.paper,
            table=cell.table,
            row=self._row,
            column=cell.column.id,
            cells=tuple(self.run_.cells),
            recipe=self.recipe,
            recipe_hash=self.recipe.content_hash,
            seed=self.run_.seed,
            modified=self.run_.modified,
            supersedes=state.supersedes,
            code=self.code,
            data=self._data(),
            environment=provenance.environment(str(self.device), torch.get_num_threads()),
            scale=scale_of(self.recipe.stages[-1], self.trainers, self.data.sizes["train"]),
            budget=spent,
            outcome=outcome,
            metrics=tuple(metrics),
            curve=f"{state.run_id}.csv",
            curve_sha256=hashlib.sha256(curve).hexdigest(),
            artifacts=self._artifacts(state),
            beginnings=tuple(beginning_of(t.stage, t.state) for t in self.trainers),
        )
        quality = stages_quality(record, parse_curve(curve.decode()))
        return record.model_copy(update={"quality": quality})

    def _data(self) -> Data:
        spec, data = self.recipe.stages[0].data, self.data
        return Data(
            name=data.name,
            version=data.version,
            args=spec.args,
            files=dict(data.files),
            fingerprints=self.fingerprints,
            codes={stage: codes.fingerprints() for stage, codes in self.codes.items()},
            sizes=data.sizes,
            dim=data.dim,
            verified=data.verified,
            seeded=data.seeded,
            note=data.note,
        )

    def _spent(self) -> Budget:
        peak = provenance.peak_memory_bytes(self.device.type)
        return budget_of(self.trainers, self.limit_seconds, self.evaluation_seconds, peak)

    def _artifacts(self, state: RunState) -> dict[str, str]:
        folder = self.folder.results / "artifacts" / state.run_id
        files = sorted(file for kind in _ARTIFACTS for file in folder.glob(f"[!.]*{kind}"))
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    def _write(self, record: RunRecord, curve: bytes) -> None:
        """Write the curve, then the record, which is what makes the run count."""
        path = record.path(self.folder.results)
        write_atomically(path.with_suffix(".csv"), curve)
        write_record(record, self.folder.results)
        if (remote := mirrored_at(self.folder.results)) is not None:
            kept = (f"artifacts/{record.run_id}/{name}" for name in record.artifacts)
            place = "/".join(("runs", *record.place))
            remote.put([*kept, place.removesuffix("json") + "csv", place])

    def _recorded(self, state: RunState) -> RunRecord | None:
        """Return the record that a killed process wrote just before it could say so."""
        cell = self.run_.cell
        folder = self.folder.results / "runs" / cell.paper / cell.table / cell.column.id
        path = folder / self._row / f"{state.run_id}.json"
        try:
            return read_record(path) if path.exists() else None
        except DamagedError as error:
            set_aside(path, error.reason, "it is written again")
            return None

    def _close(self, state: RunState, record: RunRecord) -> None:
        """Note how the run ended; what can be gone on with keeps its checkpoints."""
        shutil.rmtree(self.folder.stage("evaluation"), ignore_errors=True)
        state.status = record.outcome.status
        if not state.goes_on:  # first: nobody would look again once the end is noted
            self.folder.clear(of_all_codes=record.outcome.complete)
        state.record = str(record.path(self.folder.results).relative_to(self.folder.results))
        self.folder.save(state)


def require_runnable(recipe: Recipe, data: Dataset, data_root: Path) -> None:
    """Refuse what cannot be run before anything is trained.

    Args:
        recipe: What is to run.
        data: Its data set, or :func:`~dgm_bench.data.image_folder.expected` of a folder.
        data_root: Folder of data sets, published weights and trained classifiers.

    Raises:
        DeclarationError: A model that cannot be built or has nothing to train, a split that
            the data lacks, shares of a budget that are not one for each stage, or bytes for a
            model in float64.
        UsageError: A setting of the environment that means nothing.
    """
    split = recipe.evaluation.split
    if split not in data.splits:
        remedy = f"use one of {', '.join(data.splits)}"
        raise DeclarationError(f"evaluation.split={split}", f"{data.name} has none", remedy)
    names = [stage.name for stage in recipe.stages]
    if len(set(names)) < len(names):
        raise DeclarationError(f"stages {', '.join(names)}", "share a name", "give each its own")
    models: dict[str, nn.Module] = {}
    for stage in recipe.stages:
        model = sketch(stage.model, _event_shape(stage, data, models), provenance.memory_bytes())
        objectives.require_fit(stage.objective, model, data_root)
        require_players(stage, model)
        require_classes(stage, model, data)
        _require_precision(stage, data)
        _require_parameters(stage, model)
        models[stage.name] = model
    whole = compose(recipe.stages, list(models.values()))
    require_fit(recipe.evaluation, whole, data, data_root)
    _ = recipe.stage_shares, checkpoint_seconds()


def _require_precision(stage: Stage, data: Dataset) -> None:
    stored = data.splits["train"]
    if stage.precision == "float64" and not stored.is_floating_point() and data.augment:
        reason = f"the bytes of {data.name} become float32"
        raise DeclarationError("precision float64", reason, "use float32")


def _event_shape(stage: Stage, data: Dataset, models: dict[str, nn.Module]) -> tuple[int, ...]:
    """Return the shape of the examples that a stage trains on.

    Raises:
        DeclarationError: It names another stage than the first, or that has no codes.
    """
    source = stage.data.codes_of
    if source is None:
        return data.event_shape
    first = next(iter(models), None)
    if source != first:
        remedy = f"name {first!r}" if first else "this one has to train on the data itself"
        raise DeclarationError(f"codes_of {source!r}", "is not the first stage", remedy)
    return code_shape(models[source], source)


def _require_parameters(stage: Stage, model: nn.Module) -> None:
    if stage.stopping.max_steps != 0 and not any(p.requires_grad for p in model.parameters()):
        remedy = "set stopping.max_steps to 0, or give the model arguments with which it has some"
        raise DeclarationError(f"model {stage.model.name}", "has no parameters to train", remedy)


def resolve_device(name: str) -> torch.device:
    """Return the device that a name, or ``auto``, is on this machine.

    ``auto`` is no Apple GPU: what comes of training there is checked less.

    Raises:
        UsageError: There is no such GPU.
    """
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise UsageError("--device mps", "torch finds no Apple GPU", "use --device cpu")
        return torch.device(name)
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise UsageError(
            "--device cuda", "torch finds no GPU", "use --device cpu; dgm-bench doctor says more"
        )
    return torch.device("cuda" if there and name != "cpu" else "cpu")
