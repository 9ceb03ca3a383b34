"""The training loop: one for every model and objective.

The data set lives on the device. A step neither waits for the device nor reads a number from it;
losses are summed there and read at validations and, for the display, about once a second.
"""

from __future__ import annotations

import hashlib
import math
import socket
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dgm_bench.data.dataset import Dataset
from dgm_bench.errors import ResultsError, RunFailure
from dgm_bench.metrics.bounds.likelihood import log_likelihoods
from dgm_bench.models.capabilities import (
    CalibratesOnData,
    HasLogProb,
    InitialisesOnData,
    SolvesODE,
)
from dgm_bench.records import utc_now
from dgm_bench.spec import Stage
from dgm_bench.train.averaging import ParameterAverage
from dgm_bench.train.checkpoint import CheckpointFile
from dgm_bench.train.control import Control, Interrupted
from dgm_bench.train.events import Progress, Reporter
from dgm_bench.train.objectives import build_objective
from dgm_bench.train.optimizers import build_optimizer
from dgm_bench.train.sampler import ShuffledBatches
from dgm_bench.train.schedule import Schedule

CURVE_COLUMNS = (
    "step",
    "epoch",
    "seconds",
    "train_loss",
    "validation",
    "lr",
    "function_evaluations",
)


class ForeignCheckpointError(ResultsError):
    """A checkpoint of other data, of another recipe, or of another kind of device."""


@dataclass
class Tally:
    """The loop's plain numbers; all of them go into checkpoints."""

    step: int = 0
    examples: int = 0
    train_seconds: float = 0.0
    validation_seconds: float = 0.0
    validations: int = 0
    bad_validations: int = 0
    best: float | None = None
    best_step: int | None = None
    last_validation: float | None = None
    loss_steps: int = 0
    curve: list[list[float | None]] = field(default_factory=list)
    segments: list[dict[str, str]] = field(default_factory=list)


class Trainer:
    """Trains one stage to its stopping rule, from the start or from a checkpoint.

    Args:
        stage: The recipe's stage.
        model: On the device.
        data: On the device.
        seed: Of the run; decides the order of the data and the noise.
        control: Asked between steps whether to stop.
        reporter: Told how it goes.
        checkpoint: Where to continue from and save to, or None to keep nothing.
        limit_seconds: Training and validation may take this long from now; None for no limit.
        checkpoint_seconds: How often to save.
        identity: Compared with the checkpoint's: stage, data and kind of device.
        shown_as: The stage's name for whoever is watching, where a run has several.
    """

    def __init__(
        self,
        stage: Stage,
        model: nn.Module,
        data: Dataset,
        *,
        seed: int,
        control: Control,
        reporter: Reporter,
        checkpoint: CheckpointFile | None = None,
        limit_seconds: float | None = None,
        checkpoint_seconds: float = 30.0,
        identity: str = "",
        shown_as: str = "",
    ) -> None:
        self.shown_as = shown_as
        self.stage, self.model, self.data = stage, model, data
        self.control, self.reporter, self.checkpoint = control, reporter, checkpoint
        self.limit_seconds, self.checkpoint_seconds = limit_seconds, checkpoint_seconds
        self.identity, self.seed = identity, seed
        self.train_data = data.splits["train"]
        # Data too large for the device stays where it is; batches are then moved.
        self.device = next(model.parameters(), self.train_data).device
        where = self.train_data.device
        self.sampler = ShuffledBatches(len(self.train_data), stage.batch_size, seed, where)
        self.optimizer = build_optimizer(stage.optimizer, model)
        self.objective = build_objective(stage.objective)
        self.schedule = Schedule(stage.schedule, stage.optimizer.lr)
        self.noise = torch.Generator(self.device).manual_seed(seed)
        decay = stage.average_decay
        self.average = ParameterAverage(model, decay) if decay is not None else None
        self.tally = Tally()
        self.best_state: dict[str, Tensor] | None = None
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self._started = self._mark = self._saved = self._shown = time.perf_counter()

    def run(self) -> str:
        """Train until the stopping rule or the budget says so, and return which.

        Returns:
            ``"patience"``, ``"max_steps"``, ``"max_epochs"`` or ``"budget"``.

        Raises:
            Interrupted: After a checkpoint, when the control says stop.
            RunFailure: When the loss is not finite, a solver fails, or memory runs out.
        """
        self._mark = self._started = self._saved = time.perf_counter()
        if self.tally.step > 0 and (over := self._ended()) is not None:
            self._take_in_the_rest()
            return over
        self._begin_segment()
        self.model.train()
        if self.tally.step == 0:
            self._initialise()
        while (ended := self._ended()) is None:
            self._step()
            if self._validation_due():
                self._validate()
            self._attend()
        self._finish(ended)
        return ended

    def restore(self) -> int | None:
        """Continue from the checkpoint if there is one; return its step.

        Raises:
            ForeignCheckpointError: When the checkpoint belongs to other data or another recipe.
        """
        state = self.checkpoint.load() if self.checkpoint is not None else None
        if state is None or self.checkpoint is None:
            return None
        if state["identity"] != self.identity:
            folder = self.checkpoint.newest.parent
            reason = "its checkpoint is of other data or another stage"
            raise ForeignCheckpointError(folder, reason, f"delete {folder}")
        self._load_state(state)
        return self.tally.step

    def use_last(self) -> None:
        """Leave the model as it is, with the averaged parameters where there is an average."""
        if self.average is not None:
            self.average.load_into_model()

    def use_best(self) -> None:
        """Put the parameters of the best validation into the model."""
        if self.best_state is not None:
            self.model.load_state_dict(self.best_state)

    @property
    def epoch(self) -> float:
        """Epochs done, with the fraction of the current one."""
        return self.sampler.epoch + self.sampler.position / self.sampler.steps_per_epoch

    # ---------------------------------------------------------------- the step

    def _initialise(self) -> None:
        """Let a model whose start depends on data see the first examples, as the files have them.

        The run's own noise is left untouched.
        """
        if not isinstance(self.model, InitialisesOnData):
            return
        x = self.train_data[: self.model.initial_examples].to(self.device)
        if self.data.augment is not None:
            x = self.data.augment(x, torch.Generator(self.device).manual_seed(self.seed))
        with torch.no_grad():
            self.model.initialise(x)
        if self.average is not None:
            self.average = ParameterAverage(self.model, self.average.decay)

    def _step(self) -> None:
        x = self.train_data.index_select(0, self.sampler.next())
        x = x.to(self.device, non_blocking=True)
        if self.data.augment is not None:
            x = self.data.augment(x, self.noise)
        with self._mixed_precision():
            loss = self.objective(self.model, x, self.tally.step, self.noise).total
        loss.backward()
        self._update()
        self.loss_sum += loss.detach()
        self.tally.loss_steps += 1
        self.tally.step += 1
        self.tally.examples += len(x)

    def _update(self) -> None:
        if self.optimizer is None:
            return
        if self.stage.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.stage.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.lr(self.tally.step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()

    def _ended(self) -> str | None:
        stop, tally = self.stage.stopping, self.tally
        if stop.patience is not None and tally.bad_validations > stop.patience:
            return "patience"
        if stop.max_steps is not None and tally.step >= stop.max_steps:
            return "max_steps"
        if stop.max_epochs is not None and self.sampler.epoch >= stop.max_epochs:
            return "max_epochs"
        if self.limit_seconds is not None and self._elapsed() >= self.limit_seconds:
            return "budget"
        return None

    # ---------------------------------------------------------------- validation

    def _validation_due(self) -> bool:
        rule = self.stage.validation
        if rule.unit == "steps":
            return self.tally.step % rule.every == 0
        return self.sampler.position == 0 and self.sampler.epoch % rule.every == 0

    def _validate(self) -> None:
        train_loss = self._mean_train_loss()
        self._charge("train_seconds")
        value = self._validation_loss()
        self._charge("validation_seconds")
        tally = self.tally
        tally.validations += 1
        tally.last_validation = value
        if tally.best is None or value < tally.best:
            tally.best, tally.best_step, tally.bad_validations = value, tally.step, 0
            self._keep_best()
        elif self.sampler.epoch >= self.stage.stopping.patience_from:
            tally.bad_validations += 1
        lr = self.schedule.lr(max(tally.step - 1, 0))
        self.schedule.after_validation(tally.bad_validations)
        self._add_to_curve(train_loss, value, lr)
        self._show(train_loss, lr)
        self.loss_sum.zero_()
        tally.loss_steps = 0

    def _validation_loss(self) -> float:
        split = "val" if "val" in self.data.splits else "test"
        self.model.eval()
        with self._averaged(), self._mixed_precision():
            if isinstance(self.model, CalibratesOnData):
                self.model.calibrate(self.train_data)
            if isinstance(self.model, HasLogProb):
                values, _ = log_likelihoods(
                    self.model,
                    self.data.splits[split],
                    batch_size=self.stage.validation.batch_size,
                    trace=self.stage.validation.trace,
                    generator=self.noise,
                    augment=self.data.dequantise,
                )
                loss = float(-values.mean())
            else:
                loss = self._mean_objective(self.data.splits[split])
        self.model.train()
        if math.isnan(loss) or loss == -math.inf:
            raise self._diverged(f"the validation loss is {loss}")
        return loss

    @torch.no_grad()
    def _mean_objective(self, x: Tensor) -> float:
        """Return the objective over ``x``, for a model without a density; its noise never changes.

        The mean is over examples: an objective is itself a mean over those of its batch.
        """
        noise = torch.Generator(self.device).manual_seed(self.seed)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for part in x.split(self.stage.validation.batch_size):
            batch = part.to(self.device)
            batch = self.data.dequantise(batch, noise) if self.data.dequantise else batch
            total += self.objective(self.model, batch, self.tally.step, noise).total * len(part)
        return total.item() / len(x)

    def _keep_best(self) -> None:
        with self._averaged():
            state = self.model.state_dict()
            if self.best_state is None:
                self.best_state = {name: value.clone() for name, value in state.items()}
            else:
                for name, value in state.items():
                    self.best_state[name].copy_(value)

    def _averaged(self) -> AbstractContextManager[None]:
        return self.average.swapped_in() if self.average is not None else nullcontext()

    def _mixed_precision(self) -> torch.autocast:
        mixed = self.stage.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=mixed)

    def _mean_train_loss(self) -> float | None:
        if not self.tally.loss_steps:
            return None
        loss = self.loss_sum.item() / self.tally.loss_steps
        if not math.isfinite(loss):
            raise self._diverged(f"the training loss is {loss}")
        return loss

    def _diverged(self, what: str) -> RunFailure:
        return RunFailure(
            "diverged",
            f"{what} at step {self.tally.step}",
            "lower the learning rate (--set optimizer.lr=...) or clip gradients",
        )

    def _add_to_curve(self, train_loss: float | None, validation: float, lr: float) -> None:
        tally = self.tally
        seconds = tally.train_seconds + tally.validation_seconds
        row = [tally.step, self.epoch, seconds, train_loss, validation, lr, self._evaluations()]
        tally.curve.append(row)

    def _evaluations(self) -> int | None:
        model = self.model
        return model.function_evaluations if isinstance(model, SolvesODE) else None

    # ---------------------------------------------------------------- between steps

    def _attend(self) -> None:
        """Stop, save or show, when it is time to."""
        reason = self.control.stop_reason()
        if reason is not None:
            self._end_segment(reason)
            self._save()
            raise Interrupted(reason)
        now = time.perf_counter()
        if now - self._saved >= self.checkpoint_seconds:
            self._save()
        if now - self._shown >= 1.0:
            self._show(self._mean_train_loss(), self.schedule.lr(self.tally.step))

    def _finish(self, ended: str) -> None:
        """Save, then take in what was trained since the last validation.

        A run that is out of budget is validated off its rhythm, after the checkpoint, so that a
        continuation from there goes exactly as if there had been no limit.
        """
        self._charge("train_seconds")
        self._end_segment(ended)
        self._save()
        self._take_in_the_rest()

    def _take_in_the_rest(self) -> None:
        """Validate once more if there were steps since the last time, or none ever."""
        if self.tally.loss_steps or self.best_state is None:
            self._validate()

    def release(self) -> None:
        """Let go of what only training needs, once the stage is over and its model chosen."""
        self.optimizer = self.average = self.best_state = None

    def _show(self, train_loss: float | None, lr: float) -> None:
        self._shown = time.perf_counter()
        tally, stop = self.tally, self.stage.stopping
        self.reporter.progress(
            Progress(
                step=tally.step,
                max_steps=stop.max_steps,
                epoch=self.epoch,
                seconds=self._elapsed(),
                limit_seconds=self.limit_seconds,
                train_loss=train_loss,
                validation=tally.last_validation,
                best=tally.best,
                lr=lr,
                bad_validations=tally.bad_validations,
                patience=stop.patience,
                stage=self.shown_as,
            )
        )

    def _elapsed(self) -> float:
        return time.perf_counter() - self._started

    def _charge(self, account: str) -> None:
        now = time.perf_counter()
        setattr(self.tally, account, getattr(self.tally, account) + now - self._mark)
        self._mark = now

    # ---------------------------------------------------------------- checkpoints

    def _begin_segment(self) -> None:
        segment = {"started": utc_now(), "ended": utc_now(), "host": _host()}
        self.tally.segments.append({**segment, "reason": "killed"})

    def _end_segment(self, reason: str) -> None:
        self.tally.segments[-1].update(ended=utc_now(), reason=reason)

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        self._charge("train_seconds")
        self.tally.segments[-1]["ended"] = utc_now()
        self.checkpoint.save(self._state())
        self._saved = self._mark = time.perf_counter()

    def _state(self) -> dict[str, Any]:
        return {
            "identity": self.identity,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict() if self.optimizer is not None else None,
            "average": self.average.state() if self.average is not None else None,
            "best": self.best_state,
            "tally": asdict(self.tally),
            "loss_sum": self.loss_sum,
            "sampler": (self.sampler.epoch, self.sampler.position),
            "drops_done": self.schedule.drops_done,
            "noise": self.noise.get_state(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
            "function_evaluations": self._evaluations(),
        }

    def _load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load(state["average"])
        if state["best"] is not None:
            self.best_state = {name: v.to(self.device) for name, v in state["best"].items()}
        self.tally = Tally(**state["tally"])
        self.loss_sum.copy_(state["loss_sum"])
        self.sampler.seek(*state["sampler"])
        self.schedule.drops_done = state["drops_done"]
        self.noise.set_state(state["noise"])
        torch.set_rng_state(state["torch_rng"])
        if state["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"])
        if isinstance(self.model, SolvesODE):
            self.model.function_evaluations = state["function_evaluations"]


def _host() -> str:
    """Return a short hash that tells machines apart without naming them."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
