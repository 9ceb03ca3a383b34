"""All that happens while a trainer trains the tiny model, in the rows that the reference has."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from factories import make_context
from train.reference import Row
from train.tiny import Tiny, Traits, make_model

from dgm_bench.control import Control, Interrupted
from dgm_bench.data.dataset import Dataset
from dgm_bench.spec import Stage
from dgm_bench.train.checkpoint import CheckpointFile, StageCheckpoint
from dgm_bench.train.loop import Trainer
from dgm_bench.train.losses import Loss

#: Steps of the longest training, and more.
LONGEST = 100


class Watch(Control):
    """Watches a trainer at its seams; the loop asks it after each step whether to stop.

    Args:
        stop_at: Steps after which it says so.
        out_at: Steps after which there is no time left.
    """

    def __init__(self, stop_at: int | None = None, out_at: int | None = None) -> None:
        super().__init__()
        self.stop_at, self.out_at = stop_at, out_at
        self.rows: list[Row] = []
        self.row: Row = {}
        self.curve_rows = 0

    def attach(self, trainer: Trainer) -> None:
        """Watch a trainer, which may come from a checkpoint."""
        assert isinstance(trainer.model, Tiny)
        self.trainer, self.model = trainer, trainer.model
        self.names = {p: name for name, p in self.model.named_parameters()}
        self.curve_rows = len(trainer.tally.curve)
        self._wrap_batches()
        self._wrap_objective()
        self._wrap_optimizer()
        self.squares = 0.0
        for p in self.names:
            p.register_post_accumulate_grad_hook(self._gradient)

    def _wrap_batches(self) -> None:
        sampler = self.trainer.state.sampler
        original = sampler.next

        def batch() -> torch.Tensor:
            indices = original()
            self.row["indices"] = indices.tolist()
            return indices

        sampler.next = batch  # type: ignore[method-assign]

    def _wrap_objective(self) -> None:
        original = self.trainer.objective

        def objective(model: Any, x: torch.Tensor, step: int, generator: torch.Generator) -> Loss:
            loss = original(model, x, step, generator)
            self.row |= {"inputs": x.clone().numpy(), "loss": loss.total.item()}
            return loss

        self.trainer.objective = objective

    def _gradient(self, parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        self.squares += parameter.grad.double().square().sum().item()

    def _wrap_optimizer(self) -> None:
        optimizer = self.trainer.state.optimizer
        assert optimizer is not None
        original = optimizer.step

        def step() -> None:
            groups = [(self.names[p], g) for g in optimizer.param_groups for p in g["params"]]
            self.row["gradient norm"] = math.sqrt(self.squares)
            used = sum(p.grad.double().square().sum().item() for p in self.names)  # type: ignore[union-attr]
            self.row["clipped norm"] = math.sqrt(used)
            self.row["rates"] = {name: group["lr"] for name, group in groups}
            self.row["decays"] = {name: group["weight_decay"] for name, group in groups}
            self.squares = 0.0
            original()

        optimizer.step = step  # type: ignore[assignment,method-assign]

    def stop_reason(self) -> str | None:
        """End the row of a step.

        Raises:
            AssertionError: The training does not stop.
        """
        assert len(self.rows) < LONGEST, "no rule stops this training"
        values = _numpy(self.model.values())
        average = self.trainer.state.average
        means = None
        if average is not None:
            means = dict(zip(self.names.values(), average.averages, strict=True))
            means = _numpy({name: mean.clone() for name, mean in means.items()})
        centre = values.pop("centre")
        self.rows.append(
            {**self.row, "weights": values, "average": means, "centre": centre, **self._standing()}
        )
        self.row = {}
        if self.trainer.tally.step == self.out_at:
            self.trainer.limit_seconds = 0.0
        return "test" if self.trainer.tally.step == self.stop_at else None

    def _standing(self) -> Row:
        """Return what a validation, if there was one, found, and where it led to."""
        tally, curve = self.trainer.tally, None
        if len(tally.curve) > self.curve_rows:
            step, epoch, _, loss, value, rate, *_ = tally.curve[-1]
            curve, self.curve_rows = (step, epoch, loss, value, rate), len(tally.curve)
        heard, self.model.heard = [_numpy(each) for each in self.model.heard], []
        best = None if tally.best is None else (tally.best, tally.best_step)
        drops = self.trainer.state.schedule.drops_done
        bad = tally.bad_validations
        return {"validation": curve, "heard": heard, "bad": bad, "drops": drops, "best": best}

    def end(self, why: str) -> None:
        """Add the row of the end: the best weights, and the last ones as they are evaluated."""
        state, standing = self.trainer.state, self._standing()
        state.use_last()
        last = _numpy(self.model.values())
        state.use_best()
        best = _numpy(self.model.values())
        self.rows.append({"stop": why, **standing, "best-weights": best, "last": last})


def _numpy(values: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: value.numpy() for name, value in values.items()}


def trained(
    stage: Stage,
    traits: Traits,
    data: Dataset,
    seed: int,
    start: dict[str, torch.Tensor],
    folder: Path | None = None,
    stop_at: int | None = None,
    out_at: int | None = None,
) -> tuple[list[Row], bool]:
    """Train from the start, or from what is in ``folder``; return rows, and whether it ended."""
    dtype = torch.float64 if stage.precision == "float64" else torch.float32
    model = make_model(traits)
    model.load_state_dict(start)
    watch = Watch(stop_at, out_at)
    checkpoint = StageCheckpoint(CheckpointFile(folder) if folder is not None else None)
    context = make_context(control=watch)
    model = model.to(dtype)
    trainer = Trainer(
        stage, model, data.to("cpu", dtype), context, seed=seed, checkpoint=checkpoint
    )
    trainer.restore()
    watch.attach(trainer)
    try:
        watch.end(trainer.run())
    except Interrupted:
        return watch.rows, False
    return watch.rows, True


def stopped_after_every_step(
    stage: Stage,
    traits: Traits,
    data: Dataset,
    seed: int,
    start: dict[str, torch.Tensor],
    folder: Path,
) -> list[Row]:
    """Train one step at a time, each by a trainer that knows the checkpoint alone."""
    rows: list[Row] = []
    ended = False
    while not ended:
        more, ended = trained(stage, traits, data, seed, start, folder, len(rows) + 1)
        rows += more
    return rows
