"""Training several runs of one recipe at once: their steps are computed as one batch of models.

Each run keeps all that is its own: weights, order of the data, noise, learning rate, clipping,
averages, validations, patience, checkpoints. Only losses and gradients are computed in common.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from dgm_bench.control import Interrupted
from dgm_bench.errors import DeclarationError, RunFailure, shortened
from dgm_bench.models.capabilities import DecaysSomeParameters, SolvesODE
from dgm_bench.train.loop import Stopwatch, Trainer
from dgm_bench.train.losses import Batch
from dgm_bench.train.stacked import StackedModels

ONE_BY_ONE = "run seeds one after the other"


class Share(Stopwatch):
    """The seconds that one run is charged with, where several take turns."""

    def __init__(self) -> None:
        super().__init__()
        self._charged = self._marked = 0.0
        self._since: float | None = None

    def __enter__(self) -> None:
        """Charge all that passes until the block ends."""
        self._since = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._charged, self._since = self.elapsed(), None

    def charge(self, seconds: float) -> None:
        """Charge so much."""
        self._charged += seconds

    def elapsed(self) -> float:
        """Return the seconds charged so far."""
        return self._charged + (time.perf_counter() - self._since if self._since else 0.0)

    def lap(self) -> float:
        """Return the seconds charged since the last lap, and begin another."""
        before, self._marked = self._marked, self.elapsed()
        return self._marked - before


class TrainersTogether:
    """Trains runs of one recipe, each to its own end.

    The batch of models has those runs alone that go on. Where the models turn out not to be
    computable as a batch, the runs take their steps one by one.

    Args:
        trainers: One for each seed, started or restored; their generators are held.
    """

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self.trainers = list(trainers)
        self._shares = {trainer: Share() for trainer in trainers}
        self._ends: dict[Trainer, str | RunFailure] = {}
        self._begun: list[Trainer] = []
        #: Those that have taken a step and not yet looked what is due after it.
        self._stepped: list[Trainer] = []
        #: Those whose steps are computed at once, and their models.
        self._batched: list[Trainer] = []
        self._stacked: StackedModels | None = None
        self._one_by_one = False

    def run(self) -> list[str | RunFailure]:
        """Train until every run has ended; return for each its stopping rule, or what broke it.

        Raises:
            Interrupted: After a checkpoint of each, when the control says stop.
        """
        try:
            for trainer in self.trainers:
                self._begin(trainer)
            while self._active:
                if not any(trainer.tally.validating for trainer in self._active):
                    self.step(self._active)
                self._attend(self._active)
                if any(trainer.checkpoint.due() for trainer in self._active):
                    self._save()
                self._finish_those_that_ended()
        finally:
            for trainer in self.trainers:
                trainer.state.unflatten()
        return [self._ends[trainer] for trainer in self.trainers]

    @property
    def _active(self) -> list[Trainer]:
        return [trainer for trainer in self._begun if trainer not in self._ends]

    def _attend(self, trainers: list[Trainer]) -> None:
        """Validate, show or stop, whichever it is time for after a step of these runs."""
        validating = [trainer for trainer in trainers if trainer.tally.validating]
        self._stepped = validating or trainers
        while self._stepped:
            trainer = self._stepped.pop(0)
            self._alone(trainer, trainer.after_step)

    def _save(self) -> None:
        """Save all runs at one step: those in whose company each step is computed decide its bits.

        See :func:`align` for what is left where this is cut off in the middle.
        """
        for trainer in self._active:
            self._alone(trainer, trainer.save)

    def _begin(self, trainer: Trainer) -> None:
        trainer.saves_itself = False
        if trainer.tally.step == 0:
            trainer.save()
        over = self._alone(trainer, partial(trainer.begin, self._shares[trainer]))
        if over is not None:
            self._ends[trainer] = over
        self._begun.append(trainer)
        self._finish_those_that_ended()

    def _finish_those_that_ended(self) -> None:
        ended = {trainer: end for trainer in self._active if (end := trainer.ended()) is not None}
        if ended and len(self._active) > 1:
            self._save()
        for trainer, end in ended.items():
            self._alone(trainer, partial(trainer.finish, end))
            self._ends.setdefault(trainer, end)

    def _alone(self, trainer: Trainer, work: Callable[[], str | None]) -> str | None:
        """Do what is one run's own; where it breaks, the others go on."""
        try:
            with self._shares[trainer]:
                return work()
        except RunFailure as failure:
            self._ends[trainer] = failure
        except Interrupted as stop:
            self._leave(stop.reason, trainer)
            raise
        return None

    def _leave(self, reason: str, left: Trainer) -> None:
        """Save all but the run that has left already."""
        for trainer in self._active:
            if trainer is not left:
                trainer.tally.validating |= trainer in self._stepped and trainer.validation.due()
                with suppress(Interrupted):
                    trainer.leave(reason)

    # ---------------------------------------------------------------- the step

    def step(self, trainers: list[Trainer]) -> None:
        """Take a step of each of these runs, which have begun and go on."""
        started = time.perf_counter()
        batches = [trainer.next_batch() for trainer in trainers]
        computed = self._gradients(trainers, batches)
        if computed is None:
            for trainer, x in zip(trainers, batches, strict=True):
                self._alone(trainer, partial(trainer.step_on, x))
            return
        for trainer, x, loss, gradient in zip(trainers, batches, *computed, strict=True):
            trainer.take_step(loss, gradient, len(x))
        self._charge(trainers, time.perf_counter() - started)

    def _charge(self, trainers: Sequence[Trainer], seconds: float) -> None:
        count = len(trainers)
        for trainer in trainers:
            self._shares[trainer].charge(seconds / count)
            trainer.tally.seconds_of_others += seconds - seconds / count
            trainer.tally.together = max(trainer.tally.together, count)

    def _gradients(
        self, trainers: list[Trainer], batches: Sequence[Batch]
    ) -> tuple[Float[Tensor, " runs"], Float[Tensor, "runs parameters"]] | None:
        """Return losses and gradients; None where each run has to take its step by itself."""
        alike = len({x.shape for x in batches}) == 1
        if self._one_by_one or len(trainers) < 2 or not alike:
            return None
        if self._batched != trainers:
            self._put_together(trainers, batches)
        return None if self._stacked is None else self._stacked.gradients(batches)

    def _put_together(self, trainers: Sequence[Trainer], batches: Sequence[Batch]) -> None:
        stacked = StackedModels([t.model for t in trainers], trainers[0].objective)
        try:
            if self._stacked is None:
                require_alike(stacked, trainers, batches)
        except DeclarationError as error:
            self._one_by_one = True
            trainers[0].reporter.message(f"{error.thing}: seeds take turns: {error.reason}")
            return
        for trainer, vector in zip(trainers, stacked.vectors, strict=True):
            trainer.state.unflatten()
            trainer.state.flatten(trainer.stage.optimizer, vector)
        self._batched, self._stacked = list(trainers), stacked


def align(trainers: Sequence[Trainer]) -> None:
    """Take runs back that have saved once more than others, so that all go on from one step.

    A process that is killed while it saves them leaves some a checkpoint ahead. Each step is to be
    computed in the company that it would have had: products of several matrices at once differ
    in rounding from those of one. A run that failed is not known to have: it fails again first.

    Args:
        trainers: Of one recipe, restored; their generators are held.
    """
    step = min((t.tally.step for t in trainers if t.ended() is None), default=math.inf)
    for trainer in trainers:
        if trainer.tally.step > step and trainer.checkpoint.go_back(trainer.state, int(step)):
            trainer.state.hold_generators()
            trainer.reporter.message(f"{trainer.shown_as} goes back to step {step}, as others do")


def require_alike(
    stacked: StackedModels, trainers: Sequence[Trainer], batches: Sequence[Batch]
) -> None:
    """Refuse runs whose gradients together are not what each of them has alone.

    Args:
        stacked: Their models, in training mode.
        trainers: The runs.
        batches: Of each one, which it has not yet taken a step on; its state stays as it is.

    Raises:
        DeclarationError: A model solves, draws noise, changes statistics in training, has rules
            for some parameters apart, or cannot be computed as one of a batch; or gradients differ
            by more than rounding.
    """
    name = type(trainers[0].model).__name__
    if isinstance(trainers[0].model, SolvesODE):
        raise DeclarationError(name, "its solver would choose one step for all", ONE_BY_ONE)
    if isinstance(trainers[0].model, DecaysSomeParameters):
        raise DeclarationError(name, "some parameters have rules of their own", ONE_BY_ONE)
    try:
        losses, gradients = stacked.gradients(batches)
    except Exception as error:
        reason = f"torch cannot batch it ({shortened(str(error))})"
        raise DeclarationError(name, reason, ONE_BY_ONE) from error
    for trainer, x, loss, gradient in zip(trainers, batches, losses, gradients, strict=True):
        _require_same(trainer, x, loss, gradient)


def _require_same(
    trainer: Trainer, x: Batch, loss: Float[Tensor, ""], gradient: Float[Tensor, " parameters"]
) -> None:
    """Compare with what autograd says of one model.

    Raises:
        DeclarationError: It has other gradients, or they cannot be taken twice.
    """
    model, noise = trainer.model, trainer.state.noise.get_state()
    buffers = [buffer.clone() for buffer in model.buffers()]
    own = trainer.loss(x)
    own.backward()
    gradients = [p.grad for p in model.parameters()]
    model.zero_grad(set_to_none=True)
    drew = not torch.equal(noise, trainer.state.noise.get_state())
    trainer.state.noise.set_state(noise)
    changed = [not torch.equal(*pair) for pair in zip(buffers, model.buffers(), strict=True)]
    for buffer, before in zip(model.buffers(), buffers, strict=True):
        buffer.copy_(before)
    reason = ""
    if drew:
        reason = "its training draws noise"
    elif any(changed):
        reason = "its statistics change in training"
    elif any(g is None for g in gradients):
        reason = "some parameters have no gradient"
    elif not _close(torch.cat([g.flatten() for g in gradients if g is not None]), gradient):
        reason = "its gradients are others together"
    elif not _close(own.detach(), loss):
        reason = "its losses are others together"
    if reason:
        raise DeclarationError(type(model).__name__, reason, ONE_BY_ONE)


def _close(one: Tensor, other: Tensor) -> bool:
    """Say whether two results differ by rounding at most."""
    tolerance = torch.finfo(one.dtype).eps ** 0.5
    return bool((one - other).norm() <= tolerance * one.norm())
