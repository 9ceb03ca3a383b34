"""Training the stages of a recipe one after the other, each on its data, to its own end."""

from __future__ import annotations

import hashlib
import math
import os
import time
from contextlib import suppress
from functools import cached_property

import torch
from torch import nn

from dgm_bench.context import RunContext
from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import UsageError, shortened
from dgm_bench.models.build import build
from dgm_bench.spec import Recipe, Stage
from dgm_bench.train.apple import EXAMPLES, is_apple, require_same
from dgm_bench.train.checkpoint import CheckpointFile, ForeignCheckpointError, StageCheckpoint
from dgm_bench.train.latents import latents
from dgm_bench.train.loop import Trainer
from dgm_bench.train.precision import dtype_of
from dgm_bench.train.split import WHOLE, Split
from dgm_bench.workdir import WorkFolder


class StagedTraining:
    """Trains the stages of a recipe with a seed.

    Args:
        recipe: With any ``--set`` changes.
        seed: Of the run.
        data: The data set, on the host.
        device: Where to compute.
        context: What it shares with other runs of the command.
        folder: Where it keeps what it goes on from; None in a process that follows another.
        limit_seconds: Training and validation may take this long, or None.
        split: How batches are divided, if they are.

    Attributes:
        trainers: Of the stages that began.
        codes: What later stages are trained on, by the stage whose model gave them.
    """

    def __init__(
        self,
        recipe: Recipe,
        seed: int,
        data: Dataset,
        device: torch.device,
        context: RunContext,
        folder: WorkFolder | None,
        limit_seconds: float | None = None,
        split: Split = WHOLE,
    ) -> None:
        self.recipe, self.seed, self.data, self.device = recipe, seed, data, device
        self.context, self.limit_seconds, self.split = context, limit_seconds, split
        self.kept_in = folder
        self.trainers: list[Trainer] = []
        self.codes: dict[str, Dataset] = {}

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of each split of the data."""
        return self.data.fingerprints()

    def train_stages(self) -> list[str]:
        """Train every stage, each to its own stopping rule; return how they ended."""
        started, ends = time.perf_counter(), []
        for index in range(len(self.recipe.stages)):
            trainer = self.open_stage(index, self._limit_of(index, time.perf_counter() - started))
            ends.append(trainer.run())
            self._choose_weights(trainer)
        return ends

    def open_stage(self, index: int, limit: float | None) -> Trainer:
        """Return the trainer of a stage, ready to begin or to go on from its checkpoint."""
        limit = self.split.world.share(limit)
        trainer = self._trainer(self.recipe.stages[index], index, limit)
        self.trainers.append(trainer)
        self._announce(trainer, self._restore(trainer))
        return trainer

    def _announce(self, trainer: Trainer, resumed_at_step: int | None) -> None:
        """Say that a stage begins, or goes on."""

    def _choose_weights(self, trainer: Trainer) -> None:
        """Leave the weights in the model that the recipe evaluates."""
        if self.recipe.evaluation.checkpoint == "best":
            trainer.state.use_best()
        else:
            trainer.state.use_last()
        trainer.state.release()

    def _limit_of(self, index: int, spent: float) -> float | None:
        """Return how long a stage may train: its share of what those before it have left."""
        if self.limit_seconds is None:
            return None
        shares = self.recipe.stage_shares[index:]
        return max(self.limit_seconds - spent, 0.0) * shares[0] / sum(shares)

    def _trainer(self, stage: Stage, index: int, limit: float | None) -> Trainer:
        dtype = dtype_of(stage)
        data = self._stage_data(stage)
        torch.manual_seed(self.seed + index)
        model = build(stage.model, data.event_shape).to(dtype=dtype)
        if is_apple(self.device):
            self._require_same(model, data, dtype)
        model = model.to(self.device)
        return Trainer(
            stage,
            model,
            data.to(self.device, dtype),
            self.context,
            seed=self.seed,
            checkpoint=self._checkpoint(stage, data),
            limit_seconds=limit,
            shown_as=stage.name if len(self.recipe.stages) > 1 else "",
            split=self.split,
        )

    def _require_same(self, model: nn.Module, data: Dataset, dtype: torch.dtype) -> None:
        """Refuse Apple's GPU where it computes something else than the CPU."""
        examples = data.splits["train"][:EXAMPLES].to("cpu")
        x = data.dequantised(examples, torch.Generator().manual_seed(self.seed))
        require_same(model, x.to(dtype) if x.is_floating_point() else x, self.device)

    def _checkpoint(self, stage: Stage, data: Dataset) -> StageCheckpoint:
        if self.kept_in is None:
            return StageCheckpoint(None, every=math.inf)
        file = CheckpointFile(self.kept_in.stage(stage.name))
        identity = _identity(stage, data.fingerprints(), self.device)
        return StageCheckpoint(file, identity, checkpoint_seconds())

    def _stage_data(self, stage: Stage) -> Dataset:
        """Return what a stage is trained on: the images, or their codes by an earlier stage."""
        source = stage.data.codes_of
        if source is None:
            return self.data
        if source not in self.codes:
            trainer = next(t for t in self.trainers if t.stage.name == source)
            folder, size = self.kept_in, trainer.stage.validation.batch_size
            path = None if folder is None else folder.stage(source) / "codes.safetensors"
            world = self.split.world
            codes = latents(trainer.model, self.data, path, size, self._sources(), world)
            self.codes[source] = codes.to(self.device)
        return self.codes[source]

    def _sources(self) -> dict[str, str]:
        return {} if self.kept_in is None else self.fingerprints

    def _restore(self, trainer: Trainer) -> int | None:
        """Go on from the stage's checkpoint; one of codes that are no more is dropped.

        An earlier stage that was trained on, with more budget, gives other codes.
        """
        try:
            return trainer.restore()
        except ForeignCheckpointError:
            if trainer.stage.data.codes_of is None:
                raise
            self.context.reporter.message(
                f"the codes are others now: {trainer.stage.name} starts again"
            )
            return None


def _identity(stage: Stage, fingerprints: dict[str, str], device: torch.device) -> str:
    """Return a hash of what a checkpoint must agree with to be continued."""
    body = stage.model_dump_json() + "".join(sorted(fingerprints.values())) + device.type
    return hashlib.sha256(body.encode()).hexdigest()


def checkpoint_seconds() -> float:
    """Return how often runs save: ``DGM_BENCH_CHECKPOINT_SECONDS``, or 30."""
    text = os.environ.get("DGM_BENCH_CHECKPOINT_SECONDS", "30")
    with suppress(ValueError):
        if 0 <= (seconds := float(text)) < math.inf:
            return seconds
    thing = f"DGM_BENCH_CHECKPOINT_SECONDS={shortened(text)}"
    raise UsageError(thing, "is no time from 0 on", "give seconds, such as 30")
