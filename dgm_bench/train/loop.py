"""The training loop: one for every model and objective.

The data set lives on the device. A step neither waits for the device nor reads a number from it;
losses are summed there and read at validations and, for the display, about once a second.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NoReturn

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from dgm_bench.context import RunContext
from dgm_bench.control import Interrupted
from dgm_bench.data.class_rows import inputs_with_classes
from dgm_bench.data.dataset import Dataset
from dgm_bench.events import Progress
from dgm_bench.kept import Journal
from dgm_bench.models.capabilities import InitialisesOnData
from dgm_bench.models.whole_batch import divided
from dgm_bench.spec import Stage
from dgm_bench.train.checkpoint import StageCheckpoint
from dgm_bench.train.first_step import FirstStep
from dgm_bench.train.losses import Batch
from dgm_bench.train.objectives import build_objective
from dgm_bench.train.split import WHOLE, Split
from dgm_bench.train.state import TrainingState
from dgm_bench.train.tally import Tally
from dgm_bench.train.validation import Validation


class Trainer:
    """Trains one stage to its stopping rule, from the start or from a checkpoint.

    Args:
        stage: The recipe's stage.
        model: On the device.
        data: On the device.
        context: The stop control, the reporter, and the data root for objectives that load data.
        seed: Of the run; decides the order of the data and the noise.
        checkpoint: Where to continue from and save to, or None to keep nothing.
        limit_seconds: Training and validation may take this long from now; None for no limit.
        shown_as: The stage's name in progress messages, where a run has several.
        split: How batches are divided, if they are.
    """

    def __init__(
        self,
        stage: Stage,
        model: nn.Module,
        data: Dataset,
        context: RunContext,
        *,
        seed: int,
        checkpoint: StageCheckpoint | None = None,
        limit_seconds: float | None = None,
        shown_as: str = "",
        split: Split = WHOLE,
    ) -> None:
        self.stage, self.model, self.data, self.seed = stage, model, data, seed
        self.control, self.reporter, self.shown_as = context.control, context.reporter, shown_as
        self.limit_seconds, self.split, self.world = limit_seconds, split, split.world
        self.examples = data.splits["train"]
        of_classes = data.labels["train"] if stage.data.with_classes else None
        self.classes = None if of_classes is None else of_classes.to(self.examples.device)
        #: Whether a batch that does not fit in the device's memory is computed in parts.
        self.divides_further = (
            self.world.size == 1 and next(model.parameters(), self.examples).is_cuda
        )
        self.objective = build_objective(stage.objective, context.data_root)
        self.state = TrainingState(stage, model, self.examples, seed, split.world)
        self.first_step = FirstStep(self.state)
        self.validation = Validation(stage, data, self.objective, self.state, seed)
        self.checkpoint = checkpoint or StageCheckpoint(None)
        #: Whether it saves in its own rhythm, not in that of others.
        self.saves_itself = True
        self.clock = Stopwatch()
        self._shown = time.perf_counter()
        #: Told the rows of the curve as they come, and between them what is known.
        self.tell: Callable[[Sequence[float | None]], None] = lambda _: None

    @property
    def tally(self) -> Tally:
        """The plain numbers of the training so far."""
        return self.state.tally

    def restore(self) -> int | None:
        """Continue from the checkpoint if there is one; return its step.

        Raises:
            ForeignCheckpointError: When the checkpoint belongs to other data or another recipe.
        """
        return self.tally.step if self.checkpoint.restore(self.state, self.world) else None

    def run(self) -> str:
        """Train until the stopping rule or the budget says so, and return which.

        Returns:
            ``"patience"``, ``"max_steps"``, ``"max_epochs"`` or ``"budget"``.

        Raises:
            Interrupted: After a checkpoint, when the control says stop.
            RunFailure: When the loss is not finite, a solver fails, or memory runs out.
        """
        with self.world.in_step(self.control), divided(self.world):
            return self._run()

    def _run(self) -> str:
        if (over := self.begin()) is not None:
            return over
        while (ended := self.ended()) is None:
            if not self.tally.validating:
                self._step()
            self.after_step()
        self.finish(ended)
        return ended

    def begin(self, clock: Stopwatch | None = None) -> str | None:
        """Make ready for the first step; return the rule that a finished stage ended by, or None.

        Args:
            clock: What measures the time from now on, if it is not all the time that passes.

        Raises:
            Interrupted: While the validation of a finished stage was made up for.
            RunFailure: The same validation is not a number.
        """
        self.clock = clock or Stopwatch()
        self.checkpoint.start_clock()
        if self.tally.step > 0 and (over := self.ended()) is not None:
            self._take_in_the_rest(over)
            return over
        self.tally.begin_segment()
        self._say_precision()
        self.model.train()
        if self.tally.step == 0:
            self.first_step.note_weights("weights")
            self._initialise()
        if self.split.divides and self.stage.stopping.max_steps != 0:
            self._require_split(self.split)
        return None

    def ended(self) -> str | None:
        """Return the rule that ends the training after the steps so far, or None."""
        stop, tally = self.stage.stopping, self.tally
        if stop.patience is not None and tally.bad_validations > stop.patience:
            return "patience"
        if stop.max_steps is not None and tally.step >= stop.max_steps:
            return "max_steps"
        if stop.max_epochs is not None and self.state.sampler.epoch >= stop.max_epochs:
            return "max_epochs"
        if self.limit_seconds is not None:
            (over,) = self.world.agree(self.clock.elapsed() >= self.limit_seconds)
            return "budget" if over else None
        return None

    def _say_precision(self) -> None:
        wanted, found = self.stage.precision, self.state.precision
        if found != wanted:
            self.reporter.message(f"this hardware has no {wanted}: training computes in {found}")

    # ---------------------------------------------------------------- the step

    def _initialise(self) -> None:
        """Let a model whose start depends on data see the first examples, as the files have them.

        The run's own noise is left untouched.
        """
        if not isinstance(self.model, InitialisesOnData):
            return
        noise = torch.Generator(self.state.device).manual_seed(self.seed)
        x = self._inputs(slice(self.model.initial_examples), noise)
        with torch.no_grad():
            self.model.initialise(x)
        self.state.restart_average()
        self.first_step.note_weights("weights_on_data")

    def _require_split(self, split: Split) -> None:
        """Refuse a model that cannot be trained on divided batches."""
        few = slice(min(split.fewest + 1, self.state.sampler.batch_size))
        noise = torch.Generator(self.state.device).manual_seed(self.seed)
        with self.state.gathered():
            split.require_right(self.state, self._loss, self._inputs(few, noise))

    def _inputs(self, which: slice | Int[Tensor, " batch"], noise: torch.Generator) -> Batch:
        x = _chosen(self.examples, which).to(self.state.device, non_blocking=True)
        inputs = self.data.augmented(x, noise)
        if self.classes is None:
            return inputs
        return inputs_with_classes(inputs, _chosen(self.classes, which))

    def _step(self) -> None:
        self.step_on(self.next_batch())

    def step_on(self, x: Batch) -> None:
        """Take a step on a batch: loss, gradients, parameters."""
        loss = self._backward(x)
        if self.state.flat is not None:
            self.state.flat.take_gradients()
        self._count(loss, len(x))

    def _backward(self, x: Batch) -> Float[Tensor, ""]:
        """Return the loss; of a batch that does not fit, computed in more parts from now on."""
        if not self.divides_further:
            return self.split.backward(self.state, self.loss, x)
        before = self.state.noise_states()
        try:
            return self.split.backward(self.state, self.loss, x)
        except torch.OutOfMemoryError:
            if self.split.fewest * 2 > len(x):
                raise
        self._divide_further(before)
        return self._backward(x)

    def _divide_further(self, before: dict[str, Tensor | None]) -> None:
        """Compute batches in twice as many parts, and go back to where a step began.

        Raises:
            DeclarationError: The model cannot be trained so.
        """
        self.model.zero_grad(set_to_none=True)
        self.state.set_noise_states(before)
        self.split = replace(self.split, parts=2 * self.split.parts)
        self._require_split(replace(self.split, parts=2))
        parts = self.split.parts
        self.reporter.message(f"a batch does not fit in memory: it is computed in {parts} parts")

    def next_batch(self) -> Batch:
        """Return the next examples in the run's own order, with its own noise."""
        state = self.state
        x = self._inputs(state.sampler.next(), state.noise)
        self.first_step.note_batch(x)
        return x

    def loss(self, x: Batch) -> Float[Tensor, ""]:
        """Return the objective of a batch, which gradients can be taken of."""
        parts = self.state.sharded
        loss: Tensor = self._loss(x) if parts is None else parts(self._loss, x)
        return loss

    def _loss(self, x: Batch) -> Float[Tensor, ""]:
        with self.state.mixed_precision():
            return self.objective(self.model, x, self.tally.step, self.state.noise).total

    def take_step(
        self, loss: Float[Tensor, ""], gradient: Float[Tensor, " parameters"], examples: int
    ) -> None:
        """Take the step of a loss and a gradient that were computed elsewhere.

        Args:
            loss: Of a batch.
            gradient: Of the vector that the parameters lie in.
            examples: Size of the batch.
        """
        if self.state.flat is not None:
            self.state.flat.vector.grad = gradient
        self._count(loss, examples)

    def _count(self, loss: Float[Tensor, ""], examples: int) -> None:
        self.first_step.note_gradient(loss)
        self._update()
        self.first_step.note_weights("weights_stepped")
        self.state.add_loss(loss, examples)

    def _update(self) -> None:
        stepped, average = self.state.flat or self.state, self.state.average
        if (optimizer := stepped.optimizer) is None:
            return
        if self.stage.clip_norm is not None:
            nn.utils.clip_grad_norm_(stepped.parameters, self.stage.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = self.state.schedule.lr(self.tally.step) * group.get("relative_lr", 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if average is not None:
            average.update()

    # ---------------------------------------------------------------- between steps

    def after_step(self) -> None:
        """Validate, save, show or stop, whichever it is time for.

        Raises:
            Interrupted: After a checkpoint, when the control says stop.
            RunFailure: A loss is not a number.
        """
        if self.validation.due():
            self._validate_or_leave()
        self._attend()

    def _validate_or_leave(self) -> None:
        """Validate in rhythm; a validation that is interrupted is gone on with first."""
        try:
            self._validate()
        except Interrupted as stop:
            self.tally.validating = True
            self.tally.validation_seconds += self.clock.lap()
            self.leave(stop.reason)
        self.tally.validating = False

    def _validate(self) -> None:
        state, tally = self.state, self.tally
        train_loss = state.mean_train_loss()
        tally.train_seconds += self.clock.lap()
        value = self._kept_measure()
        tally.validation_seconds += self.clock.lap()
        lr = state.schedule.lr(max(tally.step - 1, 0))
        self.validation.take_in(value)
        if self.validation.remark:
            self.reporter.message(f"step {tally.step}: {self.validation.remark}")
        evaluations = state.function_evaluations
        row = [tally.step, state.epoch, tally.seconds, train_loss, value, lr, evaluations]
        tally.curve.append([*row, tally.train_seconds])
        self.tell(tally.curve[-1])
        self._show(train_loss, lr)
        state.forget_train_loss()

    def _kept_measure(self) -> float:
        """Measure, and keep what is done of it when that is interrupted."""
        folder = self.checkpoint.folder
        if folder is None or self.world.size > 1:  # what is done of it would differ
            return self.validation.measure()
        identity = f"{self.checkpoint.identity[:16]}-{self.tally.step}"
        journal = Journal(folder / "validation", identity, self.model, every=math.inf)
        with journal.active():
            value = self.validation.measure()
        journal.remove()
        return value

    def leave(self, reason: str) -> NoReturn:
        """Save, and stop for this reason.

        Raises:
            Interrupted: Always.
        """
        self.tally.end_segment(reason)
        self.save()
        raise Interrupted(reason)

    def _attend(self) -> None:
        """Stop, save or show, when it is time to."""
        reason, shows = self.control.stop_reason(), time.perf_counter() - self._shown >= 1.0
        saves = self.saves_itself and self.checkpoint.due()
        stops, saves, shows = self.world.agree(reason is not None, saves, shows)
        if stops:
            self.leave(self.world.share(reason) or "")
        if saves:
            self.save()
        if shows:
            self._show_between()

    def save(self) -> None:
        """Save; the time that takes is charged to nothing."""
        self.tally.train_seconds += self.clock.lap()
        self.checkpoint.save(self.state)
        self.clock.lap()

    def finish(self, ended: str) -> None:
        """Save, then take in what was trained since the last validation.

        A run that is out of budget is validated off its rhythm, after the checkpoint, so that a
        continuation from there goes exactly as if there had been no limit.
        """
        self.tally.end_segment(ended)
        self.save()
        self._take_in_the_rest(ended)

    def _take_in_the_rest(self, ended: str) -> None:
        """Validate once more if there were steps since the last time, or none ever."""
        if self.tally.loss_steps or self.state.best_parameters is None:
            self._validate()
            self.tally.validating = False
            if ended != "budget":
                self.save()

    def _show_between(self) -> None:
        """Show what is known between two validations."""
        step, train_loss = self.tally.step, self.state.mean_train_loss()
        lr = self.state.schedule.lr(step)
        self._show(train_loss, lr)
        self.tell([step, self.state.epoch, None, train_loss, None, lr])

    def _show(self, train_loss: float | None, lr: float) -> None:
        self._shown = time.perf_counter()
        tally, stop = self.tally, self.stage.stopping
        self.reporter.progress(
            Progress(
                step=tally.step,
                max_steps=stop.max_steps,
                epoch=self.state.epoch,
                seconds=self.clock.elapsed(),
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


def _chosen(
    rows: Num[Tensor, "n *event"], which: slice | Int[Tensor, " batch"]
) -> Num[Tensor, "batch *event"]:
    return rows[which] if isinstance(which, slice) else rows.index_select(0, which)


class Stopwatch:
    """Seconds since it was made, and since the last lap."""

    def __init__(self) -> None:
        self._started = self._mark = time.perf_counter()

    def elapsed(self) -> float:
        """Return the seconds since it was made."""
        return time.perf_counter() - self._started

    def lap(self) -> float:
        """Return the seconds since the last lap, and begin another."""
        before, self._mark = self._mark, time.perf_counter()
        return self._mark - before
